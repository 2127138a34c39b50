// >>memory and >>output, with an allocator that keeps books: account, buffer, arena, slab, chain.

#define HTTPSRV_IMPLEMENTATION
#include "httpsrv.h"
#include "rooms.h"

// ---- account ----

TEST(account_follows_every_resize) {
    struct books books;
    hsrv_memory memory;
    char *blocks[32] = {NULL};
    size_t sizes[32] = {0}, total = 0;
    books_open(&books, &memory);
    for (int round = 0; round < STORM(100000); round++) {
        const uint32_t i = random_below(LENGTH(blocks));
        const size_t size = random_below(300);
        books.grants = random_below(4) ? SIZE_MAX : 0;
        char *block = (char *)hsrv_memory_resize(&memory, blocks[i], sizes[i], size);
        if (block || size == 0) {
            total += size - sizes[i];
            blocks[i] = block;
            sizes[i] = size;
            if (size > 0) block[size - 1] = (char)i;
        } else {
            CHECK(books.grants == 0 && (sizes[i] == 0 || blocks[i][sizes[i] - 1] == (char)i)); // as it was
        }
        CHECK_BOOKS(&books, &memory, total);
    }
    for (size_t i = 0; i < LENGTH(blocks); i++) {
        hsrv_memory_give(&memory, blocks[i], sizes[i]);
    }
    CHECK_BOOKS(&books, &memory, 0);
}

TEST(account_of_the_default_allocator) {
    hsrv_memory memory;
    hsrv_memory_init(&memory, NULL, NULL);
    char *text = hsrv_memory_copy_text(&memory, "twelve bytes");
    CHECK_STR(text, "twelve bytes");
    CHECK_INT(memory.used, 13);
    char *zeroed = (char *)hsrv_memory_take_zeroed(&memory, 100);
    CHECK(zeroed && zeroed[0] == 0 && memcmp(zeroed, zeroed + 1, 99) == 0);
    zeroed = (char *)hsrv_memory_resize(&memory, zeroed, 100, 5000);
    CHECK_INT(memory.used, 5013);
    hsrv_memory_give(&memory, zeroed, 5000);
    hsrv_memory_give_text(&memory, text);
    hsrv_memory_give_text(&memory, NULL);
    hsrv_memory_give(&memory, NULL, 77);
    CHECK_INT(memory.used, 0);
}

TEST(sizes_that_no_object_has_are_refused) {
    static const size_t sizes[] = {(size_t)PTRDIFF_MAX + 1, SIZE_MAX - 15, SIZE_MAX};
    struct books books;
    hsrv_memory memory;
    books_open(&books, &memory);
    for (size_t i = 0; i < LENGTH(sizes); i++) {
        CHECK(hsrv_memory_take(&memory, sizes[i]) == NULL);
        CHECK(hsrv_output_new(&memory, sizes[i]) == NULL);
    }
    CHECK(hsrv_output_new(&memory, PTRDIFF_MAX) == NULL);
    CHECK_INT(books.calls, 0);
    CHECK_BOOKS(&books, &memory, 0);
}

// ---- buffer ----

TEST(buffer_doubles) {
    const size_t size = 1 << 20;
    struct books books;
    hsrv_memory memory;
    hsrv_buffer buffer = {NULL, 0, 0};
    books_open(&books, &memory);
    for (size_t i = 0; i < size; i++) {
        const char byte = (char)(i * 7);
        CHECK(hsrv_memory_buffer_append(&memory, &buffer, &byte, 1));
    }
    CHECK_INT(buffer.len, size);
    CHECK_CMP(buffer.cap, <=, 2 * size);
    CHECK_CMP(books.calls, <=, 12); // 512 bytes to 1 MB in powers of two
    for (size_t i = 0; i < size; i++) {
        if (buffer.ptr[i] != (char)(i * 7)) FAIL("byte %zu has changed", i);
    }
    CHECK_BOOKS(&books, &memory, buffer.cap);
    hsrv_memory_buffer_free(&memory, &buffer);
    CHECK(buffer.ptr == NULL && buffer.len == 0 && buffer.cap == 0);
    CHECK_BOOKS(&books, &memory, 0);
}

