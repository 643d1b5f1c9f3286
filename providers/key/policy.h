/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_KEY_POLICY_H
#define RS_KEY_POLICY_H

/*
 * The policy: who may turn what into what. Rights are pairs of key names
 * (source -> destination); what is not listed is refused. The file's format is in
 * reseal-policy(5). Names of keys: "luks:UUID", "raw:NAME", "random:NAME",
 * and "plain" for a side that has none; a disk that a key provider's key opens is "provider:NAME" too.
 * Patterns: '*' for any run of characters.
 *
 * Everything here but rs_policy_load() is a pure function. A policy is
 * immutable once made.
 */

#include "offload/base/bytes.h"

#include <jansson.h>
#include <sys/types.h>

/* Grants of a pair. */
enum rs_grant {
    RS_GRANT_ZERO_MAP = 1,
    RS_GRANT_DIGEST = 2,
    RS_GRANT_COMPRESS = 4,
    RS_GRANT_DECOMPRESS = 8,
    RS_GRANT_PLAIN_OUT = 16, /* into a destination whose plaintext the client can get */
};

/* The fourteen privileges, in the order of their names; only ACCESS has a meaning for sessions. */
enum rs_privilege {
    RS_PRIV_ACCESS,
    RS_PRIV_ADD_DISK,
    RS_PRIV_CLONE,
    RS_PRIV_DECRYPT,
    RS_PRIV_ENCRYPT,
    RS_PRIV_ENCRYPT_NEW,
    RS_PRIV_MANAGE_ENCRYPTION_POLICY,
    RS_PRIV_MANAGE_KEYS,
    RS_PRIV_MANAGE_KEY_SERVERS,
    RS_PRIV_MIGRATE,
    RS_PRIV_READ_KEY_SERVERS_INFO,
    RS_PRIV_RECRYPT,
    RS_PRIV_REGISTER_HOST,
    RS_PRIV_REGISTER_VM,
    RS_NO_PRIVILEGE = -1, /* none is needed */
};
#define RS_PRIVILEGES 14u
extern const char *const rs_privilege_names[RS_PRIVILEGES];

struct rs_tenant {
    char name[64];
    uint32_t weight;       /* 1 to 1000; default 100 */
    uint32_t max_keys;     /* of one connection */
    uint32_t max_sessions; /* at a time, of all its users; 0: no limit of its own */
    bool suspended;        /* opens nothing until it is resumed */
    bool run_time;         /* added while the service ran, not by the policy file */
    uint8_t *digest_key;   /* key memory, 32 bytes, or NULL */
};

enum rs_subject_kind { RS_SUBJECT_ANY, RS_SUBJECT_USER, RS_SUBJECT_GROUP, RS_SUBJECT_TENANT };

struct rs_policy;

/* Users and groups of the system, as text of passwd(5) and group(5); NULL: none. */
struct rs_names {
    const char *passwd;
    const char *group;
};

/*
 * Parses a policy. On RESEAL_EINVAL `why` has one line: where, what, what to
 * do. RESEAL_ENOMEM. A digest key file is read relative to folder_fd (-1: such a member is refused).
 */
RS_MUST_CHECK int rs_policy_parse(const char *text, size_t len, const struct rs_names *names, int folder_fd,
                                  struct rs_policy **out, char *why, size_t why_len);

/*
 * The policy of a file; refuses one that others than its owner can write, or whose owner is neither
 * root nor this user. Reads /etc/passwd and /etc/group: local users only, others by number.
 * RESEAL_EINVAL, RESEAL_EPERM, RESEAL_EIO, RESEAL_ENOMEM, with `why`.
 */
RS_MUST_CHECK int rs_policy_load(const char *path, struct rs_policy **out, char *why, size_t why_len);

/* The policy of a private service: all for one user, in the tenant "private". NULL: no memory. */
RS_MUST_CHECK struct rs_policy *rs_policy_private(uid_t uid);

/*
 * Tenants beside those of the file: an object of name -> members as under "tenants" (reseal-policy(5)). One
 * that cannot be, since the file has the name already or a user is gone, is told to `refused` and left out.
 */
struct rs_policy_more {
    const json_t *tenants;
    void (*refused)(void *arg, const char *name, const char *why);
    void *arg;
    const json_t *suspended; /* an object whose names are those of tenants to suspend, of the file too */
};
/* As rs_policy_load(). */
RS_MUST_CHECK int rs_policy_load_with(const char *path, const struct rs_policy_more *more,
                                      struct rs_policy **out, char *why, size_t why_len);

void rs_policy_free(struct rs_policy *policy);

/*
 * The tenant a user counts for: `want`, or the first that has the user when it
 * is empty. RESEAL_EPERM when there is none. *out stays the policy's.
 */
RS_MUST_CHECK int rs_policy_tenant(const struct rs_policy *policy, uid_t uid, gid_t gid, const char *want,
                                   const struct rs_tenant **out);

/* True when the user has the privilege, by itself, a group or its tenant (NULL or "": none). */
RS_MUST_CHECK bool rs_policy_has(const struct rs_policy *policy, uid_t uid, gid_t gid, const char *tenant,
                                 enum rs_privilege privilege);

/* True for those whom the file names as administrators of the service; of a private one for its user. */
RS_MUST_CHECK bool rs_policy_administrator(const struct rs_policy *policy, uid_t uid, gid_t gid);

/* The tenant of that name; NULL: none. */
const struct rs_tenant *rs_policy_tenant_named(const struct rs_policy *policy, const char *name);

/* Calls `each` for every tenant. */
void rs_policy_each_tenant(const struct rs_policy *policy,
                           void (*each)(void *arg, const struct rs_tenant *tenant), void *arg);

/* Roles that every policy knows: names of sets of privileges, ended by a NULL name. */
struct rs_role {
    const char *name;
    unsigned privileges; /* bit i: rs_privilege_names[i] */
    const char *what;
};
extern const struct rs_role rs_roles[];

struct rs_policy_question {
    uid_t uid;
    gid_t gid;
    const struct rs_tenant *tenant;
    const char *from; /* key name or "plain" */
    const char *to;
    const char *from_provider; /* whose key opens it; NULL or "": no key provider's */
    const char *to_provider;
    bool to_is_plain; /* plain, or the client knows a way to the destination's plaintext */
    unsigned grants;  /* enum rs_grant that the stages need; PLAIN_OUT is added by to_is_plain */
};

/* 0; RESEAL_EPAIR: not listed; RESEAL_EPERM: listed, but a grant or Cryptographer.Access is missing. */
RS_MUST_CHECK int rs_policy_decide(const struct rs_policy *policy, const struct rs_policy_question *q);

/*
 * What each identity can reach, transitively, as JSON text that the caller frees: see
 * reseal-policy(5). With `only` not NULL for that user (uid) alone. NULL: no memory.
 */
struct rs_identity {
    uid_t uid;
    gid_t gid;
};
RS_MUST_CHECK char *rs_policy_check(const struct rs_policy *policy, const struct rs_identity *only);

/* True when the name matches; '*' stands for any run of characters. */
RS_MUST_CHECK bool rs_pattern_match(const char *pattern, const char *name);

/* True when some name matches both. */
RS_MUST_CHECK bool rs_patterns_meet(const char *a, const char *b);

#endif
