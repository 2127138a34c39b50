// A kernel that can be told to fail: stands before the calls of the >>platform room, of which a plan makes one go wrong,
// or all from one on. Only what a kernel may do is done: where an edge of epoll would follow a failure (EAGAIN, a call cut
// short), one does. Define HTTPSRV_SEAM as this file's name before httpsrv.h is included.

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

static inline int fault_socket(int family) {
    return fault_errno(FAULT_SOCKET) ? -1 : hsrv_sys_socket(family);
}
#define hsrv_sys_socket fault_socket

static inline int fault_setsockopt(int fd, int level, int name, int value) {
    return fault_errno(FAULT_SETSOCKOPT) ? -1 : hsrv_sys_setsockopt(fd, level, name, value);
}
#define hsrv_sys_setsockopt fault_setsockopt

static inline int fault_steer(int fd, hsrv_bpf *steps, size_t count) {
    return fault_errno(FAULT_SETSOCKOPT) ? -1 : hsrv_sys_steer(fd, steps, count);
}
#define hsrv_sys_steer fault_steer

static inline int fault_bind(int fd, const struct sockaddr *address, socklen_t len) {
    return fault_errno(FAULT_BIND) ? -1 : hsrv_sys_bind(fd, address, len);
}
#define hsrv_sys_bind fault_bind

static inline int fault_listen(int fd, int backlog) {
    return fault_errno(FAULT_LISTEN) ? -1 : hsrv_sys_listen(fd, backlog);
}
#define hsrv_sys_listen fault_listen

static inline int fault_getsockname(int fd, struct sockaddr *address, socklen_t *len) {
    return fault_errno(FAULT_GETSOCKNAME) ? -1 : hsrv_sys_getsockname(fd, address, len);
}
#define hsrv_sys_getsockname fault_getsockname

static inline int fault_accept(int fd, struct sockaddr *address, socklen_t *len) {
    if (fault_errno(FAULT_ACCEPT)) return -1;
    const int accepted = hsrv_sys_accept(fd, address, len);
    const int bytes = fault_send_buffer;
    if (accepted >= 0 && bytes > 0) setsockopt(accepted, SOL_SOCKET, SO_SNDBUF, &bytes, (socklen_t)sizeof bytes);
    return accepted;
}
#define hsrv_sys_accept fault_accept

static inline ssize_t fault_recv(int fd, void *buf, size_t size) {
    const int error = fault_due(FAULT_RECV);
    if (error == 0) return hsrv_sys_recv(fd, buf, size);
    if (error == EAGAIN || error == FAULT_SHORT) fault_edge(fd);
    if (error == FAULT_SHORT) return hsrv_sys_recv(fd, buf, size < 1 ? size : 1);
    errno = error;
    return -1;
}
#define hsrv_sys_recv fault_recv

static inline ssize_t fault_send(int fd, const void *buf, size_t len) {
    const int error = fault_due(FAULT_SEND);
    if (error == 0) return hsrv_sys_send(fd, buf, len);
    if (error == EAGAIN || error == FAULT_SHORT) fault_edge(fd);
    if (error == FAULT_SHORT) return hsrv_sys_send(fd, buf, len < 1 ? len : 1);
    errno = error;
    return -1;
}

static inline ssize_t fault_sendmsg(int fd, const struct msghdr *message, bool more) {
    const int error = fault_due(FAULT_SENDMSG);
    if (error == 0) return hsrv_sys_sendmsg(fd, message, more);
    if (error == EAGAIN || error == FAULT_SHORT) fault_edge(fd);
    if (error == FAULT_SHORT) return hsrv_sys_send(fd, message->msg_iov[0].iov_base, 1);
    errno = error;
    return -1;
}
#define hsrv_sys_send    fault_send
#define hsrv_sys_sendmsg fault_sendmsg

static inline int fault_shutdown_write(int fd) {
    return fault_errno(FAULT_SHUTDOWN) ? -1 : hsrv_sys_shutdown_write(fd);
}
#define hsrv_sys_shutdown_write fault_shutdown_write

static inline int fault_open_null(void) {
    return fault_errno(FAULT_OPEN_NULL) ? -1 : hsrv_sys_open_null();
}
#define hsrv_sys_open_null fault_open_null

