// Corners: filters that refuse in pieces or defer, and what becomes of the body, of others and of the client's place; fields
// of filters in the server's own answers; refusals of HEAD; types of files; CONNECT. Also built with ThreadSanitizer.

#define HTTPSRV_IMPLEMENTATION
#include "../httpsrv.h"

#include "server.h"
#include <pthread.h>

// Where handlers run: filters run there, too, but where no route fits.
struct way {
    const char *name;
    const char *pool; // NULL: inline
};

static const struct way ways[] = {{"inline", NULL}, {"by workers", "work"}};
static const struct way *way;

#define TEST_EACH_WAY(id) TEST_WAYS(id, true)

static struct server s;
static int marks, ran;             // calls of filters, and of handlers, that should not have been
static int heads, pieces;          // calls of the handler and of the on_body of a route that takes its body in pieces
static size_t taken;               // bytes that on_body got
static int pondering;              // threads that wait in the allocator
static int decided;                // 1: they may leave it
static _Thread_local bool ponders; // this thread takes its time for memory

static void *slow_realloc(void *user, void *ptr, size_t old_size, size_t new_size) {
    if (ponders && new_size > 0) {
        ponders = false;
        COUNT(pondering);
        WAIT(LOAD(decided));
    }
    return counting_realloc(user, ptr, old_size, new_size);
}

static void begin(const httpsrv_config *config) {
    httpsrv_config c = *config;
    c.reactors = 1; // what has come on one connection is seen before what comes on another later
    c.pools[0] = (httpsrv_pool_config){.name = "work", .threads = 2};
    c.allocator.fn = slow_realloc;
    c.allocator.user = &s;
    marks = ran = heads = pieces = pondering = decided = 0;
    taken = 0;
    prepare(&s, &c);
    CHECK_INT(httpsrv_on(s.srv, "GET /hello", on_hello, &s), HTTPSRV_OK);
    NOTE("%s", way ? way->name : "");
}

static void use(const char *prefix, httpsrv_filter filter, const char *user) {
    CHECK_INT(httpsrv_use(s.srv, prefix, filter, (void *)(uintptr_t)user), HTTPSRV_OK);
}

// In the pool that the way has.
static void route(const char *pattern, httpsrv_handler handler) {
    const httpsrv_route_config config = {
        .pattern = pattern, .handler = handler, .user = &s, .pool = way ? way->pool : NULL};
    CHECK_INT(httpsrv_route(s.srv, &config), HTTPSRV_OK);
}

// The connection serves another request, or ends as the answer said.
static void check_goes_on(struct client *c) {
    if (c->close) {
        EXPECT_END(c);
        return;
    }
    SEND(c, NEXT);
    EXPECT(c, 200, HELLO);
}

static httpsrv_result answer(int n, const char *text) {
    const httpsrv_answer a = {.status = 200, .type = "text/plain", .body = {text, strlen(text)}};
    return httpsrv_finish(s.srv, token_of(n), &a);
}

// ---- filters that refuse in pieces, before a body that comes in pieces ----

#define WHO     "Who are you?\n"
#define NO      "No.\n"
#define REFUSAL WHO NO NO NO

static void go_on_refusing(httpsrv_req *req, void *user) {
    int *left = (int *)httpsrv_attached(req);
    (void)user;
    CHECK_INT(httpsrv_write(req, HTTPSRV_STR(NO)), HTTPSRV_OK);
    if (--*left == 0) CHECK_INT(httpsrv_end(req), HTTPSRV_OK);
}

static void begin_refusing(httpsrv_req *req, void *user) {
    (void)user;
    CHECK_INT(httpsrv_begin(req, 403, "text/plain", -1), HTTPSRV_OK);
    CHECK_INT(httpsrv_write(req, HTTPSRV_STR(WHO)), HTTPSRV_OK);
}

static void end_refusing(httpsrv_req *req, void *user) {
    (void)user;
    CHECK_INT(httpsrv_write(req, HTTPSRV_STR(NO NO NO)), HTTPSRV_OK);
    CHECK_INT(httpsrv_end(req), HTTPSRV_OK);
}

static void refuse_by_drain(httpsrv_req *req, void *user) {
    int *left = (int *)httpsrv_alloc(req, sizeof *left);
    CHECK(left != NULL);
    *left = 3;
    httpsrv_attach(req, left);
    begin_refusing(req, user);
    CHECK_INT(httpsrv_on_drain(req, go_on_refusing, NULL), HTTPSRV_OK);
}

