/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_BENCH_PEERS_H
#define RS_BENCH_PEERS_H

/*
 * The same work as others do it: a library opens the source side into memory
 * that stays in the cache, and seals the destination side from there. Called
 * as a developer would call them, not through our engines, which copy more.
 */

#include "providers/crypto/engine.h"

struct rs_peer_side; /* a keyed side of one library */

enum rs_peer_kind {
    RS_PEER_OPENSSL,  /* EVP, for XTS one call for each data unit, for GCM one for each record */
    RS_PEER_IPSEC_MB, /* GCM alone */
    RS_PEER_ENGINE,   /* our best XTS, one side at a time */
};

/* NULL: this library cannot do this side, or memory is out. `raw` as rs_engine.prepare(). */
struct rs_peer_side *rs_peer_open(enum rs_peer_kind kind, enum rs_cipher cipher, unsigned bits, bool encrypt,
                                  const uint8_t *raw, size_t raw_len);
void rs_peer_close(struct rs_peer_side *p);

/*
 * len bytes from `in` to `out`; `side` gives tweak, unit, IV, AAD and the tag
 * (expected when decrypting, result when encrypting). 0, RESEAL_EAUTH or
 * RESEAL_EINVAL.
 */
RS_MUST_CHECK int rs_peer_run(struct rs_peer_side *p, struct rs_side *side, uint8_t *out, const uint8_t *in,
                              size_t len, void *scratch, unsigned flags);

#endif
