// The pool path and its races; also built with ThreadSanitizer.

#define HTTPSRV_IMPLEMENTATION
#include "../httpsrv.h"

#include "server.h"
#include <pthread.h>

#define GATE "GET /pool/gate HTTP/1.1\r\nHost: a\r\n\r\n"

static struct server s;

// Each common route inline, and by workers below /pool.
static void serve_pool(int reactors, int threads, int queue, int drain) {
    prepare(&s, &(httpsrv_config){.reactors = reactors,
                                  .timeout_ms.drain = drain,
                                  .pools = {{.name = "work", .threads = threads, .queue = queue}}});
    route_all(&s, "", NULL);
    route_all(&s, "/pool", "work");
    go(&s);
}

static void open_gate(void) {
    STORE(s.gate, 1);
}

TEST(hello_by_a_worker) {
    serve_pool(1, 2, 0, 0);
    struct client c = dial(s.port);
    for (int i = 0; i < 500; i++) {
        GET(&c, "/pool/hello");
        EXPECT(&c, 200, HELLO);
        CHECK_STR(field(&c, "Content-Type"), "text/plain");
    }
    CHECK_INT(metrics(&s).pool_jobs, 500);
    hang_up(&c);
    finish(&s);
}

TEST(implicit_pool) {
    prepare(&s, &(httpsrv_config){0});
    route_all(&s, "", "default");
    go(&s);
    check_alive(&s);
    finish(&s);
}

TEST(default_pool_configured) {
    prepare(&s, &(httpsrv_config){.pools = {{.name = "default", .threads = 1, .queue = 2}}});
    route_all(&s, "", "default");
    go(&s);
    check_alive(&s);
    finish(&s);
}

TEST(unknown_pool) {
    prepare(&s, &(httpsrv_config){.pools = {{.name = "known", .threads = 1}}});
    httpsrv_route(s.srv, &(httpsrv_route_config){.pattern = "GET /x", .handler = on_hello, .pool = "unheard-of"});
    CHECK_INT(httpsrv_listen(s.srv), HTTPSRV_ROUTE);
    CHECK_HAS(httpsrv_error(s.srv), "unheard-of");
    dispose(&s);
}

// One worker is held, two jobs wait, the next is refused at once; all others are served.
TEST(pool_full) {
    struct client held, waiting[2], refused;
    serve_pool(1, 1, 2, 0);
    held = dial(s.port);
    SEND(&held, GATE);
    WAIT(LOAD(s.arrived) == 1);
    for (int i = 0; i < 2; i++) {
        waiting[i] = dial(s.port);
        GET(&waiting[i], "/pool/hello");
        WAIT(metrics(&s).requests == 2 + (uint64_t)i);
    }
    refused = dial(s.port);
    for (int i = 0; i < 3; i++) {
        GET(&refused, "/pool/hello");
        EXPECT(&refused, 503, NULL);
        CHECK(field(&refused, "Retry-After") != NULL);
        CHECK(!refused.close); // the connection lives on, and inline routes with it
        GET(&refused, "/hello");
        EXPECT(&refused, 200, HELLO);
    }
    CHECK_INT(metrics(&s).items[HTTPSRV_LOG_QUEUE_FULL], 3);
    open_gate();
    REPLY(&held);
    check_blob(&held, 100);
    for (int i = 0; i < 2; i++)
        EXPECT(&waiting[i], 200, HELLO);
    GET(&refused, "/pool/hello");
    EXPECT(&refused, 200, HELLO);
    hang_up_all(waiting, 2);
    hang_up(&held);
    hang_up(&refused);
    finish(&s);
    CHECK_INT(s.last.pool_jobs, 4);
}

TEST(a_stuffed_pool_hinders_no_other) {
    struct client held[3], c;
    prepare(&s,
            &(httpsrv_config){.pools = {{.name = "slow", .threads = 1, .queue = 2}, {.name = "quick", .threads = 1}}});
    route_all(&s, "/pool", "slow");
    route_all(&s, "", "quick");
    go(&s);
    for (int i = 0; i < 3; i++) {
        held[i] = dial(s.port);
        SEND(&held[i], GATE);
        WAIT(metrics(&s).requests == 1 + (uint64_t)i);
    }
    c = dial(s.port);
    for (int i = 0; i < 100; i++) {
        GET(&c, "/hello");
        EXPECT(&c, 200, HELLO);
    }
    open_gate();
    for (int i = 0; i < 3; i++) {
        REPLY(&held[i]);
        hang_up(&held[i]);
    }
    hang_up(&c);
    finish(&s);
}

