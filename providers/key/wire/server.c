/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/key/wire/server.h"

#include "offload/base/clock.h"
#include "offload/base/keymem.h"
#include "providers/key/wire/dial.h"
#include "reseal/reseal.h"

#include <errno.h>
#include <limits.h>
#include <netdb.h>
#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define CONNECTIONS 64u
#define REQUEST_MS  10000u
#define IDLE_MS     60000u
#define LEAVE_MS    1000u
/* When others wait to be let in: time to say who one is, and to ask something more. */
#define SHY_MS       1000u
#define IDLE_ROOM_MS 5000u
#define SLOW_ROOM_MS 3000u /* a request on its way, or an answer */
#define FULL_MS      100u  /* how often it is looked at then */
#define EVENTS       16
#define STEPS        64u /* of one connection, before others have their turn */

enum phase { HANDSHAKE, READING, WRITING, LEAVING };

struct connection {
    struct connection *next;
    SSL *ssl;
    int fd;
    enum phase phase;
    bool ended;
    bool again; /* there is more to do, after others had their turn */
    uint64_t until_ns;
    struct rs_wire_caller caller;
    uint8_t head[RS_WIRE_HEAD];
    uint8_t *frame; /* key memory: the one being read or written */
    size_t done, len;
};

struct rs_wire_server {
    struct rs_wire_server_config config;
    SSL_CTX *ctx;
    int epoll;
    bool full; /* the listener is not watched */
    unsigned n;
    struct connection *connections;
};

/* ---- connections --------------------------------------------------------------------- */

static void watch(struct rs_wire_server *s, struct connection *c, int op, uint32_t events)
{
    struct epoll_event e = {.events = events, .data.ptr = c};
    (void)epoll_ctl(s->epoll, op, c == NULL ? s->config.listener : c->fd, &e);
}

static void connection_free(struct rs_wire_server *s, struct connection *c)
{
    /* Said once, without waiting for the answer. */
    if (c->phase == READING || c->phase == WRITING) (void)SSL_shutdown(c->ssl);
    ERR_clear_error();
    SSL_free(c->ssl);
    close(c->fd);
    rs_keymem_free(c->frame);
    free(c);
    s->n--;
    if (s->full) {
        s->full = false;
        watch(s, NULL, EPOLL_CTL_MOD, EPOLLIN);
    }
}

static void drop_ended(struct rs_wire_server *s)
{
    uint64_t now = rs_now_ns();
    for (struct connection **p = &s->connections; *p != NULL;) {
        struct connection *c = *p;
        if (!c->ended && now < c->until_ns) {
            p = &c->next;
            continue;
        }
        *p = c->next;
        connection_free(s, c);
    }
}

static bool is_older(uint64_t until_ns, unsigned lives_ms, unsigned ms)
{
    return rs_now_ns() + (uint64_t)lives_ms * 1000000u >= until_ns + (uint64_t)ms * 1000000u;
}

/*
 * Whoever says nothing makes room for whoever comes: the oldest that took its time to say who it is, else the
 * oldest that has asked nothing for a while, else the oldest that takes its time with a request or an answer.
 * False: there is none.
 */
static bool make_room(struct rs_wire_server *s)
{
    struct connection *unknown = NULL, *idle = NULL, *slow = NULL;
    for (struct connection *c = s->connections; c != NULL; c = c->next) { /* the newest first */
        if (c->ended) continue;
        if (c->phase == LEAVING ||
            (c->phase == HANDSHAKE && is_older(c->until_ns, s->config.request_ms, SHY_MS)))
            unknown = c;
        bool asks = c->phase == WRITING || (c->phase == READING && (c->frame != NULL || c->done != 0));
        if (c->phase == READING && !asks && is_older(c->until_ns, s->config.idle_ms, IDLE_ROOM_MS)) idle = c;
        if (asks && is_older(c->until_ns, s->config.request_ms, SLOW_ROOM_MS)) slow = c;
    }
    struct connection *oldest = unknown != NULL ? unknown : idle != NULL ? idle : slow;
    if (oldest == NULL) return false;
    oldest->ended = true;
    return true;
}

static void accept_one(struct rs_wire_server *s)
{
    struct sockaddr_storage a;
    socklen_t len = sizeof(a);
    if (s->n >= s->config.connections && !make_room(s)) {
        s->full = true;
        watch(s, NULL, EPOLL_CTL_MOD, 0);
        return;
    }
    int fd = accept4(s->config.listener, (struct sockaddr *)&a, &len, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) return;
    struct connection *c = calloc(1, sizeof(*c));
    SSL *ssl = c == NULL ? NULL : SSL_new(s->ctx);
    if (ssl == NULL || SSL_set_fd(ssl, fd) != 1) {
        SSL_free(ssl);
        free(c);
        close(fd);
        return;
    }
    SSL_set_accept_state(ssl);
    *c = (struct connection){.next = s->connections, .ssl = ssl, .fd = fd, .phase = HANDSHAKE};
    c->until_ns = rs_wire_deadline(s->config.request_ms);
    if (getnameinfo((struct sockaddr *)&a, len, c->caller.address, sizeof(c->caller.address), NULL, 0,
                    NI_NUMERICHOST) != 0)
        (void)snprintf(c->caller.address, sizeof(c->caller.address), "?");
    s->connections = c;
    s->n++;
    watch(s, c, EPOLL_CTL_ADD, EPOLLIN);
}

