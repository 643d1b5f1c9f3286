/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_KEY_HOST_AGENT_H
#define RS_KEY_HOST_AGENT_H

/*
 * The agent of a host: a process of reseal-keyd's own that listens for managers (mutual TLS) and parses what
 * they send. To reseal-keyd it speaks messages of fixed size, one for each key, with the fingerprint of the
 * manager in each: whom to trust is decided there. It is forked before there is key memory, has this host's
 * TLS key and nothing else, and sees no file.
 */

#include "offload/ring/control.h"
#include "providers/key/provider.h"

#define RS_AGENT_SECRET 48u /* a KEK, or the KDK of a native provider */
#define RS_AGENT_WHY    240u
#define RS_AGENT_KEYS   64u /* of one "put" */

enum rs_agent_what {
    RS_AGENT_HELLO,
    RS_AGENT_PUT,
    RS_AGENT_FORGET,
    RS_AGENT_KDK,
    RS_AGENT_NO_KDK,
    RS_AGENT_PREPARE
};

/* On the pair between the two. */
#define RS_MSG_AGENT_CERT (RS_MSG_INTERNAL + 64) /* keyd -> agent: PEM */
#define RS_MSG_AGENT_KEY  (RS_MSG_INTERNAL + 65) /* keyd -> agent: PEM */
#define RS_MSG_AGENT_READY                                                                                   \
    (RS_MSG_INTERNAL + 66) /* agent -> keyd: status 0, or the line why it cannot listen */
#define RS_MSG_AGENT_ASK (RS_MSG_INTERNAL + 67) /* agent -> keyd: rs_agent_ask -> rs_agent_answer */

struct rs_agent_ask {
    uint32_t what; /* enum rs_agent_what */
    uint32_t secret_len;
    uint8_t caller[32]; /* SHA-256 of the manager's certificate */
    char tenant[64];
    char provider[RS_PROVIDER_NAME_MAX];
    char key[RS_KEY_ID_MAX]; /* FORGET: empty: all of the provider */
    uint8_t secret[RS_AGENT_SECRET];
};

struct rs_agent_answer {
    int32_t status;
    uint8_t instance[16];
    char state[16]; /* "incapable", "prepared", "safe" */
    char why[RS_AGENT_WHY];
};

_Static_assert(sizeof(struct rs_agent_ask) <= RS_MSG_BODY_MAX, "one message");

/* Forks it; *sock is our end. Before key memory is made. RESEAL_EIO. */
RS_MUST_CHECK int rs_agent_start(const char *address, int *sock);

#endif
