/* SPDX-License-Identifier: Apache-2.0 */
/* A context of the OpenSSL provider that was keyed before a fork goes on in parent and children, and what one
 * does to it does not show in the others. As a server does it that forks its workers. */
#include "offload/base/bytes.h"
#include "providers/ossl/ossl.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <openssl/evp.h>
#include <openssl/provider.h>
#include <openssl/rand.h>

#define HALF    528 /* bytes before the fork, and after it; no multiple of what kernels like */
#define COPIES  40u /* contexts of each algorithm: more than one page of key memory */
#define WORKERS 4u

static const char *const names[] = {"AES-256-GCM", "AES-192-GCM", "AES-128-GCM", "AES-256-XTS",
                                    "AES-128-XTS", "AES-256-CTR", "AES-192-CTR", "AES-128-CTR"};
#define NAMES RS_ARRAY_LEN(names)

static struct {
    OSSL_LIB_CTX *libctx;
    OSSL_PROVIDER *reseal, *usual;
    EVP_CIPHER *ours[NAMES], *theirs[NAMES];
    EVP_CIPHER_CTX *ctx[NAMES][COPIES];
} world;

static void keys_of(unsigned salt, uint8_t key[64], uint8_t iv[16])
{
    for (unsigned i = 0; i < 64; i++) key[i] = (uint8_t)(salt * 7 + i);
    for (unsigned i = 0; i < 16; i++) iv[i] = (uint8_t)(salt * 5 + 100 + i);
}

static bool begin(EVP_CIPHER_CTX *ctx, EVP_CIPHER *cipher, unsigned salt)
{
    uint8_t key[64], iv[16];
    keys_of(salt, key, iv);
    return EVP_EncryptInit_ex2(ctx, cipher, key, iv, NULL) == 1;
}

/* XTS takes a data unit at once: its first half is a unit of its own, and so is the second. */
static bool half(EVP_CIPHER_CTX *ctx, uint8_t fill, uint8_t out[HALF])
{
    uint8_t text[HALF];
    int n;
    memset(text, fill, sizeof(text));
    return EVP_EncryptUpdate(ctx, out, &n, text, HALF) == 1 && n == HALF;
}

static bool end(EVP_CIPHER_CTX *ctx, uint8_t tag[16])
{
    int n;
    memset(tag, 0, 16);
    if (EVP_EncryptFinal_ex(ctx, tag, &n) != 1) return false;
    return EVP_CIPHER_CTX_get_mode(ctx) != EVP_CIPH_GCM_MODE ||
           EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, 16, tag) == 1;
}

/* The second half and the end of a message in `ctx`, against the default provider's. */
static bool goes_on(EVP_CIPHER_CTX *ctx, unsigned algorithm, unsigned salt, uint8_t fill)
{
    uint8_t first[HALF], want[HALF], got[HALF], want_tag[16], got_tag[16];
    EVP_CIPHER_CTX *other = EVP_CIPHER_CTX_new();
    bool right = begin(other, world.theirs[algorithm], salt) && half(other, 1, first) &&
                 half(other, fill, want) && end(other, want_tag) && half(ctx, fill, got) &&
                 end(ctx, got_tag) && memcmp(want, got, HALF) == 0 && memcmp(want_tag, got_tag, 16) == 0;
    EVP_CIPHER_CTX_free(other);
    return right;
}

static unsigned salt_of(unsigned algorithm, unsigned copy)
{
    return algorithm * COPIES + copy;
}

/* Each algorithm by its name; 0 or what went wrong. */
static int all_go_on(uint8_t fill)
{
    for (unsigned a = 0; a < NAMES; a++)
        for (unsigned c = 0; c < COPIES; c++)
            if (!goes_on(world.ctx[a][c], a, salt_of(a, c), fill)) {
                fprintf(stderr, "%s, context %u, does not go on\n", names[a], c);
                return 1;
            }
    return 0;
}

/* New keys for all, a message with each, new contexts, the old ones gone. */
static int all_change(unsigned by)
{
    uint8_t out[HALF], tag[16];
    for (unsigned a = 0; a < NAMES; a++)
        for (unsigned c = 0; c < COPIES; c++) {
            unsigned salt = salt_of(a, c) + by;
            EVP_CIPHER_CTX *copy = EVP_CIPHER_CTX_new();
            if (!begin(world.ctx[a][c], NULL, salt) || !half(world.ctx[a][c], 1, out)) return 2;
            if (EVP_CIPHER_CTX_copy(copy, world.ctx[a][c]) != 1 || !goes_on(copy, a, salt, 5)) return 3;
            EVP_CIPHER_CTX_free(copy);
            if (!half(world.ctx[a][c], 9, out) || !end(world.ctx[a][c], tag)) return 4;
            EVP_CIPHER_CTX_free(world.ctx[a][c]);
            world.ctx[a][c] = EVP_CIPHER_CTX_new();
            if (!begin(world.ctx[a][c], world.ours[a], salt) || !half(world.ctx[a][c], 1, out)) return 5;
            if (!goes_on(world.ctx[a][c], a, salt, 6)) return 6;
        }
    return 0;
}

