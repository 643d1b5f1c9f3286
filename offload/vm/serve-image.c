/* SPDX-License-Identifier: Apache-2.0 */
#include <poll.h>
#include <stddef.h>
#include <stdlib.h>

#include "offload/vm/serve-internal.h"

#define SECTOR 512u

/* ---- what is stored ---------------------------------------------------------- */

static bool bit(const uint64_t *map, uint64_t i)
{
    return (map[i / 64] >> (i % 64) & 1) != 0;
}

static void set_bits(uint64_t *map, uint64_t from, uint64_t to, bool value)
{
    for (uint64_t i = from; i < to; i++) {
        uint64_t mask = UINT64_C(1) << (i % 64);
        map[i / 64] = value ? map[i / 64] | mask : map[i / 64] & ~mask;
    }
}

void rs_vs_image_mark(struct rs_vs_disk *d, uint64_t start, uint64_t len, bool stored)
{
    uint64_t c = d->cluster, end = start + len, size = d->export->size;
    /* A cluster counts as stored when all of it is, and as not stored when any of it is not. */
    uint64_t to = stored && end < size ? end / c : (end + c - 1) / c;
    set_bits(d->stored, stored ? (start + c - 1) / c : start / c, to, stored);
}

static int learn(struct rs_vs_disk *d)
{
    struct rs_qcow2 *q = d->spec->image;
    uint64_t base = d->luks.data_offset, end = base + d->export->size;
    for (uint64_t from, to = base; to < end;) {
        int found = rs_qcow2_data(q, to, &from, &to);
        if (found < 0) return RESEAL_EIO;
        if (found == 0 || from >= end) break;
        rs_vs_image_mark(d, RS_MAX(from, base) - base, RS_MIN(to, end) - RS_MAX(from, base), true);
    }
    return 0;
}

int rs_vs_image_open(struct rs_vs_disk *d)
{
    uint32_t cluster = RS_MAX(rs_qcow2_cluster(d->spec->image), d->grain);
    d->in.owner = d->out.owner = d->header.owner = d;
    /* Others were not made here: what they do not store is noise, as for everybody. */
    if (cluster > RS_VS_PIECE || d->luks.data_offset % cluster != 0) return 0;
    d->cluster = cluster;
    d->stored = calloc((d->export->size / cluster + 1) / 64 + 1, sizeof(*d->stored));
    return d->stored == NULL ? RESEAL_ENOMEM : learn(d);
}

void rs_vs_image_close(struct rs_vs_disk *d)
{
    /* Its buffers are about to go. */
    if (d->spec != NULL && d->spec->image != NULL) rs_qcow2_drain(d->spec->image);
    free(d->stored);
    d->stored = NULL;
}

void rs_vs_image_give_up(struct rs_vmserve *s)
{
    for (unsigned i = 0; s->images != 0 && i < s->o.count; i++)
        if (s->disks[i].spec->image != NULL) rs_qcow2_drain(s->disks[i].spec->image);
}

void rs_vs_image_settle(struct rs_vs_piece *p)
{
    const struct rs_vs_disk *d = p->request->disk;
    uint64_t from = p->start + p->head, to = from + p->len;
    if (d->trims != 0) return;
    for (uint64_t i = from / d->cluster; i * d->cluster < to; i++)
        if (!bit(d->stored, i)) return;
    p->start = from / d->grain * d->grain;
    p->span = (uint32_t)(rs_round_up(to, d->grain) - p->start);
    p->head = (uint32_t)(from - p->start);
}

/* ---- operations -------------------------------------------------------------- */

static struct rs_vs_op *op_of(struct rs_qcow2_op *image)
{
    return (struct rs_vs_op *)(void *)((uint8_t *)image - offsetof(struct rs_vs_op, image));
}

static void ended(struct rs_qcow2_op *image, int result)
{
    struct rs_vs_op *op = op_of(image);
    struct rs_vmserve *s = op->owner;
    op->result = result;
    if (result == 0 && (op->what == RS_VS_FILE_READ || op->what == RS_VS_FILE_WRITE)) {
        const struct rs_vs_piece *p = (const struct rs_vs_piece *)(void *)op; /* its first member */
        op->result = (int)p->span;
    }
    op->next = NULL;
    if (s->ended_first == NULL)
        s->ended_first = op;
    else
        s->ended_last->next = op;
    s->ended_last = op;
}

