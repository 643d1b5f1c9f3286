/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/vm/chain.h"

#include "reseal/reseal.h"

#include <errno.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#define PARENT '^' /* behind the node of the disk whose chain it is in */

static size_t base_len(const struct rs_disk *d)
{
    return strcspn(d->node, "^");
}

bool rs_chain_is_parent(const struct rs_disk *d)
{
    return d->node[base_len(d)] == PARENT;
}

static bool same_chain(const struct rs_disk *a, const struct rs_disk *b)
{
    size_t len = base_len(a);
    return len == base_len(b) && strncmp(a->node, b->node, len) == 0;
}

bool rs_chain_is_mixed(const struct rs_vm *vm, const struct rs_disk *d)
{
    for (unsigned i = 0; i < vm->ndisks; i++) {
        const struct rs_disk *p = &vm->disks[i].disk;
        if (!rs_chain_is_parent(p) || !same_chain(p, d)) continue;
        if (strcmp(p->provider, d->provider) != 0 || strcmp(p->key, d->key) != 0) return true;
    }
    return false;
}

static bool same_file(const char *a, const char *b)
{
    struct stat one, two;
    return stat(a, &one) == 0 && stat(b, &two) == 0 && one.st_dev == two.st_dev && one.st_ino == two.st_ino;
}

/* The folder that a file is in, all links followed. */
static bool folder_of(const char *path, char out[PATH_MAX])
{
    char real[PATH_MAX];
    if (realpath(path, real) == NULL) return false;
    (void)snprintf(out, PATH_MAX, "%s", dirname(real));
    return true;
}

/* A parent lies beside its child, or in the folder of the VM, unless it is another VM's. */
static int check_place(const struct rs_vm *vm, const struct rs_disk *child, char *why, size_t why_len)
{
    char parent[PATH_MAX], own[PATH_MAX];
    if (!folder_of(child->parent, parent))
        return rs_vm_refuse(RESEAL_EIO, why, why_len, "%s (%s): cannot read its parent %s: %s", child->node,
                            child->path, child->parent, strerror(errno));
    if (strcmp(parent, vm->folder) == 0 || (folder_of(child->path, own) && strcmp(parent, own) == 0))
        return 0;
    return rs_vm_refuse(
        RESEAL_EBUSY, why, why_len,
        "%s of %s is a linked clone: its parent %s is of another VM, and what two VMs share is not "
        "changed in one of them; make a full clone of it first",
        child->node, vm->name, child->parent);
}

/* A descriptor that is in a chain already. */
static int check_new(const struct rs_vm *vm, const struct rs_disk *child, char *why, size_t why_len)
{
    for (unsigned i = 0; i < vm->ndisks; i++) {
        const struct rs_disk *d = &vm->disks[i].disk;
        if (!same_file(d->path, child->parent)) continue;
        if (same_chain(d, child))
            return rs_vm_refuse(RESEAL_EFORMAT, why, why_len,
                                "%s (%s): its chain of parents ends in itself, at %s", child->node,
                                child->path, child->parent);
        return rs_vm_refuse(
            RESEAL_EBUSY, why, why_len,
            "%s has a tree of snapshots (%s is of %s and of %s): only a single chain can change its "
            "key; remove branches first",
            vm->name, child->parent, d->node, child->node);
    }
    return 0;
}

static int look_parent(struct rs_vm *vm, const struct rs_disk *child, unsigned depth, char *why,
                       size_t why_len)
{
    struct rs_vm_disk *p = &vm->disks[vm->ndisks];
    *p = (struct rs_vm_disk){.problem = 0};
    memcpy(p->disk.path, child->parent, sizeof(p->disk.path));
    int n = snprintf(p->disk.node, sizeof(p->disk.node), "%.*s%c%u", (int)base_len(child), child->node,
                     PARENT, depth);
    if (n >= (int)sizeof(p->disk.node))
        return rs_vm_refuse(RESEAL_EFORMAT, why, why_len, "the name %s is too long", child->node);
    p->problem = rs_disk_look(&p->disk, p->why, sizeof(p->why));
    bool vmdk = p->disk.format == RS_DISK_VMDK || p->disk.format == RS_DISK_VMDK_XTS;
    if (p->problem == 0 && !vmdk)
        p->problem = rs_vm_refuse(RESEAL_EFORMAT, p->why, sizeof(p->why), "it is no VMDK descriptor");
    if (p->problem != 0)
        return rs_vm_refuse(p->problem, why, why_len, "%s (%s): %s", p->disk.node, p->disk.path, p->why);
    vm->ndisks++;
    return 0;
}

static int load(struct rs_vm *vm, unsigned disk, char *why, size_t why_len)
{
    unsigned at = disk;
    for (unsigned depth = 1; vm->disks[at].disk.parent[0] != '\0'; depth++) {
        const struct rs_disk *child = &vm->disks[at].disk;
        if (depth > RS_CHAIN_MAX || vm->ndisks == RS_VM_DISKS_MAX)
            return rs_vm_refuse(RESEAL_EFORMAT, why, why_len, "the chain of %s is too long", child->node);
        int code = check_place(vm, child, why, why_len);
        if (code == 0) code = check_new(vm, child, why, why_len);
        if (code == 0) code = look_parent(vm, child, depth, why, why_len);
        if (code != 0) return code;
        at = vm->ndisks - 1;
    }
    return 0;
}

int rs_chain_check_clone(const struct rs_vm *vm, char *why, size_t why_len)
{
    int code = 0;
    for (unsigned i = 0; code == 0 && i < vm->ndisks; i++)
        if (vm->disks[i].disk.parent[0] != '\0') code = check_place(vm, &vm->disks[i].disk, why, why_len);
    return code;
}

int rs_chain_load(struct rs_vm *vm, char *why, size_t why_len)
{
    unsigned n = vm->ndisks;
    int code = 0;
    for (unsigned i = 0; code == 0 && i < n; i++) code = load(vm, i, why, why_len);
    return code;
}
