// Many deferred requests at once, with everything that can go wrong: `stress [REQUESTS [SECONDS]]`. Each is deferred on a
// reactor or on a worker, some with a time-out that is too short, and answered by one of three threads through
// httpsrv_finish or httpsrv_post, while clients reset connections at random. In the end each request has ended exactly
// once, each body was released exactly once, and clients that stayed have got the answers to what they asked, in order.

#define HTTPSRV_IMPLEMENTATION
#include "../httpsrv.h"
#include <inttypes.h>

enum {
    CLIENTS = 4,
    FINISHERS = 3,
    PIPELINED = 16, // requests in flight on each connection
    REUSE = 50,     // rounds until a connection is given up, on average
    WAITING = 4096  // tokens that wait for a finisher
};

typedef struct entry {
    httpsrv_token token;
    uint64_t id;
} entry;

// Counters are atomic.
static struct {
    httpsrv *srv;
    int port;
    uint64_t wanted, deadline_ms;
    uint64_t asked, answered, timed_out, cut;             // by clients
    uint64_t deferred, finished, gone, lent, released;    // by handlers and finishers
    uint64_t posted, ran, ran_without, notices, mistakes; // likewise
} all;

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    entry entries[WAITING];
    size_t count;
    bool over;
} waiting = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

#define ADD(counter)  ((void)__atomic_add_fetch(&all.counter, 1, __ATOMIC_RELAXED))
#define READ(counter) __atomic_load_n(&all.counter, __ATOMIC_RELAXED)

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
    ADD(mistakes);
    fprintf(stderr, "stress: %s, request %" PRIu64 "\n", what, id);
}

// ---- answering ----

static void release(void *arg) {
    ADD(released);
    free(arg);
}

static void count_end(httpsrv_result result, uint64_t id) {
    if (result == HTTPSRV_OK)
        ADD(finished);
    else if (result == HTTPSRV_GONE)
        ADD(gone);
    else
        mistake(httpsrv_result_text(result), id);
}

static void finish_entry(const entry *e, bool lend) {
    char text[32];
    int len = snprintf(text, sizeof text, "%" PRIu64, e->id);
    httpsrv_answer answer = {.status = 200, .type = "text/plain", .body = {text, (size_t)len}};
    if (lend) {
        char *copy = malloc((size_t)len);
        if (!copy) abort();
        memcpy(copy, text, (size_t)len);
        ADD(lent);
        answer.body.ptr = copy;
        answer.release = release;
        answer.release_arg = copy;
    }
    count_end(httpsrv_finish(all.srv, e->token, &answer), e->id);
}

// Runs as the holder, or without a request if that is gone.
static void on_post(httpsrv_req *req, void *user) {
    entry *e = user;
    ADD(ran);
    if (!req) {
        ADD(ran_without);
        ADD(gone);
    } else if (httpsrv_param(req, "id").len == 0) {
        mistake("no parameter in a post", e->id);
    } else {
        count_end(httpsrv_replyf(req, 200, "text/plain", "%.*s", HTTPSRV_FMT(httpsrv_param(req, "id"))), e->id);
    }
    free(e);
}

static void post_entry(const entry *e) {
    entry *copy = malloc(sizeof *copy);
    if (!copy) abort();
    *copy = *e;
    ADD(posted);
    if (httpsrv_post(all.srv, e->token, on_post, copy) != HTTPSRV_OK) mistake("post refused", e->id);
}

static bool take_entry(entry *e, uint32_t random) {
    pthread_mutex_lock(&waiting.lock);
    while (waiting.count == 0 && !waiting.over)
        pthread_cond_wait(&waiting.changed, &waiting.lock);
    bool taken = waiting.count > 0;
    if (taken) { // in no order
        size_t at = random % waiting.count;
        *e = waiting.entries[at];
        waiting.entries[at] = waiting.entries[--waiting.count];
    }
    pthread_mutex_unlock(&waiting.lock);
    return taken;
}

