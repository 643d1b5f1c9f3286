/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_TRUSTED_PROVIDER_H
#define RS_TRUSTED_PROVIDER_H

/*
 * The trusted provider as a kind of key provider: this host proves itself by its TPM to an attestation
 * service, and asks a key provider service for keys with the token it got.
 *
 * Configuration: what 'reseal-keyproviderd --publish' prints, or "name": of the key provider service,
 * "attest" and "keys": [{"address", "spki"}]; "tpm": where the TPM is (RS_TRUSTED_TPM); "cache_s". The task
 * adds "host": this host's id, "token_from" and "token_until": seconds since 1970. Secrets, all made here:
 * "tls-cert", "tls-key", "ak-public", "ak-private", "token".
 */

#include "providers/key/provider.h"

#define RS_TRUSTED_TPM     "device:/dev/tpmrm0"
#define RS_TRUSTED_SERVERS 8u

extern const struct rs_task_kind rs_task_trusted;

/* Checks a configuration and brings it into the second form; as rs_provider_kind.check. */
int rs_trusted_check(json_t *config, struct rs_secrets *secrets, char *why, size_t why_len);

#endif
