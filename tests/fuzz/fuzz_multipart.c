// A multipart body: taken apart whole, in pieces and byte by byte, each piece at a new place. All readings agree with
// each other and with a slow one that sees the whole body at once.
//
// Controls: the first is a digit for the limit on parts (mp_parts), the second one for their size (mp_sizes), the third
// says which part the call-back refuses and at which of its steps (mp_refusal); from the fourth on the sizes of the
// pieces. The text's first line, up to a line feed, is the Content-Type, the rest is the body.

#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MP_SETTINGS 3                   // control bytes that are no sizes
#define MP_REFUSED  ((httpsrv_result)1) // what the call-back says to end the reading

static const int mp_parts[] = {0, -1, 1, 2, 3, HTTPSRV_ZERO};
static const int64_t mp_sizes[] = {0, -1, 1, 2, 5, 20, HTTPSRV_ZERO, INT64_MAX};

struct mp_setup {
    httpsrv_form_config config;
    int64_t most_parts, most_bytes; // what its limits mean
    int refused_part;               // -1: none
    httpsrv_part_step refused_step;
    httpsrv_str type, body;
};

static void mp_refusal(struct mp_setup *s, unsigned control) {
    s->refused_part = control % 4 == 3 ? (int)(control / 4 % 3) : -1;
    s->refused_step = (httpsrv_part_step)(control / 16 % 3);
}

static int64_t mp_limit(int64_t value, int64_t otherwise) {
    if (value == HTTPSRV_ZERO) return 0;
    return value < 0 ? INT64_MAX : value == 0 ? otherwise : value;
}

static struct mp_setup mp_plan(const struct fuzz_input *in) {
    struct mp_setup s;
    const char *end = (const char *)memchr(in->text.ptr, '\n', in->text.len);
    size_t len = end ? (size_t)(end - in->text.ptr) : in->text.len, skipped = end ? len + 1 : len;
    memset(&s, 0, sizeof s);
    s.config.parts = mp_parts[fuzz_control(in, 0) % 6];
    s.config.size = mp_sizes[fuzz_control(in, 1) % 8];
    s.most_parts = mp_limit(s.config.parts, 64);
    s.most_bytes = mp_limit(s.config.size, INT64_MAX);
    mp_refusal(&s, fuzz_control(in, 2));
    s.type.ptr = in->text.ptr;
    s.type.len = len;
    s.body.ptr = in->text.ptr + skipped;
    s.body.len = in->text.len - skipped;
    return s;
}

// ---- what was found ----

// Parts that are complete are facts. How much of an unfinished one arrives before an error depends on the pieces, so
// that its data is kept apart. Where the pieces decide which of two errors comes first, there are two results.
struct mp_run {
    struct facts facts;
    struct bytes open; // data of the part at hand
    bool within;
    int parts; // begun
    httpsrv_result result, other;
    const struct mp_setup *setup;
};

static void mp_add_part(struct facts *f, const httpsrv_part *part) {
    add_view(f, "name", false, part->name);
    add_view(f, "filename", false, part->filename);
    add_view(f, "type", false, part->type);
}

static void mp_begin(struct mp_run *r, const httpsrv_part *part) {
    r->within = true;
    r->parts++;
    r->open.len = 0;
    append(&r->open, "", 0);
    mp_add_part(&r->facts, part);
}

static void mp_finish(struct mp_run *r) {
    append(add_fact(&r->facts, "data", false), r->open.ptr, r->open.len);
    r->within = false;
}

static void mp_forget(struct mp_run *r) {
    release_facts(&r->facts);
    release_bytes(&r->open);
}

// ---- one reading by the parser ----

static void mp_check_step(const struct mp_run *r, const httpsrv_part *part, httpsrv_part_step step, httpsrv_str data) {
    CHECK_INT(r->result, HTTPSRV_OK); // no call after one that was refused
    CHECK_INT(r->within, step != HTTPSRV_PART_BEGIN);
    CHECK_INT(data.len > 0, step == HTTPSRV_PART_DATA);
    CHECK(part->name.ptr && !part->data.ptr && part->fd == -1);
    if (step != HTTPSRV_PART_DATA) CHECK_INT(part->size, step == HTTPSRV_PART_END ? r->open.len : 0);
}

static httpsrv_result mp_take(const httpsrv_part *part, httpsrv_part_step step, httpsrv_str data, void *user) {
    struct mp_run *r = (struct mp_run *)user;
    const struct mp_setup *s = r->setup;
    mp_check_step(r, part, step, data);
    if (step == HTTPSRV_PART_BEGIN) mp_begin(r, part);
    if (step == HTTPSRV_PART_DATA) append_view(&r->open, data);
    CHECK_CMP(r->open.len, <=, s->most_bytes);
    if (r->parts - 1 == s->refused_part && step == s->refused_step) return r->result = MP_REFUSED;
    if (step == HTTPSRV_PART_END) mp_finish(r);
    return HTTPSRV_OK;
}

