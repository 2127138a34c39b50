// >>queue and >>pool: ring, inbox and workers, alone and under the fire of many threads. A wake-up that gets lost shows as
// a wait that never ends.

#define HTTPSRV_IMPLEMENTATION
#include "httpsrv.h"
#include "rooms.h"
#include <sched.h>
#include <semaphore.h>

// ---- ring, one thread ----

static void job_a(void *arg) {
    (void)arg;
}

static void job_b(void *arg) {
    (void)arg;
}

typedef void (*job_fn)(void *);

static void *as_arg(size_t number) {
    return (void *)(uintptr_t)number;
}

static bool push(hsrv_queue *queue, size_t number) {
    return hsrv_queue_push(queue, number % 2 ? job_a : job_b, as_arg(number));
}

static bool pop(hsrv_queue *queue, size_t *number) {
    job_fn fn = NULL;
    void *arg = NULL;
    if (!hsrv_queue_pop(queue, &fn, &arg)) return false;
    *number = (size_t)(uintptr_t)arg;
    if (fn != (*number % 2 ? job_a : job_b)) FAIL("the function of another item came with %zu", *number);
    return true;
}

// A ring whose positions stand at `position` already.
static void queue_at(hsrv_queue *queue, size_t position) {
    queue->head = queue->tail = position;
    for (size_t i = 0; i <= queue->mask; i++) {
        queue->cells[(position + i) & queue->mask].sequence = position + i;
    }
}

TEST(ring_capacity_is_rounded_up) {
    static const size_t table[][2] = {{0, 2}, {1, 2},   {2, 2},    {3, 4},      {4, 4},
                                      {5, 8}, {64, 64}, {65, 128}, {1000, 1024}};
    for (size_t i = 0; i < LENGTH(table); i++) {
        struct books books;
        hsrv_memory memory;
        hsrv_queue queue;
        size_t count = 0;
        books_open(&books, &memory);
        NOTE("capacity %zu", table[i][0]);
        CHECK(hsrv_queue_init(&queue, &memory, table[i][0]));
        while (push(&queue, count)) {
            count++;
        }
        CHECK_INT(count, table[i][1]);
        hsrv_queue_free(&queue, &memory);
        CHECK_BOOKS(&books, &memory, 0);
        books.grants = 0;
        CHECK(!hsrv_queue_init(&queue, &memory, table[i][0]));
        hsrv_queue_free(&queue, &memory);
        CHECK_BOOKS(&books, &memory, 0);
    }
}

// First in, first out, at every fill and around the end of the numbers.
TEST(ring_against_a_model) {
    struct books books;
    hsrv_memory memory;
    books_open(&books, &memory);
    for (size_t size = 2; size <= 16; size *= 2) {
        for (size_t before_end = 0; before_end < 4 * size; before_end++) {
            hsrv_queue queue;
            size_t in = 0, out = 0, number;
            CHECK(hsrv_queue_init(&queue, &memory, size));
            queue_at(&queue, SIZE_MAX - before_end);
            NOTE("size %zu, %zu before the end", size, before_end);
            for (int round = 0; round < 200; round++) {
                const bool pushes = random_below(round / 50 % 2 ? 3 : 2) == 0;
                CHECK_INT(hsrv_queue_ready(&queue), in > out);
                if (pushes) {
                    CHECK_INT(push(&queue, in), in - out < size);
                    in += in - out < size;
                } else if (pop(&queue, &number)) {
                    CHECK_INT(number, out++);
                } else {
                    CHECK_INT(in, out);
                }
            }
            CHECK_INT(queue.head - (SIZE_MAX - before_end), in);
            hsrv_queue_free(&queue, &memory);
        }
    }
    CHECK_BOOKS(&books, &memory, 0);
}

// ---- ring, many threads ----

#define MAX_SIDE            4
#define NUMBER(producer, i) ((size_t)(producer) << 24 | (size_t)(i))

// A small ring makes its threads take turns, which on a busy machine costs a switch each: fewer items then.
static size_t storm_items(size_t capacity) {
    const size_t items = 1500 * capacity;
    return STORM(items < 100000 ? items : 100000);
}

