/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/key/provider.h"

#include "providers/key/events.h"
#include "providers/key/hosts.h"
#include "providers/key/keyd.h"
#include "providers/key/store.h"
#include "reseal/reseal.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>

/*
 * A provider is two objects of the store: "providers/NAME@TENANT.json" and, named by a number in it,
 * "providers/NAME@TENANT.N.sealed". New secrets get a new number, so that a configuration and its
 * secrets change together, whatever crashes: writing the first object is what counts.
 */
#define DEFAULTS "provider-defaults.json"

static const struct rs_provider_kind *const kinds[] = {&rs_provider_native, &rs_provider_standard,
                                                       &rs_provider_trusted};

const struct rs_provider_kind *rs_provider_kind_of(const char *name)
{
    for (unsigned i = 0; i < RS_ARRAY_LEN(kinds); i++)
        if (strcmp(kinds[i]->name, name) == 0) return kinds[i];
    return NULL;
}

static bool plain_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '-' || c == '_';
}

static bool plain_text(const char *text)
{
    for (const char *at = text; *at != '\0'; at++)
        if (!plain_char(*at)) return false;
    return true;
}

bool rs_provider_name_ok(const char *name)
{
    size_t len = strlen(name);
    return len > 0 && len < RS_PROVIDER_NAME_MAX && name[0] != '.' && name[0] != '-' && plain_text(name);
}

uint32_t rs_provider_cache_s(const struct rs_provider *p)
{
    const json_t *s = json_object_get(p->config, "cache_s");
    return json_is_integer(s) ? (uint32_t)json_integer_value(s) : RS_CACHE_S;
}

/* ---- names of objects -------------------------------------------------------------- */

/* A tenant's name as part of a file's: itself, or a digest of one with unusual characters. */
static void tenant_part(const char *tenant, char out[64])
{
    uint8_t digest[EVP_MAX_MD_SIZE];
    if (plain_text(tenant)) {
        (void)snprintf(out, 64, "%s", tenant);
        return;
    }
    *out++ = '@'; /* no name of a tenant or a provider has one */
    (void)EVP_Digest(tenant, strlen(tenant), digest, NULL, EVP_sha256(), NULL);
    rs_hex(digest, 16, out);
}

static void object_name(const struct rs_provider *p, char out[RS_STORE_NAME_MAX])
{
    char tenant[64];
    tenant_part(p->tenant, tenant);
    (void)snprintf(out, RS_STORE_NAME_MAX, "providers/%s@%s.json", p->name, tenant);
}

static void sealed_name(const struct rs_provider *p, uint32_t number, char out[RS_STORE_NAME_MAX])
{
    char tenant[64];
    tenant_part(p->tenant, tenant);
    (void)snprintf(out, RS_STORE_NAME_MAX, "providers/%s@%s.%u.sealed", p->name, tenant, number);
}

/* ---- what could not be read ----------------------------------------------------------- */

static void object_of(const char *tenant, const char *name, char out[RS_STORE_NAME_MAX])
{
    struct rs_provider p = {.name = ""};
    (void)snprintf(p.name, sizeof(p.name), "%s", name);
    (void)snprintf(p.tenant, sizeof(p.tenant), "%s", tenant);
    object_name(&p, out);
}

const char *rs_providers_left_out(const struct rs_keyd *d, const char *tenant, const char *name)
{
    char object[RS_STORE_NAME_MAX];
    if (!rs_provider_name_ok(name)) return NULL;
    object_of(tenant, name, object);
    return json_string_value(json_object_get(d->providers.left_out, object));
}

void rs_providers_list_left_out(const struct rs_keyd *d, const char *tenant, json_t *list)
{
    const char *object, *at;
    json_t *why;
    json_object_foreach(d->providers.left_out, object, why)
    {
        char name[RS_PROVIDER_NAME_MAX], expected[RS_STORE_NAME_MAX];
        const char *begin = object + strlen("providers/");
        at = strchr(begin, '@');
        if (at == NULL || (size_t)(at - begin) >= sizeof(name)) continue;
        (void)snprintf(name, sizeof(name), "%.*s", (int)(at - begin), begin);
        object_of(tenant, name, expected);
        if (strcmp(object, expected) == 0)
            (void)json_array_append_new(
                list, json_pack("{s:s, s:s, s:O}", "name", name, "object", object, "reason", why));
    }
}

