/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/service/server.h"

#include "offload/base/foreign.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

/* The protocol's own answer to a message: reply at once, without notes. */
static int reply(struct rs_client *c, uint16_t type, int status, const void *body, size_t len, int fd)
{
    if (status != 0) len = 0;
    return rs_msg_send(c->fd, type | RS_MSG_REPLY, status, body, len, &fd, status == 0 && fd >= 0 ? 1 : 0,
                       MSG_DONTWAIT);
}

/* ---- hello, status -------------------------------------------------------------- */

static int hello(struct rs_server *s, struct rs_client *c, const struct rs_msg_hello *m)
{
    if (c->welcomed || memchr(m->tenant, 0, sizeof(m->tenant)) == NULL) return RESEAL_EPROTO;
    if (m->min_version > RS_MSG_VERSION || m->max_version < RS_MSG_VERSION) {
        /* Told, not cut off: it can say which versions it would need. The connection ends after it. */
        int e = reply(c, RS_MSG_HELLO, RESEAL_EVERSION, NULL, 0, -1);
        return e != 0 ? e : RESEAL_EVERSION;
    }
    memcpy(c->tenant_asked, m->tenant, sizeof(c->tenant_asked));
    struct rs_msg_welcome welcome = {
        .version = RS_MSG_VERSION,
        .max_depth = RS_DEPTH_MAX,
        .max_arena = RS_MEMORY_MAX,
        .max_queues = RS_QUEUES_MAX,
        .max_sessions = RS_SESSIONS_MAX,
        .client = c->number,
    };
    memcpy(welcome.instance, s->instance, sizeof(welcome.instance));
    c->welcomed = true;
    return reply(c, RS_MSG_HELLO, 0, &welcome, sizeof(welcome), -1);
}

static int status(struct rs_server *s, struct rs_client *c)
{
    int fd = rs_status_fd(s, c);
    int e = reply(c, RS_MSG_STATUS, fd < 0 ? fd : 0, NULL, 0, fd);
    rs_cleanup_close(&fd);
    return e;
}

/* ---- sessions --------------------------------------------------------------------- */

static int session_open(struct rs_server *s, struct rs_client *c, const struct rs_msg_transform *m)
{
    c->op.status = rs_session_open(s, c, m);
    if (c->op.status == 0) {
        struct rs_msg_session body = {.session = c->op.session->handle};
        memcpy(c->op.body, &body, sizeof(body));
        c->op.length = sizeof(body);
    }
    return 0;
}

static int session_close(struct rs_server *s, struct rs_client *c, const struct rs_msg_session *m)
{
    struct rs_session *session = m->reserved == 0 ? rs_session_find(c, m->session) : NULL;
    if (session == NULL)
        c->op.status = RESEAL_EINVAL;
    else
        rs_session_end(s, c, session, RESEAL_ECANCELED, true);
    return 0;
}

/* ---- queues ----------------------------------------------------------------------- */

/* The worker with the fewest queues; in turn among equals. */
unsigned rs_queue_worker(struct rs_server *s, const struct rs_client *c)
{
    if (c->seats[c->home] != NULL && c->seat_queues[c->home] == 0) return c->home;
    unsigned best = s->turn++ % s->nworkers;
    for (unsigned i = 0; i < s->nworkers; i++)
        if (s->worker_queues[i] < s->worker_queues[best]) best = i;
    return best;
}

/* Bytes that this client may still get: of its own share, and of its user's. */
static uint64_t memory_left(const struct rs_server *s, const struct rs_client *c)
{
    uint64_t user = 0;
    for (unsigned i = 0; i < RS_CLIENTS_MAX; i++)
        if (s->clients[i] != NULL && s->clients[i]->uid == c->uid) user += s->clients[i]->memory;
    uint64_t left = user < s->memory_user ? s->memory_user - user : 0;
    return RS_MIN(left, c->memory < RS_MEMORY_MAX ? RS_MEMORY_MAX - c->memory : 0);
}

static int free_place(const struct rs_client *c)
{
    for (int i = 0; i < (int)RS_QUEUES_MAX; i++)
        if (c->queues[i] == NULL) return i;
    return -1;
}

void rs_queue_enter(struct rs_server *s, struct rs_client *c, struct rs_queue *q, uint32_t place, unsigned w)
{
    q->number = place + 1;
    q->worker = w;
    q->uid = c->uid;
    q->seat = c->seats[w];
    c->memory += q->ring.total;
    c->queues[place] = q;
    c->seat_queues[w]++;
    s->worker_queues[w]++;
    if (!q->huge) atomic_fetch_add_explicit(&s->small_pages, 1, memory_order_relaxed);
}

/* Queues of one user: nobody takes all the places that workers have. */
static unsigned queues_of(const struct rs_server *s, uint32_t uid)
{
    unsigned n = 0;
    for (unsigned i = 0; i < RS_CLIENTS_MAX; i++) {
        if (s->clients[i] == NULL || s->clients[i]->uid != uid) continue;
        for (unsigned w = 0; w < s->nworkers; w++) n += s->clients[i]->seat_queues[w];
    }
    return n;
}

