/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/client/internal.h"
#include "offload/client/peek.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>

/* Polls in a row that find nothing before the wake socket is asked whether the worker lives. */
#define IDLE_POLLS 4096u
/* reseal_wait() spins at most this long; a wait that was longer than twice that teaches it to spin less. */
#define SPIN_MAX_NS 20000u
#define SPIN_MIN_NS 1000u
#define SPIN_BRIEF  512u

/* ---- slots --------------------------------------------------------------- */

static void slot_free(struct reseal_queue *q, uint32_t i)
{
    q->slots[i].state = RS_SLOT_FREE;
    q->free_slots[q->nfree++] = i;
}

/* A free slot with a new generation; the caller has checked that there is one. */
static uint32_t slot_take(struct reseal_queue *q)
{
    uint32_t i = q->free_slots[--q->nfree];
    struct rs_slot *slot = &q->slots[i];
    slot->generation++;
    slot->order = q->order++;
    slot->state = RS_SLOT_FLYING;
    slot->sqe.user_data = (uint64_t)slot->generation << 32 | i;
    return i;
}

static struct rs_aux *slot_aux(const struct reseal_queue *q, uint32_t i)
{
    return (struct rs_aux *)(void *)(q->ring.data + (size_t)i * RS_AUX_SIZE);
}

void rs_client_finish(struct reseal_queue *q, uint32_t i, int status)
{
    struct rs_slot *slot = &q->slots[i];
    if (slot->sqe.op == RS_OP_CANCEL) {
        slot_free(q, i);
        return;
    }
    slot->status = status;
    slot->state = RS_SLOT_DONE;
    q->ready[(q->ready_head + q->ready_count++) & (q->ring.depth - 1)] = i;
}

/* ---- submit -------------------------------------------------------------- */

/* Finds [p, p+len) in the arena or a registered memory. */
static bool locate(const struct reseal_queue *q, const void *p, uint64_t len, uint8_t *region, uint64_t *off)
{
    for (uint8_t i = 0; i < RS_REGION_MAX; i++) {
        const struct rs_region *r = &q->regions[i];
        if (r->base == NULL || (uintptr_t)p < (uintptr_t)r->base) continue;
        *region = i;
        *off = (uintptr_t)p - (uintptr_t)r->base;
        if (rs_range_ok(*off, len, r->len)) return i != 0 || *off >= q->ring.arena_offset;
    }
    return false;
}

static int put_source(struct rs_aux_record *to, const struct reseal_record *from)
{
    if (from->aad_len > sizeof(to->aad)) return RESEAL_EINVAL;
    memcpy(to->iv, from->iv, sizeof(to->iv));
    memcpy(to->tag, from->tag, sizeof(to->tag));
    memcpy(to->salt, from->salt, sizeof(to->salt));
    to->derive = from->derive;
    to->aad_len = from->aad_len;
    memcpy(to->aad, from->aad, from->aad_len);
    return 0;
}

static int put_destination(struct rs_aux_record *to, const struct reseal_record *from)
{
    if (from->aad_len > sizeof(to->aad)) return RESEAL_EINVAL;
    to->aad_len = from->aad_len;
    memcpy(to->aad, from->aad, from->aad_len);
    return 0;
}

/* The units that the zero map of a job has room for, by the sizes that the caller knows. */
static uint32_t zero_units_of(const struct reseal_job *job)
{
    uint32_t plain = job->raw_len != 0 ? job->raw_len : job->len;
    uint32_t unit = job->session->zero_unit;
    uint64_t units = ((uint64_t)plain + unit - 1) / unit;
    return (uint32_t)RS_MIN(units, RS_ZERO_MAP_MAX * 8u);
}

/* Fills the private side of a slot and its auxiliary block. */
static int slot_fill(struct reseal_queue *q, uint32_t i, const struct reseal_job *job)
{
    struct rs_slot *slot = &q->slots[i];
    struct rs_sqe *e = &slot->sqe;
    struct reseal_session *s = job->session;
    e->op = RS_OP_TRANSFORM;
    e->flags = 0;
    e->len = job->len;
    e->out_cap = job->out_cap != 0 ? job->out_cap : job->len;
    if (!locate(q, job->in, e->len, &e->in_region, &e->in_off)) return RESEAL_ERANGE;
    if (!locate(q, job->out, e->out_cap, &e->out_region, &e->out_off)) return RESEAL_ERANGE;
    e->session = atomic_load_explicit(&s->handle, memory_order_relaxed);
    e->src_tweak = job->src_tweak;
    e->dst_tweak = job->dst_tweak;
    e->raw_len = job->raw_len;
    e->aux = RS_AUX_NONE;
    slot->user_data = job->user_data;
    slot->session = s;
    slot->session_serial = atomic_load_explicit(&s->serial, memory_order_relaxed);
    slot->destination = job->destination;
    slot->zero_map = job->zero_map;
    slot->digest = job->digest;
    if (job->source == NULL && job->destination == NULL && job->zero_map == NULL && job->digest == NULL)
        return 0;
    e->aux = i * RS_AUX_SIZE;
    struct rs_aux *aux = slot_aux(q, i);
    int err = job->source != NULL ? put_source(&aux->source, job->source) : 0;
    if (err == 0 && job->destination != NULL) err = put_destination(&aux->destination, job->destination);
    slot->aad_len = job->destination != NULL ? job->destination->aad_len : 0;
    slot->zero_units = job->zero_map != NULL ? zero_units_of(job) : 0;
    return err;
}

