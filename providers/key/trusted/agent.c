/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/key/trusted/agent.h"

#include "offload/base/keymem.h"
#include "providers/key/events.h"
#include "providers/key/trusted/credential.h"
#include "providers/key/trusted/provider.h"
#include "providers/key/trusted/token.h"
#include "providers/key/wire/dial.h"
#include "reseal/reseal.h"

#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define CONNECT_MS 10000u
#define REQUEST_MS 30000u
#define CERT_MAX   8192u

static void event(struct rs_agent *a, const char *id)
{
    (void)snprintf(a->task->event, sizeof(a->task->event), "%s", id);
}

static const char *config_text(const struct rs_agent *a, const char *name)
{
    const char *v = json_string_value(json_object_get(a->config, name));
    return v == NULL ? "" : v;
}

/* ---- what is kept ---------------------------------------------------------------------------- */

static int make_identity(struct rs_agent *a)
{
    char *cert, *key;
    int err = rs_wire_make_identity("reseal host", &cert, &key);
    if (err != 0) return rs_task_fail(a->task, err, "no TLS key can be made");
    err = rs_secrets_put(&a->task->yields, "tls-cert", cert, strlen(cert));
    if (err == 0) err = rs_secrets_put(&a->task->yields, "tls-key", key, strlen(key));
    OPENSSL_free(cert);
    OPENSSL_clear_free(key, strlen(key));
    return err;
}

static bool take_blob(const struct rs_secrets *s, const char *name, struct rs_tpm_blob *out)
{
    const struct rs_secret *b = rs_secrets_find(s, name);
    if (b == NULL || b->len > RS_TPM_BLOB_MAX) return false;
    memcpy(out->bytes, b->bytes, b->len);
    out->len = (uint16_t)b->len;
    return true;
}

int rs_agent_open(struct rs_agent *a, struct rs_task *task)
{
    *a = (struct rs_agent){.task = task, .config = json_deep_copy(json_object_get(task->args, "config"))};
    a->ak = rs_keymem_alloc(sizeof(*a->ak));
    if (a->config == NULL || a->ak == NULL) return RESEAL_ENOMEM;
    int err = rs_secrets_copy(&task->yields, task->secrets);
    if (err == 0 && rs_secrets_text(&task->yields, "tls-key") == NULL) err = make_identity(a);
    const char *cert = err == 0 ? rs_secrets_text(&task->yields, "tls-cert") : NULL;
    if (err == 0 && (cert == NULL || rs_wire_identity_of_pem(cert, &a->id) != 0))
        err = rs_task_fail(task, RESEAL_EFORMAT,
                           "this host's TLS certificate cannot be read: add the provider again");
    a->enrolled = config_text(a, "host")[0] != '\0' && take_blob(&task->yields, "ak-public", &a->ak->pub) &&
                  take_blob(&task->yields, "ak-private", &a->ak->priv);
    return err;
}

void rs_agent_close(struct rs_agent *a)
{
    json_decref(a->config);
    rs_keymem_free(a->ak);
    *a = (struct rs_agent){.task = NULL};
}

const char *rs_agent_token(const struct rs_agent *a)
{
    return rs_secrets_text(&a->task->yields, "token");
}

/* ---- asking ------------------------------------------------------------------------------------ */

static const char *what_is(const char *list)
{
    return strcmp(list, "attest") == 0 ? "attestation service" : "key provider service";
}

static int dial(struct rs_agent *a, const char *list, size_t index, struct rs_wire_link **link,
                struct rs_wire_error *error)
{
    const json_t *server = json_array_get(json_object_get(a->config, list), index);
    const char *address = json_string_value(json_object_get(server, "address"));
    char host[RS_WIRE_HOST_MAX];
    uint8_t spki[RS_WIRE_HASH_LEN];
    uint16_t port;
    if (address == NULL || !rs_wire_split(address, 0, host, &port) ||
        rs_wire_member(server, "spki", spki, sizeof(spki)) != (int64_t)sizeof(spki))
        return rs_wire_fail(error, RS_WIRE_BAD_SETUP, "the address of a service cannot be read");
    const struct rs_wire_address to = {.what = what_is(list),
                                       .remedy = "a newly published file: remove and add the provider",
                                       .host = host,
                                       .port = port};
    const struct rs_wire_trust trust = {.spkis = spki,
                                        .nspkis = 1,
                                        .cert = rs_secrets_text(&a->task->yields, "tls-cert"),
                                        .key = rs_secrets_text(&a->task->yields, "tls-key")};
    return rs_wire_connect(link, &to, &trust, CONNECT_MS, error);
}

