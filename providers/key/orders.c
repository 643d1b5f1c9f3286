/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/key/keyd.h"

#include "offload/base/clock.h"
#include "offload/base/foreign.h"
#include "offload/base/keymem.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define GRACE_NS UINT64_C(2000000000) /* a child ends itself by its alarm; one that does not is ended */

/* Keys that all connections of a user have. */
static uint32_t keys_of(const struct rs_keyd *d, uint32_t uid)
{
    uint32_t n = 0;
    for (const struct rs_client *c = d->clients; c != NULL; c = c->next)
        if (c->uid == uid) n += c->keys;
    return n;
}

int rs_orders_mint(struct rs_keyd *d, struct rs_client *c, struct rs_key *form,
                   const struct rs_source_yield *y, reseal_key *id)
{
    struct rs_key *key;
    if (c->keys >= c->max_keys || keys_of(d, c->uid) >= RS_KEYD_KEYS_OF_USER) return RESEAL_ELIMIT;
    if (y->key_len > sizeof(y->key)) return RESEAL_EKEYBAD;
    form->len = y->key_len;
    int r = rs_keys_add(&d->keys, form, y->key, &key);
    if (r != 0) return r;
    c->keys++;
    *id = key->id;
    return 0;
}

/* ---- waiting and running -------------------------------------------------------- */

static void order_ready(struct rs_keyd *d, struct rs_watch *w, uint32_t events);

static void close_fds(struct rs_running *o)
{
    for (unsigned i = 0; i < RS_SOURCE_FDS; i++) rs_foreign_close(&o->fds[i], o->client->uid);
}

static int start(struct rs_keyd *d, struct rs_running *o)
{
    /* What wants one descriptor more than the client gave (a header without a pass phrase) gets the first
     * again. */
    int fds[RS_SOURCE_FDS] = {o->fds[0], o->nfds > 1 ? o->fds[1] : o->fds[0]};
    int op = -1, r = rs_nursery_order(&d->nursery, &o->order, fds, rs_source_of(o->order.kind)->nfds, &op);
    close_fds(o);
    if (r != 0) return r;
    o->watch.fd = op;
    o->until_ns = rs_now_ns() + o->order.deadline_s * UINT64_C(1000000000) + GRACE_NS;
    if (rs_keyd_watch(d, &o->watch) == 0) return 0;
    rs_cleanup_close(&o->watch.fd);
    return RESEAL_EIO;
}

static void forget(struct rs_keyd *d, struct rs_running *o)
{
    struct rs_running **at = &d->orders;
    while (*at != o) at = &(*at)->next;
    *at = o->next;
    o->client->order = NULL;
    if (o->pidfd >= 0) (void)syscall(SYS_pidfd_send_signal, o->pidfd, SIGKILL, NULL, 0);
    rs_cleanup_close(&o->pidfd);
    rs_keyd_unwatch(d, &o->watch);
    close_fds(o);
    free(o);
}

/* Replies, forgets the order, and reads the client's next request; a client that does not take the reply
 * goes. */
static void finish(struct rs_keyd *d, struct rs_running *o, int status, const void *body, size_t len, int fd)
{
    struct rs_client *c = o->client;
    uint16_t type = o->type;
    forget(d, o);
    if (rs_keyd_reply(c, type, status, body, len, fd))
        rs_keyd_interest(d, &c->watch, EPOLLIN);
    else
        rs_keyd_drop(d, c);
}

static void start_waiting(struct rs_keyd *d)
{
    struct rs_running *o = d->orders;
    while (o != NULL) {
        if (o->watch.fd >= 0 || !rs_tasks_may_start(d, o->client->uid, RS_TASK_CLOSED)) {
            o = o->next;
            continue;
        }
        int r = start(d, o);
        if (r != 0) finish(d, o, r, NULL, 0, -1);
        o = r != 0 ? d->orders : o->next; /* finish() may have dropped others of the list */
    }
}

void rs_orders_add(struct rs_keyd *d, struct rs_running *o)
{
    struct rs_running **at = &d->orders;
    while (*at != NULL) at = &(*at)->next;
    *at = o;
    o->watch = (struct rs_watch){.fd = -1, .ready = order_ready};
    o->pidfd = -1;
    o->client->order = o;
    rs_keyd_interest(d, &o->client->watch, 0);
}

void rs_orders_cancel(struct rs_keyd *d, struct rs_client *c)
{
    if (c->order != NULL) forget(d, c->order);
}

