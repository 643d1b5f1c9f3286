/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_VAES_XTS_VECTORS_H
#define RS_VAES_XTS_VECTORS_H

/*
 * The vectors that the XTS kernels are written in: LANES blocks each, as wide
 * as the instruction set that the file is compiled for, and the tweaks of a
 * flight of eight of them.
 */

#include "providers/crypto/vaes/forget.h"
#include "providers/crypto/vaes/xts-common.h"

#define VECTORS 8u /* in a flight */

#define INLINE static inline __attribute__((always_inline))

/* Whole loops, and early enough for their vectors to be registers. */
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

#if defined(__AVX512F__)

#define LANES 4u

typedef __m512i vec;

#define v_zero          _mm512_setzero_si512
#define v_load(p)       _mm512_loadu_si512((const void *)(p))
#define v_store(p, x)   _mm512_storeu_si512((void *)(p), x)
#define v_stream(p, x)  _mm512_stream_si512((__m512i *)(p), x)
#define v_xor           _mm512_xor_si512
#define v_xor3(a, b, c) _mm512_ternarylogic_epi64(a, b, c, 0x96)
#define v_add           _mm512_add_epi64
#define v_enc           _mm512_aesenc_epi128
#define v_enclast       _mm512_aesenclast_epi128
#define v_dec           _mm512_aesdec_epi128
#define v_declast       _mm512_aesdeclast_epi128
#define v_clmul         _mm512_clmulepi64_epi128
#define v_shift_up      _mm512_bslli_epi128
#define v_shift_down    _mm512_bsrli_epi128
#define v_fold()        _mm512_set1_epi64(0x87)
#define v_everywhere(p) _mm512_broadcast_i32x4(_mm_load_si128((const __m128i *)(const void *)(p)))
#define v_power(i)      _mm512_load_si512(powers[i])
#define v_low(x)        _mm512_maskz_set1_epi64(0x55, (long long)(x))

static const uint64_t powers[8][8] RS_ALIGNED(64) = {
#define POWERS(i)                                                                                            \
    {                                                                                                        \
        1ull << (4 * (i)), 0, 2ull << (4 * (i)), 0, 4ull << (4 * (i)), 0, 8ull << (4 * (i)), 0               \
    }
    POWERS(0), POWERS(1), POWERS(2), POWERS(3), POWERS(4), POWERS(5), POWERS(6), POWERS(7),
};

#elif defined(__AVX2__)

#define LANES 2u

typedef __m256i vec;

#define v_zero          _mm256_setzero_si256
#define v_load(p)       _mm256_loadu_si256((const __m256i *)(const void *)(p))
#define v_store(p, x)   _mm256_storeu_si256((__m256i *)(void *)(p), x)
#define v_stream(p, x)  _mm256_stream_si256((__m256i *)(void *)(p), x)
#define v_xor           _mm256_xor_si256
#define v_xor3(a, b, c) _mm256_xor_si256(_mm256_xor_si256(a, b), c)
#define v_add           _mm256_add_epi64
#define v_enc           _mm256_aesenc_epi128
#define v_enclast       _mm256_aesenclast_epi128
#define v_dec           _mm256_aesdec_epi128
#define v_declast       _mm256_aesdeclast_epi128
#define v_clmul         _mm256_clmulepi64_epi128
#define v_shift_up      _mm256_bslli_epi128
#define v_shift_down    _mm256_bsrli_epi128
#define v_fold()        _mm256_set1_epi64x(0x87)
#define v_everywhere(p) _mm256_broadcastsi128_si256(_mm_load_si128((const __m128i *)(const void *)(p)))
#define v_power(i)      _mm256_load_si256((const __m256i *)(const void *)powers[i])
#define v_low(x)        _mm256_set_epi64x(0, (long long)(x), 0, (long long)(x))

static const uint64_t powers[8][4] RS_ALIGNED(32) = {
    {0x1, 0, 0x2, 0},     {0x4, 0, 0x8, 0},     {0x10, 0, 0x20, 0},     {0x40, 0, 0x80, 0},
    {0x100, 0, 0x200, 0}, {0x400, 0, 0x800, 0}, {0x1000, 0, 0x2000, 0}, {0x4000, 0, 0x8000, 0},
};

#else

#define LANES 1u

typedef __m128i vec;

#define v_zero          _mm_setzero_si128
#define v_load(p)       _mm_loadu_si128((const __m128i *)(const void *)(p))
#define v_store(p, x)   _mm_storeu_si128((__m128i *)(void *)(p), x)
#define v_stream(p, x)  _mm_stream_si128((__m128i *)(void *)(p), x)
#define v_xor           _mm_xor_si128
#define v_xor3(a, b, c) _mm_xor_si128(_mm_xor_si128(a, b), c)
#define v_add           _mm_add_epi64
#define v_enc           _mm_aesenc_si128
#define v_enclast       _mm_aesenclast_si128
#define v_dec           _mm_aesdec_si128
#define v_declast       _mm_aesdeclast_si128
#define v_clmul         _mm_clmulepi64_si128
#define v_shift_up      _mm_slli_si128
#define v_shift_down    _mm_srli_si128
#define v_fold()        _mm_set1_epi64x(0x87)
#define v_everywhere(p) _mm_load_si128((const __m128i *)(const void *)(p))
#define v_power(i)      _mm_set_epi64x(0, 1 << (i))
#define v_low(x)        _mm_set_epi64x(0, (long long)(x))

#endif

/* t * x^(8 * LANES): one flight on. */
INLINE vec onward(vec t)
{
    return v_xor(v_shift_up(t, LANES), v_clmul(v_shift_down(t, 16 - LANES), v_fold(), 0x00));
}

/* base * x^(LANES * i + lane): the tweaks of vector i. */
INLINE vec derive(vec base, unsigned i)
{
    vec lo = v_clmul(base, v_power(i), 0x00), hi = v_clmul(base, v_power(i), 0x01);
    return v_xor3(lo, v_shift_up(hi, 8), v_clmul(hi, v_fold(), 0x01));
}

#endif
