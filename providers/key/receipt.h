/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_KEY_RECEIPT_H
#define RS_KEY_RECEIPT_H

/*
 * Signed receipts: {"receipt": {...}, "key": Ed25519 public key, "signature": ...},
 * both in base64 without line ends; the signature is over the receipt as compact JSON with sorted names.
 * reseal-keyd makes them, anybody can check them.
 */

#include "offload/base/bytes.h"

#include <jansson.h>

#define RS_RECEIPT_KEY    32u
#define RS_RECEIPT_PUBLIC 32u

/* A new private key. RESEAL_EIO. */
RS_MUST_CHECK int rs_receipt_new_key(uint8_t out[RS_RECEIPT_KEY]);
RS_MUST_CHECK int rs_receipt_public(const uint8_t key[RS_RECEIPT_KEY], uint8_t out[RS_RECEIPT_PUBLIC]);

/* Takes `receipt`. NULL: no memory, or no such key. */
RS_MUST_CHECK json_t *rs_receipt_sign(const uint8_t key[RS_RECEIPT_KEY], json_t *receipt);

/* 0: signed by the key in it, which is in `public`; RESEAL_EFORMAT: no receipt; RESEAL_EAUTH: changed. */
RS_MUST_CHECK int rs_receipt_check(const json_t *sealed, uint8_t public[RS_RECEIPT_PUBLIC]);

/* SHA-256 of a text or key, in hexadecimal digits. */
void rs_receipt_digest(const void *bytes, size_t len, char out[65]);

#endif
