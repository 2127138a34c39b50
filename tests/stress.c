// Many deferred requests at once, with everything that can go wrong: `stress [REQUESTS [SECONDS [SEED]]]`. Each is deferred
// by a reactor or by a worker, some with a time-out that is too short, some after they have waited for room in their pool,
// and answered by three threads through httpsrv_finish or httpsrv_post, which try some of them twice, while clients reset
// connections at random. The server is stopped and freed in the middle of it.
//
// A record is kept of each request. In the end each that was deferred has either been answered, or its on_gone was called,
// exactly once; each body was released and each posted handler run exactly once; each client that stayed has got what the
// answer said, in order.

#define HTTPSRV_IMPLEMENTATION
#include "../httpsrv.h"
#include <inttypes.h>

enum {
    CLIENTS = 2,     // threads
    CONNECTIONS = 8, // of each
    FINISHERS = 3,
    PIPELINED = 16, // requests in flight on a connection
    REUSE = 50,     // rounds until a connection is given up, on average
    WAITING = 1024  // tokens that wait for a finisher
};

// What happened to a request: numbers of so many bits each, in one word so that any thread can count with one addition.
// None of them gets near to its limit.
enum { DEFERRED = 0, ANSWERED = 3, NOTICED = 6, POSTED = 9, RAN = 15, LENT = 21, RELEASED = 26 };

typedef struct record {
    uint32_t counts;
    uint32_t received; // status that the client got, 0 if it did not wait; the client's own until the end
} record;

typedef struct entry {
    httpsrv_token token;
    uint64_t id;
} entry;

// `asked` and `mistakes` are atomic.
static struct {
    httpsrv *srv;
    int port;
    uint64_t wanted, deadline_ms;
    uint64_t asked, mistakes;
    record *records;
    uint32_t seed;
} all;

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    entry entries[WAITING];
    size_t count;
    bool over;
} waiting = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static uint64_t now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

// xorshift; each thread has a state of its own.
static uint32_t draw(uint32_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 17;
    return *state ^= *state << 5;
}

static void mistake(const char *what, uint64_t id) {
    if (__atomic_fetch_add(&all.mistakes, 1, __ATOMIC_RELAXED) > 20) return;
    const record *r = &all.records[id];
    fprintf(stderr, "stress: %s, request %" PRIu64 " (counts 0x%08" PRIx32 ", received %" PRIu32 ")\n", what, id,
            __atomic_load_n(&r->counts, __ATOMIC_RELAXED), r->received);
}

// ---- records ----

static void count(uint64_t id, int what) {
    __atomic_fetch_add(&all.records[id].counts, 1u << what, __ATOMIC_RELAXED);
}

static uint32_t number(uint64_t id, int what) {
    static const uint8_t bits[32] = {
        [DEFERRED] = 3, [ANSWERED] = 3, [NOTICED] = 3, [POSTED] = 6, [RAN] = 6, [LENT] = 5, [RELEASED] = 5};
    return __atomic_load_n(&all.records[id].counts, __ATOMIC_RELAXED) >> what & ((1u << bits[what]) - 1);
}

static void count_answer(httpsrv_result result, uint64_t id) {
    if (result == HTTPSRV_OK)
        count(id, ANSWERED);
    else if (result != HTTPSRV_GONE)
        mistake(httpsrv_result_text(result), id);
}

// ---- answering ----

static record *record_of(uint64_t id) {
    return &all.records[id];
}

static void release(void *arg) {
    char *body = arg;
    count(strtoull(body, NULL, 10), RELEASED);
    free(body);
}

static void finish_entry(const entry *e, bool lend) {
    char text[32];
    const int len = snprintf(text, sizeof text, "%" PRIu64, e->id);
    httpsrv_answer answer = {.status = 200, .type = "text/plain", .body = {text, (size_t)len}};
    if (lend) {
        char *copy = malloc(sizeof text);
        if (!copy) abort();
        memcpy(copy, text, sizeof text);
        count(e->id, LENT);
        answer.body.ptr = copy;
        answer.release = release;
        answer.release_arg = copy;
    }
    count_answer(httpsrv_finish(all.srv, e->token, &answer), e->id);
}