TEST(buffer_reserves_what_was_asked_for) {
    static const size_t wanted[] = {0, 1, 511, 512, 513, 1024, 5000, 100000};
    struct books books;
    hsrv_memory memory;
    books_open(&books, &memory);
    for (size_t i = 0; i < LENGTH(wanted); i++) {
        for (size_t k = 0; k < LENGTH(wanted); k++) {
            hsrv_buffer buffer = {NULL, 0, 0};
            CHECK(hsrv_memory_buffer_reserve(&memory, &buffer, wanted[i]));
            CHECK_CMP(buffer.cap, >=, wanted[i]);
            buffer.len = wanted[i];
            CHECK(hsrv_memory_buffer_reserve(&memory, &buffer, wanted[k]));
            CHECK_CMP(buffer.cap - buffer.len, >=, wanted[k]);
            hsrv_memory_buffer_free(&memory, &buffer);
        }
    }
    CHECK_BOOKS(&books, &memory, 0);
}

TEST(buffer_refuses_and_stays) {
    static const size_t too_much[] = {SIZE_MAX,
                                      SIZE_MAX - 3,
                                      SIZE_MAX / 2,
                                      (size_t)PTRDIFF_MAX,
                                      (size_t)PTRDIFF_MAX - 3,
                                      (size_t)PTRDIFF_MAX / 2 + 1};
    struct books books;
    hsrv_memory memory;
    hsrv_buffer buffer = {NULL, 0, 0};
    books_open(&books, &memory);
    CHECK(hsrv_memory_buffer_append(&memory, &buffer, "abc", 3));
    const hsrv_buffer before = buffer;
    books.grants = 0;
    for (size_t i = 0; i < LENGTH(too_much); i++) {
        NOTE("row %zu", i);
        const size_t calls = books.calls;
        CHECK(!hsrv_memory_buffer_reserve(&memory, &buffer, too_much[i]));
        CHECK_INT(books.calls, calls); // not even tried
    }
    CHECK(!hsrv_memory_buffer_reserve(&memory, &buffer, 510));
    CHECK(memcmp(&buffer, &before, sizeof buffer) == 0);
    CHECK_MEM(buffer.ptr, buffer.len, "abc", 3);
    CHECK(hsrv_memory_buffer_reserve(&memory, &buffer, 509)); // is there already
    hsrv_memory_buffer_free(&memory, &buffer);
    CHECK_BOOKS(&books, &memory, 0);
}

// ---- arena ----

struct lent {
    _Alignas(16) char bytes[256];
};

static bool inside(const char *p, size_t len, const struct lent *lent) {
    return p >= lent->bytes && p + len <= lent->bytes + sizeof lent->bytes;
}

TEST(arena_begins_in_the_piece_it_was_lent) {
    struct books books;
    hsrv_memory memory;
    hsrv_arena arena;
    struct lent lent;
    books_open(&books, &memory);
    hsrv_memory_arena_init(&arena, &memory, lent.bytes, sizeof lent.bytes);
    for (int i = 0; i < 15; i++) {
        CHECK((char *)hsrv_memory_arena_take(&arena, i % 2 ? 16 : 1) == lent.bytes + 16 * i);
    }
    CHECK(!inside((char *)hsrv_memory_arena_take(&arena, 17), 17, &lent)); // more than what is left of it
    CHECK_BOOKS(&books, &memory, 4096);
    hsrv_memory_arena_free(&arena);
    CHECK_BOOKS(&books, &memory, 0);
    hsrv_memory_arena_init(&arena, &memory, lent.bytes, sizeof lent.bytes);
    CHECK(hsrv_memory_arena_take(&arena, sizeof lent.bytes) == lent.bytes); // to its last byte
    CHECK_INT(books.live, 0);
    hsrv_memory_arena_free(&arena);
}

