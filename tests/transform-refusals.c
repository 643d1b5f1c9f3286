/* SPDX-License-Identifier: Apache-2.0 */
/* Hostile configurations and jobs are refused with the documented code, and touch nothing; a record that
 * fails authentication releases neither bytes nor by-products. */
#include "tests/support/reference.h"
#include "tests/support/transforms.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <stdlib.h>

static uint8_t buffer[3 * RS_JOB_MAX / 2], map[1024], aad[RS_AAD_MAX];

static struct rs_transform_config config_of(unsigned src, unsigned dst, uint32_t stages)
{
    struct rs_transform_config c = {.stages = stages, .counter_at = RESEAL_NO_COUNTER};
    c.src = fixture_side(src, src == RS_XTS ? 512 : 0);
    c.dst = fixture_side(dst, dst == RS_XTS ? 4096 : 0);
    return c;
}

#define CONFIG_IS(code, change)                                                                              \
    do {                                                                                                     \
        struct rs_transform_config c = config_of(RS_XTS, RS_XTS, 0);                                         \
        change;                                                                                              \
        if (rs_transform_check(&c) != (code)) fail_msg("%s: %d", #change, rs_transform_check(&c));           \
    } while (0)

static void configurations(void **state)
{
    (void)state;
    CONFIG_IS(0, c.src.unit = 65536);
    CONFIG_IS(RESEAL_EINVAL, c.src.cipher = 3);
    CONFIG_IS(RESEAL_EINVAL, c.dst.cipher = 255);
    CONFIG_IS(RESEAL_EINVAL, c.src.bits = 192);
    CONFIG_IS(RESEAL_EINVAL, c.dst.bits = 0);
    CONFIG_IS(RESEAL_EINVAL, c.dst.bits = 65535);
    CONFIG_IS(RESEAL_EINVAL, c.src.step = 0);
    CONFIG_IS(RESEAL_EUNIT, c.src.unit = 0);
    CONFIG_IS(RESEAL_EUNIT, c.src.unit = 256);
    CONFIG_IS(RESEAL_EUNIT, c.dst.unit = 131072);
    CONFIG_IS(RESEAL_EUNIT, c.dst.unit = 520);
    CONFIG_IS(RESEAL_EUNIT, c.dst = fixture_side(RS_PLAIN, 100));
    CONFIG_IS(0, c.dst = fixture_side(RS_PLAIN, 0));
    CONFIG_IS(RESEAL_EINVAL, c.stages = 32);
    CONFIG_IS(RESEAL_EINVAL, c.stages = 0x80000000u);
    CONFIG_IS(RESEAL_EINVAL, c.stages = RESEAL_STAGE_LZ4 | RESEAL_STAGE_ZSTD);
    CONFIG_IS(RESEAL_EINVAL, c.stages = RESEAL_STAGE_DECOMPRESS);
    CONFIG_IS(0, c.stages =
                     RESEAL_STAGE_DECOMPRESS | RESEAL_STAGE_ZSTD | RESEAL_STAGE_ZERO | RESEAL_STAGE_DIGEST);
    CONFIG_IS(RESEAL_EINVAL, c.level = 0xffffffffu);
    CONFIG_IS(RESEAL_EINVAL, (c.stages = RESEAL_STAGE_ZSTD, c.level = RS_ZSTD_LEVELS + 1));
    CONFIG_IS(RESEAL_EINVAL, (c.stages = RESEAL_STAGE_LZ4, c.level = RS_LZ4_LEVELS + 1));
    CONFIG_IS(RESEAL_EINVAL, c.counter_at = 0); /* no GCM destination */
    CONFIG_IS(0, (c.dst = fixture_side(RS_GCM, 0), c.counter_at = RS_AAD_MAX - 8));
    CONFIG_IS(RESEAL_EINVAL, (c.dst = fixture_side(RS_GCM, 0), c.counter_at = RS_AAD_MAX - 7));
    CONFIG_IS(RESEAL_EINVAL, (c.dst = fixture_side(RS_GCM, 0), c.counter_at = 0xfffffffeu));
}

static void keys_that_do_not_fit(void **state)
{
    (void)state;
    struct rs_transform t;
    struct rs_transform_config c = config_of(RS_XTS, RS_GCM, RESEAL_STAGE_DIGEST);
    uint8_t raw[64], same[64] = {0};
    void *keys = aligned_alloc(64, rs_transform_key_size(&c));
    assert_non_null(keys);
    for (size_t i = 0; i < sizeof(raw); i++) raw[i] = (uint8_t)i;
    assert_int_equal(rs_transform_init(&t, &c, keys, same, raw, raw), RESEAL_EKEYBAD);
    assert_int_equal(rs_transform_init(&t, &c, keys, NULL, raw, raw), RESEAL_EINVAL);
    assert_int_equal(rs_transform_init(&t, &c, keys, raw, NULL, raw), RESEAL_EINVAL);
    assert_int_equal(rs_transform_init(&t, &c, keys, raw, raw, NULL), RESEAL_EINVAL);
    rs_transform_wipe(&t); /* after a failure, and twice */
    rs_transform_wipe(&t);
    setenv("RESEAL_ENGINE", "nonesuch", 1);
    assert_int_equal(rs_transform_init(&t, &c, keys, raw, raw, raw), RESEAL_ESELFTEST);
    unsetenv("RESEAL_ENGINE");
    assert_int_equal(rs_transform_init(&t, &c, keys, raw, raw, raw), 0);
    rs_transform_wipe(&t);
    free(keys);
}

static struct fixture f;

/* Refused by the check and by the run, which leaves everything as it was. */
static void refused(struct rs_job *job, int code, const char *what)
{
    static uint8_t before[sizeof(buffer)];
    memset(map, 0xa5, sizeof(map));
    memcpy(before, buffer, sizeof(buffer));
    int got = rs_transform_check_job(&f.t, job);
    if (got != code) fail_msg("%s: %d", what, got);
    assert_int_equal(rs_transform_run(&f.t, job, 1, f.scratch, false), 1);
    assert_int_equal(job->status, code);
    assert_int_equal(job->out_len, 0);
    assert_memory_equal(buffer, before, sizeof(buffer));
    for (size_t i = 0; i < sizeof(map); i++) assert_int_equal(map[i], 0xa5);
}

#define JOB_IS(code, change)                                                                                 \
    do {                                                                                                     \
        struct rs_job j = {.in = buffer, .out = buffer + RS_JOB_MAX / 2, .len = 8192, .out_cap = 8192};      \
        j.zero_map = map;                                                                                    \
        j.dst_aad = aad;                                                                                     \
        j.src_aad = aad;                                                                                     \
        j.dst_aad_len = 8;                                                                                   \
        change;                                                                                              \
        refused(&j, code, #change);                                                                          \
    } while (0)

static void begin(unsigned src, unsigned dst, uint32_t stages, uint32_t counter_at)
{
    struct rs_transform_config c = config_of(src, dst, stages);
    c.counter_at = counter_at;
    fixture_open(&f, &c);
}

static void jobs_of_sectors(void **state)
{
    (void)state;
    begin(RS_XTS, RS_XTS, RESEAL_STAGE_ZERO, RESEAL_NO_COUNTER);
    JOB_IS(RESEAL_EINVAL, j.in = NULL);
    JOB_IS(RESEAL_EINVAL, j.out = NULL);
    JOB_IS(RESEAL_EINVAL, j.zero_map = NULL);
    JOB_IS(RESEAL_EINVAL, j.len = 0);
    JOB_IS(RESEAL_EINVAL, j.len = RS_JOB_MAX + 4096);
    JOB_IS(RESEAL_EINVAL, j.len = 0xfffff000u);
    JOB_IS(RESEAL_EINVAL, j.len = 0xffffffffu);
    JOB_IS(RESEAL_EINVAL, j.raw_len = 8192);
    JOB_IS(RESEAL_EUNIT, j.len = 8191);
    JOB_IS(RESEAL_EUNIT, j.len = 1);
    JOB_IS(RESEAL_EUNIT, j.len = 4096 + 512); /* whole units of the source, not of the destination */
    JOB_IS(RESEAL_ESPACE, j.out_cap = 8191);
    JOB_IS(RESEAL_ESPACE, j.out_cap = 0);
    JOB_IS(RESEAL_EOVERLAP, j.out = buffer + 1);
    JOB_IS(RESEAL_EOVERLAP, j.out = buffer + 8191);
    JOB_IS(RESEAL_EOVERLAP, (j.in = buffer + 4096, j.out = buffer));
    JOB_IS(RESEAL_ERANGE, j.src_tweak = UINT64_MAX - 14);
    JOB_IS(RESEAL_ERANGE, j.dst_tweak = UINT64_MAX - 7);
    struct rs_job edge = {.in = buffer, .out = buffer, .len = 8192, .out_cap = 8192, .zero_map = map};
    edge.src_tweak = UINT64_MAX - 15;
    edge.dst_tweak = UINT64_MAX - 8;
    assert_int_equal(rs_transform_check_job(&f.t, &edge), 0);
    fixture_close(&f);
}

static void jobs_of_records(void **state)
{
    (void)state;
    begin(RS_GCM, RS_GCM, RESEAL_STAGE_ZERO, 0);
    JOB_IS(RESEAL_EINVAL, j.len = RS_RECORD_MAX + 1);
    JOB_IS(RESEAL_EINVAL, (j.src_aad_len = 1, j.src_aad = NULL));
    JOB_IS(RESEAL_EINVAL, j.src_aad_len = RS_AAD_MAX + 1);
    JOB_IS(RESEAL_EINVAL, j.dst_aad_len = RS_AAD_MAX + 1);
    JOB_IS(RESEAL_EINVAL, j.dst_aad_len = 0xffffffffu);
    JOB_IS(RESEAL_EINVAL, j.dst_aad_len = 7); /* the counter does not fit */
    JOB_IS(RESEAL_EINVAL, j.dst_aad_len = 0);
    JOB_IS(RESEAL_EINVAL, j.dst_aad = NULL);
    fixture_close(&f);
    begin(RS_GCM, RS_XTS, 0, RESEAL_NO_COUNTER);
    JOB_IS(RESEAL_EUNIT, j.len = 512);
    JOB_IS(RESEAL_EINVAL, j.len = RS_RECORD_MAX + 4096);
    fixture_close(&f);
}

static void jobs_that_change_their_length(void **state)
{
    (void)state;
    begin(RS_XTS, RS_XTS, RESEAL_STAGE_LZ4 | RESEAL_STAGE_ZERO, RESEAL_NO_COUNTER);
    JOB_IS(RESEAL_EINVAL, j.len = RS_STAGED_MAX + 4096);
    JOB_IS(RESEAL_EINVAL, j.raw_len = 1);
    JOB_IS(RESEAL_ESPACE, j.out_cap = 0);
    JOB_IS(RESEAL_EOVERLAP, j.out = buffer + 4096);
    fixture_close(&f);
    begin(RS_XTS, RS_XTS, RESEAL_STAGE_ZSTD | RESEAL_STAGE_DECOMPRESS | RESEAL_STAGE_ZERO, RESEAL_NO_COUNTER);
    JOB_IS(RESEAL_EINVAL, j.raw_len = 0);
    JOB_IS(RESEAL_EINVAL, j.raw_len = 4096); /* shorter than what is compressed */
    JOB_IS(RESEAL_EINVAL, j.raw_len = RS_STAGED_MAX + 4096);
    JOB_IS(RESEAL_EINVAL, j.raw_len = 0xffffffffu);
    JOB_IS(RESEAL_EUNIT, j.raw_len = 8192 + 512);
    JOB_IS(RESEAL_EUNIT, (j.len = 100, j.raw_len = 8192));
    JOB_IS(RESEAL_ESPACE, (j.raw_len = 16384));
    JOB_IS(RESEAL_EOVERLAP, (j.raw_len = j.out_cap = 65536, j.in = j.out + 60000));
    fixture_close(&f);
}

/* A good job on each side of the bad one: they are not harmed. */
static void altered(unsigned dst, uint32_t stages)
{
    struct rs_job jobs[3];
    uint8_t maps[3][16], before[32];
    begin(RS_GCM, dst, stages, RESEAL_NO_COUNTER);
    memset(maps, 0, sizeof(maps));
    memset(before, 0x5a, sizeof(before));
    memset(buffer, 0, sizeof(buffer));
    for (size_t i = 0; i < 3; i++) {
        uint8_t *in = buffer + i * 65536, *out = buffer + (i + 8) * 65536;
        jobs[i] = (struct rs_job){.in = in, .out = out, .len = 65536, .out_cap = 65536, .zero_map = maps[i]};
        jobs[i].raw_len = stages & RESEAL_STAGE_DECOMPRESS ? 65536 : 0;
        jobs[i].src_aad = aad;
        jobs[i].src_aad_len = 5;
        memset(jobs[i].digest, 0x5a, sizeof(jobs[i].digest));
        fixture_seal(&f, 0, &jobs[i], in, in, 65536, jobs[i].src_tag);
        memset(out, 0x5a, 65536);
    }
    jobs[1].src_tag[3] ^= 4;
    assert_int_equal(rs_transform_run(&f.t, jobs, 3, f.scratch, false), 1);
    assert_int_equal(jobs[0].status, 0);
    assert_int_equal(jobs[1].status, RESEAL_EAUTH);
    assert_int_equal(jobs[2].status, 0);
    assert_int_equal(jobs[1].out_len, 0);
    for (size_t i = 0; i < 65536; i++) assert_int_equal(jobs[1].out[i], 0x5a);
    assert_memory_equal(jobs[1].digest, before, sizeof(before));
    for (size_t i = 0; i < sizeof(maps[1]); i++) assert_int_equal(maps[1][i], 0);
    if (stages & RESEAL_STAGE_ZERO) assert_int_equal(maps[0][0], 0xff); /* it was all zeros */
    fixture_close(&f);
}

static void nothing_of_an_altered_record_is_released(void **state)
{
    (void)state;
    const uint32_t products = RESEAL_STAGE_ZERO | RESEAL_STAGE_DIGEST;
    for (unsigned dst = RS_PLAIN; dst <= RS_GCM; dst++) {
        altered(dst, 0);
        altered(dst, products);
        altered(dst, products | RESEAL_STAGE_LZ4);
        altered(dst, products | RESEAL_STAGE_ZSTD | RESEAL_STAGE_DECOMPRESS);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(configurations),
        cmocka_unit_test(keys_that_do_not_fit),
        cmocka_unit_test(jobs_of_sectors),
        cmocka_unit_test(jobs_of_records),
        cmocka_unit_test(jobs_that_change_their_length),
        cmocka_unit_test(nothing_of_an_altered_record_is_released),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
