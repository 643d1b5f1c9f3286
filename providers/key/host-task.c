/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The task "host": one conversation of a manager with the agent of a host.
 *
 *   {"op": "show", "address"} -> {"fingerprint", "certificate"}: what it presents, unverified
 *   {"op": "give", "address", "pin", "instance", "keys": [[tenant, provider, key]], "kdks": [[tenant, name]],
 *    "remove": [[tenant, name]] or [[tenant, name, key]], "prepare"}, secrets "cert", "key", "keks": 32 bytes
 * for each key, "kdks": 48 for each KDK -> {"instance", "state", "refused": [[entry, why]], "kdks_refused":
 * [[tenant, name, why]]}; with another instance than it was told nothing was given: the host began anew, and
 * wants all.
 */
#include "providers/key/hosts.h"

#include "offload/base/keymem.h"
#include "providers/key/host-agent.h"
#include "providers/key/wire/dial.h"
#include "providers/key/wire/frame.h"

#define CONNECT_MS 8000u
#define ASK_MS     10000u

static int address_of(struct rs_task *t, struct rs_wire_address *out, char host[RS_WIRE_HOST_MAX])
{
    const char *address = json_string_value(json_object_get(t->args, "address"));
    *out = (struct rs_wire_address){.what = "host", .remedy = "'reseal host add'", .host = host};
    if (address == NULL || !rs_wire_split(address, RS_HOST_PORT, host, &out->port))
        return rs_task_fail(t, RESEAL_EINVAL, "an address is HOST, or HOST:PORT");
    return 0;
}

static int show(struct rs_task *t)
{
    struct rs_wire_address address;
    struct rs_wire_shown shown;
    struct rs_wire_error error = {0};
    char host[RS_WIRE_HOST_MAX], text[65];
    int r = address_of(t, &address, host);
    if (r != 0) return r;
    r = rs_wire_show(&address, CONNECT_MS, &shown, &error);
    if (r != 0) return rs_task_fail(t, r, "%s", error.why);
    rs_hex(shown.id.cert, RS_WIRE_HASH_LEN, text);
    (void)json_object_set_new(t->result, "fingerprint", json_string(text));
    return json_object_set_new(t->result, "certificate", json_string(shown.text)) == 0 ? 0 : RESEAL_ENOMEM;
}

/* Sends a request, which it takes; the answer's members go to the result. */
static int tell(struct rs_task *t, struct rs_wire_link *link, json_t *request, const uint8_t *block,
                size_t len)
{
    struct rs_wire_message answer,
        m = {.json = request, .block = (uint8_t *)(uintptr_t)block, .block_len = len};
    struct rs_wire_error error = {0};
    int r = request != NULL ? rs_wire_ask(link, &m, &answer, ASK_MS, &error) : RESEAL_ENOMEM;
    json_decref(request);
    if (r != 0) {
        if (m.json != NULL) rs_wire_message_free(&answer);
        return rs_task_fail(t, r, "%s", error.why);
    }
    static const char *const told[] = {"instance", "state"};
    for (unsigned i = 0; i < RS_ARRAY_LEN(told); i++)
        if (json_is_string(json_object_get(answer.json, told[i])))
            (void)json_object_set(t->result, told[i], json_object_get(answer.json, told[i]));
    json_t *refused = json_object_get(answer.json, "refused");
    if (json_array_size(refused) != 0) (void)json_object_set(t->result, "refused", refused);
    rs_wire_message_free(&answer);
    return 0;
}

static int give_kdks(struct rs_task *t, struct rs_wire_link *link)
{
    const struct rs_secret *kdks = rs_secrets_find(t->secrets, "kdks");
    json_t *list = json_object_get(t->args, "kdks"), *entry;
    size_t i;
    if (json_array_size(list) * RS_AGENT_SECRET != (kdks != NULL ? kdks->len : 0)) return RESEAL_EINVAL;
    json_t *refused = json_array();
    (void)json_object_set_new(t->result, "kdks_refused", refused);
    json_array_foreach(list, i, entry)
    {
        json_t *request = json_pack("{s:s, s:O, s:O}", "method", "kdk", "tenant", json_array_get(entry, 0),
                                    "provider", json_array_get(entry, 1));
        int r = tell(t, link, request, kdks->bytes + i * RS_AGENT_SECRET, RS_AGENT_SECRET);
        if (r != RESEAL_EBUSY && r != 0) return r;
        /* It has one of its own under that name: no reason to keep anything else from it. */
        if (r == RESEAL_EBUSY)
            (void)json_array_append_new(
                refused, json_pack("[O, O, s]", json_array_get(entry, 0), json_array_get(entry, 1), t->why));
    }
    return 0;
}

static int give(struct rs_task *t, struct rs_wire_link *link)
{
    const struct rs_secret *keks = rs_secrets_find(t->secrets, "keks");
    json_t *keys = json_object_get(t->args, "keys"), *entry;
    size_t i;
    int r = tell(t, link, json_pack("{s:s}", "method", "hello"), NULL, 0);
    if (r != 0) return r;
    const char *now = json_string_value(json_object_get(t->result, "instance"));
    const char *then = json_string_value(json_object_get(t->args, "instance"));
    if (now == NULL || then == NULL || strcmp(now, then) != 0) return 0;
    json_array_foreach(json_object_get(t->args, "remove"), i, entry)
    {
        json_t *key = json_array_get(entry, 2);
        r = tell(t, link,
                 json_pack("{s:s, s:O, s:O, s:O*}", "method", key != NULL ? "forget" : "no-kdk", "tenant",
                           json_array_get(entry, 0), "provider", json_array_get(entry, 1), "key", key),
                 NULL, 0);
        if (r != 0) return r;
    }
    r = give_kdks(t, link);
    if (r == 0 && json_is_true(json_object_get(t->args, "prepare")))
        r = tell(t, link, json_pack("{s:s}", "method", "prepare"), NULL, 0);
    if (r != 0 || json_array_size(keys) == 0) return r;
    if (keks == NULL || keks->len != json_array_size(keys) * RS_KEK_LEN) return RESEAL_EINVAL;
    return tell(t, link, json_pack("{s:s, s:O}", "method", "put", "keys", keys), keks->bytes, keks->len);
}

static int talk(struct rs_task *t)
{
    struct rs_wire_address address;
    struct rs_wire_link *link = NULL;
    struct rs_wire_error error = {0};
    char host[RS_WIRE_HOST_MAX];
    uint8_t pin[RS_WIRE_HASH_LEN];
    int r = address_of(t, &address, host);
    if (r != 0) return r;
    const char *hex = json_string_value(json_object_get(t->args, "pin"));
    if (hex == NULL || !rs_unhex(hex, pin, sizeof(pin))) return RESEAL_EINVAL;
    const struct rs_wire_trust trust = {
        .pin = pin, .cert = rs_secrets_text(t->secrets, "cert"), .key = rs_secrets_text(t->secrets, "key")};
    r = rs_wire_connect(&link, &address, &trust, CONNECT_MS, &error);
    if (r != 0) return rs_task_fail(t, r, "%s", error.why);
    r = give(t, link);
    rs_wire_disconnect(link);
    return r;
}

static int run(struct rs_task *t)
{
    const char *op = json_string_value(json_object_get(t->args, "op"));
    if (op == NULL) return RESEAL_EINVAL;
    return strcmp(op, "show") == 0 ? show(t) : talk(t);
}

const struct rs_task_kind rs_task_host = {
    .name = "host", .place = RS_TASK_NETWORK, .deadline_s = 60, .run = run};
