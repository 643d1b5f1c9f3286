/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_CLI_PROVIDER_H
#define RS_CLI_PROVIDER_H

/*
 * reseal provider: the key providers of the service.
 *
 *   provider.c          the table of commands
 *   provider-options.c  the command line and its help
 *   provider-run.c      the service, requests, what came of them
 *   provider-change.c   add, update, trust, csr, certificate, default, remove
 *   provider-show.c     list, test
 *   provider-backup.c   export, import
 */

#include "offload/cli/exit.h"
#include "offload/cli/passphrase.h"
#include "offload/client/keyservice.h"

#define RS_PROVIDER_SERVERS 8u

struct rs_provider_options {
    const char *name; /* NULL: not given */
    const char *file; /* of import */
    bool native, is_default, shared, force, yes, json, help;
    const char *servers[RS_PROVIDER_SERVERS];
    unsigned nservers;
    const char *ca, *fingerprint, *cert, *key, *user, *kmip, *subject, *output;
    const char *proxy; /* "none": without one */
    const char *trusted, *tpm;
    const char *runtime_dir, *tenant;
    struct rs_passphrase password;
    int64_t cache_s, timeout_s; /* -1: not given */
};

/* One run of a command. */
struct rs_provider_run {
    struct rs_provider_options o;
    struct rs_failure f;
    reseal *service;
    json_t *result; /* what --json prints */
};

struct rs_provider_command {
    const char *name;
    unsigned min, max;                     /* arguments */
    const char *options;                   /* that it takes, blank-separated */
    int (*run)(struct rs_provider_run *p); /* 0 or an exit code, with p->f set */
};

/* ---- provider-options.c ---- */

extern const char rs_provider_help[];
RS_MUST_CHECK int rs_provider_parse(const struct rs_provider_command *command, struct rs_provider_options *o,
                                    int argc, char **argv, struct rs_failure *f);

/* ---- provider-run.c ---- */

/* A request; `args` is taken. *result may be NULL; *fd too. 0 or an exit code. */
RS_MUST_CHECK int rs_provider_call(struct rs_provider_run *p, const char *method, json_t *args,
                                   const int *fds, unsigned nfds, json_t **result, int *fd);

/* The text of a small file that is no secret. The caller frees it. */
RS_MUST_CHECK int rs_provider_text(const char *path, char **out, struct rs_failure *f);

/* One object, or one line on stderr when it failed, for what came of it; the exit code. */
int rs_provider_tell(struct rs_provider_run *p, const char *command);

/* A text member, "" when there is none. */
const char *rs_provider_member(const json_t *object, const char *name);

/* ---- commands ---- */

int rs_provider_add(struct rs_provider_run *p);
int rs_provider_update(struct rs_provider_run *p);
int rs_provider_trust(struct rs_provider_run *p);
int rs_provider_csr(struct rs_provider_run *p);
int rs_provider_certificate(struct rs_provider_run *p);
int rs_provider_default(struct rs_provider_run *p);
int rs_provider_remove(struct rs_provider_run *p);
int rs_provider_list(struct rs_provider_run *p);
int rs_provider_test(struct rs_provider_run *p);
int rs_provider_export(struct rs_provider_run *p);
int rs_provider_import(struct rs_provider_run *p);

#endif
