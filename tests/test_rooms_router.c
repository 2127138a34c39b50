// >>router: which route a path has, against a matcher that tries every route, and what becomes of the memory.

#define HTTPSRV_IMPLEMENTATION
#include "httpsrv.h"
#include "rooms.h"

struct table {
    struct books books;
    hsrv_memory memory;
    hsrv_router router;
};

static void table_open(struct table *t) {
    books_open(&t->books, &t->memory);
    hsrv_router_init(&t->router);
}

// As the server does it: the router owns the route if it takes it.
static httpsrv_result table_add(struct table *t, const char *pattern) {
    hsrv_route *route = (hsrv_route *)hsrv_memory_take_zeroed(&t->memory, sizeof *route);
    if (!route) return HTTPSRV_NOMEM;
    route->pattern = hsrv_memory_copy_text(&t->memory, pattern);
    const httpsrv_result result = route->pattern ? hsrv_router_add(&t->router, &t->memory, route) : HTTPSRV_NOMEM;
    if (result != HTTPSRV_OK) hsrv_router_free_route(&t->memory, route);
    return result;
}

static void table_close(struct table *t) {
    hsrv_router_free(&t->router, &t->memory);
    CHECK_BOOKS(&t->books, &t->memory, 0);
}

// ---- looking up, the way a request does ----

struct lookup {
    httpsrv_req req;
    _Alignas(16) char arena[16384];
};

static const hsrv_route *look_up(struct table *t, struct lookup *l, const char *method, const char *path) {
    memset(&l->req, 0, sizeof l->req);
    hsrv_memory_arena_init(&l->req.arena, NULL, l->arena, sizeof l->arena);
    l->req.head.method = hsrv_text_of(method);
    l->req.head.method_id = hsrv_parser_method_id(l->req.head.method);
    l->req.head.path = hsrv_text_of(path);
    CHECK_INT(hsrv_request_resolve_path(&l->req), HTTPSRV_OK);
    CHECK_INT(hsrv_dispatch_find(&t->router, &l->req), HTTPSRV_OK);
    return l->req.route;
}

static void print_params(const httpsrv_req *req, char *out, size_t size) {
    size_t used = 0;
    out[0] = '\0';
    for (int i = 0; i < req->num_params; i++) {
        used += (size_t)snprintf(out + used, size - used, "%s%.*s=%.*s", i ? "&" : "",
                                 HTTPSRV_FMT(req->route->params[i]), HTTPSRV_FMT(req->params[i]));
        CHECK_CMP(used, <, size);
    }
}

struct row {
    const char *method, *path;
    const char *pattern; // NULL: no route
    const char *params;
};

static void check_rows(const char *const *patterns, const struct row *rows, size_t num_rows) {
    struct table t;
    struct lookup l;
    char params[512];
    table_open(&t);
    for (; *patterns; patterns++) {
        NOTE("%s", *patterns);
        CHECK_INT(table_add(&t, *patterns), HTTPSRV_OK);
    }
    CHECK(hsrv_router_build(&t.router, &t.memory));
    for (size_t i = 0; i < num_rows; i++) {
        const hsrv_route *route = look_up(&t, &l, rows[i].method, rows[i].path);
        NOTE("%s %s", rows[i].method, rows[i].path);
        CHECK_STR(route ? route->pattern : NULL, rows[i].pattern);
        if (!route) continue;
        print_params(&l.req, params, sizeof params);
        CHECK_STR(params, rows[i].params ? rows[i].params : "");
    }
    table_close(&t);
}

