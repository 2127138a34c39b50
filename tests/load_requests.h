// The requests of load.c, each with what its answer has to be. Include it after load_server.h.

#ifndef TEST_LOAD_REQUESTS_H
#define TEST_LOAD_REQUESTS_H

#include "load_server.h"

enum {
    PIPELINED = 8,                                // requests in flight on a connection, at most
    BATCH_BYTES = PIPELINED * (MOST_BODY + 10000) // with room for heads and the frames of chunks
};

// A request, and what its answer has to be.
struct question {
    size_t kind;
    uint32_t id;
    int status;
    httpsrv_str body;
    const char *type; // Content-Type; NULL: any
    bool head;        // asked by HEAD
    bool watched;     // goes through the filter
    bool ends;        // the connection ends with the answer
    size_t waits_at;  // offset of the body that waits for a 100; 0: none does
    char content_range[80];
    char text[400]; // what `body` views, where it was made for this one
};

struct batch {
    struct question questions[PIPELINED];
    int count;
    char *text; // to be sent: BATCH_BYTES, NULL until there is something
    size_t len;
};

typedef void (*asking)(struct batch *b, struct question *q, uint64_t *random);

// ---- requests ----

static void put(struct batch *b, httpsrv_str bytes) {
    if (!b->text) b->text = (char *)malloc(BATCH_BYTES);
    CHECK(b->text != NULL && bytes.len <= BATCH_BYTES - b->len);
    memcpy(b->text + b->len, bytes.ptr, bytes.len);
    b->len += bytes.len;
}

__attribute__((format(printf, 2, 3))) static void putf(struct batch *b, const char *format, ...) {
    char text[1000];
    va_list args;
    va_start(args, format);
    const int len = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    put(b, (httpsrv_str){text, (size_t)len});
}

__attribute__((format(printf, 2, 3))) static void expect_text(struct question *q, const char *format, ...) {
    va_list args;
    va_start(args, format);
    const int len = vsnprintf(q->text, sizeof q->text, format, args);
    va_end(args);
    CHECK_CMP(len, <, sizeof q->text);
    q->body = (httpsrv_str){q->text, (size_t)len};
}

static const char *prefix_of(const struct question *q) {
    return q->watched ? "/w" : "";
}

// The head of a request but for the empty line behind it.
__attribute__((format(printf, 4, 5))) static void put_head(struct batch *b, const struct question *q,
                                                           const char *method, const char *format, ...) {
    char target[300];
    va_list args;
    va_start(args, format);
    vsnprintf(target, sizeof target, format, args);
    va_end(args);
    putf(b, "%s %s%s%cid=%" PRIu32 " HTTP/1.1\r\nHost: a\r\n", method, prefix_of(q), target,
         strchr(target, '?') ? '&' : '?', q->id);
}

static const char *draw_pool(uint64_t *random) {
    return draw(random, 2) ? "/pool" : "";
}

static const char *draw_get(struct question *q, uint64_t *random) {
    q->head = draw(random, 8) == 0;
    return q->head ? "HEAD" : "GET";
}

static void ask_hello(struct batch *b, struct question *q, uint64_t *random) {
    q->watched = false;
    q->type = "text/plain";
    expect_text(q, "%s", HELLO);
    putf(b, "%s /hello HTTP/1.1\r\nHost: a\r\n\r\n", draw_get(q, random));
}

static void ask_dump(struct batch *b, struct question *q, uint64_t *random) {
    const uint32_t n = draw(random, 100000);
    const char *prefix = prefix_of(q);
    put_head(b, q, "GET", "/dump/A%%41%u/x/../%u?q=%%26+%u", n, n + 1, n + 2);
    putf(b, "X-Test: %u\r\n\r\n", n + 3);
    expect_text(q,
                "GET %s/dump/A%%41%u/x/../%u?q=%%26+%u&id=%" PRIu32
                " %s/dump/AA%u/%u host=a a=AA%u rest=%u q=& %u x=%u body=",
                prefix, n, n + 1, n + 2, q->id, prefix, n, n + 1, n, n + 1, n + 2, n + 3);
}

static void ask_number_at(struct batch *b, struct question *q, const char *pool, const char *path) {
    put_head(b, q, "GET", "%s%s", pool, path);
    putf(b, "\r\n");
    expect_text(q, "number %" PRIu32, q->id);
}

static void ask_inline(struct batch *b, struct question *q, uint64_t *random) {
    (void)random;
    ask_number_at(b, q, "", "/number");
}

