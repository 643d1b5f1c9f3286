/* SPDX-License-Identifier: Apache-2.0 */
/* Backups of native providers: made by provider.export, which makes them usable, and read back. */
#include "providers/key/providers.h"

#include "providers/key/native/provider.h"

#include <stdio.h>
#include <stdlib.h>

struct backup {
    uint32_t serial;
    bool wants_default;
    char name[RS_PROVIDER_NAME_MAX];
    const char *tenant;
};

static void drop_backup(struct rs_rpc *call)
{
    free(call->state);
}

static struct backup *new_backup(struct rs_rpc *call, const char *name, const char *tenant)
{
    struct backup *b = calloc(1, sizeof(*b));
    if (b == NULL) {
        rs_rpc_fail(call, RESEAL_ENOMEM, NULL);
        return NULL;
    }
    (void)snprintf(b->name, sizeof(b->name), "%s", name);
    b->tenant = tenant;
    call->state = b;
    call->drop = drop_backup;
    return b;
}

/* ---- export ------------------------------------------------------------------------------------- */

static void tell_backed_up(struct rs_keyd *d, const char *tenant)
{
    for (const struct rs_provider *p = d->providers.first; p != NULL; p = p->next)
        if (!p->usable && strcmp(p->tenant, tenant) == 0) return;
    rs_event(d, tenant, RS_EVENT_ALL_BACKED_UP, "all native key providers have a backup", NULL);
}

static void exported(struct rs_keyd *d, void *arg, struct rs_task_answer *a)
{
    struct rs_rpc *call = arg;
    const struct backup *b = call->state;
    struct rs_provider *p = rs_providers_by_serial(d, b->serial);
    char name[RS_PROVIDER_NAME_MAX];
    memcpy(name, b->name, sizeof(name));
    if (a->status != 0 || p == NULL || a->fd < 0) {
        struct rs_task_answer gone = {
            .status = RESEAL_ENOKEY, .fd = -1, .why = "the key provider was removed meanwhile", .event = ""};
        rs_rpc_refuse_as(call, name, a->status != 0 ? a : &gone);
        return;
    }
    bool was_usable = p->usable;
    p->usable = true;
    int r = was_usable ? 0 : rs_providers_save(d, p);
    if (r != 0) {
        p->usable = false;
        rs_rpc_refuse(call, name, r,
                      "the state folder of the service cannot be written: look at its space and its mode");
        return;
    }
    if (!was_usable) tell_backed_up(d, p->tenant);
    int fd = a->fd;
    a->fd = -1;
    rs_rpc_done(call, name, NULL, fd);
}

void rs_provider_export(struct rs_rpc *call)
{
    const struct rs_client *client = call->client;
    if (!rs_rpc_args(call, "provider")) return;
    struct rs_provider *p = rs_rpc_own_provider(call);
    if (p == NULL) return;
    if (!rs_policy_has(call->d->policy, client->uid, client->gid, client->tenant, RS_PRIV_MANAGE_KEYS)) {
        rs_rpc_refuse(call, p->name, RESEAL_EPERM, "%s needs the privilege %s too: see reseal-policy(5)",
                      call->method, rs_privilege_names[RS_PRIV_MANAGE_KEYS]);
        return;
    }
    if (p->kind != &rs_provider_native) {
        rs_rpc_refuse(call, p->name, RESEAL_ENOSUPPORT,
                      "key provider %s is a %s one: its keys are backed up where they are kept", p->name,
                      p->kind->name);
        return;
    }
    struct backup *b = new_backup(call, p->name, p->tenant);
    if (b == NULL) return;
    b->serial = p->serial;
    json_t *args = json_pack("{s:s}", "name", p->name);
    int r = args == NULL ? RESEAL_ENOMEM
                         : rs_task_start(call->d, &rs_task_native_export, client->uid, args, &p->secrets,
                                         call->fds, 1, exported, call);
    json_decref(args);
    if (r != 0) rs_rpc_fail(call, r, NULL);
}

