/* SPDX-License-Identifier: Apache-2.0 */
/* AES-GCM: contexts, and messages in pieces. */
#include "providers/ossl/gcm.h"

static void *new_ctx(const struct rs_ossl *p, size_t bits)
{
    struct rs_ossl_gcm *ctx = rs_ossl_alloc(sizeof(*ctx));
    if (ctx == NULL) return NULL;
    ctx->kernels = p->kernels;
    ctx->provider = p;
    ctx->key_len = bits / 8;
    ctx->iv_len = RS_GCM_IV;
    return ctx;
}

static void free_ctx(void *vctx)
{
    rs_ossl_free(vctx, sizeof(struct rs_ossl_gcm));
}

static void *dup_ctx(void *vctx)
{
    if (vctx == NULL) return NULL;
    struct rs_ossl_gcm *copy = rs_ossl_alloc(sizeof(*copy));
    if (copy != NULL) memcpy(copy, vctx, sizeof(*copy));
    return copy;
}

static int set_iv(struct rs_ossl_gcm *ctx, const uint8_t *iv, size_t len)
{
    if (len == 0 || len > sizeof(ctx->iv)) return RS_OSSL_FAIL(INVALID_IV_LENGTH);
    memcpy(ctx->iv, iv, len);
    ctx->iv_len = len;
    ctx->iv_state = RS_GCM_IV_READY;
    return 1;
}

static int set_key(struct rs_ossl_gcm *ctx, const uint8_t *key, size_t len)
{
    if (len != ctx->key_len) return RS_OSSL_FAIL(INVALID_KEY_LENGTH);
    rs_stream_prepare(&ctx->key, RS_STREAM_GCM, key, (unsigned)len * 8);
    ctx->key_set = true;
    ctx->tls_sealed = 0;
    /* A message does not go on under another key, nor does its IV serve again: it may be the same key. */
    if (ctx->iv_state == RS_GCM_IV_STARTED) ctx->iv_state = RS_GCM_IV_USED;
    return 1;
}

static int init(void *vctx, const uint8_t *key, size_t key_len, const uint8_t *iv, size_t iv_len,
                const OSSL_PARAM params[], bool encrypting)
{
    struct rs_ossl_gcm *ctx = vctx;
    ctx->encrypting = encrypting;
    if (iv != NULL && !set_iv(ctx, iv, iv_len)) return 0;
    if (key != NULL && !set_key(ctx, key, key_len)) return 0;
    return params == NULL ? 1 : rs_gcm_set_ctx_params(ctx, params);
}

static int encrypt_init(void *vctx, const uint8_t *key, size_t key_len, const uint8_t *iv, size_t iv_len,
                        const OSSL_PARAM params[])
{
    return init(vctx, key, key_len, iv, iv_len, params, true);
}

static int decrypt_init(void *vctx, const uint8_t *key, size_t key_len, const uint8_t *iv, size_t iv_len,
                        const OSSL_PARAM params[])
{
    return init(vctx, key, key_len, iv, iv_len, params, false);
}

int rs_gcm_aad(struct rs_ossl_gcm *ctx, const uint8_t *aad, size_t len)
{
    if (ctx->stream.len != 0 || len > RS_GCM_AAD_MAX - ctx->stream.aad_len) return 0;
    if (len != 0) ctx->kernels->gcm_aad(&ctx->key, &ctx->stream, aad, len);
    return 1;
}

int rs_gcm_text(struct rs_ossl_gcm *ctx, const uint8_t *in, uint8_t *out, size_t len)
{
    if (RS_UNLIKELY(len > RS_GCM_TEXT_MAX - ctx->stream.len)) return 0;
    if (RS_UNLIKELY(len == 0)) return 1;
    in = rs_ossl_apart(out, in, len);
    if (ctx->encrypting)
        ctx->kernels->gcm_encrypt(&ctx->key, &ctx->stream, in, out, len);
    else
        ctx->kernels->gcm_decrypt(&ctx->key, &ctx->stream, in, out, len);
    return 1;
}

