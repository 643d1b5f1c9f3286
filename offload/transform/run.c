/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/transform/stages.h"
#include "offload/transform/work.h"

/* ---- sides of a run ------------------------------------------------------------ */

static void side_at(struct rs_side *s, const struct rs_transform_side *side, const void *key, uint64_t tweak,
                    size_t off)
{
    *s = (struct rs_side){.cipher = side->cipher, .key = key};
    if (side->cipher != RS_XTS) return;
    s->unit = side->unit;
    s->step = side->step;
    s->tweak_lo = tweak + off / side->unit * side->step;
}

static void source_at(struct rs_side *s, const struct rs_transform *t, const struct rs_job *job, size_t off)
{
    side_at(s, &t->config.src, t->src_key, job->src_tweak, off);
    if (s->cipher != RS_GCM) return;
    memcpy(s->iv, job->src_iv, RS_IV_LEN);
    memcpy(s->tag, job->src_tag, RS_TAG_LEN);
    s->aad = job->src_aad;
    s->aad_len = job->src_aad_len;
}

static void destination_at(struct rs_side *s, const struct rs_transform *t, struct rs_job *job, size_t off)
{
    side_at(s, &t->config.dst, t->dst_key, job->dst_tweak, off);
    if (s->cipher != RS_GCM) return;
    if (t->config.counter_at != RESEAL_NO_COUNTER)
        rs_store_be64(job->dst_aad + t->config.counter_at, job->dst_counter);
    memcpy(s->iv, job->dst_iv, RS_IV_LEN);
    s->aad = job->dst_aad;
    s->aad_len = job->dst_aad_len;
}

/* ---- no stages: one pass ---------------------------------------------------------- */

struct batch {
    const struct rs_transform *t;
    void *scratch;
    unsigned flags;
    size_t n;
    struct rs_run runs[RS_BATCH_MAX];
    struct {
        struct rs_job *job;
        bool last; /* the run that ends its job */
    } of[RS_BATCH_MAX];
};

/* A job in work has RESEAL_EFAULT; its first failed run decides. */
static void flush(struct batch *b)
{
    const struct rs_engine *engine = b->t->open != NULL ? b->t->open : b->t->seal;
    if (b->n != 0) engine->run(b->runs, b->n, b->scratch, b->flags);
    for (size_t i = 0; i < b->n; i++) {
        struct rs_job *job = b->of[i].job;
        if (job->status != RESEAL_EFAULT) continue;
        if (b->runs[i].status != 0) {
            job->status = b->runs[i].status;
        } else if (b->of[i].last) {
            memcpy(job->dst_tag, b->runs[i].dst.tag, RS_TAG_LEN);
            job->out_len = job->len;
            job->status = 0;
        }
    }
    b->n = 0;
}

static void add_job(struct batch *b, struct rs_job *job, size_t piece)
{
    for (size_t off = 0; off < job->len; off += piece) {
        struct rs_run *run = &b->runs[b->n];
        run->in = job->in + off;
        run->out = job->out + off;
        run->len = RS_MIN(piece, job->len - off);
        source_at(&run->src, b->t, job, off);
        destination_at(&run->dst, b->t, job, off);
        b->of[b->n].job = job;
        b->of[b->n].last = off + run->len == job->len;
        if (++b->n == RS_BATCH_MAX) flush(b);
    }
}

static void copy_job(struct rs_job *job)
{
    if (job->in != job->out) memcpy(job->out, job->in, job->len);
    job->out_len = job->len;
    job->status = 0;
}

static void run_fused(const struct rs_transform *t, struct rs_job *jobs, size_t n, void *scratch, bool stream)
{
    struct batch b;
    size_t piece = rs_work_piece(&t->config);
    b.t = t;
    b.scratch = scratch;
    b.flags = stream ? RS_RUN_STREAM : 0;
    b.n = 0;
    for (size_t i = 0; i < n; i++) {
        if (jobs[i].status != RESEAL_EFAULT) continue;
        if (t->open == NULL && t->seal == NULL) {
            copy_job(&jobs[i]);
        } else {
            add_job(&b, &jobs[i], piece);
        }
    }
    flush(&b);
}

