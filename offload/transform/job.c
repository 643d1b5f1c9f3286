/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/transform/work.h"

/* Bytes of the job's plaintext: what goes in, or what comes out of a decompression. */
static uint32_t plain_len(const struct rs_transform *t, const struct rs_job *job)
{
    return t->config.stages & RESEAL_STAGE_DECOMPRESS ? job->raw_len : job->len;
}

static bool whole_units(const struct rs_transform_side *side, uint32_t len, bool packed)
{
    if (side->cipher == RS_GCM || side->unit == 0 || (side->cipher == RS_PLAIN && packed)) return true;
    return len % side->unit == 0;
}

/* The tweaks of all units of a side stay below 2^64. */
static bool tweaks_ok(const struct rs_transform_side *side, uint64_t first, uint32_t len)
{
    uint64_t last;
    if (side->cipher != RS_XTS) return true;
    return !__builtin_mul_overflow((uint64_t)(len - 1) / side->unit, side->step, &last) &&
           !__builtin_add_overflow(last, first, &last);
}

static int check_lengths(const struct rs_transform *t, const struct rs_job *job)
{
    const struct rs_transform_config *c = &t->config;
    bool unpacks = (c->stages & RESEAL_STAGE_DECOMPRESS) != 0;
    uint32_t plain = plain_len(t, job);
    size_t most = RS_JOB_MAX;
    if (rs_work_piece(c) == RS_RECORD_MAX) most = RS_RECORD_MAX;
    if (job->len == 0 || job->len > most || plain > most) return RESEAL_EINVAL;
    if (unpacks ? job->raw_len < job->len : job->raw_len != 0) return RESEAL_EINVAL;
    if (!whole_units(&c->src, job->len, plain != job->len) || !whole_units(&c->dst, plain, false))
        return RESEAL_EUNIT;
    bool ok = tweaks_ok(&c->src, job->src_tweak, job->len) && tweaks_ok(&c->dst, job->dst_tweak, plain);
    return ok ? 0 : RESEAL_ERANGE;
}

static int check_records(const struct rs_transform *t, const struct rs_job *job)
{
    const struct rs_transform_config *c = &t->config;
    if (c->src.cipher == RS_GCM) {
        if (job->src_aad_len > RS_AAD_MAX || (job->src_aad_len != 0 && job->src_aad == NULL))
            return RESEAL_EINVAL;
    }
    if (c->dst.cipher == RS_GCM) {
        if (job->dst_aad_len > RS_AAD_MAX || (job->dst_aad_len != 0 && job->dst_aad == NULL))
            return RESEAL_EINVAL;
        if (c->counter_at != RESEAL_NO_COUNTER && !rs_range_ok(c->counter_at, 8, job->dst_aad_len))
            return RESEAL_EINVAL;
    }
    if ((c->stages & RESEAL_STAGE_ZERO) != 0 && job->zero_map == NULL) return RESEAL_EINVAL;
    return 0;
}

int rs_transform_check_job(const struct rs_transform *t, const struct rs_job *job)
{
    if (job->in == NULL || job->out == NULL) return RESEAL_EINVAL;
    int err = check_lengths(t, job);
    if (err == 0) err = check_records(t, job);
    if (err != 0) return err;
    uint32_t writes = plain_len(t, job);
    bool packs =
        (t->config.stages & RS_STAGE_PACKERS) != 0 && (t->config.stages & RESEAL_STAGE_DECOMPRESS) == 0;
    if (packs) {
        if (job->out_cap == 0) return RESEAL_ESPACE;
        writes = RS_MIN(writes, job->out_cap);
    } else if (job->out_cap < writes) {
        return RESEAL_ESPACE;
    }
    return job->in != job->out && rs_overlap(job->in, job->len, job->out, writes) ? RESEAL_EOVERLAP : 0;
}

size_t rs_transform_zero_map_len(const struct rs_transform *t, const struct rs_job *job)
{
    size_t units = ((size_t)plain_len(t, job) + t->zero_unit - 1) / t->zero_unit;
    return (units + 7) / 8;
}
