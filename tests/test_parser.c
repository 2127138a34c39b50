// The parser alone, by its contract in httpsrv.h: results and phases, limits at the limit and one past it, cost, copies,
// and agreement with a second reading of the RFCs (oracle.h) on whatever a random number generator comes up with.

#define HTTPSRV_IMPLEMENTATION
#include "httpsrv.h"
#include "oracle.h"
#include "test.h"

#define PAGE 4096

// ---- one message at a time ----

struct one {
    httpsrv_parser parser;
    httpsrv_head head;
    httpsrv_field fields[MAX_FIELDS];
};

static void begin(struct one *o, const httpsrv_limits *limits) {
    memset(o, 0x55, sizeof *o);
    httpsrv_parser_init(&o->parser, limits);
    o->head.fields = o->fields;
    o->head.max_fields = MAX_FIELDS;
}

static ptrdiff_t parse_head(struct one *o, const char *text) {
    return httpsrv_parse_head(&o->parser, text, strlen(text), &o->head);
}

// A fresh parser on a head.
static ptrdiff_t head_of(struct one *o, const char *text) {
    begin(o, NULL);
    return parse_head(o, text);
}

static ptrdiff_t parse_body(struct one *o, const char *text, httpsrv_str *piece) {
    return httpsrv_parse_body(&o->parser, text, strlen(text), piece);
}

