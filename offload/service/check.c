/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/service/check.h"

int rs_check_op(const struct rs_sqe *sqe)
{
    if (sqe->flags != 0) return RESEAL_EINVAL;
    switch (sqe->op) {
    case RS_OP_TRANSFORM:
        return 0;
    case RS_OP_CANCEL:
    case RS_OP_NOP:
        if (sqe->in_region != 0 || sqe->out_region != 0 || sqe->in_off != 0 || sqe->out_off != 0 ||
            sqe->len != 0 || sqe->out_cap != 0 || sqe->dst_tweak != 0 || sqe->raw_len != 0)
            return RESEAL_EINVAL;
        return sqe->op == RS_OP_NOP && sqe->src_tweak != 0 ? RESEAL_EINVAL : 0;
    default:
        return RESEAL_EINVAL;
    }
}

bool rs_check_needs_aux(const struct rs_transform_config *config)
{
    return config->src.cipher == RS_GCM || config->dst.cipher == RS_GCM ||
           (config->stages & (RESEAL_STAGE_ZERO | RESEAL_STAGE_DIGEST)) != 0;
}

int rs_check_aux(uint32_t aux, const struct rs_region *own)
{
    if (aux == RS_AUX_NONE || aux % 64 != 0) return RESEAL_EINVAL;
    return rs_range_ok(aux, sizeof(struct rs_aux), own->len) ? 0 : RESEAL_ERANGE;
}

int rs_check_record(const struct rs_aux_record *record, bool source)
{
    if (record->aad_len > RS_AAD_MAX || record->reserved != 0) return RESEAL_EINVAL;
    return record->derive > (source ? 1u : 0u) ? RESEAL_EINVAL : 0;
}

int rs_check_place(const struct rs_sqe *sqe, const struct rs_region *regions, struct rs_job *job)
{
    if (sqe->len == 0 || sqe->len > RS_JOB_MAX) return RESEAL_EINVAL;
    /* Indices in full width: a region number is eight bits, the table is shorter. */
    if (sqe->in_region >= RS_REGION_MAX || sqe->out_region >= RS_REGION_MAX) return RESEAL_ERANGE;
    const struct rs_region *in = &regions[sqe->in_region], *out = &regions[sqe->out_region];
    if (!rs_range_ok(sqe->in_off, sqe->len, in->len) || !rs_range_ok(sqe->out_off, sqe->out_cap, out->len))
        return RESEAL_ERANGE;
    /* A region that is not there has no bytes, and takes none either. */
    if (in->base == NULL || out->base == NULL) return RESEAL_ERANGE;
    job->in = in->base + sqe->in_off;
    job->out = out->base + sqe->out_off;
    job->len = sqe->len;
    job->out_cap = sqe->out_cap;
    job->raw_len = sqe->raw_len;
    job->src_tweak = sqe->src_tweak;
    job->dst_tweak = sqe->dst_tweak;
    return 0;
}
