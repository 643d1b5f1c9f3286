/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_VAES_FORGET_H
#define RS_VAES_FORGET_H

/*
 * After a batch no plaintext, tweak or round key stays in a vector register,
 * nor on the stack where the compiler had put what it had no register for.
 * v_forget() is the one of the instruction set that the file is compiled for.
 */

#include "offload/base/bytes.h"

/* What the kernels of a batch take of the stack, as seen: clang 14 spills twice as much as gcc 12. */
#ifdef __clang__
#define FRAMES 6144
#else
#define FRAMES 3072
#endif

/* Wipes the stack below the caller: what a batch that was called from there has left. */
static __attribute__((noinline, unused)) void forget_stack(void)
{
    uint8_t frame[FRAMES];
    rs_wipe(frame, sizeof(frame));
}

#if defined(__AVX512F__)
/* Clearing idioms cost no execution, as vzeroall does; they clear all of a register. */
#define CLEAR_XMM(n) "vpxor %%xmm" #n ", %%xmm" #n ", %%xmm" #n "\n\t"
#define CLEAR_ZMM(n) "vpxord %%zmm" #n ", %%zmm" #n ", %%zmm" #n "\n\t"
static inline void v_forget(void)
{
    __asm__ volatile(
        CLEAR_XMM(0) CLEAR_XMM(1) CLEAR_XMM(2) CLEAR_XMM(3) CLEAR_XMM(4) CLEAR_XMM(5) CLEAR_XMM(6)
            CLEAR_XMM(7) CLEAR_XMM(8) CLEAR_XMM(9) CLEAR_XMM(10) CLEAR_XMM(11) CLEAR_XMM(12) CLEAR_XMM(13)
                CLEAR_XMM(14) CLEAR_XMM(15) CLEAR_ZMM(16) CLEAR_ZMM(17) CLEAR_ZMM(18) CLEAR_ZMM(19)
                    CLEAR_ZMM(20) CLEAR_ZMM(21) CLEAR_ZMM(22) CLEAR_ZMM(23) CLEAR_ZMM(24) CLEAR_ZMM(25)
                        CLEAR_ZMM(26) CLEAR_ZMM(27) CLEAR_ZMM(28) CLEAR_ZMM(29) CLEAR_ZMM(30)
                            CLEAR_ZMM(31) "vzeroupper"
        :
        :
        : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11",
          "xmm12", "xmm13", "xmm14", "xmm15", "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22",
          "xmm23", "xmm24", "xmm25", "xmm26", "xmm27", "xmm28", "xmm29", "xmm30", "xmm31");
}
#elif defined(__AVX2__)
static inline void v_forget(void)
{
    __asm__ volatile("vzeroall"
                     :
                     :
                     : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",
                       "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
}
#else
#define CLEAR_XMM(n) "pxor %%xmm" #n ", %%xmm" #n "\n\t"
static inline void v_forget(void)
{
    __asm__ volatile(CLEAR_XMM(0) CLEAR_XMM(1) CLEAR_XMM(2) CLEAR_XMM(3) CLEAR_XMM(4) CLEAR_XMM(5)
                         CLEAR_XMM(6) CLEAR_XMM(7) CLEAR_XMM(8) CLEAR_XMM(9) CLEAR_XMM(10) CLEAR_XMM(11)
                             CLEAR_XMM(12) CLEAR_XMM(13) CLEAR_XMM(14) CLEAR_XMM(15)
                     :
                     :
                     : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",
                       "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
}
#endif

#endif
