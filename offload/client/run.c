/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/client/internal.h"

#define RUN_MAX (4u << 20)

/* Half an arena: input in the first, output in the second, so that no job is in place and each can run again.
 */
static size_t half_of(const struct reseal_queue *q)
{
    return (q->ring.data_len - q->ring.arena_offset) / 2;
}

/* This thread's queue, with room for `bytes` on each side. */
static int run_queue(struct reseal *r, size_t bytes, reseal_queue **out)
{
    reseal_queue *q = pthread_getspecific(r->run_key);
    if (q != NULL && q->broken == 0 && half_of(q) >= bytes) {
        *out = q;
        return 0;
    }
    if (q != NULL) {
        pthread_setspecific(r->run_key, NULL);
        reseal_queue_close(q);
    }
    /* Doubling sizes: a thread opens few queues even when its jobs grow. */
    uint64_t half = 64u << 10;
    while (half < bytes) half *= 2;
    const struct reseal_queue_options o = {.size = sizeof(o), .depth = 1, .arena = 2 * half};
    int err = reseal_queue_open(r, &o, &q);
    if (err != 0) return err;
    if (pthread_setspecific(r->run_key, q) != 0) {
        reseal_queue_close(q);
        return RESEAL_ENOMEM;
    }
    *out = q;
    return 0;
}

static void end_of_thread(void *q)
{
    reseal_queue_close(q);
}

int rs_client_run_begin(struct reseal *r)
{
    r->has_run_key = pthread_key_create(&r->run_key, end_of_thread) == 0;
    return r->has_run_key ? 0 : RESEAL_ELIMIT;
}

void rs_client_run_end(struct reseal *r)
{
    if (r->has_run_key) pthread_key_delete(r->run_key);
    r->has_run_key = false;
}

int64_t reseal_run(reseal_session *s, const struct reseal_job *job)
{
    if (s == NULL || job == NULL || job->in == NULL || job->out == NULL) return RESEAL_EINVAL;
    uint32_t cap = job->out_cap != 0 ? job->out_cap : job->len;
    if (job->len == 0 || job->len > RUN_MAX) return RESEAL_EINVAL;
    cap = RS_MIN(cap, RUN_MAX);
    int err = rs_client_check_fork(s->r);
    reseal_queue *q = NULL;
    if (err == 0) err = run_queue(s->r, RS_MAX(job->len, cap), &q);
    if (err != 0) return err;
    uint8_t *in = reseal_queue_arena(q, NULL), *out = in + half_of(q);
    struct reseal_job inner = *job;
    inner.session = s;
    inner.in = memcpy(in, job->in, job->len);
    inner.out = out;
    inner.out_cap = cap;
    err = reseal_submit(q, &inner, 1);
    if (err < 0) return err;
    struct reseal_completion c;
    err = reseal_wait(q, &c, 1, -1);
    if (err < 0) return err;
    if (c.status != 0) return c.status;
    memcpy(job->out, out, c.out_len);
    return c.out_len;
}
