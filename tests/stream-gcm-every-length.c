/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The streaming GCM kernels of every instruction set against OpenSSL: each
 * length, any pieces, key sizes and IV lengths, between guard pages, in place
 * and not, and counters that wrap around in their low 32 bits.
 */
#include "providers/crypto/vaes/stream.h"
#include "tests/support/cmocka.h"
#include "tests/support/guarded.h"
#include "tests/support/reference.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>

#define MAX_LEN (1u << 20)
#define MAX_AAD 8192u
#define MAX_IV  128u
#define EVERY   1100u /* every length up to this one */

struct message {
    unsigned bits;
    size_t iv_len, aad_len, len;
    uint8_t key[32], iv[MAX_IV], tag[16];
};

enum pieces { WHOLE, SMALL, MIXED, PIECES };

static const char *const sets[] = {"vaes-avx512", "vaes-avx2", "vaes-aesni"};
static const size_t longer[] = {1536, 2047,  2048,  2049,  3000,  4096,     5000,
                                8191, 16384, 16385, 16401, 20000, 65536 + 3};

static struct guarded in_map, out_map, aad_map;
static uint8_t aad[MAX_AAD], *plain, *sealed, *result;
static uint64_t seed = 7;
static struct rs_vaes_key key RS_ALIGNED(RS_KEY_ALIGN);

static size_t below(size_t n)
{
    uint64_t r;
    reference_random(&seed, &r, sizeof(r));
    return (size_t)(r >> 8) % n;
}

static const EVP_CIPHER *cipher_of(unsigned bits)
{
    static EVP_CIPHER *ciphers[3];
    static const char *const names[] = {"AES-128-GCM", "AES-192-GCM", "AES-256-GCM"};
    unsigned i = bits / 64 - 2;
    if (ciphers[i] == NULL) ciphers[i] = EVP_CIPHER_fetch(NULL, names[i], "provider=default");
    assert_non_null(ciphers[i]);
    return ciphers[i];
}

/* OpenSSL's ciphertext into sealed[], and its tag. */
static void reference(struct message *m)
{
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    int n;
    assert_non_null(ctx);
    assert_int_equal(EVP_EncryptInit_ex2(ctx, cipher_of(m->bits), NULL, NULL, NULL), 1);
    assert_int_equal(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_IVLEN, (int)m->iv_len, NULL), 1);
    assert_int_equal(EVP_EncryptInit_ex2(ctx, NULL, m->key, m->iv, NULL), 1);
    if (m->aad_len > 0) assert_int_equal(EVP_EncryptUpdate(ctx, NULL, &n, aad, (int)m->aad_len), 1);
    if (m->len > 0) assert_int_equal(EVP_EncryptUpdate(ctx, sealed, &n, plain, (int)m->len), 1);
    assert_int_equal(EVP_EncryptFinal_ex(ctx, sealed + m->len, &n), 1);
    assert_int_equal(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, 16, m->tag), 1);
    EVP_CIPHER_CTX_free(ctx);
}

/* The size of the next piece. */
static size_t piece_of(enum pieces how, size_t left)
{
    size_t want = left;
    if (how == SMALL) want = below(40);
    if (how == MIXED)
        want = below(4) == 0 ? below(20) : below(1 + RS_MIN(left, below(2) ? (size_t)600 : (size_t)40000));
    return RS_MIN(want, left);
}

/* One piece from and to its own place between guard pages. */
static void text_piece(const struct rs_stream *k, struct rs_gcm_stream *s, bool decrypt, const uint8_t *from,
                       uint8_t *to, size_t len)
{
    bool in_place = below(2), start = below(2);
    uint8_t *in = start ? guarded_at_start(&in_map) : guarded_at_end(&in_map, len);
    uint8_t *out = start ? guarded_at_start(&out_map) : guarded_at_end(&out_map, len);
    if (in_place) out = in;
    memcpy(in, from, len);
    (decrypt ? k->gcm_decrypt : k->gcm_encrypt)(&key, s, in, out, len);
    if (!in_place && memcmp(in, from, len) != 0) fail_msg("%s: wrote to its input", k->name);
    memcpy(to, out, len);
}

