/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_KEY_KEYD_H
#define RS_KEY_KEYD_H

/*
 * The inside of reseal-keyd: one thread, one epoll loop (and those that close what
 * clients sent, offload/base/foreign.h). main.c starts it,
 * server.c accepts clients and answers requests, orders.c and tasks.c run what
 * is done in children, rpc.c hands named requests to who has them, sessions.c answers reseald-work, status.c
 * tells the state.
 */

#include "offload/base/sandbox.h"
#include "offload/ring/control.h"
#include "providers/key/internal.h"
#include "providers/key/kek.h"
#include "providers/key/keys.h"
#include "providers/key/nursery.h"
#include "providers/key/policy.h"
#include "providers/key/task.h"
#include "providers/key/uses.h"

#define RS_KEYD_CLIENTS          1024u /* connections in all, */
#define RS_KEYD_CLIENTS_OF_USER  256u  /* and of one user */
#define RS_KEYD_KEYS_OF_USER     2048u /* key memory is shared: nobody takes all of it */
#define RS_KEYD_CHILDREN         32u   /* orders and tasks that run at a time in one place in all, */
#define RS_KEYD_CHILDREN_OF_USER 4u    /* and of one user; others wait */
#define RS_KEYD_TASKS            1024u /* that run or wait */
#define RS_KEYD_DEADLINE_S       60u   /* for one order; RESEAL_KEYD_DEADLINE=SECONDS in tests */

struct rs_keyd;
struct rs_rpc;
struct rs_store;
struct rs_task_run;

/* Something that epoll watches; the first member of what it is part of. */
struct rs_watch {
    int fd;
    void (*ready)(struct rs_keyd *d, struct rs_watch *w, uint32_t events);
};

struct rs_client {
    struct rs_watch watch;
    struct rs_client *next;
    struct rs_running *order; /* what it waits for: no request is read meanwhile; */
    struct rs_rpc *call;      /* neither while this is pending */
    uint32_t number;
    uint32_t uid, gid, pid;
    uint32_t keys;
    uint32_t max_keys;
    bool greeted;
    char tenant[64];
};

/* An order of a client, waiting or in a child. */
struct rs_running {
    struct rs_watch watch; /* fd -1: it waits */
    struct rs_running *next;
    struct rs_client *client;
    struct rs_source_order order;
    struct rs_key form; /* of the key that comes of it */
    int fds[RS_SOURCE_FDS];
    unsigned nfds;
    int pidfd;
    uint16_t type;     /* of the request */
    uint64_t until_ns; /* when reseal-keyd itself ends the child */
};

/* The end of a private pair to a reseald-work. */
struct rs_work {
    struct rs_watch watch;
    struct rs_work *next;
    reseal_key *revoked; /* not sent yet; while there are any, requests wait */
    size_t nrevoked, room;
};

struct rs_keyd {
    int epoll;
    bool ended, failed; /* the loop ends; with exit code 1 */
    struct rs_watch listener, supervisor, signals, nursery_end;
    struct rs_client *clients;
    struct rs_running *orders;  /* oldest first */
    struct rs_task_run *tasks;  /* oldest first */
    struct rs_task_rest *rests; /* children of tasks that wait for another */
    struct rs_work *works;
    struct rs_keys keys;
    struct rs_uses uses;
    struct rs_policy *policy;
    const char *policy_path; /* NULL: private */
    struct rs_nursery nursery;
    struct rs_store *store; /* NULL only in tests */
    const char *state_folder;
    uint64_t keep_audit; /* bytes of the audit that are kept; 0: RS_JOURNAL_KEEP */
    struct rs_providers providers;
    struct rs_keks keks;
    struct rs_protections protections;
    struct rs_msg *msg;   /* key memory; the one being handled */
    uint8_t *digest_root; /* key memory, 32 bytes: digest keys of tenants without a file */
    uint8_t instance[16];
    uint32_t next_client;
    uint32_t deadline_s;
    uint32_t look_s;  /* between looks at a key provider; 0: a day */
    uint64_t refused; /* session requests that the policy refused */
    struct rs_events *events;
    json_t *tenants; /* tenants.c */
    struct rs_hosts *hosts;
};

/* ---- server.c ---- */

