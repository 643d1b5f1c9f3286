/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_KEY_KEK_H
#define RS_KEY_KEK_H

/*
 * KEKs: made by a provider, fetched from it by id, kept in key memory for a
 * while (provider config "cache_s", 86400 by default, 0: only as long as it is
 * being used), so that a key server that is away stops nobody who works.
 * Several who want the same key at the same time cause one request.
 */

#include "providers/key/provider.h"

/* Who wants it: what the policy and the audit are asked about. */
struct rs_who {
    uint32_t uid, gid, pid;
    char tenant[64];
};

struct rs_kek {
    char provider[RS_PROVIDER_NAME_MAX];
    char key[RS_KEY_ID_MAX]; /* opaque id */
    const uint8_t *bytes;    /* RS_KEK_LEN; key memory of the cache, valid during the call; NULL on failure */
    const char *event;       /* on failure the id of the event that was raised already, or "" */
    const char *reason;      /* on failure why the key is not available: "KeyStateMissingInKMS", ... */
};

/* On failure `why` has one line. `kek` is never NULL. */
typedef void rs_kek_done(struct rs_keyd *d, void *arg, int status, const struct rs_kek *kek, const char *why);

/*
 * `details` (an object of texts x-Component, x-Name, x-Identifier) may be NULL. `done` is called once,
 * perhaps before the call returns, unless it is cancelled. Provider "" is the tenant's default.
 *
 * RESEAL_ENOKEY: no such provider, or no such key there; RESEAL_EKEYBAD: not active; RESEAL_ENOSERVICE,
 * RESEAL_ETIMEDOUT, RESEAL_EAUTH: the provider cannot be reached or trusted; RESEAL_EPERM.
 */
void rs_kek_make(struct rs_keyd *d, const struct rs_who *who, const char *provider, const json_t *details,
                 rs_kek_done *done, void *arg);
void rs_kek_get(struct rs_keyd *d, const struct rs_who *who, const char *provider, const char *key,
                const json_t *details, rs_kek_done *done, void *arg);
void rs_kek_cancel(struct rs_keyd *d, const void *arg);

/* Puts one that a manager handed over into the cache. */
RS_MUST_CHECK int rs_kek_put(struct rs_keyd *d, const char *tenant, const char *provider, const char *key,
                             const uint8_t bytes[RS_KEK_LEN]);

/* Forgets and wipes; NULL: any. Returns how many. */
unsigned rs_kek_forget(struct rs_keyd *d, const char *tenant, const char *provider, const char *key);

/* Milliseconds until something expires, -1: nothing; forgets what has. */
int rs_kek_tick(struct rs_keyd *d);

/* The cache and the requests under way; a member of struct rs_keyd. */
#define RS_KEKS_MAX                                                                                          \
    4096u /* in memory, besides RS_HOST_KEYS_MAX of a manager; the one not used longest goes */
#define RS_KEK_ROWS 1024u

struct rs_kek_entry;
struct rs_kek_request;

struct rs_keks {
    struct rs_kek_entry *rows[RS_KEK_ROWS];
    unsigned n;
    uint64_t next_expiry; /* rs_now_ns(); 0: nothing expires */
    struct rs_kek_request *requests;
    unsigned notes; /* under way: what keys in memory are used for, to their servers */
};

/* Calls `each` for every key of a tenant in memory, with seconds that it has left. */
void rs_kek_each(struct rs_keyd *d, const char *tenant,
                 void (*each)(void *arg, const char *provider, const char *key, uint64_t left_s), void *arg);

/* True when it is in memory. */
bool rs_kek_cached(struct rs_keyd *d, const char *tenant, const char *provider, const char *key);

/* Wipes everything and ends what is under way. */
void rs_kek_free(struct rs_keyd *d);

#endif
