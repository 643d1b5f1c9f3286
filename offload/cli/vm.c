/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/cli/vm.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

/* A command is a row; one with options of its own has `own` in place of `run` and prints its help by itself.
 */
const struct rs_vmc_command rs_vmc_commands[] = {
    {.name = "create",
     .summary = "a new VM, encrypted from the start",
     .help =
         "usage: reseal vm create [OPTIONS] FOLDER\n"
         "  --disk SIZE             a disk; as often as there are disks\n"
         "  --vtpm                  with a vTPM: its home is encrypted whatever the policy says\n"
         "  --policy NAME           storage policy (\"VM Encryption Policy\")\n"
         "  --policy-dir PATH       folder of policies (/etc/reseal/storage-policies)\n"
         "  --provider NAME         key provider (that of the policy, or the default one)\n"
         "  --format FORMAT         of its disks: luks2, luks1, xts, luks2-qcow2, luks1-qcow2 (that of the\n"
         "                          policy)\n"
         "example: reseal vm create /vms/web --disk 10G --vtpm\n",
     .options = RS_VMC_DISK | RS_VMC_VTPM | RS_VMC_POLICY | RS_VMC_PROVIDER | RS_VMC_FORMAT | RS_VMC_SAFE,
     .run = rs_vmc_create},
    {.name = "add-disk",
     .summary = "a new disk for a VM that is there, or an image that becomes one",
     .help = "usage: reseal vm add-disk --size SIZE|--image FILE [OPTIONS] VM\n"
             "  --size SIZE             a new disk\n"
             "  --image FILE            this image, encrypted first if it is not\n"
             "  --node NODE             where it is attached, as scsi0:2 (the next free one of scsi0)\n"
             "  --plain                 a disk in the clear\n"
             "  --policy NAME           storage policy of the disk (that of the VM)\n"
             "  --policy-dir PATH, --provider NAME, --format FORMAT   as with create\n"
             "  --passphrase-file FILE  pass phrase of a VM that is locked by one\n"
             "example: reseal vm add-disk --size 20G /vms/web\n",
     .options = RS_VMC_SIZE | RS_VMC_IMAGE | RS_VMC_NODE | RS_VMC_PLAIN | RS_VMC_POLICY | RS_VMC_PROVIDER |
                RS_VMC_FORMAT | RS_VMC_SAFE | RS_VMC_PASS,
     .run = rs_vmc_add_disk},
    {.name = "remove-disk",
     .summary = "take a disk out of a VM; its image stays",
     .help = "usage: reseal vm remove-disk --disk DISK [OPTIONS] VM\n"
             "  --disk DISK             scsi0:2, or its file\n"
             "  --passphrase-file FILE  pass phrase of a VM that is locked by one\n"
             "example: reseal vm remove-disk --disk scsi0:2 /vms/web\n",
     .options = RS_VMC_DISK | RS_VMC_SAFE | RS_VMC_PASS,
     .run = rs_vmc_remove_disk},
    {.name = "encrypt",
     .summary = "encrypt a VM, or a part of it",
     .help =
         "usage: reseal vm encrypt [OPTIONS] VM\n"
         "  --disk DISK             this disk (scsi0:0, or its file); as often as needed. Without it and\n"
         "                          --home: everything\n"
         "  --home                  .vmx, NVRAM and vTPM state\n"
         "  --vtpm                  add a vTPM, which encrypts the home\n"
         "  --policy NAME, --policy-dir PATH, --provider NAME, --format FORMAT   as with create\n"
         "  --passphrase-file FILE  lock its home by this pass phrase, without a key provider, and leave\n"
         "                          its disks; of a VM that is locked so: what opens it\n"
         "example: reseal vm encrypt /vms/web\n",
     .options = RS_VMC_DISK | RS_VMC_HOME | RS_VMC_VTPM | RS_VMC_POLICY | RS_VMC_PROVIDER | RS_VMC_FORMAT |
                RS_VMC_SAFE | RS_VMC_PASS,
     .run = rs_vmc_encrypt},
    {.name = "decrypt",
     .summary = "decrypt a VM, or a part of it",
     .help = "usage: reseal vm decrypt [OPTIONS] VM\n"
             "  --disk DISK, --home     as with encrypt\n"
             "  --remove-vtpm           destroy its vTPM, whose state may not be in the clear\n"
             "  --policy NAME           its storage policy from now on, one that does not encrypt\n"
             "  --policy-dir PATH       folder of policies (/etc/reseal/storage-policies)\n"
             "  --passphrase-file FILE  pass phrase of a VM that is locked by one\n"
             "example: reseal vm decrypt /vms/web\n",
     .options = RS_VMC_DISK | RS_VMC_HOME | RS_VMC_REMOVE_VTPM | RS_VMC_POLICY | RS_VMC_SAFE | RS_VMC_PASS,
     .run = rs_vmc_decrypt},
    {.name = "recrypt",
     .summary = "change its keys, or move it to another key provider",
     .help =
         "usage: reseal vm recrypt --shallow|--deep [OPTIONS] VM\n"
         "  --shallow               the key that wraps the data's keys: in a moment, also while the VM runs\n"
         "  --deep                  the data's own keys too: all data is written anew, powered off\n"
         "  --provider NAME         the new key's provider (the one it has now)\n"
         "  --passphrase-file FILE  pass phrase of a VM that is locked by one\n"
         "  --new-passphrase-file FILE  lock its home by this pass phrase instead (--shallow)\n"
         "example: reseal vm recrypt --shallow --provider vault /vms/web\n",
     .options = RS_VMC_SHALLOW | RS_VMC_DEEP | RS_VMC_PROVIDER | RS_VMC_POLICY | RS_VMC_SAFE | RS_VMC_PASS |
                RS_VMC_NEW_PASS,
     .run = rs_vmc_recrypt},
    {.name = "show",
     .summary = "what is encrypted, by which key, and whether it is locked",
     .help = "usage: reseal vm show [OPTIONS] VM\n"
             "  VM                      its folder, or its .vmx file\n"
             "  --passphrase-file FILE  pass phrase of a VM that is locked by one\n"
             "example: reseal vm show /vms/web\n",
     .options = RS_VMC_SAFE | RS_VMC_PASS,
     .run = rs_vmc_show},
    {.name = "unlock",
     .summary = "fetch its keys; renews the safe copy",
     .help = "usage: reseal vm unlock [OPTIONS] VM\n"
             "  --passphrase-file FILE  pass phrase of a VM that is locked by one\n"
             "example: reseal vm unlock /vms/web\n",
     .options = RS_VMC_SAFE | RS_VMC_PASS,
     .run = rs_vmc_unlock},
    {.name = "repair",
     .summary = "put the safe copy of its .vmx back",
     .help = "usage: reseal vm repair [OPTIONS] VM\n"
             "  --list                  the safe copies that there are\n"
             "  --version N             this one (the newest that can be used)\n"
             "  --abandon               drop what an interrupted command made\n"
             "  --passphrase-file FILE  pass phrase of a VM that is locked by one\n"
             "example: reseal vm repair /vms/web\n",
     .options = RS_VMC_LIST | RS_VMC_VERSION | RS_VMC_ABANDON | RS_VMC_SAFE | RS_VMC_PASS,
     .run = rs_vmc_repair},
    {.name = "serve",
     .summary = "its disks to a hypervisor, decrypted, on a local socket",
     .own = reseal_cmd_vm_serve},
};
const unsigned rs_vmc_ncommands = RS_ARRAY_LEN(rs_vmc_commands);

