// Compression with zlib: answers in gzip by every way to answer, bodies in gzip by every way to read them, compared after
// zlib itself has coded or decoded them on the client's side. `make gzip` builds it with HTTPSRV_ZLIB and runs it. With
// --serve it is a server for tests/interop_gzip.sh instead.

#define HTTPSRV_IMPLEMENTATION
#include "../httpsrv.h"

#define TEST_NO_MAIN
#define TEST_TIMEOUT_MS 40000
#include "drive.h"
#include "server.h"
#include <pthread.h>
#include <zlib.h>

#define TAKES_GZIP   "Accept-Encoding: gzip\r\n"
#define IN_GZIP      "Content-Encoding: gzip\r\n"
#define KILOBYTE     1024u
#define MEGABYTE     (1u << 20)
#define SOURCE_BYTES (4u * MEGABYTE)
#define ZLIB_MEMORY  (400u * KILOBYTE) // what one coder and its buffers may take, generously

static struct server s;

// ---- what bodies are made of ----

enum kind { TEXT, NOISE, ZEROS, MIXED, KINDS };
static char sources[KINDS][SOURCE_BYTES];

static uint32_t pick(uint32_t *state, uint32_t below) {
    *state = *state * 1664525u + 1013904223u;
    return (uint32_t)(((uint64_t)*state * below) >> 32);
}

// Words from a small vocabulary, which compress to a third.
static void fill_text(char *out, size_t len, uint32_t *state) {
    for (size_t at = 0; at < len;) {
        uint32_t word = pick(state, 700) + 1;
        for (size_t i = 0; i < 2 + word % 7 && at < len; i++, word = word * 31 + 5)
            out[at++] = (char)('a' + word % 26);
        if (at < len) out[at++] = ' ';
    }
}

static void fill_noise(char *out, size_t len, uint32_t *state) {
    for (size_t i = 0; i < len; i++)
        out[i] = (char)pick(state, 256);
}

static void fill_sources(void) {
    uint32_t state = 7;
    fill_text(sources[TEXT], SOURCE_BYTES, &state);
    fill_noise(sources[NOISE], SOURCE_BYTES, &state);
    for (size_t at = 0, n; at < SOURCE_BYTES; at += n) {
        n = 1 + pick(&state, 5000);
        if (n > SOURCE_BYTES - at) n = SOURCE_BYTES - at;
        memcpy(sources[MIXED] + at, sources[pick(&state, 3)] + at, n);
    }
}

// Whether these are the first bytes of the endless repetition of a source.
static void check_source(const char *ptr, size_t len, enum kind kind, size_t n) {
    CHECK_INT(len, n);
    for (size_t at = 0; at < len; at += SOURCE_BYTES) {
        const size_t piece = len - at < SOURCE_BYTES ? len - at : SOURCE_BYTES;
        CHECK_MEM(ptr + at, piece, sources[kind], piece);
    }
}

// ---- zlib on the client's side ----

// Appends one member (RFC 1952 section 2.2).
static void append_member(struct bytes *out, const char *ptr, size_t len, int level, gz_header *header) {
    z_stream z = {.next_in = (Bytef *)(uintptr_t)ptr, .avail_in = (uInt)len};
    CHECK_INT(deflateInit2(&z, level, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY), Z_OK);
    if (header) CHECK_INT(deflateSetHeader(&z, header), Z_OK);
    const size_t most = deflateBound(&z, (uLong)len);
    char *room = (char *)malloc(most);
    CHECK(room != NULL);
    z.next_out = (Bytef *)room;
    z.avail_out = (uInt)most;
    CHECK_INT(deflate(&z, Z_FINISH), Z_STREAM_END);
    append(out, room, most - z.avail_out);
    deflateEnd(&z);
    free(room);
}

static struct bytes zipped(enum kind kind, size_t n) {
    struct bytes out = {0};
    append_member(&out, sources[kind], n, 6, NULL);
    return out;
}

// A bomb of that many megabytes, a kilobyte for each.
static struct bytes bomb(size_t megabytes) {
    struct bytes member = zipped(ZEROS, MEGABYTE), out = {0};
    for (size_t i = 0; i < megabytes; i++)
        append(&out, member.ptr, member.len);
    release_bytes(&member);
    return out;
}

// Appends what has been decoded by now; zlib's result.
static int inflate_more(z_stream *z, const char *ptr, size_t len, struct bytes *out) {
    char piece[16384];
    int result = Z_OK;
    z->next_in = (Bytef *)(uintptr_t)ptr;
    z->avail_in = (uInt)len;
    do {
        z->next_out = (Bytef *)piece;
        z->avail_out = sizeof piece;
        result = inflate(z, Z_NO_FLUSH);
        append(out, piece, sizeof piece - z->avail_out);
    } while (result == Z_OK && (z->avail_in > 0 || z->avail_out == 0));
    return result;
}

// What one whole member, and nothing else, stands for.
static struct bytes inflated(const char *ptr, size_t len) {
    z_stream z = {0};
    struct bytes out = {0};
    CHECK_INT(inflateInit2(&z, 31), Z_OK);
    append(&out, "", 0);
    CHECK_INT(inflate_more(&z, ptr, len, &out), Z_STREAM_END);
    CHECK_INT(z.avail_in, 0);
    inflateEnd(&z);
    return out;
}

// ---- allocations that fail ----

static struct {
    bool armed, lasting; // all atomic
    size_t nth, calls, failed;
} faults;

static bool allocation_refused(void) {
    if (!LOAD(faults.armed)) return false;
    const size_t number = __atomic_add_fetch(&faults.calls, 1, __ATOMIC_ACQ_REL);
    const size_t nth = LOAD(faults.nth);
    if (number < nth || (number > nth && !LOAD(faults.lasting))) return false;
    COUNT(faults.failed);
    return true;
}

static void *failing_realloc(void *user, void *ptr, size_t old_size, size_t new_size) {
    if (new_size > 0 && allocation_refused()) return NULL;
    return counting_realloc(user, ptr, old_size, new_size);
}

static void faults_begin(size_t nth, bool lasting) {
    STORE(faults.nth, nth);
    STORE(faults.lasting, lasting);
    STORE(faults.calls, (size_t)0);
    STORE(faults.failed, (size_t)0);
    STORE(faults.armed, true);
}

// For those who cannot do without: asked again and again, there is memory in the end.
static bool may_try_again(httpsrv_result result) {
    if (result != HTTPSRV_NOMEM || !LOAD(faults.failed)) return false;
    if (LOAD(faults.failed) > 50) STORE(faults.armed, false);
    return true;
}

static size_t faults_end(void) {
    STORE(faults.armed, false);
    return LOAD(faults.failed);
}

// ---- handlers that answer, in all the ways there are ----

struct line {
    const char *name, *value;
};

// What answers have beside their bodies.
struct dress {
    int status;       // [200]
    const char *type; // ["text/plain"]; "": none
    struct line fields[2];
};

static struct dress worn;
static pthread_mutex_t worn_lock = PTHREAD_MUTEX_INITIALIZER;

static void wear(struct dress dress) {
    if (dress.status == 0) dress.status = 200;
    if (!dress.type) dress.type = "text/plain";
    pthread_mutex_lock(&worn_lock);
    worn = dress;
    pthread_mutex_unlock(&worn_lock);
}

static struct dress look(void) {
    pthread_mutex_lock(&worn_lock);
    struct dress dress = worn;
    pthread_mutex_unlock(&worn_lock);
    if (!*dress.type) dress.type = NULL;
    return dress;
}

static httpsrv_str view_of(const char *text) {
    const httpsrv_str view = {text, strlen(text)};
    return view;
}

// Without memory there may be no answer at all; nothing else may go wrong.
static void settle(httpsrv_req *req, httpsrv_result result) {
    CHECK(result == HTTPSRV_OK || result == HTTPSRV_GONE || (result == HTTPSRV_NOMEM && LOAD(faults.failed)));
    if (result == HTTPSRV_NOMEM) httpsrv_reply(req, 503, NULL, HTTPSRV_STR("no memory\n"));
}

static bool put_fields(httpsrv_req *req) {
    const struct dress dress = look();
    for (size_t i = 0; i < ROWS(dress.fields) && dress.fields[i].name; i++) {
        const httpsrv_result result = httpsrv_add(req, dress.fields[i].name, view_of(dress.fields[i].value));
        if (result != HTTPSRV_OK) {
            settle(req, result);
            return false;
        }
    }
    return true;
}

static httpsrv_str body_of(const httpsrv_req *req) {
    const httpsrv_str body = {sources[number_param(req, "kind")], number_param(req, "n")};
    CHECK_CMP(body.len, <=, SOURCE_BYTES);
    return body;
}

static void say_copied(httpsrv_req *req, void *user) {
    const struct dress dress = look();
    (void)user;
    if (put_fields(req)) settle(req, httpsrv_reply(req, dress.status, dress.type, body_of(req)));
}

static void say_all_at_once(httpsrv_req *req, void *user) {
    const struct dress dress = look();
    httpsrv_field fields[ROWS(dress.fields)];
    httpsrv_answer answer = {.status = dress.status, .type = dress.type, .body = body_of(req)};
    (void)user;
    for (size_t i = 0; i < ROWS(fields) && dress.fields[i].name; i++)
        fields[answer.num_fields++] = (httpsrv_field){view_of(dress.fields[i].name), view_of(dress.fields[i].value)};
    answer.fields = fields;
    settle(req, httpsrv_reply_with(req, &answer));
}

// A body on loan is in a block of its own, which its release wipes and frees.
struct loan {
    size_t len;
    char body[];
};

static void release_loan(void *arg) {
    struct loan *loan = (struct loan *)arg;
    memset(loan->body, '?', loan->len);
    free(loan);
    COUNT(s.released);
}

static httpsrv_answer lend(httpsrv_str body) {
    const struct dress dress = look();
    struct loan *loan = (struct loan *)malloc(sizeof *loan + body.len + 1);
    CHECK(loan != NULL);
    loan->len = body.len;
    memcpy(loan->body, body.ptr, body.len);
    COUNT(s.borrowed);
    return (httpsrv_answer){.status = dress.status,
                            .type = dress.type,
                            .body = {loan->body, body.len},
                            .release = release_loan,
                            .release_arg = loan};
}

static void say_borrowed(httpsrv_req *req, void *user) {
    (void)user;
    if (!put_fields(req)) return;
    const httpsrv_answer answer = lend(body_of(req));
    const httpsrv_result result = httpsrv_reply_with(req, &answer);
    if (result == HTTPSRV_NOMEM) answer.release(answer.release_arg); // it has stayed with us
    settle(req, result);
}

// A deferred request is answered by a worker that does not hold it.
struct promise {
    httpsrv_token token;
    httpsrv_str body;
    bool lent;
};

static void keep_promise(void *arg) {
    struct promise *p = (struct promise *)arg;
    const struct dress dress = look();
    const httpsrv_answer copied = {.status = dress.status, .type = dress.type, .body = p->body};
    const httpsrv_answer answer = p->lent ? lend(p->body) : copied;
    const httpsrv_answer complaint = {.status = 503};
    httpsrv_result result = httpsrv_finish(s.srv, p->token, &answer);
    if (result == HTTPSRV_NOMEM && answer.release) answer.release(answer.release_arg);
    while (may_try_again(result))
        result = httpsrv_finish(s.srv, p->token, &complaint);
    CHECK(result == HTTPSRV_OK || result == HTTPSRV_GONE);
    free(p);
}

static void promise(httpsrv_req *req, bool lent) {
    if (!put_fields(req)) return;
    const httpsrv_token token = httpsrv_defer(req);
    if (!token.id) {
        settle(req, HTTPSRV_NOMEM);
        return;
    }
    struct promise *p = (struct promise *)malloc(sizeof *p);
    CHECK(p != NULL);
    *p = (struct promise){token, body_of(req), lent};
    if (httpsrv_submit(s.srv, "work", keep_promise, p) != HTTPSRV_OK) keep_promise(p);
}

static void say_later(httpsrv_req *req, void *user) {
    (void)user;
    promise(req, false);
}

static void say_borrowed_later(httpsrv_req *req, void *user) {
    (void)user;
    promise(req, true);
}

// ---- answers in pieces ----

struct flow {
    const char *source;
    size_t at, total, step;
    bool by_worker;
};

static httpsrv_result write_more(httpsrv_req *req, struct flow *f) {
    while (f->at < f->total) {
        const size_t from = f->at % SOURCE_BYTES, room = SOURCE_BYTES - from, left = f->total - f->at;
        const size_t piece = f->step < left ? f->step : left;
        const httpsrv_str bytes = {f->source + from, piece < room ? piece : room};
        httpsrv_result result = httpsrv_write(req, bytes);
        if (result == HTTPSRV_OK) f->at += bytes.len;
        if (result == HTTPSRV_FULL && f->by_worker) result = httpsrv_wait_drain(req);
        if (result != HTTPSRV_OK) return result;
    }
    return httpsrv_end(req);
}

static void go_on(httpsrv_req *req, void *user) {
    const httpsrv_result result = write_more(req, (struct flow *)user);
    CHECK(result == HTTPSRV_OK || result == HTTPSRV_GONE || result == HTTPSRV_FULL ||
          (result == HTTPSRV_NOMEM && LOAD(faults.failed)));
    if (result == HTTPSRV_NOMEM) httpsrv_abort(req);
}

