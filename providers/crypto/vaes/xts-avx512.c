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

/* What is known of the flights to come ([0]: source, [1]: destination). Secret; wiped after a batch of runs.
 */
struct pipe {
    __m512i t[2][VECTORS]; /* tweaks of a flight; in whole flights the first side's alone */
    __m128i bases[2][2][RS_TWEAK_BASES_ROOM]; /* [buffer][side] */
    struct rs_tweak_walk walk[2];
    unsigned buffer; /* the one in use now */
    bool begun;  /* the next run's first bases are made: in `buffer` between runs, in the other within one */
    bool primed; /* and t holds its first flight's */
} RS_ALIGNED(64);

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

#define DEC(k) UNROLL for (unsigned i = 0; i < n; i++) s[i] = _mm512_aesdec_epi128(s[i], k)
#define ENC(k) UNROLL for (unsigned i = 0; i < n; i++) s[i] = _mm512_aesenc_epi128(s[i], k)

/*
 * The two passes over n vectors from first to last round. Each derives eight
 * tweak vectors into `fresh` from `base` within its rounds, when there is one,
 * and prefetches a flight of data, when there is some. On the way in, `s` is
 * whitened; the caller does the last round, with the key that is returned.
 */
#define PASS(name, ROUND, schedule)                                                                          \
    INLINE __m512i name(__m512i s[VECTORS], unsigned n, const struct rs_vaes_key *key,                       \
                        __m512i fresh[VECTORS], const __m128i *base, const uint8_t *data)                    \
    {                                                                                                        \
        const uint8_t(*keys)[16] = key->schedule;                                                            \
        __m512i b = base != NULL ? everywhere(base) : _mm512_setzero_si512();                                \
        UNROLL for (unsigned r = 1; r < 10; r++)                                                             \
        {                                                                                                    \
            __m512i k = everywhere(keys[r]);                                                                 \
            ROUND(k);                                                                                        \
            if (base != NULL && r <= VECTORS) fresh[r - 1] = derive(b, r - 1);                               \
            if (data != NULL && r <= VECTORS) _mm_prefetch((const char *)data + 64 * (r - 1), _MM_HINT_T0);  \
        }                                                                                                    \
        if (key->rounds == 14) {                                                                             \
            UNROLL for (unsigned r = 10; r < 14; r++)                                                        \
            {                                                                                                \
                __m512i k = everywhere(keys[r]);                                                             \
                ROUND(k);                                                                                    \
            }                                                                                                \
            keys += 4;                                                                                       \
        }                                                                                                    \
        return everywhere(keys[10]);                                                                         \
    }
PASS(decrypt, DEC, dec)
PASS(encrypt, ENC, enc)

/*
 * A whole flight. `t`: its tweaks on the first side; the next flight's when it
 * returns, from `next`. `second`: with two sides, its base on the second.
 */
INLINE void fly(enum kind kind, bool stream, const struct rs_vaes_key *src, const struct rs_vaes_key *dst,
                __m512i t[VECTORS], const __m128i *second, const __m128i *next, const uint8_t *in,
                uint8_t *out)
{
    __m512i s[VECTORS], u[VECTORS], k = everywhere(HAS_SRC(kind) ? src->dec[0] : dst->enc[0]);
    const uint8_t *data = stream ? in + AHEAD : NULL;
    UNROLL for (unsigned i = 0; i < VECTORS; i++) s[i] = xor3(_mm512_loadu_si512(in + 64 * i), k, t[i]);
    if (kind == RESEAL) {
        k = _mm512_xor_si512(decrypt(s, VECTORS, src, u, second, data), everywhere(dst->enc[0]));
        UNROLL for (unsigned i = 0; i < VECTORS; i++) s[i] =
            _mm512_aesdeclast_epi128(s[i], xor3(k, t[i], u[i]));
        k = encrypt(s, VECTORS, dst, t, next, NULL);
        UNROLL for (unsigned i = 0; i < VECTORS; i++) s[i] =
            _mm512_aesenclast_epi128(s[i], _mm512_xor_si512(k, u[i]));
    } else if (kind == DECRYPT) {
        k = decrypt(s, VECTORS, src, u, next, data);
        UNROLL for (unsigned i = 0; i < VECTORS; i++) s[i] =
            _mm512_aesdeclast_epi128(s[i], _mm512_xor_si512(k, t[i]));
    } else {
        k = encrypt(s, VECTORS, dst, u, next, data);
        UNROLL for (unsigned i = 0; i < VECTORS; i++) s[i] =
            _mm512_aesenclast_epi128(s[i], _mm512_xor_si512(k, t[i]));
    }
    UNROLL for (unsigned i = 0; i < VECTORS; i++)
    {
        if (stream)
            _mm512_stream_si512((__m512i *)(out + 64 * i), s[i]);
        else
            _mm512_storeu_si512(out + 64 * i, s[i]);
        if (kind != RESEAL) t[i] = u[i];
    }
}

