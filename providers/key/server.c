/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/key/hosts.h"
#include "providers/key/keyd.h"
#include "providers/key/rooms.h"

#include "offload/base/foreign.h"
#include "offload/base/keymem.h"
#include "providers/key/events.h"
#include "providers/key/store.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <openssl/rand.h>

/* ---- the loop ----------------------------------------------------------------- */

int rs_keyd_init(struct rs_keyd *d)
{
    d->listener.fd = d->supervisor.fd = d->signals.fd = d->nursery_end.fd = -1;
    d->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (d->epoll < 0) return RESEAL_EIO;
    d->msg = rs_keymem_alloc(sizeof(*d->msg));
    d->digest_root = rs_keymem_alloc(32);
    if (d->msg == NULL || d->digest_root == NULL) return RESEAL_ENOMEM;
    if (RAND_priv_bytes(d->digest_root, 32) != 1) return RESEAL_ENOMEM;
    if (RAND_bytes(d->instance, sizeof(d->instance)) != 1) return RESEAL_ENOMEM;
    if (d->deadline_s == 0) d->deadline_s = RS_KEYD_DEADLINE_S;
    return rs_keys_init(&d->keys);
}

static int control(struct rs_keyd *d, int op, struct rs_watch *w, uint32_t events)
{
    struct epoll_event e = {.events = events, .data.ptr = w};
    return epoll_ctl(d->epoll, op, w->fd, &e) == 0 ? 0 : RESEAL_EIO;
}

int rs_keyd_watch(struct rs_keyd *d, struct rs_watch *w)
{
    return control(d, EPOLL_CTL_ADD, w, EPOLLIN);
}

void rs_keyd_interest(struct rs_keyd *d, struct rs_watch *w, uint32_t events)
{
    (void)control(d, EPOLL_CTL_MOD, w, events);
}

void rs_keyd_unwatch(struct rs_keyd *d, struct rs_watch *w)
{
    if (w->fd < 0) return;
    (void)control(d, EPOLL_CTL_DEL, w, 0);
    rs_cleanup_close(&w->fd);
}

/* What is to be done from time to time: milliseconds until it must be called again, -1: never. */
static int (*const ticks[])(struct rs_keyd *d) = {
    rs_kek_tick,
    rs_uses_tick,
    rs_webhooks_tick,
    rs_hosts_tick,
    rs_providers_tick,
    rs_events_tick,
    /* Last: they start what the others ask for. */
    rs_orders_tick,
    rs_tasks_tick,
};

static int tick(struct rs_keyd *d)
{
    int least = -1;
    for (unsigned i = 0; i < RS_ARRAY_LEN(ticks); i++) {
        int ms = ticks[i](d);
        if (ms >= 0) least = least < 0 ? ms : RS_MIN(least, ms);
    }
    return least;
}

int rs_keyd_step(struct rs_keyd *d)
{
    /* One at a time: handling it may free what another would point to. */
    struct epoll_event e;
    int n = epoll_wait(d->epoll, &e, 1, tick(d));
    if (n < 0 && errno != EINTR) return RESEAL_EIO;
    if (n != 1) return 0;
    struct rs_watch *w = e.data.ptr;
    w->ready(d, w, e.events);
    return 0;
}

int rs_keyd_loop(struct rs_keyd *d)
{
    int r = 0;
    while (r == 0 && !d->ended) r = rs_keyd_step(d);
    return r;
}

void rs_keyd_free(struct rs_keyd *d)
{
    while (d->clients != NULL) rs_keyd_drop(d, d->clients);
    while (d->works != NULL) rs_sessions_drop(d, d->works);
    rs_uses_close(d);
    rs_tasks_free(d);
    rs_kek_free(d);
    rs_providers_free(&d->providers);
    rs_keys_clear(&d->keys);
    rs_policy_free(d->policy);
    rs_keymem_free(d->msg);
    rs_keymem_free(d->digest_root);
    rs_hosts_close(d);
    rs_events_close(d);
    rs_tenants_close(d);
    rs_store_close(d->store);
    rs_cleanup_close(&d->epoll);
}

/* ---- clients -------------------------------------------------------------------- */

