// Answers in pieces: httpsrv_begin, httpsrv_write, httpsrv_writef, httpsrv_on_drain, httpsrv_wait_drain, httpsrv_add_trailer, httpsrv_end,
// httpsrv_abort and httpsrv_inform, from wherever a handler can run. Also built with ThreadSanitizer.

#define HTTPSRV_IMPLEMENTATION
#include "../httpsrv.h"

#include "server.h"
#include <pthread.h>
#include <wchar.h>

#define MEGABYTE 1048576u
#define MOST     256              // streams that a test tells apart by number
#define ENDLESS  (12u * MEGABYTE) // more than the kernel takes of what nobody reads

// Rounds of a race: fewer where the sanitizers slow everything down.
#define ROUNDS(n) TEST_FEWER(n, 8)

// Where an answer is given: in the handler on a reactor, in the handler on a worker, or in a handler that is posted to
// the deferred request. What is promised has to hold in all of these ways.
enum place { INLINE, WORKER, POSTED };

struct way {
    const char *name;
    enum place place;
    int reactors;
};

static const struct way ways[] = {
    {"inline, 1 reactor", INLINE, 1},  {"by workers, 1 reactor", WORKER, 1},  {"posted, 1 reactor", POSTED, 1},
    {"inline, 3 reactors", INLINE, 3}, {"by workers, 3 reactors", WORKER, 3}, {"posted, 3 reactors", POSTED, 3},
};
static const struct way *way;

#define TEST_EACH_WAY(id)   TEST_WAYS(id, true)
#define TEST_EACH_PLACE(id) TEST_WAYS(id, way->reactors == 1) // where more make no difference
#define TEST_NOT_POSTED(id) TEST_WAYS(id, way->reactors == 1 && way->place != POSTED)

static struct server s;

// One answer, as its handlers see it.
struct stream {
    size_t total, step, share; // bytes in all, in one write, in one call-back (0: as many as go in)
    bool over;
    size_t done; // atomic, as all below
    int arrived, fulls, drains, ended, gone;
    int last; // result
};

static struct stream streams[MOST];
static int numbers; // of streams that have been ordered
static int nulls;   // calls of posted handlers without a request
static int printed; // whether write_blob goes by httpsrv_writef

// ---- a server, run in one of the ways ----

static void begin(const httpsrv_config *config) {
    httpsrv_config c = *config;
    c.reactors = way->reactors;
    c.pools[0] = (httpsrv_pool_config){.name = "work", .threads = 4};
    memset(streams, 0, sizeof streams);
    nulls = numbers = 0;
    prepare(&s, &c);
    CHECK_INT(httpsrv_on(s.srv, "GET /hello", on_hello, &s), HTTPSRV_OK);
    NOTE("%s", way->name);
}

static void route(const char *pattern, httpsrv_handler handler, void *user) {
    const char *pool = way->place == WORKER ? "work" : NULL;
    httpsrv_route_config config = {.pattern = pattern, .handler = handler, .user = user, .pool = pool};
    CHECK_INT(httpsrv_route(s.srv, &config), HTTPSRV_OK);
}

static void check_hello(struct client *c) {
    GET(c, "/hello");
    EXPECT(c, 200, HELLO);
}

static void wait_at_gate(void) {
    while (!LOAD(s.gate)) {
        test_sleep(1);
    }
}

// ---- plays: handlers in two acts, the second of which runs in the posted handler if there is one ----

struct play {
    httpsrv_handler first; // in the handler of the route
    httpsrv_handler second;
};

static void on_second_act(httpsrv_req *req, void *user) {
    if (!req) {
        COUNT(nulls);
        return;
    }
    ((const struct play *)user)->second(req, user);
    COUNT(s.left);
}

static void on_play(httpsrv_req *req, void *user) {
    const struct play *play = (const struct play *)user;
    COUNT(s.arrived);
    if (play->first) play->first(req, user);
    if (way->place != POSTED) {
        on_second_act(req, user);
        return;
    }
    const httpsrv_token token = httpsrv_defer(req);
    CHECK(token.id != 0);
    if (httpsrv_post(s.srv, token, on_second_act, user) != HTTPSRV_OK) on_second_act(req, user);
}

static void begin_play(const httpsrv_config *config, const struct play *play) {
    begin(config);
    route("* /play/:n", on_play, (void *)(uintptr_t)play);
    go(&s);
}

static void end_play(void) {
    WAIT(LOAD(s.left) + LOAD(nulls) == LOAD(s.arrived));
    finish(&s);
}

// ---- streams of the blob ----

// A piece of the endless repetition of the blob, from a buffer that is overwritten at once.
static httpsrv_result write_blob(httpsrv_req *req, size_t at, size_t len) {
    char *copy = (char *)malloc(len + 1);
    const size_t from = at % BLOB_BYTES, head = len < BLOB_BYTES - from ? len : BLOB_BYTES - from;
    CHECK(copy != NULL);
    memcpy(copy, blob + from, head);
    memcpy(copy + head, blob, len - head);
    const httpsrv_result result =
        LOAD(printed) ? httpsrv_writef(req, "%.*s", (int)len, copy) : httpsrv_write(req, (httpsrv_str){copy, len});
    memset(copy, '?', len);
    free(copy);
    return result;
}

static size_t lesser(size_t a, size_t b) {
    return a < b ? a : b;
}

static httpsrv_result write_share(httpsrv_req *req, struct stream *st) {
    const size_t left = st->total - st->done, end = st->done + (st->share > 0 ? lesser(st->share, left) : left);
    while (st->done < end) {
        const size_t n = lesser(st->step, end - st->done);
        const httpsrv_result result = write_blob(req, st->done, n);
        if (result == HTTPSRV_FULL) COUNT(st->fulls);
        if (result != HTTPSRV_OK) return result;
        STORE(st->done, st->done + n);
    }
    return HTTPSRV_OK;
}

static void finish_stream(httpsrv_req *req, struct stream *st) {
    const httpsrv_result result = httpsrv_end(req);
    CHECK(result == HTTPSRV_OK || result == HTTPSRV_GONE);
    st->over = true;
    if (result == HTTPSRV_OK) COUNT(st->ended);
    STORE(st->last, result);
}

static void go_on(httpsrv_req *req, struct stream *st, bool may_wait) {
    httpsrv_result result = write_share(req, st);
    while (result == HTTPSRV_FULL && may_wait) {
        result = httpsrv_wait_drain(req);
        if (result == HTTPSRV_OK) result = write_share(req, st);
    }
    CHECK(result == HTTPSRV_OK || result == HTTPSRV_GONE || (result == HTTPSRV_FULL && !may_wait));
    if (result == HTTPSRV_GONE) CHECK_INT(httpsrv_end(req), HTTPSRV_GONE);
    if (result == HTTPSRV_OK && st->done == st->total)
        finish_stream(req, st);
    else
        STORE(st->last, result);
}

static void on_drained(httpsrv_req *req, void *user) {
    struct stream *st = (struct stream *)user;
    CHECK_INT(LOAD(st->gone), 0);
    CHECK(!st->over);
    CHECK(httpsrv_attached(req) == st);
    COUNT(st->drains);
    go_on(req, st, false);
}

static void count_gone(void *arg) {
    COUNT(((struct stream *)arg)->gone);
}

static struct stream *stream_of(const httpsrv_req *req) {
    return &streams[number_param(req, "n")];
}

static void begin_stream(httpsrv_req *req, void *user) {
    struct stream *st = stream_of(req);
    (void)user;
    st->total = number_param(req, "total");
    st->step = number_param(req, "step");
    st->share = number_param(req, "share");
    st->over = false;
    STORE(st->done, (size_t)0);
    CHECK(httpsrv_attached(req) == NULL);
    httpsrv_attach(req, st);
    CHECK_INT(httpsrv_on_gone(req, count_gone, st), HTTPSRV_OK);
    const int64_t length = number_param(req, "declared") ? (int64_t)st->total : -1;
    const httpsrv_result result = httpsrv_begin(req, 200, "text/plain", length);
    CHECK(result == HTTPSRV_OK || result == HTTPSRV_GONE);
    if (result == HTTPSRV_GONE) st->over = true;
    STORE(st->last, result);
    COUNT(st->arrived);
}

static void write_stream(httpsrv_req *req, void *user) {
    struct stream *st = stream_of(req);
    const bool by_worker = way->place == WORKER && st->share == 0;
    (void)user;
    CHECK(httpsrv_attached(req) == st);
    if (st->over) return; // the client had left before the begin
    if (!by_worker) CHECK_INT(httpsrv_on_drain(req, on_drained, st), HTTPSRV_OK);
    if (st->share == 0) go_on(req, st, by_worker);
}

static const struct play streaming = {begin_stream, write_stream};

static void begin_streams(const httpsrv_config *config) {
    begin(config);
    route("* /s/:n/:total/:step/:declared/:share", on_play, (void *)(uintptr_t)&streaming);
    go(&s);
}

struct order {
    size_t total, step;
    bool declared;
    size_t share;
};

// Each stream has a number of its own, from 0.
static void order_stream(struct client *c, const char *version, const struct order *o) {
    const int n = numbers++;
    CHECK_CMP(n, <, MOST);
    SENDF(c, "GET /s/%d/%zu/%zu/%d/%zu HTTP/%s\r\nHost: a\r\n\r\n", n, o->total, o->step, o->declared, o->share,
          version);
}

// ---- the client's side ----

// What has arrived of an answer whose body is a piece of the blob.
struct heard {
    bool complete;
    size_t len, chunks;
    char trailers[500]; // their lines, each followed by "|"
};

// Receives until the pattern is there; false if the stream ends before.
static bool reach_text(struct client *c, const char *pattern) {
    for (size_t n = strlen(pattern); net_reach(c, n); n = c->len - c->at + 1)
        if (memmem(c->buf + c->at, c->len - c->at, pattern, strlen(pattern))) return true;
    return false;
}

// Consumes n bytes of the body, fewer if the stream ends before. Whether it has not.
static bool hear_bytes(struct client *c, struct heard *h, size_t n) {
    while (n > 0) {
        const bool more = net_reach(c, 1);
        const size_t from = h->len % BLOB_BYTES, there = lesser(lesser(n, c->len - c->at), BLOB_BYTES - from);
        if (!more) return false;
        if (c->status < 500 && memcmp(c->buf + c->at, blob + from, there) != 0)
            FAIL("not as written, within %zu bytes of %zu", there, h->len);
        c->at += there;
        h->len += there;
        n -= there;
    }
    return true;
}

