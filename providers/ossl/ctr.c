/* SPDX-License-Identifier: Apache-2.0 */
/* AES-CTR. */
#include "providers/crypto/vaes/stream.h"
#include "providers/ossl/cipher.h"

#define IV 16u

struct ctr {
    struct rs_vaes_key key;
    struct rs_ctr_stream stream;
    const struct rs_stream *kernels;
    size_t key_len;
    uint8_t iv[IV]; /* as it was set; stream.counter is the updated one */
    bool encrypting, key_set, padding;
    /* What every stream cipher of OpenSSL takes for TLS: a MAC of this length is cut off what was decrypted.
     */
    unsigned tls_version;
    size_t tls_mac_len;
    const uint8_t *tls_mac;
};

static void *new_ctx(const struct rs_ossl *p, size_t bits)
{
    struct ctr *ctx = rs_ossl_alloc(sizeof(*ctx));
    if (ctx == NULL) return NULL;
    ctx->kernels = p->kernels;
    ctx->key_len = bits / 8;
    ctx->padding = true;
    return ctx;
}

static void free_ctx(void *vctx)
{
    rs_ossl_free(vctx, sizeof(struct ctr));
}

static void *dup_ctx(void *vctx)
{
    struct ctr *copy = rs_ossl_alloc(sizeof(*copy));
    if (copy == NULL) return ERR_raise(ERR_LIB_PROV, ERR_R_MALLOC_FAILURE), NULL;
    memcpy(copy, vctx, sizeof(*copy));
    return copy;
}

static int take_uint(const OSSL_PARAM params[], const char *key, unsigned *value)
{
    const OSSL_PARAM *p = rs_ossl_find(params, key);
    return p == NULL || OSSL_PARAM_get_uint(p, value) ? 1 : RS_OSSL_FAIL(FAILED_TO_GET_PARAMETER);
}

static int set_ctx_params(void *vctx, const OSSL_PARAM params[])
{
    struct ctr *ctx = vctx;
    if (params == NULL) return 1;
    unsigned padding = ctx->padding, use_bits = 0, num = 0;
    if (!take_uint(params, OSSL_CIPHER_PARAM_PADDING, &padding)) return 0;
    ctx->padding = padding != 0;
    if (!take_uint(params, OSSL_CIPHER_PARAM_USE_BITS, &use_bits) || /* means nothing in this mode */
        !take_uint(params, OSSL_CIPHER_PARAM_TLS_VERSION, &ctx->tls_version))
        return 0;
    const OSSL_PARAM *p = rs_ossl_find(params, OSSL_CIPHER_PARAM_TLS_MAC_SIZE);
    if (p != NULL && !OSSL_PARAM_get_size_t(p, &ctx->tls_mac_len))
        return RS_OSSL_FAIL(FAILED_TO_GET_PARAMETER);
    if (rs_ossl_find(params, OSSL_CIPHER_PARAM_NUM) == NULL) return 1;
    if (!take_uint(params, OSSL_CIPHER_PARAM_NUM, &num)) return 0;
    /* Less than the block size, which is 1: there is no key stream to be in the middle of. */
    if (num != 0) return RS_OSSL_FAIL(FAILED_TO_GET_PARAMETER);
    ctx->stream.used = 0;
    return 1;
}

