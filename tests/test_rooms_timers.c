// >>timers under a clock of their own: never early, late by less than a tick, whatever the clock does.

#define HTTPSRV_IMPLEMENTATION
#include "httpsrv.h"
#include "rooms.h"

#define NEVER UINT64_MAX

static hsrv_loop *loop_at(uint64_t now, const int durations[HSRV_RINGS]) {
    hsrv_loop *loop = (hsrv_loop *)calloc(1, sizeof *loop);
    CHECK(loop != NULL);
    loop->now = now;
    for (int i = 0; i < HSRV_RINGS; i++) {
        hsrv_timers_init(&loop->wheels[i], durations[i], now);
    }
    return loop;
}

static hsrv_conn new_conn(void) {
    hsrv_conn c;
    memset(&c, 0, sizeof c);
    c.ring = HSRV_RINGS;
    return c;
}

static uint64_t tick_of(const hsrv_loop *loop, hsrv_ring ring) {
    return loop->wheels[ring].tick;
}

static hsrv_conn *due_at(hsrv_loop *loop, uint64_t now) {
    loop->now = now;
    return hsrv_timers_take_due(loop);
}

static void check_empty(const hsrv_loop *loop) {
    for (int i = 0; i < HSRV_RINGS; i++) {
        CHECK_INT(loop->wheels[i].occupied, 0);
        for (uint32_t k = 0; k < HSRV_PLACES; k++) {
            CHECK(loop->wheels[i].places[k] == NULL);
        }
    }
    CHECK(hsrv_timers_next(loop) == NEVER);
}

static const int usual[HSRV_RINGS] = {30000, 10000, 10000, 30000, 2000, 5000, 15000};
static const uint64_t starts[] = {0,         1, 999, 123456789, 0xffffffffu - 40, 0x100000000u, 0x3ffffffffu - 1000,
                                  1ull << 50};

// ---- one deadline ----

TEST(ticks_are_a_sixteenth_rounded_up) {
    static const int table[][2] = {{1, 1},  {15, 1}, {16, 1},     {17, 2},
                                   {32, 2}, {33, 3}, {2000, 125}, {86400000, 5400000}};
    hsrv_wheel wheel;
    for (size_t i = 0; i < LENGTH(table); i++) {
        hsrv_timers_init(&wheel, table[i][0], 1000);
        CHECK_INT(wheel.tick, table[i][1]);
        CHECK_INT(wheel.duration, table[i][0]);
    }
}

// Each duration, from each place within a tick, the clock going on ms by ms.
TEST(each_duration_to_the_millisecond) {
    for (int duration = 1; duration <= 100; duration++) {
        const int durations[HSRV_RINGS] = {duration, -1, -1, -1, -1};
        for (size_t s = 0; s < LENGTH(starts); s++) {
            hsrv_loop *loop = loop_at(starts[s], durations);
            const uint64_t tick = tick_of(loop, HSRV_RING_IDLE);
            for (uint64_t phase = 0; phase <= tick; phase++) {
                hsrv_conn c = new_conn();
                CHECK(due_at(loop, loop->now + 1) == NULL);
                const uint64_t deadline = loop->now + (uint64_t)duration;
                hsrv_timers_arm(loop, &c, HSRV_RING_IDLE, deadline);
                const uint64_t next = hsrv_timers_next(loop);
                NOTE("%d ms from %" PRIu64, duration, loop->now);
                CHECK(next >= deadline && next < deadline + tick);
                while (loop->now < next - 1) {
                    CHECK(due_at(loop, loop->now + 1) == NULL);
                }
                CHECK(due_at(loop, next) == &c);
                CHECK_INT(c.ring, HSRV_RINGS);
                CHECK(hsrv_timers_take_due(loop) == NULL);
                check_empty(loop);
            }
            free(loop);
        }
    }
}

