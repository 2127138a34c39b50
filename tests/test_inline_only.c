// The smallest build: nothing is answered later than its handler returns, and there are no ways that only save time. What
// asks for the former is told so, all else is as ever.

#define HTTPSRV_INLINE_ONLY
#define HTTPSRV_NO_SHORTCUTS
#define HTTPSRV_NO_REGEX
#define HTTPSRV_IMPLEMENTATION
#include "../httpsrv.h"
#include "server.h"

static struct server s;

// ---- what asks for later ----

static void on_piece(httpsrv_req *req, httpsrv_str piece, bool last, void *user) {
    (void)req, (void)piece, (void)last, (void)user;
    FAIL("called");
}

static void check_refused_route(httpsrv_route_config route) {
    prepare(&s, &(httpsrv_config){0});
    route.pattern = "POST /later";
    CHECK_INT(httpsrv_on(s.srv, "GET /before", on_hello, &s), HTTPSRV_OK);
    CHECK_INT(httpsrv_route(s.srv, &route), HTTPSRV_UNSUPPORTED);
    CHECK_HAS(httpsrv_error(s.srv), "POST /later");
    CHECK_HAS(httpsrv_error(s.srv), "HTTPSRV_INLINE_ONLY");
    CHECK_INT(httpsrv_listen(s.srv), HTTPSRV_UNSUPPORTED); // kept
    dispose(&s);
}

TEST(routes_that_answer_later_are_unsupported) {
    check_refused_route((httpsrv_route_config){.handler = on_hello, .pool = "default"});
    check_refused_route((httpsrv_route_config){.handler = on_hello, .stream = true});
    check_refused_route((httpsrv_route_config){.handler = on_hello, .on_body = on_piece});
    check_refused_route((httpsrv_route_config){.on_body = on_piece});
    check_refused_route((httpsrv_route_config){.handler = on_hello, .media = {{"text/*", NULL, on_piece}}});
    check_refused_route(
        (httpsrv_route_config){.handler = on_hello, .media = {{"a/b", on_hello, NULL}, {"text/*", NULL, on_piece}}});
}

static void check_refused_config(httpsrv_config config, const char *what) {
    config.allocator.fn = counting_realloc;
    config.allocator.user = &s;
    memset(&s, 0, sizeof s);
    s.srv = httpsrv_new(&config);
    CHECK_HAS(httpsrv_error(s.srv), what);
    CHECK_HAS(httpsrv_error(s.srv), "HTTPSRV_INLINE_ONLY");
    CHECK_INT(httpsrv_listen(s.srv), HTTPSRV_UNSUPPORTED);
    dispose(&s);
}

TEST(pools_and_acceptors_are_unsupported) {
    check_refused_config((httpsrv_config){.pools = {{.name = "slow"}}}, "slow");
    check_refused_config((httpsrv_config){.pools = {{0}, {.name = "other", .threads = 1}}}, "other");
    check_refused_config((httpsrv_config){.acceptors = 1}, "acceptors");
    check_refused_config((httpsrv_config){.reactors = 2, .affinity = true, .steer = true}, "steer");
}

static void must_not_be_called(void *arg) {
    (void)arg;
    FAIL("called");
}

static void on_drained(httpsrv_req *req, void *user) {
    (void)req, (void)user;
    FAIL("called");
}

// Tries everything, then answers as if nothing had been.
static void on_all(httpsrv_req *req, void *user) {
    httpsrv *srv = httpsrv_server(req);
    const httpsrv_event event = {.data = HTTPSRV_STR("news")};
    const httpsrv_answer answer = {.status = 200};
    const httpsrv_token made_up = {(uint64_t)1 << 32};
    char buf[10];
    CHECK_INT(httpsrv_defer(req).id, 0);
    CHECK_INT(httpsrv_sse_begin(req, "channel").id, 0);
    CHECK_INT(httpsrv_begin(req, 200, "text/plain", -1), HTTPSRV_UNSUPPORTED);
    CHECK_INT(httpsrv_on_drain(req, on_drained, NULL), HTTPSRV_UNSUPPORTED);
    CHECK_INT(httpsrv_on_gone(req, must_not_be_called, NULL), HTTPSRV_UNSUPPORTED);
    CHECK_INT(httpsrv_sse_send(srv, made_up, &event), HTTPSRV_UNSUPPORTED);
    CHECK_INT(httpsrv_sse_publish(srv, "channel", &event), HTTPSRV_UNSUPPORTED);
    CHECK_INT(httpsrv_sse_end(srv, made_up), HTTPSRV_UNSUPPORTED);
    CHECK_INT(httpsrv_post(srv, made_up, on_drained, NULL), HTTPSRV_UNSUPPORTED);
    CHECK_INT(httpsrv_finish(srv, made_up, &answer), HTTPSRV_GONE);
    CHECK_INT(httpsrv_write(req, HTTPSRV_STR("piece")), HTTPSRV_STATE);
    CHECK_INT(httpsrv_end(req), HTTPSRV_STATE);
    CHECK_INT(httpsrv_abort(req), HTTPSRV_STATE);
    CHECK_INT(httpsrv_body_pause(req), HTTPSRV_STATE);
    CHECK_CMP(httpsrv_read(req, buf, sizeof buf), <, 0);
    on_echo(req, user);
}

