/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/key/trusted/tpm.h"

#include "reseal/reseal.h"

#include <stdio.h>
#include <stdlib.h>
#include <tss2/tss2_esys.h>
#include <tss2/tss2_mu.h>
#include <tss2/tss2_rc.h>
#include <tss2/tss2_tcti_device.h>
#include <tss2/tss2_tcti_swtpm.h>

#define EK_HANDLE 0x81010001u /* TCG: the RSA endorsement key, where it was made persistent */
#define EK_CERT   0x01c00002u /* TCG: its certificate */
#define NV_CHUNK  512u

struct rs_tpm {
    TSS2_TCTI_CONTEXT *tcti;
    ESYS_CONTEXT *esys;
};

/* ---- errors -------------------------------------------------------------------------- */

static int told(TSS2_RC rc, char why[RS_TRUST_WHY], const char *what)
{
    if (rc == TSS2_RC_SUCCESS) return 0;
    (void)snprintf(why, RS_TRUST_WHY, "the TPM: %s: %s", what, Tss2_RC_Decode(rc));
    /* What the transport says of itself: nobody is there. */
    if ((rc & TSS2_RC_LAYER_MASK) == TSS2_TCTI_RC_LAYER ||
        ((rc & TSS2_RC_LAYER_MASK) != 0 && (rc & 0xffffu) == TSS2_BASE_RC_IO_ERROR))
        return RESEAL_ENOSERVICE;
    return (rc & TSS2_RC_LAYER_MASK) == TSS2_TPM_RC_LAYER ? RESEAL_EAUTH : RESEAL_EIO;
}

/* ---- opening ------------------------------------------------------------------------- */

static TSS2_RC open_tcti(TSS2_TCTI_INIT_FUNC init, const char *conf, TSS2_TCTI_CONTEXT **out)
{
    size_t size;
    TSS2_RC rc = init(NULL, &size, conf);
    if (rc != TSS2_RC_SUCCESS) return rc;
    TSS2_TCTI_CONTEXT *tcti = calloc(1, size);
    if (tcti == NULL) return TSS2_TCTI_RC_MEMORY;
    rc = init(tcti, &size, conf);
    if (rc == TSS2_RC_SUCCESS)
        *out = tcti;
    else
        free(tcti);
    return rc;
}

/* The transports are linked in, not searched for: a sandboxed process can load none. */
static TSS2_TCTI_INIT_FUNC transport(const char *where, const char **conf)
{
    static const struct {
        const char *name;
        TSS2_TCTI_INIT_FUNC init;
    } all[] = {{"device:", Tss2_Tcti_Device_Init}, {"swtpm:", Tss2_Tcti_Swtpm_Init}};
    for (unsigned i = 0; i < RS_ARRAY_LEN(all); i++)
        if (strncmp(where, all[i].name, strlen(all[i].name)) == 0) {
            *conf = where + strlen(all[i].name);
            return all[i].init;
        }
    return NULL;
}

int rs_tpm_open(struct rs_tpm **out, const char *where, char why[RS_TRUST_WHY])
{
    const char *conf = NULL;
    TSS2_TCTI_INIT_FUNC init = transport(where, &conf);
    *out = NULL;
    if (init == NULL) {
        (void)snprintf(why, RS_TRUST_WHY, "'%.80s' is no TPM: say device:PATH or swtpm:path=SOCKET", where);
        return RESEAL_EINVAL;
    }
    /* The library prints what it thinks of errors; ours go up as one line. */
    (void)setenv("TSS2_LOG", "all+NONE", 0);
    struct rs_tpm *t = calloc(1, sizeof(*t));
    if (t == NULL) return RESEAL_ENOMEM;
    TSS2_RC rc = open_tcti(init, conf, &t->tcti);
    if (rc == TSS2_RC_SUCCESS) rc = Esys_Initialize(&t->esys, t->tcti, NULL);
    if (rc != TSS2_RC_SUCCESS) {
        (void)snprintf(why, RS_TRUST_WHY, "no TPM answers at %.100s: %s", where, Tss2_RC_Decode(rc));
        rs_tpm_close(t);
        return RESEAL_ENOSERVICE;
    }
    *out = t;
    return 0;
}