void rs_providers_restored(struct rs_keyd *d, const struct rs_provider *p)
{
    char object[RS_STORE_NAME_MAX];
    object_name(p, object);
    (void)json_object_del(d->providers.left_out, object);
}

int rs_providers_drop_left_out(struct rs_keyd *d, const char *tenant, const char *name)
{
    char object[RS_STORE_NAME_MAX];
    if (rs_providers_left_out(d, tenant, name) == NULL) return RESEAL_ENOKEY;
    object_of(tenant, name, object);
    int r = rs_store_remove(d->store, object);
    if (r == 0) (void)json_object_del(d->providers.left_out, object);
    return r;
}

/* ---- saving ------------------------------------------------------------------------ */

static int put_config(struct rs_keyd *d, const struct rs_provider *p, uint32_t sealed)
{
    char name[RS_STORE_NAME_MAX];
    json_t *object = json_pack("{s:i, s:s, s:s, s:s, s:b, s:I, s:O}", "format", 1, "name", p->name, "tenant",
                               p->tenant, "kind", p->kind->name, "usable", p->usable, "sealed",
                               (json_int_t)sealed, "config", p->config);
    if (object == NULL) return RESEAL_ENOMEM;
    object_name(p, name);
    int r = rs_store_put_json(d->store, name, object);
    json_decref(object);
    return r;
}

int rs_providers_save(struct rs_keyd *d, struct rs_provider *p)
{
    char fresh[RS_STORE_NAME_MAX], old[RS_STORE_NAME_MAX];
    uint32_t number = p->sealed + 1;
    if (d->store == NULL) return RESEAL_ENOSUPPORT;
    sealed_name(p, number, fresh);
    sealed_name(p, p->sealed, old);
    int r = number != 0 ? 0 : RESEAL_ELIMIT;
    if (r == 0) r = rs_store_put_secrets(d->store, fresh, &p->secrets);
    if (r == 0) r = put_config(d, p, number);
    if (r != 0) {
        (void)!rs_store_remove(d->store, fresh);
        return r;
    }
    if (p->sealed != 0) (void)!rs_store_remove(d->store, old);
    p->sealed = number;
    if (p->serial != 0 && p->kind == &rs_provider_native) rs_hosts_providers_changed(d);
    return 0;
}

static int save_defaults(struct rs_keyd *d)
{
    return d->store == NULL ? RESEAL_ENOSUPPORT
                            : rs_store_put_json(d->store, DEFAULTS, d->providers.defaults);
}

/* ---- finding ------------------------------------------------------------------------ */

struct rs_provider *rs_providers_of(struct rs_keyd *d, const char *tenant, const char *name)
{
    for (struct rs_provider *p = d->providers.first; p != NULL; p = p->next)
        if (strcmp(p->name, name) == 0 && strcmp(p->tenant, tenant) == 0) return p;
    return NULL;
}

struct rs_provider *rs_providers_by_serial(struct rs_keyd *d, uint32_t serial)
{
    struct rs_provider *p = d->providers.first;
    while (p != NULL && p->serial != serial) p = p->next;
    return p;
}

const char *rs_providers_default(const struct rs_keyd *d, const char *tenant)
{
    const char *name = json_string_value(json_object_get(d->providers.defaults, tenant));
    if (name == NULL) name = json_string_value(json_object_get(d->providers.defaults, ""));
    return name != NULL ? name : "";
}

struct rs_provider *rs_providers_find(struct rs_keyd *d, const char *tenant, const char *name)
{
    if (*name == '\0') name = rs_providers_default(d, tenant);
    struct rs_provider *p = rs_providers_of(d, tenant, name);
    return p != NULL ? p : rs_providers_of(d, "", name);
}

int rs_providers_set_default(struct rs_keyd *d, const char *tenant, const char *name)
{
    json_t *before = json_incref(json_object_get(d->providers.defaults, tenant));
    int r = name == NULL ? 0 : json_object_set_new(d->providers.defaults, tenant, json_string(name));
    if (name == NULL) (void)json_object_del(d->providers.defaults, tenant);
    r = r != 0 ? RESEAL_ENOMEM : save_defaults(d);
    if (r != 0) { /* what is not on disk is not so */
        if (before != NULL)
            (void)json_object_set(d->providers.defaults, tenant, before);
        else
            (void)json_object_del(d->providers.defaults, tenant);
    }
    json_decref(before);
    return r;
}

