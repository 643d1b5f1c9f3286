/* SPDX-License-Identifier: Apache-2.0 */
/*
 * New and changed configurations of key providers: merged, checked, looked at by a closed task that also
 * reads the secrets, and taken as a whole.
 */
#include "providers/key/providers.h"

#include "providers/key/hosts.h"
#include "providers/key/source.h"
#include "providers/key/store.h"

#include <stdio.h>
#include <stdlib.h>

/* A change under way. */
struct change {
    struct rs_rpc *call;
    const struct rs_provider_kind *kind;
    uint32_t serial; /* of the provider that changes; 0: a new one */
    uint32_t sealed; /* its number when the change began: another is another's change */
    bool wants_default;
    char name[RS_PROVIDER_NAME_MAX];
    const char *tenant;
    json_t *config;
    struct rs_secrets secrets;
};

static void drop_change(struct rs_rpc *call)
{
    struct change *c = call->state;
    json_decref(c->config);
    rs_secrets_free(&c->secrets);
    free(c);
}

static struct change *new_change(struct rs_rpc *call, const char *name, const char *tenant,
                                 const struct rs_provider_kind *kind)
{
    struct change *c = calloc(1, sizeof(*c));
    if (c == NULL) {
        rs_rpc_fail(call, RESEAL_ENOMEM, NULL);
        return NULL;
    }
    *c = (struct change){.call = call, .kind = kind, .tenant = tenant};
    (void)snprintf(c->name, sizeof(c->name), "%s", name);
    call->state = c;
    call->drop = drop_change;
    return c;
}

/* ---- reading secrets, where a kind has no look of its own --------------------------------------- */

int rs_task_read_secrets(struct rs_task *t)
{
    const json_t *names = json_object_get(t->args, "names");
    if (json_array_size(names) != t->nfds) return RESEAL_EINVAL;
    for (unsigned i = 0; i < t->nfds; i++) {
        const char *name = json_string_value(json_array_get(names, i));
        struct rs_secret_text text;
        int r = rs_secret_read(t->fds[i], RS_SECRETS_ROOM / 4, &text);
        if (r == RESEAL_EINVAL)
            return rs_task_fail(t, r, "%s: is longer than %u bytes", name, RS_SECRETS_ROOM / 4);
        if (r != 0) return r;
        r = rs_secrets_put(&t->yields, name, text.bytes, text.len);
        rs_secret_free(&text);
        if (r != 0) return r;
    }
    return 0;
}

const struct rs_task_kind rs_task_secrets = {
    .name = "read-secrets", .place = RS_TASK_CLOSED, .run = rs_task_read_secrets};

/* ---- taking it ------------------------------------------------------------------------------------ */

static int take_changed(struct rs_keyd *d, struct change *c, struct rs_provider *p)
{
    json_t *config = p->config;
    struct rs_secrets secrets = p->secrets;
    p->config = json_incref(c->config);
    p->secrets = c->secrets;
    int r = rs_providers_save(d, p);
    if (r != 0) {
        json_decref(p->config);
        p->config = config;
        p->secrets = secrets;
        return r;
    }
    c->secrets = (struct rs_secrets){0};
    json_decref(config);
    rs_secrets_free(&secrets);
    json_decref(p->state); /* servers that failed may do better now */
    p->state = NULL;
    p->told_client = p->told_server = 0;
    rs_hosts_provider_back(d, p);
    return 0;
}

static int take_new(struct rs_keyd *d, struct change *c, struct rs_provider **p)
{
    const struct rs_provider_new n = {.name = c->name,
                                      .tenant = c->tenant,
                                      .kind = c->kind,
                                      .config = json_incref(c->config),
                                      .secrets = &c->secrets,
                                      .usable = c->kind != &rs_provider_native};
    return rs_providers_add(d, &n, p);
}

static void tell_not_backed_up(struct rs_keyd *d, const struct rs_provider *p)
{
    char line[256];
    (void)snprintf(
        line, sizeof(line),
        "native key provider %s has no backup yet: 'reseal provider export %s --output FILE' makes it",
        p->name, p->name);
    rs_event(d, p->tenant, RS_EVENT_NOT_BACKED_UP, line, json_pack("{s:s}", "provider", p->name));
}

