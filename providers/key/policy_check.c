/* SPDX-License-Identifier: Apache-2.0 */
/* What each identity can reach: its pairs, and the chains that they make. */
#include "providers/key/policy_data.h"

#include <stdlib.h>

#include <jansson.h>

/* One whom rules speak of. */
struct identity {
    const char *name; /* as in the policy: "user:backup", "tenant:acme", "*" */
    struct rs_subject who;
    struct rs_identity self; /* kind USER by question: its groups count too */
    bool by_question;
};

/* ---- which rules hold --------------------------------------------------------------- */

/* A group's own rights, and those of a tenant that has the whole group; a tenant's; everybody's. */
static bool holds_for_subject(const struct rs_policy *policy, const struct rs_subject *rule,
                              const struct rs_subject *who)
{
    if (rule->kind == RS_SUBJECT_ANY) return true;
    if (rule->kind == who->kind && rule->id == who->id) return true;
    if (rule->kind != RS_SUBJECT_TENANT) return false;
    for (size_t i = 0; i < policy->nmembers; i++) {
        const struct rs_member *m = &policy->members[i];
        if (m->tenant == rule->id && m->who.kind == who->kind && m->who.id == who->id) return true;
    }
    return false;
}

static bool holds(const struct rs_policy *policy, const struct rs_subject *rule, const struct identity *who)
{
    if (!who->by_question && who->who.kind != RS_SUBJECT_USER)
        return holds_for_subject(policy, rule, &who->who);
    uid_t uid = who->by_question ? who->self.uid : who->who.id;
    gid_t gid = who->by_question ? who->self.gid : (gid_t)-1;
    if (rs_subject_holds(policy, rule, uid, gid, SIZE_MAX)) return true;
    if (rule->kind != RS_SUBJECT_TENANT) return false;
    for (size_t i = 0; i < policy->nmembers; i++)
        if (policy->members[i].tenant == rule->id &&
            rs_subject_holds(policy, &policy->members[i].who, uid, gid, SIZE_MAX))
            return true;
    return false;
}

static bool may_access(const struct rs_policy *policy, const struct identity *who)
{
    for (size_t i = 0; i < policy->nallows; i++)
        if ((policy->allows[i].privileges & 1u << RS_PRIV_ACCESS) != 0 &&
            holds(policy, &policy->allows[i].who, who))
            return true;
    return false;
}

/* ---- chains --------------------------------------------------------------------------- */

/* Disks of key providers have two names: luks:UUID and provider:NAME. */
static bool may_name_provider(const char *pattern)
{
    return rs_patterns_meet(pattern, "provider:*");
}

static bool may_name_disk(const char *pattern)
{
    return rs_patterns_meet(pattern, "luks:*") || may_name_provider(pattern);
}

/* True when some key is meant by both. */
static bool meet(const char *a, const char *b)
{
    if (rs_patterns_meet(a, b)) return true;
    return (may_name_provider(a) && rs_patterns_meet(b, "luks:*")) ||
           (may_name_provider(b) && rs_patterns_meet(a, "luks:*"));
}

/*
 * A destination counts as plain when the client can get at what is in it:
 * plain itself, every key that it supplied (raw:, luks:), and a provider's disk with a pass phrase of its
 * owner. Without the grant plain-out, and Cryptographer.Access, such a pair lets nothing out.
 */
static bool may_end_plain(const struct rs_pair *pair, bool access)
{
    bool open =
        rs_patterns_meet(pair->to, "plain") || rs_patterns_meet(pair->to, "raw:*") || may_name_disk(pair->to);
    return open && access && (pair->grants & RS_GRANT_PLAIN_OUT) != 0;
}

/* A pair of which no session can be opened: every destination it can name counts as plain, and that is not
 * granted. Disks of key providers, as a rule, do not. */
static bool dead(const struct rs_pair *pair, bool access)
{
    return !rs_patterns_meet(pair->to, "random:*") && !may_name_disk(pair->to) &&
           !may_end_plain(pair, access);
}

struct walk {
    const struct rs_pair **pairs; /* those that hold */
    size_t n;
    bool access;
    size_t *before; /* the pair a chain came from; SIZE_MAX: the first */
    bool *seen;
    size_t *queue;
};

