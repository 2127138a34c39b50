// The smallest server. Compile: cc -I. examples/hello.c -pthread -o hello   Try: curl http://localhost:8080/
#define HTTPSRV_IMPLEMENTATION
#include "httpsrv.h"
#include <stdio.h>

static void hello(httpsrv_req *req, void *user) {
    (void)user;
    httpsrv_reply(req, 200, "text/plain", HTTPSRV_STR("Hello, World!\n"));
}

int main(void) {
    httpsrv *srv = httpsrv_new(&(httpsrv_config){.port = 8080});
    httpsrv_on(srv, "GET /", hello, NULL);
    httpsrv_result result = httpsrv_run(srv); // serves until httpsrv_stop(srv), from any thread or signal handler
    if (result != HTTPSRV_OK) fprintf(stderr, "%s\n", httpsrv_error(srv));
    httpsrv_free(srv);
    return result == HTTPSRV_OK ? 0 : 1;
}
