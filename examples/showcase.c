// The tour: every feature at a path of its own, with the flags, signals and limits that a service has.
//
//     cc -O2 -I. examples/showcase.c -pthread -o showcase && ./showcase    (--help lists the flags)
//
//     curl http://localhost:8080/                                    the index, for a browser
//     curl http://localhost:8080/hello/World
//     curl -d '{"a":1}' -H 'Content-Type: application/json' http://localhost:8080/echo
//     curl -i http://localhost:8080/sleep/2000                       and meanwhile, elsewhere:
//     curl -i http://localhost:8080/pool/plaintext                   answers at once
//
// SIGTERM and Ctrl-C drain: what was begun is finished, /readyz says 503. A second signal cuts.

#define HTTPSRV_IMPLEMENTATION
#include "httpsrv.h"
#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum {
    MAX_SLEEP_MS = 10000,
    SLEEP_THREADS = 16 // they wait and do not compute, so more of them than CPUs make sense
};

typedef struct options {
    const char *host;
    int port;
    int reactors;
    int acceptors;
    int pool_threads; // 0: as many as each pool has by default
    int queue;
    int64_t max_body;
    bool quiet;
} options;

static httpsrv *server; // for the signal handler, which gets no argument

// ---- the index ----

static const char index_page[] =
    "<!doctype html>\n"
    "<html lang=\"en\">\n"
    "<meta charset=\"utf-8\">\n"
    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
    "<meta name=\"color-scheme\" content=\"light dark\">\n"
    "<link rel=\"icon\" href=\"data:,\">\n"
    "<title>httpsrv.h</title>\n"
    "<style>\n"
    ":root { color-scheme: light dark; --text: #1c2024; --back: #fcfcfd; --soft: #60646c; --line: #d9d9e0;\n"
    "        --link: #0b5cad }\n"
    "@media (prefers-color-scheme: dark) {\n"
    "  :root { --text: #edeef0; --back: #111113; --soft: #b0b4ba; --line: #43484e; --link: #70b8ff } }\n"
    "body { font: 1rem/1.5 system-ui, sans-serif; color: var(--text); background: var(--back);\n"
    "       max-width: 40rem; margin: 0 auto; padding: 1rem }\n"
    "a { color: var(--link) }\n"
    "dt { margin-top: 1rem; font-family: ui-monospace, monospace; overflow-wrap: anywhere }\n"
    "dt a { display: inline-block; padding: .25rem 0 }\n"
    "dd { margin: 0; color: var(--soft) }\n"
    "textarea, button { font: inherit; color: inherit; background: transparent; border: 1px solid "
    "var(--line);\n"
    "                   border-radius: .375rem; padding: .5rem .75rem }\n"
    "textarea { box-sizing: border-box; width: 100%; margin: .5rem 0 }\n"
    "</style>\n"
    "<h1>httpsrv.h</h1>\n"
    "<p>An HTTP/1.1 server in one C header. Each link below is one feature.</p>\n"
    "<dl>\n"
    "<dt><a href=\"/plaintext\">/plaintext</a><dd>Answered on the reactor, inline.\n"
    "<dt><a href=\"/json\">/json</a><dd>The same as JSON.\n"
    "<dt><a href=\"/pool/plaintext\">/pool/plaintext</a><dd>Answered by a thread of a pool.\n"
    "<dt><a href=\"/hello/World\">/hello/:name</a><dd>A parameter in the path.\n"
    "<dt><a href=\"/sleep/1000\">/sleep/:ms</a><dd>A handler that blocks, at most 10 seconds, in a pool of "
    "its own:\n"
    "nothing else waits for it.\n"
    "<dt><a href=\"/deferred/1000\">/deferred/:ms</a><dd>An answer that another thread gives so much later, while no "
    "thread waits.\n"
    "<dt><a href=\"/healthz\">/healthz</a><dd>Liveness, for an orchestrator.\n"
    "<dt><a href=\"/readyz\">/readyz</a><dd>Readiness: 503 once the server drains.\n"
    "<dt><a href=\"/no/such/page\">/no/such/page</a><dd>What an unknown path gets.\n"
    "<dt>/echo<dd>The body comes back, whatever the method and type.\n"
    "<form method=\"post\" action=\"/echo\" enctype=\"text/plain\">\n"
    "<label>Text <textarea name=\"text\" rows=\"2\">Hello, World!</textarea></label>\n"
    "<button>Send</button>\n"
    "</form>\n"
    "</dl>\n";

