// Runs the cases of files, tests/cases/file-*.md, on a tree with hostile names and links; tests/cases/README.md tells their
// format. Each goes to the server at once, byte by byte and cut in two, handlers inline and on a pool; as root all of it is
// run once more as a user that owns nothing.
// Also built with HTTPSRV_NO_OPENAT2, see test_file_cases_fallback.c.

#define TEST_NO_MAIN
#define TEST_TIMEOUT_MS 60000 // for all rows of a heading
#include "test.h"
#define HTTPSRV_IMPLEMENTATION
#include "httpsrv.h"
#include "documents.h"
#include "ranges.h"
#include "tree.h"

#define MTIME 784111777 // Sun, 06 Nov 1994 08:49:37 GMT

static const struct entry tree[] = {
    {SIZED, "empty.bin", NULL, 0},
    {SIZED, "one.bin", NULL, 1},
    {SIZED, "ten.bin", NULL, 10},
    {SIZED, "hundred.bin", NULL, 100},
    {SIZED, "large.bin", NULL, 50000}, // too large to be kept in memory
    {TEXT, "hello.txt", NULL, 0},
    {TEXT, "page.html", NULL, 0},
    {FOLDER, "sub", NULL, 0},
    {TEXT, "sub/a.txt", NULL, 0},
    {FOLDER, "sub/deep", NULL, 0},
    {TEXT, "sub/deep/b.txt", NULL, 0},
    {FOLDER, "site", NULL, 0},
    {TEXT, "site/index.html", NULL, 0},
    {FOLDER, "example.org", NULL, 0},
    {FOLDER, "empty", NULL, 0},
    HIDDEN_ENTRIES,
    {TEXT, ".htpasswd", HIDDEN, 0},
    {TEXT, "sub/.env", HIDDEN, 0},
    {FOLDER, "odd", NULL, 0},
    {TEXT, "odd/a b.txt", NULL, 0},
    {TEXT, "odd/100%.txt", NULL, 0},
    {TEXT, "odd/%2e%2e", NULL, 0},
    {TEXT, "odd/a%2fb", NULL, 0},
    {TEXT, "odd/back\\slash", NULL, 0},
    {TEXT, "odd/semi;colon", NULL, 0},
    {TEXT, "odd/q?x=1", NULL, 0},
    {TEXT, "odd/hash#1", NULL, 0},
    {TEXT, "odd/\xff\xfe", NULL, 0},
    {TEXT, "odd/new\nline", NULL, 0},
    {TEXT, "odd/\"><script>alert(1)<", NULL, 0},
    {TEXT, "odd/javascript:alert(1)", NULL, 0},
    {TEXT, "odd/CON", NULL, 0},
    {FOLDER, "odd/..;", NULL, 0},
    {TEXT, "odd/.hidden", HIDDEN, 0},
    {FIFO, "fifo", NULL, 0},
    {SOCKET, "socket", NULL, 0},
    {HARD, "hard.txt", "hello.txt", 0},
    HOSTILE_LINKS,
    {LINK, "link.txt", "hello.txt", 0},
    {LINK, "link.d", "sub", 0},
    {LINK, "sub/up.txt", "../hello.txt", 0},
    {LINK, "sub/root", "..", 0},
    {LINK, "slashed", "hello.txt/", 0},
    {LINK, "chain.txt", "link.txt", 0},
    {LINK, "sub/over", "../../outside", 0},
    {FOLDER, "z", NULL, 0},
    {TEXT, "z/a.css", NULL, 0},
    {TEXT, "z/a.css.gz", NULL, 0},
    {TEXT, "z/b.css", NULL, 0},
    {LINK, "z/b.css.gz", "../../outside/secret.txt", 0},
};

// Where the tree is served, in which ways.
static const struct file_mount {
    const char *prefix;
    httpsrv_files_config config;
} mounts[] = {
    {"/", {.cache_control = "max-age=60"}},
    {"/f", {.cache_control = "max-age=60"}},
    {"/l", {.links = true}},
    {"/d", {.dot_files = true, .max_open = -1}},
    {"/i", {.list = true}},
    {"/z", {.precompressed = true}},
};

static void on_probe(httpsrv_req *req, void *user) {
    (void)user;
    CHECK_INT(httpsrv_reply(req, 200, "text/plain", HTTPSRV_STR("probe")), HTTPSRV_OK);
}

