/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_TRUSTED_SEAL_H
#define RS_TRUSTED_SEAL_H

/*
 * The host key of the state folder, sealed by the TPM to PCRs: it opens on this machine, booted like this,
 * and nowhere else. RESEAL_TPM in the environment says where the TPM is (RS_TRUSTED_TPM; "none": not used),
 * RESEAL_TPM_PCRS which PCRs of the SHA-256 bank ("7", secure boot).
 */

#include "providers/key/store.h"
#include "providers/key/task.h"

#define RS_TPM_PCRS "7"

extern const struct rs_task_kind rs_task_tpm;

/* For rs_store_open(). A TPM that cannot seal is told on stderr, and the key is kept in a file. */
struct rs_store_keeper rs_tpm_keeper(struct rs_keyd *d);

#endif
