// Runs the protocol cases of tests/cases/*.md; tests/cases/README.md tells their format. (Those of files have a runner of
// their own, test_file_cases.c.)
//
// The parser gets the bytes at once, byte by byte and cut in two at every byte, and has to find the same facts each time
// (see drive.h).

#define TEST_NO_MAIN
#define TEST_TIMEOUT_MS 60000 // for all rows of a heading
#include "test.h"
#define HTTPSRV_IMPLEMENTATION
#include "httpsrv.h"
#include "documents.h"

// ---- comparing ----

static int complain(const struct row *row, const char *how, const char *what, const struct bytes *detail) {
    printf("%s\n    %s: %s", test_trace->note, how, what);
    if (detail) {
        putchar(' ');
        test_quote(stdout, detail->ptr, detail->len);
    }
    printf("\n    input    ");
    test_quote(stdout, row->input.ptr, row->input.len);
    putchar('\n');
    return 1;
}

static int compare_facts(const struct row *row, const struct facts *a, const struct facts *b, const char *how) {
    for (int i = 0; i < a->num || i < b->num; i++) {
        if (i >= b->num) return complain(row, how, "lacks, found at once:", &a->list[i].value);
        if (i >= a->num) return complain(row, how, "has, not found at once:", &b->list[i].value);
        if (same_fact(&a->list[i], &b->list[i])) continue;
        complain(row, how, a->list[i].key, &a->list[i].value);
        return complain(row, how, "differs from the above:", &b->list[i].value);
    }
    return 0;
}

static int run_split(const struct row *row, const struct facts *whole, size_t cut) {
    struct drive d;
    char how[64];
    int failures;
    snprintf(how, sizeof how, "parser, cut behind byte %zu", cut);
    drive_begin(&d, &row->input, NULL);
    drive_to(&d, cut);
    drive_end(&d);
    failures = compare_facts(row, whole, &d.facts, how);
    release_facts(&d.facts);
    return failures;
}

static int run_bytes(const struct row *row, const struct facts *whole) {
    struct drive d;
    int failures;
    char at[64];
    drive_begin(&d, &row->input, NULL);
    for (size_t avail = 1; avail <= row->input.len; avail++)
        drive_to(&d, avail);
    drive_end(&d);
    failures = compare_facts(row, whole, &d.facts, "parser, byte by byte");
    if (row->mark >= 0 && (!d.failed || (ptrdiff_t)d.failed_at != row->mark)) {
        snprintf(at, sizeof at, "refused with %zu bytes, mark is at %zd", d.failed_at, row->mark);
        failures += complain(row, "parser, byte by byte", at, NULL);
    }
    release_facts(&d.facts);
    return failures;
}

// Every place for short inputs; near both ends and here and there for long ones.
static int run_splits(const struct row *row, const struct facts *whole) {
    size_t len = row->input.len, edge = len > 100000 ? 50 : 150, stride = len / (len > 100000 ? 20 : 80) + 1;
    for (size_t cut = 1; cut < len; cut++) {
        bool chosen = len < 1500 || cut < edge || len - cut < edge || cut % stride == 0;
        if (chosen && run_split(row, whole, cut)) return 1;
    }
    return 0;
}

// Whether the fact is what the line says; an error may be told without its item.
static bool fits(const struct expected *e, const struct fact *fact) {
    if (strcmp(e->key, fact->key) != 0) return false;
    if (same_bytes(&e->value, &fact->value)) return true;
    return strcmp(e->key, "error") == 0 && e->value.len == 3 && memcmp(e->value.ptr, fact->value.ptr, 3) == 0;
}

// Repeated ones are taken in order.
static bool ordered(const char *key) {
    return strcmp(key, "field") == 0 || strcmp(key, "trailer") == 0;
}

static int match_line(const struct row *row, const struct expected *e, struct facts *f, int from, int to) {
    for (int i = from; i < to; i++) {
        struct fact *fact = &f->list[i];
        if (fact->used || !fits(e, fact)) continue;
        for (int k = from; ordered(e->key) && k < i; k++)
            if (strcmp(f->list[k].key, e->key) == 0) f->list[k].used = true;
        fact->used = true;
        return 0;
    }
    complain(row, "parser did not find what is expected", e->key, &e->value);
    for (int i = from; i < to; i++)
        if (strcmp(f->list[i].key, e->key) == 0) return complain(row, "it found", f->list[i].key, &f->list[i].value);
    return 1;
}

static int find_end(const struct facts *f, int from) {
    while (from < f->num && !ends_message(f->list[from].key))
        from++;
    return from < f->num ? from + 1 : f->num;
}

// Message by message: all that is said was found, and nothing was found that had to be said.
static int match_facts(const struct row *row, struct facts *f) {
    int failures = 0, from = 0, to = find_end(f, 0);
    for (int i = 0; i < row->num_lines && !failures; i++) {
        const struct expected *e = &row->lines[i];
        if (is_server_key(e->key)) continue;
        failures += match_line(row, e, f, from, to);
        if (!ends_message(e->key)) continue;
        from = to;
        to = find_end(f, from);
    }
    for (int i = 0; i < f->num && !failures; i++)
        if (!f->list[i].used && !f->list[i].optional)
            failures += complain(row, "parser found what is not expected", f->list[i].key, &f->list[i].value);
    return failures;
}

