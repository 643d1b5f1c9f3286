/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_KEY_VM_HOME_H
#define RS_KEY_VM_HOME_H

/*
 * The locked texts of an encrypted VM's home (offload/vm/locator.h has the
 * grammar, locked.h what is locked):
 *
 *   encryption.keySafe   vmware:key/list/(pair/(LOCKER,HMAC-SHA-256,LOCKED)): the config key, a crypto
 *                        dictionary "type=key:cipher=XTS-AES-256:key=BASE64"
 *   encryption.data      lines of the .vmx, locked with the config key
 *   encryption.bundle    the same kind of list; what is locked is a dictionary of the VM's internal keys. Its
 *                        layout is not public; ours is "type=bundle:version=1:fileKey=BASE64", 32 bytes
 *                        that lock the files of the home (NVRAM, vTPM state)
 *
 * LOCKER is fqid/<VMWARE-NULL>/PROVIDER/KEY, the KEK being an AES-256 key, or phrase/ID/DICTIONARY. Any
 * one pair of a list opens it.
 *
 * Opening goes in two steps, as the KEK must be asked for in between: the
 * first, rs_home_lock(), reads foreign text and has no key; it gives the "lock", a JSON
 * object of texts: "mac", "data" (base64), and "provider" and "key", or "dictionary" of a pass phrase.
 * The second opens it. Both may run in tasks: rs_task_home_lock is the first, with args {"text": TEXT}.
 *
 * Keys lie with the caller, in key memory; owners wipe. `why` gets one line on
 * failure, without a secret. Threads: no state.
 */

#include "providers/key/locked.h"

#include <jansson.h>

#define RS_HOME_TEXT_MAX (64u << 10) /* bytes of a key safe or bundle */
#define RS_FILE_KEY_LEN  32u
#define RS_HOME_KEK_LEN  32u

struct rs_task_kind;

enum rs_home_locker { RS_HOME_BY_PROVIDER, RS_HOME_BY_PHRASE };

/*
 * The first pair of that kind in a text. *out is the caller's. RESEAL_EFORMAT; RESEAL_ENOKEY: there is no
 * such pair; RESEAL_ECIPHER: a MAC that is not known; RESEAL_ENOMEM.
 */
RS_MUST_CHECK int rs_home_lock(const char *text, enum rs_home_locker locker, json_t **out, char *why,
                               size_t why_len);

/* args {"text": TEXT} -> the lock, as the result; closed. */
extern const struct rs_task_kind rs_task_home_lock;

/* Room for the dictionary of a pass phrase, with NUL. */
#define RS_HOME_DICTIONARY 200u

/* A new way from a pass phrase to a key, and the key that it makes for a pair. RESEAL_EIO. */
RS_MUST_CHECK int rs_home_locker_of_phrase(const uint8_t *phrase, size_t len,
                                           char dictionary[RS_HOME_DICTIONARY], struct rs_locked_key *locker);

/* The key that a KEK makes for a pair. */
void rs_home_locker_of_kek(const uint8_t kek[RS_HOME_KEK_LEN], struct rs_locked_key *locker);

/*
 * Opens the file key of a bundle. RESEAL_EAUTH: locked with another key, or changed; RESEAL_EFORMAT: it
 * opens, and is no bundle of ours.
 */
RS_MUST_CHECK int rs_bundle_open(const json_t *lock, const uint8_t kek[RS_HOME_KEK_LEN],
                                 uint8_t file_key[RS_FILE_KEY_LEN], char *why, size_t why_len);

/* A bundle's text; the caller's to free(3). RESEAL_EIO, RESEAL_ENOMEM. */
RS_MUST_CHECK int rs_bundle_seal(const char *provider, const char *key, const uint8_t kek[RS_HOME_KEK_LEN],
                                 const uint8_t file_key[RS_FILE_KEY_LEN], char **text);

/* The config key of a key safe, and the MAC its lock names. Errors as rs_bundle_open(). */
RS_MUST_CHECK int rs_keysafe_open(const json_t *lock, const struct rs_locked_key *locker,
                                  struct rs_locked_key *config, enum rs_locked_mac *mac, char *why,
                                  size_t why_len);

/* A key safe's text; the caller's to free(3). RESEAL_EIO, RESEAL_ENOMEM. */
RS_MUST_CHECK int rs_keysafe_seal(const char *provider, const char *key, const uint8_t kek[RS_HOME_KEK_LEN],
                                  const struct rs_locked_key *config, char **text);

/* The same under a pass phrase: dictionary and locker are those of rs_home_locker_of_phrase(). */
RS_MUST_CHECK int rs_keysafe_seal_phrase(const char *dictionary, const struct rs_locked_key *locker,
                                         const struct rs_locked_key *config, char **text);

/* A new config key. RESEAL_EIO. */
RS_MUST_CHECK int rs_config_key_make(struct rs_locked_key *config);

#endif
