/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_VM_VM_H
#define RS_VM_VM_H

/*
 * A VM is a folder: NAME.vmx, the disks that it names, NAME.nvram, the state of
 * its vTPM. Encrypted, the .vmx keeps a few lines in the clear (what it is
 * called, which key it needs) and all of its lines, those too, in
 * `encryption.data`; what is locked is what counts.
 *
 *   encryption.keySafe, .data, .bundle   public grammar (locator.h)
 *   encryption.keyId    fqid locator of the VM's key
 *   reseal.vm           the VM's own UUID, in the clear and inside: a file of another VM is told by it
 *   NODE.keyId          fqid locator of a disk whose header has no room for one (LUKS1)
 *
 * No key is here: whoever reads an encrypted VM has `encryption.data` opened by
 * the key service and hands the lines to rs_vm_take_lines().
 *
 * Threads: a VM belongs to one.
 */

#include "offload/vm/disk.h"
#include "offload/vm/files.h"
#include "offload/vm/vmx.h"

#define RS_VM_DISKS_MAX 64u
#define RS_VM_UUID_LEN  37u /* with NUL */

struct rs_vm_disk {
    struct rs_disk disk;
    int problem; /* 0, or RESEAL_E...: its files could not be read; `why` says it */
    char why[512];
};

struct rs_vm {
    char folder[PATH_MAX];
    char name[NAME_MAX + 1]; /* of the .vmx, without its suffix */
    char vmx_path[PATH_MAX];
    struct rs_vmx *outer; /* the file */
    struct rs_vmx *lines; /* what counts: NULL while a sealed VM's lines were not taken */
    bool sealed;
    char uuid[RS_VM_UUID_LEN]; /* empty: it has none yet */
    char provider[RS_DISK_PROVIDER_MAX];
    char key[RS_DISK_KEY_MAX]; /* of a sealed VM; empty when it is locked by a pass phrase */
    bool by_phrase;            /* sealed, and a pass phrase opens it, no key of a provider */
    bool has_vtpm;
    char nvram[PATH_MAX], vtpm[PATH_MAX]; /* files; empty: none is named */
    unsigned ndisks;
    struct rs_vm_disk disks[RS_VM_DISKS_MAX];
};

/*
 * Reads the VM of a folder or of a .vmx file. Of an encrypted one only what is in the clear. Errors have one
 * line in `why`: RESEAL_ENOKEY: no .vmx there, or several; RESEAL_EFORMAT: empty, torn, or no .vmx;
 * RESEAL_EIO; RESEAL_ENOMEM. A disk whose files cannot be read is no error: its `problem` is set.
 */
RS_MUST_CHECK int rs_vm_open(const char *path, struct rs_vm **out, char *why, size_t why_len);

/* Where the .vmx of a path would be, into the names of `vm`, though it cannot be read: of a folder F it is
 * F/F.vmx. False: no such folder. */
RS_MUST_CHECK bool rs_vm_guess(const char *path, bool is_folder, struct rs_vm *vm);

/* NULL is allowed. */
void rs_vm_close(struct rs_vm *vm);

/* The opened lines of `encryption.data`. RESEAL_EFORMAT: they are no .vmx, or another VM's. */
RS_MUST_CHECK int rs_vm_take_lines(struct rs_vm *vm, const char *text, size_t len, char *why, size_t why_len);

/* The disk of that node or file name; NULL: none. */
struct rs_vm_disk *rs_vm_find_disk(struct rs_vm *vm, const char *name);

/* True for the names that an encrypted .vmx keeps in the clear. */
bool rs_vm_is_clear(const char *name);

/* True when a pass phrase opens what encryption.keySafe of the file locks, and no key of a provider. */
bool rs_vm_locked_by_phrase(const struct rs_vmx *outer);

/* Draws a UUID (version 4). */
void rs_vm_uuid(char out[RS_VM_UUID_LEN]);

/* A file of the VM's folder with this suffix in place of ".vmx". False: too long. */
RS_MUST_CHECK bool rs_vm_path(const struct rs_vm *vm, const char *suffix, char out[PATH_MAX]);

#endif
