/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/service/worker.h"

/* Bytes that fit every cache: the question need not be asked. */
#define STREAM_LEAST (512u << 10)

/* ---- from the ring to a ticket -------------------------------------------- */

/*
 * A job can be on the way in the ring when its session is closed: it gets the
 * status of those that waited. One whose place another session has since has
 * an older generation.
 */
static int session_of(const struct rs_seat *seat, uint32_t handle, struct rs_binding **out)
{
    uint32_t slot = handle & 0xffff, generation = handle >> 16;
    if (slot >= seat->nslots || generation == 0) return RESEAL_EINVAL;
    const struct rs_slot *at = &seat->slots[slot];
    if (at->generation != generation) {
        uint16_t age = (uint16_t)(at->generation - generation);
        return at->generation != 0 && age < 0x8000 ? RESEAL_ECANCELED : RESEAL_EINVAL;
    }
    if (at->binding == NULL) return at->ended != 0 ? at->ended : RESEAL_EINVAL;
    *out = at->binding;
    return 0;
}

/* Copies the inputs of the auxiliary block, once, and checks the copies. */
static int take_aux(const struct rs_queue *q, struct rs_ticket *t, const struct rs_transform_config *config)
{
    int e = rs_check_aux(t->sqe.aux, &q->regions[0]);
    if (e != 0) return e;
    const struct rs_aux *aux = (const struct rs_aux *)(const void *)(q->regions[0].base + t->sqe.aux);
    if (config->src.cipher == RS_GCM) {
        rs_ring_copy_once(&t->source, &aux->source, sizeof(t->source));
        e = rs_check_record(&t->source, true);
    }
    if (e == 0 && config->dst.cipher == RS_GCM) {
        rs_ring_copy_once(&t->destination.aad_len, &aux->destination.aad_len, sizeof(t->destination.aad_len));
        rs_ring_copy_once(t->destination.aad, aux->destination.aad, sizeof(t->destination.aad));
        t->destination.derive = t->destination.reserved = 0;
        e = rs_check_record(&t->destination, false);
    }
    return e;
}

/*
 * Tickets that wait and carry the user_data that a cancel names. The look at
 * each is paid for like bytes of a job: a ring full of cancels is quadratic.
 */
static void cancel(struct rs_queue *q, uint64_t user_data)
{
    q->deficit -= (int64_t)q->waiting * RS_LOOK_COST;
    for (uint32_t i = 0; i < q->waiting; i++) {
        struct rs_ticket *t = &q->tickets[(q->first + i) & (q->ring.depth - 1)];
        if (t->binding == NULL || t->sqe.user_data != user_data) continue;
        t->binding = NULL;
        t->status = RESEAL_ECANCELED;
    }
}

static int accept_ticket(struct rs_queue *q, struct rs_ticket *t)
{
    struct rs_binding *binding = NULL;
    int e = rs_check_op(&t->sqe);
    if (e != 0 || t->sqe.op == RS_OP_NOP) return e;
    if (t->sqe.op == RS_OP_CANCEL) {
        cancel(q, t->sqe.src_tweak);
        return 0;
    }
    e = session_of(q->seat, t->sqe.session, &binding);
    if (e == 0 && rs_check_needs_aux(&binding->transform.config))
        e = take_aux(q, t, &binding->transform.config);
    if (e == 0) t->binding = binding;
    return e;
}

/*
 * Completion slots that are neither filled nor promised. The client's line is
 * read only when what we know of it is not enough: it costs a cache miss.
 */
static uint32_t slots_left(struct rs_queue *q, uint32_t want)
{
    uint32_t used = q->cq.index + q->waiting - q->cq_taken;
    if (used + want > q->ring.depth) {
        uint32_t room = rs_ring_room(&q->cq);
        q->cq_taken = q->cq.index - (q->ring.depth - room);
        used = q->cq.index + q->waiting - q->cq_taken;
    }
    return used < q->ring.depth ? q->ring.depth - used : 0;
}

unsigned rs_serve_fetch(struct rs_queue *q)
{
    uint32_t n = rs_ring_available(&q->sq);
    /* The entry travels with the index rather than after it. */
    __builtin_prefetch(&q->ring.sq[rs_ring_slot(&q->sq, 0)], 0);
    if (n == 0) return 0;
    /* Every ticket owns a completion slot from here on: never take more than there is room for. */
    n = RS_MIN(n, slots_left(q, n));
    for (uint32_t i = 0; i < n; i++) {
        struct rs_ticket *t = &q->tickets[(q->first + q->waiting) & (q->ring.depth - 1)];
        rs_ring_copy_once(&t->sqe, &q->ring.sq[rs_ring_slot(&q->sq, i)], sizeof(t->sqe));
        t->binding = NULL;
        t->status = accept_ticket(q, t);
        q->waiting++;
    }
    if (n != 0) rs_ring_take(&q->sq, n);
    return n;
}

