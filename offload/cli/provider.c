/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/cli/provider.h"

#include <stdio.h>

#define COMMON   "json runtime-dir tenant"
#define STANDARD "server ca fingerprint yes cert key user password-file proxy cache timeout kmip default"

static const struct rs_provider_command commands[] = {
    {"add", 1, 1, "native trusted tpm shared " STANDARD " " COMMON, rs_provider_add},
    {"update", 1, 1, STANDARD " " COMMON, rs_provider_update},
    {"csr", 1, 1, "subject output " COMMON, rs_provider_csr},
    {"certificate", 1, 1, "cert key " COMMON, rs_provider_certificate},
    {"trust", 1, 1, "ca fingerprint yes " COMMON, rs_provider_trust},
    {"test", 0, 1, COMMON, rs_provider_test},
    {"list", 0, 0, COMMON, rs_provider_list},
    {"default", 1, 1, COMMON, rs_provider_default},
    {"export", 1, 1, "output password-file " COMMON, rs_provider_export},
    {"import", 2, 2, "password-file default shared " COMMON, rs_provider_import},
    {"remove", 1, 1, "force " COMMON, rs_provider_remove},
};

static const struct rs_provider_command *find(const char *name)
{
    for (size_t i = 0; i < RS_ARRAY_LEN(commands); i++)
        if (strcmp(commands[i].name, name) == 0) return &commands[i];
    return NULL;
}

int reseal_cmd_provider(int argc, char **argv)
{
    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        fputs(rs_provider_help, argc < 2 ? stderr : stdout);
        return argc < 2 ? RS_EXIT_USAGE : RS_EXIT_OK;
    }
    const struct rs_provider_command *command = find(argv[1]);
    if (command == NULL)
        return rs_cli_fail(RS_EXIT_USAGE, "provider",
                           "unknown command '%s': 'reseal provider --help' lists them", argv[1]);
    struct rs_provider_run p = {.o = {.password = {.fd = -1}, .cache_s = -1, .timeout_s = -1}};
    int code = rs_provider_parse(command, &p.o, argc - 1, argv + 1, &p.f);
    if (code == 0 && p.o.help) {
        fputs(rs_provider_help, stdout);
        return RS_EXIT_OK;
    }
    if (code == 0) code = command->run(&p);
    code = rs_provider_tell(&p, "provider");
    json_decref(p.result);
    reseal_close(p.service);
    return code;
}
