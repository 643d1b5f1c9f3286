/* SPDX-License-Identifier: Apache-2.0 */
/* The trusted provider's task against the real services and a real software TPM, and every refusal. */
#include "offload/base/keymem.h"
#include "providers/key/events.h"
#include "providers/key/trusted/provider.h"
#include "providers/key/trusted/token.h"
#include "providers/key/wire/dial.h"
#include "providers/key/wire/frame.h"
#include "reseal/reseal.h"
#include "tests/support/cmocka.h"
#include "tests/support/trusted.h"

#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static struct trusted trusted;

/* A host: what reseal-keyd keeps of its provider between tasks. */
struct host {
    json_t *config;
    struct rs_secrets secrets;
};

static struct host host_new(const char *tpm)
{
    struct host h = {.config = trusted_published(&trusted), .secrets = {.n = 0}};
    char why[256];
    if (tpm != NULL) (void)json_object_set_new(h.config, "tpm", json_string(tpm));
    if (rs_trusted_check(h.config, &h.secrets, why, sizeof(why)) != 0) fail_msg("%s", why);
    return h;
}

static void host_free(struct host *h)
{
    json_decref(h->config);
    rs_secrets_free(&h->secrets);
}

/* Runs the task and keeps what it yields, as reseal-keyd does. */
static int ask(struct host *h, const char *op, const char *key, struct rs_task_own *own)
{
    json_t *args = json_pack("{s:s, s:O, s:s*}", "op", op, "config", h->config, "key", key);
    rs_task_run_here(&rs_task_trusted, args, &h->secrets, own);
    json_decref(args);
    if (own->answer.status != 0) return own->answer.status;
    json_t *config = json_object_get(own->answer.result, "config");
    json_decref(h->config);
    h->config = json_incref(config);
    for (unsigned i = 0; i < own->answer.secrets->n; i++) {
        const struct rs_secret *s = &own->answer.secrets->at[i];
        if (strcmp(s->name, "kek") != 0)
            assert_int_equal(rs_secrets_put(&h->secrets, s->name, s->bytes, s->len), 0);
    }
    return 0;
}

static void make(struct host *h, char id[RS_KEY_ID_MAX], uint8_t kek[RS_KEK_LEN])
{
    struct rs_task_own own;
    if (ask(h, "make", NULL, &own) != 0) fail_msg("%s", own.answer.why);
    const struct rs_secret *s = rs_secrets_find(own.answer.secrets, "kek");
    assert_true(s != NULL && s->len == RS_KEK_LEN);
    memcpy(kek, s->bytes, RS_KEK_LEN);
    (void)snprintf(id, RS_KEY_ID_MAX, "%s", json_string_value(json_object_get(own.answer.result, "key")));
    rs_task_own_free(&own);
}

static void refused(struct host *h, const char *op, const char *key, int want, const char *event,
                    const char *line)
{
    struct rs_task_own own;
    int err = ask(h, op, key, &own);
    if (err != want || strstr(own.answer.why, line) == NULL || strcmp(own.answer.event, event) != 0)
        fail_msg("%d, %s: %s", err, own.answer.event, own.answer.why);
    assert_null(strchr(own.answer.why, '\n'));
    rs_task_own_free(&own);
}

static int setup(void **state)
{
    (void)state;
    if (rs_keymem_init(0) != 0) return -1;
    trusted_start(&trusted);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    trusted_stop(&trusted);
    return 0;
}

/* ---- as it should be ------------------------------------------------------------------------- */

