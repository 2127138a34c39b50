// Files: httpsrv_files and httpsrv_reply_file, on a tree with hostile names and links that is made and removed by main.
// Also built with HTTPSRV_NO_OPENAT2, see test_files_fallback.c, and with the sanitizers.

// The call that opens files, see renames_elsewhere.
#define HTTPSRV_SEAM "tests/seam_open.h"

#define HTTPSRV_IMPLEMENTATION
#include "../httpsrv.h"

#undef hsrv_sys_open_beneath

#define TEST_NO_MAIN
#define CONTENT_BYTES 10485760u
#include "server.h"
#include "tree.h"
#include <limits.h>
#include <pthread.h>
#include <sys/syscall.h>

#define KB          1024u
#define MB          1048576u
#define HUGE_BYTES  (64 * (int64_t)MB) // more than the sockets of one connection take
#define GIANT_BYTES (5 * 1024 * (int64_t)MB)
#define FIRST_MTIME 1700000000

static struct server s;

// ---- the tree ----

#define NAME_50  "n2345678901234567890123456789012345678901234567890"
#define NAME_255 NAME_50 NAME_50 NAME_50 NAME_50 NAME_50 "12345"

static const struct entry tree[] = {
    {SIZED, "empty.bin", NULL, 0},
    {SIZED, "b1.bin", NULL, 1},
    {SIZED, "b10.bin", NULL, 10},
    {SIZED, "k1.bin", NULL, KB},
    {SIZED, "k16.bin", NULL, 16 * KB},
    {SIZED, "k64-1.bin", NULL, 64 * KB - 1},
    {SIZED, "k64.bin", NULL, 64 * KB},
    {SIZED, "k64+1.bin", NULL, 64 * KB + 1},
    {SIZED, "m1.bin", NULL, MB},
    {SIZED, "m10.bin", NULL, CONTENT_BYTES},
    {TEXT, "hello.txt", NULL, 0},
    {TEXT, "page.html", NULL, 0},
    {TEXT, "PAGE.HTM", NULL, 0},
    {TEXT, "style.css", NULL, 0},
    {TEXT, "script.js", NULL, 0},
    {TEXT, "data.json", NULL, 0},
    {TEXT, "pic.png", NULL, 0},
    {TEXT, "pic.svg", NULL, 0},
    {TEXT, "noextension", NULL, 0},
    {TEXT, "unknown.xyzzy", NULL, 0},
    {TEXT, "two.tar.gz", NULL, 0},
    {TEXT, "dot.at.end.", NULL, 0},
    {TEXT, "code.own", NULL, 0},
    {TEXT, "a%2fb", NULL, 0},
    HIDDEN_ENTRIES,
    {FOLDER, "empty", NULL, 0},
    {FOLDER, "sub", NULL, 0},
    {TEXT, "sub/a.txt", NULL, 0},
    {FOLDER, "sub/deep", NULL, 0},
    {TEXT, "sub/deep/b.txt", NULL, 0},
    {FOLDER, "site", NULL, 0},
    {TEXT, "site/index.html", NULL, 0},
    {TEXT, "site/home.htm", NULL, 0},
    {FOLDER, "site/a b", NULL, 0},
    {TEXT, "site/a b/index.html", NULL, 0},
    {FOLDER, "trap", NULL, 0},
    {FOLDER, "trap/index.html", NULL, 0},
    {TEXT, "trap/index.html/x.txt", NULL, 0},
    {FOLDER, "example.org", NULL, 0},
    {TEXT, "locked.txt", NULL, 0},
    {FOLDER, "locked", NULL, 0},
    {TEXT, "locked/x.txt", NULL, 0},
    {FIFO, "fifo", NULL, 0},
    {SOCKET, "socket", NULL, 0},
    {HARD, "hard.txt", "hello.txt", 0},
    {LINK, "link.txt", "hello.txt", 0},
    {LINK, "chain.txt", "link.txt", 0},
    {LINK, "link.d", "sub", 0},
    {LINK, "sub/up.txt", "../hello.txt", 0},
    {LINK, "sub/deep/round.txt", "../../sub/a.txt", 0},
    {LINK, "sub/dots.txt", "./..//sub/./deep//../a.txt", 0},
    {LINK, "here", ".", 0},
    {LINK, "sub/root", "..", 0},
    {LINK, "with.slash", "sub/", 0},
    {LINK, "via.loop", "loop/../hello.txt", 0},
    {LINK, "via.nothing", "nothing/../hello.txt", 0},
    {LINK, "via.link", "link.d/../hello.txt", 0},
    {LINK, "top", "..", 0},
    {LINK, "sub/top", "../..", 0},
    {LINK, "sub/deep/over", "../../../outside", 0},
    {LINK, "absolute.txt", "@/hello.txt", 0},
    {LINK, "loop", "loop", 0},
    {LINK, "ping", "pong", 0},
    {LINK, "pong", "ping", 0},
    {LINK, "dangling", "nothing", 0},
    {LINK, "out.txt", "../outside/secret.txt", 0},
    {LINK, "out.abs", "@/../outside/secret.txt", 0},
    {LINK, "out.d", "../outside", 0},
    {LINK, "out.chain", "out.txt", 0},
    {LINK, "sub/out.txt", "../../outside/secret.txt", 0},
    {LINK, "there.and.back", "../root/hello.txt", 0},
    {LINK, "passwd", "/etc/passwd", 0},
    {LINK, "slash", "/", 0},
    {LINK, "proc", "/proc/self/root", 0},
    {FOLDER, "linked", NULL, 0},
    {LINK, "linked/index.html", "../../outside/secret.txt", 0},
    {FOLDER, "odd", NULL, 0},
    {TEXT, "odd/a b.txt", NULL, 0},
    {TEXT, "odd/100%.txt", NULL, 0},
    {TEXT, "odd/%41.txt", NULL, 0},
    {TEXT, "odd/a%2fb", NULL, 0},
    {TEXT, "odd/%2e%2e", NULL, 0},
    {TEXT, "odd/\xc3\xbc\xe6\x97\xa5\xe6\x9c\xac.txt", NULL, 0},
    {TEXT, "odd/\xff\xfe.bin", NULL, 0},
    {TEXT, "odd/<>&\"'.txt", NULL, 0},
    {TEXT, "odd/\"><script>alert(1)<", NULL, 0},
    {TEXT, "odd/q?x=1.txt", NULL, 0},
    {TEXT, "odd/hash#1.txt", NULL, 0},
    {TEXT, "odd/semi;colon.txt", NULL, 0},
    {TEXT, "odd/plus+.txt", NULL, 0},
    {TEXT, "odd/back\\slash.txt", NULL, 0},
    {TEXT, "odd/javascript:alert(1)", NULL, 0},
    {TEXT, "odd/new\nline.txt", NULL, 0},
    {TEXT, "odd/tab\t.txt", NULL, 0},
    {TEXT, "odd/ lead", NULL, 0},
    {TEXT, "odd/trail ", NULL, 0},
    {TEXT, "odd/&amp;", NULL, 0},
    {TEXT, "odd/~tilde", NULL, 0},
    {TEXT, "odd/" NAME_255, NULL, 0},
    {FOLDER, "odd/folder <b>", NULL, 0},
    {TEXT, "odd/.hidden", HIDDEN, 0},
    {FOLDER, "z", NULL, 0},
    {TEXT, "z/all.css", NULL, 0},
    {TEXT, "z/all.css.br", NULL, 0},
    {TEXT, "z/all.css.zst", NULL, 0},
    {TEXT, "z/all.css.gz", NULL, 0},
    {TEXT, "z/gz.js", NULL, 0},
    {TEXT, "z/gz.js.gz", NULL, 0},
    {TEXT, "z/none.txt", NULL, 0},
    {TEXT, "z/folder.txt", NULL, 0},
    {FOLDER, "z/folder.txt.gz", NULL, 0},
    {TEXT, "z/linked.txt", NULL, 0},
    {LINK, "z/linked.txt.gz", "../../outside/secret.txt", 0},
    {TEXT, "z/fifo.txt", NULL, 0},
    {FIFO, "z/fifo.txt.gz", NULL, 0},
    {TEXT, "z/alone.txt.gz", NULL, 0},
    {TEXT, "z/index.html", NULL, 0},
    {TEXT, "z/index.html.gz", NULL, 0},
};

// A file of zeroes that takes no room.
static void write_sparse(const char *path, int64_t size) {
    write_file(path, "", 0);
    CHECK_INT(truncate(path, (off_t)size), 0);
}

// ---- a server, run in one of the ways in which files can be served ----

struct way {
    const char *name;
    int reactors;
    const char *pool;
    int max_open;
};

static const struct way ways[] = {
    {"on the reactor", 1, NULL, 0}, {"on a pool", 1, "disk", 0},      {"by 3 reactors", 3, NULL, 0},
    {"nothing kept", 1, NULL, -1},  {"1 file kept open", 1, NULL, 1}, {"on a pool, nothing kept", 1, "disk", -1},
};
static const struct way *way = ways;
static struct client line; // the connection of the rows; opened when needed
static int descriptors;    // before the server

#define TEST_EACH_WAY(id) TEST_WAYS(id, true)

static void begin(const httpsrv_config *config) {
    httpsrv_config c = *config;
    c.reactors = way->reactors;
    c.pools[0] = (httpsrv_pool_config){.name = "disk", .threads = 2};
    descriptors = test_descriptors();
    prepare(&s, &c);
    CHECK_INT(httpsrv_on(s.srv, "GET /hello", on_hello, &s), HTTPSRV_OK);
    line = net_client(-1);
    NOTE("%s", way->name);
}

static void add_files(const char *prefix, const httpsrv_files_config *config) {
    httpsrv_files_config c = *config;
    if (!c.root) c.root = in_root("");
    if (!c.pool) c.pool = way->pool;
    if (!c.max_open) c.max_open = way->max_open;
    CHECK_INT(httpsrv_files(s.srv, prefix, &c), HTTPSRV_OK);
}

static void serve_at(const char *prefix, const httpsrv_files_config *config) {
    begin(&(httpsrv_config){0});
    add_files(prefix, config);
    go(&s);
}

// Serves the tree at /f.
static void serve_files(const httpsrv_files_config *config) {
    serve_at("/f", config);
}

// Serves what tests make of their own at /w.
static void serve_work(const httpsrv_files_config *config) {
    httpsrv_files_config c = *config;
    c.root = in_work("");
    serve_at("/w", &c);
}

static void end(void) {
    hang_up(&line);
    finish(&s);
    NOTE("descriptors after httpsrv_free");
    CHECK_INT(test_descriptors(), descriptors);
    NOTE("%s", "");
}

// ---- rows: a request and what has to come of it ----

// `fields` holds lines; $E is the entity tag of the target, $W that as a weak one, $D its date, $B a second before, $A
// one after, $O and $C the date in the two obsolete formats. `want` holds lines as well:
//     Name: value    that field           Name          that field, whatever its value
//     -Name          not that field       =path         the content of a file
//     =path|3-5      bytes of it          &path 0-1 4-5 these in multipart/byteranges
//     ~text          somewhere in the body
struct row {
    const char *request; // method and target
    const char *fields;
    int status;
    const char *want;
};

struct facts {
    char etag[200];
    time_t date;
};

static void put_date(char *out, size_t size, time_t when, char format) {
    struct tm parts;
    gmtime_r(&when, &parts);
    strftime(out, size,
             format == 'O'   ? "%A, %d-%b-%y %H:%M:%S GMT"
             : format == 'C' ? "%a %b %e %H:%M:%S %Y"
                             : "%a, %d %b %Y %H:%M:%S GMT",
             &parts);
}

static time_t date_of(const char *text) {
    struct tm parts;
    memset(&parts, 0, sizeof parts);
    const char *rest = strptime(text, "%a, %d %b %Y %H:%M:%S GMT", &parts);
    if (!rest || *rest) FAIL("not a date: %s", text);
    return timegm(&parts);
}

// `fields` are lines; behind an empty one stands the body.
static void send_request(const char *request, const char *fields) {
    static char text[12000];
    if (line.fd < 0) line = dial_port(s.port);
    size_t n = (size_t)snprintf(text, sizeof text, "%s HTTP/1.1\r\nHost: a\r\n", request);
    CHECK_CMP(n + 2 * strlen(fields) + 4, <, sizeof text);
    for (const char *at = fields; *at; at++) {
        if (*at == '\n') text[n++] = '\r';
        text[n++] = *at;
    }
    text[n] = 0;
    if (text[n - 1] != '\n' && !strstr(text, "\r\n\r\n")) n += (size_t)sprintf(text + n, "\r\n");
    if (!strstr(text, "\r\n\r\n")) n += (size_t)sprintf(text + n, "\r\n");
    net_send(&line, text, n);
}

static bool is_head(const char *request) {
    return strncmp(request, "HEAD ", 5) == 0;
}

static void read_answer(const char *request) {
    net_reply(&line, is_head(request));
    if (!line.close) return;
    EXPECT_END(&line);
    close(line.fd);
    line.fd = -1;
}

// A request on the connection of the rows.
static void request(const char *text, const char *fields) {
    if (line.fd < 0) hang_up(&line);
    send_request(text, fields);
    read_answer(text);
}

static struct facts facts_of(const char *target) {
    struct facts facts;
    char head[3000];
    snprintf(head, sizeof head, "HEAD %s", target);
    request(head, "");
    CHECK_INT(line.status, 200);
    CHECK(field(&line, "ETag") && field(&line, "Last-Modified"));
    snprintf(facts.etag, sizeof facts.etag, "%s", field(&line, "ETag"));
    facts.date = date_of(field(&line, "Last-Modified"));
    return facts;
}

static void put_fact(char *out, size_t size, const struct facts *facts, char which) {
    const time_t shift = which == 'B' ? -1 : which == 'A' ? 1 : 0;
    if (which == 'E' || which == 'W')
        snprintf(out, size, "%s%s", which == 'W' ? "W/" : "", facts->etag);
    else
        put_date(out, size, facts->date + shift, which);
}

static const char *expand(const char *fields, const char *target) {
    static char out[9000];
    size_t n = 0;
    struct facts facts = {"", 0};
    if (strchr(fields, '$')) facts = facts_of(target);
    for (; *fields; fields++) {
        CHECK_CMP(n, <, sizeof out - 300);
        if (*fields == '$') {
            put_fact(out + n, 300, &facts, *++fields);
            n += strlen(out + n);
        } else {
            out[n++] = *fields;
        }
    }
    out[n] = 0;
    return out;
}

