/* SPDX-License-Identifier: Apache-2.0 */
/* reseal tenant: who shares the service, and the end of a tenant. */
#include "offload/cli/ask.h"
#include "providers/key/receipt.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const char help[] =
    "usage: reseal tenant add NAME [--user U]... [--group G]... [--weight N] [--max-keys N]\n"
    "                          [--max-sessions N] [--allow PRIVILEGE,...] [--role ROLE,...]\n"
    "                          [--pair FROM,TO[,GRANT...]]...\n"
    "       reseal tenant list\n"
    "       reseal tenant quota NAME [--weight N] [--max-keys N] [--max-sessions N]\n"
    "       reseal tenant suspend|resume NAME\n"
    "       reseal tenant offboard NAME --yes [--retire-keys] [--receipt FILE]\n"
    "       reseal tenant verify-receipt FILE [--key FINGERPRINT]\n"
    "\n"
    "Tenants have key providers, keys and events of their own and share the service by weight. These\n"
    "commands add tenants to those of the policy file. 'suspend' closes everything a tenant has open\n"
    "and lets it open nothing more. 'offboard' destroys its keys, and so its data, for good, and prints\n"
    "a signed receipt that says what was destroyed. For root, the user of the service and the policy's\n"
    "administrators; 'list' shows everyone else their own tenant.\n"
    "\n"
    "  --user U           a member, by user name or number; may be repeated\n"
    "  --group G          members, by group name or number; may be repeated\n"
    "  --weight N         its share of a busy worker, 1 to 1000 (100)\n"
    "  --max-keys N       keys per connection, 1 to 16384 (1024)\n"
    "  --max-sessions N   open sessions in all; 0: no limit of its own\n"
    "  --allow P,...      privileges, with or without 'Cryptographer.'\n"
    "  --role R,...       roles, as in reseal-policy(5)\n"
    "  --pair FROM,TO[,GRANT...]  a pair of keys; may be repeated\n"
    "  --yes              offboard: yes, really\n"
    "  --retire-keys      offboard: first have its keys destroyed at the key servers\n"
    "  --receipt FILE     offboard: write the receipt to this new file too\n"
    "  --key FINGERPRINT  verify-receipt: of the service's audit key; without it the running service is\n"
    "                     asked, and without one nobody vouches for the key in the receipt\n" RS_ASK_HELP "\n"
    "exit codes: 0 done, 1 failed, 2 usage, 3 refused, 4 signed by another key, 5 not a receipt, or\n"
    "changed, 6 input/output error, 7 no service\n"
    "example: reseal tenant add acme --user backup --weight 200 --allow Access\n";

struct wants {
    struct rs_ask ask;
    const char *name, *receipt, *key;
    bool yes, retire;
    json_t *args;
};

/* ---- arguments ----------------------------------------------------------------------- */

static int add_to_list(json_t *args, const char *member, json_t *value)
{
    json_t *list = json_object_get(args, member);
    if (list == NULL) {
        list = json_array();
        if (json_object_set_new(args, member, list) != 0) return RS_CLI_FAILED;
    }
    return json_array_append_new(list, value) == 0 ? 0 : RS_CLI_FAILED;
}

/* "a,b" as two members of a list; privileges may lack their prefix. */
static int add_words(json_t *args, const char *member, const char *text, const char *prefix)
{
    char word[128];
    for (const char *at = text; *at != '\0';) {
        size_t n = strcspn(at, ",");
        bool has = strncmp(at, prefix, strlen(prefix)) == 0;
        int len = snprintf(word, sizeof(word), "%s%.*s", has ? "" : prefix, (int)RS_MIN(n, (size_t)100), at);
        if (n == 0 || len < 0 || add_to_list(args, member, json_string(word)) != 0) return RS_CLI_FAILED;
        at += n + (at[n] == ',');
    }
    return 0;
}

static int add_pair(json_t *args, const char *text)
{
    RS_FREE char *copy = strdup(text);
    char *rest = NULL;
    const char *from = copy != NULL ? strtok_r(copy, ",", &rest) : NULL, *to = strtok_r(NULL, ",", &rest),
               *grant;
    if (from == NULL || to == NULL)
        return rs_cli_fail(RS_CLI_USAGE, "tenant", "--pair wants FROM,TO and grants, with commas between");
    json_t *pair = json_pack("{s:s, s:s, s:[]}", "from", from, "to", to, "grants");
    while ((grant = strtok_r(NULL, ",", &rest)) != NULL)
        (void)json_array_append_new(json_object_get(pair, "grants"), json_string(grant));
    return add_to_list(args, "pairs", pair);
}

static int add_number(json_t *args, const char *member, const char *text)
{
    int64_t n;
    if (!rs_ask_number(text, INT32_MAX, &n))
        return rs_cli_fail(RS_CLI_USAGE, "tenant", "--%s takes a number", member);
    return json_object_set_new(args, member, json_integer(n)) == 0 ? 0 : RS_CLI_FAILED;
}

