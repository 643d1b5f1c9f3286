/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_VAES_XTS_COMMON_H
#define RS_VAES_XTS_COMMON_H

/* What the XTS kernels of every instruction set share. Included only by files compiled for AES-NI at least.
 */

#include "providers/crypto/vaes/key.h"
#include "reseal/reseal.h"

#include <immintrin.h>

/*
 * Ciphertext stealing, in AES-NI for every kernel: the last 17 to 31 bytes of
 * a run, on one or both sides. `src` and `dst` are the keys, NULL for plain;
 * t1 and t2 the source's and the destination's tweaks of the two blocks.
 */
void rs_xts_steal(const struct rs_vaes_key *src, const struct rs_vaes_key *dst, const __m128i t1[2],
                  const __m128i t2[2], const uint8_t *in, uint8_t *out, size_t len);

/* Whole blocks, any number, with the tweaks of each; the same keys and tweaks as above. */
void rs_xts_blocks(const struct rs_vaes_key *src, const struct rs_vaes_key *dst, const __m128i *t1,
                   const __m128i *t2, const uint8_t *in, uint8_t *out, size_t blocks);

/* 0, or why a run has no XTS meaning: RESEAL_EUNIT, RESEAL_ENOSUPPORT. */
int rs_xts_check(const struct rs_run *run);

/* Tweak of data unit u of a side, before encryption. */
static inline __m128i rs_xts_tweak_number(const struct rs_side *s, uint64_t u)
{
    return _mm_set_epi64x((long long)s->tweak_hi, (long long)(s->tweak_lo + u * s->step));
}

static inline __m128i rs_aes_round_key(const uint8_t key[16])
{
    return _mm_load_si128((const __m128i *)key);
}

static inline __m128i rs_aes_encrypt(__m128i x, const uint8_t keys[RS_AES_ROUND_KEYS][16], unsigned rounds)
{
    x = _mm_xor_si128(x, rs_aes_round_key(keys[0]));
    for (unsigned r = 1; r < rounds; r++) x = _mm_aesenc_si128(x, rs_aes_round_key(keys[r]));
    return _mm_aesenclast_si128(x, rs_aes_round_key(keys[rounds]));
}

static inline __m128i rs_aes_decrypt(__m128i x, const uint8_t keys[RS_AES_ROUND_KEYS][16], unsigned rounds)
{
    x = _mm_xor_si128(x, rs_aes_round_key(keys[0]));
    for (unsigned r = 1; r < rounds; r++) x = _mm_aesdec_si128(x, rs_aes_round_key(keys[r]));
    return _mm_aesdeclast_si128(x, rs_aes_round_key(keys[rounds]));
}

/* t * x: the tweak of the next block. */
static inline __m128i rs_xts_next(__m128i t)
{
    __m128i carry =
        _mm_and_si128(_mm_srai_epi32(_mm_shuffle_epi32(t, 0x5f), 31), _mm_set_epi32(0, 1, 0, 0x87));
    return _mm_xor_si128(_mm_add_epi64(t, t), carry);
}

/* Bytes of a run before the ones that stealing mixes: whole blocks. */
static inline size_t rs_xts_bulk(size_t len)
{
    return len % 16 == 0 ? len : len / 16 * 16 - 16;
}

/* One side's walk over the blocks of a run, for units that no kernel has a faster way for. Secret. */
struct rs_block_walk {
    const struct rs_side *side;
    const struct rs_vaes_key *key; /* NULL: plain */
    uint64_t unit;                 /* number of the next data unit */
    uint32_t left;                 /* blocks left in this one */
    __m128i tweak;                 /* of the block before */
};

static inline void rs_block_walk_begin(struct rs_block_walk *w, const struct rs_side *s)
{
    *w = (struct rs_block_walk){.side = s, .key = s->cipher == RS_PLAIN ? NULL : s->key};
}

/* The tweak of the next block; 0 on a plain side. */
static inline __m128i rs_block_walk_next(struct rs_block_walk *w)
{
    if (w->key == NULL) return _mm_setzero_si128();
    if (w->left == 0) {
        w->tweak = rs_aes_encrypt(rs_xts_tweak_number(w->side, w->unit++), w->key->tweak, w->key->rounds);
        w->left = (w->side->unit + 15) / 16;
    } else {
        w->tweak = rs_xts_next(w->tweak);
    }
    w->left--;
    return w->tweak;
}

#endif
