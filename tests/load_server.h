// The server of load.c: handlers of every sort, a record of what happened to each request, and what has to be true of it in
// the end. Include it after httpsrv.h with HTTPSRV_IMPLEMENTATION.

#ifndef TEST_LOAD_SERVER_H
#define TEST_LOAD_SERVER_H

#include "server.h"
#include "tree.h"

enum {
    FINISHERS = 2,          // threads
    MOST_BODY = 300000,     // bytes, but for the largest file
    MOST_REQUESTS = 1 << 22 // in a pass
};

// What happened to a request. All of it atomic, but `got` is its client's alone until the end.
struct record {
    char *lent;         // body that waits to be released
    uint16_t got, told; // status: of the answer that the client has got, and that on_done was told
    uint8_t seen, done; // by the filter, calls of on_done
    uint8_t lost;       // on_done was told that the answer was not delivered
    uint8_t deferred, answered, gone, posted, ran, lends, releases;
};

// A deferred request on its way to a finisher.
struct later {
    httpsrv_token token;
    struct record *record;
};

static struct server s;
static struct record records[MOST_REQUESTS];
static uint32_t last_id;
static int laters[2]; // a pipe of struct later

// ---- random numbers: each thread has a state of its own ----

static uint32_t draw(uint64_t *random, uint32_t below) {
    *random = *random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*random >> 33) % below;
}

// Mostly short, now and then long.
static size_t draw_size(uint64_t *random) {
    static const uint32_t most[] = {1, 200, 200, 200, 200, 200, 5000, 5000, 5000, 5000, 70000, MOST_BODY};
    return draw(random, most[draw(random, ROWS(most))] + 1);
}

static httpsrv_str slice(size_t at, size_t len) {
    return (httpsrv_str){blob + at, len};
}

static httpsrv_str draw_slice(uint64_t *random) {
    const size_t len = draw_size(random);
    return slice(draw(random, (uint32_t)(BLOB_BYTES - len)), len);
}

// Begins with 0.
static uint64_t hash(uint64_t so_far, httpsrv_str bytes) {
    for (size_t i = 0; i < bytes.len; i++)
        so_far = (so_far + (unsigned char)bytes.ptr[i] + 1) * 1099511628211u;
    return so_far;
}

// ---- handlers ----

static void check_result(httpsrv_result result) {
    if (result != HTTPSRV_OK && result != HTTPSRV_GONE) FAIL("load: %s", httpsrv_result_text(result));
}

static uint32_t id_of(httpsrv_req *req) {
    const httpsrv_str text = httpsrv_query(req, "id");
    uint32_t id = 0;
    for (size_t i = 0; i < text.len; i++)
        id = id * 10 + (uint32_t)(text.ptr[i] - '0');
    CHECK_CMP(id, <, MOST_REQUESTS);
    return id;
}

static struct record *record_of(httpsrv_req *req) {
    return &records[id_of(req)];
}

static void on_done(const httpsrv_outcome *outcome, void *arg) {
    struct record *r = (struct record *)arg;
    STORE(r->told, (uint16_t)outcome->status);
    if (!outcome->delivered) COUNT(r->lost);
    COUNT(r->done);
}

static httpsrv_verdict watch(httpsrv_req *req, void *user) {
    char id[16];
    const int len = snprintf(id, sizeof id, "%" PRIu32, id_of(req));
    (void)user;
    COUNT(record_of(req)->seen);
    CHECK_INT(httpsrv_set(req, "X-Id", (httpsrv_str){id, (size_t)len}), HTTPSRV_OK);
    CHECK_INT(httpsrv_on_done(req, on_done, record_of(req)), HTTPSRV_OK);
    return HTTPSRV_NEXT;
}

static void on_number(httpsrv_req *req, void *user) {
    (void)user;
    check_result(httpsrv_replyf(req, 200, "text/plain", "number %" PRIu32, id_of(req)));
}

static httpsrv_str slice_of(const httpsrv_req *req) {
    return slice(number_param(req, "at"), number_param(req, "n"));
}

static void on_slice(httpsrv_req *req, void *user) {
    (void)user;
    check_result(httpsrv_reply(req, 200, "application/octet-stream", slice_of(req)));
}

