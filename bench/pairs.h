/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_BENCH_PAIRS_H
#define RS_BENCH_PAIRS_H

/*
 * Runs of us and of another program in turn, whose CPU time is compared: what
 * `reseal bench transcode` and `serve` share. Nothing here starts a process.
 */

#include "bench/result.h"

#define RS_PAIRS_MAX 64u

/* By run. */
struct rs_pairs {
    double ours[RS_PAIRS_MAX], theirs[RS_PAIRS_MAX]; /* CPU seconds */
    double gbps[RS_PAIRS_MAX];                       /* of ours: 10^9 bytes a second */
};

/*
 * Puts into `out` what `runs` (1 to RS_PAIRS_MAX) pairs, each over `bytes` (more than 0), say: our speed, CPU
 * seconds for 10^9 bytes of both sides, and how many times less ours are than those of `peer`, a static text.
 * Called once every output was right, since it says so. The pairs are sorted and scaled meanwhile.
 */
void rs_pairs_conclude(struct rs_pairs *p, unsigned runs, uint64_t bytes, const char *peer,
                       struct rs_result *out);

/* Waits until DIR/FILE is written back, so that this is not under way while the other side is measured. A
 * file that cannot be opened is passed over. */
void rs_pairs_settle(const char *dir, const char *file);

#endif
