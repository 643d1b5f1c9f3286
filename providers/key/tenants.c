/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tenants that are added while the service runs. One object of the store, "tenants.json", holds them:
 * name -> {"policy": as under "tenants" of reseal-policy(5), "suspended", "added", "offboarded"}; one of the
 * policy file is there only when something was decided about it. A change makes a new policy of the file and
 * all of these, and counts once it is on disk.
 */
#include "providers/key/keyd.h"
#include "providers/key/rooms.h"
#include "providers/key/store.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define OBJECT      "tenants.json"
#define TENANTS_MAX 1024u
#define NAME_MAX_   64u

/* ---- the store and the policy ---------------------------------------------------------- */

int rs_tenants_open(struct rs_keyd *d)
{
    int r = d->store != NULL ? rs_store_get_json(d->store, OBJECT, &d->tenants) : RESEAL_ENOKEY;
    if (r == RESEAL_ENOKEY) d->tenants = json_object();
    if (r != 0 && r != RESEAL_ENOKEY) return r;
    return json_is_object(d->tenants) ? 0 : RESEAL_EFORMAT;
}

void rs_tenants_close(struct rs_keyd *d)
{
    json_decref(d->tenants);
    d->tenants = NULL;
}

static void left_out(void *arg, const char *name, const char *why)
{
    (void)arg;
    (void)fprintf(stderr, "reseal-keyd: the added tenant %s is left out: %s\n", name, why);
}

/* The policy with the tenants of `all`. */
static int policy_of(const struct rs_keyd *d, const json_t *all,
                     void (*refused)(void *arg, const char *name, const char *why), void *arg,
                     struct rs_policy **out, char *why, size_t why_len)
{
    const char *name;
    json_t *entry, *added = json_object(), *suspended = json_object();
    json_object_foreach((json_t *)(uintptr_t)all, name, entry)
    {
        json_t *policy = json_object_get(entry, "policy");
        if (policy != NULL) (void)json_object_set(added, name, policy);
        if (json_is_true(json_object_get(entry, "suspended")))
            (void)json_object_set_new(suspended, name, json_true());
    }
    const struct rs_policy_more more = {
        .tenants = added, .refused = refused, .arg = arg, .suspended = suspended};
    int r = rs_policy_load_with(d->policy_path, &more, out, why, why_len);
    json_decref(added);
    json_decref(suspended);
    return r;
}

static void replace_policy(struct rs_keyd *d, struct rs_policy *policy)
{
    rs_policy_free(d->policy);
    d->policy = policy;
}

int rs_tenants_load_policy(struct rs_keyd *d, char *why, size_t why_len)
{
    struct rs_policy *policy;
    int r = policy_of(d, d->tenants, left_out, NULL, &policy, why, why_len);
    if (r == 0) replace_policy(d, policy);
    return r;
}

struct refusal {
    const char *name;
    char why[256];
};

static void refused(void *arg, const char *name, const char *why)
{
    struct refusal *r = arg;
    if (strcmp(r->name, name) == 0)
        (void)snprintf(r->why, sizeof(r->why), "%s", why);
    else
        left_out(NULL, name, why);
}

/* Puts `all` in place of what there was: in the policy, on disk, in memory. Takes it. */
static int commit(struct rs_keyd *d, json_t *all, const char *name, char *why, size_t why_len)
{
    struct rs_policy *policy = NULL;
    struct refusal refusal = {.name = name};
    int r = policy_of(d, all, refused, &refusal, &policy, why, why_len);
    if (r == 0 && refusal.why[0] != '\0') {
        (void)snprintf(why, why_len, "%s", refusal.why);
        r = RESEAL_EINVAL;
    }
    if (r == 0) {
        r = d->store != NULL ? rs_store_put_json(d->store, OBJECT, all) : RESEAL_ENOSUPPORT;
        if (r != 0) (void)snprintf(why, why_len, "the state folder: %s", reseal_strerror(r));
    }
    if (r != 0) {
        rs_policy_free(policy);
        json_decref(all);
        return r;
    }
    replace_policy(d, policy);
    json_decref(d->tenants);
    d->tenants = all;
    return 0;
}

