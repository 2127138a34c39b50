// Answering later: httpsrv_defer, httpsrv_finish, httpsrv_post, httpsrv_on_gone, time-outs of handlers, and the races among
// them. Also built with ThreadSanitizer.

#define HTTPSRV_IMPLEMENTATION
#include "../httpsrv.h"

#include "server.h"
#include <poll.h>
#include <pthread.h>
#include <sched.h>

#define MOST 100 // deferred requests that a test tells apart by number

// Rounds of a race: fewer where the sanitizers slow everything down.
#define ROUNDS(n) TEST_FEWER(n, 8)

// Where handlers run, and who turns the loops: what is promised has to hold in all of these ways.
struct way {
    const char *name;
    const char *pool; // NULL: inline
    int reactors;     // 0: one, polled by a loop of the test's own
};

static const struct way ways[] = {
    {"inline, 1 reactor", NULL, 1},       {"inline, 4 reactors", NULL, 4},       {"inline, polled", NULL, 0},
    {"by workers, 1 reactor", "work", 1}, {"by workers, 4 reactors", "work", 4}, {"by workers, polled", "work", 0},
};
static const struct way *way;

#define TEST_EACH_WAY(id) TEST_WAYS(id, true)
#define TEST_TWO_WAYS(id) TEST_WAYS(id, (way - ways) % 5 == 0) // inline by one reactor, by workers with httpsrv_poll

static struct server s;
static int noticed;       // calls of on_gone's function
static int called, nulls; // calls of posted handlers, with a request and without

// ---- an allocator that refuses, or takes its time, on the threads that ask for it ----

enum mood { WILLING, REFUSING, PONDERING };
enum decision { UNDECIDED, GRANTED, REFUSED };

static _Thread_local enum mood mood;
static int pondering; // threads in the allocator
static int decided;   // GRANTED or REFUSED once they may leave it
static _Thread_local bool is_reactor;
static int starving; // reactors get nothing

static void *moody_realloc(void *user, void *ptr, size_t old_size, size_t new_size) {
    if (new_size > 0 && (mood == REFUSING || (is_reactor && LOAD(starving)))) return NULL;
    if (new_size > 0 && mood == PONDERING) {
        COUNT(pondering);
        while (!LOAD(decided)) {
            test_sleep(1);
        }
        if (LOAD(decided) == REFUSED) return NULL;
    }
    return counting_realloc(user, ptr, old_size, new_size);
}

// ---- a server, run in one of the ways ----

static void begin(const httpsrv_config *config) {
    httpsrv_config c = *config;
    c.reactors = way->reactors > 0 ? way->reactors : 1;
    if (!c.pools[0].name) c.pools[0] = (httpsrv_pool_config){.name = "work", .threads = 4};
    c.allocator.fn = moody_realloc;
    c.allocator.user = &s;
    noticed = called = nulls = pondering = decided = starving = 0;
    prepare(&s, &c);
    NOTE("%s", way->name);
}

static void route(const char *pattern, httpsrv_handler handler) {
    httpsrv_route_config config = {.pattern = pattern, .handler = handler, .user = &s, .pool = way->pool};
    CHECK_INT(httpsrv_route(s.srv, &config), HTTPSRV_OK);
}

static void run(void) {
    if (way->reactors > 0)
        go(&s);
    else
        go_polled(&s);
}

// Ends the run without a drain, as far as a server's owner can: httpsrv_free does the rest.
static void walk_away(void) {
    const uint64_t one = 1;
    if (way->reactors > 0) return;
    CHECK_INT(write(s.host_leaves, &one, sizeof one), sizeof one);
    join_server(&s);
}

// ---- handlers, and how requests are deferred ----

static void count_notice(void *arg) {
    CHECK(arg == &s);
    COUNT(noticed);
}

static void wait_at_gate(void) {
    while (!LOAD(s.gate)) {
        test_sleep(1);
    }
}

static void on_defer_and_stay(httpsrv_req *req, void *user) {
    on_defer(req, user);
    wait_at_gate();
    COUNT(s.left);
}

static void on_defer_watched(httpsrv_req *req, void *user) {
    CHECK_INT(httpsrv_on_gone(req, count_notice, &s), HTTPSRV_OK);
    on_defer(req, user);
}

static void begin_deferring(const httpsrv_config *config, httpsrv_handler handler) {
    begin(config);
    route("* /d/:n", handler);
    CHECK_INT(httpsrv_on(s.srv, "GET /hello", on_hello, &s), HTTPSRV_OK);
    run();
}

static httpsrv_token defer_one(struct client *c) {
    return defer_number(&s, c, 0);
}

static httpsrv_result answer(httpsrv_token token, const char *text) {
    const httpsrv_answer a = {.status = 200, .type = "text/plain", .body = {text, strlen(text)}};
    return httpsrv_finish(s.srv, token, &a);
}

// Answers with a borrowed body.
static httpsrv_result lend(httpsrv_token token, int status, size_t len) {
    const httpsrv_answer a = {.status = status, .body = blob_view(len), .release = count_release, .release_arg = &s};
    const httpsrv_result result = httpsrv_finish(s.srv, token, &a);
    if (result != HTTPSRV_NOMEM) COUNT(s.borrowed);
    return result;
}

static void check_released(void) {
    CHECK_INT(LOAD(s.released), LOAD(s.borrowed));
}

// A posted handler that only counts.
static void on_count(httpsrv_req *req, void *user) {
    CHECK(user == &s);
    if (req)
        COUNT(called);
    else
        COUNT(nulls);
}

// Nobody can do anything with the token any more.
static void check_stale(httpsrv_token token) {
    const int before = LOAD(nulls);
    CHECK_INT(answer(token, "stale"), HTTPSRV_GONE);
    CHECK_INT(lend(token, 200, 10), HTTPSRV_GONE);
    check_released();
    CHECK_INT(httpsrv_post(s.srv, token, on_count, &s), HTTPSRV_OK);
    WAIT(LOAD(nulls) == before + 1);
}

// ---- defer and finish ----

TEST_EACH_WAY(finish_after_the_handler_has_returned) {
    begin_deferring(&(httpsrv_config){0}, on_defer);
    struct client c = dial(s.port);
    for (int i = 0; i < 20; i++) {
        httpsrv_token token = defer_one(&c);
        if (i < 3) EXPECT_SILENCE(&c, 10);
        CHECK_INT(answer(token, "later"), HTTPSRV_OK);
        EXPECT(&c, 200, "later");
        CHECK_STR(field(&c, "Content-Type"), "text/plain");
        CHECK_INT(answer(token, "again"), HTTPSRV_GONE);
        GET(&c, "/hello");
        EXPECT(&c, 200, HELLO);
    }
    check_stale(token_of(0));
    hang_up(&c);
    finish(&s);
}

TEST_EACH_WAY(finish_before_the_handler_has_returned) {
    begin_deferring(&(httpsrv_config){0}, on_defer_and_stay);
    struct client c = dial(s.port);
    httpsrv_token token = defer_one(&c);
    CHECK_INT(answer(token, "sooner"), HTTPSRV_OK);
    CHECK_INT(answer(token, "again"), HTTPSRV_GONE);
    EXPECT_SILENCE(&c, 20); // it has the request until it returns
    STORE(s.gate, 1);
    EXPECT(&c, 200, "sooner");
    check_stale(token);
    hang_up(&c);
    finish(&s);
    CHECK_INT(s.left, 1);
}

static void on_finish_own(httpsrv_req *req, void *user) {
    const httpsrv_token token = httpsrv_defer(req);
    (void)user;
    CHECK_INT(answer(token, "by itself"), HTTPSRV_OK);
    CHECK_INT(answer(token, "again"), HTTPSRV_GONE);
}

TEST_EACH_WAY(finish_from_within_the_handler) {
    begin_deferring(&(httpsrv_config){0}, on_finish_own);
    struct client c = dial(s.port);
    for (int i = 0; i < 20; i++) {
        GET(&c, "/d/0");
        EXPECT(&c, 200, "by itself");
    }
    hang_up(&c);
    finish(&s);
}

static void on_set_and_defer(httpsrv_req *req, void *user) {
    CHECK_INT(httpsrv_set(req, "X-Step", HTTPSRV_STR("dropped")), HTTPSRV_OK);
    CHECK_INT(httpsrv_set(req, "X-Step", HTTPSRV_STR("one")), HTTPSRV_OK);
    CHECK_INT(httpsrv_add(req, "X-Step", HTTPSRV_STR("two")), HTTPSRV_OK);
    on_defer(req, user);
    CHECK_INT(httpsrv_add(req, "X-Step", HTTPSRV_STR("three")), HTTPSRV_OK); // deferring ends nothing
}

// Values of the fields of one name, in their order: "a,b,".
static void check_values(const struct client *c, const char *name, const char *expected) {
    char values[500] = "";
    for (int i = 0; i < c->num_fields; i++) {
        if (strcasecmp(c->head + c->fields[i].name, name) != 0) continue;
        strcat(values, c->head + c->fields[i].value);
        strcat(values, ",");
    }
    CHECK_STR(values, expected);
}

TEST_EACH_WAY(fields_of_the_handler_then_those_of_finish) {
    char name[] = "X-Step", value[] = "four", type[] = "text/x", body[] = "body";
    const httpsrv_field fields[] = {{{name, 6}, {value, 4}}, {HTTPSRV_STR("x-step"), HTTPSRV_STR("")}};
    begin_deferring(&(httpsrv_config){0}, on_set_and_defer);
    struct client c = dial(s.port);
    httpsrv_token token = defer_one(&c);
    const httpsrv_answer a = {.status = 201, .type = type, .body = {body, 4}, .fields = fields, .num_fields = 2};
    test_sleep(way->pool ? 20 : 0); // so that the worker has set its last one
    CHECK_INT(httpsrv_finish(s.srv, token, &a), HTTPSRV_OK);
    memset(name, '?', 6);
    memset(value, '?', 4);
    memset(type, '?', 6);
    memset(body, '?', 4);
    EXPECT(&c, 201, "body");
    check_values(&c, "X-Step", "one,two,three,four,,");
    check_values(&c, "Content-Type", "text/x,");
    hang_up(&c);
    finish(&s);
}

static void on_set_own_and_defer(httpsrv_req *req, void *user) {
    CHECK_INT(httpsrv_set(req, "Server", HTTPSRV_STR("mine")), HTTPSRV_OK);
    CHECK_INT(httpsrv_set(req, "Date", HTTPSRV_STR("today")), HTTPSRV_OK);
    CHECK_INT(httpsrv_set(req, "Content-Type", HTTPSRV_STR("text/mine")), HTTPSRV_OK);
    CHECK_INT(httpsrv_set(req, "Connection", HTTPSRV_STR("close")), HTTPSRV_OK);
    on_defer(req, user);
}

TEST_EACH_WAY(fields_of_the_handler_that_the_server_would_write) {
    begin_deferring(&(httpsrv_config){0}, on_set_own_and_defer);
    for (int typed = 0; typed <= 1; typed++) {
        struct client c = dial(s.port);
        const httpsrv_answer a = {.status = 200, .type = typed ? "text/finish" : NULL};
        CHECK_INT(httpsrv_finish(s.srv, defer_one(&c), &a), HTTPSRV_OK);
        EXPECT(&c, 200, "");
        check_values(&c, "Server", "mine,");
        check_values(&c, "Date", "today,");
        check_values(&c, "Content-Type", typed ? "text/finish," : "text/mine,"); // the argument wins
        CHECK(c.close);
        EXPECT_EOF(&c);
        hang_up(&c);
    }
    finish(&s);
}

TEST_EACH_WAY(fields_that_the_server_would_write) {
    const httpsrv_field fields[] = {{HTTPSRV_STR("Server"), HTTPSRV_STR("mine")},
                                    {HTTPSRV_STR("Date"), HTTPSRV_STR("today")},
                                    {HTTPSRV_STR("Content-Type"), HTTPSRV_STR("text/mine")},
                                    {HTTPSRV_STR("Connection"), HTTPSRV_STR("Close")},
                                    {HTTPSRV_STR("X-Last"), HTTPSRV_STR("x")}};
    begin_deferring(&(httpsrv_config){0}, on_defer);
    struct client c = dial(s.port);
    const httpsrv_answer a = {.status = 200, .fields = fields, .num_fields = ROWS(fields)};
    CHECK_INT(httpsrv_finish(s.srv, defer_one(&c), &a), HTTPSRV_OK);
    EXPECT(&c, 200, "");
    check_values(&c, "Server", "mine,");
    check_values(&c, "Date", "today,");
    check_values(&c, "Content-Type", "text/mine,");
    check_values(&c, "X-Last", "x,");
    CHECK(c.close);
    EXPECT_EOF(&c);
    hang_up(&c);
    finish(&s);
}

