// A kernel that can be told to fail: replaces the calls of the >>platform room by the same calls, of which a plan makes
// one go wrong, or all from one on. Only what a kernel may do is done: where an edge of epoll would follow a failure
// (EAGAIN, a call cut short), one does. Define HTTPSRV_SEAM as this file's name before httpsrv.h is included.

#ifndef SEAM_FAULTS_H
#define SEAM_FAULTS_H

#define FAULT_CALLS(X)                                                               \
    X(ALLOC, "allocation") /* no system call: asked about by the test's allocator */ \
    X(SOCKET, "socket")                                                              \
    X(SETSOCKOPT, "setsockopt")                                                      \
    X(BIND, "bind")                                                                  \
    X(LISTEN, "listen")                                                              \
    X(GETSOCKNAME, "getsockname")                                                    \
    X(ACCEPT, "accept")                                                              \
    X(RECV, "recv")                                                                  \
    X(SEND, "send")                                                                  \
    X(SENDMSG, "sendmsg")                                                            \
    X(SHUTDOWN, "shutdown")                                                          \
    X(OPEN_NULL, "open")                                                             \
    X(OPEN_SPOOL, "open of a spool file")                                            \
    X(WRITE, "write")                                                                \
    X(EPOLL_CREATE, "epoll_create")                                                  \
    X(EPOLL_ADD, "epoll_ctl that adds")                                              \
    X(EPOLL_MOD, "epoll_ctl that modifies")                                          \
    X(EPOLL_WAIT, "epoll_wait")                                                      \
    X(EVENTFD, "eventfd")                                                            \
    X(FUTEX_WAIT, "futex wait")                                                      \
    X(GETRLIMIT, "getrlimit")                                                        \
    X(THREAD_CREATE, "pthread_create")

enum fault_call {
#define FAULT_X(name, text) FAULT_##name,
    FAULT_CALLS(FAULT_X)
#undef FAULT_X
};

static inline const char *fault_name(int call) {
    static const char *const names[] = {
#define FAULT_X(name, text) text,
        FAULT_CALLS(FAULT_X)
#undef FAULT_X
    };
    return names[call];
}

// What a failing call does beside giving an errno.
#define FAULT_SHORT    10001 // transfers one byte
#define FAULT_SPURIOUS 10002 // returns as if it had waited

// A set of calls, to fail several kinds at a time.
#define FAULT_ONE(call) (1u << (call))

// Atomics, as all threads look. Set with fault_begin.
static struct fault_plan {
    unsigned set; // of enum fault_call
    int error;
    size_t nth;   // the first call that fails, from 1
    bool lasting; // so do all after it
    size_t calls, failed;
} fault_plan;

static int fault_send_buffer; // bytes of SO_SNDBUF of what is accepted; 0: the kernel's choice

static inline void fault_begin(unsigned set, int error, size_t nth, bool lasting) {
    __atomic_store_n(&fault_plan.set, 0u, __ATOMIC_SEQ_CST);
    __atomic_store_n(&fault_plan.error, error, __ATOMIC_RELAXED);
    __atomic_store_n(&fault_plan.nth, nth, __ATOMIC_RELAXED);
    __atomic_store_n(&fault_plan.lasting, lasting, __ATOMIC_RELAXED);
    __atomic_store_n(&fault_plan.calls, (size_t)0, __ATOMIC_RELAXED);
    __atomic_store_n(&fault_plan.failed, (size_t)0, __ATOMIC_RELAXED);
    __atomic_store_n(&fault_plan.set, set, __ATOMIC_SEQ_CST);
}

// From now on all calls succeed again. Returns how many have failed.
static inline size_t fault_end(void) {
    __atomic_store_n(&fault_plan.set, 0u, __ATOMIC_SEQ_CST);
    return __atomic_load_n(&fault_plan.failed, __ATOMIC_SEQ_CST);
}

