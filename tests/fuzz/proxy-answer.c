/* SPDX-License-Identifier: Apache-2.0 */
/* What an HTTP proxy may answer to CONNECT, whole and in two parts. */
#include "providers/key/wire/proxy.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t used, early;
    int whole = rs_proxy_answer(data, size, &used);
    if (whole > 999 || used > size || used > RS_PROXY_ANSWER_MAX || (whole > 0 && used < 14)) abort();
    if (whole <= 0) return 0;
    /* One byte less is not enough, and what comes behind changes nothing. */
    if (rs_proxy_answer(data, used - 1, &early) != 0) abort();
    if (rs_proxy_answer(data, used, &early) != whole || early != used) abort();
    return 0;
}