/* Marks every pair that a chain beginning with `first` reaches; the number of them, in order, in w->queue. */
static size_t spread(struct walk *w, size_t first)
{
    size_t head = 0, tail = 0;
    memset(w->seen, 0, w->n * sizeof(*w->seen));
    w->seen[first] = true;
    w->before[first] = SIZE_MAX;
    w->queue[tail++] = first;
    while (head < tail) {
        size_t at = w->queue[head++];
        for (size_t i = 0; i < w->n; i++) {
            if (w->seen[i] || dead(w->pairs[i], w->access)) continue;
            if (!meet(w->pairs[at]->to, w->pairs[i]->from)) continue;
            w->seen[i] = true;
            w->before[i] = at;
            w->queue[tail++] = i;
        }
    }
    return tail;
}

/* The steps of a chain, from its first source to its last destination. */
static json_t *steps(const struct walk *w, size_t last)
{
    json_t *list = json_array();
    for (size_t at = last; at != SIZE_MAX; at = w->before[at]) {
        (void)json_array_insert_new(list, 0, json_string(w->pairs[at]->to));
        if (w->before[at] == SIZE_MAX) (void)json_array_insert_new(list, 0, json_string(w->pairs[at]->from));
    }
    return list;
}

static json_t *reaches(struct walk *w)
{
    json_t *list = json_array();
    for (size_t first = 0; first < w->n; first++) {
        if (dead(w->pairs[first], w->access)) continue;
        size_t n = spread(w, first);
        for (size_t i = 0; i < n; i++) {
            const struct rs_pair *last = w->pairs[w->queue[i]];
            (void)json_array_append_new(
                list, json_pack("{s:s, s:s, s:b, s:o}", "from", w->pairs[first]->from, "to", last->to,
                                "plain", may_end_plain(last, w->access), "by", steps(w, w->queue[i])));
        }
    }
    return list;
}

/* ---- the report ------------------------------------------------------------------------ */

static json_t *grants_of(unsigned grants)
{
    json_t *list = json_array();
    for (unsigned i = 0; rs_grant_names[i] != NULL; i++)
        if ((grants & 1u << i) != 0) (void)json_array_append_new(list, json_string(rs_grant_names[i]));
    return list;
}

static json_t *pairs_of(const struct walk *w)
{
    json_t *list = json_array();
    for (size_t i = 0; i < w->n; i++) {
        const struct rs_pair *p = w->pairs[i];
        (void)json_array_append_new(list,
                                    json_pack("{s:s, s:s, s:s, s:o, s:b, s:b}", "for", p->who.name, "from",
                                              p->from, "to", p->to, "grants", grants_of(p->grants), "plain",
                                              may_end_plain(p, w->access), "usable", !dead(p, w->access)));
    }
    return list;
}

static json_t *privileges_of(const struct rs_policy *policy, const struct identity *who)
{
    json_t *list = json_array();
    unsigned have = 0;
    for (size_t i = 0; i < policy->nallows; i++)
        if (holds(policy, &policy->allows[i].who, who)) have |= policy->allows[i].privileges;
    for (unsigned i = 0; i < RS_PRIVILEGES; i++)
        if ((have & 1u << i) != 0) (void)json_array_append_new(list, json_string(rs_privilege_names[i]));
    return list;
}

/* Names of the roles that gave them. */
static json_t *roles_of(const struct rs_policy *policy, const struct identity *who)
{
    json_t *list = json_array();
    for (size_t i = 0; i < policy->nallows; i++) {
        const struct rs_allow *allow = &policy->allows[i];
        if (allow->roles != NULL && holds(policy, &allow->who, who))
            (void)json_array_append_new(list, json_string(allow->roles));
    }
    return list;
}

static json_t *administrators_of(const struct rs_policy *policy)
{
    json_t *list = json_array();
    for (size_t i = 0; i < policy->nadministrators; i++)
        (void)json_array_append_new(list, json_string(policy->administrators[i].name));
    return list;
}

