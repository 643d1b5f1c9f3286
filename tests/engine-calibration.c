/* SPDX-License-Identifier: Apache-2.0 */
/* The measured choice is an engine that does the shape, is made once, is listed, and gives way to
 * RESEAL_ENGINE. */
#include "providers/crypto/calibrate.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdlib.h>

#define ROWS 256u

static struct rs_shape shape(unsigned src, unsigned dst, uint32_t len)
{
    struct rs_shape s = {
        .src = (uint8_t)src, .dst = (uint8_t)dst, .src_unit = 512, .dst_unit = 4096, .len = len};
    s.src_bits = src == RS_PLAIN ? 0 : 256;
    s.dst_bits = dst == RS_PLAIN ? 0 : 128;
    return s;
}

static void every_pair_gets_an_engine_that_supports_it(void **state)
{
    (void)state;
    struct rs_calibration_row rows[ROWS];
    for (unsigned i = 1; i < 9; i++) {
        struct rs_shape s = shape(i / 3, i % 3, 65536);
        const struct rs_engine *best = rs_engine_best(&s);
        assert_non_null(best);
        assert_true(best->supports(&s));
        assert_ptr_equal(rs_engine_best(&s), best);
    }
    size_t n = rs_calibration(rows, ROWS), chosen = 0;
    assert_int_equal(rs_calibration(NULL, 0), n);
    assert_in_range(n, 8, ROWS);
    for (size_t i = 0; i < n; i++) {
        assert_true(rows[i].engine->supports(&rows[i].shape));
        assert_true(rows[i].gbps > 0);
        chosen += rows[i].chosen;
        for (size_t k = 0; k < i; k++) {
            if (memcmp(&rows[k].shape, &rows[i].shape, sizeof(rows[i].shape)) != 0) continue;
            assert_ptr_not_equal(rows[k].engine, rows[i].engine);
            if (rows[k].chosen) assert_true(rows[k].gbps >= rows[i].gbps);
        }
    }
    assert_int_equal(chosen, 8);
}

static void lengths_share_buckets(void **state)
{
    (void)state;
    static const uint32_t len[][2] = {{1, 4096},      {4096, 4096},    {4097, 16384},
                                      {65536, 65536}, {65537, 262144}, {4u << 20, 262144}};
    for (size_t i = 0; i < RS_ARRAY_LEN(len); i++) {
        struct rs_shape s = shape(RS_GCM, RS_GCM, len[i][0]);
        assert_int_equal(rs_calibration_bucket(&s).len, len[i][1]);
    }
    struct rs_shape big = shape(RS_XTS, RS_XTS, 512);
    big.dst_unit = 65536; /* no unit is longer than its run */
    assert_int_equal(rs_calibration_bucket(&big).len, 65536);
}

static void more_shapes_than_the_table_holds_are_served(void **state)
{
    (void)state;
    for (uint32_t unit = 16; unit < 16 + 16 * 200; unit += 16) {
        struct rs_shape s = {.dst = RS_XTS, .dst_bits = 256, .dst_unit = unit, .len = 4096};
        setenv("RESEAL_ENGINE", "", 1);
        assert_non_null(rs_engine_best(&s));
    }
    struct rs_calibration_row rows[1];
    assert_true(rs_calibration(rows, 1) >= 128);
}

static void an_override_is_obeyed_or_refused(void **state)
{
    (void)state;
    struct rs_shape xts = shape(RS_XTS, RS_XTS, 4096);
    setenv("RESEAL_ENGINE", "openssl", 1);
    const struct rs_engine *named = rs_engine_best(&xts);
    setenv("RESEAL_ENGINE", "ipsec_mb", 1);
    const struct rs_engine *without_xts = rs_engine_best(&xts);
    setenv("RESEAL_ENGINE", "nonesuch", 1);
    const struct rs_engine *unknown = rs_engine_best(&xts);
    unsetenv("RESEAL_ENGINE");
    assert_non_null(named);
    assert_string_equal(named->name, "openssl");
    assert_null(without_xts); /* never silently another */
    assert_null(unknown);
    assert_non_null(rs_engine_best(&xts));
}

static void *ask(void *arg)
{
    struct rs_shape s = *(struct rs_shape *)arg;
    return (void *)(uintptr_t)rs_engine_best(&s);
}

static void threads_get_the_same_answer(void **state)
{
    (void)state;
    struct rs_shape s = shape(RS_XTS, RS_GCM, 16384);
    pthread_t threads[4];
    void *got[4];
    for (size_t i = 0; i < 4; i++) assert_int_equal(pthread_create(&threads[i], NULL, ask, &s), 0);
    for (size_t i = 0; i < 4; i++) pthread_join(threads[i], &got[i]);
    for (size_t i = 1; i < 4; i++) assert_ptr_equal(got[i], got[0]);
    assert_non_null(got[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_pair_gets_an_engine_that_supports_it),
        cmocka_unit_test(lengths_share_buckets),
        cmocka_unit_test(an_override_is_obeyed_or_refused),
        cmocka_unit_test(threads_get_the_same_answer),
        cmocka_unit_test(more_shapes_than_the_table_holds_are_served),
    };
    unsetenv("RESEAL_ENGINE");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