void rs_tpm_close(struct rs_tpm *t)
{
    if (t == NULL) return;
    Esys_Finalize(&t->esys);
    if (t->tcti != NULL) Tss2_Tcti_Finalize(t->tcti);
    free(t->tcti);
    free(t);
}

static void flush(struct rs_tpm *t, ESYS_TR *handle)
{
    if (*handle != ESYS_TR_NONE) (void)Esys_FlushContext(t->esys, *handle);
    *handle = ESYS_TR_NONE;
}

/* ---- blobs --------------------------------------------------------------------------- */

static bool from_key(const struct rs_tpm_key *key, TPM2B_PUBLIC *pub, TPM2B_PRIVATE *priv)
{
    size_t a = 0, b = 0;
    memset(pub, 0, sizeof(*pub));
    memset(priv, 0, sizeof(*priv));
    return Tss2_MU_TPM2B_PUBLIC_Unmarshal(key->pub.bytes, key->pub.len, &a, pub) == TSS2_RC_SUCCESS &&
           Tss2_MU_TPM2B_PRIVATE_Unmarshal(key->priv.bytes, key->priv.len, &b, priv) == TSS2_RC_SUCCESS;
}

static bool to_public(const TPM2B_PUBLIC *pub, struct rs_tpm_blob *out)
{
    size_t n = 0;
    if (Tss2_MU_TPM2B_PUBLIC_Marshal(pub, out->bytes, RS_TPM_BLOB_MAX, &n) != TSS2_RC_SUCCESS) return false;
    out->len = (uint16_t)n;
    return true;
}

static bool to_key(const TPM2B_PUBLIC *pub, const TPM2B_PRIVATE *priv, struct rs_tpm_key *key)
{
    size_t n = 0;
    if (!to_public(pub, &key->pub) ||
        Tss2_MU_TPM2B_PRIVATE_Marshal(priv, key->priv.bytes, RS_TPM_BLOB_MAX, &n) != TSS2_RC_SUCCESS)
        return false;
    key->priv.len = (uint16_t)n;
    return true;
}

/* ---- endorsement key ----------------------------------------------------------------- */

static const TPM2B_PUBLIC ek_template = {
    .publicArea = {
        .type = TPM2_ALG_RSA,
        .nameAlg = TPM2_ALG_SHA256,
        .objectAttributes = TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_FIXEDPARENT | TPMA_OBJECT_SENSITIVEDATAORIGIN |
                            TPMA_OBJECT_ADMINWITHPOLICY | TPMA_OBJECT_RESTRICTED | TPMA_OBJECT_DECRYPT,
        /* PolicySecret(endorsement hierarchy): the TCG's default template L-1. */
        .authPolicy = {.size = 32,
                       .buffer = {0x83, 0x71, 0x97, 0x67, 0x44, 0x84, 0xb3, 0xf8, 0x1a, 0x90, 0xcc,
                                  0x8d, 0x46, 0xa5, 0xd7, 0x24, 0xfd, 0x52, 0xd7, 0x6e, 0x06, 0x52,
                                  0x0b, 0x64, 0xf2, 0xa1, 0xda, 0x1b, 0x33, 0x14, 0x69, 0xaa}},
        .parameters.rsaDetail = {.symmetric = {.algorithm = TPM2_ALG_AES,
                                               .keyBits.aes = 128,
                                               .mode.aes = TPM2_ALG_CFB},
                                 .scheme = {.scheme = TPM2_ALG_NULL},
                                 .keyBits = 2048},
        .unique.rsa = {.size = 256},
    }};

static const TPM2B_SENSITIVE_CREATE no_sensitive;
static const TPM2B_DATA no_data;
static const TPML_PCR_SELECTION no_pcrs;

