/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/ring.h"

#include <math.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include "bench/peers.h"
#include "bench/sample.h"
#include "offload/base/clock.h"
#include "offload/transform/transform.h"
#include "reseal/reseal.h"

#define DEPTH_MAX 256u
#define TRIPS_MAX 200000u
#define RUNS_MAX  1000u
#define RAW_LEN   64u
#define BEST_OF   3u

struct rs_ring_bench {
    reseal *r;
    int core;       /* of this thread */
    int other_core; /* any other one, -1: there is none */
    uint8_t src_raw[RAW_LEN], dst_raw[RAW_LEN];
};

/* One shape of work: a session and a queue, and its twin in process. */
struct work {
    struct rs_ring_bench *b;
    struct rs_ring_work w;
    reseal_key src, dst;
    bool has_src, has_dst;
    reseal_session *session;
    reseal_queue *queue;
    uint8_t *arena; /* inputs of all slots, then outputs */
    uint8_t *expected;
    struct reseal_job jobs[DEPTH_MAX];
    struct rs_transform transform;
    struct rs_job twins[DEPTH_MAX];
    void *keys, *scratch;
    size_t keys_len, scratch_len;
    double *trips; /* microseconds */
    unsigned ntrips;
};

/* ---- connection ------------------------------------------------------------ */

static void find_cores(struct rs_ring_bench *b, int core)
{
    cpu_set_t allowed;
    b->core = core;
    b->other_core = -1;
    if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) return;
    for (int i = 0; i < CPU_SETSIZE; i++) {
        if (!CPU_ISSET((size_t)i, &allowed)) continue;
        if (b->core < 0)
            b->core = i;
        else if (i != b->core)
            b->other_core = i;
    }
}

int rs_ring_bench_open(struct rs_ring_bench **out, const char *runtime_dir, int core)
{
    struct rs_ring_bench *b = calloc(1, sizeof(*b));
    if (b == NULL) return RESEAL_ENOMEM;
    struct reseal_options options = {.size = sizeof(options), .runtime_dir = runtime_dir};
    find_cores(b, core);
    int r = getrandom(b->src_raw, RAW_LEN, 0) != RAW_LEN || getrandom(b->dst_raw, RAW_LEN, 0) != RAW_LEN
                ? RESEAL_EIO
                : 0;
    if (r == 0) r = reseal_open(&b->r, &options);
    if (r == 0 && rs_pin(b->core) < 0) r = RESEAL_EINVAL;
    if (r != 0) {
        rs_ring_bench_close(b);
        return r;
    }
    *out = b;
    return 0;
}

void rs_ring_bench_close(struct rs_ring_bench *b)
{
    if (b == NULL) return;
    if (b->r != NULL) reseal_close(b->r);
    rs_wipe(b->src_raw, sizeof(b->src_raw));
    rs_wipe(b->dst_raw, sizeof(b->dst_raw));
    free(b);
}

/* ---- setting up -------------------------------------------------------------- */

static int give_key(struct work *k, const uint8_t *raw, uint32_t use, const char *name, reseal_key *out)
{
    struct reseal_key_use how = {.size = sizeof(how),
                                 .cipher = RESEAL_XTS,
                                 .use = use,
                                 .unit = k->w.unit,
                                 .step = k->w.unit / 512,
                                 .name = name};
    RS_CLOSE int fd = memfd_create("key", MFD_CLOEXEC);
    if (fd < 0 || rs_pwrite_full(fd, raw, RAW_LEN, 0) != 0) return RESEAL_EIO;
    return reseal_key_raw(k->b->r, fd, &how, out);
}

static int open_session(struct work *k)
{
    int r = give_key(k, k->b->src_raw, RESEAL_USE_SOURCE, "bench-source", &k->src);
    k->has_src = r == 0;
    if (r == 0) r = give_key(k, k->b->dst_raw, RESEAL_USE_DESTINATION, "bench-destination", &k->dst);
    k->has_dst = r == 0;
    if (r != 0) return r;
    struct reseal_side side = {.cipher = RESEAL_XTS, .unit = k->w.unit, .step = k->w.unit / 512};
    struct reseal_transform t = {
        .size = sizeof(t), .counter_at = RESEAL_NO_COUNTER, .source = side, .destination = side};
    t.source.key = k->src;
    t.destination.key = k->dst;
    return reseal_session_open(k->b->r, &t, &k->session);
}

