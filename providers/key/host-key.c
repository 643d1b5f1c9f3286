/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/key/host-key.h"

#include "offload/base/keymem.h"
#include "providers/crypto/derive.h"
#include "providers/key/events.h"
#include "providers/key/keyd.h"
#include "providers/key/store.h"

#include <openssl/evp.h>
#include <openssl/rand.h>
#include <openssl/sha.h>
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

/* A key before the older ones; one that is among them is taken out there. */
static int put_first(const struct rs_secrets *older, const char *id, const uint8_t *key,
                     struct rs_secrets *keys)
{
    *keys = (struct rs_secrets){0};
    int r = rs_secrets_put(keys, id, key, RS_HOST_KEY_LEN);
    for (unsigned i = 0; i < older->n && r == 0; i++) {
        if (strcmp(older->at[i].name, id) == 0) continue;
        r = rs_secrets_put(keys, older->at[i].name, older->at[i].bytes, older->at[i].len);
    }
    return r;
}

/* `from` is told in audit and event: the provider's key that it came from, or NULL. */
static int renew(struct rs_keyd *d, const struct rs_who *who, const struct rs_secrets *older, const char *id,
                 const uint8_t *key, const struct rs_kek *from, struct rs_secrets *keys)
{
    char object[40];
    json_t *about = from != NULL ? json_pack("{ss ss}", "provider", from->provider, "key", from->key) : NULL;
    int r = put_first(older, id, key, keys);
    if (r == 0) r = rs_store_put_secrets(d->store, OBJECT, keys);
    (void)snprintf(object, sizeof(object), "host-key:%s", id);
    rs_audit(d, who, "host-key.make", object, r, about);
    if (r != 0) {
        rs_secrets_free(keys);
        return r;
    }
    rs_event(d, "", RS_EVENT_HOST_KEY, "the key of this host is new",
             from != NULL ? json_pack("{ss ss}", "key", id, "provider", from->provider)
                          : json_pack("{ss}", "key", id));
    return 0;
}

static int renew_random(struct rs_keyd *d, const struct rs_who *who, const struct rs_secrets *older,
                        struct rs_secrets *keys)
{
    RS_KEYMEM uint8_t *key = rs_keymem_alloc(RS_HOST_KEY_LEN);
    uint8_t number[8];
    char id[RS_HOST_KEY_ID];
    if (key == NULL) return RESEAL_ENOMEM;
    if (RAND_bytes(key, RS_HOST_KEY_LEN) != 1 || RAND_bytes(number, sizeof(number)) != 1) return RESEAL_EIO;
    (void)snprintf(id, sizeof(id), "%016llx", (unsigned long long)rs_load_be64(number));
    return renew(d, who, older, id, key, NULL, keys);
}

static void tell_enabled(struct rs_keyd *d)
{
    rs_event(d, "", RS_EVENT_HOST_ENABLED, "this host has a key and can seal core dumps", NULL);
}

int rs_host_key(struct rs_keyd *d, const struct rs_who *who, struct rs_secrets *out)
{
    static const struct rs_secrets none;
    int r = load(d, out);
    if (r != RESEAL_ENOKEY) return r;
    r = renew_random(d, who, &none, out);
    if (r == 0) tell_enabled(d);
    return r;
}

int rs_host_key_change(struct rs_keyd *d, const struct rs_who *who, char id[RS_HOST_KEY_ID])
{
    struct rs_secrets older, keys;
    int r = rs_host_key(d, who, &older);
    if (r == 0 && older.n >= RS_HOST_KEYS) r = RESEAL_ELIMIT;
    if (r == 0) r = renew_random(d, who, &older, &keys);
    rs_secrets_free(&older);
    if (r != 0) return r;
    (void)snprintf(id, RS_HOST_KEY_ID, "%s", keys.at[0].name);
    rs_secrets_free(&keys);
    return 0;
}

/* SHA-256(provider, NUL, key id). */
static int hash_of(const struct rs_kek *kek, uint8_t hash[SHA256_DIGEST_LENGTH])
{
    char text[RS_PROVIDER_NAME_MAX + RS_KEY_ID_MAX];
    size_t provider = strlen(kek->provider) + 1, key = strlen(kek->key);
    if (provider + key > sizeof(text)) return RESEAL_EINVAL;
    memcpy(text, kek->provider, provider);
    memcpy(text + provider, kek->key, key);
    return EVP_Digest(text, provider + key, hash, NULL, EVP_sha256(), NULL) == 1 ? 0 : RESEAL_ENOMEM;
}

int rs_host_key_from(struct rs_keyd *d, const struct rs_who *who, const struct rs_kek *kek,
                     char id[RS_HOST_KEY_ID])
{
    RS_KEYMEM uint8_t *key = rs_keymem_alloc(RS_HOST_KEY_LEN);
    uint8_t hash[SHA256_DIGEST_LENGTH] = {0};
    struct rs_secrets older, keys;
    int r = load(d, &older);
    bool first = r == RESEAL_ENOKEY;
    if (first) r = 0;
    if (r == 0) r = hash_of(kek, hash);
    (void)snprintf(id, RS_HOST_KEY_ID, "%016llx", (unsigned long long)rs_load_be64(hash));
    if (r == 0 && key == NULL) r = RESEAL_ENOMEM;
    if (r == 0)
        r = rs_hkdf(kek->bytes, RS_KEK_LEN, hash, sizeof(hash), "reseal host key v1", key, RS_HOST_KEY_LEN);
    if (r == 0 && older.n >= RS_HOST_KEYS && rs_secrets_find(&older, id) == NULL) r = RESEAL_ELIMIT;
    if (r == 0) r = renew(d, who, &older, id, key, kek, &keys);
    rs_secrets_free(&older);
    if (r != 0) return r;
    rs_secrets_free(&keys);
    if (first) tell_enabled(d);
    return 0;
}