/* ---- the list ------------------------------------------------------------------------ */

static void provider_free(struct rs_provider *p)
{
    json_decref(p->config);
    json_decref(p->state);
    rs_secrets_free(&p->secrets);
    free(p);
}

/* At the end: the order of adding. */
static void link_in(struct rs_keyd *d, struct rs_provider *p)
{
    struct rs_provider **at = &d->providers.first;
    while (*at != NULL) at = &(*at)->next;
    p->serial = ++d->providers.next_serial;
    *at = p;
}

static void unlink_it(struct rs_keyd *d, struct rs_provider *p)
{
    struct rs_provider **at = &d->providers.first;
    while (*at != p) at = &(*at)->next;
    *at = p->next;
}

static bool room_for_one(const struct rs_keyd *d, const char *tenant)
{
    unsigned n = 0;
    for (const struct rs_provider *p = d->providers.first; p != NULL; p = p->next)
        n += strcmp(p->tenant, tenant) == 0;
    return n < RS_PROVIDERS_MAX;
}

int rs_providers_add(struct rs_keyd *d, const struct rs_provider_new *n, struct rs_provider **out)
{
    if (d->providers.defaults == NULL) d->providers.defaults = json_object();
    struct rs_provider *p = calloc(1, sizeof(*p));
    if (p == NULL || d->providers.defaults == NULL) {
        json_decref(n->config);
        rs_secrets_free(n->secrets);
        free(p);
        return RESEAL_ENOMEM;
    }
    (void)snprintf(p->name, sizeof(p->name), "%s", n->name);
    (void)snprintf(p->tenant, sizeof(p->tenant), "%s", n->tenant);
    p->kind = n->kind;
    p->config = n->config;
    p->secrets = *n->secrets;
    p->usable = n->usable;
    *n->secrets = (struct rs_secrets){0};
    int r = rs_providers_of(d, n->tenant, n->name) != NULL ? RESEAL_EBUSY
            : !room_for_one(d, n->tenant)                  ? RESEAL_ELIMIT
                                                           : rs_providers_save(d, p);
    if (r != 0) {
        provider_free(p);
        return r;
    }
    link_in(d, p);
    if (p->kind == &rs_provider_native) rs_hosts_providers_changed(d);
    rs_hosts_provider_back(d, p);
    *out = p;
    return 0;
}

int rs_providers_remove(struct rs_keyd *d, struct rs_provider *p)
{
    char name[RS_STORE_NAME_MAX], sealed[RS_STORE_NAME_MAX];
    object_name(p, name);
    sealed_name(p, p->sealed, sealed);
    if (d->store == NULL) return RESEAL_ENOSUPPORT;
    int r = rs_store_remove(d->store, name);
    if (r != 0) return r;
    (void)!rs_store_remove(d->store, sealed);
    const char *of = json_string_value(json_object_get(d->providers.defaults, p->tenant));
    if (of != NULL && strcmp(of, p->name) == 0) (void)!rs_providers_set_default(d, p->tenant, NULL);
    unlink_it(d, p);
    rs_provider_give_up(d, p, RESEAL_ENOKEY, "the key provider was removed");
    (void)rs_kek_forget(d, p->tenant, p->name, NULL);
    rs_hosts_provider_removed(d, p->tenant, p->name);
    provider_free(p);
    return 0;
}

/* ---- loading -------------------------------------------------------------------------- */