/* ---- one connection's steps ---------------------------------------------------------- */

/* After an SSL call that failed: waits for what it wants, or ends the connection. */
static void wait_or_end(struct rs_wire_server *s, struct connection *c, int r)
{
    int e = SSL_get_error(c->ssl, r);
    ERR_clear_error();
    if (e == SSL_ERROR_WANT_READ)
        watch(s, c, EPOLL_CTL_MOD, EPOLLIN);
    else if (e == SSL_ERROR_WANT_WRITE)
        watch(s, c, EPOLL_CTL_MOD, EPOLLOUT);
    else
        c->ended = true;
}

/* Whom we do not take is told so: closing while there is something to read would take the alert back. */
static void leave(struct rs_wire_server *s, struct connection *c)
{
    c->ended = shutdown(c->fd, SHUT_WR) != 0;
    c->phase = LEAVING;
    c->until_ns = rs_wire_deadline(LEAVE_MS);
    watch(s, c, EPOLL_CTL_MOD, EPOLLIN);
}

static bool step_leaving(struct connection *c)
{
    char rest[1024];
    ssize_t n = recv(c->fd, rest, sizeof(rest), MSG_DONTWAIT);
    c->ended = n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
    return n > 0;
}

static bool step_handshake(struct rs_wire_server *s, struct connection *c)
{
    int r = SSL_do_handshake(c->ssl);
    if (r != 1) {
        wait_or_end(s, c, r);
        if (c->ended) leave(s, c);
        return false;
    }
    if (rs_wire_identity_of(c->ssl, &c->caller.id) != 0) {
        c->ended = true;
        return false;
    }
    c->phase = READING;
    c->until_ns = rs_wire_deadline(s->config.idle_ms);
    return true;
}

/* A request is whole: its answer becomes the frame to write. */
static void answer(struct rs_wire_server *s, struct connection *c)
{
    struct rs_wire_message request, reply = {.json = NULL};
    bool ok = rs_wire_unpack(c->frame, c->len, &request) == 0;
    rs_keymem_free(c->frame);
    c->frame = NULL;
    if (ok) s->config.handle(s->config.arg, &c->caller, &request, &reply);
    rs_wire_message_free(&request);
    if (reply.json != NULL && json_object_get(reply.json, "status") == NULL)
        (void)json_object_set_new(reply.json, "status", json_integer(0));
    if (reply.json != NULL) c->frame = rs_wire_pack(&reply, &c->len);
    rs_wire_message_free(&reply);
    c->phase = WRITING;
    c->done = 0;
    if (c->frame == NULL) c->ended = true;
}

/* The head is whole: room for the rest. */
static bool begin_frame(struct rs_wire_server *s, struct connection *c)
{
    size_t rest;
    if (rs_wire_head(c->head, &rest) != 0) return false;
    c->len = RS_WIRE_HEAD + rest;
    c->frame = rs_keymem_alloc(c->len);
    if (c->frame == NULL) return false;
    memcpy(c->frame, c->head, RS_WIRE_HEAD);
    (void)s;
    return true;
}

static bool step_reading(struct rs_wire_server *s, struct connection *c)
{
    bool in_head = c->frame == NULL;
    uint8_t *to = in_head ? c->head + c->done : c->frame + c->done;
    size_t want = (in_head ? RS_WIRE_HEAD : c->len) - c->done, got = 0;
    int r = want == 0 ? 1 : SSL_read_ex(c->ssl, to, want, &got);
    if (r != 1) {
        wait_or_end(s, c, r);
        return false;
    }
    if (c->done == 0 && got > 0) c->until_ns = rs_wire_deadline(s->config.request_ms);
    c->done += got;
    if (in_head && c->done == RS_WIRE_HEAD && !begin_frame(s, c)) c->ended = true;
    if (c->frame != NULL && c->done == c->len) answer(s, c);
    return !c->ended;
}

static bool step_writing(struct rs_wire_server *s, struct connection *c)
{
    size_t sent = 0;
    int r = SSL_write_ex(c->ssl, c->frame + c->done, c->len - c->done, &sent);
    if (r != 1) {
        wait_or_end(s, c, r);
        return false;
    }
    c->done += sent;
    if (c->done < c->len) return true;
    rs_keymem_free(c->frame);
    c->frame = NULL;
    c->done = c->len = 0;
    c->phase = READING;
    c->until_ns = rs_wire_deadline(s->config.idle_ms);
    return true;
}

