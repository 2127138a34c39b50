// httpsrv_assets: files that are compiled in. Conditions and ranges have the same engine as files on disk; here is a few
// of each.

#define HTTPSRV_IMPLEMENTATION
#include "../httpsrv.h"

#include "server.h"

#define LETTERS       "abcdefghijklmnopqrstuvwxyz"
#define LARGE         (5u << 20)
#define LARGE_GZIP    100000u
#define INDEX         "<!doctype html><title>Index</title>"
#define GZIP_OF_INDEX "\x1f\x8b\x08\0index, but smaller"

static char large[LARGE]; // filled by begin, as is its etag
static const char empty[1];

static const httpsrv_mime kinds[] = {
    {"html", "text/html; charset=utf-8"},
    {"css", "text/css; charset=utf-8"},
    {"js", "text/javascript; charset=utf-8"},
    {"txt", "text/plain; charset=utf-8"},
    {"json", "application/json"},
    {"svg", "image/svg+xml"},
    {"png", "image/png"},
    {"jpg", "image/jpeg"},
    {"ico", NULL},
    {"woff2", "font/woff2"},
    {"wasm", "application/wasm"},
    {"PNG", "image/png"},
    {"nothing-known", "application/octet-stream"},
};

static const httpsrv_asset table[] = {
    {"/index.html", NULL, INDEX, sizeof INDEX - 1, NULL, GZIP_OF_INDEX, sizeof GZIP_OF_INDEX - 1},
    {"/letters.txt", NULL, LETTERS, 26, "\"v1\"", NULL, 0},
    {"/weak.txt", NULL, LETTERS, 26, "W/\"v1\"", NULL, 0},
    {"/tagged.css", NULL, LETTERS, 26, "\"v2\"", "GZIP of letters", 15},
    {"/made.txt", NULL, LETTERS, 26, NULL, NULL, 0},
    {"/made-too.txt", NULL, LETTERS, 26, NULL, NULL, 0},
    {"/made-other.txt", NULL, "a" LETTERS, 26, NULL, NULL, 0},
    {"/empty.txt", NULL, empty, 0, NULL, NULL, 0},
    {"/none.txt", NULL, NULL, 0, NULL, NULL, 0},
    {"/large.bin", NULL, large, LARGE, NULL, large + 1000, LARGE_GZIP},
    {"/typed.html", "text/x-own; charset=latin1", LETTERS, 26, NULL, NULL, 0},
    {"/a b.txt", NULL, "space", 5, NULL, NULL, 0},
    {"/100%.txt", NULL, "percent", 7, NULL, NULL, 0},
    {"/\xC3\xBC.txt", NULL, "umlaut", 6, NULL, NULL, 0},
    {"/sub/file", NULL, "sub", 3, NULL, NULL, 0},
    {"/sub/index.html", NULL, "sub index", 9, NULL, NULL, 0},
    {"/nul.bin", NULL, "a\0b\r\n\r\nc", 8, NULL, NULL, 0},
    {"/.well-known/x", NULL, "known", 5, NULL, NULL, 0},
    {NULL, NULL, NULL, 0, NULL, NULL, 0},
};

static struct server s;
static struct client c;

// ---- serving and asking ----

static void begin(const char *prefix, int reactors) {
    for (size_t i = 0; i < LARGE; i++)
        large[i] = (char)(i * 31 + i / 251);
    prepare(&s, &(httpsrv_config){.reactors = reactors});
    CHECK_INT(httpsrv_assets(s.srv, prefix, table), HTTPSRV_OK);
    CHECK_INT(httpsrv_on(s.srv, "GET /hello", on_hello, &s), HTTPSRV_OK);
}

static void begin_asking(void) {
    begin("/", 1);
    go(&s);
    c = dial(s.port);
}

static void end_asking(void) {
    hang_up(&c);
    finish(&s);
}

// One more request on the same connection; `fields` are further lines of the head, each with its end.
static void get(const char *method, const char *path, const char *fields) {
    NOTE("%s %s %s", method, path, fields);
    SENDF(&c, "%s %s HTTP/1.1\r\nHost: a\r\n%s\r\n", method, path, fields);
    net_reply(&c, strcmp(method, "HEAD") == 0);
}

static const char *value(const char *name) {
    const char *found = field(&c, name);
    return found ? found : "";
}