// Runs as the holder, or without a request if that is gone. One of two answers.
static void on_post(httpsrv_req *req, void *user) {
    entry *e = user;
    count(e->id, RAN);
    if (req) {
        const httpsrv_str id = httpsrv_param(req, "id");
        if (id.len == 0 || httpsrv_defer(req).id != e->token.id) mistake("post with another request", e->id);
        if (number(e->id, RAN) % 2) count_answer(httpsrv_replyf(req, 200, NULL, "%.*s", HTTPSRV_FMT(id)), e->id);
    }
    free(e);
}

static void post_entry(const entry *e) {
    entry *copy = malloc(sizeof *copy);
    if (!copy) abort();
    *copy = *e;
    count(e->id, POSTED);
    if (httpsrv_post(all.srv, e->token, on_post, copy) != HTTPSRV_OK) mistake("post refused", e->id);
}

// False if there is no room.
static bool put_entry(const entry *e) {
    pthread_mutex_lock(&waiting.lock);
    const bool room = waiting.count < WAITING && !waiting.over;
    if (room) waiting.entries[waiting.count++] = *e;
    pthread_cond_signal(&waiting.changed);
    pthread_mutex_unlock(&waiting.lock);
    return room;
}

// In no order. False when all is over.
static bool take_entry(entry *e, uint32_t random) {
    pthread_mutex_lock(&waiting.lock);
    while (waiting.count == 0 && !waiting.over)
        pthread_cond_wait(&waiting.changed, &waiting.lock);
    const bool taken = waiting.count > 0;
    if (taken) {
        const size_t at = random % waiting.count;
        *e = waiting.entries[at];
        waiting.entries[at] = waiting.entries[--waiting.count];
    }
    pthread_mutex_unlock(&waiting.lock);
    return taken;
}

// Finishes at once, or posts a handler and leaves the rest to whoever takes the token next; now and then the token of a
// request that has ended comes up again, or its time passes first.
static void *run_finisher(void *arg) {
    uint32_t random = (uint32_t)(uintptr_t)arg;
    entry e;
    while (take_entry(&e, draw(&random))) {
        const struct timespec pause = {0, 1500000};
        const uint32_t how = draw(&random) % 16;
        if (draw(&random) % 256 == 0) nanosleep(&pause, NULL);
        const bool posts = how < 3 && number(e.id, POSTED) < 20;
        if (posts)
            post_entry(&e);
        else
            finish_entry(&e, how < 9 && number(e.id, LENT) < 20);
        if ((posts || how == 15) && !put_entry(&e)) finish_entry(&e, false);
    }
    return NULL;
}

// ---- handlers ----

static void on_gone(void *arg) {
    count((uint64_t)((record *)arg - all.records), NOTICED);
}

static void on_defer(httpsrv_req *req, void *user) {
    const struct timespec pause = {0, 200000};
    const httpsrv_str id = httpsrv_param(req, "id");
    entry e = {.id = 0};
    for (size_t i = 0; i < id.len; i++)
        e.id = e.id * 10 + (uint64_t)(id.ptr[i] - '0');
    const bool before = e.id % 3 > 0;
    if (before) httpsrv_on_gone(req, on_gone, record_of(e.id));
    e.token = httpsrv_defer(req);
    count(e.id, DEFERRED);
    if (e.id % 16 == 0) finish_entry(&e, true); // before the handler has returned
    if (e.id % 64 == 1) post_entry(&e);         // likewise
    if (e.id % 16 != 0 && !put_entry(&e)) finish_entry(&e, false);
    if (!before) httpsrv_on_gone(req, on_gone, record_of(e.id));
    if (user && e.id % 4 == 0) nanosleep(&pause, NULL);
    if (e.id % 8 == 5) count_answer(httpsrv_replyf(req, 200, NULL, "%.*s", HTTPSRV_FMT(id)), e.id); // against them all
}

// ---- clients ----

typedef struct connection {
    int fd;
    size_t len;
    uint64_t first; // number of the first request of this round
    char buf[16384];
} connection;

typedef struct client {
    uint32_t random;
    connection connections[CONNECTIONS];
} client;

static void dial(connection *c) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)all.port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->len = 0;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct timeval patience = {.tv_sec = 60};
    setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (connect(c->fd, (struct sockaddr *)&address, sizeof address) != 0) abort();
}

// Half of them without a word, which reaches the server as a reset.
static void hang_up(connection *c, uint32_t random) {
    struct linger hard = {1, 0};
    if (random % 2) setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    close(c->fd);
}

