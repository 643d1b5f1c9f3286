/* SPDX-License-Identifier: Apache-2.0 */
/* What a policy grants: pairs, grants, identities, plain destinations; and what its check prints. */
#include "providers/key/policy.h"
#include "reseal/reseal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <jansson.h>

static const struct rs_names names = {
    .passwd = "root:x:0:0:root:/root:/bin/sh\nbackup:x:34:34:b:/:/bin/sh\nann:x:1001:100::/:/bin/sh\n"
              "bob:x:1002:100::/:/bin/sh\n",
    .group = "root:x:0:\nops:x:50:ann,backup\nusers:x:100:\n",
};

static struct rs_policy *parsed(const char *text)
{
    struct rs_policy *policy = NULL;
    char why[256] = "";
    int r = rs_policy_parse(text, strlen(text), &names, -1, &policy, why, sizeof(why));
    if (r != 0) printf("%s\n", why);
    assert_int_equal(r, 0);
    return policy;
}

static int ask(const struct rs_policy *policy, uid_t uid, gid_t gid, const char *tenant, const char *from,
               const char *to, bool plain, unsigned grants)
{
    const struct rs_tenant *t;
    int r = rs_policy_tenant(policy, uid, gid, tenant, &t);
    if (r != 0) return r;
    const struct rs_policy_question q = {
        .uid = uid, .gid = gid, .tenant = t, .from = from, .to = to, .to_is_plain = plain, .grants = grants};
    return rs_policy_decide(policy, &q);
}

static void patterns_match_and_meet(void **state)
{
    (void)state;
    static const struct {
        const char *pattern, *name;
        bool match;
    } matches[] = {
        {"luks:*", "luks:1234", true}, {"luks:*", "luks:", true},        {"luks:*", "raw:x", false},
        {"*", "plain", true},          {"raw:a*c*e", "raw:abcde", true}, {"raw:a*c*e", "raw:abde", false},
        {"raw:a", "raw:ab", false},    {"raw:*a", "raw:aba", true},      {"", "", true},
    };
    for (unsigned i = 0; i < RS_ARRAY_LEN(matches); i++)
        assert_int_equal(rs_pattern_match(matches[i].pattern, matches[i].name), matches[i].match);
    static const struct {
        const char *a, *b;
        bool meet;
    } meets[] = {
        {"luks:*", "*", true},       {"luks:*", "raw:*", false},         {"raw:a*", "raw:*b", true},
        {"raw:a*b", "raw:a", false}, {"raw:*x*", "raw:*y*", true},       {"plain", "plain", true},
        {"plain", "p*", true},       {"random:a*c", "random:ab", false}, {"**", "", true},
    };
    for (unsigned i = 0; i < RS_ARRAY_LEN(meets); i++) {
        assert_int_equal(rs_patterns_meet(meets[i].a, meets[i].b), meets[i].meet);
        assert_int_equal(rs_patterns_meet(meets[i].b, meets[i].a), meets[i].meet);
    }
}

static const char two_tenants[] =
    "{\"version\": 1,"
    " \"tenants\": {\"acme\": {\"users\": [\"ann\"], \"weight\": 300, \"max-keys\": 5},"
    "               \"globex\": {\"groups\": [\"ops\"]}},"
    " \"privileges\": [{\"to\": \"user:ann\", \"allow\": [\"Cryptographer.Access\", "
    "\"Cryptographer.Clone\"]}],"
    " \"pairs\": ["
    "  {\"for\": \"tenant:acme\", \"from\": \"luks:*\", \"to\": \"random:*\", \"grants\": [\"zero-map\"]},"
    "  {\"for\": \"user:ann\", \"from\": \"luks:*\", \"to\": \"random:v*\", \"grants\": [\"digest\"]},"
    "  {\"for\": \"tenant:acme\", \"from\": \"luks:*\", \"to\": \"luks:*\", \"grants\": [\"plain-out\"]},"
    "  {\"for\": \"group:ops\", \"from\": \"raw:*\", \"to\": \"raw:*\", \"grants\": [\"plain-out\"]}]}";

