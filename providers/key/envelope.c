/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/key/envelope-internal.h"

#include "providers/crypto/derive.h"
#include "providers/key/locked.h"
#include "reseal/reseal.h"

#include <openssl/rand.h>
#include <openssl/sha.h>
#include <stdarg.h>
#include <stdio.h>

#define MAGIC         "DataTransformEnvelope"
#define MAGIC_LEN     21u
#define SIZE_AT       504u
#define VERSION_AT    508u
#define ATTRIBUTES_AT 512u
#define VERSION       2u
#define NAME_MAX_LEN  63u
#define SALT_LEN      32u

int rs_envelope_refuse(char why[RS_ENVELOPE_WHY], int status, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    (void)vsnprintf(why, RS_ENVELOPE_WHY, format, ap);
    va_end(ap);
    return status;
}

/* ---- reading a header --------------------------------------------------------------- */

/* A text that ends inside; NULL when it does not. */
static const char *text_at(const struct rs_envelope *e, size_t at, size_t end, size_t *len)
{
    const uint8_t *nul = at < end ? memchr(e->block + at, 0, end - at) : NULL;
    if (nul == NULL) return NULL;
    *len = (size_t)(nul - (e->block + at));
    return (const char *)e->block + at;
}

/* Names are printed: nothing but what is visible. */
static bool name_ok(const char *name, size_t len)
{
    if (len == 0 || len > NAME_MAX_LEN) return false;
    for (size_t i = 0; i < len; i++)
        if (name[i] <= ' ' || name[i] > '~') return false;
    return true;
}

/* The value at *at, moved behind it. */
static bool take_value(const struct rs_envelope *e, struct rs_envelope_attribute *a, size_t *at, size_t end)
{
    if (a->type == RS_ENVELOPE_TEXT) {
        a->value = (const uint8_t *)text_at(e, *at, end, &a->len);
        if (a->value == NULL) return false;
        *at += a->len + 1;
        return true;
    }
    if (!rs_range_ok(*at, 8, end)) return false;
    uint64_t len = rs_load_le64(e->block + *at);
    if (!rs_range_ok(*at + 8, len, end)) return false;
    a->value = e->block + *at + 8;
    a->len = (size_t)len;
    *at += 8 + a->len;
    return true;
}

static int parse_attribute(struct rs_envelope *e, size_t *at, size_t end, char why[RS_ENVELOPE_WHY])
{
    struct rs_envelope_attribute a = {.type = e->block[*at], .flag = e->block[*at + 1]};
    size_t len = 0;
    if (e->block[*at + 2] != 0 || e->block[*at + 3] != 0)
        return rs_envelope_refuse(why, RESEAL_EFORMAT, "envelope: damaged header, at byte %zu", *at);
    if (a.type != RS_ENVELOPE_TEXT && a.type != RS_ENVELOPE_BYTES)
        return rs_envelope_refuse(why, RESEAL_EFORMAT,
                                  "envelope: an attribute of type %u, which is not known", a.type);
    *at += 4;
    a.name = text_at(e, *at, end, &len);
    if (a.name == NULL || !name_ok(a.name, len))
        return rs_envelope_refuse(why, RESEAL_EFORMAT, "envelope: damaged header, at byte %zu: no name", *at);
    *at += len + 1;
    if (!take_value(e, &a, at, end))
        return rs_envelope_refuse(why, RESEAL_EFORMAT,
                                  "envelope: attribute %s runs over the end of the header", a.name);
    if (rs_envelope_find(e, a.name) != NULL)
        return rs_envelope_refuse(why, RESEAL_EFORMAT, "envelope: attribute %s is there twice", a.name);
    if (e->n == RS_ENVELOPE_ATTRIBUTES)
        return rs_envelope_refuse(why, RESEAL_EFORMAT, "envelope: more than %u attributes",
                                  RS_ENVELOPE_ATTRIBUTES);
    e->at[e->n++] = a;
    return 0;
}

static bool has_bytes(const struct rs_envelope *e, const char *name, size_t min, size_t max)
{
    const struct rs_envelope_attribute *a = rs_envelope_find(e, name);
    return a != NULL && a->type == RS_ENVELOPE_BYTES && a->len >= min && a->len <= max;
}