static void begin_flow(httpsrv_req *req, bool by_worker, bool declared) {
    struct flow *f = (struct flow *)httpsrv_alloc(req, sizeof *f);
    if (!f || !put_fields(req)) {
        if (!f) settle(req, HTTPSRV_NOMEM);
        return;
    }
    *f = (struct flow){.total = number_param(req, "n"), .step = number_param(req, "step"), .by_worker = by_worker};
    f->source = sources[number_param(req, "kind")];
    if (f->step == 0) f->step = 3000;
    const struct dress dress = look();
    const httpsrv_result result = httpsrv_begin(req, dress.status, dress.type, declared ? (int64_t)f->total : -1);
    if (result != HTTPSRV_OK) {
        settle(req, result);
        return;
    }
    if (!by_worker) CHECK_INT(httpsrv_on_drain(req, go_on, f), HTTPSRV_OK);
    go_on(req, f);
}

struct way {
    const char *name;
    httpsrv_handler handler;
    const char *pool;
    enum { WHOLE, PIECES, DECLARED } form; // whole: with the length of what is sent; else in chunks if compressed
};

static void say_in_pieces(httpsrv_req *req, void *user) {
    const struct way *way = (const struct way *)user;
    begin_flow(req, way->pool != NULL, way->form == DECLARED);
}

static const struct way ways[] = {
    {"reply", say_copied, NULL, WHOLE},
    {"with", say_all_at_once, NULL, WHOLE},
    {"lent", say_borrowed, NULL, WHOLE},
    {"later", say_later, NULL, WHOLE},
    {"lent-later", say_borrowed_later, NULL, WHOLE},
    {"pieces", say_in_pieces, NULL, PIECES},
    {"declared", say_in_pieces, NULL, DECLARED},
    {"work-reply", say_copied, "work", WHOLE},
    {"work-lent", say_borrowed, "work", WHOLE},
    {"work-pieces", say_in_pieces, "work", PIECES},
    {"work-declared", say_in_pieces, "work", DECLARED},
};

static const struct way *way_named(const char *name) {
    for (size_t i = 0; i < ROWS(ways); i++)
        if (strcmp(ways[i].name, name) == 0) return &ways[i];
    FAIL("no way is named %s", name);
}

// ---- handlers that take a body: they answer with its length and CRC ----

struct sum {
    size_t len;
    uLong crc;
};

static int taken; // bodies, to their ends; atomic

static void add_piece(struct sum *sum, httpsrv_str piece) {
    sum->len += piece.len;
    if (piece.len) sum->crc = crc32(sum->crc, (const Bytef *)piece.ptr, (uInt)piece.len);
}

static void say_sum(httpsrv_req *req, const struct sum *sum) {
    settle(req, httpsrv_replyf(req, 200, NULL, "%zu bytes, CRC %08lx", sum->len, sum->crc));
    COUNT(taken);
}

static void take_whole(httpsrv_req *req, void *user) {
    struct sum sum = {0, 0};
    (void)user;
    add_piece(&sum, httpsrv_body(req));
    say_sum(req, &sum);
}

// Reads a bit at a time and then a lot, so that what is decoded has to wait.
static void take_by_reading(httpsrv_req *req, void *user) {
    static const size_t sizes[] = {1, 20000, 7, 300};
    char piece[20000];
    struct sum sum = {0, 0};
    ptrdiff_t n = 1;
    (void)user;
    for (size_t i = 0; n > 0; i++) {
        n = httpsrv_read(req, piece, sizes[i % ROWS(sizes)]);
        if (n > 0) add_piece(&sum, (httpsrv_str){piece, (size_t)n});
    }
    if (n == 0) CHECK_INT(httpsrv_read(req, piece, 1), 0);
    if (n == 0) say_sum(req, &sum);
    CHECK(n == 0 || n == HTTPSRV_GONE);
}

static void take_at_gate(httpsrv_req *req, void *user) {
    COUNT(s.arrived);
    while (!LOAD(s.gate))
        test_sleep(1);
    take_by_reading(req, user);
}

static void open_sum(httpsrv_req *req, void *user) {
    struct sum *sum = (struct sum *)httpsrv_alloc(req, sizeof *sum);
    (void)user;
    if (!sum) {
        settle(req, HTTPSRV_NOMEM);
        return;
    }
    *sum = (struct sum){0, 0};
    httpsrv_attach(req, sum);
}

static void take_piece(httpsrv_req *req, httpsrv_str piece, bool last, void *user) {
    struct sum *sum = (struct sum *)httpsrv_attached(req);
    (void)user;
    CHECK(sum != NULL);
    CHECK(last || piece.len > 0);
    add_piece(sum, piece);
    if (last) say_sum(req, sum);
}

// ---- the same with a rest after each piece ----

static void resume_body(httpsrv_req *req, void *user) {
    (void)user;
    if (req) CHECK_INT(httpsrv_body_resume(req), HTTPSRV_OK);
}

static void post_resume(void *arg) {
    httpsrv_token *token = (httpsrv_token *)arg;
    httpsrv_result result;
    do {
        result = httpsrv_post(s.srv, *token, resume_body, NULL);
    } while (may_try_again(result));
    CHECK(result == HTTPSRV_OK || result == HTTPSRV_GONE);
    free(token);
}

static void take_piece_and_rest(httpsrv_req *req, httpsrv_str piece, bool last, void *user) {
    const httpsrv_token token = httpsrv_defer(req);
    if (!token.id) {
        settle(req, HTTPSRV_NOMEM);
        return;
    }
    take_piece(req, piece, last, user);
    if (last) return;
    httpsrv_token *copy = (httpsrv_token *)malloc(sizeof *copy);
    CHECK(copy != NULL);
    *copy = token;
    CHECK_INT(httpsrv_body_pause(req), HTTPSRV_OK);
    CHECK_INT(httpsrv_submit(s.srv, "work", post_resume, copy), HTTPSRV_OK);
}

// Sends back what it reads, as it comes.
static void say_back(httpsrv_req *req, void *user) {
    char piece[3000];
    ptrdiff_t n;
    (void)user;
    if (httpsrv_begin(req, 200, "text/plain", -1) != HTTPSRV_OK) return;
    while ((n = httpsrv_read(req, piece, sizeof piece)) > 0) {
        const httpsrv_str bytes = {piece, (size_t)n};
        httpsrv_result result = httpsrv_write(req, bytes);
        if (result == HTTPSRV_FULL && httpsrv_wait_drain(req) == HTTPSRV_OK) result = httpsrv_write(req, bytes);
        if (result != HTTPSRV_OK) return;
    }
    if (n == 0) httpsrv_end(req);
}

static void say_back_whole(httpsrv_req *req, void *user) {
    (void)user;
    settle(req, httpsrv_reply(req, 200, "text/plain", httpsrv_body(req)));
}

struct sink {
    const char *path;
    httpsrv_handler handler;
    httpsrv_body_fn on_body;
    const char *pool;
    bool stream;
};

static const struct sink sinks[] = {
    {"/whole", take_whole, NULL, NULL, false},       {"/work-whole", take_whole, NULL, "work", false},
    {"/on-body", open_sum, take_piece, NULL, false}, {"/on-body-at-rest", open_sum, take_piece_and_rest, NULL, false},
    {"/read", take_by_reading, NULL, "work", true},
};
#define BUFFERING 2 // the first so many sinks hold the body in memory

// ---- the server ----

static void add_route(const char *pattern, httpsrv_route_config route) {
    route.pattern = pattern;
    CHECK_INT(httpsrv_route(s.srv, &route), HTTPSRV_OK);
}

// A worker that reads as much as there is.
static void add_reader(const char *pattern, httpsrv_handler handler) {
    add_route(pattern, (httpsrv_route_config){
                           .handler = handler, .pool = "work", .stream = true, .gunzip = true, .max_body = -1});
}

static void add_routes(int64_t max_body) {
    char pattern[100];
    for (size_t i = 0; i < ROWS(ways); i++) {
        snprintf(pattern, sizeof pattern, "GET /%s/:kind/:n/:step", ways[i].name);
        add_route(pattern, (httpsrv_route_config){
                               .handler = ways[i].handler, .pool = ways[i].pool, .user = (void *)(uintptr_t)&ways[i]});
    }
    for (size_t i = 0; i < ROWS(sinks); i++) {
        const struct sink *k = &sinks[i];
        httpsrv_route_config route = {.handler = k->handler, .on_body = k->on_body, .pool = k->pool};
        route.stream = k->stream;
        route.gunzip = true;
        route.max_body = max_body;
        snprintf(pattern, sizeof pattern, "* %s", k->path);
        add_route(pattern, route);
    }
    add_reader("POST /cat", say_back);
    add_route("POST /echo", (httpsrv_route_config){.handler = say_back_whole, .gunzip = true, .max_body = max_body});
    add_route("POST /as-it-is", (httpsrv_route_config){.handler = take_whole});
    add_route("GET /plain/:kind/:n", (httpsrv_route_config){.handler = say_copied, .uncompressed = true});
    add_route("GET /hello", (httpsrv_route_config){.handler = on_hello, .user = &s});
}

// A server with all these routes that does not listen yet.
static void set_up(const httpsrv_config *config, int64_t max_body) {
    httpsrv_config c = *config;
    if (!c.pools[0].name) c.pools[0] = (httpsrv_pool_config){.name = "work", .threads = 3};
    prepare(&s, &c);
    wear((struct dress){0});
    add_routes(max_body);
}

static void open_server(const httpsrv_config *config) {
    set_up(config, 0);
    go(&s);
}

static void hold_worker(void *arg) {
    (void)arg;
    COUNT(s.arrived);
    while (!LOAD(s.gate))
        test_sleep(1);
    COUNT(s.left);
}

// Keeps a pool of one thread busy until the gate is opened.
static void hold_pool(const char *pool) {
    const int before = LOAD(s.arrived);
    STORE(s.gate, 0);
    CHECK_INT(httpsrv_submit(s.srv, pool, hold_worker, NULL), HTTPSRV_OK);
    WAIT(LOAD(s.arrived) == before + 1);
}

static uint64_t item(httpsrv_log_item id) {
    return LOAD(s.logged[id]);
}

// The memory that is used when all connections have ended.
static uint64_t memory_at_rest(void) {
    WAIT(metrics(&s).connections == 0);
    return metrics(&s).memory;
}

// Requests that many connections at a time had are kept for the next; coders and bodies are not, once workers are through.
static void check_memory_is_back(uint64_t before) {
    WAIT(memory_at_rest() < before + 65536);
}

// ---- asking ----

struct order {
    const struct way *way;
    enum kind kind;
    size_t n, step;
    const char *method;  // ["GET"]
    const char *version; // ["1.1"]
    const char *fields;  // [TAKES_GZIP]
};

static void put_order(struct client *c, const struct order *o) {
    SENDF(c, "%s /%s/%d/%zu/%zu HTTP/%s\r\nHost: a\r\n%s\r\n", o->method ? o->method : "GET", o->way->name,
          (int)o->kind, o->n, o->step, o->version ? o->version : "1.1", o->fields ? o->fields : TAKES_GZIP);
}

// One answer on a connection of its own; it stays in the client, to be hung up.
static struct client order(const struct order *o) {
    struct client c = dial(s.port);
    put_order(&c, o);
    net_reply(&c, o->method && strcmp(o->method, "HEAD") == 0);
    return c;
}

static bool is_coded(const struct client *c) {
    const char *coding = field(c, "Content-Encoding");
    if (!coding) return false;
    CHECK_STR(coding, "gzip");
    CHECK_INT(count_fields(c, "Content-Encoding"), 1);
    return true;
}

static void check_body(const struct client *c, bool coded, enum kind kind, size_t n) {
    CHECK_INT(is_coded(c), coded);
    if (!coded) {
        check_source(c->body, c->body_len, kind, n);
        return;
    }
    struct bytes plain = inflated(c->body, c->body_len);
    check_source(plain.ptr, plain.len, kind, n);
    release_bytes(&plain);
}

static void check_framing(const struct client *c, const struct way *way, bool coded) {
    const char *coding = field(c, "Transfer-Encoding");
    const bool chunked = way->form == PIECES || (way->form == DECLARED && coded);
    if (chunked) CHECK_STR(coding, "chunked");
    if (!chunked) CHECK_CMP(c->length, >=, 0);
}

// How many of its Vary fields name Accept-Encoding.
static int varies(const struct client *c) {
    int n = 0;
    for (int i = 0; i < c->num_fields; i++)
        if (strcasecmp(c->head + c->fields[i].name, "Vary") == 0)
            n += strcasestr(c->head + c->fields[i].value, "accept-encoding") != NULL;
    return n;
}

// The fields of a without the date are those of b.
static void check_same_fields(const struct client *a, const struct client *b) {
    CHECK_INT(a->num_fields, b->num_fields);
    for (int i = 0; i < a->num_fields; i++) {
        CHECK_STR(a->head + a->fields[i].name, b->head + b->fields[i].name);
        if (strcasecmp(a->head + a->fields[i].name, "Date") == 0) continue;
        CHECK_STR(a->head + a->fields[i].value, b->head + b->fields[i].value);
    }
}

// The connection serves another request.
static void check_kept(struct client *c) {
    CHECK(!c->close);
    GET(c, "/hello");
    EXPECT(c, 200, HELLO);
}

// ---- answers: what, when and with which fields ----

