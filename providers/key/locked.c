/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/key/locked.h"

#include "offload/base/keymem.h"
#include "offload/vm/locator.h"
#include "reseal/reseal.h"

#include <ctype.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>

#define IV_LEN     16u
#define SALT_MAX   64u
#define ROUNDS_MAX 10000000ul
#define KEY_TEXT   ((RS_LOCKED_KEY_MAX + 2) / 3 * 4 + 2 * 2 + 1) /* base64; in a dictionary each '=' is %3d */

/* ---- names -------------------------------------------------------------------------- */

static const struct {
    const char *name;
    const EVP_MD *(*digest)(void);
    size_t len;
} macs[] = {
    [RS_LOCKED_HMAC_SHA1] = {"HMAC-SHA-1", EVP_sha1, 20},
    [RS_LOCKED_HMAC_SHA1_128] = {"HMAC-SHA-1-128", EVP_sha1, 16},
    [RS_LOCKED_HMAC_SHA256] = {"HMAC-SHA-256", EVP_sha256, 32},
};

static const struct {
    const char *name;
    size_t key_len;
    const EVP_CIPHER *(*cbc)(void);
} ciphers[] = {
    {"AES-128", 16, EVP_aes_128_cbc},
    {"AES-192", 24, EVP_aes_192_cbc},
    {"AES-256", 32, EVP_aes_256_cbc},
    {"XTS-AES-256", 64, EVP_aes_256_cbc},
};

int rs_locked_mac_by_name(const char *name, enum rs_locked_mac *mac)
{
    for (unsigned i = 0; i < RS_ARRAY_LEN(macs); i++)
        if (strcmp(name, macs[i].name) == 0) {
            *mac = (enum rs_locked_mac)i;
            return 0;
        }
    return RESEAL_ECIPHER;
}

static int cipher_index(const char *name)
{
    for (unsigned i = 0; i < RS_ARRAY_LEN(ciphers); i++)
        if (strcmp(name, ciphers[i].name) == 0) return (int)i;
    return -1;
}

size_t rs_locked_key_len(const char *cipher)
{
    int i = cipher_index(cipher);
    return i < 0 ? 0 : ciphers[i].key_len;
}

/* ---- base64 ------------------------------------------------------------------------- */

int rs_base64_decode(const char *text, uint8_t *out, size_t room, size_t *len)
{
    size_t n = strlen(text), pad = 0;
    if (n == 0 || n % 4 != 0 || n > INT32_MAX) return RESEAL_EFORMAT;
    /* The library's decoder takes blanks and line ends, and writes whole groups. */
    for (size_t i = 0; i < n; i++)
        if (isalnum((unsigned char)text[i]) == 0 && text[i] != '+' && text[i] != '/' && text[i] != '=')
            return RESEAL_EFORMAT;
    if (text[n - 1] == '=') pad = text[n - 2] == '=' ? 2 : 1;
    if (memchr(text, '=', n - pad) != NULL) return RESEAL_EFORMAT;
    if (n / 4 * 3 > room) return RESEAL_ESPACE;
    int got = EVP_DecodeBlock(out, (const uint8_t *)text, (int)n);
    if (got != (int)(n / 4 * 3)) return RESEAL_EFORMAT;
    *len = (size_t)got - pad;
    return 0;
}

int rs_base64_encode(const uint8_t *bytes, size_t len, char *out, size_t room)
{
    if (len > INT32_MAX / 2 || (len + 2) / 3 * 4 + 1 > room) return RESEAL_ESPACE;
    EVP_EncodeBlock((uint8_t *)out, bytes, (int)len);
    return 0;
}

/* ---- keys --------------------------------------------------------------------------- */

static int take_cipher(const char *dictionary, struct rs_locked_key *key)
{
    int err = rs_dictionary_get(dictionary, "cipher", key->cipher, sizeof(key->cipher));
    if (err != 0) return RESEAL_EFORMAT;
    key->len = rs_locked_key_len(key->cipher);
    return key->len == 0 ? RESEAL_ECIPHER : 0;
}

