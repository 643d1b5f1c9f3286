/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inner loops of GCM, for any vector width: included by gcm-avx512.c,
 * gcm-avx2.c and gcm-aesni.c after V, LANES and v_*(). No include guard needed.
 *
 * Data moves in flights of eight vectors; two flights are a group, and a group
 * is what one GHASH reduction serves. While a group is encrypted the group
 * before it is hashed, from a private stash and never from memory that a client
 * can write, a quarter of a multiplication after every few AES operations.
 *
 * Each lane hashes its own blocks, by powers of H^LANES that are the same in
 * all lanes; only the end of a record multiplies by lane-specific powers.
 *
 * After two rounds a counter block is A(low byte) xor B(upper bytes). For long
 * records a table of 256 first-epoch blocks, in private memory, replaces those
 * rounds; `delta` is what upper bytes of a later epoch change. The record's
 * first counter is 2, so an epoch's last two blocks carry into the upper bytes.
 */

/* 1 where keys of 192 bits come too: with 12 rounds. */
#ifndef RS_AES_192
#define RS_AES_192 0
#endif

#define INLINE static inline __attribute__((always_inline))

#define FLIGHT       8
#define GROUP        16
#define FLIGHT_BYTES (FLIGHT * LANES * 16u)
#define GROUP_BYTES  (GROUP * LANES * 16u)
#define GROUP_BLOCKS (GROUP * LANES)
#define EPOCH        256u
#define WRAPPED      (LANES == 1 ? 2 : 1) /* vectors at the end of an epoch that hold its last two blocks */

/* The lanes of an epoch's last vectors that hold its last two blocks. */
static const uint64_t wrapped_lanes[LANES][2] = {
#if LANES == 4
    {0, 0},
    {0, 0},
    {~0ull, ~0ull},
    {~0ull, ~0ull},
#elif LANES == 2
    {~0ull, ~0ull},
    {~0ull, ~0ull},
#else
    {~0ull, ~0ull},
#endif
};

#define EACH(M) M(0) M(1) M(2) M(3) M(4) M(5) M(6) M(7)

/* Which sides a kernel has. */
enum kind { SEAL, OPEN, XTS_GCM, GCM_XTS, GCM_GCM };

/*
 * With a GCM source nothing may come out before the tag verified. A record is
 * cut in halves: while the first is worked on, into the scratch, the second's
 * ciphertext is hashed AHEAD and kept in the scratch. Then the tag is known, and
 * the second half, VERIFIED, is worked on from there to its destination, while
 * the first half's result is copied out.
 */
enum mode { ALONE, AHEAD, VERIFIED };

/* One GCM side of the record under work. */
struct gcm {
    V hash;              /* GHASH so far, one sum in each lane */
    V base;              /* IV with counter 0, bytes reversed */
    V delta, delta_last; /* this epoch's, and that of its last vectors */
    V first, delta_one;  /* table[0], and the delta of epoch 1, in every lane */
    const struct rs_vaes_key *key;
    uint8_t table[EPOCH][16] RS_ALIGNED(64);
};

/* A verified first half on its way from the scratch to its destination; whole flights. */
struct copy {
    uint8_t *from;
    uint8_t *to;
    size_t len;
    bool stream; /* non-temporal stores */
    bool wipe;   /* the scratch, as it holds plaintext */
};

/* What a kernel works on; lies in the scratch, so that nothing secret is on the stack by our doing. */
struct frame {
    V stash[3][GROUP]; /* ciphertext waiting to be hashed, bytes reversed */
    struct copy copy;
    V ahead;                 /* GHASH of the second half so far */
    const uint8_t *ahead_in; /* what comes next of it, and where it is kept */
    uint8_t *ahead_keep;
    uint32_t index;       /* blocks done */
    uint32_t xts_flights; /* 512 bytes each, in the record */
    uint32_t parity;      /* which of the stashes that take turns holds the group before */
    bool stream;          /* non-temporal stores */
    struct gcm src, dst;
    V tweaks[FLIGHT]; /* of this flight; secret, as is all from here */
    V later[FLIGHT];  /* the destination's counter blocks before their last round */
    __m128i bases[RS_TWEAK_BASES_ROOM];
    struct rs_tweak_walk walk; /* of the XTS side */
    uint8_t edge_in[GROUP_BYTES + 64] RS_ALIGNED(64);
    uint8_t edge_out[GROUP_BYTES + 64] RS_ALIGNED(64);
};

