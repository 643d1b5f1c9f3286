/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "offload/cli/cli.h"
#include "offload/cli/status.h"

static const struct command {
    const char *name;
    const char *summary;
    int (*run)(int argc, char **argv);
} commands[] = {
    {"audit", "who used which key, and who was refused", reseal_cmd_audit},
    {"bench", "how fast, compared with the machine's limits and with other programs", reseal_cmd_bench},
    {"coredump", "encrypted core dumps: sealed, listed, extracted", reseal_cmd_coredump},
    {"doctor", "what limits or fails, and the command that puts it right", reseal_cmd_doctor},
    {"engines", "the engines, and which one is chosen for which work", reseal_cmd_engines},
    {"events", "what happened to keys, providers, hosts and VMs", reseal_cmd_events},
    {"host", "the hosts of a cluster, which get keys from a manager", reseal_cmd_host},
    {"key", "keys of key providers, by id", reseal_cmd_key},
    {"openssl", "the provider reseal.so: does it load, take effect, and gain", reseal_cmd_openssl},
    {"policy", "who may do what by a policy file, and where plaintext can come out", reseal_cmd_policy},
    {"provider", "where keys come from: native, KMIP servers, attested hosts", reseal_cmd_provider},
    {"status", "the running service: protections, workers, clients", reseal_cmd_status},
    {"tenant", "who shares the service: quotas, suspension, offboarding with a receipt", reseal_cmd_tenant},
    {"top", "rates of the running service, refreshed", reseal_cmd_top},
    {"transcode", "re-encrypt a disk image, in place or into another", reseal_cmd_transcode},
    {"vm", "the life of an encrypted VM: its home, its disks, its keys", reseal_cmd_vm},
    {"help", "this list, or the help of a command", reseal_cmd_help},
};

static const struct command *find(const char *name)
{
    for (size_t i = 0; i < RS_ARRAY_LEN(commands); i++)
        if (strcmp(commands[i].name, name) == 0) return &commands[i];
    return NULL;
}

static void print_commands(FILE *to)
{
    fprintf(to, "usage: reseal COMMAND [OPTIONS]\n\n"
                "Decrypts with one key and re-encrypts with another, at the speed of the core.\n\n");
    for (size_t i = 0; i < RS_ARRAY_LEN(commands); i++)
        fprintf(to, "  %-10s %s\n", commands[i].name, commands[i].summary);
    fprintf(to, "\n'reseal COMMAND --help' has the options and an example; 'reseal --version' the version.\n"
                "example: reseal doctor\n");
}

static int unknown(const char *name)
{
    fprintf(stderr, "reseal: unknown command '%s': 'reseal help' lists them\n", name);
    return RS_CLI_USAGE;
}

int reseal_cmd_help(int argc, char **argv)
{
    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        print_commands(stdout);
        return RS_CLI_OK;
    }
    const struct command *c = find(argv[1]);
    if (c == NULL) return unknown(argv[1]);
    char *help[] = {argv[1], (char[]){"--help"}, NULL};
    return c->run == reseal_cmd_help ? reseal_cmd_help(1, help) : c->run(2, help);
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        (void)rs_status_summary();
        putchar('\n');
        print_commands(stdout);
        return RS_CLI_OK;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("reseal %s\n", RESEAL_VERSION);
        return RS_CLI_OK;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) return reseal_cmd_help(1, argv);
    const struct command *c = find(argv[1]);
    if (c == NULL) return unknown(argv[1]);
    int code = c->run(argc - 1, argv + 1);
    /* A full disk or a closed pipe must not pass for success. */
    if (fflush(stdout) != 0 || ferror(stdout)) {
        if (code == RS_CLI_OK) code = rs_cli_fail(RS_CLI_FAILED, argv[1], "cannot write the output");
    }
    return code;
}
