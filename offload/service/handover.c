/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/service/handover.h"

#include "offload/base/clock.h"
#include "offload/service/internal.h"

#include <poll.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define STATE_VERSION 1u
#define QUIET_MS      20000 /* for requests under way, and for each job that runs, to end */
#define PEER_S        30    /* for each message of the other side */

static void set_patience(int fd)
{
    struct timeval limit = {.tv_sec = PEER_S};
    if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) != 0) return;
    if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) != 0) return;
}

/* ---- the old process: come to rest ---------------------------------------------------- */

static bool at_rest(const struct rs_server *s)
{
    for (unsigned i = 0; i < RS_CLIENTS_MAX; i++) {
        const struct rs_client *c = s->clients[i];
        if (c != NULL && (c->ending || c->notes != 0 || c->op.type != 0)) return false;
    }
    return true;
}

/* Lets workers give back what they have; requests are not read meanwhile. After the deadline it looks once
 * more: it may be this process that did not run for so long. */
static int await(struct rs_server *s, bool (*done)(const struct rs_server *))
{
    uint64_t deadline = rs_now_ns() + QUIET_MS * 1000000ull;
    bool late = false;
    while (!done(s)) {
        if (late) return RESEAL_EBUSY;
        uint64_t now = rs_now_ns();
        late = now >= deadline;
        int e = rs_server_step(s, late ? 0 : (int)((deadline - now) / 1000000u) + 1);
        if (e != 0) return e;
    }
    return 0;
}

static bool all_paused(const struct rs_server *s)
{
    return s->paused == s->nworkers;
}

static int come_to_rest(struct rs_server *s)
{
    s->handing_over = true;
    rs_server_listen(s, false);
    int e = await(s, at_rest);
    s->paused = 0;
    if (e == 0) e = rs_workers_tell(s, RS_NOTE_PAUSE);
    return e == 0 ? await(s, all_paused) : e;
}

static void go_on(struct rs_server *s)
{
    /* A worker that was not paused ignores it. Without memory for the notes there is no going on. */
    if (rs_workers_tell(s, RS_NOTE_RESUME) != 0) abort();
    s->handing_over = false;
    rs_server_listen(s, true);
    for (unsigned i = 0; i < RS_CLIENTS_MAX; i++)
        if (s->clients[i] != NULL) rs_client_watch(s, s->clients[i], true);
}

/* ---- the old process: give -------------------------------------------------------------- */

/* The waiting jobs of a queue in a memfd; -1 when there are none. */
static int tickets_fd(const struct rs_queue *q, int *out)
{
    *out = -1;
    if (q->waiting == 0) return 0;
    RS_CLOSE int fd = memfd_create("reseal-jobs", MFD_CLOEXEC);
    if (fd < 0) return RESEAL_ENOMEM;
    for (uint32_t i = 0; i < q->waiting; i++) {
        const struct rs_ticket *t = &q->tickets[(q->first + i) & (q->ring.depth - 1)];
        struct rs_ticket_state state = {.sqe = t->sqe,
                                        .source = t->source,
                                        .destination = t->destination,
                                        .status = t->status,
                                        .runs = t->binding != NULL};
        if (rs_pwrite_full(fd, &state, sizeof(state), (uint64_t)i * sizeof(state)) != 0) return RESEAL_ENOMEM;
    }
    *out = fd;
    fd = -1;
    return 0;
}

static int give_queue(const struct rs_client *c, const struct rs_queue *q, int fd)
{
    int jobs;
    struct rs_msg_queue_state state = {.number = q->number,
                                       .depth = q->ring.depth,
                                       .sq_index = q->sq.index,
                                       .cq_index = q->cq.index,
                                       .waiting = q->waiting};
    int e = tickets_fd(q, &jobs);
    if (e != 0) return e;
    int fds[3] = {q->memfd, q->wake, jobs};
    e = rs_msg_send(fd, RS_MSG_QUEUE, 0, &state, sizeof(state), fds, jobs >= 0 ? 3 : 2, 0);
    rs_cleanup_close(&jobs);
    for (uint32_t i = 1; e == 0 && i < RS_REGION_MAX; i++) {
        if (q->regions[i].len == 0) continue;
        struct rs_msg_region region = {.queue = q->number, .region = i, .len = q->regions[i].len};
        e = rs_msg_send(fd, RS_MSG_REGION, 0, &region, sizeof(region), &c->region_fds[q->number - 1][i], 1,
                        0);
    }
    return e;
}

