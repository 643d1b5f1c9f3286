/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/base/keymem-arena.h"
#include "reseal/reseal.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_memfd_secret /* glibc 2.36 has no name for it */
#define SYS_memfd_secret 447
#endif

#define MIN_LOCKED  ((size_t)1 << 20)
#define FIRST_TRIES 8u

struct rs_arena rs_arena = {.lock = PTHREAD_ADAPTIVE_MUTEX_INITIALIZER_NP};

/* ---- mapping ---------------------------------------------------------------- */

size_t rs_page_size(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

/* Address space with a guard page on both sides; the room between is not accessible yet. */
static uint8_t *reserve(size_t len)
{
    size_t page = rs_page_size();
    uint8_t *map = mmap(NULL, len + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return map == MAP_FAILED ? NULL : map + page;
}

static void unreserve(uint8_t *p, size_t len)
{
    size_t page = rs_page_size();
    munmap(p - page, len + 2 * page);
}

static bool map_secret(uint8_t *at, size_t len)
{
    int fd = (int)syscall(SYS_memfd_secret, O_CLOEXEC);
    if (fd < 0) return false;
    bool ok = ftruncate(fd, (off_t)len) == 0 &&
              mmap(at, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == at &&
              madvise(at, len, MADV_DONTFORK) == 0; /* a shared map: a child would see and change it */
    (void)madvise(at, len, MADV_DONTDUMP);
    close(fd);
    return ok;
}

static bool map_anonymous(uint8_t *at, size_t len, bool keep)
{
    return mmap(at, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == at &&
           madvise(at, len, MADV_DONTDUMP) == 0 && (keep || madvise(at, len, MADV_WIPEONFORK) == 0);
}

bool rs_keymem_lock_pages(uint8_t *at, size_t len)
{
    /* Each page as it is first used: a library must not cost the whole arena. A service pays at its start. */
    return rs_arena.keep ? mlock2(at, len, MLOCK_ONFAULT) == 0 : mlock(at, len) == 0;
}

bool rs_keymem_map(enum rs_keymem_kind kind, uint8_t *at, size_t len)
{
    switch (kind) {
    case RS_KEYMEM_SECRET:
        return map_secret(at, len);
    case RS_KEYMEM_LOCKED:
        return map_anonymous(at, len, rs_arena.keep) && rs_keymem_lock_pages(at, len);
    case RS_KEYMEM_PLAIN:
        return map_anonymous(at, len, rs_arena.keep);
    case RS_KEYMEM_NONE:
        break;
    }
    return false;
}

static enum rs_keymem_kind first_kind(void)
{
    const char *want = secure_getenv("RESEAL_KEYMEM");
    if (want != NULL && strcmp(want, "locked") == 0) return RS_KEYMEM_LOCKED;
    if (want != NULL && strcmp(want, "plain") == 0) return RS_KEYMEM_PLAIN;
    return RS_MAX(rs_arena.first, RS_KEYMEM_SECRET);
}

/* The strongest kind first; a smaller arena is better than a weaker one. */
static uint8_t *map_best(size_t *size, enum rs_keymem_kind *kind)
{
    for (*kind = first_kind(); *kind <= RS_KEYMEM_PLAIN; (*kind)++) {
        size_t least = RS_MIN(*size, MIN_LOCKED);
        for (size_t len = *size; len >= least; len /= 2) {
            len = rs_round_up(len, rs_page_size());
            uint8_t *at = reserve(len);
            if (at == NULL) return NULL;
            if (rs_keymem_map(*kind, at, len)) {
                *size = len;
                return at;
            }
            unreserve(at, len);
        }
    }
    return NULL;
}

/* ---- blocks ----------------------------------------------------------------- */

static uint32_t class_of(uint32_t granules)
{
    return 31u - (uint32_t)__builtin_clz(granules);
}

static void tag_block(uint32_t at, uint32_t granules, uint32_t used)
{
    rs_arena.nodes[at].tag = granules << 1 | used;
    rs_arena.nodes[at + granules - 1].tag = granules << 1 | used;
}

static void list_push(uint32_t at, uint32_t granules)
{
    uint32_t *head = &rs_arena.lists[class_of(granules)];
    tag_block(at, granules, 0);
    rs_arena.nodes[at].prev = RS_NO_GRANULE;
    rs_arena.nodes[at].next = *head;
    if (*head != RS_NO_GRANULE) rs_arena.nodes[*head].prev = at;
    *head = at;
}

static void list_remove(uint32_t at)
{
    struct rs_granule *n = &rs_arena.nodes[at];
    if (n->prev == RS_NO_GRANULE)
        rs_arena.lists[class_of(n->tag >> 1)] = n->next;
    else
        rs_arena.nodes[n->prev].next = n->next;
    if (n->next != RS_NO_GRANULE) rs_arena.nodes[n->next].prev = n->prev;
}

static uint32_t fit_in_class(uint32_t c, uint32_t granules, uint32_t tries)
{
    for (uint32_t at = rs_arena.lists[c]; at != RS_NO_GRANULE && tries-- != 0; at = rs_arena.nodes[at].next)
        if (rs_arena.nodes[at].tag >> 1 >= granules) return at;
    return RS_NO_GRANULE;
}

/* All of a greater class fit; of its own, thousands may be a little too small, so that only a few are tried
 * at first. */
static uint32_t find_fit(uint32_t granules)
{
    uint32_t own = class_of(granules), at = fit_in_class(own, granules, FIRST_TRIES);
    for (uint32_t c = own + 1; at == RS_NO_GRANULE && c < RS_KEYMEM_CLASSES; c++)
        at = fit_in_class(c, granules, 1);
    return at != RS_NO_GRANULE ? at : fit_in_class(own, granules, UINT32_MAX);
}

static void *take(uint32_t granules)
{
    uint32_t at = find_fit(granules);
    if (at == RS_NO_GRANULE) return NULL;
    uint32_t have = rs_arena.nodes[at].tag >> 1;
    list_remove(at);
    if (have > granules) list_push(at + granules, have - granules);
    tag_block(at, granules, RS_GRANULE_USED);
    rs_arena.used += (size_t)granules * RS_GRANULE;
    return rs_arena.base + (size_t)at * RS_GRANULE;
}

/* The block that starts at p; a wrong pointer here is a bug that could leak a key: stop at once. */
static uint32_t block_of(const void *p)
{
    size_t off = (size_t)((const uint8_t *)p - rs_arena.base);
    if (rs_arena.base == NULL || off >= rs_arena.size || off % RS_GRANULE != 0) abort();
    uint32_t at = (uint32_t)(off / RS_GRANULE), tag = rs_arena.nodes[at].tag, granules = tag >> 1;
    if ((tag & RS_GRANULE_USED) == 0 || granules == 0 || granules > rs_arena.count - at) abort();
    if (rs_arena.nodes[at + granules - 1].tag != tag) abort();
    return at;
}

static void give_back(uint32_t at)
{
    uint32_t granules = rs_arena.nodes[at].tag >> 1;
    rs_arena.used -= (size_t)granules * RS_GRANULE;
    rs_arena.nodes[at].tag = 0; /* so that a second free is noticed even after a merge */
    uint32_t after = at + granules;
    if (after < rs_arena.count && (rs_arena.nodes[after].tag & RS_GRANULE_USED) == 0) {
        list_remove(after);
        granules += rs_arena.nodes[after].tag >> 1;
    }
    if (at > 0 && (rs_arena.nodes[at - 1].tag & RS_GRANULE_USED) == 0) {
        uint32_t before = rs_arena.nodes[at - 1].tag >> 1;
        at -= before;
        list_remove(at);
        granules += before;
    }
    list_push(at, granules);
}

bool rs_arena_next_used(uint32_t *at, size_t *start, size_t *len)
{
    while (*at < rs_arena.count) {
        uint32_t here = *at, tag = rs_arena.nodes[here].tag;
        *at += tag >> 1;
        if ((tag & RS_GRANULE_USED) == 0) continue;
        *start = (size_t)here * RS_GRANULE;
        *len = (size_t)(tag >> 1) * RS_GRANULE;
        return true;
    }
    return false;
}

/* ---- calls ------------------------------------------------------------------ */

static int init_locked(size_t size)
{
    enum rs_keymem_kind kind;
    uint8_t *base = map_best(&size, &kind);
    if (base == NULL) return RESEAL_ENOMEM;
    uint32_t count = (uint32_t)(size / RS_GRANULE);
    struct rs_granule *nodes = calloc(count, sizeof(*nodes));
    if (nodes == NULL) {
        unreserve(base, size);
        return RESEAL_ENOMEM;
    }
    rs_arena.base = base;
    rs_arena.size = size;
    rs_arena.nodes = nodes;
    rs_arena.count = count;
    rs_arena.kind = kind;
    for (unsigned c = 0; c < RS_KEYMEM_CLASSES; c++) rs_arena.lists[c] = RS_NO_GRANULE;
    list_push(0, count);
    return 0;
}

int rs_keymem_init(size_t size)
{
    if (size == 0) size = RS_KEYMEM_SIZE;
    if (size < ((size_t)16 << 10) || size > ((size_t)1 << 30)) return RESEAL_EINVAL;
    pthread_mutex_lock(&rs_arena.lock);
    int r = rs_arena.base != NULL ? 0 : init_locked(size);
    pthread_mutex_unlock(&rs_arena.lock);
    return r;
}

void rs_keymem_begin_with(enum rs_keymem_kind kind)
{
    rs_arena.first = kind;
}

void rs_keymem_fini(void)
{
    size_t start, len;
    pthread_mutex_lock(&rs_arena.lock);
    if (rs_arena.base != NULL) {
        for (uint32_t at = 0; rs_arena_next_used(&at, &start, &len);) rs_wipe(rs_arena.base + start, len);
        unreserve(rs_arena.base, rs_arena.size);
        free(rs_arena.nodes);
    }
    rs_arena.base = NULL;
    rs_arena.nodes = NULL;
    rs_arena.size = rs_arena.used = 0;
    rs_arena.count = 0;
    rs_arena.kind = rs_arena.first = RS_KEYMEM_NONE;
    rs_arena.keep = false;
    pthread_mutex_unlock(&rs_arena.lock);
}

enum rs_keymem_kind rs_keymem_kind(void)
{
    return rs_arena.kind;
}

const char *rs_keymem_kind_name(void)
{
    static const char *const names[] = {"none", "secret", "locked", "plain"};
    return names[rs_arena.kind];
}

void rs_keymem_usage(size_t *size, size_t *used)
{
    pthread_mutex_lock(&rs_arena.lock);
    if (size != NULL) *size = rs_arena.size;
    if (used != NULL) *used = rs_arena.used;
    pthread_mutex_unlock(&rs_arena.lock);
}

void *rs_keymem_alloc(size_t len)
{
    if (len > rs_arena.size) return NULL;
    uint32_t granules = (uint32_t)((RS_MAX(len, 1) + RS_GRANULE - 1) / RS_GRANULE);
    pthread_mutex_lock(&rs_arena.lock);
    void *p = rs_arena.base != NULL ? take(granules) : NULL;
    pthread_mutex_unlock(&rs_arena.lock);
    return p;
}

/* Without the lock: nobody else changes the tags of a block while it is used. */
size_t rs_keymem_len(const void *p)
{
    return (size_t)(rs_arena.nodes[block_of(p)].tag >> 1) * RS_GRANULE;
}

void rs_keymem_free(void *p)
{
    if (p == NULL) return;
    rs_wipe(p, rs_keymem_len(p));
    pthread_mutex_lock(&rs_arena.lock);
    give_back(block_of(p));
    pthread_mutex_unlock(&rs_arena.lock);
}

void *rs_keymem_realloc(void *p, size_t len)
{
    if (p == NULL) return rs_keymem_alloc(len);
    size_t have = rs_keymem_len(p);
    if (len <= have && len > have / 2) {
        rs_wipe((uint8_t *)p + len, have - len);
        return p;
    }
    void *q = rs_keymem_alloc(len);
    if (q == NULL) return NULL;
    memcpy(q, p, RS_MIN(have, len));
    rs_keymem_free(p);
    return q;
}

bool rs_keymem_owns(const void *p)
{
    return rs_arena.base != NULL && (uintptr_t)p - (uintptr_t)rs_arena.base < rs_arena.size;
}

void rs_cleanup_keymem(void *pp)
{
    rs_keymem_free(*(void **)pp);
}

void *rs_scratch_map(size_t len, bool *locked)
{
    if (len == 0 || len > SIZE_MAX / 2) return NULL;
    len = rs_round_up(len, rs_page_size());
    uint8_t *at = reserve(len);
    if (at == NULL) return NULL;
    if (!map_anonymous(at, len, false)) {
        unreserve(at, len);
        return NULL;
    }
    bool lock = mlock(at, len) == 0;
    if (locked != NULL) *locked = lock;
    return at;
}

void *rs_secret_scratch_map(size_t len, bool *locked)
{
    if (rs_arena.kind == RS_KEYMEM_SECRET && len != 0 && len <= SIZE_MAX / 2) {
        size_t whole = rs_round_up(len, rs_page_size());
        uint8_t *at = reserve(whole);
        if (at != NULL && map_secret(at, whole)) {
            if (locked != NULL) *locked = true; /* secret memory is never swapped */
            return at;
        }
        if (at != NULL) unreserve(at, whole);
    }
    return rs_scratch_map(len, locked);
}

void rs_scratch_unmap(void *p, size_t len)
{
    if (p == NULL) return;
    len = rs_round_up(len, rs_page_size());
    rs_wipe(p, len);
    unreserve(p, len);
}
