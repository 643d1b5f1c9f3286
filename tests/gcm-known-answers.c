/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AES-GCM against published answers: the test cases of the GCM specification
 * (McGrew and Viega; those with a 96-bit IV), and Project Wycheproof's file when
 * it lies beside the project.
 */
#include "providers/crypto/vaes/vaes.h"
#include "reseal/reseal.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#define MAX_LEN 4096u

static const struct rs_engine *const variants[] = {&rs_engine_vaes_avx512, &rs_engine_vaes_avx2,
                                                   &rs_engine_aesni};
static void *key, *scratch;

struct vector {
    uint8_t key[32], iv[RS_IV_LEN], aad[MAX_LEN], plain[MAX_LEN], cipher[MAX_LEN], tag[RS_TAG_LEN];
    size_t key_len, aad_len, len;
};

static size_t from_hex(uint8_t *out, size_t room, const char *hex)
{
    size_t n = strlen(hex) / 2;
    assert_true(n <= room);
    for (size_t i = 0; i < n; i++) {
        unsigned byte;
        assert_int_equal(sscanf(hex + 2 * i, "%2x", &byte), 1);
        out[i] = (uint8_t)byte;
    }
    return n;
}

static struct rs_side gcm_side(const struct vector *v)
{
    struct rs_side s = {.cipher = RS_GCM, .key = key, .aad = v->aad_len ? v->aad : NULL};
    s.aad_len = (uint32_t)v->aad_len;
    memcpy(s.iv, v->iv, RS_IV_LEN);
    return s;
}

/* Seals and opens; `valid` is what opening shall say. */
static void check(const struct rs_engine *e, const struct vector *v, bool valid, const char *name)
{
    uint8_t out[MAX_LEN];
    unsigned bits = (unsigned)v->key_len * 8;
    assert_int_equal(e->prepare(key, RS_GCM, bits, v->key, v->key_len), 0);
    struct rs_run open = {
        .in = v->cipher, .out = out, .len = v->len, .src = gcm_side(v), .dst.cipher = RS_PLAIN};
    memcpy(open.src.tag, v->tag, RS_TAG_LEN);
    e->run(&open, 1, scratch, 0);
    if (open.status != (valid ? 0 : RESEAL_EAUTH))
        fail_msg("%s, %s: open says %d", e->variant, name, open.status);
    if (valid) {
        assert_memory_equal(out, v->plain, v->len);
        struct rs_run seal = {
            .in = v->plain, .out = out, .len = v->len, .src.cipher = RS_PLAIN, .dst = gcm_side(v)};
        assert_int_equal(e->run(&seal, 1, scratch, 0), 0);
        if (memcmp(out, v->cipher, v->len) != 0 || memcmp(seal.dst.tag, v->tag, RS_TAG_LEN) != 0)
            fail_msg("%s, %s: another seal", e->variant, name);
    }
    e->wipe(key, RS_GCM, bits);
}

static void check_all(const struct vector *v, bool valid, const char *name)
{
    for (size_t i = 0; i < RS_ARRAY_LEN(variants); i++)
        if (variants[i]->probe() == 0) check(variants[i], v, valid, name);
}

#define K128 "feffe9928665731c6d6a8f9467308308"
#define IV   "cafebabefacedbaddecaf888"
#define AAD  "feedfacedeadbeeffeedfacedeadbeefabaddad2"
#define P60                                                                                                  \
    "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525"       \
    "b16aedf5aa0de657ba637b39"

