// Paths of files: what httpsrv_files opens for a target, on a small tree with hostile names and links, compared with a
// walk through the table that the tree was made of. Nothing outside of the root may ever be opened, and nothing hidden.
// openat2 and the steps that stand in for it have to agree with each other, with the table, and with realpath(3).
//
// The text is the target, behind the prefix of a tree unless it begins with a slash; decoded, it is also opened as it is.
// Control: the first letter says which of the trees (path_mounts) it is.

#include "serve.h"
#include "target.h"

#include "../tree.h"
#include <limits.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define PATH_LINKS 40 // on one way, as Linux has it
#define PATH_ROOM  2000

static const struct entry path_tree[] = {
    {TEXT, "a", NULL, 0},
    {TEXT, "b.txt", NULL, 0},
    {FOLDER, "d", NULL, 0},
    {TEXT, "d/a", NULL, 0},
    {TEXT, "d/index.html", NULL, 0},
    {FOLDER, "d/e", NULL, 0},
    {TEXT, "d/e/f", NULL, 0},
    {FOLDER, "s", NULL, 0},
    {TEXT, "s/.h", HIDDEN, 0},
    {TEXT, "s/a", NULL, 0},
    {FOLDER, "i", NULL, 0},
    {FOLDER, "i/index.html", NULL, 0},
    {TEXT, ".h", HIDDEN, 0},
    {FOLDER, ".g", NULL, 0},
    {TEXT, ".g/c", HIDDEN, 0},
    {TEXT, "..x", HIDDEN, 0},
    {FOLDER, "...", NULL, 0},
    {TEXT, ".../f", HIDDEN, 0},
    {TEXT, "%2e", NULL, 0},
    {TEXT, "a%2fb", NULL, 0},
    {TEXT, "..%2fa", HIDDEN, 0},
    {TEXT, "\\", NULL, 0},
    {TEXT, "\xff", NULL, 0},
    {TEXT, " ", NULL, 0},
    {TEXT, "?", NULL, 0},
    {TEXT, "a\nb", NULL, 0},
    {HARD, "h", "a", 0},
    {FIFO, "fifo", NULL, 0},
    {SOCKET, "socket", NULL, 0},
    {LINK, "c", "/", 0},
    {LINK, "k", ".g/c", 0}, // a name without a dot: whoever made it wants it to be seen
    {LINK, "l", "a", 0},
    {LINK, "m", "d", 0},
    {LINK, "n", "nothing", 0},
    {LINK, "o", "../outside/secret.txt", 0},
    {LINK, "p", "../outside", 0},
    {LINK, "q", "d/", 0},
    {LINK, "r", "d/../../outside/secret.txt", 0},
    {LINK, "t", ".", 0},
    {LINK, "u", "..", 0},
    {LINK, "v", "../root/a", 0},
    {LINK, "w", "@/a", 0},
    {LINK, "x", "a/", 0},
    {LINK, "y", "m/e/../a", 0},
    {LINK, "z", "z", 0},
    {LINK, "zz", "z/../a", 0},
    {LINK, "d/up", "../a", 0},
    {LINK, "d/top", "../..", 0},
    {LINK, "d/e/root", "../..", 0},
    {LINK, "d/e/over", "../../../outside", 0},
    {FOLDER, "j", NULL, 0},
    {LINK, "j/index.html", "../../outside/secret.txt", 0},
};

static struct path_mount {
    const char *name; // the prefix, without its slash
    httpsrv_files_config config;
    const hsrv_mount *mount;
} path_mounts[] = {
    {"p", {.list = true, .max_open = -1}, NULL},
    {"l", {.links = true}, NULL},
    {"h", {.dot_files = true, .max_open = 1}, NULL},
    {"i", {.links = true, .list = true, .max_open = -1}, NULL},
    {"x", {.links = true, .dot_files = true, .list = true, .index = ""}, NULL},
};

#define PATH_MOUNTS ROWS(path_mounts)

static char path_root[PATH_MAX]; // where the root really is

