/* SPDX-License-Identifier: Apache-2.0 */
/* The native provider as a kind of key provider. Its secret "kdk" is the UUID and the key, 48 bytes. */
#include "providers/key/native/provider.h"

#include "offload/base/keymem.h"
#include "providers/key/native/native.h"
#include "reseal/reseal.h"

#include <stdio.h>

_Static_assert(sizeof(struct rs_native_kdk) == RS_NATIVE_SECRET_LEN, "the secret is the structure");

#define CACHE_S_MAX 31536000

static void hex_text(const uint8_t *bytes, size_t len, bool uuid, char *out)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < len; i++) {
        if (uuid && (i == 4 || i == 6 || i == 8 || i == 10)) *out++ = '-';
        *out++ = digits[bytes[i] >> 4];
        *out++ = digits[bytes[i] & 15];
    }
    *out = '\0';
}

/* Key memory; NULL: there is none, or no memory. */
static struct rs_native_kdk *kdk_of(const struct rs_secrets *secrets)
{
    const struct rs_secret *s = rs_secrets_find(secrets, "kdk");
    if (s == NULL || s->len != sizeof(struct rs_native_kdk)) return NULL;
    struct rs_native_kdk *kdk = rs_keymem_alloc(sizeof(*kdk));
    if (kdk != NULL) memcpy(kdk, s->bytes, sizeof(*kdk));
    return kdk;
}

/* ---- the configuration ------------------------------------------------------------------- */

/* Members of a configuration that is told: identity and check value stand beside the KDK. */
static int describe(json_t *config, const struct rs_native_kdk *kdk, char *why, size_t why_len)
{
    char id[37], check[2 * RS_NATIVE_CHECK_LEN + 1];
    uint8_t value[RS_NATIVE_CHECK_LEN];
    int r = rs_native_kdk_check(kdk, value);
    if (r != 0) return r;
    hex_text(kdk->uuid, sizeof(kdk->uuid), true, id);
    hex_text(value, sizeof(value), false, check);
    const char *said = json_string_value(json_object_get(config, "check"));
    if (said != NULL && strcmp(said, check) != 0) {
        (void)snprintf(why, why_len,
                       "the key of the provider is not the one that its check value names: import "
                       "its backup again");
        return RESEAL_EAUTH;
    }
    return json_object_set_new(config, "id", json_string(id)) == 0 &&
                   json_object_set_new(config, "check", json_string(check)) == 0
               ? 0
               : RESEAL_ENOMEM;
}

static int check(json_t *config, struct rs_secrets *secrets, char *why, size_t why_len)
{
    const char *id = NULL, *value = NULL;
    json_int_t cache_s = RS_CACHE_S;
    json_error_t error;
    if (json_unpack_ex(config, &error, JSON_STRICT, "{s?s, s?s, s?I}", "id", &id, "check", &value, "cache_s",
                       &cache_s) != 0 ||
        cache_s < 0 || cache_s > CACHE_S_MAX) {
        (void)snprintf(why, why_len,
                       "a native provider's configuration has cache_s, 0 to %d seconds, and nothing else: %s",
                       CACHE_S_MAX, error.text);
        return RESEAL_EINVAL;
    }
    if (rs_secrets_find(secrets, "kdk") == NULL) {
        RS_KEYMEM struct rs_native_kdk *fresh = rs_keymem_alloc(sizeof(*fresh));
        if (fresh == NULL) return RESEAL_ENOMEM;
        if (id != NULL || value != NULL) {
            (void)snprintf(why, why_len,
                           "a new native provider chooses its id itself: leave out id and check");
            return RESEAL_EINVAL;
        }
        int r = rs_native_kdk_make(fresh);
        if (r == 0) r = rs_secrets_put(secrets, "kdk", fresh, sizeof(*fresh));
        if (r != 0) return r;
    }
    RS_KEYMEM struct rs_native_kdk *kdk = kdk_of(secrets);
    return kdk == NULL ? RESEAL_ENOMEM : describe(config, kdk, why, why_len);
}

/* ---- what it is asked ---------------------------------------------------------------------- */

static int make(struct rs_task *t, const struct rs_native_kdk *kdk, uint8_t kek[RS_NATIVE_KEK_LEN])
{
    char id[RS_NATIVE_ID_ROOM];
    int r = rs_native_make(kdk, kek, id);
    if (r == 0) r = rs_secrets_put(&t->yields, "kek", kek, RS_NATIVE_KEK_LEN);
    if (r == 0 && json_object_set_new(t->result, "key", json_string(id)) != 0) r = RESEAL_ENOMEM;
    return r;
}

static int fetch(struct rs_task *t, const struct rs_native_kdk *kdk, const char *name,
                 uint8_t kek[RS_NATIVE_KEK_LEN])
{
    const char *id = json_string_value(json_object_get(t->args, "key"));
    int r = id == NULL ? RESEAL_EFORMAT : rs_native_open(kdk, id, kek);
    switch (r) {
    case 0:
        return rs_secrets_put(&t->yields, "kek", kek, RS_NATIVE_KEK_LEN);
    case RESEAL_EFORMAT:
        return rs_task_fail(t, RESEAL_ENOKEY,
                            "key provider %s is a native one, and this is no key id of such a one: "
                            "name the provider that made the key",
                            name);
    case RESEAL_ENOKEY:
        return rs_task_fail(
            t, r,
            "this key belongs to another native provider than %s: import the backup of that one "
            "('reseal provider import')",
            name);
    case RESEAL_EAUTH:
        return rs_task_fail(
            t, r,
            "the key id was changed, or key provider %s has another key than the one that made "
            "it: restore the provider from its backup",
            name);
    default:
        return r;
    }
}

static int test(struct rs_task *t)
{
    return json_object_set_new(t->result, "servers", json_array()) == 0 ? 0 : RESEAL_ENOMEM;
}

static int run(struct rs_task *t)
{
    const char *op = json_string_value(json_object_get(t->args, "op"));
    const char *name = json_string_value(json_object_get(t->args, "name"));
    RS_KEYMEM struct rs_native_kdk *kdk = kdk_of(t->secrets);
    RS_KEYMEM uint8_t *kek = rs_keymem_alloc(RS_NATIVE_KEK_LEN);
    if (op == NULL || name == NULL) return RESEAL_EINVAL;
    if (kdk == NULL || kek == NULL)
        return rs_task_fail(t, RESEAL_EKEYGONE,
                            "key provider %s has lost its key: import its backup ('reseal provider "
                            "import')",
                            name);
    if (strcmp(op, "make") == 0) return make(t, kdk, kek);
    if (strcmp(op, "fetch") == 0) return fetch(t, kdk, name, kek);
    if (strcmp(op, "test") == 0) return test(t);
    if (strcmp(op, "retire") == 0) return 0; /* nothing is kept of a key but its id */
    return rs_task_fail(t, RESEAL_ENOSUPPORT, "key provider %s is a native one: it has no server", name);
}

static const struct rs_task_kind native_task = {.name = "native", .place = RS_TASK_CLOSED, .run = run};

const struct rs_provider_kind rs_provider_native = {
    .name = "native", .task = &native_task, .here = true, .check = check};
