// The pool's parking: how workers fall asleep on an empty ring and who wakes them.
//
// httpsrv.h                        here
//   hsrv_queue_push                  producer, from `push` to `published`
//   hsrv_queue_pop                   worker, from `pop` to `taken`
//   hsrv_queue_ready                 look_at_ring
//   hsrv_pool_take_mark, _wake_one   wake_one
//   hsrv_pool_submit                 producer: push, then wake_one; the counter `jobs` orders nothing and is left out
//   hsrv_pool_offer, hsrv_pool_wake  with -DBATCH: producer, several times push, then wake
//   hsrv_pool_step                   worker, from `pop` to the end of the job; `wanted` is the matter of room.pml
//   hsrv_pool_park                   worker, from `park` on
//   hsrv_pool_take_ticket            worker, from `ticket` on, with hsrv_sys_futex_wait in it
//   hsrv_pool_worker                 worker
//   hsrv_pool_busy                   owner, before it stops the pool
//   hsrv_pool_stop                   owner, from `stop` on
//   hsrv_server_serve_rest           owner, at `rest`, when nobody submits any more
//
// The ring is Vyukov's with its sequence numbers; only the contents of a cell are left out. A compare-and-swap that is
// tried until it succeeds or has no reason any more is one step. A handler either ends or holds its worker until
// nothing else in the whole system can move (`timeout`), which is how long a handler may take. The pool is stopped at
// any moment after the last job was submitted or, with -DSTOP_AMID, at any moment: jobs of other pools may submit too.
//
// What must hold:
//   stranded    when nothing moves any more, no readable job lies in the ring beside a sleeping worker
//   surplus     marks, tickets and those between are as many as the workers that park: one mark is one ticket, and one
//               ticket lets one worker go; so whoever is on the way up is not woken again
//   herd        whoever publishes a job, or sees more of them, lets one worker go
//   twice       no job is taken twice
//   deserted    hsrv_pool_busy says 0 only when all accepted jobs have ended
//   unfinished  when the pool has been stopped and the rest served, all accepted jobs have ended
//   stuck       nobody waits for ever: spin's "invalid end state"
//   endless     nobody runs for ever if all get their turns: spin's "non-progress cycle", as nothing here is progress

#ifndef WORKERS
#define WORKERS 2
#endif
#ifndef PRODUCERS
#define PRODUCERS 2
#endif
#ifndef JOBS
#define JOBS 2 // of each producer
#endif
#ifndef RING
#define RING 4 // a power of two
#endif
#ifndef BATCH
#define BATCH 1 // jobs that a producer puts in before it wakes anybody
#endif

// Each of these breaks one thing, which must be found out as the comment's first word says.
#define PUBLISH_RELEASE     1  // stranded: a job is published by a release store, which the look for marks may pass
#define LOOK_ACQUIRE        2  // stranded: a producer's look for marks is no seq_cst load, and passes the publication
#define MARK_HOISTED        3  // stranded: a worker's look at the ring passes its mark, as when that is no seq_cst RMW
#define NO_SECOND_LOOK      4  // stranded: a worker parks without another look at the ring
#define NO_WAKE_MORE        5  // stranded: a worker that leaves jobs behind wakes nobody
#define WAKE_BEFORE_PUBLISH 6  // stranded: a producer looks for marks, then publishes
#define PARK_BLIND_TO_STOP  7  // stuck: a worker parks without a look at `stopping`
#define STOP_RELEASE        8  // stuck: `stopping` is set by a release store
#define STOP_LOOK_ACQUIRE   9  // stuck: the owner's look for marks is no seq_cst load, and passes `stopping`
#define STOP_WAKES_ONE      10 // stuck: the end wakes one worker only
#define NO_REST             11 // unfinished: what the workers have left when they end is not served
#define NEVER_ENDS          12 // endless: a worker does not end, it parks and sees `stopping` again and again
#define FUTEX_BLIND         13 // stuck: futex wait without an expected value
#define TICKET_AFTER_WAKE   14 // stuck: futex wake, then the ticket
#define MARK_LEFT           15 // surplus: the waker leaves the mark to the one that it wakes
#define WAKE_ALL            16 // herd: a ticket for each mark, and futex wake of everybody
#define STAY_MARKED         17 // surplus: a worker that stays up leaves its mark
#define STAY_UNTICKETED     18 // surplus: a worker that stays up does not wait for the ticket that its mark became
#define BUSY_RING_LAST      19 // deserted: hsrv_pool_busy looks at the marks, then at the ring
#define PLAIN_POP           20 // twice: a worker takes its job without compare-and-swap
#define OFFERS_FORGOTTEN    21 // stranded (batch): when the ring is full, nobody is woken for what was put in before

#ifndef VARIANT
#define VARIANT 0
#endif

#define THREADS         (WORKERS + PRODUCERS + 1)
#define CELL(position)  ((position) % RING)
#define STOPPING        RING
#define SECOND          (1 % WORKERS)
#define LAST            (WORKERS - 1)
#define LOCATIONS       (RING + 1)
#if RING == 2
#define AT_FIRST        { 0, 1, 0 }
#else
#define AT_FIRST        { 0, 1, 2, 3, 0 }
#endif
#define me              _pid // workers, producers, owner, in the order of the text

