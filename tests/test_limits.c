// max.per_ip: connections open at once from one address, over real sockets.

// The one call that tells the server who connects, so that clients can come from IPv6 networks that this machine has
// not got. See disguise().
#define HTTPSRV_SEAM "tests/seam_accept.h"

#define HTTPSRV_IMPLEMENTATION
#include "../httpsrv.h"

#undef hsrv_sys_accept

#include "server.h"
#include <pthread.h>
#include <sys/un.h>

#define HOME "127.0.0.1"

// Rounds: fewer where the sanitizers slow everything down.
#define ROUNDS(n) TEST_FEWER(n, 4)

static struct server s;

static uint64_t item(httpsrv_log_item i) {
    return metrics(&s).items[i];
}

static uint64_t crowded(void) {
    return item(HTTPSRV_LOG_TOO_MANY_FROM_ADDRESS);
}

// ---- who connects ----

static bool disguising; // set before the server starts

// Whoever comes from 127.99.x.y is 2001:db8:0:x:y00:ffff:0:y to the server: y sets the first bits behind the network,
// and the bytes in the middle are those that an IPv4 address in IPv6 has there.
static void disguise(struct sockaddr_storage *address, socklen_t *len) {
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    memcpy(&v4, address, sizeof v4);
    const uint32_t from = ntohl(v4.sin_addr.s_addr);
    if (!disguising || v4.sin_family != AF_INET || from >> 16 != (127u << 8 | 99u)) return;
    memset(&v6, 0, sizeof v6);
    v6.sin6_family = AF_INET6;
    v6.sin6_port = v4.sin_port;
    const unsigned char x = (unsigned char)(from >> 8), y = (unsigned char)from;
    const unsigned char bytes[16] = {0x20, 1, 0x0d, 0xb8, 0, 0, 0, x, y, 0, 0xff, 0xff, 0, 0, 0, y};
    memcpy(&v6.sin6_addr, bytes, sizeof bytes);
    memcpy(address, &v6, sizeof v6);
    *len = sizeof v6;
}

static int hooked_accept(int listener, struct sockaddr *address, socklen_t *len) {
    const int fd = hsrv_sys_accept(listener, address, len);
    if (fd >= 0 && address) disguise((struct sockaddr_storage *)(void *)address, len);
    return fd;
}

static struct client dial_from(const char *from, int port) {
    struct sockaddr_storage address;
    socklen_t size = net_address(&address, from, 0);
    struct client c = net_client(net_socket(net_family(from)));
    CHECK_INT(bind(c.fd, (struct sockaddr *)&address, size), 0);
    c.error = net_connect(c.fd, strchr(from, ':') ? from : HOME, port);
    NET_CHECK(&c, c.error == 0, "cannot connect");
    return c;
}

// ---- coming in, and not ----

// Reads a refusal to its end; nothing may be missing.
static void check_refusal(struct client *c) {
    EXPECT(c, 503, NULL);
    CHECK_STR(field(c, "Retry-After"), "1");
    CHECK_STR(field(c, "Connection"), "close");
    CHECK_CMP(c->length, >=, 0);
    EXPECT_EOF(c);
}

// Whether a client is served; if not, its refusal is complete. Either way the connection stays open on this side.
static bool tries_from(struct client *c, const char *from, int port) {
    *c = dial_from(from, port);
    (void)net_send_some(c, NEXT, strlen(NEXT), net_deadline());
    net_need(c, strlen("HTTP/1.1 xxx"));
    if (memcmp(c->buf + c->at + 9, "503", 3) == 0) {
        check_refusal(c);
        return false;
    }
    EXPECT(c, 200, HELLO);
    return true;
}

static struct client enter_from(const char *from) {
    struct client c;
    NOTE("from %s", from);
    if (!tries_from(&c, from, s.port)) FAIL("refused though there is room");
    return c;
}

static void refused_from(const char *from) {
    struct client c;
    NOTE("from %s", from);
    if (tries_from(&c, from, s.port)) FAIL("served over the limit");
    hang_up(&c);
}

static void still_served(struct client *c) {
    SEND(c, NEXT);
    EXPECT(c, 200, HELLO);
}

