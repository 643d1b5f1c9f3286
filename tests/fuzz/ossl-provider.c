/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The OpenSSL provider against OpenSSL's default one: the input is a program of
 * calls on two contexts, made on both providers; every answer and every byte
 * must agree (tests/support/ossl-twin.h), else the process aborts. Kernels by
 * RESEAL_OSSL_ENGINE, the widest of this CPU otherwise.
 *
 * Not asked, as reseal answers otherwise on purpose (docs/openssl-provider.md):
 *  - XTS keys with equal halves to decrypt: refused;
 *  - anything but a new IV after a tag that was wrong: refused, where OpenSSL goes on with a broken hash;
 *  - text after a new key in the middle of a message: refused, where OpenSSL goes on with a counter of zero.
 * Nor what makes the default provider read or write outside its context: a fixed or explicit part longer than
 * the IV, counting in an IV shorter than 8 bytes, CTR without an output, numbers of no bytes, a copy of an
 * XTS context without a key.
 */
#include "offload/base/bytes.h"
#include "tests/support/ossl-twin.h"
#include "tests/support/reference.h"

#include <openssl/core_names.h>
#include <stdlib.h>
#include <string.h>

#define ROOM  (20u * 1024 + 64)
#define CALLS 200u
#define DRAWN 24u

/* When the input is at its end, some more calls are drawn from what it was: short inputs are deep programs
 * too. */
struct input {
    const uint8_t *p;
    size_t left;
    uint64_t drawn;
};

/* A context on both sides, and what must be known not to ask what is listed above. */
struct context {
    struct ossl_twin t;
    int cipher; /* index; -1: none */
    int enc;
    bool started; /* a GCM message may be under way */
    bool spent;   /* only a new IV or cipher is of use */
    bool tag_set; /* a final call may compare */
    bool tls_iv;  /* IVs may be counted */
    bool keyed;   /* at least one key was taken */
    bool hollow;  /* a copy of an XTS context without a key */
};

static struct ossl providers;
static struct context contexts[2];
static uint8_t text[4 * ROOM];

static uint64_t take(struct input *in, size_t n)
{
    uint64_t v = 0;
    for (; n != 0 && in->left != 0; n--, in->left--) v = v << 8 | *in->p++;
    for (; n != 0; n--) {
        uint8_t b;
        reference_random(&in->drawn, &b, 1);
        v = v << 8 | b;
    }
    return v;
}

static bool is(const struct context *c, unsigned mode)
{
    return c->cipher >= 0 && ossl_ciphers[c->cipher].mode == mode;
}

static bool gcm(const struct context *c)
{
    return is(c, EVP_CIPH_GCM_MODE);
}

static size_t iv_len(const struct context *c)
{
    return c->cipher < 0 ? 0 : (size_t)EVP_CIPHER_CTX_get_iv_length(c->t.ctx[OSSL_DEFAULT]);
}

/* Sizes that matter: short, around blocks and flights, or any. */
static size_t some_len(struct input *in)
{
    uint64_t how = take(in, 1);
    if (how < 128) return how;
    if (how < 176) return (how - 127) * 64 + take(in, 1) % 3 - 1;
    if (how < 224) return (how - 175) * 16 % 4096 + take(in, 1) % 16;
    return take(in, 2) % (20 * 1024 + 1);
}

static const uint8_t *some_text(struct input *in)
{
    return text + take(in, 1) * 97;
}

/* ---- starting -------------------------------------------------------------------------- */

static void key_from(struct input *in, const struct context *c, uint8_t key[64])
{
    uint64_t seed = take(in, 1);
    reference_random(&seed, key, 64);
    if (take(in, 1) % 32 == 0 && c->enc == 1) memset(key, 7, 64); /* equal halves */
}

