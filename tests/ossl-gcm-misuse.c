/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a program does wrong with AES-GCM, or seldom: the provider answers as
 * the default one, call by call and byte by byte, and nothing that should fail
 * succeeds.
 */
#include "offload/base/bytes.h"
#include "tests/support/ossl-run.h"
#include "tests/support/ossl-twin.h"
#include "tests/support/reference.h"

#include <openssl/core_names.h>
#include <string.h>

#define OK(call)      assert_int_equal(call, 1)
#define REFUSED(call) assert_int_equal(call, 0)

static struct ossl_twin t, other;
static EVP_CIPHER *const *gcm;
static uint8_t key[32], iv[128], text[1000], aad[50], tag[16];

static int fresh(void **state)
{
    uint64_t seed = 11;
    (void)state;
    gcm = ossl_here.cipher[ossl_cipher_index("AES-256-GCM")];
    reference_random(&seed, key, sizeof(key));
    reference_random(&seed, iv, sizeof(iv));
    reference_random(&seed, text, sizeof(text));
    reference_random(&seed, aad, sizeof(aad));
    twin_open(&t, 4096);
    twin_open(&other, 4096);
    twin_equal_random(true);
    return 0;
}

static int done(void **state)
{
    (void)state;
    twin_equal_random(false);
    twin_close(&t);
    twin_close(&other);
    return 0;
}

static void put_tag(const uint8_t *value, int len, int wanted)
{
    assert_int_equal(twin_ctrl(&t, EVP_CTRL_AEAD_SET_TAG, len, value, len > 0 ? (size_t)len : 0), wanted);
}

static void get_tag(struct ossl_twin *w, int len, int wanted)
{
    assert_int_equal(twin_ctrl(w, EVP_CTRL_AEAD_GET_TAG, len, NULL, len > 0 ? (size_t)len : 0), wanted);
}

/* Seals text[0..len) under key, iv, aad: `sealed` and the global tag. */
static void seal(uint8_t *sealed, size_t len)
{
    OK(twin_init(&t, gcm, key, iv, 1, NULL));
    OK(twin_update(&t, aad, sizeof(aad), TWIN_AAD));
    OK(twin_update(&t, text, len, TWIN_OUT_OF_PLACE));
    memcpy(sealed, twin_out(&t), len);
    OK(twin_final(&t));
    get_tag(&t, 16, 1);
    memcpy(tag, t.data[OSSL_TESTED], 16);
}

static void begin_opening(const uint8_t *sealed, size_t len)
{
    OK(twin_init(&t, gcm, key, iv, 0, NULL));
    OK(twin_update(&t, aad, sizeof(aad), TWIN_AAD));
    OK(twin_update(&t, sealed, len, TWIN_OUT_OF_PLACE));
    assert_memory_equal(twin_out(&t), text, len);
}

/* ---- tags ------------------------------------------------------------------------- */

static void wrong_tags(void **state)
{
    uint8_t sealed[100], bad[16];
    (void)state;
    seal(sealed, sizeof(sealed));
    for (unsigned bit = 0; bit < 128; bit++) {
        memcpy(bad, tag, 16);
        bad[bit / 8] ^= (uint8_t)(1u << bit % 8);
        begin_opening(sealed, sizeof(sealed));
        put_tag(bad, 16, 1);
        REFUSED(twin_final(&t));
    }
    begin_opening(sealed, sizeof(sealed));
    put_tag(tag, 16, 1);
    OK(twin_final(&t));
}

static void changed_text_and_aad(void **state)
{
    uint8_t sealed[100], bad[sizeof(aad)];
    (void)state;
    seal(sealed, sizeof(sealed));
    for (size_t i = 0; i < sizeof(sealed); i += 9) {
        sealed[i] ^= 0x10;
        OK(twin_init(&t, gcm, key, iv, 0, NULL));
        OK(twin_update(&t, aad, sizeof(aad), TWIN_AAD));
        OK(twin_update(&t, sealed, sizeof(sealed), TWIN_IN_PLACE));
        put_tag(tag, 16, 1);
        REFUSED(twin_final(&t));
        sealed[i] ^= 0x10;
    }
    for (size_t i = 0; i < sizeof(aad); i += 7) {
        memcpy(bad, aad, sizeof(aad));
        bad[i] ^= 1;
        OK(twin_init(&t, gcm, key, iv, 0, NULL));
        OK(twin_update(&t, bad, sizeof(bad), TWIN_AAD));
        OK(twin_update(&t, sealed, sizeof(sealed), TWIN_IN_PLACE));
        put_tag(tag, 16, 1);
        REFUSED(twin_final(&t));
    }
}