static int take_option(struct wants *w, int c)
{
    switch (c) {
    case 'u':
        return add_to_list(w->args, "users", json_string(optarg));
    case 'g':
        return add_to_list(w->args, "groups", json_string(optarg));
    case 'w':
        return add_number(w->args, "weight", optarg);
    case 'k':
        return add_number(w->args, "max-keys", optarg);
    case 's':
        return add_number(w->args, "max-sessions", optarg);
    case 'a':
        return add_words(w->args, "allow", optarg, "Cryptographer.");
    case 'r':
        return add_words(w->args, "roles", optarg, "");
    case 'p':
        return add_pair(w->args, optarg);
    case 'y':
        w->yes = true;
        return 0;
    case 't':
        w->retire = true;
        return 0;
    case 'o':
        w->receipt = optarg;
        return 0;
    case 'K':
        w->key = optarg;
        return 0;
    default:
        return rs_cli_usage("tenant");
    }
}

/* ---- list ------------------------------------------------------------------------------ */

static int list(struct wants *w)
{
    json_t *answer = NULL, *t;
    size_t i;
    int code = rs_ask(&w->ask, "tenant.list", NULL, NULL, 0, &answer, NULL);
    if (code != 0) return code;
    if (w->ask.json) {
        rs_ask_print(answer);
    } else {
        printf("%-20s %-8s %7s %9s %13s %8s %6s\n", "TENANT", "FROM", "WEIGHT", "MAX-KEYS", "MAX-SESSIONS",
               "CLIENTS", "KEYS");
        json_array_foreach(json_object_get(answer, "tenants"), i, t)
        {
            char most[24] = "-";
            json_int_t n = json_integer_value(json_object_get(t, "max-sessions"));
            if (n != 0) (void)snprintf(most, sizeof(most), "%lld", (long long)n);
            printf("%-20s %-8s %7lld %9lld %13s %8lld %6lld%s\n", rs_ask_text(t, "name"),
                   rs_ask_text(t, "origin"), (long long)json_integer_value(json_object_get(t, "weight")),
                   (long long)json_integer_value(json_object_get(t, "max-keys")), most,
                   (long long)json_integer_value(json_object_get(t, "clients")),
                   (long long)json_integer_value(json_object_get(t, "keys")),
                   json_is_true(json_object_get(t, "suspended")) ? "  SUSPENDED" : "");
        }
    }
    json_decref(answer);
    return 0;
}

/* ---- the end of a tenant ----------------------------------------------------------------- */

static int write_receipt(const char *path, const json_t *receipt)
{
    RS_FREE char *text = json_dumps(receipt, JSON_INDENT(2));
    RS_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    int r = fd < 0 ? -errno : text == NULL ? -ENOMEM : rs_write_full(fd, text, strlen(text));
    if (r == 0) r = rs_write_full(fd, "\n", 1);
    if (r == 0 && fsync(fd) != 0) r = -errno;
    if (r == 0) return 0;
    return rs_cli_fail(RS_EXIT_IO, "tenant",
                       "the tenant is gone, but %s cannot be written: %s; the state folder has the receipt",
                       path, strerror(-r));
}

static void print_receipt(const json_t *sealed)
{
    const json_t *receipt = json_object_get(sealed, "receipt");
    json_t *line;
    size_t i, retired = 0;
    printf("tenant %s, %s\n", rs_ask_text(receipt, "tenant"), rs_ask_text(receipt, "time"));
    json_array_foreach(json_object_get(receipt, "destroyed"), i, line)
        printf("  destroyed: %s of provider %s (%s)\n", rs_ask_text(line, "what"),
               rs_ask_text(line, "provider"), rs_ask_text(line, "kind"));
    json_array_foreach(json_object_get(receipt, "keys"), i, line) retired +=
        json_is_true(json_object_get(line, "retired"));
    printf("  keys: %zu named, %zu retired at their key servers, %lld forgotten\n",
           json_array_size(json_object_get(receipt, "keys")), retired,
           (long long)json_integer_value(json_object_get(receipt, "forgotten")));
}

static int offboard(struct wants *w)
{
    json_t *sealed = NULL;
    if (!w->yes)
        return rs_cli_fail(
            RS_EXIT_REFUSED, "tenant",
            "this destroys the keys of tenant %s and with them all of its data, for good: add --yes",
            w->name);
    int code =
        rs_ask(&w->ask, "tenant.offboard", json_pack("{s:s, s:b}", "name", w->name, "retire-keys", w->retire),
               NULL, 0, &sealed, NULL);
    if (code != 0) return code;
    if (w->ask.json)
        rs_ask_print(sealed);
    else
        print_receipt(sealed);
    if (w->receipt != NULL) code = write_receipt(w->receipt, sealed);
    json_decref(sealed);
    return code;
}

/* ---- receipts ------------------------------------------------------------------------------ */

