/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The OpenSSL provider loads, as a module and built in; gives its ciphers under
 * every name of the default provider; can be unloaded and loaded again, in
 * several library contexts; refuses a configuration that it does not know.
 */
#include "providers/ossl/ossl.h"
#include "tests/support/cmocka.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/provider.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const names[] = {
    "AES-128-GCM",          "id-aes128-GCM", "2.16.840.1.101.3.4.1.6",
    "AES-192-GCM",          "id-aes192-GCM", "2.16.840.1.101.3.4.1.26",
    "AES-256-GCM",          "id-aes256-GCM", "2.16.840.1.101.3.4.1.46",
    "AES-128-XTS",          "AES-256-XTS",   "1.3.111.2.1619.0.1.1",
    "1.3.111.2.1619.0.1.2", "AES-128-CTR",   "AES-192-CTR",
    "AES-256-CTR",
};

/* A library context that has the provider, from the module or built in, beside the default one. */
struct world {
    OSSL_LIB_CTX *libctx;
    OSSL_PROVIDER *reseal, *usual;
};

static void module_folder(char *path, size_t room)
{
    const char *build = getenv("RESEAL_BUILD");
    snprintf(path, room, "%s/lib/ossl-modules", build == NULL ? "build/release" : build);
}

static void make_world(struct world *w, bool built_in)
{
    char path[4096];
    module_folder(path, sizeof(path));
    w->libctx = OSSL_LIB_CTX_new();
    assert_non_null(w->libctx);
    if (built_in)
        assert_int_equal(OSSL_PROVIDER_add_builtin(w->libctx, "reseal", rs_ossl_init), 1);
    else
        assert_int_equal(OSSL_PROVIDER_set_default_search_path(w->libctx, path), 1);
    w->reseal = OSSL_PROVIDER_load(w->libctx, "reseal");
    if (w->reseal == NULL) ERR_print_errors_fp(stderr);
    assert_non_null(w->reseal);
    w->usual = OSSL_PROVIDER_load(w->libctx, "default");
    assert_non_null(w->usual);
}

static void end_world(struct world *w)
{
    assert_int_equal(OSSL_PROVIDER_unload(w->usual), 1);
    assert_int_equal(OSSL_PROVIDER_unload(w->reseal), 1);
    OSSL_LIB_CTX_free(w->libctx);
}

/* Where there are no kernels, the provider may offer the default one's code, or nothing. */
static EVP_CIPHER *fetch(const struct world *w, const char *name, const char *properties)
{
    return EVP_CIPHER_fetch(w->libctx, name, properties);
}

static void seal(EVP_CIPHER *cipher, const uint8_t *text, size_t len, uint8_t *sealed, uint8_t tag[16])
{
    static const uint8_t key[32] = {1, 2, 3}, iv[12] = {4, 5, 6}, aad[5] = {7};
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    int n;
    assert_int_equal(EVP_EncryptInit_ex2(ctx, cipher, key, iv, NULL), 1);
    assert_int_equal(EVP_EncryptUpdate(ctx, NULL, &n, aad, sizeof(aad)), 1);
    assert_int_equal(EVP_EncryptUpdate(ctx, sealed, &n, text, (int)len), 1);
    assert_int_equal(n, len);
    assert_int_equal(EVP_EncryptFinal_ex(ctx, sealed + len, &n), 1);
    assert_int_equal(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, 16, tag), 1);
    EVP_CIPHER_CTX_free(ctx);
}

/* OpenSSL's own code, where it is what is offered, takes more calls after a wrong tag. */
static bool is_delegated(const struct world *w)
{
    char *info = NULL;
    OSSL_PARAM params[] = {OSSL_PARAM_construct_utf8_ptr(OSSL_PROV_PARAM_BUILDINFO, &info, 0),
                           OSSL_PARAM_END};
    assert_int_equal(OSSL_PROVIDER_get_params(w->reseal, params), 1);
    return strstr(info, "AES-256-GCM=openssl") != NULL;
}

