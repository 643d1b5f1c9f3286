/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_RING_CONTROL_H
#define RS_RING_CONTROL_H

/*
 * The control protocol, version 1: messages on the SOCK_SEQPACKET sockets of
 * the service. control.sock is answered by reseald-work (sessions, queues),
 * keys.sock by reseal-keyd (keys), admin.sock by reseald (take-over).
 *
 * One message is one packet: a header, a body of the type's fixed size, and
 * up to RS_MSG_FDS descriptors (SCM_RIGHTS). Every request gets one reply of
 * the same type with RS_MSG_REPLY set, in order; a reply with a status other
 * than 0 has no body, except KEY_LUKS with RESEAL_ECIPHER: its rs_msg_luks
 * names the cipher; and no descriptor, except RPC: its JSON text says why. A message of an unknown type, another length, unknown
 * flags or unexpected descriptors ends the connection.
 * docs/ring-protocol.md tells it to the byte.
 */

#include "offload/base/bytes.h"
#include "reseal/reseal.h"

#define RS_MSG_MAGIC    0x314c5352u /* the bytes "RSL1" */
#define RS_MSG_VERSION  1u
#define RS_MSG_REPLY    0x8000u
#define RS_MSG_BODY_MAX 1024u
#define RS_MSG_FDS      4u

enum rs_msg_type {
    /* control.sock and keys.sock */
    RS_MSG_HELLO = 1,          /* rs_msg_hello -> rs_msg_welcome */
    RS_MSG_STATUS = 2,         /* none -> none + sealed memfd with JSON text */
    /* control.sock */
    RS_MSG_SESSION_OPEN = 16,  /* rs_msg_transform -> rs_msg_session */
    RS_MSG_SESSION_CLOSE = 17, /* rs_msg_session -> none */
    RS_MSG_QUEUE_OPEN = 18,    /* rs_msg_queue -> rs_msg_queue + memfd, wake socket */
    RS_MSG_QUEUE_ATTACH = 19,  /* rs_msg_queue + memfd of an earlier service -> rs_msg_queue + wake socket */
    RS_MSG_QUEUE_CLOSE = 20,   /* rs_msg_queue -> none, once its jobs are done */
    RS_MSG_REGION_ADD = 21,    /* rs_msg_region + memfd -> rs_msg_region */
    /* keys.sock */
    RS_MSG_KEY_RAW = 32,       /* rs_msg_key_use + fd -> rs_msg_key */
    RS_MSG_KEY_RANDOM = 33,    /* rs_msg_key_use -> rs_msg_key */
    RS_MSG_KEY_LUKS = 34,      /* rs_msg_key_use + header fd, pass phrase fd -> rs_msg_luks */
    RS_MSG_LUKS_FORMAT = 35,   /* rs_msg_luks_format + pass phrase fd -> rs_msg_luks + memfd */
    RS_MSG_KEY_CLOSE = 36,     /* rs_msg_key -> none */
    RS_MSG_POLICY = 37,        /* none -> none + sealed memfd with JSON text: what this client can reach */
    RS_MSG_RPC = 38,           /* none + sealed memfd with JSON text, up to 3 more
                                  -> none + sealed memfd with JSON text, also when refused, perhaps one more */
    /* admin.sock, service-internal pairs: offload/service/internal.h, providers/key/internal.h */
    RS_MSG_INTERNAL = 128,
};

struct rs_msg_header {
    uint32_t magic;
    uint16_t type;    /* enum rs_msg_type, RS_MSG_REPLY in replies */
    uint16_t version; /* RS_MSG_VERSION, except in HELLO, where it is the newest the sender knows */
    uint32_t length;  /* bytes of the body */
    int32_t status;   /* replies: 0 or RESEAL_E...; requests: 0 */
};

struct rs_msg_hello {
    uint32_t min_version;
    uint32_t max_version;
    uint64_t features;   /* 0 */
    char tenant[64];     /* NUL-ended; empty: the one the policy gives */
};

struct rs_msg_welcome {
    uint32_t version;
    uint32_t max_depth;
    uint64_t features;
    uint64_t max_arena;  /* bytes a client may have in queue memory */
    uint32_t max_queues;
    uint32_t max_sessions;
    uint32_t max_keys;
    uint32_t client;     /* number in status */
    uint8_t instance[16]; /* another after a restart, the same after a take-over */
};

struct rs_msg_side {
    uint32_t cipher; /* enum reseal_cipher */
    uint32_t unit;
    uint64_t step;
    reseal_key key;
};

struct rs_msg_transform {
    uint32_t stages;
    uint32_t level;
    uint32_t counter_at;
    uint32_t reserved;
    struct rs_msg_side source;
    struct rs_msg_side destination;
};

struct rs_msg_session {
    uint32_t session; /* handle for rs_sqe.session */
    uint32_t reserved;
};

struct rs_msg_queue {
    uint32_t queue;   /* number; 0 in OPEN and ATTACH requests */
    uint32_t depth;
    uint64_t arena;   /* bytes, a multiple of 4096 */
    uint64_t total;   /* replies: bytes of the memfd */
};

struct rs_msg_region {
    uint32_t queue;
    uint32_t region;  /* replies: number; in a request: 0, or the number it had in an earlier service */
    uint64_t len;     /* bytes: the size of the memfd */
};

