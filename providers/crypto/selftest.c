/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/crypto/selftest.h"

#include "reseal/reseal.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- published vectors ---------------------------------------------------- */

struct vector {
    uint8_t cipher;
    uint16_t bits;
    const char *key, *iv, *aad, *plain, *sealed, *tag;
};

#define GCM_PLAIN                                                                                            \
    "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aed" \
    "f5aa0d"                                                                                                 \
    "e657ba637b39"
#define GCM_KEY "feffe9928665731c6d6a8f9467308308"
#define GCM_AAD "feedfacedeadbeeffeedfacedeadbeefabaddad2"

static const struct vector vectors[] = {
    /* IEEE 1619-2007, vectors 2, 15 (a stolen tail) and 10 (its first 64 bytes) */
    {RS_XTS, 128, "1111111111111111111111111111111122222222222222222222222222222222", "3333333333", "",
     "4444444444444444444444444444444444444444444444444444444444444444",
     "c454185e6a16936e39334038acef838bfb186fff7480adc4289382ecd6d394f0", ""},
    {RS_XTS, 128, "fffefdfcfbfaf9f8f7f6f5f4f3f2f1f0bfbebdbcbbbab9b8b7b6b5b4b3b2b1b0", "9a78563412", "",
     "000102030405060708090a0b0c0d0e0f10", "6c1625db4671522d3d7599601de7ca09ed", ""},
    {RS_XTS, 256,
     "2718281828459045235360287471352662497757247093699959574966967627"
     "3141592653589793238462643383279502884197169399375105820974944592",
     "ff", "",
     "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
     "202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f",
     "1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b"
     "5d31e276f8fe4a8d66b317f9ac683f44680a86ac35adfc3345befecb4bb188fd",
     ""},
    /* The Galois/Counter Mode of Operation, test cases 4 and 16 */
    {RS_GCM, 128, GCM_KEY, "cafebabefacedbaddecaf888", GCM_AAD, GCM_PLAIN,
     "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e21d514b25466931c7d8f6a5aac84aa051ba30b3"
     "96a0a"
     "ac973d58e091",
     "5bc94fbc3221a5db94fae95ae7121a47"},
    {RS_GCM, 256, GCM_KEY GCM_KEY, "cafebabefacedbaddecaf888", GCM_AAD, GCM_PLAIN,
     "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6"
     "393ba"
     "7a0abcc9f662",
     "76fc6ece0f4e1768cddf8853bb2d551b"},
};

static size_t unhex(uint8_t *out, const char *hex)
{
    size_t n = strlen(hex) / 2;
    return rs_unhex(hex, out, n) ? n : 0;
}

/* ---- what a test works with ----------------------------------------------- */

#define RUNS   3u
#define LARGE  20480u
#define MARGIN 64u

/* A stolen tail; a record that is long enough for every fast path; a short one after it. */
static const size_t lengths[RUNS] = {531, LARGE, 4096};

struct test {
    const struct rs_engine *engine, *reference;
    const char *fail;
    struct rs_shape shape;
    bool spoil;                            /* this pair is to fail on purpose */
    void *keys[2];                         /* of the engine: source, destination */
    void *reference_keys[2];               /* of the reference */
    uint8_t *plain, *input, *expect, *out; /* RUNS buffers of LARGE + MARGIN each */
    uint8_t *scratch;
    struct rs_side sides[RUNS][2]; /* with the tags of the input and of the expected output */
};

static uint8_t *slot(uint8_t *base, size_t i)
{
    return base + i * (LARGE + MARGIN);
}

static void *room(size_t len)
{
    return aligned_alloc(RS_KEY_ALIGN, rs_round_up(RS_MAX(len, 1u), RS_KEY_ALIGN));
}

const char *rs_cipher_name(unsigned cipher)
{
    static const char *const names[] = {"plain", "xts", "gcm"};
    return cipher < RS_ARRAY_LEN(names) ? names[cipher] : "?";
}

