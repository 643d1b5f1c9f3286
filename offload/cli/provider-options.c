/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/cli/provider.h"

#include <getopt.h>
#include <stdlib.h>

const char rs_provider_help[] =
    "usage: reseal provider COMMAND [NAME] [OPTIONS]\n"
    "\n"
    "Key providers of the service: where the keys of disks and VMs come from.\n"
    "\n"
    "  add NAME --native               a provider without a server; 'export' it before its first use\n"
    "  add NAME --server HOST[:PORT]   a KMIP key server, or several with the same keys\n"
    "  add NAME --trusted FILE         for attested hosts: what 'reseal-keyproviderd --publish' printed\n"
    "  update NAME                     change servers, certificates or times, without a restart\n"
    "  csr NAME                        make a private key, which stays in the service, and print a\n"
    "                                  certificate request for it\n"
    "  certificate NAME --cert FILE    install the certificate that was issued for it\n"
    "  trust NAME                      confirm the certificates that its servers show now\n"
    "  test [NAME]                     ask each server; exit code 1 when one fails\n"
    "  list                            all providers you may use\n"
    "  default NAME                    use this one where none is named\n"
    "  export NAME --output FILE       back a native provider up: PKCS#12, under a password\n"
    "  import NAME FILE                restore a native provider from its backup\n"
    "  remove NAME                     forget it; keys on a server stay there\n"
    "\n"
    "  --server HOST[:PORT]     port 5696 unless given; may be repeated\n"
    "  --ca FILE                CA certificates (PEM) that the servers' certificates must come from\n"
    "  --fingerprint SHA256     of the server's certificate; without this and --ca the certificate is\n"
    "                           shown and you are asked to confirm it\n"
    "  --yes                    confirm whatever the servers show now\n"
    "  --cert FILE, --key FILE  client certificate and its private key (PEM)\n"
    "  --tpm WHERE              trusted: device:PATH (device:/dev/tpmrm0) or swtpm:path=SOCKET\n"
    "  --user NAME              for servers that want a user and a password too\n"
    "  --password-file FILE     password of that user or of a backup; without it you are asked\n"
    "  --proxy HOST:PORT        reach the servers through this HTTP proxy (CONNECT); none: directly\n"
    "  --cache SECONDS          how long keys stay in memory (86400); 0: only while they are used\n"
    "  --timeout SECONDS        to connect (5) and to answer (10), 1 to 60\n"
    "  --kmip VERSION           auto (the server's, at most 1.1), or 1.0 to 1.4\n"
    "  --default                make it the default, as the first provider is\n"
    "  --shared                 for all tenants; root and the user of the service only\n"
    "  --subject TEXT           of the request: a name, or \"CN=name,O=organisation\"\n"
    "  --output FILE            where the request or the backup goes; never overwrites a file\n"
    "  --force                  remove: even when its keys are in use\n"
    "  --json                   the result as one object\n"
    "  --runtime-dir DIR        the service's folder ($RESEAL_RUNTIME_DIR, /run/reseal)\n"
    "  --tenant NAME            the tenant to act for, where a user has several\n"
    "\n"
    "exit codes: 0 done, 1 failed, 2 usage, 3 refused, 4 wrong password or key, 5 unreadable file,\n"
    "6 input/output error, 7 no service\n"
    "\n"
    "example: reseal provider add safe --native\n"
    "         reseal provider export safe --output safe.p12\n"
    "         reseal provider add vault --server kms1.example --server kms2.example --ca ca.pem \\\n"
    "             --cert client.pem --key client.key\n";

static const struct option options[] = {{"native", no_argument, NULL, 'n'},
                                        {"server", required_argument, NULL, 's'},
                                        {"ca", required_argument, NULL, 'a'},
                                        {"fingerprint", required_argument, NULL, 'f'},
                                        {"yes", no_argument, NULL, 'y'},
                                        {"cert", required_argument, NULL, 'c'},
                                        {"key", required_argument, NULL, 'k'},
                                        {"user", required_argument, NULL, 'u'},
                                        {"password-file", required_argument, NULL, 'p'},
                                        {"proxy", required_argument, NULL, 'P'},
                                        {"cache", required_argument, NULL, 'C'},
                                        {"timeout", required_argument, NULL, 'T'},
                                        {"kmip", required_argument, NULL, 'K'},
                                        {"trusted", required_argument, NULL, 'w'},
                                        {"tpm", required_argument, NULL, 'm'},
                                        {"default", no_argument, NULL, 'd'},
                                        {"shared", no_argument, NULL, 'S'},
                                        {"subject", required_argument, NULL, 'j'},
                                        {"output", required_argument, NULL, 'o'},
                                        {"force", no_argument, NULL, 'F'},
                                        {"json", no_argument, NULL, 'J'},
                                        {"runtime-dir", required_argument, NULL, 'r'},
                                        {"tenant", required_argument, NULL, 't'},
                                        {"help", no_argument, NULL, 'h'},
                                        {NULL, 0, NULL, 0}};

