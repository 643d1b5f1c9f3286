/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/crypto/vaes/forget.h"
#include "providers/crypto/vaes/key.h"

#include <immintrin.h>

/* w ^ w<<32 ^ w<<64 ^ w<<96: the running XOR of the four words of a round key. */
static inline __m128i running_xor(__m128i w)
{
    w = _mm_xor_si128(w, _mm_slli_si128(w, 4));
    return _mm_xor_si128(w, _mm_slli_si128(w, 8));
}

/*
 * SubWord of word `word` of w, with RotWord before and the round constant after
 * where the schedule has them, in all four words: the last round of AES on four
 * equal columns is SubBytes alone. (aeskeygenassist does the same in twice the time.)
 */
#define FEED(w, word, rcon)                                                                                  \
    _mm_aesenclast_si128(_mm_shuffle_epi8(w, (rcon) != 0 ? _mm_set1_epi32(ROTATED + 0x04040404 * (word))     \
                                                         : _mm_set1_epi32(STRAIGHT + 0x04040404 * (word))),  \
                         _mm_set1_epi32(rcon))
#define STRAIGHT 0x03020100
#define ROTATED  0x00030201

/* The next round key from `w` and word `word` of `from`. */
#define NEXT(w, from, word, rcon) _mm_xor_si128(running_xor(w), FEED(from, word, rcon))

static inline void put(uint8_t key[16], __m128i w)
{
    _mm_storeu_si128((__m128i *)key, w);
}

/* AES-128: one key a step. */
#define STEP128(i, rcon)                                                                                     \
    do {                                                                                                     \
        w = NEXT(w, w, 3, rcon);                                                                             \
        put(out[i], w);                                                                                      \
    } while (0)

static void expand128(uint8_t out[][16], const uint8_t *raw)
{
    __m128i w = _mm_loadu_si128((const __m128i *)raw);
    put(out[0], w);
    STEP128(1, 0x01);
    STEP128(2, 0x02);
    STEP128(3, 0x04);
    STEP128(4, 0x08);
    STEP128(5, 0x10);
    STEP128(6, 0x20);
    STEP128(7, 0x40);
    STEP128(8, 0x80);
    STEP128(9, 0x1b);
    STEP128(10, 0x36);
}

/* AES-192: six words a step, one and a half round keys. */
#define STEP192(i, rcon)                                                                                     \
    do {                                                                                                     \
        v = NEXT(v, w, 1, rcon);                                                                             \
        put(words + 24 * (i), v);                                                                            \
        w = _mm_xor_si128(_mm_xor_si128(w, _mm_slli_si128(w, 4)), _mm_shuffle_epi32(v, 0xff));               \
        if ((i) < 8) _mm_storel_epi64((__m128i *)(words + 24 * (i) + 16), w);                                \
    } while (0)

static void expand192(uint8_t out[][16], const uint8_t *raw)
{
    uint8_t *words = out[0];
    __m128i v = _mm_loadu_si128((const __m128i *)raw);
    __m128i w = _mm_loadl_epi64((const __m128i *)(raw + 16)); /* its upper half is of no account */
    put(out[0], v);
    _mm_storel_epi64((__m128i *)out[1], w);
    STEP192(1, 0x01);
    STEP192(2, 0x02);
    STEP192(3, 0x04);
    STEP192(4, 0x08);
    STEP192(5, 0x10);
    STEP192(6, 0x20);
    STEP192(7, 0x40);
    STEP192(8, 0x80);
}

/* AES-256: two keys a step, the second without rotation and round constant. */
#define STEP256(i, rcon)                                                                                     \
    do {                                                                                                     \
        v = NEXT(v, w, 3, rcon);                                                                             \
        put(out[i], v);                                                                                      \
        if ((i) < 14) {                                                                                      \
            w = NEXT(w, v, 3, 0);                                                                            \
            put(out[(i) + ((i) < 14)], w);                                                                   \
        }                                                                                                    \
    } while (0)

static void expand256(uint8_t out[][16], const uint8_t *raw)
{
    __m128i v = _mm_loadu_si128((const __m128i *)raw);
    __m128i w = _mm_loadu_si128((const __m128i *)(raw + 16));
    put(out[0], v);
    put(out[1], w);
    STEP256(2, 0x01);
    STEP256(4, 0x02);
    STEP256(6, 0x04);
    STEP256(8, 0x08);
    STEP256(10, 0x10);
    STEP256(12, 0x20);
    STEP256(14, 0x40);
}

void rs_aes_expand(uint8_t enc[RS_AES_ROUND_KEYS][16], uint8_t dec[RS_AES_ROUND_KEYS][16], const uint8_t *raw,
                   unsigned bits)
{
    unsigned rounds = bits / 32 + 6;
    for (unsigned i = rounds + 1; i < RS_AES_ROUND_KEYS; i++) put(enc[i], _mm_setzero_si128());
    if (bits == 128)
        expand128(enc, raw);
    else if (bits == 192)
        expand192(enc, raw);
    else
        expand256(enc, raw);
    if (dec != NULL) {
        for (unsigned i = 0; i < RS_AES_ROUND_KEYS; i++) {
            __m128i k = _mm_setzero_si128();
            if (i <= rounds) k = _mm_loadu_si128((const __m128i *)enc[rounds - i]);
            if (i != 0 && i < rounds) k = _mm_aesimc_si128(k);
            put(dec[i], k);
        }
    }
    v_forget();
}