TEST(literal_beats_parameter_beats_rest) {
    static const char *const patterns[] = {"GET /*all", "GET /a/:id", "GET /a/b",    "GET /a/*rest",
                                           "GET /:x/b", "GET /a/b/c", "GET /",       "GET /a/:id/:no",
                                           "GET /s/",   "GET /s",     "GET /:x/b/d", NULL};
    static const struct row rows[] = {{"GET", "/", "GET /", NULL},
                                      {"GET", "/a/b", "GET /a/b", NULL},
                                      {"GET", "/a/x", "GET /a/:id", "id=x"},
                                      {"GET", "/a/", "GET /a/*rest", "rest="},
                                      {"GET", "/a", "GET /*all", "all=a"},
                                      {"GET", "/a/b/c", "GET /a/b/c", NULL},
                                      {"GET", "/a/b/x", "GET /a/:id/:no", "id=b&no=x"},
                                      {"GET", "/a/b/d", "GET /a/:id/:no", "id=b&no=d"},
                                      {"GET", "/a/x/y/z", "GET /a/*rest", "rest=x/y/z"},
                                      {"GET", "/z/b", "GET /:x/b", "x=z"},
                                      {"GET", "/z/b/d", "GET /:x/b/d", "x=z"},
                                      {"GET", "/z/b/", "GET /*all", "all=z/b/"},
                                      {"GET", "//b", "GET /*all", "all=/b"},
                                      {"GET", "/s", "GET /s", NULL},
                                      {"GET", "/s/", "GET /s/", NULL},
                                      {"GET", "/s//", "GET /*all", "all=s//"},
                                      {"POST", "/", NULL, NULL},
                                      {"HEAD", "/a/x", "GET /a/:id", "id=x"}};
    check_rows(patterns, rows, LENGTH(rows));
}

// Going back up the tree: first down the literal branch, then out of it, more than one level.
TEST(dead_ends_are_left) {
    static const char *const patterns[] = {"GET /a/b/c/d", "GET /a/:p/c/e", "GET /:q/b/c/f", "GET /:q/:r/c/g",
                                           "GET /:q/b/*s", "GET /x/y",      "GET /*t",       NULL};
    static const struct row rows[] = {{"GET", "/a/b/c/d", "GET /a/b/c/d", NULL},
                                      {"GET", "/a/b/c/e", "GET /a/:p/c/e", "p=b"},
                                      {"GET", "/a/b/c/f", "GET /:q/b/c/f", "q=a"},
                                      {"GET", "/a/b/c/g", "GET /:q/b/*s", "q=a&s=c/g"},
                                      {"GET", "/a/z/c/g", "GET /:q/:r/c/g", "q=a&r=z"},
                                      {"GET", "/a/z/c/h", "GET /*t", "t=a/z/c/h"},
                                      {"GET", "/a/b", "GET /*t", "t=a/b"},
                                      {"GET", "/a/b/", "GET /:q/b/*s", "q=a&s="},
                                      {"GET", "/x", "GET /*t", "t=x"},
                                      {"GET", "/x/y/z", "GET /*t", "t=x/y/z"}};
    check_rows(patterns, rows, LENGTH(rows));
}

TEST(methods_decide_among_paths_that_fit) {
    static const char *const patterns[] = {"POST /a",      "GET /:x",  "* /*rest",    "GET /m",   "* /m",
                                           "HEAD /m",      "PURGE /m", "PUT /:x",     "GET /h",   "* /h",
                                           "DELETE /d/:y", "* /d/e",   "OPTIONS /:x", "GET /d/e", NULL};
    static const struct row rows[] = {{"GET", "/a", "GET /:x", "x=a"},
                                      {"HEAD", "/a", "GET /:x", "x=a"},
                                      {"POST", "/a", "POST /a", NULL},
                                      {"PUT", "/a", "PUT /:x", "x=a"},
                                      {"DELETE", "/a", "* /*rest", "rest=a"},
                                      {"GET", "/m", "GET /m", NULL},
                                      {"HEAD", "/m", "HEAD /m", NULL},
                                      {"HEAD", "/h", "GET /h", NULL},
                                      {"POST", "/h", "* /h", NULL},
                                      {"PUT", "/m", "* /m", NULL},
                                      {"PURGE", "/m", "PURGE /m", NULL},
                                      {"PURGES", "/m", "* /m", NULL},
                                      {"purge", "/m", "* /m", NULL},
                                      {"PURGE", "/a", "* /*rest", "rest=a"},
                                      {"OPTIONS", "/m", "* /m", NULL},
                                      {"OPTIONS", "/a", "OPTIONS /:x", "x=a"},
                                      {"DELETE", "/d/e", "* /d/e", NULL}, // the path is settled first
                                      {"DELETE", "/d/f", "DELETE /d/:y", "y=f"}};
    check_rows(patterns, rows, LENGTH(rows));
}

