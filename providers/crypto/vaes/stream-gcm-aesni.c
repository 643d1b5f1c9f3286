/* SPDX-License-Identifier: Apache-2.0 */
/* Streaming GCM with AES-NI and PCLMULQDQ, a block at a time. */
#include "providers/crypto/vaes/forget.h"
#include "providers/crypto/vaes/gcm.h"
#include "providers/crypto/vaes/stream-kernels.h"
#include "providers/crypto/vaes/xts-common.h"

static inline __m128i reverse(__m128i v)
{
    return _mm_shuffle_epi8(v, _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
}

static inline __m128i load(const void *p)
{
    return _mm_loadu_si128(p);
}

static inline void store(void *p, __m128i v)
{
    _mm_storeu_si128(p, v);
}

/* s->hash = (s->hash ^ block) * H */
static void hash_block(const struct rs_vaes_key *key, struct rs_gcm_stream *s, __m128i block)
{
    const __m128i poly = _mm_set_epi64x((long long)RS_GHASH_POLY, 1);
    __m128i a = _mm_xor_si128(load(s->hash), reverse(block)), b = load(key->ghash[RS_GHASH_AT(1)]);
    __m128i lo = _mm_clmulepi64_si128(a, b, 0x00), hi = _mm_clmulepi64_si128(a, b, 0x11);
    __m128i mid = _mm_xor_si128(_mm_clmulepi64_si128(a, b, 0x01), _mm_clmulepi64_si128(a, b, 0x10));
    __m128i t = _mm_xor_si128(_mm_shuffle_epi32(lo, 0x4e), _mm_clmulepi64_si128(lo, poly, 0x10));
    mid = _mm_xor_si128(mid, t);
    t = _mm_xor_si128(_mm_shuffle_epi32(mid, 0x4e), _mm_clmulepi64_si128(mid, poly, 0x10));
    store(s->hash, _mm_xor_si128(hi, t));
}

static void hash_begun(const struct rs_vaes_key *key, struct rs_gcm_stream *s)
{
    hash_block(key, s, load(s->begun));
    memset(s->begun, 0, sizeof(s->begun));
}

static void hash_lengths(const struct rs_vaes_key *key, struct rs_gcm_stream *s, uint64_t a, uint64_t b)
{
    uint8_t lengths[16];
    rs_store_be64(lengths, 8 * a);
    rs_store_be64(lengths + 8, 8 * b);
    hash_block(key, s, load(lengths));
}

/* Hashes bytes that follow `before` others of the same kind. */
static void hash_bytes(const struct rs_vaes_key *key, struct rs_gcm_stream *s, uint64_t before,
                       const uint8_t *in, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        s->begun[(before + i) % 16] = in[i];
        if ((before + i) % 16 == 15) hash_begun(key, s);
    }
}

static void count(struct rs_gcm_stream *s)
{
    store(s->counter, reverse(_mm_add_epi32(reverse(load(s->counter)), _mm_set_epi32(0, 0, 0, 1))));
}

static void start(const struct rs_vaes_key *key, struct rs_gcm_stream *s, const uint8_t *iv, size_t iv_len)
{
    memset(s, 0, sizeof(*s));
    if (iv_len == 12) {
        memcpy(s->counter, iv, iv_len);
        s->counter[15] = 1;
    } else {
        hash_bytes(key, s, 0, iv, iv_len);
        if (iv_len % 16 != 0) hash_begun(key, s);
        hash_lengths(key, s, 0, iv_len);
        store(s->counter, reverse(load(s->hash)));
        memset(s->hash, 0, sizeof(s->hash));
    }
    memcpy(s->first, s->counter, sizeof(s->first));
    count(s);
}

static void crypt(const struct rs_vaes_key *key, struct rs_gcm_stream *s, const uint8_t *in, uint8_t *out,
                  size_t len, bool decrypt)
{
    if (len > 0 && s->len == 0 && s->aad_len % 16 != 0) hash_begun(key, s);
    for (size_t i = 0; i < len; i++, s->len++) {
        unsigned at = s->len % 16;
        if (at == 0) {
            store(s->key_stream, rs_aes_encrypt(load(s->counter), key->enc, key->rounds));
            count(s);
        }
        uint8_t from = in[i], to = from ^ s->key_stream[at];
        out[i] = to;
        s->begun[at] = decrypt ? from : to;
        if (at == 15) hash_begun(key, s);
    }
}

static void finish(const struct rs_vaes_key *key, struct rs_gcm_stream *s, uint8_t tag[16])
{
    if ((s->len > 0 ? s->len : s->aad_len) % 16 != 0) hash_begun(key, s);
    hash_lengths(key, s, s->aad_len, s->len);
    __m128i first = load(s->first);
    if (!s->tag_ready) first = rs_aes_encrypt(first, key->enc, key->rounds);
    store(tag, _mm_xor_si128(first, reverse(load(s->hash))));
}

static void forget(void)
{
    forget_stack();
    v_forget();
}

void rs_stream_gcm_start_aesni(const struct rs_vaes_key *key, struct rs_gcm_stream *s, const uint8_t *iv,
                               size_t iv_len)
{
    start(key, s, iv, iv_len);
    forget();
}

void rs_stream_gcm_aad_aesni(const struct rs_vaes_key *key, struct rs_gcm_stream *s, const uint8_t *aad,
                             size_t len)
{
    hash_bytes(key, s, s->aad_len, aad, len);
    s->aad_len += len;
    forget();
}

void rs_stream_gcm_encrypt_aesni(const struct rs_vaes_key *key, struct rs_gcm_stream *s, const uint8_t *in,
                                 uint8_t *out, size_t len)
{
    crypt(key, s, in, out, len, false);
    forget();
}

void rs_stream_gcm_decrypt_aesni(const struct rs_vaes_key *key, struct rs_gcm_stream *s, const uint8_t *in,
                                 uint8_t *out, size_t len)
{
    crypt(key, s, in, out, len, true);
    forget();
}

void rs_stream_gcm_tag_aesni(const struct rs_vaes_key *key, struct rs_gcm_stream *s, uint8_t tag[16])
{
    finish(key, s, tag);
    forget();
}
