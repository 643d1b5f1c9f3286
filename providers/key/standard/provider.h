/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_KEY_STANDARD_PROVIDER_H
#define RS_KEY_STANDARD_PROVIDER_H

/*
 * The standard provider as a kind of key provider: a network task over the KMIP client, and a closed task
 * that looks at certificates.
 *
 * Configuration: "servers": ["host:port"], "ca": PEM or "fingerprints": ["aa:bb:..."], "certificate": PEM,
 * "user", "proxy": "host:port", "connect_s", "request_s", "cache_s", "version": "auto", "1.0" to "1.4";
 * "client": {"subject", "expires"} is what the certificate says. Secrets: "key": PEM of the certificate's private key, "password"
 * of the user, "pending-key": of a certificate request whose certificate has not come yet.
 */

#include "providers/key/provider.h"

#define RS_STANDARD_PORT "5696"

extern const struct rs_task_kind rs_task_kmip, rs_task_certificates;

/* Checks a configuration and completes it; as rs_provider_kind.check. */
int rs_standard_check(json_t *config, struct rs_secrets *secrets, char *why, size_t why_len);

/* When the first certificate of a PEM text ends, seconds since 1970; 0: it cannot be read. */
int64_t rs_standard_expires(const char *pem);

#endif
