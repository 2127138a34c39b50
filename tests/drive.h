// The parser, driven over an input in steps of any kind, and what it found, as a list of facts that can be compared.
// For every call the bytes are moved to the very end of what is mapped, and where they were before is overwritten: a
// read past the end is a crash, a view that was kept too long is a wrong fact.
// Include it after httpsrv.h with HTTPSRV_IMPLEMENTATION.
//
//     struct drive d;
//     drive_begin(&d, &input, NULL);
//     drive_to(&d, 10);              // with the first 10 bytes there
//     drive_end(&d);                 // with all of them; d.facts is complete
//     release_facts(&d.facts);

#ifndef TEST_DRIVE_H
#define TEST_DRIVE_H

#include "test.h"

#define MAX_FIELDS  100
#define ARENA_BYTES (2 << 20)

// ---- bytes ----

struct bytes {
    char *ptr;
    size_t len, size;
};

TEST_FN void append(struct bytes *b, const void *ptr, size_t len) {
    if (b->len + len + 1 > b->size) {
        b->size = (b->len + len + 1) * 2;
        b->ptr = (char *)realloc(b->ptr, b->size);
        CHECK(b->ptr != NULL);
    }
    if (len) memcpy(b->ptr + b->len, ptr, len);
    b->len += len;
    b->ptr[b->len] = 0;
}

TEST_FN void append_text(struct bytes *b, const char *text) {
    append(b, text, strlen(text));
}

TEST_FN void append_view(struct bytes *b, httpsrv_str view) {
    append(b, view.ptr, view.len);
}

TEST_FN void release_bytes(struct bytes *b) {
    free(b->ptr);
    memset(b, 0, sizeof *b);
}

TEST_FN bool same_bytes(const struct bytes *a, const struct bytes *b) {
    return a->len == b->len && (a->len == 0 || memcmp(a->ptr, b->ptr, a->len) == 0);
}

TEST_FN int hex_value(int c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    FAIL("not a hexadecimal digit: %c", c);
}

// ---- what the parser found: facts ----

struct fact {
    const char *key;
    struct bytes value;
    bool optional; // as one would expect: the document need not mention it
    bool used;
};

struct facts {
    struct fact *list;
    int num, room;
};

TEST_FN struct bytes *add_fact(struct facts *f, const char *key, bool optional) {
    struct fact *fact;
    if (f->num == f->room) {
        f->room = f->room ? f->room * 2 : 32;
        f->list = (struct fact *)realloc(f->list, (size_t)f->room * sizeof *f->list);
        CHECK(f->list != NULL);
    }
    fact = &f->list[f->num++];
    memset(fact, 0, sizeof *fact);
    fact->key = key;
    fact->optional = optional;
    append(&fact->value, "", 0);
    return &fact->value;
}

TEST_FN void add_text(struct facts *f, const char *key, bool optional, const char *text) {
    append_text(add_fact(f, key, optional), text);
}

TEST_FN void add_view(struct facts *f, const char *key, bool optional, httpsrv_str view) {
    if (view.ptr) append_view(add_fact(f, key, optional), view);
}

TEST_FN void add_number(struct facts *f, const char *key, bool optional, int64_t number) {
    char text[32];
    snprintf(text, sizeof text, "%" PRId64, number);
    add_text(f, key, optional, text);
}

TEST_FN void add_flag(struct facts *f, const char *key, bool set) {
    if (set) add_fact(f, key, false);
}

TEST_FN void add_fields(struct facts *f, const char *key, const httpsrv_head *head) {
    for (int i = 0; i < head->num_fields; i++) {
        struct bytes *b = add_fact(f, key, true);
        append_view(b, head->fields[i].name);
        append_text(b, head->fields[i].value.len ? ": " : ":");
        append_view(b, head->fields[i].value);
    }
}

TEST_FN void release_facts(struct facts *f) {
    for (int i = 0; i < f->num; i++)
        release_bytes(&f->list[i].value);
    free(f->list);
    memset(f, 0, sizeof *f);
}

TEST_FN bool same_fact(const struct fact *a, const struct fact *b) {
    return strcmp(a->key, b->key) == 0 && same_bytes(&a->value, &b->value);
}

// ---- the parser, driven ----

struct arena { // memory whose end is the end of what is mapped
    char *base, *ptr;
    size_t len;
};