static void check_way(const struct way *way, enum kind kind, size_t n) {
    struct order o = {.way = way, .kind = kind, .n = n};
    struct client c = order(&o), head;
    NOTE("%s, kind %d, %zu bytes", way->name, (int)kind, n);
    CHECK_INT(c.status, 200);
    check_body(&c, true, kind, n);
    check_framing(&c, way, true);
    CHECK_INT(varies(&c), 1);
    CHECK_STR(field(&c, "ETag"), "W/\"x\"");
    CHECK_STR(field(&c, "Content-Type"), "text/plain");
    if (way->form == WHOLE && kind == TEXT) CHECK_CMP(c.length, <, n / 2);
    o.method = "HEAD";
    head = order(&o);
    check_same_fields(&c, &head);
    check_kept(&head);
    hang_up(&head);
    check_kept(&c);
    o.method = NULL;
    o.fields = "";
    put_order(&c, &o);
    REPLY(&c);
    check_body(&c, false, kind, n);
    check_framing(&c, way, false);
    CHECK_INT(varies(&c), 1);
    CHECK_STR(field(&c, "ETag"), "\"x\"");
    check_kept(&c);
    hang_up(&c);
}

TEST(every_way_to_answer) {
    static const size_t sizes[] = {1024, 5000, 65535, 65536, 300000, MEGABYTE};
    open_server(&(httpsrv_config){0});
    wear((struct dress){.fields = {{"ETag", "\"x\""}}});
    for (size_t i = 0; i < ROWS(ways); i++)
        for (size_t k = 0; k < ROWS(sizes); k++)
            check_way(&ways[i], k % 2 ? ZEROS : TEXT, sizes[k]);
    finish(&s);
}

// Not to the last byte, either.
TEST(what_does_not_get_smaller_stays_as_it_is) {
    bool coded_before = false;
    int turns = 0;
    open_server(&(httpsrv_config){.compress = {.min_size = 1}});
    for (size_t n = 1; n < 120; n++) {
        struct client c = order(&(struct order){.way = &ways[n % 3], .kind = ZEROS, .n = n});
        NOTE("%zu bytes", n);
        check_body(&c, is_coded(&c), ZEROS, n);
        CHECK_INT(varies(&c), 1);
        if (is_coded(&c)) CHECK_CMP(c.length, <, n);
        turns += is_coded(&c) != coded_before;
        coded_before = is_coded(&c);
        hang_up(&c);
    }
    CHECK_INT(turns, 1); // the shortest ones, and no others
    finish(&s);
}

TEST(clients_of_http_1_0_get_it_plain) {
    open_server(&(httpsrv_config){0});
    for (size_t i = 0; i < ROWS(ways); i++) {
        NOTE("%s", ways[i].name);
        struct client c = order(&(struct order){.way = &ways[i], .n = 100000, .version = "1.0"});
        check_body(&c, false, TEXT, 100000);
        hang_up(&c);
    }
    finish(&s);
}

TEST(what_clients_take) {
    static const struct {
        const char *fields;
        bool coded;
    } rows[] = {
        {"", false},
        {"Accept-Encoding:\r\n", false},
        {"Accept-Encoding: gzip\r\n", true},
        {"accept-encoding: GZip\r\n", true},
        {"Accept-Encoding: gzip, deflate, br, zstd\r\n", true},
        {"Accept-Encoding: deflate,br,gzip\r\n", true},
        {"Accept-Encoding: , ,gzip,\r\n", true},
        {"Accept-Encoding: deflate\r\n", false},
        {"Accept-Encoding: br;q=1.0, deflate\r\n", false},
        {"Accept-Encoding: gzi\r\n", false},
        {"Accept-Encoding: gzipx\r\n", false},
        {"Accept-Encoding: not-gzip\r\n", false},
        {"Accept-Encoding: identity\r\n", false},
        {"Accept-Encoding: *\r\n", true},
        {"Accept-Encoding: br, *;q=0.1\r\n", true},
        {"Accept-Encoding: *;q=0\r\n", false},
        {"Accept-Encoding: gzip;q=0\r\n", false},
        {"Accept-Encoding: gzip;q=0.000, *\r\n", false},
        {"Accept-Encoding: *, gzip;q=0\r\n", false},
        {"Accept-Encoding: *;q=0, gzip;q=0.2\r\n", true},
        {"Accept-Encoding: gzip;q=0.001\r\n", true},
        {"Accept-Encoding: gzip ; q=1.000\r\n", true},
        {"Accept-Encoding: gzip;Q=0\r\n", false},
        {"Accept-Encoding: gzip;q=0.5\r\n", true},
        {"Accept-Encoding: *;q=0.5, gzip;q=0.1\r\n", true}, // what is said of all others is not said of identity
        {"Accept-Encoding: x-gzip\r\n", true},              // RFC 9110 section 8.4.1.3
        {"Accept-Encoding: gzip;q=2\r\n", false},           // malformed
        {"Accept-Encoding: identity, gzip\r\n", true},
        {"Accept-Encoding: identity;q=0.5, gzip;q=0.5\r\n", true},
        {"Accept-Encoding: identity;q=0.5, gzip;q=0.4\r\n", false},
        {"Accept-Encoding: gzip;q=0.9, identity\r\n", false},
        {"Accept-Encoding: gzip;q=0.1, identity;q=0\r\n", true},
        {"Accept-Encoding: br\r\nAccept-Encoding: gzip\r\n", true},
        {"Accept-Encoding: identity\r\nX-Between: a\r\nAccept-Encoding: gzip;q=0.5\r\n", false},
        {"Accept-Encoding: gzip;q=0\r\nAccept-Encoding: *\r\n", false},
        {"X-Accept-Encoding: gzip\r\n", false},
    };
    open_server(&(httpsrv_config){0});
    for (size_t i = 0; i < 2 * ROWS(rows); i++) {
        NOTE("%s", rows[i / 2].fields);
        const struct way *way = way_named(i % 2 ? "work-declared" : "reply");
        const struct order o = {.way = way, .n = 3000, .fields = rows[i / 2].fields};
        struct client c = dial(s.port);
        for (int again = 0; again < 3; again++) { // a head that is known already
            put_order(&c, &o);
            REPLY(&c);
            check_body(&c, rows[i / 2].coded, TEXT, 3000);
            CHECK_INT(varies(&c), 1);
        }
        hang_up(&c);
    }
    finish(&s);
}

// Where compression is out of the question nothing depends on the client's wish, and Vary says so.
TEST(what_is_compressed) {
    enum { PLAIN, VARIES, CODED };
    static const struct {
        struct dress dress;
        size_t n;
        int to_be;
        int declared; // the same for an answer in pieces whose length is known; most are
        enum kind kind;
    } rows[] = {
        {{0}, 1024, CODED, CODED, TEXT},
        {{0}, 1023, PLAIN, PLAIN, TEXT},
        {{0}, 0, PLAIN, PLAIN, TEXT},
        {{0}, 5000, VARIES, CODED, NOISE},
        {{.type = ""}, 5000, PLAIN, PLAIN, TEXT},
        {{.type = "image/png"}, 5000, PLAIN, PLAIN, TEXT},
        {{.type = "", .fields = {{"Content-Type", "text/html"}}}, 5000, CODED, CODED, TEXT},
        {{.type = "", .fields = {{"Content-Type", "image/png"}}}, 5000, PLAIN, PLAIN, TEXT},
        {{.status = 404}, 5000, CODED, CODED, TEXT},
        {{.status = 500}, 5000, CODED, CODED, TEXT},
        {{.status = 206}, 5000, PLAIN, PLAIN, TEXT},
        {{.fields = {{"Content-Encoding", "br"}}}, 5000, PLAIN, PLAIN, TEXT},
        {{.fields = {{"content-encoding", "identity"}}}, 5000, PLAIN, PLAIN, TEXT},
        {{.fields = {{"Content-Range", "bytes 0-4999/5000"}}}, 5000, PLAIN, PLAIN, TEXT},
        {{.fields = {{"Cache-Control", "no-transform"}}}, 5000, PLAIN, PLAIN, TEXT},
        {{.fields = {{"cache-control", "max-age=3 ,No-Transform, public"}}}, 5000, PLAIN, PLAIN, TEXT},
        {{.fields = {{"Cache-Control", "public"}, {"Cache-Control", "no-transform"}}}, 5000, PLAIN, PLAIN, TEXT},
        {{.fields = {{"Cache-Control", "no-transforms, max-age=1"}}}, 5000, CODED, CODED, TEXT},
        {{.fields = {{"X-Content-Encoding", "br"}, {"Pragma", "no-transform"}}}, 5000, CODED, CODED, TEXT},
    };
    open_server(&(httpsrv_config){0});
    for (size_t i = 0; i < ROWS(rows) * ROWS(ways); i++) {
        const size_t row = i / ROWS(ways);
        const struct way *way = &ways[i % ROWS(ways)];
        const int to_be = way->form == WHOLE ? rows[row].to_be : rows[row].declared;
        if (way->form == PIECES && rows[row].n < 1024) continue; // nobody knows how short it will be
        NOTE("row %zu, %s", row, way->name);
        const struct dress dress = rows[row].dress;
        wear(dress);
        struct client c = order(&(struct order){.way = way, .kind = rows[row].kind, .n = rows[row].n});
        CHECK_INT(c.status, dress.status ? dress.status : 200);
        CHECK_INT(varies(&c), to_be != PLAIN);
        if (dress.fields[0].name && strcasecmp(dress.fields[0].name, "Content-Encoding") == 0)
            check_source(c.body, c.body_len, rows[row].kind, rows[row].n);
        else
            check_body(&c, to_be == CODED, rows[row].kind, rows[row].n);
        hang_up(&c);
    }
    finish(&s);
}

TEST(without_a_body_nothing_is_compressed) {
    static const int statuses[] = {204, 205, 304};
    open_server(&(httpsrv_config){.compress = {.min_size = 1}});
    for (size_t i = 0; i < ROWS(statuses) * ROWS(ways); i++) {
        const struct way *way = &ways[i % ROWS(ways)];
        const int status = statuses[i / ROWS(ways)];
        wear((struct dress){.status = status});
        NOTE("%d, %s", status, way->name);
        struct client c = dial(s.port);
        put_order(&c, &(struct order){.way = way, .n = way->form == WHOLE ? 5000 : 0});
        REPLY(&c);
        CHECK_INT(c.status, status);
        CHECK_INT(c.body_len, 0);
        CHECK(!is_coded(&c));
        check_kept(&c);
        hang_up(&c);
    }
    finish(&s);
}

TEST(fields_of_compressed_answers) {
    static const struct {
        struct line set;
        const char *seen; // the value that its first field of that name has then
        int varies, of_name;
    } rows[] = {
        {{"Vary", "Origin"}, "Origin", 1, 2},
        {{"Vary", "Accept-Encoding"}, "Accept-Encoding", 1, 1},
        {{"vary", "Cookie, accept-ENCODING"}, "Cookie, accept-ENCODING", 1, 1},
        {{"Vary", "*"}, "*", 0, 1},
        {{"Vary", "X-Accept-Encoding"}, "X-Accept-Encoding", 2, 2}, // it contains the name
        {{"ETag", "\"x\""}, "W/\"x\"", 1, 1},
        {{"etag", "\"\""}, "W/\"\"", 1, 1},
        {{"ETag", "W/\"x\""}, "W/\"x\"", 1, 1},
        {{"X-Other", "a"}, "a", 1, 1},
    };
    open_server(&(httpsrv_config){0});
    for (size_t i = 0; i < ROWS(rows) * ROWS(ways); i++) {
        const size_t row = i / ROWS(ways);
        const struct way *way = &ways[i % ROWS(ways)];
        const char *name = rows[row].set.name;
        NOTE("%s: %s, %s", name, rows[row].set.value, way->name);
        wear((struct dress){.fields = {rows[row].set}});
        struct client c = order(&(struct order){.way = way, .n = 5000});
        check_body(&c, true, TEXT, 5000);
        CHECK_STR(field(&c, name), rows[row].seen);
        CHECK_INT(varies(&c), rows[row].varies);
        CHECK_INT(count_fields(&c, name), rows[row].of_name);
        hang_up(&c);
        c = order(&(struct order){.way = way, .n = 5000, .fields = ""});
        CHECK_STR(field(&c, name), rows[row].set.value);
        CHECK_INT(varies(&c), rows[row].varies);
        hang_up(&c);
    }
    finish(&s);
}

static void say_file(httpsrv_req *req, void *user) {
    CHECK_INT(httpsrv_reply_file(req, (const char *)user, "text/plain"), HTTPSRV_OK);
}

static void say_events(httpsrv_req *req, void *user) {
    (void)user;
    const httpsrv_token token = httpsrv_sse_begin(req, NULL);
    CHECK(token.id != 0);
    for (int i = 0; i < 10; i++)
        CHECK_INT(httpsrv_sse_send(s.srv, token, &(httpsrv_event){.data = {sources[TEXT], 1000}}), HTTPSRV_OK);
    CHECK_INT(httpsrv_sse_end(s.srv, token), HTTPSRV_OK);
}

