/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/key/trusted/token.h"

#include "providers/key/wire/frame.h"
#include "reseal/reseal.h"

#include <jose/jose.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/ecdsa.h>
#include <openssl/x509.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define PART_MAX       3072u /* bytes of a decoded part */
#define PART_TEXT      (PART_MAX * 4 / 3 + 4)
#define COORDINATE     32u /* bytes of a P-256 number */
#define SIGNATURE_TEXT (2 * COORDINATE * 4 / 3 + 4)
#define KID_LEN        16u
#define KID_ROOM       (KID_LEN * 4 / 3 + 4)

/* ---- keys ---------------------------------------------------------------------------- */

EVP_PKEY *rs_token_make_key(void)
{
    return EVP_EC_gen("P-256");
}

/* SHA-256 of the key, 16 bytes of it: who has the key computes the same. */
static bool kid_of(EVP_PKEY *key, char out[KID_ROOM])
{
    uint8_t hash[32];
    unsigned char *der = NULL;
    int len = i2d_PUBKEY(key, &der);
    bool ok = len > 0 && EVP_Digest(der, (size_t)len, hash, NULL, EVP_sha256(), NULL) == 1;
    OPENSSL_free(der);
    if (ok) rs_wire_to_text(hash, KID_LEN, out);
    return ok;
}

json_t *rs_token_publish(EVP_PKEY *key)
{
    uint8_t point[65];
    size_t len = 0;
    char kid[KID_ROOM];
    if (!kid_of(key, kid) ||
        EVP_PKEY_get_octet_string_param(key, OSSL_PKEY_PARAM_PUB_KEY, point, sizeof(point), &len) != 1 ||
        len != 65)
        return NULL;
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:o, s:o}", "kty", "EC", "crv", "P-256", "alg", "ES256",
                     "use", "sig", "kid", kid, "x", rs_wire_json(point + 1, COORDINATE), "y",
                     rs_wire_json(point + 1 + COORDINATE, COORDINATE));
}

/* A member that is a text; NULL: not. */
static const char *text_of(const json_t *object, const char *name)
{
    return json_string_value(json_object_get(object, name));
}

static bool is_text(const json_t *object, const char *name, const char *want)
{
    const char *is = text_of(object, name);
    return is != NULL && strcmp(is, want) == 0;
}

json_t *rs_token_public_key(const json_t *jwk)
{
    static const char *const kept[] = {"alg", "crv", "kid", "kty", "use", "x", "y"};
    json_t *out = json_object();
    for (unsigned i = 0; i < RS_ARRAY_LEN(kept); i++) {
        json_t *v = json_object_get(jwk, kept[i]);
        if (json_is_string(v)) (void)json_object_set(out, kept[i], v);
    }
    if (is_text(out, "kty", "EC") && is_text(out, "crv", "P-256") && is_text(out, "alg", "ES256") &&
        text_of(out, "kid") != NULL && text_of(out, "x") != NULL && text_of(out, "y") != NULL)
        return out;
    json_decref(out);
    return NULL;
}

/* ---- signing ------------------------------------------------------------------------- */

static json_t *claims_json(const struct rs_token_claims *c)
{
    json_t *cnf = json_object(), *measures = json_object();
    (void)json_object_set_new(cnf, "x5t#S256", rs_wire_json(c->cert, sizeof(c->cert)));
    (void)json_object_set_new(measures, "pcrs", rs_wire_json(c->measures, sizeof(c->measures)));
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:o, s:o}", "iss", c->issuer, "sub", c->host,
                     "aud", c->audience, "jti", c->id, "policy", c->policy, "iat", (json_int_t)c->issued,
                     "nbf", (json_int_t)c->not_before, "exp", (json_int_t)c->expires, "cnf", cnf, "measres",
                     measures);
}

/* An object as a part of a token. */
static bool encode(const json_t *object, char out[PART_TEXT])
{
    char text[PART_MAX];
    size_t len = json_dumpb(object, text, sizeof(text), JSON_COMPACT);
    if (len == 0 || len > sizeof(text)) return false;
    rs_wire_to_text(text, len, out);
    return true;
}

