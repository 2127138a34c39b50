// The inputs in fuzz/corpus and fuzz/regressions once more, through the entry points of the fuzzers: what a fuzzer has
// found stays fixed, and no engine is needed to see that. tests/fuzz/run.sh looks for new ones.

#define LLVMFuzzerTestOneInput fuzz_head
#include "fuzz/fuzz_head.c"
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput fuzz_body
#include "fuzz/fuzz_body.c"
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput fuzz_target
#include "fuzz/fuzz_target.c"
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput fuzz_conn
#include "fuzz/fuzz_conn.c"
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput fuzz_multipart
#include "fuzz/fuzz_multipart.c"
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput fuzz_urlencoded
#include "fuzz/fuzz_urlencoded.c"
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput fuzz_cookie
#include "fuzz/fuzz_cookie.c"
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput fuzz_range
#include "fuzz/fuzz_range.c"
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput fuzz_accept
#include "fuzz/fuzz_accept.c"
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput fuzz_path
#include "fuzz/fuzz_path.c"
#undef LLVMFuzzerTestOneInput
#include <dirent.h>

#define MIN_SEEDS 20 // fewer would mean that the folder is not the right one

typedef int (*entry_point)(const uint8_t *data, size_t size);

// A path beside this file.
static void path_of(char *out, size_t size, const char *folder, const char *name, const char *file) {
    const char *source = __FILE__, *slash = strrchr(source, '/');
    int n = snprintf(out, size, "%.*sfuzz/%s/%s%s%s", slash ? (int)(slash + 1 - source) : 0, source, folder, name,
                     *file ? "/" : "", file);
    CHECK(n > 0 && (size_t)n < size);
}

static struct bytes read_file(const char *path) {
    struct bytes b = {NULL, 0, 0};
    char block[4096];
    FILE *f = fopen(path, "rb");
    if (!f) FAIL("%s: %s", path, strerror(errno));
    append(&b, "", 0);
    for (size_t n; (n = fread(block, 1, sizeof block, f)) > 0;)
        append(&b, block, n);
    fclose(f);
    return b;
}

static void replay_file(const char *path, entry_point run) {
    struct bytes b = read_file(path);
    NOTE("%s", path);
    run((const uint8_t *)b.ptr, b.len);
    release_bytes(&b);
}

// How many inputs there were. An input is no hidden file and no note to the reader.
static int replay_folder(const char *folder, const char *name, entry_point run) {
    char path[512];
    int count = 0;
    path_of(path, sizeof path, folder, name, "");
    DIR *dir = opendir(path);
    if (!dir) FAIL("%s: %s", path, strerror(errno));
    for (const struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        if (entry->d_name[0] == '.' || strcmp(entry->d_name, "README.md") == 0) continue;
        path_of(path, sizeof path, folder, name, entry->d_name);
        replay_file(path, run);
        count++;
    }
    closedir(dir);
    return count;
}

static void replay(const char *name, entry_point run) {
    CHECK_CMP(replay_folder("corpus", name, run), >=, MIN_SEEDS);
    replay_folder("regressions", name, run);
}

// Each beginning of an input is an input, too.
static void replay_beginnings(const char *name, const char *file, entry_point run) {
    char path[512];
    path_of(path, sizeof path, "corpus", name, file);
    struct bytes b = read_file(path);
    for (size_t len = 0; len <= b.len; len++) {
        NOTE("the first %zu bytes of %s", len, path);
        run((const uint8_t *)b.ptr, len);
    }
    release_bytes(&b);
}

// Its inputs, and the beginnings of one of them.
#define FUZZER(id, name)                         \
    TEST(id) {                                   \
        replay(#id, fuzz_##id);                  \
    }                                            \
    TEST(id##_beginnings) {                      \
        replay_beginnings(#id, name, fuzz_##id); \
    }

FUZZER(head, "browser")
FUZZER(body, "trailers")
FUZZER(target, "absolute")
FUZZER(conn, "chunked")
FUZZER(multipart, "file")
FUZZER(urlencoded, "percent")
FUZZER(cookie, "spaces")
FUZZER(range, "sixteen-and-outside")
FUZZER(accept, "quoted")
FUZZER(path, "link-too-many")

TEST(conn_with_pool) {
    conn_pool = true;
    replay("conn", fuzz_conn);
}
