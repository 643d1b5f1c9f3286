/* SPDX-License-Identifier: Apache-2.0 */
/*
 * However a message is cut into updates, the bytes and the tag are those of the
 * default provider in one call, and what a context tells in between (IV, number
 * of bytes of a begun block) is what the default provider's tells.
 */
#include "offload/base/bytes.h"
#include "tests/support/guarded.h"
#include "tests/support/ossl-run.h"
#include "tests/support/ossl-twin.h"
#include "tests/support/reference.h"

#include <stdlib.h>
#include <string.h>

#define EVERY_SPLIT 300u
#define LONGEST     (70u * 1024)
#define AAD_MAX     700u
#define PARTS_MAX   4096u

/* A message and what the default provider makes of it in one call. */
struct message {
    EVP_CIPHER *const *cipher;
    unsigned mode;
    uint8_t key[64], iv[16], aad[AAD_MAX], plain[LONGEST], sealed[LONGEST], tag[16];
    size_t aad_len, len;
};

static struct message m;
static struct ossl_twin twin;
static uint64_t seed = 7;

static size_t below(size_t n)
{
    uint32_t r;
    reference_random(&seed, &r, sizeof(r));
    return r % n;
}

static void seal_at_once(void)
{
    static EVP_CIPHER_CTX *c;
    int n;
    if (c == NULL) c = EVP_CIPHER_CTX_new();
    assert_int_equal(EVP_EncryptInit_ex2(c, m.cipher[OSSL_DEFAULT], m.key, m.iv, NULL), 1);
    if (m.aad_len > 0) assert_int_equal(EVP_EncryptUpdate(c, NULL, &n, m.aad, (int)m.aad_len), 1);
    assert_int_equal(EVP_EncryptUpdate(c, m.sealed, &n, m.plain, (int)m.len), 1);
    assert_int_equal(EVP_EncryptFinal_ex(c, m.tag, &n), 1);
    if (m.mode == EVP_CIPH_GCM_MODE)
        assert_int_equal(EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_GET_TAG, 16, m.tag), 1);
}

static void new_message(size_t aad_len, size_t len)
{
    reference_random(&seed, m.iv, sizeof(m.iv));
    /* Now and then a counter that is about to run over, at any width. */
    size_t low = below(4) == 0 ? 1 + below(16) : 0;
    if (m.mode == EVP_CIPH_CTR_MODE) memset(m.iv + sizeof(m.iv) - low, 0xff, low);
    reference_random(&seed, m.plain, len);
    reference_random(&seed, m.aad, aad_len);
    m.aad_len = m.mode == EVP_CIPH_GCM_MODE ? aad_len : 0;
    m.len = len;
    seal_at_once();
}

static void use_cipher(int i)
{
    m.cipher = ossl_here.cipher[i];
    m.mode = ossl_ciphers[i].mode;
    reference_random(&seed, m.key, sizeof(m.key));
    assert_int_equal(twin_init(&twin, m.cipher, m.key, NULL, 1, NULL), 1);
}

/* `parts` lengths that sum up to the AAD's or the text's length. */
static void feed(const uint8_t *in, const uint8_t *wanted, const size_t *parts, size_t count, int how,
                 bool watch)
{
    size_t at = 0;
    for (size_t i = 0; i < count; at += parts[i++]) {
        assert_int_equal(twin_update(&twin, in + at, parts[i], how), 1);
        if (how != TWIN_AAD) {
            assert_int_equal(twin.out_len, parts[i]);
            assert_memory_equal(twin_out(&twin), wanted + at, parts[i]);
        }
        if (watch) twin_compare_state(&twin);
    }
}

/* One direction; the key is set already where `enc` is as before: only the IV is new. */
static void pass(int enc, const size_t *aad_parts, size_t aad_count, const size_t *parts, size_t count,
                 bool watch)
{
    int how = below(2) ? TWIN_IN_PLACE : TWIN_OUT_OF_PLACE;
    twin.in_skew = (unsigned)below(64);
    twin.out_skew = (unsigned)below(64);
    assert_int_equal(twin_init(&twin, NULL, NULL, m.iv, enc, NULL), 1);
    feed(m.aad, NULL, aad_parts, aad_count, TWIN_AAD, watch);
    feed(enc ? m.plain : m.sealed, enc ? m.sealed : m.plain, parts, count, how, watch);
    if (m.mode == EVP_CIPH_GCM_MODE && !enc)
        assert_int_equal(twin_ctrl(&twin, EVP_CTRL_AEAD_SET_TAG, 16, m.tag, 16), 1);
    assert_int_equal(twin_final(&twin), 1);
    if (m.mode == EVP_CIPH_GCM_MODE && enc) {
        assert_int_equal(twin_ctrl(&twin, EVP_CTRL_AEAD_GET_TAG, 16, NULL, 16), 1);
        assert_memory_equal(twin.data[OSSL_TESTED], m.tag, 16);
    }
}

