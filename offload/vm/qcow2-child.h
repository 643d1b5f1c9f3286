/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_VM_QCOW2_CHILD_H
#define RS_VM_QCOW2_CHILD_H

/*
 * A program of QEMU's as a child that has one file and nothing else: it gets
 * no new privileges, no other file (where the kernel has Landlock), limits, and
 * a process group of its own, so that Ctrl-C at a terminal reaches us alone.
 */

#include "offload/base/bytes.h"

#include <sys/types.h>

struct rs_qcow2_child {
    pid_t pid;  /* -1: none */
    int pidfd;  /* -1 */
    int errors; /* what it says on stderr; never blocks; -1 */
};

struct rs_qcow2_start {
    const char *const *argv; /* argv[0] is looked for in PATH */
    const char *file;        /* absolute: what it may read */
    bool writable;           /* and write */
    int listener;            /* a listening socket, which it finds as systemd's socket activation says; -1 */
    int death;               /* the signal it gets when this thread ends */
};

/* 0 or -errno. What is wrong with the program shows when it ends. */
RS_MUST_CHECK int rs_qcow2_child_start(struct rs_qcow2_child *child, const struct rs_qcow2_start *start);

/*
 * Waits for its end for at most `ms`, then ends it. 0: it ended with exit code
 * 0; -ENOENT: the program is not installed; -EIO: any other end; -ETIMEDOUT: it had to be
 * killed. `said`: its first line, printable, without the name of the program; may be empty.
 */
int rs_qcow2_child_wait(struct rs_qcow2_child *child, int ms, char *said, size_t said_len);

#endif
