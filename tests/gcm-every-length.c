/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The GCM kernels of every instruction set, and every pair with a GCM side,
 * against OpenSSL: each length, alignment and tail, between guard pages, in
 * place and not.
 */
#include "providers/crypto/vaes/vaes.h"
#include "reseal/reseal.h"
#include "tests/support/guarded.h"
#include "tests/support/reference.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#define MAX_LEN RS_RECORD_MAX
#define SHORT   4200u
#define RAW_LEN 64u

struct key_set {
    uint8_t raw[2][RAW_LEN]; /* [source, destination] */
    void *prepared[2][2][3]; /* [source, destination][128, 256][plain, XTS, GCM] */
};

static const struct rs_engine *const variants[] = {&rs_engine_vaes_avx512, &rs_engine_vaes_avx2,
                                                   &rs_engine_aesni};
static const struct rs_engine *engine; /* the one under test */
static struct key_set keys;
static struct guarded in_map, out_map;
static uint8_t *scratch, *plain, *source, *expected, aad[4096];
static uint64_t seed = 42;

/* One comparison: sides, lengths and where the buffers lie. */
struct spec {
    enum rs_cipher src, dst;
    unsigned src_bits, dst_bits;
    uint32_t src_unit, dst_unit;
    size_t len, aad_len;
    unsigned flags;
};

struct answer {
    struct rs_side src, dst;
};

static struct rs_side side_of(const struct spec *s, int which)
{
    enum rs_cipher cipher = which ? s->dst : s->src;
    unsigned bits = which ? s->dst_bits : s->src_bits;
    struct rs_side side = {.cipher = (uint8_t)cipher};
    if (cipher == RS_PLAIN) return side;
    side.key = keys.prepared[which][bits / 256][cipher];
    side.aad = s->aad_len ? aad + which : NULL;
    side.aad_len = cipher == RS_GCM ? (uint32_t)s->aad_len : 0;
    side.unit = which ? s->dst_unit : s->src_unit;
    side.step = 1 + (uint64_t)which * 7;
    side.tweak_lo = UINT64_MAX - 3; /* wraps in the low half alone */
    side.tweak_hi = (uint64_t)which;
    memset(side.iv, 0x21 + which, sizeof(side.iv));
    return side;
}

static void protect(const struct rs_side *side, unsigned bits, int which, const uint8_t *in, uint8_t *out,
                    size_t len, uint8_t tag[16])
{
    const uint8_t *raw = keys.raw[which];
    if (side->cipher == RS_PLAIN) memcpy(out, in, len);
    if (side->cipher == RS_GCM)
        reference_seal(bits, raw, side->iv, side->aad, side->aad_len, in, out, len, tag);
    if (side->cipher == RS_XTS)
        reference_xts(1, bits, raw, side->tweak_lo, side->tweak_hi, side->step, side->unit, in, out, len);
}

/* Fills source[] and expected[] from plain[]. */
static struct answer answer_of(const struct spec *s)
{
    struct answer a = {side_of(s, 0), side_of(s, 1)};
    protect(&a.src, s->src_bits, 0, plain, source, s->len, a.src.tag);
    protect(&a.dst, s->dst_bits, 1, plain, expected, s->len, a.dst.tag);
    return a;
}

static void compare(const struct spec *s, const struct answer *a, const struct rs_run *r)
{
    bool tag_ok = s->dst != RS_GCM || memcmp(r->dst.tag, a->dst.tag, RS_TAG_LEN) == 0;
    if (r->status == 0 && tag_ok && memcmp(r->out, expected, s->len) == 0) return;
    size_t at = 0;
    while (at < s->len && r->out[at] == expected[at]) at++;
    fail_msg("%s: %u/%u (unit %u) to %u/%u (unit %u), %zu bytes, aad %zu, in %p, out %p, flags %u: status "
             "%d, tag %s, "
             "first difference at %zu",
             engine->variant, s->src, s->src_bits, s->src_unit, s->dst, s->dst_bits, s->dst_unit, s->len,
             s->aad_len, (const void *)r->in, (void *)r->out, s->flags, r->status, tag_ok ? "right" : "wrong",
             at);
}

/* Runs from `in` (gets a copy of the source) to `out` and compares. */
static void check_at(const struct spec *s, const struct answer *a, uint8_t *in, uint8_t *out)
{
    struct rs_run r = {.in = in, .out = out, .len = s->len, .src = a->src, .dst = a->dst, .status = 1};
    memset(r.dst.tag, 0, RS_TAG_LEN);
    memcpy(in, source, s->len);
    if (in != out) memset(out, 0xee, s->len);
    size_t failed = engine->run(&r, 1, scratch, s->flags);
    if (failed != 0 && r.status == 0) fail_msg("count of failures");
    compare(s, a, &r);
    if (in != out && memcmp(in, source, s->len) != 0) fail_msg("%s: wrote to its input", engine->variant);
}