#include "store_buffer.pml"

// Words that see only RMWs (and loads).
byte head, tail;
byte parked, tickets;
byte up;

bool asleep[WORKERS]; // in the kernel's queue of the futex
bool held[WORKERS];   // by a long handler
byte done;            // jobs that have ended
byte producers_done, workers_done;
bool may_stop;

// For the properties alone.
bool was_taken[PRODUCERS * JOBS];
byte parking;  // workers from their mark on, until they go on
byte granting; // marks that were taken and whose ticket is not there yet
bool stranded, surplus, herd, twice, deserted, unfinished;

#if VARIANT == PUBLISH_RELEASE
#define PUBLISH_ORDER RELEASE
#else
#define PUBLISH_ORDER SEQ_CST
#endif
#if VARIANT == LOOK_ACQUIRE
#define LOOK_ORDER RELAXED
#else
#define LOOK_ORDER SEQ_CST
#endif
#if VARIANT == STOP_RELEASE
#define STOP_ORDER RELEASE
#else
#define STOP_ORDER SEQ_CST
#endif
#if VARIANT == STOP_LOOK_ACQUIRE
#define STOP_LOOK_ORDER RELAXED
#else
#define STOP_LOOK_ORDER SEQ_CST
#endif

// hsrv_queue_ready: the tail, then the cell that it names.
inline look_at_ring(result) {
    position = tail;
    atomic {
        MAY_LOAD(me, SEQ_CST);
        result = SEEN(me, CELL(position)) >= position + 1;
        position = 0
    }
}

inline check_tickets() {
    surplus = parked + tickets + granting != parking;
    assert(!surplus)
}

inline add_ticket(count) {
    atomic {
        FLUSHED(me);
        herd = count > 1;
        assert(!herd);
        tickets = tickets + count;
        granting = granting - count;
        check_tickets()
    }
}

// The kernel lets one go, whichever.
inline futex_wake() {
    atomic {
        if
        :: asleep[0] -> asleep[0] = false
        :: asleep[SECOND] -> asleep[SECOND] = false
#if WORKERS > 2
        :: asleep[LAST] -> asleep[LAST] = false
#endif
        :: else
        fi
    }
}

inline futex_wake_all() {
    d_step {
        asleep[0] = false;
        asleep[SECOND] = false;
        asleep[LAST] = false
    }
}

// Local to the caller: marks, how many it has taken and not given tickets for.
inline wake_one(order) {
    if
    :: MAY_LOAD(me, order) && parked == 0
    :: MAY_LOAD(me, order) && parked > 0 ->
        atomic {
            FLUSHED(me);
#if VARIANT == WAKE_ALL
            marks = parked;
#else
            marks = (parked > 0 -> 1 : 0);
#endif
#if VARIANT != MARK_LEFT
            parked = parked - marks;
#endif
            granting = granting + marks
        };
        if
        :: marks == 0
        :: else ->
#if VARIANT == TICKET_AFTER_WAKE
            futex_wake();
            add_ticket(marks);
#elif VARIANT == WAKE_ALL
            add_ticket(marks);
            futex_wake_all();
#else
            add_ticket(marks);
            futex_wake();
#endif
            marks = 0
        fi
    fi
}

// hsrv_pool_wake. Local to the caller: offered, the jobs that nobody was woken for yet.
inline wake(order) {
    do
    :: offered == 0 -> break
    :: offered > 0 && MAY_LOAD(me, order) && parked == 0 -> offered = 0
    :: offered > 0 && MAY_LOAD(me, order) && parked > 0 -> offered--; wake_one(order)
    od
}

