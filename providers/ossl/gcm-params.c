/* SPDX-License-Identifier: Apache-2.0 */
/* The parameters of a GCM context. */
#include "providers/ossl/gcm.h"

const OSSL_PARAM *rs_gcm_gettable_ctx_params(RS_UNUSED void *ctx, RS_UNUSED void *provctx)
{
    static const OSSL_PARAM list[] = {
        OSSL_PARAM_size_t(OSSL_CIPHER_PARAM_KEYLEN, NULL),
        OSSL_PARAM_size_t(OSSL_CIPHER_PARAM_IVLEN, NULL),
        OSSL_PARAM_size_t(OSSL_CIPHER_PARAM_AEAD_TAGLEN, NULL),
        OSSL_PARAM_octet_string(OSSL_CIPHER_PARAM_IV, NULL, 0),
        OSSL_PARAM_octet_string(OSSL_CIPHER_PARAM_UPDATED_IV, NULL, 0),
        OSSL_PARAM_octet_string(OSSL_CIPHER_PARAM_AEAD_TAG, NULL, 0),
        OSSL_PARAM_size_t(OSSL_CIPHER_PARAM_AEAD_TLS1_AAD_PAD, NULL),
        OSSL_PARAM_octet_string(OSSL_CIPHER_PARAM_AEAD_TLS1_GET_IV_GEN, NULL, 0),
        OSSL_PARAM_END};
    return list;
}

static int give_iv(struct rs_ossl_gcm *ctx, OSSL_PARAM params[], const char *key)
{
    OSSL_PARAM *p = rs_ossl_locate(params, key);
    if (p == NULL) return 1;
    if (ctx->iv_state == RS_GCM_IV_NONE) return 0;
    if (ctx->iv_len > p->data_size) return RS_OSSL_FAIL(INVALID_IV_LENGTH);
    return OSSL_PARAM_set_octet_string(p, ctx->iv, ctx->iv_len) ||
                   OSSL_PARAM_set_octet_ptr(p, ctx->iv, ctx->iv_len)
               ? 1
               : RS_OSSL_FAIL(FAILED_TO_SET_PARAMETER);
}

static int give_tag(struct rs_ossl_gcm *ctx, OSSL_PARAM params[])
{
    OSSL_PARAM *p = rs_ossl_locate(params, OSSL_CIPHER_PARAM_AEAD_TAG);
    if (p == NULL) return 1;
    if (p->data_size == 0 || p->data_size > RS_GCM_TAG || !ctx->encrypting || ctx->tag_len == 0)
        return RS_OSSL_FAIL(INVALID_TAG);
    return OSSL_PARAM_set_octet_string(p, ctx->tag, p->data_size) ? 1 : RS_OSSL_FAIL(FAILED_TO_SET_PARAMETER);
}

static int give_tls_iv(struct rs_ossl_gcm *ctx, OSSL_PARAM params[])
{
    OSSL_PARAM *p = rs_ossl_locate(params, OSSL_CIPHER_PARAM_AEAD_TLS1_GET_IV_GEN);
    if (p == NULL) return 1;
    return p->data != NULL && p->data_type == OSSL_PARAM_OCTET_STRING &&
           rs_gcm_tls_next_iv(ctx, p->data, p->data_size);
}

int rs_gcm_get_ctx_params(void *vctx, OSSL_PARAM params[])
{
    struct rs_ossl_gcm *ctx = vctx;
    return rs_ossl_give_size(params, OSSL_CIPHER_PARAM_IVLEN, ctx->iv_len) &&
           rs_ossl_give_size(params, OSSL_CIPHER_PARAM_KEYLEN, ctx->key_len) &&
           rs_ossl_give_size(params, OSSL_CIPHER_PARAM_AEAD_TAGLEN,
                             ctx->tag_len == 0 ? RS_GCM_TAG : ctx->tag_len) &&
           give_iv(ctx, params, OSSL_CIPHER_PARAM_IV) && give_iv(ctx, params, OSSL_CIPHER_PARAM_UPDATED_IV) &&
           rs_ossl_give_size(params, OSSL_CIPHER_PARAM_AEAD_TLS1_AAD_PAD, ctx->tls_pad) &&
           give_tag(ctx, params) && give_tls_iv(ctx, params);
}

