/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Offboarding: a tenant's data ends with its keys. It is suspended, its keys are retired at their key servers
 * where that was asked for, then its native keys and the credentials of its providers are destroyed, and a
 * signed receipt says what was. What fails on the way leaves the tenant suspended, and the same request goes
 * on.
 */
#include "providers/key/hosts.h"
#include "providers/key/keyd.h"
#include "providers/key/provider.h"
#include "providers/key/receipt.h"
#include "providers/key/rooms.h"
#include "providers/key/store.h"

#include "offload/base/keymem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define KEYS_MAX (64u << 20) /* bytes of the list of a tenant's keys */

struct offboarding {
    char tenant[64];
    bool retire;
    json_t *made; /* [[provider, key]]: what its providers made */
    size_t at;
    json_t *keys;    /* of the receipt */
    json_t *begun;   /* "destroyed", "retired": what is on disk of this try, and of earlier ones */
    unsigned failed; /* keys that could not be retired */
    unsigned forgotten;
    char why[200]; /* the first reason */
};

/* ---- the list of a tenant's keys ----------------------------------------------------------- */

/* A file of a tenant, whose name may have any characters. */
static void file_name(const char *what, const char *tenant, const char *end, char out[64])
{
    char digest[65];
    rs_receipt_digest(tenant, strlen(tenant), digest);
    (void)snprintf(out, 64, "%s-%.32s.%s", what, digest, end);
}

static void list_name(const char *tenant, char out[64])
{
    file_name("made", tenant, "jsonl", out);
}

static void begun_name(const char *tenant, char out[64])
{
    file_name("offboarding", tenant, "json", out);
}

void rs_tenants_key_made(struct rs_keyd *d, const char *tenant, const char *provider, const char *key)
{
    char name[64];
    if (d->store == NULL || tenant[0] == '\0') return;
    json_t *line = json_pack("[s, s]", provider, key);
    RS_FREE char *text = line != NULL ? json_dumps(line, JSON_COMPACT) : NULL;
    json_decref(line);
    RS_FREE char *whole = NULL;
    int n = text != NULL ? asprintf(&whole, "%s\n", text) : -1;
    list_name(tenant, name);
    if (n < 0 || rs_store_append(d->store, name, whole, (size_t)n) != 0)
        (void)fprintf(stderr, "reseal-keyd: a key of tenant %s is missing in its list of keys\n", tenant);
}

/* NULL: it cannot be read whole, so that nobody can say which keys there were. */
static json_t *read_list(const struct rs_keyd *d, const char *tenant)
{
    char name[64];
    struct stat st;
    list_name(tenant, name);
    RS_CLOSE int fd =
        d->store == NULL ? -1 : openat(rs_store_folder(d->store), name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) return d->store == NULL || errno == ENOENT ? json_array() : NULL;
    if (fstat(fd, &st) != 0 || st.st_size > (off_t)KEYS_MAX) return NULL;
    RS_FREE char *text = calloc(1, (size_t)st.st_size + 1);
    if (text == NULL || rs_pread_full(fd, text, (size_t)st.st_size, 0) != 0) return NULL;
    json_t *all = json_array();
    for (char *at = text, *end; (end = strchr(at, '\n')) != NULL; at = end + 1) {
        json_t *line = json_loadb(at, (size_t)(end - at), 0, NULL);
        if (json_array_size(line) == 2)
            (void)json_array_append_new(all, line);
        else
            json_decref(line);
    }
    return all;
}

/* ---- the key that signs ---------------------------------------------------------------------- */

/* Made when it is first wanted. */
static int audit_key(struct rs_keyd *d, struct rs_secrets *out)
{
    if (d->store == NULL) return RESEAL_ENOSUPPORT;
    int r = rs_store_get_secrets(d->store, "audit-key.sealed", out);
    if (r == 0) {
        const struct rs_secret *key = rs_secrets_find(out, "key");
        if (key != NULL && key->len == RS_RECEIPT_KEY) return 0;
        rs_secrets_free(out);
        return RESEAL_EFORMAT;
    }
    if (r != RESEAL_ENOKEY) return r;
    RS_KEYMEM uint8_t *fresh = rs_keymem_alloc(RS_RECEIPT_KEY);
    r = fresh != NULL ? rs_receipt_new_key(fresh) : RESEAL_ENOMEM;
    if (r == 0) r = rs_secrets_put(out, "key", fresh, RS_RECEIPT_KEY);
    if (r == 0) r = rs_store_put_secrets(d->store, "audit-key.sealed", out);
    if (r != 0) rs_secrets_free(out);
    return r;
}

