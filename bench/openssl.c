/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/openssl.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

#include "bench/sample.h"
#include "providers/crypto/limit.h"
#include "reseal/reseal.h"

#define RUNS_MAX 1000u
#define AAD      13u /* bytes, as in a TLS 1.2 record */
#define TAG      16u
#define BEST_OF  3u
/* Messages of a pass: enough that reading the clock is nothing, few enough for the first cache. */
#define PASS_BYTES    (16u << 10)
#define PASS_MESSAGES 64u

enum mode { GCM, CTR, XTS };

struct message {
    uint8_t key[64];
    uint8_t iv[16];
    uint8_t tag[TAG]; /* that it must have */
    uint8_t got[TAG]; /* encrypting GCM */
};

struct bench {
    struct rs_evp_work w;
    enum mode mode;
    unsigned bits;
    size_t count, len; /* messages in a pass; bytes of all of them */
    uint8_t *in, *out, *expected;
    struct message *messages;
    uint8_t aad[AAD];
};

/* One provider. */
struct party {
    struct bench *b;
    EVP_CIPHER *cipher;
    EVP_CIPHER_CTX
    *evp; /* keyed with the first message's key; unused where each message has its own context */
    bool encrypt;
    const uint8_t *in;
    uint8_t *out;
    double gbps[RUNS_MAX], of_limit[RUNS_MAX];
};

static bool parse_cipher(const char *name, enum mode *mode, unsigned *bits)
{
    static const char *const modes[] = {[GCM] = "GCM", [CTR] = "CTR", [XTS] = "XTS"};
    char text[16];
    for (*bits = 128; *bits <= 256; *bits += 64)
        for (int m = GCM; m <= XTS; m++) {
            if (m == XTS && *bits == 192) continue;
            snprintf(text, sizeof(text), "AES-%u-%s", *bits, modes[m]);
            *mode = (enum mode)m;
            if (strcmp(text, name) == 0) return true;
        }
    return false;
}

const char *rs_evp_refuse(const struct rs_evp_work *w)
{
    enum mode mode;
    unsigned bits;
    if (!parse_cipher(w->cipher, &mode, &bits))
        return "the cipher is AES-128-, AES-192- or AES-256-GCM or -CTR, AES-128-XTS or AES-256-XTS";
    if (w->bytes < 1 || w->bytes > RS_EVP_BYTES_MAX) return "a message is 1 byte to 16 MiB";
    if (mode == XTS && w->bytes < 16) return "an XTS data unit has at least 16 bytes";
    if (w->runs < 1 || w->runs > RUNS_MAX) return "1 to 1000 runs";
    return NULL;
}

/* ---- one message ------------------------------------------------------------- */

static int one_message(const struct party *p, EVP_CIPHER_CTX *evp, struct message *m, size_t at)
{
    const struct bench *b = p->b;
    bool gcm = b->mode == GCM, fresh = b->w.flow == RS_EVP_CONTEXT;
    const uint8_t *key = b->w.flow == RS_EVP_IV ? NULL : m->key;
    int n, last;
    if (EVP_CipherInit_ex2(evp, fresh ? p->cipher : NULL, key, m->iv, p->encrypt, NULL) != 1 ||
        (gcm && EVP_CipherUpdate(evp, NULL, &n, b->aad, AAD) != 1) ||
        EVP_CipherUpdate(evp, p->out + at, &n, p->in + at, (int)b->w.bytes) != 1)
        return RESEAL_EINVAL;
    if (gcm && !p->encrypt && EVP_CIPHER_CTX_ctrl(evp, EVP_CTRL_AEAD_SET_TAG, TAG, m->tag) != 1)
        return RESEAL_EINVAL;
    if (EVP_CipherFinal_ex(evp, p->out + at + n, &last) != 1) return RESEAL_EAUTH;
    if (gcm && p->encrypt && EVP_CIPHER_CTX_ctrl(evp, EVP_CTRL_AEAD_GET_TAG, TAG, m->got) != 1)
        return RESEAL_EINVAL;
    return n + last == (int)b->w.bytes ? 0 : RESEAL_EINVAL;
}

static int pass(void *arg)
{
    struct party *p = arg;
    struct bench *b = p->b;
    int r = 0;
    for (size_t i = 0; r == 0 && i < b->count; i++) {
        EVP_CIPHER_CTX *evp = p->evp;
        if (b->w.flow == RS_EVP_CONTEXT) evp = EVP_CIPHER_CTX_new();
        r = evp == NULL ? RESEAL_ENOMEM : one_message(p, evp, &b->messages[i], i * b->w.bytes);
        if (b->w.flow == RS_EVP_CONTEXT) EVP_CIPHER_CTX_free(evp);
    }
    return r;
}