const OSSL_PARAM *rs_gcm_settable_ctx_params(RS_UNUSED void *ctx, RS_UNUSED void *provctx)
{
    static const OSSL_PARAM list[] = {
        OSSL_PARAM_size_t(OSSL_CIPHER_PARAM_AEAD_IVLEN, NULL),
        OSSL_PARAM_octet_string(OSSL_CIPHER_PARAM_AEAD_TAG, NULL, 0),
        OSSL_PARAM_octet_string(OSSL_CIPHER_PARAM_AEAD_TLS1_AAD, NULL, 0),
        OSSL_PARAM_octet_string(OSSL_CIPHER_PARAM_AEAD_TLS1_IV_FIXED, NULL, 0),
        OSSL_PARAM_octet_string(OSSL_CIPHER_PARAM_AEAD_TLS1_SET_IV_INV, NULL, 0),
        OSSL_PARAM_END};
    return list;
}

static int take_tag(struct rs_ossl_gcm *ctx, const OSSL_PARAM params[])
{
    const OSSL_PARAM *p = rs_ossl_find(params, OSSL_CIPHER_PARAM_AEAD_TAG);
    if (p == NULL) return 1;
    void *tag = ctx->tag;
    size_t len;
    if (!OSSL_PARAM_get_octet_string(p, &tag, sizeof(ctx->tag), &len))
        return RS_OSSL_FAIL(FAILED_TO_GET_PARAMETER);
    if (len == 0 || ctx->encrypting) return RS_OSSL_FAIL(INVALID_TAG);
    ctx->tag_len = len;
    return 1;
}

static int take_iv_len(struct rs_ossl_gcm *ctx, const OSSL_PARAM params[])
{
    const OSSL_PARAM *p = rs_ossl_find(params, OSSL_CIPHER_PARAM_AEAD_IVLEN);
    if (p == NULL) return 1;
    size_t len;
    if (!OSSL_PARAM_get_size_t(p, &len)) return RS_OSSL_FAIL(FAILED_TO_GET_PARAMETER);
    if (len == 0 || len > sizeof(ctx->iv)) return RS_OSSL_FAIL(INVALID_IV_LENGTH);
    /* An IV of another length is none. */
    if (len != ctx->iv_len && ctx->iv_state != RS_GCM_IV_NONE) ctx->iv_state = RS_GCM_IV_USED;
    ctx->iv_len = len;
    return 1;
}

static int take_tls_aad(struct rs_ossl_gcm *ctx, const OSSL_PARAM params[])
{
    const OSSL_PARAM *p = rs_ossl_find(params, OSSL_CIPHER_PARAM_AEAD_TLS1_AAD);
    if (p == NULL) return 1;
    if (p->data_type != OSSL_PARAM_OCTET_STRING) return RS_OSSL_FAIL(FAILED_TO_GET_PARAMETER);
    size_t pad = rs_gcm_tls_aad(ctx, p->data, p->data_size);
    if (pad == 0) return RS_OSSL_FAIL(INVALID_AAD);
    ctx->tls_pad = pad;
    return 1;
}

static int take_tls_iv(struct rs_ossl_gcm *ctx, const OSSL_PARAM params[])
{
    const OSSL_PARAM *p = rs_ossl_find(params, OSSL_CIPHER_PARAM_AEAD_TLS1_IV_FIXED);
    if (p != NULL &&
        (p->data_type != OSSL_PARAM_OCTET_STRING || !rs_gcm_tls_fixed(ctx, p->data, p->data_size)))
        return RS_OSSL_FAIL(FAILED_TO_GET_PARAMETER);
    p = rs_ossl_find(params, OSSL_CIPHER_PARAM_AEAD_TLS1_SET_IV_INV);
    return p == NULL || (p->data != NULL && p->data_type == OSSL_PARAM_OCTET_STRING &&
                         rs_gcm_tls_received_iv(ctx, p->data, p->data_size));
}

int rs_gcm_set_ctx_params(void *vctx, const OSSL_PARAM params[])
{
    if (params == NULL) return 1;
    return take_tag(vctx, params) && take_iv_len(vctx, params) && take_tls_aad(vctx, params) &&
           take_tls_iv(vctx, params);
}