static int check_job(const struct reseal_queue *q, const struct reseal_job *job)
{
    if (job->session == NULL || job->session->r != q->r || job->flags != 0 || job->len == 0)
        return RESEAL_EINVAL;
    return atomic_load_explicit(&job->session->status, memory_order_relaxed);
}

void rs_client_write_entry(struct reseal_queue *q, uint32_t i, uint32_t nth)
{
    q->slots[i].position = q->sq.index + nth;
    memcpy(&q->ring.sq[rs_ring_slot(&q->sq, nth)], &q->slots[i].sqe, sizeof(struct rs_sqe));
}

void rs_client_publish(struct reseal_queue *q, uint32_t n)
{
    for (uint32_t i = 0; n <= RS_PUSH_MAX && i < n; i++) rs_push_line(&q->ring.sq[rs_ring_slot(&q->sq, i)]);
    rs_ring_publish(&q->sq, n);
    q->sq_room -= n;
    if (rs_ring_should_wake(&q->sq) && rs_ring_wake(q->wake) != 0) q->lost = true;
}

/* Entries that fit beside the `n` that are written and not yet published. */
static bool has_room(struct reseal_queue *q, uint32_t n)
{
    if (q->nfree == 0) return false;
    if (q->sq_room <= n) q->sq_room = rs_ring_room(&q->sq);
    return q->sq_room > n;
}

/* A queue that can be used: of this process, not ended, and mended when the worker went away. */
static int ready_to_use(struct reseal_queue *q)
{
    if (q == NULL) return RESEAL_EINVAL;
    int err = rs_client_check_fork(q->r);
    if (err != 0) return err;
    if (q->broken != 0) return q->broken;
    bool other = q->epoch != atomic_load_explicit(&q->r->epoch, memory_order_acquire);
    return q->lost || other ? rs_client_recover(q) : 0;
}

int reseal_submit(reseal_queue *q, const struct reseal_job *jobs, unsigned n)
{
    int err = jobs == NULL && n != 0 ? RESEAL_EINVAL : ready_to_use(q);
    unsigned done = 0;
    while (err == 0 && done < n && q->outstanding < q->depth && has_room(q, done)) {
        err = check_job(q, &jobs[done]);
        if (err != 0) break;
        uint32_t i = slot_take(q);
        err = slot_fill(q, i, &jobs[done]);
        if (err != 0) {
            slot_free(q, i);
            break;
        }
        rs_client_write_entry(q, i, done);
        q->outstanding++;
        done++;
    }
    if (done != 0) rs_client_publish(q, done);
    if (done != 0 || n == 0) return (int)done;
    return err != 0 ? err : RESEAL_EAGAIN;
}

int reseal_cancel(reseal_queue *q, uint64_t user_data)
{
    int err = ready_to_use(q);
    if (err != 0) return err;
    uint32_t n = 0;
    for (uint32_t i = 0; err == 0 && i < q->ring.depth; i++) {
        const struct rs_slot *slot = &q->slots[i];
        if (slot->state != RS_SLOT_FLYING || slot->sqe.op != RS_OP_TRANSFORM) continue;
        if (slot->user_data != user_data) continue;
        if (!has_room(q, n)) {
            err = RESEAL_EAGAIN;
            break;
        }
        uint32_t c = slot_take(q);
        uint64_t own = q->slots[c].sqe.user_data;
        q->slots[c].sqe = (struct rs_sqe){
            .op = RS_OP_CANCEL, .user_data = own, .src_tweak = slot->sqe.user_data, .aux = RS_AUX_NONE};
        rs_client_write_entry(q, c, n++);
    }
    if (n != 0) rs_client_publish(q, n);
    return err;
}

/* ---- poll ---------------------------------------------------------------- */