static void mp_read(struct mp_run *r, const struct fuzz_input *in, const struct mp_setup *s, enum fuzz_pace pace) {
    static httpsrv_multipart m;
    httpsrv_form_config config = s->config;
    size_t skipped = in->text.len - s->body.len;
    memset(&m, 0xa5, sizeof m);
    memset(r, 0, sizeof *r);
    r->setup = s;
    config.on_part = mp_take;
    config.user = r;
    httpsrv_result result = httpsrv_multipart_init(&m, s->type, &config);
    for (size_t step = MP_SETTINGS, at = skipped, next; result == HTTPSRV_OK && at < in->text.len; step++, at = next) {
        next = fuzz_next(in, pace, step, at);
        httpsrv_str piece = {fuzz_moved(in->text.ptr + at, next - at), next - at};
        result = httpsrv_multipart_feed(&m, piece);
    }
    if (result == HTTPSRV_OK) result = httpsrv_multipart_end(&m);
    if (r->result) CHECK_INT(result, r->result);
    r->result = result;
}

// ---- slowly: the whole text at once, byte by byte, nothing remembered ----

struct mp_slow {
    const char *at, *end;
    struct bytes dash; // "--" boundary
    struct mp_run *run;
};

static void mp_stop(struct mp_slow *o, httpsrv_result result) {
    if (o->run->result == HTTPSRV_OK) o->run->result = result;
}

static bool mp_starts(const char *at, const char *end, const char *with, size_t len) {
    return (size_t)(end - at) >= len && memcmp(at, with, len) == 0;
}

static const char *mp_past_blanks(const char *at, const char *end) {
    while (at < end && (*at == ' ' || *at == '\t'))
        at++;
    return at;
}

static bool mp_is(httpsrv_str s, const char *word) {
    return s.len == strlen(word) && strncasecmp(s.ptr, word, s.len) == 0;
}

// The word at `at`; of a quoted one what it stands for. NULL if it is none, else what is behind it.
static const char *mp_word(const char *at, const char *end, struct bytes *out) {
    append(out, "", 0);
    if (at == end || *at != '"') {
        for (; at < end && among(*at, ORACLE_TCHAR); at++)
            append(out, at, 1);
        return out->len ? at : NULL;
    }
    for (at++; at < end && *at != '"'; at++) {
        if (*at == '\\' && end - at > 1 && (at[1] == '"' || at[1] == '\\')) at++;
        if (((unsigned char)*at < 32 && *at != '\t') || *at == 127) return NULL;
        append(out, at, 1);
    }
    return at < end ? at + 1 : NULL;
}

struct mp_parameters {
    struct bytes first, second; // the values of the two names that are looked for
    bool has_first, has_second;
};

static bool mp_note(struct bytes *value, bool *has, struct bytes *word) {
    if (*has) return false; // twice
    *has = true;
    append(value, word->ptr, word->len);
    return true;
}

// The parameter at `at`. NULL if it is none, else what is behind it.
static const char *mp_read_parameter(const char *at, const char *end, const char *first, const char *second,
                                     struct mp_parameters *p) {
    struct bytes word = {NULL, 0, 0};
    httpsrv_str name = {at, 0};
    while (name.ptr + name.len < end && among(name.ptr[name.len], ORACLE_TCHAR))
        name.len++;
    at = name.ptr + name.len;
    if (name.len == 0 || at == end || *at != '=') return NULL;
    at = mp_word(at + 1, end, &word);
    if (at && mp_is(name, first) && !mp_note(&p->first, &p->has_first, &word)) at = NULL;
    if (at && mp_is(name, second) && !mp_note(&p->second, &p->has_second, &word)) at = NULL;
    release_bytes(&word);
    return at;
}

// RFC 9110 section 5.6.6: *( OWS ";" OWS [ name "=" value ] ) OWS
static bool mp_read_parameters(const char *at, const char *end, const char *first, const char *second,
                               struct mp_parameters *p) {
    for (at = mp_past_blanks(at, end); at < end; at = mp_past_blanks(at, end)) {
        if (*at != ';') return false;
        at = mp_past_blanks(at + 1, end);
        if (at == end || *at == ';') continue;
        at = mp_read_parameter(at, end, first, second, p);
        if (!at) return false;
    }
    return true;
}

static void mp_forget_parameters(struct mp_parameters *p) {
    release_bytes(&p->first);
    release_bytes(&p->second);
}

static bool mp_is_boundary(const struct bytes *b) {
    for (size_t i = 0; i < b->len; i++)
        if (!among(b->ptr[i], ORACLE_ALPHA ORACLE_DIGIT "'()+_,-./:=? ")) return false;
    return b->len >= 1 && b->len <= 70 && b->ptr[b->len - 1] != ' ';
}

