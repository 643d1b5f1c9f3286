/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>

#include "offload/client/peek.h"
#include "offload/vm/serve-internal.h"

/* Jobs given to the service in one call. */
#define BATCH 64u

static void piece_go(struct rs_vs_piece *p);
static void piece_ended(struct rs_vs_piece *p);
static void piece_failed(struct rs_vs_piece *p, uint32_t error);

static bool writes(const struct rs_vs_piece *p)
{
    return p->request->nbd.type != RS_NBD_READ;
}

/* True when the data does not cover its grains whole: the rest must be kept. */
static bool partial(const struct rs_vs_piece *p)
{
    return p->len != p->span;
}

/* ---- ranges: pieces that overlap follow each other, unless both read -------- */

static bool blocked(const struct rs_vs_disk *d, const struct rs_vs_piece *p)
{
    for (const struct rs_vs_piece *q = d->first; q != p; q = q->next)
        if (q->start < p->start + p->span && p->start < q->start + q->span && (writes(q) || writes(p)))
            return true;
    return false;
}

/* Takes a piece's place among those of its disk, and starts it when nothing is in its way. */
static void lock_and_go(struct rs_vs_piece *p)
{
    struct rs_vs_disk *d = p->request->disk;
    /* The disk became smaller since the request was checked. */
    if (p->start + p->span > d->export->size) {
        piece_failed(p, writes(p) ? RS_NBD_ENOSPC : RS_NBD_EINVAL);
        return;
    }
    if (d->stored != NULL && writes(p) && p->request->nbd.type != RS_NBD_TRIM) rs_vs_image_settle(p);
    p->next = NULL;
    p->prev = d->last;
    if (d->last != NULL)
        d->last->next = p;
    else
        d->first = p;
    d->last = p;
    p->locked = true;
    if (writes(p)) d->writers++;
    if (d->writers != 0 && blocked(d, p)) {
        p->state = RS_VS_WAITING;
        d->waiting++;
        return;
    }
    piece_go(p);
}

static void unlock(struct rs_vs_piece *p)
{
    struct rs_vs_disk *d = p->request->disk;
    if (!p->locked) return;
    p->locked = false;
    if (p->prev != NULL)
        p->prev->next = p->next;
    else
        d->first = p->next;
    if (p->next != NULL)
        p->next->prev = p->prev;
    else
        d->last = p->prev;
    if (writes(p)) d->writers--;
    for (struct rs_vs_piece *q = d->first; q != NULL && d->waiting != 0; q = q->next) {
        if (q->state != RS_VS_WAITING || blocked(d, q)) continue;
        d->waiting--;
        piece_go(q);
    }
}

/* ---- requests ---------------------------------------------------------------- */

static struct rs_vs_request *take_request(struct rs_vs_client *c, const struct rs_nbd_request *nbd)
{
    struct rs_vmserve *s = c->server;
    struct rs_vs_request *r = s->free_requests;
    if (r == NULL || c->requests == RS_VS_INFLIGHT) return NULL;
    s->free_requests = r->next;
    r->client = c;
    r->disk = &s->disks[c->nbd.export];
    r->nbd = *nbd;
    r->error = 0;
    r->pieces = r->begun = r->ended = r->ready = r->emitted = r->busy = 0;
    r->queued = r->by_client = false;
    r->next = NULL;
    for (unsigned i = 0; i < RS_VS_WINDOW; i++) {
        struct rs_vs_piece *p = &r->piece[i];
        p->request = r;
        p->state = RS_VS_FREE;
        p->buf = p->own = NULL;
        p->chunk = NULL;
        p->locked = false;
        p->unstored = 0;
    }
    c->requests++;
    return r;
}

static void give_buffers(struct rs_vs_request *r)
{
    struct rs_vmserve *s = r->client->server;
    for (unsigned i = 0; i < RS_VS_WINDOW; i++) {
        struct rs_vs_piece *p = &r->piece[i];
        rs_vs_buffer_give(&s->buffers, p->buf);
        rs_vs_buffer_give(&s->buffers, p->own);
        rs_vs_chunk_drop(&s->buffers, p->chunk);
    }
}