int rs_locked_key_parse(const char *dictionary, struct rs_locked_key *key)
{
    char type[8], text[KEY_TEXT];
    uint8_t raw[RS_LOCKED_KEY_MAX + 3];
    size_t len = 0;
    memset(key, 0, sizeof(*key));
    int err = take_cipher(dictionary, key);
    if (err == 0 &&
        (rs_dictionary_get(dictionary, "type", type, sizeof(type)) != 0 || strcmp(type, "key") != 0))
        err = RESEAL_EFORMAT;
    if (err == 0 && (rs_dictionary_get(dictionary, "key", text, sizeof(text)) != 0 ||
                     rs_base64_decode(text, raw, sizeof(raw), &len) != 0 || len != key->len))
        err = RESEAL_EFORMAT;
    if (err == 0) memcpy(key->key, raw, len);
    rs_wipe(text, sizeof(text));
    rs_wipe(raw, sizeof(raw));
    if (err != 0) rs_wipe(key, sizeof(*key));
    return err;
}

int rs_locked_key_text(const struct rs_locked_key *key, char *dictionary, size_t room)
{
    char text[KEY_TEXT];
    if (room == 0) return RESEAL_ESPACE;
    dictionary[0] = '\0';
    int err = rs_base64_encode(key->key, key->len, text, sizeof(text));
    if (err == 0) err = rs_dictionary_put(dictionary, room, "type", "key");
    if (err == 0) err = rs_dictionary_put(dictionary, room, "cipher", key->cipher);
    if (err == 0) err = rs_dictionary_put(dictionary, room, "key", text);
    rs_wipe(text, sizeof(text));
    if (err != 0) rs_wipe(dictionary, room);
    return err;
}

static const EVP_MD *phrase_digest(const char *name)
{
    if (strcmp(name, "PBKDF2-HMAC-SHA-1") == 0) return EVP_sha1();
    return strcmp(name, "PBKDF2-HMAC-SHA-256") == 0 ? EVP_sha256() : NULL;
}

static bool take_rounds(const char *dictionary, unsigned long *rounds)
{
    char text[16], *end;
    if (rs_dictionary_get(dictionary, "rounds", text, sizeof(text)) != 0 || text[0] < '1' || text[0] > '9')
        return false;
    *rounds = strtoul(text, &end, 10);
    return *end == '\0' && *rounds <= ROUNDS_MAX;
}

int rs_locked_key_of_phrase(const char *dictionary, const char *phrase, size_t phrase_len,
                            struct rs_locked_key *key)
{
    char kdf[32], text[128];
    uint8_t salt[SALT_MAX + 3];
    unsigned long rounds;
    size_t salt_len;
    memset(key, 0, sizeof(*key));
    int err = take_cipher(dictionary, key);
    if (err != 0) return err;
    if (rs_dictionary_get(dictionary, "pass2key", kdf, sizeof(kdf)) != 0) return RESEAL_EFORMAT;
    if (phrase_digest(kdf) == NULL) return RESEAL_ECIPHER;
    if (!take_rounds(dictionary, &rounds) || rs_dictionary_get(dictionary, "salt", text, sizeof(text)) != 0 ||
        rs_base64_decode(text, salt, sizeof(salt), &salt_len) != 0 || phrase_len > INT32_MAX)
        return RESEAL_EFORMAT;
    bool ok = PKCS5_PBKDF2_HMAC(phrase, (int)phrase_len, salt, (int)salt_len, (int)rounds, phrase_digest(kdf),
                                (int)key->len, key->key) == 1;
    if (!ok) rs_wipe(key, sizeof(*key));
    return ok ? 0 : RESEAL_EIO;
}

