/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where contexts lie: key memory, and when that is full slots of equal size in
 * chunks of ordinary memory that no dump has. Book-keeping of a chunk lies at
 * its start, apart from the slots; free slots are zero.
 */
#include "offload/base/keymem.h"
#include "providers/ossl/ossl.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#define CHUNK     ((size_t)256 << 10) /* bytes, and their alignment: a slot finds its chunk */
#define SLOT_MAX  (CHUNK / 8)         /* larger ones have a map of their own */
#define LISTS     8u
#define NO_SLOT   UINT16_MAX
#define ARENA_MIN ((size_t)16 << 10)

struct chunk {
    struct chunk *next, *prev; /* in the list of its size, while it has a free slot */
    uint8_t *slots;
    uint32_t slot_len, count, used;
    uint16_t free;   /* the first free slot */
    uint16_t link[]; /* of each free one: the next */
};

static struct {
    pthread_mutex_t lock;
    unsigned users;
    enum rs_keymem_kind first; /* as the configuration has it; RS_KEYMEM_NONE: the best */
    bool at_fork;
    bool arena;      /* made here, not by the program that this is linked into */
    size_t overflow; /* slots and maps outside of key memory */
    struct chunk *with_room[LISTS];
} memory = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* ---- slots outside of key memory ------------------------------------------------- */

static void *map_ordinary(size_t len)
{
    void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return NULL;
    (void)madvise(p, len, MADV_DONTDUMP);
    return p;
}

static void *map_chunk(void)
{
    uint8_t *p = map_ordinary(2 * CHUNK);
    if (p == NULL) return NULL;
    size_t before = (size_t)(-(uintptr_t)p & (CHUNK - 1));
    if (before != 0) munmap(p, before);
    munmap(p + before + CHUNK, CHUNK - before);
    return p + before;
}

static struct chunk **list_of(size_t slot_len)
{
    return &memory.with_room[slot_len / RS_KEYMEM_ALIGN % LISTS];
}

static void link_chunk(struct chunk *c)
{
    struct chunk **head = list_of(c->slot_len);
    c->prev = NULL;
    c->next = *head;
    if (c->next != NULL) c->next->prev = c;
    *head = c;
}

static void unlink_chunk(struct chunk *c)
{
    if (c->prev == NULL)
        *list_of(c->slot_len) = c->next;
    else
        c->prev->next = c->next;
    if (c->next != NULL) c->next->prev = c->prev;
}

static struct chunk *make_chunk(size_t slot_len)
{
    struct chunk *c = map_chunk();
    if (c == NULL) return NULL;
    size_t count = (CHUNK - sizeof(*c) - RS_KEYMEM_ALIGN) / (slot_len + sizeof(c->link[0]));
    c->slot_len = (uint32_t)slot_len;
    c->count = (uint32_t)count;
    c->slots = (uint8_t *)c + rs_round_up(sizeof(*c) + count * sizeof(c->link[0]), RS_KEYMEM_ALIGN);
    for (size_t i = 0; i < count; i++) c->link[i] = i + 1 < count ? (uint16_t)(i + 1) : NO_SLOT;
    link_chunk(c);
    return c;
}

static void *take_slot(size_t slot_len)
{
    struct chunk *c = *list_of(slot_len);
    while (c != NULL && c->slot_len != slot_len) c = c->next;
    if (c == NULL && (c = make_chunk(slot_len)) == NULL) return NULL;
    uint16_t slot = c->free;
    c->free = c->link[slot];
    if (++c->used == c->count) unlink_chunk(c);
    return c->slots + (size_t)slot * slot_len;
}

static void give_slot(uint8_t *p)
{
    struct chunk *c = (struct chunk *)((uintptr_t)p & ~(uintptr_t)(CHUNK - 1));
    uint16_t slot = (uint16_t)((size_t)(p - c->slots) / c->slot_len);
    c->link[slot] = c->free;
    c->free = slot;
    if (c->used-- == c->count) link_chunk(c);
    if (c->used != 0) return;
    unlink_chunk(c);
    munmap(c, CHUNK);
}