/* Where a flight's own blocks may be stashed before all of the group before is hashed, two take turns. */
#define STASH(f)         ((f)->stash[0])
#define TURNS(f, parity) ((f)->stash[1 + (parity)])

/* ---- GHASH ---------------------------------------------------------------- */

struct hash {
    V lo, mid, hi, v, p, sum;
    V lo1, hi1, mid1; /* products that wait for a second one, so that one instruction adds both */
    const V *stash;   /* NULL: hashes ahead, from `in`, and keeps what it read */
    const uint8_t *in;
    uint8_t *keep;
    const uint8_t *powers;
};

static const uint64_t ghash_poly[2] RS_ALIGNED(16) = {1, RS_GHASH_POLY};

INLINE V ghash_reduce(V lo, V mid, V hi)
{
    const V poly = v_bcast(ghash_poly);
    mid = v_xor3(mid, v_swap64(lo), v_clmul(lo, poly, 0x10));
    return v_xor3(hi, v_swap64(mid), v_clmul(mid, poly, 0x10));
}

/* Each byte once: the compiler may not load it again. */
INLINE V load_once(const uint8_t *in)
{
    V c = v_loadu(in);
    v_opaque(c);
    return c;
}

INLINE V hash_input(struct hash *h, int j, bool ahead)
{
    if (!ahead) return v_load(&h->stash[j]);
    V c = load_once(h->in + 16 * LANES * j);
    v_store(h->keep + 16 * LANES * j, c);
    return v_reverse(c);
}

/* Quarter q of hashing a group; the last one reduces. */
INLINE void hash_quarter(struct hash *h, int q, bool ahead)
{
    int j = q >> 2;
    V t;
    switch (q & 3) {
    case 0:
        h->v = hash_input(h, j, ahead);
        if (j == 0) h->v = v_xor(h->v, h->sum);
        h->p = v_bcast(h->powers + 16 * LANES * j);
        t = v_clmul(h->v, h->p, 0x00);
        if (j % 2 == 0)
            h->lo1 = t;
        else
            h->lo = j == 1 ? v_xor(h->lo1, t) : v_xor3(h->lo, h->lo1, t);
        break;
    case 1:
        t = v_clmul(h->v, h->p, 0x11);
        if (j % 2 == 0)
            h->hi1 = t;
        else
            h->hi = j == 1 ? v_xor(h->hi1, t) : v_xor3(h->hi, h->hi1, t);
        break;
    case 2:
        h->mid1 = v_clmul(h->v, h->p, 0x01);
        break;
    default:
        t = v_clmul(h->v, h->p, 0x10);
        h->mid = j == 0 ? v_xor(h->mid1, t) : v_xor3(h->mid, h->mid1, t);
        if (j == GROUP - 1) h->sum = ghash_reduce(h->lo, h->mid, h->hi);
        break;
    }
}

/* sum (one block in lane 0, or lane sums when n >= LANES) over n (1 to 64) more blocks; returns lane 0. Bytes
 * after the n-th block are not looked at; `reversed` tells whether the stash or raw data is hashed. */
RS_UNUSED static V ghash_end(const struct rs_vaes_key *key, V sum, const uint8_t *blocks, unsigned n,
                             bool reversed)
{
    const uint8_t *powers = key->ghash[RS_GHASH_AT(n)];
    V lo = v_zero(), mid = v_zero(), hi = v_zero();
    for (unsigned i = 0; i < n; i += LANES) {
        V v = v_load_blocks(blocks + 16 * i, n - i);
        V p = v_load_blocks(powers + 16 * i, n - i);
        if (!reversed) v = v_reverse(v);
        v = v_xor(v, sum);
        sum = v_zero();
        lo = v_xor(lo, v_clmul(v, p, 0x00));
        hi = v_xor(hi, v_clmul(v, p, 0x11));
        mid = v_xor3(mid, v_clmul(v, p, 0x01), v_clmul(v, p, 0x10));
    }
    return v_lane0(v_fold(ghash_reduce(lo, mid, hi)));
}

/* sum (one block in lane 0) times H^n. */
RS_UNUSED static V ghash_skip(const struct rs_vaes_key *key, V sum, size_t n)
{
    for (unsigned i = 0; i < RS_GHASH_SQUARES; i++) {
        if ((n >> i) % 2 == 0) continue;
        V p = v_bcast(key->ghash_squares[i]);
        V mid = v_xor(v_clmul(sum, p, 0x01), v_clmul(sum, p, 0x10));
        sum = ghash_reduce(v_clmul(sum, p, 0x00), mid, v_clmul(sum, p, 0x11));
    }
    return sum;
}

