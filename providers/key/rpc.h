/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_KEY_RPC_H
#define RS_KEY_RPC_H

/*
 * Named requests on keys.sock (RS_MSG_RPC): a JSON object in a sealed memfd,
 * {"method": "provider.list", "args": {...}}, and up to three descriptors more;
 * the answer is a JSON object in a sealed memfd and at most one descriptor. A
 * failure has a status and {"error": "one line"}. docs/key-service.md lists the
 * methods; each room of reseal-keyd has a table of its own.
 *
 * A method checks its arguments, starts tasks, and answers now or later: until
 * it has answered, no further request of that client is read. A client that
 * goes away cancels what was started with the call as `arg`.
 */

#include "providers/key/keyd.h"
#include "providers/key/task.h"

#define RS_RPC_FDS      3u
#define RS_RPC_TEXT_MAX (64u << 10) /* bytes of a request */

struct rs_rpc {
    struct rs_keyd *d;
    struct rs_client *client;
    const char *method;
    json_t *request;     /* holds the two */
    json_t *args;        /* an object */
    int fds[RS_RPC_FDS]; /* the client's; closed with the call unless taken (set to -1) */
    unsigned nfds;
    bool running, ended, lost;         /* rpc.c's own */
    void *state;                       /* the method's own */
    void (*drop)(struct rs_rpc *call); /* frees it; called when the call ends, however it does */
};

struct rs_rpc_method {
    const char *name;
    uint8_t min_fds, max_fds;
    int privilege; /* enum rs_privilege that the client must have, or RS_NO_PRIVILEGE */
    void (*run)(struct rs_rpc *call);
};

/* Answers, and ends the call: it must not be touched after. Takes `result` (NULL: an empty object) and fd
 * (-1: none). */
void rs_rpc_answer(struct rs_rpc *call, json_t *result, int fd);
/* The same for a failure; without a line that of the code is sent. Audits a refusal. */
__attribute__((format(printf, 3, 4))) void rs_rpc_fail(struct rs_rpc *call, int status, const char *format,
                                                       ...);
/* A failed task or key as the answer of the call; raises its event. */
void rs_rpc_fail_as(struct rs_rpc *call, const struct rs_task_answer *answer);

/* A text argument: "" when it is not there. NULL, and the call has failed, when it is no text, longer than
 * max - 1 bytes, or holds control characters. */
const char *rs_rpc_text(struct rs_rpc *call, const char *name, size_t max);
/* The same, where it must be there and not be empty. */
const char *rs_rpc_need(struct rs_rpc *call, const char *name, size_t max);
/* A number from 0 to max, `otherwise` when it is not there; -1: the call has failed. */
int64_t rs_rpc_number(struct rs_rpc *call, const char *name, int64_t max, int64_t otherwise);
/* 1: true; 0: false, or it is not there; -1: the call has failed. */
int rs_rpc_flag(struct rs_rpc *call, const char *name);
/* True when the client has the privilege, for methods whose arguments decide which is needed; else the call
 * has failed. */
bool rs_rpc_may(struct rs_rpc *call, enum rs_privilege privilege);
/* True for root, the user of the service, and the policy's administrators; else the call has failed. */
RS_MUST_CHECK bool rs_rpc_administrator(struct rs_rpc *call); /* tenants.c */
/* Whether the client may take plain text out of what this key opens (Cryptographer.Access and plain-out of
 * the pair; `provider`: whose KEK opens it): 0, or a status for which RS_RPC_NOT_PLAIN is the line. */
RS_MUST_CHECK int rs_rpc_may_be_plain(const struct rs_rpc *call, const char *key_name, const char *provider);
/* Whether the pairs let this key's disk go from one key provider to another: 0, or a status. */
RS_MUST_CHECK int rs_rpc_may_move(const struct rs_rpc *call, const char *key_name, const char *provider,
                                  const char *other);
/* The same for what has no name of its own, the bundle of a VM and the files under it; from a provider to
 * itself always. RS_RPC_NOT_REWRAPPED is the line. */
RS_MUST_CHECK int rs_rpc_may_rewrap(const struct rs_rpc *call, const char *provider, const char *other);
#define RS_RPC_NOT_REWRAPPED                                                                                 \
    "provider:%s -> provider:%s is not granted: the policy must list the pair, see reseal-policy(5)"
#define RS_RPC_NOT_PLAIN                                                                                     \
    "%s -> plain is not granted: the policy must list the pair with plain-out, and Cryptographer.Access "    \
    "for "                                                                                                   \
    "this user, see reseal-policy(5)"
/* True when the call has no other arguments than these, "name provider key"; else it has failed. */
bool rs_rpc_args(struct rs_rpc *call, const char *names);

/* Tables of methods: one for each room, listed in rpc-tables.c. Ended by a NULL name. */
extern const struct rs_rpc_method *const rs_rpc_tables[]; /* ended by NULL */
extern const struct rs_rpc_method rs_rpc_service[];       /* rpc.c: service.* */
extern const struct rs_rpc_method rs_rpc_providers[];     /* providers.c: provider.* */
extern const struct rs_rpc_method rs_rpc_keks[];          /* kek.c: kek.* */
extern const struct rs_rpc_method rs_rpc_disks[];         /* vm-disks.c: disk.* */
extern const struct rs_rpc_method rs_rpc_homes[];         /* vm-homes.c: home.* */
extern const struct rs_rpc_method rs_rpc_envelopes[];     /* envelopes.c: file.* */
extern const struct rs_rpc_method rs_rpc_vms[];           /* vm-events.c: vm.* */
extern const struct rs_rpc_method rs_rpc_hosts[];         /* hosts.c: host.* */
extern const struct rs_rpc_method rs_rpc_host_key[];      /* host-key-calls.c: host.key */
extern const struct rs_rpc_method rs_rpc_tenants[];       /* tenants.c: tenant.*, policy.*, event.* */

#endif
