// The short ways of requests that come again and again: a head that is byte for byte the one before is not read again, a
// plain 200 is written by a way of its own, nothing is allocated, and workers are woken for several jobs of a turn. None of
// them may ever be told from the long way by what a handler sees or what a client gets.

#define HTTPSRV_IMPLEMENTATION
#include "../httpsrv.h"

#include "rooms.h"
#include "server.h"
#include <linux/sockios.h>
#include <sys/ioctl.h>

#define MAX_TEXT  (256 << 10)
#define SAME_HEAD "GET /plain/a HTTP/1.1\r\nHost: a\r\n\r\n"

static struct server s;

// ---- what a handler sees ----

struct text {
    size_t len;
    char bytes[12000];
};

__attribute__((format(printf, 2, 3))) static void say(struct text *text, const char *format, ...) {
    va_list args;
    va_start(args, format);
    const int n = vsnprintf(text->bytes + text->len, sizeof text->bytes - text->len, format, args);
    va_end(args);
    CHECK(n >= 0 && (size_t)n < sizeof text->bytes - text->len);
    text->len += (size_t)n;
}

static void say_view(struct text *text, const char *name, httpsrv_str view) {
    if (!view.ptr) say(text, " %s=-", name);
    if (view.ptr) say(text, " %s=[%.*s]", name, HTTPSRV_FMT(view));
}

#define POISON 0x5a5a5a5au

static char filter_key;
static bool impatient; // heads are kept as soon as they can be
static int taken;      // requests that no parser has touched

// On the loop alone, and of a head that is kept.
static void count_taken(httpsrv_req *req) {
    if (!impatient || !req->inline_conn) return;
    req->loop->again.wait = req->loop->again.patience = 0;
    if (req->raw != req->loop->again.bytes) return;
    if (req->parser.pos == POISON) COUNT(taken);
    req->parser.pos = POISON;
}

// The head as it was sent, if its fields are written as "Name: value", and all that was found in it.
static void describe(httpsrv_req *req, httpsrv_str body, struct text *text) {
    const httpsrv_field *field;
    const httpsrv_str method = httpsrv_method(req), target = httpsrv_target(req);
    count_taken(req);
    text->len = 0;
    CHECK(httpsrv_attached(req) == NULL);
    say(text, "%.*s %.*s HTTP/1.%d\r\n", HTTPSRV_FMT(method), HTTPSRV_FMT(target),
        httpsrv_request_head(req)->version_minor);
    for (int i = 0; (field = httpsrv_header_at(req, i)) != NULL; i++)
        say(text, "%.*s: %.*s\r\n", HTTPSRV_FMT(field->name), HTTPSRV_FMT(field->value));
    say(text, "\r\n");
    say_view(text, "path", httpsrv_path(req));
    say_view(text, "host", httpsrv_host(req));
    say_view(text, "p", httpsrv_param(req, "p"));
    say_view(text, "rest", httpsrv_param(req, "rest"));
    say_view(text, "1", httpsrv_param(req, "1"));
    say_view(text, "2", httpsrv_param(req, "2"));
    say_view(text, "q", httpsrv_query(req, "q"));
    say_view(text, "c", httpsrv_cookie(req, "c"));
    say_view(text, "peer", httpsrv_peer(req));
    say(text, " body=[%.*s]", HTTPSRV_FMT(body));
    if (httpsrv_get(req, &filter_key)) say(text, " put=%s", (const char *)httpsrv_get(req, &filter_key));
}

// ---- handlers: each tells what it sees, by a way of its own ----

static int general;                 // answers go the long way
static int outcomes, outcomes_told; // of httpsrv_on_done
static int told;                    // descriptions given

static httpsrv_str view_of(const struct text *text) {
    const httpsrv_str view = {text->bytes, text->len};
    return view;
}

// A client that leaves in between, or a lack of memory, is no fault.
static void check_answered(httpsrv_result result) {
    CHECK(result == HTTPSRV_OK || result == HTTPSRV_GONE || result == HTTPSRV_NOMEM);
    COUNT(told);
}

static void answer_with(httpsrv_req *req, httpsrv_str body) {
    const httpsrv_answer answer = {.status = 200, .type = "text/plain", .body = body};
    const httpsrv_result result =
        LOAD(general) ? httpsrv_reply_with(req, &answer) : httpsrv_reply(req, 200, "text/plain", body);
    check_answered(result);
}

static void tell(httpsrv_req *req, httpsrv_str body) {
    struct text text;
    describe(req, body, &text);
    answer_with(req, view_of(&text));
}

static void on_tell(httpsrv_req *req, void *user) {
    (void)user;
    tell(req, httpsrv_body(req));
}

// Of a request that is gone there is nothing to tell.
static void on_tell_later(httpsrv_req *req, void *user) {
    (void)user;
    if (req) tell(req, httpsrv_body(req));
}

static void on_outcome(const httpsrv_outcome *outcome, void *arg) {
    (void)outcome;
    (void)arg;
    COUNT(outcomes_told);
}

static void on_told_done(httpsrv_req *req, void *user) {
    if (httpsrv_on_done(req, on_outcome, NULL) == HTTPSRV_OK) COUNT(outcomes);
    on_tell(req, user);
}

static void on_greedy(httpsrv_req *req, void *user) {
    static const size_t sizes[] = {1, 100, 1500, 3000, 10000};
    for (size_t i = 0; i < ROWS(sizes); i++) {
        void *memory = httpsrv_alloc(req, sizes[i]);
        if (memory) memset(memory, 0xaa, sizes[i]);
    }
    on_tell(req, user);
}

struct later {
    httpsrv_token token;
    struct text text;
};

static void finish_later(void *arg) {
    struct later *later = (struct later *)arg;
    const httpsrv_answer answer = {.status = 200, .type = "text/plain", .body = view_of(&later->text)};
    httpsrv_result result;
    do {
        result = httpsrv_finish(s.srv, later->token, &answer);
    } while (result == HTTPSRV_NOMEM); // the next time there is some
    check_answered(result);
    free(later);
}

static void post_later(void *arg) {
    const struct later *later = (const struct later *)arg;
    while (httpsrv_post(s.srv, later->token, on_tell_later, NULL) == HTTPSRV_NOMEM)
        continue;
    free(arg);
}

// user: the function that another thread is to run. Without memory the handler answers on its own.
static void on_later(httpsrv_req *req, void *user) {
    struct later *later = (struct later *)malloc(sizeof *later);
    httpsrv_fn fn;
    memcpy(&fn, user, sizeof fn);
    CHECK(later != NULL);
    describe(req, httpsrv_body(req), &later->text);
    later->token = httpsrv_defer(req);
    if (later->token.id != 0) {
        CHECK_INT(httpsrv_submit(s.srv, "work", fn, later), HTTPSRV_OK);
        return;
    }
    answer_with(req, view_of(&later->text));
    free(later);
}

static void on_pieces(httpsrv_req *req, void *user) {
    struct text text;
    httpsrv_str rest;
    (void)user;
    describe(req, httpsrv_body(req), &text);
    rest = view_of(&text);
    if (httpsrv_begin(req, 200, "text/plain", -1) != HTTPSRV_OK) return;
    for (size_t n = 1; rest.len > 0; n *= 3) {
        const httpsrv_str piece = {rest.ptr, n < rest.len ? n : rest.len};
        if (httpsrv_write(req, piece) != HTTPSRV_OK) return;
        rest.ptr += piece.len;
        rest.len -= piece.len;
    }
    httpsrv_end(req);
    COUNT(told);
}

#define FIRST_BYTES 7 // of a description, before the client has taken them

static void on_drained(httpsrv_req *req, void *user) {
    struct text text;
    (void)user;
    describe(req, httpsrv_body(req), &text);
    const httpsrv_str rest = {text.bytes + FIRST_BYTES, text.len - FIRST_BYTES};
    if (httpsrv_write(req, rest) == HTTPSRV_OK) httpsrv_end(req);
    COUNT(told);
}

static void on_pauses(httpsrv_req *req, void *user) {
    struct text text;
    (void)user;
    describe(req, httpsrv_body(req), &text);
    const httpsrv_str first = {text.bytes, FIRST_BYTES};
    if (httpsrv_begin(req, 200, "text/plain", -1) != HTTPSRV_OK) return;
    if (httpsrv_write(req, first) == HTTPSRV_OK) httpsrv_on_drain(req, on_drained, NULL);
}

struct gathered {
    size_t len;
    char bytes[1000];
};

static void gather(struct gathered *to, httpsrv_str piece) {
    CHECK_CMP(to->len + piece.len, <=, sizeof to->bytes);
    if (piece.len) memcpy(to->bytes + to->len, piece.ptr, piece.len);
    to->len += piece.len;
}

static void on_head(httpsrv_req *req, void *user) {
    struct gathered *all = (struct gathered *)httpsrv_alloc(req, sizeof *all);
    (void)user;
    if (all) all->len = 0;
    httpsrv_attach(req, all);
    if (!all) httpsrv_reply(req, 503, NULL, HTTPSRV_STR(""));
}

static void on_piece(httpsrv_req *req, httpsrv_str piece, bool last, void *user) {
    struct gathered *all = (struct gathered *)httpsrv_attached(req);
    (void)user;
    gather(all, piece);
    httpsrv_attach(req, NULL);
    if (last) tell(req, (httpsrv_str){all->bytes, all->len});
    if (!last) httpsrv_attach(req, all);
}

static void on_read(httpsrv_req *req, void *user) {
    struct gathered all = {0, {0}};
    char piece[7];
    ptrdiff_t n;
    (void)user;
    while ((n = httpsrv_read(req, piece, sizeof piece)) > 0)
        gather(&all, (httpsrv_str){piece, (size_t)n});
    if (n == 0) tell(req, (httpsrv_str){all.bytes, all.len});
}

