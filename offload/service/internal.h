/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_SERVICE_INTERNAL_H
#define RS_SERVICE_INTERNAL_H

/*
 * Messages between reseald and reseald-work (--supervisor-fd), between two
 * reseald on admin.sock, and between two reseald-work during a take-over.
 * Framed as offload/ring/control.h. Both ends are this project's own
 * programs, of versions that may differ by one take-over: fields are only
 * ever added behind.
 */

#include "offload/ring/control.h"
#include "offload/ring/layout.h"

enum rs_service_msg {
    /* reseald -> reseald-work */
    RS_MSG_NEW_KEYD = RS_MSG_INTERNAL + 32, /* none + one end of a pair to reseal-keyd; no reply */
    RS_MSG_HAND_OVER =
        RS_MSG_INTERNAL + 33, /* none + a SEQPACKET socket to the successor; no reply, see below */
    /* reseald-work -> reseald */
    RS_MSG_READY = RS_MSG_INTERNAL + 40,     /* none: clients are answered */
    RS_MSG_NEED_KEYD = RS_MSG_INTERNAL + 41, /* none: the pair to reseal-keyd is of no use any more */
    RS_MSG_HANDED_OVER =
        RS_MSG_INTERNAL + 42, /* status: 0: the successor serves, this process ends; else it goes on */

    /* successor -> reseald on admin.sock */
    RS_MSG_TAKEOVER = RS_MSG_INTERNAL + 48, /* rs_msg_takeover -> rs_msg_takeover + control.sock, keys.sock,
                                               admin.sock and lock; a second packet of the same type carries
                                               the descriptors that do not fit: supervisor end of reseal-keyd,
                                               its pidfd, socket to the old reseald-work */
    RS_MSG_TAKEOVER_DONE = RS_MSG_INTERNAL + 49, /* successor: its reseald-work serves; status */

    /* reseald-work -> its successor */
    RS_MSG_STATE = RS_MSG_INTERNAL + 64,   /* rs_msg_state */
    RS_MSG_CLIENT = RS_MSG_INTERNAL + 65,  /* rs_msg_client + its socket */
    RS_MSG_SESSION = RS_MSG_INTERNAL + 66, /* rs_msg_session_state, of the client before */
    RS_MSG_QUEUE =
        RS_MSG_INTERNAL + 67, /* rs_msg_queue_state + memfd, wake socket, memfd with waiting jobs */
    RS_MSG_REGION = RS_MSG_INTERNAL + 68, /* rs_msg_region + memfd */
    RS_MSG_END = RS_MSG_INTERNAL + 69,    /* none; the successor's reply: status */
    RS_MSG_COMMIT = RS_MSG_INTERNAL + 70, /* none: it is yours, I touch nothing any more */
};

struct rs_msg_takeover {
    uint32_t version; /* of this exchange: 1 */
    uint32_t reserved;
};

struct rs_msg_state {
    uint32_t version; /* of the state: 1 */
    uint32_t next_client;
    uint8_t instance[16];
};

struct rs_msg_client {
    uint32_t number;
    uint32_t uid, gid, pid;
    uint32_t welcomed;
    uint32_t reserved;
    char tenant[64];
    uint16_t generations[256]; /* of its session slots: a handle that was closed stays closed */
};

struct rs_msg_session_state {
    uint32_t handle;
    uint32_t use; /* by which reseal-keyd knows it; 0: not at all */
    struct rs_msg_transform asked;
};

struct rs_msg_queue_state {
    uint32_t number;
    uint32_t depth;
    uint32_t sq_index, cq_index;
    uint32_t waiting; /* jobs in the third descriptor: as many struct rs_ticket_state */
    uint32_t reserved;
};

/* A job that was taken off the ring and waits. */
struct rs_ticket_state {
    struct rs_sqe sqe;
    struct rs_aux_record source, destination;
    int32_t status;
    uint32_t runs; /* 0: it only completes, with status */
};

_Static_assert(sizeof(struct rs_msg_state) == 24, "state");
_Static_assert(sizeof(struct rs_msg_client) == 600, "client");
_Static_assert(sizeof(struct rs_msg_session_state) == 88, "session");
_Static_assert(sizeof(struct rs_msg_queue_state) == 24, "queue");
_Static_assert(sizeof(struct rs_ticket_state) == 456, "ticket");

#endif
