// A whole connection: one end of a socket pair is given to a server that runs in this thread, turn by turn; on the
// other a client sends the text in pieces. Each answer is matched with the request that the oracle reads in the same
// bytes.
//
// The first line is the client's script, played over and over until all is sent, with a turn of the server after each
// letter. If it sends nothing, the text goes out at once.
//
//     a..z  sends 1 to 26 bytes (what is not listed here: its number modulo 32)
//     .     a turn without anything
//     T L   a tenth of a second, two seconds pass
//     S     the client stops reading, or reads again
//     X     the client hangs up, and that is all
//     I     the client will not close when all is sent but wait until the server does
//
// With FUZZ_POOL=1 there is a route whose handler runs on a worker; that is slower.

#include "fuzz.h"
#include "../net.h"
#include "../rooms.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#ifndef FUZZ_POOL
#define FUZZ_POOL 0
#endif

#define CONN_BULK      20000 // bytes of a large answer
#define CONN_SEND_SIZE 4096  // of the server's socket, so that a large answer does not fit
#define CONN_TURNS     400   // that a connection may take to end
#define CONN_FD        200   // descriptor that each connection gets, above those that the engine opens now and then

static struct conn_world {
    httpsrv *srv;
    hsrv_loop *loop;
    size_t base; // bytes taken while there is no connection
    struct books books;
    int lent, released;
    char bulk[CONN_BULK];
} conn_world;

static bool conn_pool = FUZZ_POOL != 0; // set before the first input

// ---- handlers ----

static volatile char conn_seen;

static void conn_touch(httpsrv_str view) {
    for (size_t i = 0; i < view.len; i++)
        conn_seen = view.ptr[i];
}

// Whatever a handler can look at has to be there.
static void conn_look(httpsrv_req *req) {
    conn_touch(httpsrv_path(req));
    conn_touch(httpsrv_host(req));
    conn_touch(httpsrv_peer(req));
    conn_touch(httpsrv_param(req, "rest"));
    conn_touch(httpsrv_query(req, "q"));
    conn_touch(httpsrv_header(req, "content-type"));
    conn_touch(httpsrv_request_head(req)->query);
    CHECK(!httpsrv_param(req, "nothing").ptr);
}

// A line that says what the oracle's facts say about a field.
static char *conn_put_field(char *out, const httpsrv_field *field) {
    out = hsrv_text_append(out, field->name);
    *out++ = ':';
    if (field->value.len) *out++ = ' ';
    out = hsrv_text_append(out, field->value);
    *out++ = '\n';
    return out;
}

// The bytes that this takes for all fields and trailers.
static size_t conn_fields_size(const httpsrv_req *req) {
    const httpsrv_field *field;
    size_t size = 0;
    for (int i = 0; (field = httpsrv_header_at(req, i)) != NULL; i++)
        size += field->name.len + field->value.len + 3;
    for (int i = 0; (field = httpsrv_trailer_at(req, i)) != NULL; i++)
        size += field->name.len + field->value.len + 3;
    return size;
}

// "METHOD TARGET", the fields, the trailers, a line each, then the body: all that the oracle can tell as well.
static httpsrv_str conn_describe(httpsrv_req *req) {
    httpsrv_str method = httpsrv_method(req), target = httpsrv_target(req), body = httpsrv_body(req), all;
    const httpsrv_field *field;
    char *out = (char *)httpsrv_alloc(req, method.len + target.len + conn_fields_size(req) + body.len + 2);
    CHECK(out != NULL);
    all.ptr = out;
    out = hsrv_text_append(out, method);
    *out++ = ' ';
    out = hsrv_text_append(out, target);
    *out++ = '\n';
    for (int i = 0; (field = httpsrv_header_at(req, i)) != NULL; i++)
        out = conn_put_field(out, field);
    for (int i = 0; (field = httpsrv_trailer_at(req, i)) != NULL; i++)
        out = conn_put_field(out, field);
    out = hsrv_text_append(out, body);
    all.len = (size_t)(out - all.ptr);
    return all;
}

static void conn_on_echo(httpsrv_req *req, void *user) {
    (void)user;
    conn_look(req);
    CHECK_INT(httpsrv_set(req, "X-Echo", HTTPSRV_STR("yes")), HTTPSRV_OK);
    httpsrv_result result = httpsrv_reply(req, 200, "text/plain", conn_describe(req));
    CHECK(result == HTTPSRV_OK || (result == HTTPSRV_GONE && conn_pool)); // a client may leave while a worker answers
}