static bool hear_trailers(struct client *c, struct heard *h) {
    char line[300];
    while (reach_text(c, "\r\n")) {
        if (!*net_line(c, line, sizeof line)) return true;
        NET_CHECK(c, strlen(h->trailers) + strlen(line) + 2 < sizeof h->trailers, "too many trailers");
        strcat(strcat(h->trailers, line), "|");
    }
    return false;
}

static bool hear_chunks(struct client *c, struct heard *h) {
    char line[20];
    while (reach_text(c, "\r\n")) {
        const size_t n = (size_t)net_number(c, net_line(c, line, sizeof line), "0123456789abcdefABCDEF", 16);
        if (n == 0) return hear_trailers(c, h);
        if (!hear_bytes(c, h, n) || !net_reach(c, 2)) return false;
        NET_CHECK(c, memcmp(c->buf + c->at, "\r\n", 2) == 0, "chunk does not end with CRLF");
        c->at += 2;
        h->chunks++;
    }
    return false;
}

// A body that ends with the connection is complete if that ends in order.
static bool hear_to_the_end(struct client *c, struct heard *h) {
    NET_CHECK(c, c->close, "an answer without an end");
    while (hear_bytes(c, h, 1))
        continue;
    return c->error == 0;
}

// Reads one answer as far as it comes; c->status is 0 if not even the head does.
static struct heard hear(struct client *c, bool to_head) {
    struct heard h = {0};
    c->status = 0;
    if (!reach_text(c, "\r\n\r\n")) return h;
    net_read_head(c);
    if (to_head || c->status < 200 || c->status == 204 || c->status == 304)
        h.complete = true;
    else if (field(c, "Transfer-Encoding"))
        h.complete = hear_chunks(c, &h);
    else if (c->length >= 0)
        h.complete = hear_bytes(c, &h, (size_t)c->length);
    else
        h.complete = hear_to_the_end(c, &h);
    return h;
}

#define HEAR(c) (TEST_HERE(), hear((c), false))

static void check_whole(struct client *c, int status, size_t len) {
    const struct heard h = hear(c, false);
    CHECK_INT(c->status, status);
    CHECK_INT(h.len, len);
    CHECK(h.complete);
}

#define CHECK_WHOLE(c, status, len) (TEST_HERE(), check_whole((c), (status), (len)))

// An answer that everybody can see to be broken, with nothing behind it.
static void check_broken(struct client *c) {
    const struct heard h = hear(c, false);
    CHECK(!h.complete);
    CHECK_INT(net_until_end(c), 0);
}

#define CHECK_BROKEN(c) (TEST_HERE(), check_broken(c))

// A client with little room for what it does not read.
static struct client dial_narrow(void) {
    const int bytes = 4096;
    struct client c = net_client(net_socket(AF_INET));
    setsockopt(c.fd, SOL_SOCKET, SO_RCVBUF, &bytes, (socklen_t)sizeof bytes);
    NET_CHECK(&c, net_connect(c.fd, "127.0.0.1", s.port) == 0, "cannot connect");
    return c;
}

static void widen(const struct client *c) {
    const int bytes = 1 << 20;
    setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &bytes, (socklen_t)sizeof bytes);
}

// Waits until a stream can write no more.
static void wait_until_full(const struct stream *st) {
    size_t before = SIZE_MAX;
    WAIT(LOAD(st->fulls) > 0);
    while (before != LOAD(st->done)) {
        before = LOAD(st->done);
        test_sleep(test_ms(50));
    }
}

// ---- framing ----

static void write_exactly(httpsrv_req *req, void *user) {
    (void)user;
    CHECK_INT(httpsrv_write(req, HTTPSRV_STR("Hello,")), HTTPSRV_OK);
    CHECK_INT(httpsrv_write(req, HTTPSRV_STR("")), HTTPSRV_OK); // no chunk: that would be the last
    CHECK_INT(httpsrv_write(req, (httpsrv_str){NULL, 0}), HTTPSRV_OK);
    CHECK_INT(httpsrv_write(req, HTTPSRV_STR(" World")), HTTPSRV_OK);
    CHECK_INT(httpsrv_end(req), HTTPSRV_OK);
}

static void begin_exactly(httpsrv_req *req, void *user) {
    static const int64_t lengths[] = {-1, 12, -1000000};
    (void)user;
    CHECK_INT(httpsrv_set(req, "X-Set", HTTPSRV_STR("before")), HTTPSRV_OK);
    CHECK_INT(httpsrv_add(req, "X-Add", HTTPSRV_STR("before")), HTTPSRV_OK);
    CHECK_INT(httpsrv_begin(req, 201, "text/x", lengths[number_param(req, "n")]), HTTPSRV_OK);
}

struct bytes_case {
    const char *request, *body, *merged;
    int64_t length;
    bool coded, close;
};

#define IN_CHUNKS "6\r\nHello,\r\n6\r\n World\r\n0\r\n\r\n"
#define IN_ONE    "c\r\nHello, World\r\n0\r\n\r\n"
#define AS_IT_IS  "Hello, World"

TEST_EACH_WAY(exact_bytes) {
    static const struct play play = {begin_exactly, write_exactly};
    static const struct bytes_case cases[] = {
        {"GET /play/0 HTTP/1.1\r\nHost: a\r\n", IN_CHUNKS, IN_ONE, -1, true, false},
        {"GET /play/2 HTTP/1.1\r\nHost: a\r\n", IN_CHUNKS, IN_ONE, -1, true, false},
        {"GET /play/0 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n", IN_CHUNKS, IN_ONE, -1, true, true},
        {"GET /play/1 HTTP/1.1\r\nHost: a\r\n", AS_IT_IS, AS_IT_IS, 12, false, false},
        {"GET /play/1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n", AS_IT_IS, AS_IT_IS, 12, false, true},
        {"GET /play/0 HTTP/1.0\r\n", AS_IT_IS, AS_IT_IS, -1, false, true},
        {"GET /play/0 HTTP/1.0\r\nConnection: keep-alive\r\n", AS_IT_IS, AS_IT_IS, -1, false, true},
        {"GET /play/1 HTTP/1.0\r\n", AS_IT_IS, AS_IT_IS, 12, false, true},
        {"GET /play/1 HTTP/1.0\r\nConnection: keep-alive\r\n", AS_IT_IS, AS_IT_IS, 12, false, false},
        {"HEAD /play/0 HTTP/1.1\r\nHost: a\r\n", "", "", -1, true, false},
        {"HEAD /play/1 HTTP/1.1\r\nHost: a\r\n", "", "", 12, false, false},
    };
    begin_play(&(httpsrv_config){0}, &play);
    for (size_t i = 0; i < ROWS(cases); i++) {
        const struct bytes_case *k = &cases[i];
        struct client c = dial(s.port);
        NOTE("%s, %s", way->name, k->request);
        SENDF(&c, "%s\r\n", k->request);
        net_read_head(&c);
        CHECK_INT(c.status, 201);
        CHECK_INT(c.length, k->length);
        CHECK_INT(field(&c, "Transfer-Encoding") != NULL, k->coded);
        CHECK_INT(c.close, k->close);
        CHECK_STR(field(&c, "Content-Type"), "text/x");
        CHECK_STR(field(&c, "X-Set"), "before");
        CHECK_STR(field(&c, "X-Add"), "before");
        CHECK(field(&c, "Date") && field(&c, "Server"));
        net_need(&c, strlen(k->merged));
        const bool merged = memcmp(c.buf + c.at, k->merged, strlen(k->merged)) == 0;
        const char *body = merged ? k->merged : k->body;
        net_need(&c, strlen(body));
        CHECK_MEM(c.buf + c.at, strlen(body), body, strlen(body));
        c.at += strlen(body);
        if (!k->close) check_hello(&c);
        if (k->close) EXPECT_EOF(&c);
        hang_up(&c);
    }
    end_play();
}

static const size_t sizes[] = {0,     1,     100,   16383, 16384,  16385,  32768,  65519,  65525,   65530,
                               65534, 65535, 65536, 65537, 131072, 262143, 262144, 262145, MEGABYTE};

// In both versions; the streams come with the next two numbers.
static void check_size(const struct order *o) {
    static const char *const versions[] = {"1.1", "1.0"};
    for (size_t i = 0; i < ROWS(versions); i++) {
        struct client c = dial(s.port);
        NOTE("%s, %zu bytes in steps of %zu, declared %d, share %zu, HTTP/%s", way->name, o->total, o->step,
             o->declared, o->share, versions[i]);
        order_stream(&c, versions[i], o);
        CHECK_WHOLE(&c, 200, o->total);
        CHECK_INT(c.length, o->declared ? (int64_t)o->total : -1);
        CHECK_INT(field(&c, "Transfer-Encoding") != NULL, i == 0 && !o->declared);
        if (i == 0) check_hello(&c);
        if (i == 1) EXPECT_EOF(&c);
        hang_up(&c);
    }
}

TEST_EACH_WAY(sizes_in_one_write) {
    begin_streams(&(httpsrv_config){0});
    for (size_t i = 0; i < ROWS(sizes); i++)
        for (int declared = 0; declared <= 1; declared++)
            check_size(&(struct order){sizes[i], MEGABYTE, declared, 0});
    end_play();
}

TEST_EACH_WAY(sizes_of_writes) {
    static const size_t steps[] = {1000, 16383, 16384, 16385, 65535, 65536, 65537, 262144, 300000};
    begin_streams(&(httpsrv_config){0});
    for (size_t i = 0; i < ROWS(steps); i++)
        for (int declared = 0; declared <= 1; declared++)
            check_size(&(struct order){300001, steps[i], declared, 0});
    end_play();
}

TEST_EACH_WAY(sizes_around_small_marks) {
    begin_streams(&(httpsrv_config){.write_mark = {.high = 1000, .low = 100}});
    for (size_t step = 98; step <= 1002; step += step == 102 ? 896 : 1) {
        check_size(&(struct order){50 * step, step, false, 0});
        check_size(&(struct order){50 * step, step, true, step});
    }
    check_size(&(struct order){3 * MEGABYTE, MEGABYTE, false, 0});
    end_play();
}

