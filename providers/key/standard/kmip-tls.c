/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/key/standard/kmip-tls.h"

#include "offload/base/clock.h"
#include "providers/key/standard/kmip-tags.h"
#include "providers/key/standard/ttlv.h"
#include "reseal/reseal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

struct rs_kmip_link {
    SSL_CTX *ctx;
    SSL *ssl;
    int fd;
    char host[RS_KMIP_HOST_MAX];
    uint8_t pin[RS_KMIP_PIN_LEN];
    bool pinned, pin_differs, has_cert;
};

/* ---- errors -------------------------------------------------------------------------- */

static int code_of(enum rs_kmip_fault fault)
{
    switch (fault) {
    case RS_KMIP_NO_FAULT:
        return 0;
    case RS_KMIP_BAD_SETUP:
        return RESEAL_EINVAL;
    case RS_KMIP_HANGS:
        return RESEAL_ETIMEDOUT;
    case RS_KMIP_CERT_EXPIRED:
    case RS_KMIP_CERT_NAME:
    case RS_KMIP_CERT_CA:
    case RS_KMIP_CERT_PIN:
    case RS_KMIP_CERT_OTHER:
    case RS_KMIP_REFUSED_US:
        return RESEAL_EAUTH;
    case RS_KMIP_BROKEN_ANSWER:
        return RESEAL_EPROTO;
    default:
        return RESEAL_ENOSERVICE;
    }
}

__attribute__((format(printf, 3, 4))) static int fail(struct rs_kmip_error *e, enum rs_kmip_fault fault,
                                                      const char *format, ...)
{
    va_list args;
    va_start(args, format);
    e->fault = fault;
    e->reason = 0;
    (void)vsnprintf(e->why, sizeof(e->why), format, args);
    va_end(args);
    return code_of(fault);
}

/* ---- deadlines ----------------------------------------------------------------------- */

static uint64_t deadline_at(unsigned ms)
{
    return rs_now_ns() + (uint64_t)ms * 1000000u;
}

/* Waits until the socket can be read or written: 1, 0 when the deadline passed, -errno. */
static int wait_for(int fd, short events, uint64_t deadline)
{
    for (;;) {
        uint64_t now = rs_now_ns();
        if (now >= deadline) return 0;
        uint64_t ms = (deadline - now) / 1000000u + 1;
        struct pollfd p = {.fd = fd, .events = events};
        int n = poll(&p, 1, (int)RS_MIN(ms, (uint64_t)INT_MAX));
        if (n > 0) return 1;
        if (n < 0 && errno != EINTR) return -errno;
    }
}

/* ---- the socket ---------------------------------------------------------------------- */

/* One address: a connected non-blocking socket, or -errno. */
static int dial(const struct addrinfo *a, uint64_t deadline)
{
    int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, a->ai_protocol);
    int err = 0, on = 1;
    socklen_t len = sizeof(err);
    if (fd < 0) return -errno;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (connect(fd, a->ai_addr, a->ai_addrlen) == 0) return fd;
    if (errno == EINPROGRESS) {
        int n = wait_for(fd, POLLOUT, deadline);
        if (n == 1 && getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len) == 0 && err == 0) return fd;
        if (err == 0) err = n == 0 ? ETIMEDOUT : n < 0 ? -n : errno;
    } else {
        err = errno;
    }
    close(fd);
    return -err;
}

static int dial_any(const struct rs_kmip_address *server, uint64_t deadline, int *fd,
                    struct rs_kmip_error *error)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG};
    struct addrinfo *list = NULL;
    char port[8];
    unsigned tried = 0;
    (void)snprintf(port, sizeof(port), "%u", (unsigned)server->port);
    int r = getaddrinfo(server->host, port, &hints, &list);
    if (r != 0)
        return fail(error, RS_KMIP_NO_SUCH_HOST, "key server %s: %s: check the name and the resolver",
                    server->host, gai_strerror(r));
    *fd = -ECONNREFUSED;
    for (struct addrinfo *a = list; a != NULL && *fd < 0 && tried < RS_KMIP_DIALS_MAX;
         a = a->ai_next, tried++)
        *fd = dial(a, deadline);
    freeaddrinfo(list);
    if (*fd >= 0) return 0;
    if (*fd == -ETIMEDOUT)
        return fail(error, RS_KMIP_HANGS, "key server %s port %s: no connection in time: check the network",
                    server->host, port);
    return fail(error, RS_KMIP_DOWN, "key server %s port %s: %s: check that it runs and the port is right",
                server->host, port, strerror(-*fd));
}

