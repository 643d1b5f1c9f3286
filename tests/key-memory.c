/* SPDX-License-Identifier: Apache-2.0 */
/* Key memory: blocks are aligned, zeroed, wiped, reused; root cannot read the secret kind; libcrypto lives in
 * it. */
#include "offload/base/keymem.h"
#include "providers/crypto/openssl_memory.h"
#include "reseal/reseal.h"
#include "tests/support/keymem-kinds.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <openssl/evp.h>

static void all_zero(const uint8_t *p, size_t len)
{
    for (size_t i = 0; i < len; i++) assert_int_equal(p[i], 0);
}

static void blocks_are_aligned_zeroed_and_reused(void **state)
{
    (void)state;
    uint8_t *held[200];
    size_t size, before, after;
    rs_keymem_usage(&size, &before);
    for (unsigned round = 0; round < 50; round++) {
        for (unsigned i = 0; i < RS_ARRAY_LEN(held); i++) {
            size_t len = 1 + (i * 977u + round * 31u) % 5000u;
            held[i] = rs_keymem_alloc(len);
            assert_non_null(held[i]);
            assert_int_equal((uintptr_t)held[i] % RS_KEYMEM_ALIGN, 0);
            assert_true(rs_keymem_owns(held[i]));
            all_zero(held[i], len);
            memset(held[i], 0xa5, len);
        }
        for (unsigned i = 0; i < RS_ARRAY_LEN(held); i++) rs_keymem_free(held[(i * 7u) % RS_ARRAY_LEN(held)]);
    }
    rs_keymem_usage(NULL, &after);
    assert_int_equal(before, after);
    void *most = rs_keymem_alloc(size / 2);
    assert_non_null(most);
    rs_keymem_free(most);
}

static void realloc_keeps_contents_and_wipes_the_old_block(void **state)
{
    (void)state;
    uint8_t *p = rs_keymem_alloc(100), *old = p;
    memset(p, 7, 100);
    p = rs_keymem_realloc(p, 100000);
    assert_non_null(p);
    for (int i = 0; i < 100; i++) assert_int_equal(p[i], 7);
    all_zero(p + 100, 99900);
    assert_ptr_not_equal(old, p);
    all_zero(old, 100);
    p = rs_keymem_realloc(p, 10);
    for (int i = 0; i < 10; i++) assert_int_equal(p[i], 7);
    rs_keymem_free(p);
}

static void a_full_arena_says_no(void **state)
{
    (void)state;
    size_t size, used;
    rs_keymem_usage(&size, &used);
    assert_null(rs_keymem_alloc(size + 1));
    assert_null(rs_keymem_alloc(SIZE_MAX));
    void *one = rs_keymem_alloc(1);
    assert_null(rs_keymem_alloc(size));
    rs_keymem_free(one);
}

static int end_of_child(void (*what)(void *), void *arg)
{
    pid_t pid = fork();
    if (pid == 0) {
        signal(SIGSEGV, SIG_DFL);
        signal(SIGABRT, SIG_DFL);
        what(arg);
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void touch(void *p)
{
    *(volatile uint8_t *)p = 1;
}

static void look_for_secret(void *p)
{
    _exit(*(volatile uint8_t *)p == 0x5a ? 1 : 0);
}

static void free_wrong(void *p)
{
    rs_keymem_free((uint8_t *)p + 64);
}

static void guard_pages_and_fork_protect(void **state)
{
    (void)state;
    uint8_t *p = rs_keymem_alloc(256);
    memset(p, 0x5a, 256);
    int status = end_of_child(look_for_secret, p);
    assert_false(WIFEXITED(status) && WEXITSTATUS(status) == 1);
    assert_true(WIFSIGNALED(end_of_child(free_wrong, p)));
    rs_keymem_free(p);

    bool locked;
    uint8_t *s = rs_scratch_map(5000, &locked);
    assert_non_null(s);
    all_zero(s, 8192);
    memset(s, 0x5a, 5000);
    status = end_of_child(look_for_secret, s);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_true(WIFSIGNALED(end_of_child(touch, s - 1)));
    assert_true(WIFSIGNALED(end_of_child(touch, s + 8192)));
    rs_scratch_unmap(s, 5000);
}

static void the_secret_kind_cannot_be_read_through_proc(void **state)
{
    (void)state;
    if (rs_keymem_kind() != RS_KEYMEM_SECRET) skip();
    uint8_t *p = rs_keymem_alloc(64), out[64];
    memset(p, 0x5a, 64);
    int fd = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, out, sizeof(out), (off_t)(uintptr_t)p), -1);
    assert_int_equal(errno, EIO);
    close(fd);
    rs_keymem_free(p);
}

