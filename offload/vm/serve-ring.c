/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "offload/vm/serve-internal.h"

#define ENTRIES 1024u

int rs_vs_ring_open(struct rs_vmserve *s)
{
    /* One thread, which takes completions only when it asks for them: kernels from 6.1 on; older ones get the
     * plain ring. */
    unsigned flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG |
                     IORING_SETUP_R_DISABLED;
    struct io_uring_params p = {.flags = flags | IORING_SETUP_CQSIZE, .cq_entries = 4 * ENTRIES};
    int code = io_uring_queue_init_params(ENTRIES, &s->ring, &p);
    if (code == -EINVAL) {
        p = (struct io_uring_params){.flags = IORING_SETUP_CQSIZE, .cq_entries = 4 * ENTRIES};
        code = io_uring_queue_init_params(ENTRIES, &s->ring, &p);
    }
    s->ring_open = code == 0;
    s->ring_disabled = (p.flags & IORING_SETUP_R_DISABLED) != 0;
    return code;
}

int rs_vs_ring_begin(struct rs_vmserve *s)
{
    /* Until here it belonged to no thread. */
    if (!s->ring_disabled) return 0;
    /* Debian's liburing 2.3 declares a call for this and does not export it. */
    long code = syscall(SYS_io_uring_register, s->ring.ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
    return code < 0 ? -errno : 0;
}

void rs_vs_ring_close(struct rs_vmserve *s)
{
    if (s->ring_open) io_uring_queue_exit(&s->ring);
    s->ring_open = false;
}

struct io_uring_sqe *rs_vs_sqe(struct rs_vmserve *s)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&s->ring);
    while (sqe == NULL) {
        /* Full: the kernel takes all of it, or is short of memory for now. */
        if (io_uring_submit(&s->ring) < 0) usleep(1000);
        sqe = io_uring_get_sqe(&s->ring);
    }
    return sqe;
}

void rs_vs_tells(struct io_uring_sqe *sqe, struct rs_vs_op *op, enum rs_vs_what what)
{
    op->what = what;
    io_uring_sqe_set_data(sqe, op);
}

struct rs_vs_op *rs_vs_ended(struct rs_vmserve *s)
{
    struct io_uring_cqe *cqe = NULL;
    unsigned head, n = 0;
    struct rs_vs_op *first = s->ended_first;
    if (first != NULL) {
        s->ended_first = first->next;
        return first;
    }
    io_uring_for_each_cqe(&s->ring, head, cqe)
    {
        n = 1;
        break;
    }
    if (n == 0) return NULL;
    struct rs_vs_op *op = (struct rs_vs_op *)(uintptr_t)cqe->user_data;
    op->result = cqe->res;
    io_uring_cqe_seen(&s->ring, cqe);
    return op;
}

void rs_vs_submit(struct rs_vmserve *s)
{
    /* No call when there is nothing to hand over, and nothing that waits to be finished. */
    (void)io_uring_submit(&s->ring);
}

bool rs_vs_has_ended(const struct rs_vmserve *s)
{
    return s->ended_first != NULL || io_uring_cq_ready(&s->ring) != 0 ||
           (IO_URING_READ_ONCE(*s->ring.sq.kflags) & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) != 0;
}

void rs_vs_sleep(struct rs_vmserve *s, int ms)
{
    struct __kernel_timespec ts = {.tv_sec = ms / 1000, .tv_nsec = (ms % 1000) * 1000000LL};
    struct io_uring_cqe *cqe;
    (void)io_uring_submit_and_wait_timeout(&s->ring, &cqe, 1, &ts, NULL);
}
