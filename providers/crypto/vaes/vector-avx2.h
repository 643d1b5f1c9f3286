/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_VAES_VECTOR_AVX2_H
#define RS_VAES_VECTOR_AVX2_H

/* Two blocks in a vector: VAES and VPCLMULQDQ on 256 bits. What the kernels of GCM are written in. */

#include "providers/crypto/vaes/part-block.h"

#define LANES 2

typedef __m256i V;

#define v_load(p)        _mm256_load_si256((const __m256i *)(const void *)(p))
#define v_loadu(p)       _mm256_loadu_si256((const __m256i *)(const void *)(p))
#define v_store(p, v)    _mm256_store_si256((__m256i *)(void *)(p), v)
#define v_storeu(p, v)   _mm256_storeu_si256((__m256i *)(void *)(p), v)
#define v_stream(p, v)   _mm256_stream_si256((__m256i *)(void *)(p), v)
#define v_bcast(p)       _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)(p)))
#define v_same(x)        _mm256_broadcastsi128_si256(x)
#define v_zero()         _mm256_setzero_si256()
#define v_lane0(x)       _mm256_zextsi128_si256(x)
#define v_xor(a, b)      _mm256_xor_si256(a, b)
#define v_xor3(a, b, c)  _mm256_xor_si256(_mm256_xor_si256(a, b), c)
#define v_and(a, b)      _mm256_and_si256(a, b)
#define v_enc(s, k)      _mm256_aesenc_epi128(s, k)
#define v_enclast(s, k)  _mm256_aesenclast_epi128(s, k)
#define v_dec(s, k)      _mm256_aesdec_epi128(s, k)
#define v_declast(s, k)  _mm256_aesdeclast_epi128(s, k)
#define v_clmul(a, b, i) _mm256_clmulepi64_epi128(a, b, i)
#define v_swap64(v)      _mm256_shuffle_epi32(v, 0x4e)
#define v_up64(v)        _mm256_bslli_epi128(v, 8)
#define v_add32(a, b)    _mm256_add_epi32(a, b)
#define v_add64(a, b)    _mm256_add_epi64(a, b)
#define v_reverse(v)                                                                                         \
    _mm256_shuffle_epi8(                                                                                     \
        v, _mm256_broadcastsi128_si256(_mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)))
/* The first n blocks (1 to LANES) at p, the other lanes zero. */
#define v_load_blocks(p, n)                                                                                  \
    ((n) >= LANES ? v_loadu(p) : _mm256_zextsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)(p))))
/* n in the counter of lane 0, n + 1 in the next. */
#define v_count(n) _mm256_set_epi32(0, 0, 0, (int)((n) + 1), 0, 0, 0, (int)(n))
/* n in the counter of every lane. */
#define v_count_same(n) _mm256_set_epi32(0, 0, 0, (int)(n), 0, 0, 0, (int)(n))
#define v_opaque(v)     __asm__("" : "+x"(v))

static inline __m128i v_fold(V v)
{
    return _mm_xor_si128(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
}

/* ---- parts of a vector, for the streaming kernels; n is at most 16 * LANES ---- */

static inline V v_load_part(const uint8_t *p, size_t n)
{
    __m128i lo = n >= 16 ? _mm_loadu_si128((const __m128i *)(const void *)p) : x_load_part(p, n);
    __m128i hi = n >= 32   ? _mm_loadu_si128((const __m128i *)(const void *)(p + 16))
                 : n >= 16 ? x_load_part(p + 16, n - 16)
                           : _mm_setzero_si128();
    return _mm256_set_m128i(hi, lo);
}

static inline void v_store_part(uint8_t *p, V v, size_t n)
{
    __m128i lo = _mm256_castsi256_si128(v), hi = _mm256_extracti128_si256(v, 1);
    if (n < 16) {
        x_store_part(p, lo, n);
        return;
    }
    _mm_storeu_si128((__m128i *)(void *)p, lo);
    if (n < 32)
        x_store_part(p + 16, hi, n - 16);
    else
        _mm_storeu_si128((__m128i *)(void *)(p + 16), hi);
}

#define v_keep_part(v, n) _mm256_and_si256(v, v_loadu(first_bytes + 32 - (n)))
#define v_last(v)         _mm256_extracti128_si256(v, 1)
#define v_set_last(v, x)  _mm256_inserti128_si256(v, x, 1)

#include "providers/crypto/vaes/wipe-vectors.h"

#endif
