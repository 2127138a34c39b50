// What the clients of bench/ have in common: connecting to a server on this machine, and looking at its memory.

#ifndef BENCH_CLIENT_H
#define BENCH_CLIENT_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>

static inline void die(const char *what) {
    perror(what);
    exit(1);
}

// Bytes of anonymous memory of a process.
static inline long anonymous(const char *pid) {
    char path[64], line[256];
    long kilobytes = -1;
    snprintf(path, sizeof path, "/proc/%s/smaps_rollup", pid);
    FILE *file = fopen(path, "r");
    if (!file) die(path);
    while (fgets(line, sizeof line, file)) {
        if (sscanf(line, "Anonymous: %ld kB", &kilobytes) == 1) break;
    }
    fclose(file);
    if (kilobytes < 0) die(path);
    return kilobytes * 1024;
}

// So that this program can have so many connections.
static inline void raise_descriptor_limit(int wanted) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) die("getrlimit");
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0) die("setrlimit");
    if (limit.rlim_cur >= (rlim_t)wanted + 16) return;
    fprintf(stderr, "%d connections are more than the descriptor limit of %ld allows\n", wanted, (long)limit.rlim_cur);
    exit(1);
}

// Connects and sends the request.
static inline int dial(int port, const char *request) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) != 0) die("connect");
    const size_t len = strlen(request);
    if (len > 0 && send(fd, request, len, MSG_NOSIGNAL) != (ssize_t)len) die("send");
    return fd;
}

#endif