// ---- order ----

static uint32_t random_state = 1;

static uint32_t random_next(uint32_t bound) {
    random_state = random_state * 1664525 + 1013904223;
    return (random_state >> 8) % bound;
}

enum { KIND_INLINE, KIND_POOL, KIND_ECHO, KIND_CHUNKED, KIND_BIG, KIND_BORROW, KIND_SLEEP, KIND_NOWHERE, KINDS };

static void send_kind(struct client *c, int kind, int id) {
    static const char *const formats[KINDS] = {
        "GET /dump/%d/x HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /pool/dump/%d/x HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /pool/echo?%d HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\n%08d",
        "POST /pool/echo?%d HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n%08d\r\n0\r\n\r\n",
        "GET /pool/big/%d HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /borrow/%d HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /pool/sleep/1?%d HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /nowhere/%d HTTP/1.1\r\nHost: a\r\n\r\n",
    };
    char text[256];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    int len = snprintf(text, sizeof text, formats[kind], id, id);
#pragma GCC diagnostic pop
    net_send(c, text, (size_t)len);
}

static void expect_kind(struct client *c, int kind, int id) {
    char body[200];
    if (kind == KIND_INLINE || kind == KIND_POOL) {
        const char *prefix = kind == KIND_POOL ? "/pool" : "";
        snprintf(body, sizeof body, "GET %s/dump/%d/x %s/dump/%d/x host=a a=%d rest=x q= x= body=", prefix, id, prefix,
                 id, id);
        EXPECT(c, 200, body);
    } else if (kind == KIND_ECHO || kind == KIND_CHUNKED) {
        snprintf(body, sizeof body, "%08d", id);
        EXPECT(c, 200, body);
    } else if (kind == KIND_BIG || kind == KIND_BORROW) {
        REPLY(c);
        check_blob(c, (size_t)id);
    } else {
        EXPECT(c, kind == KIND_SLEEP ? 200 : 404, NULL);
    }
}

TEST(mixed_pipelines_keep_their_order) {
    enum { DEPTH = 40, ROUNDS = 60 };
    serve_pool(1, 3, 0, 0);
    struct client c = dial(s.port);
    for (int round = 0; round < ROUNDS; round++) {
        int kinds[DEPTH], ids[DEPTH];
        for (int i = 0; i < DEPTH; i++) {
            kinds[i] = (int)random_next(KINDS);
            ids[i] = (int)random_next(random_next(8) ? 5000 : 60000);
            send_kind(&c, kinds[i], ids[i]);
        }
        for (int i = 0; i < DEPTH; i++) {
            NOTE("round %d, request %d of kind %d, id %d", round, i, kinds[i], ids[i]);
            expect_kind(&c, kinds[i], ids[i]);
        }
    }
    hang_up(&c);
    finish(&s);
    CHECK_INT(s.last.requests, DEPTH * ROUNDS);
}

// ---- many ----

enum { CLIENT_THREADS = 4, PER_THREAD = 50, REQUESTS = 40 };

static void *client_thread(void *arg) {
    struct client *c = (struct client *)arg;
    for (int round = 0; round < REQUESTS; round++) {
        for (int i = 0; i < PER_THREAD; i++)
            send_kind(&c[i], (round + i) % KINDS, round * 100 + i);
        for (int i = 0; i < PER_THREAD; i++)
            expect_kind(&c[i], (round + i) % KINDS, round * 100 + i);
    }
    return NULL;
}

TEST(many_connections) {
    static struct client c[CLIENT_THREADS][PER_THREAD];
    pthread_t threads[CLIENT_THREADS];
    serve_pool(2, 3, 0, 0);
    for (int t = 0; t < CLIENT_THREADS; t++) {
        for (int i = 0; i < PER_THREAD; i++)
            c[t][i] = dial(s.port);
        pthread_create(&threads[t], NULL, client_thread, c[t]);
    }
    for (int t = 0; t < CLIENT_THREADS; t++) {
        pthread_join(threads[t], NULL);
        for (int i = 0; i < PER_THREAD; i++)
            hang_up(&c[t][i]);
    }
    finish(&s);
    CHECK_INT(s.last.requests, CLIENT_THREADS * PER_THREAD * REQUESTS);
    CHECK_INT(s.last.answers[0], s.last.requests);
}

// ---- what workers read and write ----

