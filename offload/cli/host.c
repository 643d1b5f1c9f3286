/* SPDX-License-Identifier: Apache-2.0 */
/* reseal host: the hosts of a cluster, which get keys from a manager. */
#include "offload/cli/ask.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const char help[] =
    "usage: reseal host add NAME ADDRESS [--fingerprint F] [--cluster C]\n"
    "       reseal host list\n"
    "       reseal host prepare NAME\n"
    "       reseal host remove NAME\n"
    "       reseal host cluster NAME [--provider P]...\n"
    "       reseal host state\n"
    "       reseal host trust FINGERPRINT [--remove]\n"
    "\n"
    "A manager hands keys to the hosts of its clusters, so that each host can open every VM. A host is\n"
    "a service started with 'reseald --agent'. On the host, 'state' shows its fingerprint and 'trust'\n"
    "names the manager by the manager's. On the manager, 'add' names the host, and 'state' shows the\n"
    "manager's own fingerprint. 'prepare' makes the host create its host key. Hosts keep keys in memory\n"
    "only and get them again after a restart. For root, the user of the service and the policy's\n"
    "administrators.\n"
    "\n"
    "  --fingerprint F    SHA-256 of the host's certificate; without it the certificate is shown and\n"
    "                     you are asked to confirm it\n"
    "  --cluster C        the cluster the host belongs to (default)\n"
    "  --provider P       cluster: hand out this provider's keys; may be repeated; without it: all\n"
    "  --remove           trust: trust this manager no more\n" RS_ASK_HELP "\n"
    "exit codes: 0 done, 1 failed, 2 usage, 3 refused, 4 no such host, 7 no service\n"
    "example: reseal host add esx1 10.0.0.11:7443 --cluster prod\n";

struct wants {
    struct rs_ask ask;
    const char *fingerprint, *cluster;
    bool remove;
    json_t *providers;
};

/* ---- list, state ------------------------------------------------------------------------ */

static const char *standing(const json_t *h)
{
    if (json_is_true(json_object_get(h, "complete"))) return "has all keys";
    return json_is_true(json_object_get(h, "connected")) ? "gets keys" : "away";
}

/* What keeps it from having all. */
static void print_reason(const json_t *h)
{
    const char *error = rs_ask_text(h, "error");
    json_int_t missing = json_integer_value(json_object_get(h, "missing"));
    if (*error != '\0')
        printf(": %s", error);
    else if (missing != 0 && json_is_true(json_object_get(h, "connected")))
        printf(": %lld key%s missing: the key provider does not give %s", (long long)missing,
               missing == 1 ? " is" : "s are", missing == 1 ? "it" : "them");
    (void)putchar('\n');
}

static int list(struct wants *w)
{
    json_t *answer = NULL, *h;
    size_t i;
    int code = rs_ask(&w->ask, "host.list", NULL, NULL, 0, &answer, NULL);
    if (code != 0) return code;
    if (w->ask.json) {
        rs_ask_print(answer);
    } else {
        printf("%-16s %-12s %-24s %-10s %s\n", "HOST", "CLUSTER", "ADDRESS", "STATE", "KEYS");
        json_array_foreach(json_object_get(answer, "hosts"), i, h)
        {
            printf("%-16s %-12s %-24s %-10s %s", rs_ask_text(h, "name"), rs_ask_text(h, "cluster"),
                   rs_ask_text(h, "address"), rs_ask_text(h, "state"), standing(h));
            print_reason(h);
        }
    }
    json_decref(answer);
    return 0;
}

static int state(struct wants *w)
{
    json_t *answer = NULL, *manager;
    size_t i;
    int code = rs_ask(&w->ask, "host.identity", NULL, NULL, 0, &answer, NULL);
    if (code != 0) return code;
    if (w->ask.json) {
        rs_ask_print(answer);
    } else {
        const char *agent = rs_ask_text(answer, "agent");
        printf("fingerprint: %s\nagent: %s\nstate: %s\n", rs_ask_text(answer, "fingerprint"),
               *agent != '\0' ? agent : "none ('reseald --agent')", rs_ask_text(answer, "state"));
        json_array_foreach(json_object_get(answer, "managers"), i, manager)
            printf("manager: %s\n", json_string_value(manager));
    }
    json_decref(answer);
    return 0;
}

/* ---- add ------------------------------------------------------------------------------------ */

