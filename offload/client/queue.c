/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/client/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <unistd.h>

/* Where reseal_wait() begins to learn how long to spin. */
#define SPIN_START_NS 20000u

static void queue_free(struct reseal_queue *q)
{
    for (unsigned i = 1; i < RS_REGION_MAX; i++) {
        if (q->regions[i].base == NULL) continue;
        munmap(q->regions[i].base, q->regions[i].len);
        rs_cleanup_close(&q->regions[i].memfd);
    }
    rs_ring_detach(&q->ring);
    rs_cleanup_close(&q->wake);
    rs_cleanup_close(&q->memfd);
    rs_cleanup_close(&q->epoll);
    free(q->slots);
    free(q->free_slots);
    free(q->ready);
    free(q->replay);
    free(q);
}

static int queue_make_tables(struct reseal_queue *q)
{
    uint32_t n = q->ring.depth;
    q->slots = calloc(n, sizeof(*q->slots));
    q->free_slots = calloc(n, sizeof(*q->free_slots));
    q->ready = calloc(n, sizeof(*q->ready));
    q->replay = calloc(n, sizeof(*q->replay));
    if (q->slots == NULL || q->free_slots == NULL || q->ready == NULL || q->replay == NULL)
        return RESEAL_ENOMEM;
    /* Low slots first, again and again, so that few auxiliary blocks stay in the cache. */
    for (uint32_t i = 0; i < n; i++) q->free_slots[i] = n - 1 - i;
    q->nfree = n;
    return 0;
}

/* Maps what the service sent and builds the private tables. */
static int queue_setup(struct reseal_queue *q, uint32_t ring_depth, uint64_t arena)
{
    int err = rs_ring_attach(&q->ring, q->memfd);
    if (err != 0) return err;
    if (q->ring.depth != ring_depth || q->ring.data_len - q->ring.arena_offset < arena) return RESEAL_EPROTO;
    if (madvise(q->ring.control, q->ring.total, MADV_DONTFORK) != 0) return RESEAL_ENOMEM;
    q->regions[0] = (struct rs_region){.base = q->ring.data, .len = q->ring.data_len, .memfd = -1};
    q->sq = rs_ring_sq_producer(&q->ring, 0);
    q->cq = rs_ring_cq_consumer(&q->ring, 0);
    return queue_make_tables(q);
}

/* Asks the service for the memory and the wake socket; under the lock. */
static int queue_call(struct reseal_queue *q, uint32_t ring_depth, uint64_t arena)
{
    struct reseal *r = q->r;
    struct rs_msg_queue body = {.depth = ring_depth, .arena = arena}, reply;
    int fds[2];
    int err = rs_client_call_locked(r, true, RS_MSG_QUEUE_OPEN, &body, sizeof(body), NULL, 0, &reply,
                                    sizeof(reply), fds, 2);
    if (err != 0) return err;
    q->memfd = fds[0];
    q->wake = fds[1];
    q->number = reply.queue;
    q->epoch = atomic_load(&r->epoch);
    return 0;
}

static void list_add(struct reseal_queue *q)
{
    q->next = q->r->queues;
    q->r->queues = q;
}

static void list_remove(struct reseal_queue *q)
{
    struct reseal_queue **at = &q->r->queues;
    while (*at != NULL && *at != q) at = &(*at)->next;
    if (*at == q) *at = q->next;
}

/* Tells the service to let go; under the lock. It answers when the jobs are done. */
static void queue_end_in_service(struct reseal_queue *q)
{
    struct rs_msg_queue body = {.queue = q->number};
    if (q->lost || q->broken != 0 || q->epoch != atomic_load(&q->r->epoch)) return;
    int err = rs_client_call_locked(q->r, false, RS_MSG_QUEUE_CLOSE, &body, sizeof(body), NULL, 0, NULL, 0,
                                    NULL, 0);
    (void)err; /* a service that went away has let go */
}

