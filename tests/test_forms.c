// Forms, cookies and redirects: the multipart parser by every split, urlencoded texts, httpsrv_read_form from whole
// bodies and from streams, into memory, into files and by call-back. Also built with ThreadSanitizer.

#define HTTPSRV_IMPLEMENTATION
#include "../httpsrv.h"

#include "drive.h"
#include "rooms.h"
#include "server.h"
#include <sys/stat.h>

#define TYPE_B  "multipart/form-data; boundary=b"
#define CD      "Content-Disposition: form-data; name="
#define PART(n) "--b\r\n" CD n "\r\n\r\n"
#define CLOSE   "\r\n--b--\r\n"
#define TEXT(literal) \
    { "" literal, sizeof(literal) - 1 }

static httpsrv_str view_of(const char *terminated) {
    httpsrv_str view = {terminated, strlen(terminated)};
    return view;
}

static httpsrv_str view_of_bytes(const struct bytes *b) {
    httpsrv_str view = {b->ptr, b->len};
    return view;
}

static const char *result_name(httpsrv_result result) {
    switch (result) {
#define NAME_OF(name, value, text) \
    case HTTPSRV_##name: return #name;
        HTTPSRV_RESULTS(NAME_OF)
#undef NAME_OF
    default: return "ANOTHER";
    }
}

// ---- what a reading has found, as a text: "(name|filename|type)content;" for each part, then the result ----

static void add_word(struct bytes *out, httpsrv_str word) {
    for (size_t i = 0; i < word.len; i++) {
        append(out, word.ptr[i] ? word.ptr + i : "\\0", word.ptr[i] ? 1 : 2);
    }
}

// A detail of a part that may be absent, and with it all that is behind it if that is absent, too.
static void add_detail(struct bytes *out, httpsrv_str word) {
    if (!word.ptr) return;
    append_text(out, "|");
    add_word(out, word);
}

static void add_head(struct bytes *out, const httpsrv_part *part) {
    const httpsrv_str none = {"-", 1};
    append_text(out, "(");
    add_word(out, part->name);
    add_detail(out, part->type.ptr && !part->filename.ptr ? none : part->filename);
    add_detail(out, part->type);
    append_text(out, ")");
}

// ---- the push parser ----

struct reading {
    struct bytes out;
    size_t begun; // where the part at hand begins in `out`
    bool within;  // a part
    int64_t size; // of that part so far
    int64_t limit;
    int steps;      // calls of take_part
    int refused_at; // the call that gets `refusal`; 0: none
    httpsrv_result refusal;
};

static void begin_part(struct reading *r, const httpsrv_part *part, httpsrv_str data) {
    CHECK(!r->within);
    CHECK_INT(data.len, 0);
    CHECK_INT(part->size, 0);
    r->begun = r->out.len;
    r->within = true;
    r->size = 0;
    add_head(&r->out, part);
}

static void go_on_with_part(struct reading *r, httpsrv_str data) {
    CHECK(r->within);
    CHECK_CMP(data.len, >, 0);
    r->size += (int64_t)data.len;
    if (r->limit > 0) CHECK_CMP(r->size, <=, r->limit);
    add_word(&r->out, data);
}

static void end_part(struct reading *r, const httpsrv_part *part, httpsrv_str data) {
    CHECK(r->within);
    CHECK_INT(data.len, 0);
    CHECK_INT(part->size, r->size);
    append_text(&r->out, ";");
    r->within = false;
}

static httpsrv_result take_part(const httpsrv_part *part, httpsrv_part_step step, httpsrv_str data, void *user) {
    struct reading *r = (struct reading *)user;
    CHECK(part->name.ptr != NULL);
    CHECK(!part->data.ptr);
    CHECK_INT(part->fd, -1);
    CHECK(!r->refused_at || r->steps < r->refused_at); // no call after the one that was refused
    if (++r->steps == r->refused_at) return r->refusal;
    if (step == HTTPSRV_PART_BEGIN) begin_part(r, part, data);
    if (step == HTTPSRV_PART_DATA) go_on_with_part(r, data);
    if (step == HTTPSRV_PART_END) end_part(r, part, data);
    if (step != HTTPSRV_PART_BEGIN) {
        struct bytes again = {NULL, 0, 0}; // the head is still the same
        add_head(&again, part);
        CHECK_MEM(r->out.ptr + r->begun, again.len, again.ptr, again.len);
        release_bytes(&again);
    }
    return HTTPSRV_OK;
}

// How a body is cut: the first piece, then pieces of `step` bytes; with step == 0 of random sizes.
struct cut {
    size_t first, step;
};

static size_t piece_of(struct cut cut, size_t at, size_t len) {
    size_t piece = at == 0 && cut.first ? cut.first : cut.step ? cut.step : random_below(40);
    return piece < len - at ? piece : len - at;
}

// How much of a part arrives before it is found to be too large depends on the pieces; that it was too large does not.
static void conclude(struct reading *r, httpsrv_result result) {
    if (result == HTTPSRV_TOOBIG && r->within) {
        r->out.len = r->begun;
        append_text(&r->out, "(...");
    }
    append_text(&r->out, result_name(result));
}

// One reading. Each piece is at a place of its own, which is gone with the next one.
static struct bytes read_cut(struct reading *r, httpsrv_str type, httpsrv_str body, httpsrv_form_config config,
                             struct cut cut) {
    static httpsrv_multipart m;
    memset(&m, 0xa5, sizeof m);
    config.on_part = take_part;
    config.user = r;
    r->limit = config.size;
    append(&r->out, "", 0);
    httpsrv_result result = httpsrv_multipart_init(&m, type, &config), last;
    for (size_t at = 0, piece; result == HTTPSRV_OK && at < body.len; at += piece) {
        piece = piece_of(cut, at, body.len);
        httpsrv_str view = {moved(body.ptr + at, piece), piece};
        result = httpsrv_multipart_feed(&m, view);
    }
    last = result;
    if (result == HTTPSRV_OK) result = httpsrv_multipart_end(&m);
    if (last != HTTPSRV_OK && r->steps) { // errors stay
        CHECK_INT(httpsrv_multipart_feed(&m, HTTPSRV_STR("\r\n--b--")), last);
        CHECK_INT(httpsrv_multipart_end(&m), last);
    }
    conclude(r, result);
    return r->out;
}

static void check_cut(httpsrv_str type, httpsrv_str body, const httpsrv_form_config *config, struct cut cut,
                      const char *expected) {
    struct reading r;
    memset(&r, 0, sizeof r);
    struct bytes out = read_cut(&r, type, body, *config, cut);
    CHECK_MEM(out.ptr, out.len, expected, strlen(expected));
    release_bytes(&r.out);
}

// Whole, byte by byte, cut once at each place, and in pieces of random sizes.
static void check_every_cut(httpsrv_str type, httpsrv_str body, const httpsrv_form_config *config,
                            const char *expected) {
    const struct cut whole = {0, SIZE_MAX}, bytes = {1, 1}, random = {0, 0};
    check_cut(type, body, config, whole, expected);
    check_cut(type, body, config, bytes, expected);
    for (size_t first = 1; first<body.len; first += body.len> 4000 ? 1 + body.len / 500 : 1) {
        const struct cut once = {first, SIZE_MAX};
        check_cut(type, body, config, once, expected);
    }
    for (int i = 0; i < 20; i++) {
        check_cut(type, body, config, random, expected);
    }
}

struct body_case {
    const char *what;
    httpsrv_str body;
    const char *expected;
};

static void check_bodies(const char *type, const struct body_case *cases, size_t num) {
    const httpsrv_form_config defaults = {.parts = 0};
    for (size_t i = 0; i < num; i++) {
        NOTE("%s", cases[i].what);
        check_every_cut(view_of(type), cases[i].body, &defaults, cases[i].expected);
    }
}

TEST(multipart_structure) {
    static const struct body_case cases[] = {
        {"one field", TEXT(PART("a") "1" CLOSE), "(a)1;OK"},
        {"two fields", TEXT(PART("a") "1\r\n" PART("b") "22" CLOSE), "(a)1;(b)22;OK"},
        {"the same name twice", TEXT(PART("a") "1\r\n" PART("a") "2" CLOSE), "(a)1;(a)2;OK"},
        {"an empty part", TEXT(PART("a") CLOSE), "(a);OK"},
        {"the empty line of the head is the line end of the delimiter", TEXT(PART("a") "--b--\r\n"), "(a);OK"},
        {"that between two parts", TEXT(PART("a") PART("b") "x" CLOSE), "(a);(b)x;OK"},
        {"nearly that", TEXT(PART("a") "--c" CLOSE), "(a)--c;OK"},
        {"only its dashes", TEXT(PART("a") "--" CLOSE), "(a)--;OK"},
        {"one dash", TEXT(PART("a") "-" CLOSE), "(a)-;OK"},
        {"no parts", TEXT("--b--\r\n"), "OK"},
        {"no parts, no line end", TEXT("--b--"), "OK"},
        {"no parts behind a line end", TEXT("\r\n--b--\r\n"), "OK"},
        {"no parts, with a preamble", TEXT("hello" CLOSE), "OK"},
        {"preamble", TEXT("This is a\r\nmessage.\r\n" PART("a") "1" CLOSE), "(a)1;OK"},
        {"preamble with look-alikes", TEXT("--a\r\n-b\r\n -- b\r\nx--b\r\n\r\r\n" PART("a") "1" CLOSE), "(a)1;OK"},
        {"preamble of one byte", TEXT("-\r\n" PART("a") "1" CLOSE), "(a)1;OK"},
        {"preamble with NUL", TEXT("\0\r\n" PART("a") "1" CLOSE), "(a)1;OK"},
        {"a delimiter that does not begin its line is preamble", TEXT("x" PART("a") "1" CLOSE), "OK"},
        {"epilogue", TEXT(PART("a") "1" CLOSE "and so on\r\n" PART("b") "2" CLOSE), "(a)1;OK"},
        {"epilogue with NUL", TEXT(PART("a") "1" CLOSE "\0"), "(a)1;OK"},
        {"no line end behind the last delimiter", TEXT(PART("a") "1\r\n--b--"), "(a)1;OK"},
        {"padding", TEXT("--b \t\r\n" CD "a\r\n\r\n1\r\n--b\t\t  \r\n" CD "b\r\n\r\n2\r\n--b-- \t\r\n"),
         "(a)1;(b)2;OK"},
        {"padding at the end", TEXT(PART("a") "1\r\n--b-- \t"), "(a)1;OK"},
        {"the boundary behind a line feed is data", TEXT(PART("a") "1\n--b\n--b--" CLOSE), "(a)1\n--b\n--b--;OK"},
        {"the boundary behind a carriage return is data", TEXT(PART("a") "1\r--b" CLOSE), "(a)1\r--b;OK"},
        {"NUL in the data", TEXT(PART("a") "\0\0" CLOSE), "(a)\\0\\0;OK"},
    };
    check_bodies(TYPE_B, cases, LENGTH(cases));
}

TEST(multipart_structure_refused) {
    static const struct body_case cases[] = {
        {"nothing", TEXT(""), "SYNTAX"},
        {"no delimiter", TEXT("hello"), "SYNTAX"},
        {"another boundary", TEXT("--c\r\n" CD "a\r\n\r\n1\r\n--c--\r\n"), "SYNTAX"},
        {"case of the boundary", TEXT("--B\r\n" CD "a\r\n\r\n1\r\n--B--\r\n"), "SYNTAX"},
        {"one dash too few", TEXT("-b\r\n" CD "a\r\n\r\n1\r\n-b--\r\n"), "SYNTAX"},
        {"no end", TEXT(PART("a") "1"), "(a)1SYNTAX"},
        {"no end, another part", TEXT(PART("a") "1\r\n--b\r\n"), "(a)1;SYNTAX"},
        {"no end, half a head", TEXT(PART("a") "1\r\n--b\r\n" CD), "(a)1;SYNTAX"},
        {"text behind the boundary", TEXT("--bc\r\n" CD "a\r\n\r\n1" CLOSE), "SYNTAX"},
        {"text behind the boundary, in the data", TEXT(PART("a") "1\r\n--bc" CLOSE), "(a)1;SYNTAX"},
        {"text behind the padding", TEXT("--b c\r\n" CD "a\r\n\r\n1" CLOSE), "SYNTAX"},
        {"one dash behind the boundary", TEXT("--b-\r\n" CD "a\r\n\r\n1" CLOSE), "SYNTAX"},
        {"text behind the last delimiter", TEXT(PART("a") "1\r\n--b--c\r\n"), "(a)1;SYNTAX"},
        {"a third dash", TEXT(PART("a") "1\r\n--b---\r\n"), "(a)1;SYNTAX"},
        {"line feed behind the boundary", TEXT("--b\n" CD "a\r\n\r\n1" CLOSE), "SYNTAX"},
        {"carriage return behind the boundary", TEXT("--b\r" CD "a\r\n\r\n1" CLOSE), "SYNTAX"},
        {"half a line end behind the last delimiter", TEXT(PART("a") "1\r\n--b--\r"), "(a)1;SYNTAX"},
        {"line feed behind the last delimiter", TEXT(PART("a") "1\r\n--b--\n"), "(a)1;SYNTAX"},
        {"another byte for the line feed", TEXT("--b\rx" CD "a\r\n\r\n1" CLOSE), "SYNTAX"},
        {"another byte for the last line feed", TEXT(PART("a") "1\r\n--b--\rx"), "(a)1;SYNTAX"},
        {"NUL behind the boundary", TEXT("--b\0\r\n" CD "a\r\n\r\n1" CLOSE), "SYNTAX"},
        {"vertical tab as padding", TEXT("--b\v\r\n" CD "a\r\n\r\n1" CLOSE), "SYNTAX"},
    };
    check_bodies(TYPE_B, cases, LENGTH(cases));
}