/* Which bytes of a vector there are in the first `len` of a flight. */
INLINE __mmask8 part(size_t len, unsigned i)
{
    size_t at = 64 * i;
    return len >= at + 64 ? 0xff : len <= at ? 0 : (__mmask8)((1u << ((len - at) / 8)) - 1);
}

/* The first `len` bytes of a flight, at most n vectors, with given tweaks. */
INLINE void fly_part(enum kind kind, unsigned n, const struct rs_run *run, size_t offset, size_t len,
                     const __m512i t[2][VECTORS])
{
    const struct rs_vaes_key *src = run->src.key, *dst = run->dst.key;
    __m512i s[VECTORS], k = everywhere(HAS_SRC(kind) ? src->dec[0] : dst->enc[0]);
    const uint8_t *in = run->in + offset;
    uint8_t *out = run->out + offset;
    UNROLL for (unsigned i = 0; i < n; i++) s[i] =
        xor3(_mm512_maskz_loadu_epi64(part(len, i), in + 64 * i), k, t[HAS_SRC(kind) ? 0 : 1][i]);
    if (HAS_SRC(kind)) {
        k = decrypt(s, n, src, NULL, NULL, NULL);
        if (HAS_DST(kind)) k = _mm512_xor_si512(k, everywhere(dst->enc[0]));
        UNROLL for (unsigned i = 0; i < n; i++)
        {
            __m512i last = HAS_DST(kind) ? xor3(k, t[0][i], t[1][i]) : _mm512_xor_si512(k, t[0][i]);
            s[i] = _mm512_aesdeclast_epi128(s[i], last);
        }
    }
    if (HAS_DST(kind)) {
        k = encrypt(s, n, dst, NULL, NULL, NULL);
        UNROLL for (unsigned i = 0; i < n; i++) s[i] =
            _mm512_aesenclast_epi128(s[i], _mm512_xor_si512(k, t[1][i]));
    }
    UNROLL for (unsigned i = 0; i < n; i++) _mm512_mask_storeu_epi64(out + 64 * i, part(len, i), s[i]);
}

static __attribute__((noinline)) void part_of(enum kind kind, const struct rs_run *run, size_t at, size_t len,
                                              const __m512i t[2][VECTORS])
{
    bool few = len <= 128;
    if (kind == ENCRYPT && few) fly_part(ENCRYPT, 2, run, at, len, t);
    if (kind == ENCRYPT && !few) fly_part(ENCRYPT, VECTORS, run, at, len, t);
    if (kind == DECRYPT && few) fly_part(DECRYPT, 2, run, at, len, t);
    if (kind == DECRYPT && !few) fly_part(DECRYPT, VECTORS, run, at, len, t);
    if (kind == RESEAL && few) fly_part(RESEAL, 2, run, at, len, t);
    if (kind == RESEAL && !few) fly_part(RESEAL, VECTORS, run, at, len, t);
}

/* ---- a run --------------------------------------------------------------- */

static enum kind kind_of(const struct rs_run *run)
{
    return run->src.cipher == RS_PLAIN ? ENCRYPT : run->dst.cipher == RS_PLAIN ? DECRYPT : RESEAL;
}

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

/* The tweaks of a first flight that no earlier one has derived. */
static void prime(struct pipe *p, enum kind kind)
{
    unsigned first = HAS_SRC(kind) ? 0 : 1;
    derive_all(p->t[first], p->bases[p->buffer][first]);
}

/*
 * The whole flights of a run, up to 32 at a time: t[0] lives in registers
 * within them. `next` is the run after it or NULL: its first bases are made in
 * the last bufferful of this one, and its first tweaks derived at the end.
 */
