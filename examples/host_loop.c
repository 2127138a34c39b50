// The server inside a loop that the program has already: here with epoll, beside a timer and the terminal.
//
//     cc -I. examples/host_loop.c -pthread -o host_loop && ./host_loop    (./host_loop 9000: another port)
//
//     curl http://localhost:8080/          a line that you type is what it answers from then on
//
// No thread is made: handlers run where httpsrv_poll is called, so they may touch what the loop touches, without a lock.
// host_poll.c does the same with poll(2).

#define HTTPSRV_IMPLEMENTATION
#include "httpsrv.h"
#include "serve.h"
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

typedef struct app {
    httpsrv *server;
    int epfd, timer;
    unsigned long long ticks;
    char line[256];
} app;

static void show(httpsrv_req *req, void *user) {
    app *a = user;
    httpsrv_replyf(req, 200, "text/plain", "%llu seconds, %s\n", a->ticks, a->line);
}

static void on_timer(app *a) {
    unsigned long long expired;
    if (read(a->timer, &expired, sizeof expired) == sizeof expired) a->ticks += expired;
}

static void on_terminal(app *a) {
    ssize_t n = read(STDIN_FILENO, a->line, sizeof a->line - 1);
    if (n <= 0) epoll_ctl(a->epfd, EPOLL_CTL_DEL, STDIN_FILENO, NULL);
    if (n > 0) a->line[n] = '\0';
    a->line[strcspn(a->line, "\r\n")] = '\0';
}

static void watch(app *a, int fd) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    epoll_ctl(a->epfd, EPOLL_CTL_ADD, fd, &event); // a terminal that is a file cannot be watched: then it is not
}

// The two rules of a host's loop: sleep no longer than httpsrv_timeout says, and call httpsrv_poll after each sleep,
// whatever ended it. To stop the server wakes the loop as well: httpsrv_fd becomes readable.
static httpsrv_result run(app *a) {
    struct epoll_event events[8];
    httpsrv_result result;
    do {
        int n = epoll_wait(a->epfd, events, 8, httpsrv_timeout(a->server));
        for (int i = 0; i < n; i++) {
            if (events[i].data.fd == a->timer) on_timer(a);
            if (events[i].data.fd == STDIN_FILENO) on_terminal(a);
        }
        result = httpsrv_poll(a->server, 0);
    } while (result == HTTPSRV_OK);
    return result; // GONE once it is drained
}

int main(int argc, char **argv) {
    app a = {.line = "nothing typed yet"};
    a.server = httpsrv_new(&(httpsrv_config){.port = serve_port(argc, argv)});
    httpsrv_on(a.server, "GET /", show, &a);
    if (serve_begin(a.server, "localhost") != HTTPSRV_OK) {
        httpsrv_free(a.server);
        return 1;
    }
    a.epfd = epoll_create1(EPOLL_CLOEXEC);
    a.timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
    timerfd_settime(a.timer, 0, &(struct itimerspec){{1, 0}, {1, 0}}, NULL);
    watch(&a, a.timer);
    watch(&a, STDIN_FILENO);
    watch(&a, httpsrv_fd(a.server));
    httpsrv_result result = run(&a);
    serve_end();
    close(a.timer);
    close(a.epfd);
    httpsrv_free(a.server);
    return result == HTTPSRV_GONE ? 0 : 1;
}
