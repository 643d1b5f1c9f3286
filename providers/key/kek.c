/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/key/kek.h"

#include "offload/base/fnv.h"
#include "offload/base/keymem.h"
#include "providers/key/events.h"
#include "providers/key/hosts.h"
#include "providers/key/keyd.h"
#include "providers/key/rooms.h"
#include "reseal/reseal.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define SECOND         1000000000ull
#define OBJECT_MAX     (RS_PROVIDER_NAME_MAX + RS_KEY_ID_MAX + 8)
#define KEKS_OF_TENANT (RS_KEKS_MAX / 4) /* one tenant does not push the others' keys out */
#define NOTES          16u

struct rs_kek_entry {
    struct rs_kek_entry *next;
    char tenant[64]; /* the provider's: "" for all */
    char provider[RS_PROVIDER_NAME_MAX];
    char key[RS_KEY_ID_MAX];
    uint8_t *bytes;   /* key memory */
    uint64_t expires; /* now_ns(); 0: never, a manager handed it over */
    uint64_t used;
    uint64_t noted; /* the details that its server has, a hash; 0: none that we know of */
};

/* Somebody who waits for a request. */
struct want {
    struct want *next;
    struct rs_who who;
    rs_kek_done *done;
    void *arg;
};

struct rs_kek_request {
    struct rs_kek_request *next;
    bool make, finished; /* finished: it is being handed out, nobody joins any more */
    char tenant[64], provider[RS_PROVIDER_NAME_MAX], key[RS_KEY_ID_MAX];
    uint64_t noted;    /* the details that it brings, a hash */
    struct rs_who who; /* who asked first */
    struct want *wants;
};

/* ---- the cache -------------------------------------------------------------------------- */

/* With the time that the machine slept: a limit on how long a key is kept goes on then. */
static uint64_t now_ns(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_BOOTTIME, &t);
    return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}

static struct rs_kek_entry **row_of(struct rs_keyd *d, const char *tenant, const char *provider,
                                    const char *key)
{
    uint32_t h = 2166136261u; /* FNV-1a: ids are the providers' own, long and random or short and few */
    const char *const parts[] = {tenant, provider, key};
    for (unsigned i = 0; i < RS_ARRAY_LEN(parts); i++) {
        for (const char *at = parts[i]; *at != '\0'; at++) h = (h ^ (uint8_t)*at) * 16777619u;
        h = (h ^ 0xffu) * 16777619u;
    }
    return &d->keks.rows[h % RS_KEK_ROWS];
}

static struct rs_kek_entry *entry_of(struct rs_keyd *d, const char *tenant, const char *provider,
                                     const char *key)
{
    struct rs_kek_entry *e = *row_of(d, tenant, provider, key);
    while (e != NULL &&
           (strcmp(e->key, key) != 0 || strcmp(e->provider, provider) != 0 || strcmp(e->tenant, tenant) != 0))
        e = e->next;
    return e != NULL && (e->expires == 0 || e->expires > now_ns()) ? e : NULL;
}

/* Forgets those that `which` names; how many. */
static unsigned forget(struct rs_keyd *d, bool (*which)(const struct rs_kek_entry *e, const void *arg),
                       const void *arg)
{
    unsigned n = 0;
    uint64_t next = 0;
    for (unsigned i = 0; i < RS_KEK_ROWS; i++)
        for (struct rs_kek_entry **at = &d->keks.rows[i]; *at != NULL;) {
            struct rs_kek_entry *e = *at;
            if (which(e, arg)) {
                *at = e->next;
                rs_keymem_free(e->bytes);
                free(e);
                n++;
                continue;
            }
            if (e->expires != 0 && (next == 0 || e->expires < next)) next = e->expires;
            at = &e->next;
        }
    d->keks.n -= n;
    d->keks.next_expiry = next;
    return n;
}

static bool is_this(const struct rs_kek_entry *e, const void *arg)
{
    return e == arg;
}

/* The one of a tenant (NULL: any) that was not used for the longest time. Those that a manager gave are
 * counted apart: they cannot be fetched again. */
