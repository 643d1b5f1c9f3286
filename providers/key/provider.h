/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_KEY_PROVIDER_H
#define RS_KEY_PROVIDER_H

/*
 * Key providers of this service: configurations by name, in the store. A kind
 * (native, standard, trusted) is a check of its configuration and a task that
 * does what is asked of it. Names are unique within a tenant; a provider
 * without a tenant is for those who have none other, and administered by the service's own.
 */

#include "providers/key/policy.h"
#include "providers/key/task.h"

#define RS_PROVIDER_NAME_MAX 64u  /* with NUL; letters, digits, '.', '-', '_' */
#define RS_KEY_ID_MAX        512u /* with NUL; opaque text */
#define RS_KEK_LEN           32u

/*
 * What a provider's task is asked, in args["op"]; args["config"] is the
 * provider's configuration, its secrets are the task's secrets.
 *
 *   make   {"details": {"x-Vendor": ...}}   -> {"key": id}, secret "kek"
 *   fetch  {"key": id, "details": {...}}    -> secret "kek"; details are set on the key server, best effort
 *   test   {}                               -> {"servers": [{"address", "ok", "error", ...}], ...}
 *   retire {"key": id}                      -> {}
 *   show   {}                               -> {"fingerprint", "certificate": text}: what the server
 * presents, unverified
 *
 * A task may answer {"config": {...}} and secrets other than "kek": they replace those of the provider.
 */
struct rs_provider_kind {
    const char *name;
    const struct rs_task_kind *task;
    bool here; /* the task runs in reseal-keyd: it parses nothing of others */
    /* Checks a new configuration and its secrets, completes defaults. One line in `why`. */
    int (*check)(json_t *config, struct rs_secrets *secrets, char *why, size_t why_len);
};

extern const struct rs_provider_kind rs_provider_native, rs_provider_standard, rs_provider_trusted;

struct rs_provider {
    struct rs_provider *next;
    char name[RS_PROVIDER_NAME_MAX];
    char tenant[64]; /* "": none */
    const struct rs_provider_kind *kind;
    json_t *config; /* shown by provider.show: no secret is in it */
    struct rs_secrets secrets;
    bool usable; /* false: a native one without a backup */
};

struct rs_providers {
    struct rs_provider *first;
    json_t *defaults; /* tenant -> name; "" for none */
};

struct rs_keyd;

/* Reads all from the store; one that cannot be read is told as an event and left out. */
RS_MUST_CHECK int rs_providers_load(struct rs_keyd *d);
void rs_providers_free(struct rs_providers *p);

/* The provider of that name that the tenant sees: its own, else one without a tenant. "" asks for the
 * default. NULL: none. */
struct rs_provider *rs_providers_find(struct rs_keyd *d, const char *tenant, const char *name);

/* Writes a provider to the store, new or changed. */
RS_MUST_CHECK int rs_providers_save(struct rs_keyd *d, const struct rs_provider *p);

bool rs_provider_name_ok(const char *name);

#endif
