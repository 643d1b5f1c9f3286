/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A service with connected clients and nothing to do uses no processor time,
 * and wakes up for the next job. The interval is bounded by an event: the
 * worker's count of sleeps, not by a clock.
 */

#include "tests/support/raw.h"
#include "tests/support/service.h"

#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#define QUIET_MS 1000
#define ROUNDS   300

/* utime + stime in ticks. */
static unsigned long ticks_of(pid_t pid)
{
    char path[64], line[1024] = "";
    unsigned long user = 0, system = 0;
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "re");
    assert_non_null(f);
    assert_non_null(fgets(line, sizeof(line), f));
    fclose(f);
    char *close = strrchr(line, ')');
    assert_non_null(close);
    assert_int_equal(sscanf(close + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system),
                     2);
    return user + system;
}

static json_int_t sleeps(struct raw *r)
{
    char *text = raw_status(r);
    json_t *status = json_loads(text, 0, NULL);
    json_int_t n =
        json_integer_value(json_object_get(json_array_get(json_object_get(status, "workers"), 0), "sleeps"));
    json_decref(status);
    free(text);
    return n;
}

static void wakes_from_sleep(RS_UNUSED void **state)
{
    struct raw r;
    struct raw_queue q;
    raw_open(&r, service.dir);
    raw_queue_open(&r, &q, 16, 65536);
    for (unsigned i = 0; i < ROUNDS; i++) {
        /* Until it announces that it sleeps: each job then crosses the wake socket. */
        while (atomic_load(&q.ring.control->sq_consumer.need_wake) == 0) poll(NULL, 0, 0);
        struct rs_sqe nop = {.op = RS_OP_NOP, .user_data = i};
        assert_int_equal(raw_run(&q, nop), 0);
    }
    assert_true(sleeps(&r) >= ROUNDS);
    raw_queue_close(&q);
    raw_close(&r);
}

static void uses_no_time(RS_UNUSED void **state)
{
    struct raw r;
    struct raw_queue q[3];
    pid_t pids[] = {service.pid, service_child(&service, "reseald-work"),
                    service_child(&service, "reseal-keyd")};
    unsigned long before = 0, after = 0;
    raw_open(&r, service.dir);
    for (unsigned i = 0; i < 3; i++) raw_queue_open(&r, &q[i], 64, 1 << 20);
    struct rs_sqe nop = {.op = RS_OP_NOP};
    for (unsigned i = 0; i < 3; i++) assert_int_equal(raw_run(&q[i], nop), 0);
    for (unsigned i = 0; i < 3; i++)
        while (atomic_load(&q[i].ring.control->sq_consumer.need_wake) == 0) poll(NULL, 0, 1);
    /* Wake-ups that crossed: ours may wake it once more, its own came after what they are about. */
    json_int_t slept = -1;
    for (json_int_t now; (now = sleeps(&r)) != slept; slept = now) poll(NULL, 0, 100);
    for (unsigned i = 0; i < 3; i++) assert_int_equal(rs_ring_drain(q[i].wake), 0);
    for (unsigned i = 0; i < 3; i++) before += ticks_of(pids[i]);
    /* Nothing may happen: a wake-up of a client would show here, and the sleeps below. */
    struct pollfd quiet = {.fd = q[0].wake, .events = POLLIN};
    assert_int_equal(poll(&quiet, 1, QUIET_MS), 0);
    for (unsigned i = 0; i < 3; i++) after += ticks_of(pids[i]);
    assert_in_range(after - before, 0, 1);
    /* The worker stayed in one sleep all the time. */
    assert_int_equal(sleeps(&r), slept);
    for (unsigned i = 0; i < 3; i++) raw_queue_close(&q[i]);
    raw_close(&r);
}

int main(void)
{
    if (!service_is_built()) return 77;
    const struct CMUnitTest tests[] = {cmocka_unit_test(wakes_from_sleep), cmocka_unit_test(uses_no_time)};
    return cmocka_run_group_tests(tests, service_group_start, service_group_stop);
}
