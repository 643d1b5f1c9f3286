/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/ring/ring.h"

#include "reseal/reseal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE      4096u
#define HUGE_PAGE (2u << 20)
#define SEALS     (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)
/* The largest rings, auxiliary blocks and arena, and what rounding to a huge page adds. */
#define TOTAL_MAX (RS_ARENA_MAX + (16ull << 20))

static uint64_t data_offset_min(uint32_t depth)
{
    return rs_round_up(PAGE + 2ull * depth * RS_RING_ENTRY, PAGE);
}

static uint64_t arena_offset_of(uint32_t depth)
{
    return rs_round_up((uint64_t)depth * RS_AUX_SIZE, PAGE);
}

static bool depth_ok(uint32_t depth)
{
    return rs_is_pow2(depth) && depth <= RS_DEPTH_MAX;
}

int rs_ring_layout(struct rs_ring_geometry *geometry, uint32_t depth, uint64_t arena)
{
    if (!depth_ok(depth) || arena > RS_ARENA_MAX) return RESEAL_EINVAL;
    *geometry = (struct rs_ring_geometry){
        .magic = RS_RING_MAGIC,
        .version = RS_RING_VERSION,
        .depth = depth,
        .data_offset = data_offset_min(depth),
        .arena_offset = arena_offset_of(depth),
    };
    geometry->total = geometry->data_offset + geometry->arena_offset + rs_round_up(arena, PAGE);
    return 0;
}

int rs_ring_check(const struct rs_ring_geometry *g, uint64_t file_size)
{
    if (g->magic != RS_RING_MAGIC || g->version != RS_RING_VERSION) return RESEAL_EPROTO;
    if (!depth_ok(g->depth)) return RESEAL_EPROTO;
    if (g->total != file_size || g->total > TOTAL_MAX || g->total % PAGE != 0) return RESEAL_EPROTO;
    if (g->data_offset % PAGE != 0 || g->data_offset < data_offset_min(g->depth)) return RESEAL_EPROTO;
    if (g->arena_offset != arena_offset_of(g->depth)) return RESEAL_EPROTO;
    if (!rs_range_ok(g->data_offset, g->arena_offset, g->total)) return RESEAL_EPROTO;
    if (g->reserved[0] != 0 || g->reserved[1] != 0 || g->reserved[2] != 0) return RESEAL_EPROTO;
    return 0;
}

/* Fills `ring` from a checked private geometry. */
static void ring_fill(struct rs_ring *ring, void *base, const struct rs_ring_geometry *g)
{
    uint8_t *bytes = base;
    *ring = (struct rs_ring){
        .control = base,
        .sq = (struct rs_sqe *)(void *)(bytes + PAGE),
        .cq = (struct rs_cqe *)(void *)(bytes + PAGE + (uint64_t)g->depth * RS_RING_ENTRY),
        .data = bytes + g->data_offset,
        .data_len = g->total - g->data_offset,
        .arena_offset = g->arena_offset,
        .total = g->total,
        .depth = g->depth,
    };
}

/* A memfd of `total` bytes with every page allocated, mapped; the mapping, or NULL with *memfd = -1. */
static void *memory_make(int *memfd, uint64_t total, unsigned huge)
{
    *memfd = memfd_create("reseal-queue", MFD_CLOEXEC | MFD_ALLOW_SEALING | huge);
    if (*memfd < 0) return NULL;
    void *base = MAP_FAILED;
    if (ftruncate(*memfd, (off_t)total) == 0 && fallocate(*memfd, 0, 0, (off_t)total) == 0)
        base = mmap(NULL, total, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, *memfd, 0);
    if (base != MAP_FAILED) return base;
    rs_cleanup_close(memfd);
    return NULL;
}

int rs_ring_create(struct rs_ring *ring, int *memfd, uint32_t depth, uint64_t arena, unsigned flags)
{
    struct rs_ring_geometry g;
    *memfd = -1;
    int err = rs_ring_layout(&g, depth, arena);
    if (err != 0) return err;
    void *base = NULL;
    uint64_t small = g.total;
    if ((flags & RS_RING_HUGE) != 0 && small >= HUGE_PAGE) {
        g.total = rs_round_up(small, HUGE_PAGE);
        base = memory_make(memfd, g.total, MFD_HUGETLB | MFD_HUGE_2MB);
    }
    if (base == NULL) {
        g.total = small;
        base = memory_make(memfd, g.total, 0);
    }
    if (base == NULL) return RESEAL_ENOMEM;
    memcpy(base, &g, sizeof(g));
    if (fcntl(*memfd, F_ADD_SEALS, SEALS) != 0) {
        munmap(base, g.total);
        rs_cleanup_close(memfd);
        return RESEAL_EIO;
    }
    ring_fill(ring, base, &g);
    return 0;
}

