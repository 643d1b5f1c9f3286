/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/crypto/openssl/openssl.h"

#include "providers/crypto/staged.h"
#include "reseal/reseal.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>

/* OpenSSL refuses longer XTS units (SP 800-38E: 2^20 blocks); RS_UNIT_MAX is the same bound. */
_Static_assert(RS_UNIT_MAX <= 16u << 20, "XTS unit");

struct openssl_key {
    EVP_CIPHER_CTX *seal, *open;
};

static EVP_CIPHER *ciphers[2][2]; /* [gcm][256] */

static int openssl_probe(void)
{
    static const char *const names[2][2] = {{"AES-128-XTS", "AES-256-XTS"}, {"AES-128-GCM", "AES-256-GCM"}};
    for (int i = 0; i < 4; i++) {
        if (ciphers[i / 2][i % 2] == NULL)
            ciphers[i / 2][i % 2] = EVP_CIPHER_fetch(NULL, names[i / 2][i % 2], NULL);
        if (ciphers[i / 2][i % 2] == NULL) return RESEAL_ENOSUPPORT;
    }
    return 0;
}

static bool openssl_supports(const struct rs_shape *shape)
{
    return shape->src <= RS_GCM && shape->dst <= RS_GCM;
}

static size_t openssl_key_size(enum rs_cipher cipher, unsigned bits)
{
    (void)bits;
    return cipher == RS_PLAIN ? 0 : rs_round_up(sizeof(struct openssl_key), RS_KEY_ALIGN);
}

static void openssl_wipe(void *key, enum rs_cipher cipher, unsigned bits)
{
    if (cipher == RS_PLAIN) return;
    struct openssl_key *k = key;
    EVP_CIPHER_CTX_free(k->seal);
    EVP_CIPHER_CTX_free(k->open);
    rs_wipe(key, openssl_key_size(cipher, bits));
}

static int openssl_prepare(void *key, enum rs_cipher cipher, unsigned bits, const uint8_t *raw,
                           size_t raw_len)
{
    struct openssl_key *k = key;
    size_t half = bits / 8;
    if (cipher == RS_PLAIN) return 0;
    memset(k, 0, sizeof(*k));
    if (bits != 128 && bits != 256) return RESEAL_EKEYBAD;
    if (raw_len != (cipher == RS_XTS ? 2 * half : half)) return RESEAL_EKEYBAD;
    if (cipher == RS_XTS && rs_equal_ct(raw, raw + half, half)) return RESEAL_EKEYBAD;
    const EVP_CIPHER *with = ciphers[cipher == RS_GCM][bits == 256];
    k->seal = EVP_CIPHER_CTX_new();
    k->open = EVP_CIPHER_CTX_new();
    if (k->seal != NULL && k->open != NULL && EVP_CipherInit_ex2(k->seal, with, raw, NULL, 1, NULL) == 1 &&
        EVP_CipherInit_ex2(k->open, with, raw, NULL, 0, NULL) == 1)
        return 0;
    openssl_wipe(key, cipher, bits);
    return RESEAL_ENOMEM;
}

static EVP_CIPHER_CTX *context_of(const struct rs_staged_side *s)
{
    const struct openssl_key *k = s->side->key;
    return s->open ? k->open : k->seal;
}

static int begin(struct rs_staged_side *s)
{
    if (s->side->cipher != RS_GCM) return 0;
    int n;
    EVP_CIPHER_CTX *ctx = context_of(s);
    if (EVP_CipherInit_ex2(ctx, NULL, NULL, s->side->iv, -1, NULL) != 1) return RESEAL_EINVAL;
    if (s->side->aad_len != 0 && EVP_CipherUpdate(ctx, NULL, &n, s->side->aad, (int)s->side->aad_len) != 1)
        return RESEAL_EINVAL;
    return 0;
}

static int xts_units(const struct rs_side *side, EVP_CIPHER_CTX *ctx, uint8_t *to, const uint8_t *from,
                     size_t off, size_t len)
{
    uint64_t tweak = side->tweak_lo + off / side->unit * side->step;
    for (size_t at = 0; at < len; at += side->unit, tweak += side->step) {
        uint8_t iv[16];
        int n = (int)RS_MIN(side->unit, len - at);
        rs_store_le64(iv, tweak);
        rs_store_le64(iv + 8, side->tweak_hi);
        if (EVP_CipherInit_ex2(ctx, NULL, NULL, iv, -1, NULL) != 1) return RESEAL_EINVAL;
        if (EVP_CipherUpdate(ctx, to + at, &n, from + at, n) != 1) return RESEAL_EUNIT;
    }
    return 0;
}

static int step(struct rs_staged_side *s, uint8_t *to, const uint8_t *from, size_t off, size_t len)
{
    int n;
    if (s->side->cipher == RS_XTS) return xts_units(s->side, context_of(s), to, from, off, len);
    return EVP_CipherUpdate(context_of(s), to, &n, from, (int)len) == 1 ? 0 : RESEAL_EINVAL;
}

static int end(struct rs_staged_side *s, uint8_t tag[RS_TAG_LEN])
{
    if (s->side->cipher != RS_GCM) return 0;
    EVP_CIPHER_CTX *ctx = context_of(s);
    uint8_t none[16];
    int n;
    if (s->open) {
        if (EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, RS_TAG_LEN, tag) != 1) return RESEAL_EINVAL;
        return EVP_CipherFinal_ex(ctx, none, &n) == 1 ? 0 : RESEAL_EAUTH;
    }
    if (EVP_CipherFinal_ex(ctx, none, &n) != 1) return RESEAL_EINVAL;
    return EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, RS_TAG_LEN, tag) == 1 ? 0 : RESEAL_EINVAL;
}

static size_t openssl_run(struct rs_run *runs, size_t n, void *scratch, unsigned flags)
{
    static const struct rs_staged_ops ops = {begin, step, end};
    return rs_staged_run(&ops, runs, n, scratch, flags);
}

const struct rs_engine rs_engine_openssl = {
    .name = "openssl",
    .variant = OPENSSL_VERSION_TEXT,
    .probe = openssl_probe,
    .supports = openssl_supports,
    .key_size = openssl_key_size,
    .prepare = openssl_prepare,
    .run = openssl_run,
    .wipe = openssl_wipe,
};
