// >>emit: answers byte by byte, from a loop and a connection made by hand: nothing is ever writable, so what would be sent
// stays in the buffer and the chain. The buffer is as small as it may be.

#define HTTPSRV_IMPLEMENTATION
#define HTTPSRV_WRITE_BUFFER 512
#include "httpsrv.h"
#include "rooms.h"

#define SERVER "Server: s\r\n"
#define DATE   "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"

struct scene {
    struct books books;
    httpsrv srv;
    hsrv_loop loop;
    hsrv_conn conn;
    char name[128];
    char block[256];
    char output[HTTPSRV_WRITE_BUFFER];
};

static void scene_open(struct scene *s, const char *server_name) {
    memset(s, 0, sizeof *s);
    books_open(&s->books, &s->srv.memory);
    snprintf(s->name, sizeof s->name, "%s", server_name);
    s->srv.server_name = s->name;
    s->srv.config.max.requests = -1;
    s->loop.srv = &s->srv;
    s->loop.output = s->output;
    s->loop.block = s->block;
    s->loop.date_second = 784111777;
    hsrv_loop_make_block(&s->loop);
    s->conn.fd = -1;
    s->conn.ring = HSRV_RINGS;
}

// All that was queued so far, in the order in which it would be sent.
static size_t scene_bytes(const struct scene *s, char *out, size_t size) {
    size_t len = 0;
    for (const hsrv_segment *segment = s->conn.out.first; segment; segment = segment->next) {
        CHECK_CMP(len + segment->len, <=, size);
        memcpy(out + len, segment->ptr, segment->len);
        len += segment->len;
    }
    CHECK_CMP(len + s->loop.output_len, <=, size);
    memcpy(out + len, s->loop.output, s->loop.output_len);
    return len + s->loop.output_len;
}

static void scene_close(struct scene *s) {
    hsrv_output_clear(&s->srv.memory, &s->conn.out);
    CHECK_BOOKS(&s->books, &s->srv.memory, 0);
}

static void scene_clear(struct scene *s) {
    hsrv_output_clear(&s->srv.memory, &s->conn.out);
    s->loop.output_len = 0;
}

// ---- the bytes ----

#define OWN_SERVER 1u
#define OWN_DATE   2u
#define OWN_TYPE   4u

struct sample {
    const char *name;
    int status;
    const char *type, *body;
    const char *fields[3][2]; // names and values
    unsigned own;
    hsrv_manner how;
    const char *expected;
};

#define PLAIN_MANNER \
    { false, false, false, 0, 0 }
#define HEAD_ONLY \
    { true, false, false, 0, 0 }
#define CLOSE \
    { false, true, false, 0, 0 }
#define KEEP_ALIVE \
    { false, false, true, 0, 0 }
#define NONE           \
    {                  \
        { NULL, NULL } \
    }

#define TEXT "Content-Type: text/plain\r\n"

