/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records of TLS as libssl makes them by controls of the cipher: TLS 1.2 (a
 * fixed part of the IV, explicit nonces that count, whole records in place) and
 * TLS 1.3 (an IV for each record, the header as AAD). Byte by byte what the
 * default provider makes, in both directions; what is forged is wiped.
 */
#include "offload/base/bytes.h"
#include "tests/support/ossl-run.h"
#include "tests/support/ossl-twin.h"
#include "tests/support/reference.h"

#include <string.h>

#define OK(call)      assert_int_equal(call, 1)
#define REFUSED(call) assert_int_equal(call, 0)
#define TEXT_MAX      (16384u + 256)
#define AROUND        24u /* explicit nonce and tag */
#define HEADER        13u /* sequence number, type, version, length */

static struct ossl_twin sender, receiver;
static EVP_CIPHER *const *gcm;
static uint8_t key[32], fixed[4], text[TEXT_MAX], record[TEXT_MAX + AROUND];
static uint64_t seed;

static int fresh(void **state)
{
    (void)state;
    seed = 3;
    gcm = ossl_here.cipher[ossl_cipher_index("AES-256-GCM")];
    reference_random(&seed, key, sizeof(key));
    reference_random(&seed, fixed, sizeof(fixed));
    reference_random(&seed, text, sizeof(text));
    twin_open(&sender, sizeof(record));
    twin_open(&receiver, sizeof(record));
    twin_equal_random(true);
    return 0;
}

static int done(void **state)
{
    (void)state;
    twin_equal_random(false);
    twin_close(&sender);
    twin_close(&receiver);
    return 0;
}

/* As libssl sets up a direction: the key, then the fixed part of the IV. */
static void begin(struct ossl_twin *t, int enc)
{
    OK(twin_init(t, gcm, key, NULL, enc, NULL));
    OK(twin_ctrl(t, EVP_CTRL_GCM_SET_IV_FIXED, 4, fixed, 4));
}

/* The AAD of record `number`: `len` is what follows the header, as the control wants it. */
static int announce(struct ossl_twin *t, uint64_t number, size_t len)
{
    uint8_t aad[HEADER] = {0};
    rs_store_be64(aad, number);
    aad[8] = 23;
    aad[9] = aad[10] = 3;
    aad[11] = (uint8_t)(len >> 8);
    aad[12] = (uint8_t)len;
    return twin_ctrl(t, EVP_CTRL_AEAD_TLS1_AAD, HEADER, aad, HEADER);
}

/* A record with room for nonce and tag, sealed in place; it is in `record`. */
static void send(uint64_t number, size_t len)
{
    memcpy(record + 8, text, len);
    assert_int_equal(announce(&sender, number, len + 8), 16);
    assert_int_equal(twin_cipher(&sender, record, len + AROUND, TWIN_IN_PLACE), (int)(len + AROUND));
    memcpy(record, twin_out(&sender), len + AROUND);
}

/* EVP_Cipher() answers with the length that it was given, or -1. */
static bool receive(uint64_t number, size_t len)
{
    assert_int_equal(announce(&receiver, number, len + AROUND), 16);
    int r = twin_cipher(&receiver, record, len + AROUND, TWIN_IN_PLACE);
    if (r < 0) return false;
    assert_int_equal(r, len + AROUND);
    assert_memory_equal(twin_out(&receiver) + 8, text, len);
    return true;
}

static void every_length(void **state)
{
    (void)state;
    for (int bits = 0; bits < 3; bits++) {
        gcm = ossl_here.cipher[bits];
        begin(&sender, 1);
        begin(&receiver, 0);
        uint64_t number = 0;
        for (size_t len = 0; len <= 16384; len += len < 600 ? 1 : 1 + len / 7, number++) {
            sender.out_skew = (unsigned)(len * 5 % 64);
            receiver.out_skew = (unsigned)(len * 3 % 64);
            send(number, len);
            assert_true(receive(number, len));
        }
        send(number, 16384);
        assert_true(receive(number, 16384));
    }
}

/* The explicit nonce goes up by one from a start that is drawn, and runs over. */
static void nonces_count(void **state)
{
    uint8_t whole[12] = {9, 8, 7, 6, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe};
    uint64_t last = 0;
    (void)state;
    begin(&sender, 1);
    for (uint64_t number = 0; number < 300; number++) {
        send(number, 20);
        uint64_t nonce = __builtin_bswap64(rs_load_le64(record));
        if (number > 0) assert_true(nonce == last + 1);
        last = nonce;
    }
    OK(twin_ctrl(&sender, EVP_CTRL_GCM_SET_IV_FIXED, -1, whole, sizeof(whole))); /* all of the IV */
    static const uint64_t wanted[] = {~1ull, ~0ull, 0, 1};
    for (size_t i = 0; i < RS_ARRAY_LEN(wanted); i++) {
        send(i, 20);
        assert_true(__builtin_bswap64(rs_load_le64(record)) == wanted[i]);
        twin_compare_state(&sender);
    }
}