TEST(answers_of_all_sizes) {
    static const size_t sizes[] = {0, 1, 100, 1900, 2048, 2049, 4096, 65535, 65536, 65537, 1 << 20, 4 << 20};
    serve_pool(1, 2, 0, 0);
    struct client c = dial(s.port);
    for (size_t i = 0; i < ROWS(sizes) * 2; i++) {
        NOTE("%zu bytes, %s", sizes[i / 2], i % 2 ? "borrowed" : "copied");
        SENDF(&c, "GET /pool/%s/%zu HTTP/1.1\r\nHost: a\r\n\r\n", i % 2 ? "borrow" : "big", sizes[i / 2]);
        REPLY(&c);
        check_blob(&c, sizes[i / 2]);
        SENDF(&c, "HEAD /pool/%s/%zu HTTP/1.1\r\nHost: a\r\n\r\n", i % 2 ? "borrow" : "big", sizes[i / 2]);
        REPLY_HEAD(&c);
        CHECK_INT(c.length, sizes[i / 2]);
    }
    hang_up(&c);
    finish(&s);
}

static void on_many_fields(httpsrv_req *req, void *user) {
    httpsrv_field own[2] = {{HTTPSRV_STR("X-Own"), HTTPSRV_STR("a")}, {HTTPSRV_STR("X-Own"), HTTPSRV_STR("b")}};
    httpsrv_answer answer = {.status = 201, .type = "text/x", .body = blob_view(5), .fields = own, .num_fields = 2};
    (void)user;
    for (int i = 0; i < 20; i++) {
        char name[20], value[200];
        memset(value, 'a' + i, sizeof value);
        snprintf(name, sizeof name, "X-%d", i);
        CHECK_INT(httpsrv_set(req, name, HTTPSRV_STR("replaced")), HTTPSRV_OK);
        CHECK_INT(httpsrv_set(req, name, (httpsrv_str){value, sizeof value}), HTTPSRV_OK);
        memset(value, 'z', sizeof value); // it was copied
        CHECK_INT(httpsrv_add(req, "Set-Cookie", (httpsrv_str){name, strlen(name)}), HTTPSRV_OK);
    }
    CHECK_INT(httpsrv_set(req, "X-Bad", HTTPSRV_STR("a\r\nb")), HTTPSRV_ARG);
    CHECK_INT(httpsrv_reply_with(req, &answer), HTTPSRV_OK);
}

TEST(fields_set_by_workers) {
    prepare(&s, &(httpsrv_config){0});
    httpsrv_route(s.srv,
                  &(httpsrv_route_config){.pattern = "GET /fields", .handler = on_many_fields, .pool = "default"});
    go(&s);
    struct client c = dial(s.port);
    for (int round = 0; round < 20; round++) {
        GET(&c, "/fields");
        EXPECT(&c, 201, NULL);
        CHECK_INT(c.body_len, 5);
        CHECK_INT(count_fields(&c, "X-Own"), 2);
        CHECK_INT(count_fields(&c, "Set-Cookie"), 20);
        for (int i = 0; i < 20; i++) {
            char name[20], value[201];
            snprintf(name, sizeof name, "X-%d", i);
            memset(value, 'a' + i, 200);
            value[200] = 0;
            CHECK_STR(field(&c, name), value);
        }
    }
    hang_up(&c);
    finish(&s);
}

TEST(exactly_one_answer_by_workers) {
    serve_pool(1, 2, 0, 0);
    struct client c = dial(s.port);
    for (int i = 0; i < 20; i++) {
        GET(&c, "/pool/twice");
        EXPECT(&c, 200, "first");
        GET(&c, "/pool/never");
        EXPECT(&c, 500, NULL);
    }
    hang_up(&c);
    finish(&s);
    CHECK_INT(s.last.items[HTTPSRV_LOG_NO_ANSWER], 20);
}

static void send_chunked(struct client *c, size_t size) {
    SEND(c, "POST /pool/echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (size_t at = 0, n; at < size; at += n) {
        n = 1 + random_next(30000);
        if (n > size - at) n = size - at;
        SENDF(c, "%zx;x=y\r\n", n);
        net_send(c, blob + at, n);
        SEND(c, "\r\n");
    }
    SEND(c, "0\r\nX-Trailer: 1\r\n\r\n");
}

