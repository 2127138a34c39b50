// The speed of the parser alone on three requests: nanoseconds, MB/s and the ratio to http_parser in the same process.
// Rounds of both are interleaved; the ratio is the median of the ratios round by round.
//
//     cc -O2 -I. -pthread -DHAVE_HTTP_PARSER bench/parser.c -lhttp_parser -o parser && ./parser
//
// Without -DHAVE_HTTP_PARSER (Debian package libhttp-parser-dev) there is nothing to compare with, and it says so.
// `./parser NAME COUNT` parses one of the requests so many times and prints nothing: for callgrind, which counts the
// instructions of parse_ours. `./parser --linear` shows what a byte costs, in messages that come whole and byte by
// byte: the same in small ones and in large ones, since no byte is looked at twice.

#define HTTPSRV_IMPLEMENTATION
#include "httpsrv.h"
#include "median.h"

#ifdef HAVE_HTTP_PARSER
#include <http_parser.h>
#endif

enum { MAX_FIELDS = 32, ROUNDS = 51, ROUND_NS = 4000000 };

typedef struct request {
    const char *name;
    httpsrv_str text;
} request;

#define SMALL                                                                  \
    "GET /plaintext HTTP/1.1\r\n"                                              \
    "Host: www.example.com\r\n"                                                \
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101\r\n" \
    "Accept: text/html,application/json;q=0.9,*/*;q=0.8\r\n"                   \
    "\r\n"

#define COOKIES                                                                                               \
    "GET /articles/2024/05/how-to-read-a-request?page=2&sort=newest&ref=feed HTTP/1.1\r\n"                    \
    "Host: www.example.com\r\n"                                                                               \
    "User-Agent: Mozilla/5.0 (Macintosh; Intel Mac OS X 10.15; rv:128.0) Gecko/20100101 Firefox/128.0\r\n"    \
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n"       \
    "Accept-Language: en-GB,en;q=0.7,de;q=0.3\r\n"                                                            \
    "Accept-Encoding: gzip, deflate, br, zstd\r\n"                                                            \
    "Referer: https://www.example.com/articles?page=1\r\n"                                                    \
    "Connection: keep-alive\r\n"                                                                              \
    "Cookie: session=5f2d7c1b9e8a4d63b0c7f1a2e3d4c5b6; theme=dark; consent=analytics.0-ads.0-necessary.1; "   \
    "_visit=GA1.2.1093847561.1714989021; cart=eyJpdGVtcyI6W3siaWQiOjQyLCJuIjoxfV19; last_seen=1714992733\r\n" \
    "If-None-Match: W/\"5c81-18f4d2a6b40\"\r\n"                                                               \
    "\r\n"

#define CHROME                                                                                                   \
    "GET /assets/app/main-4f9c1d27.js?v=1714992733 HTTP/1.1\r\n"                                                 \
    "Host: www.example.com\r\n"                                                                                  \
    "Connection: keep-alive\r\n"                                                                                 \
    "Pragma: no-cache\r\n"                                                                                       \
    "Cache-Control: no-cache\r\n"                                                                                \
    "sec-ch-ua: \"Chromium\";v=\"124\", \"Google Chrome\";v=\"124\", \"Not-A.Brand\";v=\"99\"\r\n"               \
    "sec-ch-ua-mobile: ?0\r\n"                                                                                   \
    "sec-ch-ua-platform: \"Linux\"\r\n"                                                                          \
    "Upgrade-Insecure-Requests: 1\r\n"                                                                           \
    "DNT: 1\r\n"                                                                                                 \
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/124.0.0.0 "       \
    "Safari/537.36\r\n"                                                                                          \
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,"            \
    "*/*;q=0.8\r\n"                                                                                              \
    "Origin: https://www.example.com\r\n"                                                                        \
    "Sec-Fetch-Site: same-origin\r\n"                                                                            \
    "Sec-Fetch-Mode: navigate\r\n"                                                                               \
    "Sec-Fetch-User: ?1\r\n"                                                                                     \
    "Sec-Fetch-Dest: document\r\n"                                                                               \
    "Referer: https://www.example.com/articles/2024/05/\r\n"                                                     \
    "Accept-Encoding: gzip, deflate, br, zstd\r\n"                                                               \
    "Accept-Language: en-GB,en-US;q=0.9,en;q=0.8\r\n"                                                            \
    "Cookie: session=5f2d7c1b9e8a4d63b0c7f1a2e3d4c5b6; theme=dark; _visit=GA1.2.1093847561.1714989021; "         \
    "consent=analytics.0-ads.0-necessary.1; cart=eyJpdGVtcyI6W3siaWQiOjQyLCJuIjoxfV19; last_seen=1714992733\r\n" \
    "\r\n"

