/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whatever can be asked of a cipher or a context, or told it, has the answer of
 * the default provider: names, object identifiers, flags, lengths, the lists of
 * parameters and their values in every type and size, and all controls.
 */
#include "offload/base/bytes.h"
#include "tests/support/ossl-run.h"
#include "tests/support/ossl-twin.h"

#include <openssl/core_names.h>
#include <stdio.h>
#include <string.h>

#define TEXT 4096u

static struct ossl_twin t;

/* ---- the cipher -------------------------------------------------------------------- */

struct names {
    char text[32][96];
    size_t count;
};

static void add_name(const char *name, void *arg)
{
    struct names *n = arg;
    assert_true(n->count < RS_ARRAY_LEN(n->text));
    snprintf(n->text[n->count++], sizeof(n->text[0]), "%s", name);
}

static bool has_name(const struct names *n, const char *name)
{
    for (size_t i = 0; i < n->count; i++)
        if (strcmp(n->text[i], name) == 0) return true;
    return false;
}

static void names_and_oids(void **state)
{
    (void)state;
    for (int i = 0; i < OSSL_CIPHERS; i++) {
        struct names n[OSSL_SIDES] = {0};
        EVP_CIPHER *const *c = ossl_here.cipher[i];
        for (int side = 0; side < OSSL_SIDES; side++)
            assert_int_equal(EVP_CIPHER_names_do_all(c[side], add_name, &n[side]), 1);
        assert_int_equal(n[OSSL_TESTED].count, n[OSSL_DEFAULT].count);
        for (size_t k = 0; k < n[OSSL_DEFAULT].count; k++) {
            assert_true(has_name(&n[OSSL_TESTED], n[OSSL_DEFAULT].text[k]));
            assert_int_equal(EVP_CIPHER_is_a(c[OSSL_TESTED], n[OSSL_DEFAULT].text[k]), 1);
            EVP_CIPHER *by_name =
                EVP_CIPHER_fetch(ossl_here.libctx, n[OSSL_DEFAULT].text[k], ossl_properties(OSSL_TESTED));
            assert_non_null(by_name);
            EVP_CIPHER_free(by_name);
        }
        assert_string_equal(EVP_CIPHER_get0_name(c[OSSL_TESTED]), EVP_CIPHER_get0_name(c[OSSL_DEFAULT]));
    }
}

static void constants(void **state)
{
    (void)state;
    for (int i = 0; i < OSSL_CIPHERS; i++) {
        const EVP_CIPHER *a = ossl_here.cipher[i][OSSL_TESTED], *b = ossl_here.cipher[i][OSSL_DEFAULT];
        assert_int_equal(EVP_CIPHER_get_nid(a), EVP_CIPHER_get_nid(b));
        assert_int_equal(EVP_CIPHER_get_type(a), EVP_CIPHER_get_type(b));
        assert_int_equal(EVP_CIPHER_get_flags(a), EVP_CIPHER_get_flags(b));
        assert_int_equal(EVP_CIPHER_get_mode(a), EVP_CIPHER_get_mode(b));
        assert_int_equal(EVP_CIPHER_get_mode(a), ossl_ciphers[i].mode);
        assert_int_equal(EVP_CIPHER_get_key_length(a), ossl_ciphers[i].key_len);
        assert_int_equal(EVP_CIPHER_get_key_length(a), EVP_CIPHER_get_key_length(b));
        assert_int_equal(EVP_CIPHER_get_iv_length(a), EVP_CIPHER_get_iv_length(b));
        assert_int_equal(EVP_CIPHER_get_block_size(a), EVP_CIPHER_get_block_size(b));
    }
}

static void same_list(const char *cipher, const char *what, const OSSL_PARAM *a, const OSSL_PARAM *b)
{
    size_t count[OSSL_SIDES] = {0};
    assert_int_equal(a == NULL, b == NULL);
    if (a == NULL) return;
    for (const OSSL_PARAM *p = a; p->key != NULL; p++) count[OSSL_TESTED]++;
    for (; b->key != NULL; b++) {
        const OSSL_PARAM *p = OSSL_PARAM_locate_const(a, b->key);
        if (p == NULL) fail_msg("%s, %s: %s is missing", cipher, what, b->key);
        if (p->data_type != b->data_type || p->data_size != b->data_size)
            fail_msg("%s, %s: %s has another type", cipher, what, b->key);
        count[OSSL_DEFAULT]++;
    }
    if (count[OSSL_TESTED] != count[OSSL_DEFAULT])
        fail_msg("%s, %s: %zu parameters, by default %zu", cipher, what, count[OSSL_TESTED],
                 count[OSSL_DEFAULT]);
}

