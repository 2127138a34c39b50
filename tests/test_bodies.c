// Bodies as they come: routes with on_body, with media types, and with httpsrv_read on a worker; holding back and going
// on, answering early, late and not at all, what breaks off in the middle, and echoes that stream while they read. Also
// built with ThreadSanitizer.

#define HTTPSRV_IMPLEMENTATION
#include "../httpsrv.h"

#include "server.h"
#include <pthread.h>

#define HOST       "Host: a\r\nX-Test: kept\r\n"
#define TARGET     "/take/7?q=a%20b"
#define CHUNKS     "Transfer-Encoding: chunked\r\n"
#define EXPECTING  "Expect: 100-continue\r\n"
#define MARK       16384   // write_mark.high where memory is measured
#define BOUND      600000  // what a request may take there; bodies are far larger
#define HELD_BYTES 3000000 // more than all buffers between a client and a handler hold where that is measured
#if defined(TEST_ASAN) || defined(TEST_TSAN)
#define QUICK_BYTES 2000000 // of an echo at full speed
#else
#define QUICK_BYTES BLOB_BYTES
#endif
#define SMALL_REST 200000 // is read and dropped, to keep the connection
#define LARGE_REST 2000000

// How a body is taken, and who turns the loops: what is promised has to hold in all of these ways.
struct way {
    const char *name;
    bool worker;  // by httpsrv_read on a worker, else by on_body
    bool alone;   // on_body without a handler
    int reactors; // 0: one, polled by a loop of the test's own
};

static const struct way ways[] = {
    {"on_body, 1 reactor", false, false, 1},      {"on_body alone, 4 reactors", false, true, 4},
    {"on_body, polled", false, false, 0},         {"httpsrv_read, 1 reactor", true, false, 1},
    {"httpsrv_read, 4 reactors", true, false, 4}, {"httpsrv_read, polled", true, false, 0},
};
static const struct way *way;

#define TEST_EACH_WAY(id)   TEST_WAYS(id, true)
#define TEST_ON_BODY(id)    TEST_WAYS(id, !way->worker)
#define TEST_BY_WORKERS(id) TEST_WAYS(id, way->worker)

static struct server s;
static size_t read_size;     // of the buffer for httpsrv_read
static int pieces, lasts;    // calls of on_body, and those that were the last
static size_t taken;         // bytes that handlers have got
static int noticed;          // calls of on_gone's function
static int ended;            // handlers that were told that their request is gone
static int resumed;          // calls of posted handlers
static httpsrv_token token_; // of the last request that was deferred; see token()
static int deferred;

// ---- a server, run in one of the ways ----

static void begin(const httpsrv_config *config) {
    httpsrv_config c = *config;
    c.reactors = way->reactors > 0 ? way->reactors : 1;
    if (!c.pools[0].name) c.pools[0] = (httpsrv_pool_config){.name = "work", .threads = 4};
    read_size = 10007;
    pieces = lasts = noticed = ended = resumed = deferred = 0;
    taken = 0;
    prepare(&s, &c);
    CHECK_INT(httpsrv_on(s.srv, "GET /hello", on_hello, &s), HTTPSRV_OK);
    NOTE("%s", way->name);
}

// Sockets whose buffers do not grow, so that who sends soon feels that it is held back.
static int small_socket(void) {
    const int bytes = 131072, fd = net_socket(AF_INET);
    CHECK_INT(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes), 0);
    CHECK_INT(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes), 0);
    return fd;
}

static struct client dial_small(void) {
    struct client c = net_client(small_socket());
    c.error = net_connect(c.fd, "127.0.0.1", s.port);
    NET_CHECK(&c, c.error == 0, "cannot connect");
    return c;
}

// A server with such sockets: they have it from the one that listens.
static void begin_small(const httpsrv_config *config) {
    struct sockaddr_storage address;
    const socklen_t size = net_address(&address, "127.0.0.1", 0);
    const int fd = small_socket();
    char text[16];
    httpsrv_config c = *config;
    CHECK_INT(bind(fd, (struct sockaddr *)&address, size), 0);
    CHECK_INT(listen(fd, 100), 0);
    snprintf(text, sizeof text, "fd:%d", fd);
    c.listen[0] = text;
    c.write_mark.high = MARK;
    c.write_mark.low = MARK / 4;
    begin(&c);
}

static void add(const httpsrv_route_config *route) {
    httpsrv_route_config config = *route;
    config.user = &s;
    CHECK_INT(httpsrv_route(s.srv, &config), HTTPSRV_OK);
}

// A route that takes its bodies the way the test is run.
static void add_this_way(const httpsrv_route_config *route, httpsrv_handler handler, httpsrv_body_fn on_body,
                         httpsrv_handler worker) {
    httpsrv_route_config config = *route;
    config.stream = way->worker;
    config.pool = way->worker ? "work" : NULL;
    config.handler = way->worker ? worker : way->alone ? NULL : handler;
    config.on_body = way->worker ? NULL : on_body;
    add(&config);
}

static void route(const char *pattern, httpsrv_handler handler, httpsrv_body_fn on_body, httpsrv_handler worker) {
    add_this_way(&(httpsrv_route_config){.pattern = pattern, .max_body = -1}, handler, on_body, worker);
}

static void run(void) {
    if (way->reactors > 0)
        go(&s);
    else
        go_polled(&s);
}

static uint64_t item(httpsrv_log_item id) {
    return LOAD(s.logged[id]);
}

// The connection serves the next request.
static void check_kept(struct client *c) {
    CHECK(!c->close);
    SEND(c, NEXT);
    EXPECT(c, 200, HELLO);
}

// ---- what clients send: bodies are the blob's first bytes ----

enum coding { LENGTH, CHUNKED, DRESSED, CODINGS }; // DRESSED: with extensions and trailers

static const char *const coding_names[] = {"Content-Length", "chunked", "chunked with extensions and trailers"};

struct text {
    char *ptr;
    size_t len, size;
};

static void put(struct text *t, const char *ptr, size_t len) {
    if (t->len + len > t->size) {
        t->size = 2 * (t->len + len);
        t->ptr = (char *)realloc(t->ptr, t->size);
        CHECK(t->ptr != NULL);
    }
    memcpy(t->ptr + t->len, ptr, len);
    t->len += len;
}

__attribute__((format(printf, 2, 3))) static void putf(struct text *t, const char *format, ...) {
    char line[1000];
    va_list args;
    va_start(args, format);
    const int len = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    CHECK(len >= 0 && len < (int)sizeof line);
    put(t, line, (size_t)len);
}

static void drop(struct text *t) {
    free(t->ptr);
    *t = (struct text){0};
}

static void put_chunks(struct text *t, size_t len, enum coding coding) {
    for (size_t at = 0, n; at < len; at += n) {
        n = 1 + (at * 31 + 7) % 40000;
        if (n > len - at) n = len - at;
        putf(t, coding == DRESSED ? "00%zX ; name=\"a;b\";x\r\n" : "%zx\r\n", n);
        put(t, blob + at, n);
        putf(t, "\r\n");
    }
    putf(t, coding == DRESSED ? "0;last\r\nX-Sum: 7\r\nX-More: b\r\n\r\n" : "0\r\n\r\n");
}

static void put_head(struct text *t, const char *target, const char *fields, size_t len, enum coding coding) {
    putf(t, "POST %s HTTP/1.1\r\n" HOST "%s", target, fields);
    if (coding == LENGTH) putf(t, "Content-Length: %zu\r\n\r\n", len);
    if (coding != LENGTH) putf(t, CHUNKS "\r\n");
}

// Returns where the body begins.
static size_t put_request(struct text *t, const char *target, size_t len, enum coding coding) {
    put_head(t, target, "", len, coding);
    const size_t begin = t->len;
    if (coding == LENGTH) put(t, blob, len);
    if (coding != LENGTH) put_chunks(t, len, coding);
    return begin;
}

// Sends until nothing has been taken for a while; returns how much was.
static size_t send_until_held(struct client *c, const struct text *t) {
    size_t sent = 0, n = 1;
    while (n > 0 && sent < t->len) {
        n = net_send_some(c, t->ptr + sent, t->len - sent < 65536 ? t->len - sent : 65536, test_now() + 100);
        sent += n;
    }
    return sent;
}

static size_t memory_before;

static void watch_memory(void) {
    memory_before = LOAD(s.bytes);
    STORE(s.peak, memory_before);
}

static void check_memory(void) {
    CHECK_CMP(LOAD(s.peak), <, memory_before + BOUND);
}

// ---- what is common to those who take a body ----

struct crumb { // of request memory, one with each piece
    struct crumb *next;
    size_t number;
};

struct sink {
    size_t at; // bytes so far
    bool last;
    httpsrv_str method, path, id, query, header, peer; // views of the head
    struct crumb *crumbs;
    size_t num_crumbs;
};

static struct sink *open_sink(httpsrv_req *req) {
    struct sink *k = (struct sink *)httpsrv_alloc(req, sizeof *k);
    CHECK(k != NULL);
    CHECK(httpsrv_attached(req) == NULL);
    CHECK_INT(httpsrv_body(req).len, 0);
    *k = (struct sink){.method = httpsrv_method(req),
                       .path = httpsrv_path(req),
                       .id = httpsrv_param(req, "id"),
                       .query = httpsrv_query(req, "q"),
                       .header = httpsrv_header(req, "X-Test"),
                       .peer = httpsrv_peer(req)};
    httpsrv_attach(req, k);
    COUNT(s.arrived);
    return k;
}

static void leave_crumb(httpsrv_req *req, struct sink *k) {
    struct crumb *crumb = (struct crumb *)httpsrv_alloc(req, sizeof *crumb);
    CHECK(crumb != NULL);
    *crumb = (struct crumb){k->crumbs, k->num_crumbs++};
    k->crumbs = crumb;
}

// All that was read and allocated is as it was.
static void check_sink(httpsrv_req *req, const struct sink *k) {
    size_t number = k->num_crumbs;
    CHECK(httpsrv_attached(req) == k);
    CHECK(httpsrv_server(req) == s.srv);
    CHECK_VIEW(k->path, "/take/7");
    CHECK_VIEW(k->id, "7");
    CHECK_VIEW(k->query, "a b");
    CHECK_VIEW(k->header, "kept");
    CHECK_VIEW(k->peer, "127.0.0.1");
    CHECK_VIEW(httpsrv_header(req, "x-test"), "kept");
    CHECK_MEM(k->method.ptr, k->method.len, httpsrv_method(req).ptr, httpsrv_method(req).len);
    for (const struct crumb *crumb = k->crumbs; crumb; crumb = crumb->next)
        CHECK_INT(crumb->number, --number);
    CHECK_INT(number, 0);
}

static void check_piece(size_t at, httpsrv_str piece) {
    CHECK_CMP(at + piece.len, <=, BLOB_BYTES);
    CHECK(piece.len == 0 || memcmp(piece.ptr, blob + at, piece.len) == 0);
    __atomic_add_fetch(&taken, piece.len, __ATOMIC_ACQ_REL);
}

static void take(httpsrv_req *req, struct sink *k, httpsrv_str piece) {
    CHECK(!k->last);
    check_piece(k->at, piece);
    k->at += piece.len;
    if (k->num_crumbs < 100) leave_crumb(req, k);
    check_sink(req, k);
}

static void say_taken(httpsrv_req *req, const struct sink *k) {
    const httpsrv_str sum = httpsrv_trailer(req, "X-Sum"), none = HTTPSRV_STR("-");
    const httpsrv_str said = sum.ptr ? sum : none;
    check_sink(req, k);
    CHECK_INT(httpsrv_replyf(req, 200, "text/plain", "%zu %.*s", k->at, HTTPSRV_FMT(said)), HTTPSRV_OK);
}

static void on_take_head(httpsrv_req *req, void *user) {
    (void)user;
    open_sink(req);
}

static void count_piece(httpsrv_str piece, bool last, const void *user) {
    CHECK(user == &s);
    CHECK(piece.len > 0 || last);
    COUNT(pieces);
    if (last) COUNT(lasts);
}

