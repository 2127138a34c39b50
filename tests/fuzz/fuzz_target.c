// The way from a request target to a route: forms, path, query, authority, router, parameters. What the parser takes is
// followed through the server's own functions and compared with a naive reading of the same words.
//
// Three lines: a letter for the method (target_methods; the line may be longer), the target, a name to be looked up in
// its query. All of the text is tried as an authority and as something to be decoded, too.

#include "target.h"
#include <ctype.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

// ---- bytes ----

static void target_check_decoded(httpsrv_str actual, httpsrv_str encoded, bool plus) {
    struct bytes expected = {NULL, 0, 0};
    CHECK(target_decode(encoded, plus, &expected));
    CHECK_MEM(actual.ptr, actual.len, expected.ptr, expected.len);
    release_bytes(&expected);
}

// A view in a block of its own, with nothing behind it.
static httpsrv_str target_block(httpsrv_str s) {
    httpsrv_str block = {(const char *)malloc(s.len), s.len};
    CHECK(s.len == 0 || block.ptr);
    if (s.len) memcpy((char *)(uintptr_t)block.ptr, s.ptr, s.len);
    return block;
}

static void target_free(httpsrv_str block) {
    free((void *)(uintptr_t)block.ptr);
}

// ---- the functions of >>text on any bytes ----

static void target_try_decode(httpsrv_str text) {
    struct bytes expected = {NULL, 0, 0};
    bool valid = target_decode(text, false, &expected);
    httpsrv_str block = target_block(text);
    CHECK_INT(hsrv_text_escapes_valid(block), valid);
    if (valid) {
        char *in_place = (char *)(uintptr_t)block.ptr;
        httpsrv_str plain = {expected.ptr, expected.len};
        CHECK(hsrv_text_decoded_equal(block, plain, false));
        plain.len -= plain.len > 0;
        CHECK(text.len == 0 || !hsrv_text_decoded_equal(block, plain, false));
        size_t len = hsrv_text_decode(in_place, block, false);
        CHECK_CMP(len, <=, text.len);
        CHECK(len == expected.len && (len == 0 || memcmp(in_place, expected.ptr, len) == 0));
    }
    target_free(block);
    release_bytes(&expected);
}

static void target_try_authority(httpsrv_str text) {
    httpsrv_str block = target_block(text);
    int64_t port = -2;
    bool valid = hsrv_text_authority_valid(block.ptr, block, &port);
    CHECK_INT(valid, is_authority(text, false));
    if (valid) {
        CHECK(port >= -1 && port <= 65535);
        CHECK_INT(port > 0, is_authority(text, true));
    }
    target_free(block);
}

static void target_check_resolved(httpsrv_str path, httpsrv_str once) {
    static struct target_path parts;
    httpsrv_str twice = target_block(once);
    CHECK(once.len > 0 && once.ptr[0] == '/');
    CHECK_CMP(once.len, <=, path.len);
    target_split(once, &parts);
    for (int i = 0; i < parts.num; i++) {
        CHECK(!target_says(parts.segments[i], false, HTTPSRV_STR(".")));
        CHECK(!target_says(parts.segments[i], false, HTTPSRV_STR("..")));
    }
    ptrdiff_t len = hsrv_text_path_resolve((char *)(uintptr_t)twice.ptr, once);
    CHECK_INT(len, once.len);
    CHECK_MEM(twice.ptr, (size_t)len, once.ptr, once.len);
    target_free(twice);
}

// Into a block that is just as large as the path.
static void target_try_resolve(httpsrv_str path) {
    struct bytes expected = {NULL, 0, 0};
    bool fine = target_resolve(path, &expected);
    httpsrv_str in = target_block(path), out = target_block(path);
    ptrdiff_t len = hsrv_text_path_resolve((char *)(uintptr_t)out.ptr, in);
    CHECK_INT(len < 0, !fine);
    if (len >= 0) {
        httpsrv_str once = {out.ptr, (size_t)len};
        CHECK_MEM(once.ptr, once.len, expected.ptr, expected.len);
        target_check_resolved(path, once);
        if (hsrv_text_path_is_plain(in)) CHECK(same_view(once, path));
    }
    target_free(in);
    target_free(out);
    release_bytes(&expected);
}

// ---- routes ----

static const char *const target_routes[] = {
    "GET /",          "POST /",      "GET /a",        "GET /a/b",          "* /a/b",
    "GET /a/:x",      "POST /a/:x",  "GET /a/:y/c",   "GET /a/b/c",        "GET /a/*rest",
    "DELETE /a/*all", "* /:first/b", "GET /:first/b", "GET /:p/:q/:r/s",   "GET /caf\xc3\xa9",
    "GET /100%",      "GET //b",     "GET /a/",       "GET /s/*rest",      "PURGE /cache/:key",
    "OPTIONS /a",     "HEAD /a/b/c", "OPTIONS *",     "PUT /x y/:z/*more", "GET /a b",
    "GET /:a/:b/*c",  "* /w/*",
};

#define TARGET_ROUTES (sizeof target_routes / sizeof *target_routes)

