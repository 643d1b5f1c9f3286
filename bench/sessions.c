/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/sessions.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "bench/leave-nothing.h"
#include "offload/base/clock.h"
#include "offload/client/keyservice.h"
#include "reseal/reseal.h"

#define PROVIDER "bench-sessions"
#define RUNS_MAX 64u
#define UNIT     4096u
#define STEP     8u
#define HEADERS  64u /* disks; more sessions than that open them in turn */

/* One connection in one run. */
struct connection {
    struct rs_sessions_bench *b;
    pthread_barrier_t *start;
    pthread_t thread;
    unsigned first, count; /* of the sessions, and of the headers */
    bool drawn;            /* keys that the service draws, no disks */
    reseal *r;
    reseal_key other; /* the side that all its sessions share */
    reseal_key *keys;
    reseal_session **sessions;
    double *us; /* of each */
    uint64_t end_ns;
    int err;
    bool right;
    char why[RS_KEYSERVICE_WHY];
};

static int fail(struct rs_sessions_bench *b, const char *what, const char *why)
{
    (void)snprintf(b->why, sizeof(b->why), "%s: %s", what, why);
    return RESEAL_EIO;
}

static int connect_to(const struct rs_sessions_bench *b, reseal **r)
{
    return reseal_open(
        r, &(struct reseal_options){.size = sizeof(struct reseal_options), .runtime_dir = b->runtime_dir});
}

/* ---- disks ---------------------------------------------------------------------- */

/* A backup under a password that is forgotten at once: without one the provider makes no keys. */
static int back_up(reseal *r, char *why, size_t why_len)
{
    char text[RS_TEMPORARY_PHRASE + 1];
    int pipe_fds[2], backup = -1;
    if (rs_temporary_phrase(text) != 0 || pipe2(pipe_fds, O_CLOEXEC) != 0) return RESEAL_EIO;
    int code = rs_write_full(pipe_fds[1], text, RS_TEMPORARY_PHRASE);
    close(pipe_fds[1]);
    if (code == 0)
        code = rs_keyservice_call(r, "provider.export", json_pack("{s:s}", "provider", PROVIDER), pipe_fds, 1,
                                  NULL, &backup, why, why_len);
    close(pipe_fds[0]);
    if (backup >= 0) close(backup);
    rs_wipe(text, sizeof(text));
    return code;
}

static int make_disks(struct rs_sessions_bench *b, reseal *r, char *why, size_t why_len)
{
    int code = 0;
    for (unsigned i = 0; code == 0 && i < HEADERS; i++) {
        json_t *args = json_pack("{s:s, s:i, s:i, s:i, s:I}", "provider", PROVIDER, "version", 2, "unit",
                                 (int)UNIT, "key_bits", 256, "data_size", (json_int_t)1 << 30);
        code = rs_keyservice_call(r, "disk.format", args, NULL, 0, NULL, &b->headers[i], why, why_len);
    }
    return code;
}

int rs_sessions_bench_open(struct rs_sessions_bench *b, const char *runtime_dir, unsigned sessions,
                           unsigned connections, unsigned runs)
{
    char why[RS_KEYSERVICE_WHY] = "";
    reseal *r = NULL;
    *b = (struct rs_sessions_bench){
        .runtime_dir = runtime_dir, .sessions = sessions, .connections = connections, .runs = runs};
    b->headers = malloc(HEADERS * sizeof(*b->headers));
    if (b->headers == NULL) return fail(b, "bench", "memory is out");
    for (unsigned i = 0; i < HEADERS; i++) b->headers[i] = -1;
    int code = connect_to(b, &r);
    if (code != 0) return fail(b, "cannot connect", reseal_strerror(code));
    code = rs_keyservice_call(r, "provider.add", json_pack("{s:s, s:s}", "name", PROVIDER, "kind", "native"),
                              NULL, 0, NULL, NULL, why, sizeof(why));
    if (code == 0) code = back_up(r, why, sizeof(why));
    if (code == 0) code = make_disks(b, r, why, sizeof(why));
    reseal_close(r);
    return code == 0 ? 0 : fail(b, "cannot make disks", why[0] != '\0' ? why : reseal_strerror(code));
}

