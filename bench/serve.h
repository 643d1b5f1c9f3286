/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_BENCH_SERVE_H
#define RS_BENCH_SERVE_H

/*
 * `reseal bench serve`: a LUKS disk over NBD, by `reseal vm serve` and by
 * qemu-nbd with QEMU's LUKS driver, in turn, from the page cache. What counts
 * is the CPU time of what serves, the service and its polling included.
 */

#include <limits.h>
#include <sys/types.h>

#include "bench/result.h"
#include "offload/base/bytes.h"

struct rs_serve_bench {
    char dir[PATH_MAX];     /* scratch folder, made by open, removed by close */
    char program[PATH_MAX]; /* the command reseal */
    char runtime_dir[PATH_MAX];
    pid_t service;      /* reseald, for its CPU time */
    pid_t ours, theirs; /* servers; 0: not started */
    uint64_t size;      /* bytes of a disk */
    unsigned runs, depth;
    unsigned pattern; /* the byte that both disks are full of */
    char why[512];    /* after a failure: one line */
};

/* Makes both disks in a folder in `where` and starts the servers. */
RS_MUST_CHECK int rs_serve_bench_open(struct rs_serve_bench *b, const char *where, const char *runtime_dir,
                                      uint64_t size, unsigned runs, unsigned depth);
void rs_serve_bench_close(struct rs_serve_bench *b);

/* 4 KiB at random places, as many bytes as the disk has. */
RS_MUST_CHECK int rs_serve_bench_random_read(struct rs_serve_bench *b, struct rs_result *out);

/* The whole disk, 1 MiB after 1 MiB, four times. */
RS_MUST_CHECK int rs_serve_bench_sequential_write(struct rs_serve_bench *b, struct rs_result *out);

/* Ends our server and reads our image with QEMU's own driver: true when it holds what was written last. */
RS_MUST_CHECK bool rs_serve_bench_verify(struct rs_serve_bench *b);

#endif
