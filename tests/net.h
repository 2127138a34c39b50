// A client for tests, on plain sockets: it sends what it is told to, byte by byte if need be, and reads
// answers with a strict eye. Every wait has a limit; what goes wrong ends the test with what has been
// received so far.
//
//     struct client c = dial(port);
//     SEND(&c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
//     EXPECT(&c, 200, "Hello");            // or REPLY(&c) and a look at c.status, c.body, field(&c, "Date")
//     EXPECT_EOF(&c);
//     hang_up(&c);

#ifndef TEST_NET_H
#define TEST_NET_H

#include "test.h"
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <strings.h>
#include <sys/socket.h>

#define NET_TIMEOUT_MS 10000
#define NET_MAX_FIELDS 64

struct client_field { // offsets into head, so that a client can be copied
    size_t name;
    size_t value;
};

struct client {
    int fd;
    char *buf; // received: [at, len) is not consumed yet
    size_t at, len, size;
    int error; // errno of the receive that ended the stream, 0 after an orderly end
    bool eof;
    char *decoded; // body of a chunked answer
    // the last answer; its body is valid until the next one is read
    int status;
    char *body;
    size_t body_len;
    int64_t length; // of the Content-Length field, -1 without
    bool close;     // Connection: close
    int num_fields;
    struct client_field fields[NET_MAX_FIELDS];
    char head[8192];
};

TEST_FN void net_fail(const struct client *c, const char *what) {
    size_t left = c->len - c->at;
    const char *file = test_trace->file ? test_trace->file : "?";
    fprintf(stderr, "%s:%d: %s (errno %d)\n    received ", file, test_trace->line, what, c->error);
    test_quote(stderr, c->buf ? c->buf + c->at : "", left);
    if (left > TEST_PRINTED_BYTES) {
        fputs("\n    its end  ", stderr);
        test_quote(stderr, c->buf + c->len - 200, 200);
    }
    test_tail();
}

#define NET_CHECK(c, condition, what) ((condition) ? (void)0 : net_fail((c), (what)))

// ---- opening ----

TEST_FN socklen_t net_address(struct sockaddr_storage *out, const char *host, int port) {
    struct sockaddr_in *v4 = (struct sockaddr_in *)out;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)out;
    memset(out, 0, sizeof *out);
    if (inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons((uint16_t)port);
        return sizeof *v4;
    }
    if (inet_pton(AF_INET6, host, &v6->sin6_addr) != 1) FAIL("not a numeric address: %s", host);
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons((uint16_t)port);
    return sizeof *v6;
}

// A socket that is not connected yet.
TEST_FN int net_socket(int family) {
    int on = 1, fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return fd;
}

// Waits for the events; false when the time is up.
TEST_FN bool net_poll(int fd, short events, int64_t deadline) {
    struct pollfd p = {fd, events, 0};
    for (;;) {
        int64_t left = deadline - test_now();
        int ready = poll(&p, 1, left > 0 ? (int)left : 0);
        if (ready > 0) return true;
        if (ready == 0 && left <= 0) return false;
        if (ready < 0 && errno != EINTR) return false;
    }
}

TEST_FN int64_t net_deadline(void) {
    return test_now() + test_ms(NET_TIMEOUT_MS);
}

// 0, or the errno of a connection that was not to be had. The socket is non-blocking afterwards.
TEST_FN int net_connect(int fd, const char *host, int port) {
    struct sockaddr_storage to;
    socklen_t size = net_address(&to, host, port);
    int error = 0;
    socklen_t error_size = sizeof error;
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    if (connect(fd, (struct sockaddr *)&to, size) == 0) return 0;
    if (errno != EINPROGRESS) return errno;
    if (!net_poll(fd, POLLOUT, net_deadline())) return ETIMEDOUT;
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &error_size);
    return error;
}

TEST_FN struct client net_client(int fd) {
    struct client c;
    memset(&c, 0, sizeof c);
    c.fd = fd;
    c.length = -1;
    return c;
}

TEST_FN int net_family(const char *host) {
    return strchr(host, ':') ? AF_INET6 : AF_INET;
}

TEST_FN struct client dial_to(const char *host, int port) {
    struct client c = net_client(net_socket(net_family(host)));
    c.error = c.fd < 0 ? errno : net_connect(c.fd, host, port);
    NET_CHECK(&c, c.error == 0, "cannot connect");
    return c;
}

TEST_FN struct client dial_port(int port) {
    return dial_to("127.0.0.1", port);
}

#define dial(port) (TEST_HERE(), dial_port(port))