/* ---- rounds, and what is woven into them ----------------------------------- */

/* x^n for n below 32: from a tweak base to the tweaks of its 512 bytes. */
static const uint64_t tweak_powers[32][2] RS_ALIGNED(64) = {
#define POWERS(n)                                                                                            \
    {1ull << (n), 0}, {2ull << (n), 0}, {4ull << (n), 0},                                                    \
    {                                                                                                        \
        8ull << (n), 0                                                                                       \
    }
    POWERS(0), POWERS(4), POWERS(8), POWERS(12), POWERS(16), POWERS(20), POWERS(24), POWERS(28),
#undef POWERS
};
static const uint64_t tweak_fold[2] RS_ALIGNED(16) = {0x87, 0x87};

/* What goes between AES operations. */
struct weave {
    struct hash *hash;  /* NULL: none */
    int at;             /* next quarter */
    struct hash *ahead; /* NULL: none; */
    int ahead_at;       /* else one quarter for each `ahead_every` of the other's */
    int ahead_every;
    V *tweaks; /* NULL: none */
    V base;    /* that the tweaks are derived from, by these powers: */
    const uint8_t *powers;
    const struct copy *copy; /* NULL: none; else the flight at copy->len */
};

/* Tweak i of the flight: base * x^n by three multiplies and a byte shift. */
INLINE void weave_tweak(struct weave *w, int i)
{
    if (w->tweaks == NULL) return;
    V power = v_load(w->powers + 16 * LANES * i);
    V lo = v_clmul(w->base, power, 0x00), hi = v_clmul(w->base, power, 0x01);
    v_store(&w->tweaks[i], v_xor3(lo, v_up64(hi), v_clmul(hi, v_bcast(tweak_fold), 0x01)));
}

INLINE void put(uint8_t *out, V v, bool stream)
{
    if (stream)
        v_stream(out, v);
    else
        v_storeu(out, v);
}

INLINE void weave_copy(struct weave *w, int i)
{
    if (w->copy == NULL) return;
    const struct copy *cp = w->copy;
    uint8_t *from = cp->from + cp->len + 16 * LANES * i;
    put(cp->to + cp->len + 16 * LANES * i, v_load(from), cp->stream);
    if (cp->wipe) v_store(from, v_zero());
}

INLINE void weave_quarter(struct weave *w)
{
    if (w->hash != NULL) hash_quarter(w->hash, w->at, false);
    if (w->ahead != NULL && w->at % w->ahead_every == 0) hash_quarter(w->ahead, w->ahead_at++, true);
    w->at++;
}

INLINE void weave_hash(struct weave *w, int quarters)
{
    if (quarters > 0) weave_quarter(w);
    if (quarters > 1) weave_quarter(w);
}

#define ENC(i) s[i] = v_enc(s[i], k);
#define DEC(i) s[i] = v_dec(s[i], k);

/* One round of eight vectors, with `half` quarters of hashing in the middle and at the end. */
INLINE void round_enc(V s[FLIGHT], const uint8_t key[16], struct weave *w, int half)
{
    V k = v_bcast(key);
    ENC(0) ENC(1) ENC(2) ENC(3) weave_hash(w, half);
    ENC(4) ENC(5) ENC(6) ENC(7) weave_hash(w, half);
}

INLINE void round_dec(V s[FLIGHT], const uint8_t key[16], struct weave *w, int half)
{
    V k = v_bcast(key);
    DEC(0) DEC(1) DEC(2) DEC(3) weave_hash(w, half);
    DEC(4) DEC(5) DEC(6) DEC(7) weave_hash(w, half);
}

/* Rounds 4 to all but the last of a counter block: 12 * half quarters of hashing, all tweaks or all of the
 * copy. */
INLINE void rounds_enc(V s[FLIGHT], const struct rs_vaes_key *key, struct weave *w, int half)
{
#define ROUND(r, i)                                                                                          \
    round_enc(s, key->enc[r], w, half);                                                                      \
    weave_tweak(w, i);                                                                                       \
    weave_copy(w, i);
    ROUND(4, 0)
    ROUND(5, 1)
    ROUND(6, 2)
    ROUND(7, 3)
    ROUND(8, 4)
    ROUND(9, 5)
#undef ROUND
    weave_tweak(w, 6);
    weave_copy(w, 6);
    if (key->rounds > 10) {
        round_enc(s, key->enc[10], w, 0);
        round_enc(s, key->enc[11], w, 0);
        if (!RS_AES_192 || key->rounds > 12) {
            round_enc(s, key->enc[12], w, 0);
            round_enc(s, key->enc[13], w, 0);
        }
    }
    weave_tweak(w, 7);
    weave_copy(w, 7);
}

