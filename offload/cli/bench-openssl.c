/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <strings.h>

#include "bench/openssl.h"
#include "bench/sample.h"
#include "bench/tls.h"
#include "offload/cli/bench.h"
#include "offload/cli/cli.h"
#include "offload/cli/openssl.h"
#include "reseal/reseal.h"

static const char help[] =
    "usage: reseal bench openssl [OPTIONS]\n\n"
    "The OpenSSL provider reseal.so against OpenSSL's default provider, in turn in one\n"
    "process on one pinned core: each cipher through EVP, message by message, and with\n"
    "a new key, and with a new context for each message; then bulk TLS over loopback, in CPU\n"
    "seconds of both ends. Every output is compared with the default provider's.\n\n"
    "  --cipher NAME    only this cipher, AES-256-GCM, or this TLS suite\n"
    "  --bytes N        only messages of N bytes, 1 to 16M; no TLS\n"
    "  --runs N         samples of each side (31)\n"
    "  --module PATH    the module to load (the one of this installation)\n"
    "  --no-tls         only single messages\n"
    "  --core N         the core (the last one allowed)\n"
    "  --quick          few and short samples, for a first look\n"
    "  --json           one array of objects, docs/benchmarking.md\n\n"
    "example: reseal bench openssl --cipher AES-256-GCM --bytes 16K\n";

struct settings {
    const char *cipher, *module;
    uint32_t bytes; /* 0: all sizes */
    unsigned runs;  /* 0: not given */
    int core;
    bool no_tls, quick, json;
};

enum option_id { CIPHER = 256, BYTES, RUNS, MODULE, NO_TLS, CORE, QUICK, JSON };

static const struct line {
    const char *cipher;
    bool both; /* directions; in counter mode they are the same */
} lines[] = {
    {"AES-128-GCM", true}, {"AES-192-GCM", true},  {"AES-256-GCM", true},  {"AES-128-XTS", true},
    {"AES-256-XTS", true}, {"AES-128-CTR", false}, {"AES-192-CTR", false}, {"AES-256-CTR", false},
};

static const uint32_t sizes[] = {16, 64, 256, 1024, 4096, 16384, 65536, 1 << 20}, short_sizes[] = {64, 1024};

static const struct flow {
    enum rs_evp_flow flow;
    const uint32_t *sizes;
    size_t nsizes;
} flows[] = {
    {RS_EVP_IV, sizes, RS_ARRAY_LEN(sizes)},
    {RS_EVP_KEY, short_sizes, RS_ARRAY_LEN(short_sizes)},
    {RS_EVP_CONTEXT, short_sizes, RS_ARRAY_LEN(short_sizes)},
};

/* ---- what is promised ------------------------------------------------------------ */

/* docs/benchmarking.md. The worst row that a promise speaks of is what it is held to. */
struct promise {
    const char *text, *workload, *cipher; /* cipher: NULL: every one */
    uint64_t from, to;                    /* bytes of a message */
    double at_least;                      /* times as good as the default provider */
    bool known;
    struct rs_summary worst;
    char row[48];
};

struct run {
    struct settings s;
    struct rs_evp_sides sides;
    struct rs_report report;
    char heading[32]; /* the workload of the rows above */
    struct promise promises[4];
};

static const struct promise promised[] = {
    {.text = "AES-256-GCM, 16K",
     .workload = "openssl",
     .cipher = "AES-256-GCM",
     .from = 16384,
     .to = 16384,
     .at_least = 2.5},
    {.text = "AES-256-XTS, 4K",
     .workload = "openssl",
     .cipher = "AES-256-XTS",
     .from = 4096,
     .to = 4096,
     .at_least = 1.9},
    {.text = "every cipher, 16 to 256 bytes", .workload = "openssl", .from = 16, .to = 256, .at_least = 0.95},
    {.text = "TLS 1.3 AES-256-GCM, CPU time",
     .workload = "openssl-tls",
     .cipher = "TLS_AES_256_GCM_SHA384",
     .to = UINT64_MAX,
     .at_least = 1.3},
};

static void hold_promises(struct run *x, const struct rs_result *r)
{
    for (size_t i = 0; i < RS_ARRAY_LEN(x->promises); i++) {
        struct promise *p = &x->promises[i];
        if (strcmp(p->workload, r->workload) != 0 || r->bytes < p->from || r->bytes > p->to) continue;
        if (p->cipher != NULL && strcmp(p->cipher, r->cipher) != 0) continue;
        if (p->known && p->worst.median <= r->ratio.median) continue;
        p->known = true;
        p->worst = r->ratio;
        snprintf(p->row, sizeof(p->row), "%s%s%s, %" PRIu64, r->cipher, r->direction == NULL ? "" : " ",
                 r->direction == NULL ? "" : r->direction, r->bytes);
    }
}