TEST(calls_that_answer_later_are_unsupported) {
    prepare(&s, &(httpsrv_config){0});
    CHECK_INT(httpsrv_on(s.srv, "POST /all", on_all, &s), HTTPSRV_OK);
    go(&s);
    struct client c = dial(s.port);
    for (int i = 0; i < 3; i++) {
        SEND(&c, "POST /all HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
        EXPECT(&c, 200, "hello");
    }
    hang_up(&c);
    finish(&s);
}

// A handler that leaves without an answer cannot have given it to somebody else.
static void on_defer_only(httpsrv_req *req, void *user) {
    (void)user;
    CHECK_INT(httpsrv_defer(req).id, 0);
}

TEST(a_handler_without_an_answer) {
    serve(&s, &(httpsrv_config){0});
    struct client c = dial(s.port);
    GET(&c, "/never");
    EXPECT(&c, 500, NULL);
    GET(&c, "/hello");
    EXPECT(&c, 200, HELLO);
    hang_up(&c);
    finish(&s);
    CHECK_INT(s.last.items[HTTPSRV_LOG_NO_ANSWER], 1);
    prepare(&s, &(httpsrv_config){0});
    CHECK_INT(httpsrv_on(s.srv, "GET /defer", on_defer_only, &s), HTTPSRV_OK);
    go(&s);
    c = ASK(&s, "GET /defer HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK_INT(c.status, 500);
    hang_up(&c);
    finish(&s);
}

// ---- all else ----

static const httpsrv_config hosts[] = {
    {.reactors = 1},
    {.reactors = 2},
    {.reactors = 2, .affinity = true},
};

static void check_bodies(struct client *c) {
    SEND(c, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    EXPECT(c, 200, "hello");
    SEND(c, "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1;x\r\n!\r\n0\r\nA: "
            "b\r\n\r\n");
    EXPECT(c, 200, "hello!");
    SEND(c, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\nExpect: 100-continue\r\n\r\n");
    EXPECT(c, 100, NULL);
    net_send(c, blob, 300000);
    net_reply(c, false);
    check_blob(c, 300000);
}

static void check_answers(struct client *c) {
    for (int i = 0; i < 3; i++) {
        GET(c, "/hello");
        EXPECT(c, 200, HELLO);
    }
    SEND(c, NEXT NEXT NEXT "HEAD /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    for (int i = 0; i < 3; i++) {
        EXPECT(c, 200, HELLO);
    }
    net_reply(c, true);
    CHECK_INT(c->status, 200);
    GET(c, "/big/70000"); // more than the buffer
    net_reply(c, false);
    check_blob(c, 70000);
    GET(c, "/borrow/5000000");
    net_reply(c, false);
    check_blob(c, 5000000);
    GET(c, "/twice");
    EXPECT(c, 200, "first");
    GET(c, "/nowhere");
    EXPECT(c, 404, NULL);
    SEND(c, "DELETE /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    EXPECT(c, 405, NULL);
}

TEST(all_else_is_as_ever) {
    for (size_t i = 0; i < ROWS(hosts); i++) {
        NOTE("host %zu", i);
        serve(&s, &hosts[i]);
        for (int n = 0; n < 4; n++) {
            struct client c = dial(s.port);
            check_answers(&c);
            check_bodies(&c);
            SEND(&c, "GET /hello HTTP/1.0\r\n\r\n");
            EXPECT(&c, 200, HELLO);
            EXPECT_EOF(&c);
            hang_up(&c);
        }
        struct client bad = ASK(&s, "GET /hello HTTP/1.1\r\nHost : a\r\n\r\n");
        CHECK_INT(bad.status, 400);
        EXPECT_EOF(&bad);
        hang_up(&bad);
        finish(&s);
    }
}

// Also byte by byte, as the states see it.
TEST(a_slow_client) {
    static const char request[] = "POST /dump/1/2 HTTP/1.1\r\nHost: a\r\nX-Test: t\r\nContent-Length: 2\r\n\r\nhi";
    serve(&s, &(httpsrv_config){0});
    struct client c = dial(s.port);
    for (int i = 0; i < 2; i++) {
        net_send_split(&c, request, sizeof request - 1, 1);
        EXPECT(&c, 200, "POST /dump/1/2 /dump/1/2 host=a a=1 rest=2 q= x=t body=hi");
    }
    hang_up(&c);
    finish(&s);
}

TEST(clients_that_leave_or_wait_too_long) {
    serve(&s, &(httpsrv_config){.timeout_ms = {.head = 100, .body = 100, .idle = 100}});
    struct client idle = dial(s.port), head = dial(s.port), body = dial(s.port), reset = dial(s.port);
    SEND(&head, "GET /hello HTTP/1.1\r\n");
    SEND(&body, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe");
    SEND(&reset, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe");
    net_reset(&reset);
    EXPECT(&head, 408, NULL);
    EXPECT(&body, 408, NULL);
    EXPECT_EOF(&idle);
    WAIT(metrics(&s).connections <= 2);
    hang_up(&idle);
    hang_up(&head);
    hang_up(&body);
    check_alive(&s);
    finish(&s);
}

static void on_outcome(const httpsrv_outcome *outcome, void *arg) {
    CHECK(outcome->delivered);
    CHECK_INT(outcome->status, 200);
    COUNT(((struct server *)arg)->left);
}

static void on_reported(httpsrv_req *req, void *user) {
    CHECK_INT(httpsrv_on_done(req, on_outcome, user), HTTPSRV_OK);
    on_hello(req, user);
}

static httpsrv_verdict stop_some(httpsrv_req *req, void *user) {
    (void)user;
    if (!httpsrv_header(req, "X-Refused").ptr) return HTTPSRV_NEXT;
    httpsrv_reply(req, 403, "text/plain", HTTPSRV_STR("no\n"));
    return HTTPSRV_DONE;
}

TEST(filters_and_reports) {
    prepare(&s, &(httpsrv_config){0});
    CHECK_INT(httpsrv_use(s.srv, "/", stop_some, NULL), HTTPSRV_OK);
    CHECK_INT(httpsrv_on(s.srv, "GET /reported", on_reported, &s), HTTPSRV_OK);
    go(&s);
    struct client c = dial(s.port);
    for (int i = 0; i < 2; i++) {
        GET(&c, "/reported");
        EXPECT(&c, 200, HELLO);
        SEND(&c, "GET /reported HTTP/1.1\r\nHost: a\r\nX-Refused: 1\r\n\r\n");
        EXPECT(&c, 403, "no\n");
    }
    hang_up(&c);
    finish(&s);
    CHECK_INT(s.left, 2);
}

// In a drain what was begun is finished; the second stop cuts.
TEST(stops) {
    for (int times = 1; times <= 2; times++) {
        serve(&s, &(httpsrv_config){.timeout_ms = {.drain = 10000}});
        struct client c = dial(s.port);
        SEND(&c, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe");
        WAIT(metrics(&s).connections == 1 && metrics(&s).bytes_in > 0);
        for (int i = 0; i < times; i++) {
            httpsrv_stop(s.srv);
        }
        if (times == 1) {
            SEND(&c, "llo");
            EXPECT(&c, 200, "hello");
        }
        EXPECT_EOF(&c);
        hang_up(&c);
        join_server(&s);
        dispose(&s);
        CHECK_INT(s.last.drain_cut, times - 1);
    }
}

TEST(a_host_that_polls) {
    prepare(&s, &(httpsrv_config){0});
    route_all(&s, "", NULL);
    go_polled(&s);
    struct client c = dial(s.port);
    check_answers(&c);
    check_bodies(&c);
    hang_up(&c);
    finish(&s);
}

// A request has no place in the table of tokens, and is kept for the next one all the same.
TEST(memory_does_not_grow) {
    serve(&s, &(httpsrv_config){0});
    struct client c = dial(s.port);
    for (int i = 0; i < 10; i++) {
        GET(&c, "/hello");
        EXPECT(&c, 200, HELLO);
    }
    const size_t allocations = LOAD(s.allocations);
    for (int i = 0; i < 1000; i++) {
        GET(&c, "/hello");
        EXPECT(&c, 200, HELLO);
    }
    CHECK_INT(LOAD(s.allocations), allocations);
    hang_up(&c);
    finish(&s);
}
