/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/key/trusted/attest-service.h"

#include "offload/base/clock.h"
#include "providers/key/trusted/credential.h"
#include "reseal/reseal.h"

#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define PENDING_NS (UINT64_C(60) * 1000000000u)
#define PENDING_OF 4u /* of one caller */
#define CERT_MAX   8192u

/* ---- the policy ------------------------------------------------------------------------ */

static bool is_hash(const char *text)
{
    return text != NULL && strlen(text) == 2 * RS_PCR_LEN &&
           strspn(text, "0123456789abcdef") == 2 * RS_PCR_LEN;
}

int rs_attest_policy(const json_t *policy, struct rs_attest_policy *out, char why[RS_TRUST_WHY])
{
    const char *pcr;
    json_t *values, *v;
    size_t i;
    *out = (struct rs_attest_policy){.id = json_string_value(json_object_get(policy, "id")),
                                     .allowed = json_object_get(policy, "pcrs")};
    int err =
        out->id != NULL && out->id[0] != '\0' && strlen(out->id) < 64 && json_object_size(out->allowed) > 0
            ? 0
            : RESEAL_EINVAL;
    (void)snprintf(why, RS_TRUST_WHY,
                   "policy: wants \"id\" and \"pcrs\": {\"7\": [\"hexadecimal SHA-256\", ...], ...}");
    json_object_foreach((json_t *)(uintptr_t)out->allowed, pcr, values)
    {
        uint32_t bit = strlen(pcr) <= 2 ? rs_pcr_mask(pcr) : 0;
        out->mask |= bit;
        bool ok = bit != 0 && json_array_size(values) > 0;
        json_array_foreach(values, i, v) ok = ok && is_hash(json_string_value(v));
        if (ok) continue;
        (void)snprintf(why, RS_TRUST_WHY,
                       "policy: PCR '%.20s' wants values, each 64 small hexadecimal digits", pcr);
        return RESEAL_EINVAL;
    }
    return err;
}

static bool is_allowed(const json_t *values, const uint8_t value[RS_PCR_LEN])
{
    char text[2 * RS_PCR_LEN + 1];
    size_t i;
    json_t *v;
    rs_hex(value, RS_PCR_LEN, text);
    json_array_foreach(values, i, v) if (strcmp(json_string_value(v), text) == 0) return true;
    return false;
}

static int check_values(const struct rs_attest_policy *policy, const struct rs_pcrs *pcrs,
                        char why[RS_TRUST_WHY])
{
    char name[4];
    for (unsigned i = 0; i < RS_PCRS; i++) {
        if ((policy->mask & 1u << i) == 0) continue;
        (void)snprintf(name, sizeof(name), "%u", i);
        if (is_allowed(json_object_get(policy->allowed, name), pcrs->value[i])) continue;
        (void)snprintf(
            why, RS_TRUST_WHY,
            "PCR %u has a value that policy %s does not allow: something else was booted; if it may "
            "run, add its value",
            i, policy->id);
        return RESEAL_EAUTH;
    }
    return 0;
}

/* ---- challenges and nonces --------------------------------------------------------------- */

/* A free place; else the oldest of this caller when it has its share, else the oldest of all. */
static struct rs_attest_pending *place_for(struct rs_attest *a, const uint8_t spki[32])
{
    struct rs_attest_pending *free_one = NULL, *own = NULL, *oldest = NULL;
    uint64_t now = rs_now_ns();
    unsigned n = 0;
    for (unsigned i = 0; i < RS_ATTEST_PENDING; i++) {
        struct rs_attest_pending *p = &a->pending[i];
        if (p->until_ns <= now) {
            free_one = p;
            continue;
        }
        if (oldest == NULL || p->until_ns < oldest->until_ns) oldest = p;
        if (memcmp(p->spki, spki, 32) != 0) continue;
        n++;
        if (own == NULL || p->until_ns < own->until_ns) own = p;
    }
    return n >= PENDING_OF ? own : free_one != NULL ? free_one : oldest;
}

