// The ring of httpsrv.h beside a plain bounded queue, a mutex with two condition variables: items per second that go
// through them, and jobs per second that go through a pool on either. Rounds of both are interleaved; figures are medians
// over the rounds, the ratio is the median of the ratios round by round.
//
//     cc -O2 -I. -pthread bench/queue.c -o queue && ./queue [SECONDS]      SECONDS for each figure (1)
//
// An item is one push and one pop. The ring never blocks, so whoever finds it full or empty spins a little and then
// yields; the plain queue blocks. In a pool the workers of both sleep when there is nothing to do, and one thread submits
// jobs that do nothing but count themselves. What comes out is checked: how many, and their sum.

#define HTTPSRV_IMPLEMENTATION
#include "httpsrv.h"
#include "median.h"

#include <sched.h>

enum { CAPACITY = 1024, MAX_SIDE = 2, ROUNDS = 11, SPINS = 64, FIRST_ITEMS = 20000 };

static void die(const char *what) {
    fprintf(stderr, "queue: %s\n", what);
    exit(1);
}

static double seconds_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

// ---- what comes out ----

// Of one thread, on cache lines of its own.
typedef struct tally {
    char apart_from_before[HTTPSRV_CACHE_LINE];
    uint64_t count, sum;
    char apart_from_behind[HTTPSRV_CACHE_LINE];
} tally;

static tally tallies[MAX_SIDE];
static int num_tallies; // given out; atomic

static void forget_all(void) {
    memset(tallies, 0, sizeof tallies);
    num_tallies = 0;
}

// The items were the numbers from 1 to `items`.
static void check_all(uint64_t items) {
    uint64_t count = 0, sum = 0;
    for (int i = 0; i < MAX_SIDE; i++) {
        count += tallies[i].count;
        sum += tallies[i].sum;
    }
    if (count != items) die("items were lost, or came twice");
    if (sum != items * (items + 1) / 2) die("items were not what went in");
}

static void add_item(tally *to, void *item) {
    to->count++;
    to->sum += (uintptr_t)item;
}

static tally *take_tally(void) {
    const int i = __atomic_fetch_add(&num_tallies, 1, __ATOMIC_RELAXED);
    if (i >= MAX_SIDE) die("more threads than were made");
    return &tallies[i];
}

// The job that does nothing but count itself.
static void count_job(void *item) {
    static __thread tally *own;
    if (!own) own = take_tally();
    add_item(own, item);
}

// ---- the plain queue ----

typedef struct plain_item {
    void (*fn)(void *arg);
    void *arg;
} plain_item;

typedef struct plain_queue {
    pthread_mutex_t lock;
    pthread_cond_t not_empty, not_full;
    size_t first, count; // under the lock
    plain_item items[CAPACITY];
} plain_queue;

static void plain_init(plain_queue *queue) {
    queue->first = queue->count = 0;
    pthread_mutex_init(&queue->lock, NULL);
    pthread_cond_init(&queue->not_empty, NULL);
    pthread_cond_init(&queue->not_full, NULL);
}

static void plain_free(plain_queue *queue) {
    pthread_cond_destroy(&queue->not_full);
    pthread_cond_destroy(&queue->not_empty);
    pthread_mutex_destroy(&queue->lock);
}

static void plain_push(plain_queue *queue, void (*fn)(void *), void *arg) {
    pthread_mutex_lock(&queue->lock);
    while (queue->count == CAPACITY)
        pthread_cond_wait(&queue->not_full, &queue->lock);
    queue->items[(queue->first + queue->count++) % CAPACITY] = (plain_item){fn, arg};
    pthread_cond_signal(&queue->not_empty);
    pthread_mutex_unlock(&queue->lock);
}

static void plain_pop(plain_queue *queue, void (**fn)(void *), void **arg) {
    pthread_mutex_lock(&queue->lock);
    while (queue->count == 0)
        pthread_cond_wait(&queue->not_empty, &queue->lock);
    const plain_item item = queue->items[queue->first];
    queue->first = (queue->first + 1) % CAPACITY;
    queue->count--;
    pthread_cond_signal(&queue->not_full);
    pthread_mutex_unlock(&queue->lock);
    *fn = item.fn;
    *arg = item.arg;
}

