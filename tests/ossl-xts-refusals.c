/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AES-XTS through EVP: what must be refused is refused, as by the default
 * provider, and every length is right and touches nothing around its buffers.
 */
#include "offload/base/bytes.h"
#include "tests/support/guarded.h"
#include "tests/support/ossl-run.h"
#include "tests/support/ossl-twin.h"
#include "tests/support/reference.h"

#include <string.h>
#include <sys/mman.h>

#define OK(call)      assert_int_equal(call, 1)
#define REFUSED(call) assert_int_equal(call, 0)
#define UNIT_MAX      ((size_t)16 << 20)

static const char *const names[] = {"AES-128-XTS", "AES-256-XTS"};
static struct ossl_twin t, other;
static uint8_t key[64], tweak[16], text[5000];

static int fresh(void **state)
{
    uint64_t seed = 5;
    (void)state;
    reference_random(&seed, key, sizeof(key));
    reference_random(&seed, tweak, sizeof(tweak));
    reference_random(&seed, text, sizeof(text));
    twin_open(&t, sizeof(text));
    twin_open(&other, sizeof(text));
    return 0;
}

static int done(void **state)
{
    (void)state;
    twin_close(&t);
    twin_close(&other);
    return 0;
}

static EVP_CIPHER *const *xts(size_t i)
{
    return ossl_here.cipher[ossl_cipher_index(names[i])];
}