static struct rs_attest_pending *new_pending(struct rs_attest *a, const uint8_t spki[32], bool nonce)
{
    struct rs_attest_pending *p = place_for(a, spki);
    rs_wipe(p, sizeof(*p));
    if (RAND_bytes(p->id, sizeof(p->id)) != 1) return NULL;
    memcpy(p->spki, spki, 32);
    p->nonce = nonce;
    p->until_ns = rs_now_ns() + PENDING_NS;
    return p;
}

/* The caller's, if it is still valid; it serves once: the copy is what is left of it. */
static bool take_pending(struct rs_attest *a, const uint8_t id[32], const uint8_t spki[32], bool nonce,
                         struct rs_attest_pending *out)
{
    uint64_t now = rs_now_ns();
    for (unsigned i = 0; i < RS_ATTEST_PENDING; i++) {
        struct rs_attest_pending *p = &a->pending[i];
        if (p->until_ns <= now || p->nonce != nonce || !rs_equal_ct(p->id, id, 32) ||
            !rs_equal_ct(p->spki, spki, 32))
            continue;
        *out = *p;
        rs_wipe(p, sizeof(*p));
        return true;
    }
    return false;
}

/* ---- requests ---------------------------------------------------------------------------- */

struct call {
    struct rs_attest *a;
    const struct rs_wire_caller *caller;
    const json_t *in;
    json_t *out;
    char why[RS_TRUST_WHY];
};

static int refuse(struct call *c, int status, const char *line)
{
    (void)snprintf(c->why, sizeof(c->why), "%s", line);
    return status;
}

static bool take_blob(const json_t *in, const char *name, struct rs_tpm_blob *out)
{
    int64_t n = rs_wire_member(in, name, out->bytes, sizeof(out->bytes));
    out->len = n > 0 ? (uint16_t)n : 0;
    return n > 0;
}

static void give(json_t *out, const char *name, const void *p, size_t len)
{
    (void)json_object_set_new(out, name, rs_wire_json(p, len));
}

static int hello(struct call *c)
{
    (void)json_object_set_new(c->out, "issuer", json_string(c->a->issuer));
    (void)json_object_set_new(c->out, "policy", json_string(c->a->policy.id));
    return 0;
}

static bool listed(const json_t *list, const char *text)
{
    size_t i;
    json_t *v;
    json_array_foreach(list, i,
                       v) if (json_is_string(v) && strcmp(json_string_value(v), text) == 0) return true;
    return false;
}

/* The endorsement key by its maker's certificate, or because an administrator listed it. */
static int check_endorsement(struct call *c, EVP_PKEY *key, const char *host)
{
    uint8_t cert[CERT_MAX];
    if (listed(c->a->ek_allowed, host)) return 0;
    int64_t len = rs_wire_member(c->in, "certificate", cert, sizeof(cert));
    if (len <= 0)
        return refuse(c, RESEAL_EAUTH,
                      "the TPM has no endorsement certificate, and its key is not in the list of those "
                      "allowed (ek_allowed)");
    if (c->a->ek_cas == NULL)
        return refuse(c, RESEAL_EAUTH,
                      "no CA of TPM makers is configured (ek_cas), and the TPM is not in ek_allowed");
    return rs_ek_certificate(cert, (size_t)len, key, c->a->ek_cas, c->why);
}

