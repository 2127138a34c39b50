// What the owner and other threads do to a server while it begins, ends and begins again, what is left for whom then,
// and calls that come at the wrong time. Also built with ThreadSanitizer.

#ifndef TEST_LIFECYCLE_SEAM
#define TEST_LIFECYCLE_SEAM

#include "test.h"

// The one call that the tests have a hand in, see paused_eventfd_add(): httpsrv.h includes the end of this very file.
#define HTTPSRV_SEAM "tests/test_lifecycle.c"

#define HTTPSRV_IMPLEMENTATION
#include "../httpsrv.h"

#undef hsrv_sys_eventfd_add

#include "server.h"
#include "unix_dir.h"
#include <pthread.h>
#include <sched.h>
#include <sys/un.h>

static struct server s;

static void begin_thread(pthread_t *thread, void *(*fn)(void *), void *arg) {
    CHECK_INT(pthread_create(thread, NULL, fn, arg), 0);
}

// ---- the ways to run a server ----

struct life {
    const char *name;
    int reactors, acceptors;
    enum { BY_RUN, BY_JOIN, BY_POLL, BY_FREE } end; // what returns, because of httpsrv_stop
};

static const struct life lives[] = {
    {"run", 1, 0, BY_RUN},
    {"run with 3 reactors", 3, 0, BY_RUN},
    {"run with an acceptor", 2, 1, BY_RUN},
    {"start and join", 2, 0, BY_JOIN},
    {"poll", 1, 0, BY_POLL},
    {"start and free", 2, 0, BY_FREE},
};

static httpsrv_config config_of(const struct life *life) {
    NOTE("%s", life->name);
    return (httpsrv_config){.reactors = life->reactors, .acceptors = life->acceptors};
}

static void live_polled(void) {
    httpsrv_result result;
    do {
        result = httpsrv_poll(s.srv, -1);
    } while (result == HTTPSRV_OK);
    CHECK_INT(result, HTTPSRV_GONE);
}

// Waits for the end of a server that listens, or has been started. Somebody else stops it.
static void live(const struct life *life) {
    switch (life->end) {
    case BY_RUN: CHECK_INT(httpsrv_run(s.srv), HTTPSRV_OK); break;
    case BY_JOIN: CHECK_INT(httpsrv_join(s.srv), HTTPSRV_OK); break;
    case BY_POLL: live_polled(); break;
    case BY_FREE: break;
    }
}

// ---- httpsrv_stop on another thread, and httpsrv_free ----

static _Thread_local int pause_at; // the wake-up from now on, from 1, after which this thread is held up; 0: none
static int paused, freeing, freed; // the thread is; the owner calls httpsrv_free; that went through meanwhile

// As a scheduler may do: until the owner has had the time to free the server.
static void hold_up(void) {
    STORE(paused, 1);
    WAIT(LOAD(freeing));
    for (int i = 0; i < 40 && LOAD(s.blocks) > 0; i++) {
        test_sleep(1);
    }
    STORE(freed, LOAD(s.blocks) == 0);
}

static ssize_t paused_eventfd_add(int fd) {
    const ssize_t n = hsrv_sys_eventfd_add(fd);
    if (pause_at > 0 && --pause_at == 0) hold_up();
    return n;
}

// Is held up behind its last wake-up, when all that the server's end takes has been done.
static void *stop_slowly(void *arg) {
    const struct life *life = (const struct life *)arg;
    pause_at = life->reactors + life->acceptors;
    httpsrv_stop(s.srv);
    return NULL;
}

static void *stop_it(void *arg) {
    (void)arg;
    httpsrv_stop(s.srv);
    return NULL;
}

// The server is freed as soon as it has ended.
static void end_by_other_thread(const struct life *life, void *(*stop)(void *), bool held_up) {
    const httpsrv_config config = config_of(life);
    struct life copy = *life;
    pthread_t thread;
    paused = freeing = freed = 0;
    prepare(&s, &config);
    CHECK_INT(httpsrv_listen(s.srv), HTTPSRV_OK);
    if (life->end == BY_JOIN || life->end == BY_FREE) CHECK_INT(httpsrv_start(s.srv), HTTPSRV_OK);
    begin_thread(&thread, stop, &copy);
    live(life);
    if (held_up) WAIT(LOAD(paused));
    STORE(freeing, 1);
    httpsrv_free(s.srv);
    pthread_join(thread, NULL);
    CHECK(!freed); // under the feet of httpsrv_stop
    CHECK_INT(s.bytes, 0);
}

TEST(free_waits_for_stop) {
    for (size_t i = 0; i < ROWS(lives); i++)
        end_by_other_thread(&lives[i], stop_slowly, true);
}

// Here the thread is held up by chance alone; ThreadSanitizer sees what could happen. Who frees a server that runs has to
// know that nobody will stop it any more.
TEST(free_beside_stop) {
    for (int round = 0; round < TEST_FEWER(40, 4); round++) {
        for (size_t i = 0; i < ROWS(lives); i++) {
            if (lives[i].end != BY_FREE) end_by_other_thread(&lives[i], stop_it, false);
        }
    }
}

// ---- httpsrv_submit while httpsrv_listen makes the pool ----

enum stage { NOT_YET, LISTENS_SOON, LISTENS };

static int stage;              // enum stage
static int over;               // the other threads are to end
static int submissions, taken; // calls, and those that were OK
static int jobs;               // that have run

