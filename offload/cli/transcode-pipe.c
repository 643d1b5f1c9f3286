/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "offload/cli/transcode.h"
#include "offload/vm/qcow2.h"

#define CHECKPOINT_NS 10000000000ull

/* Zeros that become a hole: fewer would cost more writes than they save. */
#define HOLE_MIN 65536u
#define BLOCK    4096u

/* A piece on its way: read into a buffer of the arena, transcoded there, then written or compared. */
enum slot_state { SLOT_FREE, SLOT_READING, SLOT_READ, SLOT_IN_JOB, SLOT_LEAVING };

struct slot {
    struct rs_io_op op;
    enum slot_state state;
    uint64_t off; /* in the data */
    uint32_t len;
    uint32_t at; /* of the result, what is before this is written or stays a hole */
    uint8_t *buf;
    uint8_t *other; /* comparing: what the result must be */
};

struct pipe_run {
    struct rs_tc *t;
    const struct rs_tc_pipe *p;
    struct rs_extents extents;
    uint64_t pos;    /* where the next read begins */
    uint64_t failed; /* the first piece that will not be done in this run */
    uint64_t bytes;  /* through both keys */
    uint64_t holes;  /* passed over */
    bool end;        /* no read follows */
    bool sparse;     /* zeros need not be written */
    unsigned jobs;   /* in the ring */
    unsigned busy;   /* slots that are not free */
    struct rs_io_op flush;
    bool flushing;
    uint64_t flush_next; /* what the flush under way makes durable */
    uint64_t last_flush;
    unsigned slots;
    unsigned head; /* slots are used in turn: the next one to try */
    struct slot slot[RS_TC_SLOTS_MAX];
};

static void fail_io(struct rs_tc *t, int error, const char *verb, const struct rs_file *file)
{
    if (error == -EINVAL && file->direct)
        (void)rs_failure_set(&t->f, RS_EXIT_IO,
                             "cannot %s %s with O_DIRECT: its data is not aligned for it, use --buffered",
                             verb, file->path);
    else
        (void)rs_failure_errno(&t->f, error, verb, file->path);
}

static void start_read(struct pipe_run *c, struct slot *s)
{
    s->state = SLOT_READING;
    s->op = (struct rs_io_op){.what = RS_IO_READ,
                              .fd = c->p->from->file->io_fd,
                              .image = c->p->from->file->image,
                              .buf = s->buf,
                              .len = s->len,
                              .off = c->p->from->offset + s->off};
    rs_io_start(c->t->io, &s->op, c->p->from->file->direct);
}

static void end_slot(struct pipe_run *c, struct slot *s)
{
    s->state = SLOT_FREE;
    c->busy--;
}

static bool is_zero(const uint8_t *buf, size_t len)
{
    return buf[0] == 0 && (len == 1 || memcmp(buf, buf + 1, len - 1) == 0);
}

static uint32_t zeros_end(const struct slot *s, uint32_t at)
{
    while (at < s->len && is_zero(s->buf + at, RS_MIN(BLOCK, s->len - at))) at += RS_MIN(BLOCK, s->len - at);
    return at;
}

/* Passes over zeros that are enough for a hole; how much is to be written up to the next of them, or the end.
 */
static uint32_t next_part(struct slot *s)
{
    uint32_t zeros = zeros_end(s, s->at);
    if (zeros - s->at >= HOLE_MIN) s->at = zeros;
    uint32_t end = s->at;
    while (end < s->len && (zeros = zeros_end(s, end)) - end < HOLE_MIN)
        end = zeros > end ? zeros : RS_MIN(end + BLOCK, s->len);
    return end - s->at;
}

/* Writes the result, or what of it is more than zeros, or reads what it is to be compared with. */
static void start_leaving(struct pipe_run *c, struct slot *s)
{
    s->state = SLOT_LEAVING;
    uint32_t len = c->sparse ? next_part(s) : s->len - s->at;
    if (len == 0) {
        c->bytes += s->len;
        end_slot(c, s);
        return;
    }
    s->op = (struct rs_io_op){.what = c->p->compare ? RS_IO_READ : RS_IO_WRITE,
                              .fd = c->p->to->file->io_fd,
                              .image = c->p->to->file->image,
                              .buf = c->p->compare ? s->other : s->buf + s->at,
                              .len = len,
                              .off = c->p->to->offset + s->off + s->at};
    s->at += len;
    rs_io_start(c->t->io, &s->op, c->p->to->file->direct);
}

/* Starts up to `max` reads; how many it started. */
static unsigned start_reads(struct pipe_run *c, unsigned max)
{
    struct rs_tc *t = c->t;
    unsigned n = 0;
    for (; n < max && !c->end && c->busy < c->slots; n++) {
        uint64_t off, len;
        if (!rs_extents_next(&c->extents, c->pos, t->chunk, &off, &len)) {
            c->holes += t->data_size - c->pos;
            c->pos = t->data_size;
            c->end = true;
            break;
        }
        while (c->slot[c->head].state != SLOT_FREE) c->head = (c->head + 1) % c->slots;
        struct slot *s = &c->slot[c->head];
        c->holes += off - c->pos;
        c->pos = off + len;
        s->off = off;
        s->len = (uint32_t)len;
        c->busy++;
        start_read(c, s);
    }
    return n;
}

