// Documents of cases: what tests/cases/README.md describes, as tests. Read by test_cases.c, to which the protocol's
// cases belong, and by test_file_cases.c, to which those of files do ("file-...").
//
// Each heading is a test, each row of its `each` block a case of it.
// Include it after httpsrv.h with HTTPSRV_IMPLEMENTATION, with TEST_NO_MAIN; the includer defines run_scenario and has a
// main that calls run_documents.

#ifndef TEST_DOCUMENTS_H
#define TEST_DOCUMENTS_H

#include "drive.h"
#include "server.h"
#include <dirent.h>

#define MAX_CELLS 9
#define MAX_LINES 120

static void run_scenario(void);

// What an escape of one letter stands for that only some documents have; NULL: there is no such escape.
static const char *escape_texts[128];

// Looks at lines about an answer that only some documents have; NULL: nobody does.
static void (*check_more_lines)(const struct client *c, const char *key, const char *value);

// ---- documents ----

struct slice {
    const char *ptr;
    size_t len;
};

struct scenario {
    struct test test; // its place in the harness; comes first
    char file[100];   // without its directory
    int line;         // of the heading
    char name[160];
    struct slice http, each, expect; // ptr == NULL: not there
    bool reason;                     // a section of an RFC was named, or a class of weaknesses
};

__attribute__((noreturn)) TEST_FN void bad_document(const char *file, int line, const char *what) {
    fprintf(stderr, "%s:%d: %s\n", file, line, what);
    exit(2);
}

TEST_FN bool take_line(struct slice *from, struct slice *line) {
    const char *end;
    if (from->len == 0) return false;
    end = (const char *)memchr(from->ptr, '\n', from->len);
    line->ptr = from->ptr;
    line->len = end ? (size_t)(end - from->ptr) : from->len;
    from->ptr += line->len + (end ? 1 : 0);
    from->len -= line->len + (end ? 1 : 0);
    return true;
}

TEST_FN bool starts_with(struct slice line, const char *text) {
    size_t len = strlen(text);
    return line.len >= len && memcmp(line.ptr, text, len) == 0;
}

static const struct scenario *current; // the one that runs

// Behind the others.
TEST_FN void add_scenario(struct scenario *s, void (*run)(void)) {
    s->test.name = s->name;
    s->test.run = run;
    s->test.next = NULL;
    *test_last = &s->test;
    test_last = &s->test.next;
}

TEST_FN struct scenario *new_scenario(const char *file, int number, struct slice line) {
    struct scenario *s = (struct scenario *)calloc(1, sizeof *s);
    const char *base = strrchr(file, '/');
    CHECK(s != NULL);
    snprintf(s->file, sizeof s->file, "%s", base ? base + 1 : file);
    s->line = number;
    snprintf(s->name, sizeof s->name, "%s:%d %.*s", s->file, number, (int)line.len - 3, line.ptr + 3);
    add_scenario(s, run_scenario);
    return s;
}

TEST_FN void check_scenario(const struct scenario *s) {
    if (!s) return;
    if (!s->http.ptr || !s->expect.ptr) bad_document(s->file, s->line, "a case needs http and expect");
    if (!s->reason) bad_document(s->file, s->line, "a case needs a reason that names an RFC, a CWE or a CVE");
}

// The block that a fence opens, or NULL.
TEST_FN struct slice *opened_block(struct scenario *s, struct slice line) {
    if (starts_with(line, "```http")) return &s->http;
    if (starts_with(line, "```each")) return &s->each;
    if (starts_with(line, "```expect")) return &s->expect;
    return NULL;
}

TEST_FN bool gives_reason(struct slice line) {
    static const char *const marks[] = {"RFC ", "CWE-", "CVE-"};
    for (size_t i = 0; i < ROWS(marks); i++)
        if (memmem(line.ptr, line.len, marks[i], 4)) return true;
    return false;
}

TEST_FN void load_text(const char *file, struct slice text) {
    struct scenario *s = NULL;
    struct slice line, *block = NULL;
    for (int number = 1; take_line(&text, &line); number++) {
        bool fence = starts_with(line, "```");
        if (line.len && strchr(" \t\r", line.ptr[line.len - 1])) bad_document(file, number, "blank at the end");
        if (block && fence) {
            block = NULL;
        } else if (block) {
            block->len = (size_t)(line.ptr + line.len + 1 - block->ptr);
        } else if (fence) {
            block = s ? opened_block(s, line) : NULL;
            if (!block || block->ptr) bad_document(file, number, "unknown block, or there already");
            block->ptr = text.ptr;
        } else if (starts_with(line, "## ")) {
            check_scenario(s);
            s = new_scenario(file, number, line);
        } else if (s) {
            s->reason = s->reason || gives_reason(line);
        }
    }
    if (!s || block) bad_document(file, 0, "no case, or a block without end");
    check_scenario(s);
}

