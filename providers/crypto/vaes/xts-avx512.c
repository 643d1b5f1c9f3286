/* SPDX-License-Identifier: Apache-2.0 */

/*
 * XTS with 512-bit VAES: plain to XTS, XTS to plain, XTS to XTS.
 *
 * Work goes in flights of 32 blocks: eight vectors in registers. 512-bit AES
 * has one port, so everything else must hide beneath it:
 *  - Each flight has one tweak base for each side, the tweak of its first
 *    block. The bases of 32 flights are made at once, long before they are
 *    needed, so that units may have any multiple of 512 bytes at one price.
 *  - The eight tweak vectors of the next flight are derived from its base by
 *    carry-less multiplies, on another port, within the rounds of this one.
 *  - The key operand of the last decryption round takes in both tweaks and the
 *    first encryption round key: plaintext is in no register at any time.
 * A batch of runs is one stream of flights: the last flight of a run derives
 * the tweaks of the first flight of the next.
 */

#include "providers/crypto/vaes/xts-bases.h"
#include "providers/crypto/vaes/xts-common.h"

#define VECTORS       8u   /* in a flight */
#define FLIGHT        512u /* bytes */
#define FLIGHT_BLOCKS 32u
#define AHEAD         4096u /* bytes: prefetch distance when streaming */

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

/* What is known of the flights to come, on both sides ([0]: source, [1]: destination). Secret; wiped after a
 * batch of runs. */
struct pipe {
    __m512i t[2][2][VECTORS];                 /* [parity][side]: tweaks of this flight and of the next */
    __m128i bases[2][2][RS_TWEAK_BASES_ROOM]; /* [buffer][side] */
    struct rs_tweak_walk walk[2];
    unsigned parity, buffer; /* those in use now */
    bool begun;  /* the next run's first bases are made: in `buffer` between runs, in the other within one */
    bool primed; /* and t[parity] is its first flight's */
};

enum kind { ENCRYPT, DECRYPT, RESEAL };

#define HAS_SRC(kind) ((kind) != ENCRYPT)
#define HAS_DST(kind) ((kind) != DECRYPT)

static const uint64_t lane_powers[VECTORS][8] RS_ALIGNED(64) = {
#define LANES(i)                                                                                             \
    {                                                                                                        \
        1ull << (4 * (i)), 0, 2ull << (4 * (i)), 0, 4ull << (4 * (i)), 0, 8ull << (4 * (i)), 0               \
    }
    LANES(0), LANES(1), LANES(2), LANES(3), LANES(4), LANES(5), LANES(6), LANES(7),
};

INLINE __m512i xor3(__m512i a, __m512i b, __m512i c)
{
    return _mm512_ternarylogic_epi64(a, b, c, 0x96);
}

INLINE __m512i everywhere(const void *block)
{
    return _mm512_broadcast_i32x4(_mm_load_si128((const __m128i *)block));
}

/* base * x^(4i + lane): four multiply-port operations, no bit shift. */
INLINE __m512i derive(__m512i base, unsigned i)
{
    __m512i power = _mm512_load_si512(lane_powers[i]), fold = _mm512_set1_epi64(0x87);
    __m512i lo = _mm512_clmulepi64_epi128(base, power, 0x00);
    __m512i hi = _mm512_clmulepi64_epi128(base, power, 0x01);
    return xor3(lo, _mm512_bslli_epi128(hi, 8), _mm512_clmulepi64_epi128(hi, fold, 0x01));
}

INLINE void derive_all(__m512i t[VECTORS], const __m128i *base)
{
    __m512i b = everywhere(base);
    UNROLL for (unsigned i = 0; i < VECTORS; i++) t[i] = derive(b, i);
}

/* What a flight reads and writes beside data. */
struct flight {
    const struct rs_vaes_key *src, *dst;
    const __m512i *t1, *t2; /* tweaks of this flight */
    __m512i *n1, *n2;       /* of the next, derived from these bases: */
    const __m128i *b1, *b2;
};

/* Which bytes of a flight there are. */
INLINE __mmask8 part(size_t len, unsigned i)
{
    size_t at = 64 * i;
    return len >= at + 64 ? 0xff : len <= at ? 0 : (__mmask8)((1u << ((len - at) / 8)) - 1);
}

