// min_rate, both ways, and what timeout_ms.write counts as progress. Clients here follow a timetable: how much of a body
// they have sent, or of an answer they have taken, by a certain time. The unit of time is a period of min_rate, that of
// data what has to move in a period: 1 / 1 is the limit. Nobody comes nearer to it than by a factor of two.

#include "test.h"
#if defined(TEST_ASAN) || defined(TEST_TSAN)
#define HTTPSRV_RATE_PERIOD 1200
#else
#define HTTPSRV_RATE_PERIOD 600
#endif

#define HTTPSRV_IMPLEMENTATION
#include "../httpsrv.h"

#include "server.h"
#include <pthread.h>

#define PERIOD        HTTPSRV_RATE_PERIOD
#define RATE(worth)   ((worth)*1000 / PERIOD) // the min_rate at which a period is worth so many bytes
#define UP            12000                   // worth of a period in the tests that send
#define DOWN          300000                  // and in those that take: far more than the client's receive buffer
#define RECEIVE       32768                   // SO_RCVBUF of those; the kernel doubles it
#define PATIENCE      10                      // periods until whoever is too slow must have been cut
#define TOO_SLOW      item(HTTPSRV_LOG_TOO_SLOW)
#define BODY_TIMEOUT  item(HTTPSRV_LOG_BODY_TIMEOUT)
#define WRITE_TIMEOUT item(HTTPSRV_LOG_WRITE_TIMEOUT)

static struct server s;

static uint64_t item(httpsrv_log_item i) {
    return metrics(&s).items[i];
}

// Each common route inline, and by workers below /pool.
static void serve_both(const httpsrv_config *config) {
    httpsrv_config c = *config;
    c.pools[0] = (httpsrv_pool_config){.name = "work", .threads = 3};
    c.max.body = -1;
    prepare(&s, &c);
    route_all(&s, "", NULL);
    route_all(&s, "/pool", "work");
    go(&s);
}

// ---- timetables ----

typedef double (*timetable)(double periods);

static double nothing(double t) {
    (void)t;
    return 0;
}

static double slow(double t) {
    return t / 4;
}

static double quick(double t) {
    return t * 4;
}

static double in_bursts(double t) {
    return 1.6 * (int)(t / 0.4);
}

static double after_a_pause(double t) {
    return t < 0.5 ? 0 : t * 4;
}

// So much at first that the average is above the limit for a long time.
static double quick_then_slow(double t) {
    return 9 + t / 4;
}

// ---- travellers ----

struct row {
    const char *name;
    timetable due;
    const char *request; // target of a download, or the start line of an upload
    int status;          // of an upload's answer; 0 for who is cut without one
    double total;        // worths of a period
};

struct traveller {
    const struct row *row;
    struct client c;
    size_t total, moved; // bytes of the body; of the answer, head included
    int64_t start, end;  // end: 0 while under way
};

static double periods_since(int64_t start) {
    return (double)(test_now() - start) / PERIOD;
}

static size_t due(const struct traveller *t, size_t worth) {
    double bytes = t->row->due(periods_since(t->start)) * (double)worth;
    size_t by_now = bytes < (double)t->total ? (size_t)bytes : t->total;
    return by_now > t->moved ? by_now - t->moved : 0;
}

static void arrive(struct traveller *t) {
    t->end = test_now();
}

// One step for each, again and again, until all have come to their ends or the time is up. Returns the longest pause
// between two rounds: where the machine itself stands still nothing can be said about clients.
static int64_t travel(struct traveller *all, size_t n, size_t worth, void (*step)(struct traveller *, size_t)) {
    int64_t start = test_now(), last = start, longest = 0;
    for (bool under_way = true; under_way && periods_since(start) < PATIENCE;) {
        under_way = false;
        for (size_t i = 0; i < n; i++) {
            if (!all[i].end) step(&all[i], worth);
            under_way |= !all[i].end;
        }
        test_sleep(4);
        int64_t now = test_now();
        if (now - last > longest) longest = now - last;
        last = now;
    }
    return longest;
}

