/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/crypto/calibrate.h"

#include "offload/base/clock.h"
#include "reseal/reseal.h"

#include <pthread.h>
#include <stdlib.h>

#define SHAPES_MAX                                                                                           \
    128u /* kinds of session that a process is asked for; more are answered by the first engine */
#define ENGINES_MAX 8u
#define SAMPLES     7u         /* of each engine */
#define SAMPLE_NS   60000u     /* about */
#define SET         (1u << 18) /* bytes that a batch covers: stays in the second-level cache */
#define RUNS_MAX    8u

struct measured {
    struct rs_shape shape;
    size_t n;
    struct {
        const struct rs_engine *engine;
        double gbps;
    } by[ENGINES_MAX];
    const struct rs_engine *best;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct measured table[SHAPES_MAX];
static size_t shapes;

struct rs_shape rs_calibration_bucket(const struct rs_shape *shape)
{
    struct rs_shape s = *shape;
    uint32_t unit = RS_MAX(s.src == RS_XTS ? s.src_unit : 0, s.dst == RS_XTS ? s.dst_unit : 0);
    s.len = 4096;
    while (s.len < shape->len && s.len < SET) s.len *= 4;
    while (s.len < unit && s.len < SET) s.len *= 4;
    if (s.src != RS_XTS) s.src_unit = 0;
    if (s.dst != RS_XTS) s.dst_unit = 0;
    if (s.src == RS_PLAIN) s.src_bits = 0;
    if (s.dst == RS_PLAIN) s.dst_bits = 0;
    return s;
}

static bool same_shape(const struct rs_shape *a, const struct rs_shape *b)
{
    return a->src == b->src && a->dst == b->dst && a->src_bits == b->src_bits && a->dst_bits == b->dst_bits &&
           a->src_unit == b->src_unit && a->dst_unit == b->dst_unit && a->len == b->len;
}

/* ---- one engine, ready to be sampled --------------------------------------- */

struct subject {
    const struct rs_engine *engine;
    void *keys[2];
    uint64_t best_ns; /* for one batch */
    unsigned repeat;  /* batches in a sample */
};

struct bench {
    struct rs_shape shape;
    size_t runs;
    uint8_t *in, *out, *scratch;
    uint8_t tag[RS_TAG_LEN]; /* of the input, where the source is GCM: all runs are the same record */
};

static void *room(size_t len)
{
    return aligned_alloc(RS_KEY_ALIGN, rs_round_up(RS_MAX(len, 1u), RS_KEY_ALIGN));
}

static void end_subject(const struct bench *b, struct subject *s)
{
    const unsigned ciphers[2] = {b->shape.src, b->shape.dst},
                   bits[2] = {b->shape.src_bits, b->shape.dst_bits};
    for (size_t k = 0; k < 2; k++) {
        if (s->keys[k] != NULL) s->engine->wipe(s->keys[k], (enum rs_cipher)ciphers[k], bits[k]);
        free(s->keys[k]);
        s->keys[k] = NULL;
    }
}

/* Keys of no value: speed does not depend on them. */
static int begin_subject(const struct bench *b, struct subject *s)
{
    const unsigned ciphers[2] = {b->shape.src, b->shape.dst},
                   bits[2] = {b->shape.src_bits, b->shape.dst_bits};
    uint8_t raw[64];
    for (size_t k = 0; k < 2; k++) {
        if (ciphers[k] == RS_PLAIN) continue;
        for (size_t i = 0; i < sizeof(raw); i++) raw[i] = (uint8_t)(i + 64 * k);
        void *key = room(s->engine->key_size((enum rs_cipher)ciphers[k], bits[k]));
        size_t len = ciphers[k] == RS_XTS ? bits[k] / 4 : bits[k] / 8;
        int err = key == NULL ? RESEAL_ENOMEM
                              : s->engine->prepare(key, (enum rs_cipher)ciphers[k], bits[k], raw, len);
        if (err != 0) {
            free(key);
            return err;
        }
        s->keys[k] = key;
    }
    return 0;
}

static size_t batch(const struct bench *b, const struct subject *s)
{
    struct rs_run runs[RUNS_MAX];
    for (size_t i = 0; i < b->runs; i++) {
        struct rs_run *r = &runs[i];
        *r = (struct rs_run){
            .in = b->in + i * b->shape.len, .out = b->out + i * b->shape.len, .len = b->shape.len};
        r->src =
            (struct rs_side){.cipher = b->shape.src, .key = s->keys[0], .unit = b->shape.src_unit, .step = 1};
        r->dst =
            (struct rs_side){.cipher = b->shape.dst, .key = s->keys[1], .unit = b->shape.dst_unit, .step = 1};
        memcpy(r->src.tag, b->tag, RS_TAG_LEN);
    }
    return s->engine->run(runs, b->runs, b->scratch, 0);
}

/* A record that verifies: sealed from zeros with the source's key, copied to every run of the input. */
static int seal_input(struct bench *b, const struct subject *s)
{
    struct rs_run run = {.in = b->out, .out = b->in, .len = b->shape.len};
    run.dst = (struct rs_side){.cipher = RS_GCM, .key = s->keys[0]};
    if (s->engine->run(&run, 1, b->scratch, 0) != 0) return RESEAL_ESELFTEST;
    memcpy(b->tag, run.dst.tag, RS_TAG_LEN);
    for (size_t i = 1; i < b->runs; i++) memcpy(b->in + i * b->shape.len, b->in, b->shape.len);
    return 0;
}

static void sample(const struct bench *b, struct subject *s)
{
    uint64_t start = rs_now_ns();
    for (unsigned i = 0; i < s->repeat; i++)
        if (batch(b, s) != 0) return; /* does not count as fast */
    uint64_t ns = (rs_now_ns() - start) / s->repeat;
    if (ns != 0) s->best_ns = RS_MIN(s->best_ns, ns);
}

static void sample_all(const struct bench *b, struct subject *subjects, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        subjects[i].repeat = 1;
        for (int warm = 0; warm < 2; warm++) sample(b, &subjects[i]);
        uint64_t fit = SAMPLE_NS / RS_MAX(subjects[i].best_ns, 1u);
        subjects[i].repeat = (unsigned)RS_MAX(fit, 1u);
    }
    for (unsigned round = 0; round < SAMPLES; round++)
        for (size_t i = 0; i < n; i++) sample(b, &subjects[i]);
}

