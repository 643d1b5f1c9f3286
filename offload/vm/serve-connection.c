/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "offload/vm/serve-internal.h"

/* Bytes in one send, about. */
#define SEND_BYTES (1u << 20)

/* Requests of a client that are no stream of them. */
#define FEW 2u

/* ---- life -------------------------------------------------------------------- */

/* The rest of a large payload will not come. Not while the kernel may still write to its buffers. */
static void cut_payload(struct rs_vs_client *c)
{
    struct rs_vs_request *r = c->taking;
    c->taking = NULL;
    c->into_count = 0;
    if (r != NULL) rs_vs_request_cut(r);
}

void rs_vs_client_leave(struct rs_vs_client *c)
{
    if (c->leaving) return;
    c->leaving = true;
    if (!c->receiving)
        cut_payload(c);
    else if (c->taking != NULL)
        (void)shutdown(c->fd, SHUT_RD);
}

void rs_vs_client_drop(struct rs_vs_client *c, const char *why)
{
    if (c->dead) return;
    c->dead = true;
    if (why != NULL) rs_vs_say(c->server, "client %u was dropped: %s", c->number, why);
    (void)shutdown(c->fd, SHUT_RDWR);
    rs_vs_client_leave(c);
}

static void client_close(struct rs_vs_client *c)
{
    struct rs_vmserve *s = c->server;
    rs_vs_chunk_drop(&s->buffers, c->chunk);
    free(c->answer);
    close(c->fd);
    s->connected--;
    s->freed = s->again = true;
    *c = (struct rs_vs_client){.fd = -1, .server = s, .number = c->number};
}

void rs_vs_client_accept(struct rs_vmserve *s, int fd)
{
    struct rs_vs_client *c = s->clients;
    while (c < s->clients + RS_VS_CLIENTS && c->fd >= 0) c++;
    uint8_t *answer = malloc(RS_NBD_REPLY_MAX);
    if (c == s->clients + RS_VS_CLIENTS || answer == NULL) {
        rs_vs_say(s, "a client was turned away: no room for it");
        free(answer);
        close(fd);
        return;
    }
    *c = (struct rs_vs_client){.fd = fd, .server = s, .number = (unsigned)(c - s->clients), .answer = answer};
    /* A reply of some pieces fits at once; the kernel gives what it allows. */
    int room = 4 << 20;
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
    rs_nbd_greet(c->answer);
    c->answer_len = RS_NBD_GREETING;
    s->connected++;
}

/* ---- sending ----------------------------------------------------------------- */

void rs_vs_client_reply(struct rs_vs_client *c, struct rs_vs_request *r)
{
    r->queued = true;
    r->next = NULL;
    if (c->first != NULL)
        c->last->next = r;
    else
        c->first = r;
    c->last = r;
}

static void pop_reply(struct rs_vs_client *c)
{
    c->first = c->first->next;
}

static void put_part(struct rs_vs_client *c, void *base, size_t len, struct rs_vs_piece *p,
                     struct rs_vs_request *r)
{
    c->out_iov[c->out_count] = (struct iovec){.iov_base = base, .iov_len = len};
    c->out_piece[c->out_count] = p;
    c->out_request[c->out_count++] = r;
}

/* The pieces of a read that are ready, in order; true when that was all of it. */
static bool put_data(struct rs_vs_client *c, struct rs_vs_request *r, size_t *bytes)
{
    while (r->emitted < r->pieces && c->out_count + 2 <= RS_VS_IOVS && *bytes < SEND_BYTES) {
        struct rs_vs_piece *p = &r->piece[r->emitted % RS_VS_WINDOW];
        if (p->state != RS_VS_READY) return false;
        bool last = ++r->emitted == r->pieces;
        unsigned n = rs_nbd_data(&c->nbd, &r->nbd, p->start + p->head, p->len, last, p->header);
        if (n != 0) put_part(c, p->header, n, NULL, NULL);
        put_part(c, p->buf + p->head, p->len, p, last ? r : NULL);
        p->state = RS_VS_SENDING;
        *bytes += p->len;
    }
    return r->emitted == r->pieces;
}