TEST(a_ring_that_is_off_takes_nothing) {
    const int durations[HSRV_RINGS] = {-1, -1, -1, -1, 50};
    hsrv_loop *loop = loop_at(1000, durations);
    hsrv_conn c = new_conn();
    for (int ring = 0; ring < HSRV_RING_LINGER; ring++) {
        hsrv_timers_arm(loop, &c, (hsrv_ring)ring, 1000);
        CHECK_INT(c.ring, HSRV_RINGS);
    }
    check_empty(loop);
    hsrv_timers_arm(loop, &c, HSRV_RING_LINGER, 1050);
    hsrv_timers_arm(loop, &c, HSRV_RING_IDLE, 1000); // leaves it where it is
    CHECK_INT(c.ring, HSRV_RING_LINGER);
    CHECK(due_at(loop, 2000) == &c);
    free(loop);
}

TEST(arming_again) {
    for (size_t s = 0; s < LENGTH(starts); s++) {
        hsrv_loop *loop = loop_at(starts[s], usual);
        const uint64_t now = loop->now;
        hsrv_conn c = new_conn();
        NOTE("from %" PRIu64, now);
        hsrv_timers_arm(loop, &c, HSRV_RING_IDLE, now + 30000);
        const uint64_t first = hsrv_timers_next(loop);
        hsrv_timers_arm(loop, &c, HSRV_RING_HEAD, now + 10000); // shorter: moves
        CHECK_INT(c.ring, HSRV_RING_HEAD);
        const uint64_t second = hsrv_timers_next(loop);
        CHECK(second >= now + 10000 && second < now + 10000 + tick_of(loop, HSRV_RING_HEAD) && second < first);
        hsrv_timers_arm(loop, &c, HSRV_RING_IDLE, now + 30000); // longer: stays, and is looked at in between
        hsrv_timers_arm(loop, &c, HSRV_RING_HEAD, now + 10001);
        CHECK(c.ring == HSRV_RING_HEAD && hsrv_timers_next(loop) == second);
        hsrv_timers_arm(loop, &c, HSRV_RING_LINGER, now + 2000);
        CHECK(hsrv_timers_next(loop) < now + 2000 + tick_of(loop, HSRV_RING_LINGER));
        hsrv_timers_unlink(loop, &c);
        hsrv_timers_unlink(loop, &c);
        check_empty(loop);
        free(loop);
    }
}

TEST(connections_of_one_place_come_one_by_one) {
    hsrv_conn conns[10];
    for (size_t gone = 0; gone < LENGTH(conns); gone++) {
        hsrv_loop *loop = loop_at(5000, usual);
        bool seen[LENGTH(conns)] = {false};
        for (size_t i = 0; i < LENGTH(conns); i++) {
            conns[i] = new_conn();
            hsrv_timers_arm(loop, &conns[i], HSRV_RING_BODY, 15000 + i);
        }
        hsrv_timers_unlink(loop, &conns[gone]); // the first, the last, one in the middle
        loop->now = 16000;
        for (size_t i = 0; i + 1 < LENGTH(conns); i++) {
            const hsrv_conn *c = hsrv_timers_take_due(loop);
            CHECK(c && c != &conns[gone] && !seen[c - conns]);
            seen[c - conns] = true;
        }
        CHECK(hsrv_timers_take_due(loop) == NULL);
        check_empty(loop);
        free(loop);
    }
}

// ---- stamps: the low half of the clock ----

TEST(deadlines_across_the_wrap_of_stamps) {
    static const uint32_t ages[] = {0, 1, 29999, 30000, 1000000, 86400000};
    for (size_t s = 0; s < LENGTH(starts); s++) {
        hsrv_loop *loop = loop_at(starts[s], usual);
        for (size_t i = 0; i < LENGTH(ages); i++) {
            hsrv_conn c = new_conn();
            const uint64_t stamped = starts[s] + 50;
            c.stamp = (uint32_t)stamped;
            loop->now = stamped + ages[i];
            CHECK(hsrv_conn_deadline(loop, &c, HSRV_RING_IDLE) == stamped + 30000);
            CHECK(hsrv_conn_deadline(loop, &c, HSRV_RING_LINGER) == stamped + 2000);
        }
        free(loop);
    }
}

