/* SPDX-License-Identifier: Apache-2.0 */
/* A configuration and a few jobs of a hostile client, run for real: nothing outside the buffers is touched,
 * every job ends with a documented status, a refused job writes nothing. */
#include "offload/transform/transform.h"

#include <stdlib.h>

#define ARENA 32768u
#define JOBS  3u

struct input {
    const uint8_t *p;
    size_t left;
};

static uint64_t take(struct input *in, size_t n)
{
    uint64_t v = 0;
    for (; n != 0 && in->left != 0; n--, in->left--) v = v << 8 | *in->p++;
    return v;
}

static struct rs_transform_side side_from(struct input *in)
{
    static const uint16_t bits[] = {128, 256, 0, 192};
    struct rs_transform_side s = {.cipher = (uint8_t)(take(in, 1) % 4)};
    s.bits = bits[take(in, 1) % 4];
    s.unit = (uint32_t)take(in, 1) % 8 == 7 ? (uint32_t)take(in, 4) : 256u << take(in, 1) % 8;
    s.step = take(in, 1);
    return s;
}

static uint8_t *arena, zero_map[JOBS][1024], aads[2][JOBS][RS_AAD_MAX], raw[2][64];

static uint64_t at_most(uint64_t v, uint64_t most)
{
    return v < most ? v : most;
}

static struct rs_job job_from(struct input *in, size_t i)
{
    struct rs_job j = {.in = arena + take(in, 2) % ARENA, .zero_map = zero_map[i]};
    size_t room = ARENA - (size_t)(j.in - arena), at = take(in, 2) % ARENA;
    j.out = take(in, 1) & 1 ? arena + (j.in - arena) : arena + at;
    /* As the service: offsets and lengths are within the arena before a transform sees them. */
    j.len = (uint32_t)at_most(take(in, 1) & 7 ? take(in, 2) / 512 * 512 : take(in, 4), room);
    j.out_cap = (uint32_t)at_most(take(in, 1) & 7 ? j.len : take(in, 2), ARENA - (size_t)(j.out - arena));
    j.raw_len = (uint32_t)(take(in, 1) & 1 ? take(in, 4) : take(in, 1) * 512);
    j.src_tweak = take(in, 8);
    j.dst_tweak = take(in, 8);
    j.src_aad = aads[0][i];
    j.dst_aad = aads[1][i];
    j.src_aad_len = (uint32_t)take(in, take(in, 1) & 7 ? 1 : 4);
    j.dst_aad_len = (uint32_t)take(in, take(in, 1) & 7 ? 1 : 4);
    return j;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    struct rs_transform_config c = {.src = side_from(&in), .dst = side_from(&in)};
    struct rs_transform t;
    struct rs_job jobs[JOBS];
    if (arena == NULL) arena = malloc(ARENA);
    if (arena == NULL) abort();
    for (size_t i = 0; i < sizeof(raw); i++) raw[i / 64][i % 64] = (uint8_t)i;
    setenv("RESEAL_ENGINE", take(&in, 1) & 1 ? "openssl" : "", 1);
    c.stages = (uint32_t)take(&in, 1);
    c.level = (uint32_t)take(&in, 1) % 16;
    c.counter_at = take(&in, 1) & 1 ? RESEAL_NO_COUNTER : (uint32_t)take(&in, 1);
    if (rs_transform_check(&c) != 0) return 0;
    void *keys = aligned_alloc(64, rs_transform_key_size(&c) + 64);
    void *scratch = aligned_alloc(64, rs_round_up(rs_transform_scratch_size(&c), 64));
    if (keys == NULL || scratch == NULL) abort();
    if (rs_transform_init(&t, &c, keys, raw[0], raw[1], raw[0]) == 0) {
        for (size_t i = 0; i < JOBS; i++) jobs[i] = job_from(&in, i);
        for (size_t i = 0; i < ARENA; i++) arena[i] = in.left != 0 ? in.p[i % in.left] : 0;
        size_t failed = rs_transform_run(&t, jobs, JOBS, scratch, false);
        for (size_t i = 0; i < JOBS; i++) {
            if (jobs[i].status == RESEAL_EFAULT || jobs[i].status > 0) abort();
            if (jobs[i].out_len > (jobs[i].status == 0 ? jobs[i].out_cap : 0)) abort();
            failed -= jobs[i].status != 0;
        }
        if (failed != 0) abort();
    }
    rs_transform_wipe(&t);
    free(keys);
    free(scratch);
    return 0;
}
