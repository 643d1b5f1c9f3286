/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/crypto/ipsec_mb/ipsec_mb.h"

#include "providers/crypto/staged.h"
#include "reseal/reseal.h"

#include <cpuid.h>
#include <intel-ipsec-mb.h>
#include <stdio.h>

_Static_assert(sizeof(struct gcm_context_data) <= sizeof(((struct rs_staged_side *)0)->state),
               "state of a side");
_Static_assert(_Alignof(struct gcm_key_data) <= RS_KEY_ALIGN, "key alignment");

struct ipsec_mb_key {
    struct gcm_key_data data;
    uint32_t bits;
};

/* Only its table of functions is used: immutable once initialised, so shared by all threads. */
static IMB_MGR *manager;
static char variant[32] = IMB_VERSION_STR;

#define XCR0_AVX    0x06u /* SSE and AVX state */
#define XCR0_AVX512 0xe6u /* and opmask, upper halves, upper registers */

static uint64_t xcr0(void)
{
    unsigned a, b, c, d;
    if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & bit_OSXSAVE) == 0) return 0;
    __asm__("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
    return (uint64_t)d << 32 | a;
}

static bool has(uint64_t features, uint64_t wanted)
{
    return (features & wanted) == wanted;
}

static int ipsec_mb_probe(void)
{
    if (manager != NULL) return 0;
    uint64_t features = imb_get_feature_flags(), state = xcr0();
    if (!has(features, IMB_CPUFLAGS_SSE)) return RESEAL_ENOSUPPORT;
    IMB_MGR *m = alloc_mb_mgr(0);
    const char *set = "sse";
    if (m == NULL) return RESEAL_ENOSUPPORT;
    if (has(features, IMB_CPUFLAGS_AVX512) && has(state, XCR0_AVX512)) {
        set = "avx512";
        init_mb_mgr_avx512(m);
    } else if (has(features, IMB_CPUFLAGS_AVX2) && has(state, XCR0_AVX)) {
        set = "avx2";
        init_mb_mgr_avx2(m);
    } else {
        init_mb_mgr_sse(m);
    }
    if (imb_get_errno(m) != 0) {
        free_mb_mgr(m);
        return RESEAL_ENOSUPPORT;
    }
    snprintf(variant, sizeof(variant), "%s %s", IMB_VERSION_STR, set);
    manager = m;
    return 0;
}

static bool ipsec_mb_supports(const struct rs_shape *shape)
{
    return shape->src != RS_XTS && shape->dst != RS_XTS && (shape->src == RS_GCM || shape->dst == RS_GCM);
}

static size_t ipsec_mb_key_size(enum rs_cipher cipher, unsigned bits)
{
    (void)bits;
    return cipher == RS_GCM ? rs_round_up(sizeof(struct ipsec_mb_key), RS_KEY_ALIGN) : 0;
}

static void ipsec_mb_wipe(void *key, enum rs_cipher cipher, unsigned bits)
{
    rs_wipe(key, ipsec_mb_key_size(cipher, bits));
}

static int ipsec_mb_prepare(void *key, enum rs_cipher cipher, unsigned bits, const uint8_t *raw,
                            size_t raw_len)
{
    struct ipsec_mb_key *k = key;
    if (cipher == RS_PLAIN) return 0;
    if (cipher != RS_GCM || (bits != 128 && bits != 256) || raw_len != bits / 8) return RESEAL_EKEYBAD;
    k->bits = bits;
    if (bits == 256) {
        IMB_AES256_GCM_PRE(manager, raw, &k->data);
    } else {
        IMB_AES128_GCM_PRE(manager, raw, &k->data);
    }
    return 0;
}

