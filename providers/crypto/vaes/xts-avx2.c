/* SPDX-License-Identifier: Apache-2.0 */

/* XTS with 256-bit VAES. */

#include "providers/crypto/vaes/forget.h"
#include "providers/crypto/vaes/xts-common.h"

#define XTS_RUN rs_xts_run_avx2
#define LANES   2u

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

static inline __m256i v_numbers(uint64_t hi, uint64_t lo, uint64_t step)
{
    return _mm256_set_epi64x((long long)hi, (long long)(lo + step), (long long)hi, (long long)lo);
}

#include "providers/crypto/vaes/xts-kernel.h"

static void fly_part(enum kind kind, const struct rs_run *run, size_t at, size_t len, const struct pipe *p)
{
    (void)kind;
    rs_xts_blocks(run->src.key, run->dst.key, (const __m128i *)p->t[0], (const __m128i *)p->t[1],
                  run->in + at, run->out + at, len / 16);
}