// What of a delimiter that was not one after all belongs to the data, each time.
TEST(multipart_data_like_delimiters) {
    static const char *const data[] = {
        "--",
        "--boundar",
        "\r\n--boundar",
        "\r\n--boundar\r\n--boundar",
        "\r",
        "\r\n",
        "\r\r\n",
        "\r\n\r\n",
        "\r\r\r",
        "\r\n-",
        "\r\n--",
        "\r\n---boundary",
        "\r\n-\r\n--b\r\n--bo\r\n--bou\r\n--boun\r\n--bound\r\n--bounda\r\n--boundar",
        "\r\n\r\n--boundar\r\n\r\n",
        "\r\r\n--boundar\r",
        "\r\n--boundar\r\n",
        "\r\n --boundary",
        "\n--boundary",
        "--boundary--x", // it does not begin the line
        "x--boundary\r\nx--boundary--",
        "\r\n--Boundary",
        "\r\n--boundar\xf9",
    };
    const httpsrv_form_config defaults = {.parts = 0};
    for (size_t i = 0; i < LENGTH(data); i++) {
        struct bytes body = {NULL, 0, 0}, expected = {NULL, 0, 0};
        NOTE("%s", data[i]);
        append_text(&body, "--boundary\r\n" CD "a\r\n\r\nx");
        append_text(&body, data[i]);
        append_text(&body, "\r\n--boundary\r\n" CD "b\r\n\r\n\r\n--boundary--");
        append_text(&expected, "(a)x");
        append_text(&expected, data[i]);
        append_text(&expected, ";(b);OK");
        check_every_cut(HTTPSRV_STR("multipart/form-data; boundary=boundary"), view_of_bytes(&body), &defaults,
                        expected.ptr);
        release_bytes(&body);
        release_bytes(&expected);
    }
}

// A boundary that looks like its own beginning: after a mismatch the search must not have skipped anything.
TEST(multipart_boundary_like_itself) {
    static const struct body_case cases[] = {
        {"dashes", TEXT("-----\r\n" CD "a\r\n\r\n\r\n----\r\n--x\r\n-----\r\n" CD "b\r\n\r\n\r\n-------"),
         "(a)\r\n----\r\n--x;(b);OK"},
    };
    check_bodies("multipart/form-data; boundary=---", cases, LENGTH(cases));
}

TEST(multipart_every_beginning_of_a_body) {
    static const char body[] = "hello\r\n" PART("a") "1\r\n--b \r\n" CD "b\r\nContent-Type: t/u\r\n\r\n2\r\n--b--";
    const struct cut ways[] = {{0, SIZE_MAX}, {1, 1}};
    const httpsrv_form_config defaults = {.parts = 0};
    for (size_t len = 0; len < sizeof body; len++) {
        for (size_t way = 0; way < LENGTH(ways); way++) {
            struct reading r;
            httpsrv_str beginning = {body, len};
            memset(&r, 0, sizeof r);
            NOTE("the first %zu bytes, way %zu", len, way);
            struct bytes out = read_cut(&r, HTTPSRV_STR(TYPE_B), beginning, defaults, ways[way]);
            const char *end = len == sizeof body - 1 ? ";OK" : "SYNTAX";
            CHECK_CMP(out.len, >=, strlen(end));
            CHECK_STR(out.ptr + out.len - strlen(end), end);
            release_bytes(&r.out);
        }
    }
}

TEST(multipart_nothing_happens_with_empty_pieces) {
    static const char body[] = PART("a") "1" CLOSE;
    static httpsrv_multipart m;
    struct reading r;
    memset(&r, 0, sizeof r);
    const httpsrv_form_config config = {.on_part = take_part, .user = &r};
    CHECK_INT(httpsrv_multipart_init(&m, HTTPSRV_STR(TYPE_B), &config), HTTPSRV_OK);
    for (size_t i = 0; i < sizeof body - 1; i++) {
        const httpsrv_str piece = {body + i, 1}, empty = {body, 0}, absent = {NULL, 0};
        CHECK_INT(httpsrv_multipart_feed(&m, empty), HTTPSRV_OK);
        CHECK_INT(httpsrv_multipart_feed(&m, piece), HTTPSRV_OK);
        CHECK_INT(httpsrv_multipart_feed(&m, absent), HTTPSRV_OK);
    }
    CHECK_INT(httpsrv_multipart_end(&m), HTTPSRV_OK);
    CHECK_STR(r.out.ptr, "(a)1;");
    release_bytes(&r.out);
}

// Without a configuration, or without a call-back, a body is only judged.
TEST(multipart_without_call_back) {
    const httpsrv_form_config none = {.parts = 1};
    const httpsrv_form_config *configs[] = {NULL, &none};
    static httpsrv_multipart m;
    for (size_t i = 0; i < LENGTH(configs); i++) {
        CHECK_INT(httpsrv_multipart_init(&m, HTTPSRV_STR(TYPE_B), configs[i]), HTTPSRV_OK);
        CHECK_INT(httpsrv_multipart_feed(&m, HTTPSRV_STR(PART("a") "1" CLOSE)), HTTPSRV_OK);
        CHECK_INT(httpsrv_multipart_end(&m), HTTPSRV_OK);
        CHECK_INT(httpsrv_multipart_init(&m, HTTPSRV_STR(TYPE_B), configs[i]), HTTPSRV_OK);
        CHECK_INT(httpsrv_multipart_feed(&m, HTTPSRV_STR(PART("") "1" CLOSE)), HTTPSRV_SYNTAX);
    }
}

// ---- boundaries ----

struct type_case {
    httpsrv_str type;
    httpsrv_result result;
    const char *boundary;
};

#define TEN     "0123456789"
#define SEVENTY TEN TEN TEN TEN TEN TEN TEN

static void check_type(const struct type_case *t) {
    const httpsrv_form_config defaults = {.parts = 0};
    static httpsrv_multipart m;
    struct bytes body = {NULL, 0, 0};
    CHECK_INT(httpsrv_multipart_init(&m, t->type, &defaults), t->result);
    if (t->result != HTTPSRV_OK) return;
    append_text(&body, "--");
    append_text(&body, t->boundary);
    append_text(&body, "\r\n" CD "a\r\n\r\nx\r\n--");
    append(&body, t->boundary, strlen(t->boundary) - 1);
    append_text(&body, "\r\n\r\n--");
    append_text(&body, t->boundary);
    append_text(&body, "--");
    struct bytes expected = {NULL, 0, 0};
    append_text(&expected, "(a)x\r\n--");
    append(&expected, t->boundary, strlen(t->boundary) - 1);
    append_text(&expected, "\r\n;OK");
    check_every_cut(t->type, view_of_bytes(&body), &defaults, expected.ptr);
    release_bytes(&body);
    release_bytes(&expected);
}

TEST(multipart_boundaries) {
    static const struct type_case cases[] = {
        {TEXT("multipart/form-data; boundary=x"), HTTPSRV_OK, "x"},
        {TEXT("multipart/form-data;boundary=x"), HTTPSRV_OK, "x"},
        {TEXT("multipart/form-data \t;\t boundary=x"), HTTPSRV_OK, "x"},
        {TEXT("Multipart/Form-DATA; BOUNDARY=Xy"), HTTPSRV_OK, "Xy"},
        {TEXT("multipart/form-data; charset=utf-8; boundary=x"), HTTPSRV_OK, "x"},
        {TEXT("multipart/form-data; boundary=x; charset=utf-8"), HTTPSRV_OK, "x"},
        {TEXT("multipart/form-data; a=\"; boundary=y\"; boundary=x"), HTTPSRV_OK, "x"},
        {TEXT("multipart/form-data; xboundary=y; boundary=x"), HTTPSRV_OK, "x"},
        {TEXT("multipart/form-data; boundary=\"x\""), HTTPSRV_OK, "x"},
        {TEXT("multipart/form-data; boundary=\"'()+_,-./:=?\""), HTTPSRV_OK, "'()+_,-./:=?"},
        {TEXT("multipart/form-data; boundary=\"a b\""), HTTPSRV_OK, "a b"},
        {TEXT("multipart/form-data; boundary=\" b\""), HTTPSRV_OK, " b"},
        {TEXT("multipart/form-data; boundary=-_'+."), HTTPSRV_OK, "-_'+."},
        {TEXT("multipart/form-data; boundary=----WebKitFormBoundary7MA4YWxkTrZu0gW"), HTTPSRV_OK,
         "----WebKitFormBoundary7MA4YWxkTrZu0gW"},
        {TEXT("multipart/form-data; boundary=" SEVENTY), HTTPSRV_OK, SEVENTY},
        {TEXT("multipart/form-data; boundary=\"" SEVENTY "\""), HTTPSRV_OK, SEVENTY},
        {TEXT("multipart/form-data;; boundary=x; ;"), HTTPSRV_OK,
         "x"}, // parameters may be empty, RFC 9110 section 5.6.6
        {TEXT("multipart/form-data"), HTTPSRV_SYNTAX, NULL},
        {TEXT("multipart/form-data; charset=utf-8"), HTTPSRV_SYNTAX, NULL},
        {TEXT("multipart/form-data; boundary"), HTTPSRV_SYNTAX, NULL},
        {TEXT("multipart/form-data; boundary="), HTTPSRV_SYNTAX, NULL},
        {TEXT("multipart/form-data; boundary=\"\""), HTTPSRV_SYNTAX, NULL},
        {TEXT("multipart/form-data; boundary=" SEVENTY "x"), HTTPSRV_SYNTAX, NULL},
        {TEXT("multipart/form-data; boundary=\"" SEVENTY "x\""), HTTPSRV_SYNTAX, NULL},
        {TEXT("multipart/form-data; boundary=\"a\0b\""), HTTPSRV_SYNTAX, NULL},
        {TEXT("multipart/form-data; boundary=a\0"), HTTPSRV_SYNTAX, NULL},
        {TEXT("multipart/form-data; boundary=\"a \""), HTTPSRV_SYNTAX, NULL},
        {TEXT("multipart/form-data; boundary=\" \""), HTTPSRV_SYNTAX, NULL},
        {TEXT("multipart/form-data; boundary=\"a\tb\""), HTTPSRV_SYNTAX, NULL},
        {TEXT("multipart/form-data; boundary=\"a\r\nb\""), HTTPSRV_SYNTAX, NULL},
        {TEXT("multipart/form-data; boundary=\"a&b\""), HTTPSRV_SYNTAX, NULL},
        {TEXT("multipart/form-data; boundary=a*b"), HTTPSRV_SYNTAX, NULL},
        {TEXT("multipart/form-data; boundary=\"a\xc3\xa4\""), HTTPSRV_SYNTAX, NULL},
        {TEXT("multipart/form-data; boundary=\"x"), HTTPSRV_SYNTAX, NULL},
        {TEXT("multipart/form-data; boundary=x\""), HTTPSRV_SYNTAX, NULL},
        {TEXT("multipart/form-data; boundary=\"x\"y"), HTTPSRV_SYNTAX, NULL},
        {TEXT("multipart/form-data; boundary = x"), HTTPSRV_SYNTAX, NULL},
        {TEXT("multipart/form-data; boundary=a b"), HTTPSRV_SYNTAX, NULL},
        {TEXT("multipart/form-data; boundary=a=b"), HTTPSRV_SYNTAX, NULL},
        {TEXT("multipart/form-data; boundary=x; boundary=y"), HTTPSRV_SYNTAX, NULL},
        {TEXT("multipart/form-data; boundary=x; boundary=x"), HTTPSRV_SYNTAX, NULL},
        {TEXT("multipart/form-data boundary=x"), HTTPSRV_UNSUPPORTED, NULL},
        {TEXT("multipart/form-data2; boundary=x"), HTTPSRV_UNSUPPORTED, NULL},
        {TEXT("multipart/mixed; boundary=x"), HTTPSRV_UNSUPPORTED, NULL},
        {TEXT("multipart/form-dat; boundary=x"), HTTPSRV_UNSUPPORTED, NULL},
        {TEXT("application/x-www-form-urlencoded"), HTTPSRV_UNSUPPORTED, NULL},
        {TEXT(""), HTTPSRV_UNSUPPORTED, NULL},
        {{NULL, 0}, HTTPSRV_UNSUPPORTED, NULL},
    };
    for (size_t i = 0; i < LENGTH(cases); i++) {
        NOTE("%.*s", HTTPSRV_FMT(cases[i].type));
        check_type(&cases[i]);
    }
}

// ---- heads of parts ----

struct head_case {
    httpsrv_str fields; // with their line ends, without the empty line
    const char *expected;
};