static void release(void *arg) {
    struct record *r = (struct record *)arg;
    free(__atomic_exchange_n(&r->lent, NULL, __ATOMIC_ACQ_REL));
    COUNT(r->releases);
}

// An answer whose body is lost if it is released too early, and leaks if it is not released.
static httpsrv_answer lend(struct record *r, httpsrv_str bytes) {
    char *copy = (char *)malloc(bytes.len + 1);
    CHECK(copy != NULL && LOAD(r->lent) == NULL);
    memcpy(copy, bytes.ptr, bytes.len);
    STORE(r->lent, copy);
    COUNT(r->lends);
    return (httpsrv_answer){.status = 200, .body = {copy, bytes.len}, .release = release, .release_arg = r};
}

static void on_lend(httpsrv_req *req, void *user) {
    const httpsrv_answer answer = lend(record_of(req), slice_of(req));
    (void)user;
    check_result(httpsrv_reply_with(req, &answer));
}

// ---- answers from elsewhere ----

static void on_gone(void *arg) {
    COUNT(((struct record *)arg)->gone);
}

static void on_later(httpsrv_req *req, void *user) {
    const struct later later = {httpsrv_defer(req), record_of(req)};
    (void)user;
    CHECK(later.token.id != 0);
    COUNT(later.record->deferred);
    CHECK_INT(httpsrv_on_gone(req, on_gone, later.record), HTTPSRV_OK);
    CHECK_INT(write(laters[1], &later, sizeof later), (ssize_t)sizeof later);
}

static void count_answer(struct record *r, httpsrv_result result) {
    check_result(result);
    if (result == HTTPSRV_OK) COUNT(r->answered);
}

static httpsrv_str number_text(char *text, size_t size, const struct record *r) {
    return (httpsrv_str){text, (size_t)snprintf(text, size, "number %td", r - records)};
}

static void on_post(httpsrv_req *req, void *user) {
    struct record *r = (struct record *)user;
    char text[32];
    COUNT(r->ran);
    if (!req) return;
    CHECK(record_of(req) == r);
    count_answer(r, httpsrv_reply(req, 200, NULL, number_text(text, sizeof text, r)));
}

static void finish_later(const struct later *later, bool lends) {
    char text[32];
    const httpsrv_str body = number_text(text, sizeof text, later->record);
    const httpsrv_answer answer = lends ? lend(later->record, body) : (httpsrv_answer){.status = 200, .body = body};
    count_answer(later->record, httpsrv_finish(s.srv, later->token, &answer));
    if (!lends) CHECK_INT(httpsrv_finish(s.srv, later->token, &answer), HTTPSRV_GONE);
}

// Until nobody can write to the pipe any more.
static void *run_finisher(void *arg) {
    uint64_t random = (uintptr_t)arg;
    struct later later;
    while (read(laters[0], &later, sizeof later) == (ssize_t)sizeof later) {
        const uint32_t how = draw(&random, 4);
        if (draw(&random, 64) == 0) test_sleep(1);
        if (how > 0) {
            finish_later(&later, how == 1);
            continue;
        }
        COUNT(later.record->posted);
        CHECK_INT(httpsrv_post(s.srv, later.token, on_post, later.record), HTTPSRV_OK);
    }
    return NULL;
}

static void on_events(httpsrv_req *req, void *user) {
    struct record *r = record_of(req);
    (void)user;
    COUNT(r->deferred);
    CHECK_INT(httpsrv_on_gone(req, on_gone, r), HTTPSRV_OK);
    CHECK(httpsrv_sse_begin(req, "news").id != 0);
}

// ---- bodies as they come ----

struct digest {
    uint64_t hash;
    size_t len;
};

static void digest(struct digest *d, httpsrv_str piece) {
    d->hash = hash(d->hash, piece);
    d->len += piece.len;
}

static void say_digest(httpsrv_req *req, const struct digest *d) {
    check_result(
        httpsrv_replyf(req, 200, NULL, "%zu bytes, %" PRIx64 ", number %" PRIu32, d->len, d->hash, id_of(req)));
}

