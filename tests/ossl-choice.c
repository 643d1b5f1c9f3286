/* SPDX-License-Identifier: Apache-2.0 */
/* Which implementations the provider offers: as told, or the faster ones; from many threads at once; and what
 * stays in the process afterwards. */
#include "offload/base/bytes.h"
#include "providers/ossl/ossl.h"

#include <errno.h>
#include <link.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/provider.h>

#define THREADS 32u
#define LEN     1000

static const struct {
    const char *name;
    unsigned family;
} algorithms[] = {{"AES-256-GCM", 0}, {"AES-192-GCM", 0}, {"AES-128-GCM", 0}, {"AES-256-XTS", 1},
                  {"AES-128-XTS", 1}, {"AES-256-CTR", 2}, {"AES-192-CTR", 2}, {"AES-128-CTR", 2}};

struct world {
    OSSL_LIB_CTX *libctx;
    OSSL_PROVIDER *reseal;
};

static const char *module_folder(void)
{
    static char path[4096];
    const char *build = getenv("RESEAL_BUILD");
    snprintf(path, sizeof(path), "%s/lib/ossl-modules", build == NULL ? "." : build);
    return path;
}

static bool open_world(struct world *w, bool module, const char *engine)
{
    setenv("RESEAL_OSSL_ENGINE", engine, 1);
    w->libctx = OSSL_LIB_CTX_new();
    if (w->libctx == NULL) return false;
    int r = module ? OSSL_PROVIDER_set_default_search_path(w->libctx, module_folder())
                   : OSSL_PROVIDER_add_builtin(w->libctx, "reseal", rs_ossl_init);
    w->reseal = r == 1 ? OSSL_PROVIDER_load(w->libctx, "reseal") : NULL;
    if (w->reseal == NULL) OSSL_LIB_CTX_free(w->libctx);
    return w->reseal != NULL;
}

static void close_world(struct world *w)
{
    assert_int_equal(OSSL_PROVIDER_unload(w->reseal), 1);
    OSSL_LIB_CTX_free(w->libctx);
}

/* What is offered for an algorithm, of "... AES-256-GCM=vaes-avx512 ...". */
static void offered(const struct world *w, const char *name, char *value, size_t room)
{
    const char *info = NULL;
    char key[32];
    OSSL_PARAM params[] = {OSSL_PARAM_construct_utf8_ptr(OSSL_PROV_PARAM_BUILDINFO, (char **)&info, 0),
                           OSSL_PARAM_construct_end()};
    assert_int_equal(OSSL_PROVIDER_get_params(w->reseal, params), 1);
    assert_non_null(info);
    snprintf(key, sizeof(key), "%s=", name);
    const char *at = strstr(info, key);
    assert_non_null(at);
    at += strlen(key);
    snprintf(value, room, "%.*s", (int)strcspn(at, " "), at);
}

/* A message under a fixed key; false when anything fails. */
static bool seal(OSSL_LIB_CTX *libctx, const char *name, const char *properties, uint8_t out[LEN + 16])
{
    uint8_t key[64], iv[16] = {9, 8, 7}, text[LEN];
    int n, m;
    for (unsigned i = 0; i < sizeof(key); i++) key[i] = (uint8_t)(i * 3);
    memset(text, 't', sizeof(text));
    memset(out, 0, LEN + 16);
    EVP_CIPHER *c = EVP_CIPHER_fetch(libctx, name, properties);
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    bool gcm = c != NULL && EVP_CIPHER_get_mode(c) == EVP_CIPH_GCM_MODE;
    bool good = c != NULL && ctx != NULL && EVP_EncryptInit_ex2(ctx, c, key, iv, NULL) == 1 &&
                EVP_EncryptUpdate(ctx, out, &n, text, LEN) == 1 &&
                EVP_EncryptFinal_ex(ctx, out + n, &m) == 1 && n + m == LEN &&
                (!gcm || EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, 16, out + LEN) == 1);
    EVP_CIPHER_CTX_free(ctx);
    EVP_CIPHER_free(c);
    return good;
}

