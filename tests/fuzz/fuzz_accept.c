// Accept-Encoding: how much a client likes each coding, compared with a plain reading of RFC 9110 sections 12.4.2 and
// 12.5.3; and what is chosen of a file and its compressed siblings.
//
// Each line of the text is the value of a field. Control: the first letter says which siblings there are (bits).

#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define ACCEPT_MAX_FIELDS 16
#define ACCEPT_CODINGS    5
#define ACCEPT_SIBLINGS   3 // the first ones of them; behind them stands the file itself
#define ACCEPT_IDENTITY   3

static const char *const accept_codings[ACCEPT_CODINGS] = {"br", "zstd", "gzip", "identity", "deflate"};

struct accept_wish {
    int own[ACCEPT_CODINGS]; // -1: not mentioned
    int others;
};

// ---- plainly ----

// Thousandths; 0 for what is no qvalue.
static int accept_qvalue(httpsrv_str s) {
    static const char one[] = "1.000";
    char digits[4] = "000";
    if (s.len == 0 || s.len > 5 || (s.len > 1 && s.ptr[1] != '.')) return 0;
    if (s.ptr[0] == '1') return memcmp(s.ptr, one, s.len) == 0 ? 1000 : 0;
    if (s.ptr[0] != '0') return 0;
    for (size_t i = 2; i < s.len; i++) {
        if (!among(s.ptr[i], ORACLE_DIGIT)) return 0;
        digits[i - 2] = s.ptr[i];
    }
    return atoi(digits);
}

// Takes "name=value" at *at; false if there is none. Quotes are left out.
static bool accept_take_parameter(httpsrv_str s, size_t *at, httpsrv_str *name, httpsrv_str *value) {
    size_t start = *at;
    if (!skip_word(s, at, false)) return false;
    *name = hsrv_text_view(s.ptr + start, *at - start);
    if (*at == s.len || s.ptr[*at] != '=') return false;
    start = ++*at;
    if (!skip_word(s, at, true)) return false;
    bool quoted = s.ptr[start] == '"';
    *value = hsrv_text_view(s.ptr + start + quoted, *at - start - 2u * quoted);
    return true;
}

// What the parameters of an element say; a client that cannot be understood likes nothing.
static int accept_weight(httpsrv_str s) {
    int weight = 1000;
    size_t at = 0;
    for (skip_blanks(s, &at); at < s.len; skip_blanks(s, &at)) {
        httpsrv_str name, value;
        if (s.ptr[at++] != ';') return 0;
        skip_blanks(s, &at);
        if (at == s.len || s.ptr[at] == ';') continue;
        if (!accept_take_parameter(s, &at, &name, &value)) return 0;
        if (is_text(name, "q")) weight = accept_qvalue(value);
    }
    return weight;
}

static void accept_read_element(struct accept_wish *wish, httpsrv_str element) {
    httpsrv_str name = {element.ptr, 0}, rest;
    while (name.len < element.len && element.ptr[name.len] != ';')
        name.len++;
    rest = hsrv_text_view(element.ptr + name.len, element.len - name.len);
    while (name.len && among(name.ptr[name.len - 1], " \t"))
        name.len--;
    if (name.len == 0) return;
    if (is_text(name, "*")) wish->others = accept_weight(rest);
    for (int i = 0; i < ACCEPT_CODINGS; i++) {
        bool also = strcmp(accept_codings[i], "gzip") == 0 && is_text(name, "x-gzip");
        if (also || is_text(name, accept_codings[i])) wish->own[i] = accept_weight(rest);
    }
}

// Quotes have no place in this field, so that each comma parts.
static void accept_read_field(struct accept_wish *wish, httpsrv_str value) {
    for (size_t i = 0; i <= value.len; i++) {
        httpsrv_str element = {value.ptr + i, 0};
        while (i < value.len && value.ptr[i] != ',') {
            element.len++;
            i++;
        }
        while (element.len && among(*element.ptr, " \t")) {
            element.ptr++;
            element.len--;
        }
        accept_read_element(wish, element);
    }
}

