/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/key/vm-call.h"

#include "offload/base/foreign.h"
#include "providers/key/providers.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- the end of a call ---------------------------------------------------------- */

static void audit(struct rs_vm_call *v, int status)
{
    if (v->object[0] != '\0') rs_audit(v->rpc->d, &v->who, v->rpc->method, v->object, status, NULL);
}

void rs_vm_answer(struct rs_vm_call *v, json_t *result, int fd)
{
    audit(v, 0);
    rs_rpc_answer(v->rpc, result, fd);
}

void rs_vm_fail(struct rs_vm_call *v, int status, const char *format, ...)
{
    char line[RS_TASK_WHY];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    audit(v, status);
    rs_rpc_fail(v->rpc, status, "%s", line);
}

void rs_vm_fail_as(struct rs_vm_call *v, const struct rs_task_answer *answer)
{
    audit(v, answer->status);
    rs_rpc_fail_as(v->rpc, answer);
}

void rs_vm_fail_kek(struct rs_vm_call *v, int status, const struct rs_kek *kek, const char *why)
{
    json_t *result =
        json_pack("{s:s, s:s, s:s}", "reason", kek->reason, "provider", kek->provider, "key", kek->key);
    const struct rs_task_answer answer = {
        .status = status, .result = result, .fd = -1, .why = why, .event = kek->event};
    rs_vm_fail_as(v, &answer);
    json_decref(result);
}

/* ---- its beginning ------------------------------------------------------------------ */

void *rs_vm_begin(struct rs_rpc *call, const char *args, size_t size, void (*drop)(struct rs_rpc *call))
{
    if (!rs_rpc_args(call, args)) return NULL;
    struct rs_vm_call *v = calloc(1, size);
    if (v == NULL) {
        rs_rpc_fail(call, RESEAL_ENOMEM, NULL);
        return NULL;
    }
    v->rpc = call;
    v->who = rs_rpc_who(call);
    call->state = v;
    call->drop = drop;
    return v;
}

/* ---- on the way ------------------------------------------------------------------ */

void rs_vm_task(struct rs_vm_call *v, const struct rs_task_kind *kind, const json_t *args,
                const struct rs_secrets *secrets, bool keep, rs_task_done *done)
{
    struct rs_rpc *call = v->rpc;
    int fds[RS_RPC_FDS] = {-1, -1, -1};
    unsigned n = call->nfds;
    int r = 0;
    for (unsigned i = 0; i < n; i++) {
        fds[i] = keep ? fcntl(call->fds[i], F_DUPFD_CLOEXEC, 0) : call->fds[i];
        if (!keep) call->fds[i] = -1;
        if (fds[i] < 0) r = RESEAL_ELIMIT;
    }
    if (r == 0) {
        r = args != NULL ? rs_task_start(call->d, kind, call->client->uid, args, secrets, fds, n, done, call)
                         : RESEAL_ENOMEM;
    } else {
        for (unsigned i = 0; i < n; i++) rs_foreign_close(&fds[i], call->client->uid);
    }
    if (r != 0) rs_vm_fail(v, r, "%s", reseal_strerror(r));
}

const json_t *rs_vm_details(struct rs_vm_call *v, bool *bad)
{
    const json_t *details = json_object_get(v->rpc->args, "details");
    const char *name;
    json_t *value;
    *bad = details != NULL && !json_is_object(details);
    if (details != NULL && !*bad)
        json_object_foreach((json_t *)(uintptr_t)details, name, value) if (!json_is_string(value)) *bad =
            true;
    if (*bad) rs_vm_fail(v, RESEAL_EINVAL, "details: wants an object of texts");
    return details;
}
