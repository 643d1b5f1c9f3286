/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/key/host-key.h"

#include "offload/base/keymem.h"
#include "providers/key/events.h"
#include "providers/key/keyd.h"
#include "providers/key/store.h"

#include <openssl/rand.h>
#include <stdio.h>

#define OBJECT "hosts/own-key"

_Static_assert(RS_HOST_KEYS < RS_SECRETS_MAX, "a change puts one more before them");

static int load(struct rs_keyd *d, struct rs_secrets *out)
{
    *out = (struct rs_secrets){0};
    return d->store != NULL ? rs_store_get_secrets(d->store, OBJECT, out) : RESEAL_ENOSUPPORT;
}

bool rs_host_key_exists(struct rs_keyd *d)
{
    struct rs_secrets keys;
    int r = load(d, &keys);
    rs_secrets_free(&keys);
    return r == 0;
}

/* A new key before the older ones. */
static int add(const struct rs_secrets *older, struct rs_secrets *keys)
{
    RS_KEYMEM uint8_t *key = rs_keymem_alloc(RS_HOST_KEY_LEN);
    uint8_t number[8];
    char id[RS_HOST_KEY_ID];
    *keys = (struct rs_secrets){0};
    if (key == NULL) return RESEAL_ENOMEM;
    if (RAND_bytes(key, RS_HOST_KEY_LEN) != 1 || RAND_bytes(number, sizeof(number)) != 1) return RESEAL_EIO;
    (void)snprintf(id, sizeof(id), "%016llx", (unsigned long long)rs_load_be64(number));
    int r = rs_secrets_put(keys, id, key, RS_HOST_KEY_LEN);
    for (unsigned i = 0; i < older->n && r == 0; i++)
        r = rs_secrets_put(keys, older->at[i].name, older->at[i].bytes, older->at[i].len);
    return r;
}

static int renew(struct rs_keyd *d, const struct rs_who *who, const struct rs_secrets *older,
                 struct rs_secrets *keys)
{
    char object[40];
    int r = add(older, keys);
    if (r == 0) r = rs_store_put_secrets(d->store, OBJECT, keys);
    (void)snprintf(object, sizeof(object), "host-key:%s", keys->n != 0 ? keys->at[0].name : "");
    rs_audit(d, who, "host-key.make", object, r, NULL);
    if (r != 0) {
        rs_secrets_free(keys);
        return r;
    }
    rs_event(d, "", RS_EVENT_HOST_KEY, "the key of this host is new",
             json_pack("{ss}", "key", keys->at[0].name));
    return 0;
}

int rs_host_key(struct rs_keyd *d, const struct rs_who *who, struct rs_secrets *out)
{
    static const struct rs_secrets none;
    int r = load(d, out);
    if (r != RESEAL_ENOKEY) return r;
    r = renew(d, who, &none, out);
    if (r == 0) rs_event(d, "", RS_EVENT_HOST_ENABLED, "this host has a key and can seal core dumps", NULL);
    return r;
}

int rs_host_key_change(struct rs_keyd *d, const struct rs_who *who, char id[RS_HOST_KEY_ID])
{
    struct rs_secrets older, keys;
    int r = rs_host_key(d, who, &older);
    if (r == 0 && older.n >= RS_HOST_KEYS) r = RESEAL_ELIMIT;
    if (r == 0) r = renew(d, who, &older, &keys);
    rs_secrets_free(&older);
    if (r != 0) return r;
    (void)snprintf(id, RS_HOST_KEY_ID, "%s", keys.at[0].name);
    rs_secrets_free(&keys);
    return 0;
}