// That a client takes what is not coded needs no saying, so that "*" says nothing about it but "rather not".
static int accept_expected(const struct accept_wish *wish, int coding) {
    if (wish->own[coding] >= 0) return wish->own[coding];
    return coding == ACCEPT_IDENTITY ? 0 : wish->others;
}

// The sibling that should be sent; ACCEPT_IDENTITY for the file itself.
static int accept_best(const struct accept_wish *wish, unsigned present) {
    int best = ACCEPT_IDENTITY, most = 0;
    for (int i = ACCEPT_SIBLINGS - 1; i >= 0; i--) {
        int weight = present & 1u << i ? accept_expected(wish, i) : 0;
        if (weight == 0 || weight < most) continue;
        best = i;
        most = weight;
    }
    return accept_expected(wish, ACCEPT_IDENTITY) > most ? ACCEPT_IDENTITY : best;
}

// ---- a request ----

// One with a field for each line; false if they are no fields.
static bool accept_parse(httpsrv_req *req, httpsrv_field *fields, const struct bytes *text) {
    static struct bytes head;
    const char *end = text->ptr + text->len;
    int num = 0;
    head.len = 0;
    append_text(&head, "GET / HTTP/1.1\r\nHost: a\r\n");
    for (const char *at = text->ptr, *next; at < end && num < ACCEPT_MAX_FIELDS; at = next ? next + 1 : end, num++) {
        next = (const char *)memchr(at, '\n', (size_t)(end - at));
        append_text(&head, num % 2 ? "accept-encoding:" : "Accept-Encoding: ");
        append(&head, at, (size_t)((next ? next : end) - at));
        append_text(&head, "\r\n");
    }
    append_text(&head, "\r\n");
    httpsrv_parser_init(&req->parser, NULL);
    req->head.fields = fields;
    req->head.max_fields = ACCEPT_MAX_FIELDS + 1;
    return httpsrv_parse_head(&req->parser, fuzz_moved(head.ptr, head.len), head.len, &req->head) ==
           (ptrdiff_t)head.len;
}

static void accept_check_weights(const httpsrv_req *req, const struct accept_wish *wish) {
    for (int i = 0; i < ACCEPT_CODINGS; i++) {
        NOTE("the weight of %s", accept_codings[i]);
        CHECK_INT(hsrv_request_weight(req, accept_codings[i]), accept_expected(wish, i));
    }
    NOTE("%s", "");
}

static void accept_check_choice(const httpsrv_req *req, const struct accept_wish *wish, unsigned present) {
    static hsrv_file files[ACCEPT_SIBLINGS + 1];
    int best = accept_best(wish, present);
    const char *coding;
    hsrv_cached entry;
    memset(&entry, 0, sizeof entry);
    entry.file = &files[ACCEPT_IDENTITY];
    for (unsigned i = 0; i < ACCEPT_SIBLINGS; i++)
        entry.siblings[i] = present & 1u << i ? &files[i] : NULL;
    CHECK_INT(hsrv_content_choose(req, &entry, &coding) - files, best);
    CHECK_STR(coding, best == ACCEPT_IDENTITY ? NULL : accept_codings[best]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static httpsrv_req req;
    httpsrv_field fields[ACCEPT_MAX_FIELDS + 1];
    struct accept_wish wish = {{-1, -1, -1, -1, -1}, 0};
    struct fuzz_input in = fuzz_open(data, size);
    if (accept_parse(&req, fields, &in.text)) {
        for (int i = 1; i < req.head.num_fields; i++)
            accept_read_field(&wish, req.head.fields[i].value);
        accept_check_weights(&req, &wish);
        accept_check_choice(&req, &wish, fuzz_control(&in, 0));
    }
    fuzz_close(&in);
    return 0;
}