static const httpsrv_asset *asset(const char *path) {
    const httpsrv_asset *found = table;
    while (found->path && strcmp(found->path, path) != 0)
        found++;
    CHECK(found->path != NULL);
    return found;
}

static bool is_gzip(void) {
    return strcmp(value("Content-Encoding"), "gzip") == 0;
}

// What the last answer, of 200, 206 or 304, is a part of.
static httpsrv_str whole(const httpsrv_asset *a) {
    CHECK_STR(value("Content-Encoding"), is_gzip() ? "gzip" : "");
    return is_gzip() ? (httpsrv_str){(const char *)a->gzip, a->gzip_len} : (httpsrv_str){(const char *)a->data, a->len};
}

static void check_tag(void) {
    const char *tag = value("ETag");
    const size_t len = strlen(tag);
    CHECK_CMP(len, >, 2);
    CHECK(tag[len - 1] == '"' && (tag[0] == '"' || strncmp(tag, "W/\"", 3) == 0));
}

static void check_whole(const httpsrv_asset *a) {
    const httpsrv_str bytes = whole(a);
    CHECK_INT(c.status, 200);
    CHECK_INT(c.length, bytes.len);
    CHECK_INT(c.body_len, bytes.len);
    CHECK(bytes.len == 0 || memcmp(c.body, bytes.ptr, bytes.len) == 0);
    CHECK_STR(value("X-Content-Type-Options"), "nosniff");
    CHECK_STR(value("Accept-Ranges"), "bytes");
    CHECK_STR(value("Vary"), a->gzip ? "Accept-Encoding" : "");
    CHECK_INT(count_fields(&c, "Last-Modified"), 0);
    CHECK_INT(count_fields(&c, "Content-Range"), 0);
    check_tag();
}

// ---- bytes, names and types ----

static const struct {
    const char *target, *path; // path NULL: 404
} targets[] = {
    {"/", "/index.html"},
    {"/?a=/b", "/index.html"},
    {"/index.html", "/index.html"},
    {"/index.html?v=1", "/index.html"},
    {"/%69ndex%2Ehtml", "/index.html"},
    {"/sub/../index.html", "/index.html"},
    {"/./letters.txt", "/letters.txt"},
    {"/sub/%2e%2E/letters.txt", "/letters.txt"},
    {"/a%20b.txt", "/a b.txt"},
    {"/100%25.txt", "/100%.txt"},
    {"/%C3%BC.txt", "/\xC3\xBC.txt"},
    {"/%c3%bc.txt", "/\xC3\xBC.txt"},
    {"/sub/file", "/sub/file"},
    {"/sub/", "/sub/index.html"},
    {"/empty.txt", "/empty.txt"},
    {"/none.txt", "/none.txt"},
    {"/nul.bin", "/nul.bin"},
    {"/large.bin", "/large.bin"},
    {"/.well-known/x", "/.well-known/x"},
    {"/index.htm", NULL},
    {"/index.html/", NULL},
    {"/index.htmlx", NULL},
    {"/INDEX.HTML", NULL},
    {"/letters.txt/index.html", NULL},
    {"//letters.txt", NULL},
    {"/sub%2Ffile", NULL},
    {"/sub%2ffile", NULL},
    {"/sub//file", NULL},
    {"/sub/file/", NULL},
    {"/sub/fil", NULL},
    {"/a+b.txt", NULL},
    {"/%2561.txt", NULL},
    {"/nowhere/", NULL},
    {"/letters.txt%20", NULL},
};

static void check_targets(const char *prefix) {
    char target[100];
    for (size_t i = 0; i < ROWS(targets); i++) {
        snprintf(target, sizeof target, "%s%s", prefix, targets[i].target);
        get("GET", target, "");
        if (targets[i].path)
            check_whole(asset(targets[i].path));
        else
            CHECK_INT(c.status, 404);
    }
}

TEST(exact_bytes) {
    static const char *const prefixes[] = {"/", "/static", "/a/b/c"};
    for (size_t i = 0; i < 2 * ROWS(prefixes); i++) {
        begin(prefixes[i / 2], i % 2 ? 3 : 1);
        go(&s);
        c = dial(s.port);
        check_targets(i < 2 ? "" : prefixes[i / 2]);
        get("GET", "/hello", "");
        CHECK_INT(c.status, 200);
        get("GET", "/statics/letters.txt", "");
        CHECK_INT(c.status, 404);
        if (i >= 2) {
            get("GET", "/letters.txt", "");
            CHECK_INT(c.status, 404);
        }
        end_asking();
    }
}

