/* SPDX-License-Identifier: Apache-2.0 */

/*
 * One XTS data unit a call, of any length, written once for vectors of one,
 * two or four blocks. Included at the end of a source file that includes
 * xts-vectors.h and defines v_load_some() and v_store_some() (the first blocks
 * of a vector, and no byte more), v_everywhere_at() (unaligned), v_lowest()
 * (the first block) and the names XTS_ENCRYPT and XTS_DECRYPT.
 *
 * Work goes in flights of eight vectors, each of which leaves the tweaks of
 * the next; the last one has as many vectors as there are blocks for. Stealing
 * is two blocks one after the other: it begins before the last flight, beneath
 * which it hides. Nothing hides the encryption of the tweak, so nothing else
 * is done before it.
 */

#include "providers/crypto/vaes/stream-kernels.h"
#include "providers/crypto/vaes/xts-vectors.h"

#define HALF    (VECTORS / 2)
#define EACH(n) UNROLL for (unsigned i = 0; i < (n); i++)

/* ---- rounds -------------------------------------------------------------- */

INLINE vec one_round(bool decrypt, vec s, vec k)
{
    return decrypt ? v_dec(s, k) : v_enc(s, k);
}

INLINE vec last_round(bool decrypt, vec s, vec k)
{
    return decrypt ? v_declast(s, k) : v_enclast(s, k);
}

/*
 * n vectors: from `in`, whitened by the tweaks t, to `out`. If these are not
 * the last ones, t becomes the tweaks of the vectors eight further on, and
 * `last` is NULL; else *last is the last one's data, and becomes its result.
 */
INLINE void fly(bool decrypt, unsigned n, const struct rs_vaes_key *key, vec *t, const uint8_t *in,
                uint8_t *out, vec *last)
{
    const uint8_t(*keys)[16] = decrypt ? key->dec : key->enc;
    const unsigned whole = last == NULL ? n : n - 1;
    vec s[VECTORS], k = v_everywhere(keys[0]);
    EACH(whole) s[i] = v_xor3(v_load(in + sizeof(vec) * i), k, t[i]);
    if (last != NULL) s[n - 1] = v_xor3(*last, k, t[n - 1]);
    UNROLL for (unsigned r = 1; r < 10; r++)
    {
        k = v_everywhere(keys[r]);
        EACH(n) s[i] = one_round(decrypt, s[i], k);
    }
    if (key->rounds == 14) {
        UNROLL for (unsigned r = 10; r < 14; r++)
        {
            k = v_everywhere(keys[r]);
            EACH(n) s[i] = one_round(decrypt, s[i], k);
        }
        keys += 4;
    }
    k = v_everywhere(keys[10]);
    EACH(n) s[i] = last_round(decrypt, s[i], v_xor(k, t[i]));
    EACH(whole) v_store(out + sizeof(vec) * i, s[i]);
    if (last != NULL)
        *last = s[n - 1];
    else
        EACH(n) t[i] = onward(t[i]);
}

/* ---- stealing ------------------------------------------------------------ */

INLINE __m128i one_block(bool decrypt, const struct rs_vaes_key *key, __m128i x, __m128i t)
{
    x = _mm_xor_si128(x, t);
    x = decrypt ? rs_aes_decrypt(x, key->dec, key->rounds) : rs_aes_encrypt(x, key->enc, key->rounds);
    return _mm_xor_si128(x, t);
}

/*
 * The last whole block and the `part` bytes after it; t is the tweak of that
 * block by its place. The 16 bytes that end with the unit stand for the part:
 * they are read before and written beneath the whole block, and only the part
 * of them is used.
 */
INLINE void steal(bool decrypt, const struct rs_vaes_key *key, __m128i t, const uint8_t *in, uint8_t *out,
                  size_t part)
{
    static const uint8_t slide[48] = {
        0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80,
        0,    1,    2,    3,    4,    5,    6,    7,    8,    9,    10,   11,   12,   13,   14,   15,
        0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80,
    };
    const __m128i to_front = _mm_loadu_si128((const __m128i *)(const void *)(slide + 32 - part));
    const __m128i to_back = _mm_loadu_si128((const __m128i *)(const void *)(slide + part));
    __m128i next = rs_xts_next(t);
    __m128i end = _mm_loadu_si128((const __m128i *)(const void *)(in + part));
    __m128i x = _mm_loadu_si128((const __m128i *)(const void *)in);
    x = one_block(decrypt, key, x, decrypt ? next : t);
    __m128i z = _mm_blendv_epi8(_mm_shuffle_epi8(end, to_front), x, to_front);
    z = one_block(decrypt, key, z, decrypt ? t : next);
    _mm_storeu_si128((__m128i *)(void *)(out + part), _mm_shuffle_epi8(x, to_back));
    _mm_storeu_si128((__m128i *)(void *)out, z);
}

/* ---- tweaks -------------------------------------------------------------- */

/* The tweak of a unit's first block, in every lane. */
INLINE vec first_tweak(const struct rs_vaes_key *key, const uint8_t tweak[16])
{
    vec t = v_xor(v_everywhere_at(tweak), v_everywhere(key->tweak[0]));
    UNROLL for (unsigned r = 1; r < 10; r++) t = v_enc(t, v_everywhere(key->tweak[r]));
    if (key->rounds == 14) {
        UNROLL for (unsigned r = 10; r < 14; r++) t = v_enc(t, v_everywhere(key->tweak[r]));
        return v_enclast(t, v_everywhere(key->tweak[14]));
    }
    return v_enclast(t, v_everywhere(key->tweak[10]));
}