/* Rounds 1 to all but the last of the XTS side: 18 * half quarters of hashing, all of the copy. */
INLINE void xts_rounds_enc(V s[FLIGHT], const struct rs_vaes_key *key, struct weave *w, int half)
{
    round_enc(s, key->enc[1], w, half);
#define ROUND(r)                                                                                             \
    round_enc(s, key->enc[r], w, half);                                                                      \
    weave_copy(w, r - 2);
    ROUND(2)
    ROUND(3)
    ROUND(4)
    ROUND(5)
    ROUND(6)
    ROUND(7)
    ROUND(8)
    ROUND(9)
#undef ROUND
    if (key->rounds == 14) {
        round_enc(s, key->enc[10], w, 0);
        round_enc(s, key->enc[11], w, 0);
        round_enc(s, key->enc[12], w, 0);
        round_enc(s, key->enc[13], w, 0);
    }
}

/* Rounds 2 to all but the last: 16 * half quarters. */
INLINE void xts_rounds_dec(V s[FLIGHT], const struct rs_vaes_key *key, struct weave *w, int half)
{
#define ROUND(r) round_dec(s, key->dec[r], w, half);
    ROUND(2)
    ROUND(3)
    ROUND(4)
    ROUND(5)
    ROUND(6)
    ROUND(7)
    ROUND(8)
    ROUND(9)
#undef ROUND
    if (key->rounds == 14) {
        round_dec(s, key->dec[10], w, 0);
        round_dec(s, key->dec[11], w, 0);
        round_dec(s, key->dec[12], w, 0);
        round_dec(s, key->dec[13], w, 0);
    }
}

/* ---- counter blocks ------------------------------------------------------- */

static const uint32_t counter_step[FLIGHT][4] RS_ALIGNED(16) = {
    {0}, {LANES}, {2 * LANES}, {3 * LANES}, {4 * LANES}, {5 * LANES}, {6 * LANES}, {7 * LANES},
};

/* Where a flight's counter blocks come from. */
struct start {
    const uint8_t *at; /* table */
    V delta, last;
    V count, k0, k1, k2; /* without one */
    V k3;
};

/* For the flight at block `index`. */
INLINE struct start start_at(const struct gcm *g, uint32_t index, bool table)
{
    const struct rs_vaes_key *key = g->key;
    struct start st = {.k3 = v_bcast(key->enc[3])};
    if (table) {
        st.at = g->table[index % EPOCH];
        st.delta = v_load(&g->delta);
        st.last = index % EPOCH == EPOCH - FLIGHT * LANES ? v_load(&g->delta_last) : st.delta;
    } else {
        st.count = v_add32(g->base, v_count(2 + index));
        st.k0 = v_bcast(key->enc[0]);
        st.k1 = v_bcast(key->enc[1]);
        st.k2 = v_bcast(key->enc[2]);
    }
    return st;
}

/* Vector i of the flight after three rounds. */
INLINE V start_one(const struct start *st, bool table, int i)
{
    V s;
    if (table) {
        s = v_xor(v_load(st->at + 16 * LANES * i), i < FLIGHT - WRAPPED ? st->delta : st->last);
    } else {
        s = v_xor(v_reverse(v_add32(st->count, v_bcast(counter_step[i]))), st->k0);
        s = v_enc(v_enc(s, st->k1), st->k2);
    }
    return v_enc(s, st->k3);
}

INLINE void start_flight(V s[FLIGHT], const struct gcm *g, uint32_t index, bool table)
{
    struct start st = start_at(g, index, table);
#define START(i) s[i] = start_one(&st, table, i);
    EACH(START)
#undef START
}

INLINE V two_rounds(const struct gcm *g, V counters)
{
    V s = v_xor(v_reverse(v_add32(g->base, counters)), v_bcast(g->key->enc[0]));
    s = v_enc(s, v_bcast(g->key->enc[1]));
    return v_enc(s, v_bcast(g->key->enc[2]));
}

