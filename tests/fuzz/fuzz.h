// What the fuzzers share. Each has one entry point, the one that clang's libFuzzer calls (run.sh) and that
// ../test_fuzz.c calls with the inputs kept in corpus/ and regressions/.
//
// An input is a text whose first line (up to a line feed, at most FUZZ_CONTROLS bytes) controls what is done with the
// rest: mostly where it is cut. A letter stands for a piece of its place in the alphabet: "a" is a byte, "z" are 26.

#ifndef FUZZ_H
#define FUZZ_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif

// The engine keeps an input only if the process dies of a signal; tests that fail end with _exit.
#ifdef FUZZ_ENGINE
#define TEST_NO_MAIN
#include <stdlib.h>
#include <unistd.h>
#define _exit(status) ((void)(status), abort())
#endif
#include "../test.h"
#ifdef FUZZ_ENGINE
#undef _exit
#endif

// The server's clock stands still unless a fuzzer moves it: what an input does must not depend on when it is run.
static int64_t fuzz_ms = 1000000000;

TEST_FN int fuzz_clock(clockid_t id, struct timespec *t) {
    (void)id;
    t->tv_sec = (time_t)(fuzz_ms / 1000);
    t->tv_nsec = (long)(fuzz_ms % 1000 * 1000000);
    return 0;
}

// Small buffers, so that small inputs meet their ends.
#define HTTPSRV_READ_BUFFER    512
#define HTTPSRV_WRITE_BUFFER   512
#define HTTPSRV_REQUEST_MEMORY 256
#define HTTPSRV_IMPLEMENTATION
#define clock_gettime fuzz_clock
#include "httpsrv.h"
#undef clock_gettime
#include "../oracle.h"

#define FUZZ_CONTROLS 64

struct fuzz_input {
    struct bytes controls, text;
};

TEST_FN struct fuzz_input fuzz_open(const uint8_t *data, size_t size) {
    struct fuzz_input in;
    size_t reach = size < FUZZ_CONTROLS ? size : FUZZ_CONTROLS;
    const uint8_t *end = reach ? (const uint8_t *)memchr(data, '\n', reach) : NULL;
    size_t controls = end ? (size_t)(end - data) : 0, text = end ? controls + 1 : 0;
    memset(&in, 0, sizeof in);
    append(&in.controls, data, controls);
    append(&in.text, size ? data + text : data, size - text);
    return in;
}

TEST_FN void fuzz_close(struct fuzz_input *in) {
    release_bytes(&in->controls);
    release_bytes(&in->text);
}

// A control byte, over and over again; 0 without any.
TEST_FN unsigned fuzz_control(const struct fuzz_input *in, size_t i) {
    return in->controls.len ? (unsigned char)in->controls.ptr[i % in->controls.len] : 0;
}

// The bytes of a piece: 1 to 32.
TEST_FN size_t fuzz_piece(unsigned control) {
    return control % 32 ? control % 32 : 32;
}

// The bytes in a block of just their size, at a place where they have not been before. The block before is gone.
TEST_FN const char *fuzz_moved(const char *ptr, size_t len) {
#ifdef TEST_ASAN
    static char *block;
    char *old = block;
    block = (char *)malloc(len);
    CHECK(block != NULL);
    if (len) memcpy(block, ptr, len);
    free(old);
    return block;
#else
    return moved(ptr, len);
#endif
}

// ---- how a text is handed over ----

enum fuzz_pace { FUZZ_WHOLE, FUZZ_PIECES, FUZZ_BYTES, FUZZ_PACES };

// How many bytes are there after the next step, when `avail` are there now.
TEST_FN size_t fuzz_next(const struct fuzz_input *in, enum fuzz_pace pace, size_t step, size_t avail) {
    size_t left = in->text.len - avail, piece = left;
    if (pace == FUZZ_BYTES) piece = 1;
    if (pace == FUZZ_PIECES) piece = fuzz_piece(fuzz_control(in, step));
    return avail + (piece < left ? piece : left);
}

// ---- comparing what was found ----

__attribute__((noreturn)) TEST_FN void fuzz_differ(const char *how, const struct fact *expected,
                                                   const struct fact *actual) {
    fprintf(stderr, "%s\n    expected %s ", how, expected ? expected->key : "nothing more");
    if (expected) test_quote(stderr, expected->value.ptr, expected->value.len);
    fprintf(stderr, "\n    actual   %s ", actual ? actual->key : "nothing more");
    if (actual) test_quote(stderr, actual->value.ptr, actual->value.len);
    fputc('\n', stderr);
    FAIL("the readings differ");
}

TEST_FN const struct fact *fuzz_fact(const struct facts *f, int i) {
    return i < f->num ? &f->list[i] : NULL;
}

TEST_FN void fuzz_same(const char *how, const struct facts *expected, const struct facts *actual) {
    for (int i = 0; i < expected->num || i < actual->num; i++) {
        const struct fact *a = fuzz_fact(expected, i), *b = fuzz_fact(actual, i);
        if (!a || !b || !same_fact(a, b)) fuzz_differ(how, a, b);
    }
}

TEST_FN const struct fact *fuzz_last(const struct facts *f) {
    return f->num ? &f->list[f->num - 1] : NULL;
}

TEST_FN bool fuzz_refused(const struct facts *f) {
    const struct fact *last = fuzz_last(f);
    return last && strcmp(last->key, "error") == 0;
}

TEST_FN int fuzz_status(const struct facts *f) {
    return fuzz_refused(f) ? atoi(fuzz_last(f)->value.ptr) : 0;
}

TEST_FN bool fuzz_unfinished(const struct facts *f) {
    const struct fact *last = fuzz_last(f);
    return last && strcmp(last->key, "more") == 0;
}

// As the parser's contract lists them.
TEST_FN bool fuzz_status_is_known(int status) {
    static const int known[] = {400, 413, 414, 431, 501, 505};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (status == known[i]) return true;
    return false;
}

#endif // FUZZ_H