static void ask_pool(struct batch *b, struct question *q, uint64_t *random) {
    (void)random;
    ask_number_at(b, q, "/pool", "/number");
}

static void ask_later(struct batch *b, struct question *q, uint64_t *random) {
    ask_number_at(b, q, draw_pool(random), "/later");
}

static void ask_slice_at(struct batch *b, struct question *q, uint64_t *random, const char *path) {
    const char *method = draw_get(q, random);
    q->body = draw_slice(random);
    put_head(b, q, method, "%s/%s/%td/%zu", draw_pool(random), path, q->body.ptr - blob, q->body.len);
}

static void ask_slice(struct batch *b, struct question *q, uint64_t *random) {
    q->type = "application/octet-stream";
    ask_slice_at(b, q, random, "slice");
    putf(b, "\r\n");
}

static void ask_lend(struct batch *b, struct question *q, uint64_t *random) {
    ask_slice_at(b, q, random, "lend");
    putf(b, "\r\n");
}

static void ask_pieces_at(struct batch *b, struct question *q, uint64_t *random, const char *how) {
    q->body = draw_slice(random);
    put_head(b, q, "GET", "%s/pieces/%s/%td/%zu", draw_pool(random), how, q->body.ptr - blob, q->body.len);
}

static void ask_pieces(struct batch *b, struct question *q, uint64_t *random) {
    ask_pieces_at(b, q, random, draw(random, 2) ? "known" : "unknown");
    putf(b, "\r\n");
}

static void ask_range(struct batch *b, struct question *q, uint64_t *random) {
    const size_t size = q->body.len, first = draw(random, (uint32_t)size),
                 last = first + draw(random, (uint32_t)(size - first));
    q->status = 206;
    q->body = slice(first, last - first + 1);
    snprintf(q->content_range, sizeof q->content_range, "bytes %zu-%zu/%zu", first, last, size);
    putf(b, "Range: bytes=%zu-%zu\r\n", first, last);
}

static void ask_file(struct batch *b, struct question *q, uint64_t *random) {
    const struct entry *e = &tree[draw(random, 16) == 0 ? 2 : draw(random, 2)];
    const bool ranged = draw(random, 2) == 0;
    q->body = slice(0, (size_t)e->size); // the tree's content is that of the blob
    put_head(b, q, ranged ? "GET" : draw_get(q, random), "/files/%s", e->path);
    if (ranged) ask_range(b, q, random);
    putf(b, "\r\n");
}

// ---- requests with bodies ----

static void put_chunks(struct batch *b, httpsrv_str body, uint64_t *random) {
    for (size_t at = 0, n; at < body.len; at += n) {
        n = 1 + draw(random, 20000);
        if (n > body.len - at) n = body.len - at;
        putf(b, "%zx\r\n", n);
        put(b, (httpsrv_str){body.ptr + at, n});
        putf(b, "\r\n");
    }
    putf(b, draw(random, 2) ? "0\r\n\r\n" : "0\r\nX-End: here\r\n\r\n");
}

// What follows the head, the empty line included.
static void put_body(struct batch *b, struct question *q, httpsrv_str body, bool waits, uint64_t *random) {
    const bool chunked = draw(random, 2) == 0;
    if (waits) putf(b, "Expect: 100-continue\r\n");
    if (chunked)
        putf(b, "Transfer-Encoding: chunked\r\n\r\n");
    else
        putf(b, "Content-Length: %zu\r\n\r\n", body.len);
    if (waits) q->waits_at = b->len;
    if (chunked)
        put_chunks(b, body, random);
    else
        put(b, body);
}

static void ask_echo_of(struct batch *b, struct question *q, httpsrv_str body, bool waits, uint64_t *random) {
    q->type = "text/x-load";
    q->body = body;
    put_head(b, q, "POST", "%s/echo", draw_pool(random));
    putf(b, "Content-Type: text/x-load\r\n");
    put_body(b, q, body, waits, random);
}

static void ask_digest_of(struct batch *b, struct question *q, const char *path, httpsrv_str body, bool waits,
                          uint64_t *random) {
    expect_text(q, "%zu bytes, %" PRIx64 ", number %" PRIu32, body.len, hash(0, body), q->id);
    put_head(b, q, "POST", "%s", path);
    put_body(b, q, body, waits, random);
}

static void ask_echo(struct batch *b, struct question *q, uint64_t *random) {
    ask_echo_of(b, q, draw_slice(random), false, random);
}