static void run_job(void *arg) {
    COUNT(*(int *)arg);
}

static void submit_once(void) {
    const int before = LOAD(stage);
    const httpsrv_result result = httpsrv_submit(s.srv, "default", run_job, &jobs);
    const int after = LOAD(stage);
    if (result == HTTPSRV_OK) COUNT(taken);
    COUNT(submissions);
    if (after == NOT_YET)
        CHECK_INT(result, HTTPSRV_ARG);
    else if (before == LISTENS)
        CHECK(result == HTTPSRV_OK || result == HTTPSRV_FULL);
    else
        CHECK(result == HTTPSRV_OK || result == HTTPSRV_FULL || result == HTTPSRV_ARG);
}

static void *submit_all_the_while(void *arg) {
    (void)arg;
    while (!LOAD(over)) {
        submit_once();
        sched_yield();
    }
    return NULL;
}

static void check_more_submissions(void) {
    const int before = LOAD(submissions);
    WAIT(LOAD(submissions) > before + 1);
}

// The pool appears at some instant in between. That others may look at it then is what ThreadSanitizer finds out.
static void submit_beside_listen(const httpsrv_config *config) {
    pthread_t thread;
    stage = over = submissions = taken = jobs = 0;
    prepare(&s, config);
    route_all(&s, "", "default");
    begin_thread(&thread, submit_all_the_while, NULL);
    check_more_submissions();
    STORE(stage, LISTENS_SOON);
    CHECK_INT(httpsrv_listen(s.srv), HTTPSRV_OK);
    STORE(stage, LISTENS);
    check_more_submissions();
    STORE(over, 1);
    pthread_join(thread, NULL);
    CHECK_CMP(taken, >, 0);
    dispose(&s);
    CHECK_INT(jobs, taken);
}

TEST(submit_beside_listen) {
    for (int round = 0; round < TEST_FEWER(30, 5); round++) {
        submit_beside_listen(&(httpsrv_config){0});
        submit_beside_listen(&(httpsrv_config){.pools = {{.name = "other", .threads = 1}}});
    }
}

// ---- max.memory: what is refused counts for nobody ----

enum { BUDGET = 64 << 20 };

static int refused;

// Asks for far more than there is, over and over.
static void *ask_for_much(void *arg) {
    const httpsrv_token token = *(const httpsrv_token *)arg;
    const httpsrv_answer answer = {.status = 200, .body = {blob, (size_t)16 * BUDGET}};
    while (!LOAD(over)) {
        CHECK_INT(httpsrv_finish(s.srv, token, &answer), HTTPSRV_NOMEM);
        COUNT(refused);
    }
    return NULL;
}

// A body that is waited for takes memory.
static void ask_for_little(struct client *c) {
    const char head[] = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n";
    send_seen(&s, c, head, strlen(head));
    net_send(c, blob, 1000);
    REPLY(c);
    check_blob(c, 1000);
}

static void check_little_is_granted(void) {
    const httpsrv_event event = {.data = HTTPSRV_STR("tick")};
    struct client c = dial(s.port);
    for (int i = 0; i < 20; i++) {
        for (int k = 0; k < TEST_FEWER(1000, 5); k++)
            CHECK_INT(httpsrv_sse_publish(s.srv, "nobody", &event), HTTPSRV_OK);
        ask_for_little(&c);
    }
    hang_up(&c);
}

TEST(refused_memory_is_nobodys) {
    enum { GREEDY = 2 };
    pthread_t threads[GREEDY];
    struct client c[GREEDY];
    over = refused = 0;
    prepare(&s, &(httpsrv_config){.max.connections = 100, .max.memory = BUDGET});
    route_all(&s, "", NULL);
    CHECK_INT(httpsrv_on(s.srv, "GET /d/:n", on_defer, &s), HTTPSRV_OK);
    go(&s);
    for (int i = 0; i < GREEDY; i++) {
        c[i] = dial(s.port);
        defer_number(&s, &c[i], i);
        begin_thread(&threads[i], ask_for_much, &numbered_tokens[i]);
    }
    WAIT(LOAD(refused) > 0);
    check_little_is_granted();
    STORE(over, 1);
    for (int i = 0; i < GREEDY; i++) {
        pthread_join(threads[i], NULL);
        CHECK_INT(httpsrv_finish(s.srv, token_of(i), &(httpsrv_answer){.status = 200}), HTTPSRV_OK);
        EXPECT(&c[i], 200, "");
    }
    hang_up_all(c, GREEDY);
    CHECK_INT(metrics(&s).items[HTTPSRV_LOG_NO_MEMORY], 0);
    finish(&s);
}

// ---- answers in pieces that are no streams of events ----

// Who makes them.
struct way {
    const char *name, *pool;
    bool stays; // the handler writes the rest, too; else a handler does that is posted
};

static const struct way ways[] = {
    {"inline", NULL, false}, {"by a worker", "work", false}, {"on a worker", "work", true}};
static const struct way *way;

#define TEST_EACH_WAY(id) TEST_WAYS(id, true)

static int noticed, done, delivered; // calls of on_gone's and on_done's functions, and the latter's good news

static void note_gone(void *arg) {
    (void)arg;
    COUNT(noticed);
}

static void note_outcome(const httpsrv_outcome *outcome, void *arg) {
    (void)arg;
    if (outcome->delivered) COUNT(delivered);
    COUNT(done);
}