static struct target_world {
    httpsrv *srv;
    hsrv_loop *loop;
    size_t base; // bytes taken while nothing is done
    size_t routes;
    const char *added[TARGET_ROUTES];
} target_world;

static void target_never(httpsrv_req *req, void *user) {
    (void)req;
    (void)user;
    FAIL("no request is run here");
}

static size_t target_used(void) {
    const hsrv_loop *loop = target_world.loop;
    return target_world.srv->memory.used - (loop->num_spare + loop->again.idle) * loop->request_size;
}

static void target_open(void) {
    struct target_world *w = &target_world;
    httpsrv_result result;
    w->srv = httpsrv_new(NULL);
    CHECK(w->srv != NULL);
    for (size_t i = 0; i < TARGET_ROUTES; i++) {
        bool nameless = strcmp(target_routes[i], "* /w/*") == 0; // refused, and must leave nothing behind
        hsrv_route route;
        memset(&route, 0, sizeof route);
        CHECK_INT(hsrv_router_pattern_valid(hsrv_text_of(strchr(target_routes[i], ' ') + 1), &route), !nameless);
        if (nameless) continue;
        CHECK_INT(httpsrv_on(w->srv, target_routes[i], target_never, (void *)(uintptr_t)i), HTTPSRV_OK);
        w->added[w->routes++] = target_routes[i];
    }
    CHECK_INT(hsrv_server_complete_routes(w->srv), HTTPSRV_OK);
    w->loop = hsrv_loop_new(w->srv, 0, 1, &result);
    CHECK(w->loop != NULL);
    hsrv_request_release(w->loop, hsrv_loop_take_request(w->loop)); // the loop's table of places stays
    w->base = target_used();
}

// How a route fits a path: a letter for each segment that sorts as the routes are tried. False if it does not.
static bool target_fits(httpsrv_str pattern, const struct target_path *path, char *kinds) {
    static struct target_path parts;
    target_split(pattern, &parts);
    for (int i = 0; i < parts.num; i++) {
        httpsrv_str part = parts.segments[i];
        bool rest = part.len && part.ptr[0] == '*', param = part.len && part.ptr[0] == ':';
        if (i >= path->num) return false;
        if (param && path->segments[i].len == 0) return false;
        if (!rest && !param && !target_says(path->segments[i], false, part)) return false;
        *kinds++ = rest ? 'c' : param ? 'b' : 'a';
        *kinds = 0;
        if (rest) return true;
    }
    return parts.num == path->num;
}

// How a route takes a method: "a" its own, "b" GET's for HEAD, "c" any; 0 not at all.
static char target_takes(httpsrv_str route, httpsrv_str method) {
    if (same_view(route, method)) return 'a';
    if (is_text(method, "HEAD") && is_text(route, "GET")) return 'b';
    return route.len == 1 && route.ptr[0] == '*' ? 'c' : 0;
}

// The pattern that should be taken; NULL for none.
static const char *target_expected(httpsrv_str method, httpsrv_str resolved) {
    static struct target_path path;
    char best[32] = "", rank[32];
    const char *found = NULL;
    bool slash = resolved.ptr[0] == '/';
    target_split(slash ? resolved : HTTPSRV_STR(""), &path);
    for (size_t i = 0; i < target_world.routes; i++) {
        const char *pattern = target_world.added[i], *space = strchr(pattern, ' ');
        httpsrv_str of = {pattern, (size_t)(space - pattern)};
        size_t len;
        char takes = target_takes(of, method);
        rank[0] = 0;
        if (!takes || (space[1] == '/') != slash) continue;
        if (slash && !target_fits(hsrv_text_of(space + 1), &path, rank)) continue;
        len = strlen(rank);
        rank[len] = takes;
        rank[len + 1] = 0;
        if (found && strcmp(rank, best) >= 0) continue;
        memcpy(best, rank, sizeof best);
        found = pattern;
    }
    return found;
}

static void target_check_params(const httpsrv_req *req) {
    static struct target_path pattern, path;
    int at = 0;
    if (req->path.ptr[0] != '/') return;
    target_split(hsrv_text_of(strchr(req->route->pattern, ' ') + 1), &pattern);
    target_split(req->path, &path);
    for (int i = 0; i < pattern.num; i++) {
        httpsrv_str name = pattern.segments[i], text = path.segments[i];
        if (name.len == 0 || !among(name.ptr[0], ":*")) continue;
        if (name.ptr[0] == '*') text.len = (size_t)(req->path.ptr + req->path.len - text.ptr);
        name.ptr++;
        name.len--;
        CHECK_CMP(at, <, req->num_params);
        target_check_decoded(req->params[at++], text, false);
        CHECK(same_view(hsrv_request_param(req, name), req->params[at - 1]));
    }
    CHECK_INT(at, req->num_params);
}

