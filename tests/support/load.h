/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_TESTS_LOAD_H
#define RS_TESTS_LOAD_H

/*
 * A client that works without pause, in a thread of its own, and checks all it
 * gets: every job completes once, with the right bytes, and no record ever has
 * the IV of another.
 */

#include "reseal/reseal.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

struct load {
    reseal *r;
    reseal_session *there, *back, *record;
    pthread_t thread;
    _Atomic int stop;
    _Atomic uint64_t completed; /* jobs */
    _Atomic int failed;         /* first wrong status, or 1 for a wrong result */
};

/* Connects to the service in `dir`, makes keys and sessions, starts. */
void load_start(struct load *l, const char *dir);

/* Until so many more jobs have completed, or it failed. */
void load_progress(struct load *l, uint64_t jobs);

/* Ends it and closes the connection; 0 or what went wrong. */
int load_stop(struct load *l);

#endif
