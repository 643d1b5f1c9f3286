/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/key/wire/tls.h"

#include "providers/key/wire/dial.h"
#include "reseal/reseal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

/* Whom a context trusts, where that is more than a CA; lives as long as the context. */
struct pins {
    bool whole;   /* hashes are of certificates, else of public keys */
    bool any;     /* one must be shown, and no more */
    bool differs; /* that is why a peer was refused */
    unsigned n;
    uint8_t hashes[]; /* n * RS_WIRE_HASH_LEN */
};

struct rs_wire_link {
    SSL_CTX *ctx;
    SSL *ssl;
    int fd;
    char what[32], remedy[64], host[RS_WIRE_HOST_MAX];
    bool has_cert;
};

/* ---- errors -------------------------------------------------------------------------- */

static int code_of(enum rs_wire_fault fault)
{
    switch (fault) {
    case RS_WIRE_NO_FAULT:
        return 0;
    case RS_WIRE_BAD_SETUP:
        return RESEAL_EINVAL;
    case RS_WIRE_HANGS:
        return RESEAL_ETIMEDOUT;
    case RS_WIRE_CERT_EXPIRED:
    case RS_WIRE_CERT_NAME:
    case RS_WIRE_CERT_CA:
    case RS_WIRE_CERT_PIN:
    case RS_WIRE_CERT_OTHER:
    case RS_WIRE_REFUSED_US:
        return RESEAL_EAUTH;
    case RS_WIRE_BROKEN_ANSWER:
        return RESEAL_EPROTO;
    default:
        return RESEAL_ENOSERVICE;
    }
}

int rs_wire_fail(struct rs_wire_error *error, enum rs_wire_fault fault, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    error->fault = fault;
    (void)vsnprintf(error->why, sizeof(error->why), format, args);
    va_end(args);
    return code_of(fault);
}

/* ---- identities ---------------------------------------------------------------------- */

static bool hash_of_cert(const X509 *cert, uint8_t out[RS_WIRE_HASH_LEN])
{
    unsigned len = 0;
    return X509_digest(cert, EVP_sha256(), out, &len) == 1 && len == RS_WIRE_HASH_LEN;
}

static bool hash_of_key(const X509 *cert, uint8_t out[RS_WIRE_HASH_LEN])
{
    unsigned char *der = NULL;
    int len = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(cert), &der);
    bool ok = len > 0 && EVP_Digest(der, (size_t)len, out, NULL, EVP_sha256(), NULL) == 1;
    OPENSSL_free(der);
    return ok;
}

static int identity_of(const X509 *cert, struct rs_wire_identity *out)
{
    if (cert == NULL || !hash_of_cert(cert, out->cert) || !hash_of_key(cert, out->spki)) return RESEAL_EAUTH;
    return 0;
}

int rs_wire_identity_of(SSL *ssl, struct rs_wire_identity *out)
{
    return identity_of(SSL_get0_peer_certificate(ssl), out);
}

int rs_wire_peer(const struct rs_wire_link *link, struct rs_wire_identity *out)
{
    return rs_wire_identity_of(link->ssl, out);
}

int rs_wire_identity_of_pem(const char *pem, struct rs_wire_identity *out)
{
    BIO *bio = BIO_new_mem_buf(pem, -1);
    X509 *cert = bio == NULL ? NULL : PEM_read_bio_X509(bio, NULL, NULL, NULL);
    int err = cert == NULL || identity_of(cert, out) != 0 ? RESEAL_EFORMAT : 0;
    X509_free(cert);
    BIO_free(bio);
    ERR_clear_error();
    return err;
}

/* ---- trust --------------------------------------------------------------------------- */

static void free_pins(void *parent, void *ptr, CRYPTO_EX_DATA *ad, int idx, long argl, void *argp)
{
    (void)parent, (void)ad, (void)idx, (void)argl, (void)argp;
    free(ptr);
}

/* Where a context keeps its pins. */
static int pins_index(void)
{
    static int index = -1;
    if (index < 0) index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, free_pins);
    return index;
}

static struct pins *pins_of(const SSL_CTX *ctx)
{
    return SSL_CTX_get_ex_data(ctx, pins_index());
}

