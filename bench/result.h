/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_BENCH_RESULT_H
#define RS_BENCH_RESULT_H

/*
 * What a benchmark found. The names of the JSON fields are a contract
 * (docs/benchmarking.md): every object has all of them, null where a figure
 * has no meaning for the workload.
 */

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "bench/stats.h"

#define RS_PEERS_MAX 4

/* Another way to the same work. Ratios are of pairs of samples taken side by side. */
struct rs_peer_result {
    const char *name;
    double gbps;             /* NAN where CPU time is what counts */
    double cpu_s_per_gb;     /* NAN where the rate is what counts */
    struct rs_summary ratio; /* how many times better we are */
};

struct rs_result {
    const char *workload;  /* "hotpath", "hotpath-kernel-only", "ring", "transcode", ... */
    const char *from, *to; /* "plain", "xts", "gcm", "ctr", or a file format; NULL: no meaning */
    const char *cipher;    /* OpenSSL's name of a cipher or a TLS suite; NULL: no meaning, as the next two */
    const char *direction; /* "encrypt", "decrypt" */
    const char *openssl_version;
    const char *engine;   /* NULL: not known to the client */
    uint32_t unit;        /* bytes, XTS data unit; 0: none */
    uint64_t bytes;       /* of a job, or of the whole image */
    uint64_t working_set; /* bytes of all buffers, in and out; 0: none */
    uint32_t depth;       /* jobs in flight, or records in a batch */
    unsigned key_bits;
    unsigned sessions;              /* opened in a run; 0: no meaning */
    unsigned runs;                  /* accepted samples */
    struct rs_summary gbps;         /* 10^9 bytes of payload a second */
    struct rs_summary of_aes_limit; /* summaries with n == 0 are null in JSON */
    struct rs_summary of_copy;
    struct rs_summary of_in_process;
    struct rs_summary ratio;          /* how many times better than OpenSSL's default provider */
    struct rs_summary sessions_per_s; /* from the first request to the last answer */
    double default_gbps; /* the default provider's figures; NAN: not measured, as all that follow */
    double p50_us, p99_us, p999_us; /* NAN: not measured */
    double round_trip_ratio;        /* NAN: not measured */
    double jobs_per_s;              /* NAN: not measured */
    double cpu_s_per_gb;            /* NAN: not measured */
    double default_cpu_s_per_gb;
    double user_cpu_s_per_gb,
        default_user_cpu_s_per_gb; /* without the kernel's part, which is the same for both */
    struct rs_peer_result peers[RS_PEERS_MAX];
    unsigned npeers;
    bool verified;
};

/* All figures not measured. */
void rs_result_init(struct rs_result *r, const char *workload);

/* A new reference; NULL when memory is out. Speeds of a result that is not verified are null. */
json_t *rs_result_json(const struct rs_result *r);

#endif
