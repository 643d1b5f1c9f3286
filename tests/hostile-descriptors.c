/* SPDX-License-Identifier: Apache-2.0 */

/* Each rule of the table of hostile descriptors: what is refused, with which status, and that the service
 * stays. */

#include "tests/support/raw.h"
#include "tests/support/service.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define LEN 8192u

static struct raw client;
static struct raw_queue queue;
static uint32_t xts, gcm;

static struct rs_sqe good(void)
{
    return raw_job(&queue, xts, 0, LEN, LEN);
}

static void check(struct rs_sqe e, int status)
{
    e.user_data = 77;
    assert_int_equal(raw_run(&queue, e), status);
    /* Whatever it was: the next good one works. */
    assert_int_equal(raw_run(&queue, good()), 0);
}

static void unknown_operations_and_flags(RS_UNUSED void **state)
{
    for (unsigned op = 0; op < 256; op++) {
        struct rs_sqe e = good();
        if (op >= RS_OP_TRANSFORM && op <= RS_OP_NOP) continue;
        e.op = (uint8_t)op;
        assert_int_equal(raw_run(&queue, e), RESEAL_EINVAL);
    }
    for (unsigned bit = 0; bit < 8; bit++) {
        struct rs_sqe e = good();
        e.flags = (uint8_t)(1u << bit);
        check(e, RESEAL_EINVAL);
    }
    struct rs_sqe nop = {.op = RS_OP_NOP};
    check(nop, 0);
    nop.len = 1;
    check(nop, RESEAL_EINVAL);
}

static void lengths(RS_UNUSED void **state)
{
    struct rs_sqe e = good();
    e.len = e.out_cap = 0;
    check(e, RESEAL_EINVAL);
    e.len = e.out_cap = 4097;
    check(e, RESEAL_EUNIT);
    e.len = e.out_cap = 512;
    check(e, RESEAL_EUNIT);
    e.len = (4u << 20) + 4096;
    check(e, RESEAL_EINVAL);
    e.len = 0xffffffffu;
    check(e, RESEAL_EINVAL);
    e = good();
    e.out_cap = LEN - 1;
    check(e, RESEAL_ESPACE);
    e.out_cap = 0xffffffffu;
    check(e, RESEAL_ERANGE);
    e = good();
    e.raw_len = 1;
    check(e, RESEAL_EINVAL);
}

static void ranges(RS_UNUSED void **state)
{
    static const uint64_t offsets[] = {
        UINT64_MAX, UINT64_MAX - LEN + 1, UINT64_MAX - 4095, 1ull << 63,
        1ull << 32, (1ull << 32) - LEN,   1ull << 40,        0x8000000000000000ull - LEN};
    for (size_t i = 0; i < RS_ARRAY_LEN(offsets); i++) {
        struct rs_sqe e = good();
        e.in_off = offsets[i];
        check(e, RESEAL_ERANGE);
        e = good();
        e.out_off = offsets[i];
        check(e, RESEAL_ERANGE);
    }
    struct rs_sqe e = good();
    e.in_off = queue.ring.data_len - LEN + 1;
    check(e, RESEAL_ERANGE);
    e = good();
    e.out_off = queue.ring.data_len;
    check(e, RESEAL_ERANGE);
}

static void regions(RS_UNUSED void **state)
{
    for (unsigned region = 1; region < 256; region++) {
        struct rs_sqe e = good();
        e.in_region = (uint8_t)region;
        assert_int_equal(raw_run(&queue, e), RESEAL_ERANGE);
        e = good();
        e.out_region = (uint8_t)region;
        assert_int_equal(raw_run(&queue, e), RESEAL_ERANGE);
    }
}

static void partial_overlap(RS_UNUSED void **state)
{
    struct rs_sqe e = raw_job(&queue, xts, 0, 4096, LEN);
    check(e, RESEAL_EOVERLAP);
    e = raw_job(&queue, xts, 1, 0, LEN);
    check(e, RESEAL_EOVERLAP);
    e = raw_job(&queue, xts, 64, 64, LEN);
    check(e, 0);
}

static void sessions_of_nobody(RS_UNUSED void **state)
{
    uint32_t handles[] = {
        0, 1, 0xffffffffu, xts + 0x10000, xts - 0x10000, xts ^ 0xff, (xts & 0xffff0000u) | 0xffff};
    for (size_t i = 0; i < RS_ARRAY_LEN(handles); i++) {
        struct rs_sqe e = good();
        e.session = handles[i];
        check(e, RESEAL_EINVAL);
    }
}

static void tweaks_that_overflow(RS_UNUSED void **state)
{
    struct rs_sqe e = good();
    e.src_tweak = UINT64_MAX;
    check(e, RESEAL_ERANGE);
    e = good();
    e.dst_tweak = UINT64_MAX - 1;
    check(e, RESEAL_ERANGE);
}

