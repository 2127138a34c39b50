// Servers for tests: started in-process on a free port, with common routes, an allocator that counts, checks
// sizes and knows of leaks, a logger that counts, and gates that hold a handler until the test lets it go.
// Include it after httpsrv.h with HTTPSRV_IMPLEMENTATION.
//
//     static struct server s;
//     serve(&s, &(httpsrv_config){.reactors = 2});       // or prepare, httpsrv_on, go
//     ... dial(s.port) ...
//     finish(&s);                                        // stops, joins, frees; a leak fails the test

#ifndef TEST_SERVER_H
#define TEST_SERVER_H

#include "net.h"
#include "test.h"
#include <pthread.h>
#include <sys/eventfd.h>

#define BLOB_BYTES (8 << 20)
#define HELLO      "Hello, World!\n" // what /hello says
#define NEXT       "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n"

struct server {
    httpsrv *srv;
    int port;
    httpsrv_metrics last; // as of finish, before the server is freed
    // below: atomics, touched by any thread
    size_t bytes, peak, blocks, allocations;
    uint64_t logged[HTTPSRV_LOG_COUNT];
    int borrowed, released; // bodies lent with a release function
    int arrived, left;      // handlers that have come to the gate, and gone through it
    int gate;               // 1: open
    int gone;               // handlers at the gate that have seen their client go
    int handled;            // calls of handlers that count
    int failing_at, asked;  // the allocation that fails, from 1, and how many there have been since that was set
    // below: where the test turns the loop itself
    bool polled;
    pthread_t host;
    int host_leaves; // eventfd that makes the host end without a drain
};

static char blob[BLOB_BYTES]; // what /big and /borrow send a piece of

#define LOAD(x)         __atomic_load_n(&(x), __ATOMIC_ACQUIRE)
#define STORE(x, value) __atomic_store_n(&(x), (value), __ATOMIC_RELEASE)
#define COUNT(x)        ((void)__atomic_add_fetch(&(x), 1, __ATOMIC_ACQ_REL))

// A test that is run in those of the file's `ways` for which the condition holds, each of which is `way` then.
#define TEST_WAYS(id, condition)                           \
    static void id##_this_way(void);                       \
    TEST(id) {                                             \
        for (way = ways; way < ways + ROWS(ways); way++) { \
            if (condition) id##_this_way();                \
        }                                                  \
    }                                                      \
    static void id##_this_way(void)

// ---- allocator: each block is preceded by its size ----

#define BLOCK_HEAD 16