static void *run_finisher(void *arg) {
    uint32_t random = (uint32_t)(uintptr_t)arg;
    entry e;
    while (take_entry(&e, draw(&random))) {
        uint32_t how = draw(&random) % 8;
        if (how == 0)
            post_entry(&e);
        else
            finish_entry(&e, how < 4);
    }
    return NULL;
}

// ---- handlers ----

static void on_gone(void *arg) {
    (void)arg;
    ADD(notices);
}

static void defer(httpsrv_req *req, void *user) {
    (void)user;
    httpsrv_str id = httpsrv_param(req, "id");
    entry e = {.id = 0};
    for (size_t i = 0; i < id.len; i++)
        e.id = e.id * 10 + (uint64_t)(id.ptr[i] - '0');
    if (e.id % 3 == 0) httpsrv_on_gone(req, on_gone, NULL);
    e.token = httpsrv_defer(req);
    ADD(deferred);
    if (e.id % 16 == 0) { // before the handler has returned
        finish_entry(&e, true);
        return;
    }
    pthread_mutex_lock(&waiting.lock);
    bool room = waiting.count < WAITING;
    if (room) waiting.entries[waiting.count++] = e;
    pthread_cond_signal(&waiting.changed);
    pthread_mutex_unlock(&waiting.lock);
    if (!room) finish_entry(&e, false);
}

// ---- clients ----

typedef struct client {
    int fd;
    uint32_t random;
    char buf[16384];
    size_t len;
} client;

static void dial(client *c) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)all.port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->len = 0;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct timeval patience = {.tv_sec = 60};
    setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (connect(c->fd, (struct sockaddr *)&address, sizeof address) != 0) abort();
}

// Half of them without a word, which reaches the server as a reset.
static void hang_up(client *c) {
    struct linger hard = {1, 0};
    if (draw(&c->random) % 2) setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    close(c->fd);
}

static void ask(client *c, uint64_t ids[PIPELINED]) {
    static const char *const routes[] = {"inline", "pool", "inline", "pool", "late"};
    char text[PIPELINED * 64];
    size_t len = 0;
    for (int i = 0; i < PIPELINED; i++) {
        ids[i] = __atomic_add_fetch(&all.asked, 1, __ATOMIC_RELAXED);
        len += (size_t)snprintf(text + len, sizeof text - len, "GET /%s/%" PRIu64 " HTTP/1.1\r\nHost: a\r\n\r\n",
                                routes[draw(&c->random) % 5], ids[i]);
    }
    if (send(c->fd, text, len, MSG_NOSIGNAL) != (ssize_t)len) mistake("not sent", ids[0]);
}

// The length of the first answer in the buffer once it is there as a whole, else 0; *body is where its body begins.
static size_t whole_answer(client *c, char **body) {
    c->buf[c->len] = '\0';
    char *end = strstr(c->buf, "\r\n\r\n"), *length = strstr(c->buf, "Content-Length: ");
    if (!end || !length || length > end) return 0;
    *body = end + 4;
    size_t size = (size_t)(*body - c->buf) + strtoul(length + 16, NULL, 10);
    return size <= c->len ? size : 0;
}

// Reads the answer to one request. Of those with a time-out some get 503.
static bool read_answer(client *c, uint64_t id) {
    char *body;
    size_t size;
    while ((size = whole_answer(c, &body)) == 0) {
        ssize_t n = recv(c->fd, c->buf + c->len, sizeof c->buf - 1 - c->len, 0);
        if (n <= 0) {
            mistake(n == 0 ? "connection closed" : "no answer", id);
            return false;
        }
        c->len += (size_t)n;
    }
    int status = atoi(c->buf + 9);
    if (status == 503)
        ADD(timed_out);
    else if (status != 200 || strtoull(body, NULL, 10) != id)
        mistake("wrong answer", id);
    else
        ADD(answered);
    memmove(c->buf, c->buf + size, c->len - size);
    c->len -= size;
    return true;
}