// The last ones: afterwards nobody is there.
static void leave(struct client *c, int n) {
    while (n > 0)
        hang_up(&c[--n]);
    WAIT(metrics(&s).connections == 0);
}

static void serve_per_ip(int per_ip) {
    serve(&s, &(httpsrv_config){.max.per_ip = per_ip});
}

// ---- at the limit, and one past it ----

TEST(at_the_limit_and_past_it) {
    struct client in[3], other[3];
    serve_per_ip(3);
    for (int i = 0; i < 3; i++)
        in[i] = enter_from(HOME);
    for (int i = 0; i < 6; i++) {
        struct client out = dial(s.port);
        if (i % 2) (void)net_send_some(&out, NEXT, strlen(NEXT), net_deadline()); // one that asks, one that does not
        check_refusal(&out);
        hang_up(&out);
    }
    for (int i = 0; i < 3; i++) {
        other[i] = enter_from("127.0.0.2"); // somebody else is not affected
        still_served(&in[i]);
    }
    refused_from("127.0.0.2");
    refused_from(HOME);
    CHECK_INT(crowded(), 8);
    CHECK_INT(item(HTTPSRV_LOG_TOO_MANY_CONNECTIONS), 0);
    hang_up(&in[1]);
    WAIT(metrics(&s).connections == 5);
    in[1] = enter_from(HOME); // one place is free, not two
    refused_from(HOME);
    refused_from("127.0.0.2");
    hang_up_all(other, 3);
    leave(in, 3);
    finish(&s);
    CHECK_INT(s.last.accepted, 17);
    CHECK_INT(s.last.answers[5], 10);
}

TEST(one_and_no_more) {
    serve_per_ip(1);
    for (int i = 0; i < 5; i++) {
        struct client c = enter_from(HOME);
        refused_from(HOME);
        leave(&c, 1);
    }
    finish(&s);
}

TEST(off_by_default) {
    static struct client c[200];
    static const int off[] = {0, -1};
    for (size_t row = 0; row < ROWS(off); row++) {
        serve_per_ip(off[row]);
        for (size_t i = 0; i < ROWS(c); i++)
            c[i] = enter_from(HOME);
        CHECK_INT(metrics(&s).connections, ROWS(c));
        leave(c, ROWS(c));
        finish(&s);
    }
}

TEST(two_hundred_of_two_hundred) {
    static struct client c[200];
    serve_per_ip((int)ROWS(c));
    for (size_t i = 0; i < ROWS(c); i++)
        c[i] = enter_from(HOME);
    refused_from(HOME);
    leave(c, ROWS(c));
    finish(&s);
}

struct record {
    uint64_t seen;
    httpsrv_log_level level;
    char text[64], peer[64];
};

static void keep_record(const httpsrv_log *log, void *user) {
    struct record *record = (struct record *)user;
    if (log->item != HTTPSRV_LOG_TOO_MANY_FROM_ADDRESS) return;
    record->level = log->level;
    snprintf(record->text, sizeof record->text, "%s", log->text);
    snprintf(record->peer, sizeof record->peer, "%.*s", HTTPSRV_FMT(log->peer));
    COUNT(record->seen);
}

TEST(the_log_says_who_it_was) {
    static struct record record;
    s.srv =
        httpsrv_new(&(httpsrv_config){.host = HOME, .max.per_ip = 1, .logger = {.fn = keep_record, .user = &record}});
    httpsrv_on(s.srv, "GET /hello", on_hello, &s);
    go(&s);
    struct client c = enter_from("127.0.0.3");
    CHECK_INT(LOAD(record.seen), 0);
    refused_from("127.0.0.3");
    WAIT(LOAD(record.seen) == 1);
    CHECK_INT(record.level, HTTPSRV_LEVEL_WARNING);
    CHECK_STR(record.text, "too many connections from one address");
    CHECK_STR(record.peer, "127.0.0.3");
    hang_up(&c);
    httpsrv_free(s.srv);
}