static void pair_name(const struct rs_shape *shape, char *name, size_t len)
{
    snprintf(name, len, "%s-%s", rs_cipher_name(shape->src), rs_cipher_name(shape->dst));
}

static bool spoiled(const char *fail, const struct rs_shape *shape)
{
    char name[16];
    pair_name(shape, name, sizeof(name));
    return fail != NULL && (*fail == '\0' || strcmp(fail, name) == 0);
}

static int new_key(const struct rs_engine *engine, void **key, unsigned cipher, unsigned bits,
                   const uint8_t *raw)
{
    *key = NULL;
    if (cipher == RS_PLAIN) return 0;
    void *made = room(engine->key_size((enum rs_cipher)cipher, bits));
    if (made == NULL) return RESEAL_ENOMEM;
    int err =
        engine->prepare(made, (enum rs_cipher)cipher, bits, raw, cipher == RS_XTS ? bits / 4 : bits / 8);
    if (err != 0) {
        free(made);
    } else {
        *key = made;
    }
    return err;
}

static void end_key(const struct rs_engine *engine, void **key, unsigned cipher, unsigned bits)
{
    if (*key == NULL) return;
    engine->wipe(*key, (enum rs_cipher)cipher, bits);
    free(*key);
    *key = NULL;
}

/* ---- published vectors, both ways ----------------------------------------- */

/* 0 when `run` gives `want` (and the tag). */
static int answers(const struct rs_engine *engine, struct rs_run *run, const uint8_t *want,
                   const uint8_t *tag, void *scratch)
{
    bool seals = run->dst.cipher != RS_PLAIN;
    if (engine->run(run, 1, scratch, 0) != 0 || run->status != 0) return RESEAL_ESELFTEST;
    if (memcmp(run->out, want, run->len) != 0) return RESEAL_ESELFTEST;
    if (seals && run->dst.cipher == RS_GCM && memcmp(run->dst.tag, tag, RS_TAG_LEN) != 0)
        return RESEAL_ESELFTEST;
    return 0;
}

static int vector_both_ways(struct test *t, const struct vector *v)
{
    uint8_t raw[64], iv[16] = {0}, aad[32], plain[64], sealed[64], tag[16], out[64];
    struct rs_side side = {.cipher = v->cipher, .key = NULL, .aad = aad, .unit = 64},
                   none = {.cipher = RS_PLAIN};
    unhex(raw, v->key);
    unhex(iv, v->iv);
    side.aad_len = (uint32_t)unhex(aad, v->aad);
    size_t len = unhex(plain, v->plain);
    unhex(sealed, v->sealed);
    unhex(tag, v->tag);
    memcpy(side.iv, iv, sizeof(side.iv));
    memcpy(side.tag, tag, sizeof(side.tag));
    side.tweak_lo = rs_load_le64(iv);
    void *key;
    int err = new_key(t->engine, &key, v->cipher, v->bits, raw);
    if (err != 0) return err;
    side.key = key;
    struct rs_run seal = {.in = plain, .out = out, .len = len, .src = none, .dst = side};
    struct rs_run open = {.in = sealed, .out = out, .len = len, .src = side, .dst = none};
    struct rs_shape shape = {.dst = v->cipher, .dst_bits = v->bits, .dst_unit = 64, .len = (uint32_t)len};
    if (spoiled(t->fail, &shape)) sealed[0] ^= 1;
    memset(seal.dst.tag, 0, RS_TAG_LEN);
    err = answers(t->engine, &seal, sealed, tag, t->scratch);
    if (err == 0) err = answers(t->engine, &open, plain, tag, t->scratch);
    end_key(t->engine, &key, v->cipher, v->bits);
    return err;
}

static int published(struct test *t, char *why, size_t why_len)
{
    for (size_t i = 0; i < RS_ARRAY_LEN(vectors); i++) {
        const struct vector *v = &vectors[i];
        struct rs_shape shape = {.dst = v->cipher, .dst_bits = v->bits, .dst_unit = 64, .len = 64};
        if (!t->engine->supports(&shape)) continue;
        int err = vector_both_ways(t, v);
        if (err == 0) continue;
        snprintf(why, why_len, "selftest failed: %s %u, published vector %zu", rs_cipher_name(v->cipher),
                 v->bits, i);
        return err;
    }
    return 0;
}

