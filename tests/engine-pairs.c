/* SPDX-License-Identifier: Apache-2.0 */
/* Every engine of this machine, every pair of sides, key size and data unit that it supports, in batches, in
 * place and not, streaming and not, against two passes of OpenSSL; and what it must refuse. */
#include "providers/crypto/engine.h"
#include "reseal/reseal.h"
#include "tests/support/guarded.h"
#include "tests/support/reference.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#define RUNS 3u
#define ROOM (196608u + 64u)

static uint8_t *plain, *source, *wanted, *scratch;
static struct guarded out_map[RUNS];
static uint8_t raw[2][64], aad[RS_AAD_MAX];
static void *keys[2];

static const size_t lengths[][RUNS] = {
    {16384, 4096, 512}, {69632, 20480, 8208}, {1000, 65536, 33}, {131072, 196608, 65536}};
static const uint32_t units[][2] = {{512, 512}, {4096, 4096}, {512, 4096}, {65536, 4096}, {528, 80}};

static struct rs_side side_of(const struct rs_shape *s, unsigned which, size_t run)
{
    struct rs_side side = {.cipher = which ? s->dst : s->src, .unit = which ? s->dst_unit : s->src_unit};
    side.key = side.cipher == RS_PLAIN ? NULL : keys[which];
    side.step = 1 + 7 * which;
    side.tweak_lo = UINT64_MAX - run; /* wraps in the low half alone */
    side.tweak_hi = which;
    side.aad = aad;
    side.aad_len = (uint32_t)(run * 61);
    memset(side.iv, (int)(16 * run + which), sizeof(side.iv));
    return side;
}

static void protect(struct rs_side *side, unsigned bits, unsigned which, const uint8_t *in, uint8_t *out,
                    size_t len)
{
    if (side->cipher == RS_PLAIN) memcpy(out, in, len);
    if (side->cipher == RS_GCM)
        reference_seal(bits, raw[which], side->iv, side->aad, side->aad_len, in, out, len, side->tag);
    if (side->cipher == RS_XTS)
        reference_xts(1, bits, raw[which], side->tweak_lo, side->tweak_hi, side->step, side->unit, in, out,
                      len);
}

/* True when each length is one that the units of the shape allow. */
static bool lengths_fit(const struct rs_shape *s, const size_t *len)
{
    for (size_t i = 0; i < RUNS; i++) {
        struct rs_run run = {.len = len[i], .src = {.cipher = s->src, .unit = s->src_unit}};
        run.dst = (struct rs_side){.cipher = s->dst, .unit = s->dst_unit};
        if (rs_run_check(&run) != 0) return false;
    }
    return true;
}

static void batch(const struct rs_engine *e, const struct rs_shape *s, const size_t *len, bool in_place,
                  unsigned flags)
{
    struct rs_run runs[RUNS];
    uint8_t tags[RUNS][RS_TAG_LEN];
    for (size_t i = 0; i < RUNS; i++) {
        uint8_t *in = source + i * ROOM, *want = wanted + i * ROOM,
                *out = guarded_at_end(&out_map[i], len[i]);
        struct rs_run *r = &runs[i];
        *r = (struct rs_run){
            .in = in, .out = out, .len = len[i], .src = side_of(s, 0, i), .dst = side_of(s, 1, i)};
        protect(&r->src, s->src_bits, 0, plain + i * ROOM, in, len[i]);
        protect(&r->dst, s->dst_bits, 1, plain + i * ROOM, want, len[i]);
        memcpy(tags[i], r->dst.tag, RS_TAG_LEN);
        memset(r->dst.tag, 0, RS_TAG_LEN);
        memset(out, 0, len[i]);
        if (in_place) r->in = memcpy(out, in, len[i]);
    }
    size_t failed = e->run(runs, RUNS, scratch, flags);
    for (size_t i = 0; i < RUNS; i++) {
        const uint8_t *out = runs[i].out, *want = wanted + i * ROOM;
        bool good = failed == 0 && runs[i].status == 0 && memcmp(out, want, len[i]) == 0;
        if (s->dst == RS_GCM) good = good && memcmp(tags[i], runs[i].dst.tag, RS_TAG_LEN) == 0;
        if (good) continue;
        fail_msg("%s %u(%u,%u)->%u(%u,%u) len %zu in_place %d flags %u: run %zu status %d", e->name, s->src,
                 s->src_bits, s->src_unit, s->dst, s->dst_bits, s->dst_unit, len[i], in_place, flags, i,
                 runs[i].status);
    }
}

