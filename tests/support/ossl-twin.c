/* SPDX-License-Identifier: Apache-2.0 */
#define OPENSSL_SUPPRESS_DEPRECATED /* RAND_METHOD: the one way to answer for every library context */
#include "tests/support/ossl-twin.h"

#include "offload/base/bytes.h"

#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BEHIND 64u /* bytes after an output that nobody may touch */
#define FILL   0xc7

/* Ends the program: `what` is the call, a and b the two answers. */
static _Noreturn void differ(const struct ossl_twin *t, const char *what, long a, long b)
{
    fprintf(stderr, "%s, call %lu, %s: tested %ld, default %ld\n", t->name, t->calls, what, a, b);
    abort();
}

static bool tracing(void)
{
    static int on = -1;
    if (on < 0) on = getenv("RESEAL_TWIN_TRACE") != NULL;
    return on;
}

static void begin(struct ossl_twin *t)
{
    t->calls++;
    ERR_clear_error();
}

/* After each side's call. Library and reason; where it was raised does not matter. */
static void note_error(struct ossl_twin *t, int side)
{
    t->error[side] = ERR_peek_last_error();
    ERR_clear_error();
}

static int same(const struct ossl_twin *t, const char *what, const int r[OSSL_SIDES])
{
    if (tracing()) fprintf(stderr, "%s, call %lu, %s: %d\n", t->name, t->calls, what, r[OSSL_TESTED]);
    if (r[OSSL_TESTED] != r[OSSL_DEFAULT]) differ(t, what, r[OSSL_TESTED], r[OSSL_DEFAULT]);
    if (t->error[OSSL_TESTED] != t->error[OSSL_DEFAULT])
        differ(t, what, (long)t->error[OSSL_TESTED], (long)t->error[OSSL_DEFAULT]);
    return r[OSSL_TESTED];
}

static void same_bytes(const struct ossl_twin *t, const char *what, const uint8_t *a, const uint8_t *b,
                       size_t n)
{
    if (n == 0 || memcmp(a, b, n) == 0) return;
    for (size_t i = 0; i < n; i++) {
        if (a[i] == b[i]) continue;
        fprintf(stderr, "%s, call %lu, %s: byte %zu of %zu is %02x, by default %02x\n", t->name, t->calls,
                what, i, n, a[i], b[i]);
        abort();
    }
}

void twin_open(struct ossl_twin *t, size_t room)
{
    memset(t, 0, sizeof(*t));
    t->room = room;
    for (int side = 0; side < OSSL_SIDES; side++) {
        size_t size = rs_round_up(room + 2 * BEHIND, 64);
        t->ctx[side] = EVP_CIPHER_CTX_new();
        t->in[side] = aligned_alloc(64, size);
        t->out[side] = aligned_alloc(64, size);
        if (t->ctx[side] == NULL || t->in[side] == NULL || t->out[side] == NULL) exit(2);
    }
}

void twin_close(struct ossl_twin *t)
{
    for (int side = 0; side < OSSL_SIDES; side++) {
        EVP_CIPHER_CTX_free(t->ctx[side]);
        free(t->in[side]);
        free(t->out[side]);
    }
    memset(t, 0, sizeof(*t));
}

const uint8_t *twin_out(const struct ossl_twin *t)
{
    return t->out[OSSL_TESTED] + t->out_skew;
}

int twin_init(struct ossl_twin *t, EVP_CIPHER *const cipher[OSSL_SIDES], const uint8_t *key,
              const uint8_t *iv, int enc, const OSSL_PARAM *params)
{
    int r[OSSL_SIDES];
    begin(t);
    if (cipher != NULL) snprintf(t->name, sizeof(t->name), "%s", EVP_CIPHER_get0_name(cipher[OSSL_DEFAULT]));
    for (int side = 0; side < OSSL_SIDES; side++)
        r[side] =
            EVP_CipherInit_ex2(t->ctx[side], cipher != NULL ? cipher[side] : NULL, key, iv, enc, params);
    char what[64];
    snprintf(what, sizeof(what), "init%s%s%s%s", cipher != NULL ? " cipher" : "", key != NULL ? " key" : "",
             iv != NULL ? " iv" : "",
             enc > 0    ? " to encrypt"
             : enc == 0 ? " to decrypt"
                        : "");
    return same(t, what, r);
}

/* Puts `in` where an update of that kind reads it; fills the outputs. */
static void stage(struct ossl_twin *t, const uint8_t *in, size_t len, int how)
{
    if (len > t->room) exit(2);
    for (int side = 0; side < OSSL_SIDES; side++) {
        memset(t->out[side] + t->out_skew, FILL, len + BEHIND);
        if (len == 0) continue;
        if (how == TWIN_IN_PLACE)
            memcpy(t->out[side] + t->out_skew, in, len);
        else
            memcpy(t->in[side] + t->in_skew, in, len);
    }
}

static const uint8_t *input_of(const struct ossl_twin *t, int side, int how)
{
    return how == TWIN_IN_PLACE ? t->out[side] + t->out_skew : t->in[side] + t->in_skew;
}