static void open_world(void)
{
    uint8_t out[HALF];
    world.libctx = OSSL_LIB_CTX_new();
    assert_int_equal(OSSL_PROVIDER_add_builtin(world.libctx, "reseal", rs_ossl_init), 1);
    world.reseal = OSSL_PROVIDER_load(world.libctx, "reseal");
    world.usual = OSSL_PROVIDER_load(world.libctx, "default");
    assert_true(world.reseal != NULL && world.usual != NULL);
    for (unsigned a = 0; a < NAMES; a++) {
        world.ours[a] = EVP_CIPHER_fetch(world.libctx, names[a], "provider=reseal");
        world.theirs[a] = EVP_CIPHER_fetch(world.libctx, names[a], "provider=default");
        assert_true(world.ours[a] != NULL && world.theirs[a] != NULL);
        for (unsigned c = 0; c < COPIES; c++) {
            world.ctx[a][c] = EVP_CIPHER_CTX_new();
            assert_true(begin(world.ctx[a][c], world.ours[a], salt_of(a, c)));
            assert_true(half(world.ctx[a][c], 1, out));
        }
    }
}

static void close_world(void)
{
    for (unsigned a = 0; a < NAMES; a++) {
        for (unsigned c = 0; c < COPIES; c++) EVP_CIPHER_CTX_free(world.ctx[a][c]);
        EVP_CIPHER_free(world.ours[a]);
        EVP_CIPHER_free(world.theirs[a]);
    }
    OSSL_PROVIDER_unload(world.reseal);
    OSSL_PROVIDER_unload(world.usual);
    OSSL_LIB_CTX_free(world.libctx);
}

static int wait_for(pid_t pid)
{
    int status = 0;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR) return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static pid_t fork_or_fail(void)
{
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) alarm(60);
    return pid;
}

static void a_child_goes_on_and_its_changes_stay_there(void **state)
{
    (void)state;
    open_world();
    pid_t pid = fork_or_fail();
    if (pid == 0) {
        int r = all_go_on(33);
        if (r == 0) r = all_change(1000);
        close_world();
        _exit(r);
    }
    assert_int_equal(wait_for(pid), 0);
    assert_int_equal(all_go_on(44), 0);
    close_world();
}

static void a_parent_goes_on_at_once_and_ends_first(void **state)
{
    (void)state;
    int done[2];
    char c;
    open_world();
    assert_int_equal(pipe(done), 0);
    pid_t pid = fork_or_fail();
    if (pid == 0) {
        close(done[1]);
        if (read(done[0], &c, 1) != 0) _exit(50); /* end of file: the parent has nothing of it any more */
        int r = all_go_on(33);
        close_world();
        _exit(r);
    }
    int r = all_change(2000);
    close_world();
    close(done[0]);
    close(done[1]);
    assert_int_equal(r, 0);
    assert_int_equal(wait_for(pid), 0);
}

/* The workers of a server, and their children, all at the same time; random numbers, too, come from a cipher.
 */
static void workers_do_not_share(void **state)
{
    (void)state;
    pid_t pids[WORKERS];
    open_world();
    for (unsigned i = 0; i < WORKERS; i++) {
        pids[i] = fork_or_fail();
        if (pids[i] != 0) continue;
        uint8_t bytes[32];
        pid_t child = fork();
        int r = all_go_on((uint8_t)(60 + i));
        if (r == 0) r = all_change(3000 + 100 * i);
        if (RAND_bytes_ex(world.libctx, bytes, sizeof(bytes), 0) != 1) r = 51;
        if (child == 0) _exit(r);
        int of_child = wait_for(child);
        _exit(r != 0 ? r : of_child);
    }
    for (unsigned i = 0; i < WORKERS; i++) assert_int_equal(wait_for(pids[i]), 0);
    assert_int_equal(all_go_on(44), 0);
    close_world();
}

static atomic_bool stop;

static void *makes_contexts(void *arg)
{
    uint8_t out[HALF], tag[16];
    for (unsigned i = 0; !atomic_load(&stop); i++) {
        EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
        bool good = begin(ctx, world.ours[i % NAMES], i) && half(ctx, 1, out) && end(ctx, tag);
        EVP_CIPHER_CTX_free(ctx);
        if (!good) return arg;
    }
    return NULL;
}

static void threads_make_contexts_meanwhile(void **state)
{
    (void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    skip(); /* the sanitizer's own allocator may be locked for ever in the child */
#endif
    pthread_t threads[3];
    void *failed;
    open_world();
    atomic_store(&stop, false);
    for (unsigned i = 0; i < RS_ARRAY_LEN(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, makes_contexts, &world), 0);
    for (unsigned i = 0; i < 12; i++) {
        pid_t pid = fork_or_fail();
        if (pid == 0) _exit(all_go_on(33));
        assert_int_equal(wait_for(pid), 0);
    }
    atomic_store(&stop, true);
    for (unsigned i = 0; i < RS_ARRAY_LEN(threads); i++) {
        pthread_join(threads[i], &failed);
        assert_null(failed);
    }
    assert_int_equal(all_go_on(44), 0);
    close_world();
}

static int run(const char *engine, const char *kind)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_child_goes_on_and_its_changes_stay_there),
        cmocka_unit_test(a_parent_goes_on_at_once_and_ends_first),
        cmocka_unit_test(workers_do_not_share),
        cmocka_unit_test(threads_make_contexts_meanwhile),
    };
    setenv("RESEAL_OSSL_ENGINE", engine, 1);
    setenv("RESEAL_KEYMEM", kind, 1);
    print_message("engine %s, key memory %s\n", engine, kind);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(void)
{
    return run("vaes-aesni", "secret") + run("vaes-aesni", "locked") + run("vaes-aesni", "plain") +
           run("openssl", "secret") + run("auto", "secret");
}
