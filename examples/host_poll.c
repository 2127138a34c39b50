// The server inside a plain poll(2) loop, with answers that a thread of the program makes.
//
//     cc -I. examples/host_poll.c -pthread -o host_poll && ./host_poll    (./host_poll 9000: another port)
//
//     curl http://localhost:8080/          answered in the loop
//     curl http://localhost:8080/sum       deferred, and finished by a thread: that wakes the loop
//
// The server makes no thread of its own; httpsrv_fd is all that the loop has to watch.

#define HTTPSRV_IMPLEMENTATION
#include "httpsrv.h"
#include "serve.h"
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static httpsrv *server;

static void show(httpsrv_req *req, void *user) {
    (void)user;
    httpsrv_reply(req, 200, "text/plain", HTTPSRV_STR("Hello from the loop\n"));
}

typedef struct sum_job {
    httpsrv_token token;
} sum_job;

static int running; // threads that may still call httpsrv_finish; atomic

static void *add_up(void *arg) {
    sum_job *job = arg;
    unsigned long long sum = 0;
    for (unsigned i = 1; i <= 10000000; i++)
        sum += i;
    char text[32];
    int len = snprintf(text, sizeof text, "%llu\n", sum);
    httpsrv_finish(server, job->token,
                   &(httpsrv_answer){.status = 200, .type = "text/plain", .body = {text, (size_t)len}});
    free(job);
    __atomic_sub_fetch(&running, 1, __ATOMIC_RELEASE);
    return NULL;
}

static void sum(httpsrv_req *req, void *user) {
    (void)user;
    pthread_t thread;
    sum_job *job = malloc(sizeof *job);
    if (job) job->token = httpsrv_defer(req);
    __atomic_add_fetch(&running, 1, __ATOMIC_RELAXED);
    if (job && pthread_create(&thread, NULL, add_up, job) == 0) {
        pthread_detach(thread);
        return;
    }
    __atomic_sub_fetch(&running, 1, __ATOMIC_RELAXED);
    free(job);
    httpsrv_reply(req, 503, "text/plain", HTTPSRV_STR("no thread\n"));
}

int main(int argc, char **argv) {
    server = httpsrv_new(&(httpsrv_config){.port = serve_port(argc, argv)});
    httpsrv_on(server, "GET /", show, NULL);
    httpsrv_on(server, "GET /sum", sum, NULL);
    if (serve_begin(server, "localhost") != HTTPSRV_OK) {
        httpsrv_free(server);
        return 1;
    }
    httpsrv_result result;
    do {
        struct pollfd watched = {.fd = httpsrv_fd(server), .events = POLLIN}; // yours beside it
        poll(&watched, 1, httpsrv_timeout(server));
        result = httpsrv_poll(server, 0);
    } while (result == HTTPSRV_OK); // GONE once it is drained
    serve_end();
    while (__atomic_load_n(&running, __ATOMIC_ACQUIRE) > 0)
        usleep(1000); // tokens end with the server, and so must their users before
    httpsrv_free(server);
    return result == HTTPSRV_GONE ? 0 : 1;
}
