/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/key/native/native.h"

#include "offload/base/keymem.h"
#include "reseal/reseal.h"

#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <openssl/rand.h>

#define LABEL    "reseal native-key v1"
#define CHECK    "reseal native-kdk check v1"
#define PREFIX   "rsn1."
#define SALT_LEN 16u
#define WRAPPED  (RS_NATIVE_KEK_LEN + 8u)

/* What a key id holds, in base64url after the prefix. */
struct blob {
    uint8_t uuid[RS_NATIVE_UUID_LEN];
    uint8_t salt[SALT_LEN];
    uint8_t wrapped[WRAPPED];
    uint8_t reserved[4]; /* zero; whole groups of three need no padding characters */
};

_Static_assert(sizeof(struct blob) == 76, "no padding inside");
_Static_assert(sizeof(PREFIX) - 1 + 102 == RS_NATIVE_ID_LEN, "76 bytes are 102 characters");

/* ---- base64url (RFC 4648, section 5), without padding ----------------------------- */

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

static void to_text(const uint8_t *p, size_t len, char *out)
{
    for (size_t i = 0; i < len; i += 3) {
        size_t n = RS_MIN(len - i, 3u);
        uint32_t v = (uint32_t)p[i] << 16;
        if (n > 1) v |= (uint32_t)p[i + 1] << 8;
        if (n > 2) v |= p[i + 2];
        for (size_t k = 0; k <= n; k++) *out++ = digits[v >> (18 - 6 * k) & 63];
    }
    *out = '\0';
}

/* Exactly `len` bytes out of the whole text; bits that no byte takes must be zero, so that an id has one
 * spelling. */
static bool from_text(const char *text, uint8_t *out, size_t len)
{
    uint32_t v = 0;
    unsigned bits = 0;
    size_t n = 0;
    for (; *text != '\0'; text++) {
        const char *d = strchr(digits, *text);
        if (d == NULL) return false;
        v = v << 6 | (uint32_t)(d - digits);
        bits += 6;
        if (bits < 8) continue;
        bits -= 8;
        if (n == len) return false;
        out[n++] = (uint8_t)(v >> bits);
        v &= (1u << bits) - 1;
    }
    return n == len && v == 0;
}

static int parse(const char *id, struct blob *b)
{
    static const uint8_t zero[sizeof(b->reserved)];
    if (strlen(id) != RS_NATIVE_ID_LEN || strncmp(id, PREFIX, sizeof(PREFIX) - 1) != 0) return RESEAL_EFORMAT;
    if (!from_text(id + sizeof(PREFIX) - 1, (uint8_t *)b, sizeof(*b))) return RESEAL_EFORMAT;
    return memcmp(b->reserved, zero, sizeof(zero)) == 0 ? 0 : RESEAL_EFORMAT;
}

/* ---- wrapping --------------------------------------------------------------------- */

static bool derive(const struct rs_native_kdk *kdk, const struct blob *b, uint8_t out[32])
{
    uint8_t context[RS_NATIVE_UUID_LEN + SALT_LEN];
    memcpy(context, b->uuid, sizeof(b->uuid));
    memcpy(context + sizeof(b->uuid), b->salt, sizeof(b->salt));
    EVP_KDF *kdf = EVP_KDF_fetch(NULL, "KBKDF", NULL);
    EVP_KDF_CTX *ctx = kdf == NULL ? NULL : EVP_KDF_CTX_new(kdf);
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_MODE, (char[]){"counter"}, 0),
        OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_MAC, (char[]){"HMAC"}, 0),
        OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, (char[]){"SHA2-256"}, 0),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, (void *)(uintptr_t)kdk->key, sizeof(kdk->key)),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, (char[]){LABEL}, sizeof(LABEL) - 1),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, context, sizeof(context)),
        OSSL_PARAM_construct_end(),
    };
    bool ok = ctx != NULL && EVP_KDF_derive(ctx, out, 32, params) == 1;
    EVP_KDF_CTX_free(ctx);
    EVP_KDF_free(kdf);
    return ok;
}