/* A length that is set with the call, or none. */
static size_t params_from(struct input *in, const struct context *c, OSSL_PARAM params[2], size_t *value)
{
    unsigned how = (unsigned)take(in, 1) % 8;
    params[0] = params[1] = OSSL_PARAM_construct_end();
    if (how > 1) return 0;
    *value = take(in, 1) % 140;
    if (how == 0 && c->tls_iv && *value < 8) *value = 8;
    params[0] =
        OSSL_PARAM_construct_size_t(how == 0 ? OSSL_CIPHER_PARAM_IVLEN : OSSL_CIPHER_PARAM_KEYLEN, value);
    return 1;
}

static void init(struct context *c, struct input *in, bool new_cipher)
{
    uint8_t key[64], iv[144];
    OSSL_PARAM params[2];
    size_t value;
    unsigned how = (unsigned)take(in, 1);
    if (new_cipher) {
        c->cipher = (int)take(in, 1) % OSSL_CIPHERS;
        c->started = c->spent = c->tag_set = c->tls_iv = c->keyed = c->hollow = false;
    }
    c->enc = how & 1;
    key_from(in, c, key);
    memcpy(iv, some_text(in), sizeof(iv));
    if (how & 16) memset(iv + 4, 0xff, sizeof(iv) - 4); /* counters about to run over */
    size_t count = params_from(in, c, params, &value);
    bool with_key = how & 2, with_iv = how & 4;
    int r = twin_init(&c->t, new_cipher ? providers.cipher[c->cipher] : NULL, with_key ? key : NULL,
                      with_iv ? iv : NULL, c->enc, count > 0 ? params : NULL);
    if (with_iv && r == 1)
        c->started = c->spent = false;
    else if (with_key && c->started)
        c->spent = true;
}

/* ---- going on ----------------------------------------------------------------------------- */

static void skew(struct context *c, struct input *in)
{
    c->t.in_skew = (unsigned)take(in, 1) % 64;
    c->t.out_skew = (unsigned)take(in, 1) % 64;
}

/* A record has a tag of its own, so that one is set after it. */
static void went_on(struct context *c, size_t len)
{
    if (len > 0) c->started = true;
    if (len > 0 && c->tls_iv) c->tag_set = true;
}

static void update(struct context *c, struct input *in, int how)
{
    size_t len = some_len(in);
    if (c->spent || c->hollow || (how == TWIN_AAD && is(c, EVP_CIPH_CTR_MODE))) return;
    if (take(in, 1) & 1) skew(c, in);
    twin_update(&c->t, some_text(in), len, how);
    went_on(c, len);
}

static void ended(struct context *c, bool well)
{
    if (!well && gcm(c) && c->tag_set)
        c->spent = true; /* of either direction: an init that failed may have left it */
    c->started = !well;  /* a final call that fails for want of a tag has begun the message */
    if (!well) return;
    if (c->enc == 1) c->tag_set = true;
}

static void cipher_call(struct context *c, struct input *in)
{
    unsigned how = (unsigned)take(in, 1);
    if (c->cipher < 0 || c->spent || c->hollow) return;
    if (how % 8 == 0) {
        ended(c, twin_cipher(&c->t, NULL, 0, TWIN_OUT_OF_PLACE) >= 0);
        return;
    }
    int place = how % 8 == 1 ? TWIN_AAD : how % 2 ? TWIN_IN_PLACE : TWIN_OUT_OF_PLACE;
    if (place == TWIN_AAD && is(c, EVP_CIPH_CTR_MODE)) return;
    size_t len = some_len(in);
    twin_cipher(&c->t, some_text(in), len, place);
    went_on(c, 1);
}

/* ---- controls and parameters ------------------------------------------------------------------ */

static void set_tag(struct context *c, struct input *in)
{
    int len = (int)take(in, 1) % 19;
    if (twin_ctrl(&c->t, EVP_CTRL_AEAD_SET_TAG, len, some_text(in), 32) == 1) c->tag_set = true;
}

