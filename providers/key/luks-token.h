/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_KEY_LUKS_TOKEN_H
#define RS_KEY_LUKS_TOKEN_H

/*
 * What ties a LUKS header to a key of a key provider: the pass phrase of one
 * key slot is derived from the KEK, and in LUKS2 a token says which KEK that is:
 *
 *   {"type":"reseal","keyslots":["0"],"provider":NAME,"key":ID,"version":1}
 *
 * The phrase is base64(HKDF-SHA-256(KEK, salt = the header's UUID, 16 bytes, info = "reseal disk slot v1", 32
 * bytes)). Of a disk that its owner can open too, with a pass phrase of theirs, the info is "reseal disk slot
 * v1 recovery". What is written to such a disk counts as plain; a header is not authenticated, so it is the
 * phrase that opens which tells the two apart, and no mark that somebody could take away.
 */

#include "offload/base/bytes.h"

#include <libcryptsetup.h>

#define RS_LUKS_PROVIDER_MAX 64u  /* with NUL, as RS_PROVIDER_NAME_MAX */
#define RS_LUKS_KEY_ID_MAX   512u /* with NUL, as RS_KEY_ID_MAX */
#define RS_LUKS_PHRASE_LEN   44u
#define RS_LUKS_TOKEN_TYPE   "reseal"

struct rs_luks_token {
    int number; /* of the token in the header */
    int keyslot;
    char provider[RS_LUKS_PROVIDER_MAX];
    char key[RS_LUKS_KEY_ID_MAX];
};

/* The 16 bytes of a UUID's canonical text, either case; false for anything else. */
RS_MUST_CHECK bool rs_luks_uuid(const char *text, uint8_t out[16]);

/* A random one. RESEAL_EIO. */
RS_MUST_CHECK int rs_luks_uuid_new(char text[37]);

/* The pass phrase, NUL-ended; `phrase` lies in key memory. RESEAL_EFORMAT: no UUID; RESEAL_ENOMEM. */
RS_MUST_CHECK int rs_luks_phrase(const uint8_t kek[32], const char *uuid, bool recovery,
                                 char phrase[RS_LUKS_PHRASE_LEN + 1]);

/* The token's JSON text, the caller's to free(3); NULL: no memory, or a name that is no UTF-8. */
char *rs_luks_token_text(const struct rs_luks_token *t);

/* From foreign JSON; all but `number`. RESEAL_EFORMAT with one line in `why`. */
RS_MUST_CHECK int rs_luks_token_parse(const char *json, struct rs_luks_token *out, char *why, size_t why_len);

/* The token of a loaded LUKS2 header. RESEAL_ENOKEY: there is none; RESEAL_EFORMAT: damaged, or two. One line
 * in `why`. */
RS_MUST_CHECK int rs_luks_token_find(struct crypt_device *cd, struct rs_luks_token *out, char *why,
                                     size_t why_len);

#endif