static int begin(struct rs_staged_side *s)
{
    const struct ipsec_mb_key *k = s->side->key;
    void *ctx = s->state;
    if (k->bits == 256) {
        IMB_AES256_GCM_INIT(manager, &k->data, ctx, s->side->iv, s->side->aad, s->side->aad_len);
    } else {
        IMB_AES128_GCM_INIT(manager, &k->data, ctx, s->side->iv, s->side->aad, s->side->aad_len);
    }
    return 0;
}

static int step(struct rs_staged_side *s, uint8_t *to, const uint8_t *from, size_t off, size_t n)
{
    const struct ipsec_mb_key *k = s->side->key;
    const IMB_MGR *m = manager;
    aes_gcm_enc_dec_update_t seal = k->bits == 256 ? m->gcm256_enc_update : m->gcm128_enc_update;
    aes_gcm_enc_dec_update_t open = k->bits == 256 ? m->gcm256_dec_update : m->gcm128_dec_update;
    (void)off;
    (s->open ? open : seal)(&k->data, (void *)s->state, to, from, n);
    return 0;
}

static int end(struct rs_staged_side *s, uint8_t tag[RS_TAG_LEN])
{
    const struct ipsec_mb_key *k = s->side->key;
    const IMB_MGR *m = manager;
    uint8_t made[RS_TAG_LEN];
    aes_gcm_enc_dec_finalize_t seal = k->bits == 256 ? m->gcm256_enc_finalize : m->gcm128_enc_finalize;
    aes_gcm_enc_dec_finalize_t open = k->bits == 256 ? m->gcm256_dec_finalize : m->gcm128_dec_finalize;
    (s->open ? open : seal)(&k->data, (void *)s->state, made, sizeof(made));
    int err = s->open && !rs_equal_ct(made, tag, sizeof(made)) ? RESEAL_EAUTH : 0;
    if (!s->open) memcpy(tag, made, sizeof(made));
    rs_wipe(made, sizeof(made));
    return err;
}

/* The library at its best, without rule 3 and without private copies: what a benchmark compares with. */
static int direct(struct rs_run *run)
{
    bool open = run->src.cipher == RS_GCM;
    struct rs_side *side = open ? &run->src : &run->dst;
    const struct ipsec_mb_key *k = side->key;
    const IMB_MGR *m = manager;
    struct gcm_context_data ctx;
    uint8_t tag[RS_TAG_LEN];
    int err = rs_run_check(run);
    if (err != 0) return err;
    aes_gcm_enc_dec_t call =
        k->bits == 256 ? (open ? m->gcm256_dec : m->gcm256_enc) : (open ? m->gcm128_dec : m->gcm128_enc);
    call(&k->data, &ctx, run->out, run->in, run->len, side->iv, side->aad, side->aad_len, tag, sizeof(tag));
    rs_wipe(&ctx, sizeof(ctx));
    if (open) return rs_equal_ct(tag, side->tag, sizeof(tag)) ? 0 : RESEAL_EAUTH;
    memcpy(side->tag, tag, sizeof(tag));
    return 0;
}

static size_t ipsec_mb_run(struct rs_run *runs, size_t n, void *scratch, unsigned flags)
{
    static const struct rs_staged_ops ops = {begin, step, end};
    bool both = n != 0 && runs[0].src.cipher == RS_GCM && runs[0].dst.cipher == RS_GCM;
    if ((flags & RS_RUN_UNVERIFIED) == 0 || both) return rs_staged_run(&ops, runs, n, scratch, flags);
    size_t failed = 0;
    for (size_t i = 0; i < n; i++) {
        runs[i].status = direct(&runs[i]);
        if (runs[i].status != 0) failed++;
    }
    return failed;
}

const struct rs_engine rs_engine_ipsec_mb = {
    .name = "ipsec_mb",
    .variant = variant,
    .probe = ipsec_mb_probe,
    .supports = ipsec_mb_supports,
    .key_size = ipsec_mb_key_size,
    .prepare = ipsec_mb_prepare,
    .run = ipsec_mb_run,
    .wipe = ipsec_mb_wipe,
};