static const request requests[] = {
    {"small", {SMALL, sizeof SMALL - 1}},
    {"cookies", {COOKIES, sizeof COOKIES - 1}},
    {"chrome", {CHROME, sizeof CHROME - 1}},
};

enum { NUM_REQUESTS = sizeof requests / sizeof requests[0] };

// A parser from its initialisation to the end of the head. Whether it took the whole text.
typedef bool (*parse_fn)(httpsrv_str text);

static httpsrv_field our_fields[MAX_FIELDS];
static httpsrv_head ours = {.fields = our_fields, .max_fields = MAX_FIELDS};

__attribute__((noinline)) static bool parse_ours(httpsrv_str text) {
    httpsrv_parser parser;
    httpsrv_parser_init(&parser, NULL);
    return httpsrv_parse_head(&parser, text.ptr, text.len, &ours) == (ptrdiff_t)text.len;
}

#ifdef HAVE_HTTP_PARSER

// What its callbacks record: the least that makes the two comparable, since each text comes in one piece.
static struct {
    httpsrv_str method, url;
    httpsrv_field fields[MAX_FIELDS];
    int num_fields;
} theirs;

static int on_url(http_parser *parser, const char *at, size_t len) {
    (void)parser;
    theirs.url = (httpsrv_str){at, len};
    return 0;
}

static int on_field(http_parser *parser, const char *at, size_t len) {
    (void)parser;
    theirs.fields[theirs.num_fields].name = (httpsrv_str){at, len};
    return 0;
}

static int on_value(http_parser *parser, const char *at, size_t len) {
    (void)parser;
    theirs.fields[theirs.num_fields++].value = (httpsrv_str){at, len};
    return 0;
}

__attribute__((noinline)) static bool parse_theirs(httpsrv_str text) {
    static const http_parser_settings settings = {
        .on_url = on_url, .on_header_field = on_field, .on_header_value = on_value};
    http_parser parser;
    http_parser_init(&parser, HTTP_REQUEST);
    theirs.num_fields = 0;
    const size_t parsed = http_parser_execute(&parser, &settings, text.ptr, text.len);
    const char *method = http_method_str((enum http_method)parser.method);
    theirs.method = (httpsrv_str){method, strlen(method)};
    return parsed == text.len && parser.http_errno == HPE_OK;
}

static bool same_text(httpsrv_str a, httpsrv_str b) {
    return a.len == b.len && memcmp(a.ptr, b.ptr, a.len) == 0;
}

// Spans are compared by place, not only by content.
static bool same_span(httpsrv_str a, httpsrv_str b) {
    return a.ptr == b.ptr && a.len == b.len;
}

static bool same_results(void) {
    if (!same_text(ours.method, theirs.method) || !same_span(ours.target, theirs.url)) return false;
    if (ours.num_fields != theirs.num_fields) return false;
    for (int i = 0; i < ours.num_fields; i++) {
        if (!same_span(ours.fields[i].name, theirs.fields[i].name)) return false;
        if (!same_span(ours.fields[i].value, theirs.fields[i].value)) return false;
    }
    return true;
}

#endif

static void die(const char *name, const char *why) {
    fprintf(stderr, "parser: %s: %s\n", name, why);
    exit(1);
}

static void check(const request *r) {
    if (!parse_ours(r->text)) die(r->name, "refused by httpsrv.h");
#ifdef HAVE_HTTP_PARSER
    if (!parse_theirs(r->text)) die(r->name, "refused by http_parser");
    if (!same_results()) die(r->name, "the two parsers disagree");
#endif
}

// CPU time rather than time, since the machine may have other things to do.
static double cpu_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

// Nanoseconds of `count` times.
static double run(parse_fn parse, httpsrv_str text, int count) {
    const double start = cpu_ns();
    for (int i = 0; i < count; i++) {
        if (!parse(text)) abort();
        __asm__ volatile("" ::: "memory");
    }
    return cpu_ns() - start;
}

