/* SPDX-License-Identifier: Apache-2.0 */

/* One XTS data unit a call, with 512-bit VAES. */

#include "providers/crypto/vaes/xts-vectors.h"

#define XTS_ENCRYPT rs_stream_xts_encrypt_avx512
#define XTS_DECRYPT rs_stream_xts_decrypt_avx512

#define v_everywhere_at(p) _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)(p)))
#define v_lowest           _mm512_castsi512_si128

/*
 * One to four blocks, by as many bytes as there are: next to what the caller
 * has just written, a masked load or store waits as if it were a whole one.
 */
INLINE __m512i v_load_some(const uint8_t *p, size_t lanes)
{
    if (lanes == 4) return v_load(p);
    if (lanes == 1) return _mm512_zextsi128_si512(_mm_loadu_si128((const __m128i *)(const void *)p));
    __m512i two = _mm512_zextsi256_si512(_mm256_loadu_si256((const __m256i *)(const void *)p));
    if (lanes == 2) return two;
    return _mm512_inserti32x4(two, _mm_loadu_si128((const __m128i *)(const void *)(p + 32)), 2);
}

INLINE void v_store_some(uint8_t *p, __m512i x, size_t lanes)
{
    if (lanes == 4) {
        v_store(p, x);
    } else if (lanes == 1) {
        _mm_storeu_si128((__m128i *)(void *)p, _mm512_castsi512_si128(x));
    } else {
        _mm256_storeu_si256((__m256i *)(void *)p, _mm512_castsi512_si256(x));
        if (lanes == 3) _mm_storeu_si128((__m128i *)(void *)(p + 32), _mm512_extracti32x4_epi32(x, 2));
    }
}

#include "providers/crypto/vaes/stream-xts-kernel.h"