static void target_check_allow(httpsrv_str path) {
    char buf[HSRV_ALLOW_SIZE];
    httpsrv_str list = hsrv_router_allow(&target_world.srv->router, path, buf), element;
    CHECK_CMP(list.len, <=, sizeof buf);
    while (next_element(&list, &element)) {
        if (element.len == 0) continue;
        CHECK(all_of(element, ORACLE_TCHAR, false));
        if (!is_text(element, "OPTIONS")) CHECK(target_expected(element, path) != NULL);
    }
}

static void target_check_route(httpsrv_req *req) {
    const char *expected = target_expected(req->head.method, req->path);
    CHECK_INT(hsrv_dispatch_find(&target_world.srv->router, req), HTTPSRV_OK);
    CHECK_STR(req->route ? req->route->pattern : "none", expected ? expected : "none");
    if (req->route) target_check_params(req);
    if (req->path.ptr[0] == '/') target_check_allow(req->path);
}

// ---- queries ----

static void target_check_query(httpsrv_req *req, httpsrv_str name) {
    httpsrv_str query = req->head.query, actual = hsrv_request_query(req, name);
    for (size_t i = 0, end; i < query.len; i = end + 1) {
        httpsrv_str key = {query.ptr + i, 0}, value;
        for (end = i; end < query.len && query.ptr[end] != '&';)
            end++;
        while (i + key.len < end && key.ptr[key.len] != '=')
            key.len++;
        value.ptr = key.ptr + key.len + (i + key.len < end);
        value.len = (size_t)(query.ptr + end - value.ptr);
        if (end == i || !target_says(key, true, name)) continue;
        CHECK(actual.ptr != NULL);
        target_check_decoded(actual, value, true);
        return;
    }
    CHECK(!actual.ptr);
}

// Each name that the query itself has.
static void target_check_own_names(httpsrv_req *req) {
    httpsrv_str query = req->head.query;
    for (size_t i = 0, end; i < query.len; i = end + 1) {
        struct bytes name = {NULL, 0, 0};
        httpsrv_str key = {query.ptr + i, 0};
        for (end = i; end < query.len && query.ptr[end] != '&';)
            end++;
        while (i + key.len < end && key.ptr[key.len] != '=')
            key.len++;
        CHECK(target_decode(key, true, &name));
        target_check_query(req, hsrv_text_view(name.ptr, name.len));
        release_bytes(&name);
    }
}

// ---- a request ----

static const char *target_method(const struct fuzz_input *in) {
    static const struct {
        char letter;
        const char *name;
    } methods[] = {{'G', "GET"},     {'H', "HEAD"},    {'P', "POST"},  {'U', "PUT"},  {'D', "DELETE"},
                   {'C', "CONNECT"}, {'O', "OPTIONS"}, {'X', "PURGE"}, {'B', "BREW"}, {'T', "TRACE"}};
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++)
        if (methods[i].letter == (char)toupper((int)fuzz_control(in, 0))) return methods[i].name;
    return "GET";
}

static void target_check_request(httpsrv_req *req, httpsrv_str name) {
    struct bytes expected = {NULL, 0, 0};
    bool slash = req->head.path.ptr[0] == '/';
    bool fine = !slash || target_resolve(req->head.path, &expected);
    httpsrv_result result = hsrv_request_resolve_path(req);
    CHECK_INT(result, fine ? HTTPSRV_OK : HTTPSRV_SYNTAX);
    if (fine && slash) {
        CHECK_MEM(req->path.ptr, req->path.len, expected.ptr, expected.len);
        target_check_decoded(req->plain, req->path, false);
    }
    if (fine) target_check_route(req);
    target_check_query(req, name);
    target_check_own_names(req);
    release_bytes(&expected);
}

static void target_run(const char *method, httpsrv_str target, httpsrv_str name) {
    struct bytes head = {NULL, 0, 0};
    httpsrv_req *req = hsrv_loop_take_request(target_world.loop);
    CHECK(req != NULL);
    append_text(&head, method);
    append_text(&head, " ");
    append_view(&head, target);
    append_text(&head, " HTTP/1.1\r\nHost: a\r\n\r\n");
    req->raw = fuzz_moved(head.ptr, head.len);
    ptrdiff_t n = hsrv_parser_head(&req->parser, req->raw, head.len, &req->head);
    req->raw_len = n > 0 ? (size_t)n : 0;
    if (n > 0) target_check_request(req, name);
    hsrv_request_release(target_world.loop, req);
    CHECK_INT(target_used(), target_world.base);
    release_bytes(&head);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct fuzz_input in = fuzz_open(data, size);
    const char *end = (const char *)memchr(in.text.ptr, '\n', in.text.len);
    httpsrv_str text = {in.text.ptr, in.text.len}, target = text, name = HTTPSRV_STR("");
    if (!target_world.srv) target_open();
    if (end) {
        target.len = (size_t)(end - target.ptr);
        name.ptr = end + 1;
        name.len = text.len - target.len - 1;
    }
    if (target.len < TARGET_MAX_SEGMENTS) {
        target_try_decode(text);
        target_try_authority(target);
        if (target_is_path(target)) target_try_resolve(target);
        target_run(target_method(&in), target, name);
    }
    fuzz_close(&in);
    return 0;
}
