/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/ossl-run.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

struct ossl ossl_here;

static int open_providers(void **state)
{
    (void)state;
    ossl_open(&ossl_here);
    return 0;
}

static int close_providers(void **state)
{
    (void)state;
    ossl_close(&ossl_here);
    return 0;
}

static int run_here(const char *name, const struct CMUnitTest *tests, size_t count)
{
    return _cmocka_run_group_tests(name, tests, count, open_providers, close_providers);
}

/* True when all passed. */
static bool run_apart(const char *kernels, const char *name, const struct CMUnitTest *tests, size_t count)
{
    int status;
    fflush(NULL);
    pid_t pid = fork();
    if (pid < 0) return false;
    if (pid == 0) {
        setenv("RESEAL_OSSL_ENGINE", kernels, 1);
        exit(run_here(name, tests, count) == 0 ? 0 : 1);
    }
    if (waitpid(pid, &status, 0) != pid) return false;
    if (WIFSIGNALED(status)) printf("kernels %s: ended by signal %d\n", kernels, WTERMSIG(status));
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

int ossl_run_tests(const char *name, const struct CMUnitTest *tests, size_t count, bool every_set)
{
    int failed = 0, run = 0;
    if (getenv("RESEAL_OSSL_ENGINE") != NULL) return run_here(name, tests, count);
    for (const char *const *set = ossl_kernel_sets; *set != NULL; set++) {
        if (!ossl_kernels_here(*set)) {
            printf("kernels %s: NOT TESTED, this build or this CPU does not have them\n", *set);
            continue;
        }
        if (!every_set && run++ > 0 && set[1] != NULL) continue;
        printf("kernels %s\n", *set);
        if (!run_apart(*set, name, tests, count)) {
            printf("kernels %s: FAILED\n", *set);
            failed++;
        }
    }
    return failed;
}