static int enrol(struct call *c)
{
    struct rs_tpm_blob ek, ak, blob, secret;
    uint8_t id[32], name[RS_TPM_NAME_LEN];
    char host[RS_HOST_ID_LEN + 2];
    EVP_PKEY *key = NULL;
    if (!take_blob(c->in, "ek", &ek) || !take_blob(c->in, "ak", &ak) || rs_ek_key(&ek, &key, id) != 0)
        return refuse(c, RESEAL_EFORMAT, "enrolment wants an RSA endorsement key and an attestation key");
    rs_wire_to_text(id, sizeof(id), host);
    int err = check_endorsement(c, key, host);
    EVP_PKEY_free(key);
    if (err == 0 && rs_daemon_revoked(c->a->daemon, host))
        err = refuse(c, RESEAL_EPERM, "this host is revoked");
    if (err == 0) err = rs_ak_check(&ak, name, c->why);
    if (err != 0) return err;
    struct rs_attest_pending *p = new_pending(c->a, c->caller->id.spki, false);
    if (p == NULL || RAND_priv_bytes(p->credential, sizeof(p->credential)) != 1) return RESEAL_EIO;
    p->ak = ak;
    memcpy(p->host, id, sizeof(p->host));
    memcpy(p->name, name, sizeof(p->name));
    err = rs_credential_make(&ek, name, p->credential, &blob, &secret);
    if (err != 0) return refuse(c, err, "no credential can be made for this endorsement key");
    give(c->out, "challenge", p->id, sizeof(p->id));
    give(c->out, "credential", blob.bytes, blob.len);
    give(c->out, "secret", secret.bytes, secret.len);
    return 0;
}

static void record_name(const char *host, char out[RS_STORE_NAME_MAX])
{
    (void)snprintf(out, RS_STORE_NAME_MAX, RS_ATTEST_HOSTS "/%s.json", host);
}

/* What is kept of a host. Each provider that is configured on it has an attestation key of its own. */
struct record {
    json_t *keys; /* array of public areas, oldest first */
    struct rs_tpm_clock clock;
};

static int keep_host(struct rs_attest *a, const char *host, const struct record *r)
{
    char name[RS_STORE_NAME_MAX];
    record_name(host, name);
    json_t *record =
        json_pack("{s:O, s:I, s:I, s:I}", "keys", r->keys, "ms", (json_int_t)r->clock.ms, "resets",
                  (json_int_t)r->clock.resets, "restarts", (json_int_t)r->clock.restarts);
    int err = record == NULL ? RESEAL_ENOMEM : rs_store_put_json(a->daemon->store, name, record);
    json_decref(record);
    return err;
}

/* r->keys is the caller's. */
static int find_host(struct rs_attest *a, const char *host, struct record *r)
{
    char name[RS_STORE_NAME_MAX];
    json_t *record;
    *r = (struct record){.keys = NULL};
    record_name(host, name);
    int err = rs_store_get_json(a->daemon->store, name, &record);
    if (err != 0) return err;
    json_t *keys = json_object_get(record, "keys");
    r->keys = json_is_array(keys) ? json_incref(keys) : NULL;
    r->clock =
        (struct rs_tpm_clock){.ms = (uint64_t)json_integer_value(json_object_get(record, "ms")),
                              .resets = (uint32_t)json_integer_value(json_object_get(record, "resets")),
                              .restarts = (uint32_t)json_integer_value(json_object_get(record, "restarts"))};
    json_decref(record);
    return r->keys == NULL ? RESEAL_EFORMAT : 0;
}

/* A new attestation key does not make an old TPM new: its time goes on. */
static int add_key(struct rs_attest *a, const char *host, const struct rs_tpm_blob *ak)
{
    struct record r;
    int err = find_host(a, host, &r);
    if (err == RESEAL_ENOKEY) {
        r.keys = json_array();
        err = r.keys == NULL ? RESEAL_ENOMEM : 0;
    }
    if (err == 0 && json_array_append_new(r.keys, rs_wire_json(ak->bytes, ak->len)) != 0) err = RESEAL_ENOMEM;
    while (err == 0 && json_array_size(r.keys) > RS_ATTEST_KEYS) (void)json_array_remove(r.keys, 0);
    if (err == 0) err = keep_host(a, host, &r);
    json_decref(r.keys);
    return err;
}