static void set_iv_len(struct context *c, struct input *in)
{
    int len = (int)take(in, 1) % 140;
    if (c->tls_iv && len < 8) len = 8;
    twin_ctrl(&c->t, EVP_CTRL_AEAD_SET_IVLEN, len, NULL, 0);
}

static void tls_aad(struct context *c, struct input *in)
{
    uint8_t aad[16];
    size_t len = some_len(in);
    memcpy(aad, some_text(in), sizeof(aad));
    aad[11] = (uint8_t)(len >> 8);
    aad[12] = (uint8_t)len;
    twin_ctrl(&c->t, EVP_CTRL_AEAD_TLS1_AAD, take(in, 1) % 16 ? 13 : 12, aad, sizeof(aad));
}

/* The parts of the IV that TLS sets and asks for. */
static void tls_iv(struct context *c, struct input *in)
{
    unsigned how = (unsigned)take(in, 1);
    int len = (int)take(in, 1) % 20;
    if (!gcm(c) || c->spent || iv_len(c) < 8) return;
    if (how % 4 == 0) {
        twin_ctrl(&c->t, EVP_CTRL_GCM_IV_GEN, len - 1, NULL, 256);
        c->started = true;
        return;
    }
    if ((size_t)len > iv_len(c)) len = (int)iv_len(c);
    if (how % 4 == 1) {
        twin_ctrl(&c->t, EVP_CTRL_GCM_SET_IV_INV, len, some_text(in), 256);
        c->started = true;
    } else {
        if (twin_ctrl(&c->t, EVP_CTRL_GCM_SET_IV_FIXED,
                      how % 4 == 2 ? 4
                      : how & 64   ? -1
                                   : len,
                      some_text(in), 256) == 1) {
            c->tls_iv = true;
            c->started = false;
        }
    }
}

static void control(struct context *c, struct input *in)
{
    switch (take(in, 1) % 8) {
    case 0:
        set_tag(c, in);
        break;
    case 1:
        twin_ctrl(&c->t, EVP_CTRL_AEAD_GET_TAG, (int)take(in, 1) % 19, NULL, 32);
        break;
    case 2:
        set_iv_len(c, in);
        break;
    case 3:
    case 4:
        tls_iv(c, in);
        break;
    case 5:
        tls_aad(c, in);
        break;
    case 6: {
        int type = (int)take(in, 1) % 64;
        bool other = type > EVP_CTRL_CCM_SET_L && type != EVP_CTRL_AEAD_TLS1_AAD &&
                     type != EVP_CTRL_GCM_SET_IV_INV &&
                     (type < EVP_CTRL_TLS1_1_MULTIBLOCK_AAD || type > EVP_CTRL_TLS1_1_MULTIBLOCK_MAX_BUFSIZE);
        if (other || type < EVP_CTRL_AEAD_SET_IVLEN)
            twin_ctrl(&c->t, type, (int)take(in, 1) % 65, some_text(in), 256);
        break;
    }
    default:
        tls_aad(c, in);
        tls_iv(c, in);
        break;
    }
}

static unsigned type_from(struct input *in, unsigned usual)
{
    static const unsigned types[] = {OSSL_PARAM_INTEGER,     OSSL_PARAM_UNSIGNED_INTEGER, OSSL_PARAM_REAL,
                                     OSSL_PARAM_UTF8_STRING, OSSL_PARAM_OCTET_STRING,     OSSL_PARAM_UTF8_PTR,
                                     OSSL_PARAM_OCTET_PTR};
    unsigned b = (unsigned)take(in, 1);
    return b < 192 ? usual : types[b % RS_ARRAY_LEN(types)];
}

static size_t number_size(struct input *in)
{
    unsigned b = (unsigned)take(in, 1);
    return b < 192 ? (b & 1 ? 4 : 8) : 1 + b % 16;
}

