/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_KEY_SECRETS_H
#define RS_KEY_SECRETS_H

/*
 * A few named secrets that belong together: what a provider's configuration
 * holds back from its JSON text, what a task is given, what it yields. Bytes lie
 * in key memory and are wiped when they go.
 *
 * Threads: a set belongs to one.
 */

#include "offload/base/bytes.h"

#define RS_SECRETS_MAX     8u
#define RS_SECRET_NAME_MAX 24u         /* with NUL */
#define RS_SECRETS_ROOM    (64u << 10) /* bytes of a packed set */

struct rs_secret {
    char name[RS_SECRET_NAME_MAX];
    uint8_t *bytes; /* key memory; one NUL more than len, so that texts are C strings */
    size_t len;
};

struct rs_secrets {
    struct rs_secret at[RS_SECRETS_MAX];
    unsigned n;
};

/* Copies; replaces one of that name. RESEAL_ENOMEM, RESEAL_ELIMIT, RESEAL_EINVAL for a name too long or
 * empty. */
RS_MUST_CHECK int rs_secrets_put(struct rs_secrets *s, const char *name, const void *bytes, size_t len);

/* NULL when there is none of that name. */
const struct rs_secret *rs_secrets_find(const struct rs_secrets *s, const char *name);

/* As text; NULL when there is none, or when a NUL is in it. */
const char *rs_secrets_text(const struct rs_secrets *s, const char *name);

RS_MUST_CHECK int rs_secrets_copy(struct rs_secrets *to, const struct rs_secrets *from);

/* Wipes and empties. */
void rs_secrets_free(struct rs_secrets *s);

/* One block of key memory, for rs_keymem_free(); NULL: no memory. Unpacking: RESEAL_EFORMAT, RESEAL_ENOMEM.
 */
RS_MUST_CHECK uint8_t *rs_secrets_pack(const struct rs_secrets *s, size_t *len);
RS_MUST_CHECK int rs_secrets_unpack(const uint8_t *bytes, size_t len, struct rs_secrets *out);

#endif