static int open_sealed(EVP_CIPHER *cipher, const uint8_t *sealed, size_t len, uint8_t *text, uint8_t tag[16],
                       bool more)
{
    static const uint8_t key[32] = {1, 2, 3}, iv[12] = {4, 5, 6}, aad[5] = {7};
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    int n;
    assert_int_equal(EVP_DecryptInit_ex2(ctx, cipher, key, iv, NULL), 1);
    assert_int_equal(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, 16, tag), 1);
    assert_int_equal(EVP_DecryptUpdate(ctx, NULL, &n, aad, sizeof(aad)), 1);
    assert_int_equal(EVP_DecryptUpdate(ctx, text, &n, sealed, (int)len), 1);
    int good = EVP_DecryptFinal_ex(ctx, text + len, &n);
    /* However it ended: over is over. */
    if (good == 1 || !more) {
        assert_int_not_equal(EVP_DecryptFinal_ex(ctx, text + len, &n), 1);
        assert_int_not_equal(EVP_DecryptUpdate(ctx, text, &n, sealed, (int)len), 1);
    }
    EVP_CIPHER_CTX_free(ctx);
    return good;
}

static void sealed_by_one_is_opened_by_the_other(const struct world *w)
{
    enum { LEN = 1000 };
    uint8_t text[LEN], sealed[2][LEN], tag[2][16], back[LEN];
    memset(text, 'x', LEN);
    EVP_CIPHER *c[2] = {fetch(w, "AES-256-GCM", "provider=reseal"),
                        fetch(w, "AES-256-GCM", "provider=default")};
    assert_non_null(c[1]);
    if (c[0] == NULL) {
        print_message("[  SKIPPED ] the provider offers nothing here\n");
        EVP_CIPHER_free(c[1]);
        return;
    }
    for (int i = 0; i < 2; i++) seal(c[i], text, LEN, sealed[i], tag[i]);
    assert_memory_equal(sealed[0], sealed[1], LEN);
    assert_memory_equal(tag[0], tag[1], 16);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(open_sealed(c[i], sealed[1 - i], LEN, back, tag[1 - i], is_delegated(w)), 1);
        assert_memory_equal(back, text, LEN);
        tag[1 - i][15] ^= 1;
        assert_int_not_equal(open_sealed(c[0], sealed[1 - i], LEN, back, tag[1 - i], is_delegated(w)), 1);
        EVP_CIPHER_free(c[i]);
    }
    ERR_clear_error();
}

static void test_seals_and_opens(RS_UNUSED void **state)
{
    for (int built_in = 0; built_in < 2; built_in++) {
        struct world w;
        make_world(&w, built_in);
        sealed_by_one_is_opened_by_the_other(&w);
        end_world(&w);
    }
}

static void test_every_name_is_found(RS_UNUSED void **state)
{
    struct world w;
    make_world(&w, false);
    for (size_t i = 0; i < RS_ARRAY_LEN(names); i++) {
        EVP_CIPHER *ours = fetch(&w, names[i], "provider=reseal"),
                   *usual = fetch(&w, names[i], "provider=default");
        if (i == 0 && ours == NULL) {
            EVP_CIPHER_free(usual);
            end_world(&w);
            skip();
        }
        assert_non_null(ours);
        assert_non_null(usual);
        assert_string_equal(OSSL_PROVIDER_get0_name(EVP_CIPHER_get0_provider(ours)), "reseal");
        assert_string_equal(EVP_CIPHER_get0_name(ours), EVP_CIPHER_get0_name(usual));
        assert_int_equal(EVP_CIPHER_get_nid(ours), EVP_CIPHER_get_nid(usual));
        assert_int_equal(EVP_CIPHER_get_mode(ours), EVP_CIPHER_get_mode(usual));
        assert_int_equal(EVP_CIPHER_get_flags(ours), EVP_CIPHER_get_flags(usual));
        assert_int_equal(EVP_CIPHER_get_key_length(ours), EVP_CIPHER_get_key_length(usual));
        assert_int_equal(EVP_CIPHER_get_iv_length(ours), EVP_CIPHER_get_iv_length(usual));
        assert_int_equal(EVP_CIPHER_get_block_size(ours), EVP_CIPHER_get_block_size(usual));
        EVP_CIPHER_free(ours);
        EVP_CIPHER_free(usual);
    }
    end_world(&w);
}