int rs_ring_check_memfd(int memfd, uint64_t max, uint64_t *size)
{
    struct stat st;
    int seals = fcntl(memfd, F_GET_SEALS);
    if (seals < 0 || (seals & SEALS) != SEALS) return RESEAL_EINVAL;
    if ((seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)) != 0) return RESEAL_EINVAL;
    if (fstat(memfd, &st) != 0 || st.st_size <= 0) return RESEAL_EINVAL;
    if ((uint64_t)st.st_size > max || (uint64_t)st.st_size % PAGE != 0) return RESEAL_EINVAL;
    *size = (uint64_t)st.st_size;
    return 0;
}

int rs_ring_attach(struct rs_ring *ring, int memfd)
{
    uint64_t size;
    if (rs_ring_check_memfd(memfd, TOTAL_MAX, &size) != 0 || size < 2 * PAGE) return RESEAL_EPROTO;
    /*
     * Read, not mapped: a page that its owner punched out and that cannot be
     * had again is an error here, where touching it would be a signal.
     */
    struct rs_ring_geometry g;
    if (pread(memfd, &g, sizeof(g), 0) != (ssize_t)sizeof(g)) return RESEAL_EPROTO;
    int err = rs_ring_check(&g, size);
    if (err != 0) return err;
    void *base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, memfd, 0);
    if (base == MAP_FAILED) return RESEAL_ENOMEM;
    ring_fill(ring, base, &g);
    return 0;
}

void rs_ring_detach(struct rs_ring *ring)
{
    if (ring->control != NULL) munmap(ring->control, ring->total);
    *ring = (struct rs_ring){0};
}

void rs_ring_reset(struct rs_ring *ring)
{
    struct rs_ring_line *lines[] = {&ring->control->sq_producer, &ring->control->sq_consumer,
                                    &ring->control->cq_producer, &ring->control->cq_consumer};
    for (size_t i = 0; i < RS_ARRAY_LEN(lines); i++) {
        atomic_store_explicit(&lines[i]->index, 0, memory_order_relaxed);
        atomic_store_explicit(&lines[i]->need_wake, 0, memory_order_release);
    }
}

static struct rs_ring_end end_of(struct rs_ring_line *mine, const struct rs_ring_line *theirs, uint32_t depth,
                                 uint32_t index)
{
    return (struct rs_ring_end){.mine = mine, .theirs = theirs, .depth = depth, .index = index};
}

struct rs_ring_end rs_ring_sq_producer(const struct rs_ring *ring, uint32_t index)
{
    return end_of(&ring->control->sq_producer, &ring->control->sq_consumer, ring->depth, index);
}

struct rs_ring_end rs_ring_sq_consumer(const struct rs_ring *ring, uint32_t index)
{
    return end_of(&ring->control->sq_consumer, &ring->control->sq_producer, ring->depth, index);
}

struct rs_ring_end rs_ring_cq_producer(const struct rs_ring *ring, uint32_t index)
{
    return end_of(&ring->control->cq_producer, &ring->control->cq_consumer, ring->depth, index);
}

struct rs_ring_end rs_ring_cq_consumer(const struct rs_ring *ring, uint32_t index)
{
    return end_of(&ring->control->cq_consumer, &ring->control->cq_producer, ring->depth, index);
}

int rs_ring_wake(int sock)
{
    static const uint8_t byte = 1;
    for (;;) {
        if (send(sock, &byte, 1, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0) return 0;
        if (errno == EINTR) continue;
        return errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM ? 0 : RESEAL_ENOSERVICE;
    }
}

/* Bytes in one go, as recv(2); descriptors, which nobody has to send here, end it. */
static ssize_t take_bytes(int sock, uint8_t *bytes, size_t len, rs_ring_drop *drop, uint32_t uid)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int) * 253)]; /* SCM_MAX_FD: none is left to the kernel to close */
    } space;
    struct iovec iov = {bytes, len};
    struct msghdr m = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = space.bytes, .msg_controllen = sizeof(space.bytes)};
    ssize_t n = recvmsg(sock, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    for (struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&m) : NULL; c != NULL; c = CMSG_NXTHDR(&m, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
        for (size_t i = 0; i < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
            drop(fd, uid);
        }
        n = 0;
    }
    return n;
}

int rs_ring_drain_from(int sock, rs_ring_drop *drop, uint32_t uid)
{
    uint8_t bytes[64];
    for (unsigned i = 0; i < 64;) {
        ssize_t n = take_bytes(sock, bytes, sizeof(bytes), drop, uid);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return errno == EAGAIN ? 0 : RESEAL_ENOSERVICE;
        if (n == 0) return RESEAL_ENOSERVICE;
        /* Less than there was room for: that was all. An end that comes with it wakes us again. */
        if ((size_t)n < sizeof(bytes)) return 0;
        i++;
    }
    return 0;
}

static void drop_at_once(int fd, uint32_t uid)
{
    (void)uid;
    close(fd);
}

int rs_ring_drain(int sock)
{
    return rs_ring_drain_from(sock, drop_at_once, 0);
}
