/* SPDX-License-Identifier: Apache-2.0 */

/* One XTS data unit a call, with 256-bit VAES. */

#include "providers/crypto/vaes/xts-vectors.h"

#define XTS_ENCRYPT rs_stream_xts_encrypt_avx2
#define XTS_DECRYPT rs_stream_xts_decrypt_avx2

#define v_everywhere_at(p) _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)(p)))
#define v_lowest           _mm256_castsi256_si128

/* One block or two. */
INLINE __m256i v_load_some(const uint8_t *p, size_t lanes)
{
    if (lanes == 2) return v_load(p);
    return _mm256_zextsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)p));
}

INLINE void v_store_some(uint8_t *p, __m256i x, size_t lanes)
{
    if (lanes == 2)
        v_store(p, x);
    else
        _mm_storeu_si128((__m128i *)(void *)p, _mm256_castsi256_si128(x));
}

#include "providers/crypto/vaes/stream-xts-kernel.h"