static int run_parser(const struct row *row) {
    struct drive d;
    int failures;
    if (!row->parser) return 0;
    drive_begin(&d, &row->input, NULL);
    drive_end(&d);
    failures = match_facts(row, &d.facts);
    failures += run_bytes(row, &d.facts);
    failures += run_splits(row, &d.facts);
    release_facts(&d.facts);
    return failures;
}

// ---- the server ----

static void reply_text(httpsrv_req *req, httpsrv_str text) {
    CHECK_INT(httpsrv_reply(req, 200, "text/plain", text), HTTPSRV_OK);
}

static void on_text(httpsrv_req *req, void *user) {
    httpsrv_str text = {(const char *)user, strlen((const char *)user)};
    reply_text(req, text);
}

static void on_body(httpsrv_req *req, void *user) {
    (void)user;
    reply_text(req, httpsrv_body(req));
}

static void on_length(httpsrv_req *req, void *user) {
    (void)user;
    CHECK_INT(httpsrv_replyf(req, 200, "text/plain", "%zu", httpsrv_body(req).len), HTTPSRV_OK);
}

static void on_param(httpsrv_req *req, void *user) {
    reply_text(req, httpsrv_param(req, (const char *)user));
}

static void on_post(httpsrv_req *req, void *user) {
    httpsrv_str id = httpsrv_param(req, "id"), post = httpsrv_param(req, "post");
    (void)user;
    CHECK_INT(httpsrv_replyf(req, 200, "text/plain", "%.*s:%.*s", HTTPSRV_FMT(id), HTTPSRV_FMT(post)), HTTPSRV_OK);
}

static void on_query(httpsrv_req *req, void *user) {
    httpsrv_str value = httpsrv_query(req, "q");
    (void)user;
    reply_text(req, value.ptr ? value : HTTPSRV_STR("(none)"));
}

static void on_host(httpsrv_req *req, void *user) {
    (void)user;
    reply_text(req, httpsrv_host(req));
}

struct case_route {
    const char *pattern;
    httpsrv_handler handler;
    const char *user;
    int64_t max_body;
};

static const struct case_route case_routes[] = {
    {"GET /", on_text, "root", 0},
    {"GET /probe", on_text, "probe", 0},
    {"* /echo", on_body, NULL, 0},
    {"POST /length", on_length, NULL, 0},
    {"PUT /ten", on_length, NULL, 10},
    {"POST /zero", on_length, NULL, HTTPSRV_ZERO},
    {"GET /two", on_text, "get", 0},
    {"POST /two", on_text, "post", 0},
    {"PURGE /cache", on_text, "purged", 0},
    {"GET /user/:id", on_param, "id", 0},
    {"GET /user/me", on_text, "me", 0},
    {"GET /user/:id/posts/:post", on_post, NULL, 0},
    {"GET /files/*path", on_param, "path", 0},
    {"GET /files/new", on_text, "new file", 0},
    {"GET /slash/", on_text, "slash", 0},
    {"GET /q", on_query, NULL, 0},
    {"GET /host", on_host, NULL, 0},
    {"GET /peer", on_peer, NULL, 0},
};

static void start_server(struct server *s, const char *pool) {
    httpsrv_config config;
    memset(&config, 0, sizeof config);
    blob[1] = 1; // nobody here wants to have it filled
    config.reactors = 1;
    if (pool) {
        config.reactors = 2;
        config.pools[0].name = pool;
        config.pools[0].threads = 2;
    }
    prepare(s, &config);
    for (size_t i = 0; i < sizeof case_routes / sizeof *case_routes; i++) {
        httpsrv_route_config route;
        memset(&route, 0, sizeof route);
        route.pattern = case_routes[i].pattern;
        route.handler = case_routes[i].handler;
        route.user = (void *)(uintptr_t)case_routes[i].user;
        route.max_body = case_routes[i].max_body;
        route.pool = pool;
        CHECK_INT(httpsrv_route(s->srv, &route), HTTPSRV_OK);
    }
    go(s);
}

// ---- scenarios as tests ----

static int visit_parser(const struct row *row, void *user) {
    (void)user;
    return run_parser(row);
}

static int visit_server(const struct row *row, void *user) {
    struct server *servers = (struct server *)user;
    run_server(row, &servers[0], &servers[1], WAITING);
    return 0;
}

static int meets_server(const struct row *row, void *user) {
    (void)user;
    return row->server;
}

static void run_scenario(void) {
    static struct server servers[2];
    int failures = each_row(visit_parser, NULL);
    fflush(stdout);
    if (failures) FAIL("%d failures", failures);
    if (each_row(meets_server, NULL) == 0) return;
    start_server(&servers[0], NULL);
    start_server(&servers[1], "cases");
    each_row(visit_server, servers);
    NOTE("%s:%d, at the end", current->file, current->line);
    finish(&servers[0]);
    finish(&servers[1]);
}

int main(int argc, char **argv) {
    (void)argc;
    load_arguments(argv + 1, "!file-");
    return run_documents(argv);
}