// A directory that has an index is redirected to its slash; others are not there.
TEST(directories) {
    begin("/static", 1);
    go(&s);
    c = dial(s.port);
    static const char *const rows[][2] = {{"/static/sub", "/static/sub/"}, {"/static", "/static/"}};
    for (size_t i = 0; i < ROWS(rows); i++) {
        get("GET", rows[i][0], "");
        CHECK(c.status == 301 || c.status == 308);
        CHECK_STR(value("Location"), rows[i][1]);
        get("GET", rows[i][1], "");
        CHECK_INT(c.status, 200);
    }
    end_asking();
}

TEST(heads_and_methods) {
    static const char *const others[] = {"POST", "PUT", "DELETE", "PATCH"};
    begin_asking();
    for (const httpsrv_asset *a = table; a->path; a++) {
        char fields[2][4096];
        if (strchr(a->path, ' ') || strchr(a->path, '%') || a->path[1] < 0) continue;
        for (int head = 0; head < 2; head++) {
            get(head ? "HEAD" : "GET", a->path, "");
            CHECK_INT(c.status, 200);
            CHECK_INT(c.length, a->len);
            CHECK_INT(c.body_len, head ? 0 : a->len);
            snprintf(fields[head], sizeof fields[head], "%s|%s|%s|%s", value("ETag"), value("Content-Type"),
                     value("Vary"), value("Accept-Ranges"));
        }
        CHECK_STR(fields[1], fields[0]);
    }
    for (size_t i = 0; i < ROWS(others); i++) {
        get(others[i], "/letters.txt", "Content-Length: 0\r\n");
        CHECK_INT(c.status, 405);
        CHECK_HAS(value("Allow"), "GET");
        CHECK_HAS(value("Allow"), "HEAD");
    }
    get("OPTIONS", "/letters.txt", "");
    CHECK_CMP(c.status, <, 300);
    CHECK_HAS(value("Allow"), "GET");
    end_asking();
}

TEST(types) {
    static char paths[ROWS(kinds)][40];
    static httpsrv_asset assets[ROWS(kinds) + 3];
    size_t n = 0;
    for (; n < ROWS(kinds); n++) {
        snprintf(paths[n], sizeof paths[n], "/x.html/a.b.%s", kinds[n].extension);
        assets[n] = (httpsrv_asset){.path = paths[n], .data = LETTERS, .len = 26};
    }
    assets[n++] = (httpsrv_asset){.path = "/x.html/none", .data = LETTERS, .len = 26};
    assets[n++] = (httpsrv_asset){.path = "/own.css", .type = "text/x-own; charset=latin1", .data = LETTERS, .len = 26};
    prepare(&s, &(httpsrv_config){0});
    CHECK_INT(httpsrv_assets(s.srv, "/", assets), HTTPSRV_OK);
    go(&s);
    c = dial(s.port);
    for (size_t i = 0; i < ROWS(kinds); i++) {
        get("GET", paths[i], "");
        if (kinds[i].type)
            CHECK_STR(value("Content-Type"), kinds[i].type);
        else
            CHECK_HAS(value("Content-Type"), "image/");
    }
    get("GET", "/x.html/none", "");
    CHECK_STR(value("Content-Type"), "application/octet-stream");
    get("GET", "/own.css", "");
    CHECK_STR(value("Content-Type"), "text/x-own; charset=latin1");
    end_asking();
}

// ---- tags ----

TEST(tags) {
    char made[100];
    begin_asking();
    get("GET", "/letters.txt", "");
    CHECK_STR(value("ETag"), "\"v1\"");
    get("GET", "/weak.txt", "");
    CHECK_STR(value("ETag"), "W/\"v1\"");
    get("GET", "/made.txt", "");
    check_tag();
    CHECK(value("ETag")[0] == '"'); // strong
    snprintf(made, sizeof made, "%s", value("ETag"));
    get("GET", "/made-too.txt", "");
    CHECK_STR(value("ETag"), made); // from the content
    get("GET", "/made-other.txt", "");
    check_tag();
    CHECK(strcmp(value("ETag"), made) != 0);
    end_asking();
    begin("/elsewhere", 1); // another run has the same
    go(&s);
    c = dial(s.port);
    get("GET", "/elsewhere/made.txt", "");
    CHECK_STR(value("ETag"), made);
    end_asking();
}

