/* relayload: load for a server that accepts pushes over HTTP and sends them to Socket.IO clients. Linux only (epoll).
 *
 *   relayload listen HOST PORT CLIENTS PREFIX SAMEID SECONDS [REGJSON]
 *       Opens CLIENTS WebSocket clients (Engine.IO 4), each registered as PREFIX<i>, or all as PREFIX when SAMEID is 1.
 *       Prints "ready ..." when all are connected, then counts pushes for SECONDS and prints the figures.
 *       REGJSON replaces {"id":"%s"} as the argument of `register`; its %s is the id.
 *       EXPECT=n      stop after n pushes, before SECONDS are over
 *       INFLIGHT=n    maximum connections being opened at a time (64)
 *       POLL=1        the clients use long polling instead of a WebSocket, each over one connection: polling.h
 *       RAW=/path%d   plain WebSocket subscribers of another server: without Socket.IO, every message is a push
 *       SIGUSR1       print the figures so far, and count from zero again
 *
 *   relayload push HOST PORT PATH COUNT THREADS KEEPALIVE PREFIX NDEST [RATE]
 *       Sends COUNT POSTs, form-encoded unless KIND is set, to the destinations PREFIX<k mod NDEST> (PREFIX when NDEST is 0), as fast as
 *       THREADS connections carry them, or RATE a second in all. KEEPALIVE 0 opens a connection for each, as PHP does.
 *       KIND=text     data is a sentence, so the form has + and %; KIND=json: the push is JSON, and so is its data
 *       PAD=text      more data in each push, up to 127 KiB
 *       HDR=lines     more request headers, each ending in \r\n
 *       API=path      the destination replaces %s in PATH, and the body is the data alone, as nchan takes it
 *       API=grip      the body is JSON for the control port of pushpin
 *       LIMIT=n       stop after n seconds, even if COUNT is not reached
 *
 * PORT may be several ports, separated by commas: the nodes of one service. Clients, and connections that push, take
 * turns among them.
 *
 * A push carries the time at which it was sent as T<nanoseconds>E, by the clock that listen reads on the same machine, so
 * the time of a delivery is known. A reply's time runs from before sending (before connecting, if KEEPALIVE is 0) to its
 * last byte.
 *
 * Known limits: "ready" counts a client when its `register` is sent, not when it is answered; fragmented
 * messages are not reassembled (no server fragments one this short); ids and PAD are sent as they are, not escaped.
 *
 * Build: cc -O2 -Wall -Wextra -pthread -o relayload relayload.c
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

#define SECOND 1000000000ull              /* in nanoseconds */
#define PATIENCE (30 * SECOND)            /* without a new connection, after which pending ones have failed */
#define ANSWER_SECONDS 20                 /* a longer reply is an error, or a hung server would hang the run */
#define CONNECTIONS_PER_ADDRESS 2000      /* see open_socket() */
#define MAX_MESSAGE ((size_t)16 << 20)    /* bytes; a longer message cannot be right */
#define MAX_BODY ((size_t)128 << 10)      /* bytes of a push: PAD may have as many as an environment variable */
#define MAX_THREADS 256
#define MAX_NODES 16

static const char *host, *prefix;
static struct sockaddr_in nodes[MAX_NODES];
static long node_count;

/* ---- both: helpers ---- */

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}

static void die(const char *what)
{
    fprintf(stderr, "relayload: %s\n", what);
    exit(2);
}

static void *allocate(void *old, size_t bytes)
{
    void *memory = realloc(old, bytes);
    if (!memory)
        die("out of memory");
    return memory;
}

/* snprintf that ends the program if the text does not fit. Returns the length written. */
static size_t format(char *out, size_t size, const char *pattern, ...) __attribute__((format(printf, 3, 4)));

static size_t format(char *out, size_t size, const char *pattern, ...)
{
    va_list values;
    va_start(values, pattern);
    int length = vsnprintf(out, size, pattern, values);
    va_end(values);
    if (length < 0 || (size_t)length >= size)
        die("an argument is too long");
    return (size_t)length;
}

/* Replace the first `mark` of a template from the command line, which may not be a printf format. */
static void fill(char *out, size_t size, const char *template, const char *mark, const char *value)
{
    const char *at = strstr(template, mark);
    if (at)
        format(out, size, "%.*s%s%s", (int)(at - template), template, value, at + strlen(mark));
    else
        format(out, size, "%s", template);
}