static void ask(connection *c, uint32_t *random) {
    static const char *const routes[] = {"inline", "pool", "inline", "pool", "narrow", "late", "late/pool"};
    char text[PIPELINED * 64];
    size_t len = 0;
    c->first = __atomic_fetch_add(&all.asked, PIPELINED, __ATOMIC_RELAXED);
    for (uint64_t id = c->first; id < c->first + PIPELINED; id++) {
        len += (size_t)snprintf(text + len, sizeof text - len, "GET /%s/%" PRIu64 " HTTP/1.1\r\nHost: a\r\n\r\n",
                                routes[draw(random) % (sizeof routes / sizeof *routes)], id);
    }
    if (send(c->fd, text, len, MSG_NOSIGNAL) != (ssize_t)len) mistake("not sent", c->first);
}

// The length of the first answer in the buffer once it is there as a whole, else 0; *body is where its body begins.
static size_t whole_answer(connection *c, char **body) {
    c->buf[c->len] = '\0';
    char *end = strstr(c->buf, "\r\n\r\n"), *length = strstr(c->buf, "Content-Length: ");
    if (!end || !length || length > end) return 0;
    *body = end + 4;
    const size_t size = (size_t)(*body - c->buf) + strtoul(length + 16, NULL, 10);
    return size <= c->len ? size : 0;
}

// Reads the answer to one request. Of those with a time-out some get 503.
static void read_answer(connection *c, uint64_t id) {
    char *body;
    size_t size;
    while ((size = whole_answer(c, &body)) == 0) {
        const ssize_t n = recv(c->fd, c->buf + c->len, sizeof c->buf - 1 - c->len, 0);
        if (n <= 0) {
            mistake(n == 0 ? "connection closed" : "no answer", id);
            return;
        }
        c->len += (size_t)n;
    }
    const int status = atoi(c->buf + 9);
    if (status != 503 && (status != 200 || strtoull(body, NULL, 10) != id)) mistake("wrong answer", id);
    all.records[id].received = (uint32_t)status;
    memmove(c->buf, c->buf + size, c->len - size);
    c->len -= size;
}

// Reads everything, mostly. False if the client has left.
static bool read_answers(connection *c, uint32_t *random) {
    const bool stays = draw(random) % REUSE != 0;
    const uint64_t end = c->first + (stays ? PIPELINED : draw(random) % PIPELINED);
    for (uint64_t id = c->first; id < end && __atomic_load_n(&all.mistakes, __ATOMIC_RELAXED) == 0; id++)
        read_answer(c, id);
    return stays;
}

static bool goes_on(void) {
    return __atomic_load_n(&all.asked, __ATOMIC_RELAXED) < all.wanted && now_ms() < all.deadline_ms &&
           __atomic_load_n(&all.mistakes, __ATOMIC_RELAXED) == 0;
}

// Asks on all connections, reads on all, and so on; in the end asks once more and lets the server be stopped on that.
static void *run_client(void *arg) {
    client *self = arg;
    for (int i = 0; i < CONNECTIONS; i++)
        dial(&self->connections[i]);
    while (goes_on()) {
        for (int i = 0; i < CONNECTIONS; i++)
            ask(&self->connections[i], &self->random);
        for (int i = 0; i < CONNECTIONS; i++) {
            if (read_answers(&self->connections[i], &self->random)) continue;
            hang_up(&self->connections[i], draw(&self->random));
            dial(&self->connections[i]);
        }
    }
    for (int i = 0; i < CONNECTIONS; i++)
        ask(&self->connections[i], &self->random);
    return NULL;
}

// ---- the program ----

// With `slow`, whatever is not NULL, the handler takes its time.
static void add_route(const char *pattern, const char *pool, int timeout_ms, void *slow) {
    const httpsrv_route_config route = {.pattern = pattern,
                                        .handler = on_defer,
                                        .user = slow,
                                        .pool = pool,
                                        .overload = HTTPSRV_OVERLOAD_WAIT,
                                        .timeout_ms = timeout_ms};
    httpsrv_route(all.srv, &route);
}

static void serve(void) {
    const httpsrv_config config = {
        .host = "127.0.0.1",
        .reactors = 2,
        .pools = {{.name = "work", .threads = 2}, {.name = "narrow", .threads = 1, .queue = 2}}};
    all.srv = httpsrv_new(&config);
    add_route("GET /inline/:id", NULL, 0, NULL);
    add_route("GET /pool/:id", "work", 0, NULL);
    add_route("GET /narrow/:id", "narrow", 0, &all);
    add_route("GET /late/:id", NULL, 1, NULL);
    add_route("GET /late/pool/:id", "work", 1, NULL);
    if (httpsrv_start(all.srv) != HTTPSRV_OK) {
        fprintf(stderr, "stress: %s\n", httpsrv_error(all.srv));
        exit(1);
    }
    all.port = httpsrv_port(all.srv, 0);
}

