/* SPDX-License-Identifier: Apache-2.0 */
/* The method host.key: which key seals for this host, and another one, random or a key provider's. */
#include "providers/key/events.h"
#include "providers/key/host-key.h"
#include "providers/key/providers.h"

static void fail(struct rs_rpc *call, int r)
{
    if (r == RESEAL_ELIMIT)
        rs_rpc_fail(call, r, "this host keeps %u keys already, for what was sealed under them", RS_HOST_KEYS);
    else
        rs_rpc_fail(call, r, "the key of this host cannot be read or written: %s", reseal_strerror(r));
}

static void answer(struct rs_rpc *call, const struct rs_kek *from)
{
    const struct rs_who who = rs_rpc_who(call);
    struct rs_secrets keys = {0};
    int r = rs_host_key(call->d, &who, &keys);
    if (r != 0) {
        fail(call, r);
        return;
    }
    json_t *o = json_pack("{s:s, s:i}", "key", keys.at[0].name, "keys", (int)keys.n);
    if (from != NULL && o != NULL) {
        json_object_set_new(o, "provider", json_string(from->provider));
        json_object_set_new(o, "provider_key", json_string(from->key));
    }
    rs_secrets_free(&keys);
    rs_rpc_answer(call, o, -1);
}

/* Of a key that a provider does not give; the provider's own event came before it. */
static void tell(struct rs_keyd *d, const struct rs_kek *kek, const char *why)
{
    bool missing = strcmp(kek->reason, "KeyStateMissingInKMS") == 0 ||
                   strcmp(kek->reason, "KeyStateNotActiveOrEnabled") == 0;
    rs_event(d, "", missing ? RS_EVENT_NEW_KEY_MISSING : RS_EVENT_NEW_KEY_ERROR, why,
             json_pack("{ss ss ss}", "provider", kek->provider, "key", kek->key, "reason", kek->reason));
}

static void with_kek(struct rs_keyd *d, void *arg, int status, const struct rs_kek *kek, const char *why)
{
    struct rs_rpc *call = arg;
    const struct rs_who who = rs_rpc_who(call);
    char id[RS_HOST_KEY_ID];
    if (status != 0) {
        tell(d, kek, why);
        const struct rs_task_answer a = {.status = status, .fd = -1, .why = why, .event = kek->event};
        rs_rpc_fail_as(call, &a);
        return;
    }
    int r = rs_host_key_from(d, &who, kek, id);
    if (r == 0)
        answer(call, kek);
    else
        fail(call, r);
}

/* Of a provider: a new key of it, or the one that is named. A tenant's key server would know what seals the
 * dumps of all: which one does is the administrators' to say. */
static void from_provider(struct rs_rpc *call)
{
    const struct rs_who who = rs_rpc_who(call);
    const json_t *details;
    const char *provider = rs_rpc_text(call, "provider", RS_PROVIDER_NAME_MAX);
    const char *key = provider != NULL ? rs_rpc_text(call, "provider_key", RS_KEY_ID_MAX) : NULL;
    if (key == NULL || !rs_rpc_administrator(call) || !rs_rpc_key_details(call, &details)) return;
    if (*key == '\0')
        rs_kek_make(call->d, &who, provider, details, with_kek, call);
    else
        rs_kek_get(call->d, &who, provider, key, details, with_kek, call);
}

static void host_key(struct rs_rpc *call)
{
    const struct rs_who who = rs_rpc_who(call);
    char id[RS_HOST_KEY_ID];
    bool named = json_object_get(call->args, "provider") != NULL ||
                 json_object_get(call->args, "provider_key") != NULL;
    int change = rs_rpc_args(call, "change provider provider_key details") ? rs_rpc_flag(call, "change") : -1;
    if (change < 0 || (change == 1 && !rs_rpc_may(call, RS_PRIV_REGISTER_HOST))) return;
    if (change == 0 && named) {
        rs_rpc_fail(call, RESEAL_EINVAL, "provider and provider_key are for change: true");
    } else if (named) {
        from_provider(call);
    } else {
        int r = change == 1 ? rs_host_key_change(call->d, &who, id) : 0;
        if (r != 0)
            fail(call, r);
        else
            answer(call, NULL);
    }
}

const struct rs_rpc_method rs_rpc_host_key[] = {
    {"host.key", 0, 0, RS_NO_PRIVILEGE, host_key}, /* RegisterHost to change it */
    {NULL, 0, 0, 0, NULL},
};
