/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_BENCH_SAMPLE_H
#define RS_BENCH_SAMPLE_H

/*
 * One timed sample with the AES limit measured right before and right after
 * it. On a shared machine the core slows down and speeds up by itself; a
 * sample whose two limits differ was disturbed and is taken again.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One pass over the whole working set: 0 or RESEAL_E.... */
typedef int (*rs_pass)(void *arg);

struct rs_sample {
    double gbps;       /* 10^9 bytes a second */
    double aes_rounds; /* 10^9 AES rounds on 16-byte blocks a second, around the sample; 0 without AES
                          instructions */
};

/*
 * Runs one untimed pass, then passes for at least `min_ns`; again, at most
 * eight times, when the limits around it differ by more than 2 %; the quietest
 * is kept. The first error of a pass ends it.
 */
int rs_sample_take(rs_pass pass, void *arg, uint64_t bytes_per_pass, uint64_t min_ns, struct rs_sample *out);

/* Pins the calling thread to one core: `core`, or for -1 the last one allowed. Returns the core or
 * RESEAL_EINVAL. */
int rs_pin(int core);

#endif
