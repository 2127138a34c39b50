// Where bodies in pieces, answers from elsewhere, clients that leave, drains and a lack of memory meet: each test brings
// about one interleaving that a request has to come out of once, for good, and with its own answer.

#define HTTPSRV_IMPLEMENTATION
#include "../httpsrv.h"

#include "server.h"
#include <pthread.h>

static struct server s;
static int entered, go_on, done, gone, blocked, unblock, ran, result, calls;
static httpsrv_token token;

static void on_gone(void *arg) {
    (void)arg;
    COUNT(gone);
}
static void wait_for(int *flag) {
    while (!LOAD(*flag))
        test_sleep(1);
}

static void block(httpsrv_req *req, void *user) {
    (void)user;
    COUNT(blocked);
    wait_for(&unblock);
    httpsrv_reply(req, 200, NULL, HTTPSRV_STR("ok"));
}

static void block_later(httpsrv_req *req, void *user);
static void setup(const httpsrv_config *config) {
    prepare(&s, config);
    httpsrv_on(s.srv, "GET /hello", on_hello, &s);
    httpsrv_on(s.srv, "GET /block", block_later, NULL);
}
static void route(const char *pattern, httpsrv_handler handler, const char *pool) {
    httpsrv_route_config r = {.pattern = pattern, .handler = handler, .pool = pool, .user = &s};
    CHECK_INT(httpsrv_route(s.srv, &r), HTTPSRV_OK);
}
// Keeps the reactor in a posted handler, which runs behind the events of a turn, until unblock is set.
static httpsrv_token block_token;
static int block_ready;
static void block_later(httpsrv_req *req, void *user) {
    (void)user;
    block_token = httpsrv_defer(req);
    STORE(block_ready, 1);
}
static struct client hold_reactor(void) {
    struct client b = dial(s.port);
    GET(&b, "/block");
    WAIT(LOAD(block_ready));
    CHECK_INT(httpsrv_post(s.srv, block_token, block, NULL), HTTPSRV_OK);
    WAIT(LOAD(blocked));
    return b;
}
static void let_go_of_reactor(struct client *b) {
    STORE(unblock, 1);
    EXPECT(b, 200, "ok");
    hang_up(b);
}
// A server of one reactor with this handler at /x, and a client whose request has entered it.
static struct client enter(const char *version, httpsrv_handler handler, const char *pool) {
    setup(&(httpsrv_config){.reactors = 1});
    route("GET /x", handler, pool);
    go(&s);
    struct client c = dial(s.port);
    SENDF(&c, "GET /x HTTP/%s\r\nHost: a\r\n\r\n", version);
    WAIT(LOAD(entered));
    return c;
}

// ---- a post is lost if the worker tells the loop anything before it returns ----
static void posted_reply(httpsrv_req *req, void *user) {
    (void)user;
    COUNT(ran);
    if (req) httpsrv_reply(req, 200, NULL, HTTPSRV_STR("posted"));
}
static void defer_and_inform(httpsrv_req *req, void *user) {
    (void)user;
    token = httpsrv_defer(req);
    STORE(entered, 1);
    wait_for(&go_on);
    CHECK_INT(httpsrv_inform(req, 103, NULL, 0), HTTPSRV_OK);
    test_sleep(200);
}
TEST(lost_post) {
    struct client a = enter("1.1", defer_and_inform, "default");
    CHECK_INT(httpsrv_post(s.srv, token, posted_reply, NULL), HTTPSRV_OK);
    test_sleep(100);
    STORE(go_on, 1);
    EXPECT(&a, 103, NULL);
    EXPECT(&a, 200, "posted");
    hang_up(&a);
    finish(&s);
}

