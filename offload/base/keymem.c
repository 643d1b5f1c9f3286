/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/base/keymem.h"

#include "reseal/reseal.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_memfd_secret /* glibc 2.36 has no name for it */
#define SYS_memfd_secret 447
#endif

#define GRANULE    RS_KEYMEM_ALIGN
#define CLASSES    25u /* free lists, by the power of two of a block's granules */
#define MIN_LOCKED ((size_t)1 << 20)
#define NOTHING    UINT32_MAX
#define USED       1u

/* Book-keeping of one granule; only those of a block's first and last granule are valid. */
struct node {
    uint32_t tag;  /* granules in the block << 1, | USED */
    uint32_t next; /* free list */
    uint32_t prev;
};

static struct {
    pthread_mutex_t lock;
    uint8_t *base;
    size_t size;
    size_t used;
    struct node *nodes;
    uint32_t count; /* granules */
    uint32_t lists[CLASSES];
    enum rs_keymem_kind kind;
} arena = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* ---- mapping ---------------------------------------------------------------- */

static size_t page_size(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

/* Address space with a guard page on both sides; the room between is not accessible yet. */
static uint8_t *reserve(size_t len)
{
    size_t page = page_size();
    uint8_t *map = mmap(NULL, len + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return map == MAP_FAILED ? NULL : map + page;
}

static void unreserve(uint8_t *p, size_t len)
{
    size_t page = page_size();
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

static bool map_anonymous(uint8_t *at, size_t len)
{
    return mmap(at, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == at &&
           madvise(at, len, MADV_DONTDUMP) == 0 && madvise(at, len, MADV_WIPEONFORK) == 0;
}

static bool map_kind(enum rs_keymem_kind kind, uint8_t *at, size_t len)
{
    switch (kind) {
    case RS_KEYMEM_SECRET:
        return map_secret(at, len);
    case RS_KEYMEM_LOCKED:
        return map_anonymous(at, len) && mlock(at, len) == 0;
    case RS_KEYMEM_PLAIN:
        return map_anonymous(at, len);
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
    return RS_KEYMEM_SECRET;
}

/* The strongest kind first; a smaller arena is better than a weaker one. */
static uint8_t *map_best(size_t *size, enum rs_keymem_kind *kind)
{
    for (*kind = first_kind(); *kind <= RS_KEYMEM_PLAIN; (*kind)++) {
        size_t least = RS_MIN(*size, MIN_LOCKED);
        for (size_t len = *size; len >= least; len /= 2) {
            len = rs_round_up(len, page_size());
            uint8_t *at = reserve(len);
            if (at == NULL) return NULL;
            if (map_kind(*kind, at, len)) {
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
    arena.nodes[at].tag = granules << 1 | used;
    arena.nodes[at + granules - 1].tag = granules << 1 | used;
}

static void list_push(uint32_t at, uint32_t granules)
{
    uint32_t *head = &arena.lists[class_of(granules)];
    tag_block(at, granules, 0);
    arena.nodes[at].prev = NOTHING;
    arena.nodes[at].next = *head;
    if (*head != NOTHING) arena.nodes[*head].prev = at;
    *head = at;
}

static void list_remove(uint32_t at)
{
    struct node *n = &arena.nodes[at];
    if (n->prev == NOTHING)
        arena.lists[class_of(n->tag >> 1)] = n->next;
    else
        arena.nodes[n->prev].next = n->next;
    if (n->next != NOTHING) arena.nodes[n->next].prev = n->prev;
}

static uint32_t find_fit(uint32_t granules)
{
    for (uint32_t c = class_of(granules); c < CLASSES; c++)
        for (uint32_t at = arena.lists[c]; at != NOTHING; at = arena.nodes[at].next)
            if (arena.nodes[at].tag >> 1 >= granules) return at;
    return NOTHING;
}

static void *take(uint32_t granules)
{
    uint32_t at = find_fit(granules);
    if (at == NOTHING) return NULL;
    uint32_t have = arena.nodes[at].tag >> 1;
    list_remove(at);
    if (have > granules) list_push(at + granules, have - granules);
    tag_block(at, granules, USED);
    arena.used += (size_t)granules * GRANULE;
    return arena.base + (size_t)at * GRANULE;
}

/* The block that starts at p; a wrong pointer here is a bug that could leak a key: stop at once. */
static uint32_t block_of(const void *p)
{
    size_t off = (size_t)((const uint8_t *)p - arena.base);
    if (arena.base == NULL || off >= arena.size || off % GRANULE != 0) abort();
    uint32_t at = (uint32_t)(off / GRANULE), tag = arena.nodes[at].tag, granules = tag >> 1;
    if ((tag & USED) == 0 || granules == 0 || granules > arena.count - at) abort();
    if (arena.nodes[at + granules - 1].tag != tag) abort();
    return at;
}

static void give_back(uint32_t at)
{
    uint32_t granules = arena.nodes[at].tag >> 1;
    arena.used -= (size_t)granules * GRANULE;
    arena.nodes[at].tag = 0; /* so that a second free is noticed even after a merge */
    uint32_t after = at + granules;
    if (after < arena.count && (arena.nodes[after].tag & USED) == 0) {
        list_remove(after);
        granules += arena.nodes[after].tag >> 1;
    }
    if (at > 0 && (arena.nodes[at - 1].tag & USED) == 0) {
        uint32_t before = arena.nodes[at - 1].tag >> 1;
        at -= before;
        list_remove(at);
        granules += before;
    }
    list_push(at, granules);
}

/* ---- calls ------------------------------------------------------------------ */

static int init_locked(size_t size)
{
    enum rs_keymem_kind kind;
    uint8_t *base = map_best(&size, &kind);
    if (base == NULL) return RESEAL_ENOMEM;
    uint32_t count = (uint32_t)(size / GRANULE);
    struct node *nodes = calloc(count, sizeof(*nodes));
    if (nodes == NULL) {
        unreserve(base, size);
        return RESEAL_ENOMEM;
    }
    arena.base = base;
    arena.size = size;
    arena.nodes = nodes;
    arena.count = count;
    arena.kind = kind;
    for (unsigned c = 0; c < CLASSES; c++) arena.lists[c] = NOTHING;
    list_push(0, count);
    return 0;
}

int rs_keymem_init(size_t size)
{
    if (size == 0) size = RS_KEYMEM_SIZE;
    if (size < ((size_t)64 << 10) || size > ((size_t)1 << 30)) return RESEAL_EINVAL;
    pthread_mutex_lock(&arena.lock);
    int r = arena.base != NULL ? 0 : init_locked(size);
    pthread_mutex_unlock(&arena.lock);
    return r;
}

enum rs_keymem_kind rs_keymem_kind(void)
{
    return arena.kind;
}

const char *rs_keymem_kind_name(void)
{
    static const char *const names[] = {"none", "secret", "locked", "plain"};
    return names[arena.kind];
}

void rs_keymem_usage(size_t *size, size_t *used)
{
    pthread_mutex_lock(&arena.lock);
    if (size != NULL) *size = arena.size;
    if (used != NULL) *used = arena.used;
    pthread_mutex_unlock(&arena.lock);
}

void *rs_keymem_alloc(size_t len)
{
    if (len > arena.size) return NULL;
    uint32_t granules = (uint32_t)((RS_MAX(len, 1) + GRANULE - 1) / GRANULE);
    pthread_mutex_lock(&arena.lock);
    void *p = arena.base != NULL ? take(granules) : NULL;
    pthread_mutex_unlock(&arena.lock);
    return p;
}

size_t rs_keymem_len(const void *p)
{
    pthread_mutex_lock(&arena.lock);
    size_t len = (size_t)(arena.nodes[block_of(p)].tag >> 1) * GRANULE;
    pthread_mutex_unlock(&arena.lock);
    return len;
}

void rs_keymem_free(void *p)
{
    if (p == NULL) return;
    rs_wipe(p, rs_keymem_len(p));
    pthread_mutex_lock(&arena.lock);
    give_back(block_of(p));
    pthread_mutex_unlock(&arena.lock);
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
    return arena.base != NULL && (uintptr_t)p - (uintptr_t)arena.base < arena.size;
}

void rs_cleanup_keymem(void *pp)
{
    rs_keymem_free(*(void **)pp);
}

void *rs_scratch_map(size_t len, bool *locked)
{
    if (len == 0 || len > SIZE_MAX / 2) return NULL;
    len = rs_round_up(len, page_size());
    uint8_t *at = reserve(len);
    if (at == NULL) return NULL;
    if (!map_anonymous(at, len)) {
        unreserve(at, len);
        return NULL;
    }
    bool lock = mlock(at, len) == 0;
    if (locked != NULL) *locked = lock;
    return at;
}

void *rs_secret_scratch_map(size_t len, bool *locked)
{
    if (arena.kind == RS_KEYMEM_SECRET && len != 0 && len <= SIZE_MAX / 2) {
        size_t whole = rs_round_up(len, page_size());
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
    len = rs_round_up(len, page_size());
    rs_wipe(p, len);
    unreserve(p, len);
}
