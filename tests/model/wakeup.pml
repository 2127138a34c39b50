// A reactor's sleep: messages to its inbox, httpsrv_stop, and the eventfd that wakes it. With -DHOST the reactor is
// driven by a host's own loop, which asks for the time-out, sleeps by itself and then calls httpsrv_poll.
//
// httpsrv.h                                       here
//   hsrv_loop_new, hsrv_server_make_loops           reactor, up to `prepare`
//   hsrv_server_prepare                             reactor, `prepare`: stopped before it began
//   hsrv_reactor_timeout, httpsrv_timeout           look_before_sleep
//   hsrv_reactor_turn, hsrv_server_poll             reactor, from `turn` on
//   hsrv_queue_inbox_disarm, _take, _arm            reactor, at `disarm`, `take`, `arm`
//   hsrv_reactor_drain                              reactor, at `drain`; the phase GRACE has no length but the start's
//   hsrv_loop_post with hsrv_queue_inbox_push       producer
//   hsrv_server_stop                                stopper
//   the host, sleeping on httpsrv_fd                reactor, at `host`
//
// hsrv_reactor_end_accepting and hsrv_server_room wake a reactor as httpsrv_stop does, by a word and then an edge; for
// the latter see room.pml.
//
// Two calls of httpsrv_stop end the reactor at once; one lets it go on with what is open, which here never ends. Stops,
// an event of a socket and the host's own events come at any moment or not at all.
//
// The eventfd is edge-triggered and never read: each write is an edge, an edge that comes while nobody waits is kept
// for the next epoll_wait, and until then the epoll descriptor is readable for a host.
//
// What must hold:
//   lost      when nothing moves any more, the reactor sleeps with an empty inbox and has seen every stop
//   dropped   each message is taken once
//   excess    one arming leads to one eventfd write of a producer at most
//   needless  no producer writes the eventfd while the reactor is seen to be awake
//   stuck     nobody waits for ever, but for the reactor in its sleep
//   endless   nobody runs for ever if all get their turns: the reactor does come to sleep

#ifndef PRODUCERS
#define PRODUCERS 2
#endif
#ifndef MESSAGES
#define MESSAGES 2 // of each producer
#endif
#define STOPS 2

// Each of these breaks one thing, which must be found out as the comment's first word says; "own" and "host" are those
// that matter to only one way of driving the reactor.
#define ARM_RELEASE           1  // lost: the inbox is armed by a release store, which the look at the inbox may pass
#define LOOK_ACQUIRE          2  // lost: the look at the inbox is no seq_cst load, and passes the arming
#define SLEEPING_HOISTED      3  // lost: a producer's look at `sleeping` passes its push, which is no seq_cst RMW
#define NO_SECOND_LOOK        4  // lost: there is no look at the inbox between arming and sleeping
#define ARM_AFTER_LOOK        5  // lost: the inbox is armed after that look
#define DISARM_BEFORE_SLEEP   6  // lost (own): the inbox is disarmed before epoll_wait
#define HOST_UNARMED          7  // lost (host): httpsrv_poll arms before its own wait, not before it returns
#define WAKE_BEFORE_PUSH      8  // lost: a producer wakes the reactor, then hands over its message
#define NO_EXCHANGE           9  // excess: a producer loads and stores `sleeping` instead of exchanging it
#define NO_DISARM             10 // needless: the inbox stays armed while the reactor is awake
#define TAKE_BY_STORE         11 // dropped: the inbox is read, then emptied
#define EDGE_NOT_KEPT         12 // lost: an edge that comes while nobody waits is gone
#define STOP_EDGE_BEFORE_WORD 13 // lost: httpsrv_stop wakes the reactor, then sets the word
#define STOP_WITHOUT_EDGE     14 // lost: httpsrv_stop sets the word and wakes nobody
#define STOP_NOT_BEFORE_SLEEP 15 // lost: hsrv_reactor_timeout does not look at the word
#define STOP_KEEPS_AWAKE      16 // endless: hsrv_reactor_timeout looks at the word in all phases
#define WAKE_RELEASE          17 // lost: the loops are shown to httpsrv_stop by a release store

#ifndef VARIANT
#define VARIANT 0
#endif

#if VARIANT == ARM_RELEASE
#define ARM_ORDER RELEASE
#else
#define ARM_ORDER SEQ_CST
#endif
#if VARIANT == LOOK_ACQUIRE
#define LOOK_ORDER RELAXED
#else
#define LOOK_ORDER SEQ_CST
#endif
#if VARIANT == WAKE_RELEASE
#define WAKE_ORDER RELEASE
#else
#define WAKE_ORDER SEQ_CST
#endif

// Only the reactor has stores that are no RMWs, so it alone has a buffer.
#define me        0
#define THREADS   1
#define SLEEPING  0
#define WAKE      1
#define LOCATIONS 2
#define AT_FIRST  { 0, 0 }
#define ON_ARRIVAL(where, what) \
    if \
    :: where == SLEEPING && what == 1 -> writes = 0 \
    :: else \
    fi

byte writes; // of producers to the eventfd since the last arming became visible

#include "store_buffer.pml"

#define RUN   0
#define GRACE 1
#define DRAIN 2
#define DONE  3

// Words that see only RMWs (and loads).
byte inbox; // messages that are there
byte stop;

bool edge;       // of the eventfd, not delivered yet
bool socket;     // an event of a connection
bool host_event; // one of the host's own

// For the properties alone.
byte phase = RUN;
byte seen_stop, posted, taken;
bool in_turn;
bool lost, dropped, excess, needless;

