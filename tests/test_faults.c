// Faults: short lives of a server, in each of which one allocation or one system call fails: the first, the second, and
// so on until none does. Whatever fails, the client gets its answer, a complete error answer or the end of its
// connection; the next request is served; nothing is leaked and nothing hangs.

#define HTTPSRV_IMPLEMENTATION
#define HTTPSRV_SEAM           "tests/seam_faults.h"
#define HTTPSRV_READ_BUFFER    4096 // small, so that short messages take every way there is
#define HTTPSRV_WRITE_BUFFER   8192
#define HTTPSRV_REQUEST_MEMORY 512
#include "../httpsrv.h"

#include "server.h"
#include <poll.h>
#include <pthread.h>

#define NO_MEMORY       "no memory\n"
#define NAME            "J\xc3\xbcrgen"
#define MEGABYTE        1048576
#define RUNS_ONE_BY_ONE 64 // then in steps, where calls are many

static struct server s;

// ---- what can go wrong ----

struct fault {
    int call; // enum fault_call
    int error;
    bool benign;  // nobody may notice
    bool lasting; // all further calls fail as well, until the client is done
};

static const struct fault allocation[] = {{FAULT_ALLOC, ENOMEM, false, false}, {FAULT_ALLOC, ENOMEM, false, true}};
static const struct fault receive[] = {{FAULT_RECV, EINTR, true, false},       {FAULT_RECV, EAGAIN, true, false},
                                       {FAULT_RECV, FAULT_SHORT, true, false}, {FAULT_RECV, FAULT_SHORT, true, true},
                                       {FAULT_RECV, ECONNRESET, false, false}, {FAULT_RECV, ENOMEM, false, false}};
static const struct fault send_one[] = {{FAULT_SEND, EINTR, true, false},       {FAULT_SEND, EAGAIN, true, false},
                                        {FAULT_SEND, FAULT_SHORT, true, false}, {FAULT_SEND, EPIPE, false, false},
                                        {FAULT_SEND, ECONNRESET, false, false}, {FAULT_SEND, ENOBUFS, false, false}};
static const struct fault send_many[] = {
    {FAULT_SENDMSG, EINTR, true, false},       {FAULT_SENDMSG, EAGAIN, true, false},
    {FAULT_SENDMSG, FAULT_SHORT, true, false}, {FAULT_SENDMSG, EPIPE, false, false},
    {FAULT_SENDMSG, ECONNRESET, false, false}, {FAULT_SENDMSG, ENOBUFS, false, false}};
static const struct fault accepting[] = {
    {FAULT_ACCEPT, EINTR, true, false},   {FAULT_ACCEPT, ECONNABORTED, true, false},
    {FAULT_ACCEPT, EPROTO, true, false},  {FAULT_ACCEPT, EMFILE, false, false},
    {FAULT_ACCEPT, ENFILE, false, false}, {FAULT_ACCEPT, ENOMEM, false, false}};
static const struct fault watching[] = {{FAULT_EPOLL_ADD, ENOMEM, false, false},
                                        {FAULT_EPOLL_ADD, ENOSPC, false, false}};
static const struct fault waiting[] = {{FAULT_EPOLL_WAIT, EINTR, true, false}, {FAULT_EPOLL_WAIT, ENOMEM, true, false}};
static const struct fault shutting[] = {{FAULT_SHUTDOWN, ENOTCONN, false, false}};
static const struct fault parking[] = {{FAULT_FUTEX_WAIT, EINTR, true, false},
                                       {FAULT_FUTEX_WAIT, EAGAIN, true, false},
                                       {FAULT_FUTEX_WAIT, FAULT_SPURIOUS, true, false}};
static const struct fault sockets[] = {{FAULT_SOCKET, EMFILE, false, false},
                                       {FAULT_SOCKET, ENOMEM, false, false},
                                       {FAULT_SOCKET, EAFNOSUPPORT, false, false}};
static const struct fault options[] = {{FAULT_SETSOCKOPT, ENOMEM, false, false},
                                       {FAULT_SETSOCKOPT, ENOPROTOOPT, false, false}};
static const struct fault binding[] = {{FAULT_BIND, EADDRINUSE, false, false},
                                       {FAULT_BIND, EACCES, false, false},
                                       {FAULT_BIND, EADDRNOTAVAIL, false, false}};
static const struct fault listening[] = {{FAULT_LISTEN, EADDRINUSE, false, false}};
static const struct fault naming[] = {{FAULT_GETSOCKNAME, ENOBUFS, false, false}};
static const struct fault polling[] = {{FAULT_EPOLL_CREATE, EMFILE, false, false},
                                       {FAULT_EPOLL_CREATE, ENOMEM, false, false}};
static const struct fault waking[] = {{FAULT_EVENTFD, EMFILE, false, false}, {FAULT_EVENTFD, ENOMEM, false, false}};
static const struct fault reserving[] = {{FAULT_OPEN_NULL, EMFILE, false, false},
                                         {FAULT_OPEN_NULL, ENOENT, false, false}};