#define DEC(k) UNROLL for (unsigned i = 0; i < n; i++) s[i] = _mm512_aesdec_epi128(s[i], k)
#define ENC(k) UNROLL for (unsigned i = 0; i < n; i++) s[i] = _mm512_aesenc_epi128(s[i], k)

/*
 * One flight of n vectors. `whole`: all bytes are there and the next flight's
 * tweaks are derived on the way; else the first `len` bytes and no derivation.
 */
INLINE void fly(enum kind kind, bool whole, bool stream, unsigned n, const struct flight *f,
                const uint8_t *in, uint8_t *out, size_t len)
{
    __m512i s[VECTORS], k;
    const __m512i *t = HAS_SRC(kind) ? f->t1 : f->t2;
    k = everywhere(HAS_SRC(kind) ? f->src->dec[0] : f->dst->enc[0]);
    UNROLL for (unsigned i = 0; i < n; i++)
    {
        __m512i x =
            whole ? _mm512_loadu_si512(in + 64 * i) : _mm512_maskz_loadu_epi64(part(len, i), in + 64 * i);
        s[i] = xor3(x, k, t[i]);
    }
    if (HAS_SRC(kind)) {
        const uint8_t(*key)[16] = f->src->dec;
        __m512i base = whole ? everywhere(f->b1) : k;
        UNROLL for (unsigned r = 1; r < 10; r++)
        {
            k = everywhere(key[r]);
            DEC(k);
            if (whole && r <= VECTORS) f->n1[r - 1] = derive(base, r - 1);
            if (stream && r <= VECTORS) _mm_prefetch((const char *)in + AHEAD + 64 * (r - 1), _MM_HINT_T0);
        }
        if (f->src->rounds == 14) {
            UNROLL for (unsigned r = 10; r < 14; r++)
            {
                k = everywhere(key[r]);
                DEC(k);
            }
            key += 4;
        }
        k = everywhere(key[10]);
        if (HAS_DST(kind)) k = _mm512_xor_si512(k, everywhere(f->dst->enc[0]));
        UNROLL for (unsigned i = 0; i < n; i++)
        {
            __m512i last = HAS_DST(kind) ? xor3(k, f->t1[i], f->t2[i]) : _mm512_xor_si512(k, f->t1[i]);
            s[i] = _mm512_aesdeclast_epi128(s[i], last);
        }
    }
    if (HAS_DST(kind)) {
        const uint8_t(*key)[16] = f->dst->enc;
        __m512i base = whole ? everywhere(f->b2) : k;
        UNROLL for (unsigned r = 1; r < 10; r++)
        {
            k = everywhere(key[r]);
            ENC(k);
            if (whole && r <= VECTORS) f->n2[r - 1] = derive(base, r - 1);
            if (stream && !HAS_SRC(kind) && r <= VECTORS)
                _mm_prefetch((const char *)in + AHEAD + 64 * (r - 1), _MM_HINT_T0);
        }
        if (f->dst->rounds == 14) {
            UNROLL for (unsigned r = 10; r < 14; r++)
            {
                k = everywhere(key[r]);
                ENC(k);
            }
            key += 4;
        }
        k = everywhere(key[10]);
        UNROLL for (unsigned i = 0; i < n; i++) s[i] =
            _mm512_aesenclast_epi128(s[i], _mm512_xor_si512(k, f->t2[i]));
    }
    UNROLL for (unsigned i = 0; i < n; i++)
    {
        if (!whole)
            _mm512_mask_storeu_epi64(out + 64 * i, part(len, i), s[i]);
        else if (stream)
            _mm512_stream_si512((__m512i *)(out + 64 * i), s[i]);
        else
            _mm512_storeu_si512(out + 64 * i, s[i]);
    }
}

/* ---- a run --------------------------------------------------------------- */

static void fill(struct pipe *p, unsigned buffer, size_t flights)
{
    size_t n = RS_MIN(flights, RS_TWEAK_BASES);
    rs_tweak_bases_avx512(&p->walk[0], p->bases[buffer][0], n);
    rs_tweak_bases_avx512(&p->walk[1], p->bases[buffer][1], n);
}

