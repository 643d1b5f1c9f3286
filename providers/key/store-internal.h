/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_KEY_STORE_INTERNAL_H
#define RS_KEY_STORE_INTERNAL_H

/* Between store.c (files) and store-seal.c (the host key, sealing). */

#include "providers/key/store.h"
#include "reseal/reseal.h"

struct rs_store {
    int folder, lock;
    uint8_t *host_key; /* key memory, RS_HOST_KEY_LEN */
    const char *seal;
};

/* One line in `why`; returns status. */
__attribute__((format(printf, 4, 5))) int rs_store_fail(char *why, size_t why_len, int status,
                                                        const char *format, ...);

/* A whole object: replaced as store.h says; read into a block for free() with a NUL behind it. */
RS_MUST_CHECK int rs_store_write(const struct rs_store *s, const char *name, const void *bytes, size_t len);
RS_MUST_CHECK int rs_store_read(const struct rs_store *s, const char *name, uint8_t **out, size_t *len);

/* Finds or makes the host key. */
RS_MUST_CHECK int rs_store_take_host_key(struct rs_store *s, const char *folder,
                                         const struct rs_store_keeper *keeper, char *why, size_t why_len);
void rs_store_drop_host_key(struct rs_store *s);

#endif