/* Reads nothing from descriptors yet. 0, RESEAL_ENOMEM, RESEAL_EIO. `d` has keys, policy and nursery set. */
RS_MUST_CHECK int rs_keyd_init(struct rs_keyd *d);

/* Watches a descriptor for reading. 0 or RESEAL_EIO. */
RS_MUST_CHECK int rs_keyd_watch(struct rs_keyd *d, struct rs_watch *w);
void rs_keyd_interest(struct rs_keyd *d, struct rs_watch *w, uint32_t events);
void rs_keyd_unwatch(struct rs_keyd *d, struct rs_watch *w);

/* Handles one thing that is ready, waiting for it. 0 or RESEAL_EIO. */
RS_MUST_CHECK int rs_keyd_step(struct rs_keyd *d);

/* The same until ended. */
RS_MUST_CHECK int rs_keyd_loop(struct rs_keyd *d);

/* Takes over a connected socket; closes it when it cannot. NULL then. */
struct rs_client *rs_keyd_accept(struct rs_keyd *d, int fd);

/* Handles the request in d->msg. False: the client broke the protocol, or went away, and must be dropped. */
RS_MUST_CHECK bool rs_keyd_request(struct rs_keyd *d, struct rs_client *c);

/* Ends a connection and revokes its keys. */
void rs_keyd_drop(struct rs_keyd *d, struct rs_client *c);

/* Sends a reply; false when the client does not take it. */
RS_MUST_CHECK bool rs_keyd_reply(struct rs_client *c, uint16_t type, int status, const void *body, size_t len,
                                 int fd);

void rs_keyd_revoke(struct rs_keyd *d, struct rs_key *key);

/* Forgets everything; descriptors are closed, keys wiped. */
void rs_keyd_free(struct rs_keyd *d);

/* ---- orders.c ---- */

/* Queues an order; takes o->fds. The reply comes when it is done. */
void rs_orders_add(struct rs_keyd *d, struct rs_running *o);
/* Ends the order of a client that goes away. */
void rs_orders_cancel(struct rs_keyd *d, struct rs_client *c);
/* Ends children that are overdue; milliseconds until it must be called again, -1: never. */
int rs_orders_tick(struct rs_keyd *d);
/* Registers what a source gave as the client's key. The status of the reply; `luks` may be NULL. */
RS_MUST_CHECK int rs_orders_mint(struct rs_keyd *d, struct rs_client *c, struct rs_key *form,
                                 const struct rs_source_yield *y, reseal_key *id);

/* ---- tasks.c ---- */

/* True when one more child of that user may run there. */
RS_MUST_CHECK bool rs_tasks_may_start(const struct rs_keyd *d, uint32_t uid, enum rs_task_place place);
unsigned rs_tasks_count(const struct rs_keyd *d);
/* Starts what waits, ends what is overdue; milliseconds until it must be called again, -1: never. */
int rs_tasks_tick(struct rs_keyd *d);
/* Ends the children that rest. */
void rs_tasks_free(struct rs_keyd *d);

/* ---- rpc.c ---- */

/* Handles RS_MSG_RPC in `m`; false: the client must be dropped. It may be gone when this returns true. */
RS_MUST_CHECK bool rs_rpc_request(struct rs_keyd *d, struct rs_client *c, struct rs_msg *m);
/* Ends the call of a client that goes away. */
void rs_rpc_cancel(struct rs_keyd *d, struct rs_client *c);

/* ---- sessions.c ---- */

/* What the policy grants for a request; `out` lies in key memory. RESEAL_E... as reseal_session_open(). */
RS_MUST_CHECK int rs_sessions_keys(struct rs_keyd *d, const struct rs_msg_session_request *request,
                                   struct rs_msg_session_keys *out);
/* Adds a pair; closes it when it cannot. */
void rs_sessions_add(struct rs_keyd *d, int fd);
/* Tells every reseald-work that a key is gone. */
void rs_sessions_revoked(struct rs_keyd *d, reseal_key id);
void rs_sessions_drop(struct rs_keyd *d, struct rs_work *w);

/* ---- status.c ---- */

/* JSON text, freed by the caller; NULL: no memory. */
RS_MUST_CHECK char *rs_keyd_status(const struct rs_keyd *d);

#endif