static void client_ready(struct rs_keyd *d, struct rs_watch *w, uint32_t events)
{
    struct rs_client *c = (struct rs_client *)w;
    if (c->order != NULL || c->call != NULL) { /* only its end can have come */
        if ((events & (EPOLLHUP | EPOLLERR)) != 0) rs_keyd_drop(d, c);
        return;
    }
    uint32_t uid = c->uid;
    int r = rs_foreign_is_stuck(uid) ? RESEAL_ELIMIT
                                     : rs_msg_recv_from(w->fd, d->msg, MSG_DONTWAIT, rs_foreign_drop, uid);
    if (r == RESEAL_EAGAIN) return;
    bool keep = r == 0 && rs_keyd_request(d, c);
    if (r == 0) rs_msg_drop_fds(d->msg, rs_foreign_drop, uid);
    if (!keep) rs_keyd_drop(d, c);
}

static bool room_for(const struct rs_keyd *d, uint32_t uid)
{
    unsigned all = 0, same = 0;
    for (const struct rs_client *c = d->clients; c != NULL; c = c->next) {
        all++;
        same += c->uid == uid;
    }
    return all < RS_KEYD_CLIENTS && same < RS_KEYD_CLIENTS_OF_USER;
}

struct rs_client *rs_keyd_accept(struct rs_keyd *d, int fd)
{
    struct ucred peer = {0};
    socklen_t len = sizeof(peer);
    struct rs_client *c = NULL;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 && room_for(d, peer.uid) &&
        !rs_foreign_is_stuck(peer.uid))
        c = calloc(1, sizeof(*c));
    if (c == NULL) {
        rs_foreign_close(&fd, peer.uid);
        return NULL;
    }
    c->watch = (struct rs_watch){.fd = fd, .ready = client_ready};
    c->uid = peer.uid;
    c->gid = peer.gid;
    c->pid = (uint32_t)peer.pid;
    c->number = ++d->next_client;
    c->next = d->clients;
    d->clients = c;
    if (rs_keyd_watch(d, &c->watch) == 0) return c;
    rs_keyd_drop(d, c);
    return NULL;
}

void rs_keyd_revoke(struct rs_keyd *d, struct rs_key *key)
{
    if (key->handed) rs_sessions_revoked(d, key->id);
    rs_keys_drop(&d->keys, key);
}

void rs_keyd_drop(struct rs_keyd *d, struct rs_client *c)
{
    struct rs_client **at = &d->clients;
    struct rs_key *key;
    while (*at != c) at = &(*at)->next;
    *at = c->next;
    rs_orders_cancel(d, c);
    rs_rpc_cancel(d, c);
    while (c->keys != 0 && (key = rs_keys_of(&d->keys, c->number)) != NULL) {
        rs_keyd_revoke(d, key);
        c->keys--;
    }
    (void)control(d, EPOLL_CTL_DEL, &c->watch, 0);
    rs_foreign_close(&c->watch.fd, c->uid);
    free(c);
}

bool rs_keyd_reply(struct rs_client *c, uint16_t type, int status, const void *body, size_t len, int fd)
{
    /* A client that does not read its replies is not waited for. */
    return rs_msg_send(c->watch.fd, type | RS_MSG_REPLY, status, body, len, &fd, fd >= 0 ? 1 : 0,
                       MSG_DONTWAIT) == 0;
}

/* ---- requests -------------------------------------------------------------------- */

static bool refuse(struct rs_client *c, uint16_t type, int status)
{
    return rs_keyd_reply(c, type, status, NULL, 0, -1);
}

static bool on_hello(struct rs_keyd *d, struct rs_client *c, struct rs_msg *m)
{
    struct rs_msg_hello hello;
    const struct rs_tenant *tenant;
    memcpy(&hello, m->body, sizeof(hello));
    if (c->greeted || memchr(hello.tenant, '\0', sizeof(hello.tenant)) == NULL) return false;
    if (hello.min_version > RS_MSG_VERSION || hello.max_version < RS_MSG_VERSION)
        return refuse(c, RS_MSG_HELLO, RESEAL_EVERSION);
    int r = rs_policy_tenant(d->policy, c->uid, c->gid, hello.tenant, &tenant);
    if (r == 0 && tenant->suspended) r = RESEAL_ESUSPENDED;
    if (r != 0) return refuse(c, RS_MSG_HELLO, r);
    memcpy(c->tenant, tenant->name, sizeof(c->tenant));
    c->max_keys = tenant->max_keys;
    c->greeted = true;
    struct rs_msg_welcome welcome = {.version = RS_MSG_VERSION, .max_keys = c->max_keys, .client = c->number};
    memcpy(welcome.instance, d->instance, sizeof(welcome.instance));
    return rs_keyd_reply(c, RS_MSG_HELLO, 0, &welcome, sizeof(welcome), -1);
}

