/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_BENCH_OPENSSL_SIDES_H
#define RS_BENCH_OPENSSL_SIDES_H

/*
 * The two sides of `reseal bench openssl`: a library context with the provider
 * reseal, loaded as a module as any program would load it, and one with
 * OpenSSL's default provider alone. Neither reads openssl.cnf.
 */

#include <openssl/crypto.h>
#include <openssl/provider.h>

#include "offload/base/bytes.h"

struct rs_evp_side {
    OSSL_LIB_CTX *libctx;
    const char
        *properties; /* of what is fetched: with ours "?provider=reseal", as an openssl.cnf would say it */
    OSSL_PROVIDER *fallback, *module; /* module: NULL on the default side */
};

struct rs_evp_sides {
    struct rs_evp_side ours, theirs;
    char why[512]; /* after a failure, one line */
};

/* Loads the module file and the default provider. 0, RESEAL_ENOMEM, or RESEAL_EINVAL with s->why: the file is
 * not there, damaged, or no provider. Call rs_evp_close() in any case. */
RS_MUST_CHECK int rs_evp_open(struct rs_evp_sides *s, const char *module);
void rs_evp_close(struct rs_evp_sides *s);

/* The libcrypto that runs, "3.0.17". Static. */
const char *rs_evp_version(void);

/* Who does this cipher on our side: the name of a kernel set, "openssl" where the module delegates or does
 * not offer it, "reseal" where it does not say. Writes at most `room` bytes, ended by 0. */
void rs_evp_engine(const struct rs_evp_sides *s, const char *cipher, char *out, size_t room);

#endif