static const char *address_of(const struct rs_agent *a, const char *list, size_t i)
{
    const json_t *server = json_array_get(json_object_get(a->config, list), i);
    const char *address = json_string_value(json_object_get(server, "address"));
    return address != NULL ? address : "";
}

/* Told as an event of its own, since the request goes on. */
static void tell(struct rs_agent *a, const char *address, const char *why, const char *id)
{
    json_t *list = json_object_get(a->task->result, "down");
    if (list == NULL) (void)json_object_set_new(a->task->result, "down", list = json_array());
    (void)json_array_append_new(list,
                                json_pack("{s:s, s:s, s:s}", "address", address, "why", why, "event", id));
}

/* What this task knows of services that were told to be down; tasks hand it on. */
static json_t *known_down(struct rs_agent *a)
{
    json_t *state = json_object_get(a->task->result, "state");
    if (state != NULL) return state;
    state = json_deep_copy(json_object_get(a->task->args, "state"));
    if (!json_is_object(state)) {
        json_decref(state);
        state = json_object();
    }
    (void)json_object_set_new(a->task->result, "state", state);
    return state;
}

/* Service `answered` of a list did, those before it did not: each is told once until it answers again. */
static void tell_partly_down(struct rs_agent *a, const char *list, size_t answered)
{
    json_t *state = known_down(a);
    char line[300];
    (void)json_object_del(state, address_of(a, list, answered));
    for (size_t i = 0; i < answered; i++) {
        const char *address = address_of(a, list, i);
        if (json_object_get(state, address) != NULL) continue;
        (void)json_object_set_new(state, address, json_true());
        (void)snprintf(line, sizeof(line), "%s %.128s does not answer, another one does", what_is(list),
                       address);
        tell(a, address, line, RS_EVENT_TA_PARTLY);
    }
}

int rs_agent_ask(struct rs_agent *a, const char *list, const struct rs_wire_message *request,
                 struct rs_wire_message *answer)
{
    struct rs_wire_error error = {.fault = RS_WIRE_BAD_SETUP};
    int err = RESEAL_ENOSERVICE;
    *answer = (struct rs_wire_message){.json = NULL};
    for (size_t i = 0; i < json_array_size(json_object_get(a->config, list)); i++) {
        struct rs_wire_link *link = NULL;
        rs_wire_message_free(answer);
        err = dial(a, list, i, &link, &error);
        if (err == 0) err = rs_wire_ask(link, request, answer, REQUEST_MS, &error);
        rs_wire_disconnect(link);
        if (err != 0 && error.fault != RS_WIRE_NO_FAULT) continue;
        /* It has answered, whatever it says. */
        tell_partly_down(a, list, i);
        break;
    }
    if (err == 0) return 0;
    if (error.fault != RS_WIRE_NO_FAULT) event(a, RS_EVENT_TA_DOWN);
    return rs_task_fail(a->task, err, "%s", error.why[0] != '\0' ? error.why : reseal_strerror(err));
}

int rs_agent_hello(struct rs_agent *a, const char *list, size_t index, json_t **answer, const char **version,
                   struct rs_wire_error *error)
{
    const struct rs_wire_message request = {.json = json_pack("{s:s}", "method", "hello")};
    struct rs_wire_message got = {.json = NULL};
    struct rs_wire_link *link = NULL;
    const char *cipher;
    memset(error, 0, sizeof(*error));
    *answer = NULL;
    int err = request.json == NULL ? RESEAL_ENOMEM : dial(a, list, index, &link, error);
    if (err == 0) err = rs_wire_ask(link, &request, &got, REQUEST_MS, error);
    if (link != NULL) rs_wire_protocol(link, version, &cipher);
    rs_wire_disconnect(link);
    json_decref(request.json);
    if (err == 0) *answer = json_incref(got.json);
    rs_wire_message_free(&got);
    return err;
}

/* The same, with a request that is released here. */
static int ask_attest(struct rs_agent *a, json_t *request, struct rs_wire_message *answer)
{
    const struct rs_wire_message m = {.json = request};
    if (request == NULL) return RESEAL_ENOMEM;
    int err = rs_agent_ask(a, "attest", &m, answer);
    json_decref(request);
    if (err != 0 && a->task->event[0] == '\0') event(a, RS_EVENT_ATTEST_FAIL);
    return err;
}

/* ---- enrolment --------------------------------------------------------------------------------- */