TEST_FN void open_arena(struct arena *a) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    a->base = (char *)mmap(NULL, ARENA_BYTES + page, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(a->base != MAP_FAILED);
    CHECK_INT(mprotect(a->base + ARENA_BYTES, page, PROT_NONE), 0);
    a->ptr = a->base;
}

// The bytes at a place where they have not been before.
TEST_FN const char *moved(const char *ptr, size_t len) {
    static struct arena arenas[2];
    static int turn;
    struct arena *old = &arenas[turn], *fresh = &arenas[turn ^= 1];
    CHECK_CMP(len, <=, ARENA_BYTES);
    if (!old->base) open_arena(old);
    if (!fresh->base) open_arena(fresh);
    memset(old->ptr, 0xaa, old->len);
    fresh->len = len;
    fresh->ptr = fresh->base + ARENA_BYTES - len;
    memcpy(fresh->ptr, ptr, len);
    return fresh->ptr;
}

struct drive {
    const struct bytes *in;
    size_t start; // of what the parser has not consumed
    httpsrv_parser parser;
    httpsrv_head head;
    httpsrv_field fields[MAX_FIELDS];
    struct bytes body;
    struct facts facts;
    const httpsrv_limits *limits;
    bool begun, failed;
    size_t failed_at; // how many bytes were there when the error came
};

TEST_FN void begin_message(struct drive *d) {
    httpsrv_parser_init(&d->parser, d->limits);
    CHECK_INT(d->parser.phase, HTTPSRV_PHASE_HEAD);
    memset(&d->head, 0x55, sizeof d->head);
    d->head.fields = d->fields;
    d->head.max_fields = MAX_FIELDS;
    d->body.len = 0;
    d->begun = false;
}

TEST_FN const char *form_name(httpsrv_form form) {
    static const char *const names[] = {"origin", "absolute", "authority", "asterisk"};
    CHECK((unsigned)form < 4);
    return names[form];
}

TEST_FN httpsrv_method_id method_of(httpsrv_str method) {
    static const char *const names[] = {"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"};
    for (int i = 0; i < 9; i++)
        if (method.len == strlen(names[i]) && memcmp(method.ptr, names[i], method.len) == 0)
            return (httpsrv_method_id)(HTTPSRV_METHOD_GET + i);
    return HTTPSRV_METHOD_OTHER;
}