static void test_loads_again_and_in_several_contexts(RS_UNUSED void **state)
{
    for (int round = 0; round < 5; round++) {
        struct world a, b, c;
        make_world(&a, false);
        make_world(&b, false);
        make_world(&c, true);
        sealed_by_one_is_opened_by_the_other(&a);
        end_world(&a);
        sealed_by_one_is_opened_by_the_other(&b);
        sealed_by_one_is_opened_by_the_other(&c);
        end_world(&b);
        sealed_by_one_is_opened_by_the_other(&c);
        end_world(&c);
    }
}

static void test_tells_what_it_is(RS_UNUSED void **state)
{
    struct world w;
    make_world(&w, false);
    const char *name = NULL, *version = NULL, *build = NULL;
    int status = 0;
    OSSL_PARAM ask[] = {OSSL_PARAM_construct_utf8_ptr(OSSL_PROV_PARAM_NAME, (char **)&name, 0),
                        OSSL_PARAM_construct_utf8_ptr(OSSL_PROV_PARAM_VERSION, (char **)&version, 0),
                        OSSL_PARAM_construct_utf8_ptr(OSSL_PROV_PARAM_BUILDINFO, (char **)&build, 0),
                        OSSL_PARAM_construct_int(OSSL_PROV_PARAM_STATUS, &status), OSSL_PARAM_END};
    assert_int_equal(OSSL_PROVIDER_get_params(w.reseal, ask), 1);
    assert_string_equal(name, "Reseal Provider");
    assert_non_null(version);
    assert_non_null(strstr(build, " key-memory="));
    assert_int_equal(status, 1);
    print_message("%s\n", build);
    end_world(&w);
}

/*
 * Loads with one more line of configuration; true when that worked. The section
 * does not activate the provider: OpenSSL 3.0 keeps quiet about one that it
 * could not activate while it reads a file.
 */
static bool loads_with(const char *line)
{
    char path[] = "/tmp/reseal-ossl-XXXXXX", folder[4096], text[8192];
    module_folder(folder, sizeof(folder));
    int n = snprintf(text, sizeof(text),
                     "openssl_conf = top\n[top]\nproviders = list\n[list]\nreseal = ours\n[ours]\n"
                     "module = %s/reseal.so\n%s\n",
                     folder, line);
    RS_CLOSE int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(rs_write_full(fd, text, (size_t)n), 0);
    OSSL_LIB_CTX *libctx = OSSL_LIB_CTX_new();
    assert_int_equal(OSSL_LIB_CTX_load_config(libctx, path), 1);
    ERR_clear_error();
    OSSL_PROVIDER *p = OSSL_PROVIDER_load(libctx, "reseal");
    if (p != NULL) assert_int_equal(OSSL_PROVIDER_unload(p), 1);
    OSSL_LIB_CTX_free(libctx);
    unlink(path);
    return p != NULL;
}

static bool an_error_says(const char *words)
{
    const char *data;
    int flags;
    bool said = false;
    while (ERR_get_error_all(NULL, NULL, NULL, &data, &flags) != 0)
        if ((flags & ERR_TXT_STRING) != 0 && strstr(data, words) != NULL) said = true;
    return said;
}

static void test_configuration_is_checked(RS_UNUSED void **state)
{
    assert_true(loads_with(""));
    assert_true(loads_with("engine = auto"));
    assert_true(loads_with("engine = openssl"));
    assert_true(loads_with("key-memory = plain"));
    assert_false(loads_with("engine = vaes-avx1024"));
    assert_true(an_error_says("engine \"vaes-avx1024\" is unknown here"));
    assert_false(loads_with("engine = a-name-that-is-longer-than-what-holds-names-of-engines"));
    assert_true(an_error_says("is unknown here"));
    assert_false(loads_with("key-memory = paper"));
    assert_true(an_error_says("key-memory \"paper\" is unknown"));
    assert_true(loads_with("engine = auto"));
}

int main(void)
{
    /* Ours, wherever this machine has any of our kernels. */
    setenv("RESEAL_OSSL_ENGINE", "vaes-aesni", 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_seals_and_opens),
        cmocka_unit_test(test_every_name_is_found),
        cmocka_unit_test(test_loads_again_and_in_several_contexts),
        cmocka_unit_test(test_tells_what_it_is),
        cmocka_unit_test(test_configuration_is_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
