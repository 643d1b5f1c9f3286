/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/port.h"

#include "tests/support/cmocka.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

uint16_t free_port(void)
{
    char script[4096];
    int ends[2], status;
    unsigned port = 0;
    assert_int_equal(pipe(ends), 0);
    (void)snprintf(script, sizeof(script), "%s/tests/support/free-port.py", getenv("RESEAL_SOURCE"));
    pid_t pid = fork();
    if (pid == 0) {
        dup2(ends[1], STDOUT_FILENO);
        close(ends[0]);
        close(ends[1]);
        execl("/usr/bin/python3", "python3", script, NULL);
        _exit(127);
    }
    close(ends[1]);
    FILE *f = fdopen(ends[0], "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%u", &port), 1);
    (void)fclose(f);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_in_range(port, 1, UINT16_MAX);
    return (uint16_t)port;
}