static void path_make(void) {
    httpsrv *srv = fuzz_serve_new();
    make_tree(path_tree, ROWS(path_tree), 1000, 0);
    atexit(remove_tree);
    CHECK(realpath(in_root(""), path_root) != NULL);
    for (size_t i = 0; i < PATH_MOUNTS; i++) {
        char prefix[10];
        snprintf(prefix, sizeof prefix, "/%s", path_mounts[i].name);
        path_mounts[i].config.root = in_root("");
        CHECK_INT(httpsrv_files(srv, prefix, &path_mounts[i].config), HTTPSRV_OK);
        path_mounts[i].mount = srv->mounts;
    }
    fuzz_serve(srv);
}

// ---- plainly: where a way leads ----

struct path_walk {
    char place[PATH_ROOM]; // "" is the root
    int links;             // that may still be followed
};

static bool path_follow(struct path_walk *w, const char *way);

static enum kind path_kind(const struct path_walk *w) {
    return w->place[0] ? entry_of(w->place)->kind : FOLDER;
}

static bool path_leave(struct path_walk *w) {
    char *slash = strrchr(w->place, '/');
    if (!w->place[0]) return false; // out of the root
    *(slash ? slash : w->place) = 0;
    return true;
}

// To a name in the folder where we are.
static bool path_enter(struct path_walk *w, const char *name, size_t len) {
    char next[PATH_ROOM];
    if (path_kind(w) != FOLDER) return false;
    if (len == 0 || (len == 1 && name[0] == '.')) return true;
    if (len == 2 && memcmp(name, "..", 2) == 0) return path_leave(w);
    CHECK_CMP(snprintf(next, sizeof next, "%s%s%.*s", w->place, w->place[0] ? "/" : "", (int)len, name), <, PATH_ROOM);
    const struct entry *e = find_entry(next);
    if (!e) return false;
    if (e->kind == LINK) return w->links-- > 0 && !among(e->to[0], "/@") && path_follow(w, e->to);
    memcpy(w->place, next, sizeof next);
    return true;
}

// Segment by segment: what stands in front of a slash has to be a folder.
static bool path_follow(struct path_walk *w, const char *way) {
    for (;;) {
        size_t len = strcspn(way, "/");
        if (!path_enter(w, way, len)) return false;
        if (!way[len]) return true;
        way += len + 1;
    }
}

static bool path_leads(struct path_walk *w, const char *way, bool links) {
    memset(w, 0, sizeof *w);
    w->links = links ? PATH_LINKS : 0;
    return path_follow(w, way);
}

// What a way leads to, if it may be opened: a folder, a file (TEXT), or nothing (FIFO).
static enum kind path_find(struct path_walk *w, const char *way, bool links) {
    enum kind kind = path_leads(w, way, links) ? path_kind(w) : FIFO;
    return kind == HARD ? TEXT : kind == SOCKET ? FIFO : kind;
}

// ---- what is opened ----

struct path_seen {
    enum kind kind; // TEXT, FOLDER, FIFO
    ino_t inode;
    char place[PATH_MAX];
};

static struct path_seen path_look(int fd) {
    struct path_seen seen;
    struct stat status;
    char name[40];
    memset(&seen, 0, sizeof seen);
    seen.kind = FIFO;
    if (fd < 0) return seen;
    CHECK_INT(fstat(fd, &status), 0);
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    CHECK_CMP(readlink(name, seen.place, sizeof seen.place - 1), >, 0);
    seen.inode = status.st_ino;
    seen.kind = S_ISDIR(status.st_mode) ? FOLDER : S_ISREG(status.st_mode) ? TEXT : FIFO;
    close(fd);
    return seen;
}

static void path_check_seen(const struct path_seen *seen, const struct path_walk *w, enum kind kind, const char *way) {
    char expected[2 * PATH_MAX], asked[2 * PATH_MAX], real[PATH_MAX];
    CHECK_INT(seen->kind, kind);
    if (kind == FIFO) return;
    snprintf(expected, sizeof expected, "%s%s%s", path_root, w->place[0] ? "/" : "", w->place);
    snprintf(asked, sizeof asked, "%s/%s", path_root, way);
    CHECK_STR(seen->place, expected);
    CHECK(realpath(asked, real) != NULL);
    CHECK_STR(real, expected);
}

