/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_TRUSTED_KEY_SERVICE_H
#define RS_TRUSTED_KEY_SERVICE_H

/*
 * The key provider service: gives KEKs to hosts that show a token of an
 * attestation service, and nothing to anybody else.
 *
 *   hello   {}                   -> {"name", "ready"}
 *   new     {"token"}            -> {"key": id}, block: the KEK
 *   unwrap  {"token", "key": id} -> {}, block: the KEK
 *
 * A KEK is 32 random bytes; its id is the KEK wrapped under the primary key (native.h), so
 * there is nothing to keep. A refusal for the token has "attest": true: a new token may help.
 */

#include "providers/key/trusted/primary.h"
#include "providers/key/trusted/token.h"

#define RS_SEEN_MAX 4096u

struct rs_key_service {
    struct rs_daemon *daemon;
    const char *name; /* the audience of tokens */
    struct rs_primaries primaries;
    json_t *keys; /* public JWKs of attestation services */
    bool single_use;
    struct {
        char id[24];
        int64_t until;
    } * seen; /* tokens that were used, where they serve once */
};

/* As rs_wire_handle; `arg` is a struct rs_key_service. */
void rs_key_service_handle(void *arg, const struct rs_wire_caller *caller,
                           const struct rs_wire_message *request, struct rs_wire_message *answer);

#endif
