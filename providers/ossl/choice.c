/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which implementation is offered. OpenSSL's own come out of a library context
 * of ours, with the default provider in it: the application's may not have
 * that provider, and must not be changed. Queries come with no lock of
 * libcrypto held, so a context may be made there.
 */
#include "providers/ossl/choice.h"

#include "offload/base/keymem.h"
#include "providers/ossl/cipher.h"

#include <dlfcn.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/provider.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#ifdef RESEAL_X86
#include "providers/crypto/vaes/stream.h"
#endif

/* What providers of one process share. */
static struct {
    pthread_mutex_t lock;
    bool at_fork;
    unsigned users; /* providers that have chosen */
    bool raced;
    unsigned won;      /* bit i: ours is faster for the algorithm i, with the best kernels */
    bool rand_is_used; /* the context below may draw random numbers, in any thread */
    OSSL_LIB_CTX *libctx;
    OSSL_PROVIDER *theirs;
    const OSSL_ALGORITHM *table;
    void *provctx;
    OSSL_DISPATCH *delegated[RS_OSSL_ALGORITHMS];
} process = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* ---- delegation --------------------------------------------------------------------- */

static OSSL_FUNC_cipher_newctx_fn *their_newctx[RS_OSSL_ALGORITHMS];

#define NEWCTX(i)                                                                                            \
    static void *newctx_##i(RS_UNUSED void *provctx)                                                         \
    {                                                                                                        \
        return their_newctx[i](process.provctx);                                                             \
    }
NEWCTX(0)
NEWCTX(1)
NEWCTX(2)
NEWCTX(3)
NEWCTX(4)
NEWCTX(5)
NEWCTX(6)
NEWCTX(7)

static OSSL_FUNC_cipher_newctx_fn *const our_newctx[RS_OSSL_ALGORITHMS] = {
    newctx_0, newctx_1, newctx_2, newctx_3, newctx_4, newctx_5, newctx_6, newctx_7};

/* OpenSSL lets an XTS key with equal halves decrypt; from this module it is refused whoever decrypts. */
static OSSL_FUNC_cipher_decrypt_init_fn *their_decrypt_init[RS_OSSL_ALGORITHMS];

#define DECRYPT_INIT(i)                                                                                      \
    static int decrypt_init_##i(void *ctx, const unsigned char *key, size_t key_len,                         \
                                const unsigned char *iv, size_t iv_len, const OSSL_PARAM params[])           \
    {                                                                                                        \
        if (key != NULL && key_len == rs_ossl_algorithms[i].key_len &&                                       \
            rs_equal_ct(key, key + key_len / 2, key_len / 2))                                                \
            return RS_OSSL_FAIL(XTS_DUPLICATED_KEYS);                                                        \
        return their_decrypt_init[i](ctx, key, key_len, iv, iv_len, params);                                 \
    }
DECRYPT_INIT(3)
DECRYPT_INIT(4)

static OSSL_FUNC_cipher_decrypt_init_fn *const our_decrypt_init[RS_OSSL_ALGORITHMS] = {
    [3] = decrypt_init_3, [4] = decrypt_init_4};

#ifdef RESEAL_X86
#define OURS(dispatch) dispatch
#else
#define OURS(dispatch) NULL
#endif

const struct rs_ossl_algorithm rs_ossl_algorithms[RS_OSSL_ALGORITHMS] = {
    {"AES-256-GCM", "AES-256-GCM:id-aes256-GCM:2.16.840.1.101.3.4.1.46", OURS(rs_ossl_aes256gcm), RS_OSSL_GCM,
     32, 12},
    {"AES-192-GCM", "AES-192-GCM:id-aes192-GCM:2.16.840.1.101.3.4.1.26", OURS(rs_ossl_aes192gcm), RS_OSSL_GCM,
     24, 12},
    {"AES-128-GCM", "AES-128-GCM:id-aes128-GCM:2.16.840.1.101.3.4.1.6", OURS(rs_ossl_aes128gcm), RS_OSSL_GCM,
     16, 12},
    {"AES-256-XTS", "AES-256-XTS:1.3.111.2.1619.0.1.2", OURS(rs_ossl_aes256xts), RS_OSSL_XTS, 64, 16},
    {"AES-128-XTS", "AES-128-XTS:1.3.111.2.1619.0.1.1", OURS(rs_ossl_aes128xts), RS_OSSL_XTS, 32, 16},
    {"AES-256-CTR", "AES-256-CTR", OURS(rs_ossl_aes256ctr), RS_OSSL_CTR, 32, 16},
    {"AES-192-CTR", "AES-192-CTR", OURS(rs_ossl_aes192ctr), RS_OSSL_CTR, 24, 16},
    {"AES-128-CTR", "AES-128-CTR", OURS(rs_ossl_aes128ctr), RS_OSSL_CTR, 16, 16},
};