static bool reply_text(struct rs_client *c, uint16_t type, char *text)
{
    int fd = text != NULL ? rs_msg_text_fd(text, strlen(text)) : RESEAL_ENOMEM;
    free(text);
    if (fd < 0) return refuse(c, type, fd);
    bool sent = rs_keyd_reply(c, type, 0, NULL, 0, fd);
    close(fd);
    return sent;
}

static bool on_status(struct rs_keyd *d, struct rs_client *c, struct rs_msg *m)
{
    (void)m;
    return reply_text(c, RS_MSG_STATUS, rs_keyd_status(d));
}

static bool on_policy(struct rs_keyd *d, struct rs_client *c, struct rs_msg *m)
{
    (void)m;
    const struct rs_identity self = {.uid = c->uid, .gid = c->gid};
    return reply_text(c, RS_MSG_POLICY, rs_policy_check(d->policy, &self));
}

static bool name_ok(const char *name, size_t len)
{
    size_t n = strnlen(name, len);
    for (size_t i = 0; i < n; i++)
        if (name[i] <= ' ' || name[i] > '~' || name[i] == '*') return false;
    return n < len;
}

/* What the client wants its key bound to; RESEAL_EINVAL. */
static int form_of(const struct rs_client *c, const struct rs_msg_key_use *use, const char *prefix,
                   struct rs_key *form)
{
    *form = (struct rs_key){
        .cipher = use->cipher, .use = use->use, .client = c->number, .uid = c->uid, .pid = c->pid};
    if (use->use == 0 || (use->use & ~(uint32_t)(RESEAL_USE_SOURCE | RESEAL_USE_DESTINATION)) != 0)
        return RESEAL_EINVAL;
    if (!name_ok(use->name, sizeof(use->name))) return RESEAL_EINVAL;
    if (use->cipher == RESEAL_XTS) {
        if (use->unit < 512 || use->unit > 65536 || !rs_is_pow2(use->unit) || use->step == 0)
            return RESEAL_EINVAL;
        form->unit = use->unit;
        form->step = use->step;
    } else if (use->cipher != RESEAL_GCM) {
        return RESEAL_EINVAL;
    }
    (void)snprintf(form->name, sizeof(form->name), "%s%s", prefix, use->name);
    return c->keys < c->max_keys ? 0 : RESEAL_ELIMIT;
}

/* Queues an order with the descriptors of the message. */
static bool order_child(struct rs_keyd *d, struct rs_client *c, struct rs_msg *m,
                        const struct rs_source_order *order, const struct rs_key *form)
{
    int may = form->use != 0 ? rs_uses_may(d) : 0;
    if (may != 0) return refuse(c, m->header.type, may);
    struct rs_running *o = calloc(1, sizeof(*o));
    if (o == NULL) return refuse(c, m->header.type, RESEAL_ENOMEM);
    o->order = *order;
    o->order.deadline_s = d->deadline_s;
    o->form = *form;
    o->client = c;
    o->type = m->header.type;
    o->nfds = m->nfds;
    for (unsigned i = 0; i < RS_SOURCE_FDS; i++) o->fds[i] = rs_msg_take_fd(m, i);
    rs_orders_add(d, o);
    return true;
}

static bool on_raw(struct rs_keyd *d, struct rs_client *c, struct rs_msg *m)
{
    struct rs_msg_key_use use;
    struct rs_key form;
    memcpy(&use, m->body, sizeof(use));
    int r = use.bits != 0 ? RESEAL_EINVAL : form_of(c, &use, "raw:", &form);
    if (r != 0) return refuse(c, RS_MSG_KEY_RAW, r);
    form.supplied = true;
    const struct rs_source_order order = {.kind = RS_SOURCE_RAW, .cipher = use.cipher};
    return order_child(d, c, m, &order, &form);
}

static bool on_random(struct rs_keyd *d, struct rs_client *c, struct rs_msg *m)
{
    struct rs_msg_key_use use;
    struct rs_key form;
    memcpy(&use, m->body, sizeof(use));
    int r = form_of(c, &use, "random:", &form), no_fd;
    if (r != 0) return refuse(c, RS_MSG_KEY_RANDOM, r);
    const struct rs_source_order order = {.kind = RS_SOURCE_RANDOM, .cipher = use.cipher, .bits = use.bits};
    RS_KEYMEM struct rs_source_yield *y = rs_keymem_alloc(sizeof(*y));
    struct rs_msg_key reply;
    r = y == NULL ? RESEAL_ENOMEM : rs_source_random.fetch(&order, NULL, y, &no_fd);
    if (r == 0) r = rs_orders_mint(d, c, &form, y, &reply.key);
    if (r != 0) return refuse(c, RS_MSG_KEY_RANDOM, r);
    return rs_keyd_reply(c, RS_MSG_KEY_RANDOM, 0, &reply, sizeof(reply), -1);
}