static void start(pthread_t *thread, void *(*fn)(void *), void *arg) {
    if (pthread_create(thread, NULL, fn, arg) != 0) abort();
}

static void join(const pthread_t *threads, int n) {
    for (int i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
}

// The finishers go on until just before the server is freed. Returns how many requests have waited for room.
static uint64_t end(const pthread_t *finishers) {
    httpsrv_metrics m;
    httpsrv_stop(all.srv);
    httpsrv_stop(all.srv); // cuts
    httpsrv_join(all.srv);
    pthread_mutex_lock(&waiting.lock);
    waiting.over = true;
    pthread_cond_broadcast(&waiting.changed);
    pthread_mutex_unlock(&waiting.lock);
    join(finishers, FINISHERS);
    httpsrv_query_metrics(all.srv, &m);
    httpsrv_free(all.srv);
    return m.items[HTTPSRV_LOG_WAITS];
}

static void check(uint64_t id) {
    const uint32_t deferred = number(id, DEFERRED), answered = number(id, ANSWERED), received = record_of(id)->received;
    if (deferred > 1) mistake("deferred more than once", id);
    if (answered + number(id, NOTICED) != deferred) mistake("neither answered nor noticed exactly once", id);
    if (number(id, RAN) != number(id, POSTED)) mistake("a posted handler did not run exactly once", id);
    if (number(id, RELEASED) != number(id, LENT)) mistake("a body was not released exactly once", id);
    if (received == 200 && answered != 1) mistake("an answer from nobody", id);
    if (received == 503 && answered != 0) mistake("an answer was lost", id);
}

static void report(uint64_t waits) {
    static const struct {
        int what;
        const char *name;
    } rows[] = {{DEFERRED, "deferred"},
                {ANSWERED, "answered"},
                {NOTICED, "noticed as gone"},
                {POSTED, "posts"},
                {LENT, "bodies lent"}};
    uint64_t ok = 0, late = 0;
    for (uint64_t id = 0; id < all.asked; id++) {
        ok += record_of(id)->received == 200;
        late += record_of(id)->received == 503;
    }
    printf("%" PRIu64 " requests, %" PRIu64 " got 200, %" PRIu64 " got 503, %" PRIu64 " waited", all.asked, ok, late,
           waits);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        uint64_t sum = 0;
        for (uint64_t id = 0; id < all.asked; id++)
            sum += number(id, rows[i].what);
        printf(", %" PRIu64 " %s", sum, rows[i].name);
    }
    printf("\n");
}

int main(int argc, char **argv) {
    static client clients[CLIENTS];
    pthread_t client_threads[CLIENTS], finishers[FINISHERS];
    all.wanted = argc > 1 ? strtoull(argv[1], NULL, 10) : 100000;
    all.deadline_ms = now_ms() + 1000 * (argc > 2 ? strtoull(argv[2], NULL, 10) : 600);
    all.seed = argc > 3 ? (uint32_t)strtoul(argv[3], NULL, 10) : 1;
    all.records = calloc(all.wanted + 2 * CLIENTS * CONNECTIONS * PIPELINED, sizeof *all.records);
    if (!all.records) abort();
    serve();
    for (int i = 0; i < FINISHERS; i++)
        start(&finishers[i], run_finisher, (void *)(uintptr_t)(all.seed * 7919u + (uint32_t)i + 1));
    for (int i = 0; i < CLIENTS; i++) {
        clients[i].random = all.seed * 104729u + (uint32_t)i + 1;
        start(&client_threads[i], run_client, &clients[i]);
    }
    join(client_threads, CLIENTS);
    const uint64_t waits = end(finishers);
    for (int i = 0; i < CLIENTS * CONNECTIONS; i++)
        close(clients[i / CONNECTIONS].connections[i % CONNECTIONS].fd);
    for (uint64_t id = 0; id < all.asked; id++)
        check(id);
    report(waits);
    printf("%s\n", all.mistakes == 0 ? "1 passed, 0 failed" : "0 passed, 1 failed");
    free(all.records);
    return all.mistakes != 0;
}