static httpsrv_verdict filter(httpsrv_req *req, void *user) {
    const httpsrv_result result = httpsrv_put(req, &filter_key, user);
    CHECK(result == HTTPSRV_OK || result == HTTPSRV_NOMEM);
    httpsrv_set(req, "X-Filter", httpsrv_path(req));
    return HTTPSRV_NEXT;
}

// ---- a server with all of them ----

static char along[] = "along";
static bool unfiltered; // without a filter more of the short way is taken
static httpsrv_fn finishes = finish_later, posts = post_later;

static void add_routes(void) {
    const httpsrv_route_config routes[] = {
        {.pattern = "* /plain/:p", .handler = on_tell},
        {.pattern = "GET /wild/:p/*rest", .handler = on_tell},
        {.pattern = "GET ~^/re/([a-z]+)/([0-9]*)$", .handler = on_tell},
        {.pattern = "OPTIONS *", .handler = on_tell},
        {.pattern = "GET /greedy/:p", .handler = on_greedy},
        {.pattern = "GET /done/:p", .handler = on_told_done},
        {.pattern = "* /worker/:p", .handler = on_tell, .pool = "work"},
        {.pattern = "GET /later/:p", .handler = on_later, .user = &finishes},
        {.pattern = "GET /posted/:p", .handler = on_later, .user = &posts},
        {.pattern = "GET /pieces/:p", .handler = on_pieces},
        {.pattern = "GET /pauses/:p", .handler = on_pauses},
        {.pattern = "* /body/:p", .handler = on_head, .on_body = on_piece},
        {.pattern = "* /read/:p", .handler = on_read, .pool = "work", .stream = true},
        {.pattern = "GET /filtered/:p", .handler = on_tell},
    };
    for (size_t i = 0; i < ROWS(routes); i++)
        CHECK_INT(httpsrv_route(s.srv, &routes[i]), HTTPSRV_OK);
    if (!unfiltered) CHECK_INT(httpsrv_use(s.srv, "/filtered", filter, along), HTTPSRV_OK);
}

static void prepare_all(httpsrv_config config) {
    config.pools[0].name = "work";
    if (config.pools[0].threads == 0) config.pools[0].threads = 2;
    prepare(&s, &config);
    add_routes();
}

// ---- the requests ----

struct row {
    const char *head; // to which a field is added if it is to be `size` bytes long
    size_t size;
    const char *raw;  // the body as it is sent
    const char *body; // the same decoded
    const char *sees; // what is found in the head
    int status;       // 0: 200, with a description
    bool ends;        // the connection
    bool kept;        // the head is taken once more when it comes again
    const char *put_along;
};

#define SEES(path, host, p, rest, one, two, q, c) \
    " path=" path " host=" host " p=" p " rest=" rest " 1=" one " 2=" two " q=" q " c=" c
#define SEES_P(path, p) SEES(path, "[a]", p, "-", "-", "-", "-", "-")
#define HOST            " HTTP/1.1\r\nHost: a\r\n"
#define CHUNKS          "5\r\nhello\r\n7;x=y\r\n, world\r\n0\r\n\r\n"

#define KEPT(text, found) \
    { .head = text, .sees = found, .kept = true }
#define AFRESH(text, found) \
    { .head = text, .sees = found }
#define LAST(text, found) \
    { .head = text, .sees = found, .kept = true, .ends = true }
#define PADDED(bytes, is_kept) \
    { .head = "GET /plain/l" HOST, .size = bytes, .sees = SEES_P("[/plain/l]", "[l]"), .kept = is_kept }
#define BODY(text, found, sent, decoded) \
    { .head = text, .sees = found, .raw = sent, .body = decoded }
#define CODED(text, found) BODY(text HOST "Transfer-Encoding: chunked\r\n", found, CHUNKS, "hello, world")
#define REFUSED(text, code, is_last) \
    { .head = text, .status = code, .ends = is_last }

static const struct row rows[] = {
    KEPT("GET /plain/a" HOST, SEES_P("[/plain/a]", "[a]")),
    KEPT("GET /plain/b" HOST, SEES_P("[/plain/b]", "[b]")),
    KEPT("GET /plain/a" HOST "X: 1\r\n", SEES_P("[/plain/a]", "[a]")),
    KEPT("GET /plain/a" HOST "X: 2\r\n", SEES_P("[/plain/a]", "[a]")),
    KEPT("GET /plain/a" HOST "X: 1\r\nY: 1\r\n", SEES_P("[/plain/a]", "[a]")),
    KEPT("POST /plain/a" HOST, SEES_P("[/plain/a]", "[a]")),
    KEPT("PURGE /plain/a" HOST, SEES_P("[/plain/a]", "[a]")),
    KEPT("HEAD /plain/a" HOST, SEES_P("[/plain/a]", "[a]")),
    KEPT("GET /plain/b..c" HOST, SEES_P("[/plain/b..c]", "[b..c]")),
    AFRESH("GET /plain/..b." HOST, SEES_P("[/plain/..b.]", "[..b.]")),
    AFRESH("GET /plain/%41%2f" HOST, SEES_P("[/plain/A/]", "[A/]")),
    AFRESH("GET /x/./../plain/d" HOST, SEES_P("[/plain/d]", "[d]")),
    KEPT("GET /plain/e?q=1&q=2" HOST, SEES("[/plain/e]", "[a]", "[e]", "-", "-", "-", "[1]", "-")),
    KEPT("GET /plain/e?a&q=%41+%26b" HOST, SEES("[/plain/e]", "[a]", "[e]", "-", "-", "-", "[A &b]", "-")),
    KEPT("GET /plain/e?" HOST, SEES_P("[/plain/e]", "[e]")),
    KEPT("GET http://b:81/plain/f?q= HTTP/1.1\r\nHost: b:81\r\n",
         SEES("[/plain/f]", "[b:81]", "[f]", "-", "-", "-", "[]", "-")),
    KEPT("OPTIONS *" HOST, SEES_P("[*]", "-")),
    KEPT("OPTIONS /plain/a" HOST "Origin: x\r\n", SEES_P("[/plain/a]", "[a]")),
    KEPT("GET /wild/w/" HOST, SEES("[/wild/w/]", "[a]", "[w]", "[]", "-", "-", "-", "-")),
    KEPT("GET /wild/w/x//y" HOST, SEES("[/wild/w/x//y]", "[a]", "[w]", "[x//y]", "-", "-", "-", "-")),
    AFRESH("GET /wild/w/x/%2e/y" HOST, SEES("[/wild/w/x/y]", "[a]", "[w]", "[x/y]", "-", "-", "-", "-")),
    KEPT("GET /re/abc/123" HOST, SEES("[/re/abc/123]", "[a]", "-", "-", "[abc]", "[123]", "-", "-")),
    KEPT("GET /re/x/" HOST, SEES("[/re/x/]", "[a]", "-", "-", "[x]", "[]", "-", "-")),
    AFRESH("GET /re/%61/1" HOST, SEES("[/re/a/1]", "[a]", "-", "-", "[a]", "[1]", "-", "-")),
    KEPT("GET /plain/c" HOST "Cookie: a=b; c=d; c=e\r\nCookie: c=f\r\nAccept: */*\r\nX: \r\nX: y\r\nx: z\r\n",
         SEES("[/plain/c]", "[a]", "[c]", "-", "-", "-", "-", "[d]")),
    PADDED(1023, true),
    PADDED(1024, true),
    PADDED(1025, false),
    PADDED(3000, false),
    LAST("GET /plain/o HTTP/1.0\r\n", SEES("[/plain/o]", "-", "[o]", "-", "-", "-", "-", "-")),
    KEPT("GET /plain/o HTTP/1.0\r\nConnection: keep-alive\r\n",
         SEES("[/plain/o]", "-", "[o]", "-", "-", "-", "-", "-")),
    LAST("GET /plain/o" HOST "Connection: close\r\n", SEES_P("[/plain/o]", "[o]")),
    KEPT("POST /plain/n" HOST "Content-Length: 0\r\n", SEES_P("[/plain/n]", "[n]")),
    BODY("POST /plain/n" HOST "Content-Length: 5\r\n", SEES_P("[/plain/n]", "[n]"), "GET /", "GET /"),
    BODY("PUT /plain/n" HOST "Expect: 100-continue\r\nContent-Length: 3\r\n", SEES_P("[/plain/n]", "[n]"), "abc",
         "abc"),
    CODED("POST /plain/n", SEES_P("[/plain/n]", "[n]")),
    KEPT("GET /plain/n" HOST "Expect: 100-continue\r\n", SEES_P("[/plain/n]", "[n]")),
    KEPT("GET /greedy/g?q=%41%42" HOST, SEES("[/greedy/g]", "[a]", "[g]", "-", "-", "-", "[AB]", "-")),
    KEPT("GET /done/d" HOST, SEES_P("[/done/d]", "[d]")),
    AFRESH("GET /worker/w" HOST, SEES_P("[/worker/w]", "[w]")),
    AFRESH("HEAD /worker/w" HOST, SEES_P("[/worker/w]", "[w]")),
    BODY("POST /worker/w" HOST "Content-Length: 2\r\n", SEES_P("[/worker/w]", "[w]"), "\r\n", "\r\n"),
    AFRESH("GET /later/l?q=x" HOST, SEES("[/later/l]", "[a]", "[l]", "-", "-", "-", "[x]", "-")),
    AFRESH("GET /posted/l?q=x" HOST, SEES("[/posted/l]", "[a]", "[l]", "-", "-", "-", "[x]", "-")),
    KEPT("GET /pieces/x" HOST, SEES_P("[/pieces/x]", "[x]")),
    KEPT("HEAD /pieces/x" HOST, SEES_P("[/pieces/x]", "[x]")),
    LAST("GET /pieces/x HTTP/1.0\r\n", SEES("[/pieces/x]", "-", "[x]", "-", "-", "-", "-", "-")),
    AFRESH("GET /pauses/x" HOST, SEES_P("[/pauses/x]", "[x]")),
    AFRESH("GET /body/x" HOST, SEES_P("[/body/x]", "[x]")),
    BODY("POST /body/x" HOST "Content-Length: 5\r\n", SEES_P("[/body/x]", "[x]"), "hello", "hello"),
    AFRESH("GET /read/x" HOST, SEES_P("[/read/x]", "[x]")),
    CODED("POST /read/x", SEES_P("[/read/x]", "[x]")),
    {.head = "GET /filtered/x" HOST, .sees = SEES_P("[/filtered/x]", "[x]"), .kept = true, .put_along = "along"},
    REFUSED("GET /nowhere" HOST, 404, false),
    REFUSED("GET /plain/a.b..c/" HOST, 404, false),
    REFUSED("GET http://b HTTP/1.1\r\nHost: b\r\n", 404, false),
    REFUSED("POST /re/abc/123" HOST, 405, false),
    REFUSED("FLY /nowhere" HOST, 501, false),
    REFUSED("GET /../x" HOST, 400, false),
    REFUSED("GET /plain/n" HOST "Expect: more\r\n", 417, false),
    REFUSED("GET /plain/a HTTP/1.1\r\n", 400, true),
};