static void both_ways(const size_t *aad_parts, size_t aad_count, const size_t *parts, size_t count,
                      bool watch)
{
    pass(1, aad_parts, aad_count, parts, count, watch);
    pass(0, aad_parts, aad_count, parts, count, watch);
}

/* AES-256 at every length, the other key sizes at every seventh. */
static void every_split(unsigned mode)
{
    for (int i = 0; i < OSSL_CIPHERS; i++) {
        if (ossl_ciphers[i].mode != mode) continue;
        use_cipher(i);
        for (size_t len = 0; len <= EVERY_SPLIT; len += ossl_ciphers[i].key_len == 32 ? 1 : 7) {
            new_message(0, len);
            for (size_t cut = 0; cut <= len; cut++) {
                size_t parts[] = {cut, len - cut};
                both_ways(NULL, 0, parts, 2, (cut + len) % 37 == 0);
            }
        }
    }
}

static void gcm_text_cut_in_two(void **state)
{
    (void)state;
    every_split(EVP_CIPH_GCM_MODE);
}

static void ctr_text_cut_in_two(void **state)
{
    (void)state;
    every_split(EVP_CIPH_CTR_MODE);
}

static void gcm_aad_cut_in_two(void **state)
{
    (void)state;
    use_cipher(ossl_cipher_index("AES-256-GCM"));
    for (size_t aad_len = 0; aad_len <= 300; aad_len += aad_len < 70 ? 1 : 13) {
        new_message(aad_len, aad_len % 50);
        for (size_t cut = 0; cut <= aad_len; cut++) {
            size_t aad_parts[] = {cut, aad_len - cut}, parts[] = {m.len};
            both_ways(aad_parts, 2, parts, m.len > 0, false);
        }
    }
}

/* A part of a size that matters to some kernel, or of any size. */
static size_t some_part(size_t left)
{
    static const size_t sizes[] = {1,   15,  16,  17,  63,  64,   65,   127,  128,
                                   255, 256, 257, 511, 512, 1024, 4096, 16384};
    size_t n = below(3) == 0 ? below(5000) : sizes[below(RS_ARRAY_LEN(sizes))] + below(3) - 1;
    return RS_MIN(n, left);
}

static size_t cut(size_t len, size_t *parts)
{
    size_t count = 0;
    while (len > 0 && count < PARTS_MAX - 1) {
        parts[count] = some_part(len);
        len -= parts[count++];
    }
    parts[count++] = len;
    return count;
}

static void many_parts(void **state)
{
    static size_t parts[PARTS_MAX], aad_parts[PARTS_MAX];
    (void)state;
    for (int i = 0; i < OSSL_CIPHERS; i++) {
        if (ossl_ciphers[i].mode == EVP_CIPH_XTS_MODE) continue;
        for (int round = 0; round < 40; round++) {
            if (round % 8 == 0) use_cipher(i);
            new_message(below(3) == 0 ? 0 : below(AAD_MAX),
                        round % 4 == 0 ? LONGEST - below(40) : below(9000));
            size_t aad_count = cut(m.aad_len, aad_parts), count = cut(m.len, parts);
            both_ways(aad_parts, aad_count, parts, count, round % 4 == 1);
        }
    }
}

/* An IV of any length makes the same first counter; text runs on from it, over the end of 32 bits too. */
static void gcm_iv_lengths(void **state)
{
    uint8_t iv[128], in[80] = {1};
    (void)state;
    use_cipher(ossl_cipher_index("AES-128-GCM"));
    for (int len = 1; len <= 128; len++) {
        reference_random(&seed, iv, sizeof(iv));
        assert_int_equal(twin_ctrl(&twin, EVP_CTRL_AEAD_SET_IVLEN, len, NULL, 0), 1);
        assert_int_equal(twin_init(&twin, NULL, NULL, iv, 1, NULL), 1);
        assert_int_equal(twin_update(&twin, in, sizeof(in), TWIN_OUT_OF_PLACE), 1);
        assert_int_equal(twin_final(&twin), 1);
        assert_int_equal(twin_ctrl(&twin, EVP_CTRL_AEAD_GET_TAG, 16, NULL, 16), 1);
    }
    assert_int_equal(twin_reset(&twin), 1);
}