static const char *environment(const char *name, const char *otherwise)
{
    const char *value = getenv(name);
    return value ? value : otherwise;
}

/* ---- both: measured times in microseconds, all kept and sorted at the end ---- */

struct samples {
    uint32_t *us;
    size_t count, room;
};

static void add_sample(struct samples *s, uint64_t ns)
{
    if (s->count == s->room) {
        s->room = s->room ? s->room * 2 : 1 << 12;
        s->us = allocate(s->us, s->room * sizeof *s->us);
    }
    uint64_t us = ns / 1000;
    s->us[s->count++] = us > UINT32_MAX ? UINT32_MAX : (uint32_t)us;
}

static int by_size(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static void print_samples(const char *name, struct samples *s)
{
    if (!s->count)
        return;
    qsort(s->us, s->count, sizeof *s->us, by_size);
    printf(" %s p50 %u p95 %u p99 %u max %u", name, s->us[s->count / 2], s->us[s->count * 95 / 100],
           s->us[s->count * 99 / 100], s->us[s->count - 1]);
}

/* ---- both: connections ---- */

static void add_node(const char *port)
{
    int number = atoi(port);
    if (node_count == MAX_NODES)
        die("PORT has more than 16 ports");
    struct sockaddr_in *node = &nodes[node_count++];
    node->sin_family = AF_INET;
    node->sin_port = htons((uint16_t)number);
    if (inet_pton(AF_INET, host, &node->sin_addr) != 1 || number < 1 || number > 65535)
        die("HOST is an IPv4 address, PORT a number up to 65535, or several with commas");
}

static void set_nodes(const char *host_argument, const char *ports)
{
    host = host_argument;
    for (const char *port = ports; port; port = strchr(port, ',') ? strchr(port, ',') + 1 : NULL)
        add_node(port);
    signal(SIGPIPE, SIG_IGN); /* a server that closes is an error to count, and does not end the program */
}

static const struct sockaddr_in *node_of(long number)
{
    return &nodes[number % node_count];
}

/* On loopback every 2,000 connections come from an address of their own (127.<pid>.x.y): thousands of ports in
 * TIME_WAIT behind one address make connect() itself slow, and that would be measured as the server's. */
static void choose_own_address(int fd)
{
    static atomic_long opened;
    long block = atomic_fetch_add(&opened, 1) / CONNECTIONS_PER_ADDRESS;
    if (ntohl(nodes[0].sin_addr.s_addr) >> 24 != 127)
        return;
    uint32_t ip = 127u << 24 | ((uint32_t)getpid() & 0xff) << 16 | (((uint32_t)block + 1) & 0xffff);
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(ip)};
    int on = 1;
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&own, sizeof own))
        perror("bind"); /* not fatal: the kernel then chooses an address */
}

/* Returns a connected socket, or -1. It blocks: on one machine a connect takes microseconds, or the backlog is full. */
static int open_socket(const struct sockaddr_in *node)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    if (fd < 0)
        return -1;
    choose_own_address(fd);
    if (connect(fd, (const struct sockaddr *)node, sizeof *node)) {
        close(fd);
        return -1;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return fd;
}

/* ---- listen ---- */

enum state { AWAITS_UPGRADE, AWAITS_OPEN, AWAITS_NAMESPACE, READY, DEAD };

struct client {
    int fd;
    enum state state;
    long number;
    unsigned char *in; /* received bytes that are not a whole frame yet */
    size_t len, cap;
    char *sid; /* of a client that polls, which sends one request after another: */
    bool posting; /* the present one is a POST */
};

static const char *raw_path, *registration;
static bool same_id, polling;
static long clients, opened, pending; /* pending: opened, and neither ready nor dead yet */
static long ready, dead, pushes, others, pings;
static uint64_t first_push, last_push; /* when, in ns */
static struct samples deliveries;
static volatile sig_atomic_t figures_wanted;

static void ask_for_figures(int signal_number)
{
    (void)signal_number;
    figures_wanted = 1;
}

