// Who accepts and on what: acceptors, Unix sockets, inherited sockets, affinity. Over real sockets.

#include "test.h"
#include <sys/stat.h>

// Two calls that the tests have a hand in. See hooked_accept() and watched_chmod().
#define HTTPSRV_SEAM "tests/seam_accept.h"
static int watched_chmod(const char *path, mode_t mode);
#define chmod(path, mode) watched_chmod((path), (mode))

#define HTTPSRV_IMPLEMENTATION
#include "../httpsrv.h"

#undef hsrv_sys_accept
#undef chmod

#include "server.h"
#include "unix_dir.h"
#include <dirent.h>
#include <pthread.h>
#include <sched.h>
#include <sys/un.h>

#define HALF "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello"

enum { MAX_REACTORS = 4, MAX_CPUS = 256 };

static struct server s;

static uint64_t item(httpsrv_log_item i) {
    return metrics(&s).items[i];
}

static int64_t cpu_ms(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (int64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000 +
           (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1000;
}

// ---- accepting by permission ----

static int holding;  // 1: whoever accepts waits until it is 0
static int held_now; // threads that do

static int hooked_accept(int listener, struct sockaddr *address, socklen_t *len) {
    __atomic_fetch_add(&held_now, 1, __ATOMIC_ACQ_REL);
    while (LOAD(holding))
        test_sleep(1);
    __atomic_fetch_sub(&held_now, 1, __ATOMIC_ACQ_REL);
    return hsrv_sys_accept(listener, address, len);
}

// ---- where a handler runs ----

struct place {
    char thread[16];
    char cpus[1024]; // "0,1,5"
};

static void list_cpus(pid_t thread, char *out, size_t size) {
    cpu_set_t set;
    size_t len = 0;
    CHECK_INT(sched_getaffinity(thread, sizeof set, &set), 0);
    out[0] = 0;
    for (int i = 0; i < CPU_SETSIZE && len < size - 8; i++)
        if (CPU_ISSET((size_t)i, &set)) len += (size_t)snprintf(out + len, size - len, "%s%d", len ? "," : "", i);
}

static void on_place(httpsrv_req *req, void *user) {
    struct place place;
    (void)user;
    prctl(PR_GET_NAME, place.thread);
    list_cpus(0, place.cpus, sizeof place.cpus);
    httpsrv_replyf(req, 200, "text/plain", "%s %s", place.thread, place.cpus);
}

static struct place ask_place(struct client *c, const char *target) {
    struct place place = {"", ""};
    GET(c, target);
    EXPECT(c, 200, NULL);
    const char *space = (const char *)memchr(c->body, ' ', c->body_len);
    CHECK(space != NULL);
    snprintf(place.thread, sizeof place.thread, "%.*s", (int)(space - c->body), c->body);
    snprintf(place.cpus, sizeof place.cpus, "%.*s", (int)(c->body + c->body_len - space - 1), space + 1);
    return place;
}

// The number of the reactor that a connection lives on.
static int reactor_of(struct client *c) {
    const struct place place = ask_place(c, "/place");
    CHECK(strncmp(place.thread, "httpsrv/", 8) == 0);
    return atoi(place.thread + 8);
}

// ---- life ----

// With a pool "work" of two threads unless there is another one.
static void prepare_places(const httpsrv_config *config) {
    httpsrv_config c = *config;
    if (!c.pools[0].name) c.pools[0] = (httpsrv_pool_config){.name = "work", .threads = 2};
    prepare(&s, &c);
    route_all(&s, "", NULL);
    route_all(&s, "/pool", c.pools[0].name);
    CHECK_INT(httpsrv_on(s.srv, "GET /place", on_place, NULL), HTTPSRV_OK);
    CHECK_INT(httpsrv_on(s.srv, "GET /peer", on_peer, NULL), HTTPSRV_OK);
    httpsrv_route_config route = {.pattern = "GET /pool/place", .handler = on_place, .pool = c.pools[0].name};
    CHECK_INT(httpsrv_route(s.srv, &route), HTTPSRV_OK);
}

static void start_places(void) {
    if (httpsrv_start(s.srv) != HTTPSRV_OK) FAIL("httpsrv_start: %s", httpsrv_error(s.srv));
    s.port = httpsrv_port(s.srv, 0);
}

static void serve_places(const httpsrv_config *config) {
    prepare_places(config);
    start_places();
}

static void end_round(void) {
    httpsrv_stop(s.srv);
    CHECK_INT(httpsrv_join(s.srv), HTTPSRV_OK);
}

// A server that cannot listen: its error has all of these words.
static void check_refused(const httpsrv_config *config, httpsrv_result result, const char *what, const char *why) {
    static struct server refused;
    httpsrv_config c = *config;
    memset(&refused, 0, sizeof refused);
    c.allocator.fn = counting_realloc;
    c.allocator.user = &refused;
    refused.srv = httpsrv_new(&c);
    CHECK(refused.srv != NULL);
    CHECK_INT(httpsrv_listen(refused.srv), result);
    CHECK_HAS(httpsrv_error(refused.srv), what);
    CHECK_HAS(httpsrv_error(refused.srv), why);
    CHECK_INT(httpsrv_port(refused.srv, 0), -1);
    CHECK_INT(httpsrv_start(refused.srv), result);
    httpsrv_free(refused.srv);
    CHECK_INT(refused.bytes, 0);
}

// ---- acceptors: which reactor ----

static const struct crew { int acceptors, reactors; } crews[] = {{1, 1}, {1, 2}, {1, 4}, {2, 1}, {2, 2}, {2, 4}};

static httpsrv_config crew_config(const struct crew *crew, httpsrv_handover handover) {
    NOTE("%d acceptors, %d reactors, handover %d", crew->acceptors, crew->reactors, (int)handover);
    return (httpsrv_config){.acceptors = crew->acceptors, .reactors = crew->reactors, .handover = handover};
}

static int furthest_apart(const int *counts, int n) {
    int least = counts[0], most = counts[0];
    for (int i = 1; i < n; i++) {
        if (counts[i] < least) least = counts[i];
        if (counts[i] > most) most = counts[i];
    }
    return most - least;
}

// Connections are opened one by one, each is asked again later: it still lives where it did.
static void check_handover(const struct crew *crew, httpsrv_handover handover) {
    enum { CONNECTIONS = 24 };
    const httpsrv_config config = crew_config(crew, handover);
    const bool turns = handover == HTTPSRV_HANDOVER_TURNS;
    const int apart = turns ? crew->acceptors : 1; // each acceptor goes round on its own
    struct client c[CONNECTIONS];
    int home[CONNECTIONS], counts[MAX_REACTORS] = {0};
    serve_places(&config);
    for (int i = 0; i < CONNECTIONS; i++) {
        c[i] = dial(s.port);
        home[i] = reactor_of(&c[i]);
        CHECK_CMP(home[i], <, crew->reactors);
        counts[home[i]]++;
        CHECK_CMP(furthest_apart(counts, crew->reactors), <=, apart);
        if (turns && crew->acceptors == 1 && i > 0) CHECK_INT(home[i], (home[i - 1] + 1) % crew->reactors);
    }
    for (int i = 0; i < CONNECTIONS; i++)
        CHECK_INT(reactor_of(&c[i]), home[i]);
    CHECK_INT(metrics(&s).connections, CONNECTIONS);
    hang_up_all(c, CONNECTIONS);
    finish(&s);
    CHECK_INT(s.last.accepted, CONNECTIONS);
    CHECK_INT(s.last.requests, 2 * CONNECTIONS);
}

TEST(handed_to_the_least_busy) {
    for (size_t i = 0; i < ROWS(crews); i++)
        check_handover(&crews[i], HTTPSRV_HANDOVER_LEAST);
}

TEST(handed_over_by_turns) {
    for (size_t i = 0; i < ROWS(crews); i++)
        check_handover(&crews[i], HTTPSRV_HANDOVER_TURNS);
}

// All but one connection of a reactor end: the next ones are that reactor's.
static void check_places_come_free(const struct crew *crew) {
    enum { EACH = 3, ALL = EACH * MAX_REACTORS };
    const httpsrv_config config = crew_config(crew, HTTPSRV_HANDOVER_LEAST);
    const int all = EACH * crew->reactors, favourite = crew->reactors - 1;
    struct client c[ALL];
    int home[ALL], closed = 0, staying = -1;
    serve_places(&config);
    for (int i = 0; i < all; i++) {
        c[i] = dial(s.port);
        home[i] = reactor_of(&c[i]);
    }
    for (int i = 0; i < all; i++) {
        if (home[i] != favourite) continue;
        if (staying < 0)
            staying = i;
        else
            net_reset(&c[i]), closed++;
    }
    CHECK_INT(closed, EACH - 1);
    WAIT(metrics(&s).connections == (uint64_t)(all - closed));
    CHECK_INT(reactor_of(&c[staying]), favourite); // and so its reactor is done with the others
    for (int i = 0; i < all; i++) {
        if (c[i].fd >= 0) continue;
        c[i] = dial(s.port);
        CHECK_INT(reactor_of(&c[i]), favourite);
    }
    hang_up_all(c, all);
    finish(&s);
}

TEST(a_place_that_comes_free_is_taken_again) {
    for (size_t i = 0; i < ROWS(crews); i++)
        check_places_come_free(&crews[i]);
}

// By turns it matters to nobody how many connections a reactor has already.
TEST(turns_pass_nobody_over) {
    serve_places(&(httpsrv_config){.acceptors = 1, .reactors = 2, .handover = HTTPSRV_HANDOVER_TURNS});
    struct client staying = dial(s.port);
    const int home = reactor_of(&staying);
    for (int i = 0; i < 6; i++) {
        struct client c = dial(s.port);
        CHECK_INT(reactor_of(&c), i % 2 ? home : 1 - home);
        hang_up(&c);
        WAIT(metrics(&s).connections == 1);
    }
    hang_up(&staying);
    finish(&s);
}

// Refused connections were handed over as well. They must not weigh on the reactor that refused them, be it in words or,
// where many come at once, without.
TEST(refused_connections_weigh_nothing) {
    enum { REFUSED = 300 };
    struct client in, out[REFUSED];
    serve_places(&(httpsrv_config){.acceptors = 2, .reactors = 2, .max.connections = 1});
    in = dial(s.port);
    (void)reactor_of(&in);
    for (int i = 0; i < REFUSED; i++)
        out[i] = dial(s.port);
    WAIT(item(HTTPSRV_LOG_TOO_MANY_CONNECTIONS) == REFUSED);
    hang_up_all(out, REFUSED);
    WAIT(metrics(&s).connections == 1);
    hang_up(&in);
    end_round();
    CHECK_INT(LOAD(s.srv->loops[0]->load), 0);
    CHECK_INT(LOAD(s.srv->loops[1]->load), 0);
    dispose(&s);
}

TEST(acceptors_on_several_addresses) {
    serve_places(&(httpsrv_config){.acceptors = 2, .reactors = 3, .listen = {"127.0.0.1:0", "127.0.0.2:0", "*:0"}});
    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < 3; i++) {
            struct client c = dial_to(i == 1 ? "127.0.0.2" : "127.0.0.1", httpsrv_port(s.srv, i));
            GET(&c, "/peer");
            EXPECT(&c, 200, "127.0.0.1");
            GET(&c, "/pool/hello");
            EXPECT(&c, 200, HELLO);
            hang_up(&c);
        }
    }
    finish(&s);
}

