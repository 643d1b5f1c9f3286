/* SPDX-License-Identifier: Apache-2.0 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#include "bench/private-service.h"
#include "bench/transcode.h"
#include "offload/cli/bench.h"
#include "offload/cli/cli.h"
#include "reseal/reseal.h"

static const char help[] =
    "usage: reseal bench transcode [OPTIONS]\n\n"
    "A whole LUKS image under another key: CPU seconds per GB of all processes, the\n"
    "service and its polling included, out of place against 'qemu-img convert -n' and\n"
    "in place against 'cryptsetup reencrypt --resilience journal', in turn on the same\n"
    "files. Checked with 'qemu-img compare' and with OpenSSL.\n\n"
    "  --size N           bytes of data, whole MiB (1G)\n"
    "  --runs N           of each side (5)\n"
    "  --only WHICH       out-of-place (O_DIRECT), page-cache or in-place\n"
    "  --dir DIR          scratch folder on a real file system ($TMPDIR or /var/tmp)\n"
    "  --runtime-dir DIR  use the service that runs there, whose processes must be visible\n"
    "  --json             one array of objects, docs/benchmarking.md\n\n"
    "example: reseal bench transcode --size 256M --runs 3\n";

struct settings {
    uint64_t size;
    uint64_t runs;
    const char *only, *dir, *runtime_dir;
    bool json;
};

enum option_id { SIZE = 256, RUNS, ONLY, DIR_, RUNTIME, JSON };

static int take(struct settings *s, int id, const char *text)
{
    switch (id) {
    case SIZE:
        return rs_cli_bytes(text, 1ull << 40, &s->size);
    case RUNS:
        return rs_cli_bytes(text, 64, &s->runs);
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
        return strcmp(text, "in-place") == 0 || strcmp(text, "out-of-place") == 0 ||
                       strcmp(text, "page-cache") == 0
                   ? 0
                   : RESEAL_EINVAL;
    }
}

static int parse(int argc, char **argv, struct settings *s)
{
    static const struct option options[] = {{"size", required_argument, NULL, SIZE},
                                            {"runs", required_argument, NULL, RUNS},
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
            return rs_cli_fail(RS_CLI_USAGE, "bench transcode",
                               "'%s' is out of range: --help has the options", optarg);
    }
    if (optind < argc)
        return rs_cli_fail(RS_CLI_USAGE, "bench transcode", "what is '%s'? --help has the options",
                           argv[optind]);
    if (s->size < 1 << 20 || s->size % (1 << 20) != 0 || s->runs < 1)
        return rs_cli_fail(RS_CLI_USAGE, "bench transcode", "the size is whole MiB, the runs are 1 to 64");
    return -1;
}

static int measure(struct rs_report *report, struct rs_transcode_bench *b, const char *only)
{
    struct rs_result result;
    int r = 0;
    for (unsigned cached = 0; r == 0 && cached < 2; cached++) {
        if (only != NULL && strcmp(only, cached != 0 ? "page-cache" : "out-of-place") != 0) continue;
        b->cached = cached != 0;
        r = rs_transcode_bench_out_of_place(b, &result);
        if (r == 0) rs_report_add(report, &result);
    }
    if (r == 0 && (only == NULL || strcmp(only, "in-place") == 0)) {
        r = rs_transcode_bench_in_place(b, &result);
        if (r == 0) rs_report_add(report, &result);
    }
    if (r == 0) return RS_CLI_OK;
    return rs_cli_fail(RS_CLI_FAILED, "bench transcode", "%s",
                       b->why[0] != '\0' ? b->why : reseal_strerror(r));
}

int rs_bench_cmd_transcode(int argc, char **argv)
{
    const char *tmp = getenv("TMPDIR");
    struct settings s = {.size = 1 << 30, .runs = 5, .dir = tmp != NULL && tmp[0] != '\0' ? tmp : "/var/tmp"};
    int code = parse(argc, argv, &s);
    if (code >= 0) return code;
    struct rs_private_service service = {.pid = 0};
    if (s.runtime_dir == NULL && rs_private_service_start(&service, NULL) != 0)
        return rs_cli_fail(RS_CLI_FAILED, "bench transcode", "%s", service.why);
    struct rs_report report;
    rs_report_begin(&report, "transcode", s.json);
    struct rs_transcode_bench b;
    const char *runtime_dir = s.runtime_dir != NULL ? s.runtime_dir : service.dir;
    int r = rs_transcode_bench_open(&b, s.dir, runtime_dir, s.size, (unsigned)s.runs);
    code = r != 0 ? rs_cli_fail(RS_CLI_FAILED, "bench transcode", "%s", b.why) : measure(&report, &b, s.only);
    rs_transcode_bench_close(&b);
    rs_private_service_stop(&service);
    int end = rs_report_end(&report);
    return code != RS_CLI_OK ? code : end;
}
