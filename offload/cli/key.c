/* SPDX-License-Identifier: Apache-2.0 */
/* reseal key: keys of providers by id, without the disks and VMs that they lock. */
#include "offload/cli/provider.h"

#include <getopt.h>
#include <stdio.h>

static const char help[] =
    "usage: reseal key make|status|list|forget [KEY] [OPTIONS]\n"
    "\n"
    "Keys that wrap other keys, by the ids that key providers give them. No command shows a key.\n"
    "\n"
    "  make          have a provider make a key, and print its id; VMs and disks do so themselves\n"
    "  status KEY    whether the key can be had, and if not, why (exit code 4)\n"
    "  list          keys in the service's memory, and for how many seconds they stay there\n"
    "  forget [KEY]  wipe a key, all of a provider, or all from memory; the next use fetches it again\n"
    "\n"
    "  --provider NAME    the key's provider (the default provider)\n"
    "  --detail X=TEXT    make: kept with the key on its server: x-Component, x-Name, x-Identifier\n"
    "  --cached           status: look into memory only, ask no server\n"
    "  --json             the result as one object\n"
    "  --runtime-dir DIR  the service's folder ($RESEAL_RUNTIME_DIR, /run/reseal)\n"
    "  --tenant NAME      the tenant to act for, where a user has several\n"
    "\n"
    "exit codes: 0 done, 1 failed, 2 usage, 3 refused, 4 no such key, 7 no service\n"
    "\n"
    "example: reseal key status 1042 --provider vault\n";

struct key_run {
    struct rs_provider_run p;
    const char *provider, *key;
    bool cached;
    json_t *details;
};

static json_t *args_of(const struct key_run *k)
{
    json_t *args = json_object();
    if (k->provider != NULL) (void)json_object_set_new(args, "provider", json_string(k->provider));
    if (k->key != NULL) (void)json_object_set_new(args, "key", json_string(k->key));
    return args;
}

static int make(struct key_run *k)
{
    json_t *args = args_of(k);
    if (k->details != NULL) (void)json_object_set(args, "details", k->details);
    int r = rs_provider_call(&k->p, "kek.make", args, NULL, 0, &k->p.result, NULL);
    if (r == 0 && !k->p.o.json) printf("%s\n", rs_provider_member(k->p.result, "key"));
    return r;
}

static int status(struct key_run *k)
{
    json_t *args = args_of(k);
    if (k->key == NULL) {
        json_decref(args);
        return rs_failure_set(&k->p.f, RS_EXIT_USAGE, "which key? 'reseal key status KEY'");
    }
    if (k->cached) (void)json_object_set_new(args, "probe", json_false());
    int r = rs_provider_call(&k->p, "kek.status", args, NULL, 0, &k->p.result, NULL);
    if (r != 0) return r;
    if (!json_is_true(json_object_get(k->p.result, "available"))) {
        const char *why = rs_provider_member(k->p.result, "error");
        return rs_failure_set(&k->p.f, RS_EXIT_KEY, "%s%s%s", rs_provider_member(k->p.result, "reason"),
                              *why != '\0' ? ": " : "", why);
    }
    if (!k->p.o.json)
        printf("available%s\n", json_is_true(json_object_get(k->p.result, "cached")) ? ", in memory" : "");
    return 0;
}

static int list(struct key_run *k)
{
    json_t *key;
    size_t i;
    int r = rs_provider_call(&k->p, "kek.list", NULL, NULL, 0, &k->p.result, NULL);
    if (r != 0 || k->p.o.json) return r;
    json_array_foreach(json_object_get(k->p.result, "keys"), i, key) printf(
        "%-24s %8lld s  %s\n", rs_provider_member(key, "provider"),
        (long long)json_integer_value(json_object_get(key, "expires_s")), rs_provider_member(key, "key"));
    return 0;
}

static int forget(struct key_run *k)
{
    int r = rs_provider_call(&k->p, "kek.forget", args_of(k), NULL, 0, &k->p.result, NULL);
    if (r == 0 && !k->p.o.json)
        printf("%lld forgotten\n", (long long)json_integer_value(json_object_get(k->p.result, "forgotten")));
    return r;
}

static int add_detail(struct key_run *k, const char *text)
{
    char name[64];
    const char *equals = strchr(text, '=');
    if (equals == NULL || (size_t)(equals - text) >= sizeof(name))
        return rs_failure_set(&k->p.f, RS_EXIT_USAGE, "--detail: wants x-NAME=TEXT, not '%s'", text);
    (void)snprintf(name, sizeof(name), "%.*s", (int)(equals - text), text);
    if (k->details == NULL) k->details = json_object();
    return json_object_set_new(k->details, name, json_string(equals + 1)) == 0
               ? 0
               : rs_failure_set(&k->p.f, RS_EXIT_USAGE, "--detail: '%s' is no text", text);
}

static int parse(struct key_run *k, int argc, char **argv)
{
    static const struct option options[] = {{"provider", required_argument, NULL, 'p'},
                                            {"detail", required_argument, NULL, 'd'},
                                            {"cached", no_argument, NULL, 'c'},
                                            {"json", no_argument, NULL, 'j'},
                                            {"runtime-dir", required_argument, NULL, 'r'},
                                            {"tenant", required_argument, NULL, 't'},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    for (int c; (c = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        if (c == '?') return rs_failure_set(&k->p.f, RS_EXIT_USAGE, "'reseal key --help' has the options");
        if (c == 'p') k->provider = optarg;
        if (c == 'c') k->cached = true;
        if (c == 'j') k->p.o.json = true;
        if (c == 'r') k->p.o.runtime_dir = optarg;
        if (c == 't') k->p.o.tenant = optarg;
        if (c == 'h') k->p.o.help = true;
        int r = c == 'd' ? add_detail(k, optarg) : 0;
        if (r != 0) return r;
    }
    if (argc - optind > 1) return rs_failure_set(&k->p.f, RS_EXIT_USAGE, "one key at a time");
    k->key = argc > optind ? argv[optind] : NULL;
    return 0;
}

static const struct {
    const char *name;
    int (*run)(struct key_run *k);
} commands[] = {{"make", make}, {"status", status}, {"list", list}, {"forget", forget}};

int reseal_cmd_key(int argc, char **argv)
{
    struct key_run k = {.p = {.o = {.password = {.fd = -1}}}};
    int (*run)(struct key_run *) = NULL;
    for (size_t i = 0; i < RS_ARRAY_LEN(commands) && argc > 1; i++)
        if (strcmp(commands[i].name, argv[1]) == 0) run = commands[i].run;
    bool wants_help = argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0);
    if (run == NULL) {
        fputs(help, wants_help ? stdout : stderr);
        return wants_help ? RS_EXIT_OK : RS_EXIT_USAGE;
    }
    int code = parse(&k, argc - 1, argv + 1);
    if (code == 0 && k.p.o.help) {
        fputs(help, stdout);
    } else {
        if (code == 0) code = run(&k);
        code = rs_provider_tell(&k.p, "key");
    }
    json_decref(k.details);
    json_decref(k.p.result);
    reseal_close(k.p.service);
    return code;
}
