/* SPDX-License-Identifier: Apache-2.0 */
/* Certificates and keys of a standard provider, in a closed task: looks at those of a new configuration, and
 * makes keys for certificate requests. */
#include "offload/base/keymem.h"
#include "providers/key/source.h"
#include "providers/key/standard/provider.h"
#include "reseal/reseal.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define RSA_BITS 3072u /* old key servers know nothing else than RSA */

/* ---- reading PEM ------------------------------------------------------------------------------ */

/* The first certificate of a text; NULL: there is none. *n is how many there are. */
static X509 *first_of(const char *pem, unsigned *n)
{
    BIO *bio = BIO_new_mem_buf(pem, -1);
    X509 *first = NULL, *cert;
    *n = 0;
    while (bio != NULL && (cert = PEM_read_bio_X509(bio, NULL, NULL, NULL)) != NULL) {
        ++*n;
        if (first == NULL)
            first = cert;
        else
            X509_free(cert);
    }
    BIO_free(bio);
    ERR_clear_error();
    return first;
}

static int64_t end_of(const X509 *cert)
{
    struct tm tm;
    return ASN1_TIME_to_tm(X509_get0_notAfter(cert), &tm) == 1 ? (int64_t)timegm(&tm) : 0;
}

int64_t rs_standard_expires(const char *pem)
{
    unsigned n;
    X509 *cert = first_of(pem, &n);
    int64_t end = cert != NULL ? end_of(cert) : 0;
    X509_free(cert);
    return end;
}

/* Nothing is asked at a terminal. */
static int no_passphrase(char *buf, int size, int rwflag, void *arg)
{
    (void)buf, (void)size, (void)rwflag, (void)arg;
    return -1;
}

static EVP_PKEY *key_of(const struct rs_secret *s)
{
    BIO *bio = s != NULL && s->len > 0 && s->len < INT32_MAX ? BIO_new_mem_buf(s->bytes, (int)s->len) : NULL;
    EVP_PKEY *key = bio == NULL ? NULL : PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL);
    BIO_free(bio);
    ERR_clear_error();
    return key;
}

/* ---- the client's certificate and its key -------------------------------------------------------- */

static bool fits(X509 *cert, const struct rs_secret *secret)
{
    EVP_PKEY *key = key_of(secret);
    bool same = key != NULL && X509_check_private_key(cert, key) == 1;
    EVP_PKEY_free(key);
    ERR_clear_error();
    return same;
}

/* The key that came with the request, the one there is, or the one that a certificate was asked for with. */
static int choose_key(struct rs_task *t, X509 *cert)
{
    const struct rs_secret *given = rs_secrets_find(&t->yields, "key");
    const struct rs_secret *old = rs_secrets_find(t->secrets, "key");
    const struct rs_secret *pending = rs_secrets_find(t->secrets, "pending-key");
    if (given != NULL) {
        EVP_PKEY *key = key_of(given);
        EVP_PKEY_free(key);
        if (key == NULL)
            return rs_task_fail(t, RESEAL_EKEYBAD,
                                "the private key is not PEM, or is encrypted: 'openssl pkey -in KEY "
                                "-out PLAIN' takes the pass phrase off");
        return fits(cert, given)
                   ? 0
                   : rs_task_fail(t, RESEAL_EKEYBAD, "the private key is not that of the certificate");
    }
    if (fits(cert, old)) return 0;
    if (fits(cert, pending)) return rs_secrets_put(&t->yields, "key", pending->bytes, pending->len);
    return rs_task_fail(t, RESEAL_EKEYBAD,
                        "no private key for this certificate is here: give it with the certificate, or "
                        "have one made for a request of 'reseal provider csr'");
}

