// The scans of >>text, which look for the end of a field value, a token, a path or a host many bytes at a time, against
// the grammar of the RFCs byte by byte. `test_scan --path` prints which way to scan the compiler's flags have chosen.

#define TEST_NO_MAIN
#define HTTPSRV_IMPLEMENTATION
#include "httpsrv.h"
#include "rooms.h"

// A scan may read up to 63 bytes before the place where it starts, if there are as many.
enum { MAX_RUN = 200, MAX_BEFORE = 70, MAX_LONG = 5000, MAX_ALIGN = 64 };

// The sanitizers slow everything down, and so does no optimisation: there the loops over lengths leave some out. An odd
// step still meets each remainder that a length can have by the size of a vector.
#if defined(TEST_TSAN)
#define LENGTH_STEP 23
#elif defined(TEST_ASAN) || !defined(__OPTIMIZE__)
#define LENGTH_STEP 5
#else
#define LENGTH_STEP 1
#endif

// Bytes before a text that AddressSanitizer lets nobody read. Right at the beginning of a block from malloc the text would
// be aligned like a vector, and a read of the whole vector around a byte would not leave the block.
enum { POISONED = 8 };
#ifdef TEST_ASAN
#include <sanitizer/asan_interface.h>
#define POISON(block) __asan_poison_memory_region((block), POISONED)
#else
#define POISON(block) ((void)(block))
#endif

// ---- what the scans accept, by the grammars ----

static bool one_of(const char *set, int c) {
    return c != 0 && strchr(set, c) != NULL;
}

