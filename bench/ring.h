/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_BENCH_RING_H
#define RS_BENCH_RING_H

/*
 * `reseal bench ring`: the same jobs through a service and in process, in the
 * very same buffers, XTS-256 to XTS-256. The client never touches the payload
 * while it measures; what came out is compared with OpenSSL's result.
 */

#include "bench/result.h"
#include "offload/base/bytes.h"

struct rs_ring_bench; /* one connection, pinned; NULL is allowed in close */

/* Connects and pins the calling thread to `core` (-1: the first one allowed). */
RS_MUST_CHECK int rs_ring_bench_open(struct rs_ring_bench **out, const char *runtime_dir, int core);
void rs_ring_bench_close(struct rs_ring_bench *b);

struct rs_ring_work {
    uint32_t bytes; /* of a job: 4096 to 1 MiB, a power of two */
    uint32_t depth; /* jobs in flight, a power of two, 1 to 256 */
    uint32_t unit;  /* XTS data unit, at most `bytes` */
    unsigned runs;
    uint32_t sample_us;
    unsigned trips; /* jobs whose time is taken, over all runs */
};

RS_MUST_CHECK int rs_ring_bench_measure(struct rs_ring_bench *b, const struct rs_ring_work *w,
                                        struct rs_result *out);

/*
 * Median round trip of a cache line between two pinned threads, in
 * microseconds: the least that any ring can do. `core_a` and `core_b` differ;
 * 0 when there is only one core.
 */
double rs_ping_pong_us(int core_a, int core_b);

#endif