static void lists_of_parameters(void **state)
{
    (void)state;
    for (int i = 0; i < OSSL_CIPHERS; i++) {
        EVP_CIPHER *a = ossl_here.cipher[i][OSSL_TESTED], *b = ossl_here.cipher[i][OSSL_DEFAULT];
        const char *name = ossl_ciphers[i].name;
        same_list(name, "gettable", EVP_CIPHER_gettable_params(a), EVP_CIPHER_gettable_params(b));
        same_list(name, "gettable of contexts", EVP_CIPHER_gettable_ctx_params(a),
                  EVP_CIPHER_gettable_ctx_params(b));
        same_list(name, "settable of contexts", EVP_CIPHER_settable_ctx_params(a),
                  EVP_CIPHER_settable_ctx_params(b));
        assert_int_equal(twin_init(&t, ossl_here.cipher[i], NULL, NULL, 1, NULL), 1);
        same_list(name, "gettable of this context", EVP_CIPHER_CTX_gettable_params(t.ctx[OSSL_TESTED]),
                  EVP_CIPHER_CTX_gettable_params(t.ctx[OSSL_DEFAULT]));
        same_list(name, "settable of this context", EVP_CIPHER_CTX_settable_params(t.ctx[OSSL_TESTED]),
                  EVP_CIPHER_CTX_settable_params(t.ctx[OSSL_DEFAULT]));
    }
}

/* Every parameter that a cipher of any kind may have, and one that none has. */
static const char *const keys[] = {
    OSSL_CIPHER_PARAM_MODE,
    OSSL_CIPHER_PARAM_BLOCK_SIZE,
    OSSL_CIPHER_PARAM_AEAD,
    OSSL_CIPHER_PARAM_CUSTOM_IV,
    OSSL_CIPHER_PARAM_CTS,
    OSSL_CIPHER_PARAM_TLS1_MULTIBLOCK,
    OSSL_CIPHER_PARAM_HAS_RAND_KEY,
    OSSL_CIPHER_PARAM_KEYLEN,
    OSSL_CIPHER_PARAM_IVLEN,
    OSSL_CIPHER_PARAM_IV,
    OSSL_CIPHER_PARAM_UPDATED_IV,
    OSSL_CIPHER_PARAM_NUM,
    OSSL_CIPHER_PARAM_PADDING,
    OSSL_CIPHER_PARAM_USE_BITS,
    OSSL_CIPHER_PARAM_TLS_VERSION,
    OSSL_CIPHER_PARAM_TLS_MAC,
    OSSL_CIPHER_PARAM_TLS_MAC_SIZE,
    OSSL_CIPHER_PARAM_AEAD_TAG,
    OSSL_CIPHER_PARAM_AEAD_TAGLEN,
    OSSL_CIPHER_PARAM_AEAD_TLS1_AAD,
    OSSL_CIPHER_PARAM_AEAD_TLS1_AAD_PAD,
    OSSL_CIPHER_PARAM_AEAD_TLS1_IV_FIXED,
    OSSL_CIPHER_PARAM_AEAD_TLS1_GET_IV_GEN,
    OSSL_CIPHER_PARAM_AEAD_TLS1_SET_IV_INV,
    OSSL_CIPHER_PARAM_AEAD_MAC_KEY,
    OSSL_CIPHER_PARAM_RANDOM_KEY,
    OSSL_CIPHER_PARAM_ROUNDS,
    OSSL_CIPHER_PARAM_CTS_MODE,
    OSSL_CIPHER_PARAM_ALGORITHM_ID_PARAMS,
    "no-such-parameter",
};

static const unsigned types[] = {OSSL_PARAM_INTEGER,     OSSL_PARAM_UNSIGNED_INTEGER, OSSL_PARAM_REAL,
                                 OSSL_PARAM_UTF8_STRING, OSSL_PARAM_OCTET_STRING,     OSSL_PARAM_UTF8_PTR,
                                 OSSL_PARAM_OCTET_PTR};
static const size_t sizes[] = {0, 1, 4, 8, 12, 13, 16, 17, 200};

/* libcrypto's own copying of a number of no bytes looks at the byte before it: the answer is chance. */
static bool by_chance(unsigned type, size_t size)
{
    return size == 0 && (type == OSSL_PARAM_INTEGER || type == OSSL_PARAM_UNSIGNED_INTEGER);
}

