/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_TRUSTED_PRIMARY_H
#define RS_TRUSTED_PRIMARY_H

/*
 * The primary keys of a key provider service: what it wraps KEKs with. Each comes from a file,
 * or from a KMIP server, which a helper process asks, so that the service itself
 * speaks to hosts alone. A key of a server is asked for again before its time is over; one that
 * cannot be had is gone then.
 *
 * A key names itself: the UUID in the ids of its KEKs is derived from it, so that several services with the
 * same primary keys open each other's.
 */

#include "providers/key/native/native.h"
#include "providers/key/trusted/daemon.h"

#define RS_PRIMARIES_MAX 8u

struct rs_primary {
    struct rs_native_kdk *kdk; /* key memory */
    bool ready, from_file;
    uint64_t asked_ns, until_ns; /* rs_now_ns() */
    int64_t ends[2]; /* of the certificates of client and key server, seconds since 1970; 0: not known */
    char why[256];   /* why it is not ready */
};

struct rs_primaries {
    struct rs_daemon *daemon;
    struct rs_primary at[RS_PRIMARIES_MAX]; /* the first makes new keys */
    unsigned n;
    uint64_t cache_ns;
    int helper;   /* socket; -1: none is needed */
    bool waiting; /* for its answer */
};

/* The whole of a program that was started as a helper: argv[1] is RS_PRIMARIES_HELPER. */
#define RS_PRIMARIES_HELPER "--helper"
RS_NORETURN void rs_primaries_help(void);

/* Reads config "primaries" and starts the helper where one is needed; ends the program for what is wrong.
 * Before the sandbox. */
void rs_primaries_open(struct rs_primaries *p, struct rs_daemon *d);

/* Asks the helper for what is due, and takes what it answered. Never waits. */
void rs_primaries_tick(struct rs_primaries *p);

/* The end of the first certificate that ends, of the client (0) or of key servers (1); 0: not known. */
int64_t rs_primaries_end(const struct rs_primaries *p, unsigned whose);

/* The one that a key id belongs to; NULL: none. It may not be ready. */
struct rs_primary *rs_primaries_of(struct rs_primaries *p, const char *id);

#endif