static int describe(json_t *config, const X509 *cert)
{
    char date[40] = "", subject[256] = "";
    struct tm tm;
    BIO *bio = BIO_new(BIO_s_mem());
    if (bio != NULL && X509_NAME_print_ex(bio, X509_get_subject_name(cert), 0, XN_FLAG_RFC2253) >= 0) {
        int n = BIO_read(bio, subject, sizeof(subject) - 1);
        subject[n > 0 ? n : 0] = '\0';
        rs_line_clean(subject);
    }
    BIO_free(bio);
    if (ASN1_TIME_to_tm(X509_get0_notAfter(cert), &tm) == 1)
        (void)strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%SZ", &tm);
    return json_object_set_new(config, "client",
                               json_pack("{s:s, s:s}", "subject", subject, "expires", date)) == 0
               ? 0
               : RESEAL_ENOMEM;
}

static int look_at_client(struct rs_task *t, json_t *config)
{
    const char *pem = json_string_value(json_object_get(config, "certificate"));
    unsigned n;
    (void)json_object_del(config, "client");
    if (pem == NULL) {
        if (rs_secrets_find(&t->yields, "key") == NULL) return 0;
        return rs_task_fail(t, RESEAL_EINVAL, "a private key came without its certificate: give both");
    }
    X509 *cert = first_of(pem, &n);
    if (cert == NULL) return rs_task_fail(t, RESEAL_EFORMAT, "the client certificate is not in PEM form");
    int r = choose_key(t, cert);
    if (r == 0 && end_of(cert) <= (int64_t)time(NULL))
        r = rs_task_fail(t, RESEAL_EINVAL, "the client certificate has expired: have it renewed");
    if (r == 0) r = describe(config, cert);
    X509_free(cert);
    return r;
}

static int look_at_ca(struct rs_task *t, const json_t *config)
{
    const char *pem = json_string_value(json_object_get(config, "ca"));
    unsigned n;
    if (pem == NULL) return 0;
    X509 *cert = first_of(pem, &n);
    bool is_ca = cert != NULL && X509_check_ca(cert) != 0;
    X509_free(cert);
    if (cert == NULL) return rs_task_fail(t, RESEAL_EFORMAT, "the CA holds no certificate in PEM form");
    if (!is_ca)
        return rs_task_fail(t, RESEAL_EINVAL,
                            "the certificate given as CA is none of a CA: give that of who signed the "
                            "server's, or confirm the server's fingerprint instead");
    return 0;
}

/* Passwords that come from files end with a newline. */
static int trim_password(struct rs_task *t)
{
    const struct rs_secret *s = rs_secrets_find(&t->yields, "password");
    if (s == NULL || s->len == 0 || s->bytes[s->len - 1] != '\n') return 0;
    RS_KEYMEM uint8_t *copy = rs_keymem_alloc(s->len);
    if (copy == NULL) return RESEAL_ENOMEM;
    size_t len = s->len - 1;
    memcpy(copy, s->bytes, len);
    return rs_secrets_put(&t->yields, "password", copy, len);
}

static int inspect(struct rs_task *t)
{
    int r = rs_task_read_secrets(t);
    if (r == 0) r = trim_password(t);
    if (r != 0) return r;
    json_t *config = json_deep_copy(json_object_get(t->args, "config"));
    if (config == NULL || json_object_set_new(t->result, "config", config) != 0) return RESEAL_ENOMEM;
    r = look_at_ca(t, config);
    if (r == 0) r = look_at_client(t, config);
    if (r == 0 && json_object_get(config, "user") == NULL && rs_secrets_find(&t->yields, "password") != NULL)
        r = rs_task_fail(t, RESEAL_EINVAL, "a password came without a user: give both");
    return r;
}

/* ---- certificate requests --------------------------------------------------------------------------- */