static struct rs_aux *aux_at(uint32_t off)
{
    return (struct rs_aux *)(void *)(queue.ring.data + off);
}

static void auxiliary_blocks(RS_UNUSED void **state)
{
    static const uint32_t places[] = {RS_AUX_NONE, 1, 32, 63, 0xffffffc1u};
    struct rs_sqe e = raw_job(&queue, gcm, 0, LEN, LEN);
    for (size_t i = 0; i < RS_ARRAY_LEN(places); i++) {
        e.aux = places[i];
        check(e, RESEAL_EINVAL);
    }
    e.aux = (uint32_t)(queue.ring.data_len - 64);
    check(e, RESEAL_ERANGE);
    e.aux = 0xffffffc0u;
    check(e, RESEAL_ERANGE);
    e.aux = 0;
    memset(aux_at(0), 0, sizeof(struct rs_aux));
    check(e, 0);
    aux_at(0)->destination.aad_len = 129;
    check(e, RESEAL_EINVAL);
    aux_at(0)->destination.aad_len = 0xffffffffu;
    check(e, RESEAL_EINVAL);
    aux_at(0)->destination.aad_len = 128;
    check(e, 0);
    assert_true(aux_at(0)->destination.counter >= 2);
}

/* A handle that was closed stays nobody's when its place is used again. */
static void old_generations(RS_UNUSED void **state)
{
    reseal_key a = raw_key(&client, RESEAL_XTS), b = raw_key(&client, RESEAL_XTS);
    struct rs_msg_side from = raw_side(RESEAL_XTS, a), to = raw_side(RESEAL_XTS, b);
    uint32_t old = raw_session(&client, from, to, NULL);
    struct rs_msg_session m = {.session = old};
    assert_int_equal(raw_call(&client, RS_MSG_SESSION_CLOSE, &m, sizeof(m), NULL, 0), 0);
    uint32_t new = raw_session(&client, from, to, NULL);
    assert_int_equal(old & 0xffff, new & 0xffff);
    assert_int_not_equal(old, new);
    struct rs_sqe e = good();
    e.session = old;
    check(e, RESEAL_ECANCELED);
    e.session = new;
    check(e, 0);
    m.session = old;
    assert_int_equal(raw_call(&client, RS_MSG_SESSION_CLOSE, &m, sizeof(m), NULL, 0), RESEAL_EINVAL);
}

/* Jobs that wait when a cancel names them do not run; the cancel completes too. */
static void cancel(RS_UNUSED void **state)
{
    struct rs_sqe e[20];
    unsigned seen = 0;
    for (unsigned i = 0; i < 19; i++) {
        e[i] = good();
        e[i].user_data = i == 18 ? 500 : 100;
    }
    e[19] = (struct rs_sqe){.op = RS_OP_CANCEL, .src_tweak = 500, .user_data = 900};
    raw_submit(&queue, e, 20);
    for (unsigned i = 0; i < 20; i++) {
        struct rs_cqe c;
        assert_true(raw_wait(&queue, &c, 60000));
        if (c.user_data == 500)
            assert_int_equal(c.status, RESEAL_ECANCELED);
        else
            assert_int_equal(c.status, 0);
        seen += c.user_data == 900;
    }
    assert_int_equal(seen, 1);
}

static int start(RS_UNUSED void **state)
{
    service_start(&service);
    raw_open(&client, service.dir);
    raw_queue_open(&client, &queue, 64, 1 << 20);
    reseal_key a = raw_key(&client, RESEAL_XTS), b = raw_key(&client, RESEAL_XTS),
               c = raw_key(&client, RESEAL_GCM);
    xts = raw_session(&client, raw_side(RESEAL_XTS, a), raw_side(RESEAL_XTS, b), NULL);
    gcm = raw_session(&client, raw_side(RESEAL_XTS, a), raw_side(RESEAL_GCM, c), NULL);
    return 0;
}

static int stop(RS_UNUSED void **state)
{
    raw_queue_close(&queue);
    raw_close(&client);
    service_stop(&service);
    return 0;
}

int main(void)
{
    if (!service_is_built()) return 77;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unknown_operations_and_flags),
        cmocka_unit_test(lengths),
        cmocka_unit_test(ranges),
        cmocka_unit_test(regions),
        cmocka_unit_test(partial_overlap),
        cmocka_unit_test(sessions_of_nobody),
        cmocka_unit_test(tweaks_that_overflow),
        cmocka_unit_test(auxiliary_blocks),
        cmocka_unit_test(old_generations),
        cmocka_unit_test(cancel),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
