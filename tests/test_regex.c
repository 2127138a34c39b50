// Routes by regular expression, end to end.

#define HTTPSRV_IMPLEMENTATION
#include "../httpsrv.h"

#include "server.h"
#include <pthread.h>

#define DEFAULTS (&(httpsrv_config){0})

static struct server s;

static uint64_t item(httpsrv_log_item i) {
    return metrics(&s).items[i];
}

// The pattern, which is the user pointer, and each parameter there is: "GET ~^/(.)$ 1=x". Absent ones are left out.
static void on_groups(httpsrv_req *req, void *user) {
    static const char *const names[] = {"0",  "1",  "2",  "3",  "4",  "5",  "6",  "7",  "8",    "9", "10", "11",
                                        "12", "13", "14", "15", "16", "17", "01", "id", "rest", "",  "1 "};
    char text[4000];
    size_t len = (size_t)snprintf(text, sizeof text, "%s", (const char *)user);
    for (size_t i = 0; i < ROWS(names); i++) {
        httpsrv_str value = httpsrv_param(req, names[i]);
        if (value.ptr) len += (size_t)snprintf(text + len, sizeof text - len, " %s=%.*s", names[i], HTTPSRV_FMT(value));
        CHECK_CMP(len, <, sizeof text);
    }
    httpsrv_reply(req, 200, NULL, (httpsrv_str){text, len});
}

static void add(const char *pattern) {
    NOTE("%s", pattern);
    CHECK_INT(httpsrv_on(s.srv, pattern, on_groups, (void *)(uintptr_t)pattern), HTTPSRV_OK);
}

static void serve_patterns(const httpsrv_config *config, const char *const *patterns, size_t n) {
    prepare(&s, config);
    for (size_t i = 0; i < n; i++)
        add(patterns[i]);
    go(&s);
}

struct row {
    const char *request;
    int status;
    const char *body; // NULL: any
};

// Each on a connection of its own, and all of them on one.
static void check_rows(const struct row *rows, size_t n) {
    struct client all = dial(s.port);
    for (size_t i = 0; i < n; i++) {
        struct client c = dial(s.port);
        NOTE("%s", rows[i].request);
        SENDF(&c, "%s HTTP/1.1\r\nHost: h\r\n\r\n", rows[i].request);
        EXPECT(&c, rows[i].status, rows[i].body);
        hang_up(&c);
        if (rows[i].status == 400) continue;
        SENDF(&all, "%s HTTP/1.1\r\nHost: h\r\n\r\n", rows[i].request);
        EXPECT(&all, rows[i].status, rows[i].body);
        CHECK(!all.close);
    }
    hang_up(&all);
}

#define SERVE(...)                                                                 \
    do {                                                                           \
        static const char *const patterns_[] = {__VA_ARGS__};                      \
        serve_patterns(DEFAULTS, patterns_, sizeof patterns_ / sizeof *patterns_); \
    } while (0)

// ---- which one fits ----

TEST(anchors_and_none) {
    static const struct row rows[] = {
        {"GET /v1/x", 200, "GET ~^/v[0-9]+/x$"},
        {"GET /v2026/x", 200, "GET ~^/v[0-9]+/x$"},
        {"GET /v/x", 404, NULL},
        {"GET /v1/x/", 404, NULL},
        {"GET /a/v1/x", 404, NULL},
        {"GET /vx/x", 404, NULL},
        {"GET /needle", 200, "GET ~needle"}, // searched
        {"GET /hay/needles/hay", 200, "GET ~needle"},
        {"GET /hay/needl", 404, NULL},
        {"GET /a?needle", 404, NULL}, // the query is no part of it
        {"GET /needle?a=b", 200, "GET ~needle"},
        {"GET /start/and/more", 200, "GET ~^/start"},
        {"GET /not/start", 404, NULL},
        {"GET /picture.png", 200, "GET ~\\.(png|jpe?g)$ 1=png"},
        {"GET /a/b.jpg", 200, "GET ~\\.(png|jpe?g)$ 1=jpg"},
        {"GET /a/b.jpeg?x", 200, "GET ~\\.(png|jpe?g)$ 1=jpeg"},
        {"GET /a/bxpng", 404, NULL},
        {"GET /a.png/b", 404, NULL},
        {"GET /NEEDLE", 404, NULL},
        {"GET http://h/v7/x?y", 200, "GET ~^/v[0-9]+/x$"},
    };
    SERVE("GET ~^/v[0-9]+/x$", "GET ~needle", "GET ~^/start", "GET ~\\.(png|jpe?g)$");
    check_rows(rows, ROWS(rows));
    finish(&s);
}