static httpsrv_verdict refuse(httpsrv_req *req, void *user) {
    refuse_by_drain(req, user);
    return HTTPSRV_DONE;
}

static httpsrv_verdict refuse_by_post(httpsrv_req *req, void *user) {
    CHECK_INT(httpsrv_post(s.srv, httpsrv_defer(req), refuse_by_drain, user), HTTPSRV_OK);
    return HTTPSRV_DONE;
}

// The test posts what refuses.
static httpsrv_verdict refuse_at_will(httpsrv_req *req, void *user) {
    (void)user;
    keep_token(&s, 0, httpsrv_defer(req));
    return HTTPSRV_DONE;
}

static httpsrv_verdict let_pass(httpsrv_req *req, void *user) {
    (void)req;
    (void)user;
    return HTTPSRV_NEXT;
}

static void on_head(httpsrv_req *req, void *user) {
    (void)req;
    (void)user;
    COUNT(heads);
}

static void on_piece(httpsrv_req *req, httpsrv_str piece, bool last, void *user) {
    (void)user;
    COUNT(pieces);
    __atomic_add_fetch(&taken, piece.len, __ATOMIC_ACQ_REL);
    if (last) (void)httpsrv_replyf(req, 200, "text/plain", "%zu bytes", LOAD(taken));
}

static void begin_refused(httpsrv_filter filter) {
    const httpsrv_route_config config = {
        .pattern = "POST /up", .handler = on_head, .on_body = on_piece, .max_body = -1};
    way = NULL;
    begin(&(httpsrv_config){0});
    use("/up", filter, NULL);
    CHECK_INT(httpsrv_route(s.srv, &config), HTTPSRV_OK);
    go(&s);
}

// The head of a request, and the size of its chunk.
static int print_head(char *out, size_t len, bool chunked) {
    const int head = sprintf(out, "POST /up HTTP/1.1\r\nHost: a\r\n");
    if (chunked) return head + sprintf(out + head, "Transfer-Encoding: chunked\r\n\r\n%zx\r\n", len);
    return head + sprintf(out + head, "Content-Length: %zu\r\n\r\n", len);
}

// Head and body in one piece, as far as the server takes it.
static void post_up(struct client *c, size_t len, bool chunked) {
    char *text = (char *)malloc(len + 200);
    CHECK(text != NULL);
    size_t at = (size_t)print_head(text, len, chunked);
    memcpy(text + at, blob, len);
    at += len;
    if (chunked) at += (size_t)sprintf(text + at, "\r\n0\r\n\r\n");
    (void)net_send_some(c, text, at, net_deadline());
    free(text);
}

static const size_t body_sizes[] = {12, 3000, 300000};
#define SMALL_BODY 3000 // in chunks is read to its end if nobody wants it; behind a larger one the connection may end

static void check_refused_bodies(httpsrv_filter filter) {
    begin_refused(filter);
    for (size_t i = 0; i < 2 * ROWS(body_sizes); i++) {
        struct client c = dial(s.port);
        NOTE("%zu bytes%s", body_sizes[i / 2], i % 2 ? ", chunked" : "");
        post_up(&c, body_sizes[i / 2], i % 2);
        EXPECT(&c, 403, REFUSAL);
        if (body_sizes[i / 2] <= SMALL_BODY || i % 2 == 0) check_goes_on(&c);
        hang_up(&c);
    }
    CHECK_INT(LOAD(pieces), 0);
    CHECK_INT(LOAD(heads), 0);
    check_alive(&s);
    finish(&s);
}

TEST(refused_by_on_drain) {
    check_refused_bodies(refuse);
}

TEST(refused_by_a_post) {
    check_refused_bodies(refuse_by_post);
}