void rs_vs_request_free(struct rs_vs_request *r)
{
    struct rs_vmserve *s = r->client->server;
    give_buffers(r);
    r->client->requests--;
    r->next = s->free_requests;
    s->free_requests = r;
    s->freed = true;
}

bool rs_vs_request_refuse(struct rs_vs_client *c, const struct rs_nbd_request *nbd, uint32_t error)
{
    struct rs_vs_request *r = take_request(c, nbd);
    if (r == NULL) return false;
    r->error = error;
    rs_vs_client_reply(c, r);
    return true;
}

/* What it writes must be on the disk before it is answered. */
static void start_flush(struct rs_vs_request *r)
{
    struct rs_vmserve *s = r->client->server;
    r->busy++;
    if (r->disk->spec->image != NULL) {
        rs_vs_image_start(s, r->disk, &r->op, RS_VS_FILE_FLUSH, NULL, 0, 0);
        return;
    }
    struct io_uring_sqe *sqe = rs_vs_sqe(s);
    io_uring_prep_fsync(sqe, r->disk->spec->fd, IORING_FSYNC_DATASYNC);
    rs_vs_tells(sqe, &r->op, RS_VS_FILE_FLUSH);
}

/* Answers when nothing of it is under way any more. */
static void look_at(struct rs_vs_request *r)
{
    if (r->busy != 0 || r->queued) return;
    if (r->ended != r->pieces && (r->error == 0 || r->by_client)) return;
    if (r->error == 0 && r->nbd.type != RS_NBD_READ && (r->nbd.flags & RS_NBD_FUA) != 0 && r->pieces != 0) {
        r->nbd.flags &= (uint16_t)~RS_NBD_FUA;
        start_flush(r);
        return;
    }
    rs_vs_client_reply(r->client, r);
}

/* The first error is what the client gets; what it waits for no more is dropped. */
static void fail(struct rs_vs_request *r, uint32_t error)
{
    if (r->error == 0) r->error = error;
    for (unsigned i = 0; i < RS_VS_WINDOW; i++)
        if (r->piece[i].state == RS_VS_READY) piece_ended(&r->piece[i]);
}

void rs_vs_request_discard(struct rs_vs_request *r)
{
    fail(r, RS_NBD_ESHUTDOWN);
}

/* ---- pieces ------------------------------------------------------------------ */

void rs_vs_piece_place(struct rs_vs_request *r, uint32_t number, struct rs_vs_piece *p)
{
    const struct rs_vs_disk *d = r->disk;
    uint64_t off = r->nbd.offset, base = off / RS_VS_PIECE * RS_VS_PIECE + (uint64_t)number * RS_VS_PIECE;
    uint64_t from = RS_MAX(base, off), to = RS_MIN(base + RS_VS_PIECE, off + r->nbd.len);
    /* Of a cluster that may not be stored yet, all: the last one can be cut. Others are whole in the size
     * that the request was checked with, which can be less by now. */
    bool thin = d->stored != NULL && r->nbd.type != RS_NBD_READ;
    uint32_t grain = thin ? d->cluster : d->grain;
    uint64_t end = rs_round_up(to, grain);
    if (thin) end = RS_MIN(end, d->export->size);
    p->start = from / grain * grain;
    p->span = (uint32_t)(end - p->start);
    p->head = (uint32_t)(from - p->start);
    p->len = (uint32_t)(to - from);
    p->done = 0;
}

static uint32_t count_pieces(const struct rs_nbd_request *n)
{
    return (uint32_t)((n->offset + n->len - 1) / RS_VS_PIECE - n->offset / RS_VS_PIECE) + 1;
}

static bool take_buffers(struct rs_vs_request *r, bool own)
{
    struct rs_vs_buffers *b = &r->client->server->buffers;
    struct rs_vs_piece first;
    rs_vs_piece_place(r, 0, &first);
    uint32_t len = r->pieces == 1 ? first.span : RS_VS_PIECE;
    for (unsigned i = 0; i < RS_MIN(r->pieces, RS_VS_WINDOW); i++) {
        struct rs_vs_piece *p = &r->piece[i];
        p->buf = rs_vs_buffer_take(b, len);
        if (own) p->own = rs_vs_buffer_take(b, len);
        if (p->buf == NULL || (own && p->own == NULL)) return false;
    }
    return true;
}

