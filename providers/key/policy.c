/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/key/policy_data.h"

#include "offload/base/keymem.h"
#include "reseal/reseal.h"

#include <stdio.h>
#include <stdlib.h>

const char *const rs_privilege_names[RS_PRIVILEGES] = {
    "Cryptographer.Access",
    "Cryptographer.AddDisk",
    "Cryptographer.Clone",
    "Cryptographer.Decrypt",
    "Cryptographer.Encrypt",
    "Cryptographer.EncryptNew",
    "Cryptographer.ManageEncryptionPolicy",
    "Cryptographer.ManageKeys",
    "Cryptographer.ManageKeyServers",
    "Cryptographer.Migrate",
    "Cryptographer.ReadKeyServersInfo",
    "Cryptographer.Recrypt",
    "Cryptographer.RegisterHost",
    "Cryptographer.RegisterVM",
};

const char *const rs_grant_names[] = {"zero-map", "digest", "compress", "decompress", "plain-out", NULL};

#define BIT(p) (1u << RS_PRIV_##p)

const struct rs_role rs_roles[] = {
    {"Administrator", (1u << RS_PRIVILEGES) - 1, "every privilege"},
    {"NoCryptoAdministrator", 0, "no privilege of these: whoever administers, but not encryption"},
    {"KeyAdministrator",
     BIT(MANAGE_KEYS) | BIT(MANAGE_KEY_SERVERS) | BIT(READ_KEY_SERVERS_INFO) | BIT(MANAGE_ENCRYPTION_POLICY) |
         BIT(REGISTER_HOST),
     "key providers, keys, hosts and storage policies; no data"},
    {"VMAdministrator",
     BIT(ADD_DISK) | BIT(CLONE) | BIT(DECRYPT) | BIT(ENCRYPT) | BIT(ENCRYPT_NEW) | BIT(MIGRATE) |
         BIT(RECRYPT) | BIT(REGISTER_VM) | BIT(READ_KEY_SERVERS_INFO),
     "the life of encrypted VMs; no key providers"},
    {"BackupOperator",
     BIT(ACCESS) | BIT(ADD_DISK) | BIT(ENCRYPT_NEW) | BIT(REGISTER_VM) | BIT(READ_KEY_SERVERS_INFO),
     "reads encrypted VMs, and restores them"},
    {NULL, 0, NULL},
};

/* ---- patterns ---------------------------------------------------------------- */

bool rs_pattern_match(const char *pattern, const char *name)
{
    const char *star = NULL, *resume = NULL;
    while (*name != '\0') {
        if (*pattern == '*') {
            star = pattern++;
            resume = name;
        } else if (*pattern == *name) {
            pattern++;
            name++;
        } else if (star != NULL) {
            pattern = star + 1;
            name = ++resume;
        } else {
            return false;
        }
    }
    while (*pattern == '*') pattern++;
    return *pattern == '\0';
}

/*
 * Two patterns meet when one name fits both. A row of the table says for each
 * rest of b whether it meets the rest of a that the row stands for.
 */
bool rs_patterns_meet(const char *a, const char *b)
{
    size_t n = strlen(a), m = strlen(b);
    RS_FREE bool *row = calloc(m + 1, sizeof(*row)), *below = calloc(m + 1, sizeof(*below));
    if (row == NULL || below == NULL) return true; /* the cautious answer */
    for (size_t i = n + 1; i-- > 0;) {
        for (size_t j = m + 1; j-- > 0;) {
            bool meet = i == n && j == m;
            if (i < n && a[i] == '*') meet = meet || below[j] || (j < m && row[j + 1]);
            if (j < m && b[j] == '*') meet = meet || row[j + 1] || (i < n && below[j]);
            if (i < n && j < m && a[i] == b[j]) meet = meet || below[j + 1];
            row[j] = meet;
        }
        bool *swap = row;
        row = below;
        below = swap;
    }
    return below[0];
}

/* ---- who --------------------------------------------------------------------- */

static bool in_group(const struct rs_policy *policy, uid_t uid, gid_t gid, uint32_t group)
{
    if (gid == group) return true;
    for (size_t i = 0; i < policy->nin_groups; i++)
        if (policy->in_groups[i].uid == uid && policy->in_groups[i].gid == group) return true;
    return false;
}

bool rs_subject_holds(const struct rs_policy *policy, const struct rs_subject *who, uid_t uid, gid_t gid,
                      size_t tenant)
{
    switch (who->kind) {
    case RS_SUBJECT_ANY:
        return true;
    case RS_SUBJECT_USER:
        return who->id == uid;
    case RS_SUBJECT_GROUP:
        return in_group(policy, uid, gid, who->id);
    case RS_SUBJECT_TENANT:
        return who->id == tenant;
    }
    return false;
}

bool rs_policy_allows(const struct rs_policy *policy, uid_t uid, gid_t gid, size_t tenant,
                      enum rs_privilege privilege)
{
    for (size_t i = 0; i < policy->nallows; i++)
        if ((policy->allows[i].privileges & 1u << privilege) != 0 &&
            rs_subject_holds(policy, &policy->allows[i].who, uid, gid, tenant))
            return true;
    return false;
}