static inline int fault_open_spool(const char *directory) {
    return fault_errno(FAULT_OPEN_SPOOL) ? -1 : hsrv_sys_open_spool(directory);
}
#define hsrv_sys_open_spool fault_open_spool

static inline ssize_t fault_write(int fd, const void *buf, size_t len) {
    const int error = fault_due(FAULT_WRITE);
    if (error == 0) return hsrv_sys_write(fd, buf, len);
    if (error == FAULT_SHORT) return hsrv_sys_write(fd, buf, len < 1 ? len : 1);
    errno = error;
    return -1;
}
#define hsrv_sys_write fault_write

static inline int fault_epoll_create(void) {
    return fault_errno(FAULT_EPOLL_CREATE) ? -1 : hsrv_sys_epoll_create();
}
#define hsrv_sys_epoll_create fault_epoll_create

static inline int fault_epoll_ctl(int epfd, int op, int fd, struct epoll_event *event) {
    if (fault_errno(op == EPOLL_CTL_ADD ? FAULT_EPOLL_ADD : FAULT_EPOLL_MOD)) return -1;
    if (op == EPOLL_CTL_ADD) fault_note_watch(epfd, fd, event);
    return hsrv_sys_epoll_ctl(epfd, op, fd, event);
}
#define hsrv_sys_epoll_ctl fault_epoll_ctl

static inline int fault_epoll_wait(int epfd, struct epoll_event *events, int size, int timeout_ms) {
    return fault_errno(FAULT_EPOLL_WAIT) ? -1 : hsrv_sys_epoll_wait(epfd, events, size, timeout_ms);
}
#define hsrv_sys_epoll_wait fault_epoll_wait

static inline int fault_eventfd(void) {
    return fault_errno(FAULT_EVENTFD) ? -1 : hsrv_sys_eventfd();
}
#define hsrv_sys_eventfd fault_eventfd

static inline int fault_futex_wait(uint32_t *word, uint32_t expected) {
    const int error = fault_due(FAULT_FUTEX_WAIT);
    if (error == FAULT_SPURIOUS) return 0;
    if (error == 0) return hsrv_sys_futex_wait(word, expected);
    errno = error;
    return -1;
}
#define hsrv_sys_futex_wait fault_futex_wait

// The same numbers in each run.
static inline ssize_t fault_random(void *buf, size_t size) {
    memset(buf, 7, size);
    return (ssize_t)size;
}
#define hsrv_sys_random fault_random

static inline int fault_descriptor_limit(uint64_t *soft) {
    return fault_errno(FAULT_GETRLIMIT) ? -1 : hsrv_sys_descriptor_limit(soft);
}
#define hsrv_sys_descriptor_limit fault_descriptor_limit

// Two CPUs, whatever the machine has.
static inline void fault_get_cpus(hsrv_cpus *cpus) {
    memset(cpus, 0, sizeof *cpus);
    cpus->mask[0] = 3;
    cpus->bytes = 8;
}
#define hsrv_sys_get_cpus fault_get_cpus

static inline void fault_set_cpus(const hsrv_cpus *cpus) {
    (void)cpus;
}
#define hsrv_sys_set_cpus fault_set_cpus

static int fault_late_ms; // what is started begins to run so much later

struct fault_start {
    void *(*fn)(void *);
    void *arg;
    int late_ms;
};

static inline void *fault_begin_late(void *arg) {
    const struct fault_start start = *(struct fault_start *)arg;
    free(arg);
    hsrv_sys_sleep_ms(start.late_ms);
    return start.fn(start.arg);
}

static inline int fault_thread_create(pthread_t *thread, void *(*fn)(void *), void *arg) {
    const int error = fault_due(FAULT_THREAD_CREATE);
    if (error || fault_late_ms == 0) return error ? error : hsrv_sys_thread_create(thread, fn, arg);
    struct fault_start *start = (struct fault_start *)malloc(sizeof *start);
    if (!start) return ENOMEM;
    *start = (struct fault_start){fn, arg, fault_late_ms};
    const int result = hsrv_sys_thread_create(thread, fault_begin_late, start);
    if (result != 0) free(start);
    return result;
}
#define hsrv_sys_thread_create fault_thread_create

#endif // SEAM_FAULTS_H
