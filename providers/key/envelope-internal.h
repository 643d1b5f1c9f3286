/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_KEY_ENVELOPE_INTERNAL_H
#define RS_KEY_ENVELOPE_INTERNAL_H

/* What sealing and opening of envelopes share. */

#include "providers/key/envelope.h"

#include <openssl/evp.h>

#define RS_ENVELOPE_CIPHER_NAME "AES-256-GCM"
#define RS_ENVELOPE_IV_LEN      12u /* of ours; others may have another */
#define RS_ENVELOPE_IV_MAX      64u
#define RS_ENVELOPE_HASH_LEN    32u
#define RS_ENVELOPE_TAG_LEN     16u
#define RS_ENVELOPE_PIECE       ((size_t)1 << 20) /* bytes read, processed and written at a time */

/* Of the footer. */
#define RS_ENVELOPE_FOOTER_MAGIC "DataTransformAeadFooter"
#define RS_ENVELOPE_TAG_AT       32u
#define RS_ENVELOPE_TAG_SIZE_AT  4088u
#define RS_ENVELOPE_TAG_ROOM     4056u

/* Of the block inside: it begins with zeros. */
#define RS_ENVELOPE_INNER_MAGIC "DataTransformCryptoFooter"
#define RS_ENVELOPE_INNER_AT    3584u
#define RS_ENVELOPE_PADDING_AT  4088u
#define RS_ENVELOPE_VERSION_AT  4092u /* in either */

/* Writes the line and returns `status`. */
__attribute__((format(printf, 3, 4))) int rs_envelope_refuse(char why[RS_ENVELOPE_WHY], int status,
                                                             const char *format, ...);

/* SHA-256 of the cipher's name and the key. */
RS_MUST_CHECK int rs_envelope_key_hash(const uint8_t key[RS_ENVELOPE_KEY],
                                       uint8_t hash[RS_ENVELOPE_HASH_LEN]);

/* A GCM context that has taken key, IV and AAD; for EVP_CIPHER_CTX_free(). NULL: no memory. */
EVP_CIPHER_CTX *rs_envelope_gcm(const struct rs_envelope *e, const uint8_t key[RS_ENVELOPE_KEY],
                                const char *aad, bool seal);

#endif