// Characters that mean something in other patterns, or end a path there, mean what they mean in an expression.
TEST(any_character_of_an_expression) {
    static const struct row rows[] = {
        {"GET /colour", 200, "GET ~^/colou?r$"},
        {"GET /color", 200, "GET ~^/colou?r$"},
        {"GET /a/:id", 200, "GET ~^/a/:id$"},
        {"GET /a/7", 404, NULL},
        {"GET /bbb", 200, "GET ~^/b{3}$"},
        {"GET /bb", 404, NULL},
        {"GET /two%20words", 200, "GET ~^/two words$"},
        {"GET /c%23sharp", 200, "GET ~^/c#sharp$"},
        {"GET /what%3f", 200, "GET ~^/what\\?$"},
        {"GET /x%5c1", 200, "GET ~^/x\\\\1$"}, // a backslash and a digit is no back-reference if it is escaped
        {"GET /(y)", 200, "GET ~^/\\(y\\)$"},
        {"GET /z(", 200, "GET ~^/z[()]$"},
        {"GET /~me", 200, "GET ~^/~me$"},
        {"GET /100%25", 200, "GET ~^/100%$"},
        {"GET /100%", 400, NULL},
        {"GET /%7e~", 200, "GET ~~~"},
        {"GET /%C3%A4/b", 200, "GET ~^/\xc3\xa4/(.)$ 1=b"},
    };
    SERVE("GET ~^/colou?r$", "GET ~^/a/:id$", "GET ~^/b{3}$", "GET ~^/two words$", "GET ~^/c#sharp$", "GET ~^/what\\?$",
          "GET ~^/x\\\\1$", "GET ~^/\\(y\\)$", "GET ~^/z[()]$", "GET ~^/~me$", "GET ~^/100%$", "GET ~~~",
          "GET ~^/\xc3\xa4/(.)$");
    check_rows(rows, ROWS(rows));
    finish(&s);
}

TEST(the_decoded_path) {
    static const struct row rows[] = {
        {"GET /f/%61b", 200, "GET ~^/f/([a-z]+)$ 1=ab"},
        {"GET /%66/a%62", 200, "GET ~^/f/([a-z]+)$ 1=ab"},
        {"GET /f/a/../b", 200, "GET ~^/f/([a-z]+)$ 1=b"},
        {"GET /x/%2e%2E/f/./c", 200, "GET ~^/f/([a-z]+)$ 1=c"},
        {"GET /g/a%2Fb", 200, "GET ~^/g/(.*)/(.*)$ 1=a 2=b"}, // a slash is a slash here
        {"GET /g//", 200, "GET ~^/g/(.*)/(.*)$ 1= 2="},
        {"GET /g/a+b/%252e", 200, "GET ~^/g/(.*)/(.*)$ 1=a+b 2=%2e"}, // decoded once
        {"GET /g/x/%C3%A4", 200, "GET ~^/g/(.*)/(.*)$ 1=x 2=\xc3\xa4"},
        {"GET /line%0Aend", 404, NULL}, // $ is the end of the path, not of a line
        {"GET /pre%0A/line", 404, NULL},
        {"GET /line", 200, "GET ~^/line$"},
        {"GET /f/%00", 400, NULL},
        {"GET /../f/a", 400, NULL},
        {"GET /", 200, "GET ~^/$"},
        {"GET /x/..", 200, "GET ~^/$"},
        {"GET http://h", 200, "GET ~^/$"},
    };
    SERVE("GET ~^/f/([a-z]+)$", "GET ~^/g/(.*)/(.*)$", "GET ~^/line$", "GET ~^/$");
    check_rows(rows, ROWS(rows));
    finish(&s);
}