static void show_index(httpsrv_req *req, void *user) {
    (void)user;
    httpsrv_reply(req, 200, "text/html; charset=utf-8", (httpsrv_str){index_page, sizeof index_page - 1});
}

// ---- routes ----

static void plaintext(httpsrv_req *req, void *user) {
    (void)user;
    httpsrv_reply(req, 200, "text/plain", HTTPSRV_STR("Hello, World!"));
}

static void json(httpsrv_req *req, void *user) {
    (void)user;
    httpsrv_reply(req, 200, "application/json", HTTPSRV_STR("{\"message\":\"Hello, World!\"}"));
}

static void hello(httpsrv_req *req, void *user) {
    (void)user;
    httpsrv_str name = httpsrv_param(req, "name");
    httpsrv_replyf(req, 200, "text/plain; charset=utf-8", "Hello, %.*s!\n", HTTPSRV_FMT(name));
}

static void echo(httpsrv_req *req, void *user) {
    (void)user;
    httpsrv_str type = httpsrv_request_head(req)->content_type;
    if (!type.ptr || httpsrv_set(req, "Content-Type", type) != HTTPSRV_OK)
        httpsrv_set(req, "Content-Type", HTTPSRV_STR("application/octet-stream"));
    httpsrv_reply(req, 200, NULL, httpsrv_body(req));
}

// The milliseconds in `text`, -1 if it is not a number from 0 to MAX_SLEEP_MS.
static int parse_ms(httpsrv_str text) {
    int ms = 0;
    if (text.len == 0) return -1;
    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] < '0' || text.ptr[i] > '9') return -1;
        ms = ms * 10 + (text.ptr[i] - '0');
        if (ms > MAX_SLEEP_MS) return -1;
    }
    return ms;
}

static void sleep_route(httpsrv_req *req, void *user) {
    (void)user;
    int ms = parse_ms(httpsrv_param(req, "ms"));
    if (ms < 0) {
        httpsrv_reply(req, 400, "text/plain", HTTPSRV_STR("milliseconds from 0 to 10000, please\n"));
        return;
    }
    struct timespec left = {ms / 1000, (ms % 1000) * 1000000L};
    while (nanosleep(&left, &left) != 0 && errno == EINTR) {}
    httpsrv_replyf(req, 200, "text/plain", "slept %d ms\n", ms);
}

// ---- /deferred: a clock thread answers ----

typedef struct wait_entry {
    struct wait_entry *next; // sorted by time
    struct timespec due;
    httpsrv_token token;
    int ms;
} wait_entry;

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    wait_entry *first; // under the lock
    bool over;         // likewise
} waits = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static bool is_before(struct timespec a, struct timespec b) {
    return a.tv_sec != b.tv_sec ? a.tv_sec < b.tv_sec : a.tv_nsec < b.tv_nsec;
}

static void add_wait(wait_entry *entry) {
    pthread_mutex_lock(&waits.lock);
    wait_entry **link = &waits.first;
    while (*link && !is_before(entry->due, (*link)->due))
        link = &(*link)->next;
    entry->next = *link;
    *link = entry;
    pthread_cond_signal(&waits.changed);
    pthread_mutex_unlock(&waits.lock);
}

// The next one that is due; NULL at the end of the program.
static wait_entry *take_due(void) {
    wait_entry *entry = NULL;
    pthread_mutex_lock(&waits.lock);
    while (!waits.over && !entry) {
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        if (!waits.first) {
            pthread_cond_wait(&waits.changed, &waits.lock);
        } else if (is_before(now, waits.first->due)) {
            struct timespec due = waits.first->due;
            pthread_cond_timedwait(&waits.changed, &waits.lock, &due);
        } else {
            entry = waits.first;
            waits.first = entry->next;
        }
    }
    pthread_mutex_unlock(&waits.lock);
    return entry;
}

static void *run_clock(void *arg) {
    (void)arg;
    for (wait_entry *entry = take_due(); entry; entry = take_due()) {
        char text[64];
        int len = snprintf(text, sizeof text, "deferred for %d ms\n", entry->ms);
        httpsrv_finish(server, entry->token,
                       &(httpsrv_answer){.status = 200, .type = "text/plain", .body = {text, (size_t)len}});
        free(entry);
    }
    return NULL;
}

