/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A new program takes the service over, again and again, while a client works:
 * every job completes exactly once, with the right bytes; the instance and the
 * keys stay; reseal-keyd is the same process throughout.
 */

#include "offload/base/bytes.h"
#include "reseal/reseal.h"
#include "tests/support/load.h"
#include "tests/support/service.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>

#include <cmocka.h>

#define JOBS  128
#define TURNS 6

static char *instance_of(reseal *r)
{
    char *json, *found;
    assert_int_equal(reseal_status(r, &json), 0);
    found = strstr(json, "\"instance\": \"");
    assert_non_null(found);
    char *copy = strndup(found + 13, 32);
    free(json);
    return copy;
}

static void jobs_survive(RS_UNUSED void **state)
{
    struct load l;
    static const char *const arguments[] = {"--takeover", NULL};
    load_start(&l, service.dir);
    char *before = instance_of(l.r);
    pid_t keyd = service_child(&service, "reseal-keyd");
    for (unsigned turn = 0; turn < TURNS; turn++) {
        struct service old = service;
        int status;
        load_progress(&l, JOBS);
        service_start_with(&service, arguments);
        assert_int_equal(waitpid(old.pid, &status, 0), old.pid);
        assert_int_equal(status, 0);
        load_progress(&l, JOBS);
        assert_int_equal(atomic_load(&l.failed), 0);
    }
    char *after = instance_of(l.r);
    assert_string_equal(before, after);
    assert_int_equal(kill(keyd, 0), 0);
    free(before);
    free(after);
    assert_int_equal(load_stop(&l), 0);
}

int main(void)
{
    if (!service_is_built()) return 77;
    const struct CMUnitTest tests[] = {cmocka_unit_test(jobs_survive)};
    return cmocka_run_group_tests(tests, service_group_start, service_group_stop);
}
