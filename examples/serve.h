// What the examples' main functions have in common, which a library had better not do: to take the process's signals, and
// to print. Include it behind httpsrv.h.

#include <signal.h>
#include <stdio.h>

static httpsrv *serve_server; // for the signal handler, which gets no argument and runs on any thread; atomic

static void serve_stop(int signal_number) {
    (void)signal_number;
    httpsrv *srv = __atomic_load_n(&serve_server, __ATOMIC_RELAXED);
    httpsrv_stop(srv); // what was begun is finished, then httpsrv_run returns; at a second signal it is cut
}

// Serves until SIGINT or SIGTERM, and says under which name it can be reached. Returns what main returns.
static int serve_as(httpsrv *srv, const char *host) {
    httpsrv_result result = httpsrv_listen(srv); // the first error of all calls before sticks, and is told here
    if (result == HTTPSRV_OK) {
        __atomic_store_n(&serve_server, srv, __ATOMIC_RELAXED);
        signal(SIGINT, serve_stop);
        signal(SIGTERM, serve_stop);
        printf("listening on http://%s:%d/\n", host, httpsrv_port(srv, 0));
        fflush(stdout);
        result = httpsrv_run(srv);
        __atomic_store_n(&serve_server, (httpsrv *)NULL, __ATOMIC_RELAXED); // from here on a signal changes nothing
    }
    if (result != HTTPSRV_OK) fprintf(stderr, "%s\n", httpsrv_error(srv));
    return result == HTTPSRV_OK ? 0 : 1;
}
