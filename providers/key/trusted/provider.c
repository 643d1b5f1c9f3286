/* SPDX-License-Identifier: Apache-2.0 */
/* What a trusted provider is asked, in a child that may reach the network and the TPM. */
#include "providers/key/trusted/provider.h"

#include "offload/base/keymem.h"
#include "providers/key/complaint.h"
#include "providers/key/events.h"
#include "providers/key/trusted/agent.h"
#include "providers/key/wire/dial.h"
#include "reseal/reseal.h"

#include <stdio.h>

#define CACHE_S_MAX 31536000

/* ---- the configuration --------------------------------------------------------------------- */

static int check_services(const json_t *config, const char *name, const struct rs_complaint *c)
{
    const json_t *list = json_object_get(config, name);
    size_t i, n = json_array_size(list);
    json_t *one;
    if (n == 0 || n > RS_TRUSTED_SERVERS)
        return rs_complain(c, "%s: wants 1 to %u services, {\"address\", \"spki\"}", name,
                           RS_TRUSTED_SERVERS);
    json_array_foreach(list, i, one)
    {
        const char *address = json_string_value(json_object_get(one, "address"));
        uint8_t spki[RS_WIRE_HASH_LEN];
        char host[RS_WIRE_HOST_MAX];
        uint16_t port;
        if (json_object_size(one) != 2 || address == NULL || !rs_wire_split(address, 0, host, &port) ||
            port == 0)
            return rs_complain(c, "%s: a service is {\"address\": \"host:port\", \"spki\": ...}", name);
        if (rs_wire_member(one, "spki", spki, sizeof(spki)) != (int64_t)sizeof(spki))
            return rs_complain(c, "%s: spki: wants SHA-256 of the service's TLS key, as it publishes it",
                               name);
    }
    return 0;
}

/* The published form names one key provider service; a configuration has a list of them. */
static int unfold(json_t *config, const struct rs_complaint *c)
{
    const char *kind = json_string_value(json_object_get(config, "kind"));
    json_t *address = json_object_get(config, "address"), *spki = json_object_get(config, "spki");
    if (kind == NULL) return 0;
    if (strcmp(kind, "reseal-keyproviderd") != 0 ||
        json_integer_value(json_object_get(config, "version")) != 1 || address == NULL || spki == NULL ||
        json_object_get(config, "keys") != NULL)
        return rs_complain(c,
                           "a trusted provider is configured by what 'reseal-keyproviderd --publish' prints");
    if (json_object_set_new(config, "keys", json_pack("[{s:O, s:O}]", "address", address, "spki", spki)) != 0)
        return RESEAL_ENOMEM;
    (void)json_object_del(config, "kind");
    (void)json_object_del(config, "version");
    (void)json_object_del(config, "address");
    (void)json_object_del(config, "spki");
    return 0;
}

int rs_trusted_check(json_t *config, struct rs_secrets *secrets, char *why, size_t why_len)
{
    const struct rs_complaint c = {why, why_len};
    const char *name, *tpm = RS_TRUSTED_TPM, *host = NULL;
    json_t *ignored;
    json_int_t from = 0, until = 0, cache = RS_CACHE_S;
    json_error_t error;
    (void)secrets;
    int err = unfold(config, &c);
    if (err != 0) return err;
    if (json_unpack_ex(config, &error, JSON_STRICT, "{s:s, s:o, s:o, s?s, s?s, s?I, s?I, s?I}", "name", &name,
                       "attest", &ignored, "keys", &ignored, "tpm", &tpm, "host", &host, "token_from", &from,
                       "token_until", &until, "cache_s", &cache) != 0)
        return rs_complain(&c, "the configuration of a trusted provider: %s", error.text);
    if (name[0] == '\0' || strlen(name) >= 128) return rs_complain(&c, "name: wants 1 to 127 bytes");
    if (strncmp(tpm, "device:", 7) != 0 && strncmp(tpm, "swtpm:", 6) != 0)
        return rs_complain(&c, "tpm: wants \"device:PATH\", or \"swtpm:path=SOCKET\"");
    if (cache < 0 || cache > CACHE_S_MAX)
        return rs_complain(&c, "cache_s: wants a number of seconds from 0 to %d", CACHE_S_MAX);
    err = check_services(config, "attest", &c);
    if (err == 0) err = check_services(config, "keys", &c);
    return err == 0 && json_object_set_new(config, "tpm", json_string(tpm)) != 0 ? RESEAL_ENOMEM : err;
}

/* ---- keys ------------------------------------------------------------------------------------- */

static int ask_once(struct rs_agent *a, const char *method, const char *key, struct rs_wire_message *answer)
{
    const struct rs_wire_message request = {
        .json = json_pack("{s:s, s:s, s:s*}", "method", method, "token", rs_agent_token(a), "key", key)};
    if (request.json == NULL) return RESEAL_ENOMEM;
    int err = rs_agent_ask(a, "keys", &request, answer);
    json_decref(request.json);
    return err;
}

/* With the token that is there; with a new one when that was what was wrong: it may serve once, or clocks
 * differ. */
static int ask_for_key(struct rs_agent *a, const char *method, const char *key,
                       struct rs_wire_message *answer)
{
    int err = rs_agent_attest(a, false);
    if (err != 0) return err;
    err = ask_once(a, method, key, answer);
    bool again = err != 0 && json_is_true(json_object_get(answer->json, "attest"));
    if (!again) return err;
    rs_wire_message_free(answer);
    a->task->why[0] = a->task->event[0] = '\0';
    err = rs_agent_attest(a, true);
    return err == 0 ? ask_once(a, method, key, answer) : err;
}

