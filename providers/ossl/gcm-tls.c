/* SPDX-License-Identifier: Apache-2.0 */
/* The records of TLS 1.2 (RFC 5288): an IV of a fixed part and an explicit one, which goes with the record.
 */
#include "providers/ossl/gcm.h"

#define AAD      ((size_t)EVP_AEAD_TLS1_AAD_LEN)
#define FIXED    ((size_t)EVP_GCM_TLS_FIXED_IV_LEN)
#define EXPLICIT ((size_t)EVP_GCM_TLS_EXPLICIT_IV_LEN)

size_t rs_gcm_tls_aad(struct rs_ossl_gcm *ctx, const uint8_t *aad, size_t len)
{
    if (aad == NULL || len != AAD) return 0;
    memcpy(ctx->tag, aad, AAD);
    ctx->tls_record = true;
    /* The last two bytes are the length of what comes; what is authenticated is the length of the text. */
    size_t around = ctx->encrypting ? EXPLICIT : EXPLICIT + RS_GCM_TAG;
    size_t text = (size_t)aad[AAD - 2] << 8 | aad[AAD - 1];
    if (text < around) return 0;
    text -= around;
    ctx->tag[AAD - 2] = (uint8_t)(text >> 8);
    ctx->tag[AAD - 1] = (uint8_t)text;
    return RS_GCM_TAG;
}

int rs_gcm_tls_fixed(struct rs_ossl_gcm *ctx, const uint8_t *iv, size_t len)
{
    if (iv == NULL) return 0;
    if (len == SIZE_MAX) {
        memcpy(ctx->iv, iv, ctx->iv_len);
    } else {
        if (len < FIXED || ctx->iv_len < EXPLICIT || len > ctx->iv_len - EXPLICIT) return 0;
        memcpy(ctx->iv, iv, len);
        if (ctx->encrypting && !rs_ossl_random(ctx->provider, ctx->iv + len, ctx->iv_len - len)) return 0;
    }
    ctx->tls_iv = true;
    ctx->iv_state = RS_GCM_IV_READY;
    return 1;
}

/* Its last eight bytes are a counter. */
static void count_up(uint8_t *iv_end)
{
    uint64_t count;
    memcpy(&count, iv_end - 8, 8);
    rs_store_be64(iv_end - 8, __builtin_bswap64(count) + 1);
}

int rs_gcm_tls_next_iv(struct rs_ossl_gcm *ctx, uint8_t *out, size_t len)
{
    if (!ctx->tls_iv || !ctx->key_set || ctx->iv_len < EXPLICIT) return 0;
    rs_gcm_start(ctx);
    if (len == 0 || len > ctx->iv_len) len = ctx->iv_len;
    memcpy(out, ctx->iv + ctx->iv_len - len, len);
    count_up(ctx->iv + ctx->iv_len);
    return 1;
}

int rs_gcm_tls_received_iv(struct rs_ossl_gcm *ctx, const uint8_t *iv, size_t len)
{
    if (!ctx->tls_iv || !ctx->key_set || ctx->encrypting || len > ctx->iv_len) return 0;
    memcpy(ctx->iv + ctx->iv_len - len, iv, len);
    rs_gcm_start(ctx);
    return 1;
}

static int seal(struct rs_ossl_gcm *ctx, uint8_t *record, size_t text_len)
{
    if (++ctx->tls_sealed == 0) return RS_OSSL_FAIL(TOO_MANY_RECORDS);
    uint8_t *text = record + EXPLICIT;
    if (!rs_gcm_tls_next_iv(ctx, record, EXPLICIT) || !rs_gcm_aad(ctx, ctx->tag, AAD) ||
        !rs_gcm_text(ctx, text, text, text_len))
        return 0;
    ctx->tag_len = RS_GCM_TAG;
    return rs_gcm_end(ctx, text + text_len, RS_GCM_TAG);
}

static int unseal(struct rs_ossl_gcm *ctx, uint8_t *record, size_t text_len)
{
    uint8_t *text = record + EXPLICIT;
    if (!rs_gcm_tls_received_iv(ctx, record, EXPLICIT)) return 0;
    ctx->tag_len = RS_GCM_TAG;
    if (rs_gcm_aad(ctx, ctx->tag, AAD) && rs_gcm_text(ctx, text, text, text_len) &&
        rs_gcm_end(ctx, text + text_len, RS_GCM_TAG))
        return 1;
    rs_wipe(text, text_len);
    return 0;
}

int rs_gcm_tls_record(struct rs_ossl_gcm *ctx, uint8_t *out, size_t *outl, const uint8_t *in, size_t len)
{
    int done = 0;
    *outl = 0;
    if (ctx->key_set && out != NULL && in == out && len >= EXPLICIT + RS_GCM_TAG) {
        size_t text_len = len - EXPLICIT - RS_GCM_TAG;
        done = ctx->encrypting ? seal(ctx, out, text_len) : unseal(ctx, out, text_len);
        if (done) *outl = ctx->encrypting ? len : text_len;
    }
    ctx->iv_state = RS_GCM_IV_USED;
    ctx->tls_record = false;
    return done;
}