// Behind literals, parameters and wildcards, whatever was first at setup; among themselves in that order.
TEST(tried_last_and_in_order) {
    static const struct row rows[] = {
        {"GET /a/b", 200, "GET /a/b"},
        {"GET /a/c", 200, "GET /a/:id id=c"},
        {"GET /a/c/d", 200, "GET ~^/a(.*) 1=/c/d"}, // the tree is left when it leads nowhere
        {"GET /w/x/y", 200, "GET /w/*rest rest=x/y"},
        {"GET /ax", 200, "GET ~^/a(.*) 1=x"},
        {"GET /abc", 200, "GET ~^/a(.*) 1=bc"}, // not the longer one, nor the one without a group
        {"GET /bc", 200, "GET ~b"},
        {"GET /cb", 200, "GET ~b"},
        {"GET /c", 200, "GET ~^/(c) 1=c"},
        {"GET /any", 200, "* /any"},        // a path of any method is still before each expression
        {"GET /post", 200, "GET ~^/post$"}, // a path of another method is not
        {"POST /post", 200, "POST /post"},
        {"POST /cb", 200, "POST ~^/c"},
        {"PUT /cb", 405, NULL},
        {"GET /d", 404, NULL},
    };
    SERVE("GET ~^/a(.*)", "GET ~^/abc$", "GET /a/b", "POST ~^/c", "GET ~b", "GET ~^/(c)", "GET /a/:id", "GET /w/*rest",
          "GET ~^/w/", "GET ~^/any", "* /any", "POST /post", "GET ~^/post$");
    check_rows(rows, ROWS(rows));
    finish(&s);
}

// Among many the first one that fits, to the last.
TEST(many_expressions) {
    static char patterns[300][40];
    prepare(&s, DEFAULTS);
    for (int i = 0; i < 300; i++) {
        snprintf(patterns[i], sizeof patterns[i], "GET ~^/r%d/(x+)$", i);
        add(patterns[i]);
    }
    go(&s);
    struct client c = dial(s.port);
    for (int i = 0; i < 300; i++) {
        char body[64];
        SENDF(&c, "GET /r%d/xx HTTP/1.1\r\nHost: a\r\n\r\n", i);
        snprintf(body, sizeof body, "%s 1=xx", patterns[i]);
        EXPECT(&c, 200, body);
    }
    GET(&c, "/r300/xx");
    EXPECT(&c, 404, NULL);
    hang_up(&c);
    finish(&s);
}

// ---- how long a path may be ----

static void check_length(struct client *c, const char *prefix, const char *unit, size_t n, int status) {
    static char target[8192];
    size_t len = (size_t)snprintf(target, sizeof target, "%s", prefix);
    for (size_t i = 0; i < n; i++)
        len += (size_t)snprintf(target + len, sizeof target - len, "%s", unit);
    NOTE("%s, %zu times %s", prefix, n, unit);
    SENDF(c, "GET %s HTTP/1.1\r\nHost: a\r\n\r\n", target);
    REPLY(c);
    CHECK_INT(c->status, status);
}

TEST(a_path_of_1024_bytes_and_one_more) {
    SERVE("GET ~^/x", "GET ~^/x*$", "GET ~.", "GET /long/:id");
    struct client c = dial(s.port);
    check_length(&c, "/", "x", 1023, 200);
    check_length(&c, "/", "x", 1024, 404);
    check_length(&c, "/", "x", 1022, 200);
    check_length(&c, "/", "%78", 1023, 200); // as decoded
    check_length(&c, "/", "%78", 1024, 404);
    check_length(&c, "/a/../", "x", 1023, 200); // and resolved
    check_length(&c, "/y?", "x", 3000, 200);
    check_length(&c, "/", "x", 8000, 404);
    check_length(&c, "/long/", "x", 2000, 200); // others have no such limit
    check_length(&c, "/", "y", 1023, 200);      // nor is there a trace of it
    hang_up(&c);
    finish(&s);
}

// The last byte of the longest path is seen, and nothing behind it.
TEST(the_end_of_the_longest_path) {
    static char target[1100];
    SERVE("GET ~y$", "GET ~(.)z$");
    memset(target, 'x', 1024);
    target[0] = '/';
    static const struct {
        const char *end;
        int status;
        const char *body;
    } rows[] = {{"xy", 200, "GET ~y$"},
                {"yx", 404, NULL},
                {"yx?y", 404, NULL},
                {"xy?x", 200, "GET ~y$"},
                {"qz", 200, "GET ~(.)z$ 1=q"}};
    for (size_t i = 0; i < ROWS(rows); i++) {
        NOTE("ends with %s", rows[i].end);
        strcpy(target + 1022, rows[i].end);
        struct client c = dial(s.port);
        GET(&c, target);
        EXPECT(&c, rows[i].status, rows[i].body);
        hang_up(&c);
    }
    finish(&s);
}