static int open_queue(struct work *k)
{
    uint64_t half = (uint64_t)k->w.depth * k->w.bytes;
    struct reseal_queue_options options = {.size = sizeof(options), .depth = k->w.depth, .arena = 2 * half};
    int r = reseal_queue_open(k->b->r, &options, &k->queue);
    if (r != 0) return r;
    size_t len;
    k->arena = reseal_queue_arena(k->queue, &len);
    if (len < 2 * half) return RESEAL_EPROTO;
    for (size_t at = 0; at < half;) {
        ssize_t n = getrandom(k->arena + at, RS_MIN((size_t)half - at, (size_t)1 << 20), 0);
        if (n <= 0) return RESEAL_EIO;
        at += (size_t)n;
    }
    for (uint32_t i = 0; i < k->w.depth; i++) {
        uint64_t tweak = (uint64_t)i * (k->w.bytes / 512);
        const uint8_t *in = k->arena + (size_t)i * k->w.bytes;
        uint8_t *to = k->arena + half + (size_t)i * k->w.bytes;
        k->jobs[i] = (struct reseal_job){.session = k->session,
                                         .in = in,
                                         .out = to,
                                         .len = k->w.bytes,
                                         .src_tweak = tweak,
                                         .dst_tweak = tweak,
                                         .user_data = i};
        k->twins[i] = (struct rs_job){.in = in,
                                      .out = to,
                                      .len = k->w.bytes,
                                      .out_cap = k->w.bytes,
                                      .src_tweak = tweak,
                                      .dst_tweak = tweak};
    }
    return 0;
}

static int open_twin(struct work *k)
{
    struct rs_transform_side side = {
        .cipher = RS_XTS, .bits = 256, .unit = k->w.unit, .step = k->w.unit / 512};
    struct rs_transform_config config = {
        .src = side, .dst = side, .counter_at = RESEAL_NO_COUNTER, .typical_len = k->w.bytes};
    k->keys_len = (size_t)rs_round_up(rs_transform_key_size(&config), 4096);
    k->scratch_len = (size_t)rs_round_up(rs_transform_scratch_size(&config), 4096);
    k->keys = aligned_alloc(4096, k->keys_len);
    k->scratch = aligned_alloc(4096, RS_MAX(k->scratch_len, (size_t)4096));
    if (k->keys == NULL || k->scratch == NULL) return RESEAL_ENOMEM;
    return rs_transform_init(&k->transform, &config, k->keys, k->b->src_raw, k->b->dst_raw, NULL);
}

/* What each slot must become, by OpenSSL. */
static int make_expected(struct work *k)
{
    size_t half = (size_t)k->w.depth * k->w.bytes;
    k->expected = malloc(half);
    struct rs_peer_side *open = rs_peer_open(RS_PEER_OPENSSL, RS_XTS, 256, false, k->b->src_raw, RAW_LEN);
    struct rs_peer_side *seal = rs_peer_open(RS_PEER_OPENSSL, RS_XTS, 256, true, k->b->dst_raw, RAW_LEN);
    int r = k->expected == NULL || open == NULL || seal == NULL ? RESEAL_ENOMEM : 0;
    struct rs_side side = {.cipher = RS_XTS, .unit = k->w.unit, .step = k->w.unit / 512};
    if (r == 0) r = rs_peer_run(open, &side, k->expected, k->arena, half, NULL, 0);
    if (r == 0) r = rs_peer_run(seal, &side, k->expected, k->expected, half, NULL, 0);
    rs_peer_close(open);
    rs_peer_close(seal);
    return r;
}

static void close_work(struct work *k)
{
    if (k->keys != NULL) rs_transform_wipe(&k->transform);
    free(k->keys);
    free(k->scratch);
    free(k->expected);
    free(k->trips);
    if (k->queue != NULL) reseal_queue_close(k->queue);
    if (k->session != NULL) reseal_session_close(k->session);
    if (k->has_src) (void)reseal_key_close(k->b->r, k->src);
    if (k->has_dst) (void)reseal_key_close(k->b->r, k->dst);
    free(k);
}

/* ---- passes -------------------------------------------------------------------- */

/* Jobs in a pass: enough that filling and draining the ring counts for little. */
static unsigned jobs_in_pass(const struct work *k)
{
    return k->w.depth * 8;
}

/* Keeps `depth` jobs in flight until all of a pass are done. Every slot is submitted again as soon as it is
 * free. */