TEST(all_at_once) {
    enum { CONNECTIONS = 100, ROUNDS = 5 };
    struct client c[CONNECTIONS];
    serve_places(&(httpsrv_config){.acceptors = 2, .reactors = 4});
    for (int i = 0; i < CONNECTIONS; i++)
        c[i] = dial(s.port);
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < CONNECTIONS; i++)
            SEND(&c[i], NEXT NEXT);
        for (int i = 0; i < CONNECTIONS; i++) {
            EXPECT(&c[i], 200, HELLO);
            EXPECT(&c[i], 200, HELLO);
        }
    }
    CHECK_INT(metrics(&s).connections, CONNECTIONS);
    hang_up_all(c, CONNECTIONS);
    finish(&s);
    CHECK_INT(s.last.accepted, CONNECTIONS);
    CHECK_INT(s.last.requests, 2 * CONNECTIONS * ROUNDS);
}

// ---- acceptors: limits ----

static void check_503(struct client *c) {
    EXPECT(c, 503, NULL);
    CHECK(field(c, "Retry-After") != NULL);
    CHECK(c->close);
    EXPECT_EOF(c);
    hang_up(c);
}

static void check_max_connections(const struct crew *crew) {
    struct client in[5], out;
    httpsrv_config config = crew_config(crew, HTTPSRV_HANDOVER_TURNS);
    config.max.connections = 5;
    serve_places(&config);
    for (int i = 0; i < 5; i++) {
        in[i] = dial(s.port);
        (void)reactor_of(&in[i]);
    }
    for (int i = 0; i < 6; i++) {
        out = dial(s.port);
        check_503(&out);
    }
    CHECK_INT(item(HTTPSRV_LOG_TOO_MANY_CONNECTIONS), 6);
    hang_up(&in[0]);
    WAIT(metrics(&s).connections == 4);
    in[0] = dial(s.port);
    for (int i = 0; i < 5; i++) {
        (void)reactor_of(&in[i]);
        hang_up(&in[i]);
    }
    finish(&s);
}

TEST(max_connections_of_the_whole_server) {
    for (size_t i = 0; i < ROWS(crews); i++)
        check_max_connections(&crews[i]);
}

static struct client dial_from(const char *from) {
    struct sockaddr_storage address;
    const socklen_t size = net_address(&address, from, 0);
    struct client c = net_client(net_socket(AF_INET));
    NET_CHECK(&c, bind(c.fd, (struct sockaddr *)&address, size) == 0, "cannot bind");
    NET_CHECK(&c, net_connect(c.fd, "127.0.0.1", s.port) == 0, "cannot connect");
    return c;
}

static void check_per_ip(const struct crew *crew) {
    struct client in[3], out;
    httpsrv_config config = crew_config(crew, HTTPSRV_HANDOVER_LEAST);
    config.max.per_ip = 3;
    serve_places(&config);
    for (int i = 0; i < 3; i++) {
        in[i] = dial(s.port);
        (void)reactor_of(&in[i]);
    }
    for (int i = 0; i < 5; i++) {
        out = dial(s.port);
        check_503(&out);
        out = dial_from("127.0.0.2");
        (void)reactor_of(&out);
        hang_up(&out);
    }
    CHECK_INT(item(HTTPSRV_LOG_TOO_MANY_FROM_ADDRESS), 5);
    hang_up_all(in, 3);
    finish(&s);
}

TEST(per_ip_of_the_whole_server) {
    for (size_t i = 0; i < ROWS(crews); i++)
        check_per_ip(&crews[i]);
}

// ---- stopping ----

enum { QUEUED = 200 };

static void queue_up(struct client *c, int n) {
    for (int i = 0; i < n; i++) {
        c[i] = dial(s.port);
        SEND(&c[i], NEXT);
    }
}

static void check_queue_is_answered(struct client *c, int n) {
    const int64_t start = test_now();
    for (int i = 0; i < n; i++) {
        EXPECT(&c[i], 200, HELLO);
        CHECK(c[i].close);
        EXPECT_EOF(&c[i]);
        hang_up(&c[i]);
    }
    CHECK_INT(httpsrv_join(s.srv), HTTPSRV_OK);
    CHECK_CMP(test_now() - start, <, test_ms(5000));
    CHECK(net_refused(s.port));
    dispose(&s);
    CHECK_INT(s.last.accepted, n);
    CHECK_INT(s.last.requests, n);
    CHECK_INT(s.last.drain_cut, 0);
    CHECK_INT(s.last.connections, 0);
}

// Whoever accepts is held up while all the others know of the stop already.
static void check_drain_of_a_queue(const struct crew *crew) {
    struct client c[QUEUED];
    const httpsrv_config config = crew_config(crew, HTTPSRV_HANDOVER_LEAST);
    STORE(holding, 1);
    serve_places(&config);
    queue_up(c, QUEUED);
    WAIT(LOAD(held_now) > 0);
    httpsrv_stop(s.srv);
    if (crew->acceptors > 0) WAIT(item(HTTPSRV_LOG_DRAINING) >= (uint64_t)crew->reactors);
    test_sleep(20);
    CHECK_INT(metrics(&s).requests, 0);
    STORE(holding, 0);
    check_queue_is_answered(c, QUEUED);
}

TEST(drain_takes_in_what_is_queued) {
    for (size_t i = 0; i < ROWS(crews); i++)
        check_drain_of_a_queue(&crews[i]);
}

TEST(drain_takes_in_what_is_queued_without_acceptors) {
    check_drain_of_a_queue(&(struct crew){0, 1});
    check_drain_of_a_queue(&(struct crew){0, 4});
}

// The only reactor stays where it says that it drains, having looked into its inbox, until the acceptor has ended.
static void late_logger(const httpsrv_log *record, void *user) {
    const int64_t until = test_now() + test_ms(10000);
    counting_logger(record, user);
    if (record->item != HTTPSRV_LOG_DRAINING || record->reactor != 0) return;
    STORE(holding, 0);
    while (LOAD(s.srv->acceptors) > 0 && test_now() < until)
        test_sleep(1);
}

TEST(drain_takes_in_what_is_handed_over_last) {
    struct client c[3];
    STORE(holding, 1);
    prepare_places(&(httpsrv_config){.acceptors = 1, .reactors = 1});
    s.srv->config.logger.fn = late_logger;
    start_places();
    queue_up(c, 3);
    WAIT(LOAD(held_now) == 1);
    httpsrv_stop(s.srv);
    check_queue_is_answered(c, 3);
}

// The acceptor stays there, until the reactor has seen that it has not ended yet, and gone to sleep.
static int acceptor_stays; // 1: it does, 2: it may go on

static void stay_logger(const httpsrv_log *record, void *user) {
    const int64_t until = test_now() + test_ms(10000);
    counting_logger(record, user);
    if (record->item != HTTPSRV_LOG_DRAINING || record->reactor != 1) return;
    STORE(acceptor_stays, 1);
    while (LOAD(acceptor_stays) != 2 && test_now() < until)
        test_sleep(1);
}

TEST(an_acceptor_that_ends_wakes_the_reactor) {
    prepare_places(&(httpsrv_config){.acceptors = 1, .reactors = 1});
    s.srv->config.logger.fn = stay_logger;
    start_places();
    struct client idle = dial(s.port);
    (void)reactor_of(&idle);
    httpsrv_stop(s.srv);
    WAIT(LOAD(acceptor_stays) == 1 && item(HTTPSRV_LOG_DRAINING) == 2);
    EXPECT_SILENCE(&idle, 50);
    STORE(acceptor_stays, 2);
    EXPECT_EOF(&idle);
    hang_up(&idle);
    CHECK_INT(httpsrv_join(s.srv), HTTPSRV_OK);
    dispose(&s);
}

TEST(stopped_before_it_starts_it_takes_in_what_is_queued) {
    for (size_t i = 0; i < ROWS(crews); i++) {
        struct client c[QUEUED];
        const httpsrv_config config = crew_config(&crews[i], HTTPSRV_HANDOVER_TURNS);
        prepare_places(&config);
        CHECK_INT(httpsrv_listen(s.srv), HTTPSRV_OK);
        s.port = httpsrv_port(s.srv, 0);
        queue_up(c, QUEUED);
        httpsrv_stop(s.srv);
        CHECK_INT(httpsrv_start(s.srv), HTTPSRV_OK);
        check_queue_is_answered(c, QUEUED);
    }
}

