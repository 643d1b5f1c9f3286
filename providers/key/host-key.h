/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_KEY_HOST_KEY_H
#define RS_KEY_HOST_KEY_H

/*
 * The key of this host, for what belongs to no VM: its core dumps. 32 random
 * bytes, sealed in the store, random or from a key provider's key, made when the host is prepared for
 * encryption or when the key is first needed. Changing it makes another the current one; the older ones stay,
 * since files were sealed under them.
 */

#include "providers/key/kek.h"

#define RS_HOST_KEY_LEN 32u
#define RS_HOST_KEYS    7u                 /* the current one and older ones */
#define RS_HOST_KEY_ID  RS_SECRET_NAME_MAX /* room; 16 hexadecimal digits */

/* True when this host has a key. */
bool rs_host_key_exists(struct rs_keyd *d);

/*
 * The keys of this host, each a secret under its id, the current one first; made when there is none, which
 * is audited and raises RS_EVENT_HOST_KEY and RS_EVENT_HOST_ENABLED. *out is the caller's to free.
 * RESEAL_ENOSUPPORT: without a state folder; RESEAL_EAUTH: the store is of another host; RESEAL_EIO,
 * RESEAL_ENOMEM.
 */
RS_MUST_CHECK int rs_host_key(struct rs_keyd *d, const struct rs_who *who, struct rs_secrets *out);

/* Makes another the current key, with the first event again. RESEAL_ELIMIT: RS_HOST_KEYS are there; and as
 * above. */
RS_MUST_CHECK int rs_host_key_change(struct rs_keyd *d, const struct rs_who *who, char id[RS_HOST_KEY_ID]);

/*
 * The same with the key that belongs to a provider's key: HKDF-SHA-256(KEK, salt, "reseal host key v1"),
 * where the salt is SHA-256(provider, NUL, key id). The salt's first eight bytes are its id, so that any host
 * that can have that key opens what was sealed under it. It is kept like any other: no dump has to wait for a
 * key server. One that is there already becomes the current one.
 */
RS_MUST_CHECK int rs_host_key_from(struct rs_keyd *d, const struct rs_who *who, const struct rs_kek *kek,
                                   char id[RS_HOST_KEY_ID]);

#endif