// The sink of a request, which the handler has opened, or the first piece if there is no handler.
static struct sink *sink_of(httpsrv_req *req) {
    struct sink *k = (struct sink *)httpsrv_attached(req);
    if (k) return k;
    CHECK(way->alone);
    return open_sink(req);
}

static void on_take_piece(httpsrv_req *req, httpsrv_str piece, bool last, void *user) {
    struct sink *k = sink_of(req);
    take(req, k, piece);
    k->last = last;
    count_piece(piece, last, user);
    if (last) say_taken(req, k);
}

static ptrdiff_t read_all(httpsrv_req *req, struct sink *k, size_t size) {
    char *buf = (char *)malloc(size);
    ptrdiff_t n;
    CHECK(buf != NULL);
    while ((n = httpsrv_read(req, buf, size)) > 0) {
        const httpsrv_str piece = {buf, (size_t)n};
        CHECK_CMP(n, <=, size);
        take(req, k, piece);
    }
    CHECK_INT(httpsrv_read(req, buf, size), n); // again
    free(buf);
    return n;
}

static void on_take_all(httpsrv_req *req, void *user) {
    struct sink *k = open_sink(req);
    CHECK(user == &s);
    CHECK_INT(read_all(req, k, LOAD(read_size)), 0);
    say_taken(req, k);
}

static void serve_take(void) {
    begin(&(httpsrv_config){0});
    route("* /take/:id", on_take_head, on_take_piece, on_take_all);
    run();
}

static void expect_taken(struct client *c, size_t len, enum coding coding) {
    char body[50];
    snprintf(body, sizeof body, "%zu %s", len, coding == DRESSED ? "7" : "-");
    EXPECT(c, 200, body);
}

// ---- bodies that arrive as they should ----

TEST_EACH_WAY(bodies_of_all_sizes) {
    static const size_t sizes[] = {0, 1, 2, 1000, 65535, 65536, 65537, 262143, 262144, 262145, 3000000};
    serve_take();
    struct client c = dial(s.port);
    for (size_t i = 0; i < ROWS(sizes) * CODINGS; i++) {
        struct text t = {0};
        const size_t len = sizes[i / CODINGS];
        const enum coding coding = (enum coding)(i % CODINGS);
        NOTE("%s, %zu bytes, %s", way->name, len, coding_names[coding]);
        put_request(&t, TARGET, len, coding);
        net_send(&c, t.ptr, t.len);
        expect_taken(&c, len, coding);
        drop(&t);
    }
    check_kept(&c);
    hang_up(&c);
    finish(&s);
    CHECK_INT(s.arrived, ROWS(sizes) * CODINGS);
    if (!way->worker) CHECK_INT(lasts, ROWS(sizes) * CODINGS);
}

TEST_EACH_WAY(split_at_every_byte) {
    serve_take();
    struct client c = dial(s.port);
    for (int coding = 0; coding < CODINGS; coding++) {
        struct text t = {0};
        const size_t head = put_request(&t, TARGET, 20, (enum coding)coding);
        putf(&t, NEXT);
        for (size_t at = head - 3; at < t.len; at++) {
            NOTE("%s, %s, split at %zu", way->name, coding_names[coding], at - head);
            send_seen(&s, &c, t.ptr, at);
            net_send(&c, t.ptr + at, t.len - at);
            expect_taken(&c, 20, (enum coding)coding);
            EXPECT(&c, 200, HELLO);
        }
        drop(&t);
    }
    hang_up(&c);
    finish(&s);
}

TEST_EACH_WAY(byte_by_byte) {
    serve_take();
    struct client c = dial(s.port);
    for (int coding = 0; coding < CODINGS; coding++) {
        struct text t = {0};
        NOTE("%s, %s", way->name, coding_names[coding]);
        put_request(&t, TARGET, 50, (enum coding)coding);
        net_send_split(&c, t.ptr, t.len, 1);
        expect_taken(&c, 50, (enum coding)coding);
        drop(&t);
    }
    check_kept(&c);
    hang_up(&c);
    finish(&s);
}

static void put_tiny_chunks(struct text *t, size_t count) {
    put_head(t, TARGET, "", 0, CHUNKED);
    for (size_t i = 0; i < count; i++)
        putf(t, "1\r\n%c\r\n", blob[i]);
    putf(t, "0\r\n\r\n");
}

TEST_EACH_WAY(tiny_chunks) {
    enum { TINY = 40000 };
    struct text t = {0};
    serve_take();
    put_tiny_chunks(&t, TINY);
    struct client c = dial(s.port);
    net_send(&c, t.ptr, t.len);
    expect_taken(&c, TINY, CHUNKED);
    check_kept(&c);
    drop(&t);
    hang_up(&c);
    finish(&s);
}

TEST_EACH_WAY(no_body) {
    static const char *const rows[] = {
        "GET " TARGET " HTTP/1.1\r\n" HOST "\r\n",
        "DELETE " TARGET " HTTP/1.1\r\n" HOST "\r\n",
        "POST " TARGET " HTTP/1.1\r\n" HOST "\r\n",
        "POST " TARGET " HTTP/1.1\r\n" HOST "Content-Length: 0\r\n\r\n",
        "POST " TARGET " HTTP/1.1\r\n" HOST CHUNKS "\r\n0\r\n\r\n",
        "HEAD " TARGET " HTTP/1.1\r\n" HOST "\r\n",
    };
    serve_take();
    struct client c = dial(s.port);
    for (size_t i = 0; i < ROWS(rows); i++) {
        NOTE("%s, row %zu", way->name, i);
        SEND(&c, rows[i]);
        if (*rows[i] == 'H')
            REPLY_HEAD(&c);
        else
            expect_taken(&c, 0, LENGTH);
        CHECK_INT(c.status, 200);
        if (!way->worker) CHECK_INT(LOAD(lasts), i + 1);
        if (!way->worker) CHECK_INT(LOAD(pieces), i + 1);
        check_kept(&c);
    }
    hang_up(&c);
    finish(&s);
}

TEST_EACH_WAY(handler_runs_at_the_head) {
    struct text t = {0};
    serve_take();
    const size_t head = put_request(&t, TARGET, 5, LENGTH);
    struct client c = dial(s.port);
    send_seen(&s, &c, t.ptr, head);
    if (!way->alone) WAIT(LOAD(s.arrived) == 1);
    EXPECT_SILENCE(&c, 20);
    CHECK_INT(LOAD(pieces), 0);
    CHECK_INT(LOAD(taken), 0);
    for (size_t i = 0; i < 4; i++) {
        net_send(&c, t.ptr + head + i, 1);
        WAIT(LOAD(taken) == i + 1); // each byte is handed on as it comes
        CHECK_INT(LOAD(lasts), 0);
    }
    net_send(&c, t.ptr + head + 4, 1);
    expect_taken(&c, 5, LENGTH);
    drop(&t);
    hang_up(&c);
    finish(&s);
}

// Another client's requests, which overwrite whatever is shared: one of them 5 KB of it.
static void make_noise(int requests) {
    struct text t = {0};
    struct client c = dial(s.port);
    for (int i = 0; i < requests; i++) {
        putf(&t, "GET /hello?");
        for (int k = 0; k < 1000; k++)
            putf(&t, "noise");
        putf(&t, " HTTP/1.1\r\nHost: noise\r\n\r\n");
    }
    net_send(&c, t.ptr, t.len);
    for (int i = 0; i < requests; i++)
        EXPECT(&c, 200, HELLO);
    drop(&t);
    hang_up(&c);
}

TEST_EACH_WAY(views_and_memory_outlive_what_others_send) {
    struct text t = {0};
    serve_take();
    const size_t head = put_request(&t, TARGET, 100, DRESSED);
    struct client c = dial(s.port);
    send_seen(&s, &c, t.ptr, head);
    for (size_t at = head; at < t.len; at++) {
        net_send(&c, t.ptr + at, 1);
        make_noise(1);
    }
    expect_taken(&c, 100, DRESSED);
    drop(&t);
    hang_up(&c);
    finish(&s);
}

TEST_EACH_WAY(pipelined) {
    enum { REQUESTS = 40 };
    struct text t = {0};
    serve_take();
    for (size_t i = 0; i < REQUESTS; i++) {
        put_request(&t, TARGET, i * i * i % 20011, (enum coding)(i % CODINGS));
        if (i % 3 == 0) putf(&t, NEXT);
    }
    struct client c = dial(s.port);
    net_send(&c, t.ptr, t.len);
    for (size_t i = 0; i < REQUESTS; i++) {
        expect_taken(&c, i * i * i % 20011, (enum coding)(i % CODINGS));
        if (i % 3 == 0) EXPECT(&c, 200, HELLO);
    }
    drop(&t);
    hang_up(&c);
    finish(&s);
}

// More than there are workers, which wait for slow clients as well.
TEST_EACH_WAY(many_at_once) {
    enum { CLIENTS = 30, SLICES = 20 };
    struct client c[CLIENTS];
    struct text t[CLIENTS] = {{0}};
    serve_take();
    for (size_t i = 0; i < CLIENTS; i++) {
        put_request(&t[i], TARGET, i * 700, (enum coding)(i % CODINGS));
        c[i] = dial(s.port);
    }
    for (size_t k = 0; k < SLICES; k++)
        for (size_t i = 0; i < CLIENTS; i++) {
            const size_t from = t[i].len * k / SLICES, to = t[i].len * (k + 1) / SLICES;
            net_send(&c[i], t[i].ptr + from, to - from);
        }
    for (size_t i = 0; i < CLIENTS; i++) {
        expect_taken(&c[i], i * 700, (enum coding)(i % CODINGS));
        drop(&t[i]);
        hang_up(&c[i]);
    }
    finish(&s);
}

// Requests that wait for a place in the queue keep their bodies.
TEST_BY_WORKERS(waiting_for_a_place) {
    enum { CLIENTS = 12 };
    struct client c[CLIENTS];
    struct text t = {0};
    begin(&(httpsrv_config){.pools = {{.name = "work", .threads = 1, .queue = 2}}});
    add(&(httpsrv_route_config){.pattern = "POST /take/:id",
                                .handler = on_take_all,
                                .stream = true,
                                .pool = "work",
                                .overload = HTTPSRV_OVERLOAD_WAIT});
    run();
    put_request(&t, TARGET, 100000, CHUNKED);
    for (int i = 0; i < CLIENTS; i++) {
        c[i] = dial(s.port);
        net_send(&c[i], t.ptr, 1000);
    }
    WAIT(item(HTTPSRV_LOG_WAITS) >= CLIENTS - 3); // one is with the worker, two are in the queue
    for (int i = CLIENTS - 1; i >= 0; i--)
        net_send(&c[i], t.ptr + 1000, t.len - 1000);
    for (int i = 0; i < CLIENTS; i++) {
        expect_taken(&c[i], 100000, CHUNKED);
        hang_up(&c[i]);
    }
    drop(&t);
    finish(&s);
}

// ---- httpsrv_read ----

TEST_BY_WORKERS(read_sizes) {
    static const size_t sizes[] = {1, 3, 7, 1000, 4095, 65536, 1 << 20};
    serve_take();
    struct client c = dial(s.port);
    for (size_t i = 0; i < ROWS(sizes) * CODINGS; i++) {
        struct text t = {0};
        const size_t len = sizes[i / CODINGS] < 100 ? 5000 : 700001;
        NOTE("%s, reads of %zu bytes", way->name, sizes[i / CODINGS]);
        STORE(read_size, sizes[i / CODINGS]);
        put_request(&t, TARGET, len, (enum coding)(i % CODINGS));
        net_send(&c, t.ptr, t.len);
        expect_taken(&c, len, (enum coding)(i % CODINGS));
        drop(&t);
    }
    hang_up(&c);
    finish(&s);
}