void rs_tenant_audit_key(struct rs_rpc *call)
{
    struct rs_secrets secrets = {0};
    uint8_t public[RS_RECEIPT_PUBLIC];
    char digest[65];
    if (!rs_rpc_args(call, "")) return;
    int r = audit_key(call->d, &secrets);
    if (r == 0) r = rs_receipt_public(rs_secrets_find(&secrets, "key")->bytes, public);
    rs_secrets_free(&secrets);
    if (r != 0) {
        rs_rpc_fail(call, r, "the audit key: %s", reseal_strerror(r));
        return;
    }
    rs_receipt_digest(public, sizeof(public), digest);
    rs_rpc_answer(call, json_pack("{s:s}", "fingerprint", digest), -1);
}

/* ---- destroying -------------------------------------------------------------------------------- */

/* What an earlier try that did not end has done: {"destroyed": [line of a receipt], "retired":
 * {PROVIDER/SHA-256: true}}. */
static json_t *read_begun(const struct rs_keyd *d, const char *tenant)
{
    char name[64];
    json_t *begun = NULL, *destroyed, *retired;
    begun_name(tenant, name);
    if (d->store != NULL && rs_store_get_json(d->store, name, &begun) == 0 &&
        json_unpack(begun, "{s:o, s:o}", "destroyed", &destroyed, "retired", &retired) == 0 &&
        json_is_array(destroyed) && json_is_object(retired))
        return begun;
    json_decref(begun);
    return json_pack("{s:[], s:{}}", "destroyed", "retired");
}

/* What is going to be destroyed is on disk before any of it is. */
static int note_destroyed(struct rs_keyd *d, struct offboarding *o)
{
    char name[64];
    json_t *destroyed = json_object_get(o->begun, "destroyed");
    begun_name(o->tenant, name);
    for (const struct rs_provider *p = d->providers.first; p != NULL; p = p->next) {
        if (strcmp(p->tenant, o->tenant) != 0) continue;
        json_t *line = json_pack("{s:s, s:s, s:s}", "provider", p->name, "kind", p->kind->name, "what",
                                 p->kind == &rs_provider_native ? "key derivation key" : "credentials");
        if (!rs_json_has(destroyed, line)) (void)json_array_append(destroyed, line);
        json_decref(line);
    }
    return rs_store_put_json(d->store, name, o->begun);
}

/* Every provider of the tenant. RESEAL_E...: one stayed. */
static int destroy_providers(struct rs_keyd *d, const char *tenant)
{
    for (struct rs_provider *p = d->providers.first, *next; p != NULL; p = next) {
        next = p->next;
        int r = strcmp(p->tenant, tenant) == 0 ? rs_providers_remove(d, p) : 0;
        if (r != 0) return r;
    }
    return 0;
}

static json_t *receipt_of(struct rs_keyd *d, const struct offboarding *o)
{
    char when[32], instance[33];
    struct tm tm;
    time_t now = time(NULL);
    (void)gmtime_r(&now, &tm);
    (void)strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", &tm);
    rs_hex(d->instance, sizeof(d->instance), instance);
    return json_pack("{s:i, s:s, s:s, s:s, s:O, s:O, s:i}", "format", 1, "tenant", o->tenant, "time", when,
                     "service", instance, "destroyed", json_object_get(o->begun, "destroyed"), "keys",
                     o->keys, "forgotten", (int)o->forgotten);
}

static int keep_receipt(struct rs_keyd *d, const struct offboarding *o, const json_t *sealed)
{
    char name[96], digest[65];
    rs_receipt_digest(o->tenant, strlen(o->tenant), digest);
    (void)snprintf(name, sizeof(name), "receipts/%.16s-%lld.json", digest, (long long)time(NULL));
    return rs_store_put_json(d->store, name, sealed);
}

