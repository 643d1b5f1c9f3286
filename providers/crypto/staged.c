/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/crypto/staged.h"

#include "reseal/reseal.h"

/* Stays in the first-level cache beside the source and the destination of the copy. */
#define CHUNK 16384u

static bool xts_ok(const struct rs_side *side, size_t len)
{
    if (side->unit < RS_UNIT_MIN || side->unit > RS_UNIT_MAX) return false;
    if (len < RS_UNIT_MIN) return false;
    if (len <= side->unit) return true;
    size_t rest = len % side->unit;
    return side->unit % 16 == 0 && (rest == 0 || rest >= RS_UNIT_MIN);
}

int rs_run_check(const struct rs_run *run)
{
    const struct rs_side *sides[2] = {&run->src, &run->dst};
    size_t max = RS_RUN_MAX;
    for (size_t i = 0; i < 2; i++) {
        if (sides[i]->cipher > RS_GCM) return RESEAL_EINVAL;
        if (sides[i]->cipher == RS_XTS && !xts_ok(sides[i], run->len)) return RESEAL_EUNIT;
        if (sides[i]->cipher == RS_GCM) max = RS_RECORD_MAX;
    }
    return run->len >= 1 && run->len <= max ? 0 : RESEAL_EINVAL;
}

/* Bytes that the passes take at a time: whole units of both sides, or all. */
static size_t chunk_of(const struct rs_run *run)
{
    size_t chunk = CHUNK;
    const struct rs_side *sides[2] = {&run->src, &run->dst};
    for (size_t i = 0; i < 2; i++) {
        if (sides[i]->cipher != RS_XTS) continue;
        if (sides[i]->unit >= run->len || !rs_is_pow2(sides[i]->unit)) return run->len;
        chunk = RS_MAX(chunk, sides[i]->unit);
    }
    return RS_MIN(chunk, run->len);
}

struct passes {
    const struct rs_staged_ops *ops;
    struct rs_run *run;
    uint8_t *scratch;
    size_t chunk;
    bool hold; /* all of the run waits in scratch until the source verified */
    struct rs_staged_side src, dst;
};

static int open_chunk(struct passes *p, size_t off, size_t n, const uint8_t **at)
{
    const uint8_t *from = p->run->in + off;
    uint8_t *to = p->hold ? p->scratch + off : p->scratch;
    *at = from;
    if (p->run->src.cipher == RS_PLAIN) return 0;
    if (p->run->src.cipher == RS_GCM) from = memcpy(to, from, n);
    *at = to;
    return p->ops->step(&p->src, to, from, off, n);
}

static int seal_chunk(struct passes *p, size_t off, size_t n, const uint8_t *at)
{
    uint8_t *to = p->hold ? p->scratch + off : p->scratch;
    if (p->run->dst.cipher != RS_PLAIN) {
        int err = p->ops->step(&p->dst, to, at, off, n);
        if (err != 0) return err;
        at = to;
    }
    if (at != p->run->out + off) memcpy(p->run->out + off, at, n);
    return 0;
}

static int both_passes(struct passes *p)
{
    struct rs_run *run = p->run;
    uint8_t expected[RS_TAG_LEN];
    memcpy(expected, run->src.tag, sizeof(expected));
    int err = run->src.cipher == RS_PLAIN ? 0 : p->ops->begin(&p->src);
    if (err == 0 && run->dst.cipher != RS_PLAIN) err = p->ops->begin(&p->dst);
    for (size_t off = 0; err == 0 && off < run->len; off += p->chunk) {
        size_t n = RS_MIN(p->chunk, run->len - off);
        const uint8_t *at;
        err = open_chunk(p, off, n, &at);
        if (err == 0 && !p->hold) err = seal_chunk(p, off, n, at);
    }
    if (err == 0 && run->src.cipher != RS_PLAIN) err = p->ops->end(&p->src, expected);
    for (size_t off = 0; err == 0 && p->hold && off < run->len; off += p->chunk)
        err = seal_chunk(p, off, RS_MIN(p->chunk, run->len - off), p->scratch + off);
    if (err == 0 && run->dst.cipher != RS_PLAIN) err = p->ops->end(&p->dst, run->dst.tag);
    return err;
}

static int run_one(const struct rs_staged_ops *ops, struct rs_run *run, uint8_t *scratch, unsigned flags)
{
    int err = rs_run_check(run);
    if (err != 0) return err;
    struct passes p = {.ops = ops, .run = run, .scratch = scratch, .chunk = chunk_of(run)};
    p.hold = run->src.cipher == RS_GCM && (flags & RS_RUN_UNVERIFIED) == 0;
    p.src = (struct rs_staged_side){.side = &run->src, .open = true};
    p.dst = (struct rs_staged_side){.side = &run->dst, .open = false};
    err = both_passes(&p);
    /* After a successful seal, what lies in scratch is ciphertext of the destination. */
    if (err != 0 || run->dst.cipher == RS_PLAIN) rs_wipe(scratch, p.hold ? run->len : p.chunk);
    rs_wipe(&p, sizeof(p));
    return err;
}

size_t rs_staged_run(const struct rs_staged_ops *ops, struct rs_run *runs, size_t n, void *scratch,
                     unsigned flags)
{
    size_t failed = 0;
    for (size_t i = 0; i < n; i++) {
        runs[i].status = run_one(ops, &runs[i], scratch, flags);
        if (runs[i].status != 0) failed++;
    }
    return failed;
}
