/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/crypto/vaes/xts-bases.h"

#include "providers/crypto/vaes/xts-common.h"

#define FLIGHT 512u

/* x^(32 f) modulo x^128 + x^7 + x^2 + x + 1, low half first: multiplies a base on by f flights. */
static const uint64_t flight_powers[RS_TWEAK_BASES_ROOM][2] RS_ALIGNED(64) = {
    {0x0000000000000001, 0x0000000000000000}, /* 0 */
    {0x0000000100000000, 0x0000000000000000}, /* 1 */
    {0x0000000000000000, 0x0000000000000001}, /* 2 */
    {0x0000000000000000, 0x0000000100000000}, /* 3 */
    {0x0000000000000087, 0x0000000000000000}, /* 4 */
    {0x0000008700000000, 0x0000000000000000}, /* 5 */
    {0x0000000000000000, 0x0000000000000087}, /* 6 */
    {0x0000000000000000, 0x0000008700000000}, /* 7 */
    {0x0000000000004015, 0x0000000000000000}, /* 8 */
    {0x0000401500000000, 0x0000000000000000}, /* 9 */
    {0x0000000000000000, 0x0000000000004015}, /* 10 */
    {0x0000000000000000, 0x0000401500000000}, /* 11 */
    {0x000000000021caeb, 0x0000000000000000}, /* 12 */
    {0x0021caeb00000000, 0x0000000000000000}, /* 13 */
    {0x0000000000000000, 0x000000000021caeb}, /* 14 */
    {0x0000000000000000, 0x0021caeb00000000}, /* 15 */
    {0x0000000010000111, 0x0000000000000000}, /* 16 */
    {0x1000011100000000, 0x0000000000000000}, /* 17 */
    {0x0000000000000000, 0x0000000010000111}, /* 18 */
    {0x0000000000000000, 0x1000011100000000}, /* 19 */
    {0x0000000870008ff7, 0x0000000000000000}, /* 20 */
    {0x70008ff700000000, 0x0000000000000008}, /* 21 */
    {0x0000000000000000, 0x0000000870008ff7}, /* 22 */
    {0x0000000000000438, 0x70008ff700000000}, /* 23 */
    {0x0000040150445445, 0x0000000000000000}, /* 24 */
    {0x5044544500000000, 0x0000000000000401}, /* 25 */
    {0x0000000000000000, 0x0000040150445445}, /* 26 */
    {0x0000000000021c87, 0x5044544500000000}, /* 27 */
    {0x00021cae93f78f5b, 0x0000000000000000}, /* 28 */
    {0x93f78f5b00000000, 0x0000000000021cae}, /* 29 */
    {0x0000000000000000, 0x00021cae93f78f5b}, /* 30 */
    {0x000000000100004a, 0x93f78f5b00000000}, /* 31 */
    {0x0100000000010101, 0x0000000000000000}, /* 32 */
    {0x0001010100000000, 0x0000000001000000}, /* 33 */
    {0x0000000000000000, 0x0100000000010101}, /* 34 */
    {0x0000000087000000, 0x0001010100000000}, /* 35 */
};

void rs_tweak_walk_begin(struct rs_tweak_walk *w, const struct rs_side *side, size_t len)
{
    *w = (struct rs_tweak_walk){.side = side, .key = side->cipher == RS_PLAIN ? NULL : side->key};
    size_t unit = len <= side->unit ? len : side->unit;
    w->per_unit = (uint32_t)((unit + FLIGHT - 1) / FLIGHT);
}

static inline __m512i everywhere(__m128i x)
{
    return _mm512_broadcast_i32x4(x);
}

/* a * b in the field of the tweaks, in four lanes. */
static inline __m512i multiply(__m512i a, __m512i b)
{
    const __m512i fold = _mm512_set1_epi64(0x87);
    __m512i lo = _mm512_clmulepi64_epi128(a, b, 0x00), hi = _mm512_clmulepi64_epi128(a, b, 0x11);
    __m512i mid =
        _mm512_xor_si512(_mm512_clmulepi64_epi128(a, b, 0x01), _mm512_clmulepi64_epi128(a, b, 0x10));
    lo = _mm512_xor_si512(lo, _mm512_bslli_epi128(mid, 8));
    hi = _mm512_xor_si512(hi, _mm512_bsrli_epi128(mid, 8));
    __m512i top = _mm512_clmulepi64_epi128(hi, fold, 0x01);
    hi = _mm512_xor_si512(hi, _mm512_bsrli_epi128(top, 8));
    lo = _mm512_xor_si512(lo, _mm512_bslli_epi128(top, 8));
    return _mm512_xor_si512(lo, _mm512_clmulepi64_epi128(hi, fold, 0x00));
}

