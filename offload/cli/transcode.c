/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/cli/transcode.h"

#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "offload/base/clock.h"

static volatile sig_atomic_t stopped;

bool rs_tc_stopped(void)
{
    return stopped != 0;
}

static void on_signal(int number)
{
    (void)number;
    stopped = 1;
}

/* What was ignored stays so: nohup(1). */
static void catch_one(int number)
{
    struct sigaction old, stop = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
    if (sigaction(number, NULL, &old) == 0 && old.sa_handler == SIG_IGN) return;
    (void)sigaction(number, &stop, NULL);
}

/* The first signal ends the run in order, the second at once; either leaves a state to resume from. */
void rs_tc_catch_signals(void)
{
    catch_one(SIGINT);
    catch_one(SIGTERM);
    catch_one(SIGHUP);
    /* A file-size limit is an error of the write, not the end of the program. */
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    (void)sigaction(SIGXFSZ, &ignore, NULL);
    (void)sigaction(SIGPIPE, &ignore, NULL);
}

static double cpu_seconds(void)
{
    struct rusage u;
    if (getrusage(RUSAGE_SELF, &u) != 0) return 0;
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6;
}

static double seconds_now(void)
{
    return (double)rs_now_ns() * 1e-9;
}

static json_t *side_json(const struct rs_tc_side *s)
{
    json_t *o = json_pack("{s:s, s:I, s:I}", "side", rs_side_kind_name(s->spec->kind), "unit",
                          (json_int_t)s->unit, "offset", (json_int_t)s->offset);
    if (o != NULL) json_object_set_new(o, "path", json_string(s->spec->path));
    if (o != NULL && s->spec->kind == RS_SIDE_LUKS) {
        json_object_set_new(o, "luks", json_integer((json_int_t)s->luks.version));
        json_object_set_new(o, "uuid", json_string(s->luks.uuid));
    }
    return o;
}

static const char *status_name(const struct rs_tc *t)
{
    return t->f.exit == 0 ? "done" : t->f.exit == RS_EXIT_INTERRUPTED ? "interrupted" : "failed";
}

static void print_json(const struct rs_tc *t, double seconds)
{
    json_t *o =
        json_pack("{s:s, s:i, s:I, s:I, s:I, s:I, s:f, s:f, s:f, s:b, s:b, s:b}", "status", status_name(t),
                  "exit", t->f.exit, "bytes", (json_int_t)t->bytes, "holes", (json_int_t)t->holes, "size",
                  (json_int_t)t->data_size, "done", (json_int_t)t->done, "seconds", seconds, "data_seconds",
                  t->data_seconds, "client_cpu_seconds", cpu_seconds(), "in_place", t->o.in_place, "resumed",
                  t->resumed, "verified", t->verified);
    if (o == NULL) return;
    if (t->src.spec != NULL) json_object_set_new(o, "source", side_json(&t->src));
    if (t->dst.spec != NULL) json_object_set_new(o, "destination", side_json(&t->dst));
    if (t->io != NULL) json_object_set_new(o, "io", json_string(rs_io_name(t->io)));
    json_object_set_new(o, "source_direct", json_boolean(t->src_file.direct));
    json_object_set_new(o, "destination_direct",
                        json_boolean(t->o.in_place ? t->src_file.direct : t->dst_file.direct));
    if (t->f.exit != 0) json_object_set_new(o, "error", json_string(t->f.text));
    json_dumpf(o, stdout, JSON_COMPACT | JSON_ENSURE_ASCII);
    putchar('\n');
    json_decref(o);
}

/* What became of the work, behind the reason: one line has to say it all. */
static void add_outcome(struct rs_tc *t, bool began)
{
    size_t n = strlen(t->f.text);
    char *end = t->f.text + n, have[24], all[24];
    size_t room = sizeof(t->f.text) - n;
    if (!began) return;
    rs_bytes_text(t->done, have, sizeof(have));
    rs_bytes_text(t->data_size, all, sizeof(all));
    if (t->journal.fd >= 0)
        snprintf(end, room, "; %s of %s are done and kept in %s: run the same command again to go on", have,
                 all, t->journal_path);
    else if (!t->o.in_place && t->dst_file.created)
        snprintf(end, room, "; the unfinished %.*s was removed", 300, t->o.dst.path);
    else if (!t->o.in_place && t->dst_file.fd >= 0)
        snprintf(end, room, "; %.*s is unfinished and no state was kept", 300, t->o.dst.path);
}

static void report(const struct rs_tc *t, double seconds)
{
    if (t->o.json) {
        print_json(t, seconds);
        return;
    }
    if (t->f.exit != 0) {
        (void)rs_cli_fail(t->f.exit, "transcode", "%s", t->f.text);
        return;
    }
    if (t->o.quiet) return;
    char bytes[24], rate[24], holes[24];
    rs_bytes_text(t->bytes, bytes, sizeof(bytes));
    rs_bytes_text(t->data_seconds > 0 ? (uint64_t)((double)t->bytes / t->data_seconds) : 0, rate,
                  sizeof(rate));
    rs_bytes_text(t->holes, holes, sizeof(holes));
    printf("%s: %s re-encrypted in %.1f s (%s/s)%s%s%s%s\n", t->o.in_place ? t->o.src.path : t->o.dst.path,
           bytes, seconds, rate, t->holes != 0 ? ", " : "", t->holes != 0 ? holes : "",
           t->holes != 0 ? " of holes left as holes" : "", t->verified ? ", verified" : "");
}

static int run(struct rs_tc *t)
{
    int code = rs_tc_open(t);
    if (code != 0) return code;
    double started = seconds_now();
    code = t->o.in_place ? rs_tc_in_place(t) : rs_tc_copy(t);
    t->data_seconds = seconds_now() - started;
    if (code != 0) {
        add_outcome(t, true);
        if (!t->o.in_place && t->journal.fd < 0 && t->dst_file.created) (void)unlink(t->o.dst.path);
        return code;
    }
    return t->o.verify ? rs_tc_verify(t) : 0;
}

int reseal_cmd_transcode(int argc, char **argv)
{
    struct rs_tc *t = calloc(1, sizeof(*t));
    if (t == NULL) return rs_cli_fail(RS_EXIT_FAILED, "transcode", "out of memory");
    t->src_file = t->dst_file = (struct rs_file){.fd = -1, .io_fd = -1};
    t->journal = (struct rs_journal){.fd = -1, .io_fd = -1};
    int code = rs_tc_parse(&t->o, argc, argv, &t->f);
    if (code == 0 && t->o.help) {
        rs_tc_help();
    } else {
        double started = seconds_now();
        rs_tc_catch_signals();
        if (code == 0) code = run(t);
        report(t, seconds_now() - started);
        rs_tc_close(t);
    }
    free(t);
    return code;
}