/* ---- what is offered ------------------------------------------------------------------ */

static bool results_are_right(OSSL_LIB_CTX *libctx)
{
    uint8_t ours[LEN + 16], theirs[LEN + 16];
    for (unsigned i = 0; i < RS_ARRAY_LEN(algorithms); i++)
        if (!seal(libctx, algorithms[i].name, "provider=reseal", ours) ||
            !seal(NULL, algorithms[i].name, "provider=default", theirs) ||
            memcmp(ours, theirs, sizeof(ours)) != 0)
            return false;
    return true;
}

static void engines_are_offered_as_told(void **state)
{
    (void)state;
    static const char *const engines[] = {"vaes-avx512", "vaes-avx2", "vaes-aesni", "openssl"};
    for (unsigned e = 0; e < RS_ARRAY_LEN(engines); e++) {
        struct world w;
        char value[32];
        assert_true(open_world(&w, false, engines[e]));
        offered(&w, "AES-256-GCM", value, sizeof(value));
        bool here = strcmp(value, engines[e]) == 0;
        print_message("%s: %s\n", engines[e], here ? "offered" : "not of this machine or build");
        assert_true(here || e < 3);
        for (unsigned i = 0; here && i < RS_ARRAY_LEN(algorithms); i++) {
            offered(&w, algorithms[i].name, value, sizeof(value));
            assert_string_equal(value, engines[e]);
        }
        assert_true(results_are_right(w.libctx));
        close_world(&w);
    }
}

static void the_faster_are_offered_without(void **state)
{
    (void)state;
    struct world w;
    char value[32], family[3][32] = {"", "", ""}, kernels[32] = "openssl";
    assert_true(open_world(&w, false, "auto"));
    for (unsigned i = 0; i < RS_ARRAY_LEN(algorithms); i++) {
        offered(&w, algorithms[i].name, value, sizeof(value));
        char *known = family[algorithms[i].family];
        if (*known == '\0') snprintf(known, sizeof(family[0]), "%s", value);
        assert_string_equal(value, known);
        if (strcmp(value, "openssl") == 0) continue;
        if (strcmp(kernels, "openssl") == 0) snprintf(kernels, sizeof(kernels), "%s", value);
        assert_string_equal(value, kernels);
    }
    print_message("GCM %s, XTS %s, CTR %s\n", family[0], family[1], family[2]);
    assert_true(results_are_right(w.libctx));
    close_world(&w);
}

static const OSSL_DISPATCH *functions_of(const OSSL_PROVIDER *provider, const char *name)
{
    int no_store;
    const OSSL_ALGORITHM *a = OSSL_PROVIDER_query_operation(provider, OSSL_OP_CIPHER, &no_store);
    size_t len = strlen(name);
    for (; a != NULL && a->algorithm_names != NULL; a++)
        if (strncmp(a->algorithm_names, name, len) == 0 && strchr(":", a->algorithm_names[len]) != NULL)
            return a->implementation;
    return NULL;
}

static void delegated_ones_are_the_default_providers_own(void **state)
{
    (void)state;
    struct world w;
    assert_true(open_world(&w, false, "openssl"));
    OSSL_LIB_CTX *other = OSSL_LIB_CTX_new();
    OSSL_PROVIDER *usual = OSSL_PROVIDER_load(other, "default");
    for (unsigned i = 0; i < RS_ARRAY_LEN(algorithms); i++) {
        const OSSL_DISPATCH *d = functions_of(w.reseal, algorithms[i].name);
        const OSSL_DISPATCH *theirs = functions_of(usual, algorithms[i].name);
        assert_non_null(d);
        assert_non_null(theirs);
        bool xts = strstr(algorithms[i].name, "XTS") != NULL;
        for (; theirs->function_id != 0; d++, theirs++) {
            /* Equal halves of an XTS key are refused before theirs is asked. */
            bool ours = d->function_id == OSSL_FUNC_CIPHER_NEWCTX ||
                        (xts && d->function_id == OSSL_FUNC_CIPHER_DECRYPT_INIT);
            assert_int_equal(d->function_id, theirs->function_id);
            assert_int_equal(d->function == theirs->function, !ours);
        }
        assert_int_equal(d->function_id, 0);
    }
    OSSL_PROVIDER_unload(usual);
    OSSL_LIB_CTX_free(other);
    close_world(&w);
}

