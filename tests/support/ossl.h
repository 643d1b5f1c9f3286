/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_TESTS_OSSL_H
#define RS_TESTS_OSSL_H

/*
 * A library context with two providers: the one under test (reseal) and
 * OpenSSL's default one, to compare with. No cmocka in here: the fuzz target
 * uses it too. Any failure ends the program with a line on stderr.
 *
 * RESEAL_TESTED_PROVIDER=default in the environment puts the default provider
 * in both places, which proves a test itself; =module loads reseal.so of
 * RESEAL_BUILD where a test would take the provider from the static library.
 */

#include <openssl/evp.h>
#include <openssl/provider.h>
#include <stdbool.h>
#include <stddef.h>

/* The two sides of everything that is compared. */
enum { OSSL_TESTED, OSSL_DEFAULT, OSSL_SIDES };

enum { OSSL_CIPHERS = 8 };

struct ossl_cipher {
    const char *name;
    unsigned mode; /* EVP_CIPH_GCM_MODE, EVP_CIPH_XTS_MODE, EVP_CIPH_CTR_MODE */
    size_t key_len;
    size_t iv_len;
};

/* What the provider offers. */
extern const struct ossl_cipher ossl_ciphers[OSSL_CIPHERS];

/* -1 when there is none of that name. */
int ossl_cipher_index(const char *name);

struct ossl {
    OSSL_LIB_CTX *libctx;
    OSSL_PROVIDER *provider[OSSL_SIDES];
    EVP_CIPHER *cipher[OSSL_CIPHERS][OSSL_SIDES]; /* in the order of ossl_ciphers */
};

/* "provider=reseal" or what stands for it, and "provider=default". */
const char *ossl_properties(int side);

/* The tested side is the default provider's own code, by RESEAL_OSSL_ENGINE=openssl or
 * RESEAL_TESTED_PROVIDER: what reseal does otherwise on purpose (docs/openssl-provider.md) is not to be seen.
 */
bool ossl_delegated(void);

void ossl_open(struct ossl *o);
void ossl_close(struct ossl *o);

/* The kernel sets that RESEAL_OSSL_ENGINE can name, the widest first, "openssl" (delegate everything) last;
 * NULL ends them. */
extern const char *const ossl_kernel_sets[];

/* This build and this CPU have it. */
bool ossl_kernels_here(const char *name);

#endif