/* The fingerprint that the signer must have, "" when nobody says. */
static void expected(struct wants *w, char out[65])
{
    struct reseal_options options = {
        .size = sizeof(options), .reconnect_ms = 0, .runtime_dir = w->ask.runtime_dir};
    json_t *answer = NULL;
    out[0] = '\0';
    if (w->key != NULL) {
        (void)snprintf(out, 65, "%s", w->key);
        return;
    }
    /* No service is no error here. */
    if (reseal_open(&w->ask.r, &options) != 0) return;
    if (rs_ask(&w->ask, "tenant.audit_key", NULL, NULL, 0, &answer, NULL) == 0)
        (void)snprintf(out, 65, "%s", rs_ask_text(answer, "fingerprint"));
    json_decref(answer);
}

static int verify(struct wants *w)
{
    uint8_t public[RS_RECEIPT_PUBLIC];
    char want[65], got[65];
    json_error_t error;
    if (w->key != NULL && (strlen(w->key) != 64 || strspn(w->key, "0123456789abcdef") != 64))
        return rs_cli_fail(RS_EXIT_USAGE, "tenant", "--key wants 64 hexadecimal digits, not '%s'", w->key);
    json_t *sealed = json_load_file(w->name, JSON_REJECT_DUPLICATES, &error);
    int r = sealed != NULL ? rs_receipt_check(sealed, public) : RESEAL_EFORMAT;
    if (r != 0) {
        json_decref(sealed);
        return rs_cli_fail(RS_EXIT_FORMAT, "tenant", "%s: %s", w->name,
                           r == RESEAL_EAUTH ? "the signature does not fit: it was changed"
                                             : "not a receipt");
    }
    rs_receipt_digest(public, sizeof(public), got);
    expected(w, want);
    if (want[0] != '\0' && strcmp(want, got) != 0) {
        json_decref(sealed);
        return rs_cli_fail(RS_EXIT_KEY, "tenant", "%s: signed by another key, %s", w->name, got);
    }
    if (w->ask.json)
        rs_ask_print(sealed);
    else
        print_receipt(sealed);
    json_decref(sealed);
    printf("signed by %s%s\n", got, want[0] != '\0' ? "" : ", which nobody vouches for: give --key");
    return 0;
}

/* ---- the command ------------------------------------------------------------------------------ */

/* Puts NAME into the arguments and asks. */
static int simple(struct wants *w, const char *method)
{
    (void)json_object_set_new(w->args, "name", json_string(w->name));
    return rs_ask(&w->ask, method, json_incref(w->args), NULL, 0, NULL, NULL);
}

static int run(struct wants *w, const char *verb)
{
    if (strcmp(verb, "add") == 0) return simple(w, "tenant.add");
    if (strcmp(verb, "quota") == 0) return simple(w, "tenant.quota");
    if (strcmp(verb, "suspend") == 0) return simple(w, "tenant.suspend");
    if (strcmp(verb, "resume") == 0) return simple(w, "tenant.resume");
    if (strcmp(verb, "offboard") == 0) return offboard(w);
    if (strcmp(verb, "verify-receipt") == 0) return verify(w);
    return rs_cli_usage("tenant");
}

int reseal_cmd_tenant(int argc, char **argv)
{
    static const struct option options[] = {RS_ASK_OPTIONS,
                                            {"user", required_argument, NULL, 'u'},
                                            {"group", required_argument, NULL, 'g'},
                                            {"weight", required_argument, NULL, 'w'},
                                            {"max-keys", required_argument, NULL, 'k'},
                                            {"max-sessions", required_argument, NULL, 's'},
                                            {"allow", required_argument, NULL, 'a'},
                                            {"role", required_argument, NULL, 'r'},
                                            {"pair", required_argument, NULL, 'p'},
                                            {"yes", no_argument, NULL, 'y'},
                                            {"retire-keys", no_argument, NULL, 't'},
                                            {"receipt", required_argument, NULL, 'o'},
                                            {"key", required_argument, NULL, 'K'},
                                            {NULL, 0, NULL, 0}};
    struct wants w = {.ask = {.command = "tenant"}, .args = json_object()};
    int code = w.args != NULL ? 0 : RS_CLI_FAILED;
    for (int c; code == 0 && (c = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        if (c == 'h') {
            fputs(help, stdout);
            json_decref(w.args);
            return RS_CLI_OK;
        }
        if (!rs_ask_option(&w.ask, c, optarg)) code = take_option(&w, c);
    }
    int left = argc - optind;
    if (code == 0 && left == 1 && strcmp(argv[optind], "list") == 0) {
        code = list(&w);
    } else if (code == 0 && left == 2) {
        w.name = argv[optind + 1];
        code = run(&w, argv[optind]);
    } else if (code == 0) {
        code = rs_cli_usage("tenant");
    }
    rs_ask_end(&w.ask);
    json_decref(w.args);
    return code;
}
