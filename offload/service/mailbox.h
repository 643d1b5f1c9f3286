/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_SERVICE_MAILBOX_H
#define RS_SERVICE_MAILBOX_H

/*
 * Notes between the control thread and the workers: many senders, one
 * receiver, no lock. What the control thread knows reaches a worker only
 * through these, so that neither reads what the other writes.
 */

#include "offload/base/bytes.h"

#include <stdatomic.h>

struct rs_binding;
struct rs_client;
struct rs_queue;
struct rs_seat;
struct rs_session;

enum rs_note_kind {
    /* to a worker */
    RS_NOTE_QUEUE_ADD = 1, /* serve it from now on */
    RS_NOTE_QUEUE_CLOSE,   /* finish what was accepted, then let go */
    RS_NOTE_SESSION_ADD,   /* binding at slot, with its generation */
    RS_NOTE_SESSION_END,   /* waiting jobs end with status; let go of the binding */
    RS_NOTE_REGION_ADD,    /* region number `slot` of queue */
    RS_NOTE_SCRATCH,       /* a larger scratch; the old one comes back */
    RS_NOTE_SEAT_END,      /* the client is gone: let go of all */
    RS_NOTE_PAUSE,         /* touch no queue until RESUME */
    RS_NOTE_RESUME,
    RS_NOTE_DRAIN, /* complete what was accepted, and take nothing new from here on */
    RS_NOTE_STOP,
    /* from a worker: notes come back when done; these two begin there */
    RS_NOTE_FAULT, /* the client's memory faulted, or it broke the ring */
};

struct rs_note {
    struct rs_note *next;
    enum rs_note_kind kind;
    int status;
    unsigned worker;
    struct rs_seat *seat;
    struct rs_queue *queue;
    struct rs_binding *binding;
    uint32_t slot;
    uint32_t generation;
    uint8_t *base; /* region or scratch */
    uint64_t len;
    /* for the control thread alone */
    struct rs_client *client;
    struct rs_session *session;
    bool op; /* the client's operation waits for it */
};

struct rs_mailbox {
    _Alignas(64) _Atomic(struct rs_note *) head;
    _Atomic uint32_t asleep; /* the receiver waits on `event` */
    int event;               /* eventfd, non-blocking, of this process alone */
};

/* 0, RESEAL_EIO. */
RS_MUST_CHECK int rs_mailbox_init(struct rs_mailbox *box);
void rs_mailbox_close(struct rs_mailbox *box);

/* Any thread. The note belongs to the receiver then. */
void rs_mailbox_put(struct rs_mailbox *box, struct rs_note *note);

/* Receiver: all notes in the order they were put, linked by next; NULL when there are none. */
struct rs_note *rs_mailbox_take(struct rs_mailbox *box);

static inline bool rs_mailbox_empty(struct rs_mailbox *box)
{
    return atomic_load_explicit(&box->head, memory_order_relaxed) == NULL;
}

/*
 * Receiver: before and after waiting on `event`. Check for emptiness after the first. `signalled`: `event` is
 * or may be readable; what is not taken now makes the next wait a short one.
 */
void rs_mailbox_sleep(struct rs_mailbox *box);
void rs_mailbox_awake(struct rs_mailbox *box, bool signalled);

#endif
