/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_SERVICE_BINDING_H
#define RS_SERVICE_BINDING_H

/*
 * A session as one worker holds it: expanded keys, and for a GCM destination
 * a subkey of its own with the counter of its IVs. A session has a binding
 * for each worker that serves a queue of its client, each with its own
 * subkey, so that no counter is shared between threads and none can repeat.
 *
 * IV of record n under a subkey: four zero bytes, then n as 64 bits
 * big-endian; n begins at 1. A record that fails has used its number up.
 */

#include "offload/transform/transform.h"
#include "providers/crypto/derive.h"
#include "providers/key/internal.h"

#include <stdatomic.h>

/* Subkeys of GCM sources (derive = 1) that a binding keeps prepared. */
#define RS_DERIVED_MAX 8u

/* Bytes of a job for which a transform's engine is calibrated when nothing else is known. */
#define RS_TYPICAL_LEN 65536u

struct rs_derived {
    uint8_t salt[RS_SALT_LEN];
    uint64_t used; /* last use, by the binding's clock; 0: empty */
    struct rs_transform transform;
    void *memory; /* key memory */
};

struct rs_binding {
    struct rs_transform transform;
    void *memory;                    /* key memory of the transform */
    struct rs_msg_session_keys *raw; /* key memory; only where subkeys are derived from it, else NULL */
    uint8_t salt[RS_SALT_LEN];
    uint64_t counter;      /* of the last record */
    uint64_t record_limit; /* 0: none */
    uint64_t clock;
    struct rs_derived *derived;             /* RS_DERIVED_MAX of them, with raw */
    _Atomic uint64_t jobs, bytes, failures; /* written by the worker, read for status */
};

/*
 * What keys and config make; `keys` stays with the caller, who wipes it.
 * RESEAL_ENOMEM (key memory is full), and as rs_transform_init().
 */
RS_MUST_CHECK int rs_binding_make(struct rs_binding **out, const struct rs_transform_config *config,
                                  const struct rs_msg_session_keys *keys);

/* Wipes everything. NULL is allowed. Not while a worker holds it. */
void rs_binding_free(struct rs_binding *binding);

/* The transform for a GCM source whose key is HKDF(key, salt): worker only. RESEAL_ENOMEM, RESEAL_EINVAL. */
RS_MUST_CHECK int rs_binding_derived(struct rs_binding *binding, const uint8_t salt[RS_SALT_LEN],
                                     const struct rs_transform **out);

/* Draws the next IV: worker only. RESEAL_EKEYUSED at the limit. */
RS_MUST_CHECK int rs_binding_next_iv(struct rs_binding *binding, uint64_t *counter, uint8_t iv[RS_IV_LEN]);

#endif