// A read of nothing loses nothing, and waits for nothing.
static void on_read_nothing(httpsrv_req *req, void *user) {
    struct sink *k = open_sink(req);
    char byte;
    CHECK(user == &s);
    CHECK_INT(httpsrv_read(req, &byte, 0), HTTPSRV_ARG);
    COUNT(s.left);
    CHECK_INT(httpsrv_read(req, &byte, 1), 1);
    take(req, k, (httpsrv_str){&byte, 1});
    CHECK_INT(httpsrv_read(req, &byte, 0), HTTPSRV_ARG);
    CHECK_INT(read_all(req, k, 100), 0);
    CHECK_INT(httpsrv_read(req, &byte, 0), HTTPSRV_ARG);
    say_taken(req, k);
}

TEST_BY_WORKERS(read_nothing) {
    struct text t = {0};
    begin(&(httpsrv_config){0});
    route("POST /take/:id", NULL, NULL, on_read_nothing);
    run();
    const size_t head = put_request(&t, TARGET, 1000, CHUNKED);
    struct client c = dial(s.port);
    net_send(&c, t.ptr, head);
    WAIT(LOAD(s.left) == 1);
    net_send(&c, t.ptr + head, t.len - head);
    expect_taken(&c, 1000, CHUNKED);
    check_kept(&c);
    drop(&t);
    hang_up(&c);
    finish(&s);
}

static void check_not_here(httpsrv_req *req) {
    char byte;
    CHECK_INT(httpsrv_read(req, &byte, 1), HTTPSRV_STATE);
}

static void check_no_pause(httpsrv_req *req) {
    CHECK_INT(httpsrv_body_pause(req), HTTPSRV_STATE);
    CHECK_INT(httpsrv_body_resume(req), HTTPSRV_STATE);
}

static void on_whole_body(httpsrv_req *req, void *user) {
    check_not_here(req);
    check_no_pause(req);
    CHECK_INT(httpsrv_body(req).len, 5);
    on_echo(req, user);
}

static void on_piece_not_here(httpsrv_req *req, httpsrv_str piece, bool last, void *user) {
    (void)piece;
    (void)user;
    check_not_here(req);
    if (last) check_no_pause(req);
    if (last) CHECK_INT(httpsrv_reply(req, 200, NULL, HTTPSRV_STR("hello")), HTTPSRV_OK);
}

static void on_stream_no_pause(httpsrv_req *req, void *user) {
    char buf[9];
    (void)user;
    check_no_pause(req);
    CHECK_INT(httpsrv_read(req, buf, sizeof buf), 5);
    CHECK_INT(httpsrv_read(req, buf, sizeof buf), 0);
    check_no_pause(req);
    CHECK_INT(httpsrv_reply(req, 200, NULL, HTTPSRV_STR("hello")), HTTPSRV_OK);
}

TEST(what_is_not_possible_where) {
    way = ways;
    begin(&(httpsrv_config){0});
    add(&(httpsrv_route_config){.pattern = "POST /inline", .handler = on_whole_body});
    add(&(httpsrv_route_config){.pattern = "POST /worker", .handler = on_whole_body, .pool = "work"});
    add(&(httpsrv_route_config){.pattern = "POST /pieces", .on_body = on_piece_not_here});
    add(&(httpsrv_route_config){
        .pattern = "POST /stream", .handler = on_stream_no_pause, .pool = "work", .stream = true});
    run();
    struct client c = dial(s.port);
    static const char *const targets[] = {"/inline", "/worker", "/pieces", "/stream"};
    for (size_t i = 0; i < ROWS(targets); i++) {
        NOTE("%s", targets[i]);
        SENDF(&c, "POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", targets[i]);
        EXPECT(&c, 200, "hello");
    }
    hang_up(&c);
    finish(&s);
}

// ---- holding back ----

// A worker that comes late to its body.
static void on_take_at_gate(httpsrv_req *req, void *user) {
    COUNT(s.left);
    while (!LOAD(s.gate))
        test_sleep(1);
    on_take_all(req, user);
}

// The client is held back for longer than the time-out, which is not its fault.
static void hold_back(struct client *c, const struct text *t, void (*let_go)(void)) {
    watch_memory();
    const size_t sent = send_until_held(c, t);
    CHECK_CMP(sent, <, t->len);
    test_sleep(test_ms(700));
    CHECK_CMP(LOAD(taken), <, t->len / 2);
    check_memory();
    let_go();
    net_send(c, t->ptr + sent, t->len - sent);
    expect_taken(c, HELD_BYTES, CHUNKED);
    check_memory();
    check_kept(c);
}

static void hold_back_each_coding(void (*let_go)(void)) {
    for (int coding = 0; coding < DRESSED; coding++) {
        struct text t = {0};
        struct client c = dial_small();
        NOTE("%s, %s", way->name, coding_names[coding]);
        STORE(taken, 0);
        STORE(s.gate, 0);
        put_request(&t, TARGET, HELD_BYTES, (enum coding)coding);
        hold_back(&c, &t, let_go);
        drop(&t);
        hang_up(&c);
    }
}

static void open_gate(void) {
    STORE(s.gate, 1);
}

TEST_BY_WORKERS(slow_worker_holds_the_client_back) {
    begin_small(&(httpsrv_config){.timeout_ms.body = test_ms(300)});
    route("POST /take/:id", NULL, NULL, on_take_at_gate);
    run();
    hold_back_each_coding(open_gate);
    finish(&s);
}

// What is kept for each piece counts as well.
TEST_BY_WORKERS(tiny_chunks_to_a_slow_worker) {
    enum { TINY = 300000 };
    struct text t = {0};
    begin_small(&(httpsrv_config){.timeout_ms.body = test_ms(300)});
    route("POST /take/:id", NULL, NULL, on_take_at_gate);
    run();
    put_tiny_chunks(&t, TINY);
    struct client c = dial_small();
    watch_memory();
    const size_t sent = send_until_held(&c, &t);
    check_memory();
    open_gate();
    net_send(&c, t.ptr + sent, t.len - sent);
    expect_taken(&c, TINY, CHUNKED);
    drop(&t);
    hang_up(&c);
    finish(&s);
}

static httpsrv_token token(void) {
    return (httpsrv_token){__atomic_load_n(&token_.id, __ATOMIC_ACQUIRE)};
}

static void defer_and_keep(httpsrv_req *req) {
    const httpsrv_token got = httpsrv_defer(req);
    CHECK(got.id != 0);
    __atomic_store_n(&token_.id, got.id, __ATOMIC_RELEASE);
    COUNT(deferred);
}

static void on_pause_piece(httpsrv_req *req, httpsrv_str piece, bool last, void *user) {
    struct sink *k = (struct sink *)httpsrv_attached(req);
    if (!k) defer_and_keep(req);
    if (!last && !LOAD(s.gate)) CHECK_INT(httpsrv_body_pause(req), HTTPSRV_OK);
    on_take_piece(req, piece, last, user);
    if (last) CHECK_INT(httpsrv_body_pause(req), HTTPSRV_STATE);
    if (last) CHECK_INT(httpsrv_body_resume(req), HTTPSRV_STATE);
}

static void on_resume(httpsrv_req *req, void *user) {
    CHECK(user == &s);
    if (req) check_sink(req, (struct sink *)httpsrv_attached(req));
    if (req) check_not_here(req);
    if (req) CHECK_INT(httpsrv_body_resume(req), HTTPSRV_OK);
    COUNT(resumed);
}

static void post_resume(void) {
    CHECK_INT(httpsrv_post(s.srv, token(), on_resume, &s), HTTPSRV_OK);
}

static void resume_for_good(void) {
    open_gate();
    post_resume();
}

TEST_WAYS(pause_holds_the_client_back, way->alone) {
    begin_small(&(httpsrv_config){.timeout_ms.body = test_ms(300)});
    route("POST /take/:id", NULL, on_pause_piece, NULL);
    run();
    hold_back_each_coding(resume_for_good);
    finish(&s);
}

// A client that was held back has the full time for what comes next, although nothing of it is there yet.
TEST_WAYS(time_out_begins_when_the_body_is_wanted_again, way->worker || way->alone) {
    enum { LEN = 3 * MARK };
    const size_t first = way->worker ? 2 * MARK : 10; // enough for it
    struct text t = {0};
    begin_small(&(httpsrv_config){.timeout_ms.body = test_ms(400)});
    route("POST /take/:id", NULL, on_pause_piece, on_take_at_gate);
    run();
    const size_t head = put_request(&t, TARGET, LEN, LENGTH);
    struct client c = dial(s.port);
    net_send(&c, t.ptr, head + first);
    test_sleep(test_ms(800));
    (way->worker ? open_gate : resume_for_good)();
    test_sleep(test_ms(60));
    net_send(&c, t.ptr + head + first, t.len - head - first);
    expect_taken(&c, LEN, LENGTH);
    drop(&t);
    hang_up(&c);
    finish(&s);
}

// Chunks that have come together are handed out one at a time.
TEST_WAYS(pause_after_each_piece, way->alone) {
    enum { TINY = 20 };
    struct text t = {0};
    begin(&(httpsrv_config){0});
    route("POST /take/:id", NULL, on_pause_piece, NULL);
    run();
    put_tiny_chunks(&t, TINY);
    putf(&t, NEXT);
    struct client c = dial(s.port);
    for (int round = 0; round < 3; round++) {
        STORE(pieces, 0);
        net_send(&c, t.ptr, t.len);
        WAIT(LOAD(deferred) == round + 1);
        for (int i = 1; i <= TINY; i++) {
            WAIT(LOAD(pieces) == i);
            test_sleep(i % 4 == 0 ? 3 : 0);
            CHECK_INT(LOAD(pieces), i);
            CHECK_INT(LOAD(lasts), round);
            post_resume();
        }
        expect_taken(&c, TINY, CHUNKED);
        CHECK_CMP(LOAD(pieces), <=, TINY + 1);
        EXPECT(&c, 200, HELLO);
    }
    drop(&t);
    hang_up(&c);
    finish(&s);
}

// Pausing and resuming at once changes nothing; both may be said twice.
static void on_pause_idly(httpsrv_req *req, httpsrv_str piece, bool last, void *user) {
    for (int i = 0; i < 2 && !last; i++)
        CHECK_INT(httpsrv_body_pause(req), HTTPSRV_OK);
    for (int i = 0; i < 2 && !last; i++)
        CHECK_INT(httpsrv_body_resume(req), HTTPSRV_OK);
    on_take_piece(req, piece, last, user);
}

TEST_ON_BODY(pause_and_resume_at_once) {
    struct text t = {0};
    begin(&(httpsrv_config){0});
    route("POST /take/:id", on_take_head, on_pause_idly, NULL);
    run();
    put_request(&t, TARGET, 1000000, DRESSED);
    struct client c = dial(s.port);
    for (int i = 0; i < 3; i++) {
        net_send(&c, t.ptr, t.len);
        expect_taken(&c, 1000000, DRESSED);
    }
    check_kept(&c);
    drop(&t);
    hang_up(&c);
    finish(&s);
}

static void on_pause_for_ever(httpsrv_req *req, httpsrv_str piece, bool last, void *user) {
    count_piece(piece, last, user);
    CHECK_INT(httpsrv_body_pause(req), HTTPSRV_OK);
}

// That is no answer.
TEST_ON_BODY(pause_that_nobody_can_end) {
    begin(&(httpsrv_config){0});
    route("POST /take/:id", on_take_head, on_pause_for_ever, NULL);
    run();
    for (int i = 1; i <= 3; i++) {
        struct client c = dial(s.port);
        SENDF(&c, "POST /take/7 HTTP/1.1\r\n" HOST "Content-Length: 1000\r\n\r\n%.*s", i == 2 ? 999 : 500, blob);
        EXPECT(&c, 500, NULL);
        hang_up(&c);
        CHECK_INT(LOAD(pieces), i);
    }
    finish(&s);
    CHECK_INT(s.last.items[HTTPSRV_LOG_NO_ANSWER], 3);
}

static void on_pause_at_head(httpsrv_req *req, void *user) {
    on_take_head(req, user);
    defer_and_keep(req);
    CHECK_INT(httpsrv_body_pause(req), HTTPSRV_OK);
}

