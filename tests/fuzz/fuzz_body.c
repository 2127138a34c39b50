// A body with its trailers: parsed whole, in pieces and byte by byte, each time at a new place. All readings agree with
// each other; with the oracle under the default limits; and smaller limits let through what fits them and no more.
//
// Controls: the first is "c" for a chunked body (odd) or "d" for one of a length (even), the second a digit for the
// limit (body_limits), the third one for the length; from the fourth on the sizes of the pieces.

#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define BODY_SETTINGS 3 // control bytes that are no sizes

static const int64_t body_limits[] = {0, -1, HTTPSRV_ZERO, 1, 10, 100, 1000, INT64_MAX};

struct body_setup {
    char head[128];
    bool chunked;
    int64_t length;
    int64_t limit; // decoded bytes; -1: unlimited
    httpsrv_limits limits;
};

static int64_t body_length(const struct fuzz_input *in, unsigned control) {
    int64_t len = (int64_t)in->text.len;
    switch (control % 4) {
    case 1: return len / 2;
    case 2: return len * 2 + 1;
    case 3: return INT64_MAX;
    default: return len;
    }
}

static struct body_setup body_plan(const struct fuzz_input *in) {
    struct body_setup s;
    memset(&s, 0, sizeof s);
    s.limits.body = body_limits[fuzz_control(in, 1) % 8];
    s.limit = s.limits.body == 0 ? ORACLE_BODY : s.limits.body == HTTPSRV_ZERO ? 0 : s.limits.body;
    s.chunked = fuzz_control(in, 0) % 2 == 1;
    s.length = s.chunked ? -1 : body_length(in, fuzz_control(in, 2));
    if (s.chunked)
        snprintf(s.head, sizeof s.head, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    else
        snprintf(s.head, sizeof s.head, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %" PRId64 "\r\n\r\n", s.length);
    return s;
}

// ---- one reading ----

struct body_run {
    struct drive d;
    size_t before; // how many bytes were there before the step that brought the decision
};

static void body_call(struct drive *d, size_t avail) {
    size_t len = avail - d->start;
    bool in_body = d->parser.phase == HTTPSRV_PHASE_BODY;
    ptrdiff_t n = call_parser(d, fuzz_moved(d->in->ptr + d->start, len), len);
    CHECK_CMP(n, <=, len);
    CHECK(!in_body || n != 0); // each byte of a body can be consumed as it comes
    if (n < 0) note_error(d, n, avail);
    if (n < 0) CHECK(d->parser.status == 400 || d->parser.status == 413);
    if (n > 0) d->start += (size_t)n;
}

static bool body_over(const struct drive *d) {
    return d->failed || d->parser.phase == HTTPSRV_PHASE_DONE;
}

// As far as it goes with the first `avail` bytes.
static void body_step(struct drive *d, size_t avail) {
    size_t at;
    do {
        at = d->start;
        if (at < avail && !body_over(d)) body_call(d, avail);
    } while (d->start > at);
}

// False if the head is refused already.
static bool body_begin(struct body_run *r, const struct fuzz_input *in, const struct body_setup *s,
                       const httpsrv_limits *limits) {
    memset(r, 0, sizeof *r);
    drive_begin(&r->d, &in->text, limits);
    append(&r->d.body, "", 0);
    ptrdiff_t n = httpsrv_parse_head(&r->d.parser, s->head, strlen(s->head), &r->d.head);
    if (n < 0) note_error(&r->d, n, 0);
    if (n > 0) CHECK_INT(n, strlen(s->head));
    return n > 0;
}

static void body_end(struct drive *d) {
    if (d->failed) return;
    add_body_fact(d);
    add_fact(&d->facts, body_over(d) ? "done" : "more", false);
}

static void body_read(struct body_run *r, const struct fuzz_input *in, const struct body_setup *s, enum fuzz_pace pace,
                      const httpsrv_limits *limits) {
    bool going = body_begin(r, in, s, limits);
    for (size_t step = BODY_SETTINGS, avail = 0; going && avail < in->text.len && !body_over(&r->d); step++) {
        r->before = avail;
        avail = fuzz_next(in, pace, step, avail);
        body_step(&r->d, avail);
    }
    body_end(&r->d);
}

static void body_forget(struct body_run *r) {
    release_facts(&r->d.facts);
    release_bytes(&r->d.body);
}

// ---- comparisons ----

static void body_check_paces(const struct body_run *bytes, const struct body_run *other) {
    fuzz_same("in another pace, expected as byte by byte", &bytes->d.facts, &other->d.facts);
    CHECK_MEM(other->d.body.ptr, other->d.body.len, bytes->d.body.ptr, bytes->d.body.len);
    CHECK_INT(other->d.parser.phase, bytes->d.parser.phase);
    if (!bytes->d.failed) {
        // Of trailers that are not complete nothing is consumed, whatever the pace.
        CHECK_INT(other->d.start, bytes->d.start);
        return;
    }
    CHECK_CMP(other->before, <=, bytes->d.failed_at ? bytes->d.failed_at - 1 : 0);
    CHECK_CMP(other->d.failed_at, >=, bytes->d.failed_at);
}

static bool body_read_oracle(struct oracle *o, const struct body_setup *s) {
    if (s->length > ORACLE_BODY) return refuse(o, 413, "BODY_TOO_LARGE");
    if (!(s->chunked ? read_chunks(o) : read_data(o, s->length))) return false;
    append(add_fact(o->facts, "body", o->body.len == 0), o->body.ptr, o->body.len);
    add_fact(o->facts, "done", false);
    return true;
}

static void body_check_oracle(const struct fuzz_input *in, const struct body_setup *s, const struct body_run *r) {
    struct facts facts = {NULL, 0, 0};
    struct oracle o;
    memset(&o, 0, sizeof o);
    o.head.fields = o.fields;
    o.ptr = o.at = in->text.ptr;
    o.end = in->text.ptr + in->text.len;
    o.facts = &facts;
    append(&o.body, "", 0);
    if (body_read_oracle(&o, s)) CHECK_INT(o.at - o.ptr, r->d.start);
    fuzz_same("expected as the oracle", &facts, &r->d.facts);
    CHECK_MEM(r->d.body.ptr, r->d.body.len, o.body.ptr, o.body.len);
    release_facts(&facts);
    release_bytes(&o.body);
}

static void body_check_limit(const struct body_setup *s, const struct body_run *wide, const struct body_run *narrow) {
    const struct bytes *all = &wide->d.body, *got = &narrow->d.body;
    if (s->limit >= 0) CHECK_CMP(got->len, <=, s->limit);
    if (s->limit >= 0 && (int64_t)all->len > s->limit) CHECK_INT(fuzz_status(&narrow->d.facts), 413);
    if (fuzz_status(&wide->d.facts) == 413 || fuzz_status(&narrow->d.facts) == 413) {
        size_t both = all->len < got->len ? all->len : got->len; // either limit may be the smaller one
        CHECK_MEM(got->ptr, both, all->ptr, both);
        return;
    }
    fuzz_same("with another limit, expected as without", &wide->d.facts, &narrow->d.facts);
}

// Leaves the reading byte by byte in `bytes`.
static void body_read_all(struct body_run *bytes, const struct fuzz_input *in, const struct body_setup *s,
                          const httpsrv_limits *limits) {
    struct body_run other;
    body_read(bytes, in, s, FUZZ_BYTES, limits);
    for (enum fuzz_pace pace = FUZZ_WHOLE; pace < FUZZ_BYTES; pace++) {
        body_read(&other, in, s, pace, limits);
        body_check_paces(bytes, &other);
        body_forget(&other);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct fuzz_input in = fuzz_open(data, size);
    struct body_setup setup = body_plan(&in);
    struct body_run wide, narrow;
    if (in.text.len) {
        body_read_all(&wide, &in, &setup, NULL);
        body_check_oracle(&in, &setup, &wide);
        body_read_all(&narrow, &in, &setup, &setup.limits);
        body_check_limit(&setup, &wide, &narrow);
        body_forget(&wide);
        body_forget(&narrow);
    }
    fuzz_close(&in);
    return 0;
}
