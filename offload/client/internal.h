/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_CLIENT_INTERNAL_H
#define RS_CLIENT_INTERNAL_H

/*
 * Inside libreseal, grouped by the file that owns each function.
 *
 * Locks: `lock` guards the control socket, the lists and what sessions are;
 * `keys_lock` the keys socket. Neither is taken on the submit and poll path.
 * A queue belongs to one thread, which also mends it after a restart.
 */

#include "offload/ring/control.h"
#include "offload/ring/ring.h"
#include "reseal/reseal.h"

#include <pthread.h>

#define RS_DEFAULT_RECONNECT_MS 10000u
#define RS_DEFAULT_DEPTH        64u
#define RS_DEFAULT_ARENA        (16ull << 20)

struct reseal {
    _Atomic uint32_t *parent; /* a page that the kernel clears in a child: 1 in the process that opened */
    uint32_t reconnect_ms;
    char *runtime_dir;
    char tenant[64];
    pthread_mutex_t lock;
    int control;
    struct rs_msg_welcome welcome;
    _Atomic uint32_t epoch;          /* one more for each connection to the service */
    _Atomic int gone;                /* why there will be no further one, or 0 */
    struct reseal_session *sessions; /* open and closed; a closed one is used again */
    struct reseal_queue *queues;
    bool has_run_key;
    pthread_key_t run_key; /* the thread's struct run of this connection */
    pthread_mutex_t keys_lock;
    int keys; /* -1: not opened */
    bool (*stopped)(void); /* rs_keyservice_stop_when(); NULL: nobody ends a wait */
};

struct reseal_session {
    struct reseal *r;
    struct reseal_session *next;
    bool open;
    _Atomic uint32_t serial; /* another after a close: who remembers an older one holds a closed session */
    _Atomic uint32_t handle; /* in the present service */
    _Atomic int status;      /* why it could not be opened again after a restart, or 0 */
    struct rs_msg_transform transform;
    uint32_t zero_unit; /* bytes per bit of the zero map */
};

enum rs_slot_state {
    RS_SLOT_FREE = 0,
    RS_SLOT_FLYING, /* submitted, not completed */
    RS_SLOT_DONE,   /* completed, waits in the ready list for reseal_poll() */
};

/* A job in flight: what is needed to deliver it, and to submit it again. */
struct rs_slot {
    struct rs_sqe sqe; /* private copy; sqe.user_data is generation << 32 | slot */
    uint64_t user_data;
    uint64_t order; /* of submission */
    struct reseal_session *session;
    uint32_t session_serial;
    uint32_t generation;
    uint32_t position;   /* free-running index of its entry in the submission ring */
    uint32_t zero_units; /* bits of the zero map that the caller has room for */
    uint32_t aad_len;    /* of the destination */
    uint32_t out_len;
    int32_t status;
    struct reseal_record *destination;
    uint8_t *zero_map;
    uint8_t *digest;
    uint8_t state; /* enum rs_slot_state */
};

struct rs_region {
    uint8_t *base; /* NULL: unused */
    uint64_t len;
    int memfd; /* a duplicate of the caller's, for a restart; -1 in region 0 */
};

struct reseal_queue {
    /* Submit and poll. */
    struct rs_ring_end sq, cq;
    struct reseal *r;
    uint32_t epoch;       /* of the connection that it is attached to */
    uint32_t sq_room;     /* entries known to be writable */
    uint32_t depth;       /* jobs the caller may have outstanding */
    uint32_t outstanding; /* accepted and not delivered */
    uint32_t nfree;
    uint32_t idle;  /* polls in a row that found nothing */
    uint32_t mends; /* restarts since a job completed */
    bool lost;      /* the worker went away: mend before anything else */
    bool with_fd;   /* the caller has the descriptor: ask for a wake-up when a poll finds nothing */
    int wake;
    int broken; /* why it ended, or 0 */
    uint64_t order;
    struct rs_slot *slots; /* ring.depth of them */
    uint32_t *free_slots;  /* a stack */
    uint32_t *ready;       /* slots that wait for delivery: a ring of ring.depth */
    uint32_t ready_head, ready_count;
    uint32_t *replay; /* room to sort slots in */
    uint64_t spin_ns; /* how long reseal_wait() spins before it sleeps */
    struct rs_region regions[RS_REGION_MAX];
    struct rs_ring ring;

    /* Life. */
    struct reseal_queue *next;
    uint32_t number; /* in the present service */
    int memfd;
    int epoll; /* -1 until asked for */
};

