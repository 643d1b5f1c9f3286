/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/cli/bench.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "offload/cli/cli.h"

static const char help[] = "usage: reseal bench hotpath|ring|transcode|serve|sessions|openssl [OPTIONS]\n\n"
                           "Measures, verifies what was computed, and prints ratios to what the machine\n"
                           "can do and to other programs. 'reseal bench WORKLOAD --help' has the options.\n\n"
                           "  hotpath    the engines in process, of the AES limit and of a plain copy\n"
                           "  ring       jobs through the service, of the same work in process\n"
                           "  transcode  a whole image, against qemu-img convert and cryptsetup reencrypt\n"
                           "  serve      disks for a hypervisor, against qemu-nbd with LUKS\n"
                           "  sessions   how fast sessions open with a warm KEK\n"
                           "  openssl    reseal.so in OpenSSL 3 and in TLS, against its default provider\n\n"
                           "exit codes: 0 measured and verified, 1 not, 2 usage\n"
                           "example: reseal bench hotpath --from xts --to xts --json\n";

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
} workloads[] = {
    {"hotpath", rs_bench_cmd_hotpath},     {"ring", rs_bench_cmd_ring},
    {"transcode", rs_bench_cmd_transcode}, {"serve", rs_bench_cmd_serve},
    {"sessions", rs_bench_cmd_sessions},   {"openssl", rs_bench_cmd_openssl},
};

int reseal_cmd_bench(int argc, char **argv)
{
    if (argc < 2) {
        fputs(help, stderr);
        return RS_CLI_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
        return fputs(help, stdout) < 0 ? RS_CLI_FAILED : RS_CLI_OK;
    for (size_t i = 0; i < RS_ARRAY_LEN(workloads); i++)
        if (strcmp(workloads[i].name, argv[1]) == 0) return workloads[i].run(argc - 1, argv + 1);
    return rs_cli_fail(RS_CLI_USAGE, "bench", "no workload '%s': 'reseal bench --help' lists them", argv[1]);
}

void rs_report_begin(struct rs_report *r, const char *workload, bool json)
{
    *r = (struct rs_report){.json = json, .workload = workload, .all = json ? json_array() : NULL};
}

static void print_size(uint64_t n)
{
    if (n >= 1 << 20 && n % (1 << 20) == 0)
        printf("%" PRIu64 "M", n >> 20);
    else if (n >= 1 << 10 && n % (1 << 10) == 0)
        printf("%" PRIu64 "K", n >> 10);
    else
        printf("%" PRIu64, n);
}

static void print_what(const struct rs_result *r)
{
    printf("%s", r->workload);
    if (r->sessions != 0) printf(", %u LUKS2 headers or keys, %u connections\n", r->sessions, r->depth);
    if (r->sessions != 0) return;
    printf(" %s -> %s", r->from, r->to);
    if (r->key_bits != 0) printf(", AES-%u", r->key_bits);
    if (r->unit != 0) printf(", unit %u", r->unit);
    printf(", ");
    print_size(r->bytes);
    if (r->depth != 0) printf(" x %u", r->depth);
    if (r->working_set != 0) {
        printf(", set ");
        print_size(r->working_set);
    }
    if (r->engine != NULL) printf(", %s", r->engine);
    putchar('\n');
}

static void print_summary(const char *name, const struct rs_summary *s, const char *after)
{
    if (s->n > 0) printf("  %-44s %8.3f  [%.3f, %.3f]%s\n", name, s->median, s->low, s->high, after);
}

static void print_figures(const struct rs_result *r)
{
    print_summary("GB/s", &r->gbps, "");
    print_summary("sessions a second", &r->sessions_per_s, "");
    print_summary("of the AES limit", &r->of_aes_limit, "");
    print_summary("of a plain copy", &r->of_copy, "");
    print_summary("of the same work in process", &r->of_in_process, "");
    if (isfinite(r->jobs_per_s)) printf("  %-44s %8.0f\n", "jobs/s", r->jobs_per_s);
    if (isfinite(r->p50_us))
        printf("  %-44s %8.2f  %.2f  %.2f\n",
               r->sessions != 0 ? "one session, microseconds: p50, p99, p99.9"
                                : "round trip, microseconds: p50, p99, p99.9",
               r->p50_us, r->p99_us, r->p999_us);
    if (isfinite(r->round_trip_ratio))
        printf("  %-44s %8.3f\n", "round trip, of ping-pong and the work itself", r->round_trip_ratio);
    if (isfinite(r->cpu_s_per_gb))
        printf("  %-44s %8.3f\n", "CPU seconds per GB, all processes", r->cpu_s_per_gb);
    for (unsigned i = 0; i < r->npeers; i++) {
        const struct rs_peer_result *p = &r->peers[i];
        char name[64];
        snprintf(name, sizeof(name), "times better than %s", p->name);
        double its = isfinite(p->gbps) ? p->gbps : p->cpu_s_per_gb;
        printf("  %-44s %8.3f  [%.3f, %.3f]  (%.3f %s)\n", name, p->ratio.median, p->ratio.low, p->ratio.high,
               its, isfinite(p->gbps) ? "GB/s" : "s/GB");
    }
}

void rs_report_add(struct rs_report *r, const struct rs_result *result)
{
    if (!result->verified) r->wrong++;
    if (r->json) {
        json_array_append_new(r->all, rs_result_json(result));
        return;
    }
    if (r->print != NULL) {
        r->print(r->print_arg, result);
    } else {
        print_what(result);
        if (result->verified)
            print_figures(result);
        else
            puts("  THE OUTPUT IS WRONG: no speed");
    }
    fflush(stdout);
}

int rs_report_end(struct rs_report *r)
{
    if (r->json) {
        int bad = r->all == NULL || json_dumpf(r->all, stdout, JSON_INDENT(2)) != 0;
        putchar('\n');
        json_decref(r->all);
        if (bad) return rs_cli_fail(RS_CLI_FAILED, "bench", "cannot write the output");
    }
    if (r->wrong == 0) return RS_CLI_OK;
    return rs_cli_fail(RS_CLI_FAILED, "bench",
                       "%u results were wrong: 'reseal doctor' says which engine fails", r->wrong);
}