TEST_EACH_WAY(bodies_of_all_sizes) {
    static const size_t sizes[] = {0, 1, 100, 8191, 8192, 65536, 1 << 20};
    begin_deferring(&(httpsrv_config){0}, on_defer);
    struct client c = dial(s.port);
    for (size_t i = 0; i < ROWS(sizes); i++) {
        NOTE("%s, %zu bytes", way->name, sizes[i]);
        char *copy = (char *)malloc(sizes[i] + 1);
        const httpsrv_answer a = {.status = 200, .body = {sizes[i] ? copy : NULL, sizes[i]}};
        memcpy(copy, blob, sizes[i]);
        CHECK_INT(httpsrv_finish(s.srv, defer_one(&c), &a), HTTPSRV_OK);
        memset(copy, '?', sizes[i]); // it was copied
        REPLY(&c);
        check_blob(&c, sizes[i]);
        CHECK(field(&c, "Content-Type") == NULL);
        free(copy);
        CHECK_INT(lend(defer_one(&c), 200, sizes[i]), HTTPSRV_OK);
        REPLY(&c);
        check_blob(&c, sizes[i]);
        WAIT(LOAD(s.released) == LOAD(s.borrowed));
    }
    hang_up(&c);
    finish(&s);
}

TEST_EACH_WAY(bodies_that_stay_behind) {
    static const int statuses[] = {204, 205, 304};
    begin_deferring(&(httpsrv_config){0}, on_defer);
    struct client c = dial(s.port);
    for (size_t i = 0; i < ROWS(statuses); i++) {
        CHECK_INT(lend(defer_one(&c), statuses[i], 10000), HTTPSRV_OK);
        REPLY(&c);
        CHECK_INT(c.status, statuses[i]);
        CHECK_INT(c.body_len, 0);
        WAIT(LOAD(s.released) == LOAD(s.borrowed));
    }
    SEND(&c, "HEAD /d/1 HTTP/1.1\r\nHost: a\r\n\r\n");
    WAIT(LOAD(s.arrived) == 4);
    CHECK_INT(lend(token_of(1), 200, 10000), HTTPSRV_OK);
    REPLY_HEAD(&c);
    CHECK_INT(c.length, 10000);
    WAIT(LOAD(s.released) == LOAD(s.borrowed));
    GET(&c, "/hello");
    EXPECT(&c, 200, HELLO);
    hang_up(&c);
    finish(&s);
}

// What is no answer is refused and given back; the token lives on.
TEST_EACH_WAY(what_finish_refuses) {
    static const httpsrv_field bad_fields[] = {{{"Content-Length", 14}, {"1", 1}},
                                               {{"transfer-encoding", 17}, {"chunked", 7}},
                                               {{"Connection", 10}, {"keep-alive", 10}},
                                               {{"X Y", 3}, {"1", 1}},
                                               {{"", 0}, {"1", 1}},
                                               {{"X", 1}, {"1\r\nY: 2", 7}},
                                               {{"X", 1}, {"a\0b", 3}},
                                               {{"X", 1}, {NULL, 1}}};
    static const httpsrv_answer bad[] = {{.status = 0},
                                         {.status = 100},
                                         {.status = 199},
                                         {.status = 600},
                                         {.status = -200},
                                         {.status = 200, .type = ""},
                                         {.status = 200, .type = "a\nb"},
                                         {.status = 200, .body = {NULL, 1}},
                                         {.status = 200, .num_fields = -1},
                                         {.status = 200, .num_fields = 1}};
    begin_deferring(&(httpsrv_config){0}, on_defer);
    struct client c = dial(s.port);
    httpsrv_token token = defer_one(&c);
    for (size_t i = 0; i < ROWS(bad) + ROWS(bad_fields); i++) {
        httpsrv_answer a = {.status = 200, .num_fields = 1};
        NOTE("%s, row %zu", way->name, i);
        if (i < ROWS(bad)) a = bad[i];
        if (i >= ROWS(bad)) a.fields = &bad_fields[i - ROWS(bad)];
        a.release = count_release;
        a.release_arg = &s;
        COUNT(s.borrowed);
        CHECK_INT(httpsrv_finish(s.srv, token, &a), HTTPSRV_ARG);
        check_released();
    }
    CHECK_INT(httpsrv_finish(s.srv, token, NULL), HTTPSRV_ARG);
    CHECK_INT(httpsrv_post(s.srv, token, NULL, &s), HTTPSRV_ARG);
    EXPECT_SILENCE(&c, 10);
    CHECK_INT(lend(token, 299, 5), HTTPSRV_OK);
    EXPECT(&c, 299, NULL);
    hang_up(&c);
    finish(&s);
}

TEST(no_server) {
    const httpsrv_answer a = {.status = 200, .release = count_release, .release_arg = &s};
    const httpsrv_token token = {1};
    CHECK_INT(httpsrv_finish(NULL, token, &a), HTTPSRV_ARG);
    CHECK_INT(s.released, 1);
    CHECK_INT(httpsrv_post(NULL, token, on_count, &s), HTTPSRV_ARG);
    CHECK_INT(called + nulls, 0);
}

TEST_EACH_WAY(finish_without_memory) {
    begin_deferring(&(httpsrv_config){0}, on_defer_watched);
    struct client c = dial(s.port);
    httpsrv_token token = defer_one(&c);
    for (int i = 0; i < 3; i++) {
        mood = REFUSING;
        const httpsrv_result lent = lend(token, 200, 100), copied = answer(token, "copied");
        const httpsrv_result posted = httpsrv_post(s.srv, token, on_count, &s);
        mood = WILLING;
        CHECK_INT(lent, HTTPSRV_NOMEM);
        CHECK_INT(copied, HTTPSRV_NOMEM);
        CHECK_INT(posted, HTTPSRV_NOMEM);
    }
    CHECK_INT(LOAD(s.released), 0); // it is still ours
    CHECK_INT(httpsrv_post(s.srv, token, on_count, &s), HTTPSRV_OK);
    WAIT(LOAD(called) == 1);
    CHECK_INT(lend(token, 200, 100), HTTPSRV_OK);
    REPLY(&c);
    check_blob(&c, 100);
    hang_up(&c);
    finish(&s);
    CHECK_INT(called + nulls, 1);
    CHECK_INT(noticed, 0);
}

// ---- defer and reply ----

static void on_reply_after_defer(httpsrv_req *req, void *user) {
    const httpsrv_answer a = {.status = 200, .body = blob_view(9), .release = count_release, .release_arg = &s};
    on_defer(req, user);
    CHECK_INT(httpsrv_reply(req, 99, NULL, HTTPSRV_STR("bad")), HTTPSRV_ARG);
    CHECK_INT(httpsrv_reply(req, 200, NULL, HTTPSRV_STR("at once")), HTTPSRV_OK);
    CHECK_INT(answer(token_of(0), "later"), HTTPSRV_GONE);
    COUNT(s.borrowed);
    CHECK_INT(httpsrv_reply_with(req, &a), HTTPSRV_STATE);
    CHECK_INT(httpsrv_defer(req).id, 0);
    COUNT(s.left);
}

TEST_EACH_WAY(reply_by_the_handler_that_deferred) {
    begin_deferring(&(httpsrv_config){0}, on_reply_after_defer);
    struct client c = dial(s.port);
    for (int i = 1; i <= 20; i++) {
        const httpsrv_token token = defer_one(&c);
        EXPECT(&c, 200, "at once");
        check_stale(token);
        CHECK_INT(LOAD(s.left), i);
    }
    hang_up(&c);
    finish(&s);
    CHECK_INT(s.last.items[HTTPSRV_LOG_ANSWERED_TWICE], 20);
}

static void on_reply_too_late(httpsrv_req *req, void *user) {
    const httpsrv_answer a = {.status = 200, .body = blob_view(9), .release = count_release, .release_arg = &s};
    on_defer_and_stay(req, user);
    COUNT(s.borrowed);
    CHECK_INT(httpsrv_reply_with(req, &a), HTTPSRV_GONE);
    check_released();
    CHECK_INT(httpsrv_reply(req, 200, NULL, HTTPSRV_STR("no")), HTTPSRV_GONE);
    CHECK_INT(httpsrv_replyf(req, 200, NULL, "%d", 1), HTTPSRV_GONE);
}

TEST_EACH_WAY(reply_after_somebody_has_finished) {
    begin_deferring(&(httpsrv_config){0}, on_reply_too_late);
    struct client c = dial(s.port);
    CHECK_INT(answer(defer_one(&c), "first"), HTTPSRV_OK);
    STORE(s.gate, 1);
    EXPECT(&c, 200, "first");
    GET(&c, "/hello");
    EXPECT(&c, 200, HELLO);
    hang_up(&c);
    finish(&s);
}

static void on_defer_after_reply(httpsrv_req *req, void *user) {
    (void)user;
    CHECK_INT(httpsrv_reply(req, 200, NULL, HTTPSRV_STR("done")), HTTPSRV_OK);
    CHECK_INT(httpsrv_defer(req).id, 0);
}

TEST_EACH_WAY(defer_after_reply) {
    begin_deferring(&(httpsrv_config){0}, on_defer_after_reply);
    struct client c = dial(s.port);
    for (int i = 0; i < 20; i++) {
        GET(&c, "/d/0");
        EXPECT(&c, 200, "done");
    }
    hang_up(&c);
    finish(&s);
}

static void on_defer_twice(httpsrv_req *req, void *user) {
    const httpsrv_token first = httpsrv_defer(req);
    on_defer(req, user);
    CHECK(token_of((int)number_param(req, "n")).id == first.id);
}

TEST_EACH_WAY(one_token_for_each_request) {
    enum { CLIENTS = 20 };
    struct client c[CLIENTS];
    begin_deferring(&(httpsrv_config){0}, on_defer_twice);
    for (int i = 0; i < CLIENTS; i++) {
        c[i] = dial(s.port);
        defer_number(&s, &c[i], i);
        for (int k = 0; k < i; k++) {
            CHECK(token_of(k).id != token_of(i).id);
        }
    }
    for (int i = CLIENTS - 1; i >= 0; i--) {
        char text[20];
        snprintf(text, sizeof text, "%d", i);
        CHECK_INT(answer(token_of(i), text), HTTPSRV_OK);
        EXPECT(&c[i], 200, text);
        hang_up(&c[i]);
    }
    finish(&s);
}

// ---- tokens that name nothing ----

static uint64_t random_state = 88172645463325252u;

static uint64_t random_64(void) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

TEST_EACH_WAY(tokens_of_requests_that_ended_long_ago) {
    enum { OLD = 50 };
    httpsrv_token old[OLD];
    begin_deferring(&(httpsrv_config){0}, on_defer);
    struct client c = dial(s.port), d = dial(s.port);
    for (int i = 0; i < OLD; i++) {
        old[i] = defer_one(&c);
        CHECK_INT(answer(old[i], "x"), HTTPSRV_OK);
        EXPECT(&c, 200, "x");
    }
    defer_number(&s, &c, 1);
    defer_number(&s, &d, 2);
    for (int i = 0; i < OLD; i++) {
        CHECK_INT(answer(old[i], "stale"), HTTPSRV_GONE);
        CHECK_INT(httpsrv_post(s.srv, old[i], on_count, &s), HTTPSRV_OK);
    }
    WAIT(LOAD(nulls) == OLD);
    CHECK_INT(answer(token_of(1), "one"), HTTPSRV_OK);
    CHECK_INT(answer(token_of(2), "two"), HTTPSRV_OK);
    EXPECT(&c, 200, "one");
    EXPECT(&d, 200, "two");
    CHECK_INT(LOAD(called), 0);
    hang_up(&c);
    hang_up(&d);
    finish(&s);
}