/* With pins, certificate or key count and nothing else; what else is in it was seen by who confirmed them. */
static int verify_pins(X509_STORE_CTX *store, void *arg)
{
    struct pins *pins = arg;
    const X509 *cert = X509_STORE_CTX_get0_cert(store);
    uint8_t shown[RS_WIRE_HASH_LEN];
    bool same = pins->any;
    bool known = pins->whole ? hash_of_cert(cert, shown) : hash_of_key(cert, shown);
    for (unsigned i = 0; known && i < pins->n; i++)
        same |= rs_equal_ct(shown, pins->hashes + (size_t)i * RS_WIRE_HASH_LEN, RS_WIRE_HASH_LEN);
    pins->differs = !same;
    X509_STORE_CTX_set_error(store, same ? X509_V_OK : X509_V_ERR_CERT_REJECTED);
    return same;
}

static int set_pins(SSL_CTX *ctx, const struct rs_wire_trust *trust)
{
    unsigned n = trust->pin != NULL ? RS_MAX(trust->npins, 1u) : trust->nspkis;
    struct pins *pins = calloc(1, sizeof(*pins) + (size_t)n * RS_WIRE_HASH_LEN);
    if (pins == NULL || SSL_CTX_set_ex_data(ctx, pins_index(), pins) != 1) {
        free(pins);
        return RESEAL_ENOMEM;
    }
    pins->whole = trust->pin != NULL;
    pins->any = trust->any;
    pins->n = n;
    if (n > 0) memcpy(pins->hashes, pins->whole ? trust->pin : trust->spkis, (size_t)n * RS_WIRE_HASH_LEN);
    SSL_CTX_set_cert_verify_callback(ctx, verify_pins, pins);
    return 0;
}

static bool add_ca(SSL_CTX *ctx, const char *pem)
{
    BIO *bio = BIO_new_mem_buf(pem, -1);
    unsigned n = 0;
    X509 *cert;
    if (bio == NULL) return false;
    while ((cert = PEM_read_bio_X509(bio, NULL, NULL, NULL)) != NULL) {
        n += X509_STORE_add_cert(SSL_CTX_get_cert_store(ctx), cert) == 1;
        X509_free(cert);
    }
    BIO_free(bio);
    ERR_clear_error();
    /* Who gives the CA that signs the servers trusts that one, whether or not the root above it was given
     * too. */
    return n > 0 && X509_STORE_set_flags(SSL_CTX_get_cert_store(ctx), X509_V_FLAG_PARTIAL_CHAIN) == 1;
}

/* Our certificate and those above it. */
static bool use_cert(SSL_CTX *ctx, const char *pem)
{
    BIO *bio = BIO_new_mem_buf(pem, -1);
    X509 *cert = bio == NULL ? NULL : PEM_read_bio_X509(bio, NULL, NULL, NULL);
    bool ok = cert != NULL && SSL_CTX_use_certificate(ctx, cert) == 1;
    X509_free(cert);
    while (ok && (cert = PEM_read_bio_X509(bio, NULL, NULL, NULL)) != NULL) {
        ok = SSL_CTX_add0_chain_cert(ctx, cert) == 1;
        if (!ok) X509_free(cert);
    }
    BIO_free(bio);
    ERR_clear_error();
    return ok;
}

/* An encrypted key has no pass phrase here: nothing is asked at a terminal. */
static int no_passphrase(char *buf, int size, int rwflag, void *arg)
{
    (void)buf, (void)size, (void)rwflag, (void)arg;
    return -1;
}

static bool use_key(SSL_CTX *ctx, const char *pem)
{
    BIO *bio = BIO_new_mem_buf(pem, -1);
    EVP_PKEY *key = bio == NULL ? NULL : PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL);
    bool ok = key != NULL && SSL_CTX_use_PrivateKey(ctx, key) == 1 && SSL_CTX_check_private_key(ctx) == 1;
    EVP_PKEY_free(key);
    BIO_free(bio);
    ERR_clear_error();
    return ok;
}

int rs_wire_set_trust(SSL_CTX *ctx, const struct rs_wire_trust *trust, struct rs_wire_error *error)
{
    unsigned ways =
        (unsigned)(trust->ca != NULL) + (trust->pin != NULL) + (trust->spkis != NULL) + trust->any;
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    if (ways != 1)
        return rs_wire_fail(error, RS_WIRE_BAD_SETUP,
                            "the other side is trusted by a CA or by a fingerprint: set one");
    if (trust->ca != NULL && !add_ca(ctx, trust->ca))
        return rs_wire_fail(error, RS_WIRE_BAD_SETUP,
                            "the CA file holds no certificate in PEM form: import it again");
    if (trust->ca == NULL && set_pins(ctx, trust) != 0)
        return rs_wire_fail(error, RS_WIRE_BAD_SETUP, "out of memory");
    if (trust->cert != NULL && !use_cert(ctx, trust->cert))
        return rs_wire_fail(error, RS_WIRE_BAD_SETUP, "our own certificate is not PEM: import it again");
    if (trust->key != NULL && !use_key(ctx, trust->key))
        return rs_wire_fail(
            error, RS_WIRE_BAD_SETUP,
            "our own key is not PEM, is encrypted, or is not that of the certificate: import both again");
    return 0;
}

