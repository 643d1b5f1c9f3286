/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random IVs come from the library context of the application, as with the
 * default provider; from the kernel when a program loads the provider with a
 * libcrypto of its own, whose library context is nothing that can be used.
 */
#include "providers/crypto/vaes/stream.h"
#include "providers/ossl/ossl.h"
#include "tests/support/cmocka.h"

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/provider.h>
#include <stdio.h>
#include <stdlib.h>

/* As another libcrypto loads it: the function that it is known by is not there. */
static int init_from_elsewhere(const OSSL_CORE_HANDLE *handle, const OSSL_DISPATCH *in,
                               const OSSL_DISPATCH **out, void **provctx)
{
    OSSL_DISPATCH table[128];
    size_t n = 0;
    for (; in->function_id != 0; in++)
        if (in->function_id != OSSL_FUNC_CRYPTO_ZALLOC && n + 1 < RS_ARRAY_LEN(table)) table[n++] = *in;
    table[n] = (OSSL_DISPATCH){0, NULL};
    return rs_ossl_init(handle, table, out, provctx);
}

/* A message without an IV gets one; false when there is none to be had. */
static bool draws(EVP_CIPHER *cipher, uint8_t iv[12])
{
    static const uint8_t key[32] = {9};
    uint8_t out[4];
    int n;
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    assert_int_equal(EVP_EncryptInit_ex2(ctx, cipher, key, NULL, NULL), 1);
    bool drawn = EVP_EncryptUpdate(ctx, out, &n, key, sizeof(out)) == 1;
    if (drawn) assert_int_equal(EVP_CIPHER_CTX_get_updated_iv(ctx, iv, 12), 1);
    EVP_CIPHER_CTX_free(ctx);
    return drawn;
}

static void draw_in(OSSL_provider_init_fn *init, bool without_generator)
{
    uint8_t iv[2][12];
    OSSL_LIB_CTX *libctx = OSSL_LIB_CTX_new();
    assert_int_equal(OSSL_PROVIDER_add_builtin(libctx, "reseal", init), 1);
    OSSL_PROVIDER *reseal = OSSL_PROVIDER_load(libctx, "reseal");
    assert_non_null(reseal);
    EVP_CIPHER *cipher = EVP_CIPHER_fetch(libctx, "AES-256-GCM", "provider=reseal");
    assert_non_null(cipher);
    assert_int_equal(draws(cipher, iv[0]), without_generator);
    OSSL_PROVIDER *usual = OSSL_PROVIDER_load(libctx, "default");
    for (int i = 0; i < 2; i++) assert_true(draws(cipher, iv[i]));
    assert_memory_not_equal(iv[0], iv[1], sizeof(iv[0]));
    EVP_CIPHER_free(cipher);
    assert_int_equal(OSSL_PROVIDER_unload(usual), 1);
    assert_int_equal(OSSL_PROVIDER_unload(reseal), 1);
    OSSL_LIB_CTX_free(libctx);
    ERR_clear_error();
}

static void test_from_the_library_context(RS_UNUSED void **state)
{
    draw_in(rs_ossl_init, false);
}

static void test_from_the_kernel(RS_UNUSED void **state)
{
    draw_in(init_from_elsewhere, true);
}

int main(void)
{
    if (rs_stream_by_name("vaes-aesni") == NULL) {
        puts("this CPU runs none of our kernels, and OpenSSL's own draw from elsewhere");
        return 77;
    }
    setenv("RESEAL_OSSL_ENGINE", "vaes-aesni", 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_from_the_library_context),
        cmocka_unit_test(test_from_the_kernel),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
