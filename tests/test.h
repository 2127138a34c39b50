// A small test harness. Each test runs in a process of its own, so that a crash, a hang or a leak is the
// failure of that test alone.
//
//     #include "test.h"
//
//     TEST(sum) {
//         CHECK_INT(1 + 1, 2);
//     }
//
// The header brings main(). Arguments: -l lists the tests, -v reports each, -n runs them in this process (for
// debuggers), anything else selects the tests that have it in their names. The last line is "N passed, N
// failed". All time limits are multiplied by TEST_TIMEOUT_SCALE from the environment (without it: 3 under a
// sanitizer); valgrind and emulators are slow.

#ifndef TEST_H
#define TEST_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#if defined(__has_feature)
#define TEST_HAS_FEATURE(feature) __has_feature(feature)
#else
#define TEST_HAS_FEATURE(feature) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || TEST_HAS_FEATURE(address_sanitizer)
#define TEST_ASAN 1
#endif
#if defined(__SANITIZE_THREAD__) || TEST_HAS_FEATURE(thread_sanitizer)
#define TEST_TSAN 1
#endif
// TEST_FEWER: so many, or a part of it where a sanitizer slows everything down.
#if defined(TEST_ASAN) || defined(TEST_TSAN)
#define TEST_DEFAULT_SCALE     3
#define TEST_FEWER(n, divisor) ((n) / (divisor))
#else
#define TEST_DEFAULT_SCALE     1
#define TEST_FEWER(n, divisor) (n)
#endif

#ifndef TEST_TIMEOUT_MS
#define TEST_TIMEOUT_MS 20000
#endif

#define ROWS(table) (sizeof(table) / sizeof *(table))

#define TEST_FN            __attribute__((unused)) static
#define TEST_EXIT_SKIPPED  77
#define TEST_EXIT_FAILED   1
#define TEST_PRINTED_BYTES 1200 // of each side of a comparison

struct test {
    const char *name;
    void (*run)(void);
    struct test *next;
};

// What a test tells its parent while it runs: a dead or hanging process cannot say any more where it was.
struct test_trace {
    const char *file;
    int line;
    char note[400];
};

static struct test *test_first;
static struct test **test_last = &test_first;
static struct test_trace test_trace_local;
static struct test_trace *test_trace = &test_trace_local;

#define TEST(id)                                                        \
    static void test_case_##id(void);                                   \
    static struct test test_entry_##id = {#id, test_case_##id, NULL};   \
    __attribute__((constructor)) static void test_case_add_##id(void) { \
        *test_last = &test_entry_##id;                                  \
        test_last = &test_entry_##id.next;                              \
    }                                                                   \
    static void test_case_##id(void)

// ---- time ----