static void a_pair_that_is_not_listed_is_refused(void **state)
{
    (void)state;
    struct rs_policy *p = parsed(two_tenants);
    assert_int_equal(ask(p, 1001, 100, "", "luks:u", "random:x", false, 0), 0);
    assert_int_equal(ask(p, 1001, 100, "", "random:x", "luks:u", true, 0), RESEAL_EPAIR);
    assert_int_equal(ask(p, 1001, 100, "", "plain", "random:x", false, 0), RESEAL_EPAIR);
    assert_int_equal(ask(p, 1001, 100, "", "luks:u", "plain", true, 0), RESEAL_EPAIR);
    assert_int_equal(ask(p, 1002, 100, "", "luks:u", "random:x", false, 0), RESEAL_EPERM); /* of no tenant */
    assert_int_equal(ask(p, 1001, 100, "nobody", "luks:u", "random:x", false, 0), RESEAL_EPERM);
    rs_policy_free(p);
}

/* A disk's UUID is not known beforehand, its provider is. */
static void disks_are_named_by_their_provider_too(void **state)
{
    (void)state;
    struct rs_policy *p =
        parsed("{\"version\": 1, \"tenants\": {\"t\": {\"users\": [\"ann\"]}},"
               " \"privileges\": [{\"to\": \"user:ann\", \"allow\": [\"Cryptographer.Access\"]}],"
               " \"pairs\": ["
               "  {\"for\": \"tenant:t\", \"from\": \"provider:old\", \"to\": \"provider:new*\"},"
               "  {\"for\": \"tenant:t\", \"from\": \"provider:new\", \"to\": \"plain\","
               "   \"grants\": [\"plain-out\"]}]}");
    const struct rs_tenant *t;
    assert_int_equal(rs_policy_tenant(p, 1001, 100, "", &t), 0);
    static const struct {
        const char *from, *from_provider, *to, *to_provider;
        bool plain;
        int status;
    } asked[] = {
        {"luks:1", "old", "luks:2", "new", false, 0},
        {"luks:1", "old", "luks:2", "newer", false, 0},
        {"luks:1", "new", "luks:2", "old", false, RESEAL_EPAIR},
        {"luks:1", "old", "luks:2", "old", false, RESEAL_EPAIR},
        {"luks:1", "older", "luks:2", "new", false, RESEAL_EPAIR},
        {"luks:1", NULL, "luks:2", "new", false, RESEAL_EPAIR}, /* a pass phrase opens it, no provider */
        {"luks:1", "", "luks:2", "new", false, RESEAL_EPAIR},
        {"raw:old", NULL, "luks:2", "new", false, RESEAL_EPAIR},
        {"luks:1", "old", "luks:2", NULL, true, RESEAL_EPAIR},
        {"luks:1", "old", "luks:2", "new", true, RESEAL_EPERM}, /* its owner has a pass phrase */
        {"luks:1", "new", "plain", NULL, true, 0},
        {"luks:1", "old", "plain", NULL, true, RESEAL_EPAIR},
    };
    for (unsigned i = 0; i < RS_ARRAY_LEN(asked); i++) {
        const struct rs_policy_question q = {.uid = 1001,
                                             .gid = 100,
                                             .tenant = t,
                                             .from = asked[i].from,
                                             .from_provider = asked[i].from_provider,
                                             .to = asked[i].to,
                                             .to_provider = asked[i].to_provider,
                                             .to_is_plain = asked[i].plain};
        int r = rs_policy_decide(p, &q);
        if (r != asked[i].status) fail_msg("row %u: %d", i, r);
    }
    rs_policy_free(p);
}

static void grants_add_up_over_the_pairs_that_hold(void **state)
{
    (void)state;
    struct rs_policy *p = parsed(two_tenants);
    assert_int_equal(ask(p, 1001, 100, "", "luks:u", "random:x", false, RS_GRANT_ZERO_MAP), 0);
    assert_int_equal(ask(p, 1001, 100, "", "luks:u", "random:x", false, RS_GRANT_DIGEST), RESEAL_EPERM);
    assert_int_equal(ask(p, 1001, 100, "", "luks:u", "random:v", false, RS_GRANT_DIGEST | RS_GRANT_ZERO_MAP),
                     0);
    assert_int_equal(ask(p, 1001, 100, "", "luks:u", "random:v", false, RS_GRANT_COMPRESS), RESEAL_EPERM);
    rs_policy_free(p);
}

