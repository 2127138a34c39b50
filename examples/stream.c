// Bodies in pieces: memory stays small whatever their size, and whoever is slower sets the pace.
//
//     cc -I. examples/stream.c -pthread -o stream && ./stream    (./stream 9000: another port)
//
//     curl http://localhost:8080/numbers/1000000           made on the reactor, whenever the client has taken some
//     curl http://localhost:8080/worker/1000000            made by a worker, in straight-line code that waits
//     curl -T httpsrv.h http://localhost:8080/echo         comes back while it is still being sent

#define HTTPSRV_IMPLEMENTATION
#include "httpsrv.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

static httpsrv *server; // for the signal handler, which gets no argument

static void stop(int signal_number) {
    (void)signal_number;
    httpsrv_stop(server);
}

typedef struct counter {
    long next, last;
} counter;

static counter count_to(httpsrv_str text) {
    char digits[10];
    snprintf(digits, sizeof digits, "%.*s", HTTPSRV_FMT(text));
    return (counter){1, atol(digits)};
}

// Called on the reactor as often as there is room. FULL: it will be called again. GONE: it will not.
static void go_on(httpsrv_req *req, void *user) {
    counter *numbers = user;
    httpsrv_result result = HTTPSRV_OK;
    for (char line[32]; numbers->next <= numbers->last; numbers->next++) {
        int len = snprintf(line, sizeof line, "%ld\n", numbers->next);
        result = httpsrv_write(req, (httpsrv_str){line, (size_t)len});
        if (result != HTTPSRV_OK) break;
    }
    if (result == HTTPSRV_OK) httpsrv_end(req);
    if (result == HTTPSRV_NOMEM) httpsrv_abort(req); // a client can tell that from the end
}

// Returns at once; the answer goes on without it, and what it has allocated lives until that ends.
static void show_numbers(httpsrv_req *req, void *user) {
    (void)user;
    counter *numbers = httpsrv_alloc(req, sizeof *numbers);
    if (!numbers || httpsrv_begin(req, 200, "text/plain", -1) != HTTPSRV_OK) return;
    *numbers = count_to(httpsrv_param(req, "last"));
    httpsrv_on_drain(req, go_on, numbers);
}

// On a thread that may wait: until the client has taken most, then all that is written fits.
static void work_numbers(httpsrv_req *req, void *user) {
    (void)user;
    counter numbers = count_to(httpsrv_param(req, "last"));
    httpsrv_begin(req, 200, "text/plain", -1);
    while (numbers.next <= numbers.last && httpsrv_wait_drain(req) == HTTPSRV_OK) {
        char block[4096];
        size_t len = 0;
        while (numbers.next <= numbers.last && sizeof block - len > 32)
            len += (size_t)snprintf(block + len, sizeof block - len, "%ld\n", numbers.next++);
        if (httpsrv_write(req, (httpsrv_str){block, len}) != HTTPSRV_OK) break;
    }
    if (numbers.next > numbers.last) httpsrv_end(req); // without it the answer is broken off
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
    server = httpsrv_new(&(httpsrv_config){.port = argc > 1 ? atoi(argv[1]) : 8080});
    httpsrv_on(server, "GET /numbers/:last", show_numbers, NULL);
    httpsrv_route(server,
                  &(httpsrv_route_config){.pattern = "GET /worker/:last", .handler = work_numbers, .pool = "default"});
    httpsrv_route(server, &(httpsrv_route_config){
                              .pattern = "* /echo", .handler = begin_echo, .on_body = echo_piece, .max_body = -1});
    if (httpsrv_listen(server) != HTTPSRV_OK) {
        fprintf(stderr, "%s\n", httpsrv_error(server));
        httpsrv_free(server);
        return 1;
    }
    signal(SIGINT, stop);
    signal(SIGTERM, stop);
    printf("listening on http://localhost:%d/\n", httpsrv_port(server, 0));
    fflush(stdout);
    httpsrv_run(server);
    httpsrv_free(server);
    return 0;
}