void rs_serve_void(struct rs_queue *q, const struct rs_binding *binding, int status)
{
    for (uint32_t i = 0; i < q->waiting; i++) {
        struct rs_ticket *t = &q->tickets[(q->first + i) & (q->ring.depth - 1)];
        if (t->binding != binding) continue;
        t->binding = NULL;
        t->status = status;
    }
}

/* ---- from tickets to jobs -------------------------------------------------- */

/* Fills everything of a job but its source key. A status other than 0 ends it before it starts. */
static int job_of(struct rs_queue *q, struct rs_ticket *t, struct rs_job *job, uint8_t *zero_map)
{
    const struct rs_transform_config *config = &t->binding->transform.config;
    *job = (struct rs_job){.zero_map = (config->stages & RESEAL_STAGE_ZERO) != 0 ? zero_map : NULL};
    int e = rs_check_place(&t->sqe, q->regions, job);
    if (e != 0) return e;
    if (config->src.cipher == RS_GCM) {
        memcpy(job->src_iv, t->source.iv, RS_IV_LEN);
        memcpy(job->src_tag, t->source.tag, RS_TAG_LEN);
        job->src_aad = t->source.aad;
        job->src_aad_len = t->source.aad_len;
    }
    if (config->dst.cipher == RS_GCM) {
        job->dst_aad = t->destination.aad;
        job->dst_aad_len = t->destination.aad_len;
    }
    /* A record that fails, for whatever reason, has used its number up. */
    return config->dst.cipher == RS_GCM ? rs_binding_next_iv(t->binding, &job->dst_counter, job->dst_iv) : 0;
}

static int transform_of(const struct rs_ticket *t, const struct rs_transform **out)
{
    *out = &t->binding->transform;
    if (t->binding->transform.config.src.cipher != RS_GCM || t->source.derive == 0) return 0;
    return rs_binding_derived(t->binding, t->source.salt, out);
}

/* ---- completions ----------------------------------------------------------- */

static void write_aux(const struct rs_queue *q, const struct rs_ticket *t, const struct rs_job *job)
{
    const struct rs_transform_config *config = &t->binding->transform.config;
    struct rs_aux *aux = (struct rs_aux *)(void *)(q->regions[0].base + t->sqe.aux);
    if (config->dst.cipher == RS_GCM) {
        struct rs_aux_record r = {.aad_len = job->dst_aad_len, .counter = job->dst_counter};
        memcpy(r.iv, job->dst_iv, sizeof(r.iv));
        memcpy(r.tag, job->dst_tag, sizeof(r.tag));
        memcpy(r.salt, t->binding->salt, sizeof(r.salt));
        memcpy(r.aad, job->dst_aad, job->dst_aad_len);
        memcpy(&aux->destination, &r, sizeof(r));
    }
    if ((config->stages & RESEAL_STAGE_DIGEST) != 0) memcpy(aux->digest, job->digest, sizeof(aux->digest));
    if ((config->stages & RESEAL_STAGE_ZERO) != 0) {
        size_t len = rs_transform_zero_map_len(&t->binding->transform, job);
        memcpy(aux->zero_map, job->zero_map, RS_MIN(len, (size_t)RS_ZERO_MAP_MAX));
        uint32_t plain = job->raw_len != 0 ? job->raw_len : job->len, unit = t->binding->transform.zero_unit;
        aux->zero_units = unit == 0 ? 0 : (plain + unit - 1) / unit;
    }
}

/* Writes entry i of the group that is about to be published. */
static void write_cqe(struct rs_queue *q, uint32_t i, const struct rs_ticket *t, int status, uint32_t out_len)
{
    struct rs_cqe cqe = {.user_data = t->sqe.user_data, .status = status, .out_len = out_len};
    memcpy(&q->ring.cq[rs_ring_slot(&q->cq, i)], &cqe, sizeof(cqe));
}

static void publish(struct rs_worker *w, struct rs_queue *q, uint32_t n)
{
    q->first = (q->first + n) & (q->ring.depth - 1);
    q->waiting -= n;
    for (uint32_t i = 0; n <= RS_PUSH_MAX && i < n; i++) rs_push_line(&q->ring.cq[rs_ring_slot(&q->cq, i)]);
    rs_ring_publish(&q->cq, n);
    if (!rs_ring_should_wake(&q->cq)) return;
    rs_count(&w->metrics.wakes, 1);
    if (rs_ring_wake(q->wake) != 0) q->deaf = true;
}

/* For status; after the publish, so that nobody waits for it. */
struct tally {
    uint64_t jobs, bytes;
};

static void count_job(struct rs_worker *w, struct rs_binding *b, int status, uint32_t bytes, struct tally *t)
{
    int code = -status;
    t->jobs++;
    t->bytes += status == 0 ? bytes : 0;
    if (code > 0 && code < (int)RS_CODES) rs_count(&w->metrics.codes[code], 1);
    if (b == NULL) return;
    rs_count(status == 0 ? &b->jobs : &b->failures, 1);
    if (status == 0) rs_count(&b->bytes, bytes);
}

