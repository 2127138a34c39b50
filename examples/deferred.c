// Answers that come later, from a thread of the program's own: nobody blocks meanwhile.
//
//     cc -I. examples/deferred.c -pthread -o deferred && ./deferred    (./deferred 9000: another port)
//
//     curl http://localhost:8080/in/2000          answered by the clock thread, two seconds later
//     curl -m 1 http://localhost:8080/in/2000     leaves early. To the server that is a client that has finished sending
//                                                 and is answered all the same; one that resets is gone
//
// A handler that defers returns at once; thousands of requests may wait without a thread each. What waits is a token: a
// number that stays valid, or turns stale, whatever becomes of the request.

#define HTTPSRV_IMPLEMENTATION
#include "httpsrv.h"
#include "serve.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

typedef struct alarm_entry {
    struct alarm_entry *next; // sorted by time
    struct timespec due;
    httpsrv_token token;
} alarm_entry;

static httpsrv *server;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static alarm_entry *alarms; // under the lock
static bool over;           // likewise

static bool is_before(struct timespec a, struct timespec b) {
    return a.tv_sec != b.tv_sec ? a.tv_sec < b.tv_sec : a.tv_nsec < b.tv_nsec;
}

static void set_alarm(alarm_entry *entry) {
    pthread_mutex_lock(&lock);
    alarm_entry **link = &alarms;
    while (*link && !is_before(entry->due, (*link)->due))
        link = &(*link)->next;
    entry->next = *link;
    *link = entry;
    pthread_cond_signal(&changed);
    pthread_mutex_unlock(&lock);
}

// Waits for the next alarm that is due; NULL once the program ends.
static alarm_entry *next_alarm(void) {
    alarm_entry *entry = NULL;
    pthread_mutex_lock(&lock);
    while (!over && !entry) {
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        if (!alarms) {
            pthread_cond_wait(&changed, &lock);
        } else if (is_before(now, alarms->due)) {
            struct timespec due = alarms->due;
            pthread_cond_timedwait(&changed, &lock, &due);
        } else {
            entry = alarms;
            alarms = entry->next;
        }
    }
    pthread_mutex_unlock(&lock);
    return entry;
}

// Any thread may finish. A client that has left meanwhile is no error, just nobody to answer.
static void *run_clock(void *arg) {
    (void)arg;
    for (alarm_entry *entry = next_alarm(); entry; entry = next_alarm()) {
        httpsrv_answer answer = {.status = 200, .type = "text/plain", .body = HTTPSRV_STR("here you are\n")};
        httpsrv_result result = httpsrv_finish(server, entry->token, &answer);
        if (result != HTTPSRV_OK) printf("an answer for nobody: %s\n", httpsrv_result_text(result));
        free(entry);
    }
    return NULL;
}

static void answer_in(httpsrv_req *req, void *user) {
    (void)user;
    long ms = (long)httpsrv_number(httpsrv_param(req, "ms"), 60000);
    alarm_entry *entry = ms >= 0 ? malloc(sizeof *entry) : NULL;
    if (!entry) {
        httpsrv_reply(req, 400, "text/plain", HTTPSRV_STR("milliseconds, please, at most 60000\n"));
        return;
    }
    clock_gettime(CLOCK_REALTIME, &entry->due);
    entry->due.tv_sec += ms / 1000 + (entry->due.tv_nsec + ms % 1000 * 1000000) / 1000000000L;
    entry->due.tv_nsec = (entry->due.tv_nsec + ms % 1000 * 1000000) % 1000000000L;
    entry->token = httpsrv_defer(req);
    set_alarm(entry); // from here on the answer may come at any time, even before this handler has returned
}

static void end_clock(pthread_t clock) {
    pthread_mutex_lock(&lock);
    over = true;
    pthread_cond_signal(&changed);
    pthread_mutex_unlock(&lock);
    pthread_join(clock, NULL);
    while (alarms) {
        alarm_entry *entry = alarms;
        alarms = entry->next;
        free(entry);
    }
}

int main(int argc, char **argv) {
    pthread_t clock;
    server = httpsrv_new(&(httpsrv_config){.port = serve_port(argc, argv)});
    httpsrv_on(server, "GET /in/:ms", answer_in, NULL);
    if (pthread_create(&clock, NULL, run_clock, NULL) != 0) return 1;
    int code = serve_as(server, "localhost");
    end_clock(clock); // before the server goes that it answers to
    httpsrv_free(server);
    return code;
}
