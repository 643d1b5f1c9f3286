/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/raw.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define MUST(what)                                                                                           \
    do {                                                                                                     \
        if (!(what)) die(#what);                                                                             \
    } while (0)

static void die(const char *what)
{
    fprintf(stderr, "raw client: %s: %s\n", what, strerror(errno));
    exit(2);
}

int raw_connect(const char *dir, const char *name)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int n = snprintf(a.sun_path, sizeof(a.sun_path), "%s/%s", dir, name);
    MUST(n > 0 && (size_t)n < sizeof(a.sun_path));
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    MUST(fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0);
    return fd;
}

static void hello(int fd, struct rs_msg_welcome *welcome)
{
    struct rs_msg_hello m = {.min_version = 1, .max_version = 1};
    MUST(rs_msg_call(fd, RS_MSG_HELLO, &m, sizeof(m), NULL, 0, welcome, sizeof(*welcome), NULL, 0) == 0);
}

void raw_open(struct raw *r, const char *dir)
{
    struct rs_msg_welcome ignored;
    r->control = raw_connect(dir, "control.sock");
    r->keys = raw_connect(dir, "keys.sock");
    hello(r->control, &r->welcome);
    hello(r->keys, &ignored);
}

void raw_close(struct raw *r)
{
    rs_cleanup_close(&r->control);
    rs_cleanup_close(&r->keys);
}

int raw_call(struct raw *r, uint16_t type, const void *body, size_t len, void *reply, size_t reply_len)
{
    return rs_msg_call(r->control, type, body, len, NULL, 0, reply, reply_len, NULL, 0);
}

reseal_key raw_key(struct raw *r, uint32_t cipher)
{
    struct rs_msg_key key;
    struct rs_msg_key_use use = {
        .cipher = cipher, .use = RESEAL_USE_SOURCE | RESEAL_USE_DESTINATION, .bits = 256};
    if (cipher == RESEAL_XTS) {
        use.unit = 4096;
        use.step = 8;
    }
    MUST(rs_msg_call(r->keys, RS_MSG_KEY_RANDOM, &use, sizeof(use), NULL, 0, &key, sizeof(key), NULL, 0) ==
         0);
    return key.key;
}

struct rs_msg_side raw_side(uint32_t cipher, reseal_key key)
{
    struct rs_msg_side side = {.cipher = cipher, .key = key};
    if (cipher != RESEAL_GCM) side.unit = 4096;
    if (cipher == RESEAL_XTS) side.step = 8;
    return side;
}

uint32_t raw_session(struct raw *r, struct rs_msg_side from, struct rs_msg_side to, int *status)
{
    struct rs_msg_session s = {0};
    struct rs_msg_transform t = {.counter_at = RESEAL_NO_COUNTER, .source = from, .destination = to};
    int e = raw_call(r, RS_MSG_SESSION_OPEN, &t, sizeof(t), &s, sizeof(s));
    if (status != NULL) *status = e;
    if (status == NULL) MUST(e == 0);
    return e == 0 ? s.session : 0;
}

void raw_queue_open(struct raw *r, struct raw_queue *q, uint32_t depth, uint64_t arena)
{
    int fds[2];
    struct rs_msg_queue m = {.depth = depth, .arena = arena};
    MUST(rs_msg_call(r->control, RS_MSG_QUEUE_OPEN, &m, sizeof(m), NULL, 0, &m, sizeof(m), fds, 2) == 0);
    q->number = m.queue;
    q->memfd = fds[0];
    q->wake = fds[1];
    MUST(rs_ring_attach(&q->ring, q->memfd) == 0);
    q->sq = rs_ring_sq_producer(&q->ring, 0);
    q->cq = rs_ring_cq_consumer(&q->ring, 0);
}

void raw_queue_close(struct raw_queue *q)
{
    rs_ring_detach(&q->ring);
    rs_cleanup_close(&q->memfd);
    rs_cleanup_close(&q->wake);
}

uint8_t *raw_arena(const struct raw_queue *q)
{
    return q->ring.data + q->ring.arena_offset;
}

void raw_submit(struct raw_queue *q, const struct rs_sqe *entries, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        memcpy(&q->ring.sq[rs_ring_slot(&q->sq, i)], &entries[i], sizeof(entries[i]));
    rs_ring_publish(&q->sq, n);
    if (rs_ring_should_wake(&q->sq) && rs_ring_wake(q->wake) != 0) return;
}

bool raw_wait(struct raw_queue *q, struct rs_cqe *out, int timeout_ms)
{
    while (rs_ring_available(&q->cq) == 0) {
        struct pollfd p = {.fd = q->wake, .events = POLLIN};
        if (rs_ring_announce_sleep(&q->cq) && poll(&p, 1, timeout_ms) == 0) return false;
        rs_ring_awake(&q->cq);
        if (rs_ring_drain(q->wake) != 0 && rs_ring_available(&q->cq) == 0) return false;
    }
    memcpy(out, &q->ring.cq[rs_ring_slot(&q->cq, 0)], sizeof(*out));
    rs_ring_take(&q->cq, 1);
    return true;
}

struct rs_sqe raw_job(const struct raw_queue *q, uint32_t session, uint64_t in, uint64_t out, uint32_t len)
{
    return (struct rs_sqe){.op = RS_OP_TRANSFORM,
                           .session = session,
                           .in_off = q->ring.arena_offset + in,
                           .out_off = q->ring.arena_offset + out,
                           .len = len,
                           .out_cap = len,
                           .aux = RS_AUX_NONE};
}

int raw_run(struct raw_queue *q, struct rs_sqe entry)
{
    struct rs_cqe c;
    raw_submit(q, &entry, 1);
    MUST(raw_wait(q, &c, 60000));
    MUST(c.user_data == entry.user_data);
    return c.status;
}

char *raw_status(struct raw *r)
{
    int fd;
    struct stat st;
    MUST(rs_msg_call(r->control, RS_MSG_STATUS, NULL, 0, NULL, 0, NULL, 0, &fd, 1) == 0);
    MUST(fstat(fd, &st) == 0);
    char *text = calloc(1, (size_t)st.st_size + 1);
    MUST(text != NULL && rs_pread_full(fd, text, (size_t)st.st_size, 0) == 0);
    close(fd);
    return text;
}