// The body waits until it is wanted, and so does the 100.
TEST_WAYS(pause_at_the_head, !way->worker && !way->alone) {
    begin(&(httpsrv_config){0});
    route("POST /take/:id", on_pause_at_head, on_take_piece, NULL);
    run();
    struct client c = dial(s.port);
    for (int i = 1; i <= 6; i++) {
        struct text t = {0};
        put_head(&t, TARGET, i % 2 ? EXPECTING : "", 1000, LENGTH);
        if (i % 2 == 0) put(&t, blob, 1000);
        net_send(&c, t.ptr, t.len);
        WAIT(LOAD(deferred) == i);
        EXPECT_SILENCE(&c, 10);
        CHECK_INT(LOAD(taken), (i - 1) * 1000);
        post_resume();
        if (i % 2) EXPECT(&c, 100, NULL);
        if (i % 2) net_send(&c, blob, 1000);
        expect_taken(&c, 1000, LENGTH);
        drop(&t);
    }
    hang_up(&c);
    finish(&s);
}

static void count_notice(void *arg) {
    CHECK(arg == &s);
    COUNT(noticed);
}

static void on_pause_watched(httpsrv_req *req, httpsrv_str piece, bool last, void *user) {
    if (!httpsrv_attached(req)) CHECK_INT(httpsrv_on_gone(req, count_notice, &s), HTTPSRV_OK);
    on_pause_piece(req, piece, last, user);
}

TEST_WAYS(pause_and_the_client_leaves, way->alone) {
    static const httpsrv_answer late = {.status = 200};
    struct text t = {0};
    begin(&(httpsrv_config){0});
    route("POST /take/:id", NULL, on_pause_watched, NULL);
    run();
    put_request(&t, TARGET, 100000, CHUNKED);
    for (int i = 1; i <= 5; i++) {
        struct client c = dial(s.port);
        net_send(&c, t.ptr, t.len / 2);
        WAIT(LOAD(deferred) == i);
        net_reset(&c);
        WAIT(LOAD(noticed) == i);
        post_resume(); // comes too late
        WAIT(LOAD(resumed) == i);
        CHECK_INT(httpsrv_finish(s.srv, token(), &late), HTTPSRV_GONE);
        CHECK_INT(LOAD(pieces), i);
        WAIT(metrics(&s).connections == 0);
    }
    drop(&t);
    finish(&s);
}

// ---- answering early ----

static void say_early(httpsrv_req *req) {
    CHECK_INT(httpsrv_reply(req, 200, NULL, HTTPSRV_STR("early")), HTTPSRV_OK);
}

static void on_say_early(httpsrv_req *req, void *user) {
    (void)user;
    say_early(req);
}

// The first piece is answered; there must be no second.
static void on_piece_say_early(httpsrv_req *req, httpsrv_str piece, bool last, void *user) {
    count_piece(piece, last, user);
    CHECK(httpsrv_attached(req) == NULL);
    httpsrv_attach(req, &s);
    say_early(req);
}

static void on_never_called(httpsrv_req *req, httpsrv_str piece, bool last, void *user) {
    (void)req, (void)user;
    FAIL("on_body after the answer, %zu bytes%s", piece.len, last ? ", last" : "");
}

static void on_read_one_say_early(httpsrv_req *req, void *user) {
    char byte;
    (void)user;
    CHECK_INT(httpsrv_read(req, &byte, 1), 1);
    say_early(req);
}

static void on_take_no_head(httpsrv_req *req, void *user) {
    (void)req, (void)user;
}

// By the handler, and in the middle: what comes behind the first byte is the rest.
static void route_early(void) {
    route("POST /head", on_say_early, way->alone ? on_piece_say_early : on_never_called, on_say_early);
    route("POST /middle", on_take_no_head, on_piece_say_early, on_read_one_say_early);
}

static const char *const early_targets[] = {"/head", "/middle"};

static void begin_early(void) {
    begin(&(httpsrv_config){0});
    route_early();
    run();
}

TEST_EACH_WAY(early_answer_and_a_small_rest) {
    static const size_t sizes[] = {2, 1000, SMALL_REST};
    begin_early();
    struct client c = dial(s.port);
    for (size_t i = 0; i < ROWS(sizes) * CODINGS * 4; i++) {
        const size_t len = sizes[i / 4 / CODINGS];
        const enum coding coding = (enum coding)(i / 4 % CODINGS);
        const char *target = early_targets[i % 2];
        const bool at_once = i / 2 % 2 == 0;
        struct text t = {0};
        NOTE("%s, %s, %zu bytes, %s, %s", way->name, target, len, coding_names[coding], at_once ? "at once" : "later");
        const size_t head = put_request(&t, target, len, coding);
        const size_t first = at_once ? t.len : head + (coding == LENGTH ? 1 : 28); // a byte of the body at least
        net_send(&c, t.ptr, first < t.len ? first : t.len);
        EXPECT(&c, 200, "early");
        if (first < t.len) net_send(&c, t.ptr + first, t.len - first);
        check_kept(&c);
        drop(&t);
    }
    hang_up(&c);
    finish(&s);
    if (!way->worker) CHECK_INT(pieces, ROWS(sizes) * CODINGS * (way->alone ? 4 : 2));
}

TEST_EACH_WAY(early_answer_and_a_large_rest) {
    begin_early();
    for (int i = 0; i < 8; i++) {
        const enum coding coding = i / 2 % 2 ? CHUNKED : LENGTH;
        struct text t = {0};
        struct client c = dial(s.port);
        NOTE("%s, %s, %s, %s", way->name, early_targets[i % 2], coding_names[coding], i < 4 ? "at once" : "later");
        const size_t head = put_request(&t, early_targets[i % 2], LARGE_REST, coding);
        const size_t first = i < 4 ? 0 : head + 100;
        net_send(&c, t.ptr, first);
        if (first > 0) EXPECT(&c, 200, "early");
        (void)net_send_some(&c, t.ptr + first, t.len - first, net_deadline());
        if (first == 0) EXPECT(&c, 200, "early");
        if (coding == LENGTH) CHECK(c.close);
        EXPECT_END(&c);
        hang_up(&c);
        drop(&t);
    }
    check_alive(&s);
    finish(&s);
}

// A rest that never comes does not hold up anybody for long.
TEST_EACH_WAY(early_answer_and_the_rest_does_not_come) {
    begin(&(httpsrv_config){.timeout_ms.body = test_ms(200), .timeout_ms.idle = test_ms(200)});
    route_early();
    run();
    for (size_t i = 0; i < ROWS(early_targets); i++) {
        struct text t = {0};
        struct client c = dial(s.port);
        NOTE("%s, %s", way->name, early_targets[i]);
        put_request(&t, early_targets[i], 1000, LENGTH);
        net_send(&c, t.ptr, t.len - 1);
        EXPECT(&c, 200, "early");
        EXPECT_END(&c);
        WAIT(metrics(&s).connections == 0);
        hang_up(&c);
        drop(&t);
    }
    finish(&s);
}

// What was not read as a body must not be read as a request.
TEST_EACH_WAY(rest_is_no_request) {
    begin_early();
    for (size_t i = 0; i < ROWS(early_targets); i++) {
        struct client c = dial(s.port);
        SENDF(&c, "POST %s HTTP/1.1\r\n" HOST "Content-Length: %zu\r\n\r\n%s", early_targets[i], strlen(NEXT), NEXT);
        EXPECT(&c, 200, "early");
        EXPECT_SILENCE(&c, 20);
        CHECK_INT(LOAD(s.handled), i);
        check_kept(&c);
        hang_up(&c);
    }
    finish(&s);
}

// ---- no answer ----

static void on_piece_say_nothing(httpsrv_req *req, httpsrv_str piece, bool last, void *user) {
    (void)req;
    count_piece(piece, last, user);
}

static void on_read_say_nothing(httpsrv_req *req, void *user) {
    char buf[100];
    (void)user;
    while (httpsrv_read(req, buf, sizeof buf) > 0)
        continue;
}

TEST_EACH_WAY(no_answer) {
    struct text t = {0};
    begin(&(httpsrv_config){0});
    route("* /all", on_take_no_head, on_piece_say_nothing, on_read_say_nothing);
    route("* /none", on_take_no_head, on_piece_say_nothing, on_take_no_head);
    run();
    put_request(&t, "/all", 1000, CHUNKED);
    put_request(&t, "/none", 1000, LENGTH);
    putf(&t, "GET /all HTTP/1.1\r\nHost: a\r\n\r\n");
    struct client c = dial(s.port);
    net_send(&c, t.ptr, t.len);
    for (int i = 0; i < 3; i++)
        EXPECT(&c, 500, NULL);
    check_kept(&c);
    CHECK_INT(item(HTTPSRV_LOG_NO_ANSWER), 3);
    if (!way->worker) CHECK_INT(LOAD(lasts), 3);
    drop(&t);
    hang_up(&c);
    finish(&s);
}

// ---- answering later ----

static void on_defer_head(httpsrv_req *req, void *user) {
    (void)user;
    open_sink(req);
    CHECK_INT(httpsrv_on_gone(req, count_notice, &s), HTTPSRV_OK);
    defer_and_keep(req);
}

static void on_defer_piece(httpsrv_req *req, httpsrv_str piece, bool last, void *user) {
    if (!httpsrv_attached(req)) on_defer_head(req, user);
    struct sink *k = (struct sink *)httpsrv_attached(req);
    take(req, k, piece);
    k->last = last;
    count_piece(piece, last, user);
}

static httpsrv_result answer(const char *text) {
    const httpsrv_answer a = {.status = 200, .body = {text, strlen(text)}};
    return httpsrv_finish(s.srv, token(), &a);
}

static void begin_deferring(void) {
    begin(&(httpsrv_config){0});
    route("* /take/:id", on_defer_head, on_defer_piece, on_defer_head);
    run();
}

TEST_EACH_WAY(finish_before_in_and_after_the_body) {
    enum { LEN = 1000 };
    begin_deferring();
    struct client c = dial(s.port);
    for (int i = 0; i < 3 * CODINGS; i++) {
        const enum coding coding = (enum coding)(i / 3);
        const size_t before = LOAD(taken);
        struct text t = {0};
        NOTE("%s, %s, step %d", way->name, coding_names[coding], i % 3);
        const size_t head = put_request(&t, TARGET, LEN, coding);
        const size_t first = i % 3 == 0 ? head + (way->alone ? 40 : 0) : i % 3 == 1 ? t.len / 2 : t.len;
        net_send(&c, t.ptr, first);
        WAIT(LOAD(deferred) == i + 1);
        if (i % 3 == 2 && !way->worker) WAIT(LOAD(taken) == before + LEN);
        EXPECT_SILENCE(&c, 5);
        CHECK_INT(answer("later"), HTTPSRV_OK);
        CHECK_INT(answer("again"), HTTPSRV_GONE);
        EXPECT(&c, 200, "later");
        net_send(&c, t.ptr + first, t.len - first);
        check_kept(&c);
        CHECK_INT(LOAD(lasts), way->worker ? 0 : i / 3 + (i % 3 == 2));
        drop(&t);
    }
    hang_up(&c);
    finish(&s);
    CHECK_INT(noticed, 0);
}

// A deferred body that nobody reads, and then an answer: the client gets it although it goes on sending.
TEST_EACH_WAY(finish_and_a_large_rest) {
    begin_deferring();
    for (int i = 0; i < 2; i++) {
        struct text t = {0};
        struct client c = dial(s.port);
        put_request(&t, TARGET, LARGE_REST, i ? CHUNKED : LENGTH);
        net_send(&c, t.ptr, 30000);
        WAIT(LOAD(deferred) == i + 1);
        CHECK_INT(answer("later"), HTTPSRV_OK);
        (void)net_send_some(&c, t.ptr + 30000, t.len - 30000, net_deadline());
        EXPECT(&c, 200, "later");
        EXPECT_END(&c);
        drop(&t);
        hang_up(&c);
    }
    check_alive(&s);
    finish(&s);
}