static int tpm_fails(struct rs_agent *a, int err, const char *why)
{
    event(a, RS_EVENT_ATTEST_FAIL);
    return rs_task_fail(a->task, err, "this host cannot be attested: %s", why);
}

static bool member_blob(const json_t *o, const char *name, struct rs_tpm_blob *out)
{
    int64_t n = rs_wire_member(o, name, out->bytes, sizeof(out->bytes));
    out->len = n > 0 ? (uint16_t)n : 0;
    return n > 0;
}

/* The answer to a challenge: the credential that only this TPM takes out, and not even shows. */
static int prove(struct rs_agent *a, struct rs_tpm *tpm, const struct rs_tpm_blob *ek,
                 const json_t *challenge)
{
    struct rs_tpm_blob blob, secret;
    uint8_t id[32], host[32], name[RS_TPM_NAME_LEN], proof[32];
    char why[RS_TRUST_WHY] = "";
    struct rs_wire_message answer;
    EVP_PKEY *key = NULL;
    RS_KEYMEM uint8_t *credential = rs_keymem_alloc(32);
    if (credential == NULL) return RESEAL_ENOMEM;
    if (rs_wire_member(challenge, "challenge", id, sizeof(id)) != 32 ||
        !member_blob(challenge, "credential", &blob) || !member_blob(challenge, "secret", &secret) ||
        rs_ek_key(ek, &key, host) != 0)
        return rs_task_fail(a->task, RESEAL_EPROTO, "the attestation service's challenge cannot be read");
    EVP_PKEY_free(key);
    int err = rs_ak_check(&a->ak->pub, name, why);
    if (err == 0) err = rs_tpm_activate(tpm, a->ak, &blob, &secret, credential, why);
    if (err != 0) return tpm_fails(a, err, why);
    if (!rs_enrol_proof(credential, id, host, name, a->id.spki, proof)) return RESEAL_EIO;
    err = ask_attest(a,
                     json_pack("{s:s, s:o, s:o}", "method", "prove", "challenge",
                               rs_wire_json(id, sizeof(id)), "proof", rs_wire_json(proof, sizeof(proof))),
                     &answer);
    if (err == 0) {
        const char *as = json_string_value(json_object_get(answer.json, "host"));
        err = as != NULL && json_object_set_new(a->config, "host", json_string(as)) == 0 ? 0 : RESEAL_EPROTO;
    }
    rs_wire_message_free(&answer);
    return err;
}

static int enrol(struct rs_agent *a, struct rs_tpm *tpm)
{
    struct rs_tpm_blob ek;
    struct rs_wire_message answer;
    uint8_t cert[CERT_MAX];
    size_t cert_len = 0;
    char why[RS_TRUST_WHY] = "";
    int err = rs_tpm_endorsement(tpm, &ek, cert, sizeof(cert), &cert_len, why);
    if (err == 0) err = rs_tpm_make_ak(tpm, a->ak, why);
    if (err != 0) return tpm_fails(a, err, why);
    json_t *request = json_pack("{s:s, s:o, s:o}", "method", "enrol", "ek", rs_wire_json(ek.bytes, ek.len),
                                "ak", rs_wire_json(a->ak->pub.bytes, a->ak->pub.len));
    if (request != NULL && cert_len > 0)
        (void)json_object_set_new(request, "certificate", rs_wire_json(cert, cert_len));
    err = ask_attest(a, request, &answer);
    if (err == 0) err = prove(a, tpm, &ek, answer.json);
    rs_wire_message_free(&answer);
    if (err == 0) err = rs_secrets_put(&a->task->yields, "ak-public", a->ak->pub.bytes, a->ak->pub.len);
    if (err == 0) err = rs_secrets_put(&a->task->yields, "ak-private", a->ak->priv.bytes, a->ak->priv.len);
    a->enrolled = err == 0;
    return err;
}

/* ---- attestation --------------------------------------------------------------------------------- */

static json_t *quote_json(struct rs_agent *a, const struct rs_quote *q, const uint8_t nonce[32])
{
    json_t *values = json_array();
    for (unsigned i = 0; i < RS_PCRS; i++)
        if ((q->pcrs.mask & 1u << i) != 0)
            (void)json_array_append_new(values, rs_wire_json(q->pcrs.value[i], RS_PCR_LEN));
    return json_pack("{s:s, s:s, s:s, s:o, s:o, s:o, s:o}", "method", "attest", "host",
                     config_text(a, "host"), "audience", config_text(a, "name"), "nonce",
                     rs_wire_json(nonce, 32), "quote", rs_wire_json(q->attest.bytes, q->attest.len),
                     "signature", rs_wire_json(q->signature.bytes, q->signature.len), "values", values);
}

