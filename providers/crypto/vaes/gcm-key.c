/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/crypto/vaes/key.h"

void rs_ghash_prepare(struct rs_vaes_key *key)
{
    memset(key->ghash, 0, sizeof(key->ghash));
}