static void on_upload(httpsrv_req *req, void *user) {
    struct digest *d = (struct digest *)httpsrv_alloc(req, sizeof *d);
    (void)user;
    CHECK(d != NULL);
    *d = (struct digest){0};
    httpsrv_attach(req, d);
}

static void on_upload_piece(httpsrv_req *req, httpsrv_str piece, bool last, void *user) {
    struct digest *d = (struct digest *)httpsrv_attached(req);
    (void)user;
    digest(d, piece);
    if (last) say_digest(req, d);
}

static void on_read(httpsrv_req *req, void *user) {
    struct digest d = {0};
    char buf[10000];
    ptrdiff_t n;
    (void)user;
    while ((n = httpsrv_read(req, buf, sizeof buf)) > 0)
        digest(&d, (httpsrv_str){buf, (size_t)n});
    if (n < 0) check_result((httpsrv_result)n);
    if (n == 0) say_digest(req, &d);
}

// ---- answers in pieces ----

// False if the client has left.
static bool begin_pieces(httpsrv_req *req) {
    const bool known = httpsrv_param(req, "how").ptr[0] == 'k';
    const httpsrv_result result = httpsrv_begin(req, 200, NULL, known ? (int64_t)slice_of(req).len : -1);
    check_result(result);
    return result == HTTPSRV_OK;
}

// Takes the next piece off what is to be sent, and writes it.
static httpsrv_result write_piece(httpsrv_req *req, httpsrv_str *rest) {
    const size_t most = 1 + rest->len * 31 % 9000, len = rest->len < most ? rest->len : most;
    const httpsrv_result result = httpsrv_write(req, (httpsrv_str){rest->ptr, len});
    if (result == HTTPSRV_FULL) return result;
    check_result(result);
    rest->ptr += len;
    rest->len -= len;
    return result;
}

static void go_on_pumping(httpsrv_req *req, void *user) {
    httpsrv_str *rest = (httpsrv_str *)user;
    while (rest->len > 0)
        if (write_piece(req, rest) != HTTPSRV_OK) return;
    check_result(httpsrv_end(req));
}

static void on_pump(httpsrv_req *req, void *user) {
    httpsrv_str *rest = (httpsrv_str *)httpsrv_alloc(req, sizeof *rest);
    (void)user;
    CHECK(rest != NULL);
    *rest = slice_of(req);
    if (begin_pieces(req)) check_result(httpsrv_on_drain(req, go_on_pumping, rest));
}

static void on_pour(httpsrv_req *req, void *user) {
    httpsrv_str rest = slice_of(req);
    (void)user;
    if (!begin_pieces(req)) return;
    while (rest.len > 0) {
        const httpsrv_result result = write_piece(req, &rest);
        if (result == HTTPSRV_GONE || (result == HTTPSRV_FULL && httpsrv_wait_drain(req) == HTTPSRV_GONE)) return;
    }
    check_result(httpsrv_end(req));
}

// ---- the server ----

static const struct entry tree[] = {
    {SIZED, "100", NULL, 100}, {SIZED, "20480", NULL, 20480}, {SIZED, "2097152", NULL, CONTENT_BYTES}};

#define POOLED(path, fn) \
    { .pattern = path, .handler = fn, .pool = "work", .overload = HTTPSRV_OVERLOAD_WAIT }

// Of all these there is a second one beneath "/w", where the filter is.
static const httpsrv_route_config routes[] = {
    {.pattern = "GET /hello", .handler = on_hello},
    {.pattern = "GET /dump/:a/*rest", .handler = on_dump},
    {.pattern = "GET /number", .handler = on_number},
    {.pattern = "GET /slice/:at/:n", .handler = on_slice},
    {.pattern = "GET /lend/:at/:n", .handler = on_lend},
    {.pattern = "GET /later", .handler = on_later},
    {.pattern = "GET /pieces/:how/:at/:n", .handler = on_pump},
    {.pattern = "POST /echo", .handler = on_echo},
    {.pattern = "POST /upload", .handler = on_upload, .on_body = on_upload_piece},
    {.pattern = "GET /events", .handler = on_events},
    POOLED("GET /pool/number", on_number),
    POOLED("GET /pool/slice/:at/:n", on_slice),
    POOLED("GET /pool/lend/:at/:n", on_lend),
    POOLED("GET /pool/later", on_later),
    POOLED("GET /pool/pieces/:how/:at/:n", on_pour),
    POOLED("POST /pool/echo", on_echo),
    {.pattern = "POST /read", .handler = on_read, .stream = true, .pool = "work", .overload = HTTPSRV_OVERLOAD_WAIT},
};

