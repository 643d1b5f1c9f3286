/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_TRUSTED_TPM_H
#define RS_TRUSTED_TPM_H

/*
 * A host's TPM 2.0: its endorsement key, an attestation key, quotes, and
 * sealing to PCRs. Nothing stays in the TPM between calls: small ones have three slots, so every key is
 * loaded from its blobs for the one call that needs it.
 *
 * `where` is "device:/dev/tpmrm0", or "swtpm:path=SOCKET", "swtpm:host=ADDRESS,port=N".
 *
 * All calls: 0; RESEAL_ENOSERVICE: no TPM answers; RESEAL_EAUTH: the TPM refuses (a policy that does not
 * hold, a blob of another TPM); RESEAL_EIO: anything else. One line in `why`. Threads: one.
 */

#include "providers/key/trusted/quote.h"

#define RS_TPM_SEAL_MAX 64u /* bytes that are sealed */

struct rs_tpm;

/* A key of this TPM outside of it: TPM2B_PUBLIC and TPM2B_PRIVATE. */
struct rs_tpm_key {
    struct rs_tpm_blob pub, priv;
};

RS_MUST_CHECK int rs_tpm_open(struct rs_tpm **out, const char *where, char why[RS_TRUST_WHY]);
/* NULL is allowed. */
void rs_tpm_close(struct rs_tpm *t);

/* Public area of the endorsement key (RSA, of the TCG's default template), and its certificate, DER;
 * cert->len 0 where the maker put none into the TPM. */
RS_MUST_CHECK int rs_tpm_endorsement(struct rs_tpm *t, struct rs_tpm_blob *pub, uint8_t *cert, size_t room,
                                     size_t *cert_len, char why[RS_TRUST_WHY]);

/* A new attestation key. */
RS_MUST_CHECK int rs_tpm_make_ak(struct rs_tpm *t, struct rs_tpm_key *ak, char why[RS_TRUST_WHY]);

/* Takes the credential out of what rs_credential_make() gave, when `ak` is the key it was made for. */
RS_MUST_CHECK int rs_tpm_activate(struct rs_tpm *t, const struct rs_tpm_key *ak,
                                  const struct rs_tpm_blob *blob, const struct rs_tpm_blob *secret,
                                  uint8_t credential[32], char why[RS_TRUST_WHY]);

/* A quote over the PCRs of `mask` with `qualifying` in it, and their values. */
RS_MUST_CHECK int rs_tpm_quote(struct rs_tpm *t, const struct rs_tpm_key *ak, const uint8_t qualifying[32],
                               uint32_t mask, struct rs_quote *out, char why[RS_TRUST_WHY]);

/* Seals to what the PCRs of `mask` are now; gives it back while they are the same. */
RS_MUST_CHECK int rs_tpm_seal(struct rs_tpm *t, uint32_t mask, const uint8_t *secret, size_t len,
                              struct rs_tpm_key *sealed, char why[RS_TRUST_WHY]);
RS_MUST_CHECK int rs_tpm_unseal(struct rs_tpm *t, uint32_t mask, const struct rs_tpm_key *sealed,
                                uint8_t *secret, size_t room, size_t *len, char why[RS_TRUST_WHY]);

#endif
