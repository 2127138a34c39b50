// Many clients of server-sent events at once: opens their streams, waits until each has got the same events, and prints
// what they cost the server in anonymous memory.
//
//     build/listeners PORT PID [CLIENTS [EVENTS]]        make streams starts a server and does it with 1,000 and 5
//
// Which events the server sends is its own affair, as long as their texts differ: /events ticks once a second. Counting
// begins with the first one of the client that came last.

#define _GNU_SOURCE // memmem
#include "client.h"
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <time.h>

enum { DEFAULT_CLIENTS = 1000, DEFAULT_EVENTS = 5, TEXT_SIZE = 8192, PATIENCE_SECONDS = 60 };

typedef struct listener {
    char *text; // of the stream, as it came: head, chunks and all
    size_t len;
} listener;

static void give_up(const char *what, int number, const char *text) {
    fprintf(stderr, "listeners: client %d: %s\n%s\n", number, what, text);
    exit(1);
}

// The next event from `at` on: the lines up to an empty one, of which one is "data:". Those of chunks end in CR LF and
// those of events in LF, so they cannot be mistaken for each other. NULL if none is complete.
static const char *find_event(const char *at, size_t *len) {
    for (const char *data = strstr(at, "data:"); data; data = strstr(data + 1, "data:")) {
        const char *begin = data;
        const char *end = strstr(data, "\n\n");
        if (!end) return NULL;
        while (begin > at && !(begin[-1] == '\n' && (begin - at < 2 || begin[-2] == '\n' || begin[-2] == '\r')))
            begin--;
        *len = (size_t)(end - begin);
        return begin;
    }
    return NULL;
}

// Where the text of this event is in what a client has got; NULL if it is not.
static const char *find_same(const listener *l, const char *event, size_t len) {
    return (const char *)memmem(l->text, l->len, event, len);
}

static int count_events(const char *at) {
    int count = 0;
    size_t len;
    for (const char *event = find_event(at, &len); event; event = find_event(event + len, &len))
        count++;
    return count;
}

static void receive(listener *l, int fd, int number) {
    const ssize_t n = recv(fd, l->text + l->len, TEXT_SIZE - 1 - l->len, 0);
    if (n <= 0) give_up(n == 0 ? "the stream has ended" : strerror(errno), number, l->text);
    l->len += (size_t)n;
    l->text[l->len] = '\0';
    if (l->len == TEXT_SIZE - 1) give_up("too much text", number, l->text);
    if (l->len >= 13 && strncmp(l->text, "HTTP/1.1 200 ", 13) != 0) give_up("not 200", number, l->text);
}

// Receives until the client has got so many events from the common one on. That is the first one of the last client.
static bool is_done(const listener *all, int i, int clients, int events) {
    size_t len;
    const char *first = find_event(all[clients - 1].text, &len);
    const char *here = first ? find_same(&all[i], first, len) : NULL;
    return here && count_events(here) >= events;
}

static void receive_all(listener *all, struct pollfd *fds, int clients, int events) {
    const time_t start = time(NULL);
    for (int done = 0; done < clients;) {
        if (time(NULL) - start > PATIENCE_SECONDS) {
            give_up("events are missing", done, all[done].text);
        }
        if (poll(fds, (nfds_t)clients, 1000) < 0) die("poll");
        for (int i = 0; i < clients; i++) {
            if (fds[i].revents) receive(&all[i], fds[i].fd, i);
        }
        while (done < clients && is_done(all, done, clients, events))
            done++;
    }
}

// All have the same events, in the same order.
static void compare(const listener *all, int clients, int events) {
    size_t len;
    const char *event = find_event(all[clients - 1].text, &len);
    const char **at = (const char **)calloc((size_t)clients, sizeof *at);
    if (!at) die("calloc");
    for (int i = 0; i < clients; i++)
        at[i] = find_same(&all[i], event, len);
    for (int k = 0; k < events; k++) {
        event = find_event(at[clients - 1], &len);
        for (int i = 0; i < clients; i++) {
            size_t here_len;
            const char *here = find_event(at[i], &here_len);
            if (here_len != len || memcmp(here, event, len) != 0) give_up("another event", i, all[i].text);
            at[i] = here + here_len;
        }
    }
    free(at);
}

int main(int argc, char **argv) {
    if (argc < 3) {
        fprintf(stderr, "usage: listeners PORT PID [CLIENTS [EVENTS]]\n");
        return 2;
    }
    const int clients = argc > 3 ? atoi(argv[3]) : DEFAULT_CLIENTS, events = argc > 4 ? atoi(argv[4]) : DEFAULT_EVENTS;
    if (clients < 1 || events < 1) return 2;
    raise_descriptor_limit(clients);
    listener *all = (listener *)calloc((size_t)clients, sizeof *all);
    struct pollfd *fds = (struct pollfd *)calloc((size_t)clients, sizeof *fds);
    char *texts = (char *)calloc((size_t)clients, TEXT_SIZE);
    if (!all || !fds || !texts) die("calloc");
    const long before = anonymous(argv[2]);
    for (int i = 0; i < clients; i++) {
        all[i].text = texts + (size_t)i * TEXT_SIZE;
        fds[i].fd = dial(atoi(argv[1]), "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n");
        fds[i].events = POLLIN;
    }
    receive_all(all, fds, clients, events);
    const long after = anonymous(argv[2]);
    compare(all, clients, events);
    printf("%d clients of /events, each got the same %d events: %ld bytes of memory, %.0f for each\n", clients, events,
           after - before, (double)(after - before) / clients);
    free(texts);
    free(fds);
    free(all);
    return 0;
}
