/* SPDX-License-Identifier: Apache-2.0 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#include "bench/private-service.h"
#include "bench/serve.h"
#include "offload/cli/bench.h"
#include "offload/cli/cli.h"
#include "reseal/reseal.h"

static const char help[] =
    "usage: reseal bench serve [OPTIONS]\n\n"
    "A LUKS disk over NBD: CPU seconds per GB of all processes that serve it, the\n"
    "service and its polling included, against qemu-nbd with QEMU's LUKS driver, in\n"
    "turn, from the page cache. The client is fio. What is read is checked, and what\n"
    "was written is read back by QEMU's own driver.\n\n"
    "  --size N           bytes of the disk, whole MiB (256M)\n"
    "  --runs N           of each side (5)\n"
    "  --depth N          requests in flight (16)\n"
    "  --only WHICH       random-read (4 KiB) or sequential-write (1 MiB)\n"
    "  --dir DIR          scratch folder on a real file system ($TMPDIR or /var/tmp)\n"
    "  --runtime-dir DIR  use the service that runs there, whose processes must be visible\n"
    "  --json             one array of objects, docs/benchmarking.md\n\n"
    "example: reseal bench serve --only random-read --runs 3\n";

struct settings {
    uint64_t size, runs, depth;
    const char *only, *dir, *runtime_dir;
    bool json;
};

enum option_id { SIZE = 256, RUNS, DEPTH, ONLY, DIR_, RUNTIME, JSON };

static int take(struct settings *s, int id, const char *text)
{
    switch (id) {
    case SIZE:
        return rs_cli_bytes(text, 1ull << 40, &s->size);
    case RUNS:
        return rs_cli_bytes(text, 64, &s->runs);
    case DEPTH:
        return rs_cli_bytes(text, 256, &s->depth);
    case DIR_:
        s->dir = text;
        return 0;
    case RUNTIME:
        s->runtime_dir = text;
        return 0;
    case JSON:
        s->json = true;
        return 0;
    default:
        s->only = text;
        return strcmp(text, "random-read") == 0 || strcmp(text, "sequential-write") == 0 ? 0 : RESEAL_EINVAL;
    }
}

static int parse(int argc, char **argv, struct settings *s)
{
    static const struct option options[] = {{"size", required_argument, NULL, SIZE},
                                            {"runs", required_argument, NULL, RUNS},
                                            {"depth", required_argument, NULL, DEPTH},
                                            {"only", required_argument, NULL, ONLY},
                                            {"dir", required_argument, NULL, DIR_},
                                            {"runtime-dir", required_argument, NULL, RUNTIME},
                                            {"json", no_argument, NULL, JSON},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    for (int c; (c = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        if (c == 'h') return fputs(help, stdout) < 0 ? RS_CLI_FAILED : RS_CLI_OK;
        if (c == '?') return RS_CLI_USAGE;
        if (take(s, c, optarg) != 0)
            return rs_cli_fail(RS_CLI_USAGE, "bench serve", "'%s' is out of range: --help has the options",
                               optarg);
    }
    if (optind < argc)
        return rs_cli_fail(RS_CLI_USAGE, "bench serve", "what is '%s'? --help has the options", argv[optind]);
    if (s->size < 1 << 20 || s->size % (1 << 20) != 0 || s->runs < 1 || s->depth < 1)
        return rs_cli_fail(RS_CLI_USAGE, "bench serve",
                           "the size is whole MiB, the runs are 1 to 64, the depth 1 to 256");
    return -1;
}

static int measure(struct rs_report *report, struct rs_serve_bench *b, const char *only)
{
    struct rs_result results[2];
    unsigned n = 0;
    int r = 0;
    if (only == NULL || strcmp(only, "sequential-write") == 0)
        r = rs_serve_bench_sequential_write(b, &results[n++]);
    if (r == 0 && (only == NULL || strcmp(only, "random-read") == 0))
        r = rs_serve_bench_random_read(b, &results[n++]);
    bool right = r == 0 && rs_serve_bench_verify(b);
    for (unsigned i = 0; r == 0 && i < n; i++) {
        results[i].verified = right;
        rs_report_add(report, &results[i]);
    }
    if (r == 0) return RS_CLI_OK;
    return rs_cli_fail(RS_CLI_FAILED, "bench serve", "%s", b->why[0] != '\0' ? b->why : reseal_strerror(r));
}

int rs_bench_cmd_serve(int argc, char **argv)
{
    const char *tmp = getenv("TMPDIR");
    struct settings s = {
        .size = 256 << 20, .runs = 5, .depth = 16, .dir = tmp != NULL && tmp[0] != '\0' ? tmp : "/var/tmp"};
    int code = parse(argc, argv, &s);
    if (code >= 0) return code;
    struct rs_private_service service = {.pid = 0};
    if (s.runtime_dir == NULL && rs_private_service_start(&service, NULL) != 0)
        return rs_cli_fail(RS_CLI_FAILED, "bench serve", "%s", service.why);
    struct rs_report report;
    rs_report_begin(&report, "serve", s.json);
    struct rs_serve_bench b;
    const char *runtime_dir = s.runtime_dir != NULL ? s.runtime_dir : service.dir;
    int r = rs_serve_bench_open(&b, s.dir, runtime_dir, s.size, (unsigned)s.runs, (unsigned)s.depth);
    code = r != 0 ? rs_cli_fail(RS_CLI_FAILED, "bench serve", "%s", b.why) : measure(&report, &b, s.only);
    rs_serve_bench_close(&b);
    rs_private_service_stop(&service);
    int end = rs_report_end(&report);
    return code != RS_CLI_OK ? code : end;
}