static void short_tags(void **state)
{
    uint8_t sealed[100], bad[16];
    (void)state;
    seal(sealed, sizeof(sealed));
    for (int len = 1; len <= 16; len++) {
        seal(sealed, sizeof(sealed));
        get_tag(&t, len, 1);
        assert_memory_equal(t.data[OSSL_TESTED], tag, (size_t)len);
        begin_opening(sealed, sizeof(sealed));
        put_tag(tag, len, 1);
        assert_int_equal(EVP_CIPHER_CTX_get_tag_length(t.ctx[OSSL_TESTED]), len);
        OK(twin_final(&t));
        memcpy(bad, tag, 16);
        bad[len - 1] ^= 0x80;
        begin_opening(sealed, sizeof(sealed));
        put_tag(bad, len, 1);
        REFUSED(twin_final(&t));
    }
}

static void tags_of_wrong_length(void **state)
{
    uint8_t sealed[100], longer[32] = {0};
    (void)state;
    seal(sealed, sizeof(sealed));
    get_tag(&t, 0, 0);
    get_tag(&t, 17, 0);
    get_tag(&t, -1, 0);
    begin_opening(sealed, sizeof(sealed));
    put_tag(longer, 0, 0);
    put_tag(longer, 17, 0);
    REFUSED(twin_final(&t));
}

static void tag_at_the_wrong_time(void **state)
{
    uint8_t sealed[100];
    (void)state;
    OK(twin_init(&t, gcm, key, iv, 1, NULL));
    get_tag(&t, 16, 0);   /* before final */
    put_tag(text, 16, 0); /* while encrypting */
    OK(twin_update(&t, text, 30, TWIN_OUT_OF_PLACE));
    get_tag(&t, 16, 0);
    put_tag(text, 16, 0);
    OK(twin_final(&t));
    put_tag(text, 16, 0); /* after: the tag that is read changes with the default provider */
    twin_compare_state(&t);
    seal(sealed, sizeof(sealed));
    begin_opening(sealed, sizeof(sealed));
    get_tag(&t, 16, 0); /* while decrypting */
    put_tag(tag, 16, 1);
    OK(twin_final(&t));
    get_tag(&t, 16, 0);
}

static void tag_not_set(void **state)
{
    uint8_t sealed[100];
    (void)state;
    OK(twin_init(&other, gcm, key, iv, 1, NULL)); /* a tag of the same context would do otherwise */
    OK(twin_update(&other, aad, sizeof(aad), TWIN_AAD));
    OK(twin_update(&other, text, sizeof(sealed), TWIN_OUT_OF_PLACE));
    memcpy(sealed, twin_out(&other), sizeof(sealed));
    OK(twin_final(&other));
    begin_opening(sealed, sizeof(sealed));
    REFUSED(twin_final(&t));
}

static void tag_set_twice(void **state)
{
    uint8_t sealed[100], bad[16] = {0};
    (void)state;
    seal(sealed, sizeof(sealed));
    begin_opening(sealed, sizeof(sealed));
    put_tag(bad, 16, 1);
    put_tag(tag, 16, 1);
    OK(twin_final(&t));
    begin_opening(sealed, sizeof(sealed));
    put_tag(tag, 16, 1);
    put_tag(bad, 16, 1);
    REFUSED(twin_final(&t));
    /* Set before everything else, and longer than what is set after: the last length counts. */
    OK(twin_init(&t, gcm, key, NULL, 0, NULL));
    put_tag(bad, 16, 1);
    put_tag(tag, 12, 1);
    OK(twin_init(&t, NULL, NULL, iv, 0, NULL));
    OK(twin_update(&t, aad, sizeof(aad), TWIN_AAD));
    OK(twin_update(&t, sealed, sizeof(sealed), TWIN_OUT_OF_PLACE));
    OK(twin_final(&t));
}

