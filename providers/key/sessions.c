/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/key/keyd.h"

#include "offload/base/keymem.h"
#include "providers/crypto/derive.h"

#include <poll.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

#define RECORD_LIMIT                                                                                         \
    (UINT64_C(1) << 32) /* records under one subkey: the counter of a 96-bit IV, with room                   \
                         */
#define REPLY_MS 1000   /* that reseald-work may take to read revocations before a reply */
#define STAGES                                                                                               \
    (RESEAL_STAGE_ZERO | RESEAL_STAGE_DIGEST | RESEAL_STAGE_LZ4 | RESEAL_STAGE_ZSTD | RESEAL_STAGE_DECOMPRESS)

/* ---- what the policy says -------------------------------------------------------- */

/* The key of a side, when the client owns it and it is bound to just this; NULL for plain. */
static int key_of(const struct rs_keyd *d, const struct rs_msg_session_request *q,
                  const struct rs_msg_side *side, uint32_t use, struct rs_key **out)
{
    *out = NULL;
    if (side->cipher == RESEAL_PLAIN)
        return side->key.id[0] == 0 && side->key.id[1] == 0 ? 0 : RESEAL_EKEYBAD;
    if (side->cipher != RESEAL_XTS && side->cipher != RESEAL_GCM) return RESEAL_EINVAL;
    struct rs_key *key;
    int r = rs_keys_find(&d->keys, side->key, &key);
    if (r != 0) return r;
    if (key->uid != q->uid || key->pid != q->pid) return RESEAL_ENOKEY;
    if (key->cipher != side->cipher || (key->use & use) == 0) return RESEAL_EKEYBAD;
    if (key->cipher == RESEAL_XTS && (key->unit != side->unit || key->step != side->step))
        return RESEAL_EKEYBAD;
    *out = key;
    return 0;
}

static unsigned grants_of(uint32_t stages)
{
    unsigned grants = 0;
    bool packs = (stages & (RESEAL_STAGE_LZ4 | RESEAL_STAGE_ZSTD)) != 0;
    if ((stages & RESEAL_STAGE_ZERO) != 0) grants |= RS_GRANT_ZERO_MAP;
    if ((stages & RESEAL_STAGE_DIGEST) != 0) grants |= RS_GRANT_DIGEST;
    if ((stages & RESEAL_STAGE_DECOMPRESS) != 0)
        grants |= RS_GRANT_DECOMPRESS;
    else if (packs)
        grants |= RS_GRANT_COMPRESS;
    return grants;
}

static int decide(const struct rs_keyd *d, const struct rs_msg_session_request *q, const struct rs_key *from,
                  const struct rs_key *to, const struct rs_tenant **tenant)
{
    *tenant = NULL;
    if (memchr(q->tenant, '\0', sizeof(q->tenant)) == NULL) return RESEAL_EPROTO;
    if ((q->transform.stages & ~(uint32_t)STAGES) != 0) return RESEAL_EINVAL;
    int r = rs_policy_tenant(d->policy, q->uid, q->gid, q->tenant, tenant);
    if (r == 0 && (*tenant)->suspended) r = RESEAL_ESUSPENDED;
    if (r != 0) return r;
    const struct rs_policy_question question = {
        .uid = q->uid,
        .gid = q->gid,
        .tenant = *tenant,
        .from = from != NULL ? from->name : "plain",
        .to = to != NULL ? to->name : "plain",
        .from_provider = from != NULL ? from->provider : NULL,
        .to_provider = to != NULL ? to->provider : NULL,
        .to_is_plain = to == NULL || to->supplied,
        .grants = grants_of(q->transform.stages),
    };
    return rs_policy_decide(d->policy, &question);
}

/* ---- the keys themselves --------------------------------------------------------- */