/* ---- stages: open, work, seal -------------------------------------------------------- */

struct desk {
    const struct rs_transform *t;
    struct rs_job *job;
    uint8_t *engine, *plain, *packed, *packer;
    size_t plain_used, packed_used; /* the most that any job wrote: what is to be wiped */
    unsigned flags;
    struct rs_hmac *hmac;
};

static int open_piece(struct desk *d, uint8_t *to, size_t off, size_t n)
{
    struct rs_run run = {.in = d->job->in + off, .out = to, .len = n};
    if (d->t->open == NULL) {
        memcpy(to, run.in, n);
        return 0;
    }
    source_at(&run.src, d->t, d->job, off);
    d->t->open->run(&run, 1, d->engine, 0);
    return run.status;
}

static int seal_piece(struct desk *d, const uint8_t *from, size_t off, size_t n)
{
    struct rs_run run = {.in = from, .out = d->job->out + off, .len = n};
    if (d->t->seal == NULL) {
        memcpy(run.out, from, n);
        return 0;
    }
    destination_at(&run.dst, d->t, d->job, off);
    d->t->seal->run(&run, 1, d->engine, d->flags);
    memcpy(d->job->dst_tag, run.dst.tag, RS_TAG_LEN);
    return run.status;
}

/* Only of plaintext that verified: a by-product is a release too. */
static void by_products(struct desk *d, const uint8_t *p, size_t off, size_t n)
{
    uint32_t stages = d->t->config.stages;
    if (stages & RESEAL_STAGE_ZERO) {
        if (off == 0) memset(d->job->zero_map, 0, rs_transform_zero_map_len(d->t, d->job));
        rs_zero_map(d->job->zero_map, off / d->t->zero_unit, p, n, d->t->zero_unit);
    }
    if (stages & RESEAL_STAGE_DIGEST) {
        if (off == 0) rs_hmac_begin(d->hmac, d->t->digest_key);
        rs_hmac_add(d->hmac, p, n);
    }
}

static int plain_stages(struct desk *d, size_t piece)
{
    int err = 0;
    for (size_t off = 0; err == 0 && off < d->job->len; off += piece) {
        size_t n = RS_MIN(piece, d->job->len - off);
        d->plain_used = RS_MAX(d->plain_used, n);
        err = open_piece(d, d->plain, off, n);
        if (err != 0) break;
        by_products(d, d->plain, off, n);
        err = seal_piece(d, d->plain, off, n);
    }
    d->job->out_len = d->job->len;
    return err;
}

#define FRAME 4u /* XTS: bytes of the compressed length before the compressed bytes */

/* Leaves what is to be sealed at *from; returns its length. Never longer than the plaintext. */
static uint32_t packed_or_stored(struct desk *d, const uint8_t **from)
{
    const struct rs_transform_config *c = &d->t->config;
    uint32_t len = d->job->len, frame = c->dst.cipher == RS_XTS ? FRAME : 0;
    uint32_t unit = c->dst.cipher == RS_XTS ? c->dst.unit : 1;
    *from = d->plain;
    if (len < unit + 1 + frame) return len;
    size_t n = rs_pack(c->stages, c->level, d->packer, d->packed + frame, len - unit - frame, d->plain, len);
    d->packed_used = RS_MAX(d->packed_used, len);
    if (n == 0) return len;
    uint32_t out_len = (uint32_t)rs_round_up(frame + n, unit);
    for (uint32_t i = 0; i < frame; i++) d->packed[i] = (uint8_t)(n >> (8 * i));
    memset(d->packed + frame + n, 0, out_len - frame - n);
    *from = d->packed;
    return out_len;
}

static int pack_stages(struct desk *d)
{
    const uint8_t *from;
    d->plain_used = RS_MAX(d->plain_used, d->job->len);
    int err = open_piece(d, d->plain, 0, d->job->len);
    if (err != 0) return err;
    by_products(d, d->plain, 0, d->job->len);
    d->job->out_len = packed_or_stored(d, &from);
    if (d->job->out_len > d->job->out_cap) return RESEAL_ESPACE;
    return seal_piece(d, from, 0, d->job->out_len);
}

