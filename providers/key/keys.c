/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/key/keys.h"

#include "offload/base/keymem.h"

#include <stdlib.h>

#include <openssl/rand.h>

static struct rs_key **bucket_of(struct rs_keys *keys, reseal_key id)
{
    return &keys->buckets[id.id[0] % RS_KEY_BUCKETS];
}

int rs_keys_init(struct rs_keys *keys)
{
    *keys = (struct rs_keys){0};
    while (keys->instance == 0)
        if (RAND_bytes((unsigned char *)&keys->instance, sizeof(keys->instance)) != 1) return RESEAL_ENOMEM;
    return 0;
}

static int draw_id(const struct rs_keys *keys, reseal_key *id)
{
    if (RAND_bytes((unsigned char *)id, sizeof(*id)) != 1) return RESEAL_ENOMEM;
    id->id[1] = (id->id[1] & ~UINT64_C(0xffffffff)) | keys->instance;
    return 0;
}

int rs_keys_add(struct rs_keys *keys, const struct rs_key *form, const uint8_t *raw, struct rs_key **out)
{
    if (!rs_raw_key_ok(form->cipher, raw, form->len)) return RESEAL_EKEYBAD;
    struct rs_key *key = malloc(sizeof(*key));
    if (key == NULL) return RESEAL_ENOMEM;
    *key = *form;
    key->bits = form->len * 8 / (form->cipher == RESEAL_XTS ? 2 : 1);
    key->raw = rs_keymem_alloc(form->len);
    if (key->raw == NULL || draw_id(keys, &key->id) != 0) {
        rs_keymem_free(key->raw);
        free(key);
        return RESEAL_ENOMEM;
    }
    memcpy(key->raw, raw, form->len);
    struct rs_key **bucket = bucket_of(keys, key->id);
    key->next = *bucket;
    *bucket = key;
    keys->count++;
    *out = key;
    return 0;
}

int rs_keys_find(const struct rs_keys *keys, reseal_key id, struct rs_key **out)
{
    *out = NULL;
    if (id.id[0] == 0 && id.id[1] == 0) return RESEAL_ENOKEY;
    for (struct rs_key *k = keys->buckets[id.id[0] % RS_KEY_BUCKETS]; k != NULL; k = k->next) {
        if (!rs_equal_ct(&k->id, &id, sizeof(id))) continue;
        *out = k;
        return 0;
    }
    return (uint32_t)id.id[1] == keys->instance ? RESEAL_ENOKEY : RESEAL_EKEYGONE;
}

void rs_keys_drop(struct rs_keys *keys, struct rs_key *key)
{
    struct rs_key **at = bucket_of(keys, key->id);
    while (*at != key) at = &(*at)->next;
    *at = key->next;
    keys->count--;
    rs_keymem_free(key->raw);
    free(key);
}

struct rs_key *rs_keys_of(const struct rs_keys *keys, uint32_t client)
{
    for (unsigned b = 0; b < RS_KEY_BUCKETS; b++)
        for (struct rs_key *k = keys->buckets[b]; k != NULL; k = k->next)
            if (k->client == client) return k;
    return NULL;
}

void rs_keys_clear(struct rs_keys *keys)
{
    for (unsigned b = 0; b < RS_KEY_BUCKETS; b++)
        while (keys->buckets[b] != NULL) rs_keys_drop(keys, keys->buckets[b]);
}