/* ---- pairs ----------------------------------------------------------------- */

static void describe_sides(struct test *t)
{
    static const uint8_t aad[] = "additional data";
    const unsigned ciphers[2] = {t->shape.src, t->shape.dst},
                   units[2] = {t->shape.src_unit, t->shape.dst_unit};
    for (size_t i = 0; i < RUNS; i++) {
        for (size_t k = 0; k < 2; k++) {
            struct rs_side *s = &t->sides[i][k];
            *s = (struct rs_side){.cipher = (uint8_t)ciphers[k], .unit = units[k], .step = units[k] / 512u};
            s->tweak_lo = i == 0 ? UINT64_MAX : 1000 * i + k; /* the first run's tweak wraps */
            s->tweak_hi = i;
            s->aad = aad;
            s->aad_len = (uint32_t)(5 * i);
            memset(s->iv, (int)(16 * i + k + 1), sizeof(s->iv));
        }
    }
}

/* Input and expectation, both sealed from the plaintext by the reference. */
static int expectations(struct test *t)
{
    describe_sides(t);
    for (size_t i = 0; i < RUNS; i++) {
        for (size_t k = 0; k < 2; k++) {
            uint8_t *to = slot(k == 0 ? t->input : t->expect, i);
            struct rs_run run = {
                .in = slot(t->plain, i), .out = to, .len = lengths[i], .dst = t->sides[i][k]};
            run.dst.key = t->reference_keys[k];
            if (run.dst.cipher == RS_PLAIN) {
                memcpy(to, run.in, run.len);
            } else if (t->reference->run(&run, 1, t->scratch, 0) != 0) {
                return RESEAL_ESELFTEST;
            }
            memcpy(t->sides[i][k].tag, run.dst.tag, RS_TAG_LEN);
        }
    }
    if (t->spoil) slot(t->expect, 1)[LARGE - 1] ^= 0x80;
    return 0;
}

static int compare(struct test *t, bool in_place, size_t wrong)
{
    struct rs_run runs[RUNS];
    memset(t->out, 0xa5, RUNS * (LARGE + MARGIN));
    for (size_t i = 0; i < RUNS; i++) {
        runs[i] = (struct rs_run){.in = slot(t->input, i), .out = slot(t->out, i), .len = lengths[i]};
        if (in_place) runs[i].in = memcpy(runs[i].out, runs[i].in, lengths[i]);
        runs[i].src = t->sides[i][0];
        runs[i].dst = t->sides[i][1];
        runs[i].src.key = t->keys[0];
        runs[i].dst.key = t->keys[1];
        memset(runs[i].dst.tag, 0, RS_TAG_LEN);
        if (i == wrong) runs[i].src.tag[15] ^= 1;
    }
    if (t->engine->run(runs, RUNS, t->scratch, 0) != (wrong < RUNS)) return RESEAL_ESELFTEST;
    for (size_t i = 0; i < RUNS; i++) {
        uint8_t *out = slot(t->out, i), *want = slot(t->expect, i);
        if (runs[i].status != (i == wrong ? RESEAL_EAUTH : 0)) return RESEAL_ESELFTEST;
        size_t good = i == wrong ? 0 : lengths[i];
        if (memcmp(out, want, good) != 0) return RESEAL_ESELFTEST;
        for (size_t at = good; at < LARGE + MARGIN; at++)
            if (out[at] != 0xa5) return RESEAL_ESELFTEST;
        if (i == wrong || t->shape.dst != RS_GCM) continue;
        if (memcmp(runs[i].dst.tag, t->sides[i][1].tag, RS_TAG_LEN) != 0) return RESEAL_ESELFTEST;
    }
    return 0;
}

