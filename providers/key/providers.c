/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/key/providers.h"

#include "providers/key/standard/provider.h"

#include <stdarg.h>
#include <stdio.h>

/* ---- what all of them need --------------------------------------------------------------- */

struct rs_who rs_rpc_who(const struct rs_rpc *call)
{
    const struct rs_client *c = call->client;
    struct rs_who who = {.uid = c->uid, .gid = c->gid, .pid = c->pid};
    memcpy(who.tenant, c->tenant, sizeof(who.tenant));
    return who;
}

static void audit(const struct rs_rpc *call, const char *name, int status)
{
    char object[RS_PROVIDER_NAME_MAX + 16];
    const struct rs_who who = rs_rpc_who(call);
    (void)snprintf(object, sizeof(object), "provider:%.64s", name);
    rs_audit(call->d, &who, call->method, object, status, NULL);
}

void rs_rpc_done(struct rs_rpc *call, const char *name, json_t *result, int fd)
{
    audit(call, name, 0);
    rs_rpc_answer(call, result, fd);
}

void rs_rpc_refuse(struct rs_rpc *call, const char *name, int status, const char *format, ...)
{
    char line[RS_TASK_WHY];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    audit(call, name, status);
    rs_rpc_fail(call, status, "%s", line);
}

void rs_rpc_refuse_as(struct rs_rpc *call, const char *name, const struct rs_task_answer *answer)
{
    audit(call, name, answer->status);
    rs_rpc_fail_as(call, answer);
}

struct rs_provider *rs_rpc_provider(struct rs_rpc *call)
{
    const char *name = rs_rpc_text(call, "provider", RS_PROVIDER_NAME_MAX);
    if (name == NULL) return NULL;
    struct rs_provider *p = rs_providers_find(call->d, call->client->tenant, name);
    if (p != NULL) return p;
    const char *left_out = rs_providers_left_out(call->d, call->client->tenant, name);
    if (left_out == NULL) left_out = rs_providers_left_out(call->d, "", name);
    if (*name == '\0')
        rs_rpc_fail(call, RESEAL_ENOKEY, "there is no default key provider: 'reseal provider add' makes one");
    else if (left_out != NULL)
        rs_rpc_fail(
            call, RESEAL_ENOKEY,
            "key provider %s cannot be used: %s: put it back from a backup of the state folder or of the "
            "provider",
            name, left_out);
    else
        rs_rpc_fail(call, RESEAL_ENOKEY,
                    "there is no key provider '%s': 'reseal provider list' shows those there are", name);
    return NULL;
}

struct rs_provider *rs_rpc_own_provider(struct rs_rpc *call)
{
    struct rs_provider *p = rs_rpc_provider(call);
    if (p == NULL || strcmp(p->tenant, call->client->tenant) == 0 || rs_events_all_visible(call->client->uid))
        return p;
    rs_rpc_refuse(call, p->name, RESEAL_EPERM,
                  "key provider %s is for all tenants: only root or the user of the service changes it",
                  p->name);
    return NULL;
}

const char *rs_rpc_new_tenant(struct rs_rpc *call)
{
    int shared = rs_rpc_flag(call, "shared");
    if (shared < 0) return NULL;
    if (shared == 0) return call->client->tenant;
    if (rs_events_all_visible(call->client->uid)) return "";
    rs_rpc_fail(call, RESEAL_EPERM,
                "only root or the user of the service makes key providers for all tenants");
    return NULL;
}

json_t *rs_provider_shown(const struct rs_keyd *d, const char *tenant, const struct rs_provider *p)
{
    bool is_default = strcmp(rs_providers_default(d, tenant), p->name) == 0;
    return json_pack("{s:s, s:s, s:s, s:b, s:b, s:b, s:O}", "name", p->name, "kind", p->kind->name, "tenant",
                     p->tenant, "shared", p->tenant[0] == '\0', "default", is_default, "usable", p->usable,
                     "config", p->config);
}

void rs_provider_may_be_default(struct rs_keyd *d, const struct rs_provider *p, bool want)
{
    if (!want && *rs_providers_default(d, p->tenant) != '\0') return;
    if (rs_providers_set_default(d, p->tenant, p->name) != 0)
        (void)fprintf(stderr,
                      "reseal-keyd: the default key provider could not be written to the state folder\n");
}