// What a client may choose, a path, must not make matching slow where the expression is a reasonable one.
TEST(long_paths_do_not_take_long) {
    SERVE("GET ~^/(a*)*b$", "GET ~^/(a|aa)+$", "GET ~/.*/.*/.*/c$", "GET ~([a-z]+)+[0-9]$");
    struct client c = dial(s.port);
    int64_t start = test_now();
    for (int i = 0; i < 3; i++) {
        check_length(&c, "/", "a", 1023, 200);
        check_length(&c, "/", "/", 1023, 404);
        check_length(&c, "/A", "ab", 511, 404);
    }
    CHECK_CMP(test_now() - start, <, test_ms(6000));
    hang_up(&c);
    finish(&s);
}

// ---- groups ----

TEST(groups) {
    static const struct row rows[] = {
        {"GET /7/x", 200, "GET ~^/([0-9]+)/(x|y)$ 1=7 2=x"},
        {"GET /77/y", 200, "GET ~^/([0-9]+)/(x|y)$ 1=77 2=y"},
        {"GET /nest/ab/cd", 200, "GET ~^/nest/(([a-z]+)/([a-z])([a-z]*))$ 1=ab/cd 2=ab 3=c 4=d"},
        {"GET /nest/ab/c", 200, "GET ~^/nest/(([a-z]+)/([a-z])([a-z]*))$ 1=ab/c 2=ab 3=c 4="},
        {"GET /or/l", 200, "GET ~^/or/((l)|(r))$ 1=l 2=l 3="}, // who took no part is there, and empty
        {"GET /or/r", 200, "GET ~^/or/((l)|(r))$ 1=r 2= 3=r"},
        {"GET /opt", 200, "GET ~^/opt(/(.+))?$ 1= 2="},
        {"GET /opt/x/y", 200, "GET ~^/opt(/(.+))?$ 1=/x/y 2=x/y"},
        {"GET /none", 200, "GET ~^/none$"},
        {"GET /rep/abc", 200, "GET ~^/rep/([a-z])*$ 1=c"}, // the last round counts
        {"GET /all/1/2/3/4/5/6/7/8/9/a/b/c/d/e/f/g", 200,
         "GET ~^/all/(.)/(.)/(.)/(.)/(.)/(.)/(.)/(.)/(.)/(.)/(.)/(.)/(.)/(.)/(.)/(.)$ 1=1 2=2 3=3 4=4 5=5 6=6 7=7 8=8 "
         "9=9 10=a 11=b 12=c 13=d 14=e 15=f 16=g"},
        {"GET /mid/x1y22z", 200, "GET ~[0-9]([a-z])([0-9]*) 1=y 2=22"},
        {"GET /name%3d/v%26", 200, "GET ~^/name=(/)(.*)$ 1=/ 2=v&"},
    };
    SERVE("GET ~^/([0-9]+)/(x|y)$", "GET ~^/nest/(([a-z]+)/([a-z])([a-z]*))$", "GET ~^/or/((l)|(r))$",
          "GET ~^/opt(/(.+))?$", "GET ~^/none$", "GET ~^/rep/([a-z])*$",
          "GET ~^/all/(.)/(.)/(.)/(.)/(.)/(.)/(.)/(.)/(.)/(.)/(.)/(.)/(.)/(.)/(.)/(.)$", "GET ~[0-9]([a-z])([0-9]*)",
          "GET ~^/name=(/)(.*)$");
    check_rows(rows, ROWS(rows));
    finish(&s);
}

static void on_absent(httpsrv_req *req, void *user) {
    (void)user;
    CHECK(httpsrv_param(req, "1").ptr != NULL);
    CHECK_VIEW(httpsrv_param(req, "1"), "");
    CHECK(httpsrv_param(req, "2").ptr != NULL);
    CHECK(httpsrv_param(req, "3").ptr == NULL);
    CHECK(httpsrv_param(req, "0").ptr == NULL);
    CHECK_VIEW(httpsrv_path(req), "/ab");
    httpsrv_reply(req, 200, NULL, httpsrv_param(req, "2"));
}

TEST(empty_is_not_absent) {
    prepare(&s, DEFAULTS);
    httpsrv_on(s.srv, "GET ~^/(x)?(.*)$", on_absent, NULL);
    go(&s);
    struct client c = dial(s.port);
    GET(&c, "/%61b?c");
    EXPECT(&c, 200, "ab");
    hang_up(&c);
    finish(&s);
}

// ---- methods ----

static void check_allow(const struct client *c, const char *const *methods, size_t n) {
    char list[300];
    size_t len = 0;
    CHECK(field(c, "Allow") != NULL);
    snprintf(list, sizeof list, ", %s,", field(c, "Allow"));
    for (size_t i = 0; i < n; i++) {
        char element[40];
        len += (size_t)snprintf(element, sizeof element, ", %s,", methods[i]) - 1;
        CHECK_HAS(list, element);
    }
    CHECK_INT(strlen(list), len + 1);
}

