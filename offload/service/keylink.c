/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/service/keylink.h"

#include "offload/base/clock.h"
#include "offload/base/keymem.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

int rs_keylink_open(struct rs_keylink *link, int fd)
{
    *link = (struct rs_keylink){.fd = fd, .msg = rs_keymem_alloc(sizeof(*link->msg))};
    return link->msg != NULL ? 0 : RESEAL_ENOMEM;
}

void rs_keylink_wipe(struct rs_keylink *link)
{
    if (link->msg != NULL) rs_wipe(link->msg, sizeof(*link->msg));
}

void rs_keylink_replace(struct rs_keylink *link, int fd)
{
    rs_cleanup_close(&link->fd);
    link->fd = fd;
    link->nended = 0; /* of sessions that another one, or our last pair, knew */
    link->telling = false;
}

void rs_keylink_close(struct rs_keylink *link)
{
    rs_keylink_replace(link, -1);
    rs_keymem_free(link->msg);
    link->msg = NULL;
    free(link->revoked);
    link->revoked = NULL;
    link->nrevoked = link->room = 0;
    free(link->ended);
    link->ended = NULL;
    link->ended_room = 0;
}

/* ---- ends of sessions -------------------------------------------------------- */

void rs_keylink_ended(struct rs_keylink *link, const struct rs_msg_session_ended *m)
{
    if (link->fd < 0) return;
    if (link->nended == link->ended_room) {
        unsigned room = link->ended_room != 0 ? 2 * link->ended_room : 64;
        struct rs_msg_session_ended *more =
            room <= RS_KEYLINK_ENDED ? reallocarray(link->ended, room, sizeof(*more)) : NULL;
        if (more == NULL) return;
        link->ended = more;
        link->ended_room = room;
    }
    link->ended[link->nended++] = *m;
}

void rs_keylink_tell(struct rs_keylink *link, bool wait)
{
    unsigned n = RS_MIN(link->nended, (unsigned)RS_ENDED_MAX);
    if (n == 0 || link->fd < 0 || (wait && link->telling)) return;
    if (rs_msg_send(link->fd, RS_MSG_SESSION_ENDED, 0, link->ended, n * sizeof(*link->ended), NULL, 0,
                    MSG_DONTWAIT) != 0)
        return;
    link->telling = true;
    link->nended -= n;
    memmove(link->ended, link->ended + n, link->nended * sizeof(*link->ended));
}

/* ---- what comes ---------------------------------------------------------------- */

/* What was not asked for: a revocation, or that ends of sessions were noted. Anything else breaks the
 * protocol. */
static int take_unasked(struct rs_keylink *link)
{
    if (link->msg->header.type == (RS_MSG_SESSION_ENDED | RS_MSG_REPLY) && link->telling) {
        link->telling = false;
        return 0;
    }
    if (link->msg->header.type != RS_MSG_KEY_REVOKED || link->msg->header.length != sizeof(struct rs_msg_key))
        return RESEAL_EPROTO;
    if (link->nrevoked == link->room) {
        /* A client that goes takes all its keys along, and others may go meanwhile. */
        unsigned room = link->room != 0 ? 2 * link->room : 64;
        reseal_key *more =
            room <= RS_KEYLINK_REVOKED ? reallocarray(link->revoked, room, sizeof(*more)) : NULL;
        if (more == NULL) return RESEAL_ENOMEM;
        link->revoked = more;
        link->room = room;
    }
    memcpy(&link->revoked[link->nrevoked++], link->msg->body, sizeof(reseal_key));
    return 0;
}

static int receive(struct rs_keylink *link, int flags)
{
    int e = rs_msg_recv(link->fd, link->msg, flags);
    if (e != 0) return e;
    rs_msg_close_fds(link->msg);
    return 0;
}

int rs_keylink_read(struct rs_keylink *link)
{
    if (link->fd < 0) return RESEAL_ENOSERVICE;
    int e = receive(link, MSG_DONTWAIT);
    if (e == 0) e = take_unasked(link);
    rs_keylink_wipe(link);
    if (e == 0 || e == RESEAL_EAGAIN) return e;
    rs_keylink_replace(link, -1);
    return RESEAL_ENOSERVICE;
}

/* Waits for the reply; revocations that come before it are kept. */
static int await(struct rs_keylink *link, uint16_t type)
{
    uint64_t deadline = rs_now_ns() + RS_KEYLINK_MS * 1000000ull;
    for (;;) {
        uint64_t now = rs_now_ns();
        if (now >= deadline) return RESEAL_ETIMEDOUT;
        struct pollfd p = {.fd = link->fd, .events = POLLIN};
        int n = poll(&p, 1, (int)((deadline - now) / 1000000u) + 1);
        if (n < 0 && errno != EINTR) return RESEAL_EIO;
        if (n <= 0) continue;
        int e = receive(link, MSG_DONTWAIT);
        if (e == RESEAL_EAGAIN) continue;
        if (e != 0) return e;
        if (link->msg->header.type == (type | RS_MSG_REPLY)) return 0;
        e = take_unasked(link);
        if (e != 0) return e;
    }
}

/* A reseal-keyd from before a take-over does not say by which number it knows the session; that is 0 then. */
static bool reply_ok(const struct rs_msg_header *h, const struct rs_msg_session_keys *k)
{
    return (h->length == sizeof(*k) || h->length == RS_SESSION_KEYS_LEAST) && k->src_len <= RS_RAW_KEY_MAX &&
           k->dst_len <= RS_RAW_KEY_MAX && k->weight >= 1 && k->weight <= 1000 &&
           memchr(k->tenant, 0, sizeof(k->tenant)) != NULL;
}

int rs_keylink_ask(struct rs_keylink *link, const struct rs_msg_session_request *request,
                   const struct rs_msg_session_keys **keys)
{
    if (link->fd < 0) return RESEAL_ENOSERVICE;
    int e = rs_msg_send(link->fd, RS_MSG_SESSION_KEYS, 0, request, sizeof(*request), NULL, 0, MSG_DONTWAIT);
    if (e == 0) e = await(link, RS_MSG_SESSION_KEYS);
    int status = e == 0 ? link->msg->header.status : 0;
    const struct rs_msg_session_keys *k = (const void *)link->msg->body;
    if (e == 0 && status == 0 && !reply_ok(&link->msg->header, k)) e = RESEAL_EPROTO;
    if (e != 0) {
        rs_keylink_replace(link, -1);
        rs_keylink_wipe(link);
        return RESEAL_ENOSERVICE;
    }
    if (status == 0)
        *keys = k;
    else
        rs_keylink_wipe(link);
    return status;
}