static void ask_upload(struct batch *b, struct question *q, uint64_t *random) {
    ask_digest_of(b, q, "/upload", draw_slice(random), false, random);
}

static void ask_read(struct batch *b, struct question *q, uint64_t *random) {
    ask_digest_of(b, q, "/read", draw_slice(random), false, random);
}

static void ask_to_continue(struct batch *b, struct question *q, uint64_t *random) {
    const httpsrv_str body = slice(draw(random, 1000), 1 + draw_size(random));
    if (draw(random, 2))
        ask_echo_of(b, q, body, true, random);
    else
        ask_digest_of(b, q, draw(random, 2) ? "/upload" : "/read", body, true, random);
}

// ---- requests that are refused, or the last of their connections ----

static void expect_refusal(struct question *q, int status) {
    q->status = status;
    expect_text(q, "%d %s\n", status, httpsrv_status_text(status));
}

static void ask_nowhere(struct batch *b, struct question *q, uint64_t *random) {
    put_head(b, q, "GET", "/nowhere/%u", draw(random, 1000));
    putf(b, "\r\n");
    expect_refusal(q, 404);
}

static void ask_wrongly(struct batch *b, struct question *q, uint64_t *random) {
    put_head(b, q, "DELETE", "%s/number", draw_pool(random));
    putf(b, "\r\n");
    expect_refusal(q, 405);
}

static void ask_without_host(struct batch *b, struct question *q, uint64_t *random) {
    (void)random;
    q->watched = false;
    q->ends = true;
    putf(b, "GET /number?id=%" PRIu32 " HTTP/1.1\r\n\r\n", q->id);
    expect_refusal(q, 400);
}

static void ask_to_close(struct batch *b, struct question *q, uint64_t *random) {
    q->ends = true;
    ask_slice_at(b, q, random, "slice");
    putf(b, "Connection: close\r\n\r\n");
}

static void ask_http_1_0(struct batch *b, struct question *q, uint64_t *random) {
    q->ends = true;
    ask_pieces_at(b, q, random, draw(random, 2) ? "known" : "unknown");
    b->text[b->len - strlen("1\r\nHost: a\r\n")] = '0';
    putf(b, "\r\n");
}

// Those that a client may leave are answered with 2xx, if at all. The rarer ones come with one in eight batches, last.
static const struct {
    const char *name;
    asking ask;
    bool may_leave, rare;
} kinds[] = {{"again the same", ask_hello, true, false},
             {"parameters, queries", ask_dump, true, false},
             {"inline", ask_inline, true, false},
             {"pool", ask_pool, true, false},
             {"copied bodies", ask_slice, true, false},
             {"borrowed bodies", ask_lend, true, false},
             {"deferred", ask_later, true, false},
             {"in pieces", ask_pieces, true, false},
             {"files", ask_file, true, false},
             {"uploads, buffered", ask_echo, true, false},
             {"uploads, on_body", ask_upload, true, false},
             {"uploads, read", ask_read, true, false},
             {"404", ask_nowhere, false, false},
             {"405", ask_wrongly, false, false},
             {"400", ask_without_host, false, true},
             {"100-continue", ask_to_continue, true, true},
             {"Connection: close", ask_to_close, true, true},
             {"HTTP/1.0", ask_http_1_0, true, true}};

static void add_question(struct batch *b, size_t kind, uint64_t *random) {
    struct question *q = &b->questions[b->count++];
    memset(q, 0, sizeof *q);
    q->kind = kind;
    q->id = __atomic_add_fetch(&last_id, 1, __ATOMIC_RELAXED);
    q->status = 200;
    q->watched = draw(random, 2) == 0;
    kinds[kind].ask(b, q, random);
}

static void clear(struct batch *b) {
    b->count = 0;
    b->len = 0;
}

static size_t draw_kind(uint64_t *random, bool rare, bool leaves) {
    for (;;) {
        const size_t kind = draw(random, ROWS(kinds));
        if (kinds[kind].rare == rare && (kinds[kind].may_leave || !leaves)) return kind;
    }
}

static void fill(struct batch *b, uint64_t *random, bool leaves) {
    const uint32_t count = 1 + draw(random, PIPELINED - 1);
    clear(b);
    for (uint32_t i = 0; i < count; i++)
        add_question(b, draw_kind(random, false, leaves), random);
    if (draw(random, 8) == 0) add_question(b, draw_kind(random, true, leaves), random);
}

#endif // TEST_LOAD_REQUESTS_H