static int give_client(const struct rs_client *c, int fd)
{
    struct rs_msg_client state = {
        .number = c->number, .uid = c->uid, .gid = c->gid, .pid = c->pid, .welcomed = c->welcomed};
    memcpy(state.tenant, c->tenant_asked, sizeof(state.tenant));
    _Static_assert(sizeof(state.generations) == sizeof(c->generations), "one for each slot");
    memcpy(state.generations, c->generations, sizeof(state.generations));
    int e = rs_msg_send(fd, RS_MSG_CLIENT, 0, &state, sizeof(state), &c->fd, 1, 0);
    for (unsigned i = 0; e == 0 && i < RS_SESSIONS_MAX; i++) {
        if (c->sessions[i] == NULL || c->sessions[i]->ending) continue;
        struct rs_msg_session_state session = {
            .handle = c->sessions[i]->handle, .use = c->sessions[i]->use, .asked = c->sessions[i]->asked};
        e = rs_msg_send(fd, RS_MSG_SESSION, 0, &session, sizeof(session), NULL, 0, 0);
    }
    for (unsigned i = 0; e == 0 && i < RS_QUEUES_MAX; i++)
        if (c->queues[i] != NULL) e = give_queue(c, c->queues[i], fd);
    return e;
}

static int give_all(struct rs_server *s, int fd)
{
    struct rs_msg_state state = {.version = STATE_VERSION, .next_client = s->next_client};
    memcpy(state.instance, s->instance, sizeof(state.instance));
    int e = rs_msg_send(fd, RS_MSG_STATE, 0, &state, sizeof(state), NULL, 0, 0);
    for (unsigned i = 0; e == 0 && i < RS_CLIENTS_MAX; i++)
        if (s->clients[i] != NULL) e = give_client(s->clients[i], fd);
    if (e == 0) e = rs_msg_call(fd, RS_MSG_END, NULL, 0, NULL, 0, NULL, 0, NULL, 0);
    /* The point of no return: sent or not, exactly one of us goes on. */
    return e == 0 ? rs_msg_send(fd, RS_MSG_COMMIT, 0, NULL, 0, NULL, 0, 0) : e;
}

void rs_handover_give(struct rs_server *s, int fd)
{
    RS_CLOSE int peer = fd;
    set_patience(peer);
    int e = come_to_rest(s);
    if (e == 0) e = give_all(s, peer);
    s->handed_over = s->stop = e == 0;
    if (e != 0) go_on(s);
    /* A supervisor that is gone has ended us already. */
    if (rs_msg_send(s->supervisor, RS_MSG_HANDED_OVER, e, NULL, 0, NULL, 0, MSG_DONTWAIT) != 0) return;
}

/* ---- the new process: take ---------------------------------------------------------------- */

static int take_client(struct rs_server *s, struct rs_msg *msg, struct rs_client **out)
{
    const struct rs_msg_client *m = (const void *)msg->body;
    if (msg->header.length != sizeof(*m) || msg->nfds != 1) return RESEAL_EPROTO;
    /* Who it is, the kernel says again. */
    *out = rs_client_add(s, rs_msg_take_fd(msg, 0));
    if (*out == NULL) return RESEAL_ELIMIT;
    (*out)->number = m->number;
    (*out)->welcomed = m->welcomed != 0;
    memcpy((*out)->generations, m->generations, sizeof(m->generations));
    memcpy((*out)->tenant_asked, m->tenant, sizeof(m->tenant));
    (*out)->tenant_asked[sizeof(m->tenant) - 1] = 0;
    return 0;
}

static int take_session(struct rs_server *s, const struct rs_msg *msg, struct rs_client *c)
{
    const struct rs_msg_session_state *m = (const void *)msg->body;
    if (msg->header.length != sizeof(*m) || c == NULL) return RESEAL_EPROTO;
    int e = rs_session_restore(s, c, m->handle, m->use, &m->asked);
    /* A key that went away meanwhile ends its session, not the take-over; its jobs will say so. */
    return e == RESEAL_EPROTO || e == RESEAL_ENOMEM || e == RESEAL_ENOSERVICE ? e : 0;
}

/* A job that waited: it is bound to the session's new keys, or completes with why it cannot be. */
static void take_ticket(struct rs_client *c, struct rs_queue *q, const struct rs_ticket_state *state)
{
    struct rs_ticket *t = &q->tickets[q->waiting++];
    *t = (struct rs_ticket){.sqe = state->sqe,
                            .source = state->source,
                            .destination = state->destination,
                            .status = state->status};
    if (state->runs == 0) return;
    struct rs_session *session = rs_session_find(c, t->sqe.session);
    if (session == NULL || session->bindings[q->worker] == NULL)
        t->status = RESEAL_EREVOKED;
    else if (rs_check_needs_aux(&session->config) && rs_check_aux(t->sqe.aux, &q->regions[0]) != 0)
        t->status = RESEAL_EINVAL;
    else
        t->binding = session->bindings[q->worker];
}

static int take_tickets(struct rs_client *c, struct rs_queue *q, uint32_t count, int fd)
{
    for (uint32_t i = 0; i < count; i++) {
        struct rs_ticket_state state;
        if (rs_pread_full(fd, &state, sizeof(state), (uint64_t)i * sizeof(state)) != 0) return RESEAL_EPROTO;
        take_ticket(c, q, &state);
    }
    return 0;
}

