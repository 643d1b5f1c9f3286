/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_TESTS_OSSL_TWIN_H
#define RS_TESTS_OSSL_TWIN_H

/*
 * A cipher context of the provider under test and one of the default provider
 * that get the same calls. Each call compares what both answer (return value,
 * lengths, every byte of the output and of what lies behind it, every
 * parameter, the last error) and returns the common answer. A difference ends the program with
 * SIGABRT after a line on stderr that says which call it was. RESEAL_TWIN_TRACE in
 * the environment: a line for each call.
 *
 * What a call wrote is in `out[OSSL_TESTED]` afterwards (updates, final,
 * cipher, records), or in `data[OSSL_TESTED]` (ctrl).
 */

#include "tests/support/ossl.h"

#include <openssl/params.h>
#include <stdint.h>

/* A control or parameter carries at most this much. */
#define TWIN_DATA 512u

struct ossl_twin {
    EVP_CIPHER_CTX *ctx[OSSL_SIDES];
    uint8_t *in[OSSL_SIDES], *out[OSSL_SIDES];
    uint8_t data[OSSL_SIDES][TWIN_DATA];
    size_t room;
    int out_len;       /* of the last update, final or cipher */
    unsigned in_skew;  /* bytes past a 64-byte boundary where updates read and write; 0 to 63 */
    unsigned out_skew; /* (in place: where they write) */
    char name[64];     /* for messages: the cipher of the last init */
    unsigned long calls;
    unsigned long error[OSSL_SIDES]; /* the last error of the last call; 0: none */
};

/* How an update is made. */
enum {
    TWIN_OUT_OF_PLACE = 0,
    TWIN_IN_PLACE = 1,
    TWIN_AAD = 2, /* no output */
};

/* `room` is the longest update. */
void twin_open(struct ossl_twin *t, size_t room);
void twin_close(struct ossl_twin *t);

/* The last output's place on the tested side. */
const uint8_t *twin_out(const struct ossl_twin *t);

/* EVP_CipherInit_ex2(); `cipher` is one of struct ossl's, or NULL. `params` are only read. */
int twin_init(struct ossl_twin *t, EVP_CIPHER *const cipher[OSSL_SIDES], const uint8_t *key,
              const uint8_t *iv, int enc, const OSSL_PARAM *params);

/* EVP_CipherUpdate(), EVP_Cipher(), EVP_CipherFinal_ex(). `in` may be NULL for twin_cipher() (then len is 0).
 */
int twin_update(struct ossl_twin *t, const uint8_t *in, size_t len, int how);
int twin_cipher(struct ossl_twin *t, const uint8_t *in, size_t len, int how);
int twin_final(struct ossl_twin *t);

/* EVP_CIPHER_CTX_ctrl() with `len` bytes that it may read and write; `in` may be NULL: zeros. */
int twin_ctrl(struct ossl_twin *t, int type, int arg, const void *in, size_t len);

/* EVP_CIPHER_CTX_set_params() with one parameter of any type and size. */
int twin_set(struct ossl_twin *t, const char *key, unsigned type, const void *data, size_t size);

/* EVP_CIPHER_CTX_get_params() for one parameter; compares the value, its return_size and what lies behind.
 * Pointers are compared by what they point to (iv bytes). data == NULL in the parameter when `size` is
 * (size_t)-1. */
int twin_get(struct ossl_twin *t, const char *key, unsigned type, size_t size);

/* EVP_CIPHER_CTX_copy(), EVP_CIPHER_CTX_reset(). */
int twin_copy(struct ossl_twin *to, const struct ossl_twin *from);
int twin_reset(struct ossl_twin *t);

/* From now on each call for random bytes in this process is answered by the same ones, so that both sides
 * draw equal IVs; false: by real ones again. */
void twin_equal_random(bool on);

/* Everything that can be asked of a context without changing it: lengths, flags, num, IVs, tag length. */
void twin_compare_state(struct ossl_twin *t);

#endif