static void check_drain_of_the_begun(const struct crew *crew) {
    const httpsrv_config config = crew_config(crew, HTTPSRV_HANDOVER_TURNS);
    serve_places(&config);
    struct client body = dial(s.port), gate = dial(s.port), idle = dial(s.port);
    send_seen(&s, &body, HALF, strlen(HALF));
    GET(&gate, "/pool/gate");
    (void)reactor_of(&idle);
    WAIT(LOAD(s.arrived) == 1);
    httpsrv_stop(s.srv);
    EXPECT_EOF(&idle);
    WAIT(net_refused(s.port));
    SEND(&body, "world");
    EXPECT(&body, 200, "helloworld");
    CHECK(body.close);
    EXPECT_EOF(&body);
    STORE(s.gate, 1);
    EXPECT(&gate, 200, NULL);
    CHECK(gate.close);
    EXPECT_EOF(&gate);
    hang_up(&body);
    hang_up(&gate);
    hang_up(&idle);
    CHECK_INT(httpsrv_join(s.srv), HTTPSRV_OK);
    CHECK_INT(httpsrv_port(s.srv, 0), -1);
    dispose(&s);
    CHECK_INT(s.last.drain_cut, 0);
    CHECK_CMP(s.last.drain_finished, >=, 2);
}

TEST(drain_finishes_what_was_begun) {
    for (size_t i = 0; i < ROWS(crews); i++)
        check_drain_of_the_begun(&crews[i]);
}

TEST(grace_goes_on_accepting) {
    serve_places(&(httpsrv_config){.acceptors = 2, .reactors = 2, .timeout_ms.grace = test_ms(500)});
    const int64_t start = test_now();
    struct client old = dial(s.port);
    (void)reactor_of(&old);
    httpsrv_stop(s.srv);
    WAIT(item(HTTPSRV_LOG_DRAINING) == 4);
    test_sleep(20);
    check_served_in_grace(&s);
    CHECK(test_now() - start < test_ms(500));
    hang_up(&old);
    CHECK_INT(httpsrv_join(s.srv), HTTPSRV_OK);
    CHECK_CMP(test_now() - start, >=, test_ms(490));
    CHECK(net_refused(s.port));
    dispose(&s);
}

TEST(the_deadline_cuts) {
    serve_places(&(httpsrv_config){.acceptors = 1, .reactors = 2, .timeout_ms.drain = test_ms(200)});
    struct client c = dial(s.port);
    send_seen(&s, &c, HALF, strlen(HALF));
    const int64_t start = test_now();
    httpsrv_stop(s.srv);
    CHECK_INT(httpsrv_join(s.srv), HTTPSRV_OK);
    CHECK_CMP(test_now() - start, >=, test_ms(190));
    CHECK_CMP(test_now() - start, <, test_ms(5000));
    EXPECT_END(&c);
    hang_up(&c);
    dispose(&s);
    CHECK_INT(s.last.drain_cut, 1);
}

TEST(a_second_stop_cuts) {
    for (size_t i = 0; i < ROWS(crews); i++) {
        httpsrv_config config = crew_config(&crews[i], HTTPSRV_HANDOVER_TURNS);
        config.timeout_ms.drain = -1;
        serve_places(&config);
        struct client c = dial(s.port);
        send_seen(&s, &c, HALF, strlen(HALF));
        httpsrv_stop(s.srv);
        EXPECT_SILENCE(&c, 50);
        const int64_t start = test_now();
        httpsrv_stop(s.srv);
        CHECK_INT(httpsrv_join(s.srv), HTTPSRV_OK);
        CHECK_CMP(test_now() - start, <, test_ms(1500));
        EXPECT_END(&c);
        hang_up(&c);
        dispose(&s);
        CHECK_INT(s.last.drain_cut, 1);
    }
}

TEST(freed_while_it_runs) {
    for (size_t i = 0; i < ROWS(crews); i++) {
        const int before = test_descriptors();
        const httpsrv_config config = crew_config(&crews[i], HTTPSRV_HANDOVER_LEAST);
        serve_places(&config);
        struct client idle = dial(s.port), begun = dial(s.port);
        (void)reactor_of(&idle);
        send_seen(&s, &begun, HALF, strlen(HALF));
        httpsrv_free(s.srv);
        EXPECT_END(&idle);
        EXPECT_END(&begun);
        hang_up(&idle);
        hang_up(&begun);
        CHECK_INT(s.bytes, 0);
        CHECK_INT(s.blocks, 0);
        CHECK_INT(test_descriptors(), before);
    }
}

TEST(freed_without_having_run) {
    const int before = test_descriptors();
    prepare_places(&(httpsrv_config){.acceptors = 2, .reactors = 2});
    CHECK_INT(httpsrv_listen(s.srv), HTTPSRV_OK);
    s.port = httpsrv_port(s.srv, 0);
    struct client c = dial(s.port);
    SEND(&c, NEXT);
    dispose(&s);
    EXPECT_END(&c);
    hang_up(&c);
    CHECK(net_refused(s.port));
    CHECK_INT(test_descriptors(), before);
}

TEST(a_loop_of_the_host_is_not_for_acceptors) {
    prepare_places(&(httpsrv_config){.acceptors = 1, .reactors = 1});
    CHECK_INT(httpsrv_listen(s.srv), HTTPSRV_OK);
    CHECK_INT(httpsrv_poll(s.srv, 0), HTTPSRV_STATE);
    CHECK_INT(httpsrv_fd(s.srv), -1);
    CHECK_INT(httpsrv_timeout(s.srv), -1);
    start_places(); // it is none the worse for it
    check_alive(&s);
    CHECK_INT(httpsrv_poll(s.srv, 0), HTTPSRV_STATE);
    CHECK_INT(httpsrv_fd(s.srv), -1);
    httpsrv_stop(s.srv);
    CHECK_INT(httpsrv_timeout(s.srv), -1); // whatever there is to be done
    CHECK_INT(httpsrv_join(s.srv), HTTPSRV_OK);
    httpsrv_stop(s.srv);
    CHECK_INT(httpsrv_listen(s.srv), HTTPSRV_OK);
    CHECK_INT(httpsrv_timeout(s.srv), -1);
    dispose(&s);
}

TEST(bad_and_good_values) {
    static const struct {
        httpsrv_config config;
        const char *name;
    } bad[] = {
        {{.acceptors = -1}, "acceptors"},
        {{.acceptors = 1025}, "acceptors"},
        {{.handover = (httpsrv_handover)2}, "handover"},
        {{.handover = (httpsrv_handover)-1}, "handover"},
        {{.socket_mode = -1}, "socket_mode"},
        {{.socket_mode = 010000}, "socket_mode"},
    };
    for (size_t i = 0; i < ROWS(bad); i++) {
        NOTE("row %zu", i);
        check_refused(&bad[i].config, HTTPSRV_ARG, bad[i].name, "");
    }
    serve_places(&(httpsrv_config){.acceptors = HTTPSRV_ZERO, .reactors = 2, .socket_mode = 07777});
    check_alive(&s);
    finish(&s);
}

// ---- descriptors used up ----

struct spot {         // where a client goes
    const char *path; // a Unix socket's, or NULL
    int port;
};

// 0, or the errno of a connection that was not to be had. The socket is non-blocking afterwards.
static int connect_unix(int fd, const char *path) {
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    CHECK_CMP(strlen(path), <, sizeof to.sun_path);
    memcpy(to.sun_path, path, strlen(path) + 1);
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    return connect(fd, (struct sockaddr *)&to, sizeof to) == 0 ? 0 : errno;
}

static struct client socket_for(const struct spot *spot) {
    struct client c = net_client(spot->path ? socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0) : net_socket(AF_INET));
    NET_CHECK(&c, c.fd >= 0, "no socket");
    return c;
}

static void reach(struct client *c, const struct spot *spot) {
    c->error = spot->path ? connect_unix(c->fd, spot->path) : net_connect(c->fd, "127.0.0.1", spot->port);
    NET_CHECK(c, c->error == 0, "cannot connect");
}

static struct client dial_spot(const struct spot *spot) {
    struct client c = socket_for(spot);
    reach(&c, spot);
    return c;
}

static struct client dial_unix(const char *path) {
    return dial_spot(&(struct spot){.path = path});
}

// Clients and server share this process, hence this limit: first the clients' sockets, then all the rest is taken. There
// are more clients than are turned away meanwhile, so that somebody waits all the time.
static void use_up_descriptors(const struct spot *spot) {
    enum { CROWD = 40 };
    struct rlimit limit;
    struct client c[CROWD], late = socket_for(spot);
    int fillers[160], n = 0;
    for (int i = 0; i < CROWD; i++)
        c[i] = socket_for(spot);
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = 140;
    CHECK_INT(setrlimit(RLIMIT_NOFILE, &limit), 0);
    while ((fillers[n] = fcntl(0, F_DUPFD_CLOEXEC, 0)) >= 0)
        n++;
    CHECK_INT(errno, EMFILE);
    for (int i = 0; i < CROWD; i++) {
        reach(&c[i], spot);
        (void)net_send_some(&c[i], NEXT, strlen(NEXT), net_deadline()); // it may have been turned away by now
    }
    WAIT(item(HTTPSRV_LOG_NO_DESCRIPTORS) >= 1);
    const int64_t cpu = cpu_ms();
    test_sleep(800);
    CHECK_CMP(cpu_ms() - cpu, <, 250);
    CHECK_CMP(item(HTTPSRV_LOG_NO_DESCRIPTORS), <, 100);
    while (n > 0)
        close(fillers[--n]);
    reach(&late, spot);
    SEND(&late, NEXT);
    EXPECT(&late, 200, HELLO);
    hang_up(&late);
    hang_up_all(c, CROWD);
    WAIT(metrics(&s).connections == 0);
    struct client again = dial_spot(spot);
    GET(&again, "/hello");
    EXPECT(&again, 200, HELLO);
    hang_up(&again);
}

