/* SPDX-License-Identifier: Apache-2.0 */
/* One XTS data unit as a run of the engines' kernels. */
#include "providers/crypto/vaes/stream-kernels.h"

#define XTS(isa)                                                                                             \
    void rs_stream_xts_encrypt_##isa(const struct rs_vaes_key *key, const uint8_t tweak[16],                 \
                                     const uint8_t *in, uint8_t *out, size_t len)                            \
    {                                                                                                        \
        struct rs_run run = {.in = in, .out = out, .len = len, .dst = side(key, tweak, len)};                \
        rs_xts_run_##isa(&run, 1, NULL, 0);                                                                  \
    }                                                                                                        \
    void rs_stream_xts_decrypt_##isa(const struct rs_vaes_key *key, const uint8_t tweak[16],                 \
                                     const uint8_t *in, uint8_t *out, size_t len)                            \
    {                                                                                                        \
        struct rs_run run = {.in = in, .out = out, .len = len, .src = side(key, tweak, len)};                \
        rs_xts_run_##isa(&run, 1, NULL, 0);                                                                  \
    }

static struct rs_side side(const struct rs_vaes_key *key, const uint8_t tweak[16], size_t len)
{
    return (struct rs_side){.cipher = RS_XTS,
                            .key = key,
                            .unit = (uint32_t)len,
                            .tweak_lo = rs_load_le64(tweak),
                            .tweak_hi = rs_load_le64(tweak + 8)};
}

XTS(avx512)
XTS(avx2)
XTS(aesni)