/* What must be there, and as what. */
static int check_attributes(const struct rs_envelope *e, char why[RS_ENVELOPE_WHY])
{
    const struct rs_envelope_attribute *salt = rs_envelope_find(e, RS_ENVELOPE_SALT);
    const char *cipher = rs_envelope_text(e, RS_ENVELOPE_CIPHER);
    if (cipher == NULL)
        return rs_envelope_refuse(why, RESEAL_EFORMAT, "envelope: attribute %s is missing",
                                  RS_ENVELOPE_CIPHER);
    if (strcmp(cipher, RS_ENVELOPE_CIPHER_NAME) != 0)
        return rs_envelope_refuse(why, RESEAL_ECIPHER,
                                  "envelope: another cipher than " RS_ENVELOPE_CIPHER_NAME);
    if (rs_envelope_find(e, RS_ENVELOPE_KEY_INFO) == NULL)
        return rs_envelope_refuse(why, RESEAL_EFORMAT, "envelope: attribute %s is missing",
                                  RS_ENVELOPE_KEY_INFO);
    if (!has_bytes(e, RS_ENVELOPE_KEY_HASH, RS_ENVELOPE_HASH_LEN, RS_ENVELOPE_HASH_LEN))
        return rs_envelope_refuse(why, RESEAL_EFORMAT, "envelope: attribute %s is missing or not of %u bytes",
                                  RS_ENVELOPE_KEY_HASH, RS_ENVELOPE_HASH_LEN);
    if (!has_bytes(e, RS_ENVELOPE_IV, 8, RS_ENVELOPE_IV_MAX))
        return rs_envelope_refuse(why, RESEAL_EFORMAT,
                                  "envelope: attribute %s is missing or of a wrong length", RS_ENVELOPE_IV);
    if (salt != NULL && !has_bytes(e, RS_ENVELOPE_SALT, SALT_LEN, SALT_LEN))
        return rs_envelope_refuse(why, RESEAL_EFORMAT, "envelope: attribute %s is not of %u bytes",
                                  RS_ENVELOPE_SALT, SALT_LEN);
    return 0;
}

int rs_envelope_parse(struct rs_envelope *e, char why[RS_ENVELOPE_WHY])
{
    static const uint8_t none[4];
    e->n = 0;
    if (memcmp(e->block, MAGIC, MAGIC_LEN) != 0)
        return rs_envelope_refuse(why, RESEAL_EFORMAT, "not an envelope file: it begins otherwise");
    uint32_t size = rs_load_le32(e->block + SIZE_AT), version = rs_load_le32(e->block + VERSION_AT);
    if (version != VERSION)
        return rs_envelope_refuse(why, RESEAL_EFORMAT, "envelope: version %u, only %u is known", version,
                                  VERSION);
    if (size < sizeof(none) || size > RS_ENVELOPE_BLOCK - ATTRIBUTES_AT)
        return rs_envelope_refuse(why, RESEAL_EFORMAT, "envelope: damaged header: %u bytes of attributes",
                                  size);
    size_t at = ATTRIBUTES_AT, end = ATTRIBUTES_AT + size;
    for (;;) {
        if (!rs_range_ok(at, sizeof(none), end))
            return rs_envelope_refuse(why, RESEAL_EFORMAT,
                                      "envelope: damaged header: its attributes have no end");
        if (memcmp(e->block + at, none, sizeof(none)) == 0) break;
        int r = parse_attribute(e, &at, end, why);
        if (r != 0) return r;
    }
    e->end = at;
    return check_attributes(e, why);
}

const struct rs_envelope_attribute *rs_envelope_find(const struct rs_envelope *e, const char *name)
{
    for (unsigned i = 0; i < e->n; i++)
        if (strcmp(e->at[i].name, name) == 0) return &e->at[i];
    return NULL;
}

const char *rs_envelope_text(const struct rs_envelope *e, const char *name)
{
    const struct rs_envelope_attribute *a = rs_envelope_find(e, name);
    return a != NULL && a->type == RS_ENVELOPE_TEXT ? (const char *)a->value : NULL;
}

/* ---- making one --------------------------------------------------------------------- */

void rs_envelope_new(struct rs_envelope *e)
{
    memset(e, 0, sizeof(*e));
    memcpy(e->block, MAGIC, MAGIC_LEN);
    rs_store_le32(e->block + SIZE_AT, RS_ENVELOPE_BLOCK - ATTRIBUTES_AT);
    rs_store_le32(e->block + VERSION_AT, VERSION);
    e->end = ATTRIBUTES_AT;
}

/* Room for an attribute whose value, with its length or NUL, takes `len` bytes; where the value goes. */
static int put(struct rs_envelope *e, enum rs_envelope_type type, const char *name, size_t len,
               uint8_t **value)
{
    size_t named = strlen(name);
    if (!name_ok(name, named) || rs_envelope_find(e, name) != NULL) return RESEAL_EINVAL;
    /* Four zero bytes must follow the last one. */
    if (e->n == RS_ENVELOPE_ATTRIBUTES || !rs_range_ok(e->end + 4 + named + 1, len, RS_ENVELOPE_BLOCK - 4))
        return RESEAL_ESPACE;
    uint8_t *at = e->block + e->end;
    at[0] = (uint8_t)type;
    memcpy(at + 4, name, named + 1);
    *value = at + 4 + named + 1;
    e->at[e->n++] = (struct rs_envelope_attribute){.type = (uint8_t)type, .name = (char *)at + 4};
    e->end += 4 + named + 1 + len;
    return 0;
}

int rs_envelope_put_text(struct rs_envelope *e, const char *name, const char *text)
{
    uint8_t *value;
    size_t len = strlen(text);
    int r = put(e, RS_ENVELOPE_TEXT, name, len + 1, &value);
    if (r != 0) return r;
    memcpy(value, text, len + 1);
    e->at[e->n - 1].value = value;
    e->at[e->n - 1].len = len;
    return 0;
}

