/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/key/trusted/quote.h"
#include "reseal/reseal.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>

/* tcg-kp-EKCertificate: what an endorsement certificate is for. */
#define EK_USAGE "2.23.133.8.1"

static int refuse(int status, char why[RS_TRUST_WHY], const char *line, const char *more)
{
    (void)snprintf(why, RS_TRUST_WHY, "%s%s", line, more);
    return status;
}

static bool has_usage(X509 *cert)
{
    EXTENDED_KEY_USAGE *list = X509_get_ext_d2i(cert, NID_ext_key_usage, NULL, NULL);
    ASN1_OBJECT *want = OBJ_txt2obj(EK_USAGE, 1);
    bool found = false;
    for (int i = 0; list != NULL && want != NULL && i < sk_ASN1_OBJECT_num(list); i++)
        found |= OBJ_cmp(sk_ASN1_OBJECT_value(list, i), want) == 0;
    ASN1_OBJECT_free(want);
    EXTENDED_KEY_USAGE_free(list);
    return found;
}

/* Every configured certificate is trusted as it is: a maker's intermediate may stand for its root. */
static X509_STORE *store_of(const char *pem)
{
    BIO *bio = BIO_new_mem_buf(pem, -1);
    X509_STORE *store = X509_STORE_new();
    unsigned n = 0;
    X509 *cert;
    while (bio != NULL && store != NULL && (cert = PEM_read_bio_X509(bio, NULL, NULL, NULL)) != NULL) {
        n += X509_STORE_add_cert(store, cert) == 1;
        X509_free(cert);
    }
    BIO_free(bio);
    ERR_clear_error();
    if (n > 0 && X509_STORE_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN) == 1) return store;
    X509_STORE_free(store);
    return NULL;
}

static int verify(X509 *cert, const char *cas, char why[RS_TRUST_WHY])
{
    X509_STORE *store = store_of(cas);
    X509_STORE_CTX *ctx = X509_STORE_CTX_new();
    int err = RESEAL_EINVAL;
    if (store == NULL) {
        (void)refuse(err, why, "no CA of TPM makers is configured", ": set ek_cas");
    } else if (ctx != NULL && X509_STORE_CTX_init(ctx, store, cert, NULL) == 1) {
        err = X509_verify_cert(ctx) == 1 ? 0 : RESEAL_EAUTH;
        if (err != 0)
            (void)refuse(err, why, "the TPM's endorsement certificate is not from a CA that is configured: ",
                         X509_verify_cert_error_string(X509_STORE_CTX_get_error(ctx)));
    }
    X509_STORE_CTX_free(ctx);
    X509_STORE_free(store);
    ERR_clear_error();
    return err;
}

int rs_ek_certificate(const uint8_t *der, size_t len, EVP_PKEY *key, const char *cas, char why[RS_TRUST_WHY])
{
    const unsigned char *p = der;
    X509 *cert = len > 16384 ? NULL : d2i_X509(NULL, &p, (long)len);
    int err;
    ERR_clear_error();
    if (cert == NULL)
        return refuse(RESEAL_EFORMAT, why, "the TPM's endorsement certificate cannot be read", "");
    EVP_PKEY *its = X509_get0_pubkey(cert);
    if (its == NULL || EVP_PKEY_eq(its, key) != 1)
        err = refuse(RESEAL_EAUTH, why, "the endorsement certificate is of another TPM's key", "");
    else if (!has_usage(cert))
        err =
            refuse(RESEAL_EAUTH, why, "the certificate is not for endorsement keys", " (usage " EK_USAGE ")");
    else
        err = verify(cert, cas, why);
    X509_free(cert);
    ERR_clear_error();
    return err;
}
