/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The provider's ciphers give published answers: NIST's CAVP files for GCM, XTS
 * and CTR, as Debian's python3-cryptography-vectors has them, and Project
 * Wycheproof's file for GCM where it lies beside the project. A file that is
 * there and says too little fails.
 */
#include "offload/base/bytes.h"
#include "tests/support/ossl-run.h"

#include <ctype.h>
#include <jansson.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CAVP    "/usr/lib/python3/dist-packages/cryptography_vectors/ciphers/AES/"
#define MAX_LEN 1040u
#define IV_MAX  128u /* OpenSSL takes no longer one */

struct bytes {
    uint8_t data[MAX_LEN];
    size_t len;
};

/* One case of a file. */
struct vector {
    struct bytes key, iv, aad, plain, sealed, tag;
    unsigned tag_len;   /* bytes, from the head of a group */
    unsigned unit_bits; /* XTS */
    bool decrypt, fail, full;
};

static void from_hex(struct bytes *b, const char *hex)
{
    b->len = 0;
    if (*hex == '\0') return;
    assert_int_equal(OPENSSL_hexstr2buf_ex(b->data, MAX_LEN, &b->len, hex, '\0'), 1);
}

static EVP_CIPHER *cipher_for(const char *mode, size_t key_len)
{
    char name[32];
    snprintf(name, sizeof(name), "AES-%zu-%s", key_len * 8 / (strcmp(mode, "XTS") == 0 ? 2 : 1), mode);
    int i = ossl_cipher_index(name);
    assert_true(i >= 0);
    return ossl_here.cipher[i][OSSL_TESTED];
}

/* ---- one case of each mode --------------------------------------------------- */

static void gcm_begin(EVP_CIPHER_CTX *c, const struct vector *v, int enc)
{
    int n;
    assert_int_equal(EVP_CipherInit_ex2(c, cipher_for("GCM", v->key.len), NULL, NULL, enc, NULL), 1);
    assert_int_equal(EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_SET_IVLEN, (int)v->iv.len, NULL), 1);
    assert_int_equal(EVP_CipherInit_ex2(c, NULL, v->key.data, v->iv.data, enc, NULL), 1);
    if (v->aad.len > 0) assert_int_equal(EVP_CipherUpdate(c, NULL, &n, v->aad.data, (int)v->aad.len), 1);
}

static void gcm_seals(EVP_CIPHER_CTX *c, const struct vector *v)
{
    uint8_t out[MAX_LEN], tag[16];
    int n = -1;
    gcm_begin(c, v, 1);
    assert_int_equal(EVP_CipherUpdate(c, out, &n, v->plain.data, (int)v->plain.len), 1);
    assert_int_equal(n, v->plain.len);
    assert_memory_equal(out, v->sealed.data, v->sealed.len);
    assert_int_equal(EVP_CipherFinal_ex(c, out, &n), 1);
    assert_int_equal(EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_GET_TAG, (int)v->tag.len, tag), 1);
    assert_memory_equal(tag, v->tag.data, v->tag.len);
}

static void gcm_opens(EVP_CIPHER_CTX *c, const struct vector *v)
{
    uint8_t out[MAX_LEN], tag[16];
    int n = -1;
    gcm_begin(c, v, 0);
    memcpy(tag, v->tag.data, v->tag.len);
    assert_int_equal(EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_SET_TAG, (int)v->tag.len, tag), 1);
    assert_int_equal(EVP_CipherUpdate(c, out, &n, v->sealed.data, (int)v->sealed.len), 1);
    assert_int_equal(EVP_CipherFinal_ex(c, out + n, &n), v->fail ? 0 : 1);
    if (!v->fail) assert_memory_equal(out, v->plain.data, v->plain.len);
}

static void stream(EVP_CIPHER_CTX *c, const struct vector *v, const char *mode, int enc)
{
    const struct bytes *in = enc ? &v->plain : &v->sealed, *wanted = enc ? &v->sealed : &v->plain;
    uint8_t out[MAX_LEN];
    int n = -1;
    assert_int_equal(v->iv.len, 16);
    assert_int_equal(EVP_CipherInit_ex2(c, cipher_for(mode, v->key.len), v->key.data, v->iv.data, enc, NULL),
                     1);
    assert_int_equal(EVP_CipherUpdate(c, out, &n, in->data, (int)in->len), 1);
    assert_int_equal(n, wanted->len);
    assert_memory_equal(out, wanted->data, wanted->len);
    assert_int_equal(EVP_CipherFinal_ex(c, out, &n), 1);
    assert_int_equal(n, 0);
}

