/* SPDX-License-Identifier: Apache-2.0 */
/* Tokens: two foreign verifiers read ours, we read a foreign one, and what must not count does not. */
#include "offload/base/keymem.h"
#include "providers/key/trusted/token.h"
#include "providers/key/wire/frame.h"
#include "reseal/reseal.h"
#include "tests/support/cmocka.h"
#include "tests/support/keyd.h"

#include <openssl/hmac.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static EVP_PKEY *key;
static json_t *jwk, *keys;
static char folder[64], why[RS_TRUST_WHY];
static const uint8_t cert[32] = {1, 2, 3};

static struct rs_token_claims claims_now(void)
{
    int64_t now = (int64_t)time(NULL);
    struct rs_token_claims c = {.issuer = "test",
                                .audience = "site-a",
                                .host = "AAAA",
                                .id = "1",
                                .policy = "p",
                                .issued = now,
                                .not_before = now,
                                .expires = now + 300};
    memcpy(c.cert, cert, sizeof(cert));
    return c;
}

static int verify(const char *token, int64_t now, struct rs_token_claims *out)
{
    const struct rs_token_rules rules = {.keys = keys, .audience = "site-a", .cert = cert, .now = now};
    return rs_token_verify(token, &rules, out, why);
}

static void refused(const char *token, int want, const char *line)
{
    struct rs_token_claims c;
    int err = verify(token, (int64_t)time(NULL), &c);
    if (err != want || strstr(why, line) == NULL) fail_msg("%d: %s", err, why);
}

/* Not inlined: gcc 12 then sees a dangling pointer where there is none. */
__attribute__((noinline)) static char *sign(const struct rs_token_claims *c)
{
    char *token = NULL;
    assert_int_equal(rs_token_sign(key, c, &token), 0);
    return token;
}

static const char *in_folder(const char *name)
{
    static char path[4][128];
    static unsigned i;
    i = (i + 1) % 4;
    (void)snprintf(path[i], sizeof(path[i]), "%s/%s", folder, name);
    return path[i];
}

static void put(const char *name, const char *text)
{
    FILE *f = fopen(in_folder(name), "we");
    assert_non_null(f);
    (void)fputs(text, f);
    fclose(f);
}

static int setup(void **state)
{
    (void)state;
    (void)snprintf(folder, sizeof(folder), "/tmp/reseal-token-XXXXXX");
    if (rs_keymem_init(0) != 0 || mkdtemp(folder) == NULL) return -1;
    key = rs_token_make_key();
    jwk = rs_token_publish(key);
    keys = json_pack("[O]", jwk);
    assert_non_null(keys);
    return json_dump_file(jwk, in_folder("jwk"), 0);
}

static int teardown(void **state)
{
    (void)state;
    json_decref(keys);
    json_decref(jwk);
    EVP_PKEY_free(key);
    return RUN("rm", "-rf", folder);
}

/* ---- tests --------------------------------------------------------------------------- */

static void others_verify_ours(void **state)
{
    static const char python[] =
        "import sys, jwt\n"
        "k = jwt.algorithms.ECAlgorithm.from_jwk(open(sys.argv[1]).read())\n"
        "c = jwt.decode(open(sys.argv[2]).read(), k, algorithms=['ES256'], audience='site-a')\n"
        "sys.exit(0 if c['sub'] == 'AAAA' and len(c['cnf']['x5t#S256']) == 43 else 1)\n";
    struct rs_token_claims c = claims_now();
    char *token = sign(&c);
    (void)state;
    put("token", token);
    assert_int_equal(RUN("/usr/bin/python3", "-c", python, in_folder("jwk"), in_folder("token")), 0);
    assert_int_equal(RUN("jose", "jws", "ver", "-i", in_folder("token"), "-k", in_folder("jwk")), 0);
    token[strlen(token) - 6] ^= 1;
    put("token", token);
    assert_int_not_equal(RUN("/usr/bin/python3", "-c", python, in_folder("jwk"), in_folder("token")), 0);
    assert_int_not_equal(RUN("jose", "jws", "ver", "-i", in_folder("token"), "-k", in_folder("jwk")), 0);
    free(token);
}