static httpsrv_result mp_read_type(struct mp_slow *o, httpsrv_str type) {
    struct mp_parameters p;
    const char *end = type.ptr + type.len;
    httpsrv_str name = {mp_past_blanks(type.ptr, end), 0};
    memset(&p, 0, sizeof p);
    while (name.ptr + name.len < end && !among(name.ptr[name.len], "; \t"))
        name.len++;
    const char *rest = mp_past_blanks(name.ptr + name.len, end);
    bool alone = rest == end || *rest == ';';
    if (!mp_is(name, "multipart/form-data") || !alone) return HTTPSRV_UNSUPPORTED;
    bool fine = mp_read_parameters(rest, end, "boundary", "", &p) && p.has_first;
    fine = fine && mp_is_boundary(&p.first);
    append_text(&o->dash, "--");
    if (fine) append(&o->dash, p.first.ptr, p.first.len);
    mp_forget_parameters(&p);
    return fine ? HTTPSRV_OK : HTTPSRV_SYNTAX;
}

// One line of a part's head, without its end. False if it is none.
static bool mp_read_line(httpsrv_str line, httpsrv_part *part, struct mp_parameters *p) {
    httpsrv_str name = {line.ptr, 0}, value;
    for (size_t i = 0; i < line.len; i++)
        if (((unsigned char)line.ptr[i] < 32 && line.ptr[i] != '\t') || line.ptr[i] == 127) return false;
    while (name.len < line.len && among(line.ptr[name.len], ORACLE_TCHAR))
        name.len++;
    if (name.len == 0 || name.len == line.len || line.ptr[name.len] != ':') return false;
    value.ptr = mp_past_blanks(line.ptr + name.len + 1, line.ptr + line.len);
    value.len = (size_t)(line.ptr + line.len - value.ptr);
    while (value.len && among(value.ptr[value.len - 1], " \t"))
        value.len--;
    if (mp_is(name, "Content-Type")) {
        if (part->type.ptr) return false;
        part->type = value;
    }
    if (!mp_is(name, "Content-Disposition")) return true;
    if (p->has_first || value.len < 9) return false;
    httpsrv_str kind = {value.ptr, 9};
    return mp_is(kind, "form-data") &&
           mp_read_parameters(value.ptr + 9, value.ptr + value.len, "name", "filename", p) && p->has_first;
}

// The lines from o->at to `end`, which is behind the last line end.
static bool mp_read_lines(struct mp_slow *o, const char *end, httpsrv_part *part, struct mp_parameters *p) {
    while (o->at < end) {
        httpsrv_str line = {o->at, 0};
        while (!mp_starts(line.ptr + line.len, end, "\r\n", 2))
            line.len++;
        if (!mp_read_line(line, part, p)) return false;
        o->at = line.ptr + line.len + 2;
    }
    return p->has_first;
}

static bool mp_enter_part(struct mp_slow *o, const char *end) {
    httpsrv_part part;
    struct mp_parameters p;
    const struct mp_setup *s = o->run->setup;
    bool full = o->run->parts >= s->most_parts;
    memset(&part, 0, sizeof part);
    memset(&p, 0, sizeof p);
    bool fine = mp_read_lines(o, end, &part, &p);
    part.name.ptr = p.first.ptr;
    part.name.len = p.first.len;
    part.filename.ptr = p.has_second ? p.second.ptr : NULL;
    part.filename.len = p.second.len;
    if (fine && !full) mp_begin(o->run, &part);
    if (!fine || full) mp_stop(o, fine ? HTTPSRV_TOOBIG : HTTPSRV_SYNTAX);
    if (!fine && full) o->run->other = HTTPSRV_TOOBIG;
    mp_forget_parameters(&p);
    return fine && !full;
}

// The fields before a part, up to and with the empty line.
static bool mp_read_head(struct mp_slow *o) {
    const char *end = o->at;
    while (end < o->end && !mp_starts(end, o->end, end == o->at ? "\r\n" : "\r\n\r\n", end == o->at ? 2 : 4))
        end++;
    size_t empty = end == o->at ? 2 : 4, len = end < o->end ? (size_t)(end - o->at) + empty : (size_t)(end - o->at);
    if (len > HTTPSRV_PART_HEAD || end == o->end) {
        mp_stop(o, len > HTTPSRV_PART_HEAD ? HTTPSRV_TOOBIG : HTTPSRV_SYNTAX);
        o->run->other = HTTPSRV_SYNTAX; // malformed as well, perhaps
        return false;
    }
    end += empty - 2;
    if (!mp_enter_part(o, end)) return false;
    o->at = end; // at the empty line
    return true;
}