static void settle(struct client *c, enum state state)
{
    if (c->state != READY && c->state != DEAD)
        pending--;
    c->state = state;
    if (state == READY)
        ready++;
    else
        dead++;
}

static void drop(struct client *c)
{
    if (c->state == DEAD)
        return;
    settle(c, DEAD);
    close(c->fd);
}

/* A client's frame (RFC 6455, 5.2). The mask is a constant, which does no harm here, but not 0, which a server might
 * take a short cut for. A socket that does not take it all at once means a server that does not read: drop it. */
static void send_frame(struct client *c, int opcode, const char *payload, size_t size)
{
    static const unsigned char mask[4] = {0x12, 0x34, 0x56, 0x78};
    unsigned char frame[1024] = {(unsigned char)(0x80 | opcode)};
    size_t head = size < 126 ? 2 : 4;
    if (head + 4 + size > sizeof frame)
        die("a message to send is too long");
    if (size < 126) {
        frame[1] = (unsigned char)(0x80 | size);
    } else {
        frame[1] = 0x80 | 126;
        frame[2] = (unsigned char)(size >> 8);
        frame[3] = (unsigned char)size;
    }
    memcpy(frame + head, mask, 4);
    head += 4;
    for (size_t i = 0; i < size; i++)
        frame[head + i] = (unsigned char)payload[i] ^ mask[i & 3];
    if (write(c->fd, frame, head + size) != (ssize_t)(head + size))
        drop(c);
}

static void send_text(struct client *c, const char *text)
{
    send_frame(c, 1, text, strlen(text));
}

/* Writes the packet that registers a client. */
static void format_registration(const struct client *c, char *message, size_t size)
{
    char id[128], fields[512];
    if (same_id)
        format(id, sizeof id, "%s", prefix);
    else
        format(id, sizeof id, "%s%ld", prefix, c->number);
    fill(fields, sizeof fields, registration, "%s", id);
    format(message, size, "42[\"register\",%s]", fields);
}

static void register_client(struct client *c)
{
    char message[600];
    format_registration(c, message, sizeof message);
    send_text(c, message);
    if (c->state != DEAD)
        settle(c, READY);
}

/* Reads the number of T<ns>E; 0 if there is none. */
static uint64_t stamp_in(const unsigned char *text, size_t size)
{
    const unsigned char *end = text + size;
    for (const unsigned char *at = text; (at = memchr(at, 'T', (size_t)(end - at)));) {
        uint64_t ns = 0;
        for (at++; at < end && *at >= '0' && *at <= '9'; at++)
            ns = ns * 10 + (uint64_t)(*at - '0');
        if (at < end && *at == 'E' && ns)
            return ns;
    }
    return 0;
}

static void count_push(const unsigned char *text, size_t size)
{
    uint64_t now = now_ns(), sent = stamp_in(text, size);
    if (!pushes++)
        first_push = now;
    last_push = now;
    if (sent && sent <= now)
        add_sample(&deliveries, now - sent);
}

static bool is_push(const unsigned char *text, size_t size)
{
    if (raw_path)
        return true;
    return size > 9 && !memcmp(text, "42", 2) && memmem(text, size < 40 ? size : 40, "[\"push\"", 7);
}

static void on_message(struct client *c, const unsigned char *text, size_t size)
{
    if (size == 0)
        return;
    if (is_push(text, size)) {
        count_push(text, size);
    } else if (text[0] == '2') {
        pings++;
        send_text(c, "3");
    } else if (c->state == AWAITS_OPEN && text[0] == '0') {
        c->state = AWAITS_NAMESPACE;
        send_text(c, "40");
    } else if (c->state == AWAITS_NAMESPACE && size >= 2 && !memcmp(text, "40", 2)) {
        register_client(c);
    } else if (c->state == AWAITS_NAMESPACE && size >= 2 && !memcmp(text, "44", 2)) {
        drop(c); /* refused by the server */
    } else {
        others++;
    }
}

/* Finds the payload of the frame at `p`, of which `have` bytes have arrived. False: more bytes are needed. */
static bool whole_frame(const unsigned char *p, size_t have, size_t *head, size_t *size)
{
    if (have < 2)
        return false;
    size_t bytes = (p[1] & 127) == 126 ? 2 : (p[1] & 127) == 127 ? 8 : 0;
    *head = 2 + bytes;
    *size = bytes ? 0 : p[1] & 127;
    if (have < *head)
        return false;
    for (size_t i = 0; i < bytes; i++)
        *size = *size << 8 | p[2 + i];
    return *size > MAX_MESSAGE || have - *head >= *size;
}