/* ---- trust --------------------------------------------------------------------------- */

static int fingerprint(X509 *cert, uint8_t pin[RS_KMIP_PIN_LEN])
{
    unsigned len = 0;
    return cert != NULL && X509_digest(cert, EVP_sha256(), pin, &len) == 1 && len == RS_KMIP_PIN_LEN;
}

/* With a pin, the certificate counts and nothing else; its dates were shown to who confirmed it. */
static int verify_pin(X509_STORE_CTX *store, void *arg)
{
    struct rs_kmip_link *link = arg;
    uint8_t shown[RS_KMIP_PIN_LEN];
    bool same =
        fingerprint(X509_STORE_CTX_get0_cert(store), shown) && rs_equal_ct(shown, link->pin, sizeof(shown));
    link->pin_differs = !same;
    X509_STORE_CTX_set_error(store, same ? X509_V_OK : X509_V_ERR_CERT_REJECTED);
    return same;
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
    return n > 0;
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

static int set_trust(struct rs_kmip_link *link, const struct rs_kmip_trust *trust,
                     struct rs_kmip_error *error)
{
    SSL_CTX *ctx = link->ctx;
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    if ((trust->ca == NULL) == (trust->pin == NULL))
        return fail(error, RS_KMIP_BAD_SETUP, "a key server is trusted by a CA or by a fingerprint: set one");
    if (trust->ca != NULL && !add_ca(ctx, trust->ca))
        return fail(error, RS_KMIP_BAD_SETUP,
                    "the CA file holds no certificate in PEM form: import it again");
    if (trust->pin != NULL) {
        memcpy(link->pin, trust->pin, sizeof(link->pin));
        link->pinned = true;
        SSL_CTX_set_cert_verify_callback(ctx, verify_pin, link);
    }
    if (trust->cert != NULL && !use_cert(ctx, trust->cert))
        return fail(error, RS_KMIP_BAD_SETUP, "our client certificate is not PEM: import it again");
    link->has_cert = trust->cert != NULL;
    if (trust->key != NULL && !use_key(ctx, trust->key))
        return fail(
            error, RS_KMIP_BAD_SETUP,
            "our client key is not PEM, is encrypted, or is not that of the certificate: import both again");
    return 0;
}

/* The name in the certificate, unless a fingerprint stands for it. */
static bool expect_name(struct rs_kmip_link *link, const char *name)
{
    struct in6_addr any;
    if (link->pinned) return true;
    if (inet_pton(AF_INET, name, &any) == 1 || inet_pton(AF_INET6, name, &any) == 1)
        return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(link->ssl), name) == 1;
    return SSL_set1_host(link->ssl, name) == 1 && SSL_set_tlsext_host_name(link->ssl, name) == 1;
}

/* ---- TLS ----------------------------------------------------------------------------- */

static int certificate_fault(const struct rs_kmip_link *link, long verdict, struct rs_kmip_error *error)
{
    const char *host = link->host;
    if (link->pin_differs)
        return fail(error, RS_KMIP_CERT_PIN,
                    "key server %s shows another certificate than the confirmed one: if it was renewed, "
                    "confirm it with 'reseal provider trust'",
                    host);
    switch (verdict) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
    case X509_V_ERR_CERT_NOT_YET_VALID:
        return fail(error, RS_KMIP_CERT_EXPIRED, "key server %s: %s: renew it, or set the clock", host,
                    X509_verify_cert_error_string(verdict));
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH:
        return fail(error, RS_KMIP_CERT_NAME,
                    "key server %s: its certificate is for another name: use that name, or have it reissued",
                    host);
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
        return fail(error, RS_KMIP_CERT_CA,
                    "key server %s: its certificate is not from a CA that is trusted: "
                    "import the CA with 'reseal provider trust'",
                    host);
    default:
        return fail(error, RS_KMIP_CERT_OTHER, "key server %s: %s", host,
                    X509_verify_cert_error_string(verdict));
    }
}