// Takes the part of a multipart/byteranges body that begins at `at`; where it ends.
static const char *check_part(const char *at, const char *boundary, httpsrv_str whole, long long first,
                              long long last) {
    char expected[300];
    const char *rest = line.body + line.body_len, *blank = (const char *)memmem(at, (size_t)(rest - at), "\r\n\r\n", 4);
    CHECK(blank != NULL);
    if (at == line.body && memcmp(at, "\r\n", 2) == 0) at += 2;
    snprintf(expected, sizeof expected, "--%s\r\n", boundary);
    CHECK_MEM(at, strlen(expected), expected, strlen(expected));
    snprintf(expected, sizeof expected, "\r\nContent-Range: bytes %lld-%lld/%zu\r\n", first, last, whole.len);
    CHECK(memmem(at, (size_t)(blank + 2 - at), expected, strlen(expected)) != NULL);
    CHECK(memmem(at, (size_t)(blank + 2 - at), "\r\nContent-Type: ", 16) != NULL);
    const size_t len = (size_t)(last - first + 1);
    CHECK_CMP(rest - blank - 4, >=, len);
    CHECK_MEM(blank + 4, len, whole.ptr + first, len);
    return blank + 4 + len;
}

// `text`: "path 0-1 4-5". All bytes of the body are accounted for; its length was checked when it was read.
static void check_multipart(const char *text) {
    char path[100], boundary[100], close_line[110];
    const char *type = field(&line, "Content-Type");
    CHECK(type && sscanf(type, "multipart/byteranges; boundary=%70s", boundary) == 1);
    CHECK(field(&line, "Content-Range") == NULL); // RFC 9110 section 15.3.7.2
    CHECK_INT(sscanf(text, "%99s", path), 1);
    const httpsrv_str whole = content_of(path);
    const char *at = line.body;
    for (const char *range = strchr(text, ' '); range; range = strchr(range + 1, ' ')) {
        long long first, last;
        CHECK_INT(sscanf(range, " %lld-%lld", &first, &last), 2);
        at = check_part(at, boundary, whole, first, last);
        CHECK_MEM(at, 2, "\r\n", 2);
        at += range[1] && strchr(range + 1, ' ') ? 2 : 0;
    }
    snprintf(close_line, sizeof close_line, "\r\n--%s--", boundary);
    CHECK_MEM(at, strlen(close_line), close_line, strlen(close_line));
    at += strlen(close_line);
    const size_t left = (size_t)(line.body + line.body_len - at);
    CHECK(left == 0 || (left == 2 && memcmp(at, "\r\n", 2) == 0));
}

static void check_content(const char *text) {
    char path[300];
    const char *range = strchr(text, '|');
    snprintf(path, sizeof path, "%.*s", range ? (int)(range - text) : (int)strlen(text), text);
    httpsrv_str part = content_of(path);
    if (range) {
        size_t first, last;
        CHECK_INT(sscanf(range, "|%zu-%zu", &first, &last), 2);
        part = (httpsrv_str){part.ptr + first, last - first + 1};
    }
    CHECK_MEM(line.body, line.body_len, part.ptr, part.len);
}

static void check_field(const char *text) {
    char name[100];
    const char *colon = strstr(text, ": ");
    snprintf(name, sizeof name, "%.*s", colon ? (int)(colon - text) : (int)strlen(text), text);
    if (!field(&line, name)) FAIL("no field %s in the answer", name);
    CHECK_INT(count_fields(&line, name), 1);
    if (colon) CHECK_STR(field(&line, name), colon + 2);
}

// What every answer with a file has to have.
static void check_file_fields(void) {
    const char *etag = field(&line, "ETag");
    CHECK(etag && etag[0] == '"' && strlen(etag) > 2 && strchr(etag + 1, '"') == etag + strlen(etag) - 1);
    CHECK(field(&line, "Last-Modified") && date_of(field(&line, "Last-Modified")) >= FIRST_MTIME);
    CHECK_STR(field(&line, "X-Content-Type-Options"), "nosniff");
    CHECK(field(&line, "Content-Type") != NULL);
    CHECK(line.length >= 0);
}

static void check_wanted(const char *text) {
    if (strchr("=&", *text)) check_file_fields();
    switch (*text) {
    case '=': check_content(text + 1); break;
    case '&': check_multipart(text + 1); break;
    case '-':
        if (field(&line, text + 1)) FAIL("a field %s: %s", text + 1, field(&line, text + 1));
        break;
    case '~': CHECK(memmem(line.body, line.body_len, text + 1, strlen(text + 1)) != NULL); break;
    default: check_field(text);
    }
}

static void check_answer(const struct row *row) {
    char wanted[2000];
    CHECK_INT(line.status, row->status);
    CHECK(memmem(line.body, line.body_len, SECRET, strlen(SECRET)) == NULL);
    CHECK(memmem(line.body, line.body_len, "root:", 5) == NULL);
    snprintf(wanted, sizeof wanted, "%s", row->want);
    for (char *at = wanted, *next; at && *at; at = next) {
        next = strchr(at, '\n');
        if (next) *next++ = 0;
        check_wanted(at);
    }
}

static void note_row(const struct row *row) {
    NOTE("%s; %s | %s", way->name, row->request, row->fields);
}

static void check_row(const struct row *row) {
    const char *target = strchr(row->request, ' ') + 1, *fields = expand(row->fields, target);
    note_row(row);
    request(row->request, fields);
    check_answer(row);
}

// Twice: of the second time the server may know something already.
static void check_rows(const struct row *rows, size_t count) {
    for (size_t i = 0; i < 2 * count; i++) {
        check_row(&rows[i % count]);
    }
}

#define CHECK_ROWS(table) check_rows((table), ROWS(table))

// ---- contents, methods, types ----

static const struct row plain_rows[] = {
    {"GET /f/empty.bin", "", 200, "=empty.bin\nContent-Length: 0"},
    {"GET /f/b1.bin", "", 200, "=b1.bin"},
    {"GET /f/k1.bin", "", 200, "=k1.bin\nContent-Type: application/octet-stream\n-Content-Range\n-Content-Encoding"},
    {"GET /f/k16.bin", "", 200, "=k16.bin"},
    {"GET /f/k64-1.bin", "", 200, "=k64-1.bin"},
    {"GET /f/k64.bin", "", 200, "=k64.bin"},
    {"GET /f/k64+1.bin", "", 200, "=k64+1.bin"},
    {"GET /f/m1.bin", "", 200, "=m1.bin"},
    {"GET /f/m10.bin", "", 200, "=m10.bin"},
    {"GET /f/hello.txt?a=../../x", "", 200, "=hello.txt"},
    {"GET /f/hard.txt", "", 200, "=hello.txt"},
    {"GET http://a/f/hello.txt", "", 200, "=hello.txt"},
    {"HEAD /f/empty.bin", "", 200, "Content-Length: 0\nETag\nLast-Modified"},
    {"HEAD /f/m10.bin", "", 200, "Content-Length: 10485760\nETag\nX-Content-Type-Options: nosniff"},
    {"HEAD /f/none.bin", "", 404, ""},
    {"GET /f/none.bin", "", 404, ""},
    {"GET /f/hello.txt", "Content-Length: 3\n\nabc", 200, "=hello.txt"},
    {"POST /f/hello.txt", "Content-Length: 0", 405, "Allow"},
    {"PUT /f/hello.txt", "Content-Length: 0", 405, "Allow"},
    {"DELETE /f/none.bin", "", 405, "Allow"},
    {"OPTIONS /f/hello.txt", "", 204, "Allow"},
    {"GET /f", "", 301, "Location: /f/"},
    {"GET /fx", "", 404, ""},
    {"GET /f/sub", "", 301, "Location: /f/sub/"},
    {"HEAD /f/sub", "", 301, "Location: /f/sub/"},
    {"GET /f/sub?a=b&c=%20d", "", 301, "Location: /f/sub/?a=b&c=%20d"},
    {"GET /f/sub?", "", 301, "Location"},
    {"GET /f/site/a%20b", "", 301, "Location: /f/site/a%20b/"},
    {"GET /f/site/", "", 200, "=site/index.html\nContent-Type: text/html; charset=utf-8"},
    {"HEAD /f/site/", "", 200, "Content-Length: 15"},
    {"GET /f/site/?x", "", 200, "=site/index.html"},
    {"GET /f/site/a%20b/", "", 200, "=site/a b/index.html"},
    {"GET /f/site/.", "", 200, "=site/index.html"},
    {"GET /f/site/a%20b/..", "", 200, "=site/index.html"},
    {"GET /f/empty/", "", 404, ""},
    {"GET /f/trap/", "", 404, ""},
    {"GET /f/trap/index.html", "", 301, "Location: /f/trap/index.html/"},
    {"GET /f/trap/index.html/x.txt", "", 200, "=trap/index.html/x.txt"},
    {"GET /f/", "", 404, ""},
};

TEST_EACH_WAY(plain_files) {
    serve_files(&(httpsrv_files_config){0});
    CHECK_ROWS(plain_rows);
    end();
}

TEST(allow_names_the_methods) {
    static const char *const requests[] = {"POST /f/hello.txt", "DELETE /f/none", "OPTIONS /f/hello.txt"};
    serve_files(&(httpsrv_files_config){0});
    for (size_t i = 0; i < ROWS(requests); i++) {
        request(requests[i], "");
        CHECK_HAS(field(&line, "Allow"), "GET");
        CHECK_HAS(field(&line, "Allow"), "HEAD");
        CHECK(strstr(field(&line, "Allow"), "POST") == NULL);
    }
    end();
}

TEST(media_types) {
    static const httpsrv_mime own[] = {{"own", "text/x-own; charset=utf-8"}, {"png", "image/x-mine"}, {NULL, NULL}};
    static const struct row rows[] = {
        {"GET /f/hello.txt", "", 200, "Content-Type: text/plain; charset=utf-8\n=hello.txt"},
        {"GET /f/page.html", "", 200, "Content-Type: text/html; charset=utf-8\n=page.html"},
        {"GET /f/PAGE.HTM", "", 200, "Content-Type: text/html; charset=utf-8\n=PAGE.HTM"},
        {"GET /f/style.css", "", 200, "Content-Type: text/css; charset=utf-8\n=style.css"},
        {"GET /f/script.js", "", 200, "Content-Type: text/javascript; charset=utf-8\n=script.js"},
        {"HEAD /f/script.js", "", 200, "Content-Type: text/javascript; charset=utf-8"},
        {"GET /f/pic.svg", "", 200, "Content-Type: image/svg+xml\n=pic.svg"},
        {"GET /f/data.json", "", 200, "Content-Type: application/json\n=data.json"},
        {"GET /f/pic.png", "", 200, "Content-Type: image/x-mine\n=pic.png"},
        {"GET /f/code.own", "", 200, "Content-Type: text/x-own; charset=utf-8\n=code.own"},
        {"GET /f/two.tar.gz", "", 200, "Content-Type: application/gzip\n=two.tar.gz\n-Content-Encoding"},
        {"GET /f/noextension", "", 200, "Content-Type: application/octet-stream\n=noextension"},
        {"GET /f/unknown.xyzzy", "", 200, "Content-Type: application/octet-stream\n=unknown.xyzzy"},
        {"GET /f/dot.at.end.", "", 200, "Content-Type: application/octet-stream\n=dot.at.end."},
        {"GET /g/pic.png", "", 200, "Content-Type: image/png\n=pic.png"},
        {"GET /g/code.own", "", 200, "Content-Type: application/octet-stream\n=code.own"},
    };
    begin(&(httpsrv_config){0});
    add_files("/f", &(httpsrv_files_config){.types = own});
    add_files("/g", &(httpsrv_files_config){0});
    go(&s);
    CHECK_ROWS(rows);
    end();
}

// ---- names that lead astray ----

// What is not to be had, whether links are followed or not: it leads outside or nowhere, is hidden, or is no file.
static const struct row refused_rows[] = {
    {"GET /f/absolute.txt", "", 404, ""},
    {"GET /f/loop", "", 404, ""},
    {"GET /f/loop/x", "", 404, ""},
    {"GET /f/ping", "", 404, ""},
    {"GET /f/dangling", "", 404, ""},
    {"GET /f/out.txt", "", 404, ""},
    {"GET /f/out.abs", "", 404, ""},
    {"GET /f/out.d/secret.txt", "", 404, ""},
    {"GET /f/out.d", "", 404, ""},
    {"GET /f/out.d/", "", 404, ""},
    {"GET /f/out.chain", "", 404, ""},
    {"GET /f/sub/out.txt", "", 404, ""},
    {"GET /f/there.and.back", "", 404, ""},
    {"GET /f/passwd", "", 404, ""},
    {"GET /f/slash/etc/passwd", "", 404, ""},
    {"GET /f/proc/etc/passwd", "", 404, ""},
    {"GET /f/linked/", "", 404, ""},
    {"GET /f/linked/index.html", "", 404, ""},
    {"GET /f/fifo", "", 404, ""},
    {"GET /f/.hidden", "", 404, ""},
    {"GET /f/hello.txt/", "", 404, ""},
};