static const struct fault limits[] = {{FAULT_GETRLIMIT, EPERM, true, false}};
static const struct fault threads[] = {{FAULT_THREAD_CREATE, EAGAIN, false, false}};

static const char *error_name(int error) {
    if (error == FAULT_SHORT) return "a byte";
    return error == FAULT_SPURIOUS ? "no reason" : strerror(error);
}

static void *failing_realloc(void *user, void *ptr, size_t old_size, size_t new_size) {
    if (new_size > 0 && fault_due(FAULT_ALLOC)) return NULL;
    return counting_realloc(user, ptr, old_size, new_size);
}

// ---- bodies on loan: each in a block of its own, which is wiped and freed by its release ----

#define MAX_LOANS 64

struct loan {
    char *body;
    size_t len;
    int released;
};

static struct loan loans[MAX_LOANS];
static int num_loans;

static void release_loan(void *arg) {
    struct loan *loan = (struct loan *)arg;
    CHECK_INT(__atomic_add_fetch(&loan->released, 1, __ATOMIC_ACQ_REL), 1);
    memset(loan->body, 0xdd, loan->len);
    free(loan->body);
}

static struct loan *new_loan(size_t len) {
    const int i = __atomic_fetch_add(&num_loans, 1, __ATOMIC_ACQ_REL);
    CHECK_CMP(i, <, MAX_LOANS);
    loans[i].body = (char *)malloc(len + 1);
    CHECK(loans[i].body != NULL);
    memcpy(loans[i].body, blob, len);
    loans[i].len = len;
    STORE(loans[i].released, 0);
    return &loans[i];
}

static void check_loans(void) {
    for (int i = 0; i < LOAD(num_loans); i++)
        CHECK_INT(LOAD(loans[i].released), 1);
    STORE(num_loans, 0);
}

// ---- handlers: without memory for the answer they try a short one, else leave it to the server ----

static void settle(httpsrv_req *req, httpsrv_result result) {
    CHECK(result == HTTPSRV_OK || result == HTTPSRV_GONE || result == HTTPSRV_NOMEM);
    if (result != HTTPSRV_NOMEM) return;
    result = httpsrv_reply(req, 503, "text/plain", HTTPSRV_STR(NO_MEMORY));
    CHECK(result == HTTPSRV_OK || result == HTTPSRV_GONE || result == HTTPSRV_NOMEM);
}

static void say_hello(httpsrv_req *req, void *user) {
    (void)user;
    settle(req, httpsrv_reply(req, 200, "text/plain", HTTPSRV_STR(HELLO)));
}

static void say_big(httpsrv_req *req, void *user) {
    (void)user;
    settle(req, httpsrv_reply(req, 200, "application/octet-stream", blob_view(number_param(req, "n"))));
}

static void say_borrowed(httpsrv_req *req, void *user) {
    struct loan *loan = new_loan(number_param(req, "n"));
    httpsrv_answer answer = {.status = 200, .release = release_loan, .release_arg = loan};
    answer.body.ptr = loan->body;
    answer.body.len = loan->len;
    (void)user;
    const httpsrv_result result = httpsrv_reply_with(req, &answer);
    if (result == HTTPSRV_NOMEM) release_loan(loan); // it has stayed with us
    settle(req, result);
}

// Takes its time, until the client has lost patience.
static void say_late(httpsrv_req *req, void *user) {
    for (int i = 0; i < 500 && !httpsrv_gone(req); i++)
        test_sleep(1);
    say_borrowed(req, user);
}

static void say_body(httpsrv_req *req, void *user) {
    (void)user;
    settle(req, httpsrv_reply(req, 200, "application/octet-stream", httpsrv_body(req)));
}

static httpsrv_result set_fields(httpsrv_req *req) {
    httpsrv_result result = HTTPSRV_NOMEM;
    char *text = (char *)httpsrv_alloc(req, 700);
    if (!text) return result;
    memcpy(text, blob, 700);
    for (size_t i = 0; i < 700; i++)
        if (text[i] < 'A') text[i] = 'a';
    const httpsrv_str value = {text, 700};
    result = httpsrv_set(req, "X-Set", value);
    if (result == HTTPSRV_OK) result = httpsrv_set(req, "x-set", HTTPSRV_STR("last"));
    if (result == HTTPSRV_OK) result = httpsrv_add(req, "X-Add", HTTPSRV_STR("one"));
    if (result == HTTPSRV_OK) result = httpsrv_add(req, "X-Add", HTTPSRV_STR("two"));
    return result;
}

static void say_fields(httpsrv_req *req, void *user) {
    const httpsrv_str name = httpsrv_param(req, "name"), rest = httpsrv_param(req, "rest");
    const httpsrv_str query = httpsrv_query(req, "q"), peer = httpsrv_peer(req), path = httpsrv_path(req);
    (void)user;
    CHECK_VIEW(name, NAME);
    CHECK_CMP(rest.len, >=, 5);
    CHECK_MEM(rest.ptr + rest.len - 5, 5, "a b/c", 5);
    CHECK_CMP(path.len, ==, strlen("/users/" NAME "/") + rest.len);
    CHECK_MEM(path.ptr + path.len - rest.len, rest.len, rest.ptr, rest.len);
    const httpsrv_result result = query.ptr && peer.ptr ? set_fields(req) : HTTPSRV_NOMEM;
    if (result != HTTPSRV_OK) {
        settle(req, result);
        return;
    }
    settle(req, httpsrv_replyf(req, 200, "text/plain", "%.*s %zu %0900d", HTTPSRV_FMT(query), rest.len, 7));
}

