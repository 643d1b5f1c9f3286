/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_KEY_POLICY_DATA_H
#define RS_KEY_POLICY_DATA_H

/* What a policy is made of; policy*.c only. */

#include "providers/key/policy.h"

struct rs_subject {
    enum rs_subject_kind kind;
    uint32_t id; /* uid, gid, or index of the tenant */
    char *name;  /* as written; owned */
};

struct rs_member {
    uint32_t tenant;
    struct rs_subject who; /* a user or a group */
};

struct rs_pair {
    struct rs_subject who;
    char *from; /* patterns; owned */
    char *to;
    unsigned grants;
};

struct rs_allow {
    struct rs_subject who;
    unsigned privileges; /* bit i: rs_privilege_names[i] */
    char *roles;         /* their names, with commas; owned, NULL: none */
};

/* A user's membership in a group by group(5); the primary group comes with the question. */
struct rs_in_group {
    uid_t uid;
    gid_t gid;
};

struct rs_policy {
    bool private;
    uid_t private_uid;
    struct rs_tenant *tenants;
    struct rs_member *members;
    struct rs_pair *pairs;
    struct rs_allow *allows;
    struct rs_in_group *in_groups;
    struct rs_subject *administrators;
    size_t ntenants, nmembers, npairs, nallows, nin_groups, nadministrators;
};

struct rs_identity;

/* True when a rule for `who` holds for the user; `tenant` is an index, or SIZE_MAX. */
bool rs_subject_holds(const struct rs_policy *policy, const struct rs_subject *who, uid_t uid, gid_t gid,
                      size_t tenant);

/* rs_policy_has() for the index of a tenant, SIZE_MAX: none. */
bool rs_policy_allows(const struct rs_policy *policy, uid_t uid, gid_t gid, size_t tenant,
                      enum rs_privilege privilege);

/*
 * Adds a tenant to a policy that is not used yet. RESEAL_EINVAL, RESEAL_ENOMEM, with `why`; the policy is as
 * before then.
 */
RS_MUST_CHECK int rs_policy_add_tenant(struct rs_policy *policy, const struct rs_names *names,
                                       const char *name, const json_t *value, char *why, size_t why_len);

/* Names of grants in bit order, NULL at the end. */
extern const char *const rs_grant_names[];

#endif
