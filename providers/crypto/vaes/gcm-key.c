/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/crypto/vaes/forget.h"
#include "providers/crypto/vaes/gcm.h"

#include <immintrin.h>

/*
 * GHASH works on blocks with the bytes reversed, and on powers of H that are
 * multiplied by x beforehand: then the product of a block and a power needs no
 * shift, only the reduction below (a multiply by x^-128, two halves).
 */
static inline __m128i reverse(__m128i v)
{
    return _mm_shuffle_epi8(v, _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
}

static __m128i multiply(__m128i a, __m128i b)
{
    const __m128i poly = _mm_set_epi64x((long long)RS_GHASH_POLY, 1);
    __m128i lo = _mm_clmulepi64_si128(a, b, 0x00);
    __m128i hi = _mm_clmulepi64_si128(a, b, 0x11);
    __m128i mid = _mm_xor_si128(_mm_clmulepi64_si128(a, b, 0x01), _mm_clmulepi64_si128(a, b, 0x10));
    __m128i t = _mm_xor_si128(_mm_shuffle_epi32(lo, 0x4e), _mm_clmulepi64_si128(lo, poly, 0x10));
    mid = _mm_xor_si128(mid, t);
    t = _mm_xor_si128(_mm_shuffle_epi32(mid, 0x4e), _mm_clmulepi64_si128(mid, poly, 0x10));
    return _mm_xor_si128(hi, t);
}

/* h * x, reduced, without a branch on the key. */
static __m128i times_x(__m128i h)
{
    __m128i top = _mm_shuffle_epi32(_mm_srai_epi32(h, 31), 0xff); /* all ones when bit 127 is set */
    __m128i carry = _mm_slli_si128(_mm_srli_epi64(h, 63), 8);     /* bit 63 into bit 64 */
    __m128i twice = _mm_or_si128(_mm_add_epi64(h, h), carry);
    return _mm_xor_si128(twice, _mm_and_si128(top, _mm_set_epi64x((long long)RS_GHASH_POLY, 1)));
}

static __m128i hash_key(const struct rs_vaes_key *key)
{
    __m128i h = _mm_load_si128((const __m128i *)key->enc[0]);
    for (uint32_t r = 1; r < key->rounds; r++)
        h = _mm_aesenc_si128(h, _mm_load_si128((const __m128i *)key->enc[r]));
    h = _mm_aesenclast_si128(h, _mm_load_si128((const __m128i *)key->enc[key->rounds]));
    return times_x(reverse(h));
}

/* Each time as many more as there are, by the highest of them: a product takes long, but they need not wait
 * for each other. */
void rs_ghash_powers(struct rs_vaes_key *key, unsigned n)
{
    _mm_store_si128((__m128i *)key->ghash[RS_GHASH_AT(1)], hash_key(key));
    for (unsigned have = 1; have < n; have *= 2) {
        __m128i *top = (__m128i *)key->ghash[RS_GHASH_AT(have)], highest = _mm_load_si128(top);
        for (unsigned i = RS_MIN(have, n - have); i > 0; i--)
            _mm_store_si128(top - i, multiply(_mm_load_si128(top + have - i), highest));
    }
    v_forget();
}

void rs_ghash_prepare(struct rs_vaes_key *key)
{
    rs_ghash_powers(key, RS_GHASH_POWERS);
    __m128i p = _mm_load_si128((const __m128i *)key->ghash[RS_GHASH_AT(1)]);
    for (unsigned i = 0; i < RS_GHASH_SQUARES; i++) {
        _mm_store_si128((__m128i *)key->ghash_squares[i], p);
        p = multiply(p, p);
    }
    v_forget();
}
