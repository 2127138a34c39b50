// The tour: every feature at a path of its own, with the flags, signals and limits that a service has.
//
//     cc -O2 -I. examples/showcase.c -pthread -o showcase && ./showcase    (--help lists the flags)
//
//     curl http://localhost:8080/                                    the index, for a browser
//     curl http://localhost:8080/hello/World
//     curl -d '{"a":1}' -H 'Content-Type: application/json' http://localhost:8080/echo
//     curl -i http://localhost:8080/sleep/2000                       and meanwhile, elsewhere:
//     curl -i http://localhost:8080/pool/plaintext                   answers at once
//     curl -T big.iso http://localhost:8080/echo | cmp - big.iso     in fixed memory, both ways
//     curl -F file=@big.iso http://localhost:8080/upload             likewise
//     curl -N http://localhost:8080/events
//
// SIGTERM and Ctrl-C drain: /readyz says 503, for half a second (--grace) also to new connections, what was begun is
// finished. A second signal cuts.

#define HTTPSRV_IMPLEMENTATION
#include "httpsrv.h"
#include "serve.h"
#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum {
    MAX_SLEEP_MS = 10000,
    MAX_GRACE_MS = 3600000,
    STREAM_BLOCK = 1 << 18, // bytes: few large sends cost least
    MAX_REPORT = 1 << 20,   // bytes of what /upload answers
    UPLOAD_THREADS = 4,     // they wait for clients
    SLEEP_THREADS = 16      // they wait and do not compute, so more of them than CPUs make sense
};

typedef struct options {
    const char *host;
    int port;
    int reactors;
    int acceptors;
    bool defer_accept;
    bool steer;
    int pool_threads; // -1: as many as each pool has by default; 0: no thread beside the reactors
    int queue;
    int grace;        // ms
    int64_t max_body; // -1: not said
    const char *root; // of /files; NULL: there is no such route
    bool quiet;
} options;

static httpsrv *server;

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool over; // under the lock
} ticker = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

// ---- the index ----

static const char index_page[] =
    "<!doctype html>\n"
    "<html lang=\"en\">\n"
    "<meta charset=\"utf-8\">\n"
    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
    "<meta name=\"color-scheme\" content=\"light dark\">\n"
    "<link rel=\"icon\" href=\"data:,\">\n"
    "<title>httpsrv.h</title>\n"
    "<style>\n"
    ":root { color-scheme: light dark; --text: #1c2024; --back: #fcfcfd; --soft: #60646c; --line: #d9d9e0;\n"
    "        --link: #0b5cad }\n"
    "@media (prefers-color-scheme: dark) {\n"
    "  :root { --text: #edeef0; --back: #111113; --soft: #b0b4ba; --line: #43484e; --link: #70b8ff } }\n"
    "body { font: 1rem/1.5 system-ui, sans-serif; color: var(--text); background: var(--back);\n"
    "       max-width: 40rem; margin: 0 auto; padding: 1rem }\n"
    "a { color: var(--link) }\n"
    "dt { margin-top: 1rem; font-family: ui-monospace, monospace; overflow-wrap: anywhere }\n"
    "dt a { display: inline-block; padding: .25rem 0 }\n"
    "dd { margin: 0; color: var(--soft) }\n"
    "textarea, button { font: inherit; color: inherit; background: transparent; border: 1px solid "
    "var(--line);\n"
    "                   border-radius: .375rem; padding: .5rem .75rem }\n"
    "textarea { box-sizing: border-box; width: 100%; margin: .5rem 0 }\n"
    "</style>\n"
    "<h1>httpsrv.h</h1>\n"
    "<p>An HTTP/1.1 server in one C header. Each link below is one feature.</p>\n"
    "<dl>\n"
    "<dt><a href=\"/plaintext\">/plaintext</a><dd>Answered on the reactor, inline.\n"
    "<dt><a href=\"/json\">/json</a><dd>The same as JSON.\n"
    "<dt><a href=\"/pool/plaintext\">/pool/plaintext</a><dd>Answered by a thread of a pool.\n"
    "<dt><a href=\"/hello/World\">/hello/:name</a><dd>A parameter in the path.\n"
    "<dt><a href=\"/sleep/1000\">/sleep/:ms</a><dd>A handler that blocks, at most 10 seconds, in a pool of "
    "its own:\n"
    "nothing else waits for it.\n"
    "<dt><a href=\"/deferred/1000\">/deferred/:ms</a><dd>An answer that another thread gives so much later, while no "
    "thread waits.\n"
    "<dt><a href=\"/healthz\">/healthz</a><dd>Liveness, for an orchestrator.\n"
    "<dt><a href=\"/readyz\">/readyz</a><dd>Readiness: 503 once the server drains.\n"
    "<dt><a href=\"/no/such/page\">/no/such/page</a><dd>What an unknown path gets.\n"
    "<dt><a href=\"/stream/1000000\">/stream/:bytes</a><dd>Made as fast as it is taken, in chunks and in fixed "
    "memory.\n"
    "<dt><a href=\"/events\">/events</a><dd>Server-sent events, one a second: <output>none yet</output>\n"
    "<script>new EventSource('/events').onmessage = e => document.querySelector('output').value = e.data</script>\n"
    "<dt><a href=\"/files/\">/files/*</a><dd>The directory that <code>--root</code> names, if it does.\n"
    "<dt>/upload<dd>A form with a file, taken apart as it comes: what was in it.\n"
    "<form method=\"post\" action=\"/upload\" enctype=\"multipart/form-data\">\n"
    "<p><input type=\"file\" name=\"file\" multiple aria-label=\"Files\"> <button>Upload</button>\n"
    "</form>\n"
    "<dt>/echo<dd>The body comes back while it is sent, whatever the method, type and size.\n"
    "<form method=\"post\" action=\"/echo\" enctype=\"text/plain\">\n"
    "<label>Text <textarea name=\"text\" rows=\"2\">Hello, World!</textarea></label>\n"
    "<button>Send</button>\n"
    "</form>\n"
    "</dl>\n";