// The text stays for good: the cases point into it.
TEST_FN void load_file(const char *path) {
    struct bytes text = {NULL, 0, 0};
    struct slice whole;
    char part[4096];
    size_t n;
    FILE *in = fopen(path, "rb");
    if (!in) bad_document(path, 0, strerror(errno));
    while ((n = fread(part, 1, sizeof part, in)) > 0)
        append(&text, part, n);
    fclose(in);
    whole.ptr = text.ptr;
    whole.len = text.len;
    if (memchr(text.ptr, 0, text.len)) bad_document(path, 0, "NUL in a document");
    load_text(path, whole);
}

static const char *document_prefix; // of the names of those that are read, "!" for all others

TEST_FN bool is_ours(const char *name) {
    bool others = document_prefix[0] == '!';
    return others != (strncmp(name, document_prefix + others, strlen(document_prefix) - others) == 0);
}

TEST_FN int is_document(const struct dirent *entry) {
    size_t len = strlen(entry->d_name);
    return len > 3 && strcmp(entry->d_name + len - 3, ".md") == 0 && strcmp(entry->d_name, "README.md") != 0 &&
           is_ours(entry->d_name);
}

// $TEST_CASES, or the folder beside this source.
TEST_FN void load_folder(void) {
    static const char source[] = __FILE__;
    const char *slash = strrchr(source, '/');
    char folder[1024], path[2048];
    struct dirent **entries;
    int n;
    snprintf(folder, sizeof folder, "%.*scases", slash ? (int)(slash + 1 - source) : 0, source);
    if (getenv("TEST_CASES")) snprintf(folder, sizeof folder, "%s", getenv("TEST_CASES"));
    n = scandir(folder, &entries, is_document, alphasort);
    if (n <= 0) bad_document(folder, 0, "no documents here");
    for (int i = 0; i < n; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, entries[i]->d_name);
        load_file(path);
        free(entries[i]);
    }
    free(entries);
}

// ---- from the text of a block to bytes ----

// Puts the cells of the row into the text, before anything else is looked at.
TEST_FN void substitute(struct slice text, const struct slice *cells, int num_cells, struct bytes *out) {
    for (size_t i = 0; i < text.len; i++) {
        const char *at = text.ptr + i;
        size_t left = text.len - i, skip = 0;
        int cell = 0;
        if (*at == '\\' && left > 1) {
            append(out, at, 2);
            i++;
            continue;
        }
        if (left >= 2 && at[0] == '{' && at[1] == '}') skip = 2;
        if (left >= 3 && at[0] == '{' && at[1] >= '1' && at[1] <= '9' && at[2] == '}') {
            skip = 3;
            cell = at[1] - '1';
        }
        if (skip && cell >= num_cells) FAIL("the row has no cell %d", cell + 1);
        append(out, skip ? cells[cell].ptr : at, skip ? cells[cell].len : 1);
        i += skip ? skip - 1 : 0;
    }
}

// One escape; `in` stands behind the backslash.
TEST_FN void expand_escape(struct slice *in, struct bytes *out, ptrdiff_t *mark) {
    static const char names[] = "rnts\\{", bytes[] = "\r\n\t \\{";
    const char *name;
    char byte;
    if (in->len == 0) FAIL("backslash at the end");
    name = strchr(names, *in->ptr);
    byte = *in->ptr++;
    in->len--;
    if (name && byte) {
        append(out, bytes + (name - names), 1);
    } else if (byte == 'x' && in->len >= 2) {
        byte = (char)(hex_value(in->ptr[0]) * 16 + hex_value(in->ptr[1]));
        append(out, &byte, 1);
        in->ptr += 2;
        in->len -= 2;
    } else if (byte == '!') {
        CHECK_INT(*mark, -1);
        *mark = (ptrdiff_t)out->len;
    } else if (byte > 0 && escape_texts[(int)byte]) {
        append_text(out, escape_texts[(int)byte]);
    } else if (byte != 'e') {
        FAIL("unknown escape: \\%c", byte);
    }
}

