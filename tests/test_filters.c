// Filters: httpsrv_use and what may be done in a filter, httpsrv_put, httpsrv_on_done, and the filters that come with the
// header. Also built with ThreadSanitizer.

#define HTTPSRV_IMPLEMENTATION
#include "../httpsrv.h"

#include "server.h"
#include <pthread.h>

#define HANDLED    "handled\n"
#define CLOSING    "Connection: close\r\n"
#define MOST       64               // outcomes that a test tells apart by number
#define STREAM     (3u << 20)       // bytes of a large answer in pieces
#define ENDLESS    (24u << 20)      // more than the kernel takes of what nobody reads
#define FILE_BYTES ((1u << 20) + 7) // of the file that is answered with

// Where a handler, and so its filters, run and how it takes its body: what is promised has to hold in all of these ways.
struct way {
    const char *name;
    bool worker, pieces; // pieces: on_body on a reactor, stream on a worker
    int reactors;
};

static const struct way ways[] = {
    {"inline, 1 reactor", false, false, 1},  {"by workers, 1 reactor", true, false, 1},
    {"on_body, 1 reactor", false, true, 1},  {"stream, 1 reactor", true, true, 1},
    {"inline, 3 reactors", false, false, 3}, {"stream, 3 reactors", true, true, 3},
};
static const struct way *way;

#define TEST_EACH_WAY(id) TEST_WAYS(id, true)

static struct server s;
static int marks;            // calls of filters that count
static httpsrv_token token_; // of the last request that was deferred, once `deferred` has counted it
static int deferred;
static char key_a, key_b; // of httpsrv_put
static pthread_t reactor; // that served /who; atomic

// ---- a server, run in one of the ways ----

static void on_who(httpsrv_req *req, void *user) {
    (void)user;
    STORE(reactor, pthread_self());
    httpsrv_reply(req, 200, NULL, HTTPSRV_STR("you"));
}

static void begin(const httpsrv_config *config) {
    httpsrv_config c = *config;
    c.reactors = way->reactors;
    c.pools[0] = (httpsrv_pool_config){.name = "work", .threads = 4};
    marks = deferred = 0;
    prepare(&s, &c);
    CHECK_INT(httpsrv_on(s.srv, "GET /hello", on_hello, &s), HTTPSRV_OK);
    CHECK_INT(httpsrv_on(s.srv, "GET /who", on_who, &s), HTTPSRV_OK);
    NOTE("%s", way->name);
}

static void begin_here(void) { // in the first way, where the others make no difference
    way = ways;
    begin(&(httpsrv_config){0});
}

static void use(const char *prefix, httpsrv_filter filter, const void *user) {
    CHECK_INT(httpsrv_use(s.srv, prefix, filter, (void *)(uintptr_t)user), HTTPSRV_OK);
}

// A handler and what it works with, for a route that takes the body as the way has it.
struct act {
    httpsrv_handler fn;
    void *user;
};

static void on_piece(httpsrv_req *req, httpsrv_str piece, bool last, void *user) {
    const struct act *act = (const struct act *)user;
    (void)piece;
    if (last) act->fn(req, act->user);
}

static void on_act(httpsrv_req *req, void *user) {
    const struct act *act = (const struct act *)user;
    char buf[4096];
    while (way->worker && way->pieces && httpsrv_read(req, buf, sizeof buf) > 0)
        continue;
    act->fn(req, act->user);
}

static void route(const char *pattern, httpsrv_handler fn, const void *user) {
    static struct act acts[MOST];
    static int num_acts;
    struct act *act = &acts[num_acts++ % MOST];
    httpsrv_route_config config = {.pattern = pattern, .user = act, .max_body = -1};
    *act = (struct act){fn, (void *)(uintptr_t)user};
    config.pool = way->worker ? "work" : NULL;
    config.stream = way->worker && way->pieces;
    config.on_body = !way->worker && way->pieces ? on_piece : NULL;
    config.handler = config.on_body ? NULL : on_act;
    CHECK_INT(httpsrv_route(s.srv, &config), HTTPSRV_OK);
}

static void on_handled(httpsrv_req *req, void *user) {
    (void)user;
    COUNT(s.handled);
    CHECK_INT(httpsrv_reply(req, 200, "text/plain", HTTPSRV_STR(HANDLED)), HTTPSRV_OK);
}

// ---- asking ----

__attribute__((format(printf, 1, 2))) static struct client askf(const char *format, ...) {
    char text[8192];
    va_list args;
    va_start(args, format);
    CHECK_CMP(vsnprintf(text, sizeof text, format, args), <, sizeof text);
    va_end(args);
    return ask(&s, text);
}

// One request with these further fields on a connection of its own.
static struct client request(const char *line, const char *fields) {
    return askf("%s HTTP/1.1\r\nHost: a\r\n%s\r\n", line, fields);
}

static struct client dial_from(const char *address, int port) {
    struct sockaddr_storage from;
    struct client c = net_client(net_socket(AF_INET));
    const socklen_t size = net_address(&from, address, 0);
    if (bind(c.fd, (struct sockaddr *)&from, size) != 0) SKIP("cannot bind to %s", address);
    c.error = net_connect(c.fd, "127.0.0.1", port);
    NET_CHECK(&c, c.error == 0, "cannot connect");
    return c;
}

// All values of a field, one behind the other with a space between.
static const char *joined(const struct client *c, const char *name) {
    static char out[4096];
    size_t len = 0;
    out[0] = 0;
    for (int i = 0; i < c->num_fields; i++) {
        if (strcasecmp(c->head + c->fields[i].name, name) != 0) continue;
        len += (size_t)snprintf(out + len, sizeof out - len, "%s%s", len > 0 ? " " : "", c->head + c->fields[i].value);
        CHECK_CMP(len, <, sizeof out);
    }
    return out;
}

// Lines "Name: value" (exactly once, so), "Name~part" (somewhere in a value) and "!Name" (not there).
static void check_fields(const struct client *c, const char *lines) {
    char line[500];
    for (const char *end; *lines; lines = end + 1) {
        end = strchr(lines, '\n');
        CHECK(end != NULL);
        snprintf(line, sizeof line, "%.*s", (int)(end - lines), lines);
        const size_t name_len = strcspn(line, ":~");
        const char mode = line[0] == '!' ? '!' : line[name_len];
        line[name_len] = 0;
        NOTE("%.*s", (int)(end - lines), lines);
        if (mode == '!') CHECK_INT(count_fields(c, line + 1), 0);
        if (mode == '~') CHECK_HAS(joined(c, line), line + name_len + 1);
        if (mode == ':') CHECK_STR(joined(c, line), line + name_len + 2);
    }
}

// ---- httpsrv_use ----

// Leaves a trace in the answer.
static httpsrv_verdict mark(httpsrv_req *req, void *user) {
    COUNT(marks);
    CHECK_INT(httpsrv_add(req, "X-Trace", (httpsrv_str){(const char *)user, strlen((const char *)user)}), HTTPSRV_OK);
    return HTTPSRV_NEXT;
}

static void check_trace(const char *line, int status, const char *trace) {
    struct client c = request(line, "");
    NOTE("%s, %s", way->name, line);
    CHECK_INT(c.status, status);
    CHECK_STR(joined(&c, "X-Trace"), trace);
    hang_up(&c);
}

TEST_EACH_WAY(order_and_prefixes) {
    static const struct {
        const char *path, *trace;
    } rows[] = {
        {"/", "first all last"},
        {"/api", "first all api last"},
        {"/api?/sub", "first all api last"},
        {"/api/", "first all api last"},
        {"/api/x", "first all api last"},
        {"/api/v1", "first all v1 api last"},
        {"/api/v1/a/b/c", "first all v1 api last"},
        {"/api/v10", "first all api last"},
        {"/apis", "first all last"},
        {"/ap", "first all last"},
        {"/x/api", "first all last"},
        {"//api", "first all last"},
        {"/API", "first all last"},
        {"/api;v=1", "first all last"},
        {"/%61pi", "first all api last"},
        {"/%61p%69/%76%31", "first all v1 api last"},
        {"/x/../api", "first all api last"},
        {"/x/%2e%2E/api/./v1", "first all v1 api last"},
        {"/api/../x", "first all last"},
        {"/api/v1/..", "first all api last"},
        {"/api%2Fx", "first all api last"},
        {"/%2561pi", "first all last"},
        {"/slash", "first all slash last"},
        {"/slash/x", "first all slash last"},
        {"/slashed", "first all last"},
        {"/a%20b/c", "first all space last"},
        {"/a+b/c", "first all last"},
        {"/%C3%BC", "first all utf8 last"},
        {"http://h/api", "first all api last"},
    };
    begin(&(httpsrv_config){0});
    use("/", mark, "first");
    use("/", mark, "all");
    use("/api/v1", mark, "v1"); // the order is that of setup, not that of lengths
    use("/a b", mark, "space");
    use("/slash/", mark, "slash");
    use("/\xC3\xBC", mark, "utf8");
    use("/api", mark, "api");
    route("GET /*rest", on_handled, NULL);
    use("/", mark, "last"); // also when the route is there already
    go(&s);
    for (size_t i = 0; i < ROWS(rows); i++) {
        char line[100];
        snprintf(line, sizeof line, "GET %s", rows[i].path);
        check_trace(line, 200, rows[i].trace);
    }
    check_trace("HEAD /api", 200, "first all api last");
    CHECK_INT(LOAD(s.handled), ROWS(rows) + 1);
    finish(&s);
}

// What only a regular expression reaches, which looks at the whole decoded path.
TEST_EACH_WAY(regular_expressions) {
    begin(&(httpsrv_config){0});
    use("/admin", mark, "admin");
    route("GET ~^/admin/", on_handled, NULL);
    go(&s);
    check_trace("GET /admin/x", 200, "admin");
    check_trace("GET /%61dmin/x", 200, "admin");
    check_trace("GET /admin%2Fx", 200, "admin");
    check_trace("GET /admin%2fx/y", 200, "admin");
    check_trace("GET /x/..%2Fadmin/", 404, "");
    finish(&s);
}

TEST(without_a_route) {
    static const struct {
        const char *line;
        int status;
        const char *trace;
    } rows[] = {
        {"GET /nowhere", 404, "all"},    {"GET /api/nowhere", 404, "all api"}, {"DELETE /api/x", 405, "all api"},
        {"POST /api/x", 405, "all api"}, {"OPTIONS /api/x", 204, "all api"},   {"HEAD /api/nowhere", 404, "all api"},
    };
    begin_here();
    use("/", mark, "all");
    use("/api", mark, "api");
    route("GET /api/x", on_handled, NULL);
    go(&s);
    for (size_t i = 0; i < ROWS(rows); i++) {
        check_trace(rows[i].line, rows[i].status, rows[i].trace);
    }
    CHECK_INT(LOAD(s.handled), 0);
    finish(&s);
}