/* ---- methods ---------------------------------------------------------------------------------- */

/* The tenant's own, and those for all whose names it does not use itself. */
static bool sees(struct rs_keyd *d, const char *tenant, const struct rs_provider *p)
{
    return rs_providers_find(d, tenant, p->name) == p;
}

static void list(struct rs_rpc *call)
{
    if (!rs_rpc_args(call, "")) return;
    json_t *all = json_array();
    for (const struct rs_provider *p = call->d->providers.first; p != NULL; p = p->next)
        if (sees(call->d, call->client->tenant, p))
            (void)json_array_append_new(all, rs_provider_shown(call->d, call->client->tenant, p));
    json_t *left_out = json_array();
    rs_providers_list_left_out(call->d, call->client->tenant, left_out);
    if (call->client->tenant[0] != '\0') rs_providers_list_left_out(call->d, "", left_out);
    rs_rpc_answer(call, json_pack("{s:o, s:o}", "providers", all, "left_out", left_out), -1);
}

static void show(struct rs_rpc *call)
{
    if (!rs_rpc_args(call, "provider")) return;
    const struct rs_provider *p = rs_rpc_provider(call);
    if (p != NULL) rs_rpc_answer(call, rs_provider_shown(call->d, call->client->tenant, p), -1);
}

static void set_default(struct rs_rpc *call)
{
    if (!rs_rpc_args(call, "provider")) return;
    const char *name = rs_rpc_need(call, "provider", RS_PROVIDER_NAME_MAX);
    const struct rs_provider *p = name != NULL ? rs_rpc_provider(call) : NULL;
    if (p == NULL) return;
    int r = rs_providers_set_default(call->d, call->client->tenant, p->name);
    if (r != 0)
        rs_rpc_refuse(call, p->name, r,
                      "the state folder of the service cannot be written: look at its space and its mode");
    else
        rs_rpc_done(call, p->name, NULL, -1);
}

/* Keys that are in memory are in use, or soon will be again. */
static void count_key(void *arg, const char *provider, const char *key, uint64_t left_s)
{
    struct {
        const char *name;
        unsigned n;
    } *count = arg;
    (void)key, (void)left_s;
    count->n += strcmp(count->name, provider) == 0;
}

/* One that could not be read: what is left of it goes. True: it was one, and the call is over. */
static bool give_up(struct rs_rpc *call, const char *name)
{
    const char *tenant = call->client->tenant;
    if (rs_providers_of(call->d, tenant, name) != NULL) return false;
    if (rs_providers_left_out(call->d, tenant, name) == NULL && rs_events_all_visible(call->client->uid))
        tenant = "";
    if (rs_providers_of(call->d, tenant, name) != NULL) return false;
    int r = rs_providers_drop_left_out(call->d, tenant, name);
    if (r == RESEAL_ENOKEY) return false;
    if (r != 0)
        rs_rpc_refuse(call, name, r,
                      "the state folder of the service cannot be written: look at its space and its mode");
    else
        rs_rpc_done(call, name, NULL, -1);
    return true;
}

static void remove_it(struct rs_rpc *call)
{
    if (!rs_rpc_args(call, "provider force")) return;
    int force = rs_rpc_flag(call, "force");
    const char *name = force < 0 ? NULL : rs_rpc_need(call, "provider", RS_PROVIDER_NAME_MAX);
    if (name != NULL && force && give_up(call, name)) return;
    struct rs_provider *p = name != NULL ? rs_rpc_own_provider(call) : NULL;
    if (p == NULL) return;
    struct {
        const char *name;
        unsigned n;
    } count = {p->name, 0};
    char copy[RS_PROVIDER_NAME_MAX];
    rs_kek_each(call->d, p->tenant, count_key, &count);
    memcpy(copy, p->name, sizeof(copy));
    if (!force && p->kind->here && p->usable) {
        rs_rpc_refuse(
            call, p->name, RESEAL_EBUSY,
            "what was encrypted under native provider %s opens again only once its backup is imported: "
            "use --force to remove it nevertheless",
            p->name);
        return;
    }
    if (!force && count.n != 0) {
        rs_rpc_refuse(call, p->name, RESEAL_EBUSY,
                      "%u keys of key provider %s are in memory and probably in use: use --force to remove "
                      "it nevertheless",
                      count.n, p->name);
        return;
    }
    int r = rs_providers_remove(call->d, p);
    if (r != 0)
        rs_rpc_refuse(call, copy, r,
                      "the state folder of the service cannot be written: look at its space and its mode");
    else
        rs_rpc_done(call, copy, NULL, -1);
}

