/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_TRUSTED_TOKEN_H
#define RS_TRUSTED_TOKEN_H

/*
 * The token by which an attestation service says that a host passed: a JWS
 * (RFC 7515) in compact form, ES256 and nothing else, short-lived, and bound to the
 * host's TLS certificate (RFC 8705): who steals it can do nothing with it.
 */

#include "providers/key/trusted/quote.h"

#include <jansson.h>

#define RS_TOKEN_MAX    4096u /* characters, with NUL */
#define RS_TOKEN_LEEWAY 30    /* seconds that clocks may differ */
#define RS_HOST_ID_LEN  43u   /* characters of a host's id: base64url of SHA-256 of its endorsement key */

struct rs_token_claims {
    char issuer[128], audience[128];
    char host[RS_HOST_ID_LEN + 1]; /* sub */
    char id[24];                   /* jti */
    char policy[64];
    uint8_t cert[32];                    /* cnf x5t#S256: SHA-256 of the host's TLS certificate */
    uint8_t measures[32];                /* digest over the PCRs */
    int64_t issued, not_before, expires; /* seconds since 1970 */
};

/* A new P-256 key to sign tokens with: NULL: no memory, no randomness. */
EVP_PKEY *rs_token_make_key(void);
/* What is published of it: a JWK with kid (SHA-256 of the key), alg and use. NULL: no memory. */
json_t *rs_token_publish(EVP_PKEY *key);
/* The members of a published JWK that count here; NULL when it is no key for ES256. */
json_t *rs_token_public_key(const json_t *jwk);

/* The private key never is a JWK: it stays where libcrypto keeps it. The id and times of `claims` are the
 * caller's to draw and set. *out is freed with free(). RESEAL_EINVAL, RESEAL_ENOMEM. */
RS_MUST_CHECK int rs_token_sign(EVP_PKEY *key, const struct rs_token_claims *claims, char **out);

struct rs_token_rules {
    const json_t *keys; /* array of public JWKs: those of attestation services that are trusted */
    const char *audience;
    const uint8_t *cert; /* of the TLS client that shows the token */
    int64_t now;
};

/* RESEAL_EFORMAT: no token; RESEAL_EAUTH: not by a trusted key, not for us, not for this client, not now. One
 * line in `why`; no part of the token is in it. */
RS_MUST_CHECK int rs_token_verify(const char *token, const struct rs_token_rules *rules,
                                  struct rs_token_claims *out, char why[RS_TRUST_WHY]);

#endif
