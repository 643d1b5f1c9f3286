/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/crypto/vaes/xts-common.h"

static int check_side(const struct rs_side *s, size_t len)
{
    if (s->cipher == RS_PLAIN) return 0;
    if (s->cipher != RS_XTS) return RESEAL_ENOSUPPORT;
    if (len < RS_UNIT_MIN || s->unit < RS_UNIT_MIN || s->unit > RS_UNIT_MAX) return RESEAL_EUNIT;
    if (len <= s->unit) return 0;
    size_t last = len % s->unit;
    return s->unit % 16 == 0 && (last == 0 || last >= RS_UNIT_MIN) ? 0 : RESEAL_EUNIT;
}

int rs_xts_check(const struct rs_run *run)
{
    if (run->src.cipher == RS_PLAIN && run->dst.cipher == RS_PLAIN) return RESEAL_ENOSUPPORT;
    int rc = check_side(&run->src, run->len);
    return rc != 0 ? rc : check_side(&run->dst, run->len);
}

/* Undoes the source's encryption of a whole block and a partial one that stole from it. */
static void steal_decrypt(const struct rs_vaes_key *k, const __m128i t[2], uint8_t b[32], size_t part)
{
    __m128i x = _mm_xor_si128(_mm_loadu_si128((const __m128i *)b), t[1]);
    x = _mm_xor_si128(rs_aes_decrypt(x, k->dec, k->rounds), t[1]);
    uint8_t stolen[16] RS_ALIGNED(16);
    _mm_store_si128((__m128i *)stolen, x);
    for (size_t i = 0; i < part; i++) {
        uint8_t c = b[16 + i];
        b[16 + i] = stolen[i];
        stolen[i] = c;
    }
    x = _mm_xor_si128(_mm_load_si128((const __m128i *)stolen), t[0]);
    x = _mm_xor_si128(rs_aes_decrypt(x, k->dec, k->rounds), t[0]);
    _mm_storeu_si128((__m128i *)b, x);
    rs_wipe(stolen, sizeof(stolen));
}

static void steal_encrypt(const struct rs_vaes_key *k, const __m128i t[2], uint8_t b[32], size_t part)
{
    __m128i x = _mm_xor_si128(_mm_loadu_si128((const __m128i *)b), t[0]);
    x = _mm_xor_si128(rs_aes_encrypt(x, k->enc, k->rounds), t[0]);
    uint8_t stolen[16] RS_ALIGNED(16);
    _mm_store_si128((__m128i *)stolen, x);
    for (size_t i = 0; i < part; i++) {
        uint8_t p = b[16 + i];
        b[16 + i] = stolen[i];
        stolen[i] = p;
    }
    x = _mm_xor_si128(_mm_load_si128((const __m128i *)stolen), t[1]);
    x = _mm_xor_si128(rs_aes_encrypt(x, k->enc, k->rounds), t[1]);
    _mm_storeu_si128((__m128i *)b, x);
    rs_wipe(stolen, sizeof(stolen));
}

void rs_xts_steal(const struct rs_vaes_key *src, const struct rs_vaes_key *dst, const __m128i t1[2],
                  const __m128i t2[2], const uint8_t *in, uint8_t *out, size_t len)
{
    uint8_t b[32] RS_ALIGNED(16);
    memcpy(b, in, len);
    if (src != NULL) steal_decrypt(src, t1, b, len - 16);
    if (dst != NULL) steal_encrypt(dst, t2, b, len - 16);
    memcpy(out, b, len);
    rs_wipe(b, sizeof(b));
}

/* n blocks, n at most 4, in step. */
static inline __attribute__((always_inline)) void blocks_in_step(const struct rs_vaes_key *src,
                                                                 const struct rs_vaes_key *dst,
                                                                 const __m128i *t1, const __m128i *t2,
                                                                 const uint8_t *in, uint8_t *out, size_t n)
{
    __m128i s[4];
#define EACH _Pragma("GCC unroll 4") for (size_t i = 0; i < n; i++)
    EACH s[i] = _mm_loadu_si128((const __m128i *)(in + 16 * i));
    if (src != NULL) {
        EACH s[i] = _mm_xor_si128(s[i], _mm_xor_si128(t1[i], rs_aes_round_key(src->dec[0])));
        for (unsigned r = 1; r < src->rounds; r++)
            EACH s[i] = _mm_aesdec_si128(s[i], rs_aes_round_key(src->dec[r]));
        __m128i k = rs_aes_round_key(src->dec[src->rounds]);
        if (dst != NULL) k = _mm_xor_si128(k, rs_aes_round_key(dst->enc[0]));
        EACH s[i] = _mm_aesdeclast_si128(
            s[i], _mm_xor_si128(_mm_xor_si128(k, t1[i]), dst != NULL ? t2[i] : _mm_setzero_si128()));
    }
    if (dst != NULL) {
        if (src == NULL) EACH s[i] = _mm_xor_si128(s[i], _mm_xor_si128(t2[i], rs_aes_round_key(dst->enc[0])));
        for (unsigned r = 1; r < dst->rounds; r++)
            EACH s[i] = _mm_aesenc_si128(s[i], rs_aes_round_key(dst->enc[r]));
        EACH s[i] = _mm_aesenclast_si128(s[i], _mm_xor_si128(rs_aes_round_key(dst->enc[dst->rounds]), t2[i]));
    }
    EACH _mm_storeu_si128((__m128i *)(out + 16 * i), s[i]);
#undef EACH
}

void rs_xts_blocks(const struct rs_vaes_key *src, const struct rs_vaes_key *dst, const __m128i *t1,
                   const __m128i *t2, const uint8_t *in, uint8_t *out, size_t blocks)
{
    size_t i = 0;
    for (; blocks - i >= 4; i += 4) blocks_in_step(src, dst, t1 + i, t2 + i, in + 16 * i, out + 16 * i, 4);
    for (; i < blocks; i++) blocks_in_step(src, dst, t1 + i, t2 + i, in + 16 * i, out + 16 * i, 1);
}
