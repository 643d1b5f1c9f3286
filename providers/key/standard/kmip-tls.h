/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_KMIP_TLS_H
#define RS_KMIP_TLS_H

/*
 * The way to a KMIP server: mutual TLS 1.2 or 1.3, with a deadline for
 * everything. The server is known by its CA and its name, or by the
 * fingerprint of its certificate that an administrator has confirmed; never
 * by less.
 *
 * Runs in a sandboxed child of reseal-keyd. Threads: a link belongs to one.
 */

#include "offload/base/bytes.h"

#define RS_KMIP_PORT     5696u /* IANA */
#define RS_KMIP_PIN_LEN  32u   /* SHA-256 of the certificate, DER */
#define RS_KMIP_PINS_MAX 16u
#define RS_KMIP_WHY_MAX  256u
#define RS_KMIP_HOST_MAX 256u

/* What went wrong, as far as an administrator has to do something else for it: the faults of
 * providers/key/wire/tls.h, and our own. */
enum rs_kmip_fault {
    RS_KMIP_NO_FAULT,
    RS_KMIP_BAD_SETUP,      /* our own certificate, key or CA cannot be used */
    RS_KMIP_NO_SUCH_HOST,   /* the name is not known */
    RS_KMIP_DOWN,           /* refused, unreachable, or closed without an answer */
    RS_KMIP_HANGS,          /* the deadline passed */
    RS_KMIP_CERT_EXPIRED,   /* or not valid yet */
    RS_KMIP_CERT_NAME,      /* another host's certificate */
    RS_KMIP_CERT_CA,        /* of another CA */
    RS_KMIP_CERT_PIN,       /* not the certificate that was confirmed */
    RS_KMIP_CERT_OTHER,     /* revoked, wrong purpose, too weak */
    RS_KMIP_REFUSED_US,     /* the server does not take our certificate */
    RS_KMIP_TLS_FAILED,     /* no common version or cipher, broken records */
    RS_KMIP_BROKEN_ANSWER,  /* not KMIP, or not the answer to what was asked */
    RS_KMIP_SERVER_REFUSES, /* a KMIP failure; `reason` says which */
};

struct rs_kmip_error {
    enum rs_kmip_fault fault;
    uint32_t reason;           /* of RS_KMIP_SERVER_REFUSES: enum rs_kmip_reason */
    char why[RS_KMIP_WHY_MAX]; /* one line: what is wrong and what to do; no secret */
};

/* PEM texts in memory that outlive the link; secret: key. Exactly one of ca and pin is set. */
struct rs_kmip_trust {
    const char *ca;     /* certificates that a server's chain may end in */
    const uint8_t *pin; /* RS_KMIP_PIN_LEN bytes, */
    unsigned npins;     /* or so many times as much: each server may have its own; 0 counts as 1 */
    const char *cert;   /* ours, with its chain */
    const char *key;    /* of it, not encrypted */
};

struct rs_kmip_address {
    const char *host; /* name, IPv4 or IPv6 address */
    uint16_t port;
    const char *name;  /* that its certificate must have; NULL: host */
    const char *proxy; /* "HOST:PORT" of an HTTP proxy that the way leads through; NULL: none */
};

struct rs_kmip_link;

/* Connects, all within deadline_ms. 0, or RESEAL_ENOSERVICE, RESEAL_ETIMEDOUT, RESEAL_EAUTH (trust),
 * RESEAL_EINVAL, RESEAL_ENOMEM, with *error filled. */
RS_MUST_CHECK int rs_kmip_connect(struct rs_kmip_link **out, const struct rs_kmip_address *server,
                                  const struct rs_kmip_trust *trust, unsigned deadline_ms,
                                  struct rs_kmip_error *error);

/*
 * Sends a request and reads the whole answer into `answer`: nothing is read
 * beyond it. 0, or RESEAL_ENOSERVICE, RESEAL_ETIMEDOUT, RESEAL_EPROTO (not
 * KMIP, or longer than `room`); then the link is of no use any more.
 */
RS_MUST_CHECK int rs_kmip_exchange(struct rs_kmip_link *link, const uint8_t *request, size_t request_len,
                                   uint8_t *answer, size_t room, size_t *answer_len, unsigned deadline_ms,
                                   struct rs_kmip_error *error);

/* "TLSv1.2", and the cipher suite; for `reseal provider test`. */
void rs_kmip_link_protocol(const struct rs_kmip_link *link, const char **version, const char **cipher);

/* When the server's certificate ends, seconds since 1970; 0: not known. */
int64_t rs_kmip_link_expires(const struct rs_kmip_link *link);

/* NULL is allowed. */
void rs_kmip_disconnect(struct rs_kmip_link *link);

/*
 * The certificate that a server shows, without trusting it and without
 * showing it ours: its fingerprint and one line of subject, issuer and dates,
 * for an administrator to confirm. As rs_kmip_connect().
 */
struct rs_kmip_shown {
    uint8_t pin[RS_KMIP_PIN_LEN];
    char text[512];
};
RS_MUST_CHECK int rs_kmip_show(const struct rs_kmip_address *server, unsigned deadline_ms,
                               struct rs_kmip_shown *out, struct rs_kmip_error *error);

#endif
