/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/hotpath.h"

#include <math.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/random.h>

#include "bench/peers.h"
#include "bench/sample.h"
#include "offload/transform/transform.h"
#include "providers/crypto/limit.h"
#include "reseal/reseal.h"

#define RUNS_MAX  1000u
#define LONG_PASS (8u << 20) /* bytes */
#define AAD       16u
/* Two passes between XTS sides go through the first-level cache, as a careful developer would do it. */
#define TWO_PASS_PIECE 16384u

struct record {
    uint8_t iv[RS_IV_LEN];
    uint8_t src_tag[RS_TAG_LEN];
    uint8_t dst_tag[RS_TAG_LEN]; /* expected */
};

struct bench {
    struct rs_hotpath c;
    size_t count; /* runs in the working set */
    size_t len;   /* bytes at `in` and at `out` */
    uint8_t *map; /* in, out, expected, middle, scratch */
    size_t map_len;
    uint8_t *in, *out, *expected, *middle, *scratch;
    struct record *records;
    struct rs_run *runs;
    uint8_t src_raw[64], dst_raw[64], aad[AAD];
    unsigned flags;
};

/* Our engine with prepared keys, or a peer in two passes. */
struct party {
    struct bench *b;
    const char *name;
    const struct rs_engine *engine;
    void *src_key, *dst_key;
    struct rs_peer_side *open, *seal;
    double *gbps, *of_limit;
};

struct rs_hotpath rs_hotpath_default(enum rs_cipher from, enum rs_cipher to, uint32_t unit)
{
    return (struct rs_hotpath){.from = from,
                               .to = to,
                               .key_bits = 256,
                               .unit = unit,
                               .bytes = 65536,
                               .working_set = 256 << 10,
                               .peers = true,
                               .copy = true,
                               .runs = 31,
                               .sample_us = 1000};
}

const char *rs_hotpath_refuse(const struct rs_hotpath *c)
{
    bool gcm = c->from == RS_GCM || c->to == RS_GCM, xts = c->from == RS_XTS || c->to == RS_XTS;
    if (c->from == RS_PLAIN && c->to == RS_PLAIN)
        return "plain to plain is a copy: one side must be a cipher";
    if (c->key_bits != 128 && c->key_bits != 256) return "the key size is 128 or 256 bits";
    if (c->bytes == 0 || c->bytes > (gcm ? RS_RECORD_MAX : RS_RUN_MAX))
        return "a run is 1 byte to 4 MiB, a GCM record at most 1 MiB";
    if (xts && (!rs_is_pow2(c->unit) || c->unit < 512 || c->unit > 65536))
        return "the data unit is a power of two from 512 to 65536";
    if (xts && c->bytes % c->unit != 0) return "a run is whole data units";
    if (c->working_set > 4ull << 30) return "the working set is at most 4 GiB";
    if (c->runs < 1 || c->runs > RUNS_MAX) return "1 to 1000 runs";
    return NULL;
}

static struct rs_shape shape_of(const struct rs_hotpath *c)
{
    uint16_t bits = (uint16_t)c->key_bits;
    return (struct rs_shape){.src = (uint8_t)c->from,
                             .dst = (uint8_t)c->to,
                             .src_bits = c->from == RS_PLAIN ? 0 : bits,
                             .dst_bits = c->to == RS_PLAIN ? 0 : bits,
                             .src_unit = c->from == RS_XTS ? c->unit : 0,
                             .dst_unit = c->to == RS_XTS ? c->unit : 0,
                             .len = c->bytes};
}

static size_t raw_len(enum rs_cipher cipher, unsigned bits)
{
    return cipher == RS_XTS ? bits / 4 : cipher == RS_GCM ? bits / 8 : 0;
}

/* ---- buffers -------------------------------------------------------------- */

static int fill_random(uint8_t *p, size_t len)
{
    for (size_t at = 0; at < len;) {
        ssize_t n = getrandom(p + at, RS_MIN(len - at, (size_t)1 << 20), 0);
        if (n <= 0) return RESEAL_EIO;
        at += (size_t)n;
    }
    return 0;
}