// Ids that differ from the token of a live request in one or two bits, or a little.
static void check_neighbours(httpsrv_token token) {
    for (int i = 0; i < 64; i++) {
        for (int k = 0; k <= i; k++) {
            const httpsrv_token forged = {token.id ^ (uint64_t)1 << i ^ (k < i ? (uint64_t)1 << k : 0)};
            NOTE("%s, bits %d and %d", way->name, i, k);
            CHECK_INT(answer(forged, "forged"), HTTPSRV_GONE);
        }
    }
    for (uint64_t i = 1; i < 300; i++) {
        const httpsrv_token forged[] = {
            {token.id + i}, {token.id - i}, {token.id + (i << 32)}, {token.id - (i << 32)}, {token.id + (i << 22)}};
        for (size_t k = 0; k < ROWS(forged); k++) {
            CHECK_INT(answer(forged[k], "forged"), HTTPSRV_GONE);
        }
    }
}

TEST_EACH_WAY(tokens_of_garbage) {
    begin_deferring(&(httpsrv_config){0}, on_defer);
    struct client c = dial(s.port);
    const httpsrv_token token = defer_one(&c), none = {0};
    CHECK_INT(answer(none, "none"), HTTPSRV_GONE);
    CHECK_INT(httpsrv_post(s.srv, none, on_count, &s), HTTPSRV_ARG);
    check_neighbours(token);
    for (int i = 0; i < 1000000 / (int)ROWS(ways) + 1; i++) {
        const httpsrv_token garbage = {random_64()};
        if (garbage.id != token.id) CHECK_INT(answer(garbage, "garbage"), HTTPSRV_GONE);
    }
    int posted = 0;
    for (int i = 0; i < 1000; i++) {
        const httpsrv_token garbage = {i % 2 ? random_64() : token.id ^ (random_64() & 0xffffffff003fffff)};
        if (garbage.id == token.id) continue;
        const httpsrv_result result = httpsrv_post(s.srv, garbage, on_count, &s);
        CHECK(result == HTTPSRV_OK || result == HTTPSRV_ARG);
        posted += result == HTTPSRV_OK;
    }
    WAIT(LOAD(nulls) == posted);
    CHECK_CMP(posted, >, 0);
    EXPECT_SILENCE(&c, 10);
    CHECK_INT(answer(token, "real"), HTTPSRV_OK);
    EXPECT(&c, 200, "real");
    CHECK_INT(LOAD(called), 0);
    hang_up(&c);
    finish(&s);
}

TEST(tokens_of_a_server_that_never_listened) {
    const httpsrv_token token = {(uint64_t)1 << 32};
    way = ways;
    begin(&(httpsrv_config){0});
    CHECK_INT(lend(token, 200, 10), HTTPSRV_GONE);
    CHECK_INT(httpsrv_post(s.srv, token, on_count, &s), HTTPSRV_ARG);
    dispose(&s);
    CHECK_INT(called + nulls, 0);
}

// ---- connections ----