// The answer has begun when the body comes, and ends behind it. When another client is answered, the reactor has seen it.
TEST(body_within_the_refusal) {
    char head[200];
    begin_refused(refuse_at_will);
    for (int chunked = 0; chunked <= 1; chunked++) {
        struct client c = dial(s.port);
        NOTE("%s", chunked ? "chunked" : "by length");
        net_send(&c, head, (size_t)print_head(head, 12, chunked));
        WAIT(LOAD(s.arrived) == 1 + chunked);
        CHECK_INT(httpsrv_post(s.srv, token_of(0), begin_refusing, NULL), HTTPSRV_OK);
        (void)net_until(&c, WHO, 1000);
        SENDF(&c, "drop table x%s", chunked ? "\r\n0\r\n\r\n" : "");
        check_alive(&s);
        CHECK_INT(httpsrv_post(s.srv, token_of(0), end_refusing, NULL), HTTPSRV_OK);
        EXPECT(&c, 403, REFUSAL);
        check_goes_on(&c);
        hang_up(&c);
    }
    CHECK_INT(LOAD(pieces), 0);
    CHECK_INT(LOAD(heads), 0);
    finish(&s);
}

TEST(body_of_what_passes) {
    char text[50];
    begin_refused(let_pass);
    for (size_t i = 0; i < 2 * ROWS(body_sizes); i++) {
        struct client c = dial(s.port);
        NOTE("%zu bytes%s", body_sizes[i / 2], i % 2 ? ", chunked" : "");
        STORE(taken, (size_t)0);
        post_up(&c, body_sizes[i / 2], i % 2);
        snprintf(text, sizeof text, "%zu bytes", body_sizes[i / 2]);
        EXPECT(&c, 200, text);
        CHECK(!c.close);
        check_goes_on(&c);
        hang_up(&c);
    }
    CHECK_INT(LOAD(heads), 2 * ROWS(body_sizes));
    finish(&s);
}

// ---- filters that defer and say that it goes on ----

static httpsrv_verdict defer_and_go_on(httpsrv_req *req, void *user) {
    (void)user;
    CHECK_INT(httpsrv_set(req, "X-Early", HTTPSRV_STR("1")), HTTPSRV_OK);
    const httpsrv_token token = httpsrv_defer(req);
    CHECK(token.id != 0);
    keep_token(&s, 0, token);
    return HTTPSRV_NEXT;
}

static httpsrv_verdict count_mark(httpsrv_req *req, void *user) {
    (void)req;
    (void)user;
    COUNT(marks);
    return HTTPSRV_NEXT;
}

static void on_run(httpsrv_req *req, void *user) {
    (void)user;
    COUNT(ran);
    (void)httpsrv_reply(req, 200, "text/plain", HTTPSRV_STR("handled"));
}

static const struct deferred_row {
    const char *line, *body;
    bool late; // the body comes behind the answer, where the filter does not wait for it
} deferred_rows[] = {
    {"GET /later", "", false},        {"HEAD /later", "", false},        {"POST /later", "12345", false},
    {"POST /later", "12345", true},   {"GET /later/nowhere", "", false}, {"POST /later/nowhere", "12345", false},
    {"DELETE /later", "12345", true}, {"OPTIONS /later", "", false},
};

static void check_deferred(struct client *c, const struct deferred_row *row) {
    const bool late = row->late && !way->pool;
    const int before = LOAD(s.arrived);
    NOTE("%s, %s%s", way->name, row->line, late ? ", late" : "");
    SENDF(c, "%s HTTP/1.1\r\nHost: a\r\nContent-Length: %zu\r\n\r\n", row->line, strlen(row->body));
    if (!late) SEND(c, row->body);
    WAIT(LOAD(s.arrived) == before + 1);
    CHECK_INT(answer(0, "finished"), HTTPSRV_OK);
    net_reply(c, strncmp(row->line, "HEAD", 4) == 0);
    CHECK_INT(c->status, 200);
    CHECK_INT(c->length, 8);
    if (c->body_len > 0) CHECK_MEM(c->body, c->body_len, "finished", 8);
    CHECK_INT(count_fields(c, "X-Early"), 1);
    CHECK_INT(answer(0, "once more"), HTTPSRV_GONE);
    if (late && !c->close) SEND(c, row->body);
    check_goes_on(c);
}

TEST_EACH_WAY(a_deferral_is_the_end_of_filters) {
    begin(&(httpsrv_config){0});
    use("/later", defer_and_go_on, NULL);
    use("/later", count_mark, NULL);
    route("GET /later", on_run);
    route("POST /later", on_run);
    go(&s);
    for (size_t i = 0; i < ROWS(deferred_rows); i++) {
        struct client c = dial(s.port);
        check_deferred(&c, &deferred_rows[i]);
        hang_up(&c);
    }
    CHECK_INT(LOAD(marks), 0);
    CHECK_INT(LOAD(ran), 0);
    finish(&s);
}