TEST_EACH_WAY(many_tiny_writes) {
    begin_streams(&(httpsrv_config){0});
    for (size_t step = 1; step <= 5; step += 2) {
        check_size(&(struct order){ROUNDS(40000) * step, step, false, 0});
        check_size(&(struct order){ROUNDS(40000) * step, step, true, 0});
    }
    end_play();
}

TEST_EACH_WAY(drain_call_backs_until_the_end) {
    static const size_t shares[] = {1, 100, 65535, 65536, 70000, 200000};
    const size_t calls = 8;
    begin_streams(&(httpsrv_config){.write_mark = {.high = 65536, .low = 16384}});
    for (size_t i = 0; i < ROWS(shares); i++) {
        check_size(&(struct order){calls * shares[i], 50000, false, shares[i]});
        check_size(&(struct order){calls * shares[i] + 1, 50000, true, shares[i]});
    }
    end_play();
    for (int n = 0; n < numbers; n++)
        CHECK_CMP(streams[n].drains, >=, (int)calls);
}

// ---- bodies that stay behind ----

static void write_bodiless(httpsrv_req *req, void *user) {
    const size_t n = number_param(req, "n");
    (void)user;
    CHECK_INT(httpsrv_begin(req, (int)(n / 10), "text/plain", n % 10 ? 20000 : -1), HTTPSRV_OK);
    for (size_t at = 0; at < 20000; at += 1000)
        CHECK_INT(write_blob(req, at, 1000), HTTPSRV_OK);
    CHECK_INT(httpsrv_end(req), HTTPSRV_OK);
}

TEST_EACH_WAY(bodies_that_stay_behind) {
    static const struct play play = {NULL, write_bodiless};
    static const int statuses[] = {200, 204, 205, 304, 404};
    begin_play(&(httpsrv_config){0}, &play);
    struct client c = dial(s.port);
    for (int i = 0; i < 2 * 2 * (int)ROWS(statuses); i++) {
        const bool to_head = i % 2 == 1, declared = i / 2 % 2 == 1;
        const int status = statuses[i / 4];
        NOTE("%s, %s %d, declared %d", way->name, to_head ? "HEAD" : "GET", status, declared);
        SENDF(&c, "%s /play/%d HTTP/1.1\r\nHost: a\r\n\r\n", to_head ? "HEAD" : "GET", 10 * status + declared);
        const struct heard h = hear(&c, to_head);
        const bool whole = !to_head && (status == 200 || status == 404);
        CHECK(h.complete);
        CHECK_INT(c.status, status);
        CHECK_INT(h.len, whole ? 20000 : 0);
        if (declared && (status == 200 || status == 404)) CHECK_INT(c.length, 20000);
        CHECK(!c.close);
        check_hello(&c);
    }
    hang_up(&c);
    end_play();
}

// ---- connections ----

TEST_EACH_WAY(pipelined_requests_before_and_behind) {
    const char *hello = "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n";
    begin_streams(&(httpsrv_config){0});
    for (int n = 0; n < 25; n += 5) {
        struct client c = dial(s.port);
        SENDF(&c,
              "%s%s"
              "GET /s/%d/300000/7000/0/0 HTTP/1.1\r\nHost: a\r\n\r\n%s"
              "GET /s/%d/10/3/0/2 HTTP/1.1\r\nHost: a\r\n\r\n"
              "HEAD /s/%d/100000/3000/1/0 HTTP/1.1\r\nHost: a\r\n\r\n"
              "GET /s/%d/1048576/65536/1/65536 HTTP/1.1\r\nHost: a\r\n\r\n%s"
              "GET /s/%d/100000/3000/0/0 HTTP/1.0\r\n\r\n%s",
              hello, hello, n, hello, n + 1, n + 2, n + 3, hello, n + 4, hello);
        EXPECT(&c, 200, HELLO);
        EXPECT(&c, 200, HELLO);
        CHECK_WHOLE(&c, 200, 300000);
        EXPECT(&c, 200, HELLO);
        CHECK_WHOLE(&c, 200, 10);
        REPLY_HEAD(&c);
        CHECK_INT(c.length, 100000);
        CHECK_WHOLE(&c, 200, MEGABYTE);
        EXPECT(&c, 200, HELLO);
        CHECK_WHOLE(&c, 200, 100000);
        EXPECT_END(&c);
        CHECK_INT(c.len - c.at, 0);
        hang_up(&c);
    }
    end_play();
}

TEST_EACH_WAY(keep_alive_after_the_end) {
    enum { TIMES = 20 };
    begin_streams(&(httpsrv_config){0});
    struct client c = dial(s.port);
    for (int i = 0; i < TIMES; i++) {
        const struct order o = {(size_t)i * 5000, 1999, i % 3 == 0, i % 4 ? 0 : 3000};
        order_stream(&c, "1.1", &o);
        CHECK_WHOLE(&c, 200, o.total);
        CHECK(!c.close);
        if (i % 5 == 0) check_hello(&c);
    }
    CHECK_INT(metrics(&s).accepted, 1);
    CHECK_INT(metrics(&s).answers[2], TIMES + TIMES / 5);
    net_reset(&c);
    end_play();
    for (int i = 0; i < TIMES; i++) {
        CHECK_INT(streams[i].ended, 1);
        CHECK_INT(streams[i].gone, 0);
    }
}

static void begin_and_close(httpsrv_req *req, void *user) {
    (void)user;
    CHECK_INT(httpsrv_set(req, "Connection", HTTPSRV_STR("close")), HTTPSRV_OK);
    CHECK_INT(httpsrv_begin(req, 200, NULL, -1), HTTPSRV_OK);
}

static void write_and_end(httpsrv_req *req, void *user) {
    (void)user;
    CHECK_INT(write_blob(req, 0, 100), HTTPSRV_OK);
    CHECK_INT(httpsrv_end(req), HTTPSRV_OK);
}

TEST_EACH_WAY(connection_close_by_the_handler) {
    static const struct play play = {begin_and_close, write_and_end};
    begin_play(&(httpsrv_config){0}, &play);
    struct client c = dial(s.port);
    GET(&c, "/play/0");
    CHECK_WHOLE(&c, 200, 100);
    CHECK(c.close);
    CHECK(field(&c, "Content-Type") == NULL);
    EXPECT_EOF(&c);
    hang_up(&c);
    end_play();
}

TEST_EACH_WAY(half_closed_clients_get_it_all) {
    begin_streams(&(httpsrv_config){0});
    for (size_t share = 0; share <= 100000; share += 100000) {
        struct client c = dial(s.port);
        order_stream(&c, "1.1", &(struct order){3 * MEGABYTE, 30000, false, share});
        half_close(&c);
        CHECK_WHOLE(&c, 200, 3 * MEGABYTE);
        EXPECT_EOF(&c);
        hang_up(&c);
    }
    end_play();
    CHECK_INT(streams[0].ended + streams[1].ended, 2);
    CHECK_INT(streams[0].gone + streams[1].gone, 0);
}

TEST_EACH_WAY(many_at_once) {
    enum { CLIENTS = 24 };
    struct client c[CLIENTS];
    begin_streams(&(httpsrv_config){.write_mark = {.high = 20000, .low = 5000}});
    for (int i = 0; i < CLIENTS; i++) {
        c[i] = dial(s.port);
        order_stream(&c[i], "1.1", &(struct order){10000u * (unsigned)i, 777, i % 2, i % 3 ? 0 : 12345});
    }
    for (int i = CLIENTS - 1; i >= 0; i--) {
        CHECK_WHOLE(&c[i], 200, 10000u * (unsigned)i);
        check_hello(&c[i]);
        hang_up(&c[i]);
    }
    end_play();
}

// ---- answers that break ----

struct broken_case {
    int64_t length;
    int writes[3]; // bytes; 0: none
    httpsrv_result last_write, end;
    bool perhaps_whole; // what was declared may be out before the excess is seen
};

static const struct broken_case broken_cases[] = {
    {5, {6, 0, 0}, HTTPSRV_TOOBIG, HTTPSRV_OK, false},
    {5, {3, 3, 0}, HTTPSRV_TOOBIG, HTTPSRV_OK, false},
    {5, {5, 1, 0}, HTTPSRV_TOOBIG, HTTPSRV_OK, true},
    {0, {1, 0, 0}, HTTPSRV_TOOBIG, HTTPSRV_OK, true},
    {100000, {99999, 1, 1}, HTTPSRV_TOOBIG, HTTPSRV_OK, true},
    {100000, {50000, 49999, 2}, HTTPSRV_TOOBIG, HTTPSRV_OK, false},
    {5, {0, 0, 0}, HTTPSRV_OK, HTTPSRV_TOOBIG, false},
    {5, {4, 0, 0}, HTTPSRV_OK, HTTPSRV_TOOBIG, false},
    {100000, {50000, 49999, 0}, HTTPSRV_OK, HTTPSRV_TOOBIG, false},
};

static void begin_broken(httpsrv_req *req, void *user) {
    (void)user;
    CHECK_INT(httpsrv_begin(req, 200, NULL, broken_cases[number_param(req, "n")].length), HTTPSRV_OK);
}

static void write_broken(httpsrv_req *req, void *user) {
    const struct broken_case *k = &broken_cases[number_param(req, "n")];
    httpsrv_result result = HTTPSRV_OK;
    size_t at = 0;
    (void)user;
    for (size_t i = 0; i < ROWS(k->writes) && k->writes[i] > 0; i++) {
        CHECK_INT(result, HTTPSRV_OK);
        result = write_blob(req, at, (size_t)k->writes[i]);
        at += (size_t)k->writes[i];
    }
    CHECK_INT(result, k->last_write);
    if (k->end != HTTPSRV_OK) CHECK_INT(httpsrv_end(req), k->end);
    CHECK(httpsrv_write(req, HTTPSRV_STR("more")) != HTTPSRV_OK);
    CHECK(httpsrv_end(req) != HTTPSRV_OK);
    CHECK(httpsrv_reply(req, 200, NULL, HTTPSRV_STR("another")) != HTTPSRV_OK);
}