/* The name in the certificate, unless a hash stands for it. */
static bool expect_name(struct rs_wire_link *link, const char *name)
{
    struct in6_addr any;
    if (pins_of(link->ctx) != NULL) return true;
    if (inet_pton(AF_INET, name, &any) == 1 || inet_pton(AF_INET6, name, &any) == 1)
        return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(link->ssl), name) == 1;
    return SSL_set1_host(link->ssl, name) == 1 && SSL_set_tlsext_host_name(link->ssl, name) == 1;
}

/* ---- what went wrong ----------------------------------------------------------------- */

static bool pin_differs(const struct rs_wire_link *link)
{
    const struct pins *pins = pins_of(link->ctx);
    return pins != NULL && pins->differs;
}

static int certificate_fault(const struct rs_wire_link *link, long verdict, struct rs_wire_error *error)
{
    const char *what = link->what, *host = link->host;
    if (pin_differs(link))
        return rs_wire_fail(error, RS_WIRE_CERT_PIN,
                            "%s %s shows another certificate than the confirmed one: if it was renewed, "
                            "confirm it with %s",
                            what, host, link->remedy);
    switch (verdict) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
    case X509_V_ERR_CERT_NOT_YET_VALID:
        return rs_wire_fail(error, RS_WIRE_CERT_EXPIRED, "%s %s: %s: renew it, or set the clock", what, host,
                            X509_verify_cert_error_string(verdict));
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH:
        return rs_wire_fail(error, RS_WIRE_CERT_NAME,
                            "%s %s: its certificate is for another name: use that name, or have it reissued",
                            what, host);
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
        return rs_wire_fail(error, RS_WIRE_CERT_CA,
                            "%s %s: its certificate is not from a CA that is trusted: import the CA with %s",
                            what, host, link->remedy);
    default:
        return rs_wire_fail(error, RS_WIRE_CERT_OTHER, "%s %s: %s", what, host,
                            X509_verify_cert_error_string(verdict));
    }
}

/* Alerts by which a server says that it does not want our certificate. */
static bool refused_us(const struct rs_wire_link *link, int reason)
{
    switch (reason) {
    case SSL_R_SSLV3_ALERT_HANDSHAKE_FAILURE: /* how TLS 1.2 says that one is missing */
        return !link->has_cert;
    case SSL_R_SSLV3_ALERT_BAD_CERTIFICATE:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_REVOKED:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN:
    case SSL_R_SSLV3_ALERT_UNSUPPORTED_CERTIFICATE:
    case SSL_R_TLSV1_ALERT_UNKNOWN_CA:
    case SSL_R_TLSV1_ALERT_ACCESS_DENIED:
    case SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED:
        return true;
    default:
        return false;
    }
}

/* What an SSL call that failed for good means. */
static int tls_fault(struct rs_wire_link *link, int ssl_error, int saved_errno, struct rs_wire_error *error)
{
    unsigned long e = ERR_peek_last_error();
    long verdict = SSL_get_verify_result(link->ssl);
    int reason = ERR_GET_REASON(e);
    ERR_clear_error();
    if (pin_differs(link) || (verdict != X509_V_OK && reason == SSL_R_CERTIFICATE_VERIFY_FAILED))
        return certificate_fault(link, verdict, error);
    if (refused_us(link, reason) && SSL_get_certificate(link->ssl) == NULL)
        return rs_wire_fail(
            error, RS_WIRE_REFUSED_US,
            "%s %s wants a client certificate, and there is none yet: see 'reseal provider csr'", link->what,
            link->host);
    if (refused_us(link, reason))
        return rs_wire_fail(error, RS_WIRE_REFUSED_US,
                            "%s %s does not accept our client certificate (%s): have it %s", link->what,
                            link->host, ERR_reason_error_string(e),
                            reason == SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED ? "renewed" : "trusted there");
    if (ssl_error == SSL_ERROR_SSL && reason != SSL_R_UNEXPECTED_EOF_WHILE_READING)
        return rs_wire_fail(error, RS_WIRE_TLS_FAILED, "%s %s: TLS failed: %s", link->what, link->host,
                            e != 0 && ERR_reason_error_string(e) != NULL ? ERR_reason_error_string(e)
                                                                         : "no reason given");
    return rs_wire_fail(error, RS_WIRE_DOWN, "%s %s closed the connection%s%s", link->what, link->host,
                        saved_errno != 0 ? ": " : "", saved_errno != 0 ? strerror(saved_errno) : "");
}

