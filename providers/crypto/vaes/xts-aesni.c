/* SPDX-License-Identifier: Apache-2.0 */

/* XTS with AES-NI. */

#include "providers/crypto/vaes/forget.h"
#include "providers/crypto/vaes/xts-common.h"

#define XTS_RUN rs_xts_run_aesni
#define LANES   1u

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

static inline __m128i v_numbers(uint64_t hi, uint64_t lo, uint64_t step)
{
    (void)step;
    return _mm_set_epi64x((long long)hi, (long long)lo);
}

#include "providers/crypto/vaes/xts-kernel.h"

static void fly_part(enum kind kind, const struct rs_run *run, size_t at, size_t len, const struct pipe *p)
{
    (void)kind;
    rs_xts_blocks(run->src.key, run->dst.key, (const __m128i *)p->t[0], (const __m128i *)p->t[1],
                  run->in + at, run->out + at, len / 16);
}
