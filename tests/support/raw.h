/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_TESTS_RAW_H
#define RS_TESTS_RAW_H

/*
 * A client without libreseal: speaks the control protocol and writes the ring
 * itself, so that a test can do what the library never would. Calls that the
 * test expects to work end the program when they fail.
 */

#include "offload/ring/control.h"
#include "offload/ring/ring.h"

struct raw {
    int control, keys;
    struct rs_msg_welcome welcome;
};

struct raw_queue {
    struct rs_ring ring;
    struct rs_ring_end sq, cq;
    uint32_t number;
    int memfd, wake;
};

void raw_open(struct raw *r, const char *dir);
void raw_close(struct raw *r);

/* A connected socket of the runtime folder, without a hello. */
int raw_connect(const char *dir, const char *name);

/* A call on the control socket: its status. */
int raw_call(struct raw *r, uint16_t type, const void *body, size_t len, void *reply, size_t reply_len);

/* A key that the service makes. XTS: 4096-byte units, step 8. */
reseal_key raw_key(struct raw *r, uint32_t cipher);

/* A side with that key. */
struct rs_msg_side raw_side(uint32_t cipher, reseal_key key);

/* Session handle, or 0 with the status in *status. */
uint32_t raw_session(struct raw *r, struct rs_msg_side from, struct rs_msg_side to, int *status);

void raw_queue_open(struct raw *r, struct raw_queue *q, uint32_t depth, uint64_t arena);
void raw_queue_close(struct raw_queue *q); /* memory only */

/* Bytes of the arena, and its offset in region 0. */
uint8_t *raw_arena(const struct raw_queue *q);

/* Publishes entries and wakes the service when it asks for it. */
void raw_submit(struct raw_queue *q, const struct rs_sqe *entries, uint32_t n);

/* Waits for one completion, at most timeout_ms. False: none came. */
bool raw_wait(struct raw_queue *q, struct rs_cqe *out, int timeout_ms);

/* A whole job in the arena: from offset `in` to offset `out`, of `len` bytes. */
struct rs_sqe raw_job(const struct raw_queue *q, uint32_t session, uint64_t in, uint64_t out, uint32_t len);

/* Submits one entry and returns the status it completes with. */
int raw_run(struct raw_queue *q, struct rs_sqe entry);

/* The service's status as JSON text; free() it. */
char *raw_status(struct raw *r);

#endif
