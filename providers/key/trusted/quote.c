/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/key/trusted/quote.h"

#include "reseal/reseal.h"

#include <openssl/core_names.h>
#include <openssl/ecdsa.h>
#include <openssl/err.h>
#include <openssl/param_build.h>
#include <openssl/sha.h>
#include <openssl/x509.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <tss2/tss2_mu.h>

#define COORDINATE 32u /* bytes of a P-256 coordinate */

__attribute__((format(printf, 3, 4))) static int refuse(int status, char why[RS_TRUST_WHY],
                                                        const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)vsnprintf(why, RS_TRUST_WHY, format, args);
    va_end(args);
    return status;
}

/* The whole blob, and nothing after it. */
static bool read_public(const struct rs_tpm_blob *blob, TPM2B_PUBLIC *out)
{
    size_t at = 0;
    memset(out, 0, sizeof(*out));
    return blob->len <= RS_TPM_BLOB_MAX &&
           Tss2_MU_TPM2B_PUBLIC_Unmarshal(blob->bytes, blob->len, &at, out) == TSS2_RC_SUCCESS &&
           at == blob->len;
}

/* ---- attestation keys ---------------------------------------------------------------- */

static bool is_p256_signer(const TPMT_PUBLIC *p)
{
    const TPMS_ECC_PARMS *e = &p->parameters.eccDetail;
    return p->type == TPM2_ALG_ECC && p->nameAlg == TPM2_ALG_SHA256 && e->curveID == TPM2_ECC_NIST_P256 &&
           e->scheme.scheme == TPM2_ALG_ECDSA && e->scheme.details.ecdsa.hashAlg == TPM2_ALG_SHA256 &&
           p->unique.ecc.x.size <= COORDINATE && p->unique.ecc.y.size <= COORDINATE;
}

/* The name of a public area: its hash as the TPM computes it. */
static bool name_of(const TPMT_PUBLIC *p, uint8_t name[RS_TPM_NAME_LEN])
{
    uint8_t bytes[sizeof(*p)];
    size_t len = 0;
    if (Tss2_MU_TPMT_PUBLIC_Marshal(p, bytes, sizeof(bytes), &len) != TSS2_RC_SUCCESS) return false;
    name[0] = TPM2_ALG_SHA256 >> 8;
    name[1] = TPM2_ALG_SHA256 & 0xff;
    SHA256(bytes, len, name + 2);
    return true;
}

int rs_ak_check(const struct rs_tpm_blob *pub, uint8_t name[RS_TPM_NAME_LEN], char why[RS_TRUST_WHY])
{
    const TPMA_OBJECT must = TPMA_OBJECT_RESTRICTED | TPMA_OBJECT_SIGN_ENCRYPT | TPMA_OBJECT_FIXEDTPM |
                             TPMA_OBJECT_FIXEDPARENT | TPMA_OBJECT_SENSITIVEDATAORIGIN;
    TPM2B_PUBLIC p;
    if (!read_public(pub, &p))
        return refuse(RESEAL_EFORMAT, why, "the attestation key is no TPM public area");
    if ((p.publicArea.objectAttributes & must) != must ||
        (p.publicArea.objectAttributes & TPMA_OBJECT_DECRYPT) != 0)
        return refuse(
            RESEAL_EAUTH, why,
            "the attestation key is not one that was made in a TPM, stays there and signs only what "
            "the TPM says");
    if (!is_p256_signer(&p.publicArea))
        return refuse(RESEAL_EAUTH, why, "the attestation key is not of P-256 with ECDSA and SHA-256");
    return name_of(&p.publicArea, name) ? 0 : RESEAL_EFORMAT;
}

static EVP_PKEY *key_from(const char *type, OSSL_PARAM_BLD *bld)
{
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
    OSSL_PARAM *params = OSSL_PARAM_BLD_to_param(bld);
    EVP_PKEY *key = NULL;
    if (ctx == NULL || params == NULL || EVP_PKEY_fromdata_init(ctx) != 1 ||
        EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_PUBLIC_KEY, params) != 1)
        key = NULL;
    OSSL_PARAM_free(params);
    EVP_PKEY_CTX_free(ctx);
    return key;
}

static EVP_PKEY *ecc_key(const TPMT_PUBLIC *p)
{
    uint8_t point[1 + 2 * COORDINATE] = {4};
    const TPM2B_ECC_PARAMETER *x = &p->unique.ecc.x, *y = &p->unique.ecc.y;
    memcpy(point + 1 + COORDINATE - x->size, x->buffer, x->size);
    memcpy(point + 1 + 2 * COORDINATE - y->size, y->buffer, y->size);
    OSSL_PARAM_BLD *bld = OSSL_PARAM_BLD_new();
    EVP_PKEY *key = NULL;
    if (bld != NULL && OSSL_PARAM_BLD_push_utf8_string(bld, OSSL_PKEY_PARAM_GROUP_NAME, "P-256", 0) == 1 &&
        OSSL_PARAM_BLD_push_octet_string(bld, OSSL_PKEY_PARAM_PUB_KEY, point, sizeof(point)) == 1)
        key = key_from("EC", bld);
    OSSL_PARAM_BLD_free(bld);
    return key;
}

