/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_SERVICE_WORKER_H
#define RS_SERVICE_WORKER_H

/*
 * A worker: one thread on one core that serves its queues in turn by bytes,
 * weighted by tenant. It touches nothing that another thread writes, except
 * mailboxes and the shared memory of its queues.
 *
 * Turns (deficit round robin): a queue with waiting jobs that has used up what
 * it had gets, once in a round, RS_QUANTUM bytes times its tenant's weight / 100, divided by the number of
 * that tenant's queues that wait on this worker; a job that is larger runs
 * and is paid for by following rounds. Jobs count at least RS_JOB_COST bytes.
 */

#include "offload/service/guard.h"
#include "offload/service/mailbox.h"
#include "offload/service/queue.h"

#include <pthread.h>

#define RS_WORKERS_MAX   64u
#define RS_WORKER_QUEUES 4096u
#define RS_QUANTUM       (256u << 10)
#define RS_JOB_COST      4096u
#define RS_LOOK_COST     64  /* bytes that a cancel counts for each job it looks at */
#define RS_CODES         33u /* 0 and the RESEAL_E... codes, by -code */

/* Jobs that run and complete together: small ones amortise the publish, large ones would only add latency. */
#define RS_GROUP_JOBS  8u
#define RS_GROUP_BYTES (128u << 10)

struct rs_worker_metrics {
    _Atomic uint64_t jobs, bytes, busy_ns, sleeps, wakes, faults, streamed;
    _Atomic uint64_t codes[RS_CODES];
};

struct rs_worker {
    unsigned index;
    int cpu; /* -1: not pinned */
    bool pinned;
    void *stack; /* key memory; NULL: an ordinary stack */
    pthread_t thread;
    struct rs_mailbox inbox;
    struct rs_mailbox *outbox; /* of the control thread */
    int epoll;
    struct rs_queue *queues[RS_WORKER_QUEUES];
    unsigned count;
    uint8_t *scratch;
    uint64_t scratch_len;
    unsigned spins_lost; /* looks for work in vain, in a row */
    unsigned unspun;     /* sleeps without a look before them */
    bool stop, paused, draining;
    struct rs_guard guard; /* up while queues are touched */
    struct rs_job jobs[RS_GROUP_JOBS];
    struct rs_ticket *running[RS_GROUP_JOBS];
    uint8_t zero_maps[RS_GROUP_JOBS][RS_ZERO_MAP_MAX];
    struct rs_worker_metrics metrics;
};

/* Starts the thread, on `cpu` when it is not -1. RESEAL_ENOMEM, RESEAL_EIO. */
RS_MUST_CHECK int rs_worker_start(struct rs_worker *w, unsigned index, int cpu, struct rs_mailbox *outbox);

/* Asks the thread to end and waits for it; its queues are left as they are. */
void rs_worker_stop(struct rs_worker *w);

/* ---- serve.c: what a worker does with one queue; all of it under the worker's guard ---- */

/* Takes what is new off the ring and checks it. Returns how many. */
unsigned rs_serve_fetch(struct rs_queue *q);

/* Runs and completes waiting jobs while the queue has bytes left in this round. */
void rs_serve_run(struct rs_worker *w, struct rs_queue *q);

/* The client's memory faulted: waiting jobs complete with RESEAL_EFAULT, as far as its ring can still be
 * written. */
void rs_serve_fault(struct rs_worker *w, struct rs_queue *q);

/* Waiting jobs of a binding will complete with `status` instead of running. */
void rs_serve_void(struct rs_queue *q, const struct rs_binding *binding, int status);

/* Relaxed increment of a counter that only this thread writes. */
static inline void rs_count(_Atomic uint64_t *counter, uint64_t n)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n,
                          memory_order_relaxed);
}

#endif
