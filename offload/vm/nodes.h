/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_VM_NODES_H
#define RS_VM_NODES_H

/*
 * Where a disk is attached: a node like "scsi0:2", of which a .vmx has the lines NODE.present,
 * NODE.fileName and whatever else other programs keep of it. Lines of an encrypted VM are changed by the key
 * service, those of a plain one by the command; both by this. Threads: as a document's (vmx.h).
 */

#include "offload/vm/disk.h"
#include "offload/vm/vmx.h"

/* True for scsi0-3:0-15 but 7, which is the controller's own, sata0-3:0-29, nvme0-3:0-14, ide0-1:0-1. */
bool rs_vm_node_ok(const char *node);

/* True when a device is there: a disk, or anything else. */
bool rs_vm_node_taken(const struct rs_vmx *lines, const char *node);

/* The first node of scsi0 that is free. False: none is. */
RS_MUST_CHECK bool rs_vm_node_free(const struct rs_vmx *lines, char node[RS_DISK_NODE_MAX]);

/* Puts a disk there, in place of what an absent device left, and its controller where there is none.
 * RESEAL_EINVAL: no such node; RESEAL_EBUSY: it is taken; RESEAL_ENOMEM. */
RS_MUST_CHECK int rs_vm_node_put(struct rs_vmx *lines, const char *node, const char *file);

/* Takes all lines of the node out; true when there were any. */
bool rs_vm_node_drop(struct rs_vmx *lines, const char *node);

#endif