static bool takes(const struct rs_provider_command *command, const char *option)
{
    size_t len = strlen(option);
    for (const char *at = command->options; (at = strstr(at, option)) != NULL; at += len)
        if ((at == command->options || at[-1] == ' ') && (at[len] == ' ' || at[len] == '\0')) return true;
    return false;
}

static int set_number(const char *option, int64_t max, int64_t *out, struct rs_failure *f)
{
    uint64_t n;
    char *end;
    if (*optarg >= '0' && *optarg <= '9' && (n = strtoull(optarg, &end, 10)) <= (uint64_t)max &&
        *end == '\0') {
        *out = (int64_t)n;
        return 0;
    }
    return rs_failure_set(f, RS_EXIT_USAGE, "--%s: '%s' is no number of seconds up to %lld", option, optarg,
                          (long long)max);
}

static void set_text(struct rs_provider_options *o, int c)
{
    const char **const texts[] = {
        ['a'] = &o->ca,     ['f'] = &o->fingerprint,   ['c'] = &o->cert,    ['k'] = &o->key,
        ['u'] = &o->user,   ['p'] = &o->password.file, ['K'] = &o->kmip,    ['j'] = &o->subject,
        ['o'] = &o->output, ['r'] = &o->runtime_dir,   ['w'] = &o->trusted, ['m'] = &o->tpm,
        ['t'] = &o->tenant, ['P'] = &o->proxy};
    if ((size_t)c < RS_ARRAY_LEN(texts) && texts[c] != NULL) *texts[c] = optarg;
}

static void set_flag(struct rs_provider_options *o, int c)
{
    bool *const flags[] = {['n'] = &o->native, ['y'] = &o->yes,  ['d'] = &o->is_default, ['S'] = &o->shared,
                           ['F'] = &o->force,  ['J'] = &o->json, ['h'] = &o->help};
    if ((size_t)c < RS_ARRAY_LEN(flags) && flags[c] != NULL) *flags[c] = true;
}

static int set_option(struct rs_provider_options *o, int c, struct rs_failure *f)
{
    if (c == 'C') return set_number("cache", 31536000, &o->cache_s, f);
    if (c == 'T') return set_number("timeout", 60, &o->timeout_s, f);
    if (c == 's') {
        if (o->nservers == RS_PROVIDER_SERVERS)
            return rs_failure_set(f, RS_EXIT_USAGE, "a provider has at most %u servers", RS_PROVIDER_SERVERS);
        o->servers[o->nservers++] = optarg;
    }
    set_text(o, c);
    set_flag(o, c);
    return 0;
}

int rs_provider_parse(const struct rs_provider_command *command, struct rs_provider_options *o, int argc,
                      char **argv, struct rs_failure *f)
{
    int index = 0;
    for (int c; (c = getopt_long(argc, argv, "h", options, &index)) != -1; index = 0) {
        if (c == '?') return rs_failure_set(f, RS_EXIT_USAGE, "'reseal provider --help' has the options");
        if (c != 'h' && !takes(command, options[index].name))
            return rs_failure_set(f, RS_EXIT_USAGE,
                                  "'%s' takes no --%s: 'reseal provider --help' says which does",
                                  command->name, options[index].name);
        int code = set_option(o, c, f);
        if (code != 0) return code;
    }
    if (o->help) return 0;
    unsigned n = (unsigned)(argc - optind);
    if (n < command->min || n > command->max)
        return rs_failure_set(f, RS_EXIT_USAGE, "'%s' takes %s%s: 'reseal provider --help' shows how",
                              command->name,
                              command->max == 0   ? "no argument"
                              : command->min == 0 ? "at most one name"
                                                  : "a name",
                              command->max == 2 ? " and a file" : "");
    o->name = n > 0 ? argv[optind] : NULL;
    o->file = n > 1 ? argv[optind + 1] : NULL;
    return 0;
}
