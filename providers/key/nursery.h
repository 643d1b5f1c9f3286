/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_KEY_NURSERY_H
#define RS_KEY_NURSERY_H

/*
 * The nursery starts a child for each order or task that must parse what others
 * gave. It is forked off before reseal-keyd has key memory, so a child begins
 * with none of its keys, and makes key memory of its own; a fork of
 * reseal-keyd itself would share or lose libcrypto's heap. A child sees no file
 * but the random device, makes no process and no socket, and lives for one order;
 * that of a task in RS_TASK_NETWORK may resolve names, connect and use a TPM, too.
 *
 * Without its nursery reseal-keyd could serve nothing but what it has: it ends itself when the nursery
 * goes, and reseald starts both again.
 */

#include "providers/key/source.h"
#include "providers/key/task.h"

struct rs_nursery {
    int sock; /* to the nursery */
    int pid;
};

/* Forks it. Call it first of all, with one thread. 0 or RESEAL_EIO. */
RS_MUST_CHECK int rs_nursery_start(struct rs_nursery *n);

/*
 * Hands an order to a new child. *op becomes a non-blocking socket on which
 * come a message BORN with the child's pidfd, then YIELD; end of file before it: the
 * child died. The descriptors stay the caller's. 0, RESEAL_EIO, RESEAL_ELIMIT.
 */
RS_MUST_CHECK int rs_nursery_order(const struct rs_nursery *n, const struct rs_source_order *order,
                                   const int *fds, unsigned nfds, int *op);

/* A task, whose JSON text and packed secrets follow on *op. */
struct rs_task_order {
    uint32_t kind; /* its place in rs_task_kinds */
    uint32_t deadline_s;
    uint32_t nfds;
    uint32_t fds; /* bit i: descriptor i is there; only those are sent */
    uint32_t text_len;
    uint32_t secrets_len;
};

/* What its child answers; the text and the secrets follow. */
struct rs_task_reply {
    int32_t status;
    uint32_t text_len;
    uint32_t secrets_len;
    uint32_t reserved;
    char why[RS_TASK_WHY];
    char event[RS_TASK_EVENT];
};

/* The same for a task; `fds` are the order's in their order. On *op come BORN, TASK_REPLY (+ descriptor),
 * PARTs.
 */
RS_MUST_CHECK int rs_nursery_task(const struct rs_nursery *n, const struct rs_task_order *order,
                                  const int *fds, int *op);

/* Another task for a child that rests, by its *op. RESEAL_EIO: it is gone. */
RS_MUST_CHECK int rs_nursery_task_again(int op, const struct rs_task_order *order, const int *fds);

/* In the child of a task, already confined: its life from here on, and its exit status. Takes the
 * descriptors. */
RS_MUST_CHECK int rs_task_serve(const struct rs_task_order *order, int op, int *fds);

/* On *op: */
#define RS_MSG_ORDER      (RS_MSG_INTERNAL + 16) /* rs_source_order + op socket, descriptors */
#define RS_MSG_BORN       (RS_MSG_INTERNAL + 17) /* none + pidfd */
#define RS_MSG_YIELD      (RS_MSG_INTERNAL + 18) /* rs_source_yield (+ descriptor) */
#define RS_MSG_TASK       (RS_MSG_INTERNAL + 19) /* rs_task_order + op socket, descriptors */
#define RS_MSG_PART       (RS_MSG_INTERNAL + 20) /* the next bytes of text and secrets, either way */
#define RS_MSG_TASK_REPLY (RS_MSG_INTERNAL + 21) /* rs_task_reply (+ descriptor) */

_Static_assert(sizeof(struct rs_source_yield) <= RS_MSG_BODY_MAX, "a yield is one message");
_Static_assert(sizeof(struct rs_task_reply) <= RS_MSG_BODY_MAX, "an answer begins with one message");
_Static_assert(RS_TASK_FDS + 1 <= RS_MSG_FDS, "a task is one message");
_Static_assert(RS_SOURCE_FDS + 1 <= RS_MSG_FDS, "an order is one message");

#endif