static void values_of_ciphers(void **state)
{
    (void)state;
    for (size_t k = 0; k < OSSL_CIPHERS * RS_ARRAY_LEN(keys) * RS_ARRAY_LEN(types) * RS_ARRAY_LEN(sizes);
         k++) {
        size_t n = k, i = n % OSSL_CIPHERS, type = types[(n /= OSSL_CIPHERS) % RS_ARRAY_LEN(types)];
        size_t size = sizes[(n /= RS_ARRAY_LEN(types)) % RS_ARRAY_LEN(sizes)];
        const char *key = keys[n / RS_ARRAY_LEN(sizes)];
        if (by_chance((unsigned)type, size)) continue;
        uint8_t data[OSSL_SIDES][256];
        size_t returned[OSSL_SIDES];
        int r[OSSL_SIDES];
        for (int side = 0; side < OSSL_SIDES; side++) {
            memset(data[side], 0xc7, sizeof(data[0]));
            OSSL_PARAM p[] = {{key, (unsigned)type, data[side], size, OSSL_PARAM_UNMODIFIED}, OSSL_PARAM_END};
            r[side] = EVP_CIPHER_get_params(ossl_here.cipher[i][side], p);
            returned[side] = p[0].return_size;
        }
        if (r[0] != r[1] || returned[0] != returned[1] || memcmp(data[0], data[1], sizeof(data[0])) != 0)
            fail_msg("%s: %s of type %zu and size %zu: %d %zu, by default %d %zu", ossl_ciphers[i].name, key,
                     type, size, r[0], returned[0], r[1], returned[1]);
    }
}

/* ---- contexts ------------------------------------------------------------------------- */

enum stage { WITH_CIPHER, WITH_KEY, WITH_IV, BEGUN, ENDED, STAGES };

/* A context of cipher i as far as `s`. */
static void bring_to(int i, int s, int enc)
{
    uint8_t key[64], iv[128], text[32] = {1};
    for (size_t k = 0; k < sizeof(key); k++) key[k] = (uint8_t)(5 * k);
    memset(iv, 0x42, sizeof(iv));
    twin_init(&t, ossl_here.cipher[i], NULL, NULL, enc, NULL);
    if (s >= WITH_KEY) twin_init(&t, NULL, key, NULL, enc, NULL);
    if (s >= WITH_IV) twin_init(&t, NULL, NULL, iv, enc, NULL);
    if (s >= BEGUN) twin_update(&t, text, 21, TWIN_OUT_OF_PLACE);
    if (s >= ENDED) twin_final(&t);
}

static void values_of_contexts(void **state)
{
    (void)state;
    for (int i = 0; i < OSSL_CIPHERS; i++) {
        for (int s = 0; s < 2 * STAGES; s++) {
            bring_to(i, s / 2, s & 1);
            for (size_t k = 0; k < RS_ARRAY_LEN(keys); k++) {
                for (size_t type = 0; type < RS_ARRAY_LEN(types); type++) {
                    for (size_t n = 0; n < RS_ARRAY_LEN(sizes); n++)
                        if (!by_chance(types[type], sizes[n])) twin_get(&t, keys[k], types[type], sizes[n]);
                    twin_get(&t, keys[k], types[type], (size_t)-1);
                }
            }
        }
    }
}

/* More than the IV's length makes the default provider write outside its context. */
static bool default_is_unsafe(const char *key, size_t size)
{
    return size > 12 && (strcmp(key, OSSL_CIPHER_PARAM_AEAD_TLS1_IV_FIXED) == 0 ||
                         strcmp(key, OSSL_CIPHER_PARAM_AEAD_TLS1_SET_IV_INV) == 0);
}

/* Sets one parameter, looks at the context, and goes on with it. */
static void set_and_go_on(int i, int s, const char *key, unsigned type, size_t size)
{
    static const uint8_t values[][16] = {{16}, {0}, {1}, {12}, {64, 1}, {0xff, 0xff, 0xff, 0xff}};
    bool number = type == OSSL_PARAM_INTEGER || type == OSSL_PARAM_UNSIGNED_INTEGER;
    uint8_t data[256], text[64] = {0};
    for (size_t v = 0; v < (number ? RS_ARRAY_LEN(values) : 1); v++) {
        bring_to(i, s / 2, s & 1);
        memset(data, number ? 0 : 0x17, sizeof(data));
        memcpy(data, values[v], 16);
        twin_set(&t, key, type, data, size);
        twin_compare_state(&t);
        twin_update(&t, text, 48, TWIN_IN_PLACE);
        twin_final(&t);
        twin_compare_state(&t);
    }
}

/* One cipher of each mode: key sizes share the code. */
static const char *const modes[] = {"AES-192-GCM", "AES-256-XTS", "AES-128-CTR"};

static void settings_of_contexts(void **state)
{
    (void)state;
    twin_equal_random(true);
    for (size_t i = 0; i < RS_ARRAY_LEN(modes); i++)
        for (int s = 2 * WITH_IV; s < 2 * ENDED; s++)
            for (size_t k = 0; k < RS_ARRAY_LEN(keys); k++)
                for (size_t type = 0; type < RS_ARRAY_LEN(types); type++)
                    for (size_t n = 0; n < RS_ARRAY_LEN(sizes); n++)
                        if (!default_is_unsafe(keys[k], sizes[n]) && !by_chance(types[type], sizes[n]))
                            set_and_go_on(ossl_cipher_index(modes[i]), s, keys[k], types[type], sizes[n]);
    twin_equal_random(false);
}

