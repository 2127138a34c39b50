// Server-sent events: what the stream looks like, who gets what, and how it ends. Also built with ThreadSanitizer.

#define HTTPSRV_IMPLEMENTATION
#define HTTPSRV_RATE_PERIOD 500 // a stream in which nothing happens would soon be found too slow if it were measured
#include "../httpsrv.h"

#include "server.h"
#include <pthread.h>
#include <sys/un.h>

#define MOST 1000 // streams that a test tells apart by number
#define KB   1024

// Rounds of what takes many: fewer where the sanitizers slow everything down.
#define ROUNDS(n) TEST_FEWER(n, 5)

// Where handlers run, and over how many loops the clients are spread: promises have to hold in each of these ways.
struct way {
    const char *name;
    const char *pool; // NULL: inline
    int reactors;
};

static const struct way ways[] = {{"inline, 1 reactor", NULL, 1},
                                  {"inline, 3 reactors", NULL, 3},
                                  {"by workers, 1 reactor", "work", 1},
                                  {"by workers, 3 reactors", "work", 3}};
static const struct way *way = ways;

#define TEST_EACH_WAY(id) TEST_WAYS(id, true)

static struct server s;
static char socket_path[100];
static int noticed[MOST]; // calls of on_gone's function

// ---- an allocator that fails when it is told to ----

static _Thread_local bool refusing;     // nothing for this thread
static _Thread_local int own_countdown; // > 0: so many allocations of this thread from now one fails
static int countdown;                   // likewise, on whatever thread
static int failed;

static bool is_refused(void) {
    if (refusing || (own_countdown > 0 && --own_countdown == 0)) return true;
    if (LOAD(countdown) <= 0 || __atomic_sub_fetch(&countdown, 1, __ATOMIC_ACQ_REL) != 0) return false;
    COUNT(failed);
    return true;
}

static void *failing_realloc(void *user, void *ptr, size_t old_size, size_t new_size) {
    if (new_size > 0 && is_refused()) return NULL;
    return counting_realloc(user, ptr, old_size, new_size);
}

// ---- a server that listens to TCP and to a Unix socket, which takes a known number of bytes and then no more ----

static void begin(const httpsrv_config *config) {
    httpsrv_config c = *config;
    snprintf(socket_path, sizeof socket_path, "/tmp/httpsrv-events.%d", (int)getpid());
    c.listen[0] = "127.0.0.1:0";
    c.listen[1] = NULL;
    c.reactors = way->reactors;
    c.pools[0] = (httpsrv_pool_config){.name = "work", .threads = 4};
    c.allocator.fn = failing_realloc;
    c.allocator.user = &s;
    char unix_address[120];
    snprintf(unix_address, sizeof unix_address, "unix:%s", socket_path);
    c.listen[1] = unix_address;
    memset(noticed, 0, sizeof noticed);
    countdown = failed = 0;
    prepare(&s, &c);
    NOTE("%s", way->name);
    CHECK_INT(httpsrv_on(s.srv, "GET /hello", on_hello, &s), HTTPSRV_OK);
}

static void route(const char *pattern, httpsrv_handler handler) {
    httpsrv_route_config config = {.pattern = pattern, .handler = handler, .user = &s, .pool = way->pool};
    CHECK_INT(httpsrv_route(s.srv, &config), HTTPSRV_OK);
}

static void count_notice(void *arg) {
    COUNT(*(int *)arg);
}

// Begins a stream on the channel that the target names, "-" for none. Whoever has asked finds the token by its number.
static httpsrv_token begin_events(httpsrv_req *req) {
    const httpsrv_str name = httpsrv_param(req, "channel");
    char channel[64];
    snprintf(channel, sizeof channel, "%.*s", HTTPSRV_FMT(name));
    return httpsrv_sse_begin(req, strcmp(channel, "-") != 0 ? channel : NULL);
}

static void on_events(httpsrv_req *req, void *user) {
    const size_t n = number_param(req, "n");
    (void)user;
    CHECK_CMP(n, <, MOST);
    CHECK_INT(httpsrv_on_gone(req, count_notice, &noticed[n]), HTTPSRV_OK);
    const httpsrv_token token = begin_events(req);
    CHECK(token.id != 0);
    keep_token(&s, n, token);
}

static void serve_events(const httpsrv_config *config) {
    begin(config);
    route("GET /events/:channel/:n", on_events);
    go(&s);
}

static void end(void) {
    finish(&s);
}

// ---- sending ----

static httpsrv_event event_of(const char *data) {
    httpsrv_event event = {.data = {data, strlen(data)}};
    return event;
}

static httpsrv_result send_text(int n, const char *data) {
    const httpsrv_event event = event_of(data);
    return httpsrv_sse_send(s.srv, token_of(n), &event);
}

static httpsrv_result publish_text(const char *channel, const char *data) {
    const httpsrv_event event = event_of(data);
    return httpsrv_sse_publish(s.srv, channel, &event);
}

// ---- a client: what its connection brings, out of its chunks ----

struct listener {
    struct client c;
    bool chunked;
    bool complete;    // the last chunk has come
    char *text;       // of the events
    size_t len, size; // of it, of its memory
    char *event;      // the last one taken off it, without the empty line behind
};

static void add_text(struct listener *l, const char *ptr, size_t len) {
    if (l->size - l->len < len) {
        l->size = (l->size + len) * 2;
        l->text = (char *)realloc(l->text, l->size);
        l->event = (char *)realloc(l->event, l->size + 1);
        CHECK(l->text != NULL && l->event != NULL);
    }
    if (len) memcpy(l->text + l->len, ptr, len);
    l->len += len;
}

// Takes one whole chunk out of what was received. False if there is none, or it was the last one.
static bool take_chunk(struct listener *l) {
    struct client *c = &l->c;
    const char *at = c->buf + c->at, *size_end;
    const size_t have = c->len - c->at;
    const char *line_end = have ? (const char *)memmem(at, have, "\r\n", 2) : NULL;
    size_t size = 0;
    if (!line_end || l->complete) return false;
    for (size_end = at; size_end < line_end; size_end++) {
        static const char digits[] = "0123456789abcdef";
        const char *digit = strchr(digits, *size_end | ' ');
        NET_CHECK(c, digit && *size_end, "bad size of a chunk");
        size = size * 16 + (size_t)(digit - digits);
    }
    const size_t head = (size_t)(line_end - at) + 2;
    NET_CHECK(c, head > 2, "chunk without a size");
    if (have < head + size + 2) return false;
    NET_CHECK(c, memcmp(at + head + size, "\r\n", 2) == 0, "chunk does not end with CRLF");
    add_text(l, at + head, size);
    c->at += head + size + 2;
    l->complete = size == 0;
    return !l->complete;
}

static void take_text(struct listener *l) {
    if (l->chunked) {
        while (take_chunk(l))
            continue;
        return;
    }
    if (l->c.len > l->c.at) add_text(l, l->c.buf + l->c.at, l->c.len - l->c.at);
    l->c.at = l->c.len;
}

// Receives more. False if the stream has ended, or the time is up.
static bool hear(struct listener *l, int64_t deadline) {
    if (l->complete || !net_receive(&l->c, deadline)) return false;
    take_text(l);
    return true;
}