/* As rs_queue_make(), within what the client may have: a memfd that it brings has the size it has. */
static int make_within(struct rs_queue **out, const struct rs_server *s, const struct rs_client *c,
                       const struct rs_msg_queue *m, int memfd, int *peer)
{
    uint64_t left = memory_left(s, c);
    int e = rs_queue_make(out, memfd, m->depth, m->arena, peer);
    if (e != 0 || (*out)->ring.total <= left) return e;
    rs_queue_free(*out);
    rs_cleanup_close(peer);
    return RESEAL_ELIMIT;
}

/* Makes the queue and starts giving it to a worker, on the memfd that was given (-1: a new one) and is taken.
 */
static int queue_add(struct rs_server *s, struct rs_client *c, const struct rs_msg_queue *m, int *given)
{
    int place = free_place(c), peer = -1, memfd = *given;
    if (m->queue != 0 || m->total != 0 || place < 0) return place < 0 ? RESEAL_ELIMIT : RESEAL_EINVAL;
    if (m->arena > memory_left(s, c) || queues_of(s, c->uid) >= RS_QUEUES_USER) return RESEAL_ELIMIT;
    unsigned w = rs_queue_worker(s, c);
    int e = rs_session_seat(s, c, w);
    if (e != 0 && w != c->home && c->seats[c->home] != NULL) {
        /* A key of one of its sessions is gone, so that worker cannot have it: where it is already, it stays.
         */
        w = c->home;
        e = rs_session_seat(s, c, w);
    }
    if (e != 0) return e;
    struct rs_note *note = rs_note_new(c, w, RS_NOTE_QUEUE_ADD);
    if (note == NULL) return RESEAL_ENOMEM;
    *given = -1;
    e = make_within(&note->queue, s, c, m, memfd, &peer);
    if (e != 0) {
        free(note);
        return e;
    }
    struct rs_queue *q = note->queue;
    rs_queue_enter(s, c, q, (uint32_t)place, w);
    struct rs_msg_queue body = {.queue = q->number,
                                .depth = m->depth,
                                .arena = q->ring.data_len - q->ring.arena_offset,
                                .total = q->ring.total};
    memcpy(c->op.body, &body, sizeof(body));
    c->op.length = sizeof(body);
    c->op.queue = q;
    c->op.fds[0] = memfd < 0 ? q->memfd : peer;
    c->op.fds[1] = peer;
    c->op.nfds = memfd < 0 ? 2 : 1;
    c->op.peer = peer;
    rs_note_send(s, c, note, true);
    return 0;
}

void rs_queue_drop(struct rs_server *s, struct rs_client *c, struct rs_queue *q)
{
    uint32_t place = q->number - 1;
    c->memory -= q->ring.total;
    for (unsigned i = 1; i < RS_REGION_MAX; i++) {
        c->memory -= q->regions[i].len;
        if (c->region_fds[place][i] > 0) rs_foreign_close(&c->region_fds[place][i], c->uid);
        c->region_fds[place][i] = 0;
    }
    c->seat_queues[q->worker]--;
    s->worker_queues[q->worker]--;
    c->queues[place] = NULL;
    rs_queue_free(q);
}

static struct rs_queue *queue_find(struct rs_client *c, uint32_t number)
{
    return number >= 1 && number <= RS_QUEUES_MAX ? c->queues[number - 1] : NULL;
}

static int queue_close(struct rs_server *s, struct rs_client *c, const struct rs_msg_queue *m)
{
    struct rs_queue *q = queue_find(c, m->queue);
    struct rs_note *note = q != NULL ? rs_note_new(c, q->worker, RS_NOTE_QUEUE_CLOSE) : NULL;
    if (note == NULL) {
        c->op.status = q != NULL ? RESEAL_ENOMEM : RESEAL_EINVAL;
        return 0;
    }
    note->queue = q;
    c->op.queue = q;
    rs_note_send(s, c, note, true);
    return 0;
}

/* ---- regions ------------------------------------------------------------------------ */

static int region_place(const struct rs_queue *q, uint32_t wanted)
{
    if (wanted != 0) return wanted < RS_REGION_MAX && q->claimed[wanted] == 0 ? (int)wanted : RESEAL_EINVAL;
    for (int i = 1; i < (int)RS_REGION_MAX; i++)
        if (q->claimed[i] == 0) return i;
    return RESEAL_ELIMIT;
}