TEST_FN void expand_one(struct slice *in, struct bytes *out, ptrdiff_t *mark) {
    char byte = *in->ptr++;
    in->len--;
    if (byte == '\\')
        expand_escape(in, out, mark);
    else
        append(out, &byte, 1);
}

// The count of "*12}", or -1 where something else stands.
TEST_FN long repeat_count(struct slice in) {
    char *end;
    long count;
    if (in.len < 3 || in.ptr[0] != '*' || in.ptr[1] < '0' || in.ptr[1] > '9') return -1;
    count = strtol(in.ptr + 1, &end, 10);
    return *end == '}' ? count : -1;
}

// "{text*12}"; `in` stands behind the brace.
TEST_FN void expand_repeat(struct slice *in, struct bytes *out, ptrdiff_t *mark) {
    struct bytes text = {NULL, 0, 0};
    const char *end;
    long count;
    while ((count = repeat_count(*in)) < 0) {
        if (in->len == 0) FAIL("a repetition without end");
        expand_one(in, &text, mark);
    }
    while (count-- > 0)
        append(out, text.ptr, text.len);
    end = strchr(in->ptr, '}') + 1;
    in->len -= (size_t)(end - in->ptr);
    in->ptr = end;
    release_bytes(&text);
}

TEST_FN void expand(struct slice in, struct bytes *out, ptrdiff_t *mark) {
    append(out, "", 0);
    while (in.len) {
        if (*in.ptr != '{') {
            expand_one(&in, out, mark);
            continue;
        }
        in.ptr++;
        in.len--;
        expand_repeat(&in, out, mark);
    }
}

// Whether an odd number of backslashes ends the line.
TEST_FN bool ends_open(struct slice line) {
    size_t n = 0;
    while (n < line.len && line.ptr[line.len - 1 - n] == '\\')
        n++;
    return n % 2 == 1;
}

// ---- a case: one row of a scenario ----

struct expected { // one line of an expect block
    char key[24];
    struct bytes value;
};

struct row {
    struct bytes input;
    ptrdiff_t mark; // bytes that are there when the refusal comes, -1: anywhere
    struct expected lines[MAX_LINES];
    int num_lines;
    bool parser, server; // which of them it is about
};