const OSSL_DISPATCH *rs_ossl_in_table(const OSSL_ALGORITHM *table, const char *name)
{
    size_t len = strlen(name);
    for (const OSSL_ALGORITHM *a = table; a != NULL && a->algorithm_names != NULL; a++)
        if (strncmp(a->algorithm_names, name, len) == 0 &&
            (a->algorithm_names[len] == ':' || a->algorithm_names[len] == '\0'))
            return a->implementation;
    return NULL;
}

static void close_theirs(void)
{
    for (unsigned i = 0; i < RS_OSSL_ALGORITHMS; i++) {
        free(process.delegated[i]);
        process.delegated[i] = NULL;
    }
    if (process.table != NULL) OSSL_PROVIDER_unquery_operation(process.theirs, OSSL_OP_CIPHER, process.table);
    if (process.theirs != NULL) OSSL_PROVIDER_unload(process.theirs);
    OSSL_LIB_CTX_free(process.libctx);
    process.table = NULL;
    process.theirs = NULL;
    process.libctx = NULL;
}

static bool open_theirs(void)
{
    int no_store = 0;
    if (process.table != NULL) return true;
    if ((process.libctx = OSSL_LIB_CTX_new()) != NULL &&
        (process.theirs = OSSL_PROVIDER_load(process.libctx, "default")) != NULL) {
        process.provctx = OSSL_PROVIDER_get0_provider_ctx(process.theirs);
        process.table = OSSL_PROVIDER_query_operation(process.theirs, OSSL_OP_CIPHER, &no_store);
    }
    if (process.table == NULL) close_theirs();
    return process.table != NULL;
}

/* One of their functions, or what stands before it. */
static OSSL_DISPATCH stand_before(unsigned i, const OSSL_DISPATCH *theirs)
{
    OSSL_DISPATCH entry = *theirs;
    if (entry.function_id == OSSL_FUNC_CIPHER_NEWCTX) {
        their_newctx[i] = OSSL_FUNC_cipher_newctx(theirs);
        entry.function = (void (*)(void))our_newctx[i];
    }
    if (entry.function_id == OSSL_FUNC_CIPHER_DECRYPT_INIT && our_decrypt_init[i] != NULL) {
        their_decrypt_init[i] = OSSL_FUNC_cipher_decrypt_init(theirs);
        entry.function = (void (*)(void))our_decrypt_init[i];
    }
    return entry;
}

/* Their functions, newctx and the decrypt_init of XTS replaced; NULL when they have no such algorithm or
 * memory is out. */
static const OSSL_DISPATCH *delegate(unsigned i)
{
    if (!open_theirs()) return NULL;
    if (process.delegated[i] != NULL) return process.delegated[i];
    const OSSL_DISPATCH *theirs = rs_ossl_in_table(process.table, rs_ossl_algorithms[i].name);
    size_t n = 0;
    if (theirs == NULL) return NULL;
    while (theirs[n].function_id != 0) n++;
    OSSL_DISPATCH *copy = calloc(n + 1, sizeof(*copy));
    if (copy == NULL) return NULL;
    for (size_t k = 0; k < n; k++) copy[k] = stand_before(i, &theirs[k]);
    /* IVs of GCM may be drawn at random: by generators that belong to the context and to each thread. */
    if (rs_ossl_algorithms[i].mode == RS_OSSL_GCM) process.rand_is_used = true;
    return process.delegated[i] = copy;
}

/* ---- choosing ------------------------------------------------------------------------ */

#ifdef RESEAL_X86
static const struct rs_stream *kernels_named(const char *engine)
{
    const struct rs_stream *named = rs_stream_by_name(engine);
    return named != NULL ? named : rs_stream_best();
}

