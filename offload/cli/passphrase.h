/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_CLI_PASSPHRASE_H
#define RS_CLI_PASSPHRASE_H

/*
 * Where a pass phrase comes from: a file, a descriptor, or a prompt on the
 * terminal. It never comes from the command line or the environment, and the
 * program does not read it where a descriptor can be handed to the service.
 */

#include "offload/cli/exit.h"

struct rs_passphrase {
    const char *file; /* NULL: not from a file */
    int fd;           /* -1: not from a descriptor */
    /* How to give it where there is no terminal; NULL: "--WHAT-passphrase-file or --WHAT-passphrase-fd". */
    const char *options;
};

/*
 * A descriptor that reads the pass phrase to its end; the caller closes it. A
 * file or descriptor is taken byte for byte, as cryptsetup takes a key file:
 * an end of line is part of it. A prompt's is not. `what` names it in the
 * prompt ("source", "destination"); `twice` asks again and compares. 0 or an exit code.
 */
RS_MUST_CHECK int rs_passphrase_open(const struct rs_passphrase *p, const char *what, const char *of,
                                     bool twice, int *fd, struct rs_failure *f);

/* Says on stderr when others than the owner can read a secret's file. */
void rs_passphrase_warn(const char *path, int fd);

#endif
