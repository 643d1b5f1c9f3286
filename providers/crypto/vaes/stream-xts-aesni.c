/* SPDX-License-Identifier: Apache-2.0 */

/* One XTS data unit a call, with AES-NI. */

#include "providers/crypto/vaes/xts-vectors.h"

#define XTS_ENCRYPT rs_stream_xts_encrypt_aesni
#define XTS_DECRYPT rs_stream_xts_decrypt_aesni

#define v_everywhere_at v_load
#define v_lowest(t)     (t)
/* A vector is a block, so there are no parts of one. */
INLINE __m128i v_load_some(const uint8_t *p, size_t lanes)
{
    (void)lanes;
    return v_load(p);
}

INLINE void v_store_some(uint8_t *p, __m128i x, size_t lanes)
{
    (void)lanes;
    v_store(p, x);
}

#include "providers/crypto/vaes/stream-xts-kernel.h"