// ---- begun and deferred on a worker, lost in the turn in which it comes back ----
static void worker_sse(httpsrv_req *req, void *user) {
    (void)user;
    httpsrv_on_gone(req, on_gone, NULL);
    STORE(entered, 1);
    wait_for(&go_on);
    token = httpsrv_sse_begin(req, "x");
    STORE(done, 1);
}
TEST(orphan_for_ever) {
    struct client a = enter("1.1", worker_sse, "default");
    struct client b = hold_reactor();
    net_reset(&a);
    STORE(go_on, 1);
    WAIT(LOAD(done));
    test_sleep(100);
    let_go_of_reactor(&b);
    test_sleep(200);
    printf("gone %d token %llx\n", LOAD(gone), (unsigned long long)token.id);
    finish(&s);
    CHECK_INT(gone, 1);
}

// ---- an answer of a posted handler, and the connection found lost while it is queued ----
static void just_defer(httpsrv_req *req, void *user) {
    (void)user;
    httpsrv_on_gone(req, on_gone, NULL);
    token = httpsrv_defer(req);
    STORE(entered, 1);
}
static void fill_and_reply(httpsrv_req *req, void *user) {
    static char text[3900];
    (void)user;
    CHECK(req != NULL);
    STORE(ran, 1);
    wait_for(&go_on);
    memset(text, 'x', sizeof text);
    httpsrv_field f = {HTTPSRV_STR("X"), {text, sizeof text}};
    while (req->loop->output_len + 3900 + 300 < HTTPSRV_WRITE_BUFFER)
        CHECK_INT(httpsrv_inform(req, 103, &f, 1), HTTPSRV_OK);
    result = httpsrv_reply(req, 200, NULL, (httpsrv_str){text, sizeof text});
    STORE(done, 1);
}
TEST(posted_answer_and_loss) {
    struct client a = enter("1.1", just_defer, NULL);
    CHECK_INT(httpsrv_post(s.srv, token, fill_and_reply, NULL), HTTPSRV_OK);
    WAIT(LOAD(ran));
    net_reset(&a);
    test_sleep(50);
    STORE(go_on, 1);
    WAIT(LOAD(done));
    printf("reply %d\n", result);
    test_sleep(200);
    printf("orphans %u gone %d\n", s.srv->loops[0]->num_orphans, LOAD(gone));
    finish(&s);
}

// ---- signs of life behind the end ----
static void ends_early(httpsrv_req *req, void *user) {
    (void)user;
    CHECK(httpsrv_sse_begin(req, "x").id != 0);
    CHECK_INT(httpsrv_end(req), HTTPSRV_OK);
    wait_for(&go_on);
}
TEST(comment_behind_the_end) {
    setup(&(httpsrv_config){.reactors = 1, .timeout_ms.events = 50});
    route("GET /x", ends_early, "default");
    go(&s);
    struct client a = dial(s.port);
    GET(&a, "/x");
    EXPECT(&a, 200, "");
    EXPECT_SILENCE(&a, 500);
    STORE(go_on, 1);
    hang_up(&a);
    finish(&s);
}

// ---- close-delimited answers that are cut ----
static void begins(httpsrv_req *req, void *user) {
    (void)user;
    CHECK_INT(httpsrv_begin(req, 200, NULL, -1), HTTPSRV_OK);
    CHECK_INT(httpsrv_write(req, HTTPSRV_STR("half")), HTTPSRV_OK);
    token = httpsrv_defer(req);
    STORE(entered, 1);
}
TEST(cut_looks_complete) {
    struct client a = enter("1.0", begins, NULL);
    net_need(&a, 20);
    httpsrv_stop(s.srv);
    httpsrv_stop(s.srv);
    net_until_end(&a);
    printf("error %d (0: orderly)\n", a.error);
    CHECK(a.error != 0);
    hang_up(&a);
    httpsrv_join(s.srv);
    dispose(&s);
}

