/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The service dies at different steps of a job's life. What was accepted
 * completes once: out of place again, under another salt where the destination
 * is GCM; an interrupted in-place job as lost.
 */
#include "tests/support/client.h"
#include "tests/support/cmocka.h"
#include "tests/support/reference.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define LEN  (1u << 20)
#define JOBS 24u

static struct client c;
static uint64_t seed = 11;

static int setup(void **state)
{
    (void)state;
    client_start(&c);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    client_stop(&c);
    return 0;
}

static pid_t worker(void)
{
    pid_t pid = service_child(&c.service, "reseald-work");
    assert_true(pid > 0);
    return pid;
}

/* Kills it where it stands. */
static void kill_worker(void)
{
    assert_true(service_kill_child(&c.service, "reseald-work"));
}

/* A key known to the test, so that it can say what must come out. */
static void xts_keys(uint8_t a[64], uint8_t b[64])
{
    reference_random(&seed, a, 64);
    reference_random(&seed, b, 64);
}

static void expected(const uint8_t *a, const uint8_t *b, const uint8_t *in, uint8_t *out, size_t len)
{
    reference_xts(0, 256, a, 0, 0, 8, 4096, in, out, len);
    reference_xts(1, 256, b, 0, 0, 8, 4096, out, out, len);
}

/* Submits n jobs of LEN bytes: job i from the arena's first to its second half, or in place. */
static void submit(reseal_queue *q, reseal_session *s, unsigned n, bool in_place)
{
    uint8_t *arena = reseal_queue_arena(q, NULL);
    for (unsigned i = 0; i < n; i++) {
        uint8_t *at = arena + (size_t)i * LEN;
        const struct reseal_job job = {.session = s,
                                       .in = at,
                                       .out = in_place ? at : at + (size_t)JOBS * LEN,
                                       .len = LEN,
                                       .user_data = i};
        assert_int_equal(reseal_submit(q, &job, 1), 1);
    }
}

/* Takes the n completions that are due, each once; their statuses. */
static void collect(reseal_queue *q, unsigned n, int *status)
{
    bool seen[JOBS] = {false};
    while (n != 0) {
        struct reseal_completion done;
        assert_int_equal(reseal_wait(q, &done, 1, -1), 1);
        assert_false(seen[done.user_data]);
        seen[done.user_data] = true;
        status[done.user_data] = done.status;
        n--;
    }
}

/* Until the worker has written it: the test looks, it does not ask. */
static void wait_for_byte(const volatile uint8_t *at, uint8_t value)
{
    while (*at != value) sched_yield();
}

static void jobs_out_of_place_run_again(void **state)
{
    (void)state;
    uint8_t a[64], b[64], *want = malloc((size_t)JOBS * LEN);
    xts_keys(a, b);
    reseal_session *s = client_session(c.r, client_xts(client_key(c.r, RESEAL_XTS, a, 64)),
                                       client_xts(client_key(c.r, RESEAL_XTS, b, 64)), 0);
    reseal_queue *q = client_queue(c.r, 32, 2ull * JOBS * LEN);
    uint8_t *arena = reseal_queue_arena(q, NULL);
    reference_random(&seed, arena, (size_t)JOBS * LEN);
    for (unsigned i = 0; i < JOBS; i++) expected(a, b, arena + (size_t)i * LEN, want + (size_t)i * LEN, LEN);
    /* Killed with none begun; with some done and one at work; and when all are done and none was taken. */
    for (unsigned step = 0; step < 3; step++) {
        int status[JOBS];
        for (size_t i = 0; i < (size_t)JOBS * LEN; i++) arena[(size_t)JOBS * LEN + i] = (uint8_t)~want[i];
        if (step == 0) service_freeze(worker());
        submit(q, s, JOBS, false);
        if (step == 1) wait_for_byte(&arena[(size_t)(JOBS + 2) * LEN], want[2 * (size_t)LEN]);
        if (step == 2) wait_for_byte(&arena[2 * (size_t)JOBS * LEN - 1], want[(size_t)JOBS * LEN - 1]);
        kill_worker();
        collect(q, JOBS, status);
        for (unsigned i = 0; i < JOBS; i++) assert_int_equal(status[i], 0);
        assert_memory_equal(arena + (size_t)JOBS * LEN, want, (size_t)JOBS * LEN);
    }
    reseal_queue_close(q);
    free(want);
}