TEST(bodies_to_workers) {
    static const size_t sizes[] = {0, 1, 500, 2048, 65536, 300000, 1 << 20};
    serve_pool(1, 2, 0, 0);
    struct client c = dial(s.port);
    for (size_t i = 0; i < ROWS(sizes); i++) {
        NOTE("%zu bytes", sizes[i]);
        SENDF(&c, "POST /pool/echo HTTP/1.1\r\nHost: a\r\nContent-Length: %zu\r\n\r\n", sizes[i]);
        net_send_split(&c, blob, sizes[i], sizes[i] < 10 ? 1 : sizes[i] / 10);
        REPLY(&c);
        check_blob(&c, sizes[i]);
        send_chunked(&c, sizes[i]);
        REPLY(&c);
        check_blob(&c, sizes[i]);
    }
    hang_up(&c);
    finish(&s);
}

// All views of a request stay as they were while other requests flow through the reactor's buffers.
TEST(views_in_workers) {
    enum { CLIENTS = 8 };
    struct client c[CLIENTS];
    serve_pool(1, 4, 0, 0);
    for (int i = 0; i < CLIENTS; i++)
        c[i] = dial(s.port);
    for (int round = 0; round < 50; round++) {
        for (int i = 0; i < CLIENTS; i++)
            SENDF(&c[i],
                  "PUT /pool/dump/%%61%d/r%%20%d/../s%d?q=%d+%%41 HTTP/1.1\r\nHost: h%d\r\nX-Test: t%d\r\n"
                  "Content-Length: 6\r\n\r\n%06d",
                  i, i, round, i, i, i, round);
        for (int i = 0; i < CLIENTS; i++) {
            char body[300];
            snprintf(body, sizeof body,
                     "PUT /pool/dump/%%61%d/r%%20%d/../s%d?q=%d+%%41 /pool/dump/a%d/s%d host=h%d a=a%d "
                     "rest=s%d q=%d A x=t%d "
                     "body=%06d",
                     i, i, round, i, i, round, i, i, round, i, i, round);
            EXPECT(&c[i], 200, body);
        }
    }
    hang_up_all(c, CLIENTS);
    finish(&s);
}

// ---- clients that leave ----

TEST(client_resets_while_a_worker_holds_the_request) {
    serve_pool(1, 2, 0, 0);
    struct client c = dial(s.port), d = dial(s.port);
    SEND(&c, GATE);
    SEND(&d, GATE);
    WAIT(LOAD(s.arrived) == 2);
    CHECK_INT(LOAD(s.gone), 0);
    net_reset(&c);
    WAIT(LOAD(s.gone) == 1); // the worker sees it
    GET(&d, "/hello");       // pipelined behind the one that is held
    open_gate();
    REPLY(&d);
    check_blob(&d, 100);
    EXPECT(&d, 200, HELLO);
    hang_up(&d);
    WAIT(LOAD(s.left) == 2 && LOAD(s.released) == 2);
    WAIT(metrics(&s).connections == 0);
    CHECK_CMP(metrics(&s).items[HTTPSRV_LOG_CLIENT_GONE], >=, 1);
    finish(&s);
}

TEST(client_half_closes_while_a_worker_holds_the_request) {
    serve_pool(1, 1, 0, 0);
    struct client c = dial(s.port);
    SEND(&c, GATE);
    WAIT(LOAD(s.arrived) == 1);
    half_close(&c);
    test_sleep(50);
    CHECK_INT(LOAD(s.gone), 0); // it waits for its answer
    open_gate();
    REPLY(&c);
    check_blob(&c, 100);
    EXPECT_EOF(&c);
    hang_up(&c);
    finish(&s);
}

// Clients come, ask and leave in every way while workers are at it.
TEST(clients_that_leave) {
    serve_pool(2, 2, 0, 0);
    for (int i = 0; i < 300; i++) {
        static const char *const targets[] = {"/pool/sleep/1", "/pool/borrow/300000", "/pool/big/100000",
                                              "/pool/hello"};
        struct client c = dial(s.port);
        for (uint32_t n = 1 + random_next(3); n > 0; n--)
            GET(&c, targets[random_next(4)]);
        if (random_next(2)) test_sleep((int)random_next(3));
        switch (random_next(4)) {
        case 0: net_reset(&c); break;
        case 1:
            half_close(&c);
            EXPECT_END(&c);
            break;
        case 2: net_need(&c, 1); break;
        default: break;
        }
        hang_up(&c);
    }
    WAIT(metrics(&s).connections == 0);
    WAIT(LOAD(s.released) == LOAD(s.borrowed));
    check_alive(&s);
    finish(&s);
}

// ---- the end ----