static void print_promises(const struct run *x)
{
    bool any = false;
    for (size_t i = 0; i < RS_ARRAY_LEN(x->promises); i++) {
        const struct promise *p = &x->promises[i];
        if (!p->known) continue;
        if (!any)
            printf("\npromised, of the default provider of OpenSSL %s; the worst row counts\n",
                   rs_evp_version());
        any = true;
        printf("  %-30s at least %.2f: %6.2f [%.2f, %.2f]  %s%s\n", p->text, p->at_least, p->worst.median,
               p->worst.low, p->worst.high, p->row, p->worst.median >= p->at_least ? "" : "  NOT REACHED");
    }
}

/* ---- rows for people ----------------------------------------------------------------- */

static void print_heading(struct run *x, const char *workload)
{
    if (strcmp(x->heading, workload) == 0) return;
    printf("%s%s\n", x->heading[0] == '\0' ? "" : "\n", workload);
    snprintf(x->heading, sizeof(x->heading), "%s", workload);
    if (strcmp(workload, "openssl-tls") == 0)
        printf("  %-30s %8s %8s %7s %-18s %8s %8s  %s\n", "suite", "CPU s/GB", "default", "times", "better",
               "user", "default", "engine");
    else
        printf("  %-12s %-8s %6s %9s %9s %7s %-18s %6s  %s\n", "cipher", "", "bytes", "GB/s", "default",
               "times", "better", "of AES", "engine");
}

static void print_row(void *arg, const struct rs_result *r)
{
    struct run *x = arg;
    char interval[32];
    print_heading(x, r->workload);
    snprintf(interval, sizeof(interval), "[%.2f, %.2f]", r->ratio.low, r->ratio.high);
    if (!r->verified) {
        printf("  %s %s %" PRIu64 ": THE OUTPUT IS WRONG: no speed (%s)\n", r->cipher,
               r->direction == NULL ? "" : r->direction, r->bytes, r->engine);
        return;
    }
    if (r->direction == NULL)
        printf("  %-30s %8.3f %8.3f %7.2f %-18s %8.3f %8.3f  %s\n", r->cipher, r->cpu_s_per_gb,
               r->default_cpu_s_per_gb, r->ratio.median, interval, r->user_cpu_s_per_gb,
               r->default_user_cpu_s_per_gb, r->engine);
    else
        printf("  %-12s %-8s %6" PRIu64 " %9.3f %9.3f %7.2f %-18s %6.3f  %s\n", r->cipher, r->direction,
               r->bytes, r->gbps.median, r->default_gbps, r->ratio.median, interval, r->of_aes_limit.median,
               r->engine);
    hold_promises(x, r);
}

/* ---- the command line ------------------------------------------------------------------- */

/* The name as OpenSSL and we write it, or NULL. */
static const char *known_cipher(const char *name)
{
    for (size_t i = 0; i < RS_ARRAY_LEN(lines); i++)
        if (strcasecmp(lines[i].cipher, name) == 0) return lines[i].cipher;
    for (size_t i = 0; rs_tls_suites[i] != NULL; i++)
        if (strcasecmp(rs_tls_suites[i], name) == 0) return rs_tls_suites[i];
    return NULL;
}

static int take(void *settings, int id, const char *text)
{
    struct settings *s = settings;
    uint64_t n = 0;
    switch (id) {
    case CIPHER:
        s->cipher = known_cipher(text);
        return s->cipher != NULL ? 0 : RESEAL_EINVAL;
    case MODULE:
        s->module = text;
        return text[0] != '\0' ? 0 : RESEAL_EINVAL;
    case NO_TLS:
        s->no_tls = true;
        return 0;
    case QUICK:
        s->quick = true;
        return 0;
    case JSON:
        s->json = true;
        return 0;
    default:
        break;
    }
    uint64_t max = id == BYTES ? RS_EVP_BYTES_MAX : id == RUNS ? 1000 : 4095;
    if (rs_cli_bytes(text, max, &n) != 0 || (n == 0 && id != CORE)) return RESEAL_EINVAL;
    if (id == BYTES)
        s->bytes = (uint32_t)n;
    else if (id == RUNS)
        s->runs = (unsigned)n;
    else
        s->core = (int)n;
    return 0;
}

