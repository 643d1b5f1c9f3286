/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_TESTS_KMIP_SERVER_H
#define RS_TESTS_KMIP_SERVER_H

/* Real KMIP servers (PyKMIP, tests/support/pykmip.sh) for tests in C. What fails ends the test. */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct kmip_server {
    pid_t pid;
    uint16_t port; /* 0: one that is free is chosen */
};

/* Starts one with the certificates and keys in `folder`, and waits until it listens; it must not end before.
 * `cert`: name of another certificate to show, or NULL. */
void kmip_server_start(const char *folder, struct kmip_server *s, const char *cert);

/* With the processes that it started. */
void kmip_server_kill(struct kmip_server *s);

/* A listening socket on a port that was free. */
int kmip_listen(uint16_t *port);

#endif
