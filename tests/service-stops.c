/* SPDX-License-Identifier: Apache-2.0 */

/* A service that is told to end completes what it accepted, also in place, where nothing could be done again.
 */

#include "tests/support/raw.h"
#include "tests/support/service.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define JOBS 64u
#define LEN  (4u << 20)

static void accepted_jobs_are_completed(RS_UNUSED void **state)
{
    struct service own;
    struct raw r;
    struct raw_queue q;
    struct rs_sqe jobs[JOBS];
    struct rs_cqe c;
    service_start(&own);
    raw_open(&r, own.dir);
    raw_queue_open(&r, &q, JOBS, LEN);
    struct rs_msg_side from = raw_side(RESEAL_XTS, raw_key(&r, RESEAL_XTS));
    struct rs_msg_side to = raw_side(RESEAL_XTS, raw_key(&r, RESEAL_XTS));
    uint32_t session = raw_session(&r, from, to, NULL);
    for (unsigned i = 0; i < JOBS; i++) jobs[i] = raw_job(&q, session, 0, 0, LEN);
    raw_submit(&q, jobs, JOBS);
    /* One is completed: those that were there with it are accepted, and most of them wait. */
    assert_true(raw_wait(&q, &c, 60000));
    assert_int_equal(c.status, 0);
    service_stop(&own);
    uint32_t accepted = atomic_load(&q.ring.control->sq_consumer.index);
    assert_int_equal(atomic_load(&q.ring.control->cq_producer.index), accepted);
    for (uint32_t i = 1; i < accepted; i++) {
        assert_true(raw_wait(&q, &c, 0));
        assert_int_equal(c.status, 0);
    }
    raw_queue_close(&q);
    raw_close(&r);
}

int main(void)
{
    if (!service_is_built()) return 77;
    const struct CMUnitTest tests[] = {cmocka_unit_test(accepted_jobs_are_completed)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
