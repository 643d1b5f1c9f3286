/* SPDX-License-Identifier: Apache-2.0 */
/* A real software TPM: keys, activation, quotes, sealing; and what verifies them without a TPM. */
#include "offload/base/keymem.h"
#include "providers/key/trusted/credential.h"
#include "providers/key/trusted/tpm.h"
#include "reseal/reseal.h"
#include "tests/support/cmocka.h"
#include "tests/support/swtpm.h"

#include <openssl/rand.h>
#include <openssl/rsa.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define MASK (1u << 0 | 1u << 7 | 1u << 14)

static char folder[64];
static struct swtpm soft;
static char why[RS_TRUST_WHY];

static struct rs_tpm *open_tpm(void)
{
    struct rs_tpm *t;
    if (rs_tpm_open(&t, soft.where, why) != 0) fail_msg("%s", why);
    return t;
}

static void ok(int err)
{
    if (err != 0) fail_msg("%d: %s", err, why);
}

static void refused(int err, const char *line)
{
    if (err != RESEAL_EAUTH || strstr(why, line) == NULL) fail_msg("%d: %s", err, why);
}

static char *slurp(const char *name)
{
    char path[128];
    (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
    FILE *f = fopen(path, "re");
    assert_non_null(f);
    char *text = calloc(1, 32768);
    assert_true(fread(text, 1, 32767, f) > 0);
    fclose(f);
    return text;
}

static int setup(void **state)
{
    (void)state;
    (void)snprintf(folder, sizeof(folder), "/tmp/reseal-tpm-XXXXXX");
    assert_non_null(mkdtemp(folder));
    swtpm_start(&soft, folder, "host", "ca");
    return rs_keymem_init(0);
}

static int teardown(void **state)
{
    (void)state;
    swtpm_stop(&soft);
    pid_t pid = fork();
    if (pid == 0) {
        execlp("rm", "rm", "-rf", folder, NULL);
        _exit(127);
    }
    waitpid(pid, NULL, 0);
    return 0;
}

/* ---- tests --------------------------------------------------------------------------- */

static void endorsement_certificate_has_a_chain(void **state)
{
    struct rs_tpm *t = open_tpm();
    struct rs_tpm_blob pub;
    uint8_t cert[4096], id[32];
    size_t len;
    EVP_PKEY *key;
    (void)state;
    ok(rs_tpm_endorsement(t, &pub, cert, sizeof(cert), &len, why));
    assert_true(len > 0);
    assert_int_equal(rs_ek_key(&pub, &key, id), 0);
    char *cas = slurp("ca.pem");
    ok(rs_ek_certificate(cert, len, key, cas, why));
    /* Another maker's TPM. */
    struct swtpm other;
    swtpm_start(&other, folder, "other", "other-ca");
    swtpm_stop(&other);
    char *others = slurp("other-ca.pem");
    refused(rs_ek_certificate(cert, len, key, others, why), "not from a CA that is configured");
    assert_int_equal(rs_ek_certificate(cert, len, key, "", why), RESEAL_EINVAL);
    assert_int_equal(rs_ek_certificate(cert, len - 1, key, cas, why), RESEAL_EFORMAT);
    EVP_PKEY *stranger = EVP_RSA_gen(2048);
    refused(rs_ek_certificate(cert, len, stranger, cas, why), "of another TPM's key");
    EVP_PKEY_free(stranger);
    EVP_PKEY_free(key);
    free(cas);
    free(others);
    rs_tpm_close(t);
}

static void credential_is_for_one_key_of_one_tpm(void **state)
{
    struct rs_tpm *t = open_tpm();
    struct rs_tpm_key ak, other;
    struct rs_tpm_blob ek, blob, secret;
    uint8_t cert[4096], name[RS_TPM_NAME_LEN], want[32], got[32];
    size_t len;
    (void)state;
    ok(rs_tpm_endorsement(t, &ek, cert, sizeof(cert), &len, why));
    ok(rs_tpm_make_ak(t, &ak, why));
    ok(rs_tpm_make_ak(t, &other, why));
    ok(rs_ak_check(&ak.pub, name, why));
    assert_int_equal(RAND_bytes(want, sizeof(want)), 1);
    assert_int_equal(rs_credential_make(&ek, name, want, &blob, &secret), 0);
    ok(rs_tpm_activate(t, &ak, &blob, &secret, got, why));
    assert_memory_equal(got, want, sizeof(want));
    refused(rs_tpm_activate(t, &other, &blob, &secret, got, why), "activating");
    blob.bytes[20] ^= 1;
    refused(rs_tpm_activate(t, &ak, &blob, &secret, got, why), "activating");
    /* An endorsement key is no attestation key. */
    refused(rs_ak_check(&ek, name, why), "signs only what the TPM says");
    ek.len--;
    assert_int_equal(rs_ak_check(&ek, name, why), RESEAL_EFORMAT);
    rs_tpm_close(t);
}

static void a_quote_and_all_that_is_refused(void **state)
{
    struct rs_tpm *t = open_tpm();
    struct rs_tpm_key ak, other;
    struct rs_quote q, bad;
    struct rs_tpm_clock first, clock;
    uint8_t nonce[32] = {1}, old[32] = {2}, spki[32] = {3}, qualifying[32], digest[32], after[32];
    (void)state;
    ok(rs_tpm_make_ak(t, &ak, why));
    ok(rs_tpm_make_ak(t, &other, why));
    rs_quote_qualify(nonce, spki, qualifying);
    ok(rs_tpm_quote(t, &ak, qualifying, MASK, &q, why));
    ok(rs_quote_verify(&q, &ak.pub, nonce, spki, MASK, &first, digest, why));

    refused(rs_quote_verify(&q, &ak.pub, old, spki, MASK, &clock, after, why), "an old one");
    refused(rs_quote_verify(&q, &ak.pub, nonce, old, MASK, &clock, after, why), "another host's");
    refused(rs_quote_verify(&q, &other.pub, nonce, spki, MASK, &clock, after, why),
            "enrolled attestation key");
    refused(rs_quote_verify(&q, &ak.pub, nonce, spki, MASK & ~1u, &clock, after, why), "PCRs of the policy");
    bad = q;
    bad.pcrs.value[14][3] ^= 1;
    refused(rs_quote_verify(&bad, &ak.pub, nonce, spki, MASK, &clock, after, why),
            "not those that were quoted");
    for (size_t i = 0; i < q.attest.len; i++) {
        bad = q;
        bad.attest.bytes[i] ^= 0x10;
        refused(rs_quote_verify(&bad, &ak.pub, nonce, spki, MASK, &clock, after, why), "not signed by");
    }
    for (uint16_t n = 0; n < q.signature.len; n++) {
        bad = q;
        bad.signature.len = n;
        refused(rs_quote_verify(&bad, &ak.pub, nonce, spki, MASK, &clock, after, why), "not signed by");
    }

    /* Something else boots. */
    swtpm_extend(&soft, 14, "another release");
    rs_tpm_close(t);
    t = open_tpm();
    ok(rs_tpm_quote(t, &ak, qualifying, MASK, &q, why));
    ok(rs_quote_verify(&q, &ak.pub, nonce, spki, MASK, &clock, after, why));
    assert_memory_not_equal(digest, after, sizeof(digest));
    ok(rs_tpm_clock_check(&first, &clock, why));
    refused(rs_tpm_clock_check(&clock, &first, why), "went back");
    rs_tpm_close(t);
}

static void sealed_until_a_pcr_changes(void **state)
{
    struct rs_tpm *t = open_tpm();
    struct rs_tpm_key sealed;
    uint8_t secret[32] = "thirty-two bytes of a host key..", got[64];
    size_t len;
    (void)state;
    ok(rs_tpm_seal(t, 1u << 7, secret, sizeof(secret), &sealed, why));
    ok(rs_tpm_unseal(t, 1u << 7, &sealed, got, sizeof(got), &len, why));
    assert_int_equal(len, sizeof(secret));
    assert_memory_equal(got, secret, len);
    /* Ten times: nothing is left in its three slots. */
    for (int i = 0; i < 10; i++) ok(rs_tpm_unseal(t, 1u << 7, &sealed, got, sizeof(got), &len, why));
    rs_tpm_close(t);
    swtpm_extend(&soft, 7, "another boot loader");
    t = open_tpm();
    refused(rs_tpm_unseal(t, 1u << 7, &sealed, got, sizeof(got), &len, why), "unsealing");
    rs_tpm_close(t);
}

static void keys_live_on_after_a_reset(void **state)
{
    struct rs_tpm *t = open_tpm();
    struct rs_tpm_key ak;
    struct rs_quote q;
    struct rs_tpm_clock before, after;
    uint8_t nonce[32] = {1}, qualifying[32], digest[32];
    (void)state;
    rs_quote_qualify(nonce, nonce, qualifying);
    ok(rs_tpm_make_ak(t, &ak, why));
    ok(rs_tpm_quote(t, &ak, qualifying, MASK, &q, why));
    ok(rs_quote_verify(&q, &ak.pub, nonce, nonce, MASK, &before, digest, why));
    rs_tpm_close(t);
    swtpm_stop(&soft);
    assert_int_equal(rs_tpm_open(&t, soft.where, why), RESEAL_ENOSERVICE);
    assert_non_null(strstr(why, "no TPM answers"));
    swtpm_start(&soft, folder, "host", "ca");
    t = open_tpm();
    ok(rs_tpm_quote(t, &ak, qualifying, MASK, &q, why));
    ok(rs_quote_verify(&q, &ak.pub, nonce, nonce, MASK, &after, digest, why));
    assert_true(after.resets > before.resets);
    ok(rs_tpm_clock_check(&before, &after, why));
    refused(rs_tpm_clock_check(&after, &before, why), "went back");
    rs_tpm_close(t);
}

static void lists_of_pcrs(void **state)
{
    (void)state;
    assert_int_equal(rs_pcr_mask("0,7,14"), MASK);
    assert_int_equal(rs_pcr_mask("7"), 1u << 7);
    assert_int_equal(rs_pcr_mask("24"), 0);
    assert_int_equal(rs_pcr_mask(""), 0);
    assert_int_equal(rs_pcr_mask("7,"), 0);
    assert_int_equal(rs_pcr_mask("7;8"), 0);
    struct rs_tpm *t;
    assert_int_equal(rs_tpm_open(&t, "/dev/tpm0", why), RESEAL_EINVAL);
    assert_int_equal(rs_tpm_open(&t, "device:/dev/null/none", why), RESEAL_ENOSERVICE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(endorsement_certificate_has_a_chain),
        cmocka_unit_test(credential_is_for_one_key_of_one_tpm),
        cmocka_unit_test(a_quote_and_all_that_is_refused),
        cmocka_unit_test(sealed_until_a_pcr_changes),
        cmocka_unit_test(keys_live_on_after_a_reset),
        cmocka_unit_test(lists_of_pcrs),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
