// What an idle connection costs: opens many keep-alive connections to a server, asks each of them twice, checks the
// answers, and prints by how much the server's anonymous memory has grown.
//
//     build/idle PORT PID [CONNECTIONS]        make bench-idle starts a server and does it with 10,000

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { DEFAULT_CONNECTIONS = 10000, ANSWER_SIZE = 1024 };

static void die(const char *what) {
    perror(what);
    exit(1);
}

// Bytes of anonymous memory of a process, -1 if they cannot be read.
static long anonymous(const char *pid) {
    char path[64], line[256];
    long kilobytes = -1;
    snprintf(path, sizeof path, "/proc/%s/smaps_rollup", pid);
    FILE *file = fopen(path, "r");
    if (!file) return -1;
    while (fgets(line, sizeof line, file)) {
        if (sscanf(line, "Anonymous: %ld kB", &kilobytes) == 1) break;
    }
    fclose(file);
    return kilobytes < 0 ? -1 : kilobytes * 1024;
}

static int dial(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) != 0) die("connect");
    return fd;
}

// One request and its whole answer, which ends with the text.
static void ask(int fd) {
    static const char request[] = "GET /plaintext HTTP/1.1\r\nHost: localhost\r\n\r\n";
    char answer[ANSWER_SIZE];
    size_t len = 0;
    if (send(fd, request, sizeof request - 1, MSG_NOSIGNAL) != (ssize_t)(sizeof request - 1)) die("send");
    do {
        const ssize_t n = recv(fd, answer + len, sizeof answer - 1 - len, 0);
        if (n <= 0) die("recv");
        len += (size_t)n;
        answer[len] = '\0';
    } while (!strstr(answer, "Hello, World!"));
    if (strncmp(answer, "HTTP/1.1 200 ", 13) != 0) die("answer");
}

static void raise_descriptor_limit(int wanted) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) die("getrlimit");
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0) die("setrlimit");
    if (limit.rlim_cur >= (rlim_t)wanted + 16) return;
    fprintf(stderr, "idle: %d connections are more than the descriptor limit of %ld allows\n", wanted,
            (long)limit.rlim_cur);
    exit(1);
}

int main(int argc, char **argv) {
    if (argc < 3) {
        fprintf(stderr, "usage: idle PORT PID [CONNECTIONS]\n");
        return 2;
    }
    const int port = atoi(argv[1]), count = argc > 3 ? atoi(argv[3]) : DEFAULT_CONNECTIONS;
    if (count < 1) return 2;
    raise_descriptor_limit(count);
    int *fds = (int *)calloc((size_t)count, sizeof *fds);
    if (!fds) die("calloc");
    const long before = anonymous(argv[2]);
    for (int i = 0; i < count; i++) {
        fds[i] = dial(port);
    }
    for (int i = 0; i < 2 * count; i++) {
        ask(fds[i % count]);
    }
    const long after = anonymous(argv[2]);
    printf("%d connections open at once, each served twice: %ld bytes of memory, %.0f for each\n", count,
           after - before, (double)(after - before) / count);
    free(fds);
    return before < 0 || after < 0;
}
