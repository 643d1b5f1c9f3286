/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/service/server.h"

#include "offload/base/clock.h"
#include "offload/base/foreign.h"
#include "offload/base/keymem.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#define EVENTS 64

/* ---- notes ------------------------------------------------------------------------ */

struct rs_note *rs_note_new(struct rs_client *c, unsigned worker, enum rs_note_kind kind)
{
    struct rs_note *note = calloc(1, sizeof(*note));
    if (note == NULL) return NULL;
    note->kind = kind;
    note->worker = worker;
    note->client = c;
    note->seat = c != NULL ? c->seats[worker] : NULL;
    return note;
}

void rs_note_send(struct rs_server *s, struct rs_client *c, struct rs_note *note, bool op)
{
    note->op = op;
    if (c != NULL) c->notes++;
    if (op) c->op.notes++;
    rs_mailbox_put(&s->workers[note->worker]->inbox, note);
}

int rs_workers_tell(struct rs_server *s, enum rs_note_kind kind)
{
    for (unsigned w = 0; w < s->nworkers; w++) {
        struct rs_note *note = rs_note_new(NULL, w, kind);
        if (note == NULL) return RESEAL_ENOMEM;
        rs_note_send(s, NULL, note, false);
    }
    return 0;
}

static void note_back(struct rs_server *s, struct rs_note *note)
{
    struct rs_client *c = note->client;
    if (note->kind == RS_NOTE_FAULT) {
        atomic_fetch_add_explicit(&s->client_faults, 1, memory_order_relaxed);
        rs_client_end(s, note->seat->client);
        return;
    }
    if (note->kind == RS_NOTE_SCRATCH) rs_scratch_unmap(note->base, note->len);
    if (note->kind == RS_NOTE_SESSION_END) rs_session_unbound(s, c, note);
    if (note->kind == RS_NOTE_PAUSE) s->paused++;
    if (c == NULL) return;
    c->notes--;
    if (note->op) {
        c->op.notes--;
        if (note->kind == RS_NOTE_QUEUE_ADD && note->status != 0) c->op.status = note->status;
        rs_operation_settle(s, c);
    }
}

static void take_notes(struct rs_server *s)
{
    for (struct rs_note *note = rs_mailbox_take(&s->inbox), *next; note != NULL; note = next) {
        next = note->next;
        note_back(s, note);
        if (note->client != NULL && note->client->ending) rs_client_end(s, note->client);
        free(note);
    }
}

/* ---- clients ----------------------------------------------------------------------- */

void rs_server_listen(struct rs_server *s, bool on)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &s->listen_kind};
    if (s->listen < 0 || on == s->listening) return;
    if (epoll_ctl(s->epoll, on ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, s->listen, &event) == 0) s->listening = on;
}

static unsigned clients_of(const struct rs_server *s, uint32_t uid)
{
    unsigned n = 0;
    for (unsigned i = 0; i < RS_CLIENTS_MAX; i++) n += s->clients[i] != NULL && s->clients[i]->uid == uid;
    return n;
}

static int place_for(const struct rs_server *s)
{
    for (int i = 0; i < (int)RS_CLIENTS_MAX; i++)
        if (s->clients[i] == NULL) return i;
    return -1;
}

struct rs_client *rs_client_add(struct rs_server *s, int fd)
{
    struct ucred cred = {0};
    socklen_t len = sizeof(cred);
    int place = place_for(s);
    struct rs_client *c = NULL;
    bool known = getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0;
    uint32_t uid = cred.uid;
    if (place >= 0 && known && clients_of(s, uid) < RS_CLIENTS_USER && !rs_foreign_is_stuck(uid))
        c = calloc(1, sizeof(*c));
    if (c != NULL) {
        *c = (struct rs_client){.kind = RS_SOURCE_CLIENT, .fd = fd, .op.peer = -1};
        c->uid = cred.uid;
        c->gid = cred.gid;
        c->pid = (uint32_t)cred.pid;
        c->number = ++s->next_client;
        c->home = s->turn++ % s->nworkers;
        c->tenant = rs_tenant_find(s, "");
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        if (c->tenant != NULL && epoll_ctl(s->epoll, EPOLL_CTL_ADD, fd, &event) == 0) {
            s->clients[place] = c;
            s->nclients++;
            atomic_fetch_add_explicit(&s->accepted, 1, memory_order_relaxed);
            return c;
        }
    }
    atomic_fetch_add_explicit(&s->refused, 1, memory_order_relaxed);
    free(c);
    rs_foreign_close(&fd, uid);
    return NULL;
}

static void accept_client(struct rs_server *s)
{
    int fd = accept4(s->listen, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0) {
        rs_client_add(s, fd);
        return;
    }
    /* Out of descriptors: the listening socket would keep us awake until one is free. */
    if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) rs_server_listen(s, false);
}

