/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Key memory in the child of a fork. Anonymous memory the kernel copies; secret
 * memory is a shared map, so the parent takes a snapshot before the fork (after
 * it, it would change while the child copies) and the child moves that to where
 * the arena was. Only what lies before the end of the last block is taken: the
 * child maps the rest anew, and the parent's limit of locked memory counts the
 * snapshot only as long as the fork takes.
 */
#include "offload/base/keymem-arena.h"
#include "reseal/reseal.h"

#include <sys/mman.h>

static struct {
    uint8_t *at; /* NULL: nothing is to be moved */
    size_t len;
    bool secret;
    bool shared; /* the child has the parent's arena, until it has one of its own */
} snapshot;

/* Whole pages up to the end of the last block; the last free block, if any, ends the arena. */
static size_t extent(void)
{
    uint32_t last = rs_arena.nodes[rs_arena.count - 1].tag;
    uint32_t used = (last & RS_GRANULE_USED) != 0 ? rs_arena.count : rs_arena.count - (last >> 1);
    return rs_round_up((size_t)used * RS_GRANULE, rs_page_size());
}

/* A block that another thread is writing to is torn in the child, where that thread is not: as after any
 * fork. */
static void copy_blocks(uint8_t *to, const uint8_t *from)
{
    size_t start, len;
    for (uint32_t at = 0; rs_arena_next_used(&at, &start, &len);) memcpy(to + start, from + start, len);
}

static void take_snapshot(size_t len)
{
    const int map = MAP_PRIVATE | MAP_ANONYMOUS;
    uint8_t *at = mmap(NULL, len, PROT_READ | PROT_WRITE, map, -1, 0);
    if (at == MAP_FAILED) return;
    /* Over the limit it is ordinary memory, for as long as the fork takes. */
    snapshot.secret = rs_keymem_map(RS_KEYMEM_SECRET, at, len) && madvise(at, len, MADV_DOFORK) == 0;
    if (!snapshot.secret && (mmap(at, len, PROT_READ | PROT_WRITE, map | MAP_FIXED, -1, 0) != at ||
                             madvise(at, len, MADV_DONTDUMP) != 0)) {
        munmap(at, len);
        return;
    }
    copy_blocks(at, rs_arena.base);
    snapshot.at = at;
    snapshot.len = len;
}

/*
 * The child is given the parent's arena, for the moment until its handler runs,
 * so that nothing else of the child can be mapped to where its own must be.
 */
static void prepare(void)
{
    pthread_mutex_lock(&rs_arena.lock);
    if (!rs_arena.keep || rs_arena.kind != RS_KEYMEM_SECRET) return;
    size_t len = extent();
    if (len != 0) take_snapshot(len);
    if (len == 0 || snapshot.at != NULL)
        snapshot.shared = madvise(rs_arena.base, rs_arena.size, MADV_DOFORK) == 0;
}

/* A snapshot in secret memory has the same pages in the child and must not be wiped. */
static void drop_snapshot(void)
{
    if (snapshot.at != NULL) {
        if (!snapshot.secret) rs_wipe(snapshot.at, snapshot.len);
        munmap(snapshot.at, snapshot.len);
    }
    memset(&snapshot, 0, sizeof(snapshot));
}

static void parent(void)
{
    if (snapshot.shared) (void)madvise(rs_arena.base, rs_arena.size, MADV_DONTFORK);
    drop_snapshot();
    pthread_mutex_unlock(&rs_arena.lock);
}

static bool move_snapshot(void)
{
    size_t len = snapshot.len;
    uint8_t *base = rs_arena.base;
    if (len < rs_arena.size && !rs_keymem_map(RS_KEYMEM_SECRET, base + len, rs_arena.size - len))
        return false;
    if (madvise(snapshot.at, len, MADV_DONTFORK) != 0) return false;
    if (mremap(snapshot.at, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, base) != base) return false;
    snapshot.at = NULL;
    return true;
}

/* One kind for all of it: the best that this process can have. Locked memory is counted anew in a child. */
static bool restore(void)
{
    if (!snapshot.shared) return false;
    if (snapshot.secret && move_snapshot()) return true;
    for (enum rs_keymem_kind kind = RS_KEYMEM_SECRET; kind <= RS_KEYMEM_PLAIN; kind++) {
        if (!rs_keymem_map(kind, rs_arena.base, rs_arena.size)) continue;
        if (snapshot.at != NULL) copy_blocks(rs_arena.base, snapshot.at);
        rs_arena.kind = kind;
        return true;
    }
    return false;
}

/* Never the parent's memory, and never zeros for keys: what was in use faults when it is touched. */
static void give_up(void)
{
    munmap(rs_arena.base, rs_arena.size);
    for (unsigned c = 0; c < RS_KEYMEM_CLASSES; c++) rs_arena.lists[c] = RS_NO_GRANULE;
    rs_arena.kind = RS_KEYMEM_NONE;
}

static void child(void)
{
    if (rs_arena.keep && rs_arena.kind == RS_KEYMEM_SECRET) {
        if (!restore()) give_up();
        drop_snapshot();
    } else if (rs_arena.keep && rs_arena.kind == RS_KEYMEM_LOCKED) {
        if (!rs_keymem_lock_pages(rs_arena.base, rs_arena.size)) rs_arena.kind = RS_KEYMEM_PLAIN;
    }
    pthread_mutex_unlock(&rs_arena.lock);
}

int rs_keymem_keep_on_fork(void)
{
    static bool registered;
    int r = 0;
    pthread_mutex_lock(&rs_arena.lock);
    if (rs_arena.base != NULL && !rs_arena.keep)
        r = RESEAL_EINVAL;
    else if (!registered && pthread_atfork(prepare, parent, child) != 0)
        r = RESEAL_ENOMEM;
    else
        rs_arena.keep = registered = true;
    pthread_mutex_unlock(&rs_arena.lock);
    return r;
}