uint32_t rs_pcr_mask(const char *list)
{
    uint32_t mask = 0;
    for (const char *p = list;; p++) {
        char *end;
        unsigned long n = *p >= '0' && *p <= '9' ? strtoul(p, &end, 10) : RS_PCRS;
        if (n >= RS_PCRS) return 0;
        mask |= 1u << n;
        if (*end == '\0') return mask;
        if (*end != ',') return 0;
        p = end;
    }
}

/* ---- quotes -------------------------------------------------------------------------- */

void rs_quote_qualify(const uint8_t nonce[32], const uint8_t spki[32], uint8_t out[32])
{
    uint8_t both[64];
    memcpy(both, nonce, 32);
    memcpy(both + 32, spki, 32);
    SHA256(both, sizeof(both), out);
}

/* ECDSA over SHA-256 of the quote; the TPM's two numbers as OpenSSL wants them. */
static bool signed_by(const struct rs_quote *q, EVP_PKEY *key)
{
    TPMT_SIGNATURE s;
    size_t at = 0;
    memset(&s, 0, sizeof(s));
    if (q->signature.len > RS_TPM_BLOB_MAX ||
        Tss2_MU_TPMT_SIGNATURE_Unmarshal(q->signature.bytes, q->signature.len, &at, &s) != TSS2_RC_SUCCESS ||
        at != q->signature.len || s.sigAlg != TPM2_ALG_ECDSA || s.signature.ecdsa.hash != TPM2_ALG_SHA256)
        return false;
    const TPM2B_ECC_PARAMETER *r = &s.signature.ecdsa.signatureR, *t = &s.signature.ecdsa.signatureS;
    ECDSA_SIG *sig = ECDSA_SIG_new();
    BIGNUM *a = BN_bin2bn(r->buffer, r->size, NULL), *b = BN_bin2bn(t->buffer, t->size, NULL);
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    unsigned char *der = NULL;
    bool ok = false;
    if (sig == NULL || a == NULL || b == NULL || ECDSA_SIG_set0(sig, a, b) != 1) {
        BN_free(a);
        BN_free(b);
    } else {
        int len = i2d_ECDSA_SIG(sig, &der);
        ok = len > 0 && md != NULL && EVP_DigestVerifyInit(md, NULL, EVP_sha256(), NULL, key) == 1 &&
             EVP_DigestVerify(md, der, (size_t)len, q->attest.bytes, q->attest.len) == 1;
    }
    OPENSSL_free(der);
    EVP_MD_CTX_free(md);
    ECDSA_SIG_free(sig);
    ERR_clear_error();
    return ok;
}

/* One selection, of the SHA-256 bank: its PCRs. */
static bool selection(const TPML_PCR_SELECTION *s, uint32_t *mask)
{
    *mask = 0;
    if (s->count != 1 || s->pcrSelections[0].hash != TPM2_ALG_SHA256 ||
        s->pcrSelections[0].sizeofSelect > TPM2_PCR_SELECT_MAX)
        return false;
    for (unsigned i = 0; i < s->pcrSelections[0].sizeofSelect; i++)
        *mask |= (uint32_t)s->pcrSelections[0].pcrSelect[i] << (8 * i);
    return true;
}

static void digest_of(const struct rs_pcrs *pcrs, uint8_t out[32])
{
    uint8_t all[RS_PCRS * RS_PCR_LEN];
    size_t len = 0;
    for (unsigned i = 0; i < RS_PCRS; i++) {
        if ((pcrs->mask & 1u << i) == 0) continue;
        memcpy(all + len, pcrs->value[i], RS_PCR_LEN);
        len += RS_PCR_LEN;
    }
    SHA256(all, len, out);
}

static int check_contents(const TPMS_ATTEST *a, const struct rs_pcrs *pcrs, const uint8_t want[32],
                          uint32_t mask, uint8_t digest[32], char why[RS_TRUST_WHY])
{
    uint32_t quoted;
    if (a->magic != TPM2_GENERATED_VALUE || a->type != TPM2_ST_ATTEST_QUOTE)
        return refuse(RESEAL_EAUTH, why, "what was signed is not a quote that a TPM made");
    if (a->extraData.size != 32 || !rs_equal_ct(a->extraData.buffer, want, 32))
        return refuse(
            RESEAL_EAUTH, why,
            "the quote is not for this nonce and this TLS key: it is an old one, or another host's");
    if (!selection(&a->attested.quote.pcrSelect, &quoted) || quoted != mask || pcrs->mask != mask)
        return refuse(RESEAL_EAUTH, why,
                      "the quote is not over the PCRs of the policy: quoted mask %06x, wanted %06x", quoted,
                      mask);
    digest_of(pcrs, digest);
    const TPM2B_DIGEST *d = &a->attested.quote.pcrDigest;
    if (d->size != 32 || !rs_equal_ct(d->buffer, digest, 32))
        return refuse(RESEAL_EAUTH, why, "the PCR values are not those that were quoted");
    return 0;
}