TEST(segments_are_compared_decoded) {
    static const char *const patterns[] = {"GET /a b",     "GET /%41", "GET /x/:id",
                                           "GET /f/*rest", "GET /A",   "GET /\xc3\xa4",
                                           "GET /q/:a/:b", "GET /.x",  NULL};
    static const struct row rows[] = {{"GET", "/a%20b", "GET /a b", NULL},
                                      {"GET", "/%61%20%62", "GET /a b", NULL},
                                      {"GET", "/%41", "GET /A", NULL},
                                      {"GET", "/%2541", "GET /%41", NULL},
                                      {"GET", "/%C3%a4", "GET /\xc3\xa4", NULL},
                                      {"GET", "/a", NULL, NULL},
                                      {"GET", "/x/%2F", "GET /x/:id", "id=/"},
                                      {"GET", "/x/a%2fb", "GET /x/:id", "id=a/b"},
                                      {"GET", "/x/a+b", "GET /x/:id", "id=a+b"},
                                      {"GET", "/x%2Fa", NULL, NULL}, // an encoded slash parts no segments
                                      {"GET", "/%78/%25", "GET /x/:id", "id=%"},
                                      {"GET", "/x/%2541", "GET /x/:id", "id=%41"},
                                      {"GET", "/f/a%2fb/c", "GET /f/*rest", "rest=a/b/c"},
                                      {"GET", "/f/%2e%2e%2f", "GET /f/*rest", "rest=../"},
                                      {"GET", "/f/../f/./z", "GET /f/*rest", "rest=z"},
                                      {"GET", "/x/%2e%2e/f/", "GET /f/*rest", "rest="},
                                      {"GET", "/q/%61/%62", "GET /q/:a/:b", "a=a&b=b"},
                                      {"GET", "/.x", "GET /.x", NULL},
                                      {"GET", "/%2ex", "GET /.x", NULL}};
    check_rows(patterns, rows, LENGTH(rows));
}

TEST(targets_without_a_path) {
    static const char *const patterns[] = {"OPTIONS *", "CONNECT *", "GET /*rest", NULL};
    static const struct row rows[] = {{"OPTIONS", "*", "OPTIONS *", NULL},
                                      {"CONNECT", "example.org:443", "CONNECT *", NULL},
                                      {"GET", "/", "GET /*rest", "rest="},
                                      {"OPTIONS", "/", NULL, NULL}};
    check_rows(patterns, rows, LENGTH(rows));
}

// ---- patterns ----

TEST(patterns_that_are_malformed) {
    static const char *const patterns[] = {
        "",           "GET",      "GET ",      "GET  /",     " /",         "GET a",    "GET /:",     "GET /*",
        "GET /a/:/b", "GET /*r/", "GET /*r/a", "GET /:a/:a", "GET /:a/*a", "GET /a?b", "GET /a#b",   "GET **",
        "GET *a",     "G,T /",    "G\tT /",    "\xc3\x84 /", "GET\t/",     "(GET) /",  "GET,POST /", "GET /:a/b/:a"};
    struct table t;
    table_open(&t);
    for (size_t i = 0; i < LENGTH(patterns); i++) {
        NOTE("%s", patterns[i]);
        CHECK_INT(table_add(&t, patterns[i]), HTTPSRV_ROUTE);
    }
    CHECK_INT(t.books.live, 0); // and nothing is left of them
    table_close(&t);
}

TEST(patterns_that_are_taken) {
    static const char *const table[][2] = {
        {"GET /a", "GET /a"}, {"GET /", "GET /"},         {"GET /:a", "GET /:b"},       {"GET /*a", "GET /*b"},
        {"* /a", "* /a"},     {"OPTIONS *", "OPTIONS *"}, {"X /:a/b/*c", "X /:d/b/*e"}, {"GET /a/", "GET /a/"}};
    static const char *const apart[][2] = {{"GET /a", "POST /a"}, {"GET /a", "* /a"},   {"GET /a", "GET /a/"},
                                           {"GET /a", "GET /A"},  {"GET /a", "get /a"}, {"GET /:a", "GET /*a"},
                                           {"GET /", "GET //"},   {"* *", "* /*a"}};
    for (size_t i = 0; i < LENGTH(table); i++) {
        struct table t;
        table_open(&t);
        NOTE("%s, %s", table[i][0], table[i][1]);
        CHECK_INT(table_add(&t, table[i][0]), HTTPSRV_OK);
        const size_t live = t.books.live;
        CHECK_INT(table_add(&t, table[i][1]), HTTPSRV_ROUTE);
        CHECK_INT(t.books.live, live);
        table_close(&t);
    }
    for (size_t i = 0; i < LENGTH(apart); i++) {
        struct table t;
        table_open(&t);
        NOTE("%s, %s", apart[i][0], apart[i][1]);
        CHECK_INT(table_add(&t, apart[i][0]), HTTPSRV_OK);
        CHECK_INT(table_add(&t, apart[i][1]), HTTPSRV_OK);
        table_close(&t);
    }
}