static void make_room(struct rs_keyd *d, const char *tenant, bool given, unsigned most)
{
    const struct rs_kek_entry *oldest = NULL;
    unsigned n = 0;
    for (unsigned i = 0; i < RS_KEK_ROWS; i++)
        for (const struct rs_kek_entry *e = d->keks.rows[i]; e != NULL; e = e->next) {
            if ((tenant != NULL && strcmp(e->tenant, tenant) != 0) || (e->expires == 0) != given) continue;
            n++;
            if (oldest == NULL || e->used < oldest->used) oldest = e;
        }
    if (n >= most) (void)forget(d, is_this, oldest);
}

static int put(struct rs_keyd *d, const char *tenant, const char *provider, const char *key,
               const uint8_t bytes[RS_KEK_LEN], uint64_t expires)
{
    struct rs_kek_entry *e = entry_of(d, tenant, provider, key);
    if (e == NULL) {
        if (expires != 0) make_room(d, tenant, false, KEKS_OF_TENANT);
        make_room(d, NULL, expires == 0, expires == 0 ? RS_HOST_KEYS_MAX : RS_KEKS_MAX);
        e = calloc(1, sizeof(*e));
        if (e == NULL) return RESEAL_ENOMEM;
        e->bytes = rs_keymem_alloc(RS_KEK_LEN);
        if (e->bytes == NULL) {
            free(e);
            return RESEAL_ENOMEM;
        }
        (void)snprintf(e->tenant, sizeof(e->tenant), "%s", tenant);
        (void)snprintf(e->provider, sizeof(e->provider), "%s", provider);
        (void)snprintf(e->key, sizeof(e->key), "%s", key);
        struct rs_kek_entry **row = row_of(d, tenant, provider, key);
        e->next = *row;
        *row = e;
        d->keks.n++;
    }
    memcpy(e->bytes, bytes, RS_KEK_LEN);
    e->used = now_ns();
    e->expires = expires;
    if (expires != 0 && (d->keks.next_expiry == 0 || expires < d->keks.next_expiry))
        d->keks.next_expiry = expires;
    return 0;
}

/* Whose keys a provider's are: those of the tenant that it belongs to. */
static void scope_of(struct rs_keyd *d, const char *tenant, const char *provider, const char **scope,
                     const char **name)
{
    struct rs_provider *p = rs_providers_find(d, tenant, provider);
    *scope = p != NULL ? p->tenant : tenant;
    *name = p != NULL ? p->name : *provider != '\0' ? provider : rs_providers_default(d, tenant);
}

/* On a host that a manager gives keys the provider is not known; one without a tenant may be meant. */
static struct rs_kek_entry *entry_here(struct rs_keyd *d, const char *scope, const char *name,
                                       const char *key)
{
    struct rs_kek_entry *e = entry_of(d, scope, name, key);
    if (e != NULL || rs_providers_find(d, scope, name) != NULL) return e;
    return entry_of(d, "", name, key);
}

int rs_kek_put(struct rs_keyd *d, const char *tenant, const char *provider, const char *key,
               const uint8_t bytes[RS_KEK_LEN])
{
    const char *scope, *name;
    if (strlen(tenant) >= 64 || !rs_provider_name_ok(provider) || *key == '\0' ||
        strlen(key) >= RS_KEY_ID_MAX)
        return RESEAL_EINVAL;
    scope_of(d, tenant, provider, &scope, &name);
    return put(d, scope, name, key, bytes, 0);
}

bool rs_kek_cached(struct rs_keyd *d, const char *tenant, const char *provider, const char *key)
{
    const char *scope, *name;
    scope_of(d, tenant, provider, &scope, &name);
    return entry_here(d, scope, name, key) != NULL;
}

struct choice {
    const char *tenant, *provider, *key;
};

static bool is_chosen(const struct rs_kek_entry *e, const void *arg)
{
    const struct choice *c = arg;
    return (c->tenant == NULL || strcmp(e->tenant, c->tenant) == 0) &&
           (c->provider == NULL || strcmp(e->provider, c->provider) == 0) &&
           (c->key == NULL || strcmp(e->key, c->key) == 0);
}

unsigned rs_kek_forget(struct rs_keyd *d, const char *tenant, const char *provider, const char *key)
{
    const struct choice c = {tenant, provider, key};
    return forget(d, is_chosen, &c);
}

