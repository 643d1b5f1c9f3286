/* SPDX-License-Identifier: Apache-2.0 */
/* Free-running indices pass 2^32 unnoticed; a full ring is full; an index that lies reads as full or empty.
 */
#include "offload/ring/ring.h"
#include "tests/support/cmocka.h"

#include <stdlib.h>
#include <unistd.h>

#define DEPTH 8u

static struct rs_ring ring;

static int setup(void **state)
{
    (void)state;
    int memfd;
    assert_int_equal(rs_ring_create(&ring, &memfd, DEPTH, 4096, 0), 0);
    close(memfd);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    rs_ring_detach(&ring);
    return 0;
}

/* Both ends of the submission ring at `index`, as after that many entries. */
static void ends_at(uint32_t index, struct rs_ring_end *producer, struct rs_ring_end *consumer)
{
    *producer = rs_ring_sq_producer(&ring, index);
    *consumer = rs_ring_sq_consumer(&ring, index);
    rs_ring_publish(producer, 0);
    rs_ring_take(consumer, 0);
}

static void entries_keep_their_order_across_the_wrap(void **state)
{
    (void)state;
    struct rs_ring_end producer, consumer;
    ends_at(0xfffffff0u, &producer, &consumer);
    uint64_t sent = 0, got = 0;
    while (got < 100) {
        uint32_t n = rs_ring_room(&producer);
        assert_in_range(n, 1, DEPTH);
        for (uint32_t i = 0; i < n; i++)
            ring.sq[rs_ring_slot(&producer, i)] = (struct rs_sqe){.user_data = sent++};
        rs_ring_publish(&producer, n);
        uint32_t m = rs_ring_available(&consumer);
        assert_int_equal(m, n);
        /* Takes one less than there is, so that slots and indices drift apart. */
        m = RS_MAX(m - 1, 1u);
        for (uint32_t i = 0; i < m; i++) {
            struct rs_sqe e;
            rs_ring_copy_once(&e, &ring.sq[rs_ring_slot(&consumer, i)], sizeof(e));
            assert_int_equal(e.user_data, got++);
        }
        rs_ring_take(&consumer, m);
        if (rs_ring_available(&consumer) == 1) {
            assert_int_equal(ring.sq[rs_ring_slot(&consumer, 0)].user_data, got++);
            rs_ring_take(&consumer, 1);
        }
    }
    assert_true(producer.index < 0xfffffff0u);
}

static void a_full_ring_has_no_room(void **state)
{
    (void)state;
    struct rs_ring_end producer, consumer;
    ends_at(0xfffffffcu, &producer, &consumer);
    assert_int_equal(rs_ring_room(&producer), DEPTH);
    for (uint32_t i = 0; i < DEPTH; i++) {
        assert_int_equal(rs_ring_room(&producer), DEPTH - i);
        rs_ring_publish(&producer, 1);
    }
    assert_int_equal(rs_ring_room(&producer), 0);
    assert_int_equal(rs_ring_available(&consumer), DEPTH);
    rs_ring_take(&consumer, 3);
    assert_int_equal(rs_ring_room(&producer), 3);
    assert_int_equal(rs_ring_available(&consumer), DEPTH - 3);
}

static void a_producer_that_lies_is_clamped_to_the_depth(void **state)
{
    (void)state;
    struct rs_ring_end producer, consumer;
    const uint32_t lies[] = {DEPTH + 1, 1000, 0x7fffffff, 0x80000000u, 0xffffffffu};
    for (size_t i = 0; i < RS_ARRAY_LEN(lies); i++) {
        ends_at(5, &producer, &consumer);
        atomic_store(&ring.control->sq_producer.index, 5 + lies[i]);
        assert_int_equal(rs_ring_available(&consumer), DEPTH);
    }
}

static void a_consumer_that_lies_leaves_no_room(void **state)
{
    (void)state;
    struct rs_ring_end producer, consumer;
    const uint32_t lies[] = {6, 1000, 0x80000000u, 5u - DEPTH - 1};
    for (size_t i = 0; i < RS_ARRAY_LEN(lies); i++) {
        ends_at(5, &producer, &consumer);
        atomic_store(&ring.control->sq_consumer.index, lies[i]);
        assert_int_equal(rs_ring_room(&producer), 0);
    }
}

static void an_own_index_is_never_read_back(void **state)
{
    (void)state;
    struct rs_ring_end producer, consumer;
    ends_at(0, &producer, &consumer);
    rs_ring_publish(&producer, 2);
    /* The other end writes on our line: our private index stands. */
    atomic_store(&ring.control->sq_producer.index, 77);
    rs_ring_publish(&producer, 1);
    assert_int_equal(atomic_load(&ring.control->sq_producer.index), 3);
    assert_int_equal(rs_ring_room(&producer), DEPTH - 3);
}

static void who_sleeps_is_told_of_the_next_publish_only(void **state)
{
    (void)state;
    struct rs_ring_end producer, consumer;
    ends_at(0, &producer, &consumer);
    rs_ring_publish(&producer, 1);
    assert_false(rs_ring_should_wake(&producer));
    /* Something is there: the request to be woken is withdrawn. */
    assert_false(rs_ring_announce_sleep(&consumer));
    assert_false(rs_ring_should_wake(&producer));
    rs_ring_take(&consumer, 1);
    assert_true(rs_ring_announce_sleep(&consumer));
    rs_ring_publish(&producer, 1);
    assert_true(rs_ring_should_wake(&producer));
    rs_ring_awake(&consumer);
    assert_false(rs_ring_should_wake(&producer));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(entries_keep_their_order_across_the_wrap, setup, teardown),
        cmocka_unit_test_setup_teardown(a_full_ring_has_no_room, setup, teardown),
        cmocka_unit_test_setup_teardown(a_producer_that_lies_is_clamped_to_the_depth, setup, teardown),
        cmocka_unit_test_setup_teardown(a_consumer_that_lies_leaves_no_room, setup, teardown),
        cmocka_unit_test_setup_teardown(an_own_index_is_never_read_back, setup, teardown),
        cmocka_unit_test_setup_teardown(who_sleeps_is_told_of_the_next_publish_only, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