/* The two numbers of an ECDSA signature, 32 bytes each, as JWS wants them. */
static bool raw_signature(const unsigned char *der, size_t len, uint8_t out[2 * COORDINATE])
{
    ECDSA_SIG *sig = d2i_ECDSA_SIG(NULL, &der, (long)len);
    bool ok = sig != NULL && BN_bn2binpad(ECDSA_SIG_get0_r(sig), out, COORDINATE) == COORDINATE &&
              BN_bn2binpad(ECDSA_SIG_get0_s(sig), out + COORDINATE, COORDINATE) == COORDINATE;
    ECDSA_SIG_free(sig);
    return ok;
}

static bool sign(EVP_PKEY *key, const char *text, char out[SIGNATURE_TEXT])
{
    unsigned char der[128];
    uint8_t raw[2 * COORDINATE];
    size_t len = sizeof(der);
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    bool ok = md != NULL && EVP_DigestSignInit(md, NULL, EVP_sha256(), NULL, key) == 1 &&
              EVP_DigestSign(md, der, &len, (const unsigned char *)text, strlen(text)) == 1 &&
              raw_signature(der, len, raw);
    EVP_MD_CTX_free(md);
    if (ok) rs_wire_to_text(raw, sizeof(raw), out);
    return ok;
}

int rs_token_sign(EVP_PKEY *key, const struct rs_token_claims *claims, char **out)
{
    char kid[KID_ROOM], first[PART_TEXT], body[PART_TEXT], mark[SIGNATURE_TEXT];
    *out = NULL;
    if (!kid_of(key, kid)) return RESEAL_EINVAL;
    json_t *header = json_pack("{s:s, s:s, s:s}", "alg", "ES256", "kid", kid, "typ", "JWT");
    json_t *payload = claims_json(claims);
    bool ok = header != NULL && payload != NULL && encode(header, first) && encode(payload, body) &&
              strlen(first) + strlen(body) + SIGNATURE_TEXT + 2 < RS_TOKEN_MAX;
    json_decref(header);
    json_decref(payload);
    char *text = ok ? malloc(RS_TOKEN_MAX) : NULL;
    if (text == NULL) return ok ? RESEAL_ENOMEM : RESEAL_EINVAL;
    int n = snprintf(text, RS_TOKEN_MAX, "%s.%s", first, body);
    if (!sign(key, text, mark)) {
        free(text);
        return RESEAL_EIO;
    }
    (void)snprintf(text + n, RS_TOKEN_MAX - (size_t)n, ".%s", mark);
    *out = text;
    return 0;
}

/* ---- verifying ----------------------------------------------------------------------- */

__attribute__((format(printf, 3, 4))) static int refuse(int status, char why[RS_TRUST_WHY],
                                                        const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)vsnprintf(why, RS_TRUST_WHY, format, args);
    va_end(args);
    return status;
}

/* The token cut at its two dots. */
struct parts {
    char text[RS_TOKEN_MAX];
    const char *header, *payload, *signature;
};

static bool cut(const char *token, struct parts *p)
{
    size_t len = strlen(token);
    if (len >= sizeof(p->text)) return false;
    memcpy(p->text, token, len + 1);
    char *first = strchr(p->text, '.'), *second = first == NULL ? NULL : strchr(first + 1, '.');
    if (second == NULL || strchr(second + 1, '.') != NULL) return false;
    *first = *second = '\0';
    p->header = p->text;
    p->payload = first + 1;
    p->signature = second + 1;
    return true;
}

static json_t *decode(const char *part)
{
    uint8_t bytes[PART_MAX];
    int64_t len = rs_wire_from_text(part, bytes, sizeof(bytes));
    json_t *v = len <= 0 ? NULL : json_loadb((const char *)bytes, (size_t)len, JSON_REJECT_DUPLICATES, NULL);
    if (json_is_object(v)) return v;
    json_decref(v);
    return NULL;
}

/* The header decides nothing: it may only say what is the case anyway. */
static int check_header(const json_t *header, const json_t *keys, const json_t **key, char why[RS_TRUST_WHY])
{
    const char *kid = text_of(header, "kid");
    size_t i;
    json_t *k;
    if (!is_text(header, "alg", "ES256"))
        return refuse(RESEAL_EAUTH, why,
                      "the token is not signed with ES256: no other algorithm is taken, nor none");
    if (json_object_get(header, "crit") != NULL)
        return refuse(RESEAL_EAUTH, why, "the token needs extensions that are not known here");
    *key = NULL;
    json_array_foreach(keys, i, k) if (kid != NULL && is_text(k, "kid", kid)) *key = k;
    return *key != NULL ? 0
                        : refuse(RESEAL_EAUTH, why,
                                 "the token is not from an attestation service that is trusted here");
}