struct ring_storm {
    hsrv_queue queue;
    size_t items; // of each producer
    size_t popped;
    unsigned char *seen[MAX_SIDE];
};

struct ring_side {
    struct ring_storm *storm;
    int number;
    pthread_t thread;
};

static void *ring_produce(void *arg) {
    const struct ring_side *side = (struct ring_side *)arg;
    for (size_t i = 0; i < side->storm->items; i++) {
        while (!push(&side->storm->queue, NUMBER(side->number, i))) {
            sched_yield();
        }
    }
    return NULL;
}

static void *ring_consume(void *arg) {
    const struct ring_side *side = (struct ring_side *)arg;
    struct ring_storm *storm = side->storm;
    size_t next[MAX_SIDE] = {0}, number;
    const size_t all = storm->items * (size_t)side->number; // here: how many producers there are
    while (__atomic_load_n(&storm->popped, __ATOMIC_RELAXED) < all) {
        if (!pop(&storm->queue, &number)) {
            sched_yield();
            continue;
        }
        const size_t producer = number >> 24, i = number & 0xffffff;
        CHECK(producer < MAX_SIDE && i < storm->items);
        if (i < next[producer]) FAIL("item %zu of producer %zu came behind item %zu", i, producer, next[producer] - 1);
        next[producer] = i + 1;
        if (__atomic_fetch_add(&storm->seen[producer][i], 1, __ATOMIC_RELAXED)) FAIL("item %zu came twice", number);
        __atomic_fetch_add(&storm->popped, 1u, __ATOMIC_RELAXED);
    }
    return NULL;
}

static void ring_storm(int producers, int consumers, size_t capacity, size_t position) {
    struct ring_storm storm;
    struct ring_side sides[2 * MAX_SIDE];
    hsrv_memory memory;
    size_t number;
    memset(&storm, 0, sizeof storm);
    storm.items = storm_items(capacity) / (size_t)producers;
    hsrv_memory_init(&memory, NULL, NULL);
    CHECK(hsrv_queue_init(&storm.queue, &memory, capacity));
    queue_at(&storm.queue, position);
    for (int i = 0; i < producers; i++) {
        storm.seen[i] = (unsigned char *)calloc(storm.items, 1);
        CHECK(storm.seen[i] != NULL);
    }
    for (int i = 0; i < producers + consumers; i++) {
        const bool produces = i < producers;
        sides[i].storm = &storm;
        sides[i].number = produces ? i : producers;
        CHECK_INT(pthread_create(&sides[i].thread, NULL, produces ? ring_produce : ring_consume, &sides[i]), 0);
    }
    for (int i = 0; i < producers + consumers; i++) {
        pthread_join(sides[i].thread, NULL);
    }
    CHECK_INT(storm.popped, storm.items * (size_t)producers);
    CHECK(!pop(&storm.queue, &number) && !hsrv_queue_ready(&storm.queue));
    for (int i = 0; i < producers; i++) {
        CHECK(memchr(storm.seen[i], 0, storm.items) == NULL);
        free(storm.seen[i]);
    }
    hsrv_queue_free(&storm.queue, &memory);
    CHECK_INT(memory.used, 0);
}

TEST(ring_storm_of_two) {
    ring_storm(1, 1, 2, 0);
    ring_storm(1, 1, 64, SIZE_MAX - 10000);
}

TEST(ring_storm_of_four) {
    ring_storm(2, 2, 2, SIZE_MAX - 10000);
    ring_storm(2, 2, 64, 0);
}

TEST(ring_storm_of_eight) {
    ring_storm(4, 4, 8, 0);
    ring_storm(4, 4, 256, SIZE_MAX - 10000);
    ring_storm(4, 1, 16, 0);
    ring_storm(1, 4, 16, 0);
}

// A ring that is never full: nothing but the tickets keeps the producers apart.
TEST(ring_storm_without_a_pause) {
    for (int round = 0; round < 5; round++) {
        ring_storm(4, 4, 131072, 0);
    }
}

// ---- inbox ----