/* The next piece in its slot, or NULL when there is none or the slot is in use. */
static struct rs_vs_piece *next_piece(struct rs_vs_request *r)
{
    struct rs_vs_piece *p = &r->piece[r->begun % RS_VS_WINDOW];
    if (r->begun == r->pieces || p->state != RS_VS_FREE) return NULL;
    rs_vs_piece_place(r, r->begun, p);
    r->begun++;
    r->busy++;
    return p;
}

static void begin_pieces(struct rs_vs_request *r)
{
    for (struct rs_vs_piece *p; r->error == 0 && (p = next_piece(r)) != NULL;) lock_and_go(p);
}

struct rs_vs_piece *rs_vs_piece_next(struct rs_vs_request *r)
{
    struct rs_vs_piece *p = next_piece(r);
    if (p == NULL) return NULL;
    p->state = RS_VS_RECEIVING;
    p->in = p->own;
    return p;
}

void rs_vs_piece_received(struct rs_vs_piece *p)
{
    if (p->request->error != 0) {
        piece_ended(p);
        look_at(p->request);
        return;
    }
    lock_and_go(p);
}

void rs_vs_request_cut(struct rs_vs_request *r)
{
    r->by_client = false;
    for (unsigned i = 0; i < RS_VS_WINDOW; i++)
        if (r->piece[i].state == RS_VS_RECEIVING) piece_ended(&r->piece[i]);
    fail(r, RS_NBD_ESHUTDOWN);
    look_at(r);
}

/* Nothing more is to be done for it. */
static void piece_ended(struct rs_vs_piece *p)
{
    struct rs_vs_request *r = p->request;
    p->state = RS_VS_FREE;
    unlock(p);
    r->busy--;
    r->ended++;
}

static void piece_failed(struct rs_vs_piece *p, uint32_t error)
{
    struct rs_vs_request *r = p->request;
    fail(r, error);
    piece_ended(p);
    look_at(r);
}

static void piece_written(struct rs_vs_piece *p)
{
    struct rs_vs_request *r = p->request;
    if (r->disk->stored != NULL && r->nbd.type != RS_NBD_TRIM)
        rs_vs_image_mark(r->disk, p->start, p->span, true);
    piece_ended(p);
    if (!r->by_client) begin_pieces(r);
    look_at(r);
}

static void piece_ready(struct rs_vs_piece *p)
{
    struct rs_vs_request *r = p->request;
    unlock(p);
    if (r->error != 0) {
        piece_ended(p);
        look_at(r);
        return;
    }
    p->state = RS_VS_READY;
    r->ready++;
    /* A reply that was begun keeps others waiting: it starts when it can go on. */
    if (!r->queued && r->ready == RS_MIN(r->pieces, RS_VS_WINDOW)) rs_vs_client_reply(r->client, r);
}

void rs_vs_piece_sent(struct rs_vs_piece *p)
{
    struct rs_vs_request *r = p->request;
    piece_ended(p);
    begin_pieces(r);
}

/* ---- the image --------------------------------------------------------------- */

static void start_job(struct rs_vs_piece *p, enum rs_vs_state state)
{
    struct rs_vmserve *s = p->request->client->server;
    p->state = state;
    s->jobs[(s->jobs_first + s->jobs_count++) % RS_ARRAY_LEN(s->jobs)] = p;
}

/*
 * A small piece that is in the page cache, while nothing else is under way: one call, where the ring wants
 * one to hand over and one to wait. With more to do the ring takes several at a time.
 */
static bool read_at_once(struct rs_vmserve *s, struct rs_vs_piece *p, uint64_t at)
{
    const struct rs_vs_disk *d = p->request->disk;
    if (d->spec->align != 0 || p->span > RS_VS_SMALL || s->in_jobs + s->jobs_count != 0) return false;
    struct iovec v = {.iov_base = p->buf, .iov_len = p->span};
    if (p->done != 0 || preadv2(d->spec->fd, &v, 1, (off_t)at, RWF_NOWAIT) != (ssize_t)p->span) return false;
    p->done = 0;
    start_job(p, RS_VS_OPENING);
    return true;
}

