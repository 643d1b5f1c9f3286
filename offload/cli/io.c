/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/cli/io.h"

#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#include "offload/vm/qcow2.h"

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

static int run_on_image(struct rs_io_op *op)
{
    if (op->what == RS_IO_FLUSH) return rs_qcow2_flush(op->image);
    if (op->what == RS_IO_READ) return rs_qcow2_pread(op->image, op->buf, op->len, op->off);
    return rs_qcow2_pwrite(op->image, op->buf, op->len, op->off);
}

static int run_now(struct rs_io_op *op)
{
    if (op->image != NULL) return run_on_image(op);
    if (op->what == RS_IO_FLUSH) return fdatasync(op->fd) == 0 ? 0 : -errno;
    if (op->what == RS_IO_READ) return rs_pread_full(op->fd, op->buf, op->len, op->off);
    return rs_pwrite_full(op->fd, op->buf, op->len, op->off);
}

void rs_io_start(struct rs_io *io, struct rs_io_op *op, bool direct)
{
    op->done = 0;
    io->pending++;
    if (!io->uring || op->image != NULL || (op->what != RS_IO_FLUSH && rs_io_inline(io, direct))) {
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