static bool on_luks(struct rs_keyd *d, struct rs_client *c, struct rs_msg *m)
{
    struct rs_msg_key_use use;
    memcpy(&use, m->body, sizeof(use));
    struct rs_key form = {
        .cipher = RESEAL_XTS, .client = c->number, .uid = c->uid, .pid = c->pid, .supplied = true};
    form.use = use.use;
    if ((use.use & ~(uint32_t)(RESEAL_USE_SOURCE | RESEAL_USE_DESTINATION)) != 0)
        return refuse(c, RS_MSG_KEY_LUKS, RESEAL_EINVAL);
    if (use.use != 0 && m->nfds != 2) return refuse(c, RS_MSG_KEY_LUKS, RESEAL_EINVAL);
    if (use.use != 0 && c->keys >= c->max_keys) return refuse(c, RS_MSG_KEY_LUKS, RESEAL_ELIMIT);
    const struct rs_source_order order = {.kind = RS_SOURCE_LUKS, .want_key = use.use != 0};
    return order_child(d, c, m, &order, &form);
}

static bool on_format(struct rs_keyd *d, struct rs_client *c, struct rs_msg *m)
{
    struct rs_source_order order = {.kind = RS_SOURCE_LUKS_FORMAT};
    struct rs_key form = {
        .cipher = RESEAL_XTS, .client = c->number, .uid = c->uid, .pid = c->pid, .supplied = true};
    memcpy(&order.format, m->body, sizeof(order.format));
    form.use = order.format.use;
    if (form.use == 0 || (form.use & ~(uint32_t)(RESEAL_USE_SOURCE | RESEAL_USE_DESTINATION)) != 0)
        return refuse(c, RS_MSG_LUKS_FORMAT, RESEAL_EINVAL);
    if (c->keys >= c->max_keys) return refuse(c, RS_MSG_LUKS_FORMAT, RESEAL_ELIMIT);
    return order_child(d, c, m, &order, &form);
}

static bool on_close(struct rs_keyd *d, struct rs_client *c, struct rs_msg *m)
{
    struct rs_msg_key close_key;
    struct rs_key *key;
    memcpy(&close_key, m->body, sizeof(close_key));
    int r = rs_keys_find(&d->keys, close_key.key, &key);
    if (r == 0 && key->client != c->number) r = RESEAL_ENOKEY;
    if (r != 0) return refuse(c, RS_MSG_KEY_CLOSE, r);
    rs_keyd_revoke(d, key);
    c->keys--;
    return rs_keyd_reply(c, RS_MSG_KEY_CLOSE, 0, NULL, 0, -1);
}

static const struct request {
    uint16_t type;
    uint16_t len;
    uint8_t min_fds, max_fds;
    bool (*handle)(struct rs_keyd *d, struct rs_client *c, struct rs_msg *m);
} requests[] = {
    {RS_MSG_HELLO, sizeof(struct rs_msg_hello), 0, 0, on_hello},
    {RS_MSG_STATUS, 0, 0, 0, on_status},
    {RS_MSG_POLICY, 0, 0, 0, on_policy},
    {RS_MSG_KEY_RAW, sizeof(struct rs_msg_key_use), 1, 1, on_raw},
    {RS_MSG_KEY_RANDOM, sizeof(struct rs_msg_key_use), 0, 0, on_random},
    {RS_MSG_KEY_LUKS, sizeof(struct rs_msg_key_use), 1, 2, on_luks},
    {RS_MSG_LUKS_FORMAT, sizeof(struct rs_msg_luks_format), 1, 1, on_format},
    {RS_MSG_KEY_CLOSE, sizeof(struct rs_msg_key), 0, 0, on_close},
    {RS_MSG_RPC, 0, 1, 1 + RS_TASK_FDS, rs_rpc_request},
};

bool rs_keyd_request(struct rs_keyd *d, struct rs_client *c)
{
    struct rs_msg *m = d->msg;
    if (m->header.status != 0) return false;
    for (unsigned i = 0; i < RS_ARRAY_LEN(requests); i++) {
        const struct request *q = &requests[i];
        if (m->header.type != q->type) continue;
        if (m->header.length != q->len || m->nfds < q->min_fds || m->nfds > q->max_fds) return false;
        if (!c->greeted && q->type != RS_MSG_HELLO) return false;
        return q->handle(d, c, m);
    }
    return false;
}