static const struct sample samples[] = {
    {"200", 200, "text/plain", "hello", NONE, 0, PLAIN_MANNER,
     "HTTP/1.1 200 OK\r\n" SERVER DATE TEXT "Content-Length: 5\r\n\r\nhello"},
    {"200 without type and body", 200, NULL, "", NONE, 0, PLAIN_MANNER,
     "HTTP/1.1 200 OK\r\n" SERVER DATE "Content-Length: 0\r\n\r\n"},
    {"200 to HEAD", 200, "text/plain", "hello", NONE, 0, HEAD_ONLY,
     "HTTP/1.1 200 OK\r\n" SERVER DATE TEXT "Content-Length: 5\r\n\r\n"},
    {"200 and close", 200, "text/plain", "hello", NONE, 0, CLOSE,
     "HTTP/1.1 200 OK\r\n" SERVER DATE TEXT "Content-Length: 5\r\nConnection: close\r\n\r\nhello"},
    {"200 to HTTP/1.0", 200, "text/plain", "hello", NONE, 0, KEEP_ALIVE,
     "HTTP/1.1 200 OK\r\n" SERVER DATE TEXT "Content-Length: 5\r\nConnection: keep-alive\r\n\r\nhello"},
    {"204", 204, "text/plain", "hello", NONE, 0, PLAIN_MANNER, "HTTP/1.1 204 No Content\r\n" SERVER DATE "\r\n"},
    {"205", 205, NULL, "hello", NONE, 0, PLAIN_MANNER,
     "HTTP/1.1 205 Reset Content\r\n" SERVER DATE "Content-Length: 0\r\n\r\n"},
    {"304",
     304,
     "text/plain",
     "hello",
     {{"ETag", "\"x\""}},
     0,
     PLAIN_MANNER,
     "HTTP/1.1 304 Not Modified\r\n" SERVER DATE "ETag: \"x\"\r\n\r\n"},
    {"304 and close", 304, NULL, "", NONE, 0, CLOSE,
     "HTTP/1.1 304 Not Modified\r\n" SERVER DATE "Connection: close\r\n\r\n"},
    {"404 to HEAD and close",
     404,
     "text/plain",
     "0123456789",
     NONE,
     0,
     {true, true, false, 0, 0},
     "HTTP/1.1 404 Not Found\r\n" SERVER DATE TEXT "Content-Length: 10\r\nConnection: close\r\n\r\n"},
    {"599", 599, NULL, "x", NONE, 0, PLAIN_MANNER, "HTTP/1.1 599 Unknown\r\n" SERVER DATE "Content-Length: 1\r\n\r\nx"},
    {"own server",
     200,
     NULL,
     "",
     {{"server", "mine"}},
     OWN_SERVER,
     PLAIN_MANNER,
     "HTTP/1.1 200 OK\r\n" DATE "server: mine\r\nContent-Length: 0\r\n\r\n"},
    {"own date",
     200,
     NULL,
     "",
     {{"DATE", "then"}},
     OWN_DATE,
     PLAIN_MANNER,
     "HTTP/1.1 200 OK\r\n" SERVER "DATE: then\r\nContent-Length: 0\r\n\r\n"},
    {"own server and date",
     404,
     NULL,
     "",
     {{"Date", "d"}, {"Server", "s"}},
     OWN_DATE | OWN_SERVER,
     PLAIN_MANNER,
     "HTTP/1.1 404 Not Found\r\nDate: d\r\nServer: s\r\nContent-Length: 0\r\n\r\n"},
    {"own type alone",
     200,
     NULL,
     "",
     {{"content-type", "a/b"}},
     OWN_TYPE,
     PLAIN_MANNER,
     "HTTP/1.1 200 OK\r\n" SERVER DATE "content-type: a/b\r\nContent-Length: 0\r\n\r\n"},
    {"own type beside the argument",
     200,
     "text/plain",
     "",
     {{"X", ""}, {"content-type", "a/b"}, {"Y", "z"}},
     OWN_TYPE,
     PLAIN_MANNER,
     "HTTP/1.1 200 OK\r\n" SERVER DATE TEXT "X: \r\nY: z\r\nContent-Length: 0\r\n\r\n"},
    {"fields repeat",
     200,
     NULL,
     "",
     {{"A", "1"}, {"A", "2"}},
     0,
     PLAIN_MANNER,
     "HTTP/1.1 200 OK\r\n" SERVER DATE "A: 1\r\nA: 2\r\nContent-Length: 0\r\n\r\n"},
};

static void sample_answer(const struct sample *sample, hsrv_answer *answer, hsrv_header headers[3]) {
    memset(answer, 0, sizeof *answer);
    answer->status = sample->status;
    answer->type = hsrv_text_of(sample->type);
    answer->body = hsrv_text_of(sample->body);
    answer->own_server = (sample->own & OWN_SERVER) != 0;
    answer->own_date = (sample->own & OWN_DATE) != 0;
    answer->own_type = (sample->own & OWN_TYPE) != 0;
    for (int i = 2; i >= 0; i--) {
        if (!sample->fields[i][0]) continue;
        headers[i].name = hsrv_text_of(sample->fields[i][0]);
        headers[i].value = hsrv_text_of(sample->fields[i][1]);
        headers[i].next = answer->headers;
        answer->headers = &headers[i];
    }
}

