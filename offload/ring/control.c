/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/ring/control.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

/*
 * Room for all the descriptors that a message can have (SCM_MAX_FD): those for which there were none would be
 * closed by the kernel, in this thread, whatever their close() waits for.
 */
#define FDS_MOST 253u
union control_space {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(sizeof(int) * FDS_MOST)];
};

static void drop_at_once(int fd, uint32_t uid)
{
    (void)uid;
    close(fd);
}

static int error_of_errno(void)
{
    switch (errno) {
    case EAGAIN:
        return RESEAL_EAGAIN;
    case EPIPE:
    case ECONNRESET:
    case ENOTCONN:
    case ECONNREFUSED:
        return RESEAL_ENOSERVICE;
    case ENOMEM:
    case ENOBUFS:
        return RESEAL_ENOMEM;
    case EMFILE:
    case ENFILE:
    case ETOOMANYREFS:
        return RESEAL_ELIMIT;
    case EBADF:
    case EMSGSIZE:
        return RESEAL_EINVAL;
    default:
        return RESEAL_EIO;
    }
}

int rs_msg_send(int sock, uint16_t type, int32_t status, const void *body, size_t len, const int *fds,
                unsigned nfds, int flags)
{
    if (len > RS_MSG_BODY_MAX || nfds > RS_MSG_FDS) return RESEAL_EINVAL;
    struct rs_msg_header header = {.magic = RS_MSG_MAGIC,
                                   .type = type,
                                   .version = RS_MSG_VERSION,
                                   .length = (uint32_t)len,
                                   .status = status};
    struct iovec iov[2] = {{&header, sizeof(header)}, {(void *)(uintptr_t)body, len}};
    struct msghdr m = {.msg_iov = iov, .msg_iovlen = len != 0 ? 2 : 1};
    union control_space space = {0};
    if (nfds != 0) {
        m.msg_control = space.bytes;
        m.msg_controllen = CMSG_SPACE(sizeof(int) * nfds);
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int) * nfds);
        memcpy(CMSG_DATA(c), fds, sizeof(int) * nfds);
    }
    for (;;) {
        ssize_t n = sendmsg(sock, &m, flags | MSG_NOSIGNAL);
        if (n >= 0) return (size_t)n == sizeof(header) + len ? 0 : RESEAL_EPROTO;
        if (errno != EINTR) return error_of_errno();
    }
}

/* Collects what descriptors came, also those of a message that is refused later. False: there were more. */
static bool collect_fds(struct rs_msg *msg, struct msghdr *m, rs_msg_drop *drop, uint32_t uid)
{
    bool fit = true;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c != NULL; c = CMSG_NXTHDR(m, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
        size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
            if (msg->nfds < RS_MSG_FDS) {
                msg->fds[msg->nfds++] = fd;
            } else {
                drop(fd, uid);
                fit = false;
            }
        }
    }
    return fit;
}

static bool header_ok(const struct rs_msg_header *h, size_t n)
{
    if (n < sizeof(*h) || h->magic != RS_MSG_MAGIC) return false;
    if (h->length != n - sizeof(*h)) return false;
    /* A hello tells its sender's newest version, so that the answer can be RESEAL_EVERSION. */
    return (h->type & ~RS_MSG_REPLY) == RS_MSG_HELLO || h->version == RS_MSG_VERSION;
}