struct rs_msg_key_use {
    uint32_t cipher;
    uint32_t use;
    uint32_t unit;
    uint32_t bits;    /* KEY_RANDOM: 128 or 256; else 0 */
    uint64_t step;
    char name[128];   /* NUL-ended; empty: none */
};

struct rs_msg_key {
    reseal_key key;
};

struct rs_msg_luks {
    reseal_key key;   /* zero when only the information was wanted (use 0) */
    uint32_t version;
    uint32_t unit;
    uint32_t key_bits;
    int32_t keyslot;
    uint64_t step;
    uint64_t first_tweak;
    uint64_t data_offset;
    uint64_t data_size;
    uint64_t header_size;
    char uuid[40];
    char cipher[64];
};

struct rs_msg_luks_format {
    uint32_t use;
    uint32_t version;
    uint32_t unit;
    uint32_t key_bits;
    uint64_t data_offset;
    uint64_t data_size;
    uint32_t pbkdf_ms;
    uint32_t pbkdf;
    char label[48];
};

_Static_assert(sizeof(struct rs_msg_header) == 16, "header");
_Static_assert(sizeof(struct rs_msg_hello) == 80, "hello");
_Static_assert(sizeof(struct rs_msg_welcome) == 56, "welcome");
_Static_assert(sizeof(struct rs_msg_transform) == 80, "transform");
_Static_assert(sizeof(struct rs_msg_session) == 8, "session");
_Static_assert(sizeof(struct rs_msg_queue) == 24, "queue");
_Static_assert(sizeof(struct rs_msg_region) == 16, "region");
_Static_assert(sizeof(struct rs_msg_key_use) == 152, "key use");
_Static_assert(sizeof(struct rs_msg_key) == 16, "key");
_Static_assert(sizeof(struct rs_msg_luks) == 176, "luks");
_Static_assert(sizeof(struct rs_msg_luks_format) == 88, "luks format");

/* A received message; descriptors are owned by whoever holds the struct. */
struct rs_msg {
    struct rs_msg_header header;
    RS_ALIGNED(8) uint8_t body[RS_MSG_BODY_MAX];
    int fds[RS_MSG_FDS];
    unsigned nfds;
};

/*
 * Sends one message. `flags` are those of sendmsg(2), MSG_NOSIGNAL is added.
 * 0, RESEAL_ENOSERVICE (peer gone), RESEAL_EAGAIN (MSG_DONTWAIT), RESEAL_EINVAL.
 */
RS_MUST_CHECK int rs_msg_send(int sock, uint16_t type, int32_t status, const void *body, size_t len, const int *fds,
                              unsigned nfds, int flags);

/*
 * Receives one message: close-on-exec descriptors, truncated data or control
 * data refused, magic and length checked (not the type). 0,
 * RESEAL_ENOSERVICE (peer gone), RESEAL_EAGAIN (MSG_DONTWAIT), RESEAL_EPROTO.
 * On an error no descriptor is left open.
 */
RS_MUST_CHECK int rs_msg_recv(int sock, struct rs_msg *msg, int flags);

/* Closes what descriptors a message still holds. */
void rs_msg_close_fds(struct rs_msg *msg);

/*
 * Both for a sender that is not trusted: its descriptors are closed by `drop`, as close() may wait for whoever
 * is behind one (rs_foreign_drop() of offload/base/foreign.h). uid: whose they are.
 */
typedef void rs_msg_drop(int fd, uint32_t uid);
RS_MUST_CHECK int rs_msg_recv_from(int sock, struct rs_msg *msg, int flags, rs_msg_drop *drop, uint32_t uid);
void rs_msg_drop_fds(struct rs_msg *msg, rs_msg_drop *drop, uint32_t uid);

/* Takes descriptor i out of a message (the caller owns it then), or -1. */
int rs_msg_take_fd(struct rs_msg *msg, unsigned i);

/* The reply to a request of that type, as rs_msg_ask(): for who does something between the two. */
RS_MUST_CHECK int rs_msg_answer(int sock, uint16_t type, struct rs_msg *reply);

/*
 * What rs_msg_call() does with a reply of fixed form: checks it, moves body and descriptors to the caller, wipes
 * the message. `err` is why there is no reply, or 0.
 */
RS_MUST_CHECK int rs_msg_take(struct rs_msg *msg, int err, void *reply, size_t reply_len, int *reply_fds,
                              unsigned reply_nfds);

/*
 * Request and reply in one, as it came: sends, receives, checks the type. 0 whatever the status of the
 * reply is; the caller closes what descriptors it has. RESEAL_EPROTO.
 */
RS_MUST_CHECK int rs_msg_ask(int sock, uint16_t type, const void *body, size_t len, const int *fds, unsigned nfds,
                             struct rs_msg *reply);

/*
 * The same for a request with a reply of fixed form: sends, receives, checks type and body length, copies
 * the body to `reply`. The reply's status when not 0; RESEAL_EPROTO.
 */
RS_MUST_CHECK int rs_msg_call(int sock, uint16_t type, const void *body, size_t len, const int *fds, unsigned nfds,
                              void *reply, size_t reply_len, int *reply_fds, unsigned reply_nfds);

/* A sealed (all but SEAL) read-only memfd holding `len` bytes of text; fd or RESEAL_E.... */
RS_MUST_CHECK int rs_msg_text_fd(const char *text, size_t len);

#endif