/* Nobody holds anything of it any more. */
static void client_bury(struct rs_server *s, struct rs_client *c)
{
    for (unsigned i = 0; i < RS_SESSIONS_MAX; i++)
        if (c->sessions[i] != NULL) rs_session_free(s, c, c->sessions[i]);
    for (unsigned i = 0; i < RS_QUEUES_MAX; i++)
        if (c->queues[i] != NULL) rs_queue_drop(s, c, c->queues[i]);
    for (unsigned w = 0; w < s->nworkers; w++) {
        free(c->seats[w]);
        free(c->end_notes[w]);
        c->seats[w] = NULL;
        c->end_notes[w] = NULL;
    }
    for (unsigned i = 0; i < RS_CLIENTS_MAX; i++)
        if (s->clients[i] == c) s->clients[i] = NULL;
    s->nclients--;
    rs_cleanup_close(&c->op.peer);
    c->grave = s->graves;
    s->graves = c;
    rs_server_listen(s, !s->handing_over);
}

void rs_client_end(struct rs_server *s, struct rs_client *c)
{
    if (!c->ending) {
        c->ending = true;
        /* The socket closes now: this is how the client learns it. */
        epoll_ctl(s->epoll, EPOLL_CTL_DEL, c->fd, NULL);
        rs_foreign_close(&c->fd, c->uid);
        for (unsigned w = 0; w < s->nworkers; w++) {
            if (c->seats[w] == NULL) continue;
            /* Reserved when the seat was made, so that an end needs no memory. */
            struct rs_note *note = c->end_notes[w];
            c->end_notes[w] = NULL;
            note->seat = c->seats[w];
            rs_note_send(s, c, note, false);
        }
    }
    if (c->notes == 0 && c->grave == NULL && !c->buried) {
        c->buried = true;
        client_bury(s, c);
    }
}

void rs_operation_settle(struct rs_server *s, struct rs_client *c)
{
    if (c->op.type == 0 || c->op.notes != 0 || c->ending) return;
    rs_request_finish(s, c);
}

static void client_readable(struct rs_server *s, struct rs_client *c)
{
    /* One request at a time: the next is read when this one is answered. */
    if (c->ending) return;
    if (c->op.type != 0 || s->handing_over) {
        rs_client_watch(s, c, false);
        return;
    }
    int e = rs_foreign_is_stuck(c->uid)
                ? RESEAL_EPROTO
                : rs_msg_recv_from(c->fd, &s->msg, MSG_DONTWAIT, rs_foreign_drop, c->uid);
    if (e == RESEAL_EAGAIN) return;
    if (e == 0) {
        e = rs_request(s, c, &s->msg);
        rs_msg_drop_fds(&s->msg, rs_foreign_drop, c->uid);
    }
    if (e == RESEAL_EPROTO) atomic_fetch_add_explicit(&s->protocol_errors, 1, memory_order_relaxed);
    if (e != 0) rs_client_end(s, c);
}

void rs_client_watch(struct rs_server *s, struct rs_client *c, bool on)
{
    if (c->ending || on == !c->deaf) return;
    /* An end of file is always reported, so a client that dies while its request waits is seen. */
    struct epoll_event event = {.events = on ? EPOLLIN : EPOLLRDHUP, .data.ptr = c};
    if (epoll_ctl(s->epoll, EPOLL_CTL_MOD, c->fd, &event) == 0) c->deaf = !on;
}

/* ---- the loop ----------------------------------------------------------------------- */

static void revocations(struct rs_server *s)
{
    for (unsigned i = 0; i < s->keys.nrevoked; i++) rs_session_revoke(s, &s->keys.revoked[i]);
    s->keys.nrevoked = 0;
}

static void keyd_readable(struct rs_server *s)
{
    /* When reseal-keyd is gone, its descriptor is closed and so leaves the epoll set; another will come. */
    if (rs_keylink_read(&s->keys) != 0) return;
}

static void one_event(struct rs_server *s, const struct epoll_event *event)
{
    enum rs_source_kind *kind = event->data.ptr;
    switch (*kind) {
    case RS_SOURCE_LISTEN:
        accept_client(s);
        break;
    case RS_SOURCE_NOTES:
        break;
    case RS_SOURCE_KEYD:
        keyd_readable(s);
        break;
    case RS_SOURCE_SUPERVISOR:
        s->supervised(s);
        break;
    case RS_SOURCE_CLIENT: {
        struct rs_client *c = event->data.ptr;
        if (!c->ending && c->op.type != 0 && (event->events & (EPOLLHUP | EPOLLRDHUP | EPOLLERR)) != 0)
            rs_client_end(s, c);
        else
            client_readable(s, c);
        break;
    }
    }
}