static void check_heads(const struct head_case *cases, size_t num) {
    const httpsrv_form_config defaults = {.parts = 0};
    for (size_t i = 0; i < num; i++) {
        struct bytes body = {NULL, 0, 0};
        append_text(&body, "--b\r\n");
        append_view(&body, cases[i].fields);
        append_text(&body, "\r\nx" CLOSE);
        NOTE("%.*s", HTTPSRV_FMT(cases[i].fields));
        check_every_cut(HTTPSRV_STR(TYPE_B), view_of_bytes(&body), &defaults, cases[i].expected);
        release_bytes(&body);
    }
}

#define DISPOSITION(rest) TEXT("Content-Disposition: " rest "\r\n")

TEST(part_heads) {
    static const struct head_case cases[] = {
        {DISPOSITION("form-data; name=a"), "(a)x;OK"},
        {DISPOSITION("form-data; name=\"a\""), "(a)x;OK"},
        {DISPOSITION("form-data;name=\"a\";filename=\"f\""), "(a|f)x;OK"},
        {DISPOSITION("form-data; filename=\"f\"; name=\"a\""), "(a|f)x;OK"},
        {DISPOSITION("form-data \t; \t name=\"a\"\t ; filename=f "), "(a|f)x;OK"},
        {DISPOSITION("Form-Data; NAME=\"A\"; FileName=\"F\""), "(A|F)x;OK"},
        {TEXT("content-disposition:form-data; name=a\r\n"), "(a)x;OK"},
        {TEXT("CONTENT-DISPOSITION:\tform-data; name=a\r\n"), "(a)x;OK"},
        {DISPOSITION("form-data;; name=a ; ;filename=f;"), "(a|f)x;OK"},
        {DISPOSITION("form-data; name=\"\""), "()x;OK"},
        {DISPOSITION("form-data; name=\"a\"; filename=\"\""), "(a|)x;OK"},
        {DISPOSITION("form-data; name=\"; filename=g\"; size=3"), "(; filename=g)x;OK"},
        {DISPOSITION("form-data; name=\"a\"; xfilename=\"g\"; xname=\"h\""), "(a)x;OK"},
        {DISPOSITION("form-data; name=\" a b \""), "( a b )x;OK"},
        {DISPOSITION("form-data; name=\"a\tb\""), "(a\tb)x;OK"},
        {DISPOSITION("form-data; name=\"\xc3\xa4\"; filename=\"\xe2\x82\xac.txt\""), "(\xc3\xa4|\xe2\x82\xac.txt)x;OK"},
        {DISPOSITION("form-data; name=\"\xff\xfe\""), "(\xff\xfe)x;OK"},
        {DISPOSITION("form-data; name=\"a\"; filename=\"../../etc/passwd\""), "(a|../../etc/passwd)x;OK"},
        // Escapes of browsers, which replace these three and nothing else, stay as sent.
        {DISPOSITION("form-data; name=\"a%22b%0D%0Ac%2541\"; filename=\"%22\""), "(a%22b%0D%0Ac%2541|%22)x;OK"},
        // RFC 9110 section 5.6.4: a quoted-pair is the byte behind the backslash. That is taken at its word for the two
        // bytes for which a sender needs it, as curl --form-escape and python write them.
        {DISPOSITION("form-data; name=\"a\\\"b\"; filename=\"c\\\\d\""), "(a\"b|c\\d)x;OK"},
        {DISPOSITION("form-data; name=\"\\\"\"; filename=\"\\\\\""), "(\"|\\)x;OK"},
        {DISPOSITION("form-data; name=\"a\\\\\\\"; filename=b\""), "(a\\\"; filename=b)x;OK"},
        // Any other backslash is one: browsers send it as it is, and a sender has no reason to quote anything else.
        {DISPOSITION("form-data; name=\"a\"; filename=\"C:\\dir\\file.txt\""), "(a|C:\\dir\\file.txt)x;OK"},
        // RFC 7578 section 4.2: "filename*" has no place here.
        {DISPOSITION("form-data; name=\"a\"; filename*=UTF-8''f"), "(a)x;OK"},
        {DISPOSITION("form-data; name=\"a\"; filename*=UTF-8''f; filename=\"g\""), "(a|g)x;OK"},
        {DISPOSITION("form-data; name=\"a\"; filename=\"g\"; filename*=UTF-8''f"), "(a|g)x;OK"},
        // Types and other fields.
        {TEXT(CD "a\r\nContent-Type: text/plain; charset=utf-8\r\n"), "(a|-|text/plain; charset=utf-8)x;OK"},
        {TEXT("content-type:\t text/plain \t\r\n" CD "a; filename=f\r\n"), "(a|f|text/plain)x;OK"},
        {TEXT("X-Other: 1\r\n" CD "a\r\nX-Other:\r\nContent-Length: 77\r\n"), "(a)x;OK"},
        {TEXT(CD "a\r\nContent-Transfer-Encoding: base64\r\n"), "(a)x;OK"},
        {TEXT("X-Content-Disposition: form-data; name=b\r\n" CD "a\r\nContent-Typex: y\r\n"), "(a)x;OK"},
    };
    check_heads(cases, LENGTH(cases));
}

TEST(part_heads_refused) {
    static const struct head_case cases[] = {
        {TEXT(""), "SYNTAX"}, // no field at all
        {TEXT("Content-Type: text/plain\r\n"), "SYNTAX"},
        {DISPOSITION("form-data"), "SYNTAX"},
        {DISPOSITION("form-data; filename=\"f\""), "SYNTAX"},
        {DISPOSITION("form-data; name*=UTF-8''a"), "SYNTAX"},
        {DISPOSITION("attachment; name=\"a\""), "SYNTAX"},
        {DISPOSITION("form-data2; name=\"a\""), "SYNTAX"},
        {DISPOSITION("; name=\"a\""), "SYNTAX"},
        {DISPOSITION(""), "SYNTAX"},
        {DISPOSITION("form-data name=\"a\""), "SYNTAX"},
        {DISPOSITION("form-data, name=\"a\""), "SYNTAX"},
        {DISPOSITION("form-data; name"), "SYNTAX"},
        {DISPOSITION("form-data; name="), "SYNTAX"},
        {DISPOSITION("form-data; name=a b"), "SYNTAX"},
        {DISPOSITION("form-data; name =\"a\""), "SYNTAX"},
        {DISPOSITION("form-data; name= \"a\""), "SYNTAX"},
        {DISPOSITION("form-data; name=\"a"), "SYNTAX"},
        {DISPOSITION("form-data; name=\"a\\\""), "SYNTAX"},
        {DISPOSITION("form-data; name=a\""), "SYNTAX"},
        {DISPOSITION("form-data; name=\"a\"b"), "SYNTAX"},
        {DISPOSITION("form-data; name=\"a\" filename=\"f\""), "SYNTAX"},
        {DISPOSITION("form-data; name=\"a\"; name=\"b\""), "SYNTAX"},
        {DISPOSITION("form-data; name=\"a\"; filename=\"f\"; filename=\"g\""), "SYNTAX"},
        {TEXT(CD "a\r\n" CD "a\r\n"), "SYNTAX"},
        {TEXT(CD "a\r\nContent-Type: a/b\r\nContent-Type: a/b\r\n"), "SYNTAX"},
        {DISPOSITION("form-data; name=\"a\0b\""), "SYNTAX"},
        {DISPOSITION("form-data; name=\"a\nb\""), "SYNTAX"},
        {DISPOSITION("form-data; name=\"a\rb\""), "SYNTAX"},
        {DISPOSITION("form-data; name=\"a\x01\""), "SYNTAX"},
        {DISPOSITION("form-data; name=\"a\x7f\""), "SYNTAX"},
        {TEXT(CD "a\r\nContent-Type: a/b\0\r\n"), "SYNTAX"},
        {TEXT(CD "a\r\nX-Other: \0\r\n"), "SYNTAX"},
        {TEXT(CD "a\r\nX\0: 1\r\n"), "SYNTAX"},
        {TEXT(CD "a\n"), "SYNTAX"},
        {TEXT(CD "a\r"), "SYNTAX"},
        {TEXT(CD "a\r\r\n"), "SYNTAX"},
        {TEXT(CD "a\nX-Other: 1\r\n"), "SYNTAX"},
        {TEXT(CD "a\rX-Other: 1\r\n"), "SYNTAX"},
        {TEXT(CD "a\r\nX-Other: 1\n"), "SYNTAX"},
        {TEXT("Content-Disposition: form-data;\r\n name=a\r\n"), "SYNTAX"}, // obs-fold
        {TEXT(CD "a\r\n\tb: c\r\n"), "SYNTAX"},
        {TEXT(" " CD "a\r\n"), "SYNTAX"},
        {TEXT("Content-Disposition : form-data; name=a\r\n"), "SYNTAX"},
        {TEXT(CD "a\r\n: 1\r\n"), "SYNTAX"},
        {TEXT(CD "a\r\nX-Other\r\n"), "SYNTAX"},
        {TEXT(CD "a\r\nX Other: 1\r\n"), "SYNTAX"},
        {TEXT(CD "a\r\n--b\r\n" CD "b\r\n"), "SYNTAX"}, // a delimiter in the middle of a head
    };
    check_heads(cases, LENGTH(cases));
}

// ---- limits ----

// A body whose only head has `len` bytes: the fields, their line ends and the empty line.
static struct bytes body_of_head(size_t len) {
    struct bytes body = {NULL, 0, 0};
    append_text(&body, "--b\r\n");
    size_t before = body.len;
    append_text(&body, CD "a\r\nX-Long: ");
    while (body.len - before < len - 4) {
        append_text(&body, "y");
    }
    append_text(&body, "\r\n\r\nx" CLOSE);
    return body;
}

TEST(part_head_at_its_limit) {
    const httpsrv_form_config defaults = {.parts = 0};
    for (int past = 0; past <= 1; past++) {
        struct bytes body = body_of_head(HTTPSRV_PART_HEAD + (size_t)past);
        NOTE("%d past the limit", past);
        check_every_cut(HTTPSRV_STR(TYPE_B), view_of_bytes(&body), &defaults, past ? "TOOBIG" : "(a)x;OK");
        release_bytes(&body);
    }
}

// A head without an end is refused as soon as it is too long.
TEST(part_head_without_end) {
    static httpsrv_multipart m;
    size_t sent = 0;
    CHECK_INT(httpsrv_multipart_init(&m, HTTPSRV_STR(TYPE_B), NULL), HTTPSRV_OK);
    CHECK_INT(httpsrv_multipart_feed(&m, HTTPSRV_STR("--b\r\nX: ")), HTTPSRV_OK);
    while (httpsrv_multipart_feed(&m, HTTPSRV_STR("y")) == HTTPSRV_OK) {
        CHECK_CMP(++sent, <=, HTTPSRV_PART_HEAD);
    }
    CHECK_INT(httpsrv_multipart_feed(&m, HTTPSRV_STR("y")), HTTPSRV_TOOBIG);
}

struct parts_case {
    int limit, parts;
    bool fits;
};

TEST(multipart_number_of_parts) {
    static const struct parts_case cases[] = {
        {0, 64, true}, {0, 65, false},   {1, 1, true}, {1, 2, false},           {3, 3, true},
        {3, 4, false}, {-1, 1000, true}, {1, 0, true}, {HTTPSRV_ZERO, 0, true}, {HTTPSRV_ZERO, 1, false},
    };
    for (size_t i = 0; i < LENGTH(cases); i++) {
        const httpsrv_form_config config = {.parts = cases[i].limit};
        struct bytes body = {NULL, 0, 0}, expected = {NULL, 0, 0};
        for (int n = 0; n < cases[i].parts; n++) {
            append_text(&body, "\r\n" PART("a") "1");
            if (cases[i].fits || n < cases[i].parts - 1) append_text(&expected, "(a)1;");
        }
        append_text(&body, CLOSE);
        append_text(&expected, cases[i].fits ? "OK" : "TOOBIG");
        NOTE("%d of %d", cases[i].parts, cases[i].limit);
        check_every_cut(HTTPSRV_STR(TYPE_B), view_of_bytes(&body), &config, expected.ptr);
        release_bytes(&body);
        release_bytes(&expected);
    }
}

TEST(multipart_size_of_a_part) {
    static const struct body_case cases[] = {
        {"at the limit", TEXT(PART("a") "12345\r\n" PART("b") "67890" CLOSE), "(a)12345;(b)67890;OK"},
        {"at the limit with the beginnings of a delimiter", TEXT(PART("a") "\r\n--\r" CLOSE), "(a)\r\n--\r;OK"},
        {"one past", TEXT(PART("a") "123456" CLOSE), "(...TOOBIG"},
        {"one past, in the second", TEXT(PART("a") "1\r\n" PART("b") "123456" CLOSE), "(a)1;(...TOOBIG"},
        {"past by what was no delimiter", TEXT(PART("a") "1234\r\nx" CLOSE), "(...TOOBIG"},
        {"far past", TEXT(PART("a") SEVENTY SEVENTY CLOSE), "(...TOOBIG"},
    };
    const httpsrv_form_config config = {.size = 5};
    for (size_t i = 0; i < LENGTH(cases); i++) {
        NOTE("%s", cases[i].what);
        check_every_cut(HTTPSRV_STR(TYPE_B), cases[i].body, &config, cases[i].expected);
    }
}

