// Requests that wait for room in a full pool (HTTPSRV_OVERLOAD_WAIT), and who tells their reactors that there is some.
//
// httpsrv.h                                       here
//   hsrv_queue_push, called by hsrv_pool_submit     reactor, at `push`: ticket and publication
//   hsrv_queue_pop                                  worker: ticket, then the cell is given back
//   hsrv_pool_step, hsrv_pool_tell_room             worker, after that
//   hsrv_server_room                                worker, at `room`
//   hsrv_dispatch_to_pool                           reactor, at `request`
//   hsrv_dispatch_no_room, _wait                    reactor, at `no_room`, with a request that is new
//   hsrv_dispatch_move_waiting                      reactor, from `move` on
//   hsrv_dispatch_serve_waiting, hsrv_pool_want_room
//                                                   reactor, at `serve` and at `no_room`, when it has tried
//
// How workers park is the matter of parking.pml and how a reactor sleeps that of wakeup.pml: here a worker is there
// when a job is, and a reactor sleeps until a request or an edge of its eventfd comes. A handler either ends or holds
// its worker until nothing else in the whole system can move.
//
// What must hold:
//   forgotten  when nothing moves any more, no request waits beside room in the ring
//   unserved   when no handler is left, all requests have been served
//   stuck      nobody waits for ever, but for those who have nothing to do
//   endless    nobody runs for ever if all get their turns

#ifndef WORKERS
#define WORKERS 2
#endif
#ifndef REACTORS
#define REACTORS 2
#endif
#ifndef REQUESTS
#define REQUESTS 2 // of each reactor
#endif
#define RING 2

// Each of these breaks one thing, which must be found out as the comment's first word says.
#define GIVE_RELEASE        1  // forgotten: a release store gives the cell back, and the look at `wanted` may pass it
#define WANTED_LOOK_ACQUIRE 2  // forgotten: the look at `wanted` is no seq_cst load, and passes that store
#define WANT_RELEASE        3  // forgotten: `wanted` is set by a release store, which the second try may pass
#define TRY_ACQUIRE         4  // forgotten: the look at the cell is no seq_cst load, and passes `wanted`
#define NO_SECOND_TRY       5  // forgotten: who has said that it wants room does not try once more
#define WANT_BEHIND_TRIES   6  // forgotten: it tries twice, then says so
#define LOOK_BEFORE_GIVE    7  // forgotten: a worker looks at `wanted`, then gives the cell back
#define STARVED_BEHIND_WANT 8  // forgotten: a reactor is marked as starved after it has said that it wants room
#define TELL_BEFORE_CLEAR   9  // forgotten: the starved reactors are woken, then `wanted` is cleared
#define TELL_ONE            10 // forgotten: one starved reactor is woken
#define FED_TOO_EARLY       11 // forgotten: the mark is taken away before the pool is tried, and set anew after that
#define TRY_ON_AND_ON       12 // endless: a reactor tries until there is room

#ifndef VARIANT
#define VARIANT 0
#endif

#if VARIANT == GIVE_RELEASE
#define GIVE_ORDER RELEASE
#else
#define GIVE_ORDER SEQ_CST
#endif
#if VARIANT == WANTED_LOOK_ACQUIRE
#define WANTED_LOOK_ORDER RELAXED
#else
#define WANTED_LOOK_ORDER SEQ_CST
#endif
#if VARIANT == WANT_RELEASE
#define WANT_ORDER RELEASE
#else
#define WANT_ORDER SEQ_CST
#endif
#if VARIANT == TRY_ACQUIRE
#define TRY_ORDER RELAXED
#else
#define TRY_ORDER SEQ_CST
#endif

#define THREADS        (WORKERS + REACTORS)
#define CELL(position) ((position) % RING)
#define WANTED         RING
#define STARVED(r)     (RING + 1 + (r))
#define LOCATIONS      (RING + 1 + REACTORS)
#if REACTORS == 1
#define AT_FIRST       { 0, 1, 0, 0 }
#else
#define AT_FIRST       { 0, 1, 0, 0, 0 }
#endif
#define me             _pid // workers, reactors, in the order of the text
#define number         (_pid - WORKERS)

#include "store_buffer.pml"

// Words that see only RMWs (and loads).
byte head, tail;

bool edge[REACTORS];    // of the eventfd, not delivered yet
byte waiting[REACTORS]; // requests, by reactor
bool held[WORKERS];     // by a long handler
byte done;              // requests served

// For the properties alone.
bool forgotten, unserved;

inline give_back() {
    store(me, CELL(position), position + RING, GIVE_ORDER)
}

