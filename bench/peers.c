/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/peers.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdlib.h>

#include "reseal/reseal.h"
#if RESEAL_IPSEC_MB
#include <intel-ipsec-mb.h>
#endif

struct rs_peer_side {
    enum rs_peer_kind kind;
    enum rs_cipher cipher;
    unsigned bits;
    bool encrypt;
    EVP_CIPHER_CTX *evp;
    const struct rs_engine *engine;
    void *key; /* of the engine, or expanded by ipsec-mb */
    size_t key_len;
#if RESEAL_IPSEC_MB
    IMB_MGR *mb;
#endif
};

/* ---- OpenSSL ------------------------------------------------------------- */

static int open_openssl(struct rs_peer_side *p, const uint8_t *raw)
{
    const EVP_CIPHER *cipher = p->cipher == RS_XTS ? (p->bits == 128 ? EVP_aes_128_xts() : EVP_aes_256_xts())
                                                   : (p->bits == 128 ? EVP_aes_128_gcm() : EVP_aes_256_gcm());
    p->evp = EVP_CIPHER_CTX_new();
    return p->evp != NULL && EVP_CipherInit_ex(p->evp, cipher, NULL, raw, NULL, p->encrypt) == 1;
}

static int run_openssl_xts(struct rs_peer_side *p, const struct rs_side *s, uint8_t *out, const uint8_t *in,
                           size_t len)
{
    uint8_t tweak[16];
    int n;
    rs_store_le64(tweak + 8, s->tweak_hi);
    for (size_t at = 0; at < len; at += s->unit) {
        size_t piece = RS_MIN((size_t)s->unit, len - at);
        rs_store_le64(tweak, s->tweak_lo + at / s->unit * s->step);
        if (EVP_CipherInit_ex(p->evp, NULL, NULL, NULL, tweak, -1) != 1 ||
            EVP_CipherUpdate(p->evp, out + at, &n, in + at, (int)piece) != 1)
            return RESEAL_EINVAL;
    }
    return 0;
}

static int run_openssl_gcm(struct rs_peer_side *p, struct rs_side *s, uint8_t *out, const uint8_t *in,
                           size_t len)
{
    int n;
    if (EVP_CipherInit_ex(p->evp, NULL, NULL, NULL, s->iv, -1) != 1 ||
        (s->aad_len != 0 && EVP_CipherUpdate(p->evp, NULL, &n, s->aad, (int)s->aad_len) != 1) ||
        EVP_CipherUpdate(p->evp, out, &n, in, (int)len) != 1)
        return RESEAL_EINVAL;
    if (!p->encrypt && EVP_CIPHER_CTX_ctrl(p->evp, EVP_CTRL_AEAD_SET_TAG, RS_TAG_LEN, s->tag) != 1)
        return RESEAL_EINVAL;
    if (EVP_CipherFinal_ex(p->evp, out + len, &n) != 1) return RESEAL_EAUTH;
    if (p->encrypt && EVP_CIPHER_CTX_ctrl(p->evp, EVP_CTRL_AEAD_GET_TAG, RS_TAG_LEN, s->tag) != 1)
        return RESEAL_EINVAL;
    return 0;
}

/* ---- ipsec-mb ------------------------------------------------------------ */

#if RESEAL_IPSEC_MB

static int open_ipsec_mb(struct rs_peer_side *p, const uint8_t *raw)
{
    if (p->cipher != RS_GCM) return 0;
    p->mb = alloc_mb_mgr(0);
    if (p->mb == NULL) return 0;
    init_mb_mgr_auto(p->mb, NULL);
    p->key_len = rs_round_up(sizeof(struct gcm_key_data), RS_KEY_ALIGN);
    p->key = aligned_alloc(RS_KEY_ALIGN, p->key_len);
    if (p->key == NULL) return 0;
    if (p->bits == 128)
        IMB_AES128_GCM_PRE(p->mb, raw, p->key);
    else
        IMB_AES256_GCM_PRE(p->mb, raw, p->key);
    return 1;
}

static int run_ipsec_mb(struct rs_peer_side *p, struct rs_side *s, uint8_t *out, const uint8_t *in,
                        size_t len)
{
    struct gcm_context_data context;
    uint8_t tag[RS_TAG_LEN];
    aes_gcm_enc_dec_t run = p->bits == 128 ? (p->encrypt ? p->mb->gcm128_enc : p->mb->gcm128_dec)
                                           : (p->encrypt ? p->mb->gcm256_enc : p->mb->gcm256_dec);
    run(p->key, &context, out, in, len, s->iv, s->aad, s->aad_len, tag, sizeof(tag));
    if (p->encrypt) {
        memcpy(s->tag, tag, sizeof(tag));
        return 0;
    }
    return rs_equal_ct(tag, s->tag, sizeof(tag)) ? 0 : RESEAL_EAUTH;
}

