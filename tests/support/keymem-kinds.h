/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_TEST_KEYMEM_KINDS_H
#define RS_TEST_KEYMEM_KINDS_H

/* Runs tests of key memory once for each kind, in a process of its own, as this machine gives it. */

#include "offload/base/bytes.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

/* `tests` is called with RESEAL_KEYMEM set, and its result is that process's exit code. 0 when all were 0,
 * else 1: what main() returns. */
static inline int for_each_kind_of_key_memory(int (*tests)(void))
{
    static const char *const kinds[] = {"secret", "locked", "plain"};
    int failed = 0;
    for (unsigned i = 0; i < RS_ARRAY_LEN(kinds); i++) {
        fflush(NULL);
        pid_t pid = fork();
        if (pid == 0) {
            setenv("RESEAL_KEYMEM", kinds[i], 1);
            exit(tests());
        }
        int status = 0;
        waitpid(pid, &status, 0);
        failed |= !WIFEXITED(status) || WEXITSTATUS(status) != 0;
    }
    return failed;
}

#endif