// Of a tree whose files beginning with dots, and links, are not to be seen.
static const struct row traversal_rows[] = {
    {"GET /f/sub/../hello.txt", "", 200, "=hello.txt"},
    {"GET /f/sub/%2e%2e/hello.txt", "", 200, "=hello.txt"},
    {"GET /f/sub/%2E./hello.txt", "", 200, "=hello.txt"},
    {"GET /f/sub/.%2e/hello.txt", "", 200, "=hello.txt"},
    {"GET /f/./hello.txt", "", 200, "=hello.txt"},
    {"GET /f/%2e/hello.txt", "", 200, "=hello.txt"},
    {"GET /f/%68ello.txt", "", 200, "=hello.txt"},
    {"GET /%66/hello.txt", "", 200, "=hello.txt"},
    {"GET /x/../f/hello.txt", "", 200, "=hello.txt"},
    {"GET /f/nothing/../hello.txt", "", 200, "=hello.txt"},
    {"GET /f/../outside/secret.txt", "", 404, ""},
    {"GET /f/../f/../outside/secret.txt", "", 404, ""},
    {"GET /f/%2e%2e/outside/secret.txt", "", 404, ""},
    {"GET /f/%2E%2E/outside/secret.txt", "", 404, ""},
    {"GET /f/../../outside/secret.txt", "", 400, ""},
    {"GET /../f/hello.txt", "", 400, ""},
    {"GET /f/%2e%2e/%2e%2e/etc/passwd", "", 400, ""},
    {"GET /f/sub/../../../etc/passwd", "", 400, ""},
    {"GET /%2e%2e/%2e%2e/etc/passwd", "", 400, ""},
    {"GET /f/..%2foutside/secret.txt", "", 404, ""},
    {"GET /f/..%2Foutside%2Fsecret.txt", "", 404, ""},
    {"GET /f/sub/..%2f..%2foutside/secret.txt", "", 404, ""},
    {"GET /f/%2e%2e%2foutside%2fsecret.txt", "", 404, ""},
    {"GET /f/%2fetc/passwd", "", 404, ""},
    {"GET /f/%2fetc%2fpasswd", "", 404, ""},
    {"GET /f/sub%2fa.txt", "", 404, ""},
    {"GET /f/sub/%2fa.txt", "", 404, ""},
    {"GET /f/sub%2f", "", 404, ""},
    {"GET /f/hello.txt%2f", "", 404, ""},
    {"GET /f%2fhello.txt", "", 404, ""},
    {"GET /f/a%2fb", "", 404, ""},
    {"GET /f/a%252fb", "", 200, "=a%2fb"},
    {"GET /f/%252e%252e/outside/secret.txt", "", 404, ""},
    {"GET /f/..%252foutside/secret.txt", "", 404, ""},
    {"GET /f/..%5coutside%5csecret.txt", "", 404, ""},
    {"GET /f/sub%5ca.txt", "", 404, ""},
    {"GET /f/..%c0%afoutside/secret.txt", "", 404, ""},
    {"GET /f/%c0%ae%c0%ae/outside/secret.txt", "", 404, ""},
    {"GET /f/%e0%80%ae%e0%80%ae/outside/secret.txt", "", 404, ""},
    {"GET /f/..;/outside/secret.txt", "", 404, ""},
    {"GET /f/....//outside/secret.txt", "", 404, ""},
    {"GET /f//hello.txt", "", 404, ""},
    {"GET /f//etc/passwd", "", 404, ""},
    {"GET //f/hello.txt", "", 404, ""},
    {"GET /f/sub//a.txt", "", 404, ""},
    {"GET /f/sub//", "", 404, ""},
    {"GET /f//", "", 404, ""},
    {"GET /f/sub/..//hello.txt", "", 404, ""},
    {"GET /f//../hello.txt", "", 200, "=hello.txt"},
    {"GET /f/hello.txt/.", "", 404, ""},
    {"GET /f/hello.txt/x", "", 404, ""},
    {"GET /f/hello.txt/../hello.txt", "", 200, "=hello.txt"},
    {"GET /f/hello.txt.", "", 404, ""},
    {"GET /f/hello.txt...", "", 404, ""},
    {"GET /f/hello.txt%20", "", 404, ""},
    {"GET /f/hello.txt%0a", "", 404, ""},
    {"GET /f/hello.txt::$DATA", "", 404, ""},
    {"GET /f/HELLO.TXT", "", 404, ""},
    {"GET /f/hello.txt%00", "", 400, ""},
    {"GET /f/hello.txt%00.png", "", 400, ""},
    {"GET /f/%00", "", 400, ""},
    {"GET /f/sub/%00/../../hello.txt", "", 400, ""},
    {"GET /f/hello%2", "", 400, ""},
    {"GET /f/~root/x", "", 404, ""},
    {"GET /f/*", "", 404, ""},
    {"GET /f/%2ehidden", "", 404, ""},
    {"GET /f/..x", "", 404, ""},
    {"GET /f/.git/config", "", 404, ""},
    {"GET /f/.git", "", 404, ""},
    {"GET /f/.git/", "", 404, ""},
    {"GET /f/.git/../hello.txt", "", 200, "=hello.txt"},
    {"GET /f/.../file.txt", "", 404, ""},
    {"GET /f/...", "", 404, ""},
    {"GET /f/odd/.hidden", "", 404, ""},
    {"GET /f/link.txt", "", 404, ""},
    {"HEAD /f/link.txt", "", 404, ""},
    {"GET /f/chain.txt", "", 404, ""},
    {"GET /f/link.d/a.txt", "", 404, ""},
    {"GET /f/link.d", "", 404, ""},
    {"GET /f/link.d/", "", 404, ""},
    {"GET /f/link.d/..", "", 404, ""},
    {"GET /f/sub/up.txt", "", 404, ""},
    {"HEAD /f/fifo", "", 404, ""},
    {"GET /f/fifo/", "", 404, ""},
    {"GET /f/socket", "", 404, ""},
    {"GET /f/" NAME_255, "", 404, ""},
    {"GET /f/" NAME_255 "6", "", 404, ""},
    {"GET /f/sub/" NAME_255 "6/x", "", 404, ""},
    {"GET /f/odd/" NAME_255, "", 200, "=odd/" NAME_255},
};

// The same with links: those that stay within are followed, but not those that leave the root on their way back.
static const struct row link_rows[] = {
    {"GET /f/link.txt", "", 200, "=hello.txt"},
    {"HEAD /f/link.txt", "", 200, "Content-Length: 9"},
    {"GET /f/chain.txt", "", 200, "=hello.txt"},
    {"GET /f/link.d/a.txt", "", 200, "=sub/a.txt"},
    {"GET /f/link.d", "", 301, "Location: /f/link.d/"},
    {"GET /f/link.d/deep/b.txt", "", 200, "=sub/deep/b.txt"},
    {"GET /f/link.d/up.txt", "", 200, "=hello.txt"},
    {"GET /f/sub/up.txt", "", 200, "=hello.txt"},
    {"GET /f/sub/deep/round.txt", "", 200, "=sub/a.txt"},
    {"GET /f/sub/dots.txt", "", 200, "=sub/a.txt"},
    {"GET /f/here/hello.txt", "", 200, "=hello.txt"},
    {"GET /f/here/here/here/sub/a.txt", "", 200, "=sub/a.txt"},
    {"GET /f/sub/root/hello.txt", "", 200, "=hello.txt"},
    {"GET /f/sub/root/sub/root/sub/a.txt", "", 200, "=sub/a.txt"},
    {"GET /f/with.slash/a.txt", "", 200, "=sub/a.txt"},
    {"GET /f/with.slash", "", 301, "Location: /f/with.slash/"},
    {"GET /f/via.link", "", 200, "=hello.txt"},
    {"GET /f/via.loop", "", 404, ""},
    {"GET /f/via.nothing", "", 404, ""},
    {"GET /f/top", "", 404, ""},
    {"GET /f/top/outside/secret.txt", "", 404, ""},
    {"GET /f/top/root/hello.txt", "", 404, ""},
    {"GET /f/sub/top/outside/secret.txt", "", 404, ""},
    {"GET /f/sub/deep/over/secret.txt", "", 404, ""},
    {"GET /f/sub/root/top/outside/secret.txt", "", 404, ""},
    {"GET /f/here/out.txt", "", 404, ""},
    {"GET /f/hello.txt", "", 200, "=hello.txt"},
    {"GET /f/out.d/../outside/secret.txt", "", 404, ""},
    {"GET /f/link.d/out.txt", "", 404, ""},
    {"GET /f/slash", "", 404, ""},
    {"GET /f/slash/", "", 404, ""},
    {"GET /f/link.txt/", "", 404, ""},
};

static const struct row dot_rows[] = {
    {"GET /f/.hidden", "", 200, "=.hidden"},
    {"GET /f/%2ehidden", "", 200, "=.hidden"},
    {"GET /f/..x", "", 200, "=..x"},
    {"GET /f/.git/config", "", 200, "=.git/config"},
    {"GET /f/.git", "", 301, "Location: /f/.git/"},
    {"GET /f/.git/", "", 404, ""},
    {"GET /f/.../file.txt", "", 200, "=.../file.txt"},
    {"GET /f/..", "", 404, ""},
    {"GET /f/../outside/secret.txt", "", 404, ""},
    {"GET /f/..%2foutside/secret.txt", "", 404, ""},
    {"GET /f/....//x", "", 404, ""},
    {"GET /f/out.txt", "", 404, ""},
};

static void check_traversal(void) {
    serve_files(&(httpsrv_files_config){0});
    CHECK_ROWS(traversal_rows);
    CHECK_ROWS(refused_rows);
    end();
}

static void check_links(void) {
    serve_files(&(httpsrv_files_config){.links = true});
    CHECK_ROWS(link_rows);
    CHECK_ROWS(refused_rows);
    end();
}

TEST_EACH_WAY(traversal) {
    check_traversal();
}

TEST_EACH_WAY(links_that_stay_within) {
    check_links();
}

TEST_EACH_WAY(names_with_dots) {
    serve_files(&(httpsrv_files_config){.dot_files = true});
    CHECK_ROWS(dot_rows);
    end();
}

TEST(traversal_as_a_user) {
    become_nobody();
    check_traversal();
    check_links();
}

TEST(unreadable_files) {
    static const struct row rows[] = {
        {"GET /f/locked.txt", "", 403, ""},   {"HEAD /f/locked.txt", "", 403, ""},
        {"GET /f/locked/x.txt", "", 403, ""}, {"GET /f/locked/none", "", 403, ""},
        {"GET /f/locked/", "", 403, ""},      {"GET /f/hello.txt", "", 200, "=hello.txt"},
    };
    become_nobody();
    serve_files(&(httpsrv_files_config){.list = true});
    CHECK_ROWS(rows);
    end();
}

// As a user may run the tests, an index of all files at the root of the server.
TEST(prefix_is_the_root) {
    static const struct row rows[] = {
        {"GET /hello.txt", "", 200, "=hello.txt"},
        {"GET /hello", "", 200, "~Hello, World!"}, // a literal route wins
        {"GET /sub", "", 301, "Location: /sub/"},
        {"GET /site/", "", 200, "=site/index.html"},
        {"GET /example.org", "", 301, "Location: /example.org/"},
        {"GET //example.org", "", 404, "-Location"}, // else "Location: //example.org/" would lead elsewhere
        {"GET //example.org/%2e%2e", "", 404, "-Location"},
        {"GET ///example.org", "", 404, "-Location"},
        {"GET /%2fexample.org", "", 404, "-Location"},
        {"GET /%5cexample.org", "", 404, "-Location"},
        {"GET /../hello.txt", "", 400, ""},
        {"GET /out.txt", "", 404, ""},
        {"GET /", "", 404, ""},
    };
    serve_at("/", &(httpsrv_files_config){0});
    CHECK_ROWS(rows);
    end();
}

TEST(two_trees_and_a_prefix_of_two_segments) {
    static const struct row rows[] = {
        {"GET /f/hello.txt", "", 200, "=hello.txt"},
        {"GET /f/sub/a.txt", "", 200, "=sub/deep/b.txt"},
        {"GET /f/sub/b.txt", "", 404, ""},
        {"GET /f/sub/", "", 404, ""},
        {"GET /f/sub/../hello.txt", "", 200, "=hello.txt"},
        {"GET /f/sub", "", 301, "Location: /f/sub/"},
    };
    begin(&(httpsrv_config){0});
    write_text(in_work("a.txt"), "sub/deep/b.txt");
    set_mtime(in_work("a.txt"), FIRST_MTIME, 0);
    add_files("/f", &(httpsrv_files_config){0});
    add_files("/f/sub", &(httpsrv_files_config){.root = in_work("")});
    go(&s);
    CHECK_ROWS(rows);
    end();
}

// The root itself is the operator's: it may be a link, and relative.
TEST(root_is_a_link) {
    static const struct row rows[] = {{"GET /f/hello.txt", "", 200, "=hello.txt"},
                                      {"GET /f/link.txt", "", 404, ""},
                                      {"GET /g/hello.txt", "", 200, "=hello.txt"}};
    CHECK_INT(symlink("../root", in_work("to.root")), 0);
    CHECK_INT(chdir(in_work("")), 0);
    begin(&(httpsrv_config){0});
    add_files("/f", &(httpsrv_files_config){.root = in_work("to.root")});
    add_files("/g", &(httpsrv_files_config){.root = "../root"});
    go(&s);
    CHECK_INT(chdir("/"), 0);
    CHECK_ROWS(rows);
    end();
}

static const char *percent(const char *name) {
    static char out[3000];
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_~.";
    size_t n = 0;
    for (; *name; name++) {
        if (strchr(plain, *name))
            out[n++] = *name;
        else
            n += (size_t)snprintf(out + n, sizeof out - n, "%%%02X", (unsigned)(unsigned char)*name);
    }
    out[n] = 0;
    return out;
}

static bool is_odd(const struct entry *e) {
    return strncmp(e->path, "odd/", 4) == 0 && e->path[4] != '.';
}

TEST(odd_names) {
    serve_files(&(httpsrv_files_config){0});
    for (size_t i = 0; i < ROWS(tree); i++) {
        char get[3100];
        if (!is_odd(&tree[i]) || tree[i].kind != TEXT) continue;
        snprintf(get, sizeof get, "GET /f/odd/%s", percent(tree[i].path + 4));
        NOTE("%s", get);
        request(get, "");
        CHECK_INT(line.status, 200);
        CHECK_MEM(line.body, line.body_len, tree[i].path, strlen(tree[i].path));
    }
    end();
}

// Linux gives up after 40 links.
TEST(chains_of_links) {
    char name[20], to[20], get[40];
    write_text(in_work("c0"), "the end");
    for (int i = 1; i <= 50; i++) {
        snprintf(name, sizeof name, "c%d", i);
        snprintf(to, sizeof to, "c%d", i - 1);
        make_link(in_work(name), to);
    }
    serve_work(&(httpsrv_files_config){.links = true});
    for (int i = 0; i <= 50; i++) {
        snprintf(get, sizeof get, "GET /w/c%d", i);
        NOTE("%s", get);
        request(get, "");
        CHECK_INT(line.status, i <= 40 ? 200 : 404);
    }
    end();
}

// ---- paths that change while they are walked ----

static int renames; // atomic: how often openat2 shall still find that something was renamed meanwhile

static int hooked_open_beneath(int root, const char *path, bool links) {
    if (LOAD(renames) == 0) return hsrv_sys_open_beneath(root, path, links);
    __atomic_sub_fetch(&renames, 1, __ATOMIC_RELAXED);
    errno = EAGAIN;
    return -1;
}

// Renames of anybody on the machine disturb the way through a link upwards.
TEST(renames_elsewhere) {
    serve_files(&(httpsrv_files_config){.links = true, .max_open = -1});
    STORE(renames, HSRV_OPEN_TRIES - 1);
    request("GET /f/sub/up.txt", "");
    CHECK_INT(line.status, 200);
    STORE(renames, HSRV_OPEN_TRIES - 1);
    request("GET /f/sub/deep/over/secret.txt", "");
    CHECK_INT(line.status, 404);
    STORE(renames, HSRV_OPEN_TRIES);
    request("GET /f/sub/up.txt", "");
    CHECK_INT(line.status, 503);
    CHECK_INT(LOAD(renames), 0);
    request("GET /f/sub/up.txt", "");
    CHECK_INT(line.status, 200);
    end();
}