TEST(files_assets_and_events_are_left_alone) {
    static const char *const targets[] = {"/file", "/files/a.txt", "/assets/a.txt", "/events"};
    const httpsrv_asset assets[] = {{.path = "/a.txt", .data = sources[TEXT], .len = 5000}, {.path = NULL}};
    char folder[] = "/tmp/httpsrv-gzip-XXXXXX", path[100];
    CHECK(mkdtemp(folder) != NULL);
    snprintf(path, sizeof path, "%s/a.txt", folder);
    FILE *file = fopen(path, "w");
    CHECK(file && fwrite(sources[TEXT], 1, 5000, file) == 5000 && fclose(file) == 0);
    set_up(&(httpsrv_config){0}, 0);
    CHECK_INT(httpsrv_on(s.srv, "GET /file", say_file, path), HTTPSRV_OK);
    CHECK_INT(httpsrv_on(s.srv, "GET /events", say_events, NULL), HTTPSRV_OK);
    CHECK_INT(httpsrv_files(s.srv, "/files", &(httpsrv_files_config){.root = folder}), HTTPSRV_OK);
    CHECK_INT(httpsrv_assets(s.srv, "/assets", assets), HTTPSRV_OK);
    go(&s);
    for (size_t i = 0; i < ROWS(targets); i++) {
        struct client c = dial(s.port);
        NOTE("%s", targets[i]);
        SENDF(&c, "GET %s HTTP/1.1\r\nHost: a\r\n" TAKES_GZIP "\r\n", targets[i]);
        REPLY(&c);
        CHECK_INT(c.status, 200);
        CHECK(!is_coded(&c));
        CHECK_CMP(c.body_len, >=, 5000);
        CHECK(memmem(c.body, c.body_len, sources[TEXT], 1000) != NULL);
        hang_up(&c);
    }
    finish(&s);
    CHECK_INT(unlink(path), 0);
    CHECK_INT(rmdir(folder), 0);
}

TEST(routes_that_are_never_compressed) {
    open_server(&(httpsrv_config){0});
    struct client c = ASK(&s, "GET /plain/0/5000 HTTP/1.1\r\nHost: a\r\n" TAKES_GZIP "\r\n");
    check_body(&c, false, TEXT, 5000);
    CHECK_INT(varies(&c), 0);
    hang_up(&c);
    finish(&s);
}

static int64_t done_bytes; // of what has gone out; atomic
static int done_delivered;

static void count_done(const httpsrv_outcome *outcome, void *arg) {
    (void)arg;
    CHECK_INT(outcome->status, 200);
    STORE(done_delivered, outcome->delivered);
    STORE(done_bytes, outcome->bytes);
}

static httpsrv_verdict ask_for_outcome(httpsrv_req *req, void *user) {
    (void)user;
    CHECK_INT(httpsrv_on_done(req, count_done, NULL), HTTPSRV_OK);
    return HTTPSRV_NEXT;
}

// What has become of an answer is told of the bytes that were sent.
TEST(outcomes) {
    set_up(&(httpsrv_config){.compress = {.large = 50000}}, 0);
    CHECK_INT(httpsrv_use(s.srv, "/", ask_for_outcome, NULL), HTTPSRV_OK);
    go(&s);
    for (size_t i = 0; i < 2 * ROWS(ways); i++) {
        STORE(done_bytes, 0);
        NOTE("%s", ways[i / 2].name);
        struct client c = order(&(struct order){.way = &ways[i / 2], .n = i % 2 ? 100000 : 20000});
        CHECK(is_coded(&c));
        WAIT(LOAD(done_bytes) > 0);
        CHECK_INT(LOAD(done_bytes), c.at);
        CHECK(LOAD(done_delivered));
        hang_up(&c);
    }
    finish(&s);
}

// ---- configuration ----

// Bytes of a whole answer's body, as sent.
static size_t sent_bytes(const struct order *o) {
    struct client c = order(o);
    const size_t len = c.body_len;
    check_body(&c, len < o->n, o->kind, o->n);
    hang_up(&c);
    return len;
}

TEST(levels) {
    static const int levels[] = {1, 0, 5, 9, -1};
    const struct order o = {.way = way_named("reply"), .n = 200000};
    size_t sizes[ROWS(levels)];
    for (size_t i = 0; i < ROWS(levels); i++) {
        open_server(&(httpsrv_config){.compress = {.level = levels[i]}});
        sizes[i] = sent_bytes(&o);
        struct client c = order(&o);
        CHECK_INT(varies(&c), levels[i] >= 0);
        hang_up(&c);
        finish(&s);
    }
    CHECK_CMP(sizes[0], >, sizes[1]);
    CHECK_INT(sizes[1], sizes[2]);
    CHECK_CMP(sizes[2], >, sizes[3]);
    CHECK_INT(sizes[4], o.n);
}

TEST(min_size) {
    static const struct {
        int min_size;
        size_t plain, coded; // the most bytes that are not compressed, the fewest that are
    } rows[] = {{0, 1023, 1024}, {100, 99, 100}, {50000, 49999, 50000}, {1, 0, 60}};
    for (size_t i = 0; i < ROWS(rows); i++) {
        open_server(&(httpsrv_config){.compress = {.min_size = rows[i].min_size}});
        for (size_t k = 0; k < ROWS(ways); k++) {
            NOTE("min_size %d, %s", rows[i].min_size, ways[k].name);
            struct client c = order(&(struct order){.way = &ways[k], .kind = ZEROS, .n = rows[i].coded});
            check_body(&c, true, ZEROS, rows[i].coded);
            hang_up(&c);
            if (ways[k].form == PIECES || rows[i].plain == 0) continue;
            c = order(&(struct order){.way = &ways[k], .kind = ZEROS, .n = rows[i].plain});
            check_body(&c, false, ZEROS, rows[i].plain);
            CHECK_INT(c.length, rows[i].plain);
            hang_up(&c);
        }
        finish(&s);
    }
}

static uint64_t jobs_of(const struct way *way, size_t n) {
    const uint64_t before = metrics(&s).pool_jobs;
    struct client c = order(&(struct order){.way = way, .n = n});
    check_body(&c, true, TEXT, n);
    hang_up(&c);
    return metrics(&s).pool_jobs - before;
}

// Of what reactors answer: what workers answer costs them nothing.
TEST(large) {
    static const struct {
        int large;
        size_t by_reactor, by_worker; // the most and the fewest bytes; 0: there is no such
    } rows[] = {{0, 65535, 65536}, {3000, 2999, 3000}, {1, 0, 1024}, {-1, MEGABYTE, 0}};
    for (size_t i = 0; i < ROWS(rows); i++) {
        open_server(&(httpsrv_config){.compress = {.large = rows[i].large}});
        for (size_t k = 0; k < ROWS(ways); k++) {
            const bool later = ways[k].handler == say_later || ways[k].handler == say_borrowed_later;
            const bool chosen = ways[k].form == WHOLE && !ways[k].pool;
            const uint64_t own = ways[k].pool || later; // the handler's
            NOTE("large %d, %s", rows[i].large, ways[k].name);
            if (rows[i].by_reactor) CHECK_INT(jobs_of(&ways[k], rows[i].by_reactor), own);
            if (rows[i].by_worker) CHECK_INT(jobs_of(&ways[k], rows[i].by_worker), own + chosen);
        }
        finish(&s);
    }
}

// The one thread of that pool is busy, and so the answer waits. Names are copied.
TEST(pool) {
    char name[] = "zip";
    httpsrv_config config = {.compress = {.pool = name, .large = 3000}};
    config.pools[0] = (httpsrv_pool_config){.name = "work", .threads = 1};
    config.pools[1] = (httpsrv_pool_config){.name = "zip", .threads = 1};
    set_up(&config, 0);
    name[0] = '?';
    go(&s);
    hold_pool("zip");
    struct client c = dial(s.port), small;
    put_order(&c, &(struct order){.way = way_named("reply"), .n = 3000});
    small = order(&(struct order){.way = way_named("reply"), .n = 2999});
    check_body(&small, true, TEXT, 2999);
    hang_up(&small);
    EXPECT_SILENCE(&c, 100);
    STORE(s.gate, 1);
    REPLY(&c);
    check_body(&c, true, TEXT, 3000);
    hang_up(&c);
    finish(&s);
}

struct type_row {
    const char *type;
    bool coded;
};

static void check_types(const char *types, const struct type_row *rows, size_t count) {
    char list[200];
    snprintf(list, sizeof list, "%s", types ? types : "");
    set_up(&(httpsrv_config){.compress = {.types = types ? list : NULL}}, 0);
    memset(list, '?', sizeof list);
    go(&s);
    for (size_t i = 0; i < count; i++) {
        NOTE("%s in %s", rows[i].type, types ? types : "the default");
        wear((struct dress){.type = rows[i].type});
        for (size_t k = 0; k < 2; k++) {
            struct client c = order(&(struct order){.way = way_named(k ? "work-declared" : "reply"), .n = 3000});
            check_body(&c, rows[i].coded, TEXT, 3000);
            CHECK_STR(field(&c, "Content-Type"), rows[i].type);
            CHECK_INT(varies(&c), rows[i].coded);
            hang_up(&c);
        }
    }
    finish(&s);
}

TEST(types_by_default) {
    static const struct type_row rows[] = {
        {"text/html", true},
        {"text/plain; charset=utf-8", true},
        {"TEXT/CSS", true},
        {"text/x-own;a=b", true},
        {"application/json", true},
        {"application/problem+json", true},
        {"application/xml", true},
        {"application/atom+xml", true},
        {"application/javascript", true},
        {"application/wasm", true},
        {"image/svg+xml", true},
        {"image/png", false},
        {"image/jpeg", false},
        {"audio/mpeg", false},
        {"video/mp4", false},
        {"font/woff2", false},
        {"application/octet-stream", false},
        {"application/zip", false},
        {"application/jsonx", false},
        {"application/x-text/html", false},
        {"image/text", false},
    };
    check_types(NULL, rows, ROWS(rows));
}

TEST(types_of_a_list) {
    static const struct type_row rows[] = {
        {"text/plain", true},          {"text/x-any; charset=utf-8", true}, {"application/problem+json", true},
        {"image/x+JSON ;a=b", true},   {"application/x-exact", true},       {"Application/X-EXACT; q=1", true},
        {"image/png", true},           {"application/json", false},         {"application/x-exactly", false},
        {"application/x-exac", false}, {"x-application/x-exact", false},    {"image/jpeg", false},
        {"image/svg+xml", false},      {"application/json+x", false},
    };
    check_types("text/*, *+json,application/x-exact ,Image/PNG", rows, ROWS(rows));
}

// Everything is bounded, and an error in the configuration is told by httpsrv_listen.
TEST(bad_configurations) {
    static const httpsrv_config rows[] = {
        {.compress = {.level = HTTPSRV_ZERO}},
        {.compress = {.level = 10}},
        {.compress = {.min_size = -1}},
        {.compress = {.min_size = HTTPSRV_ZERO}},
        {.compress = {.large = HTTPSRV_ZERO}},
        {.compress = {.pool = "nowhere"}},
        {.compress = {.pool = "12345678901234567890123456789012"}},
    };
    for (size_t i = 0; i < ROWS(rows); i++) {
        httpsrv *srv = httpsrv_new(&rows[i]);
        NOTE("row %zu", i);
        CHECK(srv != NULL);
        CHECK_INT(httpsrv_on(srv, "GET /", on_hello, NULL), HTTPSRV_OK);
        CHECK_INT(httpsrv_listen(srv), HTTPSRV_ARG);
        CHECK_HAS(httpsrv_error(srv), "compress.");
        if (rows[i].compress.pool) CHECK_HAS(httpsrv_error(srv), rows[i].compress.pool);
        CHECK_INT(httpsrv_port(srv, 0), -1);
        httpsrv_free(srv);
    }
}

// ---- large answers are compressed elsewhere meanwhile ----

static const httpsrv_config one_zipper = {
    .pools = {{.name = "work", .threads = 2}, {.name = "zip", .threads = 1, .queue = 2}},
    .compress = {.pool = "zip", .large = 3000},
};

TEST(full_queue_means_uncompressed) {
    int queued = 0;
    open_server(&one_zipper);
    hold_pool("zip");
    while (httpsrv_submit(s.srv, "zip", hold_worker, NULL) == HTTPSRV_OK)
        queued++;
    CHECK_CMP(queued, >=, 2);
    for (size_t i = 0; i < ROWS(ways); i++) {
        if (ways[i].pool || ways[i].form != WHOLE || strstr(ways[i].name, "later")) continue;
        NOTE("%s", ways[i].name);
        struct client c = order(&(struct order){.way = &ways[i], .n = 100000});
        check_body(&c, false, TEXT, 100000);
        CHECK_INT(varies(&c), 1);
        check_kept(&c);
        hang_up(&c);
    }
    STORE(s.gate, 1);
    WAIT(LOAD(s.left) == queued + 1);
    struct client c = order(&(struct order){.way = way_named("reply"), .n = 100000});
    check_body(&c, true, TEXT, 100000);
    hang_up(&c);
    finish(&s);
}

TEST(pipelined_answers_keep_their_order) {
    enum { MOST = 60 };
    uint32_t state = 1;
    struct order orders[MOST];
    open_server(&(httpsrv_config){.reactors = 2, .compress = {.large = 20000}});
    for (int round = 0; round < 4; round++) {
        struct client c = dial(s.port);
        for (int i = 0; i < MOST; i++) {
            orders[i] = (struct order){.way = &ways[pick(&state, ROWS(ways))],
                                       .kind = pick(&state, 2) ? TEXT : ZEROS,
                                       .n = 2000 + pick(&state, 60000),
                                       .fields = pick(&state, 4) ? TAKES_GZIP : ""};
            put_order(&c, &orders[i]);
        }
        for (int i = 0; i < MOST; i++) {
            NOTE("round %d, %d: %s, %zu bytes", round, i, orders[i].way->name, orders[i].n);
            REPLY(&c);
            check_body(&c, *orders[i].fields != 0, orders[i].kind, orders[i].n);
        }
        hang_up(&c);
    }
    finish(&s);
}

