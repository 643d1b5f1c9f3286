/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_CRYPTO_SELFTEST_H
#define RS_CRYPTO_SELFTEST_H

/*
 * What an engine must get right before it is used: the published vectors of
 * XTS (IEEE 1619) and GCM (the specification's), both ways; then every pair of
 * sides at every key size, short and long records in one batch, stolen tails,
 * equal and different data units, in place and not, against `reference`; then
 * a wrong tag, which must leave its destination alone.
 *
 * `reference` is an engine that passed, or the engine itself: its sealing of
 * plaintext, which the published vectors vouch for, is what pairs are compared
 * with. `fail` names a pair ("xts-gcm") whose expectation is made wrong on
 * purpose, "" any, NULL none. Returns 0, or RESEAL_ESELFTEST with the test in
 * `why`; RESEAL_ENOMEM.
 */

#include "providers/crypto/engine.h"

RS_MUST_CHECK int rs_selftest(const struct rs_engine *engine, const struct rs_engine *reference,
                              const char *fail, char *why, size_t why_len);

/* "plain", "xts", "gcm"; "?" for anything else. */
const char *rs_cipher_name(unsigned cipher);

#endif