static int take_queue(struct rs_server *s, struct rs_msg *msg, struct rs_client *c, struct rs_queue **out)
{
    struct rs_msg_queue_state m;
    if (msg->header.length != sizeof(m) || c == NULL || msg->nfds < 2) return RESEAL_EPROTO;
    memcpy(&m, msg->body, sizeof(m));
    if (m.number < 1 || m.number > RS_QUEUES_MAX || c->queues[m.number - 1] != NULL) return RESEAL_EPROTO;
    unsigned w = rs_queue_worker(s, c);
    int e = rs_session_seat(s, c, w);
    if (e != 0) return e;
    e = rs_queue_adopt(out, rs_msg_take_fd(msg, 0), rs_msg_take_fd(msg, 1), m.depth, m.sq_index, m.cq_index);
    if (e != 0) return e;
    rs_queue_enter(s, c, *out, m.number - 1, w);
    if (m.waiting == 0) return 0;
    return m.waiting <= m.depth && msg->nfds == 3 ? take_tickets(c, *out, m.waiting, msg->fds[2])
                                                  : RESEAL_EPROTO;
}

static int take_region(struct rs_msg *msg, struct rs_client *c, struct rs_queue *q)
{
    struct rs_region region;
    const struct rs_msg_region *m = (const void *)msg->body;
    if (msg->header.length != sizeof(*m) || q == NULL || msg->nfds != 1) return RESEAL_EPROTO;
    if (m->region < 1 || m->region >= RS_REGION_MAX || q->claimed[m->region] != 0) return RESEAL_EPROTO;
    int e = rs_region_map(msg->fds[0], RS_REGION_BYTES_MAX, &region);
    if (e != 0) return e;
    q->claimed[m->region] = 1;
    q->regions[m->region] = q->guarded[m->region] = region;
    c->memory += region.len;
    c->region_fds[q->number - 1][m->region] = rs_msg_take_fd(msg, 0);
    return 0;
}

static int take_state(struct rs_server *s, const struct rs_msg *msg)
{
    const struct rs_msg_state *m = (const void *)msg->body;
    if (msg->header.length != sizeof(*m) || m->version != STATE_VERSION) return RESEAL_EVERSION;
    s->next_client = m->next_client;
    memcpy(s->instance, m->instance, sizeof(s->instance));
    return 0;
}

/* One message after the other until END. */
static int take_all(struct rs_server *s, int fd)
{
    struct rs_msg msg;
    struct rs_client *c = NULL;
    struct rs_queue *q = NULL;
    for (;;) {
        int e = rs_msg_recv(fd, &msg, 0);
        if (e != 0) return e;
        uint16_t type = msg.header.type;
        if (type == RS_MSG_STATE)
            e = take_state(s, &msg);
        else if (type == RS_MSG_CLIENT)
            e = take_client(s, &msg, &c);
        else if (type == RS_MSG_SESSION)
            e = take_session(s, &msg, c);
        else if (type == RS_MSG_QUEUE)
            e = take_queue(s, &msg, c, &q);
        else if (type == RS_MSG_REGION)
            e = take_region(&msg, c, q);
        else if (type != RS_MSG_END)
            e = RESEAL_EPROTO;
        rs_msg_close_fds(&msg);
        if (e != 0 || type == RS_MSG_END) return e;
    }
}

/* From here on the queues are ours: their workers get them. */
static int serve_queues(struct rs_server *s)
{
    for (unsigned i = 0; i < RS_CLIENTS_MAX; i++) {
        struct rs_client *c = s->clients[i];
        for (unsigned n = 0; c != NULL && n < RS_QUEUES_MAX; n++) {
            if (c->queues[n] == NULL) continue;
            struct rs_note *note = rs_note_new(c, c->queues[n]->worker, RS_NOTE_QUEUE_ADD);
            if (note == NULL) return RESEAL_ENOMEM;
            note->queue = c->queues[n];
            rs_note_send(s, c, note, false);
        }
    }
    return 0;
}

static int take_and_commit(struct rs_server *s, int peer)
{
    struct rs_msg msg;
    int e = take_all(s, peer);
    /* Sessions are bound, or their clients are told, before anybody relies on us. */
    if (e == 0) e = await(s, at_rest);
    if (rs_msg_send(peer, RS_MSG_END | RS_MSG_REPLY, e, NULL, 0, NULL, 0, 0) != 0) return RESEAL_ENOSERVICE;
    /* Until the old process says that it lets go, it may still go on itself. */
    if (e == 0) e = rs_msg_recv(peer, &msg, 0);
    if (e == 0) rs_msg_close_fds(&msg);
    return e == 0 && msg.header.type != RS_MSG_COMMIT ? RESEAL_EPROTO : e;
}

int rs_handover_take(struct rs_server *s, int fd)
{
    RS_CLOSE int peer = fd;
    set_patience(peer);
    s->handing_over = true;
    int e = take_and_commit(s, peer);
    if (e == 0) e = serve_queues(s);
    s->handing_over = false;
    for (unsigned i = 0; i < RS_CLIENTS_MAX; i++)
        if (s->clients[i] != NULL) rs_client_watch(s, s->clients[i], true);
    return e;
}
