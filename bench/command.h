/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_BENCH_COMMAND_H
#define RS_BENCH_COMMAND_H

/* Other programs, run to be measured: no shell, no inherited descriptors, their CPU time told apart. */

#include <stddef.h>
#include <sys/types.h>

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

/*
 * Starts argv in the background, everything on /dev/null; it ends with the
 * calling thread. Its process, or -1. rs_command_end() sends SIGTERM and waits.
 */
RS_MUST_CHECK pid_t rs_command_start(const char *const *argv);
void rs_command_end(pid_t pid);

/* What a program wrote. */
struct rs_command_text {
    int status; /* as above; 128 + SIGKILL after its time was over */
    char *out;  /* NUL-ended; freed by rs_command_text_free() */
    char *err;
};

/*
 * Runs argv as above and keeps what it writes (16 MiB of each at most, then it
 * is ended). Strings "NAME=VALUE" of `env` are added to its environment and
 * "NAME" is taken away; NULL: as it is. It is killed after `limit_s` seconds.
 * 0 when it ran, whatever its exit code; else RESEAL_EIO or RESEAL_ENOMEM, and
 * nothing is to be freed.
 */
RS_MUST_CHECK int rs_command_output(const char *const *argv, const char *const *env, unsigned limit_s,
                                    struct rs_command_text *out);
void rs_command_text_free(struct rs_command_text *t);

/* True when a program of that name is in PATH. */
bool rs_command_known(const char *name);

/* The whole path of a program as execvp() would find it; RESEAL_EINVAL: there is none, or it is too long. */
RS_MUST_CHECK int rs_command_find(const char *name, char *path, size_t len);

#endif
