/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_TRUSTED_CREDENTIAL_H
#define RS_TRUSTED_CREDENTIAL_H

/*
 * TPM2_MakeCredential without a TPM: a secret that only the TPM with that
 * endorsement key gives back, and only when the key of that name is in it too.
 * That proves the two belong together.
 */

#include "providers/key/trusted/quote.h"

#define RS_CREDENTIAL_LEN 32u

/*
 * `ek` as rs_ek_key(); `blob` is a TPM2B_ID_OBJECT and `secret` a TPM2B_ENCRYPTED_SECRET. RESEAL_EFORMAT,
 * RESEAL_ENOSUPPORT (an endorsement key that is not RSA with AES-CFB and SHA-256), RESEAL_EIO.
 */
RS_MUST_CHECK int rs_credential_make(const struct rs_tpm_blob *ek, const uint8_t name[RS_TPM_NAME_LEN],
                                     const uint8_t credential[RS_CREDENTIAL_LEN], struct rs_tpm_blob *blob,
                                     struct rs_tpm_blob *secret);

/* HMAC-SHA-256(credential, "reseal enrol v1" | challenge | host id | name of the attestation key | TLS key).
 */
RS_MUST_CHECK bool rs_enrol_proof(const uint8_t credential[32], const uint8_t challenge[32],
                                  const uint8_t host[32], const uint8_t name[RS_TPM_NAME_LEN],
                                  const uint8_t spki[32], uint8_t out[32]);

#endif
