// Integration tests: real sockets, one reactor unless a test says otherwise, handlers inline.

#define HTTPSRV_IMPLEMENTATION
#include "../httpsrv.h"

#include "server.h"
#include <dirent.h>
#include <pthread.h>
#include <sys/epoll.h>

#define DEFAULTS (&(httpsrv_config){0})

static struct server s;

static uint64_t item(httpsrv_log_item i) {
    return metrics(&s).items[i];
}

// Text with a run of `n` times the byte in the place of "%s".
static char *stretch(const char *format, char byte, size_t n) {
    static char text[1 << 17];
    char *run = (char *)malloc(n + 1);
    memset(run, byte, n);
    run[n] = 0;
    snprintf(text, sizeof text, format, run);
    free(run);
    return text;
}

static int64_t cpu_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

// ---- answers in the plain ----

static void check_date(const char *date) {
    struct tm tm;
    char again[64];
    time_t t;
    memset(&tm, 0, sizeof tm);
    CHECK(date != NULL);
    CHECK_INT(strlen(date), 29);
    CHECK(strptime(date, "%a, %d %b %Y %H:%M:%S GMT", &tm) != NULL);
    t = timegm(&tm);
    CHECK_CMP(llabs((long long)t - (long long)time(NULL)), <=, 60);
    strftime(again, sizeof again, "%a, %d %b %Y %H:%M:%S GMT", &tm);
    CHECK_STR(date, again);
}

TEST(hello) {
    serve(&s, DEFAULTS);
    struct client c = ASK(&s, NEXT);
    CHECK_INT(c.status, 200);
    CHECK_MEM(c.body, c.body_len, HELLO, strlen(HELLO));
    CHECK_STR(field(&c, "Content-Type"), "text/plain");
    CHECK_STR(field(&c, "Content-Length"), "14");
    CHECK_STR(field(&c, "Server"), "httpsrv");
    CHECK_STR(field(&c, "Connection"), NULL);
    check_date(field(&c, "Date"));
    CHECK_CMP(LOAD(s.allocations), >, 0);
    hang_up(&c);
    finish(&s);
}

TEST(server_name) {
    static const struct {
        const char *config, *field;
    } rows[] = {{NULL, "httpsrv"}, {"my server/1.0", "my server/1.0"}};
    for (size_t i = 0; i < ROWS(rows); i++) {
        NOTE("server_name %s", rows[i].config ? rows[i].config : "NULL");
        serve(&s, &(httpsrv_config){.server_name = rows[i].config});
        struct client c = ASK(&s, NEXT);
        CHECK_STR(field(&c, "Server"), rows[i].field);
        check_date(field(&c, "Date"));
        hang_up(&c);
        finish(&s);
    }
}

TEST(keep_alive_and_metrics) {
    const int n = 1000;
    serve(&s, DEFAULTS);
    struct client c = dial(s.port);
    size_t received = 0;
    for (int i = 0; i < n; i++) {
        SEND(&c, NEXT);
        EXPECT(&c, 200, HELLO);
        CHECK(!c.close);
        received += strlen(HELLO);
    }
    CHECK_INT(metrics(&s).connections, 1);
    hang_up(&c);
    WAIT(metrics(&s).connections == 0);
    finish(&s);
    CHECK_INT(s.last.accepted, 1);
    CHECK_INT(s.last.requests, n);
    CHECK_INT(s.last.answers[2], n);
    CHECK_INT(s.last.answers[0], n);
    CHECK_INT(s.last.bytes_in, (size_t)n * strlen(NEXT));
    CHECK_CMP(s.last.bytes_out, >, received);
    CHECK_INT(s.handled, n);
}

static void dump_requests(struct client *c, int from, int to) {
    char text[16384];
    size_t len = 0;
    for (int i = from; i < to; i++)
        len += (size_t)snprintf(text + len, sizeof text - len, "GET /dump/%d/ HTTP/1.1\r\nHost: a\r\n\r\n", i);
    net_send(c, text, len);
}

static void dump_answers(struct client *c, int from, int to) {
    for (int i = from; i < to; i++) {
        char body[200];
        snprintf(body, sizeof body, "GET /dump/%d/ /dump/%d/ host=a a=%d rest= q= x= body=", i, i, i);
        EXPECT(c, 200, body);
    }
}

TEST(pipelining) {
    serve(&s, DEFAULTS);
    struct client c = dial(s.port);
    for (int round = 0; round < 20; round++) {
        dump_requests(&c, round * 16, round * 16 + 16);
        dump_answers(&c, round * 16, round * 16 + 16);
    }
    hang_up(&c);
    finish(&s);
}

// Far more than the socket buffers hold waits for a client that reads late; the server must not pile it up.
TEST(pipelining_5000_read_late) {
    const int n = 5000;
    serve(&s, DEFAULTS);
    struct client c = dial(s.port);
    for (int i = 0; i < n; i++)
        GET(&c, i % 2 ? "/big/9000" : "/borrow/3000");
    test_sleep(100);
    for (int i = 0; i < n; i++) {
        REPLY(&c);
        check_blob(&c, i % 2 ? 9000 : 3000);
    }
    CHECK_CMP(LOAD(s.peak), <, 4 << 20);
    hang_up(&c);
    finish(&s);
    CHECK_INT(s.last.requests, n);
}

// ---- splits ----

static const char several[] = "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n"
                              "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\nhello world"
                              "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                              "6;ext=\"a;b\"\r\nchunks\r\n00A\r\n0123456789\r\n0\r\nX-Trailer: yes\r\n\r\n"
                              "\r\nGET /dump/%61/b%20c?q=1+2&q=3 HTTP/1.1\r\nhost: b:80\r\nX-Test:  t \r\n\r\n"
                              "POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
                              "GET /big/3000 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

static void several_answers(struct client *c) {
    EXPECT(c, 200, HELLO);
    EXPECT(c, 200, "hello world");
    EXPECT(c, 200, "chunks0123456789");
    EXPECT(c, 200, "GET /dump/%61/b%20c?q=1+2&q=3 /dump/a/b c host=b:80 a=a rest=b c q=1 2 x=t body=");
    EXPECT(c, 404, NULL);
    REPLY(c);
    check_blob(c, 3000);
    CHECK(c->close);
    EXPECT_EOF(c);
}

TEST(split_byte_by_byte) {
    serve(&s, DEFAULTS);
    for (size_t step = 1; step <= 7; step += 2) {
        NOTE("pieces of %zu", step);
        struct client c = dial(s.port);
        net_send_split(&c, several, strlen(several), step);
        several_answers(&c);
        hang_up(&c);
    }
    finish(&s);
}

TEST(split_at_every_byte) {
    serve(&s, DEFAULTS);
    for (size_t cut = 1; cut < strlen(several); cut++) {
        NOTE("cut at %zu", cut);
        struct client c = dial(s.port);
        send_seen(&s, &c, several, cut);
        net_send(&c, several + cut, strlen(several) - cut);
        several_answers(&c);
        hang_up(&c);
    }
    finish(&s);
}

// ---- bodies ----

TEST(chunked) {
    static const struct {
        const char *chunks, *body;
    } rows[] = {
        {"0\r\n\r\n", ""},
        {"5\r\nhello\r\n0\r\n\r\n", "hello"},
        {"5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n", "hello!"},
        {"0000a\r\n0123456789\r\n000\r\n\r\n", "0123456789"},
        {"A\r\n0123456789\r\n0\r\n\r\n", "0123456789"},
        {"5;a\r\nhello\r\n0;b=c\r\n\r\n", "hello"},
        {"5;a=\"x\\\"y\";b=c\r\nhello\r\n0\r\n\r\n", "hello"},
        {"7\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n", "\r\n0\r\n\r\n"},
        {"5\r\nhello\r\n0\r\nX-A: 1\r\nX-B: 2\r\n\r\n", "hello"},
    };
    serve(&s, DEFAULTS);
    struct client c = dial(s.port);
    for (size_t i = 0; i < ROWS(rows); i++) {
        NOTE("row %zu", i);
        SENDF(&c, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Type: a/b\r\nTransfer-Encoding: Chunked\r\n\r\n%s%s",
              rows[i].chunks, NEXT);
        EXPECT(&c, 200, rows[i].body);
        CHECK_STR(field(&c, "Content-Type"), "a/b");
        EXPECT(&c, 200, HELLO);
    }
    hang_up(&c);
    finish(&s);
}