/* Choosing needs the default provider, but in a library context that is nobody's business. */
static void the_application_sees_nothing_of_it(void **state)
{
    (void)state;
    static const char *const engines[] = {"auto", "openssl"};
    for (unsigned e = 0; e < RS_ARRAY_LEN(engines); e++) {
        struct world w;
        assert_true(open_world(&w, false, engines[e]));
        ERR_clear_error();
        ERR_raise(ERR_LIB_USER, 77);
        EVP_CIPHER *c = EVP_CIPHER_fetch(w.libctx, "AES-256-CTR", NULL);
        assert_non_null(c);
        EVP_CIPHER_free(c);
        assert_int_equal(OSSL_PROVIDER_available(w.libctx, "default"), 0);
        assert_int_equal(ERR_GET_REASON(ERR_peek_last_error()), 77);
        assert_null(EVP_MD_fetch(w.libctx, "SHA256", NULL));
        ERR_clear_error();
        close_world(&w);
    }
}

/* ---- many threads ------------------------------------------------------------------------ */

static pthread_barrier_t all_ready;

static void *first_use(void *libctx)
{
    pthread_barrier_wait(&all_ready);
    return results_are_right(libctx) ? NULL : libctx;
}

static void *whole_life(void *arg)
{
    struct world w;
    pthread_barrier_wait(&all_ready);
    w.libctx = OSSL_LIB_CTX_new();
    if (w.libctx == NULL || !OSSL_PROVIDER_add_builtin(w.libctx, "reseal", rs_ossl_init)) return arg;
    if ((w.reseal = OSSL_PROVIDER_load(w.libctx, "reseal")) == NULL) return arg;
    bool good = results_are_right(w.libctx);
    good = OSSL_PROVIDER_unload(w.reseal) == 1 && good;
    OSSL_LIB_CTX_free(w.libctx);
    return good ? NULL : arg;
}

static void run_threads(void *(*what)(void *), void *arg)
{
    pthread_t threads[THREADS];
    void *failed;
    pthread_barrier_init(&all_ready, NULL, THREADS);
    for (unsigned i = 0; i < THREADS; i++) assert_int_equal(pthread_create(&threads[i], NULL, what, arg), 0);
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(threads[i], &failed);
        assert_null(failed);
    }
    pthread_barrier_destroy(&all_ready);
}

static void first_queries_come_from_many_threads(void **state)
{
    (void)state;
    static const char *const engines[] = {"auto", "openssl"};
    for (unsigned e = 0; e < RS_ARRAY_LEN(engines); e++) {
        struct world w;
        assert_true(open_world(&w, false, engines[e]));
        run_threads(first_use, w.libctx);
        close_world(&w);
    }
}

static void each_thread_may_have_its_own(void **state)
{
    (void)state;
    static const char *const engines[] = {"auto", "openssl", "vaes-aesni"};
    for (unsigned e = 0; e < RS_ARRAY_LEN(engines); e++) {
        setenv("RESEAL_OSSL_ENGINE", engines[e], 1);
        run_threads(whole_life, (void *)(uintptr_t)engines[e]);
    }
}

/* ---- unloading ------------------------------------------------------------------------------ */

static int is_module(struct dl_phdr_info *info, size_t size, void *found)
{
    (void)size;
    if (strstr(info->dlpi_name, "/reseal.so") != NULL) *(bool *)found = true;
    return 0;
}

static bool module_is_there(void)
{
    bool found = false;
    dl_iterate_phdr(is_module, &found);
    return found;
}