/* AES-256-KW of 32 bytes, or back. False when the integrity check fails. */
static bool key_wrap(const uint8_t wrapping[32], const uint8_t *in, size_t len, uint8_t *out, bool wrap)
{
    EVP_CIPHER *cipher = EVP_CIPHER_fetch(NULL, "AES-256-WRAP", NULL);
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    int n = 0, last = 0;
    bool ok = false;
    if (cipher != NULL && ctx != NULL) {
        EVP_CIPHER_CTX_set_flags(ctx, EVP_CIPHER_CTX_FLAG_WRAP_ALLOW);
        ok = EVP_CipherInit_ex2(ctx, cipher, wrapping, NULL, wrap, NULL) == 1 &&
             EVP_CipherUpdate(ctx, out, &n, in, (int)len) == 1 &&
             EVP_CipherFinal_ex(ctx, out + n, &last) == 1;
    }
    EVP_CIPHER_CTX_free(ctx);
    EVP_CIPHER_free(cipher);
    return ok;
}

/* The KEK in or out of the blob, under a wrapping key that lies in key memory for that long. */
static int transform(const struct rs_native_kdk *kdk, struct blob *b, uint8_t kek[RS_NATIVE_KEK_LEN],
                     bool wrap)
{
    RS_KEYMEM uint8_t *wrapping = rs_keymem_alloc(32);
    if (wrapping == NULL) return RESEAL_ENOMEM;
    ERR_set_mark();
    int err = RESEAL_EIO;
    if (derive(kdk, b, wrapping)) {
        bool ok = wrap ? key_wrap(wrapping, kek, RS_NATIVE_KEK_LEN, b->wrapped, true)
                       : key_wrap(wrapping, b->wrapped, WRAPPED, kek, false);
        err = ok ? 0 : wrap ? RESEAL_EIO : RESEAL_EAUTH;
    }
    ERR_pop_to_mark();
    return err;
}

/* ---- calls ------------------------------------------------------------------------ */

int rs_native_kdk_make(struct rs_native_kdk *kdk)
{
    if (RAND_priv_bytes(kdk->key, sizeof(kdk->key)) != 1 || RAND_bytes(kdk->uuid, sizeof(kdk->uuid)) != 1)
        return RESEAL_EIO;
    kdk->uuid[6] = (uint8_t)((kdk->uuid[6] & 0x0f) | 0x40); /* RFC 4122: random */
    kdk->uuid[8] = (uint8_t)((kdk->uuid[8] & 0x3f) | 0x80);
    return 0;
}

int rs_native_kdk_check(const struct rs_native_kdk *kdk, uint8_t check[RS_NATIVE_CHECK_LEN])
{
    uint8_t mac[EVP_MAX_MD_SIZE], text[sizeof(CHECK) - 1 + RS_NATIVE_UUID_LEN];
    unsigned len = 0;
    memcpy(text, CHECK, sizeof(CHECK) - 1);
    memcpy(text + sizeof(CHECK) - 1, kdk->uuid, sizeof(kdk->uuid));
    if (HMAC(EVP_sha256(), kdk->key, sizeof(kdk->key), text, sizeof(text), mac, &len) == NULL)
        return RESEAL_EIO;
    memcpy(check, mac, RS_NATIVE_CHECK_LEN);
    rs_wipe(mac, sizeof(mac));
    return 0;
}

int rs_native_make(const struct rs_native_kdk *kdk, uint8_t kek[RS_NATIVE_KEK_LEN],
                   char id[RS_NATIVE_ID_ROOM])
{
    struct blob b = {0};
    memcpy(b.uuid, kdk->uuid, sizeof(b.uuid));
    if (RAND_bytes(b.salt, sizeof(b.salt)) != 1 || RAND_priv_bytes(kek, RS_NATIVE_KEK_LEN) != 1)
        return RESEAL_EIO;
    int err = transform(kdk, &b, kek, true);
    if (err != 0) {
        rs_wipe(kek, RS_NATIVE_KEK_LEN);
        return err;
    }
    memcpy(id, PREFIX, sizeof(PREFIX) - 1);
    to_text((const uint8_t *)&b, sizeof(b), id + sizeof(PREFIX) - 1);
    return 0;
}

int rs_native_open(const struct rs_native_kdk *kdk, const char *id, uint8_t kek[RS_NATIVE_KEK_LEN])
{
    struct blob b;
    int err = parse(id, &b);
    if (err != 0) return err;
    if (memcmp(b.uuid, kdk->uuid, sizeof(b.uuid)) != 0) return RESEAL_ENOKEY;
    err = transform(kdk, &b, kek, false);
    if (err != 0) rs_wipe(kek, RS_NATIVE_KEK_LEN);
    return err;
}

int rs_native_owner(const char *id, uint8_t uuid[RS_NATIVE_UUID_LEN])
{
    struct blob b;
    int err = parse(id, &b);
    if (err == 0) memcpy(uuid, b.uuid, sizeof(b.uuid));
    return err;
}
