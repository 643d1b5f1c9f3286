/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_KEY_NATIVE_H
#define RS_KEY_NATIVE_H

/*
 * The native key provider: no server. A provider has one key derivation key
 * (KDK); from it each key encryption key (KEK) gets a wrapping key of its own,
 * and the key id holds the wrapped KEK, so that a host that has the KDK opens
 * every VM of the provider, and one that has not opens none.
 *
 * Wrapping key: KBKDF in counter mode with HMAC-SHA-256 (SP 800-108), label
 * "reseal native-key v1", context = provider UUID | salt. Wrapped KEK: AES-KW
 * (RFC 3394). Since UUID and salt go into the wrapping key, a changed id does
 * not unwrap. Our own choices: those of other products are not published.
 *
 * KDKs and KEKs lie in key memory; their owners wipe them. Threads: no state.
 */

#include "offload/base/bytes.h"

#define RS_NATIVE_KDK_LEN   32u
#define RS_NATIVE_KEK_LEN   32u
#define RS_NATIVE_UUID_LEN  16u
#define RS_NATIVE_CHECK_LEN 8u
#define RS_NATIVE_ID_LEN    107u /* characters of a key id, without its NUL */
#define RS_NATIVE_ID_ROOM   (RS_NATIVE_ID_LEN + 1u)

struct rs_native_kdk {
    uint8_t uuid[RS_NATIVE_UUID_LEN]; /* of the provider; not secret */
    uint8_t key[RS_NATIVE_KDK_LEN];
};

/* A new provider: random UUID (version 4) and KDK. RESEAL_EIO when there is no randomness. */
RS_MUST_CHECK int rs_native_kdk_make(struct rs_native_kdk *kdk);

/* A value that tells whether a KDK is the one that was configured, and nothing else about it. */
RS_MUST_CHECK int rs_native_kdk_check(const struct rs_native_kdk *kdk, uint8_t check[RS_NATIVE_CHECK_LEN]);

/* A new KEK and its id: opaque text of URL-safe characters. RESEAL_EIO. */
RS_MUST_CHECK int rs_native_make(const struct rs_native_kdk *kdk, uint8_t kek[RS_NATIVE_KEK_LEN],
                                 char id[RS_NATIVE_ID_ROOM]);

/* The KEK of an id. RESEAL_EFORMAT: no id of a native provider; RESEAL_ENOKEY: of another provider;
 * RESEAL_EAUTH: it was changed, or the KDK is another. */
RS_MUST_CHECK int rs_native_open(const struct rs_native_kdk *kdk, const char *id,
                                 uint8_t kek[RS_NATIVE_KEK_LEN]);

/* The provider that an id belongs to. RESEAL_EFORMAT. */
RS_MUST_CHECK int rs_native_owner(const char *id, uint8_t uuid[RS_NATIVE_UUID_LEN]);

/* ---- backup (backup.c) ----------------------------------------------------------- */

#define RS_NATIVE_PASSWORD_MIN    12u         /* characters */
#define RS_NATIVE_PASSWORD_UNLIKE 5u          /* of them, unlike each other */
#define RS_NATIVE_BACKUP_MAX      (64u << 10) /* bytes of a backup that is read */

/*
 * A PKCS#12 file (RFC 7292) with the KDK as a secret key, in the form that
 * Java's keytool and `openssl pkcs12` read: PBES2 with PBKDF2-HMAC-SHA-256,
 * 200000 rounds, AES-256-CBC; MAC SHA-256. The friendly name is `name`, a
 * blank, and the UUID. `*der` is the caller's, to be freed with OPENSSL_free().
 * RESEAL_EPASS: the password is shorter than RS_NATIVE_PASSWORD_MIN, or a few characters again and again.
 */
RS_MUST_CHECK int rs_native_backup(const struct rs_native_kdk *kdk, const char *name, const char *password,
                                   uint8_t **der, size_t *len);

/* Reads one back. RESEAL_EPASS: wrong password; RESEAL_EFORMAT: no backup of ours. */
RS_MUST_CHECK int rs_native_restore(const uint8_t *der, size_t len, const char *password,
                                    struct rs_native_kdk *kdk);

#endif