// What the parser refuses, or has no path, meets no filter.
TEST(not_after_a_refusal) {
    static const struct {
        const char *head;
        int status;
    } rows[] = {
        {"GET /\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400},
        {"GET /../x HTTP/1.1\r\nHost: a\r\n\r\n", 400},
        {"GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n", 400},
        {"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505},
        {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
        {"GET /1234567890123456789012345678901234567890123456789012345678901234567890 HTTP/1.1\r\nHost: a\r\n\r\n",
         414},
        {"GET / HTTP/1.1\r\nHost: a\r\nA: 1\r\nB: 2\r\nC: 3\r\nD: 4\r\n\r\n", 431},
    };
    way = ways;
    begin(&(httpsrv_config){.max = {.uri = 64, .headers = 4}});
    use("/", mark, "all");
    route("* /*rest", on_handled, NULL);
    go(&s);
    for (size_t i = 0; i < ROWS(rows); i++) {
        struct client c = ask(&s, rows[i].head);
        NOTE("row %zu", i);
        CHECK_INT(c.status, rows[i].status);
        CHECK_INT(count_fields(&c, "X-Trace"), 0);
        hang_up(&c);
    }
    CHECK_INT(LOAD(marks), 0);
    finish(&s);
}

static httpsrv_verdict see_head(httpsrv_req *req, void *user) {
    (void)user;
    COUNT(marks);
    CHECK_VIEW(httpsrv_method(req), "POST");
    CHECK_VIEW(httpsrv_path(req), "/take/7");
    CHECK_VIEW(httpsrv_param(req, "id"), "7");
    CHECK_VIEW(httpsrv_query(req, "q"), "a b");
    CHECK_VIEW(httpsrv_header(req, "x-test"), "kept");
    CHECK_VIEW(httpsrv_peer(req), "127.0.0.1");
    CHECK(httpsrv_server(req) == s.srv);
    if (!way->worker) CHECK_INT(httpsrv_body(req).len, 0);
    return HTTPSRV_NEXT;
}

static httpsrv_verdict refuse(httpsrv_req *req, void *user) {
    (void)user;
    COUNT(marks);
    CHECK_INT(httpsrv_reply(req, 403, "text/plain", HTTPSRV_STR("no")), HTTPSRV_OK);
    return HTTPSRV_DONE;
}

#define TAKE "POST /take/7?q=a+b HTTP/1.1\r\nHost: a\r\nX-Test: kept\r\n"

// A reactor asks its filters at the head, and a worker in a route with stream before it reads.
TEST_WAYS(before_the_body, !way->worker || way->pieces) {
    begin(&(httpsrv_config){0});
    use("/take", see_head, NULL);
    use("/take", refuse, NULL);
    route("POST /take/:id", on_handled, NULL);
    go(&s);
    struct client c = dial(s.port);
    SEND(&c, TAKE "Expect: 100-continue\r\nContent-Length: 5000000\r\n\r\n");
    EXPECT(&c, 403, "no"); // and no 100 before it
    hang_up(&c);
    c = dial(s.port);
    SEND(&c, TAKE "Transfer-Encoding: chunked\r\n\r\n");
    EXPECT(&c, 403, "no");
    hang_up(&c);
    CHECK_INT(LOAD(marks), 4);
    CHECK_INT(LOAD(s.handled), 0);
    finish(&s);
}

// What was refused before its body came does not trouble the request behind it.
TEST_EACH_WAY(refused_with_a_body) {
    begin(&(httpsrv_config){0});
    use("/take", refuse, NULL);
    route("POST /take/:id", on_handled, NULL);
    go(&s);
    struct client c = dial(s.port);
    SEND(&c, TAKE "Content-Length: 31\r\n\r\nGET /take HTTP/1.1\r\nHost: b\r\n\r\n");
    EXPECT(&c, 403, "no");
    if (!c.close) {
        GET(&c, "/hello");
        EXPECT(&c, 200, "Hello, World!\n");
    }
    hang_up(&c);
    CHECK_INT(LOAD(marks), 1);
    check_alive(&s);
    finish(&s);
}

TEST_EACH_WAY(continue_behind_filters) {
    begin(&(httpsrv_config){0});
    use("/take", see_head, NULL);
    route("POST /take/:id", on_handled, NULL);
    go(&s);
    struct client c = dial(s.port);
    SEND(&c, TAKE "Expect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    EXPECT(&c, 100, "");
    SEND(&c, "12345");
    EXPECT(&c, 200, HANDLED);
    hang_up(&c);
    CHECK_INT(LOAD(marks), 1);
    finish(&s);
}

// ---- httpsrv_put, and what lives from the filter to the handler ----

struct luggage {
    httpsrv_str header, path;
    char text[100];
};

static httpsrv_verdict pack(httpsrv_req *req, void *user) {
    struct luggage *l = (struct luggage *)httpsrv_alloc(req, sizeof *l);
    (void)user;
    CHECK(l != NULL);
    CHECK(httpsrv_get(req, &key_a) == NULL);
    l->header = httpsrv_header(req, "X-Test");
    l->path = httpsrv_path(req);
    strcpy(l->text, "packed");
    CHECK_INT(httpsrv_put(req, &key_a, &marks), HTTPSRV_OK);
    CHECK_INT(httpsrv_put(req, &key_b, &deferred), HTTPSRV_OK);
    CHECK_INT(httpsrv_put(req, &key_a, l), HTTPSRV_OK); // instead of the one before
    httpsrv_attach(req, &key_b);
    return HTTPSRV_NEXT;
}

static void on_unpack(httpsrv_req *req, void *user) {
    static const char keys[100];
    const struct luggage *l = (const struct luggage *)httpsrv_get(req, &key_a);
    CHECK(l != NULL);
    CHECK_STR(l->text, "packed");
    CHECK_VIEW(l->header, "kept");
    CHECK_VIEW(l->path, "/take/7");
    CHECK(httpsrv_get(req, &key_b) == &deferred);
    CHECK(httpsrv_attached(req) == &key_b);
    for (size_t i = 0; i < sizeof keys; i++) {
        CHECK(httpsrv_get(req, keys + i) == NULL);
        CHECK_INT(httpsrv_put(req, keys + i, (void *)(uintptr_t)(keys + (i * 7) % sizeof keys)), HTTPSRV_OK);
    }
    for (size_t i = 0; i < sizeof keys; i++)
        CHECK(httpsrv_get(req, keys + i) == keys + (i * 7) % sizeof keys);
    CHECK_INT(httpsrv_put(req, &key_b, NULL), HTTPSRV_OK);
    CHECK(httpsrv_get(req, &key_b) == NULL);
    on_handled(req, user);
}

// The body comes in pieces between the filter and the handler, and each request begins with nothing.
TEST_EACH_WAY(put_along) {
    begin(&(httpsrv_config){0});
    use("/take", pack, NULL);
    route("POST /take/:id", on_unpack, NULL);
    go(&s);
    struct client c = dial(s.port);
    for (int i = 0; i < 3; i++) {
        send_seen(&s, &c, TAKE, strlen(TAKE));
        SEND(&c, "Content-Length: 20000\r\n\r\n");
        send_seen(&s, &c, blob, 7000);
        send_seen(&s, &c, blob, 7000);
        net_send(&c, blob, 6000);
        EXPECT(&c, 200, HANDLED);
    }
    hang_up(&c);
    finish(&s);
}

static void on_unpack_later(httpsrv_req *req, void *user) {
    (void)user;
    CHECK(req != NULL);
    CHECK(httpsrv_get(req, &key_b) == &deferred);
    on_handled(req, NULL);
}

static void on_defer_packed(httpsrv_req *req, void *user) {
    const httpsrv_token token = httpsrv_defer(req);
    CHECK(token.id != 0);
    CHECK_INT(httpsrv_post(s.srv, token, on_unpack_later, user), HTTPSRV_OK);
}

TEST_EACH_WAY(put_along_to_later) {
    begin(&(httpsrv_config){0});
    use("/take", pack, NULL);
    route("POST /take/:id", on_defer_packed, NULL);
    go(&s);
    struct client c = ask(&s, TAKE "Content-Length: 3\r\n\r\nabc");
    CHECK_INT(c.status, 200);
    hang_up(&c);
    finish(&s);
}

// ---- filters that end a request ----

static void on_answer_later(httpsrv_req *req, void *user) {
    (void)user;
    CHECK(req != NULL);
    CHECK_INT(httpsrv_reply(req, 202, NULL, HTTPSRV_STR("posted")), HTTPSRV_OK);
}

static httpsrv_verdict defer(httpsrv_req *req, void *user) {
    (void)user;
    CHECK_INT(httpsrv_set(req, "X-Early", HTTPSRV_STR("1")), HTTPSRV_OK);
    token_ = httpsrv_defer(req);
    CHECK(token_.id != 0);
    COUNT(deferred);
    return HTTPSRV_DONE;
}

static httpsrv_verdict defer_and_post(httpsrv_req *req, void *user) {
    const httpsrv_token token = httpsrv_defer(req);
    CHECK(token.id != 0);
    CHECK_INT(httpsrv_post(s.srv, token, on_answer_later, user), HTTPSRV_OK);
    return HTTPSRV_DONE;
}

static httpsrv_verdict done_without(httpsrv_req *req, void *user) {
    (void)req;
    (void)user;
    return HTTPSRV_DONE;
}

static httpsrv_verdict answer_in_pieces(httpsrv_req *req, void *user) {
    (void)user;
    CHECK_INT(httpsrv_begin(req, 200, "text/plain", -1), HTTPSRV_OK);
    CHECK_INT(httpsrv_write(req, HTTPSRV_STR("in ")), HTTPSRV_OK);
    CHECK_INT(httpsrv_write(req, HTTPSRV_STR("pieces")), HTTPSRV_OK);
    CHECK_INT(httpsrv_end(req), HTTPSRV_OK);
    return HTTPSRV_DONE;
}

static httpsrv_verdict answer_and_go_on(httpsrv_req *req, void *user) {
    (void)user;
    CHECK_INT(httpsrv_reply(req, 200, NULL, HTTPSRV_STR("once")), HTTPSRV_OK);
    return HTTPSRV_NEXT;
}

// All of it without a body, with one, and where there is no route.
TEST_EACH_WAY(filters_that_end_it) {
    static const struct {
        const char *prefix;
        httpsrv_filter filter;
        int status;
        const char *body;
    } rows[] = {
        {"/refuse", refuse, 403, "no"},
        {"/posted", defer_and_post, 202, "posted"},
        {"/without", done_without, 500, NULL},
        {"/pieces", answer_in_pieces, 200, "in pieces"},
    };
    static const char *const wheres[] = {"", "/nowhere"};
    int kept = 0;
    begin(&(httpsrv_config){0});
    for (size_t i = 0; i < ROWS(rows); i++) {
        char pattern[50];
        snprintf(pattern, sizeof pattern, "* %s", rows[i].prefix);
        use(rows[i].prefix, mark, "before");
        use(rows[i].prefix, rows[i].filter, NULL);
        use(rows[i].prefix, mark, "behind");
        route(pattern, on_handled, NULL);
    }
    go(&s);
    for (size_t i = 0; i < 4 * ROWS(rows); i++) {
        const size_t row = i / 4;
        struct client c = dial(s.port);
        NOTE("%s, %s, %zu", way->name, rows[row].prefix, i);
        SENDF(&c, "POST %s%s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", rows[row].prefix, wheres[i % 2],
              i % 4 < 2 ? 0 : 5, i % 4 < 2 ? "" : "12345");
        EXPECT(&c, rows[row].status, rows[row].body);
        if (c.status != 500) CHECK_STR(joined(&c, "X-Trace"), "before");
        if (!c.close) {
            kept++;
            GET(&c, "/hello");
            EXPECT(&c, 200, "Hello, World!\n");
        }
        hang_up(&c);
    }
    CHECK_INT(LOAD(marks), 4 * ROWS(rows) + 4); // of all that are first, and of the four that refuse
    CHECK_INT(LOAD(s.handled), kept);           // of /hello alone
    CHECK_INT(LOAD(s.logged[HTTPSRV_LOG_NO_ANSWER]), 4);
    finish(&s);
}

TEST_EACH_WAY(filters_that_defer) {
    const httpsrv_answer answer = {.status = 200, .body = HTTPSRV_STR("finished")};
    begin(&(httpsrv_config){0});
    use("/later", defer, NULL);
    use("/later", mark, "behind");
    route("GET /later", on_handled, NULL);
    go(&s);
    for (int i = 0; i < 2; i++) {
        struct client c = dial(s.port);
        GET(&c, i == 0 ? "/later" : "/later/nowhere");
        WAIT(LOAD(deferred) == i + 1);
        EXPECT_SILENCE(&c, 30);
        CHECK_INT(httpsrv_finish(s.srv, token_, &answer), HTTPSRV_OK);
        EXPECT(&c, 200, "finished");
        CHECK_STR(joined(&c, "X-Early"), "1");
        CHECK_STR(joined(&c, "X-Trace"), "");
        CHECK_INT(httpsrv_finish(s.srv, token_, &answer), HTTPSRV_GONE);
        GET(&c, "/hello");
        EXPECT(&c, 200, "Hello, World!\n");
        hang_up(&c);
    }
    CHECK_INT(LOAD(marks), 0);
    finish(&s);
}

// The same before the body has come, which then comes before the answer or after it.
TEST_WAYS(filters_that_defer_before_the_body, !way->worker) {
    const httpsrv_answer answer = {.status = 200, .body = HTTPSRV_STR("finished")};
    begin(&(httpsrv_config){0});
    use("/later", defer, NULL);
    route("POST /later", on_handled, NULL);
    go(&s);
    for (int i = 0; i < 2; i++) {
        struct client c = dial(s.port);
        SEND(&c, "POST /later HTTP/1.1\r\nHost: a\r\nContent-Length: 31\r\n\r\n");
        WAIT(LOAD(deferred) == i + 1);
        if (i == 0) SEND(&c, "GET /take HTTP/1.1\r\nHost: b\r\n\r\n");
        EXPECT_SILENCE(&c, 30);
        CHECK_INT(httpsrv_finish(s.srv, token_, &answer), HTTPSRV_OK);
        EXPECT(&c, 200, "finished");
        if (i == 1) net_send_some(&c, "GET /take HTTP/1.1\r\nHost: b\r\n\r\n", 31, net_deadline());
        if (!c.close) {
            GET(&c, "/hello");
            EXPECT(&c, 200, "Hello, World!\n");
        }
        hang_up(&c);
    }
    finish(&s);
}

// A filter that deferred, and whose client goes.
TEST_EACH_WAY(deferred_and_left) {
    const httpsrv_answer answer = {.status = 200, .body = HTTPSRV_STR("for nobody")};
    begin(&(httpsrv_config){0});
    use("/later", defer, NULL);
    route("GET /later", on_handled, NULL);
    go(&s);
    struct client c = dial(s.port);
    GET(&c, "/later");
    WAIT(LOAD(deferred) == 1);
    net_reset(&c);
    WAIT(metrics(&s).connections == 0);
    CHECK_INT(httpsrv_finish(s.srv, token_, &answer), HTTPSRV_GONE);
    finish(&s);
}

TEST_EACH_WAY(an_answer_and_next) {
    begin(&(httpsrv_config){0});
    use("/once", answer_and_go_on, NULL);
    route("GET /once", on_hello, &s); // which would see that there is an answer
    go(&s);
    struct client c = dial(s.port);
    GET(&c, "/once");
    EXPECT(&c, 200, "once");
    GET(&c, "/hello");
    EXPECT(&c, 200, "Hello, World!\n");
    hang_up(&c);
    finish(&s);
}

static httpsrv_verdict dress(httpsrv_req *req, void *user) {
    (void)user;
    CHECK_INT(httpsrv_set(req, "X-Kept", HTTPSRV_STR("filter")), HTTPSRV_OK);
    CHECK_INT(httpsrv_set(req, "X-Replaced", HTTPSRV_STR("filter")), HTTPSRV_OK);
    CHECK_INT(httpsrv_set(req, "Cache-Control", HTTPSRV_STR("no-store")), HTTPSRV_OK);
    CHECK_INT(httpsrv_set(req, "X-Bad", HTTPSRV_STR("a\r\nb")), HTTPSRV_ARG);
    return HTTPSRV_NEXT;
}

static void on_dressed(httpsrv_req *req, void *user) {
    const httpsrv_str path = httpsrv_path(req);
    const char how = path.ptr[path.len - 1];
    (void)user;
    CHECK_INT(httpsrv_set(req, "X-Replaced", HTTPSRV_STR("handler")), HTTPSRV_OK);
    if (how == 'r') httpsrv_reply(req, 200, NULL, HTTPSRV_STR("r"));
    if (how == 'f') httpsrv_replyf(req, 200, NULL, "%c", how);
    if (how == 'w') httpsrv_reply_with(req, &(httpsrv_answer){.status = 200, .body = HTTPSRV_STR("w")});
    if (how == '3') httpsrv_redirect(req, 302, "/r");
    if (how == 'b') {
        httpsrv_begin(req, 200, NULL, 1);
        httpsrv_write(req, HTTPSRV_STR("b"));
        httpsrv_end(req);
    }
    if (how == 'd') CHECK_INT(httpsrv_post(s.srv, httpsrv_defer(req), on_answer_later, NULL), HTTPSRV_OK);
}

TEST_EACH_WAY(fields_of_filters) {
    begin(&(httpsrv_config){0});
    use("/", dress, NULL);
    route("GET /:how", on_dressed, NULL);
    go(&s);
    for (const char *how = "rfwb3d"; *how; how++) {
        struct client c = askf("GET /%c HTTP/1.1\r\nHost: a\r\n\r\n", *how);
        CHECK_CMP(c.status, <, 400);
        check_fields(&c, "X-Kept: filter\nX-Replaced: handler\nCache-Control: no-store\n!X-Bad\n");
        hang_up(&c);
    }
    finish(&s);
}

// ---- setup ----

TEST(setup_errors) {
    static const char *const bad[] = {"api", "", "*"};
    for (size_t i = 0; i < ROWS(bad); i++) {
        way = ways;
        begin(&(httpsrv_config){0});
        NOTE("prefix \"%s\"", bad[i]);
        CHECK_INT(httpsrv_use(s.srv, bad[i], mark, NULL), HTTPSRV_ROUTE);
        CHECK_INT(httpsrv_use(s.srv, "/fine", mark, NULL), HTTPSRV_OK);
        CHECK_INT(httpsrv_listen(s.srv), HTTPSRV_ROUTE);
        CHECK(httpsrv_error(s.srv)[0] != 0);
        dispose(&s);
    }
    begin(&(httpsrv_config){0});
    CHECK_INT(httpsrv_use(NULL, "/", mark, NULL), HTTPSRV_ARG);
    go(&s);
    CHECK_INT(httpsrv_use(s.srv, "/", mark, NULL), HTTPSRV_STATE);
    check_alive(&s);
    finish(&s);
    begin(&(httpsrv_config){0});
    CHECK(httpsrv_use(s.srv, "/", NULL, NULL) != HTTPSRV_OK);
    CHECK(httpsrv_listen(s.srv) != HTTPSRV_OK);
    dispose(&s);
}

TEST(setup_without_memory) {
    bool failed = true;
    for (int at = 1; failed; at++) {
        CHECK_CMP(at, <, 100);
        begin_here();
        STORE(s.failing_at, at);
        const httpsrv_result result = httpsrv_use(s.srv, "/a/prefix", mark, NULL);
        const httpsrv_result listening = result == HTTPSRV_OK ? HTTPSRV_NOMEM : httpsrv_listen(s.srv);
        failed = s.asked >= at;
        STORE(s.failing_at, 0);
        CHECK_INT(result, failed ? HTTPSRV_NOMEM : HTTPSRV_OK);
        CHECK_INT(listening, HTTPSRV_NOMEM); // also later, when there is memory again
        dispose(&s);
    }
}

// ---- httpsrv_on_done ----

struct done {
    httpsrv_outcome outcome;
    pthread_t thread;
    int order; // among all
    int calls; // atomic, and released last
};

static struct done dones[MOST];
static int dones_called;

static void on_done(const httpsrv_outcome *outcome, void *arg) {
    struct done *d = (struct done *)arg;
    if (LOAD(d->calls) == 0) {
        d->outcome = *outcome;
        d->thread = pthread_self();
        d->order = __atomic_add_fetch(&dones_called, 1, __ATOMIC_ACQ_REL);
    }
    COUNT(d->calls);
}

static httpsrv_verdict watch(httpsrv_req *req, void *user) {
    COUNT(marks);
    CHECK_INT(httpsrv_on_done(req, NULL, NULL), HTTPSRV_ARG);
    CHECK_INT(httpsrv_on_done(req, on_done, user), HTTPSRV_OK);
    return HTTPSRV_NEXT;
}

// The same for requests that are told apart by "?n=".
static httpsrv_verdict watch_number(httpsrv_req *req, void *user) {
    const httpsrv_str n = httpsrv_query(req, "n");
    const size_t number = n.ptr ? (size_t)atoi(n.ptr) : 0; // a byte that is no digit follows in the head
    (void)user;
    CHECK_CMP(number, <, MOST);
    CHECK_INT(httpsrv_on_done(req, on_done, &dones[number]), HTTPSRV_OK);
    return HTTPSRV_NEXT;
}

static void reset_dones(void) {
    for (size_t i = 0; i < ROWS(dones); i++) {
        dones[i].order = 0;
        dones[i].outcome = (httpsrv_outcome){0};
        STORE(dones[i].calls, 0);
    }
    STORE(dones_called, 0);
}

static const httpsrv_outcome *wait_done(int number) {
    WAIT(LOAD(dones[number].calls) > 0);
    return &dones[number].outcome;
}

// Nothing is called twice, however long one waits; the server is gone by then.
static void check_once(int count) {
    for (int i = 0; i < count; i++) {
        NOTE("%s, call-back %d", way->name, i);
        CHECK_INT(LOAD(dones[i].calls), 1);
    }
    CHECK_INT(LOAD(dones_called), count);
}

static char file_name[] = "/tmp/httpsrv-filters.XXXXXX";

static void make_file(void) {
    const int fd = mkstemp(file_name);
    CHECK_CMP(fd, >=, 0);
    CHECK_INT(write(fd, blob, FILE_BYTES), FILE_BYTES);
    close(fd);
}

struct pump { // an answer in pieces
    size_t left;
    httpsrv_result last;
};

static void on_pump(httpsrv_req *req, void *user) {
    struct pump *p = (struct pump *)user;
    httpsrv_result result = HTTPSRV_OK;
    while (p->left > 0 && result == HTTPSRV_OK) {
        const size_t n = p->left < 30000 ? p->left : 30000;
        result = httpsrv_write(req, (httpsrv_str){blob, n});
        if (result == HTTPSRV_OK) p->left -= n;
    }
    if (p->left == 0) result = httpsrv_end(req);
    p->last = result;
}

static void stream_bytes(httpsrv_req *req, size_t bytes, int64_t length) {
    struct pump *p = (struct pump *)httpsrv_alloc(req, sizeof *p);
    CHECK(p != NULL);
    *p = (struct pump){bytes, HTTPSRV_OK};
    CHECK_INT(httpsrv_begin(req, 200, "text/plain", length), HTTPSRV_OK);
    CHECK_INT(httpsrv_on_drain(req, on_pump, p), HTTPSRV_OK);
}

static void on_reply_10(httpsrv_req *req, void *user) {
    (void)user;
    httpsrv_reply(req, 200, "text/plain", blob_view(10));
}

static void on_reply_blob(httpsrv_req *req, void *user) {
    (void)user;
    httpsrv_reply(req, 200, "text/plain", blob_view(BLOB_BYTES));
}

static void on_reply_borrowed(httpsrv_req *req, void *user) {
    httpsrv_answer answer = {.status = 201, .body = blob_view(BLOB_BYTES), .release = count_release, .release_arg = &s};
    (void)user;
    COUNT(s.borrowed);
    httpsrv_reply_with(req, &answer);
}

static void on_reply_204(httpsrv_req *req, void *user) {
    (void)user;
    httpsrv_reply(req, 204, NULL, HTTPSRV_STR(""));
}

static void on_chunks(httpsrv_req *req, void *user) {
    (void)user;
    CHECK_INT(httpsrv_begin(req, 200, NULL, -1), HTTPSRV_OK);
    CHECK_INT(httpsrv_write(req, HTTPSRV_STR("some ")), HTTPSRV_OK);
    CHECK_INT(httpsrv_write(req, HTTPSRV_STR("chunks")), HTTPSRV_OK);
    CHECK_INT(httpsrv_add_trailer(req, "X-Sum", HTTPSRV_STR("7")), HTTPSRV_OK);
    CHECK_INT(httpsrv_end(req), HTTPSRV_OK);
}

static void on_stream_chunked(httpsrv_req *req, void *user) {
    (void)user;
    stream_bytes(req, STREAM, -1);
}

static void on_stream_counted(httpsrv_req *req, void *user) {
    (void)user;
    stream_bytes(req, STREAM, STREAM);
}

static void on_file(httpsrv_req *req, void *user) {
    (void)user;
    CHECK_INT(httpsrv_reply_file(req, file_name, "text/plain"), HTTPSRV_OK);
}

static void on_posted(httpsrv_req *req, void *user) {
    CHECK_INT(httpsrv_post(s.srv, httpsrv_defer(req), on_answer_later, user), HTTPSRV_OK);
}

static void on_finished(httpsrv_req *req, void *user) {
    const httpsrv_answer answer = {.status = 203, .body = blob_view(100000)};
    (void)user;
    CHECK_INT(httpsrv_finish(s.srv, httpsrv_defer(req), &answer), HTTPSRV_OK);
}

static void on_events(httpsrv_req *req, void *user) {
    const httpsrv_event event = {.data = HTTPSRV_STR("news")};
    const httpsrv_token token = httpsrv_sse_begin(req, NULL);
    (void)user;
    CHECK(token.id != 0);
    CHECK_INT(httpsrv_sse_send(s.srv, token, &event), HTTPSRV_OK);
    CHECK_INT(httpsrv_sse_end(s.srv, token), HTTPSRV_OK);
}

static char at_once[] = "the answer is complete when the handler returns";

// Another call-back of its own, behind that of the filter, and none any more once it has answered.
static void on_watched(httpsrv_req *req, void *user) {
    CHECK_INT(httpsrv_on_done(req, on_done, &dones[1]), HTTPSRV_OK);
    ((const struct act *)user)->fn(req, NULL);
    if (((const struct act *)user)->user == at_once) CHECK_INT(httpsrv_on_done(req, on_done, &dones[2]), HTTPSRV_STATE);
}

static void check_delivered(const char *request_head, int status) {
    const pthread_t here = pthread_self();
    struct client c = dial(s.port);
    reset_dones();
    net_send(&c, request_head, strlen(request_head));
    const size_t total = net_until_end(&c);
    CHECK_INT(c.error, 0);
    for (int i = 0; i < 2; i++) {
        const httpsrv_outcome *outcome = wait_done(i);
        CHECK_INT(outcome->status, status);
        CHECK(outcome->delivered);
        CHECK_INT(outcome->bytes, total);
        CHECK(!pthread_equal(dones[i].thread, here));
        if (way->reactors == 1) CHECK(pthread_equal(dones[i].thread, LOAD(reactor)));
    }
    CHECK_CMP(dones[0].order, <, dones[1].order);
    CHECK_INT(LOAD(dones[2].calls), 0);
    hang_up(&c);
}

TEST_EACH_WAY(done_when_delivered) {
    static const struct {
        const char *path;
        int status;
        struct act act;
    } rows[] = {
        {"/small", 200, {on_reply_10, at_once}},
        {"/large", 200, {on_reply_blob, at_once}},
        {"/borrowed", 201, {on_reply_borrowed, at_once}},
        {"/204", 204, {on_reply_204, at_once}},
        {"/chunks", 200, {on_chunks, at_once}},
        {"/stream", 200, {on_stream_chunked, NULL}},
        {"/counted", 200, {on_stream_counted, NULL}},
        {"/file", 200, {on_file, at_once}},
        {"/posted", 202, {on_posted, NULL}},
        {"/finished", 203, {on_finished, NULL}},
        {"/events", 200, {on_events, NULL}},
    };
    static const char *const requests[] = {
        "GET %s HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "GET %s HTTP/1.0\r\n\r\n",
        "HEAD %s HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "POST %s HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 5\r\n\r\n12345",
    };
    begin(&(httpsrv_config){0});
    make_file();
    use("/", watch, &dones[0]);
    for (size_t i = 0; i < ROWS(rows); i++) {
        char pattern[50];
        snprintf(pattern, sizeof pattern, "* %s", rows[i].path);
        route(pattern, on_watched, &rows[i].act);
    }
    go(&s);
    reset_dones();
    check_alive(&s);
    struct client who = request("GET /who", "");
    hang_up(&who);
    WAIT(LOAD(dones[0].calls) == 2); // for both of these
    for (size_t i = 0; i < ROWS(rows) * ROWS(requests); i++) {
        char head[200];
        if (rows[i / ROWS(requests)].act.fn == on_events && i % ROWS(requests) == 2) continue; // has no end to wait for
        snprintf(head, sizeof head, requests[i % ROWS(requests)], rows[i / ROWS(requests)].path);
        NOTE("%s, %s", way->name, head);
        check_delivered(head, rows[i / ROWS(requests)].status);
    }
    finish(&s);
    check_once(2);
    unlink(file_name);
    memcpy(file_name + sizeof file_name - 7, "XXXXXX", 6);
}

// Each of many on one connection has its own, in order, and together they are what has come.
TEST_EACH_WAY(done_when_pipelined) {
    int64_t sum = 0;
    size_t total;
    begin(&(httpsrv_config){0});
    use("/", watch_number, NULL);
    route("GET /chunks", on_chunks, NULL);
    route("GET /blob", on_reply_blob, NULL);
    route("GET /small", on_reply_10, NULL);
    go(&s);
    reset_dones();
    struct client c = dial(s.port);
    for (int i = 0; i < 20; i++) {
        static const char *const paths[] = {"/small", "/chunks", "/nowhere", "/blob", "/hello"};
        SENDF(&c, "GET %s?n=%d HTTP/1.1\r\nHost: a\r\n%s\r\n", paths[i < 10 || i % 5 != 3 ? i % 5 : 0], i,
              i == 19 ? CLOSING : "");
    }
    total = net_until_end(&c);
    for (int i = 0; i < 20; i++) {
        const httpsrv_outcome *outcome = wait_done(i);
        NOTE("%s, %d", way->name, i);
        CHECK(outcome->delivered);
        CHECK_INT(outcome->status, i % 5 == 2 ? 404 : 200);
        CHECK_CMP(outcome->bytes, >, 0);
        CHECK_INT(dones[i].order, i + 1);
        sum += outcome->bytes;
    }
    CHECK_INT(sum, total);
    hang_up(&c);
    finish(&s);
    check_once(20);
}

// What the server answers by itself behind a filter.
TEST(done_of_the_servers_answers) {
    static const struct {
        const char *request;
        int status;
    } rows[] = {
        {"GET /nowhere?n=%zu HTTP/1.1\r\nHost: a\r\n\r\n", 404},
        {"DELETE /small?n=%zu HTTP/1.1\r\nHost: a\r\n\r\n", 405},
        {"OPTIONS /small?n=%zu HTTP/1.1\r\nHost: a\r\n\r\n", 204},
        {"GET /never?n=%zu HTTP/1.1\r\nHost: a\r\n\r\n", 500},
        {"GET /later?n=%zu HTTP/1.1\r\nHost: a\r\n\r\n", 503},
        {"POST /10?n=%zu HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n20\r\n", 413},
        {"POST /10?n=%zu HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nno size\r\n", 400},
        {"POST /10?n=%zu HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n123", 408},
    };
    way = ways;
    begin(&(httpsrv_config){.timeout_ms = {.body = 200, .handler = 100}});
    use("/later", watch_number, NULL);
    use("/later", defer, NULL);
    use("/10", watch_number, NULL);
    use("/small", watch_number, NULL);
    use("/never", watch_number, NULL);
    use("/nowhere", watch_number, NULL);
    route("GET /small", on_reply_10, NULL);
    route("GET /never", on_never, NULL);
    CHECK_INT(
        httpsrv_route(s.srv,
                      &(httpsrv_route_config){.pattern = "POST /10", .handler = on_hello, .user = &s, .max_body = 10}),
        HTTPSRV_OK);
    go(&s);
    reset_dones();
    for (size_t i = 0; i < ROWS(rows); i++) {
        char text[200];
        snprintf(text, sizeof text, rows[i].request, i);
        struct client c = ask(&s, text);
        const httpsrv_outcome *outcome = wait_done((int)i);
        NOTE("row %zu", i);
        CHECK_INT(c.status, rows[i].status);
        CHECK_INT(outcome->status, rows[i].status);
        CHECK(outcome->delivered);
        CHECK_CMP(outcome->bytes, >, c.body_len);
        hang_up(&c);
    }
    finish(&s);
    check_once(ROWS(rows));
}

// Not before the last byte has gone out; with all of it, or with less if the client goes.
static void check_held(const char *path, bool leaves) {
    const uint64_t answers = metrics(&s).answers[2];
    struct client c = dial(s.port);
    reset_dones();
    SENDF(&c, "GET %s?n=0 HTTP/1.1\r\nHost: a\r\n" CLOSING "\r\n", path);
    WAIT(metrics(&s).answers[2] > answers); // nobody watches for a client that has left before
    test_sleep(100);
    CHECK_INT(LOAD(dones[0].calls), 0);
    if (leaves) {
        net_reset(&c);
    } else {
        CHECK_CMP(net_until_end(&c), >, ENDLESS);
    }
    const httpsrv_outcome *outcome = wait_done(0);
    CHECK_INT(outcome->delivered, !leaves);
    CHECK_INT(outcome->status, 200);
    CHECK_CMP(outcome->bytes, >, leaves ? 0 : ENDLESS);
    if (!leaves) hang_up(&c);
}

static void on_reply_endless(httpsrv_req *req, void *user) {
    static char much[ENDLESS];
    const httpsrv_answer answer = {
        .status = 200, .body = {much, sizeof much}, .release = count_release, .release_arg = &s};
    (void)user;
    COUNT(s.borrowed);
    httpsrv_reply_with(req, &answer);
}

static void on_stream_endless(httpsrv_req *req, void *user) {
    (void)user;
    stream_bytes(req, ENDLESS, -1);
}

TEST_EACH_WAY(done_after_the_last_byte) {
    begin(&(httpsrv_config){0});
    use("/", watch_number, NULL);
    route("GET /reply", on_reply_endless, NULL);
    route("GET /stream", on_stream_endless, NULL);
    go(&s);
    for (int i = 0; i < 4; i++)
        check_held(i < 2 ? "/reply" : "/stream", i % 2 == 1);
    finish(&s);
    check_once(1);
}

static void on_abort(httpsrv_req *req, void *user) {
    (void)user;
    CHECK_INT(httpsrv_begin(req, 200, NULL, -1), HTTPSRV_OK);
    CHECK_INT(httpsrv_write(req, HTTPSRV_STR("some")), HTTPSRV_OK);
    CHECK_INT(httpsrv_abort(req), HTTPSRV_OK);
}

static void on_break_off(httpsrv_req *req, void *user) { // by returning
    (void)user;
    CHECK_INT(httpsrv_begin(req, 200, NULL, 10), HTTPSRV_OK);
    CHECK_INT(httpsrv_write(req, HTTPSRV_STR("some")), HTTPSRV_OK);
}

static void on_too_little(httpsrv_req *req, void *user) {
    on_break_off(req, user);
    CHECK_INT(httpsrv_end(req), HTTPSRV_TOOBIG);
}

TEST_EACH_WAY(done_when_broken_off) {
    static const httpsrv_handler rows[] = {on_abort, on_break_off, on_too_little};
    begin(&(httpsrv_config){0});
    use("/", watch_number, NULL);
    for (size_t i = 0; i < ROWS(rows); i++) {
        char pattern[20];
        snprintf(pattern, sizeof pattern, "GET /%zu", i);
        route(pattern, rows[i], NULL);
    }
    go(&s);
    reset_dones();
    for (size_t i = 0; i < ROWS(rows); i++) {
        struct client c = dial(s.port);
        SENDF(&c, "GET /%zu?n=%zu HTTP/1.1\r\nHost: a\r\n\r\n", i, i);
        EXPECT_END(&c);
        const httpsrv_outcome *outcome = wait_done((int)i);
        NOTE("%s, %zu", way->name, i);
        CHECK(!outcome->delivered);
        CHECK_INT(outcome->status, 200);
        hang_up(&c);
    }
    finish(&s);
    check_once(ROWS(rows));
}

// The client goes while its request waits for an answer: deferred, or in a handler at the gate.
TEST_EACH_WAY(done_when_lost_before_the_answer) {
    const httpsrv_answer answer = {.status = 200, .body = HTTPSRV_STR("for nobody")};
    begin(&(httpsrv_config){0});
    use("/", watch_number, NULL);
    use("/later", defer, NULL);
    route("GET /later", on_handled, NULL);
    route("GET /gate", on_gate, &s);
    STORE(s.gate, !way->worker);
    go(&s);
    reset_dones();
    struct client c = dial(s.port), d = dial(s.port);
    GET(&c, "/later?n=0");
    WAIT(LOAD(deferred) == 1);
    net_reset(&c);
    CHECK(!wait_done(0)->delivered);
    CHECK_INT(wait_done(0)->bytes, 0);
    CHECK_INT(httpsrv_finish(s.srv, token_, &answer), HTTPSRV_GONE);
    GET(&d, "/gate?n=1");
    WAIT(LOAD(s.arrived) == 1);
    net_reset(&d);
    if (way->worker) WAIT(LOAD(s.gone) == 1);
    STORE(s.gate, 1);
    if (way->worker) CHECK(!wait_done(1)->delivered);
    WAIT(LOAD(dones[1].calls) == 1);
    finish(&s);
    check_once(2);
}

// What the end of the drain cuts: a request without an answer, and an answer that nobody reads.
TEST_EACH_WAY(done_when_cut) {
    begin(&(httpsrv_config){.timeout_ms = {.drain = 200}});
    use("/", watch_number, NULL);
    use("/later", defer, NULL);
    route("GET /later", on_handled, NULL);
    route("GET /stream", on_stream_endless, NULL);
    go(&s);
    reset_dones();
    struct client c = dial(s.port), d = dial(s.port);
    GET(&c, "/later?n=0");
    GET(&d, "/stream?n=1");
    WAIT(LOAD(deferred) == 1);
    net_need(&d, 10);
    httpsrv_stop(s.srv);
    CHECK_INT(httpsrv_join(s.srv), HTTPSRV_OK);
    for (int i = 0; i < 2; i++)
        CHECK(!wait_done(i)->delivered);
    hang_up(&c);
    hang_up(&d);
    dispose(&s);
    check_once(2);
}

static httpsrv_verdict watch_if_possible(httpsrv_req *req, void *user) {
    const httpsrv_result put = httpsrv_put(req, &key_a, user), result = httpsrv_on_done(req, on_done, user);
    CHECK(put == HTTPSRV_OK || put == HTTPSRV_NOMEM);
    CHECK(httpsrv_get(req, &key_a) == (put == HTTPSRV_OK ? user : NULL));
    CHECK(result == HTTPSRV_OK || result == HTTPSRV_NOMEM);
    if (result == HTTPSRV_OK) COUNT(marks);
    return HTTPSRV_NEXT;
}

// A call-back that there was no memory for is not called, and whatever else fails, the others are, once.
TEST(done_without_memory) {
    bool failed = true;
    int filtered = 0;
    for (int at = 1; failed; at++) {
        CHECK_CMP(at, <, 100);
        begin_here();
        use("/small", watch_if_possible, &dones[0]);
        use("/small", watch_if_possible, &dones[1]);
        route("POST /small", on_reply_10, NULL);
        go(&s);
        reset_dones();
        STORE(s.failing_at, at);
        struct client c = dial(s.port);
        SEND(&c, "POST /small HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n" CLOSING "\r\nabc");
        EXPECT_END(&c);
        failed = LOAD(s.asked) >= at;
        STORE(s.failing_at, 0);
        hang_up(&c);
        check_alive(&s);
        finish(&s);
        CHECK_INT(LOAD(dones[0].calls) + LOAD(dones[1].calls), LOAD(marks));
        if (LOAD(marks) < 2) filtered++;
    }
    CHECK_CMP(filtered, >=, 2); // of each call-back once, at least
}

// ---- filters that come with it: each row is a path of its own, with a configuration of its own ----

static void on_row(httpsrv_req *req, void *user) {
    (void)user;
    httpsrv_reply(req, 200, "text/plain", HTTPSRV_STR(HANDLED));
}

static void use_row(size_t row, httpsrv_filter filter, const void *config) {
    char prefix[20];
    snprintf(prefix, sizeof prefix, "/%zu", row);
    use(prefix, filter, config);
}

static struct client ask_row(const char *method, size_t row, const char *fields) {
    NOTE("row %zu: %s %s", row, method, fields);
    return askf("%s /%zu HTTP/1.1\r\nHost: a\r\n%s\r\n", method, row, fields);
}

#define ORIGIN(o)      "Origin: " o "\r\n"
#define METHOD(m)      "Access-Control-Request-Method: " m "\r\n"
#define NOT_ALLOWED    "!Access-Control-Allow-Origin\n!Access-Control-Allow-Credentials\n!Access-Control-Allow-Methods\n"
#define SHOP           "https://shop.example"
#define ALLOWED(o)     "Access-Control-Allow-Origin: " o "\n"
#define EXACTLY_SHOP   ALLOWED(SHOP) "Vary~Origin\n"
#define NOT_A_PRELIGHT "!Access-Control-Allow-Methods\n!Access-Control-Allow-Headers\n!Access-Control-Max-Age\n"

TEST(cors) {
    static const char *const origins[] = {"http://localhost:3000", SHOP, NULL};
    static const httpsrv_cors_config any = {0}, two = {.origins = origins};
    static const httpsrv_cors_config cookies = {.origins = origins, .credentials = true, .max_age = 5};
    static const httpsrv_cors_config nobody = {.credentials = true};
    static const httpsrv_cors_config own = {
        .origins = origins, .methods = "GET, PURGE", .headers = "X-A, X-B", .expose = "X-Sum, ETag", .max_age = 86400};
    static const struct {
        const httpsrv_cors_config *config;
        const char *method, *fields;
        int status; // 0: not looked at
        const char *answer;
    } rows[] = {
        // preflights
        {&any, "OPTIONS", ORIGIN("https://any.where") METHOD("PUT"), 204,
         ALLOWED("*") "Access-Control-Allow-Methods: GET, HEAD, POST, PUT, PATCH, DELETE\nAccess-Control-Max-Age: 600\n"
                      "!Access-Control-Allow-Credentials\n!Access-Control-Allow-Headers\n!Content-Length\n"},
        {&any, "OPTIONS", ORIGIN("null") METHOD("PUT") "Access-Control-Request-Headers: x-a,content-type\r\n", 204,
         ALLOWED("*") "Access-Control-Allow-Headers: x-a,content-type\n"},
        {&two, "OPTIONS", ORIGIN(SHOP) METHOD("DELETE") "Access-Control-Request-Headers: x-a\r\n", 204,
         EXACTLY_SHOP "Access-Control-Allow-Methods~DELETE\nAccess-Control-Allow-Headers: x-a\n"
                      "!Access-Control-Allow-Credentials\n"},
        {&two, "OPTIONS", ORIGIN("http://localhost:3000") METHOD("PUT"), 204,
         ALLOWED("http://localhost:3000") "Vary~Origin\n"},
        {&cookies, "OPTIONS", ORIGIN(SHOP) METHOD("PUT"), 204,
         EXACTLY_SHOP "Access-Control-Allow-Credentials: true\nAccess-Control-Max-Age: 5\n"},
        {&own, "OPTIONS", ORIGIN(SHOP) METHOD("PURGE") "Access-Control-Request-Headers: x-c\r\n", 204,
         EXACTLY_SHOP "Access-Control-Allow-Methods: GET, PURGE\nAccess-Control-Allow-Headers: X-A, X-B\n"
                      "Access-Control-Max-Age: 86400\n"},
        // preflights from elsewhere
        {&two, "OPTIONS", ORIGIN("https://shop.example.evil") METHOD("PUT"), 0, NOT_ALLOWED "Vary~Origin\n"},
        {&two, "OPTIONS", ORIGIN("https://shop.exampl") METHOD("PUT"), 0, NOT_ALLOWED "Vary~Origin\n"},
        {&two, "OPTIONS", ORIGIN("http://shop.example") METHOD("PUT"), 0, NOT_ALLOWED},
        {&two, "OPTIONS", ORIGIN("https://shop.example:8443") METHOD("PUT"), 0, NOT_ALLOWED},
        {&two, "OPTIONS", ORIGIN("null") METHOD("PUT"), 0, NOT_ALLOWED},
        {&two, "OPTIONS", ORIGIN("*") METHOD("PUT"), 0, NOT_ALLOWED},
        {&two, "OPTIONS", ORIGIN("") METHOD("PUT"), 0, NOT_ALLOWED},
        {&cookies, "OPTIONS", ORIGIN("https://any.where") METHOD("PUT"), 0, NOT_ALLOWED "Vary~Origin\n"},
        {&nobody, "OPTIONS", ORIGIN(SHOP) METHOD("PUT"), 0, NOT_ALLOWED},
        // not preflights: the server's own answer, which has Allow
        {&two, "OPTIONS", ORIGIN(SHOP), 204, EXACTLY_SHOP "Allow~GET\n" NOT_A_PRELIGHT},
        {&two, "OPTIONS", METHOD("PUT"), 204, "Allow~GET\n" NOT_ALLOWED},
        // requests proper
        {&any, "GET", ORIGIN("https://any.where"), 200, ALLOWED("*") NOT_A_PRELIGHT "!Access-Control-Expose-Headers\n"},
        {&two, "GET", ORIGIN(SHOP), 200, EXACTLY_SHOP NOT_A_PRELIGHT "!Access-Control-Allow-Credentials\n"},
        {&two, "GET", ORIGIN(SHOP) METHOD("PUT"), 200, EXACTLY_SHOP NOT_A_PRELIGHT},
        {&two, "HEAD", ORIGIN(SHOP), 200, EXACTLY_SHOP},
        {&two, "GET", ORIGIN("https://any.where"), 200, NOT_ALLOWED "Vary~Origin\n"},
        {&two, "GET", "", 200, NOT_ALLOWED "Vary~Origin\n"},
        {&own, "GET", ORIGIN(SHOP), 200, EXACTLY_SHOP "Access-Control-Expose-Headers: X-Sum, ETag\n" NOT_A_PRELIGHT},
        {&cookies, "GET", ORIGIN(SHOP), 200, EXACTLY_SHOP "Access-Control-Allow-Credentials: true\n"},
        {&cookies, "GET", "", 200, NOT_ALLOWED "Vary~Origin\n"},
        {&nobody, "GET", ORIGIN(SHOP), 200, NOT_ALLOWED},
        // answers of the server, which a page may want to read as well
        {&two, "DELETE", ORIGIN(SHOP), 405, EXACTLY_SHOP "Allow~GET\n"},
    };
    begin_here();
    for (size_t i = 0; i < ROWS(rows); i++)
        use_row(i, httpsrv_cors, rows[i].config);
    route("GET /:row", on_row, NULL);
    go(&s);
    for (size_t i = 0; i < ROWS(rows); i++) {
        struct client c = ask_row(rows[i].method, i, rows[i].fields);
        if (rows[i].status) CHECK_INT(c.status, rows[i].status);
        CHECK_CMP(c.status, <, 500);
        check_fields(&c, rows[i].answer);
        hang_up(&c);
    }
    finish(&s);
}

// A preflight is answered on behalf of the route, wherever that runs, and a request behind it on the same connection.
TEST_EACH_WAY(cors_before_a_route) {
    static const httpsrv_cors_config any = {0};
    begin(&(httpsrv_config){0});
    use("/api", httpsrv_cors, &any);
    use("/api", refuse, NULL); // browsers send no credentials with a preflight
    route("* /api/x", on_handled, NULL);
    go(&s);
    struct client c = dial(s.port);
    SEND(&c, "OPTIONS /api/x HTTP/1.1\r\nHost: a\r\n" ORIGIN(SHOP) METHOD("PUT") "\r\n");
    REPLY(&c);
    CHECK_INT(c.status, 204);
    check_fields(&c, ALLOWED("*"));
    SEND(&c, "PUT /api/x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n" ORIGIN(SHOP) "\r\n");
    EXPECT(&c, 403, "no");
    check_fields(&c, ALLOWED("*"));
    hang_up(&c);
    CHECK_INT(LOAD(s.handled), 0);
    finish(&s);
}

// ---- basic authentication ----

static const char *base64(const char *ptr, size_t len) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    static char out[1000];
    size_t n = 0;
    CHECK_CMP(len, <, 700);
    for (size_t i = 0; i < len; i += 3) {
        const unsigned a = (unsigned char)ptr[i], b = i + 1 < len ? (unsigned char)ptr[i + 1] : 0;
        const unsigned c = i + 2 < len ? (unsigned char)ptr[i + 2] : 0;
        out[n++] = digits[a >> 2];
        out[n++] = digits[(a & 3) << 4 | b >> 4];
        out[n++] = i + 1 < len ? digits[(b & 15) << 2 | c >> 6] : '=';
        out[n++] = i + 2 < len ? digits[c & 63] : '=';
    }
    out[n] = 0;
    return out;
}

static void on_name(httpsrv_req *req, void *user) {
    const httpsrv_str name = httpsrv_auth_name(req);
    (void)user;
    COUNT(s.handled);
    httpsrv_replyf(req, 200, NULL, "%s<%.*s>", name.ptr ? "" : "nobody", HTTPSRV_FMT(name));
}

static const httpsrv_account accounts[] = {
    {"ada", "lovelace"},          {"bob", "a:b::c"}, {"", "nameless"}, {"none", ""},
    {"z\xC3\xBC", "p\xC3\xA4ss"}, {"ada", "again"},  {"eve", NULL},    {NULL, NULL},
};

TEST_EACH_WAY(basic_auth_accounts) {
    static const httpsrv_basic_auth_config config = {.accounts = accounts, .realm = "The \xC3\x84rea"};
    static const struct {
        const char *pair; // before it is coded
        const char *name; // NULL: not let in
    } rows[] = {
        {"ada:lovelace", "ada"},
        {"bob:a:b::c", "bob"},
        {":nameless", ""},
        {"none:", "none"},
        {"z\xC3\xBC:p\xC3\xA4ss", "z\xC3\xBC"},
        {"ada:again", "ada"},
        {"ada:lovelac", NULL},
        {"ada:lovelaces", NULL},
        {"ada:", NULL},
        {"ada:LOVELACE", NULL},
        {"ada:mallory", NULL},
        {"ada:nameless", NULL},
        {"Ada:lovelace", NULL},
        {"ad:lovelace", NULL},
        {"adaa:lovelace", NULL},
        {"bob:a", NULL},
        {"bob:a:b", NULL},
        {"bob:a:b::c:", NULL},
        {":", NULL},
        {"", NULL},
        {"ada", NULL},
        {"none", NULL},
        {"bob:lovelace", NULL},
        {"eve:", NULL},
        {"adalovelace", NULL},
        {"eve:lovelace", NULL},
        {":lovelace", NULL},
        {"ada:lovelace\n", NULL},
    };
    begin(&(httpsrv_config){0});
    use("/in", httpsrv_basic_auth, &config);
    route("GET /in", on_name, NULL);
    route("GET /out", on_name, NULL);
    go(&s);
    for (size_t i = 0; i < ROWS(rows); i++) {
        char expected[50];
        struct client c = dial(s.port);
        NOTE("%s, %s", way->name, rows[i].pair);
        SENDF(&c, "GET /in HTTP/1.1\r\nHost: a\r\nAuthorization: Basic %s\r\n\r\n",
              base64(rows[i].pair, strlen(rows[i].pair)));
        snprintf(expected, sizeof expected, "<%s>", rows[i].name ? rows[i].name : "");
        EXPECT(&c, rows[i].name ? 200 : 401, rows[i].name ? expected : NULL);
        if (!rows[i].name) check_fields(&c, "WWW-Authenticate: Basic realm=\"The \xC3\x84rea\", charset=\"UTF-8\"\n");
        hang_up(&c);
    }
    struct client c = request("GET /out", "Authorization: Basic YWRhOmxvdmVsYWNl\r\n");
    CHECK_MEM(c.body, c.body_len, "nobody<>", 8);
    hang_up(&c);
    finish(&s);
}

TEST(basic_auth_field) {
    static const httpsrv_basic_auth_config config = {.accounts = accounts};
    static const struct {
        const char *fields;
        bool in;
    } rows[] = {
        {"Authorization: Basic YWRhOmxvdmVsYWNl\r\n", true},
        {"authorization: basic YWRhOmxvdmVsYWNl\r\n", true},
        {"AUTHORIZATION: BASIC YWRhOmxvdmVsYWNl\r\n", true},
        {"Authorization: Basic    YWRhOmxvdmVsYWNl  \r\n", true},
        {"", false},
        {"Authorization:\r\n", false},
        {"Authorization: Basic\r\n", false},
        {"Authorization: BasicYWRhOmxvdmVsYWNl\r\n", false},
        {"Authorization: Basics YWRhOmxvdmVsYWNl\r\n", false},
        {"Authorization: Bearer YWRhOmxvdmVsYWNl\r\n", false},
        {"Authorization: YWRhOmxvdmVsYWNl\r\n", false},
        {"Authorization: Basic ada:lovelace\r\n", false},
        {"Authorization: Basic YWRhOmxvdmVsYWN\r\n", false},
        {"Authorization: Basic YWRhOmxvdmVsYWNl=\r\n", false},
        {"Authorization: Basic YWRhOmxvdmVsYWNl====\r\n", false},
        {"Authorization: Basic YWRhOmx*dmVsYWNl\r\n", false},
        {"Authorization: Basic YWRh OmxvdmVsYWNl\r\n", false},
        {"Authorization: Basic YWRhOmxvdmVsYWNl YWRh\r\n", false},
        {"Authorization: Basic YWRhOmxvdmVsYWNl, Basic YWRhOmxvdmVsYWNl\r\n", false},
        {"Authorization: Basic =\r\n", false},
        {"Authorization: Basic ====\r\n", false},
        {"Authorization: Basic =AAA\r\n", false},
        {"Authorization: Basic YWRhOmxvdmVsYWNlAA==\r\n", false}, // a NUL behind the password
        {"Authorization: Basic YWRhOmxvdmVsYWNlAHg=\r\n", false},
        {"Authorization: Basic YWRhADpsb3ZlbGFjZQ==\r\n", false}, // a NUL behind the name
        {"Authorization: Basic //////////8=\r\n", false},
        {"Proxy-Authorization: Basic YWRhOmxvdmVsYWNl\r\n", false},
        {"Authorization: Basic eA==\r\nAuthorization: Basic eA==\r\n", false},
    };
    begin_here();
    use("/in", httpsrv_basic_auth, &config);
    route("GET /in", on_name, NULL);
    go(&s);
    for (size_t i = 0; i < ROWS(rows); i++) {
        struct client c = request("GET /in", rows[i].fields);
        NOTE("%s", rows[i].fields);
        CHECK_INT(c.status, rows[i].in ? 200 : 401);
        CHECK_STR(joined(&c, "WWW-Authenticate"), rows[i].in ? "" : "Basic realm=\"restricted\", charset=\"UTF-8\"");
        hang_up(&c);
    }
    CHECK_INT(LOAD(s.handled), 4);
    finish(&s);
}

// Padding in all its lengths.
TEST(basic_auth_lengths) {
    enum { SHORT = 20, NAMES = 26 }; // the first so many one byte longer each, then fifty
    static char names[NAMES][300];
    static httpsrv_account own[NAMES + 1];
    const httpsrv_basic_auth_config config = {.accounts = own};
    char pair[400];
    for (int i = 0; i < NAMES; i++) {
        memset(names[i], 'n', (size_t)(i < SHORT ? i : SHORT + (i - SHORT) * 50));
        own[i] = (httpsrv_account){names[i], "p:q"};
    }
    begin_here();
    use("/in", httpsrv_basic_auth, &config);
    route("GET /in", on_name, NULL);
    go(&s);
    for (int i = 0; i < 2 * NAMES; i++) {
        const bool wrong = i % 2;
        snprintf(pair, sizeof pair, "%s:p:%s", names[i / 2], wrong ? "r" : "q");
        NOTE("%s", pair);
        struct client c =
            askf("GET /in HTTP/1.1\r\nHost: a\r\nAuthorization: Basic %s\r\n\r\n", base64(pair, strlen(pair)));
        CHECK_INT(c.status, wrong ? 401 : 200);
        if (!wrong) CHECK_INT(c.body_len, strlen(names[i / 2]) + 2);
        hang_up(&c);
    }
    finish(&s);
}

static bool check_pair(httpsrv_str name, httpsrv_str password, void *user) {
    CHECK(user == &key_b);
    COUNT(marks);
    if (!way->worker && way->reactors == 1) CHECK(pthread_equal(pthread_self(), LOAD(reactor)));
    if (way->worker) CHECK(!pthread_equal(pthread_self(), LOAD(reactor)));
    return name.len == password.len && memcmp(name.ptr, password.ptr, name.len) == 0;
}

TEST_EACH_WAY(basic_auth_by_call_back) {
    static const struct {
        const char *pair, *answer; // NULL: not let in
        int calls;
    } rows[] = {{"twin:twin", "<twin>", 1}, {"twin:other", NULL, 1}, {"twin", NULL, 0}, {":", "<>", 1},
                {"a:b:a:b", NULL, 1},       {"", NULL, 0},           {"x:x", "<x>", 1}};
    const httpsrv_basic_auth_config config = {.check = check_pair, .user = &key_b};
    begin(&(httpsrv_config){0});
    use("/in", httpsrv_basic_auth, &config);
    route("GET /in", on_name, NULL);
    go(&s);
    struct client who = request("GET /who", "");
    hang_up(&who);
    for (size_t i = 0; i < ROWS(rows); i++) {
        const int before = LOAD(marks);
        struct client c = dial(s.port);
        NOTE("%s, %s", way->name, rows[i].pair);
        SENDF(&c, "GET /in HTTP/1.1\r\nHost: a\r\nAuthorization: Basic %s\r\n\r\n",
              base64(rows[i].pair, strlen(rows[i].pair)));
        EXPECT(&c, rows[i].answer ? 200 : 401, rows[i].answer);
        CHECK_INT(LOAD(marks) - before, rows[i].calls);
        hang_up(&c);
    }
    finish(&s);
}

// Nobody is let in, and nothing is told about what is there.
TEST(basic_auth_before_all) {
    static const httpsrv_basic_auth_config config = {0};
    begin_here();
    use("/in", httpsrv_basic_auth, &config);
    route("POST /in", on_name, NULL);
    go(&s);
    static const char *const lines[] = {"GET /in", "GET /in/nowhere", "OPTIONS /in", "HEAD /in", "GET /%69n"};
    for (size_t i = 0; i < ROWS(lines); i++) {
        struct client c = request(lines[i], "Authorization: Basic Og==\r\n");
        NOTE("%s", lines[i]);
        CHECK_INT(c.status, 401);
        CHECK_STR(joined(&c, "WWW-Authenticate"), "Basic realm=\"restricted\", charset=\"UTF-8\"");
        CHECK_INT(count_fields(&c, "Allow"), 0);
        hang_up(&c);
    }
    finish(&s);
}

// ---- security headers ----

#define CSP    "Content-Security-Policy"
#define FRAMES "X-Frame-Options"
#define REFER  "Referrer-Policy"
#define SNIFF  "X-Content-Type-Options"
#define STS    "Strict-Transport-Security"

static void on_secured(httpsrv_req *req, void *user) {
    const httpsrv_str how = httpsrv_query(req, "own");
    (void)user;
    if (how.ptr) {
        CHECK_INT(httpsrv_set(req, CSP, HTTPSRV_STR("default-src *")), HTTPSRV_OK);
        CHECK_INT(httpsrv_set(req, "x-frame-options", HTTPSRV_STR("SAMEORIGIN")), HTTPSRV_OK);
        CHECK_INT(httpsrv_set(req, REFER, HTTPSRV_STR("origin")), HTTPSRV_OK);
        CHECK_INT(httpsrv_set(req, SNIFF, HTTPSRV_STR("own")), HTTPSRV_OK);
    }
    httpsrv_reply(req, 200, "text/plain", HTTPSRV_STR(HANDLED));
}

TEST(security_headers) {
    static const httpsrv_security_config defaults = {0}, no_csp = {.content_security_policy = ""};
    static const httpsrv_security_config no_frame = {.frame_options = ""}, no_referrer = {.referrer_policy = ""};
    static const httpsrv_security_config own = {.content_security_policy = "default-src 'none'; img-src *",
                                                .frame_options = "SAMEORIGIN",
                                                .referrer_policy = "same-origin",
                                                .hsts = 63072000};
    static const httpsrv_security_config none = {"", "", "", 0}, long_hsts = {.hsts = 10000000000};
    static const char all[] =
        SNIFF ": nosniff\n" FRAMES ": DENY\n" REFER ": no-referrer\n" CSP ": default-src 'self'\n!" STS "\n";
    static const struct {
        const httpsrv_security_config *config;
        const char *answer;
    } rows[] = {
        {NULL, all},
        {&defaults, all},
        {&no_csp, SNIFF ": nosniff\n" FRAMES ": DENY\n" REFER ": no-referrer\n!" CSP "\n!" STS "\n"},
        {&no_frame, SNIFF ": nosniff\n!" FRAMES "\n" REFER ": no-referrer\n" CSP ": default-src 'self'\n!" STS "\n"},
        {&no_referrer, SNIFF ": nosniff\n" FRAMES ": DENY\n!" REFER "\n" CSP ": default-src 'self'\n!" STS "\n"},
        {&own, SNIFF ": nosniff\n" FRAMES ": SAMEORIGIN\n" REFER ": same-origin\n" CSP
                     ": default-src 'none'; img-src *\n" STS "~max-age=63072000\n"},
        {&none, SNIFF ": nosniff\n!" FRAMES "\n!" REFER "\n!" CSP "\n!" STS "\n"},
        {&long_hsts, STS "~max-age=10000000000\n"},
    };
    begin_here();
    for (size_t i = 0; i < ROWS(rows); i++)
        use_row(i, httpsrv_security_headers, rows[i].config);
    route("GET /:row", on_secured, NULL);
    go(&s);
    for (size_t i = 0; i < ROWS(rows); i++) {
        static const char *const methods[] = {"GET", "HEAD", "DELETE", "OPTIONS"};
        for (size_t m = 0; m < ROWS(methods); m++) {
            struct client c = ask_row(methods[m], i, "");
            check_fields(&c, rows[i].answer);
            hang_up(&c);
        }
        struct client c = askf("GET /%zu?own HTTP/1.1\r\nHost: a\r\n\r\n", i);
        check_fields(&c, CSP ": default-src *\n" FRAMES ": SAMEORIGIN\n" REFER ": origin\n" SNIFF ": own\n");
        hang_up(&c);
    }
    finish(&s);
}

// The filter that is nearer to the handler has the last word.
TEST(security_headers_twice) {
    static const httpsrv_security_config own = {.frame_options = "SAMEORIGIN",
                                                .content_security_policy = "default-src *"};
    begin_here();
    use("/", httpsrv_security_headers, NULL);
    use("/own", httpsrv_security_headers, &own);
    route("GET /own", on_secured, NULL);
    go(&s);
    struct client c = request("GET /own", "");
    check_fields(&c, SNIFF ": nosniff\n" FRAMES ": SAMEORIGIN\n" REFER ": no-referrer\n" CSP ": default-src *\n");
    hang_up(&c);
    finish(&s);
}

// ---- rate limit ----

static int whole_number(const char *text) {
    CHECK(text != NULL && *text && text[strspn(text, "0123456789")] == 0);
    return atoi(text);
}

// Asks `count` times from an address; how many were let in.
static int knock(const struct server *at, const char *address, const char *path, int count) {
    int in = 0;
    struct client c = dial_from(address, at->port);
    for (int i = 0; i < count; i++)
        GET(&c, path);
    for (int i = 0; i < count; i++) {
        REPLY(&c);
        in += c.status != 429;
        if (c.status != 429) continue;
        CHECK_CMP(whole_number(field(&c, "Retry-After")), >=, 1);
        CHECK_CMP(whole_number(field(&c, "Retry-After")), <=, 2);
    }
    hang_up(&c);
    return in;
}

// At least the burst is let in, and what has come in since then by the clock, which the machine may hold up.
static void check_knocks(const struct server *at, const char *address, const char *path, int burst, int per_second) {
    const int64_t start = test_now();
    const int in = knock(at, address, path, 2 * burst);
    const int64_t refilled = (test_now() - start) * per_second / 1000 + 1;
    NOTE("%s, %s", address, path);
    CHECK_CMP(in, >=, burst);
    CHECK_CMP(in, <=, burst + refilled);
}

static void limited(const char *prefix, const httpsrv_rate_config *config) {
    char pattern[50];
    snprintf(pattern, sizeof pattern, "GET %s", prefix);
    use(prefix, httpsrv_rate_limit, config);
    route(pattern, on_handled, NULL);
}

TEST_EACH_WAY(rate_limit) {
    static const httpsrv_rate_config slow = {.per_second = 1, .burst = 20}, other = {.per_second = 1, .burst = 30};
    begin(&(httpsrv_config){0});
    limited("/slow", &slow);
    limited("/other", &other);
    go(&s);
    check_knocks(&s, "127.0.0.2", "/slow", 20, 1);
    check_knocks(&s, "127.0.0.3", "/slow", 20, 1);         // an address of its own
    check_knocks(&s, "127.0.0.2", "/other", 30, 1);        // a configuration of its own
    check_knocks(&s, "127.0.0.4", "/slow/nowhere", 20, 1); // also where there is no route
    check_alive(&s);
    CHECK_CMP(LOAD(s.handled), >=, 70);
    finish(&s);
}

// Nothing is let in before a second has passed, but then it is; the clock of the test stands for that of the server.
TEST(rate_limit_refills) {
    static const httpsrv_rate_config config = {.per_second = 4, .burst = 8};
    begin_here();
    limited("/slow", &config);
    go(&s);
    const int64_t start = test_now();
    int in = knock(&s, "127.0.0.2", "/slow", 8);
    CHECK_INT(in, 8);
    while (test_now() < start + 3000) {
        in += knock(&s, "127.0.0.2", "/slow", 1);
        test_sleep(20);
    }
    CHECK_CMP(in, <=, 8 + (test_now() - start) * 4 / 1000 + 1);
    CHECK_CMP(in, >=, 8 + 4); // of 12 on a machine that is quick enough
    test_sleep(2500);         // refills, up to the burst and no further
    check_knocks(&s, "127.0.0.2", "/slow", 8, 4);
    finish(&s);
}

TEST(rate_limit_defaults) {
    static const httpsrv_rate_config none = {0}, five = {.per_second = 5}, one = {.burst = 1};
    begin_here();
    limited("/none", &none);
    limited("/five", &five);
    limited("/one", &one);
    go(&s);
    check_knocks(&s, "127.0.0.2", "/none", 20, 10);
    check_knocks(&s, "127.0.0.2", "/five", 10, 5);
    check_knocks(&s, "127.0.0.2", "/one", 1, 10);
    finish(&s);
}

// Reactors share the table; servers do not, even with one configuration.
TEST_EACH_WAY(rate_limit_of_a_server) {
    static const httpsrv_rate_config config = {.per_second = 1, .burst = 24};
    static struct server other;
    begin(&(httpsrv_config){0});
    limited("/slow", &config);
    go(&s);
    const int64_t start = test_now();
    int in = 0;
    for (int i = 0; i < 16; i++) // connections, which the reactors have among them
        in += knock(&s, "127.0.0.2", "/slow", 3);
    CHECK_CMP(in, >=, 24);
    CHECK_CMP(in, <=, 24 + (test_now() - start) / 1000 + 1);
    prepare(&other, &(httpsrv_config){0});
    CHECK_INT(httpsrv_use(other.srv, "/hello", httpsrv_rate_limit, (void *)(uintptr_t)&config), HTTPSRV_OK);
    CHECK_INT(httpsrv_on(other.srv, "GET /hello", on_hello, &other), HTTPSRV_OK);
    go(&other);
    check_knocks(&other, "127.0.0.2", "/hello", 24, 1);
    finish(&other);
    finish(&s);
}

// The table does not grow with the addresses, and those of one network do not drive each other out.
TEST(rate_limit_of_many) {
    static const httpsrv_rate_config config = {.per_second = 1, .burst = 6};
    enum { ADDRESSES = 80 };
    static int64_t since[ADDRESSES];
    char address[20];
    begin_here();
    limited("/slow", &config);
    go(&s);
    knock(&s, "127.0.0.2", "/slow", 1); // the table is there from now on
    const size_t before = LOAD(s.peak);
    for (int i = 0; i < 2 * ADDRESSES; i++) {
        const int n = i % ADDRESSES;
        if (i == n) since[n] = test_now();
        snprintf(address, sizeof address, "127.0.%d.%d", 1 + n % 4, 1 + n / 4);
        const int in = knock(&s, address, "/slow", 6);
        NOTE("%s, time %d", address, 1 + i / ADDRESSES);
        if (i == n)
            CHECK_INT(in, 6);
        else
            CHECK_CMP(in, <=, (test_now() - since[n]) / 1000 + 1);
    }
    CHECK_CMP(LOAD(s.peak), <=, before + 65536); // connections that overlap
    finish(&s);
}

static httpsrv_verdict limit_posts(httpsrv_req *req, void *user) {
    const httpsrv_str method = httpsrv_method(req);
    if (method.len != 4 || memcmp(method.ptr, "POST", 4) != 0) return HTTPSRV_NEXT;
    return httpsrv_rate_limit(req, user);
}

static httpsrv_verdict name_and_secure(httpsrv_req *req, void *user) {
    CHECK_INT(httpsrv_request_id(req, NULL), HTTPSRV_NEXT);
    return httpsrv_security_headers(req, user);
}

// Filters may be asked by other filters.
TEST_EACH_WAY(filters_asked_by_filters) {
    static const httpsrv_rate_config config = {.per_second = 1, .burst = 2};
    begin(&(httpsrv_config){0});
    use("/", name_and_secure, NULL);
    use("/", limit_posts, &config);
    route("* /x", on_handled, NULL);
    go(&s);
    const int64_t start = test_now();
    int in = 0;
    for (int i = 0; i < 20; i++) {
        struct client c = request(i % 2 ? "POST /x" : "GET /x", "Content-Length: 0\r\n");
        if (i % 2)
            in += c.status == 200;
        else
            CHECK_INT(c.status, 200);
        check_fields(&c, "X-Frame-Options: DENY\n");
        CHECK_INT(strlen(joined(&c, "X-Request-Id")), 32);
        hang_up(&c);
    }
    CHECK_CMP(in, >=, 2);
    CHECK_CMP(in, <=, 2 + (test_now() - start) / 1000 + 1);
    finish(&s);
}

static void *knock_on(void *arg) {
    int *in = (int *)arg;
    for (int i = 0; i < 20; i++)
        *in += knock(&s, "127.0.0.9", "/slow", 4);
    return NULL;
}

// Reactors and workers take from one bucket at the same time.
TEST_WAYS(rate_limit_at_once, way->reactors > 1) {
    static const httpsrv_rate_config config = {.per_second = 10, .burst = 200};
    int in[3] = {0};
    pthread_t threads[3];
    begin(&(httpsrv_config){0});
    limited("/slow", &config);
    go(&s);
    const int64_t start = test_now();
    for (int i = 0; i < 3; i++)
        CHECK_INT(pthread_create(&threads[i], NULL, knock_on, &in[i]), 0);
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    CHECK_CMP(in[0] + in[1] + in[2], >=, 200);
    CHECK_CMP(in[0] + in[1] + in[2], <=, 200 + (test_now() - start) / 100 + 1);
    finish(&s);
}

// ---- request id ----

static void on_id(httpsrv_req *req, void *user) {
    const httpsrv_str id = httpsrv_id(req);
    (void)user;
    httpsrv_replyf(req, 200, NULL, "%s%.*s", id.ptr ? "" : "absent", HTTPSRV_FMT(id));
}

static bool is_made(const char *id) {
    return strlen(id) == 32 && strspn(id, "0123456789abcdefABCDEF") == 32;
}

#define SIXTY_FOUR "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"

TEST_EACH_WAY(request_id) {
    static const struct {
        const char *id;
        bool taken;
    } rows[] = {
        {"a", true},     {"0", true},         {"trace-1_2.3", true},   {SIXTY_FOUR, true},
        {"...", true},   {"", false},         {SIXTY_FOUR "x", false}, {"a b", false},
        {"a,b", false},  {"a/b", false},      {"<b>", false},          {"a:b", false},
        {"a\tb", false}, {"\xC3\xBC", false}, {"a+b", false},
    };
    begin(&(httpsrv_config){0});
    use("/id", httpsrv_request_id, NULL);
    route("GET /id", on_id, NULL);
    route("GET /none", on_id, NULL);
    go(&s);
    for (size_t i = 0; i < 2 * ROWS(rows); i++) {
        const char *id = rows[i / 2].id;
        struct client c =
            askf("GET /id%s HTTP/1.1\r\nHost: a\r\nx-request-ID: %s\r\n\r\n", i % 2 ? "/nowhere" : "", id);
        NOTE("%s, %s", way->name, id);
        if (rows[i / 2].taken)
            CHECK_STR(joined(&c, "X-Request-Id"), id);
        else
            CHECK(is_made(joined(&c, "X-Request-Id")));
        if (i % 2 == 0) CHECK_MEM(c.body, c.body_len, field(&c, "X-Request-Id"), strlen(field(&c, "X-Request-Id")));
        hang_up(&c);
    }
    struct client c = request("GET /none", "X-Request-Id: a\r\n");
    CHECK_MEM(c.body, c.body_len, "absent", 6);
    CHECK_INT(count_fields(&c, "X-Request-Id"), 0);
    hang_up(&c);
    finish(&s);
}

static int compare_ids(const void *a, const void *b) {
    return memcmp(a, b, 32);
}

TEST_EACH_WAY(request_id_unique) {
    static char ids[600][33];
    begin(&(httpsrv_config){0});
    use("/", httpsrv_request_id, NULL);
    route("GET /id", on_id, NULL);
    go(&s);
    for (size_t from = 0; from < ROWS(ids); from += 50) {
        struct client c = dial(s.port);
        for (size_t i = 0; i < 50; i++)
            GET(&c, "/id");
        for (size_t i = from; i < from + 50; i++) {
            REPLY(&c);
            CHECK(is_made(joined(&c, "X-Request-Id")));
            strcpy(ids[i], joined(&c, "X-Request-Id"));
        }
        hang_up(&c);
    }
    qsort(ids, ROWS(ids), sizeof ids[0], compare_ids);
    for (size_t i = 1; i < ROWS(ids); i++)
        CHECK(memcmp(ids[i - 1], ids[i], 8) !=
              0); // random from the first digits on: 32 bits of 600 are as good as never alike
    finish(&s);
}

// ---- all of them together ----

TEST_EACH_WAY(all_together) {
    static const char *const origins[] = {SHOP, NULL};
    static const httpsrv_cors_config cors = {.origins = origins, .credentials = true};
    static const httpsrv_basic_auth_config auth = {.accounts = accounts};
    static const httpsrv_rate_config rate = {.per_second = 1, .burst = 6};
    begin(&(httpsrv_config){0});
    use("/", httpsrv_request_id, NULL);
    use("/", httpsrv_security_headers, NULL);
    use("/", httpsrv_cors, &cors);
    use("/", httpsrv_rate_limit, &rate);
    use("/admin", httpsrv_basic_auth, &auth);
    use("/", watch_number, NULL);
    route("GET /admin", on_name, NULL);
    go(&s);
    reset_dones();
    static const char common[] = FRAMES ": DENY\n" EXACTLY_SHOP "X-Request-Id: my-id\n";
    static const int statuses[] = {200, 401, 404, 405, 204, 200, 429};
    struct client c = dial(s.port);
    for (size_t i = 0; i < ROWS(statuses); i++) {
        static const char *const lines[] = {"GET /admin?n=0", "GET /admin?n=1", "GET /nowhere?n=2", "PUT /admin?n=3",
                                            "OPTIONS /admin", "GET /admin?n=4", "GET /admin?n=5"};
        NOTE("%s, %s", way->name, lines[i]);
        SENDF(&c, "%s HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nX-Request-Id: my-id\r\n" ORIGIN(SHOP) "%s%s\r\n",
              lines[i], i == 1 ? "" : "Authorization: Basic YWRhOmxvdmVsYWNl\r\n", i == 4 ? METHOD("GET") : "");
        REPLY(&c);
        if (i < 6) CHECK_INT(c.status, statuses[i]);
        check_fields(&c, common);
    }
    hang_up(&c);
    finish(&s);
    CHECK_INT(LOAD(dones[0].calls) + LOAD(dones[2].calls) + LOAD(dones[3].calls) + LOAD(dones[4].calls), 4);
    CHECK_INT(LOAD(dones[1].calls), 0); // was refused before
}