static TSS2_RC make_primary(struct rs_tpm *t, ESYS_TR hierarchy, const TPM2B_PUBLIC *template, ESYS_TR *out)
{
    *out = ESYS_TR_NONE;
    return Esys_CreatePrimary(t->esys, hierarchy, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE, &no_sensitive,
                              template, &no_data, &no_pcrs, out, NULL, NULL, NULL, NULL);
}

/* The persistent one, or the same made again: the TPM derives it from its seed. */
static TSS2_RC load_ek(struct rs_tpm *t, ESYS_TR *ek, bool *transient)
{
    *ek = ESYS_TR_NONE;
    *transient = false;
    TSS2_RC rc = Esys_TR_FromTPMPublic(t->esys, EK_HANDLE, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, ek);
    if (rc == TSS2_RC_SUCCESS || (rc & TSS2_RC_LAYER_MASK) != TSS2_TPM_RC_LAYER) return rc;
    *transient = true;
    return make_primary(t, ESYS_TR_RH_ENDORSEMENT, &ek_template, ek);
}

static void drop_ek(struct rs_tpm *t, ESYS_TR *ek, bool transient)
{
    if (transient)
        flush(t, ek);
    else if (*ek != ESYS_TR_NONE)
        (void)Esys_TR_Close(t->esys, ek);
}

/* The certificate; none is no error. */
static TSS2_RC read_cert(struct rs_tpm *t, uint8_t *cert, size_t room, size_t *len)
{
    ESYS_TR nv = ESYS_TR_NONE;
    TPM2B_NV_PUBLIC *about = NULL;
    *len = 0;
    TSS2_RC rc = Esys_TR_FromTPMPublic(t->esys, EK_CERT, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &nv);
    if (rc != TSS2_RC_SUCCESS) return (rc & TSS2_RC_LAYER_MASK) == TSS2_TPM_RC_LAYER ? TSS2_RC_SUCCESS : rc;
    rc = Esys_NV_ReadPublic(t->esys, nv, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &about, NULL);
    size_t size = rc == TSS2_RC_SUCCESS ? about->nvPublic.dataSize : 0;
    free(about);
    if (size > room) size = 0;
    for (size_t at = 0; rc == TSS2_RC_SUCCESS && at < size;) {
        TPM2B_MAX_NV_BUFFER *chunk = NULL;
        uint16_t n = (uint16_t)RS_MIN(size - at, NV_CHUNK);
        rc = Esys_NV_Read(t->esys, ESYS_TR_RH_OWNER, nv, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE, n,
                          (uint16_t)at, &chunk);
        if (rc == TSS2_RC_SUCCESS && chunk->size == n) memcpy(cert + at, chunk->buffer, n);
        if (rc == TSS2_RC_SUCCESS && chunk->size != n) rc = TSS2_ESYS_RC_GENERAL_FAILURE;
        free(chunk);
        at += n;
    }
    (void)Esys_TR_Close(t->esys, &nv);
    if (rc == TSS2_RC_SUCCESS) *len = size;
    return rc;
}

int rs_tpm_endorsement(struct rs_tpm *t, struct rs_tpm_blob *pub, uint8_t *cert, size_t room,
                       size_t *cert_len, char why[RS_TRUST_WHY])
{
    ESYS_TR ek;
    bool transient;
    TPM2B_PUBLIC *area = NULL;
    TSS2_RC rc = load_ek(t, &ek, &transient);
    if (rc == TSS2_RC_SUCCESS)
        rc = Esys_ReadPublic(t->esys, ek, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &area, NULL, NULL);
    if (rc == TSS2_RC_SUCCESS && !to_public(area, pub)) rc = TSS2_ESYS_RC_GENERAL_FAILURE;
    free(area);
    drop_ek(t, &ek, transient);
    if (rc == TSS2_RC_SUCCESS) rc = read_cert(t, cert, room, cert_len);
    return told(rc, why, "reading the endorsement key");
}

