/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

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

enum option_id { ONLY = 256 };

static int take(void *settings, int id, const char *text)
{
    static const char *const which[] = {"in-place", "out-of-place", "page-cache"};
    struct rs_bench_image *s = settings;
    if (id != ONLY) return rs_bench_image_take(s, id, text);
    s->only = text;
    for (unsigned i = 0; i < RS_ARRAY_LEN(which); i++)
        if (strcmp(text, which[i]) == 0) return 0;
    return RESEAL_EINVAL;
}

static int parse(int argc, char **argv, struct rs_bench_image *s)
{
    static const struct option options[] = {{"size", required_argument, NULL, RS_BENCH_SIZE},
                                            {"runs", required_argument, NULL, RS_BENCH_RUNS},
                                            {"only", required_argument, NULL, ONLY},
                                            {"dir", required_argument, NULL, RS_BENCH_DIR},
                                            {"runtime-dir", required_argument, NULL, RS_BENCH_RUNTIME},
                                            {"json", no_argument, NULL, RS_BENCH_JSON},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    const struct rs_bench_options o = {
        .command = "bench transcode", .help = help, .list = options, .take = take};
    int code = rs_bench_parse(argc, argv, &o, s);
    if (code >= 0) return code;
    if (!rs_bench_image_ok(s))
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
    struct rs_bench_image s = rs_bench_image_default(1 << 30);
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
