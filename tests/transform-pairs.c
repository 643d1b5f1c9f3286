/* SPDX-License-Identifier: Apache-2.0 */
/* Jobs of every pair of sides, with by-products and without, in place and not, more than a batch, up to the
 * longest: the result is what OpenSSL says, the by-products are of the plaintext, none of which stays in the
 * scratch. */
#include "tests/support/reference.h"
#include "tests/support/transforms.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdlib.h>

#define JOBS 35u

static uint8_t *plain, *in, *out, *back;
static uint8_t aads[2][JOBS][RS_AAD_MAX];
static uint8_t zero_maps[JOBS][1024];

static struct rs_transform_config config_of(unsigned src, unsigned dst, uint32_t src_unit, uint32_t dst_unit,
                                            uint32_t stages)
{
    struct rs_transform_config c = {.stages = stages, .counter_at = dst == RS_GCM ? 4 : RESEAL_NO_COUNTER};
    c.src = fixture_side(src, src_unit);
    c.dst = fixture_side(dst, dst_unit);
    return c;
}

static struct rs_job job_of(const struct fixture *f, size_t i, size_t at, uint32_t len, bool in_place)
{
    struct rs_job j = {.in = in_place ? out + at : in + at, .out = out + at, .len = len, .out_cap = len};
    j.src_tweak = 1000 * i;
    j.dst_tweak = 77 + 1000 * i;
    memset(j.src_iv, (int)i + 1, sizeof(j.src_iv));
    memset(j.dst_iv, (int)i + 101, sizeof(j.dst_iv));
    j.src_aad = aads[0][i];
    j.src_aad_len = (uint32_t)(i % (RS_AAD_MAX + 1));
    j.dst_aad = aads[1][i];
    j.dst_aad_len = 12 + (uint32_t)i;
    j.dst_counter = 0x0102030405060700 + i;
    j.zero_map = zero_maps[i];
    fixture_seal(f, 0, &j, plain + at, in + at, len, j.src_tag);
    if (in_place) memcpy(out + at, in + at, len);
    return j;
}

static void check_by_products(const struct fixture *f, const struct rs_job *j, const uint8_t *p)
{
    uint8_t digest[32];
    unsigned n;
    assert_non_null(HMAC(EVP_sha256(), f->digest_key, sizeof(f->digest_key), p, j->len, digest, &n));
    assert_memory_equal(digest, j->digest, sizeof(digest));
    size_t unit = f->t.zero_unit;
    for (size_t u = 0; u * unit < j->len; u++) {
        bool zero = (u + 1) * unit <= j->len;
        for (size_t k = u * unit; zero && k < (u + 1) * unit; k++) zero = p[k] == 0;
        assert_int_equal(j->zero_map[u / 8] >> (u % 8) & 1, zero);
    }
}

static void check_jobs(struct fixture *f, struct rs_job *jobs, size_t n, const uint32_t *len)
{
    for (size_t i = 0, at = 0; i < n; at += len[i], i++) {
        assert_int_equal(jobs[i].status, 0);
        assert_int_equal(jobs[i].out_len, len[i]);
        assert_true(fixture_open_side(f, 1, &jobs[i], out + at, back, len[i], jobs[i].dst_tag));
        assert_memory_equal(back, plain + at, len[i]);
        assert_false(fixture_scratch_holds(f, plain + at + len[i] / 2));
        if (f->t.config.stages != 0) check_by_products(f, &jobs[i], plain + at);
        if (f->t.config.dst.cipher != RS_GCM) continue;
        uint8_t counter[8];
        rs_store_be64(counter, jobs[i].dst_counter);
        assert_memory_equal(jobs[i].dst_aad + 4, counter, 8);
    }
}

static void run_pair(unsigned src, unsigned dst, uint32_t src_unit, uint32_t dst_unit, uint32_t stages,
                     bool in_place)
{
    struct fixture f;
    struct rs_transform_config c = config_of(src, dst, src_unit, dst_unit, stages);
    struct rs_job jobs[JOBS];
    uint32_t len[JOBS];
    bool record = src == RS_GCM || dst == RS_GCM, units = src == RS_XTS || dst == RS_XTS;
    fixture_open(&f, &c);
    for (size_t i = 0, at = 0; i < JOBS; at += len[i], i++) {
        len[i] = i == 3    ? (record ? RS_RECORD_MAX : RS_JOB_MAX)
                 : i == 34 ? 300 * 1024
                           : 4096 * (1 + (uint32_t)i % 5);
        if (!units) len[i] -= (uint32_t)i;
        jobs[i] = job_of(&f, i, at, len[i], in_place);
    }
    assert_int_equal(rs_transform_run(&f.t, jobs, JOBS, f.scratch, in_place), 0);
    check_jobs(&f, jobs, JOBS, len);
    fixture_close(&f);
}

