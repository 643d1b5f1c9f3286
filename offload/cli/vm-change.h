/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_CLI_VM_CHANGE_H
#define RS_CLI_VM_CHANGE_H

/*
 * A change of a VM: what it is to become stands in the intent (offload/vm/intent.h), so that a
 * rerun goes on with the same; then new files are staged, then names change. In the intent's "with":
 *
 *   home       "keep", "seal", "open" (decrypted), "rewrap", "disk" (another disk, or one less)
 *   disk.NODE  the format that the disk is to have; "rewrap": another key, the same data
 *   provider   that was asked for, "" for the default
 *   kek.provider, kek.id   the key, once there is one
 *   unit, key-bits, policy, vtpm ("add", "remove")
 *   add.node, add.file   a disk that the lines get, and its name in the .vmx
 *   add.size   its bytes, if it is to be made
 *   remove.node   a disk that the lines lose
 *   path       of the disk that comes or goes
 *   asked      what the command line said of it
 *   told       what the event says of it
 */

#include "offload/cli/vm-home.h"
#include "offload/vm/intent.h"
#include "offload/vm/policy.h"
#include "offload/vm/state.h"

struct rs_vmc_change {
    struct rs_vmc *c;
    struct rs_intent intent;
    bool resumed;
    struct rs_vmc_seal old;    /* of a sealed VM, as it was */
    struct rs_vmc_seal seal;   /* as it will be */
    int bars[RS_VM_DISKS_MAX]; /* keep others from writing what is copied */
    unsigned nbars;
};

/* ---- vm-change.c: 0 or an exit code ---- */

/*
 * Opens the VM, its lines too, and locks it; finds an intent. One of another operation is refused; one of
 * this is gone on with (`resumed`), or begun anew when a file that it copies was changed since by another
 * program.
 */
RS_MUST_CHECK int rs_vmc_begin(struct rs_vmc *c, const char *operation, enum rs_vm_lock kind,
                               struct rs_vmc_change *out);

/* Refuses: the command of the intent comes first. */
RS_MUST_CHECK int rs_vmc_comes_first(struct rs_vmc_change *ch);

/* The rules for a new change: power, snapshots; with `online` only that they are no tree. */
RS_MUST_CHECK int rs_vmc_may_change(struct rs_vmc_change *ch, bool online);

/* The same, and that its disks can be read. */
RS_MUST_CHECK int rs_vmc_rules(struct rs_vmc_change *ch, bool online);

/* Plans. */
RS_MUST_CHECK int rs_vmc_set(struct rs_vmc_change *ch, const char *name, const char *value);
RS_MUST_CHECK int rs_vmc_set_disk(struct rs_vmc_change *ch, const struct rs_disk *disk, const char *format);
const char *rs_vmc_get(const struct rs_vmc_change *ch, const char *name); /* "" when there is none */
const char *rs_vmc_get_disk(const struct rs_vmc_change *ch, const struct rs_disk *disk);

/* ---- vm-encrypt.c ---- */

/* The policy that was named, or `otherwise`; what of it goes into the plan. */
RS_MUST_CHECK int rs_vmc_find_policy(struct rs_vmc *c, const char *otherwise, struct rs_vm_policy *p);
RS_MUST_CHECK int rs_vmc_set_policy(struct rs_vmc_change *ch, const struct rs_vm_policy *p);

/* What a disk becomes when it is encrypted: it stays in a file of its kind. */
RS_MUST_CHECK int rs_vmc_encrypted_format(struct rs_vmc *c, const struct rs_disk *d, const char *asked,
                                          const char **out);

/* Refuses an image that is not converted or served. */
RS_MUST_CHECK int rs_vmc_barred(struct rs_vmc *c, const struct rs_disk *d);

/* ---- vm-change.c again ---- */

/* True when both names lead to one file. */
bool rs_vmc_same_file(const char *a, const char *b);

/* Adds the actions of the plan, looks for room, writes the intent. */
RS_MUST_CHECK int rs_vmc_plan(struct rs_vmc_change *ch);

/* Keeps others from writing the disks that will be copied, until the change is freed. */
RS_MUST_CHECK int rs_vmc_bar(struct rs_vmc_change *ch);

/* After staging failed: what could not have begun (a key that is missing, a right) leaves no intent behind;
 * work that was done stays to go on from. Returns the code. */
int rs_vmc_give_up(struct rs_vmc_change *ch, int code);

/* Commit, safe copy, event, the line for whoever asked; rs_vmc_told() ends the intent. */
RS_MUST_CHECK int rs_vmc_finish(struct rs_vmc_change *ch);

void rs_vmc_change_free(struct rs_vmc_change *ch);

/* ---- vm-stage.c ---- */

/* Everything of the plan that is not done yet. */
RS_MUST_CHECK int rs_vmc_stage(struct rs_vmc_change *ch);

/* The staged header of a disk: beside its .vmx name. False: too long. */
RS_MUST_CHECK bool rs_vmc_header_path(const struct rs_disk *disk, char out[PATH_MAX]);

/* A disk's final place of its header, where that is a file of its own. */
RS_MUST_CHECK bool rs_vmc_side_header(const struct rs_disk *disk, char out[PATH_MAX]);

#endif
