// What bench/run.sh asks of a server, done with libmicrohttpd: one thread with epoll, answers that never change made
// once, files by sendfile.
//
//     cc -O2 bench/peers/libmicrohttpd.c -lmicrohttpd -o server && ./server PORT ROOT      (--version: the library's)

#include <arpa/inet.h>
#include <fcntl.h>
#include <microhttpd.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILES "/files/"

enum { MAX_PATH = 4096, MAX_CONNECTIONS = 16384, BACKLOG = 1024, IDLE_SECONDS = 60 };

// The body of a request, as far as it has come.
typedef struct upload {
    char *data;
    size_t len, cap;
} upload;

static struct MHD_Response *plaintext, *json, *not_found;
static upload no_upload; // of all requests that bring nothing
static const char *root;

static struct MHD_Response *typed(struct MHD_Response *response, const char *type) {
    MHD_add_response_header(response, "Content-Type", type);
    return response;
}

static struct MHD_Response *constant(const char *type, const char *text) {
    return typed(MHD_create_response_from_buffer(strlen(text), (void *)(size_t)text, MHD_RESPMEM_PERSISTENT), type);
}

static enum MHD_Result answer_once(struct MHD_Connection *connection, struct MHD_Response *response) {
    const enum MHD_Result result = MHD_queue_response(connection, 200, response);
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result answer_file(struct MHD_Connection *connection, const char *name) {
    char path[MAX_PATH];
    struct stat status;
    if (strstr(name, "..") || snprintf(path, sizeof path, "%s/%s", root, name) >= MAX_PATH)
        return MHD_queue_response(connection, 404, not_found);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) != 0) return MHD_queue_response(connection, 404, not_found);
    struct MHD_Response *file = MHD_create_response_from_fd64((uint64_t)status.st_size, fd);
    return answer_once(connection, typed(file, "application/octet-stream"));
}

// The response takes the bytes over.
static enum MHD_Result answer_echo(struct MHD_Connection *connection, upload *body) {
    struct MHD_Response *echo = MHD_create_response_from_buffer(body->len, body->data, MHD_RESPMEM_MUST_FREE);
    body->data = NULL;
    return answer_once(connection, typed(echo, "application/octet-stream"));
}

static bool add(upload *body, const char *data, size_t len) {
    if (body->len + len > body->cap) {
        const size_t cap = 2 * (body->len + len);
        char *grown = realloc(body->data, cap);
        if (!grown) return false;
        body->data = grown;
        body->cap = cap;
    }
    memcpy(body->data + body->len, data, len);
    body->len += len;
    return true;
}

// Called for the head, then for each piece of a body, then once more without one.
static enum MHD_Result handle(void *user, struct MHD_Connection *connection, const char *path, const char *method,
                              const char *version, const char *data, size_t *len, void **state) {
    (void)user, (void)version;
    if (!*state) {
        *state = strcmp(method, "POST") == 0 ? calloc(1, sizeof(upload)) : &no_upload;
        return *state ? MHD_YES : MHD_NO;
    }
    if (*len > 0) {
        const bool ok = add(*state, data, *len);
        *len = 0;
        return ok ? MHD_YES : MHD_NO;
    }
    if (strcmp(path, "/plaintext") == 0) return MHD_queue_response(connection, 200, plaintext);
    if (strcmp(path, "/json") == 0) return MHD_queue_response(connection, 200, json);
    if (strcmp(path, "/echo") == 0 && strcmp(method, "POST") == 0) return answer_echo(connection, *state);
    if (strncmp(path, FILES, sizeof FILES - 1) == 0) return answer_file(connection, path + sizeof FILES - 1);
    return MHD_queue_response(connection, 404, not_found);
}

static void complete(void *user, struct MHD_Connection *connection, void **state, enum MHD_RequestTerminationCode why) {
    (void)user, (void)connection, (void)why;
    upload *body = *state;
    if (!body || body == &no_upload) return;
    free(body->data);
    free(body);
}

int main(int argc, char **argv) {
    if (argc == 2 && strcmp(argv[1], "--version") == 0) return puts(MHD_get_version()) < 0;
    if (argc != 3) return 2;
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1]))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    root = argv[2];
    plaintext = constant("text/plain", "Hello, World!");
    json = constant("application/json", "{\"message\":\"Hello, World!\"}");
    not_found = constant("text/plain", "not found\n");
    struct MHD_Daemon *daemon =
        MHD_start_daemon(MHD_USE_EPOLL_INTERNAL_THREAD | MHD_USE_TURBO, 0, NULL, NULL, handle, NULL,
                         MHD_OPTION_SOCK_ADDR, (struct sockaddr *)&address, MHD_OPTION_NOTIFY_COMPLETED, complete, NULL,
                         MHD_OPTION_CONNECTION_LIMIT, (unsigned)MAX_CONNECTIONS, MHD_OPTION_LISTEN_BACKLOG_SIZE,
                         (unsigned)BACKLOG, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)IDLE_SECONDS, MHD_OPTION_END);
    if (!daemon) return 1;
    pause();
}