/* ---- keys under others ------------------------------------------------------------------- */

static TSS2_RC start_session(struct rs_tpm *t, TPM2_SE type, ESYS_TR *session)
{
    const TPMT_SYM_DEF none = {.algorithm = TPM2_ALG_NULL};
    *session = ESYS_TR_NONE;
    return Esys_StartAuthSession(t->esys, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE,
                                 ESYS_TR_NONE, NULL, type, &none, TPM2_ALG_SHA256, session);
}

/* What the endorsement key wants of whoever uses it: the (empty) authorization of its hierarchy. */
static TSS2_RC ek_session(struct rs_tpm *t, ESYS_TR *session)
{
    TSS2_RC rc = start_session(t, TPM2_SE_POLICY, session);
    if (rc != TSS2_RC_SUCCESS) return rc;
    return Esys_PolicySecret(t->esys, ESYS_TR_RH_ENDORSEMENT, *session, ESYS_TR_PASSWORD, ESYS_TR_NONE,
                             ESYS_TR_NONE, NULL, NULL, NULL, 0, NULL, NULL);
}

static const TPM2B_PUBLIC storage_template = {
    .publicArea = {
        .type = TPM2_ALG_ECC,
        .nameAlg = TPM2_ALG_SHA256,
        .objectAttributes = TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_FIXEDPARENT | TPMA_OBJECT_SENSITIVEDATAORIGIN |
                            TPMA_OBJECT_USERWITHAUTH | TPMA_OBJECT_NODA | TPMA_OBJECT_RESTRICTED |
                            TPMA_OBJECT_DECRYPT,
        .parameters.eccDetail = {.symmetric = {.algorithm = TPM2_ALG_AES,
                                               .keyBits.aes = 128,
                                               .mode.aes = TPM2_ALG_CFB},
                                 .scheme = {.scheme = TPM2_ALG_NULL},
                                 .curveID = TPM2_ECC_NIST_P256,
                                 .kdf = {.scheme = TPM2_ALG_NULL}},
        .unique.ecc = {.x = {.size = 32}, .y = {.size = 32}},
    }};

static const TPM2B_PUBLIC ak_template = {
    .publicArea = {
        .type = TPM2_ALG_ECC,
        .nameAlg = TPM2_ALG_SHA256,
        .objectAttributes = TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_FIXEDPARENT | TPMA_OBJECT_SENSITIVEDATAORIGIN |
                            TPMA_OBJECT_USERWITHAUTH | TPMA_OBJECT_RESTRICTED | TPMA_OBJECT_SIGN_ENCRYPT,
        .parameters.eccDetail = {.symmetric = {.algorithm = TPM2_ALG_NULL},
                                 .scheme = {.scheme = TPM2_ALG_ECDSA,
                                            .details.ecdsa.hashAlg = TPM2_ALG_SHA256},
                                 .curveID = TPM2_ECC_NIST_P256,
                                 .kdf = {.scheme = TPM2_ALG_NULL}},
    }};

/* A parent that is loaded, and how it is authorized. */
struct parent {
    ESYS_TR key, session;
    bool transient;
};

static TSS2_RC open_storage(struct rs_tpm *t, struct parent *p)
{
    *p = (struct parent){.session = ESYS_TR_PASSWORD, .transient = true};
    return make_primary(t, ESYS_TR_RH_OWNER, &storage_template, &p->key);
}

/* Attestation keys are under the endorsement key: a TPM shows how often it was reset to keys of that
 * hierarchy, and hides it from those of the owner's. */
static TSS2_RC open_endorsement(struct rs_tpm *t, struct parent *p)
{
    *p = (struct parent){.session = ESYS_TR_NONE};
    TSS2_RC rc = load_ek(t, &p->key, &p->transient);
    return rc == TSS2_RC_SUCCESS ? ek_session(t, &p->session) : rc;
}