static void set_number(struct context *c, struct input *in)
{
    static const char *const keys[] = {OSSL_CIPHER_PARAM_NUM,         OSSL_CIPHER_PARAM_PADDING,
                                       OSSL_CIPHER_PARAM_USE_BITS,    OSSL_CIPHER_PARAM_TLS_VERSION,
                                       OSSL_CIPHER_PARAM_KEYLEN,      OSSL_CIPHER_PARAM_TLS_MAC_SIZE,
                                       OSSL_CIPHER_PARAM_AEAD_TAGLEN, "nothing-of-that-name"};
    uint8_t data[16] = {(uint8_t)take(in, 1)};
    if (take(in, 1) % 8 == 0) memset(data + 1, 0xff, sizeof(data) - 1);
    const char *key = keys[take(in, 1) % RS_ARRAY_LEN(keys)];
    unsigned type = type_from(in, OSSL_PARAM_UNSIGNED_INTEGER);
    twin_set(&c->t, key, type, data, number_size(in));
}

/* The tag and the AAD of a record as parameters, of any type and size. */
static void set_bytes(struct context *c, struct input *in)
{
    const char *key = take(in, 1) & 1 ? OSSL_CIPHER_PARAM_AEAD_TAG : OSSL_CIPHER_PARAM_AEAD_TLS1_AAD;
    unsigned type = type_from(in, OSSL_PARAM_OCTET_STRING);
    size_t size = take(in, 1) % 40;
    if (size == 0 && type <= OSSL_PARAM_UNSIGNED_INTEGER) return;
    int r = twin_set(&c->t, key, type, some_text(in), size);
    if (r == 1 && strcmp(key, OSSL_CIPHER_PARAM_AEAD_TAG) == 0) c->tag_set = true;
}

static void get(struct context *c, struct input *in)
{
    static const struct {
        const char *key;
        unsigned type;
    } params[] = {{OSSL_CIPHER_PARAM_KEYLEN, OSSL_PARAM_UNSIGNED_INTEGER},
                  {OSSL_CIPHER_PARAM_IVLEN, OSSL_PARAM_UNSIGNED_INTEGER},
                  {OSSL_CIPHER_PARAM_AEAD_TAGLEN, OSSL_PARAM_UNSIGNED_INTEGER},
                  {OSSL_CIPHER_PARAM_IV, OSSL_PARAM_OCTET_STRING},
                  {OSSL_CIPHER_PARAM_UPDATED_IV, OSSL_PARAM_OCTET_STRING},
                  {OSSL_CIPHER_PARAM_UPDATED_IV, OSSL_PARAM_OCTET_PTR},
                  {OSSL_CIPHER_PARAM_AEAD_TAG, OSSL_PARAM_OCTET_STRING},
                  {OSSL_CIPHER_PARAM_AEAD_TLS1_AAD_PAD, OSSL_PARAM_UNSIGNED_INTEGER},
                  {OSSL_CIPHER_PARAM_NUM, OSSL_PARAM_UNSIGNED_INTEGER},
                  {OSSL_CIPHER_PARAM_PADDING, OSSL_PARAM_UNSIGNED_INTEGER},
                  {OSSL_CIPHER_PARAM_TLS_MAC, OSSL_PARAM_OCTET_PTR},
                  {"nothing-of-that-name", OSSL_PARAM_INTEGER}};
    size_t i = take(in, 1) % RS_ARRAY_LEN(params);
    unsigned type = type_from(in, params[i].type);
    size_t size = take(in, 1) % 160;
    if (type <= OSSL_PARAM_UNSIGNED_INTEGER) size = number_size(in);
    twin_get(&c->t, params[i].key, type, size);
}

/* ---- whole messages --------------------------------------------------------------------------- */

/* Sealed by one context and opened by the other, both in parts; then the tag is right, unless the program
 * spoils it. */
