// Cookies: what a name stands for in the Cookie fields of a request, compared with a plain reading of them; and what
// may be set, which must come back as it was.
//
// The text's first line is the name, the others are values of Cookie fields; the second line is also what is set.
// Controls: the first says which attributes that gets (cookie_plan), the second its SameSite, the third its Max-Age.

#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define COOKIE_MAX_FIELDS 16
#define COOKIE_EPOCH      "Thu, 01 Jan 1970 00:00:00 GMT"

struct cookie_input {
    char name[128];
    httpsrv_str values[COOKIE_MAX_FIELDS];
    int num;
    httpsrv_cookie_config set;
};

static struct cookie_world {
    httpsrv *srv;
    hsrv_loop *loop;
} cookie_world;

static void cookie_open(void) {
    httpsrv_result result;
    cookie_world.srv = httpsrv_new(NULL);
    CHECK(cookie_world.srv != NULL);
    CHECK_INT(hsrv_server_complete_routes(cookie_world.srv), HTTPSRV_OK);
    cookie_world.loop = hsrv_loop_new(cookie_world.srv, 0, 1, &result);
    CHECK(cookie_world.loop != NULL);
}

// ---- the input ----

static void cookie_plan(struct cookie_input *c, const struct fuzz_input *in) {
    static const char *const sites[] = {NULL, "Strict", "Lax", "None"};
    static const int64_t ages[] = {0, 1, -1, INT64_MAX};
    unsigned bits = fuzz_control(in, 0);
    c->set.name = c->name;
    c->set.value = c->num ? c->values[0] : HTTPSRV_STR("");
    c->set.secure = bits & 1;
    c->set.http_only = bits & 2;
    c->set.path = bits & 4 ? "/" : NULL;
    c->set.domain = bits & 8 ? "d.org" : NULL;
    c->set.same_site = sites[fuzz_control(in, 1) % 4];
    c->set.max_age = ages[fuzz_control(in, 2) % 4];
}

static void cookie_read_input(struct cookie_input *c, const struct fuzz_input *in) {
    const char *at = in->text.ptr, *end = at + in->text.len;
    memset(c, 0, sizeof *c);
    for (int line = 0; at < end && line <= COOKIE_MAX_FIELDS; line++) {
        const char *next = (const char *)memchr(at, '\n', (size_t)(end - at));
        httpsrv_str text = {at, (size_t)((next ? next : end) - at)};
        if (line == 0) memcpy(c->name, text.ptr, text.len < sizeof c->name ? text.len : sizeof c->name - 1);
        if (line > 0) c->values[c->num++] = text;
        at = next ? next + 1 : end;
    }
    cookie_plan(c, in);
}

// ---- plainly ----

static httpsrv_str cookie_trim(httpsrv_str s) {
    while (s.len && among(s.ptr[0], " \t")) {
        s.ptr++;
        s.len--;
    }
    while (s.len && among(s.ptr[s.len - 1], " \t"))
        s.len--;
    return s;
}

static httpsrv_str cookie_unquoted(httpsrv_str s) {
    if (s.len < 2 || s.ptr[0] != '"' || s.ptr[s.len - 1] != '"') return s;
    s.ptr++;
    s.len -= 2;
    return s;
}

// The value if the pair has that name.
static bool cookie_matches(httpsrv_str pair, const char *name, httpsrv_str *value) {
    size_t len = strlen(name);
    pair = cookie_trim(pair);
    if (len == 0 || pair.len <= len || memcmp(pair.ptr, name, len) != 0 || pair.ptr[len] != '=') return false;
    value->ptr = pair.ptr + len + 1;
    value->len = pair.len - len - 1;
    *value = cookie_unquoted(*value);
    return true;
}

static bool cookie_find(httpsrv_str field, const char *name, httpsrv_str *value) {
    for (size_t i = 0; i <= field.len; i++) {
        httpsrv_str pair = {field.ptr + i, 0};
        while (i < field.len && field.ptr[i] != ';') {
            pair.len++;
            i++;
        }
        if (cookie_matches(pair, name, value)) return true;
    }
    return false;
}

static bool cookie_may_be_set(const httpsrv_cookie_config *c) {
    httpsrv_str name = {c->name, strlen(c->name)};
    bool host = strncasecmp(c->name, "__Host-", 7) == 0, secure = strncasecmp(c->name, "__Secure-", 9) == 0;
    if (name.len == 0 || !all_of(name, ORACLE_TCHAR, false)) return false;
    if (!all_of(cookie_unquoted(c->value), "!#$%&'()*+-./:<=>?@[]^_`{|}~" ORACLE_ALPHA ORACLE_DIGIT, false))
        return false;
    if ((host || secure) && !c->secure) return false;
    if (host && (!c->path || c->domain)) return false;
    return !c->same_site || strcmp(c->same_site, "None") != 0 || c->secure;
}

