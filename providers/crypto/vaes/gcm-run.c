/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/crypto/vaes/key.h"
#include "reseal/reseal.h"

static size_t refuse(struct rs_run *runs, size_t n)
{
    for (size_t i = 0; i < n; i++) runs[i].status = RESEAL_ENOSUPPORT;
    return n;
}

size_t rs_gcm_run_avx512(struct rs_run *runs, size_t n, void *scratch, unsigned flags)
{
    (void)scratch;
    (void)flags;
    return refuse(runs, n);
}

size_t rs_gcm_run_avx2(struct rs_run *runs, size_t n, void *scratch, unsigned flags)
{
    (void)scratch;
    (void)flags;
    return refuse(runs, n);
}

size_t rs_gcm_run_aesni(struct rs_run *runs, size_t n, void *scratch, unsigned flags)
{
    (void)scratch;
    (void)flags;
    return refuse(runs, n);
}
