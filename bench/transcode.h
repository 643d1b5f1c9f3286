/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_BENCH_TRANSCODE_H
#define RS_BENCH_TRANSCODE_H

/*
 * `reseal bench transcode`: a whole image by `reseal transcode` and by the
 * tools that people use today, in turn, on the same files, with the same
 * resilience and cache state. What counts is the CPU time of every process
 * involved, the service and its polling included.
 */

#include <limits.h>
#include <sys/types.h>

#include "bench/result.h"
#include "offload/base/bytes.h"

struct rs_transcode_bench {
    char dir[PATH_MAX];     /* scratch folder, made by open, removed by close */
    char program[PATH_MAX]; /* the command reseal */
    char runtime_dir[PATH_MAX];
    pid_t service; /* reseald, for its CPU time */
    uint64_t size; /* bytes of data */
    unsigned runs;
    bool cached;   /* out of place: both sides through a warm page cache; else both by O_DIRECT */
    char why[512]; /* after a failure: one line */
};

/* Makes the scratch folder in `where` (a real file system, three times `size` of room). */
RS_MUST_CHECK int rs_transcode_bench_open(struct rs_transcode_bench *b, const char *where,
                                          const char *runtime_dir, uint64_t size, unsigned runs);
void rs_transcode_bench_close(struct rs_transcode_bench *b);

/* LUKS1 to LUKS1 against `qemu-img convert -n` into a target that is allocated; caches as `cached` says. */
RS_MUST_CHECK int rs_transcode_bench_out_of_place(struct rs_transcode_bench *b, struct rs_result *out);

/* LUKS2 in place against `cryptsetup reencrypt --resilience journal`, both offline with O_DIRECT. */
RS_MUST_CHECK int rs_transcode_bench_in_place(struct rs_transcode_bench *b, struct rs_result *out);

#endif