TEST(inbox_keeps_the_order) {
    hsrv_inbox inbox;
    hsrv_message messages[10];
    memset(&inbox, 0, sizeof inbox);
    CHECK(hsrv_queue_inbox_take(&inbox) == NULL);
    for (int count = 0; count <= 10; count++) {
        for (int i = 0; i < count; i++) {
            CHECK(!hsrv_queue_inbox_push(&inbox, &messages[i])); // the owner does not sleep
            CHECK(hsrv_queue_inbox_pending(&inbox));
        }
        const hsrv_message *message = hsrv_queue_inbox_take(&inbox);
        CHECK(!hsrv_queue_inbox_pending(&inbox));
        for (int i = 0; i < count; i++, message = message->next) {
            CHECK(message == &messages[i]);
        }
        CHECK(message == NULL);
    }
}

TEST(inbox_asks_for_one_wake_per_arming) {
    hsrv_inbox inbox;
    hsrv_message messages[8];
    memset(&inbox, 0, sizeof inbox);
    for (int round = 0; round < 3; round++) {
        hsrv_queue_inbox_arm(&inbox);
        CHECK(!hsrv_queue_inbox_pending(&inbox));
        CHECK(hsrv_queue_inbox_push(&inbox, &messages[0]));
        CHECK(hsrv_queue_inbox_pending(&inbox));
        CHECK(!hsrv_queue_inbox_push(&inbox, &messages[1]));
        CHECK(!hsrv_queue_inbox_push(&inbox, &messages[2]));
        CHECK(hsrv_queue_inbox_take(&inbox) == &messages[0]);
        CHECK(!hsrv_queue_inbox_push(&inbox, &messages[3])); // awake
        hsrv_queue_inbox_arm(&inbox);
        CHECK(hsrv_queue_inbox_pending(&inbox)); // so the owner stays up
        hsrv_queue_inbox_disarm(&inbox);
        CHECK(!hsrv_queue_inbox_push(&inbox, &messages[4]));
        CHECK(hsrv_queue_inbox_take(&inbox) == &messages[3]);
    }
}

#define PUSHERS 4

struct inbox_storm {
    hsrv_inbox inbox;
    sem_t wake; // what an eventfd is to a loop
    size_t wakes, items;
};

struct inbox_pusher {
    struct inbox_storm *storm;
    hsrv_message *messages;
    int number;
    pthread_t thread;
};

static void *inbox_push_all(void *arg) {
    const struct inbox_pusher *pusher = (struct inbox_pusher *)arg;
    for (size_t i = 0; i < pusher->storm->items; i++) {
        pusher->messages[i].kind = pusher->number;
        if (hsrv_queue_inbox_push(&pusher->storm->inbox, &pusher->messages[i])) {
            __atomic_fetch_add(&pusher->storm->wakes, 1u, __ATOMIC_RELAXED);
            sem_post(&pusher->storm->wake);
        }
        if (i % 64 == (size_t)pusher->number) sched_yield();
    }
    return NULL;
}

static void inbox_sleep(struct inbox_storm *storm) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += test_ms(10000) / 1000;
    while (sem_timedwait(&storm->wake, &until) != 0) {
        if (errno != EINTR) FAIL("the owner was not woken");
    }
}

// Takes what is there, checks that each pusher's messages come in their order, each once. How many came.
static size_t inbox_take_all(struct inbox_storm *storm, const struct inbox_pusher *pushers, size_t *next) {
    size_t count = 0;
    for (const hsrv_message *message = hsrv_queue_inbox_take(&storm->inbox); message; count++) {
        const hsrv_message *follows = message->next;
        const int from = message->kind;
        if (message != &pushers[from].messages[next[from]++]) FAIL("pusher %d: not message %zu", from, next[from] - 1);
        message = follows;
    }
    return count;
}