/* Alerts by which a server says that it does not want our certificate. */
static bool refused_us(const struct rs_kmip_link *link, int reason)
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
static int tls_fault(struct rs_kmip_link *link, int ssl_error, int saved_errno, struct rs_kmip_error *error)
{
    unsigned long e = ERR_peek_last_error();
    long verdict = SSL_get_verify_result(link->ssl);
    int reason = ERR_GET_REASON(e);
    ERR_clear_error();
    if (link->pin_differs || (verdict != X509_V_OK && reason == SSL_R_CERTIFICATE_VERIFY_FAILED))
        return certificate_fault(link, verdict, error);
    if (refused_us(link, reason))
        return fail(error, RS_KMIP_REFUSED_US,
                    "key server %s does not accept our client certificate (%s): have it trusted there",
                    link->host, ERR_reason_error_string(e));
    if (ssl_error == SSL_ERROR_SSL && reason != SSL_R_UNEXPECTED_EOF_WHILE_READING)
        return fail(error, RS_KMIP_TLS_FAILED, "key server %s: TLS failed: %s", link->host,
                    e != 0 && ERR_reason_error_string(e) != NULL ? ERR_reason_error_string(e)
                                                                 : "no reason given");
    return fail(error, RS_KMIP_DOWN, "key server %s closed the connection%s%s", link->host,
                saved_errno != 0 ? ": " : "", saved_errno != 0 ? strerror(saved_errno) : "");
}

/* After an SSL call that returned r: 1 to call it again, 0 when it is done, RESEAL_E... */
static int again(struct rs_kmip_link *link, int r, uint64_t deadline, struct rs_kmip_error *error)
{
    int saved = errno, e = SSL_get_error(link->ssl, r);
    if (r > 0) return 0;
    if (e != SSL_ERROR_WANT_READ && e != SSL_ERROR_WANT_WRITE) return tls_fault(link, e, saved, error);
    int n = wait_for(link->fd, e == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT, deadline);
    if (n == 1) return 1;
    if (n < 0) return fail(error, RS_KMIP_DOWN, "key server %s: %s", link->host, strerror(-n));
    return fail(error, RS_KMIP_HANGS, "key server %s does not answer in time", link->host);
}

static int handshake(struct rs_kmip_link *link, uint64_t deadline, struct rs_kmip_error *error)
{
    int state;
    do {
        ERR_clear_error();
        errno = 0;
        state = again(link, SSL_connect(link->ssl), deadline, error);
    } while (state == 1);
    return state;
}

static struct rs_kmip_link *new_link(const struct rs_kmip_address *server)
{
    struct rs_kmip_link *link = calloc(1, sizeof(*link));
    if (link == NULL) return NULL;
    link->fd = -1;
    (void)snprintf(link->host, sizeof(link->host), "%s", server->host);
    link->ctx = SSL_CTX_new(TLS_client_method());
    if (link->ctx == NULL || SSL_CTX_set_min_proto_version(link->ctx, TLS1_2_VERSION) != 1) {
        rs_kmip_disconnect(link);
        return NULL;
    }
    SSL_CTX_set_mode(link->ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_AUTO_RETRY);
    SSL_CTX_set_session_cache_mode(link->ctx, SSL_SESS_CACHE_OFF);
    return link;
}

static int start(struct rs_kmip_link *link, const struct rs_kmip_address *server, unsigned deadline_ms,
                 struct rs_kmip_error *error)
{
    uint64_t deadline = deadline_at(deadline_ms);
    int err = dial_any(server, deadline, &link->fd, error);
    if (err != 0) return err;
    link->ssl = SSL_new(link->ctx);
    if (link->ssl == NULL || SSL_set_fd(link->ssl, link->fd) != 1 ||
        !expect_name(link, server->name != NULL ? server->name : server->host))
        return fail(error, RS_KMIP_BAD_SETUP, "key server %s: the name cannot be verified: check it",
                    link->host);
    return handshake(link, deadline, error);
}

int rs_kmip_connect(struct rs_kmip_link **out, const struct rs_kmip_address *server,
                    const struct rs_kmip_trust *trust, unsigned deadline_ms, struct rs_kmip_error *error)
{
    struct rs_kmip_link *link = new_link(server);
    memset(error, 0, sizeof(*error));
    *out = NULL;
    if (link == NULL) return RESEAL_ENOMEM;
    int err = set_trust(link, trust, error);
    if (err == 0) err = start(link, server, deadline_ms, error);
    if (err != 0) {
        rs_kmip_disconnect(link);
        return err;
    }
    *out = link;
    return 0;
}

