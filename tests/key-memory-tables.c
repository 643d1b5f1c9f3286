/* SPDX-License-Identifier: Apache-2.0 */
/* libcrypto's tables of algorithms may lie in ordinary memory; all that comes after them is in key memory. */
#include "offload/base/keymem.h"
#include "providers/crypto/openssl_memory.h"
#include "reseal/reseal.h"
#include "tests/support/cmocka.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>

#define BIG ((size_t)1 << 20)

static void what_comes_after_the_tables_is_in_key_memory(void **state)
{
    (void)state;
    uint8_t out[32];
    assert_int_equal(rs_keymem_hook_openssl(), RESEAL_EINVAL); /* no key memory yet */
    assert_int_equal(rs_keymem_hook_tables(), 0);
    EVP_MD *md = EVP_MD_fetch(NULL, "SHA2-256", NULL);
    uint8_t *before = OPENSSL_malloc(100), *grown = OPENSSL_malloc(100), *big = OPENSSL_malloc(BIG);
    assert_true(md != NULL && before != NULL && grown != NULL && big != NULL);
    assert_false(rs_keymem_owns(before));
    memset(grown, 7, 100);
    memset(big, 8, BIG);

    assert_int_equal(rs_keymem_init(0), 0);
    assert_int_equal(rs_keymem_hook_openssl(), 0);
    grown = OPENSSL_realloc(grown, 200);
    assert_true(rs_keymem_owns(grown));
    assert_true(grown[0] == 7 && grown[99] == 7);
    big = OPENSSL_realloc(big, BIG + 1); /* too large for the arena, and none of ordinary memory */
    assert_true(big[0] == 8 && big[BIG - 1] == 8);
    uint8_t *after = OPENSSL_malloc(100), *large = OPENSSL_malloc(BIG);
    assert_true(rs_keymem_owns(after));
    large = OPENSSL_realloc(large, 64);
    assert_true(rs_keymem_owns(large));
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    assert_true(rs_keymem_owns(ctx));
    assert_int_equal(EVP_DigestInit_ex(ctx, md, NULL), 1);
    assert_int_equal(EVP_DigestUpdate(ctx, "abc", 3), 1);
    assert_int_equal(EVP_DigestFinal_ex(ctx, out, NULL), 1);
    assert_int_equal(out[0], 0xba);
    assert_int_equal(RAND_priv_bytes(out, sizeof(out)), 1);
    EVP_MD_CTX_free(ctx);
    EVP_MD_free(md);
    OPENSSL_free(before);
    OPENSSL_free(grown);
    OPENSSL_free(big);
    OPENSSL_free(after);
    OPENSSL_free(large);
}

/* A small block that was freed is given again, wiped; freed twice it ends the program. */
static void a_block_that_is_kept_is_wiped(void **state)
{
    (void)state;
    uint8_t *a = OPENSSL_malloc(64);
    memset(a, 0x5a, 64);
    OPENSSL_free(a);
    uint8_t *b = OPENSSL_malloc(64);
    assert_ptr_equal(a, b);
    for (unsigned i = 0; i < 64; i++) assert_int_equal(b[i], 0);
    OPENSSL_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_comes_after_the_tables_is_in_key_memory),
        cmocka_unit_test(a_block_that_is_kept_is_wiped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
