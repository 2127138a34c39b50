// Memory as C11's atomics allow it, for the models beside this file. The includer defines THREADS, LOCATIONS and what
// memory holds at first, AT_FIRST.
//
// A store goes into a buffer of its thread, first in, first out, and reaches memory at any later time; the thread
// itself sees its newest store to a location at once. So one's own store and one's later load of something else can
// change places, which is what store-load order forbids and what the protocols of httpsrv.h must not allow.
//
//     store, relaxed or release     into the buffer (these are alike here: a buffer never changes the order of stores)
//     store, seq_cst                into the buffer, marked as strict
//     load, relaxed or acquire      the thread's own newest store, or else memory
//     load, seq_cst                 the same, but only when no strict store waits in the thread's buffer
//     RMW, relaxed or acquire       on memory, whatever waits in the buffer
//     RMW, release or seq_cst       on memory, only when nothing waits in the buffer
//
// This is weaker than x86, where a seq_cst store and every RMW drain the buffer: it also has what ARM and C11 allow,
// that a seq_cst store is passed by a load which is not, and that a relaxed RMW orders nothing. Words that see only
// RMWs need no place in a buffer and are plain variables in the models.
//
// A load that is carried out before an RMW that stands above it, which ARM and C11 allow unless both are seq_cst, is
// not in this memory; the variants *_HOISTED have it by changing the two in the text. Nor are loads that change places
// with loads: each location is read as it is.

#define DEPTH 2 // a full buffer holds up its thread, nothing else

typedef store_buffer {
    byte used;
    byte location[DEPTH];
    byte content[DEPTH];
    bit strict[DEPTH];
};

byte memory[LOCATIONS] = AT_FIRST;
store_buffer buffer[THREADS];

#define RELAXED 0
#define RELEASE 0
#define SEQ_CST 1

#define FLUSHED(t)      (buffer[t].used == 0)
#define IN_ORDER(t)     (!buffer[t].strict[0] && !buffer[t].strict[1])
#define PENDING(t, i, l) (buffer[t].used > i && buffer[t].location[i] == (l))

// What a load finds.
#define SEEN(t, l) \
    (PENDING(t, 1, l) -> buffer[t].content[1] : (PENDING(t, 0, l) -> buffer[t].content[0] : memory[l]))

// When a load may be carried out.
#define MAY_LOAD(t, order) (order != SEQ_CST || IN_ORDER(t))

#ifndef ON_ARRIVAL
#define ON_ARRIVAL(l, c) skip
#endif

inline store(t, where, what, order) {
    d_step {
        buffer[t].used < DEPTH;
        buffer[t].location[buffer[t].used] = where;
        buffer[t].content[buffer[t].used] = what;
        buffer[t].strict[buffer[t].used] = order;
        buffer[t].used++
    }
}

// The oldest store reaches memory. Unused places are zero, so that equal buffers are equal states.
inline flush(t) {
    d_step {
        buffer[t].used > 0;
        memory[buffer[t].location[0]] = buffer[t].content[0];
        ON_ARRIVAL(buffer[t].location[0], buffer[t].content[0]);
        buffer[t].location[0] = buffer[t].location[1];
        buffer[t].content[0] = buffer[t].content[1];
        buffer[t].strict[0] = buffer[t].strict[1];
        buffer[t].location[1] = 0;
        buffer[t].content[1] = 0;
        buffer[t].strict[1] = 0;
        buffer[t].used--
    }
}