/* ---- the work ------------------------------------------------------------------ */

static int fill_random(void *p, size_t len)
{
    for (size_t at = 0; at < len;) {
        ssize_t n = getrandom((uint8_t *)p + at, RS_MIN(len - at, (size_t)1 << 20), 0);
        if (n <= 0) return RESEAL_EIO;
        at += (size_t)n;
    }
    return 0;
}

static int make_work(struct bench *b)
{
    b->count = RS_MIN(RS_MAX((size_t)(PASS_BYTES / b->w.bytes), (size_t)1), (size_t)PASS_MESSAGES);
    b->len = b->count * b->w.bytes;
    size_t room = (size_t)rs_round_up(b->len + 64, 4096);
    b->in = aligned_alloc(4096, 3 * room);
    b->messages = calloc(b->count, sizeof(*b->messages));
    if (b->in == NULL || b->messages == NULL) return RESEAL_ENOMEM;
    b->out = b->in + room;
    b->expected = b->out + room;
    int r = fill_random(b->messages, b->count * sizeof(*b->messages));
    if (r == 0) r = fill_random(b->aad, sizeof(b->aad));
    /* One key where the key stays. */
    for (size_t i = 1; b->w.flow == RS_EVP_IV && i < b->count; i++)
        memcpy(b->messages[i].key, b->messages[0].key, sizeof(b->messages[0].key));
    return r != 0 ? r : fill_random(b->in, b->len);
}

static void free_work(struct bench *b)
{
    if (b->messages != NULL) rs_wipe(b->messages, b->count * sizeof(*b->messages));
    free(b->messages);
    free(b->in);
}

static int new_context(struct party *p)
{
    const struct message *m = &p->b->messages[0];
    p->evp = EVP_CIPHER_CTX_new();
    if (p->evp == NULL) return RESEAL_ENOMEM;
    return EVP_CipherInit_ex2(p->evp, p->cipher, m->key, m->iv, p->encrypt, NULL) == 1 ? 0 : RESEAL_EINVAL;
}

static int open_party(struct party *p, struct bench *b, const struct rs_evp_side *side, bool encrypt)
{
    *p = (struct party){.b = b, .encrypt = encrypt, .in = b->in, .out = b->out};
    p->cipher = EVP_CIPHER_fetch(side->libctx, b->w.cipher, side->properties);
    if (p->cipher == NULL) return RESEAL_ENOSUPPORT;
    return new_context(p);
}

static void close_party(struct party *p)
{
    EVP_CIPHER_CTX_free(p->evp);
    EVP_CIPHER_free(p->cipher);
}

/* What each output is compared with: the default provider's ciphertext of random bytes; or, decrypting, the
 * random bytes. */
static int make_expected(struct bench *b, const struct rs_evp_side *side)
{
    struct party *p = calloc(1, sizeof(*p));
    if (p == NULL) return RESEAL_ENOMEM;
    int r = open_party(p, b, side, true);
    p->out = b->expected;
    if (r == 0) r = pass(p);
    for (size_t i = 0; i < b->count; i++) memcpy(b->messages[i].tag, b->messages[i].got, TAG);
    close_party(p);
    free(p);
    if (b->w.encrypt) return r;
    uint8_t *plain = b->in;
    b->in = b->expected;
    b->expected = plain;
    return r;
}

/* ---- measuring -------------------------------------------------------------------- */

static bool output_right(const struct party *p)
{
    const struct bench *b = p->b;
    if (memcmp(b->out, b->expected, b->len) != 0) return false;
    for (size_t i = 0; b->mode == GCM && p->encrypt && i < b->count; i++)
        if (memcmp(b->messages[i].got, b->messages[i].tag, TAG) != 0) return false;
    return true;
}

/* The best of three short ones: one that somebody else's time slice fell into says nothing. */
static int sample_best(struct party *p, struct rs_sample *best)
{
    int r = 0;
    for (unsigned i = 0; r == 0 && i < BEST_OF; i++) {
        struct rs_sample s = {0};
        r = rs_sample_take(pass, p, p->b->len, p->b->w.sample_us * 1000ull / BEST_OF, &s);
        if (s.gbps > best->gbps) *best = s;
    }
    return r;
}

