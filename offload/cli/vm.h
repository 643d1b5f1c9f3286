/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_CLI_VM_H
#define RS_CLI_VM_H

/*
 * reseal vm: the life of an encrypted VM. What its files are, offload/vm knows;
 * what its keys are, the key service; here is what is done in which order.
 *
 *   vm.c           the table of commands
 *   vm-options.c   command lines
 *   vm-run.c       opening a VM and the service
 *   vm-keys.c      requests to the key service
 *   vm-show.c      show
 *   vm-unlock.c    unlock
 *   vm-create.c    create
 *   vm-add-disk.c  add-disk, remove-disk
 *   vm-encrypt.c   encrypt, decrypt, recrypt --deep: what is to be done
 *   vm-recrypt.c   recrypt --shallow: new headers
 *   vm-change.c    rules, room, the intent, its end
 *   vm-stage.c     new files beside the old ones
 *   vm-phrase.c    pass phrases of VMs
 *   vm-home.c      .vmx, NVRAM and vTPM state, sealed and opened; the safe copy
 *   vm-copy.c      the data of a disk through the hot path
 *   vm-repair.c    repair
 *   vm-serve*.c    serve
 */

#include "offload/cli/exit.h"
#include "offload/client/keyservice.h"
#include "offload/vm/vm.h"

/* Options, as bits: which command takes which. */
enum rs_vmc_option {
    RS_VMC_PROVIDER = 1 << 0,
    RS_VMC_POLICY = 1 << 1,
    RS_VMC_DISK = 1 << 2,
    RS_VMC_HOME = 1 << 3,
    RS_VMC_VTPM = 1 << 4,
    RS_VMC_REMOVE_VTPM = 1 << 5,
    RS_VMC_SHALLOW = 1 << 6,
    RS_VMC_DEEP = 1 << 7,
    RS_VMC_FORMAT = 1 << 8,
    RS_VMC_VERSION = 1 << 9,
    RS_VMC_LIST = 1 << 10,
    RS_VMC_ABANDON = 1 << 11,
    RS_VMC_SAFE = 1 << 12,
    RS_VMC_PASS = 1 << 13,
    RS_VMC_NEW_PASS = 1 << 14,
    RS_VMC_SIZE = 1 << 15,
    RS_VMC_IMAGE = 1 << 16,
    RS_VMC_NODE = 1 << 17,
    RS_VMC_PLAIN = 1 << 18,
};

struct rs_vmc_options {
    const char *vm; /* folder or .vmx */
    const char *provider, *policy, *policy_dir, *safe_dir, *runtime_dir, *tenant;
    const char *pass, *new_pass;     /* files with the pass phrase of the VM, and with the one it shall get */
    const char *format;              /* of new encrypted disks: luks2, luks1, xts; NULL: by the disk */
    const char *size, *image, *node; /* of a disk to add */
    const char *disks[RS_VM_DISKS_MAX];
    unsigned ndisks;
    uint64_t version; /* of a safe copy; 0: the newest */
    bool home, vtpm, remove_vtpm, shallow, deep, list, abandon, plain, json, quiet, help;
};

#define RS_VMC_PHRASE_MAX 4096u /* bytes; what the key service takes, and a pipe holds */

struct rs_vmc_phrase {
    size_t len; /* 0: not taken yet */
    uint8_t bytes[RS_VMC_PHRASE_MAX + 1];
};

/* One run of a command. */
struct rs_vmc {
    struct rs_vmc_options o;
    struct rs_failure f;
    reseal *service; /* NULL until rs_vmc_connect() */
    struct rs_vm *vm;
    int lock;                                /* -1 */
    bool release;                            /* its home, or a disk, is to be decrypted for good */
    struct rs_vmc_phrase phrase, new_phrase; /* vm-phrase.c's own; wiped by rs_vmc_close() */
    json_t *result;                          /* what --json prints besides the status */
    char ended[PATH_MAX];                    /* the intent of what is done: it goes when that was told */
};

struct rs_vmc_command {
    const char *name;
    const char *summary;
    const char *help;                  /* usage, options, example */
    unsigned options;                  /* enum rs_vmc_option, or-ed */
    int (*run)(struct rs_vmc *c);      /* 0 or an exit code, with c->f set */
    int (*own)(int argc, char **argv); /* or one with options of its own */
};

extern const struct rs_vmc_command rs_vmc_commands[];
extern const unsigned rs_vmc_ncommands;

/* ---- vm-options.c ---- */

RS_MUST_CHECK int rs_vmc_parse(const struct rs_vmc_command *command, struct rs_vmc_options *o, int argc,
                               char **argv, struct rs_failure *f);

/* The size of a new disk, in bytes: whole sectors. 0 or RS_EXIT_USAGE. */
RS_MUST_CHECK int rs_vmc_take_size(const char *option, const char *text, uint64_t *size,
                                   struct rs_failure *f);

/* ---- vm-run.c ---- */

/* Connects to the service. 0 or an exit code. */
RS_MUST_CHECK int rs_vmc_connect(struct rs_vmc *c);

/* Reads the VM; with `lines` an encrypted home is opened too. 0 or an exit code. */
RS_MUST_CHECK int rs_vmc_open(struct rs_vmc *c, bool lines);

/* What was done was told: its intent goes, if there is one. `code`, or why that failed. */
RS_MUST_CHECK int rs_vmc_told(struct rs_vmc *c, int code);

/* Frees what a command has. */
void rs_vmc_close(struct rs_vmc *c);

/* rs_failure_set() for a code and line of offload/vm. */
int rs_vmc_refuse(struct rs_vmc *c, int code, const char *why);

/* ---- vm-phrase.c ---- */

enum rs_vmc_which {
    RS_VMC_PHRASE_NOW, /* opens the VM: --passphrase-file, or asked for */
    RS_VMC_PHRASE_NEW, /* shall open it: --new-passphrase-file; without it the same one */
};

/* A descriptor that the pass phrase is read from, the caller's; as often as needed. 0 or an exit code. */
RS_MUST_CHECK int rs_vmc_phrase_fd(struct rs_vmc *c, enum rs_vmc_which which, int *fd);

void rs_vmc_phrases_free(struct rs_vmc *c);

/* ---- vm-show.c ---- */

RS_MUST_CHECK int rs_vmc_show(struct rs_vmc *c);
RS_MUST_CHECK int rs_vmc_unlock(struct rs_vmc *c);

/* ---- the others ---- */

RS_MUST_CHECK int rs_vmc_create(struct rs_vmc *c);
RS_MUST_CHECK int rs_vmc_add_disk(struct rs_vmc *c);
RS_MUST_CHECK int rs_vmc_remove_disk(struct rs_vmc *c);
RS_MUST_CHECK int rs_vmc_encrypt(struct rs_vmc *c);
RS_MUST_CHECK int rs_vmc_decrypt(struct rs_vmc *c);
RS_MUST_CHECK int rs_vmc_recrypt(struct rs_vmc *c);
RS_MUST_CHECK int rs_vmc_shallow(struct rs_vmc *c);
RS_MUST_CHECK int rs_vmc_repair(struct rs_vmc *c);

/* ---- vm-serve.c ---- */

int reseal_cmd_vm_serve(int argc, char **argv);

#endif
