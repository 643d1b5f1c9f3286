/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_CLI_BENCH_H
#define RS_CLI_BENCH_H

/* `reseal bench`: what its workloads share. A workload is one function in a file of its own. */

#include "bench/result.h"

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

int rs_bench_cmd_hotpath(int argc, char **argv);
int rs_bench_cmd_openssl(int argc, char **argv);
int rs_bench_cmd_ring(int argc, char **argv);
int rs_bench_cmd_serve(int argc, char **argv);
int rs_bench_cmd_transcode(int argc, char **argv);

#endif
