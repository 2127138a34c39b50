// Serves a directory, with lists of what is in it.
//
//     cc -I. examples/files.c -pthread -o files && ./files .    (./files /srv/www 9000: another directory and port)
//
//     http://localhost:8080/                                          in a browser
//     curl -r 0-99 http://localhost:8080/httpsrv.h                    a range
//     curl -i -H 'If-None-Match: "..."' http://localhost:8080/README.md    304 if that is still its ETag
//     curl -i --path-as-is http://localhost:8080/../etc/passwd        400: nothing outside of the directory can be had

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

int main(int argc, char **argv) {
    static const httpsrv_mime types[] = {
        {"c", "text/plain; charset=utf-8"}, {"h", "text/plain; charset=utf-8"}, {NULL, NULL}};
    server = httpsrv_new(&(httpsrv_config){.port = argc > 2 ? atoi(argv[2]) : 8080});
    httpsrv_files(server, "/",
                  &(httpsrv_files_config){
                      .root = argc > 1 ? argv[1] : ".",
                      .list = true,                // where there is no index.html
                      .precompressed = true,       // a.css.gz instead of a.css to those who take it
                      .cache_control = "no-cache", // keep it, but ask whether it is still the same
                      .types = types,              // in front of those that the server knows
                      .pool = "default",           // a slow disk holds up nobody else
                  });
    // Lists and pages must not be shown in frames of others, nor run what is not from here.
    httpsrv_use(server, "/", httpsrv_security_headers, NULL);
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
