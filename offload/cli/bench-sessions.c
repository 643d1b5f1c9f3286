/* SPDX-License-Identifier: Apache-2.0 */
#include <getopt.h>
#include <stdio.h>

#include "bench/private-service.h"
#include "bench/sessions.h"
#include "offload/cli/bench.h"
#include "offload/cli/cli.h"
#include "reseal/reseal.h"

static const char help[] =
    "usage: reseal bench sessions [OPTIONS]\n\n"
    "How fast sessions open while the KEK is warm: each for one of 64 LUKS2 disks under keys of\n"
    "a native provider, from the header to the session, by several connections at a time.\n"
    "Beside it sessions whose keys the service draws, without header and KEK. Data is sent\n"
    "through and back. Starts a service of its own for the time of the measurement.\n\n"
    "  --sessions N       in all (1000)\n"
    "  --connections N    that open them, at most 200 sessions each (8)\n"
    "  --runs N           of each kind (5)\n"
    "  --runtime-dir DIR  use the service that runs there; needs Cryptographer.ManageKeyServers\n"
    "  --json             one array of objects, docs/benchmarking.md\n\n"
    "example: reseal bench sessions --connections 16\n";

struct settings {
    uint64_t sessions, connections, runs;
    const char *runtime_dir;
    bool json;
};

enum option_id { SESSIONS = 256, CONNECTIONS, RUNS, RUNTIME, JSON };

static int take(void *settings, int id, const char *text)
{
    struct settings *s = settings;
    switch (id) {
    case SESSIONS:
        return rs_cli_bytes(text, 10000, &s->sessions);
    case CONNECTIONS:
        return rs_cli_bytes(text, RS_SESSIONS_CONNECTIONS_MAX, &s->connections);
    case RUNS:
        return rs_cli_bytes(text, 64, &s->runs);
    case JSON:
        s->json = true;
        return 0;
    default:
        s->runtime_dir = text;
        return 0;
    }
}

static int parse(int argc, char **argv, struct settings *s)
{
    static const struct option options[] = {{"sessions", required_argument, NULL, SESSIONS},
                                            {"connections", required_argument, NULL, CONNECTIONS},
                                            {"runs", required_argument, NULL, RUNS},
                                            {"runtime-dir", required_argument, NULL, RUNTIME},
                                            {"json", no_argument, NULL, JSON},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    const struct rs_bench_options o = {
        .command = "bench sessions", .help = help, .list = options, .take = take};
    int code = rs_bench_parse(argc, argv, &o, s);
    if (code >= 0) return code;
    if (s->runs < 1 || s->connections < 1 || s->sessions < s->connections ||
        s->sessions > s->connections * RS_SESSIONS_OF_A_CONNECTION)
        return rs_cli_fail(RS_CLI_USAGE, "bench sessions", "a connection opens 1 to %u sessions",
                           RS_SESSIONS_OF_A_CONNECTION);
    return -1;
}

int rs_bench_cmd_sessions(int argc, char **argv)
{
    struct settings s = {.sessions = 1000, .connections = 8, .runs = 5};
    int code = parse(argc, argv, &s);
    if (code >= 0) return code;
    struct rs_private_service service = {.pid = 0};
    if (s.runtime_dir == NULL && rs_private_service_start(&service, NULL) != 0)
        return rs_cli_fail(RS_CLI_FAILED, "bench sessions", "%s", service.why);
    struct rs_report report;
    rs_report_begin(&report, "sessions", s.json);
    struct rs_sessions_bench b;
    struct rs_result disks, drawn;
    int r = rs_sessions_bench_open(&b, s.runtime_dir != NULL ? s.runtime_dir : service.dir,
                                   (unsigned)s.sessions, (unsigned)s.connections, (unsigned)s.runs);
    if (r == 0) r = rs_sessions_bench_measure(&b, &disks, &drawn);
    code = r == 0 ? RS_CLI_OK : rs_cli_fail(RS_CLI_FAILED, "bench sessions", "%s", b.why);
    if (r == 0) {
        rs_report_add(&report, &disks);
        rs_report_add(&report, &drawn);
    }
    rs_sessions_bench_close(&b);
    rs_private_service_stop(&service);
    int end = rs_report_end(&report);
    return code != RS_CLI_OK ? code : end;
}