/* ---- order of calls -------------------------------------------------------------------- */

static void aad_after_text(void **state)
{
    (void)state;
    OK(twin_init(&t, gcm, key, iv, 1, NULL));
    OK(twin_update(&t, text, 20, TWIN_OUT_OF_PLACE));
    REFUSED(twin_update(&t, aad, 5, TWIN_AAD));
    OK(twin_update(&t, aad, 0, TWIN_AAD));
    OK(twin_update(&t, text + 20, 20, TWIN_OUT_OF_PLACE));
    OK(twin_final(&t));
    get_tag(&t, 16, 1);
}

static void after_final(void **state)
{
    (void)state;
    OK(twin_init(&t, gcm, key, iv, 1, NULL));
    OK(twin_update(&t, text, 20, TWIN_OUT_OF_PLACE));
    OK(twin_final(&t));
    REFUSED(twin_update(&t, text, 20, TWIN_OUT_OF_PLACE));
    REFUSED(twin_update(&t, aad, 20, TWIN_AAD));
    OK(twin_update(&t, text, 0, TWIN_OUT_OF_PLACE));
    REFUSED(twin_final(&t));
    get_tag(&t, 16, 1); /* still that of the message */
    twin_compare_state(&t);
    OK(twin_init(&t, NULL, key, NULL, 1, NULL)); /* a key alone does not bring the IV back */
    REFUSED(twin_update(&t, text, 20, TWIN_OUT_OF_PLACE));
    OK(twin_init(&t, NULL, NULL, iv, 1, NULL));
    OK(twin_update(&t, text, 20, TWIN_OUT_OF_PLACE));
    OK(twin_final(&t));
}

/* What failed stays failed, whatever is tried with the right tag afterwards. */
static void after_a_final_that_failed(void **state)
{
    uint8_t sealed[64], bad[16] = {0};
    (void)state;
    seal(sealed, sizeof(sealed));
    begin_opening(sealed, sizeof(sealed));
    put_tag(bad, 16, 1);
    REFUSED(twin_final(&t));
    put_tag(tag, 16, 1);
    REFUSED(twin_final(&t));
    REFUSED(twin_final(&t));
    begin_opening(sealed, sizeof(sealed)); /* a new start is a new start */
    put_tag(tag, 16, 1);
    OK(twin_final(&t));
}

static void no_key(void **state)
{
    (void)state;
    for (int enc = 0; enc < 2; enc++) {
        OK(twin_init(&t, gcm, NULL, NULL, enc, NULL));
        REFUSED(twin_update(&t, text, 20, TWIN_OUT_OF_PLACE));
        REFUSED(twin_final(&t));
        OK(twin_init(&t, gcm, NULL, iv, enc, NULL));
        REFUSED(twin_update(&t, aad, 20, TWIN_AAD));
        OK(twin_update(&t, aad, 0, TWIN_AAD));
        REFUSED(twin_final(&t));
        assert_int_equal(twin_cipher(&t, text, 20, TWIN_OUT_OF_PLACE), -1);
        twin_compare_state(&t);
    }
}

static void no_iv_for_decrypting(void **state)
{
    (void)state;
    OK(twin_init(&t, gcm, key, NULL, 0, NULL));
    REFUSED(twin_update(&t, aad, 20, TWIN_AAD));
    REFUSED(twin_update(&t, text, 20, TWIN_OUT_OF_PLACE));
    put_tag(tag, 16, 1);
    REFUSED(twin_final(&t));
}