// ---- storms against a model ----

#define CONNS 60

struct model {
    hsrv_loop *loop;
    hsrv_conn conns[CONNS];
    hsrv_ring rings[CONNS];
    uint64_t deadlines[CONNS]; // NEVER: not armed
    uint64_t fired;
};

static void model_arm(struct model *m, size_t i, hsrv_ring ring) {
    m->rings[i] = ring;
    m->deadlines[i] = m->loop->now + m->loop->wheels[ring].duration;
    if (tick_of(m->loop, ring) == 0) m->deadlines[i] = NEVER;
    if (m->deadlines[i] == NEVER) hsrv_timers_unlink(m->loop, &m->conns[i]);
    hsrv_timers_arm(m->loop, &m->conns[i], ring, m->deadlines[i]);
}

// As hsrv_reactor_serve_timers: whoever is looked at too soon is queued again.
static void model_look(struct model *m, size_t i) {
    if (m->deadlines[i] == NEVER) return;
    if (m->deadlines[i] > m->loop->now) {
        hsrv_timers_link(m->loop, &m->conns[i], m->rings[i], m->deadlines[i]);
        return;
    }
    m->deadlines[i] = NEVER;
    m->fired++;
}

// Serves the timers of a turn. Nothing may be overdue afterwards.
// `steady` says that the clock has not jumped, so that nobody is looked at before its place comes up.
static void model_turn(struct model *m, bool steady) {
    hsrv_loop *loop = m->loop;
    int looks = 0;
    for (hsrv_conn *c = hsrv_timers_take_due(loop); c; c = hsrv_timers_take_due(loop)) {
        CHECK_INT(c->ring, HSRV_RINGS);
        if (steady) CHECK((int32_t)((uint32_t)loop->now - c->due) >= 0);
        if (++looks > 4 * CONNS) FAIL("a turn goes on and on");
        model_look(m, (size_t)(c - m->conns));
    }
    for (size_t i = 0; i < CONNS; i++) {
        if (m->deadlines[i] == NEVER) continue;
        if (m->deadlines[i] + tick_of(loop, m->rings[i]) <= loop->now) FAIL("connection %zu is overdue", i);
        CHECK(m->conns[i].ring != HSRV_RINGS);
    }
    CHECK(hsrv_timers_next(loop) > loop->now);
}

// The next place is where the wheels say: nothing comes up before it, something then.
static void model_follow_next(struct model *m) {
    const uint64_t next = hsrv_timers_next(m->loop);
    if (next == NEVER) {
        check_empty(m->loop);
        return;
    }
    CHECK(due_at(m->loop, next - 1) == NULL);
    const hsrv_conn *c = due_at(m->loop, next);
    CHECK(c != NULL);
    model_look(m, (size_t)(c - m->conns));
    model_turn(m, true);
}

static uint64_t random_step(const hsrv_loop *loop, bool *steady) {
    const uint64_t least = tick_of(loop, HSRV_RING_LINGER);
    const uint32_t kind = random_below(40);
    *steady = kind > 1;
    if (kind == 0) return random_below(10000000);
    if (kind == 1) return least * random_below(80);
    return kind < 10 ? 0 : random_below((uint32_t)least + 2);
}

