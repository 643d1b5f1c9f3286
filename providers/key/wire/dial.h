/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_WIRE_DIAL_H
#define RS_WIRE_DIAL_H

/* TCP sockets: connecting with a deadline, listening. */

#include "providers/key/wire/tls.h"

/* Nanoseconds of rs_now_ns(). */
uint64_t rs_wire_deadline(unsigned ms);

/* Waits until the socket can be read or written: 1, 0 when the deadline passed, -errno. */
int rs_wire_wait(int fd, short events, uint64_t deadline);

/* A connected non-blocking socket in *fd, through the proxy where the address names one. As rs_wire_connect(). */
RS_MUST_CHECK int rs_wire_dial(const struct rs_wire_address *server, uint64_t deadline, int *fd,
                               struct rs_wire_error *error);

/* "HOST:PORT", "[V6]:PORT"; port 0 takes a free one. A listening non-blocking socket, or RESEAL_EINVAL,
 * RESEAL_EIO, with *error filled. *port is the one taken. */
RS_MUST_CHECK int rs_wire_listen(const char *address, uint16_t *port, struct rs_wire_error *error);

/* The port that a listening socket has. */
uint16_t rs_wire_port(int fd);

/* Splits "HOST:PORT" or "HOST" (`otherwise` then); false: neither. */
RS_MUST_CHECK bool rs_wire_split(const char *address, uint16_t otherwise, char host[RS_WIRE_HOST_MAX],
                                 uint16_t *port);

#endif
