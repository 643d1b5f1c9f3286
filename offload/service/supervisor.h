/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_SERVICE_SUPERVISOR_H
#define RS_SERVICE_SUPERVISOR_H

/*
 * reseald: holds the runtime folder and the listening sockets, starts and
 * restarts reseald-work and reseal-keyd, and gives all of it to a successor.
 * It reads nothing that a client wrote. One thread.
 */

#include "offload/base/bytes.h"

#include <limits.h>
#include <sys/types.h>

struct rs_supervisor_options {
    const char *runtime_dir;
    const char *policy;         /* NULL: a private service, all for the own user */
    const char *state_dir;      /* of reseal-keyd */
    const char *keep_audit;     /* MiB of the audit that are kept; NULL: reseal-keyd's default */
    const char *agent;          /* address that reseal-keyd listens on for managers; NULL: none */
    const char *user;           /* NULL: stay who we are */
    const char *workers, *cpus; /* handed on as they are; NULL: not given */
    int ready_fd;               /* -1: none */
    bool takeover;
};

struct rs_child {
    pid_t pid;  /* 0: not ours to wait for (taken over) */
    int pidfd;  /* -1: not running */
    int socket; /* our end of its --supervisor-fd */
    uint64_t started_ns;
    uint64_t again_ns; /* when to start it again; 0: now */
    unsigned failures; /* in a row, each soon after its start */
    bool was_usable;   /* it ended once, and not because of what it was started with */
};

struct rs_supervisor {
    const struct rs_supervisor_options *options;
    char programs[PATH_MAX]; /* folder of reseald-work and reseal-keyd */
    int folder, lock, control, keys, admin, signals;
    int successor;    /* connection of a take-over that is under way; -1: none */
    bool taking_over; /* we are the successor in it */
    struct rs_child work, keyd;
    bool stop, handed_over, said_ready;
    bool unusable;        /* a program cannot use what it was started with: so we could not start */
    uint64_t repaired_ns; /* when reseald-work last got another pair to reseal-keyd */
};

/* Runs until told to stop or taken over. Exit status of the process; says on stderr why it fails. */
int rs_supervisor_run(const struct rs_supervisor_options *options);

/* ---- supervisor-folder.c: the runtime folder and what lies in it ---- */

/* Folder, lock, sockets: 0, or RESEAL_E... with a line on stderr. */
RS_MUST_CHECK int rs_folder_open(struct rs_supervisor *s);

/* Sockets leave the folder. */
void rs_folder_close(struct rs_supervisor *s);

/* Connects to a socket of the folder: descriptor or RESEAL_ENOSERVICE. */
RS_MUST_CHECK int rs_folder_connect(const struct rs_supervisor *s, const char *name);

/* ---- supervisor-children.c: starting programs ---- */

/* Where the other programs are: beside this one or in ../libexec/reseal. RESEAL_ENOSERVICE with a line on
 * stderr. */
RS_MUST_CHECK int rs_children_find(struct rs_supervisor *s);

/* Start what does not run and is due. `inherit`: socket to the old reseald-work, -1: none; closed here. */
void rs_children_start(struct rs_supervisor *s, int inherit);

/* Milliseconds until rs_children_start() has something to do; -1: nothing. */
int rs_children_due(const struct rs_supervisor *s);

/* A child's pidfd is readable. */
void rs_children_gone(struct rs_supervisor *s, struct rs_child *child);

/* Another pair between the two that run. */
void rs_children_pair(struct rs_supervisor *s);

/* Asks both to end, waits, and ends those that do not. */
void rs_children_stop(struct rs_supervisor *s);

/* Writes "ready" to ready_fd as soon as both sockets answer; from a process of its own. */
void rs_children_say_ready(struct rs_supervisor *s);

/* ---- supervisor-takeover.c ---- */

/* Successor: takes all from the one that runs. *inherit: socket to the old reseald-work. */
RS_MUST_CHECK int rs_takeover_ask(struct rs_supervisor *s, int *inherit);

/* Successor: our reseald-work serves. */
void rs_takeover_done(struct rs_supervisor *s);

/* Old one: a connection on admin.sock, and what comes on it. */
void rs_takeover_accept(struct rs_supervisor *s);
void rs_takeover_read(struct rs_supervisor *s);

#endif