static void start_server(struct server *s, const char *pool) {
    httpsrv_config config;
    memset(&config, 0, sizeof config);
    blob[1] = 1; // nobody here wants to have it filled
    config.reactors = 1;
    config.pools[0].name = pool;
    config.pools[0].threads = pool ? 2 : 0;
    prepare(s, &config);
    for (size_t i = 0; i < ROWS(mounts); i++) {
        httpsrv_files_config files = mounts[i].config;
        files.root = in_root("");
        files.pool = pool;
        CHECK_INT(httpsrv_files(s->srv, mounts[i].prefix, &files), HTTPSRV_OK);
    }
    CHECK_INT(httpsrv_on(s->srv, "GET /probe", on_probe, NULL), HTTPSRV_OK);
    go(s);
}

// \E stands for the entity tag of hundred.bin, with its quotes.
static void learn_tag(const struct server *s) {
    static char tag[200];
    struct client c = ASK(s, "HEAD /f/hundred.bin HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK_INT(c.status, 200);
    snprintf(tag, sizeof tag, "%s", field(&c, "ETag"));
    escape_texts['E'] = tag;
    hang_up(&c);
}

// ---- lines about answers with files ----

static bool take_range(const char **text, struct byte_range *range) {
    int n = 0;
    if (sscanf(*text, " %" SCNd64 "-%" SCNd64 "%n", &range->first, &range->last, &n) != 2) return false;
    *text += n;
    return true;
}

// "PATH", "PATH 3-5", "PATH 0-1 4-5"
static void check_file(const struct client *c, const char *value, bool parts) {
    struct byte_range list[HTTPSRV_MAX_RANGES];
    char path[200];
    int num = 0;
    CHECK_INT(sscanf(value, "%199s", path), 1);
    const httpsrv_str whole = content_of(path);
    for (value += strlen(path); *value; num++) {
        CHECK_CMP(num, <, HTTPSRV_MAX_RANGES);
        CHECK(take_range(&value, &list[num]));
    }
    CHECK_INT(parts, num > 1);
    if (num)
        check_ranges(c, whole, list, num);
    else
        CHECK_MEM(c->body, c->body_len, whole.ptr, whole.len);
}

// Whatever was asked for: what lies outside is never told.
static void check_nothing_told(const struct client *c) {
    CHECK(!memmem(c->body, c->body_len, SECRET, strlen(SECRET)));
    CHECK(!memmem(c->body, c->body_len, "root:", 5)); // as /etc/passwd begins
}

static void check_file_line(const struct client *c, const char *key, const char *value) {
    if (strcmp(key, "answer") == 0) check_nothing_told(c);
    if (strcmp(key, "file") == 0) check_file(c, value, false);
    if (strcmp(key, "parts") == 0) check_file(c, value, true);
}

// ---- scenarios as tests ----

static int visit_server(const struct row *row, void *user) {
    const struct server *servers = (const struct server *)user;
    CHECK(!row->parser);
    run_server(row, &servers[0], &servers[1], CUT_BEFORE_THE_LAST);
    return 0;
}

static void run_scenario(void) {
    static struct server servers[2];
    start_server(&servers[0], NULL);
    start_server(&servers[1], "disk");
    learn_tag(&servers[0]);
    each_row(visit_server, servers);
    finish(&servers[0]);
    finish(&servers[1]);
}

static void run_scenario_as_user(void) {
    become_nobody();
    run_scenario();
}

static void add_as_user(const struct scenario *of) {
    struct scenario *s = (struct scenario *)malloc(sizeof *s);
    CHECK(s != NULL);
    *s = *of;
    snprintf(s->name, sizeof s->name, "%.140s, as a user", of->name);
    add_scenario(s, run_scenario_as_user);
}

static void add_all_as_user(void) {
    struct test **end = test_last;
    for (const struct test *test = test_first; test; test = &test->next == end ? NULL : test->next)
        add_as_user((const struct scenario *)test);
}

int main(int argc, char **argv) {
    (void)argc;
    check_more_lines = check_file_line;
    load_arguments(argv + 1, "file-");
    if (geteuid() == 0) add_all_as_user();
    make_tree(tree, ROWS(tree), MTIME, 0);
    const int result = run_documents(argv);
    remove_tree();
    return result;
}