// Whatever on_part returns ends the reading, at each of its calls; take_part checks that none follows.
TEST(multipart_call_back_refuses) {
    static const char body[] = PART("a") "1\r\n" PART("b") "\r\n" PART("c") "3" CLOSE;
    static const httpsrv_result refusals[] = {HTTPSRV_FULL, HTTPSRV_SYS, HTTPSRV_SYNTAX, (httpsrv_result)-77};
    static const char *const before[] = {"", "(a)", "(a)1", "(a)1;", "(a)1;(b)", "(a)1;(b);", "(a)1;(b);(c)"};
    const struct cut whole = {0, SIZE_MAX};
    const httpsrv_form_config defaults = {.parts = 0};
    for (size_t i = 0; i < LENGTH(refusals) * LENGTH(before); i++) {
        struct reading r;
        struct bytes expected = {NULL, 0, 0};
        httpsrv_str view = {body, sizeof body - 1};
        memset(&r, 0, sizeof r);
        r.refusal = refusals[i % LENGTH(refusals)];
        r.refused_at = 1 + (int)(i / LENGTH(refusals));
        append_text(&expected, before[i / LENGTH(refusals)]);
        append_text(&expected, result_name(r.refusal));
        NOTE("%s at call %d", result_name(r.refusal), r.refused_at);
        struct bytes out = read_cut(&r, HTTPSRV_STR(TYPE_B), view, defaults, whole);
        CHECK_INT(r.steps, r.refused_at);
        CHECK_MEM(out.ptr, out.len, expected.ptr, expected.len);
        release_bytes(&r.out);
        release_bytes(&expected);
    }
}

// ---- random bodies: what was written is read back ----

static char random_of(const char *set) {
    return set[random_below((uint32_t)strlen(set))];
}

// Data that is full of beginnings of the delimiter, but has none.
static void add_random_data(struct bytes *out, const char *boundary) {
    char delimiter[80];
    int len = snprintf(delimiter, sizeof delimiter, "\r\n--%s", boundary);
    size_t start = out->len;
    for (uint32_t i = random_below(12); i > 0; i--) {
        append(out, delimiter, random_below((uint32_t)len));
        if (random_below(2)) append(out, &"\0\r\n-xy"[random_below(6)], 1);
    }
    while (memmem(out->ptr + start, out->len - start, delimiter, (size_t)len)) {
        out->len = start; // the pieces have made one by chance
    }
    if (out->len - start >= (size_t)len - 2 && memcmp(out->ptr + start, delimiter + 2, (size_t)len - 2) == 0)
        out->len = start;
}

static void random_boundary(char *out, size_t max) {
    size_t len = 1 + random_below((uint32_t)max);
    for (size_t i = 0; i < len; i++) {
        out[i] = random_of("--ab'()+_,./:=?");
    }
    out[len] = 0;
}

static void random_body(struct bytes *body, struct bytes *expected, const char *boundary) {
    append(body, "", 0);
    append(expected, "", 0);
    for (uint32_t parts = random_below(5); parts > 0; parts--) {
        size_t start;
        append_text(body, body->len ? "\r\n--" : "--");
        append_text(body, boundary);
        append_text(body, "\r\nContent-Disposition: form-data; name=n\r\n\r\n");
        start = body->len;
        add_random_data(body, boundary);
        append_text(expected, "(n)");
        httpsrv_str data = {body->ptr + start, body->len - start};
        add_word(expected, data);
        append_text(expected, ";");
    }
    append_text(body, "\r\n--");
    append_text(body, boundary);
    append_text(body, "--\r\n");
    append_text(expected, "OK");
}

TEST(multipart_random_bodies) {
    const httpsrv_form_config defaults = {.parts = 0};
    for (int round = 0; round < STORM(400); round++) {
        struct bytes body = {NULL, 0, 0}, expected = {NULL, 0, 0};
        char boundary[80], type[160];
        random_boundary(boundary, round % 2 ? 5 : 70);
        snprintf(type, sizeof type, "multipart/form-data; boundary=\"%s\"", boundary);
        random_body(&body, &expected, boundary);
        NOTE("round %d, boundary %s", round, boundary);
        check_every_cut(view_of(type), view_of_bytes(&body), &defaults, expected.ptr);
        release_bytes(&body);
        release_bytes(&expected);
    }
}

// ---- cost ----

#define COST_BYTES (8u << 20)

static httpsrv_result count_part(const httpsrv_part *part, httpsrv_part_step step, httpsrv_str data, void *user) {
    (void)part;
    if (step == HTTPSRV_PART_DATA) *(size_t *)user += data.len;
    return HTTPSRV_OK;
}

// Milliseconds for 8 MB of the pattern, repeated.
static int64_t cost_of(const char *type, const char *open, const char *pattern, size_t piece) {
    static httpsrv_multipart m;
    size_t counted = 0, len = strlen(pattern), size = COST_BYTES / len * len;
    const httpsrv_form_config config = {.on_part = count_part, .user = &counted};
    char *data = (char *)malloc(size);
    CHECK(data != NULL);
    for (size_t i = 0; i < size; i++) {
        data[i] = pattern[i % len];
    }
    CHECK_INT(httpsrv_multipart_init(&m, view_of(type), &config), HTTPSRV_OK);
    CHECK_INT(httpsrv_multipart_feed(&m, view_of(open)), HTTPSRV_OK);
    int64_t start = test_now();
    for (size_t at = 0; at < size; at += piece) {
        httpsrv_str view = {data + at, piece < size - at ? piece : size - at};
        CHECK_INT(httpsrv_multipart_feed(&m, view), HTTPSRV_OK);
    }
    int64_t took = test_now() - start;
    CHECK_CMP(counted + 100, >=, size); // what may still be a delimiter is held back
    free(data);
    return took;
}

// Each byte costs the same, whatever it is: a scanner that starts again after each disappointment takes minutes here.
TEST(multipart_cost_is_linear) {
    static const char open[] = "--" SEVENTY "\r\n" CD "a\r\n\r\n";
    static const char *const patterns[] = {"\r\n--", "\r", "\r\n", "--", "\r\n--" TEN TEN TEN TEN TEN TEN "012345678"};
    static const size_t pieces[] = {COST_BYTES, 4096, 61};
    static const char type[] = "multipart/form-data; boundary=" SEVENTY;
    for (size_t i = 0; i < LENGTH(patterns) * LENGTH(pieces); i++) {
        size_t piece = pieces[i % LENGTH(pieces)];
        int64_t plain = cost_of(type, open, "x", piece);
        int64_t took = cost_of(type, open, patterns[i / LENGTH(pieces)], piece);
        NOTE("pattern %zu by %zu bytes: %d ms, plain %d ms", i / LENGTH(pieces), piece, (int)took, (int)plain);
        CHECK_CMP(took, <=, 50 * plain + test_ms(1500));
    }
}

// ---- urlencoded texts ----

struct pairs_case {
    const char *text, *expected;
};

TEST(urlencoded_pairs) {
    static const struct pairs_case cases[] = {
        {"", ""},
        {"a=1", "[a][1]"},
        {"a=1&b=2", "[a][1][b][2]"},
        {"a=1&a=2", "[a][1][a][2]"},
        {"a=", "[a][]"},
        {"a", "[a][]"},
        {"=1", "[][1]"},
        {"=", "[][]"},
        {"&", ""},
        {"&&a=1&&&b=2&&", "[a][1][b][2]"},
        {"a=b=c", "[a][b=c]"},
        {"a==", "[a][=]"},
        {"a;b=1;c", "[a;b][1;c]"},
        {"a%3D=%26&b", "[a%3D][%26][b][]"}, // as it is: decoding comes afterwards
        {"a+b=c+d", "[a+b][c+d]"},
        {"%=%zz", "[%][%zz]"},
        {" a = 1 ", "[ a ][ 1 ]"},
    };
    for (size_t i = 0; i < LENGTH(cases); i++) {
        struct bytes out = {NULL, 0, 0};
        size_t len = strlen(cases[i].text);
        httpsrv_str text = {moved(cases[i].text, len), len};
        httpsrv_field pair;
        NOTE("%s", cases[i].text);
        append(&out, "", 0);
        while (httpsrv_urlencoded_next(&text, &pair)) {
            CHECK_CMP(out.len, <, 100);
            append_text(&out, "[");
            append_view(&out, pair.name);
            append_text(&out, "][");
            append_view(&out, pair.value);
            append_text(&out, "]");
        }
        CHECK_STR(out.ptr, cases[i].expected);
        CHECK(!httpsrv_urlencoded_next(&text, &pair)); // and it stays at its end
        release_bytes(&out);
    }
}

TEST(urlencoded_of_nothing) {
    httpsrv_str absent = {NULL, 0};
    httpsrv_field pair;
    CHECK(!httpsrv_urlencoded_next(&absent, &pair));
}

struct decode_case {
    httpsrv_str text;
    bool plus;
    httpsrv_str expected; // absent: refused
};

#define REFUSED \
    { NULL, 0 }

TEST(decode) {
    static const struct decode_case cases[] = {
        {TEXT(""), false, TEXT("")},
        {TEXT("abc"), false, TEXT("abc")},
        {TEXT("%41%62"), false, TEXT("Ab")},
        {TEXT("%2541"), false, TEXT("%41")}, // once
        {TEXT("%25%34%31"), true, TEXT("%41")},
        {TEXT("%00"), false, TEXT("\0")},
        {TEXT("a%00b\0c"), true, TEXT("a\0b\0c")},
        {TEXT("%c3%A4%fF"), false, TEXT("\xc3\xa4\xff")},
        {TEXT("a+b"), false, TEXT("a+b")},
        {TEXT("a+b"), true, TEXT("a b")},
        {TEXT("%2B+%2b"), true, TEXT("+ +")},
        {TEXT("%2B%20"), false, TEXT("+ ")},
        {TEXT("\x80\xff<> \""), true, TEXT("\x80\xff<> \"")},
        {TEXT("%"), false, REFUSED},
        {TEXT("%4"), false, REFUSED},
        {TEXT("a%"), true, REFUSED},
        {TEXT("%%41"), false, REFUSED},
        {TEXT("%4g"), false, REFUSED},
        {TEXT("%g4"), true, REFUSED},
        {TEXT("%+4"), true, REFUSED},
        {TEXT("% 41"), false, REFUSED},
        {TEXT("%4\0"), false, REFUSED},
        {TEXT("%u0041"), false, REFUSED},
        {TEXT("%41%zz"), false, REFUSED},
        {TEXT("%0x"), false, REFUSED},
    };
    char *end = fence_end();
    for (size_t i = 0; i < LENGTH(cases); i++) {
        const struct decode_case *d = &cases[i];
        httpsrv_str text = {moved(d->text.ptr, d->text.len), d->text.len};
        char *in_place = end - text.len; // room for text.len bytes and not one more
        for (int same = 0; same <= 1; same++) {
            NOTE("%.*s, in place: %d", HTTPSRV_FMT(d->text), same);
            memcpy(in_place, d->text.ptr, d->text.len);
            httpsrv_str source = {same ? in_place : text.ptr, text.len};
            ptrdiff_t len = httpsrv_decode(in_place, source, d->plus);
            CHECK_INT(len, d->expected.ptr ? (ptrdiff_t)d->expected.len : (ptrdiff_t)HTTPSRV_SYNTAX);
            if (len >= 0) CHECK_MEM(in_place, (size_t)len, d->expected.ptr, d->expected.len);
        }
    }
}

TEST(decode_each_escape) {
    for (unsigned n = 0; n < 256; n++) {
        char text[4], out[3];
        NOTE("byte 0x%02x", n);
        for (int upper = 0; upper <= 1; upper++) {
            snprintf(text, sizeof text, upper ? "%%%02X" : "%%%02x", n);
            CHECK_INT(httpsrv_decode(out, view_of(text), true), 1);
            CHECK_INT((unsigned char)out[0], n);
        }
    }
}

// ---- forms of a server ----

#define FORM_URL "application/x-www-form-urlencoded"

static struct server s;
static const httpsrv_form_config *form_config; // what the handlers read with; atomic
static int form_seen;                          // calls of the handlers that have read; atomic

// How the body gets to the handler: what is read must not depend on it.
struct way {
    const char *name, *path, *pool;
    bool stream;
};

static const struct way ways[] = {
    {"inline", "/inline", NULL, false},
    {"worker", "/worker", "default", false},
    {"stream", "/stream", "default", true},
};
#define STREAM 2

static void add_form(struct bytes *out, const httpsrv_form_data *form) {
    for (int i = 0; i < form->num_parts; i++) {
        const httpsrv_part *part = &form->parts[i];
        add_head(out, part);
        CHECK_INT(part->fd, -1);
        CHECK(part->data.ptr != NULL);
        CHECK_INT(part->size, part->data.len);
        add_word(out, part->data);
        append_text(out, ";");
    }
}

