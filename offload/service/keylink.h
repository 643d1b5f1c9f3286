/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_SERVICE_KEYLINK_H
#define RS_SERVICE_KEYLINK_H

/*
 * This end of the private pair to reseal-keyd: the only way by which raw keys
 * reach reseald-work. Message buffers lie in key memory and are wiped after
 * each use. Control thread only.
 */

#include "providers/key/internal.h"

#define RS_KEYLINK_MS      3000   /* reseal-keyd answers from memory: slower than this means that it hangs */
#define RS_KEYLINK_REVOKED 65536u /* more than all clients have keys */
#define RS_KEYLINK_ENDED   65536u

struct rs_keylink {
    int fd; /* -1: no reseal-keyd at present */
    struct rs_msg *msg;
    /* Revocations that came while a reply was waited for; the oldest first. */
    reseal_key *revoked;
    unsigned nrevoked, room;
    /* Ends of sessions that reseal-keyd has not been told of; one message of them at a time is on its way. */
    struct rs_msg_session_ended *ended;
    unsigned nended, ended_room;
    bool telling;
};

/* RESEAL_ENOMEM. `fd` may be -1; it is the link's then. */
RS_MUST_CHECK int rs_keylink_open(struct rs_keylink *link, int fd);
void rs_keylink_close(struct rs_keylink *link);

/* Another reseal-keyd. */
void rs_keylink_replace(struct rs_keylink *link, int fd);

/*
 * Asks for the keys of a session. *keys is valid until rs_keylink_wipe().
 * RESEAL_ENOSERVICE (reseal-keyd is not there or hangs: the link is closed,
 * since a late reply could be taken for another's), or its refusal.
 */
RS_MUST_CHECK int rs_keylink_ask(struct rs_keylink *link, const struct rs_msg_session_request *request,
                                 const struct rs_msg_session_keys **keys);
void rs_keylink_wipe(struct rs_keylink *link);

/* A session ended: kept until it can be told. Without memory it is not: reseal-keyd learns it with our end.
 */
void rs_keylink_ended(struct rs_keylink *link, const struct rs_msg_session_ended *m);

/* Tells what there is to tell, unless the last is not answered yet (`wait` false). Never waits. */
void rs_keylink_tell(struct rs_keylink *link, bool wait);

/* The descriptor is readable: takes a revocation without waiting. 0, RESEAL_EAGAIN, RESEAL_ENOSERVICE. */
RS_MUST_CHECK int rs_keylink_read(struct rs_keylink *link);

#endif
