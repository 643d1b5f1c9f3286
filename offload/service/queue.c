/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/service/queue.h"

#include "offload/base/foreign.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define SPREAD_JOBS  1024u
#define SPREAD_BYTES (64ull << 20)
#define HUGE_PAGE    (2 << 20)
#define HUGE_FROM    (4ull << 20) /* bytes of arena from which huge pages are tried */

/* Everything but the wake socket. */
static int queue_on(struct rs_queue *q, int memfd, uint32_t depth, uint64_t arena)
{
    int e;
    if (memfd < 0) {
        e = rs_ring_create(&q->ring, &q->memfd, depth, arena, arena >= HUGE_FROM ? RS_RING_HUGE : 0);
    } else {
        q->memfd = memfd;
        e = rs_ring_attach(&q->ring, memfd);
    }
    if (e != 0) return e;
    if (q->ring.depth != depth || q->ring.data_len - q->ring.arena_offset < arena) return RESEAL_EPROTO;
    q->tickets = calloc(depth, sizeof(*q->tickets));
    if (q->tickets == NULL) return RESEAL_ENOMEM;
    struct stat st;
    q->huge = fstat(q->memfd, &st) == 0 && st.st_blksize >= HUGE_PAGE;
    q->regions[0] = (struct rs_region){.base = q->ring.data, .len = q->ring.data_len};
    q->guarded[0] = (struct rs_region){.base = (uint8_t *)q->ring.control, .len = q->ring.total};
    q->sq = rs_ring_sq_consumer(&q->ring, 0);
    q->cq = rs_ring_cq_producer(&q->ring, 0);
    return 0;
}

static struct rs_queue *queue_new(void)
{
    struct rs_queue *q = calloc(1, sizeof(*q));
    if (q != NULL) q->memfd = q->wake = -1;
    return q;
}

int rs_queue_make(struct rs_queue **out, int memfd, uint32_t depth, uint64_t arena, int *peer)
{
    int pair[2];
    struct rs_queue *q = queue_new();
    if (q == NULL) {
        rs_foreign_close(&memfd, 0);
        return RESEAL_ENOMEM;
    }
    int e = queue_on(q, memfd, depth, arena);
    if (e == 0 && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) != 0)
        e = RESEAL_ENOMEM;
    if (e != 0) {
        rs_queue_free(q);
        return e;
    }
    q->wake = pair[0];
    *peer = pair[1];
    *out = q;
    return 0;
}

int rs_queue_adopt(struct rs_queue **out, int memfd, int wake, uint32_t depth, uint32_t sq_index,
                   uint32_t cq_index)
{
    struct rs_queue *q = queue_new();
    if (q == NULL) {
        close(memfd);
        close(wake);
        return RESEAL_ENOMEM;
    }
    q->wake = wake;
    int e = queue_on(q, memfd, depth, 0);
    if (e != 0) {
        rs_queue_free(q);
        return e;
    }
    q->sq = rs_ring_sq_consumer(&q->ring, sq_index);
    q->cq = rs_ring_cq_producer(&q->ring, cq_index);
    *out = q;
    return 0;
}

void rs_queue_free(struct rs_queue *q)
{
    if (q == NULL) return;
    for (unsigned i = 1; i < RS_REGION_MAX; i++)
        if (q->regions[i].len != 0) munmap(q->regions[i].base, q->regions[i].len);
    rs_ring_detach(&q->ring);
    rs_foreign_close(&q->memfd, q->uid);
    rs_foreign_close(&q->wake, q->uid);
    free(q->tickets);
    free(q);
}

int rs_region_map(int memfd, uint64_t max, struct rs_region *out)
{
    uint64_t size;
    if (rs_ring_check_memfd(memfd, max, &size) != 0) return RESEAL_EINVAL;
    void *base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, memfd, 0);
    if (base == MAP_FAILED) return RESEAL_ENOMEM;
    *out = (struct rs_region){.base = base, .len = size};
    return 0;
}

static uint64_t spread_now(const struct rs_spread *s)
{
    return RS_MIN(s->reach, s->traffic);
}

static void spread_region(struct rs_spread *s, unsigned region, uint64_t off, uint64_t len)
{
    uint64_t *low = &s->low[region], *high = &s->high[region], before = *high - *low;
    if (*high == 0) *low = off;
    *low = RS_MIN(*low, off);
    *high = RS_MAX(*high, off + len);
    s->reach += *high - *low - before;
}

void rs_spread_add(struct rs_spread *s, const struct rs_sqe *sqe)
{
    bool in_place = sqe->in_region == sqe->out_region && sqe->in_off == sqe->out_off;
    if (s->jobs >= SPREAD_JOBS || s->traffic >= SPREAD_BYTES) *s = (struct rs_spread){.last = spread_now(s)};
    spread_region(s, sqe->in_region, sqe->in_off, sqe->len);
    if (!in_place) spread_region(s, sqe->out_region, sqe->out_off, sqe->len);
    s->jobs++;
    s->traffic += in_place ? sqe->len : 2ull * sqe->len;
}

uint64_t rs_spread_bytes(const struct rs_spread *s)
{
    return RS_MAX(s->last, spread_now(s));
}
