/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_TESTS_GUARDED_H
#define RS_TESTS_GUARDED_H

/*
 * Buffers between unreadable pages: a read or write one byte outside faults.
 * Sanitizers do not see through intrinsics, the memory management unit does.
 */

#include <stddef.h>
#include <stdint.h>

struct guarded {
    uint8_t *map;  /* whole mapping, guard pages included */
    size_t map_len;
    uint8_t *page; /* first usable byte */
    size_t room;   /* usable bytes, whole pages */
};

/* Room for at least `room` bytes, a guard page before and after. Ends the test program when memory is out. */
void guarded_map(struct guarded *g, size_t room);
void guarded_unmap(struct guarded *g);

/* `len` bytes that end at the guard page after, or begin right after the guard page before. */
uint8_t *guarded_at_end(const struct guarded *g, size_t len);
uint8_t *guarded_at_start(const struct guarded *g);

#endif