int reseal_queue_open(reseal *r, const struct reseal_queue_options *options, reseal_queue **out)
{
    if (r == NULL || out == NULL) return RESEAL_EINVAL;
    *out = NULL;
    struct reseal_queue_options o = {0};
    int err = rs_client_check_fork(r);
    if (err == 0 && options != NULL) err = rs_client_take_options(&o, sizeof(o), options);
    if (err != 0) return err;
    if (o.depth == 0) o.depth = RS_DEFAULT_DEPTH;
    if (o.arena == 0) o.arena = RS_DEFAULT_ARENA;
    if (!rs_is_pow2(o.depth) || o.depth > RS_DEPTH_MAX || o.arena > RS_ARENA_MAX) return RESEAL_EINVAL;
    uint64_t arena = rs_round_up(o.arena, 4096);
    struct reseal_queue *q = calloc(1, sizeof(*q));
    if (q == NULL) return RESEAL_ENOMEM;
    *q = (struct reseal_queue){
        .r = r, .depth = o.depth, .memfd = -1, .wake = -1, .epoll = -1, .spin_ns = SPIN_START_NS};
    pthread_mutex_lock(&r->lock);
    /* Entries for cancels come on top of those for jobs: a full queue must be able to cancel. */
    uint32_t deepest = RS_MIN(r->welcome.max_depth, RS_DEPTH_MAX);
    uint32_t ring_depth = 2 * o.depth <= deepest ? 2 * o.depth : o.depth;
    err = queue_call(q, ring_depth, arena);
    if (err == 0) {
        err = queue_setup(q, ring_depth, arena);
        if (err != 0)
            queue_end_in_service(q);
        else
            list_add(q);
    }
    pthread_mutex_unlock(&r->lock);
    if (err != 0)
        queue_free(q);
    else
        *out = q;
    return err;
}

void reseal_queue_close(reseal_queue *q)
{
    if (q == NULL || rs_client_check_fork(q->r) != 0) return;
    struct reseal *r = q->r;
    pthread_mutex_lock(&r->lock);
    list_remove(q);
    queue_end_in_service(q);
    pthread_mutex_unlock(&r->lock);
    queue_free(q);
}

void *reseal_queue_arena(reseal_queue *q, size_t *len)
{
    if (q == NULL || rs_client_check_fork(q->r) != 0) {
        if (len != NULL) *len = 0;
        return NULL;
    }
    if (len != NULL) *len = q->ring.data_len - q->ring.arena_offset;
    return q->ring.data + q->ring.arena_offset;
}

/* ---- registered memory --------------------------------------------------- */

/* Region `number` of the service, which may be wrong about it; 0 lets the service choose. Under the lock. */
static int region_call(struct reseal_queue *q, uint32_t number, const struct rs_region *region,
                       uint32_t *given)
{
    struct rs_msg_region body = {.queue = q->number, .region = number, .len = region->len}, reply;
    int err = rs_client_call_locked(q->r, false, RS_MSG_REGION_ADD, &body, sizeof(body), &region->memfd, 1,
                                    &reply, sizeof(reply), NULL, 0);
    if (err != 0) return err;
    if (reply.region == 0 || reply.region >= RS_REGION_MAX) return RESEAL_EPROTO;
    if (number != 0 && reply.region != number) return RESEAL_EPROTO;
    if (number == 0 && q->regions[reply.region].base != NULL) return RESEAL_EPROTO;
    *given = reply.region;
    return 0;
}

/* Maps and duplicates the caller's memfd. */
static int region_make(struct rs_region *region, int memfd)
{
    *region = (struct rs_region){.memfd = -1};
    int err = rs_ring_check_memfd(memfd, RS_REGION_BYTES_MAX, &region->len);
    if (err != 0) return err;
    region->memfd = fcntl(memfd, F_DUPFD_CLOEXEC, 3);
    if (region->memfd < 0) return RESEAL_ELIMIT;
    void *base = mmap(NULL, region->len, PROT_READ | PROT_WRITE, MAP_SHARED, region->memfd, 0);
    if (base != MAP_FAILED && madvise(base, region->len, MADV_DONTFORK) == 0) {
        region->base = base;
        return 0;
    }
    if (base != MAP_FAILED) munmap(base, region->len);
    rs_cleanup_close(&region->memfd);
    return RESEAL_ENOMEM;
}

