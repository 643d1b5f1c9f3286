/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A client that floods the service leaves another its turn: whatever waits in
 * the flood, a small job of the other comes after at most a stated number of
 * the flood's bytes. Counted in jobs, not in time.
 */

#include "offload/base/clock.h"
#include "tests/support/raw.h"
#include "tests/support/service.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#include <cmocka.h>

#define DEPTH 256u
#define BIG   (1u << 20)
#define SMALL 4096u
#define TURNS 200

/*
 * What may pass in front of a small job: the group that runs (one big job), one
 * round of the flood (a quantum of 256 KiB, overdrawn by one job at most), and
 * what completes between two looks of this test.
 */
#define PASS_MEDIAN 2
#define PASS_P99    4

/* A turn counts if this test looked all the time: a big job takes three times as long with the fastest
 * engine. */
#define BLIND_NS 50000u

struct flood {
    struct raw client;
    struct raw_queue queue;
    uint32_t session;
    unsigned inside;
    uint64_t done;
};

static uint32_t session_of(struct raw *r)
{
    reseal_key a = raw_key(r, RESEAL_XTS), b = raw_key(r, RESEAL_XTS);
    return raw_session(r, raw_side(RESEAL_XTS, a), raw_side(RESEAL_XTS, b), NULL);
}

/* Takes what completed and fills up again. */
static void keep_full(struct flood *f)
{
    struct rs_cqe c;
    while (rs_ring_available(&f->queue.cq) != 0) {
        assert_true(raw_wait(&f->queue, &c, 0));
        assert_int_equal(c.status, 0);
        f->inside--;
        f->done++;
    }
    while (f->inside < DEPTH) {
        struct rs_sqe e = raw_job(&f->queue, f->session, 0, BIG, BIG);
        raw_submit(&f->queue, &e, 1);
        f->inside++;
    }
}

/* Times that the system took the processor from this thread: what it counts then says nothing about the
 * service. */
static long preemptions(void)
{
    struct rusage usage;
    assert_int_equal(getrusage(RUSAGE_THREAD, &usage), 0);
    return usage.ru_nivcsw + usage.ru_nvcsw;
}

/* Looks at the clock until something completed; the longest time between two looks, in ns. What stops the
 * machine below this one shows here only. */
static uint64_t watch(struct raw_queue *queue, uint64_t since)
{
    uint64_t longest = 0;
    for (bool done = false; !done;) {
        done = rs_ring_available(&queue->cq) != 0;
        uint64_t now = rs_now_ns();
        longest = RS_MAX(longest, now - since);
        since = now;
        rs_cpu_relax();
    }
    return longest;
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void a_flood_leaves_others_their_turn(RS_UNUSED void **state)
{
    struct flood f = {0};
    struct raw other;
    struct raw_queue queue;
    uint64_t passed[TURNS];
    raw_open(&f.client, service.dir);
    raw_queue_open(&f.client, &f.queue, DEPTH, 2 * BIG);
    f.session = session_of(&f.client);
    raw_open(&other, service.dir);
    raw_queue_open(&other, &queue, 16, 65536);
    uint32_t session = session_of(&other);
    for (unsigned i = 0, tries = 0; i < TURNS; tries++) {
        struct rs_cqe c;
        assert_true(tries < 50 * TURNS);
        keep_full(&f);
        long taken = preemptions();
        struct rs_sqe e = raw_job(&queue, session, 0, SMALL, SMALL);
        uint64_t start = rs_now_ns();
        uint32_t before = atomic_load(&f.queue.ring.control->cq_producer.index);
        raw_submit(&queue, &e, 1);
        uint64_t longest = watch(&queue, start);
        uint64_t seen = rs_now_ns();
        passed[i] = atomic_load(&f.queue.ring.control->cq_producer.index) - before;
        longest = RS_MAX(longest, rs_now_ns() - seen);
        assert_true(raw_wait(&queue, &c, 0));
        assert_int_equal(c.status, 0);
        if (preemptions() == taken && longest < BLIND_NS) i++;
    }
    /* The flood was there, DEPTH jobs deep at each turn, and got its turns too; how many depends on the
     * machine. */
    assert_true(f.done != 0 && f.inside + f.done >= DEPTH);
    qsort(passed, TURNS, sizeof(passed[0]), compare);
    print_message("flood jobs of 1 MiB in front of a small one: median %d, p99 %d, of %u waiting\n",
                  (int)passed[TURNS / 2], (int)passed[TURNS * 99 / 100], DEPTH);
    assert_in_range(passed[TURNS / 2], 0, PASS_MEDIAN);
    assert_in_range(passed[TURNS * 99 / 100], 0, PASS_P99);
    raw_queue_close(&queue);
    raw_queue_close(&f.queue);
    raw_close(&other);
    raw_close(&f.client);
}

static int start(RS_UNUSED void **state)
{
    /* One worker: both clients are on it. */
    static const char *const arguments[] = {"--workers", "1", NULL};
    service_start_with(&service, arguments);
    return 0;
}

int main(void)
{
    if (!service_is_built()) return 77;
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_flood_leaves_others_their_turn)};
    return cmocka_run_group_tests(tests, start, service_group_stop);
}
