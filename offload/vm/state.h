/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_VM_STATE_H
#define RS_VM_STATE_H

/*
 * What stands in the way of changing a VM: that it runs, that it has
 * snapshots, that another command is at it.
 *
 * NAME.reseal-lock in the VM's folder has two bytes that processes lock (OFD
 * locks, gone with their descriptor): byte 0 by whoever runs the VM (shared;
 * `vm serve`), byte 1 by a command that changes it (exclusive). A change that
 * needs the VM powered off takes byte 0 exclusively too.
 */

#include "offload/vm/vm.h"

enum rs_vm_lock {
    RS_VM_RUN,    /* runs it: refused while a command changes it */
    RS_VM_ONLINE, /* changes it, it may run */
    RS_VM_OFFLINE /* changes it, it must not run */
};

/* A descriptor that holds the lock until it is closed; -1 where a VM is run from a read-only file system that
 * has no lock file. RESEAL_EBUSY, RESEAL_EIO, with one line in `why`. */
RS_MUST_CHECK int rs_vm_lock(const struct rs_vm *vm, enum rs_vm_lock kind, int *fd, char *why,
                             size_t why_len);

/* For who holds RS_VM_RUN by that descriptor: true while a command changes the VM online. */
bool rs_vm_is_changing(int fd);

/* RESEAL_EBUSY when the VM is powered on, by a *.lck file or a program that has a disk open as QEMU does;
 * `why` says what shows it. */
RS_MUST_CHECK int rs_vm_powered_off(const struct rs_vm *vm, char *why, size_t why_len);

/* True when another program writes the image, or keeps others from it, as QEMU's programs do. */
bool rs_vm_image_in_use(const char *path);

/* The same after some seconds, for an image whose user was killed with us and is about to end. */
bool rs_vm_image_stays_in_use(const char *path);

/* True when another program has the image open to write it, as QEMU's programs show. */
bool rs_vm_image_is_written(const char *path);

/*
 * Keeps programs that heed QEMU's locks from writing the image, until the descriptor in *fd is closed (-1
 * where the file system has no locks, or the file cannot be read). RESEAL_EBUSY: one writes it.
 */
RS_MUST_CHECK int rs_vm_image_bar(const char *path, int *fd);

/* True when a process holds RS_VM_RUN or RS_VM_OFFLINE: for those who only look. */
bool rs_vm_is_run(const struct rs_vm *vm);

struct rs_vm_snapshots {
    unsigned count;
    bool tree; /* one has two children, or there are two without a parent */
    char shown_by[PATH_MAX];
};

/* From NAME.vmsd, disks named NAME-000001.vmdk, *.vmsn files, and the line reseal.snapshots ("none", "chain",
 * "tree"), which goes before the others. RESEAL_EFORMAT: the .vmsd cannot be read. */
RS_MUST_CHECK int rs_vm_find_snapshots(const struct rs_vm *vm, struct rs_vm_snapshots *out, char *why,
                                       size_t why_len);

#endif
