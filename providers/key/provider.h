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
#define RS_PROVIDERS_MAX     256u /* of a tenant */
#define RS_PROVIDER_TASKS    2u   /* of one provider at a time, and as many tests: no more hang with it */
#define RS_CACHE_S           86400u

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
 * It may answer, also when it fails, {"state": {...}}: kept in memory and given to the next task as
 * args["state"]; {"expires": {"client": T, "server": T}}: when certificates end, seconds since 1970: an event
 * is raised within 30 days of it, once a day; {"down": [{"address", "why", "event"}]}: servers that failed
 * now and had not failed before: an event each.
 */
struct rs_provider_kind {
    const char *name;
    const struct rs_task_kind *task;
    /* A closed task that looks at a new configuration before it is taken: {"op": "inspect", "config",
     * "names": of the secrets that its descriptors read}, secrets as they are. It may yield others and
     * {"config"}. NULL: the descriptors are read, nothing more. */
    const struct rs_task_kind *inspect;
    bool here; /* the task runs in reseal-keyd: it parses nothing of others */
    /* Checks a new configuration and its secrets, completes defaults. One line in `why`. */
    int (*check)(json_t *config, struct rs_secrets *secrets, char *why, size_t why_len);
};

/* The task that only reads secrets from descriptors; its body, for those that do more: args["names"], yields.
 */
extern const struct rs_task_kind rs_task_secrets;
RS_MUST_CHECK int rs_task_read_secrets(struct rs_task *task);

extern const struct rs_provider_kind rs_provider_native, rs_provider_standard, rs_provider_trusted;

struct rs_provider {
    struct rs_provider *next;
    char name[RS_PROVIDER_NAME_MAX];
    char tenant[64]; /* "": none */
    const struct rs_provider_kind *kind;
    json_t *config; /* shown by provider.show: no secret is in it */
    struct rs_secrets secrets;
    bool usable; /* false: a native one without a backup */

    uint32_t serial;                  /* of this run: names are used again */
    uint32_t sealed;                  /* number of the object with its secrets; 0: none yet */
    json_t *state;                    /* what its tasks keep between them, or NULL */
    unsigned running, testing;        /* tasks; those of them that only test it */
    int64_t told_client, told_server; /* seconds: when the end of a certificate was an event */
    uint64_t look_ns;                 /* when it is looked at next; 0: not known yet */
    /* Keys that hosts wait for, hosts-late.c: one is asked for; until when none is, after how many failures.
     */
    bool late_asking;
    uint64_t late_ns;
    unsigned late_failures;
};

struct rs_asked;

struct rs_providers {
    struct rs_provider *first;
    json_t *defaults; /* tenant -> name; "" for none */
    json_t *left_out; /* name of an object of the store -> why it cannot be used */
    struct rs_asked *asked;
    uint32_t next_serial;
};

struct rs_keyd;

/* Reads all from the store; one that cannot be read is told as an event and left out. */
RS_MUST_CHECK int rs_providers_load(struct rs_keyd *d);
void rs_providers_free(struct rs_providers *p);

/* The provider of that name that the tenant sees: its own, else one without a tenant. "" asks for the
 * default. NULL: none. */
struct rs_provider *rs_providers_find(struct rs_keyd *d, const char *tenant, const char *name);

/* Why a provider of the store was left out, where one of that name was. NULL: none was. */
const char *rs_providers_left_out(const struct rs_keyd *d, const char *tenant, const char *name);
/* Those of a tenant: adds {"name", "object", "reason"} to `list`. */
void rs_providers_list_left_out(const struct rs_keyd *d, const char *tenant, json_t *list);
/* Gives up one that was left out; RESEAL_ENOKEY: none of that name was. */
RS_MUST_CHECK int rs_providers_drop_left_out(struct rs_keyd *d, const char *tenant, const char *name);

/* Its backup took the place of what was left out. */
void rs_providers_restored(struct rs_keyd *d, const struct rs_provider *p);

/* Writes a provider to the store, new or changed: all of it, or nothing. RESEAL_ENOSUPPORT: there is no state
 * folder. */
RS_MUST_CHECK int rs_providers_save(struct rs_keyd *d, struct rs_provider *p);

/* A new one, in the list and the store; takes config, empties secrets. RESEAL_EBUSY: the name is used;
 * RESEAL_ELIMIT; as rs_providers_save(). *out is the list's. */
struct rs_provider_new {
    const char *name, *tenant;
    const struct rs_provider_kind *kind;
    json_t *config;
    struct rs_secrets *secrets;
    bool usable;
};
RS_MUST_CHECK int rs_providers_add(struct rs_keyd *d, const struct rs_provider_new *n,
                                   struct rs_provider **out);

/* Forgets it, its keys and its requests, which fail, and removes it from the store. */
RS_MUST_CHECK int rs_providers_remove(struct rs_keyd *d, struct rs_provider *p);

/* Looks at those that nobody asks; milliseconds until it must be called again, -1: never. */
int rs_providers_tick(struct rs_keyd *d);

/* What a tenant's default is now; NULL clears it. */
RS_MUST_CHECK int rs_providers_set_default(struct rs_keyd *d, const char *tenant, const char *name);

/* Its own default, else that of all; "" when there is none. */
const char *rs_providers_default(const struct rs_keyd *d, const char *tenant);

/* The one of that tenant and name exactly. NULL: none. */
struct rs_provider *rs_providers_of(struct rs_keyd *d, const char *tenant, const char *name);
struct rs_provider *rs_providers_by_serial(struct rs_keyd *d, uint32_t serial);

const struct rs_provider_kind *rs_provider_kind_of(const char *name);

bool rs_provider_name_ok(const char *name);

/* Seconds that its keys are kept in memory. */
uint32_t rs_provider_cache_s(const struct rs_provider *p);

/* ---- provider-ask.c ------------------------------------------------------------------- */

/*
 * Asks its task; `more` (taken, may be NULL) is merged into the arguments. `done` is called once, perhaps
 * before the call returns, with what the task gave; what concerns the provider itself (state, new
 * configuration, ends of certificates) has been seen to by then. At most RS_PROVIDER_TASKS, and as many
 * tests, run for one provider, others wait; when it cannot be reached, those that wait fail with the one that
 * found out.
 */
void rs_provider_ask(struct rs_keyd *d, struct rs_provider *p, const char *op, json_t *more,
                     rs_task_done *done, void *arg);

/* Ends what was asked with this arg; `done` is not called. */
void rs_provider_cancel(struct rs_keyd *d, const void *arg);

/* All that was asked of a provider fails with this. */
void rs_provider_give_up(struct rs_keyd *d, const struct rs_provider *p, int status, const char *why);

#endif