static void model_storm(uint64_t start, const int durations[HSRV_RINGS]) {
    struct model m;
    memset(&m, 0, sizeof m);
    m.loop = loop_at(start, durations);
    for (size_t i = 0; i < CONNS; i++) {
        m.conns[i] = new_conn();
        m.deadlines[i] = NEVER;
    }
    for (int round = 0; round < STORM(20000); round++) {
        bool steady;
        NOTE("start %" PRIu64 ", round %d, now %" PRIu64, start, round, m.loop->now);
        m.loop->now += random_step(m.loop, &steady);
        for (uint32_t i = random_below(6); i > 0; i--) { // before the timers are served, like events of the turn
            const size_t conn = random_below(CONNS);
            if (random_below(5) == 0) {
                hsrv_timers_unlink(m.loop, &m.conns[conn]);
                m.deadlines[conn] = NEVER;
            } else {
                model_arm(&m, conn, (hsrv_ring)random_below(HSRV_RINGS));
            }
        }
        model_turn(&m, steady);
        if (random_below(10) == 0) model_follow_next(&m);
    }
    CHECK(m.fired > 0);
    for (size_t i = 0; i < CONNS; i++) {
        hsrv_timers_unlink(m.loop, &m.conns[i]);
    }
    check_empty(m.loop);
    free(m.loop);
}

TEST(storms_with_usual_durations) {
    for (size_t s = 0; s < LENGTH(starts); s++) {
        model_storm(starts[s], usual);
    }
}

TEST(storms_with_odd_durations) {
    static const int table[][HSRV_RINGS] = {{1, 2, 3, 4, 5},      {100, 99, -1, 17, 16},      {33, 1, 1000, 7, 31},
                                            {-1, -1, 15, -1, 48}, {86400000, 1, 64, 5000, 3}, {16, 16, 16, 16, 16}};
    for (size_t i = 0; i < LENGTH(table); i++) {
        model_storm(starts[i], table[i]);
    }
}

// A loop that slept for long before anything is armed: its wheels lag behind its clock.
TEST(wheels_that_lag) {
    static const uint64_t sleeps[] = {1, 15, 16, 17, 31, 32, 33, 34, 47, 48, 49, 50, 64, 65, 1000, 1000000};
    for (size_t i = 0; i < LENGTH(sleeps); i++) {
        for (int armed_before = 0; armed_before < 2; armed_before++) {
            hsrv_loop *loop = loop_at(777, usual);
            hsrv_conn c = new_conn(), other = new_conn();
            const uint64_t tick = tick_of(loop, HSRV_RING_HEAD);
            if (armed_before) hsrv_timers_arm(loop, &other, HSRV_RING_HEAD, loop->now + 10000);
            loop->now += sleeps[i] * tick;
            const uint64_t deadline = loop->now + 10000;
            int looks = 0;
            NOTE("%" PRIu64 " ticks", sleeps[i]);
            hsrv_timers_arm(loop, &c, HSRV_RING_HEAD, deadline);
            for (;;) {
                const hsrv_conn *due = hsrv_timers_take_due(loop);
                if (due == &c && loop->now >= deadline) break;
                if (due == &c) hsrv_timers_link(loop, &c, HSRV_RING_HEAD, deadline);
                if (due == &c) CHECK_CMP(++looks, <=, 4);
                if (!due) loop->now = hsrv_timers_next(loop);
                CHECK(loop->now < deadline + tick);
            }
            hsrv_timers_unlink(loop, &other);
            check_empty(loop);
            free(loop);
        }
    }
}

// ---- wheels that rest: one that has been looked at is left alone until its next place comes up ----

static const uint64_t steps_of_rest[] = {0, 1, 2, 15, 16, 31, 32, 33, 34, 63, 64, 65, 1000, 1000000};

// A deadline as far ahead as the ring's always are: never early, late by less than a tick.
static void check_deadline(hsrv_loop *loop, hsrv_ring ring) {
    hsrv_conn c = new_conn();
    const uint64_t deadline = loop->now + loop->wheels[ring].duration, tick = tick_of(loop, ring);
    hsrv_timers_arm(loop, &c, ring, deadline);
    const uint64_t next = hsrv_timers_next(loop);
    CHECK(next >= deadline && next < deadline + tick);
    CHECK(due_at(loop, loop->now) == NULL);
    CHECK(due_at(loop, next - 1) == NULL);
    CHECK(due_at(loop, next) == &c);
    CHECK(hsrv_timers_take_due(loop) == NULL);
    check_empty(loop);
}