static void show_index(httpsrv_req *req, void *user) {
    (void)user;
    httpsrv_reply(req, 200, "text/html; charset=utf-8", (httpsrv_str){index_page, sizeof index_page - 1});
}

// ---- routes ----

static void plaintext(httpsrv_req *req, void *user) {
    (void)user;
    httpsrv_reply(req, 200, "text/plain", HTTPSRV_STR("Hello, World!"));
}

static void json(httpsrv_req *req, void *user) {
    (void)user;
    httpsrv_reply(req, 200, "application/json", HTTPSRV_STR("{\"message\":\"Hello, World!\"}"));
}

static void hello(httpsrv_req *req, void *user) {
    (void)user;
    httpsrv_str name = httpsrv_param(req, "name");
    httpsrv_replyf(req, 200, "text/plain; charset=utf-8", "Hello, %.*s!\n", HTTPSRV_FMT(name));
}

// ---- /echo and /discard: bodies as they come ----

// The answer is as long as the request, or in chunks if that is.
static void begin_echo(httpsrv_req *req, void *user) {
    (void)user;
    const httpsrv_head *head = httpsrv_request_head(req);
    httpsrv_str type = head->content_type;
    if (!type.ptr || httpsrv_set(req, "Content-Type", type) != HTTPSRV_OK)
        httpsrv_set(req, "Content-Type", HTTPSRV_STR("application/octet-stream"));
    int64_t none = head->chunked ? -1 : 0;
    httpsrv_begin(req, 200, NULL, head->content_length >= 0 ? head->content_length : none);
}

// The client is not read while it does not take what came back, so that there is always room.
static void echo(httpsrv_req *req, httpsrv_str piece, bool last, void *user) {
    (void)user;
    httpsrv_write(req, piece);
    if (last) httpsrv_end(req);
}

static void begin_discard(httpsrv_req *req, void *user) {
    (void)user;
    int64_t *bytes = httpsrv_alloc(req, sizeof *bytes);
    if (bytes) *bytes = 0;
    httpsrv_attach(req, bytes);
}

static void discard(httpsrv_req *req, httpsrv_str piece, bool last, void *user) {
    (void)user;
    int64_t *bytes = httpsrv_attached(req);
    if (!bytes) return;
    *bytes += (int64_t)piece.len;
    if (last) httpsrv_replyf(req, 200, "text/plain", "%lld bytes\n", (long long)*bytes);
}

// ---- /stream: generated as fast as it is taken ----

static char stream_block[STREAM_BLOCK];

