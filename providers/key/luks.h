/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_KEY_LUKS_H
#define RS_KEY_LUKS_H

/* What luks.c and luks_format.c share; both run in a child of the nursery. */

#include "providers/key/source.h"

#include <libcryptsetup.h>

/* The path by which libcryptsetup opens a memfd. */
struct rs_memfd_path {
    char text[32];
};
void rs_memfd_path(int fd, struct rs_memfd_path *out);

/* Silences libcryptsetup, keeps it off lock files; call it before crypt_init(). */
void rs_luks_quiet(void);

/*
 * What a loaded header says. 0; RESEAL_ECIPHER (named in out->cipher): not one
 * aes-xts-plain64 segment without integrity; RESEAL_EBUSY: a re-encryption is under
 * way; RESEAL_EFORMAT.
 */
RS_MUST_CHECK int rs_luks_info(struct crypt_device *cd, struct rs_msg_luks *out);

/* RESEAL_E... for libcryptsetup's negative errno; `otherwise` where nothing fits. */
int rs_luks_error(int r, int otherwise);

#endif