// Goes on when the one who finishes is on the way.
static httpsrv_verdict defer_and_go_on_late(httpsrv_req *req, void *user) {
    const httpsrv_verdict verdict = defer_and_go_on(req, user);
    WAIT(LOAD(pondering) == 1);
    return verdict;
}

static void *finish_slowly(void *result) {
    ponders = true;
    *(httpsrv_result *)result = answer(0, "SECRET");
    ponders = false;
    return NULL;
}

// The client leaves while its answer is made. The next one, which has its place if that is free, must not get it.
static void check_secret(const char *request) {
    pthread_t finisher;
    httpsrv_result result = HTTPSRV_ARG;
    begin(&(httpsrv_config){0});
    use("/later", defer_and_go_on_late, NULL);
    route("* /later", on_run);
    CHECK_INT(httpsrv_on(s.srv, "GET /d/:n", on_defer, &s), HTTPSRV_OK);
    go(&s);
    struct client a = dial(s.port);
    SEND(&a, request);
    WAIT(LOAD(s.arrived) == 1);
    CHECK_INT(pthread_create(&finisher, NULL, finish_slowly, &result), 0);
    WAIT(LOAD(pondering) == 1);
    net_reset(&a);
    WAIT(metrics(&s).connections == 0);
    struct client b = dial(s.port);
    defer_number(&s, &b, 1);
    STORE(decided, 1);
    pthread_join(finisher, NULL);
    CHECK(result == HTTPSRV_OK || result == HTTPSRV_GONE);
    const httpsrv_result other = answer(1, "for b");
    EXPECT(&b, 200, "for b");
    CHECK_INT(other, HTTPSRV_OK);
    hang_up(&b);
    CHECK_INT(LOAD(ran), 0);
    finish(&s);
}

TEST_EACH_WAY(left_while_it_is_finished) {
    check_secret("GET /later HTTP/1.1\r\nHost: a\r\n\r\n");
}

TEST_WAYS(left_before_the_body_while_it_is_finished, !way->pool) {
    check_secret("POST /later HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n");
}

TEST_WAYS(left_without_a_route_while_it_is_finished, !way->pool) {
    check_secret("GET /later/nowhere HTTP/1.1\r\nHost: a\r\n\r\n");
}

// ---- fields of filters in the server's own answers ----

#define OWN_DATE "Sun, 06 Nov 1994 08:49:37 GMT"

static const char *const own_fields[] = {"Server", "mine", "Date", OWN_DATE, "Content-Type", "application/json"};

// user is the field to be set, "" for all; the first letter in small means httpsrv_add.
static httpsrv_verdict set_own(httpsrv_req *req, void *user) {
    const char *which = (const char *)user;
    for (size_t i = 0; i < ROWS(own_fields); i += 2) {
        const httpsrv_str value = {own_fields[i + 1], strlen(own_fields[i + 1])};
        if (*which && strcasecmp(which, own_fields[i]) != 0) continue;
        const bool adds = *which >= 'a';
        const httpsrv_result result =
            adds ? httpsrv_add(req, own_fields[i], value) : httpsrv_set(req, own_fields[i], value);
        CHECK_INT(result, HTTPSRV_OK);
    }
    return HTTPSRV_NEXT;
}

static const struct own_row {
    const char *prefix, *which;
} own_rows[] = {
    {"/all", ""},
    {"/server", "Server"},
    {"/date", "Date"},
    {"/type", "Content-Type"},
    {"/add-date", "date"},
    {"/add-server", "server"},
    {"/add-type", "content-type"},
};

// Each is there once; Server and Date are the filter's if it has set them. Where there is no content, no type is needed.
static void check_own(const struct client *c, const char *which) {
    for (size_t i = 0; i < ROWS(own_fields); i += 2) {
        const bool set = which && (!*which || strcasecmp(which, own_fields[i]) == 0);
        const int count = count_fields(c, own_fields[i]);
        CHECK(count == 1 || (count == 0 && i == 4 && c->status == 204));
        if (i < 4) CHECK_INT(strcmp(field(c, own_fields[i]), own_fields[i + 1]) == 0, set);
    }
}