// How often a round parses, so that it takes about ROUND_NS.
static int calibrate(parse_fn parse, httpsrv_str text) {
    int count = 1000;
    const double ns = run(parse, text, count);
    while (ns * count / 1000 < ROUND_NS && count < 10000000) {
        count += count / 2;
    }
    return count;
}

static double mb_per_second(const request *r, double ns) {
    return (double)r->text.len * 1e3 / ns;
}

#ifdef HAVE_HTTP_PARSER

static void measure(const request *r) {
    double ns[ROUNDS], their_ns[ROUNDS], ratio[ROUNDS];
    const int count = calibrate(parse_ours, r->text), their_count = calibrate(parse_theirs, r->text);
    for (int i = 0; i < ROUNDS; i++) {
        ns[i] = run(parse_ours, r->text, count) / count;
        their_ns[i] = run(parse_theirs, r->text, their_count) / their_count;
        ratio[i] = their_ns[i] / ns[i];
    }
    const double mine = median(ns, ROUNDS), other = median(their_ns, ROUNDS);
    printf("%-8s %6zu %7d %9.1f %9.0f %15.1f %9.0f %8.2f\n", r->name, r->text.len, ours.num_fields, mine,
           mb_per_second(r, mine), other, mb_per_second(r, other), median(ratio, ROUNDS));
}

static void print_header(void) {
    const unsigned long version = http_parser_version();
    printf("scanning: %s; compared with http_parser %lu.%lu.%lu\n", HSRV_SCAN_PATH, version >> 16, version >> 8 & 255,
           version & 255);
    printf("%-8s %6s %7s %9s %9s %15s %9s %8s\n", "request", "bytes", "fields", "ns", "MB/s", "http_parser ns", "MB/s",
           "ratio");
}

#else

static void measure(const request *r) {
    double ns[ROUNDS];
    const int count = calibrate(parse_ours, r->text);
    for (int i = 0; i < ROUNDS; i++) {
        ns[i] = run(parse_ours, r->text, count) / count;
    }
    const double mine = median(ns, ROUNDS);
    printf("%-8s %6zu %7d %9.1f %9.0f\n", r->name, r->text.len, ours.num_fields, mine, mb_per_second(r, mine));
}

static void print_header(void) {
    printf("scanning: %s; built without http_parser (Debian package libhttp-parser-dev): no comparison\n",
           HSRV_SCAN_PATH);
    printf("%-8s %6s %7s %9s %9s\n", "request", "bytes", "fields", "ns", "MB/s");
}

#endif

// ---- linear cost ----

#define HEAD_LINE   "POST / HTTP/1.1\r\nHost: www.example.com\r\n"
#define HEAD_FIELD  "Accept-Encoding: gzip\r\n"
#define CHUNKS_HEAD HEAD_LINE "Transfer-Encoding: chunked\r\n\r\n"
#define CHUNK       "1\r\nx\r\n"
#define LAST_CHUNK  "0\r\n"

enum { LINEAR_FIELDS = 1024, LINEAR_ROUNDS = 3, LINEAR_BYTES = 64 << 20, KB = 1 << 10, MB = 1 << 20 };

static const httpsrv_limits linear_limits = {.head = 1 << 20, .headers = LINEAR_FIELDS, .body = -1};
static httpsrv_field linear_fields[LINEAR_FIELDS];

static bool feed_head(httpsrv_str text, size_t step) {
    httpsrv_head head = {.fields = linear_fields, .max_fields = LINEAR_FIELDS};
    httpsrv_parser parser;
    httpsrv_parser_init(&parser, &linear_limits);
    ptrdiff_t result = 0;
    for (size_t fed = step; result == 0 && fed <= text.len; fed += step) {
        result = httpsrv_parse_head(&parser, text.ptr, fed, &head);
    }
    return result == (ptrdiff_t)text.len;
}

static bool head_whole(httpsrv_str text) {
    return feed_head(text, text.len);
}

static bool head_by_byte(httpsrv_str text) {
    return feed_head(text, 1);
}

