/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_BENCH_PRIVATE_SERVICE_H
#define RS_BENCH_PRIVATE_SERVICE_H

/* A service of one's own for the time of a benchmark, and the CPU time of processes, polling included. */

#include <limits.h>
#include <stdint.h>
#include <sys/types.h>

#include "offload/base/bytes.h"

struct rs_private_service {
    pid_t pid;          /* reseald; 0: none was started */
    char dir[PATH_MAX]; /* its runtime folder, which is removed again */
    char why[256];      /* after a failure: one line */
};

/*
 * Starts the reseald beside this program (or beside it in an installation)
 * with a runtime folder of its own and waits until it answers. It ends with
 * the calling thread. `cpus` is a list such as "1" for its workers, NULL: its
 * own choice. RESEAL_ENOSERVICE or RESEAL_EIO with `why`.
 */
RS_MUST_CHECK int rs_private_service_start(struct rs_private_service *s, const char *cpus);

/* Ends it and removes the folder. Twice, or after a failed start, is allowed. */
void rs_private_service_stop(struct rs_private_service *s);

/*
 * CPU seconds that a process and all its living descendants have used, and
 * those that they waited for. 0 when it is gone.
 */
double rs_cpu_seconds_of_tree(pid_t pid);

/* The process that listens at the control socket in `dir`: reseald. 0: not known. */
pid_t rs_service_pid(const char *dir);

#endif
