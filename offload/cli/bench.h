/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_CLI_BENCH_H
#define RS_CLI_BENCH_H

/* `reseal bench`: what its workloads share. A workload is one function in a file of its own. */

#include <getopt.h>

#include "bench/result.h"
#include "offload/base/bytes.h"

/* Results of one run of the command, printed as they come, or all at the end as JSON. */
struct rs_report {
    bool json;
    json_t *all;    /* JSON results so far */
    unsigned wrong; /* results whose output was not verified */
    const char *workload;
    /* How a workload prints its rows for people; NULL: as all others. */
    void (*print)(void *arg, const struct rs_result *result);
    void *print_arg;
};

void rs_report_begin(struct rs_report *r, const char *workload, bool json);
void rs_report_add(struct rs_report *r, const struct rs_result *result);

/* Prints what is left; the exit code: 1 when an output was wrong. */
int rs_report_end(struct rs_report *r);

/* ---- options: bench-options.c ---- */

struct rs_bench_options {
    const char *command; /* "bench ring" */
    const char *help;
    const struct option *list; /* with 'h' for --help */
    /* Takes one; not 0: its text is out of range. */
    int (*take)(void *settings, int id, const char *text);
};

/* All of a command line; an exit code when there is nothing more to do, else -1. */
int rs_bench_parse(int argc, char **argv, const struct rs_bench_options *o, void *settings);

/* What workloads on a whole image have in common. */
struct rs_bench_image {
    uint64_t size; /* bytes, whole MiB */
    uint64_t runs;
    const char *only, *dir, *runtime_dir;
    bool json;
};

enum rs_bench_image_option {
    RS_BENCH_SIZE = 512,
    RS_BENCH_RUNS,
    RS_BENCH_DIR,
    RS_BENCH_RUNTIME,
    RS_BENCH_JSON
};

struct rs_bench_image rs_bench_image_default(uint64_t size);
/* RESEAL_EINVAL: out of range, or another option. */
RS_MUST_CHECK int rs_bench_image_take(struct rs_bench_image *i, int id, const char *text);
/* Size and runs can be used. */
RS_MUST_CHECK bool rs_bench_image_ok(const struct rs_bench_image *i);

int rs_bench_cmd_hotpath(int argc, char **argv);
int rs_bench_cmd_openssl(int argc, char **argv);
int rs_bench_cmd_ring(int argc, char **argv);
int rs_bench_cmd_serve(int argc, char **argv);
int rs_bench_cmd_sessions(int argc, char **argv);
int rs_bench_cmd_transcode(int argc, char **argv);

#endif