TEST(inbox_storm) {
    struct inbox_storm storm;
    struct inbox_pusher pushers[PUSHERS];
    size_t next[PUSHERS] = {0}, arms = 0, taken = 0;
    memset(&storm, 0, sizeof storm);
    sem_init(&storm.wake, 0, 0);
    storm.items = STORM(40000u);
    for (int i = 0; i < PUSHERS; i++) {
        pushers[i].storm = &storm;
        pushers[i].number = i;
        pushers[i].messages = (hsrv_message *)calloc(storm.items, sizeof(hsrv_message));
        CHECK_INT(pthread_create(&pushers[i].thread, NULL, inbox_push_all, &pushers[i]), 0);
    }
    while (taken < PUSHERS * storm.items) {
        hsrv_queue_inbox_arm(&storm.inbox);
        arms++;
        if (!hsrv_queue_inbox_pending(&storm.inbox)) inbox_sleep(&storm);
        hsrv_queue_inbox_disarm(&storm.inbox);
        taken += inbox_take_all(&storm, pushers, next);
    }
    for (int i = 0; i < PUSHERS; i++) {
        pthread_join(pushers[i].thread, NULL);
        CHECK_INT(next[i], storm.items);
        free(pushers[i].messages);
    }
    CHECK(!hsrv_queue_inbox_pending(&storm.inbox));
    CHECK_CMP(storm.wakes, <=, arms);
    sem_destroy(&storm.wake);
}

// One message at a time, each to an owner that is about to fall asleep: a wake-up that is lost is not made up for.
struct ping {
    struct inbox_storm storm;
    hsrv_message message;
    size_t taken;
};

static void spin(const size_t *word, uint32_t times) {
    while (times-- > 0) {
        __atomic_load_n(word, __ATOMIC_RELAXED);
    }
}

static void *ping_push(void *arg) {
    struct ping *ping = (struct ping *)arg;
    uint32_t random = 12345;
    for (size_t i = 0; i < ping->storm.items; i++) {
        while (__atomic_load_n(&ping->taken, __ATOMIC_ACQUIRE) < i) {
            sched_yield();
        }
        random = random * 1664525u + 1013904223u;
        spin(&ping->taken, random >> 25);
        if (hsrv_queue_inbox_push(&ping->storm.inbox, &ping->message)) sem_post(&ping->storm.wake);
    }
    return NULL;
}

TEST(inbox_one_by_one) {
    struct ping ping;
    pthread_t pusher;
    memset(&ping, 0, sizeof ping);
    sem_init(&ping.storm.wake, 0, 0);
    ping.storm.items = STORM(40000u);
    CHECK_INT(pthread_create(&pusher, NULL, ping_push, &ping), 0);
    for (size_t i = 0; i < ping.storm.items;) {
        spin(&ping.taken, random_below(128));
        hsrv_queue_inbox_arm(&ping.storm.inbox);
        if (!hsrv_queue_inbox_pending(&ping.storm.inbox)) inbox_sleep(&ping.storm);
        hsrv_queue_inbox_disarm(&ping.storm.inbox);
        const hsrv_message *message = hsrv_queue_inbox_take(&ping.storm.inbox);
        if (!message) continue; // a wake-up that was meant for the one before
        CHECK(message == &ping.message && message->next == NULL);
        __atomic_store_n(&ping.taken, ++i, __ATOMIC_RELEASE);
    }
    pthread_join(pusher, NULL);
    sem_destroy(&ping.storm.wake);
}

// ---- pool ----

struct task {
    uint32_t runs;
    size_t *done;
};

static void task_run(void *arg) {
    struct task *task = (struct task *)arg;
    __atomic_fetch_add(&task->runs, 1u, __ATOMIC_RELAXED);
    __atomic_fetch_add(task->done, 1u, __ATOMIC_RELEASE);
}

static size_t number_done(const size_t *done) {
    return __atomic_load_n(done, __ATOMIC_ACQUIRE);
}

struct pool_storm {
    hsrv_pool *pool;
    struct task *tasks;
    size_t each;
    size_t refused;
};

struct submitter {
    struct pool_storm *storm;
    size_t number;
    pthread_t thread;
};

