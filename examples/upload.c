// A form with files. They are written to disk as they come in, so that memory stays small whatever their size.
//
//     cc -I. examples/upload.c -pthread -o upload && ./upload    (./upload 9000 /var/tmp: another port and directory)
//
//     http://localhost:8080/                                                     the form, in a browser
//     curl -F note=hello -F file=@httpsrv.h http://localhost:8080/upload         the same without one

#define HTTPSRV_IMPLEMENTATION
#include "httpsrv.h"
#include "serve.h"
#include <unistd.h>

static const char page[] = "<!doctype html><meta charset=\"utf-8\"><meta name=\"viewport\" "
                           "content=\"width=device-width\"><title>Upload</title>\n"
                           "<form method=\"post\" action=\"/upload\" enctype=\"multipart/form-data\">\n"
                           "<p><label>Note <input name=\"note\"></label>\n"
                           "<p><label>Files <input name=\"file\" type=\"file\" multiple></label>\n"
                           "<p><button>Send</button>\n"
                           "</form>\n";

static void show_page(httpsrv_req *req, void *user) {
    (void)user;
    httpsrv_reply(req, 200, "text/html; charset=utf-8", (httpsrv_str){page, sizeof page - 1});
}

// The file has no name in any directory and vanishes with the request; what should stay is copied from its descriptor.
static long count_lines(int fd) {
    char block[65536];
    long lines = 0; // of an empty file, which has no descriptor, too
    for (ssize_t n; (n = read(fd, block, sizeof block)) > 0;)
        for (ssize_t i = 0; i < n; i++)
            lines += block[i] == '\n';
    return lines;
}

// A part with a filename comes as a descriptor, all others as text.
static void show_part(httpsrv_req *req, const httpsrv_part *part) {
    if (part->filename.ptr)
        httpsrv_writef(req, "%.*s = %.*s, %lld bytes, %ld lines\n", HTTPSRV_FMT(part->name),
                       HTTPSRV_FMT(part->filename), (long long)part->size, count_lines(part->fd));
    else
        httpsrv_writef(req, "%.*s = \"%.*s\"\n", HTTPSRV_FMT(part->name), HTTPSRV_FMT(part->data));
}

// On a worker, since it waits for the body.
static void take_form(httpsrv_req *req, void *user) {
    const char *directory = user;
    httpsrv_form_data form;
    httpsrv_result result = httpsrv_read_form(req, &(httpsrv_form_config){.parts = 20, .spool = directory}, &form);
    if (result != HTTPSRV_OK) {
        httpsrv_replyf(req, httpsrv_result_status(result), "text/plain", "%s\n", httpsrv_result_text(result));
        return;
    }
    httpsrv_begin(req, 200, "text/plain; charset=utf-8", -1);
    for (int i = 0; i < form.num_parts; i++) {
        if (httpsrv_wait_drain(req) != HTTPSRV_OK) return; // so that there is room for all that is written
        show_part(req, &form.parts[i]);
    }
    httpsrv_end(req);
}

int main(int argc, char **argv) {
    const int port = serve_port_at(argc, argv, 1, 2, "[PORT [DIRECTORY]]");
    httpsrv_route_config upload = {.pattern = "POST /upload", .handler = take_form, .pool = "default", .stream = true};
    upload.max_body = 10LL << 30;
    upload.user = serve_directory(argc > 2 ? argv[2] : "/tmp");
    httpsrv *srv = httpsrv_new(&(httpsrv_config){.port = port});
    httpsrv_on(srv, "GET /", show_page, NULL);
    httpsrv_route(srv, &upload);
    int code = serve_as(srv, "localhost");
    httpsrv_free(srv);
    return code;
}