/* ---- methods that ask a server ------------------------------------------------------------------ */

static void drop_asked(struct rs_rpc *call)
{
    rs_provider_cancel(call->d, call);
}

static void tested(struct rs_keyd *d, void *arg, struct rs_task_answer *a)
{
    struct rs_rpc *call = arg;
    (void)d;
    if (a->status != 0) {
        rs_rpc_fail_as(call, a);
        return;
    }
    rs_rpc_answer(call, json_pack("{s:O*}", "servers", json_object_get(a->result, "servers")), -1);
}

static void test(struct rs_rpc *call)
{
    if (!rs_rpc_args(call, "provider")) return;
    struct rs_provider *p = rs_rpc_provider(call);
    if (p == NULL) return;
    call->drop = drop_asked;
    rs_provider_ask(call->d, p, "test", NULL, tested, call);
}

static void presented(struct rs_keyd *d, void *arg, struct rs_task_answer *a)
{
    struct rs_rpc *call = arg;
    (void)d;
    if (a->status != 0)
        rs_rpc_fail_as(call, a);
    else
        rs_rpc_answer(call, json_deep_copy(a->result), -1);
}

static void present(struct rs_rpc *call)
{
    if (!rs_rpc_args(call, "address proxy")) return;
    const char *address = rs_rpc_need(call, "address", 300);
    const char *proxy = address != NULL ? rs_rpc_text(call, "proxy", 300) : NULL;
    if (proxy == NULL) return;
    json_t *args = json_pack("{s:s, s:s, s:{s:[s], s:s*}}", "op", "show", "name", "", "config", "servers",
                             address, "proxy", *proxy != '\0' ? proxy : NULL);
    int r = args == NULL ? RESEAL_ENOMEM
                         : rs_task_start(call->d, rs_provider_standard.task, call->client->uid, args, NULL,
                                         NULL, 0, presented, call);
    json_decref(args);
    if (r != 0) rs_rpc_fail(call, r, NULL);
}

const struct rs_rpc_method rs_rpc_providers[] = {
    {"provider.add", 0, 2, RS_PRIV_MANAGE_KEY_SERVERS, rs_provider_add},
    {"provider.update", 0, 2, RS_PRIV_MANAGE_KEY_SERVERS, rs_provider_update},
    {"provider.list", 0, 0, RS_PRIV_READ_KEY_SERVERS_INFO, list},
    {"provider.show", 0, 0, RS_PRIV_READ_KEY_SERVERS_INFO, show},
    {"provider.test", 0, 0, RS_PRIV_READ_KEY_SERVERS_INFO, test},
    {"provider.default", 0, 0, RS_PRIV_MANAGE_KEY_SERVERS, set_default},
    {"provider.remove", 0, 0, RS_PRIV_MANAGE_KEY_SERVERS, remove_it},
    {"provider.presented", 0, 0, RS_PRIV_MANAGE_KEY_SERVERS, present},
    {"provider.trust", 0, 0, RS_PRIV_MANAGE_KEY_SERVERS, rs_provider_trust},
    {"provider.csr", 0, 0, RS_PRIV_MANAGE_KEY_SERVERS, rs_provider_csr},
    {"provider.certificate", 0, 0, RS_PRIV_MANAGE_KEY_SERVERS, rs_provider_certificate},
    {"provider.export", 1, 1, RS_PRIV_MANAGE_KEY_SERVERS, rs_provider_export},
    {"provider.import", 2, 2, RS_PRIV_MANAGE_KEY_SERVERS, rs_provider_import},
    {NULL, 0, 0, 0, NULL},
};
