/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/crypto/vaes/key.h"

size_t rs_xts_run_avx512(struct rs_run *runs, size_t n, void *scratch, unsigned flags)
{
    return rs_xts_run_aesni(runs, n, scratch, flags);
}