// ---- conditions, RFC 9110 section 13; "\"v1\"" is the tag ----

#define OLD_DATE "Sun, 06 Nov 1994 08:49:37 GMT"
#define NEW_DATE "Fri, 06 Nov 2054 08:49:37 GMT"

TEST(conditions) {
    static const struct {
        const char *path, *fields;
        int status;
    } rows[] = {
        {"/letters.txt", "If-None-Match: \"v1\"\r\n", 304},
        {"/letters.txt", "If-None-Match: W/\"v1\"\r\n", 304},
        {"/letters.txt", "If-None-Match: *\r\n", 304},
        {"/letters.txt", "If-None-Match: \"v0\", \"v1\"\r\n", 304},
        {"/letters.txt", "If-None-Match: \"v0\",W/\"v1\" , \"v2\"\r\n", 304},
        {"/letters.txt", "If-None-Match: \"a,b\", \"v1\"\r\n", 304},
        {"/letters.txt", "If-None-Match: \"v0\"\r\nIf-None-Match: \"v1\"\r\n", 304},
        {"/letters.txt", "If-None-Match: \"v0\"\r\n", 200},
        {"/letters.txt", "If-None-Match: \"v\"\r\n", 200},
        {"/letters.txt", "If-None-Match: \"v11\"\r\n", 200},
        {"/letters.txt", "If-None-Match: \"V1\"\r\n", 200},
        {"/letters.txt", "If-None-Match: v1\r\n", 200},
        {"/letters.txt", "If-None-Match: \"\"\r\n", 200},
        {"/letters.txt", "If-None-Match: \"x, \"v1\r\n", 200},
        {"/letters.txt", "If-Match: \"v1\"\r\n", 200},
        {"/letters.txt", "If-Match: *\r\n", 200},
        {"/letters.txt", "If-Match: \"v0\", \"v1\"\r\n", 200},
        {"/letters.txt", "If-Match: \"v0\"\r\n", 412},
        {"/letters.txt", "If-Match: W/\"v1\"\r\n", 412},
        {"/letters.txt", "If-Match: \"v1\"\r\nIf-None-Match: \"v1\"\r\n", 304},
        {"/letters.txt", "If-Match: \"v0\"\r\nIf-None-Match: \"v1\"\r\n", 412},
        {"/letters.txt", "If-None-Match: \"v1\"\r\nRange: bytes=0-1\r\n", 304},
        {"/letters.txt", "If-Match: \"v0\"\r\nRange: bytes=0-1\r\n", 412},
        // there is no date to compare with
        {"/letters.txt", "If-Modified-Since: " NEW_DATE "\r\n", 200},
        {"/letters.txt", "If-Unmodified-Since: " OLD_DATE "\r\n", 200},
        {"/letters.txt", "If-None-Match: \"v0\"\r\nIf-Modified-Since: " NEW_DATE "\r\n", 200},
        {"/letters.txt", "If-None-Match: \"v1\"\r\nIf-Modified-Since: " OLD_DATE "\r\n", 304},
        {"/letters.txt", "If-Match: \"v1\"\r\nIf-Unmodified-Since: " OLD_DATE "\r\n", 200},
        // a weak tag is no strong one
        {"/weak.txt", "If-None-Match: \"v1\"\r\n", 304},
        {"/weak.txt", "If-None-Match: W/\"v1\"\r\n", 304},
        {"/weak.txt", "If-Match: W/\"v1\"\r\n", 412},
        {"/weak.txt", "If-Match: \"v1\"\r\n", 412},
        {"/weak.txt", "If-Match: *\r\n", 200},
        // of what is not there
        {"/nowhere", "If-None-Match: *\r\n", 404},
    };
    begin_asking();
    for (size_t i = 0; i < 2 * ROWS(rows); i++) {
        const char *path = rows[i / 2].path;
        get(i % 2 ? "HEAD" : "GET", path, rows[i / 2].fields);
        CHECK_INT(c.status, rows[i / 2].status);
        if (c.status == 304) {
            CHECK_STR(value("ETag"), asset(path)->etag);
            CHECK_INT(count_fields(&c, "Content-Type"), 0);
        }
        if (c.status == 200 && i % 2 == 0) check_whole(asset(path));
    }
    end_asking();
}