// "GET " and `count` times "/:p<i>", or "/a".
static void long_pattern(char *out, int count, bool params) {
    out += sprintf(out, "GET ");
    for (int i = 0; i < count; i++) {
        out += params ? sprintf(out, "/:p%d", i) : sprintf(out, "/a");
    }
}

TEST(sixty_four_segments_and_sixteen_parameters) {
    struct table t;
    struct lookup l;
    char pattern[1024], path[1024];
    table_open(&t);
    long_pattern(pattern, 65, false);
    CHECK_INT(table_add(&t, pattern), HTTPSRV_ROUTE);
    long_pattern(pattern, HTTPSRV_MAX_PARAMS + 1, true);
    CHECK_INT(table_add(&t, pattern), HTTPSRV_ROUTE);
    CHECK_INT(t.books.live, 0);
    long_pattern(pattern, 63, false);
    strcat(pattern, "/*rest");
    CHECK_INT(table_add(&t, pattern), HTTPSRV_OK);
    long_pattern(pattern, 64, false);
    CHECK_INT(table_add(&t, pattern), HTTPSRV_OK);
    long_pattern(pattern, HTTPSRV_MAX_PARAMS, true);
    CHECK_INT(table_add(&t, pattern), HTTPSRV_OK);
    CHECK(hsrv_router_build(&t.router, &t.memory));
    for (int count = 1; count <= 70; count++) {
        long_pattern(pattern, count, false);
        snprintf(path, sizeof path, "%s", pattern + 4);
        path[1] = count % 2 ? 'a' : '%'; // every other one through the tree
        if (count % 2 == 0) snprintf(path + 1, sizeof path - 1, "%%61%s", pattern + 6);
        const hsrv_route *route = look_up(&t, &l, "GET", path);
        NOTE("%d segments", count);
        CHECK_INT(route != NULL, count >= 64 || count == HTTPSRV_MAX_PARAMS);
        if (!route) continue;
        CHECK_INT(l.req.num_params, count == 64 ? 0 : count > 64 ? 1 : HTTPSRV_MAX_PARAMS);
        for (int i = 0; i < l.req.num_params; i++) {
            if (count < 64) CHECK_VIEW(l.req.params[i], "a");
        }
    }
    table_close(&t);
}

TEST(a_path_of_many_segments_costs_no_depth) {
    struct table t;
    struct lookup l;
    char path[8001];
    table_open(&t);
    CHECK_INT(table_add(&t, "GET /:a/:b"), HTTPSRV_OK);
    CHECK_INT(table_add(&t, "GET /%/*rest"), HTTPSRV_OK);
    CHECK(hsrv_router_build(&t.router, &t.memory));
    for (size_t i = 0; i < sizeof path - 1; i++) {
        path[i] = i % 2 ? 'a' : '/';
    }
    path[sizeof path - 1] = '\0';
    CHECK(look_up(&t, &l, "GET", path) == NULL);
    memset(path, '/', sizeof path - 1);
    CHECK(look_up(&t, &l, "GET", path) == NULL);
    memcpy(path, "/%25/", 5);
    CHECK(look_up(&t, &l, "GET", path) != NULL);
    CHECK_INT(l.req.params[0].len, sizeof path - 1 - 5);
    table_close(&t);
}

// ---- against a matcher that tries every route ----

#define MAX_ROUTES 24

struct matched {
    bool fits;
    char rank[8]; // kinds of the segments: 'a' literal, 'b' parameter, 'c' rest
};

static size_t part(const char *at) { // length of the segment behind the slash at `at`
    return strcspn(at + 1, "/");
}