struct request {
    size_t head_len, len;
    char bytes[8192];
};

static struct request requests[ROWS(rows)];

static void make_request(size_t i) {
    const struct row *row = &rows[i];
    struct request *request = &requests[i];
    const size_t written = strlen(row->head) + 2;
    char pad[4096] = "";
    if (row->size > 0) {
        memset(pad, 'x', row->size - written);
        memcpy(pad, "X-Pad: ", 7);
        memcpy(pad + row->size - written - 2, "\r\n", 2);
    }
    snprintf(request->bytes, sizeof request->bytes, "%s%s\r\n%s", row->head, pad, row->raw ? row->raw : "");
    request->len = strlen(request->bytes);
    request->head_len = request->len - (row->raw ? strlen(row->raw) : 0);
    if (row->size > 0) CHECK_INT(request->head_len, row->size);
}

static bool is_head(size_t i) {
    return strncmp(rows[i].head, "HEAD ", 5) == 0;
}

// ---- the answers: status line, fields but for the date, body ----

struct answer_text {
    size_t len;
    char bytes[MAX_TEXT];
};

static void put_text(struct answer_text *out, const char *ptr, size_t len) {
    CHECK_CMP(out->len + len, <, sizeof out->bytes);
    if (len > 0) memcpy(out->bytes + out->len, ptr, len);
    out->len += len;
    out->bytes[out->len] = 0;
}

static void put_line(struct answer_text *out, const char *name, const char *between, const char *value) {
    put_text(out, name, strlen(name));
    put_text(out, between, strlen(between));
    put_text(out, value, strlen(value));
    put_text(out, "\r\n", 2);
}

static void put_answer(struct answer_text *out, const struct client *c) {
    out->len = 0;
    put_line(out, c->head, "", "");
    for (int i = 0; i < c->num_fields; i++) {
        const char *name = c->head + c->fields[i].name, *value = c->head + c->fields[i].value;
        const bool date = strcmp(name, "Date") == 0;
        if (date) CHECK_INT(strlen(value), 29);
        put_line(out, name, ": ", date ? "-" : value);
    }
    put_line(out, "", "", "");
    put_text(out, c->body, c->body_len);
}

// An answer, those ahead of it passed over.
static void read_answer(struct client *c, bool to_head) {
    do {
        net_reply(c, to_head);
    } while (c->status < 200);
}

// ---- what the long way says: the reference ----

static char *reference[ROWS(rows)];

static void check_described(size_t i, const struct client *c) {
    const struct row *row = &rows[i];
    static struct text expected;
    CHECK_INT(c->status, row->status ? row->status : 200);
    if (row->status) return;
    expected.len = 0;
    say(&expected, "%.*s%s peer=[127.0.0.1] body=[%s]", (int)requests[i].head_len, requests[i].bytes, row->sees,
        row->body ? row->body : "");
    if (row->put_along) say(&expected, " put=%s", row->put_along);
    if (!is_head(i)) CHECK_MEM(c->body, c->body_len, expected.bytes, expected.len);
    if (is_head(i) && c->length >= 0) CHECK_INT(c->length, expected.len);
}

static void note_row(size_t i) {
    NOTE("%.200s", rows[i].head);
}

// Starts with reactors that never keep a head.
static void go_the_long_way(void) {
    STORE(general, 1);
    listen_only(&s);
    for (int i = 0; i < s.srv->config.reactors; i++)
        s.srv->loops[i]->again.wait = UINT32_MAX;
    CHECK_INT(httpsrv_start(s.srv), HTTPSRV_OK);
}

static void take_references(void) {
    static struct answer_text answer;
    prepare_all((httpsrv_config){0});
    go_the_long_way();
    for (size_t i = 0; i < ROWS(rows); i++) {
        struct client c = dial(s.port);
        note_row(i);
        make_request(i);
        net_send(&c, requests[i].bytes, requests[i].len);
        read_answer(&c, is_head(i));
        check_described(i, &c);
        put_answer(&answer, &c);
        reference[i] = strdup(answer.bytes);
        CHECK_INT(c.close, rows[i].ends);
        if (rows[i].ends) EXPECT_EOF(&c);
        hang_up(&c);
    }
    CHECK_INT(s.srv->loops[0]->again.len, 0);
    finish(&s);
    STORE(general, 0);
}

static void check_as_ever(size_t i, const struct client *c) {
    static struct answer_text answer;
    note_row(i);
    put_answer(&answer, c);
    CHECK_MEM(answer.bytes, answer.len, reference[i], strlen(reference[i]));
}

TEST(the_long_way_says_what_it_must) {
    take_references();
}

// ---- storms ----

#define LANES       5
#define MAX_PENDING 24

struct lane {
    struct client c;
    size_t pending[MAX_PENDING]; // rows whose answers are to come
    int count;
    bool ends; // with the last of them
};

static struct lane lanes[LANES];

static size_t pick_row(void) {
    static size_t last;
    if (random_below(10) < 3) last = random_below(ROWS(rows));
    while (unfiltered && rows[last].put_along)
        last = random_below(ROWS(rows));
    return last;
}

static void dial_lane(struct lane *lane) {
    memset(lane, 0, sizeof *lane);
    lane->c = dial(s.port);
}

static void read_lane(struct lane *lane) {
    const size_t i = lane->pending[0];
    note_row(i);
    TEST_HERE();
    read_answer(&lane->c, is_head(i));
    check_as_ever(i, &lane->c);
    memmove(lane->pending, lane->pending + 1, (size_t)--lane->count * sizeof lane->pending[0]);
    if (lane->count > 0 || !lane->ends) return;
    EXPECT_EOF(&lane->c);
    hang_up(&lane->c);
    dial_lane(lane);
}

// Whole, in two pieces, or byte by byte.
static void deliver(struct client *c, const char *bytes, size_t len) {
    const uint32_t way = random_below(40);
    if (way == 0 && len < 400) {
        net_send_split(c, bytes, len, 1);
        return;
    }
    if (way > 12) {
        net_send(c, bytes, len);
        return;
    }
    const size_t first = 1 + random_below((uint32_t)len - 1);
    net_send(c, bytes, first);
    if (way > 5) usleep(300);
    net_send(c, bytes + first, len - first);
}

static void ask_lane(struct lane *lane, int requests_at_once) {
    static struct answer_text bytes;
    bytes.len = 0;
    while (requests_at_once-- > 0 && !lane->ends) {
        const size_t i = pick_row();
        put_text(&bytes, requests[i].bytes, requests[i].len);
        lane->pending[lane->count++] = i;
        lane->ends = rows[i].ends;
    }
    deliver(&lane->c, bytes.bytes, bytes.len);
}

static void storm_step(bool leave) {
    struct lane *lane = &lanes[random_below(LANES)];
    const int room = lane->ends ? 0 : MAX_PENDING - lane->count;
    const uint32_t what = random_below(100);
    if (leave && what == 0) {
        net_reset(&lane->c);
        dial_lane(lane);
    } else if (room > 0 && (what < 45 || lane->count == 0)) {
        const int most = room < 5 ? room : 5;
        ask_lane(lane, 1 + (int)random_below((uint32_t)most));
    } else {
        read_lane(lane);
    }
}

static void storm(uint64_t seed, int reactors, bool leave) {
    random_state = seed;
    outcomes = outcomes_told = taken = 0;
    impatient = true;
    prepare_all((httpsrv_config){.reactors = reactors});
    go(&s);
    for (int i = 0; i < LANES; i++)
        dial_lane(&lanes[i]);
    for (int i = 0; i < TEST_FEWER(2500, 3); i++)
        storm_step(leave);
    for (int i = 0; i < LANES; i++) {
        while (lanes[i].count > 0)
            read_lane(&lanes[i]);
        hang_up(&lanes[i].c);
    }
    finish(&s);
    CHECK_INT(outcomes, outcomes_told);
    CHECK_CMP(LOAD(told), >, 0);
    CHECK_CMP(LOAD(taken), >, TEST_FEWER(250, 3));
}

TEST(storms_on_one_reactor) {
    take_references();
    storm(88172645463325252u, 1, false);
    unfiltered = true;
    storm(4711, 1, false);
}

TEST(storms_on_two_reactors) {
    take_references();
    storm(20071969, 2, false);
}

TEST(storms_with_clients_that_leave) {
    take_references();
    storm(815, 1, true);
    unfiltered = true;
    storm(1234567890123u, 2, true);
}