TEST_FN int64_t test_now(void) { // milliseconds
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

TEST_FN double test_scale(void) {
    static double scale; // set before a test has threads
    if (scale == 0) {
        const char *text = getenv("TEST_TIMEOUT_SCALE");
        scale = text ? atof(text) : 0;
        if (scale < 0.1) scale = TEST_DEFAULT_SCALE;
    }
    return scale;
}

TEST_FN int test_ms(int ms) { // stretched for slow surroundings
    return (int)(ms * test_scale());
}

TEST_FN void test_sleep(int ms) {
    struct timespec t = {ms / 1000, ms % 1000 * 1000000L};
    while (nanosleep(&t, &t) && errno == EINTR)
        continue;
}

// ---- checks: any thread; the first one that fails ends the test ----

#define TEST_HERE()                                                                 \
    (__atomic_store_n(&test_trace->file, (const char *)__FILE__, __ATOMIC_RELAXED), \
     __atomic_store_n(&test_trace->line, __LINE__, __ATOMIC_RELAXED))

// Says what the following checks are about (which row of a table); shown if one fails. From the test's own
// thread.
#define NOTE(...) test_note(__VA_ARGS__)

__attribute__((format(printf, 1, 2))) TEST_FN void test_note(const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(test_trace->note, sizeof test_trace->note, format, args);
    va_end(args);
    for (char *at = test_trace->note; *at; at++)
        if ((unsigned char)*at < 32 || (unsigned char)*at > 126) *at = '~'; // one line, whatever is in it
}

TEST_FN void test_quote(FILE *to, const char *ptr, size_t len) {
    size_t shown = len < TEST_PRINTED_BYTES ? len : TEST_PRINTED_BYTES;
    if (!ptr) {
        fputs("(null)", to);
        return;
    }
    fputc('"', to);
    for (size_t i = 0; i < shown; i++) {
        unsigned char byte = (unsigned char)ptr[i];
        if (byte == '\r')
            fputs("\\r", to);
        else if (byte == '\n')
            fputs("\\n", to);
        else if (byte == '"' || byte == '\\')
            fprintf(to, "\\%c", byte);
        else if (byte < 32 || byte > 126)
            fprintf(to, "\\x%02x", byte);
        else
            fputc(byte, to);
    }
    fprintf(to, "\"%s (%zu bytes)", shown < len ? "..." : "", len);
}

TEST_FN void test_head(const char *file, int line) {
    int here = __atomic_load_n(&test_trace->line, __ATOMIC_RELAXED);
    const char *where = __atomic_load_n(&test_trace->file, __ATOMIC_RELAXED);
    fprintf(stderr, "%s:%d: ", file, line);
    if (where && (here != line || strcmp(where, file) != 0)) fprintf(stderr, "(from %s:%d) ", where, here);
}

__attribute__((noreturn)) TEST_FN void test_tail(void) {
    if (test_trace->note[0]) fprintf(stderr, "\n    with     %s", test_trace->note);
    fputc('\n', stderr);
    fflush(stderr);
    _exit(TEST_EXIT_FAILED);
}

__attribute__((noreturn, format(printf, 3, 4))) TEST_FN void test_fail(const char *file, int line, const char *format,
                                                                       ...) {
    va_list args;
    test_head(file, line);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    test_tail();
}

TEST_FN void test_check_mem(const char *file, int line, const char *expression, const char *actual, size_t actual_len,
                            const char *expected, size_t expected_len) {
    size_t at = 0;
    if (!actual == !expected && actual_len == expected_len &&
        (actual_len == 0 || memcmp(actual, expected, actual_len) == 0))
        return;
    test_head(file, line);
    fprintf(stderr, "%s\n    actual   ", expression);
    test_quote(stderr, actual, actual_len);
    fputs("\n    expected ", stderr);
    test_quote(stderr, expected, expected_len);
    while (at < actual_len && at < expected_len && actual[at] == expected[at])
        at++;
    fprintf(stderr, "\n    differs  at byte %zu", at);
    test_tail();
}

TEST_FN size_t test_strlen(const char *text) {
    return text ? strlen(text) : 0;
}

#define FAIL(...) test_fail(__FILE__, __LINE__, __VA_ARGS__)

#define CHECK(condition)                                 \
    do {                                                 \
        TEST_HERE();                                     \
        if (!(condition)) FAIL("CHECK(%s)", #condition); \
    } while (0)

// CHECK_CMP(used, <=, limit)
#define CHECK_CMP(left, op, right)                                                                            \
    do {                                                                                                      \
        long long left_, right_;                                                                              \
        TEST_HERE();                                                                                          \
        left_ = (long long)(left);                                                                            \
        right_ = (long long)(right);                                                                          \
        if (!(left_ op right_))                                                                               \
            FAIL("CHECK(%s %s %s)\n    left     %lld\n    right    %lld", #left, #op, #right, left_, right_); \
    } while (0)

#define CHECK_INT(actual, expected)                                                                                  \
    do {                                                                                                             \
        long long actual_, expected_;                                                                                \
        TEST_HERE();                                                                                                 \
        actual_ = (long long)(actual);                                                                               \
        expected_ = (long long)(expected);                                                                           \
        if (actual_ != expected_)                                                                                    \
            FAIL("CHECK_INT(%s, %s)\n    actual   %lld\n    expected %lld", #actual, #expected, actual_, expected_); \
    } while (0)

#define CHECK_MEM(actual, actual_len, expected, expected_len)                                                         \
    (TEST_HERE(), test_check_mem(__FILE__, __LINE__, "CHECK_MEM(" #actual ", " #expected ")", (actual), (actual_len), \
                                 (expected), (expected_len)))

#define CHECK_STR(actual, expected)                                                                                \
    do {                                                                                                           \
        const char *actual_, *expected_;                                                                           \
        TEST_HERE();                                                                                               \
        actual_ = (actual);                                                                                        \
        expected_ = (expected);                                                                                    \
        test_check_mem(__FILE__, __LINE__, "CHECK_STR(" #actual ", " #expected ")", actual_, test_strlen(actual_), \
                       expected_, test_strlen(expected_));                                                         \
    } while (0)

// A view (anything with ptr and len) against a string; NULL stands for an absent one.
#define CHECK_VIEW(view, expected)                                                                                    \
    do {                                                                                                              \
        const char *expected_;                                                                                        \
        TEST_HERE();                                                                                                  \
        expected_ = (expected);                                                                                       \
        test_check_mem(__FILE__, __LINE__, "CHECK_VIEW(" #view ", " #expected ")", (view).ptr, (view).len, expected_, \
                       test_strlen(expected_));                                                                       \
    } while (0)

#define CHECK_HAS(text, part)                                                                                   \
    do {                                                                                                        \
        const char *text_, *part_;                                                                              \
        TEST_HERE();                                                                                            \
        text_ = (text);                                                                                         \
        part_ = (part);                                                                                         \
        if (!text_ || !strstr(text_, part_))                                                                    \
            FAIL("CHECK_HAS(%s, %s)\n    text     %s\n    part     %s", #text, #part, text_ ? text_ : "(null)", \
                 part_);                                                                                        \
    } while (0)

// Takes a step again and again until the condition holds; what: how a failure calls it.
#define TEST_UNTIL(what, condition, step)                                \
    do {                                                                 \
        int64_t until_ = test_now() + test_ms(10000);                    \
        TEST_HERE();                                                     \
        while (!(condition)) {                                           \
            if (test_now() > until_) FAIL("%s: has not happened", what); \
            step;                                                        \
        }                                                                \
    } while (0)

// Waits until something that another thread does has happened.
#define WAIT(condition) TEST_UNTIL("WAIT(" #condition ")", condition, test_sleep(1))

// Ends the test as skipped, with a notice.
#define SKIP(...) (fprintf(stderr, __VA_ARGS__), fputc('\n', stderr), fflush(stderr), _exit(TEST_EXIT_SKIPPED))

// ---- the surroundings ----

// How many entries a directory has, but for those that begin with a dot.
TEST_FN int test_entries(const char *directory) {
    DIR *dir = opendir(directory);
    int n = 0;
    CHECK(dir != NULL);
    for (const struct dirent *entry; (entry = readdir(dir)) != NULL;)
        n += entry->d_name[0] != '.';
    closedir(dir);
    return n;
}

// How many descriptors this process has open.
TEST_FN int test_descriptors(void) {
    return test_entries("/proc/self/fd") - 1; // without the one that lists them
}

// ---- the parent ----

struct test_run {
    bool verbose;
    bool in_process;
    int passed, failed, skipped;
};

TEST_FN void test_child(const struct test *test, int out, const sigset_t *mask) {
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    sigprocmask(SIG_SETMASK, mask, NULL);
    dup2(out, 1);
    dup2(out, 2);
    close(out);
    test->run();
    exit(0); // not _exit: the leak checkers report now
}

// The exit status, or -1 when the time is up and the whole process group has been killed.
TEST_FN int test_wait(pid_t pid, const sigset_t *sigchld) {
    int64_t deadline = test_now() + test_ms(TEST_TIMEOUT_MS);
    int status = 0;
    while (waitpid(pid, &status, WNOHANG) != pid) {
        int64_t left = deadline - test_now();
        struct timespec t = {(time_t)(left / 1000), (long)(left % 1000 * 1000000)};
        if (left <= 0) {
            kill(-pid, SIGKILL);
            kill(pid, SIGKILL);
            waitpid(pid, &status, 0);
            return -1;
        }
        sigtimedwait(sigchld, NULL, &t);
    }
    kill(-pid, SIGKILL); // what the test has left behind
    return status;
}

TEST_FN void test_show(FILE *out) {
    char line[4096];
    rewind(out);
    while (fgets(line, sizeof line, out))
        printf("    %s%s", line, strchr(line, '\n') ? "" : "\n");
}

TEST_FN void test_explain(int status, char *why, size_t size) {
    char where[600];
    snprintf(where, sizeof where, "last check at %s:%d%s%s", test_trace->file ? test_trace->file : "?",
             test_trace->line, test_trace->note[0] ? ", with " : "", test_trace->note);
    if (status == -1)
        snprintf(why, size, "timed out after %d ms, %s", test_ms(TEST_TIMEOUT_MS), where);
    else if (WIFSIGNALED(status))
        snprintf(why, size, "killed by signal %d (%s), %s", WTERMSIG(status), strsignal(WTERMSIG(status)), where);
    else
        snprintf(why, size, "exit status %d", WEXITSTATUS(status));
}

TEST_FN void test_report(struct test_run *run, const struct test *test, int status, int64_t ms, FILE *out) {
    char why[1024];
    if (status != -1 && WIFEXITED(status) && WEXITSTATUS(status) == TEST_EXIT_SKIPPED) {
        run->skipped++;
        printf("SKIP %s\n", test->name);
        test_show(out);
    } else if (status == 0) {
        run->passed++;
        if (run->verbose) printf("ok   %s (%" PRId64 " ms)\n", test->name, ms);
    } else {
        run->failed++;
        test_explain(status, why, sizeof why);
        printf("FAIL %s: %s (%" PRId64 " ms)\n", test->name, why, ms);
        test_show(out);
    }
    fflush(stdout);
}

TEST_FN void test_one(struct test_run *run, const struct test *test) {
    sigset_t sigchld, before;
    int64_t start = test_now();
    FILE *out = tmpfile();
    pid_t pid;
    int status;
    if (!out) {
        perror("tmpfile");
        exit(2);
    }
    memset(test_trace, 0, sizeof *test_trace);
    sigemptyset(&sigchld);
    sigaddset(&sigchld, SIGCHLD);
    sigprocmask(SIG_BLOCK, &sigchld, &before);
    fflush(stdout);
    pid = fork();
    if (pid < 0) {
        perror("fork");
        exit(2);
    }
    if (pid == 0) test_child(test, fileno(out), &before);
    setpgid(pid, pid);
    status = test_wait(pid, &sigchld);
    test_report(run, test, status, test_now() - start, out);
    sigprocmask(SIG_SETMASK, &before, NULL);
    fclose(out);
}

TEST_FN bool test_selected(const struct test *test, char **patterns) {
    bool any = false;
    for (; *patterns; patterns++) {
        if (**patterns == '-') continue;
        if (strstr(test->name, *patterns)) return true;
        any = true;
    }
    return !any;
}

TEST_FN void test_share_trace(void) {
    void *page = mmap(NULL, sizeof *test_trace, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (page != MAP_FAILED) test_trace = (struct test_trace *)page;
}

TEST_FN int test_main(int argc, char **argv) {
    struct test_run run = {false, false, 0, 0, 0};
    bool list = false;
    for (int i = 1; i < argc; i++) {
        list |= strcmp(argv[i], "-l") == 0;
        run.verbose |= strcmp(argv[i], "-v") == 0;
        run.in_process |= strcmp(argv[i], "-n") == 0;
    }
    test_share_trace();
    (void)test_scale();
    for (struct test *test = test_first; test; test = test->next) {
        if (!test_selected(test, argv + 1)) continue;
        if (list) {
            puts(test->name);
        } else if (run.in_process) {
            test->run();
            run.passed++;
        } else {
            test_one(&run, test);
        }
    }
    if (list) return 0;
    printf("%d passed, %d failed", run.passed, run.failed);
    if (run.skipped) printf(", %d skipped", run.skipped);
    putchar('\n');
    return run.failed || run.passed + run.skipped == 0;
}

#ifndef TEST_NO_MAIN
int main(int argc, char **argv) {
    return test_main(argc, argv);
}
#endif

#endif // TEST_H