/* With real random numbers: nonces of two keys start differently. */
static void first_nonce_is_random(void **state)
{
    uint64_t nonces[16];
    (void)state;
    twin_equal_random(false);
    for (size_t i = 0; i < RS_ARRAY_LEN(nonces); i++) {
        uint8_t out[8];
        EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
        OK(EVP_EncryptInit_ex2(c, gcm[OSSL_TESTED], key, NULL, NULL));
        OK(EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_SET_IV_FIXED, 4, fixed));
        OK(EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_IV_GEN, 8, out));
        nonces[i] = rs_load_le64(out);
        for (size_t k = 0; k < i; k++) assert_true(nonces[k] != nonces[i]);
        EVP_CIPHER_CTX_free(c);
    }
}

/* Any changed bit: refused, and no text is left. (EVP_Cipher() tells it by -1.) */
static void forged_records(void **state)
{
    static uint8_t good[200 + AROUND];
    (void)state;
    begin(&sender, 1);
    begin(&receiver, 0);
    for (size_t i = 0; i < sizeof(good); i++) {
        send(i, 200);
        record[i] ^= (uint8_t)(1u << i % 8);
        assert_false(receive(i, 200));
        for (size_t k = 8; k < 208; k++) assert_int_equal(twin_out(&receiver)[k], 0);
        record[i] ^= (uint8_t)(1u << i % 8);
        assert_false(receive(i + 1, 200)); /* another sequence number */
        assert_true(receive(i, 200));      /* and what is right still is */
    }
}

/* What libssl never does. */
static void misuse(void **state)
{
    static uint8_t out[300];
    uint8_t aad[HEADER] = {0};
    (void)state;
    begin(&sender, 1);
    begin(&receiver, 0);
    assert_int_equal(announce(&sender, 0, 7), 0); /* shorter than the nonce */
    twin_cipher(&sender, text, 100, TWIN_IN_PLACE);
    assert_int_equal(announce(&receiver, 0, 23), 0); /* than nonce and tag */
    twin_cipher(&receiver, text, 100, TWIN_IN_PLACE);
    for (int len = 0; len <= 16; len++)
        assert_int_equal(twin_ctrl(&sender, EVP_CTRL_AEAD_TLS1_AAD, len, out, 16), 0);
    assert_int_equal(announce(&sender, 0, 108), 16);
    assert_int_equal(twin_cipher(&sender, text, 124, TWIN_OUT_OF_PLACE), -1); /* must be in place */
    assert_int_equal(twin_cipher(&sender, text, 124, TWIN_IN_PLACE), -1);     /* and the AAD is used up */
    for (size_t len = 0; len < AROUND; len++) {
        begin(&sender, 1);
        assert_int_equal(announce(&sender, 0, 50), 16);
        assert_int_equal(twin_cipher(&sender, text, len, TWIN_IN_PLACE), -1);
    }
    begin(&sender, 1);
    assert_int_equal(announce(&sender, 0, 108), 16);
    REFUSED(twin_final(&sender));
    OK(twin_init(&sender, gcm, NULL, NULL, 1, NULL)); /* no key */
    OK(twin_ctrl(&sender, EVP_CTRL_GCM_SET_IV_FIXED, 4, fixed, 4));
    assert_int_equal(announce(&sender, 0, 108), 16);
    assert_int_equal(twin_cipher(&sender, text, 124, TWIN_IN_PLACE), -1);
    OK(twin_init(&sender, gcm, key, NULL, 1, NULL)); /* no fixed part */
    assert_int_equal(announce(&sender, 0, 108), 16);
    assert_int_equal(twin_cipher(&sender, text, 124, TWIN_IN_PLACE), -1);
    OK(twin_init(&receiver, gcm, key, NULL, 0, NULL));
    assert_int_equal(twin_ctrl(&receiver, EVP_CTRL_AEAD_TLS1_AAD, HEADER, aad, HEADER), 0);
    for (int len = 0; len <= 12; len++) {
        twin_ctrl(&sender, EVP_CTRL_GCM_SET_IV_FIXED, len, text, 12);
        twin_ctrl(&receiver, EVP_CTRL_GCM_SET_IV_INV, len, text, 12);
        twin_compare_state(&sender);
        twin_compare_state(&receiver);
    }
}

