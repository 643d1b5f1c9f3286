/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_VAES_WIPE_VECTORS_H
#define RS_VAES_WIPE_VECTORS_H

/* Wiping in the vectors of the file that includes it, for pieces so small that calling memset would take
 * longer. */

static inline void v_wipe(V *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        v_store(&p[i], v_zero());
        /* Or the compiler calls memset. */
        __asm__ volatile("" : : : "memory");
    }
}

/* A function that overwrites what functions that were called before it have left on the stack. */
#define RS_FORGET_FRAMES(name, bytes)                                                                        \
    static __attribute__((noinline)) void name(void)                                                         \
    {                                                                                                        \
        V frame[(bytes) / sizeof(V)];                                                                        \
        __asm__ volatile("" : : "r"(frame) : "memory");                                                      \
        v_wipe(frame, RS_ARRAY_LEN(frame));                                                                  \
        __asm__ volatile("" : : "r"(frame) : "memory");                                                      \
    }

#endif
