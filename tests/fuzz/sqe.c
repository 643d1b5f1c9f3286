/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Descriptors from a hostile client: the input is an entry, the copied records
 * of an auxiliary block, and what the session and the regions are. Whatever is
 * accepted must lie inside the regions, to the byte.
 */
#include "offload/service/check.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

struct input {
    struct rs_sqe sqe;
    struct rs_aux_record source, destination;
    uint64_t region_len[2];
    uint32_t region_at[2];
    uint8_t src, dst, unit, stages, bits;
};

static struct rs_transform_side side_of(uint8_t cipher, uint8_t unit)
{
    struct rs_transform_side side = {.cipher = cipher % 3};
    side.bits = side.cipher == RS_PLAIN ? 0 : 256;
    if (side.cipher != RS_GCM) side.unit = 512u << (unit % 8);
    if (side.cipher == RS_XTS) side.step = 1 + unit / 8;
    return side;
}

static bool inside(const uint8_t *p, uint64_t len, const struct rs_region *r)
{
    return (uintptr_t)p >= (uintptr_t)r->base && rs_range_ok((uintptr_t)p - (uintptr_t)r->base, len, r->len);
}

static void check_place(const struct input *in, const struct rs_region *regions, const struct rs_transform *t)
{
    uint8_t map[RS_ZERO_MAP_MAX], aad[RS_AAD_MAX];
    struct rs_job job = {.zero_map = map, .src_aad = aad, .dst_aad = aad};
    if (rs_check_place(&in->sqe, regions, &job) != 0) return;
    if (in->sqe.in_region >= RS_REGION_MAX || in->sqe.out_region >= RS_REGION_MAX) abort();
    if (!inside(job.in, job.len, &regions[in->sqe.in_region])) abort();
    if (!inside(job.out, job.out_cap, &regions[in->sqe.out_region])) abort();
    if (job.len == 0 || job.len > RS_JOB_MAX) abort();
    job.src_aad_len = in->source.aad_len % (RS_AAD_MAX + 1);
    job.dst_aad_len = in->destination.aad_len % (RS_AAD_MAX + 1);
    if (rs_transform_check_job(t, &job) != 0) return;
    /* What the transform writes, and what the service copies out of its private memory. */
    uint64_t written = job.raw_len != 0 ? job.raw_len : RS_MIN(job.len, job.out_cap);
    if (written > job.out_cap) abort();
    if (t->config.stages & RESEAL_STAGE_ZERO && rs_transform_zero_map_len(t, &job) > RS_ZERO_MAP_MAX) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct input in = {0};
    struct rs_region regions[RS_REGION_MAX] = {0};
    memcpy(&in, data, RS_MIN(len, sizeof(in)));
    for (unsigned i = 0; i < 2; i++)
        regions[i == 0 ? 0 : 1 + in.region_at[1] % (RS_REGION_MAX - 1)] =
            (struct rs_region){.base = (uint8_t *)(uintptr_t)(4096ull + ((uint64_t)in.region_at[i] << 12)),
                               .len = in.region_len[i] % (RS_REGION_BYTES_MAX + 1)};
    struct rs_transform t = {.config = {.src = side_of(in.src, in.unit),
                                        .dst = side_of(in.dst, (uint8_t)(in.unit * 3)),
                                        .stages = in.stages,
                                        .counter_at = RESEAL_NO_COUNTER},
                             .zero_unit = 512u << (in.bits % 8)};
    if (rs_check_op(&in.sqe) == 0 &&
        (in.sqe.flags != 0 || in.sqe.op < RS_OP_TRANSFORM || in.sqe.op > RS_OP_NOP))
        abort();
    if (rs_check_aux(in.sqe.aux, &regions[0]) == 0 &&
        (in.sqe.aux % 64 != 0 || !rs_range_ok(in.sqe.aux, sizeof(struct rs_aux), regions[0].len)))
        abort();
    if (rs_check_record(&in.source, true) == 0 && in.source.aad_len > RS_AAD_MAX) abort();
    if (rs_check_record(&in.destination, false) == 0 &&
        (in.destination.aad_len > RS_AAD_MAX || in.destination.derive != 0))
        abort();
    if (rs_transform_check(&t.config) == 0) check_place(&in, regions, &t);
    return 0;
}
