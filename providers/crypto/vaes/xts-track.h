/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_VAES_XTS_TRACK_H
#define RS_VAES_XTS_TRACK_H

/*
 * One side's way through the flights of a run: where units begin, and which
 * encrypted tweak each begins with. Those wait in a ring of two batches.
 */

#include "providers/crypto/vaes/xts-common.h"

#define RS_TRACK_BATCH 32u /* encrypted tweaks made at once */
#define RS_TRACK_RING  (2 * RS_TRACK_BATCH)

struct rs_xts_track {
    const struct rs_side *side;
    const struct rs_vaes_key *key; /* NULL: plain */
    const __m128i *ring;
    uint64_t unit;     /* number of the first data unit whose tweak is not encrypted yet */
    uint64_t units;    /* how many there are */
    uint64_t per_unit; /* flights in a data unit */
    uint64_t left;     /* flights left in the current one */
    uint32_t at;       /* of the next encrypted tweak in the ring, not reduced */
    uint32_t waiting;  /* how many there are */
};

/* Encrypts the tweaks of n data units from `unit` on, n at most RS_TRACK_BATCH. */
typedef void rs_track_encrypt(const struct rs_xts_track *w, uint64_t unit, __m128i *out, size_t n);

/* Makes a batch of tweaks when there is room for one and need. Those that wait end at a whole batch, if more
 * are to come. */
static inline __attribute__((always_inline)) void
rs_track_fill(struct rs_xts_track *w, __m128i ring[RS_TRACK_RING], rs_track_encrypt *encrypt)
{
    if (w->waiting > RS_TRACK_BATCH || w->units == 0) return;
    uint32_t n = (uint32_t)RS_MIN(w->units, RS_TRACK_BATCH);
    encrypt(w, w->unit, &ring[(w->at + w->waiting) % RS_TRACK_RING], n);
    w->unit += n;
    w->units -= n;
    w->waiting += n;
}

/*
 * `side` has units of whole flights, or the run of `len` bytes is one unit.
 * `before`: the track of the run before, of which at most one tweak is still
 * to be used; of another ring, or none, when all zero.
 */
static inline __attribute__((always_inline)) void
rs_track_begin(struct rs_xts_track *w, const struct rs_side *side, size_t len, size_t flight,
               const struct rs_xts_track *before, __m128i ring[RS_TRACK_RING], rs_track_encrypt *encrypt)
{
    uint32_t at = (before->at + before->waiting + RS_TRACK_BATCH - 1) / RS_TRACK_BATCH * RS_TRACK_BATCH;
    *w = (struct rs_xts_track){.side = side, .ring = ring, .at = at};
    if (side->cipher == RS_PLAIN) return;
    size_t unit = RS_MIN(len, side->unit);
    w->key = side->key;
    w->units = unit == len ? 1 : (len + unit - 1) / unit;
    w->per_unit = (unit + flight - 1) / flight;
    rs_track_fill(w, ring, encrypt);
}

/* For how many flights there is. A batch ahead is kept, so that its making need not be waited for. */
static inline uint64_t rs_track_room(const struct rs_xts_track *w)
{
    uint32_t keep = w->units == 0 ? 0 : RS_TRACK_BATCH - 1;
    return w->left + (w->waiting - keep) * w->per_unit;
}

/* Goes on by a flight: the encrypted tweak that it begins with, or NULL within a unit. */
static inline const __m128i *rs_track_next(struct rs_xts_track *w)
{
    if (w->left != 0) {
        w->left--;
        return NULL;
    }
    w->left = w->per_unit - 1;
    w->waiting--;
    return &w->ring[w->at++ % RS_TRACK_RING];
}

#endif