// What must not be slept on, as hsrv_reactor_timeout sees it.
inline look_before_sleep() {
#if VARIANT != NO_SECOND_LOOK
    atomic { MAY_LOAD(me, LOOK_ORDER); pending = inbox > 0 };
#endif
    if
#if VARIANT == STOP_KEEPS_AWAKE
    :: pending
    :: !pending && phase != GRACE ->
#else
    :: pending || phase == DRAIN
    :: !pending && phase == RUN ->
#endif
#if VARIANT != STOP_NOT_BEFORE_SLEEP
        atomic { MAY_LOAD(me, SEQ_CST); pending = stop > 0 }
#else
        skip
#endif
    :: !pending && phase == GRACE -> pending = true
    fi
}

inline arm() {
    atomic {
        store(me, SLEEPING, 1, ARM_ORDER);
        in_turn = false
    }
}

inline disarm() {
    atomic {
        store(me, SLEEPING, 0, RELAXED);
        in_turn = true
    }
}

inline take() {
    if
    :: inbox == 0
    :: inbox > 0 ->
#if VARIANT == TAKE_BY_STORE
        taken = taken + inbox;
        inbox = 0
#else
        atomic {
            taken = taken + inbox;
            inbox = 0
        }
#endif
    fi
}

active proctype reactor() {
    bool pending;
    byte word;

#if VARIANT != HOST_UNARMED
    arm();
#endif
    store(me, WAKE, 1, WAKE_ORDER);
prepare:
    if
    :: stop == 0
    :: stop > 0 -> phase = GRACE
    fi;

#ifdef HOST
host:
    look_before_sleep();
#if VARIANT == EDGE_NOT_KEPT
    edge = false;
#endif
end_host:
    atomic {
        if
        :: pending
        :: edge || socket
        :: host_event -> // its own business, perhaps without a poll
            host_event = false;
            if
            :: true
            :: true -> goto host
            fi
        fi
    }
#endif

turn:
#if VARIANT == HOST_UNARMED
    arm();
#endif
    look_before_sleep();
#if VARIANT == ARM_AFTER_LOOK
    arm();
#elif VARIANT == DISARM_BEFORE_SLEEP
    disarm();
#elif VARIANT == EDGE_NOT_KEPT && !defined(HOST)
    edge = false;
#endif
end_wait: // epoll_wait; a host asks for no time-out here
    atomic {
        if
#ifdef HOST
        :: true
#else
        :: pending
#endif
        :: edge || socket
        fi;
        edge = false;
        socket = false;
        pending = false
    }
#if VARIANT == NO_DISARM
    in_turn = true;
#elif VARIANT != DISARM_BEFORE_SLEEP
    disarm();
#endif
    take();
drain:
    atomic {
        word = stop;
        seen_stop = word;
        if
        :: word == 0
        :: word == 1 -> phase = DRAIN
        :: word == 2 -> phase = DONE
        fi;
        word = 0
    }
#if VARIANT != ARM_AFTER_LOOK && VARIANT != HOST_UNARMED
    arm();
#endif
    if
    :: phase == DONE
#ifdef HOST
    :: else -> goto host
#else
    :: else -> goto turn
#endif
    fi
}

// An exchange by one that has seen the reactor armed.
inline claim_wake() {
    atomic {
        won = memory[SLEEPING] == 1;
        memory[SLEEPING] = 0;
        check_wake()
    }
}

inline check_wake() {
    if
    :: won ->
        writes++;
        excess = writes > 1;
        needless = in_turn && FLUSHED(me);
        assert(!excess);
#if VARIANT != NO_EXCHANGE
        assert(!needless)
#endif
    :: else
    fi
}

active [PRODUCERS] proctype producer() {
    byte i;
    bool armed, won;

    do
    :: i < MESSAGES ->
        i++;
#if VARIANT == SLEEPING_HOISTED
        armed = memory[SLEEPING] == 1;
        inbox++;
#elif VARIANT == WAKE_BEFORE_PUSH
        armed = memory[SLEEPING] == 1;
#else
        inbox++;
        armed = memory[SLEEPING] == 1;
#endif
        if
        :: !armed
        :: armed ->
            armed = false;
#if VARIANT == NO_EXCHANGE
            atomic { won = true; check_wake() };
            memory[SLEEPING] = 0;
#else
            claim_wake();
#endif
            if
            :: won -> won = false; edge = true
            :: !won
            fi
        fi;
#if VARIANT == WAKE_BEFORE_PUSH
        inbox++;
#endif
        posted++
    :: break
    od
}

active proctype stopper() {
    byte calls;

    do
    :: calls < STOPS ->
#if VARIANT == STOP_EDGE_BEFORE_WORD
        if
        :: memory[WAKE] == 0
        :: memory[WAKE] == 1 -> edge = true
        fi;
        stop++;
#else
        stop++;
#if VARIANT != STOP_WITHOUT_EDGE
        if
        :: memory[WAKE] == 0
        :: memory[WAKE] == 1 -> edge = true
        fi;
#endif
#endif
        calls++
    :: break
    od
}

active proctype others() {
    if
    :: socket = true
    :: true
    fi
#ifdef HOST
    ;
    if
    :: host_event = true
    :: true
    fi
#endif
}

// When nothing else can move: the reactor sleeps or has ended, and everybody else has done what they do.
active proctype quiet() {
    timeout;
    d_step {
        lost = phase != DONE && (inbox > 0 || seen_stop != stop);
        dropped = taken + inbox != posted;
        assert(!lost);
        assert(!dropped)
    }
}

active proctype hardware() {
end:
    do
    :: flush(0)
    od
}
