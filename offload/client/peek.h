/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_CLIENT_PEEK_H
#define RS_CLIENT_PEEK_H

/* For those programs of ours that serve other things beside a queue: a look into it that costs no call. */

#include <stdbool.h>

#include "reseal/reseal.h"

/*
 * True when reseal_poll() would deliver something. Changes nothing: unlike a poll that finds nothing it does
 * not ask for the descriptor to become readable, and does not notice that the service went away. The queue's
 * thread.
 */
bool rs_queue_peek(const reseal_queue *q);

#endif
