/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/crypto/openssl_memory.h"

#include "offload/base/keymem.h"
#include "reseal/reseal.h"

#include <stdlib.h>

#include <openssl/crypto.h>

/*
 * No key is as long as this, but a pass phrase of a key file can be (8 MiB), and libcrypto copies it: a
 * wiped mapping of its own, locked where the limit allows, with its length in front.
 */
#define LARGE ((size_t)512 << 10)
#define FRONT RS_KEYMEM_ALIGN

static void *large_alloc(size_t len)
{
    if (len > SIZE_MAX / 4) return NULL;
    uint8_t *map = rs_scratch_map(len + FRONT, NULL);
    if (map == NULL) return NULL;
    memcpy(map, &len, sizeof(len));
    return map + FRONT;
}

static size_t large_len(const void *p)
{
    size_t len;
    memcpy(&len, (const uint8_t *)p - FRONT, sizeof(len));
    return len;
}

/*
 * A derivation of a pass phrase copies digest contexts in each of a million rounds. The thread that put the
 * hook in place keeps a few small blocks that it freed, wiped, so that a round needs neither the lock nor the
 * lists. Others have none: a block that a thread kept would be lost when it ends.
 */
#define KEPT_SIZES  4u /* of one to four granules */
#define KEPT_BLOCKS 4u

struct kept {
    void *blocks[KEPT_BLOCKS];
    unsigned n;
};
static __thread struct kept kept[KEPT_SIZES];
static __thread bool keeps;

static struct kept *kept_of(size_t len)
{
    size_t size = (len - 1) / RS_KEYMEM_ALIGN;
    return keeps && size < KEPT_SIZES ? &kept[size] : NULL;
}

static void *small_alloc(size_t len)
{
    struct kept *k = kept_of(len);
    return k != NULL && k->n != 0 ? k->blocks[--k->n] : rs_keymem_alloc(len);
}

static void small_free(void *p)
{
    if (p == NULL) return;
    size_t len = rs_keymem_len(p);
    struct kept *k = kept_of(len);
    if (k == NULL || k->n == KEPT_BLOCKS) {
        rs_keymem_free(p);
        return;
    }
    for (unsigned i = 0; i < k->n; i++)
        if (k->blocks[i] == p) abort(); /* freed twice, as rs_keymem_free() would notice */
    rs_wipe(p, len);
    k->blocks[k->n++] = p;
}

static void *hook_malloc(size_t len, const char *file, int line)
{
    (void)file, (void)line;
    if (len == 0) return NULL;
    return len < LARGE ? small_alloc(len) : large_alloc(len);
}

static void hook_free(void *p, const char *file, int line)
{
    (void)file, (void)line;
    if (p == NULL || rs_keymem_owns(p))
        small_free(p);
    else
        rs_scratch_unmap((uint8_t *)p - FRONT, large_len(p) + FRONT);
}

static void *hook_realloc(void *p, size_t len, const char *file, int line)
{
    bool small = p == NULL || rs_keymem_owns(p);
    if (len == 0) {
        hook_free(p, file, line);
        return NULL;
    }
    if (small && len < LARGE) return rs_keymem_realloc(p, len);
    void *q = hook_malloc(len, file, line);
    if (q == NULL || p == NULL) return q;
    memcpy(q, p, RS_MIN(len, small ? rs_keymem_len(p) : large_len(p)));
    hook_free(p, file, line);
    return q;
}

int rs_keymem_hook_openssl(void)
{
    if (rs_keymem_kind() == RS_KEYMEM_NONE) return RESEAL_EINVAL;
    if (CRYPTO_set_mem_functions(hook_malloc, hook_realloc, hook_free) != 1) return RESEAL_EBUSY;
    keeps = true;
    return 0;
}