/* ---- around the buffers ------------------------------------------------------------ */

/* One message by EVP on one side; the tag stays as it was where the cipher has none. */
static void message(int side, int i, const uint8_t *aad, size_t aad_len, const uint8_t *in, uint8_t *out,
                    size_t len, uint8_t tag[16])
{
    static EVP_CIPHER_CTX *c;
    int n = 0;
    if (c == NULL) c = EVP_CIPHER_CTX_new();
    assert_int_equal(EVP_EncryptInit_ex2(c, ossl_here.cipher[i][side], m.key, m.iv, NULL), 1);
    if (ossl_ciphers[i].mode == EVP_CIPH_GCM_MODE)
        assert_int_equal(EVP_EncryptUpdate(c, NULL, &n, aad, (int)aad_len), 1);
    assert_int_equal(EVP_EncryptUpdate(c, out, &n, in, (int)len), 1);
    assert_int_equal(n, len);
    assert_int_equal(EVP_EncryptFinal_ex(c, tag, &n), 1);
    if (ossl_ciphers[i].mode == EVP_CIPH_GCM_MODE)
        assert_int_equal(EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_GET_TAG, 16, tag), 1);
}

/* Pages that fault lie on both sides of the text, the AAD and the output, in place and not. */
static void guard_pages(void **state)
{
    struct guarded in, out;
    uint8_t tag[2][16] = {{0}};
    (void)state;
    guarded_map(&in, 4096);
    guarded_map(&out, 4096);
    reference_random(&seed, m.key, sizeof(m.key));
    reference_random(&seed, m.plain, 4096);
    for (size_t len = 0; len < 3000; len += len < 600 ? 1 : 61) {
        int i = ossl_cipher_index(len % 3 == 0   ? "AES-128-GCM"
                                  : len % 3 == 1 ? "AES-256-GCM"
                                                 : "AES-256-CTR");
        message(OSSL_DEFAULT, i, m.plain, len, m.plain, m.sealed, len, tag[1]);
        for (int where = 0; where < 6; where++) {
            uint8_t *from = where & 1 ? guarded_at_end(&in, len) : guarded_at_start(&in);
            uint8_t *to = where & 2 ? guarded_at_end(&out, len) : guarded_at_start(&out);
            if (where & 4) to = from;
            memcpy(from, m.plain, len);
            message(OSSL_TESTED, i, from, len, from, to, len, tag[0]);
            assert_memory_equal(to, m.sealed, len);
            assert_memory_equal(tag[0], tag[1], 16);
        }
    }
    guarded_unmap(&in);
    guarded_unmap(&out);
}

/* More than a cache holds, in one update. */
static void large_updates(void **state)
{
    static const char *const names[] = {"AES-128-GCM", "AES-256-GCM", "AES-256-CTR"};
    size_t len = ((size_t)9 << 20) + 13;
    uint8_t *in = malloc(len), *out[2] = {malloc(len), malloc(len)}, tag[2][16] = {{0}};
    (void)state;
    assert_true(in != NULL && out[0] != NULL && out[1] != NULL);
    for (size_t at = 0; at < len; at += LONGEST) memcpy(in + at, m.plain, RS_MIN(LONGEST, len - at));
    for (size_t k = 0; k < RS_ARRAY_LEN(names); k++) {
        for (int side = 0; side < OSSL_SIDES; side++)
            message(side, ossl_cipher_index(names[k]), in, len, in, out[side], len, tag[side]);
        assert_int_equal(memcmp(out[0], out[1], len), 0);
        assert_memory_equal(tag[0], tag[1], 16);
    }
    free(in);
    free(out[0]);
    free(out[1]);
}

/* ---- the 32-bit counter of GCM runs over ---------------------------------------- */

struct block {
    uint64_t hi, lo; /* the first bit of GCM's order is the top one of hi */
};

static struct block load_block(const uint8_t *p)
{
    return (struct block){__builtin_bswap64(rs_load_le64(p)), __builtin_bswap64(rs_load_le64(p + 8))};
}

