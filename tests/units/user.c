// A program as a user writes it: starts a server on a free port, asks it and compares the answers. Valid C
// and C++; tests/test_units.sh builds it in many ways:
//
//     UNIT_IMPLEMENTATION   this unit has the implementation, else impl.c has
//     UNIT_SYSTEM_FIRST     the system's headers come before httpsrv.h
//     UNIT_ASSERT           brings a HTTPSRV_ASSERT of its own and wants it used

#ifdef UNIT_SYSTEM_FIRST
#include <sys/types.h>
#include <sys/socket.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#endif

#ifdef UNIT_ASSERT
static int asserted;
#define HTTPSRV_ASSERT(condition) \
    (__atomic_store_n(&asserted, 1, __ATOMIC_RELAXED), (condition) ? (void)0 : __builtin_trap())
#endif

#ifdef UNIT_IMPLEMENTATION
#define HTTPSRV_IMPLEMENTATION
#endif
#include "httpsrv.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <unistd.h>

enum { BODY_BYTES = 3000, ANSWER_BYTES = 8192 };

static int failures;

static void expect(int condition, const char *what) {
    if (condition) return;
    fprintf(stderr, "failed: %s\n", what);
    failures++;
}

static void hello(httpsrv_req *req, void *user) {
    httpsrv_str name = httpsrv_param(req, "name");
    httpsrv_replyf(req, 200, "text/plain", "%s, %.*s!", (const char *)user, HTTPSRV_FMT(name));
}

static void echo(httpsrv_req *req, void *user) {
    (void)user;
    httpsrv_set(req, "X-Twice", HTTPSRV_STR("no"));
    httpsrv_reply(req, 200, NULL, httpsrv_body(req));
}

static int connect_to(int port) {
    struct sockaddr_in address;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_port = htons((uint16_t)port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd >= 0 && connect(fd, (const struct sockaddr *)&address, sizeof address) != 0) perror("connect");
    return fd;
}

// Sends the request and leaves all of the answer, up to the end of the connection, in `answer`.
static void ask(int port, const char *request, const char *body, char *answer) {
    size_t len = 0;
    ssize_t n;
    int fd = connect_to(port);
    expect(send(fd, request, strlen(request), MSG_NOSIGNAL) == (ssize_t)strlen(request), "send");
    if (*body) expect(send(fd, body, strlen(body), MSG_NOSIGNAL) == (ssize_t)strlen(body), "send body");
    while ((n = recv(fd, answer + len, ANSWER_BYTES - 1 - len, 0)) > 0)
        len += (size_t)n;
    answer[len] = '\0';
    close(fd);
}

static void ask_all(int port) {
    static char answer[ANSWER_BYTES];
    static char body[BODY_BYTES + 1];
    const char *end;
    memset(body, 'x', BODY_BYTES);

    ask(port, "GET /hello/World HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "", answer);
    expect(strncmp(answer, "HTTP/1.1 200 OK\r\n", 17) == 0, "status of /hello/World");
    expect(strstr(answer, "\r\n\r\nHello, World!") != NULL, "body of /hello/World");

    ask(port, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3000\r\nConnection: close\r\n\r\n", body, answer);
    end = strstr(answer, "\r\n\r\n");
    expect(strstr(answer, "X-Twice: no\r\n") != NULL, "field of /echo");
    expect(end && strcmp(end + 4, body) == 0, "body of /echo, through a pool");
}

static httpsrv_result add_echo(httpsrv *srv) {
    httpsrv_route_config route;
    memset(&route, 0, sizeof route);
    route.pattern = "POST /echo";
    route.handler = echo;
    route.pool = "work";
    return httpsrv_route(srv, &route);
}

int main(void) {
    static char greeting[] = "Hello";
    static httpsrv_config config;
    config.listen[0] = "127.0.0.1:0";
    config.pools[0].name = "work";
    config.pools[0].threads = 1;
    httpsrv *srv = httpsrv_new(&config);
    httpsrv_on(srv, "GET /hello/:name", hello, greeting);
    add_echo(srv);
    if (httpsrv_listen(srv) != HTTPSRV_OK || httpsrv_start(srv) != HTTPSRV_OK) {
        fprintf(stderr, "%s\n", httpsrv_error(srv));
        return 1;
    }
    alarm(20);
    ask_all(httpsrv_port(srv, 0));
    httpsrv_stop(srv);
    expect(httpsrv_join(srv) == HTTPSRV_OK, "join");
    httpsrv_free(srv);
#ifdef UNIT_ASSERT
    expect(asserted, "HTTPSRV_ASSERT was used");
#endif
    return failures > 0;
}