static void check(const struct spec *s)
{
    struct answer a = answer_of(s);
    check_at(s, &a, guarded_at_end(&in_map, s->len), guarded_at_end(&out_map, s->len));
    check_at(s, &a, guarded_at_start(&in_map), guarded_at_start(&out_map));
    check_at(s, &a, guarded_at_end(&in_map, s->len), guarded_at_start(&out_map));
    check_at(s, &a, guarded_at_end(&in_map, s->len), guarded_at_end(&in_map, s->len));
}

/* Every instruction set on this machine. */
static void each_variant(void (*test)(void))
{
    for (size_t i = 0; i < RS_ARRAY_LEN(variants); i++) {
        engine = variants[i];
        if (engine->probe() != 0) {
            print_message("%s: not on this CPU\n", engine->variant);
            continue;
        }
        test();
    }
}

static const struct spec gcm_pairs[] = {
    {.src = RS_PLAIN, .dst = RS_GCM},
    {.src = RS_GCM, .dst = RS_PLAIN},
    {.src = RS_GCM, .dst = RS_GCM},
};

static void bits_of(struct spec *s, unsigned mask)
{
    s->src_bits = s->src == RS_PLAIN ? 0 : mask & 1 ? 256 : 128;
    s->dst_bits = s->dst == RS_PLAIN ? 0 : mask & 2 ? 256 : 128;
}

static bool useful(const struct spec *s, unsigned mask)
{
    return !(s->src == RS_PLAIN && (mask & 1)) && !(s->dst == RS_PLAIN && (mask & 2));
}

static void short_records(void)
{
    for (size_t p = 0; p < RS_ARRAY_LEN(gcm_pairs); p++) {
        for (unsigned mask = 0; mask < 4; mask++) {
            struct spec s = gcm_pairs[p];
            if (!useful(&s, mask)) continue;
            bits_of(&s, mask);
            for (s.len = 1; s.len <= SHORT; s.len++) {
                s.aad_len = s.len % (RS_AAD_MAX + 1);
                check(&s);
            }
        }
    }
}

/* Around the places where the kernels change their ways, and anywhere. */
static void long_records(void)
{
    static const size_t lengths[] = {16383, 16384, 16385, 20480,       32768 - 32,
                                     65536, 65552, 70000, MAX_LEN - 1, MAX_LEN};
    for (size_t p = 0; p < RS_ARRAY_LEN(gcm_pairs); p++) {
        for (unsigned i = 0; i < RS_ARRAY_LEN(lengths) + 6; i++) {
            struct spec s = gcm_pairs[p];
            uint32_t random;
            bits_of(&s, i);
            reference_random(&seed, &random, sizeof(random));
            s.len = i < RS_ARRAY_LEN(lengths) ? lengths[i] : SHORT + random % (MAX_LEN - SHORT);
            s.aad_len = random % 3 == 0 ? 3000 : random % 100;
            s.flags = i % 2 ? RS_RUN_STREAM : 0;
            check(&s);
        }
    }
}

static void alignments(void)
{
    static const size_t lengths[] = {1, 17, 512, 1500, 4096, 17000};
    for (size_t p = 0; p < RS_ARRAY_LEN(gcm_pairs); p++) {
        for (unsigned i = 0; i < RS_ARRAY_LEN(lengths); i++) {
            struct spec s = gcm_pairs[p];
            bits_of(&s, 3);
            s.len = lengths[i];
            struct answer a = answer_of(&s);
            for (unsigned at = 0; at < 64; at++) {
                s.flags = at % 3 == 0 ? RS_RUN_STREAM : at % 3 == 1 ? RS_RUN_UNVERIFIED : 0;
                check_at(&s, &a, in_map.page + at, out_map.page + (at * 5 + 3) % 64);
                check_at(&s, &a, in_map.page + at, in_map.page + at);
            }
        }
    }
}

static const struct spec xts_pairs[] = {
    {.src = RS_XTS, .dst = RS_GCM},
    {.src = RS_GCM, .dst = RS_XTS},
};

/* A last unit of less than a block has no meaning. */
static bool whole(size_t len, size_t unit)
{
    return len >= 16 && (len % unit == 0 || len % unit >= 16);
}

static void xts_units(void)
{
    static const uint32_t units[] = {16, 48, 512, 528, 1024, 1536, 4096, 65536};
    for (size_t p = 0; p < RS_ARRAY_LEN(xts_pairs); p++) {
        for (unsigned i = 0; i < RS_ARRAY_LEN(units); i++) {
            struct spec s = xts_pairs[p];
            s.src_unit = s.dst_unit = units[i];
            for (s.len = 16; s.len <= SHORT; s.len += s.len % 16 == 0 && i % 2 ? 16 : 1) {
                if (!whole(s.len, units[i])) continue;
                bits_of(&s, (unsigned)(s.len / 16) + i);
                s.aad_len = s.len % 40;
                check(&s);
            }
        }
    }
}