static void keys_for_an_attested_host(void **state)
{
    struct host h = host_new(NULL), other = host_new(NULL);
    char id[RS_KEY_ID_MAX];
    uint8_t kek[RS_KEK_LEN];
    struct rs_task_own own;
    (void)state;
    make(&h, id, kek);
    assert_true(strlen(id) > 64);
    assert_non_null(json_object_get(h.config, "host"));
    /* The pass is an event; the next key needs no new token. */
    char first[RS_TOKEN_MAX];
    (void)snprintf(first, sizeof(first), "%s", rs_secrets_text(&h.secrets, "token"));
    assert_int_equal(ask(&h, "fetch", id, &own), 0);
    assert_memory_equal(rs_secrets_find(own.answer.secrets, "kek")->bytes, kek, RS_KEK_LEN);
    assert_null(json_object_get(own.answer.result, "down"));
    rs_task_own_free(&own);
    assert_string_equal(first, rs_secrets_text(&h.secrets, "token"));
    /* Half of its life is over. */
    json_int_t now = (json_int_t)time(NULL);
    (void)json_object_set_new(h.config, "token_from", json_integer(now - 40));
    (void)json_object_set_new(h.config, "token_until", json_integer(now + 20));
    assert_int_equal(ask(&h, "fetch", id, &own), 0);
    const json_t *told = json_array_get(json_object_get(own.answer.result, "down"), 0);
    assert_string_equal(json_string_value(json_object_get(told, "event")), RS_EVENT_ATTEST_PASS);
    rs_task_own_free(&own);
    assert_string_not_equal(first, rs_secrets_text(&h.secrets, "token"));
    /* Another provider entry on the same host enrols anew, and opens the same keys. */
    assert_int_equal(ask(&other, "fetch", id, &own), 0);
    assert_memory_equal(rs_secrets_find(own.answer.secrets, "kek")->bytes, kek, RS_KEK_LEN);
    rs_task_own_free(&own);
    /* That takes nothing from the first. */
    (void)json_object_set_new(h.config, "token_until", json_integer(0));
    assert_int_equal(ask(&h, "fetch", id, &own), 0);
    rs_task_own_free(&own);
    /* The service forgot the host, or the TPM the key: it is enrolled again. */
    char path[256];
    (void)snprintf(path, sizeof(path), "%s/attestd/hosts/%s.json", trusted.folder,
                   json_string_value(json_object_get(h.config, "host")));
    assert_int_equal(remove(path), 0);
    (void)json_object_set_new(h.config, "token_until", json_integer(0));
    assert_int_equal(ask(&h, "fetch", id, &own), 0);
    rs_task_own_free(&own);
    struct rs_secret *priv = (struct rs_secret *)(uintptr_t)rs_secrets_find(&h.secrets, "ak-private");
    priv->bytes[20] ^= 1;
    (void)json_object_set_new(h.config, "token_until", json_integer(0));
    assert_int_equal(ask(&h, "fetch", id, &own), 0);
    rs_task_own_free(&own);
    host_free(&h);
    host_free(&other);
}

static void test_shows_each_service_and_the_tpm(void **state)
{
    struct host h = host_new(NULL);
    struct rs_task_own own;
    size_t i;
    json_t *row;
    (void)state;
    assert_int_equal(ask(&h, "test", NULL, &own), 0);
    const json_t *rows = json_object_get(own.answer.result, "servers");
    assert_int_equal(json_array_size(rows), 3);
    json_array_foreach(rows, i, row) assert_true(json_is_true(json_object_get(row, "ok")));
    rs_task_own_free(&own);
    host_free(&h);
}

/* ---- what is refused -------------------------------------------------------------------------- */

static void a_key_of_another_provider(void **state)
{
    struct host h = host_new(NULL);
    char id[RS_KEY_ID_MAX];
    uint8_t kek[RS_KEK_LEN];
    (void)state;
    make(&h, id, kek);
    id[60] = id[60] == 'A' ? 'B' : 'A';
    refused(&h, "fetch", id, RESEAL_ENOKEY, "", "this key id was changed");
    refused(&h, "fetch", "no-such-key", RESEAL_ENOKEY, "", "of another provider");
    host_free(&h);
}

static void a_tpm_of_an_unknown_maker(void **state)
{
    struct swtpm other;
    (void)state;
    swtpm_start(&other, trusted.folder, "stranger", "strange-ca");
    struct host h = host_new(other.where);
    refused(&h, "make", NULL, RESEAL_EAUTH, RS_EVENT_ATTEST_FAIL, "not from a CA that is configured");
    swtpm_stop(&other);
    refused(&h, "make", NULL, RESEAL_ENOSERVICE, RS_EVENT_ATTEST_FAIL, "no TPM answers");
    host_free(&h);
}