// ---- one request at a time, of a loop that the test turns itself: what it keeps can be looked at ----

static hsrv_loop *loop; // the only one

static void listen_and_turn(void) {
    listen_only(&s);
    loop = s.srv->loops[0];
}

static void turn_server(httpsrv_config config) {
    prepare_all(config);
    listen_and_turn();
}

// With one more route.
static void turn_with(httpsrv_config config, const char *pattern, httpsrv_handler handler) {
    prepare_all(config);
    CHECK_INT(httpsrv_on(s.srv, pattern, handler, NULL), HTTPSRV_OK);
    listen_and_turn();
}

static void stop_turning(void) {
    httpsrv_stop(s.srv);
    TEST_UNTIL("the end of the drain", httpsrv_poll(s.srv, 1) == HTTPSRV_GONE, (void)0);
    dispose(&s);
}

// Whether all of an answer has come.
static bool answer_is_there(struct client *c, bool to_head) {
    net_receive(c, 0);
    const char *from = c->buf + c->at;
    const size_t len = c->len - c->at;
    const char *end = (const char *)memmem(from, len, "\r\n\r\n", 4), *length, *code = "Transfer-Encoding";
    if (!end || c->eof) return c->eof;
    const size_t head = (size_t)(end - from) + 4;
    if (to_head) return true;
    if (memmem(from, head, code, strlen(code))) return memmem(end, len - head + 4, "\r\n0\r\n\r\n", 7) != NULL;
    length = (const char *)memmem(from, head, "Content-Length: ", 16);
    return !length || len - head >= strtoul(length + 16, NULL, 10);
}

static void turn_until_answered(struct client *c, bool to_head) {
    do {
        TURN_UNTIL(&s, answer_is_there(c, to_head));
        net_reply(c, to_head);
    } while (c->status < 200);
}

static void exchange(struct client *c, const char *bytes) {
    net_send(c, bytes, strlen(bytes));
    turn_until_answered(c, strncmp(bytes, "HEAD ", 5) == 0);
}

// Whatever came before, the next head is kept if it is fit for it.
static void keep_the_next(void) {
    loop->again.wait = loop->again.patience = 0;
}

static bool is_kept(const char *head, size_t len) {
    const hsrv_again *again = &loop->again;
    return again->len == len && again->idle && memcmp(again->bytes, head, len) == 0;
}

// Asks with a head that is kept: no parser may touch the request.
static void exchange_kept(struct client *c, const char *bytes) {
    httpsrv_req *req = loop->again.req;
    req->parser.pos = req->parser.mark = POISON;
    exchange(c, bytes);
    CHECK_INT(req->parser.pos, POISON);
    CHECK_INT(req->parser.mark, POISON);
    CHECK(loop->again.req == req);
}

// Each request three times, from a client of its own: at most the first one is seen by a parser if its head is kept.
static void check_kept(size_t i) {
    const bool kept = rows[i].kept && requests[i].head_len <= HTTPSRV_READ_BUFFER;
    for (int round = 0; round < 3; round++) {
        struct client c = dial(s.port);
        note_row(i);
        if (round == 0) keep_the_next();
        if (round > 0 && kept)
            exchange_kept(&c, requests[i].bytes);
        else
            exchange(&c, requests[i].bytes);
        check_as_ever(i, &c);
        CHECK_INT(is_kept(requests[i].bytes, requests[i].head_len), kept);
        hang_up(&c);
    }
}

TEST(which_heads_are_kept) {
    take_references();
    for (int round = 0; round < 2; round++) {
        unfiltered = round > 0;
        turn_server((httpsrv_config){0});
        for (size_t i = 0; i < ROWS(rows); i++) {
            if (!unfiltered || !rows[i].put_along) check_kept(i);
        }
        stop_turning();
    }
}

TEST(a_head_in_two_pieces_is_not_kept) {
    turn_server((httpsrv_config){0});
    struct client c = dial(s.port);
    for (size_t first = 1; first < strlen(SAME_HEAD); first++) {
        const uint64_t before = metrics(&s).bytes_in;
        keep_the_next();
        NOTE("%zu bytes", first);
        net_send(&c, SAME_HEAD, first);
        TURN_UNTIL(&s, metrics(&s).bytes_in == before + first);
        exchange(&c, &SAME_HEAD[first]);
        CHECK_INT(c.status, 200);
        CHECK_INT(loop->again.len, 0);
    }
    exchange(&c, SAME_HEAD);
    CHECK(is_kept(SAME_HEAD, strlen(SAME_HEAD)));
    for (size_t first = 1; first < strlen(SAME_HEAD); first++) { // and is not taken for the one that is kept
        const uint64_t before = metrics(&s).bytes_in;
        net_send(&c, SAME_HEAD, first);
        TURN_UNTIL(&s, metrics(&s).bytes_in == before + first);
        CHECK_INT(loop->again.len, 0);
        exchange(&c, &SAME_HEAD[first]);
        CHECK_INT(c.status, 200);
        keep_the_next();
        exchange(&c, SAME_HEAD);
        CHECK(is_kept(SAME_HEAD, strlen(SAME_HEAD)));
    }
    hang_up(&c);
    stop_turning();
}

// An empty line before a request belongs to its head, and changes it.
TEST(empty_lines_before_a_head) {
    turn_server((httpsrv_config){0});
    struct client c = dial(s.port);
    exchange(&c, SAME_HEAD);
    for (int i = 0; i < 3; i++) {
        exchange(&c, "\r\n" SAME_HEAD);
        CHECK_INT(c.status, 200);
        keep_the_next();
        exchange(&c, SAME_HEAD);
        exchange_kept(&c, SAME_HEAD);
    }
    hang_up(&c);
    stop_turning();
}

// So many different heads go by before one is kept again; one that comes again makes the loop patient no more.
static uint32_t heads_until_kept(struct client *c, uint32_t most) {
    static unsigned number;
    for (uint32_t n = 1; n <= most; n++) {
        char head[100];
        snprintf(head, sizeof head, "GET /plain/%u" HOST "\r\n", number++);
        exchange(c, head);
        CHECK_INT(c->status, 200);
        if (is_kept(head, strlen(head))) return n;
        CHECK_INT(loop->again.len, 0);
    }
    return 0;
}

TEST(patience) {
    char kept[100];
    turn_server((httpsrv_config){0});
    struct client c = dial(s.port);
    CHECK_INT(heads_until_kept(&c, 1), 1);
    for (uint32_t patience = 1; patience < 1023; patience = 2 * patience + 1)
        CHECK_INT(heads_until_kept(&c, 1024), patience + 1);
    CHECK_INT(heads_until_kept(&c, 1024), 1024);
    CHECK_INT(heads_until_kept(&c, 1024), 1024);
    snprintf(kept, sizeof kept, "%.*s", (int)loop->again.len, loop->again.bytes);
    exchange_kept(&c, kept);
    CHECK_INT(heads_until_kept(&c, 1024), 1024); // what was begun is waited for
    CHECK_INT(heads_until_kept(&c, 2), 2);
    CHECK_INT(heads_until_kept(&c, 4), 4);
    hang_up(&c);
    stop_turning();
}

// ---- heads that are nearly the same, each as the one that is kept and as the one that comes ----

static void check_told_apart(struct client *c, const char *kept, const char *other) {
    NOTE("%s", other);
    keep_the_next();
    exchange(c, kept);
    CHECK(is_kept(kept, strlen(kept)));
    exchange(c, other);
    CHECK_INT(c->status, 200);
    CHECK_CMP(c->body_len, >, strlen(other));
    CHECK(memcmp(c->body, other, strlen(other)) == 0);
}

// In each byte of the target and of a field, and by what follows.
TEST(heads_that_differ_in_one_byte) {
    static const char *const formats[][2] = {
        {"GET /plain/%.*sa%s" HOST "\r\n", "GET /plain/%.*sb%s" HOST "\r\n"},
        {"GET /plain/p" HOST "X: %.*sa%s\r\n\r\n", "GET /plain/p" HOST "X: %.*sb%s\r\n\r\n"},
        {"GET /plain/p" HOST "X: %.*s%s\r\n\r\n", "GET /plain/p" HOST "X: %.*s%s\r\nY: 1\r\n\r\n"},
        {"GET /plain/p" HOST "X: %.*s%s\r\n\r\n", "GET /plain/p" HOST "X: %.*s%sz\r\n\r\n"}};
    static const char filler[] = "abcdefghijklmnopqrstuvwxyz0123456789";
    turn_server((httpsrv_config){0});
    struct client c = dial(s.port);
    for (size_t kind = 0; kind < ROWS(formats); kind++) {
        for (int at = 0; at < (int)sizeof filler; at++) {
            char heads[2][200];
            for (int i = 0; i < 2; i++)
                snprintf(heads[i], sizeof heads[i], formats[kind][i], at, filler, filler + at);
            check_told_apart(&c, heads[0], heads[1]);
            check_told_apart(&c, heads[1], heads[0]);
        }
    }
    hang_up(&c);
    stop_turning();
}

// ---- where the request that keeps the head is away, or its client is another one ----

static struct client dial_from(const char *source) {
    struct sockaddr_storage from;
    const socklen_t size = net_address(&from, source, 0);
    struct client c = net_client(net_socket(AF_INET));
    CHECK_INT(bind(c.fd, (struct sockaddr *)&from, size), 0);
    CHECK_INT(net_connect(c.fd, "127.0.0.1", s.port), 0);
    return c;
}

static void check_peer(const struct client *c, const char *expected) {
    char text[64];
    snprintf(text, sizeof text, " peer=[%s] ", expected);
    CHECK_INT(c->status, 200);
    CHECK(memmem(c->body, c->body_len, text, strlen(text)) != NULL);
}

