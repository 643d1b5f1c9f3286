/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_TESTS_REFERENCE_H
#define RS_TESTS_REFERENCE_H

/* AES, GCM and XTS by OpenSSL: what the kernels are compared with. Any failure ends the test program. */

#include <stddef.h>
#include <stdint.h>

void reference_seal(unsigned bits, const uint8_t *key, const uint8_t iv[12], const uint8_t *aad,
                    size_t aad_len, const uint8_t *in, uint8_t *out, size_t len, uint8_t tag[16]);

/* Units from the tweak `lo`, `hi` on, as struct rs_side has them; `key` is both halves. */
void reference_xts(int encrypt, unsigned bits, const uint8_t *key, uint64_t lo, uint64_t hi, uint64_t step,
                   size_t unit, const uint8_t *in, uint8_t *out, size_t len);

/* One block of AES. */
void reference_block(int encrypt, unsigned bits, const uint8_t *key, const uint8_t in[16], uint8_t out[16]);

/* Repeatable bytes, not secret: the same seed gives the same stream. */
void reference_random(uint64_t *seed, void *out, size_t len);

#endif