/* The tenant itself, once its receipt is on disk. */
static int forget_tenant(struct rs_keyd *d, const char *tenant, char *why, size_t why_len)
{
    char made[64], begun[64];
    list_name(tenant, made);
    begun_name(tenant, begun);
    rs_webhooks_remove(d, tenant);
    int r = rs_store_remove(d->store, made);
    if (r == 0) r = rs_store_remove(d->store, begun);
    return r == 0 ? rs_tenants_change(d, tenant, RS_TENANT_GONE, why, why_len) : r;
}

static bool is_suspended(const struct rs_keyd *d, const char *tenant)
{
    const struct rs_tenant *t = rs_policy_tenant_named(d->policy, tenant);
    return t != NULL && t->suspended;
}

/* All keys are retired, or need not be: the rest happens at once. */
static int destroy(struct rs_keyd *d, struct offboarding *o, json_t **sealed, char *why, size_t why_len)
{
    struct rs_secrets secrets = {0};
    int r = audit_key(d, &secrets);
    if (r == 0) r = note_destroyed(d, o);
    if (r == 0 && d->hosts != NULL && d->hosts->first != NULL) r = rs_hosts_save(d); /* what they forget */
    if (r == 0) r = destroy_providers(d, o->tenant);
    if (r == 0) {
        o->forgotten += rs_kek_forget(d, o->tenant, NULL, NULL);
        *sealed = rs_receipt_sign(rs_secrets_find(&secrets, "key")->bytes, receipt_of(d, o));
        r = *sealed != NULL ? keep_receipt(d, o, *sealed) : RESEAL_ENOMEM;
    }
    rs_secrets_free(&secrets);
    if (r == 0) return forget_tenant(d, o->tenant, why, why_len);
    (void)snprintf(why, why_len,
                   "the tenant is suspended, but not all of its keys are destroyed, or there is no receipt "
                   "yet: %s: try again",
                   reseal_strerror(r));
    return r;
}

static void finish(struct rs_rpc *call)
{
    struct offboarding *o = call->state;
    char why[300] = "", object[80], message[160];
    json_t *sealed = NULL;
    const struct rs_who who = rs_who_of(call->client);
    if (o->failed != 0) {
        rs_rpc_fail(call, RESEAL_EBUSY,
                    "%u keys could not be retired (%s): the tenant is suspended, nothing is destroyed; try "
                    "again when the "
                    "key server answers, or without retiring",
                    o->failed, o->why);
        return;
    }
    if (!is_suspended(call->d, o->tenant)) {
        rs_rpc_fail(call, RESEAL_ECANCELED, "the tenant was resumed meanwhile: nothing is destroyed");
        return;
    }
    int r = destroy(call->d, o, &sealed, why, sizeof(why));
    (void)snprintf(object, sizeof(object), "tenant:%s", o->tenant);
    rs_audit(call->d, &who, call->method, object, r, NULL);
    if (r != 0) {
        json_decref(sealed);
        rs_rpc_fail(call, r, "%s", why[0] != '\0' ? why : reseal_strerror(r));
        return;
    }
    (void)snprintf(message, sizeof(message), "tenant %s was offboarded: its keys are destroyed", o->tenant);
    rs_event(call->d, "", "reseal.tenant.Offboarded", message, json_pack("{s:s}", "tenant", o->tenant));
    rs_rpc_answer(call, sealed, -1);
}

/* ---- retiring ------------------------------------------------------------------------------------ */

static void next_key(struct rs_rpc *call);

static void note_key(struct offboarding *o, bool retired)
{
    char digest[65], name[RS_PROVIDER_NAME_MAX + 66];
    json_t *before = json_object_get(o->begun, "retired");
    const json_t *pair = json_array_get(o->made, o->at++);
    const char *key = json_string_value(json_array_get(pair, 1));
    const char *provider = json_string_value(json_array_get(pair, 0));
    if (key == NULL || provider == NULL) return;
    rs_receipt_digest(key, strlen(key), digest);
    (void)snprintf(name, sizeof(name), "%.*s/%s", (int)RS_PROVIDER_NAME_MAX, provider, digest);
    if (retired) (void)json_object_set_new(before, name, json_true());
    retired = json_object_get(before, name) != NULL;
    (void)json_array_append_new(
        o->keys, json_pack("{s:s, s:s, s:b}", "provider", provider, "sha256", digest, "retired", retired));
}