static void *churn(void *seed)
{
    unsigned s = *(unsigned *)seed;
    for (unsigned i = 0; i < 5000; i++) {
        uint8_t *p = rs_keymem_alloc(1 + (unsigned)rand_r(&s) % 3000u);
        if (p == NULL) return seed;
        *p = 1;
        p = rs_keymem_realloc(p, 1 + (unsigned)rand_r(&s) % 3000u);
        if (p == NULL || *p != 1) return seed;
        rs_keymem_free(p);
    }
    return NULL;
}

static void threads_share_it(void **state)
{
    (void)state;
    pthread_t threads[4];
    unsigned seeds[4] = {1, 2, 3, 4};
    for (unsigned i = 0; i < 4; i++) assert_int_equal(pthread_create(&threads[i], NULL, churn, &seeds[i]), 0);
    for (unsigned i = 0; i < 4; i++) {
        void *failed;
        pthread_join(threads[i], &failed);
        assert_null(failed);
    }
}

static void libcrypto_allocates_in_it(void **state)
{
    (void)state;
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    assert_non_null(ctx);
    assert_true(rs_keymem_owns(ctx));
    uint8_t key[32] = {1}, iv[12] = {2};
    assert_int_equal(EVP_EncryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, key, iv), 1);
    EVP_CIPHER_CTX_free(ctx);
    uint8_t *large = OPENSSL_malloc(300000); /* into a mapping of its own and back */
    assert_non_null(large);
    memset(large, 7, 300000);
    large = OPENSSL_realloc(large, 9 << 20);
    assert_false(rs_keymem_owns(large));
    large = OPENSSL_realloc(large, 8 << 20);
    large = OPENSSL_realloc(large, 1000);
    assert_true(rs_keymem_owns(large));
    for (int i = 0; i < 1000; i++) assert_int_equal(large[i], 7);
    OPENSSL_free(large);
    assert_int_equal(rs_keymem_hook_openssl(), 0);
}

static void sizes_are_checked(void **state)
{
    (void)state;
    assert_int_equal(rs_keymem_init(1), RESEAL_EINVAL);
    assert_int_equal(rs_keymem_init((size_t)1 << 40), RESEAL_EINVAL);
    assert_int_equal(rs_keymem_init(0), 0);
}

/* The tests once for each kind, as this machine gives it. */
static int one_kind(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_are_aligned_zeroed_and_reused),
        cmocka_unit_test(realloc_keeps_contents_and_wipes_the_old_block),
        cmocka_unit_test(a_full_arena_says_no),
        cmocka_unit_test(guard_pages_and_fork_protect),
        cmocka_unit_test(the_secret_kind_cannot_be_read_through_proc),
        cmocka_unit_test(threads_share_it),
        cmocka_unit_test(libcrypto_allocates_in_it),
        cmocka_unit_test(sizes_are_checked),
    };
    if (rs_keymem_init(0) != 0 || rs_keymem_hook_openssl() != 0) return 1;
    printf("key memory: %s\n", rs_keymem_kind_name());
    return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(void)
{
    return for_each_kind_of_key_memory(one_kind);
}