static void fill_stream_block(void) {
    static const char line[] = "The quick brown fox jumps over the lazy dog, and over and over.\n";
    for (size_t i = 0; i < sizeof stream_block; i++)
        stream_block[i] = line[i % (sizeof line - 1)];
}

static void go_on_streaming(httpsrv_req *req, void *user) {
    (void)user;
    int64_t *left = httpsrv_attached(req);
    while (*left > 0) {
        size_t len = *left < STREAM_BLOCK ? (size_t)*left : STREAM_BLOCK;
        if (httpsrv_write(req, (httpsrv_str){stream_block, len}) != HTTPSRV_OK) return;
        *left -= (int64_t)len;
    }
    httpsrv_end(req);
}

static void stream(httpsrv_req *req, void *user) {
    (void)user;
    int64_t bytes = httpsrv_number(httpsrv_param(req, "bytes"), INT64_MAX), *left = httpsrv_alloc(req, sizeof *left);
    if (bytes < 0 || !left) {
        httpsrv_reply(req, 400, "text/plain", HTTPSRV_STR("a number of bytes, please\n"));
        return;
    }
    *left = bytes;
    httpsrv_attach(req, left);
    httpsrv_on_drain(req, go_on_streaming, NULL);
    httpsrv_begin(req, 200, "text/plain", -1);
}

// ---- /upload: a form of any size in fixed memory ----

// What is told of the parts, as JSON. Grows up to MAX_REPORT bytes.
typedef struct report {
    char *text;
    size_t len, cap;
    uint32_t crc;
    int parts;
} report;

static bool add(report *to, const char *text, size_t len) {
    if (len > MAX_REPORT - to->len) return false;
    if (to->len + len > to->cap) {
        size_t cap = (to->len + len) * 2;
        char *grown = realloc(to->text, cap);
        if (!grown) return false;
        to->text = grown;
        to->cap = cap;
    }
    memcpy(to->text + to->len, text, len);
    to->len += len;
    return true;
}

// Bytes of the UTF-8 character that begins at `at`, of which `left` > 0 are there; 0 if none does (RFC 3629 section 4).
static size_t utf8_length(const unsigned char *at, size_t left) {
    const unsigned char c = at[0];
    const size_t len = c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
    if (len == 1) return 1;
    if (c < 0xc2 || c > 0xf4 || left < len) return 0;
    // Narrower bounds of the second byte leave out overlong forms, surrogates and what is above U+10FFFF.
    const unsigned char least = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80;
    const unsigned char most = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;
    if (at[1] < least || at[1] > most) return 0;
    for (size_t i = 2; i < len; i++)
        if (at[i] < 0x80 || at[i] > 0xbf) return 0;
    return len;
}

// RFC 8259 section 7.
static bool add_ascii(report *to, char c) {
    if (c != '"' && c != '\\' && c >= ' ') return add(to, &c, 1);
    char escape[8];
    return add(to, escape, (size_t)snprintf(escape, sizeof escape, "\\u%04x", (unsigned)c));
}

static bool add_character(report *to, const char *at, size_t len) {
    if (len == 0) return add(to, "\xef\xbf\xbd", 3);
    return len == 1 ? add_ascii(to, *at) : add(to, at, len);
}

// JSON is UTF-8 (RFC 8259 section 8.1), and names are any bytes: each that is no part of a character becomes U+FFFD.
static bool add_string(report *to, httpsrv_str text) {
    if (!text.ptr) return add(to, "null", 4);
    bool ok = add(to, "\"", 1);
    for (size_t i = 0, len; i < text.len && ok; i += len > 0 ? len : 1) {
        len = utf8_length((const unsigned char *)text.ptr + i, text.len - i);
        ok = add_character(to, text.ptr + i, len);
    }
    return ok && add(to, "\"", 1);
}

static bool add_part(report *to, const httpsrv_part *part) {
    char numbers[80];
    int len = snprintf(numbers, sizeof numbers, ",\"size\":%lld,\"crc32\":\"%08x\"}", (long long)part->size, to->crc);
    bool ok = add(to, ",\n", to->parts++ > 0 ? 2 : 0) && add(to, "{\"name\":", 8) && add_string(to, part->name);
    ok = ok && add(to, ",\"filename\":", 12) && add_string(to, part->filename);
    ok = ok && add(to, ",\"type\":", 8) && add_string(to, part->type);
    return ok && add(to, numbers, (size_t)len);
}