TEST_FN bool same_view(httpsrv_str a, httpsrv_str b) {
    return !a.ptr == !b.ptr && a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

// What path and query of an origin form are, cut out in the plainest way.
TEST_FN void add_target_facts(struct facts *f, const httpsrv_head *head) {
    httpsrv_str path = head->target, query = {NULL, 0};
    const char *mark = (const char *)memchr(path.ptr, '?', path.len);
    bool origin = head->form == HTTPSRV_FORM_ORIGIN;
    if (mark) {
        query.ptr = mark + 1;
        query.len = (size_t)(path.ptr + path.len - query.ptr);
        path.len = (size_t)(mark - path.ptr);
    }
    add_text(f, "form", origin, form_name(head->form));
    add_view(f, "path", !origin || same_view(path, head->path), head->path);
    add_view(f, "query", origin && same_view(query, head->query), head->query);
    if (origin) CHECK(same_view(path, head->path) && same_view(query, head->query));
}

TEST_FN void add_head_facts(struct facts *f, const httpsrv_head *head) {
    struct bytes *line = add_fact(f, "head", false);
    append_view(line, head->method);
    append_text(line, " ");
    append_view(line, head->target);
    CHECK(head->version_minor >= 0 && head->version_minor <= 9);
    append_text(line, " 1.");
    append(line, &"0123456789"[head->version_minor], 1);
    CHECK_INT(head->method_id, method_of(head->method));
    add_target_facts(f, head);
    add_view(f, "authority", true, head->authority);
    add_view(f, "host", true, head->host);
    add_view(f, "type", true, head->content_type);
    if (head->content_length >= 0) add_number(f, "length", false, head->content_length);
    add_flag(f, "chunked", head->chunked);
    add_text(f, "keep-alive", head->keep_alive == (head->version_minor > 0), head->keep_alive ? "yes" : "no");
    add_flag(f, "expect-continue", head->expect_continue);
    add_flag(f, "expect-other", head->expect_other);
    add_flag(f, "upgrade", head->upgrade);
    add_number(f, "fields", true, head->num_fields);
    add_fields(f, "field", head);
}

TEST_FN void add_body_fact(struct drive *d) {
    append(add_fact(&d->facts, "body", d->body.len == 0), d->body.ptr, d->body.len);
}

TEST_FN ptrdiff_t call_body(struct drive *d, const char *buf, size_t len) {
    httpsrv_str piece = {NULL, 0};
    ptrdiff_t n = httpsrv_parse_body(&d->parser, buf, len, &piece);
    if (n <= 0 || piece.len == 0) return n;
    CHECK(piece.ptr >= buf && piece.ptr + piece.len <= buf + n);
    append_view(&d->body, piece);
    return n;
}

TEST_FN ptrdiff_t call_trailers(struct drive *d, const char *buf, size_t len) {
    ptrdiff_t n = httpsrv_parse_trailers(&d->parser, buf, len, &d->head);
    if (n <= 0) return n;
    add_number(&d->facts, "trailers", d->head.num_fields == 0, d->head.num_fields);
    add_fields(&d->facts, "trailer", &d->head);
    return n;
}

TEST_FN ptrdiff_t call_head(struct drive *d, const char *buf, size_t len) {
    ptrdiff_t n = httpsrv_parse_head(&d->parser, buf, len, &d->head);
    if (n > 0) add_head_facts(&d->facts, &d->head);
    return n;
}

TEST_FN ptrdiff_t call_parser(struct drive *d, const char *buf, size_t len) {
    if (d->parser.phase == HTTPSRV_PHASE_HEAD) return call_head(d, buf, len);
    if (d->parser.phase == HTTPSRV_PHASE_BODY) return call_body(d, buf, len);
    CHECK_INT(d->parser.phase, HTTPSRV_PHASE_TRAILERS);
    return call_trailers(d, buf, len);
}

TEST_FN const char *item_name(int item) {
#define HTTPSRV_X(name, level, text) #name,
    static const char *const names[] = {HTTPSRV_LOG_ITEMS(HTTPSRV_X)};
#undef HTTPSRV_X
    CHECK(item > 0 && item < HTTPSRV_LOG_COUNT);
    return names[item];
}

TEST_FN httpsrv_result result_of(int status) {
    if (status == 400) return HTTPSRV_SYNTAX;
    return status == 501 || status == 505 ? HTTPSRV_UNSUPPORTED : HTTPSRV_TOOBIG;
}

// An error is final, whatever comes.
TEST_FN void note_error(struct drive *d, ptrdiff_t result, size_t avail) {
    httpsrv_parser first = d->parser;
    struct bytes *line = add_fact(&d->facts, "error", false);
    char status[16];
    d->failed = true;
    d->failed_at = avail;
    snprintf(status, sizeof status, "%d ", d->parser.status);
    append_text(line, status);
    append_text(line, item_name(d->parser.item));
    CHECK_INT(result, result_of(d->parser.status));
    CHECK_INT(d->parser.phase, HTTPSRV_PHASE_ERROR);
    CHECK(!httpsrv_parse_done(&d->parser));
    CHECK_INT(httpsrv_parse_head(&d->parser, "GET / HTTP/1.0\r\n\r\n", 18, &d->head), result);
    CHECK(d->parser.status == first.status && d->parser.item == first.item);
}

TEST_FN void end_message(struct drive *d) {
    CHECK_INT(d->parser.phase, HTTPSRV_PHASE_DONE);
    add_body_fact(d);
    add_fact(&d->facts, "done", false);
    begin_message(d);
}

// As far as it goes with the first `avail` bytes of the input.
TEST_FN void drive_to(struct drive *d, size_t avail) {
    while (!d->failed && d->start < avail) {
        size_t len = avail - d->start;
        ptrdiff_t n = call_parser(d, moved(d->in->ptr + d->start, len), len);
        d->begun = true;
        if (n < 0) note_error(d, n, avail);
        if (n <= 0) return;
        CHECK_CMP(n, <=, len);
        d->start += (size_t)n;
        if (httpsrv_parse_done(&d->parser)) end_message(d);
    }
}

// The input and the limits (NULL: the defaults) stay with the caller.
TEST_FN void drive_begin(struct drive *d, const struct bytes *in, const httpsrv_limits *limits) {
    memset(d, 0, sizeof *d);
    d->in = in;
    d->limits = limits;
    begin_message(d);
}

TEST_FN void drive_end(struct drive *d) {
    drive_to(d, d->in->len);
    if (!d->failed && d->begun) {
        add_body_fact(d);
        add_fact(&d->facts, "more", false);
    }
    release_bytes(&d->body);
}

#endif // TEST_DRIVE_H