static void on_defer_last(httpsrv_req *req, httpsrv_str piece, bool last, void *user) {
    struct sink *k = sink_of(req);
    take(req, k, piece);
    count_piece(piece, last, user);
    if (last) defer_and_keep(req);
}

static void on_read_and_defer(httpsrv_req *req, void *user) {
    (void)user;
    CHECK_INT(read_all(req, open_sink(req), 777), 0);
    defer_and_keep(req);
}

static void on_posted_answer(httpsrv_req *req, void *user) {
    CHECK(user == &s);
    CHECK(req != NULL);
    CHECK_VIEW(httpsrv_query(req, "q"), "a b");
    say_taken(req, (struct sink *)httpsrv_attached(req));
}

TEST_EACH_WAY(defer_at_the_last_piece) {
    begin(&(httpsrv_config){0});
    route("* /take/:id", on_take_head, on_defer_last, on_read_and_defer);
    run();
    struct client c = dial(s.port);
    for (int i = 0; i < 10; i++) {
        struct text t = {0};
        put_request(&t, TARGET, 100000, (enum coding)(i % CODINGS));
        net_send(&c, t.ptr, t.len);
        WAIT(LOAD(deferred) == i + 1);
        make_noise(13);
        if (i % 2) CHECK_INT(answer("later"), HTTPSRV_OK);
        if (i % 2) EXPECT(&c, 200, "later");
        if (i % 2 == 0) CHECK_INT(httpsrv_post(s.srv, token(), on_posted_answer, &s), HTTPSRV_OK);
        if (i % 2 == 0) expect_taken(&c, 100000, (enum coding)(i % CODINGS));
        drop(&t);
    }
    check_kept(&c);
    hang_up(&c);
    finish(&s);
}

static void on_look(httpsrv_req *req, void *user) {
    CHECK(user == &s);
    if (req) check_not_here(req);
    if (req) check_sink(req, (struct sink *)httpsrv_attached(req));
    COUNT(resumed);
}

// Posted handlers come between the pieces, and find what the others left.
TEST_ON_BODY(post_between_pieces) {
    struct text t = {0};
    begin_deferring();
    const size_t head = put_request(&t, TARGET, 50, CHUNKED);
    struct client c = dial(s.port);
    net_send(&c, t.ptr, head + 40);
    WAIT(LOAD(deferred) == 1);
    for (size_t at = head + 40, i = 1; at < t.len; at++, i++) {
        CHECK_INT(httpsrv_post(s.srv, token(), on_look, &s), HTTPSRV_OK);
        net_send(&c, t.ptr + at, 1);
        WAIT(LOAD(resumed) == (int)i);
    }
    WAIT(LOAD(lasts) == 1);
    CHECK_INT(httpsrv_post(s.srv, token(), on_posted_answer, &s), HTTPSRV_OK);
    expect_taken(&c, 50, CHUNKED);
    drop(&t);
    hang_up(&c);
    finish(&s);
}

// ---- bodies that break off ----

static void on_end_head(httpsrv_req *req, void *user) {
    (void)user;
    open_sink(req);
    CHECK_INT(httpsrv_on_gone(req, count_notice, &s), HTTPSRV_OK);
}

static void on_end_piece(httpsrv_req *req, httpsrv_str piece, bool last, void *user) {
    if (!httpsrv_attached(req)) on_end_head(req, user);
    take(req, (struct sink *)httpsrv_attached(req), piece);
    count_piece(piece, last, user);
}

static void on_end_read(httpsrv_req *req, void *user) {
    on_end_head(req, user);
    CHECK_INT(read_all(req, (struct sink *)httpsrv_attached(req), 100), HTTPSRV_GONE);
    CHECK(httpsrv_gone(req));
    CHECK_INT(httpsrv_reply(req, 200, NULL, HTTPSRV_STR("too late")), HTTPSRV_GONE);
    COUNT(ended);
}

struct ending {
    const char *name, *rest; // what is sent behind five bytes
    int status;              // of the refusal; 0: none
    httpsrv_log_item log;
    char act;        // 'F': the client finishes sending, 'R': it resets
    int max_body;    // of the route
    bool is_timeout; // of the body
};

static const struct ending endings[] = {
    {"chunk size", "zz\r\n", 400, HTTPSRV_LOG_BAD_CHUNK, 0, 0, false},
    {"negative chunk size", "-2\r\n", 400, HTTPSRV_LOG_BAD_CHUNK, 0, 0, false},
    {"overflowing chunk size", "10000000000000000\r\n", 400, HTTPSRV_LOG_BAD_CHUNK, 0, 0, false},
    {"bare LF", "5\nhello\r\n", 400, HTTPSRV_LOG_BAD_CHUNK, 0, 0, false},
    {"chunk too long", "0\r\nX-A: b\r\nContent-Length: 5\r\n\r\n", 400, HTTPSRV_LOG_BAD_TRAILER, 0, 0, false},
    {"too large", "6\r\n%'-39?\r\n", 413, HTTPSRV_LOG_BODY_TOO_LARGE, 0, 10, false},
    {"time-out", "", 408, HTTPSRV_LOG_BODY_TIMEOUT, 0, 0, true},
    {"time-out in a chunk", "3", 408, HTTPSRV_LOG_BODY_TIMEOUT, 0, 0, true},
    {"time-out in the trailers", "0\r\nX-A: ", 408, HTTPSRV_LOG_BODY_TIMEOUT, 0, 0, true},
    {"client finishes", "", 400, HTTPSRV_LOG_INCOMPLETE, 'F', 0, false},
    {"client resets", "", 0, HTTPSRV_LOG_NONE, 'R', 0, false},
};

// Sends five bytes of a body, waits until they were taken, and perhaps for what is said to them, and then what ends it.
static struct client break_off(const struct ending *row, const char *awaited) {
    struct text t = {0};
    struct client c = dial(s.port);
    put_head(&t, TARGET, "", 0, CHUNKED);
    putf(&t, "5\r\n%.5s\r\n", blob);
    net_send(&c, t.ptr, t.len);
    drop(&t);
    WAIT(LOAD(taken) == 5);
    if (awaited) (void)net_until(&c, awaited, 1000);
    SEND(&c, row->rest);
    if (row->act == 'F') half_close(&c);
    if (row->act == 'R') net_reset(&c);
    return c;
}

static void begin_ending(const struct ending *row, httpsrv_handler head, httpsrv_body_fn piece, httpsrv_handler read) {
    begin(&(httpsrv_config){.timeout_ms.body = row->is_timeout ? test_ms(150) : 0});
    NOTE("%s, %s", way->name, row->name);
    add_this_way(&(httpsrv_route_config){.pattern = "POST /take/:id", .max_body = row->max_body}, head, piece, read);
    run();
}

// The handlers were told once, and the server has got over it.
static void end_broken_off(struct client *c) {
    WAIT(LOAD(noticed) == 1);
    if (way->worker) WAIT(LOAD(ended) == 1);
    hang_up(c);
    WAIT(metrics(&s).connections == 0);
    check_alive(&s);
    finish(&s);
    CHECK_INT(noticed, 1);
    CHECK_INT(lasts, 0);
    CHECK_INT(taken, 5);
}

TEST_EACH_WAY(bodies_that_break_off) {
    for (size_t i = 0; i < ROWS(endings); i++) {
        const struct ending *row = &endings[i];
        begin_ending(row, on_end_head, on_end_piece, on_end_read);
        struct client c = break_off(row, NULL);
        if (row->status) EXPECT(&c, row->status, NULL);
        if (row->status) CHECK(c.close);
        if (row->act != 'R') EXPECT_EOF(&c);
        end_broken_off(&c);
        if (row->log) CHECK_INT(s.last.items[row->log], 1);
        CHECK_INT(s.last.items[HTTPSRV_LOG_NO_ANSWER], 0);
    }
}

static void on_begun_head(httpsrv_req *req, void *user) {
    on_end_head(req, user);
    CHECK_INT(httpsrv_begin(req, 200, NULL, -1), HTTPSRV_OK);
    CHECK_INT(httpsrv_write(req, HTTPSRV_STR("begun")), HTTPSRV_OK);
}

static void on_begun_piece(httpsrv_req *req, httpsrv_str piece, bool last, void *user) {
    if (!httpsrv_attached(req)) on_begun_head(req, user);
    on_end_piece(req, piece, last, user);
}

static void on_begun_read(httpsrv_req *req, void *user) {
    on_begun_head(req, user);
    CHECK_INT(read_all(req, (struct sink *)httpsrv_attached(req), 100), HTTPSRV_GONE);
    CHECK_INT(httpsrv_write(req, HTTPSRV_STR("too late")), HTTPSRV_GONE);
    CHECK_INT(httpsrv_end(req), HTTPSRV_GONE);
    COUNT(ended);
}

// The answer has begun: the client can tell that it is not complete, and gets no second one.
TEST_EACH_WAY(bodies_that_break_off_behind_a_begun_answer) {
    for (size_t i = 0; i < ROWS(endings); i++) {
        const struct ending *row = &endings[i];
        begin_ending(row, on_begun_head, on_begun_piece, on_begun_read);
        struct client c = break_off(row, "begun\r\n");
        if (row->act != 'R') {
            const size_t len = net_until_end(&c);
            CHECK(memmem(c.buf, len, "HTTP/1.1 200", 12) == c.buf);
            CHECK(memmem(c.buf + 1, len - 1, "HTTP/1.1", 8) == NULL);
            CHECK(memmem(c.buf, len, "5\r\nbegun\r\n", 10) == c.buf + len - 10);
        }
        end_broken_off(&c);
    }
}

static void on_read_and_stay(httpsrv_req *req, void *user) {
    on_end_head(req, user);
    CHECK_INT(read_all(req, (struct sink *)httpsrv_attached(req), 100), 0);
    while (LOAD(s.gate) == 0 && !httpsrv_gone(req))
        test_sleep(1);
    const httpsrv_result result = httpsrv_reply(req, 200, NULL, HTTPSRV_STR("in time"));
    CHECK_INT(result, LOAD(s.gate) ? HTTPSRV_OK : HTTPSRV_GONE);
    COUNT(ended);
}

// The time for the answer is the handler's: not that in which it waits for the client's body.
TEST_BY_WORKERS(handler_time_out_and_a_slow_body) {
    begin(&(httpsrv_config){0});
    add(&(httpsrv_route_config){.pattern = "POST /take/:id",
                                .handler = on_read_and_stay,
                                .stream = true,
                                .pool = "work",
                                .timeout_ms = test_ms(150)});
    run();
    for (int late = 0; late <= 1; late++) {
        struct client c = break_off(&(struct ending){.rest = ""}, NULL);
        STORE(taken, 0);
        STORE(s.gate, !late);
        test_sleep(test_ms(700));
        SEND(&c, "0\r\n\r\n");
        EXPECT(&c, late ? 503 : 200, late ? NULL : "in time");
        WAIT(LOAD(ended) == late + 1);
        hang_up(&c);
    }
    finish(&s);
    CHECK_INT(s.last.items[HTTPSRV_LOG_HANDLER_TIMEOUT], 1);
    CHECK_INT(noticed, 1);
}

// ---- the end of the server ----

TEST_EACH_WAY(drain_cuts_a_body) {
    begin(&(httpsrv_config){.timeout_ms.drain = test_ms(200)});
    route("POST /take/:id", on_end_head, on_end_piece, on_end_read);
    run();
    struct client c = break_off(&(struct ending){.rest = ""}, NULL);
    httpsrv_stop(s.srv);
    join_server(&s);
    EXPECT_END(&c);
    hang_up(&c);
    if (way->worker) WAIT(LOAD(ended) == 1);
    dispose(&s);
    CHECK_INT(s.last.drain_cut, 1);
    CHECK_INT(s.last.items[HTTPSRV_LOG_CUT], 1);
    CHECK_INT(noticed, 1);
    CHECK_INT(lasts, 0);
}