bool rs_policy_has(const struct rs_policy *policy, uid_t uid, gid_t gid, const char *tenant,
                   enum rs_privilege privilege)
{
    size_t index = SIZE_MAX;
    if (privilege == RS_NO_PRIVILEGE) return true;
    if ((unsigned)privilege >= RS_PRIVILEGES) return false;
    if (policy->private) return uid == policy->private_uid;
    for (size_t i = 0; tenant != NULL && i < policy->ntenants; i++)
        if (strcmp(policy->tenants[i].name, tenant) == 0) index = i;
    return rs_policy_allows(policy, uid, gid, index, privilege);
}

bool rs_policy_administrator(const struct rs_policy *policy, uid_t uid, gid_t gid)
{
    if (policy->private) return uid == policy->private_uid;
    for (size_t i = 0; i < policy->nadministrators; i++)
        if (rs_subject_holds(policy, &policy->administrators[i], uid, gid, SIZE_MAX)) return true;
    return false;
}

const struct rs_tenant *rs_policy_tenant_named(const struct rs_policy *policy, const char *name)
{
    for (size_t i = 0; i < policy->ntenants; i++)
        if (strcmp(policy->tenants[i].name, name) == 0) return &policy->tenants[i];
    return NULL;
}

void rs_policy_each_tenant(const struct rs_policy *policy,
                           void (*each)(void *arg, const struct rs_tenant *tenant), void *arg)
{
    for (size_t i = 0; i < policy->ntenants; i++) each(arg, &policy->tenants[i]);
}

int rs_policy_tenant(const struct rs_policy *policy, uid_t uid, gid_t gid, const char *want,
                     const struct rs_tenant **out)
{
    *out = NULL;
    if (policy->private) {
        if (uid != policy->private_uid) return RESEAL_EPERM;
        if (*want != '\0' && strcmp(want, policy->tenants[0].name) != 0) return RESEAL_EPERM;
        *out = &policy->tenants[0];
        return 0;
    }
    for (size_t i = 0; i < policy->nmembers; i++) {
        const struct rs_member *m = &policy->members[i];
        const struct rs_tenant *t = &policy->tenants[m->tenant];
        if (*want != '\0' && strcmp(want, t->name) != 0) continue;
        if (!rs_subject_holds(policy, &m->who, uid, gid, SIZE_MAX)) continue;
        *out = t;
        return 0;
    }
    return RESEAL_EPERM;
}

/* Whether a pattern is about a key of that name, or about all that a key provider's keys open. */
static bool names_key(const char *pattern, const char *name, const char *provider)
{
    char by_provider[128];
    if (rs_pattern_match(pattern, name)) return true;
    if (provider == NULL || *provider == '\0') return false;
    int n = snprintf(by_provider, sizeof(by_provider), "provider:%s", provider);
    return n > 0 && (size_t)n < sizeof(by_provider) && rs_pattern_match(pattern, by_provider);
}

int rs_policy_decide(const struct rs_policy *policy, const struct rs_policy_question *q)
{
    if (policy->private) return q->uid == policy->private_uid ? 0 : RESEAL_EPERM;
    size_t tenant = (size_t)(q->tenant - policy->tenants);
    unsigned need = q->grants | (q->to_is_plain ? RS_GRANT_PLAIN_OUT : 0), have = 0;
    bool listed = false;
    for (size_t i = 0; i < policy->npairs; i++) {
        const struct rs_pair *p = &policy->pairs[i];
        if (!rs_subject_holds(policy, &p->who, q->uid, q->gid, tenant)) continue;
        if (!names_key(p->from, q->from, q->from_provider) || !names_key(p->to, q->to, q->to_provider))
            continue;
        listed = true;
        have |= p->grants;
    }
    if (!listed) return RESEAL_EPAIR;
    if ((need & ~have) != 0) return RESEAL_EPERM;
    if (q->to_is_plain && !rs_policy_allows(policy, q->uid, q->gid, tenant, RS_PRIV_ACCESS))
        return RESEAL_EPERM;
    return 0;
}

/* ---- life -------------------------------------------------------------------- */

struct rs_policy *rs_policy_private(uid_t uid)
{
    struct rs_policy *policy = calloc(1, sizeof(*policy));
    if (policy == NULL) return NULL;
    policy->tenants = calloc(1, sizeof(*policy->tenants));
    if (policy->tenants == NULL) {
        free(policy);
        return NULL;
    }
    policy->ntenants = 1;
    policy->private = true;
    policy->private_uid = uid;
    policy->tenants[0] = (struct rs_tenant){.name = "private", .weight = 100, .max_keys = 1024};
    return policy;
}

void rs_policy_free(struct rs_policy *policy)
{
    if (policy == NULL) return;
    for (size_t i = 0; i < policy->ntenants; i++) rs_keymem_free(policy->tenants[i].digest_key);
    for (size_t i = 0; i < policy->nmembers; i++) free(policy->members[i].who.name);
    for (size_t i = 0; i < policy->nallows; i++) {
        free(policy->allows[i].who.name);
        free(policy->allows[i].roles);
    }
    for (size_t i = 0; i < policy->nadministrators; i++) free(policy->administrators[i].name);
    free(policy->administrators);
    for (size_t i = 0; i < policy->npairs; i++) {
        free(policy->pairs[i].who.name);
        free(policy->pairs[i].from);
        free(policy->pairs[i].to);
    }
    free(policy->tenants);
    free(policy->members);
    free(policy->pairs);
    free(policy->allows);
    free(policy->in_groups);
    free(policy);
}
