/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One XTS data unit by the streaming kernels of every instruction set against
 * OpenSSL: each length with and without stealing, both directions and key
 * sizes, between guard pages, at any alignment, in place and not, and tweaks
 * whose doubling carries everywhere.
 */
#include "providers/crypto/vaes/stream.h"
#include "tests/support/cmocka.h"
#include "tests/support/guarded.h"
#include "tests/support/reference.h"

#include <stdio.h>
#include <stdlib.h>

#define MAX_LEN (16u << 20)
#define EVERY   1100u /* every length up to this one */
#define MARGIN  64u   /* bytes that are watched on both sides of a buffer */
#define CANARY  0xa5

struct data_unit {
    unsigned bits;
    size_t len;
    uint8_t raw[64], tweak[16];
};

static const char *const sets[] = {"vaes-avx512", "vaes-avx2", "vaes-aesni"};

static struct guarded in_map, out_map;
static uint8_t *plain, *sealed;
static uint64_t seed = 5;
static struct rs_vaes_key key RS_ALIGNED(RS_KEY_ALIGN);

static struct data_unit unit_of(unsigned bits, size_t len)
{
    struct data_unit u = {.bits = bits, .len = len};
    reference_random(&seed, u.raw, sizeof(u.raw));
    reference_random(&seed, u.tweak, sizeof(u.tweak));
    return u;
}

static void prepare(const struct data_unit *u)
{
    rs_stream_prepare(&key, RS_STREAM_XTS, u->raw, u->bits);
    reference_xts(1, u->bits, u->raw, rs_load_le64(u->tweak), rs_load_le64(u->tweak + 8), 1, u->len, plain,
                  sealed, u->len);
}

static void one_way(const struct rs_stream *k, const struct data_unit *u, bool encrypt, uint8_t *in,
                    uint8_t *out)
{
    const uint8_t *from = encrypt ? plain : sealed, *to = encrypt ? sealed : plain;
    if (in != out) memset(out, CANARY, u->len);
    memcpy(in, from, u->len);
    (encrypt ? k->xts_encrypt : k->xts_decrypt)(&key, u->tweak, in, out, u->len);
    size_t at = 0;
    if (memcmp(out, to, u->len) == 0) at = u->len;
    while (at < u->len && out[at] == to[at]) at++;
    if (at < u->len)
        fail_msg("%s: AES-%u, %s %zu bytes%s, in %p out %p: first difference at %zu", k->name, u->bits,
                 encrypt ? "encrypting" : "decrypting", u->len, in == out ? " in place" : "", (void *)in,
                 (void *)out, at);
    if (in != out && memcmp(in, from, u->len) != 0) fail_msg("%s: wrote to its input", k->name);
}

static void both_ways(const struct rs_stream *k, const struct data_unit *u, uint8_t *in, uint8_t *out)
{
    one_way(k, u, true, in, out);
    one_way(k, u, false, in, out);
}

/* Against the guard page before and the one after, in place and not. */
static void check(const struct data_unit *u)
{
    prepare(u);
    for (unsigned i = 0; i < RS_ARRAY_LEN(sets); i++) {
        const struct rs_stream *k = rs_stream_by_name(sets[i]);
        if (k == NULL) continue;
        both_ways(k, u, guarded_at_start(&in_map), guarded_at_end(&out_map, u->len));
        both_ways(k, u, guarded_at_end(&in_map, u->len), guarded_at_start(&out_map));
        both_ways(k, u, guarded_at_start(&in_map), guarded_at_start(&in_map));
        both_ways(k, u, guarded_at_end(&in_map, u->len), guarded_at_end(&in_map, u->len));
    }
}

static void every_length(void **state)
{
    (void)state;
    for (unsigned bits = 128; bits <= 256; bits += 128)
        for (size_t len = 16; len <= EVERY; len++) {
            struct data_unit u = unit_of(bits, len);
            check(&u);
        }
}

/* All numbers of blocks in the last flight, with and without stealing, after more than one flight. */
static void longer_units(void **state)
{
    (void)state;
    for (unsigned bits = 128; bits <= 256; bits += 128) {
        for (size_t len = 4096; len <= 4096 + 768; len += 16)
            for (size_t part = 0; part < 16; part += 5) {
                struct data_unit u = unit_of(bits, len + part);
                check(&u);
            }
        for (unsigned i = 0; i < 8; i++) {
            size_t random;
            reference_random(&seed, &random, sizeof(random));
            struct data_unit u = unit_of(bits, 2000 + random % 70000);
            check(&u);
        }
        struct data_unit u = unit_of(bits, (1u << 20) + 5);
        check(&u);
    }
}