static int sample(struct party *p, unsigned run, bool *right)
{
    struct bench *b = p->b;
    struct rs_sample s = {0};
    memset(b->out, 0, b->len);
    for (size_t i = 0; i < b->count; i++) memset(b->messages[i].got, 0, TAG);
    int r = sample_best(p, &s);
    *right = *right && r == 0 && output_right(p);
    if (r == RESEAL_ENOMEM) return r;
    p->gbps[run] = s.gbps;
    p->of_limit[run] = s.aes_rounds > 0 ? s.gbps / (16 * s.aes_rounds / rs_limit_rounds(b->bits, 0)) : 0;
    return 0;
}

static void conclude(struct party *ours, struct party *theirs, unsigned runs, struct rs_result *out)
{
    double ratio[RUNS_MAX];
    for (unsigned i = 0; i < runs; i++) ratio[i] = theirs->gbps[i] > 0 ? ours->gbps[i] / theirs->gbps[i] : 0;
    out->ratio = rs_summarise(ratio, runs);
    out->gbps = rs_summarise(ours->gbps, runs);
    out->default_gbps = rs_median(theirs->gbps, runs);
    out->of_aes_limit = rs_summarise(ours->of_limit, runs);
    if (out->of_aes_limit.best <= 0) out->of_aes_limit = (struct rs_summary){0};
    out->runs = runs;
}

/* Where a context lies makes some per cent for short messages: both are freed before there are new ones, so
 * that the two sides change places as the order of their making does. */
static int move(struct party *first, struct party *second)
{
    EVP_CIPHER_CTX_free(first->evp);
    EVP_CIPHER_CTX_free(second->evp);
    first->evp = second->evp = NULL;
    int r = new_context(first);
    return r != 0 ? r : new_context(second);
}

/* Side by side, first the one and then the other, so that neither always follows its neighbour. */
static int measure(struct party *ours, struct party *theirs, struct rs_result *out)
{
    const struct bench *b = ours->b;
    out->verified = true;
    for (unsigned run = 0; run < b->w.runs && out->verified; run++) {
        struct party *first = run % 2 == 0 ? ours : theirs, *second = run % 2 == 0 ? theirs : ours;
        int r = move(first, second);
        if (r == 0) r = sample(first, run, &out->verified);
        if (r == 0) r = sample(second, run, &out->verified);
        if (r != 0) return r;
    }
    if (out->verified) conclude(ours, theirs, b->w.runs, out);
    return 0;
}

static int with_parties(struct bench *b, const struct rs_evp_sides *sides, struct rs_result *out)
{
    struct party *p = calloc(2, sizeof(*p));
    if (p == NULL) return RESEAL_ENOMEM;
    int r = make_expected(b, &sides->theirs);
    if (r == 0) r = open_party(&p[0], b, &sides->ours, b->w.encrypt);
    if (r == 0) r = open_party(&p[1], b, &sides->theirs, b->w.encrypt);
    if (r == 0) r = measure(&p[0], &p[1], out);
    close_party(&p[0]);
    close_party(&p[1]);
    free(p);
    return r;
}

static void describe(const struct bench *b, const char *engine, struct rs_result *out)
{
    static const char *const modes[] = {[GCM] = "gcm", [CTR] = "ctr", [XTS] = "xts"};
    out->cipher = b->w.cipher;
    out->direction = b->w.encrypt ? "encrypt" : "decrypt";
    out->from = b->w.encrypt ? "plain" : modes[b->mode];
    out->to = b->w.encrypt ? modes[b->mode] : "plain";
    out->unit = b->mode == XTS ? b->w.bytes : 0;
    out->bytes = b->w.bytes;
    out->working_set = 2 * b->len;
    out->depth = 1;
    out->key_bits = b->bits;
    out->engine = engine;
    out->openssl_version = rs_evp_version();
}

int rs_evp_measure(const struct rs_evp_sides *sides, const struct rs_evp_work *w, char engine[32],
                   struct rs_result *out)
{
    static const char *const workloads[] = {
        [RS_EVP_IV] = "openssl", [RS_EVP_KEY] = "openssl-rekey", [RS_EVP_CONTEXT] = "openssl-new-context"};
    rs_result_init(out, workloads[w->flow]);
    if (rs_evp_refuse(w) != NULL) return RESEAL_EINVAL;
    struct bench b = {.w = *w};
    (void)parse_cipher(w->cipher, &b.mode, &b.bits);
    rs_evp_engine(sides, w->cipher, engine, 32);
    int r = make_work(&b);
    uint8_t *room = b.in;
    if (r == 0) r = with_parties(&b, sides, out);
    describe(&b, engine, out);
    b.in = room; /* decrypting, `in` and `expected` changed places */
    free_work(&b);
    return r;
}