static void key_and_iv_in_either_order(void **state)
{
    uint8_t whole[40];
    (void)state;
    OK(twin_init(&t, gcm, key, iv, 1, NULL));
    OK(twin_update(&t, text, sizeof(whole), TWIN_OUT_OF_PLACE));
    memcpy(whole, twin_out(&t), sizeof(whole));
    OK(twin_init(&t, gcm, NULL, iv, 1, NULL));
    OK(twin_init(&t, NULL, key, NULL, 1, NULL));
    OK(twin_update(&t, text, sizeof(whole), TWIN_OUT_OF_PLACE));
    assert_memory_equal(twin_out(&t), whole, sizeof(whole));
    OK(twin_init(&t, gcm, key, NULL, 1, NULL));
    OK(twin_init(&t, NULL, NULL, iv, 1, NULL));
    OK(twin_update(&t, text, sizeof(whole), TWIN_OUT_OF_PLACE));
    assert_memory_equal(twin_out(&t), whole, sizeof(whole));
    OK(twin_init(&t, NULL, NULL, iv, 1, NULL)); /* a new message in the middle of one */
    OK(twin_update(&t, text, sizeof(whole), TWIN_OUT_OF_PLACE));
    assert_memory_equal(twin_out(&t), whole, sizeof(whole));
}

static void empty_messages(void **state)
{
    (void)state;
    for (int with_aad = 0; with_aad < 2; with_aad++) {
        OK(twin_init(&t, gcm, key, iv, 1, NULL));
        if (with_aad) OK(twin_update(&t, aad, 20, TWIN_AAD));
        OK(twin_update(&t, text, 0, TWIN_OUT_OF_PLACE));
        OK(twin_final(&t));
        get_tag(&t, 16, 1);
        memcpy(tag, t.data[OSSL_TESTED], 16);
        OK(twin_init(&t, gcm, key, iv, 0, NULL));
        if (with_aad) OK(twin_update(&t, aad, 20, TWIN_AAD));
        put_tag(tag, 16, 1);
        OK(twin_final(&t));
        OK(twin_init(&t, gcm, key, iv, 0, NULL));
        OK(twin_update(&t, aad, 21, TWIN_AAD));
        put_tag(tag, 16, 1);
        REFUSED(twin_final(&t));
    }
}

/* ---- IVs --------------------------------------------------------------------------------- */

static void iv_length_after_iv(void **state)
{
    (void)state;
    OK(twin_init(&t, gcm, key, iv, 1, NULL));
    OK(twin_ctrl(&t, EVP_CTRL_AEAD_SET_IVLEN, 16, NULL, 0));
    REFUSED(twin_update(&t, text, 20, TWIN_OUT_OF_PLACE));
    REFUSED(twin_final(&t));
    twin_compare_state(&t);
    OK(twin_init(&t, NULL, NULL, iv, 1, NULL));
    OK(twin_update(&t, text, 20, TWIN_OUT_OF_PLACE));
    OK(twin_ctrl(&t, EVP_CTRL_AEAD_SET_IVLEN, 16, NULL, 0)); /* the same: nothing happens */
    OK(twin_update(&t, text, 20, TWIN_OUT_OF_PLACE));
    OK(twin_ctrl(&t, EVP_CTRL_AEAD_SET_IVLEN, 12, NULL, 0)); /* another: the message is over */
    REFUSED(twin_update(&t, text, 20, TWIN_OUT_OF_PLACE));
    OK(twin_init(&t, gcm, key, iv, 1, NULL));
    assert_int_equal(EVP_CIPHER_CTX_get_iv_length(t.ctx[OSSL_TESTED]), 12);
}

static void iv_lengths_out_of_range(void **state)
{
    static const int lengths[] = {0, -1, 129, 1000, 1 << 30};
    (void)state;
    OK(twin_init(&t, gcm, key, NULL, 1, NULL));
    for (size_t i = 0; i < RS_ARRAY_LEN(lengths); i++) {
        REFUSED(twin_ctrl(&t, EVP_CTRL_AEAD_SET_IVLEN, lengths[i], NULL, 0));
        twin_compare_state(&t);
    }
    OK(twin_init(&t, NULL, NULL, iv, 1, NULL));
    OK(twin_update(&t, text, 20, TWIN_OUT_OF_PLACE));
}

static void iv_length_with_init(void **state)
{
    (void)state;
    for (size_t len = 0; len < 130; len += 43) {
        size_t value = len;
        OSSL_PARAM params[] = {OSSL_PARAM_construct_size_t(OSSL_CIPHER_PARAM_AEAD_IVLEN, &value),
                               OSSL_PARAM_construct_end()};
        int r = twin_init(&t, gcm, key, iv, 1, params);
        assert_int_equal(r, len > 0 && len <= 128);
        if (r) OK(twin_update(&t, text, 20, TWIN_OUT_OF_PLACE));
        twin_compare_state(&t);
    }
}