// On a worker, which waits until the loop has left the connection: what it still looks at must be the request's own.
static void conn_on_late_echo(httpsrv_req *req, void *user) {
    test_sleep(1);
    conn_on_echo(req, user);
}

static httpsrv_str conn_bulk(void) {
    httpsrv_str view = {conn_world.bulk, CONN_BULK};
    return view;
}

static void conn_on_big(httpsrv_req *req, void *user) {
    (void)user;
    CHECK_INT(httpsrv_reply(req, 200, NULL, conn_bulk()), HTTPSRV_OK);
}

static void conn_release(void *arg) {
    (*(int *)arg)++;
}

static void conn_on_lent(httpsrv_req *req, void *user) {
    httpsrv_answer answer;
    (void)user;
    memset(&answer, 0, sizeof answer);
    answer.status = 203;
    answer.body = conn_bulk();
    answer.release = conn_release;
    answer.release_arg = &conn_world.released;
    conn_world.lent++;
    CHECK_INT(httpsrv_reply_with(req, &answer), HTTPSRV_OK);
}

static void conn_on_silent(httpsrv_req *req, void *user) {
    (void)user;
    conn_look(req);
}

static void conn_on_twice(httpsrv_req *req, void *user) {
    (void)user;
    CHECK_INT(httpsrv_reply(req, 299, NULL, HTTPSRV_STR("once")), HTTPSRV_OK);
    CHECK_INT(httpsrv_reply(req, 298, NULL, HTTPSRV_STR("twice")), HTTPSRV_STATE);
}

// ---- the server ----

static size_t conn_used(void) {
    const hsrv_loop *loop = conn_world.loop;
    return conn_world.srv->memory.used - (loop->num_spare + loop->again.idle) * loop->request_size;
}

static void conn_turn(void) {
    CHECK_INT(httpsrv_poll(conn_world.srv, 0), HTTPSRV_OK);
}

static void conn_routes(httpsrv *srv) {
    httpsrv_route_config small, pool;
    memset(&small, 0, sizeof small);
    small.pattern = "POST /small";
    small.handler = conn_on_echo;
    small.max_body = 8;
    pool = small;
    pool.pattern = "* /pool/*rest";
    pool.handler = conn_on_late_echo;
    pool.pool = "default";
    pool.max_body = 0;
    CHECK_INT(httpsrv_route(srv, &small), HTTPSRV_OK);
    if (conn_pool) CHECK_INT(httpsrv_route(srv, &pool), HTTPSRV_OK);
    CHECK_INT(httpsrv_on(srv, "* /echo/*rest", conn_on_echo, NULL), HTTPSRV_OK);
    CHECK_INT(httpsrv_on(srv, "GET /big", conn_on_big, NULL), HTTPSRV_OK);
    CHECK_INT(httpsrv_on(srv, "* /lent", conn_on_lent, NULL), HTTPSRV_OK);
    CHECK_INT(httpsrv_on(srv, "GET /silent/:rest", conn_on_silent, NULL), HTTPSRV_OK);
    CHECK_INT(httpsrv_on(srv, "GET /twice", conn_on_twice, NULL), HTTPSRV_OK);
    CHECK_INT(httpsrv_on(srv, "PURGE /:rest", conn_on_echo, NULL), HTTPSRV_OK);
}

// The time-outs divide 1600 ms, at which each input begins, so that the wheels tick alike for all of them. (The time of
// lingering does not, and need not: it changes no answer.)
static void conn_open(void) {
    httpsrv_config config;
    memset(&config, 0, sizeof config);
    config.host = "127.0.0.1";
    config.max.connections = 8;
    config.keep_alive_header = true;
    config.timeout_ms.head = 800;
    config.timeout_ms.body = 800;
    config.timeout_ms.idle = 1600;
    config.timeout_ms.write = 800;
    config.pools[0].name = conn_pool ? "default" : NULL;
    config.pools[0].threads = 1;
    if (!conn_pool) config.allocator.fn = books_realloc; // which is for one thread
    config.allocator.user = &conn_world.books;
    conn_world.books.grants = SIZE_MAX;
    memset(conn_world.bulk, 'b', sizeof conn_world.bulk);
    conn_world.srv = httpsrv_new(&config);
    conn_routes(conn_world.srv);
    if (httpsrv_listen(conn_world.srv) != HTTPSRV_OK) FAIL("%s", httpsrv_error(conn_world.srv));
    conn_world.loop = conn_world.srv->loops[0];
}

// ---- the client ----

