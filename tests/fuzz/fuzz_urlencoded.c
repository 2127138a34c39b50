// A urlencoded text: its pairs, and what they stand for, compared with a reading byte by byte. All of the text is also
// tried as something to be decoded. Controls: odd for "+" being a space.

#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

// ---- decoding ----

// False if an escape is not one.
static bool url_decode(httpsrv_str s, bool plus, struct bytes *out) {
    append(out, "", 0);
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];
        if (c == '%') {
            if (s.len - i < 3 || !among(s.ptr[i + 1], ORACLE_HEX) || !among(s.ptr[i + 2], ORACLE_HEX)) return false;
            c = (char)(hex_value(s.ptr[i + 1]) * 16 + hex_value(s.ptr[i + 2]));
            i += 2;
        } else if (plus && c == '+') {
            c = ' ';
        }
        append(out, &c, 1);
    }
    return true;
}

static void url_check_decoded(char *out, httpsrv_str text, bool plus, bool fine, const struct bytes *expected) {
    ptrdiff_t len = httpsrv_decode(out, text, plus);
    if (!fine) CHECK_INT(len, HTTPSRV_SYNTAX);
    if (!fine) return;
    CHECK_INT(len, expected->len);
    CHECK(expected->len == 0 || memcmp(out, expected->ptr, expected->len) == 0);
}

// Into a block of just the text's size, and in place.
static void url_try_decode(httpsrv_str text, bool plus) {
    struct bytes expected = {NULL, 0, 0};
    bool fine = url_decode(text, plus, &expected);
    char *from = (char *)malloc(text.len + !text.len), *to = (char *)malloc(text.len + !text.len);
    CHECK(from && to);
    memcpy(from, text.ptr, text.len);
    httpsrv_str source = {from, text.len};
    url_check_decoded(to, source, plus, fine, &expected);
    url_check_decoded(from, source, plus, fine, &expected);
    free(from);
    free(to);
    release_bytes(&expected);
}

// ---- pairs ----

// The pair that begins at or behind `at`; returns what is behind it. NULL: there is none.
static const char *url_pair(const char *at, const char *end, httpsrv_field *pair) {
    while (at < end && *at == '&')
        at++;
    if (at == end) return NULL;
    pair->name.ptr = at;
    while (at < end && *at != '&' && *at != '=')
        at++;
    pair->name.len = (size_t)(at - pair->name.ptr);
    if (at < end && *at == '=') at++;
    pair->value.ptr = at;
    while (at < end && *at != '&')
        at++;
    pair->value.len = (size_t)(at - pair->value.ptr);
    return at;
}

// Views of the text itself; where a value is missing that has no place.
static void url_check_view(httpsrv_str actual, httpsrv_str expected) {
    CHECK_INT(actual.len, expected.len);
    if (expected.len) CHECK(actual.ptr == expected.ptr);
}

static void url_check_pairs(httpsrv_str text, bool plus) {
    const char *at = text.ptr, *end = text.ptr + text.len;
    httpsrv_str rest = text;
    httpsrv_field expected, actual;
    while ((at = url_pair(at, end, &expected)) != NULL) {
        CHECK(httpsrv_urlencoded_next(&rest, &actual));
        url_check_view(actual.name, expected.name);
        url_check_view(actual.value, expected.value);
        CHECK_CMP(rest.len, <=, end - at);
        url_try_decode(expected.name, plus);
        url_try_decode(expected.value, plus);
    }
    CHECK(!httpsrv_urlencoded_next(&rest, &actual));
    CHECK(!httpsrv_urlencoded_next(&rest, &actual));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct fuzz_input in = fuzz_open(data, size);
    httpsrv_str text = {fuzz_moved(in.text.ptr, in.text.len), in.text.len};
    bool plus = fuzz_control(&in, 0) % 2 == 1;
    url_check_pairs(text, plus);
    url_try_decode(text, plus);
    fuzz_close(&in);
    return 0;
}