inline tell_room() {
    do
    :: i < REACTORS ->
        if
        :: IN_ORDER(me) && SEEN(me, STARVED(i)) == 0
        :: IN_ORDER(me) && SEEN(me, STARVED(i)) == 1 ->
            edge[i] = true;
#if VARIANT == TELL_ONE
            i = REACTORS - 1
#endif
        fi;
        i++
    :: else -> i = 0; break
    od
}

active [WORKERS] proctype worker() {
    byte position, i;

end_idle:
    atomic {
        memory[CELL(tail)] == tail + 1; // it is published
        position = tail;
        tail++
    }
#if VARIANT != LOOK_BEFORE_GIVE
    give_back();
    position = 0;
#endif
    if
    :: MAY_LOAD(me, WANTED_LOOK_ORDER) && SEEN(me, WANTED) == 0
    :: MAY_LOAD(me, WANTED_LOOK_ORDER) && SEEN(me, WANTED) == 1 ->
#if VARIANT == TELL_BEFORE_CLEAR
        tell_room();
        atomic { FLUSHED(me); memory[WANTED] = 0 }
#else
        atomic {
            FLUSHED(me);
            if
            :: memory[WANTED] == 0 -> goto job
            :: memory[WANTED] == 1 -> memory[WANTED] = 0
            fi
        }
room:
        tell_room()
#endif
    fi;
job:
#if VARIANT == LOOK_BEFORE_GIVE
    give_back();
    position = 0;
#endif
    if
    :: done++
    :: held[me] = true; atomic { !held[me]; done++ }
    fi;
    goto end_idle
}

active [REACTORS] proctype reactor() {
    byte position, requests;
    bool is_new, tried;

end_asleep:
    atomic {
        if
        :: edge[number] -> edge[number] = false; goto serve
        :: requests < REQUESTS ->
request:
            requests++;
            is_new = true;
            if
            :: waiting[number] > 0 -> goto wait // behind those that wait already
            :: else -> goto push
            fi
        fi
    }

serve:
    if
    :: SEEN(me, STARVED(number)) == 0 -> goto end_asleep
    :: SEEN(me, STARVED(number)) == 1
    fi;
#if VARIANT == FED_TOO_EARLY
    store(me, STARVED(number), 0, SEQ_CST);
#endif
move:
    if
    :: waiting[number] == 0 ->
        store(me, STARVED(number), 0, SEQ_CST);
        tried = false;
        goto end_asleep
    :: waiting[number] > 0
    fi;

push:
    atomic { // the cell's sequence, and if that is right the ticket
        MAY_LOAD(me, TRY_ORDER);
        if
        :: SEEN(me, CELL(head)) != head -> goto no_room
        :: SEEN(me, CELL(head)) == head -> position = head; head++
        fi
    }
    store(me, CELL(position), position + 1, SEQ_CST);
    atomic {
        position = 0;
        if
        :: is_new -> is_new = false; goto end_asleep
        :: !is_new -> waiting[number] = waiting[number] - 1; goto move
        fi
    }

no_room:
    if
    :: is_new
    :: !is_new && !tried ->
#if VARIANT == NO_SECOND_TRY
        store(me, WANTED, 1, WANT_ORDER);
        goto end_asleep
#elif VARIANT == WANT_BEHIND_TRIES
        tried = true;
        goto move
#else
        store(me, WANTED, 1, WANT_ORDER);
        tried = true;
        goto move
#endif
    :: !is_new && tried ->
#if VARIANT == TRY_ON_AND_ON
        goto move;
#endif
        tried = false;
#if VARIANT == WANT_BEHIND_TRIES
        store(me, WANTED, 1, WANT_ORDER);
#endif
#if VARIANT == STARVED_BEHIND_WANT || VARIANT == FED_TOO_EARLY
        store(me, STARVED(number), 1, SEQ_CST);
#endif
        goto end_asleep
    fi;
wait:
    atomic {
        is_new = false;
        waiting[number] = waiting[number] + 1
    }
#if VARIANT == STARVED_BEHIND_WANT || VARIANT == FED_TOO_EARLY
    goto move;
#endif
    store(me, STARVED(number), 1, SEQ_CST);
    goto serve
}

// When nothing else can move: handlers end one by one.
active proctype patience() {
    do
    :: timeout ->
        d_step {
            forgotten = memory[CELL(head)] == head && (waiting[0] > 0 || waiting[REACTORS - 1] > 0);
            assert(!forgotten)
        }
        if
        :: held[0] -> held[0] = false
        :: held[WORKERS - 1] -> held[WORKERS - 1] = false
        :: else -> break
        fi
    od;
    unserved = done != REACTORS * REQUESTS;
    assert(!unserved)
}

active proctype hardware() {
end:
    do
    :: flush(0)
    :: flush(1)
#if THREADS > 2
    :: flush(2)
#endif
#if THREADS > 3
    :: flush(3)
#endif
    od
}
