/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/cli/io.h"

#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#include "offload/base/clock.h"

/* QEMU that says nothing for so long is stuck: it is ended, and its transfers fail. */
#define IMAGE_NS 120000000000ull

struct rs_io {
    struct io_uring ring;
    bool uring;
    bool inline_buffered;
    bool registered; /* the arena, as buffer 0 */
    bool armed;      /* a poll of ready_fd is in flight */
    uint8_t *arena;
    size_t arena_len;
    int ready_fd;
    unsigned in_kernel;
    struct rs_qcow2 *images[2]; /* that operations were about; NULL: none */
    unsigned in_images;
    uint64_t image_ns; /* when one was last heard of */
    unsigned pending;
    struct rs_io_op *done_first, *done_last;
};

static void finish(struct rs_io *io, struct rs_io_op *op, int result)
{
    op->result = result;
    op->next = NULL;
    if (io->done_last != NULL)
        io->done_last->next = op;
    else
        io->done_first = op;
    io->done_last = op;
}

static int set_up_ring(struct rs_io *io, const struct rs_io_options *o)
{
    unsigned entries = RS_MIN(RS_MAX(o->depth, 8u), 1024u);
    /* One thread, no interrupts for completions: kernels from 6.0 on; older ones get the plain ring. */
    unsigned flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG;
    int code = io_uring_queue_init(entries, &io->ring, flags);
    if (code == -EINVAL) code = io_uring_queue_init(entries, &io->ring, 0);
    if (code != 0) return code;
    io->uring = true;
    struct iovec iov = {.iov_base = io->arena, .iov_len = io->arena_len};
    /* Refused where RLIMIT_MEMLOCK is small; then each transfer pins its pages itself. */
    io->registered = io->arena != NULL && io_uring_register_buffers(&io->ring, &iov, 1) == 0;
    return 0;
}

int rs_io_open(struct rs_io **out, const struct rs_io_options *o)
{
    *out = NULL;
    struct rs_io *io = calloc(1, sizeof(*io));
    if (io == NULL) return -ENOMEM;
    io->arena = o->arena;
    io->arena_len = o->arena_len;
    io->ready_fd = o->ready_fd;
    io->inline_buffered = o->inline_buffered;
    int code = o->kind == RS_IO_SYNC ? 0 : set_up_ring(io, o);
    if (code != 0 && o->kind == RS_IO_URING) {
        free(io);
        return code;
    }
    *out = io;
    return 0;
}

const char *rs_io_name(const struct rs_io *io)
{
    return io->uring ? "io_uring" : "pread";
}

unsigned rs_io_pending(const struct rs_io *io)
{
    return io->pending;
}

static struct io_uring_sqe *take_sqe(struct rs_io *io)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&io->ring);
    while (sqe == NULL) {
        /* Only a full submission queue gets here; the kernel takes all of it, or is short of memory for now.
         */
        if (io_uring_submit(&io->ring) < 0) usleep(1000);
        sqe = io_uring_get_sqe(&io->ring);
    }
    return sqe;
}

static bool in_arena(const struct rs_io *io, const struct rs_io_op *op)
{
    return io->registered && op->buf >= io->arena &&
           rs_range_ok((uint64_t)(op->buf - io->arena), op->len, io->arena_len);
}

/* The rest of an operation, from op->done on. */
static void to_kernel(struct rs_io *io, struct rs_io_op *op, bool fixed)
{
    struct io_uring_sqe *sqe = take_sqe(io);
    uint8_t *buf = op->buf == NULL ? NULL : op->buf + op->done;
    uint32_t len = op->len - op->done;
    uint64_t off = op->off + op->done;
    if (op->what == RS_IO_FLUSH)
        io_uring_prep_fsync(sqe, op->fd, IORING_FSYNC_DATASYNC);
    else if (op->what == RS_IO_READ && fixed)
        io_uring_prep_read_fixed(sqe, op->fd, buf, len, off, 0);
    else if (op->what == RS_IO_READ)
        io_uring_prep_read(sqe, op->fd, buf, len, off);
    else if (fixed)
        io_uring_prep_write_fixed(sqe, op->fd, buf, len, off, 0);
    else
        io_uring_prep_write(sqe, op->fd, buf, len, off);
    io_uring_sqe_set_data(sqe, op);
    io->in_kernel++;
}

bool rs_io_inline(const struct rs_io *io, bool direct)
{
    return !io->uring || (io->inline_buffered && !direct);
}

static int run_now(struct rs_io_op *op)
{
    if (op->what == RS_IO_FLUSH) return fdatasync(op->fd) == 0 ? 0 : -errno;
    if (op->what == RS_IO_READ) return rs_pread_full(op->fd, op->buf, op->len, op->off);
    return rs_pwrite_full(op->fd, op->buf, op->len, op->off);
}

/* ---- qcow2 images ---- */

static void image_ended(struct rs_qcow2_op *image, int result)
{
    struct rs_io_op *op = (struct rs_io_op *)(void *)((uint8_t *)image - offsetof(struct rs_io_op, in_image));
    op->io->in_images--;
    op->io->image_ns = rs_now_ns();
    finish(op->io, op, result);
}