static void aad_piece(const struct rs_stream *k, struct rs_gcm_stream *s, const uint8_t *from, size_t len)
{
    uint8_t *at = below(2) ? guarded_at_start(&aad_map) : guarded_at_end(&aad_map, len);
    memcpy(at, from, len);
    k->gcm_aad(&key, s, at, len);
}

static void check_one(const struct rs_stream *k, const struct message *m, bool decrypt, enum pieces how)
{
    struct rs_gcm_stream s;
    uint8_t *iv = guarded_at_end(&aad_map, m->iv_len), tag[16];
    const uint8_t *from = decrypt ? sealed : plain, *to = decrypt ? plain : sealed;
    memset(&s, 0, sizeof(s));
    memcpy(iv, m->iv, m->iv_len);
    k->gcm_start(&key, &s, iv, m->iv_len);
    for (size_t at = 0, n; at < m->aad_len; at += n)
        aad_piece(k, &s, aad + at, n = piece_of(how, m->aad_len - at));
    for (size_t at = 0, n; at < m->len; at += n)
        text_piece(k, &s, decrypt, from + at, result + at, n = piece_of(how, m->len - at));
    k->gcm_tag(&key, &s, tag);
    size_t at = 0;
    while (at < m->len && result[at] == to[at]) at++;
    if (at == m->len && memcmp(tag, m->tag, 16) == 0) return;
    fail_msg("%s: AES-%u, IV of %zu, AAD of %zu, %zu bytes, %s, pieces %d: first difference at %zu", k->name,
             m->bits, m->iv_len, m->aad_len, m->len, decrypt ? "decrypting" : "encrypting", (int)how, at);
}

/* Every set of kernels, both directions, `ways` ways to cut it. */
static unsigned check(struct message *m, enum pieces ways)
{
    unsigned checked = 0;
    reference(m);
    rs_stream_prepare(&key, RS_STREAM_GCM, m->key, m->bits);
    for (unsigned i = 0; i < RS_ARRAY_LEN(sets); i++) {
        const struct rs_stream *k = rs_stream_by_name(sets[i]);
        if (k == NULL) continue;
        checked++;
        for (enum pieces how = WHOLE; how < ways; how++) {
            check_one(k, m, false, how);
            check_one(k, m, true, how);
        }
    }
    return checked;
}

static struct message message_of(unsigned bits, size_t iv_len, size_t aad_len, size_t len)
{
    struct message m = {.bits = bits, .iv_len = iv_len, .aad_len = aad_len, .len = len};
    reference_random(&seed, m.key, sizeof(m.key));
    reference_random(&seed, m.iv, sizeof(m.iv));
    return m;
}

static void every_length(void **state)
{
    (void)state;
    for (unsigned bits = 128; bits <= 256; bits += 64)
        for (size_t len = 0; len <= EVERY; len++) {
            struct message m = message_of(bits, 12, below(40), len);
            check(&m, PIECES);
        }
}

static void longer_messages(void **state)
{
    (void)state;
    for (unsigned bits = 128; bits <= 256; bits += 64)
        for (size_t i = 0; i < RS_ARRAY_LEN(longer); i++) {
            struct message m = message_of(bits, 12, below(2) ? 13 : below(600), longer[i]);
            check(&m, PIECES);
            m = message_of(bits, 12, 5, longer[i] + below(3000));
            check(&m, PIECES);
        }
    struct message m = message_of(256, 12, 13, MAX_LEN - 11);
    check(&m, SMALL);
}

static void every_length_of_aad(void **state)
{
    (void)state;
    for (size_t len = 0; len <= EVERY; len++) {
        struct message m = message_of(len % 2 ? 128 : 256, 12, len, below(70));
        check(&m, PIECES);
    }
    struct message m = message_of(256, 12, MAX_AAD - 1, 0);
    check(&m, PIECES);
}

static void every_length_of_iv(void **state)
{
    (void)state;
    for (size_t len = 1; len <= MAX_IV; len++)
        for (unsigned bits = 128; bits <= 256; bits += 64) {
            struct message m = message_of(bits, len, below(40), below(1300));
            check(&m, PIECES);
        }
}

/* ---- counters that wrap: IVs that were computed from them ------------------- */

