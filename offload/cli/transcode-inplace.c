/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "offload/cli/transcode.h"

/*
 * Rounds. In round n zone n is read, transcoded and written to its area of the
 * journal while zone n-1, whose record was committed, is written to the image;
 * both are flushed; then the record of zone n is committed. See journal.h for
 * why a crash at any write can be told apart.
 */

#define PIECES_MAX (RS_JOURNAL_SEGMENTS + RS_TC_SLOTS_MAX)

enum piece_state { PIECE_READING, PIECE_READ, PIECE_IN_JOB, PIECE_TO_JOURNAL, PIECE_TO_IMAGE, PIECE_DONE };

struct piece {
    struct rs_io_op op;
    enum piece_state state;
    uint64_t off; /* in the data */
    uint32_t at;  /* in the area, and in the half of the arena */
    uint32_t len;
};

struct zone {
    struct rs_journal_record record;
    unsigned pieces;
    uint32_t bytes;
    uint64_t holes;
    struct piece piece[PIECES_MAX];
};

struct in_place {
    struct rs_tc *t;
    struct rs_extents extents;
    uint64_t pos;
    uint32_t area; /* of the next zone */
    unsigned todo; /* pieces of this round that are not done */
    unsigned jobs;
    unsigned read; /* pieces that wait for a place in the ring */
    struct zone zone[2];
};

static uint8_t *piece_buf(const struct rs_tc *t, const struct zone *z, const struct piece *p)
{
    return t->arena + (size_t)z->record.area * t->o.zone + p->at;
}

static void fail_io(struct rs_tc *t, int error, const char *verb, const char *path, bool direct)
{
    if (error == -EINVAL && direct)
        (void)rs_failure_set(&t->f, RS_EXIT_IO,
                             "cannot %s %s with O_DIRECT: its data is not aligned for it, use --buffered",
                             verb, path);
    else
        (void)rs_failure_errno(&t->f, error, verb, path);
}

/* Picks the data of the next zone; an empty one at the end, or when the run shall stop. */
static void fill_zone(struct in_place *p, struct zone *z)
{
    struct rs_tc *t = p->t;
    struct rs_journal_record *r = &z->record;
    z->pieces = 0;
    z->bytes = 0;
    z->holes = 0;
    *r = (struct rs_journal_record){.state = RS_JOURNAL_RUNNING, .area = p->area};
    while (!rs_tc_stopped() && t->f.exit == 0 && z->bytes < t->o.zone && z->pieces < PIECES_MAX) {
        uint64_t off, len;
        if (!rs_extents_next(&p->extents, p->pos, RS_MIN(t->chunk, t->o.zone - z->bytes), &off, &len)) {
            z->holes += t->data_size - p->pos;
            p->pos = t->data_size;
            break;
        }
        bool joins =
            r->segments != 0 && r->segment[r->segments - 1].off + r->segment[r->segments - 1].len == off;
        if (!joins && r->segments == RS_JOURNAL_SEGMENTS) break;
        if (!joins) r->segment[r->segments++] = (struct rs_journal_segment){.off = off};
        r->segment[r->segments - 1].len += len;
        z->holes += off - p->pos;
        z->piece[z->pieces++] = (struct piece){.off = off, .at = z->bytes, .len = (uint32_t)len};
        z->bytes += (uint32_t)len;
        p->pos = off + len;
    }
    r->next = p->pos;
    p->area ^= 1;
}

static void start_piece(struct in_place *p, struct zone *z, struct piece *piece, enum piece_state state)
{
    struct rs_tc *t = p->t;
    bool journal = state == PIECE_TO_JOURNAL;
    piece->state = state;
    piece->op = (struct rs_io_op){.what = state == PIECE_READING ? RS_IO_READ : RS_IO_WRITE,
                                  .fd = journal ? t->journal.io_fd : t->src_file.io_fd,
                                  .buf = piece_buf(t, z, piece),
                                  .len = piece->len,
                                  .off = journal ? t->journal.area_at[z->record.area] + piece->at
                                                 : t->src.offset + piece->off};
    rs_io_start(t->io, &piece->op, journal ? t->journal.direct : t->src_file.direct);
}

static void end_piece(struct in_place *p, struct piece *piece)
{
    piece->state = PIECE_DONE;
    p->todo--;
}