static void hole(struct rs_qcow2_op *image, uint64_t off, uint64_t len)
{
    struct rs_vs_piece *p = (struct rs_vs_piece *)(void *)op_of(image);
    uint64_t base = p->request->disk->luks.data_offset + p->start;
    if (off < base || !rs_range_ok(off - base, len, p->span)) return;
    p->unstored += (uint32_t)len;
    set_bits(p->hole, (off - base + SECTOR - 1) / SECTOR, (off - base + len) / SECTOR, true);
}

void rs_vs_image_start(struct rs_vmserve *s, const struct rs_vs_disk *d, struct rs_vs_op *op,
                       enum rs_vs_what what, uint8_t *buf, uint32_t len, uint64_t off)
{
    enum rs_qcow2_what how = what == RS_VS_FILE_READ    ? RS_QCOW2_READ
                             : what == RS_VS_FILE_WRITE ? RS_QCOW2_PUT
                             : what == RS_VS_FILE_HOLE  ? RS_QCOW2_TRIM
                                                        : RS_QCOW2_FLUSH;
    op->what = what;
    op->owner = s;
    op->image = (struct rs_qcow2_op){.ended = ended};
    if (how == RS_QCOW2_READ && d->stored != NULL) {
        struct rs_vs_piece *p = (struct rs_vs_piece *)(void *)op;
        p->unstored = 0;
        memset(p->hole, 0, sizeof(p->hole));
        op->image.hole = hole;
    }
    int code = rs_qcow2_start(d->spec->image, &op->image, how, buf, len, off);
    if (code != 0) ended(&op->image, code);
}

void rs_vs_image_zero(struct rs_vs_piece *p)
{
    uint32_t unit = p->request->disk->luks.unit;
    for (uint32_t at = 0; at < p->span; at += unit) {
        bool all = true;
        for (uint32_t i = at / SECTOR; i < (at + unit) / SECTOR && all; i++) all = bit(p->hole, i);
        if (all) memset(p->buf + at, 0, unit);
    }
}

/* ---- connections to QEMU ----------------------------------------------------- */

static void arm(struct rs_vmserve *s, int fd, struct rs_vs_op *op, enum rs_vs_what what, unsigned events)
{
    struct io_uring_sqe *sqe = rs_vs_sqe(s);
    io_uring_prep_poll_add(sqe, fd, events);
    rs_vs_tells(sqe, op, what);
}

void rs_vs_image_poll(struct rs_vmserve *s)
{
    for (unsigned i = 0; s->images != 0 && i < s->o.count; i++) {
        struct rs_vs_disk *d = &s->disks[i];
        if (d->spec->image == NULL || d->gone) continue;
        short events = rs_qcow2_events(d->spec->image);
        int fd = rs_qcow2_fd(d->spec->image);
        if ((events & POLLIN) != 0 && !d->in_armed) arm(s, fd, &d->in, RS_VS_IMAGE_IN, POLLIN);
        d->in_armed |= (events & POLLIN) != 0;
        if ((events & POLLOUT) != 0 && !d->out_armed) arm(s, fd, &d->out, RS_VS_IMAGE_OUT, POLLOUT);
        d->out_armed |= (events & POLLOUT) != 0;
        if (d->header_armed || s->o.header == NULL || d->spec->headers < 0) continue;
        arm(s, d->spec->headers, &d->header, RS_VS_IMAGE_HEADER, POLLIN);
        d->header_armed = true;
    }
}

void rs_vs_image_ready(struct rs_vmserve *s, struct rs_vs_op *op)
{
    struct rs_vs_disk *d = op->owner;
    if (op->what == RS_VS_IMAGE_HEADER) {
        d->header_armed = false;
        s->o.header(s->o.arg, (unsigned)(d - s->disks));
        return;
    }
    if (op->what == RS_VS_IMAGE_IN)
        d->in_armed = false;
    else
        d->out_armed = false;
    if (rs_qcow2_turn(d->spec->image) || d->gone) return;
    d->gone = true;
    rs_vs_say(s, "disk %s: QEMU, which had its image open, ended", d->spec->name);
    s->failed = RESEAL_EIO;
}