TEST_FN bool net_has_ipv6(void) {
    struct sockaddr_storage address;
    socklen_t size = net_address(&address, "::1", 0);
    int fd = net_socket(AF_INET6);
    bool yes = fd >= 0 && bind(fd, (struct sockaddr *)&address, size) == 0;
    if (fd >= 0) close(fd);
    return yes;
}

// Whether nobody listens there.
TEST_FN bool net_refused(int port) {
    int fd = net_socket(AF_INET);
    int error = net_connect(fd, "127.0.0.1", port);
    close(fd);
    return error == ECONNREFUSED;
}

// ---- closing ----

TEST_FN void hang_up(struct client *c) {
    if (c->fd >= 0) close(c->fd);
    free(c->buf);
    free(c->decoded);
    c->fd = -1;
    c->buf = c->decoded = NULL;
    c->at = c->len = c->size = 0;
}

TEST_FN void hang_up_all(struct client *clients, int count) {
    for (int i = 0; i < count; i++)
        hang_up(&clients[i]);
}

TEST_FN void net_reset(struct client *c) {
    struct linger hard = {1, 0};
    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    hang_up(c);
}

TEST_FN void half_close(struct client *c) {
    shutdown(c->fd, SHUT_WR);
}

// ---- sending ----

// Bytes sent: all, or fewer if the connection broke or the time was up.
TEST_FN size_t net_send_some(struct client *c, const char *ptr, size_t len, int64_t deadline) {
    size_t sent = 0;
    while (sent < len) {
        ssize_t n = send(c->fd, ptr + sent, len - sent, MSG_NOSIGNAL);
        if (n >= 0)
            sent += (size_t)n;
        else if (errno == EAGAIN && net_poll(c->fd, POLLOUT, deadline))
            continue;
        else if (errno != EINTR)
            break;
    }
    return sent;
}

TEST_FN void net_send(struct client *c, const char *ptr, size_t len) {
    size_t sent = net_send_some(c, ptr, len, net_deadline());
    if (sent < len) c->error = errno;
    NET_CHECK(c, sent == len, "cannot send");
}

// In pieces of `step` bytes, with a pause after each.
TEST_FN void net_send_split(struct client *c, const char *ptr, size_t len, size_t step) {
    const struct timespec pause = {0, 300000};
    for (size_t at = 0; at < len; at += step) {
        net_send(c, ptr + at, len - at < step ? len - at : step);
        nanosleep(&pause, NULL);
    }
}

TEST_FN void net_sendf(struct client *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
TEST_FN void net_sendf(struct client *c, const char *format, ...) {
    char text[16384];
    va_list args;
    int len;
    va_start(args, format);
    len = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    NET_CHECK(c, len >= 0 && (size_t)len < sizeof text, "request too long for the test");
    net_send(c, text, (size_t)len);
}

#define SEND(c, text)  (TEST_HERE(), net_send((c), (text), strlen(text)))
#define SENDF(c, ...)  (TEST_HERE(), net_sendf((c), __VA_ARGS__))
#define GET(c, target) SENDF(c, "GET %s HTTP/1.1\r\nHost: a\r\n\r\n", target)

// ---- receiving ----

TEST_FN void net_room(struct client *c) {
    if (c->size - c->len >= 65536) return;
    if (c->at > c->size / 2) {
        memmove(c->buf, c->buf + c->at, c->len - c->at);
        c->len -= c->at;
        c->at = 0;
        return;
    }
    c->size = c->size ? c->size * 2 : 131072;
    c->buf = (char *)realloc(c->buf, c->size);
    NET_CHECK(c, c->buf != NULL, "out of memory");
}

// One receive. False at the end of the stream or when the time is up (then eof is false).
TEST_FN bool net_receive(struct client *c, int64_t deadline) {
    net_room(c);
    while (!c->eof) {
        ssize_t n = recv(c->fd, c->buf + c->len, c->size - c->len, 0);
        if (n > 0) {
            c->len += (size_t)n;
            return true;
        }
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) {
            if (!net_poll(c->fd, POLLIN, deadline)) return false;
            continue;
        }
        c->eof = true;
        c->error = n < 0 ? errno : 0;
    }
    return false;
}

// Receives until n bytes are there to be consumed; false if the connection ends before.
TEST_FN bool net_reach(struct client *c, size_t n) {
    int64_t deadline = net_deadline();
    while (c->len - c->at < n) {
        if (net_receive(c, deadline)) continue;
        NET_CHECK(c, c->eof, "timed out");
        return false;
    }
    return true;
}