TEST(whose_head_it_is) {
    turn_server((httpsrv_config){0});
    for (int i = 0; i < 10; i++) {
        static const char *const addresses[] = {"127.0.0.1", "127.0.0.2", "127.0.1.200"};
        const char *address = addresses[i % 3];
        struct client c = dial_from(address);
        if (i == 0) exchange(&c, SAME_HEAD);
        exchange_kept(&c, SAME_HEAD);
        check_peer(&c, address);
        hang_up(&c);
        CHECK_INT(metrics(&s).requests, i + 2);
        CHECK_INT(metrics(&s).answers[2], i + 2);
    }
    stop_turning();
}

// ---- what a handler leaves behind is not there for the next one ----

static const char trace_key;

static void leave_nothing(httpsrv_req *req) {
    (void)req;
}

static void leave_attached(httpsrv_req *req) {
    httpsrv_attach(req, &loop);
}

static void leave_put(httpsrv_req *req) {
    CHECK_INT(httpsrv_put(req, &trace_key, &loop), HTTPSRV_OK);
}

static void leave_some_memory(httpsrv_req *req) {
    CHECK(httpsrv_alloc(req, 16) != NULL);
}

// So much that the request's own memory is left as it is.
static void leave_much_memory(httpsrv_req *req) {
    CHECK(httpsrv_alloc(req, 3 * HTTPSRV_REQUEST_MEMORY) != NULL);
}

static void leave_peer(httpsrv_req *req) {
    CHECK(httpsrv_peer(req).len > 0);
}

static void leave_outcome(httpsrv_req *req) {
    CHECK_INT(httpsrv_on_done(req, on_outcome, NULL), HTTPSRV_OK);
    COUNT(outcomes);
}

static void leave_form(httpsrv_req *req) {
    CHECK(httpsrv_form_field(req, "name").ptr == NULL);
}

static void leave_field(httpsrv_req *req) {
    CHECK_INT(httpsrv_set(req, "X-Trace", HTTPSRV_STR("left")), HTTPSRV_OK);
}

static void leave_close(httpsrv_req *req) {
    CHECK_INT(httpsrv_set(req, "Connection", HTTPSRV_STR("close")), HTTPSRV_OK);
}

static void leave_refused_answer(httpsrv_req *req) {
    CHECK_INT(httpsrv_reply(req, 99, "text/plain", HTTPSRV_STR("refused")), HTTPSRV_ARG);
}

static void leave_missing_file(httpsrv_req *req) {
    CHECK_INT(httpsrv_reply_file(req, "/no/such/file", NULL), HTTPSRV_SYS);
}

static void leave_answer(httpsrv_req *req) {
    CHECK_INT(httpsrv_reply(req, 201, "text/plain", HTTPSRV_STR("early")), HTTPSRV_OK);
}

static void leave_deferred(httpsrv_req *req) {
    CHECK(httpsrv_defer(req).id != 0);
}

static const struct trace {
    const char *name;
    void (*leave)(httpsrv_req *req);
    bool changes; // the answer
    bool silent;  // there is none
} traces[] = {
    {"nothing", leave_nothing, false, false},
    {"no answer", leave_nothing, true, true},
    {"attached", leave_attached, false, false},
    {"put", leave_put, false, false},
    {"some memory", leave_some_memory, false, false},
    {"much memory", leave_much_memory, false, false},
    {"peer", leave_peer, false, false},
    {"outcome", leave_outcome, false, false},
    {"form", leave_form, false, false},
    {"field", leave_field, true, false},
    {"close", leave_close, true, false},
    {"refused answer", leave_refused_answer, false, false},
    {"missing file", leave_missing_file, false, false},
    {"answer", leave_answer, true, false},
    {"deferred", leave_deferred, false, false},
};

static const struct trace *trace; // what the next handler leaves

static void on_trace(httpsrv_req *req, void *user) {
    (void)user;
    CHECK(httpsrv_attached(req) == NULL && httpsrv_get(req, &trace_key) == NULL);
    CHECK_INT(req->status_sent, 0);
    CHECK_INT(req->bytes_sent, 0);
    CHECK(!req->dones && !req->form_read && !req->peer_text.ptr && !req->as_is && !req->answered_twice);
    CHECK(!req->arena.blocks && req->arena.end - req->arena.cur == HTTPSRV_REQUEST_MEMORY);
    CHECK(!req->answer.status && !req->answer.headers && !req->answer.close && !req->answer.plain);
    trace->leave(req);
    if (!trace->silent) httpsrv_reply(req, 200, "text/plain", HTTPSRV_STR("as ever"));
}

#define TRACE_HEAD "GET /trace" HOST "\r\n"

static void exchange_traced(struct client *c, const struct trace *leaves) {
    trace = leaves;
    exchange(c, TRACE_HEAD);
    if (leaves->silent) CHECK_INT(c->status, 500);
    if (!leaves->changes) {
        CHECK_INT(c->status, 200);
        CHECK_MEM(c->body, c->body_len, "as ever", 7);
        CHECK_INT(c->num_fields, 4);
    }
    if (!c->close) return;
    hang_up(c);
    *c = dial(s.port);
}

TEST(traces_of_handlers) {
    unfiltered = true;
    turn_with((httpsrv_config){0}, "GET /trace", on_trace);
    struct client c = dial(s.port);
    for (size_t i = 0; i < ROWS(traces); i++) {
        NOTE("%s", traces[i].name);
        keep_the_next();
        exchange_traced(&c, &traces[0]);
        exchange_traced(&c, &traces[0]);
        const size_t memory = metrics(&s).memory;
        for (int round = 0; round < 3; round++) {
            exchange_traced(&c, &traces[i]);
            CHECK(is_kept(TRACE_HEAD, strlen(TRACE_HEAD)));
            keep_the_next();
            exchange_traced(&c, &traces[0]);
            exchange_traced(&c, &traces[0]);
        }
        CHECK_INT(metrics(&s).memory, memory);
        CHECK_INT(outcomes_told, outcomes);
    }
    hang_up(&c);
    stop_turning();
}

// ---- many of the same on one connection: what makes the loop turn to something else ----

#define PIPED     1000
#define LONG_BODY 8192

static struct client *leaver; // leaves in the middle of its requests
static int many_asked;

static void on_many(httpsrv_req *req, void *user) {
    static char body[LONG_BODY];
    const httpsrv_str text = {body, user ? sizeof body : 4};
    memset(body, 'm', sizeof body);
    many_asked++;
    if (leaver && many_asked == 20) net_reset(leaver);
    httpsrv_reply(req, 200, "text/plain", text);
}

#define PIPED_HEAD "GET /many" HOST "\r\n"

// A client whose head is kept, and a server that has not looked yet at all that it sends then.
static struct client send_many(bool long_body) {
    static char bytes[PIPED * sizeof(PIPED_HEAD)];
    size_t len = 0;
    unfiltered = true;
    prepare_all((httpsrv_config){0});
    CHECK_INT(httpsrv_on(s.srv, "GET /many", on_many, long_body ? bytes : NULL), HTTPSRV_OK);
    listen_and_turn();
    struct client c = dial(s.port);
    exchange(&c, PIPED_HEAD);
    CHECK(is_kept(PIPED_HEAD, strlen(PIPED_HEAD)));
    for (int i = 0; i < PIPED; i++) {
        memcpy(bytes + len, PIPED_HEAD, strlen(PIPED_HEAD));
        len += strlen(PIPED_HEAD);
    }
    many_asked = 0;
    net_send(&c, bytes, len);
    return c;
}

static void turn_until_asked(int number) {
    TURN_UNTIL(&s, many_asked >= number);
}

TEST(one_connection_does_not_take_the_whole_turn) {
    struct client c = send_many(false);
    turn_until_asked(1);
    CHECK_CMP(many_asked, <=, 2 * HSRV_TURN_REQUESTS); // when it had sent, and in its turn after the others
    turn_until_asked(PIPED);
    for (int i = 0; i < PIPED; i++)
        EXPECT(&c, 200, "mmmm");
    CHECK_INT(metrics(&s).requests, PIPED + 1);
    CHECK_INT(metrics(&s).answers[2], PIPED + 1);
    hang_up(&c);
    stop_turning();
}

// The answers are more than the kernel takes for a client that does not read.
TEST(output_that_waits_holds_back_what_comes_again) {
    struct client c = send_many(true);
    const size_t memory = metrics(&s).memory;
    turn_until_asked(1);
    for (int i = 0; i < 20; i++)
        CHECK_INT(httpsrv_poll(s.srv, 1), HTTPSRV_OK);
    CHECK_CMP(many_asked, <, PIPED);
    CHECK_CMP(metrics(&s).memory, <=, memory + HTTPSRV_READ_BUFFER + HTTPSRV_WRITE_BUFFER + 2 * LONG_BODY);
    for (int i = 0; i < PIPED; i++) {
        TURN_UNTIL(&s, answer_is_there(&c, false));
        net_reply(&c, false);
        CHECK_INT(c.body_len, LONG_BODY);
    }
    hang_up(&c);
    stop_turning();
}

TEST(nobody_is_asked_for_a_client_that_is_lost) {
    struct client c = send_many(true);
    leaver = &c;
    TURN_UNTIL(&s, metrics(&s).connections == 0);
    CHECK_CMP(many_asked, <=, 20 + 2 * HTTPSRV_WRITE_BUFFER / LONG_BODY);
    leaver = NULL;
    stop_turning();
}

#define HELD_HEAD "GET /held" HOST "X: held\r\n\r\n"
#define HELD      6

static bool holds; // defers, or else answers at once

static void on_held(httpsrv_req *req, void *user) {
    void *memory = httpsrv_alloc(req, 100);
    if (memory) memset(memory, 0xaa, 100);
    if (!holds) {
        on_tell(req, user);
        return;
    }
    const httpsrv_token token = httpsrv_defer(req);
    CHECK(token.id != 0);
    keep_token(&s, (size_t)s.arrived, token);
}