/* An element of GF(2^128) as in SP 800-38D: bit 0 is the top bit of byte 0. */
struct element {
    uint8_t b[16];
};

static struct element times(struct element x, struct element y)
{
    struct element z = {{0}};
    for (unsigned i = 0; i < 128; i++) {
        if (x.b[i / 8] >> (7 - i % 8) & 1)
            for (unsigned j = 0; j < 16; j++) z.b[j] ^= y.b[j];
        uint8_t low = y.b[15] & 1;
        for (unsigned j = 16; j-- > 1;) y.b[j] = (uint8_t)(y.b[j] >> 1 | y.b[j - 1] << 7);
        y.b[0] = (uint8_t)(y.b[0] >> 1 ^ low * 0xe1);
    }
    return z;
}

/* x^(2^128 - 2) */
static struct element inverse(struct element x)
{
    struct element z = {{0x80}};
    for (unsigned i = 1; i < 128; i++) {
        x = times(x, x);
        z = times(z, x);
    }
    return z;
}

/* The IV of 16 bytes that makes J0 end in `low`: J0 = (IV * H + lengths) * H. */
static void iv_for_counter(struct message *m, uint32_t low)
{
    struct element h = {{0}}, j0, lengths = {{0}};
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    const EVP_CIPHER *ecb = m->bits == 128   ? EVP_aes_128_ecb()
                            : m->bits == 192 ? EVP_aes_192_ecb()
                                             : EVP_aes_256_ecb();
    int n;
    assert_int_equal(EVP_EncryptInit_ex(ctx, ecb, NULL, m->key, NULL), 1);
    assert_int_equal(EVP_EncryptUpdate(ctx, h.b, &n, lengths.b, 16), 1);
    EVP_CIPHER_CTX_free(ctx);
    reference_random(&seed, j0.b, sizeof(j0.b));
    rs_store_be32(j0.b + 12, low);
    lengths.b[15] = 128;
    struct element back = inverse(h), iv = times(j0, back);
    for (unsigned i = 0; i < 16; i++) iv.b[i] ^= lengths.b[i];
    iv = times(iv, back);
    memcpy(m->iv, iv.b, 16);
}

static void low_counter_wraps_alone(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 400; i++) {
        /* 0 to 80 blocks before the wrap, and often in the first blocks; a few where it comes later. */
        uint32_t low = UINT32_MAX - (uint32_t)below(i % 4 == 0 ? 3000 : i % 4 == 1 ? 4 : 80);
        struct message m = message_of(128 + 64 * (unsigned)below(3), 16, below(40),
                                      i % 4 == 0 ? 65536 + below(99) : below(3000));
        iv_for_counter(&m, low);
        check(&m, PIECES);
    }
}

/* Not near the wrap, but anywhere in the low byte. */
static void counter_starts_anywhere(void **state)
{
    (void)state;
    for (unsigned low = 0; low < 256; low += 3) {
        struct message m = message_of(256, 16, 13, low % 2 ? 16384 + below(5000) : below(5000));
        iv_for_counter(&m, 0x12345f00 + low);
        check(&m, PIECES);
    }
}

static int set_up(void **state)
{
    (void)state;
    guarded_map(&in_map, MAX_LEN);
    guarded_map(&out_map, MAX_LEN);
    guarded_map(&aad_map, MAX_AAD);
    plain = malloc(MAX_LEN);
    sealed = malloc(MAX_LEN + 16);
    result = malloc(MAX_LEN);
    if (plain == NULL || sealed == NULL || result == NULL) return 1;
    reference_random(&seed, plain, MAX_LEN);
    reference_random(&seed, aad, sizeof(aad));
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    guarded_unmap(&in_map);
    guarded_unmap(&out_map);
    guarded_unmap(&aad_map);
    free(plain);
    free(sealed);
    free(result);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_length),
        cmocka_unit_test(longer_messages),
        cmocka_unit_test(every_length_of_aad),
        cmocka_unit_test(every_length_of_iv),
        cmocka_unit_test(low_counter_wraps_alone),
        cmocka_unit_test(counter_starts_anywhere),
    };
    if (rs_stream_best() == NULL) {
        puts("no kernels of ours work on this CPU");
        return 77;
    }
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
