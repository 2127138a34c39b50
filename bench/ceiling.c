// The ceiling: what the kernel leaves to a server with one epoll loop. It parses nothing: it counts empty
// lines, and sends one constant answer of 132 bytes for each, all answers of a read in one send. One thread.
//
//     cc -O2 bench/ceiling.c -o ceiling && ./ceiling --port 8080
//
// What it has in common with httpsrv.h is what a server cannot do without: one recv and one send per
// request, and each connection registered once, edge-triggered. It is no HTTP server: it never looks at what
// it was asked.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define ANSWER                                \
    "HTTP/1.1 200 OK\r\n"                     \
    "Content-Type: text/plain\r\n"            \
    "Content-Length: 13\r\n"                  \
    "Server: httpsrv\r\n"                     \
    "Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n" \
    "\r\n"                                    \
    "Hello, World!"

enum { ANSWER_BYTES = sizeof ANSWER - 1, COPIES = 512, EVENTS = 256, READ_BYTES = 65536 };

_Static_assert(ANSWER_BYTES == 132, "as long as the answer of httpsrv.h");

typedef struct connection {
    int fd;
    bool hung_up; // no edge follows this one, so a short read says nothing about the end
    bool closing;
    uint32_t column; // bytes of the line that has begun
    uint64_t owed;   // bytes of answers not sent yet
} connection;

static char answers[COPIES * ANSWER_BYTES];
static char input[READ_BYTES];

static void die(const char *what) {
    perror(what);
    exit(1);
}

// How many heads end in these bytes. A head ends with an empty line: one byte, the CR, before the LF.
static uint64_t count_heads(connection *c, const char *at, size_t len) {
    const char *end = at + len;
    uint64_t heads = 0;
    for (const char *lf; (lf = memchr(at, '\n', (size_t)(end - at))) != NULL; at = lf + 1) {
        if (c->column + (size_t)(lf - at) == 1) heads++;
        c->column = 0;
    }
    c->column += (uint32_t)(end - at);
    return heads;
}

// Sends what is owed. The rest of a half-sent answer comes first, which its place in the row of copies gives.
static void flush(connection *c) {
    while (c->owed > 0) {
        size_t skip = (size_t)((ANSWER_BYTES - c->owed % ANSWER_BYTES) % ANSWER_BYTES);
        size_t room = sizeof answers - skip;
        size_t want = c->owed < room ? (size_t)c->owed : room;
        ssize_t n = send(c->fd, answers + skip, want, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) return;
        if (n < 0) {
            c->closing = true;
            return;
        }
        c->owed -= (uint64_t)n;
    }
}

// Edge-triggered: reads until a short read says that nothing is left. While answers are owed it reads no
// more, so a client that does not take them cannot make it go on for ever.
static void serve(connection *c) {
    flush(c);
    while (c->owed == 0 && !c->closing) {
        ssize_t n = recv(c->fd, input, sizeof input, 0);
        if (n < 0 && errno == EAGAIN) return;
        if (n <= 0) {
            c->closing = true;
            return;
        }
        c->owed = count_heads(c, input, (size_t)n) * ANSWER_BYTES;
        flush(c);
        if ((size_t)n < sizeof input && !c->hung_up) return;
    }
}

static void accept_all(int epoll, int listener) {
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        connection *c = calloc(1, sizeof *c);
        if (!c) die("calloc");
        c->fd = fd;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
        struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = c};
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0) die("epoll_ctl");
    }
}

static int listen_on(int port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    if (fd < 0) die("socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
    if (bind(fd, (struct sockaddr *)&address, len) != 0) die("bind");
    if (listen(fd, 1024) != 0) die("listen");
    if (getsockname(fd, (struct sockaddr *)&address, &len) != 0) die("getsockname");
    printf("listening on http://127.0.0.1:%d/\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

static void run(int epoll, int listener) {
    struct epoll_event events[EVENTS];
    for (;;) {
        int n = epoll_wait(epoll, events, EVENTS, -1);
        if (n < 0 && errno != EINTR) die("epoll_wait");
        for (int i = 0; i < n; i++) {
            connection *c = events[i].data.ptr;
            if (!c) {
                accept_all(epoll, listener);
                continue;
            }
            c->hung_up |= (events[i].events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
            serve(c);
            if (!c->closing) continue;
            close(c->fd);
            free(c);
        }
    }
}

static int parse_port(int argc, char **argv) {
    if (argc == 1) return 8080;
    if (argc == 3 && strcmp(argv[1], "--port") == 0) return atoi(argv[2]);
    fprintf(stderr, "usage: ceiling [--port N]\n");
    exit(2);
}

int main(int argc, char **argv) {
    int port = parse_port(argc, argv);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    for (int i = 0; i < COPIES; i++)
        memcpy(answers + i * ANSWER_BYTES, ANSWER, ANSWER_BYTES);

    int listener = listen_on(port);
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event) != 0) die("epoll");
    run(epoll, listener);
}
