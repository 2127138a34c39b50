// A form with files. They are written to disk as they come in, so that memory stays small whatever their size.
//
//     cc -I. examples/upload.c -pthread -o upload && ./upload    (./upload 9000 /var/tmp: another port and directory)
//
//     http://localhost:8080/                                                     the form, in a browser
//     curl -F note=hello -F file=@httpsrv.h http://localhost:8080/upload         the same without one

#define HTTPSRV_IMPLEMENTATION
#include "httpsrv.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const char page[] = "<!doctype html>\n"
                           "<meta charset=\"utf-8\">\n"
                           "<meta name=\"viewport\" content=\"width=device-width\">\n"
                           "<title>Upload</title>\n"
                           "<form method=\"post\" action=\"/upload\" enctype=\"multipart/form-data\">\n"
                           "<p><label>Note <input name=\"note\"></label>\n"
                           "<p><label>Files <input name=\"file\" type=\"file\" multiple></label>\n"
                           "<p><button>Send</button>\n"
                           "</form>\n";

static httpsrv *server; // for the signal handler, which gets no argument

static void stop(int signal_number) {
    (void)signal_number;
    httpsrv_stop(server);
}

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

static int status_of(httpsrv_result result) {
    switch (result) {
    case HTTPSRV_UNSUPPORTED: return 415;
    case HTTPSRV_TOOBIG: return 413;
    case HTTPSRV_SYNTAX: return 400;
    default: return 503; // no memory, or no place for the file
    }
}

static httpsrv_str describe(const httpsrv_part *part, char *line, size_t size) {
    int len;
    if (part->filename.ptr)
        len = snprintf(line, size, "%.*s = %.*s, %lld bytes, %ld lines\n", HTTPSRV_FMT(part->name),
                       HTTPSRV_FMT(part->filename), (long long)part->size, count_lines(part->fd));
    else
        len = snprintf(line, size, "%.*s = \"%.*s\"\n", HTTPSRV_FMT(part->name), HTTPSRV_FMT(part->data));
    return (httpsrv_str){line, (size_t)len < size ? (size_t)len : size - 1}; // a long text in part
}

// On a worker, since it waits for the body. A part with a filename comes as a descriptor, all others as text.
static void take_form(httpsrv_req *req, void *user) {
    const char *directory = user;
    httpsrv_form_data form;
    httpsrv_result result = httpsrv_read_form(req, &(httpsrv_form_config){.parts = 20, .spool = directory}, &form);
    if (result != HTTPSRV_OK) {
        httpsrv_replyf(req, status_of(result), "text/plain", "%s\n", httpsrv_result_text(result));
        return;
    }
    httpsrv_begin(req, 200, "text/plain; charset=utf-8", -1);
    for (int i = 0; i < form.num_parts; i++) {
        char line[1024];
        httpsrv_write(req, describe(&form.parts[i], line, sizeof line));
    }
    httpsrv_end(req);
}

int main(int argc, char **argv) {
    server = httpsrv_new(&(httpsrv_config){.port = argc > 1 ? atoi(argv[1]) : 8080});
    httpsrv_on(server, "GET /", show_page, NULL);
    httpsrv_route(server, &(httpsrv_route_config){
                              .pattern = "POST /upload",
                              .handler = take_form,
                              .user = argc > 2 ? argv[2] : "/tmp",
                              .stream = true,
                              .pool = "default",
                              .max_body = 10LL << 30,
                          });
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