static struct matched match(const char *pattern, const char *path) {
    struct matched m = {false, ""};
    size_t depth = 0;
    for (; *pattern && *path; depth++) {
        char decoded[32];
        const size_t pattern_len = part(pattern), path_len = part(path);
        const size_t len = hsrv_text_decode(decoded, hsrv_text_view(path + 1, path_len), false);
        m.rank[depth] = pattern[1] == '*' ? 'c' : pattern[1] == ':' ? 'b' : 'a';
        if (pattern[1] == '*') {
            m.fits = true;
            return m;
        }
        if (pattern[1] == ':' ? path_len == 0 : len != pattern_len || memcmp(decoded, pattern + 1, len) != 0) return m;
        pattern += 1 + pattern_len;
        path += 1 + path_len;
    }
    m.fits = !*pattern && !*path;
    return m;
}

// How well a route's method takes a request's: 0 best, 3 not at all.
static int method_rank(const char *pattern, const char *method) {
    const size_t len = strcspn(pattern, " ");
    if (len == strlen(method) && memcmp(pattern, method, len) == 0) return 0;
    if (strcmp(method, "HEAD") == 0 && len == 3 && memcmp(pattern, "GET", 3) == 0) return 1;
    return len == 1 && pattern[0] == '*' ? 2 : 3;
}

static const char *best_of(char (*patterns)[64], int count, const char *method, const char *path) {
    const char *best = NULL;
    struct matched best_match = {false, ""};
    int best_rank = 3;
    for (int i = 0; i < count; i++) {
        const struct matched m = match(strchr(patterns[i], ' ') + 1, path);
        const int rank = method_rank(patterns[i], method);
        if (!m.fits || rank == 3) continue;
        const int order = best ? strcmp(m.rank, best_match.rank) : -1;
        if (order > 0 || (order == 0 && rank >= best_rank)) continue;
        best = patterns[i];
        best_match = m;
        best_rank = rank;
    }
    return best;
}

static void random_pattern(char *out) {
    static const char *const methods[] = {"GET", "POST", "*", "HEAD", "PURGE"};
    static const char *const segments[] = {"/a", "/a", "/b", "/", "/ab", "/:", "/:", "/*"};
    out += sprintf(out, "%s ", methods[random_below(LENGTH(methods))]);
    for (int depth = (int)random_below(4); depth >= 0; depth--) {
        const char *segment = segments[random_below(LENGTH(segments))];
        out += sprintf(out, "%s", segment);
        if (strcmp(segment, "/:") == 0) out += sprintf(out, "p%d", depth);
        if (strcmp(segment, "/*") != 0) continue;
        sprintf(out, "rest");
        return;
    }
}

static void random_path(char *out) {
    static const char *const segments[] = {"/a", "/a", "/b", "/", "/ab", "/c", "/%61", "/a%62", "/%2F", "/b"};
    for (int depth = (int)random_below(5); depth >= 0; depth--) {
        out += sprintf(out, "%s", segments[random_below(LENGTH(segments))]);
    }
}

// The methods that the routes which fit a path take, as the Allow field has them.
static void check_allow(struct table *t, char (*patterns)[64], int count, const char *path) {
    static const char *const methods[] = {"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PURGE"};
    char buf[HSRV_ALLOW_SIZE], expected[256] = "", found[256] = "";
    httpsrv_str list = hsrv_router_allow(&t->router, hsrv_text_of(path), buf), element;
    for (size_t k = 0; k < LENGTH(methods); k++) {
        bool allowed = false;
        for (int i = 0; i < count; i++) {
            if (!match(strchr(patterns[i], ' ') + 1, path).fits) continue;
            const int rank = method_rank(patterns[i], methods[k]);
            allowed |= rank < 2 || (rank == 2 && k < 7) || strcmp(methods[k], "OPTIONS") == 0;
        }
        if (allowed) strcat(strcat(expected, methods[k]), " ");
        bool listed = hsrv_router_allow_has(list, hsrv_text_of(methods[k]));
        if (listed) strcat(strcat(found, methods[k]), " ");
    }
    CHECK_STR(found, expected);
    size_t len = 0;
    for (httpsrv_str rest = list; list.len > 0 && hsrv_text_next_element(&rest, &element);) {
        len += element.len + 1;
    }
    CHECK_INT(len, strlen(found)); // nothing twice, nothing else
}

// The search alone, without the hash.
static const hsrv_route *by_tree(struct table *t, const char *method, const char *path) {
    const httpsrv_str name = hsrv_text_of(method);
    hsrv_search search;
    hsrv_router_search(&search, &t->router, hsrv_text_of(path));
    for (const hsrv_node *node = hsrv_router_search_next(&search); node; node = hsrv_router_search_next(&search)) {
        const hsrv_route *route = hsrv_router_pick(node, hsrv_parser_method_id(name), name);
        if (route) return route;
    }
    return NULL;
}