TEST_EACH_WAY(more_or_less_than_declared) {
    static const struct play play = {begin_broken, write_broken};
    begin_play(&(httpsrv_config){0}, &play);
    for (size_t i = 0; i < ROWS(broken_cases); i++) {
        struct client c = dial(s.port);
        NOTE("%s, case %zu", way->name, i);
        SENDF(&c, "GET /play/%zu HTTP/1.1\r\nHost: a\r\n\r\nGET /hello HTTP/1.1\r\nHost: a\r\n\r\n", i);
        const struct heard h = HEAR(&c);
        CHECK(!h.complete || broken_cases[i].perhaps_whole);
        EXPECT_END(&c);
        CHECK_INT(c.len - c.at, 0); // nothing of the excess, and no other answer
        hang_up(&c);
    }
    check_alive(&s);
    end_play();
    CHECK_INT(s.last.items[HTTPSRV_LOG_BROKEN_OFF], ROWS(broken_cases));
}

struct abort_case {
    int64_t length;
    size_t bytes;
    const char *version;
};

static const struct abort_case abort_cases[] = {
    {-1, 0, "1.1"}, {-1, 10, "1.1"}, {-1, MEGABYTE, "1.1"}, {10, 0, "1.1"}, {10, 9, "1.1"},
    {-1, 0, "1.0"}, {-1, 10, "1.0"}, {-1, MEGABYTE, "1.0"}, {10, 9, "1.0"}, {2 * MEGABYTE, MEGABYTE, "1.1"},
};

static void begin_abort(httpsrv_req *req, void *user) {
    (void)user;
    CHECK_INT(httpsrv_abort(req), HTTPSRV_STATE);
    CHECK_INT(httpsrv_begin(req, 200, NULL, abort_cases[number_param(req, "n")].length), HTTPSRV_OK);
}

static void write_and_abort(httpsrv_req *req, void *user) {
    const struct abort_case *k = &abort_cases[number_param(req, "n")];
    (void)user;
    if (k->bytes > 0) CHECK_INT(write_blob(req, 0, k->bytes), HTTPSRV_OK);
    CHECK_INT(httpsrv_abort(req), HTTPSRV_OK);
    CHECK_INT(httpsrv_abort(req), HTTPSRV_STATE);
    CHECK(httpsrv_write(req, HTTPSRV_STR("more")) != HTTPSRV_OK);
    CHECK(httpsrv_end(req) != HTTPSRV_OK);
    CHECK(httpsrv_reply(req, 200, NULL, HTTPSRV_STR("another")) != HTTPSRV_OK);
}

TEST_EACH_WAY(abort_before_and_after_bytes) {
    static const struct play play = {begin_abort, write_and_abort};
    begin_play(&(httpsrv_config){0}, &play);
    for (size_t i = 0; i < ROWS(abort_cases); i++) {
        struct client c = dial(s.port);
        NOTE("%s, case %zu", way->name, i);
        SENDF(&c, "GET /play/%zu HTTP/%s\r\nHost: a\r\n\r\nGET /hello HTTP/1.1\r\nHost: a\r\n\r\n", i,
              abort_cases[i].version);
        CHECK_BROKEN(&c);
        hang_up(&c);
    }
    check_alive(&s);
    end_play();
    CHECK_INT(s.last.items[HTTPSRV_LOG_BROKEN_OFF], ROWS(abort_cases));
}

// Begun, perhaps written, and nobody left who could go on.
static void begin_and_forget(httpsrv_req *req, void *user) {
    const size_t n = number_param(req, "n");
    (void)user;
    CHECK_INT(httpsrv_begin(req, 200, NULL, n % 2 ? 100000 : -1), HTTPSRV_OK);
    if (n >= 2) CHECK_INT(write_blob(req, 0, 50000), HTTPSRV_OK);
}

TEST_NOT_POSTED(handlers_that_return_without_the_end) {
    static const struct play play = {NULL, begin_and_forget};
    begin_play(&(httpsrv_config){0}, &play);
    for (int i = 0; i < 4; i++) {
        struct client c = dial(s.port);
        NOTE("%s, case %d", way->name, i);
        SENDF(&c, "GET /play/%d HTTP/1.1\r\nHost: a\r\n\r\nGET /hello HTTP/1.1\r\nHost: a\r\n\r\n", i);
        CHECK_BROKEN(&c);
        hang_up(&c);
    }
    check_alive(&s);
    end_play();
    CHECK_INT(s.last.items[HTTPSRV_LOG_BROKEN_OFF], 4);
}

// ---- calls in a state that does not allow them ----

static void answer_otherwise(httpsrv_req *req) {
    const httpsrv_answer lent = {.status = 200, .body = blob_view(10), .release = count_release, .release_arg = &s};
    CHECK_INT(httpsrv_begin(req, 200, NULL, -1), HTTPSRV_STATE);
    CHECK_INT(httpsrv_begin(req, 200, NULL, 5), HTTPSRV_STATE);
    CHECK_INT(httpsrv_reply(req, 200, NULL, HTTPSRV_STR("another")), HTTPSRV_STATE);
    CHECK_INT(httpsrv_replyf(req, 200, NULL, "%d", 5), HTTPSRV_STATE);
    CHECK_INT(httpsrv_set(req, "X-Late", HTTPSRV_STR("a")), HTTPSRV_STATE);
    CHECK_INT(httpsrv_add(req, "X-Late", HTTPSRV_STR("a")), HTTPSRV_STATE);
    CHECK_INT(httpsrv_inform(req, 103, NULL, 0), HTTPSRV_STATE);
    COUNT(s.borrowed);
    CHECK_INT(httpsrv_reply_with(req, &lent), HTTPSRV_STATE);
    CHECK_INT(LOAD(s.released), LOAD(s.borrowed));
}

static void write_nothing(httpsrv_req *req) {
    CHECK_INT(httpsrv_write(req, HTTPSRV_STR("more")), HTTPSRV_STATE);
    CHECK_INT(httpsrv_write(req, HTTPSRV_STR("")), HTTPSRV_STATE);
    CHECK_INT(httpsrv_add_trailer(req, "X-Late", HTTPSRV_STR("a")), HTTPSRV_STATE);
    CHECK_INT(httpsrv_wait_drain(req), HTTPSRV_STATE);
    CHECK_INT(httpsrv_end(req), HTTPSRV_STATE);
    CHECK_INT(httpsrv_abort(req), HTTPSRV_STATE);
}

static void begin_at_a_bad_time(httpsrv_req *req, void *user) {
    (void)user;
    write_nothing(req);
    if (number_param(req, "n") == 1) {
        CHECK_INT(httpsrv_reply(req, 200, NULL, blob_view(7)), HTTPSRV_OK);
    } else {
        CHECK_INT(httpsrv_begin(req, 200, NULL, -1), HTTPSRV_OK);
        answer_otherwise(req);
        CHECK_INT(write_blob(req, 0, 3), HTTPSRV_OK);
        answer_otherwise(req);
        CHECK_INT(httpsrv_wait_drain(req), way->place == WORKER ? HTTPSRV_OK : HTTPSRV_STATE);
        CHECK_INT(write_blob(req, 3, 4), HTTPSRV_OK);
        CHECK_INT(httpsrv_end(req), HTTPSRV_OK);
    }
    answer_otherwise(req);
    write_nothing(req);
    if (way->place != POSTED) CHECK(httpsrv_defer(req).id == 0);
}

TEST_EACH_WAY(calls_at_a_bad_time) {
    static const struct play play = {NULL, begin_at_a_bad_time};
    begin_play(&(httpsrv_config){0}, &play);
    struct client c = dial(s.port);
    for (int i = 0; i < 4; i++) {
        SENDF(&c, "GET /play/%d HTTP/1.1\r\nHost: a\r\n\r\n", i % 2);
        CHECK_WHOLE(&c, 200, 7);
        CHECK(field(&c, "X-Late") == NULL);
        check_hello(&c);
    }
    hang_up(&c);
    end_play();
}

static void begin_badly(httpsrv_req *req, void *user) {
    static const int statuses[] = {0, -1, 99, 100, 101, 103, 199, 600, 1000};
    (void)user;
    for (size_t i = 0; i < ROWS(statuses); i++)
        CHECK_INT(httpsrv_begin(req, statuses[i], "text/plain", -1), HTTPSRV_ARG);
    CHECK_INT(httpsrv_begin(req, 200, "text/plain\r\nX-Evil: 1", -1), HTTPSRV_ARG);
    CHECK_INT(httpsrv_begin(req, 200, "text\1/plain", 5), HTTPSRV_ARG);
    CHECK_INT(httpsrv_write(req, HTTPSRV_STR("more")), HTTPSRV_STATE);
    if (number_param(req, "n") == 0) {
        CHECK_INT(httpsrv_reply(req, 200, NULL, blob_view(100)), HTTPSRV_OK);
        return;
    }
    CHECK_INT(httpsrv_begin(req, 200, NULL, 100), HTTPSRV_OK);
    write_and_end(req, user);
}

TEST_EACH_PLACE(another_answer_after_a_bad_begin) {
    static const struct play play = {NULL, begin_badly};
    begin_play(&(httpsrv_config){0}, &play);
    struct client c = dial(s.port);
    for (int i = 0; i < 2; i++) {
        SENDF(&c, "GET /play/%d HTTP/1.1\r\nHost: a\r\n\r\n", i);
        CHECK_WHOLE(&c, 200, 100);
    }
    hang_up(&c);
    end_play();
}

TEST(marks_that_are_none) {
    static const struct {
        int64_t high, low;
        httpsrv_result result;
    } cases[] = {
        {1000, 1001, HTTPSRV_ARG},
        {-1, 0, HTTPSRV_ARG},
        {1000, -1, HTTPSRV_ARG},
        {((int64_t)1 << 30) + 1, 1, HTTPSRV_ARG},
        {(int64_t)1 << 40, 1, HTTPSRV_ARG},
        {1000, 1000, HTTPSRV_OK},
        {1, 1, HTTPSRV_OK},
        {(int64_t)1 << 30, 1, HTTPSRV_OK},
    };
    for (size_t i = 0; i < ROWS(cases); i++) {
        httpsrv_config config = {.host = "127.0.0.1"};
        config.write_mark.high = cases[i].high;
        config.write_mark.low = cases[i].low;
        NOTE("case %zu", i);
        httpsrv *srv = httpsrv_new(&config);
        CHECK_INT(httpsrv_listen(srv), cases[i].result);
        httpsrv_free(srv);
    }
}

// ---- clients that do not read ----