static void cookie_text(struct bytes *out, const httpsrv_cookie_config *c) {
    char age[64];
    snprintf(age, sizeof age, "; Max-Age=%" PRId64, c->max_age);
    append_text(out, c->name);
    append_text(out, "=");
    append_view(out, c->value);
    append_text(out, c->path ? "; Path=/" : "");
    append_text(out, c->domain ? "; Domain=d.org" : "");
    append_text(out, c->max_age > 0 ? age : c->max_age < 0 ? "; Max-Age=0; Expires=" COOKIE_EPOCH : "");
    append_text(out, c->secure ? "; Secure" : "");
    append_text(out, c->http_only ? "; HttpOnly" : "");
    append_text(out, c->same_site ? "; SameSite=" : "");
    append_text(out, c->same_site ? c->same_site : "");
}

// ---- a request ----

// One with these Cookie fields; false if they are no fields.
static bool cookie_parse(httpsrv_req *req, const httpsrv_str *values, int num) {
    static struct bytes head;
    head.len = 0;
    append_text(&head, "GET / HTTP/1.1\r\nHost: a\r\n");
    for (int i = 0; i < num; i++) {
        append_text(&head, "Cookie: ");
        append_view(&head, values[i]);
        append_text(&head, "\r\n");
    }
    append_text(&head, "\r\n");
    req->raw = fuzz_moved(head.ptr, head.len);
    ptrdiff_t n = hsrv_parser_head(&req->parser, req->raw, head.len, &req->head);
    req->raw_len = n > 0 ? (size_t)n : 0;
    return n == (ptrdiff_t)head.len;
}

static void cookie_check_get(httpsrv_req *req, const struct cookie_input *c) {
    httpsrv_str expected = {NULL, 0}, actual = httpsrv_cookie(req, c->name);
    bool found = false;
    for (int i = 0; i < c->num && !found; i++)
        found = cookie_find(cookie_trim(c->values[i]), c->name, &expected);
    CHECK_INT(actual.ptr != NULL, found);
    if (found) CHECK_MEM(actual.ptr, actual.len, expected.ptr, expected.len);
}

static void cookie_check_set(httpsrv_req *req, const struct cookie_input *c) {
    struct bytes expected = {NULL, 0, 0};
    bool fine = cookie_may_be_set(&c->set);
    CHECK_INT(httpsrv_set_cookie(req, &c->set), fine ? HTTPSRV_OK : HTTPSRV_ARG);
    const hsrv_header *header = req->answer.headers;
    CHECK_INT(header != NULL, fine);
    if (!fine) return;
    cookie_text(&expected, &c->set);
    CHECK_VIEW(header->name, "Set-Cookie");
    CHECK_MEM(header->value.ptr, header->value.len, expected.ptr, expected.len);
    CHECK(!header->next);
    release_bytes(&expected);
}

// What was set is what a client sends back.
static void cookie_check_return(httpsrv_req *req, const struct cookie_input *c) {
    struct bytes pair = {NULL, 0, 0};
    append_text(&pair, "a=1; ");
    append_text(&pair, c->name);
    append_text(&pair, "=");
    append_view(&pair, c->set.value);
    append_text(&pair, "; b=2");
    httpsrv_str field = {pair.ptr, pair.len}, expected = cookie_unquoted(c->set.value);
    CHECK(cookie_parse(req, &field, 1));
    httpsrv_str actual = httpsrv_cookie(req, c->name);
    if (strcmp(c->name, "a") != 0) CHECK_MEM(actual.ptr, actual.len, expected.ptr, expected.len);
    release_bytes(&pair);
}

typedef void (*cookie_check)(httpsrv_req *req, const struct cookie_input *c);

static void cookie_with_request(const struct cookie_input *c, const httpsrv_str *values, int num, cookie_check check) {
    httpsrv_req *req = hsrv_loop_take_request(cookie_world.loop);
    CHECK(req != NULL);
    hsrv_request_hold(req, true);
    if (cookie_parse(req, values, num)) check(req, c);
    hsrv_request_hold(req, false);
    hsrv_request_release(cookie_world.loop, req);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct fuzz_input in = fuzz_open(data, size);
    struct cookie_input c;
    if (!cookie_world.srv) cookie_open();
    cookie_read_input(&c, &in);
    cookie_with_request(&c, c.values, c.num, cookie_check_get);
    cookie_with_request(&c, NULL, 0, cookie_check_set);
    if (cookie_may_be_set(&c.set)) cookie_with_request(&c, NULL, 0, cookie_check_return);
    fuzz_close(&in);
    return 0;
}
