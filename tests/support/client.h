/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_TESTS_CLIENT_H
#define RS_TESTS_CLIENT_H

/*
 * What tests of libreseal begin with: a connection to a service of their own,
 * keys, sessions. Any failure ends the test program.
 */

#include "reseal/reseal.h"
#include "tests/support/service.h"

#include <stddef.h>

struct client {
    struct service service;
    reseal *r;
};

/* Ends the test program with exit code 77 when the service was not built. */
void client_require_service(void);

/* Starts a service and connects to it. */
void client_start(struct client *c);
void client_stop(struct client *c);

/* Another connection to the same service. */
reseal *client_connect(const struct client *c);

/* A key of these bytes: XTS (4096-byte units, step 8) 32 or 64, GCM 16 or 32; for both uses. */
reseal_key client_key(reseal *r, uint32_t cipher, const void *bytes, size_t len);

/* A key that nobody knows, of 256 bits, for both uses. */
reseal_key client_random_key(reseal *r, uint32_t cipher);

/* The sides that these keys fit. */
struct reseal_side client_plain(void);
struct reseal_side client_xts(reseal_key key);
struct reseal_side client_gcm(reseal_key key);

reseal_session *client_session(reseal *r, struct reseal_side source, struct reseal_side destination,
                               uint32_t stages);

/* depth, bytes of arena; 0: the defaults. */
reseal_queue *client_queue(reseal *r, uint32_t depth, uint64_t arena);

#endif
