/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/key/trusted/credential.h"

#include "offload/base/keymem.h"
#include "reseal/reseal.h"

#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/hmac.h>
#include <openssl/kdf.h>
#include <openssl/rand.h>
#include <openssl/rsa.h>
#include <tss2/tss2_mu.h>

#define SEED_LEN  32u
#define HMAC_LEN  32u
#define PLAIN_LEN (2u + RS_CREDENTIAL_LEN) /* a length before it */

static void store_be16(uint8_t *p, size_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

/* The TPM's KDFa is KBKDF in counter mode. */
static bool kdfa(const uint8_t seed[SEED_LEN], const char *label, const uint8_t *context, size_t context_len,
                 uint8_t *out, size_t len)
{
    EVP_KDF *kdf = EVP_KDF_fetch(NULL, "KBKDF", NULL);
    EVP_KDF_CTX *ctx = kdf == NULL ? NULL : EVP_KDF_CTX_new(kdf);
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_MODE, (char[]){"counter"}, 0),
        OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_MAC, (char[]){"HMAC"}, 0),
        OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, (char[]){"SHA2-256"}, 0),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, (void *)(uintptr_t)seed, SEED_LEN),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, (void *)(uintptr_t)label, strlen(label)),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, (void *)(uintptr_t)context, context_len),
        OSSL_PARAM_construct_end(),
    };
    if (context_len == 0) params[5] = OSSL_PARAM_construct_end();
    bool ok = ctx != NULL && EVP_KDF_derive(ctx, out, len, params) == 1;
    EVP_KDF_CTX_free(ctx);
    EVP_KDF_free(kdf);
    return ok;
}

/* The seed under the endorsement key. */
static bool encrypt_seed(EVP_PKEY *key, const uint8_t seed[SEED_LEN], struct rs_tpm_blob *out)
{
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(key, NULL);
    char *label = OPENSSL_strdup("IDENTITY"); /* with its NUL; the context takes it */
    size_t len = RS_TPM_BLOB_MAX - 2;
    bool ok = ctx != NULL && label != NULL && EVP_PKEY_encrypt_init(ctx) == 1 &&
              EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_OAEP_PADDING) == 1 &&
              EVP_PKEY_CTX_set_rsa_oaep_md(ctx, EVP_sha256()) == 1 &&
              EVP_PKEY_CTX_set_rsa_mgf1_md(ctx, EVP_sha256()) == 1;
    if (ok && EVP_PKEY_CTX_set0_rsa_oaep_label(ctx, label, 9) == 1) {
        label = NULL;
        ok = EVP_PKEY_encrypt(ctx, out->bytes + 2, &len, seed, SEED_LEN) == 1;
    } else {
        ok = false;
    }
    OPENSSL_free(label);
    EVP_PKEY_CTX_free(ctx);
    store_be16(out->bytes, len);
    out->len = (uint16_t)(len + 2);
    return ok;
}

static bool encrypt_credential(const uint8_t *key, unsigned key_len, const uint8_t *plain, uint8_t *out)
{
    static const uint8_t iv[16];
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    int n = 0;
    bool ok = ctx != NULL &&
              EVP_EncryptInit_ex2(ctx, key_len == 32 ? EVP_aes_256_cfb128() : EVP_aes_128_cfb128(), key, iv,
                                  NULL) == 1 &&
              EVP_EncryptUpdate(ctx, out, &n, plain, PLAIN_LEN) == 1 && n == (int)PLAIN_LEN;
    EVP_CIPHER_CTX_free(ctx);
    return ok;
}

