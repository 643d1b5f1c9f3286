/* SPDX-License-Identifier: Apache-2.0 */
/* AES-XTS: each update is one data unit, under the tweak that was set last. */
#include "providers/crypto/vaes/stream.h"
#include "providers/ossl/cipher.h"

#define BLOCK    16u
#define UNIT_MAX ((size_t)BLOCK << 20) /* IEEE 1619-2018, SP 800-38E: 2^20 blocks */

struct xts {
    struct rs_vaes_key key;
    const struct rs_stream *kernels;
    size_t key_len; /* both halves */
    uint8_t tweak[BLOCK];
    bool encrypting; /* as the key was set for: a direction without a key changes nothing, as in OpenSSL */
    bool key_set, tweak_set;
};

static void *new_ctx(const struct rs_ossl *p, size_t bits)
{
    struct xts *ctx = rs_ossl_alloc(sizeof(*ctx));
    if (ctx == NULL) return NULL;
    ctx->kernels = p->kernels;
    ctx->key_len = 2 * bits / 8;
    return ctx;
}

static void free_ctx(void *vctx)
{
    rs_ossl_free(vctx, sizeof(struct xts));
}

static void *dup_ctx(void *vctx)
{
    struct xts *copy = rs_ossl_alloc(sizeof(*copy));
    if (copy == NULL) return ERR_raise(ERR_LIB_PROV, ERR_R_MALLOC_FAILURE), NULL;
    memcpy(copy, vctx, sizeof(*copy));
    return copy;
}

static int set_ctx_params(void *vctx, const OSSL_PARAM params[])
{
    const OSSL_PARAM *p = rs_ossl_find(params, OSSL_CIPHER_PARAM_KEYLEN);
    size_t len;
    if (p == NULL) return 1;
    if (!OSSL_PARAM_get_size_t(p, &len)) return RS_OSSL_FAIL(FAILED_TO_GET_PARAMETER);
    return len == ((struct xts *)vctx)->key_len; /* it is what it is */
}

static int set_key(struct xts *ctx, const uint8_t *key, size_t len)
{
    if (len != ctx->key_len) return RS_OSSL_FAIL(INVALID_KEY_LENGTH);
    /* Equal halves undo what the tweak is for; refused also where it is only to be decrypted. */
    if (rs_equal_ct(key, key + len / 2, len / 2)) return RS_OSSL_FAIL(XTS_DUPLICATED_KEYS);
    rs_stream_prepare(&ctx->key, RS_STREAM_XTS, key, (unsigned)len * 8 / 2);
    ctx->key_set = true;
    return 1;
}

static int init(void *vctx, const uint8_t *key, size_t key_len, const uint8_t *iv, size_t iv_len,
                const OSSL_PARAM params[], bool encrypting)
{
    struct xts *ctx = vctx;
    if (iv != NULL) {
        if (iv_len != BLOCK) return RS_OSSL_FAIL(INVALID_IV_LENGTH);
        memcpy(ctx->tweak, iv, BLOCK);
        ctx->tweak_set = true;
    }
    if (key != NULL) {
        if (!set_key(ctx, key, key_len)) return 0;
        ctx->encrypting = encrypting;
    }
    return params == NULL ? 1 : set_ctx_params(ctx, params);
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

static int cipher(void *vctx, uint8_t *out, size_t *outl, size_t outsize, const uint8_t *in, size_t inl)
{
    struct xts *ctx = vctx;
    if (!ctx->key_set || !ctx->tweak_set || out == NULL || in == NULL || inl < BLOCK) return 0;
    if (inl > UNIT_MAX) return RS_OSSL_FAIL(XTS_DATA_UNIT_IS_TOO_LARGE);
    if (outsize < inl) return RS_OSSL_FAIL(OUTPUT_BUFFER_TOO_SMALL);
    in = rs_ossl_apart(out, in, inl);
    if (ctx->encrypting)
        ctx->kernels->xts_encrypt(&ctx->key, ctx->tweak, in, out, inl);
    else
        ctx->kernels->xts_decrypt(&ctx->key, ctx->tweak, in, out, inl);
    *outl = inl;
    return 1;
}

static int update(void *vctx, uint8_t *out, size_t *outl, size_t outsize, const uint8_t *in, size_t inl)
{
    if (outsize < inl) return RS_OSSL_FAIL(OUTPUT_BUFFER_TOO_SMALL);
    return cipher(vctx, out, outl, outsize, in, inl) ? 1 : RS_OSSL_FAIL(CIPHER_OPERATION_FAILED);
}

static int final(RS_UNUSED void *vctx, RS_UNUSED uint8_t *out, size_t *outl, RS_UNUSED size_t outsize)
{
    *outl = 0;
    return 1;
}

static int get_ctx_params(void *vctx, OSSL_PARAM params[])
{
    const struct xts *ctx = vctx;
    return rs_ossl_get_view(params, &(const struct rs_ossl_view){.key_len = ctx->key_len,
                                                                 .iv_len = BLOCK,
                                                                 .padding = 1,
                                                                 .iv = ctx->tweak,
                                                                 .updated_iv = ctx->tweak});
}

static const OSSL_PARAM *settable_ctx_params(RS_UNUSED void *ctx, RS_UNUSED void *provctx)
{
    static const OSSL_PARAM list[] = {OSSL_PARAM_size_t(OSSL_CIPHER_PARAM_KEYLEN, NULL), OSSL_PARAM_END};
    return list;
}

#define XTS(bits)                                                                                            \
    RS_OSSL_CIPHER(rs_ossl_aes##bits##xts, bits, (EVP_CIPH_XTS_MODE, false, true, 2 * bits / 8, BLOCK),      \
                   get_ctx_params, set_ctx_params, rs_ossl_gettable_view, settable_ctx_params)

XTS(128);
XTS(256);
