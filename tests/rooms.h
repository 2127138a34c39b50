// What the tests of single rooms share: random numbers, an allocator that keeps books, memory with a guard page behind.
// Include it after httpsrv.h.

#ifndef ROOMS_H
#define ROOMS_H

#include "test.h"

// Rounds of a storm: fewer where the sanitizers slow everything down.
#if defined(TEST_ASAN) || defined(TEST_TSAN)
#define STORM(rounds) ((rounds) / 8)
#else
#define STORM(rounds) (rounds)
#endif

#define LENGTH(array) (sizeof(array) / sizeof(array)[0])

// ---- random numbers: xorshift, the same in each run ----

static uint64_t random_state = 88172645463325252u;

TEST_FN uint32_t random_bits(void) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)(random_state >> 16);
}

TEST_FN uint32_t random_below(uint32_t n) {
    return random_bits() % n;
}

// ---- an allocator that knows what is out, checks the sizes it is told, and refuses when it has nothing left to grant ----

struct books {
    size_t live;   // bytes
    size_t calls;  // that asked for memory
    size_t grants; // how many more are granted
};

#define BOOKS \
    { 0, 0, SIZE_MAX }
#define BOOKS_FREED 0xdd // what freed memory is filled with

// Memory that was freed is marked and kept for a while, so that whoever still looks at it sees that it was.
// AddressSanitizer does that better.
TEST_FN void books_free(void *block, size_t size) {
#ifdef TEST_ASAN
    (void)size;
    free(block);
#else
    static void *kept[128];
    static size_t next;
    memset(block, BOOKS_FREED, size);
    free(kept[next]);
    kept[next] = block;
    next = (next + 1) % LENGTH(kept);
#endif
}

TEST_FN void *books_realloc(void *user, void *ptr, size_t old_size, size_t new_size) {
    struct books *books = (struct books *)user;
    char *block = ptr ? (char *)ptr - 16 : NULL;
    if (block) CHECK(memcmp(block, &old_size, sizeof old_size) == 0);
    if (!block) CHECK_INT(old_size, 0);
    if (new_size > 0) {
        books->calls++;
        if (books->grants == 0) return NULL;
        if (books->grants != SIZE_MAX) books->grants--;
    }
    books->live += new_size - old_size;
    char *moved =
        new_size > 0 ? (char *)malloc(16 + new_size) : NULL; // a new place each time: nobody may rely on the old
    if (moved) {
        memcpy(moved, &new_size, sizeof new_size);
        memset(moved + 16, 0xcd, new_size);
        if (block) memcpy(moved + 16, ptr, old_size < new_size ? old_size : new_size);
    }
    if (block) books_free(block, 16 + old_size);
    return moved ? moved + 16 : NULL;
}

TEST_FN void books_open(struct books *books, hsrv_memory *memory) {
    const struct books fresh = BOOKS;
    *books = fresh;
    hsrv_memory_init(memory, books_realloc, books);
}

#define CHECK_BOOKS(books, memory, expected)      \
    do {                                          \
        CHECK_INT((books)->live, (expected));     \
        CHECK_INT((memory)->used, (books)->live); \
    } while (0)

// ---- memory that ends at a page which cannot be read ----

#define FENCE_SIZE 65536u

// The end of FENCE_SIZE bytes; a block of n bytes that must not be overrun begins at end - n.
TEST_FN char *fence_end(void) {
    char *pages = (char *)mmap(NULL, 2 * FENCE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(pages != MAP_FAILED);
    CHECK_INT(mprotect(pages + FENCE_SIZE, FENCE_SIZE, PROT_NONE), 0);
    return pages + FENCE_SIZE;
}

#endif // ROOMS_H
