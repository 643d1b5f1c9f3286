/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_BASE_BYTES_H
#define RS_BASE_BYTES_H

/*
 * Bytes and lengths: wiping, constant-time comparison, little-endian access,
 * range checks in 64 bits, scope-bound clean-up.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define RS_MUST_CHECK __attribute__((warn_unused_result))
#define RS_NORETURN   __attribute__((noreturn))
#define RS_UNUSED     __attribute__((unused))
#define RS_ALIGNED(n) __attribute__((aligned(n)))

#define RS_ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define RS_MIN(a, b)    ((a) < (b) ? (a) : (b))
#define RS_MAX(a, b)    ((a) > (b) ? (a) : (b))

/* Overwrites a secret; never optimised away. NULL with length 0 is allowed. */
void rs_wipe(void *p, size_t len);

/* True when equal; takes the same time wherever the first difference lies. */
RS_MUST_CHECK bool rs_equal_ct(const void *a, const void *b, size_t len);

/* True when [off, off+len) lies inside [0, size), without overflow. */
static inline bool rs_range_ok(uint64_t off, uint64_t len, uint64_t size)
{
    return off <= size && len <= size - off;
}

/* True when [a, a+alen) and [b, b+blen) share a byte. */
static inline bool rs_overlap(const void *a, size_t alen, const void *b, size_t blen)
{
    uintptr_t x = (uintptr_t)a, y = (uintptr_t)b;
    return x < y ? y - x < alen : x - y < blen;
}

static inline bool rs_is_pow2(uint64_t v) { return v != 0 && (v & (v - 1)) == 0; }

static inline uint64_t rs_round_up(uint64_t v, uint64_t pow2) { return (v + pow2 - 1) & ~(pow2 - 1); }

static inline uint64_t rs_load_le64(const void *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof(v));
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    v = __builtin_bswap64(v);
#endif
    return v;
}

static inline void rs_store_le64(void *p, uint64_t v)
{
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    v = __builtin_bswap64(v);
#endif
    memcpy(p, &v, sizeof(v));
}

static inline uint32_t rs_load_le32(const void *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof(v));
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    v = __builtin_bswap32(v);
#endif
    return v;
}

static inline void rs_store_le32(void *p, uint32_t v)
{
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    v = __builtin_bswap32(v);
#endif
    memcpy(p, &v, sizeof(v));
}

static inline void rs_store_be64(void *p, uint64_t v)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    v = __builtin_bswap64(v);
#endif
    memcpy(p, &v, sizeof(v));
}

static inline void rs_store_be32(void *p, uint32_t v)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    v = __builtin_bswap32(v);
#endif
    memcpy(p, &v, sizeof(v));
}

static inline uint64_t rs_load_be64(const void *p)
{
    return __builtin_bswap64(rs_load_le64(p));
}

static inline uint32_t rs_load_be32(const void *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof(v));
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    v = __builtin_bswap32(v);
#endif
    return v;
}

/* Bytes as lower-case hex digits: `out` has room for 2 * len + 1. */
void rs_hex(const void *p, size_t len, char *out);
/* The value of a digit of either case; -1: it is none. */
RS_MUST_CHECK int rs_hex_digit(char c);
/* False: `text` is not 2 * len digits. */
RS_MUST_CHECK bool rs_unhex(const char *text, void *out, size_t len);

/* Scope-bound clean-up: RS_FREE char *s = ...; RS_CLOSE int fd = ...; */
void rs_cleanup_free(void *pp);
void rs_cleanup_close(int *fd);
#define RS_FREE  __attribute__((cleanup(rs_cleanup_free)))
#define RS_CLOSE __attribute__((cleanup(rs_cleanup_close)))

/* Reads or writes exactly len bytes; 0, or -errno; -ENODATA when the file ends early. */
RS_MUST_CHECK int rs_read_full(int fd, void *p, size_t len);
RS_MUST_CHECK int rs_write_full(int fd, const void *p, size_t len);
RS_MUST_CHECK int rs_pread_full(int fd, void *p, size_t len, uint64_t off);
RS_MUST_CHECK int rs_pwrite_full(int fd, const void *p, size_t len, uint64_t off);

#endif