struct conn_run {
    struct client c;
    const struct fuzz_input *in;
    size_t sent;
    bool stalled; // the client does not read
    bool waits;   // it will wait for the server to close
    bool gone;    // it has hung up
    bool timed;   // time has passed
    bool torn;    // time has passed while it did not read: an answer may have been cut
    bool refused; // the server takes no more
};

static void conn_accept(struct conn_run *r) {
    static const int send_size = CONN_SEND_SIZE;
    struct sockaddr_storage nobody;
    int ends[2];
    memset(&nobody, 0, sizeof nobody);
    CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
    CHECK_INT(fcntl(ends[1], F_DUPFD_CLOEXEC, CONN_FD), CONN_FD); // or that of the connection before was lost
    close(ends[1]);
    CHECK_INT(setsockopt(CONN_FD, SOL_SOCKET, SO_SNDBUF, &send_size, sizeof send_size), 0);
    conn_turn(); // for the loop's clock
    r->c = net_client(ends[0]);
    hsrv_reactor_admit(conn_world.loop, CONN_FD, &nobody);
}

static void conn_read(struct conn_run *r) {
    if (r->stalled || r->gone) return;
    while (net_receive(&r->c, 0))
        continue;
}

static void conn_send(struct conn_run *r, size_t n) {
    size_t left = r->in->text.len - r->sent;
    ssize_t sent = left ? send(r->c.fd, r->in->text.ptr + r->sent, n < left ? n : left, MSG_NOSIGNAL) : 0;
    if (sent > 0) r->sent += (size_t)sent;
    if (sent < 0 && errno != EAGAIN) r->refused = true;
    if (sent < 0 && errno == EAGAIN) r->stalled = false;
}

static void conn_pass(struct conn_run *r, int ms) {
    fuzz_ms += ms;
    r->timed = true;
    r->torn |= r->stalled;
}

static void conn_play(struct conn_run *r, unsigned letter) {
    switch (letter) {
    case '.': break;
    case 'T': conn_pass(r, 100); break;
    case 'L': conn_pass(r, 2000); break;
    case 'S': r->stalled = !r->stalled; break;
    case 'I': r->waits = true; break;
    case 'X':
        close(r->c.fd);
        r->c.fd = -1;
        r->gone = true;
        break;
    default: conn_send(r, fuzz_piece(letter)); break;
    }
    conn_turn();
    conn_read(r);
}

static bool conn_all_sent(const struct conn_run *r) {
    return r->gone || r->refused || r->sent == r->in->text.len;
}

// Once through the script; whether that brought anything forward.
static bool conn_play_script(struct conn_run *r) {
    size_t before = r->sent;
    for (size_t i = 0; i < r->in->controls.len && !conn_all_sent(r); i++)
        conn_play(r, (unsigned char)r->in->controls.ptr[i]);
    return r->sent > before && !conn_all_sent(r);
}

static void conn_send_rest(struct conn_run *r) {
    for (int i = 0; !conn_all_sent(r); i++) {
        CHECK_CMP(i, <, CONN_TURNS);
        conn_send(r, r->in->text.len);
        conn_turn();
        conn_read(r);
    }
}

static bool conn_over(void) {
    const hsrv_loop *loop = conn_world.loop;
    return loop->counters.open == 0 && loop->num_orphans == 0;
}

// Until the server is done with the connection.
static void conn_end(struct conn_run *r) {
    if (!r->gone && !r->waits) shutdown(r->c.fd, SHUT_WR);
    r->stalled = false;
    for (int i = 0; !conn_over(); i++) {
        CHECK_CMP(i, <, CONN_TURNS);
        if (r->waits && i > 20) conn_pass(r, 200);
        if (conn_pool) CHECK_INT(httpsrv_poll(conn_world.srv, 1), HTTPSRV_OK);
        conn_turn();
        conn_read(r);
    }
    conn_read(r);
    if (!r->gone) CHECK(r->c.eof);
}

// ---- what the oracle reads ----

enum conn_fate {
    CONN_MISSING, // there is no such request
    CONN_DONE,
    CONN_BAD_HEAD,
    CONN_BAD_BODY,
    CONN_PART_HEAD, // not complete at the end of the text
    CONN_PART_BODY
};

struct conn_message {
    enum conn_fate fate;
    int status;               // of a refusal
    const struct bytes *head; // "METHOD TARGET 1.x"
    const struct bytes *body;
    const struct fact *facts; // all of its facts
    int num_facts;
    bool is_head; // method HEAD; without a head: it may be
    bool has_body, close, expects, expects_other;
};

struct conn_reading {
    struct facts facts;
    int at;         // the next one to be looked at
    bool blank_end; // the last message consists of line ends only
    bool like_head; // it begins as a HEAD request does
};

