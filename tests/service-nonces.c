/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The service counts IVs: each binding under a subkey of its own, up to its
 * limit; subkeys of sources are derived again after they fell out of the cache.
 */

#include "offload/base/keymem.h"
#include "offload/service/binding.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define LEN 4096u

static const struct rs_transform_config seal = {.dst = {.cipher = RS_GCM, .bits = 256},
                                                .counter_at = RESEAL_NO_COUNTER};
static const struct rs_transform_config open_it = {.src = {.cipher = RS_GCM, .bits = 256},
                                                   .counter_at = RESEAL_NO_COUNTER};

static struct rs_msg_session_keys *keys;

static void counts_and_stops_at_the_limit(RS_UNUSED void **state)
{
    struct rs_binding *b;
    uint8_t iv[RS_IV_LEN], expected[RS_IV_LEN] = {0};
    uint64_t counter;
    keys->record_limit = 3;
    assert_int_equal(rs_binding_make(&b, &seal, keys), 0);
    for (uint64_t i = 1; i <= 3; i++) {
        assert_int_equal(rs_binding_next_iv(b, &counter, iv), 0);
        assert_true(counter == i);
        expected[RS_IV_LEN - 1] = (uint8_t)i;
        assert_memory_equal(iv, expected, RS_IV_LEN);
    }
    assert_int_equal(rs_binding_next_iv(b, &counter, iv), RESEAL_EKEYUSED);
    assert_int_equal(rs_binding_next_iv(b, &counter, iv), RESEAL_EKEYUSED);
    rs_binding_free(b);
}

static void never_wraps(RS_UNUSED void **state)
{
    struct rs_binding *b;
    uint8_t iv[RS_IV_LEN];
    uint64_t counter;
    keys->record_limit = 0;
    assert_int_equal(rs_binding_make(&b, &seal, keys), 0);
    b->counter = UINT64_MAX - 1;
    assert_int_equal(rs_binding_next_iv(b, &counter, iv), 0);
    assert_true(counter == UINT64_MAX);
    assert_int_equal(rs_binding_next_iv(b, &counter, iv), RESEAL_EKEYUSED);
    rs_binding_free(b);
}

static size_t scratch_len(void)
{
    size_t a = rs_transform_scratch_size(&seal), b = rs_transform_scratch_size(&open_it);
    return RS_MAX(a, b);
}

/* A record sealed under HKDF(key, salt) of salt number n. */
static void seal_under(unsigned n, uint8_t *out, struct rs_job *job, void *scratch)
{
    static uint8_t in[LEN];
    struct rs_binding *b;
    struct rs_msg_session_keys *k = rs_keymem_alloc(sizeof(*k));
    uint8_t salt[RS_SALT_LEN] = {(uint8_t)n};
    memset(in, (int)n, LEN);
    *k = *keys;
    assert_int_equal(rs_derive_subkey(keys->src, 32, salt, k->dst), 0);
    assert_int_equal(rs_binding_make(&b, &seal, k), 0);
    *job = (struct rs_job){.in = in, .out = out, .len = LEN, .out_cap = LEN, .dst_counter = n};
    rs_transform_run(&b->transform, job, 1, scratch, false);
    assert_int_equal(job->status, 0);
    rs_binding_free(b);
    rs_keymem_free(k);
}

static void sources_derive_again(RS_UNUSED void **state)
{
    enum { SALTS = 3 * RS_DERIVED_MAX };
    static uint8_t sealed[SALTS][LEN], back[LEN], expected[LEN];
    struct rs_job jobs[SALTS];
    struct rs_binding *b;
    void *scratch = rs_scratch_map(scratch_len(), NULL);
    assert_non_null(scratch);
    for (unsigned i = 0; i < SALTS; i++) seal_under(i, sealed[i], &jobs[i], scratch);
    assert_int_equal(rs_binding_make(&b, &open_it, keys), 0);
    size_t used[3];
    for (unsigned pass = 0; pass < 3; pass++) {
        for (unsigned i = 0; i < SALTS; i++) {
            const struct rs_transform *t;
            uint8_t salt[RS_SALT_LEN] = {(uint8_t)i};
            struct rs_job job = {.in = sealed[i], .out = back, .len = LEN, .out_cap = LEN};
            memcpy(job.src_tag, jobs[i].dst_tag, RS_TAG_LEN);
            assert_int_equal(rs_binding_derived(b, salt, &t), 0);
            rs_transform_run(t, &job, 1, scratch, false);
            assert_int_equal(job.status, 0);
            memset(expected, (int)i, LEN);
            assert_memory_equal(back, expected, LEN);
        }
        rs_keymem_usage(NULL, &used[pass]);
    }
    /* The cache is bounded: nothing piles up. */
    assert_true(used[1] == used[2]);
    rs_binding_free(b);
    rs_scratch_unmap(scratch, scratch_len());
}

static void nothing_stays(RS_UNUSED void **state)
{
    size_t used;
    rs_keymem_free(keys);
    rs_keymem_usage(NULL, &used);
    assert_int_equal(used, 0);
}

static int start(RS_UNUSED void **state)
{
    if (rs_keymem_init(0) != 0) return -1;
    rs_engines_init();
    keys = rs_keymem_alloc(sizeof(*keys));
    if (keys == NULL) return -1;
    keys->src_len = keys->dst_len = 32;
    keys->src_bits = keys->dst_bits = 256;
    memset(keys->src, 0x5a, 32);
    memset(keys->dst, 0xa5, 32);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(counts_and_stops_at_the_limit),
                                       cmocka_unit_test(never_wraps), cmocka_unit_test(sources_derive_again),
                                       cmocka_unit_test(nothing_stays)};
    return cmocka_run_group_tests(tests, start, NULL);
}