static const char common_help[] =
    "with all of them:\n"
    "  --runtime-dir DIR       the service's folder ($RESEAL_RUNTIME_DIR, /run/reseal)\n"
    "  --tenant NAME           the tenant to act for, where a user has several\n"
    "  --safe-dir PATH         where safe copies of the .vmx are kept (DIR/state/vmx of a private service "
    "with\n"
    "                          state there, else /var/lib/reseal/vmx for root and "
    "~/.local/state/reseal/vmx)\n"
    "  --json                  the result as JSON on stdout\n"
    "  -q, --quiet             no progress, no summary\n"
    "  -h, --help              this help\n"
    "exit codes: 0 done, 1 failed, 2 usage, 3 refused, 4 key missing or wrong: locked,\n"
    "5 damaged or unknown format, 6 input/output or no space, 7 no service,\n"
    "130 interrupted: run the same command again\n";

static const struct rs_vmc_command *find(const char *name)
{
    for (unsigned i = 0; i < rs_vmc_ncommands; i++)
        if (strcmp(rs_vmc_commands[i].name, name) == 0) return &rs_vmc_commands[i];
    return NULL;
}

static void print_help(const struct rs_vmc_command *only)
{
    if (only == NULL)
        printf(
            "usage: reseal vm COMMAND [OPTIONS] VM\n\nThe life of an encrypted VM: its home, its disks, its "
            "keys.\n\n");
    for (unsigned i = 0; only == NULL && i < rs_vmc_ncommands; i++)
        printf("  %-12s %s\n", rs_vmc_commands[i].name, rs_vmc_commands[i].summary);
    for (unsigned i = 0; i < rs_vmc_ncommands; i++) {
        const struct rs_vmc_command *c = &rs_vmc_commands[i];
        if (only != NULL && only != c) continue;
        if (only == NULL) putchar('\n');
        if (c->help != NULL) printf("%s", c->help);
    }
    printf("%s%s", only == NULL ? "\n" : "", common_help);
}

