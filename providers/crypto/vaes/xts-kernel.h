/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The XTS kernel, written once for vectors of one, two or four blocks: plain
 * to XTS, XTS to plain, XTS to XTS. Included at the end of a source file that
 * includes xts-vectors.h and defines fly_part() and the names XTS_RUN,
 * UNIT_ENCRYPT and UNIT_DECRYPT.
 *
 * Work goes in flights of eight vectors. The AES ports are the bound, so all
 * else must hide beneath them:
 *  - The tweaks of the next flight are made within the rounds of this one, by
 *    carry-less multiplies and byte shifts, which have ports of their own: at
 *    the start of a unit from the encrypted tweak, else from the flight before.
 *  - Encrypted tweaks are made for up to 32 units at once, long before they
 *    are needed, so that short units cost little more than long ones.
 *  - The key operand of the last decryption round takes in both tweaks and the
 *    first encryption round key: plaintext is in no register at any time.
 * A batch of runs is one stream of flights: the last flight of a run makes the
 * tweaks of the first flight of the next.
 */

#include "providers/crypto/vaes/xts-track.h"

#define FLIGHT (VECTORS * LANES * 16u) /* bytes */
#define AHEAD  2048u                   /* bytes: prefetch distance when streaming */

enum kind { ENCRYPT, DECRYPT, RESEAL };

#define HAS_SRC(kind) ((kind) != ENCRYPT)
#define HAS_DST(kind) ((kind) != DECRYPT)

/* What is known of the flights to come ([0]: source, [1]: destination). Secret; wiped after a batch of runs.
 */
struct pipe {
    vec t[2][VECTORS]; /* the first side's tweaks of this flight; with two sides, the second's of the one
                          before */
    __m128i ring[2][RS_TRACK_RING]; /* [side]: encrypted tweaks of units to come */
    struct rs_xts_track track[2];
    struct rs_xts_track coming[2]; /* of the next run, when `begun` */
    bool begun;
    bool primed; /* and t holds its first flight's tweaks */
} RS_ALIGNED(64);

/* Blocks that are no whole flight: `len` bytes at offset `at`, with the tweaks in p->t. */
static void fly_part(enum kind kind, const struct rs_run *run, size_t at, size_t len, const struct pipe *p);

/* Where the tweaks of a flight live: in registers if there are enough, else where they are. */
#if LANES == 4
#define TWEAKS(name, from)                                                                                   \
    vec name[VECTORS];                                                                                       \
    UNROLL for (unsigned v = 0; v < VECTORS; v++) name[v] = (from)[v]
#define KEEP_TWEAKS(to, name) UNROLL for (unsigned v = 0; v < VECTORS; v++)(to)[v] = name[v]
#else
#define TWEAKS(name, from)    vec *name = from
#define KEEP_TWEAKS(to, name) (void)name
#endif

/* ---- tweaks -------------------------------------------------------------- */

/* The tweaks of a flight: a unit's first, from its encrypted tweak, or the one after `before`. */
INLINE void make_tweaks(vec to[VECTORS], const vec before[VECTORS], const __m128i *fresh)
{
    vec base = fresh != NULL ? v_everywhere(fresh) : v_zero();
    UNROLL for (unsigned i = 0; i < VECTORS; i++) to[i] = fresh != NULL ? derive(base, i) : onward(before[i]);
}

/* Encrypts the tweaks of LANES * vectors data units. */
INLINE void encrypt_tweaks(const struct rs_xts_track *w, uint64_t unit, __m128i *out, unsigned vectors)
{
    vec x[VECTORS], k = v_everywhere(w->key->tweak[0]);
    uint64_t lo = w->side->tweak_lo + unit * w->side->step;
    vec number = v_numbers(w->side->tweak_hi, lo, w->side->step), more = v_low(LANES * w->side->step);
    UNROLL for (unsigned i = 0; i < vectors; i++)
    {
        x[i] = v_xor(number, k);
        number = v_add(number, more);
    }
    for (unsigned r = 1; r < w->key->rounds; r++) {
        k = v_everywhere(w->key->tweak[r]);
        UNROLL for (unsigned i = 0; i < vectors; i++) x[i] = v_enc(x[i], k);
    }
    k = v_everywhere(w->key->tweak[w->key->rounds]);
    UNROLL for (unsigned i = 0; i < vectors; i++) v_store(out + (size_t)LANES * i, v_enclast(x[i], k));
}

/* The next n encrypted tweaks; writes whole vectors. */
static void encrypt_units(const struct rs_xts_track *w, uint64_t unit, __m128i *out, size_t n)
{
    for (size_t done = 0; done < n; done += VECTORS * LANES) {
        size_t left = n - done;
        if (left <= LANES)
            encrypt_tweaks(w, unit + done, out + done, 1);
        else if (left <= 2 * LANES)
            encrypt_tweaks(w, unit + done, out + done, 2);
        else if (left <= 4 * LANES)
            encrypt_tweaks(w, unit + done, out + done, 4);
        else
            encrypt_tweaks(w, unit + done, out + done, 8);
    }
}