static void *new_key(const struct rs_engine *e, unsigned cipher, unsigned bits, const uint8_t *from)
{
    if (cipher == RS_PLAIN) return NULL;
    void *key =
        aligned_alloc(RS_KEY_ALIGN, rs_round_up(e->key_size((enum rs_cipher)cipher, bits), RS_KEY_ALIGN));
    assert_non_null(key);
    assert_int_equal(
        e->prepare(key, (enum rs_cipher)cipher, bits, from, cipher == RS_XTS ? bits / 4 : bits / 8), 0);
    return key;
}

static void with_keys(const struct rs_engine *e, struct rs_shape *s)
{
    for (size_t u = 0; u < RS_ARRAY_LEN(units); u++) {
        if (u != 0 && s->src != RS_XTS && s->dst != RS_XTS) break;
        s->src_unit = units[u][0];
        s->dst_unit = units[u][1];
        for (size_t l = 0; l < RS_ARRAY_LEN(lengths); l++) {
            if (!lengths_fit(s, lengths[l])) continue;
            batch(e, s, lengths[l], false, 0);
            batch(e, s, lengths[l], true, 0);
            batch(e, s, lengths[l], l & 1, RS_RUN_STREAM);
            batch(e, s, lengths[l], l & 1, RS_RUN_UNVERIFIED);
        }
    }
}

static void every_pair_agrees_with_openssl(void **state)
{
    (void)state;
    unsigned seen = 0;
    for (const struct rs_engine *const *e = rs_engines(); *e != NULL; e++) {
        for (unsigned i = 0; i < 36; i++) {
            struct rs_shape s = {.src = (uint8_t)(i / 12), .dst = (uint8_t)(i / 4 % 3), .len = 65536};
            s.src_bits = s.src == RS_PLAIN ? 0 : i & 1 ? 256 : 128;
            s.dst_bits = s.dst == RS_PLAIN ? 0 : i & 2 ? 256 : 128;
            s.src_unit = s.dst_unit = 512;
            if ((s.src == RS_PLAIN && (i & 1)) || (s.dst == RS_PLAIN && (i & 2)) || !(*e)->supports(&s))
                continue;
            keys[0] = new_key(*e, s.src, s.src_bits, raw[0]);
            keys[1] = new_key(*e, s.dst, s.dst_bits, raw[1]);
            with_keys(*e, &s);
            seen++;
            if (keys[0] != NULL) (*e)->wipe(keys[0], (enum rs_cipher)s.src, s.src_bits);
            if (keys[1] != NULL) (*e)->wipe(keys[1], (enum rs_cipher)s.dst, s.dst_bits);
            free(keys[0]);
            free(keys[1]);
        }
    }
    assert_true(seen >= 25); /* the portable engine alone does them all */
}