static void give_up_slot(struct pipe_run *c, struct slot *s)
{
    c->failed = RS_MIN(c->failed, s->off);
    end_slot(c, s);
}

/* All data before this has been written (not flushed). */
static uint64_t low_water(const struct pipe_run *c)
{
    uint64_t low = RS_MIN(c->pos, c->failed);
    for (unsigned i = 0; i < c->slots; i++)
        if (c->slot[i].state != SLOT_FREE) low = RS_MIN(low, c->slot[i].off);
    return low;
}

static int commit(struct pipe_run *c, uint64_t next, enum rs_journal_state state)
{
    struct rs_journal_record record = {.next = next, .state = state};
    int code = rs_journal_commit(&c->t->journal, &record);
    return code == 0 ? 0 : rs_failure_errno(&c->t->f, code, "write", c->t->journal_path);
}

static void end_flush(struct pipe_run *c)
{
    c->flushing = false;
    c->last_flush = rs_progress_clock();
    if (c->flush.result != 0)
        fail_io(c->t, c->flush.result, "flush", &c->t->dst_file);
    else
        (void)commit(c, c->flush_next, RS_JOURNAL_RUNNING);
}

static void report_difference(struct pipe_run *c, const struct slot *s)
{
    uint64_t at = 0;
    while (s->buf[at] == s->other[at]) at++;
    (void)rs_failure_set(
        &c->t->f, RS_EXIT_FAILED, "%s differs from its source in the data unit at byte %llu: do not use it",
        c->t->dst_file.path, (unsigned long long)((s->off + at) / c->t->granule * c->t->granule));
}

static void end_op(struct pipe_run *c, struct rs_io_op *op)
{
    struct rs_tc *t = c->t;
    if (op == &c->flush) {
        end_flush(c);
        return;
    }
    struct slot *s = (struct slot *)(void *)op; /* the operation is its first member */
    bool read = s->state == SLOT_READING;
    if (op->result != 0) {
        fail_io(t, op->result, op->what == RS_IO_READ ? "read" : "write",
                read ? c->p->from->file : c->p->to->file);
        give_up_slot(c, s);
        return;
    }
    if (read) {
        s->state = SLOT_READ;
        return;
    }
    if (c->p->compare && memcmp(s->buf, s->other, s->len) != 0) report_difference(c, s);
    start_leaving(c, s); /* the rest */
}

/* Gives the service what has been read, in order of the slots; false when it is gone. */
static bool submit_jobs(struct pipe_run *c)
{
    struct rs_tc *t = c->t;
    struct reseal_job job[32];
    unsigned n = 0;
    for (unsigned i = 0; i < c->slots && n < RS_ARRAY_LEN(job); i++) {
        struct slot *s = &c->slot[(c->head + 1 + i) % c->slots];
        if (s->state != SLOT_READ) continue;
        job[n++] = (struct reseal_job){.session = c->p->session,
                                       .in = s->buf,
                                       .out = s->buf,
                                       .len = s->len,
                                       .src_tweak = rs_tc_tweak(c->p->from, s->off),
                                       .dst_tweak = rs_tc_tweak(c->p->to, s->off),
                                       .user_data = (uint64_t)(s - c->slot)};
    }
    if (n == 0) return true;
    int taken = reseal_submit(t->queue, job, n);
    if (taken == RESEAL_EAGAIN) return true;
    if (taken < 0) {
        (void)rs_failure_code(&t->f, taken, "cannot submit");
        return false;
    }
    for (int i = 0; i < taken; i++) c->slot[job[i].user_data].state = SLOT_IN_JOB;
    c->jobs += (unsigned)taken;
    return true;
}

static void end_job(struct pipe_run *c, const struct reseal_completion *done)
{
    struct slot *s = &c->slot[done->user_data % c->slots];
    c->jobs--;
    if (done->status == RESEAL_ELOST && c->t->f.exit == 0) {
        start_read(c, s); /* the service died under it; the source is as it was */
        return;
    }
    if (done->status != 0) (void)rs_failure_code(&c->t->f, done->status, "a job failed");
    s->at = 0;
    if (done->status == 0 && c->t->f.exit == 0)
        start_leaving(c, s);
    else
        give_up_slot(c, s);
}

/* Takes what the service finished; waits for it when there is nothing else to wait for. Returns how many, or
 * -1: gone. */
