// Overload: what becomes of requests when the queue of their pool is full, jobs of the application's own, and the budget of
// memory. Also built with ThreadSanitizer.

#include <stdint.h>

// Calls of the atomic store, so that a test can have something happen right before one of them: see before_store().
static void before_store(const void *where);
#define __atomic_store_n(ptr, value, order) (before_store(ptr), __atomic_store_n((ptr), (value), (order)))

#define HTTPSRV_IMPLEMENTATION
#include "../httpsrv.h"

#undef __atomic_store_n

#include "server.h"
#include <poll.h>
#include <pthread.h>
#include <sched.h>

#define QUEUE 2 // jobs that may wait in the pool of these tests; it has one thread

// Rounds of a storm: fewer where the sanitizers slow everything down.
#define ROUNDS(n) TEST_FEWER(n, 8)

static struct server s;
static int holding;   // jobs that keep a worker busy until the gate opens
static int ran;       // calls of count_job
static int order[64]; // numbers of the requests that handlers have seen, in that order
static int num_order;
static uintptr_t handler_thread; // of on_number, the last time

// What happens right before the next store to a word; NULL: nothing does.
static const void *watched;
static void (*watcher)(void);

static void before_store(const void *where) {
    if (!where || where != __atomic_load_n(&watched, __ATOMIC_ACQUIRE)) return;
    __atomic_store_n(&watched, NULL, __ATOMIC_RELEASE);
    watcher();
}

// ---- handlers ----

static void on_number(httpsrv_req *req, void *user) {
    const int at = __atomic_fetch_add(&num_order, 1, __ATOMIC_ACQ_REL);
    (void)user;
    if (at < (int)ROWS(order)) STORE(order[at], (int)number_param(req, "n"));
    STORE(handler_thread, (uintptr_t)pthread_self());
    COUNT(s.handled);
    httpsrv_replyf(req, 200, "text/plain", "%zu", number_param(req, "n"));
}

static void route(const char *pattern, httpsrv_handler handler, httpsrv_overload overload) {
    const httpsrv_route_config config = {
        .pattern = pattern, .handler = handler, .user = &s, .pool = "work", .overload = overload};
    CHECK_INT(httpsrv_route(s.srv, &config), HTTPSRV_OK);
}

// A server whose pool is soon full, with a route for each policy, on which other configurations may be built.
static void begin(const httpsrv_config *config) {
    httpsrv_config c = *config;
    c.pools[0] = (httpsrv_pool_config){.name = "work", .threads = 1, .queue = QUEUE};
    holding = ran = num_order = 0;
    prepare(&s, &c);
    route("* /refuse/:n", on_number, HTTPSRV_OVERLOAD_REFUSE);
    route("* /inline/:n", on_number, HTTPSRV_OVERLOAD_INLINE);
    route("* /wait/:n", on_number, HTTPSRV_OVERLOAD_WAIT);
    route("* /wait/echo", on_echo, HTTPSRV_OVERLOAD_WAIT);
    route("* /wait/dump/:a/*rest", on_dump, HTTPSRV_OVERLOAD_WAIT);
    CHECK_INT(httpsrv_on(s.srv, "GET /hello", on_hello, &s), HTTPSRV_OK);
    CHECK_INT(httpsrv_on(s.srv, "GET /number/:n", on_number, &s), HTTPSRV_OK);
}

static void serve_overload(int reactors) {
    begin(&(httpsrv_config){.reactors = reactors});
    go(&s);
    NOTE("%d reactors", reactors);
}

// ---- jobs ----

static void hold(void *arg) {
    CHECK(arg == &s);
    COUNT(holding);
    while (!LOAD(s.gate)) {
        test_sleep(1);
    }
}

static void count_job(void *arg) {
    CHECK(arg == &s);
    COUNT(ran);
}

static httpsrv_result submit(httpsrv_fn fn) {
    return httpsrv_submit(s.srv, "work", fn, &s);
}

// The worker is held and the queue is full, of jobs: no request makes room when it ends.
static void stuff_pool(void) {
    STORE(s.gate, 0);
    const int before = LOAD(holding);
    CHECK_INT(submit(hold), HTTPSRV_OK);
    WAIT(LOAD(holding) == before + 1);
    for (int i = 0; i < QUEUE; i++) {
        CHECK_INT(submit(count_job), HTTPSRV_OK);
    }
    CHECK_INT(submit(count_job), HTTPSRV_FULL);
}

static void open_gate(void) {
    STORE(s.gate, 1);
}

static void *open_gate_later(void *arg) {
    (void)arg;
    test_sleep(100);
    open_gate();
    return NULL;
}

// Sends a request and waits until the server has it.
static void send_request(struct client *c, const char *policy, int n) {
    const uint64_t before = metrics(&s).requests;
    SENDF(c, "GET /%s/%d HTTP/1.1\r\nHost: a\r\n\r\n", policy, n);
    WAIT(metrics(&s).requests == before + 1);
}

static struct client dial_request(const char *policy, int n) {
    struct client c = dial(s.port);
    send_request(&c, policy, n);
    return c;
}

// Clients that ask for what waits for room.
static void queue_up(struct client *c, int clients) {
    for (int i = 0; i < clients; i++) {
        c[i] = dial_request("wait", i);
    }
}

static void expect_number(struct client *c, int n) {
    char text[20];
    snprintf(text, sizeof text, "%d", n);
    EXPECT(c, 200, text);
}

static void check_refused(struct client *c) {
    EXPECT(c, 503, NULL);
    CHECK(field(c, "Retry-After") != NULL);
    CHECK(!c->close);
}

static uint64_t item(httpsrv_log_item i) {
    return metrics(&s).items[i];
}

// ---- refuse ----

