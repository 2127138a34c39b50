// A client for test scripts. `client PORT` sends what it reads from its standard input to 127.0.0.1 and
// prints all that comes back until the server closes. `client wait PORT` waits for a server that is about to
// start; without that a port where nobody listens is left alone, which may soon be somebody else's. `client free`
// prints a port that is free. It gives up after 30 seconds.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { GIVE_UP_SECONDS = 30, BUFFER_BYTES = 65536 };

static void die(const char *what) {
    perror(what);
    exit(1);
}

static struct sockaddr_in loopback(int port) {
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static int print_free_port(void) {
    struct sockaddr_in address = loopback(0);
    socklen_t len = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, len) != 0) die("bind");
    if (getsockname(fd, (struct sockaddr *)&address, &len) != 0) die("getsockname");
    printf("%d\n", ntohs(address.sin_port));
    return 0;
}

static int connect_to(int port, bool waits) {
    struct sockaddr_in address = loopback(port);
    for (;;) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        if (fd < 0) die("socket");
        if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0) return fd;
        if (!waits) die("connect");
        close(fd);
        nanosleep(&(struct timespec){0, 20000000}, NULL);
    }
}

// A server that refuses early may close before all is sent; its answer is read nevertheless.
static void send_input(int fd) {
    static char buffer[BUFFER_BYTES];
    size_t len;
    while ((len = fread(buffer, 1, sizeof buffer, stdin)) > 0) {
        for (size_t sent = 0; sent < len;) {
            ssize_t n = send(fd, buffer + sent, len - sent, MSG_NOSIGNAL);
            if (n <= 0) return;
            sent += (size_t)n;
        }
    }
}

static int print_answer(int fd) {
    static char buffer[BUFFER_BYTES];
    ssize_t n;
    while ((n = recv(fd, buffer, sizeof buffer, 0)) > 0)
        fwrite(buffer, 1, (size_t)n, stdout);
    return n == 0 ? 0 : 1;
}

int main(int argc, char **argv) {
    bool waits = argc == 3 && strcmp(argv[1], "wait") == 0;
    if (argc != 2 && !waits) return 2;
    if (strcmp(argv[1], "free") == 0) return print_free_port();
    alarm(GIVE_UP_SECONDS);
    int fd = connect_to(atoi(argv[argc - 1]), waits);
    send_input(fd);
    return print_answer(fd);
}