static struct client dial_unix(void) {
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    struct client c = net_client(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    snprintf(to.sun_path, sizeof to.sun_path, "%s", socket_path);
    CHECK_INT(connect(c.fd, (struct sockaddr *)&to, sizeof to), 0);
    fcntl(c.fd, F_SETFL, fcntl(c.fd, F_GETFL) | O_NONBLOCK);
    return c;
}

static void hear_head(struct listener *l) {
    net_read_head(&l->c);
    NET_CHECK(&l->c, l->c.status == 200, "not 200");
    l->chunked = field(&l->c, "Transfer-Encoding") != NULL;
    take_text(l);
}

static void tune_in_by(struct listener *l, struct client c, const char *channel, int n) {
    memset(l, 0, sizeof *l);
    l->c = c;
    SENDF(&l->c, "GET /events/%s/%d HTTP/1.1\r\nHost: a\r\n\r\n", channel, n);
    hear_head(l);
    CHECK(l->chunked);
    WAIT(token_of(n).id != 0); // the head may be quicker than the worker
}

static void tune_in(struct listener *l, const char *channel, int n) {
    tune_in_by(l, dial_port(s.port), channel, n);
}

static void tune_in_http_1_0(struct listener *l, const char *channel, int n) {
    memset(l, 0, sizeof *l);
    l->c = dial_port(s.port);
    SENDF(&l->c, "GET /events/%s/%d HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", channel, n);
    hear_head(l);
    CHECK(!l->chunked);
    WAIT(token_of(n).id != 0);
}

static void tune_out(struct listener *l) {
    hang_up(&l->c);
    free(l->text);
    free(l->event);
    l->text = l->event = NULL;
    l->len = l->size = 0;
}

static void drop_text(struct listener *l, size_t len) {
    l->len -= len;
    memmove(l->text, l->text + len, l->len);
}

// Exactly these bytes come next.
static void expect_bytes(struct listener *l, const char *expected, size_t len) {
    const int64_t deadline = net_deadline();
    while (l->len < len && hear(l, deadline))
        continue;
    CHECK_MEM(l->text, l->len < len ? l->len : len, expected, len);
    drop_text(l, len);
}

static void expect_text(struct listener *l, const char *expected) {
    expect_bytes(l, expected, strlen(expected));
}

// Takes the next event, comments left out; NULL if none follows: the stream has ended.
static const char *next_event(struct listener *l) {
    const int64_t deadline = net_deadline();
    for (;;) {
        const char *stop = l->len ? (const char *)memmem(l->text, l->len, "\n\n", 2) : NULL;
        if (stop) {
            const size_t len = (size_t)(stop - l->text);
            memcpy(l->event, l->text, len);
            l->event[len] = 0;
            drop_text(l, len + 2);
            if (l->event[0] != ':') return l->event;
            continue;
        }
        if (hear(l, deadline)) continue;
        NET_CHECK(&l->c, l->complete || l->c.eof, "timed out waiting for an event");
        return NULL;
    }
}

static void expect_event(struct listener *l, const char *data) {
    char expected[100];
    snprintf(expected, sizeof expected, "data: %s", data);
    CHECK_STR(next_event(l), expected);
}

// No event follows; the end is said by the last chunk, or by the end of the connection where there are no chunks.
static void expect_complete(struct listener *l) {
    CHECK_STR(next_event(l), NULL);
    CHECK_INT(l->len, 0);
    CHECK_INT(l->chunked, l->complete);
    if (!l->chunked) EXPECT_EOF(&l->c);
}

// No event follows, and the stream has been cut off.
static void expect_cut(struct listener *l) {
    CHECK_STR(next_event(l), NULL);
    CHECK(!l->complete);
    CHECK(l->c.eof);
}

// ---- the head ----

TEST_EACH_WAY(head_of_the_answer) {
    struct listener l;
    serve_events(&(httpsrv_config){.server_name = "mine"});
    tune_in(&l, "-", 0);
    CHECK_STR(field(&l.c, "Content-Type"), "text/event-stream");
    CHECK_STR(field(&l.c, "Cache-Control"), "no-store");
    CHECK_STR(field(&l.c, "Transfer-Encoding"), "chunked");
    CHECK_STR(field(&l.c, "Server"), "mine");
    CHECK_STR(field(&l.c, "Connection"), NULL);
    CHECK_STR(field(&l.c, "Content-Length"), NULL);
    CHECK(field(&l.c, "Date") != NULL);
    EXPECT_SILENCE(&l.c, 20);
    tune_out(&l);
    end();
}

// A client of HTTP/1.0 knows no chunks: the stream lasts until the connection closes, whatever it asks for.
TEST_EACH_WAY(head_of_the_answer_to_http_1_0) {
    struct listener l;
    serve_events(&(httpsrv_config){.port = 0});
    tune_in_http_1_0(&l, "news", 0);
    CHECK_STR(field(&l.c, "Content-Type"), "text/event-stream");
    CHECK_STR(field(&l.c, "Cache-Control"), "no-store");
    CHECK_STR(field(&l.c, "Connection"), "close");
    CHECK_STR(field(&l.c, "Content-Length"), NULL);
    CHECK_INT(send_text(0, "one"), HTTPSRV_OK);
    CHECK_INT(publish_text("news", "two"), HTTPSRV_OK);
    expect_text(&l, "data: one\n\ndata: two\n\n");
    CHECK_INT(httpsrv_sse_end(s.srv, token_of(0)), HTTPSRV_OK);
    expect_complete(&l);
    tune_out(&l);
    end();
}

static void on_own_fields(httpsrv_req *req, void *user) {
    (void)user;
    CHECK_INT(httpsrv_set(req, "X-Accel-Buffering", HTTPSRV_STR("no")), HTTPSRV_OK);
    CHECK_INT(httpsrv_add(req, "Set-Cookie", HTTPSRV_STR("a=b")), HTTPSRV_OK);
    keep_token(&s, 0, httpsrv_sse_begin(req, NULL));
    CHECK_INT(httpsrv_set(req, "X-Late", HTTPSRV_STR("no")), HTTPSRV_STATE);
}

TEST_EACH_WAY(fields_of_the_handler) {
    begin(&(httpsrv_config){.port = 0});
    route("GET /", on_own_fields);
    go(&s);
    struct listener l = {.c = dial(s.port)};
    GET(&l.c, "/");
    hear_head(&l);
    CHECK_STR(field(&l.c, "X-Accel-Buffering"), "no");
    CHECK_STR(field(&l.c, "Set-Cookie"), "a=b");
    CHECK_STR(field(&l.c, "Cache-Control"), "no-store");
    CHECK_STR(field(&l.c, "X-Late"), NULL);
    tune_out(&l);
    end();
}

// To HEAD only the head belongs; no stream stays behind it.
static void on_head(httpsrv_req *req, void *user) {
    (void)user;
    CHECK_INT(httpsrv_on_gone(req, count_notice, &noticed[0]), HTTPSRV_OK);
    keep_token(&s, 0, httpsrv_sse_begin(req, "news"));
}

TEST_EACH_WAY(head_alone) {
    begin(&(httpsrv_config){.port = 0});
    route("GET /", on_head);
    go(&s);
    struct client c = dial(s.port);
    for (int i = 0; i < 3; i++) {
        SEND(&c, "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
        REPLY_HEAD(&c);
        CHECK_INT(c.status, 200);
        CHECK_STR(field(&c, "Content-Type"), "text/event-stream");
        CHECK_STR(field(&c, "Cache-Control"), "no-store");
        WAIT(send_text(0, "one") == HTTPSRV_GONE);
        CHECK_INT(publish_text("news", "two"), HTTPSRV_OK);
        GET(&c, "/hello");
        EXPECT(&c, 200, HELLO);
    }
    CHECK_INT(LOAD(noticed[0]), 0);
    hang_up(&c);
    end();
}

// ---- the text of events ----

struct text_case {
    httpsrv_event event;
    const char *text;
    size_t len; // 0: that of the string
};

static const struct text_case text_cases[] = {
    {{.data = {"a", 1}}, "data: a\n\n", 0},
    {{.data = {"", 0}}, "data: \n\n", 0},
    {{.data = {"a\nb", 3}}, "data: a\ndata: b\n\n", 0},
    {{.data = {"a\rb", 3}}, "data: a\ndata: b\n\n", 0},
    {{.data = {"a\r\nb", 4}}, "data: a\ndata: b\n\n", 0},
    {{.data = {"a\n\rb", 4}}, "data: a\ndata: \ndata: b\n\n", 0},
    {{.data = {"a\n\nb", 4}}, "data: a\ndata: \ndata: b\n\n", 0},
    {{.data = {"a\r\n\r\r\nb\n", 8}}, "data: a\ndata: \ndata: \ndata: b\ndata: \n\n", 0},
    {{.data = {"a\n", 2}}, "data: a\ndata: \n\n", 0},
    {{.data = {"a\r", 2}}, "data: a\ndata: \n\n", 0},
    {{.data = {"a\r\n", 3}}, "data: a\ndata: \n\n", 0},
    {{.data = {"\n", 1}}, "data: \ndata: \n\n", 0},
    {{.data = {" a ", 3}}, "data:  a \n\n", 0},
    {{.data = {":a: b", 5}}, "data: :a: b\n\n", 0},
    {{.data = {"id: 3\nevent: x", 14}}, "data: id: 3\ndata: event: x\n\n", 0},
    {{.data = {"a\0b\n\0", 5}}, "data: a\0b\ndata: \0\n\n", 19},
    {{.data = {"J\xc3\xbcrgen\t\x01\xff", 10}}, "data: J\xc3\xbcrgen\t\x01\xff\n\n", 0},
    {{.data = {"a", 1}, .name = "tick"}, "event: tick\ndata: a\n\n", 0},
    {{.data = {"a", 1}, .id = {"7", 1}}, "id: 7\ndata: a\n\n", 0},
    {{.data = {"a", 1}, .id = {"", 0}}, "id: \ndata: a\n\n", 0},
    {{.data = {"a", 1}, .id = {"a: b ", 5}}, "id: a: b \ndata: a\n\n", 0},
    {{.data = {"a", 1}, .retry_ms = 1}, "retry: 1\ndata: a\n\n", 0},
    {{.data = {"a", 1}, .retry_ms = 2147483647}, "retry: 2147483647\ndata: a\n\n", 0},
    {{.data = {"a\nb", 3}, .name = "tick", .id = {"7", 1}, .retry_ms = 1500},
     "event: tick\nid: 7\nretry: 1500\ndata: a\ndata: b\n\n",
     0},
};

TEST_EACH_WAY(text_of_events) {
    struct listener l;
    serve_events(&(httpsrv_config){.port = 0});
    tune_in(&l, "news", 0);
    for (size_t i = 0; i < ROWS(text_cases); i++) {
        const struct text_case *row = &text_cases[i];
        const size_t len = row->len ? row->len : strlen(row->text);
        NOTE("%s, row %zu: %s", way->name, i, row->text);
        CHECK_INT(httpsrv_sse_send(s.srv, token_of(0), &row->event), HTTPSRV_OK);
        expect_bytes(&l, row->text, len);
        CHECK_INT(httpsrv_sse_publish(s.srv, "news", &row->event), HTTPSRV_OK);
        expect_bytes(&l, row->text, len);
    }
    tune_out(&l);
    end();
}

// What EventSource makes of an event's text (section 9.2.6 of the standard): the lines of data, joined by LF.
static size_t data_of(const char *event, size_t len, char *out) {
    size_t n = 0;
    for (const char *at = event, *stop = event + len; at <= stop;) {
        const char *line_end = at;
        while (line_end < stop && *line_end != '\n' && *line_end != '\r')
            line_end++;
        if (line_end - at >= 5 && memcmp(at, "data:", 5) == 0) {
            const char *value = at + 5 + (line_end - at > 5 && at[5] == ' ');
            memcpy(out + n, value, (size_t)(line_end - value));
            n += (size_t)(line_end - value);
            out[n++] = '\n';
        }
        at = line_end + 1 + (line_end + 1 < stop && line_end[0] == '\r' && line_end[1] == '\n');
    }
    CHECK_CMP(n, >, 0); // else the event would not be dispatched
    return n - 1;
}

// The same text with LF for every end of line.
static size_t with_newlines(const char *text, size_t len, char *out) {
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        out[n++] = text[i] == '\r' ? '\n' : text[i];
        if (text[i] == '\r' && i + 1 < len && text[i + 1] == '\n') i++;
    }
    return n;
}

// All texts of up to six characters out of four arrive as they are, but for the kind of their line ends.
TEST(data_survives) {
    enum { LONGEST = 6 };
    static const char letters[] = "\r\n :";
    struct listener l;
    way = ways;
    serve_events(&(httpsrv_config){.port = 0});
    tune_in(&l, "-", 0);
    for (size_t len = 0; len <= LONGEST; len++) {
        for (size_t code = 0; code < (size_t)1 << 2 * len; code++) {
            char text[LONGEST + 1], expected[LONGEST + 1], actual[100];
            for (size_t i = 0; i < len; i++)
                text[i] = letters[code >> 2 * i & 3];
            const httpsrv_event event = {.data = {text, len}};
            CHECK_INT(httpsrv_sse_send(s.srv, token_of(0), &event), HTTPSRV_OK);
            const char *got = next_event(&l);
            CHECK(got != NULL);
            CHECK_MEM(actual, data_of(got, strlen(got), actual), expected, with_newlines(text, len, expected));
        }
    }
    tune_out(&l);
    end();
}

// An event without data says something about the stream and is not dispatched.
TEST_EACH_WAY(events_without_data) {
    struct listener l;
    serve_events(&(httpsrv_config){.port = 0});
    tune_in(&l, "-", 0);
    CHECK_INT(httpsrv_sse_send(s.srv, token_of(0), &(httpsrv_event){.retry_ms = 5000}), HTTPSRV_OK);
    expect_text(&l, "retry: 5000\n\n");
    CHECK_INT(httpsrv_sse_send(s.srv, token_of(0), &(httpsrv_event){.id = {"9", 1}}), HTTPSRV_OK);
    expect_text(&l, "id: 9\n\n");
    tune_out(&l);
    end();
}

// ---- bad arguments ----

TEST_EACH_WAY(arguments) {
    static const httpsrv_event bad[] = {{.data = {"a", 1}, .name = "a\nb"},
                                        {.data = {"a", 1}, .name = "a\rb"},
                                        {.data = {"a", 1}, .name = "\n"},
                                        {.data = {"a", 1}, .id = {"a\nb", 3}},
                                        {.data = {"a", 1}, .id = {"a\r", 2}},
                                        {.data = {"a", 1}, .id = {"\n", 1}},
                                        {.data = {"a", 1}, .id = {"a\0b", 3}},
                                        {.data = {"a", 1}, .id = {"\0", 1}},
                                        {.data = {"a", 1}, .retry_ms = -1},
                                        {.data = {"a", 1}, .retry_ms = -2147483647 - 1},
                                        {.data = {"a", 1}, .retry_ms = -123456},
                                        {.data = {NULL, 1}},
                                        {.data = {"a", 1}, .id = {NULL, 1}},
                                        {.name = "nothing to say"},
                                        {.retry_ms = 0}};
    const httpsrv_event good = {.data = {"good", 4}};
    struct listener l;
    serve_events(&(httpsrv_config){.port = 0});
    tune_in(&l, "news", 0);
    const httpsrv_token token = token_of(0), none = {0};
    for (size_t i = 0; i < ROWS(bad); i++) {
        NOTE("%s, row %zu", way->name, i);
        CHECK_INT(httpsrv_sse_send(s.srv, token, &bad[i]), HTTPSRV_ARG);
        CHECK_INT(httpsrv_sse_publish(s.srv, "news", &bad[i]), HTTPSRV_ARG);
        CHECK_INT(httpsrv_sse_publish(s.srv, "nobody", &bad[i]), HTTPSRV_ARG);
    }
    CHECK_INT(httpsrv_sse_send(NULL, token, &good), HTTPSRV_ARG);
    CHECK_INT(httpsrv_sse_send(s.srv, token, NULL), HTTPSRV_ARG);
    CHECK_INT(httpsrv_sse_send(s.srv, none, &good), HTTPSRV_GONE);
    CHECK_INT(httpsrv_sse_publish(NULL, "news", &good), HTTPSRV_ARG);
    CHECK_INT(httpsrv_sse_publish(s.srv, "news", NULL), HTTPSRV_ARG);
    CHECK_INT(httpsrv_sse_publish(s.srv, NULL, &good), HTTPSRV_ARG);
    CHECK_INT(httpsrv_sse_end(NULL, token), HTTPSRV_ARG);
    CHECK_INT(httpsrv_sse_end(s.srv, none), HTTPSRV_GONE);
    CHECK_INT(httpsrv_sse_send(s.srv, token, &good), HTTPSRV_OK);
    expect_text(&l, "data: good\n\n"); // and nothing before
    tune_out(&l);
    end();
}

// ---- Last-Event-ID ----

static void on_last_id(httpsrv_req *req, void *user) {
    const httpsrv_str id = httpsrv_sse_last_id(req);
    (void)user;
    httpsrv_replyf(req, 200, "text/plain", "%s[%.*s]", id.ptr ? "" : "absent", HTTPSRV_FMT(id));
}

TEST_EACH_WAY(last_event_id) {
    static const struct {
        const char *fields, *expected;
    } rows[] = {{"", "absent[]"},
                {"Last-Event-ID: 42\r\n", "[42]"},
                {"last-event-id:\ta b:c \r\n", "[a b:c]"},
                {"LAST-EVENT-ID: J\xc3\xbcrgen\r\n", "[J\xc3\xbcrgen]"},
                {"Last-Event: 1\r\nX-Last-Event-ID: 2\r\n", "absent[]"}};
    begin(&(httpsrv_config){.port = 0});
    route("GET /", on_last_id);
    go(&s);
    struct client c = dial(s.port);
    for (size_t i = 0; i < ROWS(rows); i++) {
        NOTE("%s, row %zu", way->name, i);
        SENDF(&c, "GET / HTTP/1.1\r\nHost: a\r\n%s\r\n", rows[i].fields);
        EXPECT(&c, 200, rows[i].expected);
    }
    hang_up(&c);
    end();
}

// ---- sending by token, publishing: each event once, in order for each thread that sends ----

enum { SENDERS = 4, CLIENTS = 12, CHANNELS = 3 };

struct sender {
    pthread_t thread;
    int number, events;
    bool publishes;
};

static const char *const channels[CHANNELS] = {"news", "weather", "a channel with a name that is somewhat longer"};
static const char *const targets[CHANNELS] = {"news", "weather",
                                              "a%20channel%20with%20a%20name%20that%20is%20somewhat%20longer"};

static void *run_sender(void *arg) {
    const struct sender *sender = (const struct sender *)arg;
    char data[200];
    for (int i = 0; i < sender->events; i++) {
        for (int k = 0; sender->publishes && k < CHANNELS; k++) {
            snprintf(data, sizeof data, "%d %d %d", sender->number, i, k);
            CHECK_INT(publish_text(channels[k], data), HTTPSRV_OK);
        }
        for (int n = 0; !sender->publishes && n < CLIENTS; n++) {
            snprintf(data, sizeof data, "%d %d %d", sender->number, i, n);
            CHECK_INT(send_text(n, data), HTTPSRV_OK);
        }
    }
    return NULL;
}

static void start_senders(struct sender *senders, bool publish, int events) {
    for (int i = 0; i < SENDERS; i++) {
        senders[i] = (struct sender){.number = i, .events = events, .publishes = publish};
        CHECK_INT(pthread_create(&senders[i].thread, NULL, run_sender, &senders[i]), 0);
    }
}

static void join_senders(struct sender *senders) {
    for (int i = 0; i < SENDERS; i++)
        CHECK_INT(pthread_join(senders[i].thread, NULL), 0);
}

// A client gets everything that is for `whom`, and nothing else.
static void expect_all(struct listener *l, int events, int whom) {
    int next[SENDERS] = {0};
    for (int i = 0; i < events * SENDERS; i++) {
        int sender, number, to;
        const char *event = next_event(l);
        CHECK(event != NULL);
        CHECK_INT(sscanf(event, "data: %d %d %d", &sender, &number, &to), 3);
        CHECK(sender >= 0 && sender < SENDERS);
        CHECK_INT(to, whom);
        CHECK_INT(number, next[sender]);
        next[sender]++;
    }
}

static void send_to_all(bool publish, int events) {
    struct listener l[CLIENTS];
    struct sender senders[SENDERS];
    serve_events(&(httpsrv_config){.port = 0});
    for (int n = 0; n < CLIENTS; n++)
        tune_in(&l[n], publish ? targets[n % CHANNELS] : "-", n);
    start_senders(senders, publish, events);
    for (int n = 0; n < CLIENTS; n++)
        expect_all(&l[n], events, publish ? n % CHANNELS : n);
    join_senders(senders);
    for (int n = 0; n < CLIENTS; n++) {
        CHECK_INT(httpsrv_sse_end(s.srv, token_of(n)), HTTPSRV_OK);
        expect_complete(&l[n]);
        CHECK_INT(LOAD(noticed[n]), 0);
        tune_out(&l[n]);
    }
    end();
}

TEST_EACH_WAY(sent_by_token_from_many_threads) {
    send_to_all(false, ROUNDS(100));
}

TEST_EACH_WAY(published_from_many_threads) {
    send_to_all(true, ROUNDS(200));
}

// Who listens to no channel gets what is sent to the token alone, and what is published for nobody goes nowhere.
TEST_EACH_WAY(without_a_channel) {
    struct listener with, without;
    serve_events(&(httpsrv_config){.port = 0});
    CHECK_INT(publish_text("news", "early"), HTTPSRV_OK);
    tune_in(&without, "-", 0);
    tune_in(&with, "news", 1);
    CHECK_INT(publish_text("-", "zero"), HTTPSRV_OK);
    CHECK_INT(publish_text("new", "one"), HTTPSRV_OK);
    CHECK_INT(publish_text("newss", "two"), HTTPSRV_OK);
    CHECK_INT(publish_text("NEWS", "three"), HTTPSRV_OK);
    CHECK_INT(publish_text("news", "four"), HTTPSRV_OK);
    expect_event(&with, "four");
    CHECK_INT(send_text(0, "five"), HTTPSRV_OK);
    CHECK_INT(send_text(1, "six"), HTTPSRV_OK);
    expect_event(&without, "five");
    expect_event(&with, "six");
    tune_out(&with);
    tune_out(&without);
    end();
}

// One thread sends and publishes in turns: one order for both.
TEST_EACH_WAY(sending_and_publishing_in_turns) {
    struct listener l;
    char data[100];
    serve_events(&(httpsrv_config){.port = 0});
    tune_in(&l, "news", 0);
    for (int i = 0; i < 100; i++) {
        snprintf(data, sizeof data, "%d", i);
        CHECK_INT(i % 3 ? publish_text("news", data) : send_text(0, data), HTTPSRV_OK);
    }
    CHECK_INT(httpsrv_sse_end(s.srv, token_of(0)), HTTPSRV_OK);
    for (int i = 0; i < 100; i++) {
        snprintf(data, sizeof data, "%d", i);
        expect_event(&l, data);
    }
    expect_complete(&l);
    tune_out(&l);
    end();
}

// A stream can be sent to as soon as it has begun, also by the handler that began it.
static void on_greeting(httpsrv_req *req, void *user) {
    const httpsrv_event direct = event_of("sent"), shared = event_of("published");
    (void)user;
    CHECK_INT(httpsrv_on_gone(req, count_notice, &noticed[0]), HTTPSRV_OK);
    const httpsrv_token token = httpsrv_sse_begin(req, "news");
    CHECK(token.id != 0);
    CHECK_INT(httpsrv_sse_send(s.srv, token, &direct), HTTPSRV_OK);
    CHECK_INT(httpsrv_sse_publish(s.srv, "news", &shared), HTTPSRV_OK);
    CHECK_INT(httpsrv_sse_send(s.srv, token, &direct), HTTPSRV_OK);
    keep_token(&s, 0, token);
    while (way->pool && !LOAD(s.gate))
        test_sleep(1);
}

TEST_EACH_WAY(sent_by_the_handler) {
    begin(&(httpsrv_config){.port = 0});
    route("GET /", on_greeting);
    go(&s);
    struct listener l = {.c = dial(s.port)};
    SEND(&l.c, "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    WAIT(LOAD(s.arrived) == 1);
    CHECK_INT(send_text(0, "from outside"), HTTPSRV_OK);
    CHECK_INT(httpsrv_sse_end(s.srv, token_of(0)), HTTPSRV_OK);
    test_sleep(5);
    STORE(s.gate, 1);
    hear_head(&l);
    expect_event(&l, "sent");
    expect_event(&l, "published");
    expect_event(&l, "sent");
    expect_event(&l, "from outside");
    expect_complete(&l);
    EXPECT(&l.c, 200, HELLO);
    GET(&l.c, "/hello");
    EXPECT(&l.c, 200, HELLO);
    CHECK_INT(LOAD(noticed[0]), 0);
    tune_out(&l);
    end();
}

// ---- what a handler may do around it ----

static void on_replied(httpsrv_req *req, void *user) {
    (void)user;
    CHECK_INT(httpsrv_reply(req, 200, "text/plain", HTTPSRV_STR("replied")), HTTPSRV_OK);
    CHECK(httpsrv_sse_begin(req, "news").id == 0);
    CHECK(httpsrv_sse_begin(req, NULL).id == 0);
}

static void on_begun(httpsrv_req *req, void *user) {
    (void)user;
    CHECK_INT(httpsrv_begin(req, 200, "text/plain", 5), HTTPSRV_OK);
    CHECK(httpsrv_sse_begin(req, "news").id == 0);
    CHECK_INT(httpsrv_write(req, HTTPSRV_STR("begun")), HTTPSRV_OK);
    CHECK_INT(httpsrv_end(req), HTTPSRV_OK);
}

static void on_twice_begun(httpsrv_req *req, void *user) {
    on_events(req, user);
    CHECK(httpsrv_sse_begin(req, "weather").id == 0);
    CHECK_INT(httpsrv_reply(req, 200, "text/plain", HTTPSRV_STR("late")), HTTPSRV_STATE);
    CHECK_INT(httpsrv_begin(req, 200, "text/plain", -1), HTTPSRV_STATE);
    CHECK_INT(httpsrv_inform(req, 103, NULL, 0), HTTPSRV_STATE);
}

static void on_deferred(httpsrv_req *req, void *user) {
    const httpsrv_token token = httpsrv_defer(req);
    CHECK(token.id != 0);
    on_events(req, user);
    CHECK(token_of((int)number_param(req, "n")).id == token.id);
}

TEST_EACH_WAY(around_the_beginning) {
    struct listener l;
    begin(&(httpsrv_config){.port = 0});
    route("GET /replied", on_replied);
    route("GET /begun", on_begun);
    route("GET /twice/:channel/:n", on_twice_begun);
    route("GET /deferred/:channel/:n", on_deferred);
    go(&s);
    struct client c = ASK(&s, "GET /replied HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK_MEM(c.body, c.body_len, "replied", 7);
    GET(&c, "/begun");
    EXPECT(&c, 200, "begun");
    hang_up(&c);
    for (int k = 0; k < 2; k++) {
        NOTE("%s, %s", way->name, k ? "deferred before" : "begun twice");
        memset(&l, 0, sizeof l);
        l.c = dial(s.port);
        SENDF(&l.c, "GET /%s/news/%d HTTP/1.1\r\nHost: a\r\n\r\n", k ? "deferred" : "twice", k);
        hear_head(&l);
        WAIT(token_of(k).id != 0);
        CHECK_INT(publish_text("weather", "rain"), HTTPSRV_OK);
        CHECK_INT(publish_text("news", "none"), HTTPSRV_OK);
        expect_event(&l, "none");
        CHECK_INT(httpsrv_sse_end(s.srv, token_of(k)), HTTPSRV_OK);
        expect_complete(&l);
        tune_out(&l);
    }
    end();
}

// Nobody is there any more when the worker begins.
static void on_too_late(httpsrv_req *req, void *user) {
    (void)user;
    CHECK_INT(httpsrv_on_gone(req, count_notice, &noticed[0]), HTTPSRV_OK);
    COUNT(s.arrived);
    while (!LOAD(noticed[0]))
        test_sleep(1);
    CHECK(httpsrv_sse_begin(req, "news").id == 0);
    COUNT(s.left);
}

TEST(begun_for_a_client_that_has_left) {
    way = &ways[2];
    begin(&(httpsrv_config){.port = 0});
    route("GET /", on_too_late);
    go(&s);
    struct client c = dial(s.port);
    GET(&c, "/");
    WAIT(LOAD(s.arrived) == 1);
    net_reset(&c);
    WAIT(LOAD(s.left) == 1);
    CHECK_INT(publish_text("news", "none"), HTTPSRV_OK);
    check_alive(&s);
    CHECK_INT(LOAD(noticed[0]), 1);
    end();
    CHECK_INT(s.last.items[HTTPSRV_LOG_NO_ANSWER], 0);
}

TEST(published_before_listen) {
    way = ways;
    begin(&(httpsrv_config){.port = 0});
    CHECK_INT(publish_text("news", "early"), HTTPSRV_STATE);
    CHECK_INT(httpsrv_listen(s.srv), HTTPSRV_OK);
    CHECK_INT(publish_text("news", "nobody yet"), HTTPSRV_OK);
    go(&s);
    CHECK_INT(publish_text("news", "nobody yet"), HTTPSRV_OK);
    httpsrv_stop(s.srv);
    CHECK_INT(httpsrv_join(s.srv), HTTPSRV_OK);
    (void)publish_text("news", "nobody any more"); // whatever it answers, it must not leak
    dispose(&s);
}

// ---- tokens ----

static void on_stale_post(httpsrv_req *req, void *user) {
    CHECK(req == NULL);
    COUNT(*(int *)user);
}

static void expect_gone(httpsrv_token token) {
    const httpsrv_event event = event_of("late");
    const httpsrv_answer answer = {.status = 200};
    int posted = 0;
    WAIT(httpsrv_sse_send(s.srv, token, &event) == HTTPSRV_GONE);
    CHECK_INT(httpsrv_sse_end(s.srv, token), HTTPSRV_GONE);
    CHECK_INT(httpsrv_finish(s.srv, token, &answer), HTTPSRV_GONE);
    CHECK_INT(httpsrv_post(s.srv, token, on_stale_post, &posted), HTTPSRV_OK);
    WAIT(LOAD(posted) == 1);
}

TEST_EACH_WAY(stale_tokens) {
    struct listener l;
    serve_events(&(httpsrv_config){.port = 0});
    tune_in(&l, "news", 0);
    const httpsrv_token first = token_of(0), wrong = {first.id ^ 1}, huge = {~(uint64_t)0};
    CHECK_INT(httpsrv_sse_end(s.srv, wrong), HTTPSRV_GONE);
    CHECK_INT(httpsrv_sse_end(s.srv, huge), HTTPSRV_GONE);
    CHECK_INT(httpsrv_sse_end(s.srv, first), HTTPSRV_OK);
    CHECK_INT(httpsrv_sse_end(s.srv, first), HTTPSRV_GONE);
    expect_complete(&l);
    expect_gone(first);
    tune_out(&l);
    tune_in(&l, "news", 1); // perhaps in the same place
    expect_gone(first);
    CHECK_INT(send_text(1, "second"), HTTPSRV_OK);
    expect_event(&l, "second");
    tune_out(&l);
    expect_gone(token_of(1));
    CHECK_INT(LOAD(noticed[0]), 0);
    CHECK_INT(LOAD(noticed[1]), 1);
    end();
}

// The token of another request, and other uses of the token of a stream: no harm to either.
TEST_EACH_WAY(tokens_of_another_kind) {
    const httpsrv_answer answer = {.status = 200, .body = {"answer", 6}};
    struct listener l;
    begin(&(httpsrv_config){.port = 0});
    route("GET /events/:channel/:n", on_events);
    route("GET /defer/:n", on_defer);
    go(&s);
    tune_in(&l, "news", 0);
    struct client c = dial(s.port);
    GET(&c, "/defer/1");
    WAIT(LOAD(s.arrived) == 2);
    CHECK(send_text(1, "wrong") != HTTPSRV_OK);
    CHECK(httpsrv_sse_end(s.srv, token_of(1)) != HTTPSRV_OK);
    CHECK(httpsrv_finish(s.srv, token_of(0), &answer) != HTTPSRV_OK);
    CHECK_INT(httpsrv_finish(s.srv, token_of(1), &answer), HTTPSRV_OK);
    EXPECT(&c, 200, "answer");
    CHECK_INT(send_text(0, "right"), HTTPSRV_OK);
    expect_event(&l, "right");
    hang_up(&c);
    tune_out(&l);
    end();
}

// ---- the end by the server ----

// The connection lives on: what was asked meanwhile is answered then, and what is asked after it too.
TEST_EACH_WAY(ended_by_the_server) {
    struct listener l;
    serve_events(&(httpsrv_config){.port = 0});
    tune_in(&l, "news", 0);
    GET(&l.c, "/hello");
    CHECK_INT(send_text(0, "one"), HTTPSRV_OK);
    expect_event(&l, "one");
    CHECK_INT(LOAD(s.handled), 0);
    CHECK_INT(send_text(0, "two"), HTTPSRV_OK);
    CHECK_INT(httpsrv_sse_end(s.srv, token_of(0)), HTTPSRV_OK);
    CHECK_INT(send_text(0, "three"), HTTPSRV_GONE);
    expect_event(&l, "two");
    expect_complete(&l);
    EXPECT(&l.c, 200, HELLO);
    GET(&l.c, "/hello");
    EXPECT(&l.c, 200, HELLO);
    CHECK_INT(publish_text("news", "four"), HTTPSRV_OK);
    l.complete = false;
    SENDF(&l.c, "GET /events/weather/1 HTTP/1.1\r\nHost: a\r\n\r\n");
    hear_head(&l);
    CHECK_INT(publish_text("news", "five"), HTTPSRV_OK);
    CHECK_INT(publish_text("weather", "six"), HTTPSRV_OK);
    expect_event(&l, "six");
    CHECK_INT(LOAD(noticed[0]), 0);
    tune_out(&l);
    WAIT(LOAD(noticed[1]) == 1);
    end();
}

// Of several threads that end a stream exactly one does.
static int ended;

static void *run_ender(void *arg) {
    const httpsrv_result result = httpsrv_sse_end(s.srv, *(const httpsrv_token *)arg);
    if (result == HTTPSRV_OK) COUNT(ended);
    CHECK(result == HTTPSRV_OK || result == HTTPSRV_GONE);
    return NULL;
}

TEST_EACH_WAY(ended_by_many_threads) {
    serve_events(&(httpsrv_config){.port = 0});
    for (int n = 0; n < ROUNDS(50); n++) {
        pthread_t threads[SENDERS];
        struct listener l;
        tune_in(&l, "news", n);
        httpsrv_token token = token_of(n);
        ended = 0;
        for (int i = 0; i < SENDERS; i++)
            CHECK_INT(pthread_create(&threads[i], NULL, run_ender, &token), 0);
        for (int i = 0; i < SENDERS; i++)
            CHECK_INT(pthread_join(threads[i], NULL), 0);
        CHECK_INT(ended, 1);
        expect_complete(&l);
        tune_out(&l);
    }
    end();
}

// ---- signs of life ----

static int count_comments(struct listener *l, int64_t deadline, int enough) {
    int comments = 0;
    while (comments < enough && hear(l, deadline)) {
        const char *stop;
        while (l->len && (stop = (const char *)memmem(l->text, l->len, "\n\n", 2))) {
            CHECK_INT(l->text[0], ':');
            CHECK(!memchr(l->text, '\n', (size_t)(stop - l->text)));
            drop_text(l, (size_t)(stop - l->text) + 2);
            comments++;
        }
    }
    return comments;
}

TEST_EACH_WAY(comments_while_nothing_happens) {
    struct listener chunked, plain;
    serve_events(&(httpsrv_config){.timeout_ms.events = 50, .timeout_ms.handler = 100, .timeout_ms.idle = 100});
    const int64_t start = test_now();
    tune_in(&chunked, "-", 0);
    tune_in_http_1_0(&plain, "-", 1);
    CHECK_INT(count_comments(&chunked, net_deadline(), 6), 6);
    CHECK_INT(count_comments(&plain, net_deadline(), 6), 6);
    CHECK_CMP(test_now() - start, >=, 6 * 45);
    CHECK_INT(send_text(0, "still here"), HTTPSRV_OK);
    expect_event(&chunked, "still here");
    tune_out(&chunked);
    tune_out(&plain);
    end();
    CHECK_INT(s.last.items[HTTPSRV_LOG_HANDLER_TIMEOUT], 0);
}

TEST(no_comments_when_off) {
    struct listener l;
    way = ways;
    serve_events(&(httpsrv_config){.timeout_ms.events = -1, .timeout_ms.handler = 100, .timeout_ms.idle = 100});
    tune_in(&l, "-", 0);
    EXPECT_SILENCE(&l.c, 1200); // more than two periods of min_rate
    CHECK_INT(send_text(0, "one"), HTTPSRV_OK);
    expect_text(&l, "data: one\n\n");
    tune_out(&l);
    end();
    CHECK_INT(s.last.items[HTTPSRV_LOG_TOO_SLOW], 0);
    CHECK_INT(s.last.items[HTTPSRV_LOG_IDLE_TIMEOUT], 0);
}

// Events one after the other for so long, and no comment among them.
static void send_for(struct listener *l, int ms) {
    for (const int64_t start = test_now(); test_now() - start < ms;) {
        CHECK_INT(send_text(0, "tick"), HTTPSRV_OK);
        expect_text(l, "data: tick\n\n");
        test_sleep(20);
    }
}

// Whoever gets events needs no other sign of life; afterwards it does.
TEST(no_comments_while_events_flow) {
    struct listener l;
    way = &ways[3];
    serve_events(&(httpsrv_config){.timeout_ms.events = 600});
    tune_in(&l, "-", 0);
    send_for(&l, 1500);
    CHECK_INT(count_comments(&l, net_deadline(), 1), 1);
    tune_out(&l);
    end();
}

// ---- clients that do not read ----

static char filler[1 << 20]; // data of events that fill something

static httpsrv_event filled(size_t len) {
    if (!filler[0]) memset(filler, 'x', sizeof filler);
    httpsrv_event event = {.data = {filler, len}};
    return event;
}

static bool is_filled(const char *event, size_t len) {
    return event && strlen(event) == len + 6 && memcmp(event, "data: ", 6) == 0 && memcmp(event + 6, filler, len) == 0;
}

// The slow one is dropped once write_mark.high bytes wait for it; the others get everything, and memory stays bounded.
TEST_EACH_WAY(slow_clients_are_dropped) {
    enum { FAST = 3, PIECE = 8 * KB, HIGH = 128 * KB, SOCKET = 1024 * KB };
    struct listener slow, fast[FAST];
    const httpsrv_event event = filled(PIECE);
    serve_events(&(httpsrv_config){.write_mark = {HIGH, 32 * KB}});
    tune_in_by(&slow, dial_unix(), "news", 0);
    for (int i = 0; i < FAST; i++)
        tune_in(&fast[i], "news", i + 1);
    const size_t before = LOAD(s.bytes);
    STORE(s.peak, before);
    int published = 0, more = 40;
    while (more > 0) {
        const bool dropped = LOAD(s.logged[HTTPSRV_LOG_EVENTS_UNREAD]) > 0;
        CHECK_INT(httpsrv_sse_publish(s.srv, "news", &event), HTTPSRV_OK);
        for (int i = 0; i < FAST; i++)
            CHECK(is_filled(next_event(&fast[i]), PIECE));
        if (dropped)
            more--;
        else
            published++;
        CHECK_CMP(published, <=, (HIGH + SOCKET) / PIECE);
    }
    CHECK_CMP(published, >=, HIGH / PIECE);
    CHECK_CMP(LOAD(s.peak) - before, <, HIGH + (FAST + 4) * 64 * KB);
    WAIT(LOAD(noticed[0]) == 1);
    CHECK_INT(send_text(0, "too late"), HTTPSRV_GONE);
    CHECK_INT(metrics(&s).items[HTTPSRV_LOG_EVENTS_UNREAD], 1);
    int got = 0;
    while (is_filled(next_event(&slow), PIECE))
        got++;
    CHECK_CMP(got, <=, published);
    expect_cut(&slow);
    for (int i = 0; i < FAST; i++) {
        CHECK_INT(LOAD(noticed[i + 1]), 0);
        tune_out(&fast[i]);
    }
    tune_out(&slow);
    end();
    CHECK_INT(s.last.items[HTTPSRV_LOG_TOO_SLOW], 0);
}

// The same by token.
TEST_EACH_WAY(slow_clients_are_dropped_from_tokens) {
    struct listener slow;
    const httpsrv_event event = filled(8 * KB);
    int sent = 0;
    httpsrv_result result;
    serve_events(&(httpsrv_config){.write_mark = {128 * KB, 32 * KB}});
    tune_in_by(&slow, dial_unix(), "-", 0);
    while ((result = httpsrv_sse_send(s.srv, token_of(0), &event)) == HTTPSRV_OK) {
        CHECK_CMP(++sent, <, 2000);
        test_sleep(1); // so that the reactor keeps up
    }
    CHECK_INT(result, HTTPSRV_GONE);
    CHECK_CMP(sent, >=, 16);
    WAIT(LOAD(s.logged[HTTPSRV_LOG_EVENTS_UNREAD]) == 1);
    WAIT(LOAD(noticed[0]) == 1);
    tune_out(&slow);
    check_alive(&s);
    end();
}

// One that reads, if late, gets all that was queued for it. Its speed is not measured meanwhile.
TEST_EACH_WAY(late_readers_get_everything) {
    enum { PIECE = 8 * KB, EVENTS = 60 };
    struct listener l;
    const httpsrv_event event = filled(PIECE);
    serve_events(&(httpsrv_config){.write_mark = {1024 * KB, 64 * KB}});
    tune_in_by(&l, dial_unix(), "news", 0);
    for (int i = 0; i < EVENTS; i++)
        CHECK_INT(httpsrv_sse_publish(s.srv, "news", &event), HTTPSRV_OK);
    test_sleep(way == ways ? 4 * HTTPSRV_RATE_PERIOD : 50);
    CHECK_INT(httpsrv_sse_end(s.srv, token_of(0)), HTTPSRV_OK);
    for (int i = 0; i < EVENTS; i++)
        CHECK(is_filled(next_event(&l), PIECE));
    expect_complete(&l);
    GET(&l.c, "/hello");
    EXPECT(&l.c, 200, HELLO);
    CHECK_INT(LOAD(noticed[0]), 0);
    tune_out(&l);
    end();
}

// An event that is larger than the bound alone is taken like any other: the bound is asked for what waits before.
TEST_EACH_WAY(events_larger_than_the_bound) {
    struct listener l;
    const httpsrv_event event = filled(sizeof filler);
    serve_events(&(httpsrv_config){.write_mark = {16 * KB, 4 * KB}});
    tune_in(&l, "news", 0);
    for (int i = 0; i < 3; i++) {
        CHECK_INT(httpsrv_sse_publish(s.srv, "news", &event), HTTPSRV_OK);
        CHECK(is_filled(next_event(&l), sizeof filler));
        CHECK_INT(send_text(0, "small"), HTTPSRV_OK);
        expect_event(&l, "small");
    }
    CHECK_INT(LOAD(noticed[0]), 0);
    tune_out(&l);
    end();
}

// What is published lies in memory once, however many clients have not taken it yet.
TEST_EACH_WAY(published_bytes_are_shared) {
    enum { READERS = 16, PIECE = 100 * KB, EVENTS = 8 };
    struct listener l[READERS];
    const httpsrv_event event = filled(PIECE);
    serve_events(&(httpsrv_config){.write_mark = {2048 * KB, 64 * KB}});
    for (int n = 0; n < READERS; n++)
        tune_in_by(&l[n], dial_unix(), "news", n);
    const size_t before = LOAD(s.bytes);
    STORE(s.peak, before);
    for (int i = 0; i < EVENTS; i++)
        CHECK_INT(httpsrv_sse_publish(s.srv, "news", &event), HTTPSRV_OK);
    WAIT(metrics(&s).bytes_out >= READERS * (size_t)(150 * KB)); // their sockets are full
    test_sleep(50);
    CHECK_CMP(LOAD(s.peak) - before, <, 2 * EVENTS * PIECE);
    for (int n = 0; n < READERS; n++) {
        for (int i = 0; i < EVENTS; i++)
            CHECK(is_filled(next_event(&l[n]), PIECE));
    }
    WAIT(LOAD(s.bytes) < before + PIECE); // and is given back
    for (int n = 0; n < READERS; n++)
        tune_out(&l[n]);
    end();
}

// ---- clients that leave ----

enum leave { BY_RST, BY_FIN, BY_CLOSE, LEAVES };

static void leave(struct listener *l, enum leave how) {
    if (how == BY_RST) net_reset(&l->c);
    if (how == BY_FIN) half_close(&l->c);
    if (how == BY_CLOSE) hang_up(&l->c);
}

TEST_EACH_WAY(clients_leave) {
    serve_events(&(httpsrv_config){.port = 0});
    for (int n = 0; n < LEAVES * 4; n++) {
        struct listener l;
        const bool tcp_1_0 = n >= LEAVES && n < 2 * LEAVES, told = n >= 2 * LEAVES;
        NOTE("%s, number %d", way->name, n);
        if (tcp_1_0)
            tune_in_http_1_0(&l, "news", n);
        else if (n >= 3 * LEAVES)
            tune_in_by(&l, dial_unix(), "news", n);
        else
            tune_in(&l, "news", n);
        if (told) {
            CHECK_INT(send_text(n, "one"), HTTPSRV_OK);
            expect_event(&l, "one");
            if (n % LEAVES != BY_FIN) GET(&l.c, "/hello"); // will not be answered
        }
        leave(&l, (enum leave)(n % LEAVES));
        WAIT(LOAD(noticed[n]) == 1);
        expect_gone(token_of(n));
        CHECK_INT(publish_text("news", "two"), HTTPSRV_OK);
        if (n % LEAVES == BY_FIN) EXPECT_END(&l.c);
        tune_out(&l);
    }
    check_alive(&s);
    WAIT(metrics(&s).connections <= 1); // but for the one that has just asked
    end();
    for (int n = 0; n < LEAVES * 4; n++)
        CHECK_INT(noticed[n], 1);
}

// What a client sends while it gets events waits in its socket, most of it, and harms nothing.
TEST_EACH_WAY(input_behind_the_request) {
    struct listener l;
    serve_events(&(httpsrv_config){.port = 0});
    tune_in_by(&l, dial_unix(), "news", 0);
    const size_t before = LOAD(s.bytes);
    STORE(s.peak, before);
    CHECK_CMP(net_send_some(&l.c, blob, BLOB_BYTES, test_now() + 100), <, BLOB_BYTES);
    CHECK_INT(publish_text("news", "one"), HTTPSRV_OK);
    expect_event(&l, "one");
    CHECK_CMP(LOAD(s.peak) - before, <, 256 * KB);
    CHECK_INT(httpsrv_sse_end(s.srv, token_of(0)), HTTPSRV_OK);
    expect_complete(&l);
    EXPECT(&l.c, 400, NULL); // it was no request
    tune_out(&l);
    end();
}

// Channels come and go with their listeners, and leave nothing behind.
TEST_EACH_WAY(channels_come_and_go) {
    size_t after_some = 0;
    const int rounds = ROUNDS(200);
    serve_events(&(httpsrv_config){.port = 0});
    for (int i = 0; i < rounds; i++) {
        struct listener a, b;
        char channel[20];
        snprintf(channel, sizeof channel, "c%d", i);
        tune_in(&a, channel, 2 * i);
        tune_in(&b, channel, 2 * i + 1);
        CHECK_INT(publish_text(channel, "both"), HTTPSRV_OK);
        expect_event(&a, "both");
        expect_event(&b, "both");
        CHECK_INT(httpsrv_sse_end(s.srv, token_of(2 * i)), HTTPSRV_OK);
        expect_complete(&a);
        CHECK_INT(publish_text(channel, "one"), HTTPSRV_OK);
        expect_event(&b, "one");
        leave(&b, (enum leave)(i % LEAVES));
        WAIT(LOAD(noticed[2 * i + 1]) == 1);
        CHECK_INT(publish_text(channel, "none"), HTTPSRV_OK);
        tune_out(&a);
        tune_out(&b);
        WAIT(metrics(&s).connections == 0);
        if (i == rounds / 4) after_some = LOAD(s.bytes);
    }
    // A reactor may see two clients at a time only now, and then keeps what two requests take.
    const size_t reactors = (size_t)s.srv->config.reactors;
    const size_t kept = reactors > 1 ? 2 * reactors * s.srv->loops[0]->request_size : 0;
    CHECK_CMP(LOAD(s.bytes), <, after_some + 16 * KB + kept);
    end();
}

// ---- the table of channels ----

enum { TABLED = 1000 };

static void join_channel(hsrv_loop *loop, httpsrv_req *req, int number) {
    char name[20];
    const size_t len = (size_t)snprintf(name, sizeof name, "channel/%d", number);
    hsrv_channel *wanted = (hsrv_channel *)hsrv_memory_take_zeroed(&s.srv->memory, sizeof *wanted + len);
    memcpy(wanted + 1, name, len);
    wanted->name_len = len;
    refusing = loop->channels.count % 3 == 0; // memory is out now and then
    hsrv_loop_join_channel(loop, req, wanted);
    refusing = false;
}

static void check_channel(hsrv_loop *loop, const httpsrv_req *req, int number) {
    char name[20];
    snprintf(name, sizeof name, "channel/%d", number);
    hsrv_channel *const *link = hsrv_loop_find_channel(loop, hsrv_text_of(name));
    CHECK((*link != NULL) == (req->stream.channel != NULL));
    if (*link) CHECK((*link)->readers == req && req->stream.channel == *link);
}

static void check_channels(hsrv_loop *loop, const httpsrv_req *reqs, size_t count) {
    const hsrv_channels *table = &loop->channels;
    CHECK_INT(table->count, count);
    CHECK_CMP(table->num_buckets, <=, 16 * (count + 1));
    CHECK_CMP(4 * table->num_buckets, >=, count);
    for (int i = 0; i < TABLED; i++) {
        check_channel(loop, &reqs[i], i);
    }
}

// It grows and shrinks with them. When memory is out it stays as it is, and everybody is found all the same.
TEST(the_table_of_channels) {
    static httpsrv_req reqs[TABLED];
    begin(&(httpsrv_config){.port = 0});
    CHECK_INT(httpsrv_listen(s.srv), HTTPSRV_OK);
    hsrv_loop *loop = s.srv->loops[0];
    const size_t before = s.bytes;
    for (int i = 0; i < TABLED; i++) {
        join_channel(loop, &reqs[i], i);
        if (i % 97 == 0) check_channels(loop, reqs, (size_t)i + 1);
    }
    check_channels(loop, reqs, TABLED);
    for (int i = 0; i < TABLED; i++) {
        refusing = i % 3 == 0;
        hsrv_loop_leave_channel(loop, &reqs[i * 7 % TABLED]);
        refusing = false;
        if (i % 97 == 0) check_channels(loop, reqs, TABLED - 1 - (size_t)i);
    }
    check_channels(loop, reqs, 0);
    CHECK_CMP(s.bytes, <=, before + 16 * sizeof(void *));
    dispose(&s);
}

// ---- everything at once ----

static int over; // ends the publishers

static void *run_publisher(void *arg) {
    char data[100];
    for (int i = 0; !LOAD(over); i++) {
        snprintf(data, sizeof data, "%d %d", *(const int *)arg, i);
        const httpsrv_result result = publish_text("news", data);
        CHECK(result == HTTPSRV_OK || (result == HTTPSRV_STATE && LOAD(s.left)));
        snprintf(data, sizeof data, "%d %d", *(const int *)arg + SENDERS, i);
        (void)send_text(i % 50, data); // perhaps to nobody
        test_sleep(1);
    }
    return NULL;
}

// In order for each publisher, and none that was published is missing from the first one on. What was sent by token has
// numbers of its own.
static void expect_in_order(struct listener *l, int events) {
    int last[2 * SENDERS];
    memset(last, -1, sizeof last);
    for (int i = 0; i < events; i++) {
        int sender, number;
        const char *event = next_event(l);
        CHECK(event != NULL);
        CHECK_INT(sscanf(event, "data: %d %d", &sender, &number), 2);
        CHECK(sender >= 0 && sender < 2 * SENDERS);
        if (last[sender] >= 0 && sender < SENDERS) CHECK_INT(number, last[sender] + 1);
        CHECK_CMP(number, >, last[sender]);
        last[sender] = number;
    }
}

static void start_publishers(pthread_t *threads) {
    static const int numbers[SENDERS] = {0, 1, 2, 3};
    STORE(over, 0);
    for (int i = 0; i < SENDERS; i++) {
        int *number = (int *)(uintptr_t)&numbers[i];
        CHECK_INT(pthread_create(&threads[i], NULL, run_publisher, number), 0);
    }
}

static void join_publishers(pthread_t *threads) {
    STORE(over, 1);
    for (int i = 0; i < SENDERS; i++)
        CHECK_INT(pthread_join(threads[i], NULL), 0);
}

TEST_EACH_WAY(clients_come_and_go_while_events_flow) {
    pthread_t threads[SENDERS];
    const int rounds = ROUNDS(300);
    bool left[MOST] = {false};
    serve_events(&(httpsrv_config){.timeout_ms.events = 20});
    start_publishers(threads);
    for (int n = 0; n < rounds; n++) {
        struct listener l;
        tune_in(&l, "news", n);
        expect_in_order(&l, n % 20);
        left[n] = n % 4 != 3;
        if (left[n]) {
            leave(&l, (enum leave)(n % LEAVES));
        } else {
            CHECK_INT(httpsrv_sse_end(s.srv, token_of(n)), HTTPSRV_OK);
            while (next_event(&l))
                continue;
            CHECK(l.complete);
        }
        tune_out(&l);
    }
    WAIT(metrics(&s).connections == 0);
    join_publishers(threads);
    end();
    for (int n = 0; n < rounds; n++) {
        NOTE("number %d", n);
        CHECK_INT(noticed[n], left[n]);
    }
}

// ---- many ----

static void raise_descriptor_limit(int wanted) {
    struct rlimit limit;
    CHECK_INT(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = limit.rlim_max;
    CHECK_INT(setrlimit(RLIMIT_NOFILE, &limit), 0);
    if (limit.rlim_cur < (rlim_t)wanted) SKIP("no more than %ld descriptors", (long)limit.rlim_cur);
}

static void many_clients(void) {
    enum { MANY = 500, EVENTS = 5 };
    struct listener *l = (struct listener *)calloc(MANY, sizeof *l);
    char data[20];
    CHECK(l != NULL);
    serve_events(&(httpsrv_config){.max.connections = MANY + 10});
    for (int n = 0; n < MANY; n++)
        tune_in(&l[n], "news", n);
    CHECK_INT(metrics(&s).connections, MANY);
    for (int i = 0; i < EVENTS; i++) {
        snprintf(data, sizeof data, "%d", i);
        CHECK_INT(publish_text("news", data), HTTPSRV_OK);
    }
    for (int i = 0; i < EVENTS; i++) {
        snprintf(data, sizeof data, "%d", i);
        for (int n = 0; n < MANY; n++)
            expect_event(&l[n], data);
    }
    httpsrv_stop(s.srv);
    for (int n = 0; n < MANY; n++) {
        expect_complete(&l[n]);
        tune_out(&l[n]);
    }
    free(l);
    end();
    for (int n = 0; n < MANY; n++)
        CHECK_INT(noticed[n], 1);
}

TEST(five_hundred_clients) {
    raise_descriptor_limit(1100);
    for (way = ways; way < ways + 2; way++)
        many_clients();
}

// ---- the drain ----

// The streams end at once, each with its last chunk, and the connections close; the deadline is not waited for.
TEST_EACH_WAY(drain) {
    struct listener l[CLIENTS];
    serve_events(&(httpsrv_config){.timeout_ms.drain = -1});
    for (int n = 0; n < CLIENTS; n++) {
        if (n % 4 == 3)
            tune_in_http_1_0(&l[n], "news", n);
        else
            tune_in(&l[n], "news", n);
    }
    CHECK_INT(publish_text("news", "last"), HTTPSRV_OK);
    for (int n = 0; n < CLIENTS; n++)
        expect_event(&l[n], "last");
    const int64_t start = test_now();
    httpsrv_stop(s.srv);
    for (int n = 0; n < CLIENTS; n++) {
        expect_complete(&l[n]);
        EXPECT_EOF(&l[n].c);
        tune_out(&l[n]);
    }
    CHECK_INT(httpsrv_join(s.srv), HTTPSRV_OK);
    CHECK_CMP(test_now() - start, <, test_ms(1500)); // less than the 2 s that a client could hold it up
    const httpsrv_metrics m = metrics(&s);
    CHECK_INT(m.connections, 0);
    CHECK_INT(m.drain_cut, 0);
    CHECK_INT(m.drain_stuck, 0);
    for (int n = 0; n < CLIENTS; n++) {
        const httpsrv_event event = event_of("too late");
        NOTE("%s, number %d", way->name, n);
        CHECK_INT(LOAD(noticed[n]), 1);
        CHECK_INT(httpsrv_sse_send(s.srv, token_of(n), &event), HTTPSRV_GONE);
    }
    dispose(&s);
}

// A stream that begins while the server drains ends at once as well.
static void on_late_events(httpsrv_req *req, void *user) {
    (void)user;
    COUNT(s.arrived);
    while (!LOAD(s.gate))
        test_sleep(1);
    (void)httpsrv_sse_begin(req, "news");
    COUNT(s.left);
}

TEST(begun_during_the_drain) {
    way = &ways[2];
    begin(&(httpsrv_config){.timeout_ms.drain = 8000});
    route("GET /", on_late_events);
    go(&s);
    struct listener l = {.c = dial(s.port)};
    GET(&l.c, "/");
    WAIT(LOAD(s.arrived) == 1);
    httpsrv_stop(s.srv);
    test_sleep(50);
    STORE(s.gate, 1);
    hear_head(&l);
    expect_complete(&l);
    EXPECT_EOF(&l.c);
    tune_out(&l);
    end();
    CHECK_INT(s.last.drain_cut, 0);
}

// One that does not read is cut at the deadline.
TEST_EACH_WAY(drain_with_a_slow_client) {
    struct listener slow;
    const httpsrv_event event = filled(100 * KB);
    serve_events(&(httpsrv_config){.write_mark = {1024 * KB, 64 * KB}, .timeout_ms.drain = 300});
    tune_in_by(&slow, dial_unix(), "news", 0);
    for (int i = 0; i < 8; i++)
        CHECK_INT(httpsrv_sse_publish(s.srv, "news", &event), HTTPSRV_OK);
    test_sleep(20);
    const int64_t start = test_now();
    httpsrv_stop(s.srv);
    CHECK_INT(httpsrv_join(s.srv), HTTPSRV_OK);
    CHECK_CMP(test_now() - start, <, test_ms(5000));
    CHECK_INT(LOAD(noticed[0]), 1);
    tune_out(&slow);
    dispose(&s);
}

// Threads go on publishing while the server drains, and after it.
TEST_EACH_WAY(drain_while_events_flow) {
    pthread_t threads[SENDERS];
    struct listener l[CLIENTS];
    serve_events(&(httpsrv_config){.port = 0});
    for (int n = 0; n < CLIENTS; n++)
        tune_in(&l[n], "news", n);
    start_publishers(threads);
    for (int n = 0; n < CLIENTS; n++)
        expect_in_order(&l[n], 20);
    STORE(s.left, 1);
    httpsrv_stop(s.srv);
    for (int n = 0; n < CLIENTS; n++) {
        while (next_event(&l[n]))
            continue;
        CHECK(l[n].complete);
        tune_out(&l[n]);
    }
    CHECK_INT(httpsrv_join(s.srv), HTTPSRV_OK);
    join_publishers(threads);
    for (int n = 0; n < CLIENTS; n++)
        CHECK_INT(noticed[n], 1);
    dispose(&s);
}

// Freed without a drain before: nothing is left, and whoever asked is told.
TEST_EACH_WAY(freed_with_streams) {
    struct listener l[3];
    serve_events(&(httpsrv_config){.port = 0});
    for (int n = 0; n < 3; n++)
        tune_in(&l[n], "news", n);
    httpsrv_free(s.srv);
    CHECK_INT(s.bytes, 0);
    for (int n = 0; n < 3; n++) {
        CHECK_INT(noticed[n], 1);
        EXPECT_END(&l[n].c);
        tune_out(&l[n]);
    }
}

// ---- out of memory ----

// Who gets no memory for an event is told so, and then nobody gets it.
TEST_EACH_WAY(senders_without_memory) {
    struct listener l[CLIENTS];
    serve_events(&(httpsrv_config){.port = 0});
    for (int n = 0; n < CLIENTS; n++)
        tune_in(&l[n], "news", n);
    refusing = true;
    CHECK_INT(publish_text("news", "none"), HTTPSRV_NOMEM);
    CHECK_INT(send_text(0, "none"), HTTPSRV_NOMEM);
    refusing = false;
    for (int nth = 1; nth < 20; nth++) { // by one of several allocations
        own_countdown = nth;
        const httpsrv_result result = publish_text("news", "perhaps");
        CHECK_INT(result, own_countdown == 0 ? HTTPSRV_NOMEM : HTTPSRV_OK);
        own_countdown = 0;
        for (int n = 0; n < CLIENTS && result == HTTPSRV_OK; n++)
            expect_event(&l[n], "perhaps");
    }
    CHECK_INT(publish_text("news", "all"), HTTPSRV_OK);
    for (int n = 0; n < CLIENTS; n++)
        expect_event(&l[n], "all");
    refusing = true;
    const httpsrv_result result = httpsrv_sse_end(s.srv, token_of(0));
    refusing = false;
    CHECK(result == HTTPSRV_OK || result == HTTPSRV_NOMEM);
    if (result == HTTPSRV_NOMEM) CHECK_INT(httpsrv_sse_end(s.srv, token_of(0)), HTTPSRV_OK);
    expect_complete(&l[0]);
    for (int n = 0; n < CLIENTS; n++)
        tune_out(&l[n]);
    end();
}

// A handler whose stream cannot begin may say so.
static void on_events_or_503(httpsrv_req *req, void *user) {
    (void)user;
    const httpsrv_result watched = httpsrv_on_gone(req, count_notice, &noticed[0]);
    CHECK(watched == HTTPSRV_OK || watched == HTTPSRV_NOMEM);
    const httpsrv_token token = httpsrv_sse_begin(req, "news");
    if (token.id == 0) {
        const httpsrv_result result = httpsrv_reply(req, 503, "text/plain", HTTPSRV_STR("no memory\n"));
        CHECK(result == HTTPSRV_OK || result == HTTPSRV_NOMEM || result == HTTPSRV_GONE);
    }
    keep_token(&s, 0, token);
}

enum { FAULT_EVENTS = 30, FAULT_BYTES = 16 * KB };

// What the stream holds: the events that were accepted, from the first on, none left out and none twice, up to where it
// ends; all of them if nothing has failed.
static void check_accepted(struct listener *l, const int *accepted, int count) {
    int got = 0;
    const char *event;
    while ((event = next_event(l)) != NULL) {
        int number;
        CHECK_INT(sscanf(event, "data: %d", &number), 1);
        CHECK_CMP(got, <, count);
        CHECK_INT(number, accepted[got]);
        got++;
    }
    if (LOAD(failed) == 0) CHECK_INT(got, FAULT_EVENTS);
    if (l->complete) CHECK_INT(got, count);
}

static int talk_with_faults(int *accepted) {
    int count = 0;
    for (int i = 0; i < FAULT_EVENTS; i++) {
        static char data[FAULT_BYTES];
        memset(data, ' ', sizeof data);
        snprintf(data, sizeof data, "%d", i);
        const httpsrv_event event = {.data = {data, sizeof data}};
        const httpsrv_result result =
            i % 2 ? httpsrv_sse_publish(s.srv, "news", &event) : httpsrv_sse_send(s.srv, token_of(0), &event);
        CHECK(result == HTTPSRV_OK || result == HTTPSRV_NOMEM || result == HTTPSRV_GONE);
        if (result == HTTPSRV_OK) accepted[count++] = i;
        if (i % 5 == 0) test_sleep(1);
    }
    return count;
}

// Returns whether something has failed.
static bool run_with_fault(int nth) {
    struct listener l;
    int accepted[FAULT_EVENTS], count = 0;
    begin(&(httpsrv_config){.write_mark = {4096 * KB, 64 * KB}, .timeout_ms.events = 5});
    route("GET /", on_events_or_503);
    go(&s);
    NOTE("%s, allocation %d fails", way->name, nth);
    memset(&l, 0, sizeof l);
    l.c = dial_unix();
    STORE(countdown, nth);
    static const char request[] = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    net_send_some(&l.c, request, sizeof request - 1, net_deadline()); // the connection may have ended
    bool is_stream = false;
    if (net_receive(&l.c, net_deadline())) {
        net_read_head(&l.c);
        is_stream = l.c.status == 200;
        if (!is_stream) CHECK(l.c.status == 503 || l.c.status == 500);
    }
    if (is_stream) {
        WAIT(LOAD(s.arrived) == 1);
        l.chunked = true;
        take_text(&l);
        count = talk_with_faults(accepted);
        STORE(countdown, 0);
        (void)httpsrv_sse_end(s.srv, token_of(0));
        check_accepted(&l, accepted, count);
    }
    STORE(countdown, 0);
    CHECK(is_stream || LOAD(failed));
    tune_out(&l);
    check_alive(&s);
    end();
    return LOAD(failed) > 0;
}

TEST_EACH_WAY(allocations_fail) {
    int nth = 1;
    if (way->reactors > 1) return;
    while (run_with_fault(nth))
        nth += nth < 40 ? 1 : 7;
    CHECK_CMP(nth, >, 10);
}