/* ---- one flight ---------------------------------------------------------- */

#define DEC(k) UNROLL for (unsigned i = 0; i < VECTORS; i++) s[i] = v_dec(s[i], k)
#define ENC(k) UNROLL for (unsigned i = 0; i < VECTORS; i++) s[i] = v_enc(s[i], k)

/* Rounds 1 to 9; within them tweak vectors `to`, and a flight's worth of prefetches of `data` unless that is
 * NULL. */
#define ROUNDS(ROUND, make)                                                                                  \
    UNROLL for (unsigned r = 1; r < 10; r++)                                                                 \
    {                                                                                                        \
        vec k = v_everywhere(keys[r]);                                                                       \
        ROUND(k);                                                                                            \
        if (r <= VECTORS) to[r - 1] = make;                                                                  \
        if (data != NULL && r <= FLIGHT / 64) _mm_prefetch((const char *)data + 64 * (r - 1), _MM_HINT_T0);  \
    }

/* One pass over a whitened flight, but for its last round, whose key is returned. */
#define PASS(name, ROUND, schedule)                                                                          \
    INLINE vec name(vec s[VECTORS], const struct rs_vaes_key *key, vec to[VECTORS],                          \
                    const vec before[VECTORS], const __m128i *fresh, const uint8_t *data)                    \
    {                                                                                                        \
        const uint8_t(*keys)[16] = key->schedule;                                                            \
        if (fresh != NULL) {                                                                                 \
            vec base = v_everywhere(fresh);                                                                  \
            ROUNDS(ROUND, derive(base, r - 1));                                                              \
        } else {                                                                                             \
            ROUNDS(ROUND, onward(before[r - 1]));                                                            \
        }                                                                                                    \
        if (key->rounds == 14) {                                                                             \
            UNROLL for (unsigned r = 10; r < 14; r++)                                                        \
            {                                                                                                \
                vec k = v_everywhere(keys[r]);                                                               \
                ROUND(k);                                                                                    \
            }                                                                                                \
            keys += 4;                                                                                       \
        }                                                                                                    \
        return v_everywhere(keys[10]);                                                                       \
    }
PASS(decrypt, DEC, dec)
PASS(encrypt, ENC, enc)

/*
 * A whole flight. With two sides: t, the tweaks on the first, becomes the next
 * flight's; u, those of the flight before on the second, becomes this one's.
 * With one side: u becomes the next flight's. next and second are what the
 * tweaks begin with at the start of a unit, or NULL.
 */
INLINE void fly(enum kind kind, bool stream, const struct rs_vaes_key *src, const struct rs_vaes_key *dst,
                vec t[VECTORS], vec u[VECTORS], const __m128i *next, const __m128i *second, const uint8_t *in,
                uint8_t *out)
{
    vec s[VECTORS], k = v_everywhere(HAS_SRC(kind) ? src->dec[0] : dst->enc[0]);
    const uint8_t *data = stream ? in + AHEAD : NULL;
    UNROLL for (unsigned i = 0; i < VECTORS; i++) s[i] = v_xor3(v_load(in + sizeof(vec) * i), k, t[i]);
    if (kind == RESEAL) {
        k = v_xor(decrypt(s, src, u, u, second, data), v_everywhere(dst->enc[0]));
        UNROLL for (unsigned i = 0; i < VECTORS; i++) s[i] = v_declast(s[i], v_xor3(k, t[i], u[i]));
        k = encrypt(s, dst, t, t, next, NULL);
        UNROLL for (unsigned i = 0; i < VECTORS; i++) s[i] = v_enclast(s[i], v_xor(k, u[i]));
    } else if (kind == DECRYPT) {
        k = decrypt(s, src, u, t, next, data);
        UNROLL for (unsigned i = 0; i < VECTORS; i++) s[i] = v_declast(s[i], v_xor(k, t[i]));
    } else {
        k = encrypt(s, dst, u, t, next, data);
        UNROLL for (unsigned i = 0; i < VECTORS; i++) s[i] = v_enclast(s[i], v_xor(k, t[i]));
    }
    UNROLL for (unsigned i = 0; i < VECTORS; i++)
    {
        if (stream)
            v_stream(out + sizeof(vec) * i, s[i]);
        else
            v_store(out + sizeof(vec) * i, s[i]);
    }
}

/* ---- a run --------------------------------------------------------------- */

static enum kind kind_of(const struct rs_run *run)
{
    return run->src.cipher == RS_PLAIN ? ENCRYPT : run->dst.cipher == RS_PLAIN ? DECRYPT : RESEAL;
}