int rs_envelope_put_bytes(struct rs_envelope *e, const char *name, const uint8_t *bytes, size_t len)
{
    uint8_t *value;
    if (len > RS_ENVELOPE_BLOCK) return RESEAL_ESPACE;
    int r = put(e, RS_ENVELOPE_BYTES, name, len + 8, &value);
    if (r != 0) return r;
    rs_store_le64(value, len);
    if (len != 0) memcpy(value + 8, bytes, len);
    e->at[e->n - 1].value = value + 8;
    e->at[e->n - 1].len = len;
    return 0;
}

/* ---- keys --------------------------------------------------------------------------- */

int rs_envelope_put_salt(struct rs_envelope *e)
{
    uint8_t salt[SALT_LEN];
    if (RAND_bytes(salt, sizeof(salt)) != 1) return RESEAL_EIO;
    return rs_envelope_put_bytes(e, RS_ENVELOPE_SALT, salt, sizeof(salt));
}

int rs_envelope_file_key(const struct rs_envelope *e, const uint8_t key[RS_ENVELOPE_KEY],
                         uint8_t out[RS_ENVELOPE_KEY])
{
    const struct rs_envelope_attribute *salt = rs_envelope_find(e, RS_ENVELOPE_SALT);
    if (salt == NULL) {
        memmove(out, key, RS_ENVELOPE_KEY);
        return 0;
    }
    if (salt->type != RS_ENVELOPE_BYTES || salt->len != SALT_LEN) return RESEAL_EFORMAT;
    return rs_hkdf(key, RS_ENVELOPE_KEY, salt->value, salt->len, "reseal envelope v1", out, RS_ENVELOPE_KEY);
}

int rs_envelope_put_phrase(struct rs_envelope *e)
{
    char dictionary[160];
    int r = rs_locked_phrase_dictionary(RS_ENVELOPE_ROUNDS, dictionary, sizeof(dictionary));
    return r != 0 ? r : rs_envelope_put_text(e, RS_ENVELOPE_PASS2KEY, dictionary);
}

int rs_envelope_phrase_key(const struct rs_envelope *e, const char *phrase, size_t len,
                           uint8_t out[RS_ENVELOPE_KEY])
{
    struct rs_locked_key key;
    const char *dictionary = rs_envelope_text(e, RS_ENVELOPE_PASS2KEY);
    if (dictionary == NULL) return RESEAL_EFORMAT;
    int r = rs_locked_key_of_phrase(dictionary, phrase, len, &key);
    if (r == 0 && key.len != RS_ENVELOPE_KEY) r = RESEAL_ECIPHER;
    if (r == 0) memcpy(out, key.key, RS_ENVELOPE_KEY);
    rs_wipe(&key, sizeof(key));
    return r;
}

int rs_envelope_key_hash(const uint8_t key[RS_ENVELOPE_KEY], uint8_t hash[RS_ENVELOPE_HASH_LEN])
{
    uint8_t text[sizeof(RS_ENVELOPE_CIPHER_NAME) - 1 + RS_ENVELOPE_KEY];
    memcpy(text, RS_ENVELOPE_CIPHER_NAME, sizeof(RS_ENVELOPE_CIPHER_NAME) - 1);
    memcpy(text + sizeof(RS_ENVELOPE_CIPHER_NAME) - 1, key, RS_ENVELOPE_KEY);
    bool ok = EVP_Digest(text, sizeof(text), hash, NULL, EVP_sha256(), NULL) == 1;
    rs_wipe(text, sizeof(text));
    return ok ? 0 : RESEAL_ENOMEM;
}

EVP_CIPHER_CTX *rs_envelope_gcm(const struct rs_envelope *e, const uint8_t key[RS_ENVELOPE_KEY],
                                const char *aad, bool seal)
{
    const struct rs_envelope_attribute *iv = rs_envelope_find(e, RS_ENVELOPE_IV);
    EVP_CIPHER_CTX *gcm = EVP_CIPHER_CTX_new();
    int n;
    if (gcm != NULL && EVP_CipherInit_ex(gcm, EVP_aes_256_gcm(), NULL, NULL, NULL, seal) == 1 &&
        EVP_CIPHER_CTX_ctrl(gcm, EVP_CTRL_AEAD_SET_IVLEN, (int)iv->len, NULL) == 1 &&
        EVP_CipherInit_ex(gcm, NULL, NULL, key, iv->value, seal) == 1 &&
        EVP_CipherUpdate(gcm, NULL, &n, e->block, RS_ENVELOPE_BLOCK) == 1 &&
        (aad[0] == '\0' || EVP_CipherUpdate(gcm, NULL, &n, (const uint8_t *)aad, (int)strlen(aad)) == 1))
        return gcm;
    EVP_CIPHER_CTX_free(gcm);
    return NULL;
}