TEST(answers_byte_by_byte) {
    struct scene s;
    char out[1024];
    for (size_t i = 0; i < LENGTH(samples); i++) {
        hsrv_answer answer;
        hsrv_header headers[3];
        const struct sample *sample = &samples[i];
        const int class_of = sample->status / 100;
        scene_open(&s, "s");
        sample_answer(sample, &answer, headers);
        NOTE("%s", sample->name);
        CHECK_INT(hsrv_emit_answer(&s.loop, &s.conn, &answer, &sample->how), HTTPSRV_OK);
        CHECK_MEM(out, scene_bytes(&s, out, sizeof out), sample->expected, strlen(sample->expected));
        CHECK_INT(s.conn.served, 1);
        CHECK_INT((s.conn.flags & HSRV_CONN_ENDING) != 0, sample->how.close);
        for (int k = 0; k < 6; k++) {
            CHECK_INT(s.loop.counters.answers[k], k == 0 || k == class_of);
        }
        scene_close(&s);
    }
}

TEST(no_server_field_without_a_name) {
    static const hsrv_manner how = PLAIN_MANNER;
    struct scene s;
    hsrv_answer answer;
    char out[512];
    for (int status = 200; status <= 201; status++) {
        const char *expected = status == 200 ? "HTTP/1.1 200 OK\r\n" DATE "Content-Length: 0\r\n\r\n"
                                             : "HTTP/1.1 201 Created\r\n" DATE "Content-Length: 0\r\n\r\n";
        memset(&answer, 0, sizeof answer);
        answer.status = status;
        scene_open(&s, "");
        CHECK_INT(hsrv_emit_answer(&s.loop, &s.conn, &answer, &how), HTTPSRV_OK);
        CHECK_MEM(out, scene_bytes(&s, out, sizeof out), expected, strlen(expected));
        scene_close(&s);
    }
}

TEST(continue_goes_between) {
    static const char expected[] = "HTTP/1.1 100 Continue\r\n\r\n";
    struct scene s;
    char out[2048];
    static httpsrv_req req;
    scene_open(&s, "s");
    s.conn.req = &req;
    for (size_t i = 1; i <= 40; i++) { // more than the buffer holds
        req.owes_continue = true;
        hsrv_emit_continue(&s.loop, &s.conn);
        CHECK(!req.owes_continue);
        CHECK_INT(scene_bytes(&s, out, sizeof out), i * (sizeof expected - 1));
        CHECK_MEM(out + (i - 1) * (sizeof expected - 1), sizeof expected - 1, expected, sizeof expected - 1);
    }
    s.conn.req = NULL;
    scene_close(&s);
}

// ---- manner ----

TEST(manners) {
    static const struct {
        bool keep_alive;
        int minor;
        hsrv_loop_phase phase;
        uint32_t served;
        int max_requests;
        bool close, say_keep_alive;
    } table[] = {{true, 1, HSRV_LOOP_RUN, 0, -1, false, false},  {true, 0, HSRV_LOOP_RUN, 0, -1, false, true},
                 {false, 1, HSRV_LOOP_RUN, 0, -1, true, false},  {false, 0, HSRV_LOOP_RUN, 0, -1, true, false},
                 {true, 1, HSRV_LOOP_GRACE, 0, -1, true, false}, {true, 0, HSRV_LOOP_DRAIN, 0, -1, true, false},
                 {true, 1, HSRV_LOOP_RUN, 0, 1, true, false},    {true, 1, HSRV_LOOP_RUN, 0, 2, false, false},
                 {true, 1, HSRV_LOOP_RUN, 1, 2, true, false},    {true, 0, HSRV_LOOP_RUN, 1, 2, true, false},
                 {true, 1, HSRV_LOOP_RUN, 5, 2, true, false},    {true, 0, HSRV_LOOP_RUN, 8, 10, false, true},
                 {true, 1, HSRV_LOOP_RUN, 9, 10, true, false},   {true, 1, HSRV_LOOP_RUN, 1u << 31, -1, false, false}};
    struct scene s;
    scene_open(&s, "s");
    for (size_t i = 0; i < LENGTH(table); i++) {
        httpsrv_req req;
        memset(&req, 0, sizeof req);
        req.head.keep_alive = table[i].keep_alive;
        req.head.version_minor = table[i].minor;
        s.loop.phase = table[i].phase;
        s.conn.served = table[i].served;
        s.srv.config.max.requests = table[i].max_requests;
        NOTE("row %zu", i);
        for (int head = 0; head < 2; head++) {
            req.head.method_id = head ? HTTPSRV_METHOD_HEAD : HTTPSRV_METHOD_GET;
            const hsrv_manner how = hsrv_emit_manner(&s.loop, &s.conn, &req);
            CHECK_INT(how.close, table[i].close);
            CHECK_INT(how.say_keep_alive, table[i].say_keep_alive);
            CHECK_INT(how.head_only, head);
        }
    }
}

