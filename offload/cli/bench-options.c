/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/cli/bench.h"

#include <stdio.h>
#include <stdlib.h>

#include "offload/cli/cli.h"
#include "reseal/reseal.h"

int rs_bench_parse(int argc, char **argv, const struct rs_bench_options *o, void *settings)
{
    for (int c; (c = getopt_long(argc, argv, "h", o->list, NULL)) != -1;) {
        if (c == 'h') return fputs(o->help, stdout) < 0 ? RS_CLI_FAILED : RS_CLI_OK;
        if (c == '?') return RS_CLI_USAGE;
        if (o->take(settings, c, optarg) != 0)
            return rs_cli_fail(RS_CLI_USAGE, o->command, "'%s' is out of range: --help has the options",
                               optarg);
    }
    if (optind < argc)
        return rs_cli_fail(RS_CLI_USAGE, o->command, "what is '%s'? --help has the options", argv[optind]);
    return -1;
}

struct rs_bench_image rs_bench_image_default(uint64_t size)
{
    const char *tmp = getenv("TMPDIR");
    return (struct rs_bench_image){
        .size = size, .runs = 5, .dir = tmp != NULL && tmp[0] != '\0' ? tmp : "/var/tmp"};
}

int rs_bench_image_take(struct rs_bench_image *i, int id, const char *text)
{
    switch (id) {
    case RS_BENCH_SIZE:
        return rs_cli_bytes(text, 1ull << 40, &i->size);
    case RS_BENCH_RUNS:
        return rs_cli_bytes(text, 64, &i->runs);
    case RS_BENCH_DIR:
        i->dir = text;
        return 0;
    case RS_BENCH_RUNTIME:
        i->runtime_dir = text;
        return 0;
    case RS_BENCH_JSON:
        i->json = true;
        return 0;
    default:
        return RESEAL_EINVAL;
    }
}

bool rs_bench_image_ok(const struct rs_bench_image *i)
{
    return i->size >= 1 << 20 && i->size % (1 << 20) == 0 && i->runs >= 1;
}