/* Nobody opens anything with it any more, here and on hosts. Those of its own providers go with them. */
static void forget_key(struct rs_keyd *d, struct offboarding *o)
{
    const json_t *pair = json_array_get(o->made, o->at);
    const char *name = json_string_value(json_array_get(pair, 0));
    const char *key = json_string_value(json_array_get(pair, 1));
    const struct rs_provider *p = name != NULL ? rs_providers_find(d, o->tenant, name) : NULL;
    if (p == NULL || key == NULL || p->tenant[0] != '\0') return;
    o->forgotten += rs_kek_forget(d, "", p->name, key);
    rs_hosts_key_gone(d, "", p->name, key);
}

static void retired(struct rs_keyd *d, void *arg, struct rs_task_answer *answer)
{
    struct rs_rpc *call = arg;
    struct offboarding *o = call->state;
    bool ok = answer->status == 0; /* also when it was retired before */
    if (!ok && o->failed++ == 0) (void)snprintf(o->why, sizeof(o->why), "%s", answer->why);
    if (ok) forget_key(d, o);
    note_key(o, ok);
    next_key(call);
}

/* Asks for the next key to be retired, until there is none. */
static void next_key(struct rs_rpc *call)
{
    struct offboarding *o = call->state;
    while (o->at < json_array_size(o->made) && o->failed == 0) {
        const json_t *pair = json_array_get(o->made, o->at);
        const char *name = json_string_value(json_array_get(pair, 0));
        struct rs_provider *p = name != NULL ? rs_providers_find(call->d, o->tenant, name) : NULL;
        /* What a native provider made ends with its key derivation key; and those of a trusted one are in
         * their ids alone, which its service opens for every host that it trusts. */
        if (o->retire && p != NULL && p->kind == &rs_provider_standard) {
            rs_provider_ask(call->d, p, "retire", json_pack("{s:O}", "key", json_array_get(pair, 1)), retired,
                            call);
            return;
        }
        note_key(o, false);
    }
    finish(call);
}

static void drop(struct rs_rpc *call)
{
    struct offboarding *o = call->state;
    rs_provider_cancel(call->d, call);
    json_decref(o->made);
    json_decref(o->keys);
    json_decref(o->begun);
    free(o);
}

void rs_tenant_offboard(struct rs_rpc *call)
{
    char why[300];
    if (!rs_rpc_args(call, "name retire-keys") || !rs_tenants_may(call)) return;
    const char *name = rs_rpc_need(call, "name", 64);
    int retire = name != NULL ? rs_rpc_flag(call, "retire-keys") : -1;
    if (retire < 0) return;
    if (rs_policy_tenant_named(call->d->policy, name) == NULL) {
        rs_rpc_fail(call, RESEAL_ENOKEY, "there is no tenant %s: 'reseal tenant list' has those there are",
                    name);
        return;
    }
    if (strcmp(name, call->client->tenant) == 0) {
        rs_rpc_fail(call, RESEAL_EINVAL,
                    "this connection counts for tenant %s itself: offboard it as another", name);
        return;
    }
    struct offboarding *o = calloc(1, sizeof(*o));
    if (o == NULL) {
        rs_rpc_fail(call, RESEAL_ENOMEM, NULL);
        return;
    }
    (void)snprintf(o->tenant, sizeof(o->tenant), "%s", name);
    o->retire = retire == 1;
    o->made = read_list(call->d, name);
    o->keys = json_array();
    o->begun = read_begun(call->d, name);
    call->state = o;
    call->drop = drop;
    if (o->made == NULL) {
        char list[64];
        list_name(name, list);
        rs_rpc_fail(call, RESEAL_EFORMAT,
                    "the list of the tenant's keys, %s in the state folder, cannot be read or has more than "
                    "%u MiB: nothing is destroyed; without it no receipt can name them: move it away if that "
                    "is right",
                    list, KEYS_MAX >> 20);
        return;
    }
    int r = rs_tenants_change(call->d, o->tenant, RS_TENANT_SUSPEND, why, sizeof(why));
    if (r != 0) {
        rs_rpc_fail(call, r, "%s", why);
        return;
    }
    rs_tenants_end_clients(call->d, o->tenant);
    next_key(call);
}