bool rs_quote_signed(const struct rs_quote *q, const struct rs_tpm_blob *ak)
{
    TPM2B_PUBLIC p;
    if (!read_public(ak, &p) || !is_p256_signer(&p.publicArea)) return false;
    EVP_PKEY *key = ecc_key(&p.publicArea);
    bool ok = key != NULL && q->attest.len <= RS_TPM_BLOB_MAX && signed_by(q, key);
    EVP_PKEY_free(key);
    return ok;
}

int rs_quote_verify(const struct rs_quote *q, const struct rs_tpm_blob *ak, const uint8_t nonce[32],
                    const uint8_t spki[32], uint32_t mask, struct rs_tpm_clock *clock, uint8_t digest[32],
                    char why[RS_TRUST_WHY])
{
    uint8_t name[RS_TPM_NAME_LEN], want[32];
    TPMS_ATTEST a;
    size_t at = 0;
    int err = rs_ak_check(ak, name, why);
    if (err != 0) return err;
    if (!rs_quote_signed(q, ak))
        return refuse(RESEAL_EAUTH, why, "the quote is not signed by the enrolled attestation key");
    memset(&a, 0, sizeof(a));
    if (Tss2_MU_TPMS_ATTEST_Unmarshal(q->attest.bytes, q->attest.len, &at, &a) != TSS2_RC_SUCCESS ||
        at != q->attest.len)
        return refuse(RESEAL_EFORMAT, why, "the quote cannot be read");
    rs_quote_qualify(nonce, spki, want);
    err = check_contents(&a, &q->pcrs, want, mask, digest, why);
    if (err != 0) return err;
    *clock = (struct rs_tpm_clock){.ms = a.clockInfo.clock,
                                   .resets = a.clockInfo.resetCount,
                                   .restarts = a.clockInfo.restartCount,
                                   .safe = a.clockInfo.safe == TPM2_YES};
    return 0;
}

int rs_tpm_clock_check(const struct rs_tpm_clock *last, const struct rs_tpm_clock *now,
                       char why[RS_TRUST_WHY])
{
    bool back = now->resets < last->resets || (now->resets == last->resets && now->restarts < last->restarts);
    if (now->resets == last->resets && now->restarts == last->restarts && now->safe && now->ms < last->ms)
        back = true;
    if (!back) return 0;
    return refuse(
        RESEAL_EAUTH, why,
        "the TPM's counters went back (resets %u, then %u): it was cleared, restored or exchanged; where "
        "that is right, remove the host's record from the attestation service",
        last->resets, now->resets);
}

/* ---- endorsement keys ---------------------------------------------------------------- */

static EVP_PKEY *rsa_key(const TPMT_PUBLIC *p)
{
    uint32_t e = p->parameters.rsaDetail.exponent == 0 ? 65537 : p->parameters.rsaDetail.exponent;
    OSSL_PARAM_BLD *bld = OSSL_PARAM_BLD_new();
    BIGNUM *n = BN_bin2bn(p->unique.rsa.buffer, p->unique.rsa.size, NULL);
    EVP_PKEY *key = NULL;
    if (bld != NULL && n != NULL && OSSL_PARAM_BLD_push_BN(bld, OSSL_PKEY_PARAM_RSA_N, n) == 1 &&
        OSSL_PARAM_BLD_push_uint32(bld, OSSL_PKEY_PARAM_RSA_E, e) == 1)
        key = key_from("RSA", bld);
    OSSL_PARAM_BLD_free(bld);
    BN_free(n);
    return key;
}

int rs_ek_key(const struct rs_tpm_blob *pub, EVP_PKEY **key, uint8_t id[32])
{
    TPM2B_PUBLIC p;
    unsigned char *der = NULL;
    *key = NULL;
    if (!read_public(pub, &p)) return RESEAL_EFORMAT;
    if (p.publicArea.type != TPM2_ALG_RSA || p.publicArea.nameAlg != TPM2_ALG_SHA256 ||
        p.publicArea.unique.rsa.size < 256)
        return RESEAL_ENOSUPPORT;
    EVP_PKEY *k = rsa_key(&p.publicArea);
    int len = k == NULL ? 0 : i2d_PUBKEY(k, &der);
    if (len > 0) SHA256(der, (size_t)len, id);
    OPENSSL_free(der);
    ERR_clear_error();
    if (len > 0)
        *key = k;
    else
        EVP_PKEY_free(k);
    return len > 0 ? 0 : RESEAL_EFORMAT;
}
