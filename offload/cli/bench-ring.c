/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "bench/private-service.h"
#include "bench/ring.h"
#include "offload/cli/bench.h"
#include "offload/cli/cli.h"
#include "reseal/reseal.h"

static const char help[] =
    "usage: reseal bench ring [OPTIONS]\n\n"
    "Jobs through a service, XTS-256 to XTS-256: GB/s and jobs/s by size and depth, of\n"
    "the same work in process in the same buffers; the time of a round trip, of a bare\n"
    "ping-pong between two cores and the work itself. Starts a service of its own for\n"
    "the time of the measurement. Without --bytes and --depth: 4K, 64K, 1M by 1, 8, 32.\n\n"
    "  --bytes N          bytes of a job, a power of two from 4K to 1M\n"
    "  --depth N          jobs in flight, a power of two from 1 to 256\n"
    "  --unit N           XTS data unit in bytes (4096)\n"
    "  --runs N           samples (31)\n"
    "  --trips N          round trips to time, in all (20000)\n"
    "  --runtime-dir DIR  use the service that runs there\n"
    "  --core N           the client's core (the first one allowed)\n"
    "  --json             one array of objects, docs/benchmarking.md\n\n"
    "example: reseal bench ring --bytes 4K --depth 32\n";

struct settings {
    struct rs_ring_work w;
    const char *runtime_dir;
    int core;
    bool json;
};

enum option_id { BYTES = 256, DEPTH, UNIT, RUNS, TRIPS, RUNTIME, CORE, JSON };

static int take_number(struct settings *s, int id, const char *text)
{
    uint64_t n;
    if (rs_cli_bytes(text, 1 << 20, &n) != 0 || (n == 0 && id != CORE)) return RESEAL_EINVAL;
    if (id != RUNS && id != TRIPS && id != CORE && !rs_is_pow2(n)) return RESEAL_EINVAL;
    if ((id == DEPTH && n > 256) || (id == RUNS && n > 1000) || (id == TRIPS && n > 200000) ||
        (id == CORE && n > 4095) || (id == BYTES && n < 4096) || (id == UNIT && (n < 512 || n > 65536)))
        return RESEAL_EINVAL;
    uint32_t v = (uint32_t)n;
    if (id == BYTES)
        s->w.bytes = v;
    else if (id == DEPTH)
        s->w.depth = v;
    else if (id == UNIT)
        s->w.unit = v;
    else if (id == RUNS)
        s->w.runs = v;
    else if (id == TRIPS)
        s->w.trips = v;
    else
        s->core = (int)v;
    return 0;
}

static int take(void *settings, int id, const char *text)
{
    struct settings *s = settings;
    if (id == JSON)
        s->json = true;
    else if (id == RUNTIME)
        s->runtime_dir = text;
    else
        return take_number(s, id, text);
    return 0;
}

static int parse(int argc, char **argv, struct settings *s)
{
    static const struct option options[] = {
        {"bytes", required_argument, NULL, BYTES}, {"depth", required_argument, NULL, DEPTH},
        {"unit", required_argument, NULL, UNIT},   {"runs", required_argument, NULL, RUNS},
        {"trips", required_argument, NULL, TRIPS}, {"runtime-dir", required_argument, NULL, RUNTIME},
        {"core", required_argument, NULL, CORE},   {"json", no_argument, NULL, JSON},
        {"help", no_argument, NULL, 'h'},          {NULL, 0, NULL, 0}};
    const struct rs_bench_options o = {.command = "bench ring", .help = help, .list = options, .take = take};
    int code = rs_bench_parse(argc, argv, &o, s);
    if (code >= 0) return code;
    if (s->w.bytes != 0 && s->w.unit > s->w.bytes)
        return rs_cli_fail(RS_CLI_USAGE, "bench ring", "a job is whole data units");
    return -1;
}

static int measure_all(struct rs_report *report, struct rs_ring_bench *b, const struct settings *s)
{
    static const uint32_t all_bytes[] = {4096, 65536, 1 << 20}, all_depths[] = {1, 8, 32};
    for (size_t i = 0; i < RS_ARRAY_LEN(all_bytes); i++)
        for (size_t d = 0; d < RS_ARRAY_LEN(all_depths); d++) {
            if ((s->w.bytes != 0 && i > 0) || (s->w.depth != 0 && d > 0)) continue;
            struct rs_ring_work w = s->w;
            if (w.bytes == 0) w.bytes = all_bytes[i];
            if (w.depth == 0) w.depth = all_depths[d];
            w.unit = RS_MIN(w.unit, w.bytes);
            struct rs_result result;
            int r = rs_ring_bench_measure(b, &w, &result);
            if (r != 0) return rs_cli_fail(RS_CLI_FAILED, "bench ring", "%s", reseal_strerror(r));
            rs_report_add(report, &result);
        }
    return RS_CLI_OK;
}

int rs_bench_cmd_ring(int argc, char **argv)
{
    struct settings s = {.w = {.unit = 4096, .runs = 31, .sample_us = 1000, .trips = 20000}, .core = -1};
    int code = parse(argc, argv, &s);
    if (code >= 0) return code;
    struct rs_private_service service = {.pid = 0};
    if (s.runtime_dir == NULL && rs_private_service_start(&service, NULL) != 0)
        return rs_cli_fail(RS_CLI_FAILED, "bench ring", "%s", service.why);
    struct rs_report report;
    rs_report_begin(&report, "ring", s.json);
    struct rs_ring_bench *b = NULL;
    int r = rs_ring_bench_open(&b, s.runtime_dir != NULL ? s.runtime_dir : service.dir, s.core);
    code = r != 0 ? rs_cli_fail(RS_CLI_FAILED, "bench ring", "%s", reseal_strerror(r))
                  : measure_all(&report, b, &s);
    rs_ring_bench_close(b);
    rs_private_service_stop(&service);
    int end = rs_report_end(&report);
    return code != RS_CLI_OK ? code : end;
}
