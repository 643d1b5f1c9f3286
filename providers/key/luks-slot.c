/* SPDX-License-Identifier: Apache-2.0 */
/* The low-level SHA-256 is deprecated, and exactly what is needed: no look-up for each block of 64 bytes. */
#define OPENSSL_SUPPRESS_DEPRECATED
#include "providers/key/luks-slot.h"

#include "offload/base/keymem.h"
#include "providers/key/locked.h"

#include <stdio.h>
#include <stdlib.h>

#include <jansson.h>
#include <openssl/evp.h>
#include <openssl/sha.h>

#define STRIPES    4000u
#define SECTOR     512u
#define KEY_MAX    64u
#define AREA_MAX   (((size_t)KEY_MAX * STRIPES + SECTOR - 1) / SECTOR * SECTOR)
#define ROUNDS_MAX 10000 /* more than that is a pass phrase's pace: libcryptsetup may have it */
#define SALT_MAX   64u
#define DIGEST_MAX 64u

/* PBKDF2-HMAC-SHA-256 as a slot or a digest names it. */
struct kdf {
    int rounds;
    uint8_t salt[SALT_MAX + 3];
    size_t salt_len;
};

struct slot {
    size_t key_len, area_key_len;
    uint64_t at; /* of the area, in the header */
    struct kdf kdf, digest_kdf;
    uint8_t digest[DIGEST_MAX + 3];
    size_t digest_len;
};

/* ---- what the header says of a slot -------------------------------------------------------- */

static bool is_text(const json_t *object, const char *name, const char *want)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text != NULL && strcmp(text, want) == 0;
}

static bool take_number(const json_t *object, const char *name, json_int_t max, json_int_t *out)
{
    const json_t *value = json_object_get(object, name);
    *out = json_integer_value(value);
    return json_is_integer(value) && *out > 0 && *out <= max;
}

static bool take_bytes(const json_t *object, const char *name, uint8_t *out, size_t room, size_t *len)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text != NULL && rs_base64_decode(text, out, room, len) == 0;
}

static bool take_kdf(const json_t *object, struct kdf *kdf)
{
    json_int_t rounds;
    if (!is_text(object, "type", "pbkdf2") || !is_text(object, "hash", "sha256") ||
        !take_number(object, "iterations", ROUNDS_MAX, &rounds))
        return false;
    kdf->rounds = (int)rounds;
    return take_bytes(object, "salt", kdf->salt, sizeof(kdf->salt), &kdf->salt_len);
}

static bool take_area(const json_t *area, struct slot *s)
{
    json_int_t key_len;
    const char *at = json_string_value(json_object_get(area, "offset"));
    char *end;
    if (!is_text(area, "type", "raw") || !is_text(area, "encryption", "aes-xts-plain64") ||
        !take_number(area, "key_size", KEY_MAX, &key_len) || at == NULL || *at < '0' || *at > '9')
        return false;
    s->area_key_len = (size_t)key_len;
    s->at = strtoull(at, &end, 10);
    return *end == '\0' && s->at < UINT32_MAX && (key_len == 32 || key_len == 64);
}

static bool names_slot(const json_t *digest, const char *number)
{
    const json_t *slots = json_object_get(digest, "keyslots"), *slot;
    size_t i;
    json_array_foreach(slots, i, slot)
    {
        const char *text = json_string_value(slot);
        if (text != NULL && strcmp(text, number) == 0) return true;
    }
    return false;
}

/* The digest that tells a volume key of this slot; NULL: none. */
static json_t *find_digest(const json_t *header, const char *number)
{
    const char *name;
    json_t *digest, *digests = json_object_get(header, "digests");
    json_object_foreach(digests, name, digest)
    {
        if (names_slot(digest, number)) return digest;
    }
    return NULL;
}

static bool take_digest(const json_t *header, const char *number, struct slot *s)
{
    const json_t *digest = find_digest(header, number);
    return take_kdf(digest, &s->digest_kdf) &&
           take_bytes(digest, "digest", s->digest, sizeof(s->digest), &s->digest_len) && s->digest_len >= 20;
}

struct number {
    char text[12];
};

static struct number number_text(int number)
{
    struct number n;
    (void)snprintf(n.text, sizeof(n.text), "%d", number);
    return n;
}

static bool take_slot(const json_t *header, int number, struct slot *s)
{
    const struct number n = number_text(number);
    const char *name = n.text;
    json_int_t key_len, stripes;
    const json_t *slot = json_object_get(json_object_get(header, "keyslots"), name);
    const json_t *af = json_object_get(slot, "af");
    if (!is_text(slot, "type", "luks2") || !take_number(slot, "key_size", KEY_MAX, &key_len) ||
        (key_len != 32 && key_len != 64))
        return false;
    s->key_len = (size_t)key_len;
    return is_text(af, "type", "luks1") && is_text(af, "hash", "sha256") &&
           take_number(af, "stripes", STRIPES, &stripes) && stripes == STRIPES &&
           take_kdf(json_object_get(slot, "kdf"), &s->kdf) && take_area(json_object_get(slot, "area"), s) &&
           take_digest(header, name, s);
}

