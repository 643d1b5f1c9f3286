/* SPDX-License-Identifier: Apache-2.0 */

/* A fault in a client's mapping is caught and told apart from any other, which still ends the process. */

#include "offload/service/guard.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static uint8_t *gone; /* a mapping whose file was truncated: touching it is SIGBUS */

static bool covers(const void *arg, uintptr_t at)
{
    return rs_regions_cover(arg, 1, at);
}

static struct rs_guard guard_for(const struct rs_region *region)
{
    return (struct rs_guard){.covers = covers, .arg = region};
}

static void a_covered_fault_comes_back(RS_UNUSED void **state)
{
    static struct rs_region region;
    static struct rs_guard guard;
    /* Here, not before: the test framework has handlers of its own while a test runs. */
    assert_int_equal(rs_guard_init(), 0);
    region = (struct rs_region){.base = gone, .len = 8192};
    guard = guard_for(&region);
    /* Again and again: the signal must not stay blocked. */
    for (volatile unsigned i = 0; i < 5; i++) {
        volatile int faulted = 0;
        if (RS_GUARD_UP(&guard)) {
            *(volatile uint8_t *)(gone + 4096) = 1;
            rs_guard_down();
        } else {
            faulted = 1;
        }
        assert_int_equal(faulted, 1);
        assert_true(guard.at == (uintptr_t)(gone + 4096));
    }
}

static int ended_by(void (*what)(void))
{
    int status;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        what();
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static void touch_beside(void)
{
    struct rs_region region = {.base = gone, .len = 4096};
    struct rs_guard guard = guard_for(&region);
    if (RS_GUARD_UP(&guard)) *(volatile uint8_t *)(gone + 4096) = 1;
}

static void touch_unguarded(void)
{
    *(volatile uint8_t *)(gone + 4096) = 1;
}

static void send_it(void)
{
    struct rs_region region = {.base = NULL, .len = UINT64_MAX};
    struct rs_guard guard = guard_for(&region);
    if (RS_GUARD_UP(&guard)) raise(SIGBUS);
}

static void any_other_fault_ends_the_process(RS_UNUSED void **state)
{
    assert_int_equal(rs_guard_init(), 0);
    assert_int_equal(ended_by(touch_beside), SIGBUS);
    assert_int_equal(ended_by(touch_unguarded), SIGBUS);
    assert_int_equal(ended_by(send_it), SIGBUS);
}

static int start(RS_UNUSED void **state)
{
    FILE *f = tmpfile();
    if (f == NULL || ftruncate(fileno(f), 8192) != 0) return -1;
    gone = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fileno(f), 0);
    if (gone == MAP_FAILED || ftruncate(fileno(f), 4096) != 0) return -1;
    fclose(f);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_covered_fault_comes_back),
                                       cmocka_unit_test(any_other_fault_ends_the_process)};
    return cmocka_run_group_tests(tests, start, NULL);
}