/* In the same time wherever the first difference lies; whole tags, the usual ones, at once. */
static bool tag_equal(const uint8_t *a, const uint8_t *b, size_t len)
{
    if (len != RS_GCM_TAG) return rs_equal_ct(a, b, len);
    return ((rs_load_le64(a) ^ rs_load_le64(b)) | (rs_load_le64(a + 8) ^ rs_load_le64(b + 8))) == 0;
}

int rs_gcm_end(struct rs_ossl_gcm *ctx, uint8_t tag[RS_GCM_TAG], size_t tag_len)
{
    ctx->iv_state = RS_GCM_IV_USED;
    if (ctx->encrypting) {
        ctx->kernels->gcm_tag(&ctx->key, &ctx->stream, tag);
        return 1;
    }
    uint8_t right[RS_GCM_TAG];
    ctx->kernels->gcm_tag(&ctx->key, &ctx->stream, right);
    bool same = tag_equal(right, tag, tag_len);
    rs_wipe(right, sizeof(right)); /* what a forger would like to know */
    return same;
}

static int random_iv(struct rs_ossl_gcm *ctx)
{
    if (ctx->iv_len < RS_GCM_IV || !rs_ossl_random(ctx->provider, ctx->iv, ctx->iv_len)) return 0;
    ctx->iv_state = RS_GCM_IV_READY;
    return 1;
}

/* Begins the message if it has not begun. */
static inline int begin(struct rs_ossl_gcm *ctx)
{
    if (RS_LIKELY(ctx->iv_state == RS_GCM_IV_STARTED)) return 1;
    if (!ctx->key_set || ctx->iv_state == RS_GCM_IV_USED) return 0;
    if (ctx->iv_state == RS_GCM_IV_NONE && !(ctx->encrypting && random_iv(ctx))) return 0;
    rs_gcm_start(ctx);
    return 1;
}

static int end(struct rs_ossl_gcm *ctx)
{
    if (ctx->encrypting)
        ctx->tag_len = RS_GCM_TAG;
    else if (ctx->tag_len == 0)
        return 0;
    return rs_gcm_end(ctx, ctx->tag, ctx->tag_len);
}

/* No `in`: the end. No `out`: AAD. Else text, or a record when its AAD came before. */
static inline int run(struct rs_ossl_gcm *ctx, uint8_t *out, size_t *outl, const uint8_t *in, size_t len)
{
    if (RS_UNLIKELY(ctx->tls_record)) return rs_gcm_tls_record(ctx, out, outl, in, len);
    *outl = 0;
    if (!begin(ctx)) return 0;
    if (in == NULL) return end(ctx);
    if (!(out == NULL ? rs_gcm_aad(ctx, in, len) : rs_gcm_text(ctx, in, out, len))) return 0;
    *outl = len;
    return 1;
}

static int update(void *vctx, uint8_t *out, size_t *outl, size_t outsize, const uint8_t *in, size_t inl)
{
    if (inl == 0) {
        *outl = 0;
        return 1;
    }
    if (outsize < inl) return RS_OSSL_FAIL(OUTPUT_BUFFER_TOO_SMALL);
    return run(vctx, out, outl, in, inl) ? 1 : RS_OSSL_FAIL(CIPHER_OPERATION_FAILED);
}

static int final(void *vctx, uint8_t *out, size_t *outl, RS_UNUSED size_t outsize)
{
    int done = run(vctx, out, outl, NULL, 0);
    *outl = 0;
    return done;
}

static int cipher(void *vctx, uint8_t *out, size_t *outl, size_t outsize, const uint8_t *in, size_t inl)
{
    if (outsize < inl) return RS_OSSL_FAIL(OUTPUT_BUFFER_TOO_SMALL);
    if (!run(vctx, out, outl, in, inl)) return 0;
    *outl = inl;
    return 1;
}

#define GCM(bits)                                                                                            \
    RS_OSSL_CIPHER(rs_ossl_aes##bits##gcm, bits, (EVP_CIPH_GCM_MODE, true, true, bits / 8, RS_GCM_IV),       \
                   rs_gcm_get_ctx_params, rs_gcm_set_ctx_params, rs_gcm_gettable_ctx_params,                 \
                   rs_gcm_settable_ctx_params)

GCM(128);
GCM(192);
GCM(256);
