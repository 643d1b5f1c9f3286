/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

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
    struct rs_bench_image image;
    uint64_t depth;
};

enum option_id { DEPTH = 256, ONLY };

static int take(void *settings, int id, const char *text)
{
    struct settings *s = settings;
    if (id == DEPTH) return rs_cli_bytes(text, 256, &s->depth);
    if (id != ONLY) return rs_bench_image_take(&s->image, id, text);
    s->image.only = text;
    return strcmp(text, "random-read") == 0 || strcmp(text, "sequential-write") == 0 ? 0 : RESEAL_EINVAL;
}

static int parse(int argc, char **argv, struct settings *s)
{
    static const struct option options[] = {{"size", required_argument, NULL, RS_BENCH_SIZE},
                                            {"runs", required_argument, NULL, RS_BENCH_RUNS},
                                            {"depth", required_argument, NULL, DEPTH},
                                            {"only", required_argument, NULL, ONLY},
                                            {"dir", required_argument, NULL, RS_BENCH_DIR},
                                            {"runtime-dir", required_argument, NULL, RS_BENCH_RUNTIME},
                                            {"json", no_argument, NULL, RS_BENCH_JSON},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    const struct rs_bench_options o = {.command = "bench serve", .help = help, .list = options, .take = take};
    int code = rs_bench_parse(argc, argv, &o, s);
    if (code >= 0) return code;
    if (!rs_bench_image_ok(&s->image) || s->depth < 1)
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
    struct settings s = {.image = rs_bench_image_default(256 << 20), .depth = 16};
    int code = parse(argc, argv, &s);
    if (code >= 0) return code;
    struct rs_private_service service = {.pid = 0};
    if (s.image.runtime_dir == NULL && rs_private_service_start(&service, NULL) != 0)
        return rs_cli_fail(RS_CLI_FAILED, "bench serve", "%s", service.why);
    struct rs_report report;
    rs_report_begin(&report, "serve", s.image.json);
    struct rs_serve_bench b;
    const char *runtime_dir = s.image.runtime_dir != NULL ? s.image.runtime_dir : service.dir;
    int r = rs_serve_bench_open(&b, s.image.dir, runtime_dir, s.image.size, (unsigned)s.image.runs,
                                (unsigned)s.depth);
    code =
        r != 0 ? rs_cli_fail(RS_CLI_FAILED, "bench serve", "%s", b.why) : measure(&report, &b, s.image.only);
    rs_serve_bench_close(&b);
    rs_private_service_stop(&service);
    int end = rs_report_end(&report);
    return code != RS_CLI_OK ? code : end;
}