static void take(struct rs_rpc *call)
{
    struct change *c = call->state;
    struct rs_keyd *d = call->d;
    struct rs_provider *p = c->serial != 0 ? rs_providers_by_serial(d, c->serial) : NULL;
    char name[RS_PROVIDER_NAME_MAX];
    memcpy(name, c->name, sizeof(name));
    if (c->serial != 0 && p == NULL) {
        rs_rpc_refuse(call, name, RESEAL_ENOKEY, "key provider %s was removed meanwhile", name);
        return;
    }
    if (c->serial != 0 && p->sealed != c->sealed) {
        rs_rpc_refuse(call, name, RESEAL_EBUSY,
                      "key provider %s was changed by somebody else meanwhile: look at it and try again",
                      name);
        return;
    }
    int r = c->serial != 0 ? take_changed(d, c, p) : take_new(d, c, &p);
    if (r == 0) {
        if (!p->usable && c->serial == 0) tell_not_backed_up(d, p);
        if (c->serial == 0 || c->wants_default) rs_provider_may_be_default(d, p, c->wants_default);
        rs_rpc_done(call, name, rs_provider_shown(d, call->client->tenant, p), -1);
    } else if (r == RESEAL_EBUSY) {
        rs_rpc_refuse(call, name, r, "there is a key provider %s already: choose another name, or change it",
                      name);
    } else if (r == RESEAL_ENOSUPPORT) {
        rs_rpc_refuse(
            call, name, r,
            "the service has no state folder to keep key providers in: start reseald with --state-dir");
    } else if (r == RESEAL_ELIMIT) {
        rs_rpc_refuse(call, name, r, "there are %u key providers already: remove one", RS_PROVIDERS_MAX);
    } else {
        rs_rpc_refuse(call, name, r,
                      "the state folder of the service cannot be written: look at its space and its mode");
    }
}

static void looked_at(struct rs_keyd *d, void *arg, struct rs_task_answer *a)
{
    struct rs_rpc *call = arg;
    struct change *c = call->state;
    json_t *config = json_object_get(a->result, "config");
    (void)d;
    if (a->status != 0) {
        char name[RS_PROVIDER_NAME_MAX];
        memcpy(name, c->name, sizeof(name));
        rs_rpc_refuse_as(call, name, a);
        return;
    }
    if (json_is_object(config)) {
        json_decref(c->config);
        c->config = json_deep_copy(config);
    }
    for (unsigned i = 0; i < a->secrets->n; i++) {
        const struct rs_secret *s = &a->secrets->at[i];
        if (rs_secrets_put(&c->secrets, s->name, s->bytes, s->len) == 0) continue;
        rs_rpc_fail(call, RESEAL_ENOMEM, NULL);
        return;
    }
    take(call);
}

/* A server that is new would be sent the password that somebody else may have given for the others. */
static bool shows_password(const struct rs_provider *p, const json_t *config, const json_t *names)
{
    const json_t *before = json_object_get(p->config, "servers"), *server;
    json_t *password = json_string("password");
    size_t i;
    bool given = rs_json_has(names, password);
    json_decref(password);
    if (given || rs_secrets_find(&p->secrets, "password") == NULL) return false;
    json_array_foreach(json_object_get(config, "servers"), i, server)
    {
        if (!rs_json_has(before, server)) return true;
    }
    return false;
}

/* Checks the configuration and lets a child look at it, with the call's descriptors. */
static void look_at(struct rs_rpc *call, json_t *names)
{
    struct change *c = call->state;
    char why[RS_TASK_WHY] = "", name[RS_PROVIDER_NAME_MAX];
    memcpy(name, c->name, sizeof(name));
    int r = c->kind->check(c->config, &c->secrets, why, sizeof(why));
    if (r != 0) {
        json_decref(names);
        rs_rpc_refuse(call, name, r, "%s", why[0] != '\0' ? why : reseal_strerror(r));
        return;
    }
    const struct rs_provider *p = c->serial != 0 ? rs_providers_by_serial(call->d, c->serial) : NULL;
    if (p != NULL && shows_password(p, c->config, names)) {
        json_decref(names);
        rs_rpc_refuse(call, name, RESEAL_EINVAL,
                      "key provider %s has a password, which is for the servers that it has now: give it "
                      "again, with --user and --password-file, for others",
                      name);
        return;
    }
    if (call->nfds == 0 && c->kind->inspect == NULL) {
        json_decref(names);
        take(call);
        return;
    }
    json_t *args =
        json_pack("{s:s, s:s, s:O, s:o}", "op", "inspect", "name", name, "config", c->config, "names", names);
    const struct rs_task_kind *kind = c->kind->inspect != NULL ? c->kind->inspect : &rs_task_secrets;
    r = args == NULL ? RESEAL_ENOMEM
                     : rs_task_start(call->d, kind, call->client->uid, args, &c->secrets, call->fds,
                                     call->nfds, looked_at, call);
    json_decref(args);
    if (r != 0) rs_rpc_fail(call, r, NULL);
}

/* ---- arguments --------------------------------------------------------------------------------------- */

