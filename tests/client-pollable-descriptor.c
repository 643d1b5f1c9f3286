/* SPDX-License-Identifier: Apache-2.0 */
/* reseal_queue_fd() in an event loop that never spins: no completion is missed; idle, it is silent. */
#include "tests/support/client.h"
#include "tests/support/cmocka.h"

#include <poll.h>
#include <signal.h>
#include <sys/time.h>
#include <unistd.h>

#define JOBS 3000u

static struct client c;
static reseal_session *s;

static void an_event_loop_misses_nothing(void **state)
{
    (void)state;
    reseal_queue *q = client_queue(c.r, 8, 1 << 20);
    uint8_t *arena = reseal_queue_arena(q, NULL);
    int fd = reseal_queue_fd(q);
    assert_true(fd >= 0);
    assert_int_equal(reseal_queue_fd(q), fd);
    unsigned sent = 0, done = 0;
    while (done < JOBS) {
        /* One at a time, then bursts. */
        unsigned burst = sent < JOBS / 2 ? 1 : 8;
        for (; sent < JOBS && sent - done < burst; sent++) {
            uint8_t *at = arena + sent % 8 * 16384u;
            const struct reseal_job job = {
                .session = s, .in = at, .out = at + 8192, .len = sent % 2 != 0 ? 4096 : 8192};
            assert_int_equal(reseal_submit(q, &job, 1), 1);
        }
        struct reseal_completion got[3];
        int n;
        while ((n = reseal_poll(q, got, 3)) == 0) {
            struct pollfd p = {.fd = fd, .events = POLLIN};
            assert_int_equal(poll(&p, 1, -1), 1);
        }
        assert_true(n > 0);
        for (int i = 0; i < n; i++) assert_int_equal(got[i].status, 0);
        done += (unsigned)n;
    }
    struct reseal_completion none;
    struct pollfd p = {.fd = fd, .events = POLLIN};
    unsigned late = 0; /* the last wake-ups may come after the completions that they are about */
    do assert_int_equal(reseal_poll(q, &none, 1), 0);
    while (poll(&p, 1, 0) != 0 && ++late < 100);
    assert_int_equal(poll(&p, 1, 0), 0);
    reseal_queue_close(q);
}

static void on_alarm(int signal_number)
{
    (void)signal_number;
}

/* Signals that interrupt whatever call the library is in. */
static void signals_lose_no_completion(void **state)
{
    (void)state;
    reseal_queue *q = client_queue(c.r, 4, 1 << 20);
    uint8_t *arena = reseal_queue_arena(q, NULL);
    const struct sigaction action = {.sa_handler = on_alarm};
    const struct itimerval often = {{0, 200}, {0, 200}}, never = {{0, 0}, {0, 0}};
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &often, NULL);
    for (unsigned i = 0; i < JOBS; i++) {
        const struct reseal_job job = {.session = s, .in = arena, .out = arena + 65536, .len = 65536};
        struct reseal_completion done;
        assert_int_equal(reseal_submit(q, &job, 1), 1);
        assert_int_equal(reseal_wait(q, &done, 1, -1), 1);
        assert_int_equal(done.status, 0);
    }
    setitimer(ITIMER_REAL, &never, NULL);
    reseal_queue_close(q);
}

int main(void)
{
    client_require_service();
    client_start(&c);
    s = client_session(c.r, client_xts(client_random_key(c.r, RESEAL_XTS)),
                       client_xts(client_random_key(c.r, RESEAL_XTS)), 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_event_loop_misses_nothing),
        cmocka_unit_test(signals_lose_no_completion),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    client_stop(&c);
    return failed;
}
