/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vm.tell: commands that work on VMs tell what happened to one. Only events of VMs, with the user who told
 * them: what is told is a client's word.
 */
#include "providers/key/events.h"
#include "providers/key/rpc.h"

#define NAME_MAX_VM 256u
#define MESSAGE_MAX 1024u

static bool is_told(const char *id)
{
    static const char *const ids[] = {
        RS_EVENT_VM_LOCKED_HOST,    RS_EVENT_VM_LOCKED_KMS, RS_EVENT_VM_LOCKED_ERROR, RS_EVENT_VM_LOCKED_TA,
        RS_EVENT_VM_LOCKED_TA_DOWN, RS_EVENT_VM_UNLOCKED,   RS_EVENT_REKEY_FAIL,      RS_EVENT_NO_DISK_SPACE,
        RS_EVENT_MIXED_KEYS,        RS_EVENT_OPERATION,
    };
    for (unsigned i = 0; i < RS_ARRAY_LEN(ids); i++)
        if (strcmp(ids[i], id) == 0) return true;
    return false;
}

static void tell(struct rs_rpc *call)
{
    if (!rs_rpc_args(call, "id message vm uuid")) return;
    const char *id = rs_rpc_need(call, "id", 96);
    const char *message = id != NULL ? rs_rpc_need(call, "message", MESSAGE_MAX) : NULL;
    const char *vm = message != NULL ? rs_rpc_need(call, "vm", NAME_MAX_VM) : NULL;
    const char *uuid = vm != NULL ? rs_rpc_text(call, "uuid", 40) : NULL;
    if (uuid == NULL) return;
    if (!is_told(id)) {
        rs_rpc_fail(call, RESEAL_EINVAL, "%.90s is no event of a VM", id);
        return;
    }
    rs_event(call->d, call->client->tenant, id, message,
             json_pack("{s:s, s:s, s:I}", "vm", vm, "uuid", uuid, "told-by", (json_int_t)call->client->uid));
    rs_rpc_answer(call, NULL, -1);
}

const struct rs_rpc_method rs_rpc_vms[] = {
    {"vm.tell", 0, 0, RS_NO_PRIVILEGE, tell},
    {NULL, 0, 0, 0, NULL},
};
