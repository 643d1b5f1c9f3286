/* SPDX-License-Identifier: Apache-2.0 */
/* One connection, many threads: simple calls and queues of their own, sessions that come and go, a service
 * that dies. */
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

static void check(bool good)
{
    if (!good) atomic_fetch_add(&wrong, 1);
}

/* The simple call, in a session that all share. */
static void *simple_main(void *session)
{
    for (unsigned i = 0; i < 4 * ROUNDS; i++) {
        uint8_t in[8192] = {0}, out[8192];
        const struct reseal_job job = {.in = in, .out = out, .len = sizeof(in)};
        check(reseal_run(session, &job) == sizeof(in) && memcmp(out, want, sizeof(out)) == 0);
    }
    atomic_fetch_add(&finished, 1);
    return NULL;
}

/* Sessions and queues that come and go. */
static void *queue_main(void *unused)
{
    (void)unused;
    for (unsigned i = 0; i < ROUNDS; i++) {
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
    }
    atomic_fetch_add(&finished, 1);
    return NULL;
}

static void threads_share_a_connection_that_is_restored_twice(void **state)
{
    (void)state;
    key_a = client_random_key(c.r, RESEAL_XTS);
    key_b = client_random_key(c.r, RESEAL_XTS);
    reseal_session *s = client_session(c.r, client_xts(key_a), client_xts(key_b), 0);
    uint8_t in[8192] = {0};
    const struct reseal_job job = {.in = in, .out = want, .len = sizeof(in)};
    assert_int_equal(reseal_run(s, &job), sizeof(in));
    pthread_t threads[2 * THREADS];
    for (unsigned i = 0; i < 2 * THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, i % 2 != 0 ? queue_main : simple_main, s), 0);
    for (unsigned kills = 0; kills < 2; sched_yield())
        kills += service_kill_child(&c.service, "reseald-work");
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