static inline int fault_error(void) {
    return __atomic_load_n(&fault_plan.error, __ATOMIC_RELAXED);
}

static inline size_t fault_count(void) {
    return __atomic_load_n(&fault_plan.failed, __ATOMIC_RELAXED);
}

// How this call has to fail: an errno, FAULT_SHORT, FAULT_SPURIOUS, or 0 if it has not.
static inline int fault_due(int call) {
    if (!(__atomic_load_n(&fault_plan.set, __ATOMIC_SEQ_CST) & FAULT_ONE(call))) return 0;
    const size_t number = __atomic_add_fetch(&fault_plan.calls, 1, __ATOMIC_RELAXED);
    const size_t nth = __atomic_load_n(&fault_plan.nth, __ATOMIC_RELAXED);
    if (number < nth || (number > nth && !__atomic_load_n(&fault_plan.lasting, __ATOMIC_RELAXED))) return 0;
    __atomic_add_fetch(&fault_plan.failed, 1, __ATOMIC_SEQ_CST);
    return __atomic_load_n(&fault_plan.error, __ATOMIC_RELAXED);
}

// Sets errno if the call has to fail.
static inline bool fault_errno(int call) {
    const int error = fault_due(call);
    if (error) errno = error;
    return error != 0;
}

// ---- edges: what is watched, so that one can be had again ----

#define FAULT_MAX_FD 4096

struct fault_watch {
    int epfd;
    struct epoll_event event;
};

static struct fault_watch fault_watches[FAULT_MAX_FD];
static pthread_mutex_t fault_lock = PTHREAD_MUTEX_INITIALIZER;

static inline void fault_note_watch(int epfd, int fd, const struct epoll_event *event) {
    if (fd < 0 || fd >= FAULT_MAX_FD) return;
    pthread_mutex_lock(&fault_lock);
    fault_watches[fd].epfd = epfd;
    fault_watches[fd].event = *event;
    pthread_mutex_unlock(&fault_lock);
}

// Watching a descriptor anew makes the kernel report what it is ready for once more.
static inline void fault_edge(int fd) {
    if (fd < 0 || fd >= FAULT_MAX_FD) return;
    const int before = errno;
    pthread_mutex_lock(&fault_lock);
    struct fault_watch watch = fault_watches[fd];
    pthread_mutex_unlock(&fault_lock);
    epoll_ctl(watch.epfd, EPOLL_CTL_MOD, fd, &watch.event);
    errno = before;
}

// ---- the calls ----

