/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_TRUSTED_QUOTE_H
#define RS_TRUSTED_QUOTE_H

/*
 * Verifying what a TPM 2.0 said, without a TPM: attestation keys, quotes, and
 * certificates of endorsement keys. All input is hostile.
 *
 * Public areas, quotes and signatures travel as the TPM gives them: TPM2B_PUBLIC, TPMS_ATTEST,
 * TPMT_SIGNATURE, big-endian.
 */

#include "offload/base/bytes.h"

#include <openssl/evp.h>

#define RS_PCRS         24u
#define RS_PCR_LEN      32u /* the SHA-256 bank */
#define RS_TPM_NAME_LEN 34u /* hash algorithm, SHA-256 of the public area */
#define RS_TPM_BLOB_MAX 1024u
#define RS_TRUST_WHY    256u

struct rs_tpm_blob {
    uint16_t len;
    uint8_t bytes[RS_TPM_BLOB_MAX];
};

struct rs_pcrs {
    uint32_t mask; /* bit i: PCR i is there */
    uint8_t value[RS_PCRS][RS_PCR_LEN];
};

struct rs_quote {
    struct rs_tpm_blob attest, signature;
    struct rs_pcrs pcrs;
};

/* What a TPM says about its own time. */
struct rs_tpm_clock {
    uint64_t ms;
    uint32_t resets, restarts;
    bool safe; /* ms never was higher */
};

/* "0,7,14" as a mask; 0: no list of PCRs, or an empty one. */
uint32_t rs_pcr_mask(const char *list);

/* An attestation key must be a restricted P-256 signing key that was made in a TPM and cannot leave it, with
 * ECDSA and SHA-256. RESEAL_EFORMAT, RESEAL_EAUTH with a line in `why`. */
RS_MUST_CHECK int rs_ak_check(const struct rs_tpm_blob *pub, uint8_t name[RS_TPM_NAME_LEN],
                              char why[RS_TRUST_WHY]);

/* What a quote is asked to hold: SHA-256(nonce | SHA-256 of the host's TLS public key). */
void rs_quote_qualify(const uint8_t nonce[32], const uint8_t spki[32], uint8_t out[32]);

/*
 * Signature by that key, made by a TPM, over that nonce and TLS key and exactly those PCRs with the values
 * that came along. `digest` is that over the PCRs. RESEAL_EFORMAT; RESEAL_EAUTH with a line in `why`.
 */
RS_MUST_CHECK int rs_quote_verify(const struct rs_quote *q, const struct rs_tpm_blob *ak,
                                  const uint8_t nonce[32], const uint8_t spki[32], uint32_t mask,
                                  struct rs_tpm_clock *clock, uint8_t digest[32], char why[RS_TRUST_WHY]);

/* True when that key has signed it, whatever it says. */
bool rs_quote_signed(const struct rs_quote *q, const struct rs_tpm_blob *ak);

/* A TPM's time does not go back: RESEAL_EAUTH when it has, compared with what was seen last. */
RS_MUST_CHECK int rs_tpm_clock_check(const struct rs_tpm_clock *last, const struct rs_tpm_clock *now,
                                     char why[RS_TRUST_WHY]);

/* ---- endorsement keys --------------------------------------------------------------- */

/* The RSA key of an endorsement key's public area, and the identity of the host: SHA-256 of its
 * SubjectPublicKeyInfo. The key is the caller's. RESEAL_EFORMAT; RESEAL_ENOSUPPORT: not RSA. */
RS_MUST_CHECK int rs_ek_key(const struct rs_tpm_blob *pub, EVP_PKEY **key, uint8_t id[32]);

/* The certificate (DER) is of that key, for endorsement (EKU 2.23.133.8.1), and its chain ends in one of
 * `cas` (PEM, roots and intermediates). RESEAL_EAUTH, RESEAL_EFORMAT, RESEAL_EINVAL (cas) with a line. */
RS_MUST_CHECK int rs_ek_certificate(const uint8_t *der, size_t len, EVP_PKEY *key, const char *cas,
                                    char why[RS_TRUST_WHY]);

#endif