#define CHECK_ALLOW(request, status_, ...)                             \
    do {                                                               \
        static const char *const methods_[] = {__VA_ARGS__};           \
        NOTE("%s", request);                                           \
        SENDF(&c, "%s HTTP/1.1\r\nHost: a\r\n\r\n", request);          \
        REPLY(&c);                                                     \
        CHECK_INT(c.status, status_);                                  \
        CHECK(!c.close);                                               \
        check_allow(&c, methods_, sizeof methods_ / sizeof *methods_); \
    } while (0)

TEST(methods) {
    static const struct row rows[] = {
        {"GET /g", 200, "GET ~^/g$"},
        {"POST /p", 200, "POST ~^/p(.*) 1="},
        {"PURGE /c/1", 200, "PURGE ~^/c/"},
        {"PURGE /g", 405, NULL},
        {"PURGE /nowhere", 404, NULL},
        {"BREW /g", 501, NULL},
        {"BREW /nowhere", 501, NULL},
        {"GET /nowhere", 404, NULL},
        {"GET /any/1", 200, "* ~^/any/"},
        {"DELETE /any/1", 200, "* ~^/any/"},
        {"BREW /any/1", 200, "* ~^/any/"},
        {"OPTIONS /any/1", 200, "* ~^/any/"},
        {"OPTIONS /own", 200, "OPTIONS ~^/own$"},
        {"OPTIONS /nowhere", 404, NULL},
        {"GET /both", 200, "GET ~^/both$"},
        {"PUT /both", 200, "PUT ~^/both$"},
        {"PATCH /both", 200, "* ~^/both$"},
        {"CONNECT h:80", 501, NULL},
    };
    SERVE("GET ~^/g$", "POST ~^/p(.*)", "GET ~^/px$", "PUT /px", "PURGE ~^/c/", "* ~^/any/", "OPTIONS ~^/own$",
          "* ~^/both$", "GET ~^/both$", "PUT ~^/both$", "LOCK /locked");
    check_rows(rows, ROWS(rows));
    struct client c = dial(s.port);
    CHECK_ALLOW("POST /g", 405, "GET", "HEAD", "OPTIONS");
    CHECK_ALLOW("GET /pp", 405, "POST", "OPTIONS");
    CHECK_ALLOW("DELETE /px", 405, "PUT", "POST", "GET", "HEAD", "OPTIONS"); // all that fit, and the tree's
    CHECK_ALLOW("GET /c/1", 405, "PURGE", "OPTIONS");
    CHECK_ALLOW("POST /own", 405, "OPTIONS");
    CHECK_ALLOW("OPTIONS /g", 204, "GET", "HEAD", "OPTIONS");
    CHECK_ALLOW("OPTIONS /px", 204, "PUT", "POST", "GET", "HEAD", "OPTIONS");
    CHECK_ALLOW("OPTIONS *", 204, "LOCK", "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "PURGE", "OPTIONS");
    CHECK_CMP(item(HTTPSRV_LOG_NOT_ALLOWED), >=, 6);
    hang_up(&c);
    finish(&s);
}

// Neither "*" nor an authority is a path, so that no expression fits them, not even one that fits all.
TEST(targets_without_a_path) {
    static const struct row rows[] = {{"OPTIONS *", 204, NULL},
                                      {"CONNECT h:80", 501, NULL},
                                      {"OPTIONS /", 200, "* ~."},
                                      {"OPTIONS http://h", 200, "* ~."},
                                      {"BREW /*", 200, "* ~."}};
    SERVE("* ~.", "* ~\\*", "* ~h:80");
    check_rows(rows, ROWS(rows));
    finish(&s);
}

TEST(head_is_answered_by_get) {
    SERVE("GET ~^/g/(.*)$", "HEAD ~^/own$", "GET ~^/own$", "POST ~^/p$");
    struct client c = dial(s.port);
    static const struct row rows[] = {{"HEAD /g/xyz", 200, "GET ~^/g/(.*)$ 1=xyz"}, {"HEAD /own", 200, "HEAD ~^/own$"}};
    for (size_t i = 0; i < ROWS(rows); i++) {
        NOTE("%s", rows[i].request);
        SENDF(&c, "%s HTTP/1.1\r\nHost: a\r\n\r\n", rows[i].request);
        REPLY_HEAD(&c);
        CHECK_INT(c.status, 200);
        CHECK_INT(c.length, strlen(rows[i].body));
    }
    SEND(&c, "HEAD /p HTTP/1.1\r\nHost: a\r\n\r\n");
    REPLY_HEAD(&c);
    CHECK_INT(c.status, 405);
    hang_up(&c);
    finish(&s);
}

// ---- what else a route has ----

static void add_route(const char *pattern, httpsrv_handler handler, const char *pool, int64_t max_body) {
    httpsrv_route_config route = {.pattern = pattern, .handler = handler, .pool = pool, .max_body = max_body};
    route.user = handler == on_groups ? (void *)(uintptr_t)pattern : &s;
    NOTE("%s", pattern);
    CHECK_INT(httpsrv_route(s.srv, &route), HTTPSRV_OK);
}

static int post(struct client *c, const char *target, int length) {
    SENDF(c, "POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", target, length);
    net_send(c, blob, (size_t)length);
    REPLY(c);
    if (c->status == 200) check_blob(c, (size_t)length);
    return c->status;
}

TEST(max_body) {
    static const struct {
        const char *target;
        int length, status;
    } rows[] = {{"/server/1", 10, 200}, {"/server/1", 11, 413}, {"/small/1", 5, 200},     {"/small/1", 6, 413},
                {"/none/1", 0, 200},    {"/none/1", 1, 413},    {"/much/1", 3000000, 200}};
    prepare(&s, &(httpsrv_config){.max.body = 10});
    add_route("POST ~^/server/", on_echo, NULL, 0);
    add_route("POST ~^/small/", on_echo, "default", 5);
    add_route("POST ~^/none/", on_echo, NULL, HTTPSRV_ZERO);
    add_route("POST ~^/much/", on_echo, "default", -1);
    go(&s);
    for (size_t i = 0; i < ROWS(rows); i++) {
        NOTE("%s %d", rows[i].target, rows[i].length);
        struct client c = dial(s.port);
        CHECK_INT(post(&c, rows[i].target, rows[i].length), rows[i].status);
        hang_up(&c);
    }
    finish(&s);
}

// What the groups took is there when a worker looks at it, and however the request came.
TEST(groups_in_a_pool) {
    static const char text[] = "GET /pool/%61b/c%20d HTTP/1.1\r\nHost: a\r\n\r\n"
                               "POST /pool/x/y HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
                               "POST /inline/x/y HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                               "5\r\nhello\r\n0\r\n\r\n"
                               "GET /pool/z HTTP/1.1\r\nHost: a\r\n\r\n";
    prepare(&s, &(httpsrv_config){.pools = {{.name = "work", .threads = 2}}});
    add_route("* ~^/pool/(.*)/(.*)$", on_groups, "work", 0);
    add_route("* ~^/inline/(.*)/(.*)$", on_groups, NULL, 0);
    add_route("GET ~^/pool/(.)$", on_groups, "work", 0);
    go(&s);
    for (size_t step = 1; step < sizeof text; step = step < 20 ? step + 6 : step * 3) {
        NOTE("pieces of %zu", step);
        struct client c = dial(s.port);
        net_send_split(&c, text, sizeof text - 1, step);
        EXPECT(&c, 200, "* ~^/pool/(.*)/(.*)$ 1=ab 2=c d");
        EXPECT(&c, 200, "* ~^/pool/(.*)/(.*)$ 1=x 2=y");
        EXPECT(&c, 200, "* ~^/inline/(.*)/(.*)$ 1=x 2=y");
        EXPECT(&c, 200, "GET ~^/pool/(.)$ 1=z");
        hang_up(&c);
    }
    finish(&s);
    CHECK_CMP(s.last.pool_jobs, >=, 12);
}

TEST(unknown_pool) {
    prepare(&s, DEFAULTS);
    add_route("GET ~^/x$", on_hello, "unheard-of", 0);
    CHECK_INT(httpsrv_listen(s.srv), HTTPSRV_ROUTE);
    CHECK_HAS(httpsrv_error(s.srv), "unheard-of");
    dispose(&s);
}

TEST(listens_again) {
    prepare(&s, &(httpsrv_config){.reactors = 2});
    add("GET ~^/(.)$");
    for (int i = 0; i < 4; i++) {
        go(&s);
        struct client c = dial(s.port);
        GET(&c, "/x");
        EXPECT(&c, 200, "GET ~^/(.)$ 1=x");
        hang_up(&c);
        httpsrv_stop(s.srv);
        CHECK_INT(httpsrv_join(s.srv), HTTPSRV_OK);
    }
    dispose(&s);
}

// Set up, and never used.
TEST(never_listens) {
    prepare(&s, DEFAULTS);
    add("GET ~^/(.)$");
    add("POST ~^/(.)$");
    add("GET ~^/((.)(.))$");
    dispose(&s);
}

// ---- what is refused ----

#define FOUR_GROUPS "(a)(b)(c)(d)"

TEST(bad_expressions) {
    static const char *const rows[] = {
        "GET ~",
        "GET ~(",
        "GET ~^/(a",
        "GET ~[a-",
        "GET ~[[:nothing:]]",
        "GET ~[z-a]",
        "GET ~a{2,1}",
        "GET ~a\\",
        "GET ~(a)\\1",
        "GET ~(a)(b)\\2$",
        "GET ~^/(a|b)/\\\\\\1",
        "GET ~(a)(b)(c)(d)(e)(f)(g)(h)(i)\\9",
        "GET ~" FOUR_GROUPS FOUR_GROUPS FOUR_GROUPS FOUR_GROUPS "(e)",
        "GET ~(((((((((((((((((a)))))))))))))))))",
        "GET ~^/taken$",
        "* ~^/any$",
        "PURGE ~^/cache$",
        "G(T ~^/x$",
        " ~^/x$",
        "~^/x$",
        "GET  ~^/x$",
        "GET /~^/*x/y",
    };
    for (size_t i = 0; i < ROWS(rows); i++) {
        httpsrv *srv = httpsrv_new(NULL);
        NOTE("%s", rows[i]);
        CHECK_INT(httpsrv_on(srv, "GET ~^/taken$", on_hello, NULL), HTTPSRV_OK);
        CHECK_INT(httpsrv_on(srv, "* ~^/any$", on_hello, NULL), HTTPSRV_OK);
        CHECK_INT(httpsrv_on(srv, "PURGE ~^/cache$", on_hello, NULL), HTTPSRV_OK);
        CHECK_INT(httpsrv_on(srv, rows[i], on_hello, NULL), HTTPSRV_ROUTE);
        CHECK_INT(httpsrv_on(srv, "GET ~^/late$", on_hello, NULL), HTTPSRV_OK);
        CHECK_INT(httpsrv_listen(srv), HTTPSRV_ROUTE); // kept
        CHECK_HAS(httpsrv_error(srv), rows[i]);
        httpsrv_free(srv);
    }
}

TEST(good_expressions) {
    static const char *const rows[] = {
        "GET ~" FOUR_GROUPS FOUR_GROUPS FOUR_GROUPS FOUR_GROUPS,
        "GET ~((((((((((((((((a))))))))))))))))",
        "GET ~\\\\1",
        "GET ~(a)\\\\1",
        "GET ~\\(\\(\\(\\(\\(\\(\\(\\(\\(\\(\\(\\(\\(\\(\\(\\(\\(\\(",
        "GET ~[((((((((((((((((((]",
        "POST ~^/taken$",
        "* ~^/taken$",
        "GET ~^/taken",
        "GET ~^/:id/*rest$",
        "GET ~a",
        "GET /~a",
        "GET /a/~(",
    };
    for (size_t i = 0; i < ROWS(rows); i++) {
        httpsrv *srv = httpsrv_new(&(httpsrv_config){.host = "127.0.0.1"});
        NOTE("%s", rows[i]);
        CHECK_INT(httpsrv_on(srv, "GET ~^/taken$", on_hello, NULL), HTTPSRV_OK);
        CHECK_INT(httpsrv_on(srv, rows[i], on_hello, NULL), HTTPSRV_OK);
        CHECK_INT(httpsrv_listen(srv), HTTPSRV_OK);
        httpsrv_free(srv);
    }
}

// A tilde is one only where a path begins.
TEST(a_tilde_elsewhere_is_a_character) {
    static const struct row rows[] = {{"GET /~a", 200, "GET /~a"},
                                      {"GET /%7ea", 200, "GET /~a"},
                                      {"GET /x~", 200, "GET /x~"},
                                      {"GET /~(", 200, "GET /~("},
                                      {"GET /a", 404, NULL}};
    SERVE("GET /~a", "GET /x~", "GET /~(");
    check_rows(rows, ROWS(rows));
    finish(&s);
}

// ---- memory ----

static int until_failure; // atomic: how many more allocations succeed before one does not

static void *failing_realloc(void *user, void *ptr, size_t old_size, size_t new_size) {
    if (new_size > 0 && __atomic_fetch_sub(&until_failure, 1, __ATOMIC_ACQ_REL) == 0) return NULL;
    return counting_realloc(user, ptr, old_size, new_size);
}

static void check_first_pattern(void) {
    go(&s);
    struct client c = ASK(&s, "GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK_MEM(c.body, c.body_len, "GET ~^/(.)$ 1=x", 15);
    hang_up(&c);
}

// Sets up a server while one allocation fails. False if there were not as many.
static bool fails_to_set_up(int allocation) {
    static const char *const patterns[] = {"GET ~^/(.)$", "POST ~^/(.)$", "GET ~^/x/(.)$"};
    bool all = true;
    memset(&s, 0, sizeof s);
    STORE(until_failure, allocation);
    s.srv = httpsrv_new(
        &(httpsrv_config){.host = "127.0.0.1", .reactors = 2, .allocator = {.fn = failing_realloc, .user = &s}});
    for (size_t i = 0; i < ROWS(patterns) && s.srv; i++) {
        httpsrv_result result = httpsrv_on(s.srv, patterns[i], on_groups, (void *)(uintptr_t)patterns[i]);
        CHECK(result == HTTPSRV_OK || result == HTTPSRV_NOMEM);
        all &= result == HTTPSRV_OK;
    }
    httpsrv_result listening = httpsrv_listen(s.srv);
    bool failed = LOAD(until_failure) < 0;
    if (s.srv) CHECK_INT(listening, failed ? HTTPSRV_NOMEM : HTTPSRV_OK);
    if (!failed) CHECK(all);
    STORE(until_failure, INT_MAX);
    if (!failed) check_first_pattern();
    httpsrv_free(s.srv);
    CHECK_INT(s.bytes, 0);
    CHECK_INT(s.blocks, 0);
    return failed;
}

TEST(memory_that_fails_at_each_step) {
    int n = 0;
    for (; fails_to_set_up(n); n++)
        NOTE("allocation %d fails", n + 1);
    CHECK_CMP(n, >, 8);
}

// ---- several reactors ----

struct asker {
    pthread_t thread;
    int number;
};

#define ASKERS   6
#define QUESTION "GET /q%d/%s/%d HTTP/1.1\r\nHost: a\r\n\r\n"
#if defined(TEST_ASAN) || defined(TEST_TSAN)
#define QUESTIONS 60
#else
#define QUESTIONS 300
#endif

static void ask_all(struct client *c, int number, int from, int to) {
    for (int i = from; i < to; i++)
        net_sendf(c, QUESTION, number, i % 2 ? "in" : "pool", i);
    for (int i = from; i < to; i++) {
        char body[100];
        snprintf(body, sizeof body, "* ~^/q([0-9]+)/%s/(([0-9])*)$ 1=%d 2=%d 3=%d", i % 2 ? "in" : "pool", number, i,
                 i % 10);
        EXPECT(c, 200, body);
    }
}

static void *ask_away(void *arg) {
    struct asker *asker = (struct asker *)arg;
    for (int round = 0; round < 5; round++) {
        struct client c[4];
        for (int i = 0; i < 4; i++)
            c[i] = dial_port(s.port);
        for (int at = 0; at < QUESTIONS / 5; at += 6)
            for (int i = 0; i < 4; i++)
                ask_all(&c[i], asker->number * 100 + i, at, at + 6);
        hang_up_all(c, 4);
    }
    return NULL;
}

TEST(four_reactors_match_at_once) {
    static struct asker askers[ASKERS];
    prepare(&s, &(httpsrv_config){.reactors = 4, .pools = {{.name = "work", .threads = 3}}});
    add_route("GET ~^/nothing/(.*)/like/(.*)/it$", on_groups, NULL, 0);
    add_route("* ~^/q([0-9]+)/in/(([0-9])*)$", on_groups, NULL, 0);
    add_route("* ~^/q([0-9]+)/pool/(([0-9])*)$", on_groups, "work", 0);
    go(&s);
    for (int i = 0; i < ASKERS; i++) {
        askers[i].number = i + 1;
        pthread_create(&askers[i].thread, NULL, ask_away, &askers[i]);
    }
    for (int i = 0; i < ASKERS; i++)
        pthread_join(askers[i].thread, NULL);
    finish(&s);
    CHECK_INT(s.last.answers[2], ASKERS * 4 * QUESTIONS);
}