int reseal_queue_register(reseal_queue *q, int memfd, void **base)
{
    if (q == NULL || memfd < 0 || base == NULL) return RESEAL_EINVAL;
    *base = NULL;
    struct rs_region region;
    int err = rs_client_check_fork(q->r);
    if (err == 0) err = q->broken;
    if (err == 0) err = region_make(&region, memfd);
    if (err != 0) return err;
    uint32_t number = 0;
    for (unsigned attempt = 0; attempt < 2; attempt++) {
        if (q->lost || q->epoch != atomic_load(&q->r->epoch)) err = rs_client_recover(q);
        if (err != 0) break;
        pthread_mutex_lock(&q->r->lock);
        err = q->epoch == atomic_load(&q->r->epoch) ? region_call(q, 0, &region, &number) : RESEAL_ENOSERVICE;
        pthread_mutex_unlock(&q->r->lock);
        if (!rs_client_is_loss(err)) break;
        q->lost = true;
        if (attempt == 0) err = 0;
    }
    if (err != 0) {
        munmap(region.base, region.len);
        rs_cleanup_close(&region.memfd);
        return err;
    }
    q->regions[number] = region;
    *base = region.base;
    return 0;
}

/* ---- a new service ------------------------------------------------------- */

/* Replaces the wake socket; the descriptor that the caller polls stays what it is. */
static int take_wake(struct reseal_queue *q, int wake)
{
    rs_cleanup_close(&q->wake);
    q->wake = wake;
    if (q->epoll < 0) return 0;
    struct epoll_event event = {.events = EPOLLIN};
    return epoll_ctl(q->epoll, EPOLL_CTL_ADD, q->wake, &event) == 0 ? 0 : RESEAL_ENOMEM;
}

static int attach_locked(struct reseal_queue *q)
{
    /* As in QUEUE_OPEN: number and total are the service's to say. */
    struct rs_msg_queue body = {.depth = q->ring.depth, .arena = q->ring.data_len - q->ring.arena_offset};
    struct rs_msg_queue reply;
    int wake;
    int err = rs_client_call_locked(q->r, false, RS_MSG_QUEUE_ATTACH, &body, sizeof(body), &q->memfd, 1,
                                    &reply, sizeof(reply), &wake, 1);
    if (err == 0) {
        q->number = reply.queue;
        err = take_wake(q, wake);
    }
    for (uint32_t i = 1, given; err == 0 && i < RS_REGION_MAX; i++)
        if (q->regions[i].base != NULL) err = region_call(q, i, &q->regions[i], &given);
    return err;
}

int rs_client_attach_queue(struct reseal_queue *q)
{
    pthread_mutex_lock(&q->r->lock);
    q->epoch = atomic_load(&q->r->epoch);
    int err = attach_locked(q);
    pthread_mutex_unlock(&q->r->lock);
    return err;
}

int reseal_queue_fd(reseal_queue *q)
{
    if (q == NULL) return RESEAL_EINVAL;
    int err = rs_client_check_fork(q->r);
    if (err != 0) return err;
    if (q->epoll < 0) {
        /* Not the wake socket itself, which is another one after a restart. */
        RS_CLOSE int epoll = epoll_create1(EPOLL_CLOEXEC);
        if (epoll < 0) return RESEAL_ELIMIT;
        struct epoll_event event = {.events = EPOLLIN};
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, q->wake, &event) != 0) return RESEAL_ENOMEM;
        q->epoll = epoll;
        epoll = -1;
        q->with_fd = true;
        /* A completion that waits already is found by the poll that comes before sleeping. */
        bool armed = rs_ring_announce_sleep(&q->cq);
        (void)armed;
    }
    return q->epoll;
}