static void close_ipsec_mb(struct rs_peer_side *p)
{
    if (p->mb != NULL) free_mb_mgr(p->mb);
}

#else

static int open_ipsec_mb(struct rs_peer_side *p, const uint8_t *raw)
{
    (void)p;
    (void)raw;
    return 0;
}

static int run_ipsec_mb(struct rs_peer_side *p, struct rs_side *s, uint8_t *out, const uint8_t *in,
                        size_t len)
{
    (void)p;
    (void)s;
    (void)out;
    (void)in;
    (void)len;
    return RESEAL_EINVAL;
}

static void close_ipsec_mb(struct rs_peer_side *p)
{
    (void)p;
}

#endif

/* ---- our engine, one side at a time --------------------------------------- */

static int open_engine(struct rs_peer_side *p, const uint8_t *raw, size_t raw_len)
{
    uint16_t bits = (uint16_t)p->bits;
    struct rs_shape shape = {.len = 16384};
    if (p->encrypt)
        shape.dst = (uint8_t)p->cipher, shape.dst_bits = bits, shape.dst_unit = 4096;
    else
        shape.src = (uint8_t)p->cipher, shape.src_bits = bits, shape.src_unit = 4096;
    p->engine = rs_engine_best(&shape);
    if (p->engine == NULL) return 0;
    p->key_len = rs_round_up(p->engine->key_size(p->cipher, p->bits), RS_KEY_ALIGN);
    p->key = aligned_alloc(RS_KEY_ALIGN, p->key_len);
    return p->key != NULL && p->engine->prepare(p->key, p->cipher, p->bits, raw, raw_len) == 0;
}

static int run_engine(struct rs_peer_side *p, struct rs_side *s, uint8_t *out, const uint8_t *in, size_t len,
                      void *scratch, unsigned flags)
{
    struct rs_run run = {.in = in, .out = out, .len = len};
    struct rs_side *mine = p->encrypt ? &run.dst : &run.src;
    *mine = *s;
    mine->key = p->key;
    size_t bad = p->engine->run(&run, 1, scratch, flags);
    if (p->encrypt) memcpy(s->tag, mine->tag, sizeof(s->tag));
    return bad == 0 ? 0 : run.status;
}

/* ---- all ------------------------------------------------------------------ */

struct rs_peer_side *rs_peer_open(enum rs_peer_kind kind, enum rs_cipher cipher, unsigned bits, bool encrypt,
                                  const uint8_t *raw, size_t raw_len)
{
    struct rs_peer_side *p = calloc(1, sizeof(*p));
    if (p == NULL) return NULL;
    p->kind = kind;
    p->cipher = cipher;
    p->bits = bits;
    p->encrypt = encrypt;
    int ok = kind == RS_PEER_OPENSSL    ? open_openssl(p, raw)
             : kind == RS_PEER_IPSEC_MB ? open_ipsec_mb(p, raw)
                                        : open_engine(p, raw, raw_len);
    if (ok) return p;
    rs_peer_close(p);
    return NULL;
}

void rs_peer_close(struct rs_peer_side *p)
{
    if (p == NULL) return;
    EVP_CIPHER_CTX_free(p->evp);
    if (p->kind == RS_PEER_ENGINE && p->engine != NULL && p->key != NULL)
        p->engine->wipe(p->key, p->cipher, p->bits);
    if (p->key != NULL) rs_wipe(p->key, p->key_len);
    free(p->key);
    close_ipsec_mb(p);
    free(p);
}

int rs_peer_run(struct rs_peer_side *p, struct rs_side *side, uint8_t *out, const uint8_t *in, size_t len,
                void *scratch, unsigned flags)
{
    if (p->kind == RS_PEER_IPSEC_MB) return run_ipsec_mb(p, side, out, in, len);
    if (p->kind == RS_PEER_ENGINE) return run_engine(p, side, out, in, len, scratch, flags);
    return p->cipher == RS_XTS ? run_openssl_xts(p, side, out, in, len)
                               : run_openssl_gcm(p, side, out, in, len);
}
