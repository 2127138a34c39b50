// Serves requests to itself so that bench/check.sh can count the instructions of httpsrv_poll with callgrind: a server
// in host mode and a client of it in one thread, so that what happens is the same in every run.
//
//     cc -O2 -I. -pthread bench/check.c -o check && ./check BATCH REQUESTS
//
// One keep-alive connection sends REQUESTS requests, BATCH of them at a time; each batch is answered before the next.

#define HTTPSRV_IMPLEMENTATION
#define HTTPSRV_API __attribute__((noinline)) extern // callgrind goes by the names of functions
#include "httpsrv.h"

#include <poll.h>

#define REQUEST                        \
    "GET /plaintext HTTP/1.1\r\n"      \
    "Host: 127.0.0.1\r\n"              \
    "User-Agent: bench/1.0\r\n"        \
    "Accept: text/plain,*/*;q=0.8\r\n" \
    "\r\n"
#define STATUS_LINE "HTTP/1.1 200 OK\r\n"
#define BODY        "Hello, World!"

enum { MAX_BATCH = 64, MAX_ANSWER = 512, MAX_TURNS = 100, TURN_MS = 100 };

static char input[MAX_BATCH * (sizeof REQUEST - 1)];
static char output[MAX_BATCH * MAX_ANSWER];

static void die(const char *what) {
    fprintf(stderr, "check: %s\n", what);
    exit(1);
}

static void hello(httpsrv_req *req, void *user) {
    (void)user;
    httpsrv_reply(req, 200, "text/plain", HTTPSRV_STR(BODY));
}

static int connect_to(int port) {
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) != 0) die("cannot connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    return fd;
}

static void send_batch(int fd, int batch) {
    const size_t len = (size_t)batch * (sizeof REQUEST - 1);
    if (send(fd, input, len, MSG_NOSIGNAL) != (ssize_t)len) die("cannot send");
}

// Serves until something arrives; usually that is one turn.
static size_t receive(httpsrv *srv, int fd, char *at, size_t size) {
    struct pollfd readable = {.fd = fd, .events = POLLIN};
    int turns = 0;
    do {
        if (turns++ == MAX_TURNS) die("no answer");
        if (httpsrv_poll(srv, TURN_MS) != HTTPSRV_OK) die("the server failed");
    } while (poll(&readable, 1, 0) == 0);
    const ssize_t n = recv(fd, at, size, 0);
    if (n <= 0) die("closed before the answer");
    return (size_t)n;
}

static bool is_answer(const char *at, size_t len) {
    const size_t status = sizeof STATUS_LINE - 1, body = sizeof BODY - 1;
    return len > status + body && memcmp(at, STATUS_LINE, status) == 0 && memcmp(at + len - body, BODY, body) == 0;
}

// The first answer tells how long the others are: only the Date differs.
static size_t first_answer(httpsrv *srv, int fd) {
    size_t len = 0;
    send_batch(fd, 1);
    do {
        len += receive(srv, fd, output + len, MAX_ANSWER - len);
    } while (!is_answer(output, len) && len < MAX_ANSWER);
    if (!is_answer(output, len)) die("wrong answer");
    return len;
}

static void exchange(httpsrv *srv, int fd, int batch, size_t answer) {
    const size_t wanted = (size_t)batch * answer;
    size_t len = 0;
    send_batch(fd, batch);
    while (len < wanted) {
        len += receive(srv, fd, output + len, wanted - len);
    }
    for (int i = 0; i < batch; i++) {
        if (!is_answer(output + (size_t)i * answer, answer)) die("wrong answer");
    }
}

int main(int argc, char **argv) {
    const int batch = argc == 3 ? atoi(argv[1]) : 0, requests = argc == 3 ? atoi(argv[2]) : 0;
    if (batch < 1 || batch > MAX_BATCH || requests < batch) {
        fprintf(stderr, "usage: check BATCH REQUESTS, BATCH at most %d\n", MAX_BATCH);
        return 2;
    }
    for (int i = 0; i < batch; i++) {
        memcpy(input + (size_t)i * (sizeof REQUEST - 1), REQUEST, sizeof REQUEST - 1);
    }
    httpsrv *srv = httpsrv_new(&(httpsrv_config){.host = "127.0.0.1"});
    httpsrv_on(srv, "GET /plaintext", hello, NULL);
    if (httpsrv_listen(srv) != HTTPSRV_OK) die(httpsrv_error(srv));
    const int fd = connect_to(httpsrv_port(srv, 0));
    const size_t answer = first_answer(srv, fd);
    for (int done = 0; done < requests; done += batch) {
        exchange(srv, fd, batch, answer);
    }
    close(fd);
    httpsrv_free(srv);
    return 0;
}