static void check_own_answer(struct client *c, const char *line, const char *prefix, const char *path, int status,
                             const char *which) {
    NOTE("%s %s%s", line, prefix, path);
    SENDF(c, "%s %s%s HTTP/1.1\r\nHost: a\r\n\r\n", line, prefix, path);
    net_reply(c, strcmp(line, "HEAD") == 0);
    CHECK_INT(c->status, status);
    check_own(c, which);
}

TEST(fields_of_filters_in_own_answers) {
    char pattern[50];
    way = NULL;
    begin(&(httpsrv_config){0});
    for (size_t i = 0; i < ROWS(own_rows); i++) {
        use(own_rows[i].prefix, set_own, own_rows[i].which);
        snprintf(pattern, sizeof pattern, "GET %s/x", own_rows[i].prefix);
        route(pattern, on_run);
    }
    go(&s);
    struct client c = dial(s.port);
    for (size_t i = 0; i < ROWS(own_rows); i++) {
        const struct own_row *row = &own_rows[i];
        check_own_answer(&c, "GET", row->prefix, "/nowhere", 404, row->which);
        check_own_answer(&c, "HEAD", row->prefix, "/nowhere", 404, row->which);
        check_own_answer(&c, "DELETE", row->prefix, "/x", 405, row->which);
        check_own_answer(&c, "OPTIONS", row->prefix, "/x", 204, row->which);
        check_own_answer(&c, "GET", row->prefix, "/x", 200, row->which);
        check_own_answer(&c, "GET", "", "/nowhere", 404, NULL); // nothing is left of it
    }
    hang_up(&c);
    finish(&s);
}

// ---- refusals of HEAD ----

