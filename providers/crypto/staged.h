/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_CRYPTO_STAGED_H
#define RS_CRYPTO_STAGED_H

/*
 * Two passes through the private scratch, for engines that have no fused
 * kernel: open the source side there, seal the destination side there, copy
 * out. `in` and `out` are touched by plain copies and, where the source is not
 * GCM, by loads alone: a library underneath may load or store its private
 * buffer as often as it likes without seeing a byte change, and a fault in
 * shared memory finds it between two calls.
 */

#include "providers/crypto/engine.h"

/* A side at work. `state` is the engine's, for the time of one run. */
struct rs_staged_side {
    const struct rs_side *side;
    bool open; /* true: decrypts (source); false: encrypts (destination) */
    uint8_t state[192] RS_ALIGNED(64);
};

struct rs_staged_ops {
    /* Starts a side (IV, AAD). 0 or RESEAL_E... Called once for each side that is not plain. */
    int (*begin)(struct rs_staged_side *s);
    /* The n bytes at `off` of the run, from `from` to `to` (identical or disjoint, `to` private). Whole data
     * units but for the end of the run; ascending, without gaps. */
    int (*step)(struct rs_staged_side *s, uint8_t *to, const uint8_t *from, size_t off, size_t n);
    /* Ends a side: opening GCM verifies (RESEAL_EAUTH), sealing GCM writes `tag`. */
    int (*end)(struct rs_staged_side *s, uint8_t tag[RS_TAG_LEN]);
};

/* An rs_engine.run() made of the three. */
size_t rs_staged_run(const struct rs_staged_ops *ops, struct rs_run *runs, size_t n, void *scratch,
                     unsigned flags);

#endif