static int swapping; // atomic

struct swap {
    const char *a, *b;
};

static void *swap_again_and_again(void *arg) {
    const struct swap *swap = (const struct swap *)arg;
    while (LOAD(swapping)) {
        syscall(SYS_renameat2, AT_FDCWD, swap->a, AT_FDCWD, swap->b, 2); // RENAME_EXCHANGE
    }
    return NULL;
}

// Asks for what is within half of the time, and must never get what is outside.
static void ask_while_swapped(const struct swap *swap, const char *get, bool links) {
    pthread_t thread;
    if (syscall(SYS_renameat2, AT_FDCWD, swap->a, AT_FDCWD, swap->b, 2) != 0) SKIP("no RENAME_EXCHANGE here");
    serve_work(&(httpsrv_files_config){.links = links, .max_open = -1});
    STORE(swapping, 1);
    CHECK_INT(pthread_create(&thread, NULL, swap_again_and_again, (void *)(uintptr_t)swap), 0);
    int found = 0;
    for (int i = 0; i < 100000 && (i < 3000 || found == 0); i++) {
        request(get, "");
        CHECK(memmem(line.body, line.body_len, SECRET, strlen(SECRET)) == NULL);
        CHECK(line.status == 200 || line.status == 404);
        found += line.status == 200;
    }
    STORE(swapping, 0);
    pthread_join(thread, NULL);
    CHECK_CMP(found, >, 0);
    end();
}

TEST(folder_becomes_a_link_to_the_outside) {
    const struct swap swap = {in_work("swap"), in_work("swap.link")};
    CHECK_INT(mkdir(in_work("swap"), 0755), 0);
    write_text(in_work("swap/secret.txt"), "inside");
    make_link(in_work("swap.link"), "../outside");
    ask_while_swapped(&swap, "GET /w/swap/secret.txt", false);
    ask_while_swapped(&swap, "GET /w/swap/secret.txt", true);
}

// A link leads upwards from a folder that is moved to the outside meanwhile.
TEST(folder_is_moved_to_the_outside) {
    const struct swap swap = {in_work("in/deep"), join("outside", "deep")};
    CHECK_INT(mkdir(in_work("in"), 0755) | mkdir(in_work("in/deep"), 0755) | mkdir(join("outside", "deep"), 0755), 0);
    write_text(in_work("in/secret.txt"), "inside");
    make_link(in_work("in/deep/up"), "../secret.txt");
    make_link(join("outside", "deep/up"), "../secret.txt");
    ask_while_swapped(&swap, "GET /w/in/deep/up", true);
}

TEST(paths_of_any_length) {
    serve_files(&(httpsrv_files_config){.links = true});
    for (size_t len = 500; len < 8000; len += 500) {
        char get[8100] = "GET /f/";
        while (strlen(get) < len) {
            strcat(get, len % 1000 ? "sub/" : "aaaaaaaaaaaaaaaaaaaaaaa");
        }
        request(get, "");
        CHECK_INT(line.status, 404);
    }
    end();
}

// ---- directories ----

TEST(other_indexes) {
    static const struct row rows[] = {
        {"GET /f/site/", "", 200, "=site/home.htm"},
        {"GET /f/site/index.html", "", 200, "=site/index.html"},
        {"GET /f/site/a%20b/", "", 404, ""},
        {"GET /g/site/", "", 404, ""},
        {"GET /g/site/index.html", "", 200, "=site/index.html"},
        {"GET /g/site", "", 301, "Location: /g/site/"},
    };
    begin(&(httpsrv_config){0});
    add_files("/f", &(httpsrv_files_config){.index = "home.htm"});
    add_files("/g", &(httpsrv_files_config){.index = ""});
    go(&s);
    CHECK_ROWS(rows);
    end();
}

// The text of a reference with its character references resolved.
static const char *unescaped(const char *text, size_t len) {
    static const struct {
        const char *from;
        char to;
    } names[] = {{"&amp;", '&'}, {"&lt;", '<'}, {"&gt;", '>'}, {"&quot;", '"'}, {"&#39;", '\''}, {"&#x27;", '\''}};
    static char out[3000];
    size_t n = 0;
    for (size_t i = 0; i < len;) {
        size_t step = 1;
        out[n] = text[i];
        for (size_t k = 0; k < ROWS(names); k++) {
            const size_t size = strlen(names[k].from);
            if (len - i < size || memcmp(text + i, names[k].from, size) != 0) continue;
            out[n] = names[k].to;
            step = size;
        }
        n++;
        i += step;
    }
    out[n] = 0;
    return out;
}