static void start_file(struct rs_vs_piece *p, bool write)
{
    struct rs_vmserve *s = p->request->client->server;
    const struct rs_vs_disk *d = p->request->disk;
    uint64_t at = d->luks.data_offset + p->start + p->done;
    p->state = write ? RS_VS_WRITING : RS_VS_READING;
    if (d->spec->image != NULL) {
        rs_vs_image_start(s, d, &p->op, write ? RS_VS_FILE_WRITE : RS_VS_FILE_READ, p->buf, p->span, at);
        return;
    }
    if (!write && read_at_once(s, p, at)) return;
    struct io_uring_sqe *sqe = rs_vs_sqe(s);
    if (write)
        io_uring_prep_write(sqe, d->spec->fd, p->buf + p->done, p->span - p->done, at);
    else
        io_uring_prep_read(sqe, d->spec->fd, p->buf + p->done, p->span - p->done, at);
    rs_vs_tells(sqe, &p->op, write ? RS_VS_FILE_WRITE : RS_VS_FILE_READ);
}

/* Whole grains inside a trim become a hole. */
static void start_hole(struct rs_vs_piece *p)
{
    struct rs_vmserve *s = p->request->client->server;
    struct rs_vs_disk *d = p->request->disk;
    p->state = RS_VS_WRITING;
    if (d->stored != NULL) rs_vs_image_mark(d, p->start, p->span, false);
    if (d->spec->image != NULL) {
        rs_vs_image_start(s, d, &p->op, RS_VS_FILE_HOLE, NULL, p->span, d->luks.data_offset + p->start);
        return;
    }
    struct io_uring_sqe *sqe = rs_vs_sqe(s);
    io_uring_prep_fallocate(sqe, d->spec->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                            (off_t)(d->luks.data_offset + p->start), (off_t)p->span);
    rs_vs_tells(sqe, &p->op, RS_VS_FILE_HOLE);
}

static void piece_go(struct rs_vs_piece *p)
{
    p->done = 0;
    if (p->request->nbd.type == RS_NBD_TRIM)
        start_hole(p);
    else if (writes(p) && !partial(p))
        start_job(p, RS_VS_SEALING);
    else
        start_file(p, false);
}

/* The payload goes between what was there before it and after it. */
static void merge(struct rs_vs_piece *p)
{
    if (p->request->nbd.type == RS_NBD_ZERO)
        memset(p->buf + p->head, 0, p->len);
    else
        memcpy(p->buf + p->head, p->in, p->len);
}

/* Its plain text is there. */
static void opened(struct rs_vs_piece *p)
{
    if (!writes(p)) {
        piece_ready(p);
        return;
    }
    merge(p);
    start_job(p, RS_VS_SEALING);
}

/* A transfer went well, or part of it did. */
static void file_moved(struct rs_vs_piece *p, bool write, uint32_t n)
{
    p->done += n;
    if (p->done < p->span) {
        start_file(p, write);
        return;
    }
    p->done = 0;
    if (write)
        piece_written(p);
    else if (p->unstored == p->span)
        opened(p); /* all zeros, as they were read */
    else
        start_job(p, RS_VS_OPENING);
}

static uint32_t error_of(int error)
{
    if (error == -ENODATA) return RS_NBD_EINVAL;
    return error == -ENOSPC || error == -EDQUOT || error == -EFBIG ? RS_NBD_ENOSPC : RS_NBD_EIO;
}

static void flush_ended(struct rs_vmserve *s, struct rs_vs_request *r, int result)
{
    r->busy--;
    if (result < 0) {
        rs_vs_file_failed(s, r->disk, "flush", result);
        fail(r, RS_NBD_EIO);
    }
    look_at(r);
}

