/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_TESTS_REPLAY_SERVER_H
#define RS_TESTS_REPLAY_SERVER_H

/*
 * A TLS server in a thread of the test that reads KMIP requests, whatever they
 * ask, and answers each with the same bytes: a genuine answer of a real server, or what a test
 * made of one. Its certificate and whom it demands one of are those of pykmip.sh. What fails ends the
 * test.
 */

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define REPLAY_MAX (128u << 10)

enum replay_end {
    REPLAY_KEEPS,  /* the connection, until the client ends it */
    REPLAY_CLOSES, /* after the answer */
    REPLAY_DRIPS,  /* byte by byte, then as REPLAY_KEEPS */
};

struct replay_server {
    uint16_t port;
    atomic_uint requests; /* that were read whole */
    /* The rest is its own. */
    int listener;
    void *ctx;
    pthread_t thread;
    pthread_mutex_t lock;
    uint8_t answer[REPLAY_MAX];
    size_t len;
    enum replay_end end;
};

/* `folder` as of pykmip.sh, made by a server there. */
void replay_start(struct replay_server *s, const char *folder);

/* From the next request on. */
void replay_answer(struct replay_server *s, const uint8_t *answer, size_t len, enum replay_end end);

void replay_stop(struct replay_server *s);

#endif
