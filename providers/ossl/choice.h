/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_OSSL_CHOICE_H
#define RS_OSSL_CHOICE_H

/* The algorithms that are offered, and the race for them: what choice.c and race.c share. */

#include "providers/ossl/ossl.h"

#define RS_OSSL_ALGORITHMS 8u

enum rs_ossl_mode { RS_OSSL_GCM, RS_OSSL_XTS, RS_OSSL_CTR };

struct rs_ossl_algorithm {
    const char *name;          /* as our text has it */
    const char *names;         /* as OpenSSL has them */
    const OSSL_DISPATCH *ours; /* NULL in a build without kernels */
    enum rs_ossl_mode mode;
    unsigned key_len, iv_len; /* bytes */
};

extern const struct rs_ossl_algorithm rs_ossl_algorithms[RS_OSSL_ALGORITHMS];

/*
 * Runs ours with `kernels` against theirs, which are in the table of their
 * provider with that context. Bit i: ours is taken for the algorithm i. One
 * verdict for the key lengths of a mode. (race.c)
 */
unsigned rs_ossl_race(const struct rs_stream *kernels, const OSSL_ALGORITHM *table, void *provctx);

/* The functions of `name` in a table, or NULL. (choice.c) */
const OSSL_DISPATCH *rs_ossl_in_table(const OSSL_ALGORITHM *table, const char *name);

#endif