static bool is_alpha_or_digit(int c) {
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

static bool is_value(int c) { // field-vchar and what may stand between, RFC 9110 section 5.5
    return c == ' ' || c == '\t' || (c >= 0x21 && c <= 0x7e) || c >= 0x80;
}

static bool is_token(int c) { // tchar, RFC 9110 section 5.6.2
    return is_alpha_or_digit(c) || one_of("!#$%&'*+-.^_`|~", c);
}

static bool is_host(int c) { // unreserved and sub-delims, RFC 3986 section 2; an escape ends the scan
    return is_alpha_or_digit(c) || one_of("-._~", c) || one_of("!$&'()*+,;=", c);
}

static bool is_path(int c) { // pchar and "/", RFC 3986 section 3.3; an escape ends the scan
    return is_host(c) || one_of(":@/", c);
}

// ---- the scans ----

typedef const char *(*scan_fn)(const char *begin, const char *p, const char *end);

struct scan {
    const char *name;
    scan_fn find_end;
    bool (*accepts)(int c);
    unsigned classes; // of hsrv_text_classes
    bool member[256];
    char inside[256], outside[256]; // the bytes that it accepts and the others
    uint32_t num_inside, num_outside;
};

static struct scan scans[] = {
    {.name = "value", .find_end = hsrv_text_value_end, .accepts = is_value, .classes = HSRV_VALUE},
    {.name = "token", .find_end = hsrv_text_token_end, .accepts = is_token, .classes = HSRV_TOKEN},
    {.name = "path", .find_end = hsrv_text_path_end, .accepts = is_path, .classes = HSRV_PATH},
    {.name = "host", .find_end = hsrv_text_host_end, .accepts = is_host, .classes = HSRV_HOST},
};

static void sort_bytes(struct scan *s) {
    for (int c = 0; c < 256; c++) {
        s->member[c] = s->accepts(c);
        if (s->member[c]) {
            s->inside[s->num_inside++] = (char)c;
        } else {
            s->outside[s->num_outside++] = (char)c;
        }
    }
}

static const char *naive_end(const struct scan *s, const char *p, const char *end) {
    while (p < end && s->member[(unsigned char)*p]) {
        p++;
    }
    return p;
}

static const char *table_end(const struct scan *s, const char *p, const char *end) {
    while (p < end && hsrv_text_is(*p, s->classes)) {
        p++;
    }
    return p;
}

static void check_end(const struct scan *s, const char *begin, const char *p, const char *end, const char *expected) {
    const char *actual = s->find_end(begin, p, end);
    if (actual == expected) return;
    FAIL("%s: %td bytes, %td before them, at an address that ends with %02x\n    actual   %td\n    expected %td",
         s->name, end - p, p - begin, (unsigned)((uintptr_t)p & 0xff), actual - p, expected - p);
}

// ---- bytes ----

static char random_inside(const struct scan *s) {
    return s->inside[random_below(s->num_inside)];
}

static char random_outside(const struct scan *s) {
    return s->outside[random_below(s->num_outside)];
}

// Those next to the bounds of a range, and those that a scan treats by themselves.
static char random_special(void) {
    static const char special[] = "_%\t ~!/:@[`{'*+.^|\"<>\\?#,;=()\x7f\x80\xff\x1f\r\n\v\b";
    return special[random_below(sizeof special)];
}

// Every other time letters alone, which all scans accept and pass over many at a time.
static void fill_inside(const struct scan *s, char *p, size_t len) {
    const bool letters = random_below(2) == 0;
    for (size_t i = 0; i < len; i++) {
        p[i] = letters ? (char)('a' + random_below(26)) : random_inside(s);
    }
}

static void fill_with_anything(char *p, size_t len) {
    for (size_t i = 0; i < len; i++) {
        p[i] = (char)random_bits();
    }
}

// Now and then a special byte or just any among accepted ones; how often differs from text to text.
static void fill_mixed(const struct scan *s, char *p, size_t len) {
    const uint32_t special = 1 + random_below(30), any = 1 + random_below(60);
    fill_inside(s, p, len);
    for (size_t i = 0; i < len; i++) {
        if (random_below(special) == 0) p[i] = random_special();
        if (random_below(any) == 0) p[i] = (char)random_bits();
    }
}

// FENCE_SIZE bytes between pages that cannot be read.
struct yard {
    char *begin, *end;
};

static struct yard open_yard(void) {
    char *pages = (char *)mmap(NULL, 3 * FENCE_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(pages != MAP_FAILED);
    CHECK_INT(mprotect(pages + FENCE_SIZE, FENCE_SIZE, PROT_READ | PROT_WRITE), 0);
    const struct yard yard = {pages + FENCE_SIZE, pages + 2 * (size_t)FENCE_SIZE};
    fill_with_anything(yard.begin, FENCE_SIZE);
    return yard;
}

// ---- tests ----

TEST(table_follows_the_grammar) {
    for (size_t i = 0; i < LENGTH(scans); i++) {
        for (int c = 0; c < 256; c++) {
            NOTE("%s, byte 0x%02x", scans[i].name, (unsigned)c);
            CHECK_INT(hsrv_text_is((char)c, scans[i].classes), scans[i].member[c]);
        }
    }
}

// Consecutive calls have different numbers of bytes before them, so that each byte meets each number.
static void check_every_byte(const struct scan *s, char *p, size_t len, size_t at) {
    static size_t before;
    for (int byte = 0; byte < 256; byte++) {
        before = (before + 1) % (MAX_BEFORE + 1);
        p[at] = (char)byte;
        check_end(s, p - before, p, p + len, p + (s->member[byte] ? len : at));
    }
}

// Each byte at each place of each length, in front of a page that cannot be read.
static void check_bytes(const struct scan *s) {
    const struct yard yard = open_yard();
    for (size_t len = 0; len <= MAX_RUN; len += LENGTH_STEP) {
        char *p = yard.end - len;
        for (size_t at = 0; at < len; at++) {
            NOTE("%s, length %zu, place %zu", s->name, len, at);
            fill_inside(s, p, len);
            check_every_byte(s, p, len, at);
        }
    }
}

TEST(every_byte_ends_a_value_or_does_not) {
    check_bytes(&scans[0]);
}

TEST(every_byte_ends_a_token_or_does_not) {
    check_bytes(&scans[1]);
}

TEST(every_byte_ends_a_path_or_does_not) {
    check_bytes(&scans[2]);
}

TEST(every_byte_ends_a_host_or_does_not) {
    check_bytes(&scans[3]);
}

// No end within, then one at each place, the last first. Those behind it stay for every other number of bytes before.
static void check_every_place(const struct scan *s, char *p, size_t len, size_t before) {
    NOTE("%s, length %zu, %zu before", s->name, len, before);
    fill_inside(s, p, len);
    check_end(s, p - before, p, p + len, p + len);
    for (size_t at = len; at-- > 0;) {
        p[at] = random_outside(s);
        check_end(s, p - before, p, p + len, p + at);
        if (before % 2 == 0) p[at] = random_inside(s);
    }
}

TEST(any_number_of_bytes_before_and_none_readable_behind) {
    const struct yard yard = open_yard();
    for (size_t i = 0; i < LENGTH(scans); i++) {
        for (size_t len = 0; len <= MAX_RUN; len += LENGTH_STEP) {
            for (size_t before = 0; before <= MAX_BEFORE; before++) {
                check_every_place(&scans[i], yard.end - len, len, before);
            }
        }
    }
}

TEST(any_number_of_bytes_before_and_none_readable_before_these) {
    const struct yard yard = open_yard();
    for (size_t i = 0; i < LENGTH(scans); i++) {
        for (size_t len = 0; len <= MAX_RUN; len += LENGTH_STEP) {
            for (size_t before = 0; before <= MAX_BEFORE; before++) {
                check_every_place(&scans[i], yard.begin + before, len, before);
            }
        }
    }
}

TEST(any_address) {
    const struct yard yard = open_yard();
    for (size_t i = 0; i < LENGTH(scans); i++) {
        for (size_t len = 0; len <= MAX_RUN; len += LENGTH_STEP) {
            for (size_t address = 0; address < MAX_ALIGN; address++) {
                check_every_place(&scans[i], yard.begin + MAX_BEFORE + address, len, 0);
                check_every_place(&scans[i], yard.begin + MAX_BEFORE + address, len, random_below(MAX_BEFORE + 1));
            }
        }
    }
}

// What lies before and behind is of the scan's bytes or is not, and decides nothing.
TEST(neighbours_do_not_matter) {
    const struct yard yard = open_yard();
    char *p = yard.begin + MAX_BEFORE;
    for (size_t i = 0; i < LENGTH(scans); i++) {
        for (size_t len = 0; len <= MAX_RUN; len++) {
            for (int sides = 0; sides < 4; sides++) {
                memset(yard.begin, sides & 1 ? random_inside(&scans[i]) : random_outside(&scans[i]), MAX_BEFORE);
                memset(p + len, sides & 2 ? random_inside(&scans[i]) : random_outside(&scans[i]), MAX_ALIGN);
                check_every_place(&scans[i], p, len, MAX_BEFORE);
                check_every_place(&scans[i], p, len, random_below(MAX_BEFORE));
            }
        }
    }
}

TEST(long_runs_end_where_they_end) {
    const struct yard yard = open_yard();
    for (size_t i = 0; i < LENGTH(scans); i++) {
        for (size_t len = 0; len <= MAX_LONG; len += LENGTH_STEP) {
            if (len % 500 == 0) fill_inside(&scans[i], yard.end - MAX_LONG, MAX_LONG);
            char *p = yard.end - len, *at = p + (len ? random_below((uint32_t)len) : 0);
            const char *begin = p - random_below(MAX_BEFORE + 1);
            NOTE("%s, length %zu", scans[i].name, len);
            check_end(&scans[i], begin, p, yard.end, yard.end);
            if (len == 0) continue;
            const char kept = *at;
            *at = random_outside(&scans[i]);
            check_end(&scans[i], begin, p, yard.end, at);
            *at = kept;
        }
    }
}

// From each end to the next as the parser does, with all that was scanned before still there to read.
static void check_walk(const struct scan *s, const char *begin, const char *end) {
    for (const char *p = begin;;) {
        const char *expected = naive_end(s, p, end);
        CHECK(table_end(s, p, end) == expected);
        check_end(s, begin, p, end, expected);
        if (expected == end) return;
        p = expected + 1;
    }
}

// Texts of any two bytes, in which inexact arithmetic on several bytes at once would let one of them spoil its neighbour.
TEST(any_two_bytes_beside_each_other) {
    const struct yard yard = open_yard();
    const size_t len = 48;
    char *p = yard.end - len;
    for (unsigned pair = 0; pair < 65536; pair += LENGTH_STEP) {
        const uint64_t mix = (uint64_t)random_bits() << 32 | random_bits();
        for (size_t i = 0; i < len; i++) {
            p[i] = (char)(mix >> i & 1 ? pair >> 8 : pair & 255);
        }
        NOTE("bytes 0x%02x and 0x%02x", pair >> 8, pair & 255);
        for (size_t i = 0; i < LENGTH(scans); i++) {
            check_walk(&scans[i], p, yard.end);
        }
    }
}

static void seed(int number) {
    random_state = 88172645463325252u ^ (uint64_t)(unsigned)number * 0x9e3779b97f4a7c15u;
    random_bits();
}

// At both ends of the yard and in a block of its own, outside of which AddressSanitizer sees every read.
TEST(random_texts) {
    const struct yard yard = open_yard();
    for (int round = 0; round < STORM(20000); round++) {
        seed(round);
        const struct scan *s = &scans[random_below(LENGTH(scans))];
        const size_t len = random_below(400);
        char *block = (char *)malloc(POISONED + len), *text = block + POISONED;
        CHECK(block != NULL);
        POISON(block);
        NOTE("%s, seed %d, length %zu", s->name, round, len);
        fill_mixed(s, text, len);
        memcpy(yard.begin, text, len);
        memcpy(yard.end - len, text, len);
        check_walk(s, text, text + len);
        check_walk(s, yard.begin, yard.begin + len);
        check_walk(s, yard.end - len, yard.end);
        free(block);
    }
}

int main(int argc, char **argv) {
    if (argc == 2 && strcmp(argv[1], "--path") == 0) return puts(HSRV_SCAN_PATH) < 0;
    for (size_t i = 0; i < LENGTH(scans); i++) {
        sort_bytes(&scans[i]);
    }
    return test_main(argc, argv);
}