static int pair_with_units(struct test *t, uint32_t src_unit, uint32_t dst_unit, bool in_place)
{
    t->shape.src_unit = src_unit;
    t->shape.dst_unit = dst_unit;
    int err = expectations(t);
    if (err == 0) err = compare(t, in_place, RUNS);
    if (err == 0 && t->shape.src == RS_GCM && !in_place) err = compare(t, false, 1);
    return err;
}

static int pair_at_bits(struct test *t)
{
    uint8_t raw[2][64];
    for (size_t i = 0; i < sizeof(raw); i++) raw[i / 64][i % 64] = (uint8_t)(3 * i + 1);
    const unsigned ciphers[2] = {t->shape.src, t->shape.dst},
                   bits[2] = {t->shape.src_bits, t->shape.dst_bits};
    int err = 0;
    for (size_t k = 0; err == 0 && k < 2; k++) {
        err = new_key(t->engine, &t->keys[k], ciphers[k], bits[k], raw[k]);
        if (err == 0) err = new_key(t->reference, &t->reference_keys[k], ciphers[k], bits[k], raw[k]);
    }
    if (err == 0) err = pair_with_units(t, 512, 512, false);
    if (err == 0) err = pair_with_units(t, 4096, 4096, true);
    if (err == 0 && t->shape.src == RS_XTS && t->shape.dst == RS_XTS) {
        err = pair_with_units(t, 512, 4096, false);
        if (err == 0) err = pair_with_units(t, 4096, 512, true);
    }
    for (size_t k = 0; k < 2; k++) {
        end_key(t->engine, &t->keys[k], ciphers[k], bits[k]);
        end_key(t->reference, &t->reference_keys[k], ciphers[k], bits[k]);
    }
    return err;
}

static int pairs(struct test *t, char *why, size_t why_len)
{
    for (unsigned i = 0; i < 3 * 3 * 2 * 2; i++) {
        struct rs_shape s = {.src = (uint8_t)(i / 4 / 3), .dst = (uint8_t)(i / 4 % 3), .len = LARGE};
        s.src_bits = (uint16_t)(s.src == RS_PLAIN ? 0 : 128 << (i & 1));
        s.dst_bits = (uint16_t)(s.dst == RS_PLAIN ? 0 : 128 << (i >> 1 & 1));
        s.src_unit = s.dst_unit = 512;
        bool seen = (s.src == RS_PLAIN && (i & 1)) || (s.dst == RS_PLAIN && (i & 2));
        if (seen || (s.src == RS_PLAIN && s.dst == RS_PLAIN) || !t->engine->supports(&s)) continue;
        t->shape = s;
        t->spoil = spoiled(t->fail, &s);
        int err = pair_at_bits(t);
        if (err == 0) continue;
        char name[16];
        pair_name(&s, name, sizeof(name));
        snprintf(why, why_len, "selftest failed: %s %u/%u", name, s.src_bits, s.dst_bits);
        return err;
    }
    return 0;
}

int rs_selftest(const struct rs_engine *engine, const struct rs_engine *reference, const char *fail,
                char *why, size_t why_len)
{
    struct test t = {.engine = engine, .reference = reference, .fail = fail};
    size_t size = RUNS * (LARGE + MARGIN);
    uint8_t *memory = room(4 * size + rs_engine_scratch_size(LARGE));
    snprintf(why, why_len, "selftest failed: no memory");
    if (memory == NULL) return RESEAL_ENOMEM;
    t.scratch = memory; /* first: it wants the alignment */
    t.plain = memory + rs_engine_scratch_size(LARGE);
    t.input = t.plain + size;
    t.expect = t.input + size;
    t.out = t.expect + size;
    for (size_t i = 0; i < size; i++) t.plain[i] = (uint8_t)((i * 2654435761u) >> 13);
    int err = published(&t, why, why_len);
    if (err == 0) err = pairs(&t, why, why_len);
    if (err == 0 && why_len != 0) why[0] = '\0';
    free(memory);
    return err;
}
