// A long mixed load that checks every answer: `load [SECONDS]`. Clients ask for everything that a server can be asked for,
// with several requests in flight on a connection, and compare each byte of each answer and the order of the answers;
// others leave in the middle, read in small bites, or listen to events. Half of the requests go through a filter.
//
// A record is kept of each request. In the end each body that was lent has been released exactly once, each deferred
// request has been answered or its on_gone was called, each on_done was called exactly once and told what the client has
// seen, the counters fit, and neither memory nor a descriptor is left.

#define HTTPSRV_IMPLEMENTATION
#include "../httpsrv.h"

#define TEST_NO_MAIN
#define CONTENT_BYTES (2u << 20)
#include "load_requests.h"

enum {
    MIXERS = 4, // threads
    LISTENERS = 3,
    BITE = 4096 // bytes that a slow client reads at a time
};

struct tally {
    uint64_t asked, checked;
};

static int seconds;                    // of each pass
static int over;                       // the time is up
static uint64_t dialled, left;         // connections; requests whose clients did not wait for the answers
static uint64_t answered[6], received; // by class, their sum; without those to clients that have left
static uint64_t unparsed;              // requests whose heads were malformed
static uint32_t published, parted;     // events, listeners that are through
static struct tally tallies[ROWS(kinds)], slow, leavers, events;

// ---- clients ----

static bool goes_on(void) {
    return !LOAD(over) && LOAD(last_id) < MOST_REQUESTS - 10000;
}

static struct client call(void) {
    COUNT(dialled);
    return dial(s.port);
}

// What cannot be sent may wait for answers to be taken.
static void send_all(struct client *c, const char *ptr, size_t len, size_t step) {
    const int64_t deadline = net_deadline();
    while (len > 0) {
        const ssize_t n = send(c->fd, ptr, len < step ? len : step, MSG_NOSIGNAL);
        if (n > 0) {
            ptr += n;
            len -= (size_t)n;
            continue;
        }
        NET_CHECK(c, (errno == EAGAIN || errno == EINTR) && test_now() < deadline, "cannot send");
        net_poll(c->fd, POLLIN | POLLOUT, deadline);
        net_receive(c, test_now());
    }
}

static void count_checked(struct tally *t, int status) {
    COUNT(t->checked);
    COUNT(answered[status / 100]);
    COUNT(received);
}

static void check_field(const struct client *c, const char *name, const char *expected) {
    const char *value = field(c, name);
    NET_CHECK(c, value && strcmp(value, expected) == 0, name);
}

static void check_fields(const struct client *c, const struct question *q) {
    char id[16];
    snprintf(id, sizeof id, "%" PRIu32, q->id);
    if (q->watched) check_field(c, "X-Id", id);
    if (q->type) check_field(c, "Content-Type", q->type);
    if (q->content_range[0]) check_field(c, "Content-Range", q->content_range);
    if (q->status == 405) check_field(c, "Allow", "GET, HEAD, OPTIONS");
    NET_CHECK(c, c->close == q->ends, "wrong about the end of the connection");
}

static void hear(struct client *c, const struct question *q) {
    net_reply(c, q->head);
    const httpsrv_str body = q->head ? (httpsrv_str){"", 0} : q->body;
    if (c->status != q->status) FAIL("%s: status %d, expected %d", kinds[q->kind].name, c->status, q->status);
    test_check_mem(__FILE__, __LINE__, kinds[q->kind].name, c->body_len ? c->body : "", c->body_len, body.ptr,
                   body.len);
    NET_CHECK(c, !q->head || c->length == (int64_t)q->body.len, "wrong length for HEAD");
    check_fields(c, q);
    records[q->id].got = (uint16_t)q->status;
    if (q->status == 400) COUNT(unparsed);
    count_checked(&tallies[q->kind], q->status);
}

