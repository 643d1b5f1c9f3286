/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/crypto/derive.h"

#include "reseal/reseal.h"

#include <openssl/core_names.h>
#include <openssl/kdf.h>
#include <openssl/params.h>

int rs_hkdf(const uint8_t *key, size_t len, const uint8_t *salt, size_t salt_len, const char *info,
            uint8_t *out, size_t out_len)
{
    static char digest[] = "SHA256";
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, (void *)(uintptr_t)key, len),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, (void *)(uintptr_t)salt, salt_len),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, (void *)(uintptr_t)info, strlen(info)),
        OSSL_PARAM_construct_end(),
    };
    EVP_KDF *kdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
    EVP_KDF_CTX *ctx = kdf != NULL ? EVP_KDF_CTX_new(kdf) : NULL;
    int done = ctx != NULL && EVP_KDF_derive(ctx, out, out_len, params) == 1;
    EVP_KDF_CTX_free(ctx);
    EVP_KDF_free(kdf);
    return done ? 0 : RESEAL_ENOMEM;
}

int rs_derive_subkey(const uint8_t *key, size_t len, const uint8_t salt[RS_SALT_LEN], uint8_t *out)
{
    if (len != 16 && len != 32) return RESEAL_EKEYBAD;
    return rs_hkdf(key, len, salt, RS_SALT_LEN, "reseal gcm record v1", out, len);
}