// ---- the client's side of a conversation ----

static int deviations; // answers that were not as they are without faults
static char first_deviation[200];

struct want {
    int status;
    const char *body; // NULL: an answer to HEAD
    size_t len;
    bool or_hello; // that will do as well
};

static bool deviate(const struct client *c, const struct want *want, const char *what) {
    if (deviations++ == 0)
        snprintf(first_deviation, sizeof first_deviation, "%s where %d was expected (errno %d)", what, want->status,
                 c->error);
    return false;
}

static bool receive_head(struct client *c) {
    for (size_t n = 1; net_reach(c, n); n = c->len - c->at + 1)
        if (memmem(c->buf + c->at, c->len - c->at, "\r\n\r\n", 4)) return true;
    return false;
}

static bool body_is(const struct client *c, const char *body, size_t len) {
    return c->body_len == len && memcmp(c->body, body, len) == 0;
}

// The answers of a server, and of our handlers, that have no memory or no descriptor left.
static bool is_complaint(const struct client *c, const struct want *want) {
    if (want->or_hello && c->status == 200 && body_is(c, HELLO, strlen(HELLO))) return true;
    if (c->status == 500) return !want->body || body_is(c, "500 Internal Server Error\n", 26);
    if (c->status != 503) return false;
    return c->body_len == 0 || body_is(c, "503 Service Unavailable\n", 24) || body_is(c, NO_MEMORY, strlen(NO_MEMORY));
}

// An answer that has broken off: as far as it came it has to be right.
static bool torn(struct client *c, const struct want *want) {
    const size_t len = c->len - c->at;
    if (c->status == want->status && want->body && c->length == (int64_t)want->len)
        NET_CHECK(c, memcmp(c->buf + c->at, want->body, len) == 0, "wrong bytes in a torn answer");
    return deviate(c, want, "a torn answer");
}

static bool judge(struct client *c, const struct want *want) {
    const bool expected = c->status == want->status && (!want->body || body_is(c, want->body, want->len));
    if (!expected) {
        NET_CHECK(c, is_complaint(c, want), "an answer that nobody gave");
        deviate(c, want, "a complaint");
    }
    if (!c->close) return true;
    NET_CHECK(c, net_until_end(c) == 0, "bytes behind the last answer");
    return false;
}

// Reads one answer. Whether the connection lives on.
static bool hear(struct client *c, const struct want *want) {
    c->status = 0;
    if (!receive_head(c)) {
        NET_CHECK(c, memcmp("HTTP/1.1 ", c->buf + c->at, c->len - c->at < 9 ? c->len - c->at : 9) == 0, "no answer");
        return deviate(c, want, "the end");
    }
    net_read_head(c);
    const bool bodiless = c->status < 200 || c->status == 204 || !want->body;
    NET_CHECK(c, bodiless || c->length >= 0, "an answer without a length");
    const size_t len = bodiless ? 0 : (size_t)c->length;
    if (!net_reach(c, len)) return torn(c, want);
    c->body = c->buf + c->at;
    c->body_len = len;
    c->at += len;
    return judge(c, want);
}

// Sends if it can: the connection may have ended.
static void say_bytes(struct client *c, const char *ptr, size_t len) {
    net_send_some(c, ptr, len, net_deadline());
}

static void say(struct client *c, const char *text) {
    say_bytes(c, text, strlen(text));
}

static bool hear_text(struct client *c, int status, const char *body) {
    const struct want want = {status, body, test_strlen(body), false};
    return hear(c, &want);
}

static bool hear_blob(struct client *c, size_t len) {
    const struct want want = {200, blob, len, false};
    return hear(c, &want);
}

static bool turn(struct client *c, const char *request, int status, const char *body) {
    say(c, request);
    return hear_text(c, status, body);
}

static bool turn_blob(struct client *c, const char *request, size_t len) {
    say(c, request);
    return hear_blob(c, len);
}

#define REQUEST(line) line " HTTP/1.1\r\nHost: a\r\n"
#define PLAIN(line)   REQUEST(line) "\r\n"

// ---- what clients do ----

static struct client call(void) {
    return dial_port(s.port);
}

static void talk_hello(void) {
    struct client c = call();
    turn(&c, PLAIN("GET /hello"), 200, HELLO);
    hang_up(&c);
}