TEST(descriptors_used_up_with_an_acceptor) {
    serve_places(&(httpsrv_config){.acceptors = 1, .reactors = 2, .max.connections = -1});
    use_up_descriptors(&(struct spot){.port = s.port});
    finish(&s);
}

TEST(descriptors_used_up_with_two_acceptors) {
    serve_places(&(httpsrv_config){.acceptors = 2, .reactors = 1, .max.connections = -1});
    use_up_descriptors(&(struct spot){.port = s.port});
    finish(&s);
}

// ---- Unix sockets ----

static bool exists(const char *name) {
    struct stat status;
    return lstat(name, &status) == 0;
}

static unsigned mode_of(const char *name) {
    struct stat status;
    CHECK_INT(lstat(name, &status), 0);
    return status.st_mode & 07777;
}

// 0, or the errno that a client gets there.
static int try_unix(const char *name) {
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const int err = connect_unix(fd, name);
    close(fd);
    return err;
}

static bool no_server_at(const char *name) {
    const int err = try_unix(name);
    return err == ENOENT || err == ECONNREFUSED;
}

static int listen_unix(const char *name, int backlog) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    memcpy(address.sun_path, name, strlen(name) + 1);
    CHECK(fd >= 0);
    CHECK_INT(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    if (backlog >= 0) CHECK_INT(listen(fd, backlog), 0);
    return fd;
}

static void check_alive_unix(const char *name) {
    struct client c = dial_unix(name);
    GET(&c, "/hello");
    EXPECT(&c, 200, HELLO);
    hang_up(&c);
}

TEST(unix_serves) {
    for (int acceptors = 0; acceptors < 3; acceptors++) {
        make_dir();
        NOTE("%d acceptors", acceptors);
        prepare_places(&(httpsrv_config){.listen = {unix_path}, .reactors = 2, .acceptors = acceptors});
        CHECK(!exists(unix_file));
        CHECK_INT(httpsrv_port(s.srv, 0), -1);
        CHECK_INT(httpsrv_listen(s.srv), HTTPSRV_OK);
        CHECK(exists(unix_file));
        start_places();
        CHECK_INT(httpsrv_port(s.srv, 0), 0);
        CHECK_INT(httpsrv_port(s.srv, 1), -1);
        struct client c = dial_unix(unix_file);
        for (int i = 0; i < 3; i++) {
            GET(&c, "/peer");
            EXPECT(&c, 200, "unix");
            GET(&c, "/pool/hello");
            EXPECT(&c, 200, HELLO);
        }
        GET(&c, "/big/3000000");
        REPLY(&c);
        check_blob(&c, 3000000);
        httpsrv_stop(s.srv);
        EXPECT_EOF(&c);
        hang_up(&c);
        CHECK_INT(httpsrv_join(s.srv), HTTPSRV_OK);
        CHECK(!exists(unix_file));
        CHECK_INT(httpsrv_port(s.srv, 0), -1);
        dispose(&s);
        CHECK_INT(s.last.accepted, 1);
        remove_dir();
    }
}

TEST(unix_in_a_loop_of_the_host) {
    make_dir();
    prepare_places(&(httpsrv_config){.listen = {unix_path}});
    CHECK_INT(httpsrv_listen(s.srv), HTTPSRV_OK);
    struct client c = dial_unix(unix_file);
    SEND(&c, NEXT);
    while (metrics(&s).answers[2] == 0)
        CHECK_INT(httpsrv_poll(s.srv, 10), HTTPSRV_OK);
    EXPECT(&c, 200, HELLO);
    hang_up(&c);
    httpsrv_stop(s.srv);
    while (httpsrv_poll(s.srv, -1) == HTTPSRV_OK)
        continue;
    CHECK(!exists(unix_file));
    dispose(&s);
    remove_dir();
}

// Bits that a file had for others before it was given its mode, all calls taken together.
static unsigned mode_before_chmod;
static int calls_of_chmod;
static bool chmod_fails;

static int watched_chmod(const char *name, mode_t mode) {
    mode_before_chmod |= mode_of(name);
    calls_of_chmod++;
    if (!chmod_fails) return chmod(name, mode);
    errno = EPERM;
    return -1;
}

static unsigned mode_made(int mode, unsigned mask) {
    const mode_t before = umask(mask);
    mode_before_chmod = 0;
    serve_places(&(httpsrv_config){.listen = {unix_path}, .reactors = 2, .socket_mode = mode});
    const unsigned made = mode_of(unix_file);
    check_alive_unix(unix_file);
    finish(&s);
    umask(before);
    return made;
}

TEST(unix_mode) {
    static const unsigned masks[] = {077, 0, 022};
    static const int modes[] = {0600, 0660, 0666, 0777, 0640};
    make_dir();
    for (size_t i = 0; i < ROWS(masks); i++) {
        for (size_t k = 0; k < ROWS(modes); k++) {
            NOTE("mode 0%o, umask 0%o", (unsigned)modes[k], masks[i]);
            CHECK_INT(mode_made(modes[k], masks[i]), modes[k]);
            CHECK_INT(mode_before_chmod & ~(unsigned)modes[k], 0); // nobody else gets in before it is set
        }
        NOTE("no mode, umask 0%o", masks[i]);
        calls_of_chmod = 0;
        CHECK_INT(mode_made(0, masks[i]), 0777 & ~masks[i]);
        CHECK_INT(calls_of_chmod, 0);
    }
    remove_dir();
}

TEST(unix_replaces_a_stale_file) {
    make_dir();
    for (int backlog = -1; backlog < 2; backlog++) {
        close(listen_unix(unix_file, backlog));
        CHECK(exists(unix_file));
        CHECK_INT(try_unix(unix_file), ECONNREFUSED);
        serve_places(&(httpsrv_config){.listen = {unix_path}, .reactors = 2});
        check_alive_unix(unix_file);
        finish(&s);
        CHECK(!exists(unix_file));
    }
    remove_dir();
}

TEST(unix_leaves_a_living_server_alone) {
    make_dir();
    serve_places(&(httpsrv_config){.listen = {unix_path}, .reactors = 2});
    check_refused(&(httpsrv_config){.listen = {unix_path}}, HTTPSRV_SYS, unix_path, strerror(EADDRINUSE));
    check_refused(&(httpsrv_config){.listen = {unix_path}, .reactors = 2, .acceptors = 1, .socket_mode = 0600},
                  HTTPSRV_SYS, unix_path, strerror(EADDRINUSE));
    CHECK(exists(unix_file));
    check_alive_unix(unix_file);
    finish(&s);
    remove_dir();
}

