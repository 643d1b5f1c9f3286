/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/crypto/openssl_memory.h"

#include "offload/base/keymem.h"
#include "reseal/reseal.h"

#include <openssl/crypto.h>

static void *hook_malloc(size_t len, const char *file, int line)
{
    (void)file, (void)line;
    return len != 0 ? rs_keymem_alloc(len) : NULL;
}

static void hook_free(void *p, const char *file, int line)
{
    (void)file, (void)line;
    rs_keymem_free(p);
}

static void *hook_realloc(void *p, size_t len, const char *file, int line)
{
    if (len != 0) return rs_keymem_realloc(p, len);
    hook_free(p, file, line);
    return NULL;
}

int rs_keymem_hook_openssl(void)
{
    if (rs_keymem_kind() == RS_KEYMEM_NONE) return RESEAL_EINVAL;
    return CRYPTO_set_mem_functions(hook_malloc, hook_realloc, hook_free) == 1 ? 0 : RESEAL_EBUSY;
}
