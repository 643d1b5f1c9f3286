/* SPDX-License-Identifier: Apache-2.0 */

/* XTS with 256-bit VAES. */

#include "providers/crypto/vaes/stream-kernels.h"
#include "providers/crypto/vaes/xts-vectors.h"

#define XTS_RUN      rs_xts_run_avx2
#define UNIT_ENCRYPT rs_stream_xts_encrypt_avx2
#define UNIT_DECRYPT rs_stream_xts_decrypt_avx2

static inline __m256i v_numbers(uint64_t hi, uint64_t lo, uint64_t step)
{
    return _mm256_set_epi64x((long long)hi, (long long)(lo + step), (long long)hi, (long long)lo);
}

#include "providers/crypto/vaes/xts-kernel.h"

static void fly_part(enum kind kind, const struct rs_run *run, size_t at, size_t len, const struct pipe *p)
{
    (void)kind;
    rs_xts_blocks(run->src.key, run->dst.key, (const __m128i *)p->t[0], (const __m128i *)p->t[1],
                  run->in + at, run->out + at, len / 16);
}
