/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 32 threads at once: copies of one keyed context, contexts of their own,
 * ciphers fetched and freed, providers loaded and unloaded in other library
 * contexts. Every answer is that of the default provider.
 */
#include "offload/base/bytes.h"
#include "tests/support/ossl-run.h"
#include "tests/support/reference.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#define THREADS  32
#define ROUNDS   48
#define MESSAGES 4
#define LEN      3000

/* What all threads read. */
static struct {
    uint8_t key[64], iv[MESSAGES][16], plain[LEN], sealed[OSSL_CIPHERS][MESSAGES][LEN];
    uint8_t tag[OSSL_CIPHERS][MESSAGES][16];
    EVP_CIPHER_CTX *keyed[OSSL_CIPHERS]; /* encrypting */
} shared;

static atomic_int wrong;
static pthread_barrier_t together;

static bool is_gcm(int i)
{
    return ossl_ciphers[i].mode == EVP_CIPH_GCM_MODE;
}

/* XTS: one update is one data unit. */
static bool all_updates(EVP_CIPHER_CTX *c, int i, const uint8_t *in, uint8_t *out, size_t part)
{
    int n;
    if (ossl_ciphers[i].mode == EVP_CIPH_XTS_MODE) part = LEN;
    for (size_t at = 0; at < LEN; at += part)
        if (EVP_CipherUpdate(c, out + at, &n, in + at, (int)RS_MIN(part, (size_t)LEN - at)) != 1)
            return false;
    return true;
}

static bool seal(EVP_CIPHER_CTX *c, int i, int message, size_t part)
{
    uint8_t out[LEN], tag[16];
    int n;
    if (EVP_CipherInit_ex2(c, NULL, NULL, shared.iv[message], 1, NULL) != 1) return false;
    if (!all_updates(c, i, shared.plain, out, part) || EVP_CipherFinal_ex(c, out, &n) != 1) return false;
    if (memcmp(out, shared.sealed[i][message], LEN) != 0) return false;
    if (!is_gcm(i)) return true;
    return EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_GET_TAG, 16, tag) == 1 &&
           memcmp(tag, shared.tag[i][message], 16) == 0;
}

static bool unseal(EVP_CIPHER_CTX *c, int i, int message, size_t part)
{
    uint8_t out[LEN], tag[16];
    int n;
    memcpy(tag, shared.tag[i][message], 16);
    if (is_gcm(i) && EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_SET_TAG, 16, tag) != 1) return false;
    return all_updates(c, i, shared.sealed[i][message], out, part) && EVP_CipherFinal_ex(c, out, &n) == 1 &&
           memcmp(out, shared.plain, LEN) == 0;
}

static bool with_copy(int i, int message, size_t part)
{
    EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
    bool ok = c != NULL && EVP_CIPHER_CTX_copy(c, shared.keyed[i]) == 1 && seal(c, i, message, part);
    EVP_CIPHER_CTX_free(c);
    return ok;
}

static bool with_own(int i, int message, size_t part)
{
    EVP_CIPHER *cipher =
        EVP_CIPHER_fetch(ossl_here.libctx, ossl_ciphers[i].name, ossl_properties(OSSL_TESTED));
    EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
    bool ok = cipher != NULL && c != NULL &&
              EVP_CipherInit_ex2(c, cipher, shared.key, shared.iv[message], 0, NULL) == 1 &&
              unseal(c, i, message, part);
    EVP_CIPHER_free(cipher);
    EVP_CIPHER_CTX_free(c);
    return ok;
}

static bool with_own_library_context(void)
{
    struct ossl own;
    ossl_open(&own); /* ends the program when it fails */
    ossl_close(&own);
    return true;
}

static void *work(void *arg)
{
    uint64_t seed = (uintptr_t)arg;
    uint8_t r[4];
    pthread_barrier_wait(&together);
    for (int round = 0; round < ROUNDS; round++) {
        reference_random(&seed, r, sizeof(r));
        int i = r[0] % OSSL_CIPHERS, message = r[1] % MESSAGES;
        size_t part = 1 + (size_t)r[2] * 7;
        bool ok = r[3] % 16 == 0 ? with_own_library_context()
                  : r[3] % 2     ? with_copy(i, message, part)
                                 : with_own(i, message, part);
        if (!ok) atomic_fetch_add(&wrong, 1);
    }
    return NULL;
}

/* What is right, by the default provider; and the contexts to copy, by the one under test. */
static void prepare(void)
{
    uint64_t seed = 1;
    int n;
    EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
    reference_random(&seed, shared.key, sizeof(shared.key));
    reference_random(&seed, shared.iv, sizeof(shared.iv));
    reference_random(&seed, shared.plain, sizeof(shared.plain));
    for (int i = 0; i < OSSL_CIPHERS; i++) {
        EVP_CIPHER *const *cipher = ossl_here.cipher[i];
        for (int m = 0; m < MESSAGES; m++) {
            assert_int_equal(EVP_EncryptInit_ex2(c, cipher[OSSL_DEFAULT], shared.key, shared.iv[m], NULL), 1);
            assert_int_equal(EVP_EncryptUpdate(c, shared.sealed[i][m], &n, shared.plain, LEN), 1);
            assert_int_equal(EVP_EncryptFinal_ex(c, shared.tag[i][m], &n), 1);
            if (is_gcm(i))
                assert_int_equal(EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_GET_TAG, 16, shared.tag[i][m]), 1);
        }
        shared.keyed[i] = EVP_CIPHER_CTX_new();
        assert_int_equal(EVP_EncryptInit_ex2(shared.keyed[i], cipher[OSSL_TESTED], shared.key, NULL, NULL),
                         1);
    }
    EVP_CIPHER_CTX_free(c);
}

static void threads(void **state)
{
    pthread_t t[THREADS];
    (void)state;
    prepare();
    pthread_barrier_init(&together, NULL, THREADS);
    for (uintptr_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&t[i], NULL, work, (void *)(i + 1)), 0);
    for (size_t i = 0; i < THREADS; i++) pthread_join(t[i], NULL);
    pthread_barrier_destroy(&together);
    for (int i = 0; i < OSSL_CIPHERS; i++) EVP_CIPHER_CTX_free(shared.keyed[i]);
    assert_int_equal(atomic_load(&wrong), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(threads)};
    return ossl_run(tests);
}
