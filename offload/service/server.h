/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_SERVICE_SERVER_H
#define RS_SERVICE_SERVER_H

/*
 * The control thread of reseald-work: clients, their sessions and queues.
 * Everything here belongs to that one thread. Workers get notes and give them
 * back; a reply to a client is sent when the notes of its request are back.
 *
 * Contents
 *   1. What a client has
 *   2. The server
 *   3. Requests (requests.c)
 *   4. Sessions (session.c)
 *   5. Status (status.c)
 */

#include "offload/base/sandbox.h"
#include "offload/service/keylink.h"
#include "offload/service/worker.h"

/* ==== 1. What a client has ================================================= */

#define RS_CLIENTS_MAX   1024u
#define RS_CLIENTS_USER  256u /* of one user id: no user takes all the places */
#define RS_SESSIONS_MAX  256u
#define RS_SESSIONS_USER 2048u /* of one user id: key memory is shared */
#define RS_QUEUES_MAX    64u
#define RS_QUEUES_USER   1024u        /* of one user id */
#define RS_MEMORY_MAX    (8ull << 30) /* bytes of queue memory and registered memory a client may have */

#define RS_MEMORY_USER                                                                                       \
    (32ull << 30) /* the same, of all clients of one user id together; at most half of the machine */

enum rs_source_kind {
    RS_SOURCE_LISTEN,
    RS_SOURCE_NOTES,
    RS_SOURCE_KEYD,
    RS_SOURCE_SUPERVISOR,
    RS_SOURCE_CLIENT
};

struct rs_session {
    uint32_t handle;
    struct rs_transform_config config;
    struct rs_msg_transform asked;
    bool ending;
    uint32_t use;                                /* by which reseal-keyd knows it; 0: not at all */
    struct rs_msg_session_ended done;            /* by bindings that are no more */
    unsigned bound;                              /* bindings that workers hold */
    struct rs_binding *bindings[RS_WORKERS_MAX]; /* by worker; NULL: none there */
};

/* A request that waits for notes; its reply is ready. */
struct rs_operation {
    uint16_t type; /* 0: none */
    unsigned notes;
    int status;
    uint8_t body[sizeof(struct rs_msg_queue)];
    uint32_t length;
    int fds[2];
    unsigned nfds;
    int peer;                   /* closed after the reply; -1: none */
    struct rs_queue *queue;     /* of QUEUE_OPEN, ATTACH and CLOSE */
    struct rs_session *session; /* of SESSION_OPEN */
};

struct rs_client {
    enum rs_source_kind kind; /* first: what epoll points to */
    uint32_t number;
    int fd;
    uint32_t uid, gid, pid;
    bool welcomed, ending, buried;
    bool deaf; /* requests are not read at present */
    char tenant_asked[64];
    struct rs_tenant *tenant;
    unsigned home;  /* worker of its first queue */
    unsigned notes; /* that workers hold, of every kind */
    uint64_t memory;
    struct rs_operation op;
    struct rs_seat *seats[RS_WORKERS_MAX];
    struct rs_note *end_notes[RS_WORKERS_MAX]; /* made with the seat */
    unsigned seat_queues[RS_WORKERS_MAX];
    struct rs_session *sessions[RS_SESSIONS_MAX];
    uint16_t generations[RS_SESSIONS_MAX];
    struct rs_queue *queues[RS_QUEUES_MAX];
    int region_fds[RS_QUEUES_MAX][RS_REGION_MAX]; /* kept for a take-over; 0: none */
    struct rs_client *grave;
};

/* ==== 2. The server ======================================================== */

struct rs_server {
    int listen, supervisor, epoll;
    enum rs_source_kind listen_kind, notes_kind, keyd_kind, supervisor_kind;
    struct rs_keylink keys;
    struct rs_mailbox inbox;
    struct rs_worker **workers;
    unsigned nworkers, turn;
    unsigned worker_queues[RS_WORKERS_MAX];
    uint64_t scratch_len[RS_WORKERS_MAX]; /* what the worker has or is about to get */
    struct rs_client *clients[RS_CLIENTS_MAX];
    unsigned nclients;
    struct rs_client *graves; /* ended, freed after the events at hand */
    struct rs_tenant *tenants;
    uint64_t memory_user; /* bytes of queue memory that a user may have */
    uint32_t next_client;
    uint8_t instance[16];
    uint64_t started_ns;
    bool listening, stop, scratch_locked;
    bool handing_over; /* takes no new clients and no requests */
    bool need_keyd;    /* the link to reseal-keyd was given up: the supervisor makes another */
    bool handed_over;  /* a successor has all of it: touch nothing any more */
    unsigned paused;   /* workers that said so */
    void (*supervised)(struct rs_server *s); /* the supervisor's descriptor is readable */
    void (*ask_keyd)(struct rs_server *s);   /* asks the supervisor for another pair; NULL: nobody to ask */
    struct rs_protections protections;
    struct rs_msg msg;
    _Atomic uint64_t accepted, refused, protocol_errors, client_faults, key_failures, small_pages;
};

