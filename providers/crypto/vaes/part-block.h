/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_VAES_PART_BLOCK_H
#define RS_VAES_PART_BLOCK_H

/* Parts of a block, from and to memory, in registers alone; each byte is read once. */

#include "offload/base/bytes.h"

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

/* From byte 32 - n on: n bytes of ones, then zeros. */
static const uint8_t first_bytes[64] RS_ALIGNED(64) = {
#define ONES 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff
    ONES,
    ONES,
    ONES,
    ONES,
#undef ONES
};

/* From byte 16 - n on: what moves the bytes of a block up by n; from byte 16 + n on: down by n. */
static const uint8_t move_bytes[48] RS_ALIGNED(16) = {
#define NONE 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80
    NONE, NONE, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, NONE, NONE,
#undef NONE
};

static inline __m128i x_load(const void *p)
{
    return _mm_loadu_si128(p);
}

static inline void x_store(void *p, __m128i v)
{
    _mm_storeu_si128(p, v);
}

/* The first n bytes (0 to 15) at p, then zeros. */
static inline __m128i x_load_part(const uint8_t *p, size_t n)
{
    uint64_t lo = 0, end = 0;
    const uint8_t *at = p + n;
    if (n & 1) end = *--at;
    if (n & 2) {
        uint16_t v;
        memcpy(&v, at -= 2, 2);
        end = end << 16 | v;
    }
    if (n & 4) {
        uint32_t v;
        memcpy(&v, at -= 4, 4);
        end = end << 32 | v;
    }
    if (!(n & 8)) return _mm_set_epi64x(0, (long long)end);
    memcpy(&lo, p, 8);
    return _mm_set_epi64x((long long)end, (long long)lo);
}

static inline void x_store_part(uint8_t *p, __m128i v, size_t n)
{
    uint64_t end = (uint64_t)_mm_cvtsi128_si64(v);
    if (n & 8) {
        memcpy(p, &end, 8);
        p += 8;
        end = (uint64_t)_mm_cvtsi128_si64(_mm_srli_si128(v, 8));
    }
    if (n & 4) {
        memcpy(p, &end, 4);
        p += 4;
        end >>= 32;
    }
    if (n & 2) {
        memcpy(p, &end, 2);
        p += 2;
        end >>= 16;
    }
    if (n & 1) *p = (uint8_t)end;
}

static inline __m128i x_up(__m128i v, size_t bytes)
{
    return _mm_shuffle_epi8(v, x_load(move_bytes + 16 - bytes));
}

static inline __m128i x_down(__m128i v, size_t bytes)
{
    return _mm_shuffle_epi8(v, x_load(move_bytes + 16 + bytes));
}

static inline __m128i x_keep_part(__m128i v, size_t n)
{
    return _mm_and_si128(v, x_load(first_bytes + 32 - n));
}

static inline __m128i x_reverse(__m128i v)
{
    return _mm_shuffle_epi8(v, _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
}

#endif