static void end_clock(pthread_t clock) {
    pthread_mutex_lock(&waits.lock);
    waits.over = true;
    pthread_cond_signal(&waits.changed);
    pthread_mutex_unlock(&waits.lock);
    pthread_join(clock, NULL);
    while (waits.first) {
        wait_entry *entry = waits.first;
        waits.first = entry->next;
        free(entry);
    }
}

static void deferred(httpsrv_req *req, void *user) {
    (void)user;
    int ms = parse_ms(httpsrv_param(req, "ms"));
    wait_entry *entry = ms >= 0 ? malloc(sizeof *entry) : NULL;
    if (!entry) {
        httpsrv_reply(req, 400, "text/plain", HTTPSRV_STR("milliseconds from 0 to 10000, please\n"));
        return;
    }
    entry->ms = ms;
    clock_gettime(CLOCK_REALTIME, &entry->due);
    long nsec = entry->due.tv_nsec + ms % 1000 * 1000000L;
    entry->due.tv_sec += ms / 1000 + nsec / 1000000000L;
    entry->due.tv_nsec = nsec % 1000000000L;
    entry->token = httpsrv_defer(req);
    add_wait(entry);
}

// ---- probes ----

static void healthz(httpsrv_req *req, void *user) {
    (void)user;
    httpsrv_reply(req, 200, "text/plain", HTTPSRV_STR("ok\n"));
}

static void readyz(httpsrv_req *req, void *user) {
    (void)user;
    bool draining = httpsrv_draining(httpsrv_server(req));
    httpsrv_reply(req, draining ? 503 : 200, "text/plain",
                  draining ? HTTPSRV_STR("draining\n") : HTTPSRV_STR("ready\n"));
}

static void add_routes(httpsrv *srv) {
    httpsrv_on(srv, "GET /", show_index, NULL);
    httpsrv_on(srv, "GET /plaintext", plaintext, NULL);
    httpsrv_on(srv, "GET /json", json, NULL);
    httpsrv_on(srv, "GET /hello/:name", hello, NULL);
    httpsrv_on(srv, "* /echo", echo, NULL);
    httpsrv_on(srv, "GET /deferred/:ms", deferred, NULL);
    httpsrv_on(srv, "GET /healthz", healthz, NULL);
    httpsrv_on(srv, "GET /readyz", readyz, NULL);
    httpsrv_route(srv, &(httpsrv_route_config){.pattern = "GET /pool/plaintext", .handler = plaintext, .pool = "work"});
    httpsrv_route(srv, &(httpsrv_route_config){.pattern = "GET /sleep/:ms", .handler = sleep_route, .pool = "sleep"});
}

// ---- flags ----

static void usage(FILE *out) {
    fprintf(out, "usage: showcase [flags]\n"
                 "  --host ADDRESS      address to listen on (all)\n"
                 "  --port N            port, 0 for a free one (8080)\n"
                 "  --reactors N        event loops, 0 for one per CPU (1)\n"
                 "  --acceptors N       threads that accept for the reactors, 0: each accepts for itself (0)\n"
                 "  --pool-threads N    threads of each pool (work: one per CPU, sleep: 16)\n"
                 "  --queue N           requests that may wait for each pool (1024)\n"
                 "  --max-body BYTES    largest request body (1048576)\n"
                 "  --quiet             no log on stderr\n"
                 "  --help              this text\n");
}

// The number in `text`. Anything else, or a number out of range, ends the program.
static int64_t parse_number(const char *flag, const char *text, int64_t min, int64_t max) {
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (errno == 0 && end != text && *end == '\0' && value >= min && value <= max) return value;
    fprintf(stderr, "showcase: --%s wants a number from %lld to %lld\n", flag, (long long)min, (long long)max);
    usage(stderr);
    exit(2);
}

static const struct option flags[] = {
    {"host", required_argument, NULL, 'h'},
    {"port", required_argument, NULL, 'p'},
    {"reactors", required_argument, NULL, 'r'},
    {"acceptors", required_argument, NULL, 'a'},
    {"pool-threads", required_argument, NULL, 't'},
    {"queue", required_argument, NULL, 'u'},
    {"max-body", required_argument, NULL, 'b'},
    {"quiet", no_argument, NULL, 'q'},
    {"help", no_argument, NULL, 'H'},
    {NULL, 0, NULL, 0},
};