static void answer(httpsrv_req *req, const struct bytes *out) {
    httpsrv_result result = httpsrv_reply(req, 200, "text/plain", view_of_bytes(out));
    CHECK(result == HTTPSRV_OK || result == HTTPSRV_GONE);
}

// Answers with what it has read; a second reading is refused in any case.
static void on_form(httpsrv_req *req, void *user) {
    struct bytes out = {NULL, 0, 0};
    httpsrv_form_data form, again;
    httpsrv_result result = httpsrv_read_form(req, LOAD(form_config), &form);
    (void)user;
    append(&out, "", 0);
    CHECK_INT(httpsrv_read_form(req, NULL, &again), HTTPSRV_STATE);
    if (result == HTTPSRV_OK) add_form(&out, &form);
    append_text(&out, result_name(result));
    answer(req, &out);
    release_bytes(&out);
    COUNT(form_seen);
}

static void route_ways(const char *suffix, httpsrv_handler handler, int64_t max_body) {
    for (size_t i = 0; i < LENGTH(ways); i++) {
        char pattern[64];
        snprintf(pattern, sizeof pattern, "POST %s%s", ways[i].path, suffix);
        const httpsrv_route_config route = {.pattern = pattern,
                                            .handler = handler,
                                            .user = &s,
                                            .stream = ways[i].stream,
                                            .pool = ways[i].pool,
                                            .max_body = max_body};
        CHECK_INT(httpsrv_route(s.srv, &route), HTTPSRV_OK);
    }
}

static void serve_forms(httpsrv_handler handler) {
    prepare(&s, &(httpsrv_config){.pools = {{.name = "default", .threads = 2}}});
    route_all(&s, "", NULL);
    route_ways("", handler, 64 << 20);
    STORE(form_config, NULL);
    form_seen = 0;
    go(&s);
}

static void send_head(struct client *c, const struct way *way, const char *type, size_t len) {
    SENDF(c, "POST %s HTTP/1.1\r\nHost: a\r\n%s%s%sContent-Length: %zu\r\n\r\n", way->path,
          type ? "Content-Type: " : "", type ? type : "", type ? "\r\n" : "", len);
}

static void send_chunked(struct client *c, const struct way *way, const char *type, httpsrv_str body) {
    SENDF(c, "POST %s HTTP/1.1\r\nHost: a\r\nContent-Type: %s\r\nTransfer-Encoding: chunked\r\n\r\n", way->path, type);
    for (size_t at = 0; at < body.len; at += 7) {
        int piece = (int)(body.len - at < 7 ? body.len - at : 7);
        SENDF(c, "%x\r\n", (unsigned)piece);
        net_send(c, body.ptr + at, (size_t)piece);
        SEND(c, "\r\n");
    }
    SEND(c, "0\r\n\r\n");
}

static void expect_form(struct client *c, const char *expected) {
    REPLY(c);
    CHECK_INT(c->status, 200);
    CHECK_MEM(c->body, c->body_len, expected, strlen(expected));
}

// In each of the ways: at once, slowly in small pieces, and in chunks.
static void check_form(const char *type, httpsrv_str body, const char *expected) {
    for (const struct way *way = ways; way < ways + LENGTH(ways); way++) {
        struct client c = dial(s.port);
        NOTE("%s: %.*s", way->name, HTTPSRV_FMT(body));
        send_head(&c, way, type, body.len);
        net_send(&c, body.ptr, body.len);
        expect_form(&c, expected);
        send_head(&c, way, type, body.len);
        net_send_split(&c, body.ptr, body.len, 1 + body.len / 50);
        expect_form(&c, expected);
        if (type) {
            send_chunked(&c, way, type, body);
            expect_form(&c, expected);
        }
        hang_up(&c);
    }
}

TEST(form_urlencoded) {
    static const struct body_case cases[] = {
        {"", TEXT("a=1&b=2"), "(a)1;(b)2;OK"},
        {"", TEXT(""), "OK"},
        {"", TEXT("a+b=c%20d%2B&%C3%A4=%c3%a4"), "(a b)c d+;(\xc3\xa4)\xc3\xa4;OK"},
        {"", TEXT("a=%2541"), "(a)%41;OK"},
        {"", TEXT("a=%00"), "(a)\\0;OK"},
        {"", TEXT("a=%26b=1&c%3D=2"), "(a)&b=1;(c=)2;OK"},
        {"", TEXT("a&b=&=c"), "(a);(b);()c;OK"},
        {"", TEXT("&&a=1&&"), "(a)1;OK"},
        {"", TEXT("a=1&a=2"), "(a)1;(a)2;OK"},
        {"", TEXT("a=%"), "SYNTAX"},
        {"", TEXT("a=%4"), "SYNTAX"},
        {"", TEXT("a=1&b%zz=2"), "SYNTAX"},
        {"", TEXT("a=%4&1=b"), "SYNTAX"},
    };
    serve_forms(on_form);
    for (size_t i = 0; i < LENGTH(cases); i++) {
        check_form(FORM_URL, cases[i].body, cases[i].expected);
    }
    check_form("Application/X-WWW-Form-Urlencoded; charset=UTF-8", HTTPSRV_STR("a=1"), "(a)1;OK");
    finish(&s);
}

TEST(form_multipart) {
    static const struct body_case cases[] = {
        {"", TEXT(PART("a") "1\r\n" PART("\"f\"; filename=\"x.txt\"\r\nContent-Type: text/plain") "\0file\r\n" CLOSE),
         "(a)1;(f|x.txt|text/plain)\\0file\r\n;OK"},
        {"", TEXT(PART("a") CLOSE), "(a);OK"},
        {"", TEXT("--b--\r\n"), "OK"},
        {"", TEXT(PART("a+%41") "b+%41" CLOSE), "(a+%41)b+%41;OK"}, // nothing is decoded here
        {"", TEXT(""), "SYNTAX"},
        {"", TEXT(PART("a") "1"), "SYNTAX"},
        {"", TEXT(PART("a") "1\r\n--bx" CLOSE), "SYNTAX"},
    };
    serve_forms(on_form);
    for (size_t i = 0; i < LENGTH(cases); i++) {
        check_form(TYPE_B, cases[i].body, cases[i].expected);
    }
    check_form("multipart/form-data", HTTPSRV_STR("--b--"), "SYNTAX");
    finish(&s);
}

TEST(form_of_another_type) {
    static const char *const types[] = {NULL, "text/plain", "multipart/mixed; boundary=b", "application/json",
                                        "application/x-www-form-urlencoded2"};
    serve_forms(on_form);
    for (size_t i = 0; i < LENGTH(types); i++) {
        check_form(types[i], HTTPSRV_STR("a=1"), "UNSUPPORTED");
    }
    finish(&s);
}

struct limit_case {
    const char *type, *body, *expected;
    httpsrv_form_config config;
};

TEST(form_limits) {
    static const struct limit_case cases[] = {
        {FORM_URL, "a=1&b=2", "(a)1;(b)2;OK", {.parts = 2}},
        {FORM_URL, "a=1&b=2", "TOOBIG", {.parts = 1}},
        {FORM_URL, "a=12345&b=12345", "(a)12345;(b)12345;OK", {.size = 5}},
        {FORM_URL, "a=1&b=123456", "TOOBIG", {.size = 5}},
        {FORM_URL, "a=%31%32%33%34%35", "(a)12345;OK", {.size = 5}},
        {FORM_URL, "a=" TEN TEN TEN, "TOOBIG", {.memory = 20}},
        {FORM_URL, TEN TEN TEN "=1", "TOOBIG", {.memory = 20}},
        {FORM_URL, "a=" TEN "&b=" TEN "&c=" TEN, "TOOBIG", {.memory = 20}}, // together
        {FORM_URL, "a=1", "(a)1;OK", {.memory = 20}},
        {FORM_URL, "a=" TEN, "(a)" TEN ";OK", {.parts = -1, .size = -1, .memory = -1}},
        {FORM_URL, "", "OK", {.parts = HTTPSRV_ZERO, .size = HTTPSRV_ZERO, .memory = HTTPSRV_ZERO}},
        {FORM_URL, "a", "TOOBIG", {.parts = HTTPSRV_ZERO}},
        {FORM_URL, "a=&b", "(a);(b);OK", {.size = HTTPSRV_ZERO}},
        {FORM_URL, "a=1", "TOOBIG", {.size = HTTPSRV_ZERO}},
        {FORM_URL, "a=", "TOOBIG", {.memory = HTTPSRV_ZERO}},
        {TYPE_B, "--b--", "OK", {.parts = HTTPSRV_ZERO, .size = HTTPSRV_ZERO, .memory = HTTPSRV_ZERO}},
        {TYPE_B, PART("a") CLOSE, "TOOBIG", {.parts = HTTPSRV_ZERO}},
        {TYPE_B, PART("a") CLOSE, "(a);OK", {.size = HTTPSRV_ZERO}},
        {TYPE_B, PART("a") "1" CLOSE, "TOOBIG", {.size = HTTPSRV_ZERO}},
        {TYPE_B, PART("a") CLOSE, "TOOBIG", {.memory = HTTPSRV_ZERO}},
        {TYPE_B, PART("\"\"") "1" CLOSE, "TOOBIG", {.memory = HTTPSRV_ZERO}},
        {TYPE_B, PART("a") "1\r\n" PART("b") "2" CLOSE, "(a)1;(b)2;OK", {.parts = 2}},
        {TYPE_B, PART("a") "1\r\n" PART("b") "2" CLOSE, "TOOBIG", {.parts = 1}},
        {TYPE_B, PART("a") "12345" CLOSE, "(a)12345;OK", {.size = 5}},
        {TYPE_B, PART("a") "123456" CLOSE, "TOOBIG", {.size = 5}},
        {TYPE_B, PART("a") TEN TEN TEN CLOSE, "TOOBIG", {.memory = 20}},
        {TYPE_B, PART("a") TEN "\r\n" PART("b") TEN "\r\n" PART("c") TEN CLOSE, "TOOBIG", {.memory = 20}},
        {TYPE_B, PART(TEN TEN TEN) "1" CLOSE, "TOOBIG", {.memory = 20}},
        {TYPE_B, PART("a") "1" CLOSE, "(a)1;OK", {.memory = 20}},
    };
    serve_forms(on_form);
    for (size_t i = 0; i < LENGTH(cases); i++) {
        STORE(form_config, &cases[i].config);
        check_form(cases[i].type, view_of(cases[i].body), cases[i].expected);
    }
    finish(&s);
}

// A field of so many bytes, in each of the ways.
static void check_much(const char *type, int size, bool fits) {
    struct bytes body = {NULL, 0, 0};
    bool multipart = strcmp(type, TYPE_B) == 0;
    append_text(&body, multipart ? PART("a") : "a=");
    for (int i = 0; i < size; i += 10) {
        append_text(&body, TEN);
    }
    append_text(&body, multipart ? CLOSE : "");
    for (const struct way *way = ways; way < ways + LENGTH(ways); way++) {
        struct client c = dial(s.port);
        NOTE("%s, %s, %d bytes", way->name, type, size);
        send_head(&c, way, type, body.len);
        net_send(&c, body.ptr, body.len);
        REPLY(&c);
        CHECK_INT(c.status, 200);
        CHECK_MEM(c.body + c.body_len - 2, 2, fits ? "OK" : "IG", 2);
        hang_up(&c);
    }
    release_bytes(&body);
}

static void check_many(int parts, bool fits) {
    struct bytes body = {NULL, 0, 0}, expected = {NULL, 0, 0};
    for (int i = 0; i < parts; i++) {
        append_text(&body, "&a");
        if (fits) append_text(&expected, "(a);");
    }
    append_text(&expected, fits ? "OK" : "TOOBIG");
    check_form(FORM_URL, view_of_bytes(&body), expected.ptr);
    release_bytes(&body);
    release_bytes(&expected);
}

// 65536 bytes of memory and 64 parts, if nothing else is said.
TEST(form_default_limits) {
    serve_forms(on_form);
    check_much(FORM_URL, 65000, true);
    check_much(FORM_URL, 66000, false);
    check_much(TYPE_B, 65000, true);
    check_much(TYPE_B, 66000, false);
    check_many(64, true);
    check_many(65, false);
    finish(&s);
}

// Views of a form, and the memory behind them, last as long as the request, whatever else is allocated.
static void on_form_and_memory(httpsrv_req *req, void *user) {
    struct bytes out = {NULL, 0, 0};
    httpsrv_form_data form;
    (void)user;
    CHECK_INT(httpsrv_read_form(req, NULL, &form), HTTPSRV_OK);
    for (size_t i = 0; i < 50; i++) {
        char *block = (char *)httpsrv_alloc(req, 1 + i * 100);
        CHECK(block != NULL);
        memset(block, 0xee, 1 + i * 100);
    }
    add_form(&out, &form);
    answer(req, &out);
    release_bytes(&out);
}

TEST(form_lasts) {
    serve_forms(on_form_and_memory);
    check_form(FORM_URL, HTTPSRV_STR("a=1&b=%32&c=" SEVENTY), "(a)1;(b)2;(c)" SEVENTY ";");
    check_form(TYPE_B, HTTPSRV_STR(PART("a") "1\r\n" PART("b; filename=f") SEVENTY CLOSE), "(a)1;(b|f)" SEVENTY ";");
    finish(&s);
}