void rs_vs_file_ended(struct rs_vmserve *s, struct rs_vs_op *op)
{
    int result = op->result;
    bool write = op->what == RS_VS_FILE_WRITE;
    if (op->what == RS_VS_FILE_FLUSH) {
        flush_ended(s, (struct rs_vs_request *)(void *)op, result);
        return;
    }
    struct rs_vs_piece *p = (struct rs_vs_piece *)(void *)op; /* the operation is its first member */
    if (op->what == RS_VS_FILE_HOLE) {
        /* A file system without holes keeps the data: a trim is advice. */
        p->request->disk->trims--;
        piece_written(p);
        return;
    }
    if (result == -EINTR || result == -EAGAIN) {
        start_file(p, write);
        return;
    }
    if (result <= 0) {
        if (result == 0) result = write ? -EIO : -ENODATA;
        if (result == -ENODATA) rs_vs_sizes_look(s, false); /* it became smaller just now */
        rs_vs_file_failed(s, p->request->disk, write ? "write" : "read", result);
        piece_failed(p, error_of(result));
        return;
    }
    file_moved(p, write, (uint32_t)result);
}

/* ---- jobs -------------------------------------------------------------------- */

static void job_done(struct rs_vs_piece *p)
{
    if (p->state == RS_VS_SEALING) {
        start_file(p, true);
        return;
    }
    if (p->unstored != 0) rs_vs_image_zero(p);
    opened(p);
}

/* Errors that another key or session mends. */
static bool key_is_gone(int status)
{
    return status == RESEAL_EKEYGONE || status == RESEAL_EREVOKED || status == RESEAL_ENOKEY ||
           status == RESEAL_ECANCELED;
}

static void job_failed(struct rs_vmserve *s, struct rs_vs_piece *p, int status)
{
    struct rs_vs_disk *d = p->request->disk;
    if (status == RESEAL_ELOST) {
        piece_go(p); /* the service died under it: the image is as it was */
        return;
    }
    if (key_is_gone(status) && (p->keys != d->keys || rs_vs_key_again(s, d))) {
        piece_go(p);
        return;
    }
    if (!key_is_gone(status))
        rs_vs_say(s, "disk %s: a job failed: %s", d->spec->name, reseal_strerror(status));
    piece_failed(p, RS_NBD_EIO);
}

static struct reseal_job job_of(const struct rs_vmserve *s, struct rs_vs_piece *p)
{
    const struct rs_vs_disk *d = p->request->disk;
    uint64_t tweak = d->luks.first_tweak + p->start / d->luks.unit * d->luks.step;
    bool seal = p->state == RS_VS_SEALING;
    const uint8_t *in = p->buf;
    if (seal && !partial(p)) in = p->request->nbd.type == RS_NBD_ZERO ? s->buffers.zeros : p->in;
    return (struct reseal_job){.session = seal ? d->seal : d->open,
                               .in = in,
                               .out = p->buf,
                               .len = p->span,
                               .src_tweak = seal ? 0 : tweak,
                               .dst_tweak = seal ? tweak : 0,
                               .user_data = (uintptr_t)p};
}

static struct rs_vs_piece *job_at(const struct rs_vmserve *s, uint32_t i)
{
    return s->jobs[(s->jobs_first + i) % RS_ARRAY_LEN(s->jobs)];
}

static void jobs_drop(struct rs_vmserve *s, uint32_t n)
{
    s->jobs_first = (s->jobs_first + n) % RS_ARRAY_LEN(s->jobs);
    s->jobs_count -= n;
}

void rs_vs_jobs_submit(struct rs_vmserve *s)
{
    struct reseal_job jobs[BATCH];
    while (s->jobs_count != 0) {
        uint32_t n = RS_MIN(s->jobs_count, BATCH);
        for (uint32_t i = 0; i < n; i++) {
            struct rs_vs_piece *p = job_at(s, i);
            p->keys = p->request->disk->keys;
            jobs[i] = job_of(s, p);
        }
        int taken = jobs[0].session != NULL ? reseal_submit(s->queue, jobs, n) : RESEAL_EKEYGONE;
        if (taken == RESEAL_EAGAIN) return;
        if (taken > 0) {
            jobs_drop(s, (uint32_t)taken);
            s->in_jobs += (unsigned)taken;
            s->armed = false; /* the queue may be another one now, after a restart, that was not asked */
        } else {
            /* It is about the first of them. */
            struct rs_vs_piece *p = job_at(s, 0);
            jobs_drop(s, 1);
            job_failed(s, p, taken);
            if (taken == RESEAL_ENOSERVICE) s->failed = taken;
        }
    }
}