static void give_zero_map(const struct rs_slot *slot, const struct rs_aux *aux)
{
    uint32_t units = aux->zero_units;
    units = RS_MIN(units, slot->zero_units);
    memset(slot->zero_map, 0, (slot->zero_units + 7) / 8);
    memcpy(slot->zero_map, aux->zero_map, units / 8);
    if (units % 8 != 0)
        slot->zero_map[units / 8] = (uint8_t)(aux->zero_map[units / 8] & ((1u << units % 8) - 1));
}

/* Copies the results of a job that succeeded; every length is ours, none the service's. */
static void give_results(const struct rs_slot *slot, const struct rs_aux *aux)
{
    struct reseal_record *to = slot->destination;
    if (to != NULL) {
        const struct rs_aux_record *from = &aux->destination;
        memcpy(to->iv, from->iv, sizeof(to->iv));
        memcpy(to->tag, from->tag, sizeof(to->tag));
        memcpy(to->salt, from->salt, sizeof(to->salt));
        memcpy(to->aad, from->aad, slot->aad_len);
        to->counter = from->counter;
    }
    if (slot->digest != NULL) memcpy(slot->digest, aux->digest, sizeof(aux->digest));
    if (slot->zero_map != NULL) give_zero_map(slot, aux);
}

static void deliver(struct reseal_queue *q, uint32_t i, struct reseal_completion *c)
{
    const struct rs_slot *slot = &q->slots[i];
    *c = (struct reseal_completion){.user_data = slot->user_data,
                                    .status = slot->status,
                                    .out_len = slot->status == 0 ? slot->out_len : 0};
    if (slot->status == 0 && slot->sqe.aux != RS_AUX_NONE) give_results(slot, slot_aux(q, i));
    slot_free(q, i);
    q->outstanding--;
    q->mends = 0;
}

/* The slot that a completion means, or -1 when it means none that is in flight. */
static int64_t slot_of(struct reseal_queue *q, const struct rs_cqe *e)
{
    uint32_t i = (uint32_t)e->user_data;
    if (i >= q->ring.depth) return -1;
    struct rs_slot *slot = &q->slots[i];
    if (slot->state != RS_SLOT_FLYING || slot->sqe.user_data != e->user_data) return -1;
    if (e->status > 0 || (e->status == 0 && e->out_len > slot->sqe.out_cap)) return -1;
    slot->out_len = e->out_len;
    return i;
}

/* Moves at most `max` completions from the ring to the ready list. False when the service broke the protocol.
 */
static bool reap(struct reseal_queue *q, uint32_t max)
{
    uint32_t n = rs_ring_available(&q->cq);
    n = RS_MIN(n, max);
    if (n == 0) return true;
    int64_t i = 0;
    for (uint32_t k = 0; k < n && i >= 0; k++) {
        struct rs_cqe e;
        rs_ring_copy_once(&e, &q->ring.cq[rs_ring_slot(&q->cq, k)], sizeof(e));
        i = slot_of(q, &e);
        if (i >= 0) rs_client_finish(q, (uint32_t)i, e.status);
    }
    rs_ring_take(&q->cq, n);
    return i >= 0;
}

void rs_client_reap_all(struct reseal_queue *q)
{
    /* What a service that broke the protocol left behind is submitted again like the rest. */
    bool whole = reap(q, q->ring.depth);
    (void)whole;
}

/* Delivers from the ready list and the ring. */
static unsigned take(struct reseal_queue *q, struct reseal_completion *c, unsigned max)
{
    unsigned n = 0;
    if (q->broken == 0 && q->ready_count < max && !reap(q, max - q->ready_count))
        rs_client_break(q, RESEAL_EPROTO);
    for (; n < max && q->ready_count != 0; n++) {
        uint32_t i = q->ready[q->ready_head];
        q->ready_head = (q->ready_head + 1) & (q->ring.depth - 1);
        q->ready_count--;
        deliver(q, i, &c[n]);
    }
    return n;
}