/* What an object says; NULL, with the reason, when it cannot be used. */
static struct rs_provider *read_one(struct rs_keyd *d, const char *object, const char **why)
{
    const char *name, *tenant, *kind;
    char sealed[RS_STORE_NAME_MAX], expected[RS_STORE_NAME_MAX];
    int usable, format;
    json_int_t number;
    json_t *json, *config;
    *why = "the file is damaged";
    if (rs_store_get_json(d->store, object, &json) != 0) return NULL;
    if (json_integer_value(json_object_get(json, "format")) > 1)
        *why = "it was written by a newer version of the service";
    struct rs_provider *p = calloc(1, sizeof(*p));
    bool ok =
        p != NULL &&
        json_unpack(json, "{s:i, s:s, s:s, s:s, s:b, s:I, s:o}", "format", &format, "name", &name, "tenant",
                    &tenant, "kind", &kind, "usable", &usable, "sealed", &number, "config", &config) == 0 &&
        format == 1 && rs_provider_name_ok(name) && strlen(tenant) < sizeof(p->tenant) &&
        json_is_object(config) && number > 0 && number < UINT32_MAX;
    if (ok) {
        (void)snprintf(p->name, sizeof(p->name), "%s", name);
        (void)snprintf(p->tenant, sizeof(p->tenant), "%s", tenant);
        p->usable = usable;
        p->config = json_incref(config);
        p->sealed = (uint32_t)number;
        p->kind = rs_provider_kind_of(kind);
        object_name(p, expected);
        sealed_name(p, p->sealed, sealed);
        *why = "its kind is not known to this version of the service";
        ok = p->kind != NULL && strcmp(expected, object) == 0;
    }
    if (ok) {
        *why = "its secrets cannot be opened: they were changed, or are another host's";
        ok = rs_store_get_secrets(d->store, sealed, &p->secrets) == 0;
    }
    json_decref(json);
    if (ok) return p;
    if (p != NULL) provider_free(p);
    return NULL;
}

static int load_one(const char *object, void *arg)
{
    struct rs_keyd *d = arg;
    const char *why;
    size_t len = strlen(object);
    if (len < 5 || strcmp(object + len - 5, ".json") != 0) return 0;
    struct rs_provider *p = read_one(d, object, &why);
    if (p != NULL) {
        link_in(d, p);
        return 0;
    }
    (void)fprintf(stderr, "reseal-keyd: key provider %s was left out: %s\n", object, why);
    if (d->providers.left_out == NULL) d->providers.left_out = json_object();
    (void)json_object_set_new(d->providers.left_out, object, json_string(why));
    rs_event(d, "", RS_EVENT_KMS_ERROR, "a key provider was left out",
             json_pack("{s:s, s:s}", "object", object, "reason", why));
    return 0;
}

/* Secrets that a crash between two writes left behind. */
static int drop_orphan(const char *object, void *arg)
{
    struct rs_keyd *d = arg;
    const char *dot = strrchr(object, '.');
    if (dot == NULL || strcmp(dot, ".sealed") != 0) return 0;
    for (const struct rs_provider *p = d->providers.first; p != NULL; p = p->next) {
        char sealed[RS_STORE_NAME_MAX], whole[RS_STORE_NAME_MAX];
        sealed_name(p, p->sealed, sealed);
        object_name(p, whole);
        size_t stem = strlen(whole) - strlen("json");
        if (strncmp(object, whole, stem) != 0 || strcmp(object, sealed) == 0) continue;
        /* Only a number between: "NAME@TENANT.7.sealed". */
        if (strspn(object + stem, "0123456789") == (size_t)(dot - object) - stem)
            (void)!rs_store_remove(d->store, object);
    }
    return 0;
}

static void tell_no_defaults(struct rs_keyd *d)
{
    static const char line[] =
        DEFAULTS " of the state folder is damaged: there is no default key provider until 'reseal provider "
                 "default' names one";
    (void)fprintf(stderr, "reseal-keyd: %s\n", line);
    rs_event(d, "", RS_EVENT_KMS_ERROR, line, json_pack("{s:s}", "object", DEFAULTS));
}

int rs_providers_load(struct rs_keyd *d)
{
    int r = d->store != NULL ? rs_store_get_json(d->store, DEFAULTS, &d->providers.defaults) : RESEAL_ENOKEY;
    if (r != 0 || !json_is_object(d->providers.defaults)) {
        if (r != RESEAL_ENOKEY) tell_no_defaults(d);
        json_decref(d->providers.defaults);
        d->providers.defaults = json_object();
    }
    if (d->providers.defaults == NULL) return RESEAL_ENOMEM;
    if (d->store == NULL) return 0;
    (void)rs_store_each(d->store, "providers", load_one, d);
    (void)rs_store_each(d->store, "providers", drop_orphan, d);
    return 0;
}

void rs_providers_free(struct rs_providers *p)
{
    while (p->first != NULL) {
        struct rs_provider *next = p->first->next;
        provider_free(p->first);
        p->first = next;
    }
    json_decref(p->defaults);
    json_decref(p->left_out);
    p->defaults = p->left_out = NULL;
}
