/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_CRYPTO_DERIVE_H
#define RS_CRYPTO_DERIVE_H

/* Keys from keys. A GCM session has a subkey: a key is never used with a counter IV directly, so that no
 * restart can repeat a nonce. */

#include "offload/base/bytes.h"

#define RS_SALT_LEN 16

/*
 * HKDF-SHA-256 (RFC 5869) of `key` (16 or 32 bytes) with the salt and the info
 * text "reseal gcm record v1", to as many bytes. 0, RESEAL_EKEYBAD, RESEAL_ENOMEM.
 */
RS_MUST_CHECK int rs_derive_subkey(const uint8_t *key, size_t len, const uint8_t salt[RS_SALT_LEN],
                                   uint8_t *out);

/* HKDF-SHA-256 (RFC 5869) for everything else; `info` says for what, and is another for each use.
 * RESEAL_ENOMEM. */
RS_MUST_CHECK int rs_hkdf(const uint8_t *key, size_t len, const uint8_t *salt, size_t salt_len,
                          const char *info, uint8_t *out, size_t out_len);

#endif
