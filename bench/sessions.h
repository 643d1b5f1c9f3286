/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_BENCH_SESSIONS_H
#define RS_BENCH_SESSIONS_H

/*
 * `reseal bench sessions`: how fast sessions open when the KEK is warm. LUKS2 disks, each
 * under a key of its own of a native provider; connections in threads of their own open the disks' keys from
 * their headers in turn, and a session with each. Beside it, in turn, sessions whose keys the service
 * draws: what is left without headers and KEKs.
 */

#include "bench/result.h"
#include "offload/base/bytes.h"

#define RS_SESSIONS_CONNECTIONS_MAX 64u
#define RS_SESSIONS_OF_A_CONNECTION 200u /* a client may have 256 */

struct rs_sessions_bench {
    const char *runtime_dir;
    unsigned sessions, connections, runs;
    int *headers;  /* descriptors */
    char why[700]; /* after a failure: one line */
};

/* Adds the provider, makes its backup, which nobody keeps, and formats the disks. */
RS_MUST_CHECK int rs_sessions_bench_open(struct rs_sessions_bench *b, const char *runtime_dir,
                                         unsigned sessions, unsigned connections, unsigned runs);
void rs_sessions_bench_close(struct rs_sessions_bench *b);

/*
 * All runs of both kinds, in turn. `disks` and `drawn`: per_s is sessions a second from the first request to
 * the last answer, p50_us and p99_us the time of one. Verified when data that crossed the first session of
 * each connection came back through a session the other way, and two disks did not have the same key.
 */
RS_MUST_CHECK int rs_sessions_bench_measure(struct rs_sessions_bench *b, struct rs_result *disks,
                                            struct rs_result *drawn);

#endif