TEST_EACH_WAY(drain_finishes_a_body) {
    struct text t = {0};
    serve_take();
    put_request(&t, TARGET, 300000, CHUNKED);
    struct client c = dial(s.port);
    net_send(&c, t.ptr, t.len / 2);
    WAIT(LOAD(taken) > 0);
    httpsrv_stop(s.srv);
    test_sleep(20);
    net_send(&c, t.ptr + t.len / 2, t.len - t.len / 2);
    expect_taken(&c, 300000, CHUNKED);
    CHECK(c.close);
    EXPECT_EOF(&c);
    hang_up(&c);
    drop(&t);
    join_server(&s);
    dispose(&s);
    CHECK_INT(s.last.drain_finished, 1);
    CHECK_INT(s.last.drain_cut, 0);
}

// ---- limits ----

TEST_EACH_WAY(max_body) {
    static const struct {
        const char *target;
        size_t len;
        int status;
        bool handled; // even if it comes in chunks
    } rows[] = {{"/take/10", 10, 200, true},     {"/take/10", 11, 413, false},     {"/take/none", 0, 200, true},
                {"/take/none", 1, 413, false},   {"/take/server", 100, 200, true}, {"/take/server", 101, 413, false},
                {"/take/all", 300000, 200, true}};
    static const struct {
        const char *pattern;
        int64_t max;
    } routes[] = {
        {"POST /take/10", 10}, {"POST /take/none", HTTPSRV_ZERO}, {"POST /take/server", 0}, {"POST /take/all", -1}};
    begin(&(httpsrv_config){.max.body = 100});
    for (size_t i = 0; i < ROWS(routes); i++) {
        httpsrv_route_config config = {.pattern = routes[i].pattern, .max_body = routes[i].max};
        config.stream = way->worker;
        config.pool = way->worker ? "work" : NULL;
        config.handler = way->worker ? on_read_one_say_early : NULL;
        config.on_body = way->worker ? NULL : on_piece_say_nothing;
        if (way->worker) config.handler = on_read_say_nothing;
        add(&config);
    }
    run();
    for (size_t i = 0; i < ROWS(rows) * 2; i++) {
        struct text t = {0};
        struct client c = dial(s.port);
        const int before = LOAD(lasts);
        NOTE("%s, %s, %zu bytes, %s", way->name, rows[i / 2].target, rows[i / 2].len, coding_names[i % 2]);
        put_request(&t, rows[i / 2].target, rows[i / 2].len, (enum coding)(i % 2));
        net_send(&c, t.ptr, t.len);
        EXPECT(&c, rows[i / 2].status == 200 ? 500 : 413, NULL); // who has got it all gives no answer
        if (!way->worker) CHECK_INT(LOAD(lasts) - before, rows[i / 2].status == 200);
        if (rows[i / 2].status == 413) EXPECT_END(&c);
        drop(&t);
        hang_up(&c);
    }
    finish(&s);
    CHECK_INT(s.last.items[HTTPSRV_LOG_BODY_TOO_LARGE], 6);
    CHECK_INT(s.last.items[HTTPSRV_LOG_NO_ANSWER], 8);
}

static void on_never_at_all(httpsrv_req *req, void *user) {
    (void)req, (void)user;
    FAIL("the handler of a request that is refused at the head");
}

TEST_EACH_WAY(too_large_is_refused_before_the_handler) {
    begin(&(httpsrv_config){0});
    httpsrv_route_config config = {.pattern = "POST /small", .handler = on_never_at_all, .max_body = 5};
    config.stream = way->worker;
    config.pool = way->worker ? "work" : NULL;
    config.on_body = way->worker ? NULL : on_never_called;
    add(&config);
    run();
    static const char *const fields[] = {"Content-Length: 6\r\n\r\nhello!", "Content-Length: 6\r\n" EXPECTING "\r\n"};
    for (size_t i = 0; i < ROWS(fields); i++) {
        struct client c = dial(s.port);
        SENDF(&c, "POST /small HTTP/1.1\r\n" HOST "%s", fields[i]);
        EXPECT(&c, 413, NULL);
        EXPECT_EOF(&c);
        hang_up(&c);
    }
    finish(&s);
}

// ---- 100-continue ----

TEST_EACH_WAY(continue_when_the_body_is_wanted) {
    begin(&(httpsrv_config){0});
    route("POST /take/:id", on_take_head, on_take_piece, on_take_at_gate);
    run();
    struct client c = dial(s.port);
    for (int i = 0; i < 3 * CODINGS; i++) {
        struct text t = {0}, body = {0};
        const enum coding coding = (enum coding)(i % CODINGS);
        NOTE("%s, %s", way->name, coding_names[coding]);
        STORE(s.gate, 0);
        put_head(&t, TARGET, EXPECTING, 1000, coding);
        if (coding == LENGTH)
            put(&body, blob, 1000);
        else
            put_chunks(&body, 1000, coding);
        net_send(&c, t.ptr, t.len);
        if (way->worker) WAIT(LOAD(s.left) == i + 1);
        if (way->worker) EXPECT_SILENCE(&c, 10); // it has not asked for it yet
        STORE(s.gate, 1);
        EXPECT(&c, 100, NULL);
        CHECK_INT(c.num_fields, 0);
        net_send(&c, body.ptr, body.len);
        expect_taken(&c, 1000, coding);
        drop(&t);
        drop(&body);
    }
    check_kept(&c);
    SEND(&c, "POST " TARGET " HTTP/1.0\r\n" HOST EXPECTING "Content-Length: 2\r\n\r\n");
    EXPECT_SILENCE(&c, 20); // HTTP/1.0 does not know it
    net_send(&c, blob, 2);
    expect_taken(&c, 2, LENGTH);
    hang_up(&c);
    finish(&s);
}

// The body has come along: whether there is a 100 is the server's choice.
TEST_EACH_WAY(continue_when_the_body_is_there) {
    serve_take();
    struct client c = dial(s.port);
    for (int i = 0; i < 10; i++) {
        SEND(&c, "POST " TARGET " HTTP/1.1\r\n" HOST EXPECTING "Content-Length: 3\r\n\r\n");
        net_send(&c, blob, 3);
        SEND(&c, NEXT);
        REPLY(&c);
        if (c.status == 100) REPLY(&c);
        CHECK_MEM(c.body, c.body_len, "3 -", 3);
        EXPECT(&c, 200, HELLO);
    }
    hang_up(&c);
    finish(&s);
}

static void on_refuse(httpsrv_req *req, void *user) {
    (void)user;
    CHECK_INT(httpsrv_begin(req, 403, NULL, -1), HTTPSRV_OK);
    CHECK_INT(httpsrv_write(req, HTTPSRV_STR("no")), HTTPSRV_OK);
    CHECK_INT(httpsrv_end(req), HTTPSRV_OK);
}

TEST_WAYS(no_continue_when_it_is_not, !way->alone) {
    begin(&(httpsrv_config){0});
    route("POST /head", on_say_early, on_never_called, on_say_early);
    route("POST /begin", on_refuse, on_never_called, on_refuse);
    run();
    for (int i = 0; i < 4; i++) {
        struct client c = dial(s.port);
        NOTE("%s, %d", way->name, i);
        SENDF(&c, "POST %s HTTP/1.1\r\n" HOST EXPECTING "%s\r\n", i % 2 ? "/begin" : "/head",
              i / 2 ? CHUNKS : "Content-Length: 5\r\n");
        EXPECT(&c, i % 2 ? 403 : 200, i % 2 ? "no" : "early");
        CHECK(c.close);
        EXPECT_EOF(&c);
        hang_up(&c);
    }
    finish(&s);
}

// ---- echoes that stream while they read ----

static bool echo_length; // the answer says how long it is, as the request did
static bool echo_steps;  // pause after each piece until it has gone out

struct echo {
    size_t held; // bytes that there was no room for
    bool last;
    char pending[HTTPSRV_READ_BUFFER];
};

static void begin_echo(httpsrv_req *req) {
    const httpsrv_head *head = httpsrv_request_head(req);
    const httpsrv_result result = httpsrv_begin(req, 200, "a/b", LOAD(echo_length) ? head->content_length : -1);
    CHECK(result == HTTPSRV_OK || result == HTTPSRV_GONE);
}

static void echo_on(httpsrv_req *req, struct echo *e, httpsrv_str piece) {
    const httpsrv_result result = piece.len > 0 ? httpsrv_write(req, piece) : HTTPSRV_OK;
    if (result == HTTPSRV_GONE) return;
    if (result == HTTPSRV_FULL) {
        CHECK_CMP(piece.len, <=, sizeof e->pending);
        memmove(e->pending, piece.ptr, piece.len);
        e->held = piece.len;
        COUNT(s.left);
    }
    CHECK(result == HTTPSRV_OK || result == HTTPSRV_FULL);
    if (result == HTTPSRV_OK && e->last) CHECK_CMP(httpsrv_end(req) + 0, <=, 0);
    if (!e->last && (result == HTTPSRV_FULL || LOAD(echo_steps))) CHECK_INT(httpsrv_body_pause(req), HTTPSRV_OK);
}

static void on_echo_drained(httpsrv_req *req, void *user) {
    struct echo *e = (struct echo *)user;
    const httpsrv_str held = {e->pending, e->held};
    e->held = 0;
    if (!e->last) CHECK_INT(httpsrv_body_resume(req), HTTPSRV_OK);
    if (held.len > 0) echo_on(req, e, held);
}

static void on_echo_head(httpsrv_req *req, void *user) {
    struct echo *e = (struct echo *)httpsrv_alloc(req, sizeof *e);
    (void)user;
    CHECK(e != NULL);
    e->held = 0;
    e->last = false;
    httpsrv_attach(req, e);
    CHECK_INT(httpsrv_on_gone(req, count_notice, &s), HTTPSRV_OK);
    COUNT(s.arrived);
    begin_echo(req);
    CHECK_INT(httpsrv_on_drain(req, on_echo_drained, e), HTTPSRV_OK);
}

static void on_echo_piece(httpsrv_req *req, httpsrv_str piece, bool last, void *user) {
    if (!httpsrv_attached(req)) on_echo_head(req, user);
    struct echo *e = (struct echo *)httpsrv_attached(req);
    count_piece(piece, last, user);
    CHECK_INT(e->held, 0);
    e->last = last;
    echo_on(req, e, piece);
}

static bool echo_write(httpsrv_req *req, httpsrv_str piece) {
    httpsrv_result result;
    while ((result = httpsrv_write(req, piece)) == HTTPSRV_FULL) {
        COUNT(s.left);
        result = httpsrv_wait_drain(req);
        CHECK(result == HTTPSRV_OK || result == HTTPSRV_GONE);
    }
    CHECK(result == HTTPSRV_OK || result == HTTPSRV_GONE);
    return result == HTTPSRV_OK;
}

static void on_echo_all(httpsrv_req *req, void *user) {
    char buf[7001];
    ptrdiff_t n;
    (void)user;
    CHECK_INT(httpsrv_on_gone(req, count_notice, &s), HTTPSRV_OK);
    COUNT(s.arrived);
    begin_echo(req);
    while ((n = httpsrv_read(req, buf, sizeof buf)) > 0)
        if (!echo_write(req, (httpsrv_str){buf, (size_t)n})) break;
    CHECK(n >= 0 || n == HTTPSRV_GONE);
    if (n == 0) httpsrv_end(req);
    COUNT(ended);
}

static void begin_echoing(void) {
    begin_small(&(httpsrv_config){0});
    route("* /echo", on_echo_head, on_echo_piece, on_echo_all);
    run();
}

struct pace { // of one direction
    size_t step;
    int pause_ms;
    int64_t next;
};

static bool is_due(struct pace *pace, int64_t now) {
    if (now < pace->next) return false;
    pace->next = now + pace->pause_ms;
    return true;
}

