// Bodies in pieces: memory stays small whatever their size, and whoever is slower sets the pace.
//
//     cc -I. examples/stream.c -pthread -o stream && ./stream    (./stream 9000: another port)
//
//     curl http://localhost:8080/numbers/1000000           made on the reactor, whenever the client has taken some
//     curl http://localhost:8080/worker/1000000            made by a worker, in straight-line code that waits
//     curl -T httpsrv.h http://localhost:8080/echo         comes back while it is still being sent

#define HTTPSRV_IMPLEMENTATION
#include "httpsrv.h"
#include "serve.h"

enum { MOST = 1000000000 };

// Called on the reactor whenever there is room. FULL: it will be called again. GONE: it will not.
static void go_on(httpsrv_req *req, void *user) {
    const int64_t last = httpsrv_number(httpsrv_param(req, "last"), MOST);
    int *next = user;
    httpsrv_result result = HTTPSRV_OK;
    while (*next <= last && (result = httpsrv_writef(req, "%d\n", *next)) == HTTPSRV_OK)
        ++*next;
    if (result == HTTPSRV_OK) httpsrv_end(req);
    if (result == HTTPSRV_NOMEM) httpsrv_abort(req); // a client can tell that from the end
}

// Returns at once; the answer goes on without it, and what it has allocated lives until that ends.
static void show_numbers(httpsrv_req *req, void *user) {
    (void)user;
    int *next = httpsrv_alloc(req, sizeof *next);
    if (!next || httpsrv_begin(req, 200, "text/plain", -1) != HTTPSRV_OK) return;
    *next = 1;
    httpsrv_on_drain(req, go_on, next);
}

// On a thread that may wait: until the client has taken most of what it was sent.
static void work_numbers(httpsrv_req *req, void *user) {
    (void)user;
    const int64_t last = httpsrv_number(httpsrv_param(req, "last"), MOST);
    httpsrv_begin(req, 200, "text/plain", -1);
    for (int next = 1; next <= last; next++)
        if (httpsrv_wait_drain(req) != HTTPSRV_OK || httpsrv_writef(req, "%d\n", next) != HTTPSRV_OK) return;
    httpsrv_end(req); // without it the answer is broken off
}

static void begin_echo(httpsrv_req *req, void *user) {
    (void)user;
    httpsrv_begin(req, 200, "application/octet-stream", -1);
}

// Nothing is read from a client that does not take what is sent to it, so there is always room for a piece.
static void echo_piece(httpsrv_req *req, httpsrv_str piece, bool last, void *user) {
    (void)user;
    if (httpsrv_write(req, piece) != HTTPSRV_OK)
        httpsrv_abort(req);
    else if (last)
        httpsrv_end(req);
}

int main(int argc, char **argv) {
    const httpsrv_route_config worker = {.pattern = "GET /worker/:last", .handler = work_numbers, .pool = "default"};
    const httpsrv_route_config echo = {
        .pattern = "* /echo", .handler = begin_echo, .on_body = echo_piece, .max_body = -1};
    httpsrv *srv = httpsrv_new(&(httpsrv_config){.port = serve_port(argc, argv)});
    httpsrv_on(srv, "GET /numbers/:last", show_numbers, NULL);
    httpsrv_route(srv, &worker);
    httpsrv_route(srv, &echo);
    int code = serve_as(srv, "localhost");
    httpsrv_free(srv);
    return code;
}