static void set_option(options *to, int flag, const char *name, const char *value) {
    switch (flag) {
    case 'h': to->host = value; break;
    case 'p': to->port = (int)parse_number(name, value, 0, 65535); break;
    case 'r': to->reactors = (int)parse_number(name, value, 0, 1024); break;
    case 'a': to->acceptors = (int)parse_number(name, value, 0, 64); break;
    case 't': to->pool_threads = (int)parse_number(name, value, 1, 1024); break;
    case 'u': to->queue = (int)parse_number(name, value, 1, 1 << 20); break;
    case 'b': to->max_body = parse_number(name, value, 0, INT64_MAX); break;
    case 'q': to->quiet = true; break;
    case 'H': usage(stdout); exit(0);
    default: usage(stderr); exit(2);
    }
}

static options parse_flags(int argc, char **argv) {
    options to = {.port = 8080, .reactors = 1, .max_body = 1 << 20};
    int flag;
    int index = 0;
    while ((flag = getopt_long(argc, argv, "", flags, &index)) != -1)
        set_option(&to, flag, flags[index].name, optarg);
    if (optind < argc) {
        fprintf(stderr, "showcase: what is \"%s\"?\n", argv[optind]);
        usage(stderr);
        exit(2);
    }
    return to;
}

// ---- the program ----

// Each connection is a descriptor, and the soft limit is often no more than 1024.
static void raise_descriptor_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

static void stop(int signal_number) {
    (void)signal_number;
    httpsrv_stop(server);
}

static void log_line(const httpsrv_log *record, void *user) {
    (void)user;
    if (record->level > HTTPSRV_LEVEL_INFO) return;
    fprintf(stderr, "%s%s%.*s%s%s\n", record->text, record->peer.ptr ? ", peer " : "", HTTPSRV_FMT(record->peer),
            record->sys_errno ? ": " : "", record->sys_errno ? strerror(record->sys_errno) : "");
}

// Pools apart from each other, so that sleepers never keep /pool/plaintext waiting.
static httpsrv *make_server(const options *from) {
    return httpsrv_new(&(httpsrv_config){
        .host = from->host,
        .port = from->port,
        .reactors = from->reactors > 0 ? from->reactors : HTTPSRV_ALL_CPUS,
        .acceptors = from->acceptors,
        .pools = {{"work", from->pool_threads, from->queue},
                  {"sleep", from->pool_threads ? from->pool_threads : SLEEP_THREADS, from->queue}},
        .max.body = from->max_body ? from->max_body : HTTPSRV_ZERO,
        .logger.fn = from->quiet ? NULL : log_line,
    });
}

static void print_url(const char *host, int port) {
    bool any = !host || strcmp(host, "0.0.0.0") == 0 || strcmp(host, "::") == 0;
    if (any) host = "localhost";
    bool v6 = strchr(host, ':') != NULL;
    printf("listening on http://%s%s%s:%d/\n", v6 ? "[" : "", host, v6 ? "]" : "", port);
    fflush(stdout);
}

static void stop_on_signals(void) {
    struct sigaction action = {.sa_handler = stop};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
}

// Whether a handler is still busy after the drain. httpsrv_free would wait for it, however long it takes.
static bool is_stuck(const httpsrv *srv) {
    httpsrv_metrics metrics;
    return httpsrv_query_metrics(srv, &metrics) == HTTPSRV_OK && metrics.drain_stuck > 0;
}

int main(int argc, char **argv) {
    options opt = parse_flags(argc, argv);
    raise_descriptor_limit();
    server = make_server(&opt);
    add_routes(server);
    if (httpsrv_listen(server) != HTTPSRV_OK) {
        fprintf(stderr, "showcase: %s\n", httpsrv_error(server));
        httpsrv_free(server);
        return 1;
    }
    pthread_t clock;
    if (pthread_create(&clock, NULL, run_clock, NULL) != 0) {
        fprintf(stderr, "showcase: no thread for the clock\n");
        httpsrv_free(server);
        return 1;
    }
    stop_on_signals();
    print_url(opt.host, httpsrv_port(server, 0));
    httpsrv_result result = httpsrv_run(server);
    if (result != HTTPSRV_OK) fprintf(stderr, "showcase: %s\n", httpsrv_error(server));
    end_clock(clock);
    if (is_stuck(server)) _exit(result == HTTPSRV_OK ? 0 : 1);
    httpsrv_free(server);
    return result == HTTPSRV_OK ? 0 : 1;
}
