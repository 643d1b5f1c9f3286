/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/crypto/vaes/key.h"

#include <immintrin.h>

/* w ^ w<<32 ^ w<<64 ^ w<<96: the running XOR of the four words of a round key. */
static inline __m128i running_xor(__m128i w)
{
    w = _mm_xor_si128(w, _mm_slli_si128(w, 4));
    return _mm_xor_si128(w, _mm_slli_si128(w, 8));
}

/* The next round key from `w` and the word that the key schedule feeds in, at position `word` of the assist
 * result. */
#define NEXT(w, assist, word) _mm_xor_si128(running_xor(w), _mm_shuffle_epi32(assist, (word)*0x55))

/* AES-128: one key a step. */
#define STEP128(i, rcon)                                                                                     \
    do {                                                                                                     \
        w = NEXT(w, _mm_aeskeygenassist_si128(w, rcon), 3);                                                  \
        _mm_store_si128(out + (i), w);                                                                       \
    } while (0)

static void expand128(__m128i *out, const uint8_t *raw)
{
    __m128i w = _mm_loadu_si128((const __m128i *)raw);
    _mm_store_si128(out, w);
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
        v = NEXT(v, _mm_aeskeygenassist_si128(w, rcon), 1);                                                  \
        _mm_storeu_si128((__m128i *)(words + 6 * (i)), v);                                                   \
        w = _mm_xor_si128(_mm_xor_si128(w, _mm_slli_si128(w, 4)), _mm_shuffle_epi32(v, 0xff));               \
        if ((i) < 8) _mm_storel_epi64((__m128i *)(words + 6 * (i) + 4), w);                                  \
    } while (0)

static void expand192(__m128i *out, const uint8_t *raw)
{
    uint32_t *words = (uint32_t *)out;
    __m128i v = _mm_loadu_si128((const __m128i *)raw);
    __m128i w = _mm_loadl_epi64((const __m128i *)(raw + 16)); /* its upper half is of no account */
    _mm_store_si128(out, v);
    _mm_storel_epi64(out + 1, w);
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
        v = NEXT(v, _mm_aeskeygenassist_si128(w, rcon), 3);                                                  \
        _mm_store_si128(out + (i), v);                                                                       \
        if ((i) < 14) {                                                                                      \
            w = NEXT(w, _mm_aeskeygenassist_si128(v, 0), 2);                                                 \
            _mm_store_si128(out + (i) + 1, w);                                                               \
        }                                                                                                    \
    } while (0)

static void expand256(__m128i *out, const uint8_t *raw)
{
    __m128i v = _mm_loadu_si128((const __m128i *)raw);
    __m128i w = _mm_loadu_si128((const __m128i *)(raw + 16));
    _mm_store_si128(out, v);
    _mm_store_si128(out + 1, w);
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
    __m128i w[RS_AES_ROUND_KEYS] = {0};
    unsigned rounds = bits / 32 + 6;
    if (bits == 128)
        expand128(w, raw);
    else if (bits == 192)
        expand192(w, raw);
    else
        expand256(w, raw);
    memcpy(enc, w, sizeof(w));
    if (dec != NULL) {
        memset(dec, 0, sizeof(w));
        for (unsigned i = 0; i <= rounds; i++) {
            __m128i k = w[rounds - i];
            if (i != 0 && i != rounds) k = _mm_aesimc_si128(k);
            _mm_storeu_si128((__m128i *)dec[i], k);
        }
    }
    rs_wipe(w, sizeof(w));
}