static bool has_expired(const struct rs_kek_entry *e, const void *arg)
{
    const uint64_t *now = arg;
    return e->expires != 0 && e->expires <= *now;
}

int rs_kek_tick(struct rs_keyd *d)
{
    uint64_t now = now_ns();
    if (d->keks.next_expiry != 0 && d->keks.next_expiry <= now) (void)forget(d, has_expired, &now);
    if (d->keks.next_expiry == 0) return -1;
    uint64_t ms = (d->keks.next_expiry - now) / 1000000u + 1;
    return (int)RS_MIN(ms, (uint64_t)INT_MAX);
}

void rs_kek_each(struct rs_keyd *d, const char *tenant,
                 void (*each)(void *arg, const char *provider, const char *key, uint64_t left_s), void *arg)
{
    uint64_t now = now_ns();
    for (unsigned i = 0; i < RS_KEK_ROWS; i++)
        for (const struct rs_kek_entry *e = d->keks.rows[i]; e != NULL; e = e->next)
            if (strcmp(e->tenant, tenant) == 0 && (e->expires == 0 || e->expires > now))
                each(arg, e->provider, e->key, e->expires == 0 ? 0 : (e->expires - now) / SECOND);
}

/* ---- outcomes --------------------------------------------------------------------------------- */

static void object_of(const char *provider, const char *key, char object[OBJECT_MAX])
{
    (void)snprintf(object, OBJECT_MAX, "kek:%s/%s", provider, key);
}

static void audit(struct rs_keyd *d, const struct rs_who *who, bool make, const char *provider,
                  const char *key, int status, bool cached)
{
    char object[OBJECT_MAX];
    const char *operation = make ? "kek.make" : "kek.get";
    object_of(provider, key, object);
    /* Each use has its line. To ask for what is not there needs no right, so that is counted. */
    uint64_t times = status == 0 || make
                         ? 1
                         : rs_events_times(d, who, who->tenant, operation, reseal_strerror(status), object);
    if (times == 0) return;
    json_t *details = json_pack("{s:b}", "cached", cached);
    if (times > 1) (void)json_object_set_new(details, "times", json_integer((json_int_t)times));
    rs_audit(d, who, operation, object, status, details);
}

/* What a failure is called where keys are looked for, and the event that goes with it. */
static void verdict(int status, bool here, struct rs_kek *kek)
{
    kek->event = RS_EVENT_KMS_ERROR;
    kek->reason = "KeyStateClusterInvalid";
    if (status == RESEAL_ENOKEY || (here && (status == RESEAL_EAUTH || status == RESEAL_EFORMAT))) {
        kek->event = RS_EVENT_KEY_MISSING;
        kek->reason = "KeyStateMissingInKMS";
    } else if (status == RESEAL_EKEYBAD) {
        kek->event = RS_EVENT_KEY_MISSING;
        kek->reason = "KeyStateNotActiveOrEnabled";
    } else if (status == RESEAL_EPERM) {
        kek->reason = "NoPermissionToAccessKeyProvider";
    } else if (status == RESEAL_ENOSERVICE || status == RESEAL_ETIMEDOUT) {
        kek->reason = "KeyStateClusterUnreachable";
    }
}

static void raise_event(struct rs_keyd *d, const char *tenant, const struct rs_who *who,
                        const struct rs_kek *kek, const char *why)
{
    char object[OBJECT_MAX];
    object_of(kek->provider, kek->key, object);
    uint64_t times = rs_events_times(d, who, tenant, kek->event, why, object);
    if (times == 0) return;
    json_t *details =
        json_pack("{s:s, s:s, s:s}", "provider", kek->provider, "key", kek->key, "reason", kek->reason);
    if (times > 1) (void)json_object_set_new(details, "times", json_integer((json_int_t)times));
    rs_event(d, tenant, kek->event, why, details);
}

/* Nothing can even be asked. */
static void refuse(struct rs_keyd *d, const struct rs_who *who, struct rs_kek *kek, bool make, int status,
                   const char *why, rs_kek_done *done, void *arg)
{
    audit(d, who, make, kek->provider, kek->key, status, false);
    if (kek->event != NULL) raise_event(d, who->tenant, who, kek, why);
    if (kek->event == NULL) kek->event = "";
    if (kek->reason == NULL) kek->reason = "";
    done(d, arg, status, kek, why);
}

