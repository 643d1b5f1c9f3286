/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The KDK as a PKCS#12 file. A secret key is no private key, and PKCS#12 has
 * no bag of its own for it: this is the form of Java's key stores, a secret
 * bag of type pkcs8ShroudedKeyBag that holds an encrypted PKCS#8 structure
 * with the algorithm AES.
 */
#include "providers/key/native/native.h"
#include "reseal/reseal.h"

#include <limits.h>
#include <stdio.h>

#include <openssl/asn1.h>
#include <openssl/err.h>
#include <openssl/objects.h>
#include <openssl/pkcs12.h>

#define ROUNDS     200000
#define ROUNDS_MAX 10000000 /* of a file that is read */
#define SALT_LEN   16
#define AES_OID    "2.16.840.1.101.3.4.1" /* as Java names a key of AES, whatever its length */

/* ---- writing ---------------------------------------------------------------------- */

static PKCS8_PRIV_KEY_INFO *wrap_plain(const struct rs_native_kdk *kdk)
{
    PKCS8_PRIV_KEY_INFO *info = PKCS8_PRIV_KEY_INFO_new();
    ASN1_OBJECT *aes = OBJ_txt2obj(AES_OID, 1);
    uint8_t *copy = OPENSSL_memdup(kdk->key, sizeof(kdk->key));
    if (info != NULL && aes != NULL && copy != NULL &&
        PKCS8_pkey_set0(info, aes, 0, V_ASN1_UNDEF, NULL, copy, sizeof(kdk->key)) == 1)
        return info;
    PKCS8_PRIV_KEY_INFO_free(info);
    ASN1_OBJECT_free(aes);
    OPENSSL_clear_free(copy, sizeof(kdk->key));
    return NULL;
}

/* The encrypted PKCS#8 structure in DER. */
static int shroud(const struct rs_native_kdk *kdk, const char *password, uint8_t **der)
{
    PKCS8_PRIV_KEY_INFO *info = wrap_plain(kdk);
    X509_ALGOR *algorithm =
        PKCS5_pbe2_set_iv(EVP_aes_256_cbc(), ROUNDS, NULL, SALT_LEN, NULL, NID_hmacWithSHA256);
    X509_SIG *sealed = NULL;
    int len = -1;
    if (info != NULL && algorithm != NULL)
        sealed = PKCS8_set0_pbe(password, (int)strlen(password), info, algorithm);
    if (sealed != NULL)
        len = i2d_X509_SIG(sealed, der); /* owns the algorithm now */
    else
        X509_ALGOR_free(algorithm);
    X509_SIG_free(sealed);
    PKCS8_PRIV_KEY_INFO_free(info);
    return len;
}

static void uuid_text(const uint8_t uuid[RS_NATIVE_UUID_LEN], char out[37])
{
    static const char digits[] = "0123456789abcdef";
    for (unsigned i = 0; i < RS_NATIVE_UUID_LEN; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10) *out++ = '-';
        *out++ = digits[uuid[i] >> 4];
        *out++ = digits[uuid[i] & 15];
    }
    *out = '\0';
}

static PKCS12 *assemble(const uint8_t *sealed, int sealed_len, const char *friendly, const char *password)
{
    STACK_OF(PKCS12_SAFEBAG) *bags = NULL;
    STACK_OF(PKCS7) *safes = NULL;
    PKCS12 *p12 = NULL;
    PKCS12_SAFEBAG *bag = PKCS12_add_secret(&bags, NID_pkcs8ShroudedKeyBag, sealed, sealed_len);
    bool ok = bag != NULL && PKCS12_add_friendlyname_utf8(bag, friendly, -1) == 1 &&
              PKCS12_add_safe(&safes, bags, -1, 0, NULL) == 1 && (p12 = PKCS12_add_safes(safes, 0)) != NULL &&
              PKCS12_set_mac(p12, password, -1, NULL, SALT_LEN, ROUNDS, EVP_sha256()) == 1;
    sk_PKCS12_SAFEBAG_pop_free(bags, PKCS12_SAFEBAG_free);
    sk_PKCS7_pop_free(safes, PKCS7_free);
    if (ok) return p12;
    PKCS12_free(p12);
    return NULL;
}

/* Neither short nor a few keys again and again: whoever gets hold of the file has all the time to try. */
static bool password_will_do(const char *password)
{
    bool seen[UCHAR_MAX + 1] = {false};
    unsigned unlike = 0;
    for (const char *c = password; *c != '\0'; c++) {
        unlike += !seen[(unsigned char)*c];
        seen[(unsigned char)*c] = true;
    }
    return strlen(password) >= RS_NATIVE_PASSWORD_MIN && unlike >= RS_NATIVE_PASSWORD_UNLIKE;
}

int rs_native_backup(const struct rs_native_kdk *kdk, const char *name, const char *password, uint8_t **der,
                     size_t *len)
{
    char uuid[37], friendly[160];
    uint8_t *sealed = NULL;
    int n = -1;
    if (!password_will_do(password)) return RESEAL_EPASS;
    uuid_text(kdk->uuid, uuid);
    (void)snprintf(friendly, sizeof(friendly), "%.100s %s", name, uuid);
    ERR_set_mark();
    int sealed_len = shroud(kdk, password, &sealed);
    PKCS12 *p12 = sealed_len > 0 ? assemble(sealed, sealed_len, friendly, password) : NULL;
    *der = NULL;
    if (p12 != NULL) n = i2d_PKCS12(p12, der);
    PKCS12_free(p12);
    OPENSSL_free(sealed);
    ERR_pop_to_mark();
    if (n <= 0) return RESEAL_EIO;
    *len = (size_t)n;
    return 0;
}