static size_t flights_of(const struct rs_run *run)
{
    return (run->len + FLIGHT - 1) / FLIGHT;
}

/* Starts the walks of a run and makes its first bases. */
static void begin(struct pipe *p, const struct rs_run *run, unsigned buffer)
{
    rs_tweak_walk_begin(&p->walk[0], &run->src, run->len);
    rs_tweak_walk_begin(&p->walk[1], &run->dst, run->len);
    fill(p, buffer, flights_of(run));
    p->begun = true;
}

/* The tweaks of a first flight that no earlier flight has derived. */
static void prime(struct pipe *p)
{
    for (unsigned side = 0; side < 2; side++)
        if (p->walk[side].key != NULL) derive_all(p->t[p->parity][side], p->bases[p->buffer][side]);
}

/*
 * The whole flights of a run. `next` is the run after it or NULL: its first
 * bases are made in the last bufferful of this one.
 */
INLINE void fly_whole(enum kind kind, bool stream, struct pipe *p, const struct rs_run *run,
                      const struct rs_run *next)
{
    size_t total = flights_of(run), whole = rs_xts_bulk(run->len) / FLIGHT;
    struct flight f = {.src = run->src.key, .dst = run->dst.key};
    unsigned parity = p->parity, buffer = p->buffer;
    for (size_t i = 0; i < whole; i++) {
        size_t at = i % RS_TWEAK_BASES;
        if (at == 0) {
            if (i + RS_TWEAK_BASES < total)
                fill(p, buffer ^ 1, total - i - RS_TWEAK_BASES);
            else if (next != NULL)
                begin(p, next, buffer ^ 1);
        }
        /* After a run's last flight comes the next run's first, if there is one; else what is derived is not
         * used. */
        size_t base = at + 1;
        unsigned from = buffer;
        if (base == RS_TWEAK_BASES || (i == total - 1 && p->begun)) {
            base = 0;
            from = buffer ^ 1;
        }
        f.t1 = p->t[parity][0];
        f.t2 = p->t[parity][1];
        parity ^= 1;
        f.n1 = p->t[parity][0];
        f.n2 = p->t[parity][1];
        f.b1 = &p->bases[from][0][base];
        f.b2 = &p->bases[from][1][base];
        fly(kind, true, stream, VECTORS, &f, run->in + i * FLIGHT, run->out + i * FLIGHT, FLIGHT);
        buffer = from;
    }
    p->parity = parity;
    p->buffer = buffer;
}

/* A flight of less than 512 bytes, or one whose tweaks are in t[parity] already. */
INLINE void fly_part(enum kind kind, struct pipe *p, const struct rs_run *run, size_t at, size_t len)
{
    struct flight f = {
        .src = run->src.key, .dst = run->dst.key, .t1 = p->t[p->parity][0], .t2 = p->t[p->parity][1]};
    if (len <= 128)
        fly(kind, false, false, 2, &f, run->in + at, run->out + at, len);
    else
        fly(kind, false, false, VECTORS, &f, run->in + at, run->out + at, len);
}

static __attribute__((noinline)) void part_of(enum kind kind, struct pipe *p, const struct rs_run *run,
                                              size_t at, size_t len)
{
    switch (kind) {
    case ENCRYPT:
        fly_part(ENCRYPT, p, run, at, len);
        break;
    case DECRYPT:
        fly_part(DECRYPT, p, run, at, len);
        break;
    case RESEAL:
        fly_part(RESEAL, p, run, at, len);
        break;
    }
}

/* The last 17 to 31 bytes; `block` is the first one's place in the flight whose tweaks are in t[parity]. */
static void steal(struct pipe *p, const struct rs_run *run, size_t at, size_t block)
{
    __m128i t[2][2];
    for (unsigned side = 0; side < 2; side++) {
        t[side][0] = _mm_load_si128((const __m128i *)p->t[p->parity][side] + block);
        t[side][1] = rs_xts_next(t[side][0]);
    }
    rs_xts_steal(run->src.key, run->dst.key, t[0], t[1], run->in + at, run->out + at, run->len - at);
    rs_wipe(t, sizeof(t));
}