static void an_interrupted_job_in_place_is_lost_and_the_others_are_whole(void **state)
{
    (void)state;
    uint8_t a[64], b[64], *in = malloc((size_t)JOBS * LEN), *want = malloc(LEN);
    xts_keys(a, b);
    reseal_session *s = client_session(c.r, client_xts(client_key(c.r, RESEAL_XTS, a, 64)),
                                       client_xts(client_key(c.r, RESEAL_XTS, b, 64)), 0);
    reseal_queue *q = client_queue(c.r, 32, (uint64_t)JOBS * LEN);
    uint8_t *arena = reseal_queue_arena(q, NULL);
    reference_random(&seed, in, (size_t)JOBS * LEN);
    unsigned lost = 0;
    /* On a busy machine the worker may be done before it can be killed. */
    for (unsigned attempt = 0; attempt < 20 && lost == 0; attempt++) {
        int status[JOBS];
        struct reseal_completion first;
        pid_t pid = worker(); /* looked for now: that may take as long as the jobs do */
        memcpy(arena, in, (size_t)JOBS * LEN);
        submit(q, s, JOBS, true);
        assert_int_equal(reseal_wait(q, &first, 1, -1), 1);
        service_freeze(pid);
        kill_worker();
        status[first.user_data] = first.status;
        for (unsigned n = 1; n < JOBS; n++) {
            struct reseal_completion done;
            assert_int_equal(reseal_wait(q, &done, 1, -1), 1);
            status[done.user_data] = done.status;
        }
        for (unsigned i = 0; i < JOBS; i++) {
            if (status[i] == RESEAL_ELOST) {
                lost++;
                continue;
            }
            assert_int_equal(status[i], 0);
            expected(a, b, in + (size_t)i * LEN, want, LEN);
            assert_memory_equal(arena + (size_t)i * LEN, want, LEN);
        }
    }
    assert_true(lost > 0);
    reseal_queue_close(q);
    free(in);
    free(want);
}

static void a_job_in_place_that_was_not_begun_runs_again(void **state)
{
    (void)state;
    uint8_t a[64], b[64], *want = malloc(LEN);
    int status[JOBS];
    xts_keys(a, b);
    reseal_session *s = client_session(c.r, client_xts(client_key(c.r, RESEAL_XTS, a, 64)),
                                       client_xts(client_key(c.r, RESEAL_XTS, b, 64)), 0);
    reseal_queue *q = client_queue(c.r, 4, (uint64_t)JOBS * LEN);
    uint8_t *arena = reseal_queue_arena(q, NULL);
    reference_random(&seed, arena, LEN);
    expected(a, b, arena, want, LEN);
    service_freeze(worker());
    submit(q, s, 1, true);
    kill_worker();
    collect(q, 1, status);
    assert_int_equal(status[0], 0);
    assert_memory_equal(arena, want, LEN);
    reseal_queue_close(q);
    free(want);
}

