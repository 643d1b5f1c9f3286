/* SPDX-License-Identifier: Apache-2.0 */

/* What only a client that does not keep the rules does: it harms itself alone, and finds no way round its
 * limits. */

#include "offload/base/clock.h"
#include "tests/support/raw.h"
#include "tests/support/service.h"

#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

static int attach(struct raw *r, const struct raw_queue *q, uint32_t depth)
{
    /* Says less than the memory has. */
    struct rs_msg_queue m = {.depth = depth, .arena = 4096};
    int wake = -1;
    int e =
        rs_msg_call(r->control, RS_MSG_QUEUE_ATTACH, &m, sizeof(m), &q->memfd, 1, &m, sizeof(m), &wake, 1);
    rs_cleanup_close(&wake);
    return e;
}

/* One memory, attached as often as a client may have queues: each counts for what it has. */
static void memory_that_is_brought_counts(RS_UNUSED void **state)
{
    struct raw r;
    struct raw_queue q;
    raw_open(&r, service.dir);
    uint64_t arena = r.welcome.max_arena / 32;
    raw_queue_open(&r, &q, 1, arena);
    unsigned more = 0;
    int e = 0;
    while (more < r.welcome.max_queues && (e = attach(&r, &q, 1)) == 0) more++;
    assert_int_equal(e, RESEAL_ELIMIT);
    assert_true((more + 1) * q.ring.total <= r.welcome.max_arena);
    struct rs_msg_region m = {.queue = q.number, .len = q.ring.total};
    e = rs_msg_call(r.control, RS_MSG_REGION_ADD, &m, sizeof(m), &q.memfd, 1, &m, sizeof(m), NULL, 0);
    assert_int_equal(e, RESEAL_ELIMIT);
    raw_queue_close(&q);
    raw_close(&r);
}

static void until_it_sleeps(const struct raw_queue *q)
{
    uint64_t end = rs_now_ns() + 60000000000ull;
    while (!rs_ring_should_wake(&q->sq)) {
        assert_true(rs_now_ns() < end);
        sched_yield();
    }
}

/* Completions are left lying until none fits: the service sleeps, and goes on with the next submission. */
static void completions_that_nobody_takes(RS_UNUSED void **state)
{
    struct raw r;
    struct raw_queue q;
    struct rs_cqe c;
    struct rs_sqe nop[2] = {{.op = RS_OP_NOP, .user_data = 1}, {.op = RS_OP_NOP, .user_data = 2}};
    raw_open(&r, service.dir);
    raw_queue_open(&r, &q, 2, 4096);
    raw_submit(&q, nop, 2);
    while (rs_ring_available(&q.cq) != 2) sched_yield();
    until_it_sleeps(&q);
    raw_submit(&q, nop, 1);
    until_it_sleeps(&q);
    assert_true(raw_wait(&q, &c, 0) && raw_wait(&q, &c, 0));
    raw_submit(&q, nop + 1, 1);
    assert_true(raw_wait(&q, &c, 60000));
    assert_int_equal(c.user_data, 1);
    assert_true(raw_wait(&q, &c, 60000));
    assert_int_equal(c.user_data, 2);
    raw_queue_close(&q);
    raw_close(&r);
}

/* The places of the workers are more than one user can have. */
static void queues_of_a_user_have_a_limit(RS_UNUSED void **state)
{
    struct raw r[20];
    struct rs_msg_queue m = {.depth = 1, .arena = 4096}, reply;
    unsigned clients = 0, queues = 0;
    int e = 0;
    while (e == 0 && clients < RS_ARRAY_LEN(r)) {
        raw_open(&r[clients++], service.dir);
        for (unsigned i = 0; e == 0 && i < r[0].welcome.max_queues; i++) {
            int fds[2];
            e = rs_msg_call(r[clients - 1].control, RS_MSG_QUEUE_OPEN, &m, sizeof(m), NULL, 0, &reply,
                            sizeof(reply), fds, 2);
            if (e != 0) break;
            queues++;
            close(fds[0]);
            close(fds[1]);
        }
    }
    assert_int_equal(e, RESEAL_ELIMIT);
    assert_int_equal(queues, 1024);
    while (clients != 0) raw_close(&r[--clients]);
}

int main(void)
{
    if (!service_is_built()) return 77;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_that_is_brought_counts),
        cmocka_unit_test(completions_that_nobody_takes),
        cmocka_unit_test(queues_of_a_user_have_a_limit),
    };
    return cmocka_run_group_tests(tests, service_group_start, service_group_stop);
}