TEST(bad_and_good_values) {
    static const struct {
        int per_ip;
        httpsrv_result result;
    } rows[] = {{1048577, HTTPSRV_ARG}, {INT_MAX, HTTPSRV_ARG}, {HTTPSRV_ZERO, HTTPSRV_ARG},
                {1048576, HTTPSRV_OK},  {1, HTTPSRV_OK},        {-1, HTTPSRV_OK},
                {-77, HTTPSRV_OK}};
    for (size_t i = 0; i < ROWS(rows); i++) {
        NOTE("per_ip %d", rows[i].per_ip);
        httpsrv *srv = httpsrv_new(&(httpsrv_config){.host = HOME, .max.per_ip = rows[i].per_ip});
        CHECK_INT(httpsrv_listen(srv), rows[i].result);
        if (rows[i].result != HTTPSRV_OK) CHECK_HAS(httpsrv_error(srv), "max.per_ip");
        httpsrv_free(srv);
    }
}

// ---- the refusal ----

// It arrives whole at a client that goes on sending, and waits for that client only so long.
TEST(refusals_reach_a_client_that_sends_on) {
    struct client in;
    serve_per_ip(1);
    in = enter_from(HOME);
    for (int i = 0; i < 6; i++) {
        struct client c = dial(s.port);
        SEND(&c, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000\r\n\r\n");
        if (i % 3 == 1) test_sleep(20);
        for (int piece = 0; piece < 20; piece++) {
            net_send(&c, blob, 100000);
            if (i % 3 == 2) test_sleep(2);
        }
        check_refusal(&c);
        hang_up(&c);
    }
    WAIT(metrics(&s).connections == 1);
    still_served(&in);
    leave(&in, 1);
    finish(&s);
}

TEST(lingering_ends) {
    struct client in;
    serve_per_ip(1);
    in = enter_from(HOME);
    struct client c = dial(s.port);
    check_refusal(&c);
    for (int64_t deadline = test_now() + test_ms(8000); metrics(&s).connections > 1; test_sleep(20)) {
        (void)net_send_some(&c, "x", 1, net_deadline());
        CHECK_CMP(test_now(), <, deadline);
    }
    hang_up(&c);
    leave(&in, 1);
    finish(&s);
}

// Refused clients that do not close are no reason to refuse the next one. Each try leaves one more of them behind, so
// if they counted there would never be room.
TEST(refused_connections_do_not_count) {
    static struct client out[60];
    struct client in;
    size_t n = 0;
    serve_per_ip(1);
    in = enter_from(HOME);
    while (n < 10)
        CHECK(!tries_from(&out[n++], HOME, s.port));
    hang_up(&in);
    while (!tries_from(&out[n++], HOME, s.port)) {
        CHECK_CMP(n, <, ROWS(out));
        test_sleep(20);
    }
    leave(out, (int)n);
    finish(&s);
}

// A flood: so many are told, the rest are closed, all are counted, and whoever is in does not notice.
TEST(more_refusals_than_can_be_told) {
    static struct client out[150];
    struct client in, other;
    int told = 0;
    serve_per_ip(1);
    in = enter_from(HOME);
    for (size_t i = 0; i < ROWS(out); i++)
        out[i] = dial(s.port);
    WAIT(crowded() == ROWS(out));
    still_served(&in);
    other = enter_from("127.0.0.2");
    for (size_t i = 0; i < ROWS(out); i++) {
        if (net_until_end(&out[i]) == 0) continue;
        check_refusal(&out[i]);
        told++;
    }
    CHECK_CMP(told, >=, 16);
    hang_up_all(out, ROWS(out));
    WAIT(metrics(&s).connections == 2);
    refused_from(HOME); // and there is room to tell again
    hang_up(&other);
    leave(&in, 1);
    finish(&s);
}

// ---- places come back ----

static void leave_plainly(struct client *c) {
    still_served(c);
}

static void wait_until_in(void) {
    WAIT(metrics(&s).connections == 1);
}

static void leave_silent(struct client *c) {
    (void)c;
    wait_until_in();
}

static void leave_by_reset(struct client *c) {
    still_served(c);
    net_reset(c);
}

static void leave_by_half(struct client *c) {
    SEND(c, NEXT);
    half_close(c);
    EXPECT(c, 200, HELLO);
    EXPECT_EOF(c);
}

static void leave_by_request(struct client *c) {
    SEND(c, "GET /hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    EXPECT(c, 200, HELLO);
    EXPECT_EOF(c);
}

static void leave_as_refused(struct client *c) {
    SEND(c, "GET /hello HTTP/1.1\r\n\r\n");
    EXPECT(c, 400, NULL);
    EXPECT_EOF(c);
}

static void leave_in_head(struct client *c) {
    SEND(c, "GET /hel");
    wait_until_in();
}

static void leave_in_body(struct client *c) {
    SEND(c, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhello");
    wait_until_in();
}

static void leave_in_answer(struct client *c) {
    GET(c, "/borrow/8388608");
    net_need(c, 1000);
    net_reset(c);
}

TEST(places_come_back_however_a_client_leaves) {
    static void (*const ways[])(struct client *) = {leave_plainly, leave_silent,     leave_by_reset,
                                                    leave_by_half, leave_by_request, leave_as_refused,
                                                    leave_in_head, leave_in_body,    leave_in_answer};
    serve_per_ip(1);
    for (size_t i = 0; i < (size_t)ROUNDS(900); i++) {
        NOTE("round %zu", i);
        struct client c = dial(s.port);
        ways[i % ROWS(ways)](&c);
        leave(&c, 1);
    }
    CHECK_INT(crowded(), 0);
    struct client c = enter_from(HOME);
    refused_from(HOME); // nor have they come to be more
    leave(&c, 1);
    finish(&s);
    CHECK_INT(s.last.accepted, ROUNDS(900) + 2);
}

TEST(places_come_back_after_timeouts) {
    serve(&s, &(httpsrv_config){.max.per_ip = 2, .timeout_ms = {.idle = 50, .head = 50, .body = 50}});
    for (int i = 0; i < 4; i++) {
        struct client idle = dial(s.port), other = dial(s.port);
        if (i % 2) SEND(&other, "GET /hel");
        if (i % 2 == 0) SEND(&other, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhello");
        EXPECT_EOF(&idle);
        EXPECT(&other, 408, NULL);
        EXPECT_EOF(&other);
        hang_up(&idle);
        leave(&other, 1);
    }
    CHECK_INT(crowded(), 0);
    finish(&s);
}

// A client that has gone is not there any more, even if a worker still has its request.
TEST(an_orphan_keeps_no_place) {
    prepare(&s, &(httpsrv_config){.max.per_ip = 1, .pools = {{.name = "work", .threads = 2}}});
    route_all(&s, "", NULL);
    route_all(&s, "/pool", "work");
    go(&s);
    for (int i = 1; i <= 2; i++) {
        struct client c = dial(s.port);
        GET(&c, "/pool/gate");
        WAIT(LOAD(s.arrived) == i);
        refused_from(HOME);
        net_reset(&c);
        WAIT(LOAD(s.gone) == i);
        WAIT(metrics(&s).connections == 0);
    }
    struct client c = enter_from(HOME);
    STORE(s.gate, 1);
    WAIT(LOAD(s.left) == 2);
    refused_from(HOME);
    leave(&c, 1);
    finish(&s);
}

// What a stopped server had counted is not there when it listens again.
TEST(listens_again_with_all_places) {
    struct client c[3];
    prepare(&s, &(httpsrv_config){.max.per_ip = 3});
    route_all(&s, "", NULL);
    for (int round = 0; round < 3; round++) {
        go(&s);
        for (int i = 0; i < 3; i++)
            c[i] = enter_from(HOME);
        refused_from(HOME);
        httpsrv_stop(s.srv);
        CHECK_INT(httpsrv_join(s.srv), HTTPSRV_OK);
        leave(c, 3);
    }
    dispose(&s);
}

// ---- memory ----

static int grants; // atomic: how many more allocations succeed

static void *scarce_realloc(void *user, void *ptr, size_t old_size, size_t new_size) {
    if (new_size > old_size && __atomic_sub_fetch(&grants, 1, __ATOMIC_ACQ_REL) < 0) return NULL;
    return counting_realloc(user, ptr, old_size, new_size);
}

// A connection that there is no memory for, be it for its entry in the table or for itself, takes no place.
TEST(no_memory_no_place) {
    struct client c[2];
    for (int granted = 0; granted < 2; granted++) {
        STORE(grants, INT_MAX);
        prepare(&s, &(httpsrv_config){.max.per_ip = 2, .allocator = {.fn = scarce_realloc, .user = &s}});
        route_all(&s, "", NULL);
        go(&s);
        STORE(grants, granted);
        for (uint64_t i = 1; i <= 5; i++) {
            struct client out = dial(s.port);
            NOTE("%d grants, client %d", granted, (int)i);
            WAIT(item(HTTPSRV_LOG_NO_MEMORY) == i);
            hang_up(&out);
        }
        WAIT(metrics(&s).connections == 0);
        STORE(grants, INT_MAX);
        for (int i = 0; i < 2; i++)
            c[i] = enter_from(HOME);
        refused_from(HOME);
        leave(c, 2);
        finish(&s);
    }
}

static void enter_all(struct client *c, int n, int round) {
    for (int i = 0; i < n; i++) {
        char from[32];
        snprintf(from, sizeof from, "127.%d.%d.7", round + 10, i);
        c[i] = enter_from(from);
        refused_from(from);
    }
}

// Addresses that are not there any more cost nothing.
TEST(addresses_without_number) {
    static struct client c[250];
    uint64_t memory[3];
    serve_per_ip(1);
    for (int round = 0; round < 3; round++) {
        enter_all(c, ROWS(c), round);
        leave(c, ROWS(c));
        memory[round] = metrics(&s).memory;
    }
    NOTE("after the first round %" PRIu64, memory[0]);
    CHECK_CMP(memory[2], <=, memory[0] + 4096);
    finish(&s);
    CHECK_INT(s.last.items[HTTPSRV_LOG_TOO_MANY_FROM_ADDRESS], 3 * ROWS(c));
}

// ---- against a model ----

#define ADDRESSES 6
#define PLACES    4

static uint32_t random_next(uint32_t n) {
    static uint32_t state = 2463534242u;
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return state % n;
}

static void come(struct client (*c)[PLACES], int *open, int address) {
    char from[32];
    snprintf(from, sizeof from, "127.0.%d.%d", address / 3, 1 + address);
    if (open[address] == PLACES)
        refused_from(from);
    else
        c[address][open[address]] = enter_from(from);
    open[address] += open[address] < PLACES;
}

static uint64_t sum(const int *open) {
    uint64_t n = 0;
    for (int i = 0; i < ADDRESSES; i++)
        n += (uint64_t)open[i];
    return n;
}

static void go_away(struct client (*c)[PLACES], int *open, int address) {
    if (open[address] == 0) return;
    WAIT(metrics(&s).connections == sum(open)); // the refused ones are gone
    struct client *last = &c[address][--open[address]];
    still_served(last);
    if (random_next(2)) net_reset(last);
    hang_up(last);
    WAIT(metrics(&s).connections == sum(open));
}

TEST(random_comings_and_goings) {
    static struct client c[ADDRESSES][PLACES];
    int open[ADDRESSES] = {0};
    serve_per_ip(PLACES);
    for (int i = 0; i < ROUNDS(1200); i++) {
        int address = (int)random_next(ADDRESSES);
        if (random_next(5) < 3)
            come(c, open, address);
        else
            go_away(c, open, address);
    }
    for (int address = 0; address < ADDRESSES; address++)
        while (open[address] > 0)
            go_away(c, open, address);
    CHECK_CMP(crowded(), >, 0);
    finish(&s);
}

// ---- IPv6 ----

// The two are no relatives, on whichever listener they come.
TEST(ipv6_beside_ipv4) {
    if (!net_has_ipv6()) SKIP("this machine has no IPv6");
    static const char *const hosts[] = {HOME, "::1"};
    struct client c[2][2], out;
    serve(&s, &(httpsrv_config){.listen = {"*:0", "127.0.0.1:0", "[::1]:0"}, .max.per_ip = 2});
    for (int i = 0; i < 2; i++) {
        int own = httpsrv_port(s.srv, 1 + i);
        CHECK(tries_from(&c[i][0], hosts[i], s.port));
        CHECK(tries_from(&c[i][1], hosts[i], own));
        CHECK(!tries_from(&out, hosts[i], s.port));
        hang_up(&out);
        CHECK(!tries_from(&out, hosts[i], own));
        hang_up(&out);
    }
    CHECK_INT(crowded(), 4);
    hang_up(&c[1][0]);
    WAIT(metrics(&s).connections == 3);
    CHECK(!tries_from(&out, HOME, s.port));
    hang_up(&out);
    CHECK(tries_from(&c[1][0], "::1", s.port));
    leave(&c[0][0], 4);
    finish(&s);
}

// Whoever has one address of IPv6 has 2^64 of them.
TEST(ipv6_by_the_first_64_bits) {
    static const char *const network[] = {"127.99.2.0", "127.99.2.128", "127.99.2.255", "127.99.2.1", "127.99.2.3"};
    struct client c[3], next[3];
    disguising = true;
    prepare(&s, &(httpsrv_config){.max.per_ip = 3});
    route_all(&s, "", NULL);
    httpsrv_on(s.srv, "GET /peer", on_peer, NULL);
    go(&s);
    for (int i = 0; i < 3; i++) {
        c[i] = enter_from(network[i]);
        next[i] = enter_from(i % 2 ? "127.99.3.128" : "127.99.3.0"); // one bit further
    }
    GET(&c[1], "/peer");
    EXPECT(&c[1], 200, "2001:db8:0:2:8000:ffff:0:80");
    for (size_t i = 0; i < ROWS(network); i++)
        refused_from(network[i]);
    refused_from("127.99.3.77");
    struct client third = enter_from("127.99.1.0");
    hang_up(&third);
    hang_up(&c[0]);
    WAIT(metrics(&s).connections == 5);
    c[0] = enter_from(network[4]);
    refused_from(network[0]);
    hang_up_all(next, 3);
    leave(c, 3);
    finish(&s);
}

// ---- Unix sockets: nobody has an address there ----

static struct client dial_unix(const char *path) {
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    struct client c = net_client(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    snprintf(to.sun_path, sizeof to.sun_path, "%s", path);
    c.error = connect(c.fd, (struct sockaddr *)&to, sizeof to) == 0 ? 0 : errno;
    NET_CHECK(&c, c.error == 0, "cannot connect");
    fcntl(c.fd, F_SETFL, fcntl(c.fd, F_GETFL) | O_NONBLOCK);
    return c;
}

TEST(unix_sockets_are_not_counted) {
    static struct client near[20];
    char directory[] = "/tmp/httpsrv-limits.XXXXXX", listener[64];
    CHECK(mkdtemp(directory) != NULL);
    snprintf(listener, sizeof listener, "unix:%s/s", directory);
    serve(&s, &(httpsrv_config){.listen = {"127.0.0.1:0", listener}, .max.per_ip = 1});
    struct client far = enter_from(HOME);
    for (size_t i = 0; i < ROWS(near); i++) {
        near[i] = dial_unix(listener + strlen("unix:"));
        still_served(&near[i]);
    }
    refused_from(HOME);
    CHECK_INT(crowded(), 1);
    hang_up_all(near, ROWS(near));
    leave(&far, 1);
    finish(&s);
    CHECK_INT(rmdir(directory), 0);
}

// ---- beside max.connections ----

TEST(max_connections_beside_it) {
    struct client in[4], last;
    serve(&s, &(httpsrv_config){.max = {.connections = 4, .per_ip = 3}});
    for (int i = 0; i < 3; i++)
        in[i] = enter_from(HOME);
    for (int i = 0; i < 5; i++)
        refused_from(HOME); // which takes nobody's place
    CHECK_INT(item(HTTPSRV_LOG_TOO_MANY_CONNECTIONS), 0);
    in[3] = enter_from("127.0.0.2");
    for (int i = 0; i < 5; i++)
        refused_from("127.0.0.3"); // has no other connection: the server is full
    CHECK_INT(crowded(), 5);
    CHECK_INT(item(HTTPSRV_LOG_TOO_MANY_CONNECTIONS), 5);
    leave(in, 4);
    for (int i = 0; i < 3; i++)
        in[i] = enter_from("127.0.0.3"); // refusals by the other limit took no place of this one
    refused_from("127.0.0.3");
    last = enter_from("127.0.0.2");
    hang_up(&last);
    leave(in, 3);
    finish(&s);
}

// ---- several reactors: one table for all ----

static void one_limit(int acceptors) {
    enum { LIMIT = 8, CLIENTS = 40 };
    static struct client c[CLIENTS];
    serve(&s, &(httpsrv_config){.reactors = 4, .acceptors = acceptors, .max.per_ip = LIMIT});
    for (int round = 0; round < 5; round++) {
        int served = 0;
        for (int i = 0; i < CLIENTS; i++)
            served += tries_from(&c[i], HOME, s.port);
        CHECK_INT(served, LIMIT);
        struct client other = enter_from("127.0.0.2");
        hang_up(&other);
        leave(c, CLIENTS);
    }
    CHECK_INT(crowded(), 5 * (CLIENTS - LIMIT));
    finish(&s);
}

TEST(four_reactors_one_limit) {
    one_limit(0);
}

TEST(two_acceptors_one_limit) {
    one_limit(2);
}

#define CROWD   4 // threads
#define MEMBERS 8 // connections of each

struct crowd {
    pthread_t thread;
    struct client c[MEMBERS];
    int served;
};

// All at once, hence no check but for who is served.
static void *come_along(void *arg) {
    struct crowd *crowd = (struct crowd *)arg;
    crowd->served = 0;
    for (int i = 0; i < MEMBERS; i++)
        crowd->served += tries_from(&crowd->c[i], HOME, s.port);
    return NULL;
}

static void leave_along(struct crowd *crowd) {
    for (int i = 0; i < MEMBERS; i++)
        hang_up(&crowd->c[i]);
}

static void all_at_once(int acceptors) {
    enum { LIMIT = 10 };
    static struct crowd crowd[CROWD];
    serve(&s, &(httpsrv_config){.reactors = 4, .acceptors = acceptors, .max.per_ip = LIMIT});
    for (int round = 0; round < ROUNDS(40); round++) {
        int served = 0;
        NOTE("round %d", round);
        for (int i = 0; i < CROWD; i++)
            pthread_create(&crowd[i].thread, NULL, come_along, &crowd[i]);
        for (int i = 0; i < CROWD; i++) {
            pthread_join(crowd[i].thread, NULL);
            served += crowd[i].served;
        }
        CHECK_INT(served, LIMIT);
        for (int i = 0; i < CROWD; i++)
            leave_along(&crowd[i]);
        WAIT(metrics(&s).connections == 0);
    }
    finish(&s);
}

TEST(four_reactors_all_at_once) {
    all_at_once(0);
}

TEST(two_acceptors_all_at_once) {
    all_at_once(2);
}

static void *come_and_go(void *arg) {
    const char *from = (const char *)arg;
    for (int i = 0; i < ROUNDS(400); i++) {
        struct client c;
        (void)tries_from(&c, from, s.port);
        if (i % 3 == 0) net_reset(&c);
        hang_up(&c);
    }
    return NULL;
}

// Entries of the table come into being and go, on all reactors at once, under the same and under other addresses.
TEST(four_reactors_in_a_hurry) {
    static const char *const from[CROWD] = {HOME, HOME, "127.0.0.2", "127.0.0.3"};
    pthread_t threads[CROWD];
    serve(&s, &(httpsrv_config){.reactors = 4, .max.per_ip = 2});
    for (int i = 0; i < CROWD; i++)
        pthread_create(&threads[i], NULL, come_and_go, (void *)(uintptr_t)from[i]);
    for (int i = 0; i < CROWD; i++)
        pthread_join(threads[i], NULL);
    WAIT(metrics(&s).connections == 0);
    struct client c[2] = {enter_from(HOME), enter_from(HOME)};
    refused_from(HOME);
    leave(c, 2);
    finish(&s);
    CHECK_INT(s.last.accepted, CROWD * ROUNDS(400) + 3);
}