// ---- size ----

#define MAX_FIELDS 48

// An answer with random fields, of bytes that do not matter here.
static void random_answer(hsrv_answer *answer, hsrv_header *headers, char *bytes) {
    static const httpsrv_str names[] = {{"server", 6}, {"date", 4}, {"content-type", 12}};
    memset(answer, 0, sizeof *answer);
    answer->status = 200 + (int)random_below(400);
    if (random_below(3)) answer->type = hsrv_text_view(bytes, random_below(100));
    answer->body.len = random_below(2) ? random_below(100000) : SIZE_MAX - random_below(10);
    for (uint32_t i = 0, count = random_below(MAX_FIELDS); i < count; i++) {
        const uint32_t known = random_below(12);
        headers[i].name = known < 3 ? names[known] : hsrv_text_view(bytes, 1 + random_below(40));
        headers[i].value = hsrv_text_view(bytes, random_below(60));
        headers[i].next = answer->headers;
        answer->headers = &headers[i];
        answer->own_server |= known == 0;
        answer->own_date |= known == 1;
        answer->own_type |= known == 2;
    }
}

static char head_bytes[100];

TEST(head_size_is_an_upper_bound) {
    static const char name[] = "a server name of some length, as people like them";
    struct scene s;
    char *end = fence_end();
    memset(head_bytes, 'a', sizeof head_bytes);
    for (int round = 0; round < STORM(100000); round++) {
        hsrv_answer answer;
        hsrv_header headers[MAX_FIELDS];
        hsrv_manner how;
        if (round % 100 == 0) scene_open(&s, name + random_below(sizeof name));
        random_answer(&answer, headers, head_bytes);
        how.head_only = random_below(2);
        how.close = random_below(2);
        how.say_keep_alive = random_below(2); // together with close never, but the bound holds
        NOTE("round %d", round);
        const size_t size = hsrv_emit_head_size(&s.loop, &answer);
        CHECK_CMP(size, <, FENCE_SIZE);
        const char *out = hsrv_emit_head(end - size, &s.loop, &answer, &how);
        CHECK(out <= end && memcmp(out - 4, "\r\n\r\n", 4) == 0);
    }
}

TEST(head_sizes_that_overflow) {
    static const hsrv_manner how = PLAIN_MANNER;
    static const size_t lengths[] = {SIZE_MAX / 2, SIZE_MAX / 2 - 100, SIZE_MAX / 4, PTRDIFF_MAX};
    struct scene s;
    scene_open(&s, "s");
    for (size_t i = 0; i < LENGTH(lengths); i++) {
        hsrv_header headers[3];
        hsrv_answer answer;
        memset(&answer, 0, sizeof answer);
        answer.status = 200;
        for (int k = 0; k < 3; k++) {
            headers[k].name = hsrv_text_view("a", 1);
            headers[k].value = hsrv_text_view("a", lengths[i]);
            headers[k].next = answer.headers;
            answer.headers = &headers[k];
        }
        NOTE("row %zu", i);
        CHECK(hsrv_emit_head_size(&s.loop, &answer) == SIZE_MAX);
        CHECK_INT(hsrv_emit_answer(&s.loop, &s.conn, &answer, &how), HTTPSRV_NOMEM);
    }
    CHECK_INT(s.conn.served, 0);
    CHECK_INT(s.books.calls, 0);
    scene_close(&s);
}

// ---- buffer and chain ----

static void count_release(void *arg) {
    (*(int *)arg)++;
}

static const hsrv_manner any_manners[] = {PLAIN_MANNER, HEAD_ONLY, CLOSE, KEEP_ALIVE};

// What the answer has to look like, by parts that the tests above have looked at.
static size_t expect_answer(const struct scene *s, const hsrv_answer *answer, const hsrv_manner *how, char *out) {
    char *end = hsrv_emit_head(out, &s->loop, answer, how);
    const bool body = answer->status != 204 && answer->status != 205 && answer->status != 304 && !how->head_only;
    if (body) end = hsrv_text_append(end, answer->body);
    return (size_t)(end - out);
}