/* "CN=kms client,O=Example", or only a common name. */
static bool set_subject(X509_NAME *name, const char *subject)
{
    char text[256];
    (void)snprintf(text, sizeof(text), "%s", subject);
    if (strchr(text, '=') == NULL)
        return X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, (const uint8_t *)text, -1, -1, 0) == 1;
    char *save = NULL;
    for (char *part = strtok_r(text, ",", &save); part != NULL; part = strtok_r(NULL, ",", &save)) {
        char *equals = strchr(part, '=');
        if (equals == NULL || equals[1] == '\0') return false;
        *equals = '\0';
        while (*part == ' ') part++;
        if (X509_NAME_add_entry_by_txt(name, part, MBSTRING_UTF8, (const uint8_t *)equals + 1, -1, -1, 0) !=
            1)
            return false;
    }
    return true;
}

/* Key servers take clients whose certificate is for clients. */
static bool set_extensions(X509_REQ *request)
{
    STACK_OF(X509_EXTENSION) *list = sk_X509_EXTENSION_new_null();
    X509_EXTENSION *usage =
        X509V3_EXT_conf_nid(NULL, NULL, NID_key_usage, (char[]){"critical,digitalSignature"});
    X509_EXTENSION *extended = X509V3_EXT_conf_nid(NULL, NULL, NID_ext_key_usage, (char[]){"clientAuth"});
    bool ok = list != NULL && usage != NULL && extended != NULL && sk_X509_EXTENSION_push(list, usage) > 0 &&
              sk_X509_EXTENSION_push(list, extended) > 0 && X509_REQ_add_extensions(request, list) == 1;
    sk_X509_EXTENSION_free(list);
    X509_EXTENSION_free(usage);
    X509_EXTENSION_free(extended);
    return ok;
}

/* The text of a BIO as a member of the result. */
static int put_text(struct rs_task *t, const char *name, BIO *bio)
{
    char *data;
    long len = BIO_get_mem_data(bio, &data);
    return len > 0 && json_object_set_new(t->result, name, json_stringn(data, (size_t)len)) == 0
               ? 0
               : RESEAL_ENOMEM;
}

static int put_key(struct rs_task *t, EVP_PKEY *key)
{
    char *data;
    BIO *bio = BIO_new(BIO_s_secmem());
    int r = RESEAL_EIO;
    if (bio != NULL && PEM_write_bio_PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL) == 1) {
        long len = BIO_get_mem_data(bio, &data);
        if (len > 0) r = rs_secrets_put(&t->yields, "pending-key", data, (size_t)len);
    }
    BIO_free(bio);
    return r;
}

static int request(struct rs_task *t)
{
    const char *subject = json_string_value(json_object_get(t->args, "subject"));
    EVP_PKEY *key = EVP_RSA_gen(RSA_BITS);
    X509_REQ *req = X509_REQ_new();
    BIO *bio = BIO_new(BIO_s_mem());
    int r = RESEAL_EIO;
    if (subject == NULL || *subject == '\0') subject = "reseal";
    if (key != NULL && req != NULL && bio != NULL && X509_REQ_set_version(req, 0) == 1) {
        if (!set_subject(X509_REQ_get_subject_name(req), subject))
            r = rs_task_fail(t, RESEAL_EINVAL,
                             "subject: wants a name, or parts as \"CN=name,O=organisation\"");
        else if (X509_REQ_set_pubkey(req, key) == 1 && set_extensions(req) &&
                 X509_REQ_sign(req, key, EVP_sha256()) > 0 && PEM_write_bio_X509_REQ(bio, req) == 1)
            r = put_text(t, "csr", bio);
    }
    if (r == 0) r = put_key(t, key);
    EVP_PKEY_free(key);
    X509_REQ_free(req);
    BIO_free(bio);
    ERR_clear_error();
    return r;
}

static int run(struct rs_task *t)
{
    const char *op = json_string_value(json_object_get(t->args, "op"));
    if (op != NULL && strcmp(op, "inspect") == 0) return inspect(t);
    if (op != NULL && strcmp(op, "csr") == 0) return request(t);
    return RESEAL_EINVAL;
}

const struct rs_task_kind rs_task_certificates = {
    .name = "certificates", .place = RS_TASK_CLOSED, .run = run};
