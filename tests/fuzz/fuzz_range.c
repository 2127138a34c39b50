// Range and If-Range of files: which bytes are sent and with which status, compared with a plain reading of RFC 9110
// sections 13.1.5 and 14; the parser of ranges also alone, for representations of any size.
//
// The text's lines are Range, If-Range, Range again, If-Range again; a line that is empty or missing is no field. $E, $W,
// $D, $O, $C in them are the file's entity tag, that as a weak one, its date, and the same in the two obsolete formats.
// Controls: the first says which file, the second whether it is a HEAD request (if it is odd).

#include "serve.h"

#include "../ranges.h"
#include "../tree.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define RANGE_LINES 4
#define RANGE_MTIME 907994 // 11 Jan 1970 12:13:14, before the time of fuzz_clock: no digit of it could be a blank

static const struct entry range_tree[] = {
    {SIZED, "0", NULL, 0},   {SIZED, "1", NULL, 1},     {SIZED, "2", NULL, 2},
    {SIZED, "10", NULL, 10}, {SIZED, "100", NULL, 100}, {SIZED, "3000", NULL, 3000},
};

#define RANGE_FILES ROWS(range_tree)

static const int64_t range_sizes[] = {0, 1, 2, 10, 100, 3000, 4294967296, INT64_MAX - 1, INT64_MAX};

// What has to happen: 200, 206 with these, 416.
struct range_wish {
    int status, num;
    struct byte_range list[HTTPSRV_MAX_RANGES];
};

struct range_setup {
    const struct entry *file;
    bool is_head;
    struct bytes lines[RANGE_LINES]; // Range, If-Range, Range, If-Range
};

static struct range_facts {
    char etag[200];
    char dates[3][64];
} range_facts[RANGE_FILES];

// ---- the files ----

static void range_ask(const struct range_setup *s) {
    static struct bytes request;
    request.len = 0;
    append_text(&request, s->is_head ? "HEAD /" : "GET /");
    append_text(&request, s->file->path);
    append_text(&request, " HTTP/1.1\r\nHost: a\r\n");
    for (int i = 0; i < RANGE_LINES; i++) {
        if (s->lines[i].len == 0) continue;
        append_text(&request, i % 2 ? "If-Range: " : "Range: ");
        append(&request, s->lines[i].ptr, s->lines[i].len);
        append_text(&request, "\r\n");
    }
    append_text(&request, "\r\n");
    fuzz_ask(&request, s->is_head);
}

static void range_learn(size_t i) {
    static const char *const formats[] = {"%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT",
                                          "%a %b %e %H:%M:%S %Y"};
    struct range_setup s;
    struct range_facts *facts = &range_facts[i];
    const time_t mtime = RANGE_MTIME;
    struct tm parts;
    memset(&s, 0, sizeof s);
    s.file = &range_tree[i];
    range_ask(&s);
    CHECK_INT(fuzz_client.status, 200);
    snprintf(facts->etag, sizeof facts->etag, "%s", field(&fuzz_client, "ETag"));
    gmtime_r(&mtime, &parts);
    for (int k = 0; k < 3; k++)
        strftime(facts->dates[k], sizeof facts->dates[k], formats[k], &parts);
    CHECK_STR(field(&fuzz_client, "Last-Modified"), facts->dates[0]);
}

static void range_open(void) {
    httpsrv_files_config config;
    httpsrv *srv = fuzz_serve_new();
    make_tree(range_tree, RANGE_FILES, RANGE_MTIME, 0);
    atexit(remove_tree);
    memset(&config, 0, sizeof config);
    config.root = in_root("");
    CHECK_INT(httpsrv_files(srv, "/", &config), HTTPSRV_OK);
    fuzz_serve(srv);
    for (size_t i = 0; i < RANGE_FILES; i++)
        range_learn(i);
}

// ---- the input ----

