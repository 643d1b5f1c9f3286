/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/base/crc32c.h"

#include "offload/base/bytes.h"

/* A byte at a time, where the processor has no instruction for it. */
static uint32_t crc_by_table(uint32_t crc, const uint8_t *p, size_t len)
{
    static uint32_t table[256];
    if (table[1] == 0) {
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t c = i;
            for (int k = 0; k < 8; k++) c = (c & 1) != 0 ? (c >> 1) ^ 0x82f63b78u : c >> 1;
            table[i] = c;
        }
    }
    for (; len != 0; len--) crc = table[(crc ^ *p++) & 0xff] ^ (crc >> 8);
    return crc;
}

#if defined(__x86_64__)
/* Headers are megabytes: by the table they would cost as much as the data. */
__attribute__((target("sse4.2"))) static uint32_t crc_by_instruction(uint32_t crc, const uint8_t *p,
                                                                     size_t len)
{
    uint64_t c = crc;
    for (; len >= 8; len -= 8, p += 8) c = __builtin_ia32_crc32di(c, rs_load_le64(p));
    for (; len != 0; len--) c = __builtin_ia32_crc32qi((uint32_t)c, *p++);
    return (uint32_t)c;
}
#endif

uint32_t rs_crc32c_by_table(uint32_t crc, const void *data, size_t len)
{
    return ~crc_by_table(~crc, data, len);
}

uint32_t rs_crc32c(uint32_t crc, const void *data, size_t len)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("sse4.2")) return ~crc_by_instruction(~crc, data, len);
#endif
    return ~crc_by_table(~crc, data, len);
}
