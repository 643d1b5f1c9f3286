/* SPDX-License-Identifier: Apache-2.0 */
/* Locked data: a published key safe opens with its pass phrase; what was changed does not. */
#include "offload/base/keymem.h"
#include "offload/vm/locator.h"
#include "providers/key/locked.h"
#include "reseal/reseal.h"
#include "tests/support/cmocka.h"
#include "tests/support/published.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>

struct safe {
    uint8_t blob[256];
    size_t len;
    enum rs_locked_mac mac;
    char dictionary[256];
};

static void read_safe(struct safe *s)
{
    struct rs_locator *l;
    char why[160];
    assert_int_equal(rs_locator_parse(PUBLISHED_SAFE, strlen(PUBLISHED_SAFE), &l, why, sizeof(why)), 0);
    const struct rs_locator *pair = l->child;
    assert_int_equal(rs_locked_mac_by_name(pair->fields[RS_PAIR_MAC], &s->mac), 0);
    assert_int_equal(rs_base64_decode(pair->fields[RS_PAIR_DATA], s->blob, sizeof(s->blob), &s->len), 0);
    (void)snprintf(s->dictionary, sizeof(s->dictionary), "%s", pair->child->fields[RS_PHRASE_DICTIONARY]);
    rs_locator_free(l);
}

static void test_a_published_key_safe_opens(void **state)
{
    struct safe s;
    struct rs_locked_key locker, key;
    uint8_t text[256];
    size_t len;
    (void)state;
    read_safe(&s);
    assert_int_equal(s.len, 116);
    assert_int_equal(
        rs_locked_key_of_phrase(s.dictionary, PUBLISHED_PHRASE, strlen(PUBLISHED_PHRASE), &locker), 0);
    assert_int_equal(rs_locked_open(&locker, s.mac, s.blob, s.len, text, &len), 0);
    assert_true(len < sizeof(text));
    text[len] = '\0';
    assert_memory_equal(text, "type=key:cipher=AES-256:key=", 28);
    assert_int_equal(rs_locked_key_parse((char *)text, &key), 0);
    assert_int_equal(key.len, 32);
    char again[160];
    assert_int_equal(rs_locked_key_text(&key, again, sizeof(again)), 0);
    assert_string_equal(again, (char *)text);
}

/*
 * The second published vector, that of module 27400 of hashcat (pass phrase "hashcat"): salt, IV and the
 * first block of a key safe with 10000 rounds. There is no MAC in it; what the block says is known.
 */
static void test_the_key_of_a_published_phrase(void **state)
{
    static const uint8_t data[32] = {0xcb, 0xb3, 0x68, 0x56, 0x4d, 0x8d, 0xfb, 0x99, 0xf5, 0x09, 0xd4,
                                     0x92, 0x2f, 0x46, 0x93, 0x41, 0x3f, 0x38, 0x16, 0xaf, 0x71, 0x3f,
                                     0x0e, 0x76, 0xbc, 0x24, 0x09, 0xff, 0x93, 0x36, 0x93, 0x5d};
    static const uint8_t salt[16] = {0x26, 0x4b, 0xba, 0xb0, 0x2f, 0xdf, 0x7c, 0x1a,
                                     0x79, 0x36, 0x51, 0x12, 0x0b, 0xec, 0x37, 0x23};
    char dictionary[200] = "", encoded[32];
    uint8_t text[32];
    struct rs_locked_key key;
    int n = 0;
    (void)state;
    assert_int_equal(rs_base64_encode(salt, sizeof(salt), encoded, sizeof(encoded)), 0);
    assert_int_equal(rs_dictionary_put(dictionary, sizeof(dictionary), "pass2key", "PBKDF2-HMAC-SHA-1"), 0);
    assert_int_equal(rs_dictionary_put(dictionary, sizeof(dictionary), "cipher", "AES-256"), 0);
    assert_int_equal(rs_dictionary_put(dictionary, sizeof(dictionary), "rounds", "10000"), 0);
    assert_int_equal(rs_dictionary_put(dictionary, sizeof(dictionary), "salt", encoded), 0);
    assert_int_equal(rs_locked_key_of_phrase(dictionary, "hashcat", 7, &key), 0);
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    assert_int_equal(EVP_DecryptInit_ex(ctx, EVP_aes_256_cbc(), NULL, key.key, data), 1);
    assert_int_equal(EVP_CIPHER_CTX_set_padding(ctx, 0), 1);
    assert_int_equal(EVP_DecryptUpdate(ctx, text, &n, data + 16, 16), 1);
    EVP_CIPHER_CTX_free(ctx);
    assert_int_equal(n, 16);
    assert_memory_equal(text, "type=key:cipher=", 16);
}