/* A raw client of a service, under a TLS identity. */
static int raw(uint16_t port, const struct rs_secrets *as, const char *spki_of, json_t *request,
               json_t **answer, struct rs_wire_error *error)
{
    const struct rs_wire_address to = {.what = "service", .remedy = "", .host = "127.0.0.1", .port = port};
    json_t *published = trusted_published(&trusted);
    const json_t *from =
        strcmp(spki_of, "attest") == 0 ? json_array_get(json_object_get(published, "attest"), 0) : published;
    uint8_t spki[32];
    struct rs_wire_link *link = NULL;
    struct rs_wire_message got = {.json = NULL};
    const struct rs_wire_message m = {.json = request};
    assert_int_equal(rs_wire_member(from, "spki", spki, sizeof(spki)), 32);
    const struct rs_wire_trust trust = {.spkis = spki,
                                        .nspkis = 1,
                                        .cert = rs_secrets_text(as, "tls-cert"),
                                        .key = rs_secrets_text(as, "tls-key")};
    int err = rs_wire_connect(&link, &to, &trust, 60000, error);
    if (err == 0) err = rs_wire_ask(link, &m, &got, 60000, error);
    if (answer != NULL) *answer = json_incref(got.json);
    rs_wire_message_free(&got);
    rs_wire_disconnect(link);
    json_decref(request);
    json_decref(published);
    return err;
}

static json_t *attest_request(const struct host *h, const struct rs_quote *q, const uint8_t nonce[32],
                              unsigned values)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < RS_PCRS; i++)
        if ((q->pcrs.mask & 1u << i) != 0 && json_array_size(list) < values)
            json_array_append_new(list, rs_wire_json(q->pcrs.value[i], 32));
    return json_pack("{s:s, s:O, s:s, s:o, s:o, s:o, s:o}", "method", "attest", "host",
                     json_object_get(h->config, "host"), "audience", TRUSTED_NAME, "nonce",
                     rs_wire_json(nonce, 32), "quote", rs_wire_json(q->attest.bytes, q->attest.len),
                     "signature", rs_wire_json(q->signature.bytes, q->signature.len), "values", list);
}

static void get_nonce(const struct host *h, uint8_t nonce[32])
{
    struct rs_wire_error error;
    json_t *answer;
    assert_int_equal(raw(trusted.attest_port, &h->secrets, "attest", json_pack("{s:s}", "method", "nonce"),
                         &answer, &error),
                     0);
    assert_int_equal(rs_wire_member(answer, "nonce", nonce, 32), 32);
    json_decref(answer);
}

static void attest_refused(const struct host *h, json_t *request, int want, const char *line)
{
    struct rs_wire_error error;
    int err = raw(trusted.attest_port, &h->secrets, "attest", request, NULL, &error);
    if (err != want || strstr(error.why, line) == NULL) fail_msg("%d: %s", err, error.why);
}