/* True when this engine can do what the transform asks of it: the pair, or with stages each side. */
static bool can_do(const struct rs_engine *e, unsigned src, unsigned dst, uint32_t stages)
{
    struct rs_shape whole = {
        .src = (uint8_t)src, .dst = (uint8_t)dst, .src_bits = 256, .dst_bits = 256, .len = 65536};
    whole.src_unit = whole.dst_unit = 512;
    struct rs_shape open = whole, seal = whole;
    open.dst = seal.src = RS_PLAIN;
    open.dst_bits = seal.src_bits = 0;
    if (stages == 0 && src != RS_PLAIN && dst != RS_PLAIN) return e->supports(&whole);
    return (src == RS_PLAIN || e->supports(&open)) && (dst == RS_PLAIN || e->supports(&seal));
}

static void all_pairs(uint32_t stages)
{
    for (unsigned i = 0; i < 9; i++) {
        unsigned src = i / 3, dst = i % 3;
        run_pair(src, dst, src == RS_XTS ? 512 : 0, dst == RS_XTS ? 4096 : 0, stages, true);
        for (const struct rs_engine *const *e = rs_engines(); *e != NULL; e++) {
            if (!can_do(*e, src, dst, stages)) continue;
            setenv("RESEAL_ENGINE", (*e)->name, 1);
            run_pair(src, dst, src == RS_XTS ? 512 : 0, dst == RS_XTS ? 512 : 0, stages, false);
            unsetenv("RESEAL_ENGINE");
        }
    }
}

static void every_pair_without_stages(void **state)
{
    (void)state;
    all_pairs(0);
}

static void every_pair_with_by_products(void **state)
{
    (void)state;
    all_pairs(RESEAL_STAGE_ZERO | RESEAL_STAGE_DIGEST);
}

static void zero_map_counts_destination_units(void **state)
{
    (void)state;
    static const struct {
        unsigned src, dst;
        uint32_t src_unit, dst_unit, zero_unit;
    } cases[] = {
        {RS_XTS, RS_XTS, 512, 4096, 4096},   {RS_XTS, RS_GCM, 512, 0, 512},
        {RS_GCM, RS_XTS, 0, 1024, 1024},     {RS_GCM, RS_GCM, 0, 0, 4096},
        {RS_XTS, RS_PLAIN, 512, 2048, 2048}, {RS_XTS, RS_PLAIN, 512, 0, 512},
    };
    for (size_t i = 0; i < RS_ARRAY_LEN(cases); i++) {
        struct fixture f;
        struct rs_transform_config c =
            config_of(cases[i].src, cases[i].dst, cases[i].src_unit, cases[i].dst_unit, RESEAL_STAGE_ZERO);
        fixture_open(&f, &c);
        assert_int_equal(f.t.zero_unit, cases[i].zero_unit);
        struct rs_job j = {.len = 40960};
        assert_int_equal(rs_transform_zero_map_len(&f.t, &j), (40960 / cases[i].zero_unit + 7) / 8);
        fixture_close(&f);
    }
}

static void large_working_sets_stream(void **state)
{
    (void)state;
    assert_false(rs_transform_streams(256 * 1024));
    assert_true(rs_transform_streams(1ull << 40));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_pair_without_stages),
        cmocka_unit_test(every_pair_with_by_products),
        cmocka_unit_test(zero_map_counts_destination_units),
        cmocka_unit_test(large_working_sets_stream),
    };
    const size_t room = RS_JOB_MAX + (1u << 20);
    uint64_t seed = 11;
    plain = malloc(4 * room);
    if (plain == NULL) return 2;
    in = plain + room;
    out = in + room;
    back = out + room;
    reference_random(&seed, plain, room);
    for (size_t at = 0; at < room; at += 24576)
        memset(plain + at, 0, 8192); /* units of zeros among the others */
    reference_random(&seed, aads, sizeof(aads));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
