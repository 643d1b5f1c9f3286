/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_KEY_TASK_H
#define RS_KEY_TASK_H

/*
 * Tasks: everything that parses what others gave, or that takes its time, runs
 * for one request in a sandboxed child of reseal-keyd, as the orders of
 * source.h do. A task gets a JSON object, secrets and descriptors, and gives
 * back the same. reseal-keyd goes on meanwhile: a key server that hangs delays
 * only those who wait for it.
 *
 * Secrets travel through socket buffers between the processes, never through
 * files or memfds, and lie in key memory on both ends.
 */

#include "offload/base/text.h"
#include "providers/key/secrets.h"

#include <jansson.h>

#define RS_TASK_FDS   3u           /* descriptors a task may be given */
#define RS_TASK_TEXT  (256u << 10) /* bytes of its JSON, either way */
#define RS_TASK_WHY   512u         /* bytes of its error line */
#define RS_TASK_EVENT 96u          /* bytes of an event id */

enum rs_task_place {
    RS_TASK_CLOSED,  /* no files, no sockets: parsers, formats, pass phrases */
    RS_TASK_NETWORK, /* may resolve names and connect by TCP and local sockets, and open a TPM; no files to
                        write */
};

/* Lies in the child. */
struct rs_task {
    const json_t *args;
    const struct rs_secrets *secrets;
    int fds[RS_TASK_FDS];
    unsigned nfds;
    json_t *result;            /* an empty object at first; sent also when it fails */
    struct rs_secrets yields;  /* sent only with status 0 */
    int out_fd;                /* -1; one that goes to the client */
    char why[RS_TASK_WHY];     /* one line: what is wrong and what to do; empty: that of the code */
    char event[RS_TASK_EVENT]; /* event id to raise when it fails (events.h), empty: none */
};

struct rs_task_kind {
    const char *name; /* "kmip", "luks-wrap" */
    enum rs_task_place place;
    unsigned deadline_s; /* 0: that of reseal-keyd; at most 3600 */
    /* The status: 0 or RESEAL_E.... */
    int (*run)(struct rs_task *task);
    /*
     * Its child rests after it, for a little while, and does the next task of such a kind for the same user:
     * a fork with all that a child begins with costs more than to open a key slot. One that was
     * taken over by what it parsed learns no more by it: which key a header asks for is for its owner to say.
     */
    bool again;
};

/* Every kind, ended by NULL; a task is found in the child by its place in this table (task-kinds.c). */
extern const struct rs_task_kind *const rs_task_kinds[];

/* Sets task->why and returns `status`: return rs_task_fail(t, RESEAL_EFORMAT, "..."). Never a secret in it.
 */
__attribute__((format(printf, 3, 4))) int rs_task_fail(struct rs_task *task, int status, const char *format,
                                                       ...);

/* ---- in reseal-keyd ------------------------------------------------------------------ */

struct rs_keyd;

/* What comes back; valid during the call, what is kept must be taken or copied. */
struct rs_task_answer {
    int status; /* RESEAL_ETIMEDOUT: overdue; RESEAL_EIO: the child died */
    const json_t *result;
    const struct rs_secrets *secrets;
    int fd;          /* -1, or the descriptor: set to -1 to keep it */
    const char *why; /* never empty when status is not 0 */
    const char *event;
};

typedef void rs_task_done(struct rs_keyd *d, void *arg, struct rs_task_answer *answer);

/*
 * Starts a task, or queues it behind others of that user (at most RS_KEYD_CHILDREN_OF_USER run at a time
 * in each place, so that a key server that hangs keeps nobody from a header). `args` and `secrets` are
 * copied, descriptors are taken (-1: none), also when it fails. `done` is called once, from the loop, never
 * from within this call; not after rs_task_cancel(). RESEAL_ENOMEM, RESEAL_ELIMIT.
 */
RS_MUST_CHECK int rs_task_start(struct rs_keyd *d, const struct rs_task_kind *kind, uint32_t uid,
                                const json_t *args, const struct rs_secrets *secrets, int *fds, unsigned nfds,
                                rs_task_done *done, void *arg);

/* Ends the tasks that were started with this arg. */
void rs_task_cancel(struct rs_keyd *d, const void *arg);

/* Runs a task in this process: for those of our own making that parse nothing. Fills `answer`, which the
 * caller releases. */
struct rs_task_own {
    struct rs_task task;
    struct rs_task_answer answer;
};
void rs_task_run_here(const struct rs_task_kind *kind, const json_t *args, const struct rs_secrets *secrets,
                      struct rs_task_own *own);
void rs_task_own_free(struct rs_task_own *own);

/*
 * Runs a task in a child and waits for it: before reseal-keyd serves anybody. Fills `own` as above.
 * RESEAL_ENOMEM, RESEAL_EIO when it could not be started; else what the task says, as in own->answer.
 */
RS_MUST_CHECK int rs_task_wait(struct rs_keyd *d, const struct rs_task_kind *kind, const json_t *args,
                               const struct rs_secrets *secrets, struct rs_task_own *own);

#endif