// The target that a reference in the page of `folder` means; false for what leads upwards.
static bool resolve(char *out, size_t size, const char *folder, const char *reference) {
    if (reference[strspn(reference, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+-.")] == ':')
        FAIL("a reference with a scheme: %s", reference);
    if (strncmp(reference, "//", 2) == 0) FAIL("a reference to another host: %s", reference);
    if (strncmp(reference, "../", 3) == 0) return false;
    if (strncmp(reference, "./", 2) == 0) reference += 2;
    snprintf(out, size, "GET %s%s", *reference == '/' ? "" : folder, reference);
    return strncmp(out + 4, folder, strlen(folder)) == 0 && strlen(out + 4) > strlen(folder);
}

// Follows every link of a listing that leads downwards; how many there are, and how many say their own path.
static int follow_links(const char *folder, int *own) {
    char get[3100], *page;
    int links = 0;
    *own = 0;
    snprintf(get, sizeof get, "GET %s", folder);
    request(get, "");
    CHECK_INT(line.status, 200);
    CHECK_STR(field(&line, "Content-Type"), "text/html; charset=utf-8");
    CHECK_STR(field(&line, "X-Content-Type-Options"), "nosniff");
    page = strndup(line.body, line.body_len);
    CHECK(page != NULL && strlen(page) == line.body_len);
    for (const char *at = page; (at = strstr(at, "href=\"")) != NULL;) {
        const char *from = at + 6, *to = strchr(from, '"');
        at = to;
        if (!resolve(get, sizeof get, folder, unescaped(from, (size_t)(to - from)))) continue;
        NOTE("%s", get);
        request(get, "");
        CHECK_INT(line.status, 200);
        *own += line.body_len > 4 && memcmp(line.body, "odd/", 4) == 0;
        links++;
    }
    free(page);
    return links;
}

TEST_EACH_WAY(listing) {
    int files = 0, folders = 0, own;
    for (size_t i = 0; i < ROWS(tree); i++) {
        files += is_odd(&tree[i]) && tree[i].kind == TEXT;
        folders += is_odd(&tree[i]) && tree[i].kind == FOLDER;
    }
    serve_files(&(httpsrv_files_config){.list = true});
    CHECK_INT(follow_links("/f/odd/", &own), files + folders);
    CHECK_INT(own, files);
    request("GET /f/odd/", "");
    static const char *const never[] = {"<script>", "<>&", "<b>", "\"'.txt", ".hidden", "javascript:alert(1)\""};
    for (size_t i = 0; i < ROWS(never); i++) {
        NOTE("%s", never[i]);
        CHECK(memmem(line.body, line.body_len, never[i], strlen(never[i])) == NULL);
    }
    CHECK(memmem(line.body, line.body_len, "&lt;script&gt;", 14) != NULL);
    const size_t whole = line.body_len;
    request("HEAD /f/odd/", "");
    CHECK_INT(line.status, 200);
    CHECK_INT(line.length, whole);
    end();
}

TEST(listing_of_other_folders) {
    static const struct row rows[] = {
        {"GET /f/empty/", "", 200, "Content-Type: text/html; charset=utf-8"},
        {"GET /f/site/", "", 200, "=site/index.html"}, // an index comes first
        {"GET /f/trap/", "", 200, "~index.html/"},
        {"GET /f/empty", "", 301, "Location: /f/empty/"},
        {"GET /f/none/", "", 404, ""},
        {"GET /f/hello.txt/", "", 404, ""},
        {"GET /f/.git/", "", 404, ""},
        {"GET /f/out.d/", "", 404, ""},
        {"GET /f/link.d/", "", 404, ""},
        {"GET /f/", "", 200, "~hello.txt"},
        {"POST /f/empty/", "", 405, "Allow"},
        {"GET /d/.git/", "", 200, "~config"},
        {"GET /d/", "", 200, "~.hidden"},
        {"GET /l/", "", 200, "~link.txt"},
        {"GET /l/link.d/", "", 200, "~a.txt"},
        {"GET /l/out.d/", "", 404, ""},
        {"GET /g/empty/", "", 404, ""},
    };
    begin(&(httpsrv_config){0});
    add_files("/f", &(httpsrv_files_config){.list = true});
    add_files("/d", &(httpsrv_files_config){.list = true, .dot_files = true});
    add_files("/l", &(httpsrv_files_config){.list = true, .links = true});
    add_files("/g", &(httpsrv_files_config){0});
    go(&s);
    CHECK_ROWS(rows);
    static const char *const never[] = {".hidden", ".git", "..x", "link.txt", "out.d"};
    for (size_t i = 0; i < ROWS(never); i++) {
        request("GET /f/", "");
        CHECK(memmem(line.body, line.body_len, never[i], strlen(never[i])) == NULL);
    }
    end();
}

TEST(listing_of_many) {
    char name[100];
    int own;
    CHECK_INT(mkdir(in_work("many"), 0755), 0);
    for (int i = 0; i < 500; i++) {
        snprintf(name, sizeof name, "many/file %d.txt", i);
        write_text(in_work(name), name);
    }
    serve_work(&(httpsrv_files_config){.list = true});
    CHECK_INT(follow_links("/w/many/", &own), 500);
    end();
}

// ---- conditions: RFC 9110 section 13 ----

TEST(entity_tags_and_dates) {
    char before[200], after[200];
    const char *path = in_work("changing.bin");
    serve_work(&(httpsrv_files_config){.max_open = -1});
    static const struct {
        size_t size;
        int64_t seconds;
        long nanoseconds;
    } states[] = {{100, FIRST_MTIME, 0},
                  {101, FIRST_MTIME, 0},
                  {100, FIRST_MTIME + 1, 0},
                  {100, FIRST_MTIME + 1, 5},
                  {0, FIRST_MTIME, 0},
                  {100, 0, 0},
                  {100, -1, 0},
                  {100, -310000000, 7}};
    *before = 0;
    for (size_t i = 0; i < ROWS(states); i++) {
        NOTE("state %zu", i);
        write_file(path, content, states[i].size);
        set_mtime(path, states[i].seconds, states[i].nanoseconds);
        const struct facts facts = facts_of("/w/changing.bin"), again = facts_of("/w/changing.bin");
        CHECK_STR(facts.etag, again.etag);
        CHECK_INT(facts.date, states[i].seconds);
        CHECK_INT(line.length, states[i].size);
        snprintf(after, sizeof after, "%s", facts.etag);
        CHECK(strcmp(before, after) != 0);
        CHECK(after[0] == '"');
        snprintf(before, sizeof before, "%s", after);
    }
    end();
}

#define NOT_MODIFIED "ETag\n-Content-Range\n-Content-Encoding"

static const struct row condition_rows[] = {
    {"GET /f/k1.bin", "If-None-Match: $E", 304, NOT_MODIFIED},
    {"HEAD /f/k1.bin", "If-None-Match: $E", 304, NOT_MODIFIED},
    {"GET /f/k1.bin", "If-None-Match: $W", 304, NOT_MODIFIED}, // weak comparison
    {"GET /f/k1.bin", "If-None-Match: *", 304, NOT_MODIFIED},
    {"GET /f/none", "If-None-Match: *", 404, ""},
    {"GET /f/k1.bin", "If-None-Match: \"x\"", 200, "=k1.bin"},
    {"GET /f/k1.bin", "If-None-Match: \"x\", $E", 304, NOT_MODIFIED},
    {"GET /f/k1.bin", "If-None-Match: \"x\",$E,\"y\"", 304, NOT_MODIFIED},
    {"GET /f/k1.bin", "If-None-Match: , ,\"x\" , \t$W,", 304, NOT_MODIFIED},
    {"GET /f/k1.bin", "If-None-Match: \"a,b\", \"c\"", 200, "=k1.bin"},
    {"GET /f/k1.bin", "If-None-Match: \"a, \"\nIf-None-Match: $E", 304, NOT_MODIFIED}, // two lines are one list
    {"GET /f/k1.bin", "If-None-Match: w/\"x\"", 200, "=k1.bin"},
    {"GET /f/k1.bin", "If-None-Match: garbage", 200, "=k1.bin"},
    {"GET /f/k1.bin", "If-None-Match:", 200, "=k1.bin"},
    {"GET /f/k1.bin", "If-None-Match: \"", 200, "=k1.bin"},
    {"GET /f/k1.bin", "If-Match: $E", 200, "=k1.bin"},
    {"GET /f/k1.bin", "If-Match: *", 200, "=k1.bin"},
    {"GET /f/k1.bin", "If-Match: \"x\", $E", 200, "=k1.bin"},
    {"GET /f/k1.bin", "If-Match: $W", 412, "-Content-Range"}, // strong comparison
    {"HEAD /f/k1.bin", "If-Match: $W", 412, ""},
    {"GET /f/k1.bin", "If-Match: \"x\"", 412, ""},
    {"GET /f/k1.bin", "If-Match: \"x\"\nIf-Match: $E", 200, "=k1.bin"},
    {"GET /f/none", "If-Match: *", 404, ""},
    {"GET /f/k1.bin", "If-Modified-Since: $D", 304, NOT_MODIFIED},
    {"GET /f/k1.bin", "If-Modified-Since: $A", 304, NOT_MODIFIED},
    {"GET /f/k1.bin", "If-Modified-Since: $B", 200, "=k1.bin"},
    {"GET /f/k1.bin", "If-Modified-Since: $O", 304, NOT_MODIFIED},
    {"GET /f/k1.bin", "If-Modified-Since: $C", 304, NOT_MODIFIED},
    {"GET /f/k1.bin", "If-Modified-Since: 1784111777", 200, "=k1.bin"},
    {"GET /f/k1.bin", "If-Modified-Since: Xxx, 99 Zzz 2099 99:99:99 GMT", 200, "=k1.bin"},
    {"GET /f/k1.bin", "If-Modified-Since: Fri, 31 Feb 2090 00:00:00 GMT", 200, "=k1.bin"},
    {"GET /f/k1.bin", "If-Modified-Since: $D, $D", 200, "=k1.bin"},
    {"GET /f/k1.bin", "If-Modified-Since:", 200, "=k1.bin"},
    {"GET /f/k1.bin", "If-Unmodified-Since: $D", 200, "=k1.bin"},
    {"GET /f/k1.bin", "If-Unmodified-Since: $A", 200, "=k1.bin"},
    {"GET /f/k1.bin", "If-Unmodified-Since: $B", 412, ""},
    {"GET /f/k1.bin", "If-Unmodified-Since: Sat, 01 Jan 2000 00:00:00 +0000", 200, "=k1.bin"},
    {"GET /f/k1.bin", "If-Unmodified-Since: yesterday", 200, "=k1.bin"},
    {"GET /f/site/", "If-None-Match: *", 304, NOT_MODIFIED},
    {"GET /f/sub", "If-None-Match: *", 301, ""},
    {"POST /f/k1.bin", "If-Match: \"x\"", 405, ""},
    {"GET /f/k1.bin", "If-None-Match: $E\nRange: bytes=0-1", 304, NOT_MODIFIED},
    {"GET /f/k1.bin", "If-Match: \"x\"\nRange: bytes=0-1", 412, ""},
    {"GET /f/k1.bin", "If-None-Match: $E\nRange: bytes=5000-", 304, NOT_MODIFIED},
    {"GET /f/empty.bin", "If-None-Match: $E", 304, NOT_MODIFIED},
};

TEST_EACH_WAY(conditions) {
    serve_files(&(httpsrv_files_config){0});
    CHECK_ROWS(condition_rows);
    end();
}

// One condition: what a client may say, and whether it holds (13.1.1 to 13.1.4); malformed dates are ignored.
struct condition {
    const char *field;
    enum { ABSENT, HOLDS, FAILS } verdict;
};

static const struct condition if_match[] = {{"", ABSENT},
                                            {"If-Match: $E\n", HOLDS},
                                            {"If-Match: $W\n", FAILS},
                                            {"If-Match: \"x\"\n", FAILS},
                                            {"If-Match: *\n", HOLDS}};
static const struct condition if_unmodified[] = {{"", ABSENT},
                                                 {"If-Unmodified-Since: $D\n", HOLDS},
                                                 {"If-Unmodified-Since: $B\n", FAILS},
                                                 {"If-Unmodified-Since: Sun\n", ABSENT}};
static const struct condition if_none_match[] = {{"", ABSENT},
                                                 {"If-None-Match: $E\n", FAILS},
                                                 {"If-None-Match: $W\n", FAILS},
                                                 {"If-None-Match: \"x\"\n", HOLDS},
                                                 {"If-None-Match: *\n", FAILS}};
static const struct condition if_modified[] = {{"", ABSENT},
                                               {"If-Modified-Since: $D\n", FAILS},
                                               {"If-Modified-Since: $B\n", HOLDS},
                                               {"If-Modified-Since: Sun\n", ABSENT}};
static const struct condition ranges[] = {{"", ABSENT},
                                          {"Range: bytes=2-3\n", HOLDS},
                                          {"Range: bytes=2-3\nIf-Range: $E\n", HOLDS},
                                          {"Range: bytes=2-3\nIf-Range: $W\n", FAILS},
                                          {"Range: bytes=2-3\nIf-Range: $D\n", HOLDS},
                                          {"Range: bytes=2-3\nIf-Range: $B\n", FAILS}};

// RFC 9110 section 13.2.2, step by step.
static int status_by_rfc(const struct condition *const list[5], bool head) {
    if (list[0]->verdict == FAILS) return 412;
    if (list[0]->verdict == ABSENT && list[1]->verdict == FAILS) return 412;
    if (list[2]->verdict == FAILS) return 304;
    if (list[2]->verdict == ABSENT && list[3]->verdict == FAILS) return 304;
    return !head && list[4]->verdict == HOLDS ? 206 : 200;
}

static void check_combination(size_t number, const struct facts *facts) {
    static const char *const body[] = {"GET /f/b10.bin", "HEAD /f/b10.bin"};
    const bool head = number % 2;
    const struct condition *list[5];
    char fields[800], *out = fields;
    number /= 2;
    list[0] = &if_match[number % 5], number /= 5;
    list[1] = &if_unmodified[number % 4], number /= 4;
    list[2] = &if_none_match[number % 5], number /= 5;
    list[3] = &if_modified[number % 4], number /= 4;
    list[4] = &ranges[number % 6];
    for (size_t i = 0; i < 5; i++) {
        for (const char *at = list[i]->field; *at; at++) {
            if (*at == '$')
                put_fact(out, 200, facts, *++at);
            else
                out[0] = *at, out[1] = 0;
            out += strlen(out);
        }
    }
    *out = 0;
    NOTE("%s\n%s", body[head], fields);
    request(body[head], fields);
    CHECK_INT(line.status, status_by_rfc(list, head));
    if (head) return;
    if (line.status == 200) CHECK_MEM(line.body, line.body_len, content, 10);
    if (line.status == 206) CHECK_MEM(line.body, line.body_len, content + 2, 2);
}

TEST(precedence_of_all_combinations) {
    serve_files(&(httpsrv_files_config){0});
    const struct facts facts = facts_of("/f/b10.bin");
    for (size_t i = 0; i < 2 * 5 * 4 * 5 * 4 * 6; i++) {
        check_combination(i, &facts);
    }
    end();
}

// A date is no strong validator while the file may still change within that second (RFC 9110 section 8.8.2.2).
TEST(if_range_with_a_date_of_now) {
    const char *path = in_work("now.bin");
    serve_work(&(httpsrv_files_config){0});
    write_file(path, content, 10);
    set_mtime(path, time(NULL) + 100, 0);
    request("GET /w/now.bin", expand("Range: bytes=0-3\nIf-Range: $D\n", "/w/now.bin"));
    CHECK_INT(line.status, 200);
    CHECK_INT(line.body_len, 10);
    request("GET /w/now.bin", expand("Range: bytes=0-3\nIf-Range: $E\n", "/w/now.bin"));
    CHECK_INT(line.status, 206);
    // Last-Modified is never later than the answer itself (section 8.8.2.1).
    CHECK_CMP(date_of(field(&line, "Last-Modified")), <=, date_of(field(&line, "Date")));
    end();
}

// Some file systems have times that no date of HTTP can say.
TEST(times_out_of_range) {
    const struct {
        int64_t mtime, modified;
    } rows[] = {{HSRV_FIRST_DATE, HSRV_FIRST_DATE}, {HSRV_FIRST_DATE - 1, INT64_MIN}, {INT64_MIN, INT64_MIN}, {-1, -1}};
    for (size_t i = 0; i < ROWS(rows); i++) {
        hsrv_file file;
        memset(&file, 0, sizeof file);
        file.mtime = rows[i].mtime;
        CHECK_INT(hsrv_content_modified(&file), rows[i].modified);
        hsrv_content_make_date(&file);
        CHECK_INT(file.date_len, rows[i].modified == INT64_MIN ? 0 : 29);
    }
    hsrv_file file;
    memset(&file, 0, sizeof file);
    file.mtime = INT64_MAX;
    CHECK_CMP(hsrv_content_modified(&file), <=, time(NULL));
    hsrv_content_make_date(&file);
    CHECK_INT(file.date_len, 0);
}

TEST(conditions_in_any_case) {
    static const struct row rows[] = {
        {"GET /w/any.bin", "RANGE: bytes=0-3", 206, NULL},
        {"GET /w/any.bin", "range: bytes=0-3", 206, NULL},
        {"GET /w/any.bin", "IF-NONE-MATCH: *", 304, NULL},
        {"GET /w/any.bin", "if-match: \"x\"", 412, NULL},
        {"GET /w/any.bin", "if-unmodified-since: Thu, 01 Jan 1970 00:00:01 GMT", 412, NULL},
        {"GET /w/any.bin", "If: x\nI: y\nR: z\nReferer: a\nRange-x: bytes=0-3", 200, NULL}};
    const char *path = in_work("any.bin");
    write_file(path, content, 10);
    serve_work(&(httpsrv_files_config){0});
    for (size_t i = 0; i < ROWS(rows); i++) {
        NOTE("%s", rows[i].fields);
        request(rows[i].request, rows[i].fields);
        CHECK_INT(line.status, rows[i].status);
    }
    end();
}

// ---- ranges: RFC 9110 section 14 ----

#define R16 "0-0,2-2,4-4,6-6,8-8,10-10,12-12,14-14,16-16,18-18,20-20,22-22,24-24,26-26,28-28,30-30"
#define P16 "0-0 2-2 4-4 6-6 8-8 10-10 12-12 14-14 16-16 18-18 20-20 22-22 24-24 26-26 28-28 30-30"

static const struct row range_rows[] = {
    {"GET /f/k1.bin", "Range: bytes=0-0", 206, "Content-Range: bytes 0-0/1024\n=k1.bin|0-0\nContent-Length: 1"},
    {"GET /f/k1.bin", "Range: bytes=0-1023", 206, "Content-Range: bytes 0-1023/1024\n=k1.bin"},
    {"GET /f/k1.bin", "Range: bytes=10-19", 206, "Content-Range: bytes 10-19/1024\n=k1.bin|10-19"},
    {"GET /f/k1.bin", "Range: bytes=1000-", 206, "Content-Range: bytes 1000-1023/1024\n=k1.bin|1000-1023"},
    {"GET /f/k1.bin", "Range: bytes=1023-", 206, "Content-Range: bytes 1023-1023/1024\n=k1.bin|1023-1023"},
    {"GET /f/k1.bin", "Range: bytes=1000-5000", 206, "Content-Range: bytes 1000-1023/1024\n=k1.bin|1000-1023"},
    {"GET /f/k1.bin", "Range: bytes=-24", 206, "Content-Range: bytes 1000-1023/1024\n=k1.bin|1000-1023"},
    {"GET /f/k1.bin", "Range: bytes=-1024", 206, "Content-Range: bytes 0-1023/1024\n=k1.bin"},
    {"GET /f/k1.bin", "Range: bytes=-5000", 206, "Content-Range: bytes 0-1023/1024\n=k1.bin"},
    {"GET /f/k1.bin", "Range: bytes=-0", 416, "Content-Range: bytes */1024\n-Cache-Control"},
    {"GET /f/k1.bin", "Range: bytes=1024-", 416, "Content-Range: bytes */1024"},
    {"GET /f/k1.bin", "Range: bytes=1024-1030", 416, "Content-Range: bytes */1024"},
    {"GET /f/k1.bin", "Range: bytes=5000-6000,-0", 416, "Content-Range: bytes */1024"},
    {"GET /f/empty.bin", "Range: bytes=0-", 200, "=empty.bin"},
    {"GET /f/empty.bin", "Range: bytes=-5", 200, "=empty.bin"},
    {"GET /f/b1.bin", "Range: bytes=0-", 206, "Content-Range: bytes 0-0/1\n=b1.bin"},
    {"GET /f/k1.bin", "Range: bytes=2-1", 200, "=k1.bin\n-Content-Range"},
    {"GET /f/k1.bin", "Range: bytes=0-1,5-4", 200, "=k1.bin"},
    {"GET /f/k1.bin", "Range: BYTES=0-1", 206, "=k1.bin|0-1"},
    {"GET /f/k1.bin", "Range: bytes=0-1,", 206, "=k1.bin|0-1"},
    {"GET /f/k1.bin", "Range: bytes=,0-1", 206, "=k1.bin|0-1"},
    {"GET /f/k1.bin", "Range: bytes=0-1 , 4-5", 206, "&k1.bin 0-1 4-5"},
    {"GET /f/k1.bin", "Range: bytes=0-1,4-5,1020-", 206, "&k1.bin 0-1 4-5 1020-1023"},
    {"GET /f/k1.bin", "Range: bytes=0-1,-3", 206, "&k1.bin 0-1 1021-1023"},
    {"GET /f/k1.bin", "Range: bytes=10-11,0-1", 206, "&k1.bin 10-11 0-1"},
    {"GET /f/k1.bin", "Range: bytes=0-1,2000-2001,4-5", 206, "&k1.bin 0-1 4-5"},
    {"GET /f/k1.bin", "Range: bytes=0-1,2000-2001", 206, "Content-Range: bytes 0-1/1024\n=k1.bin|0-1"},
    {"GET /f/m10.bin", "Range: bytes=0-99999,5000000-9999999", 206, "&m10.bin 0-99999 5000000-9999999"},
    {"GET /f/k1.bin", "Range: bytes=" R16, 206, "&k1.bin " P16},
    {"GET /f/k1.bin", "Range: bytes=" R16 ",32-32", 200, "=k1.bin"},
    {"GET /f/k1.bin", "Range: bytes=0-10,5-15", 200, "=k1.bin"},
    {"GET /f/k1.bin", "Range: bytes=0-10,10-15", 200, "=k1.bin"},
    {"GET /f/k1.bin", "Range: bytes=0-,0-,0-", 200, "=k1.bin"},
    {"GET /f/k1.bin", "Range: bytes=5-15,0-10", 200, "=k1.bin"},
    {"GET /f/k1.bin", "Range: bytes=0-1,500-,-700", 200, "=k1.bin"},
    {"GET /f/k1.bin", "Range: items=0-1", 200, "=k1.bin"},
    {"GET /f/k1.bin", "Range: none", 200, "=k1.bin"},
    {"GET /f/k1.bin", "Range:", 200, "=k1.bin"},
    {"GET /f/k1.bin", "Range: bytes", 200, "=k1.bin"},
    {"GET /f/k1.bin", "Range: bytes=", 200, "=k1.bin"},
    {"GET /f/k1.bin", "Range: bytes=,", 200, "=k1.bin"},
    {"GET /f/k1.bin", "Range: bytes=-", 200, "=k1.bin"},
    {"GET /f/k1.bin", "Range: bytes=1", 200, "=k1.bin"},
    {"GET /f/k1.bin", "Range: bytes=a-b", 200, "=k1.bin"},
    {"GET /f/k1.bin", "Range: bytes=0x0-0x1", 200, "=k1.bin"},
    {"GET /f/k1.bin", "Range: bytes=+0-1", 200, "=k1.bin"},
    {"GET /f/k1.bin", "Range: bytes=0--1", 200, "=k1.bin"},
    {"GET /f/k1.bin", "Range: bytes=--1", 200, "=k1.bin"},
    {"GET /f/k1.bin", "Range: bytes=0-1-2", 200, "=k1.bin"},
    {"GET /f/k1.bin", "Range: bytes=0 - 1", 200, "=k1.bin"},
    {"GET /f/k1.bin", "Range: bytes=0-1;x", 200, "=k1.bin"},
    {"GET /f/k1.bin", "Range: bytes =0-1", 200, "=k1.bin"},
    {"GET /f/k1.bin", "Range: bytes:0-1", 200, "=k1.bin"},
    {"GET /f/k1.bin", "Range: bytes=0-99999999999999999999999999", 206, "=k1.bin\nContent-Range: bytes 0-1023/1024"},
    {"GET /f/k1.bin", "Range: bytes=0-18446744073709551616", 206, "=k1.bin"},
    {"GET /f/k1.bin", "Range: bytes=18446744073709551616-", 416, "Content-Range: bytes */1024"},
    {"GET /f/k1.bin", "Range: bytes=9223372036854775807-9223372036854775807", 416, "Content-Range: bytes */1024"},
    {"GET /f/k1.bin", "Range: bytes=-18446744073709551617", 206, "=k1.bin"},
    {"GET /f/k1.bin", "Range: bytes=-9223372036854775808", 206, "=k1.bin"},
    {"GET /f/k1.bin", "Range: bytes=0000000000000000000000000-0001", 206, "=k1.bin|0-1"},
    {"HEAD /f/k1.bin", "Range: bytes=0-1", 200, "Content-Length: 1024\n-Content-Range"},
    {"HEAD /f/k1.bin", "Range: bytes=5000-", 200, "Content-Length: 1024\n-Content-Range"},
    {"POST /f/k1.bin", "Range: bytes=0-1", 405, ""},
    {"GET /f/none", "Range: bytes=0-1", 404, ""},
    {"GET /f/site/", "Range: bytes=0-3", 206, "=site/index.html|0-3"},
    {"GET /f/k1.bin", "Range: bytes=0-1\nIf-Range: $E", 206, "=k1.bin|0-1"},
    {"GET /f/k1.bin", "Range: bytes=0-1\nIf-Range: $W", 200, "=k1.bin"},
    {"GET /f/k1.bin", "Range: bytes=0-1\nIf-Range: \"x\"", 200, "=k1.bin"},
    {"GET /f/k1.bin", "Range: bytes=0-1\nIf-Range: *", 200, "=k1.bin"},
    {"GET /f/k1.bin", "Range: bytes=0-1\nIf-Range: $E, $E", 200, "=k1.bin"},
    {"GET /f/k1.bin", "Range: bytes=0-1\nIf-Range: $D", 206, "=k1.bin|0-1"},
    {"GET /f/k1.bin", "Range: bytes=0-1\nIf-Range: $O", 206, "=k1.bin|0-1"},
    {"GET /f/k1.bin", "Range: bytes=0-1\nIf-Range: $A", 200, "=k1.bin"}, // not exactly that date
    {"GET /f/k1.bin", "Range: bytes=0-1\nIf-Range: $B", 200, "=k1.bin"},
    {"GET /f/k1.bin", "Range: bytes=0-1\nIf-Range: garbage", 200, "=k1.bin"},
    {"GET /f/k1.bin", "Range: bytes=5000-\nIf-Range: \"x\"", 200, "=k1.bin"},
    {"GET /f/k1.bin", "Range: bytes=5000-\nIf-Range: $E", 416, "Content-Range: bytes */1024"},
    {"GET /f/k1.bin", "If-Range: \"x\"", 200, "=k1.bin"},
    {"GET /f/k1.bin", "Range: bytes=0-1,4-5\nIf-Range: $E", 206, "&k1.bin 0-1 4-5"},
    {"GET /f/k1.bin", "Range: bytes=0-1\nIf-Match: $E\nIf-Range: $E", 206, "=k1.bin|0-1"},
};

TEST_EACH_WAY(ranges_of_files) {
    serve_files(&(httpsrv_files_config){0});
    CHECK_ROWS(range_rows);
    end();
}

// The one range of a file of 10 bytes, computed anew: 206 with its ends, 416, or 200.
static void check_range(long first, long last) {
    char fields[100];
    const bool suffix = first < 0;
    if (suffix)
        snprintf(fields, sizeof fields, "Range: bytes=-%ld", last);
    else
        snprintf(fields, sizeof fields, last < 0 ? "Range: bytes=%ld-" : "Range: bytes=%ld-%ld", first, last);
    const long from = !suffix ? first : last > 10 ? 0 : 10 - last, to = suffix || last < 0 || last > 9 ? 9 : last;
    const bool malformed = !suffix && last >= 0 && last < first;
    NOTE("%s", fields);
    request("GET /f/b10.bin", fields);
    CHECK_INT(line.status, malformed ? 200 : from > 9 ? 416 : 206);
    if (line.status == 206) CHECK_MEM(line.body, line.body_len, content + from, (size_t)(to - from + 1));
    if (line.status == 200) CHECK_INT(line.body_len, 10);
}

TEST(every_range_of_ten_bytes) {
    serve_files(&(httpsrv_files_config){0});
    for (long first = -1; first < 13; first++) {
        for (long last = first < 0 ? 0 : -1; last < 13; last++) {
            check_range(first, last);
        }
    }
    end();
}

TEST(ranges_beyond_4_gigabytes) {
    static const struct row rows[] = {
        {"HEAD /w/giant.bin", "", 200, "Content-Length: 5368709120"},
        {"GET /w/giant.bin", "Range: bytes=-2", 206, "Content-Range: bytes 5368709118-5368709119/5368709120"},
        {"GET /w/giant.bin", "Range: bytes=4294967295-4294967296", 206,
         "Content-Range: bytes 4294967295-4294967296/5368709120\nContent-Length: 2"},
        {"GET /w/giant.bin", "Range: bytes=5368709119-", 206, "~!\nContent-Length: 1"},
        {"GET /w/giant.bin", "Range: bytes=5368709120-", 416, "Content-Range: bytes */5368709120"},
    };
    const char *path = in_work("giant.bin");
    write_sparse(path, GIANT_BYTES);
    const int fd = open(path, O_WRONLY | O_CLOEXEC);
    CHECK_INT(pwrite(fd, "!", 1, GIANT_BYTES - 1), 1);
    close(fd);
    set_mtime(path, FIRST_MTIME, 0);
    serve_work(&(httpsrv_files_config){0});
    CHECK_ROWS(rows);
    end();
    unlink(path);
}

// ---- other fields ----

TEST(cache_control) {
    static const struct row rows[] = {
        {"GET /c/hello.txt", "", 200, "Cache-Control: public, max-age=3600\n=hello.txt"},
        {"HEAD /c/hello.txt", "", 200, "Cache-Control: public, max-age=3600"},
        {"GET /c/hello.txt", "If-None-Match: *", 304, "Cache-Control: public, max-age=3600"},
        {"GET /c/hello.txt", "Range: bytes=0-1", 206, "Cache-Control: public, max-age=3600"},
        {"GET /c/none.txt", "", 404, "-Cache-Control"},
        {"GET /c/hello.txt", "Range: bytes=99-", 416, "-Cache-Control"}, // else a cache may give it to others
        {"GET /c/hello.txt", "If-Match: \"x\"", 412, "-Cache-Control"},
        {"GET /f/hello.txt", "", 200, "-Cache-Control\n-Vary\n=hello.txt"},
    };
    begin(&(httpsrv_config){0});
    add_files("/c", &(httpsrv_files_config){.cache_control = "public, max-age=3600"});
    add_files("/f", &(httpsrv_files_config){0});
    go(&s);
    CHECK_ROWS(rows);
    end();
}

// What a client takes, and which of the three codings of all.css it has to get: NULL is none of them.
static const struct {
    const char *accept, *coding;
} accept_rows[] = {
    {"", NULL},
    {"Accept-Encoding:", NULL},
    {"Accept-Encoding: gzip", "gzip"},
    {"Accept-Encoding: GZip", "gzip"},
    {"Accept-Encoding: x-gzip", "gzip"},
    {"Accept-Encoding: br", "br"},
    {"Accept-Encoding: zstd", "zstd"},
    {"Accept-Encoding: deflate", NULL},
    {"Accept-Encoding: gzipped, b, brr", NULL},
    {"Accept-Encoding: identity", NULL},
    {"Accept-Encoding: gzip, deflate, br, zstd", "br"},
    {"Accept-Encoding: gzip,zstd", "zstd"},
    {"Accept-Encoding: gzip\nAccept-Encoding: br", "br"},
    {"Accept-Encoding: gzip;q=1.0, br;q=0.5", "gzip"},
    {"Accept-Encoding: gzip;q=0.9, br;q=0.8, zstd;q=0.95", "zstd"},
    {"Accept-Encoding: gzip ; q=0.5 ,br ;q=0.4", "gzip"},
    {"Accept-Encoding: gzip;Q=0.5, br;Q=0.4", "gzip"},
    {"Accept-Encoding: gzip;q=0", NULL},
    {"Accept-Encoding: gzip;q=0.000, br;q=0.0", NULL},
    {"Accept-Encoding: gzip;q=0.001", "gzip"},
    {"Accept-Encoding: br;q=0, gzip", "gzip"},
    {"Accept-Encoding: *", "br"},
    {"Accept-Encoding: br;q=0, *", "zstd"},
    {"Accept-Encoding: *;q=0.1, gzip", "gzip"},
    {"Accept-Encoding: gzip, *;q=0", "gzip"},
    {"Accept-Encoding: identity, gzip;q=0.5", NULL},
    {"Accept-Encoding: identity;q=0.5, gzip;q=0.4", NULL},
    {"Accept-Encoding: identity;q=0.4, gzip;q=0.5", "gzip"},
    {"Accept-Encoding: identity;q=0, gzip;q=0.001", "gzip"},
    {"Accept-Encoding: identity;q=0, *", "br"},
};

static void check_coding(const char *accept, const char *coding, char etags[4][200]) {
    static const struct {
        const char *coding, *content;
    } forms[] = {{NULL, "z/all.css"}, {"br", "z/all.css.br"}, {"zstd", "z/all.css.zst"}, {"gzip", "z/all.css.gz"}};
    size_t form = 0;
    while (coding && (!forms[form].coding || strcmp(forms[form].coding, coding) != 0)) {
        form++;
    }
    request("GET /f/z/all.css", expand(accept, ""));
    CHECK_INT(line.status, 200);
    CHECK_STR(field(&line, "Content-Encoding"), coding);
    CHECK_STR(field(&line, "Content-Type"), "text/css; charset=utf-8");
    CHECK_STR(field(&line, "Vary"), "Accept-Encoding");
    check_content(forms[form].content);
    check_file_fields();
    if (!etags[form][0]) snprintf(etags[form], 200, "%s", field(&line, "ETag"));
    CHECK_STR(field(&line, "ETag"), etags[form]);
}

TEST_EACH_WAY(precompressed_siblings) {
    char etags[4][200] = {""};
    serve_files(&(httpsrv_files_config){.precompressed = true});
    for (size_t i = 0; i < 2 * ROWS(accept_rows); i++) {
        NOTE("%s; %s", way->name, accept_rows[i % ROWS(accept_rows)].accept);
        check_coding(accept_rows[i % ROWS(accept_rows)].accept, accept_rows[i % ROWS(accept_rows)].coding, etags);
    }
    for (size_t i = 0; i < 4; i++) {
        for (size_t k = 0; k < i; k++) {
            CHECK(strcmp(etags[i], etags[k]) != 0);
        }
    }
    static const struct row rows[] = {
        {"HEAD /f/z/all.css", "Accept-Encoding: br", 200,
         "Content-Encoding: br\nContent-Length: 12\nVary: Accept-Encoding"},
        {"GET /f/z/gz.js", "Accept-Encoding: br, gzip;q=0.1", 200, "Content-Encoding: gzip\n=z/gz.js.gz"},
        {"GET /f/z/gz.js", "Accept-Encoding: br", 200, "-Content-Encoding\n=z/gz.js\nVary: Accept-Encoding"},
        {"GET /f/z/gz.js", "Accept-Encoding: gzip\nRange: bytes=5-9", 206,
         "Content-Encoding: gzip\n=z/gz.js.gz|5-9\nContent-Range: bytes 5-9/10"},
        {"GET /f/z/gz.js", "Accept-Encoding: gzip\nIf-None-Match: *", 304, "Vary: Accept-Encoding\nETag"},
        {"GET /f/z/gz.js", "Accept-Encoding: gzip\nIf-None-Match: $E", 200, "=z/gz.js.gz"}, // that of the other form
        {"GET /f/z/gz.js", "Accept-Encoding: gzip\nIf-Match: \"x\"", 412, "-Content-Encoding"},
        {"GET /f/z/gz.js", "Accept-Encoding: gzip\nRange: bytes=99-", 416,
         "-Content-Encoding\nContent-Range: bytes */10"},
        {"GET /f/z/none.txt", "Accept-Encoding: gzip", 200, "-Content-Encoding\n=z/none.txt"},
        {"GET /f/z/folder.txt", "Accept-Encoding: gzip", 200, "-Content-Encoding\n=z/folder.txt"},
        {"GET /f/z/linked.txt", "Accept-Encoding: gzip", 200, "-Content-Encoding\n=z/linked.txt"},
        {"GET /f/z/fifo.txt", "Accept-Encoding: gzip", 200, "-Content-Encoding\n=z/fifo.txt"},
        {"GET /f/z/alone.txt", "Accept-Encoding: gzip", 404, ""},
        {"GET /f/z/alone.txt.gz", "Accept-Encoding: gzip", 200,
         "-Content-Encoding\n=z/alone.txt.gz\nContent-Type: application/gzip"},
        {"GET /f/z/", "Accept-Encoding: gzip", 200, "Content-Encoding: gzip\n=z/index.html.gz\nVary: Accept-Encoding"},
        {"GET /f/z/", "", 200, "-Content-Encoding\n=z/index.html\nVary: Accept-Encoding"},
        {"GET /f/z", "Accept-Encoding: gzip", 301, "-Content-Encoding"},
    };
    CHECK_ROWS(rows);
    end();
}

TEST(siblings_only_by_configuration) {
    static const struct row rows[] = {
        {"GET /f/z/all.css", "Accept-Encoding: gzip, br", 200, "-Content-Encoding\n-Vary\n=z/all.css"}};
    serve_files(&(httpsrv_files_config){0});
    CHECK_ROWS(rows);
    end();
}

// ---- files that change ----

static bool says(const char *target, const char *text) {
    char get[200];
    snprintf(get, sizeof get, "GET %s", target);
    request(get, "");
    return line.status == 200 && line.body_len == strlen(text) && memcmp(line.body, text, line.body_len) == 0;
}

static void replace(const char *name, const char *text) {
    write_text(in_work("new.tmp"), text);
    CHECK_INT(rename(in_work("new.tmp"), in_work(name)), 0);
}

TEST_EACH_WAY(changes_are_seen_when_fresh_ms_is_over) {
    write_text(in_work("f.txt"), "first");
    unlink(in_work("late.txt"));
    serve_work(&(httpsrv_files_config){.fresh_ms = 50});
    CHECK(says("/w/f.txt", "first"));
    replace("f.txt", "second one");
    WAIT(says("/w/f.txt", "second one"));
    write_text(in_work("f.txt"), "in place");
    WAIT(says("/w/f.txt", "in place"));
    set_mtime(in_work("f.txt"), FIRST_MTIME, 0);
    WAIT(facts_of("/w/f.txt").date == FIRST_MTIME);
    unlink(in_work("f.txt"));
    WAIT(!says("/w/f.txt", "in place") && line.status == 404);
    CHECK_INT(mkdir(in_work("f.txt"), 0755), 0);
    WAIT(!says("/w/f.txt", "") && line.status == 301);
    CHECK_INT(rmdir(in_work("f.txt")), 0);
    CHECK_INT(symlink("../outside/secret.txt", in_work("f.txt")), 0);
    WAIT(!says("/w/f.txt", "") && line.status == 404);
    unlink(in_work("f.txt"));
    CHECK(!says("/w/late.txt", ""));
    write_text(in_work("late.txt"), "late");
    WAIT(says("/w/late.txt", "late"));
    end();
}

TEST(what_is_known_is_used_until_then) {
    way = &ways[0];
    write_text(in_work("kept.txt"), "first");
    serve_work(&(httpsrv_files_config){.fresh_ms = 3600000});
    CHECK(says("/w/kept.txt", "first"));
    replace("kept.txt", "second");
    test_sleep(20);
    CHECK(says("/w/kept.txt", "first"));
    end();
    write_text(in_work("kept.txt"), "first");
    serve_work(&(httpsrv_files_config){.max_open = -1, .fresh_ms = 3600000}); // nothing is known without an open file
    CHECK(says("/w/kept.txt", "first"));
    replace("kept.txt", "second");
    CHECK(says("/w/kept.txt", "second"));
    end();
}

static void check_open_files(int max_open, int most) {
    serve_files(&(httpsrv_files_config){.max_open = max_open, .fresh_ms = 3600000});
    request("GET /hello", "");
    const int before = test_descriptors();
    for (int round = 0; round < 3; round++) {
        check_rows(plain_rows, 8);
    }
    NOTE("max_open %d", max_open);
    WAIT(test_descriptors() <= before + most); // the last answer may be here before its file is closed
    end();
}

TEST(open_files_are_bounded_and_closed) {
    check_open_files(-1, 0);
    check_open_files(1, 1);
    check_open_files(3, 3);
    check_open_files(64, 8);
}

// ---- files that change while they are sent ----

// A connection that can take little at a time.
static struct client dial_narrow(void) {
    struct client c = net_client(net_socket(AF_INET));
    const int bytes = 16384;
    setsockopt(c.fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
    CHECK_INT(net_connect(c.fd, "127.0.0.1", s.port), 0);
    return c;
}

// The head of an answer whose body is left where it is.
static void begin_download(struct client *c, const char *target, int64_t length) {
    SENDF(c, "GET %s HTTP/1.1\r\nHost: a\r\n\r\n", target);
    net_read_head(c);
    CHECK_INT(c->status, 200);
    CHECK_INT(c->length, length);
}

// Takes up to `most` bytes of a body, each of which is `byte`, unless that is -1; how many came before the end.
static int64_t take(struct client *c, int64_t most, int byte) {
    static char buf[65536];
    int64_t taken = (int64_t)(c->len - c->at), deadline = net_deadline();
    c->at = c->len;
    while (taken < most) {
        const ssize_t n = recv(c->fd, buf, most - taken < (int64_t)sizeof buf ? (size_t)(most - taken) : sizeof buf, 0);
        if (n == 0 || (n < 0 && errno == ECONNRESET)) break;
        if (n < 0) {
            if (errno != EAGAIN || !net_poll(c->fd, POLLIN, deadline))
                FAIL("no more bytes after %lld", (long long)taken);
            continue;
        }
        for (ssize_t i = 0; byte >= 0 && i < n; i++) {
            if (buf[i] != (char)byte) FAIL("byte %lld is %d", (long long)taken + i, buf[i]);
        }
        taken += n;
    }
    return taken;
}

TEST_EACH_WAY(file_shrinks_while_it_is_sent) {
    const char *path = in_work("shrinks.bin");
    write_sparse(path, HUGE_BYTES);
    serve_work(&(httpsrv_files_config){.fresh_ms = 3600000});
    struct client c = dial_narrow();
    begin_download(&c, "/w/shrinks.bin", HUGE_BYTES);
    const int64_t begun = take(&c, 100000, 0);
    CHECK_INT(truncate(path, 50000), 0);
    CHECK_CMP(begun + take(&c, HUGE_BYTES, 0), <, HUGE_BYTES); // the end of the connection tells
    hang_up(&c);
    WAIT(LOAD(s.logged[HTTPSRV_LOG_FILE_SHRUNK]) == 1);
    check_alive(&s);
    end();
    CHECK_INT(s.last.items[HTTPSRV_LOG_FILE_SHRUNK], 1);
}

// What is known of a file may be older than the file.
TEST(file_has_shrunk_before_it_is_sent) {
    const char *path = in_work("shrunk.bin");
    write_file(path, content, MB);
    way = &ways[0];
    serve_work(&(httpsrv_files_config){.fresh_ms = 3600000});
    request("GET /w/shrunk.bin", "");
    CHECK_INT(line.body_len, MB);
    CHECK_INT(truncate(path, 1000), 0);
    struct client c = dial(s.port);
    begin_download(&c, "/w/shrunk.bin", MB);
    CHECK_CMP(take(&c, MB, -1), <=, 1000);
    hang_up(&c);
    WAIT(LOAD(s.logged[HTTPSRV_LOG_FILE_SHRUNK]) == 1);
    end();
}

TEST_EACH_WAY(file_grows_while_it_is_sent) {
    const char *path = in_work("grows.bin");
    write_sparse(path, HUGE_BYTES);
    serve_work(&(httpsrv_files_config){0});
    struct client c = dial_narrow();
    begin_download(&c, "/w/grows.bin", HUGE_BYTES);
    const int64_t begun = take(&c, 100000, 0);
    CHECK_INT(truncate(path, 2 * HUGE_BYTES), 0);
    CHECK_INT(begun + take(&c, HUGE_BYTES - begun, 0), HUGE_BYTES);
    GET(&c, "/hello"); // the next answer begins right there
    EXPECT(&c, 200, "Hello, World!\n");
    hang_up(&c);
    end();
}

TEST_EACH_WAY(file_is_deleted_or_replaced_while_it_is_sent) {
    for (int replaced = 0; replaced < 2; replaced++) {
        write_sparse(in_work("goes.bin"), HUGE_BYTES);
        serve_work(&(httpsrv_files_config){0});
        struct client c = dial_narrow();
        begin_download(&c, "/w/goes.bin", HUGE_BYTES);
        const int64_t begun = take(&c, 100000, 0);
        if (replaced)
            replace("goes.bin", "something else");
        else
            CHECK_INT(unlink(in_work("goes.bin")), 0);
        CHECK_INT(begun + take(&c, HUGE_BYTES - begun, 0), HUGE_BYTES);
        hang_up(&c);
        end();
    }
}

// ---- many requests, many clients ----

static const struct row mixed_rows[] = {
    {"GET /f/k1.bin", "", 200, "=k1.bin"},
    {"GET /f/none", "", 404, ""},
    {"GET /f/m1.bin", "", 200, "=m1.bin"},
    {"HEAD /f/m10.bin", "", 200, "Content-Length: 10485760"},
    {"GET /f/empty.bin", "", 200, "=empty.bin"},
    {"GET /f/k64+1.bin", "Range: bytes=1-2,65535-65536", 206, "&k64+1.bin 1-2 65535-65536"},
    {"GET /f/sub", "", 301, "Location: /f/sub/"},
    {"GET /f/k64.bin", "Range: bytes=7-", 206, "=k64.bin|7-65535"},
    {"GET /f/k16.bin", "If-None-Match: *", 304, ""},
    {"GET /hello", "", 200, "~Hello, World!"},
    {"POST /f/k1.bin", "Content-Length: 5\n\nabcde", 405, "Allow"},
    {"GET /f/hello.txt", "", 200, "=hello.txt"},
};

TEST_EACH_WAY(pipelined_requests_are_answered_in_order) {
    serve_files(&(httpsrv_files_config){0});
    for (int round = 0; round < 4; round++) {
        for (size_t i = 0; i < ROWS(mixed_rows); i++) {
            send_request(mixed_rows[i].request, mixed_rows[i].fields);
        }
        for (size_t i = 0; i < ROWS(mixed_rows); i++) {
            note_row(&mixed_rows[i]);
            net_reply(&line, is_head(mixed_rows[i].request));
            check_answer(&mixed_rows[i]);
        }
    }
    CHECK_INT(metrics(&s).accepted, 1);
    end();
}

TEST_EACH_WAY(many_clients) {
    enum { CLIENTS = 100 };
    static const char *const names[] = {"k1.bin", "k64+1.bin", "hello.txt", "empty.bin", "m1.bin"};
    static struct client clients[CLIENTS];
    serve_files(&(httpsrv_files_config){0});
    for (size_t i = 0; i < CLIENTS; i++) {
        clients[i] = dial(s.port);
    }
    for (size_t round = 0; round < ROWS(names); round++) {
        for (size_t i = 0; i < CLIENTS; i++) {
            SENDF(&clients[i], "GET /f/%s HTTP/1.1\r\nHost: a\r\n\r\n", names[(i + round) % ROWS(names)]);
        }
        for (size_t i = 0; i < CLIENTS; i++) {
            const httpsrv_str wanted = content_of(names[(i + round) % ROWS(names)]);
            REPLY(&clients[i]);
            CHECK_INT(clients[i].status, 200);
            CHECK_MEM(clients[i].body, clients[i].body_len, wanted.ptr, wanted.len);
        }
    }
    hang_up_all(clients, CLIENTS);
    CHECK_INT(metrics(&s).accepted, CLIENTS);
    end();
}

TEST(http_1_0) {
    serve_files(&(httpsrv_files_config){0});
    struct client c = ASK(&s, "GET /f/m1.bin HTTP/1.0\r\n\r\n");
    CHECK_MEM(c.body, c.body_len, content, MB);
    CHECK_INT(c.length, MB);
    EXPECT_EOF(&c);
    hang_up(&c);
    c = ASK(&s, "GET /f/k1.bin HTTP/1.0\r\nRange: bytes=1-5\r\nConnection: keep-alive\r\n\r\n");
    CHECK_INT(c.status, 206);
    CHECK_MEM(c.body, c.body_len, content + 1, 5);
    SEND(&c, "HEAD /f/k1.bin HTTP/1.0\r\n\r\n");
    REPLY_HEAD(&c);
    CHECK_INT(c.length, KB);
    EXPECT_EOF(&c);
    hang_up(&c);
    end();
}

TEST_EACH_WAY(slow_readers_take_no_memory) {
    enum { CLIENTS = 20 };
    static struct client clients[CLIENTS];
    write_sparse(in_work("slow.bin"), HUGE_BYTES);
    serve_work(&(httpsrv_files_config){0});
    for (size_t i = 0; i < CLIENTS; i++) {
        clients[i] = dial_narrow();
        begin_download(&clients[i], "/w/slow.bin", HUGE_BYTES);
    }
    const uint64_t before = metrics(&s).memory;
    for (int round = 0; round < 5; round++) {
        for (size_t i = 0; i < CLIENTS; i++) {
            CHECK_CMP(take(&clients[i], 50000, 0), >=, 50000);
        }
    }
    CHECK_CMP(metrics(&s).memory, <=, before + CLIENTS * 4096);
    CHECK_CMP(LOAD(s.peak), <, 4 * MB);
    check_alive(&s);
    for (size_t i = 0; i < CLIENTS; i++) {
        net_reset(&clients[i]);
    }
    end();
}

TEST_EACH_WAY(clients_that_leave_take_their_descriptors_along) {
    write_sparse(in_work("left.bin"), HUGE_BYTES);
    serve_work(&(httpsrv_files_config){.max_open = -1});
    check_alive(&s);
    WAIT(metrics(&s).connections == 0);
    const int before = test_descriptors();
    for (int i = 0; i < 40; i++) {
        struct client c = dial_narrow();
        SENDF(&c, "GET /w/left.bin HTTP/1.1\r\nHost: a\r\n%s\r\n", i % 3 ? "" : "Range: bytes=0-9,100-9999999\r\n");
        if (i % 2) net_read_head(&c);
        if (i % 4 < 2)
            net_reset(&c);
        else
            hang_up(&c);
    }
    WAIT(metrics(&s).connections == 0);
    WAIT(test_descriptors() == before);
    end();
}

TEST(reader_that_takes_nothing_is_cut) {
    write_sparse(in_work("stuck.bin"), HUGE_BYTES);
    begin(&(httpsrv_config){.timeout_ms.write = 100, .min_rate = -1});
    add_files("/w", &(httpsrv_files_config){.root = in_work(""), .max_open = -1});
    go(&s);
    const int before = test_descriptors();
    struct client c = dial_narrow();
    begin_download(&c, "/w/stuck.bin", HUGE_BYTES);
    WAIT(metrics(&s).items[HTTPSRV_LOG_WRITE_TIMEOUT] == 1);
    WAIT(test_descriptors() == before + 1); // our own end
    hang_up(&c);
    end();
}

TEST_EACH_WAY(drain_lets_downloads_finish) {
    write_sparse(in_work("drain.bin"), HUGE_BYTES);
    serve_work(&(httpsrv_files_config){0});
    struct client c = dial_narrow();
    begin_download(&c, "/w/drain.bin", HUGE_BYTES);
    httpsrv_stop(s.srv);
    CHECK_INT(take(&c, HUGE_BYTES, 0), HUGE_BYTES);
    EXPECT_END(&c);
    hang_up(&c);
    end();
    CHECK_INT(s.last.drain_cut, 0);
}

TEST(bytes_are_counted) {
    serve_files(&(httpsrv_files_config){0});
    const uint64_t before = metrics(&s).bytes_out;
    request("GET /f/m10.bin", "");
    WAIT(metrics(&s).bytes_out >= before + CONTENT_BYTES);
    CHECK_CMP(metrics(&s).bytes_out, <, before + CONTENT_BYTES + 1000);
    end();
}

// ---- errors of setup ----

TEST(errors_of_setup) {
    static const httpsrv_mime bad_types[] = {{"x", "text/x\r\nEvil: 1"}, {NULL, NULL}};
    const struct {
        const char *what, *prefix;
        httpsrv_files_config config;
        httpsrv_result result;
        const char *error;
    } rows[] = {
        {"root is missing", "/f", {.root = in_root("nothing")}, HTTPSRV_SYS, "nothing"},
        {"root is a file", "/f", {.root = in_root("hello.txt")}, HTTPSRV_SYS, "hello.txt"},
        {"no root", "/f", {.root = NULL}, HTTPSRV_ARG, ""},
        {"prefix without a slash", "f", {.root = in_root("")}, HTTPSRV_ROUTE, "f"},
        {"no prefix", NULL, {.root = in_root("")}, HTTPSRV_ROUTE, ""},
        {"cache_control with a line end", "/f", {.root = in_root(""), .cache_control = "a\r\nb: c"}, HTTPSRV_ARG, ""},
        {"cache_control with a NUL-like byte", "/f", {.root = in_root(""), .cache_control = "a\x01"}, HTTPSRV_ARG, ""},
        {"type with a line end", "/f", {.root = in_root(""), .types = bad_types}, HTTPSRV_ARG, ""},
        {"index with a slash", "/f", {.root = in_root(""), .index = "../index.html"}, HTTPSRV_ARG, ""},
    };
    for (size_t i = 0; i < ROWS(rows); i++) {
        NOTE("%s", rows[i].what);
        prepare(&s, &(httpsrv_config){0});
        const int before = test_descriptors();
        CHECK_INT(httpsrv_files(s.srv, rows[i].prefix, &rows[i].config), rows[i].result);
        CHECK_INT(httpsrv_listen(s.srv), rows[i].result); // kept
        CHECK_HAS(httpsrv_error(s.srv), rows[i].error);
        CHECK_INT(test_descriptors(), before);
        dispose(&s);
    }
    CHECK_INT(httpsrv_files(NULL, "/f", &(httpsrv_files_config){.root = "/"}), HTTPSRV_ARG);
}

TEST(other_errors_of_setup) {
    prepare(&s, &(httpsrv_config){0});
    CHECK_INT(httpsrv_files(s.srv, "/f", NULL), HTTPSRV_ARG);
    dispose(&s);
    prepare(&s, &(httpsrv_config){0});
    httpsrv_files(s.srv, "/f", &(httpsrv_files_config){.root = in_root(""), .pool = "nowhere"});
    CHECK_INT(httpsrv_listen(s.srv), HTTPSRV_ROUTE);
    dispose(&s);
    prepare(&s, &(httpsrv_config){0});
    CHECK_INT(httpsrv_files(s.srv, "/f", &(httpsrv_files_config){.root = in_root("")}), HTTPSRV_OK);
    CHECK_INT(httpsrv_files(s.srv, "/f", &(httpsrv_files_config){.root = in_root("")}), HTTPSRV_ROUTE); // taken
    dispose(&s);
    serve(&s, &(httpsrv_config){0});
    CHECK_INT(httpsrv_files(s.srv, "/f", &(httpsrv_files_config){.root = in_root("")}), HTTPSRV_STATE);
    finish(&s);
}

// Everything that was given is copied, but for the types.
TEST(configuration_is_copied) {
    char root[300], index[] = "home.htm", control[] = "no-cache", prefix[] = "/f";
    static const struct row rows[] = {{"GET /f/site/", "", 200, "=site/home.htm\nCache-Control: no-cache"}};
    begin(&(httpsrv_config){0});
    snprintf(root, sizeof root, "%s", in_root(""));
    add_files(prefix, &(httpsrv_files_config){.root = root, .index = index, .cache_control = control});
    memset(root, '?', sizeof root);
    memset(index, '?', sizeof index);
    memset(control, '?', sizeof control);
    memset(prefix, '?', sizeof prefix);
    go(&s);
    CHECK_ROWS(rows);
    end();
}

// ---- httpsrv_reply_file ----

struct reply {
    const char *path, *type;
    bool later; // in a handler that is posted
};

static httpsrv_outcome outcomes[200]; // in the order in which they were told
static int told, done;                // atomic: before and after its outcome is written down

static void on_done(const httpsrv_outcome *what, void *arg) {
    CHECK(arg == &done);
    outcomes[(size_t)__atomic_fetch_add(&told, 1, __ATOMIC_ACQ_REL) % ROWS(outcomes)] = *what;
    COUNT(done);
}

// What went wrong is told in the other answer that may follow then.
static void reply_now(httpsrv_req *req, void *user) {
    const struct reply *reply = (const struct reply *)user;
    if (!req) return;
    errno = 0;
    CHECK_INT(httpsrv_on_done(req, on_done, &done), HTTPSRV_OK);
    const httpsrv_result result = httpsrv_reply_file(req, reply->path, reply->type);
    const int error = result == HTTPSRV_SYS ? errno : 0;
    if (result != HTTPSRV_OK && result != HTTPSRV_GONE)
        CHECK_INT(httpsrv_replyf(req, 599, NULL, "%d %d", (int)result, error), HTTPSRV_OK);
    else
        CHECK_INT(httpsrv_reply_file(req, reply->path, NULL), HTTPSRV_STATE);
}

static void on_reply_file(httpsrv_req *req, void *user) {
    const struct reply *reply = (const struct reply *)user;
    CHECK_INT(httpsrv_set(req, "Cache-Control", HTTPSRV_STR("private")), HTTPSRV_OK);
    CHECK_INT(httpsrv_set(req, "X-Mine", HTTPSRV_STR("yes")), HTTPSRV_OK);
    if (!reply->later)
        reply_now(req, user);
    else
        CHECK_INT(httpsrv_post(s.srv, httpsrv_defer(req), reply_now, user), HTTPSRV_OK);
}

static void add_reply(const char *pattern, struct reply *reply) {
    const httpsrv_route_config route = {.pattern = pattern, .handler = on_reply_file, .user = reply, .pool = way->pool};
    CHECK_INT(httpsrv_route(s.srv, &route), HTTPSRV_OK);
}

static const struct row reply_rows[] = {
    {"GET /r", "", 200, "=k64+1.bin\nContent-Type: application/octet-stream\nCache-Control: private\nX-Mine: yes"},
    {"HEAD /r", "", 200, "Content-Length: 65537\nETag\nLast-Modified\nX-Mine: yes"},
    {"GET /r", "Range: bytes=1-3", 206, "=k64+1.bin|1-3\nContent-Range: bytes 1-3/65537\nX-Mine: yes"},
    {"GET /r", "Range: bytes=0-1,4-5", 206, "&k64+1.bin 0-1 4-5"},
    {"GET /r", "Range: bytes=70000-", 416, "Content-Range: bytes */65537"},
    {"HEAD /r", "Range: bytes=1-3", 200, "Content-Length: 65537\n-Content-Range"},
    {"GET /r", "If-None-Match: $E", 304, "ETag\nX-Mine: yes\nCache-Control: private"},
    {"GET /r", "If-Modified-Since: $D", 304, "ETag"},
    {"GET /r", "If-Match: \"x\"", 412, ""},
    {"GET /r", "If-Unmodified-Since: $B", 412, ""},
    {"GET /r", "Range: bytes=1-3\nIf-Range: $E", 206, "=k64+1.bin|1-3"},
    {"GET /r", "Range: bytes=1-3\nIf-Range: $W", 200, "=k64+1.bin"},
    {"GET /typed", "", 200, "=hello.txt\nContent-Type: text/markdown"},
    {"GET /linked", "", 200, "=hello.txt\nContent-Type: text/plain; charset=utf-8"}, // as open(2) takes it
    {"GET /empty", "", 200, "=empty.bin"},
    {"POST /post", "Content-Length: 3\nRange: bytes=0-1\n\nabc", 200, "=k1.bin"}, // RFC 9110 section 14.2: GET alone
    {"POST /post", "Content-Length: 0\nIf-None-Match: *", 412, ""},               // 13.2.2: 304 for GET and HEAD alone
    {"POST /post", "Content-Length: 0\nIf-Modified-Since: Sun, 06 Nov 2033 08:49:37 GMT", 200,
     "=k1.bin"}, // 13.1.3: GET and HEAD alone
    {"GET /hello", "", 200, "~Hello"},
};

static void check_replies(bool later) {
    static struct reply r, typed, linked, empty, posted;
    r = (struct reply){in_root("k64+1.bin"), NULL, later};
    typed = (struct reply){in_root("hello.txt"), "text/markdown", later};
    linked = (struct reply){in_root("link.txt"), NULL, later};
    empty = (struct reply){in_root("empty.bin"), NULL, later};
    posted = (struct reply){in_root("k1.bin"), NULL, later};
    told = done = 0;
    begin(&(httpsrv_config){0});
    add_reply("GET /r", &r);
    add_reply("GET /typed", &typed);
    add_reply("GET /linked", &linked);
    add_reply("GET /empty", &empty);
    add_reply("POST /post", &posted);
    go(&s);
    CHECK_ROWS(reply_rows);
    hang_up(&line);
    WAIT(LOAD(done) > 30);
    end();
}

TEST_EACH_WAY(reply_file) {
    check_replies(false);
    if (!way->pool) check_replies(true);
}

TEST_EACH_WAY(reply_file_errors) {
    static struct reply replies[6];
    const struct {
        const char *path;
        httpsrv_result result;
        int error;
    } rows[] = {{in_root("nothing"), HTTPSRV_SYS, ENOENT}, {in_root("hello.txt/x"), HTTPSRV_SYS, ENOTDIR},
                {in_root("loop"), HTTPSRV_SYS, ELOOP},     {in_root("sub"), HTTPSRV_ARG, 0},
                {in_root("fifo"), HTTPSRV_ARG, 0},         {"/dev/null", HTTPSRV_ARG, 0}};
    char text[30];
    begin(&(httpsrv_config){0});
    for (size_t i = 0; i < ROWS(rows); i++) {
        replies[i].path = rows[i].path;
        snprintf(text, sizeof text, "GET /%zu", i);
        add_reply(text, &replies[i]);
    }
    go(&s);
    for (size_t i = 0; i < ROWS(rows); i++) {
        NOTE("%s; %s", way->name, rows[i].path);
        snprintf(text, sizeof text, "GET /%zu", i);
        request(text, "");
        CHECK_INT(line.status, 599);
        CHECK_STR(field(&line, "X-Mine"), "yes");
        CHECK(field(&line, "ETag") == NULL && field(&line, "Content-Range") == NULL);
        snprintf(text, sizeof text, "%d %d", (int)rows[i].result, rows[i].error);
        CHECK_MEM(line.body, line.body_len, text, strlen(text));
    }
    end();
}

TEST_EACH_WAY(reply_file_tells_what_became_of_it) {
    static struct reply reply;
    write_sparse(in_work("told.bin"), HUGE_BYTES);
    reply = (struct reply){in_work("told.bin"), NULL, false};
    told = done = 0;
    begin(&(httpsrv_config){0});
    add_reply("GET /r", &reply);
    go(&s);
    struct client c = dial_narrow();
    begin_download(&c, "/r", HUGE_BYTES);
    CHECK_INT(take(&c, HUGE_BYTES, 0), HUGE_BYTES);
    WAIT(LOAD(done) == 1);
    CHECK(outcomes[0].status == 200 && outcomes[0].delivered);
    CHECK_CMP(outcomes[0].bytes, >, HUGE_BYTES);
    begin_download(&c, "/r", HUGE_BYTES);
    CHECK_INT(truncate(in_work("told.bin"), 5), 0);
    CHECK_CMP(take(&c, HUGE_BYTES, 0), <, HUGE_BYTES);
    WAIT(LOAD(done) == 2);
    CHECK(outcomes[1].status == 200 && !outcomes[1].delivered);
    WAIT(metrics(&s).items[HTTPSRV_LOG_FILE_SHRUNK] == 1);
    hang_up(&c);
    CHECK_INT(truncate(in_work("told.bin"), HUGE_BYTES), 0);
    c = dial_narrow();
    begin_download(&c, "/r", HUGE_BYTES);
    net_reset(&c);
    WAIT(LOAD(done) == 3);
    CHECK(!outcomes[2].delivered);
    end();
}

// ---- out of memory ----

static int allocations_left; // atomic; negative: any number

static void *failing_realloc(void *user, void *ptr, size_t old_size, size_t new_size) {
    if (new_size > 0 && LOAD(allocations_left) >= 0 &&
        __atomic_fetch_sub(&allocations_left, 1, __ATOMIC_ACQ_REL) <= 0) {
        STORE(allocations_left, 0);
        return NULL;
    }
    return counting_realloc(user, ptr, old_size, new_size);
}

static void ask_with_allocations(const struct row *row, int n) {
    hang_up(&line);
    line = dial_port(s.port);
    STORE(allocations_left, n);
    send_request(row->request, row->fields);
    half_close(&line);
    net_until_end(&line); // whatever comes, it ends
    STORE(allocations_left, -1);
    CHECK(memmem(line.buf, line.len, SECRET, strlen(SECRET)) == NULL);
    hang_up(&line);
}

TEST_EACH_WAY(no_allocation_is_trusted) {
    static const struct row rows[] = {{"GET /f/k1.bin", "", 200, "=k1.bin"},
                                      {"GET /f/z/", "Accept-Encoding: gzip", 200, "=z/index.html.gz"},
                                      {"GET /f/odd/", "", 200, ""},
                                      {"GET /f/sub?x", "", 301, "Location: /f/sub/?x"},
                                      {"GET /f/k1.bin", "Range: bytes=0-1,4-5", 206, "&k1.bin 0-1 4-5"}};
    STORE(allocations_left, -1);
    begin(&(httpsrv_config){.allocator = {.fn = failing_realloc, .user = &s}});
    add_files("/f", &(httpsrv_files_config){.list = true, .precompressed = true});
    go(&s);
    for (int n = 0; n < 30; n++) {
        for (size_t i = 0; i < ROWS(rows); i++) {
            NOTE("%s; %s after %d allocations", way->name, rows[i].request, n);
            ask_with_allocations(&rows[i], n);
        }
    }
    WAIT(metrics(&s).connections == 0);
    check_rows(rows, ROWS(rows));
    end();
}

int main(int argc, char **argv) {
    // Every modification is long ago, so that dates are strong validators (RFC 9110 section 8.8.2.2).
    make_tree(tree, ROWS(tree), FIRST_MTIME, 1);
    CHECK_INT(chmod(in_root("locked.txt"), 0) | chmod(in_root("locked"), 0), 0);
    const int result = test_main(argc, argv);
    chmod(in_root("locked"), 0755);
    remove_tree();
    return result;
}