// Nobody waits for it any more if the client has left meanwhile.
static void write_rest(httpsrv_req *req) {
    const httpsrv_result expected = LOAD(noticed) ? HTTPSRV_GONE : HTTPSRV_OK;
    CHECK_INT(httpsrv_write(req, HTTPSRV_STR("two")), expected);
    CHECK_INT(httpsrv_end(req), expected);
    COUNT(s.left);
}

static void on_rest(httpsrv_req *req, void *user) {
    CHECK(user == &s);
    if (req)
        write_rest(req);
    else
        COUNT(s.left);
}

static void watch(httpsrv_req *req) {
    CHECK_INT(httpsrv_on_gone(req, note_gone, NULL), HTTPSRV_OK);
    CHECK_INT(httpsrv_on_done(req, note_outcome, NULL), HTTPSRV_OK);
}

static void on_pieces(httpsrv_req *req, void *user) {
    watch(req);
    CHECK_INT(httpsrv_begin(req, 200, "text/plain", -1), HTTPSRV_OK);
    const httpsrv_token token = httpsrv_defer(req);
    CHECK(token.id != 0);
    CHECK_INT(httpsrv_write(req, HTTPSRV_STR("one ")), HTTPSRV_OK);
    keep_token((struct server *)user, number_param(req, "n"), token);
    if (!way->stays) return;
    while (!LOAD(s.gate)) {
        test_sleep(1);
    }
    write_rest(req);
}

static void on_events(httpsrv_req *req, void *user) {
    const httpsrv_token token = httpsrv_sse_begin(req, "news");
    CHECK(token.id != 0);
    keep_token((struct server *)user, number_param(req, "n"), token);
}

// A request that is deferred, and becomes a stream of events then.
static void on_turn_into_events(httpsrv_req *req, void *user) {
    (void)user;
    const httpsrv_token before = httpsrv_defer(req), token = httpsrv_sse_begin(req, NULL);
    CHECK(before.id == token.id);
    COUNT(s.left);
}

static void route(const char *pattern, httpsrv_handler handler) {
    httpsrv_route_config config = {.pattern = pattern, .handler = handler, .user = &s, .pool = way->pool};
    CHECK_INT(httpsrv_route(s.srv, &config), HTTPSRV_OK);
}

static void serve_pieces(void) {
    NOTE("%s", way->name);
    noticed = done = delivered = 0;
    prepare(&s, &(httpsrv_config){.pools = {{.name = "work", .threads = 2}}});
    route("GET /pieces/:n", on_pieces);
    route("GET /events/:n", on_events);
    route("GET /d/:n", on_defer);
    route("GET /hello", on_hello);
    go(&s);
}

// Sends a request and waits for its token.
static httpsrv_token token_for(struct client *c, const char *path, int n) {
    const int before = LOAD(s.arrived);
    SENDF(c, "GET %s/%d HTTP/1.1\r\nHost: a\r\n\r\n", path, n);
    WAIT(LOAD(s.arrived) == before + 1);
    return token_of(n);
}

// Takes the token for one of a stream of events.
static void try_as_events(httpsrv_token token, httpsrv_result expected) {
    const httpsrv_event event = {.data = HTTPSRV_STR("x")};
    CHECK_INT(httpsrv_sse_send(s.srv, token, &event), expected);
    CHECK_INT(httpsrv_sse_end(s.srv, token), expected);
}

static void go_on(httpsrv_token token) {
    if (way->stays)
        STORE(s.gate, 1);
    else
        CHECK_INT(httpsrv_post(s.srv, token, on_rest, &s), HTTPSRV_OK);
}

TEST_EACH_WAY(events_to_an_answer_in_pieces) {
    serve_pieces();
    struct client c = dial(s.port);
    const httpsrv_token token = token_for(&c, "/pieces", 0);
    for (int i = 0; i < 3; i++)
        try_as_events(token, HTTPSRV_STATE);
    go_on(token);
    EXPECT(&c, 200, "one two");
    WAIT(LOAD(done) == 1);
    try_as_events(token, HTTPSRV_GONE);
    GET(&c, "/hello");
    EXPECT(&c, 200, HELLO);
    hang_up(&c);
    finish(&s);
    CHECK_INT(delivered, 1);
    CHECK_INT(noticed, 0);
}

TEST_EACH_WAY(events_to_an_answer_in_pieces_whose_client_leaves) {
    serve_pieces();
    struct client c = dial(s.port);
    const httpsrv_token token = token_for(&c, "/pieces", 0);
    try_as_events(token, HTTPSRV_STATE);
    net_reset(&c);
    WAIT(LOAD(noticed) == 1);
    try_as_events(token, HTTPSRV_GONE);
    go_on(token);
    WAIT(LOAD(s.left) == 1 && LOAD(done) == 1);
    finish(&s);
    CHECK_INT(delivered, 0);
    CHECK_INT(noticed, 1);
}

static void tell(httpsrv_token token, const char *data) {
    const httpsrv_event event = {.data = {data, strlen(data)}};
    CHECK_INT(httpsrv_sse_send(s.srv, token, &event), HTTPSRV_OK);
}

static httpsrv_token check_events(struct client *c, int n) {
    const httpsrv_token token = token_for(c, "/events", n);
    tell(token, "x");
    CHECK_INT(httpsrv_sse_end(s.srv, token), HTTPSRV_OK);
    EXPECT(c, 200, "data: x\n\n");
    try_as_events(token, HTTPSRV_GONE);
    return token;
}