json_t *rs_luks_slot_json(const json_t *header, int slot)
{
    struct slot s;
    const struct number n = number_text(slot);
    if (!take_slot(header, slot, &s)) return NULL;
    return json_pack("{s:{s:O}, s:{s:O}}", "keyslots", n.text,
                     json_object_get(json_object_get(header, "keyslots"), n.text), "digests", "0",
                     find_digest(header, n.text));
}

/* ---- opening ----------------------------------------------------------------------------------- */

/* A block of the hash that is the last of its message: `len` bytes, and behind them what SHA-256 pads them
 * with after `before` bytes of other blocks (FIPS 180-4, 5.1.1). All that is hashed here thousands of times
 * fits one. */
static void pad(uint8_t block[SHA256_CBLOCK], size_t len, size_t before)
{
    memset(block + len, 0, SHA256_CBLOCK - len);
    block[len] = 0x80;
    rs_store_be32(block + SHA256_CBLOCK - 4, (uint32_t)(before + len) * 8);
}

static void take_hash(const SHA256_CTX *ctx, uint8_t out[SHA256_DIGEST_LENGTH])
{
    for (unsigned i = 0; i < SHA256_DIGEST_LENGTH / 4; i++) rs_store_be32(out + 4 * (size_t)i, ctx->h[i]);
}

/* HMAC-SHA-256 with a key that has gone in already: its inner and outer state. */
struct hmac {
    SHA256_CTX inner, outer, ctx;
    uint8_t block[SHA256_CBLOCK]; /* a hash and its padding */
};

static void hmac_key(struct hmac *h, const uint8_t *key, size_t len)
{
    uint8_t *block = h->block;
    memset(block, 0, sizeof(h->block));
    (void)SHA256_Init(&h->inner);
    (void)SHA256_Init(&h->outer);
    if (len <= sizeof(h->block)) {
        memcpy(block, key, len);
    } else {
        h->ctx = h->inner;
        (void)SHA256_Update(&h->ctx, key, len);
        (void)SHA256_Final(block, &h->ctx);
    }
    for (unsigned i = 0; i < sizeof(h->block); i++) block[i] ^= 0x36;
    (void)SHA256_Update(&h->inner, block, sizeof(h->block));
    for (unsigned i = 0; i < sizeof(h->block); i++) block[i] ^= 0x36 ^ 0x5c;
    (void)SHA256_Update(&h->outer, block, sizeof(h->block));
    pad(block, SHA256_DIGEST_LENGTH, sizeof(h->block));
}

/* The block, an inner hash, becomes the HMAC. */
static void hmac_outer(struct hmac *h)
{
    h->ctx = h->outer;
    SHA256_Transform(&h->ctx, h->block);
    take_hash(&h->ctx, h->block);
}

/* The block becomes the HMAC of salt and number. */
static void hmac_salt(struct hmac *h, const struct kdf *kdf, uint32_t number)
{
    uint8_t text[4];
    rs_store_be32(text, number);
    h->ctx = h->inner;
    (void)SHA256_Update(&h->ctx, kdf->salt, kdf->salt_len);
    (void)SHA256_Update(&h->ctx, text, sizeof(text));
    (void)SHA256_Final(h->block, &h->ctx);
    hmac_outer(h);
}

/* The block becomes the HMAC of itself. */
static void hmac_again(struct hmac *h)
{
    h->ctx = h->inner;
    SHA256_Transform(&h->ctx, h->block);
    take_hash(&h->ctx, h->block);
    hmac_outer(h);
}

/* What a derivation works with, in key memory. */
struct pbkdf {
    struct hmac hmac;
    uint8_t sum[SHA256_DIGEST_LENGTH];
};

/* PBKDF2-HMAC-SHA-256 (RFC 8018). */
static bool derive(const struct kdf *kdf, const void *pass, size_t pass_len, uint8_t *out, size_t len)
{
    RS_KEYMEM struct pbkdf *p = rs_keymem_alloc(sizeof(*p));
    if (p == NULL) return false;
    hmac_key(&p->hmac, pass, pass_len);
    for (uint32_t block = 1; len > 0; block++) {
        size_t n = RS_MIN(len, sizeof(p->sum));
        hmac_salt(&p->hmac, kdf, block);
        memcpy(p->sum, p->hmac.block, sizeof(p->sum));
        for (int round = 1; round < kdf->rounds; round++) {
            hmac_again(&p->hmac);
            for (unsigned i = 0; i < sizeof(p->sum); i++) p->sum[i] ^= p->hmac.block[i];
        }
        memcpy(out, p->sum, n);
        out += n;
        len -= n;
    }
    return true;
}