// ---- no memory ----

static _Thread_local int grants = -1; // allocations that this thread gets before one fails; negative: all
static int grants_at_once;            // what a handler gets; atomic

static void *granting_realloc(void *user, void *ptr, size_t old_size, size_t new_size) {
    if (new_size > 0 && grants >= 0 && grants-- == 0) return NULL;
    return counting_realloc(user, ptr, old_size, new_size);
}

static void on_form_without_memory(httpsrv_req *req, void *user) {
    httpsrv_form_data form;
    (void)user;
    grants = LOAD(grants_at_once);
    httpsrv_result result = httpsrv_read_form(req, LOAD(form_config), &form);
    grants = -1;
    CHECK(result == HTTPSRV_OK || result == HTTPSRV_NOMEM);
    if (result == HTTPSRV_OK) CHECK_INT(form.num_parts, 3);
    for (int i = 0; result == HTTPSRV_OK && i < 3; i++) {
        CHECK(form.parts[i].name.ptr && form.parts[i].data.ptr);
    }
    httpsrv_reply(req, 200, NULL, view_of(result_name(result)));
}

static void check_without_memory(const struct way *way, const char *type, httpsrv_str body) {
    bool enough = false;
    for (int n = 0; !enough; n++) {
        struct client c = dial(s.port);
        CHECK_CMP(n, <, 100);
        NOTE("%s, %s, %d allocations", way->name, type, n);
        STORE(grants_at_once, n);
        send_head(&c, way, type, body.len);
        net_send(&c, body.ptr, body.len);
        REPLY(&c);
        enough = c.body_len == 2;
        CHECK_MEM(c.body, c.body_len, enough ? "OK" : "NOMEM", enough ? 2 : 5);
        hang_up(&c);
    }
}

// Each allocation fails in turn; finish finds what was left behind.
TEST(form_without_memory) {
    struct bytes body = {NULL, 0, 0};
    append_text(&body, PART("a") "1\r\n--b\r\n" CD);
    for (int i = 0; i < 20; i++) {
        append_text(&body, SEVENTY); // a name that takes an allocation of its own
    }
    append_text(&body, "\r\n\r\n" SEVENTY "\r\n" PART("f; filename=x"));
    for (int i = 0; i < 1000; i++) {
        append_text(&body, TEN);
    }
    append_text(&body, CLOSE);
    prepare(&s, &(httpsrv_config){.allocator = {.fn = granting_realloc, .user = &s},
                                  .pools = {{.name = "default", .threads = 2}}});
    route_ways("", on_form_without_memory, 0);
    STORE(form_config, NULL);
    go(&s);
    for (const struct way *way = ways; way < ways + LENGTH(ways); way++) {
        check_without_memory(way, TYPE_B, view_of_bytes(&body));
        check_without_memory(way, FORM_URL, HTTPSRV_STR("a=1&b=%32&c=" SEVENTY SEVENTY SEVENTY));
    }
    finish(&s);
    release_bytes(&body);
}

// ---- a body that is read already ----

static void on_read_and_form(httpsrv_req *req, void *user) {
    char first;
    httpsrv_form_data form;
    (void)user;
    CHECK_INT(httpsrv_read(req, &first, 1), 1);
    httpsrv_result result = httpsrv_read_form(req, NULL, &form);
    CHECK(!httpsrv_form_field(req, "a").ptr);
    httpsrv_reply(req, 200, NULL, view_of(result_name(result)));
}

TEST(form_of_which_a_part_was_read) {
    static const char *const types[] = {FORM_URL, TYPE_B};
    serve_forms(on_read_and_form);
    for (size_t i = 0; i < LENGTH(types); i++) {
        struct client c = dial(s.port);
        NOTE("%s", types[i]);
        send_head(&c, &ways[STREAM], types[i], 11);
        SEND(&c, "xa=1&b=2&cd");
        EXPECT(&c, 200, "STATE");
        hang_up(&c);
    }
    finish(&s);
}

// ---- httpsrv_form_field ----

static void add_field_of(struct bytes *out, httpsrv_req *req, const char *name) {
    httpsrv_str value = httpsrv_form_field(req, name);
    append_text(out, "[");
    if (value.ptr)
        add_word(out, value);
    else
        append_text(out, "absent");
    append_text(out, "]");
}

static void on_fields(httpsrv_req *req, void *user) {
    static const char *const names[] = {"a", "b", "A", "", "c d"};
    struct bytes out = {NULL, 0, 0};
    httpsrv_form_data form;
    (void)user;
    for (size_t i = 0; i < 2 * LENGTH(names); i++) {
        add_field_of(&out, req, names[i % LENGTH(names)]); // twice: asking changes nothing
    }
    append_text(&out, result_name(httpsrv_read_form(req, NULL, &form)));
    answer(req, &out);
    release_bytes(&out);
}

#define TWICE(text) text text

TEST(form_field) {
    static const struct limit_case cases[] = {
        {FORM_URL, "a=1&b=&a=2", TWICE("[1][][absent][absent][absent]") "STATE", {.parts = 0}},
        {FORM_URL, "A=1&=2&c+d=%31%00", TWICE("[absent][absent][1][2][1\\0]") "STATE", {.parts = 0}},
        {FORM_URL, "aa=1&b", TWICE("[absent][][absent][absent][absent]") "STATE", {.parts = 0}},
        {FORM_URL, "a=1&b=%zz", TWICE("[absent][absent][absent][absent][absent]") "STATE", {.parts = 0}},
        {TYPE_B,
         PART("b; filename=f") "2\r\n" PART("a") "1" CLOSE,
         TWICE("[1][2][absent][absent][absent]") "STATE",
         {.parts = 0}},
        {"text/plain", "a=1", TWICE("[absent][absent][absent][absent][absent]") "STATE", {.parts = 0}},
    };
    serve_forms(on_fields);
    for (size_t i = 0; i < LENGTH(cases); i++) {
        check_form(cases[i].type, view_of(cases[i].body), cases[i].expected);
    }
    finish(&s);
}

// What was read with a configuration is what fields are taken from.
static void on_form_then_fields(httpsrv_req *req, void *user) {
    const httpsrv_form_config config = {.memory = 1 << 20};
    struct bytes out = {NULL, 0, 0};
    httpsrv_form_data form;
    (void)user;
    CHECK_INT(httpsrv_read_form(req, &config, &form), HTTPSRV_OK);
    add_field_of(&out, req, "a");
    add_field_of(&out, req, "z");
    answer(req, &out);
    release_bytes(&out);
}

TEST(form_field_after_reading) {
    serve_forms(on_form_then_fields);
    check_form(FORM_URL, HTTPSRV_STR("a=1"), "[1][absent]");
    check_form(TYPE_B, HTTPSRV_STR(PART("a") "1" CLOSE), "[1][absent]");
    finish(&s);
}

// ---- on_part ----

static void on_form_by_parts(httpsrv_req *req, void *user) {
    struct reading *r = (struct reading *)LOAD(form_config)->user;
    httpsrv_form_data form;
    (void)user;
    httpsrv_result result = httpsrv_read_form(req, LOAD(form_config), &form);
    conclude(r, result);
    answer(req, &r->out);
    COUNT(form_seen);
}

TEST(form_by_call_back) {
    static const char body[] = PART("a") "12\r\n" PART("f; filename=x\r\nContent-Type: t/u") SEVENTY CLOSE;
    int seen = 0;
    serve_forms(on_form_by_parts);
    for (size_t i = 0; i < LENGTH(ways) * 6; i++) {
        struct reading r;
        const httpsrv_form_config config = {.on_part = take_part, .user = &r};
        struct client c = dial(s.port);
        memset(&r, 0, sizeof r);
        r.refused_at = (int)(i % 6) == 5 ? 3 : 0;
        r.refusal = HTTPSRV_FULL;
        append(&r.out, "", 0);
        STORE(form_config, &config);
        NOTE("%s, refused at %d", ways[i / 6].name, r.refused_at);
        send_head(&c, &ways[i / 6], TYPE_B, sizeof body - 1);
        net_send_split(&c, body, sizeof body - 1, i % 6 ? 5 * (i % 6) : sizeof body);
        REPLY(&c);
        if (!r.refused_at) CHECK_MEM(c.body, c.body_len, "(a)12;(f|x|t/u)" SEVENTY ";OK", 15 + 70 + 3);
        if (r.refused_at) CHECK_MEM(c.body + c.body_len - 4, 4, "FULL", 4);
        hang_up(&c);
        seen++;
        WAIT(LOAD(form_seen) == seen); // the handler has done with `r`
        release_bytes(&r.out);
    }
    finish(&s);
}

// Of a urlencoded body as well; empty values have no data.
TEST(form_by_call_back_urlencoded) {
    int seen = 0;
    serve_forms(on_form_by_parts);
    for (const struct way *way = ways; way < ways + LENGTH(ways); way++) {
        struct reading r;
        const httpsrv_form_config config = {.on_part = take_part, .user = &r};
        struct client c = dial(s.port);
        memset(&r, 0, sizeof r);
        append(&r.out, "", 0);
        STORE(form_config, &config);
        NOTE("%s", way->name);
        send_head(&c, way, FORM_URL, 11);
        SEND(&c, "a=1&b+=%32&");
        expect_form(&c, "(a)1;(b )2;OK");
        hang_up(&c);
        seen++;
        WAIT(LOAD(form_seen) == seen); // the handler has done with `r`
        release_bytes(&r.out);
    }
    finish(&s);
}

// ---- spooling ----

static char spool_dir[64];

static void make_spool(void) {
    snprintf(spool_dir, sizeof spool_dir, "/tmp/httpsrv-forms.XXXXXX");
    CHECK(mkdtemp(spool_dir) != NULL);
}

static void remove_spool(void) {
    CHECK_INT(test_entries(spool_dir), 0);
    CHECK_INT(rmdir(spool_dir), 0);
}