static void set_time(json_t *entry, const char *member)
{
    char text[32];
    struct tm tm;
    time_t now = time(NULL);
    (void)gmtime_r(&now, &tm);
    (void)strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm);
    (void)json_object_set_new(entry, member, json_string(text));
}

int rs_tenants_change(struct rs_keyd *d, const char *name, enum rs_tenant_change change, char *why,
                      size_t why_len)
{
    json_t *all = json_deep_copy(d->tenants);
    json_t *entry = json_object_get(all, name);
    if (entry == NULL) {
        entry = json_object();
        (void)json_object_set_new(all, name, entry);
    }
    (void)json_object_set_new(entry, "suspended", json_boolean(change != RS_TENANT_RESUME));
    if (change == RS_TENANT_GONE) {
        (void)json_object_del(entry, "policy");
        set_time(entry, "offboarded");
    }
    if (change == RS_TENANT_RESUME && json_object_get(entry, "policy") == NULL)
        (void)json_object_del(all, name);
    return commit(d, all, name, why, why_len);
}

void rs_tenants_end_clients(struct rs_keyd *d, const char *tenant)
{
    struct rs_client *next;
    for (struct rs_client *c = d->clients; c != NULL; c = next) {
        next = c->next;
        if (c->greeted && strcmp(c->tenant, tenant) == 0) rs_keyd_drop(d, c);
    }
}

unsigned rs_tenants_end_strangers(struct rs_keyd *d)
{
    unsigned ended = 0;
    struct rs_client *next;
    for (struct rs_client *c = d->clients; c != NULL; c = next) {
        const struct rs_tenant *t;
        next = c->next;
        if (!c->greeted) continue;
        if (rs_policy_tenant(d->policy, c->uid, c->gid, c->tenant, &t) == 0 && !t->suspended) {
            c->max_keys = t->max_keys;
        } else {
            rs_keyd_drop(d, c);
            ended++;
        }
    }
    return ended;
}

/* ---- who may, and which ------------------------------------------------------------------ */

bool rs_rpc_administrator(struct rs_rpc *call)
{
    const struct rs_client *c = call->client;
    if (rs_events_all_visible(c->uid) || rs_policy_administrator(call->d->policy, c->uid, c->gid))
        return true;
    rs_rpc_fail(call, RESEAL_EPERM,
                "%s is for root, the user of the service, and \"administrators\" of reseal-policy(5)",
                call->method);
    return false;
}

bool rs_tenants_may(struct rs_rpc *call)
{
    if (call->d->policy_path == NULL) {
        rs_rpc_fail(call, RESEAL_ENOSUPPORT,
                    "this service is private to one user: tenants need one that was started with --policy");
        return false;
    }
    return rs_rpc_administrator(call);
}

/* The tenant that the argument "name" names; NULL: the call has failed. */
static const struct rs_tenant *tenant_of(struct rs_rpc *call)
{
    const char *name = rs_rpc_need(call, "name", NAME_MAX_);
    const struct rs_tenant *t = name != NULL ? rs_policy_tenant_named(call->d->policy, name) : NULL;
    if (name != NULL && t == NULL)
        rs_rpc_fail(call, RESEAL_ENOKEY, "there is no tenant %s: 'reseal tenant list' has those there are",
                    name);
    return t;
}

static void audit(struct rs_rpc *call, const char *name, int status, json_t *details)
{
    char object[80];
    const struct rs_who who = rs_who_of(call->client);
    (void)snprintf(object, sizeof(object), "tenant:%s", name);
    rs_audit(call->d, &who, call->method, object, status, details);
}