static void say_closing_later(httpsrv_req *req, void *user) {
    const httpsrv_field closing = {HTTPSRV_STR("Connection"), HTTPSRV_STR("close")};
    const httpsrv_answer answer = {
        .status = 200, .type = "text/plain", .fields = &closing, .num_fields = 1, .body = body_of(req)};
    (void)user;
    settle(req, httpsrv_finish(s.srv, httpsrv_defer(req), &answer));
}

static void check_closing(const char *name, size_t n) {
    struct client c = dial(s.port);
    NOTE("%s, %zu bytes", name, n);
    SENDF(&c, "GET /%s/%d/%zu/0 HTTP/1.1\r\nHost: a\r\n" TAKES_GZIP "\r\n", name, (int)TEXT, n);
    REPLY(&c);
    check_body(&c, true, TEXT, n);
    CHECK(c.close);
    EXPECT_EOF(&c);
    hang_up(&c);
}

// Who wants the connection closed, before the request is deferred or with the answer, is heard wherever that is compressed.
TEST(large_answers_that_close) {
    static const char *const names[] = {"reply", "later", "lent-later", "closing-later"};
    set_up(&(httpsrv_config){.compress = {.large = 3000}}, 0);
    add_route("GET /closing-later/:kind/:n/:step", (httpsrv_route_config){.handler = say_closing_later});
    go(&s);
    for (size_t i = 0; i < ROWS(names); i++) {
        const bool by_itself = strcmp(names[i], "closing-later") == 0;
        wear(by_itself ? (struct dress){0} : (struct dress){.fields = {{"Connection", "close"}}});
        check_closing(names[i], 2999);
        check_closing(names[i], 3000);
        check_closing(names[i], 100000);
    }
    finish(&s);
}

// Asks for a large answer, which then waits for its compression.
static struct client order_held(void) {
    const int lent = LOAD(s.borrowed);
    hold_pool("zip");
    struct client c = dial(s.port);
    put_order(&c, &(struct order){.way = way_named("lent"), .n = 100000});
    WAIT(LOAD(s.borrowed) == lent + 1);
    return c;
}

static void let_go(struct client *c) {
    STORE(s.gate, 1);
    REPLY(c);
    check_body(c, true, TEXT, 100000);
    hang_up(c);
}

TEST(clients_that_leave_meanwhile) {
    open_server(&one_zipper);
    struct client warm = order(&(struct order){.way = way_named("lent"), .n = 100000});
    hang_up(&warm);
    const uint64_t before = memory_at_rest();
    for (int round = 0; round < 20; round++) {
        struct client c = order_held();
        if (round % 2)
            net_reset(&c);
        else
            hang_up(&c);
        test_sleep(round % 3 * 5);
        STORE(s.gate, 1);
        WAIT(LOAD(s.released) == LOAD(s.borrowed));
        check_alive(&s);
    }
    check_memory_is_back(before);
    finish(&s);
}

// The handler has answered in time, however long it takes until that is compressed.
TEST(handlers_are_timed_and_compression_is_not) {
    httpsrv_config config = one_zipper;
    config.timeout_ms.handler = 100;
    open_server(&config);
    struct client c = order_held();
    test_sleep(400);
    let_go(&c);
    finish(&s);
}

// An answer that is being compressed has begun: the drain waits for it.
TEST(drain_waits_for_what_is_compressed) {
    open_server(&one_zipper);
    struct client c = order_held();
    httpsrv_stop(s.srv);
    WAIT(httpsrv_draining(s.srv));
    test_sleep(50);
    let_go(&c);
    CHECK_INT(httpsrv_join(s.srv), HTTPSRV_OK);
    CHECK_INT(metrics(&s).drain_cut, 0);
    dispose(&s);
}

TEST(drain_cuts_what_is_compressed) {
    httpsrv_config config = one_zipper;
    config.timeout_ms.drain = 50;
    open_server(&config);
    struct client c = order_held();
    httpsrv_stop(s.srv);
    EXPECT_END(&c);
    STORE(s.gate, 1);
    hang_up(&c);
    CHECK_INT(httpsrv_join(s.srv), HTTPSRV_OK);
    WAIT(LOAD(s.left) == 1);
    dispose(&s);
}

// ---- answers in pieces ----

static httpsrv_token lines; // of the deferred answer

static void say_line(httpsrv_req *req, void *user) {
    (void)user;
    char line[40];
    const int n = LOAD(s.handled);
    const int len = snprintf(line, sizeof line, "line %d\n", n);
    CHECK(req != NULL);
    CHECK_INT(httpsrv_write(req, (httpsrv_str){line, (size_t)len}), HTTPSRV_OK);
    CHECK_INT(httpsrv_write(req, HTTPSRV_STR("")), HTTPSRV_OK);
    COUNT(s.handled);
    if (n == 9) CHECK_INT(httpsrv_end(req), HTTPSRV_OK);
}

static void say_lines(httpsrv_req *req, void *user) {
    CHECK_INT(httpsrv_begin(req, 200, "text/plain", -1), HTTPSRV_OK);
    lines = httpsrv_defer(req);
    CHECK(lines.id != 0);
    say_line(req, user);
}

static void say_lines_by_worker(httpsrv_req *req, void *user) {
    CHECK_INT(httpsrv_begin(req, 200, "text/plain", -1), HTTPSRV_OK);
    for (int i = 0; i < 10; i++) {
        say_line(req, user);
        while (LOAD(s.gate) <= i && i < 9)
            test_sleep(1);
    }
}

// The text of the chunk at hand, decoded so far.
static void read_chunk(struct client *c, z_stream *z, struct bytes *out) {
    char line[100];
    const size_t n = (size_t)net_number(c, net_line(c, line, sizeof line), "0123456789abcdefABCDEF", 16);
    NET_CHECK(c, n > 0, "the end of the body");
    net_need(c, n + 2);
    inflate_more(z, c->buf + c->at, n, out);
    c->at += n + 2;
}

// Each write can be read before the next one is made.
static void check_lines(const char *target, bool by_worker) {
    z_stream z = {0};
    struct bytes text = {0}, want = {0};
    struct client c = dial(s.port);
    CHECK_INT(inflateInit2(&z, 31), Z_OK);
    STORE(s.handled, 0);
    STORE(s.gate, 0);
    SENDF(&c, "GET %s HTTP/1.1\r\nHost: a\r\n" TAKES_GZIP "\r\n", target);
    net_read_head(&c);
    CHECK(is_coded(&c));
    append(&text, "", 0);
    for (int i = 0; i < 10; i++) {
        char line[40];
        snprintf(line, sizeof line, "line %d\n", i);
        append_text(&want, line);
        while (text.len < want.len)
            read_chunk(&c, &z, &text);
        CHECK_STR(text.ptr, want.ptr);
        COUNT(s.gate);
        if (!by_worker && i < 9) CHECK_INT(httpsrv_post(s.srv, lines, say_line, NULL), HTTPSRV_OK);
    }
    for (net_need(&c, 5); memcmp(c.buf + c.at, "0\r\n\r\n", 5) != 0; net_need(&c, 5))
        read_chunk(&c, &z, &text);
    c.at += 5;
    check_kept(&c);
    inflateEnd(&z);
    release_bytes(&text);
    release_bytes(&want);
    hang_up(&c);
}

TEST(each_write_is_flushed) {
    set_up(&(httpsrv_config){0}, 0);
    CHECK_INT(httpsrv_on(s.srv, "GET /lines", say_lines, NULL), HTTPSRV_OK);
    add_route("GET /work-lines", (httpsrv_route_config){.handler = say_lines_by_worker, .pool = "work"});
    go(&s);
    check_lines("/lines", false);
    check_lines("/work-lines", true);
    finish(&s);
}

// What is said about the length has to be so, though the client sees no length.
static void say_declared(httpsrv_req *req, void *user) {
    const size_t n = number_param(req, "n"), twice = 2 * number_param(req, "half");
    (void)user;
    CHECK_INT(httpsrv_begin(req, 200, "text/plain", (int64_t)n), HTTPSRV_OK);
    CHECK_INT(httpsrv_write(req, (httpsrv_str){sources[TEXT], twice / 2}), HTTPSRV_OK);
    const httpsrv_result result = httpsrv_write(req, (httpsrv_str){sources[TEXT] + twice / 2, twice / 2});
    if (twice > n)
        CHECK(result == HTTPSRV_TOOBIG);
    else
        CHECK_INT(httpsrv_end(req), twice < n ? HTTPSRV_TOOBIG : HTTPSRV_OK);
    COUNT(s.handled);
}

TEST(declared_lengths_hold) {
    static const struct {
        int n, half;
    } rows[] = {{8000, 4000}, {8000, 4001}, {8000, 3999}, {70000, 60000}, {70000, 100}};
    set_up(&(httpsrv_config){0}, 0);
    CHECK_INT(httpsrv_on(s.srv, "GET /d/:n/:half", say_declared, NULL), HTTPSRV_OK);
    add_route("GET /w/:n/:half", (httpsrv_route_config){.handler = say_declared, .pool = "work"});
    go(&s);
    for (size_t i = 0; i < 2 * ROWS(rows); i++) {
        const int n = rows[i / 2].n, half = rows[i / 2].half;
        const uint64_t before = item(HTTPSRV_LOG_BROKEN_OFF);
        struct client c = dial(s.port);
        NOTE("2 * %d of %d bytes, %s", half, n, i % 2 ? "by a worker" : "inline");
        SENDF(&c, "GET /%c/%d/%d HTTP/1.1\r\nHost: a\r\n" TAKES_GZIP "\r\n", i % 2 ? 'w' : 'd', n, half);
        if (2 * half == n) {
            REPLY(&c);
            check_body(&c, true, TEXT, (size_t)n);
            check_kept(&c);
        } else {
            net_until_end(&c);
            CHECK(memmem(c.buf, c.len, "\r\n0\r\n", 5) == NULL);
            WAIT(item(HTTPSRV_LOG_BROKEN_OFF) == before + 1);
        }
        hang_up(&c);
        check_alive(&s);
    }
    finish(&s);
}

static void say_with_trailer(httpsrv_req *req, void *user) {
    (void)user;
    CHECK_INT(httpsrv_begin(req, 200, "text/plain", 3000), HTTPSRV_OK);
    CHECK_INT(httpsrv_write(req, (httpsrv_str){sources[TEXT], 3000}), HTTPSRV_OK);
    CHECK_INT(httpsrv_add_trailer(req, "X-Sum", HTTPSRV_STR("7")), HTTPSRV_OK);
    CHECK_INT(httpsrv_end(req), HTTPSRV_OK);
}

static void say_half(httpsrv_req *req, void *user) {
    (void)user;
    CHECK_INT(httpsrv_begin(req, 200, "text/plain", -1), HTTPSRV_OK);
    CHECK_INT(httpsrv_write(req, (httpsrv_str){sources[TEXT], 3000}), HTTPSRV_OK);
    CHECK_INT(httpsrv_abort(req), HTTPSRV_OK);
}

TEST(ends_of_pieces) {
    set_up(&(httpsrv_config){0}, 0);
    CHECK_INT(httpsrv_on(s.srv, "GET /trailer", say_with_trailer, NULL), HTTPSRV_OK);
    CHECK_INT(httpsrv_on(s.srv, "GET /half", say_half, NULL), HTTPSRV_OK);
    go(&s);
    struct client c = ASK(&s, "GET /trailer HTTP/1.1\r\nHost: a\r\n" TAKES_GZIP "\r\n");
    check_body(&c, true, TEXT, 3000);
    CHECK(memmem(c.buf, c.at, "\r\n0\r\nX-Sum: 7\r\n\r\n", 17) != NULL);
    check_kept(&c);
    SEND(&c, "GET /half HTTP/1.1\r\nHost: a\r\n" TAKES_GZIP "\r\n");
    net_until_end(&c);
    CHECK(memmem(c.buf, c.len, "\r\n0\r\n\r\n", 7) == NULL);
    hang_up(&c);
    c = order(&(struct order){.way = way_named("pieces"), .n = 0}); // nobody knew that it would be so short
    check_body(&c, is_coded(&c), TEXT, 0);
    check_kept(&c);
    hang_up(&c);
    finish(&s);
}

// A client that does not read holds back who writes, and what waits for it does not grow.
TEST(slow_readers_of_pieces) {
    static const size_t total = 12 * MEGABYTE, step = 60000;
    for (size_t i = 0; i < ROWS(ways); i++) {
        const int bytes = 4096;
        if (ways[i].form == WHOLE) continue;
        NOTE("%s", ways[i].name);
        open_server(&(httpsrv_config){.write_mark = {.high = 65536, .low = 10000}, .compress = {.level = 1}});
        struct client c = net_client(net_socket(AF_INET));
        setsockopt(c.fd, SOL_SOCKET, SO_RCVBUF, &bytes, (socklen_t)sizeof bytes);
        NET_CHECK(&c, net_connect(c.fd, "127.0.0.1", s.port) == 0, "cannot connect");
        const size_t before = LOAD(s.bytes);
        put_order(&c, &(struct order){.way = &ways[i], .kind = NOISE, .n = total, .step = step});
        test_sleep(test_ms(200));
        CHECK_CMP(metrics(&s).bytes_out, <, total);
        const int wide = 1 << 20;
        setsockopt(c.fd, SOL_SOCKET, SO_RCVBUF, &wide, (socklen_t)sizeof wide);
        REPLY(&c);
        check_body(&c, true, NOISE, total);
        CHECK_CMP(LOAD(s.peak), <, before + 65536 + 4 * step + ZLIB_MEMORY); // all of a piece is taken, or nothing
        check_kept(&c);
        hang_up(&c);
        finish(&s);
    }
}