static void *submit_all(void *arg) {
    const struct submitter *submitter = (struct submitter *)arg;
    struct pool_storm *storm = submitter->storm;
    struct task *tasks = storm->tasks + submitter->number * storm->each;
    for (size_t i = 0; i < storm->each; i++) {
        while (!hsrv_pool_submit(storm->pool, task_run, &tasks[i])) {
            __atomic_fetch_add(&storm->refused, 1u, __ATOMIC_RELAXED);
            sched_yield();
        }
    }
    return NULL;
}

static void pool_storm(int workers, size_t submitters, int capacity, bool wait) {
    struct books books;
    hsrv_memory memory;
    struct pool_storm storm;
    struct submitter sides[MAX_SIDE];
    size_t done = 0;
    books_open(&books, &memory);
    memset(&storm, 0, sizeof storm);
    storm.each = storm_items((size_t)capacity) / 2 / submitters;
    storm.tasks = (struct task *)calloc(submitters * storm.each, sizeof(struct task));
    storm.pool = hsrv_pool_new(&memory, "storm", workers, capacity);
    CHECK(storm.tasks && storm.pool);
    CHECK_INT(hsrv_pool_start(storm.pool), 0);
    for (size_t i = 0; i < submitters * storm.each; i++) {
        storm.tasks[i].done = &done;
    }
    for (size_t i = 0; i < submitters; i++) {
        sides[i].storm = &storm;
        sides[i].number = i;
        CHECK_INT(pthread_create(&sides[i].thread, NULL, submit_all, &sides[i]), 0);
    }
    for (size_t i = 0; i < submitters; i++) {
        pthread_join(sides[i].thread, NULL);
    }
    if (wait) WAIT(number_done(&done) == submitters * storm.each && hsrv_pool_busy(storm.pool) == 0);
    CHECK_INT(storm.pool->jobs, submitters * storm.each);
    hsrv_pool_free(storm.pool); // runs what is left
    for (size_t i = 0; i < submitters * storm.each; i++) {
        CHECK_INT(storm.tasks[i].runs, 1);
    }
    free(storm.tasks);
    CHECK_BOOKS(&books, &memory, 0);
}

TEST(pool_runs_each_job_once) {
    pool_storm(1, 1, 16, true);
    pool_storm(4, 4, 8, true);
    pool_storm(4, 1, 1024, true);
    pool_storm(2, 4, 2, false);
    pool_storm(4, 4, 65536, false);
}

TEST(pool_refuses_when_its_ring_is_full) {
    struct books books;
    hsrv_memory memory;
    struct task tasks[5];
    size_t done = 0;
    books_open(&books, &memory);
    hsrv_pool *pool = hsrv_pool_new(&memory, "full", 3, 4); // its threads come later
    CHECK(pool != NULL);
    for (int i = 0; i < 5; i++) {
        tasks[i].runs = 0;
        tasks[i].done = &done;
        CHECK_INT(hsrv_pool_submit(pool, task_run, &tasks[i]), i < 4);
    }
    CHECK_INT(pool->jobs, 4);
    CHECK(hsrv_pool_step(pool)); // by hand
    CHECK_INT(tasks[0].runs, 1);
    CHECK(hsrv_pool_submit(pool, task_run, &tasks[4]));
    CHECK_INT(hsrv_pool_start(pool), 0);
    WAIT(number_done(&done) == 5);
    hsrv_pool_free(pool);
    for (int i = 0; i < 5; i++) {
        CHECK_INT(tasks[i].runs, 1);
    }
    CHECK_BOOKS(&books, &memory, 0);
}

TEST(pool_without_memory) {
    struct books books;
    hsrv_memory memory;
    books_open(&books, &memory);
    for (size_t grants = 0; grants < 3; grants++) {
        books.grants = grants;
        CHECK(hsrv_pool_new(&memory, "poor", 2, 4) == NULL);
        CHECK_BOOKS(&books, &memory, 0);
    }
    books.grants = 3;
    hsrv_pool *pool = hsrv_pool_new(&memory, "a name that is longer than fits into it", 2, 4);
    CHECK(pool != NULL);
    CHECK_INT(strlen(pool->name), 31);
    hsrv_pool_free(pool); // was never started
    CHECK_BOOKS(&books, &memory, 0);
}