static void close_parent(struct rs_tpm *t, struct parent *p)
{
    if (p->session != ESYS_TR_PASSWORD) flush(t, &p->session);
    drop_ek(t, &p->key, p->transient);
}

typedef TSS2_RC open_parent(struct rs_tpm *t, struct parent *p);

static TSS2_RC create_under(struct rs_tpm *t, open_parent *open, const TPM2B_SENSITIVE_CREATE *sensitive,
                            const TPM2B_PUBLIC *template, struct rs_tpm_key *out)
{
    struct parent parent;
    TPM2B_PUBLIC *pub = NULL;
    TPM2B_PRIVATE *priv = NULL;
    TSS2_RC rc = open(t, &parent);
    if (rc == TSS2_RC_SUCCESS)
        rc = Esys_Create(t->esys, parent.key, parent.session, ESYS_TR_NONE, ESYS_TR_NONE, sensitive, template,
                         &no_data, &no_pcrs, &priv, &pub, NULL, NULL, NULL);
    close_parent(t, &parent);
    if (rc == TSS2_RC_SUCCESS && !to_key(pub, priv, out)) rc = TSS2_ESYS_RC_GENERAL_FAILURE;
    free(pub);
    free(priv);
    return rc;
}

static TSS2_RC load_under(struct rs_tpm *t, open_parent *open, const struct rs_tpm_key *key, ESYS_TR *out)
{
    struct parent parent;
    TPM2B_PUBLIC pub;
    TPM2B_PRIVATE priv;
    *out = ESYS_TR_NONE;
    if (!from_key(key, &pub, &priv)) return TSS2_ESYS_RC_BAD_VALUE;
    TSS2_RC rc = open(t, &parent);
    if (rc == TSS2_RC_SUCCESS)
        rc = Esys_Load(t->esys, parent.key, parent.session, ESYS_TR_NONE, ESYS_TR_NONE, &priv, &pub, out);
    close_parent(t, &parent);
    return rc;
}

int rs_tpm_make_ak(struct rs_tpm *t, struct rs_tpm_key *ak, char why[RS_TRUST_WHY])
{
    return told(create_under(t, open_endorsement, &no_sensitive, &ak_template, ak), why,
                "making an attestation key");
}

/* ---- activation ---------------------------------------------------------------------- */

int rs_tpm_activate(struct rs_tpm *t, const struct rs_tpm_key *ak, const struct rs_tpm_blob *blob,
                    const struct rs_tpm_blob *secret, uint8_t credential[32], char why[RS_TRUST_WHY])
{
    ESYS_TR ek = ESYS_TR_NONE, key = ESYS_TR_NONE, session = ESYS_TR_NONE;
    bool transient = false;
    TPM2B_ID_OBJECT id = {.size = 0};
    TPM2B_ENCRYPTED_SECRET seed = {.size = 0};
    TPM2B_DIGEST *out = NULL;
    size_t a = 0, b = 0;
    TSS2_RC rc = Tss2_MU_TPM2B_ID_OBJECT_Unmarshal(blob->bytes, blob->len, &a, &id);
    if (rc == TSS2_RC_SUCCESS)
        rc = Tss2_MU_TPM2B_ENCRYPTED_SECRET_Unmarshal(secret->bytes, secret->len, &b, &seed);
    if (rc == TSS2_RC_SUCCESS) rc = load_under(t, open_endorsement, ak, &key);
    if (rc == TSS2_RC_SUCCESS) rc = load_ek(t, &ek, &transient);
    if (rc == TSS2_RC_SUCCESS) rc = ek_session(t, &session);
    if (rc == TSS2_RC_SUCCESS)
        rc = Esys_ActivateCredential(t->esys, key, ek, ESYS_TR_PASSWORD, session, ESYS_TR_NONE, &id, &seed,
                                     &out);
    if (rc == TSS2_RC_SUCCESS && out->size != 32) rc = TSS2_ESYS_RC_GENERAL_FAILURE;
    if (rc == TSS2_RC_SUCCESS) memcpy(credential, out->buffer, 32);
    if (out != NULL) rs_wipe(out, sizeof(*out));
    free(out);
    flush(t, &session);
    flush(t, &key);
    drop_ek(t, &ek, transient);
    return told(rc, why, "activating the credential");
}

