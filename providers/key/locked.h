/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_KEY_LOCKED_H
#define RS_KEY_LOCKED_H

/*
 * Locked data of encrypted VMs: what a pair of a key safe holds, and
 * `encryption.data` of a .vmx file (offload/vm/locator.h has the grammar
 * around it):
 *
 *   IV 16 | AES-CBC(text | PKCS#7 padding) | HMAC(key, text)
 *
 * The AES key is the first 16, 24 or 32 bytes of the key; the HMAC is keyed
 * with all of it. Where the cipher is named XTS-AES-256 the key has 64 bytes,
 * and CBC it is all the same. A public format, so it is as it is; that the
 * text is authenticated and the IV is not means that its first block can be
 * changed only together with the MAC's refusal.
 *
 * Keys and texts lie in key memory; owners wipe. Threads: no state.
 */

#include "offload/base/bytes.h"

#define RS_LOCKED_KEY_MAX  64u
#define RS_LOCKED_TEXT_MAX (4u << 20) /* bytes */
#define RS_LOCKED_OVERHEAD 64u        /* IV, padding and MAC are no more */

enum rs_locked_mac { RS_LOCKED_HMAC_SHA1, RS_LOCKED_HMAC_SHA1_128, RS_LOCKED_HMAC_SHA256 };

/* By the name in a pair: "HMAC-SHA-1". RESEAL_ECIPHER. */
RS_MUST_CHECK int rs_locked_mac_by_name(const char *name, enum rs_locked_mac *mac);

/* A key with its cipher's name: "AES-128", "AES-192", "AES-256", "XTS-AES-256". */
struct rs_locked_key {
    char cipher[16];
    uint8_t key[RS_LOCKED_KEY_MAX];
    size_t len;
};

/* Bytes of keys of a cipher, or 0. */
size_t rs_locked_key_len(const char *cipher);

/* From a crypto dictionary "type=key:cipher=...:key=BASE64". RESEAL_EFORMAT, RESEAL_ECIPHER. */
RS_MUST_CHECK int rs_locked_key_parse(const char *dictionary, struct rs_locked_key *key);

/* To one; `room` 160 is enough. RESEAL_ESPACE. */
RS_MUST_CHECK int rs_locked_key_text(const struct rs_locked_key *key, char *dictionary, size_t room);

/*
 * From a pass phrase, by the dictionary of a phrase locator
 * ("pass2key=...:cipher=...:rounds=...:salt=..."). RESEAL_EFORMAT, RESEAL_ECIPHER for what is not known;
 * rounds from 1 to 10^7.
 */
RS_MUST_CHECK int rs_locked_key_of_phrase(const char *dictionary, const char *phrase, size_t phrase_len,
                                          struct rs_locked_key *key);

/* A new dictionary for a phrase: PBKDF2-HMAC-SHA-256, AES-256, 16 bytes of salt. RESEAL_EIO, RESEAL_ESPACE.
 */
RS_MUST_CHECK int rs_locked_phrase_dictionary(unsigned rounds, char *dictionary, size_t room);

/* `out` has room for len + RS_LOCKED_OVERHEAD bytes. RESEAL_EIO. */
RS_MUST_CHECK int rs_locked_seal(const struct rs_locked_key *key, enum rs_locked_mac mac, const uint8_t *text,
                                 size_t len, uint8_t *out, size_t *out_len);

/* `text` has room for len bytes; wiped and unused after a failure. RESEAL_EFORMAT: too short, no whole
 * blocks, too long; RESEAL_EAUTH: another key, or changed. */
RS_MUST_CHECK int rs_locked_open(const struct rs_locked_key *key, enum rs_locked_mac mac, const uint8_t *blob,
                                 size_t len, uint8_t *text, size_t *text_len);

/* Base64 of RFC 4648, with padding, nothing else in it. RESEAL_EFORMAT, RESEAL_ESPACE. */
RS_MUST_CHECK int rs_base64_decode(const char *text, uint8_t *out, size_t room, size_t *len);
/* NUL-ended; needs (len + 2) / 3 * 4 + 1 bytes. RESEAL_ESPACE. */
RS_MUST_CHECK int rs_base64_encode(const uint8_t *bytes, size_t len, char *out, size_t room);

#endif
