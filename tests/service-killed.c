/* SPDX-License-Identifier: Apache-2.0 */

/*
 * kill -9 at any moment of a job's life: of reseald-work, jobs are replayed
 * under new nonces; of clients, nothing stays behind; of reseal-keyd, sessions
 * go on and new ones are told that the key is gone.
 */

#include "tests/support/load.h"
#include "tests/support/raw.h"
#include "tests/support/service.h"

#include <errno.h>
#include <jansson.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>

#include <cmocka.h>

#define KILLS 8

/* A moment between 0 and 300 microseconds, another each time: what a job's life takes. */
static void some_moment(unsigned i)
{
    struct timespec t, now;
    clock_gettime(CLOCK_MONOTONIC, &t);
    long until = t.tv_nsec + (long)(i * 7919u % 300u) * 1000;
    do clock_gettime(CLOCK_MONOTONIC, &now);
    while ((now.tv_sec - t.tv_sec) * 1000000000L + now.tv_nsec < until);
}

static void of_the_worker(RS_UNUSED void **state)
{
    struct load l;
    load_start(&l, service.dir);
    for (unsigned i = 0; i < KILLS; i++) {
        load_progress(&l, 64 + i);
        some_moment(i);
        assert_true(service_kill_child(&service, "reseald-work"));
        load_progress(&l, 64);
        assert_int_equal(atomic_load(&l.failed), 0);
    }
    assert_int_equal(load_stop(&l), 0);
}

static json_t *status_of(struct raw *r)
{
    char *text = raw_status(r);
    json_t *status = json_loads(text, 0, NULL);
    assert_non_null(status);
    free(text);
    return status;
}

/* Waits until we are the only client: the others' memory and keys are gone then. */
static json_int_t alone(struct raw *r)
{
    for (;;) {
        json_t *status = status_of(r);
        size_t n = json_array_size(json_object_get(status, "clients"));
        json_int_t used = json_integer_value(json_object_get(json_object_get(status, "key_memory"), "used"));
        json_decref(status);
        if (n == 1) return used;
    }
}

static void of_clients(RS_UNUSED void **state)
{
    struct raw r;
    raw_open(&r, service.dir);
    json_int_t used = alone(&r);
    for (unsigned i = 0; i < KILLS; i++) {
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            struct load l;
            load_start(&l, service.dir);
            load_progress(&l, 64 + i);
            some_moment(i);
            raise(SIGKILL);
        }
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    }
    assert_int_equal(alone(&r), used);
    raw_close(&r);
}

static void of_the_key_service(RS_UNUSED void **state)
{
    struct load l;
    struct raw r;
    int status = 0;
    raw_open(&r, service.dir);
    struct rs_msg_side from = raw_side(RESEAL_XTS, raw_key(&r, RESEAL_XTS));
    struct rs_msg_side to = raw_side(RESEAL_XTS, raw_key(&r, RESEAL_XTS));
    load_start(&l, service.dir);
    load_progress(&l, 64);
    assert_true(service_kill_child(&service, "reseal-keyd"));
    load_progress(&l, 640);
    assert_int_equal(atomic_load(&l.failed), 0);
    /* The new one comes at once; until it is there, nobody can say what became of the key. */
    do assert_int_equal(raw_session(&r, from, to, &status), 0);
    while (status == RESEAL_ENOSERVICE);
    assert_true(status == RESEAL_EKEYGONE || status == RESEAL_ENOKEY);
    assert_int_equal(load_stop(&l), 0);
    raw_close(&r);
    load_start(&l, service.dir);
    load_progress(&l, 64);
    assert_int_equal(load_stop(&l), 0);
}

int main(void)
{
    if (!service_is_built()) return 77;
    const struct CMUnitTest tests[] = {cmocka_unit_test(of_the_worker), cmocka_unit_test(of_clients),
                                       cmocka_unit_test(of_the_key_service)};
    return cmocka_run_group_tests(tests, service_group_start, service_group_stop);
}