/* Both sides draw the same bytes here. */
static void iv_made_when_none_is_given(void **state)
{
    static const int lengths[] = {12, 16, 60, 128, 11, 1};
    (void)state;
    for (size_t i = 0; i < RS_ARRAY_LEN(lengths); i++) {
        OK(twin_init(&t, gcm, key, NULL, 1, NULL));
        OK(twin_ctrl(&t, EVP_CTRL_AEAD_SET_IVLEN, lengths[i], NULL, 0));
        assert_int_equal(twin_update(&t, text, 50, TWIN_OUT_OF_PLACE), lengths[i] >= 12);
        twin_compare_state(&t);
        assert_int_equal(twin_final(&t), lengths[i] >= 12);
        OK(twin_init(&t, NULL, key, NULL, 1,
                     NULL)); /* the second message gets none: the first's is used up */
        REFUSED(twin_update(&t, text, 50, TWIN_OUT_OF_PLACE));
    }
}

/* With real random numbers: no two alike, and the default provider opens what was sealed. */
static void made_ivs_are_distinct(void **state)
{
    uint8_t ivs[64][12], sealed[20], out[20];
    int n;
    (void)state;
    twin_equal_random(false);
    for (size_t i = 0; i < RS_ARRAY_LEN(ivs); i++) {
        EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new(), *d = EVP_CIPHER_CTX_new();
        OK(EVP_EncryptInit_ex2(c, gcm[OSSL_TESTED], key, NULL, NULL));
        OK(EVP_EncryptUpdate(c, sealed, &n, text, sizeof(sealed)));
        OK(EVP_EncryptFinal_ex(c, sealed + n, &n));
        OK(EVP_CIPHER_CTX_get_original_iv(c, ivs[i], 12));
        OK(EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_GET_TAG, 16, tag));
        for (size_t k = 0; k < i; k++) assert_memory_not_equal(ivs[k], ivs[i], 12);
        OK(EVP_DecryptInit_ex2(d, gcm[OSSL_DEFAULT], key, ivs[i], NULL));
        OK(EVP_DecryptUpdate(d, out, &n, sealed, sizeof(sealed)));
        OK(EVP_CIPHER_CTX_ctrl(d, EVP_CTRL_AEAD_SET_TAG, 16, tag));
        OK(EVP_DecryptFinal_ex(d, out + n, &n));
        assert_memory_equal(out, text, sizeof(out));
        EVP_CIPHER_CTX_free(c);
        EVP_CIPHER_CTX_free(d);
    }
}

/* ---- copies ---------------------------------------------------------------------------------- */

/* A copy and its original go on by themselves, with different text, from every place in a block. */
static void copy_in_mid_message(void **state)
{
    (void)state;
    for (size_t before = 0; before < 40; before++) {
        for (int enc = 0; enc < 2; enc++) {
            OK(twin_init(&t, gcm, key, iv, enc, NULL));
            OK(twin_update(&t, aad, before % 20, TWIN_AAD));
            OK(twin_update(&t, text, before, TWIN_OUT_OF_PLACE));
            OK(twin_copy(&other, &t));
            twin_compare_state(&other);
            OK(twin_update(&t, text + before, 300, TWIN_IN_PLACE));
            OK(twin_update(&other, text + 100, 77, TWIN_OUT_OF_PLACE));
            if (!enc) {
                put_tag(tag, 16, 1);
                REFUSED(twin_final(&t));
                REFUSED(twin_final(&other));
                continue;
            }
            OK(twin_final(&t));
            OK(twin_final(&other));
            get_tag(&t, 16, 1);
            get_tag(&other, 16, 1);
        }
    }
}

