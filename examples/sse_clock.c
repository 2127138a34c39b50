// Server-sent events: a page that shows the server's time, which one thread publishes to all who look.
//
//     cc -I. examples/sse_clock.c -pthread -o sse_clock && ./sse_clock    (./sse_clock 9000: another port)
//
//     http://localhost:8080/                      the page, in as many browsers as you like
//     curl -N http://localhost:8080/events        what it gets

#define HTTPSRV_IMPLEMENTATION
#include "httpsrv.h"
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static const char page[] = "<!doctype html>\n"
                           "<meta charset=\"utf-8\">\n"
                           "<meta name=\"viewport\" content=\"width=device-width\">\n"
                           "<title>Clock</title>\n"
                           "<h1 id=\"time\">...</h1>\n"
                           "<script>\n"
                           "new EventSource('/events').addEventListener('tick', function (event) {\n"
                           "  document.getElementById('time').textContent = event.data;\n"
                           "});\n"
                           "</script>\n";

static httpsrv *server; // for the signal handler, which gets no argument
static int over;        // ends the clock; atomic

static void stop(int signal_number) {
    (void)signal_number;
    httpsrv_stop(server);
}

static void show_page(httpsrv_req *req, void *user) {
    (void)user;
    httpsrv_reply(req, 200, "text/html; charset=utf-8", (httpsrv_str){page, sizeof page - 1});
}

// The stream stays open when the handler returns; no thread waits for it.
static void listen_to_clock(httpsrv_req *req, void *user) {
    (void)user;
    httpsrv_sse_begin(req, "clock");
}

// To everybody at once, whoever that is at the moment: those who leave need no goodbye.
static void *run_clock(void *arg) {
    (void)arg;
    while (!__atomic_load_n(&over, __ATOMIC_RELAXED)) {
        time_t now = time(NULL);
        struct tm utc;
        char text[32], id[32];
        httpsrv_event event = {.name = "tick", .retry_ms = 2000};
        gmtime_r(&now, &utc);
        event.data = (httpsrv_str){text, strftime(text, sizeof text, "%H:%M:%S", &utc)};
        event.id = (httpsrv_str){id, (size_t)snprintf(id, sizeof id, "%lld", (long long)now)};
        httpsrv_sse_publish(server, "clock", &event);
        sleep(1);
    }
    return NULL;
}

int main(int argc, char **argv) {
    pthread_t clock;
    server = httpsrv_new(&(httpsrv_config){.port = argc > 1 ? atoi(argv[1]) : 8080});
    httpsrv_on(server, "GET /", show_page, NULL);
    httpsrv_on(server, "GET /events", listen_to_clock, NULL);
    if (httpsrv_listen(server) != HTTPSRV_OK || pthread_create(&clock, NULL, run_clock, NULL) != 0) {
        fprintf(stderr, "%s\n", httpsrv_error(server));
        httpsrv_free(server);
        return 1;
    }
    signal(SIGINT, stop);
    signal(SIGTERM, stop);
    printf("listening on http://localhost:%d/\n", httpsrv_port(server, 0));
    fflush(stdout);
    httpsrv_run(server); // the drain ends the streams; browsers come again when the server does
    __atomic_store_n(&over, 1, __ATOMIC_RELAXED);
    pthread_join(clock, NULL);
    httpsrv_free(server);
    return 0;
}
