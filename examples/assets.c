// A site inside the program: for devices without a file system, and for programs that are one file.
//
//     make build/assets && build/assets    (build/assets 9000: another port)
//
//     http://localhost:8080/                                       in a browser
//     curl -i --compressed http://localhost:8080/style.css         compressed when it was built, not now
//
// assets_table.h is made from the files in examples/assets by od and sed, see the Makefile:
//
//     static const unsigned char raw_1[] = {60, 33, 100, ...};
//     static const httpsrv_asset assets[] = {{.path = "/index.html", .data = raw_1, ...}, ..., {.path = NULL}};

#define HTTPSRV_IMPLEMENTATION
#include "httpsrv.h"
#include "serve.h"
#include "assets_table.h"

int main(int argc, char **argv) {
    httpsrv *srv = httpsrv_new(&(httpsrv_config){.port = serve_port(argc, argv)});
    httpsrv_assets(srv, "/", assets); // a route of one's own, such as "GET /api/time", goes before
    int code = serve_as(srv, "localhost");
    httpsrv_free(srv);
    return code;
}
