/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_SERVICE_HANDOVER_H
#define RS_SERVICE_HANDOVER_H

/*
 * A take-over by a new reseald-work: the old one stops at a boundary between
 * jobs and gives its clients' sockets, their queues' memory, indices and
 * waiting jobs, and what their sessions are. Keys are not among it: the
 * successor asks reseal-keyd for them, and gets fresh subkeys.
 *
 * Until the successor has acknowledged, it touches no ring and the old
 * process can go on; after it, the old one touches none. So no job is lost
 * and none is done twice.
 */

#include "offload/service/server.h"

/* Old process: gives all to `fd` (closed here). Sets handed_over and stop when it worked, else it goes on. */
void rs_handover_give(struct rs_server *s, int fd);

/* New process, before it listens: takes all from `fd` (closed here). RESEAL_EPROTO, RESEAL_ENOMEM, ... */
RS_MUST_CHECK int rs_handover_take(struct rs_server *s, int fd);

#endif