TEST(readers_of_pieces_that_leave) {
    open_server(&(httpsrv_config){.write_mark = {.high = 65536, .low = 10000}});
    struct client warm = order(&(struct order){.way = way_named("work-pieces"), .n = 100000});
    hang_up(&warm);
    const uint64_t before = memory_at_rest();
    for (size_t i = 0; i < 3 * ROWS(ways); i++) {
        const struct way *way = &ways[i % ROWS(ways)];
        if (way->form == WHOLE) continue;
        struct client c = dial(s.port);
        NOTE("%s", way->name);
        put_order(&c, &(struct order){.way = way, .kind = NOISE, .n = 30 * MEGABYTE});
        net_need(&c, 100000);
        if (i % 2)
            net_reset(&c);
        else
            hang_up(&c);
        check_alive(&s);
    }
    check_memory_is_back(before);
    finish(&s);
}

// ---- requests ----

enum framing { LENGTH, CHUNKED, FRAMINGS };

struct post {
    const char *target;
    const struct bytes *body;
    const char *fields; // [IN_GZIP]
    enum framing framing;
    size_t step; // bytes of the body that are sent at a time [all, and the head as well]
};

static void append_chunks(struct bytes *out, const struct bytes *body) {
    for (size_t at = 0, n; at < body->len; at += n) {
        char size[30];
        n = 1 + (at * 31 + 6) % 20000;
        if (n > body->len - at) n = body->len - at;
        snprintf(size, sizeof size, "%zx\r\n", n);
        append_text(out, size);
        append(out, body->ptr + at, n);
        append_text(out, "\r\n");
    }
    append_text(out, "0\r\n\r\n");
}

// Sends as much as the server takes: it may have seen enough before the end.
static void send_post(struct client *c, const struct post *p) {
    char head[500];
    struct bytes out = {0};
    const char *fields = p->fields ? p->fields : IN_GZIP;
    snprintf(head, sizeof head, "POST %s HTTP/1.1\r\nHost: a\r\n%s", p->target, fields);
    append_text(&out, head);
    snprintf(head, sizeof head, "Content-Length: %zu\r\n\r\n", p->body->len);
    append_text(&out, p->framing == LENGTH ? head : "Transfer-Encoding: chunked\r\n\r\n");
    const size_t first = p->step ? out.len : SIZE_MAX;
    if (p->framing == LENGTH)
        append(&out, p->body->ptr, p->body->len);
    else
        append_chunks(&out, p->body);
    for (size_t at = 0, n; at < out.len; at += n) {
        n = at == 0 ? first : p->step;
        if (n > out.len - at) n = out.len - at;
        if (net_send_some(c, out.ptr + at, n, net_deadline()) < n) break;
        if (p->step && p->step < 100) nanosleep(&(struct timespec){0, 100000}, NULL);
    }
    release_bytes(&out);
}

// The answer to a post on a connection of its own.
static struct client post(const struct post *p) {
    struct client c = dial(s.port);
    send_post(&c, p);
    net_reply(&c, false);
    return c;
}

static void check_sum(struct client *c, const char *plain, size_t len) {
    char want[100];
    snprintf(want, sizeof want, "%zu bytes, CRC %08lx", len, crc32(0, (const Bytef *)plain, (uInt)len));
    CHECK_INT(c->status, 200);
    CHECK_MEM(c->body, c->body_len, want, strlen(want));
    check_kept(c);
}

static void check_post(const struct post *p, const char *plain, size_t len) {
    struct client c = post(p);
    check_sum(&c, plain, len);
    hang_up(&c);
}

// A refusal is delivered, and then the connection ends; or it lives on if all of the body has been read.
static void check_refused(const struct post *p, int status, httpsrv_log_item why) {
    const uint64_t before = item(why);
    struct client c = post(p);
    CHECK_INT(c.status, status);
    CHECK_INT(item(why), before + 1);
    if (status != 415) CHECK(c.close);
    if (status == 415) CHECK_STR(field(&c, "Accept-Encoding"), "gzip");
    if (c.close) CHECK_INT(net_until_end(&c), 0);
    hang_up(&c);
    check_alive(&s);
}

#define POSTS (ROWS(sinks) * FRAMINGS)

// Each way to send a body to each way to take it.
static struct post nth_post(size_t i, const struct bytes *body) {
    return (struct post){
        .target = sinks[i / FRAMINGS % ROWS(sinks)].path, .framing = (enum framing)(i % FRAMINGS), .body = body};
}

// The coded forms that a body may have.
enum shape { ONE_MEMBER, TWO_MEMBERS, EMPTY_BETWEEN, DECORATED, STORED, MANY, SHAPES };

static struct bytes shaped(enum shape shape, const char *ptr, size_t len) {
    struct bytes out = {0};
    const size_t half = len / 2;
    gz_header header = {.text = 1, .time = 12345, .os = 3, .hcrc = 1};
    header.name = (Bytef *)(uintptr_t) "name";
    header.comment = (Bytef *)(uintptr_t) "comment";
    header.extra = (Bytef *)(uintptr_t) "extra\0bytes";
    header.extra_len = 11;
    switch (shape) {
    case DECORATED: append_member(&out, ptr, len, 9, &header); return out;
    case STORED: append_member(&out, ptr, len, 0, NULL); return out;
    case MANY:
        for (size_t at = 0; at < len; at += 10)
            append_member(&out, ptr + at, len - at < 10 ? len - at : 10, 6, NULL);
        return out;
    case ONE_MEMBER: append_member(&out, ptr, len, 6, NULL); return out;
    default: break;
    }
    append_member(&out, ptr, half, 6, NULL);
    if (shape == EMPTY_BETWEEN) append_member(&out, "", 0, 6, NULL);
    append_member(&out, ptr + half, len - half, 1, shape == EMPTY_BETWEEN ? &header : NULL);
    return out;
}

TEST(every_way_to_read) {
    static const struct {
        size_t n, step;
    } rows[] = {{0, 0}, {1, 1}, {60, 1}, {300, 0}, {20000, 0}, {100000, 0}, {300000, 1000}};
    open_server(&(httpsrv_config){0});
    for (size_t i = 0; i < ROWS(rows) * SHAPES * POSTS; i++) {
        const size_t row = i / POSTS / SHAPES, n = rows[row].n;
        const enum shape shape = (enum shape)(i / POSTS % SHAPES);
        if (shape == MANY && (n == 0 || n > 20000)) continue;
        struct bytes coded = shaped(shape, sources[MIXED], n);
        struct post p = nth_post(i, &coded);
        p.step = rows[row].step;
        NOTE("%s, row %zu, shape %d, framing %d", p.target, row, (int)shape, (int)p.framing);
        check_post(&p, sources[MIXED], n);
        release_bytes(&coded);
    }
    finish(&s);
}

// No bytes at all are no body, whatever coding they are said to have.
TEST(empty_bodies) {
    struct bytes none = {0};
    open_server(&(httpsrv_config){0});
    for (size_t i = 0; i < POSTS; i++) {
        const struct post p = nth_post(i, &none);
        NOTE("%s, framing %d", p.target, (int)p.framing);
        check_post(&p, "", 0);
        struct client c = dial(s.port);
        SENDF(&c, "PUT %s HTTP/1.1\r\nHost: a\r\n" IN_GZIP "\r\n", p.target);
        REPLY(&c);
        check_sum(&c, "", 0);
        hang_up(&c);
    }
    finish(&s);
}

// The next request in the same segment is not the decoder's.
TEST(pipelined_behind_coded_bodies) {
    struct bytes coded = zipped(TEXT, 5000), out = {0};
    char head[200];
    open_server(&(httpsrv_config){0});
    for (size_t i = 0; i < ROWS(sinks); i++) {
        struct client c = dial(s.port);
        NOTE("%s", sinks[i].path);
        out.len = 0;
        for (int k = 0; k < 6; k++) {
            const bool chunked = k % 2 == 1;
            snprintf(head, sizeof head, "POST %s HTTP/1.1\r\nHost: a\r\n" IN_GZIP "Content-Length: %zu\r\n\r\n",
                     sinks[i].path, coded.len);
            if (chunked) strcpy(strstr(head, "Content-Length"), "Transfer-Encoding: chunked\r\n\r\n");
            append_text(&out, head);
            if (chunked)
                append_chunks(&out, &coded);
            else
                append(&out, coded.ptr, coded.len);
        }
        net_send(&c, out.ptr, out.len);
        for (int k = 0; k < 6; k++) {
            REPLY(&c);
            CHECK_INT(c.status, 200);
            CHECK_HAS(c.body, "5000 bytes, CRC ");
        }
        check_kept(&c);
        hang_up(&c);
    }
    release_bytes(&coded);
    release_bytes(&out);
    finish(&s);
}

TEST(codings_of_bodies) {
    enum { PLAIN, CODED, REFUSED };
    static const struct {
        const char *fields;
        int to_be;
    } rows[] = {
        {"", PLAIN},
        {"Content-Encoding: identity\r\n", PLAIN},
        {"content-encoding: Identity\r\n", PLAIN},
        {"Content-Encoding: gzip\r\n", CODED},
        {"Content-Encoding: GZIP\r\n", CODED},
        {"content-encoding: x-gzip\r\n", CODED},
        {"Content-Encoding: X-Gzip \r\n", CODED},
        {"Content-Encoding: deflate\r\n", REFUSED},
        {"Content-Encoding: br\r\n", REFUSED},
        {"Content-Encoding: gzi\r\n", REFUSED},
        {"Content-Encoding: gzipped\r\n", REFUSED},
        {"Content-Encoding: *\r\n", REFUSED},
        {"Content-Encoding: gzip;q=1\r\n", REFUSED},
        {"Content-Encoding: gzip, gzip\r\n", REFUSED},
        {"Content-Encoding: deflate, gzip\r\n", REFUSED},
        {"Content-Encoding: gzip\r\nContent-Encoding: gzip\r\n", REFUSED},
        {"Content-Encoding: gzip\r\nX-Between: a\r\nContent-Encoding: br\r\n", REFUSED},
        {"Content-Encoding: identity\r\nContent-Encoding: br\r\n", REFUSED},
    };
    struct bytes coded = zipped(TEXT, 3000);
    open_server(&(httpsrv_config){0});
    for (size_t i = 0; i < ROWS(rows) * POSTS; i++) {
        const size_t row = i / POSTS;
        struct post p = nth_post(i, &coded);
        p.fields = rows[row].fields;
        NOTE("%s%s, framing %d", rows[row].fields, p.target, (int)p.framing);
        if (rows[row].to_be == REFUSED)
            check_refused(&p, 415, HTTPSRV_LOG_UNKNOWN_CONTENT);
        else if (rows[row].to_be == CODED)
            check_post(&p, sources[TEXT], 3000);
        else
            check_post(&p, coded.ptr, coded.len);
    }
    release_bytes(&coded);
    finish(&s);
}

TEST(routes_that_do_not_decode) {
    struct bytes coded = zipped(TEXT, 3000);
    struct post p = {.target = "/as-it-is", .body = &coded};
    open_server(&(httpsrv_config){0});
    check_post(&p, coded.ptr, coded.len);
    p.fields = "Content-Encoding: br\r\n";
    check_post(&p, coded.ptr, coded.len);
    release_bytes(&coded);
    finish(&s);
}

// Nobody is asked to go on with a body that will not be taken.
TEST(expectations) {
    struct bytes coded = zipped(TEXT, 3000);
    open_server(&(httpsrv_config){0});
    for (size_t i = 0; i < ROWS(sinks); i++) {
        NOTE("%s", sinks[i].path);
        struct client c = dial(s.port);
        SENDF(
            &c,
            "POST %s HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Encoding: br\r\nContent-Length: 5\r\n\r\n",
            sinks[i].path);
        EXPECT(&c, 415, NULL);
        CHECK_STR(field(&c, "Accept-Encoding"), "gzip");
        hang_up(&c);
        c = dial(s.port);
        SENDF(&c, "POST %s HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n" IN_GZIP "Content-Length: %zu\r\n\r\n",
              sinks[i].path, coded.len);
        REPLY(&c);
        CHECK_INT(c.status, 100);
        net_send(&c, coded.ptr, coded.len);
        REPLY(&c);
        check_sum(&c, sources[TEXT], 3000);
        hang_up(&c);
    }
    release_bytes(&coded);
    finish(&s);
}

static void say_early(httpsrv_req *req, httpsrv_str piece, bool last, void *user) {
    (void)piece, (void)last, (void)user;
    settle(req, httpsrv_reply(req, 200, NULL, HTTPSRV_STR("early")));
}

static void leave_to_pieces(httpsrv_req *req, void *user) {
    (void)req, (void)user;
}

