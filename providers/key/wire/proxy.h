/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_WIRE_PROXY_H
#define RS_WIRE_PROXY_H

/*
 * The way through an HTTP proxy: it is asked once to CONNECT, and what comes
 * after its answer goes to the server and back as it is. TLS begins behind it:
 * a proxy sees the server's name and bytes that it cannot read.
 */

#include "providers/key/wire/tls.h"

#define RS_PROXY_ANSWER_MAX 8192u /* bytes of its answer, all header lines */

/*
 * What a proxy has answered so far: 0 when more has to come, 100 to 999 the status of a whole header, of
 * *used bytes; RESEAL_EPROTO when it is no answer of HTTP/1, or too long for one. A pure function.
 */
RS_MUST_CHECK int rs_proxy_answer(const uint8_t *bytes, size_t len, size_t *used);

/* Asks the proxy at the other end of a connected non-blocking socket for the way to the server, by its name:
 * the proxy looks that up. As rs_wire_connect(); server->proxy is for messages. */
RS_MUST_CHECK int rs_proxy_ask(int fd, const struct rs_wire_address *server, uint64_t deadline,
                               struct rs_wire_error *error);

#endif
