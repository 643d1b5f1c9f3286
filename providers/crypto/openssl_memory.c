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

/* In front of what does not lie in the arena. */
struct front {
    size_t len;
    size_t kind; /* LARGE_KIND or TABLE_KIND */
};
#define LARGE_KIND ((size_t)0x4c415247)
#define TABLE_KIND ((size_t)0x5441424c)

static bool tables; /* between rs_keymem_hook_tables() and rs_keymem_hook_openssl() */

static struct front front_of(const void *p)
{
    struct front f;
    memcpy(&f, (const uint8_t *)p - FRONT, sizeof(f));
    if (f.kind != LARGE_KIND && f.kind != TABLE_KIND) abort();
    return f;
}

static void *outside_alloc(size_t len, size_t kind)
{
    if (len > SIZE_MAX / 4) return NULL;
    uint8_t *at = kind == LARGE_KIND ? rs_scratch_map(len + FRONT, NULL) : malloc(len + FRONT);
    if (at == NULL) return NULL;
    const struct front f = {len, kind};
    memcpy(at, &f, sizeof(f));
    return at + FRONT;
}

static void outside_free(void *p)
{
    struct front f = front_of(p);
    uint8_t *at = (uint8_t *)p - FRONT;
    if (f.kind == LARGE_KIND)
        rs_scratch_unmap(at, f.len + FRONT);
    else
        free(at);
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
    if (tables) return outside_alloc(len, TABLE_KIND);
    return len < LARGE ? small_alloc(len) : outside_alloc(len, LARGE_KIND);
}

static void hook_free(void *p, const char *file, int line)
{
    (void)file, (void)line;
    if (p == NULL || rs_keymem_owns(p))
        small_free(p);
    else
        outside_free(p);
}

static void *hook_realloc(void *p, size_t len, const char *file, int line)
{
    bool small = p != NULL && rs_keymem_owns(p);
    if (len == 0) {
        hook_free(p, file, line);
        return NULL;
    }
    if (small && len < LARGE) return rs_keymem_realloc(p, len);
    void *q = hook_malloc(len, file, line);
    if (q == NULL || p == NULL) return q;
    memcpy(q, p, RS_MIN(len, small ? rs_keymem_len(p) : front_of(p).len));
    hook_free(p, file, line);
    return q;
}

int rs_keymem_hook_tables(void)
{
    if (CRYPTO_set_mem_functions(hook_malloc, hook_realloc, hook_free) != 1) return RESEAL_EBUSY;
    tables = true;
    return 0;
}

int rs_keymem_hook_openssl(void)
{
    if (rs_keymem_kind() == RS_KEYMEM_NONE) return RESEAL_EINVAL;
    if (tables) {
        tables = false;
        keeps = true;
        return 0;
    }
    if (CRYPTO_set_mem_functions(hook_malloc, hook_realloc, hook_free) != 1) return RESEAL_EBUSY;
    keeps = true;
    return 0;
}