static void plain_out_needs_the_grant_and_the_privilege(void **state)
{
    (void)state;
    struct rs_policy *p = parsed(two_tenants);
    assert_int_equal(ask(p, 1001, 100, "", "luks:u", "luks:v", true, 0), 0);
    assert_int_equal(ask(p, 34, 34, "", "raw:u", "raw:v", true, 0),
                     RESEAL_EPERM);                                              /* no Cryptographer.Access */
    assert_int_equal(ask(p, 1001, 100, "globex", "raw:u", "raw:v", true, 0), 0); /* ann is of ops, too */
    assert_int_equal(ask(p, 1001, 100, "globex", "luks:u", "luks:v", true, 0), RESEAL_EPAIR);
    rs_policy_free(p);
}

static void tenants_have_weights_and_limits(void **state)
{
    (void)state;
    struct rs_policy *p = parsed(two_tenants);
    const struct rs_tenant *t;
    assert_int_equal(rs_policy_tenant(p, 1001, 100, "", &t), 0);
    assert_string_equal(t->name, "acme");
    assert_int_equal(t->weight, 300);
    assert_int_equal(t->max_keys, 5);
    assert_int_equal(rs_policy_tenant(p, 1001, 100, "globex", &t), 0);
    assert_int_equal(t->weight, 100);
    assert_int_equal(rs_policy_tenant(p, 7777, 50, "", &t), 0); /* by primary group */
    assert_string_equal(t->name, "globex");
    rs_policy_free(p);
}

static void a_private_policy_is_for_one_user(void **state)
{
    (void)state;
    struct rs_policy *p = rs_policy_private(1001);
    assert_non_null(p);
    assert_int_equal(ask(p, 1001, 1, "", "luks:u", "plain", true, 15), 0);
    assert_int_equal(ask(p, 1002, 1, "", "luks:u", "luks:v", true, 0), RESEAL_EPERM);
    assert_int_equal(ask(p, 0, 0, "", "luks:u", "luks:v", true, 0), RESEAL_EPERM);
    rs_policy_free(p);
}

/* ---- the check ------------------------------------------------------------------ */

static json_t *identity(json_t *root, const char *name)
{
    size_t i;
    json_t *value;
    json_array_foreach(json_object_get(root, "identities"), i, value)
    {
        if (strcmp(json_string_value(json_object_get(value, "identity")), name) == 0) return value;
    }
    return NULL;
}

static bool reaches(json_t *who, const char *from, const char *to, bool *plain, size_t *steps)
{
    size_t i;
    json_t *value;
    json_array_foreach(json_object_get(who, "reaches"), i, value)
    {
        if (strcmp(json_string_value(json_object_get(value, "from")), from) != 0) continue;
        if (strcmp(json_string_value(json_object_get(value, "to")), to) != 0) continue;
        *plain = json_is_true(json_object_get(value, "plain"));
        *steps = json_array_size(json_object_get(value, "by")) - 1;
        return true;
    }
    return false;
}

