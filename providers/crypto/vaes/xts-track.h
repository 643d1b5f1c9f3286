/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_VAES_XTS_TRACK_H
#define RS_VAES_XTS_TRACK_H

/*
 * One side's way through the flights of a run: where units begin, and which
 * encrypted tweak each begins with. Those come from a store of two halves: one
 * is used up while the other is refilled.
 */

#include "providers/crypto/vaes/xts-common.h"

#define RS_TRACK_HALF 32u /* encrypted tweaks */

struct rs_xts_track {
    const struct rs_side *side;
    const struct rs_vaes_key *key; /* NULL: plain */
    const __m128i *fresh;          /* the next encrypted tweak of the half in use */
    uint64_t unit;                 /* number of the first data unit whose tweak is not encrypted yet */
    uint64_t units;                /* how many there are */
    uint64_t per_unit;             /* flights in a data unit */
    uint64_t left;                 /* flights left in the current one */
    uint32_t here, there;          /* unused tweaks in the half in use and in the other */
    uint32_t half;                 /* in use */
};

/* Encrypts the tweaks of n data units from `unit` on, n at most RS_TRACK_HALF. */
typedef void rs_track_encrypt(const struct rs_xts_track *w, uint64_t unit, __m128i *out, size_t n);

/* `side` has units of whole flights, or the run of `len` bytes is one unit. `store` is the side's, `half` a
 * free one. */
static inline __attribute__((always_inline)) void
rs_track_begin(struct rs_xts_track *w, const struct rs_side *side, size_t len, size_t flight,
               __m128i store[2][RS_TRACK_HALF], uint32_t half, rs_track_encrypt *encrypt)
{
    *w = (struct rs_xts_track){.side = side, .half = half, .fresh = store[half]};
    if (side->cipher == RS_PLAIN) return;
    size_t unit = RS_MIN(len, side->unit);
    size_t units = unit == len ? 1 : (len + unit - 1) / unit;
    w->key = side->key;
    w->per_unit = (unit + flight - 1) / flight;
    w->here = (uint32_t)RS_MIN(units, RS_TRACK_HALF);
    w->unit = w->here;
    w->units = units - w->here;
    encrypt(w, 0, store[half], w->here);
}

/* Turns to the other half when this one is used up, refills the one that is free, and says for how many
 * flights there is. */
static inline __attribute__((always_inline)) size_t
rs_track_ready(struct rs_xts_track *w, __m128i store[2][RS_TRACK_HALF], rs_track_encrypt *encrypt)
{
    if (w->left == 0 && w->here == 0) {
        w->half ^= 1;
        w->here = w->there;
        w->there = 0;
        w->fresh = store[w->half];
    }
    if (w->there == 0 && w->units != 0) {
        w->there = (uint32_t)RS_MIN(w->units, RS_TRACK_HALF);
        encrypt(w, w->unit, store[w->half ^ 1], w->there);
        w->unit += w->there;
        w->units -= w->there;
    }
    return w->left + w->here * w->per_unit;
}

/* Goes on by a flight: the encrypted tweak that it begins with, or NULL within a unit. */
static inline const __m128i *rs_track_next(struct rs_xts_track *w)
{
    if (w->left != 0) {
        w->left--;
        return NULL;
    }
    w->left = w->per_unit - 1;
    w->here--;
    return w->fresh++;
}

#endif