/* The names of what the descriptors hold, in order; NULL: the call has failed. */
static json_t *names_of(struct rs_rpc *call)
{
    static const char *const known[] = {"key", "password"};
    json_t *given = json_object_get(call->args, "secrets"), *name;
    size_t i;
    bool ok = (given == NULL || json_is_array(given)) && json_array_size(given) == call->nfds;
    json_array_foreach(given, i, name)
    {
        const char *text = json_string_value(name);
        bool found = false;
        for (unsigned k = 0; k < RS_ARRAY_LEN(known); k++)
            found = found || (text != NULL && strcmp(text, known[k]) == 0);
        for (size_t k = 0; k < i; k++) found = found && !json_equal(name, json_array_get(given, k));
        ok = ok && found;
    }
    if (ok) return given != NULL ? json_incref(given) : json_array();
    rs_rpc_fail(call, RESEAL_EINVAL,
                "secrets: wants the names of the descriptors, in order: \"key\", \"password\"");
    return NULL;
}

/* Members of `more` replace those of the configuration; null removes one. */
static json_t *merged(const json_t *config, json_t *more)
{
    json_t *out = json_copy((json_t *)(uintptr_t)config), *value;
    const char *name;
    if (out == NULL) return NULL;
    json_object_foreach(more, name, value)
    {
        if (json_is_null(value))
            (void)json_object_del(out, name);
        else if (json_object_set(out, name, value) != 0)
            return json_decref(out), NULL;
    }
    return out;
}

/* A change of a provider that is there, with its secrets as they are. False: the call has failed. */
static bool begin_update(struct rs_rpc *call, const struct rs_provider *p, json_t *more)
{
    struct change *c = new_change(call, p->name, p->tenant, p->kind);
    if (c == NULL) return false;
    c->serial = p->serial;
    c->sealed = p->sealed;
    c->config = merged(p->config, more);
    int r = rs_secrets_copy(&c->secrets, &p->secrets);
    if (c->config != NULL && r == 0) return true;
    rs_rpc_fail(call, RESEAL_ENOMEM, NULL);
    return false;
}

/* ---- methods ------------------------------------------------------------------------------------------- */

static json_t *config_of(struct rs_rpc *call)
{
    json_t *config = json_object_get(call->args, "config");
    if (config == NULL || json_is_object(config)) return config != NULL ? json_incref(config) : json_object();
    rs_rpc_fail(call, RESEAL_EINVAL, "config: wants an object");
    return NULL;
}

void rs_provider_add(struct rs_rpc *call)
{
    if (!rs_rpc_args(call, "name kind config secrets default shared")) return;
    const char *name = rs_rpc_need(call, "name", RS_PROVIDER_NAME_MAX);
    const char *kind_name = name != NULL ? rs_rpc_need(call, "kind", 32) : NULL;
    int wants_default = kind_name != NULL ? rs_rpc_flag(call, "default") : -1;
    const char *tenant = wants_default >= 0 ? rs_rpc_new_tenant(call) : NULL;
    if (tenant == NULL) return;
    const struct rs_provider_kind *kind = rs_provider_kind_of(kind_name);
    if (kind == NULL) {
        rs_rpc_fail(call, RESEAL_EINVAL, "kind: '%s' is none of native, standard, trusted", kind_name);
        return;
    }
    if (!rs_provider_name_ok(name)) {
        rs_rpc_fail(call, RESEAL_EINVAL,
                    "a key provider's name has 1 to 63 letters, digits, '.', '-' and '_', and begins with a "
                    "letter, digit or '_'");
        return;
    }
    if (rs_providers_of(call->d, tenant, name) != NULL) {
        rs_rpc_refuse(call, name, RESEAL_EBUSY,
                      "there is a key provider %s already: choose another name, or change it", name);
        return;
    }
    const char *left_out = rs_providers_left_out(call->d, tenant, name);
    if (left_out != NULL) {
        rs_rpc_refuse(
            call, name, RESEAL_EBUSY,
            "there is a key provider %s that cannot be used: %s: put it back from a backup of the state "
            "folder or of the provider, or give it up with 'reseal provider remove %s --force'",
            name, left_out, name);
        return;
    }
    struct change *c = new_change(call, name, tenant, kind);
    if (c == NULL) return;
    c->wants_default = wants_default == 1;
    json_t *config = config_of(call);
    if (config == NULL) return;
    c->config = json_deep_copy(config);
    json_decref(config);
    json_t *names = names_of(call);
    if (names != NULL) look_at(call, names);
}

void rs_provider_update(struct rs_rpc *call)
{
    if (!rs_rpc_args(call, "provider config secrets default")) return;
    int wants_default = rs_rpc_flag(call, "default");
    struct rs_provider *p = wants_default >= 0 ? rs_rpc_own_provider(call) : NULL;
    if (p == NULL) return;
    json_t *config = config_of(call);
    if (config == NULL) return;
    bool begun = begin_update(call, p, config);
    json_decref(config);
    if (!begun) return;
    ((struct change *)call->state)->wants_default = wants_default == 1;
    json_t *names = names_of(call);
    if (names != NULL) look_at(call, names);
}

