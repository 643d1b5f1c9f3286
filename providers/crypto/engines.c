/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/crypto/engine.h"

#include "providers/crypto/openssl/openssl.h"
#include "providers/crypto/selftest.h"
#if RESEAL_IPSEC_MB
#include "providers/crypto/ipsec_mb/ipsec_mb.h"
#endif
#if RESEAL_X86
#include "providers/crypto/vaes/vaes.h"
#endif

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

static const struct rs_engine *const known[] = {
#if RESEAL_X86
    &rs_engine_vaes_avx512, &rs_engine_vaes_avx2,
#endif
#if RESEAL_IPSEC_MB
    &rs_engine_ipsec_mb,
#endif
#if RESEAL_X86
    &rs_engine_aesni,
#endif
    &rs_engine_openssl,     NULL,
};

#define KNOWN (RS_ARRAY_LEN(known) - 1)

static const struct rs_engine *used[KNOWN + 1];
static char faults[KNOWN][96];

/* Two halves, so that the copy of one verified record runs under the next, and 20 KiB for what else a kernel
 * keeps that is secret: tweaks, counter tables. */
size_t rs_engine_scratch_size(size_t len)
{
    return 2 * rs_round_up(len, 4096) + 20480;
}

/* Of RESEAL_SELFTEST_FAIL="vaes-avx2,openssl:xts-gcm", what is for this engine: "" any pair, a pair, NULL
 * nothing. */
static const char *fail_on_purpose(const char *name, char *pair, size_t pair_len)
{
    const char *list = secure_getenv("RESEAL_SELFTEST_FAIL");
    size_t len = strlen(name);
    while (list != NULL && *list != '\0') {
        size_t item = strcspn(list, ",");
        if (item >= len && memcmp(list, name, len) == 0 && (item == len || list[len] == ':')) {
            snprintf(pair, pair_len, "%.*s", item == len ? 0 : (int)(item - len - 1),
                     list + len + (item != len));
            return pair;
        }
        list += item + (list[item] == ',');
    }
    return NULL;
}

static void try_engine(size_t i, const struct rs_engine *reference)
{
    const struct rs_engine *engine = known[i];
    char pair[32];
    if (engine->probe() != 0) {
        snprintf(faults[i], sizeof(faults[i]), "cpu");
        return;
    }
    const char *fail = fail_on_purpose(engine->name, pair, sizeof(pair));
    /* rs_selftest leaves "" when it passed. */
    if (rs_selftest(engine, reference != NULL ? reference : engine, fail, faults[i], sizeof(faults[i])) == 0)
        faults[i][0] = '\0';
}

static void init(void)
{
    /* The portable engine first: it is what the others are compared with. */
    size_t last = KNOWN - 1;
    try_engine(last, NULL);
    const struct rs_engine *reference = faults[last][0] == '\0' ? known[last] : NULL;
    for (size_t i = 0; i < last; i++) try_engine(i, reference);
    size_t n = 0;
    for (size_t i = 0; i < KNOWN; i++)
        if (faults[i][0] == '\0') used[n++] = known[i];
}

void rs_engines_init(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, init);
}

const struct rs_engine *const *rs_engines(void)
{
    rs_engines_init();
    return used;
}

const struct rs_engine *const *rs_engines_known(void)
{
    return known;
}

const struct rs_engine *rs_engine_by_name(const char *name)
{
    size_t len = strlen(name);
    for (const struct rs_engine *const *e = rs_engines(); *e != NULL; e++) {
        const char *its = (*e)->name;
        if (strncmp(its, name, len) == 0 && (its[len] == '\0' || its[len] == '-')) return *e;
    }
    return NULL;
}

const char *rs_engine_fault(const char *name)
{
    rs_engines_init();
    for (size_t i = 0; i < KNOWN; i++)
        if (strcmp(known[i]->name, name) == 0) return faults[i];
    return "unknown engine";
}