#define CHECK_ERROR(o, result, expected, code, name)       \
    do {                                                   \
        CHECK_INT((result), (expected));                   \
        CHECK_INT((o)->parser.status, (code));             \
        CHECK_INT((o)->parser.item, HTTPSRV_LOG_##name);   \
        CHECK_INT((o)->parser.phase, HTTPSRV_PHASE_ERROR); \
    } while (0)

#define PLAIN   "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
#define SIZED   "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"
#define CHUNKED "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"

TEST(head_returns_its_bytes_and_no_more) {
    struct one o;
    CHECK_INT(head_of(&o, PLAIN), strlen(PLAIN));
    CHECK_INT(head_of(&o, PLAIN "GET /next"), strlen(PLAIN));
    CHECK_INT(head_of(&o, PLAIN "\r\n\x01\x02"), strlen(PLAIN));
    CHECK_INT(head_of(&o, "\r\n\r\n" PLAIN), strlen(PLAIN) + 4);
    CHECK_VIEW(o.head.method, "GET");
    CHECK_VIEW(o.head.target, "/");
    CHECK_VIEW(o.head.path, "/");
    CHECK_VIEW(o.head.query, NULL);
    CHECK_VIEW(o.head.authority, "a");
    CHECK_VIEW(o.head.host, "a");
    CHECK_VIEW(o.head.content_type, NULL);
    CHECK_INT(o.head.num_fields, 1);
    CHECK_INT(o.head.max_fields, MAX_FIELDS);
    CHECK(o.head.fields == o.fields);
    CHECK_VIEW(o.fields[0].name, "Host");
    CHECK_VIEW(o.fields[0].value, "a");
    CHECK_INT(o.head.content_length, -1);
}

TEST(head_wants_more_until_its_last_byte) {
    static const char text[] = "\r\nPOST /a?b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nX:  y \r\n\r\n";
    for (size_t len = 0; len < sizeof text - 1; len++) {
        struct one o;
        NOTE("%zu bytes", len);
        begin(&o, NULL);
        CHECK_INT(httpsrv_parse_head(&o.parser, text, len, &o.head), 0);
        CHECK_INT(httpsrv_parse_head(&o.parser, text, len, &o.head), 0); // nothing new, no harm
        CHECK_INT(o.parser.phase, HTTPSRV_PHASE_HEAD);
        CHECK(!httpsrv_parse_done(&o.parser));
        CHECK_INT(httpsrv_parse_head(&o.parser, text, sizeof text - 1, &o.head), sizeof text - 1);
        CHECK_VIEW(o.fields[2].value, "y");
    }
}

TEST(views_of_absent_and_empty_parts_differ) {
    struct one o;
    CHECK_CMP(head_of(&o, "GET /? HTTP/1.1\r\nHost: a\r\nX:\r\nContent-Type:\r\n\r\n"), >, 0);
    CHECK_VIEW(o.head.query, "");
    CHECK_VIEW(o.fields[1].value, "");
    CHECK_VIEW(o.head.content_type, "");
    CHECK_CMP(head_of(&o, "GET / HTTP/1.0\r\n\r\n"), >, 0);
    CHECK_VIEW(o.head.query, NULL);
    CHECK_VIEW(o.head.host, NULL);
    CHECK_VIEW(o.head.authority, NULL);
    CHECK_INT(o.head.num_fields, 0);
    CHECK_INT(o.head.version_minor, 0);
}

TEST(phases_without_body) {
    struct one o;
    CHECK_CMP(head_of(&o, PLAIN), >, 0);
    CHECK_INT(o.parser.phase, HTTPSRV_PHASE_DONE);
    CHECK(httpsrv_parse_done(&o.parser));
    CHECK_CMP(head_of(&o, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"), >, 0);
    CHECK_INT(o.parser.phase, HTTPSRV_PHASE_DONE);
    CHECK_INT(o.head.content_length, 0);
}

TEST(phases_of_a_sized_body) {
    struct one o;
    httpsrv_str piece;
    CHECK_INT(head_of(&o, SIZED "hello"), strlen(SIZED));
    CHECK_INT(o.parser.phase, HTTPSRV_PHASE_BODY);
    CHECK(!httpsrv_parse_done(&o.parser));
    CHECK_INT(parse_body(&o, "", &piece), 0);
    CHECK_INT(parse_body(&o, "he", &piece), 2);
    CHECK_VIEW(piece, "he");
    CHECK_INT(o.parser.phase, HTTPSRV_PHASE_BODY);
    CHECK_INT(parse_body(&o, "lloGET /", &piece), 3);
    CHECK_VIEW(piece, "llo");
    CHECK_INT(o.parser.phase, HTTPSRV_PHASE_DONE);
    CHECK(httpsrv_parse_done(&o.parser));
}

// Consumes what there is of a chunked body; the data, terminated, in `out`.
static size_t consume(struct one *o, const char *text, char *out) {
    size_t at = 0, len = strlen(text);
    *out = 0;
    while (o->parser.phase == HTTPSRV_PHASE_BODY && at < len) {
        httpsrv_str piece = {NULL, 0};
        ptrdiff_t n = httpsrv_parse_body(&o->parser, text + at, len - at, &piece);
        CHECK_CMP(n, >=, 0);
        if (n == 0) break;
        strncat(out, piece.len ? piece.ptr : "", piece.len);
        at += (size_t)n;
    }
    return at;
}

TEST(phases_of_a_chunked_body) {
    static const char rest[] = "5;a=b\r\nhello\r\n3\r\n, w\r\n0\r\n";
    struct one o;
    char data[64];
    CHECK_INT(head_of(&o, CHUNKED), strlen(CHUNKED));
    CHECK_INT(o.parser.phase, HTTPSRV_PHASE_BODY);
    CHECK(o.head.chunked);
    CHECK_INT(consume(&o, rest, data), strlen(rest));
    CHECK_STR(data, "hello, w");
    CHECK_INT(o.parser.phase, HTTPSRV_PHASE_TRAILERS);
    CHECK(!httpsrv_parse_done(&o.parser));
    CHECK_INT(httpsrv_parse_trailers(&o.parser, "\r", 1, &o.head), 0);
    CHECK_INT(httpsrv_parse_trailers(&o.parser, "\r\nGET", 5, &o.head), 2);
    CHECK_INT(o.head.num_fields, 0);
    CHECK(httpsrv_parse_done(&o.parser));
}

TEST(trailers_leave_the_head_alone) {
    static const char trailers[] = "A: b\r\nX-Host: c\r\n\r\n";
    struct one o;
    httpsrv_head before;
    char data[64];
    CHECK_CMP(head_of(&o, CHUNKED), >, 0);
    before = o.head;
    CHECK_INT(consume(&o, "0\r\n", data), 3);
    CHECK_INT(httpsrv_parse_trailers(&o.parser, trailers, 7, &o.head), 0);
    CHECK_INT(httpsrv_parse_trailers(&o.parser, trailers, sizeof trailers - 1, &o.head), sizeof trailers - 1);
    CHECK_INT(o.head.num_fields, 2);
    CHECK_VIEW(o.fields[0].name, "A");
    CHECK_VIEW(o.fields[1].value, "c");
    CHECK(same_view(before.host, o.head.host) && same_view(before.method, o.head.method));
    CHECK_INT(before.content_length, o.head.content_length);
    CHECK_INT(before.chunked, o.head.chunked);
}

TEST(errors_are_final) {
    struct one o;
    httpsrv_str piece;
    CHECK_ERROR(&o, head_of(&o, "GET /\x01"), HTTPSRV_SYNTAX, 400, BAD_TARGET);
    CHECK_ERROR(&o, parse_head(&o, PLAIN), HTTPSRV_SYNTAX, 400, BAD_TARGET);
    CHECK_CMP(head_of(&o, CHUNKED), >, 0);
    CHECK_ERROR(&o, parse_body(&o, "x", &piece), HTTPSRV_SYNTAX, 400, BAD_CHUNK);
    CHECK_ERROR(&o, parse_body(&o, "0\r\n\r\n", &piece), HTTPSRV_SYNTAX, 400, BAD_CHUNK);
    CHECK(!httpsrv_parse_done(&o.parser));
    begin(&o, NULL);
    CHECK_INT(parse_head(&o, PLAIN), strlen(PLAIN));
}

TEST(results_tell_the_kind_of_refusal) {
    struct one o;
    CHECK_ERROR(&o, head_of(&o, "GET / HTTP/2.0\r\n"), HTTPSRV_UNSUPPORTED, 505, BAD_VERSION);
    CHECK_ERROR(&o, head_of(&o, "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x, chunked\r\n\r\n"),
                HTTPSRV_UNSUPPORTED, 501, UNKNOWN_CODING);
    CHECK_ERROR(&o, head_of(&o, "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\n\r\n"), HTTPSRV_TOOBIG, 413,
                BODY_TOO_LARGE);
    CHECK_ERROR(&o, head_of(&o, "GET / HTTP/1.1\r\n\r\n"), HTTPSRV_SYNTAX, 400, BAD_HOST);
}

// ---- limits ----

static struct bytes text_of(const char *before, char fill, size_t count, const char *after) {
    struct bytes b = {NULL, 0, 0};
    append_text(&b, before);
    for (size_t i = 0; i < count; i++)
        append(&b, &fill, 1);
    append_text(&b, after);
    return b;
}

// What a head or more gets under these limits, at once and byte by byte: "400 BAD_HOST", "done" or "more".
static void check_outcome(struct bytes input, const httpsrv_limits *limits, const char *expected) {
    for (int pace = 0; pace < 2; pace++) {
        struct drive d;
        const struct fact *last;
        drive_begin(&d, &input, limits);
        for (size_t i = 1; pace && i < input.len; i++)
            drive_to(&d, i);
        drive_end(&d);
        last = &d.facts.list[d.facts.num - 1];
        CHECK_STR(last->value.len ? last->value.ptr : last->key, expected);
        release_facts(&d.facts);
    }
    release_bytes(&input);
}

TEST(limit_of_the_head) {
    static const int64_t sizes[] = {64, 100, 1000, 4096, 16384, 100000};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        httpsrv_limits limits = {.head = sizes[i]};
        size_t fill = (size_t)sizes[i] - strlen(PLAIN) - strlen("X: \r\n");
        NOTE("limit %d", (int)sizes[i]);
        check_outcome(text_of("GET / HTTP/1.1\r\nHost: a\r\nX: ", 'y', fill, "\r\n\r\n"), &limits, "done");
        check_outcome(text_of("GET / HTTP/1.1\r\nHost: a\r\nX: ", 'y', fill + 1, "\r\n\r\n"), &limits,
                      "431 HEAD_TOO_LARGE");
        check_outcome(text_of("GET / HTTP/1.1\r\nHost: a\r\nX: ", 'y', fill + 3, ""), &limits, "more");
        check_outcome(text_of("GET / HTTP/1.1\r\nHost: a\r\nX: ", 'y', fill + 4, ""), &limits, "431 HEAD_TOO_LARGE");
    }
}

// A target that cannot end within the head's limit is too long; behind it, it is the head.
TEST(limit_of_the_head_within_the_request_line) {
    httpsrv_limits limits = {.head = 20};
    check_outcome(text_of("GET / HTTP/1.0\r\n", 'x', 0, "\r\n"), &limits, "done");
    check_outcome(text_of("GET /", 'x', 2, " HTTP/1.0\r\n\r\n"), &limits, "done");
    check_outcome(text_of("GET /", 'x', 3, " HTTP/1.0\r\n\r\n"), &limits, "431 HEAD_TOO_LARGE");
    check_outcome(text_of("GET /", 'x', 30, ""), &limits, "414 URI_TOO_LONG");
    check_outcome(text_of("", 'M', 30, ""), &limits, "414 URI_TOO_LONG");
}

TEST(limit_of_the_target) {
    static const int64_t sizes[] = {1, 2, 50, 8192, 10000};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        httpsrv_limits limits = {.uri = sizes[i]};
        size_t fill = (size_t)sizes[i] - 1;
        NOTE("limit %d", (int)sizes[i]);
        if (sizes[i] >= 3) // the method is counted as well
            check_outcome(text_of("GET /", 'y', fill, " HTTP/1.1\r\nHost: a\r\n\r\n"), &limits, "done");
        check_outcome(text_of("G /", 'y', fill, " HTTP/1.1\r\nHost: a\r\n\r\n"), &limits, "done");
        check_outcome(text_of("G /", 'y', fill + 1, " HTTP/1.1\r\nHost: a\r\n\r\n"), &limits, "414 URI_TOO_LONG");
        check_outcome(text_of("G /", 'y', fill, ""), &limits, "more");
        check_outcome(text_of("G /", 'y', fill + 1, ""), &limits, "414 URI_TOO_LONG");
    }
}

TEST(limit_of_the_method) {
    httpsrv_limits limits = {.uri = 50};
    check_outcome(text_of("", 'M', 50, " / HTTP/1.1\r\nHost: a\r\n\r\n"), &limits, "done");
    check_outcome(text_of("", 'M', 51, " / HTTP/1.1\r\nHost: a\r\n\r\n"), &limits, "414 URI_TOO_LONG");
    check_outcome(text_of("", 'M', 51, ""), &limits, "414 URI_TOO_LONG");
}

static struct bytes head_with(int fields) {
    struct bytes b = text_of("GET / HTTP/1.1\r\nHost: a\r\n", 0, 0, "");
    for (int i = 1; i < fields; i++)
        append_text(&b, "X: y\r\n");
    append_text(&b, "\r\n");
    return b;
}

TEST(limit_of_the_fields) {
    static const int counts[] = {1, 2, 10, MAX_FIELDS};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        httpsrv_limits limits = {.headers = counts[i]};
        NOTE("limit %d", counts[i]);
        check_outcome(head_with(counts[i]), &limits, "done");
        check_outcome(head_with(counts[i] + 1), &limits, "431 HEAD_TOO_LARGE");
    }
}