/* Runs a case; false when it is left out. */
static bool run_gcm(EVP_CIPHER_CTX *c, struct vector *v)
{
    if (v->tag.len > v->tag_len) v->tag.len = v->tag_len;
    if (!v->fail) gcm_seals(c, v);
    gcm_opens(c, v);
    return true;
}

static bool run_xts(EVP_CIPHER_CTX *c, struct vector *v)
{
    if (v->unit_bits % 8 != 0) return false; /* our units, and OpenSSL's, are whole bytes */
    assert_int_equal(v->plain.len, v->unit_bits / 8);
    stream(c, v, "XTS", 1);
    stream(c, v, "XTS", 0);
    return true;
}

static bool run_ctr(EVP_CIPHER_CTX *c, struct vector *v)
{
    stream(c, v, "CTR", 1);
    stream(c, v, "CTR", 0);
    return true;
}

/* ---- CAVP's files ---------------------------------------------------------------- */

struct counts {
    unsigned run, failing, left_out;
};

/* Cuts "name = value" in two; `value` is "" where there is none. */
static const char *split(char *line)
{
    char *end = line + strlen(line), *equals = strchr(line, '=');
    while (end > line && isspace((unsigned char)end[-1])) *--end = '\0';
    if (equals == NULL) return "";
    char *value = equals + 1;
    while (equals > line && isspace((unsigned char)equals[-1])) equals--;
    *equals = '\0';
    while (isspace((unsigned char)*value)) value++;
    return value;
}

static void number_as_tweak(struct bytes *iv, const char *number)
{
    memset(iv->data, 0, 16);
    rs_store_le64(iv->data, strtoull(number, NULL, 10));
    iv->len = 16;
}

static void take_field(struct vector *v, const char *name, const char *value)
{
    v->full = true;
    if (strcasecmp(name, "Key") == 0)
        from_hex(&v->key, value);
    else if (strcasecmp(name, "IV") == 0 || strcmp(name, "i") == 0)
        from_hex(&v->iv, value);
    else if (strcmp(name, "DataUnitSeqNumber") == 0)
        number_as_tweak(&v->iv, value);
    else if (strcmp(name, "DataUnitLen") == 0)
        v->unit_bits = (unsigned)atoi(value);
    else if (strcmp(name, "PT") == 0 || strcmp(name, "PLAINTEXT") == 0)
        from_hex(&v->plain, value);
    else if (strcmp(name, "CT") == 0 || strcmp(name, "CIPHERTEXT") == 0)
        from_hex(&v->sealed, value);
    else if (strcmp(name, "AAD") == 0)
        from_hex(&v->aad, value);
    else if (strcmp(name, "Tag") == 0)
        from_hex(&v->tag, value);
    else if (strcmp(name, "FAIL") == 0)
        v->fail = true;
    else
        fail_msg("unknown field %s", name);
}

static void finish(EVP_CIPHER_CTX *c, struct vector *v, bool (*run)(EVP_CIPHER_CTX *, struct vector *),
                   struct counts *n)
{
    struct vector next = {.tag_len = v->tag_len};
    if (v->full) {
        if (v->fail) n->failing++;
        if (run(c, v))
            n->run++;
        else
            n->left_out++;
    }
    *v = next;
}

static struct counts run_file(const char *name, bool (*run)(EVP_CIPHER_CTX *, struct vector *))
{
    static struct vector v;
    char path[256], line[2 * MAX_LEN + 64];
    struct counts n = {0};
    snprintf(path, sizeof(path), CAVP "%s", name);
    FILE *f = fopen(path, "r");
    EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
    assert_true(f != NULL && c != NULL);
    memset(&v, 0, sizeof(v));
    while (fgets(line, sizeof(line), f) != NULL) {
        const char *value = split(line);
        if (line[0] == '[') {
            if (strcmp(line, "[Taglen") == 0) v.tag_len = (unsigned)atoi(value) / 8;
        } else if (line[0] == '\0' || line[0] == '#' || strcasecmp(line, "COUNT") == 0) {
            finish(c, &v, run, &n);
        } else {
            take_field(&v, line, value);
        }
    }
    finish(c, &v, run, &n);
    EVP_CIPHER_CTX_free(c);
    fclose(f);
    print_message("%s: %u run, %u of them to be refused, %u left out\n", name, n.run, n.failing, n.left_out);
    return n;
}