int rs_msg_recv_from(int sock, struct rs_msg *msg, int flags, rs_msg_drop *drop, uint32_t uid)
{
    for (unsigned i = 0; i < RS_MSG_FDS; i++) msg->fds[i] = -1;
    msg->nfds = 0;
    msg->header = (struct rs_msg_header){0};
    union control_space space;
    struct iovec iov[2] = {{&msg->header, sizeof(msg->header)}, {msg->body, sizeof(msg->body)}};
    struct msghdr m = {
        .msg_iov = iov, .msg_iovlen = 2, .msg_control = space.bytes, .msg_controllen = sizeof(space.bytes)};
    ssize_t n;
    do n = recvmsg(sock, &m, flags | MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n < 0) return error_of_errno();
    bool fit = collect_fds(msg, &m, drop, uid);
    int err = 0;
    if (n == 0)
        err = RESEAL_ENOSERVICE;
    else if (!fit || (m.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0 || !header_ok(&msg->header, (size_t)n))
        err = RESEAL_EPROTO;
    if (err != 0) rs_msg_drop_fds(msg, drop, uid);
    return err;
}

int rs_msg_recv(int sock, struct rs_msg *msg, int flags)
{
    return rs_msg_recv_from(sock, msg, flags, drop_at_once, 0);
}

void rs_msg_drop_fds(struct rs_msg *msg, rs_msg_drop *drop, uint32_t uid)
{
    for (unsigned i = 0; i < RS_MSG_FDS; i++) {
        if (msg->fds[i] >= 0) drop(msg->fds[i], uid);
        msg->fds[i] = -1;
    }
    msg->nfds = 0;
}

void rs_msg_close_fds(struct rs_msg *msg)
{
    rs_msg_drop_fds(msg, drop_at_once, 0);
}

int rs_msg_take_fd(struct rs_msg *msg, unsigned i)
{
    if (i >= msg->nfds) return -1;
    int fd = msg->fds[i];
    msg->fds[i] = -1;
    return fd;
}

int rs_msg_answer(int sock, uint16_t type, struct rs_msg *reply)
{
    int err = rs_msg_recv(sock, reply, 0);
    if (err != 0 || reply->header.type == (type | RS_MSG_REPLY)) return err;
    rs_msg_close_fds(reply);
    return RESEAL_EPROTO;
}

int rs_msg_ask(int sock, uint16_t type, const void *body, size_t len, const int *fds, unsigned nfds,
               struct rs_msg *reply)
{
    int err = rs_msg_send(sock, type, 0, body, len, fds, nfds, 0);
    return err == 0 ? rs_msg_answer(sock, type, reply) : err;
}

static int reply_take(struct rs_msg *msg, void *reply, size_t reply_len, int *reply_fds, unsigned reply_nfds)
{
    const struct rs_msg_header *h = &msg->header;
    if (h->status != 0) {
        /* Most refusals have no body; one that names a cipher has the usual one. */
        if (h->status > 0 || msg->nfds != 0) return RESEAL_EPROTO;
        if (h->length != 0 && h->length != reply_len) return RESEAL_EPROTO;
        if (h->length != 0) memcpy(reply, msg->body, reply_len);
        return h->status;
    }
    if (h->length != reply_len || msg->nfds != reply_nfds) return RESEAL_EPROTO;
    if (reply_len != 0) memcpy(reply, msg->body, reply_len);
    for (unsigned i = 0; i < reply_nfds; i++) reply_fds[i] = rs_msg_take_fd(msg, i);
    return 0;
}

int rs_msg_take(struct rs_msg *msg, int err, void *reply, size_t reply_len, int *reply_fds,
                unsigned reply_nfds)
{
    for (unsigned i = 0; i < reply_nfds; i++) reply_fds[i] = -1;
    if (err == 0) {
        err = reply_take(msg, reply, reply_len, reply_fds, reply_nfds);
        rs_msg_close_fds(msg);
    }
    /* Between the service's own programs this may have been a key. */
    rs_wipe(msg->body, sizeof(msg->body));
    return err;
}

int rs_msg_call(int sock, uint16_t type, const void *body, size_t len, const int *fds, unsigned nfds,
                void *reply, size_t reply_len, int *reply_fds, unsigned reply_nfds)
{
    struct rs_msg msg;
    int err = rs_msg_ask(sock, type, body, len, fds, nfds, &msg);
    return rs_msg_take(&msg, err, reply, reply_len, reply_fds, reply_nfds);
}

int rs_msg_text_fd(const char *text, size_t len)
{
    RS_CLOSE int fd = memfd_create("reseal-text", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) return errno == EMFILE || errno == ENFILE ? RESEAL_ELIMIT : RESEAL_ENOMEM;
    if (rs_pwrite_full(fd, text, len, 0) != 0) return RESEAL_ENOMEM;
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) != 0) return RESEAL_EIO;
    int out = fd;
    fd = -1;
    return out;
}
