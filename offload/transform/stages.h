/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_TRANSFORM_STAGES_H
#define RS_TRANSFORM_STAGES_H

/*
 * Stages: what happens to plaintext between the two sides, all of it in
 * private memory that the caller gives. Nothing here allocates.
 */

#include "offload/base/bytes.h"

#include <openssl/sha.h>

/* ---- keyed digest: HMAC-SHA-256 (RFC 2104) ------------------------------- */

/* The states after the two padded keys: as secret as the key. In key memory. */
struct rs_hmac_key {
    SHA256_CTX inner, outer;
};

struct rs_hmac {
    SHA256_CTX at;
};

void rs_hmac_key_init(struct rs_hmac_key *key, const uint8_t *raw, size_t raw_len);
void rs_hmac_begin(struct rs_hmac *h, const struct rs_hmac_key *key);
void rs_hmac_add(struct rs_hmac *h, const void *p, size_t len);
void rs_hmac_end(struct rs_hmac *h, const struct rs_hmac_key *key, uint8_t digest[32]); /* wipes h */

/* ---- zero map -------------------------------------------------------------- */

/* Sets bit first + i of `map` for each whole unit i of the `len` bytes at p that is all zero. */
void rs_zero_map(uint8_t *map, size_t first, const uint8_t *p, size_t len, size_t unit);

/* ---- compression ------------------------------------------------------------ */

/* Bytes of private memory that the calls below need for up to `len` bytes of plaintext; `stages` has one
 * compressor. */
size_t rs_packing_size(uint32_t stages, uint32_t level, size_t len);

/*
 * Compresses to at most `cap` bytes. Returns the length, or 0 when it does not
 * fit, which is no error. `work` is 64-aligned, rs_packing_size() for len.
 */
size_t rs_pack(uint32_t stages, uint32_t level, void *work, uint8_t *to, size_t cap, const uint8_t *from,
               size_t len);

/*
 * Decompresses all of `len` hostile bytes to exactly `raw_len`: 0, or
 * RESEAL_EDATA (malformed, longer, shorter, something left over); never writes
 * beyond raw_len bytes.
 */
RS_MUST_CHECK int rs_unpack(uint32_t stages, void *work, uint8_t *to, size_t raw_len, const uint8_t *from,
                            size_t len);

#endif