// ---- ranges, RFC 9110 section 14; the letters are 26 bytes ----

TEST(ranges) {
    static const struct {
        const char *fields;
        int status;
        const char *range, *body;
    } rows[] = {
        {"Range: bytes=0-4\r\n", 206, "bytes 0-4/26", "abcde"},
        {"Range: bytes=25-25\r\n", 206, "bytes 25-25/26", "z"},
        {"Range: bytes=20-\r\n", 206, "bytes 20-25/26", "uvwxyz"},
        {"Range: bytes=20-9999999999999999999999\r\n", 206, "bytes 20-25/26", "uvwxyz"},
        {"Range: bytes=-3\r\n", 206, "bytes 23-25/26", "xyz"},
        {"Range: bytes=-100\r\n", 206, "bytes 0-25/26", LETTERS},
        {"Range: bytes=0-\r\n", 206, "bytes 0-25/26", LETTERS},
        {"Range: Bytes=0-0\r\n", 206, "bytes 0-0/26", "a"},
        {"Range: bytes=99-, 1-2\r\n", 206, "bytes 1-2/26", "bc"}, // the one that can be had
        {"Range: bytes=26-\r\n", 416, "bytes */26", NULL},
        {"Range: bytes=26-30, 99-\r\n", 416, "bytes */26", NULL},
        {"Range: bytes=-0\r\n", 416, "bytes */26", NULL},
        {"Range: bytes=5-2\r\n", 200, NULL, LETTERS},
        {"Range: bytes=a-b\r\n", 200, NULL, LETTERS},
        {"Range: bytes=-\r\n", 200, NULL, LETTERS},
        {"Range: bytes=\r\n", 200, NULL, LETTERS},
        {"Range: bytes 0-4\r\n", 200, NULL, LETTERS},
        {"Range: bytes=+1-4\r\n", 200, NULL, LETTERS},
        {"Range: bytes=0-4-5\r\n", 200, NULL, LETTERS},
        {"Range: lines=0-4\r\n", 200, NULL, LETTERS},
        {"Range: bytes=0-0,2-2,4-4,6-6,8-8,10-10,12-12,14-14,16-16,18-18,20-20,22-22,24-24,1-1,3-3,5-5,7-7\r\n", 200,
         NULL, LETTERS}, // one more than HTTPSRV_MAX_RANGES
        {"Range: bytes=0-4\r\nIf-Range: \"v1\"\r\n", 206, "bytes 0-4/26", "abcde"},
        {"Range: bytes=0-4\r\nIf-Range: \"v0\"\r\n", 200, NULL, LETTERS},
        {"Range: bytes=0-4\r\nIf-Range: W/\"v1\"\r\n", 200, NULL, LETTERS},
        {"Range: bytes=0-4\r\nIf-Range: " OLD_DATE "\r\n", 200, NULL, LETTERS},
        {"Range: bytes=99-\r\nIf-Range: \"v0\"\r\n", 200, NULL, LETTERS},
        {"If-Range: \"v1\"\r\n", 200, NULL, LETTERS},
        {"Range: bytes=0-4\r\nIf-None-Match: \"v0\"\r\n", 206, "bytes 0-4/26", "abcde"},
    };
    begin_asking();
    for (size_t i = 0; i < ROWS(rows); i++) {
        get("GET", "/letters.txt", rows[i].fields);
        CHECK_INT(c.status, rows[i].status);
        CHECK_STR(value("Content-Range"), rows[i].range ? rows[i].range : "");
        if (rows[i].body) CHECK_MEM(c.body, c.body_len, rows[i].body, strlen(rows[i].body));
        if (c.status == 206) CHECK_STR(value("ETag"), "\"v1\"");
        if (c.status == 206) CHECK_HAS(value("Content-Type"), "text/plain");
        get("HEAD", "/letters.txt", rows[i].fields); // for which a range means nothing
        CHECK_INT(c.status, 200);
        CHECK_INT(c.length, 26);
    }
    get("GET", "/weak.txt", "Range: bytes=0-4\r\nIf-Range: W/\"v1\"\r\n");
    CHECK_INT(c.status, 200);
    get("GET", "/empty.txt", "Range: bytes=0-\r\n"); // which may be ignored
    CHECK(c.status == 200 || c.status == 416);
    CHECK_STR(value("Content-Range"), c.status == 416 ? "bytes */0" : "");
    end_asking();
}

