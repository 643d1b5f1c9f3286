/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_KMIP_CLIENT_H
#define RS_KMIP_CLIENT_H

/*
 * What a standard key provider does with its KMIP servers: makes keys, gets
 * them, finds them, retires them. One client, several servers with the same
 * keys: a server that fails is left alone for a while, longer each time, and
 * the next is asked.
 *
 * A request that changes something is sent once: when its answer is lost, the
 * error says so and nothing is sent again, since a second key would be an
 * orphan. Requests that only read go to the next server.
 *
 * Runs in a sandboxed child of reseal-keyd. Threads: a client belongs to one.
 */

#include "providers/key/standard/kmip-tls.h"
#include "providers/key/standard/kmip.h"

#define RS_KMIP_SERVERS_MAX 8u
#define RS_KMIP_DETAILS_MAX 8u

/* The namespace of our Application Specific Information. */
#define RS_KMIP_NAMESPACE "reseal"

struct rs_kmip_config {
    struct rs_kmip_address servers[RS_KMIP_SERVERS_MAX]; /* in order of preference */
    unsigned nservers;
    struct rs_kmip_trust trust;
    const char *user, *password;     /* NULL: the certificate decides */
    struct rs_kmip_version version;  /* {0, 0}: ask the server, and take 1.1 if it cannot tell more */
    unsigned connect_ms, request_ms; /* deadlines; 0: 5000 and 10000 */
};

struct rs_kmip_client;

/* Connects to nothing yet. The texts in `config` must outlive the client. RESEAL_EINVAL, RESEAL_ENOMEM. */
RS_MUST_CHECK int rs_kmip_client_open(struct rs_kmip_client **out, const struct rs_kmip_config *config);

/*
 * What is known of a server, in the order of the configuration. `not_before` and `back_off` may be set
 * before the first request, from an earlier client's: how long the server is left alone.
 */
struct rs_kmip_server_state {
    uint64_t not_before;        /* rs_now_ns(): left alone until then, where there are others */
    unsigned back_off;          /* milliseconds, the last one; 0: it answered last */
    bool answered;              /* this client */
    struct rs_kmip_error error; /* of its last failure in this client; fault 0: none */
};
struct rs_kmip_server_state *rs_kmip_client_server(struct rs_kmip_client *c, unsigned i);

/* When the certificate of the server that answered last ends, seconds since 1970; 0: not known. */
int64_t rs_kmip_client_expires(const struct rs_kmip_client *c);

/* NULL is allowed; wipes. */
void rs_kmip_client_close(struct rs_kmip_client *c);

/* What went wrong last. Valid until the next call. */
const struct rs_kmip_error *rs_kmip_client_error(const struct rs_kmip_client *c);

/*
 * All below: 0; RESEAL_ENOSERVICE, RESEAL_ETIMEDOUT, RESEAL_EAUTH: no server
 * could be reached or trusted; RESEAL_ENOKEY: it has no such key, or not for
 * us; RESEAL_EKEYBAD: a key that is not active, or not AES of that length;
 * RESEAL_EPERM: refused; RESEAL_EPROTO; the error tells more.
 */

/* A text to keep with a key: a custom attribute ("x-...") or, where the server has none, in our namespace. */
struct rs_kmip_detail {
    const char *name, *value;
};

struct rs_kmip_made {
    char id[RS_KMIP_ID_MAX];
    unsigned details_kept; /* how many of the details the server took */
};

/*
 * Creates and activates a key of 128 or 256 bits. Details are best effort: first as custom attributes,
 * all in one batch as vCenter sends them, then as Application Specific Information; without either the key
 * is as good.
 */
RS_MUST_CHECK int rs_kmip_make(struct rs_kmip_client *c, const struct rs_kmip_new_key *key,
                               const struct rs_kmip_detail *details, unsigned n, struct rs_kmip_made *out);

/*
 * Sets texts of a key that is there, best effort, as rs_kmip_make() does: nothing is written that is so
 * already. *kept is how many the server has now.
 */
void rs_kmip_note(struct rs_kmip_client *c, const char *id, const struct rs_kmip_detail *details, unsigned n,
                  unsigned *kept);

/* Gets an active key. Its state is asked for: servers give keys in any state. `wrapping_id` as in
 * rs_kmip_get(). */
RS_MUST_CHECK int rs_kmip_fetch(struct rs_kmip_client *c, const char *id, uint32_t bits,
                                const char *wrapping_id, struct rs_kmip_key *out);

/* The value of a detail, from either place; RESEAL_ENOKEY when there is none. */
RS_MUST_CHECK int rs_kmip_detail_of(struct rs_kmip_client *c, const char *id, const char *name,
                                    char value[RS_KMIP_TEXT_MAX]);

/* Ids of keys; *n is how many the server has, also beyond `max`. */
RS_MUST_CHECK int rs_kmip_list(struct rs_kmip_client *c, const struct rs_kmip_filter *filter,
                               char (*ids)[RS_KMIP_ID_MAX], unsigned max, unsigned *n);

/* Revokes and destroys; a key that is gone already is no error. */
RS_MUST_CHECK int rs_kmip_retire(struct rs_kmip_client *c, const char *id, enum rs_kmip_revocation why,
                                 const char *message);

/* What `reseal provider test` shows of the server that answers. */
struct rs_kmip_about {
    const struct rs_kmip_address *server;
    struct rs_kmip_version version;
    char vendor[RS_KMIP_TEXT_MAX];
    const char *tls, *cipher; /* valid until the next call */
    bool adds_attributes;
};
RS_MUST_CHECK int rs_kmip_about(struct rs_kmip_client *c, struct rs_kmip_about *out);

#endif