// One that is overdue when it is linked comes with the next place, not in this turn.
static void check_overdue(hsrv_loop *loop, hsrv_ring ring) {
    hsrv_conn c = new_conn();
    const uint64_t tick = tick_of(loop, ring), next = (loop->now / tick + 1) * tick;
    hsrv_timers_link(loop, &c, ring, loop->now - 1);
    CHECK(due_at(loop, loop->now) == NULL);
    CHECK(hsrv_timers_next(loop) == next);
    CHECK(due_at(loop, next - 1) == NULL);
    CHECK(due_at(loop, next) == &c);
    check_empty(loop);
}

// Empty for so many ticks and looked at in each, or at the end alone; then linked to at the begin of a tick, in it, and in
// its last millisecond.
static void check_after_rest(uint64_t start, hsrv_ring ring, uint64_t rest, bool in_each) {
    hsrv_loop *loop = loop_at(start, usual);
    const uint64_t tick = tick_of(loop, ring), phases[] = {0, 1, tick / 2, tick - 2, tick - 1};
    for (size_t i = 0; i < LENGTH(phases); i++) {
        const uint64_t aim = (loop->now / tick + 1 + rest) * tick + phases[i];
        NOTE("ring %d, from %" PRIu64 ", %" PRIu64 " ticks, %" PRIu64 " into one", ring, start, rest, phases[i]);
        while (in_each && loop->now + tick < aim)
            CHECK(due_at(loop, loop->now + tick) == NULL);
        CHECK(due_at(loop, aim) == NULL);
        check_deadline(loop, ring);
        CHECK(due_at(loop, (loop->now / tick + 1 + rest) * tick + phases[i]) == NULL);
        check_overdue(loop, ring);
    }
    free(loop);
}

TEST(wheels_that_rest) {
    for (size_t s = 0; s < LENGTH(starts); s++) {
        for (int ring = 0; ring < HSRV_RINGS; ring++) {
            for (size_t i = 0; i < LENGTH(steps_of_rest); i++) {
                check_after_rest(starts[s], (hsrv_ring)ring, steps_of_rest[i], false);
                if (steps_of_rest[i] <= 1000) check_after_rest(starts[s], (hsrv_ring)ring, steps_of_rest[i], true);
            }
        }
    }
}

// All that was due meanwhile comes at once, and the wheels go on from there.
TEST(the_clock_jumps_far_ahead) {
    static const uint64_t jumps[] = {86400000, 1000000000, 0xffffffffu, 1ull << 40};
    for (size_t j = 0; j < LENGTH(jumps); j++) {
        hsrv_loop *loop = loop_at(starts[j], usual);
        hsrv_conn conns[2 * HSRV_RINGS];
        for (size_t i = 0; i < LENGTH(conns); i++) {
            const hsrv_ring ring = (hsrv_ring)(i % HSRV_RINGS);
            conns[i] = new_conn();
            CHECK(due_at(loop, loop->now + 100) == NULL);
            hsrv_timers_arm(loop, &conns[i], ring, loop->now + loop->wheels[ring].duration);
        }
        NOTE("%" PRIu64 " ms", jumps[j]);
        loop->now += jumps[j];
        for (size_t i = 0; i < LENGTH(conns); i++)
            CHECK(hsrv_timers_take_due(loop) != NULL);
        CHECK(hsrv_timers_take_due(loop) == NULL);
        check_empty(loop);
        for (int ring = 0; ring < HSRV_RINGS; ring++) {
            check_deadline(loop, (hsrv_ring)ring);
            check_overdue(loop, (hsrv_ring)ring);
        }
        free(loop);
    }
}