TEST(arena_pieces_are_aligned_and_apart) {
    enum { PIECES = 200 };
    struct books books;
    hsrv_memory memory;
    books_open(&books, &memory);
    for (int round = 0; round < STORM(400); round++) {
        hsrv_arena arena;
        struct lent lent;
        char *pieces[PIECES];
        size_t sizes[PIECES];
        hsrv_memory_arena_init(&arena, &memory, lent.bytes, random_below(17) * 16);
        for (int i = 0; i < PIECES; i++) {
            sizes[i] = random_below(8) ? random_below(100) : random_below(9000);
            pieces[i] = (char *)hsrv_memory_arena_take(&arena, sizes[i]);
            CHECK(pieces[i] && (uintptr_t)pieces[i] % 16 == 0);
            memset(pieces[i], i, sizes[i]);
        }
        for (int i = 0; i < PIECES; i++) {
            for (size_t k = 0; k < sizes[i]; k++) {
                if (pieces[i][k] != (char)i) FAIL("piece %d was written over", i);
            }
        }
        hsrv_memory_arena_free(&arena);
        CHECK_BOOKS(&books, &memory, 0);
    }
}

// A large block of its own does not end the use of the one that has room.
TEST(arena_keeps_the_roomier_block) {
    struct books books;
    hsrv_memory memory;
    hsrv_arena arena;
    struct lent lent;
    books_open(&books, &memory);
    hsrv_memory_arena_init(&arena, &memory, lent.bytes, sizeof lent.bytes);
    CHECK(!inside((char *)hsrv_memory_arena_take(&arena, 10000), 10000, &lent));
    CHECK_BOOKS(&books, &memory, 10000 + 16);
    CHECK(hsrv_memory_arena_take(&arena, 16) == lent.bytes);
    CHECK(hsrv_memory_arena_take(&arena, 300) != NULL); // a block with more room left than the lent piece has
    const char *next = arena.cur;
    CHECK(!inside(next, 1, &lent));
    CHECK(hsrv_memory_arena_take(&arena, 3000) == next);
    CHECK_INT(books.calls, 2);
    hsrv_memory_arena_free(&arena);
    CHECK_BOOKS(&books, &memory, 0);
}

TEST(arena_refuses_and_goes_on) {
    static const size_t too_much[] = {SIZE_MAX, SIZE_MAX - 15, SIZE_MAX / 2, (size_t)PTRDIFF_MAX};
    static const char large[257];
    struct books books;
    hsrv_memory memory;
    hsrv_arena arena;
    struct lent lent;
    books_open(&books, &memory);
    hsrv_memory_arena_init(&arena, &memory, lent.bytes, sizeof lent.bytes);
    books.grants = 0;
    for (size_t i = 0; i < LENGTH(too_much); i++) {
        CHECK(hsrv_memory_arena_take(&arena, too_much[i]) == NULL);
    }
    CHECK_INT(books.calls, 0);
    CHECK(hsrv_memory_arena_take(&arena, 257) == NULL);
    CHECK(hsrv_memory_arena_copy(&arena, hsrv_text_view(large, sizeof large)).ptr == NULL);
    CHECK_VIEW(hsrv_memory_arena_copy(&arena, hsrv_text_view("abc", 3)), "abc");
    CHECK_VIEW(hsrv_memory_arena_copy(&arena, hsrv_text_view("abc", 0)), "");
    CHECK_VIEW(hsrv_memory_arena_copy(&arena, hsrv_text_absent()), "");
    const char *one = (const char *)hsrv_memory_arena_take(&arena, 0);
    CHECK(one && one != hsrv_memory_arena_take(&arena, 0));
    books.grants = 1;
    CHECK(hsrv_memory_arena_take(&arena, 257) != NULL);
    hsrv_memory_arena_free(&arena);
    CHECK_BOOKS(&books, &memory, 0);
}

// ---- slab ----

#define ITEM 24u

static size_t slab_bytes(const hsrv_slab *slab, size_t chunks) {
    return slab->num_chunks * sizeof(hsrv_chunk) + chunks * 64 * ITEM;
}

// Takes all that there is; each slot once, each item at its own place.
static uint32_t slab_fill(hsrv_slab *slab, char **items) {
    uint32_t count = 0, slot;
    for (char *item; (item = (char *)hsrv_memory_slab_take(slab, &slot)) != NULL; count++) {
        CHECK_CMP(slot, <, slab->num_chunks * 64);
        CHECK(items[slot] == NULL);
        items[slot] = item;
        memset(item, (int)slot, ITEM);
    }
    for (uint32_t i = 0; i < count; i++) {
        CHECK(hsrv_memory_slab_used(slab, i));
        CHECK(hsrv_memory_slab_at(slab, i) == items[i]);
        CHECK(items[i][0] == (char)i && items[i][ITEM - 1] == (char)i);
    }
    return count;
}