static int take_jobs(struct pipe_run *c, bool wait)
{
    struct reseal_completion done[32];
    if (c->jobs == 0) return 0;
    int n = wait ? reseal_wait(c->t->queue, done, RS_ARRAY_LEN(done), 1000)
                 : reseal_poll(c->t->queue, done, RS_ARRAY_LEN(done));
    if (n == RESEAL_ETIMEDOUT) return 0;
    if (n < 0) {
        (void)rs_failure_code(&c->t->f, n, "the service went away");
        return -1;
    }
    for (int i = 0; i < n; i++) end_job(c, &done[i]);
    return n;
}

static void start_checkpoint(struct pipe_run *c)
{
    if (c->flushing || c->p->compare || c->t->journal.fd < 0 ||
        rs_progress_clock() - c->last_flush < CHECKPOINT_NS)
        return;
    c->flush_next = low_water(c);
    c->flush = (struct rs_io_op){.what = RS_IO_FLUSH, .fd = c->t->dst_file.fd, .image = c->t->dst_file.image};
    c->flushing = true;
    rs_io_start(c->t->io, &c->flush, false);
}

/* One turn: reads, jobs, writes, whatever can go on. False when the service is gone. */
static bool turn(struct pipe_run *c)
{
    struct rs_tc *t = c->t;
    if (t->f.exit != 0 || rs_tc_stopped()) c->end = true;
    const struct rs_file *from = c->p->from->file;
    bool one = from->image == NULL && rs_io_inline(t->io, from->direct);
    bool moved = start_reads(c, one ? 1 : c->slots) != 0;
    start_checkpoint(c);
    rs_io_submit(t->io);
    for (struct rs_io_op *op; (op = rs_io_next(t->io)) != NULL; moved = true) end_op(c, op);
    if (!submit_jobs(c)) return false;
    int n = take_jobs(c, false);
    if (n < 0) return false;
    if (moved || n > 0) {
        rs_progress_at(&t->progress, c->pos);
        return true;
    }
    if (rs_io_pending(t->io) != 0) {
        rs_io_wait(t->io, c->jobs != 0, 1000);
        return true;
    }
    return take_jobs(c, true) >= 0;
}

/* A slot whose job will not come back: the service is gone and with it what it had. */
static void abandon(struct pipe_run *c)
{
    while (rs_io_pending(c->t->io) != 0) {
        struct rs_io_op *op = rs_io_next(c->t->io);
        if (op == NULL)
            rs_io_wait(c->t->io, false, 1000);
        else
            end_op(c, op);
    }
}

static void set_up(struct pipe_run *c, struct rs_tc *t, const struct rs_tc_pipe *p)
{
    c->t = t;
    c->p = p;
    /* A part of a cluster of an encrypted image would read as noise if the rest were not written. */
    uint32_t least = t->dst_file.image != NULL && t->dst.cipher == RESEAL_XTS ? RS_QCOW2_CLUSTER : 4096;
    c->extents = (struct rs_extents){.fd = t->src_file.fd,
                                     .image = t->src_file.image,
                                     .skip = t->skip_holes,
                                     .base = t->src.offset,
                                     .size = t->data_size,
                                     .granule = RS_MAX(t->granule, least)};
    c->sparse = t->new_holes && !p->compare && p->to->cipher == RESEAL_PLAIN;
    c->pos = p->start;
    c->failed = UINT64_MAX;
    c->last_flush = rs_progress_clock();
    c->slots = p->compare ? t->slots / 2 : t->slots;
    for (unsigned i = 0; i < c->slots; i++) {
        c->slot[i].buf = t->arena + (size_t)i * t->chunk;
        c->slot[i].other = p->compare ? t->arena + (size_t)(i + c->slots) * t->chunk : NULL;
    }
    (void)posix_fadvise(p->from->file->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
}

int rs_tc_pipe(struct rs_tc *t, const struct rs_tc_pipe *p, struct rs_tc_pipe_result *result)
{
    *result = (struct rs_tc_pipe_result){.done = p->start};
    struct pipe_run *c = calloc(1, sizeof(*c));
    if (c == NULL) return rs_failure_errno(&t->f, ENOMEM, "copy", t->o.src.path);
    set_up(c, t, p);
    rs_progress_begin(&t->progress,
                      t->o.quiet  ? RS_PROGRESS_NONE
                      : t->o.json ? RS_PROGRESS_JSON
                                  : RS_PROGRESS_TEXT,
                      p->label, p->start, t->data_size);
    bool there = true;
    while (there && (!c->end || c->busy != 0 || c->flushing)) there = turn(c);
    if (!there) abandon(c);
    *result = (struct rs_tc_pipe_result){.done = low_water(c), .bytes = c->bytes, .holes = c->holes};
    rs_progress_end(&t->progress, result->done);
    bool whole = c->pos == t->data_size;
    free(c);
    if (t->f.exit != 0) return t->f.exit;
    return whole ? 0 : rs_failure_set(&t->f, RS_EXIT_INTERRUPTED, "interrupted");
}
