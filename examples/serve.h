// What the examples' main functions have in common, which a library had better not do: to read the command line, to
// take the process's signals, and to print. Include it behind httpsrv.h.

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// ---- the command line ----

// argv[at] as a port, 8080 without it. Anything else, and more than `most` arguments, get the usage and exit status 2.
static inline int serve_port_at(int argc, char **argv, int at, int most, const char *usage) {
    const bool help = argc > 1 && strcmp(argv[1], "--help") == 0;
    const char *text = argc > at ? argv[at] : "8080";
    const int64_t port = httpsrv_number((httpsrv_str){text, strlen(text)}, 65535);
    if (!help && argc <= most + 1 && port >= 0) return (int)port;
    fprintf(help ? stdout : stderr, "usage: %s %s    (PORT: 8080 by default, 0 for a free one)\n", argv[0], usage);
    exit(help ? 0 : 2);
}

// The same for a program that takes nothing else.
static inline int serve_port(int argc, char **argv) {
    return serve_port_at(argc, argv, 1, 1, "[PORT]");
}

// The directory, if a file can be made there. If not, the program ends: better now than to fail at each request.
static inline char *serve_directory(char *path) {
    char name[4096];
    snprintf(name, sizeof name, "%s/serve.XXXXXX", path);
    const int fd = mkstemp(name);
    if (fd < 0) {
        fprintf(stderr, "no file can be made in %s: %s\n", path, strerror(errno));
        exit(1);
    }
    unlink(name);
    close(fd);
    return path;
}

// ---- the server ----

static httpsrv *serve_server; // for the signal handler, which gets no argument and runs on any thread; atomic

static void serve_stop(int signal_number) {
    (void)signal_number;
    httpsrv *srv = __atomic_load_n(&serve_server, __ATOMIC_RELAXED);
    httpsrv_stop(srv); // what was begun is finished, then httpsrv_run returns; at a second signal it is cut
}

// Listens, says under which name that can be reached, and stops the server at SIGINT or SIGTERM until serve_end.
static inline httpsrv_result serve_begin(httpsrv *srv, const char *host) {
    httpsrv_result result = httpsrv_listen(srv); // the first error of all calls before sticks, and is told here
    if (result != HTTPSRV_OK) {
        fprintf(stderr, "%s\n", httpsrv_error(srv));
        return result;
    }
    __atomic_store_n(&serve_server, srv, __ATOMIC_RELAXED);
    signal(SIGINT, serve_stop);
    signal(SIGTERM, serve_stop);
    printf("listening on http://%s:%d/\n", host, httpsrv_port(srv, 0));
    fflush(stdout);
    return HTTPSRV_OK;
}

// From here on a signal changes nothing, so that the server may be freed.
static inline void serve_end(void) {
    __atomic_store_n(&serve_server, (httpsrv *)NULL, __ATOMIC_RELAXED);
}

// Serves until SIGINT or SIGTERM. Returns what main returns.
static inline int serve_as(httpsrv *srv, const char *host) {
    if (serve_begin(srv, host) != HTTPSRV_OK) return 1;
    httpsrv_result result = httpsrv_run(srv);
    serve_end();
    if (result != HTTPSRV_OK) fprintf(stderr, "%s\n", httpsrv_error(srv));
    return result == HTTPSRV_OK ? 0 : 1;
}