static void range_put(struct bytes *out, const struct range_facts *facts, const char *at, const char *end) {
    for (; at < end; at++) {
        char which = *at == '$' && end - at > 1 ? at[1] : 0;
        if (which == 'W') append_text(out, "W/");
        if (which == 'E' || which == 'W') append_text(out, facts->etag);
        if (which == 'D' || which == 'O' || which == 'C')
            append_text(out, facts->dates[which == 'D' ? 0 : which == 'O' ? 1 : 2]);
        if (which && strchr("EWDOC", which))
            at++;
        else
            append(out, at, 1);
    }
}

// Without the blanks around it, as fields are.
static void range_trim(struct bytes *line) {
    size_t first = 0;
    if (!line->ptr) return;
    while (line->len && among(line->ptr[line->len - 1], " \t"))
        line->len--;
    while (first < line->len && among(line->ptr[first], " \t"))
        first++;
    line->len -= first;
    memmove(line->ptr, line->ptr + first, line->len);
    line->ptr[line->len] = 0;
}

// False if a line could not be that of a field.
static bool range_read_input(struct range_setup *s, const struct fuzz_input *in) {
    const char *at = in->text.ptr, *end = at + in->text.len;
    size_t file = fuzz_control(in, 0) % RANGE_FILES;
    memset(s, 0, sizeof *s);
    s->file = &range_tree[file];
    s->is_head = fuzz_control(in, 1) % 2 && in->controls.len > 1;
    for (int line = 0; at < end && line < RANGE_LINES; line++) {
        const char *next = (const char *)memchr(at, '\n', (size_t)(end - at));
        range_put(&s->lines[line], &range_facts[file], at, next ? next : end);
        range_trim(&s->lines[line]);
        at = next ? next + 1 : end;
    }
    for (int line = 0; line < RANGE_LINES; line++)
        for (size_t i = 0; i < s->lines[line].len; i++) {
            const unsigned char c = (unsigned char)s->lines[line].ptr[i];
            if ((c < 32 && c != '\t') || c == 127) return false;
        }
    return true;
}

// ---- plainly: ranges ----

// Numbers that are too large for anything are all the same; -1 for what is none.
static int64_t range_number(httpsrv_str s) {
    if (s.len == 0 || !all_of(s, ORACLE_DIGIT, false)) return -1;
    int64_t n = length_value(s);
    return n < 0 ? INT64_MAX : n;
}

// The ends of what an element asks for: "5-9", "5-", "-9". False if it asks for nothing that makes sense.
static bool range_read_pair(httpsrv_str s, int64_t size, struct byte_range *pair) {
    size_t dash = 0;
    while (dash < s.len && s.ptr[dash] != '-')
        dash++;
    if (dash == s.len) return false;
    httpsrv_str before = {s.ptr, dash}, behind = {s.ptr + dash + 1, s.len - dash - 1};
    int64_t a = range_number(before), b = range_number(behind);
    if ((before.len && a < 0) || (behind.len && b < 0) || (!before.len && !behind.len)) return false;
    pair->first = before.len ? a : b == 0 ? size : b > size ? 0 : size - b;
    pair->last = before.len && behind.len ? b : size - 1;
    if (before.len && behind.len && b < a) return false;
    if (pair->last >= size) pair->last = size - 1;
    return true;
}

static bool range_overlaps(const struct range_wish *w, const struct byte_range *pair) {
    for (int i = 0; i < w->num; i++)
        if (!(w->list[i].last < pair->first || pair->last < w->list[i].first)) return true;
    return false;
}

// Of an element. False if the whole field is to be ignored.
static bool range_read_element(struct range_wish *w, httpsrv_str element, int64_t size) {
    struct byte_range pair;
    if (!range_read_pair(element, size, &pair)) return false;
    if (w->status == 200) w->status = 416;
    if (pair.first >= size) return true; // nothing of it is there
    if (w->num == HTTPSRV_MAX_RANGES || range_overlaps(w, &pair)) return false;
    w->status = 206;
    w->list[w->num++] = pair;
    return true;
}