int rs_orders_tick(struct rs_keyd *d)
{
    uint64_t now = rs_now_ns();
    start_waiting(d);
    for (struct rs_running *o = d->orders; o != NULL; o = o->next) {
        if (o->watch.fd < 0 || now < o->until_ns) continue;
        finish(d, o, RESEAL_ETIMEDOUT, NULL, 0, -1);
        return 0;
    }
    return d->orders != NULL ? 1000 : -1;
}

/* ---- what a child says ------------------------------------------------------------ */

/* Status of an order whose child died: its alarm, or a crash on what the client gave. */
static int status_of_death(const struct rs_running *o)
{
    if (rs_now_ns() + GRACE_NS / 2 >= o->until_ns - GRACE_NS) return RESEAL_ETIMEDOUT;
    return o->order.kind == RS_SOURCE_LUKS ? RESEAL_EFORMAT : RESEAL_EIO;
}

/* The client's key, and its line in the audit: one without the other is not given. */
static int supply(struct rs_keyd *d, struct rs_running *o, const struct rs_source_yield *y, int status,
                  reseal_key *id)
{
    static const char *const operations[RS_SOURCES] = {[RS_SOURCE_RAW] = "key.raw",
                                                       [RS_SOURCE_RANDOM] = "key.random",
                                                       [RS_SOURCE_LUKS] = "key.phrase",
                                                       [RS_SOURCE_LUKS_FORMAT] = "key.format"};
    struct rs_key *key = NULL;
    int r = status;
    if (o->form.use == 0) return r; /* it asked for no key */
    if (r == 0) r = rs_orders_mint(d, o->client, &o->form, y, id);
    if (r == 0) r = rs_keys_find(&d->keys, *id, &key);
    int line = rs_uses_supplied(d, o->client, operations[o->order.kind], o->form.name, key, r);
    if (line == 0 || key == NULL) return r;
    rs_keyd_revoke(d, key);
    o->client->keys--;
    return line;
}

static void yielded_key(struct rs_keyd *d, struct rs_running *o, const struct rs_source_yield *y)
{
    struct rs_msg_key reply;
    int r = supply(d, o, y, y->status, &reply.key);
    finish(d, o, r, &reply, r == 0 ? sizeof(reply) : 0, -1);
}

static void yielded_luks(struct rs_keyd *d, struct rs_running *o, const struct rs_source_yield *y, int fd)
{
    struct rs_msg_luks reply = y->luks;
    struct rs_key *form = &o->form;
    bool named = y->status == RESEAL_ECIPHER;
    reply.uuid[sizeof(reply.uuid) - 1] = reply.cipher[sizeof(reply.cipher) - 1] = '\0';
    reply.key = (reseal_key){0};
    form->unit = reply.unit;
    form->step = reply.step;
    (void)snprintf(form->name, sizeof(form->name), "luks:%s", reply.uuid);
    int r = supply(d, o, y, y->status, &reply.key);
    finish(d, o, r, &reply, r == 0 || named ? sizeof(reply) : 0, r == 0 ? fd : -1);
}

static void order_ready(struct rs_keyd *d, struct rs_watch *w, uint32_t events)
{
    (void)events;
    struct rs_running *o = (struct rs_running *)w;
    struct rs_msg *m = d->msg;
    int r = rs_msg_recv(w->fd, m, MSG_DONTWAIT);
    if (r == RESEAL_EAGAIN) return;
    if (r != 0) {
        finish(d, o, status_of_death(o), NULL, 0, -1);
        return;
    }
    if (m->header.type == RS_MSG_BORN && m->nfds == 1 && o->pidfd < 0) {
        o->pidfd = rs_msg_take_fd(m, 0);
        return;
    }
    bool ok = m->header.type == RS_MSG_YIELD && m->header.length == sizeof(struct rs_source_yield);
    RS_KEYMEM struct rs_source_yield *y = ok ? rs_keymem_alloc(sizeof(*y)) : NULL;
    RS_CLOSE int fd = rs_msg_take_fd(m, 0);
    bool want_fd = o->order.kind == RS_SOURCE_LUKS_FORMAT;
    if (y != NULL) memcpy(y, m->body, sizeof(*y));
    rs_wipe(m->body, sizeof(m->body));
    rs_msg_close_fds(m);
    if (y == NULL || y->status > 0 || (y->status == 0 && want_fd != (fd >= 0)))
        finish(d, o, RESEAL_EIO, NULL, 0, -1);
    else if (o->order.kind == RS_SOURCE_RAW)
        yielded_key(d, o, y);
    else
        yielded_luks(d, o, y, fd);
}