static httpsrv_token check_pieces(struct client *c, int n) {
    const httpsrv_token token = token_for(c, "/pieces", n);
    try_as_events(token, HTTPSRV_STATE);
    go_on(token);
    EXPECT(c, 200, "one two");
    STORE(s.gate, 0);
    try_as_events(token, HTTPSRV_GONE);
    return token;
}

static httpsrv_token check_deferred(struct client *c, int n) {
    const httpsrv_token token = defer_number(&s, c, n);
    try_as_events(token, HTTPSRV_STATE);
    CHECK_INT(httpsrv_finish(s.srv, token, &(httpsrv_answer){.status = 204}), HTTPSRV_OK);
    EXPECT(c, 204, "");
    try_as_events(token, HTTPSRV_GONE);
    return token;
}

// Requests of all kinds follow each other in one place, and none is taken for another one.
TEST_EACH_WAY(events_where_a_place_is_used_again) {
    static httpsrv_token (*const kinds[])(struct client *, int) = {check_events, check_pieces, check_deferred};
    httpsrv_token tokens[4 * ROWS(kinds) * ROWS(kinds)];
    serve_pieces();
    struct client c = dial(s.port);
    for (int i = 0; i < (int)ROWS(tokens); i++) {
        const int kind = i % 2 ? i / 2 % 3 : i / 6 % 3; // each behind each
        tokens[i] = kinds[kind](&c, i);
        CHECK_INT((uint32_t)tokens[i].id, (uint32_t)tokens[0].id);
        for (int k = 0; k < i; k++)
            try_as_events(tokens[k], HTTPSRV_GONE);
    }
    hang_up(&c);
    finish(&s);
    CHECK_INT(delivered, done);
}

TEST_EACH_WAY(events_of_a_request_that_was_deferred_first) {
    serve_pieces();
    struct client c = dial(s.port);
    const httpsrv_token token = defer_number(&s, &c, 0);
    try_as_events(token, HTTPSRV_STATE);
    CHECK_INT(httpsrv_post(s.srv, token, on_turn_into_events, &s), HTTPSRV_OK);
    WAIT(LOAD(s.left) == 1);
    tell(token, "one");
    tell(token, "two");
    CHECK_INT(httpsrv_sse_end(s.srv, token), HTTPSRV_OK);
    EXPECT(&c, 200, "data: one\n\ndata: two\n\n");
    hang_up(&c);
    finish(&s);
}

// ---- the file of a Unix socket that changes hands ----