TEST_FN bool is_server_key(const char *key) {
    static const char *const keys[] = {"answer",   "says", "holds", "lacks", "with", "without",
                                       "continue", "open", "close", "cut",   "file", "parts"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (strcmp(key, keys[i]) == 0) return true;
    return false;
}

TEST_FN void add_line(struct row *row, struct slice line) {
    struct expected *e = &row->lines[row->num_lines++];
    const char *space = (const char *)memchr(line.ptr, ' ', line.len);
    size_t len = space ? (size_t)(space - line.ptr) : line.len;
    ptrdiff_t mark = -1;
    CHECK_CMP(row->num_lines, <=, MAX_LINES);
    CHECK_CMP(len, <, sizeof e->key);
    memset(e, 0, sizeof *e);
    memcpy(e->key, line.ptr, len);
    line.ptr += len + (space ? 1 : 0);
    line.len -= len + (space ? 1 : 0);
    expand(line, &e->value, &mark);
    CHECK_INT(mark, -1);
    row->server |= is_server_key(e->key);
    row->parser |= !is_server_key(e->key);
}

// A refusal stands for the answer too, unless the document says more.
TEST_FN void add_refusal(struct row *row) {
    char answer[] = "answer 400", close[] = "close";
    struct slice line = {answer, sizeof answer - 1}, last = {close, sizeof close - 1};
    const struct expected *e = &row->lines[row->num_lines - 1];
    if (row->num_lines == 0 || strcmp(e->key, "error") != 0) return;
    CHECK_CMP(e->value.len, >=, 3);
    memcpy(answer + 7, e->value.ptr, 3);
    add_line(row, line);
    add_line(row, last);
}

TEST_FN void make_input(struct row *row, struct slice text) {
    struct slice line;
    while (take_line(&text, &line)) {
        bool open = ends_open(line);
        line.len -= open;
        expand(line, &row->input, &row->mark);
        append(&row->input, "\r\n", open ? 0 : 2);
    }
}

TEST_FN struct slice slice_of(const struct bytes *b) {
    struct slice s = {b->ptr, b->len};
    return s;
}

TEST_FN void make_row(struct row *row, const struct scenario *s, const struct slice *cells, int num_cells) {
    struct bytes http = {NULL, 0, 0}, expect = {NULL, 0, 0};
    struct slice rest, line;
    memset(row, 0, sizeof *row);
    row->mark = -1;
    substitute(s->http, cells, num_cells, &http);
    substitute(s->expect, cells, num_cells, &expect);
    make_input(row, slice_of(&http));
    rest = slice_of(&expect);
    while (take_line(&rest, &line))
        add_line(row, line);
    add_refusal(row);
    CHECK_CMP(row->num_lines, >, 0);
    release_bytes(&http);
    release_bytes(&expect);
}

TEST_FN void release_row(struct row *row) {
    for (int i = 0; i < row->num_lines; i++)
        release_bytes(&row->lines[i].value);
    release_bytes(&row->input);
}

TEST_FN int split_cells(struct slice line, struct slice *cells) {
    int n = 0;
    for (;;) {
        const char *bar = (const char *)memmem(line.ptr, line.len, " | ", 3);
        CHECK_CMP(n, <, MAX_CELLS);
        cells[n].ptr = line.ptr;
        cells[n].len = bar ? (size_t)(bar - line.ptr) : line.len;
        line.ptr += cells[n].len + 3;
        line.len -= cells[n++].len + (bar ? 3 : 0);
        if (!bar) return n;
    }
}

TEST_FN bool ends_message(const char *key) {
    return strcmp(key, "done") == 0 || strcmp(key, "more") == 0 || strcmp(key, "error") == 0;
}

// ---- the client ----

// The last four: in two pieces, the second of which the server reads behind the first.
enum pace { AT_ONCE, BYTE_BY_BYTE, WAITING, CUT_AT_A_QUARTER, CUT_AT_HALF, CUT_AT_THREE_QUARTERS, CUT_BEFORE_THE_LAST };

TEST_FN bool expects_continue(const struct row *row) {
    for (int i = 0; i < row->num_lines; i++)
        if (strcmp(row->lines[i].key, "continue") == 0) return true;
    return false;
}

// A server that has refused may have closed already: what cannot be sent any more is no error here.
TEST_FN void send_bytes(struct client *c, const char *ptr, size_t len, enum pace pace) {
    int64_t deadline = net_deadline();
    for (size_t at = 0; at < len;) {
        bool edge = at < 400 || len - at < 400;
        size_t step = pace != BYTE_BY_BYTE ? len - at : edge ? 1 : len > 50000 ? 5000 : 100;
        if (net_send_some(c, ptr + at, step < len - at ? step : len - at, deadline) == 0) return;
        at += step;
    }
}

// Sends the head and waits for the 100 before the rest.
TEST_FN void send_waiting(struct client *c, const struct row *row) {
    const char *end = (const char *)memmem(row->input.ptr, row->input.len, "\r\n\r\n", 4);
    size_t len;
    CHECK(end != NULL);
    len = (size_t)(end + 4 - row->input.ptr);
    net_send(c, row->input.ptr, len);
    net_reply(c, false);
    CHECK_INT(c->status, 100);
    net_send(c, row->input.ptr + len, row->input.len - len);
}

TEST_FN void send_cut(const struct server *s, struct client *c, const struct row *row, enum pace pace) {
    size_t len = row->input.len, cut = pace == CUT_BEFORE_THE_LAST ? len - 1 : len * (pace - WAITING) / 4;
    send_seen(s, c, row->input.ptr, cut);
    send_bytes(c, row->input.ptr + cut, len - cut, AT_ONCE);
}

TEST_FN void check_status(const struct client *c, const struct bytes *pattern) {
    char status[16];
    snprintf(status, sizeof status, "%d", c->status);
    CHECK_INT(pattern->len, 3);
    for (int i = 0; i < 3; i++)
        if (pattern->ptr[i] != 'x' && pattern->ptr[i] != status[i])
            FAIL("status %d, expected %s, body: %.*s", c->status, pattern->ptr, (int)c->body_len, c->body);
}

TEST_FN int count_elements(const char *list) {
    int n = 1;
    for (; *list; list++)
        n += *list == ',';
    return n;
}

TEST_FN bool has_element(const char *list, const char *name, size_t len) {
    while (*list) {
        size_t n;
        list += strspn(list, ", ");
        n = strcspn(list, ",");
        if (n == len && memcmp(list, name, len) == 0) return true;
        list += n;
    }
    return false;
}

// "Name: value", lists in any order.
TEST_FN void check_field(const struct client *c, const char *line) {
    char name[100];
    size_t len = strcspn(line, ":");
    const char *value = line + len + 1 + strspn(line + len + 1, " "), *actual;
    snprintf(name, sizeof name, "%.*s", (int)len, line);
    actual = field(c, name);
    if (!actual) FAIL("the answer lacks the field %s", line);
    if (count_elements(actual) != count_elements(value)) FAIL("%s: %s, expected %s", name, actual, value);
    for (const char *at = value; *at; at += strcspn(at, ",")) {
        at += strspn(at, ", ");
        if (!has_element(actual, at, strcspn(at, ","))) FAIL("%s: %s, expected %s", name, actual, value);
    }
}

TEST_FN void read_answer(struct client *c, bool to_head, bool interim) {
    net_reply(c, to_head);
    if (c->status == 100 && interim) net_reply(c, to_head);
    CHECK(c->status >= 200);
}

TEST_FN void check_part(const struct client *c, const struct expected *e) {
    bool there = memmem(c->body, c->body_len, e->value.ptr, e->value.len) != NULL;
    if (there != (strcmp(e->key, "holds") == 0))
        FAIL("body %s %s: %.*s", e->key, e->value.ptr, (int)c->body_len, c->body);
}

// One line about the last answer.
TEST_FN void check_answer_line(const struct client *c, const struct expected *e) {
    if (strcmp(e->key, "says") == 0) CHECK_MEM(c->body, c->body_len, e->value.ptr, e->value.len);
    if (strcmp(e->key, "holds") == 0 || strcmp(e->key, "lacks") == 0) check_part(c, e);
    if (strcmp(e->key, "with") == 0) check_field(c, e->value.ptr);
    if (strcmp(e->key, "without") == 0 && field(c, e->value.ptr)) FAIL("unexpected field %s", e->value.ptr);
    if (check_more_lines) check_more_lines(c, e->key, e->value.ptr);
}

// Whether anything comes before the end.
TEST_FN bool more_comes(struct client *c) {
    int64_t deadline = net_deadline();
    while (c->at == c->len && net_receive(c, deadline))
        continue;
    NET_CHECK(c, c->at < c->len || c->eof, "neither an answer nor the end of the connection");
    return c->at < c->len;
}

// The connection serves another request; where it need not, the end is fine too.
TEST_FN void check_open(struct client *c, bool must) {
    static const char probe[] = "GET /probe HTTP/1.1\r\nHost: a\r\n\r\n";
    net_send_some(c, probe, sizeof probe - 1, net_deadline());
    if (!must && !more_comes(c)) return;
    net_reply(c, false);
    CHECK_INT(c->status, 200);
    CHECK_MEM(c->body, c->body_len, "probe", 5);
}

TEST_FN void check_cut(struct client *c) {
    half_close(c);
    if (more_comes(c)) {
        net_reply(c, false);
        CHECK(c->status == 400 || c->status == 408);
    }
    EXPECT_EOF(c);
}

// Requests behind the one that ended the connection may arrive after the server has closed: then it is a reset.
// Behind a refusal it never is, since the server lingers for the client to read it.
TEST_FN void check_close(struct client *c, bool more_requests) {
    bool orderly = !more_requests || c->status >= 400;
    CHECK_INT(net_until_end(c), 0);
    NET_CHECK(c, c->error == 0 || (c->error == ECONNRESET && !orderly), "reset instead of an orderly end");
}

TEST_FN void check_ending(struct client *c, const char *key, bool more_requests) {
    if (strcmp(key, "cut") == 0)
        check_cut(c);
    else if (strcmp(key, "close") == 0)
        check_close(c, more_requests);
    else
        check_open(c, strcmp(key, "open") == 0);
}

// Which request is a HEAD, the parser knows.
TEST_FN bool is_head(const struct facts *f, int request) {
    for (int i = 0; i < f->num; i++)
        if (strcmp(f->list[i].key, "head") == 0 && request-- == 0)
            return f->list[i].value.len > 5 && memcmp(f->list[i].value.ptr, "HEAD ", 5) == 0;
    return false;
}

TEST_FN int count_messages(const struct facts *f) {
    int n = 0;
    for (int i = 0; i < f->num; i++)
        n += ends_message(f->list[i].key);
    return n;
}

TEST_FN void run_client(const struct server *s, const struct row *row, const struct facts *facts, enum pace pace) {
    struct client c = dial(s->port);
    const char *ending = "";
    bool interim = false;
    int answers = 0;
    if (pace == WAITING)
        send_waiting(&c, row);
    else if (pace > WAITING)
        send_cut(s, &c, row, pace);
    else
        send_bytes(&c, row->input.ptr, row->input.len, pace);
    for (int i = 0; i < row->num_lines; i++) {
        const struct expected *e = &row->lines[i];
        if (!is_server_key(e->key)) continue;
        if (strcmp(e->key, "continue") == 0) interim = pace != WAITING;
        if (strcmp(e->key, "answer") == 0) {
            read_answer(&c, is_head(facts, answers++), interim);
            check_status(&c, &e->value);
            interim = false;
        }
        check_answer_line(&c, e);
        ending = e->key;
    }
    check_ending(&c, ending, count_messages(facts) > answers);
    hang_up(&c);
}

// With all paces up to the last one that is wanted.
TEST_FN void run_server(const struct row *row, const struct server *inlined, const struct server *pooled,
                        enum pace last) {
    static const char *const paces[] = {
        "at once",     "byte by byte",          "waiting for 100",    "cut at a quarter",
        "cut at half", "cut at three quarters", "cut before the last"};
    char note[sizeof test_trace->note];
    struct drive d;
    if (!row->server) return;
    memcpy(note, test_trace->note, sizeof note);
    drive_begin(&d, &row->input, NULL);
    drive_end(&d);
    for (int pace = AT_ONCE; pace <= (int)last; pace++) {
        if (pace == WAITING && !expects_continue(row)) continue;
        NOTE("%.300s, server, inline, %s", note, paces[pace]);
        run_client(inlined, row, &d.facts, (enum pace)pace);
        NOTE("%.300s, server, on a pool, %s", note, paces[pace]);
        run_client(pooled, row, &d.facts, (enum pace)pace);
    }
    release_facts(&d.facts);
}

// ---- scenarios as tests ----

typedef int (*row_visitor)(const struct row *row, void *user);

// Calls visit for each row; the sum of what it returns.
TEST_FN int each_row(row_visitor visit, void *user) {
    struct slice rest = current->each, line = {"", 0}, cells[MAX_CELLS];
    int sum = 0, number = 0;
    do {
        struct row row;
        int num_cells = 0;
        if (current->each.ptr && !take_line(&rest, &line)) break;
        if (current->each.ptr) num_cells = split_cells(line, cells);
        NOTE("%s:%d, row %d: %.*s", current->file, current->line, ++number, line.len < 80 ? (int)line.len : 80,
             line.ptr);
        make_row(&row, current, cells, num_cells);
        sum += visit(&row, user);
        release_row(&row);
    } while (current->each.ptr);
    CHECK_CMP(number, >, 0);
    return sum;
}

TEST_FN bool is_path(const char *argument) {
    size_t len = strlen(argument);
    return len > 3 && strcmp(argument + len - 3, ".md") == 0;
}

// Takes the documents out of the arguments; what is left selects tests. Without any it is those of the folder whose names
// begin with the prefix, or with "!" in front of it all others.
TEST_FN void load_arguments(char **argv, const char *prefix) {
    char **left = argv;
    document_prefix = prefix;
    for (; *argv; argv++)
        if (is_path(*argv))
            load_file(*argv);
        else
            *left++ = *argv;
    *left = NULL;
    if (!test_first) load_folder();
}

TEST_FN bool has_argument(char **argv, const char *name) {
    for (; *argv; argv++)
        if (strcmp(*argv, name) == 0) return true;
    return false;
}

// In place of the harness's own main: the tests are found at run time, by load_arguments.
TEST_FN int run_documents(char **argv) {
    struct test_run run = {false, false, 0, 0, 0};
    run.verbose = has_argument(argv + 1, "-v");
    test_share_trace();
    for (struct test *test = test_first; test; test = test->next) {
        current = (const struct scenario *)test;
        if (!test_selected(test, argv + 1)) continue;
        if (has_argument(argv + 1, "-l"))
            puts(test->name);
        else if (has_argument(argv + 1, "-n"))
            test->run();
        else
            test_one(&run, test);
    }
    if (has_argument(argv + 1, "-l") || has_argument(argv + 1, "-n")) return 0;
    printf("%d passed, %d failed", run.passed, run.failed);
    if (run.skipped) printf(", %d skipped", run.skipped);
    putchar('\n');
    return run.failed || run.passed + run.skipped == 0;
}

#endif // TEST_DOCUMENTS_H