static bool disturbed(int64_t longest_pause, int attempt) {
    return longest_pause > PERIOD / 2 && attempt < 5;
}

static bool is_cut(const struct row *row) {
    return row->status == 408 || row->status == 0;
}

// ---- sending ----

#define LENGTH(target)  "POST " target " HTTP/1.1\r\nHost: a\r\nContent-Length: %zu\r\n\r\n"
#define CHUNKED(target) "POST " target " HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"

static bool chunked(const struct traveller *t) {
    return strstr(t->row->request, "chunked") != NULL;
}

static void send_some(struct traveller *t, size_t len) {
    char head[32];
    int64_t deadline = test_now() + test_ms(1000);
    if (len == 0) return;
    int digits = snprintf(head, sizeof head, "%zx\r\n", len);
    if (chunked(t)) (void)net_send_some(&t->c, head, (size_t)digits, deadline);
    (void)net_send_some(&t->c, blob + t->moved, len, deadline);
    if (chunked(t)) (void)net_send_some(&t->c, "\r\n", 2, deadline);
    t->moved += len;
    if (t->moved == t->total && chunked(t)) (void)net_send_some(&t->c, "0\r\n\r\n", 5, deadline);
}

static bool discarded(const struct traveller *t) {
    return t->row->status == 404 || t->row->status == 0;
}

static void send_step(struct traveller *t, size_t worth) {
    bool news = net_poll(t->c.fd, POLLIN, 0);
    if (!news) send_some(t, due(t, worth));
    if (news || (discarded(t) && t->moved == t->total)) arrive(t);
}

static void depart_up(struct traveller *t, const struct row *row, size_t worth) {
    char head[200];
    memset(t, 0, sizeof *t);
    t->row = row;
    t->total = (size_t)(row->total * (double)worth);
    t->c = dial(s.port);
    int len = snprintf(head, sizeof head, row->request, t->total);
    net_send(&t->c, head, (size_t)len);
    if (discarded(t)) EXPECT(&t->c, 404, NULL); // before the body
    t->start = test_now();
}

static void check_spared(struct traveller *t) {
    CHECK(!t->c.close);
    SEND(&t->c, NEXT);
    EXPECT(&t->c, 200, HELLO);
}

static void check_sent(struct traveller *t) {
    NOTE("%s, %s: %zu bytes in %d ms", t->row->name, t->row->request, t->moved, (int)(t->end - t->start));
    CHECK(t->end > 0);
    if (t->row->status == 200) {
        REPLY(&t->c);
        check_blob(&t->c, t->total);
    }
    if (!is_cut(t->row)) {
        CHECK_INT(t->moved, t->total);
        check_spared(t);
        return;
    }
    CHECK_CMP(t->end - t->start, >=, PERIOD * 9 / 10);
    if (t->row->status == 408) {
        EXPECT(&t->c, 408, NULL);
        CHECK_STR(field(&t->c, "Connection"), "close");
        EXPECT_EOF(&t->c);
    }
    CHECK_INT(net_until_end(&t->c), 0);
}

#define MAX_ROWS 16

// All at the same time. False if the machine has stood still, so that it was no test.
static bool uploads_once(const httpsrv_config *config, const struct row *rows, size_t n, size_t worth, int attempt) {
    static struct traveller all[MAX_ROWS];
    uint64_t cut = 0;
    serve_both(config);
    for (size_t i = 0; i < n; i++)
        depart_up(&all[i], &rows[i], worth);
    bool valid = !disturbed(travel(all, n, worth, send_step), attempt);
    for (size_t i = 0; i < n; i++) {
        if (valid) check_sent(&all[i]);
        cut += is_cut(&rows[i]);
        hang_up(&all[i].c);
    }
    if (valid) CHECK_INT(TOO_SLOW, cut);
    if (valid) CHECK_INT(BODY_TIMEOUT, 0);
    finish(&s);
    return valid;
}

