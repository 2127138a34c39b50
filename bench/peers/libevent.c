// What bench/run.sh asks of a server, done with libevent's evhttp: one loop with epoll, bodies moved and not copied,
// files by sendfile.
//
//     cc -O2 bench/peers/libevent.c -levent -o server && ./server PORT ROOT      (--version: the library's)

#include <arpa/inet.h>
#include <event2/buffer.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/listener.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILES "/files/"

enum { MAX_PATH = 4096, BACKLOG = 1024, IDLE_SECONDS = 60 };

static const char *root;

static void set_type(struct evhttp_request *request, const char *type) {
    evhttp_add_header(evhttp_request_get_output_headers(request), "Content-Type", type);
}

// The bytes stay, so they are referred to.
static void answer_constant(struct evhttp_request *request, const char *type, const char *text) {
    set_type(request, type);
    evbuffer_add_reference(evhttp_request_get_output_buffer(request), text, strlen(text), NULL, NULL);
    evhttp_send_reply(request, 200, "OK", NULL);
}

static void plaintext(struct evhttp_request *request, void *user) {
    (void)user;
    answer_constant(request, "text/plain", "Hello, World!");
}

static void json(struct evhttp_request *request, void *user) {
    (void)user;
    answer_constant(request, "application/json", "{\"message\":\"Hello, World!\"}");
}

static void echo(struct evhttp_request *request, void *user) {
    (void)user;
    set_type(request, "application/octet-stream");
    evbuffer_add_buffer(evhttp_request_get_output_buffer(request), evhttp_request_get_input_buffer(request));
    evhttp_send_reply(request, 200, "OK", NULL);
}

static void file(struct evhttp_request *request, void *user) {
    (void)user;
    char path[MAX_PATH];
    struct stat status;
    const char *name = evhttp_request_get_uri(request);
    int fd = -1;
    if (strncmp(name, FILES, sizeof FILES - 1) == 0 && !strstr(name, "..") &&
        snprintf(path, sizeof path, "%s/%s", root, name + sizeof FILES - 1) < MAX_PATH)
        fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) != 0) {
        evhttp_send_error(request, 404, NULL);
        return;
    }
    set_type(request, "application/octet-stream");
    evbuffer_add_file(evhttp_request_get_output_buffer(request), fd, 0, status.st_size);
    evhttp_send_reply(request, 200, "OK", NULL);
}

static struct evconnlistener *listen_on(struct event_base *base, int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return evconnlistener_new_bind(base, NULL, NULL, LEV_OPT_REUSEABLE | LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC,
                                   BACKLOG, (struct sockaddr *)&address, (int)sizeof address);
}

int main(int argc, char **argv) {
    if (argc == 2 && strcmp(argv[1], "--version") == 0) return puts(event_get_version()) < 0;
    if (argc != 3) return 2;
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    signal(SIGPIPE, SIG_IGN);
    root = argv[2];
    struct event_base *base = event_base_new();
    struct evhttp *http = base ? evhttp_new(base) : NULL;
    struct evconnlistener *listener = http ? listen_on(base, atoi(argv[1])) : NULL;
    if (!listener || !evhttp_bind_listener(http, listener)) return 1;
    evhttp_set_timeout(http, IDLE_SECONDS);
    evhttp_set_cb(http, "/plaintext", plaintext, NULL);
    evhttp_set_cb(http, "/json", json, NULL);
    evhttp_set_cb(http, "/echo", echo, NULL);
    evhttp_set_gencb(http, file, NULL);
    return event_base_dispatch(base);
}
