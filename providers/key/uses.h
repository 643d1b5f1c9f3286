/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_KEY_USES_H
#define RS_KEY_USES_H

/*
 * What keys are used for outside of named requests, line by line in the audit: a key that a client supplies,
 * a session before it gets its keys, and what sessions did when they have ended. Lines of ends wait a second,
 * and sessions of one process with the same pair of names that end in it share one: those are a record of
 * work, not what keys wait for. One thread.
 */

#include "providers/key/internal.h"
#include "providers/key/keys.h"

struct rs_client;
struct rs_keyd;
struct rs_tenant;
struct rs_use;
struct rs_use_end;
struct rs_work;

#define RS_USE_BUCKETS 1024u

struct rs_uses {
    struct rs_use *buckets[RS_USE_BUCKETS]; /* sessions that are open, by number */
    uint32_t last;                          /* number */
    uint32_t count;
    struct rs_use_end *ended; /* lines that wait */
    uint32_t nended;
    uint64_t due_ns; /* when they are written */
};

/* 0, or RESEAL_EAUDIT: the audit cannot be written, so no key may be used. */
RS_MUST_CHECK int rs_uses_may(struct rs_keyd *d);

/*
 * A client supplied a key, or tried to: `key` is NULL then, and `status` why. The line is in the file when it
 * returns 0; RESEAL_EAUDIT.
 */
RS_MUST_CHECK int rs_uses_supplied(struct rs_keyd *d, const struct rs_client *c, const char *operation,
                                   const char *name, const struct rs_key *key, int status);

/*
 * A session may have these keys (NULL: plain): *number is that of the session from now on. One that `q` names
 * already, with the same keys of the same process, needs no further line. RESEAL_EAUDIT.
 */
RS_MUST_CHECK int rs_uses_begin(struct rs_keyd *d, const struct rs_msg_session_request *q, const char *tenant,
                                const struct rs_key *from, const struct rs_key *to, uint32_t *number);

/* The policy refused it. `tenant`: "" when it has none. */
void rs_uses_refused(struct rs_keyd *d, const struct rs_msg_session_request *q, const char *tenant,
                     const struct rs_key *from, const struct rs_key *to, int status);

/* Which reseald-work has the session. */
void rs_uses_owner(struct rs_keyd *d, uint32_t number, const struct rs_work *w);

/* What a reseald-work says about sessions that ended; what it does not own is ignored. */
void rs_uses_ended(struct rs_keyd *d, const struct rs_work *w, const struct rs_msg_session_ended *list,
                   size_t n);

/* It is gone: what its sessions did is not known. */
void rs_uses_work_gone(struct rs_keyd *d, const struct rs_work *w);

/* Writes what is due; milliseconds until it must be called again, -1: never. */
int rs_uses_tick(struct rs_keyd *d);

/* Writes all that waits, in few writes, and forgets everything else. */
void rs_uses_close(struct rs_keyd *d);

#endif
