/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_TRUSTED_ATTEST_SERVICE_H
#define RS_TRUSTED_ATTEST_SERVICE_H

/*
 * The attestation service: enrols hosts, whose TPM proves itself, and gives those whose
 * PCRs the policy allows a token for a while.
 *
 *   hello   {}                                                   -> {"issuer", "policy"}
 *   enrol   {"ek": public area, "certificate": DER, "ak": public area} -> {"challenge", "credential",
 * "secret"} prove   {"challenge", "proof": rs_enrol_proof()}             -> {"host"} nonce   {} -> {"nonce",
 * "pcrs": mask} attest  {"host", "nonce", "audience", "quote", "signature", "values": [PCRs in order]}
 *                                                                -> {"token", "lives_s"}
 *
 * Bytes are base64url texts. A caller is known by its TLS key and nothing else; challenges and nonces serve
 * once, for the one who asked, for a minute.
 */

#include "providers/key/trusted/daemon.h"
#include "providers/key/trusted/token.h"

#define RS_ATTEST_HOSTS                                                                                      \
    "hosts"                    /* folder of records in the state folder: what is removed there is forgotten */
#define RS_ATTEST_KEYS    16u  /* attestation keys of one host */
#define RS_ATTEST_PENDING 256u /* challenges and nonces at a time */

struct rs_attest_policy {
    const char *id;
    uint32_t mask;
    const json_t *allowed; /* "PCR" -> [hexadecimal values] */
};

struct rs_attest_pending {
    bool nonce;        /* else a challenge */
    uint64_t until_ns; /* 0: free */
    uint8_t id[32], spki[32];
    uint8_t credential[32], host[32], name[RS_TPM_NAME_LEN];
    struct rs_tpm_blob ak;
};

struct rs_attest {
    struct rs_daemon *daemon;
    const char *issuer;
    const json_t *audiences; /* array of texts */
    struct rs_attest_policy policy;
    char *ek_cas;             /* PEM; NULL: none */
    const json_t *ek_allowed; /* array of host ids */
    EVP_PKEY *signing_key;
    int64_t token_s;
    struct rs_attest_pending *pending; /* key memory */
};

/* A policy's PCRs must each have values. One line in `why`. */
RS_MUST_CHECK int rs_attest_policy(const json_t *policy, struct rs_attest_policy *out,
                                   char why[RS_TRUST_WHY]);

/* As rs_wire_handle; `arg` is a struct rs_attest. */
void rs_attest_handle(void *arg, const struct rs_wire_caller *caller, const struct rs_wire_message *request,
                      struct rs_wire_message *answer);

#endif