// The CRC of zip and PNG, four bits at a time.
static uint32_t crc32_of(uint32_t crc, httpsrv_str data) {
    static const uint32_t table[16] = {0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4,
                                       0x4db26158, 0x5005713c, 0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c,
                                       0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c};
    crc = ~crc;
    for (size_t i = 0; i < data.len; i++) {
        crc ^= (unsigned char)data.ptr[i];
        crc = crc >> 4 ^ table[crc & 15];
        crc = crc >> 4 ^ table[crc & 15];
    }
    return ~crc;
}

static httpsrv_result report_part(const httpsrv_part *part, httpsrv_part_step step, httpsrv_str data, void *user) {
    report *to = user;
    if (step == HTTPSRV_PART_BEGIN) to->crc = 0;
    if (step == HTTPSRV_PART_DATA) to->crc = crc32_of(to->crc, data);
    if (step == HTTPSRV_PART_END && !add_part(to, part)) return HTTPSRV_NOMEM;
    return HTTPSRV_OK;
}

static void upload(httpsrv_req *req, void *user) {
    (void)user;
    report out = {0};
    httpsrv_form_config form = {.parts = 1000, .on_part = report_part, .user = &out};
    bool begun = add(&out, "[", 1);
    httpsrv_result result = begun ? httpsrv_read_form(req, &form, NULL) : HTTPSRV_NOMEM;
    if (result == HTTPSRV_OK && add(&out, "]\n", 2))
        httpsrv_reply(req, 200, "application/json", (httpsrv_str){out.text, out.len});
    else if (result == HTTPSRV_UNSUPPORTED)
        httpsrv_reply(req, 415, "text/plain", HTTPSRV_STR("a form, please\n"));
    else if (result == HTTPSRV_TOOBIG)
        httpsrv_reply(req, 413, "text/plain", HTTPSRV_STR("too many parts, or a field too long\n"));
    else if (result == HTTPSRV_SYNTAX)
        httpsrv_reply(req, 400, "text/plain", HTTPSRV_STR("this form is malformed\n"));
    else
        httpsrv_reply(req, 503, "text/plain", HTTPSRV_STR("out of memory\n"));
    free(out.text);
}

// ---- /events: a tick a second to all that listen ----

static void events(httpsrv_req *req, void *user) {
    (void)user;
    httpsrv_sse_begin(req, "ticks");
}

// Ticks until the flag is set.
static void *run_ticker(void *arg) {
    (void)arg;
    for (unsigned tick = 1;; tick++) {
        struct timespec due;
        char id[16], text[64];
        clock_gettime(CLOCK_REALTIME, &due);
        int text_len = snprintf(text, sizeof text, "tick %u", tick), id_len = snprintf(id, sizeof id, "%u", tick);
        httpsrv_sse_publish(server, "ticks",
                            &(httpsrv_event){.data = {text, (size_t)text_len}, .id = {id, (size_t)id_len}});
        due.tv_sec++;
        pthread_mutex_lock(&ticker.lock);
        while (!ticker.over && pthread_cond_timedwait(&ticker.changed, &ticker.lock, &due) == 0) {}
        bool over = ticker.over;
        pthread_mutex_unlock(&ticker.lock);
        if (over) return NULL;
    }
}

static void end_ticker(pthread_t thread) {
    pthread_mutex_lock(&ticker.lock);
    ticker.over = true;
    pthread_cond_signal(&ticker.changed);
    pthread_mutex_unlock(&ticker.lock);
    pthread_join(thread, NULL);
}

static void sleep_route(httpsrv_req *req, void *user) {
    (void)user;
    int ms = (int)httpsrv_number(httpsrv_param(req, "ms"), MAX_SLEEP_MS);
    if (ms < 0) {
        httpsrv_reply(req, 400, "text/plain", HTTPSRV_STR("milliseconds from 0 to 10000, please\n"));
        return;
    }
    struct timespec left = {ms / 1000, (ms % 1000) * 1000000L};
    while (nanosleep(&left, &left) != 0 && errno == EINTR) {}
    httpsrv_replyf(req, 200, "text/plain", "slept %d ms\n", ms);
}

// ---- /deferred: a clock thread answers ----