static int pass_ring(void *arg)
{
    struct work *k = arg;
    struct reseal_completion done[DEPTH_MAX];
    unsigned total = jobs_in_pass(k), submitted = 0, completed = 0;
    int n = reseal_submit(k->queue, k->jobs, k->w.depth);
    if (n != (int)k->w.depth) return n < 0 ? n : RESEAL_EAGAIN;
    submitted = k->w.depth;
    while (completed < total) {
        n = reseal_poll(k->queue, done, DEPTH_MAX);
        if (n < 0) return n;
        struct reseal_job again[DEPTH_MAX];
        unsigned more = 0;
        for (int i = 0; i < n; i++) {
            if (done[i].status != 0) return done[i].status;
            if (submitted + more < total) again[more++] = k->jobs[done[i].user_data];
        }
        completed += (unsigned)n;
        for (unsigned sent = 0; sent < more;) {
            n = reseal_submit(k->queue, again + sent, more - sent);
            if (n < 0 && n != RESEAL_EAGAIN) return n;
            if (n > 0) sent += (unsigned)n;
        }
        submitted += more;
    }
    return 0;
}

static int pass_twin(void *arg)
{
    struct work *k = arg;
    bool stream = rs_transform_streams(2ull * k->w.depth * k->w.bytes);
    for (unsigned done = 0; done < jobs_in_pass(k); done += k->w.depth)
        if (rs_transform_run(&k->transform, k->twins, k->w.depth, k->scratch, stream) != 0)
            return RESEAL_EPROTO;
    return 0;
}

/* One job at a time, each timed from before its submission until it was seen done. */
static int time_trips(struct work *k, unsigned n)
{
    struct reseal_completion done;
    for (unsigned i = 0; i < n && k->ntrips < TRIPS_MAX; i++) {
        uint64_t start = rs_now_ns();
        int got = reseal_submit(k->queue, &k->jobs[0], 1);
        if (got != 1) return got < 0 ? got : RESEAL_EAGAIN;
        while ((got = reseal_poll(k->queue, &done, 1)) == 0) continue;
        if (got < 0) return got;
        if (done.status != 0) return done.status;
        k->trips[k->ntrips++] = (double)(rs_now_ns() - start) / 1e3;
    }
    return 0;
}

/* With more jobs in flight: how long each of them took. */
static int time_deep(struct work *k, unsigned n)
{
    uint64_t started[DEPTH_MAX];
    struct reseal_completion done[DEPTH_MAX];
    unsigned flying = 0, sent = 0;
    for (uint32_t i = 0; i < k->w.depth; i++, flying++, sent++) {
        started[i] = rs_now_ns();
        int r = reseal_submit(k->queue, &k->jobs[i], 1);
        if (r != 1) return r < 0 ? r : RESEAL_EAGAIN;
    }
    while (flying > 0) {
        int got = reseal_poll(k->queue, done, DEPTH_MAX);
        if (got < 0) return got;
        uint64_t now = rs_now_ns();
        for (int i = 0; i < got; i++, flying--) {
            uint64_t slot = done[i].user_data;
            if (done[i].status != 0) return done[i].status;
            if (k->ntrips < TRIPS_MAX) k->trips[k->ntrips++] = (double)(now - started[slot]) / 1e3;
            if (sent >= n) continue;
            started[slot] = rs_now_ns();
            int r = reseal_submit(k->queue, &k->jobs[slot], 1);
            if (r != 1) return r < 0 ? r : RESEAL_EAGAIN;
            sent++, flying++;
        }
    }
    return 0;
}

/* Median microseconds of one job in process. */
static double twin_us(struct work *k, unsigned n)
{
    double us[512];
    n = RS_MIN(n, (unsigned)RS_ARRAY_LEN(us));
    bool stream = rs_transform_streams(2ull * k->w.bytes);
    for (unsigned i = 0; i < n; i++) {
        uint64_t start = rs_now_ns();
        if (rs_transform_run(&k->transform, k->twins, 1, k->scratch, stream) != 0) return NAN;
        us[i] = (double)(rs_now_ns() - start) / 1e3;
    }
    return rs_median(us, n);
}

/* ---- measuring ------------------------------------------------------------------- */

/* The best of a few: whoever takes either core away for a while makes a sample worse, nobody makes it better.
 */