static void end_op(struct in_place *p, struct rs_io_op *op)
{
    struct rs_tc *t = p->t;
    struct piece *piece = (struct piece *)(void *)op; /* the operation is its first member */
    if (op->result != 0) {
        bool journal = piece->state == PIECE_TO_JOURNAL;
        fail_io(t, op->result, piece->state == PIECE_READING ? "read" : "write",
                journal ? t->journal_path : t->src_file.path,
                journal ? t->journal.direct : t->src_file.direct);
    }
    if (piece->state == PIECE_READING && t->f.exit == 0) {
        piece->state = PIECE_READ;
        p->read++;
        return;
    }
    end_piece(p, piece);
}

static bool submit_jobs(struct in_place *p, struct zone *z)
{
    struct rs_tc *t = p->t;
    struct reseal_job job[32];
    unsigned n = 0;
    for (unsigned i = 0; i < z->pieces && n < RS_ARRAY_LEN(job) && p->read != 0; i++) {
        struct piece *piece = &z->piece[i];
        if (piece->state != PIECE_READ) continue;
        uint8_t *buf = piece_buf(t, z, piece);
        job[n++] = (struct reseal_job){.session = t->session,
                                       .in = buf,
                                       .out = buf,
                                       .len = piece->len,
                                       .src_tweak = rs_tc_tweak(&t->src, piece->off),
                                       .dst_tweak = rs_tc_tweak(&t->dst, piece->off),
                                       .user_data = i};
    }
    if (n == 0) return true;
    int taken = reseal_submit(t->queue, job, n);
    if (taken == RESEAL_EAGAIN) return true;
    if (taken < 0) {
        (void)rs_failure_code(&t->f, taken, "cannot submit");
        return false;
    }
    for (int i = 0; i < taken; i++) z->piece[job[i].user_data].state = PIECE_IN_JOB;
    p->jobs += (unsigned)taken;
    p->read -= (unsigned)taken;
    return true;
}

static int take_jobs(struct in_place *p, struct zone *z, bool wait)
{
    struct rs_tc *t = p->t;
    struct reseal_completion done[32];
    if (p->jobs == 0) return 0;
    int n = wait ? reseal_wait(t->queue, done, RS_ARRAY_LEN(done), 1000)
                 : reseal_poll(t->queue, done, RS_ARRAY_LEN(done));
    if (n == RESEAL_ETIMEDOUT) return 0;
    if (n < 0) {
        (void)rs_failure_code(&t->f, n, "the service went away");
        return -1;
    }
    for (int i = 0; i < n; i++) {
        struct piece *piece = &z->piece[done[i].user_data % PIECES_MAX];
        p->jobs--;
        if (done[i].status == 0 && t->f.exit == 0) {
            start_piece(p, z, piece, PIECE_TO_JOURNAL);
        } else if (done[i].status == RESEAL_ELOST && t->f.exit == 0) {
            start_piece(p, z, piece, PIECE_READING); /* the image still holds the source */
        } else {
            if (done[i].status != 0) (void)rs_failure_code(&t->f, done[i].status, "a job failed");
            end_piece(p, piece);
        }
    }
    return n;
}

/* Pieces that were read and will not be sent any more. */
static void drop_read(struct in_place *p, struct zone *z)
{
    for (unsigned i = 0; i < z->pieces && p->read != 0; i++) {
        if (z->piece[i].state != PIECE_READ) continue;
        end_piece(p, &z->piece[i]);
        p->read--;
    }
}

static bool turn(struct in_place *p, struct zone *fresh)
{
    struct rs_tc *t = p->t;
    bool moved = false;
    rs_io_submit(t->io);
    for (struct rs_io_op *op; (op = rs_io_next(t->io)) != NULL; moved = true) end_op(p, op);
    if (t->f.exit != 0) drop_read(p, fresh);
    if (!submit_jobs(p, fresh)) return false;
    int n = take_jobs(p, fresh, false);
    if (n < 0) return false;
    if (moved || n > 0 || p->todo == 0) return true;
    if (rs_io_pending(t->io) != 0) {
        rs_io_wait(t->io, p->jobs != 0, 1000);
        return true;
    }
    return take_jobs(p, fresh, true) >= 0;
}

