// A server in this thread and a connection to it that lasts, for fuzzers whose inputs are requests.
//
//     httpsrv *srv = fuzz_serve_new();
//     ... httpsrv_files(srv, ...) ...
//     fuzz_serve(srv);
//     fuzz_ask(&request, false);         // the answer is in fuzz_client
//
// What is asked for must be answered at once, and not at length: there is nobody else to turn the loop.

#ifndef FUZZ_SERVE_H
#define FUZZ_SERVE_H

#include "fuzz.h"

#include "../net.h"

#define FUZZ_TURNS 3 // of the loop until an answer is out

static httpsrv *fuzz_server;
static struct client fuzz_client;

TEST_FN httpsrv *fuzz_serve_new(void) {
    httpsrv_config config;
    memset(&config, 0, sizeof config);
    config.host = "127.0.0.1";
    httpsrv *srv = httpsrv_new(&config);
    CHECK(srv != NULL);
    return srv;
}

TEST_FN void fuzz_serve(httpsrv *srv) {
    if (httpsrv_listen(srv) != HTTPSRV_OK) FAIL("%s", httpsrv_error(srv));
    fuzz_server = srv;
    fuzz_client = net_client(-1);
}

TEST_FN void fuzz_serve_turn(void) {
    for (int i = 0; i < FUZZ_TURNS; i++)
        CHECK_INT(httpsrv_poll(fuzz_server, 0), HTTPSRV_OK);
}

TEST_FN void fuzz_connect(void) {
    struct sockaddr_storage nobody;
    int ends[2];
    memset(&nobody, 0, sizeof nobody);
    CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
    fuzz_serve_turn(); // for the loop's clock
    fuzz_client = net_client(ends[0]);
    hsrv_reactor_admit(fuzz_server->loops[0], ends[1], &nobody);
}

// The connection goes on for as long as the server lets it.
TEST_FN void fuzz_ask(const struct bytes *request, bool to_head) {
    struct client *c = &fuzz_client;
    if (c->fd >= 0 && c->close) hang_up(c);
    if (c->fd < 0) fuzz_connect();
    c->at = c->len = 0;
    net_send(c, request->ptr, request->len);
    fuzz_serve_turn();
    net_reply(c, to_head);
    CHECK_INT(c->at, c->len);
}

#endif // FUZZ_SERVE_H