/* After an SSL call that returned r: 1 to call it again, 0 when it is done, RESEAL_E... */
static int again(struct rs_wire_link *link, int r, uint64_t deadline, struct rs_wire_error *error)
{
    int saved = errno, e = SSL_get_error(link->ssl, r);
    if (r > 0) return 0;
    if (e != SSL_ERROR_WANT_READ && e != SSL_ERROR_WANT_WRITE) return tls_fault(link, e, saved, error);
    int n = rs_wire_wait(link->fd, e == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT, deadline);
    if (n == 1) return 1;
    if (n < 0) return rs_wire_fail(error, RS_WIRE_DOWN, "%s %s: %s", link->what, link->host, strerror(-n));
    return rs_wire_fail(error, RS_WIRE_HANGS, "%s %s does not answer in time", link->what, link->host);
}

/* ---- connecting ---------------------------------------------------------------------- */

static struct rs_wire_link *new_link(const struct rs_wire_address *server)
{
    struct rs_wire_link *link = calloc(1, sizeof(*link));
    if (link == NULL) return NULL;
    link->fd = -1;
    (void)snprintf(link->what, sizeof(link->what), "%s", server->what);
    (void)snprintf(link->remedy, sizeof(link->remedy), "%s", server->remedy);
    (void)snprintf(link->host, sizeof(link->host), "%s", server->host);
    link->ctx = SSL_CTX_new(TLS_client_method());
    if (link->ctx == NULL || SSL_CTX_set_min_proto_version(link->ctx, TLS1_2_VERSION) != 1) {
        rs_wire_disconnect(link);
        return NULL;
    }
    SSL_CTX_set_mode(link->ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_AUTO_RETRY);
    SSL_CTX_set_session_cache_mode(link->ctx, SSL_SESS_CACHE_OFF);
    return link;
}

static int handshake(struct rs_wire_link *link, uint64_t deadline, struct rs_wire_error *error)
{
    int state;
    do {
        ERR_clear_error();
        errno = 0;
        state = again(link, SSL_connect(link->ssl), deadline, error);
    } while (state == 1);
    return state;
}

static int start(struct rs_wire_link *link, const struct rs_wire_address *server, unsigned deadline_ms,
                 struct rs_wire_error *error)
{
    uint64_t deadline = rs_wire_deadline(deadline_ms);
    int err = rs_wire_dial(server, deadline, &link->fd, error);
    if (err != 0) return err;
    link->ssl = SSL_new(link->ctx);
    if (link->ssl == NULL || SSL_set_fd(link->ssl, link->fd) != 1 ||
        !expect_name(link, server->name != NULL ? server->name : server->host))
        return rs_wire_fail(error, RS_WIRE_BAD_SETUP, "%s %s: the name cannot be verified: check it",
                            link->what, link->host);
    return handshake(link, deadline, error);
}

int rs_wire_connect(struct rs_wire_link **out, const struct rs_wire_address *server,
                    const struct rs_wire_trust *trust, unsigned deadline_ms, struct rs_wire_error *error)
{
    struct rs_wire_link *link = new_link(server);
    memset(error, 0, sizeof(*error));
    *out = NULL;
    if (link == NULL) return RESEAL_ENOMEM;
    int err = rs_wire_set_trust(link->ctx, trust, error);
    link->has_cert = trust->cert != NULL;
    if (err == 0) err = start(link, server, deadline_ms, error);
    if (err != 0) {
        rs_wire_disconnect(link);
        return err;
    }
    *out = link;
    return 0;
}

void rs_wire_disconnect(struct rs_wire_link *link)
{
    if (link == NULL) return;
    SSL_free(link->ssl);
    SSL_CTX_free(link->ctx);
    if (link->fd >= 0) close(link->fd);
    free(link);
}

int64_t rs_wire_expires(const struct rs_wire_link *link)
{
    X509 *cert = SSL_get1_peer_certificate(link->ssl);
    struct tm tm;
    int64_t end = 0;
    if (cert != NULL && ASN1_TIME_to_tm(X509_get0_notAfter(cert), &tm) == 1) end = (int64_t)timegm(&tm);
    X509_free(cert);
    return end;
}