static void conn_oracle(const struct bytes *text, struct conn_reading *reading) {
    const char *last = text->ptr;
    struct oracle o;
    memset(&o, 0, sizeof o);
    memset(reading, 0, sizeof *reading);
    o.ptr = o.at = text->ptr;
    o.end = text->ptr + text->len;
    o.facts = &reading->facts;
    while (o.at < o.end && read_message(&o))
        last = o.at;
    const size_t blank = strspn(last, "\r\n");
    reading->blank_end = blank == (size_t)(o.end - last);
    reading->like_head = strncmp(last + blank, "HEAD ", 5) == 0;
    release_bytes(&o.body);
}

static void conn_take_refusal(struct conn_message *m, const char *key, const char *value) {
    if (strcmp(key, "error") == 0) {
        m->fate = m->head ? CONN_BAD_BODY : CONN_BAD_HEAD;
        m->status = atoi(value);
    }
    if (strcmp(key, "trailers") == 0 && atoi(value) > HSRV_MAX_SERVER_TRAILERS) { // the server's own limit
        m->fate = CONN_BAD_BODY;
        m->status = 400;
    }
}

static void conn_take_fact(struct conn_message *m, const struct fact *fact) {
    const char *key = fact->key, *value = fact->value.ptr;
    if (strcmp(key, "head") == 0) {
        m->head = &fact->value;
        m->is_head = strncmp(value, "HEAD ", 5) == 0;
    }
    if (strcmp(key, "chunked") == 0 || (strcmp(key, "length") == 0 && strcmp(value, "0") != 0)) m->has_body = true;
    if (strcmp(key, "keep-alive") == 0) m->close = strcmp(value, "no") == 0;
    if (strcmp(key, "expect-continue") == 0) m->expects = true;
    if (strcmp(key, "expect-other") == 0) m->expects_other = true;
    if (strcmp(key, "body") == 0) m->body = &fact->value;
    if (strcmp(key, "more") == 0) m->fate = m->head ? CONN_PART_BODY : CONN_PART_HEAD;
    if (strcmp(key, "done") == 0 && m->fate == CONN_MISSING) m->fate = CONN_DONE;
    conn_take_refusal(m, key, value);
}

static bool conn_ends_message(const struct fact *fact) {
    return strcmp(fact->key, "done") == 0 || strcmp(fact->key, "more") == 0 || strcmp(fact->key, "error") == 0;
}

static struct conn_message conn_next_message(struct conn_reading *reading) {
    struct conn_message m;
    memset(&m, 0, sizeof m);
    m.facts = fuzz_fact(&reading->facts, reading->at);
    for (; reading->at < reading->facts.num; m.num_facts++) {
        const struct fact *fact = &reading->facts.list[reading->at++];
        conn_take_fact(&m, fact);
        if (conn_ends_message(fact)) break;
    }
    if (!m.head) m.is_head = reading->like_head;
    return m;
}

// ---- judging the answers ----

// Whether it is clear without a look at routes that the request gets an echo.
static bool conn_gets_echo(const struct conn_message *m) {
    const char *target = m->head ? strchr(m->head->ptr, ' ') + 1 : "";
    bool echo = strncmp(target, "/echo/", 6) == 0 || (conn_pool && strncmp(target, "/pool/", 6) == 0);
    return echo && !m->expects_other && !strchr(target, '%') && !strstr(target, "/.");
}

static void conn_check_echo(const struct conn_message *m, const struct client *c) {
    struct bytes expected = {NULL, 0, 0};
    append(&expected, m->head->ptr, m->head->len - strlen(" 1.x"));
    append_text(&expected, "\n");
    for (int i = 0; i < m->num_facts; i++) {
        if (strcmp(m->facts[i].key, "field") != 0 && strcmp(m->facts[i].key, "trailer") != 0) continue;
        append(&expected, m->facts[i].value.ptr, m->facts[i].value.len);
        append_text(&expected, "\n");
    }
    append(&expected, m->body->ptr, m->body->len);
    CHECK_INT(c->length, expected.len);
    if (!m->is_head) CHECK_MEM(c->body, c->body_len, expected.ptr, expected.len);
    release_bytes(&expected);
}

static void conn_check_done(const struct conn_message *m, const struct client *c) {
    bool handled = c->status < 300 && c->status != 204;
    if (m->expects_other) CHECK_INT(c->status, 417);
    if (conn_gets_echo(m)) CHECK_INT(c->status, 200);
    if (m->close || handled) CHECK_INT(c->close, m->close);
    if (handled && field(c, "X-Echo")) conn_check_echo(m, c);
    if (handled && !field(c, "X-Echo")) CHECK_INT(c->length, c->status == 299 ? 4 : CONN_BULK);
}

