/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A text that is shifted within one buffer while it is encrypted or decrypted:
 * the same bytes as from buffers that are apart, whichever way and however far.
 */
#include "providers/crypto/vaes/stream.h"
#include "providers/ossl/ossl.h"
#include "tests/support/cmocka.h"

#include <openssl/evp.h>
#include <openssl/provider.h>
#include <stdio.h>
#include <stdlib.h>

#define LONGEST  3000
#define FARTHEST 200

static OSSL_LIB_CTX *libctx;
static uint8_t key[64], iv[16], text[LONGEST];

static void run(EVP_CIPHER *cipher, int encrypt, uint8_t *out, const uint8_t *in, int len)
{
    int n;
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    assert_int_equal(EVP_CipherInit_ex2(ctx, cipher, key, iv, encrypt, NULL), 1);
    assert_int_equal(EVP_CipherUpdate(ctx, out, &n, in, len), 1);
    assert_int_equal(n, len);
    EVP_CIPHER_CTX_free(ctx);
}

static void shift(EVP_CIPHER *cipher, int encrypt, int by, int len)
{
    uint8_t apart[LONGEST], buffer[LONGEST + FARTHEST];
    uint8_t *in = buffer + (by > 0 ? 0 : -by), *out = in + by;
    memcpy(in, text, (size_t)len);
    run(cipher, encrypt, apart, text, len);
    run(cipher, encrypt, out, in, len);
    assert_memory_equal(out, apart, (size_t)len);
}

static void every_way(const char *name)
{
    EVP_CIPHER *cipher = EVP_CIPHER_fetch(libctx, name, "provider=reseal");
    assert_non_null(cipher);
    for (int by = -FARTHEST; by <= FARTHEST; by += 13)
        for (int len = 16; len <= LONGEST; len += len / 2 + 3)
            for (int encrypt = 0; encrypt < 2; encrypt++) shift(cipher, encrypt, by, len);
    EVP_CIPHER_free(cipher);
}

static void test_gcm(RS_UNUSED void **state)
{
    every_way("AES-256-GCM");
}
static void test_ctr(RS_UNUSED void **state)
{
    every_way("AES-256-CTR");
}
static void test_xts(RS_UNUSED void **state)
{
    every_way("AES-256-XTS");
}

static int with_engine(const char *engine)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_gcm), cmocka_unit_test(test_ctr),
                                       cmocka_unit_test(test_xts)};
    setenv("RESEAL_OSSL_ENGINE", engine, 1);
    libctx = OSSL_LIB_CTX_new();
    if (libctx == NULL || !OSSL_PROVIDER_add_builtin(libctx, "reseal", rs_ossl_init)) return 1;
    OSSL_PROVIDER *reseal = OSSL_PROVIDER_load(libctx, "reseal");
    OSSL_PROVIDER *usual = OSSL_PROVIDER_load(libctx, "default");
    int failed = cmocka_run_group_tests_name(engine, tests, NULL, NULL);
    OSSL_PROVIDER_unload(usual);
    OSSL_PROVIDER_unload(reseal);
    OSSL_LIB_CTX_free(libctx);
    return failed;
}

/* Ours only: OpenSSL's own takes shifts backwards only. */
int main(void)
{
    static const char *const engines[] = {"vaes-avx512", "vaes-avx2", "vaes-aesni"};
    int failed = 0, ran = 0;
    for (size_t i = 0; i < sizeof(key); i++) key[i] = (uint8_t)i;
    for (size_t i = 0; i < sizeof(text); i++) text[i] = (uint8_t)(i * 7 + i / 256);
    for (size_t i = 0; i < RS_ARRAY_LEN(engines); i++) {
        if (rs_stream_by_name(engines[i]) == NULL) continue;
        failed += with_engine(engines[i]);
        ran++;
    }
    if (ran == 0) puts("this CPU runs none of our kernels");
    return ran == 0 ? 77 : failed;
}
