/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_CLI_SOCKET_H
#define RS_CLI_SOCKET_H

/* One socket of a service, spoken to without libreseal: for commands that tell its processes apart. */

#include <jansson.h>

#include "offload/ring/control.h"

/* The folder that a client would use: `given`, or the order of reseal_open(). May return `room`. */
const char *rs_socket_folder(const char *given, char *room, size_t len);

/* A connected socket ("control.sock", "keys.sock"), or -errno. A service that hangs is given five seconds. */
RS_MUST_CHECK int rs_socket_connect(const char *folder, const char *name);

/* Says hello. 0 or RESEAL_E.... */
RS_MUST_CHECK int rs_socket_greet(int sock, struct rs_msg_welcome *welcome);

/* The status of whoever answers there; the caller drops the reference. NULL: none. */
json_t *rs_socket_status(int sock);

#endif