static void a_changed_buffer_never_shares_a_nonce(void **state)
{
    (void)state;
    reseal_key key = client_random_key(c.r, RESEAL_GCM);
    reseal_session *seal = client_session(c.r, client_plain(), client_gcm(key), 0);
    reseal_session *open = client_session(c.r, client_gcm(key), client_plain(), 0);
    reseal_queue *q = client_queue(c.r, 4, 4 * LEN);
    uint8_t *arena = reseal_queue_arena(q, NULL), *sealed = arena + LEN, *out = malloc(LEN);
    struct reseal_record before = {.aad_len = 3, .aad = "abc"}, after = before;
    struct reseal_completion done;
    struct reseal_job job = {.session = seal, .in = arena, .out = sealed, .len = LEN, .destination = &before};
    for (unsigned step = 0; step < 2; step++) {
        reference_random(&seed, arena, LEN);
        job.destination = &before;
        assert_int_equal(reseal_submit(q, &job, 1), 1);
        assert_int_equal(reseal_wait(q, &done, 1, -1), 1);
        assert_int_equal(done.status, 0);
        /* The next record: sealed in the first round, under the old salt, but never told; waiting in the
         * second. */
        uint8_t old = sealed[LEN - 1];
        if (step == 1) service_freeze(worker());
        job.destination = &after;
        arena[LEN - 1] ^= 1;
        assert_int_equal(reseal_submit(q, &job, 1), 1);
        if (step == 0) {
            volatile const uint8_t *last = sealed + LEN - 1;
            for (unsigned spins = 0; *last == old && spins < 100000000; spins++) continue;
        }
        kill_worker();
        reference_random(&seed, arena, LEN);
        assert_int_equal(reseal_wait(q, &done, 1, -1), 1);
        assert_int_equal(done.status, 0);
        if (step == 1) assert_memory_not_equal(before.salt, after.salt, sizeof(after.salt));
        bool same = memcmp(before.salt, after.salt, sizeof(after.salt)) == 0 &&
                    memcmp(before.iv, after.iv, sizeof(after.iv)) == 0;
        assert_false(same);
        after.derive = 1;
        const struct reseal_job back = {.in = sealed, .out = out, .len = LEN, .source = &after};
        int64_t n = reseal_run(open, &back);
        /* A record that completed before the service died has the bytes of before; else those of now. */
        assert_int_equal(n, LEN);
        if (memcmp(before.salt, after.salt, sizeof(after.salt)) != 0) assert_memory_equal(out, arena, LEN);
        after.derive = 0;
    }
    reseal_queue_close(q);
    free(out);
}

static void registered_memory_and_the_descriptor_survive(void **state)
{
    (void)state;
    reseal_session *s = client_session(c.r, client_xts(client_random_key(c.r, RESEAL_XTS)),
                                       client_xts(client_random_key(c.r, RESEAL_XTS)), 0);
    reseal_queue *q = client_queue(c.r, 4, 65536);
    int memfd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_int_equal(ftruncate(memfd, 1 << 20), 0);
    assert_int_equal(fcntl(memfd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL), 0);
    void *base;
    assert_int_equal(reseal_queue_register(q, memfd, &base), 0);
    close(memfd);
    int fd = reseal_queue_fd(q);
    struct reseal_completion done;
    struct reseal_job job = {.session = s, .in = base, .out = (uint8_t *)base + 65536, .len = 65536};
    for (unsigned round = 0; round < 3; round++) {
        service_freeze(worker());
        assert_int_equal(reseal_submit(q, &job, 1), 1);
        assert_int_equal(reseal_poll(q, &done, 1), 0);
        kill_worker();
        /* The end of the worker makes it readable; the poll after it mends the queue. */
        int n = 0;
        while (n == 0) {
            struct pollfd p = {.fd = fd, .events = POLLIN};
            assert_int_equal(poll(&p, 1, -1), 1);
            n = reseal_poll(q, &done, 1);
        }
        assert_int_equal(n, 1);
        assert_int_equal(done.status, 0);
    }
    reseal_queue_close(q);
}

static void new_sessions_and_the_simple_call_find_the_new_service(void **state)
{
    (void)state;
    reseal_key a = client_random_key(c.r, RESEAL_XTS), b = client_random_key(c.r, RESEAL_XTS);
    reseal_session *s = client_session(c.r, client_xts(a), client_xts(b), 0);
    uint8_t in[4096] = {0}, out[4096], again[4096];
    struct reseal_job job = {.in = in, .out = out, .len = 4096};
    assert_int_equal(reseal_run(s, &job), 4096);
    kill_worker();
    job.out = again;
    assert_int_equal(reseal_run(s, &job), 4096);
    assert_memory_equal(out, again, 4096);
    kill_worker();
    reseal_session *t = client_session(c.r, client_xts(a), client_xts(b), 0);
    assert_int_equal(reseal_run(t, &job), 4096);
    assert_memory_equal(out, again, 4096);
}