static bool first_side(enum kind kind)
{
    return kind == ENCRYPT;
}

/* Makes the first encrypted tweaks of a run; the one before has at most one still to use. */
static void begin(struct pipe *p, const struct rs_run *run)
{
    rs_track_begin(&p->coming[0], &run->src, run->len, FLIGHT, &p->track[0], p->ring[0], encrypt_units);
    rs_track_begin(&p->coming[1], &run->dst, run->len, FLIGHT, &p->track[1], p->ring[1], encrypt_units);
    p->begun = true;
}

/* For how many flights a side has tweaks. */
static size_t ready(struct pipe *p, unsigned side)
{
    rs_track_fill(&p->track[side], p->ring[side], encrypt_units);
    return rs_track_room(&p->track[side]);
}

/* n flights between which nothing is to be looked after. */
INLINE void fly_some(enum kind kind, bool stream, struct pipe *p, const struct rs_run *run, size_t at,
                     size_t n)
{
    const struct rs_vaes_key *src = run->src.key, *dst = run->dst.key;
    const unsigned first = first_side(kind);
    struct rs_xts_track *one = &p->track[first], *two = &p->track[first ^ 1];
    const uint8_t *in = run->in + at;
    uint8_t *out = run->out + at;
    TWEAKS(t, p->t[first]);
    TWEAKS(u, p->t[first ^ 1]);
    for (size_t i = 0; i < n; i++) {
        const __m128i *second = kind == RESEAL ? rs_track_next(two) : NULL, *next = rs_track_next(one);
        fly(kind, stream, src, dst, t, u, next, second, in, out);
        if (kind != RESEAL) {
            UNROLL for (unsigned v = 0; v < VECTORS; v++) t[v] = u[v];
        }
        in += FLIGHT;
        out += FLIGHT;
    }
    KEEP_TWEAKS(p->t[first], t);
    if (kind == RESEAL) KEEP_TWEAKS(p->t[first ^ 1], u);
}

static void fly_kind(enum kind kind, bool stream, struct pipe *p, const struct rs_run *run, size_t at,
                     size_t n)
{
    if (kind == ENCRYPT && stream) fly_some(ENCRYPT, true, p, run, at, n);
    if (kind == ENCRYPT && !stream) fly_some(ENCRYPT, false, p, run, at, n);
    if (kind == DECRYPT && stream) fly_some(DECRYPT, true, p, run, at, n);
    if (kind == DECRYPT && !stream) fly_some(DECRYPT, false, p, run, at, n);
    if (kind == RESEAL && stream) fly_some(RESEAL, true, p, run, at, n);
    if (kind == RESEAL && !stream) fly_some(RESEAL, false, p, run, at, n);
}

/*
 * The whole flights of a run. Each makes the first side's tweaks of the one
 * after it; the last one of the run those of `next`, if that is not NULL.
 */
static void fly_whole(enum kind kind, bool stream, struct pipe *p, const struct rs_run *run,
                      const struct rs_run *next)
{
    const unsigned first = first_side(kind);
    size_t whole = rs_xts_bulk(run->len) / FLIGHT;
    bool all = whole * FLIGHT == run->len;
    for (size_t at = 0, n; at < whole; at += n) {
        n = whole - at;
        if (kind == RESEAL) n = RS_MIN(n, ready(p, 1));
        if (!all || whole - at > 1) {
            n = RS_MIN(n, ready(p, first));
            n = RS_MIN(n, all ? whole - at - 1 : whole - at);
        } else if (next != NULL) {
            begin(p, next);
            p->track[first] = p->coming[first];
        } else {
            p->track[first].left = 1; /* nothing comes: what is made is not used */
        }
        fly_kind(kind, stream, p, run, at * FLIGHT, n);
    }
}

/* The last 17 to 31 bytes; `block` is the first one's place in the flight whose tweaks are in p->t. */
static void steal(const struct pipe *p, const struct rs_run *run, size_t at, size_t block)
{
    __m128i t[2][2];
    for (unsigned side = 0; side < 2; side++) {
        t[side][0] = _mm_load_si128((const __m128i *)p->t[side] + block);
        t[side][1] = rs_xts_next(t[side][0]);
    }
    rs_xts_steal(run->src.key, run->dst.key, t[0], t[1], run->in + at, run->out + at, run->len - at);
    rs_wipe(t, sizeof(t));
}