static void path_check_open(const struct path_mount *m, const char *way) {
    struct path_walk w;
    enum kind kind = path_find(&w, way, m->config.links);
    int descriptors = test_descriptors();
    struct path_seen seen = path_look(hsrv_content_open_path(m->mount, way));
    struct path_seen walked = path_look(hsrv_content_open_checked(m->mount, *way ? way : "."));
    path_check_seen(&seen, &w, kind, way);
    path_check_seen(&walked, &w, kind, way);
    CHECK_INT(test_descriptors(), descriptors);
}

// What is asked for is never absolute, and has no empty segments: the server sees to that before it opens anything.
static bool path_may_be_opened(const struct bytes *way) {
    if (way->len > PATH_ROOM / 4 || memchr(way->ptr, 0, way->len)) return false;
    return way->len == 0 || (way->ptr[0] != '/' && way->ptr[way->len - 1] != '/' && !strstr(way->ptr, "//"));
}

static void path_try_open(const struct path_mount *m, httpsrv_str text) {
    struct bytes way = {NULL, 0, 0};
    if (target_decode(text, false, &way) && path_may_be_opened(&way)) path_check_open(m, way.ptr);
    release_bytes(&way);
}

// ---- plainly: what is answered ----

struct path_wish {
    int status;
    const httpsrv_files_config *listing; // of a folder, for whom
    struct path_walk way;                // to the file
};

static bool path_ends_with_slash(const struct bytes *rest) {
    return rest->len == 0 || rest->ptr[rest->len - 1] == '/';
}

static bool path_hidden(const struct bytes *rest, bool dot_files) {
    if (rest->len && rest->ptr[0] == '/') return true;
    if (strstr(rest->ptr, "//")) return true;
    return !dot_files && (rest->ptr[0] == '.' || strstr(rest->ptr, "/."));
}

static struct path_wish path_expected_folder(const httpsrv_files_config *config, const struct bytes *rest) {
    struct path_wish wish;
    struct bytes way = {NULL, 0, 0};
    bool indexed = !config->index;
    memset(&wish, 0, sizeof wish);
    append(&way, rest->ptr, rest->len);
    append_text(&way, "index.html");
    wish.status = indexed && path_find(&wish.way, way.ptr, config->links) == TEXT ? 200 : 404;
    if (wish.status == 404 && config->list && path_find(&wish.way, rest->ptr, config->links) == FOLDER) {
        wish.status = 200;
        wish.listing = config;
    }
    release_bytes(&way);
    return wish;
}

// Behind the prefix, decoded.
static struct path_wish path_expected_rest(const httpsrv_files_config *config, const struct bytes *rest) {
    struct path_wish wish;
    memset(&wish, 0, sizeof wish);
    wish.status = 404;
    if (path_hidden(rest, config->dot_files)) return wish;
    if (path_ends_with_slash(rest)) return path_expected_folder(config, rest);
    enum kind kind = path_find(&wish.way, rest->ptr, config->links);
    wish.status = kind == TEXT ? 200 : kind == FOLDER ? 301 : 404;
    return wish;
}

// The tree of the first segment, or NULL.
static const struct path_mount *path_mount_of(const struct target_path *path) {
    for (size_t i = 0; path->num && i < PATH_MOUNTS; i++)
        if (target_says(path->segments[0], false, hsrv_text_of(path_mounts[i].name))) return &path_mounts[i];
    return NULL;
}

static bool path_hides_slash(const struct bytes *path) {
    return strstr(path->ptr, "%2f") || strstr(path->ptr, "%2F");
}

// `resolved` is without dots, and still encoded.
static struct path_wish path_expected(const struct bytes *resolved) {
    static struct target_path path;
    struct path_wish wish;
    memset(&wish, 0, sizeof wish);
    wish.status = 404;
    target_split(hsrv_text_view(resolved->ptr, resolved->len), &path);
    const struct path_mount *m = path_mount_of(&path);
    if (m && path.num == 1) wish.status = 301;
    if (!m || path.num == 1 || path_hides_slash(resolved)) return wish;
    struct bytes rest = {NULL, 0, 0};
    const char *at = path.segments[1].ptr;
    CHECK(target_decode(hsrv_text_view(at, (size_t)(resolved->ptr + resolved->len - at)), false, &rest));
    wish = path_expected_rest(&m->config, &rest);
    release_bytes(&rest);
    return wish;
}

// ---- an answer ----