static void report(const struct rs_vmc *c, const char *command)
{
    if (c->o.json) {
        json_t *o = json_pack("{s:s, s:i}", "status",
                              c->f.exit == 0                     ? "done"
                              : c->f.exit == RS_EXIT_INTERRUPTED ? "interrupted"
                                                                 : "failed",
                              "exit", c->f.exit);
        if (o == NULL) return;
        if (c->f.exit != 0) json_object_set_new(o, "error", json_string(c->f.text));
        if (c->result != NULL) json_object_update(o, c->result);
        json_dumpf(o, stdout, JSON_COMPACT | JSON_ENSURE_ASCII);
        putchar('\n');
        json_decref(o);
    } else if (c->f.exit != 0) {
        char name[32];
        (void)snprintf(name, sizeof(name), "vm %s", command);
        (void)rs_cli_fail(c->f.exit, name, "%s", c->f.text);
    }
}

static int run(const struct rs_vmc_command *command, int argc, char **argv)
{
    struct rs_vmc *c = calloc(1, sizeof(*c));
    if (c == NULL) return rs_cli_fail(RS_EXIT_FAILED, "vm", "out of memory");
    c->lock = -1;
    int code = rs_vmc_parse(command, &c->o, argc, argv, &c->f);
    if (code == 0 && c->o.help) {
        print_help(command);
    } else {
        /* A file-size limit or a closed pipe is an error of the write, not the end of the program. */
        (void)signal(SIGXFSZ, SIG_IGN);
        (void)signal(SIGPIPE, SIG_IGN);
        if (code == 0) code = command->run(c);
        report(c, command->name);
        code = rs_vmc_told(c, code);
    }
    rs_vmc_close(c);
    free(c);
    return code;
}

int reseal_cmd_vm(int argc, char **argv)
{
    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        print_help(NULL);
        return argc < 2 ? RS_CLI_USAGE : RS_CLI_OK;
    }
    const struct rs_vmc_command *command = find(argv[1]);
    if (command == NULL)
        return rs_cli_fail(RS_CLI_USAGE, "vm", "no command '%s': 'reseal vm --help' lists them", argv[1]);
    return command->own != NULL ? command->own(argc - 1, argv + 1) : run(command, argc - 1, argv + 1);
}
