/* SPDX-License-Identifier: Apache-2.0 */

/*
 * One connection with queues on two workers: sessions work on both, records of
 * both never share a nonce, and a closed session is closed on both.
 */

#include "tests/support/raw.h"
#include "tests/support/service.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define QUEUES  4
#define RECORDS 200

static void sessions_on_both(RS_UNUSED void **state)
{
    struct raw r;
    struct raw_queue q[QUEUES];
    struct {
        uint8_t salt[16];
        uint64_t counter;
    } seen[QUEUES] = {0};
    raw_open(&r, service.dir);
    reseal_key x = raw_key(&r, RESEAL_XTS), g = raw_key(&r, RESEAL_GCM);
    /* One session before there is a queue, one in between, one behind. */
    uint32_t first = raw_session(&r, raw_side(RESEAL_XTS, x), raw_side(RESEAL_GCM, g), NULL);
    raw_queue_open(&r, &q[0], 16, 65536);
    raw_queue_open(&r, &q[1], 16, 65536);
    uint32_t second = raw_session(&r, raw_side(RESEAL_XTS, x), raw_side(RESEAL_GCM, g), NULL);
    raw_queue_open(&r, &q[2], 16, 65536);
    raw_queue_open(&r, &q[3], 16, 65536);
    unsigned salts = 0;
    for (unsigned i = 0; i < RECORDS; i++)
        for (unsigned n = 0; n < QUEUES; n++) {
            struct rs_sqe e = raw_job(&q[n], first, 0, 4096, 4096);
            struct rs_aux *aux = (struct rs_aux *)(void *)q[n].ring.data;
            e.aux = 0;
            assert_int_equal(raw_run(&q[n], e), 0);
            memcpy(seen[n].salt, aux->destination.salt, 16);
            /* The same subkey: then the other's number was another. */
            for (unsigned m = 0; m < QUEUES; m++)
                if (m != n && memcmp(seen[m].salt, seen[n].salt, 16) == 0)
                    assert_true(seen[m].counter != aux->destination.counter);
            seen[n].counter = aux->destination.counter;
        }
    for (unsigned n = 1; n < QUEUES; n++) salts += memcmp(seen[n].salt, seen[0].salt, 16) != 0;
    assert_int_equal(salts, QUEUES / 2);
    struct rs_msg_session m = {.session = first};
    assert_int_equal(raw_call(&r, RS_MSG_SESSION_CLOSE, &m, sizeof(m), NULL, 0), 0);
    for (unsigned n = 0; n < QUEUES; n++) {
        struct rs_sqe e = raw_job(&q[n], first, 0, 4096, 4096);
        e.aux = 0;
        assert_int_equal(raw_run(&q[n], e), RESEAL_ECANCELED);
        e.session = second;
        assert_int_equal(raw_run(&q[n], e), 0);
        struct rs_msg_queue close_it = {.queue = q[n].number};
        assert_int_equal(raw_call(&r, RS_MSG_QUEUE_CLOSE, &close_it, sizeof(close_it), NULL, 0), 0);
        raw_queue_close(&q[n]);
    }
    raw_close(&r);
}

static int start(RS_UNUSED void **state)
{
    static const char *const arguments[] = {"--workers", "2", NULL};
    service_start_with(&service, arguments);
    return 0;
}

int main(void)
{
    if (!service_is_built()) return 77;
    const struct CMUnitTest tests[] = {cmocka_unit_test(sessions_on_both)};
    return cmocka_run_group_tests(tests, start, service_group_stop);
}
