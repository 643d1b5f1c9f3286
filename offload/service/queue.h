/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_SERVICE_QUEUE_H
#define RS_SERVICE_QUEUE_H

/*
 * A queue as its worker sees it: the ring's private indices, the jobs that
 * were taken and wait, and what a client may touch. Made and destroyed by the
 * control thread; between QUEUE_ADD and the note's return it is the worker's.
 */

#include "offload/ring/ring.h"
#include "offload/service/binding.h"
#include "offload/service/check.h"

struct rs_client;

/* A tenant's part of a worker's time. */
struct rs_tenant {
    char name[64];
    _Atomic uint32_t weight; /* 1 to 1000 */
    struct rs_tenant *next;  /* a tenant, once known, stays for the life of the process */
};

#define RS_WEIGHT_DEFAULT 100u

/* A client on one worker. The worker owns slots and queues; the control thread made it and frees it. */
struct rs_seat {
    struct rs_client *client; /* for the control thread */
    _Atomic(struct rs_tenant *) tenant;
    bool faulted; /* serves nothing any more */
    uint32_t nslots;
    struct rs_slot {
        struct rs_binding *binding; /* NULL: none */
        uint32_t generation;
        int ended; /* what its session ended with, for jobs that were on the way then; 0: it did not */
    } slots[];
};

/* A job that was taken off the ring: everything of it is a private copy. */
struct rs_ticket {
    struct rs_sqe sqe;
    struct rs_aux_record source, destination;
    struct rs_binding *binding; /* NULL: it only completes, with status */
    int status;
};

/* How far the buffers in use spread: see rs_spread_add(). */
struct rs_spread {
    uint64_t low[RS_REGION_MAX], high[RS_REGION_MAX];
    uint64_t reach;   /* sum of high - low */
    uint64_t traffic; /* bytes that passed */
    uint32_t jobs;
    uint64_t last; /* of the window before */
};

struct rs_queue {
    /* set before the worker has it */
    uint32_t number;
    unsigned worker;
    uint32_t uid; /* of the client */
    struct rs_seat *seat;
    struct rs_ring ring;
    int memfd, wake;
    bool huge;                      /* its memory lies in huge pages */
    uint8_t claimed[RS_REGION_MAX]; /* the control thread's: region numbers in use */
    /* the worker's */
    struct rs_ring_end sq, cq;
    uint32_t cq_taken; /* what the client took at least: its word, read only when the ring seems full */
    struct rs_region regions[RS_REGION_MAX]; /* the data of each region */
    struct rs_region guarded[RS_REGION_MAX]; /* the mappings: 0 is the whole memfd */
    struct rs_ticket *tickets;               /* ring buffer of depth entries */
    uint32_t first, waiting;                 /* of tickets */
    int64_t deficit;                         /* bytes it may still use in this round */
    struct rs_spread spread;
    bool deaf;               /* the client closed the wake socket */
    struct rs_note *closing; /* comes back when the last job is done */
    /* for status: written by the worker */
    _Atomic uint32_t fill;
    _Atomic uint64_t jobs, bytes;
};

/*
 * A new queue with its own memfd, or, with memfd >= 0 (taken over), on one that
 * a client brought. `peer` gets the client's end of the wake socket.
 * RESEAL_EINVAL, RESEAL_ENOMEM, RESEAL_EPROTO.
 */
RS_MUST_CHECK int rs_queue_make(struct rs_queue **out, int memfd, uint32_t depth, uint64_t arena, int *peer);

/*
 * A queue that another reseald-work served up to these indices. Both
 * descriptors, which must not be negative, are the queue's then, on an error too.
 */
RS_MUST_CHECK int rs_queue_adopt(struct rs_queue **out, int memfd, int wake, uint32_t depth,
                                 uint32_t sq_index, uint32_t cq_index);

/* Unmaps and closes; NULL is allowed. */
void rs_queue_free(struct rs_queue *q);

/*
 * Maps a memfd that the client offers: the mapping, its length. The caller
 * keeps the descriptor. RESEAL_EINVAL (seals, size), RESEAL_ENOMEM.
 */
RS_MUST_CHECK int rs_region_map(int memfd, uint64_t max, struct rs_region *out);

/*
 * Working set of a queue, for rs_transform_streams(): over windows of 1024
 * jobs or 64 MiB, the distance from the lowest to the highest byte used in each
 * region, but never more than the bytes that really passed; of the window
 * that is being filled or the one before, the larger.
 */
void rs_spread_add(struct rs_spread *s, const struct rs_sqe *sqe);
uint64_t rs_spread_bytes(const struct rs_spread *s);

#endif