// Receives until n bytes are there to be consumed.
TEST_FN void net_need(struct client *c, size_t n) {
    NET_CHECK(c, net_reach(c, n), "connection ended early");
}

// Receives until the end of the stream; returns the bytes that were there to be consumed.
TEST_FN size_t net_until_end(struct client *c) {
    int64_t deadline = net_deadline();
    while (net_receive(c, deadline))
        continue;
    NET_CHECK(c, c->eof, "timed out waiting for the end of the stream");
    return c->len - c->at;
}

// Receives until the pattern is there; its offset from c->at.
TEST_FN size_t net_until(struct client *c, const char *pattern, size_t limit) {
    int64_t deadline = net_deadline();
    size_t len = strlen(pattern), from = 0;
    for (;;) {
        char *hit =
            c->len - c->at >= len ? (char *)memmem(c->buf + c->at + from, c->len - c->at - from, pattern, len) : NULL;
        if (hit) return (size_t)(hit - (c->buf + c->at));
        from = c->len - c->at >= len ? c->len - c->at - len + 1 : 0;
        NET_CHECK(c, from < limit, "too long");
        if (!net_receive(c, deadline)) net_fail(c, c->eof ? "connection ended early" : "timed out");
    }
}

// An orderly end without another byte.
#define EXPECT_EOF(c)                                                                              \
    (TEST_HERE(), NET_CHECK((c), net_until_end(c) == 0, "bytes instead of the end of the stream"), \
     NET_CHECK((c), (c)->error == 0, "reset instead of an orderly end"))

// The end of the stream, be it orderly or a reset, whatever comes before.
#define EXPECT_END(c) (TEST_HERE(), (void)net_until_end(c))

// Nothing arrives and nothing ends for so long.
#define EXPECT_SILENCE(c, ms)                                                                              \
    (TEST_HERE(), NET_CHECK((c), (c)->at == (c)->len && !net_receive((c), test_now() + (ms)) && !(c)->eof, \
                            "something instead of silence"))

// ---- answers ----

TEST_FN const char *field(const struct client *c, const char *name) {
    for (int i = 0; i < c->num_fields; i++)
        if (strcasecmp(c->head + c->fields[i].name, name) == 0) return c->head + c->fields[i].value;
    return NULL;
}

TEST_FN int count_fields(const struct client *c, const char *name) {
    int n = 0;
    for (int i = 0; i < c->num_fields; i++)
        n += strcasecmp(c->head + c->fields[i].name, name) == 0;
    return n;
}

TEST_FN bool net_is_token(const char *text) {
    static const char token[] = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    return *text && text[strspn(text, token)] == 0;
}

TEST_FN bool net_is_value(const char *text) {
    size_t len = strlen(text);
    for (size_t i = 0; i < len; i++)
        if (((unsigned char)text[i] < 32 && text[i] != '\t') || text[i] == 127) return false;
    return len == 0 || (text[0] != ' ' && text[len - 1] != ' ');
}

TEST_FN int64_t net_number(struct client *c, const char *text, const char *digits, int base) {
    NET_CHECK(c, *text && text[strspn(text, digits)] == 0 && strlen(text) < 16, "bad number");
    return strtoll(text, NULL, base);
}

// One line of the head, taken apart in place: "name: value".
TEST_FN void net_field_line(struct client *c, char *line) {
    char *colon = strchr(line, ':');
    NET_CHECK(c, c->num_fields < NET_MAX_FIELDS, "too many fields");
    NET_CHECK(c, colon && colon[1] == ' ', "field line without \": \"");
    *colon = 0;
    NET_CHECK(c, net_is_token(line), "field name is not a token");
    NET_CHECK(c, net_is_value(colon + 2), "bad field value");
    c->fields[c->num_fields].name = (size_t)(line - c->head);
    c->fields[c->num_fields++].value = (size_t)(colon + 2 - c->head);
}

TEST_FN void net_status_line(struct client *c, const char *line) {
    NET_CHECK(c, strncmp(line, "HTTP/1.1 ", 9) == 0, "not HTTP/1.1");
    NET_CHECK(c, strspn(line + 9, "0123456789") == 3 && line[9] >= '1' && line[9] <= '5', "bad status");
    NET_CHECK(c, line[12] == ' ' && net_is_value(line + 13), "bad reason phrase");
    c->status = atoi(line + 9);
}