static void altered_record_leaves_its_destination_alone(void **state)
{
    (void)state;
    static const size_t len[RUNS] = {4096, 69632, 1000};
    for (const struct rs_engine *const *e = rs_engines(); *e != NULL; e++) {
        for (unsigned dst = RS_PLAIN; dst <= RS_GCM; dst++) {
            struct rs_shape s = {
                .src = RS_GCM, .dst = (uint8_t)dst, .src_bits = 256, .dst_bits = dst ? 128 : 0};
            s.dst_unit = 512;
            s.len = 65536;
            if (!(*e)->supports(&s)) continue;
            keys[0] = new_key(*e, s.src, s.src_bits, raw[0]);
            keys[1] = new_key(*e, s.dst, s.dst_bits, raw[1]);
            for (unsigned what = 0; what < 4; what++) {
                struct rs_run runs[RUNS];
                for (size_t i = 0; i < RUNS; i++) {
                    runs[i] = (struct rs_run){.in = source + i * ROOM, .out = out_map[i].page, .len = len[i]};
                    runs[i].src = side_of(&s, 0, i);
                    runs[i].dst = side_of(&s, 1, i);
                    protect(&runs[i].src, 256, 0, plain, source + i * ROOM, len[i]);
                    memset(runs[i].out, 0x5a, len[i]);
                }
                if (what == 0) runs[1].src.tag[0] ^= 1;
                if (what == 1) source[ROOM + 69631] ^= 0x80;
                if (what == 2) runs[1].src.iv[11] ^= 1;
                if (what == 3) runs[1].src.aad_len--;
                assert_int_equal((*e)->run(runs, RUNS, scratch, 0), 1);
                assert_int_equal(runs[0].status, 0);
                assert_int_equal(runs[1].status, RESEAL_EAUTH);
                assert_int_equal(runs[2].status, 0);
                for (size_t at = 0; at < len[1]; at++) assert_int_equal(runs[1].out[at], 0x5a);
            }
            for (size_t k = 0; k < 2; k++)
                if (keys[k] != NULL)
                    (*e)->wipe(keys[k], (enum rs_cipher)(k ? s.dst : s.src), k ? s.dst_bits : 256);
            free(keys[0]);
            free(keys[1]);
        }
    }
}

static void unusable_keys_are_refused(void **state)
{
    (void)state;
    uint8_t same[64];
    memset(same, 7, sizeof(same));
    for (const struct rs_engine *const *e = rs_engines(); *e != NULL; e++) {
        struct rs_shape xts = {.dst = RS_XTS, .dst_bits = 256, .dst_unit = 512, .len = 512};
        void *key = aligned_alloc(RS_KEY_ALIGN, 8192);
        assert_non_null(key);
        assert_true((*e)->key_size(RS_GCM, 256) <= 8192);
        assert_int_equal((*e)->prepare(key, RS_GCM, 256, raw[0], 31), RESEAL_EKEYBAD);
        assert_int_equal((*e)->prepare(key, RS_GCM, 128, raw[0], 32), RESEAL_EKEYBAD);
        assert_int_equal((*e)->prepare(key, RS_GCM, 192, raw[0], 24), RESEAL_EKEYBAD);
        if ((*e)->supports(&xts)) {
            assert_int_equal((*e)->prepare(key, RS_XTS, 256, same, 64), RESEAL_EKEYBAD);
            assert_int_equal((*e)->prepare(key, RS_XTS, 128, same, 32), RESEAL_EKEYBAD);
            assert_int_equal((*e)->prepare(key, RS_XTS, 128, raw[0], 33), RESEAL_EKEYBAD);
        }
        free(key);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_pair_agrees_with_openssl),
        cmocka_unit_test(altered_record_leaves_its_destination_alone),
        cmocka_unit_test(unusable_keys_are_refused),
    };
    uint64_t seed = 1;
    plain = malloc(3 * RUNS * ROOM);
    scratch = aligned_alloc(64, rs_round_up(rs_engine_scratch_size(ROOM), 64));
    if (plain == NULL || scratch == NULL) return 2;
    source = plain + RUNS * ROOM;
    wanted = source + RUNS * ROOM;
    for (size_t i = 0; i < RUNS; i++) guarded_map(&out_map[i], ROOM);
    reference_random(&seed, plain, RUNS * ROOM);
    reference_random(&seed, raw, sizeof(raw));
    reference_random(&seed, aad, sizeof(aad));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