void rs_kmip_disconnect(struct rs_kmip_link *link)
{
    if (link == NULL) return;
    SSL_free(link->ssl);
    SSL_CTX_free(link->ctx);
    if (link->fd >= 0) close(link->fd);
    free(link);
}

void rs_kmip_link_protocol(const struct rs_kmip_link *link, const char **version, const char **cipher)
{
    *version = SSL_get_version(link->ssl);
    *cipher = SSL_get_cipher_name(link->ssl);
}

/* ---- messages ------------------------------------------------------------------------ */

static int send_all(struct rs_kmip_link *link, const uint8_t *p, size_t len, uint64_t deadline,
                    struct rs_kmip_error *error)
{
    while (len > 0) {
        size_t sent = 0;
        ERR_clear_error();
        errno = 0;
        int state = again(link, SSL_write_ex(link->ssl, p, len, &sent), deadline, error);
        if (state < 0) return state;
        p += sent;
        len -= sent;
    }
    return 0;
}

/* Short reads are no errors. */
static int receive_all(struct rs_kmip_link *link, uint8_t *p, size_t len, uint64_t deadline,
                       struct rs_kmip_error *error)
{
    while (len > 0) {
        size_t got = 0;
        ERR_clear_error();
        errno = 0;
        int r = SSL_read_ex(link->ssl, p, len, &got);
        if (r <= 0 && SSL_get_error(link->ssl, r) == SSL_ERROR_ZERO_RETURN)
            return fail(error, RS_KMIP_DOWN, "key server %s closed the connection in the middle of an answer",
                        link->host);
        int state = again(link, r, deadline, error);
        if (state < 0) return state;
        p += got;
        len -= got;
    }
    return 0;
}

int rs_kmip_exchange(struct rs_kmip_link *link, const uint8_t *request, size_t request_len, uint8_t *answer,
                     size_t room, size_t *answer_len, unsigned deadline_ms, struct rs_kmip_error *error)
{
    uint64_t deadline = deadline_at(deadline_ms);
    size_t len;
    memset(error, 0, sizeof(*error));
    int err = send_all(link, request, request_len, deadline, error);
    if (err != 0) return err;
    if (room < RS_TTLV_HEADER) return RESEAL_EINVAL;
    err = receive_all(link, answer, RS_TTLV_HEADER, deadline, error);
    if (err != 0) return err;
    if (rs_ttlv_message_len(answer, RS_TAG_RESPONSE_MESSAGE, &len) != 0 || len > room)
        return fail(error, RS_KMIP_BROKEN_ANSWER, "key server %s: what it sends is not KMIP, or too long",
                    link->host);
    *answer_len = len;
    return receive_all(link, answer + RS_TTLV_HEADER, len - RS_TTLV_HEADER, deadline, error);
}

/* ---- showing a certificate ------------------------------------------------------------- */

static int take_any(X509_STORE_CTX *store, void *arg)
{
    (void)arg;
    X509_STORE_CTX_set_error(store, X509_V_OK);
    return 1;
}

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

int rs_kmip_show(const struct rs_kmip_address *server, unsigned deadline_ms, struct rs_kmip_shown *out,
                 struct rs_kmip_error *error)
{
    struct rs_kmip_link *link = new_link(server);
    memset(error, 0, sizeof(*error));
    memset(out, 0, sizeof(*out));
    if (link == NULL) return RESEAL_ENOMEM;
    link->pinned = true; /* no name is expected */
    SSL_CTX_set_cert_verify_callback(link->ctx, take_any, NULL);
    int err = start(link, server, deadline_ms, error);
    /* A server that wants our certificate ends the handshake, after it has shown its own. */
    X509 *cert = link->ssl == NULL ? NULL : SSL_get1_peer_certificate(link->ssl);
    if (cert != NULL && fingerprint(cert, out->pin)) {
        describe(cert, out->text, sizeof(out->text));
        err = 0;
    } else if (err == 0) {
        err = fail(error, RS_KMIP_TLS_FAILED, "key server %s shows no certificate", link->host);
    }
    X509_free(cert);
    rs_kmip_disconnect(link);
    return err;
}