TEST_EACH_WAY(head_and_http_1_0_and_close) {
    begin_deferring(&(httpsrv_config){0}, on_defer);
    static const struct {
        const char *request;
        const char *connection;
        bool close;
    } rows[] = {
        {"GET /d/0 HTTP/1.0\r\n\r\n", "close", true},
        {"GET /d/0 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "keep-alive", false},
        {"GET /d/0 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "close", true},
        {"HEAD /d/0 HTTP/1.1\r\nHost: a\r\n\r\n", NULL, false},
        {"HEAD /d/0 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "close", true},
        {"POST /d/0 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", NULL, false},
    };
    for (size_t i = 0; i < ROWS(rows); i++) {
        struct client c = dial(s.port);
        NOTE("%s, row %zu", way->name, i);
        SEND(&c, rows[i].request);
        WAIT(LOAD(s.arrived) == (int)i + 1);
        CHECK_INT(answer(token_of(0), "text"), HTTPSRV_OK);
        if (rows[i].request[0] == 'H')
            REPLY_HEAD(&c);
        else
            EXPECT(&c, 200, "text");
        CHECK_INT(c.length, 4);
        CHECK_STR(field(&c, "Connection"), rows[i].connection);
        if (rows[i].close) {
            EXPECT_EOF(&c);
        } else {
            GET(&c, "/hello");
            EXPECT(&c, 200, HELLO);
        }
        hang_up(&c);
    }
    finish(&s);
}

TEST_EACH_WAY(pipelined_requests_keep_their_order) {
    begin_deferring(&(httpsrv_config){0}, on_defer);
    struct client c = dial(s.port);
    for (int i = 0; i < 10; i++) {
        SENDF(&c, "GET /d/%d HTTP/1.1\r\nHost: a\r\n\r\nGET /hello HTTP/1.1\r\nHost: a\r\n\r\n", i);
    }
    for (int i = 0; i < 10; i++) {
        char text[20];
        snprintf(text, sizeof text, "%d", i);
        WAIT(LOAD(s.arrived) == i + 1);
        if (i % 4 == 0) EXPECT_SILENCE(&c, 10);
        CHECK_INT(LOAD(s.arrived), i + 1); // one at a time
        CHECK_INT(answer(token_of(i), text), HTTPSRV_OK);
        EXPECT(&c, 200, text);
        EXPECT(&c, 200, HELLO);
    }
    hang_up(&c);
    finish(&s);
}

TEST_EACH_WAY(half_closed_clients_get_their_answers) {
    begin_deferring(&(httpsrv_config){0}, on_defer_watched);
    struct client c = dial(s.port);
    httpsrv_token token = defer_one(&c);
    half_close(&c);
    EXPECT_SILENCE(&c, 20);
    CHECK_INT(LOAD(noticed), 0);
    CHECK_INT(answer(token, "text"), HTTPSRV_OK);
    EXPECT(&c, 200, "text");
    EXPECT_EOF(&c);
    hang_up(&c);
    finish(&s);
    CHECK_INT(noticed, 0);
}

// ---- release, whatever becomes of the connection ----

TEST_EACH_WAY(client_leaves_before_finish) {
    begin_deferring(&(httpsrv_config){0}, on_defer);
    struct client c = dial(s.port);
    httpsrv_token token = defer_one(&c);
    net_reset(&c);
    WAIT(metrics(&s).connections == 0);
    check_stale(token);
    finish(&s);
    CHECK_INT(s.last.items[HTTPSRV_LOG_CLIENT_GONE], 1);
}

TEST_EACH_WAY(client_leaves_while_it_is_answered) {
    begin_deferring(&(httpsrv_config){0}, on_defer_watched);
    struct client c = dial(s.port);
    CHECK_INT(lend(defer_one(&c), 200, BLOB_BYTES), HTTPSRV_OK);
    net_need(&c, 1); // and takes no more of it
    CHECK_INT(LOAD(s.released), 0);
    net_reset(&c);
    WAIT(LOAD(s.released) == 1);
    finish(&s);
    CHECK_INT(noticed, 0);
}

TEST_EACH_WAY(client_leaves_while_the_handler_runs) {
    begin_deferring(&(httpsrv_config){0}, on_defer_and_stay);
    struct client c = dial(s.port);
    httpsrv_token token = defer_one(&c);
    CHECK_INT(lend(token, 200, 100), HTTPSRV_OK);
    net_reset(&c);
    if (way->pool) WAIT(metrics(&s).connections == 0);
    CHECK_INT(LOAD(s.released), 0); // the handler has the request still
    STORE(s.gate, 1);
    WAIT(LOAD(s.released) == 1);
    finish(&s);
}

// ---- post ----

static void on_dump_posted(httpsrv_req *req, void *user) {
    CHECK(req != NULL);
    CHECK(!httpsrv_gone(req));
    CHECK_MEM(httpsrv_alloc(req, 1), 0, "", 0);
    on_dump(req, user);
    COUNT(called);
}

// Requests that flow through the same buffers.
static void stir(struct client *c, int n) {
    for (int i = 0; i < n; i++) {
        SENDF(&c[i], "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n");
        net_send(&c[i], blob, 60000);
    }
    for (int i = 0; i < n; i++) {
        REPLY(&c[i]);
        check_blob(&c[i], 60000);
    }
}

TEST_EACH_WAY(posted_handlers_read_the_request) {
    enum { OTHERS = 8 };
    struct client others[OTHERS];
    begin(&(httpsrv_config){0});
    route("PUT /late/:a/*rest", on_defer);
    CHECK_INT(httpsrv_on(s.srv, "* /echo", on_echo, &s), HTTPSRV_OK);
    run();
    for (int i = 0; i < OTHERS; i++) {
        others[i] = dial(s.port);
    }
    struct client c = dial(s.port);
    for (int i = 1; i <= 6; i++) {
        SENDF(&c, "PUT /late/%%61b/r%%20%d/./s?q=%d+x HTTP/1.1\r\nHost: h\r\nX-Test: t%d\r\n%s\r\n", i, i, i,
              i % 2 ? "Content-Length: 5\r\n" : "Transfer-Encoding: chunked\r\n");
        SENDF(&c, i % 2 ? "b%04d" : "2\r\nb0\r\n3\r\n%03d\r\n0\r\n\r\n", i);
        WAIT(LOAD(s.arrived) == i);
        stir(others, OTHERS);
        CHECK_INT(httpsrv_post(s.srv, token_of(0), on_dump_posted, &s), HTTPSRV_OK);
        char expected[300];
        snprintf(expected, sizeof expected,
                 "PUT /late/%%61b/r%%20%d/./s?q=%d+x /late/ab/r %d/s host=h a=ab rest=r %d/s q=%d x x=t%d body=b%04d",
                 i, i, i, i, i, i, i);
        EXPECT(&c, 200, expected);
        check_stale(token_of(0));
    }
    hang_up_all(others, OTHERS);
    hang_up(&c);
    finish(&s);
    CHECK_INT(called, 6);
}

static int order[MOST], num_order;
static pthread_t seen_on[MOST]; // threads of those calls, or of handlers

// Notes its number and thread, and leaves the request deferred.
static void on_note(httpsrv_req *req, void *user) {
    CHECK(req != NULL);
    seen_on[num_order] = pthread_self();
    order[num_order++] = (int)(intptr_t)user;
    COUNT(called);
}

static void *number(int n) {
    return (void *)(intptr_t)n;
}

TEST_EACH_WAY(posts_in_their_order) {
    begin_deferring(&(httpsrv_config){0}, on_defer_and_stay);
    struct client c = dial(s.port);
    httpsrv_token token = defer_one(&c);
    num_order = 0;
    for (int i = 0; i < MOST; i++) {
        CHECK_INT(httpsrv_post(s.srv, token, on_note, number(i)), HTTPSRV_OK);
        if (i < MOST / 2) continue; // these wait for the return of the handler
        STORE(s.gate, 1);
        if (i % 10 == 0) WAIT(LOAD(called) == i + 1);
    }
    WAIT(LOAD(called) == MOST);
    for (int i = 0; i < MOST; i++) {
        CHECK_INT(order[i], i);
        CHECK(pthread_equal(seen_on[i], seen_on[0])); // on the reactor
        CHECK(!pthread_equal(seen_on[i], pthread_self()));
        if (way->reactors == 0) CHECK(pthread_equal(seen_on[i], s.host));
    }
    EXPECT_SILENCE(&c, 10);
    CHECK_INT(answer(token, "at last"), HTTPSRV_OK);
    EXPECT(&c, 200, "at last");
    check_stale(token);
    hang_up(&c);
    finish(&s);
}

static void on_reply_posted(httpsrv_req *req, void *user) {
    CHECK(req != NULL);
    CHECK_INT(httpsrv_defer(req).id, token_of(0).id); // it is deferred still
    CHECK_INT(httpsrv_add(req, "X-Step", HTTPSRV_STR("four")), HTTPSRV_OK);
    CHECK_INT(httpsrv_reply(req, 200, "a\nb", HTTPSRV_STR("bad")), HTTPSRV_ARG);
    CHECK_INT(httpsrv_reply(req, 200, NULL, HTTPSRV_STR("posted")), HTTPSRV_OK);
    CHECK_INT(httpsrv_reply(req, 200, NULL, HTTPSRV_STR("twice")), HTTPSRV_STATE);
    CHECK_INT(httpsrv_defer(req).id, 0);
    CHECK_INT(answer(token_of(0), "twice"), HTTPSRV_GONE);
    on_count(req, user);
}

TEST_EACH_WAY(posted_handlers_answer) {
    begin_deferring(&(httpsrv_config){0}, on_set_and_defer);
    struct client c = dial(s.port);
    for (int i = 1; i <= 8; i++) {
        httpsrv_token token = defer_one(&c);
        test_sleep(way->pool ? 5 : 0); // as it goes on after it has deferred
        CHECK_INT(httpsrv_post(s.srv, token, on_reply_posted, &s), HTTPSRV_OK);
        EXPECT(&c, 200, "posted");
        check_values(&c, "X-Step", "one,two,three,four,");
        GET(&c, "/hello");
        EXPECT(&c, 200, HELLO);
        check_stale(token);
        CHECK_INT(LOAD(called), i);
    }
    hang_up(&c);
    finish(&s);
}

// Of the handlers that wait for the return of the first one, one answers: those behind it get nothing.
TEST_EACH_WAY(posts_wait_for_the_return_of_the_handler) {
    begin_deferring(&(httpsrv_config){0}, on_defer_and_stay);
    struct client c = dial(s.port);
    httpsrv_token token = defer_one(&c);
    for (int i = 0; i < 3; i++) {
        CHECK_INT(httpsrv_post(s.srv, token, on_count, &s), HTTPSRV_OK);
    }
    CHECK_INT(httpsrv_post(s.srv, token, on_dump_posted, &s), HTTPSRV_OK);
    for (int i = 0; i < 3; i++) {
        CHECK_INT(httpsrv_post(s.srv, token, on_count, &s), HTTPSRV_OK);
    }
    EXPECT_SILENCE(&c, 20);
    CHECK_INT(LOAD(called) + LOAD(nulls), 0);
    STORE(s.gate, 1);
    EXPECT(&c, 200, "GET /d/0 /d/0 host=a a= rest= q= x= body=");
    WAIT(LOAD(nulls) == 3);
    CHECK_INT(LOAD(called), 4);
    hang_up(&c);
    finish(&s);
    CHECK_INT(called + nulls, 7);
}

static void on_post_own(httpsrv_req *req, void *user) {
    on_defer(req, user);
    CHECK_INT(httpsrv_post(s.srv, token_of(0), on_dump_posted, &s), HTTPSRV_OK);
    test_sleep(5);
    CHECK_INT(LOAD(called), LOAD(s.arrived) - 1);
}

TEST_EACH_WAY(post_from_within_the_handler) {
    begin_deferring(&(httpsrv_config){0}, on_post_own);
    struct client c = dial(s.port);
    for (int i = 0; i < 10; i++) {
        GET(&c, "/d/0");
        EXPECT(&c, 200, "GET /d/0 /d/0 host=a a= rest= q= x= body=");
    }
    hang_up(&c);
    finish(&s);
}

// Whoever answers first while posts wait: the reply of the handler, or finish.
static void on_answer_before_posts(httpsrv_req *req, void *user) {
    on_defer(req, user);
    for (int i = 0; i < 3; i++) {
        CHECK_INT(httpsrv_post(s.srv, token_of(0), on_count, &s), HTTPSRV_OK);
    }
    test_sleep(5); // on a worker: until the loop has them
    if (number_param(req, "n") == 0 && s.arrived % 2)
        CHECK_INT(httpsrv_reply(req, 200, NULL, HTTPSRV_STR("first")), HTTPSRV_OK);
    else
        CHECK_INT(answer(token_of(0), "first"), HTTPSRV_OK);
}

TEST_EACH_WAY(answers_come_before_posts_that_wait) {
    begin_deferring(&(httpsrv_config){0}, on_answer_before_posts);
    struct client c = dial(s.port);
    for (int i = 1; i <= 6; i++) {
        GET(&c, "/d/0");
        EXPECT(&c, 200, "first");
        WAIT(LOAD(nulls) == 3 * i);
    }
    CHECK_INT(LOAD(called), 0);
    hang_up(&c);
    finish(&s);
}

TEST_EACH_WAY(post_to_a_request_whose_client_has_left) {
    begin_deferring(&(httpsrv_config){0}, on_defer_and_stay);
    struct client c = dial(s.port);
    httpsrv_token token = defer_one(&c);
    CHECK_INT(httpsrv_post(s.srv, token, on_count, &s), HTTPSRV_OK); // waits for the return of the handler
    net_reset(&c);
    if (way->pool) WAIT(metrics(&s).connections == 0);
    CHECK_INT(httpsrv_post(s.srv, token, on_count, &s), HTTPSRV_OK);
    if (way->pool) WAIT(LOAD(nulls) == 1); // that one need not wait
    STORE(s.gate, 1);
    WAIT(LOAD(nulls) + LOAD(called) == 2);
    if (way->pool) CHECK_INT(LOAD(nulls), 2);
    WAIT(metrics(&s).connections == 0);
    check_stale(token);
    finish(&s);
}

static void on_finish_posted(httpsrv_req *req, void *user) {
    CHECK(req != NULL);
    CHECK_INT(answer(token_of(0), "own"), HTTPSRV_OK);
    CHECK_INT(answer(token_of(0), "twice"), HTTPSRV_GONE);
    CHECK_INT(httpsrv_reply(req, 200, NULL, HTTPSRV_STR("thrice")), HTTPSRV_GONE);
    CHECK_INT(httpsrv_post(s.srv, token_of(0), on_count, &s), HTTPSRV_OK);
    on_count(req, user);
}

TEST_EACH_WAY(posted_handlers_finish_their_own_token) {
    begin_deferring(&(httpsrv_config){0}, on_defer);
    struct client c = dial(s.port);
    for (int i = 1; i <= 20; i++) {
        CHECK_INT(httpsrv_post(s.srv, defer_one(&c), on_finish_posted, &s), HTTPSRV_OK);
        EXPECT(&c, 200, "own");
        WAIT(LOAD(nulls) == i);
        CHECK_INT(LOAD(called), i);
    }
    hang_up(&c);
    finish(&s);
}

// Of the handlers that wait, one finishes the request: those behind it come too late.
TEST_EACH_WAY(posts_behind_one_that_finishes) {
    begin_deferring(&(httpsrv_config){0}, on_defer_and_stay);
    struct client c = dial(s.port);
    httpsrv_token token = defer_one(&c);
    CHECK_INT(httpsrv_post(s.srv, token, on_count, &s), HTTPSRV_OK);
    CHECK_INT(httpsrv_post(s.srv, token, on_finish_posted, &s), HTTPSRV_OK);
    CHECK_INT(httpsrv_post(s.srv, token, on_count, &s), HTTPSRV_OK);
    test_sleep(10); // until they are all there, so that they run in one go
    STORE(s.gate, 1);
    EXPECT(&c, 200, "own");
    WAIT(LOAD(called) + LOAD(nulls) == 4);
    CHECK_INT(called, 2);
    hang_up(&c);
    finish(&s);
}

static void on_post_again(httpsrv_req *req, void *user) {
    const int left = (int)(intptr_t)user;
    COUNT(called);
    if (left > 0)
        CHECK_INT(httpsrv_post(s.srv, httpsrv_defer(req), on_post_again, number(left - 1)), HTTPSRV_OK);
    else
        CHECK_INT(httpsrv_replyf(req, 200, NULL, "%d calls", LOAD(called)), HTTPSRV_OK);
}

TEST_EACH_WAY(posts_from_within_posts) {
    begin_deferring(&(httpsrv_config){0}, on_defer);
    struct client c = dial(s.port);
    CHECK_INT(httpsrv_post(s.srv, defer_one(&c), on_post_again, number(300)), HTTPSRV_OK);
    EXPECT(&c, 200, "301 calls");
    hang_up(&c);
    finish(&s);
}

// ---- on_gone ----

TEST_EACH_WAY(on_gone_when_the_client_leaves) {
    enum { CLIENTS = 10 };
    begin_deferring(&(httpsrv_config){0}, on_defer_watched);
    for (int i = 1; i <= CLIENTS; i++) {
        struct client c = dial(s.port);
        httpsrv_token token = defer_one(&c);
        CHECK_INT(LOAD(noticed), i - 1);
        net_reset(&c);
        WAIT(LOAD(noticed) == i);
        check_stale(token);
    }
    finish(&s);
    CHECK_INT(noticed, CLIENTS);
}

TEST_EACH_WAY(on_gone_not_when_there_was_an_answer) {
    begin_deferring(&(httpsrv_config){0}, on_defer_watched);
    struct client c = dial(s.port), d = dial(s.port);
    CHECK_INT(answer(defer_one(&c), "text"), HTTPSRV_OK);
    EXPECT(&c, 200, "text");
    CHECK_INT(httpsrv_post(s.srv, defer_one(&d), on_dump_posted, &s), HTTPSRV_OK);
    EXPECT(&d, 200, NULL);
    net_reset(&c);
    WAIT(metrics(&s).connections == 1);
    hang_up(&d);
    finish(&s);
    CHECK_INT(noticed, 0);
}

static void on_watch_twice(httpsrv_req *req, void *user) {
    CHECK_INT(httpsrv_on_gone(req, NULL, NULL), HTTPSRV_ARG);
    on_defer_watched(req, user);
    CHECK_INT(httpsrv_on_gone(req, count_notice, &s), HTTPSRV_STATE);
}

static void on_watch_posted(httpsrv_req *req, void *user) {
    CHECK_INT(httpsrv_on_gone(req, count_notice, &s), number_param(req, "n") == 0 ? HTTPSRV_STATE : HTTPSRV_OK);
    on_count(req, user);
}

TEST_EACH_WAY(on_gone_once_for_each_request) {
    begin_deferring(&(httpsrv_config){0}, on_watch_twice);
    struct client c = dial(s.port);
    CHECK_INT(httpsrv_post(s.srv, defer_one(&c), on_watch_posted, &s), HTTPSRV_OK);
    WAIT(LOAD(called) == 1);
    net_reset(&c);
    WAIT(LOAD(noticed) == 1);
    finish(&s);
    CHECK_INT(noticed, 1);
}

TEST_EACH_WAY(on_gone_by_a_posted_handler) {
    begin_deferring(&(httpsrv_config){0}, on_defer);
    struct client c = dial(s.port);
    CHECK_INT(httpsrv_post(s.srv, defer_number(&s, &c, 1), on_watch_posted, &s), HTTPSRV_OK);
    WAIT(LOAD(called) == 1);
    net_reset(&c);
    WAIT(LOAD(noticed) == 1);
    finish(&s);
}

// Without a token nobody is late: the handler itself answers.
static void on_watch_and_reply(httpsrv_req *req, void *user) {
    (void)user;
    CHECK_INT(httpsrv_on_gone(req, count_notice, &s), HTTPSRV_OK);
    CHECK_INT(httpsrv_reply(req, 200, NULL, HTTPSRV_STR("text")), HTTPSRV_OK);
}

static void on_watch_and_forget(httpsrv_req *req, void *user) {
    (void)user;
    CHECK_INT(httpsrv_on_gone(req, count_notice, &s), HTTPSRV_OK);
}

TEST_EACH_WAY(on_gone_without_defer) {
    begin(&(httpsrv_config){0});
    route("GET /reply", on_watch_and_reply);
    route("GET /forget", on_watch_and_forget);
    route("GET /d/:n", on_defer);
    run();
    struct client c = dial(s.port);
    for (int i = 0; i < 10; i++) {
        GET(&c, "/reply");
        EXPECT(&c, 200, "text");
        GET(&c, "/forget");
        EXPECT(&c, 500, NULL);
        CHECK_INT(answer(defer_one(&c), "later"), HTTPSRV_OK); // which leaves no traces in the next one
        EXPECT(&c, 200, "later");
    }
    hang_up(&c);
    finish(&s);
    CHECK_INT(noticed, 0);
}

// ---- workers whose clients leave ----

static const struct way *const workers = &ways[3];

static void wait_until_gone(const httpsrv_req *req) {
    COUNT(s.arrived);
    while (!httpsrv_gone(req)) {
        test_sleep(1);
    }
}

static void on_watch_too_late(httpsrv_req *req, void *user) {
    (void)user;
    wait_until_gone(req);
    CHECK_INT(LOAD(noticed), 0);
    CHECK_INT(httpsrv_on_gone(req, count_notice, &s), HTTPSRV_OK);
    CHECK_INT(LOAD(noticed), 1); // within the call
    CHECK_INT(httpsrv_on_gone(req, count_notice, &s), HTTPSRV_STATE);
    CHECK_INT(httpsrv_reply(req, 200, NULL, HTTPSRV_STR("text")), HTTPSRV_GONE);
    COUNT(s.left);
}

static void on_watch_while_running(httpsrv_req *req, void *user) {
    (void)user;
    CHECK_INT(httpsrv_on_gone(req, count_notice, &s), HTTPSRV_OK);
    wait_until_gone(req);
    WAIT(LOAD(noticed) == 1); // the reactor does not wait for this handler
    COUNT(s.left);
}

static void on_watch_answered(httpsrv_req *req, void *user) {
    (void)user;
    CHECK_INT(httpsrv_on_gone(req, count_notice, &s), HTTPSRV_OK);
    CHECK_INT(httpsrv_reply(req, 200, NULL, HTTPSRV_STR("text")), HTTPSRV_OK);
    wait_until_gone(req);
    COUNT(s.left);
}

// A client that leaves while a worker has its request. Returns the number of notices.
static int leave_a_worker(httpsrv_handler handler) {
    way = workers;
    begin_deferring(&(httpsrv_config){0}, handler);
    struct client c = dial(s.port);
    GET(&c, "/d/0");
    WAIT(LOAD(s.arrived) == 1);
    net_reset(&c);
    WAIT(LOAD(s.left) == 1);
    finish(&s);
    return noticed;
}

TEST(on_gone_after_the_client_has_left) {
    CHECK_INT(leave_a_worker(on_watch_too_late), 1);
}

TEST(on_gone_while_the_handler_runs) {
    CHECK_INT(leave_a_worker(on_watch_while_running), 1);
}

TEST(on_gone_not_once_the_worker_has_answered) {
    CHECK_INT(leave_a_worker(on_watch_answered), 0);
}

static void *finish_pondering(void *result) {
    mood = PONDERING;
    *(httpsrv_result *)result = lend(token_of(0), 200, 77);
    mood = WILLING;
    return NULL;
}

static void on_defer_until_gone(httpsrv_req *req, void *user) {
    CHECK_INT(httpsrv_on_gone(req, count_notice, &s), HTTPSRV_OK);
    on_defer(req, user);
    wait_until_gone(req);
    CHECK_INT(httpsrv_reply(req, 200, NULL, HTTPSRV_STR("text")), HTTPSRV_GONE);
    COUNT(s.left);
}

// The client leaves while httpsrv_finish is on its way, and the handler notices: the request stays where it is until finish
// is done with it, and the next one has nothing of it.
TEST(reply_to_the_lost_while_a_finish_is_under_way) {
    pthread_t finisher;
    httpsrv_result result = HTTPSRV_ARG;
    way = workers;
    begin(&(httpsrv_config){0});
    route("GET /d/:n", on_defer_until_gone);
    route("GET /gate", on_gate);
    run();
    struct client c = dial(s.port), d = dial(s.port);
    GET(&c, "/d/0");
    WAIT(LOAD(s.arrived) == 2);
    pthread_create(&finisher, NULL, finish_pondering, &result);
    WAIT(LOAD(pondering) == 1);
    net_reset(&c);
    WAIT(LOAD(s.left) == 1);
    WAIT(metrics(&s).connections == 1);
    GET(&d, "/gate");
    WAIT(LOAD(s.arrived) == 3);
    STORE(decided, GRANTED);
    pthread_join(finisher, NULL);
    CHECK_INT(result, HTTPSRV_OK);
    STORE(s.gate, 1);
    REPLY(&d);
    check_blob(&d, 100);
    hang_up(&d);
    finish(&s);
    CHECK_INT(noticed, 0);
}

static void *finish_refused(void *result) {
    finish_pondering(result);
    mood = REFUSING;
    *(httpsrv_result *)result = lend(token_of(0), 200, 77);
    mood = WILLING;
    return NULL;
}

// The client leaves while a finish is under way that comes to nothing: now there is somebody to be told.
TEST(on_gone_after_a_finish_without_memory) {
    pthread_t finisher;
    httpsrv_result result = HTTPSRV_ARG;
    way = workers;
    begin_deferring(&(httpsrv_config){0}, on_defer_watched);
    struct client c = dial(s.port);
    defer_one(&c);
    pthread_create(&finisher, NULL, finish_refused, &result);
    WAIT(LOAD(pondering) == 1);
    net_reset(&c);
    WAIT(metrics(&s).connections == 0);
    STORE(decided, REFUSED);
    pthread_join(finisher, NULL);
    CHECK_INT(result, HTTPSRV_GONE);
    WAIT(LOAD(noticed) == 1);
    finish(&s);
    CHECK_INT(noticed, 1);
}

// A post meets a finish under way that comes to nothing: the request is there still.
TEST_EACH_WAY(post_while_a_finish_fails) {
    pthread_t finisher;
    httpsrv_result result = HTTPSRV_ARG;
    begin_deferring(&(httpsrv_config){0}, on_defer);
    struct client c = dial(s.port);
    httpsrv_token token = defer_one(&c);
    pthread_create(&finisher, NULL, finish_pondering, &result);
    WAIT(LOAD(pondering) == 1);
    CHECK_INT(httpsrv_post(s.srv, token, on_count, &s), HTTPSRV_OK);
    WAIT(LOAD(called) == 1);
    CHECK_INT(answer(token, "another"), HTTPSRV_GONE); // one is being made
    STORE(decided, REFUSED);
    pthread_join(finisher, NULL);
    CHECK_INT(result, HTTPSRV_NOMEM);
    CHECK_INT(answer(token, "text"), HTTPSRV_OK);
    EXPECT(&c, 200, "text");
    hang_up(&c);
    finish(&s);
    CHECK_INT(nulls, 0);
}

// ---- no memory to keep a request that was deferred ----

static void on_defer_starving(httpsrv_req *req, void *user) {
    on_defer_watched(req, user);
    wait_at_gate();
    is_reactor = true;
    STORE(starving, 1);
    COUNT(s.left);
}

// Its head is larger than the memory that comes with a request.
static void defer_large(struct client *c) {
    SENDF(c, "GET /d/0 HTTP/1.1\r\nHost: a\r\nX: %0*d\r\n\r\n", HTTPSRV_REQUEST_MEMORY, 0);
    WAIT(LOAD(s.arrived) == 1);
}

static void leave_starving(void) {
    STORE(s.gate, 1);
    WAIT(LOAD(s.left) == 1);
    test_sleep(20); // until the reactor has seen that there is no memory
}

TEST(defer_without_memory) {
    way = ways;
    begin_deferring(&(httpsrv_config){0}, on_defer_starving);
    struct client c = dial(s.port);
    defer_large(&c);
    STORE(s.gate, 1);
    EXPECT(&c, 503, NULL);
    CHECK(field(&c, "Retry-After") != NULL);
    STORE(starving, 0);
    check_stale(token_of(0));
    GET(&c, "/hello");
    EXPECT(&c, 200, HELLO);
    hang_up(&c);
    finish(&s);
    CHECK_INT(noticed, 1);
}

// The answer is under way when it is found that the request cannot be kept: the answer is waited for.
TEST(defer_without_memory_while_a_finish_is_under_way) {
    for (int leaves = 0; leaves <= 1; leaves++) {
        for (int fails = 0; fails <= 1; fails++) {
            pthread_t finisher;
            httpsrv_result result = HTTPSRV_ARG;
            way = ways;
            begin_deferring(&(httpsrv_config){0}, on_defer_starving);
            NOTE("the client %s, the finish %s", leaves ? "leaves" : "stays", fails ? "fails" : "succeeds");
            struct client c = dial(s.port);
            defer_large(&c);
            pthread_create(&finisher, NULL, finish_pondering, &result);
            WAIT(LOAD(pondering) == 1);
            leave_starving();
            STORE(starving, 0);
            if (leaves) net_reset(&c);
            if (leaves) WAIT(metrics(&s).connections == 0);
            check_alive(&s);
            STORE(decided, fails ? REFUSED : GRANTED);
            pthread_join(finisher, NULL);
            CHECK_INT(result, fails ? HTTPSRV_NOMEM : HTTPSRV_OK);
            WAIT(LOAD(s.released) == LOAD(s.borrowed));
            if (!leaves) EXPECT(&c, fails ? 503 : 200, NULL);
            check_stale(token_of(0));
            hang_up(&c);
            finish(&s);
        }
    }
}

// ---- time-outs ----

static void check_timed_out(struct client *c) {
    EXPECT(c, 503, NULL);
    CHECK(field(c, "Retry-After") != NULL);
    CHECK(!c->close);
}

TEST_TWO_WAYS(deferred_for_too_long) {
    begin_deferring(&(httpsrv_config){.timeout_ms.handler = test_ms(100)}, on_defer_watched);
    struct client c = dial(s.port);
    for (int i = 1; i <= 2; i++) {
        httpsrv_token token = defer_one(&c);
        check_timed_out(&c);
        check_stale(token);
        CHECK_INT(LOAD(noticed), i);
        GET(&c, "/hello");
        EXPECT(&c, 200, HELLO);
    }
    hang_up(&c);
    finish(&s);
    CHECK_INT(noticed, 2);
    CHECK_INT(s.last.items[HTTPSRV_LOG_HANDLER_TIMEOUT], 2);
}

TEST_TWO_WAYS(no_time_out_for_what_is_answered_in_time) {
    const int timeout = test_ms(250);
    begin_deferring(&(httpsrv_config){.timeout_ms.handler = timeout}, on_defer_watched);
    struct client c = dial(s.port);
    for (int i = 0; i < 5; i++) {
        httpsrv_token token = defer_one(&c);
        test_sleep(timeout / 4); // together more than the time for one
        CHECK_INT(answer(token, "text"), HTTPSRV_OK);
        EXPECT(&c, 200, "text");
    }
    test_sleep(timeout * 9 / 8);
    GET(&c, "/hello");
    EXPECT(&c, 200, HELLO);
    hang_up(&c);
    finish(&s);
    CHECK_INT(noticed, 0);
    CHECK_INT(s.last.items[HTTPSRV_LOG_HANDLER_TIMEOUT], 0);
}

// A worker that is too late finds its request gone; the connection goes on without it.
static void on_too_late(httpsrv_req *req, void *user) {
    const httpsrv_answer a = {.status = 200, .body = blob_view(9), .release = count_release, .release_arg = &s};
    (void)user;
    CHECK_INT(httpsrv_on_gone(req, count_notice, &s), HTTPSRV_OK);
    wait_until_gone(req);
    COUNT(s.borrowed);
    CHECK_INT(httpsrv_reply_with(req, &a), HTTPSRV_GONE);
    check_released();
    wait_at_gate();
    COUNT(s.left);
}

TEST(worker_for_too_long) {
    for (way = workers; way < ways + ROWS(ways); way += 2) {
        begin_deferring(&(httpsrv_config){.timeout_ms.handler = test_ms(150)}, on_too_late);
        struct client c = dial(s.port);
        GET(&c, "/d/0");
        check_timed_out(&c);
        GET(&c, "/hello"); // while the worker is still at it
        EXPECT(&c, 200, HELLO);
        GET(&c, "/d/0");
        check_timed_out(&c);
        CHECK_INT(LOAD(s.left), 0);
        WAIT(LOAD(noticed) == 2);
        STORE(s.gate, 1);
        WAIT(LOAD(s.left) == 2);
        hang_up(&c);
        finish(&s);
        CHECK_INT(s.last.items[HTTPSRV_LOG_HANDLER_TIMEOUT], 2);
        CHECK_INT(s.last.items[HTTPSRV_LOG_NO_ANSWER], 0);
    }
}

static void on_reply_and_stay(httpsrv_req *req, void *user) {
    (void)user;
    CHECK_INT(httpsrv_reply(req, 200, NULL, HTTPSRV_STR("in time")), HTTPSRV_OK);
    COUNT(s.arrived);
    wait_at_gate();
}

// The time is up between an answer and the return of its handler: it counts, and nobody else is held up.
TEST(worker_that_answers_in_time_and_returns_too_late) {
    for (way = workers; way < ways + ROWS(ways); way += 2) {
        begin_deferring(&(httpsrv_config){.timeout_ms.handler = test_ms(200)}, on_reply_and_stay);
        struct client c = dial(s.port);
        GET(&c, "/d/0");
        WAIT(LOAD(s.arrived) == 1);
        test_sleep(test_ms(300));
        for (int i = 0; i < 8; i++) {
            check_alive(&s);
        }
        STORE(s.gate, 1);
        EXPECT(&c, 200, "in time");
        hang_up(&c);
        finish(&s);
        CHECK_INT(s.last.items[HTTPSRV_LOG_HANDLER_TIMEOUT], 0);
    }
}

// The same with a finish that takes its time.
TEST(finish_that_is_under_way_when_the_time_is_up) {
    pthread_t finisher;
    httpsrv_result result = HTTPSRV_ARG;
    way = ways;
    begin_deferring(&(httpsrv_config){.timeout_ms.handler = test_ms(250)}, on_defer_watched);
    struct client c = dial(s.port);
    defer_one(&c);
    pthread_create(&finisher, NULL, finish_pondering, &result);
    WAIT(LOAD(pondering) == 1);
    test_sleep(test_ms(400));
    check_alive(&s);
    STORE(decided, GRANTED);
    REPLY(&c);
    check_blob(&c, 77);
    pthread_join(finisher, NULL);
    CHECK_INT(result, HTTPSRV_OK);
    hang_up(&c);
    finish(&s);
    CHECK_INT(noticed, 0);
    CHECK_INT(s.last.items[HTTPSRV_LOG_HANDLER_TIMEOUT], 0);
}

#define LATE (250 + 5 * timeout) // ms by which a machine may be late

static void check_time(const char *what, int64_t start, int timeout) {
    const int64_t took = test_now() - start;
    NOTE("%s: %s", way->name, what);
    CHECK_CMP(took, >=, timeout - timeout / 10 - 5);
    CHECK_CMP(took, <=, timeout + test_ms(LATE));
}

static void on_defer_for_ever(httpsrv_req *req, void *user) {
    on_defer(req, user);
    COUNT(s.left);
}

// A route's own time may be shorter or longer than the server's, or without end.
TEST_TWO_WAYS(time_outs_of_routes) {
    struct client c[4];
    begin(&(httpsrv_config){.timeout_ms.handler = 200});
    static const struct {
        const char *pattern;
        int timeout_ms, expected;
    } rows[4] = {
        {"GET /short/:n", 80, 80}, {"GET /default/:n", 0, 200}, {"GET /long/:n", 400, 400}, {"GET /off/:n", -1, 0}};
    for (int i = 0; i < 4; i++) {
        httpsrv_route_config r = {.pattern = rows[i].pattern, .handler = on_defer, .user = &s, .pool = way->pool};
        r.timeout_ms = rows[i].timeout_ms;
        if (i == 3) r.handler = on_defer_for_ever;
        CHECK_INT(httpsrv_route(s.srv, &r), HTTPSRV_OK);
    }
    for (int i = 0; i < 2; i++) { // others, first and last, are far slower
        httpsrv_route_config r = {
            .pattern = i ? "GET /aaa" : "GET /zzz", .handler = on_defer, .user = &s, .timeout_ms = 86400000};
        CHECK_INT(httpsrv_route(s.srv, &r), HTTPSRV_OK);
    }
    run();
    const int64_t start = test_now();
    for (int i = 0; i < 4; i++) {
        char target[40];
        snprintf(target, sizeof target, "%.*s%d", (int)strcspn(rows[i].pattern + 4, ":"), rows[i].pattern + 4, i);
        c[i] = dial(s.port);
        GET(&c[i], target);
    }
    for (int i = 0; i < 3; i++) {
        check_timed_out(&c[i]);
        check_time(rows[i].pattern, start, rows[i].expected);
    }
    WAIT(LOAD(s.left) == 1);
    CHECK_INT(answer(token_of(3), "text"), HTTPSRV_OK);
    EXPECT(&c[3], 200, "text");
    hang_up_all(c, 4);
    finish(&s);
    CHECK_INT(s.last.items[HTTPSRV_LOG_HANDLER_TIMEOUT], 3);
}

// Posts do not begin the time anew.
TEST_TWO_WAYS(time_outs_in_spite_of_posts) {
    begin_deferring(&(httpsrv_config){.timeout_ms.handler = 200}, on_defer);
    struct client c = dial(s.port);
    const int64_t start = test_now();
    httpsrv_token token = defer_one(&c);
    for (int i = 0; i < 10; i++) {
        CHECK_INT(httpsrv_post(s.srv, token, on_count, &s), HTTPSRV_OK);
        test_sleep(10);
    }
    check_timed_out(&c);
    check_time("with posts", start, 200);
    WAIT(LOAD(called) + LOAD(nulls) == 10);
    hang_up(&c);
    finish(&s);
}

TEST(time_outs_that_are_none) {
    static const int bad[] = {HTTPSRV_ZERO, 86400001};
    for (size_t i = 0; i < ROWS(bad); i++) {
        httpsrv *srv = httpsrv_new(&(httpsrv_config){.timeout_ms.handler = bad[i]});
        NOTE("%d", bad[i]);
        CHECK_INT(httpsrv_listen(srv), HTTPSRV_ARG);
        CHECK_HAS(httpsrv_error(srv), "timeout_ms");
        httpsrv_free(srv);
        srv = httpsrv_new(&(httpsrv_config){.host = "127.0.0.1"});
        httpsrv_route(srv, &(httpsrv_route_config){.pattern = "GET /", .handler = on_hello, .timeout_ms = bad[i]});
        CHECK_INT(httpsrv_listen(srv), HTTPSRV_ARG);
        CHECK_HAS(httpsrv_error(srv), "timeout_ms");
        httpsrv_free(srv);
    }
}

// ---- the end ----

TEST_EACH_WAY(drain_waits_for_what_is_deferred) {
    begin_deferring(&(httpsrv_config){0}, on_defer);
    struct client c = dial(s.port), d = dial(s.port);
    httpsrv_token token = defer_one(&c);
    defer_number(&s, &d, 1);
    httpsrv_stop(s.srv);
    EXPECT_SILENCE(&c, 50);
    CHECK_INT(httpsrv_post(s.srv, token, on_count, &s), HTTPSRV_OK);
    WAIT(LOAD(called) == 1);
    CHECK_INT(answer(token, "at last"), HTTPSRV_OK);
    EXPECT(&c, 200, "at last");
    CHECK(c.close);
    EXPECT_EOF(&c);
    CHECK_INT(httpsrv_post(s.srv, token_of(1), on_dump_posted, &s), HTTPSRV_OK);
    EXPECT(&d, 200, NULL);
    EXPECT_EOF(&d);
    hang_up(&c);
    hang_up(&d);
    join_server(&s);
    CHECK_INT(answer(token, "too late"), HTTPSRV_GONE);
    dispose(&s);
    CHECK_INT(s.last.drain_finished, 2);
    CHECK_INT(s.last.drain_cut, 0);
}

static void check_cut(struct client *c) {
    EXPECT_END(c);
    CHECK_INT(c->len - c->at, 0);
    hang_up(c);
}

TEST_EACH_WAY(drain_cuts_what_stays_deferred) {
    begin_deferring(&(httpsrv_config){.timeout_ms.drain = 40}, on_defer_watched);
    struct client c = dial(s.port), d = dial(s.port);
    defer_one(&c);
    defer_number(&s, &d, 1);
    httpsrv_stop(s.srv);
    join_server(&s);
    check_cut(&c);
    check_cut(&d);
    CHECK_INT(LOAD(noticed), 2);
    CHECK_INT(lend(token_of(0), 200, 10), HTTPSRV_GONE);
    CHECK_INT(httpsrv_post(s.srv, token_of(1), on_count, &s), HTTPSRV_OK);
    CHECK_INT(LOAD(nulls), 0); // nobody runs it now; httpsrv_free does
    dispose(&s);
    CHECK_INT(nulls, 1);
    CHECK_INT(noticed, 2);
    CHECK_INT(s.last.drain_cut, 2);
    CHECK_INT(s.last.items[HTTPSRV_LOG_CUT], 2);
}

TEST_EACH_WAY(second_stop_cuts_what_is_deferred) {
    begin_deferring(&(httpsrv_config){0}, on_defer_watched);
    struct client c = dial(s.port);
    httpsrv_token token = defer_one(&c);
    httpsrv_stop(s.srv);
    EXPECT_SILENCE(&c, 20);
    httpsrv_stop(s.srv);
    check_cut(&c);
    join_server(&s);
    CHECK_INT(answer(token, "too late"), HTTPSRV_GONE);
    dispose(&s);
    CHECK_INT(noticed, 1);
}

// A token stays stale when the server runs again, and what was posted in between is not forgotten.
TEST_EACH_WAY(stop_and_run_again) {
    begin_deferring(&(httpsrv_config){.timeout_ms.drain = 20}, on_defer);
    for (int i = 0; i < 3; i++) {
        struct client c = dial(s.port);
        httpsrv_token token = defer_number(&s, &c, i);
        httpsrv_stop(s.srv);
        join_server(&s);
        check_cut(&c);
        CHECK_INT(httpsrv_post(s.srv, token, on_count, &s), HTTPSRV_OK);
        run();
        NOTE("%s, run %d", way->name, i);
        WAIT(LOAD(nulls) == i + 1);
        for (int k = 0; k <= i; k++) {
            CHECK_INT(answer(token_of(k), "stale"), HTTPSRV_GONE);
        }
    }
    finish(&s);
    CHECK_INT(called, 0);
}

static void *open_gate_later(void *arg) {
    (void)arg;
    test_sleep(50);
    STORE(s.gate, 1);
    return NULL;
}

// httpsrv_free ends whatever is under way: deferred, finished but not sent, with posts that wait, on a worker still.
TEST_EACH_WAY(free_with_requests_outstanding) {
    enum { CLIENTS = 16 };
    struct client c[CLIENTS];
    pthread_t opener;
    begin(&(httpsrv_config){0});
    route("GET /d/:n", on_defer_watched);
    if (way->pool) route("GET /stay/:n", on_defer_and_stay);
    run();
    for (int i = 0; i < CLIENTS; i++) {
        c[i] = dial(s.port);
        SENDF(&c[i], "GET /%s/%d HTTP/1.1\r\nHost: a\r\n\r\n", way->pool && i % 8 == 7 ? "stay" : "d", i);
        WAIT(LOAD(s.arrived) == i + 1);
    }
    walk_away();
    for (int i = 0; i < CLIENTS; i++) {
        if (i % 8 >= 5) CHECK_INT(httpsrv_post(s.srv, token_of(i), on_count, &s), HTTPSRV_OK);
        if (i % 4 == 3) CHECK_INT(lend(token_of(i), 200, (size_t)i * 1000), HTTPSRV_OK);
    }
    pthread_create(&opener, NULL, open_gate_later, NULL);
    httpsrv_free(s.srv);
    CHECK_INT(s.left, way->pool ? 2 : 0);
    CHECK_INT(s.released, s.borrowed);
    CHECK_INT(called + nulls, 6);
    CHECK_INT(noticed, 12); // not those that were finished
    CHECK_INT(s.blocks, 0);
    CHECK_INT(s.bytes, 0);
    for (int i = 0; i < CLIENTS; i++) {
        EXPECT_END(&c[i]);
        hang_up(&c[i]);
    }
    pthread_join(opener, NULL);
}

// A posted handler that is told in httpsrv_free that its request is gone may still ask the server for everything: the other
// loops are there, and what it posts runs as well.
static void on_end(httpsrv_req *req, void *user) {
    const int left = (int)(intptr_t)user;
    httpsrv_metrics m;
    CHECK(req == NULL);
    COUNT(nulls);
    CHECK_INT(httpsrv_query_metrics(s.srv, &m), HTTPSRV_OK);
    for (int i = 0; i < 40; i++) {
        CHECK_INT(lend(token_of(i), 200, 10), HTTPSRV_GONE);
    }
    if (left > 0) CHECK_INT(httpsrv_post(s.srv, token_of(left), on_end, number(left - 1)), HTTPSRV_OK);
}

TEST_EACH_WAY(posts_during_free) {
    enum { CLIENTS = 40 };
    struct client c[CLIENTS];
    begin_deferring(&(httpsrv_config){0}, on_defer);
    for (int i = 0; i < CLIENTS; i++) {
        c[i] = dial(s.port);
        defer_number(&s, &c[i], i);
    }
    httpsrv_stop(s.srv);
    httpsrv_stop(s.srv);
    join_server(&s);
    CHECK_INT(httpsrv_post(s.srv, token_of(0), on_end, number(CLIENTS - 1)), HTTPSRV_OK);
    dispose(&s);
    CHECK_INT(nulls, CLIENTS);
    for (int i = 0; i < CLIENTS; i++) {
        check_cut(&c[i]);
    }
}

// ---- by hand: the test turns the loop itself, so that it knows what has been seen when ----

static const struct way by_hand = {"by hand", NULL, 0};

static void begin_by_hand(httpsrv_handler handler) {
    way = &by_hand;
    begin(&(httpsrv_config){.max.connections = 200});
    route("GET /d/:n", handler);
    CHECK_INT(httpsrv_listen(s.srv), HTTPSRV_OK);
    s.port = httpsrv_port(s.srv, 0);
}

static httpsrv_token defer_by_hand(struct client *c, int n) {
    const int before = s.arrived;
    SENDF(c, "GET /d/%d HTTP/1.1\r\nHost: a\r\n\r\n", n);
    TURN_UNTIL(&s, s.arrived == before + 1);
    return token_of(n);
}

static void reply_by_hand(struct client *c, const char *text) {
    const uint64_t before = metrics(&s).answers[2];
    TURN_UNTIL(&s, metrics(&s).answers[2] == before + 1);
    CHECK_INT(httpsrv_poll(s.srv, 0), HTTPSRV_OK);
    EXPECT(c, 200, text);
}

static bool fd_is_ready(void) {
    struct pollfd p = {httpsrv_fd(s.srv), POLLIN, 0};
    return poll(&p, 1, 0) == 1;
}

// Between two turns a message makes the descriptor readable and the time-out zero.
TEST(messages_wake_a_host) {
    begin_by_hand(on_defer);
    struct client c = dial(s.port);
    for (int i = 0; i < 10; i++) {
        httpsrv_token token = defer_by_hand(&c, 0);
        for (int k = 0; k < 5; k++) {
            CHECK_INT(httpsrv_poll(s.srv, 0), HTTPSRV_OK);
        }
        CHECK(!fd_is_ready());
        CHECK(httpsrv_timeout(s.srv) != 0);
        CHECK_INT(httpsrv_post(s.srv, token, on_count, &s), HTTPSRV_OK);
        CHECK(fd_is_ready());
        CHECK_INT(httpsrv_timeout(s.srv), 0);
        CHECK_INT(httpsrv_poll(s.srv, -1), HTTPSRV_OK);
        CHECK_INT(called, i + 1);
        CHECK(!fd_is_ready());
        CHECK_INT(answer(token, "text"), HTTPSRV_OK);
        CHECK(fd_is_ready());
        CHECK_INT(httpsrv_timeout(s.srv), 0);
        reply_by_hand(&c, "text");
    }
    hang_up(&c);
    dispose(&s);
}

// The answer has been given and the client leaves before the loop has seen either.
TEST(on_gone_not_when_client_and_answer_cross) {
    begin_by_hand(on_defer_watched);
    struct client c = dial(s.port), d = dial(s.port);
    CHECK_INT(lend(defer_by_hand(&c, 0), 200, 10), HTTPSRV_OK);
    net_reset(&c);
    TURN_UNTIL(&s, metrics(&s).connections == 1);
    CHECK_INT(lend(defer_by_hand(&d, 1), 200, 10), HTTPSRV_OK);
    dispose(&s); // cuts it
    hang_up(&d);
    CHECK_INT(noticed, 0);
}

// A posted handler that was on its way when somebody else answered.
TEST(finish_overtakes_a_post) {
    begin_by_hand(on_defer);
    struct client c = dial(s.port);
    httpsrv_token token = defer_by_hand(&c, 0);
    CHECK_INT(httpsrv_post(s.srv, token, on_count, &s), HTTPSRV_OK);
    CHECK_INT(answer(token, "text"), HTTPSRV_OK);
    CHECK_INT(httpsrv_post(s.srv, token, on_count, &s), HTTPSRV_OK);
    reply_by_hand(&c, "text");
    CHECK_INT(nulls, 2);
    CHECK_INT(called, 0);
    hang_up(&c);
    dispose(&s);
}

// A post and the client's leaving, seen in the same turn.
TEST(post_and_reset_in_one_turn) {
    begin_by_hand(on_defer_watched);
    struct client c = dial(s.port);
    httpsrv_token token = defer_by_hand(&c, 0);
    CHECK_INT(httpsrv_post(s.srv, token, on_count, &s), HTTPSRV_OK);
    net_reset(&c);
    TURN_UNTIL(&s, metrics(&s).connections == 0);
    CHECK_INT(called + nulls, 1);
    CHECK_INT(noticed, 1);
    CHECK_INT(answer(token, "text"), HTTPSRV_GONE);
    dispose(&s);
}

// ---- generations ----

static hsrv_place *place_of(httpsrv_token token) {
    return hsrv_request_find_place(s.srv, token);
}

static uint32_t generation_of(httpsrv_token token) {
    return (uint32_t)(token.id >> 32);
}

// The place of the next request, as if it had served so many already.
static void age_place(uint32_t generation) {
    CHECK(s.srv->loops[0]->spare_requests != NULL);
    s.srv->loops[0]->spare_requests->place->cell = generation << 2 | HSRV_PLACE_CLOSED;
}

static void serve_by_hand(struct client *c) {
    CHECK_INT(answer(defer_by_hand(c, 0), "text"), HTTPSRV_OK);
    reply_by_hand(c, "text");
}

// A place ages with each request, and is not used any more when it has had all its generations.
TEST(places_wear_out) {
    httpsrv_token old[4];
    begin_by_hand(on_defer);
    struct client c = dial(s.port);
    serve_by_hand(&c);
    hsrv_place *place = place_of(token_of(0));
    age_place(HSRV_GENERATIONS - 3);
    for (uint32_t i = 0; i < 4; i++) {
        serve_by_hand(&c);
        old[i] = token_of(0);
        CHECK(place_of(old[i]) == place);
        CHECK_INT(generation_of(old[i]), HSRV_GENERATIONS - 3 + i);
    }
    CHECK_INT(place->cell, HSRV_GENERATIONS << 2 | HSRV_PLACE_CLOSED);
    for (int i = 0; i < 300; i++) {
        serve_by_hand(&c);
        CHECK(place_of(token_of(0)) != place);
    }
    defer_by_hand(&c, 0);
    for (int i = 0; i < 4; i++) {
        CHECK_INT(answer(old[i], "stale"), HTTPSRV_GONE);
        CHECK_INT(httpsrv_post(s.srv, old[i], on_count, &s), HTTPSRV_OK);
    }
    TURN_UNTIL(&s, nulls == 4);
    CHECK_INT(answer(token_of(0), "text"), HTTPSRV_OK);
    reply_by_hand(&c, "text");
    CHECK_INT(place->cell, HSRV_GENERATIONS << 2 | HSRV_PLACE_CLOSED);
    hang_up(&c);
    dispose(&s);
}

// So many that the table has to grow, and in each way a request can end.
TEST(many_places_wear_out) {
    enum { CLIENTS = 90 };
    struct client c[CLIENTS];
    httpsrv_token old[CLIENTS];
    begin_by_hand(on_defer_watched);
    for (int i = 0; i < CLIENTS; i++) {
        c[i] = dial(s.port);
        old[i] = defer_by_hand(&c[i], i);
        hsrv_place *place = place_of(old[i]);
        place->cell = HSRV_GENERATIONS << 2 | HSRV_PLACE_OPEN;
        old[i].id = (uint64_t)HSRV_GENERATIONS << 32 | (uint32_t)old[i].id;
        for (int k = 0; k < i; k++) {
            CHECK(place_of(old[k]) != place);
        }
    }
    for (int i = 0; i < CLIENTS; i++) {
        if (i % 2 == 0) {
            CHECK_INT(answer(old[i], "text"), HTTPSRV_OK);
            reply_by_hand(&c[i], "text");
            hang_up(&c[i]);
        } else {
            net_reset(&c[i]);
            TURN_UNTIL(&s, noticed == i / 2 + 1);
        }
    }
    for (int i = 0; i < CLIENTS; i++) {
        CHECK_INT(answer(old[i], "stale"), HTTPSRV_GONE);
        c[i] = dial(s.port);
        const httpsrv_token fresh = defer_by_hand(&c[i], i);
        for (int k = 0; k < CLIENTS; k++) {
            CHECK(place_of(old[k]) != place_of(fresh));
        }
    }
    dispose(&s);
    hang_up_all(c, CLIENTS);
}

// Places come back with the memory of requests, however many of these there were at a time.
TEST(places_are_used_again) {
    enum { CLIENTS = 150 };
    struct client c[CLIENTS];
    begin_by_hand(on_defer);
    for (int round = 0; round < 4; round++) {
        for (int i = 0; i < CLIENTS; i++) {
            c[i] = dial(s.port);
            defer_by_hand(&c[i], i % MOST);
        }
        CHECK_INT(s.srv->loops[0]->num_places, CLIENTS);
        for (int i = 0; i < CLIENTS; i++) {
            net_reset(&c[i]);
        }
        TURN_UNTIL(&s, metrics(&s).connections == 0);
    }
    dispose(&s);
}

// Worn-out or not, while it is deferred its token is as good as any.
TEST(posts_in_the_last_generation) {
    begin_by_hand(on_defer);
    struct client c = dial(s.port);
    serve_by_hand(&c);
    age_place(HSRV_GENERATIONS);
    httpsrv_token token = defer_by_hand(&c, 0);
    CHECK_INT(generation_of(token), HSRV_GENERATIONS);
    CHECK_INT(httpsrv_post(s.srv, token, on_count, &s), HTTPSRV_OK);
    TURN_UNTIL(&s, called == 1);
    CHECK_INT(answer(token, "text"), HTTPSRV_OK);
    reply_by_hand(&c, "text");
    CHECK_INT(httpsrv_post(s.srv, token, on_count, &s), HTTPSRV_OK);
    dispose(&s);
    CHECK_INT(nulls, 1);
    hang_up(&c);
}

// ---- races ----
//
// Melees: many requests, each of which can end in several ways at about the same time. Exactly one of them wins each time,
// everybody is told so, the client gets what the winner has said, and nothing is lost or run twice.

enum { LETTERS = 6000, MOST_FINISHERS = 4 };

// What became of a request, by its number. Counted by any thread.
struct record {
    httpsrv_token token;
    int started;                      // its handler ran
    int finished, replied, dismissed; // wins: of httpsrv_finish, of a reply, of the client's leaving or the time
    int posted, ran;                  // posted handlers: accepted, and run
    int received;                     // status that the client got; read once all is over
    char winner;                      // first letter of the body that it got
};

// Numbers of requests whose tokens are there, for each finisher: n + 1, or 0 while it is being written.
struct mailbox {
    int letters[LETTERS];
    int count;
};

struct melee {
    const char *name;
    int finishers;  // threads that finish each request
    int timeout_ms; // of the handler, at about which they do so
    bool posts;     // they also post handlers, some of which reply
    bool replies;   // the handler itself replies, too
    bool leaves;    // half of the clients do
};

static struct record records[LETTERS];
static struct mailbox mailboxes[MOST_FINISHERS];
static const struct melee *melee;
static int over; // nothing is mailed any more

// A random number below `bound` that depends on nothing but the request and what it is for.
enum purpose {
    TO_WATCH,
    TO_STAY,
    TO_WAIT,
    TO_LEND,
    TO_POST,
    TO_POST_AGAIN,
    TO_REPLY,
    TO_LEAVE,
    TO_PAIR,
    TO_STOP,
    PURPOSES
};

static uint32_t lot(int n, enum purpose purpose, uint32_t bound) {
    uint64_t h = ((uint64_t)n * PURPOSES + (uint64_t)purpose + 1) * 0x9e3779b97f4a7c15u;
    h = (h ^ h >> 31) * 0xbf58476d1ce4e5b9u;
    return (uint32_t)(h >> 33) % bound;
}

static void spin(uint32_t turns) {
    for (uint32_t i = 0; i < turns; i++) {
        __asm__ volatile("");
    }
}

static void mail(int n) {
    for (int i = 0; i < melee->finishers; i++) {
        const int at = __atomic_fetch_add(&mailboxes[i].count, 1, __ATOMIC_ACQ_REL);
        CHECK_CMP(at, <, LETTERS);
        STORE(mailboxes[i].letters[at], n + 1);
    }
}

// The next number; -1 at the end.
static int open_letter(struct mailbox *box, int at) {
    while (at < LETTERS && LOAD(box->letters[at]) == 0) {
        if (LOAD(over) && LOAD(box->count) <= at) return -1;
        sched_yield();
    }
    return at < LETTERS ? LOAD(box->letters[at]) - 1 : -1;
}

static void count_dismissed(void *arg) {
    COUNT(((struct record *)arg)->dismissed);
}

static void try_reply(httpsrv_req *req, struct record *r, const char *text) {
    const httpsrv_str body = {text, strlen(text)};
    const httpsrv_result result = httpsrv_reply(req, 200, "text/plain", body);
    CHECK(result == HTTPSRV_OK || result == HTTPSRV_GONE);
    if (result == HTTPSRV_OK) COUNT(r->replied);
}

static void on_melee(httpsrv_req *req, void *user) {
    const int n = (int)number_param(req, "n");
    struct record *r = &records[n];
    const bool first = lot(n, TO_WATCH, 2) == 0;
    (void)user;
    COUNT(r->started);
    if (first) CHECK_INT(httpsrv_on_gone(req, count_dismissed, r), HTTPSRV_OK);
    r->token = httpsrv_defer(req);
    CHECK(r->token.id != 0);
    mail(n);
    if (!first) CHECK_INT(httpsrv_on_gone(req, count_dismissed, r), HTTPSRV_OK);
    spin(lot(n, TO_STAY, 3000));
    if (melee->replies) try_reply(req, r, "reply");
}

static void on_melee_post(httpsrv_req *req, void *user) {
    struct record *r = (struct record *)user;
    COUNT(r->ran);
    if (req && lot((int)(r - records), TO_REPLY, 2) == 0) try_reply(req, r, "post");
}

static void melee_post(struct record *r) {
    COUNT(r->posted);
    CHECK_INT(httpsrv_post(s.srv, r->token, on_melee_post, r), HTTPSRV_OK);
}

static void melee_finish(struct record *r, bool lent) {
    httpsrv_answer a = {.status = 200, .type = "text/plain", .body = HTTPSRV_STR("finish")};
    if (lent) {
        COUNT(s.borrowed);
        a.release = count_release;
        a.release_arg = &s;
    }
    const httpsrv_result result = httpsrv_finish(s.srv, r->token, &a);
    CHECK(result == HTTPSRV_OK || result == HTTPSRV_GONE);
    if (result == HTTPSRV_OK) COUNT(r->finished);
}

// At about the time at which the reactor gives up, or soon.
static void wait_for_moment(int n) {
    if (melee->timeout_ms > 0) {
        const struct timespec t = {0, melee->timeout_ms * 1000000L / 2 + (long)lot(n, TO_WAIT, 1500000)};
        nanosleep(&t, NULL);
    }
    spin(lot(n, TO_WAIT, 2000));
}

static void *finisher(void *arg) {
    struct mailbox *box = (struct mailbox *)arg;
    const int self = (int)(box - mailboxes);
    for (int at = 0, n; (n = open_letter(box, at)) >= 0; at++) {
        struct record *r = &records[n];
        if (melee->timeout_ms == 0 || at % 8 == 0) wait_for_moment(n + self);
        if (melee->posts && lot(n, TO_POST, 4) > 0) melee_post(r);
        melee_finish(r, lot(n + self, TO_LEND, 2) == 0);
        if (melee->posts && lot(n, TO_POST_AGAIN, 2) == 0) melee_post(r);
    }
    return NULL;
}

static void begin_melee(const struct melee *row, pthread_t *threads) {
    melee = row;
    memset(records, 0, sizeof records);
    memset(mailboxes, 0, sizeof mailboxes);
    over = 0;
    begin(&(httpsrv_config){.timeout_ms.handler = row->timeout_ms});
    route("GET /m/:n", on_melee);
    run();
    NOTE("%s, %s", row->name, way->name);
    for (int i = 0; i < row->finishers; i++) {
        CHECK_INT(pthread_create(&threads[i], NULL, finisher, &mailboxes[i]), 0);
    }
}

// Once all handlers have returned; the server is there still.
static void end_finishers(const pthread_t *threads) {
    STORE(over, 1);
    for (int i = 0; i < melee->finishers; i++) {
        pthread_join(threads[i], NULL);
    }
}

static void check_record(int n) {
    const struct record *r = &records[n];
    NOTE("%s, %s, request %d: started %d, finished %d, replied %d, dismissed %d, received %d %c", melee->name,
         way->name, n, r->started, r->finished, r->replied, r->dismissed, r->received, r->winner ? r->winner : '-');
    CHECK_CMP(r->started, <=, 1);
    CHECK_INT(r->finished + r->replied + r->dismissed, r->started);
    CHECK_INT(r->ran, r->posted);
    if (r->received == 0 || (r->received == 503 && !r->started)) return; // no worker had time for it
    CHECK_INT(r->finished, r->received == 200 && r->winner == 'f');
    CHECK_INT(r->replied, r->received == 200 && r->winner != 'f');
    CHECK_INT(r->dismissed, r->received == 503);
}

static void check_melee(int count) {
    uint64_t wins = 0, late = 0;
    for (int n = 0; n < count; n++) {
        check_record(n);
        wins += (uint64_t)(records[n].finished + records[n].replied);
        late += records[n].received == 503;
    }
    NOTE("%s, %s", melee->name, way->name);
    CHECK_INT(s.last.items[HTTPSRV_LOG_HANDLER_TIMEOUT], s.last.answers[5]);
    CHECK_CMP(s.last.answers[2], <=, wins); // some of the clients had left
    CHECK_CMP(s.last.answers[5], >=, late);
    if (melee->leaves) return;
    CHECK_INT(s.last.answers[2], wins);
    CHECK_INT(s.last.answers[5], late);
}

static void melee_receive(struct client *c, int n) {
    REPLY(c);
    records[n].received = c->status;
    records[n].winner = c->status == 200 ? c->body[0] : 0;
}

enum { FIGHTERS = 16 };

// One round: each client sends a request or two, then some leave, and the others wait for their answers.
static int fight(struct client *c, int n) {
    int first[FIGHTERS + 1];
    for (int i = 0; i < FIGHTERS; i++) {
        if (c[i].fd < 0) c[i] = dial(s.port);
        first[i] = n;
        n += lot(n, TO_PAIR, 4) == 0 ? 2 : 1;
        for (int k = first[i]; k < n; k++) {
            SENDF(&c[i], "GET /m/%d HTTP/1.1\r\nHost: a\r\n\r\n", k);
        }
    }
    first[FIGHTERS] = n;
    for (int i = 0; i < FIGHTERS && melee->leaves; i++) {
        if (lot(first[i], TO_LEAVE, 2) > 0) continue;
        spin(lot(first[i], TO_LEAVE, 20000));
        net_reset(&c[i]);
    }
    for (int i = 0; i < FIGHTERS; i++) {
        for (int k = first[i]; k < first[i + 1] && c[i].fd >= 0; k++) {
            melee_receive(&c[i], k);
        }
    }
    return n;
}

static void run_melee(const struct melee *row) {
    struct client c[FIGHTERS];
    pthread_t threads[MOST_FINISHERS];
    int n = 0;
    begin_melee(row, threads);
    for (int i = 0; i < FIGHTERS; i++) {
        c[i] = dial(s.port);
    }
    while (n < ROUNDS(row->timeout_ms > 0 ? LETTERS / 6 : LETTERS / 2)) {
        n = fight(c, n);
    }
    hang_up_all(c, FIGHTERS);
    httpsrv_stop(s.srv);
    join_server(&s);
    end_finishers(threads);
    dispose(&s);
    check_melee(n);
}

#define MELEE_WAYS(id, step, ...)                                   \
    TEST_WAYS(id, step) {                                           \
        static const struct melee row = {.name = #id, __VA_ARGS__}; \
        run_melee(&row);                                            \
    }
#define MELEE(id, ...)          MELEE_WAYS(id, 1, __VA_ARGS__)
#define MELEE_TWO_WAYS(id, ...) MELEE_WAYS(id, 5, __VA_ARGS__)

MELEE(finish_against_the_return_of_the_handler, .finishers = 1)
MELEE(finish_against_finish, .finishers = 3)
MELEE(finish_against_reply, .finishers = 1, .replies = true)
MELEE(finish_against_reset, .finishers = 1, .leaves = true)
MELEE_TWO_WAYS(finish_against_time_out, .finishers = 1, .timeout_ms = 2)
MELEE(finish_against_post, .finishers = 2, .posts = true)
MELEE(finish_against_post_and_reset, .finishers = 2, .posts = true, .leaves = true)
MELEE(all_against_all, .finishers = 3, .posts = true, .leaves = true, .replies = true, .timeout_ms = 2)

// ---- the end of a server in the middle of a melee ----

static int next_number;

// Whether another answer has come.
static bool ask_in_melee(struct client *c) {
    char request[80];
    const int n = __atomic_fetch_add(&next_number, 1, __ATOMIC_ACQ_REL);
    if (n >= LETTERS) return false;
    const int len = snprintf(request, sizeof request, "GET /m/%d HTTP/1.1\r\nHost: a\r\n\r\n", n);
    if (net_send_some(c, request, (size_t)len, net_deadline()) < (size_t)len) return false;
    while (c->len - c->at < 4) {
        if (!net_receive(c, net_deadline())) return false;
    }
    net_reply(c, false);
    records[n].received = c->status;
    records[n].winner = c->body[0];
    return !c->close;
}

static void *melee_client(void *arg) {
    struct client *c = (struct client *)arg;
    while (ask_in_melee(c)) {
        continue;
    }
    hang_up(c);
    return NULL;
}

// Finishes at random whatever has ever been deferred, until just before the server is freed.
static void *late_finisher(void *arg) {
    struct mailbox *box = (struct mailbox *)arg;
    for (int i = 0; !LOAD(over); i++) {
        const int count = LOAD(box->count);
        if (count == 0) continue;
        const int letter = LOAD(box->letters[lot(i, TO_WAIT, (uint32_t)count)]);
        if (letter > 0 && i % 4) melee_finish(&records[letter - 1], i % 3 == 0);
        if (letter > 0 && i % 64 == 0) melee_post(&records[letter - 1]);
        sched_yield();
    }
    return NULL;
}

TEST_EACH_WAY(stop_and_free_against_finish) {
    enum { CLIENTS = 6 };
    static const struct melee row = {.name = "stop", .finishers = 3, .posts = true};
    for (int round = 0; round < ROUNDS(8); round++) {
        struct client c[CLIENTS];
        pthread_t threads[MOST_FINISHERS], clients[CLIENTS], late;
        begin_melee(&row, threads);
        STORE(next_number, 0);
        pthread_create(&late, NULL, late_finisher, &mailboxes[0]);
        for (int i = 0; i < CLIENTS; i++) {
            c[i] = dial(s.port);
            pthread_create(&clients[i], NULL, melee_client, &c[i]);
        }
        test_sleep((int)lot(round, TO_STAY, 12));
        httpsrv_stop(s.srv);
        if (lot(round, TO_STOP, 2) == 0) httpsrv_stop(s.srv);
        join_server(&s);
        for (int i = 0; i < CLIENTS; i++) {
            pthread_join(clients[i], NULL);
        }
        end_finishers(threads);
        pthread_join(late, NULL);
        dispose(&s);
        for (int n = 0; n < LETTERS; n++) {
            check_record(n);
        }
    }
}