// The body of several ranges: part by part, with nothing else in it but the fields of the parts.
TEST(several_ranges) {
    static const char *const parts[][2] = {{"bytes 0-1/26", "ab"}, {"bytes 24-25/26", "yz"}, {"bytes 10-12/26", "klm"}};
    char boundary[100], line[200];
    begin_asking();
    get("GET", "/letters.txt", "Range: bytes=0-1, -2,10-12\r\n");
    CHECK_INT(c.status, 206);
    CHECK_INT(count_fields(&c, "Content-Range"), 0);
    CHECK_INT(sscanf(value("Content-Type"), "multipart/byteranges; boundary=%90[^;]", boundary), 1);
    const char *at = c.body, *end = c.body + c.body_len;
    for (size_t i = 0; i < ROWS(parts); i++) {
        snprintf(line, sizeof line, "--%s\r\n", boundary);
        at = (const char *)memmem(at, (size_t)(end - at), line, strlen(line));
        CHECK(at != NULL);
        at += strlen(line);
        const char *data = (const char *)memmem(at, (size_t)(end - at), "\r\n\r\n", 4);
        CHECK(data != NULL);
        snprintf(line, sizeof line, "Content-Range: %s", parts[i][0]);
        CHECK(memmem(at, (size_t)(data - at), line, strlen(line)) != NULL);
        CHECK(memmem(at, (size_t)(data - at), "Content-Type: text/plain", 24) != NULL);
        at = data + 4;
        snprintf(line, sizeof line, "%s\r\n--%s", parts[i][1], boundary);
        CHECK_CMP(end - at, >=, strlen(line));
        CHECK(memcmp(at, line, strlen(line)) == 0);
        at += strlen(parts[i][1]) + 2;
    }
    snprintf(line, sizeof line, "--%s--", boundary);
    CHECK_CMP(end - at, >=, strlen(line));
    CHECK(memcmp(at, line, strlen(line)) == 0);
    end_asking();
}

// ---- gzip, RFC 9110 section 12.5.3 ----

TEST(codings) {
    static const struct {
        const char *fields;
        bool gzip;
    } rows[] = {
        {"", false},
        {"Accept-Encoding:\r\n", false},
        {"Accept-Encoding: gzip\r\n", true},
        {"Accept-Encoding: GZip\r\n", true},
        {"Accept-Encoding: br, gzip, deflate\r\n", true},
        {"Accept-Encoding: br\r\nAccept-Encoding: gzip\r\n", true},
        {"Accept-Encoding: gzip;q=0.5\r\n", true},
        {"Accept-Encoding: gzip ; q=0.5\r\n", true},
        {"Accept-Encoding: gzip;Q=1.000\r\n", true},
        {"Accept-Encoding: deflate, gzip;q=1.0, *;q=0.5\r\n", true},
        {"Accept-Encoding: gzip;q=0.5, identity;q=0.4\r\n", true},
        {"Accept-Encoding: identity;q=0, gzip;q=0.1\r\n", true},
        {"Accept-Encoding: *;q=0, gzip\r\n", true},
        {"Accept-Encoding: gzip;q=0\r\n", false},
        {"Accept-Encoding: gzip;q=0.000\r\n", false},
        {"Accept-Encoding: gzip; q=0, br\r\n", false},
        {"Accept-Encoding: gzip;q=0, *\r\n", false},
        {"Accept-Encoding: gzip;q=0.4, identity;q=0.5\r\n", false},
        {"Accept-Encoding: br, deflate, zstd\r\n", false},
        {"Accept-Encoding: gzipped, xgzip, gzi\r\n", false},
        {"Accept-Encoding: identity\r\n", false},
    };
    static const char *const paths[] = {"/index.html", "/", "/tagged.css", "/large.bin", "/letters.txt"};
    begin_asking();
    for (size_t i = 0; i < ROWS(rows) * ROWS(paths); i++) {
        const char *path = paths[i % ROWS(paths)];
        const httpsrv_asset *a = asset(strcmp(path, "/") == 0 ? "/index.html" : path);
        get("GET", path, rows[i / ROWS(paths)].fields);
        CHECK_INT(is_gzip(), rows[i / ROWS(paths)].gzip && a->gzip);
        check_whole(a);
        get("HEAD", path, rows[i / ROWS(paths)].fields);
        CHECK_INT(is_gzip(), rows[i / ROWS(paths)].gzip && a->gzip);
        CHECK_INT(c.length, whole(a).len);
        CHECK_STR(value("Vary"), a->gzip ? "Accept-Encoding" : "");
    }
    get("GET", "/tagged.css", "Accept-Encoding: gzip\r\n");
    CHECK_HAS(value("Content-Type"), "text/css"); // of what is inside
    end_asking();
}

