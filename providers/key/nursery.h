/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_KEY_NURSERY_H
#define RS_KEY_NURSERY_H

/*
 * The nursery starts a child for each order that must parse what a client
 * gave. It is forked off before reseal-keyd has key memory, so a child begins
 * with none of its keys, and makes key memory of its own; a fork of
 * reseal-keyd itself would share or lose libcrypto's heap. A child sees no file
 * but the random device, makes no process and no socket, and lives for one order.
 */

#include "providers/key/source.h"

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

/* On *op: */
#define RS_MSG_ORDER (RS_MSG_INTERNAL + 16) /* rs_source_order + op socket, descriptors */
#define RS_MSG_BORN  (RS_MSG_INTERNAL + 17) /* none + pidfd */
#define RS_MSG_YIELD (RS_MSG_INTERNAL + 18) /* rs_source_yield (+ descriptor) */

_Static_assert(sizeof(struct rs_source_yield) <= RS_MSG_BODY_MAX, "a yield is one message");
_Static_assert(RS_SOURCE_FDS + 1 <= RS_MSG_FDS, "an order is one message");

#endif
