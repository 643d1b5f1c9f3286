/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_WIRE_TLS_H
#define RS_WIRE_TLS_H

/*
 * The way to another machine: mutual TLS 1.3 or 1.2, with a deadline for
 * everything. The other side is known by its CA (and, a server, by its name), by
 * the hash of its certificate, or by that of its public key; never by less.
 *
 * Runs in a sandboxed process. Threads: a link belongs to one.
 */

#include "offload/base/bytes.h"

#include <openssl/ssl.h>

#define RS_WIRE_HASH_LEN  32u /* SHA-256 */
#define RS_WIRE_WHY_MAX   256u
#define RS_WIRE_HOST_MAX  256u
#define RS_WIRE_DIALS_MAX 8u /* addresses of one name that are tried */

/* What went wrong, as far as an administrator has to do something else for it. */
enum rs_wire_fault {
    RS_WIRE_NO_FAULT,
    RS_WIRE_BAD_SETUP,     /* our own certificate, key or CA cannot be used */
    RS_WIRE_NO_SUCH_HOST,  /* the name is not known */
    RS_WIRE_DOWN,          /* refused, unreachable, or closed without an answer */
    RS_WIRE_HANGS,         /* the deadline passed */
    RS_WIRE_CERT_EXPIRED,  /* or not valid yet */
    RS_WIRE_CERT_NAME,     /* another host's certificate */
    RS_WIRE_CERT_CA,       /* of another CA */
    RS_WIRE_CERT_PIN,      /* not the certificate, or not the key, that was confirmed */
    RS_WIRE_CERT_OTHER,    /* revoked, wrong purpose, too weak */
    RS_WIRE_REFUSED_US,    /* the other side does not take our certificate */
    RS_WIRE_TLS_FAILED,    /* no common version or cipher, broken records */
    RS_WIRE_BROKEN_ANSWER, /* not the protocol, or not the answer to what was asked */
};

struct rs_wire_error {
    enum rs_wire_fault fault;
    char why[RS_WIRE_WHY_MAX]; /* one line: what is wrong and what to do; no secret */
};

/* Fills *error and returns the status that belongs to the fault. */
__attribute__((format(printf, 3, 4))) int rs_wire_fail(struct rs_wire_error *error, enum rs_wire_fault fault,
                                                       const char *format, ...);

/*
 * PEM texts in memory that outlive the link; secret: key. Exactly one of ca, pin, spkis and
 * (of a server) any is set.
 */
struct rs_wire_trust {
    const char *ca;       /* certificates that the other's chain may end in */
    const uint8_t *pin;   /* RS_WIRE_HASH_LEN bytes: SHA-256 of its certificate, DER, */
    unsigned npins;       /* or so many times as much, any of which will do; 0 counts as 1 */
    const uint8_t *spkis; /* nspkis * RS_WIRE_HASH_LEN bytes: SHA-256 of its SubjectPublicKeyInfo, DER */
    unsigned nspkis;
    bool any;         /* any certificate, but one: who asks decides by the hashes what it may do */
    const char *cert; /* ours, with its chain */
    const char *key;  /* of it, not encrypted */
};

struct rs_wire_address {
    const char *what;   /* for messages: "key server" */
    const char *remedy; /* how its certificate comes to be trusted: "'reseal provider trust'" */
    const char *host;   /* name, IPv4 or IPv6 address */
    uint16_t port;
    const char *name;  /* that its certificate must have; NULL: host */
    const char *proxy; /* "HOST:PORT" of an HTTP proxy that the way leads through; NULL: none */
};

/* Who the other side is. */
struct rs_wire_identity {
    uint8_t cert[RS_WIRE_HASH_LEN]; /* SHA-256 of its certificate, DER */
    uint8_t spki[RS_WIRE_HASH_LEN]; /* SHA-256 of its public key, DER */
};

struct rs_wire_link;

/* Connects, all within deadline_ms. 0, or RESEAL_ENOSERVICE, RESEAL_ETIMEDOUT, RESEAL_EAUTH (trust),
 * RESEAL_EINVAL, RESEAL_ENOMEM, with *error filled. */
RS_MUST_CHECK int rs_wire_connect(struct rs_wire_link **out, const struct rs_wire_address *server,
                                  const struct rs_wire_trust *trust, unsigned deadline_ms,
                                  struct rs_wire_error *error);

/* All of it, within deadline_ms; a failed link is of no use any more. As rs_wire_connect(). */
RS_MUST_CHECK int rs_wire_send(struct rs_wire_link *link, const void *p, size_t len, unsigned deadline_ms,
                               struct rs_wire_error *error);
RS_MUST_CHECK int rs_wire_receive(struct rs_wire_link *link, void *p, size_t len, unsigned deadline_ms,
                                  struct rs_wire_error *error);

/* "TLSv1.2", and the cipher suite. */
void rs_wire_protocol(const struct rs_wire_link *link, const char **version, const char **cipher);

/* When the other side's certificate ends, seconds since 1970; 0: not known. */
int64_t rs_wire_expires(const struct rs_wire_link *link);

/* RESEAL_EAUTH: it showed no certificate. */
RS_MUST_CHECK int rs_wire_identity_of(SSL *ssl, struct rs_wire_identity *out);
RS_MUST_CHECK int rs_wire_peer(const struct rs_wire_link *link, struct rs_wire_identity *out);

/* NULL is allowed. */
void rs_wire_disconnect(struct rs_wire_link *link);

/* The certificate that a server shows, without trusting it and without showing it ours; for an administrator
 * to confirm. As rs_wire_connect(). */
struct rs_wire_shown {
    struct rs_wire_identity id;
    char text[512]; /* one line: subject, issuer, dates */
};
RS_MUST_CHECK int rs_wire_show(const struct rs_wire_address *server, unsigned deadline_ms,
                               struct rs_wire_shown *out, struct rs_wire_error *error);

/* ---- certificates ---------------------------------------------------------------- */

/* A new P-256 key and a certificate signed by itself, valid for ten years, both PEM; freed with
 * OPENSSL_free(), the key with its length by OPENSSL_clear_free(). RESEAL_EIO, RESEAL_EINVAL (subject). */
RS_MUST_CHECK int rs_wire_make_identity(const char *common_name, char **cert, char **key);

/* Of the first certificate of a PEM text. RESEAL_EFORMAT. */
RS_MUST_CHECK int rs_wire_identity_of_pem(const char *pem, struct rs_wire_identity *out);

/* ---- for both halves (tls.c) ------------------------------------------------------ */

/* Our certificate and key, and whom to trust; the name that a server must have is the link's own matter. */
RS_MUST_CHECK int rs_wire_set_trust(SSL_CTX *ctx, const struct rs_wire_trust *trust,
                                    struct rs_wire_error *error);

#endif