static inline int hsrv_sys_socket(int family) {
    if (fault_errno(FAULT_SOCKET)) return -1;
    return socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

static inline int hsrv_sys_setsockopt(int fd, int level, int name, int value) {
    if (fault_errno(FAULT_SETSOCKOPT)) return -1;
    return setsockopt(fd, level, name, &value, (socklen_t)sizeof value);
}

static inline int hsrv_sys_bind(int fd, const struct sockaddr *address, socklen_t len) {
    if (fault_errno(FAULT_BIND)) return -1;
    return bind(fd, address, len);
}

static inline int hsrv_sys_listen(int fd, int backlog) {
    if (fault_errno(FAULT_LISTEN)) return -1;
    return listen(fd, backlog);
}

static inline int hsrv_sys_connect(int fd, const struct sockaddr *address, socklen_t len) {
    return connect(fd, address, len);
}

static inline int hsrv_sys_fchmod(int fd, unsigned mode) {
    return fchmod(fd, (mode_t)mode);
}

static inline int hsrv_sys_chmod(const char *path, unsigned mode) {
    return chmod(path, (mode_t)mode);
}

static inline int hsrv_sys_unlink(const char *path) {
    return unlink(path);
}

static inline bool hsrv_sys_is_socket(const char *path) {
    struct stat status;
    return lstat(path, &status) == 0 && S_ISSOCK(status.st_mode);
}

static inline int hsrv_sys_copy_listener(int fd) {
    return fcntl(fd, F_DUPFD_CLOEXEC, 3);
}

static inline int hsrv_sys_getsockname(int fd, struct sockaddr *address, socklen_t *len) {
    if (fault_errno(FAULT_GETSOCKNAME)) return -1;
    return getsockname(fd, address, len);
}

static inline int hsrv_sys_accept(int fd, struct sockaddr *address, socklen_t *len) {
    if (fault_errno(FAULT_ACCEPT)) return -1;
    const int accepted = accept4(fd, address, len, SOCK_CLOEXEC | SOCK_NONBLOCK);
    const int bytes = fault_send_buffer;
    if (accepted >= 0 && bytes > 0) setsockopt(accepted, SOL_SOCKET, SO_SNDBUF, &bytes, (socklen_t)sizeof bytes);
    return accepted;
}

static inline ssize_t hsrv_sys_recv(int fd, void *buf, size_t size) {
    const int error = fault_due(FAULT_RECV);
    if (error == 0) return recv(fd, buf, size, 0);
    if (error == EAGAIN || error == FAULT_SHORT) fault_edge(fd);
    if (error == FAULT_SHORT) return recv(fd, buf, size < 1 ? size : 1, 0);
    errno = error;
    return -1;
}

static inline ssize_t hsrv_sys_send(int fd, const void *buf, size_t len) {
    const int error = fault_due(FAULT_SEND);
    if (error == 0) return send(fd, buf, len, MSG_NOSIGNAL);
    if (error == EAGAIN || error == FAULT_SHORT) fault_edge(fd);
    if (error == FAULT_SHORT) return send(fd, buf, len < 1 ? len : 1, MSG_NOSIGNAL);
    errno = error;
    return -1;
}

static inline ssize_t hsrv_sys_sendmsg(int fd, const struct msghdr *message, bool more) {
    const int error = fault_due(FAULT_SENDMSG);
    if (error == 0) return sendmsg(fd, message, MSG_NOSIGNAL | (more ? MSG_MORE : 0));
    if (error == EAGAIN || error == FAULT_SHORT) fault_edge(fd);
    if (error == FAULT_SHORT) return send(fd, message->msg_iov[0].iov_base, 1, MSG_NOSIGNAL);
    errno = error;
    return -1;
}

// Raises SIGPIPE like write(2), see hsrv_loop_shield.
static inline ssize_t hsrv_sys_sendfile(int fd, int file, int64_t offset, size_t len) {
    off_t at = (off_t)offset;
    return sendfile(fd, file, &at, len);
}

static inline ssize_t hsrv_sys_pread(int fd, void *buf, size_t len, int64_t offset) {
    return pread(fd, buf, len, (off_t)offset);
}

// Says that a file will be read soon, from the disk if need be.
static inline void hsrv_sys_read_ahead(int fd, int64_t len) {
    posix_fadvise(fd, 0, (off_t)len, POSIX_FADV_WILLNEED);
}

static inline int hsrv_sys_fstat(int fd, struct stat *status) {
    return fstat(fd, status);
}

#ifndef O_PATH
#define O_PATH 010000000
#endif

// A directory, as a place to look things up from.
static inline int hsrv_sys_open_root(const char *path) {
    return open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

static inline int hsrv_sys_open_file(const char *path) {
    return open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
}

#if !defined(HTTPSRV_NO_OPENAT2) && !defined(SYS_openat2)
#define SYS_openat2 437 // the same for all architectures
#endif

// Opens what is beneath a directory and nowhere else, by openat2(2): no link, or none that leads out. ENOSYS where the
// kernel has no such call, EPERM where a filter of calls hides it.
static inline int hsrv_sys_open_beneath(int root, const char *path, bool links) {
#ifdef HTTPSRV_NO_OPENAT2
    (void)root;
    (void)path;
    (void)links;
    errno = ENOSYS;
    return -1;
#else
    struct {
        uint64_t flags, mode, resolve;
    } how;
    how.flags = O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
    how.mode = 0;
    how.resolve = 0x08 | 0x02 | (links ? 0 : 0x04); // RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS
    return (int)syscall(SYS_openat2, root, path, &how, sizeof how);
#endif
}

// One step of the way without it: a name in a directory, as a place only, which opens nothing yet; of a link, itself.
static inline int hsrv_sys_open_place(int directory, const char *name) {
    return openat(directory, name, O_PATH | O_CLOEXEC | O_NOFOLLOW);
}

// What a link says that was opened so. The length, or -1.
static inline ssize_t hsrv_sys_read_link(int link, char *buf, size_t size) {
    return readlinkat(link, "", buf, size);
}

// Where a descriptor's file is. The length, or -1.
static inline ssize_t hsrv_sys_path_of(int fd, char *buf, size_t size) {
    char name[40];
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    return readlink(name, buf, size);
}

// Opens the file that a place is.
static inline int hsrv_sys_open_at_place(int place) {
    char name[40];
    snprintf(name, sizeof name, "/proc/self/fd/%d", place);
    return open(name, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
}

// Takes the descriptor over; NULL leaves it.
static inline DIR *hsrv_sys_open_list(int fd) {
    return fdopendir(fd);
}

// The next name in a directory, and whether it is one, or a link; NULL at the end.
static inline const char *hsrv_sys_next_name(DIR *list, bool *is_directory, bool *is_link) {
    const struct dirent *entry = readdir(list);
    *is_directory = entry && entry->d_type == DT_DIR;
    *is_link = entry && entry->d_type == DT_LNK;
    return entry ? entry->d_name : NULL;
}

static inline void hsrv_sys_close_list(DIR *list) {
    closedir(list);
}

// Keeps SIGPIPE from the calling thread. `pending` says that one waits already, which is somebody else's.
static inline void hsrv_sys_block_sigpipe(sigset_t *before, bool *pending) {
    sigset_t pipe;
    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe, before);
    sigset_t waiting;
    sigemptyset(&waiting);
    *pending = sigpending(&waiting) == 0 && sigismember(&waiting, SIGPIPE) == 1;
}

// Takes back what was done, and swallows a signal that came meanwhile.
static inline void hsrv_sys_unblock_sigpipe(const sigset_t *before, bool pending) {
    sigset_t pipe;
    const struct timespec none = {0, 0};
    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    while (!pending && sigtimedwait(&pipe, NULL, &none) < 0 && errno == EINTR) {}
    pthread_sigmask(SIG_SETMASK, before, NULL);
}

static inline int hsrv_sys_shutdown_write(int fd) {
    if (fault_errno(FAULT_SHUTDOWN)) return -1;
    return shutdown(fd, SHUT_WR);
}

static inline uint32_t hsrv_sys_unsent(int fd) {
    int n = 0;
    return ioctl(fd, TIOCOUTQ, &n) == 0 && n > 0 ? (uint32_t)n : 0u;
}

static inline int hsrv_sys_reset_on_close(int fd) {
    const struct linger hard = {1, 0};
    return setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, (socklen_t)sizeof hard);
}

static inline int hsrv_sys_close(int fd) {
    return close(fd);
}

static inline int hsrv_sys_open_null(void) {
    if (fault_errno(FAULT_OPEN_NULL)) return -1;
    return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static inline int hsrv_sys_open_spool(const char *directory) {
    char path[200];
    if (fault_errno(FAULT_OPEN_SPOOL)) return -1;
    snprintf(path, sizeof path, "%s/spool-XXXXXX", directory);
    const int fd = mkstemp(path);
    if (fd >= 0) unlink(path);
    return fd;
}

static inline ssize_t hsrv_sys_write(int fd, const void *buf, size_t len) {
    const int error = fault_due(FAULT_WRITE);
    if (error == 0) return write(fd, buf, len);
    if (error == FAULT_SHORT) return write(fd, buf, len < 1 ? len : 1);
    errno = error;
    return -1;
}

static inline int hsrv_sys_rewind(int fd) {
    return lseek(fd, 0, SEEK_SET) == 0 ? 0 : -1;
}

static inline int hsrv_sys_epoll_create(void) {
    if (fault_errno(FAULT_EPOLL_CREATE)) return -1;
    return epoll_create1(EPOLL_CLOEXEC);
}

static inline int hsrv_sys_epoll_ctl(int epfd, int op, int fd, struct epoll_event *event) {
    if (fault_errno(op == EPOLL_CTL_ADD ? FAULT_EPOLL_ADD : FAULT_EPOLL_MOD)) return -1;
    if (op == EPOLL_CTL_ADD) fault_note_watch(epfd, fd, event);
    return epoll_ctl(epfd, op, fd, event);
}

static inline int hsrv_sys_epoll_wait(int epfd, struct epoll_event *events, int size, int timeout_ms) {
    if (fault_errno(FAULT_EPOLL_WAIT)) return -1;
    return epoll_wait(epfd, events, size, timeout_ms);
}

static inline int hsrv_sys_eventfd(void) {
    if (fault_errno(FAULT_EVENTFD)) return -1;
    return eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
}

static inline ssize_t hsrv_sys_eventfd_add(int fd) {
    const uint64_t one = 1;
    return write(fd, &one, sizeof one);
}

#ifndef SYS_futex
#define SYS_futex SYS_futex_time64
#endif

static inline int hsrv_sys_futex_wait(uint32_t *word, uint32_t expected) {
    const int error = fault_due(FAULT_FUTEX_WAIT);
    if (error == FAULT_SPURIOUS) return 0;
    if (error == 0) return (int)syscall(SYS_futex, word, 128, expected, NULL, NULL, 0);
    errno = error;
    return -1;
}

static inline int hsrv_sys_futex_wake(uint32_t *word, int count) {
    return (int)syscall(SYS_futex, word, 129, count, NULL, NULL, 0);
}

static inline uint64_t hsrv_sys_monotonic_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
    return (uint64_t)t.tv_sec * 1000u + (uint64_t)t.tv_nsec / 1000000u;
}

static inline int64_t hsrv_sys_unix_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME_COARSE, &t);
    return (int64_t)t.tv_sec;
}