static void *alloc_ordinary(size_t len)
{
    pthread_mutex_lock(&memory.lock);
    void *p = len <= SLOT_MAX ? take_slot(len) : map_ordinary(len);
    if (p != NULL) memory.overflow++;
    pthread_mutex_unlock(&memory.lock);
    return p;
}

static void free_ordinary(void *p, size_t len)
{
    pthread_mutex_lock(&memory.lock);
    if (len <= SLOT_MAX)
        give_slot(p);
    else
        munmap(p, len);
    memory.overflow--;
    pthread_mutex_unlock(&memory.lock);
}

/* ---- calls -------------------------------------------------------------------------- */

void *rs_ossl_alloc(size_t len)
{
    if (len > SIZE_MAX / 2) return NULL;
    void *p = rs_keymem_alloc(len);
    return p != NULL ? p : alloc_ordinary(rs_round_up(RS_MAX(len, 1), RS_KEYMEM_ALIGN));
}

void rs_ossl_free(void *p, size_t len)
{
    if (p == NULL) return;
    if (rs_keymem_owns(p)) {
        rs_keymem_free(p);
        return;
    }
    rs_wipe(p, len);
    free_ordinary(p, rs_round_up(RS_MAX(len, 1), RS_KEYMEM_ALIGN));
}

const char *rs_ossl_memory_kind(void)
{
    pthread_mutex_lock(&memory.lock);
    bool plain = memory.overflow != 0 || rs_keymem_kind() == RS_KEYMEM_NONE;
    pthread_mutex_unlock(&memory.lock);
    return plain ? "plain" : rs_keymem_kind_name();
}

/* Half of what the program may lock: it may have secrets of its own, and a fork needs room for a moment. */
static size_t fitting_size(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_MEMLOCK, &limit) != 0) return RS_KEYMEM_SIZE;
    size_t half = RS_MIN(limit.rlim_cur / 2, RS_KEYMEM_SIZE) & ~(ARENA_MIN - 1);
    /* With nothing to lock it can only be plain, and as large as any; root is not limited at all. */
    return half < ARENA_MIN || geteuid() == 0 ? RS_KEYMEM_SIZE : half;
}

static void before_fork(void)
{
    pthread_mutex_lock(&memory.lock);
}

static void after_fork(void)
{
    pthread_mutex_unlock(&memory.lock);
}

/* Without an arena contexts lie in ordinary memory, and the kind says so. */
static bool make_arena(void)
{
    if (rs_keymem_keep_on_fork() != 0) return false;
    rs_keymem_begin_with(memory.first);
    return rs_keymem_init(fitting_size()) == 0;
}

bool rs_ossl_memory_prefer(const char *kind)
{
    static const char *const kinds[] = {"auto", "secret", "locked", "plain"};
    for (unsigned i = 0; i < RS_ARRAY_LEN(kinds); i++) {
        if (strcmp(kind, kinds[i]) != 0) continue;
        pthread_mutex_lock(&memory.lock);
        if (memory.users == 0) memory.first = (enum rs_keymem_kind)i;
        pthread_mutex_unlock(&memory.lock);
        return true;
    }
    return false;
}

void rs_ossl_memory_acquire(void)
{
    pthread_mutex_lock(&memory.lock);
    if (memory.users++ == 0) memory.arena = make_arena();
    /* After the handlers of key memory, so that they lock after these: as this function does. */
    if (!memory.at_fork) memory.at_fork = pthread_atfork(before_fork, after_fork, after_fork) == 0;
    pthread_mutex_unlock(&memory.lock);
}

void rs_ossl_memory_release(void)
{
    pthread_mutex_lock(&memory.lock);
    if (--memory.users == 0 && memory.arena) rs_keymem_fini();
    pthread_mutex_unlock(&memory.lock);
}
