/* SPDX-License-Identifier: Apache-2.0 */
/* The methods kek.*. */
#include "providers/key/providers.h"

#include <stdio.h>

bool rs_rpc_key_details(struct rs_rpc *call, const json_t **out)
{
    json_t *details = json_object_get(call->args, "details"), *value;
    const char *name;
    bool ok = details == NULL || (json_is_object(details) && json_object_size(details) <= 8);
    json_object_foreach(details, name, value) ok = ok && strncmp(name, "x-", 2) == 0 && strlen(name) < 64 &&
                                                   json_is_string(value) && json_string_length(value) < 256;
    *out = details;
    if (!ok)
        rs_rpc_fail(call, RESEAL_EINVAL,
                    "details: wants at most 8 texts, \"x-Name\": text, of less than 256 bytes");
    return ok;
}

static void fail_with(struct rs_rpc *call, int status, const struct rs_kek *kek, const char *why)
{
    const struct rs_task_answer a = {.status = status, .fd = -1, .why = why, .event = kek->event};
    rs_rpc_fail_as(call, &a);
}

static void made(struct rs_keyd *d, void *arg, int status, const struct rs_kek *kek, const char *why)
{
    struct rs_rpc *call = arg;
    (void)d;
    if (status != 0)
        fail_with(call, status, kek, why);
    else
        rs_rpc_answer(call, json_pack("{s:s, s:s}", "provider", kek->provider, "key", kek->key), -1);
}

static void make(struct rs_rpc *call)
{
    const json_t *details;
    if (!rs_rpc_args(call, "provider details")) return;
    const char *provider = rs_rpc_text(call, "provider", RS_PROVIDER_NAME_MAX);
    if (provider == NULL || !rs_rpc_key_details(call, &details)) return;
    const struct rs_who who = rs_rpc_who(call);
    rs_kek_make(call->d, &who, provider, details, made, call);
}

/* ---- status ----------------------------------------------------------------------------------- */

static void found(struct rs_keyd *d, void *arg, int status, const struct rs_kek *kek, const char *why)
{
    struct rs_rpc *call = arg;
    json_t *out =
        json_pack("{s:b, s:b, s:s}", "available", status == 0, "cached",
                  rs_kek_cached(d, call->client->tenant, kek->provider, kek->key), "reason", kek->reason);
    if (status != 0) (void)json_object_set_new(out, "error", json_string(why));
    const struct rs_provider *p = rs_providers_find(d, call->client->tenant, kek->provider);
    if (p != NULL) (void)json_object_set_new(out, "kind", json_string(p->kind->name));
    rs_rpc_answer(call, out, -1);
}

static void status(struct rs_rpc *call)
{
    if (!rs_rpc_args(call, "provider key probe")) return;
    const char *provider = rs_rpc_text(call, "provider", RS_PROVIDER_NAME_MAX);
    const char *key = provider != NULL ? rs_rpc_need(call, "key", RS_KEY_ID_MAX) : NULL;
    if (key == NULL) return;
    const json_t *probe = json_object_get(call->args, "probe");
    bool cached = rs_kek_cached(call->d, call->client->tenant, provider, key);
    if (cached || json_is_false(probe)) {
        rs_rpc_answer(call,
                      json_pack("{s:b, s:b, s:s}", "available", cached, "cached", cached, "reason",
                                cached ? "" : "KeyStateMissingInCache"),
                      -1);
        return;
    }
    const struct rs_who who = rs_rpc_who(call);
    rs_kek_get(call->d, &who, provider, key, NULL, found, call);
}

/* ---- forget and list ----------------------------------------------------------------------------- */

/* A tenant forgets its own; those of providers for all only root and the service's own user. */
static void forget(struct rs_rpc *call)
{
    if (!rs_rpc_args(call, "provider key")) return;
    const char *provider = rs_rpc_text(call, "provider", RS_PROVIDER_NAME_MAX);
    const char *key = provider != NULL ? rs_rpc_text(call, "key", RS_KEY_ID_MAX) : NULL;
    if (key == NULL) return;
    const char *of = *provider != '\0' ? provider : NULL, *which = *key != '\0' ? key : NULL;
    const struct rs_who who = rs_rpc_who(call);
    unsigned n = rs_kek_forget(call->d, who.tenant, of, which);
    if (who.tenant[0] != '\0' && rs_events_all_visible(who.uid)) n += rs_kek_forget(call->d, "", of, which);
    char object[RS_PROVIDER_NAME_MAX + RS_KEY_ID_MAX + 8];
    (void)snprintf(object, sizeof(object), "kek:%s/%s", of != NULL ? of : "*", which != NULL ? which : "*");
    rs_audit(call->d, &who, call->method, object, 0, json_pack("{s:i}", "forgotten", (int)n));
    rs_rpc_answer(call, json_pack("{s:i}", "forgotten", (int)n), -1);
}

#define LIST_MAX 1024u /* lines of an answer */

static void add_line(void *arg, const char *provider, const char *key, uint64_t left_s)
{
    json_t *keys = arg;
    if (json_array_size(keys) >= LIST_MAX) return;
    (void)json_array_append_new(keys, json_pack("{s:s, s:s, s:I}", "provider", provider, "key", key,
                                                "expires_s", (json_int_t)left_s));
}

static void list(struct rs_rpc *call)
{
    if (!rs_rpc_args(call, "")) return;
    json_t *keys = json_array();
    rs_kek_each(call->d, call->client->tenant, add_line, keys);
    if (call->client->tenant[0] != '\0' && rs_events_all_visible(call->client->uid))
        rs_kek_each(call->d, "", add_line, keys);
    rs_rpc_answer(call, json_pack("{s:o}", "keys", keys), -1);
}

const struct rs_rpc_method rs_rpc_keks[] = {
    {"kek.make", 0, 0, RS_PRIV_MANAGE_KEYS, make},
    {"kek.status", 0, 0, RS_NO_PRIVILEGE, status},
    {"kek.forget", 0, 0, RS_PRIV_MANAGE_KEYS, forget},
    {"kek.list", 0, 0, RS_PRIV_MANAGE_KEYS, list},
    {NULL, 0, 0, 0, NULL},
};