static void there_and_back(struct input *in)
{
    static uint8_t sealed[ROOM];
    uint8_t key[64], tag[16];
    struct context *a = &contexts[0], *b = &contexts[1];
    int i = (int)take(in, 1) % OSSL_CIPHERS;
    size_t len = some_len(in), cut = len == 0 ? 0 : take(in, 2) % (len + 1), aad_len = some_len(in);
    bool xts = ossl_ciphers[i].mode == EVP_CIPH_XTS_MODE, aead = ossl_ciphers[i].mode == EVP_CIPH_GCM_MODE;
    const uint8_t *from = some_text(in), *iv = some_text(in), *aad = some_text(in);
    uint64_t spoil = take(in, 1), seed = spoil;
    reference_random(&seed, key, sizeof(key));
    *a = (struct context){.t = a->t, .cipher = i, .enc = 1, .keyed = true};
    *b = (struct context){.t = b->t, .cipher = i, .enc = 0, .keyed = true};
    if (xts) cut = 0;
    twin_init(&a->t, providers.cipher[i], key, iv, 1, NULL);
    twin_init(&b->t, providers.cipher[i], key, iv, 0, NULL);
    if (aead) twin_update(&a->t, aad, aad_len, TWIN_AAD);
    if (cut > 0) twin_update(&a->t, from, cut, TWIN_OUT_OF_PLACE);
    if (cut > 0) memcpy(sealed, twin_out(&a->t), cut);
    twin_update(&a->t, from + cut, len - cut, TWIN_IN_PLACE);
    memcpy(sealed + cut, twin_out(&a->t), len - cut);
    twin_final(&a->t);
    if (aead) {
        twin_ctrl(&a->t, EVP_CTRL_AEAD_GET_TAG, 16, NULL, 16);
        memcpy(tag, a->t.data[OSSL_TESTED], 16);
        if (spoil < 32) tag[spoil % 16] ^= 1;
        twin_update(&b->t, aad, aad_len / 2, TWIN_AAD);
        twin_update(&b->t, aad + aad_len / 2, aad_len - aad_len / 2, TWIN_AAD);
        twin_ctrl(&b->t, EVP_CTRL_AEAD_SET_TAG, 16, tag, 16);
        a->tag_set = b->tag_set = true;
    }
    twin_update(&b->t, sealed, len, TWIN_IN_PLACE);
    if (!(xts && len < 16) && memcmp(twin_out(&b->t), from, len) != 0) abort();
    if (twin_final(&b->t) != !(aead && spoil < 32)) abort();
    b->spent = aead && spoil < 32;
    b->started = !aead;
}

/* Records of TLS 1.2 from one context to the other, now and then spoiled. */
static void records(struct input *in)
{
    static uint8_t record[ROOM];
    uint8_t key[64], fixed[4] = {1, 2, 3, 4}, aad[13] = {0};
    struct context *a = &contexts[0], *b = &contexts[1];
    int i = (int)take(in, 1) % 3; /* the GCM ones */
    uint64_t seed = take(in, 1);
    reference_random(&seed, key, sizeof(key));
    *a = (struct context){.t = a->t, .cipher = i, .enc = 1, .tls_iv = true};
    *b = (struct context){.t = b->t, .cipher = i, .enc = 0, .tls_iv = true};
    twin_init(&a->t, providers.cipher[i], key, NULL, 1, NULL);
    twin_init(&b->t, providers.cipher[i], key, NULL, 0, NULL);
    twin_ctrl(&a->t, EVP_CTRL_GCM_SET_IV_FIXED, 4, fixed, 4);
    twin_ctrl(&b->t, EVP_CTRL_GCM_SET_IV_FIXED, 4, fixed, 4);
    for (unsigned count = (unsigned)take(in, 1) % 4 + 1; count > 0; count--) {
        size_t len = some_len(in) % (ROOM - 88);
        unsigned spoil = (unsigned)take(in, 2);
        memcpy(record + 8, some_text(in), len);
        aad[11] = (uint8_t)((len + 8) >> 8);
        aad[12] = (uint8_t)(len + 8);
        twin_ctrl(&a->t, EVP_CTRL_AEAD_TLS1_AAD, 13, aad, 13);
        twin_cipher(&a->t, record, len + 24, TWIN_IN_PLACE);
        memcpy(record, twin_out(&a->t), len + 24);
        if (spoil & 0x8000) record[spoil % (len + 24)] ^= 4;
        aad[11] = (uint8_t)((len + 24) >> 8);
        aad[12] = (uint8_t)(len + 24);
        twin_ctrl(&b->t, EVP_CTRL_AEAD_TLS1_AAD, 13, aad, 13);
        if ((twin_cipher(&b->t, record, len + 24, TWIN_IN_PLACE) < 0) != !!(spoil & 0x8000)) abort();
    }
    a->tag_set = b->tag_set = true;
}

