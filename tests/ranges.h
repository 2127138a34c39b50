// Answers with ranges (RFC 9110 section 14), put together from the whole: what Content-Range says, and the body of a
// multipart/byteranges. Include it after httpsrv.h and drive.h.

#ifndef TEST_RANGES_H
#define TEST_RANGES_H

#include "test.h"

#define BYTERANGES "multipart/byteranges; boundary="

struct byte_range {
    int64_t first, last;
};

// As Content-Range has it.
TEST_FN void put_range(struct bytes *out, const struct byte_range *range, size_t size) {
    char text[100];
    snprintf(text, sizeof text, "bytes %" PRId64 "-%" PRId64 "/%zu", range->first, range->last, size);
    append_text(out, text);
}

TEST_FN httpsrv_str part_of(httpsrv_str whole, const struct byte_range *range) {
    httpsrv_str part = {whole.ptr + range->first, (size_t)(range->last - range->first + 1)};
    return part;
}

TEST_FN void put_ranges(struct bytes *out, httpsrv_str whole, const struct byte_range *list, int num,
                        const char *boundary) {
    for (int i = 0; i < num; i++) {
        append_text(out, i ? "\r\n--" : "--");
        append_text(out, boundary);
        append_text(out, "\r\nContent-Type: application/octet-stream\r\nContent-Range: ");
        put_range(out, &list[i], whole.len);
        append_text(out, "\r\n\r\n");
        append_view(out, part_of(whole, &list[i]));
    }
    append_text(out, "\r\n--");
    append_text(out, boundary);
    append_text(out, "--\r\n");
}

// A 206 that has these ranges of something, one as it is, several in parts.
TEST_FN void check_ranges(const struct client *c, httpsrv_str whole, const struct byte_range *list, int num) {
    struct bytes expected = {NULL, 0, 0};
    const char *type = field(c, "Content-Type"), *range = field(c, "Content-Range");
    CHECK_INT(c->status, 206);
    CHECK_INT(range != NULL, num == 1); // section 15.3.7.2: not of several
    CHECK_INT(strncmp(type, BYTERANGES, strlen(BYTERANGES)) == 0, num != 1);
    if (num == 1) {
        httpsrv_str part = part_of(whole, list);
        put_range(&expected, list, whole.len);
        CHECK_STR(range, expected.ptr);
        CHECK_MEM(c->body, c->body_len, part.ptr, part.len);
    } else {
        put_ranges(&expected, whole, list, num, type + strlen(BYTERANGES));
        CHECK_MEM(c->body, c->body_len, expected.ptr, expected.len);
    }
    release_bytes(&expected);
}

#endif // TEST_RANGES_H
