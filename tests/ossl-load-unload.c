/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The module comes and goes without a trace, whatever order things are let go
 * in: after use of every cipher, from several library contexts, with contexts
 * of ciphers still alive, in threads that end before or after, and by an exit
 * that unloads nothing. ASAN runs this, and ossl-valgrind.sh in every preset.
 */
#include "offload/base/bytes.h"
#include "tests/support/cmocka.h"

#include <dlfcn.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/provider.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define TEXT 5000u

static const char *const names[] = {"AES-128-GCM", "AES-192-GCM", "AES-256-GCM", "AES-128-XTS",
                                    "AES-256-XTS", "AES-128-CTR", "AES-192-CTR", "AES-256-CTR"};

static char folder[4096], module[4200], configuration[64];
static bool may_stay;

struct world {
    OSSL_LIB_CTX *libctx;
    OSSL_PROVIDER *reseal, *usual;
};

static void open_world(struct world *w)
{
    w->libctx = OSSL_LIB_CTX_new();
    assert_non_null(w->libctx);
    assert_int_equal(OSSL_PROVIDER_set_default_search_path(w->libctx, folder), 1);
    w->reseal = OSSL_PROVIDER_load(w->libctx, "reseal");
    assert_non_null(w->reseal);
    w->usual = OSSL_PROVIDER_load(w->libctx, "default");
    assert_non_null(w->usual);
}

static void close_world(struct world *w)
{
    assert_int_equal(OSSL_PROVIDER_unload(w->usual), 1);
    assert_int_equal(OSSL_PROVIDER_unload(w->reseal), 1);
    OSSL_LIB_CTX_free(w->libctx);
}

static EVP_CIPHER *fetch(const struct world *w, const char *name)
{
    EVP_CIPHER *cipher = EVP_CIPHER_fetch(w->libctx, name, "provider=reseal");
    assert_non_null(cipher);
    return cipher;
}

/* A context that has encrypted something and could go on. */
static EVP_CIPHER_CTX *begun(EVP_CIPHER *cipher)
{
    uint8_t key[64], iv[16] = {1}, text[TEXT] = {2};
    int n;
    for (unsigned i = 0; i < sizeof(key); i++) key[i] = (uint8_t)(i * 7);
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    assert_int_equal(EVP_EncryptInit_ex2(ctx, cipher, key, iv, NULL), 1);
    if (EVP_CIPHER_get_mode(cipher) == EVP_CIPH_GCM_MODE)
        assert_int_equal(EVP_EncryptUpdate(ctx, NULL, &n, iv, 13), 1);
    assert_int_equal(EVP_EncryptUpdate(ctx, text, &n, text, sizeof(text)), 1);
    return ctx;
}

static void ended(EVP_CIPHER_CTX *ctx)
{
    uint8_t text[TEXT] = {3}, tag[16];
    int n;
    assert_int_equal(EVP_EncryptUpdate(ctx, text, &n, text, sizeof(text)), 1);
    assert_int_equal(EVP_EncryptFinal_ex(ctx, text, &n), 1);
    if (EVP_CIPHER_CTX_get_mode(ctx) == EVP_CIPH_GCM_MODE)
        assert_int_equal(EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, sizeof(tag), tag), 1);
}

/* Duplicates, contexts that are begun again under another cipher, and ones that never got a key. */
static void use(const struct world *w)
{
    for (size_t i = 0; i < RS_ARRAY_LEN(names); i++) {
        EVP_CIPHER *cipher = fetch(w, names[i]), *other = fetch(w, names[RS_ARRAY_LEN(names) - 1 - i]);
        EVP_CIPHER_CTX *ctx = begun(cipher), *copy = EVP_CIPHER_CTX_new(), *idle = EVP_CIPHER_CTX_new();
        uint8_t key[64] = {1}, iv[16] = {0};
        assert_int_equal(EVP_CIPHER_CTX_copy(copy, ctx), 1);
        assert_int_equal(EVP_EncryptInit_ex2(idle, cipher, NULL, NULL, NULL), 1);
        ended(ctx);
        for (unsigned k = 0; k < 32; k++) key[k] = (uint8_t)k;
        assert_int_equal(EVP_EncryptInit_ex2(ctx, other, key, iv, NULL), 1);
        assert_int_equal(EVP_CIPHER_CTX_reset(ctx), 1);
        EVP_CIPHER_CTX_free(ctx);
        ended(copy);
        EVP_CIPHER_CTX_free(copy);
        EVP_CIPHER_CTX_free(idle);
        EVP_CIPHER_free(cipher);
        EVP_CIPHER_free(other);
    }
}