active [WORKERS] proctype worker() {
    byte position, marks;
    bool ending, more, stay;

    atomic { up == me; up++ }; // in this order, as they are all alike
pop:
    position = tail;
again:
    atomic { // the cell's sequence, acquire
        if
        :: SEEN(me, CELL(position)) < position + 1 -> position = 0; goto nothing
        :: SEEN(me, CELL(position)) > position + 1 -> goto pop
        :: else
        fi
    }
#if VARIANT == PLAIN_POP
    tail = position + 1;
#else
    atomic {
        if
        :: tail == position -> tail++
        :: else -> position = tail; goto again
        fi
    }
#endif
    d_step {
        twice = was_taken[position];
        assert(!twice);
        was_taken[position] = true
    }
#if RING < PRODUCERS * JOBS
    store(me, CELL(position), position + RING, SEQ_CST);
#endif
    position = 0;
taken:
#if VARIANT != NO_WAKE_MORE
    if
    :: parked == 0
    :: parked > 0 ->
        look_at_ring(more);
        if
        :: more -> more = false; wake_one(SEQ_CST)
        :: else
        fi
    fi;
#endif
    if
    :: done++
    :: held[me] = true; atomic { !held[me]; done++ }
    fi;
    goto pop;

nothing:
    // What is accepted between the look at the ring and this one is left for the owner.
    atomic { MAY_LOAD(me, SEQ_CST); ending = SEEN(me, STOPPING) };
#if VARIANT != NEVER_ENDS
    if
    :: ending -> goto end_of_thread
    :: else
    fi;
#endif

park:
#if VARIANT == MARK_HOISTED
    look_at_ring(stay);
#endif
    atomic {
        FLUSHED(me);
        parked++;
        parking++
    };
#if VARIANT != NO_SECOND_LOOK && VARIANT != MARK_HOISTED
    look_at_ring(stay);
#endif
#if VARIANT != PARK_BLIND_TO_STOP
    if
    :: stay
    :: else -> atomic { MAY_LOAD(me, SEQ_CST); stay = SEEN(me, STOPPING) }
    fi;
#endif
    if
    :: !stay
    :: stay ->
        atomic {
            FLUSHED(me);
            stay = false;
            if
#if VARIANT == STAY_MARKED
            :: parked > 0 -> parking--; check_tickets(); goto pop
#else
            :: parked > 0 -> parked--; parking--; check_tickets(); goto pop
#endif
#if VARIANT == STAY_UNTICKETED
            :: else -> parking--; check_tickets(); goto pop
#else
            :: else
#endif
            fi
        }
    fi;

ticket:
    atomic {
        if
        :: tickets > 0 ->
            tickets--;
            parking--;
#if VARIANT == MARK_LEFT
            parked--;
#endif
            goto pop
        :: else
        fi
#if VARIANT == FUTEX_BLIND
    }
    asleep[me] = true;
#else
        ; asleep[me] = true // the kernel compares and queues in one step
    }
#endif
    !asleep[me];
    goto ticket;

end_of_thread:
    atomic { FLUSHED(me); workers_done++ } // what is joined has nothing in its buffer any more
}

active [PRODUCERS] proctype producer() {
    byte position, marks, submitted;
#if BATCH > 1
    byte offered;
#endif

push:
    position = head;
again:
    atomic { // the cell's sequence
        MAY_LOAD(me, SEQ_CST);
        if
        :: SEEN(me, CELL(position)) < position -> goto refused // full
        :: SEEN(me, CELL(position)) > position -> goto push
        :: else
        fi
    }
    atomic {
        if
        :: head == position -> head++
        :: else -> position = head; goto again
        fi
    }
#if VARIANT == WAKE_BEFORE_PUBLISH
    wake_one(LOOK_ORDER);
#endif
    store(me, CELL(position), position + 1, PUBLISH_ORDER);
    position = 0;
published:
#if BATCH > 1
    offered++;
#elif VARIANT != WAKE_BEFORE_PUBLISH
    wake_one(LOOK_ORDER);
#endif
    goto next;
refused:
#if VARIANT == OFFERS_FORGOTTEN
    offered = 0;
#endif
next:
    atomic {
        position = 0;
        submitted++
    }
#if BATCH > 1
    if
    :: offered == BATCH || submitted == JOBS -> wake(LOOK_ORDER)
    :: else
    fi;
#endif
    if
    :: submitted < JOBS -> goto push
    :: else
    fi;
    atomic { FLUSHED(me); producers_done++ }
}

active proctype owner() {
    byte position, marks, i;
    bool ready;

#ifndef STOP_AMID
    producers_done == PRODUCERS;

    // hsrv_pool_busy
#if VARIANT == BUSY_RING_LAST
    i = parked;
    look_at_ring(ready);
#else
    look_at_ring(ready);
    i = parked;
#endif
    atomic {
        deserted = i >= up && !ready && done != head;
        assert(!deserted);
        ready = false;
        i = 0
    }
    if
    :: true
    :: true -> may_stop // when nothing moves any more
    fi;
#endif

stop:
    store(me, STOPPING, 1, STOP_ORDER);
    do
    :: i < WORKERS ->
        wake_one(STOP_LOOK_ORDER);
        i++;
#if VARIANT == STOP_WAKES_ONE
        i = WORKERS
#endif
    :: else -> break
    od;
    workers_done == WORKERS && producers_done == PRODUCERS;
rest:
#if VARIANT != NO_REST
    atomic {
        do
        :: memory[CELL(tail)] == tail + 1 -> tail++; done++
        :: else -> break
        od
    }
#endif
    unfinished = done != head;
    assert(!unfinished)
}

// When nothing else can move: handlers end one by one, then the pool is stopped, if it was not before.
active proctype patience() {
    do
    :: timeout ->
        d_step {
            stranded = memory[CELL(tail)] == tail + 1 && (asleep[0] || asleep[SECOND] || asleep[LAST]);
            assert(!stranded)
        }
        if
        :: held[0] -> held[0] = false
        :: held[SECOND] -> held[SECOND] = false
#if WORKERS > 2
        :: held[LAST] -> held[LAST] = false
#endif
        :: else ->
            if
            :: !may_stop -> may_stop = true
            :: else -> break
            fi
        fi
    od
}

active proctype hardware() {
end:
    do
    :: flush(0)
    :: flush(1)
    :: flush(2)
    :: flush(3)
#if THREADS > 4
    :: flush(4)
#endif
#if THREADS > 5
    :: flush(5)
#endif
#if THREADS > 6
    :: flush(6)
#endif
    od
}