/* ---- PCRs and quotes ----------------------------------------------------------------- */

static TPML_PCR_SELECTION select_pcrs(uint32_t mask)
{
    return (TPML_PCR_SELECTION){
        .count = 1,
        .pcrSelections[0] = {.hash = TPM2_ALG_SHA256,
                             .sizeofSelect = 3,
                             .pcrSelect = {(uint8_t)mask, (uint8_t)(mask >> 8), (uint8_t)(mask >> 16)}}};
}

/* A TPM gives a few at a time. */
static TSS2_RC read_pcrs(struct rs_tpm *t, uint32_t mask, struct rs_pcrs *out)
{
    *out = (struct rs_pcrs){.mask = 0};
    while (out->mask != mask) {
        TPML_PCR_SELECTION want = select_pcrs(mask & ~out->mask), *got = NULL;
        TPML_DIGEST *values = NULL;
        TSS2_RC rc =
            Esys_PCR_Read(t->esys, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &want, NULL, &got, &values);
        unsigned n = 0;
        for (unsigned i = 0; rc == TSS2_RC_SUCCESS && got->count == 1 && i < RS_PCRS; i++) {
            if ((got->pcrSelections[0].pcrSelect[i / 8] >> (i % 8) & 1) == 0) continue;
            /* One that was not asked for would be asked for again, and again. */
            if ((mask & ~out->mask & 1u << i) == 0) rc = TSS2_ESYS_RC_GENERAL_FAILURE;
            if (rc != TSS2_RC_SUCCESS || n >= values->count || values->digests[n].size != RS_PCR_LEN) break;
            memcpy(out->value[i], values->digests[n++].buffer, RS_PCR_LEN);
            out->mask |= 1u << i;
        }
        free(got);
        free(values);
        if (rc != TSS2_RC_SUCCESS) return rc;
        if (n == 0) return TSS2_ESYS_RC_GENERAL_FAILURE; /* no SHA-256 bank, or no such PCR */
    }
    return TSS2_RC_SUCCESS;
}

static TSS2_RC quote(struct rs_tpm *t, ESYS_TR key, const uint8_t qualifying[32], uint32_t mask,
                     struct rs_quote *out)
{
    const TPMT_SIG_SCHEME own = {.scheme = TPM2_ALG_NULL};
    TPML_PCR_SELECTION pcrs = select_pcrs(mask);
    TPM2B_DATA data = {.size = 32};
    TPM2B_ATTEST *attest = NULL;
    TPMT_SIGNATURE *signature = NULL;
    size_t n = 0;
    memcpy(data.buffer, qualifying, 32);
    TSS2_RC rc = Esys_Quote(t->esys, key, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE, &data, &own, &pcrs,
                            &attest, &signature);
    if (rc == TSS2_RC_SUCCESS && attest->size > RS_TPM_BLOB_MAX) rc = TSS2_ESYS_RC_GENERAL_FAILURE;
    if (rc == TSS2_RC_SUCCESS) {
        memcpy(out->attest.bytes, attest->attestationData, attest->size);
        out->attest.len = attest->size;
        rc = Tss2_MU_TPMT_SIGNATURE_Marshal(signature, out->signature.bytes, RS_TPM_BLOB_MAX, &n);
        out->signature.len = (uint16_t)n;
    }
    free(attest);
    free(signature);
    return rc;
}