// Sends everything but the body that waits, and reads all answers. True if the connection ends with them.
static bool converse(struct client *c, const struct batch *b, uint64_t *random) {
    const struct question *last = &b->questions[b->count - 1];
    const size_t first = last->waits_at ? last->waits_at : b->len;
    send_all(c, b->text, first, draw(random, 4) == 0 ? 1 + draw(random, 3000) : first);
    for (const struct question *q = b->questions; q <= last; q++) {
        COUNT(tallies[q->kind].asked);
        if (q->waits_at) {
            net_reply(c, false);
            NET_CHECK(c, c->status == 100, "no 100");
            send_all(c, b->text + first, b->len - first, b->len);
        }
        hear(c, q);
    }
    return last->ends;
}

static void part(struct client *c, bool ended) {
    if (ended) EXPECT_EOF(c);
    NET_CHECK(c, c->at == c->len, "bytes behind the last answer");
    hang_up(c);
}

static void *run_mixer(void *arg) {
    uint64_t random = (uintptr_t)arg;
    struct batch b = {.count = 0};
    while (goes_on()) {
        struct client c = call();
        bool ended = false;
        for (int i = 0; i < 30 && !ended; i++) {
            fill(&b, &random, false);
            ended = converse(&c, &b, &random);
        }
        part(&c, ended);
    }
    free(b.text);
    return NULL;
}

// Sends all or a part, reads some of the answer or none, and leaves, half of the time without a word.
static void *run_leaver(void *arg) {
    uint64_t random = (uintptr_t)arg;
    struct batch b = {.count = 0};
    while (goes_on()) {
        struct client c = call();
        fill(&b, &random, true);
        __atomic_add_fetch(&left, (uint64_t)b.count, __ATOMIC_RELAXED);
        COUNT(leavers.asked);
        net_send_some(&c, b.text, draw(&random, 2) ? draw(&random, (uint32_t)b.len) : b.len, test_now() + 50);
        if (draw(&random, 2)) net_receive(&c, test_now() + draw(&random, 20));
        if (draw(&random, 2)) net_reset(&c);
        hang_up(&c);
        test_sleep(2);
    }
    free(b.text);
    return NULL;
}

static struct client call_narrow(void) {
    const int small = BITE, fd = net_socket(AF_INET);
    struct client c = net_client(fd);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    COUNT(dialled);
    NET_CHECK(&c, net_connect(fd, "127.0.0.1", s.port) == 0, "cannot connect");
    return c;
}

static void take_bites(struct client *c, size_t enough) {
    const int64_t deadline = net_deadline();
    while (c->len < enough && test_now() < deadline) {
        net_poll(c->fd, POLLIN, deadline);
        net_room(c);
        const ssize_t n = recv(c->fd, c->buf + c->len, BITE, 0);
        NET_CHECK(c, n > 0, "no bite");
        c->len += (size_t)n;
        test_sleep(1);
    }
}

// Takes the greater part of a long answer so slowly that it has to wait for its client.
static void *run_slow(void *arg) {
    uint64_t random = (uintptr_t)arg;
    struct batch b = {.count = 0};
    while (goes_on()) {
        struct client c = call_narrow();
        const struct question *q = &b.questions[0];
        do {
            clear(&b);
            add_question(&b, draw_kind(&random, false, true), &random);
        } while (q->head || q->body.len < 50000);
        COUNT(slow.asked);
        send_all(&c, b.text, b.len, b.len);
        take_bites(&c, q->body.len / 4 * 3);
        COUNT(tallies[q->kind].asked);
        hear(&c, q);
        COUNT(slow.checked);
        part(&c, false);
    }
    free(b.text);
    return NULL;
}

// ---- events ----

// What an event with this number says, as it comes.
static int event_text(char *text, size_t size, uint32_t n, bool last) {
    return snprintf(text, size, "%" PRIu32 " %s %.*s", n, last ? "end" : "more", (int)(n * 37 % 900), blob + n);
}

