/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_WIRE_SERVER_H
#define RS_WIRE_SERVER_H

/*
 * The listening half: many connections in one thread, each with deadlines, so
 * that one that hangs, or sends byte by byte, costs others nothing. It can be the loop of a
 * process, or be watched by another loop (rs_wire_server_fd()).
 */

#include "providers/key/wire/frame.h"

struct rs_wire_caller {
    struct rs_wire_identity id;
    char address[64]; /* numeric, for logs */
};

/*
 * Answers a request: fills answer->json, with "status" (0: may be left out), and takes nothing of the
 * request. An answer without json ends the connection. Called from rs_wire_server_work(); must not block for
 * long.
 */
typedef void rs_wire_handle(void *arg, const struct rs_wire_caller *caller,
                            const struct rs_wire_message *request, struct rs_wire_message *answer);

struct rs_wire_server_config {
    int listener; /* listening and non-blocking; taken, also when opening fails */
    struct rs_wire_trust trust;
    rs_wire_handle *handle;
    void *arg;
    unsigned connections; /* at a time, 0: 64; further ones wait, those that say nothing make room */
    unsigned request_ms;  /* for the handshake, and for a request from its first byte to the last of its
                             answer; 0: 10000 */
    unsigned idle_ms;     /* between requests; 0: 60000 */
};

struct rs_wire_server;

/* RESEAL_EINVAL (trust, certificate), RESEAL_ENOMEM, RESEAL_EIO, with *error filled. The texts of `trust` are
 * not needed any more. */
RS_MUST_CHECK int rs_wire_server_open(struct rs_wire_server **out, const struct rs_wire_server_config *config,
                                      struct rs_wire_error *error);
/* NULL is allowed. */
void rs_wire_server_close(struct rs_wire_server *s);

/* Readable when there is something to do. */
int rs_wire_server_fd(const struct rs_wire_server *s);

/* Milliseconds after which rs_wire_server_work() must be called without that, -1: never. */
int rs_wire_server_tick(const struct rs_wire_server *s);

/* Waits for at most `ms` (-1: for ever) and handles what is ready. */
void rs_wire_server_work(struct rs_wire_server *s, int ms);

/* New certificate or trust for those who connect from now on; as opening. */
RS_MUST_CHECK int rs_wire_server_renew(struct rs_wire_server *s, const struct rs_wire_trust *trust,
                                       struct rs_wire_error *error);

#endif