static void to_image(struct rs_io *io, struct rs_io_op *op)
{
    static const enum rs_qcow2_what what[] = {
        [RS_IO_READ] = RS_QCOW2_READ, [RS_IO_WRITE] = RS_QCOW2_PUT, [RS_IO_FLUSH] = RS_QCOW2_FLUSH};
    unsigned i = io->images[0] == NULL || io->images[0] == op->image ? 0 : 1;
    io->images[i] = op->image;
    if (io->in_images == 0) io->image_ns = rs_now_ns();
    op->io = io;
    op->in_image = (struct rs_qcow2_op){.ended = image_ended};
    int code = rs_qcow2_start(op->image, &op->in_image, what[op->what], op->buf, op->len, op->off);
    if (code == 0)
        io->in_images++;
    else
        finish(io, op, code);
}

/* Takes what QEMU has done. */
static void turn_images(struct rs_io *io)
{
    for (unsigned i = 0; i < RS_ARRAY_LEN(io->images) && io->in_images != 0; i++)
        if (io->images[i] != NULL) (void)rs_qcow2_turn(io->images[i]);
}

static void wait_for_images(struct rs_io *io, bool jobs, int ms)
{
    struct pollfd p[4] = {{.fd = jobs ? io->ready_fd : -1, .events = POLLIN},
                          {.fd = io->uring && io->in_kernel != 0 ? io->ring.ring_fd : -1, .events = POLLIN}};
    for (unsigned i = 0; i < RS_ARRAY_LEN(io->images); i++)
        p[2 + i] = (struct pollfd){.fd = io->images[i] != NULL ? rs_qcow2_fd(io->images[i]) : -1,
                                   .events = io->images[i] != NULL ? rs_qcow2_events(io->images[i]) : 0};
    rs_io_submit(io);
    (void)poll(p, RS_ARRAY_LEN(p), ms);
    bool late = rs_now_ns() - io->image_ns > IMAGE_NS;
    for (unsigned i = 0; late && i < RS_ARRAY_LEN(io->images); i++)
        if (io->images[i] != NULL) rs_qcow2_drain(io->images[i]);
}

void rs_io_start(struct rs_io *io, struct rs_io_op *op, bool direct)
{
    op->done = 0;
    io->pending++;
    if (op->image != NULL) {
        to_image(io, op);
        return;
    }
    if (!io->uring || (op->what != RS_IO_FLUSH && rs_io_inline(io, direct))) {
        finish(io, op, run_now(op));
        return;
    }
    to_kernel(io, op, direct && in_arena(io, op));
}

void rs_io_submit(struct rs_io *io)
{
    if (io->uring && io_uring_sq_ready(&io->ring) != 0) (void)io_uring_submit(&io->ring);
}

/* One completion of the kernel: finished, failed, or to be continued. */
static void take_cqe(struct rs_io *io, struct io_uring_cqe *cqe)
{
    struct rs_io_op *op = io_uring_cqe_get_data(cqe);
    int res = cqe->res;
    io_uring_cqe_seen(&io->ring, cqe);
    if (op == NULL) {
        io->armed = false;
        return;
    }
    io->in_kernel--;
    if (op->what == RS_IO_FLUSH || (res < 0 && res != -EINTR && res != -EAGAIN)) {
        finish(io, op, res < 0 ? res : 0);
        return;
    }
    if (res == 0) {
        finish(io, op, op->what == RS_IO_READ ? -ENODATA : -EIO);
        return;
    }
    if (res > 0) op->done += (uint32_t)res;
    if (op->done == op->len)
        finish(io, op, 0);
    else
        to_kernel(io, op, false);
}

struct rs_io_op *rs_io_next(struct rs_io *io)
{
    struct io_uring_cqe *cqe;
    while (io->done_first == NULL && io->in_kernel != 0 && io_uring_peek_cqe(&io->ring, &cqe) == 0)
        take_cqe(io, cqe);
    if (io->done_first == NULL) turn_images(io);
    struct rs_io_op *op = io->done_first;
    if (op == NULL) return NULL;
    io->done_first = op->next;
    if (io->done_first == NULL) io->done_last = NULL;
    io->pending--;
    return op;
}

void rs_io_wait(struct rs_io *io, bool jobs, int ms)
{
    if (io->done_first != NULL) return;
    if (io->in_images != 0) {
        wait_for_images(io, jobs, ms);
        return;
    }
    if (!io->uring || io->in_kernel == 0) {
        struct pollfd p = {.fd = jobs ? io->ready_fd : -1, .events = POLLIN};
        rs_io_submit(io);
        (void)poll(&p, 1, ms);
        return;
    }
    if (jobs && io->ready_fd >= 0 && !io->armed) {
        struct io_uring_sqe *sqe = take_sqe(io);
        io_uring_prep_poll_add(sqe, io->ready_fd, POLLIN);
        io_uring_sqe_set_data(sqe, NULL);
        io->armed = true;
    }
    struct __kernel_timespec ts = {.tv_sec = ms / 1000, .tv_nsec = (ms % 1000) * 1000000LL};
    struct io_uring_cqe *cqe;
    (void)io_uring_submit_and_wait_timeout(&io->ring, &cqe, 1, &ts, NULL);
}

void rs_io_close(struct rs_io *io)
{
    if (io == NULL) return;
    while (io->pending != 0) {
        if (rs_io_next(io) == NULL) rs_io_wait(io, false, 1000);
    }
    if (io->uring) io_uring_queue_exit(&io->ring);
    free(io);
}