static void uploads(const httpsrv_config *config, const struct row *rows, size_t n, size_t worth) {
    for (int attempt = 1; !uploads_once(config, rows, n, worth, attempt); attempt++)
        continue;
}

#define UPLOADS(length, chunks)                                                                                \
    {"nothing comes", nothing, length, 408, 1}, {"slow", slow, length, 408, 16},                               \
        {"slow chunks", slow, chunks, 408, 16}, {"slow at last", quick_then_slow, length, 408, 40},            \
        {"chunks slow at last", quick_then_slow, chunks, 408, 40}, {"quick", quick, length, 200, 12},          \
        {"quick chunks", quick, chunks, 200, 12}, {"in bursts", in_bursts, length, 200, 12},                   \
        {"chunks in bursts", in_bursts, chunks, 200, 12}, {"after a pause", after_a_pause, length, 200, 12}, { \
        "less than a period", after_a_pause, length, 200, 0.01                                                 \
    }

TEST(uploads_inline_without_timeouts) {
    static const struct row rows[] = {UPLOADS(LENGTH("/echo"), CHUNKED("/echo"))};
    uploads(&(httpsrv_config){.min_rate = RATE(UP), .timeout_ms = {.body = -1, .write = -1, .idle = -1, .head = -1}},
            rows, ROWS(rows), UP);
}

// Each piece comes in time, far more often than timeout_ms.body asks for.
TEST(uploads_to_workers) {
    static const struct row rows[] = {UPLOADS(LENGTH("/pool/echo"), CHUNKED("/pool/echo"))};
    uploads(&(httpsrv_config){.min_rate = RATE(UP), .timeout_ms.body = PERIOD * 3}, rows, ROWS(rows), UP);
}

// What is dropped was answered already: there is nothing left to say but to close.
TEST(bodies_that_are_dropped) {
    static const struct row rows[] = {
        {"nothing comes", nothing, LENGTH("/nowhere"), 0, 1},
        {"slow", slow, LENGTH("/nowhere"), 0, 10},
        {"slow chunks", slow, CHUNKED("/nowhere"), 0, 10},
        {"slow at last", quick_then_slow, LENGTH("/nowhere"), 0, 20},
        {"quick", quick, LENGTH("/nowhere"), 404, 12},
        {"quick chunks", quick, CHUNKED("/nowhere"), 404, 12},
        {"in bursts", in_bursts, CHUNKED("/nowhere"), 404, 12},
        {"less than a period", after_a_pause, LENGTH("/nowhere"), 404, 0.01},
    };
    static const int timeouts[] = {-1, PERIOD * 3};
    for (size_t i = 0; i < ROWS(timeouts); i++)
        uploads(&(httpsrv_config){.min_rate = RATE(UP), .timeout_ms.body = timeouts[i]}, rows, ROWS(rows), UP);
}

TEST(the_default_is_128) {
    static const struct row rows[] = {{"nothing", nothing, LENGTH("/echo"), 408, 10},
                                      {"slow", slow, LENGTH("/echo"), 408, 10},
                                      {"quick", quick, LENGTH("/echo"), 200, 10}};
    uploads(&(httpsrv_config){0}, rows, ROWS(rows), 128 * PERIOD / 1000);
}

// A period that is worth less than a byte wants one all the same.
TEST(one_byte_per_second) {
    static const struct row rows[] = {{"nothing", nothing, LENGTH("/echo"), 408, 10},
                                      {"quick", quick, LENGTH("/echo"), 200, 10}};
    uploads(&(httpsrv_config){.min_rate = 1, .timeout_ms.body = -1}, rows, ROWS(rows), 1);
}

// ---- taking ----

// The server's side of connections to come gets so small a send buffer: accepted sockets have it from the listener.
static void limit_send_buffers(int size) {
    int listens = 0, found = 0;
    socklen_t len = sizeof listens;
    for (int fd = 3; fd < 256 && size; fd++) {
        if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &len) != 0 || !listens) continue;
        CHECK_INT(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size), 0);
        found++;
    }
    CHECK_INT(found, size ? 1 : 0);
}

