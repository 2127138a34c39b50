// What an idle connection costs: opens many keep-alive connections to a server, asks each of them once, checks the
// answers, and prints by how much the server's anonymous memory has grown.
//
//     build/idle PORT PID [CONNECTIONS]        bench/run.sh starts servers and does it with 10,000

#include "client.h"
#include <unistd.h>

enum { DEFAULT_CONNECTIONS = 10000, ANSWER_SIZE = 1024 };

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
        fds[i] = dial(port, "");
    }
    for (int i = 0; i < count; i++) {
        ask(fds[i]);
    }
    const long after = anonymous(argv[2]);
    printf("%d connections open at once, each served once: %ld bytes of memory, %.0f for each\n", count, after - before,
           (double)(after - before) / count);
    free(fds);
    return 0;
}