static int parse(int argc, char **argv, struct settings *s)
{
    static const struct option options[] = {{"cipher", required_argument, NULL, CIPHER},
                                            {"bytes", required_argument, NULL, BYTES},
                                            {"runs", required_argument, NULL, RUNS},
                                            {"module", required_argument, NULL, MODULE},
                                            {"no-tls", no_argument, NULL, NO_TLS},
                                            {"core", required_argument, NULL, CORE},
                                            {"quick", no_argument, NULL, QUICK},
                                            {"json", no_argument, NULL, JSON},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    const struct rs_bench_options o = {
        .command = "bench openssl", .help = help, .list = options, .take = take};
    int code = rs_bench_parse(argc, argv, &o, s);
    if (code >= 0) return code;
    if (s->cipher != NULL && strncmp(s->cipher, "AES-", 4) != 0 && (s->no_tls || s->bytes != 0))
        return rs_cli_fail(RS_CLI_USAGE, "bench openssl", "a TLS suite without TLS: nothing to measure");
    return -1;
}

/* ---- measuring ------------------------------------------------------------------------------ */

static int one(struct run *x, const struct rs_evp_work *w)
{
    struct rs_result result;
    char engine[32];
    const char *cipher = x->s.cipher;
    if (cipher != NULL && strcmp(cipher, w->cipher) != 0) return RS_CLI_OK;
    /* An XTS data unit has a block at least; other ciphers have rows of that size. */
    if (cipher == NULL && rs_evp_refuse(w) != NULL) return RS_CLI_OK;
    const char *why = rs_evp_refuse(w);
    if (why != NULL) return rs_cli_fail(RS_CLI_USAGE, "bench openssl", "%s", why);
    int r = rs_evp_measure(&x->sides, w, engine, &result);
    if (r != 0) return rs_cli_fail(RS_CLI_FAILED, "bench openssl", "%s: %s", w->cipher, reseal_strerror(r));
    rs_report_add(&x->report, &result);
    return RS_CLI_OK;
}

static int one_cipher(struct run *x, const struct flow *flow, const struct line *line)
{
    int code = RS_CLI_OK;
    for (unsigned decrypt = 0; decrypt < 1u + line->both; decrypt++)
        for (size_t i = 0; code == RS_CLI_OK && i < (x->s.bytes != 0 ? 1 : flow->nsizes); i++) {
            struct rs_evp_work w = {.cipher = line->cipher,
                                    .flow = flow->flow,
                                    .encrypt = decrypt == 0,
                                    .bytes = x->s.bytes != 0 ? x->s.bytes : flow->sizes[i],
                                    .runs = x->s.runs,
                                    .sample_us = x->s.quick ? 100 : 1000};
            code = one(x, &w);
        }
    return code;
}

static int messages(struct run *x)
{
    int code = RS_CLI_OK;
    for (size_t f = 0; f < RS_ARRAY_LEN(flows); f++)
        for (size_t i = 0; code == RS_CLI_OK && i < RS_ARRAY_LEN(lines); i++)
            code = one_cipher(x, &flows[f], &lines[i]);
    return code;
}

static int tls(struct run *x)
{
    char engine[32], why[256];
    struct rs_result result;
    if (x->s.no_tls || x->s.bytes != 0) return RS_CLI_OK;
    for (size_t i = 0; rs_tls_suites[i] != NULL; i++) {
        struct rs_tls_work w = {
            .suite = rs_tls_suites[i], .total = x->s.quick ? 4 << 20 : 64 << 20, .runs = x->s.runs};
        if (x->s.cipher != NULL && strcmp(x->s.cipher, w.suite) != 0) continue;
        int r = rs_tls_measure(&x->sides, &w, engine, &result, why);
        if (r != 0)
            return rs_cli_fail(RS_CLI_FAILED, "bench openssl", "%s",
                               why[0] != '\0' ? why : reseal_strerror(r));
        rs_report_add(&x->report, &result);
    }
    return RS_CLI_OK;
}

static int measure(struct run *x)
{
    rs_report_begin(&x->report, "openssl", x->s.json);
    x->report.print = print_row;
    x->report.print_arg = x;
    memcpy(x->promises, promised, sizeof(promised));
    int code = messages(x);
    if (code == RS_CLI_OK) code = tls(x);
    if (!x->s.json) print_promises(x);
    int end = rs_report_end(&x->report);
    return code != RS_CLI_OK ? code : end;
}

int rs_bench_cmd_openssl(int argc, char **argv)
{
    struct run x = {.s = {.core = -1}};
    char path[PATH_MAX];
    int code = parse(argc, argv, &x.s);
    if (code >= 0) return code;
    if (x.s.runs == 0) x.s.runs = x.s.quick ? 3 : 31;
    if (rs_openssl_module_path(x.s.module, path) != 0)
        return rs_cli_fail(RS_CLI_FAILED, "bench openssl",
                           "there is no %s: install reseal.so, or name it with --module", path);
    if (rs_pin(x.s.core) < 0)
        return rs_cli_fail(RS_CLI_FAILED, "bench openssl",
                           "cannot be pinned to core %d: taskset -p $$ shows what is allowed", x.s.core);
    /* An end of a connection that is gone is an error, not a reason to die. */
    signal(SIGPIPE, SIG_IGN);
    if (rs_evp_open(&x.sides, path) != 0)
        code = rs_cli_fail(RS_CLI_FAILED, "bench openssl", "cannot load the module: %s", x.sides.why);
    else
        code = measure(&x);
    rs_evp_close(&x.sides);
    return code;
}