TEST(slab_to_the_last_slot) {
    static const uint32_t sizes[] = {1, 63, 64, 65, 128, 300};
    for (size_t i = 0; i < LENGTH(sizes); i++) {
        struct books books;
        hsrv_memory memory;
        hsrv_slab slab;
        char *items[320] = {NULL};
        books_open(&books, &memory);
        NOTE("%u items", sizes[i]);
        CHECK(hsrv_memory_slab_init(&slab, &memory, ITEM, sizes[i]));
        CHECK_BOOKS(&books, &memory, slab_bytes(&slab, 0));
        const uint32_t count = slab_fill(&slab, items);
        CHECK_INT(count, (sizes[i] + 63) / 64 * 64);
        CHECK_BOOKS(&books, &memory, slab_bytes(&slab, slab.num_chunks));
        for (uint32_t slot = 0; slot < count; slot++) { // one out, the same one in
            uint32_t again;
            hsrv_memory_slab_give(&slab, slot);
            CHECK(hsrv_memory_slab_take(&slab, &again) == items[slot]);
            CHECK_INT(again, slot);
        }
        for (uint32_t slot = count; slot-- > 0;) {
            hsrv_memory_slab_give(&slab, slot);
        }
        CHECK_BOOKS(&books, &memory, slab_bytes(&slab, 1));
        hsrv_memory_slab_free(&slab);
        hsrv_memory_slab_free(&slab);
        CHECK_BOOKS(&books, &memory, 0);
    }
}

TEST(slab_gives_chunks_back) {
    struct books books;
    hsrv_memory memory;
    hsrv_slab slab;
    char *items[256] = {NULL};
    books_open(&books, &memory);
    CHECK(hsrv_memory_slab_init(&slab, &memory, ITEM, 256));
    CHECK_INT(slab_fill(&slab, items), 256);
    for (uint32_t chunk = 0; chunk < 4; chunk++) {
        for (uint32_t i = 0; i < 64; i++) {
            CHECK_BOOKS(&books, &memory, slab_bytes(&slab, chunk < 1 ? 4 : 5 - chunk)); // one empty one is kept
            hsrv_memory_slab_give(&slab, chunk * 64 + i);
            CHECK(!hsrv_memory_slab_used(&slab, chunk * 64 + i));
        }
        CHECK((hsrv_memory_slab_at(&slab, chunk * 64) == NULL) == (chunk > 0));
    }
    CHECK_BOOKS(&books, &memory, slab_bytes(&slab, 1));
    for (uint32_t slot = 0; slot < 256; slot++) {
        CHECK(!hsrv_memory_slab_used(&slab, slot));
    }
    memset(items, 0, sizeof items);
    CHECK_INT(slab_fill(&slab, items), 256); // and all of them come back
    hsrv_memory_slab_free(&slab);
    CHECK_BOOKS(&books, &memory, 0);
}

static void check_slab(const hsrv_slab *slab, char *const *items, const struct books *books,
                       const hsrv_memory *memory) {
    size_t busy = 0, kept = 0;
    for (uint32_t chunk = 0; chunk < slab->num_chunks; chunk++) {
        uint32_t used = 0;
        for (uint32_t slot = chunk * 64; slot < chunk * 64 + 64; slot++) {
            CHECK_INT(hsrv_memory_slab_used(slab, slot), items[slot] != NULL);
            if (!items[slot]) continue;
            used++;
            CHECK(hsrv_memory_slab_at(slab, slot) == items[slot]);
            CHECK(items[slot][0] == (char)slot && items[slot][ITEM - 1] == (char)slot);
        }
        busy += used > 0;
        kept += used == 0 && hsrv_memory_slab_at(slab, chunk * 64) != NULL;
    }
    CHECK_CMP(kept, <=, 1);
    CHECK_BOOKS(books, memory, slab_bytes(slab, busy + kept));
}