static void quotes_that_do_not_count(void **state)
{
    struct host h = host_new(NULL);
    char id[RS_KEY_ID_MAX], why[RS_TRUST_WHY];
    uint8_t kek[RS_KEK_LEN], nonce[32], later[32], qualifying[32];
    struct rs_wire_identity me;
    struct rs_tpm *tpm;
    struct rs_tpm_key ak, other;
    struct rs_quote q;
    (void)state;
    make(&h, id, kek);
    const struct rs_secret *pub = rs_secrets_find(&h.secrets, "ak-public"),
                           *priv = rs_secrets_find(&h.secrets, "ak-private");
    memcpy(ak.pub.bytes, pub->bytes, pub->len);
    memcpy(ak.priv.bytes, priv->bytes, priv->len);
    ak.pub.len = (uint16_t)pub->len;
    ak.priv.len = (uint16_t)priv->len;
    assert_int_equal(rs_wire_identity_of_pem(rs_secrets_text(&h.secrets, "tls-cert"), &me), 0);
    assert_int_equal(rs_tpm_open(&tpm, trusted.tpm.where, why), 0);

    /* It counts once. */
    get_nonce(&h, nonce);
    rs_quote_qualify(nonce, me.spki, qualifying);
    assert_int_equal(rs_tpm_quote(tpm, &ak, qualifying, TRUSTED_MASK, &q, why), 0);
    struct rs_wire_error error;
    assert_int_equal(
        raw(trusted.attest_port, &h.secrets, "attest", attest_request(&h, &q, nonce, 9), NULL, &error), 0);
    attest_refused(&h, attest_request(&h, &q, nonce, 9), RESEAL_EAUTH, "was used");
    /* The old quote under a new nonce. */
    get_nonce(&h, later);
    attest_refused(&h, attest_request(&h, &q, later, 9), RESEAL_EAUTH, "it is an old one, or another host's");
    /* A nonce of our own making. */
    memset(later, 7, sizeof(later));
    attest_refused(&h, attest_request(&h, &q, later, 9), RESEAL_EAUTH, "never given to you");
    /* Other PCRs than the policy's, fewer values. */
    get_nonce(&h, nonce);
    rs_quote_qualify(nonce, me.spki, qualifying);
    assert_int_equal(rs_tpm_quote(tpm, &ak, qualifying, 1u << 0 | 1u << 7 | 1u << 15, &q, why), 0);
    attest_refused(&h, attest_request(&h, &q, nonce, 9), RESEAL_EAUTH, "not over the PCRs of the policy");
    get_nonce(&h, nonce);
    attest_refused(&h, attest_request(&h, &q, nonce, 2), RESEAL_EAUTH, "values are missing");
    /* Another attestation key of the same TPM. */
    assert_int_equal(rs_tpm_make_ak(tpm, &other, why), 0);
    get_nonce(&h, nonce);
    rs_quote_qualify(nonce, me.spki, qualifying);
    assert_int_equal(rs_tpm_quote(tpm, &other, qualifying, TRUSTED_MASK, &q, why), 0);
    attest_refused(&h, attest_request(&h, &q, nonce, 9), RESEAL_EAUTH,
                   "not signed by the enrolled attestation key");
    /* Another host's TLS key. */
    get_nonce(&h, nonce);
    rs_quote_qualify(nonce, nonce, qualifying);
    assert_int_equal(rs_tpm_quote(tpm, &ak, qualifying, TRUSTED_MASK, &q, why), 0);
    attest_refused(&h, attest_request(&h, &q, nonce, 9), RESEAL_EAUTH, "another host's");
    rs_tpm_close(tpm);
    host_free(&h);
}

/* ---- tokens at the key provider service --------------------------------------------------------- */

static void token_refused(const struct rs_secrets *as, const char *token, const char *line)
{
    struct rs_wire_error error;
    int err = raw(trusted.keys_port, as, "keys", json_pack("{s:s, s:s}", "method", "new", "token", token),
                  NULL, &error);
    if (err != RESEAL_EAUTH || strstr(error.why, line) == NULL) fail_msg("%d: %s", err, error.why);
}

static char *forged(const struct rs_token_claims *c)
{
    char *out;
    assert_int_equal(rs_token_sign(trusted.foreign, c, &out), 0);
    return out;
}

