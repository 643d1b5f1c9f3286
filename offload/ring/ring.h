/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_RING_RING_H
#define RS_RING_RING_H

/*
 * Publish, consume, sleep and wake on the memory of layout.h; for both ends.
 *
 * Contents
 *   1. Memory: create, check, attach
 *   2. Producer
 *   3. Consumer
 *   4. Wake socket
 *
 * Each end holds a private struct rs_ring and never reads the geometry again.
 * The other end is hostile to the service and not trusted by the client: an
 * index of the other end can at worst make a ring look empty or full.
 *
 * The three pairs of ordering, explained where they happen:
 *   publish (release)        -> observe (acquire)     entries are whole when seen
 *   take (release)           -> room (acquire)        a slot is read before it is written again
 *   publish, fence, need_wake <-> need_wake, fence, observe    no wake-up is lost
 *
 * Threads: one thread per producer or consumer struct. Nothing here blocks,
 * except rs_ring_create() and rs_ring_attach(), which fault memory in.
 */

#include "offload/base/bytes.h"
#include "offload/ring/layout.h"

#include <stdatomic.h>

/* The private copy of what a queue is. */
struct rs_ring {
    struct rs_ring_control *control; /* shared; start of the mapping */
    struct rs_sqe *sq;               /* shared */
    struct rs_cqe *cq;               /* shared */
    uint8_t *data;                   /* shared; region 0 */
    uint64_t data_len;               /* bytes of region 0 */
    uint64_t arena_offset;           /* within region 0 */
    uint64_t total;                  /* bytes mapped */
    uint32_t depth;
};

/* One end of one ring; private. */
struct rs_ring_end {
    struct rs_ring_line *mine;
    const struct rs_ring_line *theirs;
    uint32_t depth;
    uint32_t index; /* what we published or took, free-running; `mine` is never read back */
};

/* ==== 1. Memory =========================================================== */

/* The layout of a queue. `arena` is rounded up to 4096. RESEAL_EINVAL when depth or arena is out of range. */
RS_MUST_CHECK int rs_ring_layout(struct rs_ring_geometry *geometry, uint32_t depth, uint64_t arena);

/* Checks a private copy of a geometry against the size of its memfd: 0 or RESEAL_EPROTO. */
RS_MUST_CHECK int rs_ring_check(const struct rs_ring_geometry *geometry, uint64_t file_size);

#define RS_RING_HUGE 1u /* try huge pages first */

/*
 * Makes the memfd of a queue (service): sized, geometry written, every page
 * allocated, sealed against shrinking, growing and more seals; maps it into
 * `ring`. The caller owns *memfd. RESEAL_EINVAL, RESEAL_ENOMEM.
 */
RS_MUST_CHECK int rs_ring_create(struct rs_ring *ring, int *memfd, uint32_t depth, uint64_t arena,
                                 unsigned flags);

/*
 * Maps the memfd of a queue that somebody else made: size, seals and
 * geometry are checked before mapping. The caller keeps memfd (and may
 * close it). RESEAL_EPROTO, RESEAL_ENOMEM.
 */
RS_MUST_CHECK int rs_ring_attach(struct rs_ring *ring, int memfd);

/* Unmaps; all zero is allowed. */
void rs_ring_detach(struct rs_ring *ring);

/*
 * Checks memory offered for sharing: a memfd with F_SEAL_SHRINK, F_SEAL_GROW
 * and F_SEAL_SEAL, writable, 1 to `max` bytes, whole pages. 0, RESEAL_EINVAL.
 */
RS_MUST_CHECK int rs_ring_check_memfd(int memfd, uint64_t max, uint64_t *size);

/* Sets all four lines to zero: only while nobody works on the ring (client, before QUEUE_ATTACH). */
void rs_ring_reset(struct rs_ring *ring);

/* The ends. Service: sq consumer, cq producer. Client: sq producer, cq consumer. Indices start at `index`. */
struct rs_ring_end rs_ring_sq_producer(const struct rs_ring *ring, uint32_t index);
struct rs_ring_end rs_ring_sq_consumer(const struct rs_ring *ring, uint32_t index);
struct rs_ring_end rs_ring_cq_producer(const struct rs_ring *ring, uint32_t index);
struct rs_ring_end rs_ring_cq_consumer(const struct rs_ring *ring, uint32_t index);

/* ---- fences -------------------------------------------------------------- */

/* Orders every store before it against every load after it, on the processor too. */
static inline void rs_full_fence(void)
{
#if defined(__SANITIZE_THREAD__)
    /* The thread sanitizer does not know fences; a locked instruction on a private word is the same barrier.
     */
    _Atomic uint32_t word = 0;
    atomic_fetch_add_explicit(&word, 1, memory_order_seq_cst);
#else
    atomic_thread_fence(memory_order_seq_cst);
#endif
}

/* Tells the processor that this is a spin loop. */
static inline void rs_cpu_relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/*
 * Moves a line that the other end reads next out of this core's own cache, to
 * where both reach it: the reader waits less than for a line that another core
 * has changed. A hint (CLDEMOTE); processors without it do nothing.
 */