// Sends and receives at the same time, at a pace each, until all is sent.
static void converse(struct client *c, const struct text *t, size_t sent, struct pace out, struct pace in) {
    const int64_t deadline = net_deadline();
    while (sent < t->len) {
        const int64_t now = test_now();
        CHECK_CMP(now, <, deadline);
        if (is_due(&out, now)) {
            const size_t left = t->len - sent;
            const ssize_t n = send(c->fd, t->ptr + sent, left < out.step ? left : out.step, MSG_NOSIGNAL);
            NET_CHECK(c, n > 0 || errno == EAGAIN, "cannot send");
            sent += n > 0 ? (size_t)n : 0;
        }
        if (is_due(&in, now)) {
            net_room(c);
            const ssize_t n = recv(c->fd, c->buf + c->len, in.step < 65536 ? in.step : 65536, 0);
            NET_CHECK(c, n > 0 || (n < 0 && errno == EAGAIN), "connection ended early");
            c->len += n > 0 ? (size_t)n : 0;
        }
        (void)net_poll(c->fd, (short)(out.pause_ms ? POLLIN : in.pause_ms ? POLLOUT : POLLIN | POLLOUT), now + 1);
    }
}

static const struct pace full = {1 << 20, 0, 0};

struct echo_row {
    const char *name;
    enum coding coding;
    bool length; // known in the answer
    bool steps;
    size_t len;
    struct pace out, in;
    bool stalled; // the client reads nothing before it is held back
};

static const struct echo_row echo_rows[] = {
    {"nothing", CHUNKED, false, false, 0, {1 << 20, 0, 0}, {1 << 20, 0, 0}, false},
    {"a byte", LENGTH, true, true, 1, {1 << 20, 0, 0}, {1 << 20, 0, 0}, false},
    {"quick, chunked", CHUNKED, false, false, QUICK_BYTES, {1 << 20, 0, 0}, {1 << 20, 0, 0}, false},
    {"quick, of known length", LENGTH, true, true, QUICK_BYTES, {1 << 20, 0, 0}, {1 << 20, 0, 0}, false},
    {"slow sender", CHUNKED, false, false, 3000000, {16384, 1, 0}, {1 << 20, 0, 0}, false},
    {"slow reader", LENGTH, false, false, HELD_BYTES, {1 << 20, 0, 0}, {65536, 3, 0}, true},
    {"slow reader, chunked", DRESSED, false, false, HELD_BYTES, {1 << 20, 0, 0}, {65536, 3, 0}, true},
    {"slow reader, in steps", CHUNKED, false, true, HELD_BYTES, {1 << 20, 0, 0}, {65536, 3, 0}, true},
    {"both slow", DRESSED, false, false, 1000000, {8192, 1, 0}, {8192, 1, 0}, false},
};

static void check_echo(struct client *c, size_t len) {
    REPLY(c);
    CHECK_INT(c->status, 200);
    CHECK_INT(c->body_len, len);
    if (len > 0) check_blob(c, len);
}

static void echo_once(struct client *c, const struct echo_row *row) {
    struct text t = {0};
    size_t sent = 0;
    NOTE("%s, %s", way->name, row->name);
    STORE(echo_length, row->length);
    STORE(echo_steps, row->steps);
    put_request(&t, "/echo", row->len, row->coding);
    watch_memory();
    if (row->stalled) {
        sent = send_until_held(c, &t);
        CHECK_CMP(sent, <, t.len);
        check_memory();
    }
    converse(c, &t, sent, row->out, row->in);
    check_echo(c, row->len);
    CHECK_STR(field(c, "Content-Type"), "a/b");
    if (row->length) CHECK_INT(c->length, row->len);
    if (!row->length) CHECK_STR(field(c, "Transfer-Encoding"), "chunked");
    check_memory();
    check_kept(c);
    drop(&t);
}

static void echo_rows_that_are(bool stalled) {
    begin_echoing();
    for (size_t i = 0; i < ROWS(echo_rows); i++) {
        if (echo_rows[i].stalled != stalled) continue;
        struct client c = stalled ? dial_small() : dial(s.port);
        echo_once(&c, &echo_rows[i]);
        hang_up(&c);
    }
    if (stalled) CHECK_CMP(LOAD(s.left), >, 0); // the mark was reached
    finish(&s);
    CHECK_INT(noticed, 0);
}

TEST_EACH_WAY(echo) {
    echo_rows_that_are(false);
}

TEST_WAYS(echo_to_slow_readers, way->reactors != 4) {
    echo_rows_that_are(true);
}

// To HTTP/1.0 the end of the connection is that of the body.
TEST_EACH_WAY(echo_to_http_1_0) {
    begin_echoing();
    for (int i = 0; i < 6; i++) {
        struct text t = {0};
        struct client c = dial(s.port);
        STORE(echo_length, i % 2 == 1);
        putf(&t, "POST /echo HTTP/1.0\r\n%sContent-Length: 1000000\r\n\r\n", i < 3 ? "Connection: keep-alive\r\n" : "");
        put(&t, blob, 1000000);
        converse(&c, &t, 0, full, full);
        check_echo(&c, 1000000);
        CHECK(field(&c, "Transfer-Encoding") == NULL);
        CHECK_INT(c.length, i % 2 ? 1000000 : -1);
        if (i == 1)
            check_kept(&c);
        else
            EXPECT_EOF(&c);
        drop(&t);
        hang_up(&c);
    }
    finish(&s);
}

TEST_EACH_WAY(echo_and_continue) {
    begin_echoing();
    STORE(echo_length, false);
    struct client c = dial(s.port);
    for (int i = 0; i < 3; i++) {
        SEND(&c, "POST /echo HTTP/1.1\r\n" HOST EXPECTING "Content-Length: 5\r\n\r\n");
        EXPECT(&c, 100, NULL);
        net_send(&c, blob, 5);
        check_echo(&c, 5);
    }
    check_kept(&c);
    hang_up(&c);
    finish(&s);
}

TEST_EACH_WAY(pipelined_echoes) {
    enum { REQUESTS = 30 };
    struct text t = {0};
    begin_echoing();
    STORE(echo_length, false);
    for (size_t i = 0; i < REQUESTS; i++) {
        put_request(&t, "/echo", i * 2000, (enum coding)(i % CODINGS));
        if (i % 2) putf(&t, NEXT);
    }
    struct client c = dial(s.port);
    converse(&c, &t, 0, full, full);
    for (size_t i = 0; i < REQUESTS; i++) {
        check_echo(&c, i * 2000);
        if (i % 2) EXPECT(&c, 200, HELLO);
    }
    drop(&t);
    hang_up(&c);
    finish(&s);
}

// Whenever the client leaves, the request ends, and one notice is given of it.
TEST_EACH_WAY(echo_of_clients_that_leave) {
    enum { CLIENTS = 16 };
    struct text t = {0};
    begin_echoing();
    STORE(echo_length, false);
    put_request(&t, "/echo", 2000000, CHUNKED);
    for (size_t i = 1; i <= CLIENTS; i++) {
        struct client c = i % 3 ? dial(s.port) : dial_small();
        NOTE("%s, client %zu", way->name, i);
        STORE(echo_steps, i % 2 == 0);
        (void)net_send_some(&c, t.ptr, t.len * i / (CLIENTS + 1), test_now() + 50);
        WAIT(LOAD(s.arrived) == (int)i);
        if (i % 4 > 1) net_need(&c, 1);
        if (i % 4 == 3) (void)net_receive(&c, test_now() + 10);
        if (i % 2) net_reset(&c);
        hang_up(&c);
        WAIT(LOAD(noticed) == (int)i);
        if (way->worker) WAIT(LOAD(ended) == (int)i);
        WAIT(metrics(&s).connections == 0);
    }
    check_alive(&s);
    drop(&t);
    finish(&s);
    CHECK_INT(noticed, CLIENTS);
    CHECK_INT(lasts, 0);
}

// ---- setup ----

static void on_nothing(httpsrv_req *req, void *user) {
    (void)req, (void)user;
}

static void on_no_piece(httpsrv_req *req, httpsrv_str piece, bool last, void *user) {
    (void)req, (void)piece, (void)last, (void)user;
}

#define WITH_MEDIA(text)                                   \
    {                                                      \
        .handler = on_nothing, .media = { {.type = text} } \
    }

TEST(bad_routes) {
    static const httpsrv_route_config rows[] = {
        {.on_body = on_no_piece, .pool = "work"},
        {.handler = on_nothing, .on_body = on_no_piece, .pool = "default"},
        {.handler = on_nothing, .stream = true},
        {.handler = on_nothing, .stream = true, .pool = "work", .overload = HTTPSRV_OVERLOAD_INLINE},
        {.handler = on_nothing, .stream = true, .pool = "work", .on_body = on_no_piece},
        {.handler = on_nothing, .stream = true, .on_body = on_no_piece},
        {.stream = true, .pool = "work"},
        {.handler = on_nothing, .pool = "work", .media = {{"a/b", on_nothing, on_no_piece}}},
        {.handler = on_nothing, .pool = "work", .stream = true, .media = {{"a/b", on_nothing, on_no_piece}}},
        WITH_MEDIA(""),
        WITH_MEDIA("text"),
        WITH_MEDIA("text/"),
        WITH_MEDIA("/plain"),
        WITH_MEDIA("*"),
        WITH_MEDIA("*/plain"),
        WITH_MEDIA("te xt/plain"),
        WITH_MEDIA("text/plain/x"),
        WITH_MEDIA("text/pla(in"),
        WITH_MEDIA("text /plain"),
        WITH_MEDIA(" text/plain"),
        WITH_MEDIA("text/plain\r\n"),
        {.handler = on_nothing, .media = {{.type = "a/b"}, {.type = "a/*"}, {.type = "c"}}},
    };
    for (size_t i = 0; i < ROWS(rows); i++) {
        httpsrv *srv = httpsrv_new(&(httpsrv_config){.host = "127.0.0.1", .pools = {{.name = "work", .threads = 1}}});
        httpsrv_route_config route = rows[i];
        route.pattern = "POST /bad/one";
        NOTE("row %zu, %s", i, route.media[0].type ? route.media[0].type : "-");
        CHECK_INT(httpsrv_route(srv, &route), HTTPSRV_ROUTE);
        CHECK_INT(httpsrv_on(srv, "GET /good", on_nothing, NULL), HTTPSRV_OK);
        CHECK_INT(httpsrv_listen(srv), HTTPSRV_ROUTE); // kept
        CHECK_HAS(httpsrv_error(srv), "/bad/one");
        httpsrv_free(srv);
    }
}

// ---- media types ----

// Says who has got the body; one that came whole is looked at as well.
static void say_who(httpsrv_req *req, const char *who) {
    CHECK_INT(httpsrv_replyf(req, 200, NULL, "%s %zu", who, httpsrv_body(req).len), HTTPSRV_OK);
}

#define SAYS(who)                                        \
    static void on_##who(httpsrv_req *req, void *user) { \
        CHECK(user == &s);                               \
        say_who(req, #who);                              \
    }

SAYS(json)
SAYS(image)
SAYS(any)
SAYS(first)
SAYS(second)
SAYS(route)

static void on_own_head(httpsrv_req *req, void *user) {
    (void)user;
    httpsrv_attach(req, (void *)"own");
}

static void on_pieces_head(httpsrv_req *req, void *user) {
    (void)user;
    httpsrv_attach(req, (void *)"route");
}

static void say_pieces(httpsrv_req *req, bool last, const char *who) {
    CHECK_STR((const char *)httpsrv_attached(req), who);
    if (last) CHECK_INT(httpsrv_replyf(req, 200, NULL, "%s in pieces", who), HTTPSRV_OK);
}

static void on_own_piece(httpsrv_req *req, httpsrv_str piece, bool last, void *user) {
    CHECK(user == &s);
    (void)piece;
    say_pieces(req, last, "own");
}

// Of an entry that has no handler: then there is none.
static void on_bare_piece(httpsrv_req *req, httpsrv_str piece, bool last, void *user) {
    CHECK(user == &s);
    CHECK(httpsrv_attached(req) == NULL);
    CHECK(piece.len > 0 || last);
    if (last) CHECK_INT(httpsrv_reply(req, 200, NULL, HTTPSRV_STR("bare in pieces")), HTTPSRV_OK);
}