// ---- the ring, as somebody uses it who has nothing else to do ----

static void relax(int *tries) {
    if (++*tries > SPINS) {
        sched_yield();
        return;
    }
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

static void ring_push(hsrv_queue *ring, void (*fn)(void *), void *arg) {
    int tries = 0;
    while (!hsrv_queue_push(ring, fn, arg))
        relax(&tries);
}

static void ring_pop(hsrv_queue *ring, void (**fn)(void *), void **arg) {
    int tries = 0;
    while (!hsrv_queue_pop(ring, fn, arg))
        relax(&tries);
}

// ---- a round: through the queue alone ----

typedef struct transfer {
    bool is_ring;
    uint64_t share; // items of each producer
    int numbered;   // producers that have begun; atomic
    pthread_barrier_t begin;
    hsrv_queue ring;
    plain_queue plain;
} transfer;

// `is_ring` is a constant wherever these are called, so that nothing is left to decide in the loops.
static inline void put(transfer *t, bool is_ring, void *item) {
    if (is_ring)
        ring_push(&t->ring, count_job, item);
    else
        plain_push(&t->plain, count_job, item);
}

static inline void *take(transfer *t, bool is_ring) {
    void (*fn)(void *);
    void *item;
    if (is_ring)
        ring_pop(&t->ring, &fn, &item);
    else
        plain_pop(&t->plain, &fn, &item);
    if (fn != count_job) die("a function was not what went in");
    return item;
}

static inline void produce_all(transfer *t, bool is_ring, uint64_t from) {
    for (uint64_t i = 1; i <= t->share; i++)
        put(t, is_ring, (void *)(uintptr_t)(from + i));
}

static inline void consume_all(transfer *t, bool is_ring, tally *own) {
    for (void *item = take(t, is_ring); item; item = take(t, is_ring))
        add_item(own, item);
}

static void *produce(void *arg) {
    transfer *t = (transfer *)arg;
    const uint64_t from = t->share * (uint64_t)__atomic_fetch_add(&t->numbered, 1, __ATOMIC_RELAXED);
    pthread_barrier_wait(&t->begin);
    if (t->is_ring)
        produce_all(t, true, from);
    else
        produce_all(t, false, from);
    return NULL;
}

static void *consume(void *arg) {
    transfer *t = (transfer *)arg;
    tally *own = take_tally();
    pthread_barrier_wait(&t->begin);
    if (t->is_ring)
        consume_all(t, true, own);
    else
        consume_all(t, false, own);
    return NULL;
}

static void start_threads(pthread_t *threads, int n, void *(*fn)(void *), void *arg) {
    for (int i = 0; i < n; i++)
        if (pthread_create(&threads[i], NULL, fn, arg) != 0) die("cannot start a thread");
}

static void join_threads(const pthread_t *threads, int n) {
    for (int i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
}

// Seconds that so many producers and as many consumers take. The consumers end with a NULL each, behind all items.
static double transfer_seconds(bool is_ring, int side, uint64_t items) {
    static transfer t;
    pthread_t producers[MAX_SIDE], consumers[MAX_SIDE];
    hsrv_memory memory;
    hsrv_memory_init(&memory, NULL, NULL);
    t.is_ring = is_ring;
    t.share = items / (uint64_t)side;
    t.numbered = 0;
    plain_init(&t.plain);
    if (!hsrv_queue_init(&t.ring, &memory, CAPACITY)) die("out of memory");
    pthread_barrier_init(&t.begin, NULL, 2 * (unsigned)side + 1);
    forget_all();
    start_threads(consumers, side, consume, &t);
    start_threads(producers, side, produce, &t);
    pthread_barrier_wait(&t.begin);
    const double begin = seconds_now();
    join_threads(producers, side);
    for (int i = 0; i < side; i++)
        put(&t, is_ring, NULL);
    join_threads(consumers, side);
    const double seconds = seconds_now() - begin;
    check_all(t.share * (uint64_t)side);
    pthread_barrier_destroy(&t.begin);
    hsrv_queue_free(&t.ring, &memory);
    plain_free(&t.plain);
    return seconds;
}

// ---- a round: through a pool ----

static double pool_seconds(int workers, uint64_t jobs) {
    hsrv_memory memory;
    hsrv_memory_init(&memory, NULL, NULL);
    hsrv_pool *pool = hsrv_pool_new(&memory, "bench", workers, CAPACITY);
    if (!pool || hsrv_pool_start(pool) != 0) die("cannot start a pool");
    const double begin = seconds_now();
    for (uint64_t i = 1; i <= jobs; i++) {
        int tries = 0;
        while (!hsrv_pool_submit(pool, count_job, (void *)(uintptr_t)i))
            relax(&tries);
    }
    hsrv_pool_stop(pool);
    const double seconds = seconds_now() - begin;
    hsrv_pool_free(pool);
    return seconds;
}

static void *plain_worker(void *arg) {
    for (;;) {
        void (*fn)(void *);
        void *item;
        plain_pop((plain_queue *)arg, &fn, &item);
        if (!fn) return NULL;
        fn(item);
    }
}

static double plain_pool_seconds(int workers, uint64_t jobs) {
    static plain_queue queue;
    pthread_t threads[MAX_SIDE];
    plain_init(&queue);
    start_threads(threads, workers, plain_worker, &queue);
    const double begin = seconds_now();
    for (uint64_t i = 1; i <= jobs; i++)
        plain_push(&queue, count_job, (void *)(uintptr_t)i);
    for (int i = 0; i < workers; i++)
        plain_push(&queue, NULL, NULL);
    join_threads(threads, workers);
    const double seconds = seconds_now() - begin;
    plain_free(&queue);
    return seconds;
}

// ---- rounds ----

typedef struct point {
    const char *name;
    bool is_pool;
    int threads; // workers, or on each side
} point;

static double point_seconds(const point *p, bool is_ring, uint64_t items) {
    if (!p->is_pool) return transfer_seconds(is_ring, p->threads, items);
    forget_all();
    const double seconds = is_ring ? pool_seconds(p->threads, items) : plain_pool_seconds(p->threads, items);
    check_all(items);
    return seconds;
}

// How many items take about so long.
static uint64_t calibrate(const point *p, bool is_ring, double seconds) {
    uint64_t items = FIRST_ITEMS;
    for (int i = 0; i < 3; i++)
        items = (uint64_t)((double)items * seconds / point_seconds(p, is_ring, items)) / 2 * 2 + 2;
    return items;
}

static void measure(const point *p, double seconds) {
    const uint64_t items = calibrate(p, true, seconds / ROUNDS), plain_items = calibrate(p, false, seconds / ROUNDS);
    double ring[ROUNDS], plain[ROUNDS], ratio[ROUNDS];
    for (int i = 0; i < ROUNDS; i++) {
        ring[i] = (double)items / point_seconds(p, true, items);
        plain[i] = (double)plain_items / point_seconds(p, false, plain_items);
        ratio[i] = ring[i] / plain[i];
    }
    const double middle = median(ratio, ROUNDS); // sorts them
    printf("%-26s %12.2f %12.2f %8.2f   %.2f to %.2f\n", p->name, median(ring, ROUNDS) / 1e6,
           median(plain, ROUNDS) / 1e6, middle, ratio[0], ratio[ROUNDS - 1]);
    fflush(stdout);
}

int main(int argc, char **argv) {
    static const point points[] = {
        {"1 producer, 1 consumer", false, 1},
        {"2 producers, 2 consumers", false, 2},
        {"pool with 1 worker", true, 1},
        {"pool with 2 workers", true, 2},
    };
    const double seconds = argc > 1 ? atof(argv[1]) : 1;
    if (argc > 2 || seconds <= 0 || seconds > 60) {
        fprintf(stderr, "usage: queue [SECONDS], at most 60\n");
        return 2;
    }
    printf("%-26s %12s %12s %8s   %s\n", "million per second", "ring", "mutex", "ratio", "in rounds");
    for (size_t i = 0; i < sizeof points / sizeof *points; i++)
        measure(&points[i], seconds);
    return 0;
}