/* True when the worker went away: its end of the socket is closed. */
static bool worker_gone(const struct reseal_queue *q)
{
    uint8_t byte;
    ssize_t n = recv(q->wake, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    return n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
}

/*
 * Asks for a byte with the next completion, so that reseal_queue_fd() becomes
 * readable. Drained first: what is drained later could be the byte of a
 * completion that we have not seen. False when something came meanwhile.
 */
static bool arm_fd(struct reseal_queue *q)
{
    rs_ring_awake(&q->cq);
    if (rs_ring_drain(q->wake) != 0) q->lost = true;
    return q->lost || rs_ring_announce_sleep(&q->cq);
}

/* After a poll that found nothing: has the worker gone, which nobody told us? */
static bool must_recover(struct reseal_queue *q)
{
    if (++q->idle % IDLE_POLLS == 0 && worker_gone(q)) q->lost = true;
    return q->lost || q->epoch != atomic_load_explicit(&q->r->epoch, memory_order_acquire);
}

/*
 * Delivers what is there; before it says that nothing is, it asks to be told of
 * what comes. Who got something comes back, and needs no byte until then.
 */
static unsigned take_all(struct reseal_queue *q, struct reseal_completion *c, unsigned max)
{
    unsigned n = take(q, c, max);
    if (n != 0 && q->with_fd) rs_ring_awake(&q->cq);
    while (q->with_fd && n == 0 && q->broken == 0 && !arm_fd(q)) n = take(q, c, max);
    return n;
}

static int poll_once(struct reseal_queue *q, struct reseal_completion *c, unsigned max)
{
    unsigned n = take_all(q, c, max);
    while (n == 0 && q->broken == 0 && must_recover(q)) {
        int err = rs_client_recover(q);
        (void)err; /* q->broken has it; what completed or ended meanwhile goes first */
        n = take_all(q, c, max);
    }
    if (n != 0) q->idle = 0;
    return n != 0 ? (int)n : q->broken;
}

bool rs_queue_peek(const reseal_queue *q)
{
    return q->ready_count != 0 || rs_ring_available(&q->cq) != 0;
}

int reseal_poll(reseal_queue *q, struct reseal_completion *completions, unsigned max)
{
    if (q == NULL || completions == NULL || max == 0) return RESEAL_EINVAL;
    int err = rs_client_check_fork(q->r);
    return err != 0 ? err : poll_once(q, completions, RS_MIN(max, q->ring.depth));
}

/* ---- wait ---------------------------------------------------------------- */

/* Looks at the ring without the kernel until something is there, the spin time is over, or the deadline. */
static bool spin(const struct reseal_queue *q, uint64_t start, uint64_t deadline)
{
    uint64_t end = RS_MIN(start + q->spin_ns, deadline);
    do {
        for (unsigned i = 0; i < 16; i++) {
            if (rs_ring_available(&q->cq) != 0) return true;
            rs_cpu_relax();
        }
    } while (rs_client_now_ns() < end);
    return false;
}

/* The first look, too short to be worth a clock: small jobs come back within it. */
static bool spin_briefly(const struct reseal_queue *q)
{
    for (unsigned i = 0; i < SPIN_BRIEF; i++) {
        if (rs_ring_available(&q->cq) != 0) return true;
        if (i % 8 == 7) rs_cpu_relax();
    }
    return false;
}

/* Sleeps until the worker sends a byte, goes away, or the deadline. */
static void sleep_until(struct reseal_queue *q, uint64_t deadline)
{
    if (rs_ring_announce_sleep(&q->cq)) {
        struct pollfd p = {.fd = q->wake, .events = POLLIN};
        uint64_t now = rs_client_now_ns();
        uint64_t left = now < deadline ? deadline - now : 0;
        struct timespec t = {.tv_sec = (time_t)(left / 1000000000u), .tv_nsec = (long)(left % 1000000000u)};
        /* A signal is a spurious wake-up: the caller looks again and comes back. */
        int n = ppoll(&p, 1, deadline == UINT64_MAX ? NULL : &t, NULL);
        (void)n;
        rs_ring_awake(&q->cq);
    }
    if (rs_ring_drain(q->wake) != 0) q->lost = true;
}

/* Short waits make spinning worth its while, long ones do not. */
static void learn(struct reseal_queue *q, uint64_t waited_ns)
{
    if (waited_ns <= 2 * SPIN_MAX_NS)
        q->spin_ns = SPIN_MAX_NS;
    else
        q->spin_ns = RS_MAX(q->spin_ns / 2, SPIN_MIN_NS);
}

int reseal_wait(reseal_queue *q, struct reseal_completion *completions, unsigned max, int timeout_ms)
{
    int n = reseal_poll(q, completions, max);
    if (n != 0 || q->outstanding == 0) return n;
    if (timeout_ms != 0 && spin_briefly(q)) n = poll_once(q, completions, RS_MIN(max, q->ring.depth));
    if (n != 0) return n;
    uint64_t start = rs_client_now_ns();
    uint64_t deadline = timeout_ms < 0 ? UINT64_MAX : start + (uint64_t)timeout_ms * 1000000u;
    bool found = spin(q, start, deadline);
    for (;;) {
        n = poll_once(q, completions, RS_MIN(max, q->ring.depth));
        if (n != 0) break;
        if (rs_client_now_ns() >= deadline) return RESEAL_ETIMEDOUT;
        if (!found) sleep_until(q, deadline);
        found = false;
    }
    learn(q, rs_client_now_ns() - start);
    return n;
}