TEST_FN void net_check_framing(struct client *c) {
    const char *length = field(c, "Content-Length"), *coding = field(c, "Transfer-Encoding");
    const char *connection = field(c, "Connection");
    bool bodiless = c->status < 200 || c->status == 204;
    NET_CHECK(c, count_fields(c, "Content-Length") <= 1, "Content-Length twice");
    NET_CHECK(c, count_fields(c, "Content-Type") <= 1, "Content-Type twice");
    NET_CHECK(c, count_fields(c, "Date") <= 1 && count_fields(c, "Server") <= 1, "Date or Server twice");
    NET_CHECK(c, count_fields(c, "Connection") <= 1, "Connection twice");
    NET_CHECK(c, !length || !coding, "both Content-Length and Transfer-Encoding");
    NET_CHECK(c, !bodiless || (!length && !coding), "a length where there is no body");
    NET_CHECK(c, !coding || strcmp(coding, "chunked") == 0, "unknown coding");
    c->length = length ? net_number(c, length, "0123456789", 10) : -1;
    c->close = connection && strcasecmp(connection, "close") == 0;
}

TEST_FN void net_read_head(struct client *c) {
    size_t len = net_until(c, "\r\n\r\n", sizeof c->head - 4) + 2;
    char *line = c->head, *end = c->head + len;
    memcpy(c->head, c->buf + c->at, len);
    NET_CHECK(c, !memchr(c->head, 0, len), "NUL in the head");
    c->num_fields = 0;
    for (bool first = true; line < end; first = false) {
        char *next = (char *)memmem(line, (size_t)(end - line), "\r\n", 2);
        *next = 0;
        if (first)
            net_status_line(c, line);
        else
            net_field_line(c, line);
        line = next + 2;
    }
    net_check_framing(c);
    c->at += len + 2;
}

// The text of the line at c->at, consumed.
TEST_FN const char *net_line(struct client *c, char *out, size_t size) {
    size_t len = net_until(c, "\r\n", size - 1);
    memcpy(out, c->buf + c->at, len);
    out[len] = 0;
    c->at += len + 2;
    return out;
}

TEST_FN void net_read_chunked(struct client *c) {
    char line[256];
    c->body_len = 0;
    for (;;) {
        size_t n = (size_t)net_number(c, net_line(c, line, sizeof line), "0123456789abcdefABCDEF", 16);
        if (n == 0) break;
        net_need(c, n + 2);
        NET_CHECK(c, memcmp(c->buf + c->at + n, "\r\n", 2) == 0, "chunk does not end with CRLF");
        c->decoded = (char *)realloc(c->decoded, c->body_len + n);
        memcpy(c->decoded + c->body_len, c->buf + c->at, n);
        c->body_len += n;
        c->at += n + 2;
    }
    while (*net_line(c, line, sizeof line))
        NET_CHECK(c, strstr(line, ": "), "malformed trailer field");
    c->body = c->decoded;
}

TEST_FN void net_reply(struct client *c, bool to_head) {
    size_t len;
    net_read_head(c);
    c->body = c->buf + c->at;
    c->body_len = 0;
    if (to_head || c->status < 200 || c->status == 204 || c->status == 304) return;
    if (field(c, "Transfer-Encoding")) {
        net_read_chunked(c);
        return;
    }
    NET_CHECK(c, c->length >= 0 || c->close, "an answer without an end");
    if (c->length >= 0) net_need(c, (size_t)c->length);
    len = c->length >= 0 ? (size_t)c->length : net_until_end(c);
    c->body = c->buf + c->at;
    c->body_len = len;
    c->at += len;
}

TEST_FN void net_expect(struct client *c, int status, const char *body) {
    net_reply(c, false);
    if (c->status == status &&
        (!body || (c->body_len == strlen(body) && (c->body_len == 0 || !memcmp(c->body, body, c->body_len)))))
        return;
    fprintf(stderr, "%s:%d: unexpected answer\n    status   %d, expected %d\n    body     ", test_trace->file,
            test_trace->line, c->status, status);
    test_quote(stderr, c->body, c->body_len);
    fputs("\n    expected ", stderr);
    test_quote(stderr, body ? body : "anything", strlen(body ? body : "anything"));
    test_tail();
}

// Reads one answer: into c->status, c->body, field(c, name).
#define REPLY(c)      (TEST_HERE(), net_reply((c), false))
#define REPLY_HEAD(c) (TEST_HERE(), net_reply((c), true)) // to a HEAD request
// Reads one answer and compares; a body of NULL stands for any.
#define EXPECT(c, status, body) (TEST_HERE(), net_expect((c), (status), (body)))

#endif // TEST_NET_H