static void test_another_phrase_and_every_changed_bit_are_refused(void **state)
{
    struct safe s;
    struct rs_locked_key locker, wrong;
    uint8_t text[256];
    size_t len;
    (void)state;
    read_safe(&s);
    assert_int_equal(rs_locked_key_of_phrase(s.dictionary, "Password124", 11, &wrong), 0);
    assert_int_equal(rs_locked_open(&wrong, s.mac, s.blob, s.len, text, &len), RESEAL_EAUTH);
    assert_int_equal(
        rs_locked_key_of_phrase(s.dictionary, PUBLISHED_PHRASE, strlen(PUBLISHED_PHRASE), &locker), 0);
    for (size_t bit = 0; bit < 8 * s.len; bit++) {
        static const uint8_t zero[64];
        s.blob[bit / 8] ^= (uint8_t)(1u << bit % 8);
        memset(text, 0xee, sizeof(text));
        assert_int_equal(rs_locked_open(&locker, s.mac, s.blob, s.len, text, &len), RESEAL_EAUTH);
        assert_int_equal(len, 0);
        assert_memory_equal(text, zero, sizeof(zero));
        s.blob[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    for (size_t n = 0; n < s.len; n++)
        assert_int_not_equal(rs_locked_open(&locker, s.mac, s.blob, n, text, &len), 0);
}

static void test_what_is_sealed_opens(void **state)
{
    static const char *const names[] = {"AES-128", "AES-192", "AES-256", "XTS-AES-256"};
    uint8_t text[300], blob[300 + RS_LOCKED_OVERHEAD], back[300 + RS_LOCKED_OVERHEAD];
    size_t sealed, len;
    (void)state;
    for (size_t i = 0; i < sizeof(text); i++) text[i] = (uint8_t)i;
    for (size_t c = 0; c < RS_ARRAY_LEN(names); c++) {
        struct rs_locked_key key = {.len = rs_locked_key_len(names[c])};
        (void)snprintf(key.cipher, sizeof(key.cipher), "%s", names[c]);
        memset(key.key, 7, key.len);
        for (enum rs_locked_mac mac = RS_LOCKED_HMAC_SHA1; mac <= RS_LOCKED_HMAC_SHA256; mac++)
            for (size_t n = 0; n <= sizeof(text); n += n < 40 ? 1 : 37) {
                assert_int_equal(rs_locked_seal(&key, mac, text, n, blob, &sealed), 0);
                assert_true(sealed <= n + RS_LOCKED_OVERHEAD);
                assert_int_equal(rs_locked_open(&key, mac, blob, sealed, back, &len), 0);
                assert_int_equal(len, n);
                assert_memory_equal(back, text, n);
                /* All 64 bytes count for the MAC, also those that CBC does not use. */
                key.key[key.len - 1] ^= 1;
                assert_int_equal(rs_locked_open(&key, mac, blob, sealed, back, &len), RESEAL_EAUTH);
                key.key[key.len - 1] ^= 1;
            }
    }
}

static void test_a_new_phrase_dictionary(void **state)
{
    char one[200], two[200];
    struct rs_locked_key a, b;
    (void)state;
    assert_int_equal(rs_locked_phrase_dictionary(1000, one, sizeof(one)), 0);
    assert_int_equal(rs_locked_phrase_dictionary(1000, two, sizeof(two)), 0);
    assert_string_not_equal(one, two);
    assert_int_equal(rs_locked_key_of_phrase(one, "x", 1, &a), 0);
    assert_int_equal(rs_locked_key_of_phrase(two, "x", 1, &b), 0);
    assert_memory_not_equal(a.key, b.key, a.len);
}

static void test_bad_dictionaries_are_told(void **state)
{
    static const struct {
        const char *text;
        int err;
    } bad[] = {
        {"", RESEAL_EFORMAT},
        {"pass2key=PBKDF2-HMAC-SHA-1:cipher=AES-256:rounds=1000", RESEAL_EFORMAT},
        {"pass2key=scrypt:cipher=AES-256:rounds=1000:salt=AAAA", RESEAL_ECIPHER},
        {"pass2key=PBKDF2-HMAC-SHA-1:cipher=3DES:rounds=1000:salt=AAAA", RESEAL_ECIPHER},
        {"pass2key=PBKDF2-HMAC-SHA-1:cipher=AES-256:rounds=0:salt=AAAA", RESEAL_EFORMAT},
        {"pass2key=PBKDF2-HMAC-SHA-1:cipher=AES-256:rounds=-1:salt=AAAA", RESEAL_EFORMAT},
        {"pass2key=PBKDF2-HMAC-SHA-1:cipher=AES-256:rounds=99999999999:salt=AAAA", RESEAL_EFORMAT},
        {"pass2key=PBKDF2-HMAC-SHA-1:cipher=AES-256:rounds=1000:salt=A A", RESEAL_EFORMAT},
        {"pass2key=PBKDF2-HMAC-SHA-1:cipher=AES-256:rounds=1000:salt=====", RESEAL_EFORMAT},
    };
    struct rs_locked_key key;
    (void)state;
    for (size_t i = 0; i < RS_ARRAY_LEN(bad); i++)
        assert_int_equal(rs_locked_key_of_phrase(bad[i].text, "x", 1, &key), bad[i].err);
    assert_int_equal(rs_locked_key_parse("type=key:cipher=AES-256:key=AAAA", &key), RESEAL_EFORMAT);
    assert_int_equal(rs_locked_key_parse("type=lock:cipher=AES-128:key=AAAAAAAAAAAAAAAAAAAAAA==", &key),
                     RESEAL_EFORMAT);
    assert_int_equal(rs_locked_key_parse("type=key:cipher=AES-128:key=AAAAAAAAAAAAAAAAAAAAAA==", &key), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_published_key_safe_opens),
        cmocka_unit_test(test_the_key_of_a_published_phrase),
        cmocka_unit_test(test_another_phrase_and_every_changed_bit_are_refused),
        cmocka_unit_test(test_what_is_sealed_opens),
        cmocka_unit_test(test_a_new_phrase_dictionary),
        cmocka_unit_test(test_bad_dictionaries_are_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