// Where the next delimiter begins: its dashes, at the beginning of a line. NULL without one.
static const char *mp_find(const struct mp_slow *o, const char *from, bool line_begins) {
    for (const char *at = from; at < o->end; at++) {
        bool begins = at == from ? line_begins : at - from >= 2 && at[-2] == '\r' && at[-1] == '\n';
        if (begins && mp_starts(at, o->end, o->dash.ptr, o->dash.len)) return at;
    }
    return NULL;
}

// How many of the last bytes may still become a delimiter.
static size_t mp_held(const struct mp_slow *o, const char *from) {
    struct bytes delimiter = {NULL, 0, 0};
    size_t held = 0;
    append_text(&delimiter, "\r\n");
    append(&delimiter, o->dash.ptr, o->dash.len);
    for (size_t n = 1; n < delimiter.len && n <= (size_t)(o->end - from); n++)
        if (memcmp(o->end - n, delimiter.ptr, n) == 0) held = n;
    release_bytes(&delimiter);
    return held;
}

static bool mp_refuses(const struct mp_run *r, httpsrv_part_step step) {
    return r->parts - 1 == r->setup->refused_part && step == r->setup->refused_step;
}

// The data from the empty line at o->at on, which may itself be the line end of the delimiter.
static bool mp_read_data(struct mp_slow *o) {
    struct mp_run *r = o->run;
    const char *data = o->at + 2, *next = mp_find(o, o->at + 2, true);
    const char *end = next ? next - 2 : o->end - mp_held(o, o->at);
    size_t len = end > data ? (size_t)(end - data) : 0;
    bool large = (int64_t)len > r->setup->most_bytes;
    append(&r->open, data, len);
    if (mp_refuses(r, HTTPSRV_PART_BEGIN)) mp_stop(o, MP_REFUSED);
    if (mp_refuses(r, HTTPSRV_PART_DATA) && len) mp_stop(o, MP_REFUSED);
    if (mp_refuses(r, HTTPSRV_PART_DATA) && large) r->other = HTTPSRV_TOOBIG;
    if (large) mp_stop(o, HTTPSRV_TOOBIG);
    if (!next) mp_stop(o, HTTPSRV_SYNTAX);
    if (mp_refuses(r, HTTPSRV_PART_END)) mp_stop(o, MP_REFUSED);
    if (r->result == HTTPSRV_OK) mp_finish(r);
    o->at = next;
    return r->result == HTTPSRV_OK;
}

// Behind the dashes and the boundary. True if a part follows.
static bool mp_read_delimiter(struct mp_slow *o) {
    o->at += o->dash.len;
    bool last = mp_starts(o->at, o->end, "--", 2);
    o->at = mp_past_blanks(o->at + (last ? 2 : 0), o->end);
    if (last && o->at == o->end) return false;
    if (!mp_starts(o->at, o->end, "\r\n", 2)) mp_stop(o, HTTPSRV_SYNTAX);
    o->at += 2;
    return !last && o->run->result == HTTPSRV_OK;
}

static void mp_read_slowly(struct mp_run *r, const struct mp_setup *s) {
    struct mp_slow o;
    memset(r, 0, sizeof *r);
    memset(&o, 0, sizeof o);
    r->setup = s;
    o.run = r;
    o.end = s->body.ptr + s->body.len;
    r->result = mp_read_type(&o, s->type);
    o.at = r->result == HTTPSRV_OK ? mp_find(&o, s->body.ptr, true) : NULL;
    if (!o.at) mp_stop(&o, HTTPSRV_SYNTAX);
    while (r->result == HTTPSRV_OK && mp_read_delimiter(&o)) {
        if (mp_read_head(&o)) mp_read_data(&o);
    }
    release_bytes(&o.dash);
}

// ---- comparisons ----

static void mp_check(const char *how, const struct mp_run *expected, const struct mp_run *actual) {
    fuzz_same(how, &expected->facts, &actual->facts);
    CHECK_INT(actual->within, expected->within);
    if (actual->result != expected->result) CHECK_INT(actual->result, expected->other);
    if (!actual->within) return;
    CHECK_CMP(actual->open.len, <=, expected->open.len);
    CHECK(actual->open.len == 0 || memcmp(actual->open.ptr, expected->open.ptr, actual->open.len) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const how[] = {"whole, expected as slowly", "in pieces, expected as slowly",
                                      "byte by byte, expected as slowly"};
    struct fuzz_input in = fuzz_open(data, size);
    struct mp_setup setup = mp_plan(&in);
    struct mp_run slow, fast;
    mp_read_slowly(&slow, &setup);
    for (int pace = 0; pace < FUZZ_PACES; pace++) {
        mp_read(&fast, &in, &setup, (enum fuzz_pace)pace);
        mp_check(how[pace], &slow, &fast);
        mp_forget(&fast);
    }
    mp_forget(&slow);
    fuzz_close(&in);
    return 0;
}
