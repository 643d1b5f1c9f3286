/* SPDX-License-Identifier: Apache-2.0 */

/* The limits that figures are ratios to: what they count, and that measuring a copy copies, and nothing else.
 */

#include "offload/base/bytes.h"
#include "providers/crypto/engine.h"
#include "providers/crypto/limit.h"
#include "tests/support/guarded.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void rounds_of_both_sides(void **state)
{
    (void)state;
    assert_int_equal(rs_limit_rounds(256, 256), 28);
    assert_int_equal(rs_limit_rounds(128, 256), 24);
    assert_int_equal(rs_limit_rounds(128, 128), 20);
    assert_int_equal(rs_limit_rounds(0, 256), 14);
    assert_int_equal(rs_limit_rounds(128, 0), 10);
    assert_int_equal(rs_limit_rounds(0, 0), 0);
}

static void aes_rounds_where_there_are_kernels(void **state)
{
    bool kernels = false;
    (void)state;
    for (const struct rs_engine *const *e = rs_engines_known(); *e != NULL; e++)
        if (strncmp((*e)->name, "vaes-", 5) == 0 && (*e)->probe() == 0) kernels = true;
    double rate = rs_limit_aes_rounds_per_second();
    assert_true(kernels ? rate > 1e6 : rate >= 0);
}

static void a_copy_copies_and_stays_inside(void **state)
{
    static const size_t lens[] = {1, 63, 64, 65, 4096, 100001};
    struct guarded in, out;
    (void)state;
    guarded_map(&in, 128 << 10);
    guarded_map(&out, 128 << 10);
    for (size_t i = 0; i < in.room; i++) in.page[i] = (uint8_t)(i * 7 + i / 256);
    for (size_t i = 0; i < RS_ARRAY_LEN(lens); i++) {
        uint8_t *from = guarded_at_end(&in, lens[i]), *to = guarded_at_end(&out, lens[i]);
        memset(out.page, 0, out.room);
        assert_true(rs_limit_copy(to, from, lens[i]) > 0);
        assert_memory_equal(to, from, lens[i]);
        assert_int_equal(to[-1], 0);
    }
    guarded_unmap(&in);
    guarded_unmap(&out);
}

static void the_clock_goes_forward(void **state)
{
    (void)state;
    uint64_t before = rs_now_ns();
    for (unsigned i = 0; i < 1000; i++) {
        uint64_t now = rs_now_ns();
        assert_true(now >= before);
        before = now;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rounds_of_both_sides),
        cmocka_unit_test(aes_rounds_where_there_are_kernels),
        cmocka_unit_test(a_copy_copies_and_stays_inside),
        cmocka_unit_test(the_clock_goes_forward),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
