/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_KEY_LUKS_H
#define RS_KEY_LUKS_H

/* LUKS headers, as the sources of keys (luks.c, luks_format.c) and the tasks (luks-tasks.c) use them: all run
 * in a child of the nursery, on a private copy in a memfd. */

#include "providers/key/source.h"

#include <jansson.h>
#include <libcryptsetup.h>

/* The path by which libcryptsetup opens a memfd. */
struct rs_memfd_path {
    char text[32];
};
void rs_memfd_path(int fd, struct rs_memfd_path *out);

/* Silences libcryptsetup, keeps it off lock files; call it before crypt_init(). */
void rs_luks_quiet(void);

/*
 * What a loaded header says. *json, where it is asked for: all that LUKS2 metadata says, the caller's to
 * release also after a failure; NULL of LUKS1. 0; RESEAL_ECIPHER (named in out->cipher): not one
 * aes-xts-plain64 segment without integrity; RESEAL_EBUSY: a re-encryption is under
 * way; RESEAL_EFORMAT.
 */
RS_MUST_CHECK int rs_luks_info(struct crypt_device *cd, struct rs_msg_luks *out, json_t **json);

/* A private copy of a header, as large as the device is; what is not needed stays a hole. */
struct rs_luks_copy {
    int from; /* the client's; read, never written */
    int memfd;
    uint64_t size;
    struct crypt_device *cd;
    json_t *json; /* what a LUKS2 header says, whole; NULL: LUKS1 */
};

/* Copies the metadata and loads it; the status is that of rs_luks_info(). Always followed by
 * rs_luks_copy_free(). RESEAL_EINVAL: no file and no block device. */
RS_MUST_CHECK int rs_luks_copy_load(int from, struct rs_luks_copy *h, struct rs_msg_luks *info);

/* Copies the areas of the key slots that are in use. RESEAL_EIO, RESEAL_ENOMEM. */
RS_MUST_CHECK int rs_luks_copy_slots(struct rs_luks_copy *h);

void rs_luks_copy_free(struct rs_luks_copy *h);

/*
 * The volume key, by a slot (CRYPT_ANY_SLOT: any), into out->key; out->luks says what the header says, and
 * gets the slot. RESEAL_EPASS; RESEAL_EKEYBAD; RESEAL_EFORMAT.
 */
RS_MUST_CHECK int rs_luks_volume_key(struct crypt_device *cd, int slot, const void *pass, size_t pass_len,
                                     struct rs_source_yield *out);

/* Sets how the next key slot derives from its pass phrase: `pbkdf` and `ms` as in struct
 * reseal_luks_format. RESEAL_EINVAL. */
RS_MUST_CHECK int rs_luks_set_pbkdf(struct crypt_device *cd, uint32_t version, uint32_t pbkdf, uint32_t ms);

/* Fills in the defaults of a format; RESEAL_EINVAL. */
RS_MUST_CHECK int rs_luks_settle(struct rs_msg_luks_format *f);

/* Formats what `cd` was made on, with this volume key; no key slot yet. `uuid` NULL: a random one. */
RS_MUST_CHECK int rs_luks_format(struct crypt_device *cd, const struct rs_msg_luks_format *f,
                                 const char *uuid, const uint8_t *key, size_t key_len);

/* An empty device in a memfd, as large as offset and data; it has room for a header while that is made.
 * RESEAL_ENOMEM, RESEAL_EINVAL. */
RS_MUST_CHECK int rs_luks_device(const struct rs_msg_luks_format *f);

/* Cuts a memfd to the header alone; nobody changes it any more. RESEAL_EIO. */
RS_MUST_CHECK int rs_luks_seal(int fd, uint64_t header_size);

/* RESEAL_E... for libcryptsetup's negative errno; `otherwise` where nothing fits. */
int rs_luks_error(int r, int otherwise);

#endif
