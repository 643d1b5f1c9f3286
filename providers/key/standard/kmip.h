/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_KMIP_H
#define RS_KMIP_H

/*
 * KMIP 1.0 to 1.4 messages: what a client asks, and what it understands of the
 * answers (KMIP specification 1.1, sections 4, 6 and 7). No sockets here, so
 * that all of it can be fuzzed.
 *
 * Requests carry no time stamp (servers refuse one that is a second ahead of
 * their clock), and every item has a batch id, also a single one. Answers may
 * miss the operation and the batch id of a failed item, count fewer items
 * than were asked, come in another order and hold unknown fields: all of that
 * is taken.
 *
 * Buffers with an answer to Get, and struct rs_kmip_key, hold secrets: they
 * belong to key memory, and their owner wipes them. No call keeps a pointer.
 */

#include "providers/key/standard/kmip-tags.h"
#include "providers/key/standard/ttlv.h"

#define RS_KMIP_BATCH_MAX   8u    /* items of a request */
#define RS_KMIP_REQUEST_MAX 8192u /* bytes that any request here fits into */
#define RS_KMIP_ID_MAX      256u  /* bytes of a unique identifier with its NUL; opaque text */
#define RS_KMIP_TEXT_MAX    256u  /* of names, attribute values, messages */
#define RS_KMIP_KEY_MAX     72u   /* bytes: AES-256, or 64 bytes wrapped */

struct rs_kmip_version {
    int32_t major, minor;
};

/* ---- requests -------------------------------------------------------------------- */

struct rs_kmip_request {
    struct rs_ttlv_writer w;
    struct rs_kmip_version version;
    uint32_t first_batch_id; /* of the first item; the others count on */
    unsigned items, added;
};

/*
 * Begins a request of `items` (1 to RS_KMIP_BATCH_MAX) operations in a buffer of the caller's. `user` and
 * `password` may be NULL: the client certificate decides.
 */
void rs_kmip_request_begin(struct rs_kmip_request *q, uint8_t *buffer, size_t room,
                           struct rs_kmip_version version, uint32_t first_batch_id, unsigned items,
                           const char *user, const char *password);

/* Length of the message. RESEAL_ESPACE, RESEAL_EINVAL when not all items were added. */
RS_MUST_CHECK int rs_kmip_request_finish(struct rs_kmip_request *q, size_t *len);

/* One item each. */
void rs_kmip_discover_versions(struct rs_kmip_request *q);
void rs_kmip_query(struct rs_kmip_request *q, const uint32_t *functions, unsigned n);
void rs_kmip_activate(struct rs_kmip_request *q, const char *id);
void rs_kmip_destroy(struct rs_kmip_request *q, const char *id);
void rs_kmip_revoke(struct rs_kmip_request *q, const char *id, enum rs_kmip_revocation why,
                    const char *message);

/* A new AES key that may encrypt and decrypt; `name` and `policy` (of the server) may be NULL. */
struct rs_kmip_new_key {
    uint32_t bits; /* 128, 192, 256 */
    const char *name;
    const char *policy;
    const char *asi_namespace; /* Application Specific Information; NULL: none */
    const char *asi_data;
};
void rs_kmip_create(struct rs_kmip_request *q, const struct rs_kmip_new_key *key);

/* The key itself; wrapped by the server under another of its keys when `wrapping_id` is not NULL (NIST key
 * wrap, no encoding). */
void rs_kmip_get(struct rs_kmip_request *q, const char *id, const char *wrapping_id);

/* Attributes by name ("State", "x-Vendor"); n = 0: all. */
void rs_kmip_get_attributes(struct rs_kmip_request *q, const char *id, const char *const *names, unsigned n);

/* A text attribute, custom ("x-...") or the Application Specific Information of a namespace. */
void rs_kmip_add_text_attribute(struct rs_kmip_request *q, const char *id, const char *name,
                                const char *value);
