/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests from a hostile client to a real server with one worker, without
 * reseal-keyd. The input is a row of messages: a byte of type, one of length,
 * one of descriptors, then the body. A second client must be answered after it.
 */
#include "offload/base/keymem.h"
#include "offload/service/server.h"

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static struct rs_server server;
static int offered = -1; /* a memfd as a client would register it */

static void must(bool ok)
{
    if (!ok) abort();
}

static void open_server(void)
{
    static const int cpu = -1;
    struct rs_server_options o = {.listen = -1, .keyd = -1, .supervisor = -1, .cpus = &cpu, .ncpus = 1};
    must(rs_keymem_init(0) == 0 && rs_guard_init() == 0);
    must(rs_server_open(&server, &o) == 0);
    offered = memfd_create("offered", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    must(ftruncate(offered, 65536) == 0);
    must(fcntl(offered, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0);
}

static int connect_client(void)
{
    int pair[2];
    must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0);
    must(rs_client_add(&server, pair[0]) != NULL);
    return pair[1];
}

/* Steps until the client has an answer, or is gone. */
static bool answered(int fd)
{
    static struct rs_msg msg;
    for (;;) {
        int e = rs_msg_recv(fd, &msg, MSG_DONTWAIT);
        if (e == 0) rs_msg_close_fds(&msg);
        if (e != RESEAL_EAGAIN) return e == 0;
        must(rs_server_step(&server, 10) == 0);
    }
}

static bool say_hello(int fd)
{
    struct rs_msg_hello hello = {.min_version = 1, .max_version = 1};
    must(rs_msg_send(fd, RS_MSG_HELLO, 0, &hello, sizeof(hello), NULL, 0, 0) == 0);
    return answered(fd);
}

static void settle(void)
{
    while (server.nclients != 0) must(rs_server_step(&server, 10) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const uint16_t types[] = {RS_MSG_HELLO,         RS_MSG_STATUS,     RS_MSG_SESSION_OPEN,
                                     RS_MSG_SESSION_CLOSE, RS_MSG_QUEUE_OPEN, RS_MSG_QUEUE_ATTACH,
                                     RS_MSG_QUEUE_CLOSE,   RS_MSG_REGION_ADD, 99};
    static const uint16_t sizes[] = {sizeof(struct rs_msg_hello),
                                     0,
                                     sizeof(struct rs_msg_transform),
                                     sizeof(struct rs_msg_session),
                                     sizeof(struct rs_msg_queue),
                                     sizeof(struct rs_msg_queue),
                                     sizeof(struct rs_msg_queue),
                                     sizeof(struct rs_msg_region),
                                     8};
    if (offered < 0) open_server();
    int fd = connect_client();
    bool alive = len % 8 == 0 || say_hello(fd);
    for (size_t at = 0; alive && at + 3 <= len;) {
        uint8_t body[RS_MSG_BODY_MAX] = {0};
        size_t kind = data[at] % RS_ARRAY_LEN(types);
        /* Mostly the right length: the rest is refused at the door. */
        size_t n = data[at + 1] < 240 ? sizes[kind] : data[at + 1];
        unsigned nfds = data[at + 2] < 200 ? kind == 5 || kind == 7 : data[at + 2] % 5u;
        int fds[4] = {offered, offered, offered, offered};
        at += 3;
        memcpy(body, data + at, RS_MIN(n, len - at));
        at += RS_MIN(n, len - at);
        alive = rs_msg_send(fd, types[kind], 0, body, n, fds, nfds, MSG_DONTWAIT) == 0 && answered(fd);
    }
    close(fd);
    int other = connect_client();
    must(say_hello(other));
    close(other);
    settle();
    return 0;
}
