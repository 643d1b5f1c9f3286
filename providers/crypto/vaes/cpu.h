/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_VAES_CPU_H
#define RS_VAES_CPU_H

#include <stdbool.h>

/* What this CPU can run: the instructions (CPUID) and the registers that the kernel saves (XCR0). Cheap
 * enough to ask at start, too slow (CPUID traps in a guest) for a run. */
struct rs_cpu {
    bool aesni;  /* AES, PCLMULQDQ, SSSE3, SSE4.1 */
    bool avx2;   /* VAES, VPCLMULQDQ, AVX2, ymm state */
    bool avx512; /* the same with AVX512F, BW, VL, DQ, opmask and zmm state */
};

struct rs_cpu rs_cpu_probe(void);

#endif