static int check_signature(const struct parts *p, const json_t *key, char why[RS_TRUST_WHY])
{
    json_t *pub = rs_token_public_key(key);
    json_t *jws = json_pack("{s:s, s:s, s:s}", "protected", p->header, "payload", p->payload, "signature",
                            p->signature);
    bool ok = pub != NULL && jws != NULL && jose_jws_ver(NULL, jws, NULL, pub, false);
    json_decref(jws);
    json_decref(pub);
    return ok ? 0 : refuse(RESEAL_EAUTH, why, "the token's signature is wrong: it was changed");
}

static bool take_text(const json_t *claims, const char *name, char *out, size_t room)
{
    const char *v = text_of(claims, name);
    size_t len = v == NULL ? 0 : strlen(v);
    if (len == 0 || len >= room) return false;
    memcpy(out, v, len + 1);
    return true;
}

static bool take_time(const json_t *claims, const char *name, int64_t *out)
{
    const json_t *v = json_object_get(claims, name);
    *out = json_integer_value(v);
    return json_is_integer(v) && *out > 0 && *out < INT64_C(1) << 40;
}

static bool take_claims(const json_t *claims, struct rs_token_claims *c)
{
    const json_t *cnf = json_object_get(claims, "cnf"), *measures = json_object_get(claims, "measres");
    return take_text(claims, "iss", c->issuer, sizeof(c->issuer)) &&
           take_text(claims, "aud", c->audience, sizeof(c->audience)) &&
           take_text(claims, "sub", c->host, sizeof(c->host)) &&
           take_text(claims, "jti", c->id, sizeof(c->id)) &&
           take_text(claims, "policy", c->policy, sizeof(c->policy)) &&
           take_time(claims, "iat", &c->issued) && take_time(claims, "nbf", &c->not_before) &&
           take_time(claims, "exp", &c->expires) &&
           rs_wire_member(cnf, "x5t#S256", c->cert, sizeof(c->cert)) == (int64_t)sizeof(c->cert) &&
           rs_wire_member(measures, "pcrs", c->measures, sizeof(c->measures)) == (int64_t)sizeof(c->measures);
}

static int check_claims(const struct rs_token_claims *c, const struct rs_token_rules *rules,
                        char why[RS_TRUST_WHY])
{
    if (strcmp(c->audience, rules->audience) != 0)
        return refuse(RESEAL_EAUTH, why, "the token is for another service");
    if (rules->now >= c->expires + RS_TOKEN_LEEWAY)
        return refuse(RESEAL_EAUTH, why, "the token expired %lld s ago: attest again, or set the clocks",
                      (long long)(rules->now - c->expires));
    if (rules->now + RS_TOKEN_LEEWAY < c->not_before)
        return refuse(RESEAL_EAUTH, why, "the token is not valid yet: set the clocks");
    if (!rs_equal_ct(c->cert, rules->cert, 32))
        return refuse(RESEAL_EAUTH, why,
                      "the token is of another host: it is bound to that one's TLS certificate");
    return 0;
}

int rs_token_verify(const char *token, const struct rs_token_rules *rules, struct rs_token_claims *out,
                    char why[RS_TRUST_WHY])
{
    struct parts p;
    const json_t *key = NULL;
    memset(out, 0, sizeof(*out));
    if (!cut(token, &p)) return refuse(RESEAL_EFORMAT, why, "that is no token");
    json_t *header = decode(p.header);
    int err = header == NULL ? refuse(RESEAL_EFORMAT, why, "the token's header cannot be read")
                             : check_header(header, rules->keys, &key, why);
    json_decref(header);
    if (err == 0) err = check_signature(&p, key, why);
    if (err != 0) return err;
    json_t *claims = decode(p.payload);
    bool ok = claims != NULL && take_claims(claims, out);
    json_decref(claims);
    if (!ok) return refuse(RESEAL_EFORMAT, why, "the token lacks claims, or they are of another form");
    return check_claims(out, rules, why);
}