static void path_check_redirect(const struct bytes *resolved, httpsrv_str query) {
    struct bytes expected = {NULL, 0, 0};
    append(&expected, resolved->ptr, resolved->len);
    append_text(&expected, query.ptr ? "/?" : "/");
    append_view(&expected, query);
    CHECK_STR(field(&fuzz_client, "Location"), expected.ptr);
    CHECK(expected.ptr[1] != '/'); // that would be another host
    release_bytes(&expected);
}

static void path_check_answer(const struct path_wish *wish) {
    const struct client *c = &fuzz_client;
    CHECK_INT(c->status, wish->status);
    CHECK(!memmem(c->body, c->body_len, SECRET, strlen(SECRET)));
    if (c->status != 200) return;
    CHECK_INT(strcmp(field(c, "Content-Type"), "text/html; charset=utf-8") == 0,
              wish->listing != NULL || strstr(wish->way.place, ".html"));
    if (wish->listing) return;
    httpsrv_str expected = content_of(wish->way.place);
    CHECK_MEM(c->body, c->body_len, expected.ptr, expected.len);
}

// No name in a listing that would not be served: with a dot in front of it, or of a link.
static void path_check_listing(const httpsrv_files_config *config) {
    const struct client *c = &fuzz_client;
    CHECK_INT(strncmp(c->body, "<!doctype html>", 15), 0);
    if (!config->links) CHECK(!memmem(c->body, c->body_len, "\"./l\"", 5));
    if (!config->links) CHECK(!memmem(c->body, c->body_len, "\"./up\"", 6));
    if (config->dot_files) return;
    CHECK(!memmem(c->body, c->body_len, "\"./.", 4));
    CHECK(!memmem(c->body, c->body_len, ">.h", 3));
}

static void path_ask(httpsrv_str target) {
    static struct bytes request;
    request.len = 0;
    append_text(&request, "GET ");
    append_view(&request, target);
    append_text(&request, " HTTP/1.1\r\nHost: a\r\n\r\n");
    fuzz_ask(&request, false);
}

static void path_check_target(httpsrv_str target, httpsrv_str path, httpsrv_str query) {
    struct bytes resolved = {NULL, 0, 0};
    struct path_wish wish;
    memset(&wish, 0, sizeof wish);
    wish.status = 400;
    if (target_resolve(path, &resolved)) wish = path_expected(&resolved);
    path_ask(target);
    path_check_answer(&wish);
    if (wish.status == 301) path_check_redirect(&resolved, query);
    if (wish.listing) path_check_listing(wish.listing);
    release_bytes(&resolved);
}

static void path_try_target(httpsrv_str target) {
    httpsrv_str path = {target.ptr, 0}, query = {NULL, 0};
    while (path.len < target.len && path.ptr[path.len] != '?')
        path.len++;
    if (path.len < target.len) query = hsrv_text_view(path.ptr + path.len + 1, target.len - path.len - 1);
    if (!target_is_path(path) || !all_of(query, ORACLE_UNRESERVED ORACLE_SUB_DELIMS ":@/?", true)) return;
    path_check_target(target, path, query);
}

// On the connection that is there; what is kept open by the server are small files, which are in memory.
static void path_try_target_twice(httpsrv_str target) {
    path_try_target(target);
    int descriptors = test_descriptors();
    bool lasts = fuzz_client.fd >= 0 && !fuzz_client.close;
    path_try_target(target);
    if (lasts && !fuzz_client.close) CHECK_INT(test_descriptors(), descriptors);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct fuzz_input in = fuzz_open(data, size);
    struct bytes target = {NULL, 0, 0};
    if (!fuzz_server) path_make();
    const struct path_mount *m = &path_mounts[fuzz_control(&in, 0) % PATH_MOUNTS];
    if (in.text.len < PATH_ROOM / 4) {
        path_try_open(m, hsrv_text_view(in.text.ptr, in.text.len));
        if (!in.text.len || in.text.ptr[0] != '/') {
            append_text(&target, "/");
            append_text(&target, m->name);
            append_text(&target, "/");
        }
        append(&target, in.text.ptr, in.text.len);
        path_try_target_twice(hsrv_text_view(target.ptr, target.len));
    }
    release_bytes(&target);
    fuzz_close(&in);
    return 0;
}