// The array's size binds as well, whatever the limits say.
TEST(limit_of_the_callers_array) {
    struct one o;
    for (int max = 0; max < 4; max++) {
        struct bytes text = head_with(3);
        NOTE("max_fields %d", max);
        begin(&o, NULL);
        o.head.max_fields = max;
        if (max < 3)
            CHECK_ERROR(&o, parse_head(&o, text.ptr), HTTPSRV_TOOBIG, 431, HEAD_TOO_LARGE);
        else
            CHECK_INT(parse_head(&o, text.ptr), text.len);
        release_bytes(&text);
    }
    begin(&o, NULL);
    o.head.fields = NULL;
    o.head.max_fields = 0;
    CHECK_CMP(parse_head(&o, "GET / HTTP/1.0\r\n\r\n"), >, 0);
}

#define SIZED_HEAD   "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: "
#define CHUNKED_HEAD "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"

TEST(limit_of_a_sized_body) {
    httpsrv_limits ten = {.body = 10}, none = {.body = HTTPSRV_ZERO}, unlimited = {.body = -1};
    check_outcome(text_of(SIZED_HEAD "10\r\n\r\n", 'y', 10, ""), &ten, "done");
    check_outcome(text_of(SIZED_HEAD "11\r\n\r\n", 'y', 0, ""), &ten, "413 BODY_TOO_LARGE");
    check_outcome(text_of(SIZED_HEAD "9223372036854775807\r\n\r\n", 'y', 0, ""), &ten, "413 BODY_TOO_LARGE");
    check_outcome(text_of(SIZED_HEAD "0\r\n\r\n", 'y', 0, ""), &none, "done");
    check_outcome(text_of(SIZED_HEAD "1\r\n\r\n", 'y', 0, ""), &none, "413 BODY_TOO_LARGE");
    check_outcome(text_of(SIZED_HEAD "2000000\r\n\r\n", 'y', 0, ""), NULL, "413 BODY_TOO_LARGE");
    check_outcome(text_of(SIZED_HEAD "9223372036854775807\r\n\r\n", 'y', 5, ""), &unlimited, "more");
    check_outcome(text_of(SIZED_HEAD "9223372036854775808\r\n\r\n", 'y', 5, ""), &unlimited, "400 BAD_LENGTH");
}

