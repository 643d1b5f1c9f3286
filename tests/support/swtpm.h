/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_TESTS_SWTPM_H
#define RS_TESTS_SWTPM_H

/* A TPM in software, made by swtpm.sh. */

#include <stdint.h>
#include <sys/types.h>

struct swtpm {
    pid_t pid;
    const char *folder, *name;
    char where[128]; /* for rs_tpm_open() */
};

/* Starts it, and waits until it answers; ends the test when it does not start. */
void swtpm_start(struct swtpm *t, const char *folder, const char *name, const char *ca);
void swtpm_stop(struct swtpm *t);

/* Extends a PCR with SHA-256 of a text, by tpm2_pcrextend: what a changed boot does. */
void swtpm_extend(const struct swtpm *t, unsigned pcr, const char *text);

#endif
