/* SPDX-License-Identifier: Apache-2.0 */

/* One XTS data unit a call, with 512-bit VAES. */

#include "providers/crypto/vaes/xts-vectors.h"

#define XTS_ENCRYPT rs_stream_xts_encrypt_avx512
#define XTS_DECRYPT rs_stream_xts_decrypt_avx512

#define v_everywhere_at(p) _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)(p)))
#define v_lowest           _mm512_castsi512_si128

/* The first `lanes` blocks of a vector. */
INLINE __mmask8 mask_of(size_t lanes)
{
    return (__mmask8)(0xffu >> (8 - 2 * lanes));
}

INLINE __m512i v_load_some(const uint8_t *p, size_t lanes)
{
    return _mm512_maskz_loadu_epi64(mask_of(lanes), p);
}

INLINE void v_store_some(uint8_t *p, __m512i x, size_t lanes)
{
    _mm512_mask_storeu_epi64(p, mask_of(lanes), x);
}

#include "providers/crypto/vaes/stream-xts-kernel.h"