int rs_locked_phrase_dictionary(unsigned rounds, char *dictionary, size_t room)
{
    uint8_t salt[16];
    char text[32], count[16];
    if (room == 0) return RESEAL_ESPACE;
    dictionary[0] = '\0';
    if (RAND_bytes(salt, sizeof(salt)) != 1) return RESEAL_EIO;
    (void)snprintf(count, sizeof(count), "%u", rounds);
    int err = rs_base64_encode(salt, sizeof(salt), text, sizeof(text));
    if (err == 0) err = rs_dictionary_put(dictionary, room, "pass2key", "PBKDF2-HMAC-SHA-256");
    if (err == 0) err = rs_dictionary_put(dictionary, room, "cipher", "AES-256");
    if (err == 0) err = rs_dictionary_put(dictionary, room, "rounds", count);
    if (err == 0) err = rs_dictionary_put(dictionary, room, "salt", text);
    return err;
}

/* ---- sealing and opening ------------------------------------------------------------ */

/* CBC with PKCS#7 padding, either way. The error of a wrong padding tells nothing that the MAC does not. */
static bool cbc(const struct rs_locked_key *key, const uint8_t iv[IV_LEN], const uint8_t *in, size_t len,
                uint8_t *out, size_t *out_len, bool seal)
{
    int i = cipher_index(key->cipher), n = 0, last = 0;
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    bool ok = false;
    ERR_set_mark();
    if (i >= 0 && key->len == ciphers[i].key_len && ctx != NULL)
        ok = EVP_CipherInit_ex(ctx, ciphers[i].cbc(), NULL, key->key, iv, seal) == 1 &&
             EVP_CipherUpdate(ctx, out, &n, in, (int)len) == 1 &&
             EVP_CipherFinal_ex(ctx, out + n, &last) == 1;
    ERR_pop_to_mark();
    EVP_CIPHER_CTX_free(ctx);
    *out_len = ok ? (size_t)n + (size_t)last : 0;
    return ok;
}

static bool authenticate(const struct rs_locked_key *key, enum rs_locked_mac mac, const uint8_t *text,
                         size_t len, uint8_t out[EVP_MAX_MD_SIZE])
{
    unsigned n = 0;
    return HMAC(macs[mac].digest(), key->key, (int)key->len, text, len, out, &n) != NULL &&
           n >= macs[mac].len;
}

int rs_locked_seal(const struct rs_locked_key *key, enum rs_locked_mac mac, const uint8_t *text, size_t len,
                   uint8_t *out, size_t *out_len)
{
    uint8_t digest[EVP_MAX_MD_SIZE];
    size_t n;
    if (len > RS_LOCKED_TEXT_MAX) return RESEAL_EINVAL;
    if (RAND_bytes(out, IV_LEN) != 1 || !cbc(key, out, text, len, out + IV_LEN, &n, true) ||
        !authenticate(key, mac, text, len, digest))
        return RESEAL_EIO;
    memcpy(out + IV_LEN + n, digest, macs[mac].len);
    rs_wipe(digest, sizeof(digest));
    *out_len = IV_LEN + n + macs[mac].len;
    return 0;
}

int rs_locked_open(const struct rs_locked_key *key, enum rs_locked_mac mac, const uint8_t *blob, size_t len,
                   uint8_t *text, size_t *text_len)
{
    uint8_t digest[EVP_MAX_MD_SIZE];
    size_t mac_len = macs[mac].len, n;
    *text_len = 0;
    if (len < IV_LEN + 16 + mac_len || len > RS_LOCKED_TEXT_MAX + RS_LOCKED_OVERHEAD) return RESEAL_EFORMAT;
    size_t sealed = len - IV_LEN - mac_len;
    if (sealed % 16 != 0) return RESEAL_EFORMAT;
    bool ok = cbc(key, blob, blob + IV_LEN, sealed, text, &n, false) &&
              authenticate(key, mac, text, n, digest) && rs_equal_ct(digest, blob + IV_LEN + sealed, mac_len);
    rs_wipe(digest, sizeof(digest));
    if (!ok) {
        rs_wipe(text, sealed);
        return RESEAL_EAUTH;
    }
    *text_len = n;
    return 0;
}
