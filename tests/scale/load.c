/* Load between two guests that costs little itself: `load send|receive|connect|answer`.
 *
 *   receive PORT SECONDS        how many datagrams came, in the seconds after the first
 *   send ADDRESS PORT SECONDS   datagrams of 18 bytes, each a send of its own to the stack, in batches
 *   answer PORT                 answers requests of one byte, one connection after the other
 *   connect ADDRESS PORT SECONDS  connect, request, answer, close: how many in that time
 *
 * Those that serve write "listening" first; counts are written as one number. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BATCH   64
#define PAYLOAD 18
#define BUFFER  (4 << 20)

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static double now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec + at.tv_nsec / 1e9;
}

static struct sockaddr_in address(const char *ip, const char *port) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
    if (ip && inet_pton(AF_INET, ip, &to.sin_addr) != 1)
        fail(ip);
    return to;
}

static int opened(int type, const char *port) {
    struct sockaddr_in here = address(NULL, port);
    int fd = socket(AF_INET, type, 0), on = 1, room = BUFFER;
    if (fd < 0)
        fail("socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room));
    if (bind(fd, (struct sockaddr *)&here, sizeof(here)))
        fail("bind");
    return fd;
}

static void listening(void) {
    puts("listening");
    fflush(stdout);
}

/* `count` messages that share a buffer. */
static void prepare(struct mmsghdr *messages, struct iovec *vector, char *bytes, size_t size) {
    *vector = (struct iovec){.iov_base = bytes, .iov_len = size};
    memset(messages, 0, BATCH * sizeof(*messages));
    for (int i = 0; i < BATCH; i++) {
        messages[i].msg_hdr.msg_iov = vector;
        messages[i].msg_hdr.msg_iovlen = 1;
    }
}

static void send_datagrams(const char *ip, const char *port, double seconds) {
    struct sockaddr_in to = address(ip, port);
    char bytes[PAYLOAD] = {0};
    struct mmsghdr messages[BATCH];
    struct iovec vector;
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof(to)))
        fail("connect");
    prepare(messages, &vector, bytes, sizeof(bytes));
    long count = 0;
    for (double end = now() + seconds; now() < end;) {
        int sent = sendmmsg(fd, messages, BATCH, 0);
        count += sent > 0 ? sent : 0; /* refused: the receiver is not there yet, or any more */
    }
    printf("%ld\n", count);
}

static void receive_datagrams(const char *port, double seconds) {
    char bytes[PAYLOAD];
    struct mmsghdr messages[BATCH];
    struct iovec vector;
    struct timeval rest = {.tv_sec = 5};
    long count = 0;
    int fd = opened(SOCK_DGRAM, port);
    prepare(messages, &vector, bytes, sizeof(bytes));
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &rest, sizeof(rest));
    listening();
    if (recv(fd, bytes, sizeof(bytes), 0) < 0)
        fail("nothing came");
    for (double end = now() + seconds; now() < end;) {
        int got = recvmmsg(fd, messages, BATCH, MSG_WAITFORONE, NULL);
        if (got < 0)
            break;
        count += got;
    }
    printf("%ld\n", count);
}

static void answer(const char *port) {
    int listener = opened(SOCK_STREAM, port);
    if (listen(listener, 1024))
        fail("listen");
    listening();
    for (;;) {
        char byte;
        int fd = accept(listener, NULL, NULL);
        if (fd < 0)
            continue;
        if (recv(fd, &byte, 1, 0) == 1)
            send(fd, &byte, 1, MSG_NOSIGNAL);
        close(fd);
    }
}

static void connect_again_and_again(const char *ip, const char *port, double seconds) {
    struct sockaddr_in to = address(ip, port);
    struct timeval patience = {.tv_sec = 2};
    long count = 0;
    for (double end = now() + seconds; now() < end; count++) {
        char byte = '?';
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
        if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof(to)))
            fail("connect");
        if (send(fd, &byte, 1, 0) != 1 || recv(fd, &byte, 1, 0) != 1)
            fail("request");
        while (recv(fd, &byte, 1, 0) > 0)
            ; /* the server closes first: no port of ours waits for stray packets */
        close(fd);
    }
    printf("%ld\n", count);
}

int main(int count, char **argument) {
    if (count == 5 && !strcmp(argument[1], "send"))
        send_datagrams(argument[2], argument[3], atof(argument[4]));
    else if (count == 4 && !strcmp(argument[1], "receive"))
        receive_datagrams(argument[2], atof(argument[3]));
    else if (count == 3 && !strcmp(argument[1], "answer"))
        answer(argument[2]);
    else if (count == 5 && !strcmp(argument[1], "connect"))
        connect_again_and_again(argument[2], argument[3], atof(argument[4]));
    else
        return 2;
    return 0;
}