static void copy_outlives_original(void **state)
{
    (void)state;
    OK(twin_init(&t, gcm, key, iv, 1, NULL));
    OK(twin_update(&t, text, 33, TWIN_OUT_OF_PLACE));
    OK(twin_copy(&other, &t));
    OK(twin_reset(&t));
    OK(twin_update(&other, text + 33, 500, TWIN_OUT_OF_PLACE));
    OK(twin_final(&other));
    get_tag(&other, 16, 1);
    OK(twin_init(&t, gcm, key, iv, 1, NULL));
    OK(twin_copy(&t, &other)); /* over a context that is in use */
    twin_compare_state(&t);
    REFUSED(twin_copy(&t, &(struct ossl_twin){.ctx = {NULL, NULL}}));
}

static void reset_forgets_all(void **state)
{
    (void)state;
    OK(twin_init(&t, gcm, key, iv, 1, NULL));
    OK(twin_ctrl(&t, EVP_CTRL_AEAD_SET_IVLEN, 40, NULL, 0));
    OK(twin_reset(&t));
    OK(twin_init(&t, gcm, NULL, iv, 1, NULL));
    REFUSED(twin_update(&t, text, 20, TWIN_OUT_OF_PLACE));
    assert_int_equal(EVP_CIPHER_CTX_get_iv_length(t.ctx[OSSL_TESTED]), 12);
    twin_compare_state(&t);
}

static void changes_of_cipher(void **state)
{
    (void)state;
    for (int i = 0; i < 60; i++) {
        int cipher = i * 5 % OSSL_CIPHERS;
        bool is_gcm = ossl_ciphers[cipher].mode == EVP_CIPH_GCM_MODE;
        uint8_t raw[64];
        for (size_t k = 0; k < sizeof(raw); k++) raw[k] = (uint8_t)(k * 3 + (size_t)i);
        OK(twin_init(&t, ossl_here.cipher[cipher], raw, iv, i & 1, NULL));
        if (is_gcm) OK(twin_update(&t, aad, 20, TWIN_AAD));
        OK(twin_update(&t, text, 100, TWIN_IN_PLACE));
        if (i % 3 == 0 && !is_gcm) OK(twin_final(&t));
    }
}

/* ---- EVP_Cipher() ------------------------------------------------------------------------------ */

static void one_call_interface(void **state)
{
    (void)state;
    OK(twin_init(&t, gcm, key, iv, 1, NULL));
    assert_int_equal(twin_cipher(&t, aad, 20, TWIN_AAD), 20);
    assert_int_equal(twin_cipher(&t, text, 100, TWIN_OUT_OF_PLACE), 100);
    assert_int_equal(twin_cipher(&t, text, 0, TWIN_OUT_OF_PLACE), 0);
    assert_int_equal(twin_cipher(&t, text, 60, TWIN_IN_PLACE), 60);
    assert_int_equal(twin_cipher(&t, NULL, 0, TWIN_OUT_OF_PLACE), 0); /* final */
    get_tag(&t, 16, 1);
    assert_int_equal(twin_cipher(&t, text, 60, TWIN_IN_PLACE), -1);
    OK(twin_init(&t, gcm, key, iv, 0, NULL));
    assert_int_equal(twin_cipher(&t, text, 100, TWIN_OUT_OF_PLACE), 100);
    assert_int_equal(twin_cipher(&t, NULL, 0, TWIN_OUT_OF_PLACE), -1); /* no tag */
}

#define each(test) cmocka_unit_test_setup_teardown(test, fresh, done)

int main(void)
{
    const struct CMUnitTest tests[] = {
        each(wrong_tags),
        each(changed_text_and_aad),
        each(short_tags),
        each(tags_of_wrong_length),
        each(tag_at_the_wrong_time),
        each(tag_not_set),
        each(tag_set_twice),
        each(aad_after_text),
        each(after_final),
        each(after_a_final_that_failed),
        each(no_key),
        each(no_iv_for_decrypting),
        each(key_and_iv_in_either_order),
        each(empty_messages),
        each(iv_length_after_iv),
        each(iv_lengths_out_of_range),
        each(iv_length_with_init),
        each(iv_made_when_none_is_given),
        each(made_ivs_are_distinct),
        each(copy_in_mid_message),
        each(copy_outlives_original),
        each(reset_forgets_all),
        each(changes_of_cipher),
        each(one_call_interface),
    };
    return ossl_run(tests);
}