/* base * x^n, n up to 56. */
INLINE __m128i advance(__m128i base, unsigned n)
{
    __m128i power = _mm_set_epi64x(0x87, (long long)(1ull << n));
    __m128i lo = _mm_clmulepi64_si128(base, power, 0x00), hi = _mm_clmulepi64_si128(base, power, 0x01);
    lo = _mm_xor_si128(lo, _mm_clmulepi64_si128(hi, power, 0x11));
    return _mm_xor_si128(lo, _mm_slli_si128(hi, 8));
}

/* The tweaks of a unit's first flight, as far as `blocks` of it need them. */
INLINE void first_flight(vec t[VECTORS], vec base, size_t blocks)
{
    t[0] = base;
    EACH(VECTORS - 1) t[i + 1] = v_zero();
    if (blocks > 1) t[0] = derive(base, 0);
    if (blocks > LANES) t[1] = derive(base, 1);
    if (blocks > 2 * LANES) UNROLL for (unsigned i = 2; i < HALF; i++) t[i] = derive(base, i);
    if (blocks > HALF * LANES) UNROLL for (unsigned i = HALF; i < VECTORS; i++) t[i] = derive(base, i);
}

/* ---- a unit -------------------------------------------------------------- */

/* At most a flight. */
INLINE void fly_last(bool decrypt, const struct rs_vaes_key *key, vec t[VECTORS], const uint8_t *in,
                     uint8_t *out, size_t blocks)
{
    if (blocks == 0) return;
    const size_t before = (blocks - 1) / LANES, lanes = blocks - before * LANES;
    vec last = v_load_some(in + before * sizeof(vec), lanes);
    switch (before) {
#define LAST(i)                                                                                              \
    case (i)-1:                                                                                              \
        fly(decrypt, i, key, t, in, out, &last);                                                             \
        break
        LAST(1);
        LAST(2);
        LAST(3);
        LAST(4);
        LAST(5);
        LAST(6);
        LAST(7);
    default:
        fly(decrypt, VECTORS, key, t, in, out, &last);
        break;
    }
    v_store_some(out + before * sizeof(vec), last, lanes);
}

INLINE void unit(bool decrypt, const struct rs_vaes_key *key, const uint8_t tweak[16], const uint8_t *in,
                 uint8_t *out, size_t len)
{
    const size_t part = len % 16;
    size_t blocks = len / 16 - (part != 0);
    vec t[VECTORS];
    first_flight(t, first_tweak(key, tweak), blocks);
    while (blocks > (VECTORS + HALF - 1) * LANES) {
        fly(decrypt, VECTORS, key, t, in, out, NULL);
        in += VECTORS * sizeof(vec);
        out += VECTORS * sizeof(vec);
        blocks -= VECTORS * LANES;
    }
    /* So that the last flight has enough vectors for the latency of a round. */
    if (blocks > VECTORS * LANES) {
        fly(decrypt, HALF, key, t, in, out, NULL);
        EACH(HALF)
        {
            vec first = t[i];
            t[i] = t[HALF + i];
            t[HALF + i] = first;
        }
        in += HALF * sizeof(vec);
        out += HALF * sizeof(vec);
        blocks -= HALF * LANES;
    }
    if (part != 0)
        steal(decrypt, key, advance(v_lowest(t[0]), (unsigned)blocks), in + 16 * blocks, out + 16 * blocks,
              part);
    fly_last(decrypt, key, t, in, out, blocks);
}

/* ---- entry points -------------------------------------------------------- */

#if LANES == 4

/* Registers are enough for all of it. */
#define ENTRY(name, decrypt)                                                                                 \
    void name(const struct rs_vaes_key *key, const uint8_t tweak[16], const uint8_t *in, uint8_t *out,       \
              size_t len)                                                                                    \
    {                                                                                                        \
        unit(decrypt, key, tweak, in, out, len);                                                             \
        v_forget();                                                                                          \
    }

#else

/* Wipes the stack that a unit has left: the compiler keeps tweaks there that it has no registers for. */
static __attribute__((noinline)) void forget_unit(void)
{
    vec frame[3][VECTORS];
    EACH(VECTORS) frame[0][i] = frame[1][i] = frame[2][i] = v_zero();
    __asm__ volatile("" : : "r"(frame) : "memory");
}

/* The gap puts a unit's frame below what forget_unit() has above its own wiped one. */
#define ENTRY(name, decrypt)                                                                                 \
    static __attribute__((noinline)) void name##_unit(                                                       \
        const struct rs_vaes_key *key, const uint8_t tweak[16], const uint8_t *in, uint8_t *out, size_t len) \
    {                                                                                                        \
        unit(decrypt, key, tweak, in, out, len);                                                             \
    }                                                                                                        \
    static __attribute__((noinline)) void name##_below(                                                      \
        const struct rs_vaes_key *key, const uint8_t tweak[16], const uint8_t *in, uint8_t *out, size_t len) \
    {                                                                                                        \
        uint8_t gap[128];                                                                                    \
        __asm__ volatile("" : : "r"(gap) : "memory");                                                        \
        name##_unit(key, tweak, in, out, len);                                                               \
        __asm__ volatile("" : : "r"(gap) : "memory");                                                        \
    }                                                                                                        \
    void name(const struct rs_vaes_key *key, const uint8_t tweak[16], const uint8_t *in, uint8_t *out,       \
              size_t len)                                                                                    \
    {                                                                                                        \
        name##_below(key, tweak, in, out, len);                                                              \
        forget_unit();                                                                                       \
        v_forget();                                                                                          \
    }

#endif

#define ENTRY_OF(name, decrypt) ENTRY(name, decrypt)
ENTRY_OF(XTS_ENCRYPT, false)
ENTRY_OF(XTS_DECRYPT, true)