// The last ones are said again and again, until all have heard one of them.
static void *run_publisher(void *arg) {
    char text[1000];
    (void)arg;
    while (LOAD(parted) < LISTENERS) {
        const bool last = LOAD(over);
        const uint32_t n = __atomic_add_fetch(&published, 1, __ATOMIC_ACQ_REL) % (BLOB_BYTES - 1000);
        const int len = event_text(text, sizeof text, n, last);
        const httpsrv_event event = {.data = {text, (size_t)len}};
        CHECK_INT(httpsrv_sse_publish(s.srv, "news", &event), HTTPSRV_OK);
        test_sleep(1);
    }
    return NULL;
}

// One chunk more of the stream, which holds no more than it has to for a whole event.
static void hear_chunk(struct client *c, char *text, size_t *len, size_t size) {
    char line[32];
    const size_t n = (size_t)net_number(c, net_line(c, line, sizeof line), "0123456789abcdefABCDEF", 16);
    NET_CHECK(c, n > 0 && n < size - *len, "no event in the chunk");
    net_need(c, n + 2);
    memcpy(text + *len, c->buf + c->at, n);
    *len += n;
    text[*len] = '\0';
    c->at += n;
    NET_CHECK(c, memcmp(c->buf + c->at, "\r\n", 2) == 0, "no line end behind the chunk");
    c->at += 2;
}

// The number of the next event, which is checked as a whole; true in *last if it says so.
static uint32_t hear_event(struct client *c, bool *last) {
    char text[2000], data[1000], expected[1020];
    size_t len = 0;
    while (len < 2 || strcmp(text + len - 2, "\n\n") != 0)
        hear_chunk(c, text, &len, sizeof text);
    const uint32_t n = (uint32_t)strtoul(text + strcspn(text, "0123456789"), NULL, 10);
    *last = strstr(text, " end ") != NULL;
    event_text(data, sizeof data, n, *last);
    snprintf(expected, sizeof expected, "data: %s\n\n", data);
    CHECK_STR(text, expected);
    COUNT(events.checked);
    return n;
}

static void tune_in(struct client *c, const struct question *q) {
    char request[100];
    snprintf(request, sizeof request, "GET %s/events?id=%" PRIu32 " HTTP/1.1\r\nHost: a\r\n\r\n", prefix_of(q), q->id);
    *c = call();
    SEND(c, request);
    net_read_head(c);
    NET_CHECK(c, c->status == 200, "no events");
    check_field(c, "Content-Type", "text/event-stream");
    check_fields(c, q);
    COUNT(events.asked);
    COUNT(answered[2]);
    COUNT(received);
}

// Listens for a while, again and again, and misses nothing from the moment on at which the head is there.
static void *run_listener(void *arg) {
    uint64_t random = (uintptr_t)arg;
    for (bool last = false; !last;) {
        const struct question q = {.id = __atomic_add_fetch(&last_id, 1, __ATOMIC_RELAXED),
                                   .watched = draw(&random, 2)};
        struct client c;
        tune_in(&c, &q);
        const uint32_t known = LOAD(published);
        uint32_t n = hear_event(&c, &last);
        CHECK_CMP(n, <=, known + 1);
        for (uint32_t more = draw(&random, 2000); !last && more > 0; more--) {
            const uint32_t next = hear_event(&c, &last);
            CHECK_INT(next, n + 1);
            n = next;
        }
        hang_up(&c);
    }
    COUNT(parted);
    return NULL;
}

// ---- the end ----

// Those that were left in the middle may count or not.
static void check_counters(void) {
    const httpsrv_metrics m = metrics(&s);
    const uint64_t heads = received - unparsed;
    CHECK_INT(m.accepted, dialled);
    CHECK_INT(m.answers[0], m.answers[2] + m.answers[4]);
    CHECK_INT(m.answers[4], answered[4] + m.items[HTTPSRV_LOG_INCOMPLETE]);
    CHECK_CMP(m.answers[2], >=, answered[2]);
    CHECK_CMP(m.answers[2], <=, answered[2] + left);
    CHECK_CMP(m.requests, >=, heads);
    CHECK_CMP(m.requests, <=, heads + left);
    CHECK_INT(m.drain_cut, 0);
    CHECK_INT(m.drain_stuck, 0);
}