// Every job finds all workers asleep, or on their way there.
static void submit_one_by_one(int workers, int jobs, bool until_parked) {
    hsrv_memory memory;
    size_t done = 0;
    struct task task = {0, &done};
    hsrv_memory_init(&memory, NULL, NULL);
    hsrv_pool *pool = hsrv_pool_new(&memory, "parking", workers, 4);
    CHECK(pool && hsrv_pool_start(pool) == 0);
    for (int i = 0; i < jobs; i++) {
        if (until_parked) WAIT(hsrv_pool_busy(pool) == 0);
        for (uint32_t spins = random_below(2000); spins > 0; spins--) {
            __atomic_load_n(&done, __ATOMIC_RELAXED);
        }
        CHECK(hsrv_pool_submit(pool, task_run, &task));
        const int64_t until = test_now() + test_ms(10000);
        while (number_done(&done) <= (size_t)i) {
            if (test_now() > until) FAIL("job %d: no worker woke up", i);
            sched_yield();
        }
    }
    hsrv_pool_free(pool);
    CHECK_INT(task.runs, jobs);
    CHECK_INT(memory.used, 0);
}

TEST(pool_wakes_who_sleeps) {
    submit_one_by_one(1, STORM(800), true);
    submit_one_by_one(4, STORM(800), true);
}

TEST(pool_wakes_who_is_falling_asleep) {
    submit_one_by_one(1, STORM(15000), false);
    submit_one_by_one(2, STORM(8000), false);
}

static void *park(void *arg) {
    hsrv_pool_park((hsrv_pool *)arg);
    return NULL;
}

// A job that came without seeing the worker's mark, or the end of the pool: the worker looks once more and stays up.
TEST(pool_looks_again_before_it_sleeps) {
    for (int stopping = 0; stopping < 2; stopping++) {
        hsrv_memory memory;
        pthread_t worker;
        struct timespec until;
        size_t done = 0;
        struct task task = {0, &done};
        hsrv_memory_init(&memory, NULL, NULL);
        hsrv_pool *pool = hsrv_pool_new(&memory, "window", 1, 4);
        CHECK(pool != NULL);
        if (stopping) pool->stopping = 1;
        if (!stopping) CHECK(hsrv_pool_submit(pool, task_run, &task));
        CHECK_INT(pthread_create(&worker, NULL, park, pool), 0);
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec += 1 + test_ms(8000) / 1000;
        CHECK_INT(pthread_timedjoin_np(worker, NULL, &until), 0);
        CHECK_INT(pool->parked, 0);
        CHECK_INT(pool->tickets, 0);
        CHECK_INT(hsrv_pool_step(pool), !stopping);
        hsrv_pool_free(pool);
    }
}

// One ticket, one worker: whoever is woken loses its mark.
TEST(pool_hands_out_one_ticket_for_each_mark) {
    hsrv_memory memory;
    size_t done = 0;
    struct task tasks[4];
    hsrv_memory_init(&memory, NULL, NULL);
    hsrv_pool *pool = hsrv_pool_new(&memory, "marks", 2, 8);
    CHECK(pool != NULL);
    pool->parked = 2;
    for (uint32_t i = 0; i < 4; i++) {
        tasks[i].runs = 0;
        tasks[i].done = &done;
        CHECK(hsrv_pool_submit(pool, task_run, &tasks[i]));
        CHECK_INT(pool->tickets, i < 2 ? i + 1 : 2);
        CHECK_INT(pool->parked, i < 2 ? 1 - i : 0);
    }
    pool->parked = 1;
    CHECK(hsrv_pool_step(pool)); // leaves some behind: a colleague is woken
    CHECK_INT(pool->tickets, 3);
    CHECK(hsrv_pool_step(pool) && hsrv_pool_step(pool));
    pool->parked = 1;
    CHECK(hsrv_pool_step(pool)); // leaves none behind
    CHECK(!hsrv_pool_step(pool));
    CHECK_INT(pool->tickets, 3);
    hsrv_pool_free(pool);
}