static int sample(struct work *k, rs_pass pass, double *gbps, bool *right)
{
    size_t half = (size_t)k->w.depth * k->w.bytes;
    uint8_t *out = k->arena + half;
    memset(out, 0, half);
    *gbps = 0;
    for (unsigned i = 0; i < BEST_OF; i++) {
        struct rs_sample s;
        int r = rs_sample_take(pass, k, (uint64_t)jobs_in_pass(k) * k->w.bytes, k->w.sample_us * 1000ull, &s);
        if (r != 0) return r;
        *gbps = fmax(*gbps, s.gbps);
    }
    *right = *right && memcmp(out, k->expected, half) == 0;
    return 0;
}

static int one_run(struct work *k, unsigned run, double *ring, double *twin, double *trip_ratio, bool *right)
{
    int r = sample(k, pass_ring, &ring[run], right);
    if (r == 0) r = sample(k, pass_twin, &twin[run], right);
    if (r != 0) return r;
    unsigned trips = RS_MAX(k->w.trips / k->w.runs, 1u), before = k->ntrips;
    r = k->w.depth == 1 ? time_trips(k, trips) : time_deep(k, trips);
    trip_ratio[run] = NAN;
    if (r != 0 || k->w.depth != 1) return r;
    /* The floor is measured beside the trips: cores change their speed and their distance in virtual
     * machines. */
    double copy[512];
    unsigned n = RS_MIN(k->ntrips - before, (unsigned)RS_ARRAY_LEN(copy));
    memcpy(copy, k->trips + before, n * sizeof(*copy));
    double floor = rs_ping_pong_us(k->b->core, k->b->other_core) + twin_us(k, n);
    if (k->b->other_core >= 0 && floor > 0) trip_ratio[run] = rs_median(copy, n) / floor;
    return 0;
}

static void conclude(struct work *k, const double *ring, double *twin, double *trip_ratio,
                     struct rs_result *out)
{
    double rates[RUNS_MAX], ratios[RUNS_MAX];
    for (unsigned i = 0; i < k->w.runs; i++) {
        rates[i] = ring[i];
        ratios[i] = twin[i] > 0 ? ring[i] / twin[i] : 0;
    }
    out->gbps = rs_summarise(rates, k->w.runs);
    out->of_in_process = rs_summarise(ratios, k->w.runs);
    out->jobs_per_s = out->gbps.median * 1e9 / k->w.bytes;
    (void)rs_median(k->trips, k->ntrips); /* sorts */
    out->p50_us = rs_quantile(k->trips, k->ntrips, 0.5);
    out->p99_us = rs_quantile(k->trips, k->ntrips, 0.99);
    out->p999_us = rs_quantile(k->trips, k->ntrips, 0.999);
    if (k->w.depth == 1 && k->b->other_core >= 0) out->round_trip_ratio = rs_median(trip_ratio, k->w.runs);
    out->runs = k->w.runs;
}

static int measure(struct work *k, struct rs_result *out)
{
    double ring[RUNS_MAX], twin[RUNS_MAX], trip_ratio[RUNS_MAX];
    k->trips = calloc(TRIPS_MAX, sizeof(*k->trips));
    if (k->trips == NULL) return RESEAL_ENOMEM;
    out->verified = true;
    for (unsigned run = 0; run < k->w.runs && out->verified; run++) {
        int r = one_run(k, run, ring, twin, trip_ratio, &out->verified);
        if (r != 0) return r;
    }
    if (out->verified) conclude(k, ring, twin, trip_ratio, out);
    return 0;
}

int rs_ring_bench_measure(struct rs_ring_bench *b, const struct rs_ring_work *w, struct rs_result *out)
{
    rs_result_init(out, "ring");
    out->from = out->to = "xts";
    out->unit = w->unit;
    out->bytes = w->bytes;
    out->depth = w->depth;
    out->working_set = 2ull * w->depth * w->bytes;
    out->key_bits = 256;
    if (!rs_is_pow2(w->bytes) || w->bytes < 512 || w->bytes > 1 << 20 || !rs_is_pow2(w->depth) ||
        w->depth > DEPTH_MAX || w->unit == 0 || w->bytes % w->unit != 0 || w->runs < 1 || w->runs > RUNS_MAX)
        return RESEAL_EINVAL;
    struct work *k = calloc(1, sizeof(*k));
    if (k == NULL) return RESEAL_ENOMEM;
    k->b = b;
    k->w = *w;
    int r = open_session(k);
    if (r == 0) r = open_queue(k);
    if (r == 0) r = open_twin(k);
    if (r == 0) r = make_expected(k);
    if (r == 0) {
        out->engine = k->transform.open->name; /* calibrated here as there */
        r = measure(k, out);
    }
    close_work(k);
    return r;
}