// What is behind the head of a chunked message, up to the trailers. What a call leaves is there again in the next.
static bool feed_body(httpsrv_str text, size_t step) {
    httpsrv_parser parser;
    httpsrv_str piece;
    httpsrv_parser_init(&parser, &linear_limits);
    if (httpsrv_parse_head(&parser, CHUNKS_HEAD, sizeof CHUNKS_HEAD - 1, &ours) <= 0) return false;
    size_t at = 0;
    for (size_t fed = step; fed <= text.len && parser.phase == HTTPSRV_PHASE_BODY;) {
        const ptrdiff_t n = httpsrv_parse_body(&parser, text.ptr + at, fed - at, &piece);
        if (n < 0) return false;
        at += (size_t)n;
        if (n == 0 || at == fed) fed += step;
    }
    return at == text.len;
}

static bool body_whole(httpsrv_str text) {
    return feed_body(text, text.len);
}

static bool body_by_byte(httpsrv_str text) {
    return feed_body(text, 1);
}

static char *append(char *at, const char *text) {
    const size_t len = strlen(text);
    memcpy(at, text, len);
    return at + len;
}

// `first`, `count` times `middle`, `last`; the caller frees it.
static httpsrv_str new_text(const char *first, const char *middle, size_t count, const char *last) {
    char *text = malloc(strlen(first) + count * strlen(middle) + strlen(last) + 1), *at = text;
    if (!text) die("linear", "out of memory");
    at = append(at, first);
    for (size_t i = 0; i < count; i++) {
        at = append(at, middle);
    }
    at = append(at, last);
    return (httpsrv_str){text, (size_t)(at - text)};
}

// The fastest round, since what disturbs a round makes it slower.
static double ns_per_byte(parse_fn parse, httpsrv_str text) {
    const int count = text.len < LINEAR_BYTES ? (int)(LINEAR_BYTES / text.len) : 1;
    double best = run(parse, text, count);
    for (int i = 1; i < LINEAR_ROUNDS; i++) {
        const double ns = run(parse, text, count);
        if (ns < best) best = ns;
    }
    return best / count / (double)text.len;
}

static void measure_linear(const char *name, parse_fn whole, parse_fn by_byte, httpsrv_str text) {
    if (!whole(text) || !by_byte(text)) die(name, "refused by httpsrv.h");
    printf("%-32s %10zu %12.2f %12.2f\n", name, text.len, ns_per_byte(whole, text), ns_per_byte(by_byte, text));
    free((char *)text.ptr);
}

static void measure_head(const char *name, size_t size) {
    const size_t fields = (size - sizeof HEAD_LINE - 1) / (sizeof HEAD_FIELD - 1);
    measure_linear(name, head_whole, head_by_byte, new_text(HEAD_LINE, HEAD_FIELD, fields, "\r\n"));
}

static void measure_body(const char *name, size_t size) {
    measure_linear(name, body_whole, body_by_byte, new_text("", CHUNK, size, LAST_CHUNK));
}

static int linear(void) {
    printf("%-32s %10s %12s %12s\n", "ns per byte", "bytes", "whole", "byte by byte");
    measure_head("head, 4 KB", 4 * KB);
    measure_head("head, 16 KB", 16 * KB);
    measure_body("body, 4 MB in 1-byte chunks", 4 * MB);
    measure_body("body, 16 MB in 1-byte chunks", 16 * MB);
    return 0;
}

static int usage(void) {
    fprintf(stderr, "usage: parser [--scan | --linear | NAME COUNT]\nNAME:");
    for (int i = 0; i < NUM_REQUESTS; i++) {
        fprintf(stderr, " %s", requests[i].name);
    }
    fprintf(stderr, "\n");
    return 2;
}

static int repeat(const char *name, int count) {
    for (int i = 0; i < NUM_REQUESTS; i++) {
        if (strcmp(requests[i].name, name) != 0) continue;
        run(parse_ours, requests[i].text, count);
        return 0;
    }
    return usage();
}

int main(int argc, char **argv) {
    if (argc == 3 && atoi(argv[2]) > 0) return repeat(argv[1], atoi(argv[2]));
    if (argc == 2 && strcmp(argv[1], "--scan") == 0) return puts(HSRV_SCAN_PATH) < 0;
    if (argc == 2 && strcmp(argv[1], "--linear") == 0) return linear();
    if (argc != 1) return usage();
    print_header();
    for (int i = 0; i < NUM_REQUESTS; i++) {
        check(&requests[i]);
        measure(&requests[i]);
    }
    return 0;
}
