/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The streaming CTR kernels of every instruction set against OpenSSL: each
 * length, any pieces and key sizes, between guard pages, in place and not,
 * and counters that carry into any of their bytes.
 */
#include "providers/crypto/vaes/stream.h"
#include "tests/support/cmocka.h"
#include "tests/support/guarded.h"
#include "tests/support/reference.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>

#define MAX_LEN (1u << 18)
#define EVERY   1100u /* every length up to this one */

enum pieces { WHOLE, SMALL, MIXED, PIECES };

struct message {
    unsigned bits;
    size_t len;
    uint8_t key[32], counter[16];
};

static const char *const sets[] = {"vaes-avx512", "vaes-avx2", "vaes-aesni"};

static struct guarded in_map, out_map;
static uint8_t *plain, *expected, *result;
static uint64_t seed = 11;
static struct rs_vaes_key key RS_ALIGNED(RS_KEY_ALIGN);

static size_t below(size_t n)
{
    uint64_t r;
    reference_random(&seed, &r, sizeof(r));
    return (size_t)(r >> 8) % n;
}

static void reference(const struct message *m)
{
    static const char *const names[] = {"AES-128-CTR", "AES-192-CTR", "AES-256-CTR"};
    EVP_CIPHER *cipher = EVP_CIPHER_fetch(NULL, names[m->bits / 64 - 2], "provider=default");
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    int n;
    assert_int_equal(EVP_EncryptInit_ex2(ctx, cipher, m->key, m->counter, NULL), 1);
    if (m->len > 0) assert_int_equal(EVP_EncryptUpdate(ctx, expected, &n, plain, (int)m->len), 1);
    EVP_CIPHER_CTX_free(ctx);
    EVP_CIPHER_free(cipher);
}

static void piece(const struct rs_stream *k, struct rs_ctr_stream *s, const uint8_t *from, uint8_t *to,
                  size_t len)
{
    bool in_place = below(2), start = below(2);
    uint8_t *in = start ? guarded_at_start(&in_map) : guarded_at_end(&in_map, len);
    uint8_t *out = start ? guarded_at_start(&out_map) : guarded_at_end(&out_map, len);
    if (in_place) out = in;
    memcpy(in, from, len);
    k->ctr(&key, s, in, out, len);
    if (!in_place && memcmp(in, from, len) != 0) fail_msg("%s: wrote to its input", k->name);
    memcpy(to, out, len);
}

static size_t piece_of(enum pieces how, size_t left)
{
    size_t want = left;
    if (how == SMALL) want = below(40);
    if (how == MIXED) want = below(4) == 0 ? below(20) : below(1 + RS_MIN(left, (size_t)6000));
    return RS_MIN(want, left);
}

static void check_one(const struct rs_stream *k, const struct message *m, enum pieces how)
{
    struct rs_ctr_stream s = {0};
    memcpy(s.counter, m->counter, 16);
    for (size_t at = 0, n; at < m->len; at += n)
        piece(k, &s, plain + at, result + at, n = piece_of(how, m->len - at));
    size_t at = 0;
    while (at < m->len && result[at] == expected[at]) at++;
    if (at < m->len || s.used != m->len % 16)
        fail_msg("%s: AES-%u, %zu bytes, pieces %d: first difference at %zu", k->name, m->bits, m->len,
                 (int)how, at);
    /* The state says where the next block is. */
    uint8_t next[16];
    memcpy(next, m->counter, 16);
    uint64_t carry = (m->len + 15) / 16;
    for (int i = 15; i >= 0; i--, carry >>= 8) {
        carry += next[i];
        next[i] = (uint8_t)carry;
    }
    if (memcmp(next, s.counter, 16) != 0) fail_msg("%s: %zu bytes: wrong counter after", k->name, m->len);
}

static void check(const struct message *m)
{
    reference(m);
    rs_stream_prepare(&key, RS_STREAM_CTR, m->key, m->bits);
    for (unsigned i = 0; i < RS_ARRAY_LEN(sets); i++) {
        const struct rs_stream *k = rs_stream_by_name(sets[i]);
        for (enum pieces how = WHOLE; k != NULL && how < PIECES; how++) check_one(k, m, how);
    }
}

static struct message message_of(unsigned bits, size_t len)
{
    struct message m = {.bits = bits, .len = len};
    reference_random(&seed, m.key, sizeof(m.key));
    reference_random(&seed, m.counter, sizeof(m.counter));
    return m;
}

static void every_length(void **state)
{
    (void)state;
    for (unsigned bits = 128; bits <= 256; bits += 64)
        for (size_t len = 0; len <= EVERY; len++) {
            struct message m = message_of(bits, len);
            check(&m);
        }
}

static void longer_messages(void **state)
{
    (void)state;
    for (unsigned bits = 128; bits <= 256; bits += 64)
        for (unsigned i = 0; i < 12; i++) {
            struct message m = message_of(bits, 2000 + below(i % 2 ? 70000 : 7000));
            check(&m);
        }
    struct message m = message_of(256, MAX_LEN - 3);
    check(&m);
}

/* All ones in the last `bytes` bytes but for a few blocks to come. */
static void carries_into_every_byte(void **state)
{
    (void)state;
    for (unsigned bytes = 1; bytes <= 16; bytes++)
        for (unsigned i = 0; i < 60; i++) {
            struct message m = message_of(128 + 64 * (unsigned)below(3), below(i % 2 ? 5000 : 700));
            memset(m.counter + 16 - bytes, 0xff, bytes);
            m.counter[15] = (uint8_t)(0xff - below(i % 3 == 0 ? 3 : 70));
            check(&m);
        }
}

/* The low 32 bits wrap more than once. */
static void carries_late(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 20; i++) {
        struct message m = message_of(256, 60000 + below(70000));
        memset(m.counter + below(13), 0xff, 3);
        memset(m.counter + 8, 0xff, 6);
        m.counter[14] = (uint8_t)(0xff - below(8));
        check(&m);
    }
}

static int set_up(void **state)
{
    (void)state;
    guarded_map(&in_map, MAX_LEN);
    guarded_map(&out_map, MAX_LEN);
    plain = malloc(MAX_LEN);
    expected = malloc(MAX_LEN);
    result = malloc(MAX_LEN);
    if (plain == NULL || expected == NULL || result == NULL) return 1;
    reference_random(&seed, plain, MAX_LEN);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    guarded_unmap(&in_map);
    guarded_unmap(&out_map);
    free(plain);
    free(expected);
    free(result);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_length),
        cmocka_unit_test(longer_messages),
        cmocka_unit_test(carries_into_every_byte),
        cmocka_unit_test(carries_late),
    };
    if (rs_stream_best() == NULL) {
        puts("no kernels of ours work on this CPU");
        return 77;
    }
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
