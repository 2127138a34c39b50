// A handler that blocks, on threads of its own, beside one that answers at once.
//
//     cc -I. examples/pool.c -pthread -o pool && ./pool    (./pool 9000: another port)
//
//     curl http://localhost:8080/slow &
//     curl http://localhost:8080/fast                      answers while the other one sleeps
//
// Four threads take what is slow, eight more requests may wait for them, and the one after that gets
// 503 with Retry-After at once: nothing piles up, and /fast does not notice.

#define HTTPSRV_IMPLEMENTATION
#include "httpsrv.h"
#include "serve.h"
#include <unistd.h>

// No pool: runs on the reactor, between the other events. It must not block.
static void fast(httpsrv_req *req, void *user) {
    (void)user;
    httpsrv_reply(req, 200, "text/plain", HTTPSRV_STR("fast\n"));
}

// Runs on a thread of the pool, and may block: a database, a file, a long computation. When the client has
// left meanwhile, the rest of the work is in vain; the answer, which each request needs, then goes nowhere.
static void slow(httpsrv_req *req, void *user) {
    (void)user;
    for (int i = 0; i < 10 && !httpsrv_gone(req); i++)
        usleep(100000);
    httpsrv_reply(req, 200, "text/plain", HTTPSRV_STR("slow\n"));
}

int main(int argc, char **argv) {
    httpsrv *srv = httpsrv_new(&(httpsrv_config){
        .port = serve_port(argc, argv),
        .pools = {{.name = "slow", .threads = 4, .queue = 8}},
    });
    httpsrv_on(srv, "GET /fast", fast, NULL);
    httpsrv_route(srv, &(httpsrv_route_config){.pattern = "GET /slow", .handler = slow, .pool = "slow"});

    int code = serve_as(srv, "localhost");
    httpsrv_free(srv);
    return code;
}