static void print_row(const char *name, const struct tally *t, double took) {
    printf("  %-20s %9" PRIu64 " %9" PRIu64 " %9.0f/s\n", name, t->asked, t->checked, (double)t->checked / took);
}

static void report(double took) {
    printf("  %-20s %9s %9s %11s\n", "", "asked", "checked", "rate");
    for (size_t i = 0; i < ROWS(kinds); i++) {
        CHECK_INT(tallies[i].asked, tallies[i].checked);
        print_row(kinds[i].name, &tallies[i], took);
    }
    print_row("of these slowly", &slow, took);
    print_row("left in the middle", &leavers, took);
    print_row("events", &events, took);
    fflush(stdout); // what is checked next may end the process
}

// ---- the program ----

static void start(pthread_t *thread, void *(*fn)(void *), uintptr_t arg) {
    CHECK_INT(pthread_create(thread, NULL, fn, (void *)arg), 0);
}

static void wait_for(const pthread_t *threads, int count) {
    for (int i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
}

static void start_all(pthread_t *threads) {
    for (uintptr_t i = 0; i < MIXERS; i++)
        start(threads++, run_mixer, 1000 + i);
    for (uintptr_t i = 0; i < LISTENERS; i++)
        start(threads++, run_listener, 2000 + i);
    start(threads++, run_leaver, 3000);
    start(threads++, run_slow, 4000);
    start(threads, run_publisher, 0);
}

static void put_under_load(void) {
    pthread_t threads[MIXERS + LISTENERS + 3], finishers[FINISHERS];
    const int64_t begin = test_now();
    for (uintptr_t i = 0; i < FINISHERS; i++)
        start(&finishers[i], run_finisher, 5000 + i);
    start_all(threads);
    while (goes_on() && test_now() < begin + seconds * 1000)
        test_sleep(10);
    STORE(over, 1);
    wait_for(threads, (int)ROWS(threads));
    report((double)(test_now() - begin) / 1000);
    WAIT(metrics(&s).connections == 0);
    httpsrv_stop(s.srv);
    join_server(&s);
    close(laters[1]);
    wait_for(finishers, FINISHERS);
    close(laters[0]);
}

static void run_pass(int reactors, int acceptors) {
    const int descriptors = test_descriptors();
    CHECK_INT(pipe2(laters, O_CLOEXEC), 0);
    serve_all(reactors, acceptors);
    const uint64_t before = metrics(&s).memory; // nothing is kept yet
    put_under_load();
    CHECK_INT(memory_in_use(), before);
    check_counters();
    dispose(&s);
    check_records();
    CHECK_INT(test_descriptors(), descriptors);
}

TEST(two_reactors) {
    run_pass(2, 0);
}

TEST(a_reactor_and_an_acceptor) {
    run_pass(1, 1);
}

// In a process of its own, so that a leak is found where it belongs.
static bool passes(const struct test *pass) {
    int status = 0;
    printf("%s, %d s:\n", pass->name, seconds);
    fflush(stdout);
    const pid_t pid = fork();
    if (pid == 0) {
        alarm((unsigned)seconds + 300);
        pass->run();
        exit(0);
    }
    const bool ended = pid > 0 && waitpid(pid, &status, 0) == pid;
    if (ended && WIFSIGNALED(status)) fprintf(stderr, "killed by signal %d\n", WTERMSIG(status));
    return ended && status == 0;
}

int main(int argc, char **argv) {
    int passed = 0, failed = 0;
    seconds = ((argc > 1 ? atoi(argv[1]) : 60) + 1) / 2;
    (void)test_scale();
    make_tree(tree, ROWS(tree), 1700000000, 1);
    for (const struct test *pass = test_first; pass; pass = pass->next)
        passes(pass) ? passed++ : failed++;
    remove_tree();
    printf("%d passed, %d failed\n", passed, failed);
    return failed > 0;
}