struct rs_server_options {
    int listen, keyd, supervisor; /* descriptors; the server's then; -1: none */
    const int *cpus;              /* one worker each; -1: not pinned */
    unsigned ncpus;
};

/* Starts the workers. RESEAL_ENOMEM, RESEAL_EIO. */
RS_MUST_CHECK int rs_server_open(struct rs_server *s, const struct rs_server_options *options);

/* Ends all clients, stops the workers. */
void rs_server_close(struct rs_server *s);

/* Waits for events and handles them, once. `timeout_ms` as epoll_wait(2). RESEAL_EIO. */
RS_MUST_CHECK int rs_server_step(struct rs_server *s, int timeout_ms);

/* Takes new clients, or leaves them waiting. */
void rs_server_listen(struct rs_server *s, bool on);

/* Another reseal-keyd; the descriptor is the server's. */
void rs_server_keyd(struct rs_server *s, int fd);

/* Adds a descriptor to the loop; -1 is allowed. */
RS_MUST_CHECK int rs_server_watch(struct rs_server *s, int fd, enum rs_source_kind *kind);

/* A connected socket becomes a client. NULL: a limit, and `fd` is closed. */
struct rs_client *rs_client_add(struct rs_server *s, int fd);

/* Reads requests of a client, or only notices its end. */
void rs_client_watch(struct rs_server *s, struct rs_client *c, bool on);

/* Ends a client: it is served no more at once, and freed when its workers let go. */
void rs_client_end(struct rs_server *s, struct rs_client *c);

/* A note of this client for a worker; NULL: out of memory. */
struct rs_note *rs_note_new(struct rs_client *c, unsigned worker, enum rs_note_kind kind);

/* Sends a note; with `op` the client's operation waits for it. */
void rs_note_send(struct rs_server *s, struct rs_client *c, struct rs_note *note, bool op);

/* Sends each worker a note of no client. RESEAL_ENOMEM: some did not get it. */
RS_MUST_CHECK int rs_workers_tell(struct rs_server *s, enum rs_note_kind kind);

/* Replies when no note of the operation is out any more. */
void rs_operation_settle(struct rs_server *s, struct rs_client *c);

/* ==== 3. Requests ========================================================== */

/* One message of a client. An error means that it broke the protocol and must end. */
RS_MUST_CHECK int rs_request(struct rs_server *s, struct rs_client *c, struct rs_msg *msg);

/* The worker for the next queue of a client. */
unsigned rs_queue_worker(struct rs_server *s, const struct rs_client *c);

/* A queue that was made becomes the client's: its place, its worker w, what it counts for. */
void rs_queue_enter(struct rs_server *s, struct rs_client *c, struct rs_queue *q, uint32_t place, unsigned w);

/* Frees a queue that no worker holds. */
void rs_queue_drop(struct rs_server *s, struct rs_client *c, struct rs_queue *q);

/* The notes of an operation are back: what is left to do before the reply. */
void rs_request_finish(struct rs_server *s, struct rs_client *c);

/* ==== 4. Sessions ========================================================== */

/* Asks reseal-keyd, prepares and starts binding. The operation waits for it. 0 or why it is refused. */
RS_MUST_CHECK int rs_session_open(struct rs_server *s, struct rs_client *c,
                                  const struct rs_msg_transform *asked);

/* Ends a session; its waiting jobs complete with `status`. */
void rs_session_end(struct rs_server *s, struct rs_client *c, struct rs_session *session, int status,
                    bool op);

/* Take-over: a session that the client knows by `handle`, reseal-keyd by `use`. The operation waits for it. 0
 * or why it is not. */
RS_MUST_CHECK int rs_session_restore(struct rs_server *s, struct rs_client *c, uint32_t handle, uint32_t use,
                                     const struct rs_msg_transform *asked);

/* By handle; NULL: no such session. */
struct rs_session *rs_session_find(struct rs_client *c, uint32_t handle);

/* The client gets a queue on worker w: its seat, and its sessions there. */
RS_MUST_CHECK int rs_session_seat(struct rs_server *s, struct rs_client *c, unsigned w);

/* A SESSION_END note is back. */
void rs_session_unbound(struct rs_server *s, struct rs_client *c, const struct rs_note *note);

/* Frees one that no worker holds; reseal-keyd will be told what it did. */
void rs_session_free(struct rs_server *s, struct rs_client *c, struct rs_session *session);

/* There is another reseal-keyd, or another pair to it: it knows none of the sessions. */
void rs_session_unknown(struct rs_server *s);

/* Ends every session that uses a key. */
void rs_session_revoke(struct rs_server *s, const reseal_key *key);

struct rs_tenant *rs_tenant_find(struct rs_server *s, const char *name);

/* ==== 5. Status ============================================================ */

/* The state, as far as this client may see it, as JSON text in a sealed memfd: descriptor or RESEAL_E.... */
RS_MUST_CHECK int rs_status_fd(struct rs_server *s, const struct rs_client *to);

#endif
