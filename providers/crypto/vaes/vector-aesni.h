/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_VAES_VECTOR_AESNI_H
#define RS_VAES_VECTOR_AESNI_H

/* One block in a vector: AES-NI and PCLMULQDQ. What the kernels of GCM are written in. */

#include "providers/crypto/vaes/part-block.h"

#define LANES 1

typedef __m128i V;

#define v_load(p)           _mm_load_si128((const __m128i *)(const void *)(p))
#define v_loadu(p)          _mm_loadu_si128((const __m128i *)(const void *)(p))
#define v_store(p, v)       _mm_store_si128((__m128i *)(void *)(p), v)
#define v_storeu(p, v)      _mm_storeu_si128((__m128i *)(void *)(p), v)
#define v_stream(p, v)      _mm_stream_si128((__m128i *)(void *)(p), v)
#define v_bcast(p)          _mm_loadu_si128((const __m128i *)(const void *)(p))
#define v_same(x)           (x)
#define v_zero()            _mm_setzero_si128()
#define v_lane0(x)          (x)
#define v_fold(x)           (x)
#define v_xor(a, b)         _mm_xor_si128(a, b)
#define v_xor3(a, b, c)     _mm_xor_si128(_mm_xor_si128(a, b), c)
#define v_and(a, b)         _mm_and_si128(a, b)
#define v_enc(s, k)         _mm_aesenc_si128(s, k)
#define v_enclast(s, k)     _mm_aesenclast_si128(s, k)
#define v_dec(s, k)         _mm_aesdec_si128(s, k)
#define v_declast(s, k)     _mm_aesdeclast_si128(s, k)
#define v_clmul(a, b, i)    _mm_clmulepi64_si128(a, b, i)
#define v_swap64(v)         _mm_shuffle_epi32(v, 0x4e)
#define v_up64(v)           _mm_slli_si128(v, 8)
#define v_add32(a, b)       _mm_add_epi32(a, b)
#define v_add64(a, b)       _mm_add_epi64(a, b)
#define v_reverse(v)        _mm_shuffle_epi8(v, _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15))
#define v_load_blocks(p, n) v_loadu(p)
#define v_count(n)          _mm_set_epi32(0, 0, 0, (int)(n))
/* n in the counter of every lane. */
#define v_count_same(n) _mm_set_epi32(0, 0, 0, (int)(n))
#define v_opaque(v)     __asm__("" : "+x"(v))

/* ---- parts of a vector, for the streaming kernels; n is at most 16 ---- */

static inline V v_load_part(const uint8_t *p, size_t n)
{
    return n >= 16 ? v_loadu(p) : x_load_part(p, n);
}

static inline void v_store_part(uint8_t *p, V v, size_t n)
{
    if (n >= 16)
        v_storeu(p, v);
    else
        x_store_part(p, v, n);
}

#define v_keep_part(v, n) _mm_and_si128(v, v_loadu(first_bytes + 32 - (n)))
#define v_last(v)         (v)
#define v_set_last(v, x)  (x)

#include "providers/crypto/vaes/wipe-vectors.h"

#endif