/* Those that the default provider cannot be asked for. */
static void unsafe_lengths_are_refused(void **state)
{
    static const char *const unsafe[] = {OSSL_CIPHER_PARAM_AEAD_TLS1_IV_FIXED,
                                         OSSL_CIPHER_PARAM_AEAD_TLS1_SET_IV_INV};
    static uint8_t data[512], key[32], iv[16];
    (void)state;
    if (ossl_delegated()) skip();
    EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
    for (size_t k = 0; k < RS_ARRAY_LEN(unsafe); k++) {
        for (size_t size = 13; size < sizeof(data); size += 7) {
            OSSL_PARAM p[] = {{unsafe[k], OSSL_PARAM_OCTET_STRING, data, size, 0}, OSSL_PARAM_END};
            for (int enc = 0; enc < 2; enc++) {
                assert_int_equal(EVP_CipherInit_ex2(c, ossl_here.cipher[0][OSSL_TESTED], key, iv, enc, NULL),
                                 1);
                assert_int_equal(EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_SET_IV_FIXED, 4, data), 1);
                assert_int_equal(EVP_CIPHER_CTX_set_params(c, p), 0);
            }
        }
    }
    EVP_CIPHER_CTX_free(c);
}

/* ---- controls ---------------------------------------------------------------------------- */

/* Those that read a structure, and those that let the default provider write outside its context. */
static bool can_be_asked(int type, int arg)
{
    if (type >= EVP_CTRL_TLS1_1_MULTIBLOCK_AAD && type <= EVP_CTRL_TLS1_1_MULTIBLOCK_MAX_BUFSIZE)
        return false;
    if (type == EVP_CTRL_AEAD_SET_IV_FIXED || type == EVP_CTRL_GCM_SET_IV_INV) return arg <= 12;
    return true;
}

static void controls(void **state)
{
    static const int args[] = {-1, 0, 1, 4, 8, 12, 13, 14, 16, 17, 24, 32, 64, 128};
    uint8_t data[256], text[64] = {3};
    (void)state;
    twin_equal_random(true);
    for (size_t k = 0; k < sizeof(data); k++) data[k] = (uint8_t)k;
    for (size_t i = 0; i < RS_ARRAY_LEN(modes); i++) {
        for (int s = 0; s < 2 * STAGES; s++) {
            for (int type = 0; type <= 0x30; type++) {
                for (size_t a = 0; a < RS_ARRAY_LEN(args); a++) {
                    if (!can_be_asked(type, args[a])) continue;
                    bring_to(ossl_cipher_index(modes[i]), s / 2, s & 1);
                    twin_ctrl(&t, type, args[a], data, sizeof(data));
                    twin_compare_state(&t);
                    twin_update(&t, text, 40, TWIN_IN_PLACE);
                    twin_final(&t);
                    twin_compare_state(&t);
                }
            }
        }
    }
    twin_equal_random(false);
}

static void key_length_and_padding(void **state)
{
    static const int lengths[] = {-1, 0, 1, 16, 24, 32, 48, 64, 65};
    (void)state;
    for (int i = 0; i < OSSL_CIPHERS; i++) {
        for (size_t k = 0; k < RS_ARRAY_LEN(lengths); k++) {
            bring_to(i, WITH_IV, 1);
            int r[OSSL_SIDES];
            for (int side = 0; side < OSSL_SIDES; side++)
                r[side] = EVP_CIPHER_CTX_set_key_length(t.ctx[side], lengths[k]);
            assert_int_equal(r[OSSL_TESTED], r[OSSL_DEFAULT]);
            for (int side = 0; side < OSSL_SIDES; side++)
                r[side] = EVP_CIPHER_CTX_set_padding(t.ctx[side], (int)k & 1);
            assert_int_equal(r[OSSL_TESTED], r[OSSL_DEFAULT]);
            twin_compare_state(&t);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_and_oids),
        cmocka_unit_test(constants),
        cmocka_unit_test(lists_of_parameters),
        cmocka_unit_test(values_of_ciphers),
        cmocka_unit_test(values_of_contexts),
        cmocka_unit_test(settings_of_contexts),
        cmocka_unit_test(unsafe_lengths_are_refused),
        cmocka_unit_test(controls),
        cmocka_unit_test(key_length_and_padding),
    };
    twin_open(&t, TEXT);
    int failed = ossl_run_widest(tests);
    twin_close(&t);
    return failed;
}