TEST_EACH_PLACE(memory_is_bounded_whatever_is_not_read) {
    enum { HIGH = 65536, STEP = 10000 };
    begin_streams(&(httpsrv_config){.write_mark = {.high = HIGH, .low = 16384}});
    for (int i = 0; i < 4; i++) {
        struct client c = dial_narrow();
        check_hello(&c);
        STORE(s.peak, LOAD(s.bytes));
        const size_t before = LOAD(s.peak);
        NOTE("%s, case %d", way->name, i);
        order_stream(&c, "1.1", &(struct order){ENDLESS, STEP, i % 2, i / 2 ? 3 * STEP : 0});
        if (i < 2) wait_until_full(&streams[i]);
        if (i >= 2) test_sleep(test_ms(100));
        CHECK_CMP(LOAD(streams[i].done), <, ENDLESS);
        CHECK_CMP(LOAD(s.peak) - before, <, 4 * HIGH);
        widen(&c);
        CHECK_WHOLE(&c, 200, ENDLESS);
        CHECK_CMP(LOAD(s.peak) - before, <, 4 * HIGH);
        WAIT(LOAD(streams[i].ended) == 1);
        hang_up(&c);
    }
    end_play();
}

static void end_after_drain(httpsrv_req *req, void *user) {
    (void)user;
    CHECK_INT(LOAD(s.gate), 1); // not before the client reads
    CHECK_INT(write_blob(req, BLOB_BYTES, 1), HTTPSRV_OK);
    CHECK_INT(httpsrv_end(req), HTTPSRV_OK);
}

// Below the mark everything is taken, whatever its size; above it nothing.
static void write_over_the_mark(httpsrv_req *req, void *user) {
    CHECK_INT(httpsrv_begin(req, 200, NULL, -1), HTTPSRV_OK);
    CHECK_INT(write_blob(req, 0, BLOB_BYTES), HTTPSRV_OK);
    CHECK_INT(write_blob(req, BLOB_BYTES, 1), HTTPSRV_FULL);
    CHECK_INT(write_blob(req, BLOB_BYTES, 100000), HTTPSRV_FULL);
    COUNT(s.handled);
    if (way->place != WORKER) {
        CHECK_INT(httpsrv_on_drain(req, end_after_drain, user), HTTPSRV_OK);
        return;
    }
    CHECK_INT(httpsrv_wait_drain(req), HTTPSRV_OK);
    end_after_drain(req, user);
}

TEST_EACH_WAY(one_write_over_the_mark) {
    static const struct play play = {NULL, write_over_the_mark};
    begin_play(&(httpsrv_config){.write_mark = {.high = 1000, .low = 100}}, &play);
    struct client c = dial_narrow();
    GET(&c, "/play/0");
    WAIT(LOAD(s.handled) == 1);
    test_sleep(test_ms(50)); // nobody goes on
    STORE(s.gate, 1);
    CHECK_WHOLE(&c, 200, BLOB_BYTES + 1);
    check_hello(&c);
    hang_up(&c);
    end_play();
}

TEST_EACH_PLACE(slow_readers) {
    begin_streams(&(httpsrv_config){.write_mark = {.high = 100000, .low = 1000}});
    for (size_t share = 0; share <= 50000; share += 50000) {
        struct client c = dial_narrow();
        struct heard h = {0};
        order_stream(&c, "1.1", &(struct order){12 * MEGABYTE, 30000, true, share});
        net_read_head(&c);
        while (h.len < 12 * MEGABYTE) {
            CHECK(hear_bytes(&c, &h, 128 * 1024));
            test_sleep(1);
        }
        check_hello(&c);
        hang_up(&c);
    }
    end_play();
    CHECK_INT(streams[0].ended + streams[1].ended, 2);
    CHECK_CMP(streams[0].fulls, >, 0);
}

// What a worker writes is on its way while it goes on, and what a handler has left behind as well.
static void write_and_stay(httpsrv_req *req, void *user) {
    (void)user;
    CHECK_INT(httpsrv_begin(req, 200, NULL, -1), HTTPSRV_OK);
    CHECK_INT(write_blob(req, 0, 10), HTTPSRV_OK);
    wait_at_gate();
    CHECK_INT(write_blob(req, 10, 10), HTTPSRV_OK);
    CHECK_INT(httpsrv_end(req), HTTPSRV_OK);
}

TEST(workers_that_take_their_time) {
    static const struct play play = {NULL, write_and_stay};
    for (way = ways; way < ways + ROWS(ways); way++) {
        if (way->place != WORKER) continue;
        begin_play(&(httpsrv_config){0}, &play);
        struct client c = dial(s.port);
        GET(&c, "/play/0");
        net_until(&c, "\r\n\r\n", 1000);
        CHECK_INT(LOAD(s.left), 0);
        net_until(&c, "\r\n\r\na\r\n", 1000);
        STORE(s.gate, 1);
        CHECK_WHOLE(&c, 200, 20);
        hang_up(&c);
        end_play();
    }
}

static void count_a_drain(httpsrv_req *req, void *user) {
    CHECK(req != NULL);
    COUNT(((struct stream *)user)->drains);
}

// A call-back that writes nothing is not called over and over; another takes its place.
static void watch_drain(httpsrv_req *req, void *user) {
    CHECK_INT(httpsrv_begin(req, 200, NULL, -1), HTTPSRV_OK);
    CHECK_INT(httpsrv_on_drain(req, end_after_drain, user), HTTPSRV_OK);
    CHECK_INT(httpsrv_on_drain(req, count_a_drain, &streams[number_param(req, "n")]), HTTPSRV_OK);
    if (number_param(req, "n") == 1) CHECK_INT(write_blob(req, 0, 100), HTTPSRV_OK);
}

TEST_EACH_PLACE(drain_call_backs_that_write_nothing) {
    static const struct play play = {NULL, watch_drain};
    begin_play(&(httpsrv_config){.timeout_ms.drain = 50}, &play);
    struct client c = dial(s.port), d = dial(s.port);
    GET(&c, "/play/0");
    GET(&d, "/play/1");
    WAIT(LOAD(streams[0].drains) > 0 && LOAD(streams[1].drains) > 0);
    test_sleep(test_ms(50));
    CHECK_CMP(LOAD(streams[0].drains), <=, 3);
    CHECK_CMP(LOAD(streams[1].drains), <=, 3);
    httpsrv_stop(s.srv);
    CHECK_BROKEN(&c);
    CHECK_BROKEN(&d);
    hang_up(&c);
    hang_up(&d);
    end_play();
}

// ---- going on by posts ----

// Begins, writes a few bytes and defers; who has sent the request goes on.
static void on_begin_and_defer(httpsrv_req *req, void *user) {
    const size_t n = number_param(req, "n");
    (void)user;
    CHECK_INT(httpsrv_on_gone(req, count_gone, &streams[n]), HTTPSRV_OK);
    CHECK_INT(httpsrv_begin(req, 200, NULL, -1), HTTPSRV_OK);
    CHECK_INT(write_blob(req, 0, 100), HTTPSRV_OK);
    const httpsrv_token token = httpsrv_defer(req);
    CHECK(token.id != 0);
    keep_token(&s, n, token);
}

static void begin_deferring(const httpsrv_config *config) {
    begin(config);
    route("GET /d/:n", on_begin_and_defer, NULL);
    go(&s);
}

static void post_write(httpsrv_req *req, void *user) {
    if (!req) {
        COUNT(nulls);
        return;
    }
    struct stream *st = (struct stream *)user;
    const httpsrv_result result = write_blob(req, st->done, 1000);
    CHECK(result == HTTPSRV_OK || result == HTTPSRV_GONE);
    STORE(st->done, st->done + 1000);
}

static void post_end(httpsrv_req *req, void *user) {
    (void)user;
    if (!req) {
        COUNT(nulls);
        return;
    }
    CHECK_INT(httpsrv_end(req), HTTPSRV_OK);
    COUNT(s.left);
}

static void check_stale(httpsrv_token token) {
    const int before = LOAD(nulls);
    CHECK_INT(httpsrv_post(s.srv, token, post_end, NULL), HTTPSRV_OK);
    WAIT(LOAD(nulls) == before + 1);
}

TEST_EACH_WAY(posts_go_on) {
    begin_deferring(&(httpsrv_config){0});
    struct client c = dial(s.port);
    for (int n = 0; n < 5; n++) {
        httpsrv_token token = defer_number(&s, &c, n);
        struct heard h = {0};
        net_read_head(&c);
        net_need(&c, 100); // which is out before anybody goes on
        STORE(streams[n].done, (size_t)100);
        for (int i = 0; i < 50; i++) {
            CHECK_INT(httpsrv_post(s.srv, token, post_write, &streams[n]), HTTPSRV_OK);
            if (i % 10 == 0) WAIT(LOAD(streams[n].done) == 1100 + (size_t)i * 1000);
        }
        CHECK_INT(httpsrv_post(s.srv, token, post_end, NULL), HTTPSRV_OK);
        CHECK(hear_chunks(&c, &h));
        CHECK_INT(h.len, 50100);
        check_hello(&c);
        check_stale(token);
    }
    hang_up(&c);
    finish(&s);
    CHECK_INT(streams[0].gone, 0);
}

// Whoever finishes what has begun already comes too late.
TEST_EACH_WAY(finish_after_begin) {
    const httpsrv_answer lent = {.status = 200, .body = blob_view(10), .release = count_release, .release_arg = &s};
    begin_deferring(&(httpsrv_config){0});
    struct client c = dial(s.port);
    httpsrv_token token = defer_number(&s, &c, 0);
    COUNT(s.borrowed);
    CHECK(httpsrv_finish(s.srv, token, &lent) != HTTPSRV_OK);
    CHECK_INT(LOAD(s.released), 1);
    CHECK_INT(httpsrv_post(s.srv, token, post_end, NULL), HTTPSRV_OK);
    CHECK_WHOLE(&c, 200, 100);
    check_hello(&c);
    hang_up(&c);
    finish(&s);
    CHECK_INT(streams[0].gone, 0);
}

TEST_EACH_WAY(client_leaves_between_posts) {
    begin_deferring(&(httpsrv_config){0});
    for (int n = 0; n < 10; n++) {
        struct client c = dial(s.port);
        httpsrv_token token = defer_number(&s, &c, n);
        net_need(&c, 1);
        if (n % 2) CHECK_INT(httpsrv_post(s.srv, token, post_write, &streams[n]), HTTPSRV_OK);
        net_reset(&c);
        WAIT(LOAD(streams[n].gone) == 1);
        check_stale(token);
    }
    finish(&s);
    for (int n = 0; n < 10; n++)
        CHECK_INT(streams[n].gone, 1);
}