static inline __m128i ahead(__m128i base, size_t flights)
{
    __m128i power = _mm_load_si128((const __m128i *)flight_powers[flights]);
    return _mm512_castsi512_si128(multiply(_mm512_castsi128_si512(base), _mm512_castsi128_si512(power)));
}

/* base, base * x^32, ... for n flights of one unit. */
static inline void spread(__m128i *out, __m128i base, size_t n)
{
    if (n == 1) {
        _mm_store_si128(out, base);
        return;
    }
    for (size_t f = 0; f < n; f += 4) {
        _mm512_storeu_si512(out + f, multiply(everywhere(base), _mm512_load_si512(flight_powers[f])));
    }
}

/* Encrypts the tweaks of the next 4 * vectors data units. */
static inline __attribute__((always_inline)) void encrypt(struct rs_tweak_walk *w, __m128i *out,
                                                          unsigned vectors)
{
    __m512i x[8], k = everywhere(rs_aes_round_key(w->key->tweak[0]));
    uint64_t lo = w->side->tweak_lo + w->unit * w->side->step, step = w->side->step;
    __m512i four = _mm512_maskz_set1_epi64(0x55, (long long)(4 * step));
    __m512i number =
        _mm512_mask_set1_epi64(_mm512_set1_epi64((long long)w->side->tweak_hi), 0x55, (long long)lo);
    number = _mm512_add_epi64(number, _mm512_set_epi64(0, (long long)(3 * step), 0, (long long)(2 * step), 0,
                                                       (long long)step, 0, 0));
    _Pragma("GCC unroll 8") for (unsigned i = 0; i < vectors; i++)
    {
        x[i] = _mm512_xor_si512(number, k);
        number = _mm512_add_epi64(number, four);
    }
    for (unsigned r = 1; r < w->key->rounds; r++) {
        k = everywhere(rs_aes_round_key(w->key->tweak[r]));
        _Pragma("GCC unroll 8") for (unsigned i = 0; i < vectors; i++) x[i] = _mm512_aesenc_epi128(x[i], k);
    }
    k = everywhere(rs_aes_round_key(w->key->tweak[w->key->rounds]));
    _Pragma("GCC unroll 8") for (unsigned i = 0; i < vectors; i++)
    {
        _mm512_storeu_si512(out + 4 * (size_t)i, _mm512_aesenclast_epi128(x[i], k));
    }
}

/* The tweaks of the next n data units, n at most 32; writes whole vectors. */
static void fresh_tweaks(struct rs_tweak_walk *w, __m128i *out, size_t n)
{
    if (n <= 4)
        encrypt(w, out, 1);
    else if (n <= 8)
        encrypt(w, out, 2);
    else if (n <= 16)
        encrypt(w, out, 4);
    else
        encrypt(w, out, 8);
    w->unit += n;
}

void rs_tweak_bases_avx512(struct rs_tweak_walk *w, __m128i bases[RS_TWEAK_BASES_ROOM], size_t n)
{
    if (w->key == NULL) return;
    if (w->per_unit == 1) {
        fresh_tweaks(w, bases, n);
        return;
    }
    size_t at = RS_MIN(w->left, n);
    if (at != 0) {
        spread(bases, w->base, at);
        w->base = ahead(w->base, at);
        w->left -= (uint32_t)at;
    }
    if (at == n) return;

    __m128i fresh[RS_TWEAK_BASES];
    size_t units = (n - at + w->per_unit - 1) / w->per_unit;
    fresh_tweaks(w, fresh, units);
    for (size_t i = 0; i < units; i++) {
        size_t here = RS_MIN(w->per_unit, n - at);
        spread(bases + at, fresh[i], here);
        at += here;
        if (at == n && here != w->per_unit) {
            w->base = ahead(fresh[i], here);
            w->left = (uint32_t)(w->per_unit - here);
        }
    }
    rs_wipe(fresh, sizeof(fresh));
}