// A file without a name, for nobody but this process, that stands at its begin.
static void check_spool_file(const httpsrv_part *part) {
    struct stat st;
    CHECK_CMP(part->fd, >, 2);
    CHECK(!part->data.ptr);
    CHECK_INT(fstat(part->fd, &st), 0);
    CHECK(S_ISREG(st.st_mode));
    CHECK_INT(st.st_mode & 077, 0);
    CHECK_INT(st.st_nlink, 0);
    CHECK_INT(st.st_size, part->size);
    CHECK_INT(fcntl(part->fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    CHECK_INT(lseek(part->fd, 0, SEEK_CUR), 0);
    CHECK_INT(test_entries(spool_dir), 0);
}

static void add_spooled(struct bytes *out, const httpsrv_part *part) {
    char block[4096];
    check_spool_file(part);
    for (ssize_t n; (n = read(part->fd, block, sizeof block)) > 0;) {
        httpsrv_str piece = {block, (size_t)n};
        add_word(out, piece);
    }
}

// Files are in files, fields in memory.
static void on_spool(httpsrv_req *req, void *user) {
    struct bytes out = {NULL, 0, 0};
    httpsrv_form_data form;
    httpsrv_result result = httpsrv_read_form(req, LOAD(form_config), &form);
    (void)user;
    append(&out, "", 0);
    for (int i = 0; result == HTTPSRV_OK && i < form.num_parts; i++) {
        const httpsrv_part *part = &form.parts[i];
        add_head(&out, part);
        CHECK_INT(part->filename.ptr != NULL && part->size > 0, part->fd >= 0); // nothing needs no file
        if (part->fd >= 0) add_spooled(&out, part);
        if (part->fd < 0) add_word(&out, part->data);
        append_text(&out, ";");
    }
    append_text(&out, result_name(result));
    answer(req, &out);
    release_bytes(&out);
    COUNT(form_seen);
}

TEST(form_spooled) {
    static const struct body_case cases[] = {
        {"",
         TEXT(PART("a") "1\r\n" PART("f; filename=x\r\nContent-Type: t/u") SEVENTY "\r\n" PART("g; filename=\"\"")
                  CLOSE),
         "(a)1;(f|x|t/u)" SEVENTY ";(g|);OK"},
        {"", TEXT(PART("f; filename=x") "1\r\n" PART("f; filename=x") "2" CLOSE), "(f|x)1;(f|x)2;OK"},
        {"", TEXT(PART("f; filename=x") "1\r\n" PART("f; filename=x") "2"), "SYNTAX"},
        {"", TEXT(PART("f; filename=x") "1\r\n" PART("f; filename=x") "2\r\n--b-x"), "SYNTAX"},
    };
    make_spool();
    serve_forms(on_spool);
    const httpsrv_form_config config = {.spool = spool_dir};
    STORE(form_config, &config);
    check_alive(&s);
    WAIT(metrics(&s).connections == 0);
    int before = test_descriptors();
    for (size_t i = 0; i < LENGTH(cases); i++) {
        check_form(TYPE_B, cases[i].body, cases[i].expected);
        NOTE("descriptors after case %zu", i);
        WAIT(metrics(&s).connections == 0);
        CHECK_INT(test_descriptors(), before);
    }
    finish(&s);
    remove_spool();
}

// They are closed with the request and not with the connection.
TEST(form_spooled_ends_with_the_request) {
    static const char body[] = PART("f; filename=x") "1\r\n" PART("g; filename=y") "2" CLOSE;
    make_spool();
    serve_forms(on_spool);
    const httpsrv_form_config config = {.spool = spool_dir};
    STORE(form_config, &config);
    for (const struct way *way = ways; way < ways + LENGTH(ways); way++) {
        struct client c = dial(s.port);
        NOTE("%s", way->name);
        GET(&c, "/hello");
        EXPECT(&c, 200, "Hello, World!\n");
        int before = test_descriptors();
        for (int i = 0; i < 20; i++) {
            send_head(&c, way, TYPE_B, sizeof body - 1);
            net_send(&c, body, sizeof body - 1);
            expect_form(&c, "(f|x)1;(g|y)2;OK");
        }
        WAIT(test_descriptors() == before);
        hang_up(&c);
        WAIT(metrics(&s).connections == 0);
    }
    finish(&s);
    remove_spool();
}

// Handlers that come later still have the form, and its files.
static void on_form_later(httpsrv_req *req, void *user) {
    struct bytes out = {NULL, 0, 0};
    httpsrv_form_data *form = (httpsrv_form_data *)user;
    CHECK(req != NULL);
    CHECK_INT(form->num_parts, 2);
    add_head(&out, &form->parts[0]);
    add_word(&out, form->parts[0].data);
    add_head(&out, &form->parts[1]);
    add_spooled(&out, &form->parts[1]);
    add_field_of(&out, req, "a");
    answer(req, &out);
    release_bytes(&out);
    free(form);
}

static void on_form_deferred(httpsrv_req *req, void *user) {
    httpsrv_form_data *form = (httpsrv_form_data *)malloc(sizeof *form);
    (void)user;
    CHECK(form != NULL);
    CHECK_INT(httpsrv_read_form(req, LOAD(form_config), form), HTTPSRV_OK);
    httpsrv_token token = httpsrv_defer(req);
    CHECK_INT(httpsrv_post(s.srv, token, on_form_later, form), HTTPSRV_OK);
}

TEST(form_lasts_until_the_request_ends) {
    make_spool();
    serve_forms(on_form_deferred);
    const httpsrv_form_config config = {.spool = spool_dir};
    STORE(form_config, &config);
    check_form(TYPE_B, HTTPSRV_STR(PART("a") "1\r\n" PART("f; filename=x") SEVENTY CLOSE), "(a)1(f|x)" SEVENTY "[1]");
    finish(&s);
    remove_spool();
}

// Limits on memory are none on files; limits on parts are.
TEST(form_spooled_limits) {
    struct bytes body = {NULL, 0, 0};
    append_text(&body, PART("f; filename=x"));
    for (int i = 0; i < 20000; i++) {
        append_text(&body, TEN);
    }
    append_text(&body, CLOSE);
    make_spool();
    serve_forms(on_spool);
    const httpsrv_form_config tight = {.memory = 1000, .spool = spool_dir},
                              small = {.size = 199999, .spool = spool_dir},
                              exact = {.size = 200000, .memory = 1000, .spool = spool_dir};
    const httpsrv_form_config *configs[] = {&tight, &small, &exact};
    for (size_t i = 0; i < LENGTH(configs) * LENGTH(ways); i++) {
        struct client c = dial(s.port);
        bool fits = i % LENGTH(configs) != 1;
        NOTE("%s, configuration %zu", ways[i / LENGTH(configs)].name, i % LENGTH(configs));
        STORE(form_config, configs[i % LENGTH(configs)]);
        send_head(&c, &ways[i / LENGTH(configs)], TYPE_B, body.len);
        net_send(&c, body.ptr, body.len);
        REPLY(&c);
        CHECK_INT(c.status, 200);
        if (fits) CHECK_INT(c.body_len, strlen("(f|x);OK") + 200000);
        if (!fits) CHECK_MEM(c.body, c.body_len, "TOOBIG", 6);
        hang_up(&c);
    }
    finish(&s);
    remove_spool();
    release_bytes(&body);
}

TEST(form_spool_missing) {
    const httpsrv_form_config config = {.spool = "/nonexistent/httpsrv-forms"};
    serve_forms(on_spool);
    STORE(form_config, &config);
    check_form(TYPE_B, HTTPSRV_STR(PART("f; filename=x") "1" CLOSE), "SYS");
    check_form(TYPE_B, HTTPSRV_STR(PART("a") "1" CLOSE), "(a)1;OK"); // there is no file to be spooled
    finish(&s);
}

// Files that cannot grow, as on a full disk.
TEST(form_spool_full) {
    static const char body[] = PART("f; filename=x") SEVENTY SEVENTY "\r\n" PART("g; filename=x") "1" CLOSE;
    const struct rlimit limit = {100, 100};
    make_spool();
    serve_forms(on_spool);
    const httpsrv_form_config config = {.spool = spool_dir};
    STORE(form_config, &config);
    signal(SIGXFSZ, SIG_IGN);
    int before = test_descriptors();
    CHECK_INT(setrlimit(RLIMIT_FSIZE, &limit), 0);
    check_form(TYPE_B, view_of(body), "SYS");
    WAIT(metrics(&s).connections == 0);
    CHECK_INT(test_descriptors(), before);
    finish(&s);
    remove_spool();
}

// A client that leaves in the middle of its form: the handler is told, and nothing stays behind.
static void on_form_gone(httpsrv_req *req, void *user) {
    httpsrv_form_data form;
    (void)user;
    COUNT(s.arrived);
    CHECK_INT(httpsrv_read_form(req, LOAD(form_config), &form), HTTPSRV_GONE);
    httpsrv_reply(req, 200, NULL, HTTPSRV_STR(""));
    COUNT(form_seen);
}

TEST(form_of_a_client_that_leaves) {
    make_spool();
    serve_forms(on_form_gone);
    const httpsrv_form_config config = {.spool = spool_dir};
    STORE(form_config, &config);
    int before = test_descriptors();
    for (int i = 0; i < 6; i++) {
        struct client c = dial(s.port);
        NOTE("round %d", i);
        send_head(&c, &ways[STREAM], TYPE_B, 100000);
        SEND(&c, i % 2 ? PART("f; filename=x") "12345" : PART("f; filename=x") "1\r\n" PART("g; filename=x") "2");
        WAIT(LOAD(s.arrived) == i + 1);
        if (i > 1) test_sleep(20); // it has begun to read
        if (i % 3 == 2)
            net_reset(&c);
        else
            hang_up(&c);
        WAIT(LOAD(form_seen) == i + 1);
    }
    WAIT(metrics(&s).connections == 0);
    WAIT(test_descriptors() == before);
    finish(&s);
    remove_spool();
}

#define LARGE_BYTES (16 << 20)

// Sums up, so that nothing of a large file has to be in memory.
static void on_large(httpsrv_req *req, void *user) {
    char block[4096];
    httpsrv_form_data form;
    uint64_t sum = 0, size = 0;
    (void)user;
    CHECK_INT(httpsrv_read_form(req, LOAD(form_config), &form), HTTPSRV_OK);
    CHECK_INT(form.num_parts, 1);
    check_spool_file(&form.parts[0]);
    for (ssize_t n; (n = read(form.parts[0].fd, block, sizeof block)) > 0; size += (size_t)n) {
        for (ssize_t i = 0; i < n; i++) {
            sum += (unsigned char)block[i];
        }
    }
    httpsrv_replyf(req, 200, NULL, "%" PRIu64 " bytes, sum %" PRIu64, size, sum);
}

// A file of 16 MB, in memory that is fixed.
TEST(form_of_any_size_in_fixed_memory) {
    uint64_t sum = 0;
    char expected[100];
    make_spool();
    serve_forms(on_large);
    const httpsrv_form_config config = {.spool = spool_dir};
    STORE(form_config, &config);
    check_alive(&s);
    size_t idle = LOAD(s.bytes);
    struct client c = dial(s.port);
    send_head(&c, &ways[STREAM], TYPE_B, strlen(PART("f; filename=x") CLOSE) + LARGE_BYTES);
    SEND(&c, PART("f; filename=x"));
    for (int sent = 0; sent < LARGE_BYTES; sent += 65536) {
        net_send(&c, blob + (sent / 65536) * 1000, 65536);
        for (int i = 0; i < 65536; i++) {
            sum += (unsigned char)blob[(sent / 65536) * 1000 + i];
        }
    }
    SEND(&c, CLOSE);
    snprintf(expected, sizeof expected, "%d bytes, sum %" PRIu64, LARGE_BYTES, sum);
    EXPECT(&c, 200, expected);
    CHECK_CMP(LOAD(s.peak) - idle, <, 2 << 20);
    hang_up(&c);
    finish(&s);
    remove_spool();
}

// ---- cookies ----

struct cookie_case {
    const char *fields; // of the request
    const char *name;
    const char *value; // NULL: absent
};

static const struct cookie_case cookie_cases[] = {
    {"", "a", NULL},
    {"Cookie: a=1\r\n", "a", "1"},
    {"cookie: a=1\r\n", "a", "1"},
    {"Cookie: a=1; b=2\r\n", "b", "2"},
    {"Cookie: a=1; b=2; c=3\r\n", "c", "3"},
    {"Cookie: a=1\r\nCookie: b=2\r\n", "a", "1"},
    {"Cookie: a=1\r\nX: y\r\nCookie: b=2\r\n", "b", "2"},
    {"Cookie: a=1; a=2\r\n", "a", "1"}, // the first
    {"Cookie: a=1\r\nCookie: a=2\r\n", "a", "1"},
    {"Cookie: b=0\r\nCookie: c=0; a=1; a=2\r\nCookie: a=3\r\n", "a", "1"},
    {"Cookie: a=\r\n", "a", ""},
    {"Cookie: a=; b=2\r\n", "a", ""},
    {"Cookie: a=; a=2\r\n", "a", ""},
    {"Cookie: a=1;b=2\r\n", "b", "2"}, // odd spaces
    {"Cookie: a=1;   b=2\r\n", "b", "2"},
    {"Cookie: a=1 ; b=2 \r\n", "a", "1"},
    {"Cookie: a=1 ;\t b=2\t;c=3\r\n", "b", "2"},
    {"Cookie:   a=1\r\n", "a", "1"},
    {"Cookie: a=1;\r\n", "a", "1"},
    {"Cookie: ;; a=1;;\r\n", "a", "1"},
    {"Cookie: a=1 2\r\n", "a", "1 2"},
    {"Cookie: a=\"1\"\r\n", "a", "1"}, // quotes
    {"Cookie: a=\"\"\r\n", "a", ""},
    {"Cookie: a=\"\r\n", "a", "\""},
    {"Cookie: a=\"1\r\n", "a", "\"1"},
    {"Cookie: a=1\"\r\n", "a", "1\""},
    {"Cookie: a=\"\"1\"\"\r\n", "a", "\"1\""},
    {"Cookie: a=\"1; b=2\"\r\n", "a", "\"1"}, // a semicolon ends a pair even there
    {"Cookie: a=\"1; b=2\"\r\n", "b", "2\""},
    {"Cookie: a=b=c\r\n", "a", "b=c"},
    {"Cookie: a==\r\n", "a", "="},
    {"Cookie: a=%41+\r\n", "a", "%41+"}, // not decoded
    {"Cookie: a=\xc3\xa4\r\n", "a", "\xc3\xa4"},
    {"Cookie: a=1, b=2\r\n", "a", "1, b=2"}, // a comma separates nothing
    {"Cookie: a=1, b=2\r\n", "b", NULL},
    {"Cookie: aa=1\r\n", "a", NULL}, // names that begin or end alike
    {"Cookie: a=1\r\n", "aa", NULL},
    {"Cookie: aa=1; ab=2; ba=3; a=4\r\n", "a", "4"},
    {"Cookie: xa=1\r\n", "a", NULL},
    {"Cookie: A=1\r\n", "a", NULL},
    {"Cookie: b=a=1\r\n", "a", NULL},
    {"Cookie: b=\"; a=1\"\r\n", "a", "1\""},
    {"Cookie: a\r\n", "a", NULL}, // no pair
    {"Cookie: a; a=1\r\n", "a", "1"},
    {"Cookie: =a; a=1\r\n", "a", "1"},
    {"Cookie: =1\r\n", "", NULL},
    {"Cookie: __Host-a=1\r\n", "a", NULL},
    {"Cookie: a=1; __Host-a=2\r\n", "__Host-a", "2"},
    {"X-Cookie: a=1\r\nCookies: a=2\r\n", "a", NULL},
};

static void on_cookie(httpsrv_req *req, void *user) {
    const struct cookie_case *cookie = &cookie_cases[number_param(req, "n")];
    struct bytes out = {NULL, 0, 0};
    (void)user;
    httpsrv_str value = httpsrv_cookie(req, cookie->name);
    append_text(&out, value.ptr ? "=" : "absent");
    append_view(&out, value);
    answer(req, &out);
    release_bytes(&out);
}

TEST(cookies) {
    prepare(&s, &(httpsrv_config){.reactors = 1});
    CHECK_INT(httpsrv_on(s.srv, "GET /:n", on_cookie, &s), HTTPSRV_OK);
    go(&s);
    struct client c = dial(s.port);
    for (size_t i = 0; i < LENGTH(cookie_cases); i++) {
        const struct cookie_case *cookie = &cookie_cases[i];
        char expected[64];
        snprintf(expected, sizeof expected, "%s%s", cookie->value ? "=" : "absent", cookie->value ? cookie->value : "");
        NOTE("%s in %s", cookie->name, cookie->fields);
        SENDF(&c, "GET /%zu HTTP/1.1\r\nHost: a\r\n%s\r\n", i, cookie->fields);
        EXPECT(&c, 200, expected);
    }
    hang_up(&c);
    finish(&s);
}

// ---- Set-Cookie ----

struct set_cookie_case {
    httpsrv_cookie_config cookie;
    const char *field; // NULL: refused
};

#define EPOCH "Thu, 01 Jan 1970 00:00:00 GMT"
#define V     TEXT("v")

static const struct set_cookie_case set_cookie_cases[] = {
    {{.name = "a", .value = V}, "a=v"},
    {{.name = "a", .value = TEXT("")}, "a="},
    {{.name = "a"}, "a="},
    {{.name = "a", .value = TEXT("\"v\"")}, "a=\"v\""},
    {{.name = "a", .value = TEXT("\"\"")}, "a=\"\""},
    {{.name = "a!#$%&'*+-.^_`|~", .value = TEXT("!#$%&'()*+-./:<=>?@[]^_`{|}~")},
     "a!#$%&'*+-.^_`|~=!#$%&'()*+-./:<=>?@[]^_`{|}~"},
    {{.name = "a", .value = V, .path = "/"}, "a=v; Path=/"},
    {{.name = "a", .value = V, .path = "/x y/%20,\"z\""}, "a=v; Path=/x y/%20,\"z\""},
    {{.name = "a", .value = V, .domain = "example.org"}, "a=v; Domain=example.org"},
    {{.name = "a", .value = V, .max_age = 1}, "a=v; Max-Age=1"},
    {{.name = "a", .value = V, .max_age = 34560000}, "a=v; Max-Age=34560000"},
    {{.name = "a", .value = V, .max_age = INT64_MAX}, "a=v; Max-Age=9223372036854775807"},
    {{.name = "a", .max_age = -1}, "a=; Max-Age=0; Expires=" EPOCH},
    {{.name = "a", .value = V, .max_age = INT64_MIN}, "a=v; Max-Age=0; Expires=" EPOCH},
    {{.name = "a", .value = V, .secure = true}, "a=v; Secure"},
    {{.name = "a", .value = V, .http_only = true}, "a=v; HttpOnly"},
    {{.name = "a", .value = V, .same_site = "Strict"}, "a=v; SameSite=Strict"},
    {{.name = "a", .value = V, .same_site = "Lax"}, "a=v; SameSite=Lax"},
    {{.name = "a", .value = V, .same_site = "None", .secure = true}, "a=v; Secure; SameSite=None"},
    {{"a", V, "/p", "d.org", 5, true, true, "Lax"},
     "a=v; Path=/p; Domain=d.org; Max-Age=5; Secure; HttpOnly; SameSite=Lax"},
    {{.name = "__Secure-a", .value = V, .secure = true}, "__Secure-a=v; Secure"},
    {{.name = "__Host-a", .value = V, .path = "/", .secure = true}, "__Host-a=v; Path=/; Secure"},
    {{.name = "x__Host-a", .value = V}, "x__Host-a=v"},
    {{.name = "__Hosta", .value = V}, "__Hosta=v"},
    // refused: names
    {{.name = NULL, .value = V}, NULL},
    {{.name = "", .value = V}, NULL},
    {{.name = "a b", .value = V}, NULL},
    {{.name = "a=", .value = V}, NULL},
    {{.name = "a;", .value = V}, NULL},
    {{.name = "a\"", .value = V}, NULL},
    {{.name = "a\r\nX: y", .value = V}, NULL},
    {{.name = "\xc3\xa4", .value = V}, NULL},
    // values
    {{.name = "a", .value = TEXT("v w")}, NULL},
    {{.name = "a", .value = TEXT(" v")}, NULL},
    {{.name = "a", .value = TEXT("v;")}, NULL},
    {{.name = "a", .value = TEXT("v,w")}, NULL},
    {{.name = "a", .value = TEXT("v\\w")}, NULL},
    {{.name = "a", .value = TEXT("v\"w")}, NULL},
    {{.name = "a", .value = TEXT("\"")}, NULL},
    {{.name = "a", .value = TEXT("\"v")}, NULL},
    {{.name = "a", .value = TEXT("v\"")}, NULL},
    {{.name = "a", .value = TEXT("\"v\"w\"")}, NULL},
    {{.name = "a", .value = TEXT("\"v w\"")}, NULL},
    {{.name = "a", .value = TEXT("v\r\nX: y")}, NULL},
    {{.name = "a", .value = TEXT("v\n")}, NULL},
    {{.name = "a", .value = TEXT("v\0")}, NULL},
    {{.name = "a", .value = TEXT("v\t")}, NULL},
    {{.name = "a", .value = TEXT("v\x7f")}, NULL},
    {{.name = "a", .value = TEXT("\xc3\xa4")}, NULL},
    // paths and domains
    {{.name = "a", .value = V, .path = "/;"}, NULL},
    {{.name = "a", .value = V, .path = "/\r\nX: y"}, NULL},
    {{.name = "a", .value = V, .path = "/\x7f"}, NULL},
    {{.name = "a", .value = V, .path = "/\t"}, NULL},
    {{.name = "a", .value = V, .path = "x"}, NULL},
    {{.name = "a", .value = V, .domain = "d;"}, NULL},
    {{.name = "a", .value = V, .domain = "d e"}, NULL},
    {{.name = "a", .value = V, .domain = "d\r\n"}, NULL},
    {{.name = "a", .value = V, .domain = "d/e"}, NULL},
    {{.name = "a", .value = V, .domain = "\xc3\xa4"}, NULL},
    {{.name = "a", .value = V, .domain = ""}, NULL},
    // same_site
    {{.name = "a", .value = V, .same_site = "None"}, NULL},
    {{.name = "a", .value = V, .same_site = ""}, NULL},
    {{.name = "a", .value = V, .same_site = "Laxer"}, NULL},
    {{.name = "a", .value = V, .same_site = "Lax; X"}, NULL},
    // prefixes, RFC 6265bis section 4.1.3
    {{.name = "__Secure-a", .value = V}, NULL},
    {{.name = "__Host-a", .value = V}, NULL},
    {{.name = "__Host-a", .value = V, .path = "/"}, NULL},
    {{.name = "__Host-a", .value = V, .secure = true}, NULL},
    {{.name = "__Host-a", .value = V, .path = "/x", .secure = true}, NULL},
    {{.name = "__Host-a", .value = V, .path = "/", .domain = "d.org", .secure = true}, NULL},
    {{.name = "__secure-a", .value = V}, NULL},
    {{.name = "__HOST-a", .value = V, .secure = true}, NULL},
};

static void on_set_cookie(httpsrv_req *req, void *user) {
    const struct set_cookie_case *c = &set_cookie_cases[number_param(req, "n")];
    (void)user;
    CHECK_INT(httpsrv_set_cookie(req, &c->cookie), c->field ? HTTPSRV_OK : HTTPSRV_ARG);
    CHECK_INT(httpsrv_reply(req, 200, NULL, HTTPSRV_STR("")), HTTPSRV_OK);
    CHECK_INT(httpsrv_set_cookie(req, &set_cookie_cases[0].cookie), HTTPSRV_STATE);
}

static void on_several_cookies(httpsrv_req *req, void *user) {
    const httpsrv_cookie_config a = {.name = "a", .value = V}, b = {.name = "b", .max_age = -1};
    (void)user;
    CHECK_INT(httpsrv_set_cookie(req, &a), HTTPSRV_OK);
    CHECK_INT(httpsrv_set_cookie(req, &b), HTTPSRV_OK);
    CHECK_INT(httpsrv_redirect(req, 303, "/next"), HTTPSRV_OK);
}

static void open_set_cookie(void) {
    prepare(&s, &(httpsrv_config){.reactors = 1});
    CHECK_INT(httpsrv_on(s.srv, "GET /set/:n", on_set_cookie, &s), HTTPSRV_OK);
    CHECK_INT(httpsrv_on(s.srv, "GET /several", on_several_cookies, &s), HTTPSRV_OK);
    go(&s);
}

TEST(set_cookie) {
    open_set_cookie();
    struct client c = dial(s.port);
    for (size_t i = 0; i < LENGTH(set_cookie_cases); i++) {
        const struct set_cookie_case *row = &set_cookie_cases[i];
        NOTE("row %zu, %s: %s", i, row->cookie.name ? row->cookie.name : "(null)", row->field ? row->field : "refused");
        SENDF(&c, "GET /set/%zu HTTP/1.1\r\nHost: a\r\n\r\n", i);
        EXPECT(&c, 200, "");
        CHECK_STR(field(&c, "Set-Cookie"), row->field);
    }
    hang_up(&c);
    finish(&s);
}

// Each has a field of its own, which a redirect does not lose.
TEST(set_cookie_several) {
    open_set_cookie();
    struct client c = ASK(&s, "GET /several HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK_INT(c.status, 303);
    CHECK_STR(field(&c, "Location"), "/next");
    CHECK_INT(count_fields(&c, "Set-Cookie"), 2);
    CHECK_STR(field(&c, "Set-Cookie"), "a=v");
    hang_up(&c);
    finish(&s);
}

// ---- redirects ----

struct redirect_case {
    int status;
    const char *location;
    bool taken;
};

static const struct redirect_case redirect_cases[] = {
    {301, "/there", true},
    {302, "/there", true},
    {303, "/there", true},
    {307, "/there", true},
    {308, "/there", true},
    {302, "https://user@example.org:8443/a/b;c=d,e?f=g&h='i'#j(k)*+!$~_-.", true},
    {302, "//[2001:db8::1]/", true},
    {302, "../a?b", true},
    {302, "?a=b", true},
    {302, "#f", true},
    {302, "/%41%c3%A4%00", true},
    {300, "/there", false},
    {304, "/there", false},
    {305, "/there", false},
    {306, "/there", false},
    {309, "/there", false},
    {200, "/there", false},
    {404, "/there", false},
    {0, "/there", false},
    {-302, "/there", false},
    {302, NULL, false},
    {302, "/a b", false},
    {302, "/a\r\nX: y", false},
    {302, "/a\n", false},
    {302, "/a\r", false},
    {302, "/a\t", false},
    {302, "/a\x7f", false},
    {302, "/a\x01", false},
    {302, "/\xc3\xa4", false},
    {302, "/\"", false},
    {302, "/<a>", false},
    {302, "/a\\b", false},
    {302, "\\\\example.org", false},
    {302, "/^", false},
    {302, "/`", false},
    {302, "/{a}", false},
    {302, "/a|b", false},
    {302, "/%", false},
    {302, "/%4", false},
    {302, "/%4g", false},
    {302, "/a%zz", false},
    {302, "/?%u0041", false},
    {302, "/#%2", false},
};

static void on_redirect(httpsrv_req *req, void *user) {
    const struct redirect_case *c = &redirect_cases[number_param(req, "n")];
    (void)user;
    CHECK_INT(httpsrv_redirect(req, c->status, c->location), c->taken ? HTTPSRV_OK : HTTPSRV_ARG);
    if (!c->taken) CHECK_INT(httpsrv_reply(req, 200, NULL, HTTPSRV_STR("refused")), HTTPSRV_OK);
    CHECK_INT(httpsrv_redirect(req, 302, "/late"), HTTPSRV_STATE);
}

static void check_redirect(struct client *c, const struct redirect_case *row) {
    CHECK_INT(c->status, row->taken ? row->status : 200);
    CHECK_STR(field(c, "Location"), row->taken ? row->location : NULL);
    CHECK_INT(count_fields(c, "Location"), row->taken);
    CHECK_CMP(c->length, >=, 0); // a client need not wait for the end of the connection
    CHECK(!c->close);
}

TEST(redirect) {
    prepare(&s, &(httpsrv_config){.reactors = 1});
    CHECK_INT(httpsrv_on(s.srv, "GET /:n", on_redirect, &s), HTTPSRV_OK);
    go(&s);
    struct client c = dial(s.port);
    for (size_t i = 0; i < LENGTH(redirect_cases); i++) {
        const struct redirect_case *row = &redirect_cases[i];
        NOTE("%d %s", row->status, row->location ? row->location : "(null)");
        SENDF(&c, "GET /%zu HTTP/1.1\r\nHost: a\r\n\r\n", i);
        REPLY(&c);
        check_redirect(&c, row);
        if (row->taken) CHECK_INT(c.body_len, c.length);
        SENDF(&c, "HEAD /%zu HTTP/1.1\r\nHost: a\r\n\r\n", i);
        REPLY_HEAD(&c);
        check_redirect(&c, row);
    }
    CHECK_INT(metrics(&s).items[HTTPSRV_LOG_ANSWERED_TWICE], 2 * LENGTH(redirect_cases));
    hang_up(&c);
    finish(&s);
}
