/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/crypto/vaes/cpu.h"

#include <cpuid.h>
#include <stdint.h>

/* XCR0: SSE and AVX state; opmask, upper halves of zmm0-15, zmm16-31. */
#define XCR0_YMM 0x06u
#define XCR0_ZMM 0xe6u

#define LEAF1_ECX_AESNI  (bit_AES | bit_PCLMUL | bit_SSSE3 | bit_SSE4_1)
#define LEAF7_ECX_VECTOR (bit_VAES | bit_VPCLMULQDQ)
#define LEAF7_EBX_AVX512 (bit_AVX512F | bit_AVX512BW | bit_AVX512VL | bit_AVX512DQ)

static uint64_t xcr0(void)
{
    uint32_t lo, hi;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return (uint64_t)hi << 32 | lo;
}

static bool all(uint64_t have, uint64_t wanted)
{
    return (have & wanted) == wanted;
}

struct rs_cpu rs_cpu_probe(void)
{
    struct rs_cpu cpu = {0};
    uint32_t a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !all(c, LEAF1_ECX_AESNI)) return cpu;
    cpu.aesni = true;
    if (!all(c, bit_OSXSAVE | bit_AVX)) return cpu;
    uint64_t saved = xcr0();
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !all(b, bit_AVX2) || !all(c, LEAF7_ECX_VECTOR))
        return cpu;
    cpu.avx2 = all(saved, XCR0_YMM);
    cpu.avx512 = all(b, LEAF7_EBX_AVX512) && all(saved, XCR0_ZMM);
    return cpu;
}