static void on_frame(struct client *c, int opcode, const unsigned char *payload, size_t size)
{
    if (opcode == 1 || opcode == 2)
        on_message(c, payload, size);
    else if (opcode == 8)
        drop(c);
    else if (opcode == 9)
        send_frame(c, 10, (const char *)payload, size < 126 ? size : 0);
}

/* Returns the length of the server's answer to the upgrade, or 0 if it is incomplete. */
static size_t take_upgrade(struct client *c)
{
    static int told;
    unsigned char *end = memmem(c->in, c->len, "\r\n\r\n", 4);
    if (!end)
        return 0;
    if (memcmp(c->in, "HTTP/1.1 101", 12)) {
        if (told++ < 3)
            fprintf(stderr, "no upgrade: %.*s\n", c->len < 120 ? (int)c->len : 120, (char *)c->in);
        drop(c);
        return 0;
    }
    if (raw_path)
        settle(c, READY);
    else
        c->state = AWAITS_OPEN;
    return (size_t)(end + 4 - c->in);
}

#include "polling.h"

/* Handles the whole frames, or answers, that have arrived. */
static void take_in(struct client *c)
{
    size_t at = 0, head, size;
    if (polling) {
        take_answer(c);
        return;
    }
    if (c->state == AWAITS_UPGRADE && !(at = take_upgrade(c)))
        return;
    while (c->state != DEAD && whole_frame(c->in + at, c->len - at, &head, &size)) {
        if (size > MAX_MESSAGE) {
            drop(c);
            return;
        }
        on_frame(c, c->in[at] & 15, c->in + at + head, size);
        at += head + size;
    }
    c->len -= at;
    memmove(c->in, c->in + at, c->len);
}