/* Ends the call as the change ended; an event tells those who watch. */
static void finish(struct rs_rpc *call, const char *name, int r, const char *why, const char *event)
{
    char id[64], message[160];
    audit(call, name, r, NULL);
    if (r != 0) {
        rs_rpc_fail(call, r, "%s", why);
        return;
    }
    (void)snprintf(id, sizeof(id), "reseal.tenant.%s", event);
    (void)snprintf(message, sizeof(message), "tenant %s: %s", name, event);
    rs_event(call->d, name, id, message, json_pack("{s:I}", "by", (json_int_t)call->client->uid));
    rs_rpc_answer(call, NULL, -1);
}

/* ---- methods ------------------------------------------------------------------------------ */

static bool name_ok(const char *name)
{
    if (name[0] == '.' || name[0] == '-') return false;
    for (const char *c = name; *c != '\0'; c++)
        if (*c <= ' ' || *c > '~' || strchr("/*@:\"\\", *c) != NULL) return false;
    return true;
}

static void add(struct rs_rpc *call)
{
    char why[256];
    const char *name = rs_rpc_args(call, "name users groups weight max-keys max-sessions allow roles pairs")
                           ? rs_rpc_need(call, "name", NAME_MAX_)
                           : NULL;
    if (name == NULL || !rs_tenants_may(call)) return;
    char copy[NAME_MAX_];
    (void)snprintf(copy, sizeof(copy), "%s", name);
    const json_t *old = json_object_get(call->d->tenants, name);
    if (!name_ok(name)) {
        rs_rpc_fail(call, RESEAL_EINVAL,
                    "a tenant's name is of visible letters without / * @ : and does not begin with . or -");
    } else if (rs_policy_tenant_named(call->d->policy, name) != NULL ||
               json_object_get(old, "policy") != NULL) {
        rs_rpc_fail(call, RESEAL_EBUSY, "there is a tenant %s already", copy);
    } else if (json_object_size(call->d->tenants) >= TENANTS_MAX) {
        rs_rpc_fail(call, RESEAL_ELIMIT, "more than %u added tenants", TENANTS_MAX);
    } else {
        json_t *all = json_deep_copy(call->d->tenants), *policy = json_deep_copy(call->args);
        json_t *entry = json_object();
        (void)json_object_del(policy, "name");
        (void)json_object_set_new(entry, "policy", policy);
        set_time(entry, "added");
        (void)json_object_set_new(all, copy, entry);
        finish(call, copy, commit(call->d, all, copy, why, sizeof(why)), why, "Added");
    }
}

static void quota(struct rs_rpc *call)
{
    static const char *const limits[] = {"weight", "max-keys", "max-sessions"};
    char why[256];
    const struct rs_tenant *t = rs_rpc_args(call, "name weight max-keys max-sessions") && rs_tenants_may(call)
                                    ? tenant_of(call)
                                    : NULL;
    if (t == NULL) return;
    char name[NAME_MAX_];
    (void)snprintf(name, sizeof(name), "%s", t->name);
    if (!t->run_time) {
        rs_rpc_fail(call, RESEAL_EINVAL,
                    "tenant %s is one of the policy file: change its limits there, then SIGHUP", name);
        return;
    }
    json_t *all = json_deep_copy(call->d->tenants);
    json_t *policy = json_object_get(json_object_get(all, name), "policy");
    for (unsigned i = 0; i < RS_ARRAY_LEN(limits); i++) {
        json_t *value = json_object_get(call->args, limits[i]);
        /* 0: no limit of its own, which a tenant says by having none. */
        if (value != NULL && json_is_integer(value) && json_integer_value(value) == 0 && i == 2)
            (void)json_object_del(policy, limits[i]);
        else if (value != NULL)
            (void)json_object_set(policy, limits[i], value);
    }
    finish(call, name, commit(call->d, all, name, why, sizeof(why)), why, "QuotaChanged");
}