/* Both at once where the kernel can. */
static void flush_both(struct in_place *p, bool journal, bool image)
{
    struct rs_tc *t = p->t;
    struct rs_io_op op[2] = {{.what = RS_IO_FLUSH, .fd = t->journal.io_fd},
                             {.what = RS_IO_FLUSH, .fd = t->src_file.io_fd}};
    if (journal) rs_io_start(t->io, &op[0], false);
    if (image) rs_io_start(t->io, &op[1], false);
    while (rs_io_pending(t->io) != 0) {
        struct rs_io_op *done = rs_io_next(t->io);
        if (done == NULL)
            rs_io_wait(t->io, false, 1000);
        else if (done->result != 0)
            fail_io(t, done->result, "flush", done == &op[0] ? t->journal_path : t->src_file.path, false);
    }
}

static int commit(struct in_place *p, const struct rs_journal_record *record)
{
    int code = rs_journal_commit(&p->t->journal, record);
    return code == 0 ? 0 : rs_failure_errno(&p->t->f, code, "write", p->t->journal_path);
}

static int play_round(struct in_place *p, struct zone *fresh, struct zone *old)
{
    struct rs_tc *t = p->t;
    p->todo = fresh->pieces + old->pieces;
    for (unsigned i = 0; i < old->pieces; i++) start_piece(p, old, &old->piece[i], PIECE_TO_IMAGE);
    for (unsigned i = 0; i < fresh->pieces; i++) start_piece(p, fresh, &fresh->piece[i], PIECE_READING);
    bool there = true;
    while (there && p->todo != 0) there = turn(p, fresh);
    while (rs_io_pending(t->io) != 0) {
        /* The service is gone: the buffers must still be left in peace. */
        if (rs_io_next(t->io) == NULL) rs_io_wait(t->io, false, 1000);
    }
    if (t->f.exit == 0) flush_both(p, fresh->pieces != 0, old->pieces != 0);
    if (t->f.exit != 0) return t->f.exit;
    t->bytes += old->bytes;
    t->holes += fresh->holes;
    if (old->pieces != 0) t->done = old->record.next;
    return commit(p, &fresh->record);
}

static int play_all(struct rs_tc *t, struct in_place *p)
{
    struct zone *fresh = &p->zone[0], *old = &p->zone[1];
    int code = 0;
    for (;;) {
        fill_zone(p, fresh);
        if (fresh->pieces == 0 && old->pieces == 0) break;
        code = play_round(p, fresh, old);
        if (code != 0) return code;
        rs_progress_at(&t->progress, t->done);
        struct zone *swap = fresh;
        fresh = old;
        old = swap;
    }
    t->holes += fresh->holes;
    t->done = p->pos;
    return p->pos < t->data_size ? rs_failure_set(&t->f, RS_EXIT_INTERRUPTED, "interrupted") : 0;
}

/* Writes the zone of a committed record to the image again; harmless when it is there already. */
static int replay(struct rs_tc *t, const struct rs_journal_record *r)
{
    uint64_t at = t->journal.area_at[r->area];
    for (uint32_t i = 0; i < r->segments; i++) {
        for (uint64_t done = 0; done < r->segment[i].len;) {
            size_t n = (size_t)RS_MIN(r->segment[i].len - done, (uint64_t)t->chunk);
            int code = rs_pread_full(t->journal.io_fd, t->arena, n, at);
            if (code != 0) return rs_failure_errno(&t->f, code, "read", t->journal_path);
            code = rs_pwrite_full(t->src_file.io_fd, t->arena, n, t->src.offset + r->segment[i].off + done);
            if (code != 0) return rs_failure_errno(&t->f, code, "write", t->src_file.path);
            at += n;
            done += n;
        }
    }
    return fdatasync(t->src_file.io_fd) == 0 ? 0 : rs_failure_errno(&t->f, errno, "flush", t->src_file.path);
}