/* AES-XTS in place, sectors of 512 bytes counted from 0. */
static bool decrypt(const uint8_t *key, size_t key_len, uint8_t *area, size_t len)
{
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    bool ok = ctx != NULL && EVP_DecryptInit_ex(ctx, key_len == 64 ? EVP_aes_256_xts() : EVP_aes_128_xts(),
                                                NULL, key, NULL) == 1;
    for (size_t at = 0; at < len && ok; at += SECTOR) {
        uint8_t iv[16] = {0};
        int n = 0;
        rs_store_le64(iv, at / SECTOR);
        ok = EVP_DecryptInit_ex(ctx, NULL, NULL, NULL, iv) == 1 &&
             EVP_DecryptUpdate(ctx, area + at, &n, area + at, SECTOR) == 1 && n == SECTOR;
    }
    EVP_CIPHER_CTX_free(ctx);
    return ok;
}

/* What merging works with: a hash that has begun, one at work, and its block. */
struct merger {
    SHA256_CTX begun, ctx;
    uint8_t block[SHA256_CBLOCK];
};

/* H1 of the anti-forensic splitter: each 32 bytes become the hash of their number and themselves. */
static void diffuse(struct merger *m, uint8_t *key, size_t len)
{
    for (size_t i = 0; i < len / SHA256_DIGEST_LENGTH; i++) {
        uint8_t *part = key + i * SHA256_DIGEST_LENGTH;
        rs_store_be32(m->block, (uint32_t)i);
        memcpy(m->block + 4, part, SHA256_DIGEST_LENGTH);
        m->ctx = m->begun;
        SHA256_Transform(&m->ctx, m->block);
        take_hash(&m->ctx, part);
    }
}

static void merge(struct merger *m, const uint8_t *area, uint8_t *key, size_t len)
{
    (void)SHA256_Init(&m->begun);
    pad(m->block, 4 + SHA256_DIGEST_LENGTH, 0);
    memset(key, 0, len);
    for (size_t stripe = 0; stripe < STRIPES; stripe++) {
        for (size_t i = 0; i < len; i++) key[i] ^= area[stripe * len + i];
        if (stripe + 1 < STRIPES) diffuse(m, key, len);
    }
}

/* Keys on the way, in key memory. */
struct keys {
    uint8_t area_key[KEY_MAX];
    uint8_t digest[DIGEST_MAX];
    struct merger merger;
};

static int open_area(const struct slot *s, uint8_t *area, size_t len, const void *pass, size_t pass_len,
                     struct rs_source_yield *out)
{
    RS_KEYMEM struct keys *k = rs_keymem_alloc(sizeof(*k));
    if (k == NULL) return RESEAL_ENOMEM;
    if (!derive(&s->kdf, pass, pass_len, k->area_key, s->area_key_len) ||
        !decrypt(k->area_key, s->area_key_len, area, len))
        return RESEAL_EPASS; /* XTS refuses halves that are equal: never a key of ours */
    merge(&k->merger, area, out->key, s->key_len);
    size_t n = RS_MIN(s->digest_len, (size_t)DIGEST_MAX);
    if (!derive(&s->digest_kdf, out->key, s->key_len, k->digest, n)) return RESEAL_EIO;
    return rs_equal_ct(k->digest, s->digest, n) ? 0 : RESEAL_EPASS;
}

int rs_luks_slot_open(int from, const json_t *header, int slot, const void *pass, size_t pass_len,
                      struct rs_source_yield *out)
{
    struct slot s;
    if (out->luks.version != 2 || !take_slot(header, slot, &s) || s.key_len * 4 != out->luks.key_bits)
        return RESEAL_ENOSUPPORT;
    /* Kept for the next task of this child, empty: to map and lock it takes as long as to decrypt it. */
    static uint8_t *area;
    size_t len = rs_round_up(s.key_len * STRIPES, SECTOR);
    if (area == NULL) area = rs_scratch_map(AREA_MAX, NULL);
    if (area == NULL) return RESEAL_ENOMEM;
    int r = rs_pread_full(from, area, len, s.at) == 0 ? open_area(&s, area, len, pass, pass_len, out)
                                                      : RESEAL_EIO;
    rs_wipe(area, len);
    if (r != 0) {
        rs_wipe(out->key, sizeof(out->key));
        return r;
    }
    if (!rs_raw_key_ok(RESEAL_XTS, out->key, s.key_len)) return RESEAL_EKEYBAD;
    out->key_len = (uint32_t)s.key_len;
    out->luks.keyslot = slot;
    return 0;
}
