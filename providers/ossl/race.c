/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ours against OpenSSL's own, called as libcrypto calls them: a message is
 * init with an IV, one update, final. The best of several times, taken in
 * turns, so that what else the machine does hits both.
 */
#include "offload/base/clock.h"
#include "providers/ossl/choice.h"

#include <stdlib.h>

#define LONGEST 16384u
#define ROUNDS  6u
#define WARM_UP 4u
#define HEATS   3u
#define ENOUGH  0.95 /* of their speed, at any size */

/* Bytes of a message, and messages in one sample: long enough for the clock, short enough to be in time. */
static const struct {
    size_t len;
    unsigned messages;
} sizes[] = {{64, 12}, {1024, 8}, {LONGEST, 1}};

struct side {
    OSSL_FUNC_cipher_encrypt_init_fn *init;
    OSSL_FUNC_cipher_update_fn *update;
    OSSL_FUNC_cipher_final_fn *final;
    OSSL_FUNC_cipher_freectx_fn *freectx;
    void *ctx;
};

static bool open_side(struct side *s, const OSSL_DISPATCH *d, void *provctx)
{
    OSSL_FUNC_cipher_newctx_fn *newctx = NULL;
    memset(s, 0, sizeof(*s));
    for (; d != NULL && d->function_id != 0; d++) {
        if (d->function_id == OSSL_FUNC_CIPHER_NEWCTX) newctx = OSSL_FUNC_cipher_newctx(d);
        if (d->function_id == OSSL_FUNC_CIPHER_ENCRYPT_INIT) s->init = OSSL_FUNC_cipher_encrypt_init(d);
        if (d->function_id == OSSL_FUNC_CIPHER_UPDATE) s->update = OSSL_FUNC_cipher_update(d);
        if (d->function_id == OSSL_FUNC_CIPHER_FINAL) s->final = OSSL_FUNC_cipher_final(d);
        if (d->function_id == OSSL_FUNC_CIPHER_FREECTX) s->freectx = OSSL_FUNC_cipher_freectx(d);
    }
    if (newctx == NULL || s->init == NULL || s->update == NULL || s->final == NULL || s->freectx == NULL)
        return false;
    s->ctx = newctx(provctx);
    return s->ctx != NULL;
}

static bool message(const struct side *s, size_t iv_len, uint8_t *data, size_t len)
{
    static const uint8_t iv[16] = {1, 2, 3};
    size_t n;
    return s->init(s->ctx, NULL, 0, iv, iv_len, NULL) && s->update(s->ctx, data, &n, len, data, len) &&
           s->final(s->ctx, data, &n, len);
}

/* Nanoseconds of a sample; UINT64_MAX when it does not work, which loses. */
static uint64_t sample(const struct side *s, size_t iv_len, uint8_t *data, unsigned size)
{
    uint64_t begin = rs_now_ns();
    for (unsigned i = 0; i < sizes[size].messages; i++)
        if (!message(s, iv_len, data, sizes[size].len)) return UINT64_MAX;
    return rs_now_ns() - begin;
}

/* How many times as fast as theirs; 0 when ours does not work. */
static double ratio(const struct side *ours, const struct side *theirs, size_t iv_len, uint8_t *data,
                    unsigned size)
{
    uint64_t best = UINT64_MAX, best_of_theirs = UINT64_MAX;
    for (unsigned i = 0; i < ROUNDS; i++) {
        uint64_t a = sample(ours, iv_len, data, size), b = sample(theirs, iv_len, data, size);
        best = RS_MIN(best, a);
        best_of_theirs = RS_MIN(best_of_theirs, b);
        if (i > 2 && best / 4 > best_of_theirs) break; /* hopeless: the time is the application's */
    }
    return best == UINT64_MAX ? 0 : (double)RS_MAX(best_of_theirs, 1) / (double)RS_MAX(best, 1);
}

static bool ours_is_better(const struct side *ours, const struct side *theirs, size_t iv_len, uint8_t *data)
{
    bool faster = false;
    /* Untimed: pages and caches, and what the processor wakes for wide instructions, which takes it
     * microseconds. */
    for (unsigned i = 0; i < WARM_UP; i++)
        if (!message(ours, iv_len, data, LONGEST) || !message(theirs, iv_len, data, LONGEST)) break;
    for (unsigned i = RS_ARRAY_LEN(sizes); i-- > 0;) {
        double r = ratio(ours, theirs, iv_len, data, i);
        /* A second look, before something that is not under our control decides. */
        for (unsigned look = 0; look < 1 && r < ENOUGH; look++)
            r = RS_MAX(r, ratio(ours, theirs, iv_len, data, i));
        if (r < ENOUGH) return false;
        faster = faster || r > 1;
    }
    return faster;
}

static bool race(const struct rs_ossl_algorithm *a, struct rs_ossl *p, const OSSL_DISPATCH *their_functions,
                 void *provctx, uint8_t *data)
{
    struct side ours = {0}, theirs = {0};
    uint8_t key[64];
    for (unsigned i = 0; i < sizeof(key); i++) key[i] = (uint8_t)i;
    bool theirs_works = open_side(&theirs, their_functions, provctx) &&
                        theirs.init(theirs.ctx, key, a->key_len, NULL, 0, NULL);
    bool ours_works = open_side(&ours, a->ours, p) && ours.init(ours.ctx, key, a->key_len, NULL, 0, NULL);
    bool better = ours_works && (!theirs_works || ours_is_better(&ours, &theirs, a->iv_len, data));
    if (ours.ctx != NULL) ours.freectx(ours.ctx);
    if (theirs.ctx != NULL) theirs.freectx(theirs.ctx);
    return better;
}

unsigned rs_ossl_race(const struct rs_stream *kernels, const OSSL_ALGORITHM *table, void *provctx)
{
    struct rs_ossl p = {.kernels = kernels}; /* of which newctx of ours reads no more */
    unsigned won = 0;
    RS_FREE uint8_t *data = calloc(1, LONGEST);
    if (data == NULL) return 0;
    /* Those that lost are raced again after the others: what disturbed them for a moment is over then. */
    for (unsigned heat = 0; heat < HEATS; heat++) {
        for (unsigned i = 0; i < RS_OSSL_ALGORITHMS;) {
            const struct rs_ossl_algorithm *a = &rs_ossl_algorithms[i];
            bool better = (won >> i & 1) != 0 || race(a, &p, rs_ossl_in_table(table, a->name), provctx, data);
            for (; i < RS_OSSL_ALGORITHMS && rs_ossl_algorithms[i].mode == a->mode; i++)
                if (better) won |= 1u << i;
        }
    }
    return won;
}
