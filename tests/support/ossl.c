/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/ossl.h"

#include "offload/base/bytes.h"
#include "providers/ossl/ossl.h"

#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef NO_RS_OSSL
#define rs_ossl_init           NULL
#define rs_ossl_choice_text(p) ((p), NULL)
#endif

const struct ossl_cipher ossl_ciphers[OSSL_CIPHERS] = {
    {"AES-128-GCM", EVP_CIPH_GCM_MODE, 16, 12}, {"AES-192-GCM", EVP_CIPH_GCM_MODE, 24, 12},
    {"AES-256-GCM", EVP_CIPH_GCM_MODE, 32, 12}, {"AES-128-XTS", EVP_CIPH_XTS_MODE, 32, 16},
    {"AES-256-XTS", EVP_CIPH_XTS_MODE, 64, 16}, {"AES-128-CTR", EVP_CIPH_CTR_MODE, 16, 16},
    {"AES-192-CTR", EVP_CIPH_CTR_MODE, 24, 16}, {"AES-256-CTR", EVP_CIPH_CTR_MODE, 32, 16},
};

const char *const ossl_kernel_sets[] = {"vaes-avx512", "vaes-avx2", "vaes-aesni", "openssl", NULL};

static _Noreturn void die(const char *what, const char *which)
{
    fprintf(stderr, "%s %s\n", what, which);
    ERR_print_errors_fp(stderr);
    exit(2);
}

static const char *tested(void)
{
    const char *name = getenv("RESEAL_TESTED_PROVIDER");
    return name != NULL ? name : "builtin";
}

int ossl_cipher_index(const char *name)
{
    for (int i = 0; i < OSSL_CIPHERS; i++)
        if (strcmp(ossl_ciphers[i].name, name) == 0) return i;
    return -1;
}

const char *ossl_properties(int side)
{
    return side == OSSL_DEFAULT || strcmp(tested(), "default") == 0 ? "provider=default" : "provider=reseal";
}

bool ossl_delegated(void)
{
    const char *kernels = getenv("RESEAL_OSSL_ENGINE");
    return strcmp(ossl_properties(OSSL_TESTED), ossl_properties(OSSL_DEFAULT)) == 0 ||
           (kernels != NULL && strcmp(kernels, "openssl") == 0);
}

/* A kernel set that is asked for and not used would be tested by name only. */
static void check_kernels(const struct ossl *o)
{
    const char *wanted = getenv("RESEAL_OSSL_ENGINE");
    if (wanted == NULL || strcmp(tested(), "builtin") != 0) return;
    const char *text = rs_ossl_choice_text(OSSL_PROVIDER_get0_provider_ctx(o->provider[OSSL_TESTED]));
    char pair[64];
    snprintf(pair, sizeof(pair), "AES-256-XTS=%s", wanted);
    if (text == NULL || strstr(text, pair) == NULL) die("not the kernels that were asked for:", text);
}

static OSSL_PROVIDER *load_tested(OSSL_LIB_CTX *libctx)
{
    if (strcmp(tested(), "default") == 0) return OSSL_PROVIDER_load(libctx, "default");
    if (strcmp(tested(), "module") == 0) {
        const char *build = getenv("RESEAL_BUILD");
        char folder[4096];
        snprintf(folder, sizeof(folder), "%s/lib/ossl-modules", build != NULL ? build : ".");
        if (!OSSL_PROVIDER_set_default_search_path(libctx, folder)) die("no search path", folder);
    } else if (!OSSL_PROVIDER_add_builtin(libctx, "reseal", rs_ossl_init)) {
        die("the provider cannot be added", "");
    }
    return OSSL_PROVIDER_load(libctx, "reseal");
}

void ossl_open(struct ossl *o)
{
    memset(o, 0, sizeof(*o));
    o->libctx = OSSL_LIB_CTX_new();
    if (o->libctx == NULL) die("no library context", "");
    o->provider[OSSL_TESTED] = load_tested(o->libctx);
    o->provider[OSSL_DEFAULT] = OSSL_PROVIDER_load(o->libctx, "default");
    for (int side = 0; side < OSSL_SIDES; side++) {
        if (o->provider[side] == NULL) die("does not load:", ossl_properties(side));
        for (int i = 0; i < OSSL_CIPHERS; i++) {
            o->cipher[i][side] = EVP_CIPHER_fetch(o->libctx, ossl_ciphers[i].name, ossl_properties(side));
            if (o->cipher[i][side] == NULL) die("cannot be fetched:", ossl_ciphers[i].name);
            if (EVP_CIPHER_get0_provider(o->cipher[i][side]) != o->provider[side])
                die("comes from another provider:", ossl_ciphers[i].name);
        }
    }
    check_kernels(o);
}

void ossl_close(struct ossl *o)
{
    for (int side = 0; side < OSSL_SIDES; side++) {
        for (int i = 0; i < OSSL_CIPHERS; i++) EVP_CIPHER_free(o->cipher[i][side]);
        if (!OSSL_PROVIDER_unload(o->provider[side])) die("does not unload:", ossl_properties(side));
    }
    OSSL_LIB_CTX_free(o->libctx);
    memset(o, 0, sizeof(*o));
}

/* By the compiler's own detection, not by the code under test. */
bool ossl_kernels_here(const char *name)
{
    if (strcmp(name, "openssl") == 0) return true;
#ifdef RESEAL_X86
    bool aesni = __builtin_cpu_supports("aes") && __builtin_cpu_supports("pclmul");
    if (strcmp(name, "vaes-aesni") == 0) return aesni;
    bool wide = aesni && __builtin_cpu_supports("vpclmulqdq") && __builtin_cpu_supports("avx2");
    if (strcmp(name, "vaes-avx2") == 0) return wide;
    return wide && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
#else
    return false;
#endif
}