static void xts_long(void)
{
    static const struct {
        uint32_t unit;
        size_t len;
    } cases[] = {{512, 16384},        {512, 65536},    {512, 17 * 512}, {4096, 65536},
                 {4096, 32768 + 512}, {1024, MAX_LEN}, {512, 131072},   {65536, 262144},
                 {4096, 69632},       {2560, 25600},   {12800, 64000},  {4096, 65536 + 31}};
    for (size_t p = 0; p < RS_ARRAY_LEN(xts_pairs); p++) {
        for (unsigned i = 0; i < 4 * RS_ARRAY_LEN(cases); i++) {
            struct spec s = xts_pairs[p];
            s.src_unit = s.dst_unit = cases[i / 4].unit;
            s.len = cases[i / 4].len;
            s.flags = i % 3 == 0 ? RS_RUN_STREAM : 0;
            bits_of(&s, i);
            check(&s);
        }
    }
}

static void xts_alignments(void)
{
    for (size_t p = 0; p < RS_ARRAY_LEN(xts_pairs); p++) {
        for (uint32_t unit = 512; unit <= 4096; unit *= 2) {
            struct spec s = xts_pairs[p];
            bits_of(&s, 3);
            s.src_unit = s.dst_unit = unit;
            s.len = 8192 + 512;
            struct answer a = answer_of(&s);
            for (unsigned at = 0; at < 64; at++) {
                s.flags = at % 3 == 0 ? RS_RUN_STREAM : at % 3 == 1 ? RS_RUN_UNVERIFIED : 0;
                check_at(&s, &a, in_map.page + at, out_map.page + (at * 5 + 3) % 64);
                check_at(&s, &a, in_map.page + at, in_map.page + at);
            }
        }
    }
}

/* A batch: records of falling and rising length, so that the copy of one is longer and shorter than the next.
 */
static void batches(void)
{
    enum { N = 6 };
    static const size_t lengths[N] = {5000, 40960, 100, 17408, 65536, 2048};
    for (enum rs_cipher dst = RS_PLAIN; dst <= RS_GCM; dst++) {
        struct rs_run runs[N];
        struct answer a[N];
        uint8_t *want = malloc(N * 65536), *buf = malloc(N * 65536);
        assert_true(want && buf);
        for (int i = 0; i < N; i++) {
            struct spec s = {.src = RS_GCM, .dst = dst, .dst_unit = 512, .len = lengths[i]};
            bits_of(&s, 3);
            a[i] = answer_of(&s);
            memcpy(buf + i * 65536, source, s.len);
            memcpy(want + i * 65536, expected, s.len);
            runs[i] = (struct rs_run){.in = buf + i * 65536, .out = buf + i * 65536, .len = s.len};
            runs[i].src = a[i].src;
            runs[i].dst = a[i].dst;
        }
        assert_int_equal(engine->run(runs, N, scratch, 0), 0);
        for (int i = 0; i < N; i++) {
            assert_memory_equal(runs[i].out, want + i * 65536, lengths[i]);
            if (dst == RS_GCM) assert_memory_equal(runs[i].dst.tag, a[i].dst.tag, RS_TAG_LEN);
        }
        free(want);
        free(buf);
    }
}

static void test_short_records(void **state)
{
    (void)state;
    each_variant(short_records);
}
static void test_long_records(void **state)
{
    (void)state;
    each_variant(long_records);
}
static void test_alignments(void **state)
{
    (void)state;
    each_variant(alignments);
}
static void test_xts_units(void **state)
{
    (void)state;
    each_variant(xts_units);
}
static void test_xts_long(void **state)
{
    (void)state;
    each_variant(xts_long);
}
static void test_xts_alignments(void **state)
{
    (void)state;
    each_variant(xts_alignments);
}
static void test_batches(void **state)
{
    (void)state;
    each_variant(batches);
}

static int set_up(void **state)
{
    (void)state;
    const struct rs_engine *e = &rs_engine_aesni;
    if (e->probe() != 0) {
        printf("no AES-NI on this CPU\n");
        exit(77);
    }
    guarded_map(&in_map, MAX_LEN + 64);
    guarded_map(&out_map, MAX_LEN + 64);
    scratch = aligned_alloc(RS_KEY_ALIGN, rs_engine_scratch_size(MAX_LEN));
    plain = malloc(MAX_LEN);
    source = malloc(MAX_LEN + 16);
    expected = malloc(MAX_LEN + 16);
    if (!scratch || !plain || !source || !expected) return -1;
    reference_random(&seed, plain, MAX_LEN);
    reference_random(&seed, aad, sizeof(aad));
    reference_random(&seed, keys.raw, sizeof(keys.raw));
    for (int which = 0; which < 2; which++) {
        for (unsigned big = 0; big < 2; big++) {
            for (enum rs_cipher c = RS_XTS; c <= RS_GCM; c++) {
                unsigned bits = big ? 256 : 128;
                void *k = aligned_alloc(RS_KEY_ALIGN, rs_round_up(e->key_size(c, bits), RS_KEY_ALIGN));
                if (!k || e->prepare(k, c, bits, keys.raw[which], c == RS_XTS ? bits / 4 : bits / 8) != 0)
                    return -1;
                keys.prepared[which][big][c] = k;
            }
        }
    }
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_short_records), cmocka_unit_test(test_long_records),
        cmocka_unit_test(test_alignments),    cmocka_unit_test(test_xts_units),
        cmocka_unit_test(test_xts_long),      cmocka_unit_test(test_xts_alignments),
        cmocka_unit_test(test_batches),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