// A client whose request has the head that is kept, and is deferred.
static struct client hold_one(int n) {
    char address[32];
    snprintf(address, sizeof address, "127.0.0.%d", 1 + n);
    struct client c = dial_from(address);
    keep_the_next();
    holds = false;
    exchange(&c, HELD_HEAD);
    CHECK(is_kept(HELD_HEAD, strlen(HELD_HEAD)));
    exchange_kept(&c, HELD_HEAD);
    check_peer(&c, address);
    holds = true;
    SEND(&c, HELD_HEAD);
    TURN_UNTIL(&s, s.arrived == n + 1);
    return c;
}

// Other heads take the place of theirs meanwhile.
TEST(requests_that_are_away_keep_what_they_have_read) {
    struct client held[HELD];
    turn_with((httpsrv_config){0}, "GET /held", on_held);
    for (int i = 0; i < HELD; i++)
        held[i] = hold_one(i);
    struct client c = dial(s.port);
    keep_the_next();
    exchange(&c, "GET /plain/zzzzzzzzzzzzzzzzzzzzzzzz" HOST "\r\n");
    exchange_kept(&c, "GET /plain/zzzzzzzzzzzzzzzzzzzzzzzz" HOST "\r\n");
    hang_up(&c);
    for (int i = HELD - 1; i >= 0; i--) {
        char address[32];
        snprintf(address, sizeof address, "127.0.0.%d", 1 + i);
        CHECK_INT(httpsrv_post(s.srv, token_of(i), on_tell_later, NULL), HTTPSRV_OK);
        turn_until_answered(&held[i], false);
        CHECK(memcmp(held[i].body, HELD_HEAD, strlen(HELD_HEAD)) == 0);
        check_peer(&held[i], address);
    }
    hang_up_all(held, HELD);
    stop_turning();
}

TEST(clients_of_kept_heads_leave) {
    struct client held[HELD];
    turn_with((httpsrv_config){0}, "GET /held", on_held);
    for (int i = 0; i < HELD; i++)
        held[i] = hold_one(i);
    for (int i = 0; i < HELD; i++) {
        net_reset(&held[i]);
        TURN_UNTIL(&s, loop->num_orphans + metrics(&s).items[HTTPSRV_LOG_CLIENT_GONE] > (uint64_t)i);
        CHECK_INT(httpsrv_post(s.srv, token_of(i), on_tell_later, NULL), HTTPSRV_OK);
        struct client c = dial(s.port);
        holds = false;
        keep_the_next();
        exchange(&c, HELD_HEAD);
        exchange_kept(&c, HELD_HEAD);
        check_peer(&c, "127.0.0.1");
        hang_up(&c);
    }
    stop_turning();
}

// Its place has had all its generations: the request is not set aside any more.
TEST(a_kept_request_wears_out) {
    static const struct trace deferred = {"deferred", leave_deferred, false, false};
    unfiltered = true;
    turn_with((httpsrv_config){0}, "GET /trace", on_trace);
    struct client c = dial(s.port);
    for (int i = 0; i < 3; i++) {
        keep_the_next();
        exchange_traced(&c, &deferred);
        exchange_traced(&c, &deferred);
        CHECK(is_kept(TRACE_HEAD, strlen(TRACE_HEAD)));
        loop->again.req->place->cell = HSRV_GENERATIONS << 2 | HSRV_PLACE_CLOSED;
        exchange_traced(&c, &deferred);
        CHECK(!is_kept(TRACE_HEAD, strlen(TRACE_HEAD)));
    }
    hang_up(&c);
    stop_turning();
}

// Requests that go to a pool take others, so that what is kept stays.
TEST(jobs_do_not_take_what_is_kept) {
    turn_with((httpsrv_config){0}, "GET /held", on_held);
    struct client held = hold_one(0), c = dial(s.port);
    for (int i = 0; i < 2; i++) { // the second one finds a spare one
        keep_the_next();
        exchange(&c, SAME_HEAD);
        exchange_kept(&c, SAME_HEAD);
        CHECK_INT(httpsrv_post(s.srv, token_of(i), on_tell_later, NULL), HTTPSRV_OK);
        turn_until_answered(&held, false);
        CHECK(is_kept(SAME_HEAD, strlen(SAME_HEAD)));
        loop->again.wait = 1; // not this one
        SEND(&held, HELD_HEAD);
        TURN_UNTIL(&s, s.arrived == i + 2);
        CHECK(is_kept(SAME_HEAD, strlen(SAME_HEAD)));
        exchange_kept(&c, SAME_HEAD);
    }
    CHECK_INT(httpsrv_post(s.srv, token_of(2), on_tell_later, NULL), HTTPSRV_OK);
    turn_until_answered(&held, false);
    hang_up(&held);
    hang_up(&c);
    stop_turning();
}

// More requests at a time than a loop keeps for later: some of them, and what they have read, are freed.
TEST(more_requests_than_are_kept_spare) {
    enum { MANY = HSRV_SPARE_REQUESTS + 10 };
    struct client many[MANY];
    turn_with((httpsrv_config){0}, "GET /held", on_held);
    holds = true;
    for (int i = 0; i < MANY; i++) {
        many[i] = dial(s.port);
        SEND(&many[i], HELD_HEAD);
        TURN_UNTIL(&s, s.arrived == i + 1);
    }
    for (int i = 0; i < MANY; i++) {
        CHECK_INT(httpsrv_post(s.srv, token_of(i), on_tell_later, NULL), HTTPSRV_OK);
        turn_until_answered(&many[i], false);
        struct client c = dial(s.port);
        keep_the_next();
        exchange(&c, SAME_HEAD);
        CHECK(is_kept(SAME_HEAD, strlen(SAME_HEAD)));
        exchange_kept(&c, SAME_HEAD);
        hang_up(&c);
    }
    CHECK_INT(loop->num_spare, HSRV_SPARE_REQUESTS);
    hang_up_all(many, MANY);
    stop_turning();
}

// ---- what ends connections holds for heads that come again ----

TEST(the_last_request_of_a_connection) {
    turn_server((httpsrv_config){.max.requests = 3});
    for (int i = 0; i < 4; i++) {
        struct client c = dial(s.port);
        for (int n = 1; n <= 3; n++) {
            NOTE("request %d", n);
            if (i + n == 1)
                exchange(&c, SAME_HEAD);
            else
                exchange_kept(&c, SAME_HEAD);
            CHECK_INT(c.status, 200);
            CHECK_INT(c.close, n == 3);
        }
        TURN_UNTIL(&s, !net_receive(&c, 0) && c.eof);
        hang_up(&c);
    }
    stop_turning();
}

TEST(how_long_a_connection_persists) {
    turn_server((httpsrv_config){.keep_alive_header = true, .max.requests = 10, .timeout_ms.idle = 7000});
    struct client c = dial(s.port);
    exchange(&c, SAME_HEAD);
    for (int left = 8; left > 0; left--) {
        char expected[40];
        exchange_kept(&c, SAME_HEAD);
        snprintf(expected, sizeof expected, "timeout=7, max=%d", left);
        CHECK_STR(field(&c, "Keep-Alive"), expected);
    }
    exchange_kept(&c, SAME_HEAD);
    CHECK(c.close && !field(&c, "Keep-Alive"));
    hang_up(&c);
    stop_turning();
}

TEST(a_drain_in_between) {
    turn_server((httpsrv_config){.timeout_ms.grace = 60000});
    struct client a = dial(s.port), b = dial(s.port);
    exchange(&a, SAME_HEAD);
    exchange_kept(&b, SAME_HEAD);
    CHECK(!b.close);
    httpsrv_stop(s.srv);
    exchange_kept(&a, SAME_HEAD);
    CHECK(a.status == 200 && a.close);
    exchange_kept(&b, SAME_HEAD);
    CHECK(b.status == 200 && b.close);
    hang_up(&a);
    hang_up(&b);
    stop_turning();
}

// Each allocation that a request makes fails in its turn. The client gets its answer, a refusal or the end.
static void ask_and_fail(size_t i, int failing_at) {
    struct client c = dial(s.port);
    STORE(s.asked, 0);
    STORE(s.failing_at, failing_at);
    net_send_some(&c, requests[i].bytes, requests[i].len, net_deadline());
    TURN_UNTIL(&s, answer_is_there(&c, is_head(i)));
    STORE(s.failing_at, 0);
    if (!c.eof) {
        net_reply(&c, is_head(i));
        NOTE("allocation %d fails: status %d for %.100s", failing_at, c.status, rows[i].head);
        CHECK(c.status == 100 || c.status == 200 || c.status == rows[i].status || c.status == 500 || c.status == 503);
    }
    hang_up(&c);
}

// What comes after it gets what it always gets.
static void ask_twice(size_t i) {
    keep_the_next();
    for (int round = 0; round < 2; round++) {
        struct client c = dial(s.port);
        exchange(&c, requests[i].bytes);
        check_as_ever(i, &c);
        hang_up(&c);
    }
}

TEST(no_memory_in_between) {
    take_references();
    turn_server((httpsrv_config){0});
    for (size_t i = 0; i < ROWS(rows); i++) {
        int failing_at = 0;
        do {
            ask_twice(i);
            ask_and_fail(i, ++failing_at);
        } while (LOAD(s.asked) >= failing_at && failing_at < 30);
        ask_twice(i);
    }
    stop_turning();
}

// ---- plain answers: the same bytes by the short way and by the long one ----

#define ASK_GIVEN "GET /given" HOST "\r\n"

static struct {
    const char *type;
    httpsrv_str body;
    const char *name, *value; // of a field that is set before; NULL: none
    httpsrv_result result;
} given;