/* What the upper counter bytes of an epoch change, against epoch 0; in every lane. */
INLINE V epoch_delta(const struct gcm *g, uint32_t epoch)
{
    return v_xor(two_rounds(g, v_count_same(EPOCH * epoch + 2)), v_load(&g->first));
}

/* When a new epoch is about to start. */
INLINE void table_epoch(struct gcm *g, uint32_t index)
{
    V now = epoch_delta(g, index / EPOCH), next = epoch_delta(g, index / EPOCH + 1);
    V change = v_xor3(now, next, v_load(&g->delta_one));
    v_store(&g->delta, now);
    v_store(&g->delta_last, v_xor(now, v_and(change, v_loadu(wrapped_lanes))));
}

static void table_build(struct gcm *g)
{
    const struct rs_vaes_key *key = g->key;
    const V k0 = v_bcast(key->enc[0]), k1 = v_bcast(key->enc[1]), k2 = v_bcast(key->enc[2]);
    const V step = v_bcast(counter_step[1]);
    V count = v_add32(g->base, v_count(2));
    for (uint32_t i = 0; i < EPOCH; i += LANES) {
        v_store(g->table[i], v_enc(v_enc(v_xor(v_reverse(count), k0), k1), k2));
        count = v_add32(count, step);
    }
    g->first = v_bcast(g->table[0]);
    g->delta_one = epoch_delta(g, 1);
    table_epoch(g, 0);
}

/* ---- flights -------------------------------------------------------------- */

/* The part of the pending copy that goes with one flight. Backwards: what was written last is still in the
 * cache. */
RS_UNUSED static void copy_flight(struct copy *cp)
{
    cp->len -= FLIGHT_BYTES;
    struct weave w = {.copy = cp};
#define COPY(i) weave_copy(&w, i);
    EACH(COPY)
#undef COPY
}

/* Where a flight is: loop variables that should live in registers. */
struct at {
    const uint8_t *in;
    uint8_t *out;
    uint32_t index;
    uint32_t parity;
    struct copy copy;
    V s[FLIGHT];       /* this flight's counter blocks after three rounds */
    struct hash *hash; /* under way, and the one whose first quarters come with the flight's end */
    struct hash *hash_next;
    struct hash *ahead; /* NULL but in mode AHEAD */
    int half;           /* the flight's place in the group */
};

/* The keys' addresses, so that the compiler does not keep round keys (on the stack) across flights. */
INLINE const struct rs_vaes_key *opaque_key(const struct rs_vaes_key *key)
{
    __asm__ volatile("" : "+r"(key));
    return key;
}

/* A flight's first `done` quarters came with the end of the flight before. */
INLINE struct weave weave_begin(const struct at *a, enum kind kind, int done)
{
    int flight = a->half * 32, every = kind == GCM_GCM ? 2 : 1;
    return (struct weave){.hash = a->hash,
                          .at = (kind == GCM_GCM ? 0 : flight) + done,
                          .ahead = a->ahead,
                          .ahead_at = flight + done / every,
                          .ahead_every = every};
}

/* From here on the next flight's. */
INLINE void weave_next(struct weave *w, struct at *a, enum kind kind)
{
    w->hash = a->hash_next;
    w->at = kind == GCM_GCM ? 0 : (a->half ^ 1) * 32;
    w->ahead_at = (a->half ^ 1) * 32;
    if (a->half == 1 && a->ahead != NULL) {
        a->ahead->in += GROUP_BYTES;
        a->ahead->keep += GROUP_BYTES;
    }
}

/* The end of a flight, vector by vector with the start of the next: finished text out and into the stash. */
#define NEXT(i)                                                                                              \
    a->s[i] = start_one(&next, table, i);                                                                    \
    if (i % (8 / quarters) == 8 / quarters - 1) weave_hash(&w, 1);

/* plain to GCM. */
INLINE void flight_SEAL(struct frame *f, struct at *a, bool table, enum mode mode)
{
    (void)mode;
    enum { quarters = 8 };
    const struct rs_vaes_key *key = opaque_key(f->dst.key);
    struct weave w = weave_begin(a, SEAL, quarters);
    rounds_enc(a->s, key, &w, 2);
    struct start next = start_at(&f->dst, a->index + FLIGHT * LANES, table);
    V k = v_bcast(key->enc[key->rounds]), *stash = &STASH(f)[a->half * FLIGHT];
    weave_next(&w, a, SEAL);
#define END(i)                                                                                               \
    {                                                                                                        \
        V c = v_enclast(a->s[i], v_xor(k, v_loadu(a->in + 16 * LANES * i)));                                 \
        put(a->out + 16 * LANES * i, c, f->stream);                                                          \
        v_store(&stash[i], v_reverse(c));                                                                    \
        NEXT(i)                                                                                              \
    }
    EACH(END)
#undef END
}