// A client that waits to be asked for its body may send it or not when it is refused instead: no telling what is next.
static void conn_check_expecting(const struct conn_message *m, const struct client *c) {
    static const int refusals[] = {204, 400, 404, 405, 413, 417, 501};
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++)
        if (c->status == refusals[i] && m->has_body && (m->expects || m->expects_other)) CHECK(c->close);
}

// A refusal of a body comes late: a request that gets no echo may have been answered at its head.
static void conn_check_answer(const struct conn_run *r, const struct conn_message *m, const struct client *c) {
    bool decided = conn_gets_echo(m) || m->fate == CONN_BAD_HEAD || m->fate == CONN_PART_HEAD;
    if (r->timed && c->status == 408) {
        CHECK(c->close);
    } else if (m->fate == CONN_DONE) {
        conn_check_done(m, c);
    } else if (decided) {
        CHECK(c->close && c->status >= 400);
        if (m->fate == CONN_PART_BODY) CHECK_INT(c->status, 400);
        // A length that is too much can be refused for something else first, as that is a matter of the route.
        if (m->status && m->status != 413) CHECK_INT(c->status, m->status);
    }
}

// One answer and, before it, what tells the client to send its body.
static void conn_take_answer(const struct conn_run *r, const struct conn_message *m, struct client *c) {
    bool continued = false;
    for (net_reply(c, m->is_head); c->status == 100; net_reply(c, m->is_head)) {
        CHECK(m->expects && !continued);
        continued = true;
    }
    CHECK_CMP(c->status, >=, 200);
    conn_check_expecting(m, c);
    conn_check_answer(r, m, c);
}

// After an answer that says close and after a fault nothing more may come, and nothing but that may be missing.
static void conn_check_answers(struct conn_run *r) {
    struct client *c = &r->c;
    struct conn_reading reading;
    struct conn_message m;
    bool closed = false;
    conn_oracle(&r->in->text, &reading);
    while (c->at < c->len) {
        m = conn_next_message(&reading);
        NOTE("request %.100s", m.head ? m.head->ptr : "without a head");
        CHECK(!closed && m.fate != CONN_MISSING);
        conn_take_answer(r, &m, c);
        if (!m.head && m.is_head) c->at = c->len; // there is content if the request line was bad as well
        closed = c->close || m.fate != CONN_DONE;
    }
    m = conn_next_message(&reading);
    if (!closed && !r->timed) CHECK(m.fate == CONN_MISSING || (m.fate == CONN_PART_HEAD && reading.blank_end));
    release_facts(&reading.facts);
}

// ---- what has to be as before ----

static void conn_check_rest(void) {
    const hsrv_loop *loop = conn_world.loop;
    for (int i = 0; i < HSRV_RINGS; i++)
        CHECK_INT(loop->wheels[i].occupied, 0);
    CHECK(!loop->ready && !loop->closing && loop->output_len == 0);
    CHECK_INT(conn_world.srv->connections, 0);
    CHECK_INT(loop->refusals, 0);
    CHECK_INT(conn_world.released, conn_world.lent);
    if (!conn_world.base) conn_world.base = conn_used();
    CHECK_INT(conn_used(), conn_world.base);
    if (!conn_pool) CHECK_INT(conn_world.books.live, conn_world.srv->memory.used);
}

static void conn_serve(const struct fuzz_input *in) {
    struct conn_run r;
    memset(&r, 0, sizeof r);
    r.in = in;
    conn_accept(&r);
    while (conn_play_script(&r))
        continue;
    conn_send_rest(&r);
    conn_end(&r);
    if (!r.gone && !r.torn) conn_check_answers(&r);
    hang_up(&r.c);
    conn_check_rest();
}

// The server serves the next client as if nothing had been.
static void conn_check_fresh(void) {
    static const char text[] = "c\nPUT /echo/fresh HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok";
    struct fuzz_input in = fuzz_open((const uint8_t *)text, sizeof text - 1);
    conn_serve(&in);
    fuzz_close(&in);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct fuzz_input in = fuzz_open(data, size);
    if (!conn_world.srv) {
        conn_open();
        conn_check_fresh();
    }
    fuzz_ms += 1600 - fuzz_ms % 1600;
    conn_serve(&in);
    conn_check_fresh();
    fuzz_close(&in);
    return 0;
}