/* ---- connection.c -------------------------------------------------------- */

/* RESEAL_EFORK in a child, else 0. No system call. */
static inline int rs_client_check_fork(const struct reseal *r)
{
    return atomic_load_explicit(r->parent, memory_order_relaxed) == 1 ? 0 : RESEAL_EFORK;
}

/*
 * Copies a caller's structure that begins with its size: the known part, and
 * refuses one that is shorter than `known` or has more, unless that is zero.
 */
RS_MUST_CHECK int rs_client_take_options(void *to, size_t known, const void *from);

/* Connects to a socket of the runtime folder and says hello within `timeout_ms`. The socket or RESEAL_E....
 */
RS_MUST_CHECK int rs_client_connect(struct reseal *r, const char *name, uint64_t timeout_ms,
                                    struct rs_msg_welcome *welcome);

/*
 * A new connection in the place of number `epoch`, unless another thread made it already:
 * waits for the service, opens the sessions again. Takes the lock. 0 or why not.
 */
RS_MUST_CHECK int rs_client_restore(struct reseal *r, uint32_t epoch);

/*
 * rs_msg_call() on the control socket; under the lock. When the service went away:
 * restores the connection and calls again when `again`, else says RESEAL_ENOSERVICE.
 */
RS_MUST_CHECK int rs_client_call_locked(struct reseal *r, bool again, uint16_t type, const void *body,
                                        size_t len, const int *fds, unsigned nfds, void *reply,
                                        size_t reply_len, int *reply_fds, unsigned reply_nfds);

/* True for the errors that mean that this connection is of no use any more. */
static inline bool rs_client_is_loss(int err)
{
    return err == RESEAL_ENOSERVICE || err == RESEAL_EPROTO;
}

/* A copy of the text in a sealed memfd that the service sent, freed by the caller. RESEAL_EPROTO,
 * RESEAL_ENOMEM. */
RS_MUST_CHECK int rs_client_take_text(int fd, char **out);

uint64_t rs_client_now_ns(void);

/* ---- keys.c -------------------------------------------------------------- */

/*
 * One request to reseal-keyd and its reply as it came, connecting first when need be. 0 or why there is no
 * reply. Not repeated after a loss: a descriptor may have been read by then, and the keys are gone anyhow.
 */
RS_MUST_CHECK int rs_client_keys_ask(struct reseal *r, uint16_t type, const void *body, size_t len,
                                     const int *fds, unsigned nfds, struct rs_msg *reply);

/* ---- sessions.c ---------------------------------------------------------- */

/* Opens every session again in a new service; under the lock. RESEAL_ENOSERVICE when that one went away too.
 */
RS_MUST_CHECK int rs_client_reopen_sessions(struct reseal *r, int control);

/* ---- queue.c ------------------------------------------------------------- */

/* QUEUE_ATTACH and REGION_ADD in a new service. */
RS_MUST_CHECK int rs_client_attach_queue(struct reseal_queue *q);

/* ---- jobs.c -------------------------------------------------------------- */

/* Takes completions out of the ring and into the list of ready ones, delivering none. */
void rs_client_reap_all(struct reseal_queue *q);

/* Ends a flying job here, with a status. */
void rs_client_finish(struct reseal_queue *q, uint32_t slot, int status);

/* Writes a slot's entry to the ring, `nth` of those that are not published. */
void rs_client_write_entry(struct reseal_queue *q, uint32_t slot, uint32_t nth);

/* Publishes n entries and wakes the worker when it sleeps. */
void rs_client_publish(struct reseal_queue *q, uint32_t n);

/* ---- recover.c ----------------------------------------------------------- */

/*
 * Mends a queue whose worker went away: keeps what completed, attaches to the
 * new service, submits the rest again. 0, or what q->broken says; then every
 * job in flight has been ended.
 */
RS_MUST_CHECK int rs_client_recover(struct reseal_queue *q);

/* Ends a queue for good: every job in flight completes with `err`, or RESEAL_ELOST in place. */
int rs_client_break(struct reseal_queue *q, int err);

/* ---- run.c --------------------------------------------------------------- */

/* The thread-specific key of reseal_run(). RESEAL_ELIMIT. */
RS_MUST_CHECK int rs_client_run_begin(struct reseal *r);

/* Forgets what reseal_run() keeps in this connection. Under no lock. */
void rs_client_run_end(struct reseal *r);

#endif