// The two forms have tags, conditions and ranges of their own.
TEST(codings_and_tags) {
    static const char *const paths[] = {"/index.html", "/tagged.css", "/large.bin"};
    begin_asking();
    for (size_t i = 0; i < ROWS(paths); i++) {
        char tags[2][100], fields[300];
        for (int gzip = 0; gzip < 2; gzip++) {
            get("GET", paths[i], gzip ? "Accept-Encoding: gzip\r\n" : "");
            check_whole(asset(paths[i]));
            snprintf(tags[gzip], sizeof tags[gzip], "%s", value("ETag"));
        }
        CHECK(strcmp(tags[0], tags[1]) != 0);
        for (int n = 0; n < 4; n++) {
            snprintf(fields, sizeof fields, "If-None-Match: %s\r\n%s", tags[n / 2],
                     n % 2 ? "Accept-Encoding: gzip\r\n" : "");
            get("GET", paths[i], fields);
            CHECK_INT(c.status, n / 2 == n % 2 ? 304 : 200);
            CHECK_STR(value("Vary"), "Accept-Encoding");
            CHECK_STR(value("ETag"), tags[n % 2]);
            snprintf(fields, sizeof fields, "Range: bytes=2-9\r\nIf-Range: %s\r\n%s", tags[n / 2],
                     n % 2 ? "Accept-Encoding: gzip\r\n" : "");
            get("GET", paths[i], fields);
            if (c.status == 206) CHECK_MEM(c.body, c.body_len, whole(asset(paths[i])).ptr + 2, 8);
            if (c.status == 200) check_whole(asset(paths[i]));
            CHECK_STR(value("Vary"), "Accept-Encoding");
            if (n % 2 == 0) CHECK_INT(c.status, n / 2 == 0 ? 206 : 200);
        }
    }
    end_asking();
}

// ---- beside the rest of the server ----

static int done_calls;
static int64_t done_bytes;

static void on_done(const httpsrv_outcome *outcome, void *arg) {
    (void)arg;
    CHECK(outcome->delivered);
    __atomic_add_fetch(&done_bytes, outcome->bytes, __ATOMIC_ACQ_REL);
    COUNT(done_calls);
}

static httpsrv_verdict watch(httpsrv_req *req, void *user) {
    CHECK_INT(httpsrv_on_done(req, on_done, user), HTTPSRV_OK);
    return HTTPSRV_NEXT;
}

// Filters are asked; what they say in Vary stays beside that of the coding.
TEST(behind_filters) {
    static const char *const origins[] = {"https://shop.example", NULL};
    static const httpsrv_cors_config cors = {.origins = origins};
    static const httpsrv_security_config own = {.frame_options = "SAMEORIGIN"};
    begin("/static", 1);
    CHECK_INT(httpsrv_use(s.srv, "/static", httpsrv_cors, (void *)(uintptr_t)&cors), HTTPSRV_OK);
    CHECK_INT(httpsrv_use(s.srv, "/static", httpsrv_security_headers, (void *)(uintptr_t)&own), HTTPSRV_OK);
    CHECK_INT(httpsrv_use(s.srv, "/static", watch, NULL), HTTPSRV_OK);
    go(&s);
    c = dial(s.port);
    get("GET", "/static/index.html", "Origin: https://shop.example\r\nAccept-Encoding: gzip\r\n");
    CHECK_INT(c.status, 200);
    CHECK(is_gzip());
    int seen = 0;
    for (int i = 0; i < c.num_fields; i++) {
        if (strcasecmp(c.head + c.fields[i].name, "Vary") != 0) continue;
        seen |= strstr(c.head + c.fields[i].value, "Origin") ? 1 : 0;
        seen |= strstr(c.head + c.fields[i].value, "Accept-Encoding") ? 2 : 0;
    }
    CHECK_INT(seen, 3);
    CHECK_STR(value("Access-Control-Allow-Origin"), "https://shop.example");
    CHECK_STR(value("X-Frame-Options"), "SAMEORIGIN");
    CHECK_INT(count_fields(&c, "X-Content-Type-Options"), 1); // which both would set
    get("GET", "/static/large.bin", "Connection: close\r\n");
    CHECK_INT(c.status, 200);
    WAIT(LOAD(done_calls) == 2);
    CHECK_CMP(LOAD(done_bytes), >, LARGE);
    CHECK_CMP(LOAD(done_bytes), <, LARGE + 2000);
    end_asking();
}