static int digest_key(const struct rs_keyd *d, const struct rs_tenant *tenant, uint8_t out[32])
{
    unsigned len = 32;
    if (tenant->digest_key != NULL) {
        memcpy(out, tenant->digest_key, 32);
        return 0;
    }
    const unsigned char *name = (const unsigned char *)tenant->name;
    return HMAC(EVP_sha256(), d->digest_root, 32, name, strlen(tenant->name), out, &len) != NULL
               ? 0
               : RESEAL_ENOMEM;
}

static int destination_key(const struct rs_key *key, struct rs_msg_session_keys *out)
{
    out->dst_bits = (uint16_t)key->bits;
    out->dst_len = (uint16_t)key->len;
    if (key->cipher == RESEAL_XTS) {
        memcpy(out->dst, key->raw, key->len);
        return 0;
    }
    out->record_limit = RECORD_LIMIT;
    if (RAND_bytes(out->salt, sizeof(out->salt)) != 1) return RESEAL_ENOMEM;
    return rs_derive_subkey(key->raw, key->len, out->salt, out->dst);
}

/* Has the line of the audit written, too, whichever it is. */
static int allow(struct rs_keyd *d, const struct rs_msg_session_request *q, const struct rs_key *from,
                 const struct rs_key *to, const struct rs_tenant **tenant, uint32_t *use)
{
    int r = decide(d, q, from, to, tenant);
    if (r == 0) return rs_uses_begin(d, q, (*tenant)->name, from, to, use);
    if (r == RESEAL_EPAIR || r == RESEAL_EPERM) d->refused++;
    if (r == RESEAL_EPAIR || r == RESEAL_EPERM || r == RESEAL_ESUSPENDED)
        rs_uses_refused(d, q, *tenant != NULL ? (*tenant)->name : "", from, to, r);
    return r;
}

int rs_sessions_keys(struct rs_keyd *d, const struct rs_msg_session_request *q,
                     struct rs_msg_session_keys *out)
{
    const struct rs_tenant *tenant;
    struct rs_key *from, *to;
    int r = key_of(d, q, &q->transform.source, RESEAL_USE_SOURCE, &from);
    if (r == 0) r = key_of(d, q, &q->transform.destination, RESEAL_USE_DESTINATION, &to);
    if (r == 0) r = allow(d, q, from, to, &tenant, &out->use);
    if (r != 0) return r;
    memcpy(out->tenant, tenant->name, sizeof(out->tenant));
    out->weight = tenant->weight;
    out->max_sessions = tenant->max_sessions;
    if (from != NULL) {
        out->src_bits = (uint16_t)from->bits;
        out->src_len = (uint16_t)from->len;
        memcpy(out->src, from->raw, from->len);
        from->handed = true;
    }
    if (to != NULL) {
        r = destination_key(to, out);
        to->handed = true;
    }
    if (r == 0 && (q->transform.stages & RESEAL_STAGE_DIGEST) != 0) r = digest_key(d, tenant, out->digest);
    return r;
}

/* ---- pairs ------------------------------------------------------------------------- */

static bool reply(const struct rs_work *w, uint16_t type, int status, const void *body, size_t len)
{
    int sent;
    struct pollfd room = {.fd = w->watch.fd, .events = POLLOUT};
    do sent = rs_msg_send(w->watch.fd, type | RS_MSG_REPLY, status, body, len, NULL, 0, MSG_DONTWAIT);
    /* Full of revocations, which are read while a reply is waited for. */
    while (sent == RESEAL_EAGAIN && poll(&room, 1, REPLY_MS) == 1);
    return sent == 0;
}

static bool give_keys(struct rs_keyd *d, struct rs_work *w)
{
    struct rs_msg_session_request request;
    RS_KEYMEM struct rs_msg_session_keys *keys = rs_keymem_alloc(sizeof(*keys));
    if (d->msg->header.length != sizeof(request)) return false;
    memcpy(&request, d->msg->body, sizeof(request));
    int r = keys != NULL ? rs_sessions_keys(d, &request, keys) : RESEAL_ENOMEM;
    if (r == 0) rs_uses_owner(d, keys->use, w);
    return reply(w, RS_MSG_SESSION_KEYS, r, r == 0 ? keys : NULL, r == 0 ? sizeof(*keys) : 0);
}

