/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/key/receipt.h"

#include "reseal/reseal.h"

#include <openssl/evp.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>

#define SIGNATURE 64u

int rs_receipt_new_key(uint8_t out[RS_RECEIPT_KEY])
{
    return RAND_priv_bytes(out, RS_RECEIPT_KEY) == 1 ? 0 : RESEAL_EIO;
}

int rs_receipt_public(const uint8_t key[RS_RECEIPT_KEY], uint8_t out[RS_RECEIPT_PUBLIC])
{
    size_t len = RS_RECEIPT_PUBLIC;
    EVP_PKEY *pkey = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, key, RS_RECEIPT_KEY);
    bool ok = pkey != NULL && EVP_PKEY_get_raw_public_key(pkey, out, &len) == 1 && len == RS_RECEIPT_PUBLIC;
    EVP_PKEY_free(pkey);
    return ok ? 0 : RESEAL_EIO;
}

void rs_receipt_digest(const void *bytes, size_t len, char out[65])
{
    uint8_t digest[32] = {0};
    (void)EVP_Digest(bytes, len, digest, NULL, EVP_sha256(), NULL);
    rs_hex(digest, sizeof(digest), out);
}

static json_t *base64(const uint8_t *bytes, int len)
{
    char text[4 * ((SIGNATURE + 2) / 3) + 1];
    (void)EVP_EncodeBlock((unsigned char *)text, bytes, len);
    return json_string(text);
}

/* Exactly `len` bytes, a multiple of three and one or two more. */
static bool from_base64(const json_t *value, uint8_t *out, size_t len)
{
    const char *text = json_string_value(value);
    size_t want = (len + 2) / 3 * 4, padding = (3 - len % 3) % 3;
    uint8_t room[SIGNATURE + 4];
    if (text == NULL || strlen(text) != want ||
        EVP_DecodeBlock(room, (const unsigned char *)text, (int)want) < 0)
        return false;
    if (strcspn(text, "=") != want - padding) return false;
    memcpy(out, room, len);
    return true;
}

json_t *rs_receipt_sign(const uint8_t key[RS_RECEIPT_KEY], json_t *receipt)
{
    uint8_t public[RS_RECEIPT_PUBLIC], signature[SIGNATURE];
    size_t len = sizeof(signature);
    RS_FREE char *text = json_dumps(receipt, JSON_COMPACT | JSON_SORT_KEYS);
    EVP_PKEY *pkey = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, key, RS_RECEIPT_KEY);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok = text != NULL && pkey != NULL && ctx != NULL && rs_receipt_public(key, public) == 0 &&
              EVP_DigestSignInit(ctx, NULL, NULL, NULL, pkey) == 1 &&
              EVP_DigestSign(ctx, signature, &len, (const unsigned char *)text, strlen(text)) == 1;
    EVP_MD_CTX_free(ctx);
    EVP_PKEY_free(pkey);
    if (!ok) {
        json_decref(receipt);
        return NULL;
    }
    return json_pack("{s:o, s:o, s:o}", "receipt", receipt, "key", base64(public, (int)sizeof(public)),
                     "signature", base64(signature, (int)len));
}

int rs_receipt_check(const json_t *sealed, uint8_t public[RS_RECEIPT_PUBLIC])
{
    uint8_t signature[SIGNATURE];
    const json_t *receipt = json_object_get(sealed, "receipt");
    if (!json_is_object(receipt) || !from_base64(json_object_get(sealed, "key"), public, RS_RECEIPT_PUBLIC) ||
        !from_base64(json_object_get(sealed, "signature"), signature, sizeof(signature)))
        return RESEAL_EFORMAT;
    RS_FREE char *text = json_dumps(receipt, JSON_COMPACT | JSON_SORT_KEYS);
    EVP_PKEY *pkey = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, public, RS_RECEIPT_PUBLIC);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok =
        text != NULL && pkey != NULL && ctx != NULL &&
        EVP_DigestVerifyInit(ctx, NULL, NULL, NULL, pkey) == 1 &&
        EVP_DigestVerify(ctx, signature, sizeof(signature), (const unsigned char *)text, strlen(text)) == 1;
    EVP_MD_CTX_free(ctx);
    EVP_PKEY_free(pkey);
    return ok ? 0 : RESEAL_EAUTH;
}
