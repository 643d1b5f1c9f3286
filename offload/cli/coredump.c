/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/cli/coredump.h"

#include <getopt.h>
#include <stdio.h>

static const char help[] =
    "usage: reseal coredump COMMAND [OPTIONS]\n"
    "\n"
    "Encrypted core dumps: the kernel hands each dump over as a pipe, and the key service\n"
    "seals it into an envelope file under the key of this host. No dump is written in clear.\n"
    "\n"
    "  install       print the sysctl settings that make the kernel do so\n"
    "  status        whether the kernel does, and what the folder holds\n"
    "  handle        what the kernel runs: " RS_CORE_ARGS ", the dump on stdin\n"
    "  list          sealed dumps, oldest first\n"
    "  describe FILE what a dump says about itself, without opening it\n"
    "  extract FILE  write the dump in clear, for a debugger: needs Cryptographer.Access\n"
    "  recrypt FILE  seal the dump with a pass phrase, for somebody else to extract: needs\n"
    "                Cryptographer.Access\n"
    "  rekey         make a new host key for later dumps: needs Cryptographer.RegisterHost\n"
    "\n"
    "  --provider NAME         rekey: a key that this key provider makes, which any host that can\n"
    "                          have it opens dumps with; without it the key is random\n"
    "  --key ID                rekey: this key of the provider; another host's, to open its dumps\n"
    "  --folder PATH           the folder of dumps (" RS_CORES_FOLDER ")\n"
    "  --out FILE              extract, recrypt: the file to make, mode 0600\n"
    "  --force                 extract, recrypt: replace a file that exists\n"
    "  --passphrase-file FILE  the pass phrase, byte for byte; without it you are asked\n"
    "  --max-size BYTES        handle: cut longer dumps (16G)\n"
    "  --max-count N           handle: keep no more dumps than that (64)\n"
    "  --keep-free BYTES       handle: leave this much room on the file system (1G)\n"
    "  --deadline SECONDS      handle: drop a dump that takes longer (600)\n"
    "  --runtime-dir DIR       the service's folder ($RESEAL_RUNTIME_DIR, /run/reseal)\n"
    "  --json                  list, describe, status, rekey: as one object\n"
    "\n"
    "exit codes: 0 done, 1 failed (status: dumps are not sealed), 2 usage, 3 refused,\n"
    "4 wrong key or pass phrase, 5 damaged, 6 input/output or no space, 7 no service\n"
    "\n"
    "example: reseal coredump extract /var/lib/reseal/cores/app.4711.1700000000.core.ve --out app.core\n";

enum {
    PROVIDER = 256,
    KEY,
    FOLDER,
    OUT,
    FORCE,
    PHRASE,
    MAX_SIZE,
    MAX_COUNT,
    KEEP_FREE,
    DEADLINE,
    RUNTIME,
    JSON
};

static const struct option options[] = {{"provider", required_argument, NULL, PROVIDER},
                                        {"key", required_argument, NULL, KEY},
                                        {"folder", required_argument, NULL, FOLDER},
                                        {"out", required_argument, NULL, OUT},
                                        {"force", no_argument, NULL, FORCE},
                                        {"passphrase-file", required_argument, NULL, PHRASE},
                                        {"max-size", required_argument, NULL, MAX_SIZE},
                                        {"max-count", required_argument, NULL, MAX_COUNT},
                                        {"keep-free", required_argument, NULL, KEEP_FREE},
                                        {"deadline", required_argument, NULL, DEADLINE},
                                        {"runtime-dir", required_argument, NULL, RUNTIME},
                                        {"json", no_argument, NULL, JSON},
                                        {"help", no_argument, NULL, 'h'},
                                        {NULL, 0, NULL, 0}};

static int take_number(const char *name, const char *text, uint64_t max, uint64_t *out)
{
    if (rs_cli_bytes(text, max, out) == 0) return 0;
    (void)rs_cli_fail(RS_EXIT_USAGE, "coredump", "--%s: wants a number, at most %llu, not '%.40s'", name,
                      (unsigned long long)max, text);
    return RS_EXIT_USAGE;
}

/* 0, or the exit code. */
static int take_option(struct rs_cores *c, int option)
{
    switch (option) {
    case PROVIDER:
        c->provider = optarg;
        return 0;
    case KEY:
        c->key = optarg;
        return 0;
    case FOLDER:
        c->folder = optarg;
        return 0;
    case OUT:
        c->out = optarg;
        return 0;
    case FORCE:
        c->force = true;
        return 0;
    case PHRASE:
        c->passphrase_file = optarg;
        return 0;
    case MAX_SIZE:
        return take_number("max-size", optarg, (uint64_t)63 << 30, &c->max_size);
    case MAX_COUNT:
        return take_number("max-count", optarg, 1000000, &c->max_count);
    case KEEP_FREE:
        return take_number("keep-free", optarg, UINT64_C(1) << 60, &c->keep_free);
    case DEADLINE:
        return take_number("deadline", optarg, 3600, &c->deadline);
    case RUNTIME:
        c->runtime_dir = optarg;
        return 0;
    case JSON:
        c->json = true;
        return 0;
    default:
        return rs_cli_usage("coredump");
    }
}

static const struct command {
    const char *name;
    int (*run)(const struct rs_cores *c);
    int (*run_file)(const struct rs_cores *c, const char *file);
} commands[] = {
    {"install", rs_coredump_install, NULL}, {"status", rs_coredump_status, NULL},
    {"list", rs_coredump_list, NULL},       {"describe", NULL, rs_coredump_describe},
    {"extract", NULL, rs_coredump_extract}, {"recrypt", NULL, rs_coredump_recrypt},
    {"rekey", rs_coredump_rekey, NULL},
};

static int run(const struct rs_cores *c, const char *name, int argc, char **argv)
{
    for (unsigned i = 0; i < RS_ARRAY_LEN(commands); i++) {
        if (strcmp(commands[i].name, name) != 0) continue;
        if (argc != (commands[i].run_file != NULL ? 1 : 0)) break;
        return commands[i].run_file != NULL ? commands[i].run_file(c, argv[0]) : commands[i].run(c);
    }
    if (strcmp(name, "handle") == 0) return rs_coredump_handle(c, argc, argv);
    fputs(help, stderr);
    return RS_EXIT_USAGE;
}

int reseal_cmd_coredump(int argc, char **argv)
{
    struct rs_cores c = {.folder = RS_CORES_FOLDER,
                         .max_size = UINT64_C(16) << 30,
                         .max_count = 64,
                         .keep_free = UINT64_C(1) << 30,
                         .deadline = 600};
    bool handle = argc > 1 && strcmp(argv[1], "handle") == 0;
    /* A crashed program's name may begin with a hyphen: what follows the first word is no option then. */
    for (int o; (o = getopt_long(argc - (handle ? 1 : 0), argv + (handle ? 1 : 0), handle ? "+h" : "h",
                                 options, NULL)) != -1;) {
        if (o == 'h') {
            fputs(help, stdout);
            return RS_EXIT_OK;
        }
        int r = take_option(&c, o);
        if (r != 0) return r;
    }
    if (handle) return run(&c, "handle", argc - 1 - optind, argv + 1 + optind);
    if (optind < argc) return run(&c, argv[optind], argc - optind - 1, argv + optind + 1);
    fputs(help, stderr);
    return RS_EXIT_USAGE;
}
