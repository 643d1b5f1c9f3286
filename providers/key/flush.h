/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_KEY_FLUSH_H
#define RS_KEY_FLUSH_H

/*
 * Lines of the journals reach the disk by a process that does nothing else, so that nobody waits for a disk:
 * one flush at a time, of all that was written before it began.
 */

#include "providers/key/keyd.h"

/* Forks it; *sock is our end. Before key memory is made. RESEAL_EIO. */
RS_MUST_CHECK int rs_flusher_start(int *sock);

/* Watches it, and takes `sock`. RESEAL_EIO. */
RS_MUST_CHECK int rs_flush_open(struct rs_keyd *d, int sock);

/* Has what was written flushed: at once, or after what is under way. Without a flusher, as in some tests, it
 * does nothing. */
void rs_flush(struct rs_keyd *d);

#endif