// Of something empty no range can be told: it goes whole.
static struct range_wish range_read(httpsrv_str value, int64_t size) {
    struct range_wish w, ignored;
    memset(&w, 0, sizeof w);
    w.status = 200;
    ignored = w;
    if (size == 0 || value.len < 6 || strncasecmp(value.ptr, "bytes=", 6) != 0) return ignored;
    for (size_t i = 6; i <= value.len; i++) {
        struct bytes element = {NULL, 0, 0};
        append(&element, "", 0);
        for (; i < value.len && value.ptr[i] != ','; i++)
            append(&element, value.ptr + i, 1);
        range_trim(&element);
        bool fine = element.len == 0 || range_read_element(&w, hsrv_text_view(element.ptr, element.len), size);
        release_bytes(&element);
        if (!fine) return ignored;
    }
    return w;
}

// ---- plainly: conditions ----

// The names of days have to be there but tell nothing.
static bool range_is_date(const char *text, const char *date) {
    const char *here = strchr(text, ','), *there = strchr(date, ',');
    if (!here != !there) return false;
    if (here) return strcmp(here, there) == 0;
    return strlen(text) == strlen(date) && strcmp(text + 3, date + 3) == 0;
}

static bool range_condition_holds(const char *text, const struct range_facts *facts) {
    if (strcmp(text, facts->etag) == 0) return true;
    if (text[0] == '"' || (text[0] && text[1] == '/')) return false; // a tag, or nearly one, is no date
    for (int i = 0; i < 3; i++)
        if (range_is_date(text, facts->dates[i])) return true;
    return false;
}

// A field that is there twice is a list, which neither of them may be.
static struct range_wish range_expected(const struct range_setup *s) {
    const struct bytes *range = &s->lines[s->lines[0].len ? 0 : 2], *condition = &s->lines[s->lines[1].len ? 1 : 3];
    struct range_wish whole;
    memset(&whole, 0, sizeof whole);
    whole.status = 200;
    if (s->is_head || range->len == 0) return whole;
    if (s->lines[0].len && s->lines[2].len) return whole;
    if (s->lines[1].len && s->lines[3].len) return whole;
    if (condition->len && !range_condition_holds(condition->ptr, &range_facts[s->file - range_tree])) return whole;
    return range_read(hsrv_text_view(range->ptr, range->len), s->file->size);
}

// ---- comparisons ----

// The parser alone, on a value with nothing behind it.
static void range_check_parser(httpsrv_str value) {
    for (size_t i = 0; i < ROWS(range_sizes); i++) {
        hsrv_span spans[HTTPSRV_MAX_RANGES];
        httpsrv_str copy = {fuzz_moved(value.ptr, value.len), value.len};
        struct range_wish w = range_read(value, range_sizes[i]);
        NOTE("of %" PRId64 " bytes", range_sizes[i]);
        CHECK_INT(hsrv_frames_parse_ranges(copy, range_sizes[i], spans), w.status == 416 ? -1 : w.num);
        for (int k = 0; k < w.num; k++) {
            CHECK_INT(spans[k].first, w.list[k].first);
            CHECK_INT(spans[k].len, w.list[k].last - w.list[k].first + 1);
        }
    }
    NOTE("%s", "");
}

static void range_check_answer(const struct range_setup *s, const struct range_wish *w) {
    struct client *c = &fuzz_client;
    char nothing[100];
    CHECK_INT(c->status, w->status);
    snprintf(nothing, sizeof nothing, "bytes */%" PRId64, s->file->size);
    if (w->status == 416) CHECK_STR(field(c, "Content-Range"), nothing);
    if (w->status == 206) check_ranges(c, content_of(s->file->path), w->list, w->num);
    if (w->status != 200) return;
    CHECK(!field(c, "Content-Range"));
    CHECK_INT(c->length, s->file->size);
    if (!s->is_head) CHECK_MEM(c->body, c->body_len, content, (size_t)s->file->size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct fuzz_input in = fuzz_open(data, size);
    struct range_setup s;
    if (!fuzz_server) range_open();
    if (range_read_input(&s, &in)) {
        struct range_wish wish = range_expected(&s);
        range_check_parser(hsrv_text_view(s.lines[0].ptr ? s.lines[0].ptr : "", s.lines[0].len));
        range_ask(&s);
        range_check_answer(&s, &wish);
    }
    for (int i = 0; i < RANGE_LINES; i++)
        release_bytes(&s.lines[i]);
    fuzz_close(&in);
    return 0;
}
