/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/crypto/vaes/stream.h"

#include "providers/crypto/vaes/cpu.h"
#include "providers/crypto/vaes/stream-kernels.h"

#define STREAM(isa)                                                                                          \
    const struct rs_stream rs_stream_##isa = {                                                               \
        .name = "vaes-" #isa,                                                                                \
        .gcm_start = rs_stream_gcm_start_##isa,                                                              \
        .gcm_aad = rs_stream_gcm_aad_##isa,                                                                  \
        .gcm_encrypt = rs_stream_gcm_encrypt_##isa,                                                          \
        .gcm_decrypt = rs_stream_gcm_decrypt_##isa,                                                          \
        .gcm_tag = rs_stream_gcm_tag_##isa,                                                                  \
        .ctr = rs_stream_ctr_##isa,                                                                          \
        .xts_encrypt = rs_stream_xts_encrypt_##isa,                                                          \
        .xts_decrypt = rs_stream_xts_decrypt_##isa,                                                          \
    };
STREAM(avx512)
STREAM(avx2)
STREAM(aesni)

const struct rs_stream *rs_stream_best(void)
{
    struct rs_cpu cpu = rs_cpu_probe();
    if (cpu.avx512) return &rs_stream_avx512;
    if (cpu.avx2) return &rs_stream_avx2;
    return cpu.aesni ? &rs_stream_aesni : NULL;
}

const struct rs_stream *rs_stream_by_name(const char *name)
{
    struct rs_cpu cpu = rs_cpu_probe();
    if (cpu.avx512 && strcmp(name, rs_stream_avx512.name) == 0) return &rs_stream_avx512;
    if (cpu.avx2 && strcmp(name, rs_stream_avx2.name) == 0) return &rs_stream_avx2;
    if (cpu.aesni && strcmp(name, rs_stream_aesni.name) == 0) return &rs_stream_aesni;
    return NULL;
}

typedef void powers_fn(struct rs_vaes_key *key);

/* By the widest vectors; asked for once, as CPUID traps in a guest. Racing threads store the same. */
static powers_fn *widest_powers(void)
{
    static powers_fn *known;
    powers_fn *powers = __atomic_load_n(&known, __ATOMIC_RELAXED);
    if (powers != NULL) return powers;
    struct rs_cpu cpu = rs_cpu_probe();
    powers = cpu.avx512 ? rs_stream_gcm_powers_avx512
             : cpu.avx2 ? rs_stream_gcm_powers_avx2
                        : rs_stream_gcm_powers_aesni;
    __atomic_store_n(&known, powers, __ATOMIC_RELAXED);
    return powers;
}

void rs_stream_prepare(struct rs_vaes_key *key, enum rs_stream_mode mode, const uint8_t *raw, unsigned bits)
{
    bool xts = mode == RS_STREAM_XTS;
    key->rounds = bits / 32 + 6;
    rs_aes_expand(key->enc, xts ? key->dec : NULL, raw, bits);
    if (xts) rs_aes_expand(key->tweak, NULL, raw + bits / 8, bits);
    if (mode != RS_STREAM_GCM) return;
    rs_ghash_powers(key, 4);
    widest_powers()(key);
}