/* ---- the program ----------------------------------------------------------------------------------- */

static void copy(struct context *to, struct context *from)
{
    struct ossl_twin keep = to->t;
    if (twin_copy(&to->t, &from->t) != 1) return; /* `from` has no cipher: nothing happened */
    memcpy(keep.name, to->t.name, sizeof(keep.name));
    keep.calls = to->t.calls;
    *to = *from;
    to->t = keep;
    to->hollow = is(from, EVP_CIPH_XTS_MODE) && (from->hollow || !from->keyed);
}

static void forget(struct context *c)
{
    twin_reset(&c->t);
    *c = (struct context){.t = c->t, .cipher = -1};
}

static void step(struct context *c, struct context *other, struct input *in, unsigned op)
{
    switch (op) {
    case 0:
        init(c, in, true);
        break;
    case 1:
    case 2:
        init(c, in, false);
        break;
    case 3:
    case 4:
        update(c, in, TWIN_OUT_OF_PLACE);
        break;
    case 5:
        update(c, in, TWIN_IN_PLACE);
        break;
    case 6:
        update(c, in, TWIN_AAD);
        break;
    case 7:
        if (!c->spent) ended(c, twin_final(&c->t) == 1);
        break;
    case 8:
        cipher_call(c, in);
        break;
    case 9:
    case 10:
        control(c, in);
        break;
    case 11:
        take(in, 1) & 1 ? set_number(c, in) : set_bytes(c, in);
        break;
    case 12:
        get(c, in);
        break;
    case 13:
        copy(c, other);
        break;
    case 14:
        take(in, 1) % 8 == 0 ? forget(c) : there_and_back(in);
        break;
    default:
        records(in);
        break;
    }
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerInitialize(RS_UNUSED int *argc, RS_UNUSED char ***argv)
{
    uint64_t seed = 1;
    const char *const *widest = ossl_kernel_sets;
    while (!ossl_kernels_here(*widest)) widest++;
    setenv("RESEAL_OSSL_ENGINE", *widest, 0);
    ossl_open(&providers);
    twin_equal_random(true);
    reference_random(&seed, text, sizeof(text));
    for (size_t i = 0; i < RS_ARRAY_LEN(contexts); i++) twin_open(&contexts[i].t, ROOM);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size, size};
    for (size_t i = 0; i < size; i++) in.drawn = in.drawn * 0x100000001b3u + data[i];
    for (size_t i = 0; i < RS_ARRAY_LEN(contexts); i++) {
        forget(&contexts[i]);
        contexts[i].t.calls = 0;
    }
    for (unsigned calls = 0, drawn = 0; calls < CALLS && drawn < DRAWN; calls++, drawn += in.left == 0) {
        unsigned op = (unsigned)take(&in, 1);
        struct context *c = &contexts[op >> 4 & 1], *other = &contexts[!(op >> 4 & 1)];
        step(c, other, &in, op & 15);
        if ((op & 0xe0) == 0) twin_compare_state(&c->t);
    }
    for (size_t i = 0; i < RS_ARRAY_LEN(contexts); i++) twin_compare_state(&contexts[i].t);
    return 0;
}