typedef struct wait_entry {
    struct wait_entry *next; // sorted by time
    struct timespec due;
    httpsrv_token token;
    int ms;
} wait_entry;

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    wait_entry *first; // under the lock
    bool over;         // likewise
} waits = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static bool is_before(struct timespec a, struct timespec b) {
    return a.tv_sec != b.tv_sec ? a.tv_sec < b.tv_sec : a.tv_nsec < b.tv_nsec;
}

static void add_wait(wait_entry *entry) {
    pthread_mutex_lock(&waits.lock);
    wait_entry **link = &waits.first;
    while (*link && !is_before(entry->due, (*link)->due))
        link = &(*link)->next;
    entry->next = *link;
    *link = entry;
    pthread_cond_signal(&waits.changed);
    pthread_mutex_unlock(&waits.lock);
}

// The next one that is due; NULL at the end of the program.
static wait_entry *take_due(void) {
    wait_entry *entry = NULL;
    pthread_mutex_lock(&waits.lock);
    while (!waits.over && !entry) {
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        if (!waits.first) {
            pthread_cond_wait(&waits.changed, &waits.lock);
        } else if (is_before(now, waits.first->due)) {
            struct timespec due = waits.first->due;
            pthread_cond_timedwait(&waits.changed, &waits.lock, &due);
        } else {
            entry = waits.first;
            waits.first = entry->next;
        }
    }
    pthread_mutex_unlock(&waits.lock);
    return entry;
}

static void *run_clock(void *arg) {
    (void)arg;
    for (wait_entry *entry = take_due(); entry; entry = take_due()) {
        char text[64];
        int len = snprintf(text, sizeof text, "deferred for %d ms\n", entry->ms);
        httpsrv_finish(server, entry->token,
                       &(httpsrv_answer){.status = 200, .type = "text/plain", .body = {text, (size_t)len}});
        free(entry);
    }
    return NULL;
}

static void end_clock(pthread_t clock) {
    pthread_mutex_lock(&waits.lock);
    waits.over = true;
    pthread_cond_signal(&waits.changed);
    pthread_mutex_unlock(&waits.lock);
    pthread_join(clock, NULL);
    while (waits.first) {
        wait_entry *entry = waits.first;
        waits.first = entry->next;
        free(entry);
    }
}

static void deferred(httpsrv_req *req, void *user) {
    (void)user;
    int ms = (int)httpsrv_number(httpsrv_param(req, "ms"), MAX_SLEEP_MS);
    wait_entry *entry = ms >= 0 ? malloc(sizeof *entry) : NULL;
    if (!entry) {
        httpsrv_reply(req, 400, "text/plain", HTTPSRV_STR("milliseconds from 0 to 10000, please\n"));
        return;
    }
    entry->ms = ms;
    clock_gettime(CLOCK_REALTIME, &entry->due);
    long nsec = entry->due.tv_nsec + ms % 1000 * 1000000L;
    entry->due.tv_sec += ms / 1000 + nsec / 1000000000L;
    entry->due.tv_nsec = nsec % 1000000000L;
    entry->token = httpsrv_defer(req);
    add_wait(entry);
}

// ---- probes ----

static void healthz(httpsrv_req *req, void *user) {
    (void)user;
    httpsrv_reply(req, 200, "text/plain", HTTPSRV_STR("ok\n"));
}

static void readyz(httpsrv_req *req, void *user) {
    (void)user;
    bool draining = httpsrv_draining(httpsrv_server(req));
    httpsrv_reply(req, draining ? 503 : 200, "text/plain",
                  draining ? HTTPSRV_STR("draining\n") : HTTPSRV_STR("ready\n"));
}

static void add_routes(httpsrv *srv) {
    httpsrv_on(srv, "GET /", show_index, NULL);
    httpsrv_on(srv, "GET /plaintext", plaintext, NULL);
    httpsrv_on(srv, "GET /json", json, NULL);
    httpsrv_on(srv, "GET /hello/:name", hello, NULL);
    httpsrv_on(srv, "GET /stream/:bytes", stream, NULL);
    httpsrv_on(srv, "GET /healthz", healthz, NULL);
    httpsrv_on(srv, "GET /readyz", readyz, NULL);
}