/* GCM to plain. */
INLINE void flight_OPEN(struct frame *f, struct at *a, bool table, enum mode mode)
{
    enum { quarters = 8 };
    const struct rs_vaes_key *key = opaque_key(f->src.key);
    struct weave w = weave_begin(a, OPEN, quarters);
    if (mode == VERIFIED) w.copy = &a->copy;
    rounds_enc(a->s, key, &w, 2);
    struct start next = start_at(&f->src, a->index + FLIGHT * LANES, table);
    V k = v_bcast(key->enc[key->rounds]), *stash = &STASH(f)[a->half * FLIGHT];
    weave_next(&w, a, OPEN);
#define END(i)                                                                                               \
    {                                                                                                        \
        V c = load_once(a->in + 16 * LANES * i);                                                             \
        put(a->out + 16 * LANES * i, v_enclast(a->s[i], v_xor(k, c)), f->stream);                            \
        if (mode != VERIFIED) v_store(&stash[i], v_reverse(c));                                              \
        NEXT(i)                                                                                              \
    }
    EACH(END)
#undef END
}

/*
 * GCM to GCM: out = in ^ one key stream ^ the other. The key operand of one side's last round takes in the
 * data and the other side's last round key, so that plaintext is in no register. The first flight of a group
 * hashes the source's group before, the second the destination's. A flight begins with the destination's
 * blocks.
 */
INLINE void flight_GCM_GCM(struct frame *f, struct at *a, bool table, enum mode mode)
{
    enum { quarters = 8 };
    const struct rs_vaes_key *from = opaque_key(f->src.key), *to = opaque_key(f->dst.key);
    struct weave w = weave_begin(a, GCM_GCM, quarters);
    rounds_enc(a->s, to, &w, 2);
    struct start next = start_at(&f->src, a->index, table);
#define ASIDE(i)                                                                                             \
    v_store(&f->later[i], a->s[i]);                                                                          \
    NEXT(i)
    EACH(ASIDE)
#undef ASIDE
    if (mode == VERIFIED) w.copy = &a->copy;
    rounds_enc(a->s, from, &w, 2);
    next = start_at(&f->dst, a->index + FLIGHT * LANES, table);
    V k = v_xor(v_bcast(from->enc[from->rounds]), v_bcast(to->enc[to->rounds]));
    V *src = &STASH(f)[a->half * FLIGHT], *dst = &TURNS(f, a->parity)[a->half * FLIGHT];
    weave_next(&w, a, GCM_GCM);
#define END(i)                                                                                               \
    {                                                                                                        \
        V c = load_once(a->in + 16 * LANES * i);                                                             \
        if (mode != VERIFIED) v_store(&src[i], v_reverse(c));                                                \
        c = v_enclast(v_load(&f->later[i]), v_enclast(a->s[i], v_xor(k, c)));                                \
        put(a->out + 16 * LANES * i, c, f->stream);                                                          \
        v_store(&dst[i], v_reverse(c));                                                                      \
        NEXT(i)                                                                                              \
    }
    EACH(END)
#undef END
}

INLINE struct weave weave_xts(struct frame *f, const struct at *a, enum kind kind)
{
    struct weave w = weave_begin(a, kind, 2);
    w.tweaks = f->tweaks;
    w.base = v_bcast(&f->bases[a->index / 32 % RS_TWEAK_BASES]);
    w.powers = (const uint8_t *)tweak_powers[a->index % 32];
    return w;
}

