// A build without regular expressions: their routes are refused, all others are as ever.

#define HTTPSRV_NO_REGEX
#define HTTPSRV_IMPLEMENTATION
#include "../httpsrv.h"

// Before anything else could bring it in.
#ifdef REG_EXTENDED
#define HAS_REGEX_H true
#else
#define HAS_REGEX_H false
#endif

#include "server.h"

static struct server s;

TEST(regex_h_is_not_included) {
    CHECK(!HAS_REGEX_H);
}

TEST(expressions_are_unsupported) {
    static const char *const patterns[] = {"GET ~^/x$", "* ~.", "PURGE ~(a)\\1", "GET ~", "GET ~("};
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) {
        NOTE("%s", patterns[i]);
        prepare(&s, &(httpsrv_config){0});
        CHECK_INT(httpsrv_on(s.srv, "GET /before", on_hello, &s), HTTPSRV_OK);
        CHECK_INT(httpsrv_on(s.srv, patterns[i], on_hello, &s), HTTPSRV_UNSUPPORTED);
        CHECK_INT(httpsrv_on(s.srv, "GET /after", on_hello, &s), HTTPSRV_OK);
        CHECK_INT(httpsrv_listen(s.srv), HTTPSRV_UNSUPPORTED); // kept
        CHECK_HAS(httpsrv_error(s.srv), patterns[i]);
        dispose(&s);
    }
}

TEST(other_routes_are_as_ever) {
    serve(&s, &(httpsrv_config){.reactors = 2});
    check_alive(&s);
    struct client c = ASK(&s, "GET /dump/a/b/c HTTP/1.1\r\nHost: h\r\n\r\n");
    CHECK_MEM(c.body, c.body_len, "GET /dump/a/b/c /dump/a/b/c host=h a=a rest=b/c q= x= body=", 59);
    GET(&c, "/nowhere");
    EXPECT(&c, 404, NULL);
    SEND(&c, "POST /hello HTTP/1.1\r\nHost: h\r\n\r\n");
    EXPECT(&c, 405, NULL);
    CHECK(field(&c, "Allow") != NULL);
    hang_up(&c);
    finish(&s);
}

// A tilde that does not begin the path is a character like others.
TEST(tildes_in_paths) {
    prepare(&s, &(httpsrv_config){0});
    CHECK_INT(httpsrv_on(s.srv, "GET /~hello", on_hello, &s), HTTPSRV_OK);
    go(&s);
    struct client c = ASK(&s, "GET /~hello HTTP/1.1\r\nHost: h\r\n\r\n");
    CHECK_INT(c.status, 200);
    hang_up(&c);
    finish(&s);
}
