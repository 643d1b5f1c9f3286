/* SPDX-License-Identifier: Apache-2.0 */

/* XTS with 512-bit VAES. It has one port, so the vectors of eight states keep it busy for longer than they
 * wait. */

#include "providers/crypto/vaes/stream-kernels.h"
#include "providers/crypto/vaes/xts-vectors.h"

#define XTS_RUN      rs_xts_run_avx512
#define UNIT_ENCRYPT rs_stream_xts_encrypt_avx512
#define UNIT_DECRYPT rs_stream_xts_decrypt_avx512

static inline __m512i v_numbers(uint64_t hi, uint64_t lo, uint64_t step)
{
    return _mm512_set_epi64((long long)hi, (long long)(lo + 3 * step), (long long)hi,
                            (long long)(lo + 2 * step), (long long)hi, (long long)(lo + step), (long long)hi,
                            (long long)lo);
}

#include "providers/crypto/vaes/xts-kernel.h"

/* Which bytes of vector i there are in the first `len` of a flight. */
INLINE __mmask8 there(size_t len, unsigned i)
{
    size_t at = 64 * i;
    return len >= at + 64 ? 0xff : len <= at ? 0 : (__mmask8)((1u << ((len - at) / 8)) - 1);
}

#define PART_ROUNDS(op, keys, rounds)                                                                        \
    for (unsigned r = 1; r < (rounds); r++) {                                                                \
        k = v_everywhere((keys)[r]);                                                                         \
        UNROLL for (unsigned i = 0; i < n; i++) s[i] = op(s[i], k);                                          \
    }                                                                                                        \
    k = v_everywhere((keys)[rounds])

/* At most n vectors. */
INLINE void fly_vectors(enum kind kind, unsigned n, const struct rs_run *run, size_t offset, size_t len,
                        const vec *t, const vec *u)
{
    const struct rs_vaes_key *src = run->src.key, *dst = run->dst.key;
    vec s[VECTORS], k = v_everywhere(HAS_SRC(kind) ? src->dec[0] : dst->enc[0]);
    const uint8_t *in = run->in + offset;
    uint8_t *out = run->out + offset;
    UNROLL for (unsigned i = 0; i < n; i++) s[i] =
        v_xor3(_mm512_maskz_loadu_epi64(there(len, i), in + 64 * i), k, HAS_SRC(kind) ? t[i] : u[i]);
    if (HAS_SRC(kind)) {
        PART_ROUNDS(v_dec, src->dec, src->rounds);
        if (HAS_DST(kind)) k = v_xor(k, v_everywhere(dst->enc[0]));
        UNROLL for (unsigned i = 0; i < n; i++) s[i] =
            v_declast(s[i], HAS_DST(kind) ? v_xor3(k, t[i], u[i]) : v_xor(k, t[i]));
    }
    if (HAS_DST(kind)) {
        PART_ROUNDS(v_enc, dst->enc, dst->rounds);
        UNROLL for (unsigned i = 0; i < n; i++) s[i] = v_enclast(s[i], v_xor(k, u[i]));
    }
    UNROLL for (unsigned i = 0; i < n; i++) _mm512_mask_storeu_epi64(out + 64 * i, there(len, i), s[i]);
}

static void fly_part(enum kind kind, const struct rs_run *run, size_t at, size_t len, const struct pipe *p)
{
    bool few = len <= 128;
    if (kind == ENCRYPT && few) fly_vectors(ENCRYPT, 2, run, at, len, p->t[0], p->t[1]);
    if (kind == ENCRYPT && !few) fly_vectors(ENCRYPT, VECTORS, run, at, len, p->t[0], p->t[1]);
    if (kind == DECRYPT && few) fly_vectors(DECRYPT, 2, run, at, len, p->t[0], p->t[1]);
    if (kind == DECRYPT && !few) fly_vectors(DECRYPT, VECTORS, run, at, len, p->t[0], p->t[1]);
    if (kind == RESEAL && few) fly_vectors(RESEAL, 2, run, at, len, p->t[0], p->t[1]);
    if (kind == RESEAL && !few) fly_vectors(RESEAL, VECTORS, run, at, len, p->t[0], p->t[1]);
}