/* One bit of difference is enough; a key that is refused leaves the one before. */
static void equal_halves(void **state)
{
    uint8_t equal[64];
    (void)state;
    for (size_t i = 0; i < RS_ARRAY_LEN(names); i++) {
        size_t half = 16 * (i + 1);
        memcpy(equal, key, half);
        memcpy(equal + half, key, half);
        REFUSED(twin_init(&t, xts(i), equal, tweak, 1, NULL));
        REFUSED(twin_update(&t, text, 64, TWIN_OUT_OF_PLACE));
        OK(twin_init(&t, xts(i), key, tweak, 1, NULL));
        REFUSED(twin_init(&t, NULL, equal, tweak, 1, NULL));
        OK(twin_update(&t, text, 64, TWIN_OUT_OF_PLACE));
        for (size_t bit = 0; bit < 8 * half; bit += 13) {
            equal[half + bit / 8] ^= (uint8_t)(1u << bit % 8);
            OK(twin_init(&t, xts(i), equal, tweak, (int)bit & 1, NULL));
            OK(twin_update(&t, text, 64, TWIN_OUT_OF_PLACE));
            equal[half + bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
    }
    static const uint8_t zeros[64];
    REFUSED(twin_init(&t, xts(1), zeros, tweak, 1, NULL));
}

/* The default provider lets such a key decrypt, for old data; reseal does not, nor what it delegates. */
static void equal_halves_to_decrypt(void **state)
{
    static const uint8_t zeros[64];
    uint8_t out[64];
    int n;
    (void)state;
    EVP_CIPHER_CTX *c = t.ctx[OSSL_TESTED];
    for (size_t i = 0; i < RS_ARRAY_LEN(names); i++) {
        REFUSED(EVP_DecryptInit_ex2(c, xts(i)[OSSL_TESTED], zeros, tweak, NULL));
        REFUSED(EVP_DecryptUpdate(c, out, &n, text, sizeof(out)));
    }
}

static void too_short(void **state)
{
    (void)state;
    for (size_t i = 0; i < RS_ARRAY_LEN(names); i++) {
        for (int enc = 0; enc < 2; enc++) {
            for (size_t len = 0; len < 16; len++) {
                OK(twin_init(&t, xts(i), key, tweak, enc, NULL));
                REFUSED(twin_update(&t, text, len, TWIN_OUT_OF_PLACE));
                REFUSED(twin_update(&t, text, len, TWIN_IN_PLACE));
                assert_int_equal(twin_cipher(&t, text, len, TWIN_OUT_OF_PLACE), -1);
                OK(twin_final(&t));
                OK(twin_update(&t, text, 16, TWIN_OUT_OF_PLACE)); /* it still works */
            }
        }
    }
}

/* 2^20 blocks are the most. Memory that is one page seen again and again would do for reading; this is real.
 */
static void too_long(void **state)
{
    (void)state;
    size_t room = UNIT_MAX + 64;
    uint8_t *data[OSSL_SIDES];
    for (int side = 0; side < OSSL_SIDES; side++) {
        data[side] = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        assert_true(data[side] != MAP_FAILED);
    }
    for (int enc = 0; enc < 2; enc++) {
        OK(twin_init(&t, xts(1), key, tweak, enc, NULL));
        static const int lengths[] = {UNIT_MAX + 1, UNIT_MAX + 16, UNIT_MAX + 64, UNIT_MAX, UNIT_MAX - 1};
        for (size_t k = 0; k < RS_ARRAY_LEN(lengths); k++) {
            int n[OSSL_SIDES] = {0};
            for (int side = 0; side < OSSL_SIDES; side++)
                assert_int_equal(EVP_CipherUpdate(t.ctx[side], data[side], &n[side], data[side], lengths[k]),
                                 (size_t)lengths[k] <= UNIT_MAX);
            assert_int_equal(n[0], n[1]);
            assert_int_equal(memcmp(data[0], data[1], room), 0);
        }
    }
    for (int side = 0; side < OSSL_SIDES; side++) munmap(data[side], room);
}

static void no_tweak(void **state)
{
    (void)state;
    for (size_t i = 0; i < RS_ARRAY_LEN(names); i++) {
        for (int enc = 0; enc < 2; enc++) {
            OK(twin_init(&t, xts(i), key, NULL, enc, NULL));
            REFUSED(twin_update(&t, text, 64, TWIN_OUT_OF_PLACE));
            assert_int_equal(twin_cipher(&t, text, 64, TWIN_OUT_OF_PLACE), -1);
            OK(twin_init(&t, NULL, NULL, tweak, enc, NULL));
            OK(twin_update(&t, text, 64, TWIN_OUT_OF_PLACE));
            OK(twin_init(&t, NULL, key, NULL, enc,
                         NULL)); /* a new key: the tweak before stays, by default too */
            twin_update(&t, text, 64, TWIN_OUT_OF_PLACE);
            OK(twin_copy(&other, &t));
            twin_update(&other, text, 64, TWIN_OUT_OF_PLACE);
            OK(twin_init(&t, xts(i), key, NULL, enc, NULL)); /* but not over a new cipher */
            REFUSED(twin_update(&t, text, 64, TWIN_OUT_OF_PLACE));
        }
    }
}

static void no_key(void **state)
{
    (void)state;
    for (int enc = 0; enc < 2; enc++) {
        OK(twin_init(&t, xts(1), NULL, tweak, enc, NULL));
        REFUSED(twin_update(&t, text, 64, TWIN_OUT_OF_PLACE));
        REFUSED(twin_update(&t, text, 64, TWIN_AAD));
        OK(twin_init(&t, xts(1), NULL, NULL, enc, NULL));
        REFUSED(twin_update(&t, text, 64, TWIN_OUT_OF_PLACE));
        OK(twin_final(&t));
        OK(twin_init(&t, NULL, key, tweak, enc, NULL));
        REFUSED(twin_update(&t, text, 64, TWIN_AAD)); /* no place for the output */
        OK(twin_update(&t, text, 64, TWIN_OUT_OF_PLACE));
    }
}

/* The default provider falls over it. */
static void copy_without_key(void **state)
{
    uint8_t out[64];
    int n;
    (void)state;
    if (ossl_delegated()) skip();
    EVP_CIPHER_CTX *c = t.ctx[OSSL_TESTED], *copy = other.ctx[OSSL_TESTED];
    OK(EVP_EncryptInit_ex2(c, xts(0)[OSSL_TESTED], NULL, tweak, NULL));
    OK(EVP_CIPHER_CTX_copy(copy, c));
    REFUSED(EVP_EncryptUpdate(copy, out, &n, text, sizeof(out)));
}

/* A direction belongs to the key that came with it; one that comes without a key changes nothing. Whoever
 * wrote data that way finds it again. */
static void direction_without_key(void **state)
{
    (void)state;
    for (size_t i = 0; i < RS_ARRAY_LEN(names); i++) {
        for (int enc = 0; enc < 2; enc++) {
            OK(twin_init(&t, xts(i), key, tweak, enc, NULL));
            OK(twin_init(&t, NULL, NULL, tweak, !enc, NULL));
            OK(twin_update(&t, text, 100, TWIN_OUT_OF_PLACE));
            OK(twin_copy(&other, &t));
            OK(twin_update(&other, text, 100, TWIN_OUT_OF_PLACE));
            OK(twin_init(&t, NULL, key, tweak, !enc, NULL));
            OK(twin_update(&t, text, 100, TWIN_OUT_OF_PLACE));
        }
    }
}

/* Each update is a whole data unit under the same tweak: what was is forgotten. */
static void every_length(void **state)
{
    static uint8_t sealed[sizeof(text)];
    (void)state;
    for (size_t i = 0; i < RS_ARRAY_LEN(names); i++) {
        for (size_t len = 16; len <= sizeof(text); len += len < 1100 ? 1 : 97) {
            t.in_skew = (unsigned)(len * 7 % 64);
            t.out_skew = (unsigned)(len * 11 % 64);
            OK(twin_init(&t, xts(i), key, tweak, 1, NULL));
            OK(twin_update(&t, text, len, TWIN_OUT_OF_PLACE));
            assert_int_equal(t.out_len, len);
            memcpy(sealed, twin_out(&t), len);
            OK(twin_update(&t, text, len, TWIN_IN_PLACE));
            assert_memory_equal(twin_out(&t), sealed, len);
            twin_compare_state(&t);
            OK(twin_init(&t, xts(i), key, tweak, 0, NULL));
            OK(twin_update(&t, sealed, len, len & 1 ? TWIN_IN_PLACE : TWIN_OUT_OF_PLACE));
            assert_memory_equal(twin_out(&t), text, len);
            OK(twin_final(&t));
        }
    }
}

static void run_guarded(EVP_CIPHER_CTX *c, const uint8_t *in, uint8_t *out, size_t len)
{
    int n = 0;
    OK(EVP_CipherUpdate(c, out, &n, in, (int)len));
    assert_int_equal(n, len);
}

/* Pages that fault on both sides of the input and the output, in place and not. */
static void guard_pages(void **state)
{
    static uint8_t sealed[3000];
    struct guarded in, out;
    (void)state;
    guarded_map(&in, sizeof(sealed));
    guarded_map(&out, sizeof(sealed));
    for (size_t len = 16; len < sizeof(sealed); len += len < 700 ? 1 : 31) {
        OK(twin_init(&t, xts(len & 1), key, tweak, 1, NULL));
        OK(twin_init(&other, xts(len & 1), key, tweak, 0, NULL));
        run_guarded(t.ctx[OSSL_DEFAULT], text, sealed, len);
        for (int where = 0; where < 4; where++) {
            uint8_t *from = where & 1 ? guarded_at_end(&in, len) : guarded_at_start(&in);
            uint8_t *to = where & 2 ? guarded_at_end(&out, len) : guarded_at_start(&out);
            memcpy(from, text, len);
            run_guarded(t.ctx[OSSL_TESTED], from, to, len);
            assert_memory_equal(to, sealed, len);
            run_guarded(other.ctx[OSSL_TESTED], to, to, len);
            assert_memory_equal(to, text, len);
        }
    }
    guarded_unmap(&in);
    guarded_unmap(&out);
}

#define each(test) cmocka_unit_test_setup_teardown(test, fresh, done)

int main(void)
{
    const struct CMUnitTest tests[] = {
        each(equal_halves),     each(equal_halves_to_decrypt),
        each(too_short),        each(too_long),
        each(no_tweak),         each(no_key),
        each(copy_without_key), each(direction_without_key),
        each(every_length),     each(guard_pages),
    };
    return ossl_run(tests);
}
