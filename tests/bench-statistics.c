/* SPDX-License-Identifier: Apache-2.0 */
/* The statistics of `reseal bench`, against values worked out by hand and against repetition. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "bench/stats.h"
#include "offload/base/bytes.h"

static void near(double a, double b)
{
    assert_true(fabs(a - b) < 1e-9);
}

static void medians(void **state)
{
    (void)state;
    double odd[] = {5, 1, 3}, even[] = {4, 1, 3, 2}, one[] = {7};
    near(rs_median(odd, 3), 3);
    near(rs_median(even, 4), 2.5);
    near(rs_median(one, 1), 7);
    near(rs_median(one, 0), 0);
}

static void quantiles(void **state)
{
    (void)state;
    double v[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
    near(rs_quantile(v, 11, 0), 0);
    near(rs_quantile(v, 11, 1), 10);
    near(rs_quantile(v, 11, 0.5), 5);
    near(rs_quantile(v, 11, 0.99), 9.9);
    near(rs_quantile(v, 0, 0.5), 0);
}

static void an_outlier_moves_nothing(void **state)
{
    (void)state;
    double v[] = {10, 11, 10, 11, 10, 11, 10, 11, 1000};
    struct rs_summary s = rs_summarise(v, 9);
    near(s.median, 11);
    near(s.mad, 1);
    near(s.best, 1000);
    assert_true(s.low >= 10 && s.high <= 11);
}

static void few_values_give_their_range(void **state)
{
    (void)state;
    double v[] = {3, 1, 2};
    struct rs_summary s = rs_summarise(v, 3);
    near(s.low, 1);
    near(s.high, 3);
    assert_int_equal(rs_summarise(v, 0).n, 0);
}

static uint64_t next(uint64_t *x)
{
    *x ^= *x << 13;
    *x ^= *x >> 7;
    *x ^= *x << 17;
    return *x;
}

/* Skewed noise with a known median: the interval must hold it about 95 times in 100, never much less. */
static void the_interval_covers(void **state)
{
    (void)state;
    uint64_t seed = 88172645463325252u;
    static const size_t sizes[] = {6, 15, 31, 101, 2000};
    for (size_t z = 0; z < RS_ARRAY_LEN(sizes); z++) {
        unsigned hold = 0, rounds = 600;
        double v[2000];
        for (unsigned r = 0; r < rounds; r++) {
            for (size_t i = 0; i < sizes[z]; i++)
                v[i] = -log(((double)(next(&seed) >> 11) + 1) / 9007199254740993.0);
            struct rs_summary s = rs_summarise(v, sizes[z]);
            hold += s.low <= log(2) && log(2) <= s.high;
        }
        assert_true(hold * 100 >= rounds * 92);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(medians),
        cmocka_unit_test(quantiles),
        cmocka_unit_test(an_outlier_moves_nothing),
        cmocka_unit_test(few_values_give_their_range),
        cmocka_unit_test(the_interval_covers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
