/* SPDX-License-Identifier: Apache-2.0 */
/* One connection, many threads: simple calls and queues of their own, sessions that come and go, a service
 * that dies. */
#include "offload/base/bytes.h"
#include "tests/support/client.h"
#include "tests/support/cmocka.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>

#define THREADS 4u
#define ROUNDS  60u

static struct client c;
static reseal_key key_a, key_b;
static uint8_t want[8192];
static _Atomic unsigned wrong, finished;
static _Atomic unsigned rounds[2 * THREADS]; /* that each thread has done */
static reseal_session *shared;

static void check(bool good)
{
    if (!good) atomic_fetch_add(&wrong, 1);
}

/* Each second thread has a queue of its own. */
static unsigned rounds_of(unsigned thread)
{
    return thread % 2 != 0 ? ROUNDS : 4 * ROUNDS;
}

/* The simple call, in a session that all share. */
static void *simple_main(void *my_rounds)
{
    for (unsigned i = 0; i < rounds_of(0); i++) {
        uint8_t in[8192] = {0}, out[8192];
        const struct reseal_job job = {.in = in, .out = out, .len = sizeof(in)};
        check(reseal_run(shared, &job) == sizeof(in) && memcmp(out, want, sizeof(out)) == 0);
        atomic_fetch_add((_Atomic unsigned *)my_rounds, 1);
    }
    atomic_fetch_add(&finished, 1);
    return NULL;
}

/* Sessions and queues that come and go. */
static void *queue_main(void *my_rounds)
{
    for (unsigned i = 0; i < rounds_of(1); i++) {
        reseal_session *s = client_session(c.r, client_xts(key_a), client_xts(key_b), 0);
        reseal_queue *q = client_queue(c.r, 4, 65536);
        uint8_t *arena = reseal_queue_arena(q, NULL);
        memset(arena, 0, 8192);
        for (unsigned k = 0; k < 4; k++) {
            const struct reseal_job job = {
                .session = s, .in = arena, .out = arena + 8192 * (k + 1), .len = 8192};
            check(reseal_submit(q, &job, 1) == 1);
        }
        for (unsigned k = 0; k < 4; k++) {
            struct reseal_completion done;
            check(reseal_wait(q, &done, 1, -1) == 1 && done.status == 0);
            check(memcmp(arena + 8192 * (k + 1), want, 8192) == 0);
        }
        reseal_session_close(s);
        reseal_queue_close(q);
        atomic_fetch_add((_Atomic unsigned *)my_rounds, 1);
    }
    atomic_fetch_add(&finished, 1);
    return NULL;
}

/* What loses the service twice in a row is not tried a third time: each thread must have found the new one.
 */
static void until_all_got_on(void)
{
    for (unsigned i = 0; i < 2 * THREADS; i++) {
        unsigned enough = RS_MIN(atomic_load(&rounds[i]) + 2, rounds_of(i));
        while (atomic_load(&rounds[i]) < enough) sched_yield();
    }
}

static void kill_worker(void)
{
    while (!service_kill_child(&c.service, "reseald-work")) sched_yield();
}

static void threads_share_a_connection_that_is_restored_twice(void **state)
{
    (void)state;
    key_a = client_random_key(c.r, RESEAL_XTS);
    key_b = client_random_key(c.r, RESEAL_XTS);
    shared = client_session(c.r, client_xts(key_a), client_xts(key_b), 0);
    uint8_t in[8192] = {0};
    const struct reseal_job job = {.in = in, .out = want, .len = sizeof(in)};
    assert_int_equal(reseal_run(shared, &job), sizeof(in));
    pthread_t threads[2 * THREADS];
    for (unsigned i = 0; i < 2 * THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, i % 2 != 0 ? queue_main : simple_main, &rounds[i]),
                         0);
    kill_worker();
    until_all_got_on();
    kill_worker();
    for (unsigned i = 0; i < 2 * THREADS; i++) pthread_join(threads[i], NULL);
    assert_int_equal(atomic_load(&finished), 2 * THREADS);
    assert_int_equal(atomic_load(&wrong), 0);
}

int main(void)
{
    client_require_service();
    client_start(&c);
    const struct CMUnitTest tests[] = {cmocka_unit_test(threads_share_a_connection_that_is_restored_twice)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    client_stop(&c);
    return failed;
}
