/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/ossl/cipher.h"

static int give_int(OSSL_PARAM params[], const char *key, int value)
{
    OSSL_PARAM *p = rs_ossl_locate(params, key);
    return p == NULL || OSSL_PARAM_set_int(p, value) ? 1 : RS_OSSL_FAIL(FAILED_TO_SET_PARAMETER);
}

static int give_uint(OSSL_PARAM params[], const char *key, unsigned value)
{
    OSSL_PARAM *p = rs_ossl_locate(params, key);
    return p == NULL || OSSL_PARAM_set_uint(p, value) ? 1 : RS_OSSL_FAIL(FAILED_TO_SET_PARAMETER);
}

/* An IV is asked for as bytes to copy, or as a pointer into the context. */
static int give_iv(OSSL_PARAM params[], const char *key, const uint8_t *iv, size_t len)
{
    OSSL_PARAM *p = rs_ossl_locate(params, key);
    return p == NULL || OSSL_PARAM_set_octet_ptr(p, iv, len) || OSSL_PARAM_set_octet_string(p, iv, len)
               ? 1
               : RS_OSSL_FAIL(FAILED_TO_SET_PARAMETER);
}

const OSSL_PARAM *rs_ossl_gettable_params(RS_UNUSED void *provctx)
{
    static const OSSL_PARAM list[] = {OSSL_PARAM_uint(OSSL_CIPHER_PARAM_MODE, NULL),
                                      OSSL_PARAM_size_t(OSSL_CIPHER_PARAM_KEYLEN, NULL),
                                      OSSL_PARAM_size_t(OSSL_CIPHER_PARAM_IVLEN, NULL),
                                      OSSL_PARAM_size_t(OSSL_CIPHER_PARAM_BLOCK_SIZE, NULL),
                                      OSSL_PARAM_int(OSSL_CIPHER_PARAM_AEAD, NULL),
                                      OSSL_PARAM_int(OSSL_CIPHER_PARAM_CUSTOM_IV, NULL),
                                      OSSL_PARAM_int(OSSL_CIPHER_PARAM_CTS, NULL),
                                      OSSL_PARAM_int(OSSL_CIPHER_PARAM_TLS1_MULTIBLOCK, NULL),
                                      OSSL_PARAM_int(OSSL_CIPHER_PARAM_HAS_RAND_KEY, NULL),
                                      OSSL_PARAM_END};
    return list;
}

int rs_ossl_get_params(OSSL_PARAM params[], const struct rs_ossl_kind *kind)
{
    return give_uint(params, OSSL_CIPHER_PARAM_MODE, kind->mode) &&
           give_int(params, OSSL_CIPHER_PARAM_AEAD, kind->aead) &&
           give_int(params, OSSL_CIPHER_PARAM_CUSTOM_IV, kind->custom_iv) &&
           give_int(params, OSSL_CIPHER_PARAM_CTS, 0) &&
           give_int(params, OSSL_CIPHER_PARAM_TLS1_MULTIBLOCK, 0) &&
           give_int(params, OSSL_CIPHER_PARAM_HAS_RAND_KEY, 0) &&
           rs_ossl_give_size(params, OSSL_CIPHER_PARAM_KEYLEN, kind->key_len) &&
           rs_ossl_give_size(params, OSSL_CIPHER_PARAM_BLOCK_SIZE, 1) && /* all are stream ciphers to EVP */
           rs_ossl_give_size(params, OSSL_CIPHER_PARAM_IVLEN, kind->iv_len);
}

const OSSL_PARAM *rs_ossl_gettable_view(RS_UNUSED void *ctx, RS_UNUSED void *provctx)
{
    static const OSSL_PARAM list[] = {
        OSSL_PARAM_size_t(OSSL_CIPHER_PARAM_KEYLEN, NULL),
        OSSL_PARAM_size_t(OSSL_CIPHER_PARAM_IVLEN, NULL),
        OSSL_PARAM_uint(OSSL_CIPHER_PARAM_PADDING, NULL),
        OSSL_PARAM_uint(OSSL_CIPHER_PARAM_NUM, NULL),
        OSSL_PARAM_octet_string(OSSL_CIPHER_PARAM_IV, NULL, 0),
        OSSL_PARAM_octet_string(OSSL_CIPHER_PARAM_UPDATED_IV, NULL, 0),
        OSSL_PARAM_DEFN(OSSL_CIPHER_PARAM_TLS_MAC, OSSL_PARAM_OCTET_PTR, NULL, 0),
        OSSL_PARAM_END};
    return list;
}

int rs_ossl_get_view(OSSL_PARAM params[], const struct rs_ossl_view *view)
{
    if (!rs_ossl_give_size(params, OSSL_CIPHER_PARAM_IVLEN, view->iv_len) ||
        !give_uint(params, OSSL_CIPHER_PARAM_PADDING, view->padding) ||
        !give_iv(params, OSSL_CIPHER_PARAM_IV, view->iv, view->iv_len) ||
        !give_iv(params, OSSL_CIPHER_PARAM_UPDATED_IV, view->updated_iv, view->iv_len) ||
        !give_uint(params, OSSL_CIPHER_PARAM_NUM, view->num) ||
        !rs_ossl_give_size(params, OSSL_CIPHER_PARAM_KEYLEN, view->key_len))
        return 0;
    OSSL_PARAM *p = rs_ossl_locate(params, OSSL_CIPHER_PARAM_TLS_MAC);
    if (p != NULL && !OSSL_PARAM_set_octet_ptr(p, view->tls_mac, view->tls_mac_len))
        return RS_OSSL_FAIL(FAILED_TO_SET_PARAMETER);
    return 1;
}