static void tokens_that_do_not_count(void **state)
{
    struct host h = host_new(NULL), thief = host_new(NULL);
    char id[RS_KEY_ID_MAX], none[RS_TOKEN_MAX], header[] = "{\"alg\":\"none\"}", text[64];
    uint8_t kek[RS_KEK_LEN];
    struct rs_wire_identity me;
    (void)state;
    make(&h, id, kek);
    make(&thief, id, kek);
    const char *token = rs_secrets_text(&h.secrets, "token");
    token_refused(&thief.secrets, token, "of another host");
    token_refused(&h.secrets, "a.b", "no token");
    rs_wire_to_text(header, strlen(header), text);
    (void)snprintf(none, sizeof(none), "%s.%.*s.", text, (int)strcspn(strchr(token, '.') + 1, "."),
                   strchr(token, '.') + 1);
    token_refused(&h.secrets, none, "not signed with ES256");
    (void)snprintf(none, sizeof(none), "%s", token);
    none[strlen(none) - 5] ^= 1;
    token_refused(&h.secrets, none, "signature is wrong");

    /* Signed by a trusted key, and still not good. */
    assert_int_equal(rs_wire_identity_of_pem(rs_secrets_text(&h.secrets, "tls-cert"), &me), 0);
    int64_t now = (int64_t)time(NULL);
    struct rs_token_claims good = {.issuer = "test",
                                   .audience = TRUSTED_NAME,
                                   .host = "forged",
                                   .id = "one",
                                   .policy = "p",
                                   .issued = now,
                                   .not_before = now,
                                   .expires = now + 60};
    memcpy(good.cert, me.cert, sizeof(good.cert));
    struct rs_token_claims bad = good;
    bad.issued = bad.not_before = now - 700;
    bad.expires = now - 100;
    char *made = forged(&bad);
    token_refused(&h.secrets, made, "expired");
    free(made);
    bad = good;
    bad.not_before = now + 100;
    made = forged(&bad);
    token_refused(&h.secrets, made, "not valid yet");
    free(made);
    bad = good;
    (void)snprintf(bad.audience, sizeof(bad.audience), "elsewhere");
    made = forged(&bad);
    token_refused(&h.secrets, made, "for another service");
    free(made);
    EVP_PKEY *unknown = rs_token_make_key();
    assert_int_equal(rs_token_sign(unknown, &good, &made), 0);
    token_refused(&h.secrets, made, "not from an attestation service that is trusted");
    free(made);
    EVP_PKEY_free(unknown);
    host_free(&h);
    host_free(&thief);
}

static void a_token_serves_once_where_that_is_asked(void **state)
{
    struct host h = host_new(NULL);
    char id[RS_KEY_ID_MAX], old[RS_TOKEN_MAX];
    uint8_t kek[RS_KEK_LEN];
    struct rs_task_own own;
    (void)state;
    trusted_stop_keys(&trusted);
    trusted_start_keys(&trusted, json_pack("{s:b}", "single_use", 1));
    make(&h, id, kek);
    (void)snprintf(old, sizeof(old), "%s", rs_secrets_text(&h.secrets, "token"));
    token_refused(&h.secrets, old, "used before");
    /* The host gets another one by itself. */
    assert_int_equal(ask(&h, "fetch", id, &own), 0);
    rs_task_own_free(&own);
    assert_string_not_equal(old, rs_secrets_text(&h.secrets, "token"));
    trusted_stop_keys(&trusted);
    trusted_start_keys(&trusted, NULL);
    host_free(&h);
}

static void a_revoked_host(void **state)
{
    struct host h = host_new(NULL);
    char id[RS_KEY_ID_MAX], path[256];
    uint8_t kek[RS_KEK_LEN];
    (void)state;
    make(&h, id, kek);
    (void)snprintf(path, sizeof(path), "%s/keyproviderd/revoked", trusted.folder);
    FILE *f = fopen(path, "we");
    (void)fprintf(f, "# stolen\n%s  # since yesterday\n",
                  json_string_value(json_object_get(h.config, "host")));
    fclose(f);
    refused(&h, "fetch", id, RESEAL_EPERM, "", "this host is revoked");
    remove(path);
    struct rs_task_own own;
    assert_int_equal(ask(&h, "fetch", id, &own), 0);
    rs_task_own_free(&own);
    host_free(&h);
}

/* ---- services that are away ---------------------------------------------------------------------- */