static void chains_to_plain_are_found(void **state)
{
    (void)state;
    struct rs_policy *p =
        parsed("{\"version\": 1, \"tenants\": {\"t\": {\"users\": [\"ann\", \"bob\"]}},"
               " \"privileges\": [{\"to\": \"user:ann\", \"allow\": [\"Cryptographer.Access\"]}],"
               " \"pairs\": ["
               "  {\"for\": \"tenant:t\", \"from\": \"luks:*\", \"to\": \"random:a*\"},"
               "  {\"for\": \"tenant:t\", \"from\": \"random:*1\", \"to\": \"random:b\"},"
               "  {\"for\": \"user:ann\", \"from\": \"random:b\", \"to\": \"plain\","
               "   \"grants\": [\"plain-out\"]},"
               "  {\"for\": \"user:bob\", \"from\": \"random:b\", \"to\": \"plain\","
               "   \"grants\": [\"plain-out\"]}]}");
    RS_FREE char *text = rs_policy_check(p, NULL);
    json_t *root = json_loads(text, 0, NULL), *ann = identity(root, "user:ann"),
           *bob = identity(root, "user:bob");
    bool plain = false;
    size_t steps = 0;
    assert_non_null(ann);
    assert_non_null(bob);
    assert_non_null(identity(root, "tenant:t"));
    assert_true(reaches(ann, "luks:*", "random:b", &plain, &steps));
    assert_false(plain);
    assert_int_equal(steps, 2);
    assert_true(reaches(ann, "luks:*", "plain", &plain, &steps));
    assert_true(plain);
    assert_int_equal(steps, 3);
    assert_true(reaches(bob, "luks:*", "random:b", &plain, &steps));
    assert_false(reaches(bob, "luks:*", "plain", &plain, &steps)); /* no Access: unusable */
    assert_false(reaches(identity(root, "tenant:t"), "luks:*", "plain", &plain, &steps));
    json_decref(root);

    const struct rs_identity self = {.uid = 1001, .gid = 100};
    RS_FREE char *own = rs_policy_check(p, &self);
    root = json_loads(own, 0, NULL);
    assert_int_equal(json_array_size(json_object_get(root, "identities")), 1);
    assert_true(reaches(identity(root, "self"), "luks:*", "plain", &plain, &steps));
    json_decref(root);
    rs_policy_free(p);
}

/* A provider's disks are luks: keys: a chain goes on under either name. */
static void chains_go_through_disks_of_providers(void **state)
{
    (void)state;
    struct rs_policy *p =
        parsed("{\"version\": 1, \"tenants\": {\"t\": {\"users\": [\"ann\", \"bob\"]}},"
               " \"privileges\": [{\"to\": \"user:ann\", \"allow\": [\"Cryptographer.Access\"]}],"
               " \"pairs\": ["
               "  {\"for\": \"tenant:t\", \"from\": \"provider:a\", \"to\": \"provider:b\"},"
               "  {\"for\": \"tenant:t\", \"from\": \"provider:b\", \"to\": \"provider:c\"},"
               "  {\"for\": \"tenant:t\", \"from\": \"luks:*\", \"to\": \"random:r\"},"
               "  {\"for\": \"user:ann\", \"from\": \"provider:c\", \"to\": \"plain\","
               "   \"grants\": [\"plain-out\"]}]}");
    RS_FREE char *text = rs_policy_check(p, NULL);
    json_t *root = json_loads(text, 0, NULL), *ann = identity(root, "user:ann"),
           *bob = identity(root, "user:bob");
    bool plain = false;
    size_t steps = 0;
    assert_true(reaches(bob, "provider:a", "provider:c", &plain, &steps));
    assert_int_equal(steps, 2);
    assert_false(plain);
    assert_true(reaches(bob, "provider:a", "random:r", &plain, &steps));
    assert_int_equal(steps, 2);
    assert_false(reaches(bob, "provider:a", "plain", &plain, &steps));
    assert_false(reaches(bob, "provider:c", "provider:a", &plain, &steps));
    assert_true(reaches(ann, "provider:a", "plain", &plain, &steps));
    assert_true(plain);
    assert_int_equal(steps, 3);
    json_decref(root);
    rs_policy_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(patterns_match_and_meet),
        cmocka_unit_test(a_pair_that_is_not_listed_is_refused),
        cmocka_unit_test(disks_are_named_by_their_provider_too),
        cmocka_unit_test(grants_add_up_over_the_pairs_that_hold),
        cmocka_unit_test(plain_out_needs_the_grant_and_the_privilege),
        cmocka_unit_test(tenants_have_weights_and_limits),
        cmocka_unit_test(a_private_policy_is_for_one_user),
        cmocka_unit_test(chains_to_plain_are_found),
        cmocka_unit_test(chains_go_through_disks_of_providers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