/* XTS to GCM: the last decryption round takes in the tweak and the key of the last counter round. */
INLINE void flight_XTS_GCM(struct frame *f, struct at *a, bool table, enum mode mode)
{
    (void)mode;
    enum { quarters = 2 };
    V s[FLIGHT];
    const struct rs_vaes_key *from = opaque_key(f->walk.key), *to = opaque_key(f->dst.key);
    struct weave w = weave_xts(f, a, XTS_GCM);
    rounds_enc(a->s, to, &w, 1);
    w.tweaks = NULL;
    V k = v_bcast(from->dec[0]), k1 = v_bcast(from->dec[1]);
#define BEGIN(i)                                                                                             \
    v_store(&f->later[i], a->s[i]);                                                                          \
    s[i] = v_dec(v_xor3(v_loadu(a->in + 16 * LANES * i), k, v_load(&f->tweaks[i])), k1);                     \
    if (i % 4 == 3) weave_hash(&w, 1);
    EACH(BEGIN)
#undef BEGIN
    xts_rounds_dec(s, from, &w, 1);
    struct start next = start_at(&f->dst, a->index + FLIGHT * LANES, table);
    k = v_xor(v_bcast(from->dec[from->rounds]), v_bcast(to->enc[to->rounds]));
    V *stash = &STASH(f)[a->half * FLIGHT];
    weave_next(&w, a, XTS_GCM);
#define END(i)                                                                                               \
    {                                                                                                        \
        V c = v_declast(s[i], v_xor(k, v_load(&f->tweaks[i])));                                              \
        c = v_enclast(v_load(&f->later[i]), c);                                                              \
        put(a->out + 16 * LANES * i, c, f->stream);                                                          \
        v_store(&stash[i], v_reverse(c));                                                                    \
        NEXT(i)                                                                                              \
    }
    EACH(END)
#undef END
}

/* GCM to XTS: the last counter round takes in data, tweak and the first XTS round key. */
INLINE void flight_GCM_XTS(struct frame *f, struct at *a, bool table, enum mode mode)
{
    enum { quarters = 2 };
    const struct rs_vaes_key *from = opaque_key(f->src.key), *to = opaque_key(f->walk.key);
    struct weave w = weave_xts(f, a, GCM_XTS);
    rounds_enc(a->s, from, &w, 1);
    w.tweaks = NULL;
    if (mode == VERIFIED) w.copy = &a->copy;
    V k = v_xor(v_bcast(from->enc[from->rounds]), v_bcast(to->enc[0])), *s = a->s;
    V *stash = &TURNS(f, a->parity)[a->half * FLIGHT];
#define BEGIN(i)                                                                                             \
    {                                                                                                        \
        V c = load_once(a->in + 16 * LANES * i);                                                             \
        s[i] = v_enclast(s[i], v_xor3(k, c, v_load(&f->tweaks[i])));                                         \
        if (mode != VERIFIED) v_store(&stash[i], v_reverse(c));                                              \
    }
    EACH(BEGIN)
#undef BEGIN
    xts_rounds_enc(s, to, &w, 1);
    struct start next = start_at(&f->src, a->index + FLIGHT * LANES, table);
    k = v_bcast(to->enc[to->rounds]);
    if (a->half == 1 && a->hash != NULL) a->hash->stash = TURNS(f, a->parity);
    weave_next(&w, a, GCM_XTS);
#define END(i)                                                                                               \
    put(a->out + 16 * LANES * i, v_enclast(s[i], v_xor(k, v_load(&f->tweaks[i]))), f->stream);               \
    NEXT(i)
    EACH(END)
#undef END
}

/* Hashing ahead, a flight stores to two places that are not in the nearest cache: asked for in time, it does
 * not wait for them. (5 % of GCM to XTS.) */
INLINE void ask_ahead(const struct at *a)
{
#define ASK(i)                                                                                               \
    if (16 * LANES * i % 64 == 0) {                                                                          \
        __builtin_prefetch(a->ahead->keep + GROUP_BYTES + 16 * LANES * i, 1);                                \
        __builtin_prefetch(a->out + FLIGHT_BYTES + 16 * LANES * i, 1);                                       \
    }
    EACH(ASK)
#undef ASK
}

/* flight_KIND and the step to the next. */
#define FLY(kind, f, a, table, mode)                                                                         \
    if (mode == AHEAD) ask_ahead(a);                                                                         \
    if (mode == VERIFIED) (a)->copy.len -= FLIGHT_BYTES;                                                     \
    flight_##kind(f, a, table, mode);                                                                        \
    (a)->in += FLIGHT_BYTES;                                                                                 \
    (a)->out += FLIGHT_BYTES;                                                                                \
    (a)->index += FLIGHT * LANES;

/* ---- groups --------------------------------------------------------------- */

#define HAS_SRC(kind) ((kind) == OPEN || (kind) == GCM_XTS || (kind) == GCM_GCM)
#define HAS_DST(kind) ((kind) == SEAL || (kind) == XTS_GCM || (kind) == GCM_GCM)