/* A text of several lines: PEM. NULL: the call has failed. */
static const char *pem_of(struct rs_rpc *call, const char *name)
{
    const char *text = json_string_value(json_object_get(call->args, name));
    if (text != NULL && *text != '\0') return text;
    rs_rpc_fail(call, RESEAL_EINVAL, "%s: wants certificates in PEM form", name);
    return NULL;
}

static void update_with(struct rs_rpc *call, const struct rs_provider *p, json_t *more)
{
    bool begun = more != NULL && begin_update(call, p, more);
    if (more == NULL) rs_rpc_fail(call, RESEAL_ENOMEM, NULL);
    json_decref(more);
    if (begun) look_at(call, json_array());
}

/* Servers of a provider may show a certificate each: a further one is added, the oldest goes when there are
 * too many. */
static json_t *with_fingerprint(const struct rs_provider *p, const char *fingerprint)
{
    json_t *before = json_object_get(p->config, "fingerprints");
    json_t *list = before != NULL ? json_copy(before) : json_array();
    (void)json_array_append_new(list, json_string(fingerprint));
    if (json_array_size(list) > 16) (void)json_array_remove(list, 0);
    return json_pack("{s:n, s:o}", "ca", "fingerprints", list);
}

static struct rs_provider *standard_of(struct rs_rpc *call)
{
    struct rs_provider *p = rs_rpc_own_provider(call);
    if (p == NULL || p->kind == &rs_provider_standard) return p;
    rs_rpc_refuse(call, p->name, RESEAL_ENOSUPPORT, "key provider %s is a %s one: it has no key server",
                  p->name, p->kind->name);
    return NULL;
}

void rs_provider_trust(struct rs_rpc *call)
{
    if (!rs_rpc_args(call, "provider fingerprint ca")) return;
    const char *fingerprint = rs_rpc_text(call, "fingerprint", 128);
    struct rs_provider *p = fingerprint != NULL ? standard_of(call) : NULL;
    if (p == NULL) return;
    if (*fingerprint != '\0') {
        update_with(call, p, with_fingerprint(p, fingerprint));
        return;
    }
    const char *ca = pem_of(call, "ca");
    if (ca != NULL) update_with(call, p, json_pack("{s:s, s:n}", "ca", ca, "fingerprints"));
}

void rs_provider_certificate(struct rs_rpc *call)
{
    if (!rs_rpc_args(call, "provider certificate")) return;
    struct rs_provider *p = standard_of(call);
    const char *pem = p != NULL ? pem_of(call, "certificate") : NULL;
    if (pem != NULL) update_with(call, p, json_pack("{s:s}", "certificate", pem));
}

/* ---- a request for a certificate ------------------------------------------------------------------------
 */

static void requested(struct rs_keyd *d, void *arg, struct rs_task_answer *a)
{
    struct rs_rpc *call = arg;
    struct change *c = call->state;
    struct rs_provider *p = rs_providers_by_serial(d, c->serial);
    const struct rs_secret *key = a->status == 0 ? rs_secrets_find(a->secrets, "pending-key") : NULL;
    if (a->status != 0 || p == NULL || key == NULL) {
        struct rs_task_answer gone = {
            .status = RESEAL_ENOKEY, .fd = -1, .why = "the key provider was removed meanwhile", .event = ""};
        char name[RS_PROVIDER_NAME_MAX];
        memcpy(name, c->name, sizeof(name));
        rs_rpc_refuse_as(call, name, a->status != 0 ? a : &gone);
        return;
    }
    int r = rs_secrets_put(&p->secrets, "pending-key", key->bytes, key->len);
    if (r == 0) r = rs_providers_save(d, p);
    if (r != 0)
        rs_rpc_refuse(call, p->name, r,
                      "the state folder of the service cannot be written: look at its space and its mode");
    else
        rs_rpc_done(call, p->name, json_pack("{s:O*}", "csr", json_object_get(a->result, "csr")), -1);
}

void rs_provider_csr(struct rs_rpc *call)
{
    if (!rs_rpc_args(call, "provider subject")) return;
    const char *subject = rs_rpc_text(call, "subject", 256);
    struct rs_provider *p = subject != NULL ? standard_of(call) : NULL;
    if (p == NULL) return;
    struct change *c = new_change(call, p->name, p->tenant, p->kind);
    if (c == NULL) return;
    c->serial = p->serial;
    json_t *args = json_pack("{s:s, s:s, s:s}", "op", "csr", "name", p->name, "subject", subject);
    int r = args == NULL ? RESEAL_ENOMEM
                         : rs_task_start(call->d, p->kind->inspect, call->client->uid, args, NULL, NULL, 0,
                                         requested, call);
    json_decref(args);
    if (r != 0) rs_rpc_fail(call, r, NULL);
}