static void services_that_are_down(void **state)
{
    struct host h = host_new(NULL), fresh = host_new(NULL);
    char id[RS_KEY_ID_MAX];
    uint8_t kek[RS_KEK_LEN];
    struct rs_task_own own;
    (void)state;
    make(&h, id, kek);
    trusted_stop_attestd(&trusted);
    /* While the token lives, attestation is not needed; also in its second half. */
    json_int_t now = (json_int_t)time(NULL);
    (void)json_object_set_new(h.config, "token_from", json_integer(now - 40));
    (void)json_object_set_new(h.config, "token_until", json_integer(now + 20));
    assert_int_equal(ask(&h, "fetch", id, &own), 0);
    rs_task_own_free(&own);
    refused(&fresh, "make", NULL, RESEAL_ENOSERVICE, RS_EVENT_TA_DOWN, "attestation service 127.0.0.1");
    trusted_start_attestd(&trusted);
    /* It kept what it knew: the same key signs its tokens, and the host is enrolled. */
    (void)json_object_set_new(h.config, "token_until", json_integer(0));
    assert_int_equal(ask(&h, "fetch", id, &own), 0);
    rs_task_own_free(&own);
    trusted_stop_keys(&trusted);
    refused(&h, "fetch", id, RESEAL_ENOSERVICE, RS_EVENT_TA_DOWN, "key provider service 127.0.0.1");
    /* A primary key whose server does not answer. */
    char ca[256];
    (void)snprintf(ca, sizeof(ca), "%s/ca.pem", trusted.folder);
    trusted_start_keys(&trusted, json_pack("{s:[{s:{s:[s], s:s, s:s}}]}", "primaries", "kmip", "servers",
                                           "127.0.0.1:1", "ca", ca, "id", "1"));
    refused(&h, "fetch", id, RESEAL_ENOSERVICE, RS_EVENT_TA_UNHEALTHY, "the primary key is not there");
    trusted_stop_keys(&trusted);
    trusted_start_keys(&trusted, NULL);
    assert_int_equal(ask(&h, "fetch", id, &own), 0);
    assert_memory_equal(rs_secrets_find(own.answer.secrets, "kek")->bytes, kek, RS_KEK_LEN);
    rs_task_own_free(&own);
    host_free(&h);
    host_free(&fresh);
}

/* Last: this TPM does not pass any more. */
static void something_else_was_booted(void **state)
{
    struct host h = host_new(NULL);
    char id[RS_KEY_ID_MAX];
    uint8_t kek[RS_KEK_LEN];
    (void)state;
    make(&h, id, kek);
    swtpm_extend(&trusted.tpm, 14, "another release");
    (void)json_object_set_new(h.config, "token_until", json_integer(0));
    refused(&h, "fetch", id, RESEAL_EAUTH, RS_EVENT_ATTEST_FAIL,
            "PCR 14 has a value that policy release-1 does not allow");
    host_free(&h);
}

static void configurations_that_are_refused(void **state)
{
    static const struct {
        const char *text, *line;
    } bad[] = {
        {"{\"name\": \"a\"}", "attest"},
        {"{\"kind\": \"reseal-attestd\", \"version\": 1}", "reseal-keyproviderd --publish"},
        {"{\"name\": \"a\", \"attest\": [], \"keys\": []}", "attest: wants 1 to 8"},
        {"{\"name\": \"a\", \"attest\": [{\"address\": \"h\", \"spki\": \"x\"}], \"keys\": []}", "host:port"},
        {"{\"name\": \"a\", \"attest\": [{\"address\": \"h:1\", \"spki\": \"x\"}], \"keys\": []}", "spki"},
        {"{\"name\": \"a\", \"attest\": [], \"keys\": [], \"tpm\": \"/dev/tpm0\"}", "tpm: wants"},
        {"{\"name\": \"a\", \"attest\": [], \"keys\": [], \"more\": 1}", "more"},
    };
    (void)state;
    for (unsigned i = 0; i < RS_ARRAY_LEN(bad); i++) {
        json_t *config = json_loads(bad[i].text, 0, NULL);
        struct rs_secrets none = {.n = 0};
        char why[256] = "";
        int err = rs_trusted_check(config, &none, why, sizeof(why));
        if (err != RESEAL_EINVAL || strstr(why, bad[i].line) == NULL) fail_msg("%u: %d: %s", i, err, why);
        json_decref(config);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_for_an_attested_host),
        cmocka_unit_test(test_shows_each_service_and_the_tpm),
        cmocka_unit_test(a_key_of_another_provider),
        cmocka_unit_test(a_tpm_of_an_unknown_maker),
        cmocka_unit_test(quotes_that_do_not_count),
        cmocka_unit_test(tokens_that_do_not_count),
        cmocka_unit_test(a_token_serves_once_where_that_is_asked),
        cmocka_unit_test(a_revoked_host),
        cmocka_unit_test(services_that_are_down),
        cmocka_unit_test(configurations_that_are_refused),
        cmocka_unit_test(something_else_was_booted),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