/* A GCM message whose IV the provider draws: random numbers of the library context. */
static void draw_iv(const struct world *w)
{
    uint8_t key[32] = {1}, text[16] = {0};
    int n;
    EVP_CIPHER *cipher = fetch(w, "AES-256-GCM");
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    assert_int_equal(EVP_EncryptInit_ex2(ctx, cipher, key, NULL, NULL), 1);
    assert_int_equal(EVP_EncryptUpdate(ctx, text, &n, text, sizeof(text)), 1);
    assert_int_equal(EVP_EncryptFinal_ex(ctx, text, &n), 1);
    EVP_CIPHER_CTX_free(ctx);
    EVP_CIPHER_free(cipher);
}

static bool module_is_there(void)
{
    void *handle = dlopen(module, RTLD_LAZY | RTLD_NOLOAD);
    if (handle != NULL) dlclose(handle);
    return handle != NULL;
}

/* OpenSSL's own GCM, where it is delegated to, may have drawn random numbers in any thread: then the module
 * stays. */
static bool module_may_stay(const struct world *w)
{
    char *build = NULL;
    OSSL_PARAM ask[] = {OSSL_PARAM_construct_utf8_ptr(OSSL_PROV_PARAM_BUILDINFO, &build, 0), OSSL_PARAM_END};
    assert_int_equal(OSSL_PROVIDER_get_params(w->reseal, ask), 1);
    return strstr(build, "GCM=openssl") != NULL;
}

static void assert_gone(void)
{
    if (!may_stay) assert_false(module_is_there());
}

/* How many maps this process has, and of these the ones of key memory. */
static unsigned maps(unsigned *secret)
{
    FILE *f = fopen("/proc/self/maps", "r");
    char line[8192];
    unsigned n = 0;
    assert_non_null(f);
    for (*secret = 0; fgets(line, sizeof(line), f) != NULL; n++)
        if (strstr(line, "secretmem") != NULL) ++*secret;
    fclose(f);
    return n;
}

static void test_nothing_is_left(RS_UNUSED void **state)
{
    unsigned before = 0, secret;
    for (unsigned round = 0; round < 24; round++) {
        struct world w;
        open_world(&w);
        if (round == 0) may_stay = module_may_stay(&w);
        if (round % 8 == 0) use(&w);
        close_world(&w);
        assert_gone();
        unsigned now = maps(&secret);
        assert_int_equal(secret, 0);
        if (round == 3) before = now;
    }
    /* The heap may have grown; a map a round would be twenty. */
    assert_true(maps(&secret) < before + 10);
}

static void test_several_library_contexts(RS_UNUSED void **state)
{
    struct world w[3];
    for (unsigned i = 0; i < 3; i++) open_world(&w[i]);
    for (unsigned i = 0; i < 3; i++) use(&w[i]);
    close_world(&w[1]);
    use(&w[0]);
    close_world(&w[0]);
    use(&w[2]);
    open_world(&w[0]);
    close_world(&w[2]);
    use(&w[0]);
    close_world(&w[0]);
    assert_gone();
}

static void test_unloaded_with_contexts_alive(RS_UNUSED void **state)
{
    EVP_CIPHER_CTX *ctx[RS_ARRAY_LEN(names)];
    struct world w;
    open_world(&w);
    for (size_t i = 0; i < RS_ARRAY_LEN(names); i++) {
        EVP_CIPHER *cipher = fetch(&w, names[i]);
        ctx[i] = begun(cipher);
        EVP_CIPHER_free(cipher);
    }
    assert_int_equal(OSSL_PROVIDER_unload(w.reseal), 1);
    assert_true(module_is_there());
    for (size_t i = 0; i < RS_ARRAY_LEN(names); i++) {
        EVP_CIPHER_CTX *copy = EVP_CIPHER_CTX_new();
        assert_int_equal(EVP_CIPHER_CTX_copy(copy, ctx[i]), 1);
        ended(ctx[i]);
        EVP_CIPHER_CTX_free(ctx[i]);
        ended(copy);
        EVP_CIPHER_CTX_free(copy);
    }
    assert_int_equal(OSSL_PROVIDER_unload(w.usual), 1);
    OSSL_LIB_CTX_free(w.libctx);
    assert_gone();
}

