/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_BASE_CLOCK_H
#define RS_BASE_CLOCK_H

#include <stdint.h>

/* Monotonic nanoseconds; never fails, any thread. No system call where the kernel offers a TSC-backed clock.
 */
uint64_t rs_now_ns(void);

#endif