/* Records by EVP_CipherUpdate(), a copy of the sender in between, the other IV controls. */
static void other_ways(void **state)
{
    (void)state;
    begin(&sender, 1);
    begin(&receiver, 0);
    for (size_t i = 0; i < 40; i++) {
        memcpy(record + 8, text, 100);
        assert_int_equal(announce(&sender, i, 108), 16);
        if (i % 5 == 4) {
            OK(twin_copy(&receiver, &sender));
            OK(twin_copy(&sender, &receiver));
            begin(&receiver, 0);
        }
        OK(twin_update(&sender, record, 124, TWIN_IN_PLACE));
        assert_int_equal(sender.out_len, 124);
        memcpy(record, twin_out(&sender), 124);
        assert_int_equal(announce(&receiver, i, 124), 16);
        OK(twin_update(&receiver, record, 124, TWIN_IN_PLACE));
        assert_int_equal(receiver.out_len, 100);
        assert_memory_equal(twin_out(&receiver) + 8, text, 100);
        twin_compare_state(&sender);
        twin_compare_state(&receiver);
    }
    /* The explicit part by hand, and a message in parts under it. */
    for (int len = -1; len <= 12; len++) {
        OK(twin_ctrl(&sender, EVP_CTRL_GCM_IV_GEN, len, NULL, 16));
        OK(twin_update(&sender, text, 77, TWIN_OUT_OF_PLACE));
        twin_compare_state(&sender);
        OK(twin_final(&sender));
        OK(twin_ctrl(&sender, EVP_CTRL_AEAD_GET_TAG, 16, NULL, 16));
        REFUSED(twin_update(&sender, text, 77, TWIN_OUT_OF_PLACE));
    }
    OK(twin_ctrl(&receiver, EVP_CTRL_GCM_SET_IV_INV, 8, text, 8));
    OK(twin_update(&receiver, text, 77, TWIN_OUT_OF_PLACE));
    REFUSED(twin_ctrl(&sender, EVP_CTRL_GCM_SET_IV_INV, 8, text, 8)); /* encrypting */
}

/* TLS 1.3: IV XOR sequence number, the header as AAD, the tag behind the text; context and key stay. */
static void tls13(void **state)
{
    uint8_t iv[12], nonce[12], header[5] = {23, 3, 3}, tag[16];
    static uint8_t sealed[TEXT_MAX];
    (void)state;
    reference_random(&seed, iv, sizeof(iv));
    OK(twin_init(&sender, gcm, key, NULL, 1, NULL));
    OK(twin_init(&receiver, gcm, key, NULL, 0, NULL));
    for (uint64_t number = 0; number < 200; number++) {
        size_t len = number % 10 == 0 ? 16385 : (size_t)(number * 37 % 2000) + 1;
        header[3] = (uint8_t)((len + 16) >> 8);
        header[4] = (uint8_t)(len + 16);
        memcpy(nonce, iv, sizeof(nonce));
        for (int i = 0; i < 8; i++) nonce[11 - i] ^= (uint8_t)(number >> 8 * i);
        OK(twin_init(&sender, NULL, NULL, nonce, -1, NULL));
        OK(twin_update(&sender, header, 5, TWIN_AAD));
        OK(twin_update(&sender, text, len, TWIN_IN_PLACE));
        memcpy(sealed, twin_out(&sender), len);
        OK(twin_final(&sender));
        OK(twin_ctrl(&sender, EVP_CTRL_AEAD_GET_TAG, 16, NULL, 16));
        memcpy(tag, sender.data[OSSL_TESTED], 16);
        for (int forged = 1; forged >= 0; forged--) {
            tag[number % 16] ^= 0x20; /* changed, and changed back */
            OK(twin_init(&receiver, NULL, NULL, nonce, -1, NULL));
            OK(twin_ctrl(&receiver, EVP_CTRL_AEAD_SET_TAG, 16, tag, 16));
            OK(twin_update(&receiver, header, 5, TWIN_AAD));
            OK(twin_update(&receiver, sealed, len, TWIN_IN_PLACE));
            assert_memory_equal(twin_out(&receiver), text, len);
            assert_int_equal(twin_final(&receiver), !forged);
        }
    }
}

#define each(test) cmocka_unit_test_setup_teardown(test, fresh, done)

int main(void)
{
    const struct CMUnitTest tests[] = {
        each(every_length),   each(nonces_count), each(first_nonce_is_random),
        each(forged_records), each(misuse),       each(other_ways),
        each(tls13),
    };
    return ossl_run(tests);
}
