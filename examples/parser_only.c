// The parser without the server: bytes in, views out. No allocation, no I/O, no callbacks.
//
//     cc -I. examples/parser_only.c -pthread -o parser_only
//
//     ./parser_only                                  parses a request that is built in, 7 bytes at a time
//     printf 'GET /a?b HTTP/1.1\r\nHost: c\r\n\r\n' | ./parser_only -

#define HTTPSRV_IMPLEMENTATION
#include "httpsrv.h"
#include <stdio.h>
#include <string.h>

enum { PIECE = 7, MAX_MESSAGE = 64 * 1024, MAX_FIELDS = 100 };

static const char sample[] = "POST /upload?kind=text HTTP/1.1\r\n"
                             "Host: example.org\r\n"
                             "Content-Type: text/plain\r\n"
                             "Transfer-Encoding: chunked\r\n"
                             "\r\n"
                             "7\r\nHello, \r\n"
                             "6\r\nWorld!\r\n"
                             "0\r\n"
                             "Checksum: none\r\n"
                             "\r\n";

// What has arrived so far. Bytes before `used` are parsed and done with.
typedef struct message {
    char bytes[MAX_MESSAGE];
    size_t used, len;
} message;

static void print_head(const httpsrv_head *head) {
    printf("method   %.*s\n", HTTPSRV_FMT(head->method));
    printf("path     %.*s\n", HTTPSRV_FMT(head->path));
    if (head->query.ptr) printf("query    %.*s\n", HTTPSRV_FMT(head->query));
    if (head->authority.ptr) printf("host     %.*s\n", HTTPSRV_FMT(head->authority));
    printf("version  1.%d, %s\n", head->version_minor, head->keep_alive ? "keep-alive" : "close");
    if (head->chunked) printf("length   chunked\n");
    if (head->content_length >= 0) printf("length   %lld\n", (long long)head->content_length);
}

static void print_fields(const char *what, const httpsrv_head *head) {
    for (int i = 0; i < head->num_fields; i++) {
        httpsrv_field field = head->fields[i];
        printf("%s %.*s = %.*s\n", what, HTTPSRV_FMT(field.name), HTTPSRV_FMT(field.value));
    }
}

static ptrdiff_t parse_head(httpsrv_parser *parser, const message *in, httpsrv_head *head) {
    ptrdiff_t n = httpsrv_parse_head(parser, in->bytes + in->used, in->len - in->used, head);
    if (n <= 0) return n;
    print_head(head);
    print_fields("field   ", head);
    return n;
}

static ptrdiff_t parse_body(httpsrv_parser *parser, const message *in) {
    httpsrv_str piece;
    ptrdiff_t n = httpsrv_parse_body(parser, in->bytes + in->used, in->len - in->used, &piece);
    if (n > 0 && piece.len > 0) printf("body     \"%.*s\"\n", HTTPSRV_FMT(piece));
    return n;
}

static ptrdiff_t parse_trailers(httpsrv_parser *parser, const message *in, httpsrv_head *head) {
    ptrdiff_t n = httpsrv_parse_trailers(parser, in->bytes + in->used, in->len - in->used, head);
    if (n > 0) print_fields("trailer ", head);
    return n;
}

// Takes all that can be parsed of the message so far. Result: > 0 complete, 0 more is needed, < 0 refused.
static ptrdiff_t advance(httpsrv_parser *parser, message *in, httpsrv_head *head) {
    while (!httpsrv_parse_done(parser)) {
        ptrdiff_t n = parser->phase == HTTPSRV_PHASE_HEAD   ? parse_head(parser, in, head)
                      : parser->phase == HTTPSRV_PHASE_BODY ? parse_body(parser, in)
                                                            : parse_trailers(parser, in, head);
        if (n <= 0) return n;
        in->used += (size_t)n;
    }
    return 1;
}

// The next few bytes of the sample or of the standard input; 0 at the end or when the message is full.
static size_t receive(message *in, FILE *file, size_t *sent) {
    size_t room = MAX_MESSAGE - in->len;
    size_t want = room < PIECE ? room : PIECE;
    size_t n = 0;
    if (file) {
        n = fread(in->bytes + in->len, 1, want, file);
    } else {
        size_t left = strlen(sample) - *sent;
        n = want < left ? want : left;
        memcpy(in->bytes + in->len, sample + *sent, n);
    }
    *sent += n;
    in->len += n;
    return n;
}

static int usage(FILE *out, const char *program) {
    fprintf(out, "usage: %s [-]    (parses the standard input, else a request that is built in)\n", program);
    return out == stdout ? 0 : 2;
}

int main(int argc, char **argv) {
    static message in;
    httpsrv_field fields[MAX_FIELDS];
    httpsrv_head head = {.fields = fields, .max_fields = MAX_FIELDS};
    httpsrv_parser parser;
    FILE *file = argc == 2 && strcmp(argv[1], "-") == 0 ? stdin : NULL;
    ptrdiff_t result = 0;

    if (argc > 1 && !file) return usage(strcmp(argv[1], "--help") == 0 ? stdout : stderr, argv[0]);
    httpsrv_parser_init(&parser, NULL);
    for (size_t sent = 0; result == 0 && receive(&in, file, &sent) > 0;)
        result = advance(&parser, &in, &head);

    if (result < 0) printf("refused  %d %s\n", parser.status, httpsrv_log_text((httpsrv_log_item)parser.item));
    if (result == 0) printf("not complete\n");
    if (result > 0) printf("done     %zu bytes\n", in.used);
    return result > 0 ? 0 : 1;
}