static void suspend_or_not(struct rs_rpc *call, enum rs_tenant_change change, const char *event)
{
    char why[256], name[NAME_MAX_];
    const struct rs_tenant *t = rs_rpc_args(call, "name") && rs_tenants_may(call) ? tenant_of(call) : NULL;
    if (t == NULL) return;
    (void)snprintf(name, sizeof(name), "%s", t->name);
    if (change == RS_TENANT_SUSPEND && strcmp(name, call->client->tenant) == 0) {
        rs_rpc_fail(call, RESEAL_EINVAL, "this connection counts for tenant %s itself: suspend it as another",
                    name);
        return;
    }
    int r = rs_tenants_change(call->d, name, change, why, sizeof(why));
    if (r == 0 && change == RS_TENANT_SUSPEND) rs_tenants_end_clients(call->d, name);
    finish(call, name, r, why, event);
}

static void suspend(struct rs_rpc *call)
{
    suspend_or_not(call, RS_TENANT_SUSPEND, "Suspended");
}
static void resume(struct rs_rpc *call)
{
    suspend_or_not(call, RS_TENANT_RESUME, "Resumed");
}

/* ---- the list ------------------------------------------------------------------------------ */

struct listing {
    const struct rs_rpc *call;
    bool all;
    json_t *list;
};

static void list_one(void *arg, const struct rs_tenant *t)
{
    struct listing *l = arg;
    const struct rs_keyd *d = l->call->d;
    json_int_t clients = 0, keys = 0;
    if (!l->all && strcmp(t->name, l->call->client->tenant) != 0) return;
    for (const struct rs_client *c = d->clients; c != NULL; c = c->next) {
        if (!c->greeted || strcmp(c->tenant, t->name) != 0) continue;
        clients++;
        keys += c->keys;
    }
    const json_t *entry = json_object_get(d->tenants, t->name), *policy = json_object_get(entry, "policy");
    json_t *one = json_pack("{s:s, s:s, s:b, s:i, s:i, s:i, s:I, s:I}", "name", t->name, "origin",
                            t->run_time ? "added" : "policy", "suspended", t->suspended, "weight",
                            (int)t->weight, "max-keys", (int)t->max_keys, "max-sessions",
                            (int)t->max_sessions, "clients", clients, "keys", keys);
    static const char *const shown[] = {"users", "groups", "allow", "roles", "pairs"};
    for (unsigned i = 0; i < RS_ARRAY_LEN(shown); i++)
        if (json_object_get(policy, shown[i]) != NULL)
            (void)json_object_set(one, shown[i], json_object_get(policy, shown[i]));
    (void)json_array_append_new(l->list, one);
}

static void list(struct rs_rpc *call)
{
    const struct rs_client *c = call->client;
    if (!rs_rpc_args(call, "")) return;
    struct listing l = {.call = call, .list = json_array()};
    l.all = rs_events_all_visible(c->uid) || rs_policy_administrator(call->d->policy, c->uid, c->gid);
    rs_policy_each_tenant(call->d->policy, list_one, &l);
    rs_rpc_answer(call, json_pack("{s:o}", "tenants", l.list), -1);
}

const struct rs_rpc_method rs_rpc_tenants[] = {
    {"tenant.add", 0, 0, RS_NO_PRIVILEGE, add},
    {"tenant.list", 0, 0, RS_NO_PRIVILEGE, list},
    {"tenant.quota", 0, 0, RS_NO_PRIVILEGE, quota},
    {"tenant.suspend", 0, 0, RS_NO_PRIVILEGE, suspend},
    {"tenant.resume", 0, 0, RS_NO_PRIVILEGE, resume},
    {"tenant.offboard", 0, 0, RS_NO_PRIVILEGE, rs_tenant_offboard},
    {"tenant.audit_key", 0, 0, RS_NO_PRIVILEGE, rs_tenant_audit_key},
    {"event.list", 0, 0, RS_NO_PRIVILEGE, rs_event_list},
    {"event.follow", 0, 0, RS_NO_PRIVILEGE, rs_event_follow},
    {"event.webhook", 0, 1, RS_PRIV_MANAGE_KEYS, rs_webhook_set},
    {"event.webhook_show", 0, 0, RS_PRIV_MANAGE_KEYS, rs_webhook_show},
    {"audit.list", 0, 0, RS_NO_PRIVILEGE, rs_audit_list},
    {NULL, 0, 0, 0, NULL},
};