// Load comes and goes in waves; memory fails now and then.
TEST(slab_storm) {
    enum { SLOTS = 320 };
    struct books books;
    hsrv_memory memory;
    hsrv_slab slab;
    char *items[SLOTS] = {NULL};
    uint32_t count = 0, wave = 0;
    books_open(&books, &memory);
    CHECK(hsrv_memory_slab_init(&slab, &memory, ITEM, SLOTS));
    for (int round = 0; round < STORM(200000); round++) {
        uint32_t slot = random_below(SLOTS);
        if (round % 1000 == 0) wave = random_below(9);
        if (round % 100 == 0) check_slab(&slab, items, &books, &memory);
        if (random_below(8) >= wave) {
            if (items[slot]) hsrv_memory_slab_give(&slab, slot);
            count -= items[slot] != NULL;
            items[slot] = NULL;
            continue;
        }
        books.grants = random_below(3) ? SIZE_MAX : 0;
        const size_t calls = books.calls;
        char *item = (char *)hsrv_memory_slab_take(&slab, &slot);
        NOTE("round %d", round);
        if (!item) {
            CHECK(count == SLOTS || (books.grants == 0 && books.calls == calls + 1));
            continue;
        }
        CHECK(items[slot] == NULL);
        items[slot] = item;
        memset(item, (int)slot, ITEM);
        count++;
    }
    hsrv_memory_slab_free(&slab);
    CHECK_BOOKS(&books, &memory, 0);
}

TEST(slab_without_memory) {
    struct books books;
    hsrv_memory memory;
    hsrv_slab slab;
    uint32_t slot;
    books_open(&books, &memory);
    books.grants = 0;
    CHECK(!hsrv_memory_slab_init(&slab, &memory, ITEM, 100));
    hsrv_memory_slab_free(&slab);
    books.grants = 1;
    CHECK(hsrv_memory_slab_init(&slab, &memory, ITEM, 100));
    CHECK(hsrv_memory_slab_take(&slab, &slot) == NULL);
    CHECK(hsrv_memory_slab_at(&slab, 0) == NULL);
    CHECK(!hsrv_memory_slab_used(&slab, 99));
    books.grants = 1;
    CHECK(hsrv_memory_slab_take(&slab, &slot) != NULL);
    hsrv_memory_slab_free(&slab);
    CHECK_BOOKS(&books, &memory, 0);
}

// ---- chain ----

struct piece {
    const char *text;
    bool borrowed;
};

static const struct piece chain_pieces[] = {{"abcde", false}, {"fgh", true}, {"", false},       {"i", false},
                                            {"", true},       {"jk", true},  {"lmnopqr", true}, {"st", false}};
static const char chain_text[] = "abcdefghijklmnopqrst";
#define CHAIN_LEN (sizeof chain_text - 1)

static int chain_releases[LENGTH(chain_pieces)];

static void count_release(void *arg) {
    (*(int *)arg)++;
}

static void chain_make(hsrv_memory *memory, hsrv_chain *chain) {
    memset(chain, 0, sizeof *chain);
    memset(chain_releases, 0, sizeof chain_releases);
    for (size_t i = 0; i < LENGTH(chain_pieces); i++) {
        const struct piece *piece = &chain_pieces[i];
        const size_t len = strlen(piece->text);
        hsrv_segment *segment = hsrv_output_new(memory, piece->borrowed ? 0 : len);
        CHECK(segment != NULL);
        if (piece->borrowed) {
            segment->ptr = piece->text;
            segment->len = len;
            segment->release = count_release;
            segment->release_arg = &chain_releases[i];
        } else {
            memcpy((char *)(segment + 1), piece->text, len);
        }
        hsrv_output_append(chain, segment);
    }
}

// After n bytes were taken: the rest is in the chain, and a piece was released if and only if it is no part of it.
static void check_chain(const hsrv_chain *chain, size_t n) {
    char rest[CHAIN_LEN];
    size_t len = 0, begins = 0;
    const hsrv_segment *last = NULL;
    for (const hsrv_segment *s = chain->first; s; s = s->next) {
        memcpy(rest + len, s->ptr, s->len);
        len += s->len;
        last = s;
    }
    CHECK_MEM(rest, len, chain_text + n, CHAIN_LEN - n);
    CHECK(chain->last == last);
    for (size_t i = 0; i < LENGTH(chain_pieces); i++) {
        const size_t piece_len = strlen(chain_pieces[i].text);
        if (chain_pieces[i].borrowed && piece_len > 0) CHECK_INT(chain_releases[i], begins + piece_len <= n);
        CHECK_CMP(chain_releases[i], <=, chain_pieces[i].borrowed);
        begins += piece_len;
    }
}