TEST(limit_of_a_chunked_body) {
    httpsrv_limits ten = {.body = 10}, none = {.body = HTTPSRV_ZERO}, unlimited = {.body = -1};
    check_outcome(text_of(CHUNKED_HEAD "a\r\n", 'y', 10, "\r\n0\r\n\r\n"), &ten, "done");
    check_outcome(text_of(CHUNKED_HEAD "5\r\nhello\r\n5\r\n", 'y', 5, "\r\n0\r\n\r\n"), &ten, "done");
    check_outcome(text_of(CHUNKED_HEAD "b\r\n", 'y', 11, "\r\n0\r\n\r\n"), &ten, "413 BODY_TOO_LARGE");
    check_outcome(text_of(CHUNKED_HEAD "5\r\nhello\r\n6\r\n", 'y', 6, "\r\n0\r\n\r\n"), &ten, "413 BODY_TOO_LARGE");
    check_outcome(text_of(CHUNKED_HEAD "0\r\n\r\n", 'y', 0, ""), &none, "done");
    check_outcome(text_of(CHUNKED_HEAD "1\r\nx\r\n0\r\n\r\n", 'y', 0, ""), &none, "413 BODY_TOO_LARGE");
    check_outcome(text_of(CHUNKED_HEAD "7fffffffffffffff\r\n", 'y', 100, ""), &unlimited, "more");
    check_outcome(text_of(CHUNKED_HEAD "8000000000000000\r\n", 'y', 100, ""), &unlimited, "400 BAD_CHUNK");
}

// The sum of sizes does not wrap round either.
TEST(limit_of_a_chunked_body_cannot_overflow) {
    httpsrv_limits limits = {.body = INT64_MAX}, unlimited = {.body = -1};
    check_outcome(text_of(CHUNKED_HEAD "5\r\nhello\r\n7fffffffffffffff\r\n", 'y', 9, ""), &limits,
                  "413 BODY_TOO_LARGE");
    check_outcome(text_of(CHUNKED_HEAD "5\r\nhello\r\n7ffffffffffffffa\r\n", 'y', 9, ""), &limits, "more");
    check_outcome(text_of(CHUNKED_HEAD "5\r\nhello\r\n7fffffffffffffff\r\n", 'y', 9, ""), &unlimited, "400 BAD_CHUNK");
    check_outcome(text_of(CHUNKED_HEAD "5\r\nhello\r\n7ffffffffffffffa\r\n", 'y', 9, ""), &unlimited, "more");
}

TEST(limit_of_extensions) {
    check_outcome(text_of(CHUNKED_HEAD "0;", 'y', 4095, "\r\n\r\n"), NULL, "done");
    check_outcome(text_of(CHUNKED_HEAD "0;", 'y', 4096, "\r\n\r\n"), NULL, "400 BAD_CHUNK");
    check_outcome(text_of(CHUNKED_HEAD "0;", 'y', 4096, ""), NULL, "400 BAD_CHUNK");
    check_outcome(text_of(CHUNKED_HEAD "1;12345678\r\nx\r\n0;", 'y', 4086, "\r\n\r\n"), NULL, "done");
    check_outcome(text_of(CHUNKED_HEAD "1;12345678\r\nx\r\n0;", 'y', 4087, "\r\n\r\n"), NULL, "400 BAD_CHUNK");
    check_outcome(text_of(CHUNKED_HEAD "0", ' ', 5000, ""), NULL, "400 BAD_CHUNK");
}

TEST(limit_of_trailers) {
    check_outcome(text_of(CHUNKED_HEAD "0\r\nX: ", 'y', 8192 - 7, "\r\n\r\n"), NULL, "done");
    check_outcome(text_of(CHUNKED_HEAD "0\r\nX: ", 'y', 8192 - 6, "\r\n\r\n"), NULL, "400 BAD_TRAILER");
    check_outcome(text_of(CHUNKED_HEAD "0\r\nX: ", 'y', 8192 - 4, ""), NULL, "more");
    check_outcome(text_of(CHUNKED_HEAD "0\r\nX: ", 'y', 8192 - 3, ""), NULL, "400 BAD_TRAILER");
    check_outcome(text_of(CHUNKED_HEAD "0\r\n", 'X', 8193, ""), NULL, "400 BAD_TRAILER");
}