static void check_params(const httpsrv_req *req, const char *path) {
    const char *pattern = strchr(req->route->pattern, ' ') + 1;
    int count = 0;
    while (*pattern) {
        char decoded[64];
        const size_t path_len = pattern[1] == '*' ? strlen(path + 1) : part(path);
        if (pattern[1] == ':' || pattern[1] == '*') {
            const size_t len = hsrv_text_decode(decoded, hsrv_text_view(path + 1, path_len), false);
            CHECK_MEM(req->params[count].ptr, req->params[count].len, decoded, len);
            count++;
        }
        pattern += 1 + part(pattern);
        path += 1 + path_len;
    }
    CHECK_INT(req->num_params, count);
}

// Each path without parameters is in the hash, whatever else is there.
static void check_hash(struct table *t, char (*patterns)[64], int count) {
    for (int i = 0; i < count; i++) {
        const char *path = strchr(patterns[i], ' ') + 1;
        const httpsrv_str method = hsrv_text_view(patterns[i], (size_t)(path - patterns[i]) - 1);
        const hsrv_route *route =
            hsrv_router_exact(&t->router, hsrv_text_of(path), hsrv_parser_method_id(method), method);
        const bool literal = !strpbrk(path, ":*");
        CHECK_STR(route ? route->pattern : NULL, literal ? patterns[i] : NULL);
    }
}

TEST(random_routes_against_a_matcher) {
    static const char *const methods[] = {"GET", "HEAD", "POST", "PUT", "PURGE", "OPTIONS"};
    for (int round = 0; round < STORM(1500); round++) {
        struct table t;
        struct lookup l;
        char patterns[MAX_ROUTES][64], path[64] = "";
        int count = 0;
        table_open(&t);
        for (uint32_t tries = random_below(MAX_ROUTES + 1); tries > 0; tries--) {
            random_pattern(patterns[count]);
            const httpsrv_result result = table_add(&t, patterns[count]);
            CHECK(result == HTTPSRV_OK || result == HTTPSRV_ROUTE);
            count += result == HTTPSRV_OK;
        }
        CHECK(hsrv_router_build(&t.router, &t.memory));
        check_hash(&t, patterns, count);
        for (int i = 0; i < 60; i++) {
            const char *method = methods[random_below(LENGTH(methods))];
            random_path(path);
            NOTE("round %d, %s %s", round, method, path);
            const char *expected = best_of(patterns, count, method, path);
            const hsrv_route *route = look_up(&t, &l, method, path);
            CHECK_STR(route ? route->pattern : NULL, expected);
            CHECK(by_tree(&t, method, path) == route);
            if (route) check_params(&l.req, path);
            check_allow(&t, patterns, count, path);
        }
        table_close(&t);
    }
}

// ---- methods ----

TEST(methods_of_the_server) {
    static const char *const patterns[] = {"GET /a", "PURGE /a/b/c", "POST /:x", "LOCK *", "GET /z/*r"};
    struct table t;
    char buf[HSRV_ALLOW_SIZE];
    table_open(&t);
    CHECK_VIEW(hsrv_router_allow_all(&t.router, buf), "OPTIONS");
    CHECK_VIEW(hsrv_router_allow(&t.router, hsrv_text_of("/a"), buf), "");
    for (size_t i = 0; i < LENGTH(patterns); i++) {
        CHECK_INT(table_add(&t, patterns[i]), HTTPSRV_OK);
    }
    const httpsrv_str all = hsrv_router_allow_all(&t.router, buf);
    CHECK_INT(all.len, strlen("GET, HEAD, PURGE, POST, OPTIONS"));
    for (size_t i = 0; i < 3; i++) {
        const httpsrv_str method = hsrv_text_view(patterns[i], strcspn(patterns[i], " "));
        CHECK(hsrv_router_allow_has(all, method));
        CHECK(hsrv_router_knows(&t.router, method));
    }
    CHECK(hsrv_router_knows(&t.router, hsrv_text_of("LOCK")));
    CHECK(!hsrv_router_knows(&t.router, hsrv_text_of("PURG")));
    CHECK(!hsrv_router_knows(&t.router, hsrv_text_of("purge")));
    table_close(&t);
}