// The length of the path decides at which step the request's own memory does not suffice any more.
static bool ask_fields(struct client *c, int pad) {
    char request[2000], body[1000];
    snprintf(request, sizeof request,
             "GET /users/J%%C3%%BCrgen/%0*da%%20b/c?p=1&q=x%%2By+z HTTP/1.1\r\nHost: a\r\n\r\n", pad, 0);
    snprintf(body, sizeof body, "x+y z %d %0900d", pad + 5, 7);
    const bool on = turn(c, request, 200, body);
    if (c->status != 200) return on;
    CHECK_STR(field(c, "X-Set"), "last");
    CHECK_INT(count_fields(c, "X-Set"), 1);
    CHECK_INT(count_fields(c, "X-Add"), 2);
    return on;
}

static void talk_inline(void) {
    struct client c = call();
    if (turn(&c, PLAIN("GET /hello"), 200, HELLO) && ask_fields(&c, 1) && ask_fields(&c, 150) && ask_fields(&c, 250) &&
        ask_fields(&c, 700) && turn(&c, PLAIN("HEAD /hello"), 200, NULL) &&
        turn(&c, PLAIN("GET /nowhere/%41"), 404, "404 Not Found\n") &&
        turn(&c, PLAIN("PUT /hello"), 405, "405 Method Not Allowed\n"))
        turn(&c, REQUEST("GET /a/../hello") "Connection: close\r\n\r\n", 200, HELLO);
    hang_up(&c);
}

#define CHUNKED "Transfer-Encoding: chunked\r\n\r\n"

static bool post_length(struct client *c) {
    say(c, REQUEST("POST /echo") "Content-Length: 10000\r\n\r\n");
    say_bytes(c, blob, 3000);
    test_sleep(1);
    say_bytes(c, blob + 3000, 7000);
    return hear_blob(c, 10000);
}

static bool post_chunked(struct client *c) {
    say(c, REQUEST("POST /echo") CHUNKED "10;a=\"b\"\r\n");
    say_bytes(c, blob, 16);
    say(c, "\r\n1770\r\n");
    say_bytes(c, blob + 16, 6000);
    say(c, "\r\n0\r\nX-Trailer: one\r\n");
    test_sleep(1);
    say(c, "X-Trailer: two\r\n\r\n");
    return hear_blob(c, 6016);
}

