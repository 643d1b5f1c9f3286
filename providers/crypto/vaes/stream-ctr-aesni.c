/* SPDX-License-Identifier: Apache-2.0 */
/* Streaming CTR with AES-NI, a block at a time. */
#include "providers/crypto/vaes/forget.h"
#include "providers/crypto/vaes/stream-kernels.h"
#include "providers/crypto/vaes/xts-common.h"

static void next_key_stream(const struct rs_vaes_key *key, struct rs_ctr_stream *s)
{
    __m128i block = _mm_loadu_si128((const __m128i *)s->counter);
    _mm_storeu_si128((__m128i *)s->key_stream, rs_aes_encrypt(block, key->enc, key->rounds));
    for (int i = 15; i >= 0; i--)
        if (++s->counter[i] != 0) break;
}

void rs_stream_ctr_aesni(const struct rs_vaes_key *key, struct rs_ctr_stream *s, const uint8_t *in,
                         uint8_t *out, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (s->used == 0) next_key_stream(key, s);
        out[i] = in[i] ^ s->key_stream[s->used];
        s->used = (s->used + 1) % 16;
    }
    forget_stack();
    v_forget();
}
