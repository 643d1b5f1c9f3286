/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_VAES_XTS_BASES_H
#define RS_VAES_XTS_BASES_H

/*
 * Tweak bases: the tweak of the first block of each flight of 512 bytes. Made
 * in bulk, so that short units cost little more than long ones.
 */

#include "providers/crypto/vaes/key.h"

#include <immintrin.h>

#define RS_TWEAK_BASES      32u                   /* flights served by one call */
#define RS_TWEAK_BASES_ROOM (RS_TWEAK_BASES + 4u) /* vectors of four may end beyond the last */

/* One side's walk over the flights of a run. Secret. */
struct rs_tweak_walk {
    const struct rs_side *side;
    const struct rs_vaes_key *key; /* NULL: plain */
    uint64_t unit;                 /* number of the next data unit */
    uint32_t per_unit;             /* flights in a data unit */
    uint32_t left;                 /* flights left in this one */
    __m128i base;                  /* of the next of them */
};

/* `side` has units of whole flights, or the run of `len` bytes is one unit. */
void rs_tweak_walk_begin(struct rs_tweak_walk *w, const struct rs_side *side, size_t len);

/* The bases of the next n flights, n at most RS_TWEAK_BASES; may write up to three blocks more. Nothing on a
 * plain side. */
void rs_tweak_bases_avx512(struct rs_tweak_walk *w, __m128i bases[RS_TWEAK_BASES_ROOM], size_t n);

#endif
