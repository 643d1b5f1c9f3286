/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/key/wire/tls.h"

#include "reseal/reseal.h"

#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>

#define YEARS 10

static bool add_extension(X509 *cert, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509V3_set_ctx(&ctx, cert, cert, NULL, NULL, 0);
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    bool ok = e != NULL && X509_add_ext(cert, e, -1) == 1;
    X509_EXTENSION_free(e);
    return ok;
}

static bool fill(X509 *cert, EVP_PKEY *key, const char *common_name)
{
    X509_NAME *name = X509_get_subject_name(cert);
    uint64_t serial;
    if (RAND_bytes((unsigned char *)&serial, sizeof(serial)) != 1) return false;
    return X509_set_version(cert, X509_VERSION_3) == 1 &&
           ASN1_INTEGER_set_uint64(X509_get_serialNumber(cert), serial >> 1 | 1) == 1 &&
           X509_gmtime_adj(X509_getm_notBefore(cert), -300) != NULL &&
           X509_time_adj_ex(X509_getm_notAfter(cert), YEARS * 365, 0, NULL) != NULL &&
           X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, (const unsigned char *)common_name, -1, -1,
                                      0) == 1 &&
           X509_set_issuer_name(cert, name) == 1 && X509_set_pubkey(cert, key) == 1 &&
           add_extension(cert, NID_basic_constraints, "critical,CA:FALSE") &&
           add_extension(cert, NID_key_usage, "critical,digitalSignature") &&
           add_extension(cert, NID_ext_key_usage, "serverAuth,clientAuth") &&
           X509_sign(cert, key, EVP_sha256()) > 0;
}

/* The text of a memory BIO, which goes. */
static char *text_of(BIO *bio, bool written)
{
    char *data, *text = NULL;
    long len = written ? BIO_get_mem_data(bio, &data) : 0;
    if (len > 0) text = OPENSSL_strndup(data, (size_t)len);
    BIO_free(bio); /* OpenSSL wipes a memory BIO that grew */
    return text;
}

int rs_wire_make_identity(const char *common_name, char **cert_pem, char **key_pem)
{
    *cert_pem = *key_pem = NULL;
    if (common_name[0] == '\0' || strlen(common_name) > 64) return RESEAL_EINVAL;
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = X509_new();
    BIO *a = BIO_new(BIO_s_mem()), *b = BIO_new(BIO_s_mem());
    bool ok = key != NULL && cert != NULL && a != NULL && b != NULL && fill(cert, key, common_name);
    *cert_pem = text_of(a, ok && PEM_write_bio_X509(a, cert) == 1);
    *key_pem = text_of(b, ok && PEM_write_bio_PKCS8PrivateKey(b, key, NULL, NULL, 0, NULL, NULL) == 1);
    X509_free(cert);
    EVP_PKEY_free(key);
    ERR_clear_error();
    if (*cert_pem != NULL && *key_pem != NULL) return 0;
    OPENSSL_free(*cert_pem);
    if (*key_pem != NULL) OPENSSL_clear_free(*key_pem, strlen(*key_pem));
    *cert_pem = *key_pem = NULL;
    return RESEAL_EIO;
}
