/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>

#include "bench/hotpath.h"
#include "bench/sample.h"
#include "offload/cli/bench.h"
#include "offload/cli/cli.h"
#include "reseal/reseal.h"

static const char help[] =
    "usage: reseal bench hotpath [OPTIONS]\n\n"
    "The engines in process, on one pinned core: GB/s, of the AES limit and of a\n"
    "plain copy of the same buffers measured beside it, and against two passes with\n"
    "OpenSSL and with ipsec-mb. Without --from and --to: the whole table.\n\n"
    "  --from SIDE, --to SIDE  plain, xts or gcm\n"
    "  --key-bits N            128 or 256 (256)\n"
    "  --unit N                XTS data unit in bytes (4096)\n"
    "  --bytes N               bytes of a run; a GCM record (64K)\n"
    "  --working-set N         bytes of all buffers, in and out (256K)\n"
    "  --engine NAME           vaes, vaes-avx2, openssl, ... (the calibrated one)\n"
    "  --kernel-only           GCM sources: do not hold back what is not verified yet\n"
    "  --no-peers              only the engine itself\n"
    "  --runs N                samples (31)\n"
    "  --core N                the core (the last one allowed)\n"
    "  --json                  one array of objects, docs/benchmarking.md\n\n"
    "example: reseal bench hotpath --from xts --to gcm --unit 512 --working-set 64M\n";

struct settings {
    struct rs_hotpath c;
    bool table; /* no pair was named */
    bool json;
    int core;
};

static int side_of(const char *name)
{
    static const char *const names[] = {[RS_PLAIN] = "plain", [RS_XTS] = "xts", [RS_GCM] = "gcm"};
    for (int i = 0; i < (int)RS_ARRAY_LEN(names); i++)
        if (strcmp(names[i], name) == 0) return i;
    return -1;
}

enum option_id { FROM = 256, TO, KEY_BITS, UNIT, BYTES, SET, ENGINE, KERNEL, NO_PEERS, RUNS, CORE, JSON };

static int take_number(struct settings *s, int id, const char *text)
{
    uint64_t n;
    if (rs_cli_bytes(text, UINT32_MAX, &n) != 0) return RESEAL_EINVAL;
    if (id == KEY_BITS)
        s->c.key_bits = (unsigned)n;
    else if (id == UNIT)
        s->c.unit = (uint32_t)n;
    else if (id == BYTES)
        s->c.bytes = (uint32_t)n;
    else if (id == SET)
        s->c.working_set = n;
    else if (id == RUNS)
        s->c.runs = (unsigned)n;
    else if (n < 4096)
        s->core = (int)n;
    else
        return RESEAL_EINVAL;
    return 0;
}

static int take(void *settings, int id, const char *text)
{
    struct settings *s = settings;
    int side = id == FROM || id == TO ? side_of(text) : 0;
    if (side < 0) return RESEAL_EINVAL;
    switch (id) {
    case FROM:
        s->c.from = (enum rs_cipher)side;
        break;
    case TO:
        s->c.to = (enum rs_cipher)side;
        break;
    case ENGINE:
        s->c.engine = text;
        break;
    case KERNEL:
        s->c.kernel_only = true;
        break;
    case NO_PEERS:
        s->c.peers = false;
        break;
    case JSON:
        s->json = true;
        break;
    default:
        return take_number(s, id, text);
    }
    if (id == FROM || id == TO) s->table = false;
    return 0;
}