// One that has no room for us at the moment is alive all the same, and so is one that does not speak our kind of socket.
TEST(unix_leaves_a_busy_server_alone) {
    make_dir();
    int listener = listen_unix(unix_file, 0), n = 0;
    struct client c[8];
    while (n < 8) {
        c[n] = net_client(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
        if (connect_unix(c[n++].fd, unix_file) == EAGAIN) break;
    }
    CHECK_INT(try_unix(unix_file), EAGAIN);
    check_refused(&(httpsrv_config){.listen = {unix_path}}, HTTPSRV_SYS, unix_path, strerror(EADDRINUSE));
    CHECK(exists(unix_file));
    while (n > 0)
        hang_up(&c[--n]);
    close(listener);
    CHECK_INT(unlink(unix_file), 0);

    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, unix_file, strlen(unix_file) + 1);
    listener = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    CHECK_INT(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
    check_refused(&(httpsrv_config){.listen = {unix_path}}, HTTPSRV_SYS, unix_path, strerror(EADDRINUSE));
    CHECK(exists(unix_file));
    close(listener);
    CHECK_INT(unlink(unix_file), 0);
    remove_dir();
}

static void check_in_the_way(void) {
    check_refused(&(httpsrv_config){.listen = {unix_path}, .socket_mode = 0666}, HTTPSRV_SYS, unix_path,
                  strerror(EADDRINUSE));
}

TEST(unix_leaves_other_files_alone) {
    char text[8] = "", target[80];
    make_dir();
    int fd = open(unix_file, O_CREAT | O_WRONLY | O_CLOEXEC, 0640);
    CHECK_INT(fchmod(fd, 0640), 0);
    CHECK_INT(write(fd, "precious", 8), 8);
    close(fd);
    check_in_the_way();
    CHECK_INT(mode_of(unix_file), 0640);
    fd = open(unix_file, O_RDONLY | O_CLOEXEC);
    CHECK_INT(read(fd, text, 8), 8);
    CHECK_MEM(text, 8U, "precious", 8U);
    close(fd);
    CHECK_INT(unlink(unix_file), 0);

    CHECK_INT(mkdir(unix_file, 0700), 0);
    check_in_the_way();
    CHECK_INT(rmdir(unix_file), 0);

    snprintf(target, sizeof target, "%s/stale", unix_dir); // a link to a stale socket is not the socket
    close(listen_unix(target, 1));
    CHECK_INT(symlink(target, unix_file), 0);
    check_in_the_way();
    CHECK(exists(target));
    CHECK_INT(unlink(unix_file), 0);
    CHECK_INT(unlink(target), 0);
    remove_dir();
}

TEST(unix_bad_paths) {
    struct sockaddr_un un;
    char longest[sizeof un.sun_path + 8] = "unix:", missing[80];
    make_dir();
    check_refused(&(httpsrv_config){.listen = {"unix:"}}, HTTPSRV_ARG, "unix:", "path");
    const int used = snprintf(longest, sizeof longest, "unix:%s/", unix_dir);
    memset(longest + used, 'x', 5 + sizeof un.sun_path - (size_t)used);
    longest[5 + sizeof un.sun_path] = 0;
    check_refused(&(httpsrv_config){.listen = {longest}}, HTTPSRV_ARG, longest, "107");
    longest[5 + sizeof un.sun_path - 1] = 0; // this one fits, with its terminator
    serve_places(&(httpsrv_config){.listen = {longest}});
    check_alive_unix(longest + 5);
    finish(&s);
    snprintf(missing, sizeof missing, "unix:%s/no/s", unix_dir);
    check_refused(&(httpsrv_config){.listen = {missing}}, HTTPSRV_SYS, missing, strerror(ENOENT));
    remove_dir();
}

TEST(unix_file_goes_with_the_server) {
    make_dir();
    prepare_places(&(httpsrv_config){.listen = {unix_path}});
    CHECK_INT(httpsrv_listen(s.srv), HTTPSRV_OK); // but does not run
    CHECK(exists(unix_file));
    dispose(&s);
    CHECK(!exists(unix_file));

    serve_places(&(httpsrv_config){.listen = {unix_path}, .reactors = 2});
    CHECK(exists(unix_file));
    httpsrv_free(s.srv); // while it runs
    CHECK(!exists(unix_file));

    struct server other; // the second address is taken
    char taken[32];
    serve(&other, &(httpsrv_config){.host = "127.0.0.1"});
    snprintf(taken, sizeof taken, "127.0.0.1:%d", other.port);
    check_refused(&(httpsrv_config){.listen = {unix_path, taken}, .reactors = 2}, HTTPSRV_SYS, taken, "");
    CHECK(!exists(unix_file));
    finish(&other);

    chmod_fails = true; // it is there already when this fails
    check_refused(&(httpsrv_config){.listen = {unix_path}, .socket_mode = 0660}, HTTPSRV_SYS, unix_path,
                  strerror(EPERM));
    CHECK(!exists(unix_file));
    remove_dir();
}

// What has the name when a server ends that never got it is not that server's.
TEST(unix_file_of_a_successor_stays) {
    make_dir();
    serve_places(&(httpsrv_config){.listen = {unix_path}});
    end_round();
    CHECK(!exists(unix_file));
    const int successor = listen_unix(unix_file, 1);
    dispose(&s);
    CHECK(exists(unix_file));
    CHECK_INT(try_unix(unix_file), 0);
    close(successor);
    CHECK_INT(unlink(unix_file), 0);
    remove_dir();
}

// Handlers hold up all reactors but one: whoever comes then is served by that one.
TEST(unix_shared_by_reactors) {
    enum { REACTORS = 3 };
    struct client blocked[REACTORS - 1], c[10];
    make_dir();
    serve_places(&(httpsrv_config){.listen = {unix_path}, .reactors = REACTORS});
    for (int i = 0; i < REACTORS - 1; i++) {
        blocked[i] = dial_unix(unix_file);
        GET(&blocked[i], "/gate");
        WAIT(LOAD(s.arrived) == i + 1);
    }
    for (int i = 0; i < 10; i++) {
        c[i] = dial_unix(unix_file);
        (void)reactor_of(&c[i]);
    }
    STORE(s.gate, 1);
    for (int i = 0; i < REACTORS - 1; i++) {
        EXPECT(&blocked[i], 200, NULL);
        hang_up(&blocked[i]);
    }
    hang_up_all(c, 10);
    finish(&s);
    remove_dir();
}

TEST(unix_many_at_once) {
    enum { CONNECTIONS = 100 };
    struct client c[CONNECTIONS];
    make_dir();
    for (int acceptors = 0; acceptors < 3; acceptors++) {
        serve_places(&(httpsrv_config){.listen = {unix_path}, .reactors = 3, .acceptors = acceptors});
        for (int i = 0; i < CONNECTIONS; i++) {
            c[i] = dial_unix(unix_file);
            SEND(&c[i], NEXT NEXT);
        }
        for (int i = 0; i < CONNECTIONS; i++) {
            EXPECT(&c[i], 200, HELLO);
            EXPECT(&c[i], 200, HELLO);
            hang_up(&c[i]);
        }
        finish(&s);
        CHECK_INT(s.last.accepted, CONNECTIONS);
    }
    remove_dir();
}

TEST(unix_does_not_count_for_per_ip) {
    struct client c[5], tcp, out;
    make_dir();
    serve_places(&(httpsrv_config){.listen = {"127.0.0.1:0", unix_path}, .max.per_ip = 1, .max.connections = 6});
    for (int i = 0; i < 5; i++) {
        c[i] = dial_unix(unix_file);
        (void)reactor_of(&c[i]);
    }
    tcp = dial(s.port);
    (void)reactor_of(&tcp);
    out = dial(s.port); // both limits are reached; the server's comes first
    check_503(&out);
    out = dial_unix(unix_file);
    check_503(&out);
    CHECK_INT(item(HTTPSRV_LOG_TOO_MANY_CONNECTIONS), 2);
    hang_up(&c[0]);
    WAIT(metrics(&s).connections == 5);
    out = dial(s.port);
    check_503(&out);
    CHECK_INT(item(HTTPSRV_LOG_TOO_MANY_FROM_ADDRESS), 1);
    for (int i = 1; i < 5; i++)
        hang_up(&c[i]);
    hang_up(&tcp);
    finish(&s);
    remove_dir();
}

TEST(unix_beside_tcp) {
    char second[80], second_path[64];
    make_dir();
    snprintf(second_path, sizeof second_path, "%s/t", unix_dir);
    snprintf(second, sizeof second, "unix:%s", second_path);
    for (int acceptors = 0; acceptors < 3; acceptors++) {
        serve_places(&(httpsrv_config){
            .listen = {"127.0.0.1:0", unix_path, second}, .reactors = 2, .acceptors = acceptors, .socket_mode = 0600});
        CHECK_INT(httpsrv_port(s.srv, 1), 0);
        CHECK_INT(mode_of(second_path), 0600);
        for (int round = 0; round < 5; round++) {
            struct client tcp = dial(s.port), one = dial_unix(unix_file), two = dial_unix(second_path);
            GET(&tcp, "/peer");
            GET(&one, "/peer");
            GET(&two, "/peer");
            EXPECT(&two, 200, "unix");
            EXPECT(&one, 200, "unix");
            EXPECT(&tcp, 200, "127.0.0.1");
            hang_up(&tcp);
            hang_up(&one);
            hang_up(&two);
        }
        finish(&s);
    }
    remove_dir();
}

TEST(unix_drain_takes_in_what_is_queued) {
    static const struct crew with_none[] = {{0, 1}, {0, 3}, {1, 2}, {2, 2}};
    struct client c[QUEUED];
    make_dir();
    for (size_t k = 0; k < ROWS(with_none); k++) {
        httpsrv_config config = crew_config(&with_none[k], HTTPSRV_HANDOVER_LEAST);
        config.listen[0] = unix_path;
        prepare_places(&config);
        CHECK_INT(httpsrv_listen(s.srv), HTTPSRV_OK);
        for (int i = 0; i < QUEUED; i++) {
            c[i] = dial_unix(unix_file);
            SEND(&c[i], NEXT);
        }
        httpsrv_stop(s.srv);
        CHECK_INT(httpsrv_start(s.srv), HTTPSRV_OK);
        for (int i = 0; i < QUEUED; i++) {
            EXPECT(&c[i], 200, HELLO);
            EXPECT_EOF(&c[i]);
            hang_up(&c[i]);
        }
        CHECK_INT(httpsrv_join(s.srv), HTTPSRV_OK);
        dispose(&s);
        CHECK_INT(s.last.requests, QUEUED);
    }
    remove_dir();
}

// Nobody is let in any more to wait for a server that ends.
TEST(unix_is_closed_while_it_drains) {
    make_dir();
    for (int acceptors = 0; acceptors < 3; acceptors++) {
        NOTE("%d acceptors", acceptors);
        serve_places(&(httpsrv_config){.listen = {unix_path}, .reactors = 2, .acceptors = acceptors});
        struct client c = dial_unix(unix_file);
        STORE(s.arrived, 0);
        STORE(s.gate, 0);
        GET(&c, "/pool/gate");
        WAIT(LOAD(s.arrived) == 1);
        httpsrv_stop(s.srv);
        WAIT(no_server_at(unix_file));
        STORE(s.gate, 1);
        EXPECT(&c, 200, NULL);
        EXPECT_EOF(&c);
        hang_up(&c);
        CHECK_INT(httpsrv_join(s.srv), HTTPSRV_OK);
        dispose(&s);
    }
    remove_dir();
}

TEST(descriptors_used_up_on_a_unix_socket) {
    make_dir();
    serve_places(&(httpsrv_config){.listen = {unix_path}, .reactors = 3, .max.connections = -1});
    use_up_descriptors(&(struct spot){.path = unix_file});
    finish(&s);
    remove_dir();
}

TEST(descriptors_used_up_on_a_unix_socket_with_an_acceptor) {
    make_dir();
    serve_places(&(httpsrv_config){.listen = {unix_path}, .reactors = 2, .acceptors = 1, .max.connections = -1});
    use_up_descriptors(&(struct spot){.path = unix_file});
    finish(&s);
    remove_dir();
}

// ---- again and again ----

static void check_again_and_again(const struct crew *crew) {
    enum { ROUNDS = 50, SETTLED = 10 };
    const int before = test_descriptors();
    int open = 0;
    size_t bytes = 0;
    httpsrv_config config = crew_config(crew, HTTPSRV_HANDOVER_LEAST);
    config.listen[0] = "127.0.0.1:0";
    config.listen[1] = unix_path;
    prepare_places(&config);
    for (int i = 0; i < ROUNDS; i++) {
        start_places();
        check_alive(&s);
        check_alive_unix(unix_file);
        struct client c = dial(s.port), d = dial_unix(unix_file);
        GET(&c, "/pool/place");
        EXPECT(&c, 200, NULL);
        end_round();
        EXPECT_EOF(&c);
        EXPECT_END(&d);
        hang_up(&c);
        hang_up(&d);
        if (i == 0) open = test_descriptors();
        if (i == SETTLED) bytes = LOAD(s.bytes);
    }
    CHECK_INT(test_descriptors(), open);
    CHECK_INT(LOAD(s.bytes), bytes);
    dispose(&s);
    CHECK_INT(test_descriptors(), before);
    CHECK_CMP(s.last.accepted, >=, 3 * ROUNDS);
}

TEST(again_and_again) {
    make_dir();
    check_again_and_again(&(struct crew){0, 2});
    check_again_and_again(&(struct crew){1, 2});
    check_again_and_again(&(struct crew){2, 3});
    remove_dir();
}

// ---- inherited sockets ----

static int listen_tcp(int *port) {
    struct sockaddr_storage address;
    socklen_t size = net_address(&address, "127.0.0.1", 0);
    const int fd = net_socket(AF_INET), off = 0;
    CHECK_INT(bind(fd, (struct sockaddr *)&address, size), 0);
    CHECK_INT(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &off, sizeof off), 0);
    CHECK_INT(listen(fd, 100), 0);
    CHECK_INT(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    *port = ntohs(((struct sockaddr_in *)&address)->sin_port);
    return fd;
}

static const char *fd_text(int fd, char out[16]) {
    snprintf(out, 16, "fd:%d", fd);
    return out;
}

static bool is_open(int fd) {
    return fcntl(fd, F_GETFD) >= 0;
}

// Whether a program that a handler starts would have it as well.
static bool is_passed_on(int fd) {
    return fcntl(fd, F_GETFD) == 0;
}

// The server's end of a connection to a port, which is in this process as well.
static int server_end(int port) {
    for (int fd = 3; fd < 1024; fd++) {
        struct sockaddr_in local, remote;
        socklen_t size = sizeof local, remote_size = sizeof remote;
        if (getsockname(fd, (struct sockaddr *)&local, &size) != 0 || local.sin_family != AF_INET) continue;
        if (ntohs(local.sin_port) == port && getpeername(fd, (struct sockaddr *)&remote, &remote_size) == 0) return fd;
    }
    return -1;
}

TEST(inherited_sockets_serve) {
    char one[16], two[16];
    make_dir();
    for (int acceptors = 0; acceptors < 3; acceptors++) {
        int port, nodelay = 0;
        socklen_t size = sizeof nodelay;
        const int tcp = listen_tcp(&port), un = listen_unix(unix_file, 100);
        NOTE("%d acceptors", acceptors);
        CHECK_INT(fcntl(tcp, F_SETFD, 0), 0);
        CHECK_INT(fcntl(un, F_SETFD, 0), 0);
        prepare_places(&(httpsrv_config){
            .listen = {fd_text(tcp, one), fd_text(un, two), "127.0.0.1:0"}, .reactors = 2, .acceptors = acceptors});
        CHECK_INT(httpsrv_port(s.srv, 0), -1);
        start_places();
        CHECK_INT(httpsrv_port(s.srv, 0), port);
        CHECK_INT(httpsrv_port(s.srv, 1), 0);
        CHECK_CMP(httpsrv_port(s.srv, 2), >, 0);
        struct client c = dial(port), d = dial_unix(unix_file), e = dial(httpsrv_port(s.srv, 2));
        for (int i = 0; i < 3; i++) {
            GET(&c, "/peer");
            EXPECT(&c, 200, "127.0.0.1");
            GET(&d, "/peer");
            EXPECT(&d, 200, "unix");
            GET(&e, "/pool/hello");
            EXPECT(&e, 200, HELLO);
        }
        CHECK(!is_passed_on(tcp) && !is_passed_on(un));
        CHECK_INT(getsockopt(server_end(port), IPPROTO_TCP, TCP_NODELAY, &nodelay, &size), 0);
        CHECK(nodelay != 0);
        hang_up(&c);
        hang_up(&d);
        hang_up(&e);
        end_round();
        CHECK(is_open(tcp) && is_open(un));
        CHECK_INT(httpsrv_port(s.srv, 0), -1);
        dispose(&s);
        CHECK(!is_open(tcp) && !is_open(un));
        CHECK(exists(unix_file)); // whoever made it removes it
        CHECK_INT(unlink(unix_file), 0);
    }
    remove_dir();
}

// What comes while a server drains, or after it, waits for the next one that has the socket.
static void check_taken_over(const httpsrv_config *from) {
    static struct server next;
    char mine[16], spare[16];
    int port;
    httpsrv_config config = *from;
    const int fd = listen_tcp(&port), other_fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    NOTE("%d acceptors", config.acceptors);
    config.listen[0] = fd_text(fd, mine);
    serve_places(&config);
    struct client busy = dial(port), queued, late;
    GET(&busy, "/pool/gate");
    WAIT(LOAD(s.arrived) == 1);
    httpsrv_stop(s.srv);
    WAIT(item(HTTPSRV_LOG_DRAINING) == (uint64_t)(config.reactors + config.acceptors));
    test_sleep(100);
    queued = dial(port);
    SEND(&queued, NEXT);
    EXPECT_SILENCE(&queued, 50);
    config.listen[0] = fd_text(other_fd, spare);
    prepare(&next, &config);
    route_all(&next, "", NULL);
    CHECK_INT(httpsrv_start(next.srv), HTTPSRV_OK);
    EXPECT(&queued, 200, HELLO); // by the next one, while the first still drains
    STORE(s.gate, 1);
    EXPECT(&busy, 200, NULL);
    EXPECT_EOF(&busy);
    hang_up(&busy);
    CHECK_INT(httpsrv_join(s.srv), HTTPSRV_OK);
    dispose(&s);
    late = dial(port);
    SEND(&late, NEXT);
    EXPECT(&late, 200, HELLO);
    hang_up(&late);
    hang_up(&queued);
    finish(&next);
    CHECK_INT(next.last.accepted, 2);
    CHECK_INT(s.last.accepted, 1);
    CHECK(net_refused(port));
}

TEST(inherited_sockets_outlive_the_drain) {
    check_taken_over(&(httpsrv_config){.reactors = 1});
    check_taken_over(&(httpsrv_config){.reactors = 3});
    check_taken_over(&(httpsrv_config){.reactors = 2, .acceptors = 2});
}

TEST(inherited_sockets_again_and_again) {
    char text[16];
    int port;
    const int fd = listen_tcp(&port), before = test_descriptors();
    prepare_places(&(httpsrv_config){.listen = {fd_text(fd, text)}, .reactors = 2});
    for (int i = 0; i < 5; i++) {
        struct client c = dial(port); // before there is anybody to take it
        SEND(&c, NEXT);
        start_places();
        EXPECT(&c, 200, HELLO);
        hang_up(&c);
        end_round();
    }
    dispose(&s);
    CHECK_INT(s.last.accepted, 5);
    CHECK_INT(test_descriptors(), before - 1);
    CHECK(net_refused(port));
}

// It says which one it was, and it is not ours to close.
static void check_bad_descriptor(const char *what, int fd) {
    char text[16];
    NOTE("%s", what);
    CHECK_INT(fcntl(fd, F_SETFD, 0), 0);
    check_refused(&(httpsrv_config){.listen = {fd_text(fd, text)}, .reactors = 2}, HTTPSRV_SYS, text, "");
    CHECK(is_open(fd));
    CHECK(is_passed_on(fd)); // nothing was changed
    close(fd);
}

TEST(inherited_bad_descriptors) {
    static const char *const bad[] = {
        "fd:", "fd:x", "fd:-1", "fd:+3", "fd: 3", "fd:3x", "fd:3,", "fd:4294967299", "fd:99999999999999999999"};
    int pair[2], port;
    for (size_t i = 0; i < ROWS(bad); i++) {
        NOTE("%s", bad[i]);
        check_refused(&(httpsrv_config){.listen = {bad[i]}}, HTTPSRV_ARG, bad[i], "");
    }
    check_refused(&(httpsrv_config){.listen = {"fd:1000"}}, HTTPSRV_SYS, "fd:1000", strerror(EBADF));
    check_refused(&(httpsrv_config){.listen = {"fd:2147483647"}}, HTTPSRV_SYS, "fd:2147483647", strerror(EBADF));
    check_bad_descriptor("a file", open("/dev/null", O_RDONLY | O_CLOEXEC));
    check_bad_descriptor("a socket that is not bound", net_socket(AF_INET));
    check_bad_descriptor("a datagram socket", socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    check_bad_descriptor("a pair", pair[0]);
    check_bad_descriptor("its other end", pair[1]);
    const int listener = listen_tcp(&port);
    struct client c = dial(port);
    check_bad_descriptor("a connection", dup(c.fd));
    check_bad_descriptor("its other end", accept(listener, NULL, NULL));
    hang_up(&c);
    close(listener);
}

// The number may belong to somebody else by the time that the server, which never had it, is freed.
TEST(inherited_refused_and_not_closed_later) {
    httpsrv *srv = httpsrv_new(&(httpsrv_config){.listen = {"fd:200"}});
    CHECK_INT(httpsrv_listen(srv), HTTPSRV_SYS);
    CHECK_INT(dup2(0, 200), 200);
    httpsrv_free(srv);
    CHECK(is_open(200));
    close(200);
}

// ---- systemd ----

// In a process of its own, so that descriptors from 3 on and the environment are its own.
static void in_child(void (*fn)(const void *), const void *arg) {
    int status = 0;
    fflush(stdout);
    const pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        fn(arg);
        _exit(0);
    }
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    if (status != 0) FAIL("a child ended with status %d", status); // which has said why
}

// Puts a descriptor where systemd would.
static void pass_on(int fd, int as) {
    CHECK_INT(dup2(fd, as), as);
    if (fd != as) close(fd);
}

static void set_environment(const char *pid, const char *fds) {
    char own[32];
    snprintf(own, sizeof own, "%d", (int)getpid());
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDS");
    if (pid) setenv("LISTEN_PID", strcmp(pid, "own") == 0 ? own : pid, 1);
    if (fds) setenv("LISTEN_FDS", fds, 1);
}

// Descriptors up to `to` that are out of the way of those to come.
static int listen_high(int to, int *port) {
    const int fd = listen_tcp(port), high = fcntl(fd, F_DUPFD_CLOEXEC, to);
    CHECK_CMP(high, >=, to);
    close(fd);
    return high;
}

static void serve_by_systemd(const void *arg) {
    const int reactors = *(const int *)arg;
    int port;
    const int tcp = listen_high(20, &port), low = listen_unix(unix_file, 10), un = fcntl(low, F_DUPFD_CLOEXEC, 20);
    close(low);
    pass_on(tcp, 3);
    pass_on(un, 4);
    set_environment("own", "2");
    serve_places(&(httpsrv_config){
        .listen = {"systemd", "127.0.0.1:0"}, .reactors = reactors, .acceptors = reactors > 1 ? 1 : 0});
    CHECK_INT(httpsrv_port(s.srv, 0), port);
    CHECK_INT(httpsrv_port(s.srv, 1), 0);
    CHECK_CMP(httpsrv_port(s.srv, 2), >, 0);
    CHECK_INT(httpsrv_port(s.srv, 3), -1);
    for (int i = 0; i < 3; i++) {
        struct client c = dial(port), d = dial_unix(unix_file), e = dial(httpsrv_port(s.srv, 2));
        GET(&c, "/peer");
        EXPECT(&c, 200, "127.0.0.1");
        GET(&d, "/peer");
        EXPECT(&d, 200, "unix");
        GET(&e, "/peer");
        EXPECT(&e, 200, "127.0.0.1");
        hang_up(&c);
        hang_up(&d);
        hang_up(&e);
    }
    CHECK(!is_passed_on(3) && !is_passed_on(4));
    end_round();
    CHECK(is_open(3) && is_open(4));
    dispose(&s);
    CHECK(!is_open(3) && !is_open(4));
}

TEST(systemd_serves) {
    make_dir();
    for (int reactors = 1; reactors < 3; reactors++) {
        in_child(serve_by_systemd, &reactors);
        CHECK_INT(unlink(unix_file), 0);
    }
    remove_dir();
}

struct systemd_case {
    const char *pid, *fds; // "own": of the process that asks
    const char *listen[HTTPSRV_MAX_LISTENERS];
    const char *error; // has this
};

static void refuse_systemd(const void *arg) {
    const struct systemd_case *row = (const struct systemd_case *)arg;
    httpsrv_config config = {.reactors = 1};
    int port;
    pass_on(listen_high(20, &port), 3);
    set_environment(row->pid, row->fds);
    memcpy(config.listen, row->listen, sizeof config.listen);
    check_refused(&config, HTTPSRV_ARG, row->error, "");
    CHECK(is_open(3));
}

TEST(systemd_refused) {
    static const struct systemd_case rows[] = {
        {NULL, NULL, {"systemd"}, "systemd"},
        {"own", NULL, {"systemd"}, "systemd"},
        {NULL, "1", {"systemd"}, "systemd"},
        {"1", "1", {"systemd"}, "systemd"}, // somebody else's
        {"", "1", {"systemd"}, "systemd"},
        {"x", "1", {"systemd"}, "systemd"},
        {"own", "", {"systemd"}, "systemd"},
        {"own", "0", {"systemd"}, "systemd"},
        {"own", "-1", {"systemd"}, "systemd"},
        {"own", "+1", {"systemd"}, "systemd"},
        {"own", " 1", {"systemd"}, "systemd"},
        {"own", "1x", {"systemd"}, "systemd"},
        {"own", "one", {"systemd"}, "systemd"},
        {"own", "9", {"systemd"}, "HTTPSRV_MAX_LISTENERS"},
        {"own", "2147483648", {"systemd"}, "HTTPSRV_MAX_LISTENERS"},
        {"own", "4294967297", {"systemd"}, "HTTPSRV_MAX_LISTENERS"},
        {"own", "99999999999999999999", {"systemd"}, "systemd"},
        {"own", "8", {"127.0.0.1:0", "systemd"}, "HTTPSRV_MAX_LISTENERS"},
        {"own", "8", {"systemd", "127.0.0.1:0"}, "HTTPSRV_MAX_LISTENERS"},
        {"own", "1", {"systemd:"}, "systemd:"},
    };
    for (size_t i = 0; i < ROWS(rows); i++) {
        NOTE("LISTEN_PID %s, LISTEN_FDS %s", rows[i].pid ? rows[i].pid : "unset", rows[i].fds ? rows[i].fds : "unset");
        in_child(refuse_systemd, &rows[i]);
    }
}

static void serve_as_many_as_there_may_be(const void *arg) {
    int ports[HTTPSRV_MAX_LISTENERS];
    (void)arg;
    for (int i = 0; i < HTTPSRV_MAX_LISTENERS; i++)
        pass_on(listen_high(20, &ports[i]), 3 + i);
    char count[16];
    snprintf(count, sizeof count, "%d", HTTPSRV_MAX_LISTENERS);
    set_environment("own", count);
    serve_places(&(httpsrv_config){.listen = {"systemd"}});
    for (int i = 0; i < HTTPSRV_MAX_LISTENERS; i++) {
        struct client c = dial(ports[i]);
        GET(&c, "/hello");
        EXPECT(&c, 200, HELLO);
        hang_up(&c);
    }
    finish(&s);
}

static void refuse_what_does_not_listen(const void *arg) {
    int port;
    (void)arg;
    pass_on(listen_high(20, &port), 3);
    pass_on(open("/dev/null", O_RDONLY), 4);
    set_environment("own", "2");
    check_refused(&(httpsrv_config){.listen = {"systemd"}}, HTTPSRV_SYS, "fd:4", strerror(ENOTSOCK));
}

TEST(systemd_at_the_limit) {
    in_child(serve_as_many_as_there_may_be, NULL);
    in_child(refuse_what_does_not_listen, NULL);
}

// ---- a port in use ----

static const httpsrv_config many_ways[] = {
    {.reactors = 1}, {.reactors = 4}, {.reactors = 2, .acceptors = 1}, {.reactors = 2, .acceptors = 2}};

// A connection that sends nothing stays with the kernel.
TEST(defer_accept) {
    for (int deferred = 0; deferred < 2; deferred++) {
        serve_places(&(httpsrv_config){.defer_accept = deferred == 1});
        struct client c = dial(s.port);
        test_sleep(300);
        CHECK_INT(metrics(&s).accepted, 1 - deferred);
        GET(&c, "/hello");
        EXPECT(&c, 200, NULL);
        CHECK_INT(metrics(&s).accepted, 1);
        hang_up(&c);
        finish(&s);
    }
}

static void check_port_in_use(int port) {
    char address[32];
    snprintf(address, sizeof address, "127.0.0.1:%d", port);
    for (size_t i = 0; i < ROWS(many_ways); i++) {
        httpsrv_config config = many_ways[i];
        config.listen[0] = address;
        check_refused(&config, HTTPSRV_SYS, address, strerror(EADDRINUSE));
        config.listen[0] = NULL;
        config.host = "127.0.0.1";
        config.port = port;
        check_refused(&config, HTTPSRV_SYS, address, strerror(EADDRINUSE));
    }
}

TEST(port_in_use) {
    int port;
    const int fd = listen_tcp(&port);
    check_port_in_use(port);
    close(fd);
    for (size_t i = 0; i < ROWS(many_ways); i++) {
        NOTE("taken in way %zu", i);
        serve_places(&many_ways[i]);
        check_port_in_use(s.port);
        for (int k = 0; k < 20; k++)
            check_alive(&s); // nobody has joined in and swallows connections
        finish(&s);
        CHECK_INT(s.last.accepted, 20);
    }
}

TEST(port_used_twice_by_one_server) {
    char address[32];
    serve_places(&many_ways[0]);
    snprintf(address, sizeof address, "127.0.0.1:%d", s.port);
    finish(&s);
    for (size_t i = 0; i < ROWS(many_ways); i++) {
        httpsrv_config config = many_ways[i];
        config.listen[0] = config.listen[1] = address;
        check_refused(&config, HTTPSRV_SYS, address, strerror(EADDRINUSE));
        config.listen[1] = NULL; // and nothing of it was left behind
        serve_places(&config);
        check_alive(&s);
        finish(&s);
    }
}

// ---- threads: names and CPUs ----

// The CPUs of this process, one by one, as list_cpus() writes them. How many.
static int own_cpus(char cpus[MAX_CPUS][8]) {
    char all[1024];
    int n = 0;
    list_cpus(0, all, sizeof all);
    for (char *rest = all, *one; n < MAX_CPUS && (one = strtok_r(rest, ",", &rest)) != NULL; n++)
        snprintf(cpus[n], 8, "%.7s", one);
    CHECK_CMP(n, >, 0);
    return n;
}

// Looks for a thread by its name; the number of those that have it. The last one's CPUs are listed.
static int find_thread(const char *name, struct place *place) {
    DIR *dir_of_tasks = opendir("/proc/self/task");
    int found = 0;
    CHECK(dir_of_tasks != NULL);
    for (struct dirent *entry = readdir(dir_of_tasks); entry; entry = readdir(dir_of_tasks)) {
        char file[300];
        snprintf(file, sizeof file, "/proc/self/task/%s/comm", entry->d_name);
        FILE *comm = fopen(file, "r");
        if (!comm) continue;
        if (fgets(place->thread, sizeof place->thread, comm)) place->thread[strcspn(place->thread, "\n")] = 0;
        fclose(comm);
        if (strcmp(place->thread, name) != 0) continue;
        list_cpus(atoi(entry->d_name), place->cpus, sizeof place->cpus);
        found++;
    }
    closedir(dir_of_tasks);
    return found;
}

#define FIND_THREAD(name, place) (TEST_HERE(), wait_for_thread((name), (place)))

// A thread names itself when it gets to run.
static void wait_for_thread(const char *name, struct place *place) {
    const int64_t until = test_now() + test_ms(10000);
    while (find_thread(name, place) == 0) {
        if (test_now() > until) FAIL("no thread is named %s", name);
        test_sleep(1);
    }
    CHECK_INT(find_thread(name, place), 1);
}

TEST(names_of_threads) {
    struct place place;
    char before[16], after[16];
    prctl(PR_GET_NAME, before);
    serve_places(&(httpsrv_config){.reactors = 2,
                                   .acceptors = 2,
                                   .handover = HTTPSRV_HANDOVER_TURNS,
                                   .pools = {{.name = "work", .threads = 1}, {.name = "0123456789abcdefghi"}}});
    static const char *const names[] = {"httpsrv/0", "httpsrv/1", "accept/0", "accept/1", "work/0"};
    for (size_t i = 0; i < ROWS(names); i++)
        FIND_THREAD(names[i], &place);
    CHECK_INT(find_thread("httpsrv/2", &place), 0);
    CHECK_INT(find_thread("accept/2", &place), 0);
    CHECK_INT(find_thread("work/1", &place), 0);
    WAIT(find_thread("0123456789abcde", &place) > 0); // no more fits
    for (int i = 0; i < 4; i++) {
        struct client c = dial(s.port);
        (void)reactor_of(&c); // "httpsrv/n"
        place = ask_place(&c, "/pool/place");
        CHECK_STR(place.thread, "work/0");
        hang_up(&c);
    }
    finish(&s);
    prctl(PR_GET_NAME, after);
    CHECK_STR(after, before);
}

// On which CPU the n-th thread of a server is, counted round and round. Without affinity: on any.
static void check_cpu(const struct place *place, int n) {
    char cpus[MAX_CPUS][8];
    const int count = own_cpus(cpus);
    CHECK_STR(place->cpus, cpus[n % count]);
}

enum { REACTORS = 3, ACCEPTORS = 2 };

static void serve_with_affinity(bool affinity) {
    serve_places(&(httpsrv_config){.reactors = REACTORS,
                                   .acceptors = ACCEPTORS,
                                   .handover = HTTPSRV_HANDOVER_TURNS,
                                   .affinity = affinity,
                                   .pools = {{.name = "work", .threads = 3}, {.name = "more", .threads = 1}}});
}

// Reactors, then acceptors, then workers: pool by pool.
static void check_all_cpus(void) {
    static const char *const names[] = {"httpsrv/0", "httpsrv/1", "httpsrv/2", "accept/0", "accept/1",
                                        "work/0",    "work/1",    "work/2",    "more/0"};
    struct client c[REACTORS];
    struct place place;
    serve_with_affinity(true);
    for (int i = 0; i < REACTORS + 1; i++) {
        struct client busy = dial(s.port); // so that everybody has begun to run
        (void)reactor_of(&busy);
        hang_up(&busy);
    }
    for (int i = 0; i < (int)ROWS(names); i++) {
        char cpus[MAX_CPUS][8];
        const char *cpu = cpus[i % own_cpus(cpus)];
        NOTE("%s", names[i]);
        FIND_THREAD(names[i], &place);
        WAIT(find_thread(names[i], &place) == 1 && strcmp(place.cpus, cpu) == 0);
    }
    for (int i = 0; i < REACTORS; i++) { // and so say the handlers
        c[i] = dial(s.port);
        place = ask_place(&c[i], "/place");
        check_cpu(&place, atoi(place.thread + strlen("httpsrv/")));
        place = ask_place(&c[i], "/pool/place");
        check_cpu(&place, REACTORS + ACCEPTORS + atoi(place.thread + strlen("work/")));
    }
    hang_up_all(c, REACTORS);
    finish(&s);
}

TEST(affinity) {
    char before[1024], after[1024];
    list_cpus(0, before, sizeof before);
    check_all_cpus();
    list_cpus(0, after, sizeof after);
    CHECK_STR(after, before);
}

// Of the CPUs that the process has, which are not all of them.
TEST(affinity_within_what_the_process_has) {
    cpu_set_t set;
    char cpus[MAX_CPUS][8];
    CPU_ZERO(&set);
    CPU_SET((size_t)atoi(cpus[own_cpus(cpus) - 1]), &set);
    CHECK_INT(sched_setaffinity(0, sizeof set, &set), 0);
    check_all_cpus();
}

// ---- steering ----

enum { STEERED = 8 }; // clients on each CPU: by chance they would all come to the right reactor once in 2^8 times

// Clients of each CPU come to the reactor that is bound to it.
static void check_steered(int address) {
    char cpus[MAX_CPUS][8];
    cpu_set_t all, one;
    const int count = own_cpus(cpus);
    CHECK_INT(sched_getaffinity(0, sizeof all, &all), 0);
    for (int i = 0; i < count; i++) {
        struct client c[STEERED];
        CPU_ZERO(&one);
        CPU_SET((size_t)atoi(cpus[i]), &one);
        CHECK_INT(sched_setaffinity(0, sizeof one, &one), 0);
        for (int k = 0; k < STEERED; k++) {
            NOTE("client %d on CPU %s", k, cpus[i]);
            c[k] = dial(httpsrv_port(s.srv, address));
            CHECK_INT(reactor_of(&c[k]), i);
        }
        hang_up_all(c, STEERED);
    }
    CHECK_INT(sched_setaffinity(0, sizeof all, &all), 0);
}

TEST(steering) {
    char cpus[MAX_CPUS][8];
    make_dir();
    serve_places(&(httpsrv_config){.listen = {"127.0.0.1:0", unix_path, "127.0.0.1:0"},
                                   .reactors = own_cpus(cpus),
                                   .affinity = true,
                                   .steer = true});
    for (int round = 0; round < 2; round++) { // the sockets of each are new
        check_steered(0);
        check_steered(2);
        end_round();
        if (round == 0) start_places();
    }
    dispose(&s);
    remove_dir();
}

// Nothing to steer by: any client comes to some reactor.
TEST(steering_with_one_reactor_or_many) {
    char cpus[MAX_CPUS][8];
    const int reactors[] = {1, own_cpus(cpus) + 1};
    for (size_t i = 0; i < ROWS(reactors); i++) {
        serve_places(&(httpsrv_config){.reactors = reactors[i], .affinity = true, .steer = true});
        for (int k = 0; k < STEERED; k++) {
            check_alive(&s);
        }
        finish(&s);
    }
}

TEST(what_steering_wants) {
    check_refused(&(httpsrv_config){.reactors = 2, .steer = true}, HTTPSRV_ARG, "steer", "affinity");
    check_refused(&(httpsrv_config){.reactors = 2, .acceptors = 1, .affinity = true, .steer = true}, HTTPSRV_ARG,
                  "steer", "accept");
}

TEST(no_affinity_unless_asked_for) {
    char all[1024];
    list_cpus(0, all, sizeof all);
    serve_with_affinity(false);
    for (int i = 0; i < REACTORS; i++) {
        struct client c = dial(s.port);
        struct place place = ask_place(&c, "/place");
        CHECK_STR(place.cpus, all);
        place = ask_place(&c, "/pool/place");
        CHECK_STR(place.cpus, all);
        hang_up(&c);
    }
    finish(&s);
}

struct runner {
    char before[1024], after[1024], name[16];
    httpsrv_result result;
};

static void *run_thread(void *arg) {
    struct runner *runner = (struct runner *)arg;
    prctl(PR_SET_NAME, "mine");
    list_cpus(0, runner->before, sizeof runner->before);
    runner->result = httpsrv_run(s.srv);
    list_cpus(0, runner->after, sizeof runner->after);
    prctl(PR_GET_NAME, runner->name);
    return NULL;
}

// The thread that calls httpsrv_run is the first reactor as long as it is in there, and has its own CPUs and name.
TEST(affinity_of_the_caller) {
    struct runner runner;
    pthread_t thread;
    prepare_places(
        &(httpsrv_config){.reactors = 2, .acceptors = 1, .handover = HTTPSRV_HANDOVER_TURNS, .affinity = true});
    CHECK_INT(httpsrv_listen(s.srv), HTTPSRV_OK);
    s.port = httpsrv_port(s.srv, 0);
    for (int round = 0; round < 2; round++) {
        int mine = 0;
        CHECK_INT(pthread_create(&thread, NULL, run_thread, &runner), 0);
        for (int i = 0; i < 4; i++) {
            struct client c = dial(s.port);
            const struct place place = ask_place(&c, "/place");
            const bool is_mine = strcmp(place.thread, "mine") == 0;
            mine += is_mine;
            check_cpu(&place, is_mine ? 0 : 1);
            hang_up(&c);
        }
        CHECK_INT(mine, 2);
        httpsrv_stop(s.srv);
        pthread_join(thread, NULL);
        CHECK_INT(runner.result, HTTPSRV_OK);
        CHECK_STR(runner.after, runner.before);
        CHECK_STR(runner.name, "mine");
        CHECK_INT(httpsrv_listen(s.srv), HTTPSRV_OK);
        s.port = httpsrv_port(s.srv, 0);
    }
    dispose(&s);
}