int rs_server_step(struct rs_server *s, int timeout_ms)
{
    struct epoll_event events[EVENTS];
    rs_mailbox_sleep(&s->inbox);
    bool quiet = rs_mailbox_empty(&s->inbox);
    int n = epoll_wait(s->epoll, events, EVENTS, quiet ? timeout_ms : 0);
    bool failed = n < 0 && errno != EINTR; /* a stop and continue interrupts, too */
    rs_mailbox_awake(&s->inbox, true);
    if (failed) return RESEAL_EIO;
    take_notes(s);
    for (int i = 0; i < n; i++) one_event(s, &events[i]);
    revocations(s);
    rs_keylink_tell(&s->keys, true);
    if (s->need_keyd && s->ask_keyd != NULL) s->ask_keyd(s);
    s->need_keyd = false;
    while (s->graves != NULL) {
        struct rs_client *c = s->graves;
        s->graves = c->grave;
        free(c);
    }
    return 0;
}

/* ---- life ---------------------------------------------------------------------------- */

int rs_server_watch(struct rs_server *s, int fd, enum rs_source_kind *kind)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = kind};
    if (fd < 0) return 0;
    return epoll_ctl(s->epoll, EPOLL_CTL_ADD, fd, &event) == 0 ? 0 : RESEAL_EIO;
}

void rs_server_keyd(struct rs_server *s, int fd)
{
    rs_keylink_replace(&s->keys, fd);
    rs_session_unknown(s);
    if (rs_server_watch(s, fd, &s->keyd_kind) != 0) rs_keylink_replace(&s->keys, -1);
}

static int start_workers(struct rs_server *s, const struct rs_server_options *options)
{
    unsigned n = RS_MIN(options->ncpus, RS_WORKERS_MAX);
    s->workers = calloc(RS_WORKERS_MAX, sizeof(struct rs_worker *));
    for (unsigned i = 0; s->workers != NULL && i < n; i++) {
        struct rs_worker *w = aligned_alloc(64, rs_round_up(sizeof(*w), 64));
        if (w == NULL) return RESEAL_ENOMEM;
        memset(w, 0, sizeof(*w));
        int e = rs_worker_start(w, i, options->cpus[i], &s->inbox);
        if (e != 0) {
            free(w);
            return e;
        }
        s->workers[s->nworkers++] = w;
    }
    return s->nworkers != 0 ? 0 : RESEAL_ENOMEM;
}

/* A user's share: at most half of this machine. */
static uint64_t memory_of_a_user(void)
{
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    if (pages <= 0 || page <= 0) return RS_MEMORY_MAX;
    return RS_MIN(RS_MEMORY_USER, (uint64_t)pages * (uint64_t)page / 2);
}

int rs_server_open(struct rs_server *s, const struct rs_server_options *options)
{
    s->listen = options->listen;
    s->supervisor = options->supervisor;
    s->listen_kind = RS_SOURCE_LISTEN;
    s->notes_kind = RS_SOURCE_NOTES;
    s->keyd_kind = RS_SOURCE_KEYD;
    s->supervisor_kind = RS_SOURCE_SUPERVISOR;
    s->scratch_locked = true;
    s->started_ns = rs_now_ns();
    s->memory_user = memory_of_a_user();
    s->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (s->epoll < 0) return RESEAL_EIO;
    int e = rs_mailbox_init(&s->inbox);
    if (e == 0) e = rs_keylink_open(&s->keys, options->keyd);
    if (e == 0) e = rs_server_watch(s, s->inbox.event, &s->notes_kind);
    if (e == 0) e = rs_server_watch(s, options->keyd, &s->keyd_kind);
    if (e == 0) e = rs_server_watch(s, options->supervisor, &s->supervisor_kind);
    if (e == 0 && getrandom(s->instance, sizeof(s->instance), 0) != sizeof(s->instance)) e = RESEAL_EIO;
    return e == 0 ? start_workers(s, options) : e;
}

void rs_server_close(struct rs_server *s)
{
    rs_server_listen(s, false);
    s->handing_over = true;
    /* Without memory for the notes, waiting jobs are left to what the client does when a service dies. */
    bool drained = rs_workers_tell(s, RS_NOTE_DRAIN) == 0;
    (void)drained;
    for (unsigned i = 0; i < RS_CLIENTS_MAX; i++)
        if (s->clients[i] != NULL) rs_client_end(s, s->clients[i]);
    while (s->nclients != 0 && rs_server_step(s, -1) == 0) continue;
    for (unsigned i = 0; i < s->nworkers; i++) {
        struct rs_worker *w = s->workers[i];
        rs_worker_stop(w);
        rs_scratch_unmap(w->scratch, w->scratch_len);
        free(w);
    }
    free(s->workers);
    s->nworkers = 0;
    take_notes(s);
    for (unsigned left = s->keys.nended + 1; s->keys.nended != 0 && s->keys.nended < left;) {
        left = s->keys.nended;
        rs_keylink_tell(&s->keys, false);
    }
    rs_keylink_close(&s->keys);
    while (s->tenants != NULL) {
        struct rs_tenant *t = s->tenants;
        s->tenants = t->next;
        free(t);
    }
    rs_mailbox_close(&s->inbox);
    rs_cleanup_close(&s->listen);
    rs_cleanup_close(&s->supervisor);
    rs_cleanup_close(&s->epoll);
}