// ---- sse_end says OK and on_gone is called ----
static void inline_sse(httpsrv_req *req, void *user) {
    (void)user;
    httpsrv_on_gone(req, on_gone, NULL);
    token = httpsrv_sse_begin(req, "x");
    STORE(entered, 1);
}
TEST(end_of_events_and_gone) {
    struct client a = enter("1.1", inline_sse, NULL);
    net_need(&a, 20);
    struct client b = hold_reactor();
    net_reset(&a);
    CHECK_INT(httpsrv_sse_end(s.srv, token), HTTPSRV_OK);
    let_go_of_reactor(&b);
    finish(&s);
    CHECK_INT(gone, 0);
}
// the other way round: on_gone by the drain, then sse_end OK
static void worker_sse_stays(httpsrv_req *req, void *user) {
    (void)user;
    httpsrv_on_gone(req, on_gone, NULL);
    token = httpsrv_sse_begin(req, "x");
    STORE(entered, 1);
    wait_for(&go_on);
}
TEST(gone_and_end) {
    struct client a = enter("1.1", worker_sse_stays, "default");
    net_need(&a, 20);
    httpsrv_stop(s.srv);
    WAIT(LOAD(gone));
    result = httpsrv_sse_end(s.srv, token);
    printf("sse_end after on_gone: %d\n", result);
    STORE(go_on, 1);
    EXPECT_END(&a);
    hang_up(&a);
    httpsrv_join(s.srv);
    dispose(&s);
    CHECK_INT(result, HTTPSRV_GONE);
}

// ---- httpsrv_end says OK and on_gone is called ----
static void worker_ends(httpsrv_req *req, void *user) {
    (void)user;
    httpsrv_on_gone(req, on_gone, NULL);
    CHECK_INT(httpsrv_begin(req, 200, NULL, -1), HTTPSRV_OK);
    CHECK_INT(httpsrv_write(req, HTTPSRV_STR("all")), HTTPSRV_OK);
    STORE(entered, 1);
    wait_for(&go_on);
    result = httpsrv_end(req);
    STORE(done, 1);
    wait_for(&ran);
}
TEST(end_of_a_worker_and_gone) {
    struct client a = enter("1.1", worker_ends, "default");
    net_need(&a, 20);
    struct client b = hold_reactor();
    net_reset(&a);
    STORE(go_on, 1);
    WAIT(LOAD(done));
    let_go_of_reactor(&b);
    test_sleep(100);
    STORE(ran, 1);
    finish(&s);
    printf("end %d gone %d\n", result, gone);
    CHECK(result != HTTPSRV_OK || gone == 0);
}
static void posted_abort(httpsrv_req *req, void *user) {
    (void)user;
    if (req) result = httpsrv_abort(req);
    STORE(done, 1);
}
static void begins_watched(httpsrv_req *req, void *user) {
    httpsrv_on_gone(req, on_gone, NULL);
    begins(req, user);
}
TEST(abort_and_gone) {
    struct client a = enter("1.1", begins_watched, NULL);
    CHECK_INT(httpsrv_post(s.srv, token, posted_abort, NULL), HTTPSRV_OK);
    WAIT(LOAD(done));
    EXPECT_END(&a);
    hang_up(&a);
    finish(&s);
    CHECK_INT(result, HTTPSRV_OK);
    CHECK_INT(gone, 0);
}

