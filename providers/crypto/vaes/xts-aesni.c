/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/crypto/vaes/xts-common.h"

static int run_one(const struct rs_run *run)
{
    int rc = rs_xts_check(run);
    if (rc != 0) return rc;
    struct rs_block_walk src, dst;
    rs_block_walk_begin(&src, &run->src);
    rs_block_walk_begin(&dst, &run->dst);
    size_t bulk = rs_xts_bulk(run->len);
    for (size_t at = 0; at < bulk; at += 16) {
        __m128i x = _mm_loadu_si128((const __m128i *)(run->in + at));
        if (src.key != NULL) {
            __m128i t = rs_block_walk_next(&src);
            x = _mm_xor_si128(rs_aes_decrypt(_mm_xor_si128(x, t), src.key->dec, src.key->rounds), t);
        }
        if (dst.key != NULL) {
            __m128i t = rs_block_walk_next(&dst);
            x = _mm_xor_si128(rs_aes_encrypt(_mm_xor_si128(x, t), dst.key->enc, dst.key->rounds), t);
        }
        _mm_storeu_si128((__m128i *)(run->out + at), x);
    }
    if (bulk != run->len) {
        __m128i t1[2] = {0}, t2[2] = {0};
        for (int i = 0; i < 2; i++) {
            t1[i] = rs_block_walk_next(&src);
            t2[i] = rs_block_walk_next(&dst);
        }
        rs_xts_steal(src.key, dst.key, t1, t2, run->in + bulk, run->out + bulk, run->len - bulk);
        rs_wipe(t1, sizeof(t1));
        rs_wipe(t2, sizeof(t2));
    }
    rs_wipe(&src, sizeof(src));
    rs_wipe(&dst, sizeof(dst));
    return 0;
}

size_t rs_xts_run_aesni(struct rs_run *runs, size_t n, void *scratch, unsigned flags)
{
    size_t failed = 0;
    (void)scratch;
    (void)flags;
    for (size_t i = 0; i < n; i++) {
        runs[i].status = run_one(&runs[i]);
        failed += runs[i].status != 0;
    }
    return failed;
}