// ---- clients that leave ----

TEST_EACH_WAY(client_leaves_in_the_middle) {
    begin_streams(&(httpsrv_config){0});
    for (int n = 0; n < 6; n++) {
        struct stream *st = &streams[n];
        struct client c = dial_narrow();
        NOTE("%s, case %d", way->name, n);
        order_stream(&c, n == 5 ? "1.0" : "1.1", &(struct order){ENDLESS, 20000, n % 2, n / 2 == 1 ? 50000 : 0});
        net_need(&c, 1);
        if (n / 2 == 0) wait_until_full(st);
        net_reset(&c);
        WAIT(LOAD(st->gone) == 1);
        if (way->place == WORKER && st->share == 0) WAIT(LOAD(st->last) == HTTPSRV_GONE);
    }
    WAIT(metrics(&s).connections == 0);
    check_alive(&s);
    end_play();
    for (int n = 0; n < 6; n++) {
        CHECK_INT(streams[n].gone, 1);
        CHECK_INT(streams[n].ended, 0);
    }
}

// Whether the client's leaving or the end comes first: exactly one of them is what the writer sees.
TEST_EACH_WAY(clients_leave_at_any_time) {
    begin_streams(&(httpsrv_config){.write_mark = {.high = 30000, .low = 10000}});
    for (int n = 0; n < ROUNDS(240); n++) {
        struct client c = dial(s.port);
        order_stream(&c, "1.1", &(struct order){3000u * (unsigned)(n % 50), 1500, n % 2, n % 3 ? 0 : 6000});
        if (n % 4) net_need(&c, 1 + (size_t)(n % 50) * 1000 * (size_t)(n % 4));
        net_reset(&c);
    }
    WAIT(metrics(&s).connections == 0);
    end_play();
    for (int n = 0; n < ROUNDS(240); n++) {
        NOTE("%s, stream %d", way->name, n);
        CHECK_INT(streams[n].ended + streams[n].gone, streams[n].arrived);
    }
}

// The head is out when the handler returns, so that its return and the client's leaving meet.
TEST_EACH_WAY(clients_leave_behind_the_head) {
    enum { CLIENTS = ROUNDS(120) };
    begin_streams(&(httpsrv_config){0});
    for (int n = 0; n < CLIENTS; n++) {
        struct client c = dial_narrow();
        order_stream(&c, "1.1", &(struct order){ENDLESS, 20000, n % 2, 50000});
        net_need(&c, 1);
        net_reset(&c);
        WAIT(LOAD(streams[n].gone) == 1);
    }
    end_play();
    for (int n = 0; n < CLIENTS; n++)
        CHECK_INT(streams[n].gone, 1);
}

static void on_patience(httpsrv_req *req, void *user) {
    struct stream *st = &streams[0];
    (void)user;
    CHECK_INT(httpsrv_on_gone(req, count_gone, st), HTTPSRV_OK);
    CHECK_INT(httpsrv_begin(req, 200, NULL, -1), HTTPSRV_OK);
    COUNT(st->arrived);
    while (!httpsrv_gone(req)) {
        test_sleep(1);
    }
    CHECK_INT(httpsrv_write(req, HTTPSRV_STR("more")), HTTPSRV_GONE);
    CHECK_INT(httpsrv_wait_drain(req), HTTPSRV_GONE);
    CHECK_INT(httpsrv_end(req), HTTPSRV_GONE);
}

// A worker that writes nothing hears of it too.
TEST(client_leaves_an_idle_worker) {
    static const struct play play = {NULL, on_patience};
    way = &ways[1];
    begin_play(&(httpsrv_config){0}, &play);
    struct client c = dial(s.port);
    GET(&c, "/play/0");
    WAIT(LOAD(streams[0].arrived) == 1);
    net_reset(&c);
    WAIT(LOAD(s.left) == 1);
    end_play();
    CHECK_INT(streams[0].gone, 1);
}

// ---- time-outs ----

TEST_EACH_PLACE(write_time_out) {
    begin_streams(&(httpsrv_config){.timeout_ms.write = 100, .min_rate = -1});
    for (int n = 0; n < 2; n++) {
        struct client c = dial_narrow();
        order_stream(&c, "1.1", &(struct order){ENDLESS, 20000, false, n ? 50000 : 0});
        WAIT(LOAD(streams[n].gone) == 1);
        if (way->place == WORKER && n == 0) WAIT(LOAD(streams[n].last) == HTTPSRV_GONE);
        CHECK_BROKEN(&c);
        hang_up(&c);
    }
    check_alive(&s);
    end_play();
    CHECK_INT(s.last.items[HTTPSRV_LOG_WRITE_TIMEOUT], 2);
    CHECK_INT(streams[0].gone, 1);
    CHECK_INT(streams[1].gone, 1);
}

// Nobody is late but the application, which may be, once the answer has begun.
TEST_EACH_WAY(time_outs_are_not_for_those_who_write_slowly) {
    enum { SHORT = 60 };
    httpsrv_config config = {.min_rate = 1000000};
    config.timeout_ms.write = config.timeout_ms.idle = config.timeout_ms.handler = test_ms(SHORT);
    config.timeout_ms.head = config.timeout_ms.body = test_ms(SHORT);
    begin_deferring(&config);
    struct client c = dial(s.port);
    httpsrv_token token = defer_number(&s, &c, 0);
    STORE(streams[0].done, (size_t)100);
    for (int i = 0; i < 3; i++) {
        test_sleep(test_ms(3 * SHORT));
        CHECK_INT(httpsrv_post(s.srv, token, post_write, &streams[0]), HTTPSRV_OK);
    }
    CHECK_INT(httpsrv_post(s.srv, token, post_end, NULL), HTTPSRV_OK);
    CHECK_WHOLE(&c, 200, 3100);
    hang_up(&c);
    finish(&s);
    CHECK_INT(streams[0].gone, 0);
}

// ---- stopping ----

TEST_EACH_WAY(streams_are_finished_in_a_drain) {
    begin_streams(&(httpsrv_config){0});
    for (size_t i = 0; i < 3; i++) {
        struct client c = dial_narrow();
        order_stream(&c, "1.1", &(struct order){ENDLESS, 20000, i % 2, i / 2 * 50000});
        net_need(&c, 1);
        if (i == 2) httpsrv_stop(s.srv);
        widen(&c);
        CHECK_WHOLE(&c, 200, ENDLESS);
        if (i < 2) check_hello(&c); // which waits for the end: a declared body is whole before that
        if (i == 2) EXPECT_EOF(&c);
        hang_up(&c);
    }
    end_play();
    CHECK_INT(s.last.drain_finished, 1);
    CHECK_INT(s.last.drain_cut, 0);
    CHECK_INT(streams[2].ended, 1);
    CHECK_INT(streams[2].gone, 0);
}

static void cut(int stops, int deadline) {
    struct client c[3];
    begin_streams(&(httpsrv_config){.timeout_ms.drain = deadline});
    for (int n = 0; n < 3; n++) {
        c[n] = dial_narrow();
        order_stream(&c[n], "1.1", &(struct order){ENDLESS, 20000, n == 1, n == 2 ? 50000 : 0});
        if (n < 2) wait_until_full(&streams[n]);
        if (n == 2) WAIT(LOAD(streams[n].drains) > 0);
    }
    const int64_t start = test_now();
    for (int i = 0; i < stops; i++)
        httpsrv_stop(s.srv);
    CHECK_INT(httpsrv_join(s.srv), HTTPSRV_OK);
    CHECK_CMP(test_now() - start, <, test_ms(8000));
    WAIT(LOAD(s.left) == 3);
    for (int n = 0; n < 3; n++) {
        NOTE("%s, stream %d", way->name, n);
        CHECK_INT(LOAD(streams[n].gone), 1);
        CHECK_INT(LOAD(streams[n].ended), 0);
        if (way->place == WORKER && n < 2) CHECK_INT(LOAD(streams[n].last), HTTPSRV_GONE);
        CHECK_BROKEN(&c[n]);
        hang_up(&c[n]);
    }
    dispose(&s);
    CHECK_INT(s.last.drain_cut, 3);
    CHECK_INT(s.last.items[HTTPSRV_LOG_CUT], 3);
}

TEST_EACH_WAY(streams_are_cut_at_the_deadline) {
    cut(1, 100);
}

TEST_EACH_WAY(streams_are_cut_by_a_second_stop) {
    cut(2, 0);
}

TEST_EACH_WAY(streams_that_nobody_goes_on_with_are_cut) {
    begin_deferring(&(httpsrv_config){.timeout_ms.drain = 50});
    struct client c = dial(s.port);
    httpsrv_token token = defer_number(&s, &c, 0);
    httpsrv_stop(s.srv);
    CHECK_INT(httpsrv_join(s.srv), HTTPSRV_OK);
    CHECK_BROKEN(&c);
    hang_up(&c);
    CHECK_INT(LOAD(streams[0].gone), 1);
    CHECK_INT(httpsrv_post(s.srv, token, post_end, NULL), HTTPSRV_OK);
    dispose(&s);
    CHECK_INT(nulls, 1);
    CHECK_INT(streams[0].gone, 1);
}

static void post_begin(httpsrv_req *req, void *user) {
    CHECK(req != NULL);
    CHECK_INT(httpsrv_begin(req, 200, NULL, -1), HTTPSRV_OK);
    if (number_param(req, "n") == 0) write_and_end(req, user);
}

// One is ended, the other is not.
TEST_EACH_WAY(streams_that_begin_in_a_drain) {
    struct client c[2];
    begin(&(httpsrv_config){.timeout_ms.drain = test_ms(300)});
    route("GET /d/:n", on_defer, &s);
    go(&s);
    for (int n = 0; n < 2; n++) {
        c[n] = dial(s.port);
        defer_number(&s, &c[n], n);
    }
    httpsrv_stop(s.srv);
    WAIT(metrics(&s).items[HTTPSRV_LOG_DRAINING] == (uint64_t)way->reactors);
    for (int n = 0; n < 2; n++)
        CHECK_INT(httpsrv_post(s.srv, token_of(n), post_begin, NULL), HTTPSRV_OK);
    CHECK_WHOLE(&c[0], 200, 100);
    CHECK(c[0].close);
    EXPECT_EOF(&c[0]);
    CHECK_BROKEN(&c[1]);
    CHECK_INT(httpsrv_join(s.srv), HTTPSRV_OK);
    dispose(&s);
    CHECK_INT(s.last.drain_finished, 1);
    CHECK_INT(s.last.drain_cut, 1);
    hang_up(&c[0]);
    hang_up(&c[1]);
}

