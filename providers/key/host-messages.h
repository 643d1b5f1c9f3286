/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_KEY_HOST_MESSAGES_H
#define RS_KEY_HOST_MESSAGES_H

/*
 * What managers and hosts say to each other, without a socket: docs/key-service.md has the table. Both
 * readings take hostile bytes that rs_wire_unpack() took apart.
 */

#include "providers/key/host-agent.h"
#include "providers/key/wire/frame.h"

/* ---- the host's agent: host-request.c ---- */

/* Hands one thing on to reseal-keyd, which decides; fills *answer, with its texts ended. */
typedef void rs_agent_hand(void *arg, const struct rs_agent_ask *ask, struct rs_agent_answer *answer);

/*
 * What a manager asks, handed on piece by piece, and what it is told. `caller`: SHA-256 of its certificate.
 * The secret of each piece lies in key memory. An answer without json: no memory.
 */
void rs_agent_request(const uint8_t caller[32], const struct rs_wire_message *request, rs_agent_hand *hand,
                      void *arg, struct rs_wire_message *answer);

/* ---- the manager: host-answer.c ---- */

#define RS_HOST_INSTANCE 32u /* hex digits */

/* What the answers of a host say of it; members that are no such thing, or about other keys, are left out. */
struct rs_host_told {
    char instance[RS_HOST_INSTANCE + 1]; /* "": not said */
    char state[16];                      /* "incapable", "prepared", "safe"; "unknown" otherwise */
    json_t *refused;                     /* [[entry, line]] with entries of `keys` only; the caller's, */
    json_t *kdks_refused;                /* and [[tenant, provider, line]] */
};

/* `keys`: [[tenant, provider, key]] that it was given, NULL: none. */
void rs_host_told(const json_t *answer, const json_t *keys, struct rs_host_told *out);

#endif