// Answers of all sizes one behind the other, copied and borrowed: they keep their order, and each body is released once.
TEST(answers_in_a_row) {
    enum { ANSWERS = 12, LARGEST = 20000 };
    static const size_t sizes[] = {0, 1, 100, 300, 480, 511, 512, 513, 2000, 8191, 8192, 8193, LARGEST};
    static const int statuses[] = {200, 200, 200, 204, 205, 304, 404, 500};
    static char body[LARGEST], queued[ANSWERS * (LARGEST + 512)], expected[sizeof queued];
    struct scene s;
    for (size_t i = 0; i < LARGEST; i++) {
        body[i] = (char)random_bits();
    }
    for (int round = 0; round < STORM(1500); round++) {
        int releases[ANSWERS] = {0};
        bool released[ANSWERS];
        size_t len = 0;
        scene_open(&s, "s");
        NOTE("round %d", round);
        for (int i = 0; i < ANSWERS; i++) {
            const size_t size = sizes[random_below(LENGTH(sizes))];
            const hsrv_manner *how = &any_manners[random_below(LENGTH(any_manners))];
            hsrv_answer answer;
            memset(&answer, 0, sizeof answer);
            answer.status = statuses[random_below(LENGTH(statuses))];
            answer.body = hsrv_text_view(body + random_below((uint32_t)(LARGEST - size + 1)), size);
            released[i] = random_below(2);
            if (released[i]) answer.release = count_release;
            answer.release_arg = &releases[i];
            len += expect_answer(&s, &answer, how, expected + len);
            CHECK_INT(hsrv_emit_answer(&s.loop, &s.conn, &answer, how), HTTPSRV_OK);
            CHECK(answer.release == NULL);
        }
        CHECK_MEM(queued, scene_bytes(&s, queued, sizeof queued), expected, len);
        CHECK_INT(s.conn.served, ANSWERS);
        scene_close(&s);
        for (int i = 0; i < ANSWERS; i++) {
            CHECK_INT(releases[i], released[i]);
        }
    }
}

static hsrv_answer answer_on_loan(const char *body, size_t len, int *releases) {
    hsrv_answer answer;
    memset(&answer, 0, sizeof answer);
    answer.status = 200;
    answer.body = hsrv_text_view(body, len);
    answer.release = count_release;
    answer.release_arg = releases;
    return answer;
}

TEST(large_bodies_are_borrowed_and_small_ones_copied) {
    static const hsrv_manner how = PLAIN_MANNER;
    static char body[HSRV_BORROW_FROM];
    for (size_t less = 0; less < 2; less++) {
        struct scene s;
        int releases = 0;
        hsrv_answer answer = answer_on_loan(body, sizeof body - less, &releases);
        scene_open(&s, "s");
        CHECK_INT(hsrv_emit_answer(&s.loop, &s.conn, &answer, &how), HTTPSRV_OK);
        CHECK_INT(releases, 0); // here even the smaller one is too large for the shared buffer
        CHECK(s.conn.out.last->ptr == body && s.conn.out.last->len == sizeof body - less);
        scene_close(&s);
        CHECK_INT(releases, 1);
    }
}

// Without memory nothing has happened: no byte, no release, no count.
TEST(answers_without_memory) {
    static const hsrv_manner how = CLOSE;
    static char body[10000];
    for (int borrowed = 0; borrowed < 2; borrowed++) {
        struct scene s;
        int releases = 0;
        hsrv_answer answer = answer_on_loan(body, sizeof body, &releases);
        if (!borrowed) answer.release = NULL;
        scene_open(&s, "s");
        for (size_t grants = 0; grants < (borrowed ? 2u : 1u); grants++) {
            s.books.grants = grants;
            NOTE("%zu grants", grants);
            CHECK_INT(hsrv_emit_answer(&s.loop, &s.conn, &answer, &how), HTTPSRV_NOMEM);
            CHECK(s.conn.out.first == NULL && s.loop.output_len == 0 && s.conn.served == 0 && s.conn.flags == 0);
            CHECK_INT(s.loop.counters.answers[0], 0);
            CHECK_INT(releases, 0);
            CHECK_BOOKS(&s.books, &s.srv.memory, 0);
        }
        s.books.grants = SIZE_MAX;
        CHECK_INT(hsrv_emit_answer(&s.loop, &s.conn, &answer, &how), HTTPSRV_OK);
        scene_clear(&s);
        CHECK_INT(releases, borrowed);
        scene_close(&s);
    }
}