/* Cases 2, 3, 4 (AES-128) and 14, 15, 16 (AES-256). */
static const struct {
    const char *name, *key, *iv, *aad, *plain, *cipher, *tag;
} cases[] = {
    {"case 2", "00000000000000000000000000000000", "000000000000000000000000", "",
     "00000000000000000000000000000000", "0388dace60b6a392f328c2b971b2fe78",
     "ab6e47d42cec13bdf53a67b21257bddf"},
    {"case 3", K128, IV, "", P60 "1aafd255",
     "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e21d514b25466931c7d8f6a5aac84aa05"
     "1ba30b396a0aac973d58e091473f5985",
     "4d5c2af327cd64a62cf35abd2ba6fab4"},
    {"case 4", K128, IV, AAD, P60,
     "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e21d514b25466931c7d8f6a5aac84aa05"
     "1ba30b396a0aac973d58e091",
     "5bc94fbc3221a5db94fae95ae7121a47"},
    {"case 14", "0000000000000000000000000000000000000000000000000000000000000000",
     "000000000000000000000000", "", "00000000000000000000000000000000", "cea7403d4d606b6e074ec5d3baf39d18",
     "d0d1c8a799996bf0265b98b5d48ab919"},
    {"case 15", K128 K128, IV, "", P60 "1aafd255",
     "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838"
     "c5f61e6393ba7a0abcc9f662898015ad",
     "b094dac5d93471bdec1a502270e3cc6c"},
    {"case 16", K128 K128, IV, AAD, P60,
     "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838"
     "c5f61e6393ba7a0abcc9f662",
     "76fc6ece0f4e1768cddf8853bb2d551b"},
};

static void specification(void **state)
{
    (void)state;
    for (size_t i = 0; i < RS_ARRAY_LEN(cases); i++) {
        struct vector v = {0};
        v.key_len = from_hex(v.key, sizeof(v.key), cases[i].key);
        from_hex(v.iv, sizeof(v.iv), cases[i].iv);
        v.aad_len = from_hex(v.aad, sizeof(v.aad), cases[i].aad);
        v.len = from_hex(v.plain, sizeof(v.plain), cases[i].plain);
        from_hex(v.cipher, sizeof(v.cipher), cases[i].cipher);
        from_hex(v.tag, sizeof(v.tag), cases[i].tag);
        check_all(&v, true, cases[i].name);
    }
}

static const char *text(const json_t *object, const char *name)
{
    const char *s = json_string_value(json_object_get(object, name));
    assert_non_null(s);
    return s;
}

static void wycheproof(void **state)
{
    (void)state;
    char path[4096];
    const char *source = getenv("RESEAL_SOURCE");
    snprintf(path, sizeof(path), "%s/../shared/vectors/aes_gcm_test.json", source ? source : ".");
    json_t *file = json_load_file(path, 0, NULL), *group, *test;
    if (!file) {
        print_message("Wycheproof's aes_gcm_test.json is not beside the project: not tested\n");
        skip();
    }
    size_t i, k, done = 0;
    json_array_foreach(json_object_get(file, "testGroups"), i, group)
    {
        json_int_t bits = json_integer_value(json_object_get(group, "keySize"));
        if (json_integer_value(json_object_get(group, "ivSize")) != 96) continue;
        if (json_integer_value(json_object_get(group, "tagSize")) != 128 || (bits != 128 && bits != 256))
            continue;
        json_array_foreach(json_object_get(group, "tests"), k, test)
        {
            struct vector v = {0};
            v.len = from_hex(v.plain, sizeof(v.plain), text(test, "msg"));
            if (v.len == 0) continue; /* a run has at least a byte */
            v.key_len = from_hex(v.key, sizeof(v.key), text(test, "key"));
            from_hex(v.iv, sizeof(v.iv), text(test, "iv"));
            v.aad_len = from_hex(v.aad, sizeof(v.aad), text(test, "aad"));
            from_hex(v.cipher, sizeof(v.cipher), text(test, "ct"));
            from_hex(v.tag, sizeof(v.tag), text(test, "tag"));
            check_all(&v, strcmp(text(test, "result"), "valid") == 0, text(test, "comment"));
            done++;
        }
    }
    json_decref(file);
    print_message("%zu of Wycheproof's cases\n", done);
    assert_true(done > 50);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(specification), cmocka_unit_test(wycheproof)};
    if (rs_engine_aesni.probe() != 0) {
        printf("no AES-NI on this CPU\n");
        return 77;
    }
    key = aligned_alloc(RS_KEY_ALIGN, rs_round_up(rs_engine_aesni.key_size(RS_GCM, 256), RS_KEY_ALIGN));
    scratch = aligned_alloc(RS_KEY_ALIGN, rs_engine_scratch_size(MAX_LEN));
    if (!key || !scratch) return 2;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
