/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_VAES_STREAM_KERNELS_H
#define RS_VAES_STREAM_KERNELS_H

/* The functions behind the tables of stream.h, one set for each instruction set; what each does is said
 * there. */

#include "providers/crypto/vaes/stream.h"

/* gcm_powers: the rest of the powers of the hash key, when the first four are there. */
#define RS_STREAM_KERNELS(isa)                                                                               \
    void rs_stream_gcm_powers_##isa(struct rs_vaes_key *key);                                                \
    void rs_stream_gcm_start_##isa(const struct rs_vaes_key *key, struct rs_gcm_stream *s,                   \
                                   const uint8_t *iv, size_t iv_len);                                        \
    void rs_stream_gcm_aad_##isa(const struct rs_vaes_key *key, struct rs_gcm_stream *s, const uint8_t *aad, \
                                 size_t len);                                                                \
    void rs_stream_gcm_encrypt_##isa(const struct rs_vaes_key *key, struct rs_gcm_stream *s,                 \
                                     const uint8_t *in, uint8_t *out, size_t len);                           \
    void rs_stream_gcm_decrypt_##isa(const struct rs_vaes_key *key, struct rs_gcm_stream *s,                 \
                                     const uint8_t *in, uint8_t *out, size_t len);                           \
    void rs_stream_gcm_tag_##isa(const struct rs_vaes_key *key, struct rs_gcm_stream *s, uint8_t tag[16]);   \
    void rs_stream_ctr_##isa(const struct rs_vaes_key *key, struct rs_ctr_stream *s, const uint8_t *in,      \
                             uint8_t *out, size_t len);                                                      \
    void rs_stream_xts_encrypt_##isa(const struct rs_vaes_key *key, const uint8_t tweak[16],                 \
                                     const uint8_t *in, uint8_t *out, size_t len);                           \
    void rs_stream_xts_decrypt_##isa(const struct rs_vaes_key *key, const uint8_t tweak[16],                 \
                                     const uint8_t *in, uint8_t *out, size_t len);
RS_STREAM_KERNELS(avx512)
RS_STREAM_KERNELS(avx2)
RS_STREAM_KERNELS(aesni)
#undef RS_STREAM_KERNELS

#endif
