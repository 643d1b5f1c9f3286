/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A GCM record whose tag, AAD, ciphertext or IV is not what was sealed leaves
 * its destination as it was, to the byte, in place and not, anywhere in a
 * batch; its neighbours come out right, and the scratch keeps nothing of it.
 */
#include "providers/crypto/vaes/vaes.h"
#include "reseal/reseal.h"
#include "tests/support/reference.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#define N       3u /* records in a batch */
#define MAX_LEN 66000u

static const struct rs_engine *const variants[] = {&rs_engine_vaes_avx512, &rs_engine_vaes_avx2,
                                                   &rs_engine_aesni};
static const struct rs_engine *engine;
static void *keys[3]; /* source GCM, destination GCM, destination XTS */
static uint8_t raw[3][64], aad[20], *scratch;
static size_t scratch_len;
static uint8_t *plain, *result, *in, *out, *before;
static uint64_t seed = 7;

enum harm { TAG, AAD, CIPHERTEXT_FIRST, CIPHERTEXT_LAST, IV, HARMS };

static struct rs_side source_side(size_t i)
{
    struct rs_side s = {.cipher = RS_GCM, .key = keys[0], .aad = aad, .aad_len = sizeof(aad)};
    memset(s.iv, (int)i + 1, sizeof(s.iv));
    return s;
}

static struct rs_side destination_side(enum rs_cipher cipher, size_t i)
{
    struct rs_side s = {.cipher = (uint8_t)cipher, .unit = 512, .step = 1, .tweak_lo = i};
    if (cipher != RS_PLAIN) s.key = keys[cipher == RS_GCM ? 1 : 2];
    memset(s.iv, (int)i + 9, sizeof(s.iv));
    return s;
}

static void expect_result(const struct rs_side *d, const uint8_t *text, uint8_t *to, size_t len)
{
    uint8_t tag[RS_TAG_LEN];
    if (d->cipher == RS_PLAIN) memcpy(to, text, len);
    if (d->cipher == RS_GCM) reference_seal(256, raw[1], d->iv, NULL, 0, text, to, len, tag);
    if (d->cipher == RS_XTS)
        reference_xts(1, 256, raw[2], d->tweak_lo, d->tweak_hi, d->step, d->unit, text, to, len);
}

static void spoil(struct rs_run *r, enum harm harm, uint8_t *text, uint8_t other_aad[sizeof(aad)])
{
    memcpy(other_aad, aad, sizeof(aad));
    other_aad[19] ^= 1;
    if (harm == TAG) r->src.tag[15] ^= 0x80;
    if (harm == AAD) r->src.aad = other_aad;
    if (harm == CIPHERTEXT_FIRST) text[0] ^= 1;
    if (harm == CIPHERTEXT_LAST) text[r->len - 1] ^= 0x80;
    if (harm == IV) r->src.iv[11] ^= 1;
}

/* True when 16 bytes of `what` that are not all in the sealed text lie in the scratch. */
static bool left_in_scratch(const uint8_t *what, size_t len)
{
    if (len < 16) return false;
    for (size_t at = 0; at + 16 <= len; at += len > 2048 ? 1040 : 16)
        if (memmem(scratch, scratch_len, what + at, 16)) return true;
    return false;
}

static void check(enum rs_cipher dst, size_t len, size_t bad, enum harm harm, bool in_place)
{
    struct rs_run runs[N];
    uint8_t other_aad[sizeof(aad)];
    for (size_t i = 0; i < N; i++) {
        uint8_t *text = in + i * MAX_LEN, *to = in_place ? text : out + i * MAX_LEN;
        runs[i] = (struct rs_run){.in = text, .out = to, .len = len};
        runs[i].src = source_side(i);
        runs[i].dst = destination_side(dst, i);
        reference_seal(256, raw[0], runs[i].src.iv, aad, sizeof(aad), plain + i * MAX_LEN, text, len,
                       runs[i].src.tag);
        expect_result(&runs[i].dst, plain + i * MAX_LEN, result + i * MAX_LEN, len);
        if (i == bad) spoil(&runs[i], harm, text, other_aad);
        if (!in_place) memset(to, 0xd5, len);
    }
    memcpy(before, runs[bad].out, len);
    memset(scratch, 0xee, scratch_len);
    if (engine->run(runs, N, scratch, 0) != 1) fail_msg("%s: not one failure", engine->variant);
    for (size_t i = 0; i < N; i++) {
        if (i == bad) {
            assert_int_equal(runs[i].status, RESEAL_EAUTH);
            assert_memory_equal(runs[i].out, before, len);
        } else {
            assert_int_equal(runs[i].status, 0);
            assert_memory_equal(runs[i].out, result + i * MAX_LEN, len);
        }
    }
    if (left_in_scratch(plain + bad * MAX_LEN, len))
        fail_msg("%s: plaintext in the scratch", engine->variant);
    if (left_in_scratch(result + bad * MAX_LEN, len)) fail_msg("%s: result in the scratch", engine->variant);
}