INLINE void fly_whole(enum kind kind, bool stream, struct pipe *p, const struct rs_run *run,
                      const struct rs_run *next)
{
    const struct rs_vaes_key *src = run->src.key, *dst = run->dst.key;
    const unsigned first = HAS_SRC(kind) ? 0 : 1;
    size_t total = flights_of(run), whole = rs_xts_bulk(run->len) / FLIGHT;
    for (size_t done = 0; done < whole; done += RS_TWEAK_BASES) {
        size_t n = RS_MIN(whole - done, RS_TWEAK_BASES), in_buffer = RS_MIN(total - done, RS_TWEAK_BASES);
        unsigned buffer = p->buffer;
        if (total - done > RS_TWEAK_BASES)
            fill(p, buffer ^ 1, total - done - RS_TWEAK_BASES);
        else if (next != NULL)
            begin(p, next, buffer ^ 1);
        /* After the last of a buffer comes the first of the other one, be it of this run or of the next. */
        p->bases[buffer][first][in_buffer] = p->bases[buffer ^ 1][first][0];

        const __m128i *base = p->bases[buffer][first], *second = p->bases[buffer][1];
        const uint8_t *in = run->in + done * FLIGHT;
        uint8_t *out = run->out + done * FLIGHT;
        __m512i t[VECTORS];
        UNROLL for (unsigned i = 0; i < VECTORS; i++) t[i] = p->t[first][i];
        for (size_t i = 0; i < n; i++)
            fly(kind, stream, src, dst, t, &second[i], &base[i + 1], in + i * FLIGHT, out + i * FLIGHT);
        UNROLL for (unsigned i = 0; i < VECTORS; i++) p->t[first][i] = t[i];
        if (n == RS_TWEAK_BASES) p->buffer ^= 1;
    }
}

static void whole_of(enum kind kind, bool stream, struct pipe *p, const struct rs_run *run,
                     const struct rs_run *next)
{
    if (kind == ENCRYPT && stream) fly_whole(ENCRYPT, true, p, run, next);
    if (kind == ENCRYPT && !stream) fly_whole(ENCRYPT, false, p, run, next);
    if (kind == DECRYPT && stream) fly_whole(DECRYPT, true, p, run, next);
    if (kind == DECRYPT && !stream) fly_whole(DECRYPT, false, p, run, next);
    if (kind == RESEAL && stream) fly_whole(RESEAL, true, p, run, next);
    if (kind == RESEAL && !stream) fly_whole(RESEAL, false, p, run, next);
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
    size_t bulk = rs_xts_bulk(run->len), flights = bulk / FLIGHT, whole = flights * FLIGHT;
    if (!p->begun) begin(p, run, p->buffer);
    if (!p->primed) prime(p, kind);
    p->begun = false;
    whole_of(kind, stream && (uintptr_t)run->out % 64 == 0, p, run, next);
    if (run->len != whole) {
        if (kind == RESEAL) derive_all(p->t[1], &p->bases[p->buffer][1][flights % RS_TWEAK_BASES]);
        if (bulk != whole) part_of(kind, run, whole, bulk - whole, p->t);
        if (bulk != run->len) steal(p, run, bulk, (bulk - whole) / 16);
    }
    /* The last whole flight has derived the next run's tweaks, unless a part came after it. */
    p->primed = p->begun && run->len == whole;
    if (p->begun && flights % RS_TWEAK_BASES != 0) p->buffer ^= 1;
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
            __m128i *t = (__m128i *)p->t[side];
            for (size_t i = 0; i < (len + 15) / 16; i++)
                _mm_store_si128(t + i, rs_block_walk_next(&walk[side]));
        }
        if (done != 0) part_of(kind_of(run), run, at, done, p->t);
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

size_t rs_xts_run_avx512(struct rs_run *runs, size_t n, void *scratch, unsigned flags)
{
    size_t failed = 0;
    struct pipe p;
    (void)scratch;
    p.buffer = 0;
    p.begun = p.primed = false;
    p.bases[1][0][0] = p.bases[1][1][0] = _mm_setzero_si128();
    for (struct rs_run *run = runs; run < runs + n; run++) {
        run->status = rs_xts_check(run);
        if (run->status != 0)
            failed++;
        else if (regular(run))
            run_regular(&p, run, successor(run, runs + n), flags & RS_RUN_STREAM);
        else
            run_irregular(&p, run);
    }
    if (flags & RS_RUN_STREAM) _mm_sfence();
    rs_xts_forget_avx512(&p, sizeof(p));
    return failed;
}