// ---- a request released with a finish in flight ----
static __thread bool slow_thread;
static int in_alloc, let_alloc, finish_result = -99;
static void *slow_realloc(void *user, void *ptr, size_t old_size, size_t new_size) {
    if (slow_thread && new_size > 0) {
        STORE(in_alloc, 1);
        wait_for(&let_alloc);
    }
    return counting_realloc(user, ptr, old_size, new_size);
}
static void *finisher(void *arg) {
    httpsrv_answer answer = {.status = 200, .body = HTTPSRV_STR("SECRET OF A")};
    (void)arg;
    slow_thread = true;
    finish_result = httpsrv_finish(s.srv, token, &answer);
    STORE(done, 1);
    return NULL;
}
static void defer_inform_lost(httpsrv_req *req, void *user) {
    static char text[3900];
    pthread_t thread;
    (void)user;
    token = httpsrv_defer(req);
    pthread_create(&thread, NULL, finisher, NULL);
    pthread_detach(thread);
    wait_for(&in_alloc);
    STORE(entered, 1);
    wait_for(&go_on);
    memset(text, 'x', sizeof text);
    httpsrv_field f = {HTTPSRV_STR("X"), {text, sizeof text}};
    while (!httpsrv_gone(req))
        httpsrv_inform(req, 103, &f, 1);
}
static void defer_other(httpsrv_req *req, void *user) {
    (void)user;
    httpsrv_defer(req);
    STORE(ran, 1);
}
TEST(finish_in_flight) {
    setup(&(httpsrv_config){.reactors = 1, .allocator = {slow_realloc, &s}});
    route("GET /x", defer_inform_lost, NULL);
    route("GET /y", defer_other, NULL);
    go(&s);
    struct client a = dial(s.port);
    GET(&a, "/x");
    WAIT(LOAD(entered));
    net_reset(&a);
    test_sleep(50);
    STORE(go_on, 1);
    test_sleep(200);
    struct client c = dial(s.port);
    GET(&c, "/y");
    WAIT(LOAD(ran));
    STORE(let_alloc, 1);
    WAIT(LOAD(done));
    EXPECT_SILENCE(&c, 300);
    hang_up(&c);
    finish(&s);
}

// ---- no memory for the end ----
static int fail_now;
static void *failing_realloc(void *user, void *ptr, size_t old_size, size_t new_size) {
    if (LOAD(fail_now) && new_size > old_size) return NULL;
    return counting_realloc(user, ptr, old_size, new_size);
}
static void drained(httpsrv_req *req, void *user) {
    (void)user;
    STORE(fail_now, calls++ == 0);
    result = httpsrv_end(req);
    STORE(fail_now, 0);
}
static void begins_drained(httpsrv_req *req, void *user) {
    (void)user;
    httpsrv_begin(req, 200, NULL, -1);
    httpsrv_on_drain(req, drained, NULL);
}
TEST(end_without_memory) {
    setup(&(httpsrv_config){.reactors = 1, .allocator = {failing_realloc, &s}});
    route("GET /x", begins_drained, NULL);
    go(&s);
    struct client a = dial(s.port);
    GET(&a, "/x");
    EXPECT(&a, 200, "");
    hang_up(&a);
    finish(&s);
}