/* TPM2B_ID_OBJECT: length, integrity with its length, encrypted credential. */
static bool fill_blob(const uint8_t seed[SEED_LEN], unsigned key_len, const uint8_t name[RS_TPM_NAME_LEN],
                      const uint8_t credential[RS_CREDENTIAL_LEN], uint8_t *work, struct rs_tpm_blob *blob)
{
    uint8_t *key = work, *mac_key = work + 32, *plain = work + 64;
    uint8_t authentic[PLAIN_LEN + RS_TPM_NAME_LEN];
    uint8_t *integrity = blob->bytes + 4, *encrypted = integrity + HMAC_LEN;
    store_be16(plain, RS_CREDENTIAL_LEN);
    memcpy(plain + 2, credential, RS_CREDENTIAL_LEN);
    if (!kdfa(seed, "STORAGE", name, RS_TPM_NAME_LEN, key, key_len) ||
        !kdfa(seed, "INTEGRITY", NULL, 0, mac_key, HMAC_LEN) ||
        !encrypt_credential(key, key_len, plain, encrypted))
        return false;
    memcpy(authentic, encrypted, PLAIN_LEN);
    memcpy(authentic + PLAIN_LEN, name, RS_TPM_NAME_LEN);
    store_be16(blob->bytes, 2 + HMAC_LEN + PLAIN_LEN);
    store_be16(blob->bytes + 2, HMAC_LEN);
    blob->len = 4 + HMAC_LEN + PLAIN_LEN;
    return HMAC(EVP_sha256(), mac_key, HMAC_LEN, authentic, sizeof(authentic), integrity, NULL) != NULL;
}

/* Bytes of the AES key that the endorsement key's storage uses; 0: not AES-CFB. */
static unsigned symmetric_len(const struct rs_tpm_blob *ek)
{
    TPM2B_PUBLIC p;
    size_t at = 0;
    memset(&p, 0, sizeof(p));
    if (Tss2_MU_TPM2B_PUBLIC_Unmarshal(ek->bytes, ek->len, &at, &p) != TSS2_RC_SUCCESS) return 0;
    const TPMT_SYM_DEF_OBJECT *s = &p.publicArea.parameters.rsaDetail.symmetric;
    if (s->algorithm != TPM2_ALG_AES || s->mode.aes != TPM2_ALG_CFB) return 0;
    return s->keyBits.aes == 128 || s->keyBits.aes == 256 ? s->keyBits.aes / 8u : 0;
}

int rs_credential_make(const struct rs_tpm_blob *ek, const uint8_t name[RS_TPM_NAME_LEN],
                       const uint8_t credential[RS_CREDENTIAL_LEN], struct rs_tpm_blob *blob,
                       struct rs_tpm_blob *secret)
{
    uint8_t id[32];
    EVP_PKEY *key;
    int err = rs_ek_key(ek, &key, id);
    if (err != 0) return err;
    unsigned key_len = symmetric_len(ek);
    RS_KEYMEM uint8_t *work = rs_keymem_alloc(SEED_LEN + 64 + PLAIN_LEN);
    if (work == NULL || key_len == 0) {
        err = work == NULL ? RESEAL_ENOMEM : RESEAL_ENOSUPPORT;
    } else {
        bool ok = RAND_priv_bytes(work, SEED_LEN) == 1 && encrypt_seed(key, work, secret) &&
                  fill_blob(work, key_len, name, credential, work + SEED_LEN, blob);
        err = ok ? 0 : RESEAL_EIO;
    }
    EVP_PKEY_free(key);
    ERR_clear_error();
    return err;
}

/* ---- proof ---------------------------------------------------------------------------- */

bool rs_enrol_proof(const uint8_t credential[32], const uint8_t challenge[32], const uint8_t host[32],
                    const uint8_t name[RS_TPM_NAME_LEN], const uint8_t spki[32], uint8_t out[32])
{
    static const char label[16] = "reseal enrol v1";
    uint8_t all[sizeof(label) + 32 + 32 + RS_TPM_NAME_LEN + 32], *p = all;
    memcpy(p, label, sizeof(label));
    memcpy(p += sizeof(label), challenge, 32);
    memcpy(p += 32, host, 32);
    memcpy(p += 32, name, RS_TPM_NAME_LEN);
    memcpy(p + RS_TPM_NAME_LEN, spki, 32);
    return HMAC(EVP_sha256(), credential, 32, all, sizeof(all), out, NULL) != NULL;
}
