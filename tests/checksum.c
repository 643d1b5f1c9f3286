/* SPDX-License-Identifier: Apache-2.0 */
/* CRC-32C: the check value of RFC 3720, and the same with and without the processor's instruction. */
#include "offload/base/crc32c.h"
#include "tests/support/cmocka.h"

static void known_answers(void **state)
{
    (void)state;
    uint8_t zeros[32] = {0};
    assert_int_equal(rs_crc32c(0, "123456789", 9), 0xe3069283u);
    assert_int_equal(rs_crc32c(0, zeros, sizeof(zeros)), 0x8a9136aau);
    assert_int_equal(rs_crc32c(0, "", 0), 0);
}

static void both_ways_agree(void **state)
{
    (void)state;
    uint8_t data[300];
    for (unsigned i = 0; i < sizeof(data); i++) data[i] = (uint8_t)(i * 31 + i / 7);
    for (size_t at = 0; at < 9; at++)
        for (size_t len = 0; at + len <= sizeof(data); len++) {
            uint32_t whole = rs_crc32c_by_table(0, data + at, len);
            assert_int_equal(rs_crc32c(0, data + at, len), whole);
            uint32_t half = rs_crc32c(0, data + at, len / 2);
            assert_int_equal(rs_crc32c(half, data + at + len / 2, len - len / 2), whole);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(known_answers), cmocka_unit_test(both_ways_agree)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