// The worker is in wait_drain when nothing waits for it any more.
TEST_EACH_PLACE(free_in_the_middle_of_streams) {
    begin_streams(&(httpsrv_config){.timeout_ms.drain = 20});
    struct client c = dial_narrow();
    order_stream(&c, "1.1", &(struct order){ENDLESS, 20000, false, 0});
    wait_until_full(&streams[0]);
    httpsrv_free(s.srv);
    CHECK_INT(streams[0].gone, 1);
    CHECK_INT(s.left, 1);
    CHECK_INT(s.bytes, 0);
    CHECK_INT(s.blocks, 0);
    hang_up(&c);
}

// ---- trailers ----

static void write_trailers(httpsrv_req *req, void *user) {
    static const char *const forbidden[] = {"Content-Length",
                                            "content-length",
                                            "Transfer-Encoding",
                                            "Host",
                                            "Authorization",
                                            "Content-Encoding",
                                            "Content-Type",
                                            "Content-Range",
                                            "Trailer",
                                            "Connection",
                                            "TE",
                                            "Set-Cookie",
                                            "",
                                            "a b",
                                            "a:",
                                            "a\r\nb"};
    static const httpsrv_str bad_values[] = {{"a\r\nX: y", 7}, {"a\nb", 3}, {"a\0b", 3}, {"\x7f", 1}, {"\1", 1}};
    char name[] = "X-Sum", value[] = "one";
    (void)user;
    if (number_param(req, "n") != 1) CHECK_INT(write_blob(req, 0, 500), HTTPSRV_OK);
    CHECK_INT(httpsrv_add_trailer(req, name, (httpsrv_str){value, 3}), HTTPSRV_OK);
    memset(name, '?', 5);
    memset(value, '?', 3);
    for (size_t i = 0; i < ROWS(forbidden); i++)
        if (httpsrv_add_trailer(req, forbidden[i], HTTPSRV_STR("1")) != HTTPSRV_ARG)
            FAIL("trailer \"%s\"", forbidden[i]);
    for (size_t i = 0; i < ROWS(bad_values); i++)
        CHECK_INT(httpsrv_add_trailer(req, "X-Bad", bad_values[i]), HTTPSRV_ARG);
    if (number_param(req, "n") != 1) CHECK_INT(write_blob(req, 500, 500), HTTPSRV_OK);
    CHECK_INT(httpsrv_add_trailer(req, "X-Sum", HTTPSRV_STR("two")), HTTPSRV_OK);
    CHECK_INT(httpsrv_add_trailer(req, "X-Empty", HTTPSRV_STR("")), HTTPSRV_OK);
    CHECK_INT(httpsrv_end(req), HTTPSRV_OK);
    CHECK_INT(httpsrv_add_trailer(req, "X-Late", HTTPSRV_STR("a")), HTTPSRV_STATE);
}

static void begin_trailers(httpsrv_req *req, void *user) {
    (void)user;
    CHECK_INT(httpsrv_add_trailer(req, "X-Early", HTTPSRV_STR("a")), HTTPSRV_STATE);
    CHECK_INT(httpsrv_begin(req, 200, NULL, number_param(req, "n") == 2 ? 1000 : -1), HTTPSRV_OK);
}

TEST_EACH_WAY(trailers) {
    static const struct play play = {begin_trailers, write_trailers};
    static const struct {
        const char *request;
        size_t len;
        bool sent;
    } cases[] = {
        {"GET /play/0 HTTP/1.1\r\nHost: a\r\n", 1000, true},  {"GET /play/1 HTTP/1.1\r\nHost: a\r\n", 0, true},
        {"GET /play/2 HTTP/1.1\r\nHost: a\r\n", 1000, false}, {"HEAD /play/0 HTTP/1.1\r\nHost: a\r\n", 0, false},
        {"HEAD /play/2 HTTP/1.1\r\nHost: a\r\n", 0, false},   {"GET /play/0 HTTP/1.0\r\n", 1000, false},
    };
    begin_play(&(httpsrv_config){0}, &play);
    for (size_t i = 0; i < ROWS(cases); i++) {
        struct client c = dial(s.port);
        NOTE("%s, %s", way->name, cases[i].request);
        SENDF(&c, "%s\r\n", cases[i].request);
        const struct heard h = hear(&c, cases[i].request[0] == 'H');
        CHECK(h.complete);
        CHECK_INT(h.len, cases[i].len);
        CHECK_STR(h.trailers, cases[i].sent ? "X-Sum: one|X-Sum: two|X-Empty: |" : "");
        if (!c.close) check_hello(&c);
        hang_up(&c);
    }
    end_play();
}

// ---- informational answers ----

static const httpsrv_field hints[] = {{{"Link", 4}, {"</a.css>; rel=preload", 21}},
                                      {{"link", 4}, {"</b.js>; rel=preload", 20}}};

static void inform_first(httpsrv_req *req, void *user) {
    (void)user;
    CHECK_INT(httpsrv_set(req, "X-Final", HTTPSRV_STR("yes")), HTTPSRV_OK);
    CHECK_INT(httpsrv_inform(req, 103, hints, (int)ROWS(hints)), HTTPSRV_OK);
}

static void inform_badly(httpsrv_req *req) {
    static const int statuses[] = {-1, 0, 99, 100, 101, 200, 204, 404, 1103};
    static const httpsrv_field bad[] = {{{"Content-Length", 14}, {"1", 1}},
                                        {{"Transfer-Encoding", 17}, {"chunked", 7}},
                                        {{"a b", 3}, {"c", 1}},
                                        {{"X", 1}, {"a\r\nb", 4}},
                                        {{NULL, 0}, {"c", 1}},
                                        {{"X", 1}, {"\0", 1}}};
    for (size_t i = 0; i < ROWS(statuses); i++)
        CHECK_INT(httpsrv_inform(req, statuses[i], hints, 1), HTTPSRV_ARG);
    for (size_t i = 0; i < ROWS(bad); i++)
        CHECK_INT(httpsrv_inform(req, 103, &bad[i], 1), HTTPSRV_ARG);
    CHECK_INT(httpsrv_inform(req, 103, hints, -1), HTTPSRV_ARG);
}

static void inform_again(httpsrv_req *req, void *user) {
    if (way->place == WORKER) wait_at_gate();
    inform_badly(req);
    CHECK_INT(httpsrv_inform(req, 102, NULL, 0), HTTPSRV_OK);
    CHECK_INT(httpsrv_inform(req, 199, hints, 1), HTTPSRV_OK);
    if (number_param(req, "n") == 0) {
        CHECK_INT(httpsrv_reply(req, 200, NULL, blob_view(100)), HTTPSRV_OK);
    } else {
        CHECK_INT(httpsrv_begin(req, 200, NULL, number_param(req, "n") == 1 ? -1 : 100), HTTPSRV_OK);
        CHECK_INT(httpsrv_inform(req, 103, NULL, 0), HTTPSRV_STATE);
        write_and_end(req, user);
    }
    CHECK_INT(httpsrv_inform(req, 103, NULL, 0), HTTPSRV_STATE);
}

static void check_inform(struct client *c, int status, int links) {
    const struct heard h = hear(c, false);
    CHECK(h.complete);
    CHECK_INT(c->status, status);
    CHECK_INT(count_fields(c, "Link"), links);
    CHECK(field(c, "X-Final") == NULL);
    CHECK(field(c, "Connection") == NULL);
}

TEST_EACH_WAY(informational_answers) {
    static const struct play play = {inform_first, inform_again};
    begin_play(&(httpsrv_config){0}, &play);
    struct client c = dial(s.port);
    for (int i = 0; i < 6; i++) {
        NOTE("%s, case %d", way->name, i);
        SENDF(&c, "%s /play/%d HTTP/1.1\r\nHost: a\r\n\r\n", i == 5 ? "HEAD" : "GET", i % 3);
        check_inform(&c, 103, 2); // while the worker is at the gate
        CHECK_STR(field(&c, "Link"), "</a.css>; rel=preload");
        STORE(s.gate, 1);
        check_inform(&c, 102, 0);
        check_inform(&c, 199, 1);
        const struct heard h = hear(&c, i == 5);
        CHECK_INT(c.status, 200);
        CHECK(h.complete);
        CHECK_INT(h.len, i == 5 ? 0 : 100);
        CHECK_STR(field(&c, "X-Final"), "yes");
        CHECK(field(&c, "Link") == NULL);
        WAIT(LOAD(s.left) == i + 1);
        STORE(s.gate, 0);
    }
    check_hello(&c);
    hang_up(&c);
    STORE(s.gate, 1);
    for (int i = 0; i < 3; i++) {
        struct client old = dial(s.port);
        SENDF(&old, "GET /play/%d HTTP/1.0\r\n\r\n", i);
        CHECK_WHOLE(&old, 200, 100);
        EXPECT_EOF(&old);
        hang_up(&old);
    }
    end_play();
}

static void inform_and_forget(httpsrv_req *req, void *user) {
    (void)user;
    CHECK_INT(httpsrv_inform(req, 103, hints, 1), HTTPSRV_OK);
}

TEST_NOT_POSTED(informed_and_never_answered) {
    static const struct play play = {NULL, inform_and_forget};
    begin_play(&(httpsrv_config){0}, &play);
    struct client c = dial(s.port);
    GET(&c, "/play/0");
    check_inform(&c, 103, 1);
    EXPECT(&c, 500, NULL);
    hang_up(&c);
    end_play();
    CHECK_INT(s.last.items[HTTPSRV_LOG_NO_ANSWER], 1);
}

// ---- out of memory ----

static size_t asked, refused; // allocations since the plan was made, and those refused
static size_t nth;            // the first that is refused, from 1; 0: none
static int lasting;           // and so are all after it

static _Thread_local bool starved; // nothing for this thread