static int copy_data(struct rs_tc *t, uint32_t area)
{
    struct in_place *p = calloc(1, sizeof(*p));
    if (p == NULL) return rs_failure_errno(&t->f, ENOMEM, "re-encrypt", t->o.src.path);
    p->t = t;
    p->pos = t->done = t->start;
    p->area = area;
    p->extents = (struct rs_extents){.fd = t->src_file.fd,
                                     .skip = t->skip_holes,
                                     .base = t->src.offset,
                                     .size = t->data_size,
                                     .granule = RS_MAX(t->granule, 4096u)};
    rs_progress_begin(&t->progress,
                      t->o.quiet  ? RS_PROGRESS_NONE
                      : t->o.json ? RS_PROGRESS_JSON
                                  : RS_PROGRESS_TEXT,
                      "transcode", t->start, t->data_size);
    int code = play_all(t, p);
    if (code == 0) {
        struct rs_journal_record end = {.next = t->data_size, .state = RS_JOURNAL_HEADER};
        code = commit(p, &end);
    }
    rs_progress_end(&t->progress, t->done);
    free(p);
    return code;
}

/* ---- before and after ---- */

static int take_old_header(struct rs_tc *t)
{
    struct rs_tc_side *s = &t->src;
    uint64_t len = s->luks.header_size != 0 ? RS_MIN(s->luks.header_size, s->offset) : s->offset;
    if (len == 0 || len > RS_JOURNAL_HEADER_MAX)
        return rs_failure_set(&t->f, RS_EXIT_FORMAT, "the LUKS header of %s is too large for a journal",
                              t->o.src.path);
    s->header = malloc((size_t)len);
    if (s->header == NULL) return rs_failure_errno(&t->f, ENOMEM, "read", t->o.src.path);
    s->header_len = (size_t)len;
    int code = rs_pread_full(t->src_file.fd, s->header, s->header_len, 0);
    return code == 0 ? 0 : rs_failure_errno(&t->f, code, "read", t->o.src.path);
}

static int begin(struct rs_tc *t)
{
    int code = t->o.src.kind == RS_SIDE_LUKS ? take_old_header(t) : 0;
    if (code != 0) return code;
    struct rs_journal_super super;
    rs_tc_super(t, &super);
    super.header_len[0] = t->src.header_len;
    super.header_len[1] = t->dst.header_len;
    code = rs_tc_check_value(t, super.check);
    const void *headers[2] = {t->src.header, t->dst.header};
    if (code == 0)
        code = rs_journal_create(&t->journal, t->journal_path, &super, headers, t->src_file.direct, &t->f);
    return code;
}

/* The image must be the one that the journal was made for. */
static int check_image(struct rs_tc *t)
{
    if (t->src.header == NULL) return 0;
    uint8_t page[RS_JOURNAL_BLOCK];
    size_t n = RS_MIN(sizeof(page), t->src.header_len);
    int code = rs_pread_full(t->src_file.fd, page, n, 0);
    if (code != 0) return rs_failure_errno(&t->f, code, "read", t->o.src.path);
    if (n > 8 && memcmp(page + 6, t->src.header + 6, n - 6) == 0) return 0;
    return rs_failure_set(&t->f, RS_EXIT_REFUSED, "%s is not the image that %s belongs to", t->o.src.path,
                          t->journal_path);
}

static int finish(struct rs_tc *t)
{
    if (t->dst.header != NULL) {
        int code = rs_tc_header_write(&t->src_file, t->dst.header, t->dst.header_len,
                                      RS_MAX(t->src.header_len, t->dst.header_len), true);
        if (code != 0) return rs_failure_errno(&t->f, code, "write the header of", t->o.src.path);
    }
    int code = rs_journal_remove(&t->journal);
    return code == 0 ? 0 : rs_failure_errno(&t->f, code, "remove", t->journal_path);
}

int rs_tc_in_place(struct rs_tc *t)
{
    struct rs_journal_record last = {.state = RS_JOURNAL_RUNNING, .area = 1};
    bool have = t->resumed && rs_journal_last(&t->journal, &last);
    int code = t->resumed ? 0 : begin(t);
    if (code == 0 && have && last.state == RS_JOURNAL_HEADER) {
        t->start = t->done = t->data_size;
        return finish(t);
    }
    if (code == 0 && t->resumed) code = check_image(t);
    if (code == 0 && t->src.header != NULL) {
        code = rs_tc_header_block(&t->src_file, t->src.offset);
        if (code != 0) code = rs_failure_errno(&t->f, code, "block the header of", t->o.src.path);
    }
    if (code == 0 && have) {
        t->start = last.next;
        code = replay(t, &last);
    }
    if (code == 0) code = copy_data(t, last.area ^ 1);
    return code == 0 ? finish(t) : code;
}