TEST(chain_at_all_splits) {
    struct books books;
    hsrv_memory memory;
    books_open(&books, &memory);
    for (size_t first = 0; first <= CHAIN_LEN; first++) {
        for (size_t second = first; second <= CHAIN_LEN; second++) {
            hsrv_chain chain;
            NOTE("%zu, %zu", first, second);
            chain_make(&memory, &chain);
            check_chain(&chain, 0);
            hsrv_output_consume(&memory, &chain, first);
            check_chain(&chain, first);
            hsrv_output_consume(&memory, &chain, second - first);
            check_chain(&chain, second);
            if ((first + second) % 2)
                hsrv_output_clear(&memory, &chain);
            else
                hsrv_output_consume(&memory, &chain, CHAIN_LEN - second);
            CHECK(chain.first == NULL && chain.last == NULL);
            for (size_t i = 0; i < LENGTH(chain_pieces); i++) {
                CHECK_INT(chain_releases[i], chain_pieces[i].borrowed);
            }
            CHECK_BOOKS(&books, &memory, 0);
        }
    }
}

TEST(chain_goes_on_after_it_was_empty) {
    struct books books;
    hsrv_memory memory;
    hsrv_chain chain;
    books_open(&books, &memory);
    chain_make(&memory, &chain);
    hsrv_output_consume(&memory, &chain, CHAIN_LEN);
    hsrv_segment *segment = hsrv_output_new(&memory, 1);
    CHECK(segment != NULL);
    hsrv_output_append(&chain, segment);
    CHECK(chain.first == segment && chain.last == segment && segment->next == NULL);
    hsrv_output_clear(&memory, &chain);
    hsrv_output_clear(&memory, &chain);
    CHECK_BOOKS(&books, &memory, 0);
    books.grants = 0;
    CHECK(hsrv_output_new(&memory, 1) == NULL);
}

// More pieces than one call sends, through a pipe of the kernel's that takes them bit by bit.
TEST(chain_through_a_socket) {
    enum { PIECES = 100, SIZE = 999 };
    struct books books;
    hsrv_memory memory;
    hsrv_chain chain = {NULL, NULL};
    int ends[2], rounds = 0;
    size_t asked, done, received = 0;
    books_open(&books, &memory);
    CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
    for (int i = 0; i < PIECES; i++) {
        hsrv_segment *segment = hsrv_output_new(&memory, SIZE);
        CHECK(segment != NULL);
        memset((char *)(segment + 1), i, SIZE);
        hsrv_output_append(&chain, segment);
    }
    for (; received < (size_t)PIECES * SIZE; rounds++) {
        char buf[4096];
        hsrv_io io = hsrv_output_send_chain(ends[0], &chain, &asked, &done);
        CHECK(chain.first == NULL || asked > 0);
        CHECK_CMP(asked, <=, HSRV_SEND_PIECES * SIZE);
        CHECK_CMP(done, <=, asked);
        CHECK(io == HSRV_IO_OK || (io == HSRV_IO_AGAIN && done == 0));
        hsrv_output_consume(&memory, &chain, done);
        io = hsrv_output_read(ends[1], buf, sizeof buf, &done);
        CHECK_INT(io, HSRV_IO_OK);
        for (size_t i = 0; i < done; i++, received++) {
            if (buf[i] != (char)(received / SIZE)) FAIL("byte %zu is another", received);
        }
    }
    CHECK(chain.first == NULL);
    CHECK_INT(hsrv_output_read(ends[1], (char *)&asked, 1, &done), HSRV_IO_AGAIN);
    close(ends[0]);
    CHECK_INT(hsrv_output_read(ends[1], (char *)&asked, 1, &done), HSRV_IO_EOF);
    CHECK_INT(hsrv_output_send(ends[1], "x", 1, &done), HSRV_IO_LOST);
    CHECK_INT(done, 0);
    CHECK_BOOKS(&books, &memory, 0);
}