/* The reply of a request that has no data, or that failed. False: not yet, or never. */
static bool put_plain(struct rs_vs_client *c, struct rs_vs_request *r)
{
    unsigned n;
    if (r->busy != 0) return false;
    if (r->emitted != 0 && rs_nbd_in_one(&c->nbd, &r->nbd)) {
        /* Such a reply has no way to take back that it began well. */
        rs_vs_client_drop(c, "a read failed in the middle of its reply");
        return false;
    }
    if (r->emitted != 0)
        n = rs_nbd_late_error(&r->nbd, r->error, r->header);
    else if (r->nbd.type == RS_NBD_BLOCK_STATUS && r->error == 0)
        n = rs_nbd_status(&r->nbd, r->header);
    else
        n = rs_nbd_done(&c->nbd, &r->nbd, r->error, r->header);
    put_part(c, r->header, n, NULL, r);
    return true;
}

static void put_replies(struct rs_vs_client *c)
{
    size_t bytes = 0;
    while (c->first != NULL && c->out_count + 2 <= RS_VS_IOVS && bytes < SEND_BYTES) {
        struct rs_vs_request *r = c->first;
        bool data = r->nbd.type == RS_NBD_READ && r->error == 0;
        if (!(data ? put_data(c, r, &bytes) : put_plain(c, r))) break;
        pop_reply(c);
    }
}

static void start_send(struct rs_vs_client *c)
{
    struct rs_vmserve *s = c->server;
    c->out_msg =
        (struct msghdr){.msg_iov = c->out_iov + c->out_first, .msg_iovlen = c->out_count - c->out_first};
    c->sending = true;
    /* Mostly there is room, and then this is the shorter way; with more requests to come the ring takes
     * replies together with other things. */
    ssize_t n = c->requests <= FEW ? sendmsg(c->fd, &c->out_msg, MSG_NOSIGNAL | MSG_DONTWAIT) : -1;
    if (n > 0) {
        c->send.result = (int)n;
        s->again = true;
        rs_vs_client_sent(c);
        return;
    }
    struct io_uring_sqe *sqe = rs_vs_sqe(s);
    io_uring_prep_sendmsg(sqe, c->fd, &c->out_msg, MSG_NOSIGNAL | MSG_WAITALL);
    rs_vs_tells(sqe, &c->send, RS_VS_SEND);
}

/* What a part of a send held is free again. */
static void end_part(struct rs_vs_client *c)
{
    unsigned i = c->out_first++;
    if (c->out_piece[i] != NULL) rs_vs_piece_sent(c->out_piece[i]);
    if (c->out_request[i] != NULL) rs_vs_request_free(c->out_request[i]);
}

static void end_parts(struct rs_vs_client *c)
{
    while (c->out_first < c->out_count) end_part(c);
}

static void send_more(struct rs_vs_client *c)
{
    if (c->sending || c->dead) return;
    c->out_first = c->out_count = 0;
    if (c->answer_len != 0)
        put_part(c, c->answer, c->answer_len, NULL, NULL);
    else
        put_replies(c);
    if (c->dead)
        end_parts(c);
    else if (c->out_count != 0)
        start_send(c);
}

void rs_vs_client_sent(struct rs_vs_client *c)
{
    int result = c->send.result;
    size_t n = result > 0 ? (size_t)result : 0;
    c->sending = false;
    /* It went away with replies to come: nothing to tell. */
    if (result < 0 && result != -EINTR && result != -EAGAIN) rs_vs_client_drop(c, NULL);
    while (c->out_first < c->out_count && n >= c->out_iov[c->out_first].iov_len) {
        n -= c->out_iov[c->out_first].iov_len;
        end_part(c);
    }
    if (c->dead) end_parts(c);
    if (c->out_first < c->out_count) {
        struct iovec *v = &c->out_iov[c->out_first];
        *v = (struct iovec){.iov_base = (uint8_t *)v->iov_base + n, .iov_len = v->iov_len - n};
        start_send(c);
    } else {
        c->answer_len = 0;
    }
}

/* Replies that nobody will get. */
static void discard_replies(struct rs_vs_client *c)
{
    struct rs_vs_request **at = &c->first, *last = NULL;
    while (*at != NULL) {
        struct rs_vs_request *r = *at;
        rs_vs_request_discard(r);
        if (r->busy == 0) {
            *at = r->next;
            rs_vs_request_free(r);
            c->server->again = true; /* those that were looked at before this one may wait for it */
        } else {
            last = r;
            at = &r->next;
        }
    }
    c->last = last;
}

/* ---- receiving --------------------------------------------------------------- */