static void longest_unit(void **state)
{
    (void)state;
    struct data_unit u = unit_of(256, MAX_LEN);
    prepare(&u);
    for (unsigned i = 0; i < RS_ARRAY_LEN(sets); i++) {
        const struct rs_stream *k = rs_stream_by_name(sets[i]);
        if (k != NULL) both_ways(k, &u, guarded_at_start(&in_map), guarded_at_start(&in_map));
    }
}

static void assert_untouched(const uint8_t *p, const struct data_unit *u)
{
    for (size_t i = 0; i < MARGIN; i++)
        if (p[i] != CANARY) fail_msg("wrote beside a buffer of %zu bytes", u->len);
}

static void at_offsets(const struct rs_stream *k, const struct data_unit *u, size_t in_at, size_t out_at)
{
    uint8_t *in = guarded_at_start(&in_map) + MARGIN + in_at;
    uint8_t *out = guarded_at_start(&out_map) + MARGIN + out_at;
    memset(out - MARGIN, CANARY, u->len + 2 * MARGIN);
    both_ways(k, u, in, out);
    both_ways(k, u, out, out);
    assert_untouched(out - MARGIN, u);
    assert_untouched(out + u->len, u);
}

static void every_alignment(void **state)
{
    static const size_t lens[] = {16, 17, 31, 47, 64, 100, 511, 512, 529, 1000, 1039, 4103};
    (void)state;
    for (unsigned l = 0; l < RS_ARRAY_LEN(lens); l++) {
        struct data_unit u = unit_of(l % 2 ? 128 : 256, lens[l]);
        prepare(&u);
        for (unsigned i = 0; i < RS_ARRAY_LEN(sets); i++) {
            const struct rs_stream *k = rs_stream_by_name(sets[i]);
            for (size_t at = 0; k != NULL && at < 64; at++) at_offsets(k, &u, at, at * 29 % 64);
        }
    }
}

/* Makes `encrypted` the tweak of the unit's first block. */
static void begin_with(struct data_unit *u, const uint8_t encrypted[16])
{
    reference_block(0, u->bits, u->raw + u->bits / 8, encrypted, u->tweak);
}

/* One bit, all bits above it too, or all below it too. */
static void bits_from(uint8_t t[16], unsigned bit, unsigned how)
{
    memset(t, 0, 16);
    for (unsigned i = 0; i < 128; i++)
        if (i == bit || (how == 1 && i > bit) || (how == 2 && i < bit)) t[i / 8] |= (uint8_t)(1u << i % 8);
}

static void carries(void **state)
{
    static const size_t lens[] = {16, 31, 33, 63, 64, 65, 130, 255, 400, 513, 1040, 2065, 5000};
    (void)state;
    for (unsigned bit = 0; bit < 128; bit++)
        for (unsigned how = 0; how < 3; how++) {
            uint8_t t[16];
            bits_from(t, bit, how);
            struct data_unit u = unit_of(bit % 2 ? 128 : 256, lens[(bit + how) % RS_ARRAY_LEN(lens)]);
            begin_with(&u, t);
            check(&u);
        }
    for (unsigned l = 0; l < RS_ARRAY_LEN(lens); l++) {
        static const uint8_t all[16] = {[0 ... 15] = 0xff}, top[16] = {[15] = 0x80},
                             middle[16] = {[7] = 0x80};
        const uint8_t *const patterns[] = {all, top, middle};
        for (unsigned i = 0; i < RS_ARRAY_LEN(patterns); i++) {
            struct data_unit u = unit_of(256, lens[l]);
            begin_with(&u, patterns[i]);
            check(&u);
            memcpy(u.tweak, patterns[i], 16); /* and as a number */
            check(&u);
        }
    }
}

static int set_up(void **state)
{
    (void)state;
    guarded_map(&in_map, MAX_LEN);
    guarded_map(&out_map, MAX_LEN);
    plain = malloc(MAX_LEN);
    sealed = malloc(MAX_LEN);
    if (plain == NULL || sealed == NULL) return 1;
    reference_random(&seed, plain, MAX_LEN);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    guarded_unmap(&in_map);
    guarded_unmap(&out_map);
    free(plain);
    free(sealed);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_length),    cmocka_unit_test(longer_units), cmocka_unit_test(longest_unit),
        cmocka_unit_test(every_alignment), cmocka_unit_test(carries),
    };
    if (rs_stream_best() == NULL) {
        puts("no kernels of ours work on this CPU");
        return 77;
    }
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