/* ---- import --------------------------------------------------------------------------------------- */

/* The one of that name whose key this is: only what a crash or a mistake took is put back. False: it is
 * another's. */
static bool put_back(struct rs_keyd *d, struct rs_provider *p, json_t *config, const struct rs_secret *kdk,
                     int *status)
{
    const json_t *id = json_object_get(config, "id");
    if (p->kind != &rs_provider_native || id == NULL || !json_equal(id, json_object_get(p->config, "id")))
        return false;
    p->usable = true;
    *status = rs_secrets_put(&p->secrets, "kdk", kdk->bytes, kdk->len);
    if (*status == 0) *status = rs_providers_save(d, p);
    return true;
}

static int take(struct rs_keyd *d, const struct backup *b, const struct rs_secret *kdk, char *why,
                struct rs_provider **p)
{
    struct rs_secrets secrets = {0};
    json_t *config = json_object();
    int r = config == NULL ? RESEAL_ENOMEM : rs_secrets_put(&secrets, "kdk", kdk->bytes, kdk->len);
    if (r == 0) r = rs_provider_native.check(config, &secrets, why, RS_TASK_WHY);
    *p = rs_providers_of(d, b->tenant, b->name);
    if (r == 0 && *p != NULL && !put_back(d, *p, config, kdk, &r)) {
        (void)snprintf(why, RS_TASK_WHY,
                       "there is another key provider %s already: import it under another name", b->name);
        r = RESEAL_EBUSY;
    } else if (r == 0 && *p == NULL) {
        const struct rs_provider_new n = {.name = b->name,
                                          .tenant = b->tenant,
                                          .kind = &rs_provider_native,
                                          .config = json_incref(config),
                                          .secrets = &secrets,
                                          .usable = true};
        r = rs_providers_add(d, &n, p);
        if (r == 0) rs_providers_restored(d, *p);
    }
    json_decref(config);
    rs_secrets_free(&secrets);
    return r;
}

static void imported(struct rs_keyd *d, void *arg, struct rs_task_answer *a)
{
    struct rs_rpc *call = arg;
    const struct backup *b = call->state;
    const struct rs_secret *kdk = a->status == 0 ? rs_secrets_find(a->secrets, "kdk") : NULL;
    struct rs_provider *p = NULL;
    char why[RS_TASK_WHY] = "", name[RS_PROVIDER_NAME_MAX];
    memcpy(name, b->name, sizeof(name));
    if (a->status != 0) {
        rs_rpc_refuse_as(call, name, a);
        return;
    }
    int r = kdk != NULL && kdk->len == RS_NATIVE_SECRET_LEN ? take(d, b, kdk, why, &p) : RESEAL_EFORMAT;
    if (r != 0) {
        rs_rpc_refuse(call, name, r, "%s", why[0] != '\0' ? why : reseal_strerror(r));
        return;
    }
    rs_provider_may_be_default(d, p, b->wants_default);
    rs_rpc_done(call, name, rs_provider_shown(d, call->client->tenant, p), -1);
}

void rs_provider_import(struct rs_rpc *call)
{
    if (!rs_rpc_args(call, "name default shared")) return;
    const char *name = rs_rpc_need(call, "name", RS_PROVIDER_NAME_MAX);
    int wants_default = name != NULL ? rs_rpc_flag(call, "default") : -1;
    const char *tenant = wants_default >= 0 ? rs_rpc_new_tenant(call) : NULL;
    if (tenant == NULL) return;
    if (!rs_provider_name_ok(name)) {
        rs_rpc_fail(call, RESEAL_EINVAL,
                    "a key provider's name has 1 to 63 letters, digits, '.', '-' and '_'");
        return;
    }
    struct backup *b = new_backup(call, name, tenant);
    if (b == NULL) return;
    b->wants_default = wants_default == 1;
    int r = rs_task_start(call->d, &rs_task_native_import, call->client->uid, NULL, NULL, call->fds, 2,
                          imported, call);
    if (r != 0) rs_rpc_fail(call, r, NULL);
}