static void need_package(void)
{
    if (access(CAVP, R_OK) == 0) return;
    print_message("the package python3-cryptography-vectors is not installed: not tested\n");
    skip();
}

static void cavp_gcm(void **state)
{
    static const unsigned bits[] = {128, 192, 256};
    char name[64];
    (void)state;
    need_package();
    for (size_t i = 0; i < RS_ARRAY_LEN(bits); i++) {
        snprintf(name, sizeof(name), "GCM/gcmEncryptExtIV%u.rsp", bits[i]);
        struct counts n = run_file(name, run_gcm);
        assert_true(n.run >= 7000 && n.failing == 0);
        snprintf(name, sizeof(name), "GCM/gcmDecrypt%u.rsp", bits[i]);
        n = run_file(name, run_gcm);
        assert_true(n.run >= 7000 && n.failing >= 3000);
    }
}

static void cavp_xts(void **state)
{
    static const char *const names[] = {
        "XTS/tweak-128hexstr/XTSGenAES128.rsp", "XTS/tweak-128hexstr/XTSGenAES256.rsp",
        "XTS/tweak-dataunitseqno/XTSGenAES128.rsp", "XTS/tweak-dataunitseqno/XTSGenAES256.rsp"};
    (void)state;
    need_package();
    for (size_t i = 0; i < RS_ARRAY_LEN(names); i++) assert_true(run_file(names[i], run_xts).run >= 600);
}

static void cavp_ctr(void **state)
{
    (void)state;
    need_package();
    assert_true(run_file("CTR/aes-128-ctr.txt", run_ctr).run >= 3);
    assert_true(run_file("CTR/aes-192-ctr.txt", run_ctr).run >= 3);
    assert_true(run_file("CTR/aes-256-ctr.txt", run_ctr).run >= 3);
}

/* ---- Wycheproof --------------------------------------------------------------------- */

static void hex_of(struct bytes *b, const json_t *test, const char *name)
{
    const char *s = json_string_value(json_object_get(test, name));
    assert_non_null(s);
    from_hex(b, s);
}

/* True when it ran; IVs that OpenSSL cannot take are refused when their length is set. */
static bool run_wycheproof(EVP_CIPHER_CTX *c, const json_t *test)
{
    static struct vector v;
    memset(&v, 0, sizeof(v));
    hex_of(&v.key, test, "key");
    hex_of(&v.iv, test, "iv");
    hex_of(&v.aad, test, "aad");
    hex_of(&v.plain, test, "msg");
    hex_of(&v.sealed, test, "ct");
    hex_of(&v.tag, test, "tag");
    v.tag_len = 16;
    v.fail = strcmp(json_string_value(json_object_get(test, "result")), "valid") != 0;
    if (v.iv.len == 0 || v.iv.len > IV_MAX) {
        assert_int_equal(EVP_CipherInit_ex2(c, cipher_for("GCM", v.key.len), NULL, NULL, 1, NULL), 1);
        assert_int_equal(EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_SET_IVLEN, (int)v.iv.len, NULL), 0);
        return false;
    }
    return run_gcm(c, &v);
}

static void wycheproof(void **state)
{
    (void)state;
    char path[4096];
    const char *source = getenv("RESEAL_SOURCE");
    snprintf(path, sizeof(path), "%s/../shared/vectors/aes_gcm_test.json", source != NULL ? source : ".");
    json_t *file = json_load_file(path, 0, NULL), *group, *test;
    if (file == NULL) {
        print_message("Wycheproof's aes_gcm_test.json is not beside the project: not tested\n");
        skip();
    }
    EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
    size_t i, k, run = 0, refused = 0;
    json_array_foreach(json_object_get(file, "testGroups"), i, group)
    {
        json_array_foreach(json_object_get(group, "tests"), k, test)
        {
            if (run_wycheproof(c, test))
                run++;
            else
                refused++;
        }
    }
    EVP_CIPHER_CTX_free(c);
    json_decref(file);
    print_message("Wycheproof: %zu run, %zu with an IV of a length that is refused\n", run, refused);
    assert_true(run >= 300 && refused >= 6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(cavp_gcm), cmocka_unit_test(cavp_xts),
                                       cmocka_unit_test(cavp_ctr), cmocka_unit_test(wycheproof)};
    return ossl_run(tests);
}