static int take_key(struct rs_agent *a, const char *method, const char *key)
{
    struct rs_task *t = a->task;
    struct rs_wire_message answer = {.json = NULL};
    int err = ask_for_key(a, method, key, &answer);
    if (err == RESEAL_ENOSERVICE && t->event[0] == '\0')
        (void)snprintf(t->event, sizeof(t->event), "%s", RS_EVENT_TA_UNHEALTHY);
    if (err == 0 && answer.block_len != RS_KEK_LEN)
        err = rs_task_fail(t, RESEAL_EPROTO, "the key provider service's answer has no key");
    if (err == 0) err = rs_secrets_put(&t->yields, "kek", answer.block, answer.block_len);
    if (err == 0 && key == NULL) {
        const char *id = json_string_value(json_object_get(answer.json, "key"));
        bool ok = id != NULL && id[0] != '\0' && strlen(id) < RS_KEY_ID_MAX;
        err = ok && json_object_set_new(t->result, "key", json_string(id)) == 0 ? 0 : RESEAL_EPROTO;
    }
    rs_wire_message_free(&answer);
    return err;
}

/* ---- test --------------------------------------------------------------------------------------- */

/* Certificates between the service and its key server: the first that ends counts. */
static void take_ends(struct rs_task *t, const json_t *answer)
{
    static const char *const whose[] = {"client", "server"};
    const json_t *ends = json_object_get(answer, "expires");
    json_t *all = json_object_get(t->result, "expires");
    if (ends == NULL) return;
    if (all == NULL) (void)json_object_set_new(t->result, "expires", all = json_object());
    for (unsigned i = 0; i < RS_ARRAY_LEN(whose); i++) {
        json_int_t end = json_integer_value(json_object_get(ends, whose[i]));
        json_int_t first = json_integer_value(json_object_get(all, whose[i]));
        if (end > 0 && (first == 0 || end < first))
            (void)json_object_set_new(all, whose[i], json_integer(end));
    }
}

static void test_services(struct rs_agent *a, const char *list, const char *vendor, json_t *out)
{
    size_t i;
    json_t *one;
    json_array_foreach(json_object_get(a->config, list), i, one)
    {
        struct rs_wire_error error;
        const char *tls = "";
        json_t *answer = NULL;
        int err = rs_agent_hello(a, list, i, &answer, &tls, &error);
        json_t *row = json_pack("{s:O, s:b, s:s}", "address", json_object_get(one, "address"), "ok", err == 0,
                                "vendor", vendor);
        if (err == 0)
            (void)json_object_set_new(row, "tls", json_string(tls));
        else
            (void)json_object_update_new(
                row, json_pack("{s:s, s:s}", "error", error.why[0] != '\0' ? error.why : reseal_strerror(err),
                               "event", RS_EVENT_TA_DOWN));
        take_ends(a->task, answer);
        json_decref(answer);
        (void)json_array_append_new(out, row);
    }
}

/* Every service by itself; and this host: it is attested now. */
static int test(struct rs_agent *a)
{
    json_t *servers = json_array();
    struct rs_task *t = a->task;
    if (servers == NULL || json_object_set_new(t->result, "servers", servers) != 0) return RESEAL_ENOMEM;
    test_services(a, "attest", "attestation service", servers);
    test_services(a, "keys", "key provider service", servers);
    int err = rs_agent_attest(a, true);
    const char *tpm = json_string_value(json_object_get(a->config, "tpm"));
    json_t *row = json_pack("{s:s, s:b, s:s}", "address", tpm, "ok", err == 0, "vendor", "this host's TPM");
    if (err != 0)
        (void)json_object_update_new(row, json_pack("{s:s, s:s}", "error",
                                                    t->why[0] != '\0' ? t->why : reseal_strerror(err),
                                                    "event", t->event));
    t->why[0] = t->event[0] = '\0';
    return json_array_append_new(servers, row) == 0 ? 0 : RESEAL_ENOMEM;
}

/* ---- the task ----------------------------------------------------------------------------------- */

static int ask(struct rs_agent *a, const char *op)
{
    const char *key = json_string_value(json_object_get(a->task->args, "key"));
    if (strcmp(op, "make") == 0) return take_key(a, "new", NULL);
    if (strcmp(op, "fetch") == 0 && key != NULL) return take_key(a, "unwrap", key);
    if (strcmp(op, "test") == 0) return test(a);
    if (strcmp(op, "retire") == 0) return 0; /* the key id is all that there is of a key */
    return rs_task_fail(a->task, RESEAL_ENOSUPPORT, "a trusted key provider cannot do that");
}

static int run(struct rs_task *t)
{
    const char *op = json_string_value(json_object_get(t->args, "op"));
    struct rs_agent a;
    if (op == NULL) return RESEAL_EINVAL;
    int err = rs_agent_open(&a, t);
    if (err == 0) err = ask(&a, op);
    if (err == 0 && json_object_set(t->result, "config", a.config) != 0) err = RESEAL_ENOMEM;
    rs_agent_close(&a);
    return err;
}

const struct rs_task_kind rs_task_trusted = {
    .name = "trusted", .place = RS_TASK_NETWORK, .deadline_s = 300, .run = run};

const struct rs_provider_kind rs_provider_trusted = {
    .name = "trusted", .task = &rs_task_trusted, .check = rs_trusted_check};