void rs_sessions_bench_close(struct rs_sessions_bench *b)
{
    char why[RS_KEYSERVICE_WHY];
    reseal *r = NULL;
    for (unsigned i = 0; b->headers != NULL && i < HEADERS; i++)
        if (b->headers[i] >= 0) close(b->headers[i]);
    free(b->headers);
    b->headers = NULL;
    /* What cannot be removed is in a service of our own, which goes; or the user sees it in `provider list`.
     */
    if (b->runtime_dir != NULL && connect_to(b, &r) == 0)
        if (rs_keyservice_call(r, "provider.remove",
                               json_pack("{s:s, s:b}", "provider", PROVIDER, "force", 1), NULL, 0, NULL, NULL,
                               why, sizeof(why)) != 0)
            (void)fail(b, "cannot remove the provider " PROVIDER, why);
    reseal_close(r);
}

/* ---- one session ---------------------------------------------------------------- */

static int draw(reseal *r, reseal_key *out)
{
    return reseal_key_random(r, 256,
                             &(struct reseal_key_use){.size = sizeof(struct reseal_key_use),
                                                      .cipher = RESEAL_XTS,
                                                      .use = RESEAL_USE_SOURCE | RESEAL_USE_DESTINATION,
                                                      .unit = UNIT,
                                                      .step = STEP},
                             out);
}

static int open_key(struct connection *c, unsigned i)
{
    if (c->drawn) return draw(c->r, &c->keys[i]);
    json_t *result = NULL,
           *args = json_pack("{s:i}", "use", (int)(RESEAL_USE_SOURCE | RESEAL_USE_DESTINATION));
    int code = rs_keyservice_call(c->r, "disk.open", args, &c->b->headers[(c->first + i) % HEADERS], 1,
                                  &result, NULL, c->why, sizeof(c->why));
    if (code == 0) code = rs_keyservice_handle(result, &c->keys[i]);
    json_decref(result);
    return code;
}

static int open_session(const struct connection *c, reseal_key from, reseal_key to, reseal_session **out)
{
    struct reseal_transform t = {.size = sizeof(t), .counter_at = RESEAL_NO_COUNTER};
    t.source = (struct reseal_side){.cipher = RESEAL_XTS, .unit = UNIT, .step = STEP, .key = from};
    t.destination = (struct reseal_side){.cipher = RESEAL_XTS, .unit = UNIT, .step = STEP, .key = to};
    return reseal_session_open(c->r, &t, out);
}

/* ---- one connection ------------------------------------------------------------- */

static bool job(reseal_session *s, const uint8_t *in, uint8_t *out)
{
    return reseal_run(s, &(struct reseal_job){.in = in, .out = out, .len = UNIT}) == UNIT;
}

/* Through the first session and back through another; and what the second makes of it is something else. */
static bool works(struct connection *c)
{
    static const uint8_t zero[UNIT];
    uint8_t there[UNIT], again[UNIT], other[UNIT];
    reseal_session *back = NULL;
    if (open_session(c, c->other, c->keys[0], &back) != 0) return false;
    bool right = job(c->sessions[0], zero, there) && job(back, there, again) &&
                 memcmp(again, zero, UNIT) == 0 && memcmp(there, zero, UNIT) != 0;
    if (right && c->count > 1) right = job(c->sessions[1], zero, other) && memcmp(there, other, UNIT) != 0;
    reseal_session_close(back);
    return right;
}

static int open_all(struct connection *c)
{
    int code = 0;
    for (unsigned i = 0; code == 0 && i < c->count; i++) {
        uint64_t before = rs_now_ns();
        code = open_key(c, i);
        if (code == 0) code = open_session(c, c->keys[i], c->other, &c->sessions[i]);
        c->us[i] = (double)(rs_now_ns() - before) / 1e3;
    }
    c->end_ns = rs_now_ns();
    return code;
}