/* Bit i: ours is offered for the algorithm i. */
static unsigned decide(const struct rs_ossl *p, const char *engine)
{
    if (p->kernels == NULL || strcmp(engine, "openssl") == 0) return 0;
    if (strcmp(engine, p->kernels->name) == 0) return ~0u;
    if (process.raced) return process.won;
    if (!open_theirs()) return ~0u;
    process.won = rs_ossl_race(p->kernels, process.table, process.provctx);
    process.raced = true;
    return process.won;
}

static const char *kernels_name(const struct rs_ossl *p)
{
    return p->kernels->name;
}
#else
static const struct rs_stream *kernels_named(RS_UNUSED const char *engine)
{
    return NULL;
}

static unsigned decide(RS_UNUSED const struct rs_ossl *p, RS_UNUSED const char *engine)
{
    return 0;
}

static const char *kernels_name(RS_UNUSED const struct rs_ossl *p)
{
    return "";
}
#endif

/*
 * Two names for the same: a program that makes a condition of its own on
 * "provider" (stunnel: "provider!=fips") thereby drops what default_properties
 * says about that name, but not what they say about ours.
 */
#define PROPERTIES "provider=reseal,reseal.fast=yes"

static void offer(struct rs_ossl *p, unsigned ours)
{
    size_t n = 0, at = 0;
    for (unsigned i = 0; i < RS_OSSL_ALGORITHMS; i++) {
        const struct rs_ossl_algorithm *a = &rs_ossl_algorithms[i];
        bool is_ours = (ours >> i & 1) != 0;
        const OSSL_DISPATCH *dispatch = is_ours ? a->ours : delegate(i);
        if (dispatch == NULL) continue;
        p->ciphers[n++] = (OSSL_ALGORITHM){a->names, PROPERTIES, dispatch, NULL};
        int len = snprintf(p->text + at, sizeof(p->text) - at, "%s%s=%s", at == 0 ? "" : " ", a->name,
                           is_ours ? kernels_name(p) : "openssl");
        at = RS_MIN(at + (size_t)RS_MAX(len, 0), sizeof(p->text) - 1);
    }
}

static bool delegates(void)
{
    for (unsigned i = 0; i < RS_OSSL_ALGORITHMS; i++)
        if (process.delegated[i] != NULL) return true;
    return false;
}

static void before_fork(void)
{
    pthread_mutex_lock(&process.lock);
}

static void after_fork(void)
{
    pthread_mutex_unlock(&process.lock);
}

static void choose(struct rs_ossl *p)
{
    const char *engine = secure_getenv("RESEAL_OSSL_ENGINE");
    if (engine == NULL || *engine == '\0') engine = p->engine;
    if (!process.at_fork) process.at_fork = pthread_atfork(before_fork, after_fork, after_fork) == 0;
    ERR_set_mark(); /* the application's errors stay as they were */
    p->kernels = kernels_named(engine);
    offer(p, decide(p, engine));
    if (!delegates()) close_theirs();
    ERR_pop_to_mark();
    process.users++;
}

void rs_ossl_choose(struct rs_ossl *p)
{
    if (__atomic_load_n(&p->chosen, __ATOMIC_ACQUIRE)) return;
    pthread_mutex_lock(&process.lock);
    if (!p->chosen) choose(p);
    __atomic_store_n(&p->chosen, true, __ATOMIC_RELEASE);
    pthread_mutex_unlock(&process.lock);
}

const char *rs_ossl_choice_text(struct rs_ossl *p)
{
    rs_ossl_choose(p);
    return p->text;
}

/*
 * A thread that drew a random number through the context has a handler in
 * libcrypto which looks into the context when the thread ends, and there is no
 * way to end it from here. So then the context stays, and so does the module,
 * which knows it the next time that it is loaded.
 */
static void stay(void)
{
    Dl_info self;
    if (dladdr(&process, &self) == 0 || self.dli_fname == NULL) return;
    void *handle = dlopen(self.dli_fname, RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE);
    if (handle != NULL) dlclose(handle);
}

void rs_ossl_choice_release(struct rs_ossl *p)
{
    if (!p->chosen) return;
    pthread_mutex_lock(&process.lock);
    if (--process.users == 0) {
        if (process.rand_is_used)
            stay();
        else
            close_theirs();
    }
    pthread_mutex_unlock(&process.lock);
}