static int init(void *vctx, const uint8_t *key, size_t key_len, const uint8_t *iv, size_t iv_len,
                const OSSL_PARAM params[], bool encrypting)
{
    struct ctr *ctx = vctx;
    ctx->stream.used = 0;
    ctx->encrypting = encrypting;
    if (iv != NULL) {
        if (iv_len != IV) return RS_OSSL_FAIL(INVALID_IV_LENGTH);
        memcpy(ctx->stream.counter, iv, IV);
        memcpy(ctx->iv, iv, IV);
    }
    if (key != NULL) {
        if (key_len != ctx->key_len) return RS_OSSL_FAIL(INVALID_KEY_LENGTH);
        rs_stream_prepare(&ctx->key, RS_STREAM_CTR, key, (unsigned)key_len * 8);
        ctx->key_set = true;
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

static int cut_tls_mac(struct ctr *ctx, const uint8_t *out, size_t *outl)
{
    if (ctx->tls_mac_len == 0) return 1;
    if (*outl < ctx->tls_mac_len) return 0;
    *outl -= ctx->tls_mac_len;
    ctx->tls_mac = out + *outl;
    return 1;
}

static int update(void *vctx, uint8_t *out, size_t *outl, size_t outsize, const uint8_t *in, size_t inl)
{
    struct ctr *ctx = vctx;
    if (!ctx->key_set) return RS_OSSL_FAIL(NO_KEY_SET);
    *outl = inl;
    if (inl == 0) return 1;
    if (outsize < inl) return RS_OSSL_FAIL(OUTPUT_BUFFER_TOO_SMALL);
    if (out == NULL || in == NULL || inl > PTRDIFF_MAX) return RS_OSSL_FAIL(CIPHER_OPERATION_FAILED);
    ctx->kernels->ctr(&ctx->key, &ctx->stream, rs_ossl_apart(out, in, inl), out, inl);
    return RS_UNLIKELY(ctx->tls_version > 0 && !ctx->encrypting) ? cut_tls_mac(ctx, out, outl) : 1;
}

static int final(void *vctx, RS_UNUSED uint8_t *out, size_t *outl, RS_UNUSED size_t outsize)
{
    if (!((struct ctr *)vctx)->key_set) return RS_OSSL_FAIL(NO_KEY_SET);
    *outl = 0;
    return 1;
}

static int cipher(void *vctx, uint8_t *out, size_t *outl, size_t outsize, const uint8_t *in, size_t inl)
{
    struct ctr *ctx = vctx;
    if (!ctx->key_set) return RS_OSSL_FAIL(NO_KEY_SET);
    if (outsize < inl) return RS_OSSL_FAIL(OUTPUT_BUFFER_TOO_SMALL);
    *outl = inl;
    if (inl == 0) return 1;
    if (out == NULL || in == NULL || inl > PTRDIFF_MAX) return RS_OSSL_FAIL(CIPHER_OPERATION_FAILED);
    ctx->kernels->ctr(&ctx->key, &ctx->stream, rs_ossl_apart(out, in, inl), out, inl);
    return 1;
}

static int get_ctx_params(void *vctx, OSSL_PARAM params[])
{
    const struct ctr *ctx = vctx;
    return rs_ossl_get_view(params, &(const struct rs_ossl_view){.key_len = ctx->key_len,
                                                                 .iv_len = IV,
                                                                 .padding = ctx->padding,
                                                                 .num = ctx->stream.used,
                                                                 .iv = ctx->iv,
                                                                 .updated_iv = ctx->stream.counter,
                                                                 .tls_mac = ctx->tls_mac,
                                                                 .tls_mac_len = ctx->tls_mac_len});
}

static const OSSL_PARAM *settable_ctx_params(RS_UNUSED void *ctx, RS_UNUSED void *provctx)
{
    static const OSSL_PARAM list[] = {OSSL_PARAM_uint(OSSL_CIPHER_PARAM_PADDING, NULL),
                                      OSSL_PARAM_uint(OSSL_CIPHER_PARAM_NUM, NULL),
                                      OSSL_PARAM_uint(OSSL_CIPHER_PARAM_USE_BITS, NULL),
                                      OSSL_PARAM_uint(OSSL_CIPHER_PARAM_TLS_VERSION, NULL),
                                      OSSL_PARAM_size_t(OSSL_CIPHER_PARAM_TLS_MAC_SIZE, NULL),
                                      OSSL_PARAM_END};
    return list;
}

#define CTR(bits)                                                                                            \
    RS_OSSL_CIPHER(rs_ossl_aes##bits##ctr, bits, (EVP_CIPH_CTR_MODE, false, false, bits / 8, IV),            \
                   get_ctx_params, set_ctx_params, rs_ossl_gettable_view, settable_ctx_params)

CTR(128);
CTR(192);
CTR(256);
