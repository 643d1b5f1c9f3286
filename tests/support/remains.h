/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a call left on a stack that was all zeros before it: a search for many blocks looks at the part that
 * was written, a few KiB, and not at all of the stack each time.
 */
#ifndef RESEAL_TESTS_REMAINS_H
#define RESEAL_TESTS_REMAINS_H

#include "offload/base/bytes.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define REMAINS_BLOCK 16u

struct remains {
    const uint8_t *at;
    size_t len;
};

/* len: a multiple of 8; memory is aligned to as much. */
static inline struct remains remains_of(const uint8_t *memory, size_t len)
{
    size_t first = 0, end = len;
    while (first < len && rs_load_le64(memory + first) == 0) first += 8;
    while (end > first && rs_load_le64(memory + end - 8) == 0) end -= 8;
    /* A block may begin or end with zeros. */
    first -= RS_MIN(first, (size_t)REMAINS_BLOCK);
    end += RS_MIN(len - end, (size_t)REMAINS_BLOCK);
    return (struct remains){memory + first, end - first};
}

/*
 * Whether a block that is not all zeros is there. Not inlined: with checks for null pointers compilers would
 * take the way after a failed check for one to memmem.
 */
static __attribute__((noinline, unused)) bool remains_hold(const struct remains *r,
                                                           const uint8_t block[REMAINS_BLOCK])
{
    return memmem(r->at, r->len, block, REMAINS_BLOCK) != NULL;
}

#endif
