/* SPDX-License-Identifier: Apache-2.0 */
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "offload/base/keymem.h"
#include "offload/cli/cli.h"
#include "providers/key/policy.h"

#define DEFAULT_FILE "/etc/reseal/policy.json"

static const char help[] =
    "usage: reseal policy check [--json] [--fail-plain] [FILE]\n"
    "       reseal policy show [--json] [FILE]\n"
    "\n"
    "Reads a policy file (" DEFAULT_FILE " unless given) as reseal-keyd would. The\n"
    "running service is not asked.\n"
    "\n"
    "'show' prints who has which privileges, through which roles, and may turn what into what;\n"
    "also the roles that every policy knows. 'check' prints, for everybody the policy names,\n"
    "tenants, privileges, pairs of keys and every chain of pairs. PLAIN marks where plaintext\n"
    "can come out: at a plain destination, or at one whose key or pass phrase the client knows.\n"
    "(unusable) marks a pair that opens no session, as it lacks 'plain-out' or its identity\n"
    "lacks Cryptographer.Access.\n"
    "\n"
    "  --json        the same as one object: identities\n"
    "  --fail-plain  exit code 3 when plaintext can come out anywhere\n"
    "\n"
    "exit codes: 0 fine, 1 the policy is refused, 2 usage, 3 see --fail-plain\n"
    "\n"
    "example: reseal policy check policy.json\n";

#define EXIT_PLAIN 3

static const char *text_of(json_t *object, const char *member)
{
    const char *text = json_string_value(json_object_get(object, member));
    return text != NULL ? text : "";
}

/* The strings of a list, with a separator. */
static void print_words(json_t *list, const char *separator)
{
    size_t i;
    json_t *word;
    json_array_foreach(list, i, word) printf("%s%s", i != 0 ? separator : "", json_string_value(word));
}

static const char *mark_of(json_t *rule)
{
    if (json_is_true(json_object_get(rule, "plain"))) return "  PLAIN";
    json_t *usable = json_object_get(rule, "usable");
    return usable != NULL && !json_is_true(usable) ? "  (unusable)" : "";
}

static void print_pairs(json_t *pairs)
{
    size_t i;
    json_t *pair;
    json_array_foreach(pairs, i, pair)
    {
        printf("  %s -> %s  [", text_of(pair, "from"), text_of(pair, "to"));
        print_words(json_object_get(pair, "grants"), ", ");
        printf("]  for %s%s\n", text_of(pair, "for"), mark_of(pair));
    }
}

/* Chains of more than one pair; the single ones are listed above them. True when plaintext comes out
 * anywhere. */
static bool print_chains(json_t *reaches, bool print)
{
    size_t i;
    json_t *reach;
    bool plain = false;
    json_array_foreach(reaches, i, reach)
    {
        json_t *by = json_object_get(reach, "by");
        plain = plain || json_is_true(json_object_get(reach, "plain"));
        if (!print || json_array_size(by) <= 2) continue;
        printf("  by way of: ");
        print_words(by, " -> ");
        printf("%s\n", mark_of(reach));
    }
    return plain;
}

static bool print_identity(json_t *identity, bool print)
{
    if (print) {
        printf("%s", text_of(identity, "identity"));
        if (json_array_size(json_object_get(identity, "tenants")) != 0) {
            printf("  tenants: ");
            print_words(json_object_get(identity, "tenants"), ", ");
        }
        if (json_array_size(json_object_get(identity, "privileges")) != 0) {
            printf("  privileges: ");
            print_words(json_object_get(identity, "privileges"), ", ");
        }
        printf("\n");
        if (json_array_size(json_object_get(identity, "pairs")) == 0) printf("  nothing\n");
        print_pairs(json_object_get(identity, "pairs"));
    }
    return print_chains(json_object_get(identity, "reaches"), print);
}

/* ---- show ---------------------------------------------------------------------------- */

/* A privilege without what all of them begin with. */
static const char *short_name(const char *privilege)
{
    const char *dot = strchr(privilege, '.');
    return dot != NULL ? dot + 1 : privilege;
}

static void show_identity(json_t *identity)
{
    size_t i;
    json_t *word, *privileges = json_object_get(identity, "privileges"),
                  *roles = json_object_get(identity, "roles");
    printf("%s", text_of(identity, "identity"));
    if (json_array_size(json_object_get(identity, "tenants")) != 0) {
        printf("  tenants: ");
        print_words(json_object_get(identity, "tenants"), ", ");
    }
    if (json_array_size(roles) != 0) {
        printf("  roles: ");
        print_words(roles, ", ");
    }
    printf("\n  privileges: ");
    json_array_foreach(privileges, i, word)
        printf("%s%s", i != 0 ? ", " : "", short_name(json_string_value(word)));
    printf("%s\n", json_array_size(privileges) == 0 ? "none" : "");
    print_pairs(json_object_get(identity, "pairs"));
}

static void show_all(json_t *root)
{
    size_t i;
    json_t *identity, *administrators = json_object_get(root, "administrators");
    json_array_foreach(json_object_get(root, "identities"), i, identity) show_identity(identity);
    printf("administrators of the service: root, its own user");
    json_array_foreach(administrators, i, identity) printf(", %s", json_string_value(identity));
    printf("\n\nroles that every policy knows:\n");
    for (const struct rs_role *r = rs_roles; r->name != NULL; r++) printf("  %-22s %s\n", r->name, r->what);
}

/* ---- the command ------------------------------------------------------------------------ */

static int check(const char *file, bool json, bool fail_plain, bool show)
{
    struct rs_policy *policy;
    char why[400];
    /* A tenant's digest key is read too, to see that it can be. */
    if (rs_keymem_init((size_t)64 << 10) != 0) return rs_cli_fail(RS_CLI_FAILED, "policy", "out of memory");
    if (rs_policy_load(file, &policy, why, sizeof(why)) != 0)
        return rs_cli_fail(RS_CLI_FAILED, "policy", "%s", why);
    RS_FREE char *text = rs_policy_check(policy, NULL);
    rs_policy_free(policy);
    json_t *root = text != NULL ? json_loads(text, 0, NULL) : NULL, *identity;
    if (root == NULL) return rs_cli_fail(RS_CLI_FAILED, "policy", "out of memory");
    if (json) printf("%s\n", text);
    if (show) {
        if (!json) show_all(root);
        json_decref(root);
        return RS_CLI_OK;
    }
    size_t i;
    bool plain = false;
    json_array_foreach(json_object_get(root, "identities"), i, identity)
    {
        if (print_identity(identity, !json)) plain = true;
    }
    json_decref(root);
    return plain && fail_plain ? EXIT_PLAIN : RS_CLI_OK;
}

int reseal_cmd_policy(int argc, char **argv)
{
    static const struct option options[] = {{"json", no_argument, NULL, 'j'},
                                            {"fail-plain", no_argument, NULL, 'p'},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    bool json = false, fail_plain = false;
    for (int c; (c = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        if (c == 'j') json = true;
        if (c == 'p') fail_plain = true;
        if (c == 'h') {
            fputs(help, stdout);
            return RS_CLI_OK;
        }
        if (c == '?') return rs_cli_usage("policy");
    }
    bool show = optind < argc && strcmp(argv[optind], "show") == 0;
    if (optind >= argc || (!show && strcmp(argv[optind], "check") != 0) || argc - optind > 2 ||
        (show && fail_plain)) {
        fputs(help, stderr);
        return RS_CLI_USAGE;
    }
    return check(argc - optind == 2 ? argv[optind + 1] : DEFAULT_FILE, json, fail_plain, show);
}