static void whole_of(enum kind kind, bool stream, struct pipe *p, const struct rs_run *run,
                     const struct rs_run *next)
{
    switch (kind) {
    case ENCRYPT:
        if (stream)
            fly_whole(ENCRYPT, true, p, run, next);
        else
            fly_whole(ENCRYPT, false, p, run, next);
        break;
    case DECRYPT:
        if (stream)
            fly_whole(DECRYPT, true, p, run, next);
        else
            fly_whole(DECRYPT, false, p, run, next);
        break;
    case RESEAL:
        if (stream)
            fly_whole(RESEAL, true, p, run, next);
        else
            fly_whole(RESEAL, false, p, run, next);
        break;
    }
}

static enum kind kind_of(const struct rs_run *run)
{
    return run->src.cipher == RS_PLAIN ? ENCRYPT : run->dst.cipher == RS_PLAIN ? DECRYPT : RESEAL;
}

/* Units of whole flights, or a single one. */
static void run_regular(struct pipe *p, const struct rs_run *run, const struct rs_run *next, bool stream)
{
    size_t bulk = rs_xts_bulk(run->len), whole = bulk / FLIGHT * FLIGHT;
    if (!p->begun) begin(p, run, p->buffer);
    if (!p->primed) prime(p);
    p->begun = false;
    whole_of(kind_of(run), stream && (uintptr_t)run->out % 64 == 0, p, run, next);
    if (bulk != whole) part_of(kind_of(run), p, run, whole, bulk - whole);
    if (bulk != run->len) steal(p, run, bulk, (bulk - whole) / 16);
    /* The last whole flight has derived the next run's tweaks, unless a part came after it. */
    p->primed = p->begun && run->len == whole;
    if (p->begun && !p->primed) p->buffer ^= 1;
}

/* Units that are no whole flights: tweaks one by one. */
static void run_irregular(struct pipe *p, const struct rs_run *run)
{
    size_t bulk = rs_xts_bulk(run->len);
    struct rs_block_walk walk[2];
    rs_block_walk_begin(&walk[0], &run->src);
    rs_block_walk_begin(&walk[1], &run->dst);
    for (size_t at = 0; at < run->len; at += FLIGHT) {
        size_t len = RS_MIN(FLIGHT, run->len - at), done = at < bulk ? RS_MIN(len, bulk - at) : 0;
        for (unsigned side = 0; side < 2; side++) {
            __m128i *t = (__m128i *)p->t[p->parity][side];
            for (size_t i = 0; i < (len + 15) / 16; i++)
                _mm_store_si128(t + i, rs_block_walk_next(&walk[side]));
        }
        if (done != 0) part_of(kind_of(run), p, run, at, done);
        /* A tail that begins here may end in the next flight. */
        if (bulk != run->len && bulk - at < FLIGHT) {
            steal(p, run, bulk, (bulk - at) / 16);
            break;
        }
    }
    rs_wipe(walk, sizeof(walk));
    p->primed = false;
}

static bool side_regular(const struct rs_side *s, size_t len)
{
    return s->cipher == RS_PLAIN || s->unit % FLIGHT == 0 || len <= s->unit;
}

static bool regular(const struct rs_run *run)
{
    return side_regular(&run->src, run->len) && side_regular(&run->dst, run->len);
}

size_t rs_xts_run_avx512(struct rs_run *runs, size_t n, void *scratch, unsigned flags)
{
    size_t failed = 0;
    struct pipe p;
    (void)scratch;
    p.parity = p.buffer = 0;
    p.begun = p.primed = false;
    for (size_t i = 0; i < n; i++) {
        struct rs_run *next = i + 1 < n ? &runs[i + 1] : NULL;
        runs[i].status = rs_xts_check(&runs[i]);
        if (runs[i].status != 0) {
            failed++;
        } else if (regular(&runs[i])) {
            if (next != NULL &&
                (rs_xts_check(next) != 0 || !regular(next) || kind_of(next) != kind_of(&runs[i])))
                next = NULL;
            run_regular(&p, &runs[i], next, flags & RS_RUN_STREAM);
        } else {
            run_irregular(&p, &runs[i]);
        }
    }
    if (flags & RS_RUN_STREAM) _mm_sfence();
    rs_wipe(&p, sizeof(p));
    return failed;
}
