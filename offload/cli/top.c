/* SPDX-License-Identifier: Apache-2.0 */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "offload/base/clock.h"
#include "offload/cli/exit.h"
#include "offload/cli/status.h"

static const char help[] =
    "usage: reseal top [-n COUNT] [-d SECONDS] [--runtime-dir DIR]\n\n"
    "Rates of the running service, again and again: each worker's bytes, jobs and share\n"
    "of time at work; each client's bytes, jobs and how full its rings are. Redraws a\n"
    "terminal; writes a line for each worker and client elsewhere.\n\n"
    "  -n COUNT           so many times (default: until interrupted)\n"
    "  -d SECONDS         between two looks, 0.1 to 3600 (1)\n"
    "  --runtime-dir DIR  the service's folder ($RESEAL_RUNTIME_DIR, /run/reseal)\n\n"
    "exit codes: 0 done or interrupted, 1 failed, 2 usage, 3 refused, 7 no service\n"
    "example: reseal top -n 10 -d 0.5\n";

struct settings {
    const char *runtime_dir;
    unsigned long count; /* 0: for ever */
    double delay;        /* seconds */
};

/* Jobs, bytes and what is in flight, of all queues of a client. */
struct totals {
    uint64_t jobs, bytes, fill, depth;
};

static struct totals add_queues(const json_t *client)
{
    struct totals t = {0};
    size_t i;
    json_t *q;
    json_array_foreach(json_object_get(client, "queues"), i, q)
    {
        t.jobs += rs_status_number(q, "jobs");
        t.bytes += rs_status_number(q, "bytes");
        t.fill += rs_status_number(q, "fill");
        t.depth += rs_status_number(q, "depth");
    }
    return t;
}

static const json_t *same_client(const json_t *status, const json_t *client)
{
    size_t i;
    json_t *c;
    json_array_foreach(json_object_get(status, "clients"), i, c)
    {
        if (rs_status_number(c, "client") == rs_status_number(client, "client")) return c;
    }
    return NULL;
}

/* Counters start again with a new service, and queues go: a difference is never negative. */
static double rate(uint64_t now, uint64_t before, double seconds)
{
    return now > before ? (double)(now - before) / seconds : 0;
}

static void print_workers(const json_t *now, const json_t *before, double seconds)
{
    size_t i;
    json_t *w;
    const json_t *old = json_object_get(before, "workers");
    json_array_foreach(json_object_get(now, "workers"), i, w)
    {
        const json_t *was = json_array_get(old, i);
        char bytes[16], jobs[16];
        double busy = rate(rs_status_number(w, "busy_ns"), rs_status_number(was, "busy_ns"), seconds) / 1e9;
        printf("worker %-3zu core %-4" PRIu64 " %9sB/s %9s jobs/s  busy %3.0f %%  queues %" PRIu64 "\n", i,
               rs_status_number(w, "cpu"),
               rs_status_amount(rate(rs_status_number(w, "bytes"), rs_status_number(was, "bytes"), seconds),
                                bytes, sizeof(bytes)),
               rs_status_amount(rate(rs_status_number(w, "jobs"), rs_status_number(was, "jobs"), seconds),
                                jobs, sizeof(jobs)),
               busy * 100, rs_status_number(w, "queues"));
    }
}

static void print_clients(const json_t *now, const json_t *before, double seconds)
{
    size_t i;
    json_t *c;
    json_array_foreach(json_object_get(now, "clients"), i, c)
    {
        struct totals is = add_queues(c), was = add_queues(same_client(before, c));
        if (is.depth == 0) continue; /* those that only look on, as this one */
        char bytes[16], jobs[16];
        printf("client %-3" PRIu64 " pid %-6" PRIu64 " %8sB/s %9s jobs/s  ring %3.0f %%  tenant %s\n",
               rs_status_number(c, "client"), rs_status_number(c, "pid"),
               rs_status_amount(rate(is.bytes, was.bytes, seconds), bytes, sizeof(bytes)),
               rs_status_amount(rate(is.jobs, was.jobs, seconds), jobs, sizeof(jobs)),
               100 * (double)is.fill / (double)is.depth, rs_status_text(c, "tenant"));
    }
}

static void wait_seconds(double s)
{
    struct timespec t = {.tv_sec = (time_t)s, .tv_nsec = (long)((s - (double)(time_t)s) * 1e9)};
    nanosleep(&t, NULL);
}

static int watch(reseal *r, const struct settings *s)
{
    bool terminal = isatty(STDOUT_FILENO) == 1;
    json_t *before = NULL;
    int err = rs_status_get(r, &before);
    uint64_t then = rs_now_ns();
    for (unsigned long n = 0; err == 0 && (s->count == 0 || n < s->count); n++) {
        wait_seconds(s->delay);
        json_t *now = NULL;
        err = rs_status_get(r, &now);
        if (err != 0) break;
        uint64_t at = rs_now_ns();
        double seconds = (double)(at - then) / 1e9;
        if (terminal) printf("\033[H\033[J");
        printf("reseald %s, up %" PRIu64 " s\n", rs_status_text(now, "version"),
               rs_status_number(now, "uptime_s"));
        print_workers(now, before, seconds);
        print_clients(now, before, seconds);
        json_decref(before);
        before = now;
        then = at;
        if (fflush(stdout) != 0) break; /* whoever read this went away */
    }
    json_decref(before);
    return err;
}

static int parse(int argc, char **argv, struct settings *s)
{
    static const struct option options[] = {{"runtime-dir", required_argument, NULL, 'r'},
                                            {"count", required_argument, NULL, 'n'},
                                            {"delay", required_argument, NULL, 'd'},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    for (int c; (c = getopt_long(argc, argv, "hn:d:", options, NULL)) != -1;) {
        char *end = NULL;
        if (c == 'h') return fputs(help, stdout) < 0 ? RS_CLI_FAILED : RS_CLI_OK;
        if (c == '?') return rs_cli_usage(argv[0]);
        if (c == 'r') s->runtime_dir = optarg;
        if (c == 'n') s->count = strtoul(optarg, &end, 10);
        if (c == 'd') s->delay = strtod(optarg, &end);
        bool wrong = (c == 'n' && (s->count < 1 || s->count > 1000000000)) ||
                     (c == 'd' && !(s->delay >= 0.1 && s->delay <= 3600)) || (end != NULL && *end != '\0');
        if (wrong)
            return rs_cli_fail(RS_CLI_USAGE, argv[0], "'%s' is out of range: --help has the options", optarg);
    }
    return optind < argc ? rs_cli_usage(argv[0]) : -1;
}

int reseal_cmd_top(int argc, char **argv)
{
    struct settings s = {.delay = 1};
    int code = parse(argc, argv, &s);
    if (code >= 0) return code;
    struct reseal_options options = {.size = sizeof(options), .runtime_dir = s.runtime_dir};
    reseal *r;
    int err = reseal_open(&r, &options);
    if (err == 0) {
        err = watch(r, &s);
        reseal_close(r);
    }
    if (err == 0) return RS_CLI_OK;
    return rs_cli_fail(rs_exit_of(err), argv[0], "%s; 'reseal doctor' says more", reseal_strerror(err));
}
