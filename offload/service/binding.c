/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/service/binding.h"

#include "offload/base/keymem.h"

#include <stdlib.h>

/* Expands `src` and what keys has for the other side into fresh key memory. */
static int prepare(struct rs_transform *t, void **memory, const struct rs_transform_config *config,
                   const uint8_t *src, const struct rs_msg_session_keys *keys)
{
    *memory = rs_keymem_alloc(rs_transform_key_size(config));
    if (*memory == NULL) return RESEAL_ENOMEM;
    int e = rs_transform_init(t, config, *memory, config->src.cipher == RS_PLAIN ? NULL : src,
                              config->dst.cipher == RS_PLAIN ? NULL : keys->dst,
                              (config->stages & RESEAL_STAGE_DIGEST) != 0 ? keys->digest : NULL);
    if (e != 0) {
        rs_transform_wipe(t);
        rs_keymem_free(*memory);
        *memory = NULL;
    }
    return e;
}

int rs_binding_make(struct rs_binding **out, const struct rs_transform_config *config,
                    const struct rs_msg_session_keys *keys)
{
    struct rs_binding *b = calloc(1, sizeof(*b));
    if (b == NULL) return RESEAL_ENOMEM;
    int e = prepare(&b->transform, &b->memory, config, keys->src, keys);
    if (e == 0 && config->src.cipher == RS_GCM) {
        b->raw = rs_keymem_alloc(sizeof(*b->raw));
        b->derived = calloc(RS_DERIVED_MAX, sizeof(*b->derived));
        if (b->raw == NULL || b->derived == NULL)
            e = RESEAL_ENOMEM;
        else
            memcpy(b->raw, keys, sizeof(*keys));
    }
    if (e != 0) {
        rs_binding_free(b);
        return e;
    }
    memcpy(b->salt, keys->salt, sizeof(b->salt));
    b->record_limit = keys->record_limit;
    *out = b;
    return 0;
}

static void derived_drop(struct rs_derived *d)
{
    if (d->memory == NULL) return;
    rs_transform_wipe(&d->transform);
    rs_keymem_free(d->memory);
    *d = (struct rs_derived){0};
}

void rs_binding_free(struct rs_binding *b)
{
    if (b == NULL) return;
    if (b->derived != NULL)
        for (unsigned i = 0; i < RS_DERIVED_MAX; i++) derived_drop(&b->derived[i]);
    free(b->derived);
    if (b->memory != NULL) rs_transform_wipe(&b->transform);
    rs_keymem_free(b->memory);
    rs_keymem_free(b->raw);
    rs_wipe(b, sizeof(*b));
    free(b);
}

int rs_binding_derived(struct rs_binding *b, const uint8_t salt[RS_SALT_LEN], const struct rs_transform **out)
{
    struct rs_derived *oldest = b->derived;
    b->clock++;
    for (unsigned i = 0; i < RS_DERIVED_MAX; i++) {
        struct rs_derived *d = &b->derived[i];
        if (d->used != 0 && memcmp(d->salt, salt, RS_SALT_LEN) == 0) {
            d->used = b->clock;
            *out = &d->transform;
            return 0;
        }
        if (d->used < oldest->used) oldest = d;
    }
    uint8_t *subkey = rs_keymem_alloc(RS_RAW_KEY_MAX);
    if (subkey == NULL) return RESEAL_ENOMEM;
    derived_drop(oldest);
    int e = rs_derive_subkey(b->raw->src, b->raw->src_len, salt, subkey);
    if (e == 0) e = prepare(&oldest->transform, &oldest->memory, &b->transform.config, subkey, b->raw);
    rs_keymem_free(subkey);
    if (e != 0) return e;
    memcpy(oldest->salt, salt, RS_SALT_LEN);
    oldest->used = b->clock;
    *out = &oldest->transform;
    return 0;
}

int rs_binding_next_iv(struct rs_binding *b, uint64_t *counter, uint8_t iv[RS_IV_LEN])
{
    if (b->record_limit != 0 && b->counter >= b->record_limit) return RESEAL_EKEYUSED;
    if (b->counter == UINT64_MAX) return RESEAL_EKEYUSED;
    *counter = ++b->counter;
    memset(iv, 0, 4);
    rs_store_be64(iv + 4, *counter);
    return 0;
}
