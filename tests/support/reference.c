/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/reference.h"

#include "offload/base/bytes.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>

static void must(int ok, const char *what)
{
    if (ok) return;
    fprintf(stderr, "reference: %s failed\n", what);
    exit(2);
}

void reference_seal(unsigned bits, const uint8_t *key, const uint8_t iv[12], const uint8_t *aad,
                    size_t aad_len, const uint8_t *in, uint8_t *out, size_t len, uint8_t tag[16])
{
    static EVP_CIPHER_CTX *ctx;
    int n;
    if (!ctx) ctx = EVP_CIPHER_CTX_new();
    const EVP_CIPHER *cipher = bits == 128 ? EVP_aes_128_gcm() : EVP_aes_256_gcm();
    must(ctx && EVP_EncryptInit_ex(ctx, cipher, NULL, key, iv), "gcm init");
    if (aad_len > 0) must(EVP_EncryptUpdate(ctx, NULL, &n, aad, (int)aad_len), "gcm aad");
    must(EVP_EncryptUpdate(ctx, out, &n, in, (int)len) && n == (int)len, "gcm data");
    must(EVP_EncryptFinal_ex(ctx, out + len, &n) && n == 0, "gcm final");
    must(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_GET_TAG, 16, tag), "gcm tag");
}

void reference_xts(int encrypt, unsigned bits, const uint8_t *key, uint64_t lo, uint64_t hi, uint64_t step,
                   size_t unit, const uint8_t *in, uint8_t *out, size_t len)
{
    static EVP_CIPHER_CTX *ctx;
    int n;
    if (!ctx) ctx = EVP_CIPHER_CTX_new();
    must(ctx && EVP_CipherInit_ex(ctx, bits == 128 ? EVP_aes_128_xts() : EVP_aes_256_xts(), NULL, key, NULL,
                                  encrypt),
         "xts init");
    for (size_t at = 0; at < len; at += unit, lo += step) {
        uint8_t tweak[16];
        size_t part = RS_MIN(unit, len - at);
        rs_store_le64(tweak, lo);
        rs_store_le64(tweak + 8, hi);
        must(EVP_CipherInit_ex(ctx, NULL, NULL, NULL, tweak, encrypt), "xts tweak");
        must(EVP_CipherUpdate(ctx, out + at, &n, in + at, (int)part) && n == (int)part, "xts data");
    }
}

void reference_block(int encrypt, unsigned bits, const uint8_t *key, const uint8_t in[16], uint8_t out[16])
{
    static EVP_CIPHER_CTX *ctx;
    int n;
    if (!ctx) ctx = EVP_CIPHER_CTX_new();
    must(ctx && EVP_CipherInit_ex(ctx, bits == 128 ? EVP_aes_128_ecb() : EVP_aes_256_ecb(), NULL, key, NULL,
                                  encrypt),
         "ecb init");
    EVP_CIPHER_CTX_set_padding(ctx, 0);
    must(EVP_CipherUpdate(ctx, out, &n, in, 16) && n == 16, "ecb data");
}

void reference_random(uint64_t *seed, void *out, size_t len)
{
    uint8_t *p = out;
    for (size_t i = 0; i < len; i++) {
        *seed = *seed * 6364136223846793005ull + 1442695040888963407ull;
        p[i] = (uint8_t)(*seed >> 56);
    }
}