static void note(struct measured *m, const struct bench *b, const struct subject *subjects, size_t n)
{
    uint64_t best = UINT64_MAX;
    for (size_t i = 0; i < n; i++) {
        if (subjects[i].best_ns == UINT64_MAX) continue;
        m->by[m->n].engine = subjects[i].engine;
        m->by[m->n++].gbps = (double)(b->runs * b->shape.len) / (double)subjects[i].best_ns;
        if (subjects[i].best_ns >= best) continue;
        best = subjects[i].best_ns;
        m->best = subjects[i].engine;
    }
}

static void measure(struct measured *m)
{
    struct bench b = {.shape = m->shape, .runs = RS_MIN(RUNS_MAX, SET / m->shape.len)};
    struct subject subjects[ENGINES_MAX] = {0};
    size_t n = 0, size = b.runs * b.shape.len;
    uint8_t *memory = room(rs_engine_scratch_size(b.shape.len) + 2 * size);
    for (const struct rs_engine *const *e = rs_engines(); *e != NULL && n < ENGINES_MAX; e++) {
        if (!(*e)->supports(&m->shape)) continue;
        subjects[n] = (struct subject){.engine = *e, .best_ns = UINT64_MAX};
        if (memory == NULL || begin_subject(&b, &subjects[n]) != 0) {
            end_subject(&b, &subjects[n]);
            continue;
        }
        n++;
    }
    if (n != 0) {
        b.scratch = memory;
        b.in = memory + rs_engine_scratch_size(b.shape.len);
        b.out = b.in + size;
        memset(b.in, 0, 2 * size);
        if (b.shape.src != RS_GCM || seal_input(&b, &subjects[0]) == 0) sample_all(&b, subjects, n);
        note(m, &b, subjects, n);
    }
    for (size_t i = 0; i < n; i++) end_subject(&b, &subjects[i]);
    free(memory);
}

/* ---- the table --------------------------------------------------------------- */

static const struct rs_engine *first_for(const struct rs_shape *shape)
{
    for (const struct rs_engine *const *e = rs_engines(); *e != NULL; e++)
        if ((*e)->supports(shape)) return *e;
    return NULL;
}

static const struct rs_engine *look_up(const struct rs_shape *shape)
{
    for (size_t i = 0; i < shapes; i++)
        if (same_shape(&table[i].shape, shape)) return table[i].best;
    if (shapes == SHAPES_MAX) return first_for(shape);
    struct measured *m = &table[shapes++];
    m->shape = *shape;
    m->best = first_for(shape); /* serves where nothing could be measured */
    measure(m);
    return m->best;
}

const struct rs_engine *rs_engine_best(const struct rs_shape *shape)
{
    const char *name = secure_getenv("RESEAL_ENGINE");
    if (name != NULL && *name != '\0') {
        const struct rs_engine *engine = rs_engine_by_name(name);
        return engine != NULL && engine->supports(shape) ? engine : NULL;
    }
    struct rs_shape bucket = rs_calibration_bucket(shape);
    rs_engines_init();
    pthread_mutex_lock(&lock);
    const struct rs_engine *best = look_up(&bucket);
    pthread_mutex_unlock(&lock);
    return best;
}

size_t rs_calibration(struct rs_calibration_row *rows, size_t max)
{
    size_t n = 0;
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < shapes; i++) {
        for (size_t k = 0; k < table[i].n; k++, n++) {
            if (n >= max) continue;
            rows[n] = (struct rs_calibration_row){.shape = table[i].shape, .engine = table[i].by[k].engine};
            rows[n].gbps = table[i].by[k].gbps;
            rows[n].chosen = table[i].by[k].engine == table[i].best;
        }
    }
    pthread_mutex_unlock(&lock);
    return n;
}
