/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_VM_INTENT_H
#define RS_VM_INTENT_H

/*
 * What a command is about to do to a VM, in NAME.reseal-intent in the VM's
 * folder: JSON, replaced as a whole, flushed. A change has two halves.
 *
 *   staging   everything new is made beside what is there: files NAME.reseal-new; nothing
 *             old is touched. Who is killed here goes on, or drops what was made.
 *   commit    the actions of the intent are carried out in order. Each may be repeated, so
 *             who is killed here carries out all of them again.
 *
 * An action is a rename, a header written into the start of an image from a
 * file, or the removal of a file. The file is the user's own and nobody else may be
 * able to write it: its names are acted upon.
 *
 * RESEAL_VM_STOP_AT in the environment, for tests: the program kills itself
 * (SIGKILL) at the step of that name, or at the Nth ("#3").
 */

#include "offload/vm/vm.h"

#include <jansson.h>

struct rs_qcow2_put;

struct rs_intent {
    char path[PATH_MAX];
    char kept[PATH_MAX]; /* where rs_intent_commit() left a file that was written to after it was copied */
    json_t *root;        /* {"version", "operation", "state", "with": {}, "done": {}, "actions": []} */
    struct rs_qcow2_put **images; /* one for each action, most of them NULL; NULL: none is open */
};

/* The intent of the VM. RESEAL_ENOKEY: there is none; RESEAL_EFORMAT, RESEAL_EPERM, RESEAL_EIO with a line.
 */
RS_MUST_CHECK int rs_intent_load(const struct rs_vm *vm, struct rs_intent *out, char *why, size_t why_len);

/* A new one, not yet written. RESEAL_ENOMEM, RESEAL_EIO. */
RS_MUST_CHECK int rs_intent_new(const struct rs_vm *vm, const char *operation, struct rs_intent *out);

/* Writes it. RESEAL_EIO with errno. */
RS_MUST_CHECK int rs_intent_save(const struct rs_intent *intent);

void rs_intent_free(struct rs_intent *intent);

const char *rs_intent_operation(const struct rs_intent *intent);
bool rs_intent_is_commit(const struct rs_intent *intent);

/* Texts that the operation keeps for a rerun; NULL: none of that name. */
const char *rs_intent_get(const struct rs_intent *intent, const char *name);
RS_MUST_CHECK int rs_intent_set(struct rs_intent *intent, const char *name, const char *value);

/* Steps that were done; rs_intent_did() saves. RESEAL_EIO, RESEAL_ENOMEM. */
bool rs_intent_has(const struct rs_intent *intent, const char *step);
bool rs_intent_has_any(const struct rs_intent *intent, const char *prefix); /* a step that begins so */
RS_MUST_CHECK int rs_intent_did(struct rs_intent *intent, const char *step);

enum rs_intent_kind {
    RS_INTENT_RENAME,       /* from -> to */
    RS_INTENT_HEADER,       /* the bytes of `from` to the start of `to`, then `from` is removed */
    RS_INTENT_REMOVE,       /* to */
    RS_INTENT_HEADER_QCOW2, /* as RS_INTENT_HEADER, into what a qcow2 image holds */
};

/* Adds an action; `from` is made while staging, and dropped with it. RESEAL_ENOMEM. */
RS_MUST_CHECK int rs_intent_add(struct rs_intent *intent, enum rs_intent_kind kind, const char *from,
                                const char *to);

/* Notes what the files are now that renames will replace: copies are made of these. RESEAL_ENOMEM. */
RS_MUST_CHECK int rs_intent_watch(struct rs_intent *intent);

/* The first of them that is not what it was then, as another program wrote to it: what was made of it is
 * worth nothing. NULL: none. */
const char *rs_intent_changed(const struct rs_intent *intent);

/*
 * Opens the qcow2 images that get a header, all at once, or knows who has them open. rs_intent_commit() does
 * so too, but whoever asks before can still go back. RESEAL_E... of rs_qcow2_open() with one line in `why`.
 */
RS_MUST_CHECK int rs_intent_open_images(struct rs_intent *intent, char *why, size_t why_len);

/*
 * From staging to commit, durably; then, or when it was there already, all actions. What takes a file's place
 * gets its owner, mode and extended attributes. 0, RESEAL_EIO: run again; RESEAL_EBUSY: a
 * file was written to meanwhile, or is being written; or what rs_intent_open_images() says. With one line in
 * `why`. A file that was written to between an interrupted commit and this one is not lost: `kept`.
 */
RS_MUST_CHECK int rs_intent_commit(struct rs_intent *intent, char *why, size_t why_len);

/*
 * The change is done, and whoever asked for it knows: the intent at `path` goes. Until then a rerun does
 * nothing a second time. RESEAL_EIO with a line.
 */
RS_MUST_CHECK int rs_intent_end(const char *path, char *why, size_t why_len);

/* Drops what was staged, and the intent. RESEAL_EBUSY: it is in commit: it can only go on. RESEAL_EIO. */
RS_MUST_CHECK int rs_intent_abandon(struct rs_intent *intent, char *why, size_t why_len);

/* A step of that name was reached: where tests kill. */
void rs_intent_step(const char *name);

#endif
