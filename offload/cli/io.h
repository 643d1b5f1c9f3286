/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_CLI_IO_H
#define RS_CLI_IO_H

/*
 * File transfers that overlap with each other and with the jobs in a ring: by
 * io_uring, or by pread and pwrite where the kernel refuses it (containers) or
 * where that costs less. Both have the same calls; short transfers are
 * continued inside.
 *
 * One thread. Operations are the caller's memory and stay untouched by it from
 * rs_io_start() until rs_io_next() hands them back.
 */

#include "offload/base/bytes.h"
#include "offload/vm/qcow2.h"

enum rs_io_kind { RS_IO_AUTO = 0, RS_IO_URING = 1, RS_IO_SYNC = 2 };

enum rs_io_what { RS_IO_READ, RS_IO_WRITE, RS_IO_FLUSH };

struct rs_io_op {
    enum rs_io_what what;
    int fd;
    struct rs_qcow2 *image; /* in place of fd; NULL: none. At most two images */
    uint8_t *buf;
    uint32_t len;
    uint64_t off;
    int result; /* 0, -errno; -ENODATA: the file ends before `len` */
    uint32_t done;
    struct rs_io_op *next;
    struct rs_io *io;
    struct rs_qcow2_op in_image;
};

struct rs_io;

struct rs_io_options {
    enum rs_io_kind kind; /* AUTO: io_uring when the kernel allows it */
    unsigned depth;       /* operations in flight, 1 to 4096 */
    bool inline_buffered; /* transfers through the page cache happen in rs_io_start() itself */
    void *arena;          /* buffers that most operations use; registered with the kernel when it lets us */
    size_t arena_len;
    int ready_fd; /* rs_io_wait() returns when it becomes readable too; -1: none */
};

/* 0 or -errno. With RS_IO_URING an error when the kernel refuses it. */
RS_MUST_CHECK int rs_io_open(struct rs_io **out, const struct rs_io_options *options);

/* Waits for what is in flight. NULL is allowed. */
void rs_io_close(struct rs_io *io);

/* "io_uring" or "pread". */
const char *rs_io_name(const struct rs_io *io);

/* True when transfers of such a descriptor happen in rs_io_start() itself. */
bool rs_io_inline(const struct rs_io *io, bool direct);

/* Starts one operation; `direct` says that its descriptor has O_DIRECT. */
void rs_io_start(struct rs_io *io, struct rs_io_op *op, bool direct);

/* Hands what was started to the kernel. */
void rs_io_submit(struct rs_io *io);

/* A finished operation, or NULL. */
struct rs_io_op *rs_io_next(struct rs_io *io);

/* Operations that rs_io_next() has not handed back. */
unsigned rs_io_pending(const struct rs_io *io);

/*
 * Submits, then waits until an operation is finished, `ready_fd` is readable
 * (looked at only when `jobs` is set), a signal came, or `ms` passed.
 */
void rs_io_wait(struct rs_io *io, bool jobs, int ms);

#endif
