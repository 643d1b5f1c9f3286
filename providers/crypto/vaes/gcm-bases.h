/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_VAES_GCM_BASES_H
#define RS_VAES_GCM_BASES_H

/* Tweak bases with AES-NI, for the kernels that have no wider way. */

#include "providers/crypto/vaes/xts-bases.h"
#include "providers/crypto/vaes/xts-common.h"

/* base * x^32 */
static inline __m128i rs_next_base(__m128i base)
{
    const __m128i power = _mm_set_epi64x(0, 1ll << 32), fold = _mm_set1_epi64x(0x87);
    __m128i lo = _mm_clmulepi64_si128(base, power, 0x00), hi = _mm_clmulepi64_si128(base, power, 0x01);
    return _mm_xor_si128(_mm_xor_si128(lo, _mm_slli_si128(hi, 8)), _mm_clmulepi64_si128(hi, fold, 0x01));
}

/* As rs_tweak_bases_avx512(). */
static inline void rs_tweak_bases_aesni(struct rs_tweak_walk *w, __m128i *bases, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (w->left == 0) {
            w->base = rs_aes_encrypt(rs_xts_tweak_number(w->side, w->unit++), w->key->tweak, w->key->rounds);
            w->left = w->per_unit;
        }
        _mm_store_si128(&bases[i], w->base);
        w->base = rs_next_base(w->base);
        w->left--;
    }
}

#endif