// For which a thread beside the reactors is needed.
static void add_thread_routes(httpsrv *srv, int64_t max_body) {
    httpsrv_on(srv, "GET /events", events, NULL);
    httpsrv_on(srv, "GET /deferred/:ms", deferred, NULL);
    httpsrv_route(srv, &(httpsrv_route_config){.pattern = "GET /pool/plaintext", .handler = plaintext, .pool = "work"});
    httpsrv_route(srv, &(httpsrv_route_config){.pattern = "GET /sleep/:ms", .handler = sleep_route, .pool = "sleep"});
    httpsrv_route(
        srv, &(httpsrv_route_config){
                 .pattern = "POST /upload", .handler = upload, .pool = "upload", .stream = true, .max_body = max_body});
}

// Bodies that are never in memory as a whole may be of any size, unless --max-body says otherwise.
static void add_body_routes(httpsrv *srv, int64_t max_body) {
    httpsrv_route_config routes[] = {
        {.pattern = "* /echo", .handler = begin_echo, .on_body = echo},
        {.pattern = "POST /discard", .handler = begin_discard, .on_body = discard},
        {.pattern = "PUT /discard", .handler = begin_discard, .on_body = discard},
    };
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++) {
        routes[i].max_body = max_body;
        httpsrv_route(srv, &routes[i]);
    }
}

// ---- flags ----

static void usage(FILE *out) {
    fprintf(out, "usage: showcase [flags]\n"
                 "  --host ADDRESS      address to listen on (all)\n"
                 "  --port N            port, 0 for a free one (8080)\n"
                 "  --reactors N        event loops, 0 for one per CPU (1)\n"
                 "  --acceptors N       threads that accept for the reactors, 0: each accepts for itself (0)\n"
                 "  --defer-accept      take connections in when their first bytes are here\n"
                 "  --steer             bind threads to CPUs, and serve connections where they come in\n"
                 "  --pool-threads N    threads of each pool (work: one per CPU, sleep: 16, upload: 4),\n"
                 "                      0: none, nor any other beside the reactors, and no route that needs one\n"
                 "  --queue N           requests that may wait for each pool (1024)\n"
                 "  --grace MS          milliseconds in which /readyz says 503 before the listeners close (500)\n"
                 "  --max-body BYTES    largest request body (any that is streamed, else 1048576)\n"
                 "  --root DIR          directory that /files shows (none)\n"
                 "  --quiet             no log on stderr\n"
                 "  --help              this text\n");
}

// The number in `text`. Anything else, or a number out of range, ends the program.
static int64_t parse_number(const char *flag, const char *text, int64_t min, int64_t max) {
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (errno == 0 && end != text && *end == '\0' && value >= min && value <= max) return value;
    fprintf(stderr, "showcase: --%s wants a number from %lld to %lld\n", flag, (long long)min, (long long)max);
    usage(stderr);
    exit(2);
}

static const struct option flags[] = {
    {"host", required_argument, NULL, 'h'},     {"port", required_argument, NULL, 'p'},
    {"reactors", required_argument, NULL, 'r'}, {"acceptors", required_argument, NULL, 'a'},
    {"defer-accept", no_argument, NULL, 'd'},   {"pool-threads", required_argument, NULL, 't'},
    {"queue", required_argument, NULL, 'u'},    {"grace", required_argument, NULL, 'g'},
    {"max-body", required_argument, NULL, 'b'}, {"root", required_argument, NULL, 'R'},
    {"quiet", no_argument, NULL, 'q'},          {"help", no_argument, NULL, 'H'},
    {"steer", no_argument, NULL, 's'},          {NULL, 0, NULL, 0},
};

static void set_option(options *to, int flag, const char *name, const char *value) {
    switch (flag) {
    case 'h': to->host = value; break;
    case 'p': to->port = (int)parse_number(name, value, 0, 65535); break;
    case 'r': to->reactors = (int)parse_number(name, value, 0, 1024); break;
    case 'a': to->acceptors = (int)parse_number(name, value, 0, 64); break;
    case 'd': to->defer_accept = true; break;
    case 's': to->steer = true; break;
    case 't': to->pool_threads = (int)parse_number(name, value, 0, 1024); break;
    case 'u': to->queue = (int)parse_number(name, value, 1, 1 << 20); break;
    case 'g': to->grace = (int)parse_number(name, value, 0, MAX_GRACE_MS); break;
    case 'b': to->max_body = parse_number(name, value, 0, INT64_MAX); break;
    case 'R': to->root = value; break;
    case 'q': to->quiet = true; break;
    case 'H': usage(stdout); exit(0);
    default: usage(stderr); exit(2);
    }
}