static uint8_t *output_of(const struct ossl_twin *t, int side, int how)
{
    return how == TWIN_AAD ? NULL : t->out[side] + t->out_skew;
}

/* The outputs are equal, what lies behind and the inputs are as they were. */
static void check_output(const struct ossl_twin *t, const char *what, const uint8_t *in, size_t len, int how)
{
    const uint8_t *out = twin_out(t);
    same_bytes(t, what, out, t->out[OSSL_DEFAULT] + t->out_skew, len + BEHIND);
    for (size_t i = 0; i < BEHIND; i++)
        if (out[len + i] != FILL) differ(t, "bytes behind the output", out[len + i], FILL);
    if (how != TWIN_IN_PLACE && in != NULL && memcmp(t->in[OSSL_TESTED] + t->in_skew, in, len) != 0)
        differ(t, "the input was changed", 1, 0);
}

int twin_update(struct ossl_twin *t, const uint8_t *in, size_t len, int how)
{
    int r[OSSL_SIDES], n[OSSL_SIDES] = {-7, -7};
    begin(t);
    stage(t, in, len, how);
    for (int side = 0; side < OSSL_SIDES; side++) {
        r[side] = EVP_CipherUpdate(t->ctx[side], output_of(t, side, how), &n[side], input_of(t, side, how),
                                   (int)len);
        note_error(t, side);
    }
    check_output(t, "update's output", in, len, how);
    t->out_len = same(t, "update's length", n);
    return same(t, "update", r);
}

int twin_cipher(struct ossl_twin *t, const uint8_t *in, size_t len, int how)
{
    int r[OSSL_SIDES];
    begin(t);
    stage(t, in, len, how);
    for (int side = 0; side < OSSL_SIDES; side++) {
        r[side] = EVP_Cipher(t->ctx[side], output_of(t, side, how),
                             in != NULL ? input_of(t, side, how) : NULL, (unsigned)len);
        note_error(t, side);
    }
    check_output(t, "EVP_Cipher's output", in, len, how);
    t->out_len = r[OSSL_TESTED];
    return same(t, "EVP_Cipher", r);
}

int twin_final(struct ossl_twin *t)
{
    int r[OSSL_SIDES], n[OSSL_SIDES] = {-7, -7};
    begin(t);
    stage(t, NULL, 0, TWIN_OUT_OF_PLACE);
    for (int side = 0; side < OSSL_SIDES; side++) {
        r[side] = EVP_CipherFinal_ex(t->ctx[side], t->out[side] + t->out_skew, &n[side]);
        note_error(t, side);
    }
    check_output(t, "final's output", NULL, 0, TWIN_OUT_OF_PLACE);
    t->out_len = same(t, "final's length", n);
    return same(t, "final", r);
}

int twin_ctrl(struct ossl_twin *t, int type, int arg, const void *in, size_t len)
{
    int r[OSSL_SIDES];
    char what[48];
    begin(t);
    if (len > TWIN_DATA) exit(2);
    for (int side = 0; side < OSSL_SIDES; side++) {
        memset(t->data[side], in != NULL ? FILL : 0, TWIN_DATA);
        if (in != NULL) memcpy(t->data[side], in, len);
        r[side] = EVP_CIPHER_CTX_ctrl(t->ctx[side], type, arg, t->data[side]);
        note_error(t, side);
    }
    snprintf(what, sizeof(what), "ctrl %#x, %d", (unsigned)type, arg);
    same_bytes(t, what, t->data[OSSL_TESTED], t->data[OSSL_DEFAULT], TWIN_DATA);
    return same(t, what, r);
}

int twin_set(struct ossl_twin *t, const char *key, unsigned type, const void *data, size_t size)
{
    int r[OSSL_SIDES];
    char what[64];
    begin(t);
    snprintf(what, sizeof(what), "set %s, type %u, size %zu", key, type, size);
    for (int side = 0; side < OSSL_SIDES; side++) {
        OSSL_PARAM params[] = {{key, type, (void *)(uintptr_t)data, size, OSSL_PARAM_UNMODIFIED},
                               OSSL_PARAM_END};
        r[side] = EVP_CIPHER_CTX_set_params(t->ctx[side], params);
        note_error(t, side);
    }
    return same(t, what, r);
}

/* What a pointer parameter was set to is read on both sides; it is the IV wherever it is one of ours. */
static void same_target(const struct ossl_twin *t, const char *what, uint8_t *const data[OSSL_SIDES],
                        size_t len)
{
    const uint8_t *p[OSSL_SIDES];
    for (int side = 0; side < OSSL_SIDES; side++) memcpy(&p[side], data[side], sizeof(p[side]));
    if ((p[0] == NULL) != (p[1] == NULL)) differ(t, what, p[0] != NULL, p[1] != NULL);
    if (p[0] != NULL) same_bytes(t, what, p[0], p[1], len);
}

