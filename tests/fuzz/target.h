// A naive reading of request targets: escapes, segments, dots. Shared by the fuzzers of targets and of files.

#ifndef FUZZ_TARGET_H
#define FUZZ_TARGET_H

#include "fuzz.h"

#define TARGET_MAX_SEGMENTS 2048

// ---- bytes ----

// Decodes; false if an escape is not one.
TEST_FN bool target_decode(httpsrv_str s, bool plus, struct bytes *out) {
    append(out, "", 0);
    for (size_t i = 0; i < s.len; i++) {
        char c = plus && s.ptr[i] == '+' ? ' ' : s.ptr[i];
        if (s.ptr[i] == '%') {
            if (s.len - i < 3 || !among(s.ptr[i + 1], ORACLE_HEX) || !among(s.ptr[i + 2], ORACLE_HEX)) return false;
            c = (char)(hex_value(s.ptr[i + 1]) * 16 + hex_value(s.ptr[i + 2]));
            i += 2;
        }
        append(out, &c, 1);
    }
    return true;
}

TEST_FN bool target_says(httpsrv_str encoded, bool plus, httpsrv_str plain) {
    struct bytes decoded = {NULL, 0, 0};
    bool same = target_decode(encoded, plus, &decoded) && decoded.len == plain.len &&
                (plain.len == 0 || memcmp(decoded.ptr, plain.ptr, plain.len) == 0);
    release_bytes(&decoded);
    return same;
}

// ---- paths ----

struct target_path {
    httpsrv_str segments[TARGET_MAX_SEGMENTS]; // encoded
    int num;
};

TEST_FN void target_split(httpsrv_str path, struct target_path *out) {
    out->num = 0;
    for (size_t i = 0; i < path.len; i++) {
        if (path.ptr[i] == '/') {
            CHECK_CMP(out->num, <, TARGET_MAX_SEGMENTS);
            out->segments[out->num].ptr = path.ptr + i + 1;
            out->segments[out->num++].len = 0;
        } else {
            out->segments[out->num - 1].len++;
        }
    }
}

TEST_FN bool target_has_nul(httpsrv_str path) {
    struct bytes decoded = {NULL, 0, 0};
    bool has = target_decode(path, false, &decoded) && memchr(decoded.ptr, 0, decoded.len);
    release_bytes(&decoded);
    return has;
}

// RFC 3986 section 5.2.4, but for the root, which nothing may go above. False if refused.
TEST_FN bool target_resolve(httpsrv_str path, struct bytes *out) {
    static struct target_path from, kept;
    append(out, "", 0);
    if (target_has_nul(path)) return false;
    target_split(path, &from);
    kept.num = 0;
    for (int i = 0; i < from.num; i++) {
        httpsrv_str segment = from.segments[i];
        bool dot = target_says(segment, false, HTTPSRV_STR(".")), dots = target_says(segment, false, HTTPSRV_STR(".."));
        if (dots && kept.num-- == 0) return false;
        if (!dot && !dots) kept.segments[kept.num++] = segment;
        if ((dot || dots) && i + 1 == from.num) kept.segments[kept.num++] = HTTPSRV_STR("");
    }
    for (int i = 0; i < kept.num; i++) {
        append_text(out, "/");
        append_view(out, kept.segments[i]);
    }
    return true;
}

TEST_FN bool target_is_path(httpsrv_str text) {
    return text.len > 0 && text.ptr[0] == '/' && all_of(text, ORACLE_UNRESERVED ORACLE_SUB_DELIMS ":@/", true);
}

#endif // FUZZ_TARGET_H