static void keys_that_went_with_the_service_are_told(void **state)
{
    (void)state;
    reseal_session *s = client_session(c.r, client_xts(client_random_key(c.r, RESEAL_XTS)),
                                       client_xts(client_random_key(c.r, RESEAL_XTS)), 0);
    reseal_queue *q = client_queue(c.r, 4, 65536);
    uint8_t *arena = reseal_queue_arena(q, NULL);
    const struct reseal_job job = {.session = s, .in = arena, .out = arena + 4096, .len = 4096};
    struct reseal_completion done;
    service_freeze(worker());
    assert_int_equal(reseal_submit(q, &job, 1), 1);
    service_kill(&c.service);
    service_start_with(&c.service, NULL);
    assert_int_equal(reseal_wait(q, &done, 1, -1), 1);
    assert_int_equal(done.status, RESEAL_EKEYGONE);
    assert_int_equal(reseal_submit(q, &job, 1), RESEAL_EKEYGONE);
    /* The connection is as good as new: other keys, other sessions. */
    reseal_session *t = client_session(c.r, client_xts(client_random_key(c.r, RESEAL_XTS)),
                                       client_xts(client_random_key(c.r, RESEAL_XTS)), 0);
    struct reseal_job other = job;
    other.session = t;
    assert_int_equal(reseal_submit(q, &other, 1), 1);
    assert_int_equal(reseal_wait(q, &done, 1, -1), 1);
    assert_int_equal(done.status, 0);
    reseal_queue_close(q);
}

static void a_service_that_does_not_come_back_ends_the_jobs(void **state)
{
    (void)state;
    /* So long it may take to answer the first connection, too. */
    const struct reseal_options o = {.size = sizeof(o), .reconnect_ms = 5000, .runtime_dir = c.service.dir};
    reseal *r;
    assert_int_equal(reseal_open(&r, &o), 0);
    reseal_session *s = client_session(r, client_xts(client_random_key(r, RESEAL_XTS)),
                                       client_xts(client_random_key(r, RESEAL_XTS)), 0);
    reseal_queue *q = client_queue(r, 4, 65536);
    uint8_t *arena = reseal_queue_arena(q, NULL);
    const struct reseal_job job = {.session = s, .in = arena, .out = arena + 4096, .len = 4096};
    struct reseal_completion done;
    service_freeze(worker());
    assert_int_equal(reseal_submit(q, &job, 1), 1);
    service_kill(&c.service);
    assert_int_equal(reseal_wait(q, &done, 1, -1), 1);
    assert_int_equal(done.status, RESEAL_ENOSERVICE);
    assert_int_equal(reseal_poll(q, &done, 1), RESEAL_ENOSERVICE);
    assert_int_equal(reseal_submit(q, &job, 1), RESEAL_ENOSERVICE);
    assert_int_equal(reseal_wait(q, &done, 1, -1), RESEAL_ENOSERVICE);
    reseal_close(r);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    client_require_service();
    const struct CMUnitTest tests[] = {
        TEST(jobs_out_of_place_run_again),
        TEST(an_interrupted_job_in_place_is_lost_and_the_others_are_whole),
        TEST(a_job_in_place_that_was_not_begun_runs_again),
        TEST(a_changed_buffer_never_shares_a_nonce),
        TEST(registered_memory_and_the_descriptor_survive),
        TEST(new_sessions_and_the_simple_call_find_the_new_service),
        TEST(keys_that_went_with_the_service_are_told),
        TEST(a_service_that_does_not_come_back_ends_the_jobs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