static int prove(struct call *c)
{
    struct rs_attest_pending p;
    uint8_t id[32], proof[32], want[32];
    char host[RS_HOST_ID_LEN + 2];
    if (rs_wire_member(c->in, "challenge", id, sizeof(id)) != 32 ||
        rs_wire_member(c->in, "proof", proof, sizeof(proof)) != 32)
        return refuse(c, RESEAL_EFORMAT, "a proof wants its challenge");
    if (!take_pending(c->a, id, c->caller->id.spki, false, &p))
        return refuse(c, RESEAL_EAUTH,
                      "this challenge was never given to you, was used, or is over: enrol again");
    bool ok =
        rs_enrol_proof(p.credential, p.id, p.host, p.name, p.spki, want) && rs_equal_ct(proof, want, 32);
    rs_wipe(p.credential, sizeof(p.credential));
    if (!ok)
        return refuse(c, RESEAL_EAUTH,
                      "the proof is wrong: the attestation key is not in the TPM of this endorsement key");
    rs_wire_to_text(p.host, sizeof(p.host), host);
    int err = add_key(c->a, host, &p.ak);
    if (err != 0) return refuse(c, err, "the host's record cannot be written to the state folder");
    (void)json_object_set_new(c->out, "host", json_string(host));
    rs_daemon_log(c->a->daemon, "host %s enrolled from %s", host, c->caller->address);
    return 0;
}

static int nonce(struct call *c)
{
    struct rs_attest_pending *p = new_pending(c->a, c->caller->id.spki, true);
    if (p == NULL) return RESEAL_EIO;
    give(c->out, "nonce", p->id, sizeof(p->id));
    (void)json_object_set_new(c->out, "pcrs", json_integer(c->a->policy.mask));
    return 0;
}

/* Values come in order; without the mask of the policy they mean nothing. */
static bool take_values(const json_t *in, uint32_t mask, struct rs_pcrs *out)
{
    const json_t *values = json_object_get(in, "values");
    size_t n = 0;
    *out = (struct rs_pcrs){.mask = mask};
    for (unsigned i = 0; i < RS_PCRS; i++) {
        if ((mask & 1u << i) == 0) continue;
        const char *text = json_string_value(json_array_get(values, n++));
        if (text == NULL || rs_wire_from_text(text, out->value[i], RS_PCR_LEN) != RS_PCR_LEN) return false;
    }
    return json_array_size(values) == n;
}

static int give_token(struct call *c, const char *host, const char *audience, const uint8_t digest[32])
{
    struct rs_attest *a = c->a;
    struct rs_token_claims claims;
    uint8_t id[16];
    char *token;
    memset(&claims, 0, sizeof(claims));
    if (RAND_bytes(id, sizeof(id)) != 1) return RESEAL_EIO;
    rs_wire_to_text(id, sizeof(id), claims.id);
    (void)snprintf(claims.issuer, sizeof(claims.issuer), "%s", a->issuer);
    (void)snprintf(claims.audience, sizeof(claims.audience), "%s", audience);
    (void)snprintf(claims.host, sizeof(claims.host), "%s", host);
    (void)snprintf(claims.policy, sizeof(claims.policy), "%s", a->policy.id);
    memcpy(claims.cert, c->caller->id.cert, sizeof(claims.cert));
    memcpy(claims.measures, digest, sizeof(claims.measures));
    claims.issued = claims.not_before = (int64_t)time(NULL);
    claims.expires = claims.issued + a->token_s;
    int err = rs_token_sign(a->signing_key, &claims, &token);
    if (err != 0) return err;
    (void)json_object_set_new(c->out, "token", json_string(token));
    (void)json_object_set_new(c->out, "lives_s", json_integer(a->token_s));
    free(token);
    rs_daemon_log(a->daemon, "host %s attested from %s: policy %s, token %s for %s", host, c->caller->address,
                  a->policy.id, claims.id, audience);
    return 0;
}

/* The quote counts when one of the host's keys has signed it. */
static int check_signed(struct call *c, const struct rs_quote *q, const struct record *r,
                        const uint8_t once[32], struct rs_tpm_clock *now, uint8_t digest[32])
{
    struct rs_tpm_blob ak;
    int err = refuse(c, RESEAL_EAUTH, "the host's record has no attestation key");
    for (size_t i = json_array_size(r->keys); i-- > 0;) {
        const char *text = json_string_value(json_array_get(r->keys, i));
        int64_t n = text == NULL ? -1 : rs_wire_from_text(text, ak.bytes, sizeof(ak.bytes));
        if (n <= 0) continue;
        ak.len = (uint16_t)n;
        err = rs_quote_verify(q, &ak, once, c->caller->id.spki, c->a->policy.mask, now, digest, c->why);
        if (err == 0 || rs_quote_signed(q, &ak)) return err;
    }
    return err;
}