int rs_tpm_quote(struct rs_tpm *t, const struct rs_tpm_key *ak, const uint8_t qualifying[32], uint32_t mask,
                 struct rs_quote *out, char why[RS_TRUST_WHY])
{
    ESYS_TR key;
    memset(out, 0, sizeof(*out));
    TSS2_RC rc = load_under(t, open_endorsement, ak, &key);
    if (rc == TSS2_RC_SUCCESS) rc = quote(t, key, qualifying, mask, out);
    flush(t, &key);
    if (rc == TSS2_RC_SUCCESS) rc = read_pcrs(t, mask, &out->pcrs);
    return told(rc, why, "quoting its PCRs");
}

/* ---- sealing ------------------------------------------------------------------------- */

/* The policy of the PCRs as they are, in a session of that type. */
static TSS2_RC pcr_policy(struct rs_tpm *t, TPM2_SE type, uint32_t mask, ESYS_TR *session)
{
    TPML_PCR_SELECTION pcrs = select_pcrs(mask);
    TSS2_RC rc = start_session(t, type, session);
    if (rc == TSS2_RC_SUCCESS)
        rc = Esys_PolicyPCR(t->esys, *session, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, NULL, &pcrs);
    return rc;
}

int rs_tpm_seal(struct rs_tpm *t, uint32_t mask, const uint8_t *secret, size_t len, struct rs_tpm_key *sealed,
                char why[RS_TRUST_WHY])
{
    ESYS_TR session;
    TPM2B_DIGEST *policy = NULL;
    TPM2B_SENSITIVE_CREATE sensitive = {.size = 0};
    TPM2B_PUBLIC template = {.publicArea = {.type = TPM2_ALG_KEYEDHASH,
                                            .nameAlg = TPM2_ALG_SHA256,
                                            .objectAttributes = TPMA_OBJECT_FIXEDTPM |
                                                                TPMA_OBJECT_FIXEDPARENT |
                                                                TPMA_OBJECT_ADMINWITHPOLICY,
                                            .parameters.keyedHashDetail.scheme.scheme = TPM2_ALG_NULL}};
    if (len > RS_TPM_SEAL_MAX) return RESEAL_EINVAL;
    TSS2_RC rc = pcr_policy(t, TPM2_SE_TRIAL, mask, &session);
    if (rc == TSS2_RC_SUCCESS)
        rc = Esys_PolicyGetDigest(t->esys, session, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &policy);
    flush(t, &session);
    if (rc == TSS2_RC_SUCCESS) {
        template.publicArea.authPolicy = *policy;
        sensitive.sensitive.data.size = (uint16_t)len;
        memcpy(sensitive.sensitive.data.buffer, secret, len);
        rc = create_under(t, open_storage, &sensitive, &template, sealed);
        rs_wipe(&sensitive, sizeof(sensitive));
    }
    free(policy);
    return told(rc, why, "sealing");
}

int rs_tpm_unseal(struct rs_tpm *t, uint32_t mask, const struct rs_tpm_key *sealed, uint8_t *secret,
                  size_t room, size_t *len, char why[RS_TRUST_WHY])
{
    ESYS_TR key = ESYS_TR_NONE, session = ESYS_TR_NONE;
    TPM2B_SENSITIVE_DATA *out = NULL;
    TSS2_RC rc = load_under(t, open_storage, sealed, &key);
    if (rc == TSS2_RC_SUCCESS) rc = pcr_policy(t, TPM2_SE_POLICY, mask, &session);
    if (rc == TSS2_RC_SUCCESS) rc = Esys_Unseal(t->esys, key, session, ESYS_TR_NONE, ESYS_TR_NONE, &out);
    flush(t, &session);
    flush(t, &key);
    if (rc == TSS2_RC_SUCCESS && out->size > room) rc = TSS2_ESYS_RC_GENERAL_FAILURE;
    if (rc == TSS2_RC_SUCCESS) {
        memcpy(secret, out->buffer, out->size);
        *len = out->size;
    }
    if (out != NULL) rs_wipe(out, sizeof(*out));
    free(out);
    return told(rc, why, "unsealing (its PCRs may have changed)");
}