/* Room for what comes next; a header or a small payload that was cut moves to the new place. False: no
 * buffer. */
static bool make_room(struct rs_vs_client *c)
{
    struct rs_vs_buffers *b = &c->server->buffers;
    struct rs_vs_chunk *old = c->chunk;
    if (old != NULL && c->pos == old->fill && old->refs == 1) {
        old->fill = c->pos = 0;
        return true;
    }
    uint32_t rest = old != NULL ? old->fill - c->pos : 0;
    if (old != NULL && RS_VS_CHUNK - c->pos >= RS_NBD_REQUEST + RS_VS_SMALL && old->fill < RS_VS_CHUNK)
        return true;
    struct rs_vs_chunk *chunk = rs_vs_chunk_take(b);
    if (chunk == NULL) return false;
    if (rest != 0) memcpy(chunk->base, old->base + c->pos, rest);
    chunk->fill = rest;
    rs_vs_chunk_drop(b, old);
    c->chunk = chunk;
    c->pos = 0;
    return true;
}

/* Pieces of the large write that is under way, to be received into. */
static void find_pieces(struct rs_vs_client *c)
{
    while (c->taking != NULL && c->into_count < RS_VS_WINDOW) {
        struct rs_vs_piece *p = rs_vs_piece_next(c->taking);
        if (p == NULL) return;
        c->into[c->into_count++] = p;
    }
}

static void first_piece_received(struct rs_vs_client *c)
{
    struct rs_vs_piece *p = c->into[0];
    struct rs_vs_request *r = c->taking;
    c->into_count--;
    memmove(c->into, c->into + 1, c->into_count * sizeof(c->into[0]));
    c->into_got = 0;
    if (c->into_count == 0 && r->begun == r->pieces) c->taking = NULL;
    rs_vs_piece_received(p);
}

/* What of a large payload came with its header. */
static void copy_payload(struct rs_vs_client *c)
{
    find_pieces(c);
    while (c->into_count != 0 && c->pos < c->chunk->fill) {
        struct rs_vs_piece *p = c->into[0];
        uint32_t n = RS_MIN(c->chunk->fill - c->pos, p->len - c->into_got);
        memcpy(p->own + c->into_got, c->chunk->base + c->pos, n);
        c->pos += n;
        c->into_got += n;
        if (c->into_got == p->len) first_piece_received(c);
        find_pieces(c);
    }
}

/* A request whose header is there: 1 it was taken, 0 its payload or room must come first. */
static int take_request(struct rs_vs_client *c, const struct rs_nbd_request *r)
{
    const struct rs_nbd_export *e = &c->server->exports[c->nbd.export];
    uint32_t there = c->chunk->fill - c->pos - RS_NBD_REQUEST;
    uint32_t error = rs_nbd_check(&c->nbd, e, r);
    const uint8_t *payload = NULL;
    bool started;
    if (error == 0 && r->type == RS_NBD_WRITE && r->len <= RS_VS_SMALL) {
        if (there < r->len) return 0;
        payload = c->chunk->base + c->pos + RS_NBD_REQUEST;
    }
    started = error == 0 ? rs_vs_request_start(c, r, payload, c->chunk) : rs_vs_request_refuse(c, r, error);
    if (!started) {
        c->stalled = true;
        return 0;
    }
    c->pos += RS_NBD_REQUEST + (payload != NULL ? r->len : 0);
    if (error != 0 && r->type == RS_NBD_WRITE) c->skip = r->len;
    if (error == 0) c->large = r->type == RS_NBD_WRITE && payload == NULL;
    return 1;
}

/* One request out of what was received; false when there is no more. */
static bool parse_request(struct rs_vs_client *c)
{
    struct rs_nbd_request r;
    int n = rs_nbd_request(&c->nbd, c->chunk->base + c->pos, c->chunk->fill - c->pos, &r);
    if (n < 0) rs_vs_client_drop(c, c->nbd.why);
    if (n <= 0) return false;
    if (r.type == RS_NBD_DISCONNECT) {
        rs_vs_client_leave(c);
        return false;
    }
    return take_request(c, &r) != 0;
}

