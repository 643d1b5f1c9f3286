/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_KEY_KEYS_H
#define RS_KEY_KEYS_H

/*
 * The keys that reseal-keyd holds, by handle. A handle is 96 random bits and
 * 32 bits that name this instance, so that one from before a restart can be
 * told from one that never was. A key belongs to the connection that brought
 * it and dies with it. One thread.
 */

#include "providers/key/source.h"

struct rs_key {
    reseal_key id;
    struct rs_key *next; /* in its bucket */
    uint8_t *raw;        /* key memory */
    uint32_t len;        /* bytes of raw */
    uint32_t bits;       /* AES key bits */
    uint32_t cipher;     /* enum reseal_cipher */
    uint32_t use;        /* enum reseal_use */
    uint32_t unit;       /* XTS; 0 for GCM */
    uint64_t step;
    uint32_t client; /* number of the connection */
    uint32_t uid;
    uint32_t pid;
    bool supplied;     /* the client knows the key, or a pass phrase that opens it */
    bool handed;       /* reseald-work has had it */
    char name[136];    /* as the policy knows it */
    char provider[64]; /* the key provider whose key opens it; "": none */
};

#define RS_KEY_BUCKETS 1024u

struct rs_keys {
    struct rs_key *buckets[RS_KEY_BUCKETS];
    uint32_t instance; /* low half of id[1] */
    uint32_t count;
};

/* Draws the instance. 0 or RESEAL_ENOMEM. */
RS_MUST_CHECK int rs_keys_init(struct rs_keys *keys);

/*
 * Adds a copy of `form` (all but id, next and raw) with the key `raw`, of
 * form->len bytes. *out stays the table's. 0, RESEAL_EKEYBAD, RESEAL_ENOMEM.
 */
RS_MUST_CHECK int rs_keys_add(struct rs_keys *keys, const struct rs_key *form, const uint8_t *raw,
                              struct rs_key **out);

/* 0; RESEAL_ENOKEY, or RESEAL_EKEYGONE for a handle of another instance. */
RS_MUST_CHECK int rs_keys_find(const struct rs_keys *keys, reseal_key id, struct rs_key **out);

/* Wipes and forgets a key. */
void rs_keys_drop(struct rs_keys *keys, struct rs_key *key);

/* The first key of a client's connection, or NULL. */
struct rs_key *rs_keys_of(const struct rs_keys *keys, uint32_t client);

void rs_keys_clear(struct rs_keys *keys);

#endif
