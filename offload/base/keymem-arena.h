/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_BASE_KEYMEM_ARENA_H
#define RS_BASE_KEYMEM_ARENA_H

/* What keymem.c and keymem-fork.c share, and nobody else: the arena and how it is mapped. */

#include "offload/base/keymem.h"

#include <pthread.h>

#define RS_GRANULE        RS_KEYMEM_ALIGN
#define RS_KEYMEM_CLASSES 25u /* free lists, by the power of two of a block's granules */
#define RS_NO_GRANULE     UINT32_MAX
#define RS_GRANULE_USED   1u

/* Book-keeping of one granule; only those of a block's first and last granule are valid. */
struct rs_granule {
    uint32_t tag;  /* granules in the block << 1, | RS_GRANULE_USED */
    uint32_t next; /* free list */
    uint32_t prev;
};

struct rs_arena {
    pthread_mutex_t lock;
    uint8_t *base;
    size_t size;
    size_t used;
    struct rs_granule *nodes;
    uint32_t count; /* granules */
    uint32_t lists[RS_KEYMEM_CLASSES];
    enum rs_keymem_kind kind;
    enum rs_keymem_kind first; /* to begin with; RS_KEYMEM_NONE: the best */
    bool keep;                 /* on fork: the child gets a copy */
};

extern struct rs_arena rs_arena;

/* Maps `len` bytes, whole pages, over what is at `at`; false when the kind cannot be had: what is there then
 * is open. */
RS_MUST_CHECK bool rs_keymem_map(enum rs_keymem_kind kind, uint8_t *at, size_t len);

/* mlock(2) as the arena has it. */
RS_MUST_CHECK bool rs_keymem_lock_pages(uint8_t *at, size_t len);

size_t rs_page_size(void);

/*
 * The used blocks one after the other: *at is the granule to begin with, 0 at first; the start and the length
 * in bytes. False after the last. With the lock.
 */
RS_MUST_CHECK bool rs_arena_next_used(uint32_t *at, size_t *start, size_t *len);

#endif