static inline void rs_push_line(const void *line)
{
#if defined(__x86_64__)
    __asm__ volatile("cldemote %0" : : "m"(*(const uint8_t *)line));
#else
    (void)line;
#endif
}

/* Groups up to this long are pushed: in longer ones the reader is busy with the first entries meanwhile. */
#define RS_PUSH_MAX 2u

/*
 * Copies an entry out of shared memory exactly once: after it, the compiler
 * may not go back to the shared copy, which the other end can change.
 */
static inline void rs_ring_copy_once(void *to, const void *from, size_t len)
{
    memcpy(to, from, len);
    __asm__ volatile("" : : "r"(to) : "memory");
}

/* ==== 2. Producer ========================================================= */

/* Position of the i-th entry that was not published yet; the slot is index & (depth - 1). */
static inline uint32_t rs_ring_slot(const struct rs_ring_end *end, uint32_t i)
{
    return (end->index + i) & (end->depth - 1);
}

/*
 * Entries that can be written now. Acquire pairs with the release in
 * rs_ring_take(): what the consumer read of a slot, it read before we write
 * the slot again. A consumer index that is ahead of us, or further behind than
 * the ring is deep, is a lie; it reads as full.
 */
static inline uint32_t rs_ring_room(const struct rs_ring_end *producer)
{
    uint32_t taken = atomic_load_explicit(&producer->theirs->index, memory_order_acquire);
    uint32_t used = producer->index - taken;
    return used > producer->depth ? 0 : producer->depth - used;
}

/*
 * Publishes n entries. Release pairs with the acquire in rs_ring_available():
 * who sees the index sees the entries whole, and the payload and auxiliary
 * blocks that were written before them.
 */
static inline void rs_ring_publish(struct rs_ring_end *producer, uint32_t n)
{
    producer->index += n;
    atomic_store_explicit(&producer->mine->index, producer->index, memory_order_release);
    rs_push_line(producer->mine);
}

/*
 * After a publish: must the consumer be woken? The full fence keeps this load
 * behind the store of the index; it pairs with the fence in
 * rs_ring_announce_sleep(). Either we see need_wake, or the consumer sees the
 * new index; without both fences, each side's store can sit in its store
 * buffer while both read the old values, and the wake-up is lost.
 */
static inline bool rs_ring_should_wake(const struct rs_ring_end *producer)
{
    rs_full_fence();
    return atomic_load_explicit(&producer->theirs->need_wake, memory_order_relaxed) != 0;
}

/* ==== 3. Consumer ========================================================= */

/*
 * Entries that can be read now, clamped to the depth: a producer that claims
 * more can only make us read stale entries, which are copied and checked as
 * any other. Acquire pairs with rs_ring_publish().
 */
static inline uint32_t rs_ring_available(const struct rs_ring_end *consumer)
{
    uint32_t published = atomic_load_explicit(&consumer->theirs->index, memory_order_acquire);
    uint32_t n = published - consumer->index;
    return n > consumer->depth ? consumer->depth : n;
}

/* Gives n slots back to the producer. Release: our reads of them are done before it may write. */
static inline void rs_ring_take(struct rs_ring_end *consumer, uint32_t n)
{
    consumer->index += n;
    atomic_store_explicit(&consumer->mine->index, consumer->index, memory_order_release);
}

/* The consumer is awake: no byte is needed any more. One that is on its way is a spurious wake-up. */
static inline void rs_ring_awake(struct rs_ring_end *consumer)
{
    atomic_store_explicit(&consumer->mine->need_wake, 0, memory_order_relaxed);
}

/* Asks for a byte with the next publish; what is looked at after it, is looked at after the request is seen.
 */
static inline void rs_ring_ask_wake(struct rs_ring_end *consumer)
{
    atomic_store_explicit(&consumer->mine->need_wake, 1, memory_order_relaxed);
    rs_full_fence();
}

/*
 * Before sleeping: asks for a wake-up, then looks again. True: nothing there,
 * the next publish sends a byte, sleep. False: something came meanwhile, the
 * request is withdrawn. The fence pairs with the one in rs_ring_should_wake().
 */
static inline bool rs_ring_announce_sleep(struct rs_ring_end *consumer)
{
    rs_ring_ask_wake(consumer);
    if (rs_ring_available(consumer) == 0) return true;
    rs_ring_awake(consumer);
    return false;
}

/* ==== 4. Wake socket ====================================================== */

/*
 * Sends one byte, never blocks. A full socket is a success: the other end has
 * bytes to wake up for. 0, or RESEAL_ENOSERVICE when the other end is gone.
 */
RS_MUST_CHECK int rs_ring_wake(int sock);

/*
 * Takes the bytes that wait, of a packet socket one, never blocks. 0, or RESEAL_ENOSERVICE when the
 * other end is gone; with bytes before its end the next call says so, and the socket stays readable until then.
 */
RS_MUST_CHECK int rs_ring_drain(int sock);

/* The same for a sender that is not trusted: one that sends descriptors is as good as gone, and `drop` closes
 * them, as rs_msg_recv_from() (control.h). */
typedef void rs_ring_drop(int fd, uint32_t uid);
RS_MUST_CHECK int rs_ring_drain_from(int sock, rs_ring_drop *drop, uint32_t uid);

#endif