static void read_some_and_say(httpsrv_req *req, void *user) {
    char piece[100];
    (void)user;
    const ptrdiff_t n = httpsrv_read(req, piece, sizeof piece);
    CHECK(n > 0 || n == HTTPSRV_GONE);
    settle(req, httpsrv_reply(req, 200, NULL, HTTPSRV_STR("early")));
}

// An answer before the end of the body: what is left of it is of no interest any more, whether received, decoded or
// neither, and even if it is no gzip.
TEST(answers_before_the_end_of_the_body) {
    static const char *const targets[] = {"/early", "/early-read"};
    struct bytes bodies[4] = {bomb(1), bomb(18), zipped(MIXED, 300000), zipped(MIXED, 300000)};
    memset(bodies[3].ptr + 100000, '?', 1000);
    set_up(&(httpsrv_config){.write_mark = {.high = 10000, .low = 100}}, 0);
    add_route("POST /early",
              (httpsrv_route_config){.handler = leave_to_pieces, .on_body = say_early, .gunzip = true, .max_body = -1});
    add_reader("POST /early-read", read_some_and_say);
    go(&s);
    for (size_t i = 0; i < ROWS(targets) * ROWS(bodies) * FRAMINGS * 2; i++) {
        const size_t body = i / 2 / FRAMINGS % ROWS(bodies);
        struct post p = {.target = targets[i / 2 / FRAMINGS / ROWS(bodies)], .body = &bodies[body]};
        p.framing = (enum framing)(i / 2 % FRAMINGS);
        p.step = i % 2 ? 5000 : 0;
        NOTE("%s, body %zu, framing %d, step %zu", p.target, body, (int)p.framing, p.step);
        struct client c = dial(s.port);
        send_post(&c, &p);
        EXPECT(&c, 200, "early");
        if (c.close)
            EXPECT_EOF(&c);
        else
            check_kept(&c);
        hang_up(&c);
    }
    for (size_t i = 0; i < ROWS(bodies); i++)
        release_bytes(&bodies[i]);
    finish(&s);
}

// ---- bodies that are not what they say ----

struct flaw {
    const char *what;
    int at; // the byte that is changed, or what is cut off; negative: from the end
    unsigned char flip, set;
    bool cut;
    const char *more; // that follows
    size_t more_len;
};

#define MORE(text) .more = (text), .more_len = sizeof(text) - 1

static const struct flaw flaws[] = {
    {"CRC, first byte", .at = -8, .flip = 1},
    {"CRC, last byte", .at = -5, .flip = 0x80},
    {"size, first byte", .at = -4, .flip = 1},
    {"size, last byte", .at = -1, .flip = 0x80},
    {"no magic", .at = 0, .flip = 1},
    {"half a magic", .at = 1, .flip = 1},
    {"another method", .at = 2, .set = 7},
    {"a reserved flag", .at = 3, .set = 0x80},
    {"a block of no type", .at = 10, .set = 7},
    {"damaged data", .at = 14, .flip = 0xff},
    {"a byte missing", .at = -1, .cut = true},
    {"half its size missing", .at = -2, .cut = true},
    {"its size missing", .at = -4, .cut = true},
    {"CRC and size missing", .at = -8, .cut = true},
    {"the end of the data missing", .at = -10, .cut = true},
    {"a head alone", .at = 10, .cut = true},
    {"half a head", .at = 5, .cut = true},
    {"a byte", .at = 1, .cut = true},
    {"a letter behind", MORE("x")},
    {"a line end behind", MORE("\n")},
    {"a zero behind", MORE("\0")},
    {"zeros behind", MORE("\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0")},
    {"text behind", MORE("nothing that begins like a member does")},
    {"half a magic behind", MORE("\x1f")},
    {"a magic behind", MORE("\x1f\x8b")},
    {"a head behind", MORE("\x1f\x8b\x08\0\0\0\0\0\0\3")},
    {"another format behind", MORE("\x1f\x8b\x07\0\0\0\0\0\0\3")},
    {"text instead", .at = 1, .cut = true, MORE("ext that is not coded at all")},
};

static struct bytes flawed(const struct flaw *flaw, const char *ptr, size_t len) {
    struct bytes out = shaped(ONE_MEMBER, ptr, len);
    const size_t at = flaw->at < 0 ? out.len - (size_t)-flaw->at : (size_t)flaw->at;
    CHECK_CMP(at, <, out.len);
    if (flaw->cut) out.len = at;
    if (flaw->flip) out.ptr[at] = (char)((unsigned char)out.ptr[at] ^ flaw->flip);
    if (flaw->set) out.ptr[at] = (char)flaw->set;
    append(&out, flaw->more, flaw->more_len);
    return out;
}

static void check_flawed(const struct bytes *coded, const char *what) {
    for (size_t i = 0; i < POSTS * 2; i++) {
        struct post p = nth_post(i, coded);
        p.step = i / POSTS;
        NOTE("%s, %s, framing %d, step %zu", what, p.target, (int)p.framing, p.step);
        check_refused(&p, 400, HTTPSRV_LOG_BAD_CONTENT);
    }
}

TEST(damaged_bodies) {
    open_server(&(httpsrv_config){0});
    for (size_t i = 0; i < ROWS(flaws); i++) {
        struct bytes coded = flawed(&flaws[i], sources[TEXT], 40);
        check_flawed(&coded, flaws[i].what);
        release_bytes(&coded);
    }
    CHECK_INT(LOAD(taken), 0);
    finish(&s);
}

// The same far into a body: what was right before it has been taken by then, except where all of it is awaited.
TEST(damaged_large_bodies) {
    open_server(&(httpsrv_config){0});
    for (const struct flaw *flaw = flaws; flaw < flaws + ROWS(flaws); flaw++) {
        if (flaw->at > 1) continue;
        struct bytes coded = flawed(flaw, sources[MIXED], 400000);
        for (size_t i = 0; i < POSTS; i++) {
            const struct post p = nth_post(i, &coded);
            NOTE("%s, %s, framing %d", flaw->what, p.target, (int)p.framing);
            check_refused(&p, 400, HTTPSRV_LOG_BAD_CONTENT);
        }
        release_bytes(&coded);
    }
    CHECK_INT(LOAD(taken), 0);
    finish(&s);
}

TEST(zlib_format_is_not_gzip) {
    char coded[200];
    uLongf len = sizeof coded;
    struct bytes body = {0};
    CHECK_INT(compress((Bytef *)coded, &len, (const Bytef *)sources[TEXT], 100), Z_OK);
    append(&body, coded, len);
    open_server(&(httpsrv_config){0});
    check_flawed(&body, "zlib format");
    release_bytes(&body);
    finish(&s);
}

// A body that ends anywhere before its end.
TEST(cut_bodies) {
    struct bytes whole = shaped(EMPTY_BETWEEN, sources[TEXT], 60);
    struct bytes parts[] = {shaped(ONE_MEMBER, sources[TEXT], 30), shaped(ONE_MEMBER, "", 0)};
    const size_t first = parts[0].len, second = first + parts[1].len;
    open_server(&(httpsrv_config){0});
    for (size_t len = 1; len < whole.len; len++) {
        struct bytes part = whole;
        const struct post p = nth_post(len, &part);
        part.len = len;
        NOTE("%zu of %zu bytes", len, whole.len);
        if (len == first || len == second)
            check_post(&p, sources[TEXT], 30); // the members until there are a body
        else
            check_refused(&p, 400, HTTPSRV_LOG_BAD_CONTENT);
    }
    release_bytes(&parts[0]);
    release_bytes(&parts[1]);
    release_bytes(&whole);
    finish(&s);
}

// ---- limits ----

#define LIMIT 20000

static void open_limited(void) {
    set_up(&(httpsrv_config){0}, LIMIT);
    go(&s);
}

static void check_limit(const struct post *p, bool over, const char *plain, size_t len) {
    if (over)
        check_refused(p, 413, HTTPSRV_LOG_BODY_TOO_LARGE);
    else
        check_post(p, plain, len);
}

TEST(decoded_size) {
    static const enum kind kinds[] = {TEXT, ZEROS};
    open_limited();
    for (size_t i = 0; i < ROWS(kinds) * POSTS * 2; i++) {
        const enum kind kind = kinds[i / 2 / POSTS];
        const bool over = i / POSTS % 2;
        struct bytes coded = zipped(kind, LIMIT + (over ? 1 : 0));
        const struct post p = nth_post(i, &coded);
        NOTE("kind %d, %s, framing %d, %s the limit", (int)kind, p.target, (int)p.framing, over ? "over" : "at");
        check_limit(&p, over, sources[kind], LIMIT);
        release_bytes(&coded);
    }
    finish(&s);
}

// Members of nothing: their decoded size is none, however long they are.
TEST(encoded_size) {
    open_limited();
    struct bytes member = shaped(ONE_MEMBER, "", 0), coded = {0};
    for (size_t i = 0; i < POSTS * 2; i++) {
        const bool over = i >= POSTS;
        while (coded.len + member.len <= LIMIT || (over && coded.len <= LIMIT))
            append(&coded, member.ptr, member.len);
        const struct post p = nth_post(i, &coded);
        NOTE("%zu bytes, %s, framing %d", coded.len, p.target, (int)p.framing);
        check_limit(&p, over, "", 0);
    }
    release_bytes(&coded);
    release_bytes(&member);
    finish(&s);
}

// The server's own limit where the route has none, 1 MB, and one byte less.
TEST(bombs_at_the_default_limit) {
    struct bytes coded = bomb(1);
    for (size_t i = 0; i < POSTS * 2; i++) {
        const struct post p = nth_post(i, &coded);
        open_server(&(httpsrv_config){.max = {.body = i / POSTS ? MEGABYTE - 1 : 0}});
        NOTE("%zu bytes, %s, limit %zu", coded.len, p.target, i / POSTS);
        check_limit(&p, i >= POSTS, sources[ZEROS], MEGABYTE);
        finish(&s);
    }
    release_bytes(&coded);
}

TEST(bombs_take_no_memory) {
    struct bytes coded = bomb(18);
    open_limited();
    CHECK_CMP(coded.len, <, LIMIT);
    for (size_t i = 0; i < POSTS; i++) {
        const struct post p = nth_post(i, &coded);
        const size_t before = LOAD(s.bytes);
        STORE(s.peak, before);
        NOTE("%s, framing %d", p.target, (int)p.framing);
        check_refused(&p, 413, HTTPSRV_LOG_BODY_TOO_LARGE);
        CHECK_CMP(LOAD(s.peak), <, before + 3 * LIMIT + ZLIB_MEMORY);
    }
    release_bytes(&coded);
    finish(&s);
}

// Who takes a body in pieces needs no memory for it, however much it is.
TEST(large_bodies_in_fixed_memory) {
    struct bytes coded = bomb(64);
    uLong crc = 0;
    char want[100];
    for (int i = 0; i < 64; i++)
        crc = crc32(crc, (const Bytef *)sources[ZEROS], MEGABYTE);
    snprintf(want, sizeof want, "%u bytes, CRC %08lx", 64 * MEGABYTE, crc);
    set_up(&(httpsrv_config){0}, -1);
    go(&s);
    for (size_t i = BUFFERING; i < ROWS(sinks); i++) {
        NOTE("%s", sinks[i].path);
        STORE(s.peak, LOAD(s.bytes));
        struct client c = post(&(struct post){.target = sinks[i].path, .body = &coded});
        CHECK_INT(c.status, 200);
        CHECK_MEM(c.body, c.body_len, want, strlen(want));
        CHECK_CMP(LOAD(s.peak), <, MEGABYTE + ZLIB_MEMORY);
        hang_up(&c);
    }
    release_bytes(&coded);
    finish(&s);
}

// A worker that reads nothing yet holds back the decoder, whatever has arrived; and all of it arrives in the end.
TEST(readers_that_take_their_time) {
    struct bytes coded = bomb(32);
    set_up(&(httpsrv_config){.write_mark = {.high = 65536, .low = 10000}}, 0);
    add_reader("POST /gate", take_at_gate);
    go(&s);
    for (int i = 0; i < FRAMINGS; i++) {
        struct client c = dial(s.port);
        STORE(s.gate, 0);
        STORE(s.peak, LOAD(s.bytes));
        send_post(&c, &(struct post){.target = "/gate", .body = &coded, .framing = (enum framing)i});
        EXPECT_SILENCE(&c, 100);
        CHECK_CMP(LOAD(s.peak), <, MEGABYTE);
        STORE(s.gate, 1);
        REPLY(&c);
        CHECK_INT(c.status, 200);
        CHECK_HAS(c.body, "33554432 bytes");
        check_kept(&c);
        hang_up(&c);
    }
    release_bytes(&coded);
    finish(&s);
}

// What is decoded counts in the memory that the server may take.
TEST(max_memory) {
    struct bytes coded = bomb(32);
    set_up(&(httpsrv_config){.max = {.memory = 2 * MEGABYTE}}, -1);
    go(&s);
    for (size_t i = 0; i < BUFFERING; i++) {
        NOTE("%s", sinks[i].path);
        struct client c = post(&(struct post){.target = sinks[i].path, .body = &coded});
        CHECK_INT(c.status, 503);
        CHECK_CMP(LOAD(s.peak), <=, 2 * MEGABYTE + 65536);
        hang_up(&c);
        check_alive(&s);
    }
    release_bytes(&coded);
    finish(&s);
}

// ---- together with other things ----

