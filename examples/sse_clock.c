// Server-sent events: a page that shows the server's time, which one thread publishes to all who look.
//
//     cc -I. examples/sse_clock.c -pthread -o sse_clock && ./sse_clock    (./sse_clock 9000: another port)
//
//     http://localhost:8080/                      the page, in as many browsers as you like
//     curl -N http://localhost:8080/events        what it gets

#define HTTPSRV_IMPLEMENTATION
#include "httpsrv.h"
#include "serve.h"
#include <pthread.h>
#include <time.h>
#include <unistd.h>

static const char page[] = "<!doctype html><meta charset=\"utf-8\"><meta name=\"viewport\" "
                           "content=\"width=device-width\"><title>Clock</title>\n"
                           "<h1 id=\"time\">...</h1>\n"
                           "<script>new EventSource('/events').addEventListener('tick', event => {\n"
                           "  document.getElementById('time').textContent = event.data;\n"
                           "});</script>\n";

static int over; // ends the clock; atomic

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
static void *run_clock(void *srv) {
    for (; !__atomic_load_n(&over, __ATOMIC_RELAXED); sleep(1)) {
        time_t now = time(NULL);
        struct tm utc;
        char text[32];
        size_t len = strftime(text, sizeof text, "%H:%M:%S", gmtime_r(&now, &utc));
        httpsrv_event event = {.name = "tick", .id = {text, len}, .data = {text, len}, .retry_ms = 2000};
        httpsrv_sse_publish(srv, "clock", &event);
    }
    return NULL;
}

int main(int argc, char **argv) {
    pthread_t clock;
    httpsrv *srv = httpsrv_new(&(httpsrv_config){.port = serve_port(argc, argv)});
    httpsrv_on(srv, "GET /", show_page, NULL);
    httpsrv_on(srv, "GET /events", listen_to_clock, NULL);
    if (pthread_create(&clock, NULL, run_clock, srv) != 0) return 1;
    int code = serve_as(srv, "localhost"); // the drain ends the streams; browsers come again when the server does
    __atomic_store_n(&over, 1, __ATOMIC_RELAXED);
    pthread_join(clock, NULL);
    httpsrv_free(srv);
    return code;
}