/* Units of whole flights, or a single one. */
static void run_regular(struct pipe *p, const struct rs_run *run, const struct rs_run *next, bool stream)
{
    enum kind kind = kind_of(run);
    const unsigned first = first_side(kind);
    size_t bulk = rs_xts_bulk(run->len), whole = bulk / FLIGHT * FLIGHT;
    if (!p->begun) begin(p, run);
    if (!p->primed) {
        p->track[first] = p->coming[first];
        make_tweaks(p->t[first], p->t[first], rs_track_next(&p->track[first]));
    }
    p->track[first ^ 1] = p->coming[first ^ 1];
    p->begun = p->primed = false;
    /* Streaming would only drive out lines that were just read. */
    if (run->in == run->out || (uintptr_t)run->out % 64 != 0) stream = false;
    fly_whole(kind, stream, p, run, next);
    p->primed = p->begun;
    if (run->len == whole) return;
    if (kind == RESEAL) {
        ready(p, 1);
        make_tweaks(p->t[1], p->t[1], rs_track_next(&p->track[1]));
    }
    if (bulk != whole) fly_part(kind, run, whole, bulk - whole, p);
    if (bulk != run->len) steal(p, run, bulk, (bulk - whole) / 16);
}

/* Units that are no whole flights, to or from plain: one by one. */
static void run_units(const struct rs_run *run)
{
    const bool decrypt = kind_of(run) == DECRYPT;
    const struct rs_side *side = decrypt ? &run->src : &run->dst;
    for (size_t at = 0, unit = 0; at < run->len; at += side->unit, unit++) {
        uint8_t tweak[16];
        _mm_storeu_si128((__m128i *)(void *)tweak, rs_xts_tweak_number(side, unit));
        (decrypt ? UNIT_DECRYPT : UNIT_ENCRYPT)(side->key, tweak, run->in + at, run->out + at,
                                                RS_MIN(side->unit, run->len - at));
    }
}

/* The same from XTS to XTS, where units of the two sides overlap: tweaks one by one. */
static void run_irregular(struct pipe *p, const struct rs_run *run)
{
    size_t bulk = rs_xts_bulk(run->len);
    struct rs_block_walk walk[2];
    rs_block_walk_begin(&walk[0], &run->src);
    rs_block_walk_begin(&walk[1], &run->dst);
    for (size_t at = 0; at < run->len; at += FLIGHT) {
        size_t len = RS_MIN(FLIGHT, run->len - at), done = at < bulk ? RS_MIN(len, bulk - at) : 0;
        for (unsigned side = 0; side < 2; side++) {
            __m128i *t = (__m128i *)p->t[side];
            for (size_t i = 0; i < (len + 15) / 16; i++)
                _mm_store_si128(t + i, rs_block_walk_next(&walk[side]));
        }
        if (done != 0) fly_part(RESEAL, run, at, done, p);
        /* A tail that begins here may end in the next flight. */
        if (bulk != run->len && bulk - at < FLIGHT) {
            steal(p, run, bulk, (bulk - at) / 16);
            break;
        }
    }
    rs_wipe(walk, sizeof(walk));
}

static bool side_regular(const struct rs_side *s, size_t len)
{
    return s->cipher == RS_PLAIN || s->unit % FLIGHT == 0 || len <= s->unit;
}

static bool regular(const struct rs_run *run)
{
    return side_regular(&run->src, run->len) && side_regular(&run->dst, run->len);
}

/* The run after `run`, when its first tweaks may be made within this one. */
static const struct rs_run *successor(const struct rs_run *run, const struct rs_run *end)
{
    const struct rs_run *next = run + 1;
    bool can = next < end && rs_xts_check(next) == 0 && regular(next) && kind_of(next) == kind_of(run);
    return can ? next : NULL;
}

static __attribute__((noinline)) size_t run_batch(struct rs_run *runs, size_t n, unsigned flags)
{
    size_t failed = 0;
    struct pipe p;
    p.track[0] = p.track[1] = (struct rs_xts_track){0};
    p.begun = p.primed = false;
    for (struct rs_run *run = runs; run < runs + n; run++) {
        run->status = rs_xts_check(run);
        if (run->status != 0)
            failed++;
        else if (regular(run))
            run_regular(&p, run, successor(run, runs + n), flags & RS_RUN_STREAM);
        else if (kind_of(run) == RESEAL)
            run_irregular(&p, run);
        else
            run_units(run);
    }
    if (flags & RS_RUN_STREAM) _mm_sfence();
    /* Lets `p` be where it is until here; burn() wipes it with the rest of this frame. */
    __asm__ volatile("" : : "r"(&p) : "memory");
    return failed;
}

/* Wipes the stack that run_batch() has left: the tweaks, and what the compiler had no registers for. */
static __attribute__((noinline)) void burn(void)
{
    vec frame[(sizeof(struct pipe) + 2048) / sizeof(vec)];
    for (size_t i = 0; i < RS_ARRAY_LEN(frame); i++) frame[i] = v_zero();
    __asm__ volatile("" : : "r"(frame) : "memory");
}

size_t XTS_RUN(struct rs_run *runs, size_t n, void *scratch, unsigned flags)
{
    (void)scratch;
    size_t failed = run_batch(runs, n, flags);
    burn();
    v_forget();
    return failed;
}