// ---- trailers while they come ----
static void reads_trailer(httpsrv_req *req, void *user) {
    char buf[100];
    (void)user;
    STORE(entered, 1);
    while (!httpsrv_trailer(req, "x-t").ptr && calls++ < 2000)
        test_sleep(1);
    while (httpsrv_read(req, buf, sizeof buf) > 0) {}
    httpsrv_reply(req, 200, NULL, httpsrv_trailer(req, "x-t"));
}
TEST(trailers) {
    setup(&(httpsrv_config){.reactors = 1});
    httpsrv_route_config r = {.pattern = "POST /x", .handler = reads_trailer, .pool = "default", .stream = true};
    CHECK_INT(httpsrv_route(s.srv, &r), HTTPSRV_OK);
    go(&s);
    struct client a = dial(s.port);
    SEND(&a, "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    WAIT(LOAD(entered));
    SEND(&a, "3\r\nabc\r\n0\r\nx-t: hello\r\n\r\n");
    EXPECT(&a, 200, "hello");
    hang_up(&a);
    finish(&s);
}

// ---- a handler that is posted to a request which is answered, while its body is dropped ----
static void on_piece(httpsrv_req *req, httpsrv_str piece, bool last, void *user) {
    (void)req;
    (void)piece;
    (void)last;
    (void)user;
}
static void counts_null(httpsrv_req *req, void *user) {
    (void)user;
    STORE(result, req ? 2 : 1);
}
static void answered_then_posted(bool by_finish) {
    setup(&(httpsrv_config){.reactors = 1});
    httpsrv_route_config r = {.pattern = "POST /x", .handler = just_defer, .on_body = on_piece};
    CHECK_INT(httpsrv_route(s.srv, &r), HTTPSRV_OK);
    go(&s);
    struct client a = dial(s.port);
    SEND(&a, "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc");
    WAIT(LOAD(entered));
    httpsrv_answer answer = {.status = 200, .body = HTTPSRV_STR("posted")};
    if (by_finish)
        CHECK_INT(httpsrv_finish(s.srv, token, &answer), HTTPSRV_OK);
    else
        CHECK_INT(httpsrv_post(s.srv, token, posted_reply, NULL), HTTPSRV_OK);
    EXPECT(&a, 200, "posted");
    CHECK_INT(httpsrv_post(s.srv, token, counts_null, NULL), HTTPSRV_OK);
    EXPECT_SILENCE(&a, 200);
    CHECK_INT(LOAD(result), 1);
    SEND(&a, "defghij");
    GET(&a, "/hello");
    EXPECT(&a, 200, "Hello, World!\n");
    hang_up(&a);
    finish(&s);
}
TEST(answered_then_posted) {
    answered_then_posted(false);
}
TEST(finished_then_posted) {
    answered_then_posted(true);
}

// ---- a stream that waits for its pool is read ----
static void slow_reader(httpsrv_req *req, void *user) {
    char buf[1000];
    size_t n = 0;
    ptrdiff_t got;
    (void)user;
    COUNT(entered);
    wait_for(&go_on);
    while ((got = httpsrv_read(req, buf, sizeof buf)) > 0)
        n += (size_t)got;
    httpsrv_replyf(req, 200, NULL, "%zu", n);
}
TEST(waiting_stream_is_read) {
    enum { N = 8 };
    struct client c[N];
    setup(&(httpsrv_config){.reactors = 1, .pools = {{"one", 1, 2}}});
    httpsrv_route_config r = {
        .pattern = "POST /x", .handler = slow_reader, .pool = "one", .stream = true, .overload = HTTPSRV_OVERLOAD_WAIT};
    CHECK_INT(httpsrv_route(s.srv, &r), HTTPSRV_OK);
    go(&s);
    for (int i = 0; i < N; i++) {
        c[i] = dial(s.port);
        SEND(&c[i], "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n");
        test_sleep(20);
    }
    uint64_t before = metrics(&s).bytes_in;
    net_send(&c[N - 1], blob, 200000);
    test_sleep(200);
    CHECK_INT(LOAD(s.logged[HTTPSRV_LOG_WAITS]), N - 3); // one is handled, two are queued
    uint64_t during = metrics(&s).bytes_in - before;
    STORE(go_on, 1);
    for (int i = 0; i < N; i++) {
        if (i < N - 1) net_send(&c[i], blob, 200000);
        EXPECT(&c[i], 200, "200000");
        hang_up(&c[i]);
    }
    finish(&s);
    CHECK_INT(during, 0);
}

// ---- a complete close-delimited answer whose handler still runs is reset by the cut ----
static void ends_and_stays(httpsrv_req *req, void *user) {
    (void)user;
    CHECK_INT(httpsrv_begin(req, 200, NULL, -1), HTTPSRV_OK);
    CHECK_INT(httpsrv_write(req, HTTPSRV_STR("whole")), HTTPSRV_OK);
    CHECK_INT(httpsrv_end(req), HTTPSRV_OK);
    STORE(entered, 1);
    wait_for(&go_on);
}
TEST(complete_looks_torn) {
    struct client a = enter("1.0", ends_and_stays, "default");
    test_sleep(100);
    httpsrv_stop(s.srv);
    httpsrv_stop(s.srv);
    net_until_end(&a);
    STORE(go_on, 1);
    CHECK_INT(a.error, 0);
    hang_up(&a);
    httpsrv_join(s.srv);
    dispose(&s);
}
