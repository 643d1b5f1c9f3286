/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include "offload/base/clock.h"
#include "offload/vm/qcow2-internal.h"

#define DRAIN_NS 10000000000ull

static int ended(void *arg, int *error)
{
    struct rs_qcow2_op *op = arg;
    op->ended(op, *error > 0 ? -*error : *error);
    return 1; /* the library forgets it */
}

static int took(void *arg, const void *bytes, size_t len, uint64_t off, unsigned status, int *error)
{
    struct rs_qcow2_op *op = arg;
    (void)bytes;
    (void)error;
    if (status == LIBNBD_READ_HOLE && op->hole != NULL) op->hole(op, off, len);
    return 0;
}

int rs_qcow2_start(struct rs_qcow2 *q, struct rs_qcow2_op *op, enum rs_qcow2_what what, void *buf,
                   uint32_t len, uint64_t off)
{
    nbd_completion_callback end = {.callback = ended, .user_data = op};
    nbd_chunk_callback chunk = {.callback = took, .user_data = op};
    int64_t cookie = -1;
    if (what != RS_QCOW2_FLUSH && !rs_range_ok(off, len, q->size)) return -EINVAL;
    switch (what) {
    case RS_QCOW2_READ:
        cookie = nbd_aio_pread_structured(q->nbd, buf, len, off, chunk, end, 0);
        break;
    case RS_QCOW2_PUT:
        cookie = nbd_aio_pwrite(q->nbd, buf, len, off, end, 0);
        break;
    case RS_QCOW2_TRIM:
        cookie = nbd_aio_trim(q->nbd, len, off, end, 0);
        break;
    case RS_QCOW2_FLUSH:
        cookie = nbd_aio_flush(q->nbd, end, 0);
        break;
    }
    if (cookie >= 0) return 0;
    int e = nbd_get_errno();
    return e > 0 ? -e : -EIO;
}

int rs_qcow2_fd(struct rs_qcow2 *q)
{
    return nbd_aio_get_fd(q->nbd);
}

short rs_qcow2_events(struct rs_qcow2 *q)
{
    unsigned d = nbd_aio_get_direction(q->nbd);
    return (short)(((d & LIBNBD_AIO_DIRECTION_READ) != 0 ? POLLIN : 0) |
                   ((d & LIBNBD_AIO_DIRECTION_WRITE) != 0 ? POLLOUT : 0));
}

static bool alive(struct rs_qcow2 *q)
{
    return nbd_aio_is_dead(q->nbd) != 1 && nbd_aio_is_closed(q->nbd) != 1;
}

bool rs_qcow2_turn(struct rs_qcow2 *q)
{
    /*
     * What was polled for may have been taken meanwhile by a call that waits; told of a reply that is not
     * there, the library would wait for it and send nothing more.
     */
    struct pollfd p = {.fd = alive(q) ? rs_qcow2_fd(q) : -1, .events = alive(q) ? rs_qcow2_events(q) : 0};
    if (poll(&p, 1, 0) <= 0) return alive(q);
    if ((p.revents & ~POLLOUT) != 0 && (p.events & POLLIN) != 0)
        (void)nbd_aio_notify_read(q->nbd);
    else
        (void)nbd_aio_notify_write(q->nbd);
    return alive(q);
}

void rs_qcow2_drain(struct rs_qcow2 *q)
{
    uint64_t end = rs_now_ns() + DRAIN_NS;
    bool killed = false;
    while (alive(q) && nbd_aio_in_flight(q->nbd) > 0) {
        if (!killed && rs_now_ns() > end && q->child.pid > 0) killed = kill(q->child.pid, SIGKILL) == 0;
        (void)nbd_poll(q->nbd, 100);
    }
}
