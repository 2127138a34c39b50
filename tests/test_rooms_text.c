// >>text against definitions of its own: the RFCs' grammars, naive loops, the C library.

#define HTTPSRV_IMPLEMENTATION
#include "httpsrv.h"
#include "rooms.h"

static httpsrv_str text(const char *terminated) {
    return hsrv_text_of(terminated);
}

// A copy that ends at the fence.
static httpsrv_str fenced(char *end, const char *bytes, size_t len) {
    memcpy(end - len, bytes, len);
    return hsrv_text_view(end - len, len);
}

// ---- characters ----

static bool one_of(const char *set, int c) {
    return c != 0 && strchr(set, c) != NULL;
}

static bool is_alpha(int c) {
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

static bool is_digit(int c) {
    return c >= '0' && c <= '9';
}

static bool is_token(int c) { // tchar, RFC 9110 section 5.6.2
    return is_alpha(c) || is_digit(c) || one_of("!#$%&'*+-.^_`|~", c);
}

static bool is_unreserved_or_sub_delim(int c) { // RFC 3986 section 2
    return is_alpha(c) || is_digit(c) || one_of("-._~", c) || one_of("!$&'()*+,;=", c);
}

static bool is_value(int c) { // field-vchar and what may stand between, RFC 9110 section 5.5
    return c == ' ' || c == '\t' || (c >= 0x21 && c <= 0x7e) || c >= 0x80;
}

TEST(classes_follow_the_grammar) {
    for (int c = 0; c < 256; c++) {
        NOTE("byte 0x%02x", (unsigned)c);
        CHECK_INT(hsrv_text_is((char)c, HSRV_TOKEN), is_token(c));
        CHECK_INT(hsrv_text_is((char)c, HSRV_PATH), is_unreserved_or_sub_delim(c) || one_of(":@/", c));
        CHECK_INT(hsrv_text_is((char)c, HSRV_HOST), is_unreserved_or_sub_delim(c));
        CHECK_INT(hsrv_text_is((char)c, HSRV_VALUE), is_value(c));
        CHECK_INT(hsrv_text_is((char)c, HSRV_DIGIT), is_digit(c));
        CHECK_INT(hsrv_text_is((char)c, HSRV_HEXDIG), is_digit(c) || one_of("abcdefABCDEF", c));
    }
}

TEST(hexadecimal_digits_have_their_values) {
    static const char digits[] = "0123456789abcdef0123456789ABCDEF";
    for (int c = 0; c < 256; c++) {
        const char *at = c ? strchr(digits, c) : NULL;
        if (!at && c) at = strchr(digits + 16, c);
        NOTE("byte 0x%02x", (unsigned)c);
        CHECK_INT(hsrv_text_hex((char)c), at ? (at - digits) % 16 : -1);
    }
}

TEST(case_folds_letters_only) {
    for (int a = 0; a < 256; a++) {
        for (int b = 0; b < 256; b++) {
            const char left = (char)a, right = (char)b;
            const bool same = a == b || (is_alpha(a) && is_alpha(b) && (a ^ b) == 0x20);
            NOTE("bytes 0x%02x 0x%02x", (unsigned)a, (unsigned)b);
            CHECK_INT(hsrv_text_equal_nocase(hsrv_text_view(&left, 1), hsrv_text_view(&right, 1)), same);
        }
    }
    CHECK(!hsrv_text_equal_nocase(text("ab"), text("abc")));
    CHECK(hsrv_text_equal_nocase(hsrv_text_absent(), text("")));
}

TEST(trim_takes_blanks_from_both_ends) {
    static const char *const table[][2] = {{"", ""},        {" ", ""},      {" \t \t", ""},       {"a", "a"},
                                           {" a", "a"},     {"a\t", "a"},   {"\t a b \t", "a b"}, {"\r a", "\r a"},
                                           {"a\n ", "a\n"}, {" \va", "\va"}};
    for (size_t i = 0; i < LENGTH(table); i++) {
        NOTE("row %zu", i);
        CHECK_VIEW(hsrv_text_trim(text(table[i][0])), table[i][1]);
    }
}

// ---- numbers ----

TEST(numbers_are_digits_that_fit) {
    static const struct {
        const char *text;
        int64_t value;
    } table[] = {{"", -1},
                 {"0", 0},
                 {"00", 0},
                 {"007", 7},
                 {"9", 9},
                 {"4294967296", 4294967296},
                 {"922337203685477580", 922337203685477580},
                 {"9223372036854775799", INT64_MAX - 8},
                 {"9223372036854775806", INT64_MAX - 1},
                 {"9223372036854775807", INT64_MAX},
                 {"9223372036854775808", -1},
                 {"9223372036854775810", -1},
                 {"10000000000000000000", -1},
                 {"18446744073709551615", -1},
                 {"18446744073709551616", -1},
                 {"18446744073709551617", -1},
                 {"92233720368547758070", -1},
                 {"000000000000000000000000009223372036854775807", INT64_MAX},
                 {"000000000000000000000000009223372036854775808", -1},
                 {"+1", -1},
                 {"-1", -1},
                 {"-0", -1},
                 {" 1", -1},
                 {"1 ", -1},
                 {"1,1", -1},
                 {"0x1", -1},
                 {"1a", -1},
                 {"1:", -1},
                 {"1/", -1}};
    char *end = fence_end();
    for (size_t i = 0; i < LENGTH(table); i++) {
        NOTE("\"%s\"", table[i].text);
        CHECK_INT(hsrv_text_parse_number(fenced(end, table[i].text, strlen(table[i].text))), table[i].value);
    }
}

TEST(numbers_have_a_bound) {
    static const struct {
        const char *text; // NULL: absent
        int64_t max, value;
    } table[] = {{NULL, 10, -1},
                 {"", 10, -1},
                 {"0", 10, 0},
                 {"0010", 10, 10},
                 {"10", 10, 10},
                 {"11", 10, -1},
                 {"+1", 10, -1},
                 {"-1", 10, -1},
                 {"-0", 10, -1},
                 {" 1", 10, -1},
                 {"1 ", 10, -1},
                 {"1e1", 10, -1},
                 {"ten", 10, -1},
                 {"0", 0, 0},
                 {"1", 0, -1},
                 {"0", -1, -1},
                 {"0", INT64_MIN, -1},
                 {"x", INT64_MIN, -1},
                 {"9223372036854775806", INT64_MAX, INT64_MAX - 1},
                 {"9223372036854775807", INT64_MAX, INT64_MAX},
                 {"9223372036854775807", INT64_MAX - 1, -1},
                 {"9223372036854775808", INT64_MAX, -1},
                 {"1000000000000000000000000000000000000000", INT64_MAX, -1}};
    char *end = fence_end();
    for (size_t i = 0; i < LENGTH(table); i++) {
        const char *digits = table[i].text;
        NOTE("\"%s\" up to %" PRId64, digits ? digits : "(absent)", table[i].max);
        const httpsrv_str view = digits ? fenced(end, digits, strlen(digits)) : hsrv_text_absent();
        CHECK_INT(httpsrv_number(view, table[i].max), table[i].value);
    }
    CHECK_INT(httpsrv_number((httpsrv_str){"123", 2}, 100), 12); // not terminated
}

static void check_format(uint64_t n) {
    char expected[32], out[32];
    snprintf(expected, sizeof expected, "%" PRIu64, n);
    const size_t len = (size_t)(hsrv_text_format_number(out, n) - out);
    CHECK_MEM(out, len, expected, strlen(expected));
    CHECK_INT(hsrv_text_parse_number(hsrv_text_view(out, len)), n <= INT64_MAX ? (int64_t)n : -1);
}

TEST(numbers_are_written_as_they_are) {
    for (uint64_t ten = 1, i = 0; i < 20; i++, ten *= 10) {
        check_format(ten - 1);
        check_format(ten);
        check_format(ten * 9);
    }
    for (int bit = 0; bit < 64; bit++) {
        check_format(((uint64_t)1 << bit) - 1);
        check_format((uint64_t)1 << bit);
        check_format((((uint64_t)random_bits() << 32) | random_bits()) >> bit);
    }
    check_format(UINT64_MAX);
}

// ---- escapes ----

TEST(escapes_have_two_digits) {
    static const struct {
        const char *text;
        bool valid;
    } table[] = {{"", true},       {"a", true},     {"%41", true},   {"%fF", true},    {"a%00b", true},
                 {"%41%42", true}, {"%2541", true}, {"%", false},    {"%4", false},    {"%4g", false},
                 {"%g4", false},   {"a%", false},   {"%41%", false}, {"%41%4", false}, {"%%41", false},
                 {"%4%41", false}, {"%-1", false},  {"% 1", false},  {"%0x1", false}};
    char *end = fence_end();
    for (size_t i = 0; i < LENGTH(table); i++) {
        NOTE("\"%s\"", table[i].text);
        CHECK_INT(hsrv_text_escapes_valid(fenced(end, table[i].text, strlen(table[i].text))), table[i].valid);
    }
}

TEST(every_byte_is_decoded) {
    for (unsigned byte = 0; byte < 256; byte++) {
        const char expected[] = {'x', (char)byte, (char)byte, 'y'};
        char encoded[16], out[16];
        const int len = snprintf(encoded, sizeof encoded, "x%%%02x%%%02Xy", byte, byte);
        NOTE("%s", encoded);
        for (int plus = 0; plus < 2; plus++) {
            const size_t n = hsrv_text_decode(out, hsrv_text_view(encoded, (size_t)len), plus != 0);
            CHECK_MEM(out, n, expected, sizeof expected);
        }
    }
}

// Random texts of escapes and plain characters, with what they say made beside them.
static size_t random_encoded(char *encoded, char *plain, size_t *plain_len, bool plus) {
    size_t len = 0, n = 0;
    for (uint32_t pieces = random_below(8); pieces > 0; pieces--) {
        static const char few[] = "ab+%2/ ";
        const char c = random_below(4) ? few[random_below(sizeof few - 1)] : (char)random_bits();
        if (c == '%' || random_below(2)) {
            len +=
                (size_t)snprintf(encoded + len, 4, random_below(2) ? "%%%02x" : "%%%02X", (unsigned)(unsigned char)c);
            plain[n++] = c;
        } else {
            encoded[len++] = c;
            plain[n++] = (char)(plus && c == '+' ? ' ' : c);
        }
    }
    *plain_len = n;
    return len;
}

TEST(decoding_and_comparing_agree) {
    char *end = fence_end();
    for (int round = 0; round < STORM(200000); round++) {
        char encoded[64], plain[32], other[32], out[64];
        size_t plain_len, other_len = 0;
        const bool plus = random_below(2);
        const httpsrv_str e = fenced(end, encoded, random_encoded(encoded, plain, &plain_len, plus));
        memcpy(end - e.len, encoded, e.len);
        NOTE("round %d: %.*s", round, HTTPSRV_FMT(e));
        CHECK_MEM(out, hsrv_text_decode(out, e, plus), plain, plain_len);
        CHECK(hsrv_text_decoded_equal(e, hsrv_text_view(plain, plain_len), plus));
        random_encoded(out, other, &other_len, plus);
        const bool same = plain_len == other_len && memcmp(plain, other, plain_len) == 0;
        CHECK_INT(hsrv_text_decoded_equal(e, hsrv_text_view(other, other_len), plus), same);
        if (plain_len > 0) CHECK(!hsrv_text_decoded_equal(e, hsrv_text_view(plain, plain_len - 1), plus));
        plain[plain_len] = 'a';
        CHECK(!hsrv_text_decoded_equal(e, hsrv_text_view(plain, plain_len + 1), plus));
        CHECK_MEM(end - e.len, hsrv_text_decode(end - e.len, e, plus), plain, plain_len); // in place
    }
}

// ---- dot segments ----

struct path {
    char ptr[64];
    size_t len;
};

static void path_add(struct path *path, const char *bytes, size_t len) {
    memcpy(path->ptr + path->len, bytes, len);
    path->len += len;
}

static int dots_of(const char *segment, size_t len) {
    static const char *const spellings[2][6] = {{".", "%2e", "%2E"}, {"..", ".%2e", ".%2E", "%2e.", "%2E.", "%2e%2e"}};
    static const char *const more[] = {"%2E%2E", "%2e%2E", "%2E%2e"};
    for (int dots = 0; dots < 2; dots++) {
        for (int i = 0; i < (dots ? 6 : 3); i++) {
            if (len == strlen(spellings[dots][i]) && memcmp(segment, spellings[dots][i], len) == 0) return dots + 1;
        }
    }
    for (int i = 0; i < 3; i++) {
        if (len == 6 && memcmp(segment, more[i], 6) == 0) return 2;
    }
    return 0;
}

// By a stack of segments. False: above the root.
static bool resolve_by_stack(const struct path *path, struct path *out) {
    size_t starts[64], lens[64], depth = 0;
    for (size_t at = 0; at < path->len;) {
        const char *start = path->ptr + at + 1;
        const char *slash = (const char *)memchr(start, '/', path->len - at - 1);
        const size_t len = slash ? (size_t)(slash - start) : path->len - at - 1;
        const int dots = dots_of(start, len);
        if (dots == 2 && depth == 0) return false;
        if (dots == 2) depth--;
        if (dots == 0 || !slash) {
            starts[depth] = at + 1;
            lens[depth++] = dots == 0 ? len : 0;
        }
        at += len + 1;
    }
    out->len = 0;
    for (size_t i = 0; i < depth; i++) {
        path_add(out, "/", 1);
        path_add(out, path->ptr + starts[i], lens[i]);
    }
    return true;
}

static void check_resolve(const struct path *path, char *in_end, char *out_end) {
    struct path expected;
    const httpsrv_str in = fenced(in_end, path->ptr, path->len);
    char *out = out_end - path->len;
    NOTE("%.*s", (int)path->len, path->ptr);
    const bool ok = resolve_by_stack(path, &expected);
    const ptrdiff_t len = hsrv_text_path_resolve(out, in);
    if (!ok) {
        CHECK_INT(len, -1);
        CHECK(!hsrv_text_path_is_plain(in));
        return;
    }
    CHECK(len > 0);
    CHECK_MEM(out, (size_t)len, expected.ptr, expected.len);
    if (hsrv_text_path_is_plain(in)) CHECK_MEM(out, (size_t)len, path->ptr, path->len);
}

// All paths of up to seven pieces.
TEST(dot_segments_are_resolved) {
    static const char *const pieces[] = {"/", ".", "a", "%2e", "%2E", "%2f"};
    char *in_end = fence_end(), *out_end = fence_end();
    size_t limit = 1;
    for (int length = 0; length <= 7; length++, limit *= LENGTH(pieces)) {
        for (size_t number = 0; number < limit; number++) {
            struct path path = {{'/'}, 1};
            size_t rest = number;
            for (int i = 0; i < length; i++, rest /= LENGTH(pieces)) {
                path_add(&path, pieces[rest % LENGTH(pieces)], strlen(pieces[rest % LENGTH(pieces)]));
            }
            check_resolve(&path, in_end, out_end);
        }
    }
}

TEST(paths_with_nul_are_refused) {
    static const char *const refused[] = {"/%00", "/a%00", "/%00a/b", "/a/%00/../b", "/%00/..", "/.%00", "/a/b%00/"};
    static const char *const kept[] = {"/%2500", "/%000x", "/%01", "/%0a0", "/%10%30%30"};
    char out[64];
    for (size_t i = 0; i < LENGTH(refused); i++) {
        NOTE("%s", refused[i]);
        CHECK_INT(hsrv_text_path_resolve(out, text(refused[i])), -1);
    }
    for (size_t i = 0; i < LENGTH(kept); i++) {
        NOTE("%s", kept[i]);
        if (i == 1) continue; // that one holds "%00" as well
        CHECK_INT(hsrv_text_path_resolve(out, text(kept[i])), strlen(kept[i]));
    }
}

// ---- authority ----

TEST(ip_literals) {
    static const char *const good[] = {"::",
                                       "::1",
                                       "1::",
                                       "2001:db8::7",
                                       "2001:DB8:0:0:0:0:0:7",
                                       "0001:0002:0003:0004:0005:0006:0007:0008",
                                       "::ffff:192.0.2.7",
                                       "1:2:3:4:5:6:192.0.2.7",
                                       "1:2:3:4:5:6:7::",
                                       "::2:3:4:5:6:7:8",
                                       "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255",
                                       "v1.a",
                                       "V1F.a:b",
                                       "vffffffffffffffffffffffff.-._~!$&'()*+,;=:"};
    static const char *const bad[] = {"",
                                      ":",
                                      ":::",
                                      "1",
                                      "1:2",
                                      "1:2:3:4:5:6:7",
                                      "1:2:3:4:5:6:7:8:9",
                                      "1::2::3",
                                      "12345::",
                                      "g::",
                                      "::1 ",
                                      " ::1",
                                      "::1%25eth0",
                                      "::1%eth0",
                                      "::256.0.0.1",
                                      "::1.2.3",
                                      "::1.2.3.4.5",
                                      "::01.2.3.4",
                                      "1.2.3.4",
                                      "[::1]",
                                      "::1/64",
                                      "v",
                                      "v.",
                                      "v1",
                                      "v1.",
                                      "v.a",
                                      "vg.a",
                                      "v1.a%41",
                                      "v1.a/b",
                                      "v1.a@b",
                                      "v1a",
                                      "v1.[",
                                      "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.2555"};
    char *end = fence_end();
    for (size_t i = 0; i < LENGTH(good); i++) {
        NOTE("%s", good[i]);
        CHECK(hsrv_text_ip_literal_valid(fenced(end, good[i], strlen(good[i]))));
    }
    for (size_t i = 0; i < LENGTH(bad); i++) {
        NOTE("%s", bad[i]);
        CHECK(!hsrv_text_ip_literal_valid(fenced(end, bad[i], strlen(bad[i]))));
    }
    CHECK(!hsrv_text_ip_literal_valid(hsrv_text_view("::1\0", 4)));
}

TEST(authorities) {
    static const struct {
        const char *text;
        int64_t port; // -1: none, -2: the whole is invalid
    } table[] = {{"a", -1},
                 {"a:", 0},
                 {"a:0", 0},
                 {"a:80", 80},
                 {"a:00080", 80},
                 {"a:65535", 65535},
                 {"a:65536", -2},
                 {"a:99999999999999999999", -2},
                 {"a:-1", -2},
                 {"a:+1", -2},
                 {"a: 1", -2},
                 {"a:8o", -2},
                 {"a:80:90", -2},
                 {"a::80", -2},
                 {"", -2},
                 {":", -2},
                 {":80", -2},
                 {"a b", -2},
                 {"a/", -2},
                 {"a@b", -2},
                 {"u:p@h:80", -2},
                 {"a?", -2},
                 {"a#", -2},
                 {"a\\b", -2},
                 {"a_b", -1},
                 {"a.b.", -1},
                 {"%41", -1},
                 {"%4", -2},
                 {"%4g", -2},
                 {"a%", -2},
                 {"!$&'()*+,;=", -1},
                 {"a,b", -1},
                 {"192.0.2.7:1", 1},
                 {"999.1", -1},
                 {"[::1]", -1},
                 {"[::1]:", 0},
                 {"[::1]:443", 443},
                 {"[::1]:65536", -2},
                 {"[::1]x", -2},
                 {"[::1]443", -2},
                 {"[::1", -2},
                 {"[]", -2},
                 {"[]:80", -2},
                 {"::1", -2},
                 {"[v1.a]:1", 1},
                 {"[::1]]", -2},
                 {"[[::1]]", -2},
                 {"a[::1]", -2},
                 {"\"a\"", -2},
                 {"\x80", -2},
                 {"a\t", -2},
                 {"<a>", -2},
                 {"a|b", -2},
                 {"a^", -2}};
    char *end = fence_end();
    for (size_t i = 0; i < LENGTH(table); i++) {
        int64_t port = -3;
        NOTE("%s", table[i].text);
        const httpsrv_str text = fenced(end, table[i].text, strlen(table[i].text));
        const bool valid = hsrv_text_authority_valid(text.ptr, text, &port);
        CHECK_INT(valid, table[i].port != -2);
        if (valid) CHECK_INT(port, table[i].port);
    }
}

// ---- lists ----

TEST(list_elements) {
    static const char *const table[][2] = {{"", "<>"},
                                           {"a", "<a>"},
                                           {"a,b", "<a><b>"},
                                           {" a ,\tb\t", "<a><b>"},
                                           {",", "<><>"},
                                           {",a", "<><a>"},
                                           {"a,", "<a><>"},
                                           {"a,,b", "<a><><b>"},
                                           {" , ,", "<><><>"},
                                           {"a b , c", "<a b><c>"},
                                           {"\"a,b\",c", "<\"a,b\"><c>"},
                                           {"x=\"a,b\" , c", "<x=\"a,b\"><c>"},
                                           {"\"a\\\",b\",c", "<\"a\\\",b\"><c>"},
                                           {"\"a\\\\\",b", "<\"a\\\\\"><b>"},
                                           {"\"a,b", "<\"a,b>"},
                                           {"\"a\\", "<\"a\\>"},
                                           {"a\\,b", "<a\\><b>"},
                                           {"\"\",\"\"", "<\"\"><\"\">"},
                                           {"\"a\"\"b,c\",d", "<\"a\"\"b,c\"><d>"}};
    char *end = fence_end();
    for (size_t i = 0; i < LENGTH(table); i++) {
        char found[128] = "";
        httpsrv_str list = fenced(end, table[i][0], strlen(table[i][0])), element;
        while (hsrv_text_next_element(&list, &element)) {
            const size_t used = strlen(found);
            snprintf(found + used, sizeof found - used, "<%.*s>", HTTPSRV_FMT(element));
        }
        NOTE("%s", table[i][0]);
        CHECK_STR(found, table[i][1]);
        CHECK(list.ptr == NULL);
    }
    httpsrv_str absent = hsrv_text_absent(), element;
    CHECK(!hsrv_text_next_element(&absent, &element));
}

// ---- hashing ----

// The vectors of the reference implementation: the secret is 00 01 .. 0f, the text 00 01 ..
TEST(siphash) {
    static const uint64_t hashes[] = {0x726fdb47dd0e0e31, 0x74f839c593dc67fd, 0x0d6c8009d9a94f5a,
                                      0x85676696d7fb7e2d, 0xcf2794e0277187b7, 0x18765564cd99a68d,
                                      0xcbc9466e58fee3ce, 0xab0200f58b01d137, 0x93f5f5799a932462};
    static const uint64_t secret[2] = {0x0706050403020100, 0x0f0e0d0c0b0a0908};
    char text[15];
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (char)i;
    for (size_t len = 0; len < ROWS(hashes); len++) {
        NOTE("%zu bytes", len);
        CHECK(hsrv_text_siphash(hsrv_text_view(text, len), secret) == hashes[len]);
    }
    CHECK(hsrv_text_siphash(hsrv_text_view(text, 15), secret) == 0xa129ca6149be45e5); // of the paper, appendix A
}

// ---- dates ----

static void check_date(int64_t seconds) {
    const time_t t = (time_t)seconds;
    struct tm parts;
    char expected[64], out[64];
    if (t != seconds) return; // a 32-bit time_t, in which the library cannot say
    CHECK(gmtime_r(&t, &parts) != NULL);
    strftime(expected, sizeof expected, "%a, %d %b %Y %H:%M:%S GMT", &parts);
    CHECK_MEM(out, (size_t)(hsrv_text_format_date(out, seconds) - out), expected, 29);
}

TEST(dates_are_those_of_the_library) {
    const int64_t day = 86400, first = HSRV_FIRST_DATE / day, days = 84006; // to the end of 2199
    for (int64_t i = first; i < days; i++) {
        check_date(i * day);
        check_date((i + 1) * day - 1);
        check_date(i * day + (int64_t)random_below(86400));
    }
    char out[64];
    CHECK_MEM(out, (size_t)(hsrv_text_format_date(out, HSRV_FIRST_DATE) - out), "Mon, 01 Jan 1601 00:00:00 GMT", 29);
    CHECK_MEM(out, (size_t)(hsrv_text_format_date(out, -1) - out), "Wed, 31 Dec 1969 23:59:59 GMT", 29);
    CHECK_MEM(out, (size_t)(hsrv_text_format_date(out, 784111777) - out), "Sun, 06 Nov 1994 08:49:37 GMT", 29);
    CHECK_MEM(out, (size_t)(hsrv_text_format_date(out, 951782400) - out), "Tue, 29 Feb 2000 00:00:00 GMT", 29);
    CHECK_MEM(out, (size_t)(hsrv_text_format_date(out, 4107542400) - out), "Mon, 01 Mar 2100 00:00:00 GMT", 29);
    CHECK_MEM(out, (size_t)(hsrv_text_format_date(out, 4102444799) - out), "Thu, 31 Dec 2099 23:59:59 GMT", 29);
}

// ---- phrases ----

TEST(phrases_are_those_of_the_registry) {
    static const struct {
        int status;
        const char *phrase;
    } table[] = {{100, "Continue"},
                 {200, "OK"},
                 {204, "No Content"},
                 {205, "Reset Content"},
                 {304, "Not Modified"},
                 {306, "Unknown"},
                 {404, "Not Found"},
                 {408, "Request Timeout"},
                 {413, "Content Too Large"},
                 {414, "URI Too Long"},
                 {417, "Expectation Failed"},
                 {418, "Unknown"},
                 {422, "Unprocessable Content"},
                 {431, "Request Header Fields Too Large"},
                 {501, "Not Implemented"},
                 {503, "Service Unavailable"},
                 {505, "HTTP Version Not Supported"},
                 {509, "Unknown"},
                 {511, "Network Authentication Required"},
                 {599, "Unknown"},
                 {0, "Unknown"},
                 {-404, "Unknown"}};
    for (size_t i = 0; i < LENGTH(table); i++) {
        NOTE("%d", table[i].status);
        CHECK_VIEW(hsrv_text_phrase(table[i].status), table[i].phrase);
    }
    int known = 0;
    for (int status = -1; status < 1000; status++) {
        const httpsrv_str phrase = hsrv_text_phrase(status);
        CHECK_INT(strlen(phrase.ptr), phrase.len);
        CHECK(hsrv_text_all(phrase, HSRV_VALUE));
        known += strcmp(phrase.ptr, "Unknown") != 0;
    }
    CHECK_INT(known, 62);
}

// ---- results ----

TEST(results_have_a_status) {
    static const struct {
        httpsrv_result result;
        int status;
    } table[] = {{HTTPSRV_OK, 200},    {HTTPSRV_SYNTAX, 400},       {HTTPSRV_TOOBIG, 413}, {HTTPSRV_UNSUPPORTED, 415},
                 {HTTPSRV_ARG, 500},   {HTTPSRV_SYS, 500},          {HTTPSRV_STATE, 500},  {HTTPSRV_GONE, 500},
                 {HTTPSRV_ROUTE, 500}, {(httpsrv_result)-100, 500}, {HTTPSRV_NOMEM, 503},  {HTTPSRV_FULL, 503}};
    for (size_t i = 0; i < LENGTH(table); i++) {
        NOTE("%s", httpsrv_result_text(table[i].result));
        CHECK_INT(httpsrv_result_status(table[i].result), table[i].status);
    }
}