static void take_form(httpsrv_req *req, void *user) {
    httpsrv_form_data form;
    (void)user;
    CHECK_INT(httpsrv_read_form(req, NULL, &form), HTTPSRV_OK);
    CHECK_INT(form.num_parts, 2);
    httpsrv_reply(req, 200, NULL, form.parts[1].data);
}

TEST(forms) {
    static const char form[] = "a=1&b=two+words%21";
    static const char multi[] = "--x\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n"
                                "--x\r\nContent-Disposition: form-data; name=b\r\n\r\ntwo words!\r\n--x--\r\n";
    set_up(&(httpsrv_config){0}, 0);
    add_route("POST /form", (httpsrv_route_config){.handler = take_form, .gunzip = true});
    add_reader("POST /form-stream", take_form);
    go(&s);
    for (int i = 0; i < 4; i++) {
        struct bytes coded =
            i % 2 ? shaped(TWO_MEMBERS, multi, sizeof multi - 1) : shaped(ONE_MEMBER, form, sizeof form - 1);
        struct post p = {.target = i / 2 ? "/form-stream" : "/form", .body = &coded};
        p.fields = i % 2 ? IN_GZIP "Content-Type: multipart/form-data; boundary=x\r\n"
                         : IN_GZIP "Content-Type: application/x-www-form-urlencoded\r\n";
        NOTE("%s %d", p.target, i % 2);
        struct client c = post(&p);
        CHECK_MEM(c.body, c.body_len, "two words!", 10);
        hang_up(&c);
        release_bytes(&coded);
    }
    finish(&s);
}

// A host's own loop is woken when a worker has compressed something.
TEST(in_a_loop_of_the_host) {
    struct bytes coded = zipped(MIXED, 200000);
    set_up(&(httpsrv_config){.compress = {.large = 10000}}, 0);
    go_polled(&s);
    for (size_t i = 0; i < ROWS(ways); i++) {
        NOTE("%s", ways[i].name);
        struct client c = order(&(struct order){.way = &ways[i], .n = 30000});
        check_body(&c, true, TEXT, 30000);
        hang_up(&c);
    }
    for (size_t i = 0; i < POSTS; i++) {
        const struct post p = nth_post(i, &coded);
        NOTE("%s", p.target);
        check_post(&p, sources[MIXED], 200000);
    }
    release_bytes(&coded);
    finish(&s);
}

// Coded both ways at once, with neither of them ever complete in memory.
TEST(there_and_back) {
    static const size_t sizes[] = {0, 1, 5000, 3000000};
    open_server(&(httpsrv_config){0});
    for (size_t i = 0; i < ROWS(sizes); i++) {
        struct bytes coded = zipped(MIXED, sizes[i]);
        struct post p = {.target = "/cat", .body = &coded, .framing = CHUNKED, .fields = IN_GZIP TAKES_GZIP};
        NOTE("%zu bytes", sizes[i]);
        struct client c = dial(s.port);
        send_post(&c, &p);
        REPLY(&c);
        check_body(&c, is_coded(&c), MIXED, sizes[i]);
        CHECK(sizes[i] == 0 || is_coded(&c));
        check_kept(&c);
        hang_up(&c);
        release_bytes(&coded);
    }
    finish(&s);
}

static void say_much_at_the_end(httpsrv_req *req, httpsrv_str piece, bool last, void *user) {
    (void)piece, (void)user;
    if (last) settle(req, httpsrv_reply(req, 200, "text/plain", (httpsrv_str){sources[TEXT], 100000}));
}

static void read_all_and_say_much(httpsrv_req *req, void *user) {
    char piece[5000];
    ptrdiff_t n;
    while ((n = httpsrv_read(req, piece, sizeof piece)) > 0)
        continue;
    CHECK(n == 0 || n == HTTPSRV_GONE);
    say_much_at_the_end(req, (httpsrv_str){NULL, 0}, n == 0, user);
}

static void take_all_and_say_much(httpsrv_req *req, void *user) {
    CHECK_INT(httpsrv_body(req).len, 60000);
    say_much_at_the_end(req, httpsrv_body(req), true, user);
}

// Several of them in a row, from a client that has finished sending.
TEST(large_answers_to_coded_bodies) {
    static const char *const targets[] = {"/on-body-much", "/read-much", "/whole-much"};
    struct bytes coded = zipped(MIXED, 60000);
    set_up(&(httpsrv_config){0}, 0);
    add_route("POST /on-body-much",
              (httpsrv_route_config){.handler = leave_to_pieces, .on_body = say_much_at_the_end, .gunzip = true});
    add_reader("POST /read-much", read_all_and_say_much);
    add_route("POST /whole-much", (httpsrv_route_config){.handler = take_all_and_say_much, .gunzip = true});
    go(&s);
    for (size_t i = 0; i < ROWS(targets) * FRAMINGS; i++) {
        struct post p = {.target = targets[i / FRAMINGS], .body = &coded, .framing = (enum framing)(i % FRAMINGS)};
        struct client c = dial(s.port);
        p.fields = IN_GZIP TAKES_GZIP;
        NOTE("%s, framing %d", p.target, (int)p.framing);
        for (int k = 0; k < 3; k++)
            send_post(&c, &p);
        half_close(&c);
        for (int k = 0; k < 3; k++) {
            REPLY(&c);
            check_body(&c, true, TEXT, 100000);
        }
        EXPECT_EOF(&c);
        hang_up(&c);
    }
    release_bytes(&coded);
    finish(&s);
}

// ---- many at once ----

#define STORM_CLIENTS 4

static void storm_get(struct client *c, uint32_t *state) {
    const struct way *way = &ways[pick(state, ROWS(ways))];
    const enum kind kind = (enum kind)pick(state, KINDS);
    const size_t most = pick(state, 5) ? 30000 : 300000, n = pick(state, (uint32_t)most);
    const bool takes = pick(state, 4) > 0;
    put_order(c,
              &(struct order){
                  .way = way, .kind = kind, .n = n, .step = 1 + pick(state, 20000), .fields = takes ? TAKES_GZIP : ""});
    net_reply(c, false);
    CHECK_INT(c->status, 200);
    if (!takes) CHECK(!is_coded(c));
    if (takes && n >= 1024 && (kind == TEXT || kind == ZEROS)) CHECK(is_coded(c));
    check_body(c, is_coded(c), kind, n);
}

static void storm_post(struct client *c, uint32_t *state) {
    const enum kind kind = (enum kind)pick(state, KINDS);
    const size_t n = pick(state, pick(state, 5) ? 20000 : 200000);
    struct bytes coded = shaped((enum shape)pick(state, MANY), sources[kind], n);
    send_post(c, &(struct post){.target = sinks[pick(state, ROWS(sinks))].path,
                                .body = &coded,
                                .framing = (enum framing)pick(state, FRAMINGS),
                                .step = pick(state, 2) ? 100 + pick(state, 30000) : 0});
    net_reply(c, false);
    check_sum(c, sources[kind], n);
    release_bytes(&coded);
}

static void *storm(void *arg) {
    uint32_t state = (uint32_t)(uintptr_t)arg;
    struct client c = dial_port(s.port);
    for (int i = 0; i < TEST_FEWER(400, 8); i++) {
        if (pick(&state, 2))
            storm_get(&c, &state);
        else
            storm_post(&c, &state);
        if (pick(&state, 20)) continue;
        if (pick(&state, 2)) put_order(&c, &(struct order){.way = &ways[pick(&state, ROWS(ways))], .n = 200000});
        hang_up(&c);
        c = dial_port(s.port);
    }
    hang_up(&c);
    return NULL;
}

TEST(storm_of_both) {
    pthread_t threads[STORM_CLIENTS];
    open_server(&(httpsrv_config){.reactors = 2, .compress = {.large = 10000}});
    for (size_t i = 0; i < STORM_CLIENTS; i++)
        CHECK_INT(pthread_create(&threads[i], NULL, storm, (void *)(i + 1)), 0);
    for (size_t i = 0; i < STORM_CLIENTS; i++)
        CHECK_INT(pthread_join(threads[i], NULL), 0);
    CHECK_INT(item(HTTPSRV_LOG_BAD_CONTENT), 0);
    finish(&s);
}

// ---- allocations that fail, one after the other ----

// Reads to the end of the connection; whether a complete answer was there.
static bool answered(struct client *c) {
    static const char chunked[] = "Transfer-Encoding: chunked", length[] = "Content-Length: ";
    net_until_end(c);
    const char *end = c->len ? (const char *)memmem(c->buf, c->len, "\r\n\r\n", 4) : NULL;
    if (!end) return false;
    const size_t head = (size_t)(end - c->buf) + 4;
    if (memmem(c->buf, head, chunked, sizeof chunked - 1)) return memcmp(c->buf + c->len - 5, "0\r\n\r\n", 5) == 0;
    const char *number = (const char *)memmem(c->buf, head, length, sizeof length - 1);
    return number && c->len - head == strtoul(number + sizeof length - 1, NULL, 10);
}

struct trial {
    const struct way *way;   // of an answer, or
    const struct sink *sink; // of a body
    size_t n;
    const struct bytes *coded;
};

static void ask_for_trial(struct client *c, const struct trial *t) {
    if (t->way)
        put_order(c, &(struct order){.way = t->way, .n = t->n, .fields = TAKES_GZIP "Connection: close\r\n"});
    else
        send_post(c,
                  &(struct post){.target = t->sink->path, .body = t->coded, .fields = IN_GZIP "Connection: close\r\n"});
}

// Whatever fails, there is the right answer, a complaint, or an end that everybody can see. Whether something failed.
static bool run_trial(const struct trial *t, size_t nth, bool lasting) {
    struct client c = dial(s.port);
    NOTE("%s%s: allocation %zu%s", t->way ? t->way->name : t->sink->path, t->n > 65536 ? ", large" : "", nth,
         lasting ? " and all after it" : "");
    faults_begin(nth, lasting);
    ask_for_trial(&c, t);
    const bool complete = answered(&c);
    const size_t failed = faults_end();
    STORE(faults.failed, failed); // for handlers that are still at it
    CHECK(complete || failed);
    if (complete) {
        net_reply(&c, false);
        CHECK(c.status == 200 || (failed && (c.status == 503 || c.status == 500)));
        if (c.status == 200 && t->way) check_body(&c, failed ? is_coded(&c) : true, TEXT, t->n);
        if (c.status == 200 && t->sink) CHECK_HAS(c.body, "bytes, CRC");
    }
    hang_up(&c);
    check_alive(&s);
    return failed > 0;
}

static void run_trials(const struct trial *t) {
    for (int lasting = 0; lasting < 2; lasting++) {
        size_t nth = 1;
        while (run_trial(t, nth, lasting))
            nth++;
        CHECK_CMP(nth, >, 1); // or nothing was tested
    }
}

static void open_for_trials(void) {
    open_server(&(httpsrv_config){.allocator = {failing_realloc, &s}});
}

TEST(no_memory_to_compress) {
    static const size_t sizes[] = {5000, 100000};
    open_for_trials();
    for (size_t i = 0; i < ROWS(ways) * ROWS(sizes); i++) {
        const struct trial t = {.way = &ways[i % ROWS(ways)], .n = sizes[i / ROWS(ways)]};
        run_trials(&t);
    }
    finish(&s);
}

TEST(no_memory_to_decode) {
    struct bytes coded = shaped(TWO_MEMBERS, sources[MIXED], 100000);
    open_for_trials();
    for (size_t i = 0; i < ROWS(sinks); i++) {
        const struct trial t = {.sink = &sinks[i], .n = 100000, .coded = &coded};
        run_trials(&t);
    }
    release_bytes(&coded);
    finish(&s);
}

// After all kinds of use the memory is what it was after the first.
TEST(memory_comes_back) {
    struct bytes coded = zipped(MIXED, 100000), bad = zipped(TEXT, 5000);
    uint64_t before = 0;
    bad.len -= 3;
    open_server(&(httpsrv_config){0});
    for (int round = 0; round < 4; round++) {
        for (size_t i = 0; i < ROWS(ways); i++) {
            struct client c = order(&(struct order){.way = &ways[i], .n = 100000});
            hang_up(&c);
        }
        for (size_t i = 0; i < ROWS(sinks); i++) {
            check_post(&(struct post){.target = sinks[i].path, .body = &coded}, sources[MIXED], 100000);
            check_refused(&(struct post){.target = sinks[i].path, .body = &bad}, 400, HTTPSRV_LOG_BAD_CONTENT);
        }
        if (round == 0) before = memory_at_rest();
        check_memory_is_back(before);
    }
    release_bytes(&coded);
    release_bytes(&bad);
    finish(&s);
}

// ---- a server for other clients ----

static void on_signal(int number) {
    (void)number;
    httpsrv_stop(s.srv);
}

static int serve_others(void) {
    set_up(&(httpsrv_config){0}, -1);
    if (httpsrv_listen(s.srv) != HTTPSRV_OK) return 1;
    signal(SIGTERM, on_signal);
    printf("listening on http://127.0.0.1:%d/\n", httpsrv_port(s.srv, 0));
    fflush(stdout);
    const httpsrv_result result = httpsrv_run(s.srv);
    dispose(&s);
    return result != HTTPSRV_OK;
}

int main(int argc, char **argv) {
    fill_sources();
    if (argc == 2 && strcmp(argv[1], "--serve") == 0) return serve_others();
    return test_main(argc, argv);
}
