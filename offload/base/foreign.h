/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_BASE_FOREIGN_H
#define RS_BASE_FOREIGN_H

/*
 * The close of a descriptor that a stranger sent, or of a socket in which such
 * ones can wait unread. close() itself may wait as long as the stranger likes:
 * for the server of a FUSE file system, which it asks to flush; for the peer of
 * a TCP connection with SO_LINGER; for the disk, when it is the last one of a
 * deleted file. So it is done by threads of their own, made when they are
 * needed, which also interrupt a wait that can be interrupted.
 *
 * Threads: any. They start confined as the thread that first closes: call it
 * after the sandbox. The calls that they make beyond RS_CALLS_OF_ALL:
 */
#define RS_CALLS_OF_FOREIGN                                                                                  \
    "timer_create", "timer_settime", "rt_sigaction", "set_robust_list", "rseq", "fcntl", "fstat"

#include "offload/base/bytes.h"

#define RS_FOREIGN_STUCK 4u /* closes of one user's that do not end: it gets no more in */

/* Closes *fd, which is -1 then, and never waits for it. uid: whose it was. */
void rs_foreign_close(int *fd, uint32_t uid);
/* The same, as a function for rs_msg_recv_from(). */
void rs_foreign_drop(int fd, uint32_t uid);

/* True when so many closes of that user's have been under way for more than a second that nothing more
 * should be taken from it. */
RS_MUST_CHECK bool rs_foreign_is_stuck(uint32_t uid);

#endif