static struct block product(struct block x, struct block y)
{
    struct block z = {0, 0};
    for (int i = 0; i < 128; i++) {
        uint64_t bit = i < 64 ? x.hi >> (63 - i) & 1 : x.lo >> (127 - i) & 1, out = y.lo & 1;
        z.hi ^= y.hi & -bit;
        z.lo ^= y.lo & -bit;
        y.lo = y.lo >> 1 | y.hi << 63;
        y.hi = y.hi >> 1 ^ (-out & 0xe100000000000000u);
    }
    return z;
}

/* To the power of 2^128 - 2. */
static struct block inverse(struct block x)
{
    struct block r = {1ull << 63, 0};
    for (int i = 1; i < 128; i++) {
        x = product(x, x);
        r = product(r, x);
    }
    return r;
}

static void store_block(uint8_t *p, struct block b)
{
    rs_store_be64(p, b.hi);
    rs_store_be64(p + 8, b.lo);
}

/* One block of AES-256. */
static void aes(const uint8_t *key, struct block in, uint8_t out[16])
{
    uint8_t block[16];
    int n;
    EVP_CIPHER *ecb = EVP_CIPHER_fetch(ossl_here.libctx, "AES-256-ECB", "provider=default");
    EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
    store_block(block, in);
    assert_int_equal(EVP_EncryptInit_ex2(c, ecb, key, NULL, NULL), 1);
    assert_int_equal(EVP_EncryptUpdate(c, out, &n, block, 16), 1);
    EVP_CIPHER_CTX_free(c);
    EVP_CIPHER_free(ecb);
}

/* The IV of 16 bytes whose J0 = (IV * H + 128) * H ends in `counter`; and the key stream of the block after.
 */
static void iv_for_counter(const uint8_t *key, uint32_t counter, uint8_t iv[16], uint8_t first[16])
{
    struct block j0 = {0x0123456789abcdefu, 0xfedcba9800000000u}, next = j0;
    j0.lo |= counter;
    next.lo |= counter + 1;
    aes(key, (struct block){0, 0}, first);
    struct block back = inverse(load_block(first));
    j0 = product(j0, back);
    j0.lo ^= 128;
    store_block(iv, product(j0, back));
    aes(key, next, first);
}

/* It starts anew at 0; the other 96 bits stay as they are. At every block of a kernel's widest flight. */
static void gcm_counter_runs_over(void **state)
{
    static uint8_t in[3000], whole[3000];
    uint8_t iv[16], stream[16];
    (void)state;
    use_cipher(ossl_cipher_index("AES-256-GCM"));
    reference_random(&seed, in, sizeof(in));
    assert_int_equal(twin_ctrl(&twin, EVP_CTRL_AEAD_SET_IVLEN, 16, NULL, 0), 1);
    for (uint32_t before = 0; before <= 150; before++) {
        iv_for_counter(m.key, 0u - before, iv, stream);
        for (int round = 0; round < 3; round++) {
            size_t first = round == 0 ? sizeof(in) : below(sizeof(in));
            assert_int_equal(twin_init(&twin, NULL, NULL, iv, 1, NULL), 1);
            assert_int_equal(twin_update(&twin, in, first, TWIN_OUT_OF_PLACE), 1);
            if (round == 0) memcpy(whole, twin_out(&twin), sizeof(whole));
            for (int i = 0; i < 16; i++) assert_int_equal(whole[i] ^ in[i], stream[i]);
            assert_int_equal(twin_update(&twin, in + first, sizeof(in) - first, TWIN_IN_PLACE), 1);
            assert_memory_equal(twin_out(&twin), whole + first, sizeof(in) - first);
            assert_int_equal(twin_final(&twin), 1);
            assert_int_equal(twin_ctrl(&twin, EVP_CTRL_AEAD_GET_TAG, 16, NULL, 16), 1);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gcm_text_cut_in_two), cmocka_unit_test(ctr_text_cut_in_two),
        cmocka_unit_test(gcm_aad_cut_in_two),  cmocka_unit_test(many_parts),
        cmocka_unit_test(gcm_iv_lengths),      cmocka_unit_test(gcm_counter_runs_over),
        cmocka_unit_test(guard_pages),         cmocka_unit_test(large_updates),
    };
    twin_open(&twin, LONGEST);
    int failed = ossl_run(tests);
    twin_close(&twin);
    return failed;
}
