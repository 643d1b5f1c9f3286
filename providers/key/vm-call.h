/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_KEY_VM_CALL_H
#define RS_KEY_VM_CALL_H

/*
 * What the requests about disks and homes have in common: foreign bytes are
 * read in a task, the KEK that they name is asked for, a second task does the work.
 * Every helper that fails has ended the call: it must not be touched after.
 */

#include "providers/key/events.h"
#include "providers/key/rpc.h"

struct rs_vm_call {
    struct rs_rpc *rpc;
    struct rs_who who;
    char object[RS_PROVIDER_NAME_MAX + RS_KEY_ID_MAX +
                8]; /* for the audit: "luks:UUID"; empty: not known yet */
};

/*
 * The state of a new call with these arguments only, `size` zeroed bytes that begin with a struct rs_vm_call,
 * which `drop` frees; NULL: the call has ended.
 */
RS_MUST_CHECK void *rs_vm_begin(struct rs_rpc *call, const char *args, size_t size,
                                void (*drop)(struct rs_rpc *call));

/* Runs a closed task with descriptors of the call (dup'ed where `keep`); `done` gets the call as its arg. */
void rs_vm_task(struct rs_vm_call *v, const struct rs_task_kind *kind, const json_t *args,
                const struct rs_secrets *secrets, bool keep, rs_task_done *done);

/* Ends the call: with an audit line when the object is known. */
void rs_vm_answer(struct rs_vm_call *v, json_t *result, int fd);
__attribute__((format(printf, 3, 4))) void rs_vm_fail(struct rs_vm_call *v, int status, const char *format,
                                                      ...);
void rs_vm_fail_as(struct rs_vm_call *v, const struct rs_task_answer *answer);
/* For a KEK that cannot be had: the answer has "event", "reason", "provider" and "key" too. */
void rs_vm_fail_kek(struct rs_vm_call *v, int status, const struct rs_kek *kek, const char *why);

/* args["details"], or NULL; *bad: it is no object of texts, and the call has ended. */
const json_t *rs_vm_details(struct rs_vm_call *v, bool *bad);

#endif
