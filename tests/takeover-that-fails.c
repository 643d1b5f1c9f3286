/* SPDX-License-Identifier: Apache-2.0 */

/* A successor that dies, at each step of a take-over: the service that runs goes on with all it had. */

#include "offload/service/internal.h"
#include "tests/support/load.h"
#include "tests/support/raw.h"
#include "tests/support/service.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define JOBS 128

/* Asks for it, takes `messages` messages of the old reseald-work, and is gone. */
static void successor(unsigned messages)
{
    struct rs_msg msg;
    struct rs_msg_takeover ask = {.version = 1}, answer;
    int fds[4], fd = raw_connect(service.dir, "admin.sock");
    assert_int_equal(
        rs_msg_call(fd, RS_MSG_TAKEOVER, &ask, sizeof(ask), NULL, 0, &answer, sizeof(answer), fds, 4), 0);
    assert_int_equal(rs_msg_recv(fd, &msg, 0), 0);
    int work = rs_msg_take_fd(&msg, 2);
    rs_msg_close_fds(&msg);
    for (unsigned i = 0; i < messages; i++) {
        assert_int_equal(rs_msg_recv(work, &msg, 0), 0);
        rs_msg_close_fds(&msg);
    }
    close(work);
    for (unsigned i = 0; i < 4; i++) close(fds[i]);
    close(fd);
}

static void the_old_one_goes_on(RS_UNUSED void **state)
{
    struct load l;
    pid_t worker = service_child(&service, "reseald-work");
    load_start(&l, service.dir);
    /* STATE, CLIENT, three SESSIONs, QUEUEs, END */
    for (unsigned messages = 0; messages < 8; messages++) {
        load_progress(&l, JOBS);
        successor(messages);
        load_progress(&l, JOBS);
        assert_int_equal(atomic_load(&l.failed), 0);
    }
    assert_int_equal(load_stop(&l), 0);
    assert_int_equal(service_child(&service, "reseald-work"), worker);
}

/* A successor of another version of the exchange is refused, and nothing stops for it. */
static void another_version(RS_UNUSED void **state)
{
    struct load l;
    struct rs_msg_takeover ask = {.version = 2}, answer;
    int fds[4], fd = raw_connect(service.dir, "admin.sock");
    load_start(&l, service.dir);
    assert_int_equal(
        rs_msg_call(fd, RS_MSG_TAKEOVER, &ask, sizeof(ask), NULL, 0, &answer, sizeof(answer), fds, 4),
        RESEAL_EVERSION);
    close(fd);
    load_progress(&l, JOBS);
    assert_int_equal(load_stop(&l), 0);
}

/* After all that, a real one works. */
static void then_one_that_works(RS_UNUSED void **state)
{
    struct load l;
    struct service old = service;
    int status;
    static const char *const arguments[] = {"--takeover", NULL};
    load_start(&l, service.dir);
    load_progress(&l, JOBS);
    service_start_with(&service, arguments);
    assert_int_equal(waitpid(old.pid, &status, 0), old.pid);
    assert_int_equal(status, 0);
    load_progress(&l, JOBS);
    assert_int_equal(load_stop(&l), 0);
}

int main(void)
{
    if (!service_is_built()) return 77;
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_old_one_goes_on),
                                       cmocka_unit_test(another_version),
                                       cmocka_unit_test(then_one_that_works)};
    return cmocka_run_group_tests(tests, service_group_start, service_group_stop);
}