static int make_buffers(struct bench *b)
{
    size_t pair = 2 * (size_t)b->c.bytes;
    b->count = RS_MAX((size_t)(b->c.working_set / pair), (size_t)2);
    b->len = b->count * b->c.bytes;
    b->c.working_set = 2 * b->len;
    size_t room = (size_t)rs_round_up(b->len, 4096);
    size_t middle = (size_t)rs_round_up(b->c.bytes, 4096);
    b->map_len = 3 * room + middle + rs_engine_scratch_size(b->c.bytes);
    b->map =
        mmap(NULL, b->map_len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (b->map == MAP_FAILED) {
        b->map = NULL;
        return RESEAL_ENOMEM;
    }
    b->in = b->map;
    b->out = b->in + room;
    b->expected = b->out + room;
    b->middle = b->expected + room;
    b->scratch = b->middle + middle;
    b->records = calloc(b->count, sizeof(*b->records));
    b->runs = calloc(b->count, sizeof(*b->runs));
    if (b->records == NULL || b->runs == NULL) return RESEAL_ENOMEM;
    if (b->c.kernel_only) b->flags |= RS_RUN_UNVERIFIED;
    if (rs_transform_streams(b->c.working_set)) b->flags |= RS_RUN_STREAM;
    return fill_random(b->in, b->len);
}

static void free_buffers(struct bench *b)
{
    rs_wipe(b->src_raw, sizeof(b->src_raw));
    rs_wipe(b->dst_raw, sizeof(b->dst_raw));
    if (b->map != NULL) munmap(b->map, b->map_len);
    free(b->records);
    free(b->runs);
}

static void set_sides(const struct bench *b, size_t i, struct rs_side *src, struct rs_side *dst)
{
    const struct record *r = &b->records[i];
    uint64_t step = b->c.unit / 512;
    uint64_t first = b->c.unit == 0 ? 0 : i * (b->c.bytes / b->c.unit) * step;
    struct rs_side side = {.aad = b->aad, .aad_len = AAD, .tweak_lo = first, .step = step, .unit = b->c.unit};
    memcpy(side.iv, r->iv, sizeof(side.iv));
    *src = side;
    src->cipher = (uint8_t)b->c.from;
    memcpy(src->tag, r->src_tag, sizeof(src->tag));
    *dst = side;
    dst->cipher = (uint8_t)b->c.to;
    if (src->cipher != RS_GCM) src->aad_len = 0, src->aad = NULL;
    if (dst->cipher != RS_GCM) dst->aad_len = 0, dst->aad = NULL;
}

/* ---- parties -------------------------------------------------------------- */

static int prepare_one(const struct rs_engine *engine, enum rs_cipher cipher, unsigned bits,
                       const uint8_t *raw, void **key)
{
    if (cipher == RS_PLAIN) return 0;
    *key = aligned_alloc(RS_KEY_ALIGN, rs_round_up(engine->key_size(cipher, bits), RS_KEY_ALIGN));
    if (*key == NULL) return RESEAL_ENOMEM;
    int r = engine->prepare(*key, cipher, bits, raw, raw_len(cipher, bits));
    if (r != 0) {
        free(*key);
        *key = NULL;
    }
    return r;
}

static int open_engine(struct party *p)
{
    const struct rs_hotpath *c = &p->b->c;
    int r = prepare_one(p->engine, c->from, c->key_bits, p->b->src_raw, &p->src_key);
    return r != 0 ? r : prepare_one(p->engine, c->to, c->key_bits, p->b->dst_raw, &p->dst_key);
}

/* True when this library, with our XTS where it has none, can do the pair in two passes (or one, beside
 * plain). */
static bool open_peer(struct party *p, enum rs_peer_kind kind)
{
    const struct rs_hotpath *c = &p->b->c;
    enum rs_peer_kind from = kind, to = kind;
    if (kind == RS_PEER_IPSEC_MB) {
        if (c->from == RS_XTS) from = RS_PEER_ENGINE;
        if (c->to == RS_XTS) to = RS_PEER_ENGINE;
    }
    if (c->from != RS_PLAIN) {
        p->open =
            rs_peer_open(from, c->from, c->key_bits, false, p->b->src_raw, raw_len(c->from, c->key_bits));
        if (p->open == NULL) return false;
    }
    if (c->to != RS_PLAIN) {
        p->seal = rs_peer_open(to, c->to, c->key_bits, true, p->b->dst_raw, raw_len(c->to, c->key_bits));
        if (p->seal == NULL) return false;
    }
    return true;
}

static void close_party(struct party *p)
{
    const struct rs_hotpath *c = &p->b->c;
    if (p->src_key != NULL) p->engine->wipe(p->src_key, c->from, c->key_bits);
    if (p->dst_key != NULL) p->engine->wipe(p->dst_key, c->to, c->key_bits);
    free(p->src_key);
    free(p->dst_key);
    rs_peer_close(p->open);
    rs_peer_close(p->seal);
    free(p->gbps);
}

static void load_runs(const struct party *p)
{
    struct bench *b = p->b;
    for (size_t i = 0; i < b->count; i++) {
        struct rs_run *run = &b->runs[i];
        *run =
            (struct rs_run){.in = b->in + i * b->c.bytes, .out = b->out + i * b->c.bytes, .len = b->c.bytes};
        set_sides(b, i, &run->src, &run->dst);
        run->src.key = p->src_key;
        run->dst.key = p->dst_key;
    }
}

static int pass_engine(void *arg)
{
    struct party *p = arg;
    struct bench *b = p->b;
    for (size_t i = 0; i < b->count; i += RS_BATCH_MAX) {
        size_t n = RS_MIN(b->count - i, (size_t)RS_BATCH_MAX);
        if (p->engine->run(&b->runs[i], n, b->scratch, b->flags) == 0) continue;
        for (size_t k = i; k < i + n; k++)
            if (b->runs[k].status != 0) return b->runs[k].status;
    }
    return 0;
}

/* One record or run through the cache: opened to `middle`, sealed from there. Plain sides save a pass. */
static int two_passes(struct party *p, size_t i)
{
    struct bench *b = p->b;
    struct rs_run *run = &b->runs[i];
    uint8_t *in = b->in + i * b->c.bytes, *out = b->out + i * b->c.bytes;
    if (p->open == NULL) return rs_peer_run(p->seal, &run->dst, out, in, b->c.bytes, b->scratch, b->flags);
    if (p->seal == NULL) return rs_peer_run(p->open, &run->src, out, in, b->c.bytes, b->scratch, b->flags);
    bool gcm = b->c.from == RS_GCM || b->c.to == RS_GCM;
    uint32_t piece = gcm ? b->c.bytes : RS_MIN(b->c.bytes, RS_MAX(TWO_PASS_PIECE, b->c.unit));
    struct rs_side src = run->src, dst = run->dst;
    for (uint32_t at = 0; at < b->c.bytes; at += piece) {
        uint32_t n = RS_MIN(piece, b->c.bytes - at);
        /* `middle` is private: whoever opens GCM may write there before the tag verified. */
        int r = rs_peer_run(p->open, &src, b->middle, in + at, n, b->scratch, RS_RUN_UNVERIFIED);
        if (r == 0) r = rs_peer_run(p->seal, &dst, out + at, b->middle, n, b->scratch, b->flags);
        if (r != 0) return r;
        if (src.cipher == RS_XTS) src.tweak_lo += n / src.unit * src.step;
        if (dst.cipher == RS_XTS) dst.tweak_lo += n / dst.unit * dst.step;
    }
    memcpy(run->dst.tag, dst.tag, sizeof(dst.tag));
    return 0;
}

static int pass_peer(void *arg)
{
    struct party *p = arg;
    for (size_t i = 0; i < p->b->count; i++) {
        int r = two_passes(p, i);
        if (r != 0) return r;
    }
    return 0;
}

static bool output_right(const struct bench *b)
{
    if (memcmp(b->out, b->expected, b->len) != 0) return false;
    for (size_t i = 0; b->c.to == RS_GCM && i < b->count; i++)
        if (memcmp(b->runs[i].dst.tag, b->records[i].dst_tag, RS_TAG_LEN) != 0) return false;
    return true;
}

/* ---- what is right --------------------------------------------------------- */

/* GCM sources must be genuine: the random bytes become their own sealing. */
static int seal_source(struct bench *b)
{
    struct rs_peer_side *seal = rs_peer_open(RS_PEER_OPENSSL, RS_GCM, b->c.key_bits, true, b->src_raw,
                                             raw_len(RS_GCM, b->c.key_bits));
    int r = seal == NULL ? RESEAL_ENOMEM : 0;
    for (size_t i = 0; r == 0 && i < b->count; i++) {
        struct rs_side side, unused;
        set_sides(b, i, &side, &unused);
        uint8_t *at = b->in + i * b->c.bytes;
        r = rs_peer_run(seal, &side, at, at, b->c.bytes, b->scratch, 0);
        memcpy(b->records[i].src_tag, side.tag, RS_TAG_LEN);
    }
    rs_peer_close(seal);
    return r;
}

/* What the output is compared with: OpenSSL, called without any of our engines. */
static int make_expected(struct bench *b)
{
    struct party p = {.b = b};
    int r = open_peer(&p, RS_PEER_OPENSSL) ? 0 : RESEAL_ENOMEM;
    load_runs(&p);
    if (r == 0) r = pass_peer(&p);
    for (size_t i = 0; r == 0 && i < b->count; i++)
        memcpy(b->records[i].dst_tag, b->runs[i].dst.tag, RS_TAG_LEN);
    if (r == 0) memcpy(b->expected, b->out, b->len);
    close_party(&p);
    return r;
}

static int make_work(struct bench *b)
{
    int r = make_buffers(b);
    if (r == 0) r = fill_random(b->src_raw, sizeof(b->src_raw));
    if (r == 0) r = fill_random(b->dst_raw, sizeof(b->dst_raw));
    if (r == 0) r = fill_random(b->aad, sizeof(b->aad));
    for (size_t i = 0; r == 0 && i < b->count; i++) rs_store_be64(b->records[i].iv + 4, i + 1);
    if (r == 0 && b->c.from == RS_GCM) r = seal_source(b);
    return r != 0 ? r : make_expected(b);
}

/* ---- measuring ------------------------------------------------------------- */

/* A pass over a large set takes longer than a busy machine leaves it alone: the best of a few, of the copy
 * too. */
static unsigned best_of(const struct bench *b)
{
    return b->len < LONG_PASS ? 1 : 3;
}

static int sample_best(struct party *p, struct rs_sample *best)
{
    struct bench *b = p->b;
    *best = (struct rs_sample){0};
    for (unsigned i = 0; i < best_of(b); i++) {
        struct rs_sample s;
        int r = rs_sample_take(p->engine != NULL ? pass_engine : pass_peer, p, b->len,
                               b->c.sample_us * 1000ull, &s);
        if (r != 0) return r;
        if (s.gbps > best->gbps) *best = s;
    }
    return 0;
}

/* One sample of one party; false in *right when its output was wrong. */
static int sample_party(struct party *p, unsigned run, bool *right)
{
    struct bench *b = p->b;
    struct rs_sample s;
    load_runs(p);
    memset(b->out, 0, b->len);
    int r = sample_best(p, &s);
    if (r != 0) return r;
    *right = *right && output_right(b);
    unsigned rounds =
        rs_limit_rounds(b->c.from == RS_PLAIN ? 0 : b->c.key_bits, b->c.to == RS_PLAIN ? 0 : b->c.key_bits);
    p->gbps[run] = s.gbps;
    p->of_limit[run] = s.aes_rounds > 0 ? s.gbps / (16 * s.aes_rounds / rounds) : 0;
    return 0;
}

/* Copies are short: the best of a few stands for the machine. */
static double sample_copy(struct bench *b)
{
    double best = 0;
    unsigned times = b->len < LONG_PASS ? 16 : best_of(b);
    for (unsigned i = 0; i < times; i++) best = fmax(best, rs_limit_copy(b->out, b->in, b->len));
    return best / 1e9;
}

static struct rs_summary ratios(const double *a, const double *b, unsigned n)
{
    double r[RUNS_MAX];
    for (unsigned i = 0; i < n; i++) r[i] = b[i] > 0 ? a[i] / b[i] : 0;
    return rs_summarise(r, n);
}

static void conclude(struct party *parties, unsigned n, const double *copy, unsigned runs,
                     struct rs_result *out)
{
    out->of_copy = copy[0] > 0 ? ratios(parties[0].gbps, copy, runs) : (struct rs_summary){0};
    for (unsigned i = 1; i < n; i++) {
        struct rs_peer_result *peer = &out->peers[out->npeers++];
        peer->name = parties[i].name;
        peer->ratio = ratios(parties[0].gbps, parties[i].gbps, runs);
        peer->gbps = rs_median(parties[i].gbps, runs);
        peer->cpu_s_per_gb = NAN;
    }
    out->of_aes_limit = rs_summarise(parties[0].of_limit, runs);
    if (out->of_aes_limit.best <= 0) out->of_aes_limit = (struct rs_summary){0};
    out->gbps = rs_summarise(parties[0].gbps, runs);
    out->runs = runs;
}

/* All parties and the copy in turn, so that what disturbs one disturbs its neighbours. */
static int measure(struct party *parties, unsigned n, struct rs_result *out)
{
    struct bench *b = parties[0].b;
    double copy[RUNS_MAX] = {0};
    out->verified = true;
    for (unsigned run = 0; run < b->c.runs && out->verified; run++) {
        if (b->c.copy) copy[run] = sample_copy(b);
        for (unsigned i = 0; i < n; i++) {
            int r = sample_party(&parties[i], run, &out->verified);
            if (r == RESEAL_EAUTH)
                out->verified = false;
            else if (r != 0)
                return r;
        }
    }
    if (out->verified) conclude(parties, n, copy, b->c.runs, out);
    return 0;
}

static bool add_peer(struct party *p, enum rs_peer_kind kind, const char *name)
{
    p->name = name;
    if (open_peer(p, kind)) return true;
    close_party(p);
    *p = (struct party){.b = p->b};
    return false;
}

static const char *ipsec_mb_name(const struct rs_hotpath *c)
{
    if (c->from == RS_XTS && c->to == RS_XTS) return "best XTS, two passes";
    if (c->from == RS_XTS || c->to == RS_XTS) return "ipsec-mb GCM and best XTS, two passes";
    return c->from == RS_PLAIN || c->to == RS_PLAIN ? "ipsec-mb" : "ipsec-mb GCM, two passes";
}

static int with_parties(struct bench *b, const struct rs_engine *engine, struct rs_result *out)
{
    struct party parties[3] = {{.b = b, .engine = engine}, {.b = b}, {.b = b}};
    bool one_pass = b->c.from == RS_PLAIN || b->c.to == RS_PLAIN;
    bool xts_alone = one_pass && b->c.from != RS_GCM && b->c.to != RS_GCM;
    unsigned n = 1;
    int r = open_engine(&parties[0]);
    if (r == 0 && b->c.peers) {
        n += add_peer(&parties[n], RS_PEER_OPENSSL, one_pass ? "OpenSSL" : "OpenSSL, two passes");
        if (!xts_alone) n += add_peer(&parties[n], RS_PEER_IPSEC_MB, ipsec_mb_name(&b->c));
    }
    for (unsigned i = 0; r == 0 && i < n; i++) {
        parties[i].gbps = calloc(2 * b->c.runs, sizeof(double));
        if (parties[i].gbps == NULL)
            r = RESEAL_ENOMEM;
        else
            parties[i].of_limit = parties[i].gbps + b->c.runs;
    }
    if (r == 0) r = measure(parties, n, out);
    for (unsigned i = 0; i < n; i++) close_party(&parties[i]);
    return r;
}

static const char *const names[] = {[RS_PLAIN] = "plain", [RS_XTS] = "xts", [RS_GCM] = "gcm"};

int rs_hotpath_measure(const struct rs_hotpath *c, struct rs_result *out)
{
    rs_result_init(out, c->kernel_only ? "hotpath-kernel-only" : "hotpath");
    if (rs_hotpath_refuse(c) != NULL) return RESEAL_EINVAL;
    struct rs_shape shape = shape_of(c);
    const struct rs_engine *engine =
        c->engine != NULL ? rs_engine_by_name(c->engine) : rs_engine_best(&shape);
    if (engine == NULL || !engine->supports(&shape)) return RESEAL_ENOSUPPORT;
    struct bench b = {.c = *c};
    if (c->from != RS_XTS && c->to != RS_XTS) b.c.unit = 0;
    int r = make_work(&b);
    if (r == 0) r = with_parties(&b, engine, out);
    out->from = names[c->from];
    out->to = names[c->to];
    out->engine = engine->name;
    out->unit = b.c.unit;
    out->bytes = b.c.bytes;
    out->working_set = b.c.working_set;
    out->depth = (uint32_t)RS_MIN(b.count, (size_t)RS_BATCH_MAX);
    out->key_bits = c->key_bits;
    free_buffers(&b);
    return r;
}
