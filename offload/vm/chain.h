/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_VM_CHAIN_H
#define RS_VM_CHAIN_H

/*
 * Snapshots as VMDK descriptors tell of them: the disk that a .vmx names is the
 * last link of a chain, each descriptor's parentFileNameHint names the one
 * before. All links have keys, and all keys change together.
 *
 * What no key of may change alone: a linked clone, whose chain goes on in
 * another VM's folder, and a tree, where a descriptor has two children.
 */

#include "offload/vm/vm.h"

#define RS_CHAIN_MAX 32u /* parents of one disk */

/*
 * Appends the parents of the VM's disks to vm->disks, nearest first: those of scsi0:0 are scsi0:0^1,
 * scsi0:0^2 ... Those found before a failure stay. With one line in `why`: RESEAL_EBUSY: a linked clone or a
 * tree; RESEAL_EFORMAT: a chain that ends in itself, is too long, or has a link that is no descriptor;
 * RESEAL_EIO; RESEAL_ENOSUPPORT.
 */
RS_MUST_CHECK int rs_chain_load(struct rs_vm *vm, char *why, size_t why_len);

/* Whether a disk of the .vmx is a linked clone: RESEAL_EBUSY, with a line; RESEAL_EIO: its parent cannot be
 * found. */
RS_MUST_CHECK int rs_chain_check_clone(const struct rs_vm *vm, char *why, size_t why_len);

/* True for a parent that rs_chain_load() appended. */
bool rs_chain_is_parent(const struct rs_disk *disk);

/* True when the chain of this disk of the .vmx, as far as it was loaded, does not use one key throughout. */
bool rs_chain_is_mixed(const struct rs_vm *vm, const struct rs_disk *disk);

#endif