// Without a copy, whoever reads it however slowly.
TEST(large_without_a_copy) {
    struct client slow[8];
    begin("/", 1);
    go(&s);
    check_alive(&s);
    const size_t before = LOAD(s.bytes);
    STORE(s.peak, before);
    for (size_t i = 0; i < ROWS(slow); i++) {
        slow[i] = dial(s.port);
        GET(&slow[i], "/large.bin");
        net_need(&slow[i], 100);
    }
    for (size_t i = 0; i < ROWS(slow); i++) {
        EXPECT(&slow[i], 200, NULL);
        CHECK_INT(slow[i].body_len, LARGE);
        CHECK(memcmp(slow[i].body, large, LARGE) == 0);
        hang_up(&slow[i]);
    }
    CHECK_CMP(LOAD(s.peak), <, before + LARGE / 2);
    c = dial(s.port); // one that leaves in the middle
    GET(&c, "/large.bin");
    net_need(&c, 100);
    net_reset(&c);
    check_alive(&s);
    finish(&s);
}

// ---- setup ----

#define ONE(...)                         \
    (const httpsrv_asset[]) {            \
        {__VA_ARGS__}, {                 \
            NULL, NULL, NULL, 0, 0, 0, 0 \
        }                                \
    }

static void check_setup(const char *prefix, const httpsrv_asset *assets, httpsrv_result result) {
    prepare(&s, &(httpsrv_config){0});
    NOTE("%s, %s", prefix ? prefix : "(no prefix)", assets ? assets->path ? assets->path : "(empty)" : "(no table)");
    CHECK_INT(httpsrv_assets(s.srv, prefix, assets), result);
    CHECK_INT(httpsrv_listen(s.srv), result);
    CHECK_INT(httpsrv_error(s.srv)[0] == 0, result == HTTPSRV_OK);
    if (result != HTTPSRV_OK) {
        dispose(&s);
        return;
    }
    httpsrv_stop(s.srv);
    CHECK_INT(httpsrv_run(s.srv), HTTPSRV_OK);
    dispose(&s);
}

TEST(setup_errors) {
    check_setup("/", table, HTTPSRV_OK);
    check_setup("/static", table + ROWS(table) - 1, HTTPSRV_OK); // nothing in it
    check_setup("/", ONE(.path = "/a", .data = "a", .len = 1), HTTPSRV_OK);
    check_setup("static", table, HTTPSRV_ROUTE);
    check_setup("", table, HTTPSRV_ROUTE);
    check_setup("/", NULL, HTTPSRV_ARG);
    check_setup("/", ONE(.path = "a", .data = "a", .len = 1), HTTPSRV_ARG);
    check_setup("/", ONE(.path = "", .data = "a", .len = 1), HTTPSRV_ARG);
    check_setup("/", ONE(.path = "/a", .data = NULL, .len = 1), HTTPSRV_ARG);
    check_setup("/", ONE(.path = "/a", .data = "a", .len = 1, .etag = "v1"), HTTPSRV_ARG);
    check_setup("/", ONE(.path = "/a", .data = "a", .len = 1, .etag = "\"a\"\r\nX: \"b\""), HTTPSRV_ARG);
    check_setup("/", ONE(.path = "/a", .data = "a", .len = 1, .type = "text/plain\r\nX: y"), HTTPSRV_ARG);
    CHECK_INT(httpsrv_assets(NULL, "/", table), HTTPSRV_ARG);
    begin("/", 1);
    go(&s);
    CHECK_INT(httpsrv_assets(s.srv, "/late", table), HTTPSRV_STATE);
    finish(&s);
}