/* Its handlers must have gone with it: they would be called in memory that is not there. */
static bool fork_works(void)
{
    pid_t pid = fork();
    if (pid == 0) _exit(0);
    int status = 1;
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR) continue;
    return pid > 0 && status == 0;
}

static int module_comes_and_goes(const char *engine, bool stays)
{
    for (unsigned i = 0; i < 10; i++) {
        struct world w;
        if (!open_world(&w, true, engine)) return 1;
        if (!module_is_there() || !results_are_right(w.libctx) || !fork_works()) return 2;
        close_world(&w);
        if (module_is_there() != stays || !fork_works()) return 3;
    }
    return 0;
}

/* In processes of their own: what stays, stays. */
static void the_module_comes_and_goes(void **state)
{
    (void)state;
    static const struct {
        const char *engine;
        bool stays;
    } cases[] = {{"vaes-aesni", false}, {"openssl", true}};
    for (unsigned i = 0; i < RS_ARRAY_LEN(cases); i++) {
        struct world w;
        char value[32];
        assert_true(open_world(&w, false, cases[i].engine));
        offered(&w, "AES-256-GCM", value, sizeof(value));
        close_world(&w);
        fflush(NULL);
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) _exit(module_comes_and_goes(cases[i].engine, strcmp(value, "openssl") == 0));
        int status;
        while (waitpid(pid, &status, 0) < 0) assert_int_equal(errno, EINTR);
        assert_int_equal(status, 0);
    }
}

static void it_is_built_in_again_and_again(void **state)
{
    (void)state;
    static const char *const engines[] = {"auto", "openssl", "vaes-aesni"};
    for (unsigned i = 0; i < 15; i++) {
        struct world w;
        assert_true(open_world(&w, false, engines[i % 3]));
        assert_true(results_are_right(w.libctx));
        close_world(&w);
        assert_true(fork_works());
    }
}

static int steps[2], answers[2];

static bool pass(int fd)
{
    char c;
    return read(fd, &c, 1) == 1;
}

/* No IV: the default provider's GCM draws one, by a generator of this thread. */
static void *draws_an_iv(void *libctx)
{
    static const uint8_t key[32] = {1};
    uint8_t out[16] = {0};
    int n;
    EVP_CIPHER *c = EVP_CIPHER_fetch(libctx, "AES-256-GCM", "provider=reseal");
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    bool good = c != NULL && EVP_EncryptInit_ex2(ctx, c, key, NULL, NULL) == 1 &&
                EVP_EncryptUpdate(ctx, out, &n, out, sizeof(out)) == 1;
    EVP_CIPHER_CTX_free(ctx);
    EVP_CIPHER_free(c);
    good = write(answers[1], "x", 1) == 1 && pass(steps[0]) && good; /* the provider goes, then this thread */
    return good ? NULL : libctx;
}

static void a_thread_outlives_the_provider(void **state)
{
    (void)state;
    struct world w;
    pthread_t thread;
    void *failed;
    assert_int_equal(pipe(steps) | pipe(answers), 0);
    assert_true(open_world(&w, false, "openssl"));
    assert_int_equal(pthread_create(&thread, NULL, draws_an_iv, w.libctx), 0);
    assert_true(pass(answers[0]));
    close_world(&w);
    assert_int_equal(write(steps[1], "x", 1), 1);
    pthread_join(thread, &failed);
    assert_null(failed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(
            first_queries_come_from_many_threads), /* first: nothing is known in the process yet */
        cmocka_unit_test(engines_are_offered_as_told),
        cmocka_unit_test(the_faster_are_offered_without),
        cmocka_unit_test(delegated_ones_are_the_default_providers_own),
        cmocka_unit_test(the_application_sees_nothing_of_it),
        cmocka_unit_test(each_thread_may_have_its_own),
        cmocka_unit_test(the_module_comes_and_goes),
        cmocka_unit_test(it_is_built_in_again_and_again),
        cmocka_unit_test(a_thread_outlives_the_provider),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
