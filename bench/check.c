// Serves requests to itself so that bench/check.sh and bench/rooms.sh can count the instructions of the server with
// callgrind: a server in host mode and a client of it in one thread, so that what happens is the same in every run.
// Prints how often the server has taken memory for a request.
//
//     cc -O2 -I. -pthread bench/check.c -o check && ./check WAY REQUESTS
//
//     keep-alive         answered inline, a request after the other on one connection, as all
//     varied             likewise, but no request is like the one before
//     keep-alive-x16     16 requests at a time, all answered before the next
//     pool               answered by a thread of a pool
//     file               a small file

#define HTTPSRV_IMPLEMENTATION
#define HTTPSRV_API __attribute__((noinline)) extern // callgrind goes by the names of functions
#include "httpsrv.h"

#include <poll.h>

#define REQUEST_OF(path, fields) \
    "GET " path " HTTP/1.1\r\n"  \
    "Host: 127.0.0.1\r\n"        \
    "User-Agent: bench/1.0\r\n"  \
    "Accept: text/plain,*/*;q=0.8\r\n" fields "\r\n"
#define STATUS_LINE "HTTP/1.1 200 OK\r\n"
#define BODY        "Hello, World!"
#define FILE_NAME   "hello.txt"

enum { MAX_BATCH = 16, MAX_ANSWER = 512, MAX_TURNS = 100, TURN_MS = 100, FRESH_MS = 3600000 };

typedef struct way {
    const char *name;
    const char *request;
    int batch;
} way;

static const way ways[] = {
    {"keep-alive", REQUEST_OF("/plaintext", ""), 1},
    {"varied", REQUEST_OF("/plaintext", "X-Request-Id: ####\r\n"), 1},
    {"keep-alive-x16", REQUEST_OF("/plaintext", ""), 16},
    {"pool", REQUEST_OF("/pool/plaintext", ""), 1},
    {"file", REQUEST_OF("/files/" FILE_NAME, ""), 1},
};

static char output[MAX_BATCH * MAX_ANSWER];
static size_t allocations; // so far

static void die(const char *what) {
    fprintf(stderr, "check: %s\n", what);
    exit(1);
}

static void *count_allocation(void *user, void *block, size_t old_size, size_t size) {
    (void)user, (void)old_size;
    if (size == 0) {
        free(block);
        return NULL;
    }
    __atomic_add_fetch(&allocations, 1, __ATOMIC_RELAXED);
    return realloc(block, size);
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

// Puts another number in place of each "####".
static void vary(char *at, size_t len) {
    static unsigned serial;
    char *number = memchr(at, '#', len);
    if (!number) return;
    unsigned left = ++serial;
    for (int i = 3; i >= 0; i--, left /= 10) {
        number[i] = (char)('0' + left % 10);
    }
}

static void send_batch(int fd, const char *request, int batch) {
    char input[MAX_BATCH * MAX_ANSWER];
    const size_t len = strlen(request);
    for (int i = 0; i < batch; i++) {
        memcpy(input + (size_t)i * len, request, len);
        vary(input + (size_t)i * len, len);
    }
    if (send(fd, input, (size_t)batch * len, MSG_NOSIGNAL) != (ssize_t)((size_t)batch * len)) die("cannot send");
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
static size_t first_answer(httpsrv *srv, int fd, const char *request) {
    size_t len = 0;
    send_batch(fd, request, 1);
    do {
        len += receive(srv, fd, output + len, MAX_ANSWER - len);
    } while (!is_answer(output, len) && len < MAX_ANSWER);
    if (!is_answer(output, len)) die("wrong answer");
    return len;
}

static void exchange(httpsrv *srv, int fd, const way *how, size_t answer) {
    const size_t wanted = (size_t)how->batch * answer;
    size_t len = 0;
    send_batch(fd, how->request, how->batch);
    while (len < wanted) {
        len += receive(srv, fd, output + len, wanted - len);
    }
    for (int i = 0; i < how->batch; i++) {
        if (!is_answer(output + (size_t)i * answer, answer)) die("wrong answer");
    }
}

// A folder with one small file.
static void make_folder(char *folder) {
    char path[64];
    if (!mkdtemp(folder)) die("no folder");
    snprintf(path, sizeof path, "%s/" FILE_NAME, folder);
    FILE *file = fopen(path, "w");
    if (!file || fputs(BODY, file) < 0 || fclose(file) != 0) die("no file");
}

static void remove_folder(const char *folder) {
    char path[64];
    snprintf(path, sizeof path, "%s/" FILE_NAME, folder);
    unlink(path);
    rmdir(folder);
}

static httpsrv *make_server(const char *folder) {
    httpsrv *srv = httpsrv_new(
        &(httpsrv_config){.host = "127.0.0.1", .pools = {{"work", 1, 0}}, .allocator.fn = count_allocation});
    httpsrv_on(srv, "GET /plaintext", hello, NULL);
    httpsrv_route(srv, &(httpsrv_route_config){.pattern = "GET /pool/plaintext", .handler = hello, .pool = "work"});
    httpsrv_files(srv, "/files", &(httpsrv_files_config){.root = folder, .fresh_ms = FRESH_MS});
    if (httpsrv_listen(srv) != HTTPSRV_OK) die(httpsrv_error(srv));
    return srv;
}

static const way *find_way(const char *name) {
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        if (strcmp(ways[i].name, name) == 0) return &ways[i];
    }
    return NULL;
}

int main(int argc, char **argv) {
    const way *how = argc == 3 ? find_way(argv[1]) : NULL;
    const int requests = argc == 3 ? atoi(argv[2]) : 0;
    if (!how || requests < how->batch) {
        fprintf(stderr, "usage: check keep-alive|varied|keep-alive-x16|pool|file REQUESTS\n");
        return 2;
    }
    char folder[] = "/tmp/httpsrv-check.XXXXXX";
    make_folder(folder);
    httpsrv *srv = make_server(folder);
    const int fd = connect_to(httpsrv_port(srv, 0));
    const size_t answer = first_answer(srv, fd, how->request), before = allocations;
    for (int done = 0; done < requests; done += how->batch) {
        exchange(srv, fd, how, answer);
    }
    printf("%.2f\n", (double)(allocations - before) / requests);
    close(fd);
    httpsrv_free(srv);
    remove_folder(folder);
    return 0;
}