void rs_wire_protocol(const struct rs_wire_link *link, const char **version, const char **cipher)
{
    *version = SSL_get_version(link->ssl);
    *cipher = SSL_get_cipher_name(link->ssl);
}

/* ---- bytes --------------------------------------------------------------------------- */

/* In TLS 1.3 a server looks at our certificate after the handshake is over for us: what it thought of it may
 * lie here unread while it has closed already. */
static int send_failed(struct rs_wire_link *link, int status, struct rs_wire_error *error)
{
    uint8_t byte;
    size_t got;
    if (error->fault != RS_WIRE_DOWN) return status;
    ERR_clear_error();
    int r = SSL_read_ex(link->ssl, &byte, 1, &got);
    return r <= 0 && SSL_get_error(link->ssl, r) == SSL_ERROR_SSL ? tls_fault(link, SSL_ERROR_SSL, 0, error)
                                                                  : status;
}

int rs_wire_send(struct rs_wire_link *link, const void *bytes, size_t len, unsigned deadline_ms,
                 struct rs_wire_error *error)
{
    uint64_t deadline = rs_wire_deadline(deadline_ms);
    const uint8_t *p = bytes;
    while (len > 0) {
        size_t sent = 0;
        ERR_clear_error();
        errno = 0;
        int state = again(link, SSL_write_ex(link->ssl, p, len, &sent), deadline, error);
        if (state < 0) return send_failed(link, state, error);
        p += sent;
        len -= sent;
    }
    return 0;
}

/* Short reads are no errors. */
int rs_wire_receive(struct rs_wire_link *link, void *bytes, size_t len, unsigned deadline_ms,
                    struct rs_wire_error *error)
{
    uint64_t deadline = rs_wire_deadline(deadline_ms);
    uint8_t *p = bytes;
    while (len > 0) {
        size_t got = 0;
        ERR_clear_error();
        errno = 0;
        int r = SSL_read_ex(link->ssl, p, len, &got);
        if (r <= 0 && SSL_get_error(link->ssl, r) == SSL_ERROR_ZERO_RETURN)
            return rs_wire_fail(error, RS_WIRE_DOWN, "%s %s closed the connection in the middle of an answer",
                                link->what, link->host);
        int state = again(link, r, deadline, error);
        if (state < 0) return state;
        p += got;
        len -= got;
    }
    return 0;
}

/* ---- showing a certificate ------------------------------------------------------------- */

/* Subject, issuer, dates: one printable line. */
static void describe(X509 *cert, char *text, size_t room)
{
    BIO *bio = BIO_new(BIO_s_mem());
    char *data;
    text[0] = '\0';
    if (bio == NULL) return;
    (void)BIO_printf(bio, "subject ");
    (void)X509_NAME_print_ex(bio, X509_get_subject_name(cert), 0, XN_FLAG_RFC2253);
    (void)BIO_printf(bio, "; issuer ");
    (void)X509_NAME_print_ex(bio, X509_get_issuer_name(cert), 0, XN_FLAG_RFC2253);
    (void)BIO_printf(bio, "; valid ");
    (void)ASN1_TIME_print(bio, X509_get0_notBefore(cert));
    (void)BIO_printf(bio, " to ");
    (void)ASN1_TIME_print(bio, X509_get0_notAfter(cert));
    long len = BIO_get_mem_data(bio, &data);
    if (len > 0) (void)snprintf(text, room, "%.*s", (int)len, data);
    BIO_free(bio);
}

int rs_wire_show(const struct rs_wire_address *server, unsigned deadline_ms, struct rs_wire_shown *out,
                 struct rs_wire_error *error)
{
    struct rs_wire_link *link = new_link(server);
    memset(error, 0, sizeof(*error));
    memset(out, 0, sizeof(*out));
    if (link == NULL) return RESEAL_ENOMEM;
    int err = rs_wire_set_trust(link->ctx, &(struct rs_wire_trust){.any = true}, error);
    if (err == 0) err = start(link, server, deadline_ms, error);
    /* A server that wants our certificate ends the handshake, after it has shown its own. */
    X509 *cert = link->ssl == NULL ? NULL : SSL_get1_peer_certificate(link->ssl);
    if (cert != NULL && identity_of(cert, &out->id) == 0) {
        describe(cert, out->text, sizeof(out->text));
        err = 0;
    } else if (err == 0) {
        err = rs_wire_fail(error, RS_WIRE_TLS_FAILED, "%s %s shows no certificate", link->what, link->host);
    }
    X509_free(cert);
    rs_wire_disconnect(link);
    return err;
}