// A client whose side of the connection holds next to nothing.
static struct client dial_narrow(void) {
    int size = RECEIVE;
    struct client c = net_client(net_socket(AF_INET));
    setsockopt(c.fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    CHECK_INT(net_connect(c.fd, "127.0.0.1", s.port), 0);
    return c;
}

static void depart_down(struct traveller *t, const struct row *row) {
    memset(t, 0, sizeof *t);
    t->row = row;
    t->total = SIZE_MAX;
    t->c = dial_narrow();
    GET(&t->c, row->request);
    t->start = test_now();
}

static uint64_t cuts; // how many of those who take will be cut

// No more than is due: whatever else has come waits in the kernel. False when the connection has ended.
static bool take(struct client *c, size_t len, size_t *taken) {
    while (len > 0) {
        net_room(c);
        size_t room = c->size - c->len;
        ssize_t n = recv(c->fd, c->buf + c->len, len < room ? len : room, 0);
        if (n < 0 && errno == EAGAIN) return true;
        if (n <= 0) return false;
        c->len += (size_t)n;
        *taken += (size_t)n;
        len -= (size_t)n;
    }
    return true;
}

// Who is cut need not notice before having taken what the kernel had: so it is the server that is asked. Who has taken
// for three periods takes the rest at once.
static void take_step(struct traveller *t, size_t worth) {
    NOTE("%s, %s: %zu bytes after %d ms", t->row->name, t->row->request, t->moved, (int)(test_now() - t->start));
    uint64_t too_slow = TOO_SLOW;
    CHECK(too_slow == 0 || periods_since(t->start) >= 0.9);
    bool open = take(&t->c, due(t, worth), &t->moved);
    if (is_cut(t->row)) {
        if (!open || too_slow == cuts) arrive(t);
        return;
    }
    CHECK(open);
    if (t->moved < 12 * worth) return;
    REPLY(&t->c);
    check_blob(&t->c, BLOB_BYTES);
    arrive(t);
}

static void check_taken(struct traveller *t) {
    NOTE("%s, %s: %zu bytes in %d ms", t->row->name, t->row->request, t->moved, (int)(t->end - t->start));
    CHECK(t->end > 0);
    if (!is_cut(t->row)) {
        check_spared(t);
        return;
    }
    EXPECT_END(&t->c);
    CHECK_CMP(t->c.len, <, BLOB_BYTES);
}

static bool downloads_once(const httpsrv_config *config, int send_buffer, const struct row *rows, size_t n,
                           int attempt) {
    static struct traveller all[MAX_ROWS];
    serve_both(config);
    limit_send_buffers(send_buffer);
    cuts = 0;
    for (size_t i = 0; i < n; i++)
        cuts += is_cut(&rows[i]);
    for (size_t i = 0; i < n; i++)
        depart_down(&all[i], &rows[i]);
    bool valid = !disturbed(travel(all, n, DOWN, take_step), attempt);
    for (size_t i = 0; i < n; i++) {
        if (valid) check_taken(&all[i]);
        hang_up(&all[i].c);
    }
    if (valid) CHECK_INT(TOO_SLOW, cuts);
    if (valid) CHECK_INT(WRITE_TIMEOUT, 0);
    finish(&s);
    return valid;
}

static void downloads(const httpsrv_config *config, int send_buffer) {
    static const struct row rows[] = {
        {"takes nothing", nothing, "/borrow/8388608", 0, 0},
        {"slow", slow, "/borrow/8388608", 0, 0},
        {"slow", slow, "/pool/big/8388608", 0, 0},
        {"slow at last", quick_then_slow, "/pool/borrow/8388608", 0, 0},
        {"quick", quick, "/big/8388608", 200, 0},
        {"quick", quick, "/pool/borrow/8388608", 200, 0},
        {"in bursts", in_bursts, "/borrow/8388608", 200, 0},
        {"after a pause", after_a_pause, "/pool/big/8388608", 200, 0},
    };
    for (int attempt = 1; !downloads_once(config, send_buffer, rows, ROWS(rows), attempt); attempt++)
        continue;
}

TEST(downloads_without_timeouts) {
    downloads(&(httpsrv_config){.min_rate = RATE(DOWN), .timeout_ms = {.body = -1, .write = -1, .idle = -1}}, 0);
}

TEST(downloads_before_timeouts) {
    downloads(&(httpsrv_config){.min_rate = RATE(DOWN)}, 0);
}

// Where the kernel holds little it asks for more many times in a period. None of this is a reason to begin anew.
TEST(downloads_through_small_buffers) {
    downloads(&(httpsrv_config){.min_rate = RATE(DOWN), .timeout_ms.write = PERIOD * 3}, 65536);
}

// What the kernel took at once, some megabytes, the client has not: the first period counts.
TEST(the_kernel_is_not_the_client) {
    int64_t least = INT64_MAX;
    for (int i = 0; i < 5 && least > PERIOD * 17 / 10; i++) {
        serve_both(&(httpsrv_config){.min_rate = RATE(DOWN)});
        struct client c = dial(s.port);
        int64_t start = test_now();
        GET(&c, "/borrow/8388608");
        WAIT(TOO_SLOW == 1);
        if (test_now() - start < least) least = test_now() - start;
        hang_up(&c);
        finish(&s);
    }
    CHECK_CMP(least, <=, PERIOD * 17 / 10);
    CHECK_CMP(least, >=, PERIOD * 9 / 10);
}

// ---- beside the time-outs ----

static struct client stall(const char *start) {
    struct client c = dial(s.port);
    SEND(&c, start);
    return c;
}

#define STALLED "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhello"

// Whichever comes first.
TEST(body_timeout_beside_it) {
    static const struct {
        int body;
        int64_t rate;
        httpsrv_log_item item;
    } rows[] = {{PERIOD / 4, 1000000, HTTPSRV_LOG_BODY_TIMEOUT},
                {PERIOD * 4, 1000000, HTTPSRV_LOG_TOO_SLOW},
                {PERIOD * 2, -1, HTTPSRV_LOG_BODY_TIMEOUT}};
    for (size_t i = 0; i < ROWS(rows); i++) {
        NOTE("timeout_ms.body %d", rows[i].body);
        serve_both(&(httpsrv_config){.min_rate = rows[i].rate, .timeout_ms.body = rows[i].body});
        struct client c = stall(STALLED);
        EXPECT(&c, 408, NULL);
        CHECK(c.close);
        EXPECT_EOF(&c);
        CHECK_INT(item(rows[i].item), 1);
        CHECK_INT(TOO_SLOW + BODY_TIMEOUT, 1);
        hang_up(&c);
        finish(&s);
    }
}

TEST(write_timeout_beside_it) {
    static const struct {
        int write;
        int64_t rate;
        httpsrv_log_item item;
    } rows[] = {{PERIOD / 4, 1000000, HTTPSRV_LOG_WRITE_TIMEOUT},
                {PERIOD * 4, 1000000, HTTPSRV_LOG_TOO_SLOW},
                {PERIOD * 2, -1, HTTPSRV_LOG_WRITE_TIMEOUT}};
    for (size_t i = 0; i < ROWS(rows); i++) {
        NOTE("timeout_ms.write %d", rows[i].write);
        serve_both(&(httpsrv_config){.min_rate = rows[i].rate, .timeout_ms.write = rows[i].write});
        struct client c = dial(s.port);
        GET(&c, "/borrow/8388608");
        WAIT(item(rows[i].item) == 1);
        WAIT(metrics(&s).connections == 0);
        CHECK_INT(TOO_SLOW + WRITE_TIMEOUT, 1);
        CHECK_INT(LOAD(s.released), 1);
        EXPECT_END(&c);
        CHECK_CMP(c.len, <, BLOB_BYTES);
        hang_up(&c);
        finish(&s);
    }
}

// A shorter timeout_ms.write is the period of min_rate: something taken in time is not enough.
TEST(write_timeout_as_period) {
    static struct traveller t;
    static const struct row row = {"slow", slow, "/borrow/8388608", 0, 0};
    serve_both(&(httpsrv_config){.min_rate = RATE(DOWN), .timeout_ms.write = PERIOD / 2});
    depart_down(&t, &row);
    while (TOO_SLOW + WRITE_TIMEOUT == 0) {
        CHECK_CMP(periods_since(t.start), <, PATIENCE);
        (void)take(&t.c, due(&t, DOWN), &t.moved);
        test_sleep(4);
    }
    CHECK_CMP(periods_since(t.start) * 100, >=, 45);
    WAIT(metrics(&s).connections == 0);
    hang_up(&t.c);
    finish(&s);
}

// A client that drains a large socket buffer, in steps that make no room for an edge of epoll, is at work: what its side
// acknowledges counts, not what the kernel takes from the server.
TEST(write_timeout_spares_what_is_acknowledged) {
    const int timeout = test_ms(400), step = timeout / 10;
    size_t taken = 0;
    serve_both(&(httpsrv_config){.min_rate = -1, .timeout_ms.write = timeout});
    struct client c = dial_narrow();
    GET(&c, "/borrow/8388608");
    for (int64_t start = test_now(); test_now() - start < timeout * 6;) {
        test_sleep(step);
        CHECK(take(&c, 20000, &taken));
    }
    CHECK_INT(WRITE_TIMEOUT, 0);
    CHECK_CMP(taken, <, 4000000); // else it was quick, and this no test
    WAIT(WRITE_TIMEOUT == 1);     // it takes no more
    WAIT(metrics(&s).connections == 0);
    hang_up(&c);
    finish(&s);
}

// ---- who is never touched ----

TEST(off_is_off) {
    serve_both(&(httpsrv_config){.min_rate = -1, .timeout_ms = {.body = -1, .write = -1}});
    struct client up = stall(STALLED),
                  dropped = stall("POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n");
    struct client down = dial(s.port);
    GET(&down, "/borrow/8388608");
    EXPECT(&dropped, 404, NULL);
    test_sleep(PERIOD * 3);
    CHECK_INT(metrics(&s).connections, 3);
    net_send(&up, blob, 95);
    REPLY(&up);
    CHECK_INT(up.status, 200);
    CHECK_INT(up.body_len, 100);
    SEND(&dropped, "123456789" NEXT);
    EXPECT(&dropped, 200, HELLO);
    REPLY(&down);
    check_blob(&down, BLOB_BYTES);
    CHECK_INT(TOO_SLOW, 0);
    hang_up(&up);
    hang_up(&dropped);
    hang_up(&down);
    finish(&s);
}

// The highest rate there is: nobody could keep up with it, and nobody here has to.
TEST(only_bodies_and_answers_have_a_rate) {
    char sleeping[100];
    snprintf(sleeping, sizeof sleeping, "GET /pool/sleep/%d HTTP/1.1\r\nHost: a\r\n\r\n", PERIOD * 3);
    serve_both(&(httpsrv_config){.min_rate = 100000000});
    struct client fresh = dial(s.port), used = stall(NEXT), head = stall("GET /hello HTTP/1.1\r\nHo"), waits, pipelines;
    struct client posted = stall("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    struct client dropped = stall("POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    EXPECT(&used, 200, HELLO);
    EXPECT(&posted, 200, "hello");
    EXPECT(&dropped, 404, NULL);
    waits = stall(sleeping);
    pipelines = stall(sleeping);
    SEND(&pipelines, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello"); // not read before its turn
    for (int i = 0; i < 30; i++) {
        test_sleep(PERIOD / 10);
        if (i % 3 == 0) SEND(&head, i ? "s" : "st: a\r\nX: ");
    }
    EXPECT(&waits, 200, "slept\n");
    EXPECT(&pipelines, 200, "slept\n");
    SEND(&pipelines, "world");
    EXPECT(&pipelines, 200, "helloworld");
    SEND(&head, "\r\n\r\n");
    EXPECT(&head, 200, HELLO);
    struct client *all[] = {&fresh, &used, &head, &posted, &dropped, &waits, &pipelines};
    for (size_t i = 0; i < ROWS(all); i++) {
        NOTE("client %zu", i);
        SEND(all[i], NEXT);
        EXPECT(all[i], 200, HELLO);
        hang_up(all[i]);
    }
    CHECK_INT(TOO_SLOW, 0);
    finish(&s);
}

// A client that waits for the end of its answer has no rate either, once the kernel has it all.
TEST(what_the_kernel_has_whole_is_answered) {
    serve_both(&(httpsrv_config){.min_rate = RATE(DOWN)});
    struct client c = dial_narrow();
    GET(&c, "/big/400000");
    test_sleep(PERIOD * 2);
    REPLY(&c);
    check_blob(&c, 400000);
    SEND(&c, NEXT);
    EXPECT(&c, 200, HELLO);
    CHECK_INT(TOO_SLOW, 0);
    hang_up(&c);
    finish(&s);
}

// Many bodies, each quicker than a period: a connection has no history.
TEST(pauses_between_bodies_do_not_add_up) {
    serve_both(&(httpsrv_config){.min_rate = 1000000});
    struct client c = dial(s.port);
    for (int i = 0; i < 12; i++) {
        SEND(&c, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello");
        test_sleep(PERIOD / 10);
        SEND(&c, "world");
        EXPECT(&c, 200, "helloworld");
        test_sleep(PERIOD / 4);
    }
    CHECK_INT(TOO_SLOW, 0);
    hang_up(&c);
    finish(&s);
}

// ---- the server's own part ----

struct sender {
    pthread_t thread;
    struct client c;
};

static void *send_for_four_periods(void *arg) {
    struct sender *sender = (struct sender *)arg;
    for (int i = 0; i < 40; i++) {
        net_send(&sender->c, blob + i * UP / 2, UP / 2);
        test_sleep(PERIOD / 10);
    }
    return NULL;
}

// While a handler keeps the reactor for some periods nobody else can move anything: that is nobody's fault.
TEST(a_busy_reactor_blames_nobody) {
    static struct sender sender;
    serve_both(&(httpsrv_config){.min_rate = RATE(UP), .timeout_ms = {.body = -1, .write = -1}});
    struct client down = dial(s.port), busy = dial(s.port);
    sender.c = dial(s.port);
    SENDF(&sender.c, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", 20 * UP);
    GET(&down, "/borrow/8388608");
    net_need(&down, 1000000);
    pthread_create(&sender.thread, NULL, send_for_four_periods, &sender);
    SENDF(&busy, "GET /sleep/%d HTTP/1.1\r\nHost: a\r\n\r\n", PERIOD * 3);
    EXPECT(&busy, 200, "slept\n");
    REPLY(&down);
    check_blob(&down, BLOB_BYTES);
    pthread_join(sender.thread, NULL);
    REPLY(&sender.c);
    check_blob(&sender.c, 20 * UP);
    CHECK_INT(TOO_SLOW, 0);
    hang_up(&sender.c);
    hang_up(&down);
    hang_up(&busy);
    finish(&s);
}

// It is the trailers' turn, or the 100 was sent: still a body.
TEST(all_of_a_body_counts) {
    static const char *const starts[] = {
        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        "POST /pool/echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-A: ",
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;extension="};
    struct client c[ROWS(starts)];
    serve_both(&(httpsrv_config){.min_rate = RATE(UP), .timeout_ms.body = -1});
    for (size_t i = 0; i < ROWS(starts); i++)
        c[i] = stall(starts[i]);
    EXPECT(&c[0], 100, NULL);
    for (int64_t start = test_now(); periods_since(start) < PATIENCE && TOO_SLOW < ROWS(starts);) {
        test_sleep(PERIOD / 20);
        for (size_t i = 2; i < ROWS(starts); i++)
            (void)net_send_some(&c[i], "x", 1, test_now());
    }
    for (size_t i = 0; i < ROWS(starts); i++) {
        NOTE("%s", starts[i]);
        EXPECT(&c[i], 408, NULL);
        EXPECT_EOF(&c[i]);
        hang_up(&c[i]);
    }
    CHECK_INT(TOO_SLOW, ROWS(starts));
    finish(&s);
}

// The loop of a host knows how long it may sleep, though no other time-out is set.
TEST(in_a_loop_of_the_host) {
    prepare(&s, &(httpsrv_config){.min_rate = 1000, .timeout_ms = {.head = -1, .body = -1, .idle = -1, .write = -1}});
    route_all(&s, "", NULL);
    CHECK_INT(httpsrv_listen(s.srv), HTTPSRV_OK);
    s.port = httpsrv_port(s.srv, 0);
    CHECK_INT(httpsrv_timeout(s.srv), -1);
    struct client up = stall(STALLED), down = dial(s.port);
    GET(&down, "/borrow/8388608");
    while (metrics(&s).requests < 2)
        CHECK_INT(httpsrv_poll(s.srv, 1000), HTTPSRV_OK);
    for (int64_t start = test_now(); TOO_SLOW < 2;) {
        struct pollfd p = {httpsrv_fd(s.srv), POLLIN, 0};
        int timeout = httpsrv_timeout(s.srv);
        CHECK_CMP(timeout, >=, 0);
        CHECK_CMP(timeout, <=, PERIOD * 2);
        poll(&p, 1, timeout);
        CHECK_INT(httpsrv_poll(s.srv, 0), HTTPSRV_OK);
        CHECK_CMP(test_now() - start, <, PERIOD * PATIENCE);
    }
    EXPECT(&up, 408, NULL);
    hang_up(&up);
    hang_up(&down);
    httpsrv_stop(s.srv);
    while (httpsrv_poll(s.srv, -1) == HTTPSRV_OK)
        continue;
    dispose(&s);
}

// A drain without a deadline ends because of it.
TEST(drain_does_not_wait_for_the_slow) {
    serve_both(&(httpsrv_config){.min_rate = RATE(DOWN), .timeout_ms = {.body = -1, .write = -1, .drain = -1}});
    struct client up = stall(STALLED), down = dial(s.port);
    GET(&down, "/borrow/8388608");
    WAIT(metrics(&s).requests == 2);
    httpsrv_stop(s.srv);
    EXPECT(&up, 408, NULL);
    EXPECT_EOF(&up);
    hang_up(&up);
    CHECK_INT(httpsrv_join(s.srv), HTTPSRV_OK);
    EXPECT_END(&down);
    hang_up(&down);
    dispose(&s);
    CHECK_INT(s.last.items[HTTPSRV_LOG_TOO_SLOW], 2);
    CHECK_INT(s.last.drain_cut, 0);
}

TEST(bad_and_good_values) {
    static const struct {
        int64_t rate;
        httpsrv_result result;
    } rows[] = {{100000001, HTTPSRV_ARG}, {INT64_MAX, HTTPSRV_ARG}, {100000000, HTTPSRV_OK},
                {1, HTTPSRV_OK},          {-1, HTTPSRV_OK},         {INT64_MIN, HTTPSRV_OK}};
    for (size_t i = 0; i < ROWS(rows); i++) {
        NOTE("min_rate %lld", (long long)rows[i].rate);
        httpsrv *srv = httpsrv_new(&(httpsrv_config){.host = "127.0.0.1", .min_rate = rows[i].rate});
        CHECK_INT(httpsrv_listen(srv), rows[i].result);
        if (rows[i].result != HTTPSRV_OK) CHECK_HAS(httpsrv_error(srv), "min_rate");
        httpsrv_free(srv);
    }
}