static bool note_ends(struct rs_keyd *d, struct rs_work *w)
{
    struct rs_msg_session_ended list[RS_ENDED_MAX];
    size_t len = d->msg->header.length;
    if (len == 0 || len % sizeof(list[0]) != 0) return false;
    memcpy(list, d->msg->body, len);
    rs_uses_ended(d, w, list, len / sizeof(list[0]));
    return reply(w, RS_MSG_SESSION_ENDED, 0, NULL, 0);
}

static bool answer(struct rs_keyd *d, struct rs_work *w)
{
    if (d->msg->nfds != 0) return false;
    if (d->msg->header.type == RS_MSG_SESSION_ENDED) return note_ends(d, w);
    return d->msg->header.type == RS_MSG_SESSION_KEYS && give_keys(d, w);
}

/* Sends what revocations the pair takes; false when it is gone. */
static bool flush(struct rs_keyd *d, struct rs_work *w)
{
    size_t sent = 0;
    int r = 0;
    while (sent < w->nrevoked && r == 0) {
        const struct rs_msg_key m = {.key = w->revoked[sent]};
        r = rs_msg_send(w->watch.fd, RS_MSG_KEY_REVOKED, 0, &m, sizeof(m), NULL, 0, MSG_DONTWAIT);
        if (r == 0) sent++;
    }
    w->nrevoked -= sent;
    if (w->nrevoked != 0) memmove(w->revoked, w->revoked + sent, w->nrevoked * sizeof(*w->revoked));
    rs_keyd_interest(d, &w->watch, w->nrevoked != 0 ? EPOLLOUT : EPOLLIN);
    return r == 0 || r == RESEAL_EAGAIN;
}

static void work_ready(struct rs_keyd *d, struct rs_watch *watch, uint32_t events)
{
    struct rs_work *w = (struct rs_work *)watch;
    bool keep;
    if (w->nrevoked != 0) {
        keep = (events & (EPOLLHUP | EPOLLERR)) == 0 && flush(d, w);
    } else {
        int r = rs_msg_recv(watch->fd, d->msg, MSG_DONTWAIT);
        keep = r == RESEAL_EAGAIN || (r == 0 && answer(d, w));
        if (r == 0) rs_msg_close_fds(d->msg);
    }
    if (!keep) rs_sessions_drop(d, w);
}

void rs_sessions_add(struct rs_keyd *d, int fd)
{
    struct rs_work *w = calloc(1, sizeof(*w));
    if (w == NULL) {
        rs_cleanup_close(&fd);
        return;
    }
    w->watch = (struct rs_watch){.fd = fd, .ready = work_ready};
    w->next = d->works;
    d->works = w;
    if (rs_keyd_watch(d, &w->watch) != 0) rs_sessions_drop(d, w);
}

void rs_sessions_drop(struct rs_keyd *d, struct rs_work *w)
{
    struct rs_work **at = &d->works;
    while (*at != w) at = &(*at)->next;
    *at = w->next;
    rs_uses_work_gone(d, w);
    rs_keyd_unwatch(d, &w->watch);
    free(w->revoked);
    free(w);
}

void rs_sessions_revoked(struct rs_keyd *d, reseal_key id)
{
    struct rs_work *next;
    for (struct rs_work *w = d->works; w != NULL; w = next) {
        next = w->next;
        if (w->nrevoked == w->room) {
            size_t room = w->room != 0 ? 2 * w->room : 64;
            reseal_key *more = reallocarray(w->revoked, room, sizeof(*more));
            if (more ==
                NULL) { /* it must not go on with a key that was revoked: without its pair it restarts */
                rs_sessions_drop(d, w);
                continue;
            }
            w->revoked = more;
            w->room = room;
        }
        w->revoked[w->nrevoked++] = id;
        if (!flush(d, w)) rs_sessions_drop(d, w);
    }
}
