/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_KEY_INTERNAL_H
#define RS_KEY_INTERNAL_H

/*
 * The private pair between reseald-work and reseal-keyd: where raw keys
 * travel, and nowhere else. Framed as offload/ring/control.h; both ends hold
 * bodies in key memory and wipe them after use. Requests come from
 * reseald-work, except REVOKED, which can also come between a request and its
 * reply, as the reply to an ENDED can: that one is not waited for. While reseald-work does not read them, its
 * requests wait.
 */

#include "offload/ring/control.h"

#define RS_RAW_KEY_MAX 64u

/* Exit status of a reseal-keyd that cannot use what it was started with, and says why: another start does no
 * better. */
#define RS_KEYD_UNUSABLE 3

enum rs_key_msg_type {
    RS_MSG_SESSION_KEYS = RS_MSG_INTERNAL + 0, /* rs_msg_session_request -> rs_msg_session_keys */
    RS_MSG_KEY_REVOKED =
        RS_MSG_INTERNAL + 1, /* keyd -> work: rs_msg_key; no reply: sessions that use it end */

    RS_MSG_SESSION_ENDED =
        RS_MSG_INTERNAL +
        2, /* up to RS_ENDED_MAX of rs_msg_session_ended -> none; of sessions with a `use` */

    /*
     * On --supervisor-fd of reseal-keyd. WORK_PAIR carries the keyd end of a
     * new pair; no reply. Pairs that it already holds stay valid until the
     * other end closes: during a take-over two reseald-work live side by side,
     * and REVOKED goes to all. End of file on the supervisor's descriptor
     * ends reseal-keyd; so does SIGTERM.
     */
    RS_MSG_WORK_PAIR = RS_MSG_INTERNAL + 8, /* supervisor -> keyd: none + one end of a SEQPACKET pair */
};

/* Who asks, by the kernel's word (SO_PEERCRED), and for what. */
struct rs_msg_session_request {
    uint32_t uid;
    uint32_t gid;
    uint32_t pid;
    uint32_t use; /* 0: a session that is to be opened; else what the reply said when this one was */
    char tenant[64];
    struct rs_msg_transform transform;
};

/* What the policy grants for it. */
struct rs_msg_session_keys {
    uint16_t src_bits; /* AES key bits; 0: plain */
    uint16_t dst_bits;
    uint16_t src_len; /* bytes of src: XTS 32 or 64, GCM 16 or 32 */
    uint16_t dst_len;
    uint32_t weight;       /* of the tenant, 1 to 1000 */
    uint32_t max_sessions; /* of the tenant at a time; 0: no limit of its own */
    uint8_t salt[16];      /* GCM destination: of the fresh subkey */
    uint8_t src[RS_RAW_KEY_MAX];
    uint8_t dst[RS_RAW_KEY_MAX]; /* GCM: HKDF(key, salt), fresh for each request */
    uint8_t digest[32];          /* key of the tenant's digests, when the stage was granted */
    char tenant[64];             /* the one it counts for */
    uint64_t record_limit;       /* GCM destination: records before RESEAL_EKEYUSED */
    /* Behind RS_SESSION_KEYS_LEAST bytes, which is all that a reseal-keyd of before a take-over may send: */
    uint32_t use; /* the session's number in the audit; 0: its end need not be told */
    uint32_t reserved;
};

#define RS_SESSION_KEYS_LEAST 264u

/* What a session did, all its workers together. */
struct rs_msg_session_ended {
    uint32_t use;
    uint32_t reserved;
    uint64_t jobs, bytes, failures; /* jobs and bytes: of those that succeeded */
};

#define RS_ENDED_MAX (RS_MSG_BODY_MAX / sizeof(struct rs_msg_session_ended))

_Static_assert(sizeof(struct rs_msg_session_request) == 160, "session request");
_Static_assert(sizeof(struct rs_msg_session_keys) == 272, "session keys");
_Static_assert(offsetof(struct rs_msg_session_keys, use) == RS_SESSION_KEYS_LEAST, "session keys");
_Static_assert(sizeof(struct rs_msg_session_ended) == 32, "session ended");

#endif