static void we_verify_a_foreign_one(void **state)
{
    static const char python[] =
        "import sys, time, jwt\n"
        "now = int(time.time())\n"
        "c = dict(iss='other', sub='BBBB', aud='site-a', jti='2', policy='p', iat=now, nbf=now, exp=now + "
        "300,\n"
        "         cnf={'x5t#S256': sys.argv[4]}, measres={'pcrs': sys.argv[4]})\n"
        "k, a = (open(sys.argv[1]).read(), sys.argv[5]) if sys.argv[5] != 'none' else ('', None)\n"
        "open(sys.argv[2], 'w').write(jwt.encode(c, k, algorithm=a, headers={'kid': sys.argv[3]}))\n";
    const char *kid = json_string_value(json_object_get(jwk, "kid"));
    struct rs_token_claims c;
    char thumb[48];
    size_t len;
    (void)state;
    rs_wire_to_text(cert, sizeof(cert), thumb);
    FILE *f = fopen(in_folder("key.pem"), "we");
    assert_int_equal(PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL), 1);
    fclose(f);
    assert_int_equal(
        RUN("/usr/bin/python3", "-c", python, in_folder("key.pem"), in_folder("made"), kid, thumb, "ES256"),
        0);
    char *token = (char *)file_bytes(in_folder("made"), &len);
    char *text = strndup(token, len);
    if (verify(text, (int64_t)time(NULL), &c) != 0) fail_msg("%s", why);
    assert_string_equal(c.host, "BBBB");
    free(token);
    free(text);
    assert_int_equal(
        RUN("/usr/bin/python3", "-c", python, in_folder("key.pem"), in_folder("made"), kid, thumb, "none"),
        0);
    token = (char *)file_bytes(in_folder("made"), &len);
    text = strndup(token, len);
    refused(text, RESEAL_EAUTH, "nor none");
    free(token);
    free(text);
}

/* The oldest trick: the public key as the secret of an HMAC. */
static void the_public_key_is_no_secret(void **state)
{
    struct rs_token_claims c = claims_now();
    char header[128], text[2048], mark[48], forged[RS_TOKEN_MAX];
    char *token = sign(&c), *pub = json_dumps(jwk, 0);
    uint8_t mac[32];
    (void)state;
    int n = snprintf(header, sizeof(header), "{\"alg\":\"HS256\",\"kid\":\"%s\"}",
                     json_string_value(json_object_get(jwk, "kid")));
    rs_wire_to_text(header, (size_t)n, text);
    const char *body = strchr(token, '.') + 1;
    n = (int)strlen(text);
    n += snprintf(text + n, sizeof(text) - (size_t)n, ".%.*s", (int)strcspn(body, "."), body);
    (void)HMAC(EVP_sha256(), pub, (int)strlen(pub), (const uint8_t *)text, (size_t)n, mac, NULL);
    rs_wire_to_text(mac, sizeof(mac), mark);
    (void)snprintf(forged, sizeof(forged), "%s.%s", text, mark);
    refused(forged, RESEAL_EAUTH, "not signed with ES256");
    free(pub);
    free(token);
}

static void times_have_a_leeway(void **state)
{
    struct rs_token_claims c = claims_now(), out;
    char *token = sign(&c);
    (void)state;
    assert_int_equal(verify(token, c.expires + RS_TOKEN_LEEWAY - 1, &out), 0);
    assert_int_equal(verify(token, c.expires + RS_TOKEN_LEEWAY, &out), RESEAL_EAUTH);
    assert_int_equal(verify(token, c.not_before - RS_TOKEN_LEEWAY, &out), 0);
    assert_int_equal(verify(token, c.not_before - RS_TOKEN_LEEWAY - 1, &out), RESEAL_EAUTH);
    assert_memory_equal(out.cert, cert, sizeof(cert));
    free(token);
}

static void every_changed_character_is_seen(void **state)
{
    struct rs_token_claims c = claims_now(), out;
    char *token = sign(&c);
    size_t len = strlen(token);
    (void)state;
    for (size_t i = 0; i < len; i++) {
        char was = token[i];
        token[i] = was == 'A' ? 'B' : 'A';
        assert_int_not_equal(verify(token, c.issued, &out), 0);
        token[i] = was;
    }
    for (size_t n = 0; n < len; n += 7) {
        char was = token[n];
        token[n] = '\0';
        assert_int_not_equal(verify(token, c.issued, &out), 0);
        token[n] = was;
    }
    assert_int_equal(verify(token, c.issued, &out), 0);
    free(token);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(others_verify_ours),
        cmocka_unit_test(we_verify_a_foreign_one),
        cmocka_unit_test(the_public_key_is_no_secret),
        cmocka_unit_test(times_have_a_leeway),
        cmocka_unit_test(every_changed_character_is_seen),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