static void *failing_realloc(void *user, void *ptr, size_t old_size, size_t new_size) {
    const size_t first = LOAD(nth);
    if (new_size > 0 && starved) return NULL;
    if (new_size > 0 && first > 0) {
        const size_t number = __atomic_add_fetch(&asked, 1, __ATOMIC_ACQ_REL);
        if (number == first || (number > first && LOAD(lasting))) {
            COUNT(refused);
            return NULL;
        }
    }
    return counting_realloc(user, ptr, old_size, new_size);
}

// A second try, as nothing was taken by the first.
static bool stubborn_write(httpsrv_req *req, size_t at, size_t len) {
    httpsrv_result result = write_blob(req, at, len);
    if (result == HTTPSRV_NOMEM) result = write_blob(req, at, len);
    CHECK(result == HTTPSRV_OK || result == HTTPSRV_GONE || result == HTTPSRV_NOMEM);
    return result == HTTPSRV_OK;
}

static bool stubborn_trailer(httpsrv_req *req) {
    httpsrv_result result = httpsrv_add_trailer(req, "X-Sum", HTTPSRV_STR("one"));
    if (result == HTTPSRV_NOMEM) result = httpsrv_add_trailer(req, "X-Sum", HTTPSRV_STR("one"));
    CHECK(result == HTTPSRV_OK || result == HTTPSRV_NOMEM);
    return result == HTTPSRV_OK;
}

static bool stubborn_end(httpsrv_req *req) {
    httpsrv_result result = httpsrv_end(req);
    if (result == HTTPSRV_NOMEM) result = httpsrv_end(req);
    CHECK(result == HTTPSRV_OK || result == HTTPSRV_GONE || result == HTTPSRV_NOMEM);
    return result == HTTPSRV_OK;
}

#define FAULT_STEP  40000
#define FAULT_TOTAL (5 * FAULT_STEP)

static void write_in_need(httpsrv_req *req, void *user) {
    httpsrv_result result = httpsrv_inform(req, 103, hints, 2);
    (void)user;
    CHECK(result == HTTPSRV_OK || result == HTTPSRV_GONE || result == HTTPSRV_NOMEM);
    result = httpsrv_begin(req, 200, "text/plain", -1);
    if (result == HTTPSRV_NOMEM) result = httpsrv_begin(req, 200, "text/plain", -1);
    if (result != HTTPSRV_OK) {
        CHECK(result == HTTPSRV_GONE || result == HTTPSRV_NOMEM);
        httpsrv_reply(req, 503, NULL, (httpsrv_str){NULL, 0});
        return;
    }
    bool fine = true;
    for (size_t at = 0; at < FAULT_TOTAL && fine; at += FAULT_STEP)
        fine = stubborn_write(req, at, FAULT_STEP);
    fine = fine && stubborn_trailer(req);
    if (fine) fine = stubborn_end(req);
    if (!fine) httpsrv_abort(req); // which is too late if the client has left
}

static void on_play_in_need(httpsrv_req *req, void *user) {
    if (way->place == POSTED && httpsrv_defer(req).id == 0) {
        httpsrv_reply(req, 503, NULL, (httpsrv_str){NULL, 0});
        return;
    }
    on_play(req, user);
}

// Two streams, the second behind the first, to a client that takes its time.
static void talk_in_need(void) {
    struct client c = dial_narrow();
    SEND(&c, "GET /need HTTP/1.1\r\nHost: a\r\n\r\nGET /need HTTP/1.1\r\nHost: a\r\n\r\n");
    test_sleep(1);
    for (int answers = 0; answers < 2 && !c.eof;) {
        const struct heard h = HEAR(&c);
        if (c.status == 103) continue;
        answers++;
        if (c.status != 200 || !h.complete) CHECK_CMP(LOAD(refused), >, 0);
        if (c.status != 200 || !h.complete || c.close) break;
        CHECK_INT(h.len, FAULT_TOTAL);
        CHECK_STR(h.trailers, "X-Sum: one|");
    }
    hang_up(&c);
}

static void live_in_need(const struct play *play, size_t number) {
    begin(&(httpsrv_config){.allocator = {failing_realloc, &s}});
    route("GET /need", on_play_in_need, (void *)(uintptr_t)play);
    go(&s);
    STORE(asked, (size_t)0);
    STORE(refused, (size_t)0);
    STORE(nth, number);
    talk_in_need();
    STORE(nth, (size_t)0);
    WAIT(metrics(&s).connections == 0);
    check_alive(&s);
    end_play();
}

TEST_EACH_WAY(allocations_that_fail) {
    static const struct play play = {NULL, write_in_need};
    for (int last = 0; last <= 1; last++) {
        STORE(lasting, last);
        size_t number = 1;
        do {
            live_in_need(&play, number);
        } while (LOAD(refused) > 0 && number++ < ROUNDS(200));
        CHECK_CMP(number, >, 1);
    }
}

// ---- by printf's rules ----

TEST_EACH_WAY(sizes_of_printed_writes) {
    static const size_t steps[] = {1, 511, 512, 513, 65536, MEGABYTE};
    begin_streams(&(httpsrv_config){.write_mark = {.high = 1000, .low = 100}});
    STORE(printed, 1);
    for (size_t i = 0; i < ROWS(steps); i++) {
        check_size(&(struct order){2 * steps[i], steps[i], false, 0});
        check_size(&(struct order){2 * steps[i], steps[i], true, steps[i]});
    }
    STORE(printed, 0);
    end_play();
}

TEST_EACH_PLACE(printed_writes_of_a_full_queue) {
    begin_streams(&(httpsrv_config){.write_mark = {.high = 1000, .low = 100}});
    STORE(printed, 1);
    struct client c = dial_narrow();
    order_stream(&c, "1.1", &(struct order){ENDLESS, 70000, false, 0});
    wait_until_full(&streams[0]);
    widen(&c);
    CHECK_WHOLE(&c, 200, ENDLESS);
    hang_up(&c);
    STORE(printed, 0);
    end_play();
}

enum { PRINTED = 600 }; // bytes, more than are printed without memory of their own

static httpsrv_result print_blanks(httpsrv_req *req, size_t n) {
    return httpsrv_writef(req, "%*s", (int)n, "");
}

static void print_too_early(httpsrv_req *req, void *user) {
    (void)user;
    CHECK_INT(httpsrv_writef(req, "%d", 7), HTTPSRV_STATE);
    CHECK_INT(print_blanks(req, PRINTED), HTTPSRV_STATE);
    CHECK_INT(httpsrv_begin(req, 200, NULL, number_param(req, "n") ? PRINTED + 2 : -1), HTTPSRV_OK);
}

// What is refused leaves nothing behind: the body is as declared, if it is not exceeded in the end.
static void print_anyway(httpsrv_req *req, void *user) {
    const size_t excess = number_param(req, "n");
    (void)user;
    CHECK_INT(httpsrv_writef(req, "%s", ""), HTTPSRV_OK); // no chunk: that would be the last
    CHECK_INT(print_blanks(req, MEGABYTE + 1), HTTPSRV_ARG);
    CHECK_INT(httpsrv_writef(req, "%lc", (wint_t)0x20ac), HTTPSRV_ARG); // not in the C locale
    starved = true;
    CHECK_INT(print_blanks(req, PRINTED), HTTPSRV_NOMEM);
    CHECK_INT(print_blanks(req, MEGABYTE), HTTPSRV_NOMEM);
    starved = false;
    CHECK_INT(httpsrv_writef(req, "%d%c", 4, '2'), HTTPSRV_OK);
    if (excess < 2) CHECK_INT(print_blanks(req, PRINTED), HTTPSRV_OK);
    if (excess == 0) CHECK_INT(httpsrv_end(req), HTTPSRV_OK);
    if (excess > 0) CHECK_INT(print_blanks(req, excess == 1 ? 1 : PRINTED + 1), HTTPSRV_TOOBIG);
    CHECK_INT(httpsrv_writef(req, "%d", 7), HTTPSRV_STATE);
    CHECK_INT(print_blanks(req, PRINTED), HTTPSRV_STATE);
}

TEST_EACH_WAY(printed_writes_that_are_refused) {
    static const struct play play = {print_too_early, print_anyway};
    char expected[PRINTED + 3];
    snprintf(expected, sizeof expected, "42%*s", PRINTED, "");
    begin_play(&(httpsrv_config){.allocator = {failing_realloc, &s}}, &play);
    struct client c = dial(s.port);
    GET(&c, "/play/0");
    EXPECT(&c, 200, expected);
    check_hello(&c);
    for (int excess = 1; excess <= 2; excess++) {
        NOTE("%s, case %d", way->name, excess);
        SENDF(&c, "GET /play/%d HTTP/1.1\r\nHost: a\r\n\r\n", excess);
        CHECK_CMP(net_until_end(&c), <=, 1000); // nothing of the excess
        hang_up(&c);
        c = dial(s.port);
    }
    hang_up(&c);
    end_play();
    CHECK_INT(s.last.items[HTTPSRV_LOG_BROKEN_OFF], 2);
}

// Of a body that stays behind nothing is kept, so that the server takes no more than it did. On the reactor the first write
// is all that a call-back may have.
static void print_in_vain(httpsrv_req *req, void *user) {
    (void)user;
    CHECK_INT(httpsrv_begin(req, 200, NULL, -1), HTTPSRV_OK);
    const size_t before = LOAD(s.bytes);
    CHECK_INT(print_blanks(req, MEGABYTE), HTTPSRV_OK);
    for (int i = 0; i < 8; i++)
        CHECK_INT(print_blanks(req, MEGABYTE), way->place == WORKER ? HTTPSRV_OK : HTTPSRV_FULL);
    CHECK_CMP(LOAD(s.bytes), <, before + MEGABYTE);
    CHECK_INT(httpsrv_end(req), HTTPSRV_OK);
}

TEST_EACH_PLACE(memory_of_printed_writes_is_given_back) {
    static const struct play play = {NULL, print_in_vain};
    begin_play(&(httpsrv_config){0}, &play);
    struct client c = dial(s.port);
    SEND(&c, "HEAD /play/0 HTTP/1.1\r\nHost: a\r\n\r\n");
    REPLY_HEAD(&c);
    CHECK_INT(c.status, 200);
    check_hello(&c);
    hang_up(&c);
    end_play();
}