static void each(void (*test)(enum rs_cipher dst))
{
    for (size_t i = 0; i < RS_ARRAY_LEN(variants); i++) {
        engine = variants[i];
        if (engine->probe() != 0) {
            print_message("%s: not on this CPU\n", engine->variant);
            continue;
        }
        for (enum rs_cipher dst = RS_PLAIN; dst <= RS_GCM; dst++) test(dst);
    }
}

static void wrong(enum rs_cipher dst)
{
    static const size_t lengths[] = {16, 1000, 4096, 5136, 16384, 65536};
    for (size_t k = 0; k < RS_ARRAY_LEN(lengths); k++) {
        size_t len = dst == RS_XTS && lengths[k] == 1000 ? 1024 : lengths[k];
        for (enum harm harm = TAG; harm < HARMS; harm++)
            for (size_t bad = 0; bad < N; bad++) check(dst, len, bad, harm, (harm + bad) % 2 == 0);
        check(dst, len, 0, CIPHERTEXT_LAST, true);
        check(dst, len, 0, CIPHERTEXT_LAST, false);
    }
}

static void every_short_length(enum rs_cipher dst)
{
    for (size_t len = dst == RS_XTS ? 16 : 1; len <= 2200; len += dst == RS_XTS ? 16 : 7) {
        if (dst == RS_XTS && len % 512 != 0 && len % 512 < 16) continue;
        check(dst, len, len % N, (enum harm)(len / 16 % HARMS), len % 2 == 0);
    }
}

/* Every bit of the tag counts. */
static void every_bit(enum rs_cipher dst)
{
    struct rs_run r = {
        .in = in, .out = out, .len = 64, .src = source_side(0), .dst = destination_side(dst, 0)};
    uint8_t tag[RS_TAG_LEN];
    reference_seal(256, raw[0], r.src.iv, aad, sizeof(aad), plain, in, r.len, tag);
    for (unsigned bit = 0; bit < 8 * RS_TAG_LEN; bit++) {
        memcpy(r.src.tag, tag, RS_TAG_LEN);
        r.src.tag[bit / 8] ^= (uint8_t)(1u << bit % 8);
        memset(out, 0xd5, r.len);
        memset(before, 0xd5, r.len);
        assert_int_equal(engine->run(&r, 1, scratch, 0), 1);
        assert_int_equal(r.status, RESEAL_EAUTH);
        assert_memory_equal(out, before, r.len);
    }
}

static void test_wrong(void **state)
{
    (void)state;
    each(wrong);
}
static void test_every_short_length(void **state)
{
    (void)state;
    each(every_short_length);
}
static void test_every_bit(void **state)
{
    (void)state;
    each(every_bit);
}

static void *room(size_t len)
{
    void *p = aligned_alloc(RS_KEY_ALIGN, rs_round_up(len, RS_KEY_ALIGN));
    if (!p) exit(2);
    return p;
}

static int set_up(void **state)
{
    (void)state;
    const struct rs_engine *e = &rs_engine_aesni;
    scratch_len = rs_engine_scratch_size(MAX_LEN);
    scratch = room(scratch_len);
    uint8_t **all[] = {&plain, &result, &in, &out, &before};
    for (size_t i = 0; i < RS_ARRAY_LEN(all); i++) *all[i] = room(N * MAX_LEN + 64);
    reference_random(&seed, plain, N * MAX_LEN);
    reference_random(&seed, raw, sizeof(raw));
    reference_random(&seed, aad, sizeof(aad));
    for (int i = 0; i < 3; i++) {
        enum rs_cipher cipher = i == 2 ? RS_XTS : RS_GCM;
        keys[i] = room(e->key_size(cipher, 256));
        if (e->prepare(keys[i], cipher, 256, raw[i], i == 2 ? 64 : 32) != 0) return -1;
    }
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wrong),
        cmocka_unit_test(test_every_short_length),
        cmocka_unit_test(test_every_bit),
    };
    if (rs_engine_aesni.probe() != 0) {
        printf("no AES-NI on this CPU\n");
        return 77;
    }
    return cmocka_run_group_tests(tests, set_up, NULL);
}