static void on_given(httpsrv_req *req, void *user) {
    const httpsrv_answer answer = {.status = 200, .type = given.type, .body = given.body};
    (void)user;
    if (given.name)
        CHECK_INT(httpsrv_set(req, given.name, (httpsrv_str){given.value, strlen(given.value)}), HTTPSRV_OK);
    given.result = general ? httpsrv_reply_with(req, &answer) : httpsrv_reply(req, 200, given.type, given.body);
    if (given.result != HTTPSRV_OK) httpsrv_reply(req, 200, "text/refused", HTTPSRV_STR("refused"));
}

static void turn_given(httpsrv_config config) {
    turn_with(config, "* /given", on_given);
}

static void ask_given(const char *request, struct answer_text *out) {
    struct client c = dial(s.port);
    exchange(&c, request);
    put_answer(out, &c);
    hang_up(&c);
}

// As it was at first.
static void forget_type(void) {
    loop->plain_type[0] = '\0';
    loop->plain_type_len = 0;
}

// Gives the answer both ways, and the short way twice: with a type that is new, and with one that is known.
static void check_ways(const char *request, const char *type, httpsrv_str body) {
    static struct answer_text expected, answer;
    NOTE("type of %zu bytes, body of %zu, server name of %zu, %.100s", strlen(type), body.len,
         strlen(s.srv->server_name), request);
    given.type = type;
    given.body = body;
    general = 1;
    ask_given(request, &expected);
    const httpsrv_result result = given.result;
    general = 0;
    forget_type();
    for (int i = 0; i < 2; i++) {
        ask_given(request, &answer);
        CHECK_INT(given.result, result);
        CHECK_MEM(answer.bytes, answer.len, expected.bytes, expected.len);
    }
}

static const char *type_of(size_t len) {
    static char type[256];
    memset(type, 't', len);
    type[len] = 0;
    return type;
}

static void check_bodies(const char *type) {
    const size_t edge = loop->opening_len + 24 < HTTPSRV_WRITE_BUFFER ? HTTPSRV_WRITE_BUFFER - loop->opening_len - 24
                                                                      : 3; // what fits the buffer with the head
    const size_t sizes[] = {0, 1, 9, 10, 99, 100, 999, 1000, 9999, 10000, HTTPSRV_WRITE_BUFFER};
    for (size_t i = 0; i < ROWS(sizes); i++)
        check_ways(ASK_GIVEN, type, blob_view(sizes[i]));
    for (size_t len = edge - 2; len <= edge + 2; len++)
        check_ways(ASK_GIVEN, type, blob_view(len));
    for (size_t n = 1; n < 4; n++)
        check_ways(ASK_GIVEN, type, blob_view(n * HTTPSRV_WRITE_BUFFER + n % 2));
}

static const size_t type_sizes[] = {1, 2, 10, 62, 63, 64, 65, 200};

TEST(plain_answers_of_all_sizes) {
    turn_given((httpsrv_config){0});
    for (size_t i = 0; i < ROWS(type_sizes); i++) {
        const char *type = type_of(type_sizes[i]);
        check_ways(ASK_GIVEN, type, HTTPSRV_STR("x"));
        CHECK_INT(strcmp(loop->plain_type, type) == 0, strlen(type) <= HSRV_MAX_PLAIN_TYPE);
        check_bodies(type);
    }
    stop_turning();
}

TEST(plain_answers_of_servers_with_long_names) {
    static const size_t sizes[] = {0, 1, 250, 300, 340, 350, 360, 370, 380, 390, 400, 420, 512, 600, 5000};
    for (size_t i = 0; i < ROWS(sizes); i++) {
        char name[5001];
        memset(name, 'n', sizes[i]);
        name[sizes[i]] = 0;
        turn_given((httpsrv_config){.server_name = name});
        for (size_t k = 0; k < ROWS(type_sizes); k++)
            check_ways(ASK_GIVEN, type_of(type_sizes[k]), HTTPSRV_STR("hello"));
        check_bodies("text/plain");
        stop_turning();
    }
}

TEST(plain_answers_to_all_kinds_of_requests) {
    static const char *const kinds[] = {"HEAD /given" HOST "\r\n",
                                        "GET /given HTTP/1.0\r\n\r\n",
                                        "GET /given HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
                                        "GET /given" HOST "Connection: close\r\n\r\n",
                                        "POST /given" HOST "Content-Length: 3\r\n\r\nabc",
                                        "POST /given" HOST "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"};
    turn_given((httpsrv_config){0});
    for (size_t i = 0; i < ROWS(kinds); i++) {
        check_ways(kinds[i], "text/plain", HTTPSRV_STR("hello"));
        check_ways(kinds[i], "text/plain", HTTPSRV_STR(""));
        check_ways(kinds[i], type_of(64), blob_view(HTTPSRV_WRITE_BUFFER));
    }
    stop_turning();
}

TEST(plain_answers_with_fields) {
    static const char *const fields[][2] = {{"X-Field", "x"},
                                            {"Connection", "close"},
                                            {"Content-Type", "text/x"},
                                            {"Server", "mine"},
                                            {"Date", "Sun, 06 Nov 1994 08:49:37 GMT"},
                                            {"Vary", "Accept"}};
    turn_given((httpsrv_config){0});
    for (size_t i = 0; i < ROWS(fields); i++) {
        given.name = fields[i][0];
        given.value = fields[i][1];
        check_ways(ASK_GIVEN, "text/plain", HTTPSRV_STR("hello"));
    }
    given.name = NULL;
    check_ways(ASK_GIVEN, "text/plain", HTTPSRV_STR("hello"));
    stop_turning();
}

// Nothing of them is sent, and another answer may follow.
TEST(plain_answers_that_cannot_be) {
    static const char *const types[] = {"", "\r\n", "text/plain\r\nX: y", "text/\x01", "text/\x7f", "\n"};
    const httpsrv_str no_bytes = {NULL, 5}, none = {NULL, 0};
    struct client c;
    turn_given((httpsrv_config){0});
    check_ways(ASK_GIVEN, "text/plain", none);
    c = dial(s.port);
    for (size_t i = 0; i < ROWS(types) + 1; i++) {
        const bool by_body = i == ROWS(types);
        for (int round = 0; round < 3; round++) {
            given.type = by_body ? "text/plain" : types[i];
            given.body = by_body ? no_bytes : none;
            general = 0;
            if (round == 0) forget_type();
            exchange(&c, ASK_GIVEN);
            CHECK_INT(given.result, HTTPSRV_ARG);
            CHECK_STR(field(&c, "Content-Type"), "text/refused");
            CHECK_MEM(c.body, c.body_len, "refused", 7);
            CHECK_STR(loop->plain_type, "text/refused");
        }
    }
    hang_up(&c);
    stop_turning();
}

static void on_once_more(httpsrv_req *req, void *user) {
    const httpsrv_answer answer = {.status = 200, .type = "text/plain", .body = HTTPSRV_STR("third")};
    (void)user;
    CHECK_INT(httpsrv_reply(req, 200, "text/plain", HTTPSRV_STR("first")), HTTPSRV_OK);
    CHECK_INT(httpsrv_reply(req, 200, "text/plain", HTTPSRV_STR("second")), HTTPSRV_STATE);
    CHECK_INT(httpsrv_reply_with(req, &answer), HTTPSRV_STATE);
    CHECK_INT(httpsrv_set(req, "X-Late", HTTPSRV_STR("x")), HTTPSRV_STATE);
    CHECK_INT(httpsrv_begin(req, 200, "text/plain", -1), HTTPSRV_STATE);
    CHECK(httpsrv_defer(req).id == 0);
}

TEST(plain_answers_are_given_once) {
    turn_with((httpsrv_config){0}, "GET /twice", on_once_more);
    struct client c = dial(s.port);
    for (int i = 1; i < 5; i++) {
        exchange(&c, "GET /twice" HOST "\r\n");
        CHECK_MEM(c.body, c.body_len, "first", 5);
        CHECK_INT(metrics(&s).items[HTTPSRV_LOG_ANSWERED_TWICE], i);
        CHECK_INT(metrics(&s).answers[2], i);
    }
    hang_up(&c);
    stop_turning();
}

// The type is the caller's again after the call, and changes from request to request.
static void on_type(httpsrv_req *req, void *user) {
    static char type[100];
    const httpsrv_str wanted = httpsrv_query(req, "q");
    (void)user;
    memcpy(type, wanted.ptr, wanted.len);
    type[wanted.len] = 0;
    CHECK_INT(httpsrv_reply(req, 200, type, HTTPSRV_STR("x")), HTTPSRV_OK);
    memset(type, 'z', sizeof type - 1);
}

TEST(types_that_change) {
    static const size_t sizes[] = {1, 2, 62, 63, 64, 65, 2, 1};
    turn_with((httpsrv_config){0}, "GET /type", on_type);
    struct client c = dial(s.port);
    for (int i = 0; i < 500; i++) {
        char type[100], head[200];
        const size_t len = sizes[random_below(ROWS(sizes))];
        memset(type, 'a' + (int)random_below(2), len);
        type[len] = 0;
        snprintf(head, sizeof head, "GET /type?q=%s" HOST "\r\n", type);
        exchange(&c, head);
        CHECK_STR(field(&c, "Content-Type"), type);
    }
    hang_up(&c);
    stop_turning();
}

static void format_date(char *out, size_t size, time_t when) {
    struct tm tm;
    gmtime_r(&when, &tm);
    strftime(out, size, "%a, %d %b %Y %H:%M:%S GMT", &tm);
}

// Whether an answer's date is of the time in which it was made.
static void check_date(const char *date, time_t from, time_t to) {
    char text[64];
    for (time_t when = from; when <= to; when++) {
        format_date(text, sizeof text, when);
        if (strcmp(date, text) == 0) return;
    }
    FAIL("the date is %s, not %s", date, text);
}