static options parse_flags(int argc, char **argv) {
    options to = {.port = 8080, .reactors = 1, .pool_threads = -1, .grace = 500, .max_body = -1};
    int flag;
    int index = 0;
    while ((flag = getopt_long(argc, argv, "", flags, &index)) != -1)
        set_option(&to, flag, flags[index].name, optarg);
    if (optind < argc) {
        fprintf(stderr, "showcase: what is \"%s\"?\n", argv[optind]);
        usage(stderr);
        exit(2);
    }
    return to;
}

// ---- the program ----

// Each connection is a descriptor, and the soft limit is often no more than 1024.
static void raise_descriptor_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

static void log_line(const httpsrv_log *record, void *user) {
    (void)user;
    if (record->level > HTTPSRV_LEVEL_INFO) return;
    fprintf(stderr, "%s%s%.*s%s%s\n", record->text, record->peer.ptr ? ", peer " : "", HTTPSRV_FMT(record->peer),
            record->sys_errno ? ": " : "", record->sys_errno ? strerror(record->sys_errno) : "");
}

// No pool without threads.
static httpsrv_pool_config pool_of(const options *from, const char *name, int threads) {
    if (from->pool_threads == 0) return (httpsrv_pool_config){0};
    return (httpsrv_pool_config){name, from->pool_threads > 0 ? from->pool_threads : threads, from->queue};
}

// Pools apart from each other, so that sleepers never keep /pool/plaintext waiting.
static httpsrv *make_server(const options *from) {
    return httpsrv_new(&(httpsrv_config){
        .host = from->host,
        .port = from->port,
        .reactors = from->reactors > 0 ? from->reactors : HTTPSRV_ALL_CPUS,
        .acceptors = from->acceptors,
        .defer_accept = from->defer_accept,
        .affinity = from->steer,
        .steer = from->steer,
        .pools = {pool_of(from, "work", 0), pool_of(from, "sleep", SLEEP_THREADS),
                  pool_of(from, "upload", UPLOAD_THREADS)},
        .max.body = from->max_body < 0    ? 0
                    : from->max_body == 0 ? HTTPSRV_ZERO
                                          : from->max_body,
        .timeout_ms.grace = from->grace,
        .logger.fn = from->quiet ? NULL : log_line,
    });
}

// As a URL has it.
static void name_host(const char *host, char *out, size_t size) {
    bool any = !host || strcmp(host, "0.0.0.0") == 0 || strcmp(host, "::") == 0;
    if (any) host = "localhost";
    snprintf(out, size, strchr(host, ':') ? "[%s]" : "%s", host);
}

// Whether a handler is still busy after the drain. httpsrv_free would wait for it, however long it takes.
static bool is_stuck(const httpsrv *srv) {
    httpsrv_metrics metrics;
    return httpsrv_query_metrics(srv, &metrics) == HTTPSRV_OK && metrics.drain_stuck > 0;
}

static pthread_t start_thread(void *(*run)(void *)) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, run, NULL) == 0) return thread;
    fprintf(stderr, "showcase: no thread to be had\n");
    exit(1);
}

static int serve_with_threads(httpsrv *srv, const char *host) {
    pthread_t clock = start_thread(run_clock), ticks = start_thread(run_ticker);
    int code = serve_as(srv, host);
    end_ticker(ticks);
    end_clock(clock);
    return code;
}

int main(int argc, char **argv) {
    options opt = parse_flags(argc, argv);
    int64_t max_body = opt.max_body == 0 ? HTTPSRV_ZERO : opt.max_body;
    char host[64];
    name_host(opt.host, host, sizeof host);
    raise_descriptor_limit();
    server = make_server(&opt);
    add_routes(server);
    if (opt.root)
        httpsrv_files(server, "/files", &(httpsrv_files_config){.root = opt.root, .list = true, .precompressed = true});
    add_body_routes(server, max_body);
    if (opt.pool_threads != 0) add_thread_routes(server, max_body);
    fill_stream_block();
    int code = opt.pool_threads != 0 ? serve_with_threads(server, host) : serve_as(server, host);
    if (is_stuck(server)) _exit(code);
    httpsrv_free(server);
    return code;
}