/* The compressed bytes within what was opened: all of it, or what the frame says and zeros after it. */
static int packed_bytes(const struct desk *d, const uint8_t **from, size_t *n)
{
    *from = d->packed;
    *n = d->job->len;
    if (d->t->config.src.cipher != RS_XTS) return 0;
    size_t said = 0, unit = d->t->config.src.unit;
    for (size_t i = 0; i < FRAME; i++) said |= (size_t)d->packed[i] << (8 * i);
    if (said == 0 || rs_round_up(said + FRAME, unit) != d->job->len) return RESEAL_EDATA;
    uint8_t rest = 0;
    for (size_t i = FRAME + said; i < d->job->len; i++) rest |= d->packed[i];
    *from = d->packed + FRAME;
    *n = said;
    return rest == 0 ? 0 : RESEAL_EDATA;
}

static int unpack_stages(struct desk *d)
{
    uint32_t len = d->job->len, raw_len = d->job->raw_len;
    bool stored = len == raw_len;
    const uint8_t *from;
    size_t n;
    d->plain_used = RS_MAX(d->plain_used, raw_len);
    if (!stored) d->packed_used = RS_MAX(d->packed_used, len);
    int err = open_piece(d, stored ? d->plain : d->packed, 0, len);
    if (err == 0 && !stored) {
        err = packed_bytes(d, &from, &n);
        if (err == 0) err = rs_unpack(d->t->config.stages, d->packer, d->plain, raw_len, from, n);
    }
    if (err != 0) return err;
    by_products(d, d->plain, 0, raw_len);
    d->job->out_len = raw_len;
    return seal_piece(d, d->plain, 0, raw_len);
}

static void run_staged(struct desk *d, struct rs_job *job)
{
    uint32_t stages = d->t->config.stages;
    int err;
    d->job = job;
    if (stages & RESEAL_STAGE_DECOMPRESS) {
        err = unpack_stages(d);
    } else if (stages & RS_STAGE_PACKERS) {
        err = pack_stages(d);
    } else {
        err = plain_stages(d, rs_work_piece(&d->t->config));
    }
    if (err == 0 && (stages & RESEAL_STAGE_DIGEST) != 0) rs_hmac_end(d->hmac, d->t->digest_key, job->digest);
    if (err != 0 && (stages & RESEAL_STAGE_ZERO) != 0)
        memset(job->zero_map, 0, rs_transform_zero_map_len(d->t, job));
    if (err != 0) job->out_len = 0;
    job->status = err;
}

static void run_all_staged(const struct rs_transform *t, struct rs_job *jobs, size_t n, void *scratch,
                           bool stream)
{
    struct rs_work w = rs_work_layout(&t->config);
    uint8_t *base = scratch;
    struct desk d = {.t = t, .engine = base, .flags = stream ? RS_RUN_STREAM : 0};
    d.plain = base + w.plain;
    d.packed = base + w.packed;
    d.packer = base + w.packer;
    d.hmac = (struct rs_hmac *)(void *)(base + w.digest);
    for (size_t i = 0; i < n; i++)
        if (jobs[i].status == RESEAL_EFAULT) run_staged(&d, &jobs[i]);
    rs_wipe(d.plain, d.plain_used);
    rs_wipe(d.packed, d.packed_used);
    rs_wipe(d.hmac, sizeof(*d.hmac));
}

size_t rs_transform_run(const struct rs_transform *t, struct rs_job *jobs, size_t n, void *scratch,
                        bool stream)
{
    size_t failed = 0;
    for (size_t i = 0; i < n; i++) {
        jobs[i].out_len = 0;
        jobs[i].status = rs_transform_check_job(t, &jobs[i]);
        if (jobs[i].status == 0) jobs[i].status = RESEAL_EFAULT;
    }
    if (t->config.stages == 0) {
        run_fused(t, jobs, n, scratch, stream);
    } else {
        run_all_staged(t, jobs, n, scratch, stream);
    }
    for (size_t i = 0; i < n; i++)
        if (jobs[i].status != 0) failed++;
    return failed;
}