int twin_get(struct ossl_twin *t, const char *key, unsigned type, size_t size)
{
    int r[OSSL_SIDES];
    uint8_t *data[OSSL_SIDES] = {t->data[0], t->data[1]};
    OSSL_PARAM params[OSSL_SIDES][2];
    char what[64];
    bool none = size == (size_t)-1, pointer = type == OSSL_PARAM_OCTET_PTR || type == OSSL_PARAM_UTF8_PTR;
    begin(t);
    snprintf(what, sizeof(what), "get %s, type %u, size %zd", key, type, (ssize_t)size);
    for (int side = 0; side < OSSL_SIDES; side++) {
        memset(data[side], pointer ? 0 : FILL, TWIN_DATA);
        params[side][0] =
            (OSSL_PARAM){key, type, none ? NULL : data[side], none ? 0 : size, OSSL_PARAM_UNMODIFIED};
        params[side][1] = OSSL_PARAM_construct_end();
        r[side] = EVP_CIPHER_CTX_get_params(t->ctx[side], params[side]);
        note_error(t, side);
    }
    same(t, what, r);
    if (params[0][0].return_size != params[1][0].return_size)
        differ(t, what, (long)params[0][0].return_size, (long)params[1][0].return_size);
    if (pointer) {
        bool mac = strcmp(key, OSSL_CIPHER_PARAM_TLS_MAC) == 0;
        if (params[0][0].return_size != OSSL_PARAM_UNMODIFIED)
            same_target(t, what, data, mac ? 0 : params[0][0].return_size);
    } else {
        same_bytes(t, what, data[0], data[1], TWIN_DATA);
    }
    return r[0];
}

int twin_copy(struct ossl_twin *to, const struct ossl_twin *from)
{
    int r[OSSL_SIDES];
    begin(to);
    for (int side = 0; side < OSSL_SIDES; side++) {
        r[side] = EVP_CIPHER_CTX_copy(to->ctx[side], from->ctx[side]);
        note_error(to, side);
    }
    snprintf(to->name, sizeof(to->name), "%s", from->name);
    return same(to, "copy", r);
}

int twin_reset(struct ossl_twin *t)
{
    int r[OSSL_SIDES];
    begin(t);
    for (int side = 0; side < OSSL_SIDES; side++) {
        r[side] = EVP_CIPHER_CTX_reset(t->ctx[side]);
        note_error(t, side);
    }
    return same(t, "reset", r);
}

void twin_compare_state(struct ossl_twin *t)
{
    int r[OSSL_SIDES];
    if (EVP_CIPHER_CTX_get0_cipher(t->ctx[OSSL_TESTED]) == NULL) return;
    twin_get(t, OSSL_CIPHER_PARAM_KEYLEN, OSSL_PARAM_UNSIGNED_INTEGER, sizeof(size_t));
    twin_get(t, OSSL_CIPHER_PARAM_IVLEN, OSSL_PARAM_UNSIGNED_INTEGER, sizeof(size_t));
    twin_get(t, OSSL_CIPHER_PARAM_AEAD_TAGLEN, OSSL_PARAM_UNSIGNED_INTEGER, sizeof(size_t));
    twin_get(t, OSSL_CIPHER_PARAM_AEAD_TLS1_AAD_PAD, OSSL_PARAM_UNSIGNED_INTEGER, sizeof(size_t));
    twin_get(t, OSSL_CIPHER_PARAM_IV, OSSL_PARAM_OCTET_STRING, 256);
    twin_get(t, OSSL_CIPHER_PARAM_UPDATED_IV, OSSL_PARAM_OCTET_STRING, 256);
    twin_get(t, OSSL_CIPHER_PARAM_AEAD_TAG, OSSL_PARAM_OCTET_STRING, 16);
    twin_get(t, OSSL_CIPHER_PARAM_NUM, OSSL_PARAM_UNSIGNED_INTEGER, sizeof(unsigned));
    twin_get(t, OSSL_CIPHER_PARAM_PADDING, OSSL_PARAM_UNSIGNED_INTEGER, sizeof(unsigned));
    for (int side = 0; side < OSSL_SIDES; side++) {
        r[side] = EVP_CIPHER_CTX_get_iv_length(t->ctx[side]);
        note_error(t, side);
    }
    same(t, "IV length", r);
    for (int side = 0; side < OSSL_SIDES; side++) {
        r[side] = EVP_CIPHER_CTX_get_key_length(t->ctx[side]);
        note_error(t, side);
    }
    same(t, "key length", r);
    for (int side = 0; side < OSSL_SIDES; side++) {
        r[side] = EVP_CIPHER_CTX_get_tag_length(t->ctx[side]);
        note_error(t, side);
    }
    same(t, "tag length", r);
    for (int side = 0; side < OSSL_SIDES; side++) {
        r[side] = EVP_CIPHER_CTX_get_num(t->ctx[side]);
        note_error(t, side);
    }
    same(t, "num", r);
}

static int equal_bytes(unsigned char *out, int len)
{
    for (int i = 0; i < len; i++) out[i] = (unsigned char)(0x5a + 7 * i);
    return 1;
}

static int ready(void)
{
    return 1;
}

void twin_equal_random(bool on)
{
    static const RAND_METHOD method = {.bytes = equal_bytes, .pseudorand = equal_bytes, .status = ready};
    RAND_set_rand_method(on ? &method : RAND_OpenSSL());
}