bool rs_vs_jobs_ready(const struct rs_vmserve *s)
{
    return s->in_jobs != 0 && rs_queue_peek(s->queue);
}

bool rs_vs_jobs_take(struct rs_vmserve *s)
{
    struct reseal_completion done[BATCH];
    if (s->in_jobs == 0) return false;
    int n = reseal_poll(s->queue, done, BATCH);
    if (n < 0) {
        s->failed = n;
        s->in_jobs = 0;
        return true;
    }
    s->armed = n == 0;
    for (int i = 0; i < n; i++) {
        struct rs_vs_piece *p = (struct rs_vs_piece *)(uintptr_t)done[i].user_data;
        s->in_jobs--;
        if (done[i].status == 0)
            job_done(p);
        else
            job_failed(s, p, done[i].status);
    }
    return n > 0;
}

/* ---- starting ---------------------------------------------------------------- */

/* Whole grains, and whole blocks of the file system, inside a trim; false: there are none. */
static bool place_hole(struct rs_vs_request *r, struct rs_vs_piece *p)
{
    uint64_t grain = RS_MAX(RS_MAX(r->disk->grain, r->disk->cluster), 4096u);
    uint64_t from = rs_round_up(r->nbd.offset, grain), to = (r->nbd.offset + r->nbd.len) / grain * grain;
    if (!r->disk->spec->discard || to <= from) return false;
    p->start = from;
    p->span = p->len = (uint32_t)(to - from);
    p->head = 0;
    return true;
}

static void start_trim(struct rs_vs_request *r)
{
    struct rs_vs_piece *p = &r->piece[0];
    if (!place_hole(r, p)) {
        look_at(r);
        return;
    }
    r->pieces = r->begun = r->busy = 1;
    r->disk->trims++;
    lock_and_go(p);
}

/* What needs no data. */
static void start_other(struct rs_vs_request *r)
{
    const struct rs_vs_disk *d = r->disk;
    if (r->nbd.type == RS_NBD_TRIM) {
        start_trim(r);
        return;
    }
    if (r->nbd.type == RS_NBD_FLUSH && !d->spec->read_only) {
        start_flush(r);
        return;
    }
    if (r->nbd.type == RS_NBD_CACHE && d->spec->image == NULL)
        (void)posix_fadvise(d->spec->fd, (off_t)(d->luks.data_offset + r->nbd.offset), (off_t)r->nbd.len,
                            POSIX_FADV_WILLNEED);
    look_at(r);
}

bool rs_vs_request_start(struct rs_vs_client *c, const struct rs_nbd_request *nbd, const uint8_t *payload,
                         struct rs_vs_chunk *chunk)
{
    struct rs_vs_request *r = take_request(c, nbd);
    if (r == NULL) return false;
    if (nbd->type != RS_NBD_READ && nbd->type != RS_NBD_WRITE && nbd->type != RS_NBD_ZERO) {
        start_other(r);
        return true;
    }
    r->pieces = count_pieces(nbd);
    r->by_client = nbd->type == RS_NBD_WRITE && payload == NULL;
    if (!take_buffers(r, r->by_client)) {
        bool freed = c->server->freed;
        rs_vs_request_free(r);
        c->server->freed = freed; /* it is what it was before */
        return false;
    }
    if (r->by_client) {
        c->taking = r;
        return true;
    }
    uint32_t used = 0;
    for (uint32_t i = 0; payload != NULL && i < r->pieces; i++) {
        struct rs_vs_piece *p = &r->piece[i];
        rs_vs_piece_place(r, i, p);
        p->in = payload + used;
        used += p->len;
        p->chunk = chunk;
        chunk->refs++;
    }
    begin_pieces(r);
    return true;
}
