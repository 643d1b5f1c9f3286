/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_CLI_EXIT_H
#define RS_CLI_EXIT_H

/*
 * Exit codes beyond those of cli.h, and a failure as a value: the code and the
 * one line that goes with it, so that it can be printed on a terminal or put
 * into the JSON result by whoever is on top.
 */

#include "offload/cli/cli.h"

enum rs_exit {
    RS_EXIT_OK = RS_CLI_OK,
    RS_EXIT_FAILED = RS_CLI_FAILED,
    RS_EXIT_USAGE = RS_CLI_USAGE,
    RS_EXIT_REFUSED = 3,       /* by the policy, by file permissions, or because it would destroy something */
    RS_EXIT_KEY = 4,           /* wrong pass phrase or key */
    RS_EXIT_FORMAT = 5,        /* not LUKS, damaged, truncated, or a cipher we do not do */
    RS_EXIT_IO = 6,            /* input/output error, no space left */
    RS_EXIT_SERVICE = 7,       /* the service is gone, or speaks another version */
    RS_EXIT_INTERRUPTED = 130, /* SIGINT or SIGTERM; the work done is kept where the command says so */
};

struct rs_failure {
    int exit; /* 0: none yet */
    char text[1024];
};

/* Records the first failure (later ones are its consequences) and returns `exit_code`. */
__attribute__((format(printf, 3, 4))) int rs_failure_set(struct rs_failure *f, int exit_code,
                                                         const char *format, ...);

/* The exit code that goes with a RESEAL_E... code (0: RS_EXIT_OK). */
int rs_exit_of(int reseal_error);

/* rs_failure_set() for a RESEAL_E... code: "WHAT: reseal_strerror(code)". */
int rs_failure_code(struct rs_failure *f, int reseal_error, const char *what);

/* rs_failure_set() for a negative errno on a file: "cannot VERB PATH: reason". */
int rs_failure_errno(struct rs_failure *f, int error, const char *verb, const char *path);

#endif
