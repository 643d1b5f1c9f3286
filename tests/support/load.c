/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/load.h"

#include "offload/base/bytes.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#define UNIT  4096u
#define JOB   (4u * UNIT)
#define DEPTH 32u

static void must(int e)
{
    if (e == 0) return;
    fprintf(stderr, "load: %s\n", reseal_strerror(e));
    exit(2);
}

static reseal_key key_of(reseal *r, uint32_t cipher)
{
    reseal_key key;
    struct reseal_key_use use = {.size = sizeof(use), .cipher = cipher, .use = 3};
    if (cipher == RESEAL_XTS) use.unit = UNIT, use.step = 1;
    must(reseal_key_random(r, 256, &use, &key));
    return key;
}

static reseal_session *session_of(reseal *r, reseal_key from, reseal_key to, uint32_t cipher)
{
    reseal_session *s;
    struct reseal_transform t = {.size = sizeof(t), .counter_at = RESEAL_NO_COUNTER};
    t.source = (struct reseal_side){.cipher = RESEAL_XTS, .unit = UNIT, .step = 1, .key = from};
    t.destination = (struct reseal_side){.cipher = cipher, .key = to};
    if (cipher == RESEAL_XTS) t.destination.unit = UNIT, t.destination.step = 1;
    must(reseal_session_open(r, &t, &s));
    return s;
}

/* One batch there and back: out = back(there(in)) must be in again. */
static int round_trip(struct load *l, reseal_queue *q, uint8_t *arena, uint64_t seed)
{
    unsigned seen[DEPTH] = {0}, done = 0;
    for (unsigned i = 0; i < DEPTH * JOB; i += 8) rs_store_le64(arena + i, seed * 0x9e3779b97f4a7c15u + i);
    for (unsigned pass = 0; pass < 2; pass++) {
        struct reseal_job jobs[DEPTH];
        uint8_t *from = arena + pass * DEPTH * JOB, *to = from + DEPTH * JOB;
        for (unsigned i = 0; i < DEPTH; i++)
            jobs[i] = (struct reseal_job){.session = pass == 0 ? l->there : l->back,
                                          .in = from + i * JOB,
                                          .out = to + i * JOB,
                                          .len = JOB,
                                          .src_tweak = seed + i,
                                          .dst_tweak = seed + i,
                                          .user_data = i};
        int e = reseal_submit(q, jobs, DEPTH);
        if (e != (int)DEPTH) return e < 0 ? e : 1;
        for (done = 0; done < DEPTH;) {
            struct reseal_completion c[DEPTH];
            int n = reseal_wait(q, c, DEPTH, 60000);
            if (n < 0) return n;
            for (int i = 0; i < n; i++) {
                if (c[i].status != 0) return c[i].status;
                if (c[i].user_data >= DEPTH || seen[c[i].user_data]++ != pass) return 1;
            }
            done += (unsigned)n;
        }
        atomic_fetch_add(&l->completed, DEPTH);
    }
    return memcmp(arena, arena + 2 * DEPTH * JOB, DEPTH * JOB) == 0 ? 0 : 1;
}

/* A record whose IV repeats under the same salt would be the end of GCM; each restart brings a new salt. */
static int sealed(struct load *l, uint8_t salt[16], uint64_t *counter)
{
    uint8_t in[JOB], out[JOB];
    memset(in, 7, sizeof(in));
    struct reseal_record record = {0};
    struct reseal_job job = {.session = l->record, .in = in, .out = out, .len = JOB, .destination = &record};
    int64_t n = reseal_run(l->record, &job);
    if (n != JOB) return n < 0 ? (int)n : 1;
    if (memcmp(salt, record.salt, 16) == 0 && record.counter <= *counter) return 1;
    memcpy(salt, record.salt, 16);
    *counter = record.counter;
    return 0;
}

static void *work(void *arg)
{
    struct load *l = arg;
    reseal_queue *q = NULL;
    size_t len;
    uint8_t salt[16] = {0};
    uint64_t counter = 0;
    struct reseal_queue_options o = {.size = sizeof(o), .depth = DEPTH, .arena = 3 * DEPTH * JOB};
    int e = reseal_queue_open(l->r, &o, &q);
    for (uint64_t seed = 1; e == 0 && !atomic_load(&l->stop); seed += DEPTH) {
        e = round_trip(l, q, reseal_queue_arena(q, &len), seed);
        if (e == 0) e = sealed(l, salt, &counter);
    }
    atomic_store(&l->failed, e);
    reseal_queue_close(q);
    return NULL;
}

void load_start(struct load *l, const char *dir)
{
    struct reseal_options o = {.size = sizeof(o), .reconnect_ms = 60000, .runtime_dir = dir};
    *l = (struct load){0};
    must(reseal_open(&l->r, &o));
    reseal_key a = key_of(l->r, RESEAL_XTS), b = key_of(l->r, RESEAL_XTS), c = key_of(l->r, RESEAL_GCM);
    l->there = session_of(l->r, a, b, RESEAL_XTS);
    l->back = session_of(l->r, b, a, RESEAL_XTS);
    l->record = session_of(l->r, a, c, RESEAL_GCM);
    if (pthread_create(&l->thread, NULL, work, l) != 0) exit(2);
}

void load_progress(struct load *l, uint64_t jobs)
{
    uint64_t from = atomic_load(&l->completed);
    while (atomic_load(&l->completed) < from + jobs && atomic_load(&l->failed) == 0) sched_yield();
}

int load_stop(struct load *l)
{
    atomic_store(&l->stop, 1);
    pthread_join(l->thread, NULL);
    reseal_close(l->r);
    return atomic_load(&l->failed);
}
