/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/crypto/vaes/vaes.h"

#include "providers/crypto/vaes/cpu.h"
#include "providers/crypto/vaes/key.h"
#include "reseal/reseal.h"

static int probe_avx512(void)
{
    return rs_cpu_probe().avx512 ? 0 : RESEAL_ENOSUPPORT;
}
static int probe_avx2(void)
{
    return rs_cpu_probe().avx2 ? 0 : RESEAL_ENOSUPPORT;
}
static int probe_aesni(void)
{
    return rs_cpu_probe().aesni ? 0 : RESEAL_ENOSUPPORT;
}

static bool bits_ok(unsigned bits)
{
    return bits == 128 || bits == 256;
}

static bool side_ok(unsigned cipher, unsigned bits, uint32_t unit)
{
    switch (cipher) {
    case RS_PLAIN:
        return bits == 0;
    case RS_XTS:
        return bits_ok(bits) && unit >= RS_UNIT_MIN && unit <= RS_UNIT_MAX;
    case RS_GCM:
        return RS_VAES_GCM && bits_ok(bits);
    default:
        return false;
    }
}

/* Everything but a copy from plain to plain. */
static bool supports(const struct rs_shape *s)
{
    return side_ok(s->src, s->src_bits, s->src_unit) && side_ok(s->dst, s->dst_bits, s->dst_unit) &&
           (s->src != RS_PLAIN || s->dst != RS_PLAIN);
}

static size_t key_size(enum rs_cipher cipher, unsigned bits)
{
    (void)bits;
    return cipher == RS_PLAIN ? 0 : sizeof(struct rs_vaes_key);
}

static int prepare(void *key, enum rs_cipher cipher, unsigned bits, const uint8_t *raw, size_t raw_len)
{
    struct rs_vaes_key *k = key;
    size_t half = bits / 8;
    if (!bits_ok(bits) || (cipher != RS_XTS && cipher != RS_GCM)) return RESEAL_EKEYBAD;
    if (raw_len != (cipher == RS_XTS ? 2 * half : half)) return RESEAL_EKEYBAD;
    /* Equal halves give XTS tweaks away (SP 800-38E, FIPS 140 IG C.I). */
    if (cipher == RS_XTS && rs_equal_ct(raw, raw + half, half)) return RESEAL_EKEYBAD;

    memset(k, 0, sizeof(*k));
    k->rounds = bits == 128 ? 10 : 14;
    rs_aes_expand(k->enc, k->dec, raw, bits);
    if (cipher == RS_XTS) rs_aes_expand(k->tweak, NULL, raw + half, bits);
    if (cipher == RS_GCM) rs_ghash_prepare(k);
    return 0;
}

static void wipe(void *key, enum rs_cipher cipher, unsigned bits)
{
    rs_wipe(key, key_size(cipher, bits));
}

typedef size_t run_fn(struct rs_run *runs, size_t n, void *scratch, unsigned flags);

/* Runs of a batch have one shape, so the first one tells. */
static size_t dispatch(struct rs_run *runs, size_t n, void *scratch, unsigned flags, run_fn *xts, run_fn *gcm)
{
    if (n == 0) return 0;
    bool has_gcm = runs[0].src.cipher == RS_GCM || runs[0].dst.cipher == RS_GCM;
    return (has_gcm ? gcm : xts)(runs, n, scratch, flags);
}

static size_t run_avx512(struct rs_run *runs, size_t n, void *scratch, unsigned flags)
{
    return dispatch(runs, n, scratch, flags, rs_xts_run_avx512, rs_gcm_run_avx512);
}

static size_t run_avx2(struct rs_run *runs, size_t n, void *scratch, unsigned flags)
{
    return dispatch(runs, n, scratch, flags, rs_xts_run_avx2, rs_gcm_run_avx2);
}

static size_t run_aesni(struct rs_run *runs, size_t n, void *scratch, unsigned flags)
{
    return dispatch(runs, n, scratch, flags, rs_xts_run_aesni, rs_gcm_run_aesni);
}

#define ENGINE(the_name, isa)                                                                                \
    {                                                                                                        \
        .name = the_name, .variant = #isa, .probe = probe_##isa, .supports = supports, .key_size = key_size, \
        .prepare = prepare, .run = run_##isa, .wipe = wipe                                                   \
    }

const struct rs_engine rs_engine_vaes_avx512 = ENGINE("vaes-avx512", avx512);
const struct rs_engine rs_engine_vaes_avx2 = ENGINE("vaes-avx2", avx2);
const struct rs_engine rs_engine_aesni = ENGINE("vaes-aesni", aesni);
