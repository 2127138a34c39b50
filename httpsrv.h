// httpsrv.h - a strict HTTP/1.1 server in one C header. MIT licence, see the end of the file.
//
// >>doc
//
// Do this in ONE source file, and include the header without the macro everywhere else:
//
//     #define HTTPSRV_IMPLEMENTATION
//     #include "httpsrv.h"
//     #include <stdio.h>
//
//     static void hello(httpsrv_req *req, void *user) {
//         (void)user;
//         httpsrv_reply(req, 200, "text/plain", HTTPSRV_STR("Hello, World!\n"));
//     }
//
//     int main(void) {
//         httpsrv *srv = httpsrv_new(&(httpsrv_config){.port = 8080});
//         httpsrv_on(srv, "GET /", hello, NULL);
//         httpsrv_result result = httpsrv_run(srv);
//         if (result != HTTPSRV_OK) fprintf(stderr, "%s\n", httpsrv_error(srv));
//         httpsrv_free(srv);
//         return result == HTTPSRV_OK ? 0 : 1;
//     }
//
//     cc app.c -pthread
//
// CONTENTS (search for the mark)
//
//     >>doc  >>config  >>types  >>api                                   the front half: what you program against
//     >>platform  >>text  >>log  >>memory  >>coding  >>parser           the back half, bottom-up: a room
//     >>frames  >>queue  >>pool  >>state  >>router  >>timers            calls only rooms above it
//     >>output  >>loop  >>request  >>conn  >>emit  >>response
//     >>content  >>session  >>dispatch  >>reactor  >>server  >>public
//
// BUILD
//
//     Linux, libc and pthreads; nothing else. C11 or C++11 and later, gcc or clang; C++ has no literals of structs, so
//     there it is `httpsrv_config config = {}; config.port = 8080;`. In the compilers' default (gnu) modes the place of
//     the include does not matter; in a strict mode (-std=c11) either include this header before the system's or define
//     _GNU_SOURCE on the command line, and on 32-bit glibc likewise _FILE_OFFSET_BITS=64.
//
// THREADS
//
//     Each function below is marked with the thread that may call it:
//
//     [setup]    one thread at a time, before httpsrv_listen
//     [holder]   whoever holds the request: the handler, while it runs, on whatever thread it runs
//     [owner]    the thread that runs or polls the server
//     [any]      any thread at any time between httpsrv_new and httpsrv_free
//
//     A connection lives on one reactor from accept to close. A route without a pool runs its handler inline, on the
//     reactor: quick, and it must not block. A route that names a pool runs on a thread of that pool and may block.
//     A handler that has no answer yet defers the request: its token lets any thread answer later. Of that answer, the
//     time-out and the client's leaving exactly one wins, and the others are told that the request is gone.
//     Bodies go in and out in pieces as well, either by call-backs on the reactor (on_body, httpsrv_on_drain) or in
//     straight-line code on a worker (httpsrv_read, httpsrv_write, httpsrv_wait_drain); both hold back whoever is faster.
//
// LIFETIMES
//
//     The views that accessors return, and memory from httpsrv_alloc, live until the handler returns; of a request whose
//     body or answer goes in pieces, until it ends. What you pass in
//     is copied before the call returns, except a body that comes with a release function (see httpsrv_answer) and
//     the `user` pointers, which are yours. Routes and configuration are copied; strings in them too. A token lives as
//     long as the server and is stale once its request has ended; after httpsrv_free it must not be used.
//
// ERRORS
//
//     A result is 0 (HTTPSRV_OK) or a fixed negative number. Errors of setup stick: httpsrv_new and httpsrv_on may go
//     unchecked, httpsrv_listen and httpsrv_run report the first one, and httpsrv_error tells it in words. A NULL
//     server answers HTTPSRV_ARG, so a failed httpsrv_new needs no check of its own.
//
// WHAT BAD INPUT GETS
//
//     A refusal that follows RFC 9110, 9112 and 3986 to the letter, delivered before the connection closes:
//
//     400  request line, field or Host malformed; bare CR or LF; obs-fold; lengths and codings that contradict each
//          other or themselves; chunks, chunk extensions or trailers malformed or too long; a path above the root
//     408  head or body not in time, too slow    413  body larger than the route allows (before it is read)
//     414  request target too long               431  head too large or with too many fields (never truncated)
//     415  media type, or coding, that the route does not take
//     417  unknown expectation                   501  unknown method, unknown transfer coding
//     503  queue full, too many connections, out of memory          505  a major version other than 1
//
//     A client that is slower than min_rate while it takes an answer is reset. Targets are judged where they end: a bad
//     escape in one is found once the whole target is there. Of CONNECT the head's path holds the authority; port 0 is
//     refused. Trailer fields that frame, route, authenticate or modify a request are refused (RFC 9110 section 6.5.1).
//
//     Each refusal has a log item and a counter with the same name, see HTTPSRV_LOG_ITEMS.
//
// COMPRESSION
//
//     With HTTPSRV_ZLIB an answer to a client of HTTP/1.1 that takes gzip (RFC 9110 section 12.5.3) is compressed, unless
//     it is short, of another type than those listed, has no body, has a Content-Encoding or Content-Range already, says
//     "Cache-Control: no-transform", is 206, or the route says so. What depends on the client's wish has
//     "Vary: Accept-Encoding"; a strong ETag of what is compressed becomes a weak one. A body that does not get smaller,
//     or for which there is no memory, goes as it is. Large answers of reactors are compressed by a worker. In an answer
//     in pieces each httpsrv_write is flushed, so that the client can read it: pieces of some KB compress better than
//     lines. Files, assets and server-sent events are left alone: the first two have compressed siblings.
//     What comes in is decoded where a route says gunzip: coded bytes that are damaged, cut or followed by something else
//     get 400, codings that are not gzip 415 with Accept-Encoding, and more than max_body 413.
//
// LIMITS
//
//     Every size, count and time is bounded, by configuration where it matters: see httpsrv_config.
//
// HISTORY
//
//     0.1.0  parser, reactors, pools, router, inline and pool handlers, drain, limits by address and speed, answering later,
//            acceptors, Unix sockets, bodies in pieces, forms, cookies, server-sent events,
//            files, assets, filters, compression

#ifndef HTTPSRV_H
#define HTTPSRV_H

#if defined(HTTPSRV_IMPLEMENTATION) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE // before the first header of the system
#endif
#if defined(HTTPSRV_IMPLEMENTATION) && !defined(_FILE_OFFSET_BITS)
#define _FILE_OFFSET_BITS 64 // likewise: files of any size on 32-bit machines
#endif

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// ===========================================================================================
// >>config    Macros. Define them before the include, alike in every unit that includes it.
// ===========================================================================================

#define HTTPSRV_VERSION     "0.1.0"
#define HTTPSRV_VERSION_NUM 100 // 10000 * major + 100 * minor + patch

// Storage class of the public functions, for example an export attribute. `static`, where one file uses them all, leaves out
// what that file does not call: it compiles in two thirds of the time.
#ifndef HTTPSRV_API
#define HTTPSRV_API extern
#endif

// HTTPSRV_DEBUG turns on assertions (right thread, right holder, sane state) and overwrites input that a handler
// may no longer look at. HTTPSRV_ASSERT(condition) may be defined beside it; it defaults to assert().
#if defined(HTTPSRV_DEBUG) && !defined(HTTPSRV_ASSERT)
#include <assert.h>
#define HTTPSRV_ASSERT(condition) assert(condition)
#elif !defined(HTTPSRV_ASSERT)
#define HTTPSRV_ASSERT(condition) ((void)0)
#endif

// Bytes of the read buffer and of the output buffer that each reactor shares among its connections. At least 512.
#ifndef HTTPSRV_READ_BUFFER
#define HTTPSRV_READ_BUFFER 65536
#endif
#ifndef HTTPSRV_WRITE_BUFFER
#define HTTPSRV_WRITE_BUFFER 65536
#endif

// Bytes of request memory (httpsrv_alloc, staged answers) that come with each request in flight; what goes beyond
// is taken from the allocator. At least 256.
#ifndef HTTPSRV_REQUEST_MEMORY
#define HTTPSRV_REQUEST_MEMORY 2048
#endif

#ifndef HTTPSRV_MAX_LISTENERS
#define HTTPSRV_MAX_LISTENERS 8 // addresses a server can listen on; like the next four at least 1
#endif
#ifndef HTTPSRV_MAX_POOLS
#define HTTPSRV_MAX_POOLS 8 // thread pools a server can have
#endif
#ifndef HTTPSRV_MAX_PARAMS
#define HTTPSRV_MAX_PARAMS 16 // parameters (":id", "*rest") in one route; at most 64
#endif
#ifndef HTTPSRV_MAX_MEDIA
#define HTTPSRV_MAX_MEDIA 8 // media types that a route can list
#endif
#ifndef HTTPSRV_MAX_RANGES
#define HTTPSRV_MAX_RANGES 16 // ranges of a file that one answer may have; a request for more gets the whole file
#endif
#ifndef HTTPSRV_PART_HEAD
#define HTTPSRV_PART_HEAD 2048 // bytes of the fields before each part of a multipart body; at least 128
#endif
#ifndef HTTPSRV_RATE_PERIOD
#define HTTPSRV_RATE_PERIOD 10000 // ms over which min_rate is measured; 1 to 20000
#endif
#ifndef HTTPSRV_CACHE_LINE
#define HTTPSRV_CACHE_LINE 64 // bytes kept between data that different threads write; at least 8
#endif

// HTTPSRV_ZLIB, where the implementation is, compresses answers and decodes bodies with zlib: link with -lz.
// HTTPSRV_NO_REGEX leaves out routes by regular expression, the only use of <regex.h>.
// HTTPSRV_INLINE_ONLY, for small machines, leaves out all by which an answer can come later than its handler returns (pools,
// httpsrv_defer, bodies in pieces, events), acceptors and steering. Who asks for them gets UNSUPPORTED or a token that is 0,
// and who goes on all the same is told that there is nothing begun (STATE), no such pool (ARG) or request (GONE).
// HTTPSRV_NO_SHORTCUTS leaves out what only saves time: short ways through heads, and for one that comes again.
// HTTPSRV_NO_SIMD makes the parser scan eight bytes at a time in plain C, whatever vectors the compiler's flags allow. By
// default it takes the widest of SSE2, SSSE3 (which -msse4.2 implies), AVX2 or NEON: build with -march=native where you can.

#if defined(__GNUC__) || defined(__clang__)
#define HTTPSRV_PRINTF(format_at, first_at) __attribute__((format(printf, format_at, first_at)))
#else
#define HTTPSRV_PRINTF(format_at, first_at)
#endif

// ===========================================================================================
// >>types     What goes in and out. In configurations zero means default and negative off or unlimited.
// ===========================================================================================

// "None" or "nothing" where 0 would mean the default: `.max.body = HTTPSRV_ZERO` takes no bodies at all.
#define HTTPSRV_ZERO     ((-2147483647) - 1)
#define HTTPSRV_ALL_CPUS (-1) // reactors: one for each CPU this process may run on

// name, value, text
#define HTTPSRV_RESULTS(X)                     \
    X(OK, 0, "success")                        \
    X(ARG, -1, "invalid argument")             \
    X(NOMEM, -2, "out of memory")              \
    X(SYS, -3, "system call failed")           \
    X(STATE, -4, "not possible in this state") \
    X(FULL, -5, "full")                        \
    X(GONE, -6, "gone")                        \
    X(SYNTAX, -7, "malformed message")         \
    X(TOOBIG, -8, "over a limit")              \
    X(UNSUPPORTED, -9, "unsupported")          \
    X(ROUTE, -10, "bad route")

typedef enum httpsrv_result {
#define HTTPSRV_X(name, value, text) HTTPSRV_##name = (value),
    HTTPSRV_RESULTS(HTTPSRV_X)
#undef HTTPSRV_X
} httpsrv_result;

// A view of bytes: not terminated, not owned. ptr == NULL says "absent", which an empty view does not.
typedef struct httpsrv_str {
    const char *ptr;
    size_t len; // bytes
} httpsrv_str;

// A view of a string literal, and the two arguments that printf's "%.*s" takes. In the initialiser of a static object C
// wants {"text", 4} instead.
#ifdef __cplusplus
#define HTTPSRV_STR(literal) (httpsrv_str{"" literal, sizeof(literal) - 1})
#else
#define HTTPSRV_STR(literal) ((httpsrv_str){"" literal, sizeof(literal) - 1})
#endif
#define HTTPSRV_FMT(s) (int)(s).len, (s).ptr

typedef struct httpsrv_field {
    httpsrv_str name;
    httpsrv_str value; // without the white space around it
} httpsrv_field;

// Methods of RFC 9110 section 9 and RFC 5789. Any other token is HTTPSRV_METHOD_OTHER and can be routed as well.
typedef enum httpsrv_method_id {
    HTTPSRV_METHOD_OTHER,
    HTTPSRV_METHOD_GET,
    HTTPSRV_METHOD_HEAD,
    HTTPSRV_METHOD_POST,
    HTTPSRV_METHOD_PUT,
    HTTPSRV_METHOD_DELETE,
    HTTPSRV_METHOD_CONNECT,
    HTTPSRV_METHOD_OPTIONS,
    HTTPSRV_METHOD_TRACE,
    HTTPSRV_METHOD_PATCH
} httpsrv_method_id;

// Forms of the request target, RFC 9112 section 3.2.
typedef enum httpsrv_form {
    HTTPSRV_FORM_ORIGIN,    // /path?query
    HTTPSRV_FORM_ABSOLUTE,  // http://host/path?query
    HTTPSRV_FORM_AUTHORITY, // host:port, CONNECT only
    HTTPSRV_FORM_ASTERISK   // *, OPTIONS only
} httpsrv_form;

// Sizes in bytes. Zero means the default in brackets, negative the most there can be, HTTPSRV_ZERO none at all.
typedef struct httpsrv_limits {
    int64_t head; // request line and fields with their line ends, and empty lines before [16384, at most 16 MB]
    int64_t uri;  // request target [8192, at most 16 MB]; a method token may be as long
    int headers;  // fields in a head [100, at most 4096]
    int64_t body; // decoded body [1 MB]
} httpsrv_limits;

// What httpsrv_parse_head found. `fields` and `max_fields` are set by the caller, the rest is set when it returns > 0.
// All views point into the caller's buffer, but for the "/" of an absolute target that has no path.
typedef struct httpsrv_head {
    httpsrv_field *fields;
    int max_fields;
    int num_fields;
    int version_minor; // the x of HTTP/1.x
    httpsrv_method_id method_id;
    httpsrv_form form;
    httpsrv_str method;
    httpsrv_str target;    // as received
    httpsrv_str path;      // undecoded; "/" where an absolute target has none, "*" for the asterisk form
    httpsrv_str query;     // undecoded, without the "?"; absent without one
    httpsrv_str authority; // of an absolute or authority form target, else of the Host field; absent without either
    httpsrv_str host;      // value of the Host field
    httpsrv_str content_type;
    int64_t content_length; // -1 without the field
    bool chunked;           // Transfer-Encoding: chunked
    bool keep_alive;        // the client wants the connection to persist (RFC 9112 section 9.3)
    bool expect_continue;   // Expect: 100-continue, from a client of HTTP/1.1
    bool expect_other;      // another expectation: to be refused with 417
    bool upgrade;           // an Upgrade field together with Connection: upgrade
} httpsrv_head;

// Where a message stands: which httpsrv_parse function is next.
typedef enum httpsrv_phase {
    HTTPSRV_PHASE_HEAD,
    HTTPSRV_PHASE_BODY,
    HTTPSRV_PHASE_TRAILERS, // of a chunked body: call httpsrv_parse_trailers even if there are none
    HTTPSRV_PHASE_DONE,
    HTTPSRV_PHASE_ERROR
} httpsrv_phase;

// The parser's memory: no allocation, no pointers, may be copied and abandoned at any time.
typedef struct httpsrv_parser {
    int phase;  // httpsrv_phase
    int status; // after an error: the status to answer, 400 413 414 431 501 505
    int item;   // after an error: the httpsrv_log_item that names the broken rule
    // private; offsets are into the message
    int state;
    int version_minor;
    uint32_t pos, mark; // scan position, start of the token there
    uint32_t method_at, method_len, target_at, target_len, query_at, name_at, name_len;
    uint32_t num_fields, room, parked; // fields so far, how many fit, how many are kept as offsets
    uint32_t host_field, type_field;   // their numbers
    uint32_t seen, count,
        digits; // bits of what was seen; empty lines or bytes of extensions; digits of a size
    uint32_t max_head, max_uri, max_fields;
    bool resumed;           // the head did not come in one piece
    int64_t content_length; // -1 without
    int64_t left;           // bytes to come of the body, or of this chunk
    int64_t total;          // decoded bytes of the body so far
    int64_t max_body;
} httpsrv_parser;

// Levels of log items, syslog's names.
typedef enum httpsrv_log_level {
    HTTPSRV_LEVEL_ERROR,
    HTTPSRV_LEVEL_WARNING,
    HTTPSRV_LEVEL_INFO,
    HTTPSRV_LEVEL_DEBUG
} httpsrv_log_level;

// name, level, text. Each item is also a counter: httpsrv_metrics.items.
#define HTTPSRV_LOG_ITEMS(X)                                                            \
    X(NONE, DEBUG, "nothing")                                                           \
    X(LISTENING, INFO, "listening")                                                     \
    X(DRAINING, INFO, "draining")                                                       \
    X(STOPPED, INFO, "stopped")                                                         \
    X(ACCEPT_FAILED, ERROR, "accept failed")                                            \
    X(NO_DESCRIPTORS, ERROR, "out of file descriptors, accepting pauses")               \
    X(NO_MEMORY, ERROR, "out of memory")                                                \
    X(TOO_MANY_CONNECTIONS, WARNING, "too many connections")                            \
    X(TOO_MANY_FROM_ADDRESS, WARNING, "too many connections from one address")          \
    X(QUEUE_FULL, WARNING, "queue of the pool is full")                                 \
    X(RAN_INLINE, WARNING, "queue of the pool is full, handler runs on the reactor")    \
    X(WAITS, WARNING, "queue of the pool is full, request waits")                       \
    X(NO_ANSWER, ERROR, "handler returned without an answer")                           \
    X(BROKEN_OFF, WARNING, "answer broken off")                                         \
    X(ANSWERED_TWICE, ERROR, "handler answered twice")                                  \
    X(CUT, WARNING, "cut at the end of the drain")                                      \
    X(INCOMPLETE, INFO, "client stopped in the middle of a request")                    \
    X(CLIENT_GONE, DEBUG, "client left before its answer")                              \
    X(HEAD_TIMEOUT, INFO, "head not in time")                                           \
    X(BODY_TIMEOUT, INFO, "body not in time")                                           \
    X(IDLE_TIMEOUT, DEBUG, "idle for too long")                                         \
    X(HANDLER_TIMEOUT, WARNING, "answer not in time")                                   \
    X(WRITE_TIMEOUT, INFO, "client does not take its answer")                           \
    X(TOO_SLOW, INFO, "client slower than min_rate")                                    \
    X(EVENTS_UNREAD, INFO, "client does not take its events")                           \
    X(BAD_REQUEST_LINE, INFO, "malformed request line")                                 \
    X(BAD_METHOD, INFO, "malformed method")                                             \
    X(BAD_TARGET, INFO, "malformed request target")                                     \
    X(BAD_VERSION, INFO, "unsupported HTTP version")                                    \
    X(BAD_FIELD, INFO, "malformed header field")                                        \
    X(BAD_HOST, INFO, "Host missing, repeated or invalid")                              \
    X(BAD_LENGTH, INFO, "Content-Length invalid, repeated or beside Transfer-Encoding") \
    X(BAD_CODING, INFO, "Transfer-Encoding invalid")                                    \
    X(UNKNOWN_CODING, INFO, "transfer coding not implemented")                          \
    X(BAD_CHUNK, INFO, "malformed chunk")                                               \
    X(BAD_TRAILER, INFO, "malformed or forbidden trailer field")                        \
    X(BAD_PATH, INFO, "path above the root or with a NUL")                              \
    X(BAD_EXPECT, INFO, "unknown expectation")                                          \
    X(URI_TOO_LONG, INFO, "request target too long")                                    \
    X(HEAD_TOO_LARGE, INFO, "head too large or with too many fields")                   \
    X(BODY_TOO_LARGE, INFO, "body too large")                                           \
    X(UNKNOWN_TYPE, INFO, "media type of the body not taken")                           \
    X(UNKNOWN_CONTENT, INFO, "content coding of the body not taken")                    \
    X(BAD_CONTENT, INFO, "body not in the coding it says")                              \
    X(FILE_SHRUNK, WARNING, "file became shorter while it was sent")                    \
    X(UNKNOWN_METHOD, INFO, "unknown method")                                           \
    X(NOT_FOUND, DEBUG, "no route for this path")                                       \
    X(NOT_ALLOWED, DEBUG, "no route for this method")

typedef enum httpsrv_log_item {
#define HTTPSRV_X(name, level, text) HTTPSRV_LOG_##name,
    HTTPSRV_LOG_ITEMS(HTTPSRV_X)
#undef HTTPSRV_X
        HTTPSRV_LOG_COUNT
} httpsrv_log_item;

// One log record. Its pointers are valid during the call of the logger.
typedef struct httpsrv_log {
    httpsrv_log_item item;
    httpsrv_log_level level;
    const char *text; // of the item
    int sys_errno;    // 0, or the errno behind it
    int reactor;      // the reactor's number
    httpsrv_str peer; // address of the client, absent where there is none
} httpsrv_log;

typedef struct httpsrv httpsrv;
typedef struct httpsrv_req httpsrv_req;

// Names a request that was deferred. May be copied, kept and used on any thread for as long as the server lives, also
// long after the request has ended: then it is stale and whatever it is used for answers HTTPSRV_GONE.
typedef struct httpsrv_token {
    uint64_t id; // 0: none
} httpsrv_token;

// Called with the request; answers it before it returns, or defers it. Thread: a reactor, or a worker if the route names a
// pool. A request whose client is lost before a worker gets to it is dropped without a call.
typedef void (*httpsrv_handler)(httpsrv_req *req, void *user);

// Called with a piece of a request's body as it arrives, decoded; `last` says that nothing follows, and then the piece may
// be empty. It is never empty otherwise, and valid during the call. Not called any more once there is an answer, or the
// client is lost. Thread: the reactor.
typedef void (*httpsrv_body_fn)(httpsrv_req *req, httpsrv_str piece, bool last, void *user);

// A job, or a notice, of the application's own.
typedef void (*httpsrv_fn)(void *arg);

// realloc and free in one. new_size == 0 frees and returns NULL; ptr == NULL allocates. old_size is what was asked for
// before. Aligned for any type. NULL means out of memory; the old block is then untouched. Thread: any, several at
// once.
typedef void *(*httpsrv_realloc)(void *user, void *ptr, size_t old_size, size_t new_size);

// Thread: any, several at once. It must not call the server.
typedef void (*httpsrv_logger)(const httpsrv_log *record, void *user);

typedef struct httpsrv_pool_config {
    const char *name; // at most 31 bytes
    int threads;      // [CPUs]
    int queue;        // jobs that may wait, rounded up to a power of two, at least 2 [1024]
} httpsrv_pool_config;

// Which reactor gets a connection that an acceptor has taken in.
typedef enum httpsrv_handover {
    HTTPSRV_HANDOVER_LEAST, // the one with the fewest
    HTTPSRV_HANDOVER_TURNS  // one after the other
} httpsrv_handover;

// Zero means the default in brackets; negative means off or unlimited, where "off" is listed; else it is an error.
// Sizes of heads and targets are at least 16 bytes and at most 16 MB, times at most a day.
typedef struct httpsrv_config {
    const char *host;                          // numeric address or "localhost" [all addresses, IPv4 and IPv6]
    int port;                                  // [0: a free one, see httpsrv_port]
    const char *listen[HTTPSRV_MAX_LISTENERS]; // instead of host and port, see httpsrv_listen
    int socket_mode;                           // permissions of Unix sockets, like 0660 [what umask leaves of 0777]
    int reactors;                              // event loops, each with a thread [1]; HTTPSRV_ALL_CPUS
    int acceptors;                             // threads that do nothing but accept [none: each reactor accepts]
    httpsrv_handover handover;                 // to which reactor they give a connection
    bool affinity; // bind reactors, acceptors and workers to one CPU each, in this order, of those the process has [no]
    bool steer; // have a connection served on the CPU where its first packet came in: much quicker if clients, or the
        // queues of the network card, are spread over the CPUs, but else so is the load not. Wants affinity and no
        // acceptors; nothing changes for Unix sockets, or with more reactors than CPUs [no]
    int backlog;       // of each listening socket [1024]
    bool defer_accept; // take in TCP connections when their first bytes are here: quicker if each has one request only;
                       // those that send nothing stay with the kernel, out of sight of limits and time-outs [no]
    httpsrv_pool_config pools[HTTPSRV_MAX_POOLS];
    struct {
        int connections; // open at once in this server [soft limit of descriptors less 64; off: up to a million]
        int per_ip;      // of these from one IPv4 address, or one IPv6 network of 64 bits [off]
        int64_t head;    // bytes, as in httpsrv_limits [16384]
        int64_t uri;     // bytes [8192]
        int headers;     // fields [100, at most 4096]
        int64_t body;    // bytes, decoded; a route may have its own [1 MB; off]
        int requests;    // per connection [off]
        int64_t memory;  // bytes taken from the allocator, beyond which requests are refused [off]
    } max;
    struct {
        int head;    // for the whole head, from its first byte [10000; off]
        int body;    // between two pieces of a body [10000; off]
        int idle;    // between two requests, or before the first [30000; off]
        int write;   // while the client takes nothing of its answer; noticed within twice that [30000; off]
        int handler; // for an answer that a pool makes, or that is deferred; a route may have its own [off]
        int drain;   // from httpsrv_stop (after the grace time) until what still runs is cut [10000; off: no deadline]
        int grace;   // from httpsrv_stop until accepting ends [0]
        int events;  // between two signs of life to a client of server-sent events that has got none [15000; off]
    } timeout_ms;
    struct {
        int64_t high; // bytes: with so many queued an answer in pieces takes no more, see httpsrv_write [262144]
        int64_t low;  // bytes: with so few it goes on, see httpsrv_on_drain [65536]
    } write_mark;     // also of a body on its way to httpsrv_read; low is at most high, which is at most 1 GB
    int64_t min_rate; // bytes per second that a client sends of a body or takes of an answer, else it is cut; measured
                      // over 10 s (HTTPSRV_RATE_PERIOD), or timeout_ms.write if shorter [128; off; at most 100 MB]
    bool keep_alive_header;  // say "Keep-Alive: timeout=, max=" (seconds, requests left) where it persists [no]
    const char *server_name; // value of the Server field ["httpsrv"]; "" sends none
    struct {
        int level;        // 1 (fast) to 9 (small) [5; off]
        int min_size;     // bytes of a body from which on it is compressed [1024]
        int large;        // bytes of a body from which on a worker compresses what a reactor answers [65536; off: none]
        const char *pool; // that worker's ["default"]
        const char *types; // media types, by commas: "text/html", "text/*", "*+json" [text, JSON, XML, JavaScript,
                           // WebAssembly and SVG]
    } compress;            // of answers to clients that take gzip; with HTTPSRV_ZLIB, else all of it has to be zero
    struct {
        httpsrv_realloc fn; // [realloc and free]
        void *user;
    } allocator;
    struct {
        httpsrv_logger fn; // [silent]
        void *user;
    } logger;
} httpsrv_config;

// What happens to a request when the queue of its pool is full.
typedef enum httpsrv_overload {
    HTTPSRV_OVERLOAD_REFUSE, // 503 with Retry-After, at once
    HTTPSRV_OVERLOAD_INLINE, // its handler runs on the reactor, which must not take long
    HTTPSRV_OVERLOAD_WAIT    // it waits for a place, and nothing more is read from its connection meanwhile
} httpsrv_overload;

// What a filter has decided.
typedef enum httpsrv_verdict {
    HTTPSRV_NEXT, // go on, with the next filter or the handler
    HTTPSRV_DONE  // the filter has answered, or deferred the request; this counts as said once it has
} httpsrv_verdict;

// Looks at a request before its handler does: it may read it, set fields of the answer, put something along, or answer.
// Thread: where the handler of the route runs.
typedef httpsrv_verdict (*httpsrv_filter)(httpsrv_req *req, void *user);

// What became of an answer.
typedef struct httpsrv_outcome {
    int status;     // 0: there was none
    int64_t bytes;  // of head and body, framing included, that were handed to the kernel or were to be
    bool delivered; // all of it was handed to the kernel; else the client was lost, or the answer was broken off
} httpsrv_outcome;

typedef void (*httpsrv_done_fn)(const httpsrv_outcome *outcome, void *arg);

// A file name's extension, without the dot and in lower case, and its media type.
typedef struct httpsrv_mime {
    const char *extension;
    const char *type;
} httpsrv_mime;

// Zero means the default in brackets. Strings and tables are copied but for `types`, which must live as long as the server.
typedef struct httpsrv_files_config {
    const char *root;          // directory; must exist
    const char *index;         // name of the file that stands for a directory ["index.html"]; "": none
    bool list;                 // list a directory that has none [404]
    bool links;                // follow symbolic links, as long as they stay beneath root [404]
    bool dot_files;            // serve names that begin with a dot [404]
    bool precompressed;        // send "x.br", "x.zst" or "x.gz" instead of x to clients that take it [no]
    const char *cache_control; // value of that field [none sent]
    const httpsrv_mime *types; // asked before the built-in table; ends with an extension of NULL [none]
    const char *pool; // where files are looked up and opened, small ones read and large ones read ahead, so that
                      // a slow disk holds up nobody [on the reactor]
    int max_open;     // files that each reactor keeps open; off [64]
    int fresh_ms;     // for how long what is known of one is not looked at again [1000]
} httpsrv_files_config;

// A file that is compiled in. `path` begins with a slash; a table ends with a path of NULL.
typedef struct httpsrv_asset {
    const char *path;
    const char *type; // Content-Type [by extension]
    const void *data;
    size_t len;       // bytes
    const char *etag; // with its quotes [made from the content]
    const void *gzip; // the same compressed [none]
    size_t gzip_len;  // bytes
} httpsrv_asset;

// A media type that a route takes in requests.
typedef struct httpsrv_media {
    const char *type;        // "application/json", "image/*", "*/*"; parameters ("; charset=utf-8") do not count
    httpsrv_handler handler; // of its own; if there is either of these two, both replace the route's [the route's]
    httpsrv_body_fn on_body;
} httpsrv_media;

// By default the handler runs when the body is complete, see httpsrv_body. With on_body or stream it runs at the head, and
// what it reads and allocates lives until the request ends: until the answer is complete, or the client is lost.
typedef struct httpsrv_route_config {
    const char *pattern;     // see httpsrv_on
    httpsrv_handler handler; // may be NULL if there is an on_body
    void *user;
    httpsrv_body_fn on_body; // gets the body piece by piece, on the reactor, after the handler; not with a pool
    bool stream;             // the handler gets it by httpsrv_read; on a pool only, and not with OVERLOAD_INLINE
    httpsrv_media media[HTTPSRV_MAX_MEDIA]; // types of bodies that it takes, others get 415 [all]; the first that fits
    const char *pool;                       // [none: inline on the reactor]; "default" exists without being configured
    int64_t max_body;          // bytes, decoded [max.body of the server]; negative: unlimited; HTTPSRV_ZERO: no body
    httpsrv_overload overload; // of the pool
    int timeout_ms;            // for the answer [timeout_ms.handler of the server; off]
    bool uncompressed; // answers are never compressed: where a secret and text of the client's meet in one, its size
                       // tells (BREACH) [no]
    bool gunzip; // bodies in gzip are decoded, and max_body is of the decoded bytes, too; those in another coding get
                 // 415. With HTTPSRV_ZLIB [no: bodies come as they are]
} httpsrv_route_config;

// A whole answer. type and fields are copied; the body too, unless release is set: then it is borrowed, without a copy,
// until release(release_arg) is called: exactly once, on any thread, whatever becomes of the connection, and also if
// the call that takes the answer fails, except with HTTPSRV_NOMEM or HTTPSRV_FULL, which leave it with the caller.
typedef struct httpsrv_answer {
    int status;       // 200 to 599
    const char *type; // Content-Type; NULL: none
    httpsrv_str body;
    const httpsrv_field *fields;
    int num_fields;
    void (*release)(void *release_arg);
    void *release_arg;
} httpsrv_answer;

// A cookie to be set, RFC 6265 section 4.1.
typedef struct httpsrv_cookie_config {
    const char *name;      // a token; "__Secure-" and "__Host-" in front ask for what RFC 6265bis asks for
    httpsrv_str value;     // of visible characters but " , ; and backslash, perhaps in quotes
    const char *path;      // [none: the directory of the request]
    const char *domain;    // [none: this host alone]
    int64_t max_age;       // seconds [0: until the browser ends; negative: delete it]
    bool secure;           // only over TLS
    bool http_only;        // not for scripts
    const char *same_site; // "Strict", "Lax" or "None", which needs secure [none]
} httpsrv_cookie_config;

// A server-sent event.
typedef struct httpsrv_event {
    httpsrv_str data; // any text; each of its lines becomes a line of data
    const char *name; // without line breaks [none: "message"]
    httpsrv_str id;   // without line breaks or NUL; absent: none, empty: back to none
    int retry_ms;     // how long the client waits before it comes again [not said]
} httpsrv_event;

// A part of a form. Views last as long as the form; in on_part until the part ends.
typedef struct httpsrv_part {
    httpsrv_str name;
    httpsrv_str filename; // as the client sent it, never to be used as a path; absent: not a file
    httpsrv_str type;     // its Content-Type; absent: none
    int64_t size;         // bytes; in on_part, so far
    httpsrv_str data;     // its content if that is kept in memory, else absent
    int fd;               // of the file without a name where it was spooled, at its begin; else, or if it is empty, -1
} httpsrv_part;

typedef enum httpsrv_part_step {
    HTTPSRV_PART_BEGIN, // the part's head is known
    HTTPSRV_PART_DATA,  // a piece of its content
    HTTPSRV_PART_END
} httpsrv_part_step;

// Takes a part as it comes. Anything but HTTPSRV_OK ends the reading, and is its result.
typedef httpsrv_result (*httpsrv_part_fn)(const httpsrv_part *part, httpsrv_part_step step, httpsrv_str data,
                                          void *user);

// Zero means the default in brackets, negative unlimited.
typedef struct httpsrv_form_config {
    int parts;               // fields and files [64]
    int64_t size;            // bytes of one part [unlimited; max_body of the route holds in any case]
    int64_t memory;          // bytes of names and contents that are kept in memory, together; of a urlencoded form in a
                             // route with stream, a third of its length [65536]
    const char *spool;       // directory for files without a name that take the parts that have a filename [memory]
    httpsrv_part_fn on_part; // gets the contents, and they are kept nowhere [none]
    void *user;              // its
} httpsrv_form_config;

typedef struct httpsrv_form_data {
    const httpsrv_part *parts; // in the order received
    int num_parts;
} httpsrv_form_data;

// Takes a multipart body apart; all of it private.
typedef struct httpsrv_multipart {
    int state;
    httpsrv_result result;
    int num_parts, max_parts;
    int64_t max_size;
    httpsrv_part_fn on_part;
    void *user;
    httpsrv_part part;
    size_t matched;       // bytes of the delimiter that were seen last
    size_t delimiter_len; // CR LF "--" boundary
    size_t head_len;      // bytes of the part's head so far
    bool seen;            // the line end of the delimiter was there before the content
    char delimiter[4 + 70];
    char head[HTTPSRV_PART_HEAD];
} httpsrv_multipart;

// A snapshot. The numbers are sums over the reactors, taken one by one while they run; on 32-bit machines each
// reactor's part is counted modulo 2^32.
typedef struct httpsrv_metrics {
    uint64_t connections;              // open now
    uint64_t accepted;                 // since httpsrv_new, refused ones included
    uint64_t requests;                 // heads that were parsed
    uint64_t answers[6];               // by class: [2] counts 2xx; [0] is their sum; informational ones are not counted
    uint64_t bytes_in;                 // received
    uint64_t bytes_out;                // sent
    uint64_t memory;                   // bytes taken from the allocator now
    uint64_t wakeups;                  // times a reactor was woken by another thread
    uint64_t pool_jobs;                // jobs that pools have taken
    uint64_t items[HTTPSRV_LOG_COUNT]; // by httpsrv_log_item
    uint64_t drain_finished;           // the last drain: requests that finished after httpsrv_stop...
    uint64_t drain_cut;                // ...requests that were cut at the deadline...
    uint64_t drain_stuck;              // ...and workers that were still busy when httpsrv_run or httpsrv_join returned
} httpsrv_metrics;

// ===========================================================================================
// >>api       Functions.
// ===========================================================================================

#ifdef __cplusplus
extern "C" {
#endif

// ---- server ----

// Makes a server from a configuration (NULL: all defaults), which is copied. Opens and starts nothing.
// Result: the server, or NULL when out of memory. An error in the configuration is kept for httpsrv_listen. [any]
HTTPSRV_API httpsrv *httpsrv_new(const httpsrv_config *config);

// Opens the listening sockets and starts the pools. Connections queue up in the kernel from here on. An entry of
// config.listen is one of
//     "127.0.0.1:80"  "[::1]:80"  "localhost:80"  "*:80"   numeric address and port; port 0 is any that is free
//     "unix:/run/app.sock"    a Unix socket; a file there that nobody listens on is replaced, and it goes with the drain
//     "fd:3"                  a listening socket that the process has inherited; it stays open until httpsrv_free
//     "systemd"               all that LISTEN_FDS says, if LISTEN_PID is this process (sd_listen_fds(3))
// A TCP port that another program has is an error and never shared.
// Errors: ARG (configuration), ROUTE (a route of setup), NOMEM, SYS (address in use and the like), STATE. [setup]
HTTPSRV_API httpsrv_result httpsrv_listen(httpsrv *srv);

// Serves until httpsrv_stop and the drain that follows; listens first if need be. The calling thread becomes the first
// reactor; the others get threads. Afterwards the server may listen again.
// Errors: those of httpsrv_listen; STATE if it runs already. [owner]
HTTPSRV_API httpsrv_result httpsrv_run(httpsrv *srv);

// Like httpsrv_run, but every reactor gets a thread and the call returns at once; httpsrv_join follows. [owner]
HTTPSRV_API httpsrv_result httpsrv_start(httpsrv *srv);

// Waits for the end of what httpsrv_start began: for the reactors to drain, and up to the drain deadline for busy
// workers. Errors: STATE without httpsrv_start. [owner]
HTTPSRV_API httpsrv_result httpsrv_join(httpsrv *srv);

// One turn of a server with one reactor and no acceptor, inside a loop of yours: waits for at most timeout_ms
// milliseconds (0: not at all, negative: until something happens) and serves what is ready. Call httpsrv_listen before.
// Result: OK; GONE once drained after httpsrv_stop. Errors: STATE (not listening, more than one reactor, or called from
// within a handler), SYS. [owner]
HTTPSRV_API httpsrv_result httpsrv_poll(httpsrv *srv, int timeout_ms);

// A descriptor that is readable when httpsrv_poll has something to do; -1 unless httpsrv_poll may be called.
// Watch it level-triggered: a turn may leave something for the next one. Owned by the server. [owner]
HTTPSRV_API int httpsrv_fd(const httpsrv *srv);

// Milliseconds that your loop may sleep before the next httpsrv_poll even if the descriptor stays silent: 0 if
// something is pending, -1 for no bound. Ask after each httpsrv_poll. [owner]
HTTPSRV_API int httpsrv_timeout(const httpsrv *srv);

// Asks for a graceful end: after timeout_ms.grace the listeners close, idle connections close, what was begun is
// finished, and at timeout_ms.drain the rest is cut. Before httpsrv_run it makes that return at once. A second call
// cuts at once. A client that is told of the end but does not close holds the drain for up to 2 seconds. Safe in signal
// handlers. [any]
HTTPSRV_API void httpsrv_stop(httpsrv *srv);

// Stops and joins if need be, waits for busy workers and for calls of httpsrv_stop, releases everything. No other call may
// be under way on another thread. NULL is fine. [owner, not from a handler]
HTTPSRV_API void httpsrv_free(httpsrv *srv);

// The first error of setup in words, with the address or pattern in it; "" without one. NULL: "out of memory".
// Valid until httpsrv_free. [owner]
HTTPSRV_API const char *httpsrv_error(const httpsrv *srv);

// The port that listener number `listener` (0 is the first) is bound to, 0 for a Unix socket; -1 before httpsrv_listen and
// after the drain. [any]
HTTPSRV_API int httpsrv_port(const httpsrv *srv, int listener);

// Whether httpsrv_stop was called, until httpsrv_run or httpsrv_join has returned: a readiness probe answers 503. [any]
HTTPSRV_API bool httpsrv_draining(const httpsrv *srv);

// Fills in a snapshot of the counters. Errors: ARG. [any]
HTTPSRV_API httpsrv_result httpsrv_query_metrics(const httpsrv *srv, httpsrv_metrics *out);

// "invalid argument" for HTTPSRV_ARG and so on; "Not Found" for 404 (IANA registry), "Unknown" for a status that is not
// registered. Static strings. [any]
HTTPSRV_API const char *httpsrv_result_text(httpsrv_result result);
HTTPSRV_API const char *httpsrv_status_text(int status);
HTTPSRV_API const char *httpsrv_log_text(httpsrv_log_item item);

// The status that tells a client of a result (RFC 9110 section 15): 200 OK, 400 SYNTAX, 413 TOOBIG, 415 UNSUPPORTED, 503
// NOMEM and FULL, 500 what is not its fault. Meant for httpsrv_read_form and the like. [any]
HTTPSRV_API int httpsrv_result_status(httpsrv_result result);

// ---- routes ----

// Adds a route. The pattern is a method (or "*" for any), a space and a path:
//     "GET /users/:id"      ":id" takes one segment that is not empty
//     "GET /static/*rest"   "*rest" takes all that follows, slashes included, and may be empty; it comes last
// Text is compared with the decoded segments of the path after dot segments are resolved. Where several routes fit, a
// literal segment wins over a parameter and a parameter over a wildcard, segment by segment from the left; a route for
// the method itself wins over "*". A GET route answers HEAD too; OPTIONS and 405 are answered from the routes.
//     "GET ~^/v[0-9]+/x$"   a POSIX extended regular expression, searched in the whole decoded path (httpsrv_path)
// Expressions are tried when nothing else fits, in the order in which they first appear in setup. What their groups took
// are the parameters "1", "2" and so on. Back-references are refused, paths over 1,024 bytes match none. Their memory
// comes from malloc.
// A method token of your own ("PURGE /cache") makes that method known. The path "*" stands for the two targets without
// a path: "OPTIONS *" for the server as a whole, "CONNECT *" for tunnels, which without such a route get 501. There is no
// way to open one: answers to CONNECT of less than 300 are refused with ARG, and the others close the connection. Errors,
// kept for httpsrv_listen: ROUTE (pattern malformed or taken twice; "?" and "#" are no part of a path), NOMEM,
// UNSUPPORTED (an expression, with HTTPSRV_NO_REGEX). Error that is not kept: STATE (after httpsrv_listen). [setup]
HTTPSRV_API httpsrv_result httpsrv_on(httpsrv *srv, const char *pattern, httpsrv_handler handler, void *user);

// The same with everything a route can have. [setup]
HTTPSRV_API httpsrv_result httpsrv_route(httpsrv *srv, const httpsrv_route_config *route);

// Adds a filter for all paths that begin with the segments of prefix: "/api" stands for "/api" and "/api/x", not for
// "/apis"; "/" for all. The path is compared decoded. Filters run one after the other, in the order of setup, before the
// handler: of an inline route when the head is there, before the body is read (httpsrv_body is empty, httpsrv_read_form
// gives STATE); of a route with a pool on its worker, with the body. Where no route fits they run before the server's own
// 404, 405 or answer to OPTIONS. Errors, kept for httpsrv_listen: ROUTE (prefix without a slash in front), NOMEM; not
// kept: STATE (after httpsrv_listen). [setup]
HTTPSRV_API httpsrv_result httpsrv_use(httpsrv *srv, const char *prefix, httpsrv_filter filter, void *user);

// Serves the files beneath a directory, by GET and HEAD: "/files" as prefix makes "/files/a/b.txt" the file "a/b.txt" there.
// Nothing outside of the directory can be reached, whatever the path and the links (openat2(2), or checked step by step);
// special files get 404. With Last-Modified, a strong ETag, conditions and ranges as RFC 9110 sections 13 and 14 have
// them, types by extension, and X-Content-Type-Options: nosniff. A directory without a slash at its end is redirected.
// Errors, kept for httpsrv_listen: ROUTE (prefix), SYS (root), ARG (a bad field), NOMEM; not kept: STATE. [setup]
HTTPSRV_API httpsrv_result httpsrv_files(httpsrv *srv, const char *prefix, const httpsrv_files_config *config);

// Serves a table of files that are compiled in, in the same way, without a file system. The table and what it points to
// must live as long as the server. "/" at the end of a path stands for its "index.html". Errors as above. [setup]
HTTPSRV_API httpsrv_result httpsrv_assets(httpsrv *srv, const char *prefix, const httpsrv_asset *table);

// ---- reading a request: [holder]; views live until the handler returns ----

HTTPSRV_API httpsrv *httpsrv_server(const httpsrv_req *req);
HTTPSRV_API httpsrv_str httpsrv_method(const httpsrv_req *req);
HTTPSRV_API httpsrv_str httpsrv_target(const httpsrv_req *req); // as received
HTTPSRV_API httpsrv_str httpsrv_path(const httpsrv_req *req);   // dot segments resolved, then percent-decoded
HTTPSRV_API httpsrv_str httpsrv_host(const httpsrv_req *req);   // authority of the target, else the Host field
HTTPSRV_API httpsrv_str httpsrv_peer(httpsrv_req *req);         // "192.0.2.7", "2001:db8::7", without the port; "unix"
HTTPSRV_API httpsrv_str httpsrv_body(const httpsrv_req *req);   // complete and decoded; empty without one
HTTPSRV_API const httpsrv_head *httpsrv_request_head(const httpsrv_req *req); // everything the parser found

// The first field of that name, compared without regard to case; absent (ptr == NULL) without one.
HTTPSRV_API httpsrv_str httpsrv_header(const httpsrv_req *req, const char *name);

// Field number `index` from 0; NULL past the last one. Repeated fields appear in the order received.
HTTPSRV_API const httpsrv_field *httpsrv_header_at(const httpsrv_req *req, int index);

// The same for the trailer section behind a chunked body (RFC 9112 section 7.1.2), at most 32 fields of 8 KB in all. It is
// kept apart from the head: whatever decides something must not be read from here.
HTTPSRV_API httpsrv_str httpsrv_trailer(const httpsrv_req *req, const char *name);
HTTPSRV_API const httpsrv_field *httpsrv_trailer_at(const httpsrv_req *req, int index);

// The text a ":name" or "*name" of the route stands for, decoded; absent for a name that the route does not have.
HTTPSRV_API httpsrv_str httpsrv_param(const httpsrv_req *req, const char *name);

// The first value of that name in the query, decoded ("+" is a space); absent without one, and when out of memory.
HTTPSRV_API httpsrv_str httpsrv_query(httpsrv_req *req, const char *name);

// The decimal number that a text is, from 0 to max; -1 if it is none (empty, a sign, a blank, any other character) or over
// max. For parameters and queries, which are not terminated: httpsrv_number(httpsrv_param(req, "page"), 1000). [any]
HTTPSRV_API int64_t httpsrv_number(httpsrv_str text, int64_t max);

// `size` bytes, aligned for any type, not zeroed, valid until the handler returns. NULL when out of memory.
HTTPSRV_API void *httpsrv_alloc(httpsrv_req *req, size_t size);

// Whether the client has left: nobody will see the answer. A client that has only finished sending has not. [holder]
HTTPSRV_API bool httpsrv_gone(const httpsrv_req *req);

// A pointer of the application's own that goes with the request, from call-back to call-back. NULL at first. [holder]
HTTPSRV_API void httpsrv_attach(httpsrv_req *req, void *data);
HTTPSRV_API void *httpsrv_attached(const httpsrv_req *req);

// Puts a pointer along under a key, which is compared as an address: &some_static of the filter that puts it there. Replaces
// the one before. Errors: NOMEM. httpsrv_get: NULL without one. [holder]
HTTPSRV_API httpsrv_result httpsrv_put(httpsrv_req *req, const void *key, void *data);
HTTPSRV_API void *httpsrv_get(const httpsrv_req *req, const void *key);

// Has fn called, once, when the answer has gone out to the last byte, or will not. Several are called in the order in which
// they were given. On the reactor; it must not block. Errors: ARG, STATE (answered), NOMEM. [holder]
HTTPSRV_API httpsrv_result httpsrv_on_done(httpsrv_req *req, httpsrv_done_fn fn, void *arg);

// The value of the first cookie of that name, without the quotes that may be around it; absent without one. A cookie comes
// as it was set: it is not decoded (RFC 6265 section 5.4). [holder]
HTTPSRV_API httpsrv_str httpsrv_cookie(const httpsrv_req *req, const char *name);

// ---- a body as it comes: routes with on_body or stream ----

// Waits for bytes of the body and copies up to `size` of them, at least 1, decoded. Result: > 0 bytes; 0 the body is
// complete, also if asked again; < 0 HTTPSRV_GONE (the client has left, was too slow or sent a malformed body: it has got
// its refusal, if any), HTTPSRV_STATE (not a route with stream, or not on a worker), HTTPSRV_ARG (no room). The client is
// held back meanwhile as soon as write_mark.high bytes wait. A client that expects 100-continue gets it with the first
// call. [holder, on a worker]
HTTPSRV_API ptrdiff_t httpsrv_read(httpsrv_req *req, void *buf, size_t size);

// Holds back the body, and by TCP the client, after the piece at hand, until it is resumed: by an on_drain, or by a handler
// that is posted, for which the request is deferred. Without either of them nobody could: that is as no answer. The
// time-out of the body does not run meanwhile. Errors: STATE (no on_body, or the body is complete). [holder, on the reactor]
HTTPSRV_API httpsrv_result httpsrv_body_pause(httpsrv_req *req);
HTTPSRV_API httpsrv_result httpsrv_body_resume(httpsrv_req *req);

// ---- answering: [holder]; exactly one answer for each request ----

// Sets a field of the answer to come, replacing those of that name; or adds one more. Copied.
// Errors: ARG (name not a token, CR LF NUL or another control character in the value, or a field that the server
// itself writes: Content-Length, Transfer-Encoding, and Connection other than "close"), STATE (answered), NOMEM.
HTTPSRV_API httpsrv_result httpsrv_set(httpsrv_req *req, const char *name, httpsrv_str value);
HTTPSRV_API httpsrv_result httpsrv_add(httpsrv_req *req, const char *name, httpsrv_str value);

// Answers with a body, which is copied. type is the Content-Type, NULL for none. Content-Length, Date, Server and
// Connection are added; for HEAD, 204, 205 and 304 the body stays behind.
// Errors: ARG (status outside 200 to 599, or under 300 for CONNECT, bad type; nothing is sent and another answer may
// follow), STATE (answered already), GONE (the client left), NOMEM (another answer may follow).
HTTPSRV_API httpsrv_result httpsrv_reply(httpsrv_req *req, int status, const char *type, httpsrv_str body);

// The same with a body made by printf's rules, of at most 1 MB.
HTTPSRV_API httpsrv_result httpsrv_replyf(httpsrv_req *req, int status, const char *type, const char *format, ...)
    HTTPSRV_PRINTF(4, 5);

// The same with everything an answer can have.
HTTPSRV_API httpsrv_result httpsrv_reply_with(httpsrv_req *req, const httpsrv_answer *answer);

// Answers with a redirect: 301, 302, 303, 307 or 308 (RFC 9110 section 15.4). location is a URI reference, "/there" or
// "https://example.org/"; no other character than those of RFC 3986 goes in. Errors: as httpsrv_reply. [holder]
HTTPSRV_API httpsrv_result httpsrv_redirect(httpsrv_req *req, int status, const char *location);

// Adds a Set-Cookie field. Errors: ARG (see httpsrv_cookie_config), STATE, NOMEM. [holder]
HTTPSRV_API httpsrv_result httpsrv_set_cookie(httpsrv_req *req, const httpsrv_cookie_config *cookie);

// Sends an informational answer, 102 to 199, ahead of the answer proper: 103 for Early Hints with Link fields (RFC 8297).
// A client of HTTP/1.0 does not get it. Errors: ARG, STATE (the answer has begun), GONE, NOMEM. [holder]
HTTPSRV_API httpsrv_result httpsrv_inform(httpsrv_req *req, int status, const httpsrv_field *fields, int num_fields);

// ---- answering in pieces: [holder] ----

// Begins an answer whose body follows by httpsrv_write, and which httpsrv_end completes. length is that of the body in
// bytes if it is known: then exactly so many must follow. Negative: not known. Such a body goes out in chunks, or to a
// client of HTTP/1.0 until the connection closes. Fields come from httpsrv_set and httpsrv_add, before. The body stays
// behind where it has no place: for HEAD, 204, 205 and 304.
// When the handler returns before the end, the answer goes on by on_drain, by on_body, or by handlers that are posted
// if the request was deferred; without any of them it is broken off. A client that is lost ends it: on_gone is called.
// Errors: as httpsrv_reply. [holder]
HTTPSRV_API httpsrv_result httpsrv_begin(httpsrv_req *req, int status, const char *type, int64_t length);

// Appends to the body. The bytes are copied, or sent already. Errors: FULL (nothing was taken: write_mark.high bytes are
// queued, or the call-back has had its share of the reactor's time), GONE (the client has left), STATE (not begun, or
// ended), NOMEM (nothing was taken), TOOBIG (more than the declared length: the answer is broken off). Anything less than
// the high mark being queued, all of it is taken, whatever its size. ARG (bytes without a pointer). [holder]
HTTPSRV_API httpsrv_result httpsrv_write(httpsrv_req *req, httpsrv_str bytes);

// The same with bytes made by printf's rules, at most 1 MB. Errors: ARG (more, or printf's), NOMEM, or as above. [holder]
HTTPSRV_API httpsrv_result httpsrv_writef(httpsrv_req *req, const char *format, ...) HTTPSRV_PRINTF(2, 3);

// Has fn called on the reactor, as the holder, each time that what was written has gone out down to write_mark.low, until
// the answer ends; also if it was begun and nothing written yet. Not while a handler runs on a worker. Replaces the one
// before. Errors: STATE (answered, or ended). [holder]
HTTPSRV_API httpsrv_result httpsrv_on_drain(httpsrv_req *req, httpsrv_handler fn, void *user);

// Waits until no more than write_mark.low bytes are queued. Errors: GONE, STATE (not begun, or not on a worker).
// [holder, on a worker]
HTTPSRV_API httpsrv_result httpsrv_wait_drain(httpsrv_req *req);

// Adds a field behind the body, which goes out if that is chunked and is dropped otherwise (RFC 9112 section 7.1.2). What
// frames, routes or authenticates has no place there (RFC 9110 section 6.5.1). Errors: ARG, STATE (not begun), NOMEM.
HTTPSRV_API httpsrv_result httpsrv_add_trailer(httpsrv_req *req, const char *name, httpsrv_str value);

// Completes the answer. Errors: GONE, STATE (not begun, or ended), TOOBIG (less was written than declared: the answer is
// broken off), NOMEM (it can be tried again).
HTTPSRV_API httpsrv_result httpsrv_end(httpsrv_req *req);

// Breaks the answer off, so that the client can tell: the connection ends without the end of the body. Errors: STATE, GONE.
HTTPSRV_API httpsrv_result httpsrv_abort(httpsrv_req *req);

// ---- server-sent events: https://html.spec.whatwg.org/multipage/server-sent-events.html ----

// Answers 200 with a stream of events that stays open: the request is deferred, and the token lets any thread send.
// channel names what the client listens to, NULL nothing but what is sent to the token. 0 on failure: answered
// already, the client has left, or no memory (then another answer may follow). Events go on until httpsrv_sse_end, the
// client's leaving or the drain: httpsrv_on_gone tells of the latter two. Clients that have got nothing for
// timeout_ms.events get a comment as a sign of life. One that has write_mark.high bytes of events queued is dropped.
// [holder]
HTTPSRV_API httpsrv_token httpsrv_sse_begin(httpsrv_req *req, const char *channel);

// Sends to one client. Errors: GONE, STATE (the token is not that of a stream of events), ARG (a line break or NUL in name or
// id, retry out of range, or nothing to say), NOMEM. [any]
HTTPSRV_API httpsrv_result httpsrv_sse_send(httpsrv *srv, httpsrv_token token, const httpsrv_event *event);

// Sends to all that listen to a channel, which there may be none of. The event is formatted once and shared. In order for
// each thread that sends. It does not wait: who publishes faster than the reactors send fills memory, and max.memory is the
// bound. Errors: ARG, STATE (before httpsrv_listen or after the drain), NOMEM (then nobody gets it). [any]
HTTPSRV_API httpsrv_result httpsrv_sse_publish(httpsrv *srv, const char *channel, const httpsrv_event *event);

// Ends a stream of events. Most clients come again; to stop them, answer 204 to that. Errors: GONE, STATE (the token is of
// another answer), NOMEM. [any]
HTTPSRV_API httpsrv_result httpsrv_sse_end(httpsrv *srv, httpsrv_token token);

// The id of the last event that the client has got before it came again; absent if it says none. [holder]
HTTPSRV_API httpsrv_str httpsrv_sse_last_id(const httpsrv_req *req);

// ---- forms ----

// Reads a form, urlencoded or multipart/form-data (RFC 7578), from the complete body, or on a worker in a route with
// stream as it comes, in fixed memory whatever its size: see httpsrv_form_config for where the parts go. They, and their
// descriptors, last until the request ends. config == NULL: defaults. Result: OK; UNSUPPORTED (neither type); SYNTAX
// (malformed, or a bad escape); TOOBIG (over a limit of config); GONE; NOMEM; SYS (no file to spool to); STATE (read already,
// or not there yet: in a filter of an inline route); or what on_part has returned. [holder]
HTTPSRV_API httpsrv_result httpsrv_read_form(httpsrv_req *req, const httpsrv_form_config *config,
                                             httpsrv_form_data *form);

// The value of the first part of that name in the form that is the body, which is read if it was not yet; absent without
// one. [holder]
HTTPSRV_API httpsrv_str httpsrv_form_field(httpsrv_req *req, const char *name);

// Prepares to take a multipart body apart that comes in pieces, on_body's for example. content_type is that of the
// message, for the boundary. Only limits of config count, and on_part, which is called for each part: begin, data as
// often as there is some, end. m is the caller's and must not move. Errors: UNSUPPORTED (not multipart/form-data),
// SYNTAX (no boundary, or not one of RFC 2046 section 5.1.1). [any], one thread at a time
HTTPSRV_API httpsrv_result httpsrv_multipart_init(httpsrv_multipart *m, httpsrv_str content_type,
                                                  const httpsrv_form_config *config);

// Goes on with the next piece; with an empty one nothing happens. Errors, which stay: SYNTAX, TOOBIG, or what on_part has
// returned. [any], one thread at a time
HTTPSRV_API httpsrv_result httpsrv_multipart_feed(httpsrv_multipart *m, httpsrv_str piece);

// Says that the body is complete. Errors: SYNTAX (the closing delimiter is missing), or what feed has returned. [any], one
// thread at a time
HTTPSRV_API httpsrv_result httpsrv_multipart_end(httpsrv_multipart *m);

// Takes the next "name=value" off a urlencoded text, as it is, to be decoded; `text` then holds the rest. False at the
// end. Empty pieces between "&" are passed over; a piece without "=" is a name. [any]
HTTPSRV_API bool httpsrv_urlencoded_next(httpsrv_str *text, httpsrv_field *pair);

// Decodes percent escapes, once, and "+" to space if `plus`, into `out`, which has room for text.len bytes; may be
// text.ptr itself. Result: bytes; HTTPSRV_SYNTAX for a bad escape. [any]
HTTPSRV_API ptrdiff_t httpsrv_decode(char *out, httpsrv_str text, bool plus);

// ---- files as answers ----

// Answers with a file, with conditions, ranges and fields as httpsrv_files; path is taken as open(2) takes it, so it must not
// come from a client. type NULL: by extension. Reads the disk where it is called. Errors: as httpsrv_reply; SYS (errno says
// why it cannot be opened; another answer may follow), ARG (not a regular file). [holder]
HTTPSRV_API httpsrv_result httpsrv_reply_file(httpsrv_req *req, const char *path, const char *type);

// ---- filters that come with it: to be given to httpsrv_use, and called where the handler runs; `user` is their
//      configuration, which must live as long as the server ----

// Cross-origin requests (CORS, https://fetch.spec.whatwg.org/#http-cors-protocol), preflights answered.
typedef struct httpsrv_cors_config {
    const char *const *origins; // "https://example.org", ...; ends with NULL [any, unless credentials]
    const char *methods;        // of Access-Control-Allow-Methods ["GET, HEAD, POST, PUT, PATCH, DELETE"]
    const char *headers;        // of Access-Control-Allow-Headers [what is asked for]
    const char *expose;         // of Access-Control-Expose-Headers [none]
    bool credentials;           // cookies may come along; needs origins
    int max_age;                // seconds that a preflight holds [600]; negative: it does not
} httpsrv_cors_config;
HTTPSRV_API httpsrv_verdict httpsrv_cors(httpsrv_req *req, void *config);

// Basic authentication (RFC 7617). Names and passwords are compared in a time that depends on their lengths at most.
typedef struct httpsrv_account {
    const char *name, *password;
} httpsrv_account;
typedef struct httpsrv_basic_auth_config {
    const char *realm;                                                 // without quotes and backslashes ["restricted"]
    const httpsrv_account *accounts;                                   // ends with a name of NULL
    bool (*check)(httpsrv_str name, httpsrv_str password, void *user); // instead of accounts; where the handler runs
    void *user;
} httpsrv_basic_auth_config;
HTTPSRV_API httpsrv_verdict httpsrv_basic_auth(httpsrv_req *req, void *config);

// Who has been let in; absent: nobody. Valid until the request ends. [holder]
HTTPSRV_API httpsrv_str httpsrv_auth_name(const httpsrv_req *req);

// X-Content-Type-Options: nosniff, X-Frame-Options: DENY, Referrer-Policy: no-referrer, Content-Security-Policy: default-src
// 'self' and, with hsts, Strict-Transport-Security. A handler may set each of them anew. config NULL: all but the last.
typedef struct httpsrv_security_config {
    const char *content_security_policy; // ["default-src 'self'"]; "": none
    const char *frame_options;           // ["DENY"]; "": none
    const char *referrer_policy;         // ["no-referrer"]; "": none
    int64_t hsts;                        // seconds of Strict-Transport-Security [none]
} httpsrv_security_config;
HTTPSRV_API httpsrv_verdict httpsrv_security_headers(httpsrv_req *req, void *config);

// 429 with Retry-After for addresses that ask too often: a token bucket for each (IPv6: each network of 64 bits). One
// table for each server, of a fixed size: with more addresses at a time the oldest are forgotten.
typedef struct httpsrv_rate_config {
    int per_second; // requests, at least 1 [10, for what is less too]
    int burst;      // that may come at once, at least 1 [twice per_second, for what is less too]
} httpsrv_rate_config;
HTTPSRV_API httpsrv_verdict httpsrv_rate_limit(httpsrv_req *req, void *config);

// Gives each request an id: that of its X-Request-Id field if it is at most 64 letters, digits and "-_.", else 32 random
// hexadecimal digits. It goes into the answer's X-Request-Id. config is NULL.
HTTPSRV_API httpsrv_verdict httpsrv_request_id(httpsrv_req *req, void *config);

// The id; absent without the filter. Valid until the request ends. [holder]
HTTPSRV_API httpsrv_str httpsrv_id(const httpsrv_req *req);

// ---- answering later ----

// Keeps the request open when the handler returns without an answer. The token lets any thread answer it, any time later;
// the same one comes back if this is called again. What the handler read, and memory from httpsrv_alloc, ends with it as
// always; httpsrv_post gives access again. Result: the token; id 0 if the request was answered already, or when out of
// memory. A token that nobody uses keeps the connection waiting for as long as the client and timeout_ms.handler let it.
// [holder]
HTTPSRV_API httpsrv_token httpsrv_defer(httpsrv_req *req);

// Answers a deferred request; also before its handler has returned. The answer is copied but for a body with a release
// function, see httpsrv_answer. Fields that the handler has set come first. Of several calls, the time-out and the
// client's leaving exactly one wins: for all others the request is gone.
// Errors: GONE (answered, timed out, or the client has left), ARG (then another answer may follow), NOMEM (likewise; a call
// beside it on another thread may have been told GONE). [any]
HTTPSRV_API httpsrv_result httpsrv_finish(httpsrv *srv, httpsrv_token token, const httpsrv_answer *answer);

// Runs a handler with a deferred request, on its reactor, once the one that deferred it has returned. It may read the
// request, answer it, or return without an answer: then it stays deferred. It runs exactly once, with req == NULL if the
// request is gone by then, so that it can free what `user` points to.
// Errors, after which it does not run: ARG, NOMEM. [any]
HTTPSRV_API httpsrv_result httpsrv_post(httpsrv *srv, httpsrv_token token, httpsrv_handler handler, void *user);

// Has fn(arg) called, once, when nobody waits for the answer any more: the client has left, or timeout_ms.handler has
// passed, before there was one. Called on the reactor, perhaps while the handler still runs on a worker, or from within
// this very call if it is so already. It must not block. One for each request: a second call answers STATE. [holder]
HTTPSRV_API httpsrv_result httpsrv_on_gone(httpsrv_req *req, httpsrv_fn fn, void *arg);

// Runs fn(arg) on a thread of a pool that the configuration or a route names. Jobs that were accepted run exactly once,
// at the latest in httpsrv_free. Errors: FULL (the queue), ARG (no such pool). [any]
HTTPSRV_API httpsrv_result httpsrv_submit(httpsrv *srv, const char *pool, httpsrv_fn fn, void *arg);

// ---- the parser alone: no allocation, no I/O, no callbacks. [any], one thread at a time for each parser ----

// Prepares for one message. limits == NULL or zeroes: the defaults of httpsrv_limits; limits->body is checked against
// Content-Length by httpsrv_parse_head and against what arrives by httpsrv_parse_body.
HTTPSRV_API void httpsrv_parser_init(httpsrv_parser *parser, const httpsrv_limits *limits);

// Parses a request head (RFC 9112). buf starts at the first byte of the message, len grows from call to call; the bytes
// may have moved in between, but out and its fields are the same for the whole head. Result: > 0 the bytes of the head;
// 0 more are needed; < 0 a httpsrv_result, with parser->status and parser->item telling which refusal it deserves.
// out's views are valid from the return > 0 on. No byte is looked at twice, whatever the split: the cost is
// proportional to the head's size in total.
HTTPSRV_API ptrdiff_t httpsrv_parse_head(httpsrv_parser *parser, const char *buf, size_t len, httpsrv_head *out);

// Consumes bytes of the body. buf starts at the first byte not consumed yet. Result: > 0 bytes consumed, *piece being
// the data among them, perhaps none; 0 more are needed; < 0 as above. Call while parser->phase is HTTPSRV_PHASE_BODY.
HTTPSRV_API ptrdiff_t httpsrv_parse_body(httpsrv_parser *parser, const char *buf, size_t len, httpsrv_str *piece);

// Parses the trailer section behind a chunked body like httpsrv_parse_head: buf starts at its first byte in each call.
// Only fields and num_fields of out are set. Call while parser->phase is HTTPSRV_PHASE_TRAILERS.
HTTPSRV_API ptrdiff_t httpsrv_parse_trailers(httpsrv_parser *parser, const char *buf, size_t len, httpsrv_head *out);

// Whether the message is complete.
HTTPSRV_API bool httpsrv_parse_done(const httpsrv_parser *parser);

#ifdef __cplusplus
}
#endif

#endif // HTTPSRV_H

#if defined(HTTPSRV_IMPLEMENTATION) && !defined(HTTPSRV_IMPLEMENTED)
#define HTTPSRV_IMPLEMENTED

// ===========================================================================================
// >>platform  The system.    owns: nothing    thread: any    uses: libc, pthreads, Linux
// ===========================================================================================

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#ifndef HTTPSRV_NO_REGEX
#include <regex.h>
#endif
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#ifdef HTTPSRV_ZLIB
#include <zlib.h>
#endif

#define HSRV_LITTLE_ENDIAN (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__)

// How text is scanned: by what the compiler's flags allow.
#if defined(HTTPSRV_NO_SIMD)
#define HSRV_SCAN_PATH "words"
#elif defined(__AVX2__)
#include <immintrin.h>
#define HSRV_SCAN_PATH "AVX2"
#define HSRV_SCAN_SSE  1
#elif defined(__SSSE3__)
#include <tmmintrin.h>
#define HSRV_SCAN_PATH "SSSE3"
#define HSRV_SCAN_SSE  1
#elif defined(__SSE2__)
#include <emmintrin.h>
#define HSRV_SCAN_PATH "SSE2"
#define HSRV_SCAN_SSE  1
#elif defined(__aarch64__) && defined(__ARM_NEON) && HSRV_LITTLE_ENDIAN
#include <arm_neon.h>
#define HSRV_SCAN_PATH "NEON"
#define HSRV_SCAN_NEON 1
#else
#define HSRV_SCAN_PATH "words"
#endif

#if !defined(__linux__)
#error "httpsrv.h needs Linux"
#endif
#if defined(__GLIBC__) && !defined(__USE_MISC)
#error "httpsrv.h: include it before system headers, or compile with -D_GNU_SOURCE or -std=gnu11"
#endif
#if defined(__GLIBC__) && __SIZEOF_LONG__ == 4 && !defined(__USE_FILE_OFFSET64) && !defined(__OFF_T_MATCHES_OFF64_T)
#error "httpsrv.h: include it before system headers, or compile with -D_FILE_OFFSET_BITS=64"
#endif
#if HTTPSRV_READ_BUFFER < 512 || HTTPSRV_WRITE_BUFFER < 512 || HTTPSRV_REQUEST_MEMORY < 256
#error "httpsrv.h: HTTPSRV_READ_BUFFER and HTTPSRV_WRITE_BUFFER are at least 512, HTTPSRV_REQUEST_MEMORY 256"
#endif
#if HTTPSRV_RATE_PERIOD < 1 || HTTPSRV_RATE_PERIOD > 20000
#error "httpsrv.h: HTTPSRV_RATE_PERIOD is 1 to 20000"
#endif
#if HTTPSRV_MAX_LISTENERS < 1 || HTTPSRV_MAX_POOLS < 1 || HTTPSRV_MAX_PARAMS < 1 || HTTPSRV_MAX_PARAMS > 64
#error "httpsrv.h: HTTPSRV_MAX_LISTENERS and _POOLS are at least 1, HTTPSRV_MAX_PARAMS 1 to 64"
#endif

#if HTTPSRV_MAX_MEDIA < 1 || HTTPSRV_MAX_RANGES < 1 || HTTPSRV_PART_HEAD < 128 || HTTPSRV_CACHE_LINE < 8
#error "httpsrv.h: HTTPSRV_MAX_MEDIA and _RANGES are at least 1, HTTPSRV_PART_HEAD 128, HTTPSRV_CACHE_LINE 8"
#endif

#define HSRV_LIKELY(x)   __builtin_expect(!!(x), 1)
#define HSRV_UNLIKELY(x) __builtin_expect(!!(x), 0)
#define HSRV_FALLTHROUGH __attribute__((fallthrough))

// Whether answers can come later than their handlers return, and reactors get messages at all. What only those need is asked
// for behind this.
#ifdef HTTPSRV_INLINE_ONLY
#define HSRV_LATER false
#else
#define HSRV_LATER true
#endif

// Whether there are ways that only save time. Each ends where the long one does.
#ifdef HTTPSRV_NO_SHORTCUTS
#define HSRV_SHORTCUTS false
#else
#define HSRV_SHORTCUTS true
#endif

// Never inlined: what is rare would take registers and stack from callers that are not, what has many callers is code in each.
#define HSRV_APART __attribute__((noinline))
// Compiled for size: setup and end of a server, and by gcc also what is called from nowhere else.
#define HSRV_SETUP __attribute__((cold))

// The seam: nothing else in this file talks to the kernel. A test that defines HTTPSRV_SEAM as the name of a file, which is
// included behind these functions, replaces any of them by a function and a macro of the same name, to fail calls on
// purpose or to put a simulated kernel in its place.

static inline int hsrv_sys_socket(int family) {
    return socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

static inline int hsrv_sys_setsockopt(int fd, int level, int name, int value) {
    return setsockopt(fd, level, name, &value, (socklen_t)sizeof value);
}

static inline int hsrv_sys_bind(int fd, const struct sockaddr *address, socklen_t len) {
    return bind(fd, address, len);
}

static inline int hsrv_sys_listen(int fd, int backlog) {
    return listen(fd, backlog);
}

static inline int hsrv_sys_connect(int fd, const struct sockaddr *address, socklen_t len) {
    return connect(fd, address, len);
}

// Of a Unix socket: of what it will be bound to.
static inline int hsrv_sys_fchmod(int fd, unsigned mode) {
    return fchmod(fd, (mode_t)mode);
}

static inline int hsrv_sys_chmod(const char *path, unsigned mode) {
    return chmod(path, (mode_t)mode);
}

static inline int hsrv_sys_unlink(const char *path) {
    return unlink(path);
}

// The number of a socket's file; 0 if it is none.
static inline uint64_t hsrv_sys_socket_number(const char *path) {
    struct stat status;
    return lstat(path, &status) == 0 && S_ISSOCK(status.st_mode) ? (uint64_t)status.st_ino : 0;
}

// A copy of a listening socket, as ours are: closed on exec, as the other one is from now on, and not blocking. -1 with
// errno if it is none.
static inline int hsrv_sys_copy_listener(int fd) {
    int listens = 0;
    socklen_t len = sizeof listens;
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &len) != 0) return -1;
    if (!listens) errno = EINVAL;
    const int copy = listens ? fcntl(fd, F_DUPFD_CLOEXEC, 3) : -1;
    if (copy < 0) return -1;
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    fcntl(copy, F_SETFL, fcntl(copy, F_GETFL) | O_NONBLOCK);
    return copy;
}

static inline int hsrv_sys_getsockname(int fd, struct sockaddr *address, socklen_t *len) {
    return getsockname(fd, address, len);
}

// By number, because the wrapper is hidden when the user's includes came first without _GNU_SOURCE.
static inline int hsrv_sys_accept(int fd, struct sockaddr *address, socklen_t *len) {
    return (int)syscall(SYS_accept4, fd, address, len, SOCK_CLOEXEC | SOCK_NONBLOCK);
}

static inline ssize_t hsrv_sys_recv(int fd, void *buf, size_t size) {
    return recv(fd, buf, size, 0);
}

static inline ssize_t hsrv_sys_send(int fd, const void *buf, size_t len) {
    return send(fd, buf, len, MSG_NOSIGNAL);
}

// `more` says that a file follows at once: the head of an answer goes into one packet with its first bytes.
static inline ssize_t hsrv_sys_sendmsg(int fd, const struct msghdr *message, bool more) {
    return sendmsg(fd, message, MSG_NOSIGNAL | (more ? MSG_MORE : 0));
}

// Raises SIGPIPE like write(2), see hsrv_loop_shield.
static inline ssize_t hsrv_sys_sendfile(int fd, int file, int64_t offset, size_t len) {
    off_t at = (off_t)offset;
    return sendfile(fd, file, &at, len);
}

static inline ssize_t hsrv_sys_pread(int fd, void *buf, size_t len, int64_t offset) {
    return pread(fd, buf, len, (off_t)offset);
}

// Says that a file will be read soon, from the disk if need be.
static inline void hsrv_sys_read_ahead(int fd, int64_t len) {
    posix_fadvise(fd, 0, (off_t)len, POSIX_FADV_WILLNEED);
}

static inline int hsrv_sys_fstat(int fd, struct stat *status) {
    return fstat(fd, status);
}

#ifndef O_PATH
#define O_PATH 010000000 // hidden when the user's includes came first without _GNU_SOURCE
#endif

// A directory, as a place to look things up from.
static inline int hsrv_sys_open_root(const char *path) {
    return open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

static inline int hsrv_sys_open_file(const char *path) {
    return open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
}

#if !defined(HTTPSRV_NO_OPENAT2) && !defined(SYS_openat2)
#define SYS_openat2 437 // the same for all architectures
#endif

// Opens what is beneath a directory and nowhere else, by openat2(2): no link, or none that leads out. ENOSYS where the
// kernel has no such call, EPERM where a filter of calls hides it.
static inline int hsrv_sys_open_beneath(int root, const char *path, bool links) {
#ifdef HTTPSRV_NO_OPENAT2
    (void)root;
    (void)path;
    (void)links;
    errno = ENOSYS;
    return -1;
#else
    struct {
        uint64_t flags, mode, resolve;
    } how;
    how.flags = O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
    how.mode = 0;
    how.resolve = 0x08 | 0x02 | (links ? 0 : 0x04); // RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS
    return (int)syscall(SYS_openat2, root, path, &how, sizeof how);
#endif
}

// One step of the way without it: a name in a directory, as a place only, which opens nothing yet; of a link, itself.
static inline int hsrv_sys_open_place(int directory, const char *name) {
    return openat(directory, name, O_PATH | O_CLOEXEC | O_NOFOLLOW);
}

// What a link says that was opened so. The length, or -1.
static inline ssize_t hsrv_sys_read_link(int link, char *buf, size_t size) {
    return readlinkat(link, "", buf, size);
}

// Where a descriptor's file is. The length, or -1.
static inline ssize_t hsrv_sys_path_of(int fd, char *buf, size_t size) {
    char name[40];
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    return readlink(name, buf, size);
}

// Opens the file that a place is.
static inline int hsrv_sys_open_at_place(int place) {
    char name[40];
    snprintf(name, sizeof name, "/proc/self/fd/%d", place);
    return open(name, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
}

// Takes the descriptor over; NULL leaves it.
static inline DIR *hsrv_sys_open_list(int fd) {
    return fdopendir(fd);
}

// The next name in a directory, and whether it is one, or a link; NULL at the end.
static inline const char *hsrv_sys_next_name(DIR *list, bool *is_directory, bool *is_link) {
    const struct dirent *entry = readdir(list);
    *is_directory = entry && entry->d_type == DT_DIR;
    *is_link = entry && entry->d_type == DT_LNK;
    return entry ? entry->d_name : NULL;
}

static inline void hsrv_sys_close_list(DIR *list) {
    closedir(list);
}

// Keeps SIGPIPE from the calling thread. `pending` says that one waits already, which is somebody else's.
static inline void hsrv_sys_block_sigpipe(sigset_t *before, bool *pending) {
    sigset_t pipe;
    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe, before);
    sigset_t waiting;
    sigemptyset(&waiting);
    *pending = sigpending(&waiting) == 0 && sigismember(&waiting, SIGPIPE) == 1;
}

// Takes back what was done, and swallows a signal that came meanwhile.
static inline void hsrv_sys_unblock_sigpipe(const sigset_t *before, bool pending) {
    sigset_t pipe;
    const struct timespec none = {0, 0};
    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    while (!pending && sigtimedwait(&pipe, NULL, &none) < 0 && errno == EINTR) {}
    pthread_sigmask(SIG_SETMASK, before, NULL);
}

static inline int hsrv_sys_shutdown_write(int fd) {
    return shutdown(fd, SHUT_WR);
}

// Bytes sent that the other side has not acknowledged yet. 0 where that cannot be told.
static inline uint32_t hsrv_sys_unsent(int fd) {
    int n = 0; // TIOCOUTQ is what Linux calls SIOCOUTQ in a header of the kernel
    return ioctl(fd, TIOCOUTQ, &n) == 0 && n > 0 ? (uint32_t)n : 0u;
}

// The close to come is a reset: what waits to be sent is dropped rather than kept by the kernel for as long as it takes.
static inline int hsrv_sys_reset_on_close(int fd) {
    const struct linger hard = {1, 0};
    return setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, (socklen_t)sizeof hard);
}

// EINTR needs no care: on Linux the descriptor is closed all the same.
static inline int hsrv_sys_close(int fd) {
    return close(fd);
}

// A descriptor that stands for nothing: the one in reserve for when there are no others.
static inline int hsrv_sys_open_null(void) {
    return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

// A file without a name in a directory, for reading and writing. -1 with errno.
static inline int hsrv_sys_open_spool(const char *directory) {
    char path[PATH_MAX];
    unsigned char name[12] = {0};
#ifdef O_TMPFILE
    const int unnamed = open(directory, O_TMPFILE | O_RDWR | O_EXCL | O_CLOEXEC, 0600);
    if (unnamed >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != ENOENT)) return unnamed;
#endif
    if (syscall(SYS_getrandom, name, sizeof name, 0) != (long)sizeof name)
        return -1; // for file systems without such files
    int len = snprintf(path, sizeof path, "%s/httpsrv-", directory);
    if (len < 0 || (size_t)len + 2 * sizeof name >= sizeof path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    for (size_t i = 0; i < sizeof name; i++) {
        len += snprintf(path + len, 3, "%02x", name[i]);
    }
    const int fd = open(path, O_CREAT | O_RDWR | O_EXCL | O_CLOEXEC, 0600);
    if (fd >= 0) unlink(path);
    return fd;
}

static inline ssize_t hsrv_sys_write(int fd, const void *buf, size_t len) {
    return write(fd, buf, len);
}

static inline int hsrv_sys_rewind(int fd) {
    return lseek(fd, 0, SEEK_SET) == 0 ? 0 : -1;
}

static inline int hsrv_sys_epoll_create(void) {
    return epoll_create1(EPOLL_CLOEXEC);
}

static inline int hsrv_sys_epoll_ctl(int epfd, int op, int fd, struct epoll_event *event) {
    return epoll_ctl(epfd, op, fd, event);
}

static inline int hsrv_sys_epoll_wait(int epfd, struct epoll_event *events, int size, int timeout_ms) {
    return epoll_wait(epfd, events, size, timeout_ms);
}

static inline int hsrv_sys_eventfd(void) {
    return eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
}

static inline ssize_t hsrv_sys_eventfd_add(int fd) {
    const uint64_t one = 1;
    return write(fd, &one, sizeof one);
}

#ifndef SYS_futex
#define SYS_futex SYS_futex_time64 // 32-bit architectures that never had another; without a time-out they agree
#endif
#define HSRV_FUTEX_WAIT_PRIVATE 128
#define HSRV_FUTEX_WAKE_PRIVATE 129

static inline int hsrv_sys_futex_wait(uint32_t *word, uint32_t expected) {
    return (int)syscall(SYS_futex, word, HSRV_FUTEX_WAIT_PRIVATE, expected, NULL, NULL, 0);
}

static inline int hsrv_sys_futex_wake(uint32_t *word, int count) {
    return (int)syscall(SYS_futex, word, HSRV_FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
}

static inline uint64_t hsrv_sys_monotonic_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
    return (uint64_t)t.tv_sec * 1000u + (uint64_t)t.tv_nsec / 1000000u;
}

static inline int64_t hsrv_sys_unix_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME_COARSE, &t);
    return (int64_t)t.tv_sec;
}

static inline ssize_t hsrv_sys_random(void *buf, size_t size) {
    return (ssize_t)syscall(SYS_getrandom, buf, size, 0);
}

static inline void hsrv_sys_sleep_ms(long ms) {
    struct timespec t;
    t.tv_sec = (time_t)(ms / 1000);
    t.tv_nsec = (ms % 1000) * 1000000L;
    nanosleep(&t, NULL);
}

static inline int hsrv_sys_descriptor_limit(uint64_t *soft) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return -1;
    *soft = (uint64_t)limit.rlim_cur;
    return 0;
}

// The CPUs that a thread may run on: those of the process, which in a container are fewer than the machine has, or less.
typedef struct hsrv_cpus {
    unsigned long mask[64];
    long bytes; // of it that the kernel uses
} hsrv_cpus;

static inline void hsrv_sys_get_cpus(hsrv_cpus *cpus) {
    memset(cpus, 0, sizeof *cpus);
    cpus->bytes = syscall(SYS_sched_getaffinity, 0, sizeof cpus->mask, cpus->mask);
}

static inline void hsrv_sys_set_cpus(const hsrv_cpus *cpus) {
    if (cpus->bytes > 0) syscall(SYS_sched_setaffinity, 0, (size_t)cpus->bytes, cpus->mask);
}

// A program for the kernel, as in bpf(4) and linux/filter.h, which is not the C library's.
#define HSRV_BPF_LOAD        0x20        // BPF_LD | BPF_W | BPF_ABS
#define HSRV_BPF_CPU         0xfffff024u // SKF_AD_OFF + SKF_AD_CPU: the number of the CPU that handles the packet
#define HSRV_BPF_SKIP_UNLESS 0x15        // BPF_JMP | BPF_JEQ | BPF_K, jf = 1: the next one is skipped
#define HSRV_BPF_RETURN      0x06        // BPF_RET | BPF_K

typedef struct hsrv_bpf { // struct sock_filter
    uint16_t code;
    uint8_t jt, jf;
    uint32_t k;
} hsrv_bpf;

// Has a program choose among all the sockets that share the address by SO_REUSEPORT.
static inline int hsrv_sys_steer(int fd, hsrv_bpf *steps, size_t count) {
    struct { // sock_fprog
        unsigned short len;
        hsrv_bpf *filter;
    } program;
    memset(&program, 0, sizeof program);
    program.len = (unsigned short)count;
    program.filter = steps;
    return setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program, (socklen_t)sizeof program);
}

static inline int hsrv_sys_thread_create(pthread_t *thread, void *(*fn)(void *), void *arg) {
    return pthread_create(thread, NULL, fn, arg);
}

static inline int hsrv_sys_thread_join(pthread_t thread) {
    return pthread_join(thread, NULL);
}

#ifdef HTTPSRV_SEAM
#include HTTPSRV_SEAM
#endif

// If this fails: compile with -D_FILE_OFFSET_BITS=64.
typedef char hsrv_platform_off_t_has_64_bits[sizeof(off_t) == 8 ? 1 : -1];

static int hsrv_platform_cpu_count(void) {
    hsrv_cpus cpus;
    hsrv_sys_get_cpus(&cpus);
    int count = 0;
    for (size_t i = 0; i < sizeof cpus.mask / sizeof cpus.mask[0]; i++) {
        for (unsigned long rest = cpus.mask[i]; rest != 0; rest &= rest - 1) {
            count++;
        }
    }
    return count > 0 ? count : 1;
}

// The number of the n-th of the CPUs that the calling thread may run on, counted round and round; -1 if they are not known.
static int hsrv_platform_cpu(int n) {
    const unsigned bits = 8 * sizeof(unsigned long);
    hsrv_cpus cpus;
    hsrv_sys_get_cpus(&cpus);
    int left = n % hsrv_platform_cpu_count();
    for (unsigned i = 0; i < 8 * sizeof cpus.mask; i++) {
        if ((cpus.mask[i / bits] >> (i % bits) & 1ul) && left-- == 0) return (int)i;
    }
    return -1;
}

static void hsrv_platform_bind_cpu(int n) {
    const unsigned bits = 8 * sizeof(unsigned long);
    const int cpu = hsrv_platform_cpu(n);
    hsrv_cpus cpus;
    if (cpu < 0) return;
    hsrv_sys_get_cpus(&cpus);
    memset(cpus.mask, 0, sizeof cpus.mask);
    cpus.mask[(unsigned)cpu / bits] = 1ul << ((unsigned)cpu % bits);
    hsrv_sys_set_cpus(&cpus);
}

// A thread with all signals blocked, so that the application's handlers never run on it. 0 or an errno.
static int hsrv_platform_thread_start(pthread_t *thread, void *(*fn)(void *), void *arg) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int err = hsrv_sys_thread_create(thread, fn, arg);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return err;
}

// For top and gdb; at most 15 characters are kept.
static void hsrv_platform_thread_name(const char *prefix, int number) {
    char name[32];
    snprintf(name, sizeof name, "%.15s/%d", prefix, number);
    name[15] = '\0';
    prctl(PR_SET_NAME, (unsigned long)(uintptr_t)name, 0ul, 0ul, 0ul);
}

// Counters have one writer and any number of readers: a relaxed store is enough and costs what a plain one does.
// size_t, because 64-bit atomics would need libatomic on 32-bit machines.
static inline void hsrv_platform_count(size_t *counter, size_t n) {
    __atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED);
}

// ===========================================================================================
// >>text      Characters, numbers, paths, dates, phrases.    owns: nothing    thread: pure    uses: >>platform
// ===========================================================================================

// Character classes, as bits of hsrv_text_classes.
#define HSRV_TOKEN  1u // tchar, RFC 9110 section 5.6.2
#define HSRV_PATH   2u // pchar and "/" without "%", RFC 3986 section 3.3: what a target holds beside "%" and "?"
#define HSRV_HOST   4u // reg-name without "%", RFC 3986 section 3.2.2: unreserved, sub-delims
#define HSRV_VALUE  8u // HTAB, SP, VCHAR, obs-text: RFC 9110 section 5.5
#define HSRV_DIGIT  16u
#define HSRV_HEXDIG 32u

static const unsigned char hsrv_text_classes[256] = {
    0,  0,  0,  0,  0,  0,  0,  0,  0,  8,  0,  0,  0,  0,  0,  0,  // control characters
    0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  //
    8,  15, 8,  9,  15, 9,  15, 15, 14, 14, 15, 15, 14, 15, 15, 10, //  !"#$%&'()*+,-./
    63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 10, 14, 8,  14, 8,  8,  // 0123456789:;<=>?
    10, 47, 47, 47, 47, 47, 47, 15, 15, 15, 15, 15, 15, 15, 15, 15, // @ABCDEFGHIJKLMNO
    15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 8,  8,  8,  9,  15, // PQRSTUVWXYZ[\]^_
    9,  47, 47, 47, 47, 47, 47, 15, 15, 15, 15, 15, 15, 15, 15, 15, // `abcdefghijklmno
    15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 8,  9,  8,  15, 0,  // pqrstuvwxyz{|}~
    8,  8,  8,  8,  8,  8,  8,  8,  8,  8,  8,  8,  8,  8,  8,  8,  // obs-text
    8,  8,  8,  8,  8,  8,  8,  8,  8,  8,  8,  8,  8,  8,  8,  8,  //
    8,  8,  8,  8,  8,  8,  8,  8,  8,  8,  8,  8,  8,  8,  8,  8,  //
    8,  8,  8,  8,  8,  8,  8,  8,  8,  8,  8,  8,  8,  8,  8,  8,  //
    8,  8,  8,  8,  8,  8,  8,  8,  8,  8,  8,  8,  8,  8,  8,  8,  //
    8,  8,  8,  8,  8,  8,  8,  8,  8,  8,  8,  8,  8,  8,  8,  8,  //
    8,  8,  8,  8,  8,  8,  8,  8,  8,  8,  8,  8,  8,  8,  8,  8,  //
    8,  8,  8,  8,  8,  8,  8,  8,  8,  8,  8,  8,  8,  8,  8,  8,
};

static inline bool hsrv_text_is(char c, unsigned classes) {
    return (hsrv_text_classes[(unsigned char)c] & classes) != 0;
}

static inline httpsrv_str hsrv_text_view(const char *ptr, size_t len) {
    httpsrv_str s;
    s.ptr = ptr;
    s.len = len;
    return s;
}

static inline httpsrv_str hsrv_text_of(const char *terminated) {
    return hsrv_text_view(terminated, terminated ? strlen(terminated) : 0);
}

static inline httpsrv_str hsrv_text_absent(void) {
    return hsrv_text_view(NULL, 0);
}

static inline bool hsrv_text_equal(httpsrv_str a, httpsrv_str b) {
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

static inline char hsrv_text_lower(char c) {
    return (char)(c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c);
}

static HSRV_APART bool hsrv_text_same_nocase(const char *a, const char *b, size_t len) {
    for (size_t i = 0; i < len; i++) {
        if (hsrv_text_lower(a[i]) != hsrv_text_lower(b[i])) return false;
    }
    return true;
}

static inline bool hsrv_text_equal_nocase(httpsrv_str a, httpsrv_str b) {
    return a.len == b.len && hsrv_text_same_nocase(a.ptr, b.ptr, a.len);
}

// Whether a field name is this one, which is in lower case and has no characters but letters and hyphens. Eight bytes at
// a time: among the characters of a field only a letter can become that letter by setting the bit of lower case, and only
// a hyphen the hyphen. The length is a constant where it matters, so that no loop is left.
static inline bool hsrv_text_name_is(httpsrv_str name, const char *lower, size_t len) {
    const uint64_t blanks = 0x2020202020202020u;
    if (name.len != len) return false;
    uint64_t differ = 0;
    size_t i = 0;
    for (; i + 8 <= len; i += 8) {
        uint64_t a, b;
        memcpy(&a, name.ptr + i, 8);
        memcpy(&b, lower + i, 8);
        differ |= (a | blanks) ^ b;
    }
    for (; i < len; i++) {
        differ |= (uint64_t)((name.ptr[i] | 0x20) ^ lower[i]);
    }
    return differ == 0;
}

// Whether each character of a non-empty text is of one of the classes.
static bool hsrv_text_all(httpsrv_str s, unsigned classes) {
    for (size_t i = 0; i < s.len; i++) {
        if (!hsrv_text_is(s.ptr[i], classes)) return false;
    }
    return s.len > 0;
}

static httpsrv_str hsrv_text_trim(httpsrv_str s) {
    while (s.len > 0 && (s.ptr[0] == ' ' || s.ptr[0] == '\t')) {
        s.ptr++;
        s.len--;
    }
    while (s.len > 0 && (s.ptr[s.len - 1] == ' ' || s.ptr[s.len - 1] == '\t')) {
        s.len--;
    }
    return s;
}

// ---- scanning: where a run of characters of one class ends ----

// Characters are looked at in blocks. Each way to do that has a function for each class which flags, in a mask, the
// characters that end the run: one bit each, at HSRV_SCAN_LANE times the place in the block. It must not miss one; where
// it is not exact, it may flag too many, which are then looked up in the table.

#if !defined(HSRV_SCAN_SSE) && !defined(HSRV_SCAN_NEON)

// In plain C: eight characters in an integer. Lanes never carry into each other, as sums are made of seven bits.
typedef uint64_t hsrv_mask;
#define HSRV_SCAN_LANE        8
#define HSRV_SCAN_BLOCK       8
#define HSRV_SCAN_VALUE_EXACT false
#define HSRV_LANES(c)         (0x0101010101010101u * (c))

static inline unsigned hsrv_text_first(hsrv_mask mask) {
    return (unsigned)__builtin_ctzll(mask) / HSRV_SCAN_LANE;
}

// The first character in the lowest lane.
static inline uint64_t hsrv_text_load(const char *p) {
    uint64_t block;
    memcpy(&block, p, sizeof block);
#if !HSRV_LITTLE_ENDIAN
    block = __builtin_bswap64(block);
#endif
    return block;
}

// The top bit of each lane of `low`, whose own are clear, that is at least c.
static inline uint64_t hsrv_text_lanes_from(uint64_t low, unsigned c) {
    return low + HSRV_LANES(0x80u - c);
}

// Of each lane that holds a letter.
static inline uint64_t hsrv_text_lanes_letter(uint64_t low) {
    const uint64_t lower = low | HSRV_LANES(0x20u);
    return hsrv_text_lanes_from(lower, 'a') & ~hsrv_text_lanes_from(lower, 'z' + 1);
}

// Flags tabs too.
static inline hsrv_mask hsrv_text_flag_value(const char *p) {
    const uint64_t x = hsrv_text_load(p), low = x & HSRV_LANES(0x7fu);
    return (~hsrv_text_lanes_from(low, 0x20) | hsrv_text_lanes_from(low, 0x7f)) & ~x & HSRV_LANES(0x80u);
}

// Knows letters and hyphens.
static inline hsrv_mask hsrv_text_flag_token(const char *p) {
    const uint64_t x = hsrv_text_load(p), low = x & HSRV_LANES(0x7fu);
    const uint64_t other = hsrv_text_lanes_from(low ^ HSRV_LANES((unsigned)'-'), 1);
    return ((~hsrv_text_lanes_letter(low) & other) | x) & HSRV_LANES(0x80u);
}

// Knows letters, digits, hyphens, dots and slashes.
static inline hsrv_mask hsrv_text_flag_path(const char *p) {
    const uint64_t x = hsrv_text_load(p), low = x & HSRV_LANES(0x7fu);
    const uint64_t rest = hsrv_text_lanes_from(low, '-') & ~hsrv_text_lanes_from(low, '9' + 1);
    return (~(hsrv_text_lanes_letter(low) | rest) | x) & HSRV_LANES(0x80u);
}

// A host has no slash.
static inline hsrv_mask hsrv_text_flag_host(const char *p) {
    const uint64_t low = hsrv_text_load(p) & HSRV_LANES(0x7fu);
    const uint64_t other = hsrv_text_lanes_from(low ^ HSRV_LANES((unsigned)'/'), 1);
    return hsrv_text_flag_path(p) | (~other & HSRV_LANES(0x80u));
}

#elif defined(HSRV_SCAN_SSE)

typedef uint32_t hsrv_mask;
#define HSRV_SCAN_LANE  1
#define HSRV_SCAN_BLOCK 16

static inline unsigned hsrv_text_first(hsrv_mask mask) {
    return (unsigned)__builtin_ctz(mask);
}

static inline __m128i hsrv_text_load(const char *p) {
    return _mm_loadu_si128((const __m128i *)(const void *)p);
}

#ifdef __AVX2__
#define HSRV_SCAN_VALUE_BLOCK 32

static inline hsrv_mask hsrv_text_flag_value(const char *p) {
    const __m256i x = _mm256_loadu_si256((const __m256i *)(const void *)p), low = _mm256_set1_epi8(0x1f);
    const __m256i control = _mm256_cmpeq_epi8(_mm256_max_epu8(x, low), low);
    const __m256i no_tab = _mm256_andnot_si256(_mm256_cmpeq_epi8(x, _mm256_set1_epi8('\t')), control);
    return (hsrv_mask)_mm256_movemask_epi8(_mm256_or_si256(no_tab, _mm256_cmpeq_epi8(x, _mm256_set1_epi8(0x7f))));
}
#else
// Unsigned "below 0x20" is written as max(x, 0x1f) == 0x1f.
static inline hsrv_mask hsrv_text_flag_value(const char *p) {
    const __m128i x = hsrv_text_load(p), low = _mm_set1_epi8(0x1f);
    const __m128i control = _mm_cmpeq_epi8(_mm_max_epu8(x, low), low);
    const __m128i no_tab = _mm_andnot_si128(_mm_cmpeq_epi8(x, _mm_set1_epi8('\t')), control);
    return (hsrv_mask)_mm_movemask_epi8(_mm_or_si128(no_tab, _mm_cmpeq_epi8(x, _mm_set1_epi8(0x7f))));
}
#endif

#ifdef __SSSE3__
// Looks up the low half of each character in the class and the high half among eight bits; a character above 0x7f, which
// is in no class, finds no bit.
static inline hsrv_mask hsrv_text_flag_class(const char *p, const unsigned char bits[16]) {
    const __m128i x = hsrv_text_load(p), class_bits = hsrv_text_load((const char *)bits);
    const __m128i high = _mm_and_si128(_mm_srli_epi16(x, 4), _mm_set1_epi8(0x0f));
    const __m128i all = _mm_setr_epi8(1, 2, 4, 8, 16, 32, 64, -128, 0, 0, 0, 0, 0, 0, 0, 0);
    const __m128i in = _mm_and_si128(_mm_shuffle_epi8(class_bits, x), _mm_shuffle_epi8(all, high));
    return (hsrv_mask)_mm_movemask_epi8(_mm_cmpeq_epi8(in, _mm_setzero_si128()));
}
#else
// Lanes from `first` up to `last`; signed comparison of what was moved to the lower end.
static inline __m128i hsrv_text_lanes_within(__m128i x, char first, char last) {
    const __m128i moved = _mm_add_epi8(x, _mm_set1_epi8((char)(-128 - first)));
    return _mm_cmplt_epi8(moved, _mm_set1_epi8((char)(-128 + last - first + 1)));
}

static inline __m128i hsrv_text_lanes_letter(__m128i x) {
    return hsrv_text_lanes_within(_mm_or_si128(x, _mm_set1_epi8(0x20)), 'a', 'z');
}

static inline hsrv_mask hsrv_text_flags_but(__m128i known) {
    return (hsrv_mask)_mm_movemask_epi8(known) ^ 0xffffu;
}

// Knows letters and hyphens.
static inline hsrv_mask hsrv_text_flag_token(const char *p) {
    const __m128i x = hsrv_text_load(p);
    return hsrv_text_flags_but(_mm_or_si128(hsrv_text_lanes_letter(x), _mm_cmpeq_epi8(x, _mm_set1_epi8('-'))));
}

// Knows letters, digits, hyphens, dots and slashes.
static inline hsrv_mask hsrv_text_flag_path(const char *p) {
    const __m128i x = hsrv_text_load(p);
    return hsrv_text_flags_but(_mm_or_si128(hsrv_text_lanes_letter(x), hsrv_text_lanes_within(x, '-', '9')));
}

// A host has no slash.
static inline hsrv_mask hsrv_text_flag_host(const char *p) {
    const __m128i slash = _mm_cmpeq_epi8(hsrv_text_load(p), _mm_set1_epi8('/'));
    return hsrv_text_flag_path(p) | (hsrv_mask)_mm_movemask_epi8(slash);
}
#endif

#else // NEON

typedef uint64_t hsrv_mask;
#define HSRV_SCAN_LANE  4
#define HSRV_SCAN_BLOCK 16

static inline unsigned hsrv_text_first(hsrv_mask mask) {
    return (unsigned)__builtin_ctzll(mask) / HSRV_SCAN_LANE;
}

static inline uint8x16_t hsrv_text_load(const char *p) {
    return vld1q_u8((const unsigned char *)p);
}

// Four bits of each byte, of which one is kept.
static inline hsrv_mask hsrv_text_mask(uint8x16_t lanes) {
    const uint8x8_t quarters = vshrn_n_u16(vreinterpretq_u16_u8(lanes), 4);
    return vget_lane_u64(vreinterpret_u64_u8(quarters), 0) & 0x1111111111111111u;
}

static inline hsrv_mask hsrv_text_flag_value(const char *p) {
    const uint8x16_t x = hsrv_text_load(p);
    const uint8x16_t no_tab = vbicq_u8(vcltq_u8(x, vdupq_n_u8(0x20)), vceqq_u8(x, vdupq_n_u8('\t')));
    return hsrv_text_mask(vorrq_u8(no_tab, vceqq_u8(x, vdupq_n_u8(0x7f))));
}

// Looks up the low half of each character in the class and the high half among eight bits; a character above 0x7f, which
// is in no class, finds no bit.
static inline hsrv_mask hsrv_text_flag_class(const char *p, const unsigned char bits[16]) {
    static const unsigned char all[16] = {1, 2, 4, 8, 16, 32, 64, 128};
    const uint8x16_t x = hsrv_text_load(p);
    const uint8x16_t of_class = vqtbl1q_u8(vld1q_u8(bits), vandq_u8(x, vdupq_n_u8(0x0f)));
    return hsrv_text_mask(vceqzq_u8(vandq_u8(of_class, vqtbl1q_u8(vld1q_u8(all), vshrq_n_u8(x, 4)))));
}

#endif

#if defined(HSRV_SCAN_NEON) || (defined(HSRV_SCAN_SSE) && defined(__SSSE3__))
#define HSRV_SCAN_EXACT true

// The classes, for their lookup by halves: of the entry for the low half of a character the bit of its high half.
static inline hsrv_mask hsrv_text_flag_token(const char *p) {
    static const unsigned char bits[16] = {0xe8, 0xfc, 0xf8, 0xfc, 0xfc, 0xfc, 0xfc, 0xfc,
                                           0xf8, 0xf8, 0xf4, 0x54, 0xd0, 0x54, 0xf4, 0x70};
    return hsrv_text_flag_class(p, bits);
}

static inline hsrv_mask hsrv_text_flag_path(const char *p) {
    static const unsigned char bits[16] = {0xb8, 0xfc, 0xf8, 0xf8, 0xfc, 0xf8, 0xfc, 0xfc,
                                           0xfc, 0xfc, 0xfc, 0x5c, 0x54, 0x5c, 0xd4, 0x74};
    return hsrv_text_flag_class(p, bits);
}

static inline hsrv_mask hsrv_text_flag_host(const char *p) {
    static const unsigned char bits[16] = {0xa8, 0xfc, 0xf8, 0xf8, 0xfc, 0xf8, 0xfc, 0xfc,
                                           0xfc, 0xfc, 0xf4, 0x5c, 0x54, 0x5c, 0xd4, 0x70};
    return hsrv_text_flag_class(p, bits);
}
#endif

#ifndef HSRV_SCAN_EXACT
#define HSRV_SCAN_EXACT false
#endif
#ifndef HSRV_SCAN_VALUE_EXACT
#define HSRV_SCAN_VALUE_EXACT true
#endif
#ifndef HSRV_SCAN_VALUE_BLOCK
#define HSRV_SCAN_VALUE_BLOCK HSRV_SCAN_BLOCK
#endif

// One way to scan for one class.
typedef struct hsrv_scan {
    size_t block; // bytes
    hsrv_mask (*flag)(const char *p);
    bool exact;
    unsigned classes; // of the table
} hsrv_scan;

// The first byte in [p, end) that is not of the class; `end` if all are. What lies in [begin, p) may be read as well: the
// last block overlaps the one before, rather than being taken byte by byte. Inlined, so that the scan is all constants.
static inline __attribute__((always_inline)) const char *hsrv_text_run_end(const char *begin, const char *p,
                                                                           const char *end, const hsrv_scan scan) {
    while ((size_t)(end - p) >= scan.block) {
        const hsrv_mask mask = scan.flag(p);
        if (mask == 0) {
            p += scan.block;
            continue;
        }
        p += hsrv_text_first(mask);
        if (scan.exact || !hsrv_text_is(*p, scan.classes)) return p;
        p++;
    }
    if ((size_t)(end - begin) < scan.block) {
        while (p < end && hsrv_text_is(*p, scan.classes)) {
            p++;
        }
        return p;
    }
    if (p == end) return end;
    const char *last = end - scan.block;
    hsrv_mask mask = scan.flag(last) & ~(hsrv_mask)0 << (HSRV_SCAN_LANE * (size_t)(p - last));
    for (; mask != 0; mask &= mask - 1) {
        p = last + hsrv_text_first(mask);
        if (scan.exact || !hsrv_text_is(*p, scan.classes)) return p;
    }
    return end;
}

// In good input the CR behind a field's value.
static inline const char *hsrv_text_value_end(const char *begin, const char *p, const char *end) {
    const hsrv_scan scan = {HSRV_SCAN_VALUE_BLOCK, hsrv_text_flag_value, HSRV_SCAN_VALUE_EXACT, HSRV_VALUE};
    return hsrv_text_run_end(begin, p, end, scan);
}

static inline const char *hsrv_text_token_end(const char *begin, const char *p, const char *end) {
    const hsrv_scan scan = {HSRV_SCAN_BLOCK, hsrv_text_flag_token, HSRV_SCAN_EXACT, HSRV_TOKEN};
    return hsrv_text_run_end(begin, p, end, scan);
}

// Whether all of it is a token, or a value, which are never empty.
static bool hsrv_text_is_token(httpsrv_str s) {
    return s.len > 0 && hsrv_text_token_end(s.ptr, s.ptr, s.ptr + s.len) == s.ptr + s.len;
}

static bool hsrv_text_is_value(httpsrv_str s) {
    return s.len > 0 && hsrv_text_value_end(s.ptr, s.ptr, s.ptr + s.len) == s.ptr + s.len;
}

static inline const char *hsrv_text_path_end(const char *begin, const char *p, const char *end) {
    const hsrv_scan scan = {HSRV_SCAN_BLOCK, hsrv_text_flag_path, HSRV_SCAN_EXACT, HSRV_PATH};
    return hsrv_text_run_end(begin, p, end, scan);
}

static inline const char *hsrv_text_host_end(const char *begin, const char *p, const char *end) {
    const hsrv_scan scan = {HSRV_SCAN_BLOCK, hsrv_text_flag_host, HSRV_SCAN_EXACT, HSRV_HOST};
    return hsrv_text_run_end(begin, p, end, scan);
}

static inline int hsrv_text_hex(char c) {
    if (!hsrv_text_is(c, HSRV_HEXDIG)) return -1;
    return hsrv_text_is(c, HSRV_DIGIT) ? c - '0' : hsrv_text_lower(c) - 'a' + 10;
}

// 1*DIGIT as a number that fits int64_t, else -1. Leading zeros are digits like others.
static int64_t hsrv_text_parse_number(httpsrv_str s) {
    if (!hsrv_text_all(s, HSRV_DIGIT)) return -1;
    int64_t n = 0;
    for (size_t i = 0; i < s.len; i++) {
        const int digit = s.ptr[i] - '0';
        if (i >= 18 && n > (INT64_MAX - digit) / 10) return -1; // eighteen digits always fit
        n = n * 10 + digit;
    }
    return n;
}

// Writes n in decimal (at most 20 characters, no terminator) and returns the end.
static char *hsrv_text_format_number(char *out, uint64_t n) {
    char digits[20];
    if (n < 100) {
        if (n >= 10) *out++ = (char)('0' + n / 10);
        *out++ = (char)('0' + n % 10);
        return out;
    }
    int count = 0;
    do {
        digits[count++] = (char)('0' + n % 10);
        n /= 10;
    } while (n > 0);
    while (count > 0) {
        *out++ = digits[--count];
    }
    return out;
}

// In hexadecimal, without leading zeros: at most 16 characters.
static char *hsrv_text_format_hex(char *out, uint64_t n) {
    int shift = 60;
    while (shift > 0 && n >> shift == 0) {
        shift -= 4;
    }
    for (; shift >= 0; shift -= 4) {
        *out++ = "0123456789abcdef"[n >> shift & 15];
    }
    return out;
}

static inline char *hsrv_text_append(char *out, httpsrv_str s) {
    if (s.len > 0) memcpy(out, s.ptr, s.len);
    return out + s.len;
}

#define HSRV_LITERAL(literal) hsrv_text_view((literal), sizeof(literal) - 1)

#define HSRV_APPEND(out, literal) (memcpy((out), (literal), sizeof(literal) - 1), (out) + (sizeof(literal) - 1))

// Whether each "%" is followed by two hexadecimal digits.
static bool hsrv_text_escapes_valid(httpsrv_str s) {
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] != '%') continue;
        if (s.len - i < 3 || !hsrv_text_is(s.ptr[i + 1], HSRV_HEXDIG) || !hsrv_text_is(s.ptr[i + 2], HSRV_HEXDIG)) {
            return false;
        }
        i += 2;
    }
    return true;
}

// One character at s.ptr[*i], decoded if it is an escape; valid escapes only. Moves *i behind it.
static inline char hsrv_text_decode_at(httpsrv_str s, size_t *i) {
    const char c = s.ptr[(*i)++];
    if (c != '%' || s.len - *i < 2) return c;
    const int high = hsrv_text_hex(s.ptr[*i]), low = hsrv_text_hex(s.ptr[*i + 1]);
    *i += 2;
    return (char)(high * 16 + low);
}

// Decodes into out (room for s.len bytes, may be s.ptr itself), "+" as a space if asked for. Returns the length.
static size_t hsrv_text_decode(char *out, httpsrv_str s, bool plus) {
    size_t len = 0;
    for (size_t i = 0; i < s.len;) {
        const bool space = plus && s.ptr[i] == '+';
        const char c = hsrv_text_decode_at(s, &i);
        out[len++] = space ? ' ' : c;
    }
    return len;
}

// Whether the encoded text says, once decoded, what the plain text says.
static bool hsrv_text_decoded_equal(httpsrv_str encoded, httpsrv_str plain, bool plus) {
    size_t n = 0;
    for (size_t i = 0; i < encoded.len; n++) {
        const bool space = plus && encoded.ptr[i] == '+';
        const char c = hsrv_text_decode_at(encoded, &i);
        if (n >= plain.len || (space ? ' ' : c) != plain.ptr[n]) return false;
    }
    return n == plain.len;
}

// 1 for a "." segment, 2 for "..", 0 for any other. "%2e" counts as a dot: it means the same (RFC 3986 section
// 6.2.2.2).
static int hsrv_text_dots(httpsrv_str segment) {
    int dots = 0;
    for (size_t i = 0; i < segment.len; dots++) {
        if (dots == 2 || hsrv_text_decode_at(segment, &i) != '.') return 0;
    }
    return dots;
}

// Whether a path has neither escapes nor segments that begin with a dot: then it is its own normal form.
static bool hsrv_text_path_is_plain(httpsrv_str path) {
    if (memchr(path.ptr, '%', path.len)) return false;
    const char *end = path.ptr + path.len, *dot = path.ptr;
    while ((dot = (const char *)memchr(dot, '.', (size_t)(end - dot))) != NULL) {
        if (dot > path.ptr && dot[-1] == '/') return false;
        dot++;
    }
    return true;
}

// Resolves dot segments of an absolute path into out (room for path.len bytes), which stays encoded; "//" is kept.
// Returns the length, or -1 if the path leads above the root (where RFC 3986 section 5.2.4 would stop at it: refusing
// is safer, as no honest client sends that) or holds a NUL.
static ptrdiff_t hsrv_text_path_resolve(char *out, httpsrv_str path) {
    size_t len = 0;
    for (size_t i = 0; i < path.len;) {
        size_t next = i + 1;
        while (next < path.len && path.ptr[next] != '/') {
            if (path.ptr[next] == '%' && path.ptr[next + 1] == '0' && path.ptr[next + 2] == '0') return -1;
            next++;
        }
        const int dots = hsrv_text_dots(hsrv_text_view(path.ptr + i + 1, next - i - 1));
        const bool last = next == path.len;
        if (dots == 2) {
            if (len == 0) return -1;
            while (out[--len] != '/') {}
        }
        if (dots == 0) {
            memcpy(out + len, path.ptr + i, next - i);
            len += next - i;
        } else if (last) {
            out[len++] = '/';
        }
        i = next;
    }
    return (ptrdiff_t)len;
}

// IP-literal without its brackets: RFC 3986 section 3.2.2. Zone identifiers are refused.
static bool hsrv_text_ip_literal_valid(httpsrv_str s) {
    if (s.len > 0 && hsrv_text_lower(s.ptr[0]) == 'v') {
        size_t dot = 1;
        while (dot < s.len && hsrv_text_is(s.ptr[dot], HSRV_HEXDIG)) {
            dot++;
        }
        if (dot == 1 || dot + 1 >= s.len || s.ptr[dot] != '.') return false;
        for (size_t i = dot + 1; i < s.len; i++) {
            if (s.ptr[i] != ':' && !hsrv_text_is(s.ptr[i], HSRV_HOST)) return false;
        }
        return true;
    }
    char terminated[INET6_ADDRSTRLEN];
    unsigned char address[16];
    if (s.len >= sizeof terminated || memchr(s.ptr, '\0', s.len)) return false;
    memcpy(terminated, s.ptr, s.len);
    terminated[s.len] = '\0';
    return inet_pton(AF_INET6, terminated, address) == 1;
}

// The length of the host that an authority begins with: an IP literal or a name. 0 if it is malformed or empty. What lies
// in [begin, s.ptr) may be read as well.
static size_t hsrv_text_host_length(const char *begin, httpsrv_str s) {
    const char *end = s.ptr + s.len;
    if (s.len > 0 && s.ptr[0] == '[') {
        const char *close = (const char *)memchr(s.ptr, ']', s.len);
        if (!close) return 0;
        const size_t len = (size_t)(close - s.ptr) + 1;
        return hsrv_text_ip_literal_valid(hsrv_text_view(s.ptr + 1, len - 2)) ? len : 0;
    }
    const char *p = hsrv_text_host_end(begin, s.ptr, end);
    if (p == end || *p != '%') return (size_t)(p - s.ptr);
    while (p < end && (*p == '%' || hsrv_text_is(*p, HSRV_HOST))) {
        p++;
    }
    const httpsrv_str host = hsrv_text_view(s.ptr, (size_t)(p - s.ptr));
    return hsrv_text_escapes_valid(host) ? host.len : 0;
}

// uri-host [ ":" port ] with a host that is not empty: RFC 9110 section 7.2, RFC 3986 section 3.2. *port is the port,
// 0 for an empty one and -1 without one. What lies in [begin, s.ptr) may be read as well.
static bool hsrv_text_authority_valid(const char *begin, httpsrv_str s, int64_t *port) {
    const size_t host = hsrv_text_host_length(begin, s);
    *port = -1;
    if (host == 0) return false;
    if (host == s.len) return true;
    const httpsrv_str digits = hsrv_text_view(s.ptr + host + 1, s.len - host - 1);
    *port = digits.len == 0 ? 0 : hsrv_text_parse_number(digits);
    return s.ptr[host] == ':' && *port >= 0 && *port <= 65535;
}

// Takes the next part off a list, without the white space around it; separators in quoted strings do not count. Empty
// parts come out empty. False at the end.
static bool hsrv_text_next_part(httpsrv_str *list, httpsrv_str *part, char separator) {
    if (!list->ptr) return false;
    bool quoted = false;
    size_t i = 0;
    for (; i < list->len && (quoted || list->ptr[i] != separator); i++) {
        if (list->ptr[i] == '"') quoted = !quoted;
        if (quoted && list->ptr[i] == '\\' && i + 1 < list->len) i++;
    }
    *part = hsrv_text_trim(hsrv_text_view(list->ptr, i));
    *list = i < list->len ? hsrv_text_view(list->ptr + i + 1, list->len - i - 1) : hsrv_text_absent();
    return true;
}

// An element of a comma-separated list, RFC 9110 section 5.6.1.
static inline bool hsrv_text_next_element(httpsrv_str *list, httpsrv_str *element) {
    return hsrv_text_next_part(list, element, ',');
}

// RFC 9110 section 5.6.4.
static bool hsrv_text_is_quoted_string(httpsrv_str s) {
    if (s.len < 2 || s.ptr[0] != '"' || s.ptr[s.len - 1] != '"') return false;
    for (size_t i = 1; i < s.len - 1; i++) {
        if (s.ptr[i] == '\\')
            i++;
        else if (s.ptr[i] == '"')
            return false;
        if (i == s.len - 1 || !hsrv_text_is(s.ptr[i], HSRV_VALUE)) return false;
    }
    return true;
}

// name = value, the value a token or a quoted string, with blanks around the equals sign.
static bool hsrv_text_is_parameter(httpsrv_str s) {
    const char *equals = s.len > 0 ? (const char *)memchr(s.ptr, '=', s.len) : NULL;
    if (!equals) return false;
    const size_t len = (size_t)(equals - s.ptr);
    const httpsrv_str value = hsrv_text_trim(hsrv_text_view(equals + 1, s.len - len - 1));
    if (!hsrv_text_is_token(hsrv_text_trim(hsrv_text_view(s.ptr, len)))) return false;
    return hsrv_text_is_token(value) || hsrv_text_is_quoted_string(value);
}

// ---- hashing what others choose ----

// At most 8 bytes, the first the lowest.
static uint64_t hsrv_text_word(const char *p, size_t len) {
    uint64_t word = 0;
    while (len-- > 0) {
        word = word << 8 | (unsigned char)p[len];
    }
    return word;
}

static inline uint64_t hsrv_text_rotate(uint64_t word, unsigned bits) {
    return word << bits | word >> (64 - bits);
}

static void hsrv_text_sip_round(uint64_t v[4]) {
    v[0] += v[1];
    v[2] += v[3];
    v[1] = hsrv_text_rotate(v[1], 13) ^ v[0];
    v[3] = hsrv_text_rotate(v[3], 16) ^ v[2];
    v[0] = hsrv_text_rotate(v[0], 32) + v[3];
    v[2] += v[1];
    v[3] = hsrv_text_rotate(v[3], 21) ^ v[0];
    v[1] = hsrv_text_rotate(v[1], 17) ^ v[2];
    v[2] = hsrv_text_rotate(v[2], 32);
}

// SipHash-2-4: who does not know the secret cannot make texts that collide (Aumasson, Bernstein, 2012).
static uint64_t hsrv_text_siphash(httpsrv_str s, const uint64_t secret[2]) {
    uint64_t v[4] = {secret[0] ^ UINT64_C(0x736f6d6570736575), secret[1] ^ UINT64_C(0x646f72616e646f6d),
                     secret[0] ^ UINT64_C(0x6c7967656e657261), secret[1] ^ UINT64_C(0x7465646279746573)};
    for (size_t at = 0; at <= s.len; at += 8) {
        const bool last = s.len - at < 8;
        const uint64_t word =
            last ? hsrv_text_word(s.ptr + at, s.len - at) | (uint64_t)s.len << 56 : hsrv_text_word(s.ptr + at, 8);
        v[3] ^= word;
        hsrv_text_sip_round(v);
        hsrv_text_sip_round(v);
        v[0] ^= word;
    }
    v[2] ^= 0xff;
    for (int i = 0; i < 4; i++) {
        hsrv_text_sip_round(v);
    }
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

// ---- dates ----

// A number of `n` digits, or with a space for the first one; -1 if it is none.
static int hsrv_text_digits(const char *p, int n) {
    int value = 0;
    for (int i = 0; i < n; i++) {
        if (p[i] == ' ' && i == 0 && n == 2) continue;
        if (!hsrv_text_is(p[i], HSRV_DIGIT)) return -1;
        value = value * 10 + (p[i] - '0');
    }
    return value;
}

static int hsrv_text_month(const char *p) {
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    for (int i = 0; i < 12; i++) {
        if (memcmp(p, months + 3 * i, 3) == 0) return i + 1;
    }
    return -1;
}

// Days since 1970 of a date of the Gregorian calendar, in eras of 400 years that begin in March.
static int64_t hsrv_text_days(int year, int month, int day) {
    const int y = month <= 2 ? year - 1 : year, era = y / 400, in_era = y - era * 400;
    const int in_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return (int64_t)era * 146097 + in_era * 365 + in_era / 4 - in_era / 100 + in_year - 719468;
}

// INT64_MIN for what is no time. The second may be a leap second.
static int64_t hsrv_text_seconds(int year, int month, int day, const char *time) {
    static const int lengths[] = {31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    const int hour = hsrv_text_digits(time, 2), minute = hsrv_text_digits(time + 3, 2);
    const int second = hsrv_text_digits(time + 6, 2);
    if (year < 1601 || month < 1 || day < 1 || day > lengths[month - 1] || time[2] != ':' || time[5] != ':')
        return INT64_MIN;
    if (hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 60) return INT64_MIN;
    return hsrv_text_days(year, month, day) * 86400 + hour * 3600 + minute * 60 + second;
}

// RFC 850: two digits of a year that lies at most 50 years ahead.
static int hsrv_text_full_year(int two_digits, int64_t now) {
    const int this_year = (int)(1970 + now / 31556952);
    const int year = this_year / 100 * 100 + two_digits;
    return year > this_year + 50 ? year - 100 : year;
}

// A date in one of the three forms of RFC 9110 section 5.6.7, in seconds; INT64_MIN if it is none.
//   Sun, 06 Nov 1994 08:49:37 GMT    Sunday, 06-Nov-94 08:49:37 GMT    Sun Nov  6 08:49:37 1994
static int64_t hsrv_text_parse_date(httpsrv_str s, int64_t now) {
    const char *p = s.ptr, *comma = s.len > 0 ? (const char *)memchr(p, ',', s.len) : NULL;
    if (!comma) {
        if (s.len != 24 || p[3] != ' ' || p[7] != ' ' || p[10] != ' ' || p[19] != ' ') return INT64_MIN;
        return hsrv_text_seconds(hsrv_text_digits(p + 20, 4), hsrv_text_month(p + 4), hsrv_text_digits(p + 8, 2),
                                 p + 11);
    }
    const size_t rest = s.len - (size_t)(comma - p);
    p = comma + 2;
    if (rest == 26 && comma[1] == ' ' && p[2] == ' ' && p[6] == ' ' && p[11] == ' ' && memcmp(p + 20, " GMT", 4) == 0)
        return hsrv_text_seconds(hsrv_text_digits(p + 7, 4), hsrv_text_month(p + 3), hsrv_text_digits(p, 2), p + 12);
    if (rest == 24 && comma[1] == ' ' && p[2] == '-' && p[6] == '-' && p[9] == ' ' && memcmp(p + 18, " GMT", 4) == 0)
        return hsrv_text_seconds(hsrv_text_full_year(hsrv_text_digits(p + 7, 2), now), hsrv_text_month(p + 3),
                                 hsrv_text_digits(p, 2), p + 10);
    return INT64_MIN;
}

// The value of a digit of base64, RFC 4648 section 4; -1 if it is none.
static int hsrv_text_base64_digit(char c) {
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

// Decodes base64, with its padding, into room for s.len bytes. The number of bytes; -1 if it is none.
static ptrdiff_t hsrv_text_base64_decode(char *out, httpsrv_str s) {
    ptrdiff_t n = 0;
    uint32_t bits = 0;
    int count = 0;
    const size_t padded = s.len;
    while (s.len > 0 && padded - s.len < 2 && s.ptr[s.len - 1] == '=') {
        s.len--;
    }
    if (padded % 4 != 0) return -1;
    for (size_t i = 0; i < s.len; i++) {
        const int digit = hsrv_text_base64_digit(s.ptr[i]);
        if (digit < 0) return -1;
        bits = bits << 6 | (uint32_t)digit;
        count += 6;
        if (count < 8) continue;
        count -= 8;
        out[n++] = (char)(bits >> count & 0xff);
    }
    return (bits & ((1u << count) - 1)) == 0 ? n : -1;
}

static char *hsrv_text_two_digits(char *out, uint32_t n) {
    out[0] = (char)('0' + n / 10);
    out[1] = (char)('0' + n % 10);
    return out + 2;
}

#define HSRV_FIRST_DATE INT64_C(-11644473600) // 1601-01-01, the first that is read as well

// IMF-fixdate, RFC 9110 section 5.6.7: 29 characters; not before HSRV_FIRST_DATE. Days are counted in eras of 400 years,
// the first from March 1 of the year 0, so that the leap day comes last.
static char *hsrv_text_format_date(char *out, int64_t unix_seconds) {
    static const char weekdays[] = "WedThuFriSatSunMonTue", months[] = "MarAprMayJunJulAugSepOctNovDecJanFeb";
    const uint64_t seconds = (uint64_t)(unix_seconds + INT64_C(719468) * 86400);
    const uint32_t days = (uint32_t)(seconds / 86400), second = (uint32_t)(seconds % 86400);
    const uint32_t era = days / 146097, day_of_era = days % 146097;
    const uint32_t year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    const uint32_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    const uint32_t month = (5 * day_of_year + 2) / 153;
    const uint32_t day = day_of_year - (153 * month + 2) / 5 + 1;
    const uint32_t year = year_of_era + era * 400 + (month >= 10 ? 1 : 0);
    out = hsrv_text_append(out, hsrv_text_view(weekdays + 3 * (days % 7), 3));
    out = HSRV_APPEND(out, ", ");
    out = hsrv_text_two_digits(out, day);
    *out++ = ' ';
    out = hsrv_text_append(out, hsrv_text_view(months + 3 * month, 3));
    *out++ = ' ';
    out = hsrv_text_two_digits(out, year / 100 % 100);
    out = hsrv_text_two_digits(out, year % 100);
    *out++ = ' ';
    out = hsrv_text_two_digits(out, second / 3600);
    *out++ = ':';
    out = hsrv_text_two_digits(out, second / 60 % 60);
    *out++ = ':';
    out = hsrv_text_two_digits(out, second % 60);
    return HSRV_APPEND(out, " GMT");
}

// The registry: https://www.iana.org/assignments/http-status-codes
static httpsrv_str hsrv_text_phrase(int status) {
    static const struct {
        short status;
        char text[32];
    } phrases[] = {
        {100, "Continue"},
        {101, "Switching Protocols"},
        {102, "Processing"},
        {103, "Early Hints"},
        {104, "Upload Resumption Supported"},
        {200, "OK"},
        {201, "Created"},
        {202, "Accepted"},
        {203, "Non-Authoritative Information"},
        {204, "No Content"},
        {205, "Reset Content"},
        {206, "Partial Content"},
        {207, "Multi-Status"},
        {208, "Already Reported"},
        {226, "IM Used"},
        {300, "Multiple Choices"},
        {301, "Moved Permanently"},
        {302, "Found"},
        {303, "See Other"},
        {304, "Not Modified"},
        {305, "Use Proxy"},
        {307, "Temporary Redirect"},
        {308, "Permanent Redirect"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {402, "Payment Required"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {406, "Not Acceptable"},
        {407, "Proxy Authentication Required"},
        {408, "Request Timeout"},
        {409, "Conflict"},
        {410, "Gone"},
        {411, "Length Required"},
        {412, "Precondition Failed"},
        {413, "Content Too Large"},
        {414, "URI Too Long"},
        {415, "Unsupported Media Type"},
        {416, "Range Not Satisfiable"},
        {417, "Expectation Failed"},
        {421, "Misdirected Request"},
        {422, "Unprocessable Content"},
        {423, "Locked"},
        {424, "Failed Dependency"},
        {425, "Too Early"},
        {426, "Upgrade Required"},
        {428, "Precondition Required"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {451, "Unavailable For Legal Reasons"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {502, "Bad Gateway"},
        {503, "Service Unavailable"},
        {504, "Gateway Timeout"},
        {505, "HTTP Version Not Supported"},
        {506, "Variant Also Negotiates"},
        {507, "Insufficient Storage"},
        {508, "Loop Detected"},
        {510, "Not Extended"},
        {511, "Network Authentication Required"},
    };
    for (size_t i = 0; i < sizeof phrases / sizeof phrases[0]; i++) {
        if (phrases[i].status == status) return hsrv_text_of(phrases[i].text);
    }
    return hsrv_text_of("Unknown");
}

// ---- media types ----

// A media type without its parameters.
static httpsrv_str hsrv_text_bare_type(httpsrv_str type) {
    const char *semicolon = type.len > 0 ? (const char *)memchr(type.ptr, ';', type.len) : NULL;
    if (semicolon) type.len = (size_t)(semicolon - type.ptr);
    return hsrv_text_trim(type);
}

// Whether a bare media type is within a range: "type/subtype", "type/*", "*/*" of RFC 9110 section 12.5.1; or "*+suffix".
static bool hsrv_text_type_fits(httpsrv_str type, httpsrv_str range) {
    if (hsrv_text_equal(range, hsrv_text_of("*/*"))) return true;
    if (range.len < 2) return false;
    const bool suffix = range.ptr[0] == '*', prefix = range.ptr[range.len - 1] == '*';
    if (!suffix && !prefix) return hsrv_text_equal_nocase(type, range);
    const httpsrv_str part = hsrv_text_view(range.ptr + (suffix ? 1 : 0), range.len - 1);
    if (type.len <= part.len) return false;
    const char *at = suffix ? type.ptr + type.len - part.len : type.ptr;
    return hsrv_text_equal_nocase(hsrv_text_view(at, part.len), part);
}

// ===========================================================================================
// >>log       Texts of results and log items.    owns: nothing    thread: any    uses: >>platform
// ===========================================================================================

static const char *hsrv_log_result_text(httpsrv_result result) {
    switch (result) {
#define HTTPSRV_X(name, value, text) \
    case HTTPSRV_##name: return text;
        HTTPSRV_RESULTS(HTTPSRV_X)
#undef HTTPSRV_X
    }
    return "unknown result";
}

static int hsrv_log_result_status(httpsrv_result result) {
    switch (result) {
    case HTTPSRV_OK: return 200;
    case HTTPSRV_SYNTAX: return 400;
    case HTTPSRV_TOOBIG: return 413;
    case HTTPSRV_UNSUPPORTED: return 415;
    case HTTPSRV_NOMEM:
    case HTTPSRV_FULL: return 503;
    default: return 500;
    }
}

static const char *hsrv_log_item_text(httpsrv_log_item item) {
#define HTTPSRV_X(name, level, text) text "\0"
    const char *words = HTTPSRV_LOG_ITEMS(HTTPSRV_X); // one after the other
#undef HTTPSRV_X
    if ((unsigned)item >= HTTPSRV_LOG_COUNT) return "unknown item";
    for (unsigned i = 0; i < (unsigned)item; i++) {
        words += strlen(words) + 1;
    }
    return words;
}

static httpsrv_log_level hsrv_log_item_level(httpsrv_log_item item) {
#define HTTPSRV_X(name, level, text) (unsigned char)HTTPSRV_LEVEL_##level,
    static const unsigned char levels[] = {HTTPSRV_LOG_ITEMS(HTTPSRV_X)};
#undef HTTPSRV_X
    return (unsigned)item < HTTPSRV_LOG_COUNT ? (httpsrv_log_level)levels[item] : HTTPSRV_LEVEL_DEBUG;
}

// ===========================================================================================
// >>memory    Allocator, arena, slab, buffer.    owns: the account    thread: the allocator any, the rest their owner's
//             uses: >>text
// ===========================================================================================

// Every byte goes through here. Sizes are given back on release, so the account needs no header before each block.
typedef struct hsrv_memory {
    httpsrv_realloc fn;
    void *user;
    size_t used; // bytes; any thread, relaxed: nothing is ordered by it
    size_t most; // bytes: the budget
} hsrv_memory;

static void *hsrv_memory_default(void *user, void *ptr, size_t old_size, size_t new_size) {
    (void)user;
    (void)old_size;
    if (new_size > 0) return realloc(ptr, new_size);
    free(ptr);
    return NULL;
}

static void hsrv_memory_init(hsrv_memory *memory, httpsrv_realloc fn, void *user) {
    memory->fn = fn ? fn : hsrv_memory_default;
    memory->user = user;
    memory->used = 0;
    memory->most = SIZE_MAX;
}

// Takes from the budget what a block grows by; false if there is not enough. [any]
static bool hsrv_memory_spend(hsrv_memory *memory, size_t more) {
    size_t used = __atomic_load_n(&memory->used, __ATOMIC_RELAXED);
    do { // never more than there is, not even for a moment: others would be refused meanwhile
        if (more > memory->most || used > memory->most - more) return false;
    } while (!__atomic_compare_exchange_n(&memory->used, &used, used + more, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return true;
}

// NULL when out of memory: then ptr is as it was.
static void *hsrv_memory_resize(hsrv_memory *memory, void *ptr, size_t old_size, size_t new_size) {
    if (new_size > (size_t)PTRDIFF_MAX) return NULL;
    const size_t more = new_size > old_size ? new_size - old_size : 0;
    if (more > 0 && !hsrv_memory_spend(memory, more)) return NULL;
    void *block = memory->fn(memory->user, ptr, old_size, new_size);
    const size_t back = !block && new_size > 0 ? more : old_size - (new_size - more);
    if (back > 0) __atomic_fetch_sub(&memory->used, back, __ATOMIC_RELAXED);
    return block;
}

static HSRV_APART void *hsrv_memory_take(hsrv_memory *memory, size_t size) {
    return hsrv_memory_resize(memory, NULL, 0, size);
}

static HSRV_APART void *hsrv_memory_take_zeroed(hsrv_memory *memory, size_t size) {
    void *block = hsrv_memory_take(memory, size);
    if (block) memset(block, 0, size);
    return block;
}

static HSRV_APART void hsrv_memory_give(hsrv_memory *memory, void *ptr, size_t size) {
    if (ptr) hsrv_memory_resize(memory, ptr, size, 0);
}

// A terminated copy of strlen(text) + 1 bytes.
static char *hsrv_memory_copy_text(hsrv_memory *memory, const char *text) {
    const size_t size = strlen(text) + 1;
    char *copy = (char *)hsrv_memory_take(memory, size);
    if (copy) memcpy(copy, text, size);
    return copy;
}

static HSRV_APART void hsrv_memory_give_text(hsrv_memory *memory, char *text) {
    if (text) hsrv_memory_give(memory, text, strlen(text) + 1);
}

// A growable run of bytes.
typedef struct hsrv_buffer {
    char *ptr;
    size_t len, cap;
} hsrv_buffer;

// Makes room for `more` bytes behind len. Doubles, so that appending costs O(1) a byte.
static bool hsrv_memory_buffer_reserve(hsrv_memory *memory, hsrv_buffer *buffer, size_t more) {
    if (more <= buffer->cap - buffer->len) return true;
    if (more > (size_t)PTRDIFF_MAX / 2 - buffer->len) return false;
    size_t cap = buffer->cap < 512 ? 512 : buffer->cap * 2;
    if (cap < buffer->len + more) cap = buffer->len + more;
    char *ptr = (char *)hsrv_memory_resize(memory, buffer->ptr, buffer->cap, cap);
    if (!ptr) return false;
    buffer->ptr = ptr;
    buffer->cap = cap;
    return true;
}

static bool hsrv_memory_buffer_append(hsrv_memory *memory, hsrv_buffer *buffer, const char *bytes, size_t len) {
    if (!hsrv_memory_buffer_reserve(memory, buffer, len)) return false;
    if (len > 0) memcpy(buffer->ptr + buffer->len, bytes, len);
    buffer->len += len;
    return true;
}

static void hsrv_memory_buffer_free(hsrv_memory *memory, hsrv_buffer *buffer) {
    hsrv_memory_give(memory, buffer->ptr, buffer->cap);
    memset(buffer, 0, sizeof *buffer);
}

// An arena: pointer bumping in a first piece that its owner lends, then in blocks from the allocator; all of it is
// given back at once. Used by whoever holds the request, so it never touches anything of a reactor's.
typedef struct hsrv_block {
    struct hsrv_block *next;
    size_t size; // bytes, this header included
} hsrv_block;

typedef struct hsrv_arena {
    hsrv_memory *memory;
    hsrv_block *blocks;
    char *cur, *end;
} hsrv_arena;

#define HSRV_ALIGN_UP(n, to) (((n) + (to)-1) / (to) * (to))
#define HSRV_BLOCK_HEADER    HSRV_ALIGN_UP(sizeof(hsrv_block), 16)
#define HSRV_BLOCK_SIZE      4096u

// first must be aligned to 16 bytes.
static void hsrv_memory_arena_init(hsrv_arena *arena, hsrv_memory *memory, char *first, size_t size) {
    arena->memory = memory;
    arena->blocks = NULL;
    arena->cur = first;
    arena->end = first + size;
}

static void *hsrv_memory_arena_grow(hsrv_arena *arena, size_t size) {
    size_t block_size = size + HSRV_BLOCK_HEADER;
    if (block_size < HSRV_BLOCK_SIZE) block_size = HSRV_BLOCK_SIZE;
    hsrv_block *block = (hsrv_block *)hsrv_memory_take(arena->memory, block_size);
    if (!block) return NULL;
    block->next = arena->blocks;
    block->size = block_size;
    arena->blocks = block;
    char *ptr = (char *)block + HSRV_BLOCK_HEADER;
    const size_t left = block_size - HSRV_BLOCK_HEADER - size;
    if (left > (size_t)(arena->end - arena->cur)) {
        arena->cur = ptr + size;
        arena->end = arena->cur + left;
    }
    return ptr;
}

// Aligned to 16 bytes, or as far as the allocator's blocks are; NULL when out of memory.
static void *hsrv_memory_arena_take(hsrv_arena *arena, size_t size) {
    if (size > (size_t)PTRDIFF_MAX - HSRV_BLOCK_SIZE) return NULL;
    size = size == 0 ? 16 : HSRV_ALIGN_UP(size, 16);
    if (size > (size_t)(arena->end - arena->cur)) return hsrv_memory_arena_grow(arena, size);
    void *ptr = arena->cur;
    arena->cur += size;
    return ptr;
}

// A copy of the bytes; absent when out of memory. An empty view stays present.
static httpsrv_str hsrv_memory_arena_copy(hsrv_arena *arena, httpsrv_str s) {
    char *ptr = (char *)hsrv_memory_arena_take(arena, s.len);
    if (!ptr) return hsrv_text_absent();
    hsrv_text_append(ptr, s);
    return hsrv_text_view(ptr, s.len);
}

static void hsrv_memory_arena_free(hsrv_arena *arena) {
    while (arena->blocks) {
        hsrv_block *block = arena->blocks;
        arena->blocks = block->next;
        hsrv_memory_give(arena->memory, block, block->size);
    }
}

// A slab: items of one size, addressed by slot number, in chunks of 64 that come and go with the load. The directory is
// as long as the largest number of items asks for, an empty chunk beyond one is given back, and chunks with room are
// found through a doubly linked list. An index of UINT32_MAX means "none".
#define HSRV_SLAB_ITEMS 64u
#define HSRV_NONE       UINT32_MAX

typedef struct hsrv_chunk {
    char *items;         // NULL: not allocated
    uint64_t free;       // a bit for each item
    uint32_t prev, next; // in the list of chunks with room, or (next) of those without memory
} hsrv_chunk;

typedef struct hsrv_slab {
    hsrv_memory *memory;
    hsrv_chunk *chunks;
    size_t item_size;
    uint32_t num_chunks;
    uint32_t room;   // first chunk that has memory and a free item
    uint32_t absent; // first chunk without memory
    uint32_t empty;  // chunks with memory and no item in use
} hsrv_slab;

static bool hsrv_memory_slab_init(hsrv_slab *slab, hsrv_memory *memory, size_t item_size, uint32_t max_items) {
    slab->memory = memory;
    slab->item_size = item_size;
    slab->num_chunks = (max_items + HSRV_SLAB_ITEMS - 1) / HSRV_SLAB_ITEMS;
    slab->chunks = (hsrv_chunk *)hsrv_memory_take(memory, slab->num_chunks * sizeof(hsrv_chunk));
    if (!slab->chunks) return false;
    slab->room = HSRV_NONE;
    slab->empty = 0;
    slab->absent = 0;
    for (uint32_t i = 0; i < slab->num_chunks; i++) {
        slab->chunks[i].items = NULL;
        slab->chunks[i].next = i + 1 < slab->num_chunks ? i + 1 : HSRV_NONE;
    }
    return true;
}

static void hsrv_memory_slab_link(hsrv_slab *slab, uint32_t index) {
    hsrv_chunk *chunk = &slab->chunks[index];
    chunk->prev = HSRV_NONE;
    chunk->next = slab->room;
    if (slab->room != HSRV_NONE) slab->chunks[slab->room].prev = index;
    slab->room = index;
}

static void hsrv_memory_slab_unlink(hsrv_slab *slab, uint32_t index) {
    hsrv_chunk *chunk = &slab->chunks[index];
    if (chunk->prev != HSRV_NONE) slab->chunks[chunk->prev].next = chunk->next;
    if (chunk->prev == HSRV_NONE) slab->room = chunk->next;
    if (chunk->next != HSRV_NONE) slab->chunks[chunk->next].prev = chunk->prev;
}

static bool hsrv_memory_slab_grow(hsrv_slab *slab) {
    const uint32_t index = slab->absent;
    if (index == HSRV_NONE) return false;
    hsrv_chunk *chunk = &slab->chunks[index];
    chunk->items = (char *)hsrv_memory_take(slab->memory, slab->item_size * HSRV_SLAB_ITEMS);
    if (!chunk->items) return false;
    slab->absent = chunk->next;
    slab->empty++;
    chunk->free = UINT64_MAX;
    hsrv_memory_slab_link(slab, index);
    return true;
}

// NULL when full or out of memory. The item is not zeroed.
static void *hsrv_memory_slab_take(hsrv_slab *slab, uint32_t *slot) {
    if (slab->room == HSRV_NONE && !hsrv_memory_slab_grow(slab)) return NULL;
    const uint32_t index = slab->room;
    hsrv_chunk *chunk = &slab->chunks[index];
    const unsigned bit = (unsigned)__builtin_ctzll(chunk->free);
    if (chunk->free == UINT64_MAX) slab->empty--;
    chunk->free &= chunk->free - 1;
    if (chunk->free == 0) hsrv_memory_slab_unlink(slab, index);
    *slot = index * HSRV_SLAB_ITEMS + bit;
    return chunk->items + bit * slab->item_size;
}

// The item in a slot, NULL if its chunk has no memory; whether it is in use is for the caller to know.
static void *hsrv_memory_slab_at(const hsrv_slab *slab, uint32_t slot) {
    const hsrv_chunk *chunk = &slab->chunks[slot / HSRV_SLAB_ITEMS];
    return chunk->items ? chunk->items + slot % HSRV_SLAB_ITEMS * slab->item_size : NULL;
}

static bool hsrv_memory_slab_used(const hsrv_slab *slab, uint32_t slot) {
    const hsrv_chunk *chunk = &slab->chunks[slot / HSRV_SLAB_ITEMS];
    return chunk->items && !(chunk->free >> slot % HSRV_SLAB_ITEMS & 1);
}

static void hsrv_memory_slab_give(hsrv_slab *slab, uint32_t slot) {
    const uint32_t index = slot / HSRV_SLAB_ITEMS;
    hsrv_chunk *chunk = &slab->chunks[index];
    if (chunk->free == 0) hsrv_memory_slab_link(slab, index);
    chunk->free |= (uint64_t)1 << slot % HSRV_SLAB_ITEMS;
    if (chunk->free != UINT64_MAX) return;
    if (slab->empty++ == 0)
        return; // one empty chunk stays, lest a single connection that comes and goes costs a malloc
    slab->empty--;
    hsrv_memory_slab_unlink(slab, index);
    hsrv_memory_give(slab->memory, chunk->items, slab->item_size * HSRV_SLAB_ITEMS);
    chunk->items = NULL;
    chunk->next = slab->absent;
    slab->absent = index;
}

static void hsrv_memory_slab_free(hsrv_slab *slab) {
    if (!slab->chunks) return;
    for (uint32_t i = 0; i < slab->num_chunks; i++) {
        hsrv_memory_give(slab->memory, slab->chunks[i].items, slab->item_size * HSRV_SLAB_ITEMS);
    }
    hsrv_memory_give(slab->memory, slab->chunks, slab->num_chunks * sizeof(hsrv_chunk));
    slab->chunks = NULL;
}

// ===========================================================================================
// >>coding    Content codings: gzip.    owns: a coder's state    thread: whoever holds the coder    uses: >>memory
// ===========================================================================================

#define HSRV_DECODED_PIECE 16384u // bytes of a decoded body that are handed on at once

// Compresses a body in pieces.
typedef struct hsrv_deflater {
    hsrv_memory *memory;
    hsrv_buffer out; // compressed and not passed on yet
    bool ended;
#ifdef HTTPSRV_ZLIB
    z_stream z;
#endif
} hsrv_deflater;

// Decodes a body in pieces.
typedef struct hsrv_inflater {
    hsrv_memory *memory;
    hsrv_buffer held; // bytes that were received and not decoded yet, from `used` on
    size_t used;
    int64_t total, most; // decoded bytes so far, and how many there may be; negative: any number
    bool inside;         // a member has begun and has not ended
    bool more;           // there may be more output of what was put in
#ifdef HTTPSRV_ZLIB
    z_stream z;
#endif
    char piece[HSRV_DECODED_PIECE];
} hsrv_inflater;

typedef enum hsrv_coded {
    HSRV_CODED_OK,
    HSRV_CODED_BAD,  // not what it says
    HSRV_CODED_OVER, // too many bytes
    HSRV_CODED_NOMEM
} hsrv_coded;

// What was compressed so far is passed on. A large buffer is not kept.
static void hsrv_coding_passed(hsrv_deflater *coder) {
    coder->out.len = 0;
    if (coder->out.cap > HTTPSRV_READ_BUFFER) hsrv_memory_buffer_free(coder->memory, &coder->out);
}

// Takes received bytes. False when out of memory.
static bool hsrv_coding_hold(hsrv_inflater *coder, httpsrv_str bytes) {
    if (coder->used == coder->held.len) coder->held.len = coder->used = 0;
    return hsrv_memory_buffer_append(coder->memory, &coder->held, bytes.ptr, bytes.len);
}

// Whether nothing comes out unless something is put in.
static bool hsrv_coding_is_dry(const hsrv_inflater *coder) {
    return coder->used == coder->held.len && !coder->more;
}

// Whether what was received is a complete body. Without a single byte it is an empty one.
static bool hsrv_coding_is_complete(const hsrv_inflater *coder) {
    return hsrv_coding_is_dry(coder) && !coder->inside;
}

#ifdef HTTPSRV_ZLIB

#define HSRV_CODES      true
#define HSRV_GZIP       16         // added to the bits of a window
#define HSRV_CODER_HEAD 16u        // bytes before a block of zlib's: its size, and then aligned again
#define HSRV_CODER_MOST (1u << 30) // bytes that zlib is given at once, which counts in unsigned

static void *hsrv_coding_take(void *user, unsigned items, unsigned size) {
    const uint64_t total = (uint64_t)items * size + HSRV_CODER_HEAD;
    if (total > (uint64_t)PTRDIFF_MAX) return Z_NULL;
    const size_t block_size = (size_t)total;
    char *block = (char *)hsrv_memory_take((hsrv_memory *)user, block_size);
    if (!block) return Z_NULL;
    memcpy(block, &block_size, sizeof block_size);
    return block + HSRV_CODER_HEAD;
}

static void hsrv_coding_give(void *user, void *address) {
    char *block = (char *)address - HSRV_CODER_HEAD;
    size_t block_size;
    memcpy(&block_size, block, sizeof block_size);
    hsrv_memory_give((hsrv_memory *)user, block, block_size);
}

static void hsrv_coding_init(z_stream *z, hsrv_memory *memory) {
    memset(z, 0, sizeof *z);
    z->zalloc = hsrv_coding_take;
    z->zfree = hsrv_coding_give;
    z->opaque = memory;
}

static unsigned hsrv_coding_step_of(size_t len) {
    return len < HSRV_CODER_MOST ? (unsigned)len : HSRV_CODER_MOST;
}

// A window of the size of the body is enough, and takes less memory: 256 KB are for 32 KB and more.
static bool hsrv_coding_init_deflate(z_stream *z, hsrv_memory *memory, int level, size_t size) {
    int bits = 9;
    while (bits < 15 && (size_t)1 << bits < size) {
        bits++;
    }
    hsrv_coding_init(z, memory);
    return deflateInit2(z, level, Z_DEFLATED, bits + HSRV_GZIP, bits - 7, Z_DEFAULT_STRATEGY) == Z_OK;
}

// Compresses a whole body into room for `size` bytes. How many it takes; 0 if it takes more, or memory ran out.
static size_t hsrv_coding_compress(hsrv_memory *memory, int level, httpsrv_str body, char *out, size_t size) {
    z_stream z;
    if (!hsrv_coding_init_deflate(&z, memory, level, body.len)) return 0;
    size_t in_left = body.len, out_left = size;
    int state = Z_OK;
    z.next_in = (unsigned char *)(uintptr_t)body.ptr;
    z.next_out = (unsigned char *)out;
    while (state == Z_OK && out_left > 0) {
        const unsigned in_step = hsrv_coding_step_of(in_left), out_step = hsrv_coding_step_of(out_left);
        z.avail_in = in_step;
        z.avail_out = out_step;
        state = deflate(&z, in_step == in_left ? Z_FINISH : Z_NO_FLUSH);
        in_left -= in_step - z.avail_in;
        out_left -= out_step - z.avail_out;
    }
    deflateEnd(&z);
    return state == Z_STREAM_END ? size - out_left : 0;
}

static hsrv_deflater *hsrv_coding_new_deflater(hsrv_memory *memory, int level) {
    hsrv_deflater *coder = (hsrv_deflater *)hsrv_memory_take_zeroed(memory, sizeof *coder);
    if (!coder) return NULL;
    coder->memory = memory;
    if (hsrv_coding_init_deflate(&coder->z, memory, level, SIZE_MAX)) return coder;
    hsrv_memory_give(memory, coder, sizeof *coder);
    return NULL;
}

static void hsrv_coding_free_deflater(hsrv_deflater *coder) {
    deflateEnd(&coder->z);
    hsrv_memory_buffer_free(coder->memory, &coder->out);
    hsrv_memory_give(coder->memory, coder, sizeof *coder);
}

static void hsrv_coding_deflate_step(hsrv_deflater *coder, unsigned len, int flush) {
    hsrv_buffer *out = &coder->out;
    coder->z.avail_in = len;
    do {
        const unsigned room = hsrv_coding_step_of(out->cap - out->len);
        coder->z.next_out = (unsigned char *)out->ptr + out->len;
        coder->z.avail_out = room;
        deflate(&coder->z, flush);
        out->len += room - coder->z.avail_out;
    } while (coder->z.avail_out == 0 && out->len < out->cap);
}

// Appends bytes to coder->out so that all of them can be decoded; with `last`, the end as well. False when out of memory:
// then nothing has happened. There is room from the start for all that can come: bytes that do not get smaller are stored,
// with 5 more for each block of at least 1 KB, and a flush adds a few.
static bool hsrv_coding_deflate(hsrv_deflater *coder, httpsrv_str bytes, bool last) {
    if (bytes.len > (size_t)PTRDIFF_MAX / 4) return false;
    if (!hsrv_memory_buffer_reserve(coder->memory, &coder->out, bytes.len + bytes.len / 64 + 1024)) return false;
    coder->z.next_in = (unsigned char *)(uintptr_t)bytes.ptr;
    for (; bytes.len > HSRV_CODER_MOST; bytes.len -= HSRV_CODER_MOST) {
        hsrv_coding_deflate_step(coder, HSRV_CODER_MOST, Z_NO_FLUSH);
    }
    hsrv_coding_deflate_step(coder, (unsigned)bytes.len, last ? Z_FINISH : Z_SYNC_FLUSH);
    coder->ended = last;
    return true;
}

static hsrv_inflater *hsrv_coding_new_inflater(hsrv_memory *memory, int64_t most) {
    hsrv_inflater *coder = (hsrv_inflater *)hsrv_memory_take(memory, sizeof *coder);
    if (!coder) return NULL;
    memset(coder, 0, offsetof(hsrv_inflater, piece));
    coder->memory = memory;
    coder->most = most;
    hsrv_coding_init(&coder->z, memory);
    if (inflateInit2(&coder->z, 15 + HSRV_GZIP) == Z_OK) return coder;
    hsrv_memory_give(memory, coder, sizeof *coder);
    return NULL;
}

static void hsrv_coding_free_inflater(hsrv_inflater *coder) {
    inflateEnd(&coder->z);
    hsrv_memory_buffer_free(coder->memory, &coder->held);
    hsrv_memory_give(coder->memory, coder, sizeof *coder);
}

static hsrv_coded hsrv_coding_judge(const hsrv_inflater *coder, int state) {
    if (state == Z_MEM_ERROR) return HSRV_CODED_NOMEM;
    if (state != Z_OK && state != Z_STREAM_END && state != Z_BUF_ERROR) return HSRV_CODED_BAD;
    return coder->most >= 0 && coder->total > coder->most ? HSRV_CODED_OVER : HSRV_CODED_OK;
}

// Decodes a step of what is held, which is not dry, into coder->piece; n says how many bytes. A body may consist of several
// members, one after the other: RFC 1952 section 2.2.
static hsrv_coded hsrv_coding_inflate(hsrv_inflater *coder, size_t *n) {
    const unsigned step = hsrv_coding_step_of(coder->held.len - coder->used);
    if (!coder->inside) inflateReset(&coder->z);
    coder->z.next_in = (unsigned char *)coder->held.ptr + coder->used;
    coder->z.avail_in = step;
    coder->z.next_out = (unsigned char *)coder->piece;
    coder->z.avail_out = HSRV_DECODED_PIECE;
    const int state = inflate(&coder->z, Z_NO_FLUSH);
    coder->used += step - coder->z.avail_in;
    *n = HSRV_DECODED_PIECE - coder->z.avail_out;
    coder->total += (int64_t)*n;
    coder->inside = state != Z_STREAM_END;
    coder->more = coder->inside && coder->z.avail_out == 0;
    return hsrv_coding_judge(coder, state);
}

#else // no configuration leads here

#define HSRV_CODES false

static size_t hsrv_coding_compress(hsrv_memory *memory, int level, httpsrv_str body, char *out, size_t size) {
    (void)memory, (void)level, (void)body, (void)out, (void)size;
    return 0;
}

static hsrv_deflater *hsrv_coding_new_deflater(hsrv_memory *memory, int level) {
    (void)memory, (void)level;
    return NULL;
}

static void hsrv_coding_free_deflater(hsrv_deflater *coder) {
    (void)coder;
}

static bool hsrv_coding_deflate(hsrv_deflater *coder, httpsrv_str bytes, bool last) {
    (void)coder, (void)bytes, (void)last;
    return false;
}

static hsrv_inflater *hsrv_coding_new_inflater(hsrv_memory *memory, int64_t most) {
    (void)memory, (void)most;
    return NULL;
}

static void hsrv_coding_free_inflater(hsrv_inflater *coder) {
    (void)coder;
}

static hsrv_coded hsrv_coding_inflate(hsrv_inflater *coder, size_t *n) {
    (void)coder, (void)n;
    return HSRV_CODED_BAD;
}

#endif

// ===========================================================================================
// >>parser    Request head, body, trailers.    owns: nothing    thread: pure    uses: >>text
// ===========================================================================================

// Each byte is looked at once, whatever the split: the parser remembers in which part of the message it stopped
// (state), how far it got (pos) and where the token began (mark), all as offsets, since the bytes may move between
// calls.
//
// Head:   START -> METHOD -> TARGET -> VERSION -> NAME -> SPACE -> VALUE -> VALUE_LF -> NAME ... -> END_LF
//           ^ |                                     |                                                 ^
//           | v                                     +-------------------- CR -------------------------+
//         START_LF
//
// Trailers begin at NAME. Body: LENGTH, or
//         SIZE -> (extensions) -> SIZE_LF -> DATA -> DATA_CR -> DATA_LF -> SIZE ... -> SIZE_LF of the last chunk
//
// A function for a state returns 1 when it is through, 0 when it needs more bytes, < 0 on an error.
enum hsrv_parser_state {
    HSRV_HEAD_START,
    HSRV_HEAD_START_LF,
    HSRV_HEAD_METHOD,
    HSRV_HEAD_TARGET,
    HSRV_HEAD_VERSION,
    HSRV_HEAD_NAME,
    HSRV_HEAD_SPACE,
    HSRV_HEAD_VALUE,
    HSRV_HEAD_VALUE_LF,
    HSRV_HEAD_END_LF,
    HSRV_BODY_LENGTH,
    HSRV_BODY_SIZE,
    HSRV_BODY_BEFORE_SEMICOLON, // blanks behind a size or a value: only ";" may follow
    HSRV_BODY_BEFORE_NAME,
    HSRV_BODY_NAME,
    HSRV_BODY_AFTER_NAME, // blanks behind a name: "=" or ";" may follow
    HSRV_BODY_BEFORE_VALUE,
    HSRV_BODY_VALUE,
    HSRV_BODY_QUOTED,
    HSRV_BODY_ESCAPED,
    HSRV_BODY_AFTER_QUOTED,
    HSRV_BODY_SIZE_LF,
    HSRV_BODY_DATA,
    HSRV_BODY_DATA_CR,
    HSRV_BODY_DATA_LF
};

// What was seen so far in this head: bits of httpsrv_parser.seen.
#define HSRV_SEEN_HOST         0x0001u
#define HSRV_SEEN_LENGTH       0x0002u
#define HSRV_SEEN_CODING       0x0004u // a Transfer-Encoding field
#define HSRV_SEEN_CHUNKED      0x0008u // its chunked
#define HSRV_SEEN_OTHER_CODING 0x0010u // another coding before chunked
#define HSRV_SEEN_BAD_CODING   0x0020u // a coding behind chunked
#define HSRV_SEEN_CLOSE        0x0040u
#define HSRV_SEEN_KEEP_ALIVE   0x0080u
#define HSRV_SEEN_TO_UPGRADE   0x0100u // Connection: upgrade
#define HSRV_SEEN_UPGRADE      0x0200u // an Upgrade field
#define HSRV_SEEN_CONTINUE     0x0400u
#define HSRV_SEEN_EXPECT_OTHER 0x0800u
#define HSRV_SEEN_PERCENT      0x1000u // in the target
#define HSRV_SEEN_BRACKET      0x2000u // in the target
#define HSRV_SEEN_TYPE         0x4000u

#define HSRV_MAX_EMPTY_LINES 4u    // before a request line, RFC 9112 section 2.2
#define HSRV_MAX_EXTENSIONS  4096u // bytes of chunk extensions in a message
#define HSRV_MAX_TRAILERS    8192u // bytes of a trailer section
#define HSRV_MAX_HEAD        (16 << 20)
#define HSRV_MAX_FIELDS      4096

static ptrdiff_t hsrv_parser_error(const httpsrv_parser *p) {
    switch (p->status) {
    case 413:
    case 414:
    case 431: return HTTPSRV_TOOBIG;
    case 501:
    case 505: return HTTPSRV_UNSUPPORTED;
    default: return HTTPSRV_SYNTAX;
    }
}

// In trailers every fault is one and the same, since the head has been acted upon already.
static int hsrv_parser_fail(httpsrv_parser *p, httpsrv_log_item item) {
    if (p->phase == HTTPSRV_PHASE_TRAILERS) item = HTTPSRV_LOG_BAD_TRAILER;
    p->phase = HTTPSRV_PHASE_ERROR;
    p->item = (int)item;
    switch (item) {
    case HTTPSRV_LOG_BODY_TOO_LARGE: p->status = 413; break;
    case HTTPSRV_LOG_URI_TOO_LONG: p->status = 414; break;
    case HTTPSRV_LOG_HEAD_TOO_LARGE: p->status = 431; break;
    case HTTPSRV_LOG_UNKNOWN_CODING: p->status = 501; break;
    case HTTPSRV_LOG_BAD_VERSION: p->status = 505; break;
    default: p->status = 400; break;
    }
    return (int)hsrv_parser_error(p);
}

static void hsrv_parser_reset(httpsrv_parser *p) {
    p->phase = HTTPSRV_PHASE_HEAD;
    p->status = 0;
    p->item = HTTPSRV_LOG_NONE;
    p->state = HSRV_HEAD_START;
    p->pos = p->mark = 0;
    p->num_fields = p->parked = 0;
    p->seen = p->count = 0;
    p->query_at = 0;
    p->resumed = false;
    p->content_length = -1;
    p->total = 0;
}

// The limits are complete: no defaults here.
static void hsrv_parser_init(httpsrv_parser *p, const httpsrv_limits *limits) {
    memset(p, 0, sizeof *p);
    p->max_head = (uint32_t)limits->head;
    p->max_uri = (uint32_t)limits->uri;
    p->max_fields = (uint32_t)limits->headers;
    p->max_body = limits->body;
    hsrv_parser_reset(p);
}

// ---- request line ----

static int hsrv_parser_start(httpsrv_parser *p, const char *buf, size_t len) {
    while (p->pos < len && buf[p->pos] == '\r') {
        if (p->count++ == HSRV_MAX_EMPTY_LINES) return hsrv_parser_fail(p, HTTPSRV_LOG_BAD_REQUEST_LINE);
        p->pos++;
        p->state = HSRV_HEAD_START_LF;
        if (p->pos == len) return 0;
        if (buf[p->pos++] != '\n') return hsrv_parser_fail(p, HTTPSRV_LOG_BAD_REQUEST_LINE);
        p->state = HSRV_HEAD_START;
    }
    if (p->pos == len) return 0;
    p->mark = p->pos;
    p->state = HSRV_HEAD_METHOD;
    return 1;
}

static int hsrv_parser_start_lf(httpsrv_parser *p, const char *buf, size_t len) {
    if (p->pos == len) return 0;
    if (buf[p->pos++] != '\n') return hsrv_parser_fail(p, HTTPSRV_LOG_BAD_REQUEST_LINE);
    p->state = HSRV_HEAD_START;
    return hsrv_parser_start(p, buf, len);
}

static int hsrv_parser_method(httpsrv_parser *p, const char *buf, size_t len) {
    const size_t i = (size_t)(hsrv_text_token_end(buf, buf + p->pos, buf + len) - buf);
    p->pos = (uint32_t)i;
    if (i - p->mark > p->max_uri) return hsrv_parser_fail(p, HTTPSRV_LOG_URI_TOO_LONG);
    if (i == len) return 0;
    if (buf[i] == '\r' || buf[i] == '\n') return hsrv_parser_fail(p, HTTPSRV_LOG_BAD_REQUEST_LINE);
    if (buf[i] != ' ' || i == p->mark) return hsrv_parser_fail(p, HTTPSRV_LOG_BAD_METHOD);
    p->method_at = p->mark;
    p->method_len = (uint32_t)i - p->mark;
    p->pos = p->mark = (uint32_t)i + 1;
    p->state = HSRV_HEAD_TARGET;
    return 1;
}

// What stops the scan of path characters. 1: go on behind it, 0: it is the space at the end, < 0: refused.
static int hsrv_parser_target_stop(httpsrv_parser *p, const char *buf, uint32_t at) {
    switch (buf[at]) {
    case '?':
        if (p->query_at == 0) p->query_at = at + 1;
        return 1;
    case '%': p->seen |= HSRV_SEEN_PERCENT; return 1;
    case '[':
    case ']': // only in the IP literal of an authority, which hsrv_parser_form checks
        if (buf[p->mark] == '/') break;
        p->seen |= HSRV_SEEN_BRACKET;
        return 1;
    case ' ':
        if (at > p->mark) return 0;
        break;
    default: break;
    }
    const bool cut_short = buf[at] == ' ' || buf[at] == '\r' || buf[at] == '\n';
    return hsrv_parser_fail(p, cut_short ? HTTPSRV_LOG_BAD_REQUEST_LINE : HTTPSRV_LOG_BAD_TARGET);
}

static int hsrv_parser_target(httpsrv_parser *p, const char *buf, size_t len) {
    size_t i = p->pos;
    for (;; i++) {
        i = (size_t)(hsrv_text_path_end(buf, buf + i, buf + len) - buf);
        if (i - p->mark > p->max_uri) return hsrv_parser_fail(p, HTTPSRV_LOG_URI_TOO_LONG);
        p->pos = (uint32_t)i;
        if (i == len) return 0;
        const int go_on = hsrv_parser_target_stop(p, buf, (uint32_t)i);
        if (go_on < 0) return go_on;
        if (go_on == 0) break;
    }
    p->target_at = p->mark;
    p->target_len = (uint32_t)i - p->mark;
    if ((p->seen & HSRV_SEEN_PERCENT) && !hsrv_text_escapes_valid(hsrv_text_view(buf + p->mark, p->target_len))) {
        return hsrv_parser_fail(p, HTTPSRV_LOG_BAD_TARGET);
    }
    p->pos = p->mark = (uint32_t)i + 1;
    p->state = HSRV_HEAD_VERSION;
    return 1;
}

static httpsrv_method_id hsrv_parser_method_id(httpsrv_str method) {
    static const char names[][8] = {"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"};
    char name[8] = {0};
    if (method.len >= sizeof name) return HTTPSRV_METHOD_OTHER;
    memcpy(name, method.ptr, method.len);
    for (int i = 0; i < (int)(sizeof names / sizeof names[0]); i++) {
        if (memcmp(name, names[i], sizeof name) == 0) return (httpsrv_method_id)(HTTPSRV_METHOD_GET + i);
    }
    return HTTPSRV_METHOD_OTHER;
}

// The authority of an absolute-form target behind its scheme, absent if the target has no scheme that is served here.
static httpsrv_str hsrv_parser_after_scheme(httpsrv_str target) {
    static const char *const schemes[] = {"http://", "https://"};
    for (size_t i = 0; i < 2; i++) {
        const size_t len = 7 + i;
        if (target.len >= len && hsrv_text_equal_nocase(hsrv_text_view(target.ptr, len), hsrv_text_of(schemes[i]))) {
            return hsrv_text_view(target.ptr + len, target.len - len);
        }
    }
    return hsrv_text_absent();
}

// Splits an absolute-form target into authority and path with query. RFC 9112 section 3.2.2; user information is an
// error, RFC 9110 section 4.2.4 (the authority's grammar has no "@").
static bool hsrv_parser_split_absolute(httpsrv_str target, httpsrv_head *out, httpsrv_str *rest) {
    const httpsrv_str s = hsrv_parser_after_scheme(target);
    if (!s.ptr) return false;
    size_t end = 0;
    while (end < s.len && s.ptr[end] != '/' && s.ptr[end] != '?') {
        end++;
    }
    int64_t port;
    out->authority = hsrv_text_view(s.ptr, end);
    *rest = hsrv_text_view(s.ptr + end, s.len - end);
    return hsrv_text_authority_valid(target.ptr, out->authority, &port);
}

// Which form the target has, and its parts. Needs the whole request line.
static bool hsrv_parser_form(const httpsrv_parser *p, const char *buf, httpsrv_head *out) {
    const httpsrv_str target = hsrv_text_view(buf + p->target_at, p->target_len);
    out->method = hsrv_text_view(buf + p->method_at, p->method_len);
    out->method_id = hsrv_parser_method_id(out->method);
    out->target = target;
    out->path = target;
    out->query = hsrv_text_absent();
    out->authority = hsrv_text_absent();
    if (out->method_id == HTTPSRV_METHOD_CONNECT) {
        int64_t port;
        out->form = HTTPSRV_FORM_AUTHORITY;
        out->authority = target;
        return hsrv_text_authority_valid(buf, target, &port) && port > 0;
    }
    if (target.len == 1 && target.ptr[0] == '*') {
        out->form = HTTPSRV_FORM_ASTERISK;
        return out->method_id == HTTPSRV_METHOD_OPTIONS;
    }
    out->form = HTTPSRV_FORM_ORIGIN;
    if (target.ptr[0] != '/') {
        out->form = HTTPSRV_FORM_ABSOLUTE;
        if (!hsrv_parser_split_absolute(target, out, &out->path)) return false;
        if ((p->seen & HSRV_SEEN_BRACKET) && out->path.len > 0 &&
            (memchr(out->path.ptr, '[', out->path.len) || memchr(out->path.ptr, ']', out->path.len))) {
            return false;
        }
    }
    if (p->query_at != 0) {
        out->query = hsrv_text_view(buf + p->query_at, p->target_at + p->target_len - p->query_at);
        out->path.len = (size_t)(buf + p->query_at - 1 - out->path.ptr);
    }
    if (out->path.len == 0) out->path = HSRV_LITERAL("/");
    return true;
}

// At the end of the request line. 505 only for what has the shape of a version.
static int hsrv_parser_request_line(httpsrv_parser *p, const char *buf, httpsrv_head *out) {
    const char *version = buf + p->mark;
    if (version[5] != '1') return hsrv_parser_fail(p, HTTPSRV_LOG_BAD_VERSION);
    p->version_minor = version[7] - '0';
    if (!hsrv_parser_form(p, buf, out)) return hsrv_parser_fail(p, HTTPSRV_LOG_BAD_TARGET);
    p->mark = p->pos;
    p->state = HSRV_HEAD_NAME;
    return 1;
}

static int hsrv_parser_version(httpsrv_parser *p, const char *buf, size_t len, httpsrv_head *out) {
    static const char shape[] = "HTTP/d.d\r\n";
    const uint32_t end = p->mark + 10;
    const char *version = buf + p->mark;
    if (len >= end && memcmp(version, "HTTP/1.1\r\n", 10) == 0) p->pos = end; // what nearly all say
    while (p->pos < end) {
        if (p->pos == len) return 0;
        const char c = buf[p->pos], wanted = shape[p->pos - p->mark];
        if (wanted == 'd' ? !hsrv_text_is(c, HSRV_DIGIT) : c != wanted) {
            return hsrv_parser_fail(p, HTTPSRV_LOG_BAD_REQUEST_LINE);
        }
        p->pos++;
    }
    return hsrv_parser_request_line(p, buf, out);
}

// ---- fields that the protocol itself depends on ----

static int hsrv_parser_on_host(httpsrv_parser *p, const char *buf, httpsrv_str value) {
    int64_t port;
    if ((p->seen & HSRV_SEEN_HOST) || !hsrv_text_authority_valid(buf, value, &port)) {
        return hsrv_parser_fail(p, HTTPSRV_LOG_BAD_HOST);
    }
    p->seen |= HSRV_SEEN_HOST;
    p->host_field = p->num_fields;
    return 1;
}

// A repeated Content-Length is refused even if it says the same: two readers that pick differently is how requests are
// smuggled.
static int hsrv_parser_on_length(httpsrv_parser *p, httpsrv_str value) {
    const int64_t n = hsrv_text_parse_number(value);
    if ((p->seen & HSRV_SEEN_LENGTH) || n < 0) return hsrv_parser_fail(p, HTTPSRV_LOG_BAD_LENGTH);
    p->seen |= HSRV_SEEN_LENGTH;
    p->content_length = n;
    return 1;
}

// A coding that is not plainly "chunked": with its parameters well-formed, RFC 9112 section 7. Chunked has none.
static bool hsrv_parser_coding_valid(httpsrv_str coding) {
    httpsrv_str part;
    hsrv_text_next_part(&coding, &part, ';');
    if (!hsrv_text_is_token(part) || hsrv_text_equal_nocase(part, HSRV_LITERAL("chunked"))) return false;
    while (hsrv_text_next_part(&coding, &part, ';')) {
        if (!hsrv_text_is_parameter(part)) return false;
    }
    return true;
}

// Fields of the same name form one list; what it amounts to is judged at the end of the head.
static int hsrv_parser_on_coding(httpsrv_parser *p, httpsrv_str value) {
    httpsrv_str coding;
    p->seen |= HSRV_SEEN_CODING;
    while (hsrv_text_next_element(&value, &coding)) {
        if (coding.len == 0) continue;
        if (p->seen & HSRV_SEEN_CHUNKED) p->seen |= HSRV_SEEN_BAD_CODING;
        if (hsrv_text_equal_nocase(coding, HSRV_LITERAL("chunked"))) {
            p->seen |= HSRV_SEEN_CHUNKED;
            continue;
        }
        p->seen |= HSRV_SEEN_OTHER_CODING;
        if (!hsrv_parser_coding_valid(coding)) p->seen |= HSRV_SEEN_BAD_CODING;
    }
    return 1;
}

// The three options that mean something here; 0 for any other.
static uint32_t hsrv_parser_connection_option(httpsrv_str option) {
    if (hsrv_text_name_is(option, "keep-alive", 10)) return HSRV_SEEN_KEEP_ALIVE;
    if (hsrv_text_name_is(option, "close", 5)) return HSRV_SEEN_CLOSE;
    if (hsrv_text_name_is(option, "upgrade", 7)) return HSRV_SEEN_TO_UPGRADE;
    return 0;
}

// Mostly there is just one, which needs no list.
static int hsrv_parser_on_connection(httpsrv_parser *p, httpsrv_str value) {
    httpsrv_str option;
    const uint32_t alone = hsrv_parser_connection_option(value);
    p->seen |= alone;
    while (alone == 0 && hsrv_text_next_element(&value, &option)) {
        if (option.len == 0) continue;
        if (!hsrv_text_is_token(option)) return hsrv_parser_fail(p, HTTPSRV_LOG_BAD_FIELD);
        p->seen |= hsrv_parser_connection_option(option);
    }
    return 1;
}

static int hsrv_parser_on_expect(httpsrv_parser *p, httpsrv_str value) {
    httpsrv_str expectation;
    while (hsrv_text_next_element(&value, &expectation)) {
        if (expectation.len == 0) continue;
        const bool known = hsrv_text_equal_nocase(expectation, HSRV_LITERAL("100-continue"));
        p->seen |= known ? HSRV_SEEN_CONTINUE : HSRV_SEEN_EXPECT_OTHER;
    }
    return 1;
}

// Whether a name may be one that the protocol depends on: no two of these have the same length.
static inline bool hsrv_parser_maybe_known(httpsrv_str name) {
    static const char first_letters[] = "....h.eu..c.c.c..t.............."; // by length
    return first_letters[name.len & 31] == (name.ptr[0] | 0x20);
}

static HSRV_APART int hsrv_parser_known_field(httpsrv_parser *p, const char *buf, httpsrv_str name, httpsrv_str value) {
#define HSRV_IS(literal) hsrv_text_name_is(name, literal, sizeof(literal) - 1)
    switch (name.len) {
    case 4: return HSRV_IS("host") ? hsrv_parser_on_host(p, buf, value) : 1;
    case 6: return HSRV_IS("expect") ? hsrv_parser_on_expect(p, value) : 1;
    case 7:
        if (HSRV_IS("upgrade")) p->seen |= HSRV_SEEN_UPGRADE;
        return 1;
    case 10: return HSRV_IS("connection") ? hsrv_parser_on_connection(p, value) : 1;
    case 12:
        if ((p->seen & HSRV_SEEN_TYPE) || !HSRV_IS("content-type")) return 1;
        p->seen |= HSRV_SEEN_TYPE;
        p->type_field = p->num_fields;
        return 1;
    case 14: return HSRV_IS("content-length") ? hsrv_parser_on_length(p, value) : 1;
    case 17: return HSRV_IS("transfer-encoding") ? hsrv_parser_on_coding(p, value) : 1;
    default: return 1;
    }
}

// Fields that must not come behind the body: framing, routing, authentication, content's nature and request modifiers
// (RFC 9110 section 6.5.1). Whoever sends one hopes that somebody merges it into the head.
static bool hsrv_parser_trailer_allowed(httpsrv_str name) {
    static const char *const forbidden[] = {"content-length",
                                            "transfer-encoding",
                                            "host",
                                            "connection",
                                            "trailer",
                                            "te",
                                            "upgrade",
                                            "expect",
                                            "content-type",
                                            "content-encoding",
                                            "content-range",
                                            "authorization",
                                            "cookie",
                                            "set-cookie",
                                            "cache-control",
                                            "max-forwards",
                                            "range",
                                            "keep-alive",
                                            "if-match",
                                            "if-none-match",
                                            "if-range",
                                            "if-modified-since",
                                            "if-unmodified-since",
                                            "proxy-authorization"};
    for (size_t i = 0; i < sizeof forbidden / sizeof forbidden[0]; i++) {
        if (hsrv_text_equal_nocase(name, hsrv_text_of(forbidden[i]))) return false;
    }
    return true;
}

static int hsrv_parser_trailer_field(httpsrv_parser *p, httpsrv_str name) {
    return hsrv_parser_trailer_allowed(name) ? 1 : hsrv_parser_fail(p, HTTPSRV_LOG_BAD_TRAILER);
}

// ---- fields ----

static int hsrv_parser_name(httpsrv_parser *p, const char *buf, size_t len) {
    const size_t i = (size_t)(hsrv_text_token_end(buf, buf + p->pos, buf + len) - buf);
    p->pos = (uint32_t)i;
    if (i == len) return 0;
    if (buf[i] == '\r' && i == p->mark) {
        p->pos++;
        p->state = HSRV_HEAD_END_LF;
        return 1;
    }
    if (buf[i] != ':' || i == p->mark) return hsrv_parser_fail(p, HTTPSRV_LOG_BAD_FIELD);
    if (p->num_fields == p->room) return hsrv_parser_fail(p, HTTPSRV_LOG_HEAD_TOO_LARGE);
    p->name_at = p->mark;
    p->name_len = (uint32_t)i - p->mark;
    p->pos++;
    p->state = HSRV_HEAD_SPACE;
    return 1;
}

static int hsrv_parser_space(httpsrv_parser *p, const char *buf, size_t len) {
    while (p->pos < len && (buf[p->pos] == ' ' || buf[p->pos] == '\t')) {
        p->pos++;
    }
    if (p->pos == len) return 0;
    p->mark = p->pos;
    p->state = HSRV_HEAD_VALUE;
    return 1;
}

static int hsrv_parser_value(httpsrv_parser *p, const char *buf, size_t len) {
    p->pos = (uint32_t)(hsrv_text_value_end(buf, buf + p->pos, buf + len) - buf);
    if (p->pos == len) return 0;
    if (buf[p->pos] != '\r') return hsrv_parser_fail(p, HTTPSRV_LOG_BAD_FIELD);
    p->pos++;
    p->state = HSRV_HEAD_VALUE_LF;
    return 1;
}

static int hsrv_parser_value_lf(httpsrv_parser *p, const char *buf, size_t len, httpsrv_head *out) {
    if (p->pos == len) return 0;
    if (buf[p->pos] != '\n') return hsrv_parser_fail(p, HTTPSRV_LOG_BAD_FIELD);
    size_t end = p->pos - 1;
    while (end > p->mark && (buf[end - 1] == ' ' || buf[end - 1] == '\t')) {
        end--;
    }
    httpsrv_field *field = &out->fields[p->num_fields];
    field->name = hsrv_text_view(buf + p->name_at, p->name_len);
    field->value = hsrv_text_view(buf + p->mark, end - p->mark);
    const int ok = p->phase == HTTPSRV_PHASE_TRAILERS ? hsrv_parser_trailer_field(p, field->name)
                                                      : hsrv_parser_known_field(p, buf, field->name, field->value);
    p->num_fields++;
    p->pos++;
    p->mark = p->pos;
    p->state = HSRV_HEAD_NAME;
    return ok;
}

static int hsrv_parser_end_lf(httpsrv_parser *p, const char *buf, size_t len) {
    if (p->pos == len) return 0;
    if (buf[p->pos] != '\n') return hsrv_parser_fail(p, HTTPSRV_LOG_BAD_FIELD);
    p->pos++;
    return 1;
}

// Where the line breaks off that the quick way has begun: the states go on from there.
static void hsrv_parser_stop_in(httpsrv_parser *p, int state, const char *buf, const char *mark, const char *pos) {
    p->state = state;
    p->mark = (uint32_t)(mark - buf);
    p->pos = (uint32_t)(pos - buf);
}

// One line the quick way. Returns its end, or NULL where it stopped. The end is searched from the begin of the line, not
// from the colon: a name consists of what a value may consist of, and so the two searches do not wait for each other.
static inline const char *hsrv_parser_quick_line(httpsrv_parser *p, const char *buf, const char *line, const char *end,
                                                 httpsrv_field *field) {
    const char *colon = hsrv_text_token_end(buf, line, end), *cr = hsrv_text_value_end(buf, line, end);
    if (colon == end || *colon != ':' || colon == line) {
        hsrv_parser_stop_in(p, HSRV_HEAD_NAME, buf, line, colon);
        return NULL;
    }
    const char *value = colon + 1, *last = cr;
    while (value < cr && (*value == ' ' || *value == '\t')) {
        value++;
    }
    if (end - cr < 2 || cr[0] != '\r' || cr[1] != '\n') {
        p->name_at = (uint32_t)(line - buf);
        p->name_len = (uint32_t)(colon - line);
        hsrv_parser_stop_in(p, value == end ? HSRV_HEAD_SPACE : HSRV_HEAD_VALUE, buf, value, cr);
        return NULL;
    }
    while (last > value && (unsigned char)last[-1] <= ' ') { // of a value's characters that is a blank or a tab
        last--;
    }
    field->name = hsrv_text_view(line, (size_t)(colon - line));
    field->value = hsrv_text_view(value, (size_t)(last - value));
    return cr + 2;
}

// Where a line breaks off: 1 if it is the empty one.
static inline int hsrv_parser_quick_end(httpsrv_parser *p, const char *line, const char *end) {
    if (end - line < 2 || line[0] != '\r' || line[1] != '\n') return 0;
    p->pos += 2;
    return 1;
}

// The quick way through the lines of a head: as long as whole lines are there, all that is kept between them is where
// the next one begins. What is not a whole, good line is left to the states, from the byte where it stopped: so no byte is
// looked at twice here either. 1: that was all of them. 0: the states have to go on. < 0: refused.
static int hsrv_parser_quick_lines(httpsrv_parser *p, const char *buf, const char *end, httpsrv_head *out) {
    const char *line = buf + p->mark;
    for (uint32_t i = p->num_fields; i < p->room; i++) {
        httpsrv_field *field = &out->fields[i];
        const char *next = hsrv_parser_quick_line(p, buf, line, end, field);
        if (!next) return hsrv_parser_quick_end(p, line, end);
        if (hsrv_parser_maybe_known(field->name)) {
            const int step = hsrv_parser_known_field(p, buf, field->name, field->value);
            if (step < 0) return step;
        }
        p->num_fields++;
        line = next;
    }
    hsrv_parser_stop_in(p, HSRV_HEAD_NAME, buf, line, line);
    return 0;
}

// Lines of fields up to the empty one.
static int hsrv_parser_fields(httpsrv_parser *p, const char *buf, size_t len, httpsrv_head *out) {
    for (;;) {
        int step = 0;
        const bool at_line = p->state == HSRV_HEAD_NAME && p->pos == p->mark;
        const bool quick = HSRV_SHORTCUTS && at_line && p->phase == HTTPSRV_PHASE_HEAD;
        if (quick) step = hsrv_parser_quick_lines(p, buf, buf + len, out);
        if (step != 0) return step;
        switch (p->state) {
        case HSRV_HEAD_NAME:
            step = hsrv_parser_name(p, buf, len);
            if (step <= 0) return step;
            if (p->state == HSRV_HEAD_END_LF) continue;
            HSRV_FALLTHROUGH;
        case HSRV_HEAD_SPACE:
            step = hsrv_parser_space(p, buf, len);
            if (step <= 0) return step;
            HSRV_FALLTHROUGH;
        case HSRV_HEAD_VALUE:
            step = hsrv_parser_value(p, buf, len);
            if (step <= 0) return step;
            HSRV_FALLTHROUGH;
        case HSRV_HEAD_VALUE_LF:
            step = hsrv_parser_value_lf(p, buf, len, out);
            if (step <= 0) return step;
            break;
        default: return hsrv_parser_end_lf(p, buf, len);
        }
    }
}

// The quick way through a request line: GET, a path and perhaps a query, HTTP/1.1, all there. Whatever is not like that
// is left to the states, from the byte where it stopped.
static void hsrv_parser_quick_first_line(httpsrv_parser *p, const char *buf, const char *end, httpsrv_head *out) {
    static const char version[] = " HTTP/1.1\r\n";
    const ptrdiff_t version_len = sizeof version - 1;
    const char *line = buf + p->mark, *target = line + 4, *query = NULL;
    if (end - line < 5 || memcmp(line, "GET /", 5) != 0 || p->max_uri < 3) return; // the limit is the method's as well
    const char *stop = hsrv_text_path_end(buf, target, end);
    if (stop < end && *stop == '?') {
        query = stop + 1;
        stop = hsrv_text_path_end(buf, query, end);
    }
    p->method_at = p->mark;
    p->method_len = 3;
    p->target_at = (uint32_t)(target - buf);
    p->target_len = (uint32_t)(stop - target);
    p->query_at = query ? (uint32_t)(query - buf) : 0;
    if (end - stop < version_len || memcmp(stop, version, (size_t)version_len) != 0 || p->target_len > p->max_uri) {
        hsrv_parser_stop_in(p, HSRV_HEAD_TARGET, buf, target, stop);
        return;
    }
    p->version_minor = 1;
    out->form = HTTPSRV_FORM_ORIGIN;
    out->method = hsrv_text_view(line, 3);
    out->method_id = HTTPSRV_METHOD_GET;
    out->target = hsrv_text_view(target, p->target_len);
    out->path = hsrv_text_view(target, query ? (size_t)(query - 1 - target) : p->target_len);
    out->query = query ? hsrv_text_view(query, (size_t)(stop - query)) : hsrv_text_absent();
    out->authority = hsrv_text_absent();
    hsrv_parser_stop_in(p, HSRV_HEAD_NAME, buf, stop + version_len, stop + version_len);
}

static int hsrv_parser_first_line(httpsrv_parser *p, const char *buf, size_t len, httpsrv_head *out) {
    int step = 1;
    switch (p->state) {
    case HSRV_HEAD_START_LF:
        step = hsrv_parser_start_lf(p, buf, len);
        if (step <= 0) return step;
        break;
    case HSRV_HEAD_START:
        step = hsrv_parser_start(p, buf, len);
        if (step <= 0) return step;
        break;
    default: break;
    }
    const bool quick = HSRV_SHORTCUTS && p->state == HSRV_HEAD_METHOD && p->pos == p->mark;
    if (quick) hsrv_parser_quick_first_line(p, buf, buf + len, out);
    if (p->state == HSRV_HEAD_METHOD) step = hsrv_parser_method(p, buf, len);
    if (step > 0 && p->state == HSRV_HEAD_TARGET) step = hsrv_parser_target(p, buf, len);
    if (step > 0 && p->state == HSRV_HEAD_VERSION) step = hsrv_parser_version(p, buf, len, out);
    return step;
}

// ---- the whole head ----

// Before the caller moves the bytes, turns the views of fields into offsets (kept in the pointers); afterwards turns
// them back. Each field goes through this at most once, and not at all if the head comes in one piece.
static void hsrv_parser_park(httpsrv_parser *p, const char *buf, httpsrv_head *out) {
    for (; p->parked < p->num_fields; p->parked++) {
        httpsrv_field *field = &out->fields[p->parked];
        field->name.ptr = (const char *)(uintptr_t)(field->name.ptr - buf);
        field->value.ptr = (const char *)(uintptr_t)(field->value.ptr - buf);
    }
}

static void hsrv_parser_unpark(httpsrv_parser *p, const char *buf, httpsrv_head *out) {
    for (uint32_t i = 0; i < p->parked; i++) {
        httpsrv_field *field = &out->fields[i];
        field->name.ptr = buf + (uintptr_t)field->name.ptr;
        field->value.ptr = buf + (uintptr_t)field->value.ptr;
    }
    p->parked = 0;
}

// Out of bytes: is that for good? max is the size that the part parsed here may have.
static ptrdiff_t hsrv_parser_more(httpsrv_parser *p, const char *buf, size_t len, size_t max, httpsrv_head *out) {
    if (len < max) {
        hsrv_parser_park(p, buf, out);
        p->resumed = true;
        return 0;
    }
    const bool in_request_line = p->phase == HTTPSRV_PHASE_HEAD && p->state < HSRV_HEAD_VERSION;
    return hsrv_parser_fail(p, in_request_line ? HTTPSRV_LOG_URI_TOO_LONG : HTTPSRV_LOG_HEAD_TOO_LARGE);
}

// RFC 9112 section 6.3. Whatever two readers could understand differently is refused.
static int hsrv_parser_framing(httpsrv_parser *p) {
    if (!(p->seen & HSRV_SEEN_CODING)) {
        const bool too_large = p->max_body >= 0 && p->content_length > p->max_body;
        return too_large ? hsrv_parser_fail(p, HTTPSRV_LOG_BODY_TOO_LARGE) : 1;
    }
    if (p->seen & HSRV_SEEN_LENGTH) return hsrv_parser_fail(p, HTTPSRV_LOG_BAD_LENGTH);
    if (p->version_minor == 0 || (p->seen & HSRV_SEEN_BAD_CODING) || !(p->seen & HSRV_SEEN_CHUNKED)) {
        return hsrv_parser_fail(p, HTTPSRV_LOG_BAD_CODING);
    }
    if (p->seen & HSRV_SEEN_OTHER_CODING) return hsrv_parser_fail(p, HTTPSRV_LOG_UNKNOWN_CODING);
    return 1;
}

static void hsrv_parser_body_start(httpsrv_parser *p) {
    p->left = 0;
    p->count = 0;
    if (p->seen & HSRV_SEEN_CHUNKED) {
        p->phase = HTTPSRV_PHASE_BODY;
        p->state = HSRV_BODY_SIZE;
        p->digits = 0;
    } else if (p->content_length > 0) {
        p->phase = HTTPSRV_PHASE_BODY;
        p->state = HSRV_BODY_LENGTH;
        p->left = p->content_length;
    } else {
        p->phase = HTTPSRV_PHASE_DONE;
    }
}

static void hsrv_parser_describe(const httpsrv_parser *p, httpsrv_head *out) {
    const uint32_t seen = p->seen;
    const bool is_1_0 = p->version_minor == 0;
    out->num_fields = (int)p->num_fields;
    out->version_minor = p->version_minor;
    out->host = (seen & HSRV_SEEN_HOST) ? out->fields[p->host_field].value : hsrv_text_absent();
    out->content_type = (seen & HSRV_SEEN_TYPE) ? out->fields[p->type_field].value : hsrv_text_absent();
    if (!out->authority.ptr) out->authority = out->host;
    out->content_length = p->content_length;
    out->chunked = (seen & HSRV_SEEN_CHUNKED) != 0;
    out->keep_alive = !(seen & HSRV_SEEN_CLOSE) && (!is_1_0 || (seen & HSRV_SEEN_KEEP_ALIVE));
    out->expect_continue = (seen & HSRV_SEEN_CONTINUE) && !is_1_0;
    out->expect_other = (seen & HSRV_SEEN_EXPECT_OTHER) && !is_1_0;
    out->upgrade = (seen & HSRV_SEEN_UPGRADE) && (seen & HSRV_SEEN_TO_UPGRADE) && !is_1_0;
}

static ptrdiff_t hsrv_parser_head(httpsrv_parser *p, const char *buf, size_t len, httpsrv_head *out) {
    if (p->phase == HTTPSRV_PHASE_ERROR) return hsrv_parser_error(p);
    const size_t in_reach = len < p->max_head ? len : p->max_head;
    int step = 1;
    p->room = p->max_fields < (uint32_t)out->max_fields ? p->max_fields : (uint32_t)out->max_fields;
    if (p->state < HSRV_HEAD_NAME) step = hsrv_parser_first_line(p, buf, in_reach, out);
    if (step > 0) step = hsrv_parser_fields(p, buf, in_reach, out);
    if (step == 0) return hsrv_parser_more(p, buf, len, p->max_head, out);
    if (step > 0 && p->version_minor > 0 && !(p->seen & HSRV_SEEN_HOST))
        step = hsrv_parser_fail(p, HTTPSRV_LOG_BAD_HOST);
    if (step > 0) step = hsrv_parser_framing(p);
    if (step < 0) return step;
    if (p->resumed) hsrv_parser_form(p, buf, out);
    hsrv_parser_unpark(p, buf, out);
    hsrv_parser_describe(p, out);
    hsrv_parser_body_start(p);
    return (ptrdiff_t)p->pos;
}

// ---- body ----

// The longest run of data within [0, len); a chunk's data may come in several pieces.
static size_t hsrv_parser_data(httpsrv_parser *p, const char *buf, size_t len, httpsrv_str *piece) {
    const size_t n = (uint64_t)p->left < len ? (size_t)p->left : len;
    *piece = hsrv_text_view(buf, n);
    p->left -= (int64_t)n;
    p->total += (int64_t)n;
    return n;
}

static int hsrv_parser_size_digit(httpsrv_parser *p, char c) {
    if (p->digits++ == 16 || p->left > (INT64_MAX >> 4)) return hsrv_parser_fail(p, HTTPSRV_LOG_BAD_CHUNK);
    p->left = p->left * 16 + hsrv_text_hex(c);
    return HSRV_BODY_SIZE;
}

// Which state follows a byte of a chunk-size line: RFC 9112 section 7.1.1. -1 if it does not belong there.
static int hsrv_parser_size_next(int state, char c) {
    const bool blank = c == ' ' || c == '\t', token = hsrv_text_is(c, HSRV_TOKEN);
    const int at_end = c == ';' ? HSRV_BODY_BEFORE_NAME : c == '\r' ? HSRV_BODY_SIZE_LF : -1;
    switch (state) {
    case HSRV_BODY_SIZE:
    case HSRV_BODY_AFTER_QUOTED: return blank ? (int)HSRV_BODY_BEFORE_SEMICOLON : at_end;
    case HSRV_BODY_BEFORE_SEMICOLON: return blank ? state : c == ';' ? (int)HSRV_BODY_BEFORE_NAME : -1;
    case HSRV_BODY_BEFORE_NAME: return blank ? state : token ? (int)HSRV_BODY_NAME : -1;
    case HSRV_BODY_NAME:
        if (c == '=') return HSRV_BODY_BEFORE_VALUE;
        return token ? state : blank ? (int)HSRV_BODY_AFTER_NAME : at_end;
    case HSRV_BODY_AFTER_NAME:
        if (c == '=') return HSRV_BODY_BEFORE_VALUE;
        return blank ? state : c == ';' ? (int)HSRV_BODY_BEFORE_NAME : -1;
    case HSRV_BODY_BEFORE_VALUE:
        if (c == '"') return HSRV_BODY_QUOTED;
        return blank ? state : token ? (int)HSRV_BODY_VALUE : -1;
    case HSRV_BODY_VALUE: return token ? state : blank ? (int)HSRV_BODY_BEFORE_SEMICOLON : at_end;
    case HSRV_BODY_QUOTED:
        if (c == '"') return HSRV_BODY_AFTER_QUOTED;
        return c == '\\' ? (int)HSRV_BODY_ESCAPED : hsrv_text_is(c, HSRV_VALUE) ? state : -1;
    case HSRV_BODY_ESCAPED: return hsrv_text_is(c, HSRV_VALUE) ? (int)HSRV_BODY_QUOTED : -1;
    default: return -1;
    }
}

// The LF behind a chunk size: now the size is known.
static int hsrv_parser_size_end(httpsrv_parser *p, char c) {
    if (c != '\n') return hsrv_parser_fail(p, HTTPSRV_LOG_BAD_CHUNK);
    if (p->max_body >= 0 && p->left > p->max_body - p->total) return hsrv_parser_fail(p, HTTPSRV_LOG_BODY_TOO_LARGE);
    if (p->left > INT64_MAX - p->total) return hsrv_parser_fail(p, HTTPSRV_LOG_BAD_CHUNK);
    p->state = HSRV_BODY_DATA;
    if (p->left > 0) return 1;
    p->phase = HTTPSRV_PHASE_TRAILERS;
    p->state = HSRV_HEAD_NAME;
    p->pos = p->mark = 0;
    p->num_fields = p->parked = 0;
    return 1;
}

// One byte between the data of two chunks.
static int hsrv_parser_between(httpsrv_parser *p, char c) {
    switch (p->state) {
    case HSRV_BODY_DATA_CR:
        p->state = HSRV_BODY_DATA_LF;
        return c == '\r' ? 1 : hsrv_parser_fail(p, HTTPSRV_LOG_BAD_CHUNK);
    case HSRV_BODY_DATA_LF:
        p->state = HSRV_BODY_SIZE;
        p->digits = 0;
        return c == '\n' ? 1 : hsrv_parser_fail(p, HTTPSRV_LOG_BAD_CHUNK);
    case HSRV_BODY_SIZE_LF: return hsrv_parser_size_end(p, c);
    default: break;
    }
    if (p->state == HSRV_BODY_SIZE && hsrv_text_is(c, HSRV_HEXDIG)) return hsrv_parser_size_digit(p, c);
    if (p->state == HSRV_BODY_SIZE && p->digits == 0) return hsrv_parser_fail(p, HTTPSRV_LOG_BAD_CHUNK);
    p->state = hsrv_parser_size_next(p->state, c);
    const bool extension = p->state >= 0 && p->state != HSRV_BODY_SIZE_LF;
    if (p->state < 0 || (extension && p->count++ == HSRV_MAX_EXTENSIONS)) {
        return hsrv_parser_fail(p, HTTPSRV_LOG_BAD_CHUNK);
    }
    return 1;
}

static ptrdiff_t hsrv_parser_chunked(httpsrv_parser *p, const char *buf, size_t len, httpsrv_str *piece) {
    size_t i = 0;
    while (i < len && p->state != HSRV_BODY_DATA && p->phase == HTTPSRV_PHASE_BODY) {
        const int step = hsrv_parser_between(p, buf[i++]);
        if (step < 0) return step;
    }
    if (p->state == HSRV_BODY_DATA && i < len) {
        i += hsrv_parser_data(p, buf + i, len - i, piece);
        if (p->left == 0) p->state = HSRV_BODY_DATA_CR;
    }
    return (ptrdiff_t)i;
}

static ptrdiff_t hsrv_parser_body(httpsrv_parser *p, const char *buf, size_t len, httpsrv_str *piece) {
    *piece = hsrv_text_view(buf, 0);
    if (p->phase == HTTPSRV_PHASE_ERROR) return hsrv_parser_error(p);
    if (p->phase != HTTPSRV_PHASE_BODY) return 0;
    if (p->state != HSRV_BODY_LENGTH) return hsrv_parser_chunked(p, buf, len, piece);
    const size_t n = hsrv_parser_data(p, buf, len, piece);
    if (p->left == 0) p->phase = HTTPSRV_PHASE_DONE;
    return (ptrdiff_t)n;
}

static ptrdiff_t hsrv_parser_trailers(httpsrv_parser *p, const char *buf, size_t len, httpsrv_head *out) {
    if (p->phase == HTTPSRV_PHASE_ERROR) return hsrv_parser_error(p);
    if (p->phase != HTTPSRV_PHASE_TRAILERS) return 0;
    const size_t in_reach = len < HSRV_MAX_TRAILERS ? len : HSRV_MAX_TRAILERS;
    p->room = (uint32_t)out->max_fields;
    const int step = hsrv_parser_fields(p, buf, in_reach, out);
    if (step == 0) return hsrv_parser_more(p, buf, len, HSRV_MAX_TRAILERS, out);
    if (step < 0) return step;
    hsrv_parser_unpark(p, buf, out);
    out->num_fields = (int)p->num_fields;
    p->phase = HTTPSRV_PHASE_DONE;
    return (ptrdiff_t)p->pos;
}

// ===========================================================================================
// >>frames    Forms, multipart bodies, events: what messages are made of.    owns: nothing    thread: pure
//             uses: >>text
// ===========================================================================================

// ---- parameters: RFC 9110 section 5.6.6 ----

typedef struct hsrv_param {
    httpsrv_str name;
    httpsrv_str value; // within the quotes, if there are any, and with its backslashes
    bool quoted;
} hsrv_param;

// The length of a quoted-string at the start of `s`, quotes included; 0 if it is none.
static size_t hsrv_frames_quoted_len(httpsrv_str s) {
    if (s.len < 2 || s.ptr[0] != '"') return 0;
    for (size_t i = 1; i < s.len; i++) {
        if (s.ptr[i] == '"') return i + 1;
        if (s.ptr[i] == '\\' && i + 1 < s.len) i++;
        if (!hsrv_text_is(s.ptr[i], HSRV_VALUE)) return 0;
    }
    return 0;
}

static void hsrv_frames_skip(httpsrv_str *s, size_t n) {
    s->ptr += n;
    s->len -= n;
}

static size_t hsrv_frames_token_len(httpsrv_str s) {
    size_t n = 0;
    while (n < s.len && hsrv_text_is(s.ptr[n], HSRV_TOKEN)) {
        n++;
    }
    return n;
}

static void hsrv_frames_skip_space(httpsrv_str *s) {
    while (s->len > 0 && (s->ptr[0] == ' ' || s->ptr[0] == '\t')) {
        hsrv_frames_skip(s, 1);
    }
}

// Takes semicolons and the white space around them off. False if something else comes first.
static bool hsrv_frames_skip_semicolons(httpsrv_str *rest) {
    bool any = false;
    hsrv_frames_skip_space(rest);
    while (rest->len > 0 && rest->ptr[0] == ';') {
        any = true;
        hsrv_frames_skip(rest, 1);
        hsrv_frames_skip_space(rest);
    }
    return any || rest->len == 0;
}

// Takes the next parameter off the text behind a value. OK, GONE (there is none left), SYNTAX.
static httpsrv_result hsrv_frames_next_param(httpsrv_str *rest, hsrv_param *param) {
    if (!hsrv_frames_skip_semicolons(rest)) return HTTPSRV_SYNTAX;
    if (rest->len == 0) return HTTPSRV_GONE;
    const size_t name_len = hsrv_frames_token_len(*rest);
    param->name = hsrv_text_view(rest->ptr, name_len);
    hsrv_frames_skip(rest, name_len);
    if (name_len == 0 || rest->len == 0 || rest->ptr[0] != '=') return HTTPSRV_SYNTAX;
    hsrv_frames_skip(rest, 1);
    const size_t quoted_len = hsrv_frames_quoted_len(*rest), token_len = hsrv_frames_token_len(*rest);
    param->quoted = quoted_len > 0;
    if (!param->quoted && token_len == 0) return HTTPSRV_SYNTAX;
    const size_t len = param->quoted ? quoted_len : token_len;
    param->value = param->quoted ? hsrv_text_view(rest->ptr + 1, len - 2) : hsrv_text_view(rest->ptr, len);
    hsrv_frames_skip(rest, len);
    return HTTPSRV_OK;
}

// The value as it is meant, into `out`, which may be where it lies. A backslash quotes quotes and backslashes; before
// anything else it stays, because browsers write file names without quoting it.
static size_t hsrv_frames_unquote(char *out, const hsrv_param *param) {
    const httpsrv_str s = param->value;
    size_t n = 0;
    for (size_t i = 0; i < s.len; i++) {
        const bool pair = param->quoted && s.ptr[i] == '\\' && i + 1 < s.len;
        if (pair && (s.ptr[i + 1] == '"' || s.ptr[i + 1] == '\\')) i++;
        out[n++] = s.ptr[i];
    }
    return n;
}

// Takes what is in front of the first semicolon off, without the white space around it.
static httpsrv_str hsrv_frames_take_value(httpsrv_str *rest) {
    const char *semicolon = (const char *)memchr(rest->ptr, ';', rest->len);
    const size_t len = semicolon ? (size_t)(semicolon - rest->ptr) : rest->len;
    const httpsrv_str value = hsrv_text_trim(hsrv_text_view(rest->ptr, len));
    hsrv_frames_skip(rest, len);
    return value;
}

// ---- urlencoded: https://url.spec.whatwg.org/#urlencoded-parsing ----

static bool hsrv_frames_next_pair(httpsrv_str *text, httpsrv_field *pair) {
    while (text->len > 0 && text->ptr[0] == '&') {
        hsrv_frames_skip(text, 1);
    }
    if (text->len == 0) return false;
    const char *amp = (const char *)memchr(text->ptr, '&', text->len);
    const size_t len = amp ? (size_t)(amp - text->ptr) : text->len;
    const char *equals = (const char *)memchr(text->ptr, '=', len);
    const size_t name_len = equals ? (size_t)(equals - text->ptr) : len;
    const size_t value_at = equals ? name_len + 1 : len;
    pair->name = hsrv_text_view(text->ptr, name_len);
    pair->value = hsrv_text_view(text->ptr + value_at, len - value_at);
    hsrv_frames_skip(text, len);
    return true;
}

// Bytes, or SYNTAX for an escape that is none.
static ptrdiff_t hsrv_frames_decode(char *out, httpsrv_str text, bool plus) {
    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] != '%') continue;
        if (text.len - i < 3 || !hsrv_text_is(text.ptr[i + 1], HSRV_HEXDIG)) return HTTPSRV_SYNTAX;
        if (!hsrv_text_is(text.ptr[i + 2], HSRV_HEXDIG)) return HTTPSRV_SYNTAX;
    }
    return (ptrdiff_t)hsrv_text_decode(out, text, plus);
}

// ---- multipart/form-data: RFC 7578, RFC 2046 section 5.1 ----

//               delimiter                CR LF               empty line
//   PREAMBLE -------------> BEHIND -----------------> HEAD -------------> DATA
//                            | ^                                           |
//                            | \-------------------------------------------/ delimiter
//                            | "--"
//                            \-------> CLOSING -> CLOSED -> EPILOGUE
typedef enum hsrv_multipart_state {
    HSRV_MULTIPART_PREAMBLE,
    HSRV_MULTIPART_BEHIND,      // the delimiter
    HSRV_MULTIPART_PADDING,     // white space behind it
    HSRV_MULTIPART_LINE_END,    // its LF is missing
    HSRV_MULTIPART_HEAD,        // fields of a part
    HSRV_MULTIPART_DATA,        // content of a part
    HSRV_MULTIPART_CLOSING,     // the second hyphen of the last delimiter is missing
    HSRV_MULTIPART_CLOSED,      // behind it
    HSRV_MULTIPART_CLOSED_LINE, // its LF is missing
    HSRV_MULTIPART_EPILOGUE
} hsrv_multipart_state;

// A line end is as good as seen before the first byte of a message, and before that of a part's content: the delimiter can
// begin with the line end that is there already.
#define HSRV_MULTIPART_SEEN 2u

static httpsrv_result hsrv_frames_fail(httpsrv_multipart *m, httpsrv_result result) {
    m->result = result;
    return result;
}

// bchars of RFC 2046 section 5.1.1.
static bool hsrv_frames_is_boundary(httpsrv_str s) {
    if (s.len < 1 || s.len > 70 || s.ptr[s.len - 1] == ' ') return false;
    for (size_t i = 0; i < s.len; i++) {
        const char c = s.ptr[i];
        const bool alnum = (c >= '0' && c <= '9') || (hsrv_text_lower(c) >= 'a' && hsrv_text_lower(c) <= 'z');
        if (!alnum && (c == '\0' || !strchr("'()+_,-./:=? ", c))) return false;
    }
    return true;
}

// Finds the boundary among the parameters of a content type. OK, SYNTAX.
static httpsrv_result hsrv_frames_find_boundary(httpsrv_str params, char boundary[70], size_t *len) {
    hsrv_param param;
    httpsrv_result result;
    *len = 0;
    while ((result = hsrv_frames_next_param(&params, &param)) == HTTPSRV_OK) {
        if (!hsrv_text_equal_nocase(param.name, hsrv_text_of("boundary"))) continue;
        if (*len > 0 || param.value.len > 70) return HTTPSRV_SYNTAX;
        *len = hsrv_frames_unquote(boundary, &param);
        if (!hsrv_frames_is_boundary(hsrv_text_view(boundary, *len))) return HTTPSRV_SYNTAX;
    }
    return result == HTTPSRV_GONE && *len > 0 ? HTTPSRV_OK : HTTPSRV_SYNTAX;
}

// A limit of a configuration: default, none at all, unlimited, or itself.
static int64_t hsrv_frames_limit(int64_t value, int64_t fallback, int64_t most) {
    if (value == 0) return fallback;
    if (value == HTTPSRV_ZERO) return 0;
    return value < 0 || value > most ? most : value;
}

static httpsrv_result hsrv_frames_multipart_init(httpsrv_multipart *m, httpsrv_str content_type,
                                                 const httpsrv_form_config *config) {
    char boundary[70];
    size_t len;
    memset(m, 0, sizeof *m);
    m->matched = HSRV_MULTIPART_SEEN;
    m->seen = true;
    m->max_parts = (int)hsrv_frames_limit(config->parts, 64, INT_MAX);
    m->max_size = hsrv_frames_limit(config->size, INT64_MAX, INT64_MAX);
    m->on_part = config->on_part;
    m->user = config->user;
    m->part.fd = -1;
    if (!content_type.ptr) return hsrv_frames_fail(m, HTTPSRV_UNSUPPORTED);
    const httpsrv_str type = hsrv_frames_take_value(&content_type);
    if (!hsrv_text_equal_nocase(type, hsrv_text_of("multipart/form-data"))) {
        return hsrv_frames_fail(m, HTTPSRV_UNSUPPORTED);
    }
    if (hsrv_frames_find_boundary(content_type, boundary, &len) != HTTPSRV_OK) {
        return hsrv_frames_fail(m, HTTPSRV_SYNTAX);
    }
    memcpy(m->delimiter, "\r\n--", 4);
    memcpy(m->delimiter + 4, boundary, len);
    m->delimiter_len = 4 + len;
    return HTTPSRV_OK;
}

static httpsrv_result hsrv_frames_call(httpsrv_multipart *m, httpsrv_part_step step, httpsrv_str data) {
    return m->on_part ? m->on_part(&m->part, step, data, m->user) : HTTPSRV_OK;
}

// A parameter of Content-Disposition; the texts are decoded where they lie.
static httpsrv_result hsrv_frames_part_param(httpsrv_multipart *m, const hsrv_param *param) {
    const bool is_name = hsrv_text_equal_nocase(param->name, hsrv_text_of("name"));
    if (!is_name && !hsrv_text_equal_nocase(param->name, hsrv_text_of("filename"))) return HTTPSRV_OK;
    httpsrv_str *to = is_name ? &m->part.name : &m->part.filename;
    if (to->ptr) return HTTPSRV_SYNTAX;
    char *at = m->head + (param->value.ptr - m->head);
    *to = hsrv_text_view(at, hsrv_frames_unquote(at, param));
    return HTTPSRV_OK;
}

static httpsrv_result hsrv_frames_disposition(httpsrv_multipart *m, httpsrv_str value) {
    hsrv_param param;
    httpsrv_result result;
    if (m->part.name.ptr) return HTTPSRV_SYNTAX;
    const httpsrv_str disposition = hsrv_frames_take_value(&value);
    if (!hsrv_text_equal_nocase(disposition, hsrv_text_of("form-data"))) return HTTPSRV_SYNTAX;
    while ((result = hsrv_frames_next_param(&value, &param)) == HTTPSRV_OK) {
        result = hsrv_frames_part_param(m, &param);
        if (result != HTTPSRV_OK) return result;
    }
    return result == HTTPSRV_GONE && m->part.name.ptr ? HTTPSRV_OK : HTTPSRV_SYNTAX;
}

// A field of a part: "Name: value".
static httpsrv_result hsrv_frames_part_field(httpsrv_multipart *m, httpsrv_str line) {
    const size_t name_len = hsrv_frames_token_len(line);
    if (name_len == 0 || name_len == line.len || line.ptr[name_len] != ':') return HTTPSRV_SYNTAX;
    const httpsrv_str name = hsrv_text_view(line.ptr, name_len);
    const httpsrv_str value = hsrv_text_trim(hsrv_text_view(line.ptr + name_len + 1, line.len - name_len - 1));
    if (value.len > 0 && !hsrv_text_is_value(value)) return HTTPSRV_SYNTAX;
    if (hsrv_text_equal_nocase(name, hsrv_text_of("content-disposition"))) return hsrv_frames_disposition(m, value);
    if (!hsrv_text_equal_nocase(name, hsrv_text_of("content-type"))) return HTTPSRV_OK;
    if (m->part.type.ptr) return HTTPSRV_SYNTAX;
    m->part.type = value;
    return HTTPSRV_OK;
}

// The head of a part is complete, its line ends are known to be good.
static httpsrv_result hsrv_frames_begin_part(httpsrv_multipart *m) {
    httpsrv_str rest = hsrv_text_view(m->head, m->head_len - 2);
    memset(&m->part, 0, sizeof m->part);
    m->part.fd = -1;
    while (rest.len > 0) {
        const size_t len = (size_t)((const char *)memchr(rest.ptr, '\r', rest.len) - rest.ptr);
        const httpsrv_result result = hsrv_frames_part_field(m, hsrv_text_view(rest.ptr, len));
        if (result != HTTPSRV_OK) return result;
        hsrv_frames_skip(&rest, len + 2);
    }
    if (!m->part.name.ptr) return HTTPSRV_SYNTAX;
    if (m->num_parts == m->max_parts) return HTTPSRV_TOOBIG;
    m->num_parts++;
    m->state = HSRV_MULTIPART_DATA;
    m->matched = HSRV_MULTIPART_SEEN;
    m->seen = true;
    return hsrv_frames_call(m, HTTPSRV_PART_BEGIN, HSRV_LITERAL(""));
}

// A byte of a part's head. It ends with an empty line, which may be all of it.
static httpsrv_result hsrv_frames_head_byte(httpsrv_multipart *m, char c) {
    const char before = m->head_len > 0 ? m->head[m->head_len - 1] : '\0';
    if ((before == '\r') != (c == '\n')) return HTTPSRV_SYNTAX;
    if (m->head_len == sizeof m->head) return HTTPSRV_TOOBIG;
    m->head[m->head_len++] = c;
    const size_t n = m->head_len;
    const bool empty_line = c == '\n' && (n == 2 || (n >= 4 && m->head[n - 3] == '\n'));
    return empty_line ? hsrv_frames_begin_part(m) : HTTPSRV_OK;
}

// Content of the part at hand; before the first one it is nothing.
static httpsrv_result hsrv_frames_data(httpsrv_multipart *m, const char *ptr, size_t len) {
    if (len == 0 || m->state != HSRV_MULTIPART_DATA) return HTTPSRV_OK;
    if ((uint64_t)len > (uint64_t)(m->max_size - m->part.size)) return HTTPSRV_TOOBIG;
    m->part.size += (int64_t)len;
    return hsrv_frames_call(m, HTTPSRV_PART_DATA, hsrv_text_view(ptr, len));
}

static httpsrv_result hsrv_frames_delimited(httpsrv_multipart *m) {
    const bool in_part = m->state == HSRV_MULTIPART_DATA;
    m->state = HSRV_MULTIPART_BEHIND;
    m->matched = 0;
    m->head_len = 0;
    return in_part ? hsrv_frames_call(m, HTTPSRV_PART_END, HSRV_LITERAL("")) : HTTPSRV_OK;
}

// What was taken for the begin of a delimiter, and came in pieces before, is content.
static httpsrv_result hsrv_frames_held(httpsrv_multipart *m) {
    const size_t skip = m->seen ? HSRV_MULTIPART_SEEN : 0;
    const size_t len = m->matched - skip;
    m->matched = 0;
    m->seen = false;
    return hsrv_frames_data(m, m->delimiter + skip, len);
}

// Looks for the delimiter. No byte of it but the first is CR, so that a candidate that fails cannot hide another one, and
// each byte is compared once. Sets *p behind what was used up.
static httpsrv_result hsrv_frames_scan(httpsrv_multipart *m, const char **p, const char *end) {
    const char *run = *p;  // content from here on is not passed on yet
    const char *at = NULL; // where the candidate begins, unless that is before *p
    httpsrv_result result = HTTPSRV_OK;
    while (*p < end && result == HTTPSRV_OK) {
        if (m->matched == 0) {
            at = (const char *)memchr(*p, '\r', (size_t)(end - *p));
            *p = at ? at + 1 : end;
            m->matched = at ? 1 : 0;
            continue;
        }
        if (**p == m->delimiter[m->matched]) {
            (*p)++;
            if (++m->matched < m->delimiter_len) continue;
            m->seen = false;
            result = at ? hsrv_frames_data(m, run, (size_t)(at - run)) : HTTPSRV_OK;
            return result == HTTPSRV_OK ? hsrv_frames_delimited(m) : result;
        }
        if (!at) {
            result = hsrv_frames_held(m);
            run = *p;
        }
        m->matched = 0;
        at = NULL;
    }
    if (result != HTTPSRV_OK || (m->matched > 0 && !at)) return result;
    return hsrv_frames_data(m, run, (size_t)((at ? at : end) - run));
}

// Behind a delimiter: white space, and a line end, or two hyphens, white space and a line end or the end of all.
static httpsrv_result hsrv_frames_delimiter_byte(httpsrv_multipart *m, char c) {
    const bool space = c == ' ' || c == '\t';
    switch ((hsrv_multipart_state)m->state) {
    case HSRV_MULTIPART_BEHIND:
        if (c == '-') m->state = HSRV_MULTIPART_CLOSING;
        if (c == '-') return HTTPSRV_OK;
        HSRV_FALLTHROUGH;
    case HSRV_MULTIPART_PADDING:
        m->state = c == '\r' ? HSRV_MULTIPART_LINE_END : HSRV_MULTIPART_PADDING;
        return c == '\r' || space ? HTTPSRV_OK : HTTPSRV_SYNTAX;
    case HSRV_MULTIPART_LINE_END: m->state = HSRV_MULTIPART_HEAD; return c == '\n' ? HTTPSRV_OK : HTTPSRV_SYNTAX;
    case HSRV_MULTIPART_CLOSING: m->state = HSRV_MULTIPART_CLOSED; return c == '-' ? HTTPSRV_OK : HTTPSRV_SYNTAX;
    case HSRV_MULTIPART_CLOSED:
        if (c == '\r') m->state = HSRV_MULTIPART_CLOSED_LINE;
        return c == '\r' || space ? HTTPSRV_OK : HTTPSRV_SYNTAX;
    default: m->state = HSRV_MULTIPART_EPILOGUE; return c == '\n' ? HTTPSRV_OK : HTTPSRV_SYNTAX;
    }
}

static httpsrv_result hsrv_frames_multipart_feed(httpsrv_multipart *m, httpsrv_str piece) {
    if (piece.len == 0) return m->result;
    const char *p = piece.ptr, *end = piece.ptr + piece.len;
    while (p < end && m->result == HTTPSRV_OK && m->state != HSRV_MULTIPART_EPILOGUE) {
        switch ((hsrv_multipart_state)m->state) {
        case HSRV_MULTIPART_PREAMBLE:
        case HSRV_MULTIPART_DATA: m->result = hsrv_frames_scan(m, &p, end); break;
        case HSRV_MULTIPART_HEAD: m->result = hsrv_frames_head_byte(m, *p++); break;
        default: m->result = hsrv_frames_delimiter_byte(m, *p++); break;
        }
    }
    return m->result;
}

static httpsrv_result hsrv_frames_multipart_end(httpsrv_multipart *m) {
    if (m->result != HTTPSRV_OK) return m->result;
    const bool closed = m->state == HSRV_MULTIPART_CLOSED || m->state == HSRV_MULTIPART_EPILOGUE;
    return closed ? HTTPSRV_OK : hsrv_frames_fail(m, HTTPSRV_SYNTAX);
}

// ---- ranges, lists, preferences: RFC 9110 sections 12.5.3, 13.1, 14.2 ----

typedef struct hsrv_span {
    int64_t first, len;
} hsrv_span;

// Takes the next element off a list that is parted by commas, without the white space around it. False at the end.
static bool hsrv_frames_next_element(httpsrv_str *list, httpsrv_str *element) {
    while (list->len > 0) {
        const char *comma = (const char *)memchr(list->ptr, ',', list->len);
        const size_t len = comma ? (size_t)(comma - list->ptr) : list->len;
        *element = hsrv_text_trim(hsrv_text_view(list->ptr, len));
        hsrv_frames_skip(list, comma ? len + 1 : len);
        if (element->len > 0) return true;
    }
    return false;
}

// A number of bytes; the largest there is for one that is larger still; -1 for what is none.
static int64_t hsrv_frames_position(httpsrv_str s) {
    if (!hsrv_text_all(s, HSRV_DIGIT)) return -1;
    const int64_t n = hsrv_text_parse_number(s);
    return n < 0 ? INT64_MAX : n;
}

// "first-last", "first-" or "-length" of something that has `size` bytes. 1; 0: nothing of it is there; -1: malformed.
static int hsrv_frames_parse_span(httpsrv_str s, int64_t size, hsrv_span *span) {
    const char *dash = (const char *)memchr(s.ptr, '-', s.len);
    if (!dash) return -1;
    const httpsrv_str first = hsrv_text_view(s.ptr, (size_t)(dash - s.ptr));
    const httpsrv_str last = hsrv_text_view(dash + 1, s.len - first.len - 1);
    const int64_t from = hsrv_frames_position(first), to = hsrv_frames_position(last);
    if ((first.len > 0 && from < 0) || (last.len > 0 && to < 0) || (first.len == 0 && last.len == 0)) return -1;
    if (first.len == 0) {
        span->len = to < size ? to : size;
        span->first = size - span->len;
        return span->len > 0;
    }
    if (last.len > 0 && to < from) return -1;
    if (from >= size) return 0;
    span->first = from;
    span->len = (last.len == 0 || to >= size ? size - 1 : to) - from + 1;
    return 1;
}

static bool hsrv_frames_overlap(const hsrv_span *spans, int count, const hsrv_span *span) {
    for (int i = 0; i < count; i++) {
        if (spans[i].first < span->first + span->len && span->first < spans[i].first + spans[i].len) return true;
    }
    return false;
}

// The ranges that a Range field asks for. Their number; 0: to be ignored, as it is malformed, or asks for more than is
// sensible; -1: there is nothing where it asks.
static int hsrv_frames_parse_ranges(httpsrv_str value, int64_t size, hsrv_span spans[HTTPSRV_MAX_RANGES]) {
    httpsrv_str element;
    int count = 0;
    bool any = false;
    if (size == 0 || value.len < 6 || !hsrv_text_equal_nocase(hsrv_text_view(value.ptr, 6), hsrv_text_of("bytes=")))
        return 0;
    hsrv_frames_skip(&value, 6);
    while (hsrv_frames_next_element(&value, &element)) {
        hsrv_span span;
        const int found = hsrv_frames_parse_span(element, size, &span);
        if (found < 0) return 0;
        any = true;
        if (found == 0) continue;
        if (count == HTTPSRV_MAX_RANGES || hsrv_frames_overlap(spans, count, &span)) return 0;
        spans[count++] = span;
    }
    if (!any) return 0;
    return count > 0 ? count : -1;
}

// Takes an entity tag off a list. False at the end, and where there is none.
static bool hsrv_frames_next_tag(httpsrv_str *list, httpsrv_str *tag) {
    while (list->len > 0 && (list->ptr[0] == ' ' || list->ptr[0] == '\t' || list->ptr[0] == ',')) {
        hsrv_frames_skip(list, 1);
    }
    const size_t weak = list->len > 2 && list->ptr[0] == 'W' && list->ptr[1] == '/' ? 2 : 0;
    if (list->len < weak + 2 || list->ptr[weak] != '"') return false;
    const char *end = (const char *)memchr(list->ptr + weak + 1, '"', list->len - weak - 1);
    if (!end) return false;
    const size_t len = (size_t)(end - list->ptr) + 1;
    *tag = hsrv_text_view(list->ptr, len);
    hsrv_frames_skip(list, len);
    return true;
}

// RFC 9110 section 8.8.3.2: weak tags are equal to none in a strong comparison.
static bool hsrv_frames_same_tag(httpsrv_str a, httpsrv_str b, bool weak) {
    if (!weak && (a.ptr[0] == 'W' || b.ptr[0] == 'W')) return false;
    if (a.ptr[0] == 'W') hsrv_frames_skip(&a, 2);
    if (b.ptr[0] == 'W') hsrv_frames_skip(&b, 2);
    return hsrv_text_equal(a, b);
}

// Whether a tag is in a list, or the list is "*".
static bool hsrv_frames_has_tag(httpsrv_str list, httpsrv_str tag, bool weak) {
    httpsrv_str found;
    list = hsrv_text_trim(list);
    if (hsrv_text_equal(list, hsrv_text_of("*"))) return true;
    while (hsrv_frames_next_tag(&list, &found)) {
        if (hsrv_frames_same_tag(found, tag, weak)) return true;
    }
    return false;
}

// A weight in thousandths, RFC 9110 section 12.4.2; 0 for what is none.
static int hsrv_frames_weight(httpsrv_str s) {
    int weight = 0, unit = 1000;
    if (s.len < 1 || s.len > 5 || (s.ptr[0] != '0' && s.ptr[0] != '1')) return 0;
    for (size_t i = 0; i < s.len; i++) {
        if (i == 1 && s.ptr[i] == '.') continue;
        if (i == 1 || !hsrv_text_is(s.ptr[i], HSRV_DIGIT)) return 0;
        weight += (s.ptr[i] - '0') * unit;
        unit /= 10;
    }
    return weight <= 1000 ? weight : 0;
}

// What an Accept-Encoding field says about a coding and about all others: thousandths; what it does not say stays.
static void hsrv_frames_read_weights(httpsrv_str field, httpsrv_str coding, int *own, int *any) {
    httpsrv_str element;
    while (hsrv_frames_next_element(&field, &element)) {
        httpsrv_str rest = element;
        const httpsrv_str name = hsrv_frames_take_value(&rest);
        int weight = 1000;
        hsrv_param param;
        httpsrv_result result;
        while ((result = hsrv_frames_next_param(&rest, &param)) == HTTPSRV_OK) {
            if (hsrv_text_equal_nocase(param.name, hsrv_text_of("q"))) weight = hsrv_frames_weight(param.value);
        }
        if (result == HTTPSRV_SYNTAX) weight = 0;
        const bool alias = hsrv_text_equal_nocase(name, hsrv_text_of("x-gzip")); // RFC 9110 section 8.4.1.3
        if (hsrv_text_equal(name, hsrv_text_of("*"))) *any = weight;
        if (hsrv_text_equal_nocase(alias ? hsrv_text_of("gzip") : name, coding)) *own = weight;
    }
}

// ---- server-sent events: https://html.spec.whatwg.org/multipage/server-sent-events.html ----

// Takes the next line off; what follows the last line end is a line too. False if there is none.
static bool hsrv_frames_next_line(httpsrv_str *rest, httpsrv_str *line) {
    if (!rest->ptr) return false;
    size_t n = 0;
    while (n < rest->len && rest->ptr[n] != '\n' && rest->ptr[n] != '\r') {
        n++;
    }
    *line = hsrv_text_view(rest->ptr, n);
    if (n == rest->len) {
        *rest = hsrv_text_absent();
        return true;
    }
    const bool pair = rest->ptr[n] == '\r' && n + 1 < rest->len && rest->ptr[n + 1] == '\n';
    hsrv_frames_skip(rest, n + (pair ? 2 : 1));
    return true;
}

// One line of text, as names and ids are.
static bool hsrv_frames_is_line(httpsrv_str s) {
    return s.len == 0 || (!memchr(s.ptr, '\n', s.len) && !memchr(s.ptr, '\r', s.len) && !memchr(s.ptr, '\0', s.len));
}

static bool hsrv_frames_event_valid(const httpsrv_event *event) {
    if ((event->data.len > 0 && !event->data.ptr) || (event->id.len > 0 && !event->id.ptr)) return false;
    if (event->retry_ms < 0 || !hsrv_frames_is_line(event->id)) return false;
    if (event->name && !hsrv_frames_is_line(hsrv_text_of(event->name))) return false;
    return event->data.ptr || event->id.ptr || event->retry_ms > 0;
}

// Bytes that an event takes at most; 0 if that is more than memory can have.
static size_t hsrv_frames_event_size(const httpsrv_event *event) {
    const size_t most = (size_t)PTRDIFF_MAX / 16, name_len = event->name ? strlen(event->name) : 0;
    if (event->data.len > most || event->id.len > most || name_len > most) return 0;
    size_t size = 64 + name_len + event->id.len;
    httpsrv_str rest = event->data, line;
    while (hsrv_frames_next_line(&rest, &line)) {
        size += line.len + 7;
    }
    return size;
}

static char *hsrv_frames_event_field(char *out, const char *name, httpsrv_str value) {
    out = hsrv_text_append(out, hsrv_text_of(name));
    out = HSRV_APPEND(out, ": ");
    out = hsrv_text_append(out, value);
    return HSRV_APPEND(out, "\n");
}

static char *hsrv_frames_format_event(char *out, const httpsrv_event *event) {
    char retry[20];
    if (event->name) out = hsrv_frames_event_field(out, "event", hsrv_text_of(event->name));
    if (event->id.ptr) out = hsrv_frames_event_field(out, "id", event->id);
    if (event->retry_ms > 0) {
        const char *end = hsrv_text_format_number(retry, (uint64_t)event->retry_ms);
        out = hsrv_frames_event_field(out, "retry", hsrv_text_view(retry, (size_t)(end - retry)));
    }
    httpsrv_str rest = event->data, line;
    while (hsrv_frames_next_line(&rest, &line)) {
        out = hsrv_frames_event_field(out, "data", line);
    }
    return HSRV_APPEND(out, "\n");
}

// ===========================================================================================
// >>queue     Bounded MPMC ring; inbox.    owns: cells, head, tail    thread: any    uses: >>memory
// ===========================================================================================

// Dmitry Vyukov's ring. Each cell carries a sequence number: `pos` means free for the producer whose ticket is pos,
// pos + 1 means filled for the consumer whose ticket is pos. A producer takes a ticket with a compare-and-swap on head,
// fills the cell and publishes it. Lock-free is said with care: a producer that stalls between ticket and publication
// holds up the consumers at its own cell, and nobody else.
typedef struct hsrv_cell {
    size_t sequence;
    void (*fn)(void *arg);
    void *arg;
} hsrv_cell;

// Producers write head, consumers write tail: a cache line apart, so that they do not fight over one.
typedef struct hsrv_queue {
    hsrv_cell *cells;
    size_t mask;
    char apart_from_head[HTTPSRV_CACHE_LINE];
    size_t head;
    char apart_from_tail[HTTPSRV_CACHE_LINE];
    size_t tail;
    char apart_from_others[HTTPSRV_CACHE_LINE];
} hsrv_queue;

// The capacity is rounded up to a power of two, at least 2: with one cell "filled" and "free again" would be the same.
static bool hsrv_queue_init(hsrv_queue *queue, hsrv_memory *memory, size_t capacity) {
    size_t size = 2;
    while (size < capacity) {
        size *= 2;
    }
    memset(queue, 0, sizeof *queue);
    queue->cells = (hsrv_cell *)hsrv_memory_take(memory, size * sizeof(hsrv_cell));
    if (!queue->cells) return false;
    queue->mask = size - 1;
    for (size_t i = 0; i < size; i++) {
        queue->cells[i].sequence = i;
    }
    return true;
}

static void hsrv_queue_free(hsrv_queue *queue, hsrv_memory *memory) {
    hsrv_memory_give(memory, queue->cells, (queue->mask + 1) * sizeof(hsrv_cell));
    queue->cells = NULL;
}

// False when full. [any]
// The ticket may be relaxed: it orders nothing, the cell's sequence does (its load here sees the consumer done with the
// cell, its publishing store releases the contents). The store is sequentially consistent, because a producer goes on to
// look whether somebody is parked, see hsrv_pool_park; the load is, because who has found the ring full looks once more
// after hsrv_pool_want_room. The models in tests/model say what goes wrong otherwise.
static bool hsrv_queue_push(hsrv_queue *queue, void (*fn)(void *), void *arg) {
    size_t pos = __atomic_load_n(&queue->head, __ATOMIC_RELAXED);
    for (;;) {
        hsrv_cell *cell = &queue->cells[pos & queue->mask];
        const size_t sequence = __atomic_load_n(&cell->sequence, __ATOMIC_SEQ_CST);
        const ptrdiff_t ahead = (ptrdiff_t)(sequence - pos);
        if (ahead < 0) return false;
        if (ahead > 0) {
            pos = __atomic_load_n(&queue->head, __ATOMIC_RELAXED);
            continue;
        }
        if (!__atomic_compare_exchange_n(&queue->head, &pos, pos + 1, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
            continue;
        cell->fn = fn;
        cell->arg = arg;
        __atomic_store_n(&cell->sequence, pos + 1, __ATOMIC_SEQ_CST);
        return true;
    }
}

// False when empty, or when the next cell's producer has not published it yet. [any]
// The cell is given back by a sequentially consistent store, because a consumer goes on to look whether somebody waits for
// room, see hsrv_pool_step.
static bool hsrv_queue_pop(hsrv_queue *queue, void (**fn)(void *), void **arg) {
    size_t pos = __atomic_load_n(&queue->tail, __ATOMIC_RELAXED);
    for (;;) {
        hsrv_cell *cell = &queue->cells[pos & queue->mask];
        const size_t sequence = __atomic_load_n(&cell->sequence, __ATOMIC_ACQUIRE);
        const ptrdiff_t ahead = (ptrdiff_t)(sequence - (pos + 1));
        if (ahead < 0) return false;
        if (ahead > 0) {
            pos = __atomic_load_n(&queue->tail, __ATOMIC_RELAXED);
            continue;
        }
        if (!__atomic_compare_exchange_n(&queue->tail, &pos, pos + 1, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
            continue;
        *fn = cell->fn;
        *arg = cell->arg;
        __atomic_store_n(&cell->sequence, pos + queue->mask + 1, __ATOMIC_SEQ_CST);
        return true;
    }
}

// Whether a pop is worth a try. Errs on the side of yes: a stale tail points at a cell that was filled once. [any]
static bool hsrv_queue_ready(const hsrv_queue *queue) {
    const size_t pos = __atomic_load_n(&queue->tail, __ATOMIC_RELAXED);
    const size_t sequence = __atomic_load_n(&queue->cells[pos & queue->mask].sequence, __ATOMIC_SEQ_CST);
    return (ptrdiff_t)(sequence - (pos + 1)) >= 0;
}

// The inbox: a stack of messages that lie in the objects they are about, so that it can never be full. Any thread
// pushes, the one owner takes all at once and turns it round. `sleeping` is the owner's word that it is about to block.
typedef struct hsrv_message {
    struct hsrv_message *next;
    int kind;
} hsrv_message;

typedef struct hsrv_inbox {
    char apart_from_before[HTTPSRV_CACHE_LINE];
    hsrv_message *top;
    uint32_t sleeping;
    char apart_from_behind[HTTPSRV_CACHE_LINE];
} hsrv_inbox;

// Result: whether the owner has to be woken; then nobody else will do it. [any]
// Push and the look at `sleeping` against the owner's arming and its look at `top` need store-load order on both sides,
// or each could miss the other: all four are sequentially consistent.
static bool hsrv_queue_inbox_push(hsrv_inbox *inbox, hsrv_message *message) {
    hsrv_message *top = __atomic_load_n(&inbox->top, __ATOMIC_RELAXED);
    do {
        message->next = top;
    } while (!__atomic_compare_exchange_n(&inbox->top, &top, message, true, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED));
    if (__atomic_load_n(&inbox->sleeping, __ATOMIC_SEQ_CST) == 0) return false;
    return __atomic_exchange_n(&inbox->sleeping, 0u, __ATOMIC_SEQ_CST) == 1;
}

static bool hsrv_queue_inbox_pending(const hsrv_inbox *inbox) {
    return __atomic_load_n(&inbox->top, __ATOMIC_SEQ_CST) != NULL;
}

// Everything that is there, oldest first. [owner]
static hsrv_message *hsrv_queue_inbox_take(hsrv_inbox *inbox) {
    if (!__atomic_load_n(&inbox->top, __ATOMIC_RELAXED)) return NULL;
    hsrv_message *top = __atomic_exchange_n(&inbox->top, (hsrv_message *)NULL, __ATOMIC_ACQUIRE);
    hsrv_message *oldest = NULL;
    while (top) {
        hsrv_message *next = top->next;
        top->next = oldest;
        oldest = top;
        top = next;
    }
    return oldest;
}

// Says that the owner is about to block. It must look at hsrv_queue_inbox_pending once more before it does. [owner]
static void hsrv_queue_inbox_arm(hsrv_inbox *inbox) {
    __atomic_store_n(&inbox->sleeping, 1u, __ATOMIC_SEQ_CST);
}

static void hsrv_queue_inbox_disarm(hsrv_inbox *inbox) {
    __atomic_store_n(&inbox->sleeping, 0u, __ATOMIC_RELAXED);
}

// ===========================================================================================
// >>pool      Worker threads.    owns: its ring and threads    thread: submit any, run worker    uses: >>queue
// ===========================================================================================

// Parking. A worker that finds nothing leaves a mark (parked), looks at the ring once more and sleeps on `tickets`.
// Whoever publishes a job and sees a mark takes it away and hands out a ticket, so that one job wakes one worker and a
// worker on its way up is not woken twice. Marks and tickets are nobody's in particular: one ticket lets one worker go.
typedef struct hsrv_pool {
    hsrv_memory *memory;
    pthread_t *threads;
    int num_threads; // started
    int want_threads;
    char name[32];
    int cpu; // first worker's, to bind it to; -1: none; as `room`, set before the first start: workers outlive a restart
    hsrv_queue queue;
    void (*room)(void *arg); // called on a worker when somebody wants room and there is some again
    void *room_arg;
    uint32_t wanted;   // 1: somebody does; any thread
    uint32_t parked;   // any thread, see above
    uint32_t tickets;  // futex word; any thread
    uint32_t stopping; // set once by hsrv_pool_stop
    uint32_t up;       // workers that have begun to run; any thread, relaxed
    size_t jobs;       // accepted; any thread, relaxed
} hsrv_pool;

static hsrv_pool *hsrv_pool_new(hsrv_memory *memory, const char *name, int threads, int capacity) {
    hsrv_pool *pool = (hsrv_pool *)hsrv_memory_take_zeroed(memory, sizeof *pool);
    if (!pool) return NULL;
    pool->memory = memory;
    pool->cpu = -1;
    pool->want_threads = threads;
    snprintf(pool->name, sizeof pool->name, "%s", name);
    const size_t bytes = (size_t)threads * sizeof(pthread_t);
    pool->threads = (pthread_t *)hsrv_memory_take(memory, bytes);
    if (pool->threads && hsrv_queue_init(&pool->queue, memory, (size_t)capacity)) return pool;
    hsrv_memory_give(memory, pool->threads, bytes);
    hsrv_memory_give(memory, pool, sizeof *pool);
    return NULL;
}

static bool hsrv_pool_take_mark(hsrv_pool *pool) {
    uint32_t parked = __atomic_load_n(&pool->parked, __ATOMIC_SEQ_CST);
    while (parked > 0) {
        if (__atomic_compare_exchange_n(&pool->parked, &parked, parked - 1, true, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
            return true;
        }
    }
    return false;
}

static void hsrv_pool_wake_one(hsrv_pool *pool) {
    if (!hsrv_pool_take_mark(pool)) return;
    __atomic_fetch_add(&pool->tickets, 1u, __ATOMIC_RELEASE);
    hsrv_sys_futex_wake(&pool->tickets, 1);
}

// Puts in a job without waking anybody for it: hsrv_pool_wake has to follow. False when the ring is full. [any]
static bool hsrv_pool_offer(hsrv_pool *pool, void (*fn)(void *), void *arg) {
    if (!hsrv_queue_push(&pool->queue, fn, arg)) return false;
    __atomic_fetch_add(&pool->jobs, 1u, __ATOMIC_RELAXED);
    return true;
}

// Wakes a worker for each of so many jobs, as long as there are some that sleep. [any]
static void hsrv_pool_wake(hsrv_pool *pool, uint32_t jobs) {
    while (jobs-- > 0 && __atomic_load_n(&pool->parked, __ATOMIC_SEQ_CST) > 0) {
        hsrv_pool_wake_one(pool);
    }
}

// False when the ring is full. [any]
static bool hsrv_pool_submit(hsrv_pool *pool, void (*fn)(void *), void *arg) {
    if (!hsrv_pool_offer(pool, fn, arg)) return false;
    hsrv_pool_wake_one(pool);
    return true;
}

static void hsrv_pool_tell_room(hsrv_pool *pool) {
    if (__atomic_exchange_n(&pool->wanted, 0u, __ATOMIC_SEQ_CST) != 0) pool->room(pool->room_arg);
}

// Whoever found the ring full says so and must then try once more: a worker gives a cell back before it looks at the word.
// All four are sequentially consistent operations, so at least one of the two sees the other. [any]
static void hsrv_pool_want_room(hsrv_pool *pool) {
    __atomic_store_n(&pool->wanted, 1u, __ATOMIC_SEQ_CST);
}

// Runs one job if there is one. A worker that leaves more behind wakes a colleague: the producer of that job may have
// found its cell not yet readable for anybody, behind one whose producer stalled. [worker]
static bool hsrv_pool_step(hsrv_pool *pool) {
    void (*fn)(void *);
    void *arg;
    if (!hsrv_queue_pop(&pool->queue, &fn, &arg)) return false;
    if (__atomic_load_n(&pool->parked, __ATOMIC_RELAXED) > 0 && hsrv_queue_ready(&pool->queue))
        hsrv_pool_wake_one(pool);
    if (__atomic_load_n(&pool->wanted, __ATOMIC_SEQ_CST) != 0) hsrv_pool_tell_room(pool);
    fn(arg);
    return true;
}

static void hsrv_pool_take_ticket(hsrv_pool *pool) {
    for (;;) {
        uint32_t tickets = __atomic_load_n(&pool->tickets, __ATOMIC_RELAXED);
        if (tickets == 0) {
            hsrv_sys_futex_wait(&pool->tickets, 0);
            continue;
        }
        if (__atomic_compare_exchange_n(&pool->tickets, &tickets, tickets - 1, true, __ATOMIC_ACQUIRE,
                                        __ATOMIC_RELAXED)) {
            return;
        }
    }
}

// The mark is set before the second look at the ring, and a producer publishes before it looks for marks. All four are
// sequentially consistent operations, so at least one of the two sees the other. [worker]
static void hsrv_pool_park(hsrv_pool *pool) {
    __atomic_fetch_add(&pool->parked, 1u, __ATOMIC_SEQ_CST);
    const bool stay = hsrv_queue_ready(&pool->queue) || __atomic_load_n(&pool->stopping, __ATOMIC_SEQ_CST) != 0;
    if (stay && hsrv_pool_take_mark(pool)) return;
    hsrv_pool_take_ticket(pool); // also when a mark was taken by a waker in between: its ticket is on the way
}

static void *hsrv_pool_worker(void *arg) {
    hsrv_pool *pool = (hsrv_pool *)arg;
    const int number = (int)__atomic_fetch_add(&pool->up, 1u, __ATOMIC_RELAXED);
    hsrv_platform_thread_name(pool->name, number);
    if (pool->cpu >= 0) hsrv_platform_bind_cpu(pool->cpu + number);
    for (;;) {
        if (hsrv_pool_step(pool)) continue;
        if (__atomic_load_n(&pool->stopping, __ATOMIC_SEQ_CST) != 0) return NULL;
        hsrv_pool_park(pool);
    }
}

// 0 or an errno. What was started stays. [owner]
static int hsrv_pool_start(hsrv_pool *pool) {
    while (pool->num_threads < pool->want_threads) {
        const int err = hsrv_platform_thread_start(&pool->threads[pool->num_threads], hsrv_pool_worker, pool);
        if (err != 0) return err;
        pool->num_threads++;
    }
    return 0;
}

// Workers that have or look for work: those that have come up, less the parked ones. One that has set its mark but has
// a job to find counts as well: the ring is looked at first, since whoever takes that job has taken its mark away
// before. [any]
static int hsrv_pool_busy(const hsrv_pool *pool) {
    const bool ready = hsrv_queue_ready(&pool->queue);
    const int parked = (int)__atomic_load_n(&pool->parked, __ATOMIC_SEQ_CST);
    const int up = (int)__atomic_load_n(&pool->up, __ATOMIC_RELAXED);
    if (parked < up) return up - parked;
    return ready ? 1 : 0;
}

// Ends the threads. Nearly always they leave nothing behind; but a worker that has found the ring empty can see the stop
// before it sees a job that came in between, and jobs of other pools may still put some in: see hsrv_server_serve_rest.
// [owner]
static void hsrv_pool_stop(hsrv_pool *pool) {
    __atomic_store_n(&pool->stopping, 1u, __ATOMIC_SEQ_CST);
    for (int i = 0; i < pool->num_threads; i++) {
        hsrv_pool_wake_one(pool);
    }
    for (int i = 0; i < pool->num_threads; i++) {
        hsrv_sys_thread_join(pool->threads[i]);
    }
    pool->num_threads = 0;
}

// [owner]
static void hsrv_pool_free(hsrv_pool *pool) {
    hsrv_pool_stop(pool);
    while (hsrv_pool_step(pool)) {} // accepted, and left behind by the threads, or there never were any
    hsrv_memory *memory = pool->memory;
    hsrv_queue_free(&pool->queue, memory);
    hsrv_memory_give(memory, pool->threads, (size_t)pool->want_threads * sizeof(pthread_t));
    hsrv_memory_give(memory, pool, sizeof *pool);
}

// ===========================================================================================
// >>state     Every struct and state.    owns: nothing, holds no functions    thread: as each field says
//             uses: >>parser >>queue >>pool
// ===========================================================================================

typedef struct hsrv_loop hsrv_loop;
typedef struct hsrv_conn hsrv_conn;

// ---- routes: written in setup, read-only afterwards ----

typedef struct hsrv_route {
    struct hsrv_route *next; // of the same node, by order of setup
    char *pattern;           // owned; the views below point into it
    httpsrv_str method;      // "*" for any
    httpsrv_method_id method_id;
    httpsrv_handler handler;
    void *user;
    char *pool_name; // owned; NULL: inline
    hsrv_pool *pool; // set at listen
    int pool_number; // of srv->pools
    httpsrv_body_fn on_body;
    bool stream;
    httpsrv_media media[HTTPSRV_MAX_MEDIA]; // types are owned
    int num_media;
    httpsrv_overload overload;
    bool uncompressed, gunzip;
    int64_t max_body; // as configured, set to bytes or -1 for unlimited at listen
    int timeout_ms;   // likewise, -1: off
    int num_params;
    httpsrv_str params[HTTPSRV_MAX_PARAMS]; // names, in the order of the path
} hsrv_route;

// In the order of setup; the prefix, without a slash at its end, follows the struct.
typedef struct hsrv_filter {
    struct hsrv_filter *next;
    httpsrv_filter fn;
    void *user;
    size_t prefix_len;
} hsrv_filter;

typedef enum hsrv_segment_kind {
    HSRV_SEGMENT_LITERAL,
    HSRV_SEGMENT_PARAM,
    HSRV_SEGMENT_REST,
    HSRV_SEGMENT_REGEX // a whole path, in a list of its own
} hsrv_segment_kind;

// A tree by segments. Literal children come first, then at most one parameter, then at most one wildcard. The pattern's
// path up to this node lies behind the struct.
typedef struct hsrv_node {
    struct hsrv_node *parent, *child, *sibling;
    hsrv_segment_kind kind;
    bool literal;       // this segment and all above
    httpsrv_str path;   // owned
    httpsrv_str text;   // its last segment
    hsrv_route *routes; // that end here
    size_t number;      // of an expression, from 0
} hsrv_node;

typedef struct hsrv_router {
    hsrv_node root;     // stands for what comes before the first slash
    hsrv_node asterisk; // the path "*"
    hsrv_node **exact;  // hash table of literal paths, built at listen
    size_t exact_size;  // a power of two
    size_t num_nodes;
    hsrv_node *regexes, *last_regex; // linked as siblings, by order of setup
    size_t num_regexes;
} hsrv_router;

#ifdef HTTPSRV_NO_REGEX
typedef int hsrv_regex;
#else
typedef regex_t hsrv_regex;
#endif

// ---- request: the object that the baton is about ----

typedef struct hsrv_header {
    struct hsrv_header *next;
    httpsrv_str name, value;
} hsrv_header;

// How the client can tell where the body of an answer ends, RFC 9112 section 6.
typedef enum hsrv_framing {
    HSRV_FRAMING_WHOLE,   // Content-Length: the body is there
    HSRV_FRAMING_PARTS,   // likewise, in segments
    HSRV_FRAMING_LENGTH,  // Content-Length, as declared
    HSRV_FRAMING_CHUNKED, // Transfer-Encoding
    HSRV_FRAMING_CLOSE    // where the connection ends: HTTP/1.0
} hsrv_framing;

// An answer as it waits to be turned into bytes.
typedef struct hsrv_answer {
    hsrv_header *headers, **headers_end;
    bool own_server, own_date, own_type; // among the headers
    bool close;                          // the handler wants the connection to end
    bool plain;                          // it went out the short way, see hsrv_response_reply_plain
    bool coded;                          // the body goes in gzip
    bool varies;                         // with what the client takes, which has to be said
    int status;
    hsrv_framing framing;
    int64_t length; // as declared
    httpsrv_str type, body;
    void (*release)(void *arg); // the body is borrowed until then
    void *release_arg;
    struct hsrv_segment *parts; // of a body in segments; owned
} hsrv_answer;

// NONE -> SENT   inline: the reactor that runs the handler turns the answer into bytes at once
//      -> STAGED worker: it waits in the request until the baton is back
//      -> BEGUN -> ENDED   in pieces; ENDED also where it was broken off
typedef enum hsrv_answer_state {
    HSRV_ANSWER_NONE,
    HSRV_ANSWER_BEGUN,
    HSRV_ANSWER_ENDED,
    HSRV_ANSWER_STAGED,
    HSRV_ANSWER_SENT
} hsrv_answer_state;

// A request that leaves its loop - to a pool, or deferred - has a place in the loop's table, which stays for good while
// requests come and go. Its cell holds a generation, which with the number of loop and place makes the token, and says who
// may answer:
//
//            leaves its loop           reply, finish                      comes home
//   CLOSED --------------------> OPEN ---------------> CLAIMED -----------------------> CLOSED, next generation
//                                 | ^------------------/   |                               ^
//                                 |     out of memory      | the client leaves, or what    |
//                                 |                        | was begun is ended            |
//                                 |                        v                               |
//                                 |                      DOOMED ---------------------------|
//                                 \-- the client leaves, or the time is up: CLOSED --------|
//
// The one compare-and-swap from OPEN decides between answer, time-out and disconnect, for good or until it is undone for
// want of memory; that an answer for DOOMED cannot be undone brings the request home all the same.
typedef enum hsrv_place_state {
    HSRV_PLACE_CLOSED,
    HSRV_PLACE_OPEN,
    HSRV_PLACE_CLAIMED,
    HSRV_PLACE_DOOMED
} hsrv_place_state;

#define HSRV_GENERATIONS 0x3fffffffu // of a place; one that has had them all is not used any more

typedef struct hsrv_place {
    uint32_t cell;    // generation * 4 + hsrv_place_state; any thread
    uint32_t next;    // free list of the loop
    uint32_t events;  // the generation that is a stream of events; any thread
    httpsrv_req *req; // who has it; does not change while the cell is not CLOSED
} hsrv_place;

// The table grows by chunks that are each twice as large as the one before and never move.
#define HSRV_FIRST_PLACES 64u
#define HSRV_PLACE_CHUNKS 16u // 64 * (2^16 - 1) places
#define HSRV_LOOP_SHIFT   22u // of the loop's number in a token

// The claim word of a request that has left its loop says what of it has come back. Whoever makes it due brings it home:
// the return of the handler, unless it deferred; then a finish, or the loop that gives up. POSTED says that it is on its
// way, so that nobody else puts the one message of the request into the inbox as well.
#define HSRV_CLAIM_RETURNED 1u   // the handler
#define HSRV_CLAIM_DEFERRED 2u   // it left without an answer
#define HSRV_CLAIM_FINISHED 4u   // an answer is there, or none will come
#define HSRV_CLAIM_WANTED   8u   // a post waits for the return of the handler
#define HSRV_CLAIM_POSTED   16u  // the message is in the inbox
#define HSRV_CLAIM_MOVED    32u  // the holder has put something into its stream, or made room: the loop shall look
#define HSRV_CLAIM_ASKED    64u  // it reads the body, for which a client may wait to be asked
#define HSRV_CLAIM_BEGUN    128u // it has begun an answer in pieces
#define HSRV_CLAIM_ENDED    256u // and completed it
#define HSRV_CLAIM_BROKEN   512u // or broken it off

// An answer from httpsrv_finish: in one block with its fields and texts.
typedef struct hsrv_delivery {
    size_t size;
    hsrv_answer answer;
} hsrv_delivery;

// Bits of httpsrv_req.gone. Whoever sets the second of the two calls gone_fn.
#define HSRV_GONE_SET     1u // nobody waits for the answer any more, and there is none
#define HSRV_GONE_WATCHED 2u // gone_fn is there
#define HSRV_GONE_LATE    4u // nobody waits any more, but there is an answer, or somebody was about to make one
#define HSRV_GONE_SETTLED 8u // whoever has ended the answer was told that it was in time: gone_fn is not called

#define HSRV_MAX_SERVER_TRAILERS 32 // fields of a trailer section

// An open file that answers are made of, or a small one that was read. Freed by the last who uses it.
typedef struct hsrv_file {
    hsrv_memory *memory;
    uint32_t uses; // any thread
    int fd;        // -1 if the content is here
    char *content; // owned
    int64_t size;
    int64_t mtime; // seconds
    long nanoseconds;
    uint64_t device, inode;
    size_t etag_len, date_len;
    char etag[64];
    char date[29]; // mtime, unless that is to come
} hsrv_file;

// A piece of bytes on its way: output that the kernel has not taken, or between a worker and the loop. Copied bytes
// follow the struct.
typedef struct hsrv_segment {
    struct hsrv_segment *next;
    const char *ptr;
    hsrv_file *file; // instead of ptr: bytes of a file, which release gives back
    int64_t offset;  // in it
    size_t len;
    size_t size; // of this allocation
    void (*release)(void *arg);
    void *release_arg;
    bool raw;  // from a worker: not of the body, but an informational answer
    bool lost; // it is dropped without having been sent
} hsrv_segment;

// Readers of events by the name of what they listen to. A list of the loop's, which goes with the last of them.
typedef struct hsrv_channel {
    struct hsrv_channel *next; // in its bucket
    struct httpsrv_req *readers;
    size_t name_len; // the name follows the struct
} hsrv_channel;

// Those of a loop. The table grows and shrinks with them; as long as it has one bucket, that is `first`.
typedef struct hsrv_channels {
    hsrv_channel **buckets;
    hsrv_channel *first;
    size_t num_buckets; // a power of two
    size_t count;
    uint64_t secret[2]; // in the hash: a name may be a client's choice
} hsrv_channels;

// A file that parts of a form were spooled to; closed when the request ends.
typedef struct hsrv_spool {
    struct hsrv_spool *next;
    int fd;
} hsrv_spool;

// Whom to tell what became of an answer: an empty segment of output, behind the last byte.
typedef struct hsrv_done {
    hsrv_segment segment;
    struct hsrv_done *next; // of the same request
    httpsrv_done_fn fn;
    void *arg;
    httpsrv_outcome outcome;
} hsrv_done;

// A pointer that goes with a request.
typedef struct hsrv_put {
    struct hsrv_put *next;
    const void *key;
    void *data;
} hsrv_put;

// What a body needs that goes in pieces, either way.
//
//   request:  loop --in--> httpsrv_read on a worker, or straight to on_body on the loop
//   answer:   httpsrv_write on a worker --out--> loop, or on the loop straight to the connection
//
// `in` and `out` are stacks, newest first: one side pushes, the other takes all of it. A worker tells the loop by the claim
// word, the loop tells a worker that waits by the futex.
typedef struct hsrv_stream {
    // the holder's
    bool used;               // anything of this is
    bool silent;             // the body stays behind: HEAD, 204, 205, 304
    bool asked;              // httpsrv_read was called
    bool declared;           // the length is
    int64_t left;            // to be written of it
    hsrv_deflater *deflater; // of what is written; owned
    hsrv_header *trailers, **trailers_end;
    httpsrv_handler on_drain;
    void *drain_user;
    hsrv_segment *reading; // what httpsrv_read has taken, oldest first
    bool sends_events;     // it is a stream of server-sent events
    hsrv_channel *wanted;  // to be joined; made by the holder, the loop's once it is told
    size_t burst;          // bytes written in this call-back

    // the loop's, or the holder's on the loop
    uint32_t told;   // the claim word as it was seen last
    bool here;       // the handler runs on the loop or has returned: call-backs may run
    bool head_out;   // the head of the answer is on its way
    bool end_out;    // and its end
    bool broken;     // it was broken off
    bool written;    // something went out since on_drain was called last
    bool body_over;  // the last piece of the request's body was handed on
    bool paused;     // httpsrv_body_pause
    bool reads;      // somebody takes the body, as the loop has found when it looked last
    bool reading_on; // it was so when the connection was left last
    bool events;     // server-sent events may be sent
    bool events_end; // and they shall end once the handler has returned
    hsrv_channel *channel;
    httpsrv_req *prev_reader, *next_reader; // of the channel

    // shared; queued sizes and the flags beside them are sequentially consistent, see hsrv_request_signal
    hsrv_segment *out, *in;
    size_t out_queued; // bytes written that the kernel has not taken
    size_t in_queued;  // bytes received that have not been read
    uint32_t in_full;  // the loop waits for room
    uint32_t in_over;  // all is in
    uint32_t changes;  // futex: counts what a worker may wait for
    uint32_t sleeping; // a worker may be waiting
} hsrv_stream;

struct httpsrv_req {
    // The holder's part: passed on with the baton. Each hand-over (ring, inbox) is one release/acquire pair. What each
    // request touches comes first, in as few cache lines as hold it.
    httpsrv *srv;
    hsrv_loop *loop;
    hsrv_conn *inline_conn; // while the reactor itself holds the baton and runs the handler, else NULL
    const hsrv_route *route;
    httpsrv_handler handler; // the route's, or that of the media type
    httpsrv_body_fn on_body; // likewise
    void *attached;
    hsrv_put *puts;
    httpsrv_str peer_text;
    int64_t bytes_sent; // of the answer, handed to the connection; the loop's
    int status_sent;    // of the answer; the loop's
    hsrv_answer_state answered;
    bool as_is;          // the answer is not to be compressed
    bool deferred;       // httpsrv_defer was called
    bool answered_twice; // somebody tried
    bool form_read;
    // Its place is open: an answer has to claim it. Apart from `answered`, so that no load spans both when one was just
    // stored.
    bool shared;
    hsrv_done *dones, **dones_end; // whoever has not been told
    hsrv_arena arena;
    hsrv_answer answer;

    hsrv_spool *spools;
    httpsrv_form_data form;
    httpsrv_parser parser; // the loop's while the request is read
    httpsrv_head head;
    const char *raw; // the head's bytes; in the reactor's buffer until the request leaves it, then in the arena
    size_t raw_len;
    httpsrv_str path;  // dot segments resolved, still encoded
    httpsrv_str plain; // the same decoded
    int num_params;
    httpsrv_str params[HTTPSRV_MAX_PARAMS]; // decoded
    httpsrv_str body;
    hsrv_buffer body_buffer; // where the body is gathered if it does not come with the head
    hsrv_inflater *inflater; // that decodes it; owned
    httpsrv_fn gone_fn;      // read by the loop once HSRV_GONE_WATCHED is set
    void *gone_arg;
#ifdef HTTPSRV_DEBUG
    pthread_t holder; // while `held`
    bool held;
#endif
    bool leaves_buffer;     // the head was copied to the arena
    bool owes_continue;     // the client waits for 100 (Continue); the loop's
    unsigned char peer[16]; // as in hsrv_conn

    // The loop's part.
    hsrv_conn *conn;          // who waits for it while it is away; NULL for an orphan, whose connection is gone
    struct httpsrv_req *next; // in the loop's free list, or in its list for a pool without room
    struct httpsrv_req *prev; // in that list
    bool waiting;             // is in it: nobody else has the request
    uint32_t departed;        // ms, low half of the clock: when it left
    bool away;                // has left the loop, and has not been brought home
    bool given_up;            // nobody waits for its answer any more
    hsrv_place *place;        // in the loop's table; NULL when out of memory
    uint32_t place_number;
    struct hsrv_post *posts, **posts_end; // handlers that wait for the return of the first one
    httpsrv_head trailers;                // fields are owned
    hsrv_buffer trailer_bytes;

    // The shared part: named atomics and the message that brings the request home.
    hsrv_message message;    // next: the inbox
    uint32_t claim;          // HSRV_CLAIM_ bits
    uint32_t gone;           // HSRV_GONE_ bits; the loop sets GONE once nobody waits for the answer
    hsrv_delivery *delivery; // written by whoever has claimed the place, before FINISHED is set

    hsrv_stream stream; // each part of it has its own owner
};

// A handler from httpsrv_post on its way to the loop.
typedef struct hsrv_post {
    hsrv_message message;
    struct hsrv_post *next; // of the same request
    httpsrv_token token;
    httpsrv_handler handler;
    void *user;
} hsrv_post;

// ---- connection: of one loop for its whole life ----

//           first byte          head                    complete
//   IDLE ----------------> HEAD ------------> BODY ------------------> BUSY     BUSY: the handler has the request
//     ^  \_____________________________________________________________^ |
//     |        (what comes whole in one read goes straight through)      |
//     |                          \---------------------> STREAM <--------|      STREAM: the body is read while it is
//     |                                                    |             |      handled, or the answer goes in pieces
//     |                                                    |             | answered
//     |                                                    \-------------|
//     |                                                                  |
//     |<------------------------ DISCARD <-------------------------------|      DISCARD: an unread body is dropped
//     |                                                                  |
//     +<-----------------------------------------------------------------|
//                                                                        v
//   any --> CLOSED (end of the turn)          CLOSED <-- LINGER <------ LAST    LAST: the last answer is being sent
//                                                                               LINGER: sent; input is dropped until
//                                                                               the client closes, for a bounded time
typedef enum hsrv_conn_state {
    HSRV_CONN_IDLE,
    HSRV_CONN_HEAD,
    HSRV_CONN_BODY,
    HSRV_CONN_BUSY,
    HSRV_CONN_STREAM,
    HSRV_CONN_DISCARD,
    HSRV_CONN_LAST,
    HSRV_CONN_LINGER,
    HSRV_CONN_CLOSED
} hsrv_conn_state;

// Edges are latched here: epoll tells each only once.
#define HSRV_CONN_READABLE 0x01u
#define HSRV_CONN_WRITABLE 0x02u
#define HSRV_CONN_FIN      0x04u  // the client has finished sending; what it sent may still be unread
#define HSRV_CONN_EOF      0x08u  // and everything it sent has been read
#define HSRV_CONN_LOST     0x10u  // reset, hung up, or a send failed
#define HSRV_CONN_READY    0x20u  // in the ready list
#define HSRV_CONN_REFUSED  0x80u  // over max.connections or max.per_ip, and counted in neither
#define HSRV_CONN_ENDING   0x100u // the answer just given is the last one
#define HSRV_CONN_STUCK    0x200u // output waits for the client: the period of min_rate goes on from send to send
#define HSRV_CONN_PARTED   0x400u // the client has said that this request is its last, and sent no body with it
#define HSRV_CONN_WATCHED  0x800u // epoll knows it

// Input that could not be used yet. The bytes follow the struct.
typedef struct hsrv_input {
    size_t cap, off, len; // unparsed bytes are [off, len)
} hsrv_input;

typedef struct hsrv_chain {
    hsrv_segment *first, *last;
} hsrv_chain;

// What an idle connection costs: on 64-bit machines 8 * 8 of links, request, input and chain, 4 * 10 of descriptor,
// identity, stamps and counts, 5 of state, 16 of address: 128 bytes.
struct hsrv_conn {
    hsrv_conn *timer_prev, *timer_next;
    hsrv_conn *next_ready;
    hsrv_conn *next_closing;
    httpsrv_req *req;
    hsrv_input *in; // NULL unless something unparsed is left
    hsrv_chain out; // what the kernel did not take
    int fd;
    uint32_t slot;
    uint32_t generation;    // with the slot the identity that epoll reports; never a pointer
    uint32_t stamp;         // ms, low half of the clock: last progress, or begin of the head
    uint32_t due;           // ms, low half: when the timer node is looked at
    uint32_t served;        // answers
    uint32_t discarded;     // bytes, in DISCARD and LINGER
    uint32_t moved;         // bytes received and sent, modulo 2^32
    uint32_t period;        // ms, low half: when the present period of min_rate began
    uint32_t period_mark;   // what had moved by then; in sending, less what the kernel still held
    uint16_t flags;         // HSRV_CONN_ bits
    uint8_t state;          // hsrv_conn_state
    uint8_t ring, place;    // of the timer node; ring is HSRV_RINGS when it is in none
    unsigned char peer[16]; // address, IPv4 mapped into IPv6
};

typedef enum hsrv_ring {
    HSRV_RING_IDLE,
    HSRV_RING_HEAD,
    HSRV_RING_BODY,
    HSRV_RING_WRITE,
    HSRV_RING_LINGER,
    HSRV_RING_HANDLER,
    HSRV_RING_EVENTS,
    HSRV_RINGS
} hsrv_ring;

// What happened to a connection; returned upwards by >>conn, acted upon by >>reactor.
typedef enum hsrv_event {
    HSRV_EVENT_NONE,     // nothing more to do until an edge, a message or a timer
    HSRV_EVENT_HEAD,     // a head is parsed
    HSRV_EVENT_AGAIN,    // a head is like one before
    HSRV_EVENT_BODY,     // the body is complete
    HSRV_EVENT_PIECE,    // loop->piece is the next one of a body
    HSRV_EVENT_DRAINED,  // what was written of an answer is out, and there should be more
    HSRV_EVENT_BAD,      // the parser refused
    HSRV_EVENT_NOMEM,    // no memory to go on
    HSRV_EVENT_OVER,     // more to drop than is worth it
    HSRV_EVENT_END,      // the client has finished and everything it sent is used up
    HSRV_EVENT_LOST,     // the client is gone
    HSRV_EVENT_RETURNED, // the request came back from a worker
    HSRV_EVENT_NEWS,     // loop->news is for a reader of events
    HSRV_EVENT_STOP,     // a stream of events shall end with the server
    HSRV_EVENT_TIMEOUT,  // a deadline has passed
    HSRV_EVENT_REFUSED,  // over max.connections
    HSRV_EVENT_CROWDED,  // over max.per_ip
    HSRV_EVENT_SERVE     // just look what can be done
} hsrv_event;

// ---- timers ----

#define HSRV_PLACES 32u // a deadline lies at most 17 sixteenths ahead

typedef struct hsrv_wheel {
    uint64_t tick;     // ms, a sixteenth of the duration; 0: off
    uint64_t done;     // number of the last tick that was served
    uint64_t next;     // ms: when the one after it begins; until then there is nothing to do
    uint32_t duration; // ms; 0 for a time-out that is off where the wheel turns for min_rate
    uint32_t occupied; // bit for each place
    hsrv_conn *places[HSRV_PLACES];
} hsrv_wheel;

// ---- loop ----

// RUN -> GRACE -> DRAIN -> DONE, each on the loop's own clock once the server was told to stop; a second stop goes
// straight to DONE. In GRACE everything works but answers say close; in DRAIN nothing new is accepted.
typedef enum hsrv_loop_phase { HSRV_LOOP_RUN, HSRV_LOOP_GRACE, HSRV_LOOP_DRAIN, HSRV_LOOP_DONE } hsrv_loop_phase;

typedef enum hsrv_message_kind {
    HSRV_MESSAGE_RETURNED, // a httpsrv_req
    HSRV_MESSAGE_POST,     // a hsrv_post
    HSRV_MESSAGE_ACCEPTED, // a hsrv_handed
    HSRV_MESSAGE_NEWS      // a hsrv_copy
} hsrv_message_kind;

// An event on its way to those that listen, in one block with its texts; the last who has seen it frees it.
typedef struct hsrv_news {
    hsrv_memory *memory;
    size_t size;
    uint32_t uses;       // copies in inboxes, segments that borrow its text; any thread
    httpsrv_token token; // of the one reader; 0: all of the channel
    httpsrv_str channel;
    httpsrv_str chunk; // the event as a chunk...
    httpsrv_str text;  // ...and without its frame
    bool ends;         // no event, but the end
} hsrv_news;

// There is one for each loop, behind the struct.
typedef struct hsrv_copy {
    hsrv_message message;
    hsrv_news *news;
} hsrv_copy;

// A connection that an acceptor hands over.
typedef struct hsrv_handed {
    hsrv_message message;
    int fd;
    struct sockaddr_storage address;
} hsrv_handed;

// Written by the loop, read by any thread.
typedef struct hsrv_counters {
    size_t accepted, open, requests, bytes_in, bytes_out, wakeups, finished, cut;
    size_t answers[6];
    size_t items[HTTPSRV_LOG_COUNT];
} hsrv_counters;

// The last head that was worth keeping, with its route. Clients that keep their connection mostly say the same again, and
// what is byte for byte the same means the same: the request that has read it, whose views are of these bytes, is set aside
// to be taken once more as it is.
#define HSRV_MAX_AGAIN      1024u // bytes of a head that is kept
#define HSRV_MAX_PLAIN_TYPE 63u   // bytes of a Content-Type whose line is kept ready

typedef struct hsrv_again {
    httpsrv_req *req; // NULL: none is kept
    bool idle;        // it is set aside; else it is with a connection
    bool simple;      // its handler runs right away, with nothing to be looked at before
    bool plain;       // nothing in it stands against an answer in the short way
    size_t len;       // bytes of the head; 0 without one
    // Heads to let pass before the next is kept: the more, the less often the last ones came again.
    uint32_t patience, wait;
    char bytes[HSRV_MAX_AGAIN];
} hsrv_again;

// An acceptor is a loop as well: it has listeners but no connections, and hands over what it accepts. Reactors come first
// in the server's list.
struct hsrv_loop {
    // What each request touches comes first, in as few cache lines as hold it.
    httpsrv *srv;
    uint64_t now; // ms, monotonic, as of the begin of the turn
    hsrv_loop_phase phase;
    int serve_budget;   // steps, most of them requests, before others get their turn
    const char *window; // unparsed input of the connection being served
    size_t window_len;
    char *output; // shared output buffer: answers of the connection being served
    size_t output_len;
    size_t read_budget, write_budget; // bytes that it may still read and send in this turn
    size_t request_size;
    char *block;
    size_t opening_len;    // of the block with the lines behind it that announce plain_type and a length
    size_t plain_len;      // the length, whose digits and the head's end are there too; SIZE_MAX: none
    size_t plain_head_len; // of all that
    size_t plain_type_len; // 0: nothing
    char plain_type[HSRV_MAX_PLAIN_TYPE + 1]; // what answers were of last
    hsrv_counters counters;
    hsrv_again again;

    int number;
    bool is_acceptor, awaits_acceptors;
    int turn;    // of an acceptor that goes by turns
    int cpu;     // to bind the thread to; -1: none
    size_t load; // connections given to this reactor that have not ended; any thread, relaxed
    int epfd, wakefd, reservefd;
    int listeners[HTTPSRV_MAX_LISTENERS]; // -1: none
    bool accepting;                       // listeners are watched
    bool in_turn;
#ifdef HTTPSRV_DEBUG
    pthread_t owner; // while in_turn
#endif
    uint64_t phase_ends;   // ms; UINT64_MAX: never
    uint64_t accept_again; // ms: when to try again after descriptors ran out; 0: not waiting
    int64_t date_second;   // of the cached block
    hsrv_slab conns;
    uint32_t generation; // last one given out; 0 is no connection's
    uint32_t refusals;   // lingering connections over the limit
    hsrv_conn *ready, *ready_last;
    hsrv_conn *closing;
    httpsrv_req *spare_requests;
    uint32_t num_spare;
    uint32_t num_orphans; // requests that are away and have lost their connection; nothing depends on it, tests look
    hsrv_place *places[HSRV_PLACE_CHUNKS]; // any thread reads; the loop sets each once, with release
    uint32_t num_places, free_places;
    httpsrv_req *waiting[HTTPSRV_MAX_POOLS + 1], *waiting_last[HTTPSRV_MAX_POOLS + 1]; // for room in a pool
    uint32_t starved;                        // 1 while there are any; any thread reads
    uint32_t offered[HTTPSRV_MAX_POOLS + 1]; // jobs put into a pool for which nobody was woken yet
    bool offers;                             // there are any
    hsrv_regex *regexes; // compiled for this loop alone: the C library locks an expression while it is used
    hsrv_wheel wheels[HSRV_RINGS];
    char *input;          // shared read buffer
    bool signals_blocked; // for good: the thread is ours
    bool shielded;        // SIGPIPE is kept away until the end of the turn
    bool sigpipe_pending;
    sigset_t signals_before;
    httpsrv_str piece; // of the body being read
    hsrv_news *news;   // being sent to its readers
    hsrv_channels channels;
    httpsrv_str status_block;                // "HTTP/1.1 200 OK", Server and Date lines, cached for the second
    size_t status_line_len, server_line_len; // of its first two lines
    size_t block_size;
    pthread_t thread;
    bool has_thread;
    hsrv_inbox inbox; // any thread
};

// ---- server ----

//   SETUP --listen--> LISTENING --run, start--> RUNNING --drained--> STOPPED --listen--> LISTENING ...
//                         \------poll-------> POLLED ---drained-------^
typedef enum hsrv_server_state {
    HSRV_SERVER_SETUP,
    HSRV_SERVER_LISTENING,
    HSRV_SERVER_RUNNING,
    HSRV_SERVER_POLLED,
    HSRV_SERVER_STOPPED
} hsrv_server_state;

typedef enum hsrv_address_kind { HSRV_ADDRESS_TCP, HSRV_ADDRESS_UNIX, HSRV_ADDRESS_INHERITED } hsrv_address_kind;

typedef struct hsrv_address {
    hsrv_address_kind kind;
    struct sockaddr_storage storage;
    socklen_t len;
    bool dual; // IPv6 that takes IPv4 as well
    int fd; // shared by the loops, each of which has a copy: of a Unix socket while they get theirs, or inherited; else -1
    bool is_ours;      // inherited, and found to be good: to be closed in the end
    uint32_t has_file; // 1: of a Unix socket; whoever sets it to 0 removes it; any thread
    uint64_t file;     // its number, which stays taken as long as the socket is open
    char text[128];
    int port; // bound; -1 unless listening; the owner writes, any thread reads, relaxed
} hsrv_address;

// How many connections an address has: max.per_ip. One table for all loops, with a lock for each stripe of its buckets,
// taken when a connection begins and ends. Entries come and go with connections, so they are as bounded as these.
#define HSRV_STRIPES 16u // a power of two

typedef struct hsrv_address_count {
    struct hsrv_address_count *next; // in its bucket
    unsigned char address[16];
    int open;
} hsrv_address_count;

typedef struct hsrv_tally {
    hsrv_address_count **buckets; // NULL: max.per_ip is off
    size_t num_buckets;           // a power of two
    uint64_t secret[2];           // in the hash: nobody can choose addresses that share a bucket
    pthread_mutex_t locks[HSRV_STRIPES];
} hsrv_tally;

// ---- files and assets: written in setup, but for the caches, which are each their loop's ----

#define HSRV_CODINGS 3 // br, zstd, gzip

// What a reactor knows of a path: an open file and its compressed siblings.
typedef struct hsrv_cached {
    char *path; // owned; NULL: free
    size_t path_len;
    uint32_t hash;
    uint64_t looked; // ms: when it was looked at last
    uint64_t used;   // number of the use
    const char *type;
    hsrv_file *file;
    hsrv_file *siblings[HSRV_CODINGS]; // NULL: there is none
} hsrv_cached;

typedef struct hsrv_cache {
    hsrv_cached *entries; // config.max_open; NULL until it is used
    uint64_t uses;
} hsrv_cache;

// An asset with what was worked out for it.
typedef struct hsrv_prepared {
    const httpsrv_asset *asset;
    httpsrv_str etag, gzip_etag; // views of the texts below, or of the asset's
    char texts[2][24];
} hsrv_prepared;

typedef struct hsrv_mount {
    struct hsrv_mount *next;
    httpsrv *srv;
    int root;                    // descriptor; -1 for assets
    char *place;                 // owned: where the root is, for the checks without openat2
    httpsrv_files_config config; // complete; its texts are owned
    hsrv_cache *caches;          // one for each reactor
    hsrv_prepared *assets;       // owned, sorted by path
    size_t num_assets;
} hsrv_mount;

struct httpsrv {
    // written in setup, read-only while it runs
    hsrv_memory memory;
    httpsrv_config config; // complete: no zero means default here
    char *server_name;
    hsrv_router router;
    hsrv_filter *filters, **filters_end;
    hsrv_route no_route; // what requests have that no route takes
    struct hsrv_rate_table *rates;
    struct hsrv_mount *mounts;
    char *compress_types, *packer_name;
    hsrv_pool *packer; // compresses large answers of reactors; NULL: they do
    hsrv_address addresses[HTTPSRV_MAX_LISTENERS];
    int num_addresses;
    hsrv_loop **loops;
    int num_loops;
    hsrv_pool *pools[HTTPSRV_MAX_POOLS + 1]; // and the implicit "default"
    int num_pools;                           // the owner writes, any thread reads
    int shortest_timeout_ms;                 // for an answer, of all routes; -1: off everywhere
    hsrv_tally tally;
    // the owner's
    hsrv_server_state state;
    httpsrv_result result; // first error of setup
    char error[256];
    size_t stuck;
    // any thread
    uint32_t stop;      // calls of httpsrv_stop; 1: drain, more: cut
    uint32_t stopping;  // calls of it that have not returned
    uint32_t live;      // 1: from listening to the end of the drain, when somebody looks into the inboxes
    uint32_t acceptors; // that may still hand something over
    size_t connections; // open, in all loops
    hsrv_loop **wake;   // == loops once they can be woken; published with release for stop
};

// ===========================================================================================
// >>router    Which route a path has.    owns: the routes    thread: setup writes, then read-only    uses: >>state
// ===========================================================================================

#define HSRV_MAX_SEGMENTS 64

static void hsrv_router_init(hsrv_router *router) {
    memset(router, 0, sizeof *router);
    router->asterisk.text = HSRV_LITERAL("*");
}

// Takes the next segment off a pattern's path, which begins with its slash.
static httpsrv_str hsrv_router_segment(httpsrv_str *path) {
    size_t len = 1;
    while (len < path->len && path->ptr[len] != '/') {
        len++;
    }
    const httpsrv_str segment = hsrv_text_view(path->ptr + 1, len - 1);
    *path = hsrv_text_view(path->ptr + len, path->len - len);
    return segment;
}

static hsrv_segment_kind hsrv_router_kind(httpsrv_str segment) {
    if (segment.len > 0 && segment.ptr[0] == ':') return HSRV_SEGMENT_PARAM;
    if (segment.len > 0 && segment.ptr[0] == '*') return HSRV_SEGMENT_REST;
    return HSRV_SEGMENT_LITERAL;
}

// Whether a path can be a pattern's. Fills in the names of its parameters.
static bool hsrv_router_pattern_valid(httpsrv_str path, hsrv_route *route) {
    if (path.len == 1 && path.ptr[0] == '*') return true;
    if (path.len == 0 || path.ptr[0] != '/') return false;
    if (memchr(path.ptr, '?', path.len) || memchr(path.ptr, '#', path.len)) return false; // a query is no part of it
    for (int segments = 0; path.len > 0; segments++) {
        const httpsrv_str segment = hsrv_router_segment(&path);
        const hsrv_segment_kind kind = hsrv_router_kind(segment);
        if (segments == HSRV_MAX_SEGMENTS || (kind == HSRV_SEGMENT_REST && path.len > 0)) return false;
        if (kind == HSRV_SEGMENT_LITERAL) continue;
        const httpsrv_str name = hsrv_text_view(segment.ptr + 1, segment.len - 1);
        if (name.len == 0 || route->num_params == HTTPSRV_MAX_PARAMS) return false;
        for (int i = 0; i < route->num_params; i++) {
            if (hsrv_text_equal(route->params[i], name)) return false;
        }
        route->params[route->num_params++] = name;
    }
    return true;
}

static hsrv_node *hsrv_router_find_child(hsrv_node *node, hsrv_segment_kind kind, httpsrv_str text) {
    for (hsrv_node *child = node->child; child; child = child->sibling) {
        if (child->kind == kind && (kind != HSRV_SEGMENT_LITERAL || hsrv_text_equal(child->text, text))) return child;
    }
    return NULL;
}

static hsrv_node *hsrv_router_new_node(hsrv_memory *memory, hsrv_node *parent, httpsrv_str path, httpsrv_str text) {
    hsrv_node *node = (hsrv_node *)hsrv_memory_take_zeroed(memory, sizeof *node + path.len);
    if (!node) return NULL;
    node->parent = parent;
    node->kind = hsrv_router_kind(text);
    node->literal = node->kind == HSRV_SEGMENT_LITERAL && (!parent->parent || parent->literal);
    memcpy(node + 1, path.ptr, path.len);
    node->path = hsrv_text_view((const char *)(node + 1), path.len);
    node->text = hsrv_text_view(node->path.ptr + path.len - text.len, text.len);
    return node;
}

// Keeps children in the order in which they are tried: by kind.
static void hsrv_router_link_child(hsrv_node *parent, hsrv_node *child) {
    hsrv_node **link = &parent->child;
    while (*link && (*link)->kind <= child->kind) {
        link = &(*link)->sibling;
    }
    child->sibling = *link;
    *link = child;
}

// The node for a pattern's path, made if need be. NULL when out of memory.
static hsrv_node *hsrv_router_node(hsrv_router *router, hsrv_memory *memory, httpsrv_str path) {
    if (path.ptr[0] == '*') return &router->asterisk;
    const char *start = path.ptr;
    hsrv_node *node = &router->root;
    while (path.len > 0) {
        const httpsrv_str segment = hsrv_router_segment(&path);
        hsrv_node *child = hsrv_router_find_child(node, hsrv_router_kind(segment), segment);
        if (!child) {
            child = hsrv_router_new_node(memory, node, hsrv_text_view(start, (size_t)(path.ptr - start)), segment);
            if (!child) return NULL;
            hsrv_router_link_child(node, child);
            router->num_nodes++;
        }
        node = child;
    }
    return node;
}

// ---- regular expressions ----

#define HSRV_MAX_SUBJECT 1024u // bytes of a path that expressions are tried on

#ifdef HTTPSRV_NO_REGEX

static httpsrv_result hsrv_router_regex_check(httpsrv_str expression, hsrv_route *route) {
    (void)expression;
    (void)route;
    return HTTPSRV_UNSUPPORTED;
}

static void hsrv_router_regexes_free(hsrv_router *router, hsrv_memory *memory, hsrv_regex *regexes) {
    (void)router;
    (void)memory;
    (void)regexes;
}

#else

// Parameter number i, from 1, is named by its number.
static httpsrv_str hsrv_router_number(size_t i) {
    static const char numbers[] =
        "123456789101112131415161718192021222324252627282930313233343536373839404142434445464748"
        "49505152535455565758596061626364"; // HTTPSRV_MAX_PARAMS is at most 64
    return i < 10 ? hsrv_text_view(numbers + i - 1, 1) : hsrv_text_view(numbers + 9 + (i - 10) * 2, 2);
}

// Back-references, which the C library takes as an extension, make matching exponential.
static bool hsrv_router_refers_back(httpsrv_str expression) {
    for (size_t i = 0; i + 1 < expression.len; i++) {
        if (expression.ptr[i] != '\\') continue;
        if (hsrv_text_is(expression.ptr[++i], HSRV_DIGIT)) return true;
    }
    return false;
}

static httpsrv_result hsrv_router_regex_compile(const char *expression, hsrv_regex *out) {
    const int error = regcomp(out, expression, REG_EXTENDED);
    return error == 0 ? HTTPSRV_OK : error == REG_ESPACE ? HTTPSRV_NOMEM : HTTPSRV_ROUTE;
}

// Whether an expression, which is terminated, can be a route's. Fills in the names of its parameters.
static httpsrv_result hsrv_router_regex_check(httpsrv_str expression, hsrv_route *route) {
    hsrv_regex compiled;
    if (expression.len == 0 || hsrv_router_refers_back(expression)) return HTTPSRV_ROUTE;
    const httpsrv_result result = hsrv_router_regex_compile(expression.ptr, &compiled);
    if (result != HTTPSRV_OK) return result;
    const size_t groups = compiled.re_nsub;
    regfree(&compiled);
    if (groups > HTTPSRV_MAX_PARAMS) return HTTPSRV_ROUTE;
    route->num_params = (int)groups;
    for (size_t i = 0; i < groups; i++) {
        route->params[i] = hsrv_router_number(i + 1);
    }
    return HTTPSRV_OK;
}

// Frees the first `count` expressions and the array that hsrv_router_regexes_new has made.
static void hsrv_router_regexes_give(hsrv_router *router, hsrv_memory *memory, hsrv_regex *regexes, size_t count) {
    for (size_t i = 0; i < count; i++) {
        regfree(&regexes[i]);
    }
    hsrv_memory_give(memory, regexes, router->num_regexes * sizeof(hsrv_regex));
}

static void hsrv_router_regexes_free(hsrv_router *router, hsrv_memory *memory, hsrv_regex *regexes) {
    if (regexes) hsrv_router_regexes_give(router, memory, regexes, router->num_regexes);
}

// A compiled copy of each expression, by its number. NULL when out of memory. [setup]
static hsrv_regex *hsrv_router_regexes_new(hsrv_router *router, hsrv_memory *memory) {
    hsrv_regex *regexes = (hsrv_regex *)hsrv_memory_take(memory, router->num_regexes * sizeof(hsrv_regex));
    if (!regexes) return NULL;
    for (const hsrv_node *node = router->regexes; node; node = node->sibling) {
        if (hsrv_router_regex_compile(node->path.ptr, &regexes[node->number]) == HTTPSRV_OK) continue;
        hsrv_router_regexes_give(router, memory, regexes, node->number);
        return NULL;
    }
    return regexes;
}

// A terminated copy of a decoded path. False if it is too long to be tried.
static bool hsrv_router_subject(char subject[HSRV_MAX_SUBJECT + 1], httpsrv_str path) {
    if (path.len > HSRV_MAX_SUBJECT) return false;
    memcpy(subject, path.ptr, path.len);
    subject[path.len] = '\0';
    return true;
}

// The first expression from `node` on that fits; NULL for none. Out of memory counts as that, and sets *result.
static const hsrv_node *hsrv_router_regex_next(const hsrv_node *node, const hsrv_regex *regexes, const char *subject,
                                               regmatch_t groups[HTTPSRV_MAX_PARAMS + 1], httpsrv_result *result) {
    for (; node; node = node->sibling) {
        const int error = regexec(&regexes[node->number], subject, HTTPSRV_MAX_PARAMS + 1, groups, 0);
        if (error == 0) return node;
        if (error == REG_ESPACE) *result = HTTPSRV_NOMEM;
    }
    return NULL;
}

#endif // HTTPSRV_NO_REGEX

// The node for an expression, made if need be. NULL when out of memory.
static hsrv_node *hsrv_router_regex_node(hsrv_router *router, hsrv_memory *memory, httpsrv_str expression) {
    for (hsrv_node *node = router->regexes; node; node = node->sibling) {
        if (hsrv_text_equal(node->path, expression)) return node;
    }
    hsrv_node *node = (hsrv_node *)hsrv_memory_take_zeroed(memory, sizeof *node + expression.len + 1);
    if (!node) return NULL;
    memcpy(node + 1, expression.ptr, expression.len);
    node->kind = HSRV_SEGMENT_REGEX;
    node->path = node->text = hsrv_text_view((const char *)(node + 1), expression.len);
    node->number = router->num_regexes++;
    if (router->last_regex) router->last_regex->sibling = node;
    if (!router->last_regex) router->regexes = node;
    router->last_regex = node;
    return node;
}

// ---- setup ----

// Finds or makes the node of a pattern's path. OK, ROUTE (malformed), NOMEM, UNSUPPORTED.
static httpsrv_result hsrv_router_place(hsrv_router *router, hsrv_memory *memory, hsrv_route *route, httpsrv_str path,
                                        hsrv_node **node) {
    if (path.len > 0 && path.ptr[0] == '~') {
        const httpsrv_str expression = hsrv_text_view(path.ptr + 1, path.len - 1);
        const httpsrv_result result = hsrv_router_regex_check(expression, route);
        if (result != HTTPSRV_OK) return result;
        *node = hsrv_router_regex_node(router, memory, expression);
    } else {
        if (!hsrv_router_pattern_valid(path, route)) return HTTPSRV_ROUTE;
        *node = hsrv_router_node(router, memory, path);
    }
    return *node ? HTTPSRV_OK : HTTPSRV_NOMEM;
}

// Adds a route whose pattern is set. OK, ROUTE (malformed or taken), NOMEM, UNSUPPORTED.
static httpsrv_result hsrv_router_add(hsrv_router *router, hsrv_memory *memory, hsrv_route *route) {
    const char *space = strchr(route->pattern, ' ');
    if (!space) return HTTPSRV_ROUTE;
    route->method = hsrv_text_view(route->pattern, (size_t)(space - route->pattern));
    route->method_id = hsrv_parser_method_id(route->method);
    if (!hsrv_text_is_token(route->method)) return HTTPSRV_ROUTE;
    hsrv_node *node;
    const httpsrv_result result = hsrv_router_place(router, memory, route, hsrv_text_of(space + 1), &node);
    if (result != HTTPSRV_OK) return result;
    hsrv_route **link = &node->routes;
    for (; *link; link = &(*link)->next) {
        if (hsrv_text_equal((*link)->method, route->method)) return HTTPSRV_ROUTE;
    }
    *link = route;
    return HTTPSRV_OK;
}

// The hash is over paths chosen at setup; a client's path only looks one up. So no choice of paths makes it slow.
static size_t hsrv_router_hash(httpsrv_str path) {
    uint64_t h = path.len, word;
    const char *p = path.ptr;
    size_t left = path.len;
    for (; left > 8; left -= 8, p += 8) {
        memcpy(&word, p, 8);
        h = (h ^ word) * UINT64_C(0x9e3779b97f4a7c15);
        h ^= h >> 32;
    }
    for (word = 0; left > 0; left--) {
        word = word << 8 | (unsigned char)p[left - 1];
    }
    h = (h ^ word) * UINT64_C(0x9e3779b97f4a7c15);
    return (size_t)(h ^ h >> 32);
}

// The node after this one in a walk through the whole tree, parents first; NULL at the end.
static hsrv_node *hsrv_router_walk(hsrv_node *node) {
    if (node->child) return node->child;
    while (node && !node->sibling) {
        node = node->parent;
    }
    return node ? node->sibling : NULL;
}

// The node after this one in a walk through all there are: the asterisk, the tree, the expressions. NULL at the end.
static hsrv_node *hsrv_router_next(hsrv_router *router, hsrv_node *node) {
    if (node->kind == HSRV_SEGMENT_REGEX) return node->sibling;
    hsrv_node *next = node == &router->asterisk ? router->root.child : hsrv_router_walk(node);
    return next ? next : router->regexes;
}

// [setup] Once all routes are there. False when out of memory.
static bool hsrv_router_build(hsrv_router *router, hsrv_memory *memory) {
    if (router->exact) return true;
    size_t size = 16;
    while (size < router->num_nodes * 4) {
        size *= 2;
    }
    router->exact = (hsrv_node **)hsrv_memory_take_zeroed(memory, size * sizeof(hsrv_node *));
    if (!router->exact) return false;
    router->exact_size = size;
    for (hsrv_node *node = router->root.child; node; node = hsrv_router_walk(node)) {
        if (!node->literal || !node->routes) continue;
        size_t i = hsrv_router_hash(node->path);
        while (router->exact[i & (size - 1)]) {
            i++;
        }
        router->exact[i & (size - 1)] = node;
    }
    return true;
}

static void hsrv_router_free_route(hsrv_memory *memory, hsrv_route *route) {
    hsrv_memory_give_text(memory, route->pattern);
    hsrv_memory_give_text(memory, route->pool_name);
    for (int i = 0; i < route->num_media; i++) {
        hsrv_memory_give_text(memory, (char *)(uintptr_t)route->media[i].type);
    }
    hsrv_memory_give(memory, route, sizeof *route);
}

static void hsrv_router_free_routes(hsrv_memory *memory, hsrv_node *node) {
    while (node->routes) {
        hsrv_route *route = node->routes;
        node->routes = route->next;
        hsrv_router_free_route(memory, route);
    }
}

static void hsrv_router_free(hsrv_router *router, hsrv_memory *memory) {
    hsrv_router_free_routes(memory, &router->asterisk);
    while (router->regexes) {
        hsrv_node *node = router->regexes;
        router->regexes = node->sibling;
        hsrv_router_free_routes(memory, node);
        hsrv_memory_give(memory, node, sizeof *node + node->path.len + 1);
    }
    for (hsrv_node *node = router->root.child; node;) {
        if (node->child) {
            node = node->child;
            continue;
        }
        hsrv_node *parent = node->parent, *sibling = node->sibling;
        hsrv_router_free_routes(memory, node);
        hsrv_memory_give(memory, node, sizeof *node + node->path.len);
        parent->child = sibling;
        node = sibling ? sibling : parent == &router->root ? NULL : parent;
    }
    hsrv_memory_give(memory, router->exact, router->exact_size * sizeof(hsrv_node *));
}

// A search for the nodes that fit a path, best first: literal before parameter before wildcard at each segment from the
// left. Going back on the way is bounded: the tree above a node fixes where its segment begins, so no node is tried
// twice. The path is resolved and still encoded; its segments end at raw slashes only.
typedef struct hsrv_search {
    httpsrv_str path;
    hsrv_node *next;                      // to be tried now, NULL: go back
    hsrv_node *last;                      // the last one entered
    int depth;                            // segments entered
    size_t starts[HSRV_MAX_SEGMENTS + 1]; // where the segment of each depth begins in the path, its slash included
} hsrv_search;

static void hsrv_router_search(hsrv_search *search, hsrv_router *router, httpsrv_str path) {
    search->path = path;
    search->next = router->root.child;
    search->last = &router->root;
    search->depth = 0;
    search->starts[0] = 0;
}

static size_t hsrv_router_segment_end(httpsrv_str path, size_t start) {
    size_t end = start + 1;
    while (end < path.len && path.ptr[end] != '/') {
        end++;
    }
    return end;
}

// Whether a node fits the segment of the path that begins at `start`; *end is where it ends.
static bool hsrv_router_fits(const hsrv_node *node, httpsrv_str path, size_t start, size_t *end) {
    *end = node->kind == HSRV_SEGMENT_REST ? path.len : hsrv_router_segment_end(path, start);
    const httpsrv_str segment = hsrv_text_view(path.ptr + start + 1, *end - start - 1);
    switch (node->kind) {
    case HSRV_SEGMENT_LITERAL: return hsrv_text_decoded_equal(segment, node->text, false);
    case HSRV_SEGMENT_PARAM: return segment.len > 0;
    default: return true;
    }
}

// The next node that fits the whole path, NULL when there is none left.
static const hsrv_node *hsrv_router_search_next(hsrv_search *s) {
    for (;;) {
        size_t end;
        if (!s->next) {
            if (s->depth == 0) return NULL;
            s->next = s->last->sibling;
            s->last = s->last->parent;
            s->depth--;
            continue;
        }
        hsrv_node *node = s->next;
        const size_t start = s->starts[s->depth];
        if (start >= s->path.len || !hsrv_router_fits(node, s->path, start, &end)) {
            s->next = node->sibling;
            continue;
        }
        s->last = node;
        s->starts[++s->depth] = end;
        s->next = end < s->path.len ? node->child : NULL;
        if (end == s->path.len) return node;
    }
}

// The texts of the parameters on the way to the node that the search returned last; encoded. Returns how many.
static int hsrv_router_params(const hsrv_search *s, httpsrv_str *params) {
    int count = 0;
    for (const hsrv_node *node = s->last; node->parent; node = node->parent) {
        count += node->kind != HSRV_SEGMENT_LITERAL;
    }
    int i = count, depth = s->depth;
    for (const hsrv_node *node = s->last; node->parent; node = node->parent, depth--) {
        if (node->kind == HSRV_SEGMENT_LITERAL) continue;
        const size_t start = s->starts[depth - 1] + 1;
        params[--i] = hsrv_text_view(s->path.ptr + start, s->starts[depth] - start);
    }
    return count;
}

// Which route of a node a method takes: its own, for HEAD also GET's, else the one for any.
static const hsrv_route *hsrv_router_pick(const hsrv_node *node, httpsrv_method_id id, httpsrv_str method) {
    const hsrv_route *any = NULL, *get = NULL;
    for (const hsrv_route *route = node->routes; route; route = route->next) {
        if (route->method_id == id && (id != HTTPSRV_METHOD_OTHER || hsrv_text_equal(route->method, method)))
            return route;
        if (route->method_id == HTTPSRV_METHOD_GET) get = route;
        if (route->method.len == 1 && route->method.ptr[0] == '*') any = route;
    }
    return id == HTTPSRV_METHOD_HEAD && get ? get : any;
}

static const hsrv_route *hsrv_router_exact(const hsrv_router *router, httpsrv_str path, httpsrv_method_id id,
                                           httpsrv_str method) {
    for (size_t i = hsrv_router_hash(path);; i++) {
        const hsrv_node *node = router->exact[i & (router->exact_size - 1)];
        if (!node) return NULL;
        if (hsrv_text_equal(node->path, path)) return hsrv_router_pick(node, id, method);
    }
}

// Whether some route names this extension method.
static bool hsrv_router_knows(hsrv_router *router, httpsrv_str method) {
    for (hsrv_node *node = &router->asterisk; node; node = hsrv_router_next(router, node)) {
        for (const hsrv_route *route = node->routes; route; route = route->next) {
            if (hsrv_text_equal(route->method, method)) return true;
        }
    }
    return false;
}

// Room for an Allow field: the methods with names of their own, and a few extension methods.
#define HSRV_ALLOW_SIZE 256

static bool hsrv_router_allow_has(httpsrv_str list, httpsrv_str method) {
    httpsrv_str element;
    while (hsrv_text_next_element(&list, &element)) {
        if (hsrv_text_equal(element, method)) return true;
    }
    return false;
}

static void hsrv_router_allow_add(char *buf, httpsrv_str *list, httpsrv_str method) {
    if (hsrv_router_allow_has(*list, method) || list->len + method.len + 2 > HSRV_ALLOW_SIZE) return;
    char *out = buf + list->len;
    if (list->len > 0) out = HSRV_APPEND(out, ", ");
    out = hsrv_text_append(out, method);
    *list = hsrv_text_view(buf, (size_t)(out - buf));
}

// Adds what a node's routes allow: RFC 9110 section 10.2.1. HEAD comes with GET, OPTIONS with any.
static void hsrv_router_allow_node(char *buf, httpsrv_str *list, const hsrv_node *node) {
    static const char *const any[] = {"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"};
    for (const hsrv_route *route = node->routes; route; route = route->next) {
        if (route->method.len == 1 && route->method.ptr[0] == '*') {
            for (size_t i = 0; i < sizeof any / sizeof any[0]; i++) {
                hsrv_router_allow_add(buf, list, hsrv_text_of(any[i]));
            }
            continue;
        }
        hsrv_router_allow_add(buf, list, route->method);
        if (route->method_id == HTTPSRV_METHOD_GET) hsrv_router_allow_add(buf, list, hsrv_text_of("HEAD"));
    }
    if (node->routes) hsrv_router_allow_add(buf, list, hsrv_text_of("OPTIONS"));
}

// The methods that a path can be asked with; empty if there is no such path.
static httpsrv_str hsrv_router_allow(hsrv_router *router, httpsrv_str path, char buf[HSRV_ALLOW_SIZE]) {
    hsrv_search search;
    httpsrv_str list = hsrv_text_view(buf, 0);
    hsrv_router_search(&search, router, path);
    for (const hsrv_node *node = hsrv_router_search_next(&search); node; node = hsrv_router_search_next(&search)) {
        hsrv_router_allow_node(buf, &list, node);
    }
    return list;
}

// The methods of the server as a whole, for "OPTIONS *".
static httpsrv_str hsrv_router_allow_all(hsrv_router *router, char buf[HSRV_ALLOW_SIZE]) {
    httpsrv_str list = hsrv_text_view(buf, 0);
    for (hsrv_node *node = hsrv_router_next(router, &router->asterisk); node; node = hsrv_router_next(router, node)) {
        hsrv_router_allow_node(buf, &list, node);
    }
    hsrv_router_allow_add(buf, &list, hsrv_text_of("OPTIONS"));
    return list;
}

// ===========================================================================================
// >>timers    Deadlines.    owns: the wheels    thread: loop    uses: >>state
// ===========================================================================================

// One wheel for each duration, all deadlines of which lie within a sixteenth or so more than the duration ahead. A node
// is looked at when its place comes up, never early and late by less than a tick. Activity does not touch the node, it
// only stamps the connection: whoever looks at the node then finds the true deadline later and queues it again.

static void hsrv_timers_init(hsrv_wheel *wheel, int duration_ms, uint64_t now) {
    memset(wheel, 0, sizeof *wheel);
    if (duration_ms < 0) return;
    wheel->duration = (uint32_t)duration_ms;
    wheel->tick = (wheel->duration + 15u) / 16u;
    if (wheel->tick == 0) wheel->tick = 1;
    wheel->done = now / wheel->tick;
}

static void hsrv_timers_unlink(hsrv_loop *loop, hsrv_conn *c) {
    if (c->ring == HSRV_RINGS) return;
    hsrv_wheel *wheel = &loop->wheels[c->ring];
    if (c->timer_prev) c->timer_prev->timer_next = c->timer_next;
    if (!c->timer_prev) wheel->places[c->place] = c->timer_next;
    if (c->timer_next) c->timer_next->timer_prev = c->timer_prev;
    if (!wheel->places[c->place]) wheel->occupied &= ~(1u << c->place);
    c->ring = HSRV_RINGS;
}

static void hsrv_timers_link(hsrv_loop *loop, hsrv_conn *c, hsrv_ring ring, uint64_t deadline) {
    hsrv_wheel *wheel = &loop->wheels[ring];
    uint64_t number = (deadline + wheel->tick - 1) / wheel->tick;
    const uint64_t current = loop->now / wheel->tick; // not in this turn again: it would be taken out for ever
    if (number <= current) number = current + 1;
    if (number > wheel->done + HSRV_PLACES) number = wheel->done + HSRV_PLACES; // the wheel lags: look at it sooner
    const uint32_t place = (uint32_t)number & (HSRV_PLACES - 1);
    c->ring = (uint8_t)ring;
    c->place = (uint8_t)place;
    c->due = (uint32_t)(number * wheel->tick);
    c->timer_prev = NULL;
    c->timer_next = wheel->places[place];
    if (c->timer_next) c->timer_next->timer_prev = c;
    wheel->places[place] = c;
    wheel->occupied |= 1u << place;
}

// Makes sure that the connection is looked at in time for a deadline of this ring. Nothing to do if that is so already,
// which is the case for all requests but one in a while.
static void hsrv_timers_arm(hsrv_loop *loop, hsrv_conn *c, hsrv_ring ring, uint64_t deadline) {
    const uint64_t tick = loop->wheels[ring].tick;
    if (tick == 0) return;
    if (c->ring != HSRV_RINGS && (int32_t)(c->due - (uint32_t)(deadline + tick)) < 0) return;
    hsrv_timers_unlink(loop, c);
    hsrv_timers_link(loop, c, ring, deadline);
}

// Takes out one connection whose place has come up; NULL if there is none left.
static hsrv_conn *hsrv_timers_take_due(hsrv_loop *loop) {
    for (int i = 0; i < HSRV_RINGS; i++) {
        hsrv_wheel *wheel = &loop->wheels[i];
        if (loop->now < wheel->next || wheel->tick == 0) continue;
        const uint64_t current = loop->now / wheel->tick;
        if (current > wheel->done + HSRV_PLACES) wheel->done = current - HSRV_PLACES;
        if (wheel->occupied == 0) wheel->done = current;
        for (; wheel->done < current; wheel->done++) {
            hsrv_conn *c = wheel->places[(wheel->done + 1) & (HSRV_PLACES - 1)];
            if (!c) continue;
            hsrv_timers_unlink(loop, c);
            return c;
        }
        wheel->next = (current + 1) * wheel->tick;
    }
    return NULL;
}

// When the next place comes up, in ms of the loop's clock; UINT64_MAX if none is occupied.
static uint64_t hsrv_timers_next(const hsrv_loop *loop) {
    uint64_t next = UINT64_MAX;
    for (int i = 0; i < HSRV_RINGS; i++) {
        const hsrv_wheel *wheel = &loop->wheels[i];
        if (wheel->occupied == 0) continue;
        const unsigned shift = (unsigned)(wheel->done + 1) & (HSRV_PLACES - 1);
        const uint32_t ahead =
            shift == 0 ? wheel->occupied : wheel->occupied >> shift | wheel->occupied << (HSRV_PLACES - shift);
        const uint64_t at = (wheel->done + 1 + (unsigned)__builtin_ctz(ahead)) * wheel->tick;
        if (at < next) next = at;
    }
    return next;
}

// ===========================================================================================
// >>output    Chain of segments; the transport.    owns: segments    thread: staging holder, chain loop
//             uses: >>state
// ===========================================================================================

// The one place where bytes meet the socket. A transport that encrypts will stand here.
typedef enum hsrv_io { HSRV_IO_OK, HSRV_IO_AGAIN, HSRV_IO_EOF, HSRV_IO_LOST } hsrv_io;

static hsrv_io hsrv_output_status(ssize_t n, size_t *done) {
    *done = n > 0 ? (size_t)n : 0;
    if (n >= 0) return HSRV_IO_OK;
    return errno == EAGAIN ? HSRV_IO_AGAIN : HSRV_IO_LOST;
}

static hsrv_io hsrv_output_read(int fd, char *buf, size_t size, size_t *done) {
    ssize_t n;
    do {
        n = hsrv_sys_recv(fd, buf, size);
    } while (n < 0 && errno == EINTR);
    return n == 0 ? HSRV_IO_EOF : hsrv_output_status(n, done);
}

static hsrv_io hsrv_output_send(int fd, const char *buf, size_t len, size_t *done) {
    ssize_t n;
    do {
        n = hsrv_sys_send(fd, buf, len);
    } while (n < 0 && errno == EINTR);
    return hsrv_output_status(n, done);
}

#define HSRV_SEND_PIECES 32
#define HSRV_JOIN_FILE   4096u // bytes of a file up to which the head waits for them: one packet, but more work than two

static hsrv_io hsrv_output_send_pieces(int fd, struct iovec *pieces, size_t count, bool more, size_t *done) {
    struct msghdr message;
    memset(&message, 0, sizeof message);
    message.msg_iov = pieces;
    message.msg_iovlen = (__typeof__(message.msg_iovlen))count; // an int with musl
    ssize_t n;
    do {
        n = hsrv_sys_sendmsg(fd, &message, more);
    } while (n < 0 && errno == EINTR);
    return hsrv_output_status(n, done);
}

static hsrv_io hsrv_output_send_chain(int fd, const hsrv_chain *chain, size_t *asked, size_t *done) {
    struct iovec pieces[HSRV_SEND_PIECES];
    size_t count = 0;
    const hsrv_segment *s = chain->first;
    *asked = 0;
    for (; s && !s->file && count < HSRV_SEND_PIECES; s = s->next) {
        pieces[count].iov_base = (void *)(uintptr_t)s->ptr;
        pieces[count++].iov_len = s->len;
        *asked += s->len;
    }
    const bool joins = s && s->file && s->len <= HSRV_JOIN_FILE;
    return hsrv_output_send_pieces(fd, pieces, count, joins, done);
}

// Sends bytes of the file that comes first in a chain. Nothing sent and OK: it has become shorter.
static hsrv_io hsrv_output_send_file(int fd, const hsrv_segment *segment, size_t most, size_t *done) {
    const size_t len = segment->len < most ? segment->len : most;
    ssize_t n;
    do {
        n = hsrv_sys_sendfile(fd, segment->file->fd, segment->offset, len);
    } while (n < 0 && errno == EINTR);
    return hsrv_output_status(n, done);
}

static void hsrv_output_append(hsrv_chain *chain, hsrv_segment *segment) {
    segment->next = NULL;
    if (chain->last) chain->last->next = segment;
    if (!chain->last) chain->first = segment;
    chain->last = segment;
}

// A segment with room for `size` bytes of its own, not in a chain yet; ptr is writable until it is. NULL: no memory.
static hsrv_segment *hsrv_output_new(hsrv_memory *memory, size_t size) {
    if (size > (size_t)PTRDIFF_MAX - sizeof(hsrv_segment)) return NULL;
    hsrv_segment *segment = (hsrv_segment *)hsrv_memory_take(memory, sizeof *segment + size);
    if (!segment) return NULL;
    segment->size = sizeof *segment + size;
    segment->ptr = (const char *)(segment + 1);
    segment->len = size;
    segment->release = NULL;
    segment->release_arg = NULL;
    segment->file = NULL;
    segment->raw = segment->lost = false;
    return segment;
}

// One with a copy of the bytes, and room for the frame of a chunk around them.
#define HSRV_CHUNK_HEAD 18 // 16 digits and a line end
#define HSRV_CHUNK_TAIL 2  // a line end

static hsrv_segment *hsrv_output_new_piece(hsrv_memory *memory, httpsrv_str bytes) {
    if (bytes.len > (size_t)PTRDIFF_MAX - sizeof(hsrv_segment) - HSRV_CHUNK_HEAD - HSRV_CHUNK_TAIL) return NULL;
    hsrv_segment *segment = hsrv_output_new(memory, HSRV_CHUNK_HEAD + bytes.len + HSRV_CHUNK_TAIL);
    if (!segment) return NULL;
    segment->ptr += HSRV_CHUNK_HEAD;
    segment->len = bytes.len;
    hsrv_text_append((char *)(segment + 1) + HSRV_CHUNK_HEAD, bytes);
    return segment;
}

// Writes the head of a chunk in front of `end`; returns where it begins. RFC 9112 section 7.1.
static char *hsrv_output_chunk_head(char *end, size_t len) {
    char digits[16];
    const size_t n = (size_t)(hsrv_text_format_hex(digits, len) - digits);
    memcpy(end - 2, "\r\n", 2);
    memcpy(end - 2 - n, digits, n);
    return end - 2 - n;
}

// Makes a piece a chunk.
static void hsrv_output_frame(hsrv_segment *segment) {
    char *bytes = (char *)(segment + 1) + HSRV_CHUNK_HEAD;
    segment->ptr = hsrv_output_chunk_head(bytes, segment->len);
    memcpy(bytes + segment->len, "\r\n", 2);
    segment->len += (size_t)(bytes - segment->ptr) + HSRV_CHUNK_TAIL;
}

static void hsrv_output_drop(hsrv_memory *memory, hsrv_segment *segment) {
    if (segment->release) segment->release(segment->release_arg);
    hsrv_memory_give(memory, segment, segment->size);
}

// The kernel took n bytes.
static void hsrv_output_consume(hsrv_memory *memory, hsrv_chain *chain, size_t n) {
    while (chain->first && n >= chain->first->len) {
        hsrv_segment *segment = chain->first;
        n -= segment->len;
        chain->first = segment->next;
        if (!chain->first) chain->last = NULL;
        hsrv_output_drop(memory, segment);
    }
    if (n == 0) return;
    if (chain->first->file)
        chain->first->offset += (int64_t)n;
    else
        chain->first->ptr += n;
    chain->first->len -= n;
}

// ---- files ----

static void hsrv_output_unuse_file(void *arg) {
    hsrv_file *file = (hsrv_file *)arg;
    if (__atomic_sub_fetch(&file->uses, 1u, __ATOMIC_ACQ_REL) > 0) return;
    if (file->fd >= 0) hsrv_sys_close(file->fd);
    hsrv_memory_give(file->memory, file->content, file->content ? (size_t)file->size : 0);
    hsrv_memory_give(file->memory, file, sizeof *file);
}

static hsrv_file *hsrv_output_use_file(hsrv_file *file) {
    if (file) __atomic_fetch_add(&file->uses, 1u, __ATOMIC_RELAXED);
    return file;
}

// Bytes of a file that is open, or that was read. NULL when out of memory.
static hsrv_segment *hsrv_output_new_file(hsrv_memory *memory, hsrv_file *file, int64_t offset, size_t len) {
    hsrv_segment *segment = hsrv_output_new(memory, 0);
    if (!segment) return NULL;
    segment->file = file->content ? NULL : file;
    segment->ptr = file->content ? file->content + offset : NULL;
    segment->offset = offset;
    segment->len = len;
    segment->release = hsrv_output_unuse_file;
    segment->release_arg = hsrv_output_use_file(file);
    return segment;
}

// Bytes in a chain.
static size_t hsrv_output_pending(const hsrv_chain *chain) {
    size_t n = 0;
    for (const hsrv_segment *s = chain->first; s; s = s->next) {
        n += s->len;
    }
    return n;
}

// Drops a list of segments that will not be sent.
static void hsrv_output_drop_list(hsrv_memory *memory, hsrv_segment *segment) {
    while (segment) {
        hsrv_segment *next = segment->next;
        segment->lost = true;
        hsrv_output_drop(memory, segment);
        segment = next;
    }
}

static void hsrv_output_clear(hsrv_memory *memory, hsrv_chain *chain) {
    hsrv_output_drop_list(memory, chain->first);
    chain->first = chain->last = NULL;
}

// ===========================================================================================
// >>loop      One event loop.    owns: epoll, lists, buffers, counters, clock    thread: loop; post any
//             uses: >>log >>router >>timers >>output
// ===========================================================================================

#define HSRV_SPARE_REQUESTS 64              // kept by a loop for the next ones
#define HSRV_LINGER_MS      2000            // how long a client may take to notice the end
#define HSRV_WAKE_SLOT      (HSRV_NONE - 1) // epoll identity of the eventfd; listeners are HTTPSRV_MAX_LISTENERS below

// ---- counters, log ----

// Whether an address is one of IPv4, mapped into IPv6.
static bool hsrv_loop_is_ipv4(const unsigned char peer[16]) {
    static const unsigned char mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    return memcmp(peer, mapped, sizeof mapped) == 0;
}

static size_t hsrv_loop_peer_text(const unsigned char peer[16], char text[INET6_ADDRSTRLEN]) {
    static const unsigned char none[16] = {0};
    const bool is_v4 = hsrv_loop_is_ipv4(peer);
    if (memcmp(peer, none, sizeof none) == 0) return (size_t)(HSRV_APPEND(text, "unix") - text);
    if (!inet_ntop(is_v4 ? AF_INET : AF_INET6, is_v4 ? peer + 12 : peer, text, INET6_ADDRSTRLEN)) return 0;
    return strlen(text);
}

// Counts an item and, if somebody listens, logs it. c may be NULL.
static void hsrv_loop_note(hsrv_loop *loop, httpsrv_log_item item, const hsrv_conn *c, int err) {
    hsrv_platform_count(&loop->counters.items[item], 1);
    const httpsrv_logger logger = loop->srv->config.logger.fn;
    if (!logger) return;
    char peer[INET6_ADDRSTRLEN];
    httpsrv_log record;
    record.item = item;
    record.level = hsrv_log_item_level(item);
    record.text = hsrv_log_item_text(item);
    record.sys_errno = err;
    record.reactor = loop->number;
    record.peer = c ? hsrv_text_view(peer, hsrv_loop_peer_text(c->peer, peer)) : hsrv_text_absent();
    logger(&record, loop->srv->config.logger.user);
}

// ---- clock ----

// The block of lines that opens each 200 answer: status, Server, Date; then those of an answer that has nothing else but a
// type. Made once a second, and for another type.
static void hsrv_loop_make_block(hsrv_loop *loop) {
    char *out = HSRV_APPEND(loop->block, "HTTP/1.1 200 OK\r\n");
    const char *first_line_end = out;
    const httpsrv_str name = hsrv_text_of(loop->srv->server_name);
    if (name.len > 0) {
        out = HSRV_APPEND(out, "Server: ");
        out = hsrv_text_append(out, name);
        out = HSRV_APPEND(out, "\r\n");
    }
    loop->status_line_len = (size_t)(first_line_end - loop->block);
    loop->server_line_len = (size_t)(out - first_line_end);
    out = HSRV_APPEND(out, "Date: ");
    out = hsrv_text_format_date(out, loop->date_second);
    out = HSRV_APPEND(out, "\r\n");
    loop->status_block = hsrv_text_view(loop->block, (size_t)(out - loop->block));
    if (!HSRV_SHORTCUTS) return;
    out = HSRV_APPEND(out, "Content-Type: ");
    out = hsrv_text_append(out, hsrv_text_view(loop->plain_type, loop->plain_type_len));
    out = HSRV_APPEND(out, "\r\nContent-Length: ");
    loop->opening_len = (size_t)(out - loop->block);
    loop->plain_len = SIZE_MAX;
}

// Answers are mostly as long as the ones before.
static HSRV_APART void hsrv_loop_keep_length(hsrv_loop *loop, size_t len) {
    char *out = hsrv_text_format_number(loop->block + loop->opening_len, len);
    out = HSRV_APPEND(out, "\r\n\r\n");
    loop->plain_len = len;
    loop->plain_head_len = (size_t)(out - loop->block);
}

// Has a type, which is valid, announced by the block from now on. False if it is too long.
static HSRV_APART bool hsrv_loop_keep_type(hsrv_loop *loop, httpsrv_str type) {
    if (type.len > HSRV_MAX_PLAIN_TYPE) return false;
    memcpy(loop->plain_type, type.ptr, type.len);
    loop->plain_type[type.len] = '\0';
    loop->plain_type_len = type.len;
    hsrv_loop_make_block(loop);
    return true;
}

static void hsrv_loop_look_at_clock(hsrv_loop *loop) {
    loop->now = hsrv_sys_monotonic_ms();
    const int64_t second = hsrv_sys_unix_seconds();
    if (second == loop->date_second) return;
    loop->date_second = second;
    hsrv_loop_make_block(loop);
}

// ---- life ----

static int hsrv_loop_watch(hsrv_loop *loop, int fd, uint32_t events, uint32_t generation, uint32_t slot) {
    struct epoll_event event;
    memset(&event, 0, sizeof event);
    event.events = events;
    event.data.u64 = (uint64_t)generation << 32 | slot;
    return hsrv_sys_epoll_ctl(loop->epfd, EPOLL_CTL_ADD, fd, &event);
}

static void hsrv_loop_close_fd(int *fd) {
    if (*fd >= 0) hsrv_sys_close(*fd);
    *fd = -1;
}

// ---- places of requests ----

// Which chunk a place is in, and its number there: the chunks before hold 64, 128, 256, ...
static uint32_t hsrv_loop_place_chunk(uint32_t number, uint32_t *at) {
    const uint32_t chunk = 31u - (uint32_t)__builtin_clz(number / HSRV_FIRST_PLACES + 1);
    *at = number - HSRV_FIRST_PLACES * ((1u << chunk) - 1);
    return chunk;
}

// NULL if there never was a place of that number. [any]
static hsrv_place *hsrv_loop_place(const hsrv_loop *loop, uint32_t number) {
    uint32_t at;
    const uint32_t chunk = hsrv_loop_place_chunk(number, &at);
    if (chunk >= HSRV_PLACE_CHUNKS) return NULL;
    hsrv_place *places = __atomic_load_n(&loop->places[chunk], __ATOMIC_ACQUIRE);
    return places ? places + at : NULL;
}

static bool hsrv_loop_add_places(hsrv_loop *loop, uint32_t chunk) {
    if (chunk >= HSRV_PLACE_CHUNKS) return false;
    const size_t count = (size_t)HSRV_FIRST_PLACES << chunk;
    hsrv_place *places = (hsrv_place *)hsrv_memory_take_zeroed(&loop->srv->memory, count * sizeof *places);
    if (!places) return false;
    for (size_t i = 0; i < count; i++) {
        places[i].cell = 1u << 2 | HSRV_PLACE_CLOSED; // no token is 0
    }
    __atomic_store_n(&loop->places[chunk], places, __ATOMIC_RELEASE);
    return true;
}

// Gives a request a place; false when out of memory.
static bool hsrv_loop_take_place(hsrv_loop *loop, httpsrv_req *req) {
    uint32_t at, number = loop->free_places;
    if (number == HSRV_NONE) {
        const uint32_t chunk = hsrv_loop_place_chunk(loop->num_places, &at);
        if (at == 0 && !hsrv_loop_add_places(loop, chunk)) return false;
        number = loop->num_places++;
    } else {
        loop->free_places = hsrv_loop_place(loop, number)->next;
    }
    req->place = hsrv_loop_place(loop, number);
    req->place_number = number;
    req->place->req = req;
    return true;
}

static void hsrv_loop_free_places(hsrv_loop *loop) {
    for (uint32_t i = 0; i < HSRV_PLACE_CHUNKS; i++) {
        const size_t count = (size_t)HSRV_FIRST_PLACES << i;
        hsrv_memory_give(&loop->srv->memory, loop->places[i], count * sizeof(hsrv_place));
    }
}

// What a request has read is about to be lost.
static inline void hsrv_loop_forget_again(hsrv_loop *loop, const httpsrv_req *req) {
    hsrv_again *again = &loop->again;
    if (again->req != req) return;
    again->req = NULL;
    again->idle = false;
    again->len = 0;
}

// The place of a request whose memory goes is free for another one.
static void hsrv_loop_free_request(hsrv_loop *loop, httpsrv_req *req) {
    hsrv_loop_forget_again(loop, req);
    if (HSRV_LATER && req->place) {
        req->place->next = loop->free_places;
        loop->free_places = req->place_number;
    }
    hsrv_memory_give(&loop->srv->memory, req, loop->request_size);
}

// ---- life ----

static void hsrv_loop_init_channels(hsrv_loop *loop) {
    hsrv_channels *channels = &loop->channels;
    channels->buckets = &channels->first;
    channels->num_buckets = 1;
    hsrv_sys_random(channels->secret, sizeof channels->secret); // without it, addresses in memory are secret enough
    channels->secret[0] ^= (uint64_t)(uintptr_t)loop;
}

// The last channel has gone, but a table may be left that could not be made smaller.
static void hsrv_loop_give_buckets(hsrv_loop *loop) {
    hsrv_channels *channels = &loop->channels;
    if (channels->num_buckets < 2) return;
    hsrv_memory_give(&loop->srv->memory, channels->buckets, channels->num_buckets * sizeof(hsrv_channel *));
}

static void hsrv_loop_free(hsrv_loop *loop) {
    hsrv_memory *memory = &loop->srv->memory;
    while (loop->spare_requests) {
        httpsrv_req *req = loop->spare_requests;
        loop->spare_requests = req->next;
        hsrv_loop_free_request(loop, req);
    }
    if (loop->again.idle) hsrv_loop_free_request(loop, loop->again.req);
    hsrv_loop_free_places(loop);
    hsrv_router_regexes_free(&loop->srv->router, memory, loop->regexes);
    hsrv_memory_slab_free(&loop->conns);
    hsrv_memory_give(memory, loop->input, HTTPSRV_READ_BUFFER);
    hsrv_memory_give(memory, loop->output, HTTPSRV_WRITE_BUFFER);
    hsrv_memory_give(memory, loop->block, loop->block_size);
    if (HSRV_LATER) hsrv_loop_give_buckets(loop);
    hsrv_loop_close_fd(&loop->epfd);
    hsrv_loop_close_fd(&loop->wakefd);
    hsrv_loop_close_fd(&loop->reservefd);
    hsrv_memory_give(memory, loop, sizeof *loop);
}

// A wheel that turns fast enough for the periods of min_rate, even if the time-out is off.
static void hsrv_loop_init_rated_wheel(hsrv_loop *loop, hsrv_ring ring, int timeout_ms) {
    hsrv_wheel *wheel = &loop->wheels[ring];
    const bool sooner = timeout_ms < 0 || timeout_ms > HTTPSRV_RATE_PERIOD;
    hsrv_timers_init(wheel, sooner && loop->srv->config.min_rate > 0 ? HTTPSRV_RATE_PERIOD : timeout_ms, loop->now);
    wheel->duration = timeout_ms < 0 ? 0u : (uint32_t)timeout_ms;
}

static void hsrv_loop_init_wheels(hsrv_loop *loop) {
    const httpsrv_config *config = &loop->srv->config;
    hsrv_timers_init(&loop->wheels[HSRV_RING_IDLE], config->timeout_ms.idle, loop->now);
    hsrv_timers_init(&loop->wheels[HSRV_RING_HEAD], config->timeout_ms.head, loop->now);
    hsrv_loop_init_rated_wheel(loop, HSRV_RING_BODY, config->timeout_ms.body);
    hsrv_loop_init_rated_wheel(loop, HSRV_RING_WRITE, config->timeout_ms.write);
    hsrv_timers_init(&loop->wheels[HSRV_RING_LINGER], HSRV_LINGER_MS, loop->now);
    hsrv_timers_init(&loop->wheels[HSRV_RING_HANDLER], loop->srv->shortest_timeout_ms, loop->now);
    hsrv_timers_init(&loop->wheels[HSRV_RING_EVENTS], config->timeout_ms.events, loop->now);
}

// What reactors need beside descriptors. Nothing is written to the large buffers here: on a machine with several memories
// they come to lie where the reactor's own thread runs.
static bool hsrv_loop_take_buffers(hsrv_loop *loop, uint32_t max_conns) {
    hsrv_memory *memory = &loop->srv->memory;
    loop->block_size = 192 + HSRV_MAX_PLAIN_TYPE + strlen(loop->srv->server_name);
    loop->block = (char *)hsrv_memory_take(memory, loop->block_size);
    loop->input = (char *)hsrv_memory_take(memory, HTTPSRV_READ_BUFFER);
    loop->output = (char *)hsrv_memory_take(memory, HTTPSRV_WRITE_BUFFER);
#ifndef HTTPSRV_NO_REGEX
    hsrv_router *router = &loop->srv->router;
    if (router->regexes) loop->regexes = hsrv_router_regexes_new(router, memory);
    if (router->regexes && !loop->regexes) return false;
#endif
    return loop->block && loop->input && loop->output &&
           hsrv_memory_slab_init(&loop->conns, memory, sizeof(hsrv_conn), max_conns);
}

// The eventfd is edge-triggered like everything else: each write is an edge, so nobody ever has to read it.
static bool hsrv_loop_open(hsrv_loop *loop) {
    loop->epfd = hsrv_sys_epoll_create();
    loop->wakefd = hsrv_sys_eventfd();
    loop->reservefd = hsrv_sys_open_null();
    return loop->epfd >= 0 && loop->wakefd >= 0 && loop->reservefd >= 0 &&
           hsrv_loop_watch(loop, loop->wakefd, EPOLLIN | EPOLLET, 0, HSRV_WAKE_SLOT) == 0;
}

// NULL with *result NOMEM or SYS (errno is set). [setup]
static hsrv_loop *hsrv_loop_new(httpsrv *srv, int number, uint32_t max_conns, httpsrv_result *result) {
    hsrv_loop *loop = (hsrv_loop *)hsrv_memory_take_zeroed(&srv->memory, sizeof *loop);
    *result = HTTPSRV_NOMEM;
    if (!loop) return NULL;
    loop->srv = srv;
    loop->number = number;
    loop->epfd = loop->wakefd = loop->reservefd = -1;
    loop->free_places = HSRV_NONE;
    if (HSRV_LATER) hsrv_loop_init_channels(loop);
    for (int i = 0; i < HTTPSRV_MAX_LISTENERS; i++) {
        loop->listeners[i] = -1;
    }
    loop->request_size = HSRV_ALIGN_UP(sizeof(httpsrv_req), 16) +
                         HSRV_ALIGN_UP((size_t)srv->config.max.headers * sizeof(httpsrv_field), 16) +
                         HTTPSRV_REQUEST_MEMORY;
    const bool has_buffers = hsrv_loop_take_buffers(loop, max_conns);
    if (has_buffers) *result = HTTPSRV_SYS;
    if (has_buffers && hsrv_loop_open(loop)) {
        loop->date_second = -1;
        hsrv_loop_look_at_clock(loop);
        hsrv_loop_init_wheels(loop);
        hsrv_queue_inbox_arm(&loop->inbox);
        *result = HTTPSRV_OK;
        return loop;
    }
    const int err = errno;
    hsrv_loop_free(loop);
    errno = err;
    return NULL;
}

// A debug build checks that only the thread that runs the loop touches what is the loop's.
static inline void hsrv_loop_assert_owner(const hsrv_loop *loop) {
#ifdef HTTPSRV_DEBUG
    HTTPSRV_ASSERT(!loop->in_turn || pthread_equal(loop->owner, pthread_self()));
#else
    (void)loop;
#endif
}

static void hsrv_loop_enter(hsrv_loop *loop) {
#ifdef HTTPSRV_DEBUG
    loop->owner = pthread_self();
#endif
    loop->in_turn = true;
}

// ---- SIGPIPE ----

// A host's thread must not get the signal that sendfile raises. Our own have all signals blocked.
static void hsrv_loop_shield(hsrv_loop *loop) {
    if (loop->shielded || loop->signals_blocked) return;
    loop->shielded = true;
    hsrv_sys_block_sigpipe(&loop->signals_before, &loop->sigpipe_pending);
}

static void hsrv_loop_unshield(hsrv_loop *loop) {
    if (!loop->shielded) return;
    loop->shielded = false;
    hsrv_sys_unblock_sigpipe(&loop->signals_before, loop->sigpipe_pending);
}

// ---- messages ----

// Hands a message to the loop and wakes it if it sleeps and nobody has yet. [any]
static void hsrv_loop_post(hsrv_loop *loop, hsrv_message *message) {
    if (hsrv_queue_inbox_push(&loop->inbox, message)) hsrv_sys_eventfd_add(loop->wakefd);
}

// ---- lists ----

// Asks for another look at a connection in the next turn: no edge will come for what is latched.
static void hsrv_loop_ready(hsrv_loop *loop, hsrv_conn *c) {
    if (c->flags & HSRV_CONN_READY) return;
    c->flags |= HSRV_CONN_READY;
    c->next_ready = NULL;
    if (loop->ready_last) loop->ready_last->next_ready = c;
    if (!loop->ready_last) loop->ready = c;
    loop->ready_last = c;
}

static hsrv_conn *hsrv_loop_take_ready(hsrv_loop *loop) {
    hsrv_conn *c = loop->ready;
    if (!c) return NULL;
    loop->ready = c->next_ready;
    if (!loop->ready) loop->ready_last = NULL;
    c->flags &= (uint16_t)~HSRV_CONN_READY;
    return c;
}

// The spare request that was used last, or the one that is set aside if there is no other.
static httpsrv_req *hsrv_loop_take_spare(hsrv_loop *loop) {
    httpsrv_req *req = loop->spare_requests;
    if (req) {
        loop->spare_requests = req->next;
        loop->num_spare--;
    } else if (loop->again.idle) {
        req = loop->again.req;
        hsrv_loop_forget_again(loop, req);
    }
    return req;
}

// What a request has read is about to be replaced by the next head.
static void hsrv_loop_reset_request(httpsrv_req *req) {
    hsrv_parser_reset(&req->parser);
    req->parser.max_body = -1; // a matter of the route
    req->raw = NULL;
    req->raw_len = 0;
    req->path = req->plain = hsrv_text_absent();
    req->route = NULL;
    req->num_params = 0;
}

// A request for a head to come; NULL when out of memory.
static httpsrv_req *hsrv_loop_take_request(hsrv_loop *loop) {
    const httpsrv_config *config = &loop->srv->config;
    httpsrv_req *req = hsrv_loop_take_spare(loop);
    if (req) {
        hsrv_loop_reset_request(req);
        return req;
    }
    req = (httpsrv_req *)hsrv_memory_take(&loop->srv->memory, loop->request_size);
    if (!req) return NULL;
    memset(req, 0, sizeof *req);
    httpsrv_limits limits;
    limits.head = config->max.head;
    limits.uri = config->max.uri;
    limits.headers = config->max.headers;
    limits.body = -1; // a matter of the route
    hsrv_parser_init(&req->parser, &limits);
    req->srv = loop->srv;
    req->loop = loop;
    req->head.fields = (httpsrv_field *)(void *)((char *)req + HSRV_ALIGN_UP(sizeof(httpsrv_req), 16));
    req->head.max_fields = config->max.headers;
    char *memory = (char *)req + loop->request_size - HTTPSRV_REQUEST_MEMORY;
    hsrv_memory_arena_init(&req->arena, &loop->srv->memory, memory, HTTPSRV_REQUEST_MEMORY);
    req->answer.headers_end = &req->answer.headers;
    req->posts_end = &req->posts;
    req->dones_end = &req->dones;
    req->message.kind = HSRV_MESSAGE_RETURNED;
    if (!HSRV_LATER || hsrv_loop_take_place(loop, req)) return req;
    hsrv_loop_free_request(loop, req);
    return NULL;
}

// ---- channels ----

static httpsrv_str hsrv_loop_channel_name(const hsrv_channel *channel) {
    return hsrv_text_view((const char *)(channel + 1), channel->name_len);
}

static hsrv_channel **hsrv_loop_bucket(hsrv_channels *channels, httpsrv_str name) {
    return &channels->buckets[hsrv_text_siphash(name, channels->secret) & (channels->num_buckets - 1)];
}

static hsrv_channel **hsrv_loop_find_channel(hsrv_loop *loop, httpsrv_str name) {
    hsrv_channel **link = hsrv_loop_bucket(&loop->channels, name);
    while (*link && !hsrv_text_equal(hsrv_loop_channel_name(*link), name)) {
        link = &(*link)->next;
    }
    return link;
}

static void hsrv_loop_push_channel(hsrv_channel **list, hsrv_channel *channel) {
    channel->next = *list;
    *list = channel;
}

static hsrv_channel *hsrv_loop_pop_channel(hsrv_channel **list) {
    hsrv_channel *channel = *list;
    if (channel) *list = channel->next;
    return channel;
}

// When memory is out, the table stays as it is and works as well, but slower.
static void hsrv_loop_resize_channels(hsrv_loop *loop, size_t num_buckets) {
    hsrv_channels *channels = &loop->channels;
    hsrv_channel **buckets = &channels->first, *all = NULL, *channel;
    if (num_buckets > 1)
        buckets = (hsrv_channel **)hsrv_memory_take_zeroed(&loop->srv->memory, num_buckets * sizeof(hsrv_channel *));
    if (!buckets) return;
    for (size_t i = 0; i < channels->num_buckets; i++) {
        while ((channel = hsrv_loop_pop_channel(&channels->buckets[i])) != NULL) {
            hsrv_loop_push_channel(&all, channel);
        }
    }
    hsrv_loop_give_buckets(loop);
    channels->buckets = buckets;
    channels->num_buckets = num_buckets;
    while ((channel = hsrv_loop_pop_channel(&all)) != NULL) {
        hsrv_loop_push_channel(hsrv_loop_bucket(channels, hsrv_loop_channel_name(channel)), channel);
    }
}

static void hsrv_loop_count_channel(hsrv_loop *loop, bool more) {
    hsrv_channels *channels = &loop->channels;
    const size_t count = more ? ++channels->count : --channels->count, buckets = channels->num_buckets;
    if (count > buckets) hsrv_loop_resize_channels(loop, 2 * buckets);
    if (buckets > 1 && count <= buckets / 8) hsrv_loop_resize_channels(loop, buckets / 2);
}

static void hsrv_loop_free_channel(hsrv_loop *loop, hsrv_channel *channel) {
    hsrv_memory_give(&loop->srv->memory, channel, sizeof *channel + channel->name_len);
}

// Makes a request listen to a channel: to the one given, or to one of that name that is there already.
static void hsrv_loop_join_channel(hsrv_loop *loop, httpsrv_req *req, hsrv_channel *wanted) {
    hsrv_channel **link = hsrv_loop_find_channel(loop, hsrv_loop_channel_name(wanted));
    hsrv_channel *channel = *link ? *link : wanted;
    if (*link) {
        hsrv_loop_free_channel(loop, wanted);
    } else {
        wanted->readers = NULL;
        hsrv_loop_push_channel(link, wanted);
        hsrv_loop_count_channel(loop, true);
    }
    hsrv_stream *s = &req->stream;
    s->channel = channel;
    s->prev_reader = NULL;
    s->next_reader = channel->readers;
    if (s->next_reader) s->next_reader->stream.prev_reader = req;
    channel->readers = req;
}

static void hsrv_loop_leave_channel(hsrv_loop *loop, httpsrv_req *req) {
    hsrv_stream *s = &req->stream;
    hsrv_channel *channel = s->channel;
    if (!channel) return;
    s->channel = NULL;
    if (s->prev_reader) s->prev_reader->stream.next_reader = s->next_reader;
    if (!s->prev_reader) channel->readers = s->next_reader;
    if (s->next_reader) s->next_reader->stream.prev_reader = s->prev_reader;
    if (channel->readers) return;
    hsrv_loop_pop_channel(hsrv_loop_find_channel(loop, hsrv_loop_channel_name(channel)));
    hsrv_loop_count_channel(loop, false);
    hsrv_loop_free_channel(loop, channel);
}

// ---- requests that wait for room in their pool ----

static void hsrv_loop_wait(hsrv_loop *loop, httpsrv_req *req) {
    const int n = req->route->pool_number;
    req->waiting = true;
    req->next = NULL;
    req->prev = loop->waiting_last[n];
    if (req->prev) req->prev->next = req;
    if (!req->prev) loop->waiting[n] = req;
    loop->waiting_last[n] = req;
}

// Back to where it was.
static void hsrv_loop_wait_first(hsrv_loop *loop, httpsrv_req *req) {
    const int n = req->route->pool_number;
    req->waiting = true;
    req->prev = NULL;
    req->next = loop->waiting[n];
    if (req->next) req->next->prev = req;
    if (!req->next) loop->waiting_last[n] = req;
    loop->waiting[n] = req;
}

static void hsrv_loop_stop_waiting(hsrv_loop *loop, httpsrv_req *req) {
    const int n = req->route->pool_number;
    req->waiting = false;
    if (req->prev) req->prev->next = req->next;
    if (!req->prev) loop->waiting[n] = req->next;
    if (req->next) req->next->prev = req->prev;
    if (!req->next) loop->waiting_last[n] = req->prev;
}

// Whether the window begins with the head that is kept.
static inline bool hsrv_loop_is_again(const hsrv_loop *loop) {
    const hsrv_again *again = &loop->again;
    return loop->window_len >= again->len && memcmp(loop->window, again->bytes, again->len) == 0;
}

// The request that has read the head at the begin of the window before, if it is the same and the request is set aside. It
// is at the point where its handler has been found.
static inline httpsrv_req *hsrv_loop_take_again(hsrv_loop *loop) {
    hsrv_again *again = &loop->again;
    if (!HSRV_SHORTCUTS || !again->idle || !hsrv_loop_is_again(loop)) return NULL;
    again->idle = false;
    again->patience = 0;
    return again->req;
}

// The request's own resources are gone already, see hsrv_request_release.
static void hsrv_loop_give_request(hsrv_loop *loop, httpsrv_req *req) {
    const bool again = req == loop->again.req;
    if ((HSRV_LATER && !req->place) || (!again && loop->num_spare == HSRV_SPARE_REQUESTS)) {
        hsrv_loop_free_request(loop, req);
        return;
    }
    if (again) {
        loop->again.idle = true;
        return;
    }
    req->next = loop->spare_requests;
    loop->spare_requests = req;
    loop->num_spare++;
}

// ===========================================================================================
// >>request   Arena lifetime, views, decoded parts.    owns: the request's memory    thread: holder
//             uses: >>coding >>frames >>loop
// ===========================================================================================

// The holder is the thread whose handler runs; a debug build checks that nobody else touches the request.
static inline void hsrv_request_hold(httpsrv_req *req, bool held) {
#ifdef HTTPSRV_DEBUG
    req->held = held;
    req->holder = pthread_self();
#else
    (void)req;
    (void)held;
#endif
}

static inline void hsrv_request_assert_held(const httpsrv_req *req) {
#ifdef HTTPSRV_DEBUG
    HTTPSRV_ASSERT(req && req->held && pthread_equal(req->holder, pthread_self()));
#else
    (void)req;
#endif
}

// ---- who may answer: the place of a request ----

// The place that a token names; NULL if there is none. That its generation is still the token's is not said. [any]
static hsrv_place *hsrv_request_find_place(const httpsrv *srv, httpsrv_token token) {
    hsrv_loop *const *loops = __atomic_load_n(&srv->wake, __ATOMIC_ACQUIRE);
    const uint32_t low = (uint32_t)token.id, loop = low >> HSRV_LOOP_SHIFT;
    if (!loops || loop >= (uint32_t)srv->config.reactors || token.id >> 32 > HSRV_GENERATIONS) return NULL;
    return hsrv_loop_place(loops[loop], low & ((1u << HSRV_LOOP_SHIFT) - 1));
}

static httpsrv_token hsrv_request_token(const httpsrv_req *req) {
    const uint32_t generation = __atomic_load_n(&req->place->cell, __ATOMIC_RELAXED) >> 2;
    httpsrv_token token;
    token.id = (uint64_t)generation << 32 | (uint32_t)req->loop->number << HSRV_LOOP_SHIFT | req->place_number;
    return token;
}

// A compare-and-swap within one generation. What a thread has done to a request before is seen by whoever takes over.
static bool hsrv_request_swap(hsrv_place *place, uint32_t generation, hsrv_place_state from, hsrv_place_state to) {
    uint32_t cell = generation << 2 | (uint32_t)from;
    return __atomic_compare_exchange_n(&place->cell, &cell, generation << 2 | (uint32_t)to, false, __ATOMIC_ACQ_REL,
                                       __ATOMIC_ACQUIRE);
}

// Whether a request may still be answered, or is being answered right now: then its memory is there. [loop]
static bool hsrv_request_is_pending(const hsrv_place *place, uint32_t generation) {
    const uint32_t cell = __atomic_load_n(&place->cell, __ATOMIC_ACQUIRE), state = cell & 3u;
    return cell >> 2 == generation && (state == HSRV_PLACE_OPEN || state == HSRV_PLACE_CLAIMED);
}

// Whether a token's request is not released yet, whoever may answer it. [loop]
static bool hsrv_request_is_current(const hsrv_place *place, uint32_t generation) {
    const uint32_t cell = __atomic_load_n(&place->cell, __ATOMIC_ACQUIRE);
    return cell >> 2 == generation && (cell & 3u) != HSRV_PLACE_CLOSED;
}

static uint32_t hsrv_request_generation(const httpsrv_req *req) {
    return __atomic_load_n(&req->place->cell, __ATOMIC_RELAXED) >> 2;
}

// An answer that has begun has claimed it already. [holder]
static void hsrv_request_open_place(httpsrv_req *req) {
    const uint32_t state = req->answered == HSRV_ANSWER_NONE ? HSRV_PLACE_OPEN : HSRV_PLACE_CLAIMED;
    req->shared = true;
    __atomic_store_n(&req->place->cell, hsrv_request_generation(req) << 2 | state, __ATOMIC_RELEASE);
}

// Nobody can have a token: closed again, within the same generation. [loop]
static void hsrv_request_close_place(httpsrv_req *req) {
    req->shared = false;
    __atomic_store_n(&req->place->cell, hsrv_request_generation(req) << 2 | HSRV_PLACE_CLOSED, __ATOMIC_RELAXED);
}

// Makes all tokens stale. A place that has had all its generations is left for good, and the request goes without. [loop]
static void hsrv_request_renew_place(httpsrv_req *req) {
    const uint32_t generation = hsrv_request_generation(req);
    const bool worn_out = generation == HSRV_GENERATIONS;
    __atomic_store_n(&req->place->cell, (worn_out ? generation : generation + 1) << 2 | HSRV_PLACE_CLOSED,
                     __ATOMIC_RELEASE);
    if (worn_out) req->place = NULL;
}

// ---- coming home: the claim word ----

// Adds bits. True if the caller has to bring the request home, or to the loop's notice: it is due, and nobody else is about
// to. Its release and acquire hand over what was written to the request. [any]
static bool hsrv_request_add_claim(httpsrv_req *req, uint32_t bits) {
    uint32_t claim = __atomic_load_n(&req->claim, __ATOMIC_RELAXED), next;
    bool due;
    do {
        next = claim | bits;
        const bool stays = (next & HSRV_CLAIM_DEFERRED) && !(next & (HSRV_CLAIM_FINISHED | HSRV_CLAIM_WANTED));
        const bool comes = ((next & HSRV_CLAIM_RETURNED) && !stays) || (next & HSRV_CLAIM_MOVED);
        due = comes && !(next & HSRV_CLAIM_POSTED);
        if (due) next |= HSRV_CLAIM_POSTED;
    } while (!__atomic_compare_exchange_n(&req->claim, &claim, next, true, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED));
    return due;
}

// The loop has the request's message, or was told that it is due. Whether it is home for good: then nobody else has it.
static bool hsrv_request_arrive(httpsrv_req *req) {
    const uint32_t passing = HSRV_CLAIM_POSTED | HSRV_CLAIM_MOVED;
    const uint32_t claim = __atomic_fetch_and(&req->claim, ~passing, __ATOMIC_ACQ_REL);
    req->stream.told = claim;
    if (!(claim & HSRV_CLAIM_RETURNED)) return false; // and what is wanted of it stays so until then
    __atomic_fetch_and(&req->claim, ~HSRV_CLAIM_WANTED, __ATOMIC_RELAXED);
    req->stream.here = true;
    if ((claim & HSRV_CLAIM_DEFERRED) && !(claim & HSRV_CLAIM_FINISHED)) return false;
    req->away = false;
    return true;
}

// ---- bodies in pieces: between a worker and the loop ----

// Wakes a worker that waits for a change, which was made before. It says that it sleeps and then compares what it has
// seen; the change is counted before `sleeping` is looked at: one of the two sees the other. [loop]
static void hsrv_request_signal(httpsrv_req *req) {
    hsrv_stream *s = &req->stream;
    __atomic_fetch_add(&s->changes, 1u, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&s->sleeping, __ATOMIC_SEQ_CST) != 0) hsrv_sys_futex_wake(&s->changes, 1);
}

// Waits for a change after the one numbered `seen`, which the caller took before it looked. [worker]
static void hsrv_request_wait(httpsrv_req *req, uint32_t seen) {
    hsrv_stream *s = &req->stream;
    __atomic_store_n(&s->sleeping, 1u, __ATOMIC_SEQ_CST);
    hsrv_sys_futex_wait(&s->changes, seen);
    __atomic_store_n(&s->sleeping, 0u, __ATOMIC_RELAXED);
}

// Pushes a piece for the other side. Its release makes the bytes seen there.
static void hsrv_request_push(hsrv_segment **stack, hsrv_segment *segment) {
    segment->next = __atomic_load_n(stack, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(stack, &segment->next, segment, true, __ATOMIC_RELEASE, __ATOMIC_RELAXED)) {}
}

// Takes all pieces, oldest first.
static hsrv_segment *hsrv_request_take(hsrv_segment **stack) {
    if (!__atomic_load_n(stack, __ATOMIC_RELAXED)) return NULL;
    hsrv_segment *top = __atomic_exchange_n(stack, (hsrv_segment *)NULL, __ATOMIC_ACQUIRE), *oldest = NULL;
    while (top) {
        hsrv_segment *next = top->next;
        top->next = oldest;
        oldest = top;
        top = next;
    }
    return oldest;
}

// Tells the loop what the holder has done. [worker]
static void hsrv_request_tell_loop(httpsrv_req *req, uint32_t bits) {
    if (hsrv_request_add_claim(req, HSRV_CLAIM_MOVED | bits)) hsrv_loop_post(req->loop, &req->message);
}

// What a piece takes beside its bytes while it is between the two: many small ones count for what they are.
#define HSRV_PIECE_COST (sizeof(hsrv_segment) + HSRV_CHUNK_HEAD + HSRV_CHUNK_TAIL)

// The kernel took n bytes of what was queued, or they count no longer. [loop]
static void hsrv_request_sent(httpsrv_req *req, size_t n) {
    const size_t low = (size_t)req->srv->config.write_mark.low;
    const size_t left = __atomic_sub_fetch(&req->stream.out_queued, n, __ATOMIC_SEQ_CST);
    if (left <= low && left + n > low) hsrv_request_signal(req);
}

// Hands a piece of the body to the worker that reads it. False when out of memory. [loop]
static bool hsrv_request_feed(httpsrv_req *req, httpsrv_str piece, bool last) {
    hsrv_stream *s = &req->stream;
    if (piece.len > 0) {
        hsrv_segment *segment = hsrv_output_new(&req->srv->memory, piece.len);
        if (!segment) return false;
        memcpy(segment + 1, piece.ptr, piece.len);
        __atomic_fetch_add(&s->in_queued, piece.len + HSRV_PIECE_COST, __ATOMIC_SEQ_CST);
        hsrv_request_push(&s->in, segment);
    }
    if (last) __atomic_store_n(&s->in_over, 1u, __ATOMIC_RELEASE);
    hsrv_request_signal(req);
    return true;
}

// Whether the loop may go on reading a body for a worker. If not, the worker tells when there is room: it takes from
// in_queued and then looks at in_full, here it is the other way round. [loop]
static bool hsrv_request_ask_for_room(httpsrv_req *req) {
    hsrv_stream *s = &req->stream;
    const size_t high = (size_t)req->srv->config.write_mark.high;
    if (__atomic_load_n(&s->in_queued, __ATOMIC_SEQ_CST) < high) return true;
    __atomic_store_n(&s->in_full, 1u, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&s->in_queued, __ATOMIC_SEQ_CST) >= high) return false;
    __atomic_store_n(&s->in_full, 0u, __ATOMIC_SEQ_CST);
    return true;
}

// Copies bytes of the pieces that were taken. [worker]
static size_t hsrv_request_copy_out(httpsrv_req *req, char *buf, size_t size) {
    hsrv_stream *s = &req->stream;
    size_t done = 0, cost = 0;
    while (s->reading && done < size) {
        hsrv_segment *segment = s->reading;
        const size_t n = segment->len < size - done ? segment->len : size - done;
        memcpy(buf + done, segment->ptr, n);
        done += n;
        segment->ptr += n;
        segment->len -= n;
        if (segment->len > 0) break;
        s->reading = segment->next;
        hsrv_output_drop(&req->srv->memory, segment);
        cost += HSRV_PIECE_COST;
    }
    const size_t low = (size_t)req->srv->config.write_mark.low;
    const size_t left = __atomic_sub_fetch(&s->in_queued, done + cost, __ATOMIC_SEQ_CST);
    if (left > low || __atomic_load_n(&s->in_full, __ATOMIC_SEQ_CST) == 0) return done;
    if (__atomic_exchange_n(&s->in_full, 0u, __ATOMIC_SEQ_CST) != 0) hsrv_request_tell_loop(req, 0);
    return done;
}

static void hsrv_request_release_stream(httpsrv_req *req) {
    hsrv_memory *memory = &req->srv->memory;
    hsrv_stream *s = &req->stream;
    hsrv_loop_leave_channel(req->loop, req);
    if (s->wanted) hsrv_loop_free_channel(req->loop, s->wanted);
    hsrv_output_drop_list(memory, s->reading);
    hsrv_output_drop_list(memory, s->in);
    hsrv_output_drop_list(memory, s->out);
    if (s->deflater) hsrv_coding_free_deflater(s->deflater);
    memset(s, 0, sizeof *s);
}

// An answer that had claimed the request comes to nothing. If the client has left meanwhile there is no way back. [any]
static void hsrv_request_unclaim(httpsrv_req *req) {
    if (hsrv_request_swap(req->place, hsrv_request_generation(req), HSRV_PLACE_CLAIMED, HSRV_PLACE_OPEN)) return;
    if (hsrv_request_add_claim(req, HSRV_CLAIM_FINISHED)) hsrv_loop_post(req->loop, &req->message);
}

// Leaves the loop: from here on the answer, the client's leaving and the end of its time compete. [loop]
static void hsrv_request_depart(hsrv_loop *loop, httpsrv_req *req, hsrv_conn *c) {
    req->stream.here = false;
    req->departed = (uint32_t)loop->now;
    req->away = true;
    req->conn = c;
    if (!req->shared) hsrv_request_open_place(req);
}

// Does not leave after all. [loop]
static void hsrv_request_stay(httpsrv_req *req) {
    req->away = false;
    req->conn = NULL;
    hsrv_request_close_place(req);
}

// Takes the right to answer away from everybody, if nobody has used it yet. [loop]
static bool hsrv_request_revoke(httpsrv_req *req) {
    return hsrv_request_swap(req->place, hsrv_request_generation(req), HSRV_PLACE_OPEN, HSRV_PLACE_CLOSED);
}

// ---- what goes along ----

static httpsrv_result hsrv_request_put(httpsrv_req *req, const void *key, void *data) {
    for (hsrv_put *put = req->puts; put; put = put->next) {
        if (put->key != key) continue;
        put->data = data;
        return HTTPSRV_OK;
    }
    hsrv_put *put = (hsrv_put *)hsrv_memory_arena_take(&req->arena, sizeof *put);
    if (!put) return HTTPSRV_NOMEM;
    put->next = req->puts;
    put->key = key;
    put->data = data;
    req->puts = put;
    return HTTPSRV_OK;
}

static void *hsrv_request_get(const httpsrv_req *req, const void *key) {
    for (const hsrv_put *put = req->puts; put; put = put->next) {
        if (put->key == key) return put->data;
    }
    return NULL;
}

// ---- ends ----

static void hsrv_request_tell_done(void *arg) {
    hsrv_done *done = (hsrv_done *)arg;
    done->outcome.delivered = !done->segment.lost;
    done->fn(&done->outcome, done->arg);
}

static httpsrv_result hsrv_request_on_done(httpsrv_req *req, httpsrv_done_fn fn, void *arg) {
    hsrv_done *done = (hsrv_done *)hsrv_memory_take_zeroed(&req->srv->memory, sizeof *done);
    if (!done) return HTTPSRV_NOMEM;
    done->segment.size = sizeof *done;
    done->segment.release = hsrv_request_tell_done;
    done->segment.release_arg = done;
    done->fn = fn;
    done->arg = arg;
    *req->dones_end = done;
    req->dones_end = &done->next;
    return HTTPSRV_OK;
}

static void hsrv_request_tell_gone(httpsrv_req *req) {
    const uint32_t gone = __atomic_fetch_or(&req->gone, HSRV_GONE_SET, __ATOMIC_SEQ_CST);
    const bool told = gone & (HSRV_GONE_SET | HSRV_GONE_SETTLED);
    if ((gone & HSRV_GONE_WATCHED) && !told) req->gone_fn(req->gone_arg);
    hsrv_request_signal(req);
}

// Nobody waits for the answer any more, and nobody may give one: if that brings the request home, it is. [loop]
static void hsrv_request_abandon(httpsrv_req *req) {
    req->given_up = true;
    hsrv_request_tell_gone(req);
    if (hsrv_request_add_claim(req, HSRV_CLAIM_FINISHED)) hsrv_request_arrive(req);
}

// Decides the end of an answer that has begun: it is told of, or the client's leaving is, but not both. Of one that nobody
// else can end there is nothing to decide. [any]
static bool hsrv_request_settle(httpsrv_req *req) {
    return !req->shared ||
           hsrv_request_swap(req->place, hsrv_request_generation(req), HSRV_PLACE_CLAIMED, HSRV_PLACE_DOOMED);
}

// Takes the right to answer away, and from an answer that is being made the way back. Says what it found: OPEN, CLAIMED or
// DOOMED. [loop]
static hsrv_place_state hsrv_request_bar(httpsrv_req *req) {
    const uint32_t generation = hsrv_request_generation(req);
    for (;;) {
        if (hsrv_request_revoke(req)) return HSRV_PLACE_OPEN;
        if (hsrv_request_swap(req->place, generation, HSRV_PLACE_CLAIMED, HSRV_PLACE_DOOMED)) return HSRV_PLACE_CLAIMED;
        const uint32_t cell = __atomic_load_n(&req->place->cell, __ATOMIC_ACQUIRE);
        if (cell == (generation << 2 | HSRV_PLACE_DOOMED)) return HSRV_PLACE_DOOMED;
    }
}

// The client has left. An answer that was claimed in time is brought home by whoever makes it; one that has begun and has
// no end will not come. [loop]
static void hsrv_request_give_up(httpsrv_req *req) {
    const bool begun = (req->stream.head_out || (req->stream.told & HSRV_CLAIM_BEGUN)) && !req->stream.end_out;
    const hsrv_place_state found = hsrv_request_bar(req);
    if (found == HSRV_PLACE_DOOMED) __atomic_fetch_or(&req->gone, HSRV_GONE_SETTLED, __ATOMIC_SEQ_CST);
    if (found == HSRV_PLACE_OPEN || begun) {
        hsrv_request_abandon(req);
        return;
    }
    req->given_up = true;
    __atomic_fetch_or(&req->gone, HSRV_GONE_LATE, __ATOMIC_SEQ_CST);
    hsrv_request_signal(req);
}

// ---- life ----

static void hsrv_request_drop_delivery(httpsrv_req *req) {
    hsrv_delivery *delivery = req->delivery;
    if (!delivery) return;
    req->delivery = NULL;
    if (delivery->answer.release) delivery->answer.release(delivery->answer.release_arg);
    hsrv_memory_give(req->arena.memory, delivery, delivery->size);
}

// The handlers that still wait for the request get none. [loop]
static void hsrv_request_drop_posts(httpsrv_req *req) {
    while (req->posts) {
        hsrv_post *post = req->posts;
        req->posts = post->next;
        post->handler(NULL, post->user);
        hsrv_memory_give(req->arena.memory, post, sizeof *post);
    }
    req->posts_end = &req->posts;
}

// What only a request has that has left its loop. [loop]
static void hsrv_request_release_shared(httpsrv_req *req) {
    const bool late = __atomic_load_n(&req->gone, __ATOMIC_RELAXED) & HSRV_GONE_LATE;
    const bool answered = req->answered == HSRV_ANSWER_STAGED || req->answered == HSRV_ANSWER_ENDED;
    if (late && !req->delivery && !answered) hsrv_request_tell_gone(req);
    hsrv_request_renew_place(req);
    hsrv_request_drop_delivery(req);
    hsrv_request_drop_posts(req);
    req->shared = req->deferred = req->away = req->given_up = false;
    __atomic_store_n(&req->claim, 0u, __ATOMIC_RELAXED);
    __atomic_store_n(&req->gone, 0u, __ATOMIC_RELAXED);
}

#define HSRV_TRAILER_BYTES ((size_t)HSRV_MAX_SERVER_TRAILERS * sizeof(httpsrv_field))

static void hsrv_request_drop_trailers(httpsrv_req *req) {
    hsrv_memory_give(&req->srv->memory, req->trailers.fields, HSRV_TRAILER_BYTES);
    hsrv_memory_buffer_free(&req->srv->memory, &req->trailer_bytes);
    req->trailers.fields = NULL;
    req->trailers.num_fields = 0;
}

// Tells that there will be no more of the answer. [loop]
static void hsrv_request_drop_dones(httpsrv_req *req) {
    while (req->dones) {
        hsrv_done *done = req->dones;
        req->dones = done->next;
        done->outcome.status = req->status_sent;
        done->outcome.bytes = req->bytes_sent;
        done->segment.lost = true;
        hsrv_output_drop(&req->srv->memory, &done->segment);
    }
    req->dones_end = &req->dones;
}

static void hsrv_request_drop_form(httpsrv_req *req) {
    for (hsrv_spool *spool = req->spools; spool; spool = spool->next) {
        hsrv_sys_close(spool->fd);
    }
    req->spools = NULL;
    req->form_read = false;
    memset(&req->form, 0, sizeof req->form);
}

// What handlers leave behind besides memory. [loop]
static inline void hsrv_request_wipe(httpsrv_req *req) {
    req->attached = NULL;
    req->puts = NULL;
    req->peer_text = hsrv_text_absent();
    req->status_sent = 0;
    req->bytes_sent = 0;
    req->answered = HSRV_ANSWER_NONE;
    req->answer.plain = false; // the rest of a plain answer is as it was
    req->as_is = false;
}

static inline char *hsrv_request_first_memory(const hsrv_loop *loop, httpsrv_req *req) {
    return (char *)req + loop->request_size - HTTPSRV_REQUEST_MEMORY;
}

// Frees what a request holds and makes it fit for the next head. [loop]
static void hsrv_request_release(hsrv_loop *loop, httpsrv_req *req) {
    if (HSRV_LATER && req->shared) hsrv_request_release_shared(req);
    if (HSRV_LATER && req->stream.used) hsrv_request_release_stream(req);
    if (req->form_read) hsrv_request_drop_form(req);
    if (req->dones) hsrv_request_drop_dones(req);
    if (req->answer.release) req->answer.release(req->answer.release_arg);
    if (req->answer.parts) hsrv_output_drop_list(&req->srv->memory, req->answer.parts);
    if (req->arena.blocks) hsrv_memory_arena_free(&req->arena);
    if (req->body_buffer.ptr) hsrv_memory_buffer_free(req->arena.memory, &req->body_buffer);
    if (HSRV_CODES && req->inflater) hsrv_coding_free_inflater(req->inflater);
    char *memory = hsrv_request_first_memory(loop, req);
    hsrv_memory_arena_init(&req->arena, req->arena.memory, memory, HTTPSRV_REQUEST_MEMORY);
    req->conn = NULL;
    req->inline_conn = NULL;
    req->body = hsrv_text_absent();
    req->inflater = NULL;
    req->leaves_buffer = false;
    req->answered_twice = false;
    hsrv_request_wipe(req);
    memset(&req->answer, 0, sizeof req->answer);
    req->answer.headers_end = &req->answer.headers;
    if (req->trailers.fields) hsrv_request_drop_trailers(req);
    hsrv_loop_give_request(loop, req);
}

// Whether its head is kept, it was answered the short way, and its handler has taken nothing that hsrv_request_release would
// have to give back: what is more than a few words comes out of the request's memory.
static inline bool hsrv_request_is_light(const hsrv_loop *loop, httpsrv_req *req) {
    if (!HSRV_SHORTCUTS || !req->answer.plain || req != loop->again.req) return false;
    if (req->arena.cur != hsrv_request_first_memory(loop, req) || req->arena.blocks) return false;
    return !req->shared && !req->stream.used && !req->form_read && !req->dones && !req->answered_twice;
}

// Follows bytes that have moved from [old, old + len) to copy. Views of anything else stay.
static void hsrv_request_rebase(httpsrv_str *view, const char *old, size_t len, const char *copy) {
    const uintptr_t at = (uintptr_t)view->ptr, from = (uintptr_t)old;
    if (view->ptr && at >= from && at <= from + len) view->ptr = copy + (at - from);
}

static void hsrv_request_rebase_all(httpsrv_req *req, const char *copy) {
    httpsrv_head *head = &req->head;
    httpsrv_str *views[] = {&head->method, &head->target,       &head->path, &head->query, &head->authority,
                            &head->host,   &head->content_type, &req->path,  &req->plain};
    for (size_t i = 0; i < sizeof views / sizeof views[0]; i++) {
        hsrv_request_rebase(views[i], req->raw, req->raw_len, copy);
    }
    for (int i = 0; i < head->num_fields; i++) {
        hsrv_request_rebase(&head->fields[i].name, req->raw, req->raw_len, copy);
        hsrv_request_rebase(&head->fields[i].value, req->raw, req->raw_len, copy);
    }
    for (int i = 0; i < req->num_params; i++) {
        hsrv_request_rebase(&req->params[i], req->raw, req->raw_len, copy);
    }
}

// Takes the head's bytes, and the body's if they lie in the reactor's buffer too, along into the arena, because the
// request outlives the buffer. False when out of memory; nothing has changed then. [loop]
static bool hsrv_request_leave_buffer(httpsrv_req *req) {
    if (req->leaves_buffer) return true;
    hsrv_loop_forget_again(req->loop, req);
    const bool body_in_buffer = req->body.len > 0 && req->body.ptr != req->body_buffer.ptr;
    const size_t body_len = body_in_buffer ? req->body.len : 0;
    char *copy = (char *)hsrv_memory_arena_take(&req->arena, req->raw_len + body_len);
    if (!copy) return false;
    memcpy(copy, req->raw, req->raw_len);
    if (body_in_buffer) {
        memcpy(copy + req->raw_len, req->body.ptr, body_len);
        req->body.ptr = copy + req->raw_len;
    }
    hsrv_request_rebase_all(req, copy);
    req->raw = copy;
    req->leaves_buffer = true;
    return true;
}

// Keeps a head that was found a route for, see hsrv_again: one without a body, that came in one piece and needed no memory.
// False if it does not.
static bool hsrv_request_keep_again(httpsrv_req *req) {
    hsrv_again *again = &req->loop->again;
    const bool leaves = req->route->pool || req->route->on_body; // the reactor's buffer, in any case
    if (!HSRV_SHORTCUTS || leaves) return false;
    if (again->wait > 0) {
        again->wait--;
        return false;
    }
    const bool plain = req->plain.ptr == req->head.path.ptr && req->path.ptr == req->head.path.ptr;
    const bool whole = req->parser.phase == HTTPSRV_PHASE_DONE && !req->parser.resumed;
    if (!plain || !whole || req->raw_len > HSRV_MAX_AGAIN || (again->req && !again->idle)) return false;
    if (again->req) {
        httpsrv_req *last = again->req;
        hsrv_loop_forget_again(req->loop, last);
        hsrv_loop_give_request(req->loop, last);
    }
    again->patience = again->patience * 2 + 1 < 1024 ? again->patience * 2 + 1 : 1023;
    again->wait = again->patience;
    memcpy(again->bytes, req->raw, req->raw_len);
    hsrv_request_rebase_all(req, again->bytes);
    req->raw = again->bytes;
    again->req = req;
    again->len = req->raw_len;
    again->simple = !req->srv->filters && req->route->num_media == 0;
    return true;
}

// A view with its escapes decoded: the view itself if it has none, else a copy. Absent when out of memory.
static httpsrv_str hsrv_request_decode(httpsrv_req *req, httpsrv_str s, bool plus) {
    if (s.len == 0) return s;
    if (!memchr(s.ptr, '%', s.len) && !(plus && memchr(s.ptr, '+', s.len))) return s;
    char *out = (char *)hsrv_memory_arena_take(&req->arena, s.len);
    if (!out) return hsrv_text_absent();
    return hsrv_text_view(out, hsrv_text_decode(out, s, plus));
}

// How much a client likes a coding: thousandths, 0: not at all. What it says of all others does not count for identity.
static int hsrv_request_weight(const httpsrv_req *req, const char *coding) {
    int own = -1, any = 0;
    for (int i = 0; i < req->head.num_fields; i++) {
        if (!hsrv_text_equal_nocase(req->head.fields[i].name, hsrv_text_of("accept-encoding"))) continue;
        hsrv_frames_read_weights(req->head.fields[i].value, hsrv_text_of(coding), &own, &any);
    }
    if (own >= 0) return own;
    return strcmp(coding, "identity") == 0 ? 0 : any;
}

// Works out path and plain from the target. OK; SYNTAX for a path that leads above the root or holds a NUL; NOMEM.
static httpsrv_result hsrv_request_resolve_path(httpsrv_req *req) {
    req->path = req->plain = req->head.path;
    if (req->head.path.ptr[0] != '/' || hsrv_text_path_is_plain(req->head.path)) return HTTPSRV_OK;
    char *out = (char *)hsrv_memory_arena_take(&req->arena, req->head.path.len);
    if (!out) return HTTPSRV_NOMEM;
    const ptrdiff_t len = hsrv_text_path_resolve(out, req->head.path);
    if (len < 0) return HTTPSRV_SYNTAX;
    req->path = hsrv_text_view(out, (size_t)len);
    req->plain = hsrv_request_decode(req, req->path, false);
    return req->plain.ptr ? HTTPSRV_OK : HTTPSRV_NOMEM;
}

// In a head or a trailer section: the first value of that name.
static httpsrv_str hsrv_request_field(const httpsrv_head *section, httpsrv_str name) {
    for (int i = 0; i < section->num_fields; i++) {
        if (hsrv_text_equal_nocase(section->fields[i].name, name)) return section->fields[i].value;
    }
    return hsrv_text_absent();
}

static const httpsrv_field *hsrv_request_field_at(const httpsrv_head *section, int index) {
    return index >= 0 && index < section->num_fields ? &section->fields[index] : NULL;
}

// Memory for the fields of a trailer section. Not of the arena, which may be a worker's while the body is read. [loop]
static bool hsrv_request_take_trailers(httpsrv_req *req) {
    if (req->trailers.fields) return true;
    req->trailers.fields = (httpsrv_field *)hsrv_memory_take(&req->srv->memory, HSRV_TRAILER_BYTES);
    req->trailers.max_fields = HSRV_MAX_SERVER_TRAILERS;
    return req->trailers.fields != NULL;
}

// Takes a trailer section of `len` bytes along. False when out of memory. [loop]
static bool hsrv_request_keep_trailers(httpsrv_req *req, const char *bytes, size_t len) {
    httpsrv_head *trailers = &req->trailers;
    if (trailers->num_fields == 0) return true;
    if (!hsrv_memory_buffer_append(&req->srv->memory, &req->trailer_bytes, bytes, len)) return false;
    for (int i = 0; i < trailers->num_fields; i++) {
        hsrv_request_rebase(&trailers->fields[i].name, bytes, len, req->trailer_bytes.ptr);
        hsrv_request_rebase(&trailers->fields[i].value, bytes, len, req->trailer_bytes.ptr);
    }
    return true;
}

// Whether the trailer section may be looked at: not while the loop may still be reading it for a worker. [holder]
static bool hsrv_request_has_trailers(const httpsrv_req *req) {
    const bool reads = req->route->stream && !req->inline_conn;
    return !reads || __atomic_load_n(&req->stream.in_over, __ATOMIC_ACQUIRE) != 0;
}

static httpsrv_str hsrv_request_param(const httpsrv_req *req, httpsrv_str name) {
    for (int i = 0; i < req->num_params; i++) {
        if (hsrv_text_equal(req->route->params[i], name)) return req->params[i];
    }
    return hsrv_text_absent();
}

static httpsrv_str hsrv_request_query(httpsrv_req *req, httpsrv_str name) {
    const httpsrv_str query = req->head.query;
    for (size_t i = 0; i < query.len;) {
        size_t end = i;
        while (end < query.len && query.ptr[end] != '&') {
            end++;
        }
        const char *equals = (const char *)memchr(query.ptr + i, '=', end - i);
        const size_t key_end = equals ? (size_t)(equals - query.ptr) : end;
        if (end > i && hsrv_text_decoded_equal(hsrv_text_view(query.ptr + i, key_end - i), name, true)) {
            const size_t start = equals ? key_end + 1 : end;
            return hsrv_request_decode(req, hsrv_text_view(query.ptr + start, end - start), true);
        }
        i = end + 1;
    }
    return hsrv_text_absent();
}

static httpsrv_str hsrv_request_peer(httpsrv_req *req) {
    if (req->peer_text.ptr) return req->peer_text;
    char text[INET6_ADDRSTRLEN];
    const size_t len = hsrv_loop_peer_text(req->peer, text);
    req->peer_text = hsrv_memory_arena_copy(&req->arena, hsrv_text_view(text, len));
    return req->peer_text;
}

// ===========================================================================================
// >>conn      Read, write, linger, close of one connection.    owns: the connection    thread: loop
//             uses: >>request
// ===========================================================================================

#define HSRV_MAX_DISCARD 262144u   // bytes of an unread body that are dropped to keep the connection
#define HSRV_MAX_LINGER  16777216u // bytes behind the last answer that are dropped to let it arrive
#define HSRV_TURN_BYTES  262144u   // that one connection may read in a turn; it may send four times as much

// ---- connections of an address: [any] ----

// False when out of memory. [setup]
static bool hsrv_conn_tally_init(httpsrv *srv) {
    hsrv_tally *tally = &srv->tally;
    if (srv->config.max.per_ip < 0 || tally->buckets) return true;
    size_t count = 64;
    while (count < (size_t)srv->config.max.connections && count < 65536) {
        count *= 2;
    }
    hsrv_sys_random(tally->secret, sizeof tally->secret); // without it, addresses in memory are secret enough
    tally->secret[0] ^= (uint64_t)(uintptr_t)srv;
    tally->buckets = (hsrv_address_count **)hsrv_memory_take_zeroed(&srv->memory, count * sizeof(hsrv_address_count *));
    if (!tally->buckets) return false;
    tally->num_buckets = count;
    for (size_t i = 0; i < HSRV_STRIPES; i++) {
        pthread_mutex_init(&tally->locks[i], NULL);
    }
    return true;
}

// Once all connections have ended.
static void hsrv_conn_tally_free(httpsrv *srv) {
    hsrv_tally *tally = &srv->tally;
    if (!tally->buckets) return;
    for (size_t i = 0; i < HSRV_STRIPES; i++) {
        pthread_mutex_destroy(&tally->locks[i]);
    }
    hsrv_memory_give(&srv->memory, tally->buckets, tally->num_buckets * sizeof(hsrv_address_count *));
}

// An IPv4 address is itself. Of IPv6 any host has 2^64 addresses: what counts is the network.
static void hsrv_conn_tally_key(const unsigned char peer[16], unsigned char key[16]) {
    const size_t len = hsrv_loop_is_ipv4(peer) ? 16 : 8;
    memset(key, 0, 16);
    memcpy(key, peer, len);
}

// The finisher of splitmix64, so that each bit of an address reaches each of the result.
static size_t hsrv_conn_hash_address(const uint64_t halves[2], const uint64_t secret[2]) {
    uint64_t h = (halves[0] ^ secret[0]) * 0x9e3779b97f4a7c15u;
    h = (h ^ h >> 32) ^ halves[1] ^ secret[1];
    h = (h ^ h >> 30) * 0xbf58476d1ce4e5b9u;
    h = (h ^ h >> 27) * 0x94d049bb133111ebu;
    return (size_t)(h ^ h >> 31);
}

static size_t hsrv_conn_tally_bucket(const hsrv_tally *tally, const unsigned char key[16]) {
    uint64_t halves[2];
    memcpy(halves, key, sizeof halves);
    return hsrv_conn_hash_address(halves, tally->secret) & (tally->num_buckets - 1);
}

static hsrv_address_count **hsrv_conn_tally_find(hsrv_address_count **link, const unsigned char key[16]) {
    while (*link && memcmp((*link)->address, key, 16) != 0) {
        link = &(*link)->next;
    }
    return link;
}

// Counts one more in a locked bucket. OK, FULL, NOMEM.
static httpsrv_result hsrv_conn_tally_add(httpsrv *srv, hsrv_address_count **bucket, const unsigned char key[16]) {
    hsrv_address_count *entry = *hsrv_conn_tally_find(bucket, key);
    if (!entry) {
        entry = (hsrv_address_count *)hsrv_memory_take_zeroed(&srv->memory, sizeof *entry);
        if (!entry) return HTTPSRV_NOMEM;
        memcpy(entry->address, key, 16);
        entry->next = *bucket;
        *bucket = entry;
    }
    if (entry->open == srv->config.max.per_ip) return HTTPSRV_FULL;
    entry->open++;
    return HTTPSRV_OK;
}

// Counts one less in a locked bucket.
static void hsrv_conn_tally_remove(httpsrv *srv, hsrv_address_count **bucket, const unsigned char key[16]) {
    hsrv_address_count **link = hsrv_conn_tally_find(bucket, key), *entry = *link;
    if (--entry->open > 0) return;
    *link = entry->next;
    hsrv_memory_give(&srv->memory, entry, sizeof *entry);
}

// Whether connections of this peer are counted: a Unix socket's have no address.
static bool hsrv_conn_tallied(const httpsrv *srv, const unsigned char peer[16]) {
    static const unsigned char none[16] = {0};
    return srv->tally.buckets && memcmp(peer, none, 16) != 0;
}

// A connection begins. OK, FULL (max.per_ip), NOMEM.
static httpsrv_result hsrv_conn_count_in(httpsrv *srv, const unsigned char peer[16]) {
    unsigned char key[16];
    if (!hsrv_conn_tallied(srv, peer)) return HTTPSRV_OK;
    hsrv_conn_tally_key(peer, key);
    const size_t bucket = hsrv_conn_tally_bucket(&srv->tally, key);
    pthread_mutex_t *lock = &srv->tally.locks[bucket & (HSRV_STRIPES - 1)];
    pthread_mutex_lock(lock);
    const httpsrv_result result = hsrv_conn_tally_add(srv, &srv->tally.buckets[bucket], key);
    pthread_mutex_unlock(lock);
    return result;
}

// One that was counted in has ended.
static void hsrv_conn_count_out(httpsrv *srv, const unsigned char peer[16]) {
    unsigned char key[16];
    if (!hsrv_conn_tallied(srv, peer)) return;
    hsrv_conn_tally_key(peer, key);
    const size_t bucket = hsrv_conn_tally_bucket(&srv->tally, key);
    pthread_mutex_t *lock = &srv->tally.locks[bucket & (HSRV_STRIPES - 1)];
    pthread_mutex_lock(lock);
    hsrv_conn_tally_remove(srv, &srv->tally.buckets[bucket], key);
    pthread_mutex_unlock(lock);
}

// Gives the place of a connection to another one.
static void hsrv_conn_give_place(hsrv_loop *loop, const unsigned char peer[16], bool refused) {
    if (refused) {
        loop->refusals--;
        return;
    }
    hsrv_conn_count_out(loop->srv, peer);
    __atomic_fetch_sub(&loop->srv->connections, 1u, __ATOMIC_RELAXED);
}

// ---- life ----

// NULL when there is no memory, or no slot.
static hsrv_conn *hsrv_conn_new(hsrv_loop *loop, int fd) {
    uint32_t slot;
    hsrv_conn *c = (hsrv_conn *)hsrv_memory_slab_take(&loop->conns, &slot);
    if (!c) return NULL;
    memset(c, 0, sizeof *c);
    c->fd = fd;
    c->slot = slot;
    if (++loop->generation == 0) loop->generation = 1;
    c->generation = loop->generation;
    c->stamp = (uint32_t)loop->now;
    c->state = HSRV_CONN_IDLE;
    c->flags = HSRV_CONN_READABLE | HSRV_CONN_WRITABLE; // not known, but likely
    c->ring = HSRV_RINGS;
    return c;
}

// The connection that an event is about; NULL if that one is gone and another may have its slot.
static hsrv_conn *hsrv_conn_find(hsrv_loop *loop, uint32_t slot, uint32_t generation) {
    if (!hsrv_memory_slab_used(&loop->conns, slot)) return NULL;
    hsrv_conn *c = (hsrv_conn *)hsrv_memory_slab_at(&loop->conns, slot);
    return c->generation == generation && c->state != HSRV_CONN_CLOSED ? c : NULL;
}

static void hsrv_conn_free_input(hsrv_loop *loop, hsrv_conn *c) {
    hsrv_memory_give(&loop->srv->memory, c->in, c->in ? sizeof *c->in + c->in->cap : 0);
    c->in = NULL;
}

static inline bool hsrv_conn_streams(const hsrv_conn *c) {
    return HSRV_LATER && c->state == HSRV_CONN_STREAM;
}

static inline bool hsrv_conn_reads_events(const hsrv_conn *c) {
    return hsrv_conn_streams(c) && c->req->stream.events;
}

// Whether an orderly end would pass for that of an answer which has none yet: only a reset tells otherwise.
static bool hsrv_conn_is_torn(const hsrv_conn *c) {
    if (!hsrv_conn_streams(c) || !c->req->stream.head_out || c->req->stream.silent) return false;
    const bool complete = c->req->stream.end_out && !c->out.first;
    return c->req->answer.framing == HSRV_FRAMING_CLOSE && !complete;
}

// Puts a connection on the closing list. Its memory stays until the end of the turn, whoever still points to it.
static void hsrv_conn_close(hsrv_loop *loop, hsrv_conn *c) {
    hsrv_loop_assert_owner(loop);
    if (c->state == HSRV_CONN_CLOSED) return;
    if (hsrv_conn_is_torn(c)) hsrv_sys_reset_on_close(c->fd);
    c->state = HSRV_CONN_CLOSED;
    c->next_closing = loop->closing;
    loop->closing = c;
}

// Tells whoever has the request that its client has left. True if it is away: then it becomes an orphan, to be freed when it
// comes home.
static bool hsrv_conn_give_up_request(hsrv_loop *loop, httpsrv_req *req) {
    if (req->away && !req->given_up) hsrv_request_give_up(req);
    if (req->waiting) {
        hsrv_loop_stop_waiting(loop, req);
        req->away = false;
    }
    if (req->away) {
        req->conn = NULL;
        loop->num_orphans++;
        return true;
    }
    const bool unanswered = req->answered == HSRV_ANSWER_NONE || req->answered == HSRV_ANSWER_BEGUN;
    const bool told = !req->stream.used || !req->shared || req->given_up || !unanswered || req->delivery;
    if (!told && hsrv_request_bar(req) != HSRV_PLACE_DOOMED) hsrv_request_tell_gone(req);
    return false;
}

static void hsrv_conn_drop_request(hsrv_loop *loop, hsrv_conn *c) {
    httpsrv_req *req = c->req;
    if (!req) return;
    c->req = NULL;
    if (HSRV_LATER && hsrv_conn_give_up_request(loop, req)) return;
    hsrv_request_release(loop, req);
}

// The end of a connection on the closing list.
static void hsrv_conn_free(hsrv_loop *loop, hsrv_conn *c) {
    hsrv_timers_unlink(loop, c);
    hsrv_conn_drop_request(loop, c);
    hsrv_conn_free_input(loop, c);
    hsrv_output_clear(&loop->srv->memory, &c->out);
    hsrv_sys_close(c->fd);
    hsrv_conn_give_place(loop, c->peer, (c->flags & HSRV_CONN_REFUSED) != 0);
    hsrv_platform_count(&loop->counters.open, (size_t)-1);
    __atomic_fetch_sub(&loop->load, 1u, __ATOMIC_RELAXED);
    hsrv_memory_slab_give(&loop->conns, c->slot);
}

// ---- speed: min_rate, timeout_ms.write ----

// Begins a period. `stuck` says that the kernel takes no more: what it holds the client has not taken.
static void hsrv_conn_begin_period(const hsrv_loop *loop, hsrv_conn *c, bool stuck) {
    c->period = (uint32_t)loop->now;
    c->period_mark = c->moved - (stuck ? hsrv_sys_unsent(c->fd) : 0u);
}

// So much has moved that no rate asks for more, and that counting on would come near to the end of the numbers.
static bool hsrv_conn_ahead(const hsrv_conn *c) {
    return (int32_t)(c->moved - c->period_mark) > 1 << 30;
}

// How long periods are in which something has to move, in ms; 0: nothing has to.
static uint32_t hsrv_conn_period(const hsrv_loop *loop, const hsrv_conn *c, hsrv_ring ring) {
    if (ring != HSRV_RING_BODY && ring != HSRV_RING_WRITE) return 0;
    const bool rated = loop->srv->config.min_rate > 0 && !hsrv_conn_reads_events(c); // there may be few to take
    const uint32_t timeout = loop->wheels[ring].duration;
    if (ring == HSRV_RING_BODY) return rated ? HTTPSRV_RATE_PERIOD : 0;
    return rated && (timeout == 0 || timeout > HTTPSRV_RATE_PERIOD) ? HTTPSRV_RATE_PERIOD : timeout;
}

// At the end of a period the next one begins, if the client was quick enough.
static void hsrv_conn_review_period(const hsrv_loop *loop, hsrv_conn *c, hsrv_ring ring) {
    const uint32_t period = hsrv_conn_period(loop, c, ring);
    if (period == 0 || (uint32_t)loop->now - c->period < period) return;
    const int64_t rate = hsrv_conn_reads_events(c) ? 0 : loop->srv->config.min_rate;
    const int64_t wanted = rate > 0 ? rate * period / 1000 : 0;
    const bool stuck = ring == HSRV_RING_WRITE;
    const uint32_t moved = c->moved - (stuck ? hsrv_sys_unsent(c->fd) : 0u) - c->period_mark;
    if ((int32_t)moved > 0 && (int64_t)moved >= wanted) hsrv_conn_begin_period(loop, c, stuck);
}

// ---- output ----

#define HSRV_MIN_SEGMENT 4096u // bytes that a segment of gathered output has room for

// A segment at the end of the chain with room for `size` bytes, which are not counted in yet: the last one, or another. NULL
// when out of memory.
static hsrv_segment *hsrv_conn_tail(hsrv_loop *loop, hsrv_conn *c, size_t size) {
    hsrv_segment *last = c->out.last;
    const char *end = last && !last->release ? (const char *)last + last->size : NULL;
    if (end && size <= (size_t)(end - (last->ptr + last->len))) return last;
    hsrv_segment *segment = hsrv_output_new(&loop->srv->memory, size < HSRV_MIN_SEGMENT ? HSRV_MIN_SEGMENT : size);
    if (!segment) return NULL;
    segment->len = 0;
    hsrv_output_append(&c->out, segment);
    return segment;
}

// What the kernel did not take, all but the first `sent` bytes of the pieces, goes to the connection's own chain.
static void hsrv_conn_keep_pieces(hsrv_loop *loop, hsrv_conn *c, const struct iovec *pieces, int count, size_t sent) {
    size_t rest = 0;
    for (int i = 0; i < count; i++) {
        rest += pieces[i].iov_len;
    }
    rest -= sent;
    if (rest == 0) return;
    hsrv_segment *segment = hsrv_conn_tail(loop, c, rest);
    if (!segment) { // the answer is torn, and there is no way to say so but to end it
        hsrv_loop_note(loop, HTTPSRV_LOG_NO_MEMORY, c, 0);
        c->flags |= HSRV_CONN_LOST;
        return;
    }
    char *out = (char *)(uintptr_t)(segment->ptr + segment->len);
    segment->len += rest;
    for (int i = 0; i < count; i++) {
        const size_t skip = sent < pieces[i].iov_len ? sent : pieces[i].iov_len;
        out = hsrv_text_append(out, hsrv_text_view((const char *)pieces[i].iov_base + skip, pieces[i].iov_len - skip));
        sent -= skip;
    }
}

static void hsrv_conn_keep_output(hsrv_loop *loop, hsrv_conn *c, size_t sent) {
    struct iovec piece;
    piece.iov_base = loop->output;
    piece.iov_len = loop->output_len;
    loop->output_len = 0;
    if (piece.iov_len == sent) return;
    hsrv_conn_keep_pieces(loop, c, &piece, 1, sent);
}

static void hsrv_conn_after_send(hsrv_loop *loop, hsrv_conn *c, hsrv_io io, size_t asked, size_t done) {
    if (io == HSRV_IO_LOST) c->flags |= HSRV_CONN_LOST;
    if (done < asked) c->flags &= (uint16_t)~HSRV_CONN_WRITABLE; // an edge will tell
    c->moved += (uint32_t)done;
    if (!(c->flags & HSRV_CONN_STUCK) || hsrv_conn_ahead(c)) hsrv_conn_begin_period(loop, c, done < asked);
    if (done < asked) c->flags |= HSRV_CONN_STUCK;
    if (done == 0) return;
    c->stamp = (uint32_t)loop->now;
    loop->write_budget -= done < loop->write_budget ? done : loop->write_budget;
    hsrv_platform_count(&loop->counters.bytes_out, done);
    if (hsrv_conn_streams(c) && c->req->stream.head_out) hsrv_request_sent(c->req, done);
}

// Sends bytes of the file that comes first. A short transfer says nothing about the socket: only EAGAIN does. A file that
// has become shorter cannot be sent as was promised: the connection ends, so that the client can tell.
static void hsrv_conn_flush_file(hsrv_loop *loop, hsrv_conn *c) {
    size_t done;
    hsrv_loop_shield(loop);
    const hsrv_io io = hsrv_output_send_file(c->fd, c->out.first, loop->write_budget, &done);
    hsrv_conn_after_send(loop, c, io, io == HSRV_IO_OK ? done : done + 1, done);
    hsrv_output_consume(&loop->srv->memory, &c->out, done);
    if (io != HSRV_IO_OK || done > 0) return;
    hsrv_loop_note(loop, HTTPSRV_LOG_FILE_SHRUNK, c, 0);
    hsrv_sys_reset_on_close(c->fd);
    c->flags |= HSRV_CONN_LOST;
}

static void hsrv_conn_flush_chain(hsrv_loop *loop, hsrv_conn *c) {
    while (c->out.first && (c->flags & (HSRV_CONN_WRITABLE | HSRV_CONN_LOST)) == HSRV_CONN_WRITABLE) {
        if (loop->write_budget == 0) {
            hsrv_loop_ready(loop, c);
            return;
        }
        hsrv_output_consume(&loop->srv->memory, &c->out, 0); // those that only tell
        if (!c->out.first) break;
        if (c->out.first->file) {
            hsrv_conn_flush_file(loop, c);
            continue;
        }
        size_t asked, done;
        const hsrv_io io = hsrv_output_send_chain(c->fd, &c->out, &asked, &done);
        hsrv_conn_after_send(loop, c, io, asked, done);
        hsrv_output_consume(&loop->srv->memory, &c->out, done);
    }
    if (c->out.first || !(c->flags & HSRV_CONN_STUCK)) return;
    c->flags &= (uint16_t)~HSRV_CONN_STUCK;
    hsrv_conn_begin_period(loop, c, false);
}

// Sends what is queued, first the connection's own chain, then the shared buffer, which is empty afterwards.
static void hsrv_conn_flush(hsrv_loop *loop, hsrv_conn *c) {
    hsrv_loop_assert_owner(loop);
    if (c->out.first) {
        hsrv_conn_keep_output(loop, c, 0);
        hsrv_conn_flush_chain(loop, c);
        return;
    }
    if (loop->output_len == 0) return;
    size_t done = 0;
    if (c->flags & HSRV_CONN_LOST) {
        loop->output_len = 0;
        return;
    }
    if (c->flags & HSRV_CONN_WRITABLE) {
        const size_t asked = loop->output_len;
        const hsrv_io io = hsrv_output_send(c->fd, loop->output, asked, &done);
        hsrv_conn_after_send(loop, c, io, asked, done);
        if (io == HSRV_IO_LOST) done = asked;
    }
    hsrv_conn_keep_output(loop, c, done);
}

// `size` bytes of the shared output buffer, after a flush if need be; NULL if they can never fit.
static char *hsrv_conn_reserve(hsrv_loop *loop, hsrv_conn *c, size_t size) {
    if (size > HTTPSRV_WRITE_BUFFER) return NULL;
    if (size > HTTPSRV_WRITE_BUFFER - loop->output_len) hsrv_conn_flush(loop, c);
    return loop->output + loop->output_len;
}

// ---- input ----

// The window is the unparsed input of the connection being served: in its own buffer, or in the shared one.
static void hsrv_conn_open_window(hsrv_loop *loop, hsrv_conn *c) {
    loop->window = c->in ? (const char *)(c->in + 1) + c->in->off : loop->input;
    loop->window_len = c->in ? c->in->len - c->in->off : 0;
    loop->read_budget = HSRV_TURN_BYTES;
    loop->write_budget = HSRV_TURN_BYTES * 4;
}

static void hsrv_conn_use(hsrv_loop *loop, hsrv_conn *c, size_t n) {
    loop->window += n;
    loop->window_len -= n;
    if (c->in) c->in->off += n;
}

// Gives the connection an input buffer of its own with room behind the window. False when out of memory.
static bool hsrv_conn_own_input(hsrv_loop *loop, hsrv_conn *c, size_t room) {
    size_t cap = 1024;
    while (cap < loop->window_len + room) {
        cap *= 2;
    }
    hsrv_input *in = (hsrv_input *)hsrv_memory_take(&loop->srv->memory, sizeof *in + cap);
    if (!in) return false;
    in->cap = cap;
    in->off = 0;
    in->len = loop->window_len;
    if (in->len > 0) memcpy(in + 1, loop->window, in->len);
    hsrv_conn_free_input(loop, c);
    c->in = in;
    loop->window = (const char *)(in + 1);
    return true;
}

// Where the next bytes go: into the shared buffer while nothing is left over, else behind the rest in a buffer of the
// connection's own, which doubles when it is full and whose size is bounded by that of a head.
static char *hsrv_conn_read_place(hsrv_loop *loop, hsrv_conn *c, size_t *room) {
    if (loop->window_len == 0) {
        hsrv_conn_free_input(loop, c);
        loop->window = loop->input;
        *room = HTTPSRV_READ_BUFFER;
        return loop->input;
    }
    if ((!c->in || c->in->len == c->in->cap) && !hsrv_conn_own_input(loop, c, loop->window_len)) return NULL;
    *room = c->in->cap - c->in->len;
    return (char *)(c->in + 1) + c->in->len;
}

// A short read says that the socket is drained, so no second call is spent on EAGAIN. If the client's FIN was seen
// before, then a short read also says that all its bytes are here.
static void hsrv_conn_after_read(hsrv_loop *loop, hsrv_conn *c, size_t room, size_t n) {
    loop->window_len += n;
    loop->read_budget -= n < loop->read_budget ? n : loop->read_budget;
    if (c->in) c->in->len += n;
    c->moved += (uint32_t)n;
    if (hsrv_conn_ahead(c)) hsrv_conn_begin_period(loop, c, false);
    hsrv_platform_count(&loop->counters.bytes_in, n);
    // A head's time runs from its first byte, lingering from the end of the answer: no trickle extends them.
    if (c->state != HSRV_CONN_HEAD && c->state != HSRV_CONN_LINGER) c->stamp = (uint32_t)loop->now;
    if (n == room) return;
    c->flags &= (uint16_t)~HSRV_CONN_READABLE;
    if (c->flags & HSRV_CONN_FIN) c->flags |= HSRV_CONN_EOF;
}

static hsrv_event hsrv_conn_read(hsrv_loop *loop, hsrv_conn *c) {
    size_t room, n;
    char *place = hsrv_conn_read_place(loop, c, &room);
    if (!place) return HSRV_EVENT_NOMEM;
    switch (hsrv_output_read(c->fd, place, room, &n)) {
    case HSRV_IO_OK: hsrv_conn_after_read(loop, c, room, n); break;
    case HSRV_IO_AGAIN: c->flags &= (uint16_t)~HSRV_CONN_READABLE; break;
    case HSRV_IO_EOF: c->flags = (uint16_t)((c->flags & ~HSRV_CONN_READABLE) | HSRV_CONN_FIN | HSRV_CONN_EOF); break;
    case HSRV_IO_LOST: c->flags |= HSRV_CONN_LOST; break;
    }
    return HSRV_EVENT_SERVE;
}

// Keeps what could not be used yet, since the shared buffer is about to serve another connection. False: no memory.
static bool hsrv_conn_close_window(hsrv_loop *loop, hsrv_conn *c) {
    if (loop->window_len == 0) {
        if (c->in) hsrv_conn_free_input(loop, c);
        return true;
    }
    return c->in || hsrv_conn_own_input(loop, c, 0);
}

// ---- progress ----

static hsrv_event hsrv_conn_parse_head(hsrv_loop *loop, hsrv_conn *c) {
    if (loop->window_len == 0) return HSRV_EVENT_SERVE;
    if (HSRV_LIKELY(!c->req)) {
        c->req = hsrv_loop_take_again(loop);
        if (c->req) {
            hsrv_conn_use(loop, c, c->req->raw_len);
            return HSRV_EVENT_AGAIN;
        }
        c->req = hsrv_loop_take_request(loop);
    }
    if (!c->req) return HSRV_EVENT_NOMEM;
    httpsrv_req *req = c->req;
    const ptrdiff_t n = hsrv_parser_head(&req->parser, loop->window, loop->window_len, &req->head);
    if (n < 0) return HSRV_EVENT_BAD;
    if (n == 0) {
        if (req->parser.state <= HSRV_HEAD_START_LF) return HSRV_EVENT_SERVE; // empty lines are no request yet
        if (c->state == HSRV_CONN_IDLE) c->stamp = (uint32_t)loop->now;
        c->state = HSRV_CONN_HEAD;
        return HSRV_EVENT_SERVE;
    }
    req->raw = loop->window;
    req->raw_len = (size_t)n;
    hsrv_conn_use(loop, c, (size_t)n);
    return HSRV_EVENT_HEAD;
}

// A body that came whole with its head stays where it is. Only with a Content-Length: chunks have frames in between.
static bool hsrv_conn_body_in_window(hsrv_loop *loop, hsrv_conn *c) {
    httpsrv_req *req = c->req;
    if (req->head.chunked || (uint64_t)req->head.content_length > loop->window_len) return false;
    if (HSRV_CODES && req->inflater) return false;
    const ptrdiff_t n = hsrv_parser_body(&req->parser, loop->window, loop->window_len, &req->body);
    hsrv_conn_use(loop, c, (size_t)n);
    return true;
}

static hsrv_event hsrv_conn_parse_trailers(hsrv_loop *loop, hsrv_conn *c) {
    httpsrv_req *req = c->req;
    if (!hsrv_request_take_trailers(req)) return HSRV_EVENT_NOMEM;
    const ptrdiff_t n = hsrv_parser_trailers(&req->parser, loop->window, loop->window_len, &req->trailers);
    if (n < 0) return HSRV_EVENT_BAD;
    if (n > 0 && !hsrv_request_keep_trailers(req, loop->window, (size_t)n)) return HSRV_EVENT_NOMEM;
    hsrv_conn_use(loop, c, (size_t)n);
    return HSRV_EVENT_SERVE;
}

static hsrv_event hsrv_conn_coding_fault(httpsrv_req *req, hsrv_coded coded) {
    if (coded == HSRV_CODED_NOMEM) return HSRV_EVENT_NOMEM;
    if (coded == HSRV_CODED_OVER) return HSRV_EVENT_OVER;
    req->parser.status = 400;
    req->parser.item = HTTPSRV_LOG_BAD_CONTENT;
    return HSRV_EVENT_BAD;
}

// Decodes a piece into the request's buffer. What is over the limit is noticed within one step.
static hsrv_event hsrv_conn_decode_body(hsrv_loop *loop, httpsrv_req *req, httpsrv_str piece) {
    hsrv_inflater *coder = req->inflater;
    if (!hsrv_coding_hold(coder, piece)) return HSRV_EVENT_NOMEM;
    while (!hsrv_coding_is_dry(coder)) {
        size_t n;
        const hsrv_coded coded = hsrv_coding_inflate(coder, &n);
        if (coded != HSRV_CODED_OK) return hsrv_conn_coding_fault(req, coded);
        if (!hsrv_memory_buffer_append(&loop->srv->memory, &req->body_buffer, coder->piece, n)) return HSRV_EVENT_NOMEM;
    }
    return HSRV_EVENT_SERVE;
}

static hsrv_event hsrv_conn_parse_body(hsrv_loop *loop, hsrv_conn *c) {
    httpsrv_req *req = c->req;
    while (loop->window_len > 0 && req->parser.phase == HTTPSRV_PHASE_BODY) {
        httpsrv_str piece;
        const ptrdiff_t n = hsrv_parser_body(&req->parser, loop->window, loop->window_len, &piece);
        if (n < 0) return HSRV_EVENT_BAD;
        hsrv_conn_use(loop, c, (size_t)n);
        if (c->state == HSRV_CONN_DISCARD) {
            c->discarded += (uint32_t)n;
            if (c->discarded > HSRV_MAX_DISCARD) return HSRV_EVENT_OVER;
        } else if (HSRV_CODES && req->inflater) {
            const hsrv_event event = hsrv_conn_decode_body(loop, req, piece);
            if (event != HSRV_EVENT_SERVE) return event;
        } else if (!hsrv_memory_buffer_append(&loop->srv->memory, &req->body_buffer, piece.ptr, piece.len)) {
            return HSRV_EVENT_NOMEM;
        }
    }
    if (loop->window_len > 0 && req->parser.phase == HTTPSRV_PHASE_TRAILERS) {
        const hsrv_event event = hsrv_conn_parse_trailers(loop, c);
        if (event != HSRV_EVENT_SERVE) return event;
    }
    if (req->parser.phase != HTTPSRV_PHASE_DONE) return HSRV_EVENT_SERVE;
    const bool cut = HSRV_CODES && req->inflater && !hsrv_coding_is_complete(req->inflater);
    return cut && c->state == HSRV_CONN_BODY ? hsrv_conn_coding_fault(req, HSRV_CODED_BAD) : HSRV_EVENT_BODY;
}

// ---- bodies in pieces ----

// Whether somebody takes the body as it comes, right now. A worker who does not is asked to tell when it does: so this is
// asked where the answer decides about reading, nowhere else. What tells in between must not be overheard.
static bool hsrv_conn_ask_for_body(hsrv_conn *c) {
    httpsrv_req *req = c->req;
    const hsrv_stream *s = &req->stream;
    if (s->body_over || s->paused || req->owes_continue) return false;
    return req->on_body ? s->here : !req->waiting && hsrv_request_ask_for_room(req);
}

// Takes the next bytes of the body out of the window, if there are some.
static hsrv_event hsrv_conn_take_piece(hsrv_loop *loop, hsrv_conn *c) {
    httpsrv_req *req = c->req;
    while (loop->window_len > 0 && req->parser.phase == HTTPSRV_PHASE_BODY && loop->piece.len == 0) {
        const ptrdiff_t n = hsrv_parser_body(&req->parser, loop->window, loop->window_len, &loop->piece);
        if (n < 0) return HSRV_EVENT_BAD;
        hsrv_conn_use(loop, c, (size_t)n);
    }
    return HSRV_EVENT_SERVE;
}

// The same decoded. What is held comes before more is taken.
static hsrv_event hsrv_conn_take_coded_piece(hsrv_loop *loop, hsrv_conn *c) {
    hsrv_inflater *coder = c->req->inflater;
    size_t n = 0;
    while (n == 0) {
        if (hsrv_coding_is_dry(coder)) {
            loop->piece.len = 0;
            const hsrv_event event = hsrv_conn_take_piece(loop, c);
            if (event != HSRV_EVENT_SERVE || loop->piece.len == 0) return event;
            if (!hsrv_coding_hold(coder, loop->piece)) return HSRV_EVENT_NOMEM;
        }
        const hsrv_coded coded = hsrv_coding_inflate(coder, &n);
        if (coded != HSRV_CODED_OK) return hsrv_conn_coding_fault(c->req, coded);
    }
    loop->piece = hsrv_text_view(coder->piece, n);
    return HSRV_EVENT_SERVE;
}

// Whether the last byte of the body was handed on. Whoever gets it must have no doubt.
static bool hsrv_conn_is_body_over(const httpsrv_req *req) {
    const bool over = req->parser.phase == HTTPSRV_PHASE_DONE;
    return HSRV_CODES && req->inflater ? over && hsrv_coding_is_dry(req->inflater) : over;
}

// The next piece of the body, as far as one is here.
static hsrv_event hsrv_conn_parse_piece(hsrv_loop *loop, hsrv_conn *c) {
    httpsrv_req *req = c->req;
    const bool decodes = HSRV_CODES && req->inflater;
    loop->piece = HSRV_LITERAL("");
    const hsrv_event taken = decodes ? hsrv_conn_take_coded_piece(loop, c) : hsrv_conn_take_piece(loop, c);
    if (taken != HSRV_EVENT_SERVE) return taken;
    if (loop->window_len > 0 && req->parser.phase == HTTPSRV_PHASE_TRAILERS) {
        const hsrv_event event = hsrv_conn_parse_trailers(loop, c);
        if (event != HSRV_EVENT_SERVE) return event;
    }
    req->stream.body_over = hsrv_conn_is_body_over(req);
    if (req->stream.body_over && decodes && !hsrv_coding_is_complete(req->inflater))
        return hsrv_conn_coding_fault(req, HSRV_CODED_BAD);
    return req->stream.body_over || loop->piece.len > 0 ? HSRV_EVENT_PIECE : HSRV_EVENT_SERVE;
}

// Whether an answer should go on by its on_drain. Output that waits for the kernel has been looked at.
static bool hsrv_conn_is_drained(const hsrv_conn *c) {
    const hsrv_stream *s = &c->req->stream;
    if (!s->head_out || s->end_out || !s->here || !s->on_drain || !s->written) return false;
    const size_t low = (size_t)c->req->srv->config.write_mark.low;
    return __atomic_load_n(&s->out_queued, __ATOMIC_RELAXED) <= low;
}

// The body first: an echo is held back by its output.
static hsrv_event hsrv_conn_parse_stream(hsrv_loop *loop, hsrv_conn *c) {
    hsrv_event event = HSRV_EVENT_NONE;
    const bool reads_events = c->req->stream.events;
    if (reads_events && (c->flags & HSRV_CONN_FIN))
        return HSRV_EVENT_LOST; // nobody stays to listen without a way to ask
    c->req->stream.reads = hsrv_conn_ask_for_body(c);
    if (c->req->stream.reads) event = hsrv_conn_parse_piece(loop, c);
    if (event != HSRV_EVENT_NONE && event != HSRV_EVENT_SERVE) return event;
    const hsrv_stream *s = &c->req->stream;
    if (loop->output_len > 0 && s->here && s->on_drain)
        hsrv_conn_flush(loop, c); // no event will tell that it is all out
    if (c->out.first) return HSRV_EVENT_NONE;
    if (!hsrv_conn_is_drained(c)) return event;
    if (loop->write_budget > 0) return HSRV_EVENT_DRAINED;
    hsrv_loop_ready(loop, c); // the others' turn
    return event;
}

static hsrv_event hsrv_conn_drop_input(hsrv_loop *loop, hsrv_conn *c) {
    c->discarded += (uint32_t)loop->window_len;
    hsrv_conn_use(loop, c, loop->window_len);
    return c->discarded > HSRV_MAX_LINGER ? HSRV_EVENT_OVER : HSRV_EVENT_SERVE;
}

// Uses up what is in the window. SERVE means that more input is needed.
static hsrv_event hsrv_conn_parse(hsrv_loop *loop, hsrv_conn *c) {
    switch ((hsrv_conn_state)c->state) {
    case HSRV_CONN_IDLE:
    case HSRV_CONN_HEAD: return hsrv_conn_parse_head(loop, c);
    case HSRV_CONN_BODY:
    case HSRV_CONN_DISCARD: return hsrv_conn_parse_body(loop, c);
    case HSRV_CONN_STREAM: return HSRV_LATER ? hsrv_conn_parse_stream(loop, c) : HSRV_EVENT_NONE;
    case HSRV_CONN_LINGER: return hsrv_conn_drop_input(loop, c);
    default: return HSRV_EVENT_NONE;
    }
}

// What happens next on a connection: parses, reads and sends until something has to be decided or nothing moves.
// Nothing is read while output is waiting, or while a request is with its handler: that is the back-pressure.
static hsrv_event hsrv_conn_next(hsrv_loop *loop, hsrv_conn *c) {
    hsrv_loop_assert_owner(loop);
    for (;;) {
        if (c->flags & HSRV_CONN_LOST) return HSRV_EVENT_LOST;
        if (c->out.first) {
            hsrv_conn_flush(loop, c);
            if (c->flags & HSRV_CONN_LOST) return HSRV_EVENT_LOST;
            if (c->out.first) return HSRV_EVENT_NONE;
        }
        hsrv_event event = hsrv_conn_parse(loop, c);
        if (event != HSRV_EVENT_SERVE) return event;
        if (c->flags & HSRV_CONN_EOF) return HSRV_EVENT_END;
        if (!(c->flags & HSRV_CONN_READABLE)) return HSRV_EVENT_NONE;
        if (loop->read_budget == 0) {
            hsrv_loop_ready(loop, c);
            return HSRV_EVENT_NONE;
        }
        if (loop->output_len > 0) { // what was read is answered: one send, before anything else is read
            hsrv_conn_flush(loop, c);
            continue;
        }
        event = hsrv_conn_read(loop, c);
        if (event != HSRV_EVENT_SERVE) return event;
    }
}

// After the last answer: says so to the client, then waits for it to close, unless it has. Input that comes to a closed
// socket makes the kernel send RST, which can destroy the answer on its way. Only a client that has said itself that it
// sends nothing more, and has not, is not waited for (RFC 9112 section 9.6), unless it was refused.
static void hsrv_conn_finish(hsrv_loop *loop, hsrv_conn *c) {
    const bool parted = (c->flags & HSRV_CONN_PARTED) && !(c->flags & HSRV_CONN_READABLE) && loop->window_len == 0;
    if (parted || (c->flags & HSRV_CONN_EOF) || hsrv_sys_shutdown_write(c->fd) != 0) {
        hsrv_conn_close(loop, c);
        return;
    }
    c->state = HSRV_CONN_LINGER;
    c->stamp = (uint32_t)loop->now;
    c->discarded = 0;
    hsrv_conn_drop_request(loop, c);
}

// ---- deadlines ----

// While bodies go in pieces, whoever is waited for has a deadline: the client for the next piece, or the handler for the
// begin of its answer.
static hsrv_ring hsrv_conn_stream_ring(const hsrv_conn *c) {
    const httpsrv_req *req = c->req;
    if (req->stream.reads) return HSRV_RING_BODY;
    if (req->stream.events && !req->stream.end_out) return HSRV_RING_EVENTS;
    return req->away && req->route->timeout_ms > 0 && !req->stream.head_out ? HSRV_RING_HANDLER : HSRV_RINGS;
}

// Which deadline counts in the present state; HSRV_RINGS for none.
static hsrv_ring hsrv_conn_ring(const hsrv_conn *c) {
    if (c->state == HSRV_CONN_LINGER) return HSRV_RING_LINGER;
    if (c->out.first) return HSRV_RING_WRITE;
    switch ((hsrv_conn_state)c->state) {
    case HSRV_CONN_IDLE: return HSRV_RING_IDLE;
    case HSRV_CONN_HEAD: return HSRV_RING_HEAD;
    case HSRV_CONN_BODY:
    case HSRV_CONN_DISCARD: return HSRV_RING_BODY;
    case HSRV_CONN_STREAM: return HSRV_LATER ? hsrv_conn_stream_ring(c) : HSRV_RINGS;
    case HSRV_CONN_BUSY: {
        const httpsrv_req *req = c->req;
        return HSRV_LATER && req && req->away && req->route->timeout_ms > 0 ? HSRV_RING_HANDLER : HSRV_RINGS;
    }
    default: return HSRV_RINGS;
    }
}

// A time in ms of the loop's clock. Stamps are kept as the low half of it, and are never 49 days old.
static uint64_t hsrv_conn_after(const hsrv_loop *loop, uint32_t stamp, uint32_t duration) {
    return loop->now - (uint32_t)((uint32_t)loop->now - stamp) + duration;
}

// When to look at a connection whose ring has a wheel that turns.
static uint64_t hsrv_conn_deadline(const hsrv_loop *loop, const hsrv_conn *c, hsrv_ring ring) {
    if (ring == HSRV_RING_HANDLER) return hsrv_conn_after(loop, c->req->departed, (uint32_t)c->req->route->timeout_ms);
    const uint32_t timeout = loop->wheels[ring].duration, period = hsrv_conn_period(loop, c, ring);
    const uint64_t review = period > 0 ? hsrv_conn_after(loop, c->period, period) : UINT64_MAX;
    if (timeout == 0 || ring == HSRV_RING_WRITE) return review;
    const uint64_t deadline = hsrv_conn_after(loop, c->stamp, timeout);
    return deadline < review ? deadline : review;
}

// A body that nobody took for a while does not count as a client that was slow meanwhile; nor does one that was waited for
// as a handler that was.
static void hsrv_conn_note_reading(hsrv_loop *loop, hsrv_conn *c, bool reads) {
    hsrv_stream *s = &c->req->stream;
    if (reads && !s->reading_on) {
        c->stamp = (uint32_t)loop->now;
        hsrv_conn_begin_period(loop, c, false);
    }
    if (!reads && s->reading_on) c->req->departed = (uint32_t)loop->now;
    s->reading_on = reads;
}

static void hsrv_conn_arm(hsrv_loop *loop, hsrv_conn *c) {
    const hsrv_ring ring = hsrv_conn_ring(c);
    if (hsrv_conn_streams(c)) hsrv_conn_note_reading(loop, c, ring == HSRV_RING_BODY);
    if (ring != HSRV_RINGS && loop->wheels[ring].tick > 0)
        hsrv_timers_arm(loop, c, ring, hsrv_conn_deadline(loop, c, ring));
}

// ===========================================================================================
// >>emit      Answers as HTTP/1.1 bytes.    owns: nothing    thread: loop    uses: >>conn
// ===========================================================================================

#define HSRV_BORROW_FROM 8192u // bytes from which on a borrowed body is sent from where it lies rather than copied

// What the request and the moment say about how an answer goes out.
typedef struct hsrv_manner {
    bool head_only;      // HEAD
    bool close;          // the connection ends with it
    bool say_keep_alive; // a client of HTTP/1.0 has to be told, as has one that gets a Keep-Alive field
    int timeout, max;    // of that field: seconds and requests left; 0: not said
} hsrv_manner;

static void hsrv_emit_keep_alive(const hsrv_loop *loop, const hsrv_conn *c, hsrv_manner *how) {
    const httpsrv_config *config = &loop->srv->config;
    if (config->timeout_ms.idle > 0) how->timeout = (config->timeout_ms.idle + 999) / 1000;
    if (config->max.requests > 0) how->max = config->max.requests - (int)c->served - 1;
    if (how->timeout > 0 || how->max > 0) how->say_keep_alive = true;
}

// Whether what is left of the request's body stands in the way of the next one: there is too much of it to be dropped, or
// a client that has not been asked for it may or may not send it, and must not be misread.
static bool hsrv_emit_is_unread(const httpsrv_req *req) {
    if (req->parser.phase == HTTPSRV_PHASE_DONE) return false;
    const bool long_rest = !req->head.chunked && req->parser.left > (int64_t)HSRV_MAX_DISCARD;
    return req->owes_continue || req->head.expect_other || long_rest;
}

// `ends` says that the connection ends with this answer in any case.
static hsrv_manner hsrv_emit_manner_of(const hsrv_loop *loop, const hsrv_conn *c, const httpsrv_req *req, bool ends) {
    const int max_requests = loop->srv->config.max.requests;
    hsrv_manner how;
    how.head_only = req->head.method_id == HTTPSRV_METHOD_HEAD;
    const bool published = !req->away || req->inline_conn || (req->stream.told & HSRV_CLAIM_BEGUN);
    const bool told = published && req->answer.close; // else the answer is its holder's
    how.close = ends || !req->head.keep_alive || told || loop->phase != HSRV_LOOP_RUN ||
                (max_requests >= 0 && c->served + 1 >= (uint32_t)max_requests);
    how.say_keep_alive = !how.close && req->head.version_minor == 0;
    how.timeout = how.max = 0;
    if (loop->srv->config.keep_alive_header && !how.close) hsrv_emit_keep_alive(loop, c, &how);
    return how;
}

// Of an answer after which nobody will read the rest of the request.
static hsrv_manner hsrv_emit_manner(const hsrv_loop *loop, const hsrv_conn *c, const httpsrv_req *req) {
    return hsrv_emit_manner_of(loop, c, req, hsrv_emit_is_unread(req));
}

// Whether its manner is none of these as far as request and configuration go: the body goes out, the connection stays, and
// nothing is said about that.
static bool hsrv_emit_may_be_plain(const httpsrv_req *req) {
    const httpsrv_config *config = &req->srv->config;
    const httpsrv_head *head = &req->head;
    if (config->keep_alive_header || config->max.requests >= 0) return false;
    if (req->parser.phase != HTTPSRV_PHASE_DONE || head->expect_other) return false;
    return head->keep_alive && head->version_minor == 1 && head->method_id != HTTPSRV_METHOD_HEAD;
}

static inline bool hsrv_emit_is_plain(const hsrv_loop *loop, const httpsrv_req *req) {
    if (loop->phase != HSRV_LOOP_RUN || req->answer.close) return false;
    return req == loop->again.req ? loop->again.plain : hsrv_emit_may_be_plain(req);
}

// RFC 9110 sections 15.3.5, 15.3.6 and 15.4.5.
static inline bool hsrv_emit_has_length(int status) {
    return status != 204 && status != 304;
}

static inline bool hsrv_emit_has_body(int status, const hsrv_manner *how) {
    return hsrv_emit_has_length(status) && status != 205 && !how->head_only;
}

// Upper bound of the head's size; SIZE_MAX if it does not fit a size.
static size_t hsrv_emit_head_size(const hsrv_loop *loop, const hsrv_answer *answer) {
    size_t size = loop->status_block.len + 256 + answer->type.len;
    for (const hsrv_header *h = answer->headers; h; h = h->next) {
        if (h->name.len + h->value.len + 4 > SIZE_MAX / 2 - size) return SIZE_MAX;
        size += h->name.len + h->value.len + 4;
    }
    return size;
}

static char *hsrv_emit_status_line(char *out, int status) {
    out = HSRV_APPEND(out, "HTTP/1.1 ");
    out = hsrv_text_format_number(out, (uint64_t)status);
    *out++ = ' ';
    out = hsrv_text_append(out, hsrv_text_phrase(status));
    return HSRV_APPEND(out, "\r\n");
}

// Status line, Server, Date. Nearly always the cached block as a whole.
static char *hsrv_emit_opening(char *out, const hsrv_loop *loop, const hsrv_answer *answer) {
    const httpsrv_str block = loop->status_block;
    const bool own = answer->own_server || answer->own_date;
    if (HSRV_LIKELY(answer->status == 200 && !own)) return hsrv_text_append(out, block);
    out = hsrv_emit_status_line(out, answer->status);
    const size_t server = loop->status_line_len, date = server + loop->server_line_len;
    if (!answer->own_server) out = hsrv_text_append(out, hsrv_text_view(block.ptr + server, date - server));
    if (!answer->own_date) out = hsrv_text_append(out, hsrv_text_view(block.ptr + date, block.len - date));
    return out;
}

static char *hsrv_emit_field(char *out, httpsrv_str name, httpsrv_str value) {
    out = hsrv_text_append(out, name);
    out = HSRV_APPEND(out, ": ");
    out = hsrv_text_append(out, value);
    return HSRV_APPEND(out, "\r\n");
}

static char *hsrv_emit_keep_alive_field(char *out, const hsrv_manner *how) {
    out = HSRV_APPEND(out, "Keep-Alive: ");
    if (how->timeout > 0) {
        out = HSRV_APPEND(out, "timeout=");
        out = hsrv_text_format_number(out, (uint64_t)how->timeout);
    }
    if (how->timeout > 0 && how->max > 0) out = HSRV_APPEND(out, ", ");
    if (how->max > 0) {
        out = HSRV_APPEND(out, "max=");
        out = hsrv_text_format_number(out, (uint64_t)how->max);
    }
    return HSRV_APPEND(out, "\r\n");
}

// RFC 9112 section 6.
static char *hsrv_emit_framing(char *out, const hsrv_answer *answer) {
    if (answer->status == 205) return HSRV_APPEND(out, "Content-Length: 0\r\n");
    if (answer->framing == HSRV_FRAMING_CHUNKED) return HSRV_APPEND(out, "Transfer-Encoding: chunked\r\n");
    if (answer->framing == HSRV_FRAMING_CLOSE) return out;
    const uint64_t length = answer->framing == HSRV_FRAMING_WHOLE ? answer->body.len : (uint64_t)answer->length;
    out = HSRV_APPEND(out, "Content-Length: ");
    out = hsrv_text_format_number(out, length);
    return HSRV_APPEND(out, "\r\n");
}

static char *hsrv_emit_head(char *out, const hsrv_loop *loop, const hsrv_answer *answer, const hsrv_manner *how) {
    const bool has_length = hsrv_emit_has_length(answer->status);
    out = hsrv_emit_opening(out, loop, answer);
    if (answer->type.ptr && has_length) {
        out = HSRV_APPEND(out, "Content-Type: ");
        out = hsrv_text_append(out, answer->type);
        out = HSRV_APPEND(out, "\r\n");
    }
    const bool replaced = answer->own_type && answer->type.ptr; // a type by argument wins over one set as a field
    for (const hsrv_header *h = answer->headers; h; h = h->next) {
        if (replaced && hsrv_text_equal_nocase(h->name, hsrv_text_of("content-type"))) continue;
        const bool weak = HSRV_CODES && answer->coded && h->value.len > 0 && h->value.ptr[0] == '"';
        if (weak && hsrv_text_equal_nocase(h->name, hsrv_text_of("etag"))) // the bytes are others now
            out = HSRV_APPEND(hsrv_text_append(out, h->name), ": W/");
        else
            out = HSRV_APPEND(hsrv_text_append(out, h->name), ": ");
        out = HSRV_APPEND(hsrv_text_append(out, h->value), "\r\n");
    }
    if (HSRV_CODES && answer->coded) out = HSRV_APPEND(out, "Content-Encoding: gzip\r\n");
    if (HSRV_CODES && answer->varies) out = HSRV_APPEND(out, "Vary: Accept-Encoding\r\n");
    if (has_length) out = hsrv_emit_framing(out, answer);
    if (how->close) out = HSRV_APPEND(out, "Connection: close\r\n");
    if (how->say_keep_alive) out = HSRV_APPEND(out, "Connection: keep-alive\r\n");
    if (how->timeout > 0 || how->max > 0) out = hsrv_emit_keep_alive_field(out, how);
    return HSRV_APPEND(out, "\r\n");
}

// Of an answer, for those who want to know.
static inline void hsrv_emit_add(hsrv_conn *c, size_t bytes) {
    if (c->req) c->req->bytes_sent += (int64_t)bytes;
}

// Queues the body of an answer that is in segments, or drops it.
static void hsrv_emit_parts(hsrv_loop *loop, hsrv_conn *c, hsrv_answer *answer, bool with_body) {
    hsrv_segment *part = answer->parts;
    answer->parts = NULL;
    if (!with_body) {
        hsrv_output_drop_list(&loop->srv->memory, part);
        return;
    }
    hsrv_emit_add(c, (size_t)answer->length);
    hsrv_conn_keep_output(loop, c, 0);
    while (part) {
        hsrv_segment *next = part->next;
        hsrv_output_append(&c->out, part);
        part = next;
    }
}

// The body's owner is done with it.
static void hsrv_emit_release(hsrv_answer *answer) {
    if (answer->release) answer->release(answer->release_arg);
    answer->release = NULL;
}

// A segment that borrows the body from where it lies.
static hsrv_segment *hsrv_emit_borrow(hsrv_loop *loop, hsrv_answer *answer) {
    hsrv_segment *segment = hsrv_output_new(&loop->srv->memory, 0);
    if (!segment) return NULL;
    segment->ptr = answer->body.ptr;
    segment->len = answer->body.len;
    segment->release = answer->release;
    segment->release_arg = answer->release_arg;
    answer->release = NULL;
    return segment;
}

// An answer that is too large for the shared buffer: head and body go to the chain, the body copied or borrowed.
static httpsrv_result hsrv_emit_large(hsrv_loop *loop, hsrv_conn *c, hsrv_answer *answer, const hsrv_manner *how,
                                      size_t head_size, bool with_body) {
    const bool borrow = with_body && answer->release;
    const size_t copied = with_body && !borrow ? answer->body.len : 0;
    if (copied > (size_t)PTRDIFF_MAX || head_size > (size_t)PTRDIFF_MAX) return HTTPSRV_NOMEM;
    hsrv_segment *head = hsrv_output_new(&loop->srv->memory, head_size + copied);
    if (!head) return HTTPSRV_NOMEM;
    hsrv_segment *body = borrow ? hsrv_emit_borrow(loop, answer) : NULL;
    if (borrow && !body) {
        hsrv_output_drop(&loop->srv->memory, head);
        return HTTPSRV_NOMEM;
    }
    char *end = hsrv_emit_head((char *)(head + 1), loop, answer, how);
    if (copied > 0) end = hsrv_text_append(end, answer->body);
    head->len = (size_t)(end - head->ptr);
    hsrv_emit_add(c, head->len + (body ? body->len : 0));
    hsrv_conn_keep_output(loop, c, 0); // answers before this one keep their place
    hsrv_output_append(&c->out, head);
    if (body) hsrv_output_append(&c->out, body);
    return HTTPSRV_OK;
}

static void hsrv_emit_count(hsrv_loop *loop, hsrv_conn *c, int status) {
    c->served++;
    if (c->req) c->req->status_sent = status;
    hsrv_platform_count(&loop->counters.answers[0], 1);
    hsrv_platform_count(&loop->counters.answers[status / 100], 1);
}

static void hsrv_emit_count_end(hsrv_loop *loop) {
    if (loop->phase != HSRV_LOOP_RUN) hsrv_platform_count(&loop->counters.finished, 1);
}

// Queues a whole answer. OK: it is on its way, and the body released or borrowed. NOMEM: nothing has happened.
static httpsrv_result hsrv_emit_answer(hsrv_loop *loop, hsrv_conn *c, hsrv_answer *answer, const hsrv_manner *how) {
    const bool with_body = hsrv_emit_has_body(answer->status, how) && answer->body.len > 0;
    const size_t head_size = hsrv_emit_head_size(loop, answer);
    const size_t copied = with_body ? answer->body.len : 0;
    const bool large = (answer->release && copied >= HSRV_BORROW_FROM) || copied > HTTPSRV_WRITE_BUFFER ||
                       head_size > HTTPSRV_WRITE_BUFFER - copied;
    if (large) {
        const httpsrv_result result = hsrv_emit_large(loop, c, answer, how, head_size, with_body);
        if (result != HTTPSRV_OK) return result;
    } else {
        char *out = hsrv_conn_reserve(loop, c, head_size + copied);
        const char *begin = out;
        out = hsrv_emit_head(out, loop, answer, how);
        if (copied > 0) out = hsrv_text_append(out, answer->body);
        loop->output_len = (size_t)(out - loop->output);
        hsrv_emit_add(c, (size_t)(out - begin));
    }
    hsrv_emit_release(answer);
    hsrv_emit_count(loop, c, answer->status);
    if (answer->parts) hsrv_emit_parts(loop, c, answer, hsrv_emit_has_body(answer->status, how));
    if (answer->framing <= HSRV_FRAMING_PARTS) hsrv_emit_count_end(loop);
    if (how->close) c->flags |= HSRV_CONN_ENDING;
    return HTTPSRV_OK;
}

// Upper bound of its size.
static size_t hsrv_emit_plain_size(const hsrv_loop *loop, httpsrv_str body) {
    return loop->opening_len + 24 + body.len;
}

// Queues a 200 answer of the type that is kept ready and a body, with nothing else. What it says is what
// hsrv_emit_answer says.
static void hsrv_emit_plain(hsrv_loop *loop, hsrv_conn *c, httpsrv_str body) {
    char *out = hsrv_conn_reserve(loop, c, hsrv_emit_plain_size(loop, body));
    if (HSRV_UNLIKELY(body.len != loop->plain_len)) hsrv_loop_keep_length(loop, body.len);
    const size_t head_len = loop->plain_head_len;
    memcpy(out, loop->block, head_len);
    if (body.len > 0) memcpy(out + head_len, body.ptr, body.len);
    loop->output_len += head_len + body.len;
    hsrv_emit_add(c, head_len + body.len);
    hsrv_emit_count(loop, c, 200);
}

// RFC 9110 section 15.2.1: the client may send its body now.
static void hsrv_emit_continue(hsrv_loop *loop, hsrv_conn *c) {
    c->req->owes_continue = false;
    char *out = hsrv_conn_reserve(loop, c, 32);
    out = HSRV_APPEND(out, "HTTP/1.1 100 Continue\r\n\r\n");
    loop->output_len = (size_t)(out - loop->output);
}

// ---- answers in pieces ----

// The head. From here on all that is queued is counted, what is there already included. OK, NOMEM.
static httpsrv_result hsrv_emit_begin(hsrv_loop *loop, hsrv_conn *c, hsrv_answer *answer) {
    httpsrv_req *req = c->req;
    hsrv_stream *s = &req->stream;
    const bool until_close = answer->framing == HSRV_FRAMING_CLOSE && !s->silent;
    const bool taken = req->on_body || (req->route && req->route->stream);
    const bool unasked = req->owes_continue && (answer->status >= 400 || !taken); // such a client may keep its body
    const bool unread = unasked || (!taken && hsrv_emit_is_unread(req));
    const hsrv_manner how = hsrv_emit_manner_of(loop, c, req, until_close || unread);
    if (!taken) s->body_over = true;
    if (req->owes_continue && !unasked) hsrv_emit_continue(loop, c);
    const httpsrv_result result = hsrv_emit_answer(loop, c, answer, &how);
    if (result != HTTPSRV_OK) return result;
    if (c->state == HSRV_CONN_BUSY) c->state = HSRV_CONN_STREAM;
    s->head_out = s->written = true;
    const size_t pending = loop->output_len + hsrv_output_pending(&c->out);
    __atomic_fetch_add(&s->out_queued, pending, __ATOMIC_SEQ_CST);
    return HTTPSRV_OK;
}

// Whether bytes can go straight to the kernel.
static bool hsrv_emit_can_send(const hsrv_conn *c) {
    return !c->out.first && (c->flags & (HSRV_CONN_WRITABLE | HSRV_CONN_LOST)) == HSRV_CONN_WRITABLE;
}

#define HSRV_SEND_THROUGH 16384u // bytes from which on a piece is sent from where it lies, before it is copied

// Sends the shared buffer and a large piece behind it; what the kernel does not take is copied.
static void hsrv_emit_send_through(hsrv_loop *loop, hsrv_conn *c, const struct iovec *frame, int count) {
    struct iovec pieces[4];
    size_t asked = 0, done = 0;
    pieces[0].iov_base = loop->output;
    pieces[0].iov_len = loop->output_len;
    memcpy(pieces + 1, frame, (size_t)count * sizeof *frame);
    for (int i = 0; i <= count; i++) {
        asked += pieces[i].iov_len;
    }
    loop->output_len = 0;
    struct iovec copy[4]; // the kernel leaves them alone, but has not promised it
    memcpy(copy, pieces, sizeof copy);
    const hsrv_io io = hsrv_output_send_pieces(c->fd, copy, (size_t)count + 1, false, &done);
    hsrv_conn_after_send(loop, c, io, asked, done);
    if (io != HSRV_IO_LOST) hsrv_conn_keep_pieces(loop, c, pieces, count + 1, done);
}

// A piece of the body from where it lies. OK; NOMEM: nothing has happened.
static httpsrv_result hsrv_emit_piece(hsrv_loop *loop, hsrv_conn *c, httpsrv_str bytes) {
    hsrv_stream *s = &c->req->stream;
    const bool chunked = c->req->answer.framing == HSRV_FRAMING_CHUNKED;
    char room[HSRV_CHUNK_HEAD];
    const char *head = chunked ? hsrv_output_chunk_head(room + sizeof room, bytes.len) : room + sizeof room;
    const size_t head_len = (size_t)(room + sizeof room - head), tail_len = chunked ? HSRV_CHUNK_TAIL : 0;
    if (bytes.len > (size_t)PTRDIFF_MAX - sizeof room - HSRV_CHUNK_TAIL) return HTTPSRV_NOMEM;
    const size_t size = head_len + bytes.len + tail_len;
    struct iovec pieces[3];
    pieces[0].iov_base = (void *)(uintptr_t)head;
    pieces[0].iov_len = head_len;
    pieces[1].iov_base = (void *)(uintptr_t)bytes.ptr;
    pieces[1].iov_len = bytes.len;
    pieces[2].iov_base = (void *)(uintptr_t) "\r\n";
    pieces[2].iov_len = tail_len;
    if (bytes.len < HSRV_SEND_THROUGH && size <= HTTPSRV_WRITE_BUFFER) {
        char *out = hsrv_conn_reserve(loop, c, size);
        out = hsrv_text_append(out, hsrv_text_view(head, head_len));
        out = hsrv_text_append(out, bytes);
        out = hsrv_text_append(out, hsrv_text_view("\r\n", tail_len));
        loop->output_len = (size_t)(out - loop->output);
        __atomic_fetch_add(&s->out_queued, size, __ATOMIC_SEQ_CST);
    } else if (hsrv_emit_can_send(c)) {
        __atomic_fetch_add(&s->out_queued, size, __ATOMIC_SEQ_CST);
        hsrv_emit_send_through(loop, c, pieces, 3);
    } else {
        hsrv_segment *segment = hsrv_output_new_piece(&loop->srv->memory, bytes);
        if (!segment) return HTTPSRV_NOMEM;
        if (chunked) hsrv_output_frame(segment);
        __atomic_fetch_add(&s->out_queued, size, __ATOMIC_SEQ_CST);
        hsrv_conn_keep_output(loop, c, 0);
        hsrv_output_append(&c->out, segment);
    }
    s->written = true;
    hsrv_emit_add(c, size);
    return HTTPSRV_OK;
}

#define HSRV_SMALL_SEGMENT 4096u // bytes up to which segments are gathered in the shared buffer

// Queues a segment, which is given away.
static void hsrv_emit_segment(hsrv_loop *loop, hsrv_conn *c, hsrv_segment *segment) {
    if (segment->len <= HSRV_SMALL_SEGMENT && segment->len <= HTTPSRV_WRITE_BUFFER) {
        char *out = hsrv_conn_reserve(loop, c, segment->len);
        out = hsrv_text_append(out, hsrv_text_view(segment->ptr, segment->len));
        loop->output_len = (size_t)(out - loop->output);
        hsrv_output_drop(&loop->srv->memory, segment);
        return;
    }
    hsrv_conn_keep_output(loop, c, 0);
    hsrv_output_append(&c->out, segment);
}

// A piece of the body that a worker has passed on, which has counted its bytes and cost, but not the frame around them.
static void hsrv_emit_passed(hsrv_loop *loop, hsrv_conn *c, hsrv_segment *segment) {
    hsrv_stream *s = &c->req->stream;
    const size_t counted = segment->len + HSRV_PIECE_COST;
    if (c->req->answer.framing == HSRV_FRAMING_CHUNKED) hsrv_output_frame(segment);
    hsrv_request_sent(c->req, counted - segment->len); // the cost is more than a frame
    s->written = true;
    hsrv_emit_add(c, segment->len);
    hsrv_emit_segment(loop, c, segment);
}

static size_t hsrv_emit_trailers_size(const hsrv_header *trailers) {
    size_t size = 0;
    for (const hsrv_header *h = trailers; h; h = h->next) {
        size += h->name.len + h->value.len + 4;
    }
    return size;
}

// The last chunk and the trailers.
static char *hsrv_emit_last_chunk(char *out, const hsrv_header *trailers) {
    out = HSRV_APPEND(out, "0\r\n");
    for (const hsrv_header *h = trailers; h; h = h->next) {
        out = hsrv_emit_field(out, h->name, h->value);
    }
    return HSRV_APPEND(out, "\r\n");
}

// The same, queued: without memory as long as it is small, since nobody might ask again. OK, NOMEM.
static httpsrv_result hsrv_emit_queue_last_chunk(hsrv_loop *loop, hsrv_conn *c) {
    hsrv_stream *s = &c->req->stream;
    const size_t size = 5 + hsrv_emit_trailers_size(s->trailers);
    if (size <= HSRV_SMALL_SEGMENT && size <= HTTPSRV_WRITE_BUFFER) {
        hsrv_emit_last_chunk(hsrv_conn_reserve(loop, c, size), s->trailers);
        loop->output_len += size;
    } else {
        hsrv_segment *segment = hsrv_output_new(&loop->srv->memory, size);
        if (!segment) return HTTPSRV_NOMEM;
        hsrv_emit_last_chunk((char *)(segment + 1), s->trailers);
        hsrv_emit_segment(loop, c, segment);
    }
    __atomic_fetch_add(&s->out_queued, size, __ATOMIC_SEQ_CST);
    hsrv_emit_add(c, size);
    return HTTPSRV_OK;
}

// The end of the body. OK, NOMEM.
static httpsrv_result hsrv_emit_end(hsrv_loop *loop, hsrv_conn *c) {
    httpsrv_req *req = c->req;
    hsrv_stream *s = &req->stream;
    if (req->answer.framing == HSRV_FRAMING_CHUNKED && !s->silent) {
        const httpsrv_result result = hsrv_emit_queue_last_chunk(loop, c);
        if (result != HTTPSRV_OK) return result;
    }
    s->end_out = true;
    hsrv_emit_count_end(loop);
    return HTTPSRV_OK;
}

// ===========================================================================================
// >>response  Status, fields, whole answers.    owns: the answer being made    thread: holder    uses: >>emit
// ===========================================================================================

static bool hsrv_response_value_valid(httpsrv_str value) {
    return value.len == 0 || (value.ptr && hsrv_text_is_value(value));
}

// Fields that frame the message are the server's own business: a handler's could only contradict them.
static bool hsrv_response_name_valid(httpsrv_str name) {
    return hsrv_text_is_token(name) && !hsrv_text_equal_nocase(name, hsrv_text_of("content-length")) &&
           !hsrv_text_equal_nocase(name, hsrv_text_of("transfer-encoding"));
}

static bool hsrv_response_is_connection(httpsrv_str name) {
    return hsrv_text_equal_nocase(name, hsrv_text_of("connection"));
}

// Only "close" makes sense; the server then says it itself.
static httpsrv_result hsrv_response_connection(httpsrv_req *req, httpsrv_str value) {
    if (!hsrv_text_equal_nocase(value, hsrv_text_of("close"))) return HTTPSRV_ARG;
    req->answer.close = true;
    return HTTPSRV_OK;
}

// Notes which of the fields that the server would add are there already.
static void hsrv_response_mark_own(hsrv_answer *answer, httpsrv_str name) {
    if (hsrv_text_equal_nocase(name, hsrv_text_of("server"))) answer->own_server = true;
    if (hsrv_text_equal_nocase(name, hsrv_text_of("date"))) answer->own_date = true;
    if (hsrv_text_equal_nocase(name, hsrv_text_of("content-type"))) answer->own_type = true;
}

// A copy of a field; NULL when out of memory.
static hsrv_header *hsrv_response_new_header(httpsrv_req *req, httpsrv_str name, httpsrv_str value) {
    if (name.len > (size_t)PTRDIFF_MAX / 4 || value.len > (size_t)PTRDIFF_MAX / 4) return NULL;
    hsrv_header *header = (hsrv_header *)hsrv_memory_arena_take(&req->arena, sizeof *header + name.len + value.len);
    if (!header) return NULL;
    char *text = (char *)(header + 1);
    header->next = NULL;
    header->name = hsrv_text_view(text, name.len);
    header->value = hsrv_text_view(text + name.len, value.len);
    hsrv_text_append(hsrv_text_append(text, name), value);
    return header;
}

// A field that has passed all checks, or is this file's own.
static httpsrv_result hsrv_response_append(httpsrv_req *req, httpsrv_str name, httpsrv_str value) {
    hsrv_header *header = hsrv_response_new_header(req, name, value);
    if (!header) return HTTPSRV_NOMEM;
    *req->answer.headers_end = header;
    req->answer.headers_end = &header->next;
    return HTTPSRV_OK;
}

static httpsrv_result hsrv_response_add(httpsrv_req *req, httpsrv_str name, httpsrv_str value) {
    if (req->answered != HSRV_ANSWER_NONE) return HTTPSRV_STATE;
    if (!hsrv_response_name_valid(name) || !hsrv_response_value_valid(value)) return HTTPSRV_ARG;
    if (hsrv_response_is_connection(name)) return hsrv_response_connection(req, value);
    const httpsrv_result result = hsrv_response_append(req, name, value);
    if (result == HTTPSRV_OK) hsrv_response_mark_own(&req->answer, name);
    return result;
}

// Takes the fields away that were there before `added` and have its name.
static void hsrv_response_drop_earlier(httpsrv_req *req, const hsrv_header *added) {
    hsrv_header **link = &req->answer.headers;
    while (*link != added) {
        if (hsrv_text_equal_nocase((*link)->name, added->name))
            *link = (*link)->next;
        else
            link = &(*link)->next;
    }
}

// Adds first and removes the others then, so that a failure changes nothing.
static httpsrv_result hsrv_response_set(httpsrv_req *req, httpsrv_str name, httpsrv_str value) {
    hsrv_header **end = req->answer.headers_end;
    const httpsrv_result result = hsrv_response_add(req, name, value);
    if (result == HTTPSRV_OK && end != req->answer.headers_end) hsrv_response_drop_earlier(req, *end);
    return result;
}

// A body on its way home from a worker that is too large for the arena; released like one of the application's.
typedef struct hsrv_parcel {
    hsrv_memory *memory;
    size_t size;
} hsrv_parcel;

static void hsrv_response_release_parcel(void *arg) {
    hsrv_parcel *parcel = (hsrv_parcel *)arg;
    hsrv_memory_give(parcel->memory, parcel, parcel->size);
}

static bool hsrv_response_pack(httpsrv_req *req, hsrv_answer *answer) {
    if (answer->body.len > (size_t)PTRDIFF_MAX - sizeof(hsrv_parcel)) return false;
    const size_t size = sizeof(hsrv_parcel) + answer->body.len;
    hsrv_parcel *parcel = (hsrv_parcel *)hsrv_memory_take(req->arena.memory, size);
    if (!parcel) return false;
    parcel->memory = req->arena.memory;
    parcel->size = size;
    memcpy(parcel + 1, answer->body.ptr, answer->body.len);
    answer->body.ptr = (const char *)(parcel + 1);
    answer->release = hsrv_response_release_parcel;
    answer->release_arg = parcel;
    return true;
}

// On a worker the answer waits in the request, in memory of its own. Body last: it is what has to be undone.
static httpsrv_result hsrv_response_stage(httpsrv_req *req, hsrv_answer *answer) {
    const bool has_type = answer->type.ptr != NULL;
    if (has_type) answer->type = hsrv_memory_arena_copy(&req->arena, answer->type);
    if (has_type && !answer->type.ptr) return HTTPSRV_NOMEM;
    if (!answer->release && answer->body.len > 0) {
        if (answer->body.len > HSRV_BLOCK_SIZE) {
            if (!hsrv_response_pack(req, answer)) return HTTPSRV_NOMEM;
        } else {
            answer->body = hsrv_memory_arena_copy(&req->arena, answer->body);
            if (!answer->body.ptr) return HTTPSRV_NOMEM;
        }
    }
    req->answer = *answer;
    answer->release = NULL; // the body is the request's now
    if (!answer->headers) req->answer.headers_end = &req->answer.headers;
    req->answered = HSRV_ANSWER_STAGED;
    return HTTPSRV_OK;
}

static bool hsrv_response_gone(const httpsrv_req *req) {
    if (req->inline_conn) return (req->inline_conn->flags & HSRV_CONN_LOST) != 0;
    return (__atomic_load_n(&req->gone, __ATOMIC_RELAXED) & (HSRV_GONE_SET | HSRV_GONE_LATE)) != 0;
}

// The answer itself: bytes at once on the reactor, staged on a worker.
static httpsrv_result hsrv_response_put(httpsrv_req *req, hsrv_answer *answer) {
    if (HSRV_LATER && !req->inline_conn) return hsrv_response_stage(req, answer);
    const hsrv_manner how = hsrv_emit_manner(req->loop, req->inline_conn, req);
    const httpsrv_result result = hsrv_emit_answer(req->loop, req->inline_conn, answer, &how);
    if (result == HTTPSRV_OK) req->answered = HSRV_ANSWER_SENT;
    return result;
}

// ---- compression ----

// Whether a list of media types, by commas, has that of an answer.
static bool hsrv_response_lists_type(const char *list, httpsrv_str type) {
    httpsrv_str rest = hsrv_text_of(list);
    type = hsrv_text_bare_type(type);
    while (type.len > 0 && rest.len > 0) {
        const char *comma = (const char *)memchr(rest.ptr, ',', rest.len);
        const size_t len = comma ? (size_t)(comma - rest.ptr) : rest.len;
        if (hsrv_text_type_fits(type, hsrv_text_trim(hsrv_text_view(rest.ptr, len)))) return true;
        rest = hsrv_text_view(rest.ptr + len + (comma ? 1 : 0), rest.len - len - (comma ? 1 : 0));
    }
    return false;
}

static httpsrv_str hsrv_response_type(const hsrv_answer *answer) {
    httpsrv_str type = answer->type;
    for (const hsrv_header *h = answer->headers; h && !type.ptr && answer->own_type; h = h->next) {
        if (hsrv_text_equal_nocase(h->name, hsrv_text_of("content-type"))) type = h->value;
    }
    return type;
}

// Whether a list, by commas, has a word.
static bool hsrv_response_lists(httpsrv_str list, const char *word) {
    httpsrv_str element;
    while (hsrv_frames_next_element(&list, &element)) {
        if (hsrv_text_equal_nocase(hsrv_text_trim(element), hsrv_text_of(word))) return true;
    }
    return false;
}

// Whether fields say that the body must stay as it is: it is coded already, or a part, or it is said so.
static bool hsrv_response_is_fixed(const hsrv_answer *answer) {
    for (const hsrv_header *h = answer->headers; h; h = h->next) {
        if (hsrv_text_equal_nocase(h->name, hsrv_text_of("content-encoding"))) return true;
        if (hsrv_text_equal_nocase(h->name, hsrv_text_of("content-range"))) return true;
        if (!hsrv_text_equal_nocase(h->name, hsrv_text_of("cache-control"))) continue;
        if (hsrv_response_lists(h->value, "no-transform")) return true; // RFC 9111 section 5.2.2.6
    }
    return false;
}

static bool hsrv_response_says_vary(const hsrv_answer *answer) {
    for (const hsrv_header *h = answer->headers; h; h = h->next) {
        if (!hsrv_text_equal_nocase(h->name, hsrv_text_of("vary"))) continue;
        if (hsrv_response_lists(h->value, "accept-encoding") || hsrv_response_lists(h->value, "*")) return true;
    }
    return false;
}

// Whether an answer whose body has that many bytes, negative: not known, is compressed for clients that want it.
static bool hsrv_response_is_codable(const httpsrv_req *req, const hsrv_answer *answer, int64_t length) {
    const httpsrv_config *config = &req->srv->config;
    if (!HSRV_CODES || config->compress.level < 1 || (length >= 0 && length < config->compress.min_size)) return false;
    if (req->as_is || (req->route && req->route->uncompressed) || req->stream.sends_events) return false;
    if (!hsrv_emit_has_length(answer->status) || answer->status == 205 || answer->status == 206) return false;
    return !hsrv_response_is_fixed(answer) &&
           hsrv_response_lists_type(req->srv->compress_types, hsrv_response_type(answer));
}

static bool hsrv_response_takes_gzip(const httpsrv_req *req) {
    if (req->head.version_minor == 0) return false;
    const int liked = hsrv_request_weight(req, "gzip");
    return liked > 0 && hsrv_request_weight(req, "identity") <= liked;
}

// Replaces a body by its compressed form, if that is smaller and there is memory. Its owner keeps what was there.
static bool hsrv_response_compress(httpsrv_req *req, hsrv_answer *answer) {
    hsrv_memory *memory = &req->srv->memory;
    const httpsrv_str body = answer->body;
    if (body.len > (size_t)PTRDIFF_MAX - sizeof(hsrv_parcel)) return false;
    const size_t size = sizeof(hsrv_parcel) + body.len;
    hsrv_parcel *parcel = (hsrv_parcel *)hsrv_memory_take(memory, size);
    if (!parcel) return false;
    const size_t len =
        hsrv_coding_compress(memory, req->srv->config.compress.level, body, (char *)(parcel + 1), body.len - 1);
    if (len == 0) {
        hsrv_memory_give(memory, parcel, size);
        return false;
    }
    hsrv_parcel *fitting = (hsrv_parcel *)hsrv_memory_resize(memory, parcel, size, sizeof(hsrv_parcel) + len);
    if (fitting) parcel = fitting;
    parcel->memory = memory;
    parcel->size = fitting ? sizeof(hsrv_parcel) + len : size;
    answer->body = hsrv_text_view((const char *)(parcel + 1), len);
    answer->release = hsrv_response_release_parcel;
    answer->release_arg = parcel;
    answer->coded = true;
    return true;
}

// Whether it takes too long for a reactor, and nothing stands in the way of a worker: the request is complete.
static bool hsrv_response_is_for_packer(const httpsrv_req *req, const hsrv_answer *answer) {
    const hsrv_conn *c = req->inline_conn;
    if (!c || !req->srv->packer || answer->body.len < (size_t)req->srv->config.compress.large) return false;
    return c->state == HSRV_CONN_BUSY && req->parser.phase == HTTPSRV_PHASE_DONE;
}

// An answer that would be compressed. A large one of a reactor's is staged, and compressed by a worker.
static httpsrv_result hsrv_response_put_coded(httpsrv_req *req, hsrv_answer *answer) {
    answer->varies = !hsrv_response_says_vary(answer);
    if (!hsrv_response_takes_gzip(req)) return hsrv_response_put(req, answer);
    if (hsrv_response_is_for_packer(req, answer) && hsrv_response_stage(req, answer) == HTTPSRV_OK) return HTTPSRV_OK;
    hsrv_answer packed = *answer;
    if (!hsrv_response_compress(req, &packed)) return hsrv_response_put(req, answer);
    const httpsrv_result result = hsrv_response_put(req, &packed);
    hsrv_emit_release(result == HTTPSRV_OK ? answer : &packed);
    return result;
}

// What was staged for it. [worker]
static void hsrv_response_pack_staged(httpsrv_req *req) {
    hsrv_answer packed = req->answer;
    if (!hsrv_response_compress(req, &packed)) return;
    hsrv_emit_release(&req->answer);
    req->answer = packed;
}

// A whole body is compressed here if it is to be: nowhere else do all answers pass. [holder]
static httpsrv_result hsrv_response_pass_on(httpsrv_req *req, hsrv_answer *answer) {
    if (HSRV_CODES && answer->framing == HSRV_FRAMING_WHOLE &&
        hsrv_response_is_codable(req, answer, (int64_t)answer->body.len))
        return hsrv_response_put_coded(req, answer);
    return hsrv_response_put(req, answer);
}

// Claims the answer if others can give it too. False if that is too late. Before anything else: an answer that is noted in
// the request, as SENT for a client that has left too, is the holder's alone.
static bool hsrv_response_claim(httpsrv_req *req) {
    return !HSRV_LATER || !req->shared ||
           hsrv_request_swap(req->place, hsrv_request_generation(req), HSRV_PLACE_OPEN, HSRV_PLACE_CLAIMED);
}

// RFC 9110 section 9.3.6: that would open a tunnel, which there is none of.
static bool hsrv_response_is_tunnel(const httpsrv_req *req, int status) {
    return status < 300 && req->head.method_id == HTTPSRV_METHOD_CONNECT;
}

static httpsrv_result hsrv_response_give(httpsrv_req *req, hsrv_answer *answer) {
    if (hsrv_response_is_tunnel(req, answer->status)) return HTTPSRV_ARG;
    if (!hsrv_response_claim(req)) return HTTPSRV_GONE;
    if (hsrv_response_gone(req)) {
        req->answered = HSRV_ANSWER_SENT;
        return HTTPSRV_GONE;
    }
    const httpsrv_result result = hsrv_response_pass_on(req, answer);
    if (HSRV_LATER && result != HTTPSRV_OK && req->shared) hsrv_request_unclaim(req);
    return result;
}

static bool hsrv_response_valid(const httpsrv_answer *given) {
    if (given->status < 200 || given->status > 599 || given->num_fields < 0) return false;
    if (given->num_fields > 0 && !given->fields) return false;
    if (given->body.len > 0 && !given->body.ptr) return false;
    return !given->type || (given->type[0] && hsrv_text_is_value(hsrv_text_of(given->type)));
}

static httpsrv_result hsrv_response_add_fields(httpsrv_req *req, const httpsrv_answer *given) {
    for (int i = 0; i < given->num_fields; i++) {
        const httpsrv_result result = hsrv_response_add(req, given->fields[i].name, given->fields[i].value);
        if (result != HTTPSRV_OK) return result;
    }
    return HTTPSRV_OK;
}

static void hsrv_response_describe(const httpsrv_req *req, const httpsrv_answer *given, hsrv_answer *answer) {
    *answer = req->answer;
    answer->framing = HSRV_FRAMING_WHOLE;
    answer->status = given->status;
    answer->type = hsrv_text_of(given->type);
    answer->body = given->body;
    answer->release = given->release;
    answer->release_arg = given->release_arg;
}

// A failure leaves the fields set before as they were. [holder]
static httpsrv_result hsrv_response_try(httpsrv_req *req, const httpsrv_answer *given) {
    if (req->answered != HSRV_ANSWER_NONE) {
        req->answered_twice = true;
        return HTTPSRV_STATE;
    }
    if (!hsrv_response_valid(given)) return HTTPSRV_ARG;
    const hsrv_answer before = req->answer;
    httpsrv_result result = hsrv_response_add_fields(req, given);
    if (result == HTTPSRV_OK) {
        hsrv_answer answer;
        hsrv_response_describe(req, given, &answer);
        result = hsrv_response_give(req, &answer);
        if (result == HTTPSRV_OK) return result;
    }
    req->answer = before;
    *req->answer.headers_end = NULL;
    return result;
}

// As hsrv_response_try, with the promise about release kept on every path: NOMEM leaves the body with the caller.
static httpsrv_result hsrv_response_answer(httpsrv_req *req, const httpsrv_answer *given) {
    const httpsrv_result result = hsrv_response_try(req, given);
    const bool taken = result == HTTPSRV_OK || result == HTTPSRV_NOMEM;
    if (!taken && given->release) given->release(given->release_arg);
    return result;
}

// Answers with a body in segments, which are taken whatever comes of it.
static httpsrv_result hsrv_response_reply_parts(httpsrv_req *req, int status, const char *type, int64_t length,
                                                hsrv_segment *parts) {
    httpsrv_answer given;
    hsrv_answer answer;
    httpsrv_result result = req->answered == HSRV_ANSWER_NONE ? HTTPSRV_OK : HTTPSRV_STATE;
    memset(&given, 0, sizeof given);
    given.status = status;
    given.type = type;
    if (result == HTTPSRV_OK && !hsrv_response_valid(&given)) result = HTTPSRV_ARG;
    hsrv_response_describe(req, &given, &answer);
    answer.framing = HSRV_FRAMING_PARTS;
    answer.length = length;
    answer.parts = parts;
    if (result == HTTPSRV_OK) result = hsrv_response_give(req, &answer);
    if (result != HTTPSRV_OK) hsrv_output_drop_list(&req->srv->memory, parts);
    return result;
}

// Whether the type is the one that is kept ready, or is from now on.
static bool hsrv_response_keeps_type(hsrv_loop *loop, const char *type) {
    if (HSRV_LIKELY(strncmp(loop->plain_type, type, sizeof loop->plain_type) == 0)) return loop->plain_type_len > 0;
    const httpsrv_str text = hsrv_text_of(type);
    return hsrv_text_is_value(text) && hsrv_loop_keep_type(loop, text);
}

// The short way for most answers of a reactor's: 200, a type, a short body, and nothing out of the ordinary. False if there
// is something: then nothing has happened.
static bool hsrv_response_reply_plain(httpsrv_req *req, const char *type, httpsrv_str body) {
    hsrv_loop *loop = req->loop;
    hsrv_conn *c = req->inline_conn;
    const httpsrv_config *config = &req->srv->config;
    if (!c || req->shared || req->answered != HSRV_ANSWER_NONE || (c->flags & HSRV_CONN_LOST)) return false;
    if (req->answer.headers || body.len > HTTPSRV_WRITE_BUFFER || (body.len > 0 && !body.ptr)) return false;
    if (HSRV_CODES && config->compress.level > 0 && body.len >= (size_t)config->compress.min_size) return false;
    if (!hsrv_emit_is_plain(loop, req) || !hsrv_response_keeps_type(loop, type)) return false;
    if (hsrv_emit_plain_size(loop, body) > HTTPSRV_WRITE_BUFFER) return false;
    hsrv_emit_plain(loop, c, body);
    req->answer.plain = true;
    req->answered = HSRV_ANSWER_SENT;
    return true;
}

static HSRV_APART httpsrv_result hsrv_response_reply_fully(httpsrv_req *req, int status, const char *type,
                                                           httpsrv_str body) {
    httpsrv_answer answer;
    memset(&answer, 0, sizeof answer);
    answer.status = status;
    answer.type = type;
    answer.body = body;
    return hsrv_response_answer(req, &answer);
}

static httpsrv_result hsrv_response_reply(httpsrv_req *req, int status, const char *type, httpsrv_str body) {
    if (HSRV_SHORTCUTS && status == 200 && type && hsrv_response_reply_plain(req, type, body)) return HTTPSRV_OK;
    return hsrv_response_reply_fully(req, status, type, body);
}

// ---- answering later ----

static httpsrv_token hsrv_response_defer(httpsrv_req *req) {
    httpsrv_token none;
    none.id = 0;
    if (!HSRV_LATER || (req->answered != HSRV_ANSWER_NONE && req->answered != HSRV_ANSWER_BEGUN)) return none;
    if (!req->shared) hsrv_request_open_place(req);
    req->deferred = true;
    __atomic_fetch_or(&req->claim, HSRV_CLAIM_DEFERRED, __ATOMIC_RELAXED);
    return hsrv_request_token(req);
}

// Whoever comes second, this or the end of the request, makes the call.
static httpsrv_result hsrv_response_on_gone(httpsrv_req *req, httpsrv_fn fn, void *arg) {
    if (!HSRV_LATER) return HTTPSRV_UNSUPPORTED;
    if (__atomic_load_n(&req->gone, __ATOMIC_RELAXED) & HSRV_GONE_WATCHED) return HTTPSRV_STATE;
    if (!req->shared) hsrv_request_open_place(req);
    req->gone_fn = fn;
    req->gone_arg = arg;
    const uint32_t gone = __atomic_fetch_or(&req->gone, HSRV_GONE_WATCHED, __ATOMIC_ACQ_REL);
    if ((gone & HSRV_GONE_SET) && !(gone & HSRV_GONE_SETTLED)) fn(arg);
    return HTTPSRV_OK;
}

// The size of the block that an answer is copied into; 0 if that is more than memory can have.
static size_t hsrv_response_delivery_size(const httpsrv_answer *given) {
    size_t size = sizeof(hsrv_delivery) + (given->type ? strlen(given->type) : 0);
    for (int i = 0; i < given->num_fields; i++) {
        const httpsrv_field *field = &given->fields[i];
        const size_t room = (size_t)PTRDIFF_MAX - size - sizeof(hsrv_header);
        if (field->name.len > room || field->value.len > room - field->name.len) return 0;
        size += sizeof(hsrv_header) + field->name.len + field->value.len;
    }
    if (given->release) return size;
    return given->body.len > (size_t)PTRDIFF_MAX - size ? 0 : size + given->body.len;
}

static httpsrv_str hsrv_response_keep(char **out, httpsrv_str s) {
    const char *start = *out;
    *out = hsrv_text_append(*out, s);
    return hsrv_text_view(start, s.len);
}

static void hsrv_response_deliver_fields(hsrv_answer *answer, const httpsrv_answer *given, hsrv_header *headers,
                                         char **out) {
    answer->headers_end = &answer->headers;
    for (int i = 0; i < given->num_fields; i++) {
        if (hsrv_response_is_connection(given->fields[i].name)) {
            answer->close = true;
            continue;
        }
        hsrv_header *header = &headers[i];
        header->next = NULL;
        header->name = hsrv_response_keep(out, given->fields[i].name);
        header->value = hsrv_response_keep(out, given->fields[i].value);
        hsrv_response_mark_own(answer, header->name);
        *answer->headers_end = header;
        answer->headers_end = &header->next;
    }
}

// A copy of an answer, in one block: the struct, the fields, the texts. NULL when out of memory. [any]
static hsrv_delivery *hsrv_response_pack_delivery(hsrv_memory *memory, const httpsrv_answer *given) {
    const size_t size = hsrv_response_delivery_size(given);
    hsrv_delivery *delivery = size > 0 ? (hsrv_delivery *)hsrv_memory_take(memory, size) : NULL;
    if (!delivery) return NULL;
    memset(delivery, 0, sizeof *delivery);
    delivery->size = size;
    hsrv_answer *answer = &delivery->answer;
    hsrv_header *headers = (hsrv_header *)(void *)(delivery + 1);
    char *out = (char *)(headers + given->num_fields);
    answer->status = given->status;
    hsrv_response_deliver_fields(answer, given, headers, &out);
    answer->type = given->type ? hsrv_response_keep(&out, hsrv_text_of(given->type)) : hsrv_text_absent();
    answer->body = given->release ? given->body : hsrv_response_keep(&out, given->body);
    answer->release = given->release;
    answer->release_arg = given->release_arg;
    return delivery;
}

static bool hsrv_response_fields_valid(const httpsrv_answer *given) {
    for (int i = 0; i < given->num_fields; i++) {
        const httpsrv_field *field = &given->fields[i];
        if (!hsrv_response_name_valid(field->name) || !hsrv_response_value_valid(field->value)) return false;
        if (!hsrv_response_is_connection(field->name)) continue;
        if (!hsrv_text_equal_nocase(field->value, hsrv_text_of("close"))) return false;
    }
    return true;
}

// Whoever claims the place may touch the request until it adds FINISHED.
static httpsrv_result hsrv_response_try_finish(httpsrv *srv, httpsrv_token token, const httpsrv_answer *given) {
    if (!hsrv_response_valid(given) || !hsrv_response_fields_valid(given)) return HTTPSRV_ARG;
    hsrv_place *place = hsrv_request_find_place(srv, token);
    const uint32_t generation = (uint32_t)(token.id >> 32);
    if (!place || !hsrv_request_swap(place, generation, HSRV_PLACE_OPEN, HSRV_PLACE_CLAIMED)) return HTTPSRV_GONE;
    httpsrv_req *req = place->req;
    const bool tunnel = hsrv_response_is_tunnel(req, given->status);
    hsrv_delivery *delivery = tunnel ? NULL : hsrv_response_pack_delivery(&srv->memory, given);
    if (!delivery) {
        hsrv_request_unclaim(req);
        return tunnel ? HTTPSRV_ARG : HTTPSRV_NOMEM;
    }
    req->delivery = delivery;
    if (hsrv_request_add_claim(req, HSRV_CLAIM_FINISHED)) hsrv_loop_post(req->loop, &req->message);
    return HTTPSRV_OK;
}

// [any]
static httpsrv_result hsrv_response_finish(httpsrv *srv, httpsrv_token token, const httpsrv_answer *given) {
    const httpsrv_result result = hsrv_response_try_finish(srv, token, given);
    const bool taken = result == HTTPSRV_OK || result == HTTPSRV_NOMEM;
    if (!taken && given->release) given->release(given->release_arg);
    return result;
}

// [any]
static httpsrv_result hsrv_response_post(httpsrv *srv, httpsrv_token token, httpsrv_handler handler, void *user) {
    if (!HSRV_LATER) return HTTPSRV_UNSUPPORTED;
    hsrv_loop *const *loops = __atomic_load_n(&srv->wake, __ATOMIC_ACQUIRE);
    const uint32_t loop = (uint32_t)token.id >> HSRV_LOOP_SHIFT;
    if (token.id == 0 || !loops || loop >= (uint32_t)srv->config.reactors) return HTTPSRV_ARG;
    hsrv_post *post = (hsrv_post *)hsrv_memory_take_zeroed(&srv->memory, sizeof *post);
    if (!post) return HTTPSRV_NOMEM;
    post->message.kind = HSRV_MESSAGE_POST;
    post->token = token;
    post->handler = handler;
    post->user = user;
    hsrv_loop_post(loops[loop], &post->message);
    return HTTPSRV_OK;
}

#define HSRV_MAX_FORMATTED (1 << 20)

// A text by printf's rules: in `small` if it fits there, as most do, else in memory that is given back at once, so that a
// stream of any length takes no more.
typedef struct hsrv_printed {
    httpsrv_str text; // ptr == NULL: see result
    httpsrv_result result;
    char *large; // owned, of text.len + 1 bytes; NULL without
    char small[512];
} hsrv_printed;

// gcc sees the format where it has made a copy of this for one caller, but not that its result is looked at.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-truncation"
#endif

static void hsrv_response_print(httpsrv_req *req, hsrv_printed *out, const char *format, va_list args) {
    va_list again;
    va_copy(again, args);
    const int len = vsnprintf(out->small, sizeof out->small, format, args);
    char *at = out->small;
    out->large = NULL;
    out->result = len >= 0 && len <= HSRV_MAX_FORMATTED ? HTTPSRV_OK : HTTPSRV_ARG;
    if (out->result == HTTPSRV_OK && (size_t)len >= sizeof out->small) {
        at = out->large = (char *)hsrv_memory_take(req->arena.memory, (size_t)len + 1);
        if (at) vsnprintf(at, (size_t)len + 1, format, again);
        if (!at) out->result = HTTPSRV_NOMEM;
    }
    out->text = out->result == HTTPSRV_OK ? hsrv_text_view(at, (size_t)len) : hsrv_text_absent();
    va_end(again);
}

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

static void hsrv_response_unprint(httpsrv_req *req, hsrv_printed *printed) {
    if (printed->large) hsrv_memory_give(req->arena.memory, printed->large, printed->text.len + 1);
}

static httpsrv_result hsrv_response_format(httpsrv_req *req, int status, const char *type, const char *format,
                                           va_list args) {
    hsrv_printed printed;
    hsrv_response_print(req, &printed, format, args);
    if (printed.result == HTTPSRV_OK) printed.result = hsrv_response_reply(req, status, type, printed.text);
    hsrv_response_unprint(req, &printed);
    return printed.result;
}

// ---- answers in pieces ----

static hsrv_framing hsrv_response_framing(const httpsrv_req *req, int64_t length) {
    if (length >= 0) return HSRV_FRAMING_LENGTH;
    return req->head.version_minor > 0 ? HSRV_FRAMING_CHUNKED : HSRV_FRAMING_CLOSE;
}

// Sets up an answer in pieces: out of memory, it is not compressed.
static void hsrv_response_frame(httpsrv_req *req, hsrv_answer *answer, int64_t length) {
    hsrv_stream *s = &req->stream;
    answer->framing = hsrv_response_framing(req, length);
    answer->length = length < 0 ? 0 : length;
    s->declared = length >= 0;
    if (!hsrv_response_is_codable(req, answer, length)) return;
    answer->varies = !hsrv_response_says_vary(answer);
    if (!hsrv_response_takes_gzip(req)) return;
    const bool silent = req->head.method_id == HTTPSRV_METHOD_HEAD; // and all the same but for the body
    if (!silent) s->deflater = hsrv_coding_new_deflater(&req->srv->memory, req->srv->config.compress.level);
    if (!silent && !s->deflater) return;
    s->used = true;
    answer->coded = true;
    answer->framing = HSRV_FRAMING_CHUNKED;
}

// On a worker the head waits in the request until the loop is told, and is not touched any more.
static httpsrv_result hsrv_response_stage_begin(httpsrv_req *req, hsrv_answer *answer) {
    const bool has_type = answer->type.ptr != NULL;
    if (has_type) answer->type = hsrv_memory_arena_copy(&req->arena, answer->type);
    if (has_type && !answer->type.ptr) return HTTPSRV_NOMEM;
    req->answer = *answer;
    if (!answer->headers) req->answer.headers_end = &req->answer.headers;
    return HTTPSRV_OK;
}

static void hsrv_response_prepare_stream(httpsrv_req *req, const hsrv_answer *answer) {
    hsrv_stream *s = &req->stream;
    s->used = true;
    s->silent = req->head.method_id == HTTPSRV_METHOD_HEAD || answer->status == 204 || answer->status == 205 ||
                answer->status == 304;
    s->left = answer->length;
    s->trailers = NULL;
    s->trailers_end = &s->trailers;
}

static httpsrv_result hsrv_response_start(httpsrv_req *req, hsrv_answer *answer) {
    const hsrv_answer before = req->answer;
    httpsrv_result result = hsrv_response_stage_begin(req, answer);
    if (result != HTTPSRV_OK) return result;
    hsrv_response_prepare_stream(req, answer);
    if (req->inline_conn) result = hsrv_emit_begin(req->loop, req->inline_conn, answer);
    if (result != HTTPSRV_OK) {
        req->answer = before;
        return result;
    }
    req->answered = HSRV_ANSWER_BEGUN;
    if (!req->inline_conn) hsrv_request_tell_loop(req, HSRV_CLAIM_BEGUN);
    return HTTPSRV_OK;
}

static httpsrv_result hsrv_response_begin(httpsrv_req *req, int status, const char *type, int64_t length) {
    if (!HSRV_LATER) return HTTPSRV_UNSUPPORTED;
    httpsrv_answer given;
    memset(&given, 0, sizeof given);
    given.status = status;
    given.type = type;
    if (req->answered != HSRV_ANSWER_NONE) {
        req->answered_twice = true;
        return HTTPSRV_STATE;
    }
    if (!hsrv_response_valid(&given) || hsrv_response_is_tunnel(req, status)) return HTTPSRV_ARG;
    if (!hsrv_response_claim(req)) return HTTPSRV_GONE;
    if (hsrv_response_gone(req)) {
        req->answered = HSRV_ANSWER_SENT;
        return HTTPSRV_GONE;
    }
    hsrv_answer answer;
    hsrv_response_describe(req, &given, &answer);
    hsrv_response_frame(req, &answer, length);
    const httpsrv_result result = hsrv_response_start(req, &answer);
    if (result == HTTPSRV_OK) return result;
    if (req->stream.deflater) hsrv_coding_free_deflater(req->stream.deflater);
    req->stream.deflater = NULL;
    if (req->shared) hsrv_request_unclaim(req);
    return result;
}

// The client can tell: the body has no end, or the connection is reset. GONE if its leaving came first.
static httpsrv_result hsrv_response_break_off(httpsrv_req *req) {
    req->answered = HSRV_ANSWER_ENDED;
    if (req->inline_conn) {
        req->stream.broken = true;
        return HTTPSRV_OK;
    }
    const bool settled = hsrv_request_settle(req);
    hsrv_request_tell_loop(req, HSRV_CLAIM_BROKEN);
    return settled ? HTTPSRV_OK : HTTPSRV_GONE;
}

// On a worker: a copy on its way to the loop.
static httpsrv_result hsrv_response_pass_piece(httpsrv_req *req, httpsrv_str bytes) {
    hsrv_segment *segment = hsrv_output_new_piece(&req->srv->memory, bytes);
    if (!segment) return HTTPSRV_NOMEM;
    __atomic_fetch_add(&req->stream.out_queued, bytes.len + HSRV_PIECE_COST, __ATOMIC_SEQ_CST);
    hsrv_request_push(&req->stream.out, segment);
    hsrv_request_tell_loop(req, 0);
    return HTTPSRV_OK;
}

// Whether the queue takes no more, or a call-back has had its share.
static bool hsrv_response_is_full(const httpsrv_req *req) {
    const hsrv_stream *s = &req->stream;
    if (req->inline_conn && s->burst >= HSRV_TURN_BYTES) return true;
    return __atomic_load_n(&s->out_queued, __ATOMIC_RELAXED) >= (size_t)req->srv->config.write_mark.high;
}

static httpsrv_result hsrv_response_send_piece(httpsrv_req *req, httpsrv_str bytes) {
    return req->inline_conn ? hsrv_emit_piece(req->loop, req->inline_conn, bytes)
                            : hsrv_response_pass_piece(req, bytes);
}

// Sends what is compressed and has not gone out yet.
static httpsrv_result hsrv_response_send_coded(httpsrv_req *req) {
    hsrv_deflater *coder = req->stream.deflater;
    if (coder->out.len == 0) return HTTPSRV_OK;
    const httpsrv_result result = hsrv_response_send_piece(req, hsrv_text_view(coder->out.ptr, coder->out.len));
    if (result == HTTPSRV_OK) hsrv_coding_passed(coder);
    return result;
}

// Compresses first. What is compressed is taken: if it cannot go out right now, it goes before the next.
static httpsrv_result hsrv_response_code_piece(httpsrv_req *req, httpsrv_str bytes, bool last) {
    hsrv_deflater *coder = req->stream.deflater;
    const httpsrv_result result = hsrv_response_send_coded(req);
    if (result != HTTPSRV_OK || coder->ended) return result;
    if (!hsrv_coding_deflate(coder, bytes, last)) return HTTPSRV_NOMEM;
    const httpsrv_result sent = hsrv_response_send_coded(req);
    return last ? sent : HTTPSRV_OK;
}

static httpsrv_result hsrv_response_write(httpsrv_req *req, httpsrv_str bytes) {
    hsrv_stream *s = &req->stream;
    if (req->answered != HSRV_ANSWER_BEGUN) return HTTPSRV_STATE;
    if (hsrv_response_gone(req)) return HTTPSRV_GONE;
    if (bytes.len == 0) return HTTPSRV_OK;
    if (!bytes.ptr) return HTTPSRV_ARG;
    if (s->declared && bytes.len > (uint64_t)s->left) {
        hsrv_response_break_off(req);
        return HTTPSRV_TOOBIG;
    }
    if (hsrv_response_is_full(req)) return HTTPSRV_FULL;
    httpsrv_result result = HTTPSRV_OK;
    if (!s->silent)
        result = s->deflater ? hsrv_response_code_piece(req, bytes, false) : hsrv_response_send_piece(req, bytes);
    if (result != HTTPSRV_OK) return result;
    if (s->declared) s->left -= (int64_t)bytes.len;
    s->burst += bytes.len;
    if (req->inline_conn) s->written = true;
    return HTTPSRV_OK;
}

static httpsrv_result hsrv_response_write_format(httpsrv_req *req, const char *format, va_list args) {
    hsrv_printed printed;
    hsrv_response_print(req, &printed, format, args);
    if (printed.result == HTTPSRV_OK) printed.result = hsrv_response_write(req, printed.text);
    hsrv_response_unprint(req, &printed);
    return printed.result;
}

static httpsrv_result hsrv_response_wait_drain(httpsrv_req *req) {
    hsrv_stream *s = &req->stream;
    if (req->answered != HSRV_ANSWER_BEGUN || req->inline_conn) return HTTPSRV_STATE;
    for (;;) {
        const uint32_t seen = __atomic_load_n(&s->changes, __ATOMIC_SEQ_CST);
        if (hsrv_response_gone(req)) return HTTPSRV_GONE;
        if (__atomic_load_n(&s->out_queued, __ATOMIC_SEQ_CST) <= (size_t)req->srv->config.write_mark.low)
            return HTTPSRV_OK;
        hsrv_request_wait(req, seen);
    }
}

static httpsrv_result hsrv_response_on_drain(httpsrv_req *req, httpsrv_handler fn, void *user) {
    if (!HSRV_LATER) return HTTPSRV_UNSUPPORTED;
    if (req->answered != HSRV_ANSWER_NONE && req->answered != HSRV_ANSWER_BEGUN) return HTTPSRV_STATE;
    req->stream.used = true;
    req->stream.on_drain = fn;
    req->stream.drain_user = user;
    return HTTPSRV_OK;
}

static httpsrv_result hsrv_response_add_trailer(httpsrv_req *req, httpsrv_str name, httpsrv_str value) {
    hsrv_stream *s = &req->stream;
    if (req->answered != HSRV_ANSWER_BEGUN) return HTTPSRV_STATE;
    if (!hsrv_text_is_token(name) || !hsrv_parser_trailer_allowed(name) || !hsrv_response_value_valid(value))
        return HTTPSRV_ARG;
    hsrv_header *header = hsrv_response_new_header(req, name, value);
    if (!header) return HTTPSRV_NOMEM;
    *s->trailers_end = header;
    s->trailers_end = &header->next;
    return HTTPSRV_OK;
}

static httpsrv_result hsrv_response_end(httpsrv_req *req) {
    hsrv_stream *s = &req->stream;
    if (req->answered != HSRV_ANSWER_BEGUN) return HTTPSRV_STATE;
    if (hsrv_response_gone(req)) return HTTPSRV_GONE;
    if (s->declared && s->left > 0 && !s->silent) {
        hsrv_response_break_off(req);
        return HTTPSRV_TOOBIG;
    }
    if (s->deflater && !s->silent) {
        const httpsrv_result result = hsrv_response_code_piece(req, HSRV_LITERAL(""), true);
        if (result != HTTPSRV_OK) return result;
    }
    if (req->inline_conn) {
        const httpsrv_result result = hsrv_emit_end(req->loop, req->inline_conn);
        if (result != HTTPSRV_OK) return result;
    } else if (!hsrv_request_settle(req)) {
        return HTTPSRV_GONE;
    }
    req->answered = HSRV_ANSWER_ENDED;
    if (!req->inline_conn) hsrv_request_tell_loop(req, HSRV_CLAIM_ENDED);
    return HTTPSRV_OK;
}

static httpsrv_result hsrv_response_abort(httpsrv_req *req) {
    if (req->answered != HSRV_ANSWER_BEGUN) return HTTPSRV_STATE;
    return hsrv_response_break_off(req);
}

static size_t hsrv_response_inform_size(const httpsrv_field *fields, int num_fields) {
    size_t size = 96;
    for (int i = 0; i < num_fields; i++) {
        size += fields[i].name.len + fields[i].value.len + 4;
    }
    return size;
}

// An informational answer as it goes out; NULL when out of memory.
static hsrv_segment *hsrv_response_format_inform(httpsrv_req *req, int status, const httpsrv_field *fields,
                                                 int num_fields) {
    hsrv_segment *segment = hsrv_output_new(&req->srv->memory, hsrv_response_inform_size(fields, num_fields));
    if (!segment) return NULL;
    char *out = hsrv_emit_status_line((char *)(segment + 1), status);
    for (int i = 0; i < num_fields; i++) {
        out = hsrv_emit_field(out, fields[i].name, fields[i].value);
    }
    out = HSRV_APPEND(out, "\r\n");
    segment->len = (size_t)(out - segment->ptr);
    segment->raw = true;
    return segment;
}

static bool hsrv_response_inform_valid(int status, const httpsrv_field *fields, int num_fields) {
    if (status < 102 || status > 199 || num_fields < 0 || (num_fields > 0 && !fields)) return false;
    size_t size = 0;
    for (int i = 0; i < num_fields; i++) {
        const httpsrv_str name = fields[i].name, value = fields[i].value;
        if (!hsrv_response_name_valid(name) || !hsrv_response_value_valid(value)) return false;
        if (hsrv_response_is_connection(name)) return false;
        size += name.len + value.len;
    }
    return size <= HTTPSRV_WRITE_BUFFER;
}

static httpsrv_result hsrv_response_inform(httpsrv_req *req, int status, const httpsrv_field *fields, int num_fields) {
    if (!hsrv_response_inform_valid(status, fields, num_fields)) return HTTPSRV_ARG;
    if (req->answered != HSRV_ANSWER_NONE) return HTTPSRV_STATE;
    if (hsrv_response_gone(req)) return HTTPSRV_GONE;
    if (req->head.version_minor == 0) return HTTPSRV_OK;
    hsrv_segment *segment = hsrv_response_format_inform(req, status, fields, num_fields);
    if (!segment) return HTTPSRV_NOMEM;
    if (req->inline_conn) {
        hsrv_emit_segment(req->loop, req->inline_conn, segment);
        return HTTPSRV_OK;
    }
    req->stream.used = true;
    hsrv_request_push(&req->stream.out, segment);
    hsrv_request_tell_loop(req, 0);
    return HTTPSRV_OK;
}

// ---- bodies as they come ----

static ptrdiff_t hsrv_response_read(httpsrv_req *req, char *buf, size_t size) {
    hsrv_stream *s = &req->stream;
    if (!req->route->stream || req->inline_conn) return HTTPSRV_STATE;
    if (!s->asked && req->head.expect_continue) hsrv_request_tell_loop(req, HSRV_CLAIM_ASKED);
    s->asked = true;
    if (size > (size_t)PTRDIFF_MAX) size = (size_t)PTRDIFF_MAX;
    for (;;) {
        const uint32_t seen = __atomic_load_n(&s->changes, __ATOMIC_SEQ_CST);
        const bool over = __atomic_load_n(&s->in_over, __ATOMIC_ACQUIRE) != 0; // before the pieces, which come first
        if (hsrv_response_gone(req)) return HTTPSRV_GONE;
        if (!s->reading) s->reading = hsrv_request_take(&s->in);
        if (s->reading) return (ptrdiff_t)hsrv_request_copy_out(req, buf, size);
        if (over) return 0;
        hsrv_request_wait(req, seen);
    }
}

static httpsrv_result hsrv_response_pause(httpsrv_req *req, bool paused) {
    hsrv_stream *s = &req->stream;
    if (!req->on_body || s->body_over) return HTTPSRV_STATE;
    s->paused = paused;
    return HTTPSRV_OK;
}

// ---- redirects ----

// RFC 3986 section 4.1, by its characters alone.
static bool hsrv_response_is_reference(httpsrv_str s) {
    for (size_t i = 0; i < s.len; i++) {
        const char c = s.ptr[i];
        if (c == '%') {
            if (s.len - i < 3 || !hsrv_text_is(s.ptr[i + 1], HSRV_HEXDIG) || !hsrv_text_is(s.ptr[i + 2], HSRV_HEXDIG))
                return false;
        } else if (!hsrv_text_is(c, HSRV_PATH) && !strchr("?#[]", c)) {
            return false;
        }
    }
    return s.len > 0;
}

static httpsrv_result hsrv_response_redirect(httpsrv_req *req, int status, const char *location) {
    const bool redirects = status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
    const httpsrv_str target = hsrv_text_of(location);
    if (!redirects || !target.ptr || !hsrv_response_is_reference(target)) return HTTPSRV_ARG;
    req->answered_twice = req->answered_twice || req->answered != HSRV_ANSWER_NONE;
    const hsrv_answer before = req->answer;
    httpsrv_result result = hsrv_response_set(req, hsrv_text_of("Location"), target);
    if (result != HTTPSRV_OK) return result;
    result = hsrv_response_reply(req, status, NULL, HSRV_LITERAL(""));
    if (result == HTTPSRV_NOMEM) {
        req->answer = before;
        *req->answer.headers_end = NULL;
    }
    return result;
}

// ===========================================================================================
// >>content   Cookies, forms, files, filters.    owns: caches of open files    thread: holder
//             uses: >>frames >>router >>conn >>response
// ===========================================================================================

// ---- cookies: RFC 6265 ----

// In one Cookie field. Absent without it.
static httpsrv_str hsrv_content_find_cookie(httpsrv_str field, httpsrv_str name) {
    while (field.len > 0) {
        const char *semicolon = (const char *)memchr(field.ptr, ';', field.len);
        const size_t len = semicolon ? (size_t)(semicolon - field.ptr) : field.len;
        const httpsrv_str pair = hsrv_text_trim(hsrv_text_view(field.ptr, len));
        if (pair.len > name.len && pair.ptr[name.len] == '=' && memcmp(pair.ptr, name.ptr, name.len) == 0) {
            return hsrv_text_view(pair.ptr + name.len + 1, pair.len - name.len - 1);
        }
        hsrv_frames_skip(&field, semicolon ? len + 1 : len);
    }
    return hsrv_text_absent();
}

static httpsrv_str hsrv_content_cookie(const httpsrv_req *req, httpsrv_str name) {
    if (name.len == 0) return hsrv_text_absent();
    for (int i = 0; i < req->head.num_fields; i++) {
        if (!hsrv_text_equal_nocase(req->head.fields[i].name, hsrv_text_of("cookie"))) continue;
        httpsrv_str value = hsrv_content_find_cookie(req->head.fields[i].value, name);
        if (!value.ptr) continue;
        const bool quoted = value.len >= 2 && value.ptr[0] == '"' && value.ptr[value.len - 1] == '"';
        return quoted ? hsrv_text_view(value.ptr + 1, value.len - 2) : value;
    }
    return hsrv_text_absent();
}

// cookie-value of RFC 6265 section 4.1.1.
static bool hsrv_content_cookie_value_valid(httpsrv_str s) {
    if (s.len > 0 && !s.ptr) return false;
    if (s.len >= 2 && s.ptr[0] == '"' && s.ptr[s.len - 1] == '"') s = hsrv_text_view(s.ptr + 1, s.len - 2);
    for (size_t i = 0; i < s.len; i++) {
        const char c = s.ptr[i];
        if (c <= ' ' || c > '~' || c == '"' || c == ',' || c == ';' || c == '\\') return false;
    }
    return true;
}

static bool hsrv_content_cookie_path_valid(httpsrv_str s) {
    if (!s.ptr) return true;
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] < ' ' || s.ptr[i] > '~' || s.ptr[i] == ';') return false;
    }
    return s.len > 0 && s.ptr[0] == '/';
}

static bool hsrv_content_cookie_domain_valid(httpsrv_str s) {
    if (!s.ptr) return true;
    for (size_t i = 0; i < s.len; i++) {
        const char c = hsrv_text_lower(s.ptr[i]);
        if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') && c != '-' && c != '.') return false;
    }
    return s.len > 0;
}

// Browsers compare the prefixes without regard to case: RFC 6265bis section 4.1.3.
static bool hsrv_content_has_prefix(httpsrv_str name, const char *prefix) {
    const size_t len = strlen(prefix);
    return name.len >= len && hsrv_text_equal_nocase(hsrv_text_view(name.ptr, len), hsrv_text_view(prefix, len));
}

static bool hsrv_content_cookie_valid(const httpsrv_cookie_config *cookie) {
    const httpsrv_str name = hsrv_text_of(cookie->name), path = hsrv_text_of(cookie->path);
    const httpsrv_str site = hsrv_text_of(cookie->same_site);
    if (!hsrv_text_is_token(name) || !hsrv_content_cookie_value_valid(cookie->value)) return false;
    if (!hsrv_content_cookie_path_valid(path)) return false;
    if (!hsrv_content_cookie_domain_valid(hsrv_text_of(cookie->domain))) return false;
    const bool none = hsrv_text_equal(site, hsrv_text_of("None"));
    const bool known =
        none || hsrv_text_equal(site, hsrv_text_of("Lax")) || hsrv_text_equal(site, hsrv_text_of("Strict"));
    if (site.ptr && (!known || (none && !cookie->secure))) return false;
    if (hsrv_content_has_prefix(name, "__Secure-") && !cookie->secure) return false;
    if (!hsrv_content_has_prefix(name, "__Host-")) return true;
    return cookie->secure && !cookie->domain && hsrv_text_equal(path, hsrv_text_of("/"));
}

static char *hsrv_content_attribute(char *out, const char *name, const char *value) {
    if (!value) return out;
    out = hsrv_text_append(out, hsrv_text_of(name));
    return hsrv_text_append(out, hsrv_text_of(value));
}

static char *hsrv_content_format_cookie(char *out, const httpsrv_cookie_config *cookie) {
    out = hsrv_text_append(out, hsrv_text_of(cookie->name));
    *out++ = '=';
    out = hsrv_text_append(out, cookie->value);
    out = hsrv_content_attribute(out, "; Path=", cookie->path);
    out = hsrv_content_attribute(out, "; Domain=", cookie->domain);
    if (cookie->max_age > 0) {
        out = HSRV_APPEND(out, "; Max-Age=");
        out = hsrv_text_format_number(out, (uint64_t)cookie->max_age);
    } else if (cookie->max_age < 0) {
        out = HSRV_APPEND(out, "; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT");
    }
    if (cookie->secure) out = HSRV_APPEND(out, "; Secure");
    if (cookie->http_only) out = HSRV_APPEND(out, "; HttpOnly");
    return hsrv_content_attribute(out, "; SameSite=", cookie->same_site);
}

static httpsrv_result hsrv_content_set_cookie(httpsrv_req *req, const httpsrv_cookie_config *cookie) {
    if (!hsrv_content_cookie_valid(cookie)) return HTTPSRV_ARG;
    const size_t texts = strlen(cookie->name) + (cookie->path ? strlen(cookie->path) : 0) +
                         (cookie->domain ? strlen(cookie->domain) : 0);
    if (cookie->value.len > HTTPSRV_WRITE_BUFFER || texts > HTTPSRV_WRITE_BUFFER) return HTTPSRV_ARG;
    char *text = (char *)hsrv_memory_arena_take(&req->arena, texts + cookie->value.len + 160);
    if (!text) return HTTPSRV_NOMEM;
    const char *end = hsrv_content_format_cookie(text, cookie);
    return hsrv_response_add(req, hsrv_text_of("Set-Cookie"), hsrv_text_view(text, (size_t)(end - text)));
}

// ---- forms ----

// A form being read. What it finds goes to the request's arena.
typedef struct hsrv_form {
    httpsrv_req *req;
    httpsrv_form_config config; // complete
    httpsrv_part *parts;
    int num_parts, cap;
    int64_t left;        // of config.memory
    hsrv_buffer content; // of the part at hand
} hsrv_form;

// Takes from what may be kept in memory.
static bool hsrv_content_spend(hsrv_form *form, size_t n) {
    if ((uint64_t)n > (uint64_t)form->left) return false;
    form->left -= (int64_t)n;
    return true;
}

// Room for one more part; NULL when out of memory.
static httpsrv_part *hsrv_content_new_part(hsrv_form *form) {
    if (form->num_parts == form->cap) {
        const int cap = form->cap ? form->cap * 2 : 8;
        httpsrv_part *parts =
            (httpsrv_part *)hsrv_memory_arena_take(&form->req->arena, (size_t)cap * sizeof(httpsrv_part));
        if (!parts || form->cap > INT_MAX / 4) return NULL;
        if (form->num_parts > 0) memcpy(parts, form->parts, (size_t)form->num_parts * sizeof *parts);
        form->parts = parts;
        form->cap = cap;
    }
    httpsrv_part *part = &form->parts[form->num_parts];
    memset(part, 0, sizeof *part);
    part->fd = -1;
    return part;
}

// A copy of a text that is there.
static httpsrv_result hsrv_content_keep(hsrv_form *form, httpsrv_str text, httpsrv_str *copy) {
    if (!text.ptr) return HTTPSRV_OK;
    if (!hsrv_content_spend(form, text.len)) return HTTPSRV_TOOBIG;
    *copy = hsrv_memory_arena_copy(&form->req->arena, text);
    return copy->ptr ? HTTPSRV_OK : HTTPSRV_NOMEM;
}

// A file for a part, to be closed with the request.
static httpsrv_result hsrv_content_open_spool(hsrv_form *form, httpsrv_part *part) {
    hsrv_spool *spool = (hsrv_spool *)hsrv_memory_arena_take(&form->req->arena, sizeof *spool);
    if (!spool) return HTTPSRV_NOMEM;
    part->fd = hsrv_sys_open_spool(form->config.spool);
    if (part->fd < 0) return HTTPSRV_SYS;
    spool->fd = part->fd;
    spool->next = form->req->spools;
    form->req->spools = spool;
    return HTTPSRV_OK;
}

static httpsrv_result hsrv_content_begin_part(hsrv_form *form, const httpsrv_part *found) {
    httpsrv_part *part = hsrv_content_new_part(form);
    if (!part) return HTTPSRV_NOMEM;
    httpsrv_result result = hsrv_content_keep(form, found->name, &part->name);
    if (result == HTTPSRV_OK) result = hsrv_content_keep(form, found->filename, &part->filename);
    if (result == HTTPSRV_OK) result = hsrv_content_keep(form, found->type, &part->type);
    if (result != HTTPSRV_OK) return result;
    form->content.len = 0;
    return HTTPSRV_OK;
}

static httpsrv_result hsrv_content_spool(int fd, httpsrv_str data) {
    while (data.len > 0) {
        const ssize_t n = hsrv_sys_write(fd, data.ptr, data.len);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return HTTPSRV_SYS;
        hsrv_frames_skip(&data, (size_t)n);
    }
    return HTTPSRV_OK;
}

static httpsrv_result hsrv_content_part_data(hsrv_form *form, httpsrv_str data) {
    httpsrv_part *part = &form->parts[form->num_parts];
    const bool spools = form->config.spool && part->filename.ptr;
    if (spools && part->fd < 0) { // not before there is something: browsers send a part for each empty file input
        const httpsrv_result result = hsrv_content_open_spool(form, part);
        if (result != HTTPSRV_OK) return result;
    }
    part->size += (int64_t)data.len;
    if (spools) return hsrv_content_spool(part->fd, data);
    if (!hsrv_content_spend(form, data.len)) return HTTPSRV_TOOBIG;
    const bool kept = hsrv_memory_buffer_append(&form->req->srv->memory, &form->content, data.ptr, data.len);
    return kept ? HTTPSRV_OK : HTTPSRV_NOMEM;
}

static httpsrv_result hsrv_content_end_part(hsrv_form *form) {
    httpsrv_part *part = &form->parts[form->num_parts++];
    if (part->fd >= 0) return hsrv_sys_rewind(part->fd) == 0 ? HTTPSRV_OK : HTTPSRV_SYS;
    part->data = hsrv_memory_arena_copy(&form->req->arena, hsrv_text_view(form->content.ptr, form->content.len));
    return part->data.ptr ? HTTPSRV_OK : HTTPSRV_NOMEM;
}

// Keeps the parts, for those who do not take them as they come.
static httpsrv_result hsrv_content_on_part(const httpsrv_part *part, httpsrv_part_step step, httpsrv_str data,
                                           void *user) {
    hsrv_form *form = (hsrv_form *)user;
    switch (step) {
    case HTTPSRV_PART_BEGIN: return hsrv_content_begin_part(form, part);
    case HTTPSRV_PART_DATA: return hsrv_content_part_data(form, data);
    default: return hsrv_content_end_part(form);
    }
}

// Hands a part on that is there as a whole.
static httpsrv_result hsrv_content_pass_whole(const hsrv_form *form, httpsrv_part *part, httpsrv_str value) {
    const httpsrv_form_config *config = &form->config;
    httpsrv_result result = config->on_part(part, HTTPSRV_PART_BEGIN, HSRV_LITERAL(""), config->user);
    part->size = (int64_t)value.len;
    if (result == HTTPSRV_OK && value.len > 0) result = config->on_part(part, HTTPSRV_PART_DATA, value, config->user);
    if (result == HTTPSRV_OK) result = config->on_part(part, HTTPSRV_PART_END, HSRV_LITERAL(""), config->user);
    return result;
}

// A copy of a text with its escapes decoded.
static httpsrv_result hsrv_content_decode(hsrv_form *form, httpsrv_str text, httpsrv_str *decoded) {
    char *out = (char *)hsrv_memory_arena_take(&form->req->arena, text.len);
    if (!out) return HTTPSRV_NOMEM;
    const ptrdiff_t len = hsrv_frames_decode(out, text, true);
    if (len < 0) return HTTPSRV_SYNTAX;
    *decoded = hsrv_text_view(out, (size_t)len);
    return HTTPSRV_OK;
}

static httpsrv_result hsrv_content_add_pair(hsrv_form *form, const httpsrv_field *pair, int number) {
    httpsrv_part part;
    httpsrv_str value;
    memset(&part, 0, sizeof part);
    part.fd = -1;
    if (number == hsrv_frames_limit(form->config.parts, 64, INT_MAX)) return HTTPSRV_TOOBIG;
    httpsrv_result result = hsrv_content_decode(form, pair->name, &part.name);
    if (result == HTTPSRV_OK) result = hsrv_content_decode(form, pair->value, &value);
    if (result != HTTPSRV_OK) return result;
    if ((int64_t)value.len > hsrv_frames_limit(form->config.size, INT64_MAX, INT64_MAX)) return HTTPSRV_TOOBIG;
    return hsrv_content_pass_whole(form, &part, value);
}

static httpsrv_result hsrv_content_read_pairs(hsrv_form *form, httpsrv_str text) {
    httpsrv_field pair;
    httpsrv_result result = HTTPSRV_OK;
    for (int i = 0; result == HTTPSRV_OK && hsrv_frames_next_pair(&text, &pair); i++) {
        result = hsrv_content_add_pair(form, &pair, i);
    }
    return result;
}

#define HSRV_FORM_PIECE 8192 // bytes read from the body at a time

// The body of a route with stream, a piece at a time; GONE as an error, 0 at the end.
static httpsrv_result hsrv_content_stream_parts(hsrv_form *form, httpsrv_multipart *m) {
    char piece[HSRV_FORM_PIECE];
    ptrdiff_t n;
    while ((n = hsrv_response_read(form->req, piece, sizeof piece)) > 0) {
        const httpsrv_result result = hsrv_frames_multipart_feed(m, hsrv_text_view(piece, (size_t)n));
        if (result != HTTPSRV_OK) return result;
    }
    return n < 0 ? (httpsrv_result)n : hsrv_frames_multipart_end(m);
}

static httpsrv_result hsrv_content_stream_pairs(hsrv_form *form) {
    char piece[HSRV_FORM_PIECE];
    hsrv_buffer text;
    ptrdiff_t n;
    hsrv_memory *memory = &form->req->srv->memory;
    httpsrv_result result = HTTPSRV_OK;
    memset(&text, 0, sizeof text);
    while (result == HTTPSRV_OK && (n = hsrv_response_read(form->req, piece, sizeof piece)) != 0) {
        if (n < 0)
            result = (httpsrv_result)n;
        else if ((uint64_t)n > (uint64_t)form->config.memory * 3 - text.len) // an escape takes three
            result = HTTPSRV_TOOBIG;
        else if (!hsrv_memory_buffer_append(memory, &text, piece, (size_t)n))
            result = HTTPSRV_NOMEM;
    }
    if (result == HTTPSRV_OK) result = hsrv_content_read_pairs(form, hsrv_text_view(text.ptr, text.len));
    hsrv_memory_buffer_free(memory, &text);
    return result;
}

static httpsrv_result hsrv_content_read_multipart(hsrv_form *form) {
    httpsrv_req *req = form->req;
    httpsrv_multipart *m = (httpsrv_multipart *)hsrv_memory_arena_take(&req->arena, sizeof *m);
    if (!m) return HTTPSRV_NOMEM;
    httpsrv_result result = hsrv_frames_multipart_init(m, req->head.content_type, &form->config);
    if (result != HTTPSRV_OK) return result;
    if (req->route->stream) return hsrv_content_stream_parts(form, m);
    result = hsrv_frames_multipart_feed(m, req->body);
    return result == HTTPSRV_OK ? hsrv_frames_multipart_end(m) : result;
}

static httpsrv_result hsrv_content_read_body(hsrv_form *form) {
    httpsrv_req *req = form->req;
    httpsrv_str rest = req->head.content_type;
    if (!rest.ptr) return HTTPSRV_UNSUPPORTED;
    const httpsrv_str type = hsrv_frames_take_value(&rest);
    if (!hsrv_text_equal_nocase(type, hsrv_text_of("application/x-www-form-urlencoded"))) {
        return hsrv_content_read_multipart(form);
    }
    return req->route->stream ? hsrv_content_stream_pairs(form) : hsrv_content_read_pairs(form, req->body);
}

static httpsrv_result hsrv_content_read_form(httpsrv_req *req, const httpsrv_form_config *config) {
    hsrv_form form;
    if (req->form_read || req->on_body || req->stream.asked) return HTTPSRV_STATE;
    if (req->inline_conn && (req->route->stream || req->parser.phase != HTTPSRV_PHASE_DONE)) return HTTPSRV_STATE;
    memset(&form, 0, sizeof form);
    form.req = req;
    if (config) form.config = *config;
    form.left = hsrv_frames_limit(form.config.memory, 65536, INT64_MAX / 4);
    form.config.memory = form.left;
    if (!form.config.on_part) {
        form.config.on_part = hsrv_content_on_part;
        form.config.user = &form;
    }
    req->form_read = true;
    const httpsrv_result result = hsrv_content_read_body(&form);
    hsrv_memory_buffer_free(&req->srv->memory, &form.content);
    if (result != HTTPSRV_OK) return result;
    req->form.parts = form.parts;
    req->form.num_parts = form.num_parts;
    return HTTPSRV_OK;
}

static httpsrv_str hsrv_content_form_field(httpsrv_req *req, httpsrv_str name) {
    if (!req->form_read && hsrv_content_read_form(req, NULL) != HTTPSRV_OK) return hsrv_text_absent();
    for (int i = 0; i < req->form.num_parts; i++) {
        if (hsrv_text_equal(req->form.parts[i].name, name)) return req->form.parts[i].data;
    }
    return hsrv_text_absent();
}

// ---- what is there to be got: files, assets ----

// Something with a body that is known beforehand.
typedef struct hsrv_resource {
    const char *type;
    httpsrv_str etag; // with its quotes
    int64_t mtime;    // seconds; INT64_MIN: unknown
    int64_t size;
    hsrv_file *file;           // either a file...
    const char *data;          // ...or bytes that stay
    const char *coding;        // of the content; NULL: none
    const char *cache_control; // NULL: none
    bool varies;               // by Accept-Encoding
} hsrv_resource;

static const char *const hsrv_content_codings[HSRV_CODINGS] = {"br", "zstd", "gzip"};
static const char *const hsrv_content_suffixes[HSRV_CODINGS] = {".br", ".zst", ".gz"};

static const char *hsrv_content_find_type(const httpsrv_mime *types, httpsrv_str extension) {
    for (const httpsrv_mime *mime = types; mime && mime->extension; mime++) {
        if (hsrv_text_equal_nocase(hsrv_text_of(mime->extension), extension)) return mime->type;
    }
    return NULL;
}

// The media type of a file by its name; own types first.
static const char *hsrv_content_type_of(const httpsrv_mime *own, httpsrv_str path) {
    static const httpsrv_mime types[] = {{"html", "text/html; charset=utf-8"},
                                         {"htm", "text/html; charset=utf-8"},
                                         {"css", "text/css; charset=utf-8"},
                                         {"js", "text/javascript; charset=utf-8"},
                                         {"mjs", "text/javascript; charset=utf-8"},
                                         {"json", "application/json"},
                                         {"map", "application/json"},
                                         {"txt", "text/plain; charset=utf-8"},
                                         {"md", "text/markdown; charset=utf-8"},
                                         {"csv", "text/csv; charset=utf-8"},
                                         {"xml", "application/xml"},
                                         {"svg", "image/svg+xml"},
                                         {"png", "image/png"},
                                         {"jpg", "image/jpeg"},
                                         {"jpeg", "image/jpeg"},
                                         {"gif", "image/gif"},
                                         {"webp", "image/webp"},
                                         {"avif", "image/avif"},
                                         {"ico", "image/vnd.microsoft.icon"},
                                         {"bmp", "image/bmp"},
                                         {"tif", "image/tiff"},
                                         {"tiff", "image/tiff"},
                                         {"woff", "font/woff"},
                                         {"woff2", "font/woff2"},
                                         {"ttf", "font/ttf"},
                                         {"otf", "font/otf"},
                                         {"wasm", "application/wasm"},
                                         {"webmanifest", "application/manifest+json"},
                                         {"pdf", "application/pdf"},
                                         {"rtf", "application/rtf"},
                                         {"zip", "application/zip"},
                                         {"gz", "application/gzip"},
                                         {"bz2", "application/x-bzip2"},
                                         {"xz", "application/x-xz"},
                                         {"zst", "application/zstd"},
                                         {"7z", "application/x-7z-compressed"},
                                         {"tar", "application/x-tar"},
                                         {"mp3", "audio/mpeg"},
                                         {"ogg", "audio/ogg"},
                                         {"opus", "audio/ogg"},
                                         {"flac", "audio/flac"},
                                         {"wav", "audio/wav"},
                                         {"m4a", "audio/mp4"},
                                         {"mp4", "video/mp4"},
                                         {"m4v", "video/mp4"},
                                         {"webm", "video/webm"},
                                         {"mkv", "video/matroska"},
                                         {"mov", "video/quicktime"},
                                         {"avi", "video/x-msvideo"},
                                         {"m3u8", "application/vnd.apple.mpegurl"},
                                         {"ts", "video/mp2t"},
                                         {"ics", "text/calendar; charset=utf-8"},
                                         {"vtt", "text/vtt; charset=utf-8"},
                                         {"epub", "application/epub+zip"},
                                         {NULL, NULL}};
    size_t dot = path.len;
    while (dot > 0 && path.ptr[dot - 1] != '.' && path.ptr[dot - 1] != '/') {
        dot--;
    }
    if (dot == 0 || path.ptr[dot - 1] == '/') return "application/octet-stream";
    const httpsrv_str extension = hsrv_text_view(path.ptr + dot, path.len - dot);
    const char *type = hsrv_content_find_type(own, extension);
    if (!type) type = hsrv_content_find_type(types, extension);
    return type ? type : "application/octet-stream";
}

// ---- conditions: RFC 9110 section 13.2.2 ----

static httpsrv_str hsrv_content_field(const httpsrv_req *req, const char *name) {
    return hsrv_request_field(&req->head, hsrv_text_of(name));
}

// Whether there may be fields that ask for anything but the whole: If-..., Range.
static bool hsrv_content_has_conditions(const httpsrv_req *req) {
    for (int i = 0; i < req->head.num_fields; i++) {
        const httpsrv_str name = req->head.fields[i].name;
        const char first = hsrv_text_lower(name.ptr[0]);
        if ((first == 'i' && name.len > 2 && name.ptr[2] == '-') || (first == 'r' && name.len == 5)) return true;
    }
    return false;
}

// How often a field is there.
static int hsrv_content_count(const httpsrv_req *req, const char *name) {
    int count = 0;
    for (int i = 0; i < req->head.num_fields; i++) {
        if (hsrv_text_equal_nocase(req->head.fields[i].name, hsrv_text_of(name))) count++;
    }
    return count;
}

// Whether something has not been modified since a date in a field; -1 if the field says nothing, as several dates do.
static int hsrv_content_unmodified(const httpsrv_req *req, const hsrv_resource *r, const char *name) {
    if (hsrv_content_count(req, name) > 1) return -1;
    const int64_t date = hsrv_text_parse_date(hsrv_content_field(req, name), hsrv_sys_unix_seconds());
    return date == INT64_MIN || r->mtime == INT64_MIN ? -1 : r->mtime <= date;
}

// Whether a field, which may be there several times, lists the tag of something; -1 if it is not there.
static int hsrv_content_lists_tag(const httpsrv_req *req, const hsrv_resource *r, const char *name, bool weak) {
    int found = -1;
    for (int i = 0; i < req->head.num_fields && found <= 0; i++) {
        if (!hsrv_text_equal_nocase(req->head.fields[i].name, hsrv_text_of(name))) continue;
        found = hsrv_frames_has_tag(req->head.fields[i].value, r->etag, weak);
    }
    return found;
}

// 200 to go on, 304, 412.
static int hsrv_content_check_conditions(const httpsrv_req *req, const hsrv_resource *r) {
    const int match = hsrv_content_lists_tag(req, r, "if-match", false);
    if (match == 0 || (match < 0 && hsrv_content_unmodified(req, r, "if-unmodified-since") == 0)) return 412;
    const int none = hsrv_content_lists_tag(req, r, "if-none-match", true);
    const bool reads = req->head.method_id == HTTPSRV_METHOD_GET || req->head.method_id == HTTPSRV_METHOD_HEAD;
    if (none >= 0) return !none ? 200 : reads ? 304 : 412;
    if (!reads) return 200;
    return hsrv_content_unmodified(req, r, "if-modified-since") == 1 ? 304 : 200;
}

// Whether a Range field counts: If-Range, if there is one, has to name what is there. RFC 9110 section 13.1.5.
static bool hsrv_content_range_counts(const httpsrv_req *req, const hsrv_resource *r) {
    const httpsrv_str condition = hsrv_text_trim(hsrv_content_field(req, "if-range"));
    if (req->head.method_id != HTTPSRV_METHOD_GET) return false;
    if (hsrv_content_count(req, "range") > 1 || hsrv_content_count(req, "if-range") > 1) return false;
    if (!condition.ptr) return true;
    if (condition.len > 1 && (condition.ptr[0] == '"' || condition.ptr[1] == '/')) {
        return hsrv_frames_same_tag(condition, r->etag, false);
    }
    const int64_t now = hsrv_sys_unix_seconds(), date = hsrv_text_parse_date(condition, now);
    return date != INT64_MIN && date == r->mtime && date < now; // a date of this second may stand for two states
}

// ---- answers made of a resource ----

static bool hsrv_content_has_header(const httpsrv_req *req, const char *name) {
    for (const hsrv_header *h = req->answer.headers; h; h = h->next) {
        if (hsrv_text_equal_nocase(h->name, hsrv_text_of(name))) return true;
    }
    return false;
}

// A field of which all is known: its name is none that means something to the server, its value was checked at setup.
static httpsrv_result hsrv_content_set(httpsrv_req *req, httpsrv_str name, httpsrv_str value) {
    hsrv_header **end = req->answer.headers_end;
    if (req->answered != HSRV_ANSWER_NONE) return HTTPSRV_STATE;
    const httpsrv_result result = hsrv_response_append(req, name, value);
    if (result == HTTPSRV_OK) hsrv_response_drop_earlier(req, *end);
    return result;
}

static httpsrv_result hsrv_content_set_date(httpsrv_req *req, const hsrv_resource *r) {
    const httpsrv_str name = HSRV_LITERAL("Last-Modified");
    char date[32];
    if (r->mtime == INT64_MIN) return HTTPSRV_OK;
    if (r->file && r->file->mtime == r->mtime && r->file->date_len > 0)
        return hsrv_content_set(req, name, hsrv_text_view(r->file->date, r->file->date_len));
    const char *end = hsrv_text_format_date(date, r->mtime);
    return hsrv_content_set(req, name, hsrv_text_view(date, (size_t)(end - date)));
}

// What all answers about it say, also 304 (RFC 9110 section 15.4.5).
static httpsrv_result hsrv_content_describe(httpsrv_req *req, const hsrv_resource *r) {
    httpsrv_result result = hsrv_content_set(req, HSRV_LITERAL("ETag"), r->etag);
    if (result == HTTPSRV_OK) result = hsrv_content_set_date(req, r);
    if (result == HTTPSRV_OK) result = hsrv_content_set(req, HSRV_LITERAL("Accept-Ranges"), HSRV_LITERAL("bytes"));
    if (result == HTTPSRV_OK)
        result = hsrv_content_set(req, HSRV_LITERAL("X-Content-Type-Options"), HSRV_LITERAL("nosniff"));
    if (result == HTTPSRV_OK && r->cache_control && !hsrv_content_has_header(req, "cache-control"))
        result = hsrv_content_set(req, HSRV_LITERAL("Cache-Control"), hsrv_text_of(r->cache_control));
    if (result == HTTPSRV_OK && r->varies)
        result = hsrv_response_append(req, HSRV_LITERAL("Vary"), HSRV_LITERAL("Accept-Encoding"));
    if (result == HTTPSRV_OK && r->coding)
        result = hsrv_content_set(req, HSRV_LITERAL("Content-Encoding"), hsrv_text_of(r->coding));
    return result;
}

static char *hsrv_content_format_range(char *out, const hsrv_resource *r, const hsrv_span *span) {
    out = HSRV_APPEND(out, "bytes ");
    if (span) {
        out = hsrv_text_format_number(out, (uint64_t)span->first);
        *out++ = '-';
        out = hsrv_text_format_number(out, (uint64_t)(span->first + span->len - 1));
    } else {
        *out++ = '*';
    }
    *out++ = '/';
    return hsrv_text_format_number(out, (uint64_t)r->size);
}

// A list of segments being made.
typedef struct hsrv_parts {
    hsrv_memory *memory;
    hsrv_segment *first, **end;
    int64_t length;
    bool failed; // out of memory
} hsrv_parts;

static void hsrv_content_add_part(hsrv_parts *parts, hsrv_segment *segment) {
    if (!segment) {
        parts->failed = true;
        return;
    }
    segment->next = NULL;
    *parts->end = segment;
    parts->end = &segment->next;
    parts->length += (int64_t)segment->len;
}

static void hsrv_content_add_text(hsrv_parts *parts, httpsrv_str text) {
    hsrv_segment *segment = hsrv_output_new(parts->memory, text.len);
    if (segment) hsrv_text_append((char *)(segment + 1), text);
    hsrv_content_add_part(parts, segment);
}

#define HSRV_MAX_PART ((int64_t)1 << 30) // bytes of a file in one segment: sizes have 32 bits on some machines

static void hsrv_content_add_span(hsrv_parts *parts, const hsrv_resource *r, hsrv_span span) {
    while (span.len > 0 && !parts->failed) {
        const int64_t len = span.len < HSRV_MAX_PART ? span.len : HSRV_MAX_PART;
        hsrv_segment *segment = NULL;
        if (r->file) {
            segment = hsrv_output_new_file(parts->memory, r->file, span.first, (size_t)len);
        } else {
            segment = hsrv_output_new(parts->memory, 0);
            if (segment) segment->ptr = r->data + span.first;
            if (segment) segment->len = (size_t)len;
        }
        hsrv_content_add_part(parts, segment);
        span.first += len;
        span.len -= len;
    }
}

// multipart/byteranges, RFC 9110 section 14.6. `type` is where its media type goes.
static void hsrv_content_add_spans(hsrv_parts *parts, const hsrv_resource *r, const hsrv_span *spans, int count,
                                   char type[80]) {
    unsigned char random[12] = {0};
    char boundary[2 * sizeof random + 1], text[256];
    hsrv_sys_random(random, sizeof random);
    for (size_t i = 0; i < sizeof random; i++) {
        snprintf(boundary + 2 * i, 3, "%02x", random[i]);
    }
    snprintf(type, 80, "multipart/byteranges; boundary=%s", boundary);
    for (int i = 0; i < count; i++) {
        const int len = snprintf(text, sizeof text, "%s--%s\r\nContent-Type: ", i > 0 ? "\r\n" : "", boundary);
        hsrv_content_add_text(parts, hsrv_text_view(text, (size_t)len));
        hsrv_content_add_text(parts, hsrv_text_of(r->type));
        char *end = hsrv_content_format_range(HSRV_APPEND(text, "\r\nContent-Range: "), r, &spans[i]);
        end = HSRV_APPEND(end, "\r\n\r\n");
        hsrv_content_add_text(parts, hsrv_text_view(text, (size_t)(end - text)));
        hsrv_content_add_span(parts, r, spans[i]);
    }
    const int len = snprintf(text, sizeof text, "\r\n--%s--\r\n", boundary);
    hsrv_content_add_text(parts, hsrv_text_view(text, (size_t)len));
}

static httpsrv_result hsrv_content_send_parts(httpsrv_req *req, int status, const char *type, hsrv_parts *parts) {
    if (parts->failed) {
        hsrv_output_drop_list(parts->memory, parts->first);
        return HTTPSRV_NOMEM;
    }
    return hsrv_response_reply_parts(req, status, type, parts->length, parts->first);
}

// A piece of it, as a whole answer. What is in memory and short is copied with the head.
static httpsrv_result hsrv_content_send_span(httpsrv_req *req, const hsrv_resource *r, int status, hsrv_span span) {
    const char *data = r->file ? r->file->content : r->data;
    if (data && span.len <= (int64_t)HSRV_SEND_THROUGH) {
        req->as_is = true; // what is there is compressed beforehand
        return hsrv_response_reply(req, status, r->type, hsrv_text_view(data + span.first, (size_t)span.len));
    }
    hsrv_parts parts;
    memset(&parts, 0, sizeof parts);
    parts.memory = &req->srv->memory;
    parts.end = &parts.first;
    hsrv_content_add_span(&parts, r, span);
    return hsrv_content_send_parts(req, status, r->type, &parts);
}

static httpsrv_result hsrv_content_send_spans(httpsrv_req *req, const hsrv_resource *r, const hsrv_span *spans,
                                              int count) {
    char type[80];
    hsrv_parts parts;
    memset(&parts, 0, sizeof parts);
    parts.memory = &req->srv->memory;
    parts.end = &parts.first;
    hsrv_content_add_spans(&parts, r, spans, count, type);
    return hsrv_content_send_parts(req, 206, type, &parts);
}

static httpsrv_result hsrv_content_say(httpsrv_req *req, int status) {
    char text[64];
    const int len = snprintf(text, sizeof text, "%d %s\n", status, hsrv_text_phrase(status).ptr);
    return hsrv_response_reply(req, status, "text/plain", hsrv_text_view(text, (size_t)len));
}

static httpsrv_result hsrv_content_send_ranges(httpsrv_req *req, const hsrv_resource *r, const hsrv_span *spans,
                                               int count) {
    char range[80];
    const char *end = hsrv_content_format_range(range, r, count == 1 ? spans : NULL);
    if (count > 1) return hsrv_content_send_spans(req, r, spans, count);
    const httpsrv_result result =
        hsrv_content_set(req, HSRV_LITERAL("Content-Range"), hsrv_text_view(range, (size_t)(end - range)));
    if (result != HTTPSRV_OK) return result;
    return count == 1 ? hsrv_content_send_span(req, r, 206, spans[0]) : hsrv_content_say(req, 416);
}

// Answers with it, or with what the request's conditions and ranges make of it.
static httpsrv_result hsrv_content_send(httpsrv_req *req, const hsrv_resource *r) {
    hsrv_span spans[HTTPSRV_MAX_RANGES];
    const bool asks = hsrv_content_has_conditions(req);
    const int status = asks ? hsrv_content_check_conditions(req, r) : 200;
    const httpsrv_str range = asks ? hsrv_content_field(req, "range") : hsrv_text_absent();
    const bool ranges = status == 200 && range.ptr && hsrv_content_range_counts(req, r);
    const int count = ranges ? hsrv_frames_parse_ranges(range, r->size, spans) : 0;
    hsrv_resource plain = *r;
    if (status == 412 || count < 0) plain.coding = plain.cache_control = NULL; // not said of an answer like this
    const httpsrv_result result = hsrv_content_describe(req, &plain);
    if (result != HTTPSRV_OK) return result;
    if (status == 412) return hsrv_content_say(req, 412);
    if (status == 304) return hsrv_response_reply(req, 304, NULL, HSRV_LITERAL(""));
    if (count != 0) return hsrv_content_send_ranges(req, r, spans, count);
    spans[0].first = 0;
    spans[0].len = r->size;
    return hsrv_content_send_span(req, r, 200, spans[0]);
}

// An answer that could not be made for want of memory: fields that were set for it stay behind.
static void hsrv_content_answer(httpsrv_req *req, const hsrv_resource *r) {
    const hsrv_answer before = req->answer;
    if (hsrv_content_send(req, r) != HTTPSRV_NOMEM || req->answered != HSRV_ANSWER_NONE) return;
    req->answer = before;
    *req->answer.headers_end = NULL;
    hsrv_content_say(req, 503);
}

// Whether a path has a slash that was encoded: it stands for something else here and there.
static bool hsrv_content_hides_slash(httpsrv_str encoded) {
    for (size_t i = 0; i + 2 < encoded.len; i++) {
        if (encoded.ptr[i] == '%' && encoded.ptr[i + 1] == '2' && (encoded.ptr[i + 2] | 0x20) == 'f') return true;
    }
    return false;
}

// ---- opening files ----

#define HSRV_SMALL_FILE 16384 // bytes up to which a file is kept in memory rather than open
#define HSRV_READ_AHEAD \
    ((int64_t)1 << 21) // bytes of a larger one that the kernel shall have in memory when they are sent

// Reads a small file whole. One that changes meanwhile has the size that was read.
static bool hsrv_content_load(hsrv_file *file) {
    if (file->size > HSRV_SMALL_FILE)
        hsrv_sys_read_ahead(file->fd, file->size < HSRV_READ_AHEAD ? file->size : HSRV_READ_AHEAD);
    if (file->size > HSRV_SMALL_FILE || file->size == 0) return true;
    char *content = (char *)hsrv_memory_take(file->memory, (size_t)file->size);
    if (!content) return false;
    const ssize_t n = hsrv_sys_pread(file->fd, content, (size_t)file->size, 0);
    if (n != (ssize_t)file->size) { // let sendfile find out
        hsrv_memory_give(file->memory, content, (size_t)file->size);
        return true;
    }
    file->content = content;
    hsrv_sys_close(file->fd);
    file->fd = -1;
    return true;
}

static void hsrv_content_make_etag(hsrv_file *file) {
    char *out = file->etag;
    *out++ = '"';
    out = hsrv_text_format_hex(out, (uint64_t)file->mtime);
    *out++ = '.';
    out = hsrv_text_format_hex(out, (uint64_t)file->nanoseconds);
    *out++ = '-';
    out = hsrv_text_format_hex(out, (uint64_t)file->size);
    *out++ = '-';
    out = hsrv_text_format_hex(out, file->inode);
    *out++ = '"';
    file->etag_len = (size_t)(out - file->etag);
}

// RFC 9110 section 8.8.2.1: never later than now.
static int64_t hsrv_content_modified(const hsrv_file *file) {
    const int64_t now = hsrv_sys_unix_seconds(), mtime = file->mtime < now ? file->mtime : now;
    return mtime < HSRV_FIRST_DATE ? INT64_MIN : mtime;
}

static void hsrv_content_make_date(hsrv_file *file) {
    if (file->mtime < HSRV_FIRST_DATE || hsrv_content_modified(file) != file->mtime) return;
    file->date_len = (size_t)(hsrv_text_format_date(file->date, file->mtime) - file->date);
}

// Takes over a descriptor of a regular file. NULL when out of memory.
static hsrv_file *hsrv_content_new_file(hsrv_memory *memory, int fd, const struct stat *status) {
    hsrv_file *file = (hsrv_file *)hsrv_memory_take_zeroed(memory, sizeof *file);
    if (!file) {
        hsrv_sys_close(fd);
        return NULL;
    }
    file->memory = memory;
    file->uses = 1;
    file->fd = fd;
    file->size = (int64_t)status->st_size;
    file->mtime = (int64_t)status->st_mtim.tv_sec;
    file->nanoseconds = status->st_mtim.tv_nsec;
    file->device = (uint64_t)status->st_dev;
    file->inode = (uint64_t)status->st_ino;
    hsrv_content_make_etag(file);
    hsrv_content_make_date(file);
    if (hsrv_content_load(file)) return file;
    hsrv_output_unuse_file(file);
    return NULL;
}

#define HSRV_MAX_LINKS 40 // symbolic links on one way

// A way through directories, step by step, without openat2.
typedef struct hsrv_walk {
    int root, place; // the place is ours unless it is the root
    int depth;       // of it beneath the root
    int links;       // that may still be followed
    char rest[PATH_MAX];
} hsrv_walk;

static void hsrv_content_leave_place(hsrv_walk *walk, int next) {
    const int err = errno;
    if (walk->place != walk->root) hsrv_sys_close(walk->place);
    walk->place = next;
    errno = err;
}

// Puts what a link says in front of the rest of the way. Only links that are relative stay beneath the root.
static bool hsrv_content_follow(hsrv_walk *walk, int link) {
    char target[PATH_MAX];
    const ssize_t len = walk->links-- > 0 ? hsrv_sys_read_link(link, target, sizeof target) : -1;
    const size_t rest = strlen(walk->rest);
    errno = ELOOP;
    if (len <= 0 || target[0] == '/' || (size_t)len + rest + 2 > sizeof walk->rest) return false;
    memmove(walk->rest + len + 1, walk->rest, rest + 1);
    memcpy(walk->rest, target, (size_t)len);
    walk->rest[len] = '/';
    return true;
}

// Goes on to a name in the place. False with errno.
static bool hsrv_content_step(hsrv_walk *walk, const char *name) {
    struct stat status;
    const bool up = strcmp(name, "..") == 0;
    if (name[0] == '\0' || strcmp(name, ".") == 0) { // a slash, or this, behind a name says that it is a directory
        errno = ENOTDIR;
        return hsrv_sys_fstat(walk->place, &status) == 0 && S_ISDIR(status.st_mode);
    }
    errno = EXDEV;
    if (up && walk->depth == 0) return false;
    const int next = hsrv_sys_open_place(walk->place, name);
    if (next < 0) return false;
    const bool link = hsrv_sys_fstat(next, &status) == 0 && S_ISLNK(status.st_mode);
    if (link) {
        const bool followed = hsrv_content_follow(walk, next);
        const int err = errno;
        hsrv_sys_close(next);
        errno = err;
        return followed;
    }
    walk->depth += up ? -1 : 1;
    hsrv_content_leave_place(walk, next);
    return true;
}

// Takes the next name off the rest of a way. False if it is too long.
static bool hsrv_content_next_name(hsrv_walk *walk, char name[NAME_MAX + 1]) {
    const size_t len = strcspn(walk->rest, "/"), skip = len + (walk->rest[len] == '/');
    errno = ENAMETOOLONG;
    if (len > NAME_MAX) return false;
    memcpy(name, walk->rest, len);
    name[len] = '\0';
    memmove(walk->rest, walk->rest + skip, strlen(walk->rest + skip) + 1);
    return true;
}

// The place that a path leads to, step by step; -1 with errno. The path is short enough.
static int hsrv_content_walk(int root, const char *path, bool links) {
    char name[NAME_MAX + 1];
    hsrv_walk walk;
    walk.root = walk.place = root;
    walk.depth = 0;
    walk.links = links ? HSRV_MAX_LINKS : 0;
    snprintf(walk.rest, sizeof walk.rest, "%s", path);
    while (walk.rest[0]) {
        if (!hsrv_content_next_name(&walk, name) || !hsrv_content_step(&walk, name)) {
            hsrv_content_leave_place(&walk, -1);
            return -1;
        }
    }
    return walk.place;
}

// Whether what a place has turned out to be is beneath the root: directories may have been moved on the way.
static bool hsrv_content_is_within(const hsrv_mount *mount, int place) {
    char path[PATH_MAX];
    const ssize_t len = hsrv_sys_path_of(place, path, sizeof path);
    const size_t root_len = strlen(mount->place);
    if (len < 0 || (size_t)len < root_len || (size_t)len == sizeof path) return false;
    if (memcmp(path, mount->place, root_len) != 0) return false;
    return (size_t)len == root_len || path[root_len] == '/' || mount->place[root_len - 1] == '/';
}

// Without openat2: finds the place first, which opens nothing, makes sure of it, and opens it then.
static int hsrv_content_open_checked(const hsrv_mount *mount, const char *path) {
    struct stat status;
    const int place = hsrv_content_walk(mount->root, path, mount->config.links);
    if (place < 0) return -1;
    errno = ENOENT;
    int fd = -1;
    const bool good = hsrv_sys_fstat(place, &status) == 0 && (S_ISREG(status.st_mode) || S_ISDIR(status.st_mode));
    if (good && hsrv_content_is_within(mount, place)) fd = hsrv_sys_open_at_place(place);
    const int err = errno;
    if (place != mount->root) hsrv_sys_close(place);
    errno = err;
    return fd;
}

// The kernel gives up when anything at all, of any process, is renamed while it goes upwards for us: three times in a row
// have been seen beside a busy program.
#define HSRV_OPEN_TRIES 100

// Opens a path beneath a mount's root. -1 with errno.
static int hsrv_content_open_path(const hsrv_mount *mount, const char *path) {
    const char *beneath = path[0] ? path : ".";
    int fd = -1;
    for (int i = 0; i < HSRV_OPEN_TRIES && fd < 0; i++) {
        fd = hsrv_sys_open_beneath(mount->root, beneath, mount->config.links);
        if (fd < 0 && errno != EAGAIN) break;
    }
    return fd >= 0 || (errno != ENOSYS && errno != EPERM) ? fd : hsrv_content_open_checked(mount, beneath);
}

static int hsrv_content_status_of(int err) {
    switch (err) {
    case EACCES:
    case EPERM: return 403;
    case EAGAIN:
    case EMFILE:
    case ENFILE:
    case ENOMEM: return 503;
    case EIO: return 500;
    default: return 404;
    }
}

// Opens what a path names: 200 and a file, which is the caller's; 301 for a directory; or the status that says why not.
static int hsrv_content_open(const hsrv_mount *mount, const char *path, hsrv_file **file) {
    struct stat status;
    *file = NULL;
    const int fd = hsrv_content_open_path(mount, path);
    if (fd < 0) return hsrv_content_status_of(errno);
    const bool known = hsrv_sys_fstat(fd, &status) == 0;
    if (!known || !S_ISREG(status.st_mode)) {
        hsrv_sys_close(fd);
        return known && S_ISDIR(status.st_mode) ? 301 : 404;
    }
    *file = hsrv_content_new_file(&mount->srv->memory, fd, &status);
    return *file ? 200 : 503;
}

// ---- what a reactor keeps open ----

static void hsrv_content_drop_files(hsrv_cached *entry) {
    if (entry->file) hsrv_output_unuse_file(entry->file);
    for (int i = 0; i < HSRV_CODINGS; i++) {
        if (entry->siblings[i]) hsrv_output_unuse_file(entry->siblings[i]);
        entry->siblings[i] = NULL;
    }
    entry->file = NULL;
}

static void hsrv_content_forget(const hsrv_mount *mount, hsrv_cached *entry) {
    hsrv_content_drop_files(entry);
    hsrv_memory_give(&mount->srv->memory, entry->path, entry->path ? entry->path_len + 1 : 0);
    memset(entry, 0, sizeof *entry);
}

// Looks a path up on the disk: the file and its siblings.
static int hsrv_content_look(const hsrv_mount *mount, const char *path, hsrv_cached *entry) {
    char sibling[PATH_MAX];
    const int status = hsrv_content_open(mount, path, &entry->file);
    entry->type = hsrv_content_type_of(mount->config.types, hsrv_text_of(path));
    if (status != 200 || !mount->config.precompressed) return status;
    for (int i = 0; i < HSRV_CODINGS; i++) {
        const int len = snprintf(sibling, sizeof sibling, "%s%s", path, hsrv_content_suffixes[i]);
        if (len > 0 && (size_t)len < sizeof sibling) hsrv_content_open(mount, sibling, &entry->siblings[i]);
    }
    return status;
}

// The entry of a path, or the one that was not used for longest.
static hsrv_cached *hsrv_content_find_entry(const hsrv_mount *mount, hsrv_cache *cache, httpsrv_str path,
                                            uint32_t hash) {
    hsrv_cached *oldest = cache->entries;
    for (int i = 0; i < mount->config.max_open; i++) {
        hsrv_cached *entry = &cache->entries[i];
        if (entry->path && entry->hash == hash && hsrv_text_equal(hsrv_text_view(entry->path, entry->path_len), path))
            return entry;
        if (entry->used < oldest->used) oldest = entry;
    }
    return oldest;
}

static hsrv_cache *hsrv_content_cache_of(const hsrv_mount *mount, const httpsrv_req *req) {
    if (!req->inline_conn || mount->config.max_open < 0) return NULL;
    hsrv_cache *cache = &mount->caches[req->loop->number];
    if (cache->entries) return cache;
    const size_t size = (size_t)mount->config.max_open * sizeof(hsrv_cached);
    cache->entries = (hsrv_cached *)hsrv_memory_take_zeroed(&mount->srv->memory, size);
    return cache->entries ? cache : NULL;
}

// Makes an entry that of a path. False when out of memory.
static bool hsrv_content_take_entry(const hsrv_mount *mount, hsrv_cached *entry, httpsrv_str path, uint32_t hash) {
    hsrv_content_forget(mount, entry);
    entry->path = (char *)hsrv_memory_take(&mount->srv->memory, path.len + 1);
    if (!entry->path) return false;
    memcpy(entry->path, path.ptr, path.len);
    entry->path[path.len] = '\0';
    entry->path_len = path.len;
    entry->hash = hash;
    return true;
}

// Finds a path's files: in the cache, for as long as they are fresh, or on the disk. `own` takes them where there is no
// cache, and is the caller's to be dropped. 200, or the status that says why not.
static int hsrv_content_lookup(const hsrv_mount *mount, httpsrv_req *req, const char *path, hsrv_cached *own,
                               const hsrv_cached **found) {
    hsrv_cache *cache = hsrv_content_cache_of(mount, req);
    const httpsrv_str key = hsrv_text_of(path);
    *found = own;
    if (!cache) return hsrv_content_look(mount, path, own);
    const uint32_t hash = (uint32_t)hsrv_router_hash(key);
    hsrv_cached *entry = hsrv_content_find_entry(mount, cache, key, hash);
    const uint64_t now = req->loop->now;
    const bool known =
        entry->path && entry->hash == hash && hsrv_text_equal(hsrv_text_view(entry->path, entry->path_len), key);
    if (known && now - entry->looked < (uint64_t)mount->config.fresh_ms) {
        entry->used = ++cache->uses;
        *found = entry;
        return 200;
    }
    const int status = hsrv_content_look(mount, path, own);
    if (status != 200 || !hsrv_content_take_entry(mount, entry, key, hash)) {
        if (known) hsrv_content_forget(mount, entry);
        return status;
    }
    entry->type = own->type;
    entry->file = own->file;
    memcpy(entry->siblings, own->siblings, sizeof entry->siblings);
    memset(own, 0, sizeof *own);
    entry->looked = now;
    entry->used = ++cache->uses;
    *found = entry;
    return 200;
}

// ---- serving a directory ----

// Whether a path beneath the root may be asked for: no empty segments but the last, no hidden names, no slash that was
// encoded, and short enough.
static bool hsrv_content_path_allowed(const hsrv_mount *mount, httpsrv_str encoded, httpsrv_str path) {
    if (hsrv_content_hides_slash(encoded)) return false;
    for (size_t i = 0; i < path.len; i++) {
        const bool begins = i == 0 || path.ptr[i - 1] == '/';
        if (begins && (path.ptr[i] == '/' || (path.ptr[i] == '.' && !mount->config.dot_files))) return false;
    }
    return path.len < PATH_MAX - 256;
}

// Chooses between a file and its compressed siblings: what the client likes best, and of equals the smallest.
static hsrv_file *hsrv_content_choose(const httpsrv_req *req, const hsrv_cached *entry, const char **coding) {
    hsrv_file *best = entry->file;
    int liked = 0;
    *coding = NULL;
    for (int i = 0; i < HSRV_CODINGS; i++) {
        const int weight = entry->siblings[i] ? hsrv_request_weight(req, hsrv_content_codings[i]) : 0;
        if (weight <= liked) continue;
        liked = weight;
        best = entry->siblings[i];
        *coding = hsrv_content_codings[i];
    }
    if (liked == 0 || hsrv_request_weight(req, "identity") <= liked) return best;
    *coding = NULL;
    return entry->file;
}

static void hsrv_content_send_file(const hsrv_mount *mount, httpsrv_req *req, const hsrv_cached *entry) {
    hsrv_resource r;
    memset(&r, 0, sizeof r);
    r.file = hsrv_content_choose(req, entry, &r.coding);
    r.type = entry->type;
    r.etag = hsrv_text_view(r.file->etag, r.file->etag_len);
    r.mtime = hsrv_content_modified(r.file);
    r.size = r.file->size;
    r.cache_control = mount->config.cache_control;
    r.varies = mount->config.precompressed;
    hsrv_content_answer(req, &r);
}

// A directory is asked for with a slash at its end, so that relative links in it work.
static void hsrv_content_add_slash(httpsrv_req *req) {
    const httpsrv_str path = req->path, query = req->head.query;
    char *location = (char *)hsrv_memory_arena_take(&req->arena, path.len + query.len + 3);
    if (!location) {
        hsrv_content_say(req, 503);
        return;
    }
    char *out = hsrv_text_append(location, path);
    *out++ = '/';
    if (query.ptr) *out++ = '?';
    out = hsrv_text_append(out, query);
    *out = '\0';
    hsrv_response_redirect(req, 301, location);
}

// The escapes of HTML text and attributes.
static bool hsrv_content_add_escaped(hsrv_memory *memory, hsrv_buffer *page, const char *text) {
    bool ok = true;
    for (; *text && ok; text++) {
        const char *escape = *text == '&'    ? "&amp;"
                             : *text == '<'  ? "&lt;"
                             : *text == '>'  ? "&gt;"
                             : *text == '"'  ? "&quot;"
                             : *text == '\'' ? "&#39;"
                                             : NULL;
        ok = hsrv_memory_buffer_append(memory, page, escape ? escape : text, escape ? strlen(escape) : 1);
    }
    return ok;
}

// A name as a segment of a path: RFC 3986 section 2.3 stays, all else is escaped.
static bool hsrv_content_add_encoded(hsrv_memory *memory, hsrv_buffer *page, const char *text) {
    bool ok = true;
    for (; *text && ok; text++) {
        char escape[4];
        const char c = *text;
        const bool plain = (hsrv_text_lower(c) >= 'a' && hsrv_text_lower(c) <= 'z') || (c >= '0' && c <= '9') ||
                           c == '-' || c == '.' || c == '_' || c == '~';
        if (!plain) snprintf(escape, sizeof escape, "%%%02X", (unsigned)(unsigned char)c);
        ok = hsrv_memory_buffer_append(memory, page, plain ? text : escape, plain ? 1 : 3);
    }
    return ok;
}

#define HSRV_MAX_LISTED 10000 // names in a listing

// The names are gathered behind each other, each with a mark for directories in front.
static int hsrv_content_gather(const hsrv_mount *mount, DIR *list, hsrv_buffer *names) {
    bool is_directory, is_link;
    const char *name;
    int count = 0;
    while (count < HSRV_MAX_LISTED && (name = hsrv_sys_next_name(list, &is_directory, &is_link)) != NULL) {
        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) continue;
        if ((name[0] == '.' && !mount->config.dot_files) || (is_link && !mount->config.links)) continue;
        const char mark = is_directory ? '/' : ' ';
        if (!hsrv_memory_buffer_append(&mount->srv->memory, names, &mark, 1)) return -1;
        if (!hsrv_memory_buffer_append(&mount->srv->memory, names, name, strlen(name) + 1)) return -1;
        count++;
    }
    return count;
}

static int hsrv_content_compare_names(const void *a, const void *b) {
    return strcmp(*(const char *const *)a + 1, *(const char *const *)b + 1);
}

static bool hsrv_content_add_literal(hsrv_memory *memory, hsrv_buffer *page, const char *text) {
    return hsrv_memory_buffer_append(memory, page, text, strlen(text));
}

static bool hsrv_content_add_entry(hsrv_memory *memory, hsrv_buffer *page, const char *marked) {
    const char *slash = marked[0] == '/' ? "/" : "", *name = marked + 1;
    return hsrv_content_add_literal(memory, page, "<li><a href=\"./") && hsrv_content_add_encoded(memory, page, name) &&
           hsrv_content_add_literal(memory, page, slash) && hsrv_content_add_literal(memory, page, "\">") &&
           hsrv_content_add_escaped(memory, page, name) && hsrv_content_add_literal(memory, page, slash) &&
           hsrv_content_add_literal(memory, page, "</a>\n");
}

// A page with the names, sorted. False when out of memory.
static bool hsrv_content_make_listing(hsrv_memory *memory, hsrv_buffer *page, const char *names, int count) {
    const size_t size = (size_t)count * sizeof(const char *);
    const char **sorted = count > 0 ? (const char **)hsrv_memory_take(memory, size) : NULL;
    if (count > 0 && !sorted) return false;
    for (int i = 0; i < count; i++) {
        sorted[i] = names;
        names += strlen(names) + 1;
    }
    if (count > 0) qsort((void *)sorted, (size_t)count, sizeof *sorted, hsrv_content_compare_names);
    bool ok = hsrv_content_add_literal(memory, page,
                                       "<!doctype html>\n<meta charset=\"utf-8\">\n"
                                       "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
                                       "<title>Files</title>\n<ul>\n<li><a href=\"../\">../</a>\n");
    for (int i = 0; i < count && ok; i++) {
        ok = hsrv_content_add_entry(memory, page, sorted[i]);
    }
    if (sorted) hsrv_memory_give(memory, (void *)sorted, size);
    return ok && hsrv_content_add_literal(memory, page, "</ul>\n");
}

static void hsrv_content_list(const hsrv_mount *mount, httpsrv_req *req, const char *path) {
    hsrv_memory *memory = &mount->srv->memory;
    const int fd = hsrv_content_open_path(mount, path);
    DIR *list = fd >= 0 ? hsrv_sys_open_list(fd) : NULL;
    if (!list) {
        const int status = hsrv_content_status_of(errno);
        if (fd >= 0) hsrv_sys_close(fd);
        hsrv_content_say(req, status);
        return;
    }
    hsrv_buffer names, page;
    memset(&names, 0, sizeof names);
    memset(&page, 0, sizeof page);
    const int count = hsrv_content_gather(mount, list, &names);
    hsrv_sys_close_list(list);
    hsrv_content_set(req, HSRV_LITERAL("X-Content-Type-Options"), HSRV_LITERAL("nosniff"));
    if (count >= 0 && hsrv_content_make_listing(memory, &page, names.ptr, count))
        hsrv_response_reply(req, 200, "text/html; charset=utf-8", hsrv_text_view(page.ptr, page.len));
    else
        hsrv_content_say(req, 503);
    hsrv_memory_buffer_free(memory, &names);
    hsrv_memory_buffer_free(memory, &page);
}

// Answers for a path, with the name of an index at its end if it is that of a directory.
static void hsrv_content_serve_path(const hsrv_mount *mount, httpsrv_req *req, char *path, size_t len) {
    const bool directory = len == 0 || path[len - 1] == '/';
    const bool indexed = directory && mount->config.index[0];
    hsrv_cached own;
    const hsrv_cached *found;
    memset(&own, 0, sizeof own);
    if (indexed) strcpy(path + len, mount->config.index);
    int status = directory && !indexed ? 404 : hsrv_content_lookup(mount, req, path, &own, &found);
    if (status == 200) {
        hsrv_content_send_file(mount, req, found);
        hsrv_content_drop_files(&own);
        return;
    }
    if (directory && status == 301) status = 404; // a directory that has the index's name
    path[directory && len > 0 ? len - 1 : len] = '\0';
    if (status == 301)
        hsrv_content_add_slash(req);
    else if (directory && status == 404 && mount->config.list)
        hsrv_content_list(mount, req, path);
    else
        hsrv_content_say(req, status);
}

// The handler of what is beneath a prefix.
static void hsrv_content_serve_files(httpsrv_req *req, void *user) {
    const hsrv_mount *mount = (const hsrv_mount *)user;
    const httpsrv_str rest = req->num_params > 0 ? req->params[0] : HSRV_LITERAL("");
    char path[PATH_MAX];
    if (!hsrv_content_path_allowed(mount, req->path, rest)) {
        hsrv_content_say(req, 404);
        return;
    }
    *hsrv_text_append(path, rest) = '\0';
    hsrv_content_serve_path(mount, req, path, rest.len);
}

// The handler of the prefix itself, without a slash.
static void hsrv_content_serve_prefix(httpsrv_req *req, void *user) {
    (void)user;
    hsrv_content_add_slash(req);
}

static httpsrv_result hsrv_content_reply_file(httpsrv_req *req, const char *path, const char *type) {
    struct stat status;
    if (req->answered != HSRV_ANSWER_NONE) return hsrv_response_reply(req, 200, NULL, HSRV_LITERAL(""));
    if (type && !hsrv_text_is_value(hsrv_text_of(type))) return HTTPSRV_ARG;
    const int fd = hsrv_sys_open_file(path);
    if (fd < 0) return HTTPSRV_SYS;
    if (hsrv_sys_fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) {
        hsrv_sys_close(fd);
        return HTTPSRV_ARG;
    }
    hsrv_file *file = hsrv_content_new_file(&req->srv->memory, fd, &status);
    if (!file) return HTTPSRV_NOMEM;
    hsrv_resource r;
    memset(&r, 0, sizeof r);
    r.file = file;
    r.type = type ? type : hsrv_content_type_of(NULL, hsrv_text_of(path));
    r.etag = hsrv_text_view(file->etag, file->etag_len);
    r.mtime = hsrv_content_modified(file);
    r.size = file->size;
    const hsrv_answer before = req->answer;
    const httpsrv_result result = hsrv_content_send(req, &r);
    hsrv_output_unuse_file(file);
    if (result == HTTPSRV_OK || req->answered != HSRV_ANSWER_NONE) return result;
    req->answer = before;
    *req->answer.headers_end = NULL;
    return result;
}

// ---- serving what is compiled in ----

static int hsrv_content_compare_assets(const void *a, const void *b) {
    return strcmp(((const hsrv_prepared *)a)->asset->path, ((const hsrv_prepared *)b)->asset->path);
}

static const hsrv_prepared *hsrv_content_find_asset(const hsrv_mount *mount, const char *path) {
    size_t low = 0, high = mount->num_assets;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        const int order = strcmp(path, mount->assets[middle].asset->path);
        if (order == 0) return &mount->assets[middle];
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

// A tag made of a content: FNV-1a, 64 bits.
static httpsrv_str hsrv_content_hash_etag(char text[24], const void *data, size_t len) {
    uint64_t hash = 14695981039346656037u;
    for (size_t i = 0; i < len; i++) {
        hash = (hash ^ ((const unsigned char *)data)[i]) * 1099511628211u;
    }
    char *out = text;
    *out++ = '"';
    out = hsrv_text_format_hex(out, hash);
    *out++ = '"';
    return hsrv_text_view(text, (size_t)(out - text));
}

static void hsrv_content_prepare_asset(hsrv_prepared *prepared, const httpsrv_asset *asset) {
    prepared->asset = asset;
    prepared->etag =
        asset->etag ? hsrv_text_of(asset->etag) : hsrv_content_hash_etag(prepared->texts[0], asset->data, asset->len);
    if (asset->gzip) prepared->gzip_etag = hsrv_content_hash_etag(prepared->texts[1], asset->gzip, asset->gzip_len);
}

static void hsrv_content_serve_asset(httpsrv_req *req, void *user) {
    const hsrv_mount *mount = (const hsrv_mount *)user;
    const httpsrv_str rest = req->num_params > 0 ? req->params[0] : HSRV_LITERAL("");
    char path[1024] = "/";
    const hsrv_prepared *found = NULL;
    bool directory = false;
    if (rest.len < sizeof path - 16 && !hsrv_content_hides_slash(req->path)) {
        char *end = hsrv_text_append(path + 1, rest);
        *end = '\0';
        if (end[-1] == '/') strcpy(end, "index.html");
        found = hsrv_content_find_asset(mount, path);
        if (!found && end[-1] != '/') {
            strcpy(end, "/index.html");
            directory = hsrv_content_find_asset(mount, path) != NULL;
        }
    }
    if (directory) hsrv_content_add_slash(req);
    if (!found && !directory) hsrv_content_say(req, 404);
    if (!found) return;
    const httpsrv_asset *asset = found->asset;
    const int liked = asset->gzip ? hsrv_request_weight(req, "gzip") : 0;
    const bool gzip = liked > 0 && hsrv_request_weight(req, "identity") <= liked;
    hsrv_resource r;
    memset(&r, 0, sizeof r);
    r.type = asset->type ? asset->type : hsrv_content_type_of(NULL, hsrv_text_of(path));
    r.etag = gzip ? found->gzip_etag : found->etag;
    r.mtime = INT64_MIN;
    r.size = (int64_t)(gzip ? asset->gzip_len : asset->len);
    r.data = (const char *)(gzip ? asset->gzip : asset->data);
    r.coding = gzip ? "gzip" : NULL;
    r.varies = asset->gzip != NULL;
    hsrv_content_answer(req, &r);
}

// The prefix itself, without a slash, is that of its index.
static void hsrv_content_serve_asset_prefix(httpsrv_req *req, void *user) {
    if (hsrv_content_find_asset((const hsrv_mount *)user, "/index.html"))
        hsrv_content_add_slash(req);
    else
        hsrv_content_say(req, 404);
}

// ---- life of mounts: [setup] ----

static void hsrv_content_free_mount(hsrv_mount *mount) {
    hsrv_memory *memory = &mount->srv->memory;
    for (int i = 0; mount->caches && i < mount->srv->config.reactors; i++) {
        hsrv_cache *cache = &mount->caches[i];
        for (int k = 0; cache->entries && k < mount->config.max_open; k++) {
            hsrv_content_forget(mount, &cache->entries[k]);
        }
        hsrv_memory_give(memory, cache->entries, (size_t)mount->config.max_open * sizeof(hsrv_cached));
    }
    hsrv_memory_give(memory, mount->caches, (size_t)mount->srv->config.reactors * sizeof(hsrv_cache));
    hsrv_memory_give(memory, mount->assets, mount->num_assets * sizeof(hsrv_prepared) + 1);
    hsrv_memory_give_text(memory, mount->place);
    hsrv_memory_give_text(memory, (char *)(uintptr_t)mount->config.index);
    hsrv_memory_give_text(memory, (char *)(uintptr_t)mount->config.cache_control);
    hsrv_loop_close_fd(&mount->root);
    hsrv_memory_give(memory, mount, sizeof *mount);
}

// Opens the root and finds out where it is.
static bool hsrv_content_open_root(hsrv_mount *mount, const char *root) {
    char path[PATH_MAX];
    mount->root = hsrv_sys_open_root(root);
    const ssize_t len = mount->root >= 0 ? hsrv_sys_path_of(mount->root, path, sizeof path - 1) : 0;
    if (mount->root < 0) return false;
    path[len > 0 ? len : 0] = '\0';
    mount->place = hsrv_memory_copy_text(&mount->srv->memory, path);
    return mount->place != NULL;
}

// NULL with *result NOMEM or SYS (errno is set).
static hsrv_mount *hsrv_content_mount_files(httpsrv *srv, const httpsrv_files_config *config, httpsrv_result *result) {
    hsrv_mount *mount = (hsrv_mount *)hsrv_memory_take_zeroed(&srv->memory, sizeof *mount);
    *result = HTTPSRV_NOMEM;
    if (!mount) return NULL;
    mount->srv = srv;
    mount->config = *config;
    mount->config.index = hsrv_memory_copy_text(&srv->memory, config->index ? config->index : "index.html");
    mount->config.cache_control =
        config->cache_control ? hsrv_memory_copy_text(&srv->memory, config->cache_control) : NULL;
    mount->caches =
        (hsrv_cache *)hsrv_memory_take_zeroed(&srv->memory, (size_t)srv->config.reactors * sizeof(hsrv_cache));
    const bool copied = mount->config.index && mount->caches && (mount->config.cache_control || !config->cache_control);
    if (copied) *result = HTTPSRV_SYS;
    if (copied && hsrv_content_open_root(mount, config->root)) {
        *result = HTTPSRV_OK;
        return mount;
    }
    const int err = errno;
    hsrv_content_free_mount(mount);
    errno = err;
    return NULL;
}

// NULL when out of memory.
static hsrv_mount *hsrv_content_mount_assets(httpsrv *srv, const httpsrv_asset *table) {
    size_t count = 0;
    while (table[count].path) {
        count++;
    }
    hsrv_mount *mount = (hsrv_mount *)hsrv_memory_take_zeroed(&srv->memory, sizeof *mount);
    if (!mount) return NULL;
    mount->srv = srv;
    mount->root = -1;
    mount->num_assets = count;
    mount->assets = (hsrv_prepared *)hsrv_memory_take_zeroed(&srv->memory, count * sizeof(hsrv_prepared) + 1);
    if (!mount->assets) {
        mount->num_assets = 0;
        hsrv_content_free_mount(mount);
        return NULL;
    }
    for (size_t i = 0; i < count; i++) {
        mount->assets[i].asset = &table[i];
    }
    if (count > 1) qsort(mount->assets, count, sizeof(hsrv_prepared), hsrv_content_compare_assets);
    for (size_t i = 0; i < count; i++) {
        hsrv_content_prepare_asset(&mount->assets[i], mount->assets[i].asset);
    }
    return mount;
}

// ---- filters ----

static void hsrv_content_add_field(httpsrv_req *req, const char *name, const char *value) {
    if (value && value[0]) hsrv_response_add(req, hsrv_text_of(name), hsrv_text_of(value));
}

static void hsrv_content_set_field(httpsrv_req *req, const char *name, const char *value) {
    if (value && value[0]) hsrv_response_set(req, hsrv_text_of(name), hsrv_text_of(value));
}

// -- cross-origin requests --

// What Access-Control-Allow-Origin says; absent if the origin may not ask.
static httpsrv_str hsrv_content_cors_origin(const httpsrv_cors_config *config, httpsrv_str origin) {
    if (!config->origins) return config->credentials ? hsrv_text_absent() : hsrv_text_of("*");
    for (const char *const *allowed = config->origins; *allowed; allowed++) {
        if (hsrv_text_equal(hsrv_text_of(*allowed), origin)) return origin;
    }
    return hsrv_text_absent();
}

static httpsrv_verdict hsrv_content_cors_preflight(httpsrv_req *req, const httpsrv_cors_config *config) {
    char max_age[24];
    const httpsrv_str asked = hsrv_request_field(&req->head, hsrv_text_of("access-control-request-headers"));
    const char *methods = config->methods ? config->methods : "GET, HEAD, POST, PUT, PATCH, DELETE";
    hsrv_content_set_field(req, "Access-Control-Allow-Methods", methods);
    if (config->headers)
        hsrv_content_set_field(req, "Access-Control-Allow-Headers", config->headers);
    else if (asked.len > 0)
        hsrv_response_set(req, hsrv_text_of("Access-Control-Allow-Headers"), asked);
    const int seconds = config->max_age == 0 ? 600 : config->max_age;
    *hsrv_text_format_number(max_age, seconds > 0 ? (uint64_t)seconds : 0) = '\0';
    hsrv_content_set_field(req, "Access-Control-Max-Age", max_age);
    hsrv_content_add_field(req, "Vary", "Access-Control-Request-Method, Access-Control-Request-Headers");
    hsrv_response_reply(req, 204, NULL, HSRV_LITERAL(""));
    return HTTPSRV_DONE;
}

static httpsrv_verdict hsrv_content_cors(httpsrv_req *req, const httpsrv_cors_config *config) {
    const httpsrv_str origin = hsrv_request_field(&req->head, hsrv_text_of("origin"));
    if (config->origins) hsrv_content_add_field(req, "Vary", "Origin");
    if (!origin.ptr) return HTTPSRV_NEXT;
    const httpsrv_str allowed = hsrv_content_cors_origin(config, origin);
    if (!allowed.ptr) return HTTPSRV_NEXT;
    hsrv_response_set(req, hsrv_text_of("Access-Control-Allow-Origin"), allowed);
    if (config->credentials) hsrv_content_set_field(req, "Access-Control-Allow-Credentials", "true");
    const httpsrv_str method = hsrv_request_field(&req->head, hsrv_text_of("access-control-request-method"));
    if (req->head.method_id == HTTPSRV_METHOD_OPTIONS && method.ptr) return hsrv_content_cors_preflight(req, config);
    hsrv_content_set_field(req, "Access-Control-Expose-Headers", config->expose);
    return HTTPSRV_NEXT;
}

// -- basic authentication --

static const char hsrv_content_auth_key = 0, hsrv_content_id_key = 0; // their addresses are keys of hsrv_request_put

// Whether two texts are the same, in a time that tells no more than their lengths.
static bool hsrv_content_same(httpsrv_str a, httpsrv_str b) {
    unsigned differ = a.len != b.len;
    for (size_t i = 0; i < a.len; i++) {
        differ |= (unsigned)(unsigned char)a.ptr[i] ^ (unsigned)(unsigned char)(b.len > 0 ? b.ptr[i % b.len] : 0);
    }
    return differ == 0;
}

// All accounts are looked at, whichever fits.
static bool hsrv_content_has_account(const httpsrv_account *accounts, httpsrv_str name, httpsrv_str password) {
    unsigned found = 0;
    for (const httpsrv_account *account = accounts; account && account->name; account++) {
        const unsigned names = hsrv_content_same(name, hsrv_text_of(account->name));
        const unsigned passwords = hsrv_content_same(password, hsrv_text_of(account->password));
        if (account->password) found |= names & passwords;
    }
    return found != 0;
}

// Whoever the Authorization field says, if it may be believed; absent otherwise. RFC 7617 section 2.
static httpsrv_str hsrv_content_authenticate(httpsrv_req *req, const httpsrv_basic_auth_config *config) {
    const httpsrv_str field = hsrv_request_field(&req->head, hsrv_text_of("authorization"));
    if (field.len < 6 || !hsrv_text_equal_nocase(hsrv_text_view(field.ptr, 6), hsrv_text_of("basic "))) {
        return hsrv_text_absent();
    }
    const httpsrv_str encoded = hsrv_text_trim(hsrv_text_view(field.ptr + 6, field.len - 6));
    char *plain = (char *)hsrv_memory_arena_take(&req->arena, encoded.len + 1);
    const ptrdiff_t len = plain ? hsrv_text_base64_decode(plain, encoded) : -1;
    const char *colon = len > 0 ? (const char *)memchr(plain, ':', (size_t)len) : NULL;
    if (!colon) return hsrv_text_absent();
    const httpsrv_str name = hsrv_text_view(plain, (size_t)(colon - plain));
    const httpsrv_str password = hsrv_text_view(colon + 1, (size_t)len - name.len - 1);
    const bool known = config->check ? config->check(name, password, config->user)
                                     : hsrv_content_has_account(config->accounts, name, password);
    return known ? name : hsrv_text_absent();
}

static httpsrv_verdict hsrv_content_basic_auth(httpsrv_req *req, const httpsrv_basic_auth_config *config) {
    char challenge[256];
    const httpsrv_str name = hsrv_content_authenticate(req, config);
    httpsrv_str *kept = name.ptr ? (httpsrv_str *)hsrv_memory_arena_take(&req->arena, sizeof *kept) : NULL;
    if (kept) {
        *kept = name;
        if (hsrv_request_put(req, &hsrv_content_auth_key, kept) == HTTPSRV_OK) return HTTPSRV_NEXT;
    }
    snprintf(challenge, sizeof challenge, "Basic realm=\"%.200s\", charset=\"UTF-8\"",
             config->realm ? config->realm : "restricted");
    hsrv_response_set(req, hsrv_text_of("WWW-Authenticate"), hsrv_text_of(challenge));
    hsrv_response_reply(req, 401, "text/plain", hsrv_text_of("401 Unauthorized\n"));
    return HTTPSRV_DONE;
}

// -- security --

static void hsrv_content_set_default(httpsrv_req *req, const char *name, const char *value, const char *fallback) {
    hsrv_content_set_field(req, name, value ? value : fallback);
}

static httpsrv_verdict hsrv_content_security_headers(httpsrv_req *req, const httpsrv_security_config *config) {
    char hsts[64] = "max-age=";
    httpsrv_security_config defaults;
    memset(&defaults, 0, sizeof defaults);
    if (!config) config = &defaults;
    hsrv_content_set_field(req, "X-Content-Type-Options", "nosniff");
    hsrv_content_set_default(req, "X-Frame-Options", config->frame_options, "DENY");
    hsrv_content_set_default(req, "Referrer-Policy", config->referrer_policy, "no-referrer");
    hsrv_content_set_default(req, "Content-Security-Policy", config->content_security_policy, "default-src 'self'");
    if (config->hsts <= 0) return HTTPSRV_NEXT;
    *hsrv_text_format_number(hsts + 8, (uint64_t)config->hsts) = '\0';
    hsrv_content_set_field(req, "Strict-Transport-Security", hsts);
    return HTTPSRV_NEXT;
}

// -- rates --

#define HSRV_RATE_SETS  1024u // a power of two
#define HSRV_RATE_WAYS  4u
#define HSRV_RATE_LOCKS 16u // a power of two

// How much an address may still ask: a bucket that fills with time.
typedef struct hsrv_rate {
    const httpsrv_rate_config *config; // NULL: free
    unsigned char key[16];
    uint64_t stamp; // ms: when it was looked at last
    int64_t credit; // thousandths of requests
} hsrv_rate;

// Shared by all threads; a lock for each stripe of the sets.
typedef struct hsrv_rate_table {
    pthread_mutex_t locks[HSRV_RATE_LOCKS];
    uint64_t secret[2]; // in the hash: nobody can choose addresses that share a set
    hsrv_rate sets[HSRV_RATE_SETS][HSRV_RATE_WAYS];
} hsrv_rate_table;

static hsrv_rate_table *hsrv_content_new_rates(hsrv_memory *memory) {
    hsrv_rate_table *table = (hsrv_rate_table *)hsrv_memory_take_zeroed(memory, sizeof *table);
    if (!table) return NULL;
    hsrv_sys_random(table->secret, sizeof table->secret);
    for (size_t i = 0; i < HSRV_RATE_LOCKS; i++) {
        pthread_mutex_init(&table->locks[i], NULL);
    }
    return table;
}

static void hsrv_content_free_rates(hsrv_memory *memory, hsrv_rate_table *table) {
    for (size_t i = 0; i < HSRV_RATE_LOCKS; i++) {
        pthread_mutex_destroy(&table->locks[i]);
    }
    hsrv_memory_give(memory, table, sizeof *table);
}

// The table of a server, made when it is first used. NULL when out of memory.
static hsrv_rate_table *hsrv_content_rates(httpsrv *srv) {
    hsrv_rate_table *table = __atomic_load_n(&srv->rates, __ATOMIC_ACQUIRE), *none = NULL;
    if (table) return table;
    table = hsrv_content_new_rates(&srv->memory);
    if (!table) return NULL;
    if (__atomic_compare_exchange_n(&srv->rates, &none, table, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) return table;
    hsrv_content_free_rates(&srv->memory, table); // somebody else was quicker
    return none;
}

// The entry of an address in its set, or the one that was not used for longest, made new.
static hsrv_rate *hsrv_content_find_rate(hsrv_rate set[HSRV_RATE_WAYS], const httpsrv_rate_config *config,
                                         const unsigned char key[16], uint64_t now, int64_t full) {
    hsrv_rate *oldest = set;
    for (size_t i = 0; i < HSRV_RATE_WAYS; i++) {
        if (set[i].config == config && memcmp(set[i].key, key, 16) == 0) return &set[i];
        if (!set[i].config || (oldest->config && set[i].stamp < oldest->stamp)) oldest = &set[i];
    }
    oldest->config = config;
    memcpy(oldest->key, key, 16);
    oldest->stamp = now;
    oldest->credit = full;
    return oldest;
}

// Takes one request off an entry. 0, or the seconds until there is one.
static int64_t hsrv_content_spend_rate(hsrv_rate *rate, int64_t per_second, uint64_t now, int64_t full) {
    const uint64_t since = now > rate->stamp ? now - rate->stamp : 0;
    const bool long_ago = since > (uint64_t)(full / per_second) + 1;
    rate->credit = long_ago ? full : rate->credit + (int64_t)since * per_second;
    if (rate->credit > full) rate->credit = full;
    rate->stamp = now;
    if (rate->credit >= 1000) {
        rate->credit -= 1000;
        return 0;
    }
    return (1000 - rate->credit + per_second * 1000 - 1) / (per_second * 1000);
}

static int64_t hsrv_content_ask_rate(const httpsrv_req *req, hsrv_rate_table *table,
                                     const httpsrv_rate_config *config) {
    const int64_t per_second = config->per_second > 0 ? config->per_second : 10;
    const int64_t full = 1000 * (config->burst > 0 ? config->burst : 2 * per_second);
    const uint64_t now = hsrv_sys_monotonic_ms();
    unsigned char key[16];
    uint64_t halves[2];
    hsrv_conn_tally_key(req->peer, key);
    memcpy(halves, key, sizeof halves);
    halves[0] ^= (uint64_t)(uintptr_t)config;
    const size_t set = hsrv_conn_hash_address(halves, table->secret) & (HSRV_RATE_SETS - 1);
    pthread_mutex_t *lock = &table->locks[set & (HSRV_RATE_LOCKS - 1)];
    pthread_mutex_lock(lock);
    hsrv_rate *rate = hsrv_content_find_rate(table->sets[set], config, key, now, full);
    const int64_t wait = hsrv_content_spend_rate(rate, per_second, now, full);
    pthread_mutex_unlock(lock);
    return wait;
}

static httpsrv_verdict hsrv_content_rate_limit(httpsrv_req *req, const httpsrv_rate_config *config) {
    char text[24];
    hsrv_rate_table *table = hsrv_content_rates(req->srv);
    const int64_t wait = table ? hsrv_content_ask_rate(req, table, config) : 0;
    if (wait == 0) return HTTPSRV_NEXT;
    *hsrv_text_format_number(text, (uint64_t)wait) = '\0';
    hsrv_content_add_field(req, "Retry-After", text);
    hsrv_response_reply(req, 429, "text/plain", hsrv_text_of("429 Too Many Requests\n"));
    return HTTPSRV_DONE;
}

// -- ids --

static bool hsrv_content_id_valid(httpsrv_str id) {
    for (size_t i = 0; i < id.len; i++) {
        const char c = hsrv_text_lower(id.ptr[i]);
        if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') && c != '-' && c != '_' && c != '.') return false;
    }
    return id.len > 0 && id.len <= 64;
}

static httpsrv_str hsrv_content_make_id(httpsrv_req *req) {
    unsigned char random[16];
    char *id = (char *)hsrv_memory_arena_take(&req->arena, 2 * sizeof random);
    if (!id || hsrv_sys_random(random, sizeof random) != (ssize_t)sizeof random) return hsrv_text_absent();
    for (size_t i = 0; i < sizeof random; i++) {
        id[2 * i] = "0123456789abcdef"[random[i] >> 4];
        id[2 * i + 1] = "0123456789abcdef"[random[i] & 15];
    }
    return hsrv_text_view(id, 2 * sizeof random);
}

static httpsrv_verdict hsrv_content_request_id(httpsrv_req *req) {
    const httpsrv_str given = hsrv_request_field(&req->head, hsrv_text_of("x-request-id"));
    const httpsrv_str id =
        hsrv_content_id_valid(given) ? hsrv_memory_arena_copy(&req->arena, given) : hsrv_content_make_id(req);
    httpsrv_str *kept = (httpsrv_str *)hsrv_memory_arena_take(&req->arena, sizeof *kept);
    if (!kept || !id.ptr) return HTTPSRV_NEXT;
    *kept = id;
    hsrv_request_put(req, &hsrv_content_id_key, kept);
    hsrv_response_set(req, hsrv_text_of("X-Request-Id"), id);
    return HTTPSRV_NEXT;
}

static httpsrv_str hsrv_content_kept(const httpsrv_req *req, const char *key) {
    const httpsrv_str *kept = (const httpsrv_str *)hsrv_request_get(req, key);
    return kept ? *kept : hsrv_text_absent();
}

// ===========================================================================================
// >>session   Server-sent events.    owns: nothing    thread: loop; send, publish: any    uses: >>frames >>response
// ===========================================================================================

// ---- news on their way: [any] ----

static void hsrv_session_unuse(hsrv_news *news) {
    if (__atomic_sub_fetch(&news->uses, 1u, __ATOMIC_ACQ_REL) == 0) hsrv_memory_give(news->memory, news, news->size);
}

static void hsrv_session_release_news(void *arg) {
    hsrv_session_unuse((hsrv_news *)arg);
}

// A block with room for an event, if there is one, and for a copy for each of so many loops. NULL when out of memory.
static hsrv_news *hsrv_session_new_news(hsrv_memory *memory, const httpsrv_event *event, httpsrv_str channel,
                                        int copies) {
    const size_t room = event ? hsrv_frames_event_size(event) : 0;
    const size_t fixed = sizeof(hsrv_news) + (size_t)copies * sizeof(hsrv_copy) + HSRV_CHUNK_HEAD + HSRV_CHUNK_TAIL;
    if ((event && room == 0) || channel.len > (size_t)PTRDIFF_MAX / 4) return NULL;
    const size_t size = fixed + room + channel.len;
    hsrv_news *news = (hsrv_news *)hsrv_memory_take(memory, size);
    if (!news) return NULL;
    memset(news, 0, sizeof *news);
    news->memory = memory;
    news->size = size;
    news->uses = (uint32_t)copies;
    char *name = (char *)((hsrv_copy *)(void *)(news + 1) + copies), *text = name + channel.len + HSRV_CHUNK_HEAD;
    hsrv_text_append(name, channel);
    news->channel = hsrv_text_view(name, channel.len);
    if (!event) return news;
    char *end = hsrv_frames_format_event(text, event);
    news->text = hsrv_text_view(text, (size_t)(end - text));
    memcpy(end, "\r\n", HSRV_CHUNK_TAIL);
    const char *head = hsrv_output_chunk_head(text, news->text.len);
    news->chunk = hsrv_text_view(head, (size_t)(end + HSRV_CHUNK_TAIL - head));
    return news;
}

static void hsrv_session_post(hsrv_news *news, hsrv_loop *loop, int number) {
    hsrv_copy *copy = (hsrv_copy *)(void *)(news + 1) + number;
    copy->message.kind = HSRV_MESSAGE_NEWS;
    copy->news = news;
    hsrv_loop_post(loop, &copy->message);
}

// To one reader: an event, or the end (NULL).
static httpsrv_result hsrv_session_send(httpsrv *srv, httpsrv_token token, const httpsrv_event *event) {
    if (!HSRV_LATER) return HTTPSRV_UNSUPPORTED;
    if (event && !hsrv_frames_event_valid(event)) return HTTPSRV_ARG;
    hsrv_place *place = hsrv_request_find_place(srv, token);
    const uint32_t cell = place ? __atomic_load_n(&place->cell, __ATOMIC_RELAXED) : 0, state = cell & 3u;
    if (!place || cell >> 2 != (uint32_t)(token.id >> 32)) return HTTPSRV_GONE;
    if (state == HSRV_PLACE_OPEN) return HTTPSRV_STATE;
    if (state != HSRV_PLACE_CLAIMED) return HTTPSRV_GONE;
    if (__atomic_load_n(&place->events, __ATOMIC_RELAXED) != cell >> 2) return HTTPSRV_STATE;
    hsrv_news *news = hsrv_session_new_news(&srv->memory, event, HSRV_LITERAL(""), 1);
    if (!news) return HTTPSRV_NOMEM;
    news->token = token;
    news->ends = !event;
    if (news->ends && !hsrv_request_swap(place, cell >> 2, HSRV_PLACE_CLAIMED, HSRV_PLACE_DOOMED)) {
        hsrv_session_unuse(news);
        return HTTPSRV_GONE; // somebody else has ended it
    }
    hsrv_session_post(news, srv->wake[(uint32_t)token.id >> HSRV_LOOP_SHIFT], 0);
    return HTTPSRV_OK;
}

static httpsrv_result hsrv_session_publish(httpsrv *srv, httpsrv_str channel, const httpsrv_event *event) {
    if (!HSRV_LATER) return HTTPSRV_UNSUPPORTED;
    if (!hsrv_frames_event_valid(event)) return HTTPSRV_ARG;
    if (__atomic_load_n(&srv->live, __ATOMIC_ACQUIRE) == 0) return HTTPSRV_STATE;
    hsrv_news *news = hsrv_session_new_news(&srv->memory, event, channel, srv->config.reactors);
    if (!news) return HTTPSRV_NOMEM;
    for (int i = 0; i < srv->config.reactors; i++) {
        hsrv_session_post(news, srv->loops[i], i);
    }
    return HTTPSRV_OK;
}

// ---- a stream of events begins: [holder] ----

static bool hsrv_session_want_channel(httpsrv_req *req, httpsrv_str name) {
    if (name.len > (size_t)PTRDIFF_MAX / 4) return false;
    hsrv_channel *channel = (hsrv_channel *)hsrv_memory_take(&req->srv->memory, sizeof *channel + name.len);
    if (!channel) return false;
    memset(channel, 0, sizeof *channel);
    channel->name_len = name.len;
    hsrv_text_append((char *)(channel + 1), name);
    req->stream.used = true;
    req->stream.wanted = channel;
    return true;
}

static void hsrv_session_unwant(httpsrv_req *req) {
    if (req->stream.wanted) hsrv_loop_free_channel(req->loop, req->stream.wanted);
    req->stream.wanted = NULL;
    req->stream.sends_events = false;
}

// The loop has been told of the stream, or began it itself: from here on it gets events. [loop]
static void hsrv_session_open(hsrv_loop *loop, httpsrv_req *req) {
    hsrv_stream *s = &req->stream;
    if (!s->sends_events || s->events || s->silent) return;
    s->events = true;
    if (s->wanted) hsrv_loop_join_channel(loop, req, s->wanted);
    s->wanted = NULL;
}

static httpsrv_token hsrv_session_begin(httpsrv_req *req, httpsrv_str channel) {
    httpsrv_token token;
    token.id = 0;
    if (!HSRV_LATER || req->answered != HSRV_ANSWER_NONE) return token;
    const hsrv_answer before = req->answer;
    httpsrv_result result = hsrv_response_set(req, hsrv_text_of("Cache-Control"), hsrv_text_of("no-store"));
    if (result == HTTPSRV_OK && channel.ptr && !hsrv_session_want_channel(req, channel)) result = HTTPSRV_NOMEM;
    req->stream.sends_events = true;
    if (result == HTTPSRV_OK) result = hsrv_response_begin(req, 200, "text/event-stream", -1);
    if (result != HTTPSRV_OK) {
        hsrv_session_unwant(req);
        if (req->answered != HSRV_ANSWER_NONE) return token;
        req->answer = before;
        *req->answer.headers_end = NULL;
        return token;
    }
    if (req->inline_conn) hsrv_session_open(req->loop, req);
    token = hsrv_response_defer(req);
    // Nobody else has the token yet.
    __atomic_store_n(&req->place->events, hsrv_request_generation(req), __ATOMIC_RELAXED);
    if (req->stream.silent) hsrv_response_end(req);
    return token;
}

// ---- events arrive: [loop] ----

// Queues bytes that are borrowed from the news, unless they can be sent at once.
static httpsrv_result hsrv_session_queue(hsrv_loop *loop, hsrv_conn *c, hsrv_news *news, httpsrv_str bytes) {
    __atomic_fetch_add(&c->req->stream.out_queued, bytes.len, __ATOMIC_SEQ_CST);
    hsrv_emit_add(c, bytes.len);
    if (bytes.len <= (c->out.first ? HSRV_SMALL_SEGMENT : HTTPSRV_WRITE_BUFFER) && bytes.len <= HTTPSRV_WRITE_BUFFER) {
        char *out = hsrv_conn_reserve(loop, c, bytes.len);
        out = hsrv_text_append(out, bytes);
        loop->output_len = (size_t)(out - loop->output);
        return HTTPSRV_OK;
    }
    hsrv_segment *segment = hsrv_output_new(&loop->srv->memory, 0);
    if (!segment) return HTTPSRV_NOMEM;
    __atomic_fetch_add(&news->uses, 1u, __ATOMIC_RELAXED);
    segment->ptr = bytes.ptr;
    segment->len = bytes.len;
    segment->release = hsrv_session_release_news;
    segment->release_arg = news;
    hsrv_conn_keep_output(loop, c, 0);
    hsrv_output_append(&c->out, segment);
    return HTTPSRV_OK;
}

// Ends a client that cannot have its events. What it has not taken is lost, and it can tell.
static void hsrv_session_drop(hsrv_loop *loop, hsrv_conn *c, httpsrv_log_item item) {
    hsrv_loop_note(loop, item, c, 0);
    hsrv_sys_reset_on_close(c->fd);
    hsrv_conn_close(loop, c);
}

// Sends an event to a client that has taken enough of those before.
static void hsrv_session_deliver(hsrv_loop *loop, hsrv_conn *c, hsrv_news *news) {
    const hsrv_stream *s = &c->req->stream;
    const bool chunked = c->req->answer.framing == HSRV_FRAMING_CHUNKED;
    const size_t queued = __atomic_load_n(&s->out_queued, __ATOMIC_RELAXED);
    if (queued >= (size_t)loop->srv->config.write_mark.high)
        hsrv_session_drop(loop, c, HTTPSRV_LOG_EVENTS_UNREAD);
    else if (hsrv_session_queue(loop, c, news, chunked ? news->chunk : news->text) != HTTPSRV_OK)
        hsrv_session_drop(loop, c, HTTPSRV_LOG_NO_MEMORY);
}

// A comment, so that everybody on the way knows that the connection is alive. Finds out about clients that are gone.
static void hsrv_session_show_life(hsrv_loop *loop, hsrv_conn *c) {
    c->stamp = (uint32_t)loop->now;
    if (hsrv_emit_piece(loop, c, hsrv_text_of(":\n\n")) != HTTPSRV_OK)
        hsrv_session_drop(loop, c, HTTPSRV_LOG_NO_MEMORY);
}

// ===========================================================================================
// >>dispatch  Which handler, where; the server's own answers.    owns: nothing    thread: loop; job entry worker
//             uses: >>router >>response >>session
// ===========================================================================================

// Puts those who want to know of its end behind an answer.
static void hsrv_dispatch_mark_end(hsrv_loop *loop, hsrv_conn *c) {
    httpsrv_req *req = c->req;
    hsrv_conn_keep_output(loop, c, 0);
    while (req->dones) {
        hsrv_done *done = req->dones;
        req->dones = done->next;
        done->outcome.status = req->status_sent;
        done->outcome.bytes = req->bytes_sent;
        hsrv_output_append(&c->out, &done->segment);
    }
    req->dones_end = &req->dones;
}

// What follows an answer that is queued: the next request, the rest of this one's body, or the end.
static void hsrv_dispatch_answered(hsrv_loop *loop, hsrv_conn *c) {
    httpsrv_req *req = c->req;
    if (req && !req->away && HSRV_UNLIKELY(req->dones != NULL)) hsrv_dispatch_mark_end(loop, c);
    const bool complete = req && req->parser.phase == HTTPSRV_PHASE_DONE;
    if (req && !req->away && req->answered_twice) hsrv_loop_note(loop, HTTPSRV_LOG_ANSWERED_TWICE, c, 0);
    c->stamp = (uint32_t)loop->now;
    c->discarded = 0;
    if (complete && !req->head.keep_alive && req->parser.total == 0 && req->status_sent < 400)
        c->flags |= HSRV_CONN_PARTED;
    if (c->flags & HSRV_CONN_ENDING)
        c->state = HSRV_CONN_LAST;
    else
        c->state = complete ? HSRV_CONN_IDLE : HSRV_CONN_DISCARD;
    if (c->state == HSRV_CONN_DISCARD) return;
#ifdef HTTPSRV_DEBUG
    if (req && req->raw && !req->leaves_buffer && req->raw != loop->again.bytes)
        memset((char *)(uintptr_t)req->raw, 0xdd, req->raw_len);
#endif
    hsrv_conn_drop_request(loop, c);
}

// The server's own answers: text/plain, "404 Not Found". `extra` is one more field, or absent.
static void hsrv_dispatch_say(hsrv_loop *loop, hsrv_conn *c, int status, const hsrv_manner *how, httpsrv_str extra,
                              httpsrv_str value) {
    char text[64];
    hsrv_header header;
    hsrv_answer answer;
    memset(&answer, 0, sizeof answer);
    header.name = extra;
    header.value = value;
    answer.status = status;
    const bool filtered = c->req && c->req->route == &loop->srv->no_route; // filters may have set fields
    hsrv_header *others = filtered ? c->req->answer.headers : NULL;
    header.next = others;
    answer.own_server = filtered && c->req->answer.own_server;
    answer.own_date = filtered && c->req->answer.own_date;
    answer.own_type = filtered && c->req->answer.own_type;
    answer.headers = extra.ptr ? &header : others;
    answer.type = hsrv_text_of("text/plain");
    char *end = hsrv_text_format_number(text, (uint64_t)status);
    *end++ = ' ';
    end = hsrv_text_append(end, hsrv_text_phrase(status));
    *end++ = '\n';
    answer.body = hsrv_text_view(text, (size_t)(end - text));
    if (hsrv_emit_answer(loop, c, &answer, how) == HTTPSRV_OK) {
        hsrv_dispatch_answered(loop, c);
        return;
    }
    hsrv_loop_note(loop, HTTPSRV_LOG_NO_MEMORY, c, 0);
    hsrv_conn_flush(loop, c); // the answers before it
    hsrv_conn_close(loop, c);
}

// Refuses a request whose head was understood: the connection lives on if the rest of its body is cheap to drop.
static void hsrv_dispatch_refuse_with(hsrv_loop *loop, hsrv_conn *c, int status, httpsrv_log_item item,
                                      httpsrv_str extra, httpsrv_str value) {
    httpsrv_req *req = c->req;
    if (item != HTTPSRV_LOG_NONE) hsrv_loop_note(loop, item, c, 0);
    const bool away = HSRV_LATER && req->away;
    const bool held = away && req->parser.phase != HTTPSRV_PHASE_DONE; // its holder cannot be waited for
    const hsrv_manner how = hsrv_emit_manner_of(loop, c, req, held || hsrv_emit_is_unread(req));
    hsrv_dispatch_say(loop, c, status, &how, extra, value);
}

static void hsrv_dispatch_refuse(hsrv_loop *loop, hsrv_conn *c, int status, httpsrv_log_item item) {
    hsrv_dispatch_refuse_with(loop, c, status, item, hsrv_text_absent(), hsrv_text_absent());
}

// Refuses and ends the connection: after errors of framing nobody knows where the next request begins.
static void hsrv_dispatch_end_with(hsrv_loop *loop, hsrv_conn *c, int status, httpsrv_log_item item) {
    const bool overload = status == 503;
    hsrv_manner how;
    memset(&how, 0, sizeof how);
    hsrv_loop_note(loop, item, c, 0);
    // A request line without fault tells the method, whatever follows it.
    const bool known = c->req && (c->req->raw || c->req->parser.state >= HSRV_HEAD_NAME);
    how.head_only = known && c->req->head.method_id == HTTPSRV_METHOD_HEAD;
    how.close = true;
    hsrv_dispatch_say(loop, c, status, &how, overload ? hsrv_text_of("Retry-After") : hsrv_text_absent(),
                      overload ? hsrv_text_of("1") : hsrv_text_absent());
}

static void hsrv_dispatch_overload(hsrv_loop *loop, hsrv_conn *c, httpsrv_log_item item) {
    hsrv_dispatch_refuse_with(loop, c, 503, item, hsrv_text_of("Retry-After"), hsrv_text_of("1"));
}

// ---- routing ----

#ifdef HTTPSRV_NO_REGEX

static void hsrv_dispatch_allow_regex(hsrv_loop *loop, const httpsrv_req *req, char *buf, httpsrv_str *list) {
    (void)loop;
    (void)req;
    (void)buf;
    (void)list;
}

#else

// Adds the methods of all expressions that fit the path.
static void hsrv_dispatch_allow_regex(hsrv_loop *loop, const httpsrv_req *req, char *buf, httpsrv_str *list) {
    char subject[HSRV_MAX_SUBJECT + 1];
    regmatch_t groups[HTTPSRV_MAX_PARAMS + 1];
    httpsrv_result result = HTTPSRV_OK;
    const hsrv_node *node = loop->srv->router.regexes;
    if (!node || !hsrv_router_subject(subject, req->plain)) return;
    while ((node = hsrv_router_regex_next(node, loop->regexes, subject, groups, &result)) != NULL) {
        hsrv_router_allow_node(buf, list, node);
        node = node->sibling;
    }
}

#endif

// The methods that a request's target can be asked with; empty if there is nothing there.
static httpsrv_str hsrv_dispatch_allow(hsrv_loop *loop, const httpsrv_req *req, char buf[HSRV_ALLOW_SIZE]) {
    hsrv_router *router = &loop->srv->router;
    if (req->head.form == HTTPSRV_FORM_ASTERISK) return hsrv_router_allow_all(router, buf);
    httpsrv_str list = hsrv_router_allow(router, req->path, buf);
    hsrv_dispatch_allow_regex(loop, req, buf, &list);
    return list;
}

// False when out of memory.
static bool hsrv_dispatch_params(httpsrv_req *req, const hsrv_search *search) {
    req->num_params = hsrv_router_params(search, req->params);
    for (int i = 0; i < req->num_params; i++) {
        req->params[i] = hsrv_request_decode(req, req->params[i], false);
        if (!req->params[i].ptr) return false;
    }
    return true;
}

#ifdef HTTPSRV_NO_REGEX

static httpsrv_result hsrv_dispatch_find_regex(hsrv_loop *loop, httpsrv_req *req) {
    (void)loop;
    (void)req;
    return HTTPSRV_OK;
}

#else

// Sets req->route and its parameters if an expression fits.
static httpsrv_result hsrv_dispatch_find_regex(hsrv_loop *loop, httpsrv_req *req) {
    char subject[HSRV_MAX_SUBJECT + 1];
    regmatch_t groups[HTTPSRV_MAX_PARAMS + 1];
    httpsrv_result result = HTTPSRV_OK;
    if (!hsrv_router_subject(subject, req->plain)) return HTTPSRV_OK;
    const hsrv_node *node = loop->srv->router.regexes;
    while ((node = hsrv_router_regex_next(node, loop->regexes, subject, groups, &result)) != NULL) {
        req->route = hsrv_router_pick(node, req->head.method_id, req->head.method);
        if (req->route) break;
        node = node->sibling;
    }
    if (!req->route) return result;
    req->num_params = req->route->num_params;
    for (int i = 0; i < req->num_params; i++) {
        const regmatch_t *group = &groups[i + 1];
        req->params[i] = group->rm_so < 0
                             ? hsrv_text_view(req->plain.ptr, 0)
                             : hsrv_text_view(req->plain.ptr + group->rm_so, (size_t)(group->rm_eo - group->rm_so));
    }
    return HTTPSRV_OK;
}

#endif

// Sets req->route if there is one. The hash is asked first, with paths that mean what they say; whatever it does not
// know goes through the tree.
static httpsrv_result hsrv_dispatch_find(hsrv_router *router, httpsrv_req *req) {
    const httpsrv_method_id id = req->head.method_id;
    if (req->head.path.len > 0 && req->head.path.ptr[0] != '/') {
        req->route = hsrv_router_pick(&router->asterisk, id, req->head.method);
        if (req->route && id == HTTPSRV_METHOD_CONNECT) req->head.keep_alive = false; // what follows may be for others
        return HTTPSRV_OK;
    }
    if (!memchr(req->path.ptr, '%', req->path.len)) {
        req->route = hsrv_router_exact(router, req->path, id, req->head.method);
        if (req->route) return HTTPSRV_OK;
    }
    hsrv_search search;
    hsrv_router_search(&search, router, req->path);
    for (const hsrv_node *node = hsrv_router_search_next(&search); node; node = hsrv_router_search_next(&search)) {
        req->route = hsrv_router_pick(node, id, req->head.method);
        if (req->route) return hsrv_dispatch_params(req, &search) ? HTTPSRV_OK : HTTPSRV_NOMEM;
    }
    return HTTPSRV_OK;
}

// Expressions are asked last: they are the slowest.
static httpsrv_result hsrv_dispatch_route(hsrv_loop *loop, httpsrv_req *req) {
    const httpsrv_result result = hsrv_dispatch_find(&loop->srv->router, req);
    const bool unfound = result == HTTPSRV_OK && !req->route && loop->srv->router.regexes;
    return unfound && req->path.ptr[0] == '/' ? hsrv_dispatch_find_regex(loop, req) : result;
}

// ---- filters ----

// Whether a decoded path begins with the segments of a prefix.
static bool hsrv_dispatch_is_beneath(httpsrv_str path, const hsrv_filter *filter) {
    if (path.len < filter->prefix_len || memcmp(path.ptr, filter + 1, filter->prefix_len) != 0) return false;
    return path.len == filter->prefix_len || path.ptr[filter->prefix_len] == '/' || filter->prefix_len == 0;
}

// True if the handler's turn has come. [holder]
static bool hsrv_dispatch_filters(httpsrv_req *req) {
    for (const hsrv_filter *filter = req->srv->filters; filter; filter = filter->next) {
        if (!hsrv_dispatch_is_beneath(req->plain, filter)) continue;
        const bool done = filter->fn(req, filter->user) == HTTPSRV_DONE;
        if (done || req->deferred || req->answered != HSRV_ANSWER_NONE) return false;
    }
    return true;
}

// ---- running ----

// The job of a pool: runs the handler, unless the client has left meanwhile, and brings the request home. The claim's
// release and the inbox's hand over what the handler wrote. [worker]
static void hsrv_dispatch_job(void *arg) {
    httpsrv_req *req = (httpsrv_req *)arg;
    if (!hsrv_response_gone(req)) {
        hsrv_request_hold(req, true);
        if (hsrv_dispatch_filters(req)) req->handler(req, req->route->user);
        hsrv_request_hold(req, false);
    }
    uint32_t claim = HSRV_CLAIM_RETURNED;
    if (req->answered > HSRV_ANSWER_BEGUN) claim |= HSRV_CLAIM_FINISHED;
    if (req->answered == HSRV_ANSWER_BEGUN) claim |= HSRV_CLAIM_MOVED; // the loop goes on with it
    if (hsrv_request_add_claim(req, claim)) hsrv_loop_post(req->loop, &req->message);
}

// Runs call-backs on the loop, as the holder, with whoever waits for the answer.
static void hsrv_dispatch_begin_call(hsrv_conn *c) {
    c->req->inline_conn = c;
    c->req->stream.burst = 0;
    c->req->stream.here = true;
    hsrv_request_hold(c->req, true);
}

static void hsrv_dispatch_end_call(hsrv_conn *c) {
    hsrv_request_hold(c->req, false);
    c->req->inline_conn = NULL;
}

static void hsrv_dispatch_call(hsrv_conn *c, httpsrv_handler handler, void *user) {
    hsrv_dispatch_begin_call(c);
    handler(c->req, user);
    hsrv_dispatch_end_call(c);
}

// An answer from httpsrv_finish, behind the fields that the handler has set: as if it was given here.
static httpsrv_result hsrv_dispatch_deliver(hsrv_conn *c) {
    httpsrv_req *req = c->req;
    hsrv_answer *answer = &req->delivery->answer;
    const hsrv_answer *before = &req->answer;
    answer->own_server |= before->own_server;
    answer->own_date |= before->own_date;
    answer->own_type |= before->own_type;
    answer->close = req->answer.close |= answer->close;
    *req->answer.headers_end = answer->headers;
    answer->headers = req->answer.headers;
    req->inline_conn = c;
    const httpsrv_result result = hsrv_response_pass_on(req, answer);
    req->inline_conn = NULL;
    return result;
}

// Compresses an answer, unless the client has left meanwhile, and brings the request home once more. [worker]
static void hsrv_dispatch_pack_job(void *arg) {
    httpsrv_req *req = (httpsrv_req *)arg;
    if (!hsrv_response_gone(req)) hsrv_response_pack_staged(req);
    if (hsrv_request_add_claim(req, HSRV_CLAIM_RETURNED | HSRV_CLAIM_FINISHED)) {
        hsrv_loop_post(req->loop, &req->message);
    }
}

// Sends a worker away with an answer that was staged here. It is as if a handler was there still which has answered, and
// nobody else can. False if none is free: then it goes out as it is.
static bool hsrv_dispatch_pack(hsrv_loop *loop, hsrv_conn *c) {
    httpsrv_req *req = c->req;
    if (!hsrv_request_leave_buffer(req)) return false;
    hsrv_request_depart(loop, req, c);
    __atomic_store_n(&req->claim, 0u, __ATOMIC_RELAXED);
    if (hsrv_pool_submit(loop->srv->packer, hsrv_dispatch_pack_job, req)) return true;
    req->away = false;
    req->conn = NULL;
    return false;
}

// Queues an answer that was staged.
static void hsrv_dispatch_staged(hsrv_loop *loop, hsrv_conn *c) {
    const hsrv_manner how = hsrv_emit_manner(loop, c, c->req);
    if (hsrv_emit_answer(loop, c, &c->req->answer, &how) == HTTPSRV_OK)
        hsrv_dispatch_answered(loop, c);
    else
        hsrv_dispatch_end_with(loop, c, 503, HTTPSRV_LOG_NO_MEMORY);
}

// A request came home without an answer of its own handlers' making on this loop.
static void hsrv_dispatch_answer(hsrv_loop *loop, hsrv_conn *c) {
    httpsrv_req *req = c->req;
    if (req->answered == HSRV_ANSWER_STAGED) {
        hsrv_dispatch_staged(loop, c);
        return;
    }
    if (!req->delivery && req->answered == HSRV_ANSWER_NONE) {
        if (req->deferred)
            hsrv_dispatch_overload(loop, c, HTTPSRV_LOG_NO_MEMORY); // for the answer, which had no way back
        else
            hsrv_dispatch_refuse(loop, c, 500, HTTPSRV_LOG_NO_ANSWER);
        return;
    }
    const httpsrv_result result = hsrv_dispatch_deliver(c);
    if (result != HTTPSRV_OK)
        hsrv_dispatch_end_with(loop, c, 503, HTTPSRV_LOG_NO_MEMORY);
    else if (req->answered != HSRV_ANSWER_STAGED)
        hsrv_dispatch_answered(loop, c);
    else if (!hsrv_dispatch_pack(loop, c))
        hsrv_dispatch_staged(loop, c);
}

// Runs the handlers that were posted, as long as there is no answer. Those that are left get no request.
static void hsrv_dispatch_posts(hsrv_conn *c) {
    httpsrv_req *req = c->req;
    while (req->posts && req->answered <= HSRV_ANSWER_BEGUN) {
        if (__atomic_load_n(&req->claim, __ATOMIC_ACQUIRE) & HSRV_CLAIM_FINISHED) return;
        hsrv_post *post = req->posts;
        req->posts = post->next;
        if (!req->posts) req->posts_end = &req->posts;
        hsrv_dispatch_call(c, post->handler, post->user);
        hsrv_memory_give(req->arena.memory, post, sizeof *post);
    }
}

// ---- bodies in pieces ----

// Ends the connection in the middle of an answer.
static void hsrv_dispatch_break_off(hsrv_loop *loop, hsrv_conn *c, httpsrv_log_item item) {
    if (item != HTTPSRV_LOG_NONE) hsrv_loop_note(loop, item, c, 0);
    hsrv_conn_flush(loop, c);
    hsrv_conn_close(loop, c);
}

// The client cannot have what it wants: it is told so, if its answer has not begun.
static void hsrv_dispatch_fault(hsrv_loop *loop, hsrv_conn *c, int status, httpsrv_log_item item) {
    if (hsrv_conn_streams(c) && c->req->stream.head_out)
        hsrv_dispatch_break_off(loop, c, item);
    else
        hsrv_dispatch_end_with(loop, c, status, item);
}

// The head of an answer that a worker has begun.
static bool hsrv_dispatch_begin(hsrv_loop *loop, hsrv_conn *c) {
    if (c->req->stream.head_out) return true;
    c->req->stream.told |= HSRV_CLAIM_BEGUN; // if its bytes say so, too
    if (hsrv_emit_begin(loop, c, &c->req->answer) == HTTPSRV_OK) {
        hsrv_session_open(loop, c->req);
        return true;
    }
    hsrv_dispatch_break_off(loop, c, HTTPSRV_LOG_NO_MEMORY);
    return false;
}

// Sends on what a worker has put into its stream. What it pushed after it was seen the last time comes along: its bytes
// say that it has begun. False if the connection is closed.
static bool hsrv_dispatch_pass_on(hsrv_loop *loop, hsrv_conn *c) {
    httpsrv_req *req = c->req;
    bool alive = true;
    hsrv_segment *segment = hsrv_request_take(&req->stream.out);
    while (segment && alive) {
        hsrv_segment *next = segment->next;
        if (!segment->raw) alive = hsrv_dispatch_begin(loop, c);
        if (!alive) break;
        if (segment->raw)
            hsrv_emit_segment(loop, c, segment);
        else
            hsrv_emit_passed(loop, c, segment);
        segment = next;
    }
    hsrv_output_drop_list(&loop->srv->memory, segment);
    return alive;
}

// Looks what a worker has done: it has asked for the body, or its answer has begun, gone on, or ended.
static void hsrv_dispatch_look(hsrv_loop *loop, hsrv_conn *c) {
    httpsrv_req *req = c->req;
    hsrv_stream *s = &req->stream;
    const uint32_t told = s->told;
    if ((told & HSRV_CLAIM_ASKED) && req->owes_continue && !s->head_out) hsrv_emit_continue(loop, c);
    if (!hsrv_dispatch_pass_on(loop, c)) return;
    if ((told & HSRV_CLAIM_BEGUN) && !hsrv_dispatch_begin(loop, c)) return;
    if (told & HSRV_CLAIM_BROKEN) {
        hsrv_dispatch_break_off(loop, c, HTTPSRV_LOG_BROKEN_OFF);
        return;
    }
    if (!(told & HSRV_CLAIM_ENDED) || s->end_out) return;
    if (hsrv_emit_end(loop, c) != HTTPSRV_OK) hsrv_dispatch_break_off(loop, c, HTTPSRV_LOG_NO_MEMORY);
}

// Ends a stream of events, for which a handler on a worker has to be awaited.
static void hsrv_dispatch_end_events(hsrv_loop *loop, hsrv_conn *c) {
    httpsrv_req *req = c->req;
    hsrv_stream *s = &req->stream;
    s->events_end = true;
    if (!s->here || s->end_out || req->answered != HSRV_ANSWER_BEGUN) return;
    hsrv_conn_begin_period(loop, c, c->out.first != NULL); // from here on its speed counts
    if (hsrv_emit_end(loop, c) == HTTPSRV_OK)
        req->answered = HSRV_ANSWER_ENDED;
    else
        hsrv_dispatch_break_off(loop, c, HTTPSRV_LOG_NO_MEMORY);
}

// Whether a request that has no answer, or half of one, has call-backs that can go on with it.
static bool hsrv_dispatch_can_go_on(const httpsrv_req *req) {
    const hsrv_stream *s = &req->stream;
    const bool begun = req->answered == HSRV_ANSWER_BEGUN;
    if (begun && s->on_drain) return true;
    const bool unasked = begun && req->owes_continue;
    return req->on_body && !s->body_over && !s->paused && !unasked;
}

// Call-backs on the loop have returned: the request is answered, or goes on, or nobody is there who could.
static void hsrv_dispatch_conclude(hsrv_loop *loop, hsrv_conn *c) {
    httpsrv_req *req = c->req;
    const bool begun = HSRV_LATER && req->answered == HSRV_ANSWER_BEGUN;
    if (req->answered > HSRV_ANSWER_BEGUN) req->away = false; // the holder has claimed it: nobody else brings it home
    if (c->flags & HSRV_CONN_LOST) return;                    // which is seen next
    if (HSRV_LATER && req->stream.broken) {
        hsrv_dispatch_break_off(loop, c, HTTPSRV_LOG_BROKEN_OFF);
    } else if (HSRV_LATER && req->answered == HSRV_ANSWER_STAGED) {
        if (!hsrv_dispatch_pack(loop, c)) hsrv_dispatch_staged(loop, c);
    } else if (req->answered > HSRV_ANSWER_BEGUN) {
        hsrv_dispatch_answered(loop, c);
    } else if (!HSRV_LATER || (!req->deferred && !hsrv_dispatch_can_go_on(req))) {
        if (begun)
            hsrv_dispatch_break_off(loop, c, HTTPSRV_LOG_BROKEN_OFF);
        else
            hsrv_dispatch_refuse(loop, c, 500, HTTPSRV_LOG_NO_ANSWER);
    } else if (!hsrv_request_leave_buffer(req)) {
        hsrv_dispatch_break_off(loop, c, HTTPSRV_LOG_NO_MEMORY);
    }
}

// The server stops: streams of events would go on for ever.
static void hsrv_dispatch_stop_events(hsrv_loop *loop, hsrv_conn *c) {
    if (hsrv_request_settle(c->req)) hsrv_request_tell_gone(c->req);
    hsrv_dispatch_end_events(loop, c);
    if (c->state != HSRV_CONN_CLOSED && c->req->stream.end_out) hsrv_dispatch_conclude(loop, c);
}

// What else is due: a client that waits to be asked for its body is, once a call-back is there to take it; and a stream of
// events that begins in the drain ends.
static void hsrv_dispatch_attend(hsrv_loop *loop, hsrv_conn *c) {
    if (!hsrv_conn_streams(c)) return;
    const httpsrv_req *req = c->req;
    const hsrv_stream *s = &req->stream;
    if (req->owes_continue && req->on_body && !s->paused && !s->head_out) hsrv_emit_continue(loop, c);
    if (s->events && !s->events_end && loop->phase == HSRV_LOOP_DRAIN) hsrv_dispatch_stop_events(loop, c);
}

// The request came back from a worker or was finished, which both brings it home for good, or there are handlers to run
// or pieces to pass on.
static void hsrv_dispatch_returned(hsrv_loop *loop, hsrv_conn *c) {
    httpsrv_req *req = c->req;
    hsrv_dispatch_look(loop, c);
    if (c->state == HSRV_CONN_CLOSED) return;
    if (!req->away) {
        req->conn = NULL;
        if (req->stream.head_out)
            hsrv_dispatch_conclude(loop, c);
        else
            hsrv_dispatch_answer(loop, c);
    } else if (req->stream.here) {
        hsrv_dispatch_posts(c);
        if (req->stream.events_end) hsrv_dispatch_end_events(loop, c);
        if (c->state != HSRV_CONN_CLOSED) hsrv_dispatch_conclude(loop, c);
    }
    hsrv_dispatch_attend(loop, c);
}

// The handler has returned without an answer, but somebody has a token. The request outlives the reactor's buffer; an
// answer that is on its way already does not need what it held.
static void hsrv_dispatch_deferred(hsrv_loop *loop, hsrv_conn *c) {
    httpsrv_req *req = c->req;
    if (!hsrv_request_leave_buffer(req)) {
        if (req->answered == HSRV_ANSWER_BEGUN) {
            hsrv_dispatch_break_off(loop, c, HTTPSRV_LOG_NO_MEMORY);
            return;
        }
        if (hsrv_request_bar(req) == HSRV_PLACE_OPEN) {
            hsrv_request_abandon(req);
            hsrv_dispatch_overload(loop, c, HTTPSRV_LOG_NO_MEMORY);
            return;
        }
    }
    hsrv_request_depart(loop, req, c);
    req->stream.here = true;
    if (!hsrv_request_add_claim(req, HSRV_CLAIM_RETURNED)) return;
    hsrv_request_arrive(req);
    hsrv_dispatch_returned(loop, c);
}

// A call-back on the loop has returned.
static void hsrv_dispatch_go_on(hsrv_loop *loop, hsrv_conn *c) {
    const httpsrv_req *req = c->req;
    const bool unanswered = req->answered <= HSRV_ANSWER_BEGUN && !req->stream.broken;
    const bool defers = HSRV_LATER && req->deferred && !req->away && unanswered;
    if (defers) // for a client that is lost as well: somebody may be about to finish it
        hsrv_dispatch_deferred(loop, c);
    else
        hsrv_dispatch_conclude(loop, c);
    hsrv_dispatch_attend(loop, c);
}

// What hsrv_dispatch_answered does, where nothing has to be looked at: the connection stays, and so does what was read.
static inline void hsrv_dispatch_answered_lightly(hsrv_loop *loop, hsrv_conn *c) {
    hsrv_request_wipe(c->req);
    c->stamp = (uint32_t)loop->now;
    c->discarded = 0;
    c->state = HSRV_CONN_IDLE;
    c->req = NULL;
    loop->again.idle = true;
}

// After the handler of an inline route has run.
static void hsrv_dispatch_ran(hsrv_loop *loop, hsrv_conn *c) {
    httpsrv_req *req = c->req;
    if (hsrv_request_is_light(loop, req))
        hsrv_dispatch_answered_lightly(loop, c);
    else if (req->answered == HSRV_ANSWER_SENT)
        hsrv_dispatch_answered(loop, c);
    else
        hsrv_dispatch_go_on(loop, c);
}

static void hsrv_dispatch_inline(hsrv_loop *loop, hsrv_conn *c) {
    hsrv_dispatch_call(c, c->req->handler, c->req->route->user);
    hsrv_dispatch_ran(loop, c);
}

// Runs the filters on the loop. True if the handler's turn has come.
static bool hsrv_dispatch_admit(hsrv_loop *loop, hsrv_conn *c) {
    if (HSRV_LIKELY(!loop->srv->filters)) return true;
    const bool unread = c->req->parser.phase != HTTPSRV_PHASE_DONE; // what they keep has to outlive the buffer
    if (unread && !hsrv_request_leave_buffer(c->req)) {
        hsrv_dispatch_end_with(loop, c, 503, HTTPSRV_LOG_NO_MEMORY);
        return false;
    }
    const httpsrv_body_fn on_body = c->req->on_body;
    c->req->on_body = NULL;   // a filter that answers in pieces must not let the body through
    c->req->form_read = true; // nobody may, before the handler
    hsrv_dispatch_begin_call(c);
    const bool next = hsrv_dispatch_filters(c->req);
    hsrv_dispatch_end_call(c);
    c->req->form_read = false;
    if (next) c->req->on_body = on_body;
    if (next) return true;
    if (c->req->answered == HSRV_ANSWER_NONE && !c->req->deferred)
        hsrv_dispatch_refuse(loop, c, 500, HTTPSRV_LOG_NO_ANSWER);
    else
        hsrv_dispatch_go_on(loop, c);
    return false;
}

// What was written is out.
static void hsrv_dispatch_drained(hsrv_loop *loop, hsrv_conn *c) {
    hsrv_stream *s = &c->req->stream;
    s->written = false;
    hsrv_dispatch_call(c, s->on_drain, s->drain_user);
    hsrv_dispatch_go_on(loop, c);
}

// loop->news are for this reader of events.
static void hsrv_dispatch_news(hsrv_loop *loop, hsrv_conn *c) {
    const hsrv_stream *s = &c->req->stream;
    if (s->end_out || s->events_end) return;
    if (!loop->news->ends) {
        hsrv_session_deliver(loop, c, loop->news);
        return;
    }
    hsrv_dispatch_end_events(loop, c);
    if (c->state != HSRV_CONN_CLOSED && s->end_out) hsrv_dispatch_conclude(loop, c);
}

// The next piece of a body, for a call-back here or for a worker.
static void hsrv_dispatch_piece(hsrv_loop *loop, hsrv_conn *c) {
    httpsrv_req *req = c->req;
    const bool last = req->stream.body_over;
    if (req->on_body) {
        hsrv_dispatch_begin_call(c);
        req->on_body(req, loop->piece, last, req->route->user);
        hsrv_dispatch_end_call(c);
        hsrv_dispatch_go_on(loop, c);
    } else if (!hsrv_request_feed(req, loop->piece, last)) {
        hsrv_dispatch_fault(loop, c, 503, HTTPSRV_LOG_NO_MEMORY);
    }
}

// ---- pools ----

// Appends a request to those that wait for room in its pool.
static void hsrv_dispatch_wait(hsrv_loop *loop, httpsrv_req *req) {
    hsrv_loop_wait(loop, req);
    __atomic_store_n(&loop->starved, 1u, __ATOMIC_SEQ_CST);
}

// Moves requests that wait into their pool. False if it is full before they are all there.
static bool hsrv_dispatch_move_waiting(hsrv_loop *loop, hsrv_pool *pool, int n) {
    while (loop->waiting[n]) {
        httpsrv_req *req = loop->waiting[n];
        hsrv_loop_stop_waiting(loop, req); // before a worker has it
        if (!hsrv_pool_submit(pool, hsrv_dispatch_job, req)) {
            hsrv_loop_wait_first(loop, req);
            return false;
        }
        if (req->route->stream) hsrv_loop_ready(loop, req->conn); // its body may be read from now on
    }
    return true;
}

// Whoever finds a pool full says that it wants room, and tries once more: see hsrv_pool_want_room.
static void hsrv_dispatch_serve_waiting(hsrv_loop *loop) {
    bool starved = false;
    if (!HSRV_LATER || !loop->starved) return;
    for (int n = 0; n < loop->srv->num_pools; n++) {
        hsrv_pool *pool = loop->srv->pools[n];
        if (hsrv_dispatch_move_waiting(loop, pool, n)) continue;
        hsrv_pool_want_room(pool);
        starved = !hsrv_dispatch_move_waiting(loop, pool, n) || starved;
    }
    if (!starved) __atomic_store_n(&loop->starved, 0u, __ATOMIC_SEQ_CST);
}

// The queue of the pool is full: as the route has it.
static void hsrv_dispatch_no_room(hsrv_loop *loop, hsrv_conn *c) {
    httpsrv_req *req = c->req;
    switch (req->route->overload) {
    case HTTPSRV_OVERLOAD_WAIT:
        hsrv_loop_note(loop, HTTPSRV_LOG_WAITS, c, 0);
        hsrv_dispatch_wait(loop, req);
        hsrv_dispatch_serve_waiting(loop);
        break;
    case HTTPSRV_OVERLOAD_INLINE:
        hsrv_loop_note(loop, HTTPSRV_LOG_RAN_INLINE, c, 0);
        hsrv_request_stay(req);
        if (hsrv_dispatch_admit(loop, c)) hsrv_dispatch_inline(loop, c);
        break;
    default:
        hsrv_request_stay(req);
        hsrv_dispatch_overload(loop, c, HTTPSRV_LOG_QUEUE_FULL);
        break;
    }
}

// Wakes workers for the jobs of this turn.
static void hsrv_dispatch_wake_pools(hsrv_loop *loop) {
    if (!HSRV_LATER || HSRV_LIKELY(!loop->offers)) return;
    loop->offers = false;
    for (int n = 0; n < loop->srv->num_pools; n++) {
        if (loop->offered[n] > 0) hsrv_pool_wake(loop->srv->pools[n], loop->offered[n]);
        loop->offered[n] = 0;
    }
}

#define HSRV_OFFERS 16u // jobs of a turn that wait for its end before workers are woken

// Workers are often quicker than the loop: woken for each job they would go to sleep after each. So they are woken for
// several, or at the end of the turn; sooner where the ring is small.
static bool hsrv_dispatch_offer(hsrv_loop *loop, httpsrv_req *req) {
    hsrv_pool *pool = req->route->pool;
    const int n = req->route->pool_number;
    if (!hsrv_pool_offer(pool, hsrv_dispatch_job, req)) return false;
    loop->offers = true;
    loop->offered[n]++;
    if (loop->offered[n] >= HSRV_OFFERS || loop->offered[n] > pool->queue.mask / 8) {
        hsrv_dispatch_wake_pools(loop);
    }
    return true;
}

static void hsrv_dispatch_to_pool(hsrv_loop *loop, hsrv_conn *c) {
    httpsrv_req *req = c->req;
    if (!hsrv_request_leave_buffer(req)) {
        hsrv_dispatch_overload(loop, c, HTTPSRV_LOG_NO_MEMORY);
        return;
    }
    hsrv_request_depart(loop, req, c);
    const bool behind = loop->waiting[req->route->pool_number] && req->route->overload == HTTPSRV_OVERLOAD_WAIT;
    if (behind || !hsrv_dispatch_offer(loop, req)) hsrv_dispatch_no_room(loop, c);
}

// The answer is not there in time: the client is told, and whoever makes it finds the request gone. One that was claimed
// just now will be there in the next tick.
static void hsrv_dispatch_late(hsrv_loop *loop, hsrv_conn *c) {
    if (!hsrv_request_revoke(c->req)) return;
    hsrv_request_abandon(c->req);
    hsrv_dispatch_overload(loop, c, HTTPSRV_LOG_HANDLER_TIMEOUT);
}

// The request is complete: its handler's turn.
static void hsrv_dispatch_run(hsrv_loop *loop, hsrv_conn *c) {
    c->state = HSRV_CONN_BUSY;
    if (HSRV_LATER && c->req->route->pool)
        hsrv_dispatch_to_pool(loop, c);
    else
        hsrv_dispatch_inline(loop, c);
}

static void hsrv_dispatch_body(hsrv_loop *loop, hsrv_conn *c) {
    c->req->body = hsrv_text_view(c->req->body_buffer.ptr, c->req->body_buffer.len);
    hsrv_dispatch_run(loop, c);
}

// The body is still to come, wholly or in part: the request has to outlive the buffer.
static void hsrv_dispatch_await_body(hsrv_loop *loop, hsrv_conn *c) {
    httpsrv_req *req = c->req;
    if (!hsrv_request_leave_buffer(req)) {
        hsrv_dispatch_end_with(loop, c, 503, HTTPSRV_LOG_NO_MEMORY);
        return;
    }
    if (loop->window_len > 0) req->owes_continue = false;
    if (req->owes_continue) hsrv_emit_continue(loop, c);
    c->state = HSRV_CONN_BODY;
    c->stamp = (uint32_t)loop->now;
    hsrv_conn_begin_period(loop, c, false);
}

// A body that is taken as it comes: the handler runs first, and the request has to outlive the buffer.
static void hsrv_dispatch_stream(hsrv_loop *loop, hsrv_conn *c) {
    httpsrv_req *req = c->req;
    if (!hsrv_request_leave_buffer(req)) {
        hsrv_dispatch_end_with(loop, c, 503, HTTPSRV_LOG_NO_MEMORY);
        return;
    }
    if (loop->window_len > 0) req->owes_continue = false;
    req->stream.used = true;
    c->state = HSRV_CONN_STREAM;
    if (req->route->pool) {
        hsrv_dispatch_to_pool(loop, c);
        return;
    }
    req->stream.here = true; // even without a handler
    if (req->handler) hsrv_dispatch_call(c, req->handler, req->route->user);
    hsrv_dispatch_go_on(loop, c);
}

// Chooses the handlers for the type of the body. False if the route does not take it.
static bool hsrv_dispatch_choose(httpsrv_req *req) {
    const hsrv_route *route = req->route;
    req->handler = route->handler;
    req->on_body = route->on_body;
    if (HSRV_LIKELY(route->num_media == 0) || req->parser.phase == HTTPSRV_PHASE_DONE) return true;
    httpsrv_str type = req->head.content_type;
    if (!type.ptr) type = hsrv_text_of("application/octet-stream"); // RFC 9110 section 8.3
    type = hsrv_text_bare_type(type);
    for (int i = 0; i < route->num_media; i++) {
        const httpsrv_media *media = &route->media[i];
        if (!hsrv_text_type_fits(type, hsrv_text_of(media->type))) continue;
        if (!media->handler && !media->on_body) return true;
        req->handler = media->handler;
        req->on_body = media->on_body;
        return true;
    }
    return false;
}

// RFC 9110 section 15.5.16: says what would have been taken.
static void hsrv_dispatch_refuse_type(hsrv_loop *loop, hsrv_conn *c) {
    const hsrv_route *route = c->req->route;
    char accept[HTTPSRV_MAX_MEDIA * 66], *out = accept;
    for (int i = 0; i < route->num_media; i++) {
        const httpsrv_str type = hsrv_text_of(route->media[i].type);
        if (type.len > 64) continue;
        if (out != accept) out = HSRV_APPEND(out, ", ");
        out = hsrv_text_append(out, type);
    }
    hsrv_dispatch_refuse_with(loop, c, 415, HTTPSRV_LOG_UNKNOWN_TYPE, hsrv_text_of("Accept"),
                              hsrv_text_view(accept, (size_t)(out - accept)));
}

// Prepares for a body in a coding, RFC 9110 section 8.4. OK, UNSUPPORTED, NOMEM.
static httpsrv_result hsrv_dispatch_choose_coding(httpsrv_req *req) {
    if (req->parser.phase == HTTPSRV_PHASE_DONE) return HTTPSRV_OK;
    httpsrv_str coding = hsrv_text_absent();
    for (int i = 0; i < req->head.num_fields; i++) {
        if (!hsrv_text_equal_nocase(req->head.fields[i].name, hsrv_text_of("content-encoding"))) continue;
        if (coding.ptr) return HTTPSRV_UNSUPPORTED;
        coding = req->head.fields[i].value;
    }
    if (!coding.ptr || hsrv_text_equal_nocase(coding, hsrv_text_of("identity"))) return HTTPSRV_OK;
    const bool gzip =
        hsrv_text_equal_nocase(coding, hsrv_text_of("gzip")) || hsrv_text_equal_nocase(coding, hsrv_text_of("x-gzip"));
    if (!gzip) return HTTPSRV_UNSUPPORTED;
    req->inflater = hsrv_coding_new_inflater(&req->srv->memory, req->route->max_body);
    return req->inflater ? HTTPSRV_OK : HTTPSRV_NOMEM;
}

// Whether the body comes in a coding that the route takes; else it is refused.
static bool hsrv_dispatch_takes_coding(hsrv_loop *loop, hsrv_conn *c) {
    const httpsrv_result result = hsrv_dispatch_choose_coding(c->req);
    if (result == HTTPSRV_NOMEM) hsrv_dispatch_overload(loop, c, HTTPSRV_LOG_NO_MEMORY);
    if (result == HTTPSRV_UNSUPPORTED)
        hsrv_dispatch_refuse_with(loop, c, 415, HTTPSRV_LOG_UNKNOWN_CONTENT, hsrv_text_of("Accept-Encoding"),
                                  hsrv_text_of("gzip"));
    return result == HTTPSRV_OK;
}

static void hsrv_dispatch_routed(hsrv_loop *loop, hsrv_conn *c) {
    httpsrv_req *req = c->req;
    req->parser.max_body = req->route->max_body;
    if (!hsrv_dispatch_choose(req)) {
        hsrv_dispatch_refuse_type(loop, c);
        return;
    }
    if (req->route->max_body >= 0 && req->head.content_length > req->route->max_body) {
        hsrv_dispatch_end_with(loop, c, 413, HTTPSRV_LOG_BODY_TOO_LARGE);
        return;
    }
    if (HSRV_CODES && req->route->gunzip && !hsrv_dispatch_takes_coding(loop, c)) return;
    if (!req->route->pool && !hsrv_dispatch_admit(loop, c)) return;
    if (HSRV_LATER && HSRV_UNLIKELY(req->on_body || req->route->stream))
        hsrv_dispatch_stream(loop, c);
    else if (req->parser.phase == HTTPSRV_PHASE_DONE || hsrv_conn_body_in_window(loop, c))
        hsrv_dispatch_run(loop, c);
    else
        hsrv_dispatch_await_body(loop, c);
}

// Answers a request that no route takes: 501, 404, 405, or OPTIONS. Unknown methods are asked about first, since
// nothing can be said about a path for a method that means nothing here.
static void hsrv_dispatch_no_route(hsrv_loop *loop, hsrv_conn *c) {
    httpsrv_req *req = c->req;
    hsrv_router *router = &loop->srv->router;
    const httpsrv_head *head = &req->head;
    req->route = &loop->srv->no_route;
    req->on_body = NULL;
    if (!hsrv_dispatch_admit(loop, c)) return;
    const bool known = head->method_id != HTTPSRV_METHOD_OTHER || hsrv_router_knows(router, head->method);
    if (!known || head->form == HTTPSRV_FORM_AUTHORITY) {
        hsrv_dispatch_refuse(loop, c, 501, HTTPSRV_LOG_UNKNOWN_METHOD);
        return;
    }
    char buf[HSRV_ALLOW_SIZE];
    const httpsrv_str allow = hsrv_dispatch_allow(loop, req, buf);
    if (allow.len == 0) {
        hsrv_dispatch_refuse(loop, c, 404, HTTPSRV_LOG_NOT_FOUND);
        return;
    }
    const bool options = head->method_id == HTTPSRV_METHOD_OPTIONS;
    hsrv_dispatch_refuse_with(loop, c, options ? 204 : 405, options ? HTTPSRV_LOG_NONE : HTTPSRV_LOG_NOT_ALLOWED,
                              hsrv_text_of("Allow"), allow);
}

// A head has been read. Everything that can be refused is, before its body is.
static void hsrv_dispatch_head(hsrv_loop *loop, hsrv_conn *c) {
    httpsrv_req *req = c->req;
    hsrv_platform_count(&loop->counters.requests, 1);
    memcpy(req->peer, c->peer, sizeof req->peer);
    req->owes_continue = req->head.expect_continue && req->parser.phase != HTTPSRV_PHASE_DONE;
    c->state = HSRV_CONN_BUSY;
    if (HSRV_UNLIKELY(req->head.expect_other)) {
        hsrv_dispatch_refuse(loop, c, 417, HTTPSRV_LOG_BAD_EXPECT);
        return;
    }
    httpsrv_result result = hsrv_request_resolve_path(req);
    if (result == HTTPSRV_OK) result = hsrv_dispatch_route(loop, req);
    if (result == HTTPSRV_SYNTAX)
        hsrv_dispatch_refuse(loop, c, 400, HTTPSRV_LOG_BAD_PATH);
    else if (result != HTTPSRV_OK)
        hsrv_dispatch_overload(loop, c, HTTPSRV_LOG_NO_MEMORY);
    else if (!req->route)
        hsrv_dispatch_no_route(loop, c);
    else {
        if (hsrv_request_keep_again(req)) loop->again.plain = hsrv_emit_may_be_plain(req);
        hsrv_dispatch_routed(loop, c);
    }
}

// Takes the kept head once more, if it comes right behind an answer that went out lightly. Whatever else is to be done on
// the connection comes first: that is for >>conn to find.
static inline bool hsrv_dispatch_comes_again(hsrv_loop *loop, hsrv_conn *c) {
    if (loop->serve_budget <= 0 || c->out.first || (c->flags & HSRV_CONN_LOST)) return false;
    if (!hsrv_loop_is_again(loop)) return false;
    hsrv_conn_use(loop, c, loop->again.len);
    c->stamp = (uint32_t)loop->now;
    loop->serve_budget--;
    return true;
}

// The simple ones of a pipeline, one after the other.
static void hsrv_dispatch_simple(hsrv_loop *loop, hsrv_conn *c) {
    httpsrv_req *req = c->req;
    const hsrv_route *route = req->route;
    req->handler = route->handler;
    req->on_body = NULL;
    hsrv_dispatch_call(c, route->handler, route->user);
    while (HSRV_LIKELY(hsrv_request_is_light(loop, req)) && hsrv_dispatch_comes_again(loop, c)) {
        hsrv_request_wipe(req);
        hsrv_platform_count(&loop->counters.requests, 1);
        hsrv_dispatch_call(c, route->handler, route->user);
    }
    hsrv_dispatch_ran(loop, c);
}

// A head like one before, for which all that was found once more.
static void hsrv_dispatch_again(hsrv_loop *loop, hsrv_conn *c) {
    hsrv_platform_count(&loop->counters.requests, 1);
    memcpy(c->req->peer, c->peer, sizeof c->peer);
    c->req->owes_continue = false;
    c->state = HSRV_CONN_BUSY;
    if (HSRV_LIKELY(loop->again.simple))
        hsrv_dispatch_simple(loop, c);
    else
        hsrv_dispatch_routed(loop, c);
}

// ===========================================================================================
// >>reactor   One turn: accept, read, inbox, timers, drain, close.    owns: the order of things    thread: loop
//             uses: >>dispatch
// ===========================================================================================

// Urgent data is watched for because it makes a read short that has not drained the socket. HTTP has no use for it.
#define HSRV_CONN_EVENTS (EPOLLIN | EPOLLPRI | EPOLLOUT | EPOLLRDHUP | EPOLLET)

#define HSRV_TURN_EVENTS   256 // taken from epoll at once
#define HSRV_TURN_REQUESTS 256 // that one connection may have served in a turn
#define HSRV_TURN_ACCEPTS  64  // from one listener in a turn
#define HSRV_MAX_REFUSALS  64u // connections over the limit that are answered at a time; more are just closed
#define HSRV_ACCEPT_AGAIN  100 // ms until the next try when descriptors ran out

static void hsrv_reactor_on_end(hsrv_loop *loop, hsrv_conn *c) {
    if (c->state == HSRV_CONN_BODY || c->state == HSRV_CONN_HEAD || hsrv_conn_streams(c)) {
        hsrv_dispatch_fault(loop, c, 400, HTTPSRV_LOG_INCOMPLETE);
        return;
    }
    c->state = HSRV_CONN_LAST;
}

// Whether the time-out of a ring has passed, rather than a period in which too little moved.
static bool hsrv_reactor_timed_out(const hsrv_loop *loop, hsrv_ring ring, uint32_t since) {
    const uint32_t timeout = loop->wheels[ring].duration;
    return timeout > 0 && (uint32_t)loop->now - since >= timeout;
}

static httpsrv_log_item hsrv_reactor_timeout_item(const hsrv_loop *loop, const hsrv_conn *c, hsrv_ring ring) {
    switch (ring) {
    case HSRV_RING_HEAD: return HTTPSRV_LOG_HEAD_TIMEOUT;
    case HSRV_RING_IDLE: return HTTPSRV_LOG_IDLE_TIMEOUT;
    case HSRV_RING_BODY:
        return hsrv_reactor_timed_out(loop, ring, c->stamp) ? HTTPSRV_LOG_BODY_TIMEOUT : HTTPSRV_LOG_TOO_SLOW;
    case HSRV_RING_WRITE:
        return hsrv_reactor_timed_out(loop, ring, c->period) ? HTTPSRV_LOG_WRITE_TIMEOUT : HTTPSRV_LOG_TOO_SLOW;
    default: return HTTPSRV_LOG_NONE; // lingering has no item
    }
}

// Whoever has sent a part of a request is told; the others are just left.
static void hsrv_reactor_on_timeout(hsrv_loop *loop, hsrv_conn *c) {
    const hsrv_ring ring = hsrv_conn_ring(c);
    if (HSRV_LATER && ring == HSRV_RING_HANDLER) {
        hsrv_dispatch_late(loop, c);
        return;
    }
    if (HSRV_LATER && ring == HSRV_RING_EVENTS) {
        hsrv_session_show_life(loop, c);
        return;
    }
    const httpsrv_log_item item = hsrv_reactor_timeout_item(loop, c, ring);
    const bool begun = c->state == HSRV_CONN_HEAD || c->state == HSRV_CONN_BODY || hsrv_conn_streams(c);
    if (begun && !c->out.first) {
        hsrv_dispatch_fault(loop, c, 408, item);
        return;
    }
    if (item != HTTPSRV_LOG_NONE) hsrv_loop_note(loop, item, c, 0);
    if (c->out.first) hsrv_sys_reset_on_close(c->fd);
    hsrv_conn_close(loop, c);
}

// What cannot go on but was answered already ends; what was not is refused first.
static void hsrv_reactor_on_fault(hsrv_loop *loop, hsrv_conn *c, int status, httpsrv_log_item item) {
    if (c->state == HSRV_CONN_LINGER) {
        hsrv_conn_close(loop, c);
    } else if (c->state == HSRV_CONN_DISCARD) {
        hsrv_loop_note(loop, item, c, 0);
        c->state = HSRV_CONN_LAST;
    } else {
        hsrv_dispatch_fault(loop, c, status, item);
    }
}

static void hsrv_reactor_on_body(hsrv_loop *loop, hsrv_conn *c) {
    if (c->state == HSRV_CONN_BODY) {
        hsrv_dispatch_body(loop, c);
        return;
    }
    hsrv_conn_drop_request(loop, c);
    c->state = HSRV_CONN_IDLE;
}

static void hsrv_reactor_on_lost(hsrv_loop *loop, hsrv_conn *c) {
    if (c->state != HSRV_CONN_IDLE && c->state != HSRV_CONN_LINGER) hsrv_loop_note(loop, HTTPSRV_LOG_CLIENT_GONE, c, 0);
    hsrv_conn_close(loop, c);
}

// What happens to a request beside its one handler.
static void hsrv_reactor_act_later(hsrv_loop *loop, hsrv_conn *c, hsrv_event event) {
    switch (event) {
    case HSRV_EVENT_PIECE: hsrv_dispatch_piece(loop, c); break;
    case HSRV_EVENT_DRAINED: hsrv_dispatch_drained(loop, c); break;
    case HSRV_EVENT_NEWS: hsrv_dispatch_news(loop, c); break;
    case HSRV_EVENT_STOP: hsrv_dispatch_stop_events(loop, c); break;
    case HSRV_EVENT_RETURNED: hsrv_dispatch_returned(loop, c); break;
    default: break;
    }
}

static void hsrv_reactor_act(hsrv_loop *loop, hsrv_conn *c, hsrv_event event) {
    switch (event) {
    case HSRV_EVENT_HEAD: hsrv_dispatch_head(loop, c); break;
    case HSRV_EVENT_AGAIN:
        if (HSRV_SHORTCUTS) hsrv_dispatch_again(loop, c);
        break;
    case HSRV_EVENT_BODY: hsrv_reactor_on_body(loop, c); break;
    case HSRV_EVENT_BAD:
        hsrv_reactor_on_fault(loop, c, c->req->parser.status, (httpsrv_log_item)c->req->parser.item);
        break;
    case HSRV_EVENT_NOMEM: hsrv_reactor_on_fault(loop, c, 503, HTTPSRV_LOG_NO_MEMORY); break;
    case HSRV_EVENT_OVER: hsrv_reactor_on_fault(loop, c, 413, HTTPSRV_LOG_BODY_TOO_LARGE); break;
    case HSRV_EVENT_END: hsrv_reactor_on_end(loop, c); break;
    case HSRV_EVENT_LOST: hsrv_reactor_on_lost(loop, c); break;
    case HSRV_EVENT_TIMEOUT: hsrv_reactor_on_timeout(loop, c); break;
    case HSRV_EVENT_REFUSED: hsrv_dispatch_end_with(loop, c, 503, HTTPSRV_LOG_TOO_MANY_CONNECTIONS); break;
    case HSRV_EVENT_CROWDED: hsrv_dispatch_end_with(loop, c, 503, HTTPSRV_LOG_TOO_MANY_FROM_ADDRESS); break;
    default:
        if (HSRV_LATER) hsrv_reactor_act_later(loop, c, event);
    }
}

// Nothing moves any more: sends what is queued. False if that was all; true if it changed what can be done.
static bool hsrv_reactor_settle(hsrv_loop *loop, hsrv_conn *c) {
    hsrv_conn_flush(loop, c);
    if (c->flags & HSRV_CONN_LOST) {
        hsrv_reactor_on_lost(loop, c);
        return false;
    }
    if (c->out.first || c->state != HSRV_CONN_LAST) return false;
    hsrv_conn_finish(loop, c);
    return c->state == HSRV_CONN_LINGER;
}

// Has epoll watch a connection that stays: one that is served and closed at once never needs it. What has come meanwhile is
// reported then.
static void hsrv_reactor_watch(hsrv_loop *loop, hsrv_conn *c) {
    if (HSRV_LIKELY(c->flags & HSRV_CONN_WATCHED)) return;
    c->flags |= HSRV_CONN_WATCHED;
    if (hsrv_loop_watch(loop, c->fd, HSRV_CONN_EVENTS, c->generation, c->slot) == 0) return;
    hsrv_loop_note(loop, HTTPSRV_LOG_ACCEPT_FAILED, c, errno);
    hsrv_conn_close(loop, c);
}

// Leaves a connection as it has to be while others are served.
static void hsrv_reactor_leave(hsrv_loop *loop, hsrv_conn *c) {
    const bool over = loop->phase == HSRV_LOOP_DRAIN && c->state == HSRV_CONN_IDLE && !c->out.first;
    if (c->state != HSRV_CONN_CLOSED && over) hsrv_conn_close(loop, c);
    if (c->state == HSRV_CONN_CLOSED) {
        loop->output_len = 0;
        return;
    }
    if (!hsrv_conn_close_window(loop, c)) {
        hsrv_loop_note(loop, HTTPSRV_LOG_NO_MEMORY, c, 0);
        hsrv_conn_close(loop, c);
        return;
    }
    hsrv_reactor_watch(loop, c);
    hsrv_conn_arm(loop, c);
}

// Drives one connection as far as it goes, beginning with an event that came from elsewhere.
static void hsrv_reactor_serve(hsrv_loop *loop, hsrv_conn *c, hsrv_event event) {
    loop->serve_budget = HSRV_TURN_REQUESTS;
    hsrv_conn_open_window(loop, c);
    while (c->state != HSRV_CONN_CLOSED) {
        if (event == HSRV_EVENT_SERVE && loop->serve_budget-- == 0) { // the others' turn
            hsrv_loop_ready(loop, c);
            event = HSRV_EVENT_NONE;
        }
        if (event == HSRV_EVENT_SERVE) event = hsrv_conn_next(loop, c);
        if (event != HSRV_EVENT_NONE)
            hsrv_reactor_act(loop, c, event);
        else if (!hsrv_reactor_settle(loop, c))
            break;
        event = HSRV_EVENT_SERVE;
    }
    hsrv_reactor_leave(loop, c);
}

// ---- accepting ----

// A listener that several loops share wakes one of them. Such a watch cannot be changed, only ended and begun again.
static bool hsrv_reactor_watch_shared(hsrv_loop *loop, int i, bool on) {
    const uint32_t slot = HSRV_WAKE_SLOT - 1 - (uint32_t)i;
    if (on) return hsrv_loop_watch(loop, loop->listeners[i], EPOLLIN | EPOLLEXCLUSIVE, 0, slot) == 0 || errno == EEXIST;
    return hsrv_sys_epoll_ctl(loop->epfd, EPOLL_CTL_DEL, loop->listeners[i], NULL) == 0 || errno == ENOENT;
}

// False if one could not be changed.
static bool hsrv_reactor_watch_listeners(hsrv_loop *loop, bool on) {
    bool ok = true;
    loop->accepting = on;
    for (int i = 0; i < HTTPSRV_MAX_LISTENERS; i++) {
        if (loop->listeners[i] < 0) continue;
        struct epoll_event event;
        memset(&event, 0, sizeof event);
        event.events = on ? (uint32_t)EPOLLIN : 0u;
        event.data.u64 = HSRV_WAKE_SLOT - 1 - (uint32_t)i;
        if (loop->srv->addresses[i].kind == HSRV_ADDRESS_TCP)
            ok = hsrv_sys_epoll_ctl(loop->epfd, EPOLL_CTL_MOD, loop->listeners[i], &event) == 0 && ok;
        else
            ok = hsrv_reactor_watch_shared(loop, i, on) && ok;
    }
    return ok;
}

// Refuses a connection for which there is not even memory, or a descriptor.
static void hsrv_reactor_turn_away(int fd) {
    static const char refusal[] = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\n"
                                  "Connection: close\r\n\r\n";
    hsrv_sys_send(fd, refusal, sizeof refusal - 1);
    hsrv_sys_shutdown_write(fd);
    hsrv_sys_close(fd);
}

// No descriptor is left. A level-triggered listener would report at once, for ever: so it is not watched for a while,
// or until one of our own descriptors is free. The reserve lets the client that waits longest have an answer meanwhile.
static void hsrv_reactor_no_descriptors(hsrv_loop *loop, int listener, int err) {
    hsrv_loop_note(loop, HTTPSRV_LOG_NO_DESCRIPTORS, NULL, err);
    hsrv_loop_close_fd(&loop->reservefd);
    const int fd = hsrv_sys_accept(listener, NULL, NULL);
    if (fd >= 0) {
        hsrv_platform_count(&loop->counters.accepted, 1);
        hsrv_reactor_turn_away(fd);
    }
    loop->reservefd = hsrv_sys_open_null();
    loop->accept_again = loop->now + HSRV_ACCEPT_AGAIN;
    hsrv_reactor_watch_listeners(loop, false);
}

static void hsrv_reactor_peer(const struct sockaddr_storage *address, unsigned char peer[16]) {
    memset(peer, 0, 16);
    if (address->ss_family == AF_INET) {
        peer[10] = peer[11] = 0xff;
        memcpy(peer + 12, &((const struct sockaddr_in *)(const void *)address)->sin_addr, 4);
    } else if (address->ss_family == AF_INET6) {
        memcpy(peer, &((const struct sockaddr_in6 *)(const void *)address)->sin6_addr, 16);
    }
}

// Counts a connection in: NONE, or why it is refused.
static hsrv_event hsrv_reactor_count_in(httpsrv *srv, const unsigned char peer[16]) {
    const size_t open = __atomic_fetch_add(&srv->connections, 1u, __ATOMIC_RELAXED);
    httpsrv_result result = HTTPSRV_OK;
    if (open < (size_t)srv->config.max.connections) {
        result = hsrv_conn_count_in(srv, peer);
        if (result == HTTPSRV_OK) return HSRV_EVENT_NONE;
    }
    __atomic_fetch_sub(&srv->connections, 1u, __ATOMIC_RELAXED);
    return result == HTTPSRV_OK ? HSRV_EVENT_REFUSED : result == HTTPSRV_FULL ? HSRV_EVENT_CROWDED : HSRV_EVENT_NOMEM;
}

// Finds a place for a connection, perhaps among the few that are told that there is none. LOST: not even that.
static hsrv_event hsrv_reactor_place(hsrv_loop *loop, const unsigned char peer[16]) {
    const hsrv_event event = hsrv_reactor_count_in(loop->srv, peer);
    if (event == HSRV_EVENT_NONE) return event;
    if (loop->refusals < HSRV_MAX_REFUSALS) {
        loop->refusals++;
        return event;
    }
    const bool crowded = event == HSRV_EVENT_CROWDED;
    hsrv_loop_note(loop, crowded ? HTTPSRV_LOG_TOO_MANY_FROM_ADDRESS : HTTPSRV_LOG_TOO_MANY_CONNECTIONS, NULL, 0);
    return HSRV_EVENT_LOST;
}

// Makes an accepted socket a connection of this loop, which it was counted as.
static void hsrv_reactor_admit(hsrv_loop *loop, int fd, const struct sockaddr_storage *address) {
    unsigned char peer[16];
    hsrv_reactor_peer(address, peer);
    const hsrv_event event = hsrv_reactor_place(loop, peer);
    const bool refused = event != HSRV_EVENT_NONE;
    if (event == HSRV_EVENT_LOST) {
        __atomic_fetch_sub(&loop->load, 1u, __ATOMIC_RELAXED);
        hsrv_sys_close(fd);
        return;
    }
    hsrv_conn *c = hsrv_conn_new(loop, fd);
    if (!c) {
        __atomic_fetch_sub(&loop->load, 1u, __ATOMIC_RELAXED);
        hsrv_loop_note(loop, HTTPSRV_LOG_NO_MEMORY, NULL, 0);
        hsrv_conn_give_place(loop, peer, refused);
        hsrv_reactor_turn_away(fd);
        return;
    }
    hsrv_platform_count(&loop->counters.open, 1);
    memcpy(c->peer, peer, sizeof c->peer);
    if (refused) c->flags |= HSRV_CONN_REFUSED;
    hsrv_reactor_serve(loop, c, event);
}

// Errors that say that this one connection failed, or that there is nothing to accept: nothing to be done about them.
static bool hsrv_reactor_accept_failed(hsrv_loop *loop, int listener, int err) {
    switch (err) {
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM: hsrv_reactor_no_descriptors(loop, listener, err); return true;
    case EAGAIN: return true;
    case EINTR:
    case ECONNABORTED: return false;
    default: hsrv_loop_note(loop, HTTPSRV_LOG_ACCEPT_FAILED, NULL, err); return false;
    }
}

// Which reactor gets the next connection. What the others have got by now may be seen late: it need not be exact.
static hsrv_loop *hsrv_reactor_choose(hsrv_loop *acceptor) {
    const httpsrv *srv = acceptor->srv;
    const int count = srv->config.reactors, first = acceptor->turn++ % count;
    hsrv_loop *best = srv->loops[first];
    if (acceptor->turn == count) acceptor->turn = 0;
    if (srv->config.handover == HTTPSRV_HANDOVER_TURNS) return best;
    for (int i = 0; i < count; i++) { // from another one each time, so that equals take turns
        hsrv_loop *loop = srv->loops[(first + i) % count];
        const size_t load = __atomic_load_n(&loop->load, __ATOMIC_RELAXED);
        if (load < __atomic_load_n(&best->load, __ATOMIC_RELAXED)) best = loop;
    }
    return best;
}

// [acceptor]
static void hsrv_reactor_hand_over(hsrv_loop *acceptor, int fd, const struct sockaddr_storage *address) {
    hsrv_handed *handed = (hsrv_handed *)hsrv_memory_take_zeroed(&acceptor->srv->memory, sizeof *handed);
    if (!handed) {
        hsrv_loop_note(acceptor, HTTPSRV_LOG_NO_MEMORY, NULL, 0);
        hsrv_reactor_turn_away(fd);
        return;
    }
    hsrv_loop *loop = hsrv_reactor_choose(acceptor);
    handed->message.kind = HSRV_MESSAGE_ACCEPTED;
    handed->fd = fd;
    handed->address = *address;
    __atomic_fetch_add(&loop->load, 1u, __ATOMIC_RELAXED);
    hsrv_loop_post(loop, &handed->message);
}

static void hsrv_reactor_on_accepted(hsrv_loop *loop, int fd, const struct sockaddr_storage *address) {
    hsrv_platform_count(&loop->counters.accepted, 1);
    if (HSRV_LATER && loop->is_acceptor) {
        hsrv_reactor_hand_over(loop, fd, address);
        return;
    }
    __atomic_fetch_add(&loop->load, 1u, __ATOMIC_RELAXED);
    hsrv_reactor_admit(loop, fd, address);
}

static void hsrv_reactor_accept(hsrv_loop *loop, int listener) {
    for (int i = 0; i < HSRV_TURN_ACCEPTS; i++) {
        struct sockaddr_storage address;
        socklen_t len = sizeof address;
        address.ss_family = AF_UNSPEC;
        const int fd = hsrv_sys_accept(listener, (struct sockaddr *)&address, &len);
        if (fd >= 0)
            hsrv_reactor_on_accepted(loop, fd, &address);
        else if (hsrv_reactor_accept_failed(loop, listener, errno))
            return;
    }
}

static void hsrv_reactor_accept_again(hsrv_loop *loop) {
    if (loop->accept_again == 0 || loop->now < loop->accept_again) return;
    loop->accept_again = 0;
    if (loop->phase >= HSRV_LOOP_DRAIN || hsrv_reactor_watch_listeners(loop, true)) return;
    loop->accept_again = loop->now + HSRV_ACCEPT_AGAIN;
}

// ---- events ----

static void hsrv_reactor_latch(hsrv_conn *c, uint32_t events) {
    if (events & EPOLLIN) c->flags |= HSRV_CONN_READABLE;
    if (events & EPOLLOUT) c->flags |= HSRV_CONN_WRITABLE;
    if (events & EPOLLRDHUP) c->flags |= HSRV_CONN_READABLE | HSRV_CONN_FIN;
    if (events & (EPOLLERR | EPOLLHUP | EPOLLPRI)) c->flags |= HSRV_CONN_LOST;
}

static void hsrv_reactor_on_event(hsrv_loop *loop, const struct epoll_event *event) {
    const uint32_t slot = (uint32_t)event->data.u64, generation = (uint32_t)(event->data.u64 >> 32);
    if (generation == 0) {
        if (slot == HSRV_WAKE_SLOT)
            hsrv_platform_count(&loop->counters.wakeups, 1);
        else if (loop->accepting)
            hsrv_reactor_accept(loop, loop->listeners[HSRV_WAKE_SLOT - 1 - slot]);
        return;
    }
    hsrv_conn *c = hsrv_conn_find(loop, slot, generation);
    if (!c) return;
    hsrv_reactor_latch(c, event->events);
    const bool waits = c->state == HSRV_CONN_BUSY && !(c->flags & HSRV_CONN_LOST) && !c->out.first;
    if (waits) return; // its handler's return looks at the latches
    hsrv_reactor_serve(loop, c, HSRV_EVENT_SERVE);
}

// Those that were ready when the turn came to them; whoever asks again waits for the next turn.
static void hsrv_reactor_serve_ready(hsrv_loop *loop) {
    const hsrv_conn *last = loop->ready_last;
    for (hsrv_conn *c = hsrv_loop_take_ready(loop); c; c = hsrv_loop_take_ready(loop)) {
        const bool was_last = c == last;
        if (c->state != HSRV_CONN_CLOSED) hsrv_reactor_serve(loop, c, HSRV_EVENT_SERVE);
        if (was_last) return;
    }
}

// A request has come home, or wants to be looked at.
static void hsrv_reactor_on_returned(hsrv_loop *loop, httpsrv_req *req) {
    hsrv_conn *c = req->conn;
    bool home = hsrv_request_arrive(req);
    if (c && c->state != HSRV_CONN_CLOSED) {
        hsrv_reactor_serve(loop, c, HSRV_EVENT_RETURNED);
        return;
    }
    if (!home && !c && (req->stream.told & HSRV_CLAIM_BEGUN)) { // nobody would end what was begun for a client lost
        hsrv_request_abandon(req);
        home = !req->away;
    }
    if (!home || c) return; // the end of its connection takes care of it
    loop->num_orphans--;
    hsrv_request_release(loop, req);
}

// A handler for a deferred request: runs once the one before has returned, with nothing if that is too late.
static void hsrv_reactor_on_post(hsrv_loop *loop, hsrv_post *post) {
    const hsrv_place *place = hsrv_request_find_place(loop->srv, post->token);
    const bool pending = place && hsrv_request_is_pending(place, (uint32_t)(post->token.id >> 32));
    if (!pending || !place->req->away) { // one that is home is answered, even if the rest of its body is still dropped
        post->handler(NULL, post->user);
        hsrv_memory_give(&loop->srv->memory, post, sizeof *post);
        return;
    }
    httpsrv_req *req = place->req;
    *req->posts_end = post;
    req->posts_end = &post->next;
    if (hsrv_request_add_claim(req, HSRV_CLAIM_WANTED)) hsrv_reactor_on_returned(loop, req);
}

// The connection that reads events for a request, if it is still there.
static void hsrv_reactor_serve_news(hsrv_loop *loop, httpsrv_req *req) {
    hsrv_conn *c = req->conn;
    if (c && hsrv_conn_reads_events(c)) hsrv_reactor_serve(loop, c, HSRV_EVENT_NEWS);
}

// Serving one reader takes at most that one off the list: its neighbour stays.
static void hsrv_reactor_serve_channel(hsrv_loop *loop, const hsrv_news *news) {
    const hsrv_channel *channel = *hsrv_loop_find_channel(loop, news->channel);
    httpsrv_req *req = channel ? channel->readers : NULL;
    while (req) {
        httpsrv_req *next = req->stream.next_reader;
        hsrv_reactor_serve_news(loop, req);
        req = next;
    }
}

static void hsrv_reactor_on_news(hsrv_loop *loop, hsrv_news *news) {
    const hsrv_place *place = news->token.id != 0 ? hsrv_request_find_place(loop->srv, news->token) : NULL;
    loop->news = news;
    if (!place)
        hsrv_reactor_serve_channel(loop, news);
    else if (hsrv_request_is_current(place, (uint32_t)(news->token.id >> 32)))
        hsrv_reactor_serve_news(loop, place->req);
    loop->news = NULL;
    hsrv_session_unuse(news);
}

// A connection from an acceptor. After the drain there is no place for it.
static void hsrv_reactor_on_handed(hsrv_loop *loop, hsrv_handed *handed) {
    if (loop->phase == HSRV_LOOP_DONE) {
        __atomic_fetch_sub(&loop->load, 1u, __ATOMIC_RELAXED);
        hsrv_sys_close(handed->fd);
    } else {
        hsrv_reactor_admit(loop, handed->fd, &handed->address);
    }
    hsrv_memory_give(&loop->srv->memory, handed, sizeof *handed);
}

static void hsrv_reactor_on_message(hsrv_loop *loop, hsrv_message *message) {
    switch ((hsrv_message_kind)message->kind) {
    case HSRV_MESSAGE_RETURNED:
        hsrv_reactor_on_returned(loop,
                                 (httpsrv_req *)(void *)((char *)message - offsetof(struct httpsrv_req, message)));
        break;
    case HSRV_MESSAGE_POST:
        hsrv_reactor_on_post(loop, (hsrv_post *)(void *)((char *)message - offsetof(struct hsrv_post, message)));
        break;
    case HSRV_MESSAGE_NEWS:
        hsrv_reactor_on_news(loop,
                             ((hsrv_copy *)(void *)((char *)message - offsetof(struct hsrv_copy, message)))->news);
        break;
    case HSRV_MESSAGE_ACCEPTED:
        hsrv_reactor_on_handed(loop, (hsrv_handed *)(void *)((char *)message - offsetof(struct hsrv_handed, message)));
        break;
    }
}

static void hsrv_reactor_serve_inbox(hsrv_loop *loop) {
    hsrv_message *message = HSRV_LATER ? hsrv_queue_inbox_take(&loop->inbox) : NULL;
    while (message) {
        hsrv_message *next = message->next; // the message goes with its request
        hsrv_reactor_on_message(loop, message);
        message = next;
    }
}

static void hsrv_reactor_serve_timers(hsrv_loop *loop) {
    for (hsrv_conn *c = hsrv_timers_take_due(loop); c; c = hsrv_timers_take_due(loop)) {
        const hsrv_ring ring = hsrv_conn_ring(c);
        if (c->state == HSRV_CONN_CLOSED || ring == HSRV_RINGS || loop->wheels[ring].tick == 0) continue;
        hsrv_conn_review_period(loop, c, ring);
        const uint64_t deadline = hsrv_conn_deadline(loop, c, ring);
        if (deadline > loop->now)
            hsrv_timers_link(loop, c, ring, deadline);
        else
            hsrv_reactor_serve(loop, c, HSRV_EVENT_TIMEOUT);
    }
}

// Frees what was closed in this turn. A connection that is still in the ready list has to wait until it is taken out.
static void hsrv_reactor_reap(hsrv_loop *loop) {
    hsrv_conn *c = loop->closing;
    loop->closing = NULL;
    while (c) {
        hsrv_conn *next = c->next_closing;
        if (c->flags & HSRV_CONN_READY) {
            c->next_closing = loop->closing;
            loop->closing = c;
        } else {
            hsrv_conn_free(loop, c);
            if (loop->accept_again > loop->now) loop->accept_again = loop->now; // a descriptor is free
        }
        c = next;
    }
}

// ---- drain ----

// Calls fn for each open connection.
static void hsrv_reactor_sweep(hsrv_loop *loop, void (*fn)(hsrv_loop *, hsrv_conn *)) {
    for (uint32_t slot = 0; slot < loop->conns.num_chunks * HSRV_SLAB_ITEMS; slot++) {
        if (!hsrv_memory_slab_used(&loop->conns, slot)) continue;
        hsrv_conn *c = (hsrv_conn *)hsrv_memory_slab_at(&loop->conns, slot);
        if (c->state != HSRV_CONN_CLOSED) fn(loop, c);
    }
}

// One last look at an idle connection: a request that has arrived is answered, otherwise >>leave closes it. A stream of
// events ends and is idle then.
static void hsrv_reactor_close_idle(hsrv_loop *loop, hsrv_conn *c) {
    if (hsrv_conn_reads_events(c)) {
        hsrv_reactor_serve(loop, c, HSRV_EVENT_STOP);
        return;
    }
    if (c->state != HSRV_CONN_IDLE) return;
    c->flags |= HSRV_CONN_READABLE;
    hsrv_reactor_serve(loop, c, HSRV_EVENT_SERVE);
}

static void hsrv_reactor_cut(hsrv_loop *loop, hsrv_conn *c) {
    const bool begun = c->state >= HSRV_CONN_HEAD && c->state <= HSRV_CONN_STREAM;
    if (begun || c->out.first) {
        hsrv_loop_note(loop, HTTPSRV_LOG_CUT, c, 0);
        hsrv_platform_count(&loop->counters.cut, 1);
    }
    if (c->out.first) hsrv_sys_reset_on_close(c->fd);
    hsrv_conn_close(loop, c);
}

static void hsrv_reactor_close_listeners(hsrv_loop *loop) {
    loop->accepting = false;
    loop->accept_again = 0;
    for (int i = 0; i < HTTPSRV_MAX_LISTENERS; i++) {
        if (loop->listeners[i] < 0) continue;
        hsrv_sys_epoll_ctl(loop->epfd, EPOLL_CTL_DEL, loop->listeners[i], NULL); // a forked child may hold it open
        hsrv_loop_close_fd(&loop->listeners[i]);
    }
}

// Nobody comes to a Unix socket any more once its file is gone. That is before the last look at the queue, and before the
// socket is closed. Somebody may have removed the file, and a successor have made its own.
static void hsrv_reactor_remove_file(hsrv_address *address) {
    const char *path = ((const struct sockaddr_un *)(const void *)&address->storage)->sun_path;
    if (__atomic_exchange_n(&address->has_file, 0u, __ATOMIC_RELAXED) == 0) return;
    if (hsrv_sys_socket_number(path) == address->file) hsrv_sys_unlink(path);
}

// What waits in the listeners' queues has been promised a connection: it is taken in before they close. Bounded, as
// clients may come faster than they are accepted.
static void hsrv_reactor_begin_drain(hsrv_loop *loop, int drain_ms) {
    for (int i = 0; i < loop->srv->num_addresses; i++) {
        hsrv_reactor_remove_file(&loop->srv->addresses[i]);
    }
    for (int i = 0; i < HTTPSRV_MAX_LISTENERS && loop->accepting; i++) {
        for (int k = 0; k < loop->srv->config.backlog && loop->listeners[i] >= 0; k += HSRV_TURN_ACCEPTS) {
            if (loop->accepting) hsrv_reactor_accept(loop, loop->listeners[i]);
        }
    }
    hsrv_reactor_close_listeners(loop);
    loop->phase = HSRV_LOOP_DRAIN; // not before: it closes idle connections, as those just taken in are
    loop->phase_ends = drain_ms < 0 ? UINT64_MAX : loop->now + (uint64_t)drain_ms;
    hsrv_reactor_sweep(loop, hsrv_reactor_close_idle);
}

// An acceptor that ends has put into the inboxes what it has accepted before it says that it ends.
static void hsrv_reactor_end_accepting(hsrv_loop *acceptor) {
    const httpsrv *srv = acceptor->srv;
    __atomic_fetch_sub(&acceptor->srv->acceptors, 1u, __ATOMIC_RELEASE);
    for (int i = 0; i < srv->config.reactors; i++) {
        hsrv_sys_eventfd_add(srv->loops[i]->wakefd);
    }
}

// Whether no acceptor will hand over anything more: a reactor that drains has to have taken all of it in. If not, their
// end wakes it.
static bool hsrv_reactor_all_handed_over(hsrv_loop *loop) {
    if (!HSRV_LATER || loop->is_acceptor) return true;
    loop->awaits_acceptors = __atomic_load_n(&loop->srv->acceptors, __ATOMIC_ACQUIRE) > 0;
    if (loop->awaits_acceptors) return false;
    hsrv_reactor_serve_inbox(loop);
    return true;
}

// Looked at before the events of a turn: what is answered after the stop says close.
// With a new report of the drain.
static void hsrv_reactor_enter_grace(hsrv_loop *loop, uint64_t ends) {
    __atomic_store_n(&loop->counters.finished, 0u, __ATOMIC_RELAXED);
    __atomic_store_n(&loop->counters.cut, 0u, __ATOMIC_RELAXED);
    loop->phase = HSRV_LOOP_GRACE;
    loop->phase_ends = ends;
}

static void hsrv_reactor_begin_grace(hsrv_loop *loop) {
    if (loop->phase != HSRV_LOOP_RUN || __atomic_load_n(&loop->srv->stop, __ATOMIC_ACQUIRE) == 0) return;
    hsrv_loop_note(loop, HTTPSRV_LOG_DRAINING, NULL, 0);
    hsrv_reactor_enter_grace(loop, loop->now + (uint64_t)loop->srv->config.timeout_ms.grace);
}

static void hsrv_reactor_drain(hsrv_loop *loop) {
    const httpsrv_config *config = &loop->srv->config;
    const uint32_t stop = __atomic_load_n(&loop->srv->stop, __ATOMIC_ACQUIRE);
    if (stop == 0 || loop->phase == HSRV_LOOP_DONE) return;
    hsrv_reactor_begin_grace(loop);
    if (loop->phase == HSRV_LOOP_GRACE && (stop > 1 || loop->now >= loop->phase_ends)) {
        if (!hsrv_reactor_all_handed_over(loop)) return;
        hsrv_reactor_begin_drain(loop, config->timeout_ms.drain);
    }
    if (loop->phase != HSRV_LOOP_DRAIN) return;
    hsrv_reactor_reap(loop);
    if (stop > 1 || loop->now >= loop->phase_ends) hsrv_reactor_sweep(loop, hsrv_reactor_cut);
    hsrv_reactor_serve_ready(loop);
    hsrv_reactor_reap(loop);
    if (loop->counters.open > 0) return;
    loop->phase = HSRV_LOOP_DONE;
    if (HSRV_LATER && loop->is_acceptor) hsrv_reactor_end_accepting(loop);
}

// ---- the turn ----

// ms until something is to be done even without an event; -1: nothing is foreseen.
static int hsrv_reactor_timeout(const hsrv_loop *loop) {
    if (loop->ready || loop->closing || hsrv_queue_inbox_pending(&loop->inbox)) return 0;
    if (loop->phase == HSRV_LOOP_RUN && __atomic_load_n(&loop->srv->stop, __ATOMIC_SEQ_CST) != 0) return 0;
    uint64_t next = hsrv_timers_next(loop);
    const bool ends = loop->phase != HSRV_LOOP_RUN && !loop->awaits_acceptors;
    if (ends && loop->phase_ends < next) next = loop->phase_ends;
    if (loop->accept_again != 0 && loop->accept_again < next) next = loop->accept_again;
    if (next == UINT64_MAX) return -1;
    const uint64_t now = hsrv_sys_monotonic_ms();
    if (next <= now) return 0;
    return next - now < INT_MAX ? (int)(next - now) : INT_MAX;
}

// Between turns the inbox is armed: a message that comes then writes the eventfd, one that came before makes the
// time-out zero. So it is for a host's loop, which sleeps where we cannot see it. False on a failure of epoll_wait.
static bool hsrv_reactor_turn(hsrv_loop *loop, int timeout_ms) {
    struct epoll_event events[HSRV_TURN_EVENTS];
    const int own = hsrv_reactor_timeout(loop);
    if (own >= 0 && (timeout_ms < 0 || own < timeout_ms)) timeout_ms = own;
    const int n = hsrv_sys_epoll_wait(loop->epfd, events, HSRV_TURN_EVENTS, timeout_ms);
    const bool ok = n >= 0 || errno == EINTR;
    hsrv_loop_enter(loop);
    hsrv_queue_inbox_disarm(&loop->inbox);
    hsrv_loop_look_at_clock(loop);
    hsrv_reactor_begin_grace(loop);
    for (int i = 0; i < n; i++) {
        hsrv_reactor_on_event(loop, &events[i]);
    }
    hsrv_reactor_serve_ready(loop);
    hsrv_reactor_serve_inbox(loop);
    hsrv_dispatch_serve_waiting(loop);
    hsrv_reactor_serve_timers(loop);
    hsrv_reactor_accept_again(loop);
    hsrv_reactor_drain(loop);
    hsrv_dispatch_wake_pools(loop);
    hsrv_reactor_reap(loop);
    hsrv_loop_unshield(loop);
    hsrv_queue_inbox_arm(&loop->inbox);
    loop->in_turn = false;
    return ok;
}

// ===========================================================================================
// >>server    Defaults, validation, listeners, lifecycle, drain.    owns: the server    thread: setup; stop any
//             uses: >>content >>reactor
// ===========================================================================================

#define HSRV_MAX_CONNECTIONS 1048576
#define HSRV_MAX_REACTORS    1024
#define HSRV_MAX_THREADS     4096
#define HSRV_MAX_QUEUE       (1 << 24)
#define HSRV_MAX_TIMEOUT     86400000  // ms: a day
#define HSRV_MAX_RATE        100000000 // bytes per second
#define HSRV_KEPT_BACK       64        // descriptors that max.connections leaves to others

// ---- errors ----

// Keeps the first error, with its words.
HTTPSRV_PRINTF(3, 4)
static httpsrv_result hsrv_server_fail(httpsrv *srv, httpsrv_result result, const char *format, ...) {
    if (srv->result != HTTPSRV_OK) return result;
    va_list args;
    va_start(args, format);
    vsnprintf(srv->error, sizeof srv->error, format, args);
    va_end(args);
    srv->result = result;
    return result;
}

// ---- configuration ----

// What a number may be. A negative one means "off" where `off` allows it and is kept as -1.
typedef struct hsrv_range {
    const char *name;
    int64_t fallback, least, most;
    bool off;
} hsrv_range;

// Resolves a number of the configuration: default, off, none, or itself if it is in range.
static int64_t hsrv_server_number(httpsrv *srv, int64_t value, const hsrv_range *range) {
    if (value == 0) return range->fallback;
    if (value == HTTPSRV_ZERO)
        value = 0;
    else if (value < 0 && range->off)
        return -1;
    if (value >= range->least && value <= range->most) return value;
    hsrv_server_fail(srv, HTTPSRV_ARG, "%s: %lld is not between %lld and %lld", range->name, (long long)value,
                     (long long)range->least, (long long)range->most);
    return range->fallback;
}

static int hsrv_server_int(httpsrv *srv, int value, const char *name, int fallback, int least, int most, bool off) {
    const hsrv_range range = {name, fallback, least, most, off};
    return (int)hsrv_server_number(srv, value, &range);
}

static int hsrv_server_default_connections(void) {
    uint64_t soft;
    if (hsrv_sys_descriptor_limit(&soft) != 0) return 1024 - HSRV_KEPT_BACK;
    if (soft <= 2 * HSRV_KEPT_BACK) return soft > 2 ? (int)(soft / 2) : 1;
    return soft - HSRV_KEPT_BACK < HSRV_MAX_CONNECTIONS ? (int)(soft - HSRV_KEPT_BACK) : HSRV_MAX_CONNECTIONS;
}

// The numbers that depend on nothing, in the order in which the first that is wrong is told.
static void hsrv_server_complete_numbers(httpsrv *srv) {
#define HSRV_NUMBER(field, fallback, least, most, off)                         \
    {                                                                          \
        {#field, fallback, least, most, off}, offsetof(httpsrv_config, field), \
            sizeof(((httpsrv_config *)NULL)->field) == sizeof(int64_t)         \
    }
    static const struct {
        hsrv_range range;
        size_t at;
        bool wide; // int64_t, else int
    } numbers[] = {
        HSRV_NUMBER(reactors, 1, 1, HSRV_MAX_REACTORS, false),
        HSRV_NUMBER(acceptors, 0, 0, HSRV_MAX_REACTORS, false),
        HSRV_NUMBER(socket_mode, 0, 0, 07777, false),
        HSRV_NUMBER(backlog, 1024, 1, 65535, false),
        HSRV_NUMBER(port, 0, 0, 65535, false),
        HSRV_NUMBER(max.connections, 1, 1, HSRV_MAX_CONNECTIONS, true),
        HSRV_NUMBER(max.per_ip, -1, 1, HSRV_MAX_CONNECTIONS, true),
        HSRV_NUMBER(max.head, 16384, 16, HSRV_MAX_HEAD, false),
        HSRV_NUMBER(max.uri, 8192, 16, HSRV_MAX_HEAD, false),
        HSRV_NUMBER(max.headers, 100, 1, HSRV_MAX_FIELDS, false),
        HSRV_NUMBER(max.body, 1 << 20, 0, INT64_MAX, true),
        HSRV_NUMBER(max.memory, -1, 0, INT64_MAX, true),
        HSRV_NUMBER(max.requests, -1, 1, INT_MAX, true),
        HSRV_NUMBER(timeout_ms.head, 10000, 1, HSRV_MAX_TIMEOUT, true),
        HSRV_NUMBER(timeout_ms.body, 10000, 1, HSRV_MAX_TIMEOUT, true),
        HSRV_NUMBER(timeout_ms.idle, 30000, 1, HSRV_MAX_TIMEOUT, true),
        HSRV_NUMBER(timeout_ms.write, 30000, 1, HSRV_MAX_TIMEOUT, true),
        HSRV_NUMBER(timeout_ms.handler, -1, 1, HSRV_MAX_TIMEOUT, true),
        HSRV_NUMBER(timeout_ms.drain, 10000, 0, HSRV_MAX_TIMEOUT, true),
        HSRV_NUMBER(timeout_ms.grace, 0, 0, HSRV_MAX_TIMEOUT, false),
        HSRV_NUMBER(timeout_ms.events, 15000, 1, HSRV_MAX_TIMEOUT, true),
        HSRV_NUMBER(write_mark.high, 262144, 1, 1 << 30, false),
        HSRV_NUMBER(compress.level, 5, 1, 9, true),
        HSRV_NUMBER(compress.min_size, 1024, 1, INT_MAX, false),
        HSRV_NUMBER(compress.large, 65536, 1, INT_MAX, true),
        HSRV_NUMBER(min_rate, 128, 0, HSRV_MAX_RATE, true),
    };
#undef HSRV_NUMBER
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        void *at = (char *)&srv->config + numbers[i].at;
        if (numbers[i].wide)
            *(int64_t *)at = hsrv_server_number(srv, *(int64_t *)at, &numbers[i].range);
        else
            *(int *)at = (int)hsrv_server_number(srv, *(int *)at, &numbers[i].range);
    }
}

static void hsrv_server_complete(httpsrv *srv) {
    httpsrv_config *c = &srv->config;
    const bool compress = c->compress.level || c->compress.min_size || c->compress.large || c->compress.pool;
    if (c->reactors == HTTPSRV_ALL_CPUS) c->reactors = hsrv_platform_cpu_count();
    if (c->max.connections == 0) c->max.connections = hsrv_server_default_connections();
    if (c->max.connections < 0 && c->max.connections != HTTPSRV_ZERO) c->max.connections = HSRV_MAX_CONNECTIONS;
    hsrv_server_complete_numbers(srv);
    const int64_t high = c->write_mark.high;
    const hsrv_range low = {"write_mark.low", high < 65536 ? high / 4 : 65536, 0, high, false};
    c->write_mark.low = hsrv_server_number(srv, c->write_mark.low, &low);
    if (c->handover < HTTPSRV_HANDOVER_LEAST || c->handover > HTTPSRV_HANDOVER_TURNS) {
        hsrv_server_fail(srv, HTTPSRV_ARG, "handover: %d is unknown", (int)c->handover);
    }
    if (HSRV_LATER && c->steer && (!c->affinity || c->acceptors > 0)) {
        hsrv_server_fail(srv, HTTPSRV_ARG, "steer: wants affinity, and reactors that accept");
    }
    if (!HSRV_CODES && (compress || c->compress.types)) {
        hsrv_server_fail(srv, HTTPSRV_UNSUPPORTED, "compress: built without HTTPSRV_ZLIB");
    }
    if (!HSRV_LATER && (c->steer || c->compress.pool || c->acceptors > 0)) {
        hsrv_server_fail(srv, HTTPSRV_UNSUPPORTED, "%s: built with HTTPSRV_INLINE_ONLY",
                         c->acceptors > 0 ? "acceptors"
                         : c->steer       ? "steer"
                                          : "compress.pool");
    }
    if (c->server_name && !hsrv_text_is_value(hsrv_text_of(c->server_name)) && c->server_name[0]) {
        hsrv_server_fail(srv, HTTPSRV_ARG, "server_name: has a character that no field may have");
    }
}

// ---- addresses ----

static bool hsrv_server_set_ipv4(hsrv_address *address, const char *host, int port) {
    struct sockaddr_in *in = (struct sockaddr_in *)(void *)&address->storage;
    memset(&address->storage, 0, sizeof address->storage);
    in->sin_family = AF_INET;
    in->sin_port = htons((uint16_t)port);
    address->len = sizeof *in;
    address->dual = false;
    return inet_pton(AF_INET, host, &in->sin_addr) == 1;
}

static bool hsrv_server_set_ipv6(hsrv_address *address, const char *host, int port, bool dual) {
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)(void *)&address->storage;
    memset(&address->storage, 0, sizeof address->storage);
    in6->sin6_family = AF_INET6;
    in6->sin6_port = htons((uint16_t)port);
    address->len = sizeof *in6;
    address->dual = dual;
    return inet_pton(AF_INET6, host, &in6->sin6_addr) == 1;
}

// There is room for one.
static hsrv_address *hsrv_server_next_address(httpsrv *srv, hsrv_address_kind kind) {
    hsrv_address *address = &srv->addresses[srv->num_addresses++];
    address->kind = kind;
    address->fd = address->port = -1;
    return address;
}

static void hsrv_server_add_unix(httpsrv *srv, const char *path) {
    hsrv_address *address = hsrv_server_next_address(srv, HSRV_ADDRESS_UNIX);
    struct sockaddr_un *un = (struct sockaddr_un *)(void *)&address->storage;
    const size_t len = strlen(path);
    snprintf(address->text, sizeof address->text, "unix:%.*s", (int)sizeof un->sun_path, path);
    if (len == 0 || len >= sizeof un->sun_path) {
        hsrv_server_fail(srv, HTTPSRV_ARG, "%s: a path of 1 to %d bytes is wanted", address->text,
                         (int)sizeof un->sun_path - 1);
        return;
    }
    un->sun_family = AF_UNIX;
    memcpy(un->sun_path, path, len + 1);
    address->len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + 1);
}

static void hsrv_server_add_inherited(httpsrv *srv, int fd) {
    hsrv_address *address = hsrv_server_next_address(srv, HSRV_ADDRESS_INHERITED);
    address->fd = fd;
    snprintf(address->text, sizeof address->text, "fd:%d", fd);
    for (const hsrv_address *other = srv->addresses; other < address; other++) {
        if (other->fd == fd) hsrv_server_fail(srv, HTTPSRV_ARG, "%s: named twice", address->text);
    }
}

static void hsrv_server_parse_fd(httpsrv *srv, const char *text) {
    const int64_t fd = hsrv_text_parse_number(hsrv_text_of(text));
    if (fd >= 0 && fd <= INT_MAX)
        hsrv_server_add_inherited(srv, (int)fd);
    else
        hsrv_server_fail(srv, HTTPSRV_ARG, "fd:%s: not a descriptor", text);
}

// sd_listen_fds(3): descriptors from 3 on, if they are meant for this process.
static void hsrv_server_take_systemd(httpsrv *srv) {
    const char *pid = getenv("LISTEN_PID"), *fds = getenv("LISTEN_FDS");
    const int64_t count = fds ? hsrv_text_parse_number(hsrv_text_of(fds)) : -1;
    if (!pid || hsrv_text_parse_number(hsrv_text_of(pid)) != (int64_t)getpid() || count < 1) {
        hsrv_server_fail(srv, HTTPSRV_ARG, "systemd: LISTEN_PID and LISTEN_FDS give this process no sockets");
        return;
    }
    if (count > HTTPSRV_MAX_LISTENERS - srv->num_addresses) {
        hsrv_server_fail(srv, HTTPSRV_ARG, "systemd: %lld sockets are more than HTTPSRV_MAX_LISTENERS leaves room for",
                         (long long)count);
        return;
    }
    for (int i = 0; i < (int)count; i++) {
        hsrv_server_add_inherited(srv, 3 + i);
    }
}

// "" stands for all addresses. Adds to srv->addresses.
static void hsrv_server_add_address(httpsrv *srv, const char *host, int port) {
    hsrv_address *address = hsrv_server_next_address(srv, HSRV_ADDRESS_TCP);
    const bool is_v6 = strchr(host, ':') != NULL;
    snprintf(address->text, sizeof address->text, is_v6 ? "[%s]:%d" : "%s:%d", host[0] ? host : "*", port);
    if (strcmp(host, "localhost") == 0) host = "127.0.0.1";
    const bool ok = host[0] == '\0' ? hsrv_server_set_ipv6(address, "::", port, true)
                    : is_v6         ? hsrv_server_set_ipv6(address, host, port, false)
                                    : hsrv_server_set_ipv4(address, host, port);
    if (!ok) hsrv_server_fail(srv, HTTPSRV_ARG, "%s: not a numeric address", address->text);
}

// "host:port", "[ipv6]:port", "*:port".
static void hsrv_server_parse_address(httpsrv *srv, const char *text) {
    char host[INET6_ADDRSTRLEN + 8];
    const char *colon = strrchr(text, ':'), *start = text;
    const int64_t port = colon ? hsrv_text_parse_number(hsrv_text_of(colon + 1)) : -1;
    size_t len = colon ? (size_t)(colon - text) : 0;
    const bool bracketed = len >= 2 && text[0] == '[' && text[len - 1] == ']';
    if (bracketed) {
        start++;
        len -= 2;
    }
    const bool is_v6 = len > 0 && memchr(start, ':', len);
    if (len == 0 || len >= sizeof host || port < 0 || port > 65535 || bracketed != is_v6) {
        hsrv_server_fail(srv, HTTPSRV_ARG, "%s: not an address with a port, like 127.0.0.1:80 or [::1]:80", text);
        return;
    }
    memcpy(host, start, len);
    host[len] = '\0';
    hsrv_server_add_address(srv, strcmp(host, "*") == 0 ? "" : host, (int)port);
}

static void hsrv_server_take_address(httpsrv *srv, const char *text) {
    if (srv->num_addresses == HTTPSRV_MAX_LISTENERS)
        hsrv_server_fail(srv, HTTPSRV_ARG, "%s: more addresses than HTTPSRV_MAX_LISTENERS", text);
    else if (strncmp(text, "unix:", 5) == 0)
        hsrv_server_add_unix(srv, text + 5);
    else if (strncmp(text, "fd:", 3) == 0)
        hsrv_server_parse_fd(srv, text + 3);
    else if (strcmp(text, "systemd") == 0)
        hsrv_server_take_systemd(srv);
    else
        hsrv_server_parse_address(srv, text);
}

static void hsrv_server_take_addresses(httpsrv *srv) {
    const httpsrv_config *config = &srv->config;
    for (int i = 0; i < HTTPSRV_MAX_LISTENERS && config->listen[i]; i++) {
        hsrv_server_take_address(srv, config->listen[i]);
    }
    if (srv->num_addresses > 0 || srv->result != HTTPSRV_OK) return;
    if (config->host && strlen(config->host) >= INET6_ADDRSTRLEN) {
        hsrv_server_fail(srv, HTTPSRV_ARG, "host: too long for a numeric address");
        return;
    }
    hsrv_server_add_address(srv, config->host ? config->host : "", config->port);
}

// ---- pools ----

static int hsrv_server_loop_count(const httpsrv *srv) {
    return srv->config.reactors + (HSRV_LATER ? srv->config.acceptors : 0);
}

// The CPU that follows those of the loops and of the pools there are.
static int hsrv_server_next_cpu(const httpsrv *srv) {
    int cpu = hsrv_server_loop_count(srv);
    for (int i = 0; i < srv->num_pools; i++) {
        cpu += srv->pools[i]->want_threads;
    }
    return cpu;
}

// [any]: httpsrv_submit asks while httpsrv_listen may add one.
static hsrv_pool *hsrv_server_find_pool(const httpsrv *srv, const char *name) {
    const int count = __atomic_load_n(&srv->num_pools, __ATOMIC_ACQUIRE);
    for (int i = 0; i < count; i++) {
        if (strcmp(srv->pools[i]->name, name) == 0) return srv->pools[i];
    }
    return NULL;
}

// A pool has room again: wakes the loops in which requests wait for that. [worker]
static void hsrv_server_room(void *arg) {
    httpsrv *srv = (httpsrv *)arg;
    hsrv_loop **loops = __atomic_load_n(&srv->wake, __ATOMIC_ACQUIRE);
    for (int i = 0; loops && i < srv->config.reactors; i++) {
        if (__atomic_load_n(&loops[i]->starved, __ATOMIC_SEQ_CST) != 0) hsrv_sys_eventfd_add(loops[i]->wakefd);
    }
}

static hsrv_pool *hsrv_server_add_pool(httpsrv *srv, const httpsrv_pool_config *config) {
    const int cpus = hsrv_platform_cpu_count();
    const int threads = hsrv_server_int(srv, config->threads, "pools[].threads", cpus, 1, HSRV_MAX_THREADS, false);
    const int queue = hsrv_server_int(srv, config->queue, "pools[].queue", 1024, 1, HSRV_MAX_QUEUE, false);
    if (srv->result != HTTPSRV_OK) return NULL;
    hsrv_pool *pool = hsrv_pool_new(&srv->memory, config->name, threads, queue);
    if (!pool) {
        hsrv_server_fail(srv, HTTPSRV_NOMEM, "pool %s: out of memory", config->name);
        return NULL;
    }
    if (srv->config.affinity) pool->cpu = hsrv_server_next_cpu(srv);
    pool->room = hsrv_server_room;
    pool->room_arg = srv;
    srv->pools[srv->num_pools] = pool;
    __atomic_store_n(&srv->num_pools, srv->num_pools + 1, __ATOMIC_RELEASE);
    return pool;
}

static void hsrv_server_take_pools(httpsrv *srv) {
    for (int i = 0; i < HTTPSRV_MAX_POOLS && srv->result == HTTPSRV_OK; i++) {
        const httpsrv_pool_config *config = &srv->config.pools[i];
        if (!config->name) continue;
        if (!HSRV_LATER) {
            hsrv_server_fail(srv, HTTPSRV_UNSUPPORTED, "pool %s: built with HTTPSRV_INLINE_ONLY", config->name);
            return;
        }
        if (config->name[0] == '\0' || strlen(config->name) > 31 || hsrv_server_find_pool(srv, config->name)) {
            hsrv_server_fail(srv, HTTPSRV_ARG, "pool \"%s\": name empty, too long or taken", config->name);
            return;
        }
        hsrv_server_add_pool(srv, config);
    }
}

// The pool that a route names; "default" comes into being when it is first named.
static hsrv_pool *hsrv_server_route_pool(httpsrv *srv, const char *name) {
    hsrv_pool *pool = hsrv_server_find_pool(srv, name);
    if (pool || strcmp(name, "default") != 0) return pool;
    httpsrv_pool_config config;
    memset(&config, 0, sizeof config);
    config.name = name;
    return hsrv_server_add_pool(srv, &config);
}

// ---- compression ----

// What the configuration names. False when out of memory.
static bool hsrv_server_keep_compress(httpsrv *srv) {
    static const char types[] = "text/*, application/json, application/javascript, application/xml, application/wasm, "
                                "*+json, *+xml";
    const httpsrv_config *c = &srv->config;
    if (!HSRV_CODES || c->compress.level < 1) return true;
    srv->compress_types = hsrv_memory_copy_text(&srv->memory, c->compress.types ? c->compress.types : types);
    if (!HSRV_LATER || c->compress.large < 1) return srv->compress_types != NULL;
    srv->packer_name = hsrv_memory_copy_text(&srv->memory, c->compress.pool ? c->compress.pool : "default");
    return srv->compress_types && srv->packer_name;
}

static httpsrv_result hsrv_server_complete_packer(httpsrv *srv) {
    if (!HSRV_LATER || !srv->packer_name) return HTTPSRV_OK;
    srv->packer = hsrv_server_route_pool(srv, srv->packer_name);
    if (srv->packer || srv->result != HTTPSRV_OK) return srv->result;
    return hsrv_server_fail(srv, HTTPSRV_ARG, "compress.pool: no pool is named \"%s\"", srv->packer_name);
}

// ---- filters ----

static httpsrv_result hsrv_server_use(httpsrv *srv, const char *prefix, httpsrv_filter fn, void *user) {
    if (srv->state != HSRV_SERVER_SETUP) return HTTPSRV_STATE;
    if (!prefix || prefix[0] != '/' || !fn) {
        return hsrv_server_fail(srv, HTTPSRV_ROUTE, "filter \"%s\": a path and a function are wanted",
                                prefix ? prefix : "");
    }
    size_t len = strlen(prefix);
    if (prefix[len - 1] == '/') len--;
    hsrv_filter *filter = (hsrv_filter *)hsrv_memory_take_zeroed(&srv->memory, sizeof *filter + len);
    if (!filter) return hsrv_server_fail(srv, HTTPSRV_NOMEM, "filter \"%s\": out of memory", prefix);
    memcpy(filter + 1, prefix, len);
    filter->prefix_len = len;
    filter->fn = fn;
    filter->user = user;
    *srv->filters_end = filter;
    srv->filters_end = &filter->next;
    return HTTPSRV_OK;
}

static void hsrv_server_free_filters(httpsrv *srv) {
    while (srv->filters) {
        hsrv_filter *filter = srv->filters;
        srv->filters = filter->next;
        hsrv_memory_give(&srv->memory, filter, sizeof *filter + filter->prefix_len);
    }
    if (srv->rates) hsrv_content_free_rates(&srv->memory, srv->rates);
}

// ---- life ----

// NULL when out of memory. Errors of the configuration stay in srv->result.
static HSRV_SETUP httpsrv *hsrv_server_new(const httpsrv_config *config) {
    hsrv_memory memory;
    hsrv_memory_init(&memory, config->allocator.fn, config->allocator.user);
    httpsrv *srv = (httpsrv *)hsrv_memory_take_zeroed(&memory, sizeof *srv);
    if (!srv) return NULL;
    srv->memory = memory;
    srv->config = *config;
    srv->shortest_timeout_ms = -1;
    srv->filters_end = &srv->filters;
    hsrv_router_init(&srv->router);
    hsrv_server_complete(srv);
    if (srv->config.max.memory >= 0 && (uint64_t)srv->config.max.memory < SIZE_MAX) {
        srv->memory.most = (size_t)srv->config.max.memory;
    }
    srv->server_name = hsrv_memory_copy_text(&srv->memory, config->server_name ? config->server_name : "httpsrv");
    if (!srv->server_name) {
        hsrv_memory_give(&memory, srv, sizeof *srv);
        return NULL;
    }
    if (!hsrv_server_keep_compress(srv)) hsrv_server_fail(srv, HTTPSRV_NOMEM, "compress: out of memory");
    hsrv_server_take_addresses(srv);
    hsrv_server_take_pools(srv);
    srv->config.compress.pool = srv->config.compress.types = NULL;
    srv->config.host = srv->config.server_name = NULL; // not ours to keep; nor are the names in listen and pools
    memset(srv->config.listen, 0, sizeof srv->config.listen);
    memset(srv->config.pools, 0, sizeof srv->config.pools);
    return srv;
}

// "type/subtype", "type/*" or "*/*", RFC 9110 section 12.5.1.
static bool hsrv_server_is_media_range(httpsrv_str s) {
    const char *slash = (const char *)memchr(s.ptr, '/', s.len);
    if (!slash) return false;
    const httpsrv_str type = hsrv_text_view(s.ptr, (size_t)(slash - s.ptr));
    const httpsrv_str subtype = hsrv_text_view(slash + 1, s.len - type.len - 1);
    if (!hsrv_text_is_token(type) || !hsrv_text_is_token(subtype)) return false;
    const bool any_type = hsrv_text_equal(type, hsrv_text_of("*")), any = hsrv_text_equal(subtype, hsrv_text_of("*"));
    if (any_type) return any;
    return any || !memchr(subtype.ptr, '*', subtype.len);
}

static httpsrv_result hsrv_server_keep_media(httpsrv *srv, hsrv_route *route, const httpsrv_route_config *config) {
    for (int i = 0; i < HTTPSRV_MAX_MEDIA && config->media[i].type; i++) {
        httpsrv_media *media = &route->media[i];
        *media = config->media[i];
        media->type = hsrv_memory_copy_text(&srv->memory, media->type);
        if (!media->type) return HTTPSRV_NOMEM;
        route->num_media++;
    }
    return HTTPSRV_OK;
}

// Whether requests of a route can be answered later than its handler returns.
static bool hsrv_server_is_later(const httpsrv_route_config *config) {
    bool later = config->pool || config->stream || config->on_body;
    for (int i = 0; i < HTTPSRV_MAX_MEDIA && config->media[i].type; i++) {
        later = later || config->media[i].on_body;
    }
    return later;
}

// Why the ways in which bodies are taken do not go together; NULL if they do.
static const char *hsrv_server_check_bodies(const httpsrv_route_config *config) {
    bool on_body = config->on_body != NULL;
    for (int i = 0; i < HTTPSRV_MAX_MEDIA && config->media[i].type; i++) {
        const httpsrv_media *media = &config->media[i];
        if (!hsrv_server_is_media_range(hsrv_text_of(media->type))) return "malformed media type";
        on_body = on_body || media->on_body;
    }
    if (on_body && config->pool) return "on_body runs on the reactor, not in a pool";
    if (on_body && config->stream) return "on_body and stream exclude each other";
    if (config->stream && !config->pool) return "stream needs a pool";
    if (config->stream && config->overload == HTTPSRV_OVERLOAD_INLINE) return "stream cannot run on the reactor";
    return NULL;
}

static httpsrv_result hsrv_server_keep_route(httpsrv *srv, hsrv_route *route, const httpsrv_route_config *config) {
    route->handler = config->handler;
    route->on_body = config->on_body;
    route->stream = config->stream;
    route->user = config->user;
    route->max_body = config->max_body;
    route->overload = config->overload;
    route->timeout_ms = config->timeout_ms;
    route->uncompressed = config->uncompressed;
    route->gunzip = config->gunzip;
    route->pattern = hsrv_memory_copy_text(&srv->memory, config->pattern);
    if (!route->pattern) return HTTPSRV_NOMEM;
    if (config->pool) route->pool_name = hsrv_memory_copy_text(&srv->memory, config->pool);
    if (config->pool && !route->pool_name) return HTTPSRV_NOMEM;
    const httpsrv_result result = hsrv_server_keep_media(srv, route, config);
    if (result != HTTPSRV_OK) return result;
    return hsrv_router_add(&srv->router, &srv->memory, route);
}

static HSRV_SETUP httpsrv_result hsrv_server_add_route(httpsrv *srv, const httpsrv_route_config *config) {
    if (srv->state != HSRV_SERVER_SETUP) return HTTPSRV_STATE;
    if (config->overload < HTTPSRV_OVERLOAD_REFUSE || config->overload > HTTPSRV_OVERLOAD_WAIT) {
        return hsrv_server_fail(srv, HTTPSRV_ARG, "route %s: unknown overload policy %d",
                                config->pattern ? config->pattern : "", (int)config->overload);
    }
    if (!config->pattern || (!config->handler && !config->on_body)) {
        return hsrv_server_fail(srv, HTTPSRV_ROUTE, "route %s: pattern or handler missing",
                                config->pattern ? config->pattern : "");
    }
    if (config->gunzip && !HSRV_CODES) {
        return hsrv_server_fail(srv, HTTPSRV_UNSUPPORTED, "route \"%s\": gunzip needs HTTPSRV_ZLIB", config->pattern);
    }
    if (!HSRV_LATER && hsrv_server_is_later(config)) {
        return hsrv_server_fail(srv, HTTPSRV_UNSUPPORTED, "route \"%s\": built with HTTPSRV_INLINE_ONLY",
                                config->pattern);
    }
    const char *clash = hsrv_server_check_bodies(config);
    if (clash) return hsrv_server_fail(srv, HTTPSRV_ROUTE, "route \"%s\": %s", config->pattern, clash);
    hsrv_route *route = (hsrv_route *)hsrv_memory_take_zeroed(&srv->memory, sizeof *route);
    if (!route) return hsrv_server_fail(srv, HTTPSRV_NOMEM, "route %s: out of memory", config->pattern);
    const httpsrv_result result = hsrv_server_keep_route(srv, route, config);
    if (result == HTTPSRV_OK) return result;
    hsrv_router_free_route(&srv->memory, route);
    const char *why = result == HTTPSRV_NOMEM         ? "out of memory"
                      : result == HTTPSRV_UNSUPPORTED ? "built without regular expressions"
                                                      : "malformed or taken twice";
    return hsrv_server_fail(srv, result, "route \"%s\": %s", config->pattern, why);
}

// ---- files and assets ----

// "/files" and "/files/" stand for the same.
static bool hsrv_server_prefix_valid(const char *prefix) {
    return prefix && prefix[0] == '/' && !strpbrk(prefix, ":*?#~ ") && strlen(prefix) < 512 && !strstr(prefix, "//");
}

static httpsrv_result hsrv_server_add_mount_route(httpsrv *srv, hsrv_mount *mount, const char *prefix, bool beneath,
                                                  httpsrv_handler handler) {
    char pattern[600];
    httpsrv_route_config route;
    size_t len = strlen(prefix);
    while (len > 0 && prefix[len - 1] == '/') {
        len--;
    }
    if (!beneath && len == 0) return HTTPSRV_OK;
    memset(&route, 0, sizeof route);
    snprintf(pattern, sizeof pattern, beneath ? "GET %.*s/*path" : "GET %.*s", (int)len, prefix);
    route.pattern = pattern;
    route.handler = handler;
    route.user = mount;
    route.pool = mount->config.pool;
    return hsrv_server_add_route(srv, &route);
}

// The mount belongs to the server from here on, whatever comes of its routes.
static httpsrv_result hsrv_server_add_mount(httpsrv *srv, hsrv_mount *mount, const char *prefix,
                                            httpsrv_handler handler, httpsrv_handler at_prefix) {
    mount->next = srv->mounts;
    srv->mounts = mount;
    const httpsrv_result result = hsrv_server_add_mount_route(srv, mount, prefix, true, handler);
    if (result != HTTPSRV_OK) return result;
    return hsrv_server_add_mount_route(srv, mount, prefix, false, at_prefix);
}

static bool hsrv_server_type_valid(const char *type) {
    return type && type[0] && hsrv_text_is_value(hsrv_text_of(type));
}

static httpsrv_result hsrv_server_complete_files(httpsrv *srv, httpsrv_files_config *config) {
    config->max_open = hsrv_server_int(srv, config->max_open, "files: max_open", 64, 1, 65536, true);
    config->fresh_ms = hsrv_server_int(srv, config->fresh_ms, "files: fresh_ms", 1000, 0, HSRV_MAX_TIMEOUT, false);
    if (config->cache_control && !hsrv_text_is_value(hsrv_text_of(config->cache_control)))
        hsrv_server_fail(srv, HTTPSRV_ARG, "files: cache_control has a character that no field may have");
    for (const httpsrv_mime *mime = config->types; mime && mime->extension; mime++) {
        if (!hsrv_server_type_valid(mime->type))
            hsrv_server_fail(srv, HTTPSRV_ARG, "files: the type of .%s has a character that no field may have",
                             mime->extension);
    }
    if (config->index && (strchr(config->index, '/') || strlen(config->index) > 128))
        hsrv_server_fail(srv, HTTPSRV_ARG, "files: index is no file name");
    return srv->result;
}

// What is wrong with an asset; NULL if nothing is.
static const char *hsrv_server_check_asset(const httpsrv_asset *asset) {
    httpsrv_str tag, list = hsrv_text_of(asset->etag);
    if (asset->path[0] != '/') return "a path has no slash in front";
    if ((asset->len > 0 && !asset->data) || (asset->gzip_len > 0 && !asset->gzip)) return "data are missing";
    if (asset->type && !hsrv_server_type_valid(asset->type)) return "a type has a character that no field may have";
    const bool is_tag = !asset->etag || (hsrv_frames_next_tag(&list, &tag) && list.len == 0 && hsrv_text_is_value(tag));
    return is_tag ? NULL : "an etag is no entity tag";
}

static HSRV_SETUP httpsrv_result hsrv_server_add_files(httpsrv *srv, const char *prefix,
                                                       const httpsrv_files_config *given) {
    httpsrv_files_config config = *given;
    httpsrv_result result;
    if (srv->state != HSRV_SERVER_SETUP) return HTTPSRV_STATE;
    if (!hsrv_server_prefix_valid(prefix)) {
        return hsrv_server_fail(srv, HTTPSRV_ROUTE, "files \"%s\": not a path", prefix ? prefix : "");
    }
    if (!config.root) return hsrv_server_fail(srv, HTTPSRV_ARG, "files \"%s\": root is missing", prefix);
    if (hsrv_server_complete_files(srv, &config) != HTTPSRV_OK) return srv->result;
    hsrv_mount *mount = hsrv_content_mount_files(srv, &config, &result);
    if (!mount) {
        return hsrv_server_fail(srv, result, "files \"%s\": %s: %s", prefix, config.root,
                                result == HTTPSRV_SYS ? strerror(errno) : "out of memory");
    }
    return hsrv_server_add_mount(srv, mount, prefix, hsrv_content_serve_files, hsrv_content_serve_prefix);
}

static HSRV_SETUP httpsrv_result hsrv_server_add_assets(httpsrv *srv, const char *prefix, const httpsrv_asset *table) {
    if (srv->state != HSRV_SERVER_SETUP) return HTTPSRV_STATE;
    if (!hsrv_server_prefix_valid(prefix)) {
        return hsrv_server_fail(srv, HTTPSRV_ROUTE, "assets \"%s\": not a path", prefix ? prefix : "");
    }
    if (!table) return hsrv_server_fail(srv, HTTPSRV_ARG, "assets \"%s\": no table", prefix);
    for (const httpsrv_asset *asset = table; asset->path; asset++) {
        const char *wrong = hsrv_server_check_asset(asset);
        if (wrong) return hsrv_server_fail(srv, HTTPSRV_ARG, "asset \"%s\": %s", asset->path, wrong);
    }
    hsrv_mount *mount = hsrv_content_mount_assets(srv, table);
    if (!mount) return hsrv_server_fail(srv, HTTPSRV_NOMEM, "assets \"%s\": out of memory", prefix);
    return hsrv_server_add_mount(srv, mount, prefix, hsrv_content_serve_asset, hsrv_content_serve_asset_prefix);
}

static void hsrv_server_free_mounts(httpsrv *srv) {
    while (srv->mounts) {
        hsrv_mount *mount = srv->mounts;
        srv->mounts = mount->next;
        hsrv_content_free_mount(mount);
    }
}

static void hsrv_server_complete_route_timeout(httpsrv *srv, hsrv_route *route) {
    const int fallback = srv->config.timeout_ms.handler;
    route->timeout_ms =
        hsrv_server_int(srv, route->timeout_ms, "route timeout_ms", fallback, 1, HSRV_MAX_TIMEOUT, true);
    if (route->timeout_ms < 0) return;
    if (srv->shortest_timeout_ms < 0 || route->timeout_ms < srv->shortest_timeout_ms) {
        srv->shortest_timeout_ms = route->timeout_ms;
    }
}

static int hsrv_server_pool_number(const httpsrv *srv, const hsrv_pool *pool) {
    int n = 0;
    while (srv->pools[n] != pool) {
        n++;
    }
    return n;
}

// What could not be known before all of setup was: pools by name, the server's defaults.
static httpsrv_result hsrv_server_complete_route(httpsrv *srv, hsrv_route *route) {
    hsrv_server_complete_route_timeout(srv, route);
    if (route->max_body == 0)
        route->max_body = srv->config.max.body;
    else if (route->max_body == HTTPSRV_ZERO)
        route->max_body = 0;
    else if (route->max_body < 0)
        route->max_body = -1;
    if (!HSRV_LATER || !route->pool_name) return HTTPSRV_OK;
    route->pool = hsrv_server_route_pool(srv, route->pool_name);
    if (route->pool) route->pool_number = hsrv_server_pool_number(srv, route->pool);
    if (route->pool || srv->result != HTTPSRV_OK) return srv->result;
    return hsrv_server_fail(srv, HTTPSRV_ROUTE, "route \"%s\": no pool is named \"%s\"", route->pattern,
                            route->pool_name);
}

static httpsrv_result hsrv_server_complete_routes(httpsrv *srv) {
    hsrv_router *router = &srv->router;
    for (hsrv_node *node = &router->asterisk; node; node = hsrv_router_next(router, node)) {
        for (hsrv_route *route = node->routes; route && srv->result == HTTPSRV_OK; route = route->next) {
            hsrv_server_complete_route(srv, route);
        }
    }
    hsrv_server_complete_packer(srv);
    srv->no_route.max_body = srv->config.max.body;
    hsrv_server_complete_route_timeout(srv, &srv->no_route);
    if (srv->result == HTTPSRV_OK && !hsrv_router_build(router, &srv->memory)) {
        hsrv_server_fail(srv, HTTPSRV_NOMEM, "routes: out of memory");
    }
    return srv->result;
}

// ---- listening ----

#define HSRV_DEFER_ACCEPT 10 // s after which the kernel hands over, or drops, a connection on which nothing has come

static int hsrv_server_set_options(const hsrv_address *address, int fd, bool sibling, bool defer) {
    const bool is_v6 = address->storage.ss_family == AF_INET6;
    if (hsrv_sys_setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, 1) != 0) return -1;
    if (is_v6 && hsrv_sys_setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, !address->dual) != 0) return -1;
    if (sibling && hsrv_sys_setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, 1) != 0) return -1;
    if (defer && hsrv_sys_setsockopt(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, HSRV_DEFER_ACCEPT) != 0) return -1;
    return hsrv_sys_setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, 1); // accepted sockets inherit it
}

static uint16_t *hsrv_server_port_of(struct sockaddr_storage *storage) {
    return storage->ss_family == AF_INET6 ? &((struct sockaddr_in6 *)(void *)storage)->sin6_port
                                          : &((struct sockaddr_in *)(void *)storage)->sin_port;
}

// Binding to port 0 chooses a port: the siblings take the same one. The address keeps its 0 for the next listen.
static int hsrv_server_bind(httpsrv *srv, hsrv_address *address, int fd) {
    struct sockaddr_storage storage = address->storage;
    if (address->port >= 0) *hsrv_server_port_of(&storage) = htons((uint16_t)address->port);
    if (hsrv_sys_bind(fd, (const struct sockaddr *)&storage, address->len) != 0) return -1;
    if (hsrv_sys_listen(fd, srv->config.backlog) != 0) return -1;
    socklen_t len = sizeof storage;
    if (hsrv_sys_getsockname(fd, (struct sockaddr *)&storage, &len) != 0) return -1;
    __atomic_store_n(&address->port, (int)ntohs(*hsrv_server_port_of(&storage)), __ATOMIC_RELAXED);
    return 0;
}

// A listening socket, or -1 with errno.
static int hsrv_server_open_socket(httpsrv *srv, hsrv_address *address, bool sibling) {
    const int fd = hsrv_sys_socket(address->storage.ss_family);
    if (fd < 0) return -1;
    if (hsrv_server_set_options(address, fd, sibling, srv->config.defer_accept) == 0 &&
        hsrv_server_bind(srv, address, fd) == 0)
        return fd;
    const int err = errno;
    hsrv_sys_close(fd);
    errno = err;
    return -1;
}

// All addresses means IPv4 alone where the machine has no IPv6.
static int hsrv_server_open_address(httpsrv *srv, hsrv_address *address, bool sibling) {
    const int fd = hsrv_server_open_socket(srv, address, sibling);
    if (fd >= 0 || !address->dual || (errno != EAFNOSUPPORT && errno != EADDRNOTAVAIL)) return fd;
    const int port = ntohs(*hsrv_server_port_of(&address->storage));
    hsrv_server_set_ipv4(address, "0.0.0.0", port);
    return hsrv_server_open_socket(srv, address, sibling);
}

// A file that a server has left behind is in the way of its successor. Whether it was one, that nobody listens on.
static bool hsrv_server_remove_stale(const hsrv_address *address) {
    const struct sockaddr_un *un = (const struct sockaddr_un *)(const void *)&address->storage;
    if (hsrv_sys_socket_number(un->sun_path) == 0) return false;
    const int fd = hsrv_sys_socket(AF_UNIX);
    if (fd < 0) return false;
    const bool refused =
        hsrv_sys_connect(fd, (const struct sockaddr *)&address->storage, address->len) != 0 && errno == ECONNREFUSED;
    hsrv_sys_close(fd);
    return refused && hsrv_sys_unlink(un->sun_path) == 0;
}

static int hsrv_server_bind_unix(const hsrv_address *address, int fd) {
    if (hsrv_sys_bind(fd, (const struct sockaddr *)&address->storage, address->len) == 0) return 0;
    if (errno != EADDRINUSE) return -1;
    if (!hsrv_server_remove_stale(address)) {
        errno = EADDRINUSE;
        return -1;
    }
    return hsrv_sys_bind(fd, (const struct sockaddr *)&address->storage, address->len);
}

// Permissions are narrowed before the file is there, and widened, beyond umask, when it is.
static int hsrv_server_prepare_unix(httpsrv *srv, hsrv_address *address, int fd) {
    const struct sockaddr_un *un = (const struct sockaddr_un *)(const void *)&address->storage;
    const unsigned mode = (unsigned)srv->config.socket_mode;
    if (mode != 0 && hsrv_sys_fchmod(fd, mode) != 0) return -1;
    if (hsrv_server_bind_unix(address, fd) != 0) return -1;
    address->file = hsrv_sys_socket_number(un->sun_path);
    __atomic_store_n(&address->has_file, address->file != 0 ? 1u : 0u, __ATOMIC_RELAXED);
    if (mode != 0 && hsrv_sys_chmod(un->sun_path, mode) != 0) return -1;
    return hsrv_sys_listen(fd, srv->config.backlog);
}

// -1 with errno.
static int hsrv_server_open_unix(httpsrv *srv, hsrv_address *address) {
    const int fd = hsrv_sys_socket(AF_UNIX);
    if (fd < 0) return -1;
    if (hsrv_server_prepare_unix(srv, address, fd) == 0) return fd;
    const int err = errno;
    hsrv_sys_close(fd);
    errno = err;
    return -1;
}

// The port of a socket that somebody else has bound, 0 if it has none. Accepted sockets inherit the option.
static int hsrv_server_adopt(int fd) {
    struct sockaddr_storage storage;
    socklen_t len = sizeof storage;
    if (hsrv_sys_getsockname(fd, (struct sockaddr *)&storage, &len) != 0) return 0;
    if (storage.ss_family != AF_INET && storage.ss_family != AF_INET6) return 0;
    hsrv_sys_setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    return ntohs(*hsrv_server_port_of(&storage));
}

// Gives a loop its copy of a socket that several loops share. Of those that watch it the kernel wakes one.
static httpsrv_result hsrv_server_share(httpsrv *srv, int index, hsrv_loop *loop) {
    hsrv_address *address = &srv->addresses[index];
    const bool is_inherited = address->kind == HSRV_ADDRESS_INHERITED;
    if (address->fd < 0) address->fd = hsrv_server_open_unix(srv, address);
    const int fd = address->fd < 0 ? -1 : hsrv_sys_copy_listener(address->fd);
    if (fd < 0) return hsrv_server_fail(srv, HTTPSRV_SYS, "%s: %s", address->text, strerror(errno));
    loop->listeners[index] = fd;
    address->is_ours = is_inherited;
    __atomic_store_n(&address->port, is_inherited ? hsrv_server_adopt(fd) : 0, __ATOMIC_RELAXED);
    const uint32_t slot = HSRV_WAKE_SLOT - 1 - (uint32_t)index;
    if (hsrv_loop_watch(loop, fd, EPOLLIN | EPOLLEXCLUSIVE, 0, slot) == 0) return HTTPSRV_OK;
    return hsrv_server_fail(srv, HTTPSRV_SYS, "%s: %s", address->text, strerror(errno));
}

// The loops have their copies of a Unix socket: it is closed as soon as they have closed these.
static void hsrv_server_end_sharing(httpsrv *srv) {
    for (int i = 0; i < srv->num_addresses; i++) {
        if (srv->addresses[i].kind == HSRV_ADDRESS_UNIX) hsrv_loop_close_fd(&srv->addresses[i].fd);
    }
}

// The loops that accept: acceptors if there are any, else all.
static int hsrv_server_first_accepting(const httpsrv *srv) {
    return HSRV_LATER && srv->config.acceptors > 0 ? srv->config.reactors : 0;
}

// Reactors and acceptors.
// The first socket of an address is bound without SO_REUSEPORT, so that a second program on the port is told that it is
// in use, and gets the option right after, so that its siblings can join it.
static httpsrv_result hsrv_server_listen_on(httpsrv *srv, int index, hsrv_loop *loop) {
    hsrv_address *address = &srv->addresses[index];
    const int first = hsrv_server_first_accepting(srv);
    const bool sibling = loop->number > first;
    const int fd = hsrv_server_open_address(srv, address, sibling);
    if (fd < 0) return hsrv_server_fail(srv, HTTPSRV_SYS, "%s: %s", address->text, strerror(errno));
    loop->listeners[index] = fd;
    const bool open_to_siblings =
        sibling || srv->num_loops == first + 1 || hsrv_sys_setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, 1) == 0;
    if (open_to_siblings && hsrv_loop_watch(loop, fd, EPOLLIN, 0, HSRV_WAKE_SLOT - 1 - (uint32_t)index) == 0) {
        return HTTPSRV_OK;
    }
    return hsrv_server_fail(srv, HTTPSRV_SYS, "%s: %s", address->text, strerror(errno));
}

static hsrv_bpf hsrv_server_step(unsigned code, uint32_t operand) {
    hsrv_bpf step;
    step.code = (uint16_t)code;
    step.jt = 0;
    step.jf = code == HSRV_BPF_SKIP_UNLESS;
    step.k = operand;
    return step;
}

// Each reactor's socket gets the connections of the reactor's CPU; those of other CPUs are spread, as the number of no
// socket says. The kernel numbers the sockets of an address as they began to listen, so as the reactors are.
static httpsrv_result hsrv_server_steer(httpsrv *srv, const hsrv_address *address, int index) {
    const int count = srv->config.reactors;
    if (count == 1 || count > hsrv_platform_cpu_count()) return HTTPSRV_OK;
    const size_t len = 2 * (size_t)count + 2;
    hsrv_bpf *steps = (hsrv_bpf *)hsrv_memory_take(&srv->memory, len * sizeof *steps), *at = steps;
    if (!steps) return hsrv_server_fail(srv, HTTPSRV_NOMEM, "steer: out of memory");
    *at++ = hsrv_server_step(HSRV_BPF_LOAD, HSRV_BPF_CPU);
    for (int i = 0; i < count; i++) {
        *at++ = hsrv_server_step(HSRV_BPF_SKIP_UNLESS, (uint32_t)hsrv_platform_cpu(i));
        *at++ = hsrv_server_step(HSRV_BPF_RETURN, (uint32_t)i);
    }
    *at = hsrv_server_step(HSRV_BPF_RETURN, UINT32_MAX);
    const int err = hsrv_sys_steer(srv->loops[count - 1]->listeners[index], steps, len) == 0 ? 0 : errno;
    hsrv_memory_give(&srv->memory, steps, len * sizeof *steps);
    return err == 0 ? HTTPSRV_OK : hsrv_server_fail(srv, HTTPSRV_SYS, "steer: %s: %s", address->text, strerror(err));
}

static httpsrv_result hsrv_server_open_listeners(httpsrv *srv) {
    for (int i = hsrv_server_first_accepting(srv); i < srv->num_loops; i++) {
        for (int k = 0; k < srv->num_addresses; k++) {
            const bool is_tcp = srv->addresses[k].kind == HSRV_ADDRESS_TCP;
            hsrv_loop *loop = srv->loops[i];
            const httpsrv_result result =
                is_tcp ? hsrv_server_listen_on(srv, k, loop) : hsrv_server_share(srv, k, loop);
            if (result != HTTPSRV_OK) return result;
        }
        srv->loops[i]->accepting = true;
    }
    hsrv_server_end_sharing(srv);
    for (int k = 0; HSRV_LATER && k < srv->num_addresses && srv->config.steer; k++) {
        const hsrv_address *address = &srv->addresses[k];
        const httpsrv_result result =
            address->kind == HSRV_ADDRESS_TCP ? hsrv_server_steer(srv, address, k) : HTTPSRV_OK;
        if (result != HTTPSRV_OK) return result;
    }
    for (int i = 0; i < srv->num_loops; i++) {
        srv->loops[i]->phase = HSRV_LOOP_RUN;
    }
    __atomic_store_n(&srv->acceptors, (uint32_t)srv->config.acceptors, __ATOMIC_RELAXED);
    return HTTPSRV_OK;
}

static void hsrv_server_close_listeners(httpsrv *srv) {
    for (int i = 0; i < srv->num_addresses; i++) {
        __atomic_store_n(&srv->addresses[i].port, -1, __ATOMIC_RELAXED);
        hsrv_reactor_remove_file(&srv->addresses[i]);
    }
    for (int i = 0; i < srv->num_loops; i++) {
        hsrv_reactor_close_listeners(srv->loops[i]);
    }
    hsrv_server_end_sharing(srv);
}

// Loops and pools are made by the first listen and stay until the end: a worker that was stuck in a drain may still
// bring its request home.
static httpsrv_result hsrv_server_make_loops(httpsrv *srv) {
    const int count = hsrv_server_loop_count(srv);
    if (srv->num_loops == count) return HTTPSRV_OK;
    if (!hsrv_conn_tally_init(srv)) return hsrv_server_fail(srv, HTTPSRV_NOMEM, "max.per_ip: out of memory");
    if (!srv->loops) srv->loops = (hsrv_loop **)hsrv_memory_take(&srv->memory, (size_t)count * sizeof(hsrv_loop *));
    if (!srv->loops) return hsrv_server_fail(srv, HTTPSRV_NOMEM, "reactors: out of memory");
    while (srv->num_loops < count) {
        httpsrv_result result;
        const uint32_t slots = (uint32_t)srv->config.max.connections + HSRV_MAX_REFUSALS;
        hsrv_loop *loop = hsrv_loop_new(srv, srv->num_loops, slots, &result);
        if (!loop) {
            const char *why = result == HTTPSRV_SYS ? strerror(errno) : "out of memory";
            return hsrv_server_fail(srv, result, "reactor %d: %s", srv->num_loops, why);
        }
        loop->is_acceptor = srv->num_loops >= srv->config.reactors;
        loop->cpu = srv->config.affinity ? srv->num_loops : -1;
        srv->loops[srv->num_loops++] = loop;
    }
    __atomic_store_n(&srv->wake, srv->loops, __ATOMIC_SEQ_CST);
    return HTTPSRV_OK;
}

static httpsrv_result hsrv_server_start_pools(httpsrv *srv) {
    for (int i = 0; HSRV_LATER && i < srv->num_pools; i++) {
        const int err = hsrv_pool_start(srv->pools[i]);
        if (err != 0) return hsrv_server_fail(srv, HTTPSRV_SYS, "pool %s: %s", srv->pools[i]->name, strerror(err));
    }
    return HTTPSRV_OK;
}

static HSRV_SETUP httpsrv_result hsrv_server_listen(httpsrv *srv) {
    if (srv->result != HTTPSRV_OK) return srv->result;
    if (srv->state != HSRV_SERVER_SETUP && srv->state != HSRV_SERVER_STOPPED) return HTTPSRV_STATE;
    if (srv->state == HSRV_SERVER_SETUP) hsrv_server_complete_routes(srv);
    if (srv->result == HTTPSRV_OK) hsrv_server_make_loops(srv);
    if (srv->result == HTTPSRV_OK) hsrv_server_open_listeners(srv);
    if (srv->result == HTTPSRV_OK) hsrv_server_start_pools(srv);
    if (srv->result != HTTPSRV_OK) {
        hsrv_server_close_listeners(srv);
        return srv->result;
    }
    for (int i = 0; i < srv->num_loops; i++) {
        hsrv_loop_note(srv->loops[i], HTTPSRV_LOG_LISTENING, NULL, 0);
    }
    __atomic_store_n(&srv->live, 1u, __ATOMIC_RELEASE);
    srv->state = HSRV_SERVER_LISTENING;
    return HTTPSRV_OK;
}

// ---- running ----

// Async-signal-safe: atomics and write. Each loop looks at the word in its next turn. Setting it and looking for loops
// to wake, against publishing the loops and looking at it before the first sleep, needs store-load order on both sides:
// all four are sequentially consistent.
static void hsrv_server_stop(httpsrv *srv) {
    const int err = errno;
    __atomic_fetch_add(&srv->stopping, 1u, __ATOMIC_SEQ_CST); // before what makes the server end: httpsrv_free waits
    __atomic_fetch_add(&srv->stop, 1u, __ATOMIC_SEQ_CST);
    hsrv_loop **loops = __atomic_load_n(&srv->wake, __ATOMIC_SEQ_CST);
    for (int i = 0; loops && i < hsrv_server_loop_count(srv); i++) {
        hsrv_sys_eventfd_add(loops[i]->wakefd);
    }
    __atomic_fetch_sub(&srv->stopping, 1u, __ATOMIC_RELEASE);
    errno = err;
}

static void *hsrv_server_run_loop(void *arg) {
    hsrv_loop *loop = (hsrv_loop *)arg;
    while (loop->phase != HSRV_LOOP_DONE) {
        if (!hsrv_reactor_turn(loop, -1)) hsrv_sys_sleep_ms(10); // epoll_wait fails: no reason to spin on it
    }
    return NULL;
}

static void *hsrv_server_loop_thread(void *arg) {
    hsrv_loop *loop = (hsrv_loop *)arg;
    loop->signals_blocked = true;
    if (loop->is_acceptor)
        hsrv_platform_thread_name("accept", loop->number - loop->srv->config.reactors);
    else
        hsrv_platform_thread_name("httpsrv", loop->number);
    if (loop->cpu >= 0) hsrv_platform_bind_cpu(loop->cpu);
    hsrv_server_run_loop(arg);
    loop->signals_blocked = false; // another run may be on another thread
    return NULL;
}

// Starts a thread for each loop from `first` on. If one cannot be started the others are told to stop.
static httpsrv_result hsrv_server_start_loops(httpsrv *srv, int first) {
    srv->state = HSRV_SERVER_RUNNING;
    for (int i = first; i < srv->num_loops; i++) {
        hsrv_loop *loop = srv->loops[i];
        const int err = hsrv_platform_thread_start(&loop->thread, hsrv_server_loop_thread, loop);
        loop->has_thread = err == 0;
        if (err == 0) continue;
        const int acceptors_started = i > srv->config.reactors ? i - srv->config.reactors : 0;
        __atomic_fetch_sub(&srv->acceptors, (uint32_t)(srv->config.acceptors - acceptors_started), __ATOMIC_RELEASE);
        __atomic_store_n(&srv->stop, 1u, __ATOMIC_RELEASE);
        hsrv_server_stop(srv);
        return hsrv_server_fail(srv, HTTPSRV_SYS, "reactor %d: %s", i, strerror(err));
    }
    return HTTPSRV_OK;
}

static int hsrv_server_busy_workers(const httpsrv *srv) {
    int busy = 0;
    for (int i = 0; HSRV_LATER && i < srv->num_pools; i++) {
        busy += hsrv_pool_busy(srv->pools[i]);
    }
    return busy;
}

// Whether workers whose clients were cut or have left get more time to finish: until the drain's deadline.
static bool hsrv_server_workers_linger(const httpsrv *srv) {
    return hsrv_server_busy_workers(srv) > 0 && hsrv_sys_monotonic_ms() < srv->loops[0]->phase_ends &&
           __atomic_load_n(&srv->stop, __ATOMIC_RELAXED) < 2;
}

// After the last turn of the loop that the caller ran itself, if any.
static void hsrv_server_finish(httpsrv *srv) {
    for (int i = 0; i < srv->num_loops; i++) {
        hsrv_loop *loop = srv->loops[i];
        if (loop->has_thread) hsrv_sys_thread_join(loop->thread);
        loop->has_thread = false;
    }
    while (hsrv_server_workers_linger(srv)) {
        hsrv_sys_sleep_ms(1);
    }
    __atomic_store_n(&srv->stuck, (size_t)hsrv_server_busy_workers(srv), __ATOMIC_RELAXED);
    hsrv_server_close_listeners(srv);
    for (int i = 0; i < srv->num_loops; i++) {
        hsrv_loop_note(srv->loops[i], HTTPSRV_LOG_STOPPED, NULL, 0);
    }
    __atomic_store_n(&srv->live, 0u, __ATOMIC_RELAXED);
    __atomic_store_n(&srv->stop, 0u, __ATOMIC_RELAXED);
    srv->state = HSRV_SERVER_STOPPED;
}

// Listens unless that was done; refuses what runs already.
static httpsrv_result hsrv_server_prepare(httpsrv *srv) {
    if (srv->result != HTTPSRV_OK) return srv->result;
    const httpsrv_result result = srv->state == HSRV_SERVER_LISTENING ? HTTPSRV_OK : hsrv_server_listen(srv);
    if (result != HTTPSRV_OK) return result;
    for (int i = 0; i < srv->num_loops && __atomic_load_n(&srv->stop, __ATOMIC_RELAXED) != 0; i++) {
        hsrv_reactor_enter_grace(srv->loops[i], 0); // stopped before it began: no time for who relies on it
    }
    return HTTPSRV_OK;
}

static httpsrv_result hsrv_server_run(httpsrv *srv) {
    httpsrv_result result = hsrv_server_prepare(srv);
    if (result != HTTPSRV_OK) return result;
    hsrv_cpus before;
    result = hsrv_server_start_loops(srv, 1);
    hsrv_sys_get_cpus(&before);
    if (srv->config.affinity) hsrv_platform_bind_cpu(srv->loops[0]->cpu);
    hsrv_server_run_loop(srv->loops[0]);
    if (srv->config.affinity) hsrv_sys_set_cpus(&before);
    hsrv_server_finish(srv);
    return result;
}

static httpsrv_result hsrv_server_start(httpsrv *srv) {
    httpsrv_result result = hsrv_server_prepare(srv);
    if (result != HTTPSRV_OK) return result;
    result = hsrv_server_start_loops(srv, 0);
    if (result != HTTPSRV_OK) hsrv_server_finish(srv);
    return result;
}

static httpsrv_result hsrv_server_join(httpsrv *srv) {
    if (srv->state != HSRV_SERVER_RUNNING || !srv->loops[0]->has_thread) return HTTPSRV_STATE;
    hsrv_server_finish(srv);
    return HTTPSRV_OK;
}

static httpsrv_result hsrv_server_poll(httpsrv *srv, int timeout_ms) {
    if (srv->num_loops != 1) return HTTPSRV_STATE;
    if (srv->state != HSRV_SERVER_LISTENING && srv->state != HSRV_SERVER_POLLED) return HTTPSRV_STATE;
    hsrv_loop *loop = srv->loops[0];
    if (loop->in_turn) return HTTPSRV_STATE;
    srv->state = HSRV_SERVER_POLLED;
    const bool drained = loop->phase == HSRV_LOOP_DONE; // only workers are waited for, and no event tells of them
    if (drained && (timeout_ms < 0 || timeout_ms > 1)) timeout_ms = 1;
    if (!hsrv_reactor_turn(loop, timeout_ms)) return HTTPSRV_SYS;
    if (loop->phase != HSRV_LOOP_DONE || hsrv_server_workers_linger(srv)) return HTTPSRV_OK;
    hsrv_server_finish(srv);
    return HTTPSRV_GONE;
}

static int hsrv_server_timeout(const httpsrv *srv) {
    if (srv->num_loops != 1) return -1;
    if (srv->state != HSRV_SERVER_LISTENING && srv->state != HSRV_SERVER_POLLED) return -1;
    if (srv->loops[0]->phase == HSRV_LOOP_DONE) return 1; // only workers are waited for
    return hsrv_reactor_timeout(srv->loops[0]);
}

// ---- end ----

// Cuts whatever is open; the loop does not run any more.
static void hsrv_server_end_loop(hsrv_loop *loop) {
    hsrv_reactor_sweep(loop, hsrv_conn_close);
    while (hsrv_loop_take_ready(loop)) {}
    hsrv_reactor_reap(loop);
    hsrv_reactor_close_listeners(loop);
}

// What jobs and posted handlers have left behind, and what they leave behind in their turn, is served before anything is
// freed that they could ask for. Returns whether there was anything.
static bool hsrv_server_serve_rest(httpsrv *srv) {
    bool any = false;
    for (int i = 0; HSRV_LATER && i < srv->num_pools; i++) {
        while (hsrv_pool_step(srv->pools[i])) {
            any = true;
        }
    }
    for (int i = 0; i < srv->num_loops; i++) {
        any = hsrv_queue_inbox_pending(&srv->loops[i]->inbox) || any;
        hsrv_reactor_serve_inbox(srv->loops[i]);
    }
    return any;
}

// Connections end first, then the workers, which may bring home what has become an orphan; then its memory can go.
static HSRV_SETUP void hsrv_server_free(httpsrv *srv) {
    if (srv->state == HSRV_SERVER_RUNNING) {
        hsrv_server_stop(srv);
        hsrv_server_stop(srv);
        hsrv_server_finish(srv);
    }
    while (__atomic_load_n(&srv->stopping, __ATOMIC_ACQUIRE) != 0) {
        hsrv_sys_sleep_ms(1);
    }
    hsrv_server_close_listeners(srv);
    for (int i = 0; i < srv->num_loops; i++) {
        hsrv_server_end_loop(srv->loops[i]);
    }
    for (int i = 0; i < srv->num_addresses; i++) {
        if (srv->addresses[i].is_ours) hsrv_loop_close_fd(&srv->addresses[i].fd);
    }
    for (int i = 0; HSRV_LATER && i < srv->num_pools; i++) {
        hsrv_pool_stop(srv->pools[i]);
    }
    while (hsrv_server_serve_rest(srv)) {}
    for (int i = 0; HSRV_LATER && i < srv->num_pools; i++) {
        hsrv_pool_free(srv->pools[i]);
    }
    for (int i = 0; i < srv->num_loops; i++) {
        hsrv_loop_free(srv->loops[i]);
    }
    hsrv_conn_tally_free(srv);
    hsrv_server_free_filters(srv);
    hsrv_server_free_mounts(srv);
    hsrv_memory memory = srv->memory;
    hsrv_memory_give(&memory, srv->loops, (size_t)hsrv_server_loop_count(srv) * sizeof(hsrv_loop *));
    hsrv_router_free(&srv->router, &memory);
    hsrv_memory_give_text(&memory, srv->server_name);
    hsrv_memory_give_text(&memory, srv->compress_types);
    hsrv_memory_give_text(&memory, srv->packer_name);
    hsrv_memory_give(&memory, srv, sizeof *srv);
}

// [any]
static httpsrv_result hsrv_server_submit(httpsrv *srv, const char *name, httpsrv_fn fn, void *arg) {
    hsrv_pool *pool = hsrv_server_find_pool(srv, name);
    if (!pool) return HTTPSRV_ARG;
    return hsrv_pool_submit(pool, fn, arg) ? HTTPSRV_OK : HTTPSRV_FULL;
}

// ---- metrics ----

static size_t hsrv_server_load(const size_t *counter) {
    return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

static void hsrv_server_add_counters(httpsrv_metrics *out, const hsrv_counters *counters) {
    out->connections += hsrv_server_load(&counters->open);
    out->accepted += hsrv_server_load(&counters->accepted);
    out->requests += hsrv_server_load(&counters->requests);
    out->bytes_in += hsrv_server_load(&counters->bytes_in);
    out->bytes_out += hsrv_server_load(&counters->bytes_out);
    out->wakeups += hsrv_server_load(&counters->wakeups);
    out->drain_finished += hsrv_server_load(&counters->finished);
    out->drain_cut += hsrv_server_load(&counters->cut);
    for (int i = 0; i < 6; i++) {
        out->answers[i] += hsrv_server_load(&counters->answers[i]);
    }
    for (int i = 0; i < HTTPSRV_LOG_COUNT; i++) {
        out->items[i] += hsrv_server_load(&counters->items[i]);
    }
}

static void hsrv_server_metrics(const httpsrv *srv, httpsrv_metrics *out) {
    memset(out, 0, sizeof *out);
    hsrv_loop *const *loops = __atomic_load_n(&srv->wake, __ATOMIC_ACQUIRE);
    for (int i = 0; loops && i < hsrv_server_loop_count(srv); i++) {
        hsrv_server_add_counters(out, &loops[i]->counters);
    }
    for (int i = 0; HSRV_LATER && loops && i < srv->num_pools; i++) {
        out->pool_jobs += hsrv_server_load(&srv->pools[i]->jobs);
    }
    out->memory = hsrv_server_load(&srv->memory.used);
    out->drain_stuck = hsrv_server_load(&srv->stuck);
}

// ===========================================================================================
// >>public    Entry points: check the arguments, call one room.    owns: nothing    thread: as documented
//             uses: all
// ===========================================================================================

// With HTTPSRV_API static, what a program does not call is no mistake.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"

HTTPSRV_API httpsrv *httpsrv_new(const httpsrv_config *config) {
    httpsrv_config defaults;
    memset(&defaults, 0, sizeof defaults);
    return hsrv_server_new(config ? config : &defaults);
}

HTTPSRV_API httpsrv_result httpsrv_listen(httpsrv *srv) {
    return srv ? hsrv_server_listen(srv) : HTTPSRV_ARG;
}

HTTPSRV_API httpsrv_result httpsrv_run(httpsrv *srv) {
    return srv ? hsrv_server_run(srv) : HTTPSRV_ARG;
}

HTTPSRV_API httpsrv_result httpsrv_start(httpsrv *srv) {
    return srv ? hsrv_server_start(srv) : HTTPSRV_ARG;
}

HTTPSRV_API httpsrv_result httpsrv_join(httpsrv *srv) {
    return srv ? hsrv_server_join(srv) : HTTPSRV_ARG;
}

HTTPSRV_API httpsrv_result httpsrv_poll(httpsrv *srv, int timeout_ms) {
    return srv ? hsrv_server_poll(srv, timeout_ms) : HTTPSRV_ARG;
}

HTTPSRV_API int httpsrv_fd(const httpsrv *srv) {
    const bool live = srv && (srv->state == HSRV_SERVER_LISTENING || srv->state == HSRV_SERVER_POLLED);
    return live && srv->num_loops == 1 ? srv->loops[0]->epfd : -1;
}

HTTPSRV_API int httpsrv_timeout(const httpsrv *srv) {
    return srv ? hsrv_server_timeout(srv) : -1;
}

HTTPSRV_API void httpsrv_stop(httpsrv *srv) {
    if (srv) hsrv_server_stop(srv);
}

HTTPSRV_API void httpsrv_free(httpsrv *srv) {
    if (srv) hsrv_server_free(srv);
}

HTTPSRV_API const char *httpsrv_error(const httpsrv *srv) {
    return srv ? srv->error : hsrv_log_result_text(HTTPSRV_NOMEM);
}

HTTPSRV_API int httpsrv_port(const httpsrv *srv, int listener) {
    if (!srv || listener < 0 || listener >= srv->num_addresses) return -1;
    return __atomic_load_n(&srv->addresses[listener].port, __ATOMIC_RELAXED);
}

HTTPSRV_API bool httpsrv_draining(const httpsrv *srv) {
    return srv && __atomic_load_n(&srv->stop, __ATOMIC_RELAXED) != 0;
}

HTTPSRV_API httpsrv_result httpsrv_query_metrics(const httpsrv *srv, httpsrv_metrics *out) {
    if (!srv || !out) return HTTPSRV_ARG;
    hsrv_server_metrics(srv, out);
    return HTTPSRV_OK;
}

HTTPSRV_API const char *httpsrv_result_text(httpsrv_result result) {
    return hsrv_log_result_text(result);
}

HTTPSRV_API int httpsrv_result_status(httpsrv_result result) {
    return hsrv_log_result_status(result);
}

HTTPSRV_API const char *httpsrv_status_text(int status) {
    return hsrv_text_phrase(status).ptr;
}

HTTPSRV_API const char *httpsrv_log_text(httpsrv_log_item item) {
    return hsrv_log_item_text(item);
}

HTTPSRV_API httpsrv_result httpsrv_on(httpsrv *srv, const char *pattern, httpsrv_handler handler, void *user) {
    if (!srv) return HTTPSRV_ARG;
    httpsrv_route_config route;
    memset(&route, 0, sizeof route);
    route.pattern = pattern;
    route.handler = handler;
    route.user = user;
    return hsrv_server_add_route(srv, &route);
}

HTTPSRV_API httpsrv_result httpsrv_route(httpsrv *srv, const httpsrv_route_config *route) {
    return srv && route ? hsrv_server_add_route(srv, route) : HTTPSRV_ARG;
}

HTTPSRV_API httpsrv *httpsrv_server(const httpsrv_req *req) {
    hsrv_request_assert_held(req);
    return req->srv;
}

HTTPSRV_API httpsrv_str httpsrv_method(const httpsrv_req *req) {
    hsrv_request_assert_held(req);
    return req->head.method;
}

HTTPSRV_API httpsrv_str httpsrv_target(const httpsrv_req *req) {
    hsrv_request_assert_held(req);
    return req->head.target;
}

HTTPSRV_API httpsrv_str httpsrv_path(const httpsrv_req *req) {
    hsrv_request_assert_held(req);
    return req->plain;
}

HTTPSRV_API httpsrv_str httpsrv_host(const httpsrv_req *req) {
    hsrv_request_assert_held(req);
    return req->head.authority;
}

HTTPSRV_API httpsrv_str httpsrv_peer(httpsrv_req *req) {
    hsrv_request_assert_held(req);
    return hsrv_request_peer(req);
}

HTTPSRV_API httpsrv_str httpsrv_body(const httpsrv_req *req) {
    hsrv_request_assert_held(req);
    return req->body.ptr ? req->body : HSRV_LITERAL("");
}

HTTPSRV_API const httpsrv_head *httpsrv_request_head(const httpsrv_req *req) {
    hsrv_request_assert_held(req);
    return &req->head;
}

HTTPSRV_API httpsrv_str httpsrv_header(const httpsrv_req *req, const char *name) {
    hsrv_request_assert_held(req);
    return name ? hsrv_request_field(&req->head, hsrv_text_of(name)) : hsrv_text_absent();
}

HTTPSRV_API const httpsrv_field *httpsrv_header_at(const httpsrv_req *req, int index) {
    hsrv_request_assert_held(req);
    return hsrv_request_field_at(&req->head, index);
}

HTTPSRV_API httpsrv_str httpsrv_trailer(const httpsrv_req *req, const char *name) {
    hsrv_request_assert_held(req);
    const bool known = name && hsrv_request_has_trailers(req);
    return known ? hsrv_request_field(&req->trailers, hsrv_text_of(name)) : hsrv_text_absent();
}

HTTPSRV_API const httpsrv_field *httpsrv_trailer_at(const httpsrv_req *req, int index) {
    hsrv_request_assert_held(req);
    return hsrv_request_has_trailers(req) ? hsrv_request_field_at(&req->trailers, index) : NULL;
}

HTTPSRV_API httpsrv_str httpsrv_param(const httpsrv_req *req, const char *name) {
    hsrv_request_assert_held(req);
    return name ? hsrv_request_param(req, hsrv_text_of(name)) : hsrv_text_absent();
}

HTTPSRV_API httpsrv_str httpsrv_query(httpsrv_req *req, const char *name) {
    hsrv_request_assert_held(req);
    return name ? hsrv_request_query(req, hsrv_text_of(name)) : hsrv_text_absent();
}

HTTPSRV_API int64_t httpsrv_number(httpsrv_str text, int64_t max) {
    const int64_t number = hsrv_text_parse_number(text);
    return number <= max ? number : -1;
}

HTTPSRV_API void *httpsrv_alloc(httpsrv_req *req, size_t size) {
    hsrv_request_assert_held(req);
    return hsrv_memory_arena_take(&req->arena, size);
}

HTTPSRV_API bool httpsrv_gone(const httpsrv_req *req) {
    hsrv_request_assert_held(req);
    return hsrv_response_gone(req);
}

HTTPSRV_API httpsrv_result httpsrv_set(httpsrv_req *req, const char *name, httpsrv_str value) {
    hsrv_request_assert_held(req);
    return name ? hsrv_response_set(req, hsrv_text_of(name), value) : HTTPSRV_ARG;
}

HTTPSRV_API httpsrv_result httpsrv_add(httpsrv_req *req, const char *name, httpsrv_str value) {
    hsrv_request_assert_held(req);
    return name ? hsrv_response_add(req, hsrv_text_of(name), value) : HTTPSRV_ARG;
}

HTTPSRV_API httpsrv_result httpsrv_reply(httpsrv_req *req, int status, const char *type, httpsrv_str body) {
    hsrv_request_assert_held(req);
    return hsrv_response_reply(req, status, type, body);
}

HTTPSRV_API httpsrv_result httpsrv_replyf(httpsrv_req *req, int status, const char *type, const char *format, ...) {
    hsrv_request_assert_held(req);
    va_list args;
    va_start(args, format);
    const httpsrv_result result = hsrv_response_format(req, status, type, format, args);
    va_end(args);
    return result;
}

HTTPSRV_API httpsrv_result httpsrv_reply_with(httpsrv_req *req, const httpsrv_answer *answer) {
    hsrv_request_assert_held(req);
    return answer ? hsrv_response_answer(req, answer) : HTTPSRV_ARG;
}

HTTPSRV_API void httpsrv_attach(httpsrv_req *req, void *data) {
    hsrv_request_assert_held(req);
    req->attached = data;
}

HTTPSRV_API void *httpsrv_attached(const httpsrv_req *req) {
    hsrv_request_assert_held(req);
    return req->attached;
}

HTTPSRV_API ptrdiff_t httpsrv_read(httpsrv_req *req, void *buf, size_t size) {
    hsrv_request_assert_held(req);
    return buf && size > 0 ? hsrv_response_read(req, (char *)buf, size) : (ptrdiff_t)HTTPSRV_ARG;
}

HTTPSRV_API httpsrv_result httpsrv_body_pause(httpsrv_req *req) {
    hsrv_request_assert_held(req);
    return hsrv_response_pause(req, true);
}

HTTPSRV_API httpsrv_result httpsrv_body_resume(httpsrv_req *req) {
    hsrv_request_assert_held(req);
    return hsrv_response_pause(req, false);
}

HTTPSRV_API httpsrv_result httpsrv_redirect(httpsrv_req *req, int status, const char *location) {
    hsrv_request_assert_held(req);
    return hsrv_response_redirect(req, status, location);
}

HTTPSRV_API httpsrv_result httpsrv_inform(httpsrv_req *req, int status, const httpsrv_field *fields, int num_fields) {
    hsrv_request_assert_held(req);
    return hsrv_response_inform(req, status, fields, num_fields);
}

HTTPSRV_API httpsrv_result httpsrv_begin(httpsrv_req *req, int status, const char *type, int64_t length) {
    hsrv_request_assert_held(req);
    return hsrv_response_begin(req, status, type, length);
}

HTTPSRV_API httpsrv_result httpsrv_write(httpsrv_req *req, httpsrv_str bytes) {
    hsrv_request_assert_held(req);
    return hsrv_response_write(req, bytes);
}

HTTPSRV_API httpsrv_result httpsrv_writef(httpsrv_req *req, const char *format, ...) {
    hsrv_request_assert_held(req);
    va_list args;
    va_start(args, format);
    const httpsrv_result result = hsrv_response_write_format(req, format, args);
    va_end(args);
    return result;
}

HTTPSRV_API httpsrv_result httpsrv_on_drain(httpsrv_req *req, httpsrv_handler fn, void *user) {
    hsrv_request_assert_held(req);
    return hsrv_response_on_drain(req, fn, user);
}

HTTPSRV_API httpsrv_result httpsrv_wait_drain(httpsrv_req *req) {
    hsrv_request_assert_held(req);
    return hsrv_response_wait_drain(req);
}

HTTPSRV_API httpsrv_result httpsrv_add_trailer(httpsrv_req *req, const char *name, httpsrv_str value) {
    hsrv_request_assert_held(req);
    return name ? hsrv_response_add_trailer(req, hsrv_text_of(name), value) : HTTPSRV_ARG;
}

HTTPSRV_API httpsrv_result httpsrv_end(httpsrv_req *req) {
    hsrv_request_assert_held(req);
    return hsrv_response_end(req);
}

HTTPSRV_API httpsrv_result httpsrv_abort(httpsrv_req *req) {
    hsrv_request_assert_held(req);
    return hsrv_response_abort(req);
}

HTTPSRV_API httpsrv_result httpsrv_put(httpsrv_req *req, const void *key, void *data) {
    hsrv_request_assert_held(req);
    return hsrv_request_put(req, key, data);
}

HTTPSRV_API void *httpsrv_get(const httpsrv_req *req, const void *key) {
    hsrv_request_assert_held(req);
    return hsrv_request_get(req, key);
}

HTTPSRV_API httpsrv_result httpsrv_on_done(httpsrv_req *req, httpsrv_done_fn fn, void *arg) {
    hsrv_request_assert_held(req);
    if (!fn) return HTTPSRV_ARG;
    const bool over = req->answered != HSRV_ANSWER_NONE && req->answered != HSRV_ANSWER_BEGUN;
    return over ? HTTPSRV_STATE : hsrv_request_on_done(req, fn, arg);
}

HTTPSRV_API httpsrv_verdict httpsrv_cors(httpsrv_req *req, void *config) {
    hsrv_request_assert_held(req);
    return hsrv_content_cors(req, (const httpsrv_cors_config *)config);
}

HTTPSRV_API httpsrv_verdict httpsrv_basic_auth(httpsrv_req *req, void *config) {
    hsrv_request_assert_held(req);
    return hsrv_content_basic_auth(req, (const httpsrv_basic_auth_config *)config);
}

HTTPSRV_API httpsrv_str httpsrv_auth_name(const httpsrv_req *req) {
    hsrv_request_assert_held(req);
    return hsrv_content_kept(req, &hsrv_content_auth_key);
}

HTTPSRV_API httpsrv_verdict httpsrv_security_headers(httpsrv_req *req, void *config) {
    hsrv_request_assert_held(req);
    return hsrv_content_security_headers(req, (const httpsrv_security_config *)config);
}

HTTPSRV_API httpsrv_verdict httpsrv_rate_limit(httpsrv_req *req, void *config) {
    hsrv_request_assert_held(req);
    return hsrv_content_rate_limit(req, (const httpsrv_rate_config *)config);
}

HTTPSRV_API httpsrv_verdict httpsrv_request_id(httpsrv_req *req, void *config) {
    hsrv_request_assert_held(req);
    (void)config;
    return hsrv_content_request_id(req);
}

HTTPSRV_API httpsrv_str httpsrv_id(const httpsrv_req *req) {
    hsrv_request_assert_held(req);
    return hsrv_content_kept(req, &hsrv_content_id_key);
}

HTTPSRV_API httpsrv_result httpsrv_use(httpsrv *srv, const char *prefix, httpsrv_filter filter, void *user) {
    if (!srv) return HTTPSRV_ARG;
    return hsrv_server_use(srv, prefix, filter, user);
}

HTTPSRV_API httpsrv_result httpsrv_files(httpsrv *srv, const char *prefix, const httpsrv_files_config *config) {
    return srv && config ? hsrv_server_add_files(srv, prefix, config) : HTTPSRV_ARG;
}

HTTPSRV_API httpsrv_result httpsrv_assets(httpsrv *srv, const char *prefix, const httpsrv_asset *table) {
    return srv ? hsrv_server_add_assets(srv, prefix, table) : HTTPSRV_ARG;
}

HTTPSRV_API httpsrv_result httpsrv_reply_file(httpsrv_req *req, const char *path, const char *type) {
    hsrv_request_assert_held(req);
    return path ? hsrv_content_reply_file(req, path, type) : HTTPSRV_ARG;
}

HTTPSRV_API httpsrv_str httpsrv_cookie(const httpsrv_req *req, const char *name) {
    hsrv_request_assert_held(req);
    return name ? hsrv_content_cookie(req, hsrv_text_of(name)) : hsrv_text_absent();
}

HTTPSRV_API httpsrv_result httpsrv_set_cookie(httpsrv_req *req, const httpsrv_cookie_config *cookie) {
    hsrv_request_assert_held(req);
    return cookie && cookie->name ? hsrv_content_set_cookie(req, cookie) : HTTPSRV_ARG;
}

HTTPSRV_API httpsrv_result httpsrv_read_form(httpsrv_req *req, const httpsrv_form_config *config,
                                             httpsrv_form_data *form) {
    hsrv_request_assert_held(req);
    const httpsrv_result result = hsrv_content_read_form(req, config);
    if (form) *form = req->form;
    return result;
}

HTTPSRV_API httpsrv_str httpsrv_form_field(httpsrv_req *req, const char *name) {
    hsrv_request_assert_held(req);
    return name ? hsrv_content_form_field(req, hsrv_text_of(name)) : hsrv_text_absent();
}

HTTPSRV_API httpsrv_result httpsrv_multipart_init(httpsrv_multipart *m, httpsrv_str content_type,
                                                  const httpsrv_form_config *config) {
    httpsrv_form_config defaults;
    memset(&defaults, 0, sizeof defaults);
    return m ? hsrv_frames_multipart_init(m, content_type, config ? config : &defaults) : HTTPSRV_ARG;
}

HTTPSRV_API httpsrv_result httpsrv_multipart_feed(httpsrv_multipart *m, httpsrv_str piece) {
    return hsrv_frames_multipart_feed(m, piece);
}

HTTPSRV_API httpsrv_result httpsrv_multipart_end(httpsrv_multipart *m) {
    return hsrv_frames_multipart_end(m);
}

HTTPSRV_API bool httpsrv_urlencoded_next(httpsrv_str *text, httpsrv_field *pair) {
    return hsrv_frames_next_pair(text, pair);
}

HTTPSRV_API ptrdiff_t httpsrv_decode(char *out, httpsrv_str text, bool plus) {
    return hsrv_frames_decode(out, text, plus);
}

HTTPSRV_API httpsrv_token httpsrv_sse_begin(httpsrv_req *req, const char *channel) {
    hsrv_request_assert_held(req);
    return hsrv_session_begin(req, hsrv_text_of(channel));
}

HTTPSRV_API httpsrv_result httpsrv_sse_send(httpsrv *srv, httpsrv_token token, const httpsrv_event *event) {
    return srv && event ? hsrv_session_send(srv, token, event) : HTTPSRV_ARG;
}

HTTPSRV_API httpsrv_result httpsrv_sse_publish(httpsrv *srv, const char *channel, const httpsrv_event *event) {
    return srv && channel && event ? hsrv_session_publish(srv, hsrv_text_of(channel), event) : HTTPSRV_ARG;
}

HTTPSRV_API httpsrv_result httpsrv_sse_end(httpsrv *srv, httpsrv_token token) {
    return srv ? hsrv_session_send(srv, token, NULL) : HTTPSRV_ARG;
}

HTTPSRV_API httpsrv_str httpsrv_sse_last_id(const httpsrv_req *req) {
    hsrv_request_assert_held(req);
    return hsrv_request_field(&req->head, hsrv_text_of("last-event-id"));
}

HTTPSRV_API httpsrv_token httpsrv_defer(httpsrv_req *req) {
    hsrv_request_assert_held(req);
    return hsrv_response_defer(req);
}

HTTPSRV_API httpsrv_result httpsrv_on_gone(httpsrv_req *req, httpsrv_fn fn, void *arg) {
    hsrv_request_assert_held(req);
    return fn ? hsrv_response_on_gone(req, fn, arg) : HTTPSRV_ARG;
}

HTTPSRV_API httpsrv_result httpsrv_finish(httpsrv *srv, httpsrv_token token, const httpsrv_answer *answer) {
    if (srv && answer) return hsrv_response_finish(srv, token, answer);
    if (answer && answer->release) answer->release(answer->release_arg);
    return HTTPSRV_ARG;
}

HTTPSRV_API httpsrv_result httpsrv_post(httpsrv *srv, httpsrv_token token, httpsrv_handler handler, void *user) {
    return srv && handler ? hsrv_response_post(srv, token, handler, user) : HTTPSRV_ARG;
}

HTTPSRV_API httpsrv_result httpsrv_submit(httpsrv *srv, const char *pool, httpsrv_fn fn, void *arg) {
    return srv && pool && fn ? hsrv_server_submit(srv, pool, fn, arg) : HTTPSRV_ARG;
}

HTTPSRV_API void httpsrv_parser_init(httpsrv_parser *parser, const httpsrv_limits *limits) {
    httpsrv_limits complete;
    memset(&complete, 0, sizeof complete);
    if (limits) complete = *limits;
    complete.head = hsrv_frames_limit(complete.head, 16384, HSRV_MAX_HEAD);
    complete.uri = hsrv_frames_limit(complete.uri, 8192, HSRV_MAX_HEAD);
    complete.headers = (int)hsrv_frames_limit(complete.headers, 100, HSRV_MAX_FIELDS);
    if (complete.body >= 0 || complete.body == HTTPSRV_ZERO)
        complete.body = hsrv_frames_limit(complete.body, 1 << 20, INT64_MAX);
    hsrv_parser_init(parser, &complete);
}

HTTPSRV_API ptrdiff_t httpsrv_parse_head(httpsrv_parser *parser, const char *buf, size_t len, httpsrv_head *out) {
    return hsrv_parser_head(parser, buf, len, out);
}

HTTPSRV_API ptrdiff_t httpsrv_parse_body(httpsrv_parser *parser, const char *buf, size_t len, httpsrv_str *piece) {
    return hsrv_parser_body(parser, buf, len, piece);
}

HTTPSRV_API ptrdiff_t httpsrv_parse_trailers(httpsrv_parser *parser, const char *buf, size_t len, httpsrv_head *out) {
    return hsrv_parser_trailers(parser, buf, len, out);
}

HTTPSRV_API bool httpsrv_parse_done(const httpsrv_parser *parser) {
    return parser->phase == HTTPSRV_PHASE_DONE;
}

#pragma GCC diagnostic pop

#endif // HTTPSRV_IMPLEMENTATION

// MIT License
//
// Copyright (c) 2026 the httpsrv.h authors
//
// Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
// documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
// rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to
// permit persons to whom the Software is furnished to do so, subject to the following conditions:
//
// The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
// Software.
//
// THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
// WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
// COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
// OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