struct visit {
    const struct world *w;
    pthread_barrier_t *unloaded;
};

static void *visitor(void *arg)
{
    const struct visit *v = arg;
    use(v->w);
    draw_iv(v->w);
    OPENSSL_thread_stop_ex(v->w->libctx); /* so OpenSSL wants it of who frees a library context */
    pthread_barrier_wait(v->unloaded);
    pthread_barrier_wait(v->unloaded);
    return NULL;
}

/* Threads that used it end when it is gone. */
static void test_threads_outlive_it(RS_UNUSED void **state)
{
    pthread_barrier_t unloaded;
    pthread_t threads[3];
    struct world w;
    open_world(&w);
    pthread_barrier_init(&unloaded, NULL, 4);
    struct visit v = {&w, &unloaded};
    for (unsigned i = 0; i < 3; i++) assert_int_equal(pthread_create(&threads[i], NULL, visitor, &v), 0);
    pthread_barrier_wait(&unloaded);
    close_world(&w);
    pthread_barrier_wait(&unloaded);
    for (unsigned i = 0; i < 3; i++) pthread_join(threads[i], NULL);
    pthread_barrier_destroy(&unloaded);
}

/* What a thread of its own loads, uses and unloads. */
static void *whole_life(RS_UNUSED void *arg)
{
    struct world w;
    open_world(&w);
    use(&w);
    draw_iv(&w);
    close_world(&w);
    return NULL;
}

static void test_threads_load_it_at_once(RS_UNUSED void **state)
{
    pthread_t threads[4];
    for (unsigned i = 0; i < 4; i++) assert_int_equal(pthread_create(&threads[i], NULL, whole_life, NULL), 0);
    for (unsigned i = 0; i < 4; i++) pthread_join(threads[i], NULL);
}

/* As a program does that reads openssl.cnf: the library's own clean-up at exit ends it, whatever is still
 * held. */
static void test_exit_without_unloading(RS_UNUSED void **state)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        static EVP_CIPHER_CTX *held; /* found by a search for leaks */
        if (OPENSSL_init_crypto(OPENSSL_INIT_LOAD_CONFIG, NULL) != 1 ||
            OSSL_LIB_CTX_load_config(NULL, configuration) != 1)
            _exit(3);
        EVP_CIPHER *cipher = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
        if (cipher == NULL ||
            strcmp(OSSL_PROVIDER_get0_name(EVP_CIPHER_get0_provider(cipher)), "reseal") != 0)
            _exit(4);
        held = begun(cipher);
        EVP_CIPHER_free(cipher);
        exit(held == NULL);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static int find_module(RS_UNUSED void **state)
{
    const char *build = getenv("RESEAL_BUILD");
    if (build == NULL) build = "build/release";
    snprintf(folder, sizeof(folder), "%s/lib/ossl-modules", build);
    snprintf(module, sizeof(module), "%s/reseal.so", folder);
    snprintf(configuration, sizeof(configuration), "/tmp/reseal-test-conf-XXXXXX");
    RS_CLOSE int fd = mkstemp(configuration);
    return fd < 0 || dprintf(fd,
                             "openssl_conf = start\n[start]\nproviders = list\nalg_section = algorithms\n"
                             "[list]\ndefault = usual\nreseal = ours\n[usual]\nactivate = 1\n"
                             "[ours]\nactivate = 1\nmodule = %s\n"
                             "[algorithms]\ndefault_properties = ?provider=reseal\n",
                             module) < 0;
}

static int forget_configuration(RS_UNUSED void **state)
{
    return unlink(configuration);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_is_left),
        cmocka_unit_test(test_several_library_contexts),
        cmocka_unit_test(test_unloaded_with_contexts_alive),
        cmocka_unit_test(test_threads_outlive_it),
        cmocka_unit_test(test_threads_load_it_at_once),
        cmocka_unit_test(test_exit_without_unloading),
    };
    return cmocka_run_group_tests(tests, find_module, forget_configuration);
}