static int region_add(struct rs_server *s, struct rs_client *c, const struct rs_msg_region *m, int *memfd)
{
    struct rs_region region;
    struct rs_queue *q = queue_find(c, m->queue);
    int place = q != NULL ? region_place(q, m->region) : RESEAL_EINVAL;
    if (place < 0) return place;
    uint64_t left = memory_left(s, c);
    if (m->len > left) return RESEAL_ELIMIT;
    struct rs_note *note = rs_note_new(c, q->worker, RS_NOTE_REGION_ADD);
    if (note == NULL) return RESEAL_ENOMEM;
    int e = rs_region_map(*memfd, RS_MIN(left, RS_REGION_BYTES_MAX), &region);
    if (e == 0 && region.len != m->len) {
        munmap(region.base, region.len);
        e = RESEAL_EINVAL;
    }
    if (e != 0) {
        free(note);
        return e;
    }
    q->claimed[place] = 1;
    c->memory += region.len;
    c->region_fds[q->number - 1][place] = *memfd;
    *memfd = -1;
    note->queue = q;
    note->slot = (uint32_t)place;
    note->base = region.base;
    note->len = region.len;
    struct rs_msg_region body = {.queue = q->number, .region = (uint32_t)place, .len = region.len};
    memcpy(c->op.body, &body, sizeof(body));
    c->op.length = sizeof(body);
    rs_note_send(s, c, note, true);
    return 0;
}

/* ---- all requests ------------------------------------------------------------------- */

static const struct request {
    uint16_t type;
    uint16_t length;
    uint8_t fds;
} requests[] = {
    {RS_MSG_HELLO, sizeof(struct rs_msg_hello), 0},
    {RS_MSG_STATUS, 0, 0},
    {RS_MSG_SESSION_OPEN, sizeof(struct rs_msg_transform), 0},
    {RS_MSG_SESSION_CLOSE, sizeof(struct rs_msg_session), 0},
    {RS_MSG_QUEUE_OPEN, sizeof(struct rs_msg_queue), 0},
    {RS_MSG_QUEUE_ATTACH, sizeof(struct rs_msg_queue), 1},
    {RS_MSG_QUEUE_CLOSE, sizeof(struct rs_msg_queue), 0},
    {RS_MSG_REGION_ADD, sizeof(struct rs_msg_region), 1},
};

static bool well_formed(const struct rs_client *c, const struct rs_msg *msg)
{
    for (size_t i = 0; i < RS_ARRAY_LEN(requests); i++) {
        const struct request *r = &requests[i];
        if (r->type != msg->header.type) continue;
        if (r->length != msg->header.length || r->fds != msg->nfds || msg->header.status != 0) return false;
        return r->type == RS_MSG_HELLO || (c->welcomed && msg->header.version == RS_MSG_VERSION);
    }
    return false;
}

static int start(struct rs_server *s, struct rs_client *c, struct rs_msg *msg)
{
    const void *body = msg->body;
    int none = -1;
    switch (msg->header.type) {
    case RS_MSG_SESSION_OPEN:
        return session_open(s, c, body);
    case RS_MSG_SESSION_CLOSE:
        return session_close(s, c, body);
    case RS_MSG_QUEUE_OPEN:
        c->op.status = queue_add(s, c, body, &none);
        return 0;
    case RS_MSG_QUEUE_ATTACH:
        c->op.status = queue_add(s, c, body, &msg->fds[0]);
        return 0;
    case RS_MSG_QUEUE_CLOSE:
        return queue_close(s, c, body);
    default:
        c->op.status = region_add(s, c, body, &msg->fds[0]);
        return 0;
    }
}

int rs_request(struct rs_server *s, struct rs_client *c, struct rs_msg *msg)
{
    if (!well_formed(c, msg)) return RESEAL_EPROTO;
    if (msg->header.type == RS_MSG_HELLO) return hello(s, c, (const void *)msg->body);
    if (msg->header.type == RS_MSG_STATUS) return status(s, c);
    c->op = (struct rs_operation){.type = msg->header.type, .peer = -1};
    int e = start(s, c, msg);
    if (e == 0) rs_operation_settle(s, c);
    return e;
}

/* A request failed after its first notes were out. */
static void undo(struct rs_server *s, struct rs_client *c)
{
    if (c->op.type == RS_MSG_QUEUE_OPEN || c->op.type == RS_MSG_QUEUE_ATTACH)
        if (c->op.queue != NULL) rs_queue_drop(s, c, c->op.queue);
}

void rs_request_finish(struct rs_server *s, struct rs_client *c)
{
    struct rs_operation *op = &c->op;
    if (op->status != 0) undo(s, c);
    if (op->status == 0 && op->type == RS_MSG_QUEUE_CLOSE) rs_queue_drop(s, c, op->queue);
    uint16_t type = op->type;
    bool ok = op->status == 0;
    int e = rs_msg_send(c->fd, type | RS_MSG_REPLY, op->status, op->body, ok ? op->length : 0, op->fds,
                        ok ? op->nfds : 0, MSG_DONTWAIT);
    rs_cleanup_close(&op->peer);
    c->op = (struct rs_operation){.peer = -1};
    rs_client_watch(s, c, true);
    if (e != 0) rs_client_end(s, c);
}