static void add_route(const httpsrv_route_config *route, const char *prefix) {
    const char *path = strchr(route->pattern, '/');
    httpsrv_route_config r = *route;
    char pattern[100];
    snprintf(pattern, sizeof pattern, "%.*s%s%s", (int)(path - route->pattern), route->pattern, prefix, path);
    r.pattern = pattern;
    r.user = &s;
    CHECK_INT(httpsrv_route(s.srv, &r), HTTPSRV_OK);
}

static void serve_all(int reactors, int acceptors) {
    const httpsrv_files_config files = {.root = in_root("")}, pooled = {.root = in_root(""), .pool = "work"};
    prepare(&s, &(httpsrv_config){.reactors = reactors,
                                  .acceptors = acceptors,
                                  .pools = {{.name = "work", .threads = 2}},
                                  .timeout_ms = {.head = 60000, .body = 60000}});
    CHECK_INT(httpsrv_use(s.srv, "/w", watch, NULL), HTTPSRV_OK);
    for (size_t i = 0; i < ROWS(routes); i++) {
        add_route(&routes[i], "");
        add_route(&routes[i], "/w");
    }
    CHECK_INT(httpsrv_files(s.srv, "/files", &files), HTTPSRV_OK);
    CHECK_INT(httpsrv_files(s.srv, "/w/files", &pooled), HTTPSRV_OK);
    go(&s);
}

// ---- what is left in the end ----

// What each reactor keeps for the next requests: of a size that follows from how many there were at a time.
static uint64_t kept_by_loop(const hsrv_loop *loop) {
    uint64_t bytes = (loop->num_spare + loop->again.idle) * loop->request_size;
    for (uint32_t i = 0; i < loop->conns.num_chunks; i++)
        if (loop->conns.chunks[i].items) bytes += loop->conns.item_size * HSRV_SLAB_ITEMS;
    for (uint32_t i = 0; i < HSRV_PLACE_CHUNKS; i++)
        if (loop->places[i]) bytes += ((uint64_t)HSRV_FIRST_PLACES << i) * sizeof(hsrv_place);
    return bytes;
}

static uint64_t kept_by_cache(const hsrv_mount *mount, const hsrv_cache *cache) {
    uint64_t bytes = 0;
    for (int i = 0; cache->entries && i < mount->config.max_open; i++) {
        const hsrv_cached *e = &cache->entries[i];
        bytes += sizeof *e + (e->path ? e->path_len + 1 : 0) + (e->file ? sizeof *e->file : 0);
        if (e->file && e->file->content) bytes += (uint64_t)e->file->size;
    }
    return bytes;
}

static uint64_t memory_in_use(void) {
    uint64_t kept = 0;
    for (int i = 0; i < s.srv->num_loops; i++)
        kept += kept_by_loop(s.srv->loops[i]);
    for (const hsrv_mount *m = s.srv->mounts; m; m = m->next)
        for (int i = 0; i < s.srv->config.reactors; i++)
            kept += kept_by_cache(m, &m->caches[i]);
    return metrics(&s).memory - kept;
}

static void check_record(const struct record *r) {
    CHECK_INT(r->releases, r->lends);
    CHECK_INT(r->ran, r->posted);
    CHECK_INT(r->answered + r->gone, r->deferred);
    CHECK_INT(r->done, r->seen);
    CHECK_CMP(r->seen, <=, 1);
    CHECK_CMP(r->deferred, <=, 1);
    if (r->got && r->done) CHECK_INT(r->told, r->got);
    if (r->got) CHECK_INT(r->lost, 0);
}

static void check_records(void) {
    for (uint32_t id = 0; id <= last_id; id++) {
        NOTE("request %" PRIu32, id);
        check_record(&records[id]);
    }
    NOTE("%s", "");
}

#endif // TEST_LOAD_SERVER_H