static bool parse_option(struct rs_vs_client *c)
{
    size_t out = 0;
    if (c->answer_len != 0) return false; /* one after the other */
    int n = rs_nbd_negotiate(&c->nbd, &c->server->nbd, c->chunk->base + c->pos, c->chunk->fill - c->pos,
                             c->answer, &out);
    if (n < 0) rs_vs_client_drop(c, c->nbd.why);
    if (n <= 0) return false;
    c->pos += (uint32_t)n;
    c->answer_len = (uint32_t)out;
    if (c->nbd.phase == RS_NBD_ENDED) rs_vs_client_leave(c);
    return true;
}

static void parse(struct rs_vs_client *c)
{
    bool more = c->chunk != NULL;
    c->stalled = false;
    while (more && !c->leaving) {
        if (c->skip != 0) {
            uint32_t n = (uint32_t)RS_MIN(c->skip, (uint64_t)(c->chunk->fill - c->pos));
            c->skip -= n;
            c->pos += n;
            if (c->skip != 0) return;
        }
        if (c->taking != NULL) {
            copy_payload(c);
            if (c->taking != NULL) return;
        }
        if (c->pos == c->chunk->fill) return;
        more = c->nbd.phase == RS_NBD_TRANSMISSION ? parse_request(c) : parse_option(c);
    }
}

static void start_receive(struct rs_vs_client *c)
{
    struct rs_vs_chunk *k;
    unsigned n = 0;
    /* With something left to look at, room comes before more. */
    if (c->receiving || c->leaving || c->stalled) return;
    if (c->nbd.phase != RS_NBD_TRANSMISSION && c->answer_len != 0) return;
    find_pieces(c);
    for (unsigned i = 0; i < c->into_count; i++, n++) {
        uint32_t got = i == 0 ? c->into_got : 0;
        c->in_iov[n] = (struct iovec){.iov_base = c->into[i]->own + got, .iov_len = c->into[i]->len - got};
    }
    bool whole = c->taking == NULL || c->taking->begun == c->taking->pieces;
    if (c->taking != NULL && n == 0) return; /* its window is full */
    if (whole) {
        if (!make_room(c)) {
            c->stalled = true;
            if (n == 0) return;
        } else {
            k = c->chunk;
            uint32_t room = RS_VS_CHUNK - k->fill;
            /* After a large write another is likely: its payload should not come here. */
            if (c->large && k->fill == c->pos) room = RS_MIN(room, RS_NBD_REQUEST);
            c->in_iov[n++] = (struct iovec){.iov_base = k->base + k->fill, .iov_len = room};
        }
    }
    c->in_msg = (struct msghdr){.msg_iov = c->in_iov, .msg_iovlen = n};
    struct io_uring_sqe *sqe = rs_vs_sqe(c->server);
    io_uring_prep_recvmsg(sqe, c->fd, &c->in_msg, 0);
    rs_vs_tells(sqe, &c->receive, RS_VS_RECEIVE);
    c->receiving = true;
}

void rs_vs_client_received(struct rs_vs_client *c)
{
    int n = c->receive.result;
    c->receiving = false;
    if (c->leaving) cut_payload(c);
    if (n == -EINTR || n == -EAGAIN || c->leaving) return;
    if (n <= 0) {
        bool amid = c->taking != NULL || c->skip != 0 || (c->chunk != NULL && c->pos != c->chunk->fill);
        if (n == 0 && !amid)
            rs_vs_client_leave(c); /* without saying so, which is allowed */
        else
            rs_vs_client_drop(c, "it went away in the middle of a request");
        return;
    }
    uint32_t left = (uint32_t)n;
    while (left != 0 && c->into_count != 0) {
        uint32_t part = RS_MIN(left, c->into[0]->len - c->into_got);
        left -= part;
        c->into_got += part;
        if (c->into_got == c->into[0]->len) first_piece_received(c);
    }
    if (left != 0) c->chunk->fill += left;
    parse(c);
}

/* ---- a turn ------------------------------------------------------------------ */

void rs_vs_client_go(struct rs_vs_client *c)
{
    if (c->stalled && c->server->freed) parse(c);
    if (c->dead)
        discard_replies(c);
    else
        send_more(c);
    if (c->nbd.phase != RS_NBD_TRANSMISSION && c->answer_len == 0 && !c->receiving) parse(c);
    start_receive(c);
    if (!c->leaving || c->requests != 0 || c->sending || (c->answer_len != 0 && !c->dead)) return;
    /* A receive under way ends with the shutdown, and then this comes again. */
    if (c->receiving)
        (void)shutdown(c->fd, SHUT_RDWR);
    else
        client_close(c);
}
