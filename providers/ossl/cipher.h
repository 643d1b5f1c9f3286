/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_OSSL_CIPHER_H
#define RS_OSSL_CIPHER_H

/*
 * What our GCM, CTR and XTS share towards provider-cipher(7): constant
 * parameters, lists of parameters, how one is found, how an error is raised.
 */

#include "providers/ossl/ossl.h"

#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/proverr.h>

#define RS_LIKELY(x)   __builtin_expect(!!(x), 1)
#define RS_UNLIKELY(x) __builtin_expect(!!(x), 0)

/* Raises PROV_R_<reason> with the place of the caller; is 0, what a failed function returns. */
#define RS_OSSL_FAIL(reason) (ERR_raise(ERR_LIB_PROV, PROV_R_##reason), 0)

/* One algorithm as EVP_CIPHER_get_... tells it; lengths in bytes. */
struct rs_ossl_kind {
    unsigned mode; /* EVP_CIPH_..._MODE */
    bool aead, custom_iv;
    size_t key_len, iv_len;
};

int rs_ossl_get_params(OSSL_PARAM params[], const struct rs_ossl_kind *kind);
OSSL_FUNC_cipher_gettable_params_fn rs_ossl_gettable_params;

/* What a context of CTR or XTS tells. */
struct rs_ossl_view {
    size_t key_len, iv_len;
    unsigned padding, num;
    const uint8_t *iv, *updated_iv;
    const uint8_t *tls_mac;
    size_t tls_mac_len;
};

int rs_ossl_get_view(OSSL_PARAM params[], const struct rs_ossl_view *view);
OSSL_FUNC_cipher_gettable_ctx_params_fn rs_ossl_gettable_view;

/* As strcmp() == 0. Most names differ early, and a call for each would be most of what a short message costs.
 */
static inline bool rs_ossl_same(const char *a, const char *b)
{
    for (; *a == *b; a++, b++)
        if (*a == '\0') return true;
    return false;
}

/* The parameter `key`, or NULL; `params` may be NULL. The first of two counts. */
static inline const OSSL_PARAM *rs_ossl_find(const OSSL_PARAM params[], const char *key)
{
    if (params == NULL) return NULL;
    for (const OSSL_PARAM *p = params; p->key != NULL; p++)
        if (rs_ossl_same(p->key, key)) return p;
    return NULL;
}

/*
 * What the kernels shall read for `in`: equal to `out`, or apart from it. Some
 * programs shift a text within one buffer while it is encrypted, which works
 * with OpenSSL's own code as long as it goes forwards.
 */
static inline const uint8_t *rs_ossl_apart(uint8_t *out, const uint8_t *in, size_t len)
{
    if (RS_LIKELY(in == out || !rs_overlap(in, len, out, len))) return in;
    memmove(out, in, len);
    return out;
}

static inline OSSL_PARAM *rs_ossl_locate(OSSL_PARAM params[], const char *key)
{
    return (OSSL_PARAM *)rs_ossl_find(params, key);
}

/* Answers `key` when it is asked for; 1, or 0 with an error raised. */
static inline int rs_ossl_give_size(OSSL_PARAM params[], const char *key, size_t value)
{
    OSSL_PARAM *p = rs_ossl_locate(params, key);
    return p == NULL || OSSL_PARAM_set_size_t(p, value) ? 1 : RS_OSSL_FAIL(FAILED_TO_SET_PARAMETER);
}

/*
 * Defines the functions of one algorithm, as `symbol`, out of the including file's own: new_ctx(), update()
 * and so on. `kind` is what a struct rs_ossl_kind begins with, in brackets.
 */
#define RS_OSSL_CIPHER(symbol, bits, kind, get, set, gettable, settable)                                     \
    static int get_params_##bits(OSSL_PARAM params[])                                                        \
    {                                                                                                        \
        return rs_ossl_get_params(params, &(const struct rs_ossl_kind)RS_OSSL_KIND kind);                    \
    }                                                                                                        \
    static void *new_ctx_##bits(void *provctx)                                                               \
    {                                                                                                        \
        return new_ctx(provctx, bits);                                                                       \
    }                                                                                                        \
    const OSSL_DISPATCH symbol[] = {                                                                         \
        {OSSL_FUNC_CIPHER_NEWCTX, (void (*)(void))new_ctx_##bits},                                           \
        {OSSL_FUNC_CIPHER_FREECTX, (void (*)(void))free_ctx},                                                \
        {OSSL_FUNC_CIPHER_DUPCTX, (void (*)(void))dup_ctx},                                                  \
        {OSSL_FUNC_CIPHER_ENCRYPT_INIT, (void (*)(void))encrypt_init},                                       \
        {OSSL_FUNC_CIPHER_DECRYPT_INIT, (void (*)(void))decrypt_init},                                       \
        {OSSL_FUNC_CIPHER_UPDATE, (void (*)(void))update},                                                   \
        {OSSL_FUNC_CIPHER_FINAL, (void (*)(void)) final},                                                    \
        {OSSL_FUNC_CIPHER_CIPHER, (void (*)(void))cipher},                                                   \
        {OSSL_FUNC_CIPHER_GET_PARAMS, (void (*)(void))get_params_##bits},                                    \
        {OSSL_FUNC_CIPHER_GETTABLE_PARAMS, (void (*)(void))rs_ossl_gettable_params},                         \
        {OSSL_FUNC_CIPHER_GET_CTX_PARAMS, (void (*)(void))get},                                              \
        {OSSL_FUNC_CIPHER_SET_CTX_PARAMS, (void (*)(void))set},                                              \
        {OSSL_FUNC_CIPHER_GETTABLE_CTX_PARAMS, (void (*)(void))gettable},                                    \
        {OSSL_FUNC_CIPHER_SETTABLE_CTX_PARAMS, (void (*)(void))settable},                                    \
        {0, NULL}}
#define RS_OSSL_KIND(...)                                                                                    \
    {                                                                                                        \
        __VA_ARGS__                                                                                          \
    }

#endif
