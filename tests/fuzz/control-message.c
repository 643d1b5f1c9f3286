/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packets from a hostile peer. The first byte of the input says how many
 * descriptors come with it and whether the packet answers a call; the rest is
 * the packet. Whatever comes, no descriptor may stay open, and what
 * rs_msg_recv() accepts is a message with a consistent header.
 */
#include "offload/ring/control.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void send_packet(int to, const uint8_t *data, size_t len, unsigned nfds)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int) * 16)];
    } space = {0};
    struct iovec iov = {(void *)(uintptr_t)data, len};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
    if (nfds != 0) {
        m.msg_control = space.bytes;
        m.msg_controllen = CMSG_SPACE(sizeof(int) * nfds);
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int) * nfds);
        for (unsigned i = 0; i < nfds; i++) memcpy(CMSG_DATA(c) + i * sizeof(int), &to, sizeof(to));
    }
    if (sendmsg(to, &m, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) abort();
}

static void receive(int from)
{
    struct rs_msg msg;
    if (rs_msg_recv(from, &msg, MSG_DONTWAIT) != 0) {
        if (msg.nfds != 0) abort();
        return;
    }
    if (msg.header.magic != RS_MSG_MAGIC || msg.header.length > RS_MSG_BODY_MAX || msg.nfds > RS_MSG_FDS)
        abort();
    rs_msg_close_fds(&msg);
}

static void answer(int from, uint16_t type, unsigned want_fds)
{
    uint8_t reply[sizeof(struct rs_msg_luks)];
    int fds[2];
    int err = rs_msg_call(from, type, NULL, 0, NULL, 0, reply, sizeof(reply), fds, want_fds);
    if (err > 0) abort();
    for (unsigned i = 0; i < want_fds; i++) {
        if ((err == 0) != (fds[i] >= 0)) abort();
        if (fds[i] >= 0) close(fds[i]);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    int sock[2];
    if (len < 2 || len > 4096) return -1;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sock) != 0) abort();
    int lowest = dup(sock[0]);
    close(lowest);
    send_packet(sock[1], data + 1, len - 1, data[0] & 15);
    if ((data[0] & 16) != 0)
        answer(sock[0], (uint16_t)(len > 5 ? data[5] : 34), data[0] >> 5 & 1);
    else
        receive(sock[0]);
    int now = dup(sock[0]);
    if (now != lowest) abort();
    close(now);
    close(sock[0]);
    close(sock[1]);
    return 0;
}