static void *connection_main(void *arg)
{
    struct connection *c = arg;
    c->keys = calloc(c->count, sizeof(*c->keys));
    c->sessions = calloc(c->count, sizeof(*c->sessions));
    c->err = c->keys == NULL || c->sessions == NULL ? RESEAL_ENOMEM : connect_to(c->b, &c->r);
    if (c->err == 0) c->err = draw(c->r, &c->other);
    (void)pthread_barrier_wait(c->start);
    if (c->err == 0) c->err = open_all(c);
    if (c->err == 0) c->right = works(c);
    reseal_close(c->r); /* and its keys and sessions */
    free(c->keys);
    free(c->sessions);
    return NULL;
}

/* ---- runs ----------------------------------------------------------------------- */

/* One run of one kind: sessions a second; NAN after a failure. */
static double run(struct rs_sessions_bench *b, bool drawn, double *us, bool *right)
{
    struct connection c[RS_SESSIONS_CONNECTIONS_MAX] = {0};
    pthread_barrier_t start;
    unsigned first = 0, begun = 0;
    uint64_t end = 0;
    if (pthread_barrier_init(&start, NULL, b->connections + 1) != 0) return NAN;
    for (unsigned i = 0; i < b->connections; i++) {
        unsigned count = b->sessions / b->connections + (i < b->sessions % b->connections);
        c[i] = (struct connection){
            .b = b, .start = &start, .first = first, .count = count, .drawn = drawn, .us = us + first};
        first += count;
        begun += pthread_create(&c[i].thread, NULL, connection_main, &c[i]) == 0;
    }
    if (begun < b->connections) {
        /* The threads wait for the others for ever. */
        (void)fputs("reseal: bench sessions: no more threads\n", stderr);
        abort();
    }
    (void)pthread_barrier_wait(&start);
    uint64_t begin = rs_now_ns();
    int code = 0;
    for (unsigned i = 0; i < b->connections; i++) {
        (void)pthread_join(c[i].thread, NULL);
        if (code == 0 && c[i].err != 0) {
            code = c[i].err;
            (void)fail(b, "cannot open a session", c[i].why[0] != '\0' ? c[i].why : reseal_strerror(code));
        }
        *right = *right && c[i].right;
        end = RS_MAX(end, c[i].end_ns);
    }
    (void)pthread_barrier_destroy(&start);
    return code == 0 ? (double)b->sessions * 1e9 / (double)(end - begin) : NAN;
}

static void summarise(const struct rs_sessions_bench *b, const char *workload, double *per_s, double *us,
                      bool right, struct rs_result *out)
{
    rs_result_init(out, workload);
    out->from = out->to = NULL;
    out->unit = UNIT;
    out->key_bits = 256;
    out->depth = b->connections;
    out->sessions = b->sessions;
    out->runs = b->runs;
    out->verified = right;
    out->sessions_per_s = rs_summarise(per_s, b->runs);
    (void)rs_summarise(us, (size_t)b->runs * b->sessions);
    out->p50_us = rs_quantile(us, (size_t)b->runs * b->sessions, 0.5);
    out->p99_us = rs_quantile(us, (size_t)b->runs * b->sessions, 0.99);
    out->p999_us = rs_quantile(us, (size_t)b->runs * b->sessions, 0.999);
}

int rs_sessions_bench_measure(struct rs_sessions_bench *b, struct rs_result *disks, struct rs_result *drawn)
{
    double rate[2][RUNS_MAX], warm[1];
    bool right[2] = {true, true};
    size_t all = (size_t)b->runs * b->sessions;
    double *us = calloc(2 * all, sizeof(*us));
    if (us == NULL) return fail(b, "bench", "memory is out");
    warm[0] = run(b, false, us, &right[0]); /* fills no cache of ours, but brings code and pages in */
    int code = isfinite(warm[0]) ? 0 : RESEAL_EIO;
    for (unsigned i = 0; code == 0 && i < b->runs; i++)
        for (unsigned k = 0; code == 0 && k < 2; k++) {
            unsigned kind = (i + k) % 2;
            rate[kind][i] = run(b, kind == 1, us + kind * all + (size_t)i * b->sessions, &right[kind]);
            if (!isfinite(rate[kind][i])) code = RESEAL_EIO;
        }
    if (code == 0) {
        summarise(b, "sessions", rate[0], us, right[0], disks);
        summarise(b, "sessions-drawn-keys", rate[1], us + all, right[1], drawn);
    }
    free(us);
    return code;
}
