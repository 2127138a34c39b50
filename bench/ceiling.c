// The ceiling: what the kernel leaves to a server with one epoll loop. It parses nothing: it counts empty
// lines, and sends one constant answer for each, all answers of a read in one send. One thread.
//
//     cc -O2 bench/ceiling.c -o ceiling && ./ceiling --port 8080
//
//     --body FILE     the body of the answer ["Hello, World!": 132 bytes with the head, as many as httpsrv.h sends]
//     --takes BYTES   of a body follow each head of a request; none of them is a line end
//     --close         closes after each answer
//
// What it has in common with httpsrv.h is what a server cannot do without: one recv and one send per
// request, and each connection registered once, edge-triggered. A body that is larger than its buffer it sends by
// sendfile. It is no HTTP server: it never looks at what it was asked.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEAD                                  \
    "HTTP/1.1 200 OK\r\n"                     \
    "Content-Type: text/plain\r\n"            \
    "Content-Length: %lld\r\n"                \
    "Server: httpsrv\r\n"                     \
    "Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n" \
    "%s\r\n"
#define BODY "Hello, World!"

enum { ANSWERS_BYTES = 1 << 17, MAX_COPIED = 1 << 16, EVENTS = 256, READ_BYTES = 65536, DEFER_SECONDS = 10 };

typedef struct connection {
    int fd;
    bool hung_up; // no edge follows this one, so a short read says nothing about the end
    bool closing;
    uint32_t column; // bytes of the line that has begun
    uint64_t skip;   // bytes of a request's body still to come
    uint64_t owed;   // bytes of answers not sent yet
} connection;

// The answer: its head and, unless that goes by sendfile, its body, as often as there is room.
static struct {
    char copies[ANSWERS_BYTES];
    size_t in_memory; // bytes of all copies
    size_t first;     // bytes of one copy
    uint64_t bytes;   // of one answer, with what comes from the file
    int file;         // of the body; -1: it is in memory
    uint64_t takes;   // bytes of body in each request
    bool close;
} answer = {.file = -1};

static char input[READ_BYTES];

static void die(const char *what) {
    perror(what);
    exit(1);
}

// How many requests end in these bytes. A head ends with an empty line: one byte, the CR, before the LF.
static uint64_t count_requests(connection *c, const char *at, size_t len) {
    const char *end = at + len;
    uint64_t requests = 0;
    while (at < end) {
        if (c->skip > 0) {
            size_t here = c->skip < (size_t)(end - at) ? (size_t)c->skip : (size_t)(end - at);
            c->skip -= here;
            at += here;
            requests += c->skip == 0;
            continue;
        }
        const char *lf = memchr(at, '\n', (size_t)(end - at));
        if (!lf) break;
        bool is_empty = c->column + (size_t)(lf - at) == 1;
        if (is_empty && answer.takes == 0) requests++;
        if (is_empty) c->skip = answer.takes;
        c->column = 0;
        at = lf + 1;
    }
    c->column += (uint32_t)(end - at);
    return requests;
}

// Sends from place `at` of an answer on. What is in memory goes with as many answers behind it as there are copies. A
// head does not wait for its file (MSG_MORE): in one packet they cost the sender up to twice as much on loopback.
static ssize_t send_from(const connection *c, uint64_t at) {
    if (at >= answer.first) {
        off_t offset = (off_t)(at - answer.first);
        return sendfile(c->fd, answer.file, &offset, (size_t)(answer.bytes - at));
    }
    size_t room = answer.in_memory - (size_t)at;
    size_t want = c->owed < room ? (size_t)c->owed : room;
    return send(c->fd, answer.copies + at, want, MSG_NOSIGNAL);
}

// Sends what is owed. The rest of a half-sent answer comes first.
static void flush(connection *c) {
    while (c->owed > 0) {
        ssize_t n = send_from(c, (answer.bytes - c->owed % answer.bytes) % answer.bytes);
        if (n < 0 && errno == EAGAIN) return;
        if (n <= 0) {
            c->closing = true;
            return;
        }
        c->owed -= (uint64_t)n;
        c->closing = answer.close && c->owed == 0;
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
        c->owed = count_requests(c, input, (size_t)n) * answer.bytes;
        flush(c);
        if ((size_t)n < sizeof input && !c->hung_up) return;
    }
}

// Serves the connection and closes it if that was all.
static bool serve_or_close(connection *c) {
    serve(c);
    if (!c->closing) return true;
    close(c->fd);
    free(c);
    return false;
}

// A connection whose request is there already, and that is closed after the answer, is never registered.
static void accept_all(int epoll, int listener) {
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        connection *c = calloc(1, sizeof *c);
        if (!c) die("calloc");
        c->fd = fd;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
        if (!serve_or_close(c)) continue;
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
    // Nobody is accepted before there is something to read.
    if (answer.close) setsockopt(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &(int){DEFER_SECONDS}, sizeof(int));
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
            serve_or_close(c);
        }
    }
}

// The file's size.
static uint64_t open_body(const char *path) {
    struct stat status;
    answer.file = open(path, O_RDONLY | O_CLOEXEC);
    if (answer.file < 0 || fstat(answer.file, &status) != 0) die(path);
    return (uint64_t)status.st_size;
}

static void make_answer(const char *path) {
    uint64_t body = path ? open_body(path) : sizeof BODY - 1;
    char *at = answer.copies;
    int head = snprintf(at, ANSWERS_BYTES, HEAD, (long long)body, answer.close ? "Connection: close\r\n" : "");
    answer.bytes = (uint64_t)head + body;
    answer.first = answer.in_memory = (size_t)head;
    if (body > MAX_COPIED) return;
    if (!path) memcpy(at + head, BODY, body);
    if (path && pread(answer.file, at + head, body, 0) != (ssize_t)body) die(path);
    answer.file = -1;
    answer.first += body;
    for (size_t i = 1; i < ANSWERS_BYTES / answer.first; i++)
        memcpy(at + i * answer.first, at, answer.first);
    answer.in_memory = ANSWERS_BYTES / answer.first * answer.first;
}

static int parse_flags(int argc, char **argv) {
    static const struct option flags[] = {
        {"port", required_argument, NULL, 'p'},
        {"body", required_argument, NULL, 'b'},
        {"takes", required_argument, NULL, 't'},
        {"close", no_argument, NULL, 'c'},
        {NULL, 0, NULL, 0},
    };
    const char *body = NULL;
    int port = 8080, flag;
    while ((flag = getopt_long(argc, argv, "", flags, NULL)) != -1) {
        switch (flag) {
        case 'p': port = atoi(optarg); break;
        case 'b': body = optarg; break;
        case 't': answer.takes = strtoull(optarg, NULL, 10); break;
        case 'c': answer.close = true; break;
        default: fprintf(stderr, "usage: ceiling [--port N] [--body FILE] [--takes BYTES] [--close]\n"); exit(2);
        }
    }
    make_answer(body);
    return port;
}

int main(int argc, char **argv) {
    int port = parse_flags(argc, argv);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    signal(SIGPIPE, SIG_IGN); // of sendfile, which knows no MSG_NOSIGNAL

    int listener = listen_on(port);
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event) != 0) die("epoll");
    run(epoll, listener);
}
