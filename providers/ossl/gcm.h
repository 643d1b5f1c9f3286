/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_OSSL_GCM_H
#define RS_OSSL_GCM_H

/* A GCM context: gcm.c seals and opens, gcm-params.c has the parameters, gcm-tls.c the records of TLS 1.2. */

#include "providers/crypto/vaes/stream.h"
#include "providers/ossl/cipher.h"

#define RS_GCM_TAG      16u
#define RS_GCM_IV       12u  /* unless set otherwise, and the shortest that is drawn at random */
#define RS_GCM_IV_MAX   128u /* bytes, as in OpenSSL */
#define RS_GCM_AAD_MAX  (UINT64_C(1) << 61) /* bytes (SP 800-38D: 2^64 - 1 bits, in whole bytes) */
#define RS_GCM_TEXT_MAX ((UINT64_C(1) << 36) - 32)

enum rs_gcm_iv {
    RS_GCM_IV_NONE,    /* encrypting draws one */
    RS_GCM_IV_READY,   /* in `iv`; the message begins with the next call */
    RS_GCM_IV_STARTED, /* a message is under way */
    RS_GCM_IV_USED     /* the message is over: no call succeeds until there is another IV */
};

struct rs_ossl_gcm {
    struct rs_vaes_key key;
    struct rs_gcm_stream stream;
    const struct rs_stream *kernels;
    const struct rs_ossl *provider; /* which outlives its contexts */
    enum rs_gcm_iv iv_state;
    bool encrypting, key_set;
    bool tls_record;         /* `tag` holds the AAD of a TLS 1.2 record, and the next call is that record */
    bool tls_iv;             /* a fixed part was set, so that IVs may be counted */
    uint8_t tag[RS_GCM_TAG]; /* made or to be verified; or a record's AAD */
    size_t tag_len;          /* 0: none was made or set yet */
    size_t iv_len, key_len;
    size_t tls_pad;      /* what a record grows by; answered only */
    uint64_t tls_sealed; /* records under this key */
    uint8_t iv[RS_GCM_IV_MAX];
};

/* gcm.c */

/* Begins the message with ctx->iv. */
static inline void rs_gcm_start(struct rs_ossl_gcm *ctx)
{
    ctx->kernels->gcm_start(&ctx->key, &ctx->stream, ctx->iv, ctx->iv_len);
    ctx->iv_state = RS_GCM_IV_STARTED;
}

/* AAD or text of the message under way: 1, or 0 (a limit, or AAD after text). */
int rs_gcm_aad(struct rs_ossl_gcm *ctx, const uint8_t *aad, size_t len);
int rs_gcm_text(struct rs_ossl_gcm *ctx, const uint8_t *in, uint8_t *out, size_t len);

/* Ends the message. Encrypting: the tag, RS_GCM_TAG bytes, is in `tag`. Decrypting: 1 when it is `tag`,
 * tag_len bytes. */
int rs_gcm_end(struct rs_ossl_gcm *ctx, uint8_t tag[RS_GCM_TAG], size_t tag_len);

/* gcm-tls.c: what the TLS 1.2 parameters do; 1 or 0. */

/* The AAD of the next record, 13 bytes. 16, what sealing it adds at the end; 0 when it is none. */
size_t rs_gcm_tls_aad(struct rs_ossl_gcm *ctx, const uint8_t *aad, size_t len);
/* The fixed part, 4 bytes or more, of the IV; len SIZE_MAX: the whole of it. */
int rs_gcm_tls_fixed(struct rs_ossl_gcm *ctx, const uint8_t *iv, size_t len);
/* The last len bytes of the IV (0: all) of the next message to `out`; then counts it up. */
int rs_gcm_tls_next_iv(struct rs_ossl_gcm *ctx, uint8_t *out, size_t len);
/* The explicit part, len bytes, of a received IV. */
int rs_gcm_tls_received_iv(struct rs_ossl_gcm *ctx, const uint8_t *iv, size_t len);
/* A whole record in place: explicit IV, text, tag. *outl: bytes of the record, or of its text. */
int rs_gcm_tls_record(struct rs_ossl_gcm *ctx, uint8_t *out, size_t *outl, const uint8_t *in, size_t len);

/* gcm-params.c */
OSSL_FUNC_cipher_get_ctx_params_fn rs_gcm_get_ctx_params;
OSSL_FUNC_cipher_set_ctx_params_fn rs_gcm_set_ctx_params;
OSSL_FUNC_cipher_gettable_ctx_params_fn rs_gcm_gettable_ctx_params;
OSSL_FUNC_cipher_settable_ctx_params_fn rs_gcm_settable_ctx_params;

#endif