TEST(refuse) {
    static const char *const requests[] = {
        "GET /refuse/1 HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /refuse/1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
        "POST /refuse/1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    };
    for (int reactors = 1; reactors <= 2; reactors++) {
        serve_overload(reactors);
        struct client c = dial(s.port);
        stuff_pool();
        for (size_t i = 0; i < ROWS(requests); i++) {
            SEND(&c, requests[i]);
            check_refused(&c);
            GET(&c, "/hello");
            EXPECT(&c, 200, HELLO);
        }
        SEND(&c, "HEAD /refuse/1 HTTP/1.1\r\nHost: a\r\n\r\nGET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
        REPLY_HEAD(&c);
        CHECK_INT(c.status, 503);
        EXPECT(&c, 200, HELLO);
        CHECK_INT(item(HTTPSRV_LOG_QUEUE_FULL), 4);
        open_gate();
        WAIT(LOAD(ran) == QUEUE);
        send_request(&c, "refuse", 5);
        expect_number(&c, 5);
        hang_up(&c);
        finish(&s);
        CHECK_INT(s.last.pool_jobs, 1 + QUEUE + 1);
        CHECK_INT(num_order, 1);
    }
}

// The policy of a route that names none.
TEST(refuse_by_default) {
    begin(&(httpsrv_config){0});
    httpsrv_route(s.srv, &(httpsrv_route_config){.pattern = "GET /default/:n", .handler = on_number, .pool = "work"});
    go(&s);
    stuff_pool();
    struct client c = dial_request("default", 1);
    check_refused(&c);
    open_gate();
    hang_up(&c);
    finish(&s);
}

// ---- inline ----

TEST(inline_on_the_reactor) {
    serve_overload(1);
    struct client c = dial(s.port);
    send_request(&c, "inline", 1);
    expect_number(&c, 1);
    const uintptr_t worker = LOAD(handler_thread);
    send_request(&c, "number", 2);
    expect_number(&c, 2);
    const uintptr_t reactor = LOAD(handler_thread);
    CHECK(reactor != worker);
    stuff_pool();
    for (int i = 0; i < 10; i++) {
        send_request(&c, "inline", i);
        expect_number(&c, i);
        CHECK(LOAD(handler_thread) == reactor);
    }
    CHECK_INT(item(HTTPSRV_LOG_RAN_INLINE), 10);
    open_gate();
    WAIT(LOAD(ran) == QUEUE);
    send_request(&c, "inline", 3);
    expect_number(&c, 3);
    CHECK(LOAD(handler_thread) == worker);
    hang_up(&c);
    finish(&s);
    CHECK_INT(s.last.items[HTTPSRV_LOG_RAN_INLINE], 10);
    CHECK_INT(s.last.items[HTTPSRV_LOG_QUEUE_FULL], 0);
}

enum { KEEPERS = 60 };

static httpsrv_token kept[KEEPERS]; // of deferred requests, in the order of their arrival
static pthread_mutex_t kept_lock = PTHREAD_MUTEX_INITIALIZER;

static void on_keep(httpsrv_req *req, void *user) {
    const httpsrv_token token = httpsrv_defer(req);
    (void)user;
    CHECK(token.id != 0);
    pthread_mutex_lock(&kept_lock);
    kept[s.arrived % KEEPERS] = token;
    COUNT(s.arrived);
    pthread_mutex_unlock(&kept_lock);
}

// Token of a request, by the number of requests that had arrived before.
static httpsrv_token kept_token(int n) {
    pthread_mutex_lock(&kept_lock);
    const httpsrv_token token = kept[n % KEEPERS];
    pthread_mutex_unlock(&kept_lock);
    return token;
}

static void on_count_gone(void *arg) {
    COUNT(((struct server *)arg)->gone);
}

static void on_watch_and_defer(httpsrv_req *req, void *user) {
    CHECK_INT(httpsrv_on_gone(req, on_count_gone, user), HTTPSRV_OK);
    on_keep(req, user);
}

// What runs inline for want of room can do all that it could do on a worker.
TEST(inline_can_defer) {
    begin(&(httpsrv_config){.timeout_ms.handler = test_ms(300)});
    route("GET /later/:n", on_watch_and_defer, HTTPSRV_OVERLOAD_INLINE);
    go(&s);
    struct client c = dial(s.port);
    const httpsrv_answer answer = {.status = 200, .body = HTTPSRV_STR("later")};
    stuff_pool();
    for (int i = 1; i <= 3; i++) {
        send_request(&c, "later", i);
        WAIT(LOAD(s.arrived) == i);
        CHECK_INT(httpsrv_finish(s.srv, kept_token(i - 1), &answer), HTTPSRV_OK);
        EXPECT(&c, 200, "later");
        CHECK_INT(httpsrv_finish(s.srv, kept_token(i - 1), &answer), HTTPSRV_GONE);
    }
    send_request(&c, "later", 4);
    EXPECT(&c, 503, NULL); // not in time
    CHECK_INT(LOAD(s.gone), 1);
    send_request(&c, "later", 5);
    WAIT(LOAD(s.arrived) == 5);
    net_reset(&c);
    WAIT(LOAD(s.gone) == 2);
    open_gate();
    finish(&s);
    CHECK_INT(s.last.items[HTTPSRV_LOG_RAN_INLINE], 5);
}

TEST(inline_without_an_answer) {
    begin(&(httpsrv_config){0});
    route("GET /forget/:n", on_never, HTTPSRV_OVERLOAD_INLINE);
    go(&s);
    stuff_pool();
    struct client c = dial_request("forget", 1);
    EXPECT(&c, 500, NULL);
    open_gate();
    hang_up(&c);
    finish(&s);
}

// ---- wait ----

TEST(wait_in_order_of_arrival) {
    enum { CLIENTS = 40 };
    struct client c[CLIENTS];
    serve_overload(1);
    stuff_pool();
    queue_up(c, CLIENTS);
    EXPECT_SILENCE(&c[0], 20);
    CHECK_INT(item(HTTPSRV_LOG_WAITS), CLIENTS);
    CHECK_INT(LOAD(s.handled), 0);
    check_alive(&s);
    open_gate();
    for (int i = 0; i < CLIENTS; i++) {
        expect_number(&c[i], i);
        CHECK_INT(LOAD(order[i]), i);
    }
    for (int i = 0; i < CLIENTS; i++) {
        send_request(&c[i], "wait", i);
        expect_number(&c[i], i);
        hang_up(&c[i]);
    }
    CHECK_INT(LOAD(s.srv->loops[0]->starved), 0); // no worker wakes it without need
    finish(&s);
    CHECK_INT(s.last.answers[2], 2 * CLIENTS + 1);
    CHECK_INT(s.last.pool_jobs, 1 + QUEUE + 2 * CLIENTS);
    CHECK_INT(ran, QUEUE);
}

TEST(wait_pipelined) {
    enum { CLIENTS = 8, DEPTH = 10 };
    struct client c[CLIENTS];
    for (int reactors = 1; reactors <= 2; reactors++) {
        serve_overload(reactors);
        stuff_pool();
        for (int i = 0; i < CLIENTS; i++) {
            c[i] = dial(s.port);
            for (int k = 0; k < DEPTH; k++) {
                SENDF(&c[i], "GET /wait/%d HTTP/1.1\r\nHost: a\r\n\r\nGET /hello HTTP/1.1\r\nHost: a\r\n\r\n", k);
            }
        }
        WAIT(item(HTTPSRV_LOG_WAITS) == CLIENTS); // one of each connection at a time
        EXPECT_SILENCE(&c[0], 20);
        CHECK_INT(item(HTTPSRV_LOG_WAITS), CLIENTS);
        open_gate();
        for (int i = 0; i < CLIENTS; i++) {
            for (int k = 0; k < DEPTH; k++) {
                expect_number(&c[i], k);
                EXPECT(&c[i], 200, HELLO);
            }
            hang_up(&c[i]);
        }
        finish(&s);
    }
}

// Requests as they were, whatever flowed through the buffers while they waited.
TEST(wait_keeps_the_request) {
    enum { CLIENTS = 6 };
    struct client c[CLIENTS], big = {.fd = -1};
    serve_overload(1);
    stuff_pool();
    big = dial(s.port);
    SEND(&big, "POST /wait/echo HTTP/1.1\r\nHost: a\r\nContent-Type: a/b\r\nContent-Length: 500000\r\n\r\n");
    net_send(&big, blob, 500000);
    WAIT(item(HTTPSRV_LOG_WAITS) == 1);
    for (int i = 0; i < CLIENTS; i++) {
        c[i] = dial(s.port);
        SENDF(&c[i],
              "PUT /wait/dump/%%61%d/r%%20/./s%d?q=%d HTTP/1.1\r\nHost: h%d\r\nX-Test: t%d\r\nContent-Length: 2\r\n\r\n"
              "b%d",
              i, i, i, i, i, i);
        WAIT(item(HTTPSRV_LOG_WAITS) == 2 + (uint64_t)i);
        check_alive(&s);
    }
    open_gate();
    REPLY(&big);
    check_blob(&big, 500000);
    CHECK_STR(field(&big, "Content-Type"), "a/b");
    for (int i = 0; i < CLIENTS; i++) {
        char expected[400];
        snprintf(expected, sizeof expected,
                 "PUT /wait/dump/%%61%d/r%%20/./s%d?q=%d /wait/dump/a%d/r /s%d host=h%d a=a%d rest=r /s%d q=%d x=t%d "
                 "body=b%d",
                 i, i, i, i, i, i, i, i, i, i, i);
        EXPECT(&c[i], 200, expected);
        hang_up(&c[i]);
    }
    hang_up(&big);
    finish(&s);
}

TEST(wait_reads_nothing_more) {
    serve_overload(1);
    stuff_pool();
    struct client c = dial_request("wait", 1);
    const uint64_t before = metrics(&s).bytes_in;
    for (int i = 2; i <= 50; i++) {
        SENDF(&c, "GET /wait/%d HTTP/1.1\r\nHost: a\r\nX: %01000d\r\n\r\n", i, i);
    }
    test_sleep(50);
    CHECK_INT(metrics(&s).bytes_in, before);
    open_gate();
    for (int i = 1; i <= 50; i++) {
        expect_number(&c, i);
    }
    hang_up(&c);
    finish(&s);
}

TEST(wait_of_a_half_closed_client) {
    serve_overload(1);
    stuff_pool();
    struct client c = dial_request("wait", 1);
    half_close(&c);
    EXPECT_SILENCE(&c, 30);
    open_gate();
    expect_number(&c, 1);
    EXPECT_EOF(&c);
    hang_up(&c);
    finish(&s);
}

// Those that leave while they wait are forgotten at once; first, last and in the middle.
TEST(wait_of_clients_that_leave) {
    enum { CLIENTS = 9 };
    struct client c[CLIENTS];
    for (int reactors = 1; reactors <= 2; reactors++) {
        serve_overload(reactors);
        stuff_pool();
        queue_up(c, CLIENTS);
        const uint64_t memory = metrics(&s).memory;
        for (int i = 0; i < CLIENTS; i += 2) {
            net_reset(&c[i]);
        }
        WAIT(metrics(&s).connections == CLIENTS / 2);
        CHECK_CMP(metrics(&s).memory, <=, memory);
        open_gate();
        for (int i = 1; i < CLIENTS; i += 2) {
            expect_number(&c[i], i);
        }
        CHECK_INT(LOAD(s.handled), CLIENTS / 2);
        for (int i = 1; i < CLIENTS; i += 2) {
            send_request(&c[i], "wait", i);
            expect_number(&c[i], i);
            hang_up(&c[i]);
        }
        finish(&s);
        CHECK_INT(s.last.items[HTTPSRV_LOG_CLIENT_GONE], CLIENTS / 2 + 1);
        CHECK_INT(s.last.pool_jobs, 1 + QUEUE + 2 * (CLIENTS / 2));
    }
}

// However many come and leave behind one that waits: they cost nothing.
TEST(wait_of_many_that_leave) {
    enum { LEAVERS = 500 };
    serve_overload(1);
    stuff_pool();
    struct client patient = dial_request("wait", 1), c = dial_request("wait", 2);
    net_reset(&c);
    WAIT(metrics(&s).connections == 1);
    const uint64_t memory = metrics(&s).memory;
    for (int i = 0; i < LEAVERS; i++) {
        c = dial_request("wait", i);
        net_reset(&c);
    }
    WAIT(metrics(&s).connections == 1);
    CHECK_CMP(metrics(&s).memory, <=, memory + 100000); // some that are kept for the next ones
    open_gate();
    expect_number(&patient, 1);
    CHECK_INT(LOAD(s.handled), 1);
    hang_up(&patient);
    finish(&s);
    CHECK_INT(s.last.items[HTTPSRV_LOG_WAITS], LEAVERS + 2);
}

// Time runs while a request waits. Its handler is not called then.
TEST(wait_for_too_long) {
    enum { CLIENTS = 5 };
    struct client c[CLIENTS];
    for (int reactors = 1; reactors <= 2; reactors++) {
        begin(&(httpsrv_config){.reactors = reactors});
        httpsrv_route_config impatient = {.pattern = "GET /impatient/:n", .handler = on_number, .user = &s};
        impatient.pool = "work";
        impatient.overload = HTTPSRV_OVERLOAD_WAIT;
        impatient.timeout_ms = 80;
        CHECK_INT(httpsrv_route(s.srv, &impatient), HTTPSRV_OK);
        go(&s);
        stuff_pool();
        for (int i = 0; i < CLIENTS; i++) {
            c[i] = dial_request(i % 2 ? "impatient" : "wait", i);
        }
        for (int i = 1; i < CLIENTS; i += 2) {
            check_refused(&c[i]);
            GET(&c[i], "/hello"); // the connection lives on
            EXPECT(&c[i], 200, HELLO);
            send_request(&c[i], "wait", 10 + i);
        }
        CHECK_INT(item(HTTPSRV_LOG_HANDLER_TIMEOUT), CLIENTS / 2);
        CHECK_INT(LOAD(num_order), 0);
        open_gate();
        for (int i = 0; i < CLIENTS; i++) {
            expect_number(&c[i], i % 2 ? 10 + i : i);
            hang_up(&c[i]);
        }
        finish(&s);
        CHECK_INT(s.last.pool_jobs, 1 + QUEUE + CLIENTS);
    }
}

// Connections of both reactors wait for the same pool: whoever makes room wakes both.
TEST(wait_on_two_reactors) {
    enum { CLIENTS = 24 };
    struct client c[CLIENTS];
    for (int round = 0; round < 5; round++) {
        serve_overload(2);
        stuff_pool();
        queue_up(c, CLIENTS);
        WAIT(LOAD(s.srv->loops[0]->starved) && LOAD(s.srv->loops[1]->starved));
        open_gate();
        for (int i = 0; i < CLIENTS; i++) {
            expect_number(&c[i], i);
            hang_up(&c[i]);
        }
        finish(&s);
    }
}

// Routes of the same pool with another policy are not held up by those that wait.
TEST(wait_beside_other_policies) {
    serve_overload(1);
    stuff_pool();
    struct client waits = dial_request("wait", 1), c = dial(s.port);
    for (int i = 0; i < 3; i++) {
        send_request(&c, "refuse", 2);
        check_refused(&c);
        send_request(&c, "inline", 3);
        expect_number(&c, 3);
    }
    EXPECT_SILENCE(&waits, 10);
    open_gate();
    expect_number(&waits, 1);
    hang_up(&waits);
    hang_up(&c);
    finish(&s);
}

// Each pool has its own line.
TEST(wait_for_two_pools) {
    enum { CLIENTS = 6 };
    struct client c[CLIENTS], d[CLIENTS];
    begin(&(httpsrv_config){.pools = {[1] = {.name = "other", .threads = 1, .queue = QUEUE}}});
    httpsrv_route_config other = {.pattern = "GET /other/:n", .handler = on_number, .user = &s, .pool = "other"};
    other.overload = HTTPSRV_OVERLOAD_WAIT;
    CHECK_INT(httpsrv_route(s.srv, &other), HTTPSRV_OK);
    go(&s);
    stuff_pool();
    for (int i = 0; i < CLIENTS; i++) {
        c[i] = dial_request("wait", i);
        d[i] = dial_request("other", 10 + i);
        expect_number(&d[i], 10 + i);
    }
    EXPECT_SILENCE(&c[0], 10);
    open_gate();
    for (int i = 0; i < CLIENTS; i++) {
        expect_number(&c[i], i);
        hang_up(&c[i]);
        hang_up(&d[i]);
    }
    finish(&s);
}

// ---- in a loop of a host's ----

static bool fd_is_ready(int timeout_ms) {
    struct pollfd p = {httpsrv_fd(s.srv), POLLIN, 0};
    return poll(&p, 1, timeout_ms) == 1;
}

// Sleeps on the descriptor, as long as the server says, until somebody has been answered.
static void sleep_until_answered(void) {
    while (metrics(&s).answers[2] == 0) {
        const int own = httpsrv_timeout(s.srv), most = test_ms(5000);
        const bool soon = own >= 0 && own < most;
        CHECK(fd_is_ready(soon ? own : most) || soon);
        CHECK_INT(httpsrv_poll(s.srv, 0), HTTPSRV_OK);
    }
}

// Room in the pool wakes a host.
TEST(wait_in_a_loop_of_a_host) {
    begin(&(httpsrv_config){0});
    CHECK_INT(httpsrv_listen(s.srv), HTTPSRV_OK);
    s.port = httpsrv_port(s.srv, 0);
    stuff_pool();
    struct client c = dial(s.port);
    GET(&c, "/wait/7");
    TURN_UNTIL(&s, item(HTTPSRV_LOG_WAITS) == 1);
    while (fd_is_ready(0)) {
        CHECK_INT(httpsrv_poll(s.srv, 0), HTTPSRV_OK);
    }
    open_gate();
    sleep_until_answered();
    expect_number(&c, 7);
    hang_up(&c);
    dispose(&s);
}

// A request that comes when there is room again, but those that wait for it have not been served, is behind them.
TEST(wait_behind_those_that_wait) {
    struct client c[3];
    begin(&(httpsrv_config){0});
    CHECK_INT(httpsrv_listen(s.srv), HTTPSRV_OK);
    s.port = httpsrv_port(s.srv, 0);
    stuff_pool();
    for (int i = 0; i < 3; i++) {
        c[i] = dial(s.port);
    }
    TURN_UNTIL(&s, metrics(&s).connections == 3);
    for (int i = 0; i < 3; i++) {
        if (i == 2) open_gate();
        if (i == 2) WAIT(LOAD(ran) == QUEUE);
        SENDF(&c[i], "GET /wait/%d HTTP/1.1\r\nHost: a\r\n\r\n", i);
        TURN_UNTIL(&s, metrics(&s).requests == (uint64_t)i + 1);
    }
    TURN_UNTIL(&s, metrics(&s).answers[2] == 3);
    for (int i = 0; i < 3; i++) {
        CHECK_INT(LOAD(order[i]), i);
        expect_number(&c[i], i);
        hang_up(&c[i]);
    }
    dispose(&s);
}

static int second_gate;

static void hold_again(void *arg) {
    CHECK(arg == &s);
    COUNT(holding);
    while (!LOAD(second_gate)) {
        test_sleep(1);
    }
}

static void empty_pool(void) {
    STORE(second_gate, 1);
    WAIT(LOAD(ran) == 2 && hsrv_pool_busy(s.srv->pools[0]) == 0);
}

// The loop has been told of room, which somebody else has taken. The pool runs empty between the moment when it is found
// full again and that when the loop says once more that it wants room: no worker will say that there is some.
TEST(wait_while_the_pool_runs_empty) {
    begin(&(httpsrv_config){0});
    CHECK_INT(httpsrv_listen(s.srv), HTTPSRV_OK);
    s.port = httpsrv_port(s.srv, 0);
    second_gate = 0;
    CHECK_INT(submit(hold), HTTPSRV_OK);
    WAIT(LOAD(holding) == 1);
    CHECK_INT(submit(hold_again), HTTPSRV_OK);
    CHECK_INT(submit(count_job), HTTPSRV_OK);
    struct client c = dial(s.port);
    GET(&c, "/wait/3");
    TURN_UNTIL(&s, item(HTTPSRV_LOG_WAITS) == 1);
    open_gate();
    WAIT(LOAD(holding) == 2);
    CHECK_INT(submit(count_job), HTTPSRV_OK);
    CHECK_INT(submit(count_job), HTTPSRV_FULL);
    CHECK_INT(LOAD(s.srv->pools[0]->wanted), 0);
    watcher = empty_pool;
    STORE(watched, &s.srv->pools[0]->wanted);
    TURN_UNTIL(&s, LOAD(watched) == NULL);
    sleep_until_answered();
    expect_number(&c, 3);
    hang_up(&c);
    dispose(&s);
}

// Connections are read and closed in the turn in which there is room again.
TEST(leave_in_the_turn_that_brings_room) {
    for (int n = 1; n < 6; n++) {
        struct client c[6];
        begin(&(httpsrv_config){0});
        CHECK_INT(httpsrv_listen(s.srv), HTTPSRV_OK);
        s.port = httpsrv_port(s.srv, 0);
        stuff_pool();
        for (int i = 0; i < n; i++) {
            c[i] = dial(s.port);
            SENDF(&c[i], "GET /wait/%d HTTP/1.1\r\nHost: a\r\n\r\n", i);
            TURN_UNTIL(&s, item(HTTPSRV_LOG_WAITS) == (uint64_t)i + 1);
        }
        open_gate();
        WAIT(LOAD(ran) == QUEUE);
        for (int i = 0; i < n; i += 2) {
            net_reset(&c[i]);
        }
        TURN_UNTIL(&s, metrics(&s).connections == (uint64_t)(n / 2) && metrics(&s).answers[2] == (uint64_t)(n / 2));
        for (int i = 1; i < n; i += 2) {
            expect_number(&c[i], i);
            hang_up(&c[i]);
        }
        dispose(&s);
    }
}

// ---- storm ----

enum { STORM_THREADS = 3, STORM_CLIENTS = 8 };

static uint32_t storm_random(uint32_t *state, uint32_t bound) {
    *state = *state * 1664525 + 1013904223;
    return (*state >> 8) % bound;
}

// Clients that wait, or leave instead.
static void *storm_thread(void *arg) {
    struct client c[STORM_CLIENTS];
    uint32_t random = (uint32_t)(uintptr_t)arg;
    for (int i = 0; i < STORM_CLIENTS; i++) {
        c[i] = dial(s.port);
    }
    for (int round = 0; round < ROUNDS(800); round++) {
        int n[STORM_CLIENTS];
        for (int i = 0; i < STORM_CLIENTS; i++) {
            n[i] = (int)storm_random(&random, 3);
            for (int k = 0; k < n[i]; k++) {
                SENDF(&c[i], "GET /wait/%d HTTP/1.1\r\nHost: a\r\n\r\n", round + k);
            }
        }
        for (int i = 0; i < STORM_CLIENTS; i++) {
            if (storm_random(&random, 8) == 0) {
                net_reset(&c[i]);
                c[i] = dial(s.port);
                continue;
            }
            for (int k = 0; k < n[i]; k++) {
                expect_number(&c[i], round + k);
            }
        }
    }
    hang_up_all(c, STORM_CLIENTS);
    return NULL;
}

static int storm_over, submitted;

// Jobs that take room away, and bring it back.
static void *storm_submitter(void *arg) {
    (void)arg;
    while (!LOAD(storm_over)) {
        const httpsrv_result result = submit(count_job);
        CHECK(result == HTTPSRV_OK || result == HTTPSRV_FULL);
        if (result == HTTPSRV_OK) COUNT(submitted);
        sched_yield();
    }
    return NULL;
}

// A wake-up that gets lost is a client that waits for ever.
TEST(wait_storm) {
    for (int reactors = 1; reactors <= 2; reactors++) {
        pthread_t threads[STORM_THREADS], submitter;
        serve_overload(reactors);
        storm_over = submitted = 0;
        pthread_create(&submitter, NULL, storm_submitter, NULL);
        for (int i = 0; i < STORM_THREADS; i++) {
            pthread_create(&threads[i], NULL, storm_thread, (void *)(uintptr_t)(i + 1));
        }
        for (int i = 0; i < STORM_THREADS; i++) {
            pthread_join(threads[i], NULL);
        }
        STORE(storm_over, 1);
        pthread_join(submitter, NULL);
        finish(&s);
        CHECK_INT(ran, submitted);
        CHECK_CMP(s.last.items[HTTPSRV_LOG_WAITS], >, 0);
        CHECK_INT(s.last.answers[0], s.last.answers[2]);
    }
}

// Each time the only thing that makes room is the end of the job that holds the worker: the finest case of a wake-up.
TEST(wait_for_the_last_room) {
    serve_overload(1);
    struct client c = dial(s.port);
    for (int i = 0; i < ROUNDS(4000); i++) {
        int stuffed = 0;
        while (submit(count_job) == HTTPSRV_OK) {
            stuffed++;
        }
        SENDF(&c, "GET /wait/%d HTTP/1.1\r\nHost: a\r\n\r\n", i);
        expect_number(&c, i);
    }
    hang_up(&c);
    finish(&s);
}

// ---- the end of those that wait ----

TEST(drain_waits_for_those_that_wait) {
    enum { CLIENTS = 10 };
    struct client c[CLIENTS];
    for (int reactors = 1; reactors <= 2; reactors++) {
        serve_overload(reactors);
        stuff_pool();
        queue_up(c, CLIENTS);
        httpsrv_stop(s.srv);
        EXPECT_SILENCE(&c[0], 30);
        open_gate();
        for (int i = 0; i < CLIENTS; i++) {
            expect_number(&c[i], i);
            CHECK(c[i].close);
            EXPECT_EOF(&c[i]);
            hang_up(&c[i]);
        }
        CHECK_INT(httpsrv_join(s.srv), HTTPSRV_OK);
        dispose(&s);
        CHECK_INT(s.last.drain_finished, CLIENTS);
        CHECK_INT(s.last.drain_cut, 0);
    }
}

TEST(drain_cuts_those_that_wait) {
    enum { CLIENTS = 10 };
    struct client c[CLIENTS];
    begin(&(httpsrv_config){.reactors = 2, .timeout_ms.drain = 100});
    go(&s);
    stuff_pool();
    for (int round = 0; round < 2; round++) {
        queue_up(c, CLIENTS);
        httpsrv_stop(s.srv);
        CHECK_INT(httpsrv_join(s.srv), HTTPSRV_OK);
        for (int i = 0; i < CLIENTS; i++) {
            EXPECT_END(&c[i]);
            CHECK_INT(c[i].len, 0);
            hang_up(&c[i]);
        }
        CHECK_INT(metrics(&s).drain_cut, CLIENTS);
        CHECK_INT(metrics(&s).drain_stuck, 1);
        go(&s); // with the pool as full as it was
    }
    struct client after = dial_request("wait", 5);
    open_gate();
    expect_number(&after, 5);
    hang_up(&after);
    finish(&s);
    CHECK_INT(s.handled, 1);
}

TEST(free_while_requests_wait) {
    enum { CLIENTS = 10 };
    struct client c[CLIENTS];
    for (int reactors = 1; reactors <= 2; reactors++) {
        pthread_t opener;
        serve_overload(reactors);
        stuff_pool();
        queue_up(c, CLIENTS);
        pthread_create(&opener, NULL, open_gate_later, NULL);
        httpsrv_free(s.srv);
        CHECK_INT(ran, QUEUE);
        CHECK_INT(s.handled, 0);
        CHECK_INT(s.bytes, 0);
        CHECK_INT(s.blocks, 0);
        pthread_join(opener, NULL);
        for (int i = 0; i < CLIENTS; i++) {
            EXPECT_END(&c[i]);
            hang_up(&c[i]);
        }
    }
}

// ---- jobs ----

static uintptr_t job_thread;

static void note_thread(void *arg) {
    STORE(job_thread, (uintptr_t)pthread_self());
    count_job(arg);
}

TEST(jobs_run_in_their_pool) {
    begin(&(httpsrv_config){.pools = {[1] = {.name = "other", .threads = 1}}});
    httpsrv_route(s.srv, &(httpsrv_route_config){.pattern = "GET /d/:n", .handler = on_number, .pool = "default"});
    CHECK_INT(httpsrv_submit(s.srv, "default", count_job, &s), HTTPSRV_ARG); // until a route has named it in earnest
    go(&s);
    static const char *const names[] = {"work", "other", "default"};
    uintptr_t threads[ROWS(names)];
    for (size_t i = 0; i < ROWS(names); i++) {
        CHECK_INT(httpsrv_submit(s.srv, names[i], note_thread, &s), HTTPSRV_OK);
        WAIT(LOAD(ran) == (int)i + 1);
        threads[i] = LOAD(job_thread);
        CHECK(threads[i] != (uintptr_t)pthread_self());
        for (size_t k = 0; k < i; k++) {
            CHECK(threads[i] != threads[k]);
        }
    }
    CHECK_INT(metrics(&s).pool_jobs, ROWS(names));
    finish(&s);
}

TEST(jobs_that_are_refused) {
    begin(&(httpsrv_config){0});
    go(&s);
    CHECK_INT(httpsrv_submit(s.srv, "unheard-of", count_job, &s), HTTPSRV_ARG);
    CHECK_INT(httpsrv_submit(s.srv, "default", count_job, &s), HTTPSRV_ARG); // no route names it
    CHECK_INT(httpsrv_submit(s.srv, "", count_job, &s), HTTPSRV_ARG);
    CHECK_INT(httpsrv_submit(s.srv, "wor", count_job, &s), HTTPSRV_ARG);
    CHECK_INT(httpsrv_submit(s.srv, NULL, count_job, &s), HTTPSRV_ARG);
    CHECK_INT(httpsrv_submit(s.srv, "work", NULL, &s), HTTPSRV_ARG);
    CHECK_INT(httpsrv_submit(NULL, "work", count_job, &s), HTTPSRV_ARG);
    stuff_pool();
    for (int i = 0; i < 100; i++) {
        CHECK_INT(submit(count_job), HTTPSRV_FULL);
    }
    open_gate();
    WAIT(LOAD(ran) == QUEUE);
    CHECK_INT(submit(count_job), HTTPSRV_OK);
    finish(&s);
    CHECK_INT(ran, QUEUE + 1);
}

enum { JOBS = 4000, SUBMITTERS = 4 };

static int runs[SUBMITTERS * JOBS];

static void count_run(void *arg) {
    COUNT(*(int *)arg);
}

static void *submit_many(void *arg) {
    for (int *run = (int *)arg; run < (int *)arg + ROUNDS(JOBS); run++) {
        while (httpsrv_submit(s.srv, "work", count_run, run) == HTTPSRV_FULL) {
            sched_yield();
        }
    }
    return NULL;
}

// From many threads, and right before the end.
TEST(jobs_run_exactly_once) {
    for (int round = 0; round < 3; round++) {
        pthread_t threads[SUBMITTERS];
        memset(runs, 0, sizeof runs);
        prepare(&s, &(httpsrv_config){.pools = {{.name = "work", .threads = 1 + round, .queue = 64}}});
        go(&s);
        for (int i = 0; i < SUBMITTERS; i++) {
            pthread_create(&threads[i], NULL, submit_many, runs + (ptrdiff_t)i * ROUNDS(JOBS));
        }
        for (int i = 0; i < SUBMITTERS; i++) {
            pthread_join(threads[i], NULL);
        }
        httpsrv_free(s.srv); // runs what is still in the queue
        for (int i = 0; i < SUBMITTERS * ROUNDS(JOBS); i++) {
            if (runs[i] != 1) FAIL("job %d ran %d times", i, runs[i]);
        }
        CHECK_INT(s.bytes, 0);
    }
}

// A server that has not begun, or has ended, takes jobs all the same.
TEST(jobs_of_a_server_that_does_not_run) {
    for (int life = 0; life < 3; life++) {
        begin(&(httpsrv_config){0});
        NOTE("life %d", life);
        if (life == 0) CHECK_INT(submit(count_job), HTTPSRV_OK);
        if (life > 0) CHECK_INT(httpsrv_listen(s.srv), HTTPSRV_OK);
        if (life > 1) {
            httpsrv_stop(s.srv);
            CHECK_INT(httpsrv_run(s.srv), HTTPSRV_OK);
        }
        CHECK_INT(submit(count_job), HTTPSRV_OK);
        dispose(&s);
        CHECK_INT(ran, life == 0 ? 2 : 1);
    }
}

TEST(jobs_from_before_the_server_runs) {
    begin(&(httpsrv_config){0});
    CHECK_INT(submit(count_job), HTTPSRV_OK);
    go(&s);
    WAIT(LOAD(ran) == 1);
    finish(&s);
}

// Jobs that submit jobs, of their own and of the other pool, and ask for metrics, while the server is being freed.
static void submit_more(void *arg) {
    httpsrv_metrics m;
    count_job(arg);
    CHECK_INT(httpsrv_query_metrics(s.srv, &m), HTTPSRV_OK);
    if (LOAD(ran) > 400) return;
    CHECK_INT(httpsrv_submit(s.srv, "work", count_job, &s), HTTPSRV_OK);
    CHECK_INT(httpsrv_submit(s.srv, LOAD(ran) % 3 ? "work" : "other", submit_more, &s), HTTPSRV_OK);
}

static void hold_then_submit(void *arg) {
    hold(arg);
    submit_more(arg);
}

TEST(jobs_submit_jobs_while_the_server_is_freed) {
    static const char *const first[] = {"work", "other"};
    for (size_t i = 0; i < ROWS(first); i++) {
        pthread_t opener;
        ran = holding = 0;
        prepare(&s, &(httpsrv_config){.timeout_ms.drain = 20, .pools = {{"work", 1, 0}, {"other", 2, 0}}});
        go(&s);
        CHECK_INT(httpsrv_submit(s.srv, first[i], hold_then_submit, &s), HTTPSRV_OK);
        WAIT(LOAD(holding) == 1);
        httpsrv_stop(s.srv);
        CHECK_INT(httpsrv_join(s.srv), HTTPSRV_OK);
        pthread_create(&opener, NULL, open_gate_later, NULL);
        httpsrv_free(s.srv);
        pthread_join(opener, NULL);
        CHECK_CMP(ran, >, 400);
        CHECK_INT(s.bytes, 0);
        CHECK_INT(s.blocks, 0);
    }
}

// ---- what configurations may say ----

static const char *error_of(const httpsrv_config *config) {
    static char text[256];
    httpsrv_config c = *config;
    c.host = "127.0.0.1";
    httpsrv *srv = httpsrv_new(&c);
    CHECK(srv != NULL);
    CHECK_INT(httpsrv_listen(srv), HTTPSRV_ARG);
    snprintf(text, sizeof text, "%s", httpsrv_error(srv));
    httpsrv_free(srv);
    return text;
}

TEST(bad_pools) {
    static const char *const name32 = "12345678901234567890123456789012";
    CHECK_HAS(error_of(&(httpsrv_config){.pools = {{"a", -1, 0}}}), "threads");
    CHECK_HAS(error_of(&(httpsrv_config){.pools = {{"a", HTTPSRV_ZERO, 0}}}), "threads");
    CHECK_HAS(error_of(&(httpsrv_config){.pools = {{"a", 1000000, 0}}}), "threads");
    CHECK_HAS(error_of(&(httpsrv_config){.pools = {{"a", 1, -1}}}), "queue");
    CHECK_HAS(error_of(&(httpsrv_config){.pools = {{"a", 1, HTTPSRV_ZERO}}}), "queue");
    CHECK_HAS(error_of(&(httpsrv_config){.pools = {{"a", 1, INT_MAX}}}), "queue");
    CHECK_HAS(error_of(&(httpsrv_config){.pools = {{"", 1, 1}}}), "name");
    CHECK_HAS(error_of(&(httpsrv_config){.pools = {{name32, 1, 1}}}), "name");
    CHECK_HAS(error_of(&(httpsrv_config){.pools = {{"a", 1, 1}, {"b", 1, 1}, {"a", 1, 1}}}), "\"a\"");
}

TEST(bad_policies) {
    static const int bad[] = {-1, 3, 1000, INT_MAX, INT_MIN};
    for (size_t i = 0; i < ROWS(bad); i++) {
        httpsrv *srv = httpsrv_new(&(httpsrv_config){.host = "127.0.0.1"});
        httpsrv_route_config config = {.pattern = "GET /here", .handler = on_number, .pool = "default"};
        NOTE("%d", bad[i]);
        memcpy(&config.overload, &bad[i], sizeof config.overload);
        CHECK_INT(httpsrv_route(srv, &config), HTTPSRV_ARG);
        CHECK_INT(httpsrv_listen(srv), HTTPSRV_ARG);
        CHECK_HAS(httpsrv_error(srv), "GET /here");
        httpsrv_free(srv);
    }
}

TEST(queues_are_rounded_up) {
    static const int rows[][2] = {{1, 2}, {2, 2}, {3, 4}, {4, 4}, {5, 8}};
    for (size_t i = 0; i < ROWS(rows); i++) {
        int accepted = 0;
        holding = ran = 0;
        NOTE("queue %d", rows[i][0]);
        prepare(&s, &(httpsrv_config){.pools = {{.name = "work", .threads = 1, .queue = rows[i][0]}}});
        go(&s);
        CHECK_INT(submit(hold), HTTPSRV_OK);
        WAIT(LOAD(holding) == 1);
        while (submit(count_job) == HTTPSRV_OK) {
            accepted++;
        }
        CHECK_INT(accepted, rows[i][1]);
        open_gate();
        finish(&s);
        CHECK_INT(ran, accepted);
    }
}

// ---- the budget of memory ----

// Books of an allocator that has all there is.
static size_t handed_out;

static void *generous_realloc(void *user, void *ptr, size_t old_size, size_t new_size) {
    (void)user;
    handed_out += new_size - old_size;
    if (new_size > 0) return realloc(ptr, new_size);
    free(ptr);
    return NULL;
}

TEST(budget_to_the_byte) {
    hsrv_memory memory;
    hsrv_memory_init(&memory, generous_realloc, NULL);
    memory.most = 1000;
    char *a = (char *)hsrv_memory_take(&memory, 600), *b;
    CHECK(a != NULL);
    CHECK(hsrv_memory_take(&memory, 401) == NULL);
    CHECK_INT(memory.used, 600);
    b = (char *)hsrv_memory_take(&memory, 400);
    CHECK(b != NULL);
    CHECK(hsrv_memory_take(&memory, 1) == NULL);
    CHECK(hsrv_memory_resize(&memory, b, 400, 401) == NULL);
    CHECK_INT(memory.used, 1000);
    b = (char *)hsrv_memory_resize(&memory, b, 400, 100); // never refused
    CHECK(b != NULL);
    CHECK_INT(memory.used, 700);
    CHECK(hsrv_memory_resize(&memory, a, 600, 901) == NULL);
    a = (char *)hsrv_memory_resize(&memory, a, 600, 900);
    CHECK(a != NULL);
    CHECK_INT(memory.used, 1000);
    CHECK_INT(handed_out, memory.used);
    hsrv_memory_give(&memory, a, 900);
    hsrv_memory_give(&memory, b, 100);
    CHECK_INT(memory.used, 0);
    CHECK_INT(handed_out, 0);
}

// Takes so much memory that nothing else comes near it.
static void on_take(httpsrv_req *req, void *user) {
    (void)user;
    if (httpsrv_alloc(req, 1000000))
        httpsrv_reply(req, 200, NULL, HTTPSRV_STR("taken"));
    else
        httpsrv_reply(req, 503, NULL, HTTPSRV_STR("none left"));
}

// Status of such a request, to a server that has so much.
static int status_within(int64_t budget) {
    begin(&(httpsrv_config){.max.memory = budget});
    CHECK_INT(httpsrv_on(s.srv, "GET /take", on_take, &s), HTTPSRV_OK);
    go(&s);
    NOTE("budget %lld", (long long)budget);
    struct client c = dial(s.port);
    GET(&c, "/take");
    REPLY(&c);
    const int status = c.status;
    GET(&c, "/hello"); // that much is always there
    EXPECT(&c, 200, HELLO);
    hang_up(&c);
    finish(&s);
    return status;
}

TEST(budget_of_a_server_to_the_byte) {
    CHECK_INT(status_within(-1), 200);
    const int64_t most = (int64_t)s.peak;
    CHECK_INT(status_within(most), 200);
    CHECK_INT(s.peak, most);
    CHECK_INT(status_within(most - 1), 503);
    CHECK_CMP(s.peak, <, most);
    CHECK_INT(status_within(INT64_MAX), 200);
}

// Whether a request was taken, to be answered later; else it is refused.
static bool ask_to_keep(struct client *c) {
    const int before = LOAD(s.arrived);
    *c = dial(s.port);
    SEND(c, "POST /keep/1 HTTP/1.1\r\nHost: a\r\nContent-Length: 20000\r\n\r\n");
    net_send(c, blob, 20000);
    while (LOAD(s.arrived) == before && !net_poll(c->fd, POLLIN, test_now() + 1)) {
        continue;
    }
    if (LOAD(s.arrived) > before) return true;
    EXPECT(c, 503, NULL);
    CHECK(field(c, "Retry-After") != NULL);
    net_reset(c);
    return false;
}

// Requests are refused while memory is short, and served again when it is back.
TEST(budget_that_is_used_up) {
    enum { BUDGET = 700000 };
    const httpsrv_answer answer = {.status = 200, .body = HTTPSRV_STR("kept")};
    struct client c[KEEPERS];
    begin(&(httpsrv_config){.max.memory = BUDGET});
    route("POST /keep/:n", on_keep, HTTPSRV_OVERLOAD_WAIT);
    go(&s);
    for (int round = 0; round < 3; round++) {
        const int since = LOAD(s.arrived);
        int taken = 0;
        for (int i = 0; i < KEEPERS; i++) {
            taken += ask_to_keep(&c[i]);
        }
        CHECK_CMP(taken, >=, 5);
        CHECK_CMP(taken, <=, KEEPERS - 5);
        net_reset(&c[0]); // what it held is enough to answer the others
        WAIT(metrics(&s).connections == (uint64_t)taken - 1);
        for (int i = since; i < LOAD(s.arrived); i++) {
            const httpsrv_result result = httpsrv_finish(s.srv, kept_token(i), &answer);
            CHECK_INT(result, i == since ? HTTPSRV_GONE : HTTPSRV_OK);
        }
        for (int i = 0; i < KEEPERS; i++) {
            if (c[i].fd >= 0) EXPECT(&c[i], 200, "kept");
            hang_up(&c[i]);
        }
        for (int i = 0; i < 20; i++) {
            check_alive(&s);
        }
    }
    finish(&s);
    CHECK_CMP(s.peak, <=, BUDGET);
    CHECK_CMP(s.last.items[HTTPSRV_LOG_NO_MEMORY], >, 0);
}

// NOMEM or nothing at all, at any budget that is too small for the server itself; and nothing is lost.
TEST(budget_that_is_too_small) {
    bool listens = false;
    for (int64_t budget = 1; !listens; budget += budget / 7 + 1) {
        NOTE("budget %lld", (long long)budget);
        memset(&s, 0, sizeof s);
        httpsrv_config config = {.host = "127.0.0.1", .max.memory = budget, .pools = {{"work", 1, 2}}};
        config.allocator.fn = counting_realloc;
        config.allocator.user = &s;
        httpsrv *srv = httpsrv_new(&config);
        if (srv) {
            httpsrv_on(srv, "GET /hello", on_hello, &s);
            const httpsrv_result result = httpsrv_listen(srv);
            CHECK(result == HTTPSRV_OK || result == HTTPSRV_NOMEM);
            listens = result == HTTPSRV_OK;
        }
        // Before the configuration is read, the server's own struct is taken.
        CHECK_CMP(s.peak, <=, budget > (int64_t)sizeof(httpsrv) ? budget : (int64_t)sizeof(httpsrv));
        httpsrv_free(srv);
        CHECK_INT(s.bytes, 0);
        CHECK_CMP(budget, <, 10000000);
    }
}

TEST(budget_of_nothing) {
    CHECK(httpsrv_new(&(httpsrv_config){.max.memory = HTTPSRV_ZERO}) == NULL);
}