TEST(bodies_of_many_sizes) {
    static const size_t sizes[] = {0, 1, 2, 255, 2047, 2048, 2049, 65535, 65536, 65537, 300000, 1 << 20};
    serve(&s, DEFAULTS);
    struct client c = dial(s.port);
    for (size_t i = 0; i < ROWS(sizes); i++) {
        NOTE("%zu bytes", sizes[i]);
        SENDF(&c, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: %zu\r\n\r\n", sizes[i]);
        net_send(&c, blob, sizes[i]);
        REPLY(&c);
        check_blob(&c, sizes[i]);
        SEND(&c, "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        for (size_t at = 0, n; at < sizes[i]; at += n) {
            n = 1 + (at * 31 + 7) % 40000;
            if (n > sizes[i] - at) n = sizes[i] - at;
            SENDF(&c, "%zx\r\n", n);
            net_send(&c, blob + at, n);
            SEND(&c, "\r\n");
        }
        SEND(&c, "0\r\n\r\n");
        REPLY(&c);
        check_blob(&c, sizes[i]);
    }
    hang_up(&c);
    finish(&s);
}

#define WANTS_100(target, length) \
    "POST " target " HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: " length "\r\n\r\n"

TEST(expect_continue) {
    serve(&s, DEFAULTS);
    struct client c = ASK(&s, WANTS_100("/echo", "5"));
    CHECK_INT(c.status, 100);
    CHECK_INT(c.num_fields, 0);
    SEND(&c, "hello");
    EXPECT(&c, 200, "hello");
    SEND(&c, WANTS_100("/echo",
                       "3") "abc"); // the body is there already: whether 100 is sent is the server's choice
    REPLY(&c);
    if (c.status == 100) REPLY(&c);
    CHECK_MEM(c.body, c.body_len, "abc", 3);
    SEND(&c, "POST /echo HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    EXPECT_SILENCE(&c, test_ms(50)); // a client of HTTP/1.0 does not know 100
    SEND(&c, "ok");
    EXPECT(&c, 200, "ok");
    hang_up(&c);
    finish(&s);
}

TEST(expect_continue_refused) {
    static const struct {
        const char *request;
        int status;
    } rows[] = {
        {WANTS_100("/nowhere", "5"), 404}, {WANTS_100("/echo", "1048577"), 413}, {WANTS_100("/hello", "5"), 405}};
    serve(&s, DEFAULTS);
    for (size_t i = 0; i < ROWS(rows); i++) {
        NOTE("row %zu", i);
        struct client c = ASK(&s, rows[i].request);
        CHECK_INT(c.status, rows[i].status);
        CHECK(c.close);
        EXPECT_EOF(&c);
        hang_up(&c);
    }
    finish(&s);
}

// What was not read as a body must not be read as a request.
TEST(body_of_a_refused_request_is_no_request) {
    serve(&s, DEFAULTS);
    struct client c = dial(s.port);
    SENDF(&c, "POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: %zu\r\n\r\n%s", strlen(NEXT), NEXT);
    EXPECT(&c, 404, NULL);
    if (!c.close) {
        SEND(&c, "GET /dump/a/b HTTP/1.1\r\nHost: a\r\n\r\n");
        EXPECT(&c, 200, "GET /dump/a/b /dump/a/b host=a a=a rest=b q= x= body=");
    } else {
        EXPECT_EOF(&c);
    }
    CHECK_INT(LOAD(s.handled), 0);
    hang_up(&c);
    finish(&s);
}

// ---- versions and methods ----

TEST(http_1_0) {
    serve(&s, DEFAULTS);
    struct client c = ASK(&s, "GET /hello HTTP/1.0\r\n\r\n");
    CHECK_INT(c.status, 200);
    CHECK_MEM(c.body, c.body_len, HELLO, strlen(HELLO));
    EXPECT_EOF(&c);
    hang_up(&c);
    c = dial(s.port);
    for (int i = 0; i < 3; i++) {
        SEND(&c, "GET /hello HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n");
        EXPECT(&c, 200, HELLO);
        CHECK(field(&c, "Connection") && strcasecmp(field(&c, "Connection"), "keep-alive") == 0);
    }
    SEND(&c, "GET /hello HTTP/1.0\r\n\r\n" NEXT);
    EXPECT(&c, 200, HELLO);
    EXPECT_EOF(&c);
    hang_up(&c);
    finish(&s);
}

TEST(connection_close) {
    serve(&s, DEFAULTS);
    struct client c = dial(s.port);
    SEND(&c, "GET /hello HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n" NEXT);
    EXPECT(&c, 200, HELLO);
    CHECK_STR(field(&c, "Connection"), "close");
    EXPECT_EOF(&c);
    CHECK_INT(LOAD(s.handled), 1);
    hang_up(&c);
    finish(&s);
}

TEST(head) {
    static const struct {
        const char *target;
        int status;
        int64_t length;
    } rows[] = {{"/hello", 200, 14},
                {"/big/8388608", 200, 8388608},
                {"/borrow/8388608", 200, 8388608},
                {"/echo", 200, 0},
                {"/big/0", 200, 0}};
    serve(&s, DEFAULTS);
    struct client c = dial(s.port);
    for (size_t i = 0; i < ROWS(rows); i++) {
        NOTE("HEAD %s", rows[i].target);
        SENDF(&c, "HEAD %s HTTP/1.1\r\nHost: a\r\n\r\n%s", rows[i].target, NEXT);
        REPLY_HEAD(&c);
        CHECK_INT(c.status, rows[i].status);
        CHECK_INT(c.length, rows[i].length);
        EXPECT(&c, 200, HELLO);
    }
    SEND(&c, "HEAD /nowhere HTTP/1.1\r\nHost: a\r\n\r\n" NEXT);
    REPLY_HEAD(&c);
    CHECK_INT(c.status, 404);
    EXPECT(&c, 200, HELLO);
    hang_up(&c);
    finish(&s);
}

static void on_nothing(httpsrv_req *req, void *user) {
    (void)user;
    CHECK_INT(httpsrv_reply(req, (int)number_param(req, "status"), NULL, HTTPSRV_STR("stays behind")), HTTPSRV_OK);
}

TEST(status_without_body) {
    prepare(&s, DEFAULTS);
    route_all(&s, "", NULL);
    httpsrv_on(s.srv, "* /status/:status", on_nothing, NULL);
    go(&s);
    struct client c = dial(s.port);
    for (int i = 0; i < 3; i++) {
        GET(&c, "/status/204");
        REPLY(&c);
        CHECK_INT(c.status, 204);
        GET(&c, "/status/304");
        REPLY(&c);
        CHECK_INT(c.status, 304);
        GET(&c, "/status/599");
        EXPECT(&c, 599, "stays behind");
        CHECK_STR(field(&c, "Content-Type"), NULL);
        SEND(&c, "HEAD /status/204 HTTP/1.1\r\nHost: a\r\n\r\n" NEXT);
        REPLY_HEAD(&c);
        EXPECT(&c, 200, HELLO);
    }
    hang_up(&c);
    finish(&s);
    CHECK_INT(s.last.answers[3], 3);
    CHECK_INT(s.last.answers[5], 3);
}

// Each word of `list`, separated by commas, and nothing else.
static void check_allow(const char *allow, const char *list) {
    char copy[200], *save, *word;
    size_t len = 0;
    CHECK(allow != NULL);
    NOTE("Allow: %s, expected %s", allow, list);
    snprintf(copy, sizeof copy, "%s", list);
    for (word = strtok_r(copy, ", ", &save); word; word = strtok_r(NULL, ", ", &save)) {
        const char *hit = strstr(allow, word);
        CHECK(hit && (hit == allow || hit[-1] == ' ') && (hit[strlen(word)] == ',' || !hit[strlen(word)]));
        len += strlen(word) + 2;
    }
    CHECK_INT(strlen(allow), len - 2);
}

TEST(methods) {
    static const struct {
        const char *request;
        int status;
        const char *allow;
    } rows[] = {
        {"OPTIONS /hello", 0, "GET, HEAD, OPTIONS"},
        {"OPTIONS /two", 0, "GET, HEAD, POST, OPTIONS"},
        {"OPTIONS /own", 200, NULL}, // a handler of its own
        {"OPTIONS *", 0, NULL},
        {"OPTIONS /nowhere", 404, NULL},
        {"POST /hello", 405, "GET, HEAD, OPTIONS"},
        {"DELETE /two", 405, "GET, HEAD, POST, OPTIONS"},
        {"PURGE /hello", 405, "GET, HEAD, OPTIONS"},
        {"GET /cache", 405, "PURGE, OPTIONS"},
        {"PURGE /cache", 200, NULL},
        {"PURGE /nowhere", 404, NULL},
        {"GET /nowhere", 404, NULL},
        {"BREW /hello", 501, NULL},
        {"BREW /nowhere", 501, NULL},
        {"get /hello", 501, NULL},
        {"BREW /echo", 200, NULL}, // "*" takes any method
        {"PATCH /echo", 200, NULL},
    };
    prepare(&s, DEFAULTS);
    route_all(&s, "", NULL);
    httpsrv_on(s.srv, "GET /two", on_hello, &s);
    httpsrv_on(s.srv, "POST /two", on_hello, &s);
    httpsrv_on(s.srv, "OPTIONS /own", on_hello, &s);
    httpsrv_on(s.srv, "PURGE /cache", on_hello, &s);
    go(&s);
    struct client c = dial(s.port);
    for (size_t i = 0; i < ROWS(rows); i++) {
        NOTE("%s", rows[i].request);
        SENDF(&c, "%s HTTP/1.1\r\nHost: a\r\n\r\n", rows[i].request);
        REPLY(&c);
        if (rows[i].status)
            CHECK_INT(c.status, rows[i].status);
        else
            CHECK(c.status == 200 || c.status == 204);
        CHECK(!c.close);
        if (rows[i].allow) check_allow(field(&c, "Allow"), rows[i].allow);
    }
    hang_up(&c);
    finish(&s);
}

// ---- routes ----

static void on_tag(httpsrv_req *req, void *user) {
    static const char *const names[] = {"x", "id", "post", "rest"};
    char text[2000];
    size_t len = (size_t)snprintf(text, sizeof text, "%s", (const char *)user);
    for (size_t i = 0; i < ROWS(names); i++) {
        httpsrv_str value = httpsrv_param(req, names[i]);
        if (value.ptr) len += (size_t)snprintf(text + len, sizeof text - len, " %s=%.*s", names[i], HTTPSRV_FMT(value));
    }
    httpsrv_reply(req, 200, NULL, (httpsrv_str){text, len});
}

TEST(routes) {
    static const char *const patterns[] = {
        "GET /",
        "GET /a/b",
        "GET /a/:id",
        "GET /a/*rest",
        "POST /a/b",
        "GET /:x/b",
        "* /any",
        "GET /any",
        "GET /users/:id/posts/:post",
        "GET /users/:id/posts/latest",
        "GET /users/me/*rest",
        "GET /%65scaped",
        "GET /deep/:id/c/d",
        "GET /deep/b/:x/e",
    };
    static const struct {
        const char *request;
        int status;
        const char *body;
    } rows[] = {
        {"GET /", 200, "GET /"},
        {"GET /a/b", 200, "GET /a/b"},
        {"POST /a/b", 200, "POST /a/b"},
        {"GET /a/c", 200, "GET /a/:id id=c"},
        {"GET /a/b/c", 200, "GET /a/*rest rest=b/c"},
        {"GET /a/c/d", 200, "GET /a/*rest rest=c/d"},
        {"GET /a/", 200, "GET /a/*rest rest="},
        {"GET /a/b/", 200, "GET /a/*rest rest=b/"},
        {"GET /a//b", 200, "GET /a/*rest rest=/b"},
        {"GET /z/b", 200, "GET /:x/b x=z"},
        {"GET /any", 200, "GET /any"},
        {"PUT /any", 200, "* /any"},
        {"GET /any/", 404, NULL},
        {"GET //b", 404, NULL}, // a parameter is not empty
        {"GET /A/b", 200, "GET /:x/b x=A"},
        {"GET /users/7/posts/9", 200, "GET /users/:id/posts/:post id=7 post=9"},
        {"GET /users/7/posts/latest", 200, "GET /users/:id/posts/latest id=7"},
        {"GET /users/me/posts/9", 200, "GET /users/me/*rest rest=posts/9"},
        {"GET /users/7/posts", 404, NULL},
        {"GET /deep/b/c/d", 200, "GET /deep/:id/c/d id=b"}, // the literal b leads nowhere: back to the parameter
        {"GET /deep/b/c/e", 200, "GET /deep/b/:x/e x=c"},
        // percent-decoding, once, behind the split at slashes
        {"GET /a/%62", 200, "GET /a/b"},
        {"GET /%61/%62", 200, "GET /a/b"},
        {"GET /a/x%2Fy", 200, "GET /a/:id id=x/y"},
        {"GET /a/x%2fy/z", 200, "GET /a/*rest rest=x/y/z"},
        {"GET /a/%2562", 200, "GET /a/:id id=%62"},
        {"GET /a/a+b", 200, "GET /a/:id id=a+b"},
        {"GET /a%2Fb", 404, NULL},
        {"GET /a/%C3%A4", 200, "GET /a/:id id=\xc3\xa4"},
        // dot segments
        {"GET /a/../any", 200, "GET /any"},
        {"GET /x/%2e%2E/a/./b", 200, "GET /a/b"},
        {"GET /a/b/..", 200, "GET /a/*rest rest="},
        {"GET /a/b/.", 200, "GET /a/*rest rest=b/"},
        {"GET /a/..b", 200, "GET /a/:id id=..b"},
        {"GET /a/...", 200, "GET /a/:id id=..."},
        {"GET /x/..", 200, "GET /"},
        {"GET /..", 400, NULL},
        {"GET /a/../../any", 400, NULL},
        {"GET /%2e%2e/any", 400, NULL},
        {"GET /a/%00b", 400, NULL},
        {"GET /a/b?x=/../..&%00", 200, "GET /a/b"},
        {"GET http://h/a/b", 200, "GET /a/b"},
        {"GET http://h", 200, "GET /"},
        {"GET http://h?x", 200, "GET /"},
    };
    prepare(&s, DEFAULTS);
    for (size_t i = 0; i < ROWS(patterns); i++)
        CHECK_INT(httpsrv_on(s.srv, patterns[i], on_tag, (void *)(uintptr_t)patterns[i]), HTTPSRV_OK);
    go(&s);
    for (size_t i = 0; i < ROWS(rows); i++) {
        NOTE("%s", rows[i].request);
        struct client c = dial(s.port);
        SENDF(&c, "%s HTTP/1.1\r\nHost: h\r\n\r\n", rows[i].request);
        EXPECT(&c, rows[i].status, rows[i].body);
        hang_up(&c);
    }
    finish(&s);
}

TEST(many_routes) {
    prepare(&s, DEFAULTS);
    for (int i = 0; i < 1000; i++) {
        char pattern[64];
        snprintf(pattern, sizeof pattern, "GET /r%d/%s", i, i % 2 ? ":id" : "x");
        CHECK_INT(httpsrv_on(s.srv, pattern, on_tag, i % 2 ? (void *)(uintptr_t) "param" : (void *)(uintptr_t) "exact"),
                  HTTPSRV_OK);
    }
    go(&s);
    struct client c = dial(s.port);
    for (int i = 0; i < 1000; i++) {
        SENDF(&c, "GET /r%d/x HTTP/1.1\r\nHost: a\r\n\r\n", i);
        EXPECT(&c, 200, i % 2 ? "param id=x" : "exact");
    }
    GET(&c, "/r1000/x");
    EXPECT(&c, 404, NULL);
    hang_up(&c);
    finish(&s);
}

static void on_query(httpsrv_req *req, void *user) {
    static const struct {
        const char *name, *value;
    } rows[] = {{"a", "1"}, {"b", "x y"}, {"c", "p q"},        {"d", ""},   {"e", ""},
                {"f", "g"}, {"k k", "v"}, {"u", "\xc3\xa4=&"}, {"z", NULL}, {"x", "/?"}};
    (void)user;
    for (size_t i = 0; i < ROWS(rows); i++) {
        NOTE("query %s", rows[i].name);
        CHECK_VIEW(httpsrv_query(req, rows[i].name), rows[i].value);
    }
    httpsrv_reply(req, 200, NULL, HTTPSRV_STR("ok"));
}

TEST(query) {
    prepare(&s, DEFAULTS);
    httpsrv_on(s.srv, "GET /q", on_query, NULL);
    go(&s);
    struct client c = ASK(&s, "GET /q?a=1&b=x%20y&c=p+q&d&e=&a=2&%66=g&k+k=v&&u=%C3%A4%3D%26&x=/? HTTP/1.1\r\n"
                              "Host: a\r\n\r\n");
    CHECK_INT(c.status, 200);
    hang_up(&c);
    finish(&s);
}

static void on_accessors(httpsrv_req *req, void *user) {
    const httpsrv_head *head = httpsrv_request_head(req);
    char *memory;
    (void)user;
    CHECK_VIEW(httpsrv_header(req, "x-one"), "1");
    CHECK_VIEW(httpsrv_header(req, "X-ONE"), "1"); // the first of two
    CHECK_VIEW(httpsrv_header(req, "X-Empty"), "");
    CHECK_VIEW(httpsrv_header(req, "X-Spaces"), "a  b");
    CHECK_VIEW(httpsrv_header(req, "X-Absent"), NULL);
    CHECK_VIEW(httpsrv_header(req, "X-On"), NULL);
    CHECK_VIEW(httpsrv_param(req, "absent"), NULL);
    CHECK_VIEW(httpsrv_query(req, "absent"), NULL);
    CHECK_VIEW(httpsrv_method(req), "PUT");
    CHECK_VIEW(httpsrv_host(req), "other:1");
    CHECK_VIEW(httpsrv_target(req), "http://other:1/x");
    CHECK_VIEW(httpsrv_path(req), "/x");
    CHECK_VIEW(httpsrv_body(req), "abc");
    CHECK_INT(head->num_fields, 6);
    CHECK_INT(head->method_id, HTTPSRV_METHOD_PUT);
    CHECK_INT(head->form, HTTPSRV_FORM_ABSOLUTE);
    CHECK_INT(head->content_length, 3);
    CHECK_VIEW(head->host, "a");
    CHECK_VIEW(httpsrv_header_at(req, 0)->name, "Host");
    CHECK_VIEW(httpsrv_header_at(req, 4)->value, "2");
    CHECK(httpsrv_header_at(req, 6) == NULL);
    CHECK(httpsrv_header_at(req, -1) == NULL);
    CHECK(!httpsrv_gone(req));
    for (size_t n = 1; n < 200000; n = n * 3 + 1) {
        memory = (char *)httpsrv_alloc(req, n);
        CHECK(memory != NULL);
        CHECK_INT((uintptr_t)memory % _Alignof(max_align_t), 0);
        memset(memory, 1, n);
    }
    httpsrv_reply(req, 200, NULL, HTTPSRV_STR("ok"));
}

TEST(accessors) {
    prepare(&s, DEFAULTS);
    httpsrv_on(s.srv, "PUT /x", on_accessors, NULL);
    go(&s);
    struct client c = ASK(&s, "PUT http://other:1/x HTTP/1.1\r\nHost: a\r\nX-One: 1\r\nX-Empty:\r\n"
                              "X-Spaces: \t a  b \t\r\nx-one: 2\r\nContent-Length: 3\r\n\r\nabc");
    CHECK_INT(c.status, 200);
    hang_up(&c);
    finish(&s);
}

// ---- big answers ----

TEST(big_answers) {
    static const char *const kinds[] = {"big", "borrow"};
    static const size_t sizes[] = {0, 1, 1000, 65535, 65536, 65537, 1 << 20, BLOB_BYTES};
    serve(&s, DEFAULTS);
    struct client c = dial(s.port);
    for (size_t i = 0; i < ROWS(sizes) * 2; i++) {
        NOTE("%s %zu", kinds[i % 2], sizes[i / 2]);
        SENDF(&c, "GET /%s/%zu HTTP/1.1\r\nHost: a\r\n\r\n", kinds[i % 2], sizes[i / 2]);
        REPLY(&c);
        check_blob(&c, sizes[i / 2]);
    }
    hang_up(&c);
    finish(&s);
    CHECK_INT(s.released, (int)ROWS(sizes));
}

TEST(borrowed_bodies_are_released_once) {
    static const char *const ways[] = {"read", "fin", "rst", "HEAD"};
    serve(&s, DEFAULTS);
    for (int i = 0; i < 12; i++) {
        int way = i % 4;
        NOTE("%s", ways[way]);
        struct client c = dial(s.port);
        SENDF(&c, "%s /borrow/8388608 HTTP/1.1\r\nHost: a\r\n\r\n", way == 3 ? "HEAD" : "GET");
        if (way == 0)
            REPLY(&c);
        else if (way == 3)
            REPLY_HEAD(&c);
        else
            net_need(&c, 1000);
        if (way == 2) net_reset(&c);
        hang_up(&c);
        WAIT(LOAD(s.released) == i + 1);
    }
    WAIT(metrics(&s).connections == 0);
    CHECK_INT(LOAD(s.borrowed), 12);
    finish(&s);
}

// ---- what handlers may not do ----

static const struct {
    const char *name, *value;
    size_t len;
    int result;
} fields[] = {
    {"X-Good", "a b\tc", 5, HTTPSRV_OK},
    {"X-Empty", "", 0, HTTPSRV_OK},
    {"X-High", "\xc3\xa4", 2, HTTPSRV_OK},
    {"X-Bad", "a\rb", 3, HTTPSRV_ARG},
    {"X-Bad", "a\nb", 3, HTTPSRV_ARG},
    {"X-Bad", "a\r\nX-Injected: 1", 16, HTTPSRV_ARG},
    {"X-Bad", "a\0b", 3, HTTPSRV_ARG},
    {"X-Bad", "a\x01", 2, HTTPSRV_ARG},
    {"X-Bad", "a\x7f", 2, HTTPSRV_ARG},
    {"X Bad", "a", 1, HTTPSRV_ARG},
    {"X-Bad:", "a", 1, HTTPSRV_ARG},
    {"X-Bad\r\nX-Injected", "a", 1, HTTPSRV_ARG},
    {"", "a", 1, HTTPSRV_ARG},
    {"Content-Length", "3", 1, HTTPSRV_ARG},
    {"content-length", "3", 1, HTTPSRV_ARG},
    {"Transfer-Encoding", "chunked", 7, HTTPSRV_ARG},
    {"Connection", "keep-alive", 10, HTTPSRV_ARG},
    {"Connection", "upgrade", 7, HTTPSRV_ARG},
};

static void on_fields(httpsrv_req *req, void *user) {
    httpsrv_field field = {HTTPSRV_STR("X-Bad"), HTTPSRV_STR("a\r\nb")};
    httpsrv_answer answer = {.status = 200, .body = blob_view(3), .fields = &field, .num_fields = 1};
    (void)user;
    for (size_t i = 0; i < ROWS(fields); i++) {
        httpsrv_str value = {fields[i].value, fields[i].len};
        NOTE("field %s, row %zu", fields[i].name, i);
        CHECK_INT(httpsrv_set(req, fields[i].name, value), fields[i].result);
        CHECK_INT(httpsrv_add(req, fields[i].name, value), fields[i].result);
    }
    CHECK_INT(httpsrv_set(req, NULL, HTTPSRV_STR("a")), HTTPSRV_ARG);
    CHECK_INT(httpsrv_reply_with(req, &answer), HTTPSRV_ARG);
    CHECK_INT(httpsrv_reply(req, 200, "text/plain\r\nX-Injected: 1", HTTPSRV_STR("a")), HTTPSRV_ARG);
    CHECK_INT(httpsrv_set(req, "X-Empty", HTTPSRV_STR("once")), HTTPSRV_OK); // replaces both
    field.value = HTTPSRV_STR("fine");
    CHECK_INT(httpsrv_reply_with(req, &answer), HTTPSRV_OK);
}

TEST(fields_of_answers) {
    prepare(&s, DEFAULTS);
    httpsrv_on(s.srv, "GET /fields", on_fields, NULL);
    go(&s);
    struct client c = dial(s.port);
    GET(&c, "/fields");
    REPLY(&c);
    check_blob(&c, 3);
    CHECK_INT(count_fields(&c, "X-Good"), 2);
    CHECK_INT(count_fields(&c, "X-High"), 2);
    CHECK_INT(count_fields(&c, "X-Empty"), 1);
    CHECK_STR(field(&c, "X-Empty"), "once");
    CHECK_STR(field(&c, "X-Bad"), "fine");
    CHECK_STR(field(&c, "X-Injected"), NULL);
    CHECK_STR(field(&c, "Content-Length"), "3");
    CHECK_STR(field(&c, "Connection"), NULL);
    CHECK(!c.close);
    hang_up(&c);
    finish(&s);
}

static void on_close(httpsrv_req *req, void *user) {
    (void)user;
    CHECK_INT(httpsrv_set(req, "Connection", HTTPSRV_STR("close")), HTTPSRV_OK);
    CHECK_INT(httpsrv_set(req, "Server", HTTPSRV_STR("mine")), HTTPSRV_OK);
    CHECK_INT(httpsrv_set(req, "Cache-Control", HTTPSRV_STR("no-store")), HTTPSRV_OK);
    httpsrv_reply(req, 200, NULL, HTTPSRV_STR("bye"));
}

TEST(handler_closes) {
    prepare(&s, DEFAULTS);
    httpsrv_on(s.srv, "GET /close", on_close, NULL);
    go(&s);
    struct client c = dial(s.port);
    SEND(&c, "GET /close HTTP/1.1\r\nHost: a\r\n\r\nGET /close HTTP/1.1\r\nHost: a\r\n\r\n");
    EXPECT(&c, 200, "bye");
    CHECK_STR(field(&c, "Connection"), "close");
    CHECK_STR(field(&c, "Cache-Control"), "no-store");
    EXPECT_EOF(&c);
    hang_up(&c);
    finish(&s);
}

TEST(exactly_one_answer) {
    serve(&s, DEFAULTS);
    struct client c = dial(s.port);
    for (int i = 0; i < 3; i++) {
        GET(&c, "/twice");
        EXPECT(&c, 200, "first");
        CHECK_STR(field(&c, "X-Late"), NULL);
        GET(&c, "/never");
        EXPECT(&c, 500, NULL);
        CHECK(!c.close);
    }
    hang_up(&c);
    finish(&s);
    CHECK_INT(s.last.items[HTTPSRV_LOG_NO_ANSWER], 3);
    CHECK_CMP(s.last.items[HTTPSRV_LOG_ANSWERED_TWICE], >=, 3);
}

static void on_bad_status(httpsrv_req *req, void *user) {
    static const int bad[] = {-1, 0, 99, 100, 101, 199, 600, 1000};
    (void)user;
    for (size_t i = 0; i < ROWS(bad); i++) {
        httpsrv_answer answer = {.status = bad[i]};
        NOTE("status %d", bad[i]);
        CHECK_INT(httpsrv_reply(req, bad[i], NULL, HTTPSRV_STR("a")), HTTPSRV_ARG);
        CHECK_INT(httpsrv_replyf(req, bad[i], NULL, "a"), HTTPSRV_ARG);
        CHECK_INT(httpsrv_reply_with(req, &answer), HTTPSRV_ARG);
    }
    CHECK_INT(httpsrv_reply_with(req, NULL), HTTPSRV_ARG);
    CHECK_INT(httpsrv_replyf(req, 200, NULL, "%d %s", 7, "seven"), HTTPSRV_OK);
}

TEST(status_out_of_range) {
    prepare(&s, DEFAULTS);
    httpsrv_on(s.srv, "GET /", on_bad_status, NULL);
    go(&s);
    struct client c = ASK(&s, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK_INT(c.status, 200);
    CHECK_MEM(c.body, c.body_len, "7 seven", 7);
    hang_up(&c);
    finish(&s);
}

static void on_format(httpsrv_req *req, void *user) {
    size_t n = number_param(req, "n");
    char *text = (char *)malloc(n + 1);
    (void)user;
    memcpy(text, blob, n);
    text[n] = 0;
    const size_t before = LOAD(s.bytes);
    CHECK_INT(httpsrv_replyf(req, 600, NULL, "%s", text), HTTPSRV_ARG);
    CHECK_INT(httpsrv_replyf(req, 200, NULL, "%s%*s", text, (1 << 20) + 1 - (int)n, ""), HTTPSRV_ARG);
    CHECK_INT(LOAD(s.bytes), before);
    if (n > 511) {
        STORE(s.asked, 0);
        STORE(s.failing_at, 1);
        CHECK_INT(httpsrv_replyf(req, 200, NULL, "%s", text), HTTPSRV_NOMEM);
        STORE(s.failing_at, 0);
    }
    CHECK_INT(httpsrv_replyf(req, 200, NULL, "%s", text), HTTPSRV_OK);
    free(text);
}

TEST(replyf_of_many_sizes) {
    static const int sizes[] = {0, 1, 511, 512, 513, 1000, 2047, 2048, 2049, 70000, 1 << 20};
    prepare(&s, DEFAULTS);
    httpsrv_on(s.srv, "GET /:n", on_format, NULL);
    go(&s);
    struct client c = dial(s.port);
    for (size_t i = 0; i < ROWS(sizes); i++) {
        SENDF(&c, "GET /%d HTTP/1.1\r\nHost: a\r\n\r\n", sizes[i]);
        REPLY(&c);
        check_blob(&c, (size_t)sizes[i]);
    }
    hang_up(&c);
    finish(&s);
}

// ---- clients that leave ----

TEST(clients_that_leave) {
    static const struct {
        const char *stage, *sent;
        size_t read;
    } stages[] = {
        {"before anything", "", 0},
        {"in the request line", "GET /he", 0},
        {"in the head", "GET /hello HTTP/1.1\r\nHost: a\r\nX-", 0},
        {"in the body", "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello", 0},
        {"in a chunk", "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe", 0},
        {"waiting for 100", WANTS_100("/echo", "5"), 25},
        {"after a request", NEXT, 0},
        {"after an answer", NEXT, 100},
        {"while answered", "GET /big/8000000 HTTP/1.1\r\nHost: a\r\n\r\n", 100000},
        {"while answered from borrowed memory", "GET /borrow/8000000 HTTP/1.1\r\nHost: a\r\n\r\n", 100000},
        {"while the answer is blocked, more requests behind",
         "GET /borrow/8000000 HTTP/1.1\r\nHost: a\r\n\r\n" NEXT NEXT, 1},
    };
    static const char *const ways[] = {"FIN", "RST", "half-close"};
    serve(&s, DEFAULTS);
    for (size_t i = 0; i < ROWS(stages) * ROWS(ways); i++) {
        size_t stage = i / ROWS(ways), way = i % ROWS(ways);
        NOTE("%s %s", ways[way], stages[stage].stage);
        struct client c = dial(s.port);
        if (*stages[stage].sent)
            send_seen(&s, &c, stages[stage].sent, strlen(stages[stage].sent));
        else
            WAIT(metrics(&s).connections == 1);
        net_need(&c, stages[stage].read);
        if (way == 2) {
            half_close(&c);
            EXPECT_END(&c);
        }
        if (way == 1) net_reset(&c);
        hang_up(&c);
        WAIT(metrics(&s).connections == 0);
        check_alive(&s);
        WAIT(metrics(&s).connections == 0);
    }
    finish(&s);
}

TEST(half_close_still_gets_the_answers) {
    serve(&s, DEFAULTS);
    struct client c = dial(s.port);
    SEND(&c, NEXT "GET /borrow/8388608 HTTP/1.1\r\nHost: a\r\n\r\nPOST /echo HTTP/1.1\r\nHost: "
                  "a\r\nContent-Length: 2\r\n\r\nok");
    half_close(&c);
    EXPECT(&c, 200, HELLO);
    REPLY(&c);
    check_blob(&c, 8388608);
    EXPECT(&c, 200, "ok");
    EXPECT_EOF(&c);
    hang_up(&c);
    finish(&s);
}

// ---- refusals ----

#define POST_CHUNKS(chunks) "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" chunks
#define WITH(field)         "POST /echo HTTP/1.1\r\nHost: a\r\n" field "\r\n\r\n"

static const struct {
    const char *request;
    int status;
    httpsrv_log_item item;
    bool lives;
} refusals[] = {
    {"GET\r\n\r\n", 400, HTTPSRV_LOG_BAD_REQUEST_LINE, false},
    {"GET /hello\r\n\r\n", 400, 0, false},
    {"GET /hello HTTP/1.1 \r\nHost: a\r\n\r\n", 400, 0, false},
    {"GET /hello HTTP/1.1\nHost: a\n\n", 400, 0, false},
    {"GET /hello HTTP/1.1\r\nHost: a\n\r\n", 400, HTTPSRV_LOG_BAD_FIELD, false},
    {"GET  /hello HTTP/1.1\r\nHost: a\r\n\r\n", 400, 0, false},
    {"GET /hel lo HTTP/1.1\r\nHost: a\r\n\r\n", 400, 0, false},
    {"GET /hello http/1.1\r\nHost: a\r\n\r\n", 400, 0, false},
    {"GET /hello HTTP/1.11\r\nHost: a\r\n\r\n", 400, 0, false},
    {"G(T /hello HTTP/1.1\r\nHost: a\r\n\r\n", 400, HTTPSRV_LOG_BAD_METHOD, false},
    {" GET /hello HTTP/1.1\r\nHost: a\r\n\r\n", 400, 0, false},
    {"GET /hel\"lo HTTP/1.1\r\nHost: a\r\n\r\n", 400, HTTPSRV_LOG_BAD_TARGET, false},
    {"GET /hel\x80lo HTTP/1.1\r\nHost: a\r\n\r\n", 400, HTTPSRV_LOG_BAD_TARGET, false},
    {"GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n", 400, HTTPSRV_LOG_BAD_TARGET, false},
    {"GET hello HTTP/1.1\r\nHost: a\r\n\r\n", 400, HTTPSRV_LOG_BAD_TARGET, false},
    {"GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400, HTTPSRV_LOG_BAD_TARGET, false},
    {"GET /hello#x HTTP/1.1\r\nHost: a\r\n\r\n", 400, HTTPSRV_LOG_BAD_TARGET, false},
    {"GET /hello HTTP/2.0\r\nHost: a\r\n\r\n", 505, HTTPSRV_LOG_BAD_VERSION, false},
    {"GET /hello HTTP/0.9\r\nHost: a\r\n\r\n", 505, HTTPSRV_LOG_BAD_VERSION, false},
    {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, HTTPSRV_LOG_BAD_VERSION, false},
    {"GET /hello HTTP/1.1\r\n\r\n", 400, HTTPSRV_LOG_BAD_HOST, false},
    {"GET /hello HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400, HTTPSRV_LOG_BAD_HOST, false},
    {"GET /hello HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n", 400, HTTPSRV_LOG_BAD_HOST, false},
    {"GET /hello HTTP/1.1\r\nHost: a b\r\n\r\n", 400, HTTPSRV_LOG_BAD_HOST, false},
    {"GET /hello HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, HTTPSRV_LOG_BAD_HOST, false},
    {WITH("X : a"), 400, HTTPSRV_LOG_BAD_FIELD, false},
    {WITH("X@Y: a"), 400, HTTPSRV_LOG_BAD_FIELD, false},
    {WITH(": a"), 400, HTTPSRV_LOG_BAD_FIELD, false},
    {WITH("X"), 400, HTTPSRV_LOG_BAD_FIELD, false},
    {WITH("X: a\r\n folded"), 400, HTTPSRV_LOG_BAD_FIELD, false},
    {WITH("X: a\rb"), 400, HTTPSRV_LOG_BAD_FIELD, false},
    {WITH("X: a\x01"), 400, HTTPSRV_LOG_BAD_FIELD, false},
    {WITH("Content-Length: +5"), 400, HTTPSRV_LOG_BAD_LENGTH, false},
    {WITH("Content-Length: -1"), 400, HTTPSRV_LOG_BAD_LENGTH, false},
    {WITH("Content-Length: 5 5"), 400, HTTPSRV_LOG_BAD_LENGTH, false},
    {WITH("Content-Length: 0x5"), 400, HTTPSRV_LOG_BAD_LENGTH, false},
    {WITH("Content-Length: 5, 5"), 400, HTTPSRV_LOG_BAD_LENGTH, false},
    {WITH("Content-Length: 5abc"), 400, HTTPSRV_LOG_BAD_LENGTH, false},
    {WITH("Content-Length:"), 400, HTTPSRV_LOG_BAD_LENGTH, false},
    {WITH("Content-Length: 18446744073709551621"), 400, HTTPSRV_LOG_BAD_LENGTH, false},
    {WITH("Content-Length: 5\r\nContent-Length: 5"), 400, HTTPSRV_LOG_BAD_LENGTH, false},
    {WITH("Content-Length: 5\r\nTransfer-Encoding: chunked"), 400, HTTPSRV_LOG_BAD_LENGTH, false},
    {WITH("Transfer-Encoding: chunked\r\nContent-Length: 5"), 400, HTTPSRV_LOG_BAD_LENGTH, false},
    {WITH("Transfer-Encoding: gzip"), 400, HTTPSRV_LOG_BAD_CODING, false},
    {WITH("Transfer-Encoding: chunked, gzip"), 400, HTTPSRV_LOG_BAD_CODING, false},
    {WITH("Transfer-Encoding: chunked, chunked"), 400, HTTPSRV_LOG_BAD_CODING, false},
    {WITH("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"), 400, HTTPSRV_LOG_BAD_CODING, false},
    {WITH("Transfer-Encoding:"), 400, HTTPSRV_LOG_BAD_CODING, false},
    {WITH("Transfer-Encoding: gzip, chunked"), 501, HTTPSRV_LOG_UNKNOWN_CODING, false},
    {"POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, HTTPSRV_LOG_BAD_CODING, false},
    {POST_CHUNKS("zz\r\n"), 400, HTTPSRV_LOG_BAD_CHUNK, false},
    {POST_CHUNKS("-2\r\n"), 400, HTTPSRV_LOG_BAD_CHUNK, false},
    {POST_CHUNKS("\r\n"), 400, HTTPSRV_LOG_BAD_CHUNK, false},
    {POST_CHUNKS("0x1\r\na\r\n0\r\n\r\n"), 400, HTTPSRV_LOG_BAD_CHUNK, false},
    {POST_CHUNKS("1\na\r\n0\r\n\r\n"), 400, HTTPSRV_LOG_BAD_CHUNK, false},
    {POST_CHUNKS("fffffffffffffffff\r\n"), 400, HTTPSRV_LOG_BAD_CHUNK, false},
    {POST_CHUNKS("00000000000000000000000000000001\r\na\r\n"), 400, HTTPSRV_LOG_BAD_CHUNK, false},
    {POST_CHUNKS("3\r\nabcX"), 400, HTTPSRV_LOG_BAD_CHUNK, false},
    {POST_CHUNKS("3\r\nabc\n"), 400, HTTPSRV_LOG_BAD_CHUNK, false},
    {POST_CHUNKS("3;a=\x01\r\nabc\r\n"), 400, HTTPSRV_LOG_BAD_CHUNK, false},
    {POST_CHUNKS("0\r\nX : y\r\n\r\n"), 400, HTTPSRV_LOG_BAD_TRAILER, false},
    {POST_CHUNKS("0\r\nX: y\n\r\n"), 400, HTTPSRV_LOG_BAD_TRAILER, false},
    {POST_CHUNKS("0\r\nContent-Length: 5\r\n\r\n"), 400, HTTPSRV_LOG_BAD_TRAILER, false},
    {POST_CHUNKS("0\r\nHost: b\r\n\r\n"), 400, HTTPSRV_LOG_BAD_TRAILER, false},
    {WITH("Content-Length: 1048577"), 413, HTTPSRV_LOG_BODY_TOO_LARGE, false},
    {POST_CHUNKS("fffffff\r\n"), 413, HTTPSRV_LOG_BODY_TOO_LARGE, false},
    {WITH("Expect: tea"), 417, HTTPSRV_LOG_BAD_EXPECT, true},
    {"GET /../x HTTP/1.1\r\nHost: a\r\n\r\n", 400, HTTPSRV_LOG_BAD_PATH, true},
    {"GET /a%00 HTTP/1.1\r\nHost: a\r\n\r\n", 400, HTTPSRV_LOG_BAD_PATH, true},
    {"BREW /hello HTTP/1.1\r\nHost: a\r\n\r\n", 501, HTTPSRV_LOG_UNKNOWN_METHOD, true},
    {"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n", 404, HTTPSRV_LOG_NOT_FOUND, true},
    {"POST /hello HTTP/1.1\r\nHost: a\r\n\r\n", 405, HTTPSRV_LOG_NOT_ALLOWED, true},
};

static void check_refusal(size_t i, bool bytewise) {
    uint64_t before[HTTPSRV_LOG_COUNT];
    struct client c = dial(s.port);
    memcpy(before, metrics(&s).items, sizeof before);
    NOTE("%s%s", bytewise ? "byte by byte: " : "", refusals[i].request);
    if (bytewise) {
        size_t len = strlen(refusals[i].request);
        for (size_t at = 0; at < len && net_send_some(&c, refusals[i].request + at, 1, net_deadline()); at++)
            test_sleep(0);
    } else {
        SENDF(&c, "%s" NEXT, refusals[i].request);
    }
    EXPECT(&c, refusals[i].status, NULL);
    if (refusals[i].item) {
        WAIT(item(refusals[i].item) == before[refusals[i].item] + 1);
        WAIT(LOAD(s.logged[refusals[i].item]) == before[refusals[i].item] + 1);
    }
    CHECK_INT(c.close, !refusals[i].lives);
    if (!refusals[i].lives)
        EXPECT_EOF(&c);
    else if (!bytewise)
        EXPECT(&c, 200, HELLO);
    hang_up(&c);
}

TEST(refusals) {
    serve(&s, DEFAULTS);
    for (size_t i = 0; i < ROWS(refusals); i++)
        check_refusal(i, false);
    check_alive(&s);
    finish(&s);
}

TEST(refusals_byte_by_byte) {
    serve(&s, DEFAULTS);
    for (size_t i = 0; i < ROWS(refusals); i++)
        check_refusal(i, true);
    check_alive(&s);
    finish(&s);
}

TEST(nul_bytes_are_refused) {
    static const char *const rows[] = {
        "GE?T /hello HTTP/1.1\r\nHost: a\r\n\r\n", "GET /hel?lo HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /hello HTTP/1.1\r\nHost: a\r\nX: a?b\r\n\r\n", "GET /hello HTTP/1.1\r\nHost: a\r\nX?: ab\r\n\r\n"};
    serve(&s, DEFAULTS);
    for (size_t i = 0; i < ROWS(rows); i++) {
        struct client c = dial(s.port);
        char text[100];
        size_t len = strlen(rows[i]);
        memcpy(text, rows[i], len);
        *(char *)memchr(text, '?', len) = 0;
        net_send(&c, text, len);
        EXPECT(&c, 400, NULL);
        EXPECT_EOF(&c);
        hang_up(&c);
    }
    finish(&s);
}

// The answer to a client that goes on sending must arrive whole: no reset may overtake it.
TEST(refusals_reach_a_client_that_sends_on) {
    static const struct {
        const char *head;
        int status;
    } rows[] = {{WITH("Content-Length: 2000000"), 413},
                {WITH("Transfer-Encoding: gzip"), 400},
                {WITH("X : a"), 400},
                {"POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000\r\n\r\n", 404},
                {POST_CHUNKS("fffffff\r\n"), 413}};
    serve(&s, DEFAULTS);
    for (size_t i = 0; i < ROWS(rows) * 3; i++) {
        NOTE("%s", rows[i / 3].head);
        struct client c = dial(s.port);
        SEND(&c, rows[i / 3].head);
        if (i % 3 == 1) test_sleep(20);
        for (int piece = 0; piece < 20; piece++) {
            net_send(&c, blob, 100000);
            if (i % 3 == 2) test_sleep(2);
        }
        EXPECT(&c, rows[i / 3].status, NULL);
        if (c.close) EXPECT_EOF(&c);
        hang_up(&c);
    }
    WAIT(metrics(&s).connections == 0);
    finish(&s);
}

// A client that says itself that it sends nothing more is not waited for, unless it has sent more already: a reset would take
// its answer away.
TEST(clients_that_part_are_not_waited_for) {
    static const char *const last[] = {WITH("Connection: close"), "GET /hello HTTP/1.0\r\n\r\n"};
    serve(&s, &(httpsrv_config){.timeout_ms.idle = 60000});
    for (size_t i = 0; i < ROWS(last); i++) {
        struct client c = ASK(&s, last[i]);
        EXPECT_EOF(&c);
        for (int64_t deadline = test_now() + test_ms(1000); metrics(&s).connections > 0; test_sleep(1))
            CHECK_CMP(test_now(), <, deadline); // lingering takes longer
        hang_up(&c);
    }
    for (size_t i = 0; i < ROWS(last); i++) {
        char text[512];
        snprintf(text, sizeof text, "%s%s", last[i], NEXT);
        struct client c = ASK(&s, text);
        CHECK_INT(c.status, 200);
        EXPECT_EOF(&c);
        hang_up(&c);
        WAIT(metrics(&s).connections == 0);
    }
    finish(&s);
}

// Lingering is bounded in time, whatever the client does.
TEST(lingering_ends) {
    serve(&s, DEFAULTS);
    struct client c = ASK(&s, WITH("X : a"));
    CHECK_INT(c.status, 400);
    EXPECT_EOF(&c);
    for (int64_t deadline = test_now() + test_ms(8000); metrics(&s).connections > 0; test_sleep(20)) {
        (void)net_send_some(&c, "x", 1, net_deadline());
        CHECK_CMP(test_now(), <, deadline);
    }
    hang_up(&c);
    finish(&s);
}

// ---- limits: at the limit, and one past it ----

#define HEAD_BYTES 300

TEST(max_head) {
    static const char format[] = "GET /hello HTTP/1.1\r\nHost: a\r\nX: %s\r\n\r\n";
    size_t fixed = sizeof format - 3;
    serve(&s, &(httpsrv_config){.max.head = HEAD_BYTES});
    struct client c = ASK(&s, stretch(format, 'x', HEAD_BYTES - fixed));
    CHECK_INT(c.status, 200);
    hang_up(&c);
    c = ASK(&s, stretch(format, 'x', HEAD_BYTES - fixed + 1));
    CHECK_INT(c.status, 431);
    EXPECT_EOF(&c);
    hang_up(&c);
    c = dial(s.port);
    SEND(&c, stretch("GET /hello HTTP/1.1\r\nHost: a\r\nX: %s", 'x',
                     HEAD_BYTES)); // not complete, and never will be
    EXPECT(&c, 431, NULL);
    hang_up(&c);
    CHECK_INT(item(HTTPSRV_LOG_HEAD_TOO_LARGE), 2);
    finish(&s);
}

TEST(max_head_default_spans_reads) {
    serve(&s, DEFAULTS);
    struct client c = dial(s.port);
    static const char format[] = "GET /hello HTTP/1.1\r\nHost: a\r\nX: %s\r\n\r\n";
    char *text = stretch(format, 'x', 16384 - (sizeof format - 3));
    CHECK_INT(strlen(text), 16384);
    net_send_split(&c, text, strlen(text), 1000);
    EXPECT(&c, 200, HELLO);
    hang_up(&c);
    finish(&s);
}

TEST(max_uri) {
    static const char format[] = "GET /hello?%s HTTP/1.1\r\nHost: a\r\n\r\n";
    serve(&s, &(httpsrv_config){.max.uri = 64});
    struct client c = ASK(&s, stretch(format, 'x', 64 - 7));
    CHECK_INT(c.status, 200);
    hang_up(&c);
    c = ASK(&s, stretch(format, 'x', 64 - 7 + 1));
    CHECK_INT(c.status, 414);
    EXPECT_EOF(&c);
    hang_up(&c);
    CHECK_INT(item(HTTPSRV_LOG_URI_TOO_LONG), 1);
    finish(&s);
}

TEST(max_headers) {
    static const char five[] = "GET /hello HTTP/1.1\r\nHost: a\r\nA: 1\r\nB: 2\r\nC: 3\r\n%s\r\n";
    char text[200];
    serve(&s, &(httpsrv_config){.max.headers = 5});
    snprintf(text, sizeof text, five, "D: 4\r\n");
    struct client c = ASK(&s, text);
    CHECK_INT(c.status, 200);
    hang_up(&c);
    snprintf(text, sizeof text, five, "D: 4\r\nE: 5\r\n");
    c = ASK(&s, text);
    CHECK_INT(c.status, 431);
    EXPECT_EOF(&c);
    hang_up(&c);
    CHECK_INT(item(HTTPSRV_LOG_HEAD_TOO_LARGE), 1);
    finish(&s);
}

TEST(max_body) {
    static const struct {
        const char *target;
        int64_t length;
        int status;
    } rows[] = {{"/server", 10, 200}, {"/server", 11, 413}, {"/small", 5, 200},           {"/small", 6, 413},
                {"/none", 0, 200},    {"/none", 1, 413},    {"/unlimited", 3000000, 200}, {"/large", 20, 200},
                {"/large", 21, 413},  {"/nowhere", 1, 404}};
    static const struct {
        const char *pattern;
        int64_t max;
    } routes[] = {{"POST /server", 0},
                  {"POST /small", 5},
                  {"POST /none", HTTPSRV_ZERO},
                  {"POST /unlimited", -1},
                  {"POST /large", 20}};
    prepare(&s, &(httpsrv_config){.max.body = 10});
    for (size_t i = 0; i < ROWS(routes); i++)
        CHECK_INT(httpsrv_route(s.srv, &(httpsrv_route_config){.pattern = routes[i].pattern,
                                                               .handler = on_echo,
                                                               .user = &s,
                                                               .max_body = routes[i].max}),
                  HTTPSRV_OK);
    go(&s);
    for (size_t i = 0; i < ROWS(rows) * 2; i++) {
        size_t row = i / 2;
        NOTE("%s %d bytes, %s", rows[row].target, (int)rows[row].length, i % 2 ? "chunked" : "Content-Length");
        struct client c = dial(s.port);
        if (i % 2 == 0) {
            SENDF(&c, "POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", rows[row].target,
                  (int)rows[row].length);
            net_send(&c, blob, (size_t)rows[row].length);
        } else {
            SENDF(&c, "POST %s HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", rows[row].target);
            for (int64_t at = 0, n; at < rows[row].length; at += n) { // one byte chunks at first, then large ones
                n = at < 1000 ? 1 : rows[row].length - at < 60000 ? rows[row].length - at : 60000;
                SENDF(&c, "%x\r\n", (unsigned)n);
                net_send(&c, blob + at, (size_t)n);
                SEND(&c, "\r\n");
            }
            SEND(&c, "0\r\n\r\n");
        }
        REPLY(&c);
        CHECK_INT(c.status, rows[row].status);
        if (c.status == 200) check_blob(&c, (size_t)rows[row].length);
        if (c.status == 413) EXPECT_EOF(&c);
        hang_up(&c);
    }
    CHECK_INT(item(HTTPSRV_LOG_BODY_TOO_LARGE), 8);
    finish(&s);
}

// Each listen resolves the routes' limits from what was configured.
TEST(max_body_none_stays_none) {
    prepare(&s, DEFAULTS);
    httpsrv_route_config route = {.pattern = "POST /none", .handler = on_echo, .user = &s, .max_body = HTTPSRV_ZERO};
    CHECK_INT(httpsrv_route(s.srv, &route), HTTPSRV_OK);
    for (int i = 0; i < 2; i++) {
        go(&s);
        struct client c = ASK(&s, "POST /none HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx");
        CHECK_INT(c.status, 413);
        hang_up(&c);
        httpsrv_stop(s.srv);
        CHECK_INT(httpsrv_join(s.srv), HTTPSRV_OK);
    }
    dispose(&s);
}

TEST(max_body_none) {
    serve(&s, &(httpsrv_config){.max.body = HTTPSRV_ZERO});
    struct client c = ASK(&s, WITH("Content-Length: 1") "x");
    CHECK_INT(c.status, 413);
    hang_up(&c);
    check_alive(&s);
    finish(&s);
}

TEST(max_connections) {
    struct client in[3], out;
    serve(&s, &(httpsrv_config){.max.connections = 3});
    for (int i = 0; i < 3; i++) {
        in[i] = dial(s.port);
        GET(&in[i], "/hello");
        EXPECT(&in[i], 200, HELLO);
    }
    for (int i = 0; i < 5; i++) {
        out = dial(s.port);
        if (i % 2) (void)net_send_some(&out, NEXT, strlen(NEXT), net_deadline());
        EXPECT(&out, 503, NULL);
        CHECK(field(&out, "Retry-After") != NULL);
        CHECK(out.close);
        EXPECT_EOF(&out);
        hang_up(&out);
    }
    GET(&in[0], "/hello"); // those that are in are not disturbed
    EXPECT(&in[0], 200, HELLO);
    hang_up(&in[0]);
    WAIT(metrics(&s).connections == 2);
    check_alive(&s);
    hang_up(&in[1]);
    hang_up(&in[2]);
    CHECK_INT(item(HTTPSRV_LOG_TOO_MANY_CONNECTIONS), 5);
    finish(&s);
    CHECK_INT(s.last.accepted, 9);
}

TEST(max_requests) {
    serve(&s, &(httpsrv_config){.max.requests = 3});
    for (int round = 0; round < 2; round++) {
        struct client c = dial(s.port);
        for (int i = 0; i < 4; i++)
            if (round || i < 3) SEND(&c, NEXT);
        for (int i = 0; i < 3; i++) {
            EXPECT(&c, 200, HELLO);
            CHECK_INT(c.close, i == 2);
        }
        EXPECT_EOF(&c);
        hang_up(&c);
    }
    finish(&s);
    CHECK_INT(s.handled, 6);
}

static void check_field(const struct client *c, const char *name, const char *expected) {
    const char *value = field(c, name);
    NOTE("field %s", name);
    CHECK_STR(value ? value : "(none)", expected ? expected : "(none)");
}

TEST(keep_alive_field) {
    static const struct {
        int idle, requests;
        const char *first, *second, *third;
    } rows[] = {{0, 0, "timeout=30", "timeout=30", "timeout=30"},
                {1500, 3, "timeout=2, max=2", "timeout=2, max=1", NULL},
                {-1, 3, "max=2", "max=1", NULL},
                {-1, 0, NULL, NULL, NULL}};
    for (size_t i = 0; i < ROWS(rows); i++) {
        serve(&s, &(httpsrv_config){
                      .keep_alive_header = true, .timeout_ms.idle = rows[i].idle, .max.requests = rows[i].requests});
        struct client c = dial(s.port);
        const char *const expected[] = {rows[i].first, rows[i].second, rows[i].third};
        for (int k = 0; k < 3; k++) {
            SEND(&c, NEXT);
            EXPECT(&c, 200, HELLO);
            check_field(&c, "Keep-Alive", expected[k]);
            check_field(&c, "Connection", expected[k] ? "keep-alive" : k == 2 && rows[i].requests ? "close" : NULL);
        }
        hang_up(&c);
        finish(&s);
    }
}

TEST(no_keep_alive_field_unless_configured) {
    serve(&s, DEFAULTS);
    struct client c = ASK(&s, NEXT);
    check_field(&c, "Keep-Alive", NULL);
    check_field(&c, "Connection", NULL);
    hang_up(&c);
    finish(&s);
}

static void on_trailers(httpsrv_req *req, void *user) {
    httpsrv_str sum = httpsrv_trailer(req, "CHECKSUM"), other = httpsrv_trailer(req, "x-other");
    const httpsrv_field *second = httpsrv_trailer_at(req, 1);
    (void)user;
    CHECK(httpsrv_trailer(req, "Host").ptr == NULL && httpsrv_header(req, "Checksum").ptr == NULL);
    CHECK(httpsrv_trailer_at(req, -1) == NULL && httpsrv_trailer_at(req, 2) == NULL);
    httpsrv_replyf(req, 200, "text/plain", "%.*s|%.*s|%.*s|%.*s", HTTPSRV_FMT(sum), HTTPSRV_FMT(other),
                   second ? (int)second->name.len : 0, second ? second->name.ptr : "", HTTPSRV_FMT(httpsrv_body(req)));
}

// Kept apart from the head, on the reactor and on a worker, at every split.
TEST(trailers) {
    static const char *const paths[] = {"/trailers", "/pool/trailers"};
    prepare(&s, DEFAULTS);
    httpsrv_on(s.srv, "POST /trailers", on_trailers, NULL);
    httpsrv_route(s.srv,
                  &(httpsrv_route_config){.pattern = "POST /pool/trailers", .handler = on_trailers, .pool = "default"});
    go(&s);
    for (size_t i = 0; i < ROWS(paths); i++) {
        char request[256];
        snprintf(request, sizeof request,
                 "POST %s HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n"
                 "Checksum: 1 2\r\nX-Other:\r\n\r\n",
                 paths[i]);
        for (size_t split = 1; split <= strlen(request); split++) {
            struct client c = dial(s.port);
            NOTE("%s split at %zu", paths[i], split);
            send_seen(&s, &c, request, split);
            if (request[split]) SEND(&c, request + split);
            EXPECT(&c, 200, "1 2||X-Other|abc");
            SENDF(&c, "POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok", paths[i]);
            REPLY(&c);
            CHECK_INT(c.status, 200);
            hang_up(&c);
        }
    }
    finish(&s);
}

static void on_late_trailers(httpsrv_req *req, void *user) {
    const int before = LOAD(s.handled);
    while (LOAD(s.handled) == before)
        test_sleep(1); // another connection's request has gone through the reactor's buffer meanwhile
    on_trailers(req, user);
}

TEST(trailers_outlive_the_buffer) {
    prepare(&s, DEFAULTS);
    route_all(&s, "", NULL);
    httpsrv_route(s.srv,
                  &(httpsrv_route_config){.pattern = "POST /late", .handler = on_late_trailers, .pool = "default"});
    go(&s);
    struct client c = dial(s.port), other = dial(s.port);
    SEND(&c, "POST /late HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n"
             "Checksum: 1 2\r\nX-Other:\r\n\r\n");
    WAIT(metrics(&s).pool_jobs == 1);
    test_sleep(20);
    SENDF(&other, "GET /hello HTTP/1.1\r\nHost: a\r\nX: %0200d\r\n\r\n", 0);
    EXPECT(&other, 200, HELLO);
    EXPECT(&c, 200, "1 2||X-Other|abc");
    hang_up(&other);
    hang_up(&c);
    finish(&s);
}

// ---- time-outs ----

TEST(timeout_idle) {
    serve(&s, &(httpsrv_config){.timeout_ms.idle = test_ms(200)});
    struct client fresh = dial(s.port), used = dial(s.port);
    int64_t start = test_now();
    GET(&used, "/hello");
    EXPECT(&used, 200, HELLO);
    EXPECT_EOF(&fresh); // nothing received: no answer
    EXPECT_EOF(&used);
    CHECK_CMP(test_now() - start, >=, test_ms(190));
    CHECK_INT(item(HTTPSRV_LOG_IDLE_TIMEOUT), 2);
    CHECK_INT(metrics(&s).answers[4], 0);
    hang_up(&fresh);
    hang_up(&used);
    finish(&s);
}

TEST(timeout_idle_spares_the_busy) {
    serve(&s, &(httpsrv_config){.timeout_ms.idle = test_ms(400)});
    struct client c = dial(s.port);
    for (int i = 0; i < 8; i++) {
        test_sleep(test_ms(80));
        GET(&c, "/hello");
        EXPECT(&c, 200, HELLO);
    }
    hang_up(&c);
    finish(&s);
}

// A byte now and then, until something comes back. False if nothing does.
static bool trickle(struct client *c) {
    int64_t deadline = test_now() + test_ms(5000);
    while (test_now() < deadline) {
        if (net_poll(c->fd, POLLIN, test_now() + test_ms(10))) return true;
        (void)net_send_some(c, "G", 1, net_deadline());
    }
    return false;
}

TEST(timeout_head) {
    serve(&s, &(httpsrv_config){.timeout_ms.head = test_ms(200)});
    struct client stalled = dial(s.port), trickling = dial(s.port), second = dial(s.port);
    int64_t start = test_now();
    SEND(&stalled, "GET /he");
    SEND(&second, NEXT "GET /hello HTTP/1.1\r\n");
    CHECK(trickle(&trickling)); // which does not buy time
    EXPECT(&stalled, 408, NULL);
    CHECK(stalled.close);
    EXPECT_EOF(&stalled);
    CHECK_CMP(test_now() - start, >=, test_ms(190));
    EXPECT(&trickling, 408, NULL);
    EXPECT(&second, 200, HELLO);
    EXPECT(&second, 408, NULL);
    EXPECT_EOF(&second);
    CHECK_INT(item(HTTPSRV_LOG_HEAD_TIMEOUT), 3);
    hang_up(&stalled);
    hang_up(&trickling);
    hang_up(&second);
    finish(&s);
}

TEST(timeout_body) {
    static const char *const starts[] = {WITH("Content-Length: 10") "hello", WITH("Content-Length: 10"),
                                         POST_CHUNKS("5\r\nhel"), POST_CHUNKS("5\r\nhello\r\n"),
                                         POST_CHUNKS("0\r\nX-A: ")};
    serve(&s, &(httpsrv_config){.timeout_ms.body = test_ms(150)});
    for (size_t i = 0; i < ROWS(starts); i++) {
        int64_t start = test_now();
        NOTE("%s", starts[i]);
        struct client c = ASK(&s, starts[i]);
        CHECK_INT(c.status, 408);
        CHECK(c.close);
        EXPECT_EOF(&c);
        CHECK_CMP(test_now() - start, >=, test_ms(140));
        hang_up(&c);
    }
    CHECK_INT(item(HTTPSRV_LOG_BODY_TIMEOUT), ROWS(starts));
    finish(&s);
}

TEST(timeout_body_spares_progress) {
    serve(&s, &(httpsrv_config){.timeout_ms.body = test_ms(400), .timeout_ms.head = test_ms(400)});
    struct client c = dial(s.port);
    SEND(&c, WITH("Content-Length: 10"));
    for (int i = 0; i < 10; i++) {
        test_sleep(test_ms(60));
        SEND(&c, "x");
    }
    EXPECT(&c, 200, "xxxxxxxxxx");
    hang_up(&c);
    finish(&s);
}

TEST(timeout_write) {
    serve(&s, &(httpsrv_config){.timeout_ms.write = test_ms(200)});
    struct client c = dial(s.port);
    GET(&c, "/borrow/8388608");
    WAIT(item(HTTPSRV_LOG_WRITE_TIMEOUT) == 1); // it reads nothing
    WAIT(metrics(&s).connections == 0);
    CHECK_INT(LOAD(s.released), 1);
    EXPECT_END(&c);
    CHECK_CMP(c.len - c.at, <, 8388608);
    hang_up(&c);
    finish(&s);
}

TEST(timeout_write_spares_progress) {
    serve(&s, &(httpsrv_config){.timeout_ms.write = test_ms(300), .timeout_ms.idle = test_ms(300)});
    struct client c = dial(s.port);
    GET(&c, "/borrow/8388608");
    for (size_t n = 1; n <= 20; n++) {
        test_sleep(test_ms(40));
        net_need(&c, n * 400000);
    }
    REPLY(&c);
    check_blob(&c, 8388608);
    hang_up(&c);
    finish(&s);
}

// ---- the end ----

TEST(drain_closes_idle_connections) {
    serve(&s, DEFAULTS);
    struct client fresh = dial(s.port), used = dial(s.port), begun = dial(s.port);
    GET(&used, "/hello");
    EXPECT(&used, 200, HELLO);
    WAIT(metrics(&s).connections == 3);
    CHECK(!httpsrv_draining(s.srv));
    send_seen(&s, &begun, NEXT, 10);
    httpsrv_stop(s.srv);
    CHECK(httpsrv_draining(s.srv));
    EXPECT_EOF(&fresh);
    EXPECT_EOF(&used);
    SEND(&begun, &NEXT[10]); // this one is not idle
    EXPECT(&begun, 200, HELLO);
    CHECK(begun.close);
    EXPECT_EOF(&begun);
    hang_up(&fresh);
    hang_up(&used);
    hang_up(&begun);
    CHECK_INT(httpsrv_join(s.srv), HTTPSRV_OK);
    CHECK(net_refused(s.port));
    CHECK_INT(httpsrv_port(s.srv, 0), -1);
    dispose(&s);
    CHECK_INT(s.last.drain_cut, 0);
    CHECK_INT(s.last.items[HTTPSRV_LOG_LISTENING], 1);
    CHECK_INT(s.last.items[HTTPSRV_LOG_DRAINING], 1);
    CHECK_INT(s.last.items[HTTPSRV_LOG_STOPPED], 1);
}

TEST(drain_finishes_what_was_begun) {
    serve(&s, DEFAULTS);
    struct client body = dial(s.port), blocked = dial(s.port);
    send_seen(&s, &body, WITH("Content-Length: 10") "hello", strlen(WITH("Content-Length: 10")) + 5);
    GET(&blocked, "/borrow/8388608");
    net_need(&blocked, 1);
    httpsrv_stop(s.srv);
    test_sleep(50);
    SEND(&body, "world");
    EXPECT(&body, 200, "helloworld");
    CHECK(body.close);
    EXPECT_EOF(&body);
    REPLY(&blocked);
    check_blob(&blocked, 8388608);
    EXPECT_EOF(&blocked);
    hang_up(&body);
    hang_up(&blocked);
    CHECK_INT(httpsrv_join(s.srv), HTTPSRV_OK);
    dispose(&s);
    CHECK_CMP(s.last.drain_finished, >=, 1);
    CHECK_INT(s.last.drain_cut, 0);
}

TEST(drain_grace) {
    serve(&s, &(httpsrv_config){.timeout_ms.grace = test_ms(500)});
    struct client old = dial(s.port);
    int64_t start = test_now();
    GET(&old, "/hello");
    EXPECT(&old, 200, HELLO);
    CHECK(!old.close);
    httpsrv_stop(s.srv);
    check_served_in_grace(&s);
    CHECK(test_now() - start < test_ms(500));
    GET(&old, "/hello");
    EXPECT(&old, 200, HELLO);
    CHECK(old.close);
    hang_up(&old);
    CHECK_INT(httpsrv_join(s.srv), HTTPSRV_OK);
    CHECK_CMP(test_now() - start, >=, test_ms(490));
    CHECK(net_refused(s.port));
    dispose(&s);
}

TEST(drain_deadline_cuts) {
    serve(&s, &(httpsrv_config){.timeout_ms.drain = test_ms(200)});
    struct client body = dial(s.port), blocked = dial(s.port);
    int64_t start;
    send_seen(&s, &body, WITH("Content-Length: 10") "hello", strlen(WITH("Content-Length: 10")) + 5);
    GET(&blocked, "/borrow/8388608");
    net_need(&blocked, 1);
    start = test_now();
    httpsrv_stop(s.srv);
    CHECK_INT(httpsrv_join(s.srv), HTTPSRV_OK);
    CHECK_CMP(test_now() - start, >=, test_ms(190));
    CHECK_CMP(test_now() - start, <, test_ms(5000));
    EXPECT_END(&body);
    EXPECT_END(&blocked);
    CHECK_CMP(blocked.len, <, 8388608);
    hang_up(&body);
    hang_up(&blocked);
    dispose(&s);
    CHECK_INT(s.last.drain_cut, 2);
    CHECK_INT(s.last.items[HTTPSRV_LOG_CUT], 2);
}

TEST(second_stop_cuts) {
    serve(&s, &(httpsrv_config){.timeout_ms.drain = -1});
    struct client c = dial(s.port);
    send_seen(&s, &c, WITH("Content-Length: 10"), strlen(WITH("Content-Length: 10")));
    httpsrv_stop(s.srv);
    EXPECT_SILENCE(&c, 100);
    httpsrv_stop(s.srv);
    CHECK_INT(httpsrv_join(s.srv), HTTPSRV_OK);
    EXPECT_END(&c);
    hang_up(&c);
    dispose(&s);
    CHECK_INT(s.last.drain_cut, 1);
}

TEST(stop_before_run) {
    prepare(&s, DEFAULTS);
    route_all(&s, "", NULL);
    httpsrv_stop(s.srv);
    CHECK(httpsrv_draining(s.srv));
    CHECK_INT(httpsrv_run(s.srv), HTTPSRV_OK);
    go(&s); // and that one is over: the server may listen again
    CHECK(!httpsrv_draining(s.srv));
    check_alive(&s);
    finish(&s);
}

TEST(listens_again_after_join) {
    prepare(&s, DEFAULTS);
    route_all(&s, "", NULL);
    for (int i = 0; i < 5; i++) {
        go(&s);
        check_alive(&s);
        httpsrv_stop(s.srv);
        CHECK_INT(httpsrv_join(s.srv), HTTPSRV_OK);
    }
    dispose(&s);
    CHECK_INT(s.last.accepted, 5);
}

TEST(free_stops_and_joins) {
    serve(&s, DEFAULTS);
    struct client c = dial(s.port);
    GET(&c, "/hello");
    EXPECT(&c, 200, HELLO);
    httpsrv_free(s.srv);
    EXPECT_EOF(&c);
    hang_up(&c);
    CHECK_INT(s.bytes, 0);
    CHECK_INT(s.blocks, 0);
}

static void stop_on_signal(int number) {
    (void)number;
    httpsrv_stop(s.srv);
}

static void *run_thread(void *arg) {
    (void)arg;
    return (void *)(intptr_t)httpsrv_run(s.srv);
}

TEST(stop_from_a_signal_handler) {
    struct sigaction action = {.sa_handler = stop_on_signal};
    pthread_t thread;
    void *result;
    prepare(&s, DEFAULTS);
    route_all(&s, "", NULL);
    CHECK_INT(httpsrv_listen(s.srv), HTTPSRV_OK);
    s.port = httpsrv_port(s.srv, 0);
    sigaction(SIGUSR1, &action, NULL);
    pthread_create(&thread, NULL, run_thread, NULL); // httpsrv_run on a thread of ours
    check_alive(&s);
    pthread_kill(thread, SIGUSR1);
    pthread_join(thread, &result);
    CHECK_INT((intptr_t)result, HTTPSRV_OK);
    dispose(&s);
}

static void on_stop(httpsrv_req *req, void *user) {
    httpsrv_stop(httpsrv_server(req));
    on_hello(req, user);
}

TEST(stop_from_a_handler) {
    prepare(&s, DEFAULTS);
    httpsrv_on(s.srv, "GET /stop", on_stop, &s);
    go(&s);
    struct client c = ASK(&s, "GET /stop HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK_INT(c.status, 200);
    EXPECT_EOF(&c);
    CHECK_INT(httpsrv_join(s.srv), HTTPSRV_OK);
    hang_up(&c);
    dispose(&s);
}

// ---- a host's loop ----

static void on_reenter(httpsrv_req *req, void *user) {
    httpsrv *srv = httpsrv_server(req);
    CHECK_INT(httpsrv_poll(srv, 0), HTTPSRV_STATE);
    CHECK_INT(httpsrv_run(srv), HTTPSRV_STATE);
    CHECK_INT(httpsrv_listen(srv), HTTPSRV_STATE);
    on_hello(req, user);
}

static void *host_client(void *arg) {
    struct client c = dial(s.port), idle = dial(s.port);
    (void)arg;
    for (int i = 0; i < 100; i++) {
        GET(&c, "/hello");
        EXPECT(&c, 200, HELLO);
    }
    GET(&c, "/reenter");
    EXPECT(&c, 200, HELLO);
    for (int i = 0; i < 200; i++)
        GET(&c, "/big/50000"); // much is pending at once
    for (int i = 0; i < 200; i++) {
        REPLY(&c);
        check_blob(&c, 50000);
    }
    EXPECT_EOF(&idle); // by the time-out alone
    hang_up(&idle);
    hang_up(&c);
    httpsrv_stop(s.srv);
    return NULL;
}

TEST(in_a_loop_of_the_host) {
    struct epoll_event event = {.events = EPOLLIN};
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    pthread_t thread;
    httpsrv_result result = HTTPSRV_OK;
    prepare(&s, &(httpsrv_config){.timeout_ms.idle = test_ms(300)});
    route_all(&s, "", NULL);
    httpsrv_on(s.srv, "GET /reenter", on_reenter, &s);
    CHECK_INT(httpsrv_fd(s.srv), -1);
    CHECK_INT(httpsrv_poll(s.srv, 0), HTTPSRV_STATE);
    CHECK_INT(httpsrv_listen(s.srv), HTTPSRV_OK);
    CHECK_CMP(httpsrv_fd(s.srv), >=, 0);
    CHECK_INT(epoll_ctl(epoll, EPOLL_CTL_ADD, httpsrv_fd(s.srv), &event), 0);
    s.port = httpsrv_port(s.srv, 0);
    pthread_create(&thread, NULL, host_client, NULL);
    while (result == HTTPSRV_OK) {
        epoll_wait(epoll, &event, 1, httpsrv_timeout(s.srv));
        result = httpsrv_poll(s.srv, 0);
    }
    CHECK_INT(result, HTTPSRV_GONE);
    pthread_join(thread, NULL);
    close(epoll);
    dispose(&s);
}

TEST(poll_with_a_timeout) {
    int64_t start = test_now();
    prepare(&s, DEFAULTS);
    route_all(&s, "", NULL);
    CHECK_INT(httpsrv_listen(s.srv), HTTPSRV_OK);
    CHECK_INT(httpsrv_poll(s.srv, 100), HTTPSRV_OK);
    CHECK_CMP(test_now() - start, >=, 95);
    httpsrv_stop(s.srv);
    while (httpsrv_poll(s.srv, -1) == HTTPSRV_OK)
        continue;
    CHECK_INT(httpsrv_listen(s.srv), HTTPSRV_OK); // drained: it may listen again
    dispose(&s);
}

TEST(several_servers) {
    static struct server other[3];
    struct client c[3];
    for (int i = 0; i < 3; i++) {
        prepare(&other[i], DEFAULTS);
        httpsrv_on(other[i].srv, "GET /", on_tag, (void *)(uintptr_t)(i == 0 ? "zero" : i == 1 ? "one" : "two"));
        go(&other[i]);
    }
    for (int i = 0; i < 3; i++) {
        c[i] = ASK(&other[i], "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        CHECK_MEM(c[i].body, c[i].body_len, i == 0 ? "zero" : i == 1 ? "one" : "two", i == 0 ? 4U : 3U);
    }
    for (int i = 0; i < 3; i++) {
        finish(&other[i]);
        CHECK_INT(other[i].last.requests, 1);
        hang_up(&c[i]);
    }
}

// ---- errors of the caller ----

TEST(no_server) {
    httpsrv_metrics m;
    CHECK_INT(httpsrv_listen(NULL), HTTPSRV_ARG);
    CHECK_INT(httpsrv_run(NULL), HTTPSRV_ARG);
    CHECK_INT(httpsrv_start(NULL), HTTPSRV_ARG);
    CHECK_INT(httpsrv_join(NULL), HTTPSRV_ARG);
    CHECK_INT(httpsrv_poll(NULL, 0), HTTPSRV_ARG);
    CHECK_INT(httpsrv_on(NULL, "GET /", on_hello, NULL), HTTPSRV_ARG);
    CHECK_INT(httpsrv_route(NULL, &(httpsrv_route_config){.pattern = "GET /", .handler = on_hello}), HTTPSRV_ARG);
    CHECK_INT(httpsrv_query_metrics(NULL, &m), HTTPSRV_ARG);
    CHECK_INT(httpsrv_fd(NULL), -1);
    CHECK_INT(httpsrv_timeout(NULL), -1);
    CHECK_INT(httpsrv_port(NULL, 0), -1);
    CHECK_STR(httpsrv_error(NULL), "out of memory");
    CHECK(!httpsrv_draining(NULL));
    httpsrv_stop(NULL);
    httpsrv_free(NULL);
}

TEST(illegal_orders) {
    httpsrv_metrics m;
    prepare(&s, DEFAULTS);
    route_all(&s, "", NULL);
    CHECK_INT(httpsrv_join(s.srv), HTTPSRV_STATE);
    CHECK_INT(httpsrv_poll(s.srv, 0), HTTPSRV_STATE);
    CHECK_INT(httpsrv_port(s.srv, 0), -1);
    CHECK_INT(httpsrv_query_metrics(s.srv, NULL), HTTPSRV_ARG);
    CHECK_INT(httpsrv_query_metrics(s.srv, &m), HTTPSRV_OK);
    CHECK_INT(httpsrv_listen(s.srv), HTTPSRV_OK);
    CHECK_INT(httpsrv_listen(s.srv), HTTPSRV_STATE);
    CHECK_CMP(httpsrv_port(s.srv, 0), >, 0);
    CHECK_INT(httpsrv_port(s.srv, 1), -1);
    CHECK_INT(httpsrv_port(s.srv, -1), -1);
    CHECK_INT(httpsrv_on(s.srv, "GET /late", on_hello, &s), HTTPSRV_STATE);
    go(&s); // one that listens already
    CHECK_INT(httpsrv_start(s.srv), HTTPSRV_STATE);
    CHECK_INT(httpsrv_run(s.srv), HTTPSRV_STATE);
    CHECK_INT(httpsrv_poll(s.srv, 0), HTTPSRV_STATE);
    CHECK_INT(httpsrv_listen(s.srv), HTTPSRV_STATE);
    check_alive(&s);
    httpsrv_stop(s.srv);
    CHECK_INT(httpsrv_join(s.srv), HTTPSRV_OK);
    CHECK_INT(httpsrv_join(s.srv), HTTPSRV_STATE);
    dispose(&s);
}

static void check_bad_config(const char *what, const httpsrv_config *config, httpsrv_result expected) {
    httpsrv *srv = httpsrv_new(config);
    NOTE("%s", what);
    CHECK(srv != NULL);
    CHECK_INT(httpsrv_on(srv, "GET /", on_hello, NULL), HTTPSRV_OK);
    CHECK_INT(httpsrv_listen(srv), expected);
    CHECK_INT(httpsrv_run(srv), expected);
    CHECK_INT(httpsrv_start(srv), expected);
    CHECK(*httpsrv_error(srv) != 0);
    CHECK_INT(httpsrv_port(srv, 0), -1);
    httpsrv_free(srv);
}

#define BAD_CONFIG(...)         check_bad_config(#__VA_ARGS__, &(httpsrv_config){__VA_ARGS__}, HTTPSRV_ARG)
#define UNSUPPORTED_CONFIG(...) check_bad_config(#__VA_ARGS__, &(httpsrv_config){__VA_ARGS__}, HTTPSRV_UNSUPPORTED)

TEST(bad_configurations) {
    BAD_CONFIG(.host = "not an address");
    BAD_CONFIG(.host = "1.2.3");
    BAD_CONFIG(.port = -1);
    BAD_CONFIG(.port = 65536);
    BAD_CONFIG(.listen = {"127.0.0.1"});
    BAD_CONFIG(.listen = {"127.0.0.1:"});
    BAD_CONFIG(.listen = {"127.0.0.1:65536"});
    BAD_CONFIG(.listen = {"127.0.0.1:8x"});
    BAD_CONFIG(.listen = {"::1:80"});
    BAD_CONFIG(.listen = {"[::1:80"});
    BAD_CONFIG(.reactors = -2);
    BAD_CONFIG(.backlog = -1);
    BAD_CONFIG(.pools = {{.name = "12345678901234567890123456789012"}});
    BAD_CONFIG(.pools = {{.name = "a"}, {.name = "a"}});
    BAD_CONFIG(.pools = {{.name = "a", .threads = -1}});
    BAD_CONFIG(.pools = {{.name = "a", .queue = -1}});
    BAD_CONFIG(.max.head = -1);
    BAD_CONFIG(.max.head = (16 << 20) + 1);
    BAD_CONFIG(.max.uri = -1);
    BAD_CONFIG(.max.headers = -1);
    BAD_CONFIG(.max.headers = 4097);
    BAD_CONFIG(.timeout_ms.grace = -1);
    BAD_CONFIG(.server_name = "a\r\nX-Injected: 1");
}

// A build that cannot compress says so instead of sending everything as it is; not to compress is no trouble.
TEST(compression_without_zlib) {
    static const httpsrv_route_config plain = {
        .pattern = "GET /plain", .handler = on_hello, .user = &s, .uncompressed = true};
    static const httpsrv_route_config coded = {.pattern = "POST /coded", .handler = on_echo, .gunzip = true};
    UNSUPPORTED_CONFIG(.compress.level = 5);
    UNSUPPORTED_CONFIG(.compress.level = -1);
    UNSUPPORTED_CONFIG(.compress.min_size = 1024);
    UNSUPPORTED_CONFIG(.compress.large = 65536);
    UNSUPPORTED_CONFIG(.compress.pool = "default");
    UNSUPPORTED_CONFIG(.compress.types = "text/html");
    prepare(&s, DEFAULTS);
    CHECK_INT(httpsrv_route(s.srv, &coded), HTTPSRV_UNSUPPORTED);
    CHECK_INT(httpsrv_listen(s.srv), HTTPSRV_UNSUPPORTED); // kept
    CHECK_HAS(httpsrv_error(s.srv), coded.pattern);
    dispose(&s);
    prepare(&s, DEFAULTS);
    CHECK_INT(httpsrv_route(s.srv, &plain), HTTPSRV_OK);
    go(&s);
    struct client c = ASK(&s, "GET /plain HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n");
    CHECK_MEM(c.body, c.body_len, HELLO, strlen(HELLO));
    hang_up(&c);
    finish(&s);
}

TEST(good_configurations) {
    static const httpsrv_config rows[] = {
        {.host = "localhost"},
        {.listen = {"localhost:0"}},
        {.listen = {"*:0"}},
        {.max = {.connections = -1, .body = -1, .requests = -1, .headers = 4096, .head = 16 << 20}},
        {.timeout_ms = {.head = -1, .body = -1, .idle = -1, .write = -1, .drain = -1}},
        {.pools = {{.name = "1234567890123456789012345678901"}, {.name = "b", .threads = 1, .queue = 1}}},
        {.reactors = HTTPSRV_ALL_CPUS, .backlog = 1},
    };
    for (size_t i = 0; i < ROWS(rows); i++) {
        NOTE("row %zu", i);
        serve(&s, &rows[i]);
        check_alive(&s);
        finish(&s);
    }
}

TEST(bad_routes) {
    static const char *const rows[] = {
        "",
        "GET",
        "GET ",
        "/hello",
        " /hello",
        "GET hello",
        "GET  /x",
        "G(T /x",
        "GET /:",
        "GET /x/*rest/y",
        "GET /:id/:id",
        "GET /a/:x",
        "* /b",

        "GET /:a/:b/:c/:d/:e/:f/:g/:h/:i/:j/:k/:l/:m/:n/:o/:p/:q",
    };
    for (size_t i = 0; i < ROWS(rows); i++) {
        httpsrv *srv = httpsrv_new(NULL);
        NOTE("%s", rows[i]);
        CHECK_INT(httpsrv_on(srv, "GET /a/:id", on_hello, NULL), HTTPSRV_OK);
        CHECK_INT(httpsrv_on(srv, "* /b", on_hello, NULL), HTTPSRV_OK);
        CHECK_INT(httpsrv_on(srv, rows[i], on_hello, NULL), HTTPSRV_ROUTE);
        CHECK_INT(httpsrv_on(srv, "GET /c", on_hello, NULL), HTTPSRV_OK);
        CHECK_INT(httpsrv_listen(srv), HTTPSRV_ROUTE); // kept
        if (*rows[i]) CHECK_HAS(httpsrv_error(srv), rows[i]);
        httpsrv_free(srv);
    }
}

TEST(bad_route_arguments) {
    httpsrv *srv = httpsrv_new(NULL);
    CHECK(httpsrv_on(srv, NULL, on_hello, NULL) < 0);
    CHECK(httpsrv_on(srv, "GET /", NULL, NULL) < 0);
    CHECK_INT(httpsrv_route(srv, NULL), HTTPSRV_ARG);
    CHECK(httpsrv_listen(srv) < 0);
    httpsrv_free(srv);
}

TEST(port_in_use) {
    static struct server second;
    char address[32];
    serve(&s, DEFAULTS);
    prepare(&second, &(httpsrv_config){.host = "127.0.0.1", .port = s.port});
    CHECK_INT(httpsrv_listen(second.srv), HTTPSRV_SYS);
    snprintf(address, sizeof address, "127.0.0.1:%d", s.port);
    CHECK_HAS(httpsrv_error(second.srv), address);
    CHECK_HAS(httpsrv_error(second.srv), strerror(EADDRINUSE));
    dispose(&second);
    check_alive(&s);
    finish(&s);
}

// ---- sockets ----

static void check_peer(const char *host, int port) {
    struct client c = dial_to(host, port);
    GET(&c, "/peer");
    EXPECT(&c, 200, host);
    hang_up(&c);
}

TEST(ipv6) {
    if (!net_has_ipv6()) SKIP("this machine has no IPv6");
    prepare(&s, &(httpsrv_config){.listen = {"[::1]:0", "127.0.0.1:0", "*:0"}});
    httpsrv_on(s.srv, "GET /peer", on_peer, NULL);
    go(&s);
    check_peer("::1", httpsrv_port(s.srv, 0));
    check_peer("127.0.0.1", httpsrv_port(s.srv, 1));
    check_peer("::1", httpsrv_port(s.srv, 2));
    check_peer("127.0.0.1", httpsrv_port(s.srv, 2)); // not "::ffff:127.0.0.1"
    finish(&s);
}

TEST(two_addresses) {
    prepare(&s, &(httpsrv_config){.listen = {"127.0.0.1:0", "127.0.0.2:0"}});
    httpsrv_on(s.srv, "GET /peer", on_peer, NULL);
    go(&s);
    check_peer("127.0.0.1", httpsrv_port(s.srv, 0));
    struct client c = dial_to("127.0.0.2", httpsrv_port(s.srv, 1));
    GET(&c, "/peer");
    EXPECT(&c, 200, NULL);
    hang_up(&c);
    CHECK_INT(httpsrv_port(s.srv, 2), -1);
    finish(&s);
}

static int local_port(int fd) {
    struct sockaddr_in address;
    socklen_t size = sizeof address;
    memset(&address, 0, sizeof address);
    return getsockname(fd, (struct sockaddr *)&address, &size) == 0 ? ntohs(address.sin_port) : -1;
}

static bool connected(int fd) {
    struct sockaddr_in address;
    socklen_t size = sizeof address;
    return getpeername(fd, (struct sockaddr *)&address, &size) == 0;
}

// What this process had open before the server came is none of ours.
static bool foreign[1024];

static int check_descriptor(int fd, int *accepted) {
    int nodelay = 0;
    socklen_t size = sizeof nodelay;
    if (foreign[fd]) return 0;
    NOTE("descriptor %d", fd);
    CHECK(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    if (local_port(fd) != s.port || !connected(fd)) return 1;
    CHECK_INT(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &nodelay, &size), 0);
    CHECK(nodelay != 0);
    ++*accepted;
    return 1;
}

// How many there are now; NULL marks them as foreign.
static int look_at_descriptors(int *accepted) {
    DIR *dir = opendir("/proc/self/fd");
    struct dirent *entry;
    int n = 0;
    CHECK(dir != NULL);
    while ((entry = readdir(dir)) != NULL) {
        int fd = atoi(entry->d_name);
        if (entry->d_name[0] == '.' || fd == dirfd(dir) || fd >= (int)ROWS(foreign)) continue;
        if (accepted)
            n += check_descriptor(fd, accepted);
        else
            foreign[fd] = true;
    }
    closedir(dir);
    return n;
}

TEST(descriptors_are_cloexec_and_nodelay) {
    int accepted = 0;
    look_at_descriptors(NULL);
    prepare(&s, &(httpsrv_config){.reactors = 2, .pools = {{.name = "p", .threads = 2}}});
    route_all(&s, "", NULL);
    route_all(&s, "/pool", "p");
    go(&s);
    struct client c = ASK(&s, NEXT), d = ASK(&s, "GET /pool/hello HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK_CMP(look_at_descriptors(&accepted), >=, 2 + 2 + 2 + 2); // epolls, listeners, accepted, ours
    CHECK_INT(accepted, 2);
    hang_up(&c);
    hang_up(&d);
    finish(&s);
    CHECK_INT(look_at_descriptors(&accepted), 0); // and each was closed
}

// Clients and server share this process, hence this limit: first the clients' sockets, then all the rest is
// taken.
TEST(descriptors_used_up) {
    struct rlimit limit;
    struct client c[4];
    int fillers[128], n = 0;
    int64_t cpu;
    serve(&s, &(httpsrv_config){.max.connections = -1});
    for (int i = 0; i < 4; i++)
        c[i] = net_client(net_socket(AF_INET));
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = 100;
    CHECK_INT(setrlimit(RLIMIT_NOFILE, &limit), 0);
    while ((fillers[n] = fcntl(0, F_DUPFD_CLOEXEC, 0)) >= 0)
        n++;
    CHECK_INT(errno, EMFILE);
    for (int i = 0; i < 3; i++) {
        CHECK_INT(net_connect(c[i].fd, "127.0.0.1", s.port), 0);
        SEND(&c[i], NEXT);
    }
    WAIT(item(HTTPSRV_LOG_NO_DESCRIPTORS) >= 1);
    cpu = cpu_ms();
    test_sleep(800);
    CHECK_CMP(cpu_ms() - cpu, <, 250);
    CHECK_CMP(item(HTTPSRV_LOG_NO_DESCRIPTORS), <, 100);
    while (n > 0)
        close(fillers[--n]);
    CHECK_INT(net_connect(c[3].fd, "127.0.0.1", s.port), 0);
    SEND(&c[3], NEXT);
    EXPECT(&c[3], 200, HELLO);
    hang_up_all(c, 4);
    WAIT(metrics(&s).connections == 0);
    check_alive(&s);
    finish(&s);
}

TEST(small_answers_are_not_delayed) { // Nagle and delayed ACK would cost 40 ms for each
    int64_t start = test_now();
    serve(&s, DEFAULTS);
    struct client c = dial(s.port);
    for (int i = 0; i < 200; i++) {
        SEND(&c, NEXT NEXT);
        EXPECT(&c, 200, HELLO);
        EXPECT(&c, 200, HELLO);
    }
    CHECK_CMP(test_now() - start, <, test_ms(4000));
    hang_up(&c);
    finish(&s);
}

// ---- several reactors ----

static void many_connections(int reactors) {
    enum { CONNECTIONS = 60, ROUNDS = 10 };
    struct client c[CONNECTIONS];
    serve(&s, &(httpsrv_config){.reactors = reactors});
    for (int i = 0; i < CONNECTIONS; i++)
        c[i] = dial(s.port);
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < CONNECTIONS; i++)
            dump_requests(&c[i], i * 100, i * 100 + 4);
        for (int i = 0; i < CONNECTIONS; i++)
            dump_answers(&c[i], i * 100, i * 100 + 4);
    }
    CHECK_INT(metrics(&s).connections, CONNECTIONS);
    hang_up_all(c, CONNECTIONS);
    finish(&s);
    CHECK_INT(s.last.accepted, CONNECTIONS);
    CHECK_INT(s.last.requests, CONNECTIONS * ROUNDS * 4);
}

TEST(two_reactors) {
    many_connections(2);
}

TEST(a_reactor_for_each_cpu) {
    many_connections(HTTPSRV_ALL_CPUS);
}

TEST(four_reactors_drain) {
    struct client c[20];
    serve(&s, &(httpsrv_config){.reactors = 4});
    for (int i = 0; i < 20; i++) {
        c[i] = dial(s.port);
        GET(&c[i], "/hello");
        EXPECT(&c[i], 200, HELLO);
    }
    CHECK_INT(httpsrv_poll(s.srv, 0), HTTPSRV_STATE);
    httpsrv_stop(s.srv);
    for (int i = 0; i < 20; i++) {
        EXPECT_EOF(&c[i]);
        hang_up(&c[i]);
    }
    CHECK_INT(httpsrv_join(s.srv), HTTPSRV_OK);
    dispose(&s);
}

TEST(run_with_several_reactors) {
    pthread_t thread;
    void *result;
    prepare(&s, &(httpsrv_config){.reactors = 3});
    route_all(&s, "", NULL);
    CHECK_INT(httpsrv_listen(s.srv), HTTPSRV_OK);
    CHECK_INT(httpsrv_poll(s.srv, 0), HTTPSRV_STATE); // more than one reactor
    s.port = httpsrv_port(s.srv, 0);
    pthread_create(&thread, NULL, run_thread, NULL);
    for (int i = 0; i < 10; i++)
        check_alive(&s);
    httpsrv_stop(s.srv);
    pthread_join(thread, &result);
    CHECK_INT((intptr_t)result, HTTPSRV_OK);
    dispose(&s);
}