TEST(limit_of_the_callers_array_for_trailers) {
    static const char trailers[] = "A: b\r\nC: d\r\n\r\n";
    for (int max = 0; max < 4; max++) {
        struct one o;
        char data[8];
        ptrdiff_t n;
        NOTE("max_fields %d", max);
        CHECK_CMP(head_of(&o, CHUNKED), >, 0);
        CHECK_INT(consume(&o, "0\r\n", data), 3);
        o.head.max_fields = max;
        n = httpsrv_parse_trailers(&o.parser, trailers, sizeof trailers - 1, &o.head);
        if (max < 2)
            CHECK_ERROR(&o, n, HTTPSRV_SYNTAX, 400, BAD_TRAILER);
        else
            CHECK_INT(n, sizeof trailers - 1);
    }
}

// ---- no byte is looked at twice ----

// A message in memory whose pages vanish, all but the first, once they have been parsed.
struct vanishing {
    char *base;
    size_t size, len;
};

static void open_vanishing(struct vanishing *v, size_t size) {
    v->size = (size + PAGE - 1) / PAGE * PAGE;
    v->len = 0;
    v->base = (char *)mmap(NULL, v->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(v->base != MAP_FAILED);
    CHECK_INT(PAGE % sysconf(_SC_PAGESIZE), 0);
}

static void grow(struct vanishing *v, const char *text) {
    size_t len = strlen(text);
    CHECK_CMP(v->len + len, <=, v->size);
    memcpy(v->base + v->len, text, len);
    v->len += len;
}

static void grow_by(struct vanishing *v, char fill, size_t count) {
    CHECK_CMP(v->len + count, <=, v->size);
    memset(v->base + v->len, fill, count);
    v->len += count;
}

static void vanish(struct vanishing *v, size_t parsed) {
    if (parsed % PAGE == 64 && parsed >= 2 * PAGE)
        CHECK_INT(mprotect(v->base + PAGE, parsed / PAGE * PAGE - PAGE, PROT_NONE), 0);
}

static void reappear(struct vanishing *v) {
    CHECK_INT(mprotect(v->base, v->size, PROT_READ | PROT_WRITE), 0);
}

static void check_vanishing_head(struct vanishing *v, struct one *o) {
    httpsrv_limits limits = {.head = 1 << 20, .uri = 1 << 19};
    begin(o, &limits);
    for (size_t len = 1; len < v->len; len++) {
        CHECK_INT(httpsrv_parse_head(&o->parser, v->base, len, &o->head), 0);
        vanish(v, len);
    }
    CHECK_INT(httpsrv_parse_head(&o->parser, v->base, v->len, &o->head), v->len);
    reappear(v);
}

TEST(value_is_not_rescanned) {
    struct vanishing v;
    struct one o;
    open_vanishing(&v, 40 * PAGE);
    grow(&v, "GET / HTTP/1.1\r\nHost: a\r\nX: ");
    grow_by(&v, 'y', 30 * PAGE);
    grow(&v, "\r\n\r\n");
    check_vanishing_head(&v, &o);
    CHECK_INT(o.fields[1].value.len, 30 * PAGE);
    CHECK(o.fields[1].value.ptr[0] == 'y' && o.fields[1].value.ptr[30 * PAGE - 1] == 'y');
}

TEST(many_fields_are_not_rescanned) {
    struct vanishing v;
    struct one o;
    open_vanishing(&v, 40 * PAGE);
    grow(&v, "GET / HTTP/1.1\r\nHost: a\r\n");
    for (int i = 1; i < MAX_FIELDS; i++) {
        grow(&v, "X: ");
        grow_by(&v, 'y', 1200);
        grow(&v, "\r\n");
    }
    grow(&v, "\r\n");
    check_vanishing_head(&v, &o);
    CHECK_INT(o.head.num_fields, MAX_FIELDS);
}

TEST(target_is_not_rescanned) {
    struct vanishing v;
    struct one o;
    open_vanishing(&v, 40 * PAGE);
    grow(&v, "GET /");
    grow_by(&v, 'y', 10 * PAGE);
    grow(&v, "?");
    grow_by(&v, 'z', 10 * PAGE);
    grow(&v, " HTTP/1.1\r\nHost: a\r\n\r\n");
    check_vanishing_head(&v, &o);
    CHECK_INT(o.head.path.len, 10 * PAGE + 1);
    CHECK_INT(o.head.query.len, 10 * PAGE);
    CHECK(o.head.query.ptr[0] == 'z');
}

TEST(trailers_are_not_rescanned) {
    struct vanishing v;
    struct one o;
    char data[8];
    const char *start;
    open_vanishing(&v, 4 * PAGE);
    grow_by(&v, 0, PAGE - 10);
    start = v.base + v.len;
    grow(&v, "X: ");
    grow_by(&v, 'y', 8000);
    grow(&v, "\r\n\r\n");
    CHECK_CMP(head_of(&o, CHUNKED), >, 0);
    CHECK_INT(consume(&o, "0\r\n", data), 3);
    for (size_t len = PAGE - 10 + 1; len < v.len; len++) {
        CHECK_INT(httpsrv_parse_trailers(&o.parser, start, len - (PAGE - 10), &o.head), 0);
        vanish(&v, len);
    }
    CHECK_INT(httpsrv_parse_trailers(&o.parser, start, v.len - (PAGE - 10), &o.head), v.len - (PAGE - 10));
    reappear(&v);
    CHECK_INT(o.fields[0].value.len, 8000);
}

// ---- cost, in time: four times the input may cost ten times as much, never sixteen times ----

static double cpu_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

typedef void (*costly)(size_t n);

static double cheapest(costly run, size_t n) {
    double best = 1e9;
    for (int i = 0; i < 5; i++) {
        double start = cpu_seconds(), cost;
        run(n);
        cost = cpu_seconds() - start;
        if (cost < best) best = cost;
    }
    return best;
}

static void check_linear(costly run, size_t n) {
    double small = cheapest(run, n), large = cheapest(run, 4 * n);
    NOTE("%zu: %.0f us, %zu: %.0f us", n, small * 1e6, 4 * n, large * 1e6);
    CHECK(large < 10 * small + 0.002);
}

static void head_byte_by_byte(size_t n) {
    httpsrv_limits limits = {.head = 1 << 24};
    struct bytes text = text_of("GET / HTTP/1.1\r\nHost: a\r\nX: ", 'y', n, "\r\n\r\n");
    struct one o;
    begin(&o, &limits);
    for (size_t len = 1; len < text.len; len++)
        CHECK_INT(httpsrv_parse_head(&o.parser, text.ptr, len, &o.head), 0);
    CHECK_INT(httpsrv_parse_head(&o.parser, text.ptr, text.len, &o.head), text.len);
    release_bytes(&text);
}

TEST(head_byte_by_byte_is_linear) {
    check_linear(head_byte_by_byte, 40000);
}

static void fields_byte_by_byte(size_t n) {
    httpsrv_limits limits = {.head = 1 << 24, .headers = 1 << 12};
    static httpsrv_field fields[1 << 12];
    struct bytes text = text_of("GET / HTTP/1.1\r\nHost: a\r\n", 0, 0, "");
    struct one o;
    begin(&o, &limits);
    o.head.fields = fields;
    o.head.max_fields = 1 << 12;
    for (size_t i = 0; i < n; i++)
        append_text(&text, "Accept-Encoding: y\r\n");
    append_text(&text, "\r\n");
    for (size_t len = 1; len < text.len; len++)
        CHECK_INT(httpsrv_parse_head(&o.parser, text.ptr, len, &o.head), 0);
    CHECK_INT(httpsrv_parse_head(&o.parser, text.ptr, text.len, &o.head), text.len);
    release_bytes(&text);
}

TEST(many_fields_byte_by_byte_are_linear) {
    check_linear(fields_byte_by_byte, 1000);
}

static struct bytes tiny_chunks(size_t n) {
    struct bytes text = {NULL, 0, 0};
    for (size_t i = 0; i < n; i++)
        append_text(&text, "1\r\nx\r\n");
    append_text(&text, "0\r\n");
    return text;
}

// Feeds the body as it arrives, `step` bytes at a time; what is not consumed stays.
static void feed_chunks(size_t n, size_t step) {
    httpsrv_limits limits = {.body = -1};
    struct bytes text = tiny_chunks(n);
    size_t at = 0, decoded = 0;
    struct one o;
    begin(&o, &limits);
    CHECK_CMP(parse_head(&o, CHUNKED), >, 0);
    for (size_t avail = step < text.len ? step : text.len; o.parser.phase == HTTPSRV_PHASE_BODY;) {
        httpsrv_str piece = {NULL, 0};
        ptrdiff_t consumed = httpsrv_parse_body(&o.parser, text.ptr + at, avail - at, &piece);
        CHECK_CMP(consumed, >=, 0);
        at += (size_t)consumed;
        decoded += piece.len;
        if (consumed == 0 || at == avail) avail = avail + step < text.len ? avail + step : text.len;
    }
    CHECK_INT(decoded, n);
    CHECK_INT(at, text.len);
    release_bytes(&text);
}

static void chunks_byte_by_byte(size_t n) {
    feed_chunks(n, 1);
}

static void chunks_at_once(size_t n) {
    feed_chunks(n, SIZE_MAX / 2);
}

TEST(tiny_chunks_byte_by_byte_are_linear) {
    check_linear(chunks_byte_by_byte, 20000);
}

TEST(tiny_chunks_at_once_are_linear) {
    check_linear(chunks_at_once, 50000);
}

// ---- copies ----

TEST(parser_may_be_copied_and_abandoned) {
    static const char first[] = "POST /a HTTP/1.1\r\nHost: a\r\nX: 1\r\nContent-Length: 5\r\n\r\nhello";
    static const char second[] = "POST /a HTTP/1.1\r\nHost: a\r\nX: 22\r\n\r\n";
    for (size_t cut = 0; cut <= 30; cut++) { // up to there they are the same
        struct one a, b;
        NOTE("copied behind byte %zu", cut);
        begin(&a, NULL);
        CHECK_INT(httpsrv_parse_head(&a.parser, first, cut, &a.head), 0);
        b = a;
        b.head.fields = b.fields;
        CHECK_INT(parse_head(&b, second), sizeof second - 1);
        CHECK_INT(parse_head(&a, first), sizeof first - 1 - 5);
        CHECK_VIEW(a.fields[1].value, "1");
        CHECK_VIEW(b.fields[1].value, "22");
        CHECK_INT(a.head.content_length, 5);
        CHECK_INT(b.head.content_length, -1);
        CHECK_INT(a.parser.phase, HTTPSRV_PHASE_BODY);
        CHECK_INT(b.parser.phase, HTTPSRV_PHASE_DONE);
    }
}

TEST(body_parser_may_be_copied) {
    struct one a, b;
    char data[32];
    CHECK_CMP(head_of(&a, CHUNKED), >, 0);
    CHECK_INT(consume(&a, "5\r\nhel", data), 6);
    b = a;
    CHECK_INT(consume(&a, "lo\r\n0\r\n", data), 7);
    CHECK_STR(data, "lo");
    CHECK_INT(consume(&b, "p!\r\n1\r\n.\r\n0\r\n", data), 13);
    CHECK_STR(data, "p!.");
    CHECK_INT(a.parser.phase, HTTPSRV_PHASE_TRAILERS);
    CHECK_INT(b.parser.phase, HTTPSRV_PHASE_TRAILERS);
}

// ---- against the oracle ----

static const char *const seeds[] = {
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "\r\nGET /a/b%20c;d?e=f&g HTTP/1.1\r\nhost:\t[::1]:80 \r\nConnection: x, Close\r\nA:b\r\n\r\n",
    "OPTIONS * HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /b HTTP/1.1\r\nHost: b\r\n\r\n",
    "CONNECT a.b:443 HTTP/1.1\r\nHost: a.b\r\n\r\n",
    "GET http://a.b:80/c?d HTTP/1.1\r\nHost: e:1\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
    "PUT HTTPS://[1:2::1.2.3.4]?q HTTP/1.2\r\nX: y\r\nHost: [v1.a]\r\n\r\n",
    "POST /e HTTP/1.1\r\nContent-Length: 5\r\nHost: 1.2.3.4\r\nContent-Type: a/b\r\n\r\nhelloGET / "
    "HTTP/1.0\r\n\r\n",
    "POST /e HTTP/1.0\r\nContent-Length: 003\r\nExpect: 100-continue\r\n\r\nabc",
    "POST /e HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nTransfer-Encoding: , Chunked\r\n\r\n"
    "5;a=b ; c = \"d\\\" e\"\r\nhello\r\n00A\t;x\r\n0123456789\r\n0;y\r\nA: b\r\nC:  d \r\n\r\n",
    "POST /e HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip;q=\"1, 2\", x\r\nTransfer-Encoding: "
    "chunked\r\n\r\n0\r\n\r\n",
    "DELETE /a/../b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"
    "BREW /pot HTTP/1.1\r\nHost: a\r\nCookie: a=b; c=d\r\nX-\x59: \x80\xff\t.\r\n\r\n",
};

#define NUM_SEEDS (sizeof seeds / sizeof *seeds)

__attribute__((noreturn)) static void disagree(const struct bytes *in, const char *how, const struct fact *a,
                                               const struct fact *b) {
    fprintf(stderr, "%s\n    input    ", how);
    test_quote(stderr, in->ptr, in->len);
    fprintf(stderr, "\n    expected %s ", a ? a->key : "nothing more");
    if (a) test_quote(stderr, a->value.ptr, a->value.len);
    fprintf(stderr, "\n    actual   %s ", b ? b->key : "nothing more");
    if (b) test_quote(stderr, b->value.ptr, b->value.len);
    fputc('\n', stderr);
    FAIL("the readings differ");
}

// The oracle may see a fault later than the parser, and be short of input by then.
static bool excused(const struct facts *expected, int at, const struct fact *actual) {
    return at + 2 == expected->num && strcmp(expected->list[at + 1].key, "more") == 0 && actual &&
           strcmp(actual->key, "error") == 0;
}

static void check_same(const struct bytes *in, const char *how, const struct facts *expected,
                       const struct facts *actual) {
    for (int i = 0; i < expected->num || i < actual->num; i++) {
        const struct fact *a = i < expected->num ? &expected->list[i] : NULL;
        const struct fact *b = i < actual->num ? &actual->list[i] : NULL;
        if (a && b && same_fact(a, b)) continue;
        if (excused(expected, i, b)) return;
        disagree(in, how, a, b);
    }
}

static uint32_t random_state = 0x2545f491;

static uint32_t random_below(size_t n) { // xorshift: the same numbers in each run
    random_state ^= random_state << 13;
    random_state ^= random_state >> 17;
    random_state ^= random_state << 5;
    return random_state % (uint32_t)n;
}

static struct facts found_at_once(const struct bytes *in) {
    struct drive d;
    drive_begin(&d, in, NULL);
    drive_end(&d);
    return d.facts;
}

static struct facts found_in_pieces(const struct bytes *in) {
    struct drive d;
    size_t most = 1 + random_below(40);
    drive_begin(&d, in, NULL);
    for (size_t at = 0; at < in->len; at += 1 + random_below(most))
        drive_to(&d, at);
    drive_end(&d);
    return d.facts;
}

static void check_agreement(const struct bytes *in) {
    struct facts expected = {NULL, 0, 0}, whole = found_at_once(in), pieces = found_in_pieces(in);
    oracle(in, &expected);
    check_same(in, "at once", &expected, &whole);
    check_same(in, "in pieces, expected as at once", &whole, &pieces);
    release_facts(&expected);
    release_facts(&whole);
    release_facts(&pieces);
}

static void replace(struct bytes *b, size_t at, size_t gone, const char *ptr, size_t len) {
    struct bytes rest = {NULL, 0, 0}, copy = {NULL, 0, 0};
    append(&copy, ptr, len);
    append(&rest, b->ptr + at + gone, b->len - at - gone);
    b->len = at;
    append(b, copy.ptr, copy.len);
    append(b, rest.ptr, rest.len);
    release_bytes(&rest);
    release_bytes(&copy);
}

// What an attacker would try to slip in.
// clang-format off
static const char *const slips[] = {
    "\r\n", "\n", "\r", " ", "\t", ":", ",", ";", "\"", "%", "%00", "/", "?", "#", "[", "]", "@", "*", "0", "9", "f", "-",
    "+", "=", "\\", "\x7f", "\x80", "\r\n\r\n", "\r\n ", "\r\n\t", "ffffffff", "close", "keep-alive,", "upgrade", "chunked",
    "gzip", "http:", "//", "HTTP/1.1", "CONNECT", "OPTIONS", "Host:", "Host: b", "TE: x", "If-X:y",
    "\r\nContent-Length: 5", "\r\nTransfer-Encoding: chunked", "\r\nConnection: close", "\r\nExpect: x",
};
// clang-format on

static void mutate(struct bytes *b) {
    const char *word = slips[random_below(sizeof slips / sizeof *slips)];
    size_t at = random_below(b->len), left = b->len - at, some = 1 + random_below(left < 20 ? left : 20);
    char byte = (char)random_below(256);
    switch (random_below(7)) {
    case 0: replace(b, at, 1, &byte, 1); break;
    case 1: replace(b, at, 0, word, strlen(word)); break;
    case 2: replace(b, at, strlen(word) < left ? strlen(word) : left, word, strlen(word)); break;
    case 3: replace(b, at, some < 4 ? some : 1, "", 0); break;
    case 4: replace(b, at, 0, b->ptr + random_below(at + 1), some); break;
    case 5: b->ptr[at] = (char)(b->ptr[at] ^ (1 << random_below(8))); break;
    default: b->ptr[at] = (char)(b->ptr[at] ^ ((b->ptr[at] & 0x40) ? 0x20 : 0)); break;
    }
}

TEST(mutated_requests_are_read_alike) {
    int64_t end = test_now() + test_ms(2000);
    int n = 0;
    for (; n < 20000 && (n < 500 || test_now() < end); n++) {
        struct bytes in = {NULL, 0, 0};
        append_text(&in, seeds[random_below(NUM_SEEDS)]);
        if (random_below(4) == 0) append_text(&in, seeds[random_below(NUM_SEEDS)]);
        for (uint32_t edits = random_below(5); edits > 0 && in.len > 0; edits--)
            mutate(&in);
        NOTE("mutation %d", n);
        if (in.len) check_agreement(&in);
        release_bytes(&in);
    }
}

// Every byte value at every place of a seed.
static void check_every_byte(const char *seed, int step) {
    struct bytes in = {NULL, 0, 0};
    append_text(&in, seed);
    for (size_t at = 0; at < in.len; at++) {
        char before = in.ptr[at];
        for (int byte = 0; byte < 256; byte += step) {
            struct facts expected = {NULL, 0, 0}, whole;
            in.ptr[at] = (char)byte;
            oracle(&in, &expected);
            whole = found_at_once(&in);
            NOTE("byte %d at %zu", byte, at);
            check_same(&in, "at once", &expected, &whole);
            release_facts(&expected);
            release_facts(&whole);
        }
        in.ptr[at] = before;
    }
    release_bytes(&in);
}

TEST(every_byte_in_a_plain_request) {
    check_every_byte(seeds[0], 1);
    check_every_byte("M /a%20?b HTTP/1.1\r\nHost: a:8\r\nX:y\r\n\r\n", 1);
}

TEST(every_byte_in_a_chunked_request) {
    check_every_byte(
        "P / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2;a=\"b\"\r\nxy\r\n0\r\nA: b\r\n\r\n", 1);
}

TEST(every_byte_in_other_requests) {
    for (size_t i = 1; i < NUM_SEEDS; i++)
        check_every_byte(seeds[i], 5);
}

// Long runs, for what looks at many bytes at a time: a bad byte at each place of a long token.
TEST(every_place_of_a_long_token) {
    static const char *const shapes[][2] = {
        {"", " / HTTP/1.1\r\nHost: a\r\n\r\n"},
        {"GET /", " HTTP/1.1\r\nHost: a\r\n\r\n"},
        {"GET /?", " HTTP/1.1\r\nHost: a\r\n\r\n"},
        {"GET / HTTP/1.1\r\nHost: ", "\r\n\r\n"},
        {"GET / HTTP/1.1\r\nHost: a\r\n", ": b\r\n\r\n"},
        {"GET / HTTP/1.1\r\nHost: a\r\nX: ", "\r\n\r\n"},
        {"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0;a=", "\r\n\r\n"},
        {"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0;a=\"", "\"\r\n\r\n"},
        {"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ", "\r\n\r\n"},
    };
    static const char bad[] = "\x01\x7f\x80\n\r \t:\"#[\0";
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (size_t len = 1; len <= 100; len += len < 40 ? 1 : 20)
            for (size_t at = 0; at < len; at++) {
                struct bytes in = text_of(shapes[i][0], 'a', len, shapes[i][1]);
                in.ptr[strlen(shapes[i][0]) + at] = bad[(at + len) % sizeof bad];
                check_agreement(&in);
                release_bytes(&in);
            }
}