static void count_group(struct rs_worker *w, struct rs_queue *q, const struct tally *t)
{
    rs_count(&w->metrics.jobs, t->jobs);
    rs_count(&w->metrics.bytes, t->bytes);
    rs_count(&q->jobs, t->jobs);
    rs_count(&q->bytes, t->bytes);
    atomic_store_explicit(&q->fill, q->waiting, memory_order_relaxed);
}

/* ---- a group: consecutive tickets that run and complete together ----------- */

struct group {
    const struct rs_transform *transform;
    unsigned tickets, jobs;
    uint64_t bytes;
};

/* Gathers tickets from the front until the transform changes or the group is large enough. */
static void gather(struct rs_worker *w, struct rs_queue *q, struct group *g)
{
    *g = (struct group){0};
    while (g->tickets < q->waiting && g->tickets < RS_GROUP_JOBS) {
        struct rs_ticket *t = &q->tickets[(q->first + g->tickets) & (q->ring.depth - 1)];
        if (t->binding != NULL) {
            const struct rs_transform *transform = NULL;
            /* A large job runs alone; two records at least, so that they stitch. */
            unsigned least = t->binding->transform.config.src.cipher == RS_GCM ? 2 : 1;
            if (g->jobs >= least && g->bytes + t->sqe.len > RS_GROUP_BYTES) break;
            /* Looked up only when the group is open: it may evict another derived key. */
            if (g->jobs != 0 && t->binding != w->running[0]->binding) break;
            int e = transform_of(t, &transform);
            if (e == 0 && g->jobs != 0 && transform != g->transform) break;
            if (e == 0) e = job_of(q, t, &w->jobs[g->jobs], w->zero_maps[g->jobs]);
            t->status = e;
            if (e == 0) {
                rs_spread_add(&q->spread, &t->sqe);
                g->transform = transform;
                g->bytes += t->sqe.len;
                w->running[g->jobs++] = t;
            }
        }
        g->tickets++;
    }
}

static void run_jobs(struct rs_worker *w, struct rs_queue *q, const struct group *g)
{
    uint64_t spread = rs_spread_bytes(&q->spread);
    bool stream = spread > STREAM_LEAST && rs_transform_streams(spread);
    /* The lines of the completions come to this core while it encrypts. */
    for (unsigned i = 0; i < g->tickets; i++) __builtin_prefetch(&q->ring.cq[rs_ring_slot(&q->cq, i)], 1);
    rs_transform_run(g->transform, w->jobs, g->jobs, w->scratch, stream);
    if (stream) rs_count(&w->metrics.streamed, g->jobs);
}

static void run_group(struct rs_worker *w, struct rs_queue *q)
{
    struct group g;
    struct tally tally = {0};
    uint32_t first = q->first;
    gather(w, q, &g);
    if (g.jobs != 0) run_jobs(w, q, &g);
    for (unsigned i = 0, next = 0; i < g.tickets; i++) {
        struct rs_ticket *t = &q->tickets[(first + i) & (q->ring.depth - 1)];
        struct rs_job *job = next < g.jobs && w->running[next] == t ? &w->jobs[next++] : NULL;
        if (job != NULL) t->status = job->status;
        if (job != NULL && t->status == 0 && rs_check_needs_aux(&t->binding->transform.config))
            write_aux(q, t, job);
        write_cqe(q, i, t, t->status, job != NULL ? job->out_len : 0);
        q->deficit -= job != NULL ? RS_MAX(job->len, RS_JOB_COST) : RS_JOB_COST;
    }
    publish(w, q, g.tickets);
    /* Tickets stay as they are until the next fetch. */
    for (unsigned i = 0; i < g.tickets; i++) {
        const struct rs_ticket *t = &q->tickets[(first + i) & (q->ring.depth - 1)];
        count_job(w, t->binding, t->status, t->sqe.len, &tally);
    }
    count_group(w, q, &tally);
}

void rs_serve_run(struct rs_worker *w, struct rs_queue *q)
{
    while (q->waiting != 0 && q->deficit > 0) run_group(w, q);
}

void rs_serve_fault(struct rs_worker *w, struct rs_queue *q)
{
    while (q->waiting != 0) {
        struct tally tally = {0};
        uint32_t n = RS_MIN(q->waiting, RS_GROUP_JOBS);
        for (uint32_t i = 0; i < n; i++) {
            const struct rs_ticket *t = &q->tickets[(q->first + i) & (q->ring.depth - 1)];
            write_cqe(q, i, t, RESEAL_EFAULT, 0);
            count_job(w, t->binding, RESEAL_EFAULT, 0, &tally);
        }
        publish(w, q, n);
        count_group(w, q, &tally);
    }
}