static int keep_token(struct rs_agent *a, const json_t *answer)
{
    const char *token = json_string_value(json_object_get(answer, "token"));
    json_int_t lives = json_integer_value(json_object_get(answer, "lives_s")), now = (json_int_t)time(NULL);
    if (token == NULL || strlen(token) >= RS_TOKEN_MAX || lives <= 0 || lives > 86400)
        return rs_task_fail(a->task, RESEAL_EPROTO, "the attestation service's token cannot be read");
    if (json_object_set_new(a->config, "token_from", json_integer(now)) != 0 ||
        json_object_set_new(a->config, "token_until", json_integer(now + lives)) != 0)
        return RESEAL_ENOMEM;
    return rs_secrets_put(&a->task->yields, "token", token, strlen(token));
}

static int quote(struct rs_agent *a, struct rs_tpm *tpm)
{
    struct rs_wire_message answer;
    struct rs_quote q;
    uint8_t nonce[32], qualifying[32];
    char why[RS_TRUST_WHY] = "";
    int err = ask_attest(a, json_pack("{s:s}", "method", "nonce"), &answer);
    json_int_t mask = err != 0 ? 0 : json_integer_value(json_object_get(answer.json, "pcrs"));
    bool ok = err == 0 && rs_wire_member(answer.json, "nonce", nonce, sizeof(nonce)) == 32 && mask > 0 &&
              mask < INT64_C(1) << RS_PCRS;
    rs_wire_message_free(&answer);
    if (err != 0) return err;
    if (!ok) return rs_task_fail(a->task, RESEAL_EPROTO, "the attestation service's nonce cannot be read");
    rs_quote_qualify(nonce, a->id.spki, qualifying);
    err = rs_tpm_quote(tpm, a->ak, qualifying, (uint32_t)mask, &q, why);
    a->stale = err == RESEAL_EAUTH;
    if (err != 0) return tpm_fails(a, err, why);
    err = ask_attest(a, quote_json(a, &q, nonce), &answer);
    if (err == 0) err = keep_token(a, answer.json);
    rs_wire_message_free(&answer);
    return err;
}

static void tell_pass(struct rs_agent *a)
{
    char line[200];
    (void)snprintf(line, sizeof(line), "host %.64s passed attestation for key provider service %.64s",
                   config_text(a, "host"), config_text(a, "name"));
    tell(a, address_of(a, "attest", 0), line, RS_EVENT_ATTEST_PASS);
}

static bool is_fresh(const struct rs_agent *a, bool *valid)
{
    int64_t from = json_integer_value(json_object_get(a->config, "token_from"));
    int64_t until = json_integer_value(json_object_get(a->config, "token_until")), now = (int64_t)time(NULL);
    *valid = rs_agent_token(a) != NULL && now >= from && now < until;
    return *valid && now < from + (until - from) / 2;
}

static void forget_failure(struct rs_agent *a)
{
    a->task->why[0] = a->task->event[0] = '\0';
}

/* A host that the service does not know any more, or a key that this TPM does not, is enrolled once again. */
static int attest_with(struct rs_agent *a, struct rs_tpm *tpm)
{
    if (a->enrolled) {
        int err = quote(a, tpm);
        if (err != RESEAL_ENOKEY && !a->stale) return err;
        forget_failure(a);
    }
    int err = enrol(a, tpm);
    return err == 0 ? quote(a, tpm) : err;
}

int rs_agent_attest(struct rs_agent *a, bool anew)
{
    const char *where = config_text(a, "tpm");
    struct rs_tpm *tpm;
    char why[RS_TRUST_WHY] = "";
    bool valid;
    if (is_fresh(a, &valid) && !anew) return 0;
    int err = rs_tpm_open(&tpm, where[0] != '\0' ? where : RS_TRUSTED_TPM, why);
    if (err == 0) {
        err = attest_with(a, tpm);
        rs_tpm_close(tpm);
    } else {
        err = tpm_fails(a, err, why);
    }
    if (err == 0) tell_pass(a);
    /* Who cannot be reached now may be in the rest of the token's life; who refuses has refused. */
    if ((err == RESEAL_ENOSERVICE || err == RESEAL_ETIMEDOUT) && valid && !anew) {
        forget_failure(a);
        err = 0;
    }
    return err;
}