static bool post_expecting(struct client *c) {
    say(c, REQUEST("POST /echo") "Content-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    if (!hear_text(c, 100, "") || c->status != 100) return false;
    return turn(c, "12345", 200, "12345");
}

// A body that no handler wants is dropped, and the connection goes on.
static bool post_nowhere(struct client *c) {
    say(c, REQUEST("POST /nowhere") CHUNKED "1770\r\n");
    say_bytes(c, blob, 6000);
    say(c, "\r\n0\r\nX-Trailer: one\r\n\r\n");
    return hear_text(c, 404, "404 Not Found\n");
}

static void talk_bodies(void) {
    struct client c = call();
    if (post_length(&c) && post_chunked(&c) && post_expecting(&c) && post_nowhere(&c))
        turn(&c, REQUEST("POST /echo") "Content-Length: 3\r\n\r\nabc", 200, "abc");
    hang_up(&c);
}

static void talk_big(void) {
    struct client c = call();
    if (turn_blob(&c, PLAIN("GET /big/1048576"), MEGABYTE) && turn_blob(&c, PLAIN("GET /borrow/1048576"), MEGABYTE) &&
        turn(&c, PLAIN("HEAD /borrow/1048576"), 200, NULL) && turn_blob(&c, PLAIN("GET /borrow/100"), 100))
        turn(&c, PLAIN("GET /hello"), 200, HELLO);
    hang_up(&c);
}

static bool post_pool(struct client *c) {
    say(c, REQUEST("POST /pool/echo") "Content-Length: 3000\r\n\r\n");
    say_bytes(c, blob, 3000);
    return hear_blob(c, 3000);
}

static void talk_pool(void) {
    struct client c = call();
    if (turn(&c, PLAIN("GET /pool/hello"), 200, HELLO) && turn_blob(&c, PLAIN("GET /pool/big/100000"), 100000) &&
        turn_blob(&c, PLAIN("GET /pool/borrow/100000"), 100000) && turn_blob(&c, PLAIN("GET /pool/borrow/50"), 50) &&
        post_pool(&c))
        turn(&c, REQUEST("GET /pool/hello") "Connection: close\r\n\r\n", 200, HELLO);
    hang_up(&c);
}

static void talk_gone(void) {
    struct client c = call();
    say(&c, PLAIN("GET /pool/late/9000"));
    test_sleep(2);
    net_reset(&c);
    talk_hello();
}

static void say_in_pieces(struct client *c, const char *text, size_t step) {
    const size_t len = strlen(text);
    for (size_t at = 0; at < len; at += step) {
        say_bytes(c, text + at, len - at < step ? len - at : step);
        test_sleep(1);
    }
}

static void talk_pieces(void) {
    struct client c = call();
    say_in_pieces(&c, PLAIN("GET /users/J%C3%BCrgen/a%20b/c?q=%41"), 29);
    char body[1000];
    snprintf(body, sizeof body, "A 5 %0900d", 7);
    bool on = hear_text(&c, 200, body);
    say(&c, PLAIN("GET /pool/hello") PLAIN("GET /hello") PLAIN("GET /pool/borrow/9000") PLAIN("GET /big/20000"));
    say(&c, PLAIN("GET /big/5000") PLAIN("GET /big/5000") PLAIN("GET /nowhere"));
    on = on && hear_text(&c, 200, HELLO) && hear_text(&c, 200, HELLO) && hear_blob(&c, 9000) && hear_blob(&c, 20000);
    if (on && hear_blob(&c, 5000) && hear_blob(&c, 5000)) hear_text(&c, 404, "404 Not Found\n");
    hang_up(&c);
}

static void talk_refused(void) {
    const struct want want = {503, "503 Service Unavailable\n", 24, true};
    struct client first = call();
    turn(&first, PLAIN("GET /hello"), 200, HELLO);
    struct client second = call();
    say(&second, PLAIN("GET /hello"));
    hear(&second, &want);
    hang_up(&first);
    hang_up(&second);
    WAIT(metrics(&s).connections == 0);
}

static void talk_bad(void) {
    static const char *const bad[] = {REQUEST("GET /hello") "Bad Field: a\r\n\r\n",
                                      REQUEST("POST /echo") CHUNKED "5\r\n12345\r\nx\r\n"};
    for (size_t i = 0; i < ROWS(bad); i++) {
        struct client c = call();
        say(&c, bad[i]);
        say_bytes(&c, blob, 10000); // behind it, so that closing at once would destroy the answer
        hear_text(&c, 400, "400 Bad Request\n");
        hang_up(&c);
    }
    struct client c = call();
    say(&c, REQUEST("POST /echo") "Content-Length: 99999\r\n\r\n");
    say_bytes(&c, blob, 20000);
    hear_text(&c, 413, "413 Content Too Large\n");
    hang_up(&c);
}

// With little room in the socket the kernel itself cuts and refuses to take what is sent.
static void talk_trickle(void) {
    struct client c = call();
    say(&c, PLAIN("GET /big/60000") PLAIN("GET /big/3000") PLAIN("GET /borrow/60000") PLAIN("GET /pool/big/60000"));
    test_sleep(1);
    if (hear_blob(&c, 60000) && hear_blob(&c, 3000) && hear_blob(&c, 60000)) hear_blob(&c, 60000);
    hang_up(&c);
}

static struct client left[3]; // what talk_drain leaves behind

static void talk_drain(void) {
    for (size_t i = 0; i < ROWS(left); i++)
        left[i] = call();
    turn(&left[0], PLAIN("GET /hello"), 200, HELLO);
    say(&left[1], REQUEST("GET /hello"));
    say(&left[2], PLAIN("GET /pool/big/50000"));
}

static void after_drain(void) {
    hear_blob(&left[2], 50000);
    net_until_end(&left[0]);
    net_until_end(&left[1]);
    hang_up_all(left, ROWS(left));
}

// ---- a server's life ----

struct scenario {
    const char *name;
    void (*talk)(void);
    void (*after)(void); // once the server has stopped
    int reactors;        // 0: served by a host's loop
    int connections;
    int drain;
    int send_buffer;
    bool whole; // faults from setup to stop, not only while clients talk
    bool loose; // clients may be cut off even without faults
};

static const struct scenario life = {.name = "life", .talk = talk_hello, .reactors = 2, .whole = true};
static const struct scenario hosted = {.name = "hosted", .talk = talk_pool, .whole = true};
static const struct scenario drain = {.name = "drain",
                                      .talk = talk_drain,
                                      .after = after_drain,
                                      .reactors = 2,
                                      .drain = 10,
                                      .whole = true,
                                      .loose = true};
static const struct scenario in_line = {.name = "inline", .talk = talk_inline, .reactors = 1};
static const struct scenario bodies = {.name = "bodies", .talk = talk_bodies, .reactors = 1};
static const struct scenario big = {.name = "big", .talk = talk_big, .reactors = 1};
static const struct scenario pool = {.name = "pool", .talk = talk_pool, .reactors = 1};
static const struct scenario gone = {.name = "gone", .talk = talk_gone, .reactors = 1};
static const struct scenario pieces = {.name = "pieces", .talk = talk_pieces, .reactors = 1};
static const struct scenario refused = {.name = "refused", .talk = talk_refused, .reactors = 1, .connections = 1};
static const struct scenario bad = {.name = "bad", .talk = talk_bad, .reactors = 1};
static const struct scenario trickle = {.name = "trickle", .talk = talk_trickle, .reactors = 1, .send_buffer = 4608};

static pthread_t host;

static void *host_loop(void *arg) {
    (void)arg;
    for (;;) {
        struct pollfd p = {httpsrv_fd(s.srv), POLLIN, 0};
        poll(&p, 1, httpsrv_timeout(s.srv));
        const httpsrv_result result = httpsrv_poll(s.srv, 0);
        if (result == HTTPSRV_GONE) return NULL;
        CHECK(result == HTTPSRV_OK || (result == HTTPSRV_SYS && fault_count() > 0 && fault_error() != EINTR));
    }
}

static httpsrv_result start(const struct scenario *scenario) {
    const httpsrv_result result = scenario->reactors ? httpsrv_start(s.srv) : httpsrv_listen(s.srv);
    s.port = httpsrv_port(s.srv, 0);
    if (result == HTTPSRV_OK && !scenario->reactors) CHECK_INT(pthread_create(&host, NULL, host_loop, NULL), 0);
    return result;
}

static void stop(const struct scenario *scenario) {
    httpsrv_stop(s.srv);
    if (scenario->reactors)
        CHECK_INT(httpsrv_join(s.srv), HTTPSRV_OK);
    else
        CHECK_INT(pthread_join(host, NULL), 0);
    const httpsrv_metrics m = metrics(&s);
    CHECK_INT(m.connections, 0);
    if (scenario->loose) return; // the deadline is too short for promises
    CHECK_INT(m.drain_cut, 0);
    CHECK_INT(m.drain_stuck, 0);
}

// The results go unchecked, as the documentation allows.
static void add_routes(void) {
    static const struct {
        const char *pattern;
        httpsrv_handler handler;
        const char *pool;
    } routes[] = {{"GET /hello", say_hello, NULL},
                  {"GET /users/:name/*rest", say_fields, NULL},
                  {"POST /echo", say_body, NULL},
                  {"GET /big/:n", say_big, NULL},
                  {"GET /borrow/:n", say_borrowed, NULL},
                  {"GET /pool/hello", say_hello, "work"},
                  {"GET /pool/big/:n", say_big, "work"},
                  {"GET /pool/borrow/:n", say_borrowed, "default"},
                  {"GET /pool/late/:n", say_late, "default"},
                  {"* /pool/echo", say_body, "default"}};
    for (size_t i = 0; i < ROWS(routes); i++) {
        const httpsrv_route_config route = {
            .pattern = routes[i].pattern, .handler = routes[i].handler, .pool = routes[i].pool};
        httpsrv_route(s.srv, &route);
    }
}

static void make(const struct scenario *scenario) {
    httpsrv_config config = {.host = "127.0.0.1", .reactors = scenario->reactors};
    config.affinity = config.steer = scenario == &life;
    config.pools[0].name = "work";
    config.pools[0].threads = 2;
    config.pools[0].queue = 4;
    config.max.connections = scenario->connections;
    config.backlog = 64;
    config.max.body = 20000;
    config.timeout_ms.drain = scenario->drain;
    config.allocator.fn = failing_realloc;
    config.allocator.user = &s;
    config.logger.fn = counting_logger;
    config.logger.user = &s;
    memset(&s, 0, sizeof s);
    s.srv = httpsrv_new(&config);
    if (s.srv) add_routes();
}

// ---- one run ----

// A failure of setup is reported as documented and in words.
static void check_setup_error(const struct fault *fault, httpsrv_result result) {
    const bool memory = fault->call == FAULT_ALLOC;
    const httpsrv_result expected = memory ? HTTPSRV_NOMEM : HTTPSRV_SYS;
    CHECK_CMP(fault_end(), >, 0);
    CHECK(!fault->benign);
    CHECK_INT(result, s.srv ? expected : HTTPSRV_ARG);
    CHECK_HAS(httpsrv_error(s.srv), memory ? "out of memory" : strerror(fault->error));
    CHECK_INT(httpsrv_port(s.srv, 0), -1);
    CHECK_INT(httpsrv_fd(s.srv), -1);
    if (s.srv) CHECK_INT(httpsrv_listen(s.srv), expected); // errors of setup stick
}

// Serves clients while a call fails; then, without faults, one more.
static void serve_faults(const struct scenario *scenario, const struct fault *fault, size_t nth) {
    if (!scenario->whole) fault_begin(FAULT_ONE(fault->call), fault->error, nth, fault->lasting);
    scenario->talk();
    if (scenario->whole) {
        stop(scenario);
        if (scenario->after) scenario->after();
    }
    fault_end();
    if (scenario->whole) CHECK_INT(start(scenario), HTTPSRV_OK);
    check_alive(&s);
    stop(scenario);
}

// Returns whether a call has failed.
static bool run(const struct scenario *scenario, const struct fault *fault, size_t nth) {
    NOTE("%s: %s number %zu%s ends with %s", scenario->name, fault_name(fault->call), nth,
         fault->lasting ? " and all after it" : "", error_name(fault->error));
    const int open_before = test_descriptors();
    deviations = 0;
    fault_send_buffer = scenario->send_buffer;
    if (scenario->whole) fault_begin(FAULT_ONE(fault->call), fault->error, nth, fault->lasting);
    make(scenario);
    const httpsrv_result result = start(scenario);
    if (result == HTTPSRV_OK)
        serve_faults(scenario, fault, nth);
    else
        check_setup_error(fault, result);
    const size_t failed = fault_end();
    if (deviations && !scenario->loose && (failed == 0 || fault->benign)) FAIL("%s", first_deviation);
    if (s.srv) dispose(&s);
    CHECK_INT(s.bytes, 0);
    check_loans();
    CHECK_INT(test_descriptors(), open_before);
    return failed > 0;
}

static void run_all(const struct scenario *scenario, const struct fault *faults, size_t count) {
    for (size_t i = 0; i < MEGABYTE; i++)
        blob[i] = (char)('!' + (i * 7 + i / 89) % 90);
    for (size_t i = 0; i < count; i++) {
        size_t nth = 1;
        for (int tries = 0; tries < 20 && nth == 1; tries++) { // there may be no such call where things go another way
            while (run(scenario, &faults[i], nth))
                nth += nth < RUNS_ONE_BY_ONE ? 1 : 13;
        }
        CHECK_CMP(nth, >, 1); // or nothing was tested
    }
}

#define FAULTS(scenario, faults)                  \
    TEST(scenario##_##faults) {                   \
        run_all(&scenario, faults, ROWS(faults)); \
    }

FAULTS(life, allocation)
FAULTS(life, sockets)
FAULTS(life, options)
FAULTS(life, binding)
FAULTS(life, listening)
FAULTS(life, naming)
FAULTS(life, polling)
FAULTS(life, waking)
FAULTS(life, reserving)
FAULTS(life, limits)
FAULTS(life, threads)
FAULTS(life, watching)
FAULTS(life, waiting)
FAULTS(life, accepting)
FAULTS(life, receive)
FAULTS(life, send_one)
FAULTS(life, parking)

FAULTS(hosted, allocation)
FAULTS(hosted, sockets)
FAULTS(hosted, polling)
FAULTS(hosted, waking)
FAULTS(hosted, reserving)
FAULTS(hosted, threads)
FAULTS(hosted, watching)
FAULTS(hosted, waiting)
FAULTS(hosted, accepting)
FAULTS(hosted, receive)
FAULTS(hosted, send_one)
FAULTS(hosted, send_many)
FAULTS(hosted, parking)

FAULTS(drain, allocation)
FAULTS(drain, watching)
FAULTS(drain, waiting)
FAULTS(drain, accepting)
FAULTS(drain, receive)
FAULTS(drain, send_one)
FAULTS(drain, send_many)

FAULTS(in_line, allocation)
FAULTS(in_line, watching)
FAULTS(in_line, waiting)
FAULTS(in_line, accepting)
FAULTS(in_line, receive)
FAULTS(in_line, send_one)

FAULTS(bodies, allocation)
FAULTS(bodies, waiting)
FAULTS(bodies, receive)
FAULTS(bodies, send_one)
FAULTS(bodies, send_many)

FAULTS(big, allocation)
FAULTS(big, waiting)
FAULTS(big, receive)
FAULTS(big, send_one)
FAULTS(big, send_many)

FAULTS(pool, allocation)
FAULTS(pool, waiting)
FAULTS(pool, receive)
FAULTS(pool, send_one)
FAULTS(pool, send_many)

FAULTS(gone, allocation)
FAULTS(gone, waiting)
FAULTS(gone, receive)

FAULTS(pieces, allocation)
FAULTS(pieces, waiting)
FAULTS(pieces, receive)
FAULTS(pieces, send_one)
FAULTS(pieces, send_many)

FAULTS(refused, allocation)
FAULTS(refused, watching)
FAULTS(refused, waiting)
FAULTS(refused, accepting)
FAULTS(refused, receive)
FAULTS(refused, send_one)
FAULTS(refused, shutting)

FAULTS(bad, allocation)
FAULTS(bad, waiting)
FAULTS(bad, accepting)
FAULTS(bad, receive)
FAULTS(bad, send_one)
FAULTS(bad, shutting)

FAULTS(trickle, allocation)
FAULTS(trickle, waiting)
FAULTS(trickle, receive)
FAULTS(trickle, send_many)

// ---- what takes more than one failure ----

static void open_faulty(const struct scenario *scenario) {
    make(scenario);
    CHECK_INT(start(scenario), HTTPSRV_OK);
}

static void close_faulty(const struct scenario *scenario) {
    check_alive(&s);
    stop(scenario);
    dispose(&s);
}

// A server that is out of descriptors, even for its reserve, waits for better times without spinning.
TEST(accepting_fails_for_a_while) {
    open_faulty(&in_line);
    fault_begin(FAULT_ONE(FAULT_ACCEPT) | FAULT_ONE(FAULT_OPEN_NULL), EMFILE, 1, true);
    struct client c = call();
    say(&c, PLAIN("GET /hello"));
    test_sleep(250);
    CHECK_CMP(fault_count(), >=, 3);
    CHECK_CMP(fault_end(), <=, 20);
    CHECK(hear_text(&c, 200, HELLO));
    CHECK_INT(deviations, 0);
    hang_up(&c);
    close_faulty(&in_line);
}

TEST(waiting_fails_for_a_while) {
    open_faulty(&in_line);
    fault_begin(FAULT_ONE(FAULT_EPOLL_WAIT), ENOMEM, 1, true);
    struct client c = call(); // wakes the reactor out of the call that it is in
    say(&c, PLAIN("GET /hello"));
    test_sleep(200);
    CHECK_CMP(fault_end(), <=, 40);
    CHECK(hear_text(&c, 200, HELLO));
    CHECK_INT(deviations, 0);
    hang_up(&c);
    close_faulty(&in_line);
}

// Stops even when waiting for events fails all the while.
TEST(stopping_while_waiting_fails) {
    open_faulty(&life);
    fault_begin(FAULT_ONE(FAULT_EPOLL_WAIT), ENOMEM, 1, true);
    stop(&life);
    fault_end();
    dispose(&s);
}

// Descriptors run out for real, so that the listeners are not watched for a while, and watching them again fails.
TEST(watching_again_fails) {
    struct rlimit limit, tight;
    open_faulty(&in_line);
    CHECK_INT(getrlimit(RLIMIT_NOFILE, &limit), 0);
    struct client c = net_client(net_socket(AF_INET));
    const int next = dup(0);
    close(next);
    tight = limit;
    tight.rlim_cur = (rlim_t)next;
    CHECK_INT(setrlimit(RLIMIT_NOFILE, &tight), 0);
    CHECK_INT(net_connect(c.fd, "127.0.0.1", s.port), 0);
    WAIT(metrics(&s).items[HTTPSRV_LOG_NO_DESCRIPTORS] > 0);
    test_sleep(30); // by now the listeners are not watched, but not for the whole pause yet
    fault_begin(FAULT_ONE(FAULT_EPOLL_MOD), ENOMEM, 1, false);
    CHECK_INT(setrlimit(RLIMIT_NOFILE, &limit), 0);
    WAIT(fault_count() == 1);
    fault_end();
    hang_up(&c);
    close_faulty(&in_line);
}

// All addresses are IPv4's alone where there is no IPv6.
TEST(no_ipv6) {
    static const struct fault missing[] = {{FAULT_SOCKET, EAFNOSUPPORT, true, false},
                                           {FAULT_BIND, EADDRNOTAVAIL, true, false}};
    for (size_t i = 0; i < ROWS(missing); i++) {
        memset(&s, 0, sizeof s);
        s.srv = httpsrv_new(&(httpsrv_config){.logger = {counting_logger, &s}, .allocator = {failing_realloc, &s}});
        httpsrv_on(s.srv, "GET /hello", say_hello, NULL);
        fault_begin(FAULT_ONE(missing[i].call), missing[i].error, 1, false);
        CHECK_INT(start(&in_line), HTTPSRV_OK);
        CHECK_INT(fault_end(), 1);
        close_faulty(&in_line);
    }
}

// Workers outlive a restart, and may begin to run only after it.
TEST(workers_that_begin_late) {
    make(&life);
    fault_late_ms = 300;
    CHECK_INT(httpsrv_listen(s.srv), HTTPSRV_OK);
    fault_late_ms = 0;
    for (int round = 0; round < 3; round++) {
        CHECK_INT(start(&life), HTTPSRV_OK);
        talk_hello();
        stop(&life);
    }
    CHECK_INT(start(&life), HTTPSRV_OK);
    talk_pool();
    stop(&life);
    dispose(&s);
}

// httpsrv_run gives up when a reactor's thread cannot be had.
TEST(running_without_a_thread) {
    make(&life);
    CHECK_INT(httpsrv_listen(s.srv), HTTPSRV_OK);
    fault_begin(FAULT_ONE(FAULT_THREAD_CREATE), EAGAIN, 1, false);
    CHECK_INT(httpsrv_run(s.srv), HTTPSRV_SYS);
    CHECK_INT(fault_end(), 1);
    CHECK_HAS(httpsrv_error(s.srv), strerror(EAGAIN));
    CHECK_INT(httpsrv_port(s.srv, 0), -1);
    dispose(&s);
}

static bool listen_again(const struct scenario *scenario, const struct fault *fault, size_t nth) {
    NOTE("%s: %s number %zu ends with %s", scenario->name, fault_name(fault->call), nth, error_name(fault->error));
    const int open_before = test_descriptors();
    open_faulty(scenario);
    check_alive(&s);
    stop(scenario);
    fault_begin(FAULT_ONE(fault->call), fault->error, nth, false);
    const httpsrv_result result = start(scenario);
    const size_t failed = fault_end();
    if (failed)
        check_setup_error(fault, result);
    else
        stop(scenario);
    dispose(&s);
    CHECK_INT(test_descriptors(), open_before);
    return failed > 0;
}

TEST(listening_again_fails) {
    static const struct fault faults[] = {
        {FAULT_SOCKET, EMFILE, false, false},       {FAULT_SETSOCKOPT, ENOMEM, false, false},
        {FAULT_BIND, EADDRINUSE, false, false},     {FAULT_LISTEN, EADDRINUSE, false, false},
        {FAULT_GETSOCKNAME, ENOBUFS, false, false}, {FAULT_EPOLL_ADD, ENOSPC, false, false},
        {FAULT_THREAD_CREATE, EAGAIN, false, false}};
    for (size_t i = 0; i < ROWS(faults); i++) {
        for (int k = 0; k < 2; k++) {
            size_t nth = 1;
            while (listen_again(k ? &hosted : &life, &faults[i], nth))
                nth++;
        }
    }
}
