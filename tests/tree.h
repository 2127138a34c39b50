// A temporary directory for tests of files: root/ is what is served, with whatever names and links a table has,
// outside/ holds what nobody may ever get to see, work/ is for what a test makes itself.
// Include it after httpsrv.h.
//
//     static const struct entry tree[] = {{TEXT, "a.txt", NULL, 0}, {LINK, "b.txt", "a.txt", 0}};
//     make_tree(tree, sizeof tree / sizeof *tree, 1700000000, 1);
//     ... in_root("a.txt") ...
//     remove_tree();

#ifndef TEST_TREE_H
#define TEST_TREE_H

#include "test.h"
#include <fcntl.h>
#include <ftw.h>
#include <grp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#ifndef CONTENT_BYTES
#define CONTENT_BYTES 65536u // of the largest file with a size
#endif
#define SECRET "SECRET-OF-THE-OUTSIDE"
#define HIDDEN "HIDDEN-BY-A-DOT"
#define NOBODY 65534

enum kind { TEXT, SIZED, FOLDER, LINK, HARD, FIFO, SOCKET };

// A text file says its own path, unless `to` says something else; one with a size says the beginning of `content`. A
// link leads to `to`, "@" being the root.
struct entry {
    enum kind kind;
    const char *path, *to;
    int64_t size;
};

// Entries for tables. Names that are hidden:
#define HIDDEN_ENTRIES                                                                 \
    {TEXT, ".hidden", HIDDEN, 0}, {TEXT, "..x", HIDDEN, 0}, {FOLDER, ".git", NULL, 0}, \
        {TEXT, ".git/config", HIDDEN, 0}, {FOLDER, "...", NULL, 0}, {                  \
        TEXT, ".../file.txt", HIDDEN, 0                                                \
    }

// Links that are not followed, though some of them lead to "hello.txt" in the end:
#define HOSTILE_LINKS                                                                                      \
    {LINK, "top", "..", 0}, {LINK, "out.txt", "../outside/secret.txt", 0},                                 \
        {LINK, "out.abs", "@/../outside/secret.txt", 0}, {LINK, "out.d", "../outside", 0},                 \
        {LINK, "out.chain", "out.txt", 0}, {LINK, "there.and.back", "../root/hello.txt", 0},               \
        {LINK, "absolute.txt", "@/hello.txt", 0}, {LINK, "loop", "loop", 0},                               \
        {LINK, "via.loop", "loop/../hello.txt", 0}, {LINK, "dangling", "nothing", 0},                      \
        {LINK, "passwd", "/etc/passwd", 0}, {LINK, "slash", "/", 0}, {LINK, "proc", "/proc/self/root", 0}, \
        {FOLDER, "linked", NULL, 0}, {                                                                     \
        LINK, "linked/index.html", "../../outside/secret.txt", 0                                           \
    }

static char base[200]; // the temporary directory
static char content[CONTENT_BYTES];
static const struct entry *tree_entries;
static size_t tree_count;

// ---- paths ----

// A path in the temporary directory; good for as long as few others are asked for.
TEST_FN char *join(const char *folder, const char *name) {
    static char paths[64][1000];
    static unsigned turn;
    char *path = paths[turn++ % 64];
    CHECK_CMP(snprintf(path, sizeof paths[0], "%s/%s/%s", base, folder, name), <, (int)sizeof paths[0]);
    return path;
}

TEST_FN const char *in_root(const char *name) {
    return join("root", name);
}

TEST_FN const char *in_work(const char *name) {
    return join("work", name);
}

// ---- making ----

TEST_FN void set_mtime(const char *path, int64_t seconds, long nanoseconds) {
    const struct timespec times[2] = {{(time_t)seconds, nanoseconds}, {(time_t)seconds, nanoseconds}};
    CHECK_INT(utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW), 0);
}

TEST_FN void write_file(const char *path, const char *ptr, size_t len) {
    const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0) FAIL("cannot write %s: %s", path, strerror(errno));
    CHECK_INT(write(fd, ptr, len), (ssize_t)len);
    close(fd);
}

TEST_FN void write_text(const char *path, const char *text) {
    write_file(path, text, strlen(text));
}