/* ---- reading ---------------------------------------------------------------------- */

/* The UUID at the end of a friendly name. */
static bool read_uuid(const char *friendly, uint8_t uuid[RS_NATIVE_UUID_LEN])
{
    size_t len = strlen(friendly);
    if (len < 36) return false;
    const char *at = friendly + len - 36;
    for (unsigned i = 0; i < RS_NATIVE_UUID_LEN; i++) {
        if ((i == 4 || i == 6 || i == 8 || i == 10) && *at++ != '-') return false;
        int high = rs_hex_digit(at[0]), low = high < 0 ? -1 : rs_hex_digit(at[1]);
        if (low < 0) return false;
        uuid[i] = (uint8_t)(high << 4 | low);
        at += 2;
    }
    return true;
}

static bool open_sealed(const uint8_t *der, long len, const char *password, uint8_t key[RS_NATIVE_KDK_LEN])
{
    const uint8_t *at = der;
    X509_SIG *sealed = d2i_X509_SIG(NULL, &at, len);
    PKCS8_PRIV_KEY_INFO *info =
        sealed == NULL ? NULL : PKCS8_decrypt(sealed, password, (int)strlen(password));
    const uint8_t *raw = NULL;
    int raw_len = 0;
    bool ok = info != NULL && PKCS8_pkey_get0(NULL, &raw, &raw_len, NULL, info) == 1 &&
              raw_len == (int)RS_NATIVE_KDK_LEN;
    if (ok) memcpy(key, raw, RS_NATIVE_KDK_LEN);
    PKCS8_PRIV_KEY_INFO_free(info);
    X509_SIG_free(sealed);
    return ok;
}

/* A secret bag of ours. */
static bool read_bag(const PKCS12_SAFEBAG *bag, const char *password, struct rs_native_kdk *kdk)
{
    if (PKCS12_SAFEBAG_get_nid(bag) != NID_secretBag ||
        OBJ_obj2nid(PKCS12_SAFEBAG_get0_bag_type(bag)) != NID_pkcs8ShroudedKeyBag)
        return false;
    const ASN1_TYPE *value = PKCS12_SAFEBAG_get0_bag_obj(bag);
    char *friendly = PKCS12_get_friendlyname((PKCS12_SAFEBAG *)(uintptr_t)bag);
    bool ok = value != NULL && ASN1_TYPE_get(value) == V_ASN1_OCTET_STRING && friendly != NULL &&
              read_uuid(friendly, kdk->uuid);
    if (ok) {
        const ASN1_OCTET_STRING *sealed = value->value.octet_string;
        ok = open_sealed(ASN1_STRING_get0_data(sealed), ASN1_STRING_length(sealed), password, kdk->key);
    }
    OPENSSL_free(friendly);
    return ok;
}

static bool read_safes(PKCS12 *p12, const char *password, struct rs_native_kdk *kdk)
{
    STACK_OF(PKCS7) *safes = PKCS12_unpack_authsafes(p12);
    bool found = false;
    for (int i = 0; i < sk_PKCS7_num(safes) && !found; i++) {
        PKCS7 *safe = sk_PKCS7_value(safes, i);
        STACK_OF(PKCS12_SAFEBAG) *bags = PKCS7_type_is_data(safe) ? PKCS12_unpack_p7data(safe) : NULL;
        for (int k = 0; k < sk_PKCS12_SAFEBAG_num(bags) && !found; k++)
            found = read_bag(sk_PKCS12_SAFEBAG_value(bags, k), password, kdk);
        sk_PKCS12_SAFEBAG_pop_free(bags, PKCS12_SAFEBAG_free);
    }
    sk_PKCS7_pop_free(safes, PKCS7_free);
    return found;
}

/* A file may ask for years of work before it can be told whether it is ours. */
static bool rounds_bearable(const PKCS12 *p12)
{
    const ASN1_INTEGER *rounds = NULL;
    PKCS12_get0_mac(NULL, NULL, NULL, &rounds, p12);
    int64_t n = 1;
    return rounds == NULL || (ASN1_INTEGER_get_int64(&n, rounds) == 1 && n >= 1 && n <= ROUNDS_MAX);
}

int rs_native_restore(const uint8_t *der, size_t len, const char *password, struct rs_native_kdk *kdk)
{
    if (len == 0 || len > RS_NATIVE_BACKUP_MAX) return RESEAL_EFORMAT;
    const uint8_t *at = der;
    ERR_set_mark();
    PKCS12 *p12 = d2i_PKCS12(NULL, &at, (long)len);
    int err = RESEAL_EFORMAT;
    if (p12 != NULL && at == der + len && PKCS12_mac_present(p12) && rounds_bearable(p12)) {
        err = PKCS12_verify_mac(p12, password, -1) == 1 ? 0 : RESEAL_EPASS;
        if (err == 0 && !read_safes(p12, password, kdk)) err = RESEAL_EFORMAT;
    }
    PKCS12_free(p12);
    ERR_pop_to_mark();
    if (err != 0) rs_wipe(kdk, sizeof(*kdk));
    return err;
}
