/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_BASE_CRC32C_H
#define RS_BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* CRC-32C (RFC 3720, B.4) of `len` bytes, continuing from `crc` (0 at the start): finds torn writes, not
 * forgeries. */
uint32_t rs_crc32c(uint32_t crc, const void *data, size_t len);

/* The same without the processor's instruction: what other machines compute. */
uint32_t rs_crc32c_by_table(uint32_t crc, const void *data, size_t len);

#endif