static void read_client(struct client *c)
{
    while (c->state != DEAD) {
        if (c->cap - c->len < 2048) {
            c->cap = c->cap ? c->cap * 2 : 4096;
            c->in = allocate(c->in, c->cap);
        }
        size_t room = c->cap - c->len;
        ssize_t got = read(c->fd, c->in + c->len, room);
        if (got < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (got <= 0) {
            drop(c);
            return;
        }
        c->len += (size_t)got;
        take_in(c);
        if ((size_t)got < room) /* the socket is empty; otherwise epoll would report it again */
            return;
    }
}

static void open_client(struct client *c, int poll)
{
    char request[512], path[256] = "/socket.io/?EIO=4&transport=websocket", number[32];
    c->number = opened++;
    c->state = polling ? AWAITS_OPEN : AWAITS_UPGRADE;
    pending++;
    c->fd = open_socket(node_of(c->number));
    if (c->fd < 0) {
        if (!dead)
            perror("connect");
        settle(c, DEAD);
        return;
    }
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    format(number, sizeof number, "%ld", same_id ? 0 : c->number);
    if (raw_path)
        fill(path, sizeof path, raw_path, "%d", number);
    size_t length = format(request, sizeof request,
                           "GET %s HTTP/1.1\r\nHost: %s:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                           "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
                           path, host, ntohs(node_of(c->number)->sin_port));
    if (polling)
        length = format_poll(c, request, sizeof request);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    if (write(c->fd, request, length) != (ssize_t)length || epoll_ctl(poll, EPOLL_CTL_ADD, c->fd, &event))
        drop(c);
}

static void read_clients(int poll)
{
    struct epoll_event events[512];
    int count = epoll_wait(poll, events, 512, 100); /* ms; a signal ends it early with -1, which counts as none */
    for (int i = 0; i < count; i++)
        read_client(events[i].data.ptr);
}

static void print_deliveries(void)
{
    double seconds = (double)(last_push - first_push) / SECOND;
    printf("pushes %ld in %.3fs (%.0f/s) dead %ld others %ld pings %ld", pushes, seconds,
           seconds > 0 ? (double)pushes / seconds : 0, dead, others, pings);
    print_samples("latency_us", &deliveries);
    printf("\n");
    fflush(stdout);
    pushes = others = pings = 0;
    deliveries.count = 0;
    first_push = last_push = 0;
}

static void allow_many_files(void)
{
    struct rlimit files = {200000, 200000};
    if (!setrlimit(RLIMIT_NOFILE, &files) || getrlimit(RLIMIT_NOFILE, &files))
        return;
    files.rlim_cur = files.rlim_max; /* not root: as far as the hard limit goes */
    setrlimit(RLIMIT_NOFILE, &files);
}

/* Opens all clients until they are ready. Returns the time in ns. */
static void connect_clients(struct client *all, int poll)
{
    int inflight = atoi(environment("INFLIGHT", "64"));
    uint64_t began = now_ns(), newest = began;
    while (opened < clients || (pending && now_ns() - newest < PATIENCE)) {
        while (opened < clients && pending < inflight) {
            open_client(&all[opened], poll);
            newest = now_ns();
        }
        read_clients(poll);
        if (opened < clients && now_ns() - newest > PATIENCE)
            break; /* all that are pending hang */
    }
    double seconds = (double)(now_ns() - began) / SECOND;
    printf("ready %ld/%ld dead %ld in %.2fs (%.0f/s)\n", ready, clients, dead, seconds, (double)ready / seconds);
    fflush(stdout);
}

static int listen_main(int argc, char **argv)
{
    set_nodes(argv[2], argv[3]);
    clients = atol(argv[4]);
    prefix = argv[5];
    same_id = atoi(argv[6]);
    registration = argc > 8 ? argv[8] : "{\"id\":\"%s\"}";
    raw_path = getenv("RAW");
    polling = atoi(environment("POLL", "0"));
    long expect = atol(environment("EXPECT", "0"));
    struct client *all = calloc((size_t)(clients > 0 ? clients : 1), sizeof *all);
    int poll = epoll_create1(0);
    if (!all || poll < 0)
        die("cannot start: out of memory or files");
    allow_many_files();
    signal(SIGUSR1, ask_for_figures);

    connect_clients(all, poll);
    uint64_t end = now_ns() + (uint64_t)(atof(argv[7]) * SECOND);
    while (now_ns() < end && !(expect && pushes >= expect)) {
        read_clients(poll);
        if (figures_wanted) {
            figures_wanted = 0;
            print_deliveries();
        }
    }
    print_deliveries();
    return 0;
}

/* ---- push ---- */

enum { UNKNOWN = -1, CHUNKED = -2 }; /* instead of a Content-Length */

struct answer {
    char bytes[8192]; /* the part that has been read; of a longer answer, the head or the end */
    size_t len;
    size_t body;   /* bytes of the body read so far */
    long expected; /* bytes of the whole body, UNKNOWN or CHUNKED */
    bool head_read, complete, good, closes;
};

struct pusher {
    pthread_t thread;
    const struct sockaddr_in *node;
    int fd; /* -1 when not connected */
    long ok, errors;
    struct samples replies;
};

static const char *path, *pad, *headers;

/* The bodies of pushes. The formats get the prefix, the number, the time and PAD, in this order. */
static const struct body {
    const char *api, *kind, *type, *format;
} bodies[] = {
    {"push", "plain", "application/x-www-form-urlencoded", "destination=%s%s&data=T%lluE%s"},
    {"push", "text", "application/x-www-form-urlencoded",
     "destination=%s%s&data=T%lluE+Your+order%%2C+Zo%%C3%%AB%%2C+is+on+its+way.%s"},
    {"push", "json", "application/json",
     "{\"destination\":\"%s%s\",\"data\":{\"at\":\"T%lluE\",\"text\":\"Your order is on its way.%s\"}}"},
    {"path", "plain", "text/plain", "%.0s%.0sT%lluE%s"},
    {"path", "text", "text/plain", "%.0s%.0sT%lluE Your order, Zo\xc3\xab, is on its way.%s"},
    {"path", "json", "application/json", "%.0s%.0s{\"at\":\"T%lluE\",\"text\":\"Your order is on its way.%s\"}"},
    {"grip", "plain", "application/json",
     "{\"items\":[{\"channel\":\"%s%s\",\"formats\":{\"ws-message\":{\"content\":\"T%lluE%s\"}}}]}"},
    {"grip", "text", "application/json",
     "{\"items\":[{\"channel\":\"%s%s\",\"formats\":{\"ws-message\":{\"content\":"
     "\"T%lluE Your order, Zo\xc3\xab, is on its way.%s\"}}}]}"},
    {"grip", "json", "application/json",
     "{\"items\":[{\"channel\":\"%s%s\",\"formats\":{\"ws-message\":{\"content\":"
     "\"{\\\"at\\\":\\\"T%lluE\\\",\\\"text\\\":\\\"Your order is on its way.%s\\\"}\"}}}]}"},
};
static const struct body *form;
static atomic_long next_push;
static long count, destinations;
static int keep;
static double rate;
static uint64_t began, latest; /* when pushing began, and must end */

static void disconnect(struct pusher *p)
{
    if (p->fd >= 0)
        close(p->fd);
    p->fd = -1;
}

static bool connected(struct pusher *p)
{
    struct timeval patience = {.tv_sec = ANSWER_SECONDS};
    if (p->fd >= 0)
        return true;
    p->fd = open_socket(p->node);
    if (p->fd >= 0)
        setsockopt(p->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    return p->fd >= 0;
}

/* Finds a header's name (with its colon and space) in a NUL-terminated head; returns the start of its value. */
static const char *header(const char *head, const char *name)
{
    const char *at = strcasestr(head, name);
    return at ? at + strlen(name) : NULL;
}

static void read_head(struct answer *a)
{
    char *end = memmem(a->bytes, a->len, "\r\n\r\n", 4);
    if (!end)
        return;
    end[2] = 0; /* the head is text now, its last line with its line end; the body is counted, not read */
    const char *length = header(a->bytes, "\r\ncontent-length:");
    a->head_read = true;
    a->good = end - a->bytes > 12 && a->bytes[9] == '2';
    a->closes = header(a->bytes, "\r\nconnection: close\r\n");
    a->expected = length ? atol(length) : header(a->bytes, "\r\ntransfer-encoding: chunked\r\n") ? CHUNKED : UNKNOWN;
    a->body = a->len - (size_t)(end + 4 - a->bytes);
    memmove(a->bytes, end + 4, a->body);
    a->len = a->body;
}

static bool body_complete(const struct answer *a)
{
    if (a->expected == CHUNKED)
        return a->len >= 5 && !memcmp(a->bytes + a->len - 5, "0\r\n\r\n", 5);
    return a->expected >= 0 && a->body >= (size_t)a->expected;
}

/* Reads until the answer is complete, the connection ends, or nothing came for ANSWER_SECONDS. */
static void read_answer(int fd, struct answer *a)
{
    a->len = a->body = 0;
    a->expected = UNKNOWN;
    a->head_read = a->complete = a->good = a->closes = false;
    while (!a->complete) {
        if (a->len == sizeof a->bytes) {
            if (!a->head_read)
                return; /* a head cannot be that long */
            memmove(a->bytes, a->bytes + a->len - 4, 4); /* enough to see a chunked body's end */
            a->len = 4;
        }
        ssize_t got = read(fd, a->bytes + a->len, sizeof a->bytes - a->len);
        if (got <= 0) {
            a->complete = got == 0 && a->head_read && a->expected == UNKNOWN; /* it ends with the connection */
            a->closes = true;
            return;
        }
        a->len += (size_t)got;
        if (a->head_read)
            a->body += (size_t)got;
        else
            read_head(a);
        a->complete = a->head_read && body_complete(a);
    }
}

/* Sends one request and reads its answer. If the server has closed a kept connection, it tries again. */
static bool exchange(struct pusher *p, const char *request, size_t length)
{
    struct answer a;
    for (int attempt = 0; attempt < 2; attempt++) {
        if (!connected(p))
            return false;
        bool sent = write(p->fd, request, length) == (ssize_t)length;
        if (sent)
            read_answer(p->fd, &a);
        if (!sent || !keep || !a.complete || a.closes)
            disconnect(p);
        if (sent && (a.head_read || a.len || !keep))
            return a.good && a.complete;
    }
    return false;
}

static void wait_until_due(long k)
{
    if (rate <= 0)
        return;
    uint64_t due = began + (uint64_t)((double)k * SECOND / rate);
    struct timespec t = {.tv_sec = (time_t)(due / SECOND), .tv_nsec = (long)(due % SECOND)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
        ;
}

static size_t build_request(char *out, size_t size, const struct sockaddr_in *node, long k, uint64_t sent)
{
    static _Thread_local char body[MAX_BODY];
    char number[32] = "", destination[256], to[512];
    if (destinations)
        format(number, sizeof number, "%ld", k % destinations);
    size_t length = format(body, sizeof body, form->format, prefix, number, (unsigned long long)sent, pad);
    format(destination, sizeof destination, "%s%s", prefix, number);
    fill(to, sizeof to, path, "%s", destination);
    return format(out, size,
                  "POST %s HTTP/1.1\r\nHost: %s:%d\r\n%sContent-Type: %s\r\nContent-Length: %zu\r\n%s\r\n%s",
                  to, host, ntohs(node->sin_port), headers, form->type, length, keep ? "" : "Connection: close\r\n", body);
}

static void choose_body(const char *api, const char *kind)
{
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies && !form; i++)
        if (!strcmp(bodies[i].api, api) && !strcmp(bodies[i].kind, kind))
            form = &bodies[i];
    if (!form)
        die("KIND is plain, text or json; API is push, path or grip");
}

static void *run_pusher(void *argument)
{
    struct pusher *p = argument;
    static _Thread_local char request[MAX_BODY + 4096];
    for (long k; (k = atomic_fetch_add(&next_push, 1)) < count && now_ns() < latest;) {
        wait_until_due(k);
        uint64_t sent = now_ns();
        size_t length = build_request(request, sizeof request, p->node, k, sent);
        bool good = exchange(p, request, length);
        add_sample(&p->replies, now_ns() - sent);
        if (good)
            p->ok++;
        else
            p->errors++;
    }
    disconnect(p);
    return NULL;
}

static void print_replies(struct pusher *pushers, int threads, double seconds)
{
    struct samples all = {0};
    long ok = 0, errors = 0;
    for (int i = 0; i < threads; i++) {
        ok += pushers[i].ok;
        errors += pushers[i].errors;
        for (size_t k = 0; k < pushers[i].replies.count; k++)
            add_sample(&all, (uint64_t)pushers[i].replies.us[k] * 1000);
    }
    printf("posted %ld ok %ld err %ld in %.3fs (%.0f/s)", ok + errors, ok, errors, seconds, (double)(ok + errors) / seconds);
    print_samples("http_us", &all);
    printf("\n");
}

static int push_main(int argc, char **argv)
{
    static struct pusher pushers[MAX_THREADS];
    set_nodes(argv[2], argv[3]);
    path = argv[4];
    count = atol(argv[5]);
    int threads = atoi(argv[6]);
    keep = atoi(argv[7]);
    prefix = argv[8];
    destinations = atol(argv[9]);
    rate = argc > 10 ? atof(argv[10]) : 0;
    choose_body(environment("API", "push"), environment("KIND", "plain"));
    pad = environment("PAD", "");
    headers = environment("HDR", "");
    if (threads < 1 || threads > MAX_THREADS || destinations < 0)
        die("THREADS is a number from 1 to 256, NDEST is 0 or more");

    began = now_ns();
    latest = began + (uint64_t)atol(environment("LIMIT", "1000000")) * SECOND;
    for (int i = 0; i < threads; i++) {
        pushers[i].fd = -1;
        pushers[i].node = node_of(i);
        if (pthread_create(&pushers[i].thread, NULL, run_pusher, &pushers[i]))
            die("cannot start a thread");
    }
    for (int i = 0; i < threads; i++)
        pthread_join(pushers[i].thread, NULL);
    print_replies(pushers, threads, (double)(now_ns() - began) / SECOND);
    return 0;
}

int main(int argc, char **argv)
{
    /* If the benchmark is stopped while it starts this program, it cannot end this program. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (argc >= 8 && !strcmp(argv[1], "listen"))
        return listen_main(argc, argv);
    if (argc >= 10 && !strcmp(argv[1], "push"))
        return push_main(argc, argv);
    fprintf(stderr, "usage: see the head of relayload.c\n");
    return 2;
}
