// Filters: what happens to every request before its handler, and a line in a log when its answer has gone out.
//
//     cc -I. examples/middleware.c -pthread -o middleware && ./middleware    (./middleware 9000: another port)
//
//     curl -i http://localhost:8080/                            an id, and fields that browsers heed
//     curl -i -H 'X-Request-Id: mine' http://localhost:8080/    the id that a proxy in front has given
//     curl -i http://localhost:8080/admin                       401
//     curl -i -u ada:lovelace http://localhost:8080/admin       let in
//     curl -i -H 'Origin: https://app.example' http://localhost:8080/api/time    for the script of another site
//     for i in $(seq 30); do curl -o /dev/null -sw '%{http_code} ' http://localhost:8080/api/time; done    429 after a while

#define HTTPSRV_IMPLEMENTATION
#include "httpsrv.h"
#include "serve.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static const char *const origins[] = {"https://app.example", "http://localhost:3000", NULL};
static httpsrv_cors_config cors = {.origins = origins, .methods = "GET"};
static httpsrv_rate_config rate = {.per_second = 5, .burst = 10};

// Passwords go over the wire as they are: for the world outside there has to be TLS in front.
static const httpsrv_account accounts[] = {{"ada", "lovelace"}, {NULL, NULL}};
static httpsrv_basic_auth_config auth = {.realm = "admin", .accounts = accounts};

// The last byte is out, or the client is lost. The request is gone by now, so the text was made before.
static void write_log(const httpsrv_outcome *outcome, void *arg) {
    char *text = arg;
    printf("%s %d, %lld bytes%s\n", text, outcome->status, (long long)outcome->bytes,
           outcome->delivered ? "" : ", not delivered");
    fflush(stdout);
    free(text);
}

// A filter of one's own. Neither method nor target can have quotes, blanks or line ends in it: the parser sees to that.
static httpsrv_verdict keep_log(httpsrv_req *req, void *user) {
    (void)user;
    const httpsrv_str id = httpsrv_id(req), peer = httpsrv_peer(req), method = httpsrv_method(req);
    const httpsrv_str target = httpsrv_target(req);
    char *text = malloc(200);
    if (!text) return HTTPSRV_NEXT;
    snprintf(text, 200, "%.*s %.*s \"%.*s %.*s\"", HTTPSRV_FMT(id), HTTPSRV_FMT(peer), HTTPSRV_FMT(method),
             HTTPSRV_FMT(target));
    if (httpsrv_on_done(req, write_log, text) != HTTPSRV_OK) free(text);
    return HTTPSRV_NEXT;
}

static void show_index(httpsrv_req *req, void *user) {
    (void)user;
    httpsrv_reply(req, 200, "text/plain", HTTPSRV_STR("Hello, whoever you are!\n"));
}

static void show_admin(httpsrv_req *req, void *user) {
    (void)user;
    const httpsrv_str name = httpsrv_auth_name(req);
    httpsrv_replyf(req, 200, "text/plain; charset=utf-8", "Hello, %.*s!\n", HTTPSRV_FMT(name));
}

static void show_time(httpsrv_req *req, void *user) {
    (void)user;
    httpsrv_replyf(req, 200, "application/json", "{\"time\":%lld}\n", (long long)time(NULL));
}

int main(int argc, char **argv) {
    httpsrv *srv = httpsrv_new(&(httpsrv_config){.port = serve_port(argc, argv)});
    // In this order, each for the paths beneath its prefix; the first that answers ends the walk. What comes before the log
    // in this list is not logged if it answers, so the log comes first, but for the id that it shows.
    httpsrv_use(srv, "/", httpsrv_request_id, NULL);
    httpsrv_use(srv, "/", keep_log, NULL);
    httpsrv_use(srv, "/", httpsrv_security_headers, NULL);
    httpsrv_use(srv, "/api", httpsrv_cors, &cors);
    httpsrv_use(srv, "/api", httpsrv_rate_limit, &rate);
    httpsrv_use(srv, "/admin", httpsrv_basic_auth, &auth);
    httpsrv_on(srv, "GET /", show_index, NULL);
    httpsrv_on(srv, "GET /admin", show_admin, NULL);
    httpsrv_on(srv, "GET /api/time", show_time, NULL);
    int code = serve_as(srv, "localhost");
    httpsrv_free(srv);
    return code;
}
