/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_TESTS_TRUSTED_H
#define RS_TESTS_TRUSTED_H

/* A reseal-attestd and a reseal-keyproviderd of their own, and the TPM of a host. */

#include "providers/key/trusted/tpm.h"
#include "tests/support/swtpm.h"

#include <jansson.h>

#define TRUSTED_MASK (1u << 0 | 1u << 7 | 1u << 14)
#define TRUSTED_NAME "site-a"

struct trusted {
    char folder[64];
    struct swtpm tpm;
    pid_t attestd, keyproviderd;
    uint16_t attest_port, keys_port;
    EVP_PKEY *foreign; /* a key that the key provider service trusts too: to sign what attestd would not */
};

/* Starts a TPM and the services; the policy allows the PCRs as they are. Ends the test when one does not
 * start. */
void trusted_start(struct trusted *t);
/* Ends what runs and removes the folder. */
void trusted_stop(struct trusted *t);

void trusted_start_attestd(struct trusted *t);
/* Its primary key: a file; further members of its configuration (taken) replace ours. NULL: none. */
void trusted_start_keys(struct trusted *t, json_t *more);
void trusted_stop_attestd(struct trusted *t);
void trusted_stop_keys(struct trusted *t);

/* What the key provider service publishes, with the TPM of this host; the caller's. */
json_t *trusted_published(const struct trusted *t);

#endif