static const struct refusal_row {
    const char *text;
    int status;
    bool has_content;
} refusal_rows[] = {
    {"HEAD /hello HTTP/1.1\r\n\r\n", 400, false},
    {"HEAD /hello HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, false},
    {"HEAD /hello HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", 400, false},
    {"HEAD /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, false},
    {"HEAD /hello HTTP/1.1\r\nHost: a\r\nX Y: 1\r\n\r\n", 400, false},
    {"HEAD /hello HTTP/1.1\r\nHost: a\r\nX: \x01\r\n\r\n", 400, false},
    {"HEAD /hello HTTP/1.1\r\nHost: a\r\nA: 1\r\nB: 2\r\nC: 3\r\nD: 4\r\n\r\n", 431, false},
    {"HEAD /hello there HTTP/1.1\r\nHost: a\r\n\r\n", 400, true},
    {"HEAD  /hello HTTP/1.1\r\nHost: a\r\n\r\n", 400, true},
    {"HEAD /hello HTTP/x.y\r\nHost: a\r\n\r\n", 400, true},
    {"HEAD hello HTTP/1.1\r\nHost: a\r\n\r\n", 400, true},
    {"GET /hello HTTP/1.1\r\n\r\n", 400, true},
    {"HEADS /hello HTTP/1.1\r\n\r\n", 400, true},
};

// net_reply reads the content if there has to be some; what must not be there is in the way of the end.
static void check_refusal(struct client *c, const struct refusal_row *row) {
    net_reply(c, !row->has_content);
    CHECK_INT(c->status, row->status);
    CHECK_CMP(c->length, >, 0);
    CHECK(c->close);
    if (row->has_content) CHECK_CMP(c->body_len, >, 0);
    EXPECT_EOF(c);
    hang_up(c);
}

static void begin_refusals(void) {
    way = NULL;
    begin(&(httpsrv_config){.max = {.headers = 4}});
    go(&s);
}

TEST(refusals_of_head) {
    begin_refusals();
    for (size_t i = 0; i < ROWS(refusal_rows); i++) {
        struct client c = dial(s.port);
        NOTE("%s", refusal_rows[i].text);
        SEND(&c, refusal_rows[i].text);
        check_refusal(&c, &refusal_rows[i]);
    }
    finish(&s);
}

// The head comes in two pieces, which the parser sees one after the other.
TEST(refusals_of_split_heads) {
    begin_refusals();
    for (size_t i = 0; i < ROWS(refusal_rows); i++) {
        const char *text = refusal_rows[i].text;
        const size_t len = strlen(text), cuts[] = {2, strcspn(text, "\n") + 1, len - 1};
        for (size_t k = 0; k < ROWS(cuts); k++) {
            struct client c = dial(s.port);
            NOTE("%zu bytes of %s", cuts[k], text);
            send_seen(&s, &c, text, cuts[k]);
            (void)net_send_some(&c, text + cuts[k], len - cuts[k], net_deadline()); // may be refused already
            net_reply(&c, !refusal_rows[i].has_content);
            CHECK_INT(c.status, refusal_rows[i].status);
            if (refusal_rows[i].has_content) CHECK_CMP(c.body_len, >, 0);
            CHECK_INT(net_until_end(&c), 0);
            hang_up(&c);
        }
    }
    finish(&s);
}

// It depends on no request before it.
TEST(refusals_behind_others) {
    begin_refusals();
    for (size_t i = 0; i < 2 * ROWS(refusal_rows); i++) {
        const struct refusal_row *row = &refusal_rows[i / 2];
        struct client c = dial(s.port);
        NOTE("behind %s: %s", i % 2 ? "HEAD" : "GET", row->text);
        SENDF(&c, "%s /hello HTTP/1.1\r\nHost: a\r\n\r\n%s", i % 2 ? "HEAD" : "GET", row->text);
        net_reply(&c, i % 2);
        CHECK_INT(c.status, 200);
        check_refusal(&c, row);
    }
    finish(&s);
}

// ---- types of files ----

#define FILE_TEXT "0123456789"

static char file_name[] = "/tmp/httpsrv-corners.XXXXXX";
static char long_type[201];

static void make_file(void) {
    const int fd = mkstemp(file_name);
    CHECK_CMP(fd, >=, 0);
    CHECK_INT(write(fd, FILE_TEXT, 10), 10);
    close(fd);
    memcpy(long_type, "text/", 5);
    memset(long_type + 5, 'x', 195);
}

// What was refused leaves nothing behind.
static void check_type_refused(httpsrv_req *req, const char *type) {
    CHECK_INT(httpsrv_reply_file(req, file_name, type), HTTPSRV_ARG);
    CHECK_INT(httpsrv_reply(req, 200, "text/plain", HTTPSRV_STR("another")), HTTPSRV_OK);
}

static void on_type_of_lines(httpsrv_req *req, void *user) {
    (void)user;
    check_type_refused(req, "text/plain\r\nX-Injected: yes");
}

static void on_empty_type(httpsrv_req *req, void *user) {
    (void)user;
    check_type_refused(req, "");
}

static void on_long_type(httpsrv_req *req, void *user) {
    (void)user;
    CHECK_INT(httpsrv_reply_file(req, file_name, long_type), HTTPSRV_OK);
}

static void begin_file(const char *pattern, httpsrv_handler handler) {
    begin(&(httpsrv_config){0});
    make_file();
    route(pattern, handler);
    go(&s);
}

static void finish_file(void) {
    unlink(file_name);
    strcpy(file_name + strlen(file_name) - 6, "XXXXXX");
    finish(&s);
}

static const char *const range_fields[] = {"", "Range: bytes=0-1\r\n", "Range: bytes=0-1,4-5\r\n",
                                           "Range: bytes=90-\r\n", "If-Match: \"x\"\r\n"};

static void check_bad_type(httpsrv_handler handler) {
    begin_file("GET /file", handler);
    struct client c = dial(s.port);
    for (size_t i = 0; i < 2 * ROWS(range_fields); i++) {
        NOTE("%s, %s %s", way->name, i % 2 ? "HEAD" : "GET", range_fields[i / 2]);
        SENDF(&c, "%s /file HTTP/1.1\r\nHost: a\r\n%s\r\n", i % 2 ? "HEAD" : "GET", range_fields[i / 2]);
        net_reply(&c, i % 2);
        CHECK_INT(c.status, 200);
        CHECK_INT(c.length, 7);
        if (i % 2 == 0) CHECK_MEM(c.body, c.body_len, "another", 7);
        CHECK_STR(field(&c, "Content-Type"), "text/plain");
        CHECK_INT(count_fields(&c, "X-Injected") + count_fields(&c, "ETag") + count_fields(&c, "Accept-Ranges"), 0);
    }
    hang_up(&c);
    finish_file();
}

TEST_EACH_WAY(type_of_lines) {
    check_bad_type(on_type_of_lines);
}

TEST_EACH_WAY(empty_type) {
    check_bad_type(on_empty_type);
}

// The fields of a part that come behind its delimiter, and the two bytes of its content.
static const char *check_part(const char *at, const char *delimiter, const char *range, const char *content) {
    char expected[500];
    CHECK(strncmp(at, delimiter, strlen(delimiter)) == 0);
    const char *end = strstr(at, "\r\n\r\n");
    CHECK(end != NULL);
    char *fields = strndup(at + strlen(delimiter), (size_t)(end + 2 - at) - strlen(delimiter));
    CHECK(fields != NULL);
    snprintf(expected, sizeof expected, "\r\nContent-Type: %s\r\n", long_type);
    CHECK_HAS(fields, expected);
    snprintf(expected, sizeof expected, "\r\nContent-Range: %s\r\n", range);
    CHECK_HAS(fields, expected);
    free(fields);
    CHECK_MEM(end + 4, 2, content, 2);
    return end + 6;
}

TEST_EACH_WAY(long_type_in_parts) {
    static const char multipart[] = "multipart/byteranges; boundary=";
    char delimiter[100], *body;
    begin_file("GET /file", on_long_type);
    struct client c = dial(s.port);
    SEND(&c, "GET /file HTTP/1.1\r\nHost: a\r\n\r\n");
    EXPECT(&c, 200, FILE_TEXT);
    CHECK_STR(field(&c, "Content-Type"), long_type);
    SEND(&c, "GET /file HTTP/1.1\r\nHost: a\r\nRange: bytes=0-1,4-5\r\n\r\n");
    REPLY(&c);
    CHECK_INT(c.status, 206);
    CHECK(strncmp(field(&c, "Content-Type"), multipart, strlen(multipart)) == 0);
    snprintf(delimiter, sizeof delimiter, "\r\n--%s", field(&c, "Content-Type") + strlen(multipart));
    CHECK((body = strndup(c.body, c.body_len)) != NULL);
    const char *at = check_part(body, delimiter + 2, "bytes 0-1/10", "01");
    at = check_part(at, delimiter, "bytes 4-5/10", "45");
    CHECK(strncmp(at, delimiter, strlen(delimiter)) == 0);
    CHECK_STR(at + strlen(delimiter), "--\r\n");
    free(body);
    hang_up(&c);
    finish_file();
}

// ---- CONNECT ----

#define CONNECT "CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n"

static const int good_statuses[] = {200, 204, 206, 299};

static void refuse_tunnel(httpsrv_req *req, int status) {
    CHECK_INT(httpsrv_set(req, "X-Set", HTTPSRV_STR("behind")), HTTPSRV_OK);
    CHECK_INT(httpsrv_reply(req, status, "text/plain", HTTPSRV_STR("no tunnel")), HTTPSRV_OK);
}

static httpsrv_answer lent(int status) {
    const httpsrv_answer a = {.status = status, .body = blob_view(100), .release = count_release, .release_arg = &s};
    COUNT(s.borrowed);
    return a;
}

static void on_tunnel_reply(httpsrv_req *req, void *user) {
    (void)user;
    for (size_t i = 0; i < ROWS(good_statuses); i++) {
        const httpsrv_answer a = lent(good_statuses[i]);
        CHECK_INT(httpsrv_reply(req, good_statuses[i], NULL, HTTPSRV_STR("")), HTTPSRV_ARG);
        CHECK_INT(httpsrv_replyf(req, good_statuses[i], NULL, "%d", 1), HTTPSRV_ARG);
        CHECK_INT(httpsrv_reply_with(req, &a), HTTPSRV_ARG);
        CHECK_INT(LOAD(s.released), LOAD(s.borrowed));
    }
    refuse_tunnel(req, 407);
}

static void on_tunnel_begin(httpsrv_req *req, void *user) {
    (void)user;
    for (size_t i = 0; i < ROWS(good_statuses); i++) {
        CHECK_INT(httpsrv_begin(req, good_statuses[i], NULL, -1), HTTPSRV_ARG);
        CHECK_INT(httpsrv_begin(req, good_statuses[i], "text/plain", 5), HTTPSRV_ARG);
        CHECK_INT(httpsrv_write(req, HTTPSRV_STR("x")), HTTPSRV_STATE);
    }
    refuse_tunnel(req, 407);
}

static void on_tunnel_file(httpsrv_req *req, void *user) {
    (void)user;
    CHECK_INT(httpsrv_reply_file(req, file_name, "text/plain"), HTTPSRV_ARG);
    refuse_tunnel(req, 407);
}

// The test finishes it, for which there is the token.
static void on_tunnel_defer(httpsrv_req *req, void *user) {
    (void)user;
    CHECK_INT(httpsrv_set(req, "X-Set", HTTPSRV_STR("before")), HTTPSRV_OK);
    keep_token(&s, 0, httpsrv_defer(req));
}

static void check_no_tunnel(struct client *c, int status) {
    EXPECT(c, status, "no tunnel");
    CHECK_INT(c->length, 9);
    CHECK_INT(count_fields(c, "X-Set"), 1);
    CHECK(c->close);
    EXPECT_EOF(c);
    hang_up(c);
}

static void check_tunnel(httpsrv_handler handler) {
    begin_file("CONNECT *", handler);
    for (size_t i = 0; i < 2; i++) {
        struct client c = dial(s.port);
        NOTE("%s%s", way->name, i ? ", ranges" : "");
        SENDF(&c, CONNECT "%s\r\n", i ? "Range: bytes=0-1,4-5\r\n" : "");
        check_no_tunnel(&c, 407);
    }
    check_alive(&s);
    finish_file();
}

TEST_EACH_WAY(no_tunnel_by_reply) {
    check_tunnel(on_tunnel_reply);
}

TEST_EACH_WAY(no_tunnel_by_begin) {
    check_tunnel(on_tunnel_begin);
}

TEST_EACH_WAY(no_tunnel_by_reply_file) {
    check_tunnel(on_tunnel_file);
}

TEST_EACH_WAY(no_tunnel_by_finish) {
    const httpsrv_answer no = {.status = 405, .body = HTTPSRV_STR("no tunnel")};
    begin(&(httpsrv_config){0});
    route("CONNECT *", on_tunnel_defer);
    go(&s);
    struct client c = dial(s.port);
    SEND(&c, CONNECT "\r\n" NEXT);
    WAIT(LOAD(s.arrived) == 1);
    for (size_t i = 0; i < ROWS(good_statuses); i++) {
        const httpsrv_answer a = lent(good_statuses[i]);
        CHECK_INT(httpsrv_finish(s.srv, token_of(0), &a), HTTPSRV_ARG);
        CHECK_INT(LOAD(s.released), LOAD(s.borrowed));
    }
    CHECK_INT(httpsrv_finish(s.srv, token_of(0), &no), HTTPSRV_OK);
    check_no_tunnel(&c, 405);
    finish(&s);
}

static void on_tunnel_refuse(httpsrv_req *req, void *user) {
    const httpsrv_str mode = httpsrv_header(req, "X-Status");
    (void)user;
    refuse_tunnel(req, mode.len > 0 ? 405 : 407);
}

// With a request before it, or not.
static void check_connect(const char *before, int status, const char *behind) {
    static char text[21000];
    struct client c = dial(s.port);
    const int len = snprintf(text, sizeof text, "%s" CONNECT "%s\r\n%s", before,
                             status == 405 ? "X-Status: 405\r\nConnection: keep-alive\r\n" : "", behind);
    CHECK_CMP(len, <, sizeof text);
    net_send(&c, text, (size_t)len);
    if (*before) EXPECT(&c, 200, HELLO);
    check_no_tunnel(&c, status);
}

// What follows a CONNECT may be meant for who is at the end of the tunnel, and is no request.
TEST_EACH_WAY(what_follows_a_connect) {
    static char many[20001];
    static const char *const behind[] = {"", NEXT, NEXT NEXT NEXT, "\x16\x03\x01\x02", many};
    memset(many, 'x', sizeof many - 1);
    begin(&(httpsrv_config){0});
    route("CONNECT *", on_tunnel_refuse);
    go(&s);
    for (size_t i = 0; i < 4 * ROWS(behind); i++) {
        NOTE("%s, row %zu", way->name, i);
        check_connect(i & 1 ? NEXT : "", i & 2 ? 405 : 407, behind[i / 4]);
    }
    CHECK_INT(LOAD(s.handled), 2 * ROWS(behind)); // those before it
    finish(&s);
}

TEST(connect_without_a_route) {
    way = NULL;
    begin(&(httpsrv_config){0});
    go(&s);
    struct client c = dial(s.port);
    SEND(&c, CONNECT "\r\n");
    REPLY(&c);
    CHECK_INT(c.status, 501);
    hang_up(&c);
    check_alive(&s);
    finish(&s);
}