static json_t *tenants_of(const struct rs_policy *policy, const struct identity *who)
{
    json_t *list = json_array();
    for (size_t i = 0; i < policy->ntenants; i++) {
        const struct rs_subject tenant = {.kind = RS_SUBJECT_TENANT, .id = (uint32_t)i};
        if (holds(policy, &tenant, who))
            (void)json_array_append_new(list, json_string(policy->tenants[i].name));
    }
    return list;
}

static json_t *report(const struct rs_policy *policy, const struct identity *who)
{
    size_t n = policy->npairs + 1;
    struct walk w = {.pairs = calloc(n, sizeof(struct rs_pair *)),
                     .before = calloc(n, sizeof(size_t)),
                     .seen = calloc(n, sizeof(bool)),
                     .queue = calloc(n, sizeof(size_t))};
    json_t *out = NULL;
    w.access = may_access(policy, who);
    for (size_t i = 0; i < policy->npairs && w.pairs != NULL; i++)
        if (holds(policy, &policy->pairs[i].who, who)) w.pairs[w.n++] = &policy->pairs[i];
    if (w.pairs != NULL && w.before != NULL && w.seen != NULL && w.queue != NULL)
        out = json_pack("{s:s, s:o, s:o, s:o, s:o, s:o}", "identity", who->name, "tenants",
                        tenants_of(policy, who), "roles", roles_of(policy, who), "privileges",
                        privileges_of(policy, who), "pairs", pairs_of(&w), "reaches", reaches(&w));
    free(w.pairs);
    free(w.before);
    free(w.seen);
    free(w.queue);
    return out;
}

static bool listed(json_t *list, const char *name)
{
    size_t i;
    json_t *value;
    json_array_foreach(list, i, value)
    {
        const char *have = json_string_value(json_object_get(value, "identity"));
        if (have != NULL && strcmp(have, name) == 0) return true;
    }
    return false;
}

static void add(const struct rs_policy *policy, json_t *list, const char *prefix,
                const struct rs_subject *who)
{
    char name[300];
    size_t n = strlen(prefix), len = strlen(who->name);
    if (n + len >= sizeof(name)) return;
    memcpy(name, prefix, n);
    memcpy(name + n, who->name, len + 1);
    const struct identity identity = {.name = name, .who = *who};
    if (!listed(list, name)) (void)json_array_append_new(list, report(policy, &identity));
}

/* Everybody whom the policy names, each once. */
static void add_all(const struct rs_policy *policy, json_t *list)
{
    for (size_t i = 0; i < policy->ntenants; i++) {
        const struct rs_subject who = {
            .kind = RS_SUBJECT_TENANT, .id = (uint32_t)i, .name = (char *)(uintptr_t)policy->tenants[i].name};
        add(policy, list, "tenant:", &who);
    }
    for (size_t i = 0; i < policy->nmembers; i++) {
        const struct rs_subject *who = &policy->members[i].who;
        add(policy, list, who->kind == RS_SUBJECT_USER ? "user:" : "group:", who);
    }
    for (size_t i = 0; i < policy->npairs; i++) add(policy, list, "", &policy->pairs[i].who);
    for (size_t i = 0; i < policy->nallows; i++) add(policy, list, "", &policy->allows[i].who);
}

static json_t *private_report(const struct rs_policy *policy)
{
    return json_pack("{s:i, s:b, s:I, s:[]}", "version", 1, "private", 1, "uid",
                     (json_int_t)policy->private_uid, "identities");
}

char *rs_policy_check(const struct rs_policy *policy, const struct rs_identity *only)
{
    json_t *root;
    if (policy->private) {
        root = private_report(policy);
    } else {
        json_t *list = json_array();
        if (only != NULL) {
            const struct identity self = {.name = "self", .self = *only, .by_question = true};
            (void)json_array_append_new(list, report(policy, &self));
        } else {
            add_all(policy, list);
        }
        root = json_pack("{s:i, s:b, s:o, s:o}", "version", 1, "private", 0, "identities", list,
                         "administrators", only == NULL ? administrators_of(policy) : json_array());
    }
    char *text = root != NULL ? json_dumps(root, JSON_INDENT(2)) : NULL;
    json_decref(root);
    return text;
}
