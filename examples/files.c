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
#include "serve.h"

int main(int argc, char **argv) {
    static const httpsrv_mime types[] = {
        {"c", "text/plain; charset=utf-8"}, {"h", "text/plain; charset=utf-8"}, {NULL, NULL}};
    httpsrv *srv = httpsrv_new(&(httpsrv_config){.port = serve_port_at(argc, argv, 2, 2, "[DIRECTORY [PORT]]")});
    httpsrv_files(srv, "/",
                  &(httpsrv_files_config){
                      .root = argc > 1 ? argv[1] : ".",
                      .list = true,                // where there is no index.html
                      .precompressed = true,       // a.css.gz instead of a.css to those who take it
                      .cache_control = "no-cache", // keep it, but ask whether it is still the same
                      .types = types,              // in front of those that the server knows
                      .pool = "default",           // a slow disk holds up nobody else
                  });
    // Lists and pages must not be shown in frames of others, nor run what is not from here.
    httpsrv_use(srv, "/", httpsrv_security_headers, NULL);
    int code = serve_as(srv, "localhost");
    httpsrv_free(srv);
    return code;
}