TEST_FN void make_socket(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (strlen(path) >= sizeof address.sun_path) FAIL("TMPDIR is too long for a Unix socket");
    memcpy(address.sun_path, path, strlen(path) + 1);
    CHECK_INT(bind(fd, (const struct sockaddr *)&address, sizeof address), 0);
    close(fd);
}

TEST_FN void make_link(const char *path, const char *to) {
    char target[500];
    if (*to == '@')
        snprintf(target, sizeof target, "%s/root%s", base, to + 1);
    else
        snprintf(target, sizeof target, "%s", to);
    CHECK_INT(symlink(target, path), 0);
}

TEST_FN void make_entry(const struct entry *e) {
    const char *path = in_root(e->path);
    switch (e->kind) {
    case TEXT: write_text(path, e->to ? e->to : e->path); break;
    case SIZED: write_file(path, content, (size_t)e->size); break;
    case FOLDER: CHECK_INT(mkdir(path, 0755), 0); break;
    case LINK: make_link(path, e->to); break;
    case HARD: CHECK_INT(link(in_root(e->to), path), 0); break;
    case FIFO: CHECK_INT(mkfifo(path, 0644), 0); break;
    case SOCKET: make_socket(path); break;
    }
}

TEST_FN void make_base(void) {
    const char *temp = getenv("TMPDIR");
    snprintf(base, sizeof base, "%s/httpsrv-tree.XXXXXX", temp && *temp ? temp : "/tmp");
    umask(022);
    if (!mkdtemp(base)) FAIL("no temporary directory: %s", strerror(errno));
    CHECK_INT(chmod(base, 0755), 0);
    CHECK_INT(mkdir(in_root(""), 0755) | mkdir(in_work(""), 0755) | mkdir(join("outside", ""), 0755), 0);
    write_text(join("outside", "secret.txt"), SECRET);
}

// The table stays with the caller. Each entry is modified `step` seconds after the one before.
TEST_FN void make_tree(const struct entry *entries, size_t count, int64_t mtime, int64_t step) {
    tree_entries = entries;
    tree_count = count;
    for (size_t i = 0; i < sizeof content; i++)
        content[i] = (char)('!' + (i * 7 + i / 89) % 90);
    make_base();
    for (size_t i = 0; i < count; i++)
        make_entry(&entries[i]);
    for (size_t i = 0; i < count; i++)
        set_mtime(in_root(entries[i].path), mtime + (int64_t)i * step, 0);
}

TEST_FN int remove_entry(const char *path, const struct stat *info, int type, struct FTW *where) {
    (void)info;
    (void)type;
    (void)where;
    return remove(path);
}

// A folder that is locked has to be opened before.
TEST_FN void remove_tree(void) {
    if (base[0]) nftw(base, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

// ---- what should be there ----

// NULL if there is none.
TEST_FN const struct entry *find_entry(const char *path) {
    for (size_t i = 0; i < tree_count; i++)
        if (strcmp(tree_entries[i].path, path) == 0) return &tree_entries[i];
    return NULL;
}

TEST_FN const struct entry *entry_of(const char *path) {
    const struct entry *e = find_entry(path);
    if (!e) FAIL("no %s in the tree", path);
    return e;
}

TEST_FN httpsrv_str content_of(const char *path) {
    const struct entry *e = entry_of(path);
    if (e->kind == SIZED) return (httpsrv_str){content, (size_t)e->size};
    if (e->kind != TEXT) return content_of(e->to);
    const char *text = e->to ? e->to : e->path;
    return (httpsrv_str){text, strlen(text)};
}

// ---- as somebody else ----

// A user that owns nothing of the tree, if we are root. The leak checker wants to look at the process nevertheless.
TEST_FN void become_nobody(void) {
    if (geteuid() != 0) return;
    CHECK_INT(setgroups(0, NULL) | setresgid(NOBODY, NOBODY, NOBODY) | setresuid(NOBODY, NOBODY, NOBODY), 0);
    CHECK_INT(prctl(PR_SET_DUMPABLE, 1), 0);
    if (access(in_root(""), R_OK | X_OK) != 0) SKIP("TMPDIR is not open to other users");
}

#endif // TEST_TREE_H
