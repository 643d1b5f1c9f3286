/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/client/internal.h"

#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>

/* Restarts in a row in which not one job completed; then a job of ours may be what ends the service. */
#define MENDS_MAX 8u

/* A job whose output lies over its input: half done, it can be neither repeated nor taken back. */
static bool is_in_place(const struct rs_sqe *e)
{
    if (e->op != RS_OP_TRANSFORM || e->in_region != e->out_region) return false;
    return e->in_off < e->out_off + e->out_cap && e->out_off < e->in_off + e->len;
}

int rs_client_break(struct reseal_queue *q, int err)
{
    q->broken = err;
    for (uint32_t i = 0; i < q->ring.depth; i++) {
        if (q->slots[i].state != RS_SLOT_FLYING) continue;
        rs_client_finish(q, i, is_in_place(&q->slots[i].sqe) ? RESEAL_ELOST : err);
    }
    /* Ends the queue in the service, and makes the caller's descriptor readable from now on. */
    shutdown(q->wake, SHUT_RDWR);
    return err;
}

/*
 * Waits until the old worker has closed its end, which it does after its last
 * touch of the memory: until then the ring is not ours to reset.
 */
static bool wait_for_end(struct reseal_queue *q)
{
    uint64_t deadline = rs_client_now_ns() + (uint64_t)q->r->reconnect_ms * 1000000u;
    while (rs_ring_drain(q->wake) == 0) {
        uint64_t now = rs_client_now_ns();
        if (now >= deadline) return false;
        struct pollfd p = {.fd = q->wake, .events = POLLIN};
        int n = poll(&p, 1, (int)((deadline - now) / 1000000u) + 1);
        (void)n; /* drained and judged above */
    }
    return true;
}

/* Connects, resets the ring and attaches to it, until it works or there is no service. */
static int attach_again(struct reseal_queue *q)
{
    for (unsigned attempt = 0; attempt < MENDS_MAX; attempt++) {
        int err = rs_client_restore(q->r, q->epoch);
        if (err != 0) return err;
        rs_ring_reset(&q->ring);
        q->sq = rs_ring_sq_producer(&q->ring, 0);
        q->cq = rs_ring_cq_consumer(&q->ring, 0);
        q->sq_room = 0;
        err = rs_client_attach_queue(q);
        if (!rs_client_is_loss(err)) return err;
    }
    return RESEAL_ENOSERVICE;
}

static int by_order(const void *a, const void *b, void *slots)
{
    const struct rs_slot *x = (struct rs_slot *)slots + *(const uint32_t *)a;
    const struct rs_slot *y = (struct rs_slot *)slots + *(const uint32_t *)b;
    return (x->order > y->order) - (x->order < y->order);
}

/*
 * Why a job cannot run again, or 0; gives it its session in the new service. A
 * worker publishes that it took an entry before it touches the payload: what
 * was not taken was not begun.
 */
static int prepare_again(struct rs_slot *slot, uint32_t taken)
{
    if (slot->sqe.op == RS_OP_CANCEL) return 0;
    if (is_in_place(&slot->sqe) && (int32_t)(slot->position - taken) < 0) return RESEAL_ELOST;
    const struct reseal_session *s = slot->session;
    if (atomic_load(&s->serial) != slot->session_serial) return RESEAL_ECANCELED;
    slot->sqe.session = atomic_load(&s->handle);
    return atomic_load(&s->status);
}

/* Submits what was not completed, in its first order. The auxiliary blocks still hold their inputs. */
static void submit_again(struct reseal_queue *q, uint32_t taken)
{
    uint32_t n = 0, written = 0;
    for (uint32_t i = 0; i < q->ring.depth; i++)
        if (q->slots[i].state == RS_SLOT_FLYING) q->replay[n++] = i;
    qsort_r(q->replay, n, sizeof(*q->replay), by_order, q->slots);
    for (uint32_t k = 0; k < n; k++) {
        int err = prepare_again(&q->slots[q->replay[k]], taken);
        if (err != 0)
            rs_client_finish(q, q->replay[k], err);
        else
            rs_client_write_entry(q, q->replay[k], written++);
    }
    q->sq_room = q->ring.depth;
    if (written != 0) rs_client_publish(q, written);
}

int rs_client_recover(struct reseal_queue *q)
{
    if (q->broken != 0) return q->broken;
    if (++q->mends > MENDS_MAX) return rs_client_break(q, RESEAL_ENOSERVICE);
    /* A new connection ends the old one, if it is still there, and with it the old worker's part in this
     * queue. */
    int err = rs_client_restore(q->r, q->epoch);
    if (err == 0 && !wait_for_end(q)) err = RESEAL_ENOSERVICE;
    rs_client_reap_all(q);
    uint32_t taken = atomic_load_explicit(&q->ring.control->sq_consumer.index, memory_order_acquire);
    if (err == 0) err = attach_again(q);
    if (err != 0) return rs_client_break(q, err);
    q->lost = false;
    q->idle = 0;
    submit_again(q, taken);
    return 0;
}
