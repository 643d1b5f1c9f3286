/* SPDX-License-Identifier: Apache-2.0 */
/* Memory of contexts. */
#include "providers/ossl/ossl.h"

#include <stdlib.h>

bool rs_ossl_memory_prefer(const char *kind)
{
    return strcmp(kind, "auto") == 0 || strcmp(kind, "secret") == 0 || strcmp(kind, "locked") == 0 ||
           strcmp(kind, "plain") == 0;
}

void rs_ossl_memory_acquire(void) {}

void rs_ossl_memory_release(void) {}

const char *rs_ossl_memory_kind(void)
{
    return "plain";
}

void *rs_ossl_alloc(size_t len)
{
    size_t room = rs_round_up(len, 64);
    void *p = aligned_alloc(64, room);
    if (p != NULL) memset(p, 0, room);
    return p;
}

void rs_ossl_free(void *p, size_t len)
{
    if (p == NULL) return;
    rs_wipe(p, len);
    free(p);
}
