/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_BASE_FNV_H
#define RS_BASE_FNV_H

/* FNV-1a, 64 bits: to tell texts apart, against nobody who wants them to look alike. */

#include <stdint.h>

#define RS_FNV_START UINT64_C(14695981039346656037)

static inline uint64_t rs_fnv_byte(uint64_t h, uint8_t byte)
{
    return (h ^ byte) * UINT64_C(1099511628211);
}

/* What `h` becomes with a text, without its NUL. */
static inline uint64_t rs_fnv_text(uint64_t h, const char *text)
{
    for (; *text != '\0'; text++) h = rs_fnv_byte(h, (uint8_t)*text);
    return h;
}

#endif
