// A request head: parsed whole, in pieces and byte by byte, each time at a new place, under the default limits and
// under small ones. All readings agree with each other and, under the default limits, with the oracle.
//
// Controls: the sizes of the pieces; the small limits are taken from the first four as well.

#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct head_run {
    struct drive d;
    const httpsrv_limits *limits;
    size_t before; // how many bytes were there before the step that brought the decision
    bool done;
};

// ---- what a head that was accepted promises ----

static bool head_inside(httpsrv_str view, const char *buf, size_t len) {
    uintptr_t at = (uintptr_t)view.ptr, from = (uintptr_t)buf;
    return at >= from && at <= from + len && view.len <= from + len - at;
}

static void head_check_field(const httpsrv_field *field, const char *buf, size_t len) {
    const char *value = field->value.ptr;
    CHECK(head_inside(field->name, buf, len) && head_inside(field->value, buf, len));
    CHECK(field->name.len > 0 && all_of(field->name, ORACLE_TCHAR, false));
    for (size_t i = 0; i < field->value.len; i++)
        CHECK(value[i] == '\t' || ((unsigned char)value[i] >= 32 && value[i] != 127));
    if (field->value.len) CHECK(!among(value[0], " \t") && !among(value[field->value.len - 1], " \t"));
}

static void head_check_views(const httpsrv_head *head, const char *buf, size_t len) {
    CHECK(head_inside(head->method, buf, len) && head->method.len > 0);
    CHECK(head_inside(head->target, buf, len) && head->target.len > 0);
    CHECK(head_inside(head->path, buf, len) || (head->path.len == 1 && head->path.ptr[0] == '/'));
    CHECK(!head->query.ptr || head_inside(head->query, buf, len));
    CHECK(!head->authority.ptr || head_inside(head->authority, buf, len));
    CHECK(!head->host.ptr || head_inside(head->host, buf, len));
    CHECK(!head->content_type.ptr || head_inside(head->content_type, buf, len));
    for (int i = 0; i < head->num_fields; i++)
        head_check_field(&head->fields[i], buf, len);
}

static void head_check_framing(const struct head_run *r) {
    const httpsrv_head *head = &r->d.head;
    bool body = head->chunked || head->content_length > 0;
    CHECK_INT(r->d.parser.phase, body ? HTTPSRV_PHASE_BODY : HTTPSRV_PHASE_DONE);
    CHECK_INT(httpsrv_parse_done(&r->d.parser), !body);
    CHECK_CMP(head->content_length, >=, -1);
    CHECK(!head->chunked || (head->content_length < 0 && head->version_minor > 0));
    CHECK(head->version_minor == 0 || head->host.ptr);
    CHECK(!head->expect_continue || head->version_minor > 0);
    CHECK_CMP(head->num_fields, <=, r->limits && r->limits->headers ? r->limits->headers : MAX_FIELDS);
    if (r->limits) CHECK_CMP(head->content_length, <=, r->limits->body);
}

// ---- one reading ----

static void head_step(struct head_run *r, size_t avail) {
    const char *buf = fuzz_moved(r->d.in->ptr, avail);
    ptrdiff_t n = call_head(&r->d, buf, avail);
    if (n < 0) note_error(&r->d, n, avail);
    if (n < 0) CHECK(fuzz_status_is_known(r->d.parser.status));
    if (n <= 0) return;
    CHECK_CMP(n, <=, avail);
    head_check_views(&r->d.head, buf, (size_t)n);
    head_check_framing(r);
    r->d.start = (size_t)n;
    r->done = true;
}

static void head_read(struct head_run *r, const struct fuzz_input *in, enum fuzz_pace pace,
                      const httpsrv_limits *limits) {
    memset(r, 0, sizeof *r);
    drive_begin(&r->d, &in->text, limits);
    r->limits = limits;
    for (size_t step = 0, avail = 0; avail < in->text.len && !r->done && !r->d.failed; step++) {
        r->before = avail;
        avail = fuzz_next(in, pace, step, avail);
        head_step(r, avail);
    }
    if (r->done || r->d.failed) return;
    CHECK_INT(r->d.parser.phase, HTTPSRV_PHASE_HEAD);
    add_body_fact(&r->d);
    add_fact(&r->d.facts, "more", false);
}

static void head_forget(struct head_run *r) {
    release_facts(&r->d.facts);
    release_bytes(&r->d.body);
}

// ---- comparisons ----

// `bytes` knows at which byte a fault becomes one: no other pace may see it earlier or later.
static void head_check_paces(const struct head_run *bytes, const struct head_run *other) {
    fuzz_same("in another pace, expected as byte by byte", &bytes->d.facts, &other->d.facts);
    CHECK_INT(other->d.start, bytes->d.start);
    CHECK_INT(other->d.parser.phase, bytes->d.parser.phase);
    if (!bytes->d.failed) return;
    CHECK_CMP(other->before, <, bytes->d.failed_at);
    CHECK_CMP(other->d.failed_at, >=, bytes->d.failed_at);
}

// The oracle may see a fault later than the parser, and be short of input by then.
static void head_check_oracle(const struct fuzz_input *in, const struct head_run *r) {
    struct facts facts = {NULL, 0, 0};
    struct oracle o;
    memset(&o, 0, sizeof o);
    o.ptr = o.at = in->text.ptr;
    o.end = in->text.ptr + in->text.len;
    o.facts = &facts;
    if (read_head(&o)) CHECK_INT(o.at - o.ptr, r->d.start);
    if (!fuzz_unfinished(&facts) || !r->d.failed) fuzz_same("expected as the oracle", &facts, &r->d.facts);
    release_facts(&facts);
    release_bytes(&o.body);
}

// Small limits refuse more, and change nothing else.
static void head_check_limits(const struct head_run *wide, const struct head_run *narrow) {
    int status = fuzz_status(&narrow->d.facts);
    if (status == 413 || status == 414 || status == 431) return;
    fuzz_same("with small limits, expected as without", &wide->d.facts, &narrow->d.facts);
}

// Leaves the reading byte by byte in `bytes`.
static void head_read_all(struct head_run *bytes, const struct fuzz_input *in, const httpsrv_limits *limits) {
    struct head_run other;
    head_read(bytes, in, FUZZ_BYTES, limits);
    for (enum fuzz_pace pace = FUZZ_WHOLE; pace < FUZZ_BYTES; pace++) {
        head_read(&other, in, pace, limits);
        head_check_paces(bytes, &other);
        head_forget(&other);
    }
}

static httpsrv_limits head_small_limits(const struct fuzz_input *in) {
    httpsrv_limits limits;
    limits.head = 20 + 4 * (int64_t)(fuzz_control(in, 0) % 64);
    limits.uri = 1 + (int64_t)(fuzz_control(in, 1) % 64);
    limits.headers = 1 + (int)(fuzz_control(in, 2) % 8);
    limits.body = 1 + (int64_t)(fuzz_control(in, 3) % 64);
    return limits;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct fuzz_input in = fuzz_open(data, size);
    httpsrv_limits small = head_small_limits(&in);
    struct head_run wide, narrow;
    if (in.text.len) {
        head_read_all(&wide, &in, NULL);
        head_check_oracle(&in, &wide);
        head_read_all(&narrow, &in, &small);
        head_check_limits(&wide, &narrow);
        head_forget(&wide);
        head_forget(&narrow);
    }
    fuzz_close(&in);
    return 0;
}
