/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_BENCH_COMMAND_H
#define RS_BENCH_COMMAND_H

/* Other programs, run to be measured: no shell, no inherited descriptors, their CPU time told apart. */

#include <stddef.h>

#include "offload/base/bytes.h"

struct rs_command_result {
    double seconds;     /* from start to end */
    double cpu_seconds; /* user and system, of it and of the children that it waited for */
    int status;         /* exit code; 128 + signal; 127: it could not be started */
    char why[256];      /* after a failure: the last line that it wrote on stderr */
};

/*
 * Runs argv (NULL-ended; argv[0] is looked up in PATH) with stdin and stdout
 * on /dev/null and waits for it. 0 when its exit code was 0, else RESEAL_EIO.
 */
RS_MUST_CHECK int rs_command_run(const char *const *argv, struct rs_command_result *out);

/* True when a program of that name is in PATH. */
bool rs_command_known(const char *name);

#endif