TEST(dates_of_plain_answers) {
    const int64_t end = test_now() + 2000;
    turn_given((httpsrv_config){0});
    struct client c = dial(s.port);
    for (int i = 0; test_now() < end; i++) {
        const time_t from = time(NULL); // by the kernel's coarse clock, which is the one that is behind
        struct timespec to;
        given.type = i < 30 && i / 8 % 2 ? "text/a" : "text/b"; // first several types, then one across a change
        given.body = HTTPSRV_STR("x");
        exchange(&c, ASK_GIVEN);
        CHECK_STR(field(&c, "Content-Type"), given.type);
        clock_gettime(CLOCK_REALTIME, &to);
        check_date(field(&c, "Date"), from, to.tv_sec);
        test_sleep(20);
    }
    hang_up(&c);
    stop_turning();
}

// Where the buffer is full a plain answer goes behind those before it.
TEST(plain_answers_in_a_row) {
    static const size_t sizes[] = {HTTPSRV_WRITE_BUFFER / 3, HTTPSRV_WRITE_BUFFER / 2, HTTPSRV_WRITE_BUFFER - 200,
                                   HTTPSRV_WRITE_BUFFER};
    turn_given((httpsrv_config){0});
    for (size_t i = 0; i < ROWS(sizes); i++) {
        struct client c = dial(s.port);
        given.type = "text/plain";
        given.body = blob_view(sizes[i]);
        for (int n = 0; n < 7; n++)
            SEND(&c, ASK_GIVEN);
        for (int n = 0; n < 7; n++) {
            turn_until_answered(&c, false);
            check_blob(&c, sizes[i]);
        }
        hang_up(&c);
    }
    stop_turning();
}

// ---- a connection that persists needs no memory ----

#if HTTPSRV_READ_BUFFER >= 4096 // bursts come whole

#define BURST 16

static void ask_in_bursts(struct client *c, const char *request, int bursts, int in_each) {
    char bytes[BURST * 200];
    size_t len = 0;
    for (int i = 0; i < in_each; i++)
        len += (size_t)snprintf(bytes + len, sizeof bytes - len, "%s", request);
    while (bursts-- > 0) {
        net_send(c, bytes, len);
        for (int i = 0; i < in_each; i++) {
            REPLY(c);
            CHECK_INT(c->status, 200);
        }
    }
}

static void check_no_allocations(const char *path, int in_each) {
    char same[100], other[100];
    struct client c = dial(s.port);
    snprintf(same, sizeof same, "GET %s/a" HOST "\r\n", path);
    snprintf(other, sizeof other, "GET %s/b?q=1" HOST "X: y\r\nX: z\r\n\r\n", path);
    for (int i = 0; i < 3; i++) {
        ask_in_bursts(&c, same, 2, in_each);
        ask_in_bursts(&c, other, 2, in_each);
    }
    const size_t before = LOAD(s.allocations);
    NOTE("%s, %d at a time", path, in_each);
    ask_in_bursts(&c, same, 500 / in_each, in_each);
    for (int i = 0; i < 250 / in_each; i++) {
        ask_in_bursts(&c, other, 1, in_each);
        ask_in_bursts(&c, same, 1, in_each);
    }
    CHECK_INT(LOAD(s.allocations), before);
    hang_up(&c);
}

TEST(no_allocations_while_a_connection_persists) {
    prepare_all((httpsrv_config){0});
    go(&s);
    check_no_allocations("/plain", 1);
    check_no_allocations("/plain", BURST);
    check_no_allocations("/worker", 1);
    finish(&s);
}

#endif

// ---- jobs of a turn ----

static const int queues[] = {2, 4, 8, 1024}, worker_counts[] = {1, 4};

static void on_job(httpsrv_req *req, void *user) {
    (void)user;
    httpsrv_reply(req, 200, "text/plain", HTTPSRV_STR("done"));
    COUNT(s.handled);
}

static void on_block(httpsrv_req *req, void *user) {
    const int *jobs = (const int *)user;
    WAIT(LOAD(s.handled) >= *jobs);
    httpsrv_reply(req, 200, "text/plain", HTTPSRV_STR("unblocked"));
}

static int jobs_awaited; // by /block

static void prepare_jobs(int queue, int workers, httpsrv_overload overload) {
    prepare(&s, &(httpsrv_config){.pools = {{.name = "a", .threads = workers, .queue = queue},
                                            {.name = "b", .threads = workers, .queue = queue}}});
    const httpsrv_route_config routes[] = {{.pattern = "GET /a", .handler = on_job, .pool = "a", .overload = overload},
                                           {.pattern = "GET /b", .handler = on_job, .pool = "b", .overload = overload},
                                           {.pattern = "GET /block", .handler = on_block, .user = &jobs_awaited},
                                           {.pattern = "GET /inline", .handler = on_job}};
    for (size_t i = 0; i < ROWS(routes); i++)
        CHECK_INT(httpsrv_route(s.srv, &routes[i]), HTTPSRV_OK);
}

// Clients that are connected, and workers that sleep.
static void turn_jobs(struct client *clients, int count, int queue, int workers) {
    prepare_jobs(queue, workers, HTTPSRV_OVERLOAD_WAIT);
    listen_and_turn();
    for (int i = 0; i < count; i++) {
        clients[i] = dial(s.port);
        exchange(&clients[i], "GET /inline" HOST "\r\n");
    }
    for (int i = 0; i < s.srv->num_pools; i++)
        WAIT(LOAD(s.srv->pools[i]->parked) == (uint32_t)workers);
    STORE(s.handled, 0);
}

static void end_jobs(struct client *clients, int count) {
    for (int i = 0; i < count; i++) {
        turn_until_answered(&clients[i], false);
        CHECK_INT(clients[i].status, 200);
    }
    hang_up_all(clients, count);
    stop_turning();
}

// The loop takes in all of it, mostly in one turn, and then nothing else happens.
static void check_jobs_run(int jobs, int queue, int workers) {
    struct client clients[40];
    NOTE("%d jobs, %d places, %d workers", jobs, queue, workers);
    turn_jobs(clients, jobs, queue, workers);
    for (int i = 0; i < jobs; i++)
        GET(&clients[i], i % 2 ? "/b" : "/a");
    TURN_UNTIL(&s, metrics(&s).requests == 2 * (uint64_t)jobs);
    const int in_a = (jobs + 1) / 2, in_b = jobs / 2;
    WAIT(LOAD(s.handled) >= (in_a < queue ? in_a : queue) + (in_b < queue ? in_b : queue));
    end_jobs(clients, jobs);
}

TEST(jobs_of_a_turn_run_without_another) {
    static const int counts[] = {1, 2, 3, 5, 2 * HSRV_OFFERS - 2, 2 * HSRV_OFFERS, 2 * HSRV_OFFERS + 2};
    for (size_t q = 0; q < ROWS(queues); q++) {
        for (size_t w = 0; w < ROWS(worker_counts); w++) {
            for (size_t i = 0; i < ROWS(counts); i++)
                check_jobs_run(counts[i], queues[q], worker_counts[w]);
        }
    }
}

// Waits until the kernel has handed over all that was sent.
static void wait_received(const struct client *c) {
    int left = 1;
    WAIT(ioctl(c->fd, SIOCOUTQ, &left) == 0 && left == 0);
}

// Many jobs do not wait for the end of a turn, which takes as long as the handlers on the loop do.
static void check_jobs_run_in_the_turn(int jobs, int queue) {
    struct client clients[HSRV_OFFERS + 1];
    NOTE("%d jobs, %d places", jobs, queue);
    turn_jobs(clients, jobs + 1, queue, 1);
    jobs_awaited = jobs;
    for (int i = 0; i < jobs; i++)
        GET(&clients[i], "/a");
    for (int i = 0; i < jobs; i++)
        wait_received(&clients[i]);
    GET(&clients[jobs], "/block");
    wait_received(&clients[jobs]);
    end_jobs(clients, jobs + 1);
}

TEST(many_jobs_run_while_the_turn_goes_on) {
    check_jobs_run_in_the_turn(HSRV_OFFERS, 1024);
    check_jobs_run_in_the_turn(2, 8);
    check_jobs_run_in_the_turn(1, 2);
    check_jobs_run_in_the_turn(HSRV_OFFERS / 2, 32);
}

// Bursts of several connections, each to both pools in turn.
static void check_bursts(int queue, int workers, httpsrv_overload overload) {
    static const char *const paths[] = {"/a", "/b", "/inline", "/b", "/a", "/a"};
    struct client clients[20];
    char bytes[sizeof(SAME_HEAD) * ROWS(paths)];
    size_t len = 0;
    for (size_t i = 0; i < ROWS(paths); i++)
        len += (size_t)snprintf(bytes + len, sizeof bytes - len, "GET %s" HOST "\r\n", paths[i]);
    prepare_jobs(queue, workers, overload);
    go(&s);
    for (size_t i = 0; i < ROWS(clients); i++)
        clients[i] = dial(s.port);
    for (int round = 0; round < TEST_FEWER(10, 3); round++) {
        for (size_t i = 0; i < ROWS(clients); i++)
            net_send(&clients[i], bytes, len);
        for (size_t i = 0; i < ROWS(clients) * ROWS(paths); i++)
            EXPECT(&clients[i / ROWS(paths)], 200, "done");
    }
    hang_up_all(clients, ROWS(clients));
    finish(&s);
}

TEST(bursts_to_two_pools) {
    for (size_t q = 0; q < ROWS(queues); q++) {
        for (size_t w = 0; w < ROWS(worker_counts); w++) {
            NOTE("%d places, %d workers", queues[q], worker_counts[w]);
            check_bursts(queues[q], worker_counts[w], HTTPSRV_OVERLOAD_WAIT);
            check_bursts(queues[q], worker_counts[w], HTTPSRV_OVERLOAD_INLINE);
        }
    }
}
