/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_VAES_VECTOR_AVX512_H
#define RS_VAES_VECTOR_AVX512_H

/* Four blocks in a vector: VAES and VPCLMULQDQ on 512 bits. What the kernels of GCM are written in. */

#include "providers/crypto/vaes/part-block.h"

#define LANES 4

typedef __m512i V;

#define v_load(p)        _mm512_load_si512((const void *)(p))
#define v_loadu(p)       _mm512_loadu_si512((const void *)(p))
#define v_store(p, v)    _mm512_store_si512((void *)(p), v)
#define v_storeu(p, v)   _mm512_storeu_si512((void *)(p), v)
#define v_stream(p, v)   _mm512_stream_si512((void *)(p), v)
#define v_bcast(p)       _mm512_broadcast_i32x4(_mm_loadu_si128((const void *)(p)))
#define v_same(x)        _mm512_broadcast_i32x4(x)
#define v_zero()         _mm512_setzero_si512()
#define v_lane0(x)       _mm512_zextsi128_si512(x)
#define v_xor(a, b)      _mm512_xor_si512(a, b)
#define v_xor3(a, b, c)  _mm512_ternarylogic_epi64(a, b, c, 0x96)
#define v_and(a, b)      _mm512_and_si512(a, b)
#define v_enc(s, k)      _mm512_aesenc_epi128(s, k)
#define v_enclast(s, k)  _mm512_aesenclast_epi128(s, k)
#define v_dec(s, k)      _mm512_aesdec_epi128(s, k)
#define v_declast(s, k)  _mm512_aesdeclast_epi128(s, k)
#define v_clmul(a, b, i) _mm512_clmulepi64_epi128(a, b, i)
#define v_swap64(v)      _mm512_shuffle_epi32(v, (_MM_PERM_ENUM)0x4e)
#define v_up64(v)        _mm512_bslli_epi128(v, 8)
#define v_add32(a, b)    _mm512_add_epi32(a, b)
#define v_add64(a, b)    _mm512_add_epi64(a, b)
#define v_reverse(v)                                                                                         \
    _mm512_shuffle_epi8(                                                                                     \
        v, _mm512_broadcast_i32x4(_mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)))
/* The first n blocks (1 to LANES) at p, the other lanes zero. */
#define v_load_blocks(p, n)                                                                                  \
    ((n) >= LANES ? v_loadu(p)                                                                               \
                  : _mm512_maskz_loadu_epi64((__mmask8)((1u << (2 * (n))) - 1), (const void *)(p)))
/* n in the counter of lane 0, n + 1 in the next... */
#define v_count(n)                                                                                           \
    _mm512_add_epi32(_mm512_maskz_set1_epi32(0x1111, (int)(n)),                                              \
                     _mm512_set_epi32(0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0))
/* n in the counter of every lane. */
#define v_count_same(n) _mm512_maskz_set1_epi32(0x1111, (int)(n))
#define v_opaque(v)     __asm__("" : "+v"(v))

static inline __m128i v_fold(V v)
{
    __m256i a = _mm256_xor_si256(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64(v, 1));
    return _mm_xor_si128(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
}

/* ---- parts of a vector, for the streaming kernels; n is at most 16 * LANES ---- */

static inline __mmask64 v_first_bytes(size_t n)
{
    return n >= 64 ? ~0ull : (1ull << n) - 1;
}

#define v_load_part(p, n)     _mm512_maskz_loadu_epi8(v_first_bytes(n), (const void *)(p))
#define v_store_part(p, v, n) _mm512_mask_storeu_epi8((void *)(p), v_first_bytes(n), v)
#define v_keep_part(v, n)     _mm512_maskz_mov_epi8(v_first_bytes(n), v)
#define v_last(v)             _mm512_extracti32x4_epi32(v, 3)
#define v_set_last(v, x)      _mm512_inserti32x4(v, x, 3)

#include "providers/crypto/vaes/wipe-vectors.h"

#endif