TEST(drain_waits_for_workers) {
    serve_pool(1, 1, 0, 0);
    struct client c = dial(s.port), queued = dial(s.port);
    SEND(&c, GATE);
    WAIT(LOAD(s.arrived) == 1);
    GET(&queued, "/pool/hello");
    WAIT(metrics(&s).requests == 2);
    httpsrv_stop(s.srv);
    EXPECT_SILENCE(&c, 50);
    open_gate();
    REPLY(&c);
    check_blob(&c, 100);
    CHECK(c.close);
    EXPECT_EOF(&c);
    EXPECT(&queued, 200, HELLO); // what waits in the queue is finished too
    EXPECT_EOF(&queued);
    hang_up(&c);
    hang_up(&queued);
    CHECK_INT(httpsrv_join(s.srv), HTTPSRV_OK);
    dispose(&s);
    CHECK_INT(s.last.drain_finished, 2);
    CHECK_INT(s.last.drain_cut, 0);
    CHECK_INT(s.last.drain_stuck, 0);
}

static void *open_gate_later(void *arg) {
    (void)arg;
    test_sleep(200);
    open_gate();
    return NULL;
}

TEST(stuck_worker) {
    pthread_t thread;
    serve_pool(1, 1, 0, test_ms(150));
    struct client c = dial(s.port);
    SEND(&c, GATE);
    WAIT(LOAD(s.arrived) == 1);
    httpsrv_stop(s.srv);
    CHECK_INT(httpsrv_join(s.srv), HTTPSRV_OK); // at the deadline, without the worker
    EXPECT_END(&c);
    CHECK_INT(c.len - c.at, 0);
    hang_up(&c);
    CHECK_INT(LOAD(s.left), 0);
    CHECK_INT(metrics(&s).drain_stuck, 1);
    CHECK_INT(metrics(&s).drain_cut, 1);
    pthread_create(&thread, NULL, open_gate_later, NULL);
    httpsrv_free(s.srv); // waits
    CHECK_INT(LOAD(s.left), 1);
    CHECK_INT(s.released, s.borrowed);
    CHECK_INT(s.bytes, 0);
    CHECK_INT(s.blocks, 0);
    pthread_join(thread, NULL);
}

TEST(stop_and_start) {
    prepare(&s, &(httpsrv_config){.reactors = 2, .pools = {{.name = "work", .threads = 2, .queue = 4}}});
    route_all(&s, "", NULL);
    route_all(&s, "/pool", "work");
    for (int i = 0; i < 30; i++) {
        go(&s);
        if (i % 3) {
            struct client c = dial(s.port);
            GET(&c, i % 3 == 1 ? "/pool/hello" : "/pool/borrow/50000");
            if (i % 2) REPLY(&c);
            hang_up(&c);
        }
        httpsrv_stop(s.srv);
        if (i % 4 == 0) httpsrv_stop(s.srv);
        CHECK_INT(httpsrv_join(s.srv), HTTPSRV_OK);
    }
    dispose(&s);
}

static bool ask_once_more(struct client *c) {
    static const char request[] = "GET /pool/hello HTTP/1.1\r\nHost: a\r\n\r\n";
    if (net_send_some(c, request, strlen(request), net_deadline()) < strlen(request)) return false;
    while (c->len - c->at < 4)
        if (!net_receive(c, net_deadline())) return false;
    net_reply(c, false);
    CHECK_INT(c->status, 200);
    CHECK_MEM(c->body, c->body_len, HELLO, strlen(HELLO));
    return !c->close;
}

static void *ask_until_closed(void *arg) {
    while (ask_once_more((struct client *)arg))
        continue;
    hang_up((struct client *)arg);
    return NULL;
}

// Stops come in the middle of traffic: each answer that begins is whole.
TEST(stop_under_load) {
    for (int round = 0; round < 10; round++) {
        struct client c[4];
        pthread_t threads[4];
        serve_pool(2, 2, 0, 0);
        for (int i = 0; i < 4; i++) {
            c[i] = dial(s.port);
            pthread_create(&threads[i], NULL, ask_until_closed, &c[i]);
        }
        test_sleep(10 + round * 3);
        httpsrv_stop(s.srv);
        CHECK_INT(httpsrv_join(s.srv), HTTPSRV_OK);
        for (int i = 0; i < 4; i++)
            pthread_join(threads[i], NULL);
        dispose(&s);
        CHECK_INT(s.last.drain_cut, 0);
    }
}