static void on_route_piece(httpsrv_req *req, httpsrv_str piece, bool last, void *user) {
    CHECK(user == &s);
    (void)piece;
    say_pieces(req, last, "route");
}

static void on_stream_media(httpsrv_req *req, void *user) {
    char buf[10];
    CHECK(user == &s);
    CHECK_INT(httpsrv_read(req, buf, sizeof buf), 5);
    say_who(req, "stream");
}

static void route_media(void) {
    add(&(httpsrv_route_config){.pattern = "* /json", .handler = on_route, .media = {{.type = "application/json"}}});
    add(&(httpsrv_route_config){.pattern = "* /octets", .handler = on_route, .media = {{.type = "application/*"}}});
    add(&(httpsrv_route_config){.pattern = "* /upper", .handler = on_route, .media = {{.type = "Application/JSON"}}});
    add(&(httpsrv_route_config){.pattern = "* /pool",
                                .handler = on_route,
                                .pool = "work",
                                .media = {{.type = "text/*"}, {"application/json", on_json, NULL}}});
    add(&(httpsrv_route_config){.pattern = "* /own",
                                .handler = on_pieces_head,
                                .on_body = on_route_piece,
                                .media = {{"application/json", on_json, NULL},
                                          {"image/*", on_image, NULL},
                                          {.type = "text/plain"},
                                          {"text/own", on_own_head, on_own_piece},
                                          {"text/bare", NULL, on_bare_piece},
                                          {"*/*", on_any, NULL}}});
    add(&(httpsrv_route_config){.pattern = "* /first",
                                .handler = on_route,
                                .media = {{"text/*", on_first, NULL}, {"text/plain", on_second, NULL}}});
    add(&(httpsrv_route_config){.pattern = "* /second",
                                .handler = on_route,
                                .media = {{"text/plain", on_second, NULL}, {"text/*", on_first, NULL}}});
    add(&(httpsrv_route_config){.pattern = "* /all", .handler = on_route});
    add(&(httpsrv_route_config){.pattern = "* /stream",
                                .handler = on_stream_media,
                                .pool = "work",
                                .stream = true,
                                .media = {{.type = "text/plain"}}});
}

struct media_row {
    const char *target, *type; // NULL: no Content-Type
    const char *answer;        // NULL: 415
};

static const struct media_row media_rows[] = {
    {"/json", "application/json", "route 5"},
    {"/json", "Application/Json", "route 5"},
    {"/json", "application/json; charset=utf-8", "route 5"},
    {"/json", "application/json;charset=\"a;b\"", "route 5"},
    {"/json", "application/json ; x=y", "route 5"},
    {"/json", "application/json;", "route 5"},
    {"/json", "application/jsonx", NULL},
    {"/json", "application/jso", NULL},
    {"/json", "application/", NULL},
    {"/json", "application", NULL},
    {"/json", "pplication/json", NULL},
    {"/json", "text/plain; application/json", NULL},
    {"/json", "*/*", NULL},
    {"/json", "application/*", NULL},
    {"/json", NULL, NULL},
    {"/upper", "application/json", "route 5"},
    {"/upper", "APPLICATION/JSON", "route 5"},
    {"/upper", "text/json", NULL},
    {"/pool", "text/plain", "route 5"},
    {"/pool", "TEXT/x; a=b", "route 5"},
    {"/pool", "application/json", "json 5"},
    {"/pool", "textual/x", NULL},
    {"/pool", "tex/x", NULL},
    {"/own", "application/json", "json 5"},
    {"/own", "image/png", "image 5"},
    {"/own", "image/svg+xml; a=b", "image 5"},
    {"/own", "text/plain", "route in pieces"},
    {"/own", "text/own", "own in pieces"},
    {"/own", "text/bare", "bare in pieces"},
    {"/own", "text/other", "any 5"},
    {"/own", NULL, "any 5"},
    {"/octets", "application/octet-stream", "route 5"},
    {"/octets", NULL, "route 5"},
    {"/octets", "text/plain", NULL},
    {"/own", "a/b", "any 5"},
    {"/first", "text/plain", "first 5"},
    {"/first", "text/html", "first 5"},
    {"/second", "text/plain", "second 5"},
    {"/second", "text/html", "first 5"},
    {"/second", "application/json", NULL},
    {"/all", "application/json", "route 5"},
    {"/all", NULL, "route 5"},
    {"/stream", "text/plain", "stream 0"},
    {"/stream", "text/html", NULL},
    {"/stream", NULL, NULL},
};

static void ask_media(struct client *c, const struct media_row *row, bool chunked) {
    SENDF(c, "POST %s HTTP/1.1\r\nHost: a\r\n%s%s%s%s", row->target, row->type ? "Content-Type: " : "",
          row->type ? row->type : "", row->type ? "\r\n" : "",
          chunked ? CHUNKS "\r\n5\r\nhello\r\n0\r\n\r\n" : "Content-Length: 5\r\n\r\nhello");
    EXPECT(c, row->answer ? 200 : 415, row->answer);
}

TEST(media_types) {
    uint64_t refused = 0;
    way = ways;
    begin(&(httpsrv_config){0});
    route_media();
    run();
    for (size_t i = 0; i < ROWS(media_rows) * 2; i++) {
        const struct media_row *row = &media_rows[i / 2];
        struct client c = dial(s.port);
        NOTE("%s %s, %s", row->target, row->type ? row->type : "(none)", i % 2 ? "chunked" : "Content-Length");
        ask_media(&c, row, i % 2);
        refused += !row->answer;
        if (c.close)
            EXPECT_EOF(&c);
        else
            check_kept(&c);
        hang_up(&c);
        CHECK_INT(item(HTTPSRV_LOG_UNKNOWN_TYPE), refused);
    }
    finish(&s);
    CHECK_INT(s.last.answers[4], refused);
}

// Who sends no body is not asked for its type.
TEST(media_types_without_a_body) {
    static const char *const rows[] = {
        "GET /json HTTP/1.1\r\nHost: a\r\n\r\n", "POST /json HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /json HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        "GET /json HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\n\r\n",
        "POST /json HTTP/1.1\r\nHost: a\r\nContent-Type: a/b\r\nContent-Length: 0\r\n\r\n"};
    way = ways;
    begin(&(httpsrv_config){0});
    route_media();
    run();
    struct client c = dial(s.port);
    for (size_t i = 0; i < ROWS(rows); i++) {
        NOTE("row %zu", i);
        SEND(&c, rows[i]);
        EXPECT(&c, 200, "route 0");
    }
    hang_up(&c);
    finish(&s);
    CHECK_INT(s.last.items[HTTPSRV_LOG_UNKNOWN_TYPE], 0);
}

// No 100 for a body that is refused, which is no request either.
TEST(media_types_and_what_follows) {
    way = ways;
    begin(&(httpsrv_config){0});
    route_media();
    run();
    struct client c =
        ASK(&s, "POST /json HTTP/1.1\r\nHost: a\r\nContent-Type: a/b\r\n" EXPECTING "Content-Length: 5\r\n\r\n");
    CHECK_INT(c.status, 415);
    CHECK(c.close);
    EXPECT_EOF(&c);
    hang_up(&c);
    c = dial(s.port);
    SENDF(&c, "POST /json HTTP/1.1\r\nHost: a\r\nContent-Type: a/b\r\nContent-Length: %zu\r\n\r\n%s", strlen(NEXT),
          NEXT);
    EXPECT(&c, 415, NULL);
    test_sleep(20);
    CHECK_INT(LOAD(s.handled), 0);
    hang_up(&c);
    finish(&s);
}

// ---- memory that fails: each allocation in turn ----

static void settle(httpsrv_req *req, httpsrv_result result) {
    if (result == HTTPSRV_NOMEM) result = httpsrv_reply(req, 503, NULL, HTTPSRV_STR("no memory"));
    CHECK(result == HTTPSRV_OK || result == HTTPSRV_GONE || result == HTTPSRV_NOMEM);
}

static void on_poor_piece(httpsrv_req *req, httpsrv_str piece, bool last, void *user) {
    (void)piece, (void)user;
    (void)httpsrv_alloc(req, 3000);
    if (last) settle(req, httpsrv_reply(req, 200, NULL, blob_view(50000)));
}

static void on_poor_read(httpsrv_req *req, void *user) {
    char buf[5000];
    ptrdiff_t n;
    (void)user;
    (void)httpsrv_alloc(req, 3000);
    while ((n = httpsrv_read(req, buf, sizeof buf)) > 0)
        continue;
    CHECK(n == 0 || n == HTTPSRV_GONE);
    if (n == 0) settle(req, httpsrv_reply(req, 200, NULL, blob_view(50000)));
}

static void on_poor_echo(httpsrv_req *req, void *user) {
    (void)user;
    settle(req, httpsrv_begin(req, 200, NULL, 50000));
}

static void on_poor_echo_piece(httpsrv_req *req, httpsrv_str piece, bool last, void *user) {
    if (way->alone && !httpsrv_attached(req)) on_poor_echo(req, user);
    httpsrv_attach(req, &s);
    const httpsrv_result result = piece.len > 0 ? httpsrv_write(req, piece) : HTTPSRV_OK;
    if (result == HTTPSRV_NOMEM) CHECK_INT(httpsrv_abort(req), HTTPSRV_OK);
    if (result == HTTPSRV_OK && last) (void)httpsrv_end(req);
}

static void on_poor_echo_all(httpsrv_req *req, void *user) {
    char buf[5000];
    ptrdiff_t n;
    on_poor_echo(req, user);
    while ((n = httpsrv_read(req, buf, sizeof buf)) > 0)
        if (httpsrv_write(req, (httpsrv_str){buf, (size_t)n}) != HTTPSRV_OK) break;
    if (n > 0) (void)httpsrv_abort(req);
    if (n == 0) (void)httpsrv_end(req);
}

// The answer is whole, a complaint, or it ends early: anything else is wrong. Returns whether it was whole.
static bool judge(struct client *c) {
    const size_t len = net_until_end(c);
    const char *body = len > 0 ? (const char *)memmem(c->buf, len, "\r\n\r\n", 4) : NULL;
    if (!body) return false;
    body += 4;
    const size_t got = (size_t)(c->buf + len - body);
    if (memcmp(c->buf, "HTTP/1.1 5", 10) == 0) return false;
    CHECK(memcmp(c->buf, "HTTP/1.1 200", 12) == 0);
    CHECK_CMP(got, <=, 50000);
    CHECK(memcmp(body, blob, got) == 0);
    return got == 50000;
}

// Returns whether an allocation has failed.
static bool run_out_of_memory(int nth) {
    bool whole = true;
    begin(&(httpsrv_config){0});
    NOTE("%s, allocation %d", way->name, nth);
    route("POST /take", NULL, on_poor_piece, on_poor_read);
    route("POST /echo", on_poor_echo, on_poor_echo_piece, on_poor_echo_all);
    run();
    STORE(s.failing_at, nth);
    for (int i = 0; i < 2 * CODINGS; i++) {
        struct text t = {0};
        struct client c = dial(s.port);
        put_head(&t, i % 2 ? "/take" : "/echo", "Connection: close\r\n", 50000, (enum coding)(i / 2));
        if (i / 2 == LENGTH)
            put(&t, blob, 50000);
        else
            put_chunks(&t, 50000, (enum coding)(i / 2));
        (void)net_send_some(&c, t.ptr, 20000, net_deadline());
        test_sleep(1);
        (void)net_send_some(&c, t.ptr + 20000, t.len - 20000, net_deadline());
        whole &= judge(&c);
        hang_up(&c);
        drop(&t);
    }
    const bool failed = LOAD(s.asked) >= nth;
    STORE(s.failing_at, 0);
    if (!failed) CHECK(whole);
    check_alive(&s);
    finish(&s);
    return failed;
}

TEST_WAYS(memory_fails, way->reactors == 1 || way->alone) {
    int nth = 1;
    while (run_out_of_memory(nth))
        nth++;
    CHECK_CMP(nth, >, 1);
}
