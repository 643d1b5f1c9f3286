/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_CRYPTO_LIMIT_H
#define RS_CRYPTO_LIMIT_H

/* The physical bounds of this machine, measured: what every figure is a ratio to. */

#include "offload/base/clock.h"

#include <stddef.h>

/* AES rounds on 16-byte blocks that this core does in a second, by independent rounds at the best width that
 * CPUID and XCR0 allow; one sample of about 200 microseconds. The AES limit of a transform in bytes/s is 16 *
 * this / (rounds of both sides). 0 where the CPU has no AES instructions, or the build no x86 engine. */
double rs_limit_aes_rounds_per_second(void);

/* AES rounds that both sides together need for a block: 10, 12 or 14 for each side that is not plain (0
 * bits). */
unsigned rs_limit_rounds(unsigned src_bits, unsigned dst_bits);

/* Bytes/s of the better of memcpy and a streaming copy from `in` to `out`; one pass of each. */
double rs_limit_copy(void *out, const void *in, size_t len);

#endif