static int parse(int argc, char **argv, struct settings *s)
{
    static const struct option options[] = {{"from", required_argument, NULL, FROM},
                                            {"to", required_argument, NULL, TO},
                                            {"key-bits", required_argument, NULL, KEY_BITS},
                                            {"unit", required_argument, NULL, UNIT},
                                            {"bytes", required_argument, NULL, BYTES},
                                            {"working-set", required_argument, NULL, SET},
                                            {"engine", required_argument, NULL, ENGINE},
                                            {"kernel-only", no_argument, NULL, KERNEL},
                                            {"no-peers", no_argument, NULL, NO_PEERS},
                                            {"runs", required_argument, NULL, RUNS},
                                            {"core", required_argument, NULL, CORE},
                                            {"json", no_argument, NULL, JSON},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    const struct rs_bench_options o = {
        .command = "bench hotpath", .help = help, .list = options, .take = take};
    int code = rs_bench_parse(argc, argv, &o, s);
    if (code >= 0) return code;
    const char *why = rs_hotpath_refuse(&s->c);
    return why == NULL ? -1 : rs_cli_fail(RS_CLI_USAGE, "bench hotpath", "%s", why);
}

/* Measures one line and adds it; RS_CLI_OK also when `optional` and this machine has no such engine. */
static int line(struct rs_report *report, const struct rs_hotpath *c, bool optional)
{
    struct rs_result result;
    int r = rs_hotpath_measure(c, &result);
    if (r == RESEAL_ENOSUPPORT && optional) return RS_CLI_OK;
    if (r == RESEAL_ENOSUPPORT && c->engine != NULL)
        return rs_cli_fail(RS_CLI_FAILED, "bench hotpath",
                           "engine '%s' is not here (%s) or does not do this pair: "
                           "'reseal engines' lists them",
                           c->engine, rs_engine_fault(c->engine));
    if (r != 0) return rs_cli_fail(RS_CLI_FAILED, "bench hotpath", "%s", reseal_strerror(r));
    rs_report_add(report, &result);
    return RS_CLI_OK;
}

/* The figures that the project promises (docs/benchmarking.md), each as it is promised. */
static int table(struct rs_report *report, const struct settings *s)
{
    static const struct {
        enum rs_cipher from, to;
        uint32_t unit;
        uint64_t working_set;
        const char *engine;
        bool kernel_only;
    } lines[] = {
        {RS_XTS, RS_XTS, 4096, 256 << 10, NULL, false},
        {RS_XTS, RS_XTS, 512, 256 << 10, NULL, false},
        {RS_PLAIN, RS_GCM, 4096, 256 << 10, NULL, true},
        {RS_XTS, RS_GCM, 4096, 256 << 10, NULL, true},
        {RS_GCM, RS_GCM, 4096, 256 << 10, NULL, true},
        {RS_XTS, RS_GCM, 512, 256 << 10, NULL, false},
        {RS_GCM, RS_XTS, 4096, 256 << 10, NULL, false},
        {RS_GCM, RS_XTS, 512, 256 << 10, NULL, false},
        {RS_GCM, RS_GCM, 4096, 256 << 10, NULL, false},
        {RS_XTS, RS_XTS, 4096, 256 << 10, "vaes-avx2", false},
        {RS_XTS, RS_XTS, 512, 256 << 10, "vaes-avx2", false},
        {RS_XTS, RS_XTS, 4096, 64 << 20, NULL, false},
        {RS_XTS, RS_XTS, 512, 64 << 20, NULL, false},
    };
    for (size_t i = 0; i < RS_ARRAY_LEN(lines); i++) {
        struct rs_hotpath c = s->c;
        c.from = lines[i].from;
        c.to = lines[i].to;
        c.unit = lines[i].unit;
        c.working_set = lines[i].working_set;
        c.kernel_only = lines[i].kernel_only;
        if (c.engine == NULL) c.engine = lines[i].engine;
        int code = line(report, &c, lines[i].engine != NULL);
        if (code != RS_CLI_OK) return code;
    }
    return RS_CLI_OK;
}

int rs_bench_cmd_hotpath(int argc, char **argv)
{
    struct settings s = {.c = rs_hotpath_default(RS_XTS, RS_XTS, 4096), .table = true, .core = -1};
    int code = parse(argc, argv, &s);
    if (code >= 0) return code;
    if (rs_pin(s.core) < 0)
        return rs_cli_fail(RS_CLI_FAILED, "bench hotpath",
                           "cannot be pinned to core %d: taskset -p $$ shows what is "
                           "allowed",
                           s.core);
    struct rs_report report;
    rs_report_begin(&report, "hotpath", s.json);
    code = s.table ? table(&report, &s) : line(&report, &s.c, false);
    int end = rs_report_end(&report);
    return code != RS_CLI_OK ? code : end;
}