struct gate {
    sem_t open;
    size_t waiting;
};

static void wait_at_gate(void *arg) {
    struct gate *gate = (struct gate *)arg;
    __atomic_fetch_add(&gate->waiting, 1u, __ATOMIC_RELEASE);
    while (sem_wait(&gate->open) != 0) {}
}

// As many jobs run at a time as there are workers, and busy counts them.
TEST(pool_counts_the_busy) {
    enum { WORKERS = 3 };
    hsrv_memory memory;
    struct gate gate;
    hsrv_memory_init(&memory, NULL, NULL);
    gate.waiting = 0;
    sem_init(&gate.open, 0, 0);
    hsrv_pool *pool = hsrv_pool_new(&memory, "busy", WORKERS, 8);
    CHECK(pool != NULL);
    CHECK_INT(hsrv_pool_busy(pool), 0);
    CHECK_INT(hsrv_pool_start(pool), 0);
    WAIT(hsrv_pool_busy(pool) == 0);
    for (int i = 1; i <= WORKERS + 2; i++) {
        const int running = i < WORKERS ? i : WORKERS;
        CHECK(hsrv_pool_submit(pool, wait_at_gate, &gate));
        WAIT(number_done(&gate.waiting) == (size_t)running);
        WAIT(hsrv_pool_busy(pool) == running);
    }
    for (int i = 0; i < WORKERS + 2; i++) {
        sem_post(&gate.open);
    }
    WAIT(hsrv_pool_busy(pool) == 0);
    CHECK_INT(gate.waiting, WORKERS + 2);
    CHECK_INT(__atomic_load_n(&pool->parked, __ATOMIC_SEQ_CST), WORKERS);
    CHECK_INT(__atomic_load_n(&pool->tickets, __ATOMIC_SEQ_CST), 0);
    hsrv_pool_free(pool);
    sem_destroy(&gate.open);
}

// A worker looked in vain, a job came, the worker set its mark and is about to look again: nobody may take the pool for
// idle.
TEST(pool_is_busy_while_a_job_waits) {
    hsrv_memory memory;
    size_t done = 0;
    struct task task = {0, &done};
    hsrv_memory_init(&memory, NULL, NULL);
    hsrv_pool *pool = hsrv_pool_new(&memory, "window", 1, 4);
    CHECK(pool != NULL);
    pool->num_threads = 1;
    pool->up = 1; // a worker whose steps are taken by hand
    CHECK_INT(hsrv_pool_busy(pool), 1);
    CHECK(!hsrv_pool_step(pool));
    CHECK(hsrv_pool_submit(pool, task_run, &task));
    pool->parked = 1;
    CHECK_INT(hsrv_pool_busy(pool), 1);
    CHECK(hsrv_pool_step(pool));
    pool->parked = 1;
    CHECK_INT(hsrv_pool_busy(pool), 0);
    pool->num_threads = 0;
    hsrv_pool_free(pool);
    CHECK_INT(task.runs, 1);
}

static void slow_task(void *arg) {
    test_sleep(2);
    task_run(arg);
}

TEST(pool_free_runs_what_was_accepted) {
    enum { JOBS = 40 };
    for (int round = 0; round < 3; round++) {
        hsrv_memory memory;
        struct task tasks[JOBS];
        size_t done = 0;
        hsrv_memory_init(&memory, NULL, NULL);
        hsrv_pool *pool = hsrv_pool_new(&memory, "slow", 1 + round, JOBS);
        CHECK(pool != NULL);
        if (round > 0) CHECK_INT(hsrv_pool_start(pool), 0);
        for (int i = 0; i < JOBS; i++) {
            tasks[i].runs = 0;
            tasks[i].done = &done;
            CHECK(hsrv_pool_submit(pool, slow_task, &tasks[i]));
        }
        if (round == 0) CHECK_INT(hsrv_pool_start(pool), 0);
        hsrv_pool_free(pool);
        for (int i = 0; i < JOBS; i++) {
            CHECK_INT(tasks[i].runs, 1);
        }
        CHECK_INT(memory.used, 0);
    }
}