static void refuse_unknown(struct rs_keyd *d, const struct rs_who *who, const char *provider, const char *key,
                           bool make, rs_kek_done *done, void *arg)
{
    char why[400];
    struct rs_kek kek = {.event = make ? RS_EVENT_KEY_GENERATE : RS_EVENT_KMS_ERROR,
                         .reason = "KeyStateClusterInvalid"};
    (void)snprintf(kek.provider, sizeof(kek.provider), "%s", provider);
    (void)snprintf(kek.key, sizeof(kek.key), "%s", key);
    const char *left_out = rs_providers_left_out(d, who->tenant, provider);
    if (left_out == NULL) left_out = rs_providers_left_out(d, "", provider);
    if (left_out != NULL)
        (void)snprintf(
            why, sizeof(why),
            "key provider %s cannot be used: %s: put it back from a backup of the state folder or of the "
            "provider",
            kek.provider, left_out);
    else if (*provider == '\0')
        (void)snprintf(why, sizeof(why), "there is no default key provider: 'reseal provider add' makes one");
    else
        (void)snprintf(why, sizeof(why),
                       "there is no key provider '%s': add it again under that name ('reseal provider add')",
                       kek.provider);
    refuse(d, who, &kek, make, RESEAL_ENOKEY, why, done, arg);
}

/* ---- requests ---------------------------------------------------------------------------------- */

static void request_free(struct rs_keyd *d, struct rs_kek_request *r)
{
    struct rs_kek_request **at = &d->keks.requests;
    while (*at != r) at = &(*at)->next;
    *at = r->next;
    free(r);
}

/* Tells all who wait; each may ask for more, or end what others wait for. */
static void hand_out(struct rs_keyd *d, struct rs_kek_request *r, int status, const struct rs_kek *kek,
                     const char *why)
{
    if (r->wants == NULL) audit(d, &r->who, r->make, kek->provider, kek->key, status, false);
    while (r->wants != NULL) {
        struct want *w = r->wants;
        r->wants = w->next;
        audit(d, &w->who, r->make, kek->provider, kek->key, status, false);
        w->done(d, w->arg, status, kek, why);
        free(w);
    }
    request_free(d, r);
}

/* Keeps what came, as long as the provider says. */
static void keep(struct rs_keyd *d, const struct rs_kek_request *r, const uint8_t *bytes)
{
    struct rs_provider *p = rs_providers_of(d, r->tenant, r->provider);
    uint32_t s = p != NULL ? rs_provider_cache_s(p) : 0;
    /* Without room it is only used now. */
    if (s == 0 || put(d, r->tenant, r->provider, r->key, bytes, now_ns() + s * SECOND) != 0) return;
    struct rs_kek_entry *e = entry_of(d, r->tenant, r->provider, r->key);
    if (e != NULL && r->noted != 0) e->noted = r->noted;
}

/* ---- what a key is used for --------------------------------------------------------------------- */

