/* SPDX-License-Identifier: Apache-2.0 */
/* The ring: 1 GiB from one disk key to another, 32 jobs in flight, in the memory that the service sees too.
 */
#include <reseal/reseal.h>

#include <stdio.h>

#define DEPTH 32u
#define CHUNK (64u << 10)
#define JOBS  ((1u << 30) / CHUNK)

static int fail(const char *what, int code)
{
    fprintf(stderr, "%s: %s\n", what, reseal_strerror(code));
    return 1;
}

int main(void)
{
    struct reseal_key_use use = {.size = sizeof(use), .cipher = RESEAL_XTS, .unit = 4096, .step = 8};
    struct reseal_transform t = {.size = sizeof(t), .counter_at = RESEAL_NO_COUNTER};
    t.source = t.destination = (struct reseal_side){.cipher = RESEAL_XTS, .unit = 4096, .step = 8};
    const struct reseal_queue_options o = {.size = sizeof(o), .depth = DEPTH, .arena = 2ull * DEPTH * CHUNK};
    reseal *r;
    reseal_session *s;
    reseal_queue *q;
    int err = reseal_open(&r, NULL);
    if (err != 0) return fail("reseal_open", err);
    use.use = RESEAL_USE_SOURCE | RESEAL_USE_DESTINATION;
    err = reseal_key_random(r, 256, &use, &t.source.key);
    if (err == 0) err = reseal_key_random(r, 256, &use, &t.destination.key);
    if (err == 0) err = reseal_session_open(r, &t, &s);
    if (err == 0) err = reseal_queue_open(r, &o, &q);
    if (err != 0) return fail("keys, session and queue", err);

    unsigned char *in = reseal_queue_arena(q, NULL), *out = in + DEPTH * CHUNK;
    /* One place of the arena for each job in flight; jobs complete in any order. */
    unsigned sent = 0, done = 0, nfree = DEPTH, places[DEPTH];
    for (unsigned i = 0; i < DEPTH; i++) places[i] = i;
    while (done < JOBS) {
        for (; sent < JOBS && nfree != 0; sent++) {
            unsigned place = places[--nfree]; /* a program would read its input to this place now */
            struct reseal_job job = {.session = s, .len = CHUNK, .user_data = place};
            job.in = in + (size_t)place * CHUNK;
            job.out = out + (size_t)place * CHUNK;
            job.src_tweak = job.dst_tweak = (uint64_t)sent * (CHUNK / 512);
            if ((err = reseal_submit(q, &job, 1)) != 1) return fail("reseal_submit", err);
        }
        struct reseal_completion c[DEPTH];
        int n = reseal_wait(q, c, DEPTH, -1);
        if (n < 0) return fail("reseal_wait", n);
        for (int i = 0; i < n; i++, done++) {
            if (c[i].status != 0) return fail("job", c[i].status);
            places[nfree++] = (unsigned)c[i].user_data;
        }
    }
    reseal_close(r);
    return 0;
}
