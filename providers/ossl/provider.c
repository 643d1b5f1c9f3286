/* SPDX-License-Identifier: Apache-2.0 */
/* provider(7): loading, configuration, what is offered, unloading. */
#include "providers/ossl/ossl.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/params.h>
#include <openssl/proverr.h>
#include <openssl/rand.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/random.h>

#ifdef RESEAL_X86
#include "providers/crypto/vaes/stream.h"
#endif

struct provider {
    struct rs_ossl base;
    struct {
        const char *kind; /* of key memory: it may change, by a fork or when contexts are many */
        char text[640];   /* written once: an application may hold it */
    } buildinfo[3];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of build information */

/* Configuration: values of the section that activates the provider; NULL where there is none. */
struct settings {
    char *engine, *key_memory;
};

/* "auto", "openssl", or kernels that this build has and this machine runs. */
static bool engine_known(const char *name)
{
    if (strcmp(name, "auto") == 0 || strcmp(name, "openssl") == 0) return true;
#ifdef RESEAL_X86
    return rs_stream_by_name(name) != NULL;
#else
    return false;
#endif
}

static bool configure(struct rs_ossl *p, OSSL_FUNC_core_get_params_fn *get_params)
{
    struct settings s = {NULL, NULL};
    OSSL_PARAM params[] = {OSSL_PARAM_construct_utf8_ptr("engine", &s.engine, 0),
                           OSSL_PARAM_construct_utf8_ptr("key-memory", &s.key_memory, 0), OSSL_PARAM_END};
    if (get_params != NULL && !get_params(p->handle, params)) return false;
    const char *engine = s.engine == NULL ? "auto" : s.engine;
    if (strlen(engine) >= sizeof(p->engine) || !engine_known(engine)) {
        ERR_raise_data(ERR_LIB_PROV, PROV_R_INVALID_CONFIG_DATA,
                       "reseal: engine \"%.64s\" is unknown here; use auto, openssl or kernels of this CPU",
                       engine);
        return false;
    }
    memcpy(p->engine, engine, strlen(engine) + 1);
    if (s.key_memory != NULL && !rs_ossl_memory_prefer(s.key_memory)) {
        ERR_raise_data(ERR_LIB_PROV, PROV_R_INVALID_CONFIG_DATA,
                       "reseal: key-memory \"%.64s\" is unknown; use auto, secret, locked or plain",
                       s.key_memory);
        return false;
    }
    return true;
}

/*
 * Whether the libcrypto that loads us is the one that we are linked with: only
 * then its library context is a structure that we can use. A program that has
 * its own libcrypto inside has another. (A child context of ours would stand
 * for it, but what that fetches can be from this very provider, which then
 * holds itself and is never torn down.)
 */
static void take_libctx(struct rs_ossl *p, OSSL_FUNC_core_get_libctx_fn *get_libctx,
                        OSSL_FUNC_CRYPTO_zalloc_fn *zalloc)
{
    p->foreign = get_libctx == NULL || zalloc != CRYPTO_zalloc;
    if (!p->foreign) p->libctx = (OSSL_LIB_CTX *)get_libctx(p->handle);
}

bool rs_ossl_random(const struct rs_ossl *p, uint8_t *out, size_t len)
{
    /* Up to 256 bytes come whole or not at all, once the system has booted. */
    if (p->foreign) return len <= 256 && getrandom(out, len, 0) == (ssize_t)len;
    return RAND_bytes_ex(p->libctx, out, len, 0) > 0;
}

static void teardown(void *provctx)
{
    struct provider *p = provctx;
    rs_ossl_choice_release(&p->base);
    OPENSSL_free(p);
    rs_ossl_memory_release();
}

static const OSSL_ALGORITHM *query(void *provctx, int operation, int *no_store)
{
    struct rs_ossl *p = provctx;
    *no_store = 0;
    if (operation != OSSL_OP_CIPHER) return NULL;
    rs_ossl_choose(p);
    return p->ciphers;
}

/* Choice and memory, at the end of the build information: `openssl list -providers -verbose` shows them. */
static const char *buildinfo(struct provider *p)
{
    int no_store;
    query(p, OSSL_OP_CIPHER, &no_store);
    const char *kind = rs_ossl_memory_kind();
    unsigned i = 0;
    pthread_mutex_lock(&lock);
    while (i + 1 < RS_ARRAY_LEN(p->buildinfo) && p->buildinfo[i].kind != NULL &&
           strcmp(p->buildinfo[i].kind, kind) != 0)
        i++;
    if (p->buildinfo[i].kind == NULL) {
        p->buildinfo[i].kind = kind;
        snprintf(p->buildinfo[i].text, sizeof(p->buildinfo[i].text),
                 "reseal " RESEAL_VERSION " with OpenSSL %s: %s key-memory=%s",
                 OpenSSL_version(OPENSSL_VERSION_STRING), rs_ossl_choice_text(&p->base), kind);
    }
    pthread_mutex_unlock(&lock);
    return p->buildinfo[i].text;
}

static const OSSL_PARAM *gettable_params(RS_UNUSED void *provctx)
{
    static const OSSL_PARAM list[] = {
        OSSL_PARAM_DEFN(OSSL_PROV_PARAM_NAME, OSSL_PARAM_UTF8_PTR, NULL, 0),
        OSSL_PARAM_DEFN(OSSL_PROV_PARAM_VERSION, OSSL_PARAM_UTF8_PTR, NULL, 0),
        OSSL_PARAM_DEFN(OSSL_PROV_PARAM_BUILDINFO, OSSL_PARAM_UTF8_PTR, NULL, 0),
        OSSL_PARAM_DEFN(OSSL_PROV_PARAM_STATUS, OSSL_PARAM_INTEGER, NULL, 0), OSSL_PARAM_END};
    return list;
}

static int get_params(void *provctx, OSSL_PARAM params[])
{
    OSSL_PARAM *p = OSSL_PARAM_locate(params, OSSL_PROV_PARAM_NAME);
    if (p != NULL && !OSSL_PARAM_set_utf8_ptr(p, "Reseal Provider")) return 0;
    p = OSSL_PARAM_locate(params, OSSL_PROV_PARAM_VERSION);
    if (p != NULL && !OSSL_PARAM_set_utf8_ptr(p, RESEAL_VERSION)) return 0;
    p = OSSL_PARAM_locate(params, OSSL_PROV_PARAM_BUILDINFO);
    if (p != NULL && !OSSL_PARAM_set_utf8_ptr(p, buildinfo(provctx))) return 0;
    p = OSSL_PARAM_locate(params, OSSL_PROV_PARAM_STATUS);
    return p == NULL || OSSL_PARAM_set_int(p, 1);
}

static const OSSL_DISPATCH dispatch[] = {
    {OSSL_FUNC_PROVIDER_TEARDOWN, (void (*)(void))teardown},
    {OSSL_FUNC_PROVIDER_GETTABLE_PARAMS, (void (*)(void))gettable_params},
    {OSSL_FUNC_PROVIDER_GET_PARAMS, (void (*)(void))get_params},
    {OSSL_FUNC_PROVIDER_QUERY_OPERATION, (void (*)(void))query},
    {0, NULL}};

int rs_ossl_init(const OSSL_CORE_HANDLE *handle, const OSSL_DISPATCH *in, const OSSL_DISPATCH **out,
                 void **provctx)
{
    OSSL_FUNC_core_get_params_fn *core_get_params = NULL;
    OSSL_FUNC_core_get_libctx_fn *core_get_libctx = NULL;
    OSSL_FUNC_CRYPTO_zalloc_fn *core_zalloc = NULL;
    for (const OSSL_DISPATCH *d = in; d->function_id != 0; d++) {
        if (d->function_id == OSSL_FUNC_CORE_GET_PARAMS) core_get_params = OSSL_FUNC_core_get_params(d);
        if (d->function_id == OSSL_FUNC_CORE_GET_LIBCTX) core_get_libctx = OSSL_FUNC_core_get_libctx(d);
        if (d->function_id == OSSL_FUNC_CRYPTO_ZALLOC) core_zalloc = OSSL_FUNC_CRYPTO_zalloc(d);
    }
    struct provider *p = OPENSSL_zalloc(sizeof(*p));
    if (p == NULL) return 0;
    p->base.handle = handle;
    take_libctx(&p->base, core_get_libctx, core_zalloc);
    if (!configure(&p->base, core_get_params)) {
        OPENSSL_free(p);
        return 0;
    }
    rs_ossl_memory_acquire();
    *provctx = p;
    *out = dispatch;
    return 1;
}
