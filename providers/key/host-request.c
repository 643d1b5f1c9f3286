/* SPDX-License-Identifier: Apache-2.0 */
/* What managers ask of a host: parsed in its agent, handed on as messages of fixed size. */
#include "providers/key/host-messages.h"

#include "offload/base/keymem.h"

#include <stdio.h>

/* A text of the request into room of the message; false: too long or none. */
static bool put_text(const json_t *value, char *out, size_t room)
{
    const char *text = json_string_value(value);
    if (text == NULL || strlen(text) >= room) return false;
    memset(out, 0, room);
    memcpy(out, text, strlen(text));
    return true;
}

static void set_answer(struct rs_wire_message *out, const struct rs_agent_answer *a)
{
    char instance[2 * sizeof(a->instance) + 1];
    rs_hex(a->instance, sizeof(a->instance), instance);
    if (a->status != 0)
        out->json = rs_wire_refusal(a->status, "%s", a->why);
    else
        out->json = json_pack("{s:i, s:s, s:s}", "status", 0, "instance", instance, "state", a->state);
}

/* Keys one by one: one that cannot be taken is named, the others are taken. */
static void on_put(const struct rs_wire_message *request, struct rs_agent_ask *a, rs_agent_hand *hand,
                   void *arg, struct rs_wire_message *out)
{
    struct rs_agent_answer answer = {.status = RESEAL_EPROTO, .why = "no keys"};
    json_t *keys = json_object_get(request->json, "keys"), *entry;
    size_t i, n = json_array_size(keys);
    if (n == 0 || n > RS_AGENT_KEYS || request->block_len != n * RS_KEK_LEN) {
        out->json =
            rs_wire_refusal(RESEAL_EPROTO, "a put has 1 to %u keys and as many of 32 bytes", RS_AGENT_KEYS);
        return;
    }
    json_t *refused = json_array();
    json_array_foreach(keys, i, entry)
    {
        bool ok = json_array_size(entry) == 3 &&
                  put_text(json_array_get(entry, 0), a->tenant, sizeof(a->tenant)) &&
                  put_text(json_array_get(entry, 1), a->provider, sizeof(a->provider)) &&
                  put_text(json_array_get(entry, 2), a->key, sizeof(a->key)) && a->key[0] != '\0';
        a->secret_len = RS_KEK_LEN;
        memcpy(a->secret, request->block + i * RS_KEK_LEN, RS_KEK_LEN);
        if (ok) hand(arg, a, &answer);
        if (!ok || answer.status != 0)
            (void)json_array_append_new(refused,
                                        json_pack("[O, s]", entry, ok ? answer.why : "no such names"));
        if (answer.status == RESEAL_EPERM) break; /* all would be refused */
    }
    if (answer.status != RESEAL_EPERM) answer.status = 0;
    set_answer(out, &answer);
    (void)json_object_set_new(out->json, "refused", refused);
}

static void on_one(const struct rs_wire_message *request, struct rs_agent_ask *a, rs_agent_hand *hand,
                   void *arg, struct rs_wire_message *out)
{
    struct rs_agent_answer answer = {0};
    const json_t *key = json_object_get(request->json, "key");
    bool named = a->what != RS_AGENT_HELLO && a->what != RS_AGENT_PREPARE;
    if (named && (!put_text(json_object_get(request->json, "tenant"), a->tenant, sizeof(a->tenant)) ||
                  !put_text(json_object_get(request->json, "provider"), a->provider, sizeof(a->provider)))) {
        out->json = rs_wire_refusal(RESEAL_EPROTO, "it names no tenant and provider");
        return;
    }
    /* One that cannot be is not "none": to forget a key must not forget all of a provider. */
    if (key != NULL && !put_text(key, a->key, sizeof(a->key))) {
        out->json =
            rs_wire_refusal(RESEAL_EPROTO, "a key's id is a text of at most %zu bytes", sizeof(a->key) - 1);
        return;
    }
    if (request->block_len > sizeof(a->secret)) {
        out->json = rs_wire_refusal(RESEAL_EPROTO, "a secret of more than %zu bytes", sizeof(a->secret));
        return;
    }
    a->secret_len = (uint32_t)request->block_len;
    if (a->secret_len != 0) memcpy(a->secret, request->block, a->secret_len);
    hand(arg, a, &answer);
    set_answer(out, &answer);
}

void rs_agent_request(const uint8_t caller[32], const struct rs_wire_message *request, rs_agent_hand *hand,
                      void *arg, struct rs_wire_message *answer)
{
    static const char *const methods[] = {"hello", "put", "forget", "kdk", "no-kdk", "prepare"};
    const char *method = json_string_value(json_object_get(request->json, "method"));
    RS_KEYMEM struct rs_agent_ask *a = rs_keymem_alloc(sizeof(*a));
    unsigned what = 0;
    while (method != NULL && what < RS_ARRAY_LEN(methods) && strcmp(method, methods[what]) != 0) what++;
    if (a == NULL) return;
    if (method == NULL || what == RS_ARRAY_LEN(methods)) {
        answer->json = rs_wire_refusal(RESEAL_ENOSUPPORT, "this host knows no such request");
        return;
    }
    a->what = what;
    memcpy(a->caller, caller, sizeof(a->caller));
    if (what == RS_AGENT_PUT)
        on_put(request, a, hand, arg, answer);
    else
        on_one(request, a, hand, arg, answer);
}