static struct client dial_unix(void) {
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    struct client c = net_client(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    snprintf(to.sun_path, sizeof to.sun_path, "%s", unix_file);
    if (connect(c.fd, (struct sockaddr *)&to, sizeof to) != 0) FAIL("cannot connect: %s", strerror(errno));
    fcntl(c.fd, F_SETFL, fcntl(c.fd, F_GETFL) | O_NONBLOCK);
    return c;
}

// Which server answers there: each says how many requests it had.
static void check_unix_serves(struct server *owner) {
    const int before = LOAD(owner->handled);
    struct client c = dial_unix();
    GET(&c, "/hello");
    EXPECT(&c, 200, HELLO);
    hang_up(&c);
    CHECK_INT(LOAD(owner->handled), before + 1);
}

static void serve_unix(struct server *server, const struct life *life) {
    httpsrv_config config = config_of(life);
    config.listen[0] = "127.0.0.1:0";
    config.listen[1] = unix_path;
    prepare(server, &config);
    route_all(server, "", NULL);
    if (life->end == BY_POLL)
        go_polled(server);
    else
        go(server);
}

static void stop_and_join(struct server *server) {
    httpsrv_stop(server->srv);
    join_server(server);
}

static void end_unix(struct server *server, const struct life *life) {
    if (life->end != BY_FREE) stop_and_join(server);
    httpsrv_free(server->srv);
    CHECK_INT(server->bytes, 0);
}

#define CHECK_NO_FILE() CHECK(access(unix_file, F_OK) != 0 && errno == ENOENT)

// A listens, its file is removed, B listens at the same path, A ends.
TEST(unix_file_is_the_successors) {
    struct server a, b;
    for (size_t i = 0; i < ROWS(lives); i++) {
        make_dir();
        serve_unix(&a, &lives[i]);
        check_unix_serves(&a);
        CHECK_INT(unlink(unix_file), 0);
        serve_unix(&b, &lives[i]);
        check_unix_serves(&b);
        end_unix(&a, &lives[i]);
        check_unix_serves(&b);
        end_unix(&b, &lives[i]);
        CHECK_NO_FILE();
        remove_dir();
    }
}

// B ends first: A takes nothing with it then, and may have the path again.
TEST(unix_file_of_a_successor_that_ends_first) {
    struct server a, b;
    make_dir();
    serve_unix(&a, &lives[0]);
    CHECK_INT(unlink(unix_file), 0);
    serve_unix(&b, &lives[0]);
    end_unix(&b, &lives[0]);
    CHECK_NO_FILE();
    stop_and_join(&a);
    CHECK_NO_FILE();
    go(&a);
    check_unix_serves(&a);
    finish(&a);
    CHECK_NO_FILE();
    remove_dir();
}

// The same server takes a path back that it has lost, and so loses nothing of what it owns.
TEST(unix_file_taken_back) {
    struct server a, b;
    make_dir();
    serve_unix(&a, &lives[0]);
    CHECK_INT(unlink(unix_file), 0);
    serve_unix(&b, &lives[0]);
    stop_and_join(&a);
    CHECK_INT(unlink(unix_file), 0);
    go(&a);
    check_unix_serves(&a);
    finish(&b);
    check_unix_serves(&a);
    finish(&a);
    CHECK_NO_FILE();
    remove_dir();
}

static void replace_file(void) {
    CHECK_INT(unlink(unix_file), 0);
    const int fd = open(unix_file, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
    CHECK_INT(write(fd, "precious", 8), 8);
    close(fd);
}

static void check_replaced_file(void) {
    char text[9] = "";
    const int fd = open(unix_file, O_RDONLY | O_CLOEXEC);
    if (fd < 0) FAIL("%s: %s", unix_file, strerror(errno));
    CHECK_INT(read(fd, text, 8), 8);
    CHECK_STR(text, "precious");
    close(fd);
    CHECK_INT(unlink(unix_file), 0);
}

TEST(unix_file_is_none_any_more) {
    struct server a;
    for (size_t i = 0; i < ROWS(lives); i++) {
        make_dir();
        serve_unix(&a, &lives[i]);
        replace_file();
        end_unix(&a, &lives[i]);
        check_replaced_file();
        remove_dir();
    }
}

// ---- the numbers of a drain ----

// One request is finished while the server drains, two are cut, one of these with a worker that is stuck.
static void drain_with_losses(void) {
    struct client c[3];
    for (int i = 0; i < 3; i++)
        c[i] = dial(s.port);
    const httpsrv_token token = defer_number(&s, &c[0], 0);
    defer_number(&s, &c[1], 1);
    GET(&c[2], "/pool/gate");
    WAIT(LOAD(s.arrived) == 3);
    httpsrv_stop(s.srv);
    WAIT(metrics(&s).items[HTTPSRV_LOG_DRAINING] > 0);
    CHECK_INT(httpsrv_finish(s.srv, token, &(httpsrv_answer){.status = 200}), HTTPSRV_OK);
    EXPECT(&c[0], 200, "");
    httpsrv_stop(s.srv);
    CHECK_INT(httpsrv_join(s.srv), HTTPSRV_OK);
    hang_up_all(c, 3);
}

static void check_drain(uint64_t finished, uint64_t cut, uint64_t stuck) {
    const httpsrv_metrics m = metrics(&s);
    CHECK_INT(m.drain_finished, finished);
    CHECK_INT(m.drain_cut, cut);
    CHECK_INT(m.drain_stuck, stuck);
}

// A server that is stopped before it runs.
static void drain_at_once(const struct life *life, bool listens_first) {
    if (listens_first) CHECK_INT(httpsrv_listen(s.srv), HTTPSRV_OK);
    httpsrv_stop(s.srv);
    if (life->end == BY_POLL && !listens_first) CHECK_INT(httpsrv_listen(s.srv), HTTPSRV_OK);
    if (life->end == BY_JOIN) CHECK_INT(httpsrv_start(s.srv), HTTPSRV_OK);
    live(life);
}

static void check_drain_at_once(const struct life *life, bool listens_first) {
    httpsrv_config config = config_of(life);
    config.timeout_ms.drain = -1; // until it is stopped a second time
    config.pools[0] = (httpsrv_pool_config){.name = "work", .threads = 1};
    prepare(&s, &config);
    route_all(&s, "/pool", "work");
    CHECK_INT(httpsrv_on(s.srv, "GET /d/:n", on_defer, &s), HTTPSRV_OK);
    go(&s);
    drain_with_losses();
    check_drain(1, 2, 1);
    STORE(s.gate, 1);
    WAIT(LOAD(s.left) == 1 && LOAD(s.released) == 1);
    drain_at_once(life, listens_first);
    check_drain(0, 0, 0);
    dispose(&s);
}

TEST(drain_before_the_run_has_numbers_of_its_own) {
    for (size_t i = 0; i < ROWS(lives); i++) {
        if (lives[i].end == BY_FREE) continue;
        check_drain_at_once(&lives[i], false);
        check_drain_at_once(&lives[i], true);
    }
}

// ---- events while nobody is there ----

static httpsrv_result publish(const char *data) {
    const httpsrv_event event = {.data = {data, strlen(data)}};
    return httpsrv_sse_publish(s.srv, "news", &event);
}

static void check_publish_refused(void) {
    const uint64_t before = metrics(&s).memory;
    for (int i = 0; i < 1000; i++)
        CHECK_INT(publish("lost"), HTTPSRV_STATE);
    CHECK_INT(metrics(&s).memory, before);
}

// Only what is published while it listens comes to the one who listens.
static void check_publish(const struct life *life) {
    const int before = LOAD(s.arrived);
    if (life->end == BY_POLL)
        go_polled(&s);
    else
        go(&s);
    CHECK_INT(publish("for nobody"), HTTPSRV_OK);
    struct client c = dial(s.port);
    GET(&c, "/events/0");
    net_read_head(&c); // by then it has joined the channel
    WAIT(LOAD(s.arrived) == before + 1);
    CHECK_INT(publish("x"), HTTPSRV_OK);
    const size_t at = net_until(&c, "data: x\n\n", 100);
    CHECK(memmem(c.buf + c.at, at, "data", 4) == NULL); // nor anything before
    stop_and_join(&s);
    hang_up(&c);
}

TEST(publish_only_while_it_listens) {
    for (size_t i = 0; i < ROWS(lives); i++) {
        if (lives[i].end == BY_FREE) continue;
        const httpsrv_config config = config_of(&lives[i]);
        prepare(&s, &config);
        CHECK_INT(httpsrv_on(s.srv, "GET /events/:n", on_events, &s), HTTPSRV_OK);
        check_publish_refused();
        for (int round = 0; round < 3; round++) {
            check_publish(&lives[i]);
            check_publish_refused();
        }
        dispose(&s);
    }
}

// It never listens, so that nobody would ever take the events.
TEST(publish_where_listening_fails) {
    struct server other;
    char address[32];
    serve(&other, &(httpsrv_config){0});
    snprintf(address, sizeof address, "127.0.0.1:%d", other.port);
    prepare(&s, &(httpsrv_config){.listen = {address}});
    CHECK_INT(httpsrv_listen(s.srv), HTTPSRV_SYS);
    check_publish_refused();
    dispose(&s);
    finish(&other);
}

TEST(publish_between_listen_and_run) {
    const httpsrv_config config = config_of(&lives[0]);
    prepare(&s, &config);
    for (int round = 0; round < 3; round++) {
        CHECK_INT(httpsrv_listen(s.srv), HTTPSRV_OK);
        CHECK_INT(publish("x"), HTTPSRV_OK);
        httpsrv_stop(s.srv);
        CHECK_INT(httpsrv_run(s.srv), HTTPSRV_OK);
        check_publish_refused();
    }
    dispose(&s);
}

static int published[2]; // refused, and OK

static void *publish_all_the_while(void *arg) {
    (void)arg;
    while (!LOAD(over)) {
        const httpsrv_result result = publish("tick");
        CHECK(result == HTTPSRV_OK || result == HTTPSRV_STATE);
        COUNT(published[result == HTTPSRV_OK]);
        sched_yield();
    }
    return NULL;
}

// From another thread, while the server comes and goes.
TEST(publish_all_the_while) {
    pthread_t thread;
    over = published[0] = published[1] = 0;
    prepare(&s, &(httpsrv_config){.reactors = 2});
    begin_thread(&thread, publish_all_the_while, NULL);
    for (int round = 0; round < TEST_FEWER(60, 4); round++) {
        const int refusals = LOAD(published[0]), successes = LOAD(published[1]);
        WAIT(LOAD(published[0]) > refusals);
        go(&s);
        WAIT(LOAD(published[1]) > successes);
        stop_and_join(&s);
    }
    STORE(over, 1);
    pthread_join(thread, NULL);
    dispose(&s);
}

// ---- a descriptor that is named twice ----

static int listen_tcp(int *port) {
    struct sockaddr_storage address;
    socklen_t len = net_address(&address, "127.0.0.1", 0);
    const int fd = net_socket(AF_INET);
    CHECK_INT(bind(fd, (struct sockaddr *)&address, len), 0);
    CHECK_INT(listen(fd, 10), 0);
    CHECK_INT(getsockname(fd, (struct sockaddr *)&address, &len), 0);
    *port = ntohs(((struct sockaddr_in *)&address)->sin_port);
    return fd;
}

static void check_named_twice(const httpsrv_config *given, const char *name) {
    static struct server refusing;
    httpsrv_config config = *given;
    NOTE("%s, %s, %s", config.listen[0], config.listen[1], config.listen[2] ? config.listen[2] : "nothing");
    memset(&refusing, 0, sizeof refusing);
    config.allocator.fn = counting_realloc;
    config.allocator.user = &refusing;
    httpsrv *srv = httpsrv_new(&config);
    CHECK_INT(httpsrv_listen(srv), HTTPSRV_ARG);
    CHECK_HAS(httpsrv_error(srv), name);
    CHECK_INT(httpsrv_run(srv), HTTPSRV_ARG);
    httpsrv_free(srv);
    CHECK_INT(refusing.bytes, 0);
}

// It is as it was, and who calls there comes to it.
static void check_untouched(int fd, int port, int flags) {
    struct client c = dial(port);
    CHECK_INT(fcntl(fd, F_GETFD), 0);
    CHECK_INT(fcntl(fd, F_GETFL), flags);
    const int accepted = accept(fd, NULL, NULL);
    CHECK_CMP(accepted, >=, 0);
    close(accepted);
    hang_up(&c);
}

TEST(inherited_descriptor_named_twice) {
    int port;
    char name[16];
    const int fd = listen_tcp(&port), flags = fcntl(fd, F_GETFL);
    CHECK_INT(fcntl(fd, F_SETFD, 0), 0);
    snprintf(name, sizeof name, "fd:%d", fd);
    check_named_twice(&(httpsrv_config){.listen = {name, name}}, name);
    check_untouched(fd, port, flags);
    check_named_twice(&(httpsrv_config){.listen = {name, "127.0.0.1:0", name}, .reactors = 2}, name);
    check_untouched(fd, port, flags);
    serve(&s, &(httpsrv_config){.listen = {name}});
    check_alive(&s);
    finish(&s);
    CHECK(fcntl(fd, F_GETFD) < 0 && errno == EBADF); // once it was the server's, that closes it
}

// What systemd passes on is inherited, too.
TEST(descriptor_of_systemd_named_twice) {
    int port;
    char pid[16];
    const int fd = listen_tcp(&port), flags = fcntl(fd, F_GETFL);
    if (fd != 3) CHECK_INT(dup2(fd, 3), 3); // the number that it begins with
    CHECK_INT(fcntl(3, F_SETFD, 0), 0);
    snprintf(pid, sizeof pid, "%d", (int)getpid());
    setenv("LISTEN_PID", pid, 1);
    setenv("LISTEN_FDS", "1", 1);
    check_named_twice(&(httpsrv_config){.listen = {"systemd", "fd:3"}}, "fd:3");
    check_named_twice(&(httpsrv_config){.listen = {"fd:3", "systemd"}}, "fd:3");
    check_named_twice(&(httpsrv_config){.listen = {"systemd", "systemd"}}, "fd:3");
    check_untouched(3, port, flags);
}

// ---- forms and filters ----

#define URLENCODED "application/x-www-form-urlencoded"
#define MULTIPART  "multipart/form-data; boundary=b"
#define PART(name) "--b\r\nContent-Disposition: form-data; name=" name "\r\n\r\n"

static const struct form {
    const char *type, *body;
} forms[] = {{URLENCODED, "a=1&b=%74wo"}, {MULTIPART, PART("a") "1\r\n" PART("b") "two\r\n--b--\r\n"}};

static void copy_field(httpsrv_req *req, const char *name, char out[32]) {
    const httpsrv_str value = httpsrv_form_field(req, name);
    if (value.ptr)
        snprintf(out, 32, "%.*s", HTTPSRV_FMT(value));
    else
        strcpy(out, "absent");
}

// The filters tell what they have got in fields of the answer.
static httpsrv_verdict filter_by_field(httpsrv_req *req, void *user) {
    char text[32];
    (void)user;
    copy_field(req, "a", text);
    CHECK_INT(httpsrv_set(req, "X-Field", (httpsrv_str){text, strlen(text)}), HTTPSRV_OK);
    return HTTPSRV_NEXT;
}

static httpsrv_verdict filter_by_form(httpsrv_req *req, void *user) {
    httpsrv_form_data form;
    (void)user;
    const httpsrv_result result = httpsrv_read_form(req, NULL, &form);
    const char *text = httpsrv_result_text(result);
    if (result == HTTPSRV_OK && form.num_parts > 0) CHECK_VIEW(form.parts[0].data, "1");
    CHECK_INT(httpsrv_set(req, "X-Form", (httpsrv_str){text, strlen(text)}), HTTPSRV_OK);
    return HTTPSRV_NEXT;
}

// Answers with the result of reading the form, the number of its parts, and two fields.
static void on_form(httpsrv_req *req, void *user) {
    httpsrv_form_data form = {NULL, 0};
    char a[32], b[32];
    (void)user;
    const httpsrv_result result = httpsrv_read_form(req, NULL, &form);
    copy_field(req, "a", a);
    copy_field(req, "b", b);
    httpsrv_replyf(req, 200, "text/plain", "%s: %d, %s, %s", httpsrv_result_text(result), result ? 0 : form.num_parts,
                   a, b);
}

static void serve_forms(void) {
    prepare(&s, &(httpsrv_config){.pools = {{.name = "work", .threads = 1}}});
    CHECK_INT(httpsrv_use(s.srv, "/field", filter_by_field, NULL), HTTPSRV_OK);
    CHECK_INT(httpsrv_use(s.srv, "/form", filter_by_form, NULL), HTTPSRV_OK);
    CHECK_INT(httpsrv_use(s.srv, "/both", filter_by_form, NULL), HTTPSRV_OK);
    CHECK_INT(httpsrv_use(s.srv, "/both", filter_by_field, NULL), HTTPSRV_OK);
    CHECK_INT(httpsrv_on(s.srv, "* /:filter/inline", on_form, NULL), HTTPSRV_OK);
    httpsrv_route_config config = {.pattern = "* /:filter/pool", .handler = on_form, .pool = "work"};
    CHECK_INT(httpsrv_route(s.srv, &config), HTTPSRV_OK);
    go(&s);
}

enum sending { AT_ONCE, HEAD_FIRST, BYTES, CHUNKED, SENDINGS };

static void send_chunks(struct client *c, const char *target, const struct form *form) {
    SENDF(c, "POST %s HTTP/1.1\r\nHost: a\r\nContent-Type: %s\r\nTransfer-Encoding: chunked\r\n\r\n", target,
          form->type);
    for (const char *at = form->body; *at; at++)
        SENDF(c, "1\r\n%c\r\n", *at);
    SEND(c, "0\r\n\r\n");
}

static void send_form(struct client *c, const char *target, const struct form *form, enum sending how) {
    char text[500];
    const size_t len = strlen(form->body);
    const int head =
        snprintf(text, sizeof text, "POST %s HTTP/1.1\r\nHost: a\r\nContent-Type: %s\r\nContent-Length: %zu\r\n\r\n",
                 target, form->type, len);
    NOTE("%s, %s, sent in way %d", target, form->type, (int)how);
    if (how == CHUNKED) {
        send_chunks(c, target, form);
        return;
    }
    memcpy(text + head, form->body, len);
    if (how == HEAD_FIRST) send_seen(&s, c, text, (size_t)head);
    if (how == BYTES) net_send_split(c, text, (size_t)head, 20);
    const size_t at = how == AT_ONCE ? 0 : (size_t)head;
    net_send(c, text + at, (size_t)head + len - at);
}

#define SUCCESS "success"
#define STATE   "not possible in this state"
#define WHOLE   SUCCESS ": 2, 1, two"
#define READ    STATE ": 0, 1, two" // somebody else was the first, and the handler takes fields from that
#define NOTHING ": 0, absent, absent"

struct expectation {
    const char *target;
    const char *form, *field; // what the filter gets of httpsrv_read_form and httpsrv_form_field; NULL: it does not ask
    const char *body;
};

static void check_form(struct client *c, const struct expectation *e, const struct form *form) {
    for (int how = 0; how < SENDINGS; how++) {
        send_form(c, e->target, form, (enum sending)how);
        EXPECT(c, 200, e->body);
        CHECK_STR(field(c, "X-Form"), e->form);
        CHECK_STR(field(c, "X-Field"), e->field);
    }
}

// A filter of an inline route runs before the body is there, and changes nothing for the handler. On a worker it is
// there, and who reads it first has it.
TEST(forms_in_filters) {
    static const struct expectation rows[] = {
        {"/none/inline", NULL, NULL, WHOLE},  {"/field/inline", NULL, "absent", WHOLE},
        {"/form/inline", STATE, NULL, WHOLE}, {"/both/inline", STATE, "absent", WHOLE},
        {"/none/pool", NULL, NULL, WHOLE},    {"/field/pool", NULL, "1", READ},
        {"/form/pool", SUCCESS, NULL, READ},  {"/both/pool", SUCCESS, "1", READ},
    };
    serve_forms();
    struct client c = dial(s.port);
    for (size_t i = 0; i < ROWS(rows); i++) {
        for (size_t k = 0; k < ROWS(forms); k++)
            check_form(&c, &rows[i], &forms[k]);
    }
    hang_up(&c);
    finish(&s);
}

// The handler gets what there is, unless a filter on a worker has got that already.
static void check_no_form(const char *target, const char *method, const char *type, const char *result) {
    char expected[80];
    struct client c = dial(s.port);
    NOTE("%s %s, %s", method, target, type);
    SENDF(&c, "%s %s HTTP/1.1\r\nHost: a\r\n%s%s\r\n", method, target, type,
          strcmp(method, "POST") == 0 ? "Content-Length: 0\r\n" : "");
    REPLY(&c);
    const char *form = field(&c, "X-Form");
    const bool first = strstr(target, "/pool") && (form || field(&c, "X-Field"));
    if (form) CHECK_STR(form, first ? result : STATE);
    if (field(&c, "X-Field")) CHECK_STR(field(&c, "X-Field"), "absent");
    snprintf(expected, sizeof expected, "%s" NOTHING, first ? STATE : result);
    CHECK_MEM(c.body, c.body_len, expected, strlen(expected));
    hang_up(&c);
}

// Also where the head says that there is no body.
TEST(forms_in_filters_without_a_body) {
    static const char *const targets[] = {"/none/inline", "/field/inline", "/form/inline", "/both/inline",
                                          "/none/pool",   "/field/pool",   "/form/pool",   "/both/pool"};
    const char *malformed = httpsrv_result_text(HTTPSRV_SYNTAX), *neither = httpsrv_result_text(HTTPSRV_UNSUPPORTED);
    serve_forms();
    for (size_t i = 0; i < ROWS(targets); i++) {
        check_no_form(targets[i], "POST", "Content-Type: " URLENCODED "\r\n", SUCCESS);
        check_no_form(targets[i], "POST", "Content-Type: " MULTIPART "\r\n", malformed);
        check_no_form(targets[i], "POST", "", neither);
        check_no_form(targets[i], "GET", "Content-Type: " URLENCODED "\r\n", SUCCESS);
        check_no_form(targets[i], "GET", "", neither);
    }
    finish(&s);
}

// ---- nothing, where 0 is the default ----

TEST(preflight_that_holds_for_no_time) {
    static httpsrv_cors_config none = {.max_age = HTTPSRV_ZERO}, usual = {.max_age = 0}, short_time = {.max_age = 1};
    static const struct {
        httpsrv_cors_config *config;
        const char *prefix, *age;
    } rows[] = {{&none, "/none", "0"}, {&usual, "/usual", "600"}, {&short_time, "/short", "1"}};
    prepare(&s, &(httpsrv_config){0});
    for (size_t i = 0; i < ROWS(rows); i++)
        CHECK_INT(httpsrv_use(s.srv, rows[i].prefix, httpsrv_cors, rows[i].config), HTTPSRV_OK);
    go(&s);
    struct client c = dial(s.port);
    for (size_t i = 0; i < ROWS(rows); i++) {
        NOTE("%s", rows[i].prefix);
        SENDF(&c, "OPTIONS %s HTTP/1.1\r\nHost: a\r\nOrigin: http://b\r\nAccess-Control-Request-Method: PUT\r\n\r\n",
              rows[i].prefix);
        EXPECT(&c, 204, "");
        CHECK_STR(field(&c, "Access-Control-Max-Age"), rows[i].age);
    }
    hang_up(&c);
    finish(&s);
}

#else // as the seam

static ssize_t paused_eventfd_add(int fd);
#define hsrv_sys_eventfd_add paused_eventfd_add

#endif // TEST_LIFECYCLE_SEAM