static int check_quote(struct call *c, const char *host, const uint8_t once[32], uint8_t digest[32])
{
    struct rs_quote q;
    struct record r;
    struct rs_tpm_clock now;
    if (!take_blob(c->in, "quote", &q.attest) || !take_blob(c->in, "signature", &q.signature))
        return refuse(c, RESEAL_EFORMAT, "attestation wants a quote and its signature");
    if (!take_values(c->in, c->a->policy.mask, &q.pcrs))
        return refuse(c, RESEAL_EAUTH,
                      "the quote is not over the PCRs of the policy: their values are missing");
    int err = find_host(c->a, host, &r);
    if (err != 0) return refuse(c, RESEAL_ENOKEY, "this host is not enrolled here: enrol it");
    err = check_signed(c, &q, &r, once, &now, digest);
    if (err == 0) err = rs_tpm_clock_check(&r.clock, &now, c->why);
    if (err == 0) err = check_values(&c->a->policy, &q.pcrs, c->why);
    r.clock = now;
    if (err == 0 && keep_host(c->a, host, &r) != 0)
        err = refuse(c, RESEAL_EIO, "the host's record cannot be written to the state folder");
    json_decref(r.keys);
    return err;
}

static int attest(struct call *c)
{
    struct rs_attest_pending p;
    uint8_t once[32], digest[32];
    const char *host = json_string_value(json_object_get(c->in, "host"));
    const char *audience = json_string_value(json_object_get(c->in, "audience"));
    uint8_t id[32];
    if (host == NULL || rs_wire_from_text(host, id, sizeof(id)) != 32 || audience == NULL ||
        strlen(audience) >= 128 || rs_wire_member(c->in, "nonce", once, sizeof(once)) != 32)
        return refuse(c, RESEAL_EFORMAT, "attestation wants host, audience and nonce");
    if (!take_pending(c->a, once, c->caller->id.spki, true, &p))
        return refuse(c, RESEAL_EAUTH,
                      "this nonce was never given to you, was used, or is over: ask for another");
    if (!listed(c->a->audiences, audience))
        return refuse(c, RESEAL_EPERM, "no tokens are given for that service: see \"audiences\"");
    if (rs_daemon_revoked(c->a->daemon, host)) return refuse(c, RESEAL_EPERM, "this host is revoked");
    int err = check_quote(c, host, once, digest);
    return err == 0 ? give_token(c, host, audience, digest) : err;
}

void rs_attest_handle(void *arg, const struct rs_wire_caller *caller, const struct rs_wire_message *request,
                      struct rs_wire_message *answer)
{
    static const struct {
        const char *name;
        int (*run)(struct call *);
    } methods[] = {
        {"hello", hello}, {"enrol", enrol}, {"prove", prove}, {"nonce", nonce}, {"attest", attest}};
    const char *method = json_string_value(json_object_get(request->json, "method"));
    struct call c = {.a = arg, .caller = caller, .in = request->json, .out = json_object()};
    int err = refuse(&c, RESEAL_ENOSUPPORT, "no such request");
    for (unsigned i = 0; method != NULL && i < RS_ARRAY_LEN(methods); i++)
        if (strcmp(method, methods[i].name) == 0) {
            c.why[0] = '\0';
            err = methods[i].run(&c);
        }
    if (err != 0) {
        json_decref(c.out);
        if (c.why[0] == '\0') (void)refuse(&c, err, reseal_strerror(err));
        c.out = rs_wire_refusal(err, "%s", c.why);
        rs_daemon_log(c.a->daemon, "refused %.20s from %s: %s", method == NULL ? "?" : method,
                      caller->address, c.why);
    }
    answer->json = c.out;
}