/* The side whose counter blocks begin a flight. */
#define LEADS(f, kind) (HAS_DST(kind) ? &(f)->dst : &(f)->src)

INLINE void hash_from(struct hash *h, const struct gcm *g, const V *stash)
{
    h->sum = g->hash;
    h->stash = stash;
    h->powers = opaque_key(g->key)->ghash[RS_GHASH_AT(GROUP_BLOCKS)];
}

/* The bases of the next 16 KiB, when the last ones are used up. */
static inline void next_bases(struct frame *f, uint32_t index)
{
    if (index % (32 * RS_TWEAK_BASES) == 0)
        BASES(&f->walk, f->bases, RS_MIN(f->xts_flights - index / 32, RS_TWEAK_BASES));
}

/*
 * A walk over groups, each while the group before is hashed. What it works with
 * are single variables of the caller, so that the compiler finds registers for
 * them: where it is, and the hashes under way (GCM to GCM: `one` the source's,
 * `two` the destination's).
 */

/* NULL when the source is hashed already. */
#define WALK_SRC(one, kind, mode) ((mode) == VERIFIED && HAS_SRC(kind) ? NULL : (one))

INLINE void walk_begin(struct at *a, struct hash *one, struct hash *two, struct hash *ahead, struct frame *f,
                       const uint8_t *in, uint8_t *out, enum kind kind, bool table, enum mode mode)
{
    struct gcm *leads = LEADS(f, kind);
    *a = (struct at){.in = in, .out = out, .index = f->index, .parity = f->parity, .copy = f->copy};
    a->hash = WALK_SRC(one, kind, mode);
    a->hash_next = kind == GCM_GCM ? two : a->hash;
    hash_from(one, kind == GCM_GCM ? &f->src : leads, kind == GCM_XTS ? TURNS(f, a->parity) : STASH(f));
    if (kind == GCM_GCM) hash_from(two, &f->dst, TURNS(f, a->parity));
    if (mode == AHEAD) {
        ahead->sum = f->ahead;
        ahead->in = f->ahead_in;
        ahead->keep = f->ahead_keep;
        ahead->powers = one->powers;
        a->ahead = ahead;
    }
    start_flight(a->s, leads, a->index, table);
    struct weave first = weave_begin(a, kind, 0);
    weave_hash(&first, 2);
    if (kind != XTS_GCM && kind != GCM_XTS) {
        weave_hash(&first, 2);
        weave_hash(&first, 2);
        weave_hash(&first, 2);
    }
}

/* Before the first and the second flight of a group. */
INLINE void walk_first(struct at *a, struct hash *one, struct hash *two, struct frame *f, enum kind kind,
                       bool table, enum mode mode)
{
    if (kind == XTS_GCM || kind == GCM_XTS) next_bases(f, a->index);
    if (kind == GCM_GCM && table && a->index % EPOCH == 0) table_epoch(&f->src, a->index);
    if (kind == GCM_GCM || kind == GCM_XTS) a->parity ^= 1;
    a->half = 0;
    if (kind == GCM_GCM) {
        a->hash = WALK_SRC(one, kind, mode);
        a->hash_next = two;
        two->stash = TURNS(f, a->parity ^ 1);
    }
}

INLINE void walk_second(struct at *a, struct hash *one, struct hash *two, struct frame *f, enum kind kind,
                        bool table, enum mode mode)
{
    uint32_t next = a->index + FLIGHT * LANES;
    /* The group's end is the start of the next one's first blocks. */
    if (table && next % EPOCH == 0) table_epoch(LEADS(f, kind), next);
    a->half = 1;
    if (kind == GCM_GCM) {
        a->hash = two;
        a->hash_next = WALK_SRC(one, kind, mode);
    }
}

INLINE void walk_end(const struct at *a, struct hash *one, const struct hash *two, const struct hash *ahead,
                     struct frame *f, enum kind kind, enum mode mode)
{
    struct gcm *hashed = kind == GCM_GCM ? &f->src : LEADS(f, kind);
    if (WALK_SRC(one, kind, mode) != NULL) hashed->hash = one->sum;
    if (kind == GCM_GCM) f->dst.hash = two->sum;
    if (mode == AHEAD) {
        f->ahead = ahead->sum;
        f->ahead_in = ahead->in;
        f->ahead_keep = ahead->keep;
    }
    f->index = a->index;
    f->parity = a->parity;
    f->copy = a->copy;
}