/* TLS may hold more than the socket shows, so the steps go on until it wants to wait; but not for ever. */
static void go_on(struct rs_wire_server *s, struct connection *c)
{
    bool more = true;
    for (unsigned i = 0; more && !c->ended && i < STEPS; i++) {
        ERR_clear_error();
        errno = 0;
        if (c->phase == HANDSHAKE)
            more = step_handshake(s, c);
        else if (c->phase == READING)
            more = step_reading(s, c);
        else if (c->phase == WRITING)
            more = step_writing(s, c);
        else
            more = step_leaving(c);
    }
    c->again = more;
}

/* ---- calls --------------------------------------------------------------------------- */

static SSL_CTX *new_context(const struct rs_wire_trust *trust, struct rs_wire_error *error)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    if (ctx == NULL || SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) != 1 ||
        rs_wire_set_trust(ctx, trust, error) != 0) {
        SSL_CTX_free(ctx);
        return NULL;
    }
    SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    /* No tickets: whoever comes again shows its certificate again. */
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    (void)SSL_CTX_set_num_tickets(ctx, 0);
    SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE);
    return ctx;
}

int rs_wire_server_open(struct rs_wire_server **out, const struct rs_wire_server_config *config,
                        struct rs_wire_error *error)
{
    struct rs_wire_server *s = calloc(1, sizeof(*s));
    *out = NULL;
    memset(error, 0, sizeof(*error));
    if (s == NULL) {
        close(config->listener);
        return RESEAL_ENOMEM;
    }
    s->config = *config;
    s->config.trust = (struct rs_wire_trust){.ca = NULL};
    if (s->config.connections == 0) s->config.connections = CONNECTIONS;
    if (s->config.request_ms == 0) s->config.request_ms = REQUEST_MS;
    if (s->config.idle_ms == 0) s->config.idle_ms = IDLE_MS;
    s->epoll = epoll_create1(EPOLL_CLOEXEC);
    s->ctx = new_context(&config->trust, error);
    if (s->epoll < 0 || s->ctx == NULL) {
        int err = s->ctx == NULL ? RESEAL_EINVAL : RESEAL_EIO;
        if (error->why[0] == '\0') (void)rs_wire_fail(error, RS_WIRE_BAD_SETUP, "TLS cannot be set up");
        rs_wire_server_close(s);
        return err;
    }
    watch(s, NULL, EPOLL_CTL_ADD, EPOLLIN);
    *out = s;
    return 0;
}

void rs_wire_server_close(struct rs_wire_server *s)
{
    if (s == NULL) return;
    while (s->connections != NULL) {
        struct connection *c = s->connections;
        s->connections = c->next;
        connection_free(s, c);
    }
    SSL_CTX_free(s->ctx);
    if (s->epoll >= 0) close(s->epoll);
    close(s->config.listener);
    free(s);
}

int rs_wire_server_renew(struct rs_wire_server *s, const struct rs_wire_trust *trust,
                         struct rs_wire_error *error)
{
    SSL_CTX *ctx = new_context(trust, error);
    if (ctx == NULL) return RESEAL_EINVAL;
    SSL_CTX_free(s->ctx); /* connections hold it as long as they need it */
    s->ctx = ctx;
    return 0;
}

int rs_wire_server_fd(const struct rs_wire_server *s)
{
    return s->epoll;
}

int rs_wire_server_tick(const struct rs_wire_server *s)
{
    uint64_t now = rs_now_ns(), until = UINT64_MAX;
    for (const struct connection *c = s->connections; c != NULL; c = c->next)
        until = RS_MIN(until, c->again ? 0 : c->until_ns);
    if (s->full) until = RS_MIN(until, now + FULL_MS * UINT64_C(1000000));
    if (until == UINT64_MAX) return -1;
    if (until <= now) return 0;
    return (int)RS_MIN((until - now) / 1000000u + 1, (uint64_t)INT_MAX);
}

void rs_wire_server_work(struct rs_wire_server *s, int ms)
{
    struct epoll_event events[EVENTS];
    int tick = rs_wire_server_tick(s);
    int wait = ms < 0 ? tick : tick < 0 ? ms : RS_MIN(ms, tick);
    int n = epoll_wait(s->epoll, events, EVENTS, wait);
    for (struct connection *c = s->connections; c != NULL; c = c->next)
        if (c->again) go_on(s, c);
    for (int i = 0; i < n; i++)
        if (events[i].data.ptr == NULL)
            accept_one(s);
        else
            go_on(s, events[i].data.ptr);
    if (s->full) (void)make_room(s);
    drop_ended(s);
}