/* Shows what the host presents and asks whether it is that. NULL after a line on stderr. */
static char *confirmed(struct wants *w, const char *address, int *code)
{
    json_t *answer = NULL;
    char line[16] = "";
    *code = rs_ask(&w->ask, "host.presented", json_pack("{s:s}", "address", address), NULL, 0, &answer, NULL);
    if (*code != 0) return NULL;
    char *fingerprint = strdup(rs_ask_text(answer, "fingerprint"));
    fprintf(stderr, "%s presents %s\nfingerprint %s\n", address, rs_ask_text(answer, "certificate"),
            fingerprint);
    json_decref(answer);
    bool asked = isatty(STDIN_FILENO);
    if (asked) fprintf(stderr, "Is this what 'reseal host state' shows on the host? [yes/no] ");
    if (asked && fgets(line, sizeof(line), stdin) != NULL && strcmp(line, "yes\n") == 0) return fingerprint;
    free(fingerprint);
    *code = rs_cli_fail(RS_EXIT_REFUSED, "host", "not confirmed: give it with --fingerprint");
    return NULL;
}

static int add(struct wants *w, const char *name, const char *address)
{
    int code = 0;
    RS_FREE char *fingerprint =
        w->fingerprint != NULL ? strdup(w->fingerprint) : confirmed(w, address, &code);
    if (fingerprint == NULL) return code != 0 ? code : RS_CLI_FAILED;
    json_t *args = json_pack("{s:s, s:s, s:s, s:s}", "name", name, "address", address, "fingerprint",
                             fingerprint, "cluster", w->cluster != NULL ? w->cluster : "default");
    return rs_ask(&w->ask, "host.add", args, NULL, 0, NULL, NULL);
}

static int run(struct wants *w, int argc, char **argv)
{
    const char *verb = argc > 0 ? argv[0] : "", *name = argc > 1 ? argv[1] : NULL;
    if (argc == 1 && strcmp(verb, "list") == 0) return list(w);
    if (argc == 1 && strcmp(verb, "state") == 0) return state(w);
    if (argc == 3 && strcmp(verb, "add") == 0) return add(w, name, argv[2]);
    if (argc != 2) return rs_cli_usage("host");
    if (strcmp(verb, "prepare") == 0)
        return rs_ask(&w->ask, "host.prepare", json_pack("{s:s}", "name", name), NULL, 0, NULL, NULL);
    if (strcmp(verb, "remove") == 0)
        return rs_ask(&w->ask, "host.remove", json_pack("{s:s}", "name", name), NULL, 0, NULL, NULL);
    if (strcmp(verb, "cluster") == 0)
        return rs_ask(&w->ask, "host.cluster",
                      json_pack("{s:s, s:O}", "name", name, "providers", w->providers), NULL, 0, NULL, NULL);
    if (strcmp(verb, "trust") == 0)
        return rs_ask(&w->ask, "host.trust",
                      json_pack("{s:s, s:b}", "fingerprint", name, "remove", w->remove), NULL, 0, NULL, NULL);
    return rs_cli_usage("host");
}

int reseal_cmd_host(int argc, char **argv)
{
    static const struct option options[] = {RS_ASK_OPTIONS,
                                            {"fingerprint", required_argument, NULL, 'f'},
                                            {"cluster", required_argument, NULL, 'c'},
                                            {"provider", required_argument, NULL, 'p'},
                                            {"remove", no_argument, NULL, 'r'},
                                            {NULL, 0, NULL, 0}};
    struct wants w = {.ask = {.command = "host"}, .providers = json_array()};
    int code = w.providers != NULL ? 0 : RS_CLI_FAILED;
    for (int c; code == 0 && (c = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        if (rs_ask_option(&w.ask, c, optarg)) continue;
        if (c == 'f') w.fingerprint = optarg;
        if (c == 'c') w.cluster = optarg;
        if (c == 'p') (void)json_array_append_new(w.providers, json_string(optarg));
        if (c == 'r') w.remove = true;
        if (c == '?') code = rs_cli_usage("host");
        if (c == 'h') {
            fputs(help, stdout);
            json_decref(w.providers);
            return RS_CLI_OK;
        }
    }
    if (code == 0) code = run(&w, argc - optind, argv + optind);
    rs_ask_end(&w.ask);
    json_decref(w.providers);
    return code;
}
