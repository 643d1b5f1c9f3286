/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_VAES_KEY_H
#define RS_VAES_KEY_H

/* A prepared key of the vaes engines: one layout for AVX-512, AVX2 and AES-NI. */

#include "providers/crypto/engine.h"

#define RS_AES_ROUND_KEYS 15 /* AES-256; AES-128 uses the first 11, AES-192 13 */
#define RS_GHASH_POWERS   68 /* H^1 .. H^68 */
#define RS_GHASH_SQUARES  17 /* H^(2^0) .. H^(2^16): 2^16 blocks are a whole record */

struct rs_vaes_key {
    uint8_t enc[RS_AES_ROUND_KEYS][16];
    uint8_t dec[RS_AES_ROUND_KEYS][16];                /* equivalent inverse cipher, in order of use */
    uint8_t tweak[RS_AES_ROUND_KEYS][16];              /* XTS: encryption schedule of the second half */
    uint8_t ghash[RS_GHASH_POWERS][16] RS_ALIGNED(64); /* GCM: powers of H in the form the kernels want */
    uint8_t ghash_squares[RS_GHASH_SQUARES][16];
    uint32_t rounds; /* 10, 12 (streaming kernels only) or 14 */
} RS_ALIGNED(64);

/* FIPS 197 key expansion with AES-NI; bits is 128, 192 or 256; dec may be NULL; unused round keys are zero.
 * (expand.c) */
void rs_aes_expand(uint8_t enc[RS_AES_ROUND_KEYS][16], uint8_t dec[RS_AES_ROUND_KEYS][16], const uint8_t *raw,
                   unsigned bits);

/* Fills the first n powers (RS_GHASH_POWERS at most) of key->ghash from key->enc; rs_ghash_prepare() all, and
 * key->ghash_squares, which only runs need.
 * (gcm-key.c) */
void rs_ghash_powers(struct rs_vaes_key *key, unsigned n);
void rs_ghash_prepare(struct rs_vaes_key *key);

/*
 * The kernels, one set for each instruction set. xts_run does plain<->XTS and
 * XTS to XTS, gcm_run everything with a GCM side; semantics as rs_engine.run.
 */
size_t rs_xts_run_avx512(struct rs_run *runs, size_t n, void *scratch, unsigned flags);
size_t rs_xts_run_avx2(struct rs_run *runs, size_t n, void *scratch, unsigned flags);
size_t rs_xts_run_aesni(struct rs_run *runs, size_t n, void *scratch, unsigned flags);
size_t rs_gcm_run_avx512(struct rs_run *runs, size_t n, void *scratch, unsigned flags);
size_t rs_gcm_run_avx2(struct rs_run *runs, size_t n, void *scratch, unsigned flags);
size_t rs_gcm_run_aesni(struct rs_run *runs, size_t n, void *scratch, unsigned flags);

#endif