// One round: asks, and mostly reads everything. False if the connection is of no use any more.
static bool go_round(client *c) {
    uint64_t ids[PIPELINED];
    ask(c, ids);
    int patience = draw(&c->random) % REUSE == 0 ? (int)(draw(&c->random) % PIPELINED) : PIPELINED;
    for (int i = 0; i < patience; i++) {
        if (!read_answer(c, ids[i])) return false;
    }
    __atomic_add_fetch(&all.cut, (uint64_t)(PIPELINED - patience), __ATOMIC_RELAXED);
    return patience == PIPELINED;
}

static void *run_client(void *arg) {
    client *c = malloc(sizeof *c);
    if (!c) abort();
    c->random = (uint32_t)(uintptr_t)arg;
    dial(c);
    while (READ(deferred) < all.wanted && now_ms() < all.deadline_ms && READ(mistakes) == 0) {
        if (go_round(c)) continue;
        hang_up(c);
        dial(c);
    }
    hang_up(c);
    free(c);
    return NULL;
}

// ---- the program ----

static void serve(void) {
    all.srv = httpsrv_new(&(httpsrv_config){
        .host = "127.0.0.1", .reactors = 2, .pools = {{.name = "work", .threads = 2, .queue = 1024}}});
    httpsrv_on(all.srv, "GET /inline/:id", defer, NULL);
    httpsrv_route(all.srv, &(httpsrv_route_config){.pattern = "GET /pool/:id", .handler = defer, .pool = "work"});
    httpsrv_route(all.srv, &(httpsrv_route_config){.pattern = "GET /late/:id", .handler = defer, .timeout_ms = 1});
    if (httpsrv_start(all.srv) != HTTPSRV_OK) {
        fprintf(stderr, "stress: %s\n", httpsrv_error(all.srv));
        exit(1);
    }
    all.port = httpsrv_port(all.srv, 0);
}

static void start(pthread_t *threads, int count, void *(*fn)(void *), uint32_t seed) {
    for (int i = 0; i < count; i++) {
        if (pthread_create(&threads[i], NULL, fn, (void *)(uintptr_t)(seed + (uint32_t)i * 7919u)) != 0) abort();
    }
}

static void join(pthread_t *threads, int count) {
    for (int i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
}

static void expect(bool holds, const char *what) {
    if (!holds) mistake(what, 0);
}

int main(int argc, char **argv) {
    pthread_t clients[CLIENTS], finishers[FINISHERS];
    all.wanted = argc > 1 ? strtoull(argv[1], NULL, 10) : 100000;
    all.deadline_ms = now_ms() + 1000 * (argc > 2 ? strtoull(argv[2], NULL, 10) : 600);
    serve();
    start(finishers, FINISHERS, run_finisher, 1);
    start(clients, CLIENTS, run_client, 1000);
    join(clients, CLIENTS);
    pthread_mutex_lock(&waiting.lock);
    waiting.over = true;
    pthread_cond_broadcast(&waiting.changed);
    pthread_mutex_unlock(&waiting.lock);
    join(finishers, FINISHERS);
    httpsrv_stop(all.srv);
    httpsrv_join(all.srv);
    httpsrv_free(all.srv);

    expect(READ(deferred) == READ(finished) + READ(gone), "deferred, but not finished or gone exactly once");
    expect(READ(lent) == READ(released), "lent, but not released exactly once");
    expect(READ(posted) == READ(ran), "posted, but not run exactly once");
    expect(READ(asked) == READ(answered) + READ(timed_out) + READ(cut), "asked, but not answered");
    expect(READ(finished) >= READ(answered), "answered, but not finished");
    printf("%" PRIu64 " deferred: %" PRIu64 " finished, %" PRIu64 " gone; clients: %" PRIu64 " answered, %" PRIu64
           " timed out, %" PRIu64 " left; %" PRIu64 " bodies lent and released, %" PRIu64 " posts run, %" PRIu64
           " of them too late, %" PRIu64 " notices\n",
           READ(deferred), READ(finished), READ(gone), READ(answered), READ(timed_out), READ(cut), READ(lent),
           READ(ran), READ(ran_without), READ(notices));
    printf("%s\n", READ(mistakes) == 0 ? "1 passed, 0 failed" : "0 passed, 1 failed");
    return READ(mistakes) != 0;
}