void rs_kmip_modify_asi(struct rs_kmip_request *q, const char *id, const char *asi_namespace,
                        const char *asi_data);

/* Ids of symmetric keys; each filter may be NULL or 0. */
struct rs_kmip_filter {
    const char *name;
    const char *asi_namespace, *asi_data;
    uint32_t state; /* enum rs_kmip_state */
    int32_t most;   /* answers; 0: as the server likes */
};
void rs_kmip_locate(struct rs_kmip_request *q, const struct rs_kmip_filter *filter);

/* ---- answers --------------------------------------------------------------------- */

struct rs_kmip_result {
    uint32_t status;                /* enum rs_kmip_status */
    uint32_t reason;                /* enum rs_kmip_reason; 0: none given */
    uint32_t operation;             /* 0: not told */
    char message[RS_KMIP_TEXT_MAX]; /* printable text of the server, "" when none or not printable */
    bool has_payload;
    struct rs_ttlv_reader payload; /* into the answer */
};

/*
 * Finds the result of the item with this batch id and operation in a whole
 * answer. An answer of one failed item without batch id is that of every item
 * asked (parse failures are told so). RESEAL_ECANCELED when nothing answers
 * it: after a failure servers leave the rest of a batch out. RESEAL_EPROTO,
 * also when the operation is another one.
 */
RS_MUST_CHECK int rs_kmip_answer(const uint8_t *message, size_t len, uint32_t batch_id, uint32_t operation,
                                 struct rs_kmip_result *out);

/* The server's own word for a result reason: "item not found"; "unknown reason" else. */
const char *rs_kmip_reason_text(uint32_t reason);

/* What payloads say. RESEAL_EPROTO when it is not in them, or has another form. */
RS_MUST_CHECK int rs_kmip_payload_id(const struct rs_kmip_result *r, char id[RS_KMIP_ID_MAX]);

/* Highest version of ours that the server lists, 1.4 at most; RESEAL_EVERSION when there is none. */
RS_MUST_CHECK int rs_kmip_payload_versions(const struct rs_kmip_result *r, struct rs_kmip_version *best);

struct rs_kmip_key {
    uint8_t bytes[RS_KMIP_KEY_MAX];
    size_t len;
    bool wrapped;
};

/* A raw AES key of `bits`; with `wrapped`, that key under NIST key wrap (8 bytes longer). RESEAL_EKEYBAD for
 * another algorithm, format or length. */
RS_MUST_CHECK int rs_kmip_payload_key(const struct rs_kmip_result *r, uint32_t bits, bool wrapped,
                                      struct rs_kmip_key *out);

/* Attribute "State". */
RS_MUST_CHECK int rs_kmip_payload_state(const struct rs_kmip_result *r, uint32_t *state);

/* The value of a text attribute; 0, RESEAL_ENOKEY when the object has none of that name. */
RS_MUST_CHECK int rs_kmip_payload_text(const struct rs_kmip_result *r, const char *name,
                                       char value[RS_KMIP_TEXT_MAX]);

/* Application Specific Information of a namespace; 0 or RESEAL_ENOKEY. */
RS_MUST_CHECK int rs_kmip_payload_asi(const struct rs_kmip_result *r, const char *asi_namespace,
                                      char data[RS_KMIP_TEXT_MAX]);

/* The ids that Locate found, at most `max` of them; *n is how many there were in the answer. */
RS_MUST_CHECK int rs_kmip_payload_ids(const struct rs_kmip_result *r, char (*ids)[RS_KMIP_ID_MAX],
                                      unsigned max, unsigned *n);

/* Query: whether an operation is listed. */
RS_MUST_CHECK bool rs_kmip_payload_has_operation(const struct rs_kmip_result *r, uint32_t operation);

/* Query: "Vendor Identification", "" when not told. */
RS_MUST_CHECK int rs_kmip_payload_vendor(const struct rs_kmip_result *r, char text[RS_KMIP_TEXT_MAX]);

#endif
