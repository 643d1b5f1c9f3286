/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_TRUSTED_AGENT_H
#define RS_TRUSTED_AGENT_H

/*
 * This host towards the services: its TLS identity, its enrolment, its token. All of it lives in the
 * secrets and the configuration of the provider; an agent is what a task makes of them.
 */

#include "providers/key/task.h"
#include "providers/key/trusted/tpm.h"
#include "providers/key/wire/frame.h"

struct rs_agent {
    struct rs_task *task; /* its yields are the secrets as they will be */
    json_t *config;       /* as it will be */
    struct rs_wire_identity id;
    struct rs_tpm_key *ak; /* key memory */
    bool enrolled;
    bool stale; /* this TPM does not take the attestation key any more */
};

/* Fills yields from the task's secrets, and makes what is missing of the TLS identity. As rs_task_kind.run.
 */
RS_MUST_CHECK int rs_agent_open(struct rs_agent *a, struct rs_task *task);
void rs_agent_close(struct rs_agent *a);

/* Enrols where that was not done yet, and gets a new token when there is none, the one that is there lived
 * half of its life, or `anew`. */
RS_MUST_CHECK int rs_agent_attest(struct rs_agent *a, bool anew);

/* Asks the services of that list ("attest", "keys") for something, the next when one cannot be reached.
 * `answer` is released by the caller. */
RS_MUST_CHECK int rs_agent_ask(struct rs_agent *a, const char *list, const struct rs_wire_message *request,
                               struct rs_wire_message *answer);

/* One service of a list by itself: its "hello". *version is its TLS version, static. */
RS_MUST_CHECK int rs_agent_hello(struct rs_agent *a, const char *list, size_t index, json_t **answer,
                                 const char **version, struct rs_wire_error *error);

const char *rs_agent_token(const struct rs_agent *a);

#endif
