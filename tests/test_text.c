// The text room, function by function: tables of characters, numbers, percent-encoding, paths, authorities, lists, dates.

#include "test.h"
#define HTTPSRV_IMPLEMENTATION
#include "httpsrv.h"
#include "drive.h"

static httpsrv_str view(const char *text) {
    return hsrv_text_of(text);
}

static uint32_t random_state = 0x1234567;

static uint32_t random_below(uint32_t n) { // xorshift: the same numbers in each run
    random_state ^= random_state << 13;
    random_state ^= random_state >> 17;
    random_state ^= random_state << 5;
    return random_state % n;
}

// ---- characters ----

#define ALPHA  "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define DIGITS "0123456789"

struct class_row {
    const char *name;
    unsigned bit;
    const char *members; // ASCII ones
    bool obs_text;
};

TEST(classes_are_those_of_the_grammars) {
    static const struct class_row rows[] = {
        {"token", HSRV_TOKEN, "!#$%&'*+-.^_`|~" DIGITS ALPHA, false},
        {"path", HSRV_PATH, "/:@-._~!$&'()*+,;=" DIGITS ALPHA, false},
        {"name", HSRV_NAME, "%-._~!$&'()*+,;=" DIGITS ALPHA, false},
        {"value", HSRV_VALUE, "\t !\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~" DIGITS ALPHA, true},
        {"digit", HSRV_DIGIT, DIGITS, false},
        {"hexdig", HSRV_HEXDIG, DIGITS "abcdefABCDEF", false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (int byte = 0; byte < 256; byte++) {
            bool member = byte > 127 ? rows[i].obs_text : byte > 0 && strchr(rows[i].members, byte);
            NOTE("class %s, byte %d", rows[i].name, byte);
            CHECK_INT(hsrv_text_is((char)byte, rows[i].bit), member);
        }
}

TEST(all_of_a_class) {
    CHECK(hsrv_text_all(view("GET"), HSRV_TOKEN));
    CHECK(!hsrv_text_all(view(""), HSRV_TOKEN));
    CHECK(!hsrv_text_all(view("G T"), HSRV_TOKEN));
    CHECK(!hsrv_text_all(view("GET "), HSRV_TOKEN));
    CHECK(!hsrv_text_all(hsrv_text_view("G\0T", 3), HSRV_TOKEN));
}

TEST(case_is_folded_in_ascii_only) {
    CHECK(hsrv_text_equal_nocase(view("Content-LENGTH"), view("content-length")));
    CHECK(!hsrv_text_equal_nocase(view("Content_Length"), view("content-length")));
    CHECK(!hsrv_text_equal_nocase(view("abc"), view("abcd")));
    CHECK(hsrv_text_equal_nocase(view(""), view("")));
    for (int a = 0; a < 256; a++)
        for (int b = 0; b < 256; b++) {
            char x = (char)a, y = (char)b;
            bool same = a == b || (a < 128 && b < 128 && strchr(ALPHA, a) && a != 0 && (a ^ b) == 0x20);
            NOTE("bytes %d and %d", a, b);
            CHECK_INT(hsrv_text_equal_nocase(hsrv_text_view(&x, 1), hsrv_text_view(&y, 1)), same);
        }
}

TEST(trimming_takes_spaces_and_tabs) {
    CHECK_VIEW(hsrv_text_trim(view(" \t a b\t \t")), "a b");
    CHECK_VIEW(hsrv_text_trim(view("")), "");
    CHECK_VIEW(hsrv_text_trim(view(" \t")), "");
    CHECK_VIEW(hsrv_text_trim(view("\x0b")), "\x0b");
    CHECK_VIEW(hsrv_text_trim(view("\na\r")), "\na\r");
}

// ---- scanning: each path against the plainest one, up to the edge of what is mapped ----

static const char *plain_value_end(const char *p, const char *end) {
    while (p < end && ((unsigned char)*p >= 0x20 || *p == '\t') && *p != 0x7f)
        p++;
    return p;
}

static void check_value_end(const char *ptr, size_t len) {
    const char *at = moved(ptr, len), *end = at + len, *expected = plain_value_end(at, end);
    CHECK(hsrv_text_value_end(at, end) == expected);
    CHECK(hsrv_text_value_end_words(at, end) == expected);
}

TEST(value_end_for_each_byte_at_each_place) {
    char text[80];
    for (size_t len = 1; len < sizeof text; len += 1 + len / 8)
        for (size_t at = 0; at < len; at++)
            for (int byte = 0; byte < 256; byte++) {
                memset(text, at % 2 ? 'a' : '\t', sizeof text);
                text[at] = (char)byte;
                NOTE("byte %d at %zu of %zu", byte, at, len);
                check_value_end(text, len);
            }
}

TEST(value_end_for_random_bytes) {
    char text[200];
    for (int n = 0; n < 50000; n++) {
        size_t len = random_below(sizeof text);
        for (size_t i = 0; i < len; i++) // mostly good ones, around the borders of the classes
            text[i] = (char)(random_below(20) ? "a\t ~!\x80\x81\xff\xa0\x21"[random_below(10)]
                                              : "\x1f\x7f\r\n\0\x01"[random_below(6)]);
        NOTE("text %d", n);
        check_value_end(text, len);
    }
}

// ---- numbers ----

TEST(numbers_are_digits_that_fit) {
    static const struct {
        const char *text;
        int64_t value;
    } rows[] = {
        {"0", 0},
        {"00", 0},
        {"7", 7},
        {"007", 7},
        {"4294967296", 4294967296},
        {"9223372036854775799", 9223372036854775799},
        {"9223372036854775806", INT64_MAX - 1},
        {"9223372036854775807", INT64_MAX},
        {"00000000000000000000009223372036854775807", INT64_MAX},
        {"9223372036854775808", -1},
        {"9223372036854775810", -1},
        {"9999999999999999999", -1},
        {"18446744073709551616", -1},
        {"18446744073709551617", -1},
        {"100000000000000000000000000000000000000000", -1},
        {"", -1},
        {" 1", -1},
        {"1 ", -1},
        {"+1", -1},
        {"-1", -1},
        {"0x1", -1},
        {"1e1", -1},
        {"a", -1},
        {"1\xb2", -1},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        NOTE("\"%s\"", rows[i].text);
        CHECK_INT(hsrv_text_parse_number(view(rows[i].text)), rows[i].value);
    }
    CHECK_INT(hsrv_text_parse_number(hsrv_text_view("1\0", 2)), -1);
}

static void check_number(uint64_t n) {
    char expected[32], actual[32];
    int len = snprintf(expected, sizeof expected, "%" PRIu64, n);
    char *end = hsrv_text_format_number(actual, n);
    CHECK_MEM(actual, (size_t)(end - actual), expected, (size_t)len);
    if (n <= INT64_MAX) CHECK_INT(hsrv_text_parse_number(view(expected)), n);
}

TEST(numbers_are_written_as_they_are_read) {
    check_number(0);
    check_number(UINT64_MAX);
    for (uint64_t power = 1; power <= UINT64_MAX / 10; power *= 10) {
        check_number(power);
        check_number(power - 1);
        check_number(power * 9);
    }
    for (int i = 0; i < 10000; i++)
        check_number(((uint64_t)random_below(UINT32_MAX) << 32 | random_below(UINT32_MAX)) >> random_below(64));
}

TEST(hexadecimal_digits) {
    for (int byte = 0; byte < 256; byte++) {
        const char *digits = "0123456789abcdef", *at = byte ? strchr(digits, byte | (byte >= 'A' ? 0x20 : 0)) : NULL;
        NOTE("byte %d", byte);
        CHECK_INT(hsrv_text_hex((char)byte), at && byte < 128 ? at - digits : -1);
    }
}

// ---- percent-encoding ----

TEST(escapes_need_two_digits) {
    static const char *const good[] = {"", "a", "%00", "%fF", "a%41b", "%25%25", "%2525"};
    static const char *const bad[] = {"%",   "%4",  "a%",  "a%4",  "%%",  "%%41", "%4g",
                                      "%g4", "% 4", "%4 ", "%41%", "%+1", "%0x41"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        if (!hsrv_text_escapes_valid(view(good[i]))) FAIL("%s", good[i]);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (hsrv_text_escapes_valid(view(bad[i]))) FAIL("%s", bad[i]);
}

TEST(decoding_happens_once) {
    static const struct {
        const char *encoded, *decoded;
        size_t len;
        bool plus;
    } rows[] = {
        {"", "", 0, false},         {"abc", "abc", 3, false},      {"%41%62", "Ab", 2, false},
        {"%2541", "%41", 3, false}, {"%00", "\0", 1, false},       {"%fF%Ff", "\xff\xff", 2, false},
        {"a+b", "a+b", 3, false},   {"a+b", "a b", 3, true},       {"a%2Bb+", "a+b ", 4, true},
        {"%2f%3f", "/?", 2, false}, {"x%0d%0a", "x\r\n", 3, true},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char out[64];
        httpsrv_str encoded = view(rows[i].encoded), decoded = hsrv_text_view(rows[i].decoded, rows[i].len);
        NOTE("%s", rows[i].encoded);
        CHECK_MEM(out, hsrv_text_decode(out, encoded, rows[i].plus), rows[i].decoded, rows[i].len);
        CHECK(hsrv_text_decoded_equal(encoded, decoded, rows[i].plus));
        CHECK(!hsrv_text_decoded_equal(encoded, hsrv_text_view("abcdefghijkl", rows[i].len + 1), rows[i].plus));
        memcpy(out, encoded.ptr, encoded.len); // in place
        CHECK_MEM(out, hsrv_text_decode(out, hsrv_text_view(out, encoded.len), rows[i].plus), rows[i].decoded,
                  rows[i].len);
    }
}

TEST(decoded_comparison_wants_all_of_both) {
    CHECK(!hsrv_text_decoded_equal(view("ab"), view("a"), false));
    CHECK(!hsrv_text_decoded_equal(view("a"), view("ab"), false));
    CHECK(!hsrv_text_decoded_equal(view("%41"), view("a"), false));
    CHECK(hsrv_text_decoded_equal(view(""), view(""), false));
    CHECK(!hsrv_text_decoded_equal(view(""), view("a"), false));
}

// ---- paths ----

TEST(dot_segments) {
    static const struct {
        const char *segment;
        int dots;
    } rows[] = {{".", 1},      {"..", 2},  {"...", 0},       {"", 0},      {"a", 0},    {".a", 0},
                {"a.", 0},     {"..a", 0}, {"%2e", 1},       {"%2E", 1},   {"%2e.", 2}, {".%2e", 2},
                {"%2e%2E", 2}, {"%2f", 0}, {"%2e%2e%2e", 0}, {"..%2f", 0}, {"%252e", 0}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        NOTE("%s", rows[i].segment);
        CHECK_INT(hsrv_text_dots(view(rows[i].segment)), rows[i].dots);
    }
}

struct path_row {
    const char *path, *resolved; // NULL: refused
};

TEST(paths_are_resolved) {
    static const struct path_row rows[] = {
        {"/", "/"},
        {"/a", "/a"},
        {"/a/", "/a/"},
        {"//", "//"},
        {"//a//b//", "//a//b//"},
        {"/.", "/"},
        {"/./", "/"},
        {"/a/.", "/a/"},
        {"/a/./", "/a/"},
        {"/a/./b", "/a/b"},
        {"/a/..", "/"},
        {"/a/../", "/"},
        {"/a/../b", "/b"},
        {"/a/b/../c", "/a/c"},
        {"/a/b/../../c", "/c"},
        {"/a/b/c/./../../g", "/a/g"}, // RFC 3986 section 5.2.4
        {"/a//../b", "/a/b"},
        {"/a//..", "/a/"},
        {"//..", "/"},
        {"/a/...", "/a/..."},
        {"/a/..b", "/a/..b"},
        {"/.a", "/.a"},
        {"/%2e/a", "/a"},
        {"/a/%2e%2E/b", "/b"},
        {"/a/.%2e", "/"},
        {"/a/%2f../b", "/a/%2f../b"},
        {"/a/..%2fb", "/a/..%2fb"},
        {"/%41/%2541", "/%41/%2541"},
        {"/..", NULL},
        {"/../", NULL},
        {"/../a", NULL},
        {"/a/../..", NULL},
        {"/a/../../b", NULL},
        {"/./..", NULL},
        {"/%2e%2e/a", NULL},
        {"/a/b/../../../c/d/e", NULL},
        {"/%00", NULL},
        {"/a%00", NULL},
        {"/a/%00/..", NULL},
        {"/a/b%00c/d", NULL},
        {"/%000", NULL},
        {"/%2500", "/%2500"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char out[64];
        ptrdiff_t len = hsrv_text_path_resolve(out, view(rows[i].path));
        NOTE("%s", rows[i].path);
        if (!rows[i].resolved)
            CHECK_INT(len, -1);
        else
            CHECK_MEM(out, (size_t)(len < 0 ? 0 : len), rows[i].resolved, strlen(rows[i].resolved));
    }
}

// Paths made of random segments: what comes out is in normal form, never longer, and stays as it is.
TEST(resolved_paths_are_stable) {
    static const char *const segments[] = {"", ".", "..", "a", "b", "%2e", "..%2f", "%41", "...", ".a", "%2e."};
    int resolved = 0;
    for (int n = 0; n < 20000; n++) {
        char path[128] = "", once[128], twice[128];
        ptrdiff_t len;
        for (uint32_t i = 0, count = 1 + random_below(8); i < count; i++) {
            strcat(path, "/");
            strcat(path, segments[random_below(sizeof segments / sizeof *segments)]);
        }
        NOTE("%s", path);
        len = hsrv_text_path_resolve(once, view(path));
        if (hsrv_text_path_is_plain(view(path))) CHECK_MEM(once, (size_t)len, path, strlen(path));
        if (len < 0) continue;
        resolved++;
        CHECK_CMP(len, >=, 1);
        CHECK_CMP(len, <=, strlen(path));
        CHECK_INT(once[0], '/');
        CHECK_INT(hsrv_text_path_resolve(twice, hsrv_text_view(once, (size_t)len)), len);
        CHECK_MEM(twice, (size_t)len, once, (size_t)len);
    }
    CHECK_CMP(resolved, >, 1000);
}

TEST(plain_paths_need_no_resolving) {
    CHECK(hsrv_text_path_is_plain(view("/")));
    CHECK(hsrv_text_path_is_plain(view("/a.b/c")));
    CHECK(hsrv_text_path_is_plain(view("//a")));
    CHECK(!hsrv_text_path_is_plain(view("/a/..")));
    CHECK(!hsrv_text_path_is_plain(view("/.")));
    CHECK(!hsrv_text_path_is_plain(view("/./a")));
    CHECK(!hsrv_text_path_is_plain(view("/%41")));
}

// ---- authorities ----

TEST(authorities_and_their_ports) {
    static const struct {
        const char *text;
        int64_t port; // -1: none, -2: refused
    } rows[] = {
        {"a", -1},
        {"a:", 0},
        {"a:0", 0},
        {"a:80", 80},
        {"a:00080", 80},
        {"a:65535", 65535},
        {"[::1]", -1},
        {"[::1]:", 0},
        {"[::1]:443", 443},
        {"[v1.x]:1", 1},
        {"%41:1", 1},
        {"1.2.3.4:5", 5},
        {"a,b;c=d", -1},
        {"", -2},
        {":", -2},
        {":80", -2},
        {"a:65536", -2},
        {"a:99999999999999999999", -2},
        {"a:-1", -2},
        {"a:8o", -2},
        {"a:80:80", -2},
        {"a b", -2},
        {"a@b", -2},
        {"a/b", -2},
        {"[::1", -2},
        {"::1", -2},
        {"[]", -2},
        {"[::1]x", -2},
        {"[::1]80", -2},
        {"[::1%25lo]", -2},
        {"[v.x]", -2},
        {"[v1.]", -2},
        {"[v1]", -2},
        {"%4", -2},
        {"%zz", -2},
        {"a%:1", -2},
        {"\x80", -2},
        {"a[b]", -2},
        {"[::1]]", -2},
        {"[1:2:3:4:5:6:7:8:9]", -2},
        {"[aaaa:bbbb:cccc:dddd:eeee:ffff:1234:5678:9abc:def0:1234]", -2},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int64_t port = 77;
        bool valid = hsrv_text_authority_valid(view(rows[i].text), &port);
        NOTE("\"%s\"", rows[i].text);
        CHECK_INT(valid, rows[i].port != -2);
        if (valid) CHECK_INT(port, rows[i].port);
    }
    CHECK(!hsrv_text_authority_valid(hsrv_text_view("a\0b", 3), &(int64_t){0}));
    CHECK(!hsrv_text_authority_valid(hsrv_text_view("[::1\0]", 6), &(int64_t){0}));
}

// ---- lists ----

struct list_row {
    const char *list, *elements; // the elements, joined by "|"
};

TEST(lists_are_taken_apart) {
    static const struct list_row rows[] = {
        {"", ""},
        {"a", "a"},
        {"a,b", "a|b"},
        {" a\t, b ", "a|b"},
        {",", "|"},
        {"a,,b,", "a||b|"},
        {"a b,c", "a b|c"},
        {"\"a,b\",c", "\"a,b\"|c"},
        {"\"a\\\",b\",c", "\"a\\\",b\"|c"},
        {"a=\"b, c\" ; d, e", "a=\"b, c\" ; d|e"},
        {"\"a,b", "\"a,b"},
        {"\"\\", "\"\\"},
        {"a\\,b", "a\\|b"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char joined[100] = "";
        httpsrv_str list = view(rows[i].list), element;
        NOTE("%s", rows[i].list);
        for (int n = 0; hsrv_text_next_element(&list, &element); n++) {
            if (n) strcat(joined, "|");
            strncat(joined, element.ptr, element.len);
            CHECK_CMP(n, <, 10);
        }
        CHECK_STR(joined, rows[i].elements);
    }
}

// ---- dates ----

static void check_date(int64_t seconds) {
    char expected[64], actual[64];
    time_t t = (time_t)seconds;
    struct tm parts;
    char *end;
    if (t != seconds) return; // a 32-bit time_t knows less
    CHECK(gmtime_r(&t, &parts) != NULL);
    strftime(expected, sizeof expected, "%a, %d %b %Y %H:%M:%S GMT", &parts);
    end = hsrv_text_format_date(actual, seconds);
    NOTE("%" PRId64, seconds);
    CHECK_MEM(actual, (size_t)(end - actual), expected, 29);
}

TEST(dates_agree_with_the_library) {
    check_date(0);
    check_date(784111777); // Sun, 06 Nov 1994 08:49:37 GMT, RFC 9110 section 5.6.7
    check_date(951782399); // the leap day of 2000, before and after
    check_date(951782400);
    check_date(951868800);
    check_date(INT32_MAX);
    check_date((int64_t)INT32_MAX + 1);
    check_date(4107542400);   // 2100 has no leap day
    check_date(253402300799); // the last second of the year 9999
    for (int64_t day = 0; day < 60000; day += 1 + random_below(3))
        check_date(day * 86400 + random_below(86400));
}

// ---- status phrases ----

TEST(status_phrases) {
    int known = 0;
    for (int status = 0; status < 1000; status++)
        known += strcmp(httpsrv_status_text(status), "Unknown") != 0;
    CHECK_CMP(known, >=, 60);
    CHECK_STR(httpsrv_status_text(200), "OK");
    CHECK_STR(httpsrv_status_text(413), "Content Too Large");
    CHECK_STR(httpsrv_status_text(505), "HTTP Version Not Supported");
    CHECK_STR(httpsrv_status_text(418), "Unknown"); // reserved, without a phrase of its own
    CHECK_STR(httpsrv_status_text(299), "Unknown");
    CHECK_STR(httpsrv_status_text(-1), "Unknown");
}