static inline ssize_t hsrv_sys_random(void *buf, size_t size) {
    memset(buf, 7, size);
    return (ssize_t)size;
}

static inline void hsrv_sys_sleep_ms(long ms) {
    struct timespec t;
    t.tv_sec = (time_t)(ms / 1000);
    t.tv_nsec = (ms % 1000) * 1000000L;
    nanosleep(&t, NULL);
}

static inline int hsrv_sys_descriptor_limit(uint64_t *soft) {
    struct rlimit limit;
    if (fault_errno(FAULT_GETRLIMIT) || getrlimit(RLIMIT_NOFILE, &limit) != 0) return -1;
    *soft = (uint64_t)limit.rlim_cur;
    return 0;
}

typedef struct hsrv_cpus {
    unsigned long mask[64];
    long bytes;
} hsrv_cpus;

static inline void hsrv_sys_get_cpus(hsrv_cpus *cpus) {
    memset(cpus, 0, sizeof *cpus);
    cpus->mask[0] = 3;
    cpus->bytes = 8;
}

static inline void hsrv_sys_set_cpus(const hsrv_cpus *cpus) {
    (void)cpus;
}

static inline int hsrv_sys_thread_create(pthread_t *thread, void *(*fn)(void *), void *arg) {
    const int error = fault_due(FAULT_THREAD_CREATE);
    return error ? error : pthread_create(thread, NULL, fn, arg);
}

static inline int hsrv_sys_thread_join(pthread_t thread) {
    return pthread_join(thread, NULL);
}

#endif // SEAM_FAULTS_H
