/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_KEY_HELPER_H
#define RS_KEY_HELPER_H

/* Processes of reseal-keyd that are forked before it has key memory: the nursery, the agent, the flusher. */

#include "offload/base/bytes.h"

#include <sys/types.h>

#define RS_HELPER_SOCKET 3 /* its end of the pair; nothing else is open but the standard descriptors */

/* Forks one that runs `run`, which does not return; *sock is our end of a SOCK_SEQPACKET pair. RESEAL_EIO. */
RS_MUST_CHECK int rs_helper_start(void (*run)(const void *arg), const void *arg, pid_t *pid, int *sock);

#endif