static uint64_t hash_of(const json_t *details)
{
    RS_FREE char *text = details != NULL ? json_dumps(details, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
    return text != NULL ? rs_fnv_text(RS_FNV_START, text) : 0;
}

static void noted(struct rs_keyd *d, void *arg, struct rs_task_answer *a)
{
    (void)arg, (void)a; /* best effort */
    d->keks.notes--;
}

/* A key that is in memory is used for something else than its server knows of: it is told, and nobody waits
 * for that. */
static void note(struct rs_keyd *d, struct rs_kek_entry *e, const json_t *details)
{
    static char nobody;
    if (details == NULL || d->keks.notes >= NOTES) return;
    struct rs_provider *p = rs_providers_of(d, e->tenant, e->provider);
    if (p == NULL || p->kind != &rs_provider_standard) return;
    uint64_t h = hash_of(details);
    if (h == 0 || h == e->noted) return;
    json_t *more = json_pack("{s:s, s:o}", "key", e->key, "details", json_deep_copy(details));
    if (more == NULL) return;
    e->noted = h;
    d->keks.notes++;
    rs_provider_ask(d, p, "fetch", more, noted, &nobody);
}

static void answered(struct rs_keyd *d, void *arg, struct rs_task_answer *a)
{
    struct rs_kek_request *r = arg;
    struct rs_provider *p = rs_providers_of(d, r->tenant, r->provider);
    const struct rs_secret *secret = a->status == 0 ? rs_secrets_find(a->secrets, "kek") : NULL;
    const char *id = json_string_value(json_object_get(a->result, "key")), *why = a->why;
    int status = a->status;
    struct rs_kek kek = {.event = "", .reason = ""};
    char object[OBJECT_MAX];
    RS_KEYMEM uint8_t *bytes = rs_keymem_alloc(RS_KEK_LEN);
    r->finished = true;
    if (status == 0 && r->make && id != NULL && strlen(id) < sizeof(r->key))
        (void)snprintf(r->key, sizeof(r->key), "%s", id);
    if (status == 0 && (bytes == NULL || secret == NULL || secret->len != RS_KEK_LEN || r->key[0] == '\0')) {
        status = bytes == NULL ? RESEAL_ENOMEM : RESEAL_EPROTO;
        why = "the key provider gave no key of 256 bits";
    }
    (void)snprintf(kek.provider, sizeof(kek.provider), "%s", r->provider);
    (void)snprintf(kek.key, sizeof(kek.key), "%s", r->key);
    if (status == 0) {
        memcpy(bytes, secret->bytes, RS_KEK_LEN);
        kek.bytes = bytes;
        keep(d, r, bytes);
        object_of(r->provider, r->key, object);
        rs_events_went_well(d, r->tenant, object);
        rs_events_went_well(d, r->who.tenant, object);
        rs_hosts_key_used(d, r->tenant, r->provider, r->key);
        if (r->make) rs_tenants_key_made(d, r->who.tenant, r->provider, r->key);
        why = "";
    } else {
        verdict(status, p != NULL && p->kind->here, &kek);
        if (r->make) kek.event = RS_EVENT_KEY_GENERATE;
        if (a->event != NULL && *a->event != '\0') kek.event = a->event;
        raise_event(d, r->tenant, &r->who, &kek, why);
    }
    hand_out(d, r, status, &kek, why);
}

static int join(struct rs_kek_request *r, const struct rs_who *who, rs_kek_done *done, void *arg)
{
    struct want *w = malloc(sizeof(*w));
    if (w == NULL) return RESEAL_ENOMEM;
    *w = (struct want){.who = *who, .done = done, .arg = arg};
    struct want **at = &r->wants;
    while (*at != NULL) at = &(*at)->next;
    *at = w;
    return 0;
}

static struct rs_kek_request *request_of(struct rs_keyd *d, const struct rs_provider *p, const char *key)
{
    struct rs_kek_request *r = d->keks.requests;
    while (r != NULL && (r->make || r->finished || strcmp(r->key, key) != 0 ||
                         strcmp(r->provider, p->name) != 0 || strcmp(r->tenant, p->tenant) != 0))
        r = r->next;
    return r;
}

/* A new request to the provider, or one that is under way for the same key. */
static void ask(struct rs_keyd *d, const struct rs_who *who, struct rs_provider *p, const char *key,
                const json_t *details, rs_kek_done *done, void *arg)
{
    bool make = *key == '\0';
    struct rs_kek_request *r = make ? NULL : request_of(d, p, key);
    bool fresh = r == NULL;
    if (fresh) r = calloc(1, sizeof(*r));
    if (r == NULL || join(r, who, done, arg) != 0) {
        struct rs_kek kek = {.event = "", .reason = ""};
        if (fresh) free(r);
        done(d, arg, RESEAL_ENOMEM, &kek, reseal_strerror(RESEAL_ENOMEM));
        return;
    }
    if (!fresh) return;
    r->make = make;
    r->who = *who;
    r->noted = hash_of(details);
    (void)snprintf(r->tenant, sizeof(r->tenant), "%s", p->tenant);
    (void)snprintf(r->provider, sizeof(r->provider), "%s", p->name);
    (void)snprintf(r->key, sizeof(r->key), "%s", key);
    r->next = d->keks.requests;
    d->keks.requests = r;
    json_t *more = json_object();
    if (!make) (void)json_object_set_new(more, "key", json_string(key));
    if (details != NULL) (void)json_object_set_new(more, "details", json_deep_copy(details));
    rs_provider_ask(d, p, make ? "make" : "fetch", more, answered, r);
}

void rs_kek_make(struct rs_keyd *d, const struct rs_who *who, const char *provider, const json_t *details,
                 rs_kek_done *done, void *arg)
{
    struct rs_provider *p = rs_providers_find(d, who->tenant, provider);
    if (p == NULL) {
        refuse_unknown(d, who, provider, "", true, done, arg);
        return;
    }
    if (!p->usable) {
        char why[256];
        struct rs_kek kek = {.event = RS_EVENT_NOT_BACKED_UP, .reason = "KeyStateManagedByNKP"};
        (void)snprintf(kek.provider, sizeof(kek.provider), "%s", p->name);
        (void)snprintf(
            why, sizeof(why),
            "key provider %s cannot be used before it has a backup: 'reseal provider export %s --output "
            "FILE' makes it",
            p->name, p->name);
        refuse(d, who, &kek, true, RESEAL_EPERM, why, done, arg);
        return;
    }
    ask(d, who, p, "", details, done, arg);
}

void rs_kek_get(struct rs_keyd *d, const struct rs_who *who, const char *provider, const char *key,
                const json_t *details, rs_kek_done *done, void *arg)
{
    const char *scope, *name;
    struct rs_kek kek = {.event = "", .reason = ""};
    scope_of(d, who->tenant, provider, &scope, &name);
    if (*key == '\0' || strlen(key) >= sizeof(kek.key) || strlen(name) >= sizeof(kek.provider)) {
        done(d, arg, RESEAL_EINVAL, &kek, "a key id has 1 to 511 bytes");
        return;
    }
    (void)snprintf(kek.provider, sizeof(kek.provider), "%s", name);
    (void)snprintf(kek.key, sizeof(kek.key), "%s", key);
    struct rs_kek_entry *e = entry_here(d, scope, name, key);
    if (e != NULL) {
        RS_KEYMEM uint8_t *bytes = rs_keymem_alloc(RS_KEK_LEN);
        e->used = now_ns();
        audit(d, who, false, name, key, 0, true);
        /* A copy: what comes now may make it forgotten. */
        if (bytes != NULL) memcpy(bytes, e->bytes, RS_KEK_LEN);
        note(d, e, details);
        kek.bytes = bytes;
        done(d, arg, bytes != NULL ? 0 : RESEAL_ENOMEM, &kek, bytes != NULL ? "" : "no key memory is left");
        return;
    }
    struct rs_provider *p = rs_providers_find(d, who->tenant, provider);
    if (p == NULL)
        refuse_unknown(d, who, name, key, false, done, arg);
    else
        ask(d, who, p, key, details, done, arg);
}

void rs_kek_cancel(struct rs_keyd *d, const void *arg)
{
    struct rs_kek_request *next;
    for (struct rs_kek_request *r = d->keks.requests; r != NULL; r = next) {
        next = r->next;
        for (struct want **at = &r->wants; *at != NULL;) {
            struct want *w = *at;
            if (w->arg != arg) {
                at = &w->next;
                continue;
            }
            *at = w->next;
            free(w);
        }
        /* One that makes a key goes on: the key server would have one that nobody knows of; the audit does.
         */
        if (r->wants != NULL || r->finished || r->make) continue;
        r->finished = true; /* nobody joins any more */
        rs_provider_cancel(d, r);
        request_free(d, r);
        next = d->keks.requests; /* others may have been started and have ended meanwhile */
    }
}

static bool any(const struct rs_kek_entry *e, const void *arg)
{
    (void)e, (void)arg;
    return true;
}

void rs_kek_free(struct rs_keyd *d)
{
    (void)forget(d, any, NULL);
    while (d->keks.requests != NULL) {
        struct rs_kek_request *r = d->keks.requests;
        d->keks.requests = r->next;
        while (r->wants != NULL) {
            struct want *w = r->wants;
            r->wants = w->next;
            free(w);
        }
        free(r);
    }
}