TEST_FN void counting_size(struct server *s, size_t old_size, size_t new_size) {
    size_t now = __atomic_add_fetch(&s->bytes, new_size - old_size, __ATOMIC_ACQ_REL), peak = LOAD(s->peak);
    while (now > peak && now < SIZE_MAX / 2 &&
           !__atomic_compare_exchange_n(&s->peak, &peak, now, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
        continue;
}

TEST_FN void *counting_free(struct server *s, char *block, size_t old_size) {
    if (!block) return NULL;
    counting_size(s, old_size, 0);
    __atomic_sub_fetch(&s->blocks, 1, __ATOMIC_ACQ_REL);
    memset(block, 0xdd, BLOCK_HEAD + old_size);
    free(block);
    return NULL;
}

TEST_FN bool allocation_fails(struct server *s) {
    const int at = LOAD(s->failing_at);
    return at > 0 && __atomic_add_fetch(&s->asked, 1, __ATOMIC_ACQ_REL) == at;
}

TEST_FN void *counting_realloc(void *user, void *ptr, size_t old_size, size_t new_size) {
    struct server *s = (struct server *)user;
    char *block = ptr ? (char *)ptr - BLOCK_HEAD : NULL, *fresh;
    size_t kept = 0;
    if (block) memcpy(&kept, block, sizeof kept);
    if (old_size != kept) FAIL("allocator: old_size %zu of a block of %zu bytes", old_size, kept);
    if (new_size == 0) return counting_free(s, block, old_size);
    if (allocation_fails(s)) return NULL;
    fresh = (char *)realloc(block, BLOCK_HEAD + new_size);
    if (!fresh) return NULL;
    memcpy(fresh, &new_size, sizeof new_size);
    if (!block) COUNT(s->blocks);
    COUNT(s->allocations);
    counting_size(s, old_size, new_size);
    return fresh + BLOCK_HEAD;
}

TEST_FN void counting_logger(const httpsrv_log *record, void *user) {
    struct server *s = (struct server *)user;
    if (record->item <= HTTPSRV_LOG_NONE || record->item >= HTTPSRV_LOG_COUNT) FAIL("log item %d", (int)record->item);
    if (strcmp(record->text, httpsrv_log_text(record->item)) != 0) FAIL("text of log item: %s", record->text);
    COUNT(s->logged[record->item]);
}

// ---- handlers; user is the struct server ----

TEST_FN size_t number_param(const httpsrv_req *req, const char *name) {
    httpsrv_str text = httpsrv_param(req, name);
    size_t n = 0;
    for (size_t i = 0; i < text.len; i++)
        n = n * 10 + (size_t)(text.ptr[i] - '0');
    return n;
}

TEST_FN httpsrv_str blob_view(size_t len) {
    httpsrv_str view = {blob, len < BLOB_BYTES ? len : BLOB_BYTES};
    return view;
}

TEST_FN void on_hello(httpsrv_req *req, void *user) {
    httpsrv_result result = httpsrv_reply(req, 200, "text/plain", HTTPSRV_STR(HELLO));
    COUNT(((struct server *)user)->handled);
    CHECK(result == HTTPSRV_OK || result == HTTPSRV_GONE);
}

TEST_FN void on_echo(httpsrv_req *req, void *user) {
    httpsrv_str type = httpsrv_header(req, "Content-Type");
    char *copy = (char *)httpsrv_alloc(req, type.len + 1);
    COUNT(((struct server *)user)->handled);
    CHECK(copy != NULL);
    if (type.len) memcpy(copy, type.ptr, type.len);
    copy[type.len] = 0;
    httpsrv_reply(req, 200, type.ptr ? copy : NULL, httpsrv_body(req));
}

// What the request looks like from inside.
TEST_FN void on_dump(httpsrv_req *req, void *user) {
    httpsrv_str method = httpsrv_method(req), path = httpsrv_path(req), a = httpsrv_param(req, "a");
    httpsrv_str rest = httpsrv_param(req, "rest"), q = httpsrv_query(req, "q"), x = httpsrv_header(req, "x-test");
    httpsrv_str body = httpsrv_body(req), target = httpsrv_target(req), host = httpsrv_host(req);
    CHECK(httpsrv_server(req) == ((struct server *)user)->srv);
    CHECK_VIEW(httpsrv_peer(req), "127.0.0.1");
    httpsrv_replyf(req, 200, "text/plain", "%.*s %.*s %.*s host=%.*s a=%.*s rest=%.*s q=%.*s x=%.*s body=%.*s",
                   HTTPSRV_FMT(method), HTTPSRV_FMT(target), HTTPSRV_FMT(path), HTTPSRV_FMT(host), HTTPSRV_FMT(a),
                   HTTPSRV_FMT(rest), HTTPSRV_FMT(q), HTTPSRV_FMT(x), HTTPSRV_FMT(body));
}

TEST_FN void on_big(httpsrv_req *req, void *user) {
    (void)user;
    httpsrv_reply(req, 200, "application/octet-stream", blob_view(number_param(req, "n")));
}

TEST_FN void count_release(void *arg) {
    COUNT(((struct server *)arg)->released);
}

TEST_FN void on_borrow(httpsrv_req *req, void *user) {
    struct server *s = (struct server *)user;
    httpsrv_answer answer = {.status = 200, .body = blob_view(number_param(req, "n"))};
    answer.release = count_release;
    answer.release_arg = s;
    COUNT(s->borrowed);
    httpsrv_reply_with(req, &answer);
}

TEST_FN void on_sleep(httpsrv_req *req, void *user) {
    (void)user;
    test_sleep((int)number_param(req, "ms"));
    httpsrv_reply(req, 200, "text/plain", HTTPSRV_STR("slept\n"));
}

// Waits until the test opens the gate, and counts a client that leaves meanwhile.
TEST_FN void on_gate(httpsrv_req *req, void *user) {
    struct server *s = (struct server *)user;
    httpsrv_answer answer = {.status = 200, .body = blob_view(100)};
    httpsrv_result result;
    bool gone = false;
    answer.release = count_release;
    answer.release_arg = s;
    COUNT(s->arrived);
    while (!LOAD(s->gate)) {
        if (!gone && httpsrv_gone(req)) {
            gone = true;
            COUNT(s->gone);
        }
        test_sleep(1);
    }
    COUNT(s->borrowed);
    result = httpsrv_reply_with(req, &answer);
    CHECK(result == HTTPSRV_GONE || (result == HTTPSRV_OK && !gone));
    COUNT(s->left);
}

TEST_FN void on_twice(httpsrv_req *req, void *user) {
    struct server *s = (struct server *)user;
    httpsrv_answer answer = {.status = 200, .body = blob_view(10)};
    answer.release = count_release;
    answer.release_arg = s;
    CHECK_INT(httpsrv_reply(req, 200, NULL, HTTPSRV_STR("first")), HTTPSRV_OK);
    CHECK_INT(httpsrv_reply(req, 200, NULL, HTTPSRV_STR("second")), HTTPSRV_STATE);
    CHECK_INT(httpsrv_replyf(req, 200, NULL, "%d", 2), HTTPSRV_STATE);
    CHECK_INT(httpsrv_set(req, "X-Late", HTTPSRV_STR("a")), HTTPSRV_STATE);
    CHECK_INT(httpsrv_add(req, "X-Late", HTTPSRV_STR("a")), HTTPSRV_STATE);
    COUNT(s->borrowed);
    CHECK_INT(httpsrv_reply_with(req, &answer), HTTPSRV_STATE);
    CHECK_INT(LOAD(s->released), LOAD(s->borrowed));
}

TEST_FN void on_never(httpsrv_req *req, void *user) {
    (void)req;
    (void)user;
}

TEST_FN void on_peer(httpsrv_req *req, void *user) {
    (void)user;
    httpsrv_reply(req, 200, "text/plain", httpsrv_peer(req));
}

// ---- requests that are answered later, by the number in their targets ----

static httpsrv_token numbered_tokens[1000];
static pthread_mutex_t numbered_lock = PTHREAD_MUTEX_INITIALIZER;

TEST_FN httpsrv_token token_of(int n) {
    pthread_mutex_lock(&numbered_lock);
    const httpsrv_token token = numbered_tokens[n];
    pthread_mutex_unlock(&numbered_lock);
    return token;
}

TEST_FN void keep_token(struct server *s, size_t n, httpsrv_token token) {
    CHECK_CMP(n, <, ROWS(numbered_tokens));
    pthread_mutex_lock(&numbered_lock);
    numbered_tokens[n] = token;
    pthread_mutex_unlock(&numbered_lock);
    COUNT(s->arrived);
}

// Defers; who has sent it finds the token by its number.
TEST_FN void on_defer(httpsrv_req *req, void *user) {
    const httpsrv_token token = httpsrv_defer(req);
    CHECK(token.id != 0);
    keep_token((struct server *)user, number_param(req, "n"), token);
}

// Sends a request to a route /d/:n and waits until its handler has kept the token.
TEST_FN httpsrv_token defer_number(struct server *s, struct client *c, int n) {
    const int before = LOAD(s->arrived);
    SENDF(c, "GET /d/%d HTTP/1.1\r\nHost: a\r\n\r\n", n);
    WAIT(LOAD(s->arrived) == before + 1);
    return token_of(n);
}

// ---- life ----

struct common_route {
    const char *method, *path;
    httpsrv_handler handler;
};

TEST_FN void route_all(struct server *s, const char *prefix, const char *pool) {
    static const struct common_route routes[] = {
        {"GET", "/hello", on_hello}, {"*", "/echo", on_echo},          {"*", "/dump/:a/*rest", on_dump},
        {"GET", "/big/:n", on_big},  {"GET", "/borrow/:n", on_borrow}, {"GET", "/twice", on_twice},
        {"GET", "/never", on_never}, {"GET", "/sleep/:ms", on_sleep},  {"GET", "/gate", on_gate},
    };
    for (size_t i = 0; i < sizeof routes / sizeof *routes; i++) {
        char pattern[100];
        httpsrv_route_config route = {.pattern = pattern, .handler = routes[i].handler, .user = s, .pool = pool};
        snprintf(pattern, sizeof pattern, "%s %s%s", routes[i].method, prefix, routes[i].path);
        CHECK_INT(httpsrv_route(s->srv, &route), HTTPSRV_OK);
    }
}

// A server that does not listen yet. Unless the configuration says otherwise: 127.0.0.1, our allocator and
// logger.
TEST_FN void prepare(struct server *s, const httpsrv_config *config) {
    httpsrv_config c = *config;
    memset(s, 0, sizeof *s);
    memset(numbered_tokens, 0, sizeof numbered_tokens);
    if (blob[1] == 0)
        for (size_t i = 0; i < BLOB_BYTES; i++)
            blob[i] = (char)('!' + (i * 7 + i / 89) % 90);
    if (!c.host && !c.listen[0]) c.host = "127.0.0.1";
    if (!c.allocator.fn) {
        c.allocator.fn = counting_realloc;
        c.allocator.user = s;
    }
    c.logger.fn = counting_logger;
    c.logger.user = s;
    s->srv = httpsrv_new(&c);
    CHECK(s->srv != NULL);
    CHECK_STR(httpsrv_error(s->srv), "");
}

TEST_FN void go(struct server *s) {
    if (httpsrv_start(s->srv) != HTTPSRV_OK) FAIL("httpsrv_start: %s", httpsrv_error(s->srv));
    s->port = httpsrv_port(s->srv, 0);
    CHECK_CMP(s->port, >, 0);
}

// A host's loop, as httpsrv_poll describes it.
TEST_FN void *turn_loop(void *user) {
    const struct server *s = (const struct server *)user;
    struct pollfd fds[2] = {{httpsrv_fd(s->srv), POLLIN, 0}, {s->host_leaves, POLLIN, 0}};
    do {
        poll(fds, 2, httpsrv_timeout(s->srv));
    } while (fds[1].revents == 0 && httpsrv_poll(s->srv, 0) == HTTPSRV_OK);
    return NULL;
}

TEST_FN void listen_only(struct server *s) {
    CHECK_INT(httpsrv_listen(s->srv), HTTPSRV_OK);
    s->port = httpsrv_port(s->srv, 0);
}

// Without reactors: a thread of ours turns the loop.
TEST_FN void go_polled(struct server *s) {
    listen_only(s);
    s->polled = true;
    s->host_leaves = eventfd(0, EFD_CLOEXEC);
    CHECK_INT(pthread_create(&s->host, NULL, turn_loop, s), 0);
}

// For a test that turns the loop from its own thread.
#define TURN_UNTIL(s, condition) \
    TEST_UNTIL("TURN_UNTIL(" #condition ")", condition, CHECK_INT(httpsrv_poll((s)->srv, 1), HTTPSRV_OK))

// Waits for the end of a server that has been stopped.
TEST_FN void join_server(struct server *s) {
    if (!s->polled) {
        CHECK_INT(httpsrv_join(s->srv), HTTPSRV_OK);
        return;
    }
    pthread_join(s->host, NULL);
    close(s->host_leaves);
}

TEST_FN void serve(struct server *s, const httpsrv_config *config) {
    prepare(s, config);
    route_all(s, "", NULL);
    go(s);
}

TEST_FN httpsrv_metrics metrics(const struct server *s) {
    httpsrv_metrics m;
    if (httpsrv_query_metrics(s->srv, &m) != HTTPSRV_OK) FAIL("httpsrv_query_metrics failed");
    return m;
}

// A server that has stopped, or never ran: checks the books and frees it.
TEST_FN void dispose(struct server *s) {
    s->last = metrics(s);
    CHECK_INT(s->last.memory, LOAD(s->bytes));
    for (int i = 1; i < HTTPSRV_LOG_COUNT; i++) {
        NOTE("log item %d (%s)", i, httpsrv_log_text((httpsrv_log_item)i));
        CHECK_INT(s->last.items[i], LOAD(s->logged[i]));
    }
    NOTE("after httpsrv_free");
    httpsrv_free(s->srv);
    s->srv = NULL;
    CHECK_INT(s->bytes, 0);
    CHECK_INT(s->blocks, 0);
    CHECK_INT(s->released, s->borrowed);
    NOTE("%s", "");
}

TEST_FN void finish(struct server *s) {
    httpsrv_stop(s->srv);
    join_server(s);
    CHECK_INT(metrics(s).connections, 0);
    dispose(s);
}

// The server still serves.
TEST_FN void check_alive(struct server *s) {
    struct client c = dial(s->port);
    GET(&c, "/hello");
    EXPECT(&c, 200, HELLO);
    hang_up(&c);
}

// One request on a connection of its own; the answer stays in the client, to be hung up.
TEST_FN struct client ask(const struct server *s, const char *request) {
    struct client c = dial_port(s->port);
    net_send(&c, request, strlen(request));
    net_reply(&c, strncmp(request, "HEAD ", 5) == 0);
    return c;
}

#define ASK(s, request) (TEST_HERE(), ask((s), (request)))

// While the grace of a drain lasts, whoever comes is still served, and told to come back elsewhere.
TEST_FN void check_served_in_grace(const struct server *s) {
    struct client c = ASK(s, NEXT);
    CHECK_INT(c.status, 200);
    CHECK(c.close);
    EXPECT_EOF(&c);
    hang_up(&c);
}

TEST_FN void check_blob(const struct client *c, size_t len) {
    CHECK_INT(c->status, 200);
    CHECK_INT(c->body_len, len);
    if (memcmp(c->body, blob, len) != 0) FAIL("body of %zu bytes is not as sent", len);
}

// Sends and waits until the server has received it, so that what comes next is a read of its own.
TEST_FN void send_seen(const struct server *s, struct client *c, const char *ptr, size_t len) {
    uint64_t before = metrics(s).bytes_in;
    net_send(c, ptr, len);
    WAIT(metrics(s).bytes_in >= before + len);
}

#endif // TEST_SERVER_H