// More extension methods than the field has room for: it ends early, and whole.
TEST(an_allow_list_stays_in_its_room) {
    struct table t;
    char pattern[64], buf[HSRV_ALLOW_SIZE + 1];
    table_open(&t);
    for (int i = 0; i < 100; i++) {
        snprintf(pattern, sizeof pattern, "METHOD-NUMBER-%.*s%d /a", i % 7, "-------", i);
        CHECK_INT(table_add(&t, pattern), HTTPSRV_OK);
    }
    buf[HSRV_ALLOW_SIZE] = '!';
    httpsrv_str list = hsrv_router_allow(&t.router, hsrv_text_of("/a"), buf), element;
    CHECK_CMP(list.len, <=, HSRV_ALLOW_SIZE);
    CHECK_CMP(list.len, >, HSRV_ALLOW_SIZE - 32);
    CHECK_INT(buf[HSRV_ALLOW_SIZE], '!');
    while (hsrv_text_next_element(&list, &element)) {
        CHECK(hsrv_text_equal(element, hsrv_text_of("OPTIONS")) || hsrv_router_knows(&t.router, element));
    }
    table_close(&t);
}

// ---- memory ----

static const char *const memory_patterns[] = {"GET /ab/cd/ef", "GET /ab/:x/*y", "GET /gh/ij", "POST /ab/cd/ef",
                                              "GET /",         "GET /kl/:m/no", "OPTIONS *",  "GET /ab/cd/gh"};

// Routes that could not be added are gone without a trace; the others can be found.
static void check_after_failure(struct table *t, const bool *added) {
    struct lookup l;
    t->books.grants = SIZE_MAX;
    CHECK(hsrv_router_build(&t->router, &t->memory));
    for (size_t i = 0; i < LENGTH(memory_patterns); i++) {
        char method[16];
        const char *path = strchr(memory_patterns[i], ' ') + 1;
        snprintf(method, sizeof method, "%.*s", (int)(path - 1 - memory_patterns[i]), memory_patterns[i]);
        const hsrv_route *route = look_up(t, &l, method, path);
        NOTE("%s", memory_patterns[i]);
        if (added[i]) CHECK_STR(route ? route->pattern : NULL, memory_patterns[i]);
        if (!added[i] && route) CHECK(strcmp(route->pattern, memory_patterns[i]) != 0);
    }
    for (const hsrv_node *node = t->router.root.child; node; node = hsrv_router_walk((hsrv_node *)node)) {
        for (size_t i = 0; i < node->text.len; i++) {
            if ((unsigned char)node->text.ptr[i] == BOOKS_FREED) FAIL("a node's text was freed");
        }
        CHECK(!node->path.ptr || node->path.ptr[0] == '/');
    }
}

TEST(memory_that_fails_at_each_step) {
    size_t failures = 1;
    for (size_t grants = 0; failures > 0; grants++) {
        struct table t;
        bool added[LENGTH(memory_patterns)];
        failures = 0;
        table_open(&t);
        t.books.grants = grants;
        for (size_t i = 0; i < LENGTH(memory_patterns); i++) {
            const httpsrv_result result = table_add(&t, memory_patterns[i]);
            NOTE("%zu grants, %s", grants, memory_patterns[i]);
            CHECK(result == HTTPSRV_OK || result == HTTPSRV_NOMEM);
            added[i] = result == HTTPSRV_OK;
            if (added[i]) continue;
            failures++;
            t.books.grants = failures == 1 ? SIZE_MAX : 0; // from now on there is enough
        }
        if (!hsrv_router_build(&t.router, &t.memory)) failures++;
        check_after_failure(&t, added);
        table_close(&t);
    }
}

TEST(a_route_that_is_taken_leaves_no_trace) {
    struct table t;
    struct lookup l;
    table_open(&t);
    CHECK_INT(table_add(&t, "GET /ab/cd"), HTTPSRV_OK);
    CHECK_INT(table_add(&t, "GET /ab/cd"), HTTPSRV_ROUTE);
    CHECK(hsrv_router_build(&t.router, &t.memory));
    CHECK_VIEW(t.router.root.child->child->path, "/ab/cd");
    CHECK(look_up(&t, &l, "GET", "/ab/cd") != NULL);
    table_close(&t);
}
