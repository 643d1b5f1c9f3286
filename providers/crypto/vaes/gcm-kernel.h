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

#define INLINE static inline __attribute__((always_inline))

#define FLIGHT       8
#define GROUP        16
#define FLIGHT_BYTES (FLIGHT * LANES * 16u)
#define GROUP_BYTES  (GROUP * LANES * 16u)
#define GROUP_BLOCKS (GROUP * LANES)
#define EPOCH        256u
#define WRAPPED      (LANES == 1 ? 2 : 1) /* vectors at the end of an epoch that hold its last two blocks */

#define EACH(M) M(0) M(1) M(2) M(3) M(4) M(5) M(6) M(7)

/* Which sides a kernel has. */
enum kind { SEAL, OPEN, XTS_GCM, GCM_XTS, GCM_GCM };

/* One GCM side of the record under work. */
struct gcm {
    V hash;              /* GHASH so far, one sum in each lane */
    V base;              /* IV with counter 0, bytes reversed */
    V delta, delta_last; /* this epoch's, and that of its last vectors */
    const struct rs_vaes_key *key;
    uint8_t first[16];      /* table[0] */
    uint8_t delta_next[16]; /* of the next epoch */
    uint8_t delta_one[16];  /* of epoch 1 */
    uint8_t table[EPOCH][16] RS_ALIGNED(64);
};

/* A verified record on its way from the scratch to its destination; whole flights. */
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
    const V *stash;
    const uint8_t *powers;
};

static const uint64_t ghash_poly[2] RS_ALIGNED(16) = {1, RS_GHASH_POLY};

INLINE V ghash_reduce(V lo, V mid, V hi)
{
    const V poly = v_bcast(ghash_poly);
    mid = v_xor3(mid, v_swap64(lo), v_clmul(lo, poly, 0x10));
    return v_xor3(hi, v_swap64(mid), v_clmul(mid, poly, 0x10));
}

/* Quarter q of hashing a group; the last one reduces. */
INLINE void hash_quarter(struct hash *h, int q)
{
    int j = q >> 2;
    V t;
    if (q >= 4 * GROUP) return;
    switch (q & 3) {
    case 0:
        h->v = v_load(&h->stash[j]);
        if (j == 0) h->v = v_xor(h->v, h->sum);
        h->p = v_bcast(h->powers + 16 * LANES * j);
        t = v_clmul(h->v, h->p, 0x00);
        h->lo = j == 0 ? t : v_xor(h->lo, t);
        break;
    case 1:
        t = v_clmul(h->v, h->p, 0x11);
        h->hi = j == 0 ? t : v_xor(h->hi, t);
        break;
    case 2:
        t = v_clmul(h->v, h->p, 0x01);
        h->mid = j == 0 ? t : v_xor(h->mid, t);
        break;
    default:
        t = v_clmul(h->v, h->p, 0x10);
        h->mid = v_xor(h->mid, t);
        if (j == GROUP - 1) h->sum = ghash_reduce(h->lo, h->mid, h->hi);
        break;
    }
}

/* sum (one block in lane 0, or lane sums when n >= LANES) over n (1 to 64) more blocks; returns lane 0. Bytes
 * after the n-th block are not looked at; `reversed` tells whether the stash or raw data is hashed. */
static V ghash_end(const struct rs_vaes_key *key, V sum, const uint8_t *blocks, unsigned n, bool reversed)
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

struct weave {
    struct hash *hash; /* NULL: none */
    int at;            /* next quarter */
    V *tweaks;         /* NULL: none */
    V base;
    const uint8_t *powers;
};

/* Tweak i of the flight: base * x^n by three multiplies and a byte shift. */
INLINE void weave_tweak(struct weave *w, int i)
{
    if (w->tweaks == NULL) return;
    V power = v_load(w->powers + 16 * LANES * i);
    V lo = v_clmul(w->base, power, 0x00), hi = v_clmul(w->base, power, 0x01);
    v_store(&w->tweaks[i], v_xor3(lo, v_up64(hi), v_clmul(hi, v_bcast(tweak_fold), 0x01)));
}

INLINE void weave_hash(struct weave *w, int quarters)
{
    if (w->hash == NULL) return;
    if (quarters > 0) hash_quarter(w->hash, w->at);
    if (quarters > 1) hash_quarter(w->hash, w->at + 1);
    if (quarters > 2) hash_quarter(w->hash, w->at + 2);
    if (quarters > 3) hash_quarter(w->hash, w->at + 3);
    w->at += quarters;
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

/* Rounds 3 to all but the last; hashes 14 * half quarters and makes the tweaks. */
INLINE void rounds_enc(V s[FLIGHT], const struct rs_vaes_key *key, struct weave *w, int half)
{
#define ROUND(r)                                                                                             \
    round_enc(s, key->enc[r], w, half);                                                                      \
    weave_tweak(w, r - 3);
    ROUND(3)
    ROUND(4)
    ROUND(5)
    ROUND(6) ROUND(7) ROUND(8) ROUND(9)
#undef ROUND
        weave_tweak(w, 7);
    if (key->rounds == 14) {
        round_enc(s, key->enc[10], w, 0);
        round_enc(s, key->enc[11], w, 0);
        round_enc(s, key->enc[12], w, 0);
        round_enc(s, key->enc[13], w, 0);
    }
}

/* Rounds 1 to all but the last of the XTS side; hashes 18 * half quarters. */
INLINE void xts_rounds_enc(V s[FLIGHT], const struct rs_vaes_key *key, struct weave *w, int half)
{
#define ROUND(r) round_enc(s, key->enc[r], w, half);
    ROUND(1)
    ROUND(2)
    ROUND(3)
    ROUND(4) ROUND(5) ROUND(6) ROUND(7) ROUND(8) ROUND(9)
#undef ROUND
        if (key->rounds == 14)
    {
        round_enc(s, key->enc[10], w, 0);
        round_enc(s, key->enc[11], w, 0);
        round_enc(s, key->enc[12], w, 0);
        round_enc(s, key->enc[13], w, 0);
    }
}

INLINE void xts_rounds_dec(V s[FLIGHT], const struct rs_vaes_key *key, struct weave *w, int half)
{
#define ROUND(r) round_dec(s, key->dec[r], w, half);
    ROUND(1)
    ROUND(2)
    ROUND(3)
    ROUND(4) ROUND(5) ROUND(6) ROUND(7) ROUND(8) ROUND(9)
#undef ROUND
        if (key->rounds == 14)
    {
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

/* Counter blocks after two rounds. */
INLINE void counter_start(V s[FLIGHT], const struct gcm *g, uint32_t index, bool table)
{
    if (table) {
        const uint8_t *at = g->table[index % EPOCH];
        V d = v_load(&g->delta);
        V last = index % EPOCH == EPOCH - FLIGHT * LANES ? v_load(&g->delta_last) : d;
#define START(i) s[i] = v_xor(v_load(at + 16 * LANES * i), i < FLIGHT - WRAPPED ? d : last);
        EACH(START)
#undef START
    } else {
        V c = v_add32(g->base, v_count(2 + index)), k = v_bcast(g->key->enc[0]);
#define START(i) s[i] = v_xor(v_reverse(v_add32(c, v_bcast(counter_step[i]))), k);
        EACH(START)
#undef START
        struct weave none = {0};
        round_enc(s, g->key->enc[1], &none, 0);
        round_enc(s, g->key->enc[2], &none, 0);
    }
}

static V two_rounds(const struct gcm *g, uint32_t counter)
{
    V s = v_xor(v_reverse(v_add32(g->base, v_count(counter))), v_bcast(g->key->enc[0]));
    s = v_enc(s, v_bcast(g->key->enc[1]));
    return v_enc(s, v_bcast(g->key->enc[2]));
}

static void xor_block(uint8_t out[16], const uint8_t a[16], const uint8_t b[16])
{
    _mm_storeu_si128((__m128i *)(void *)out,
                     _mm_xor_si128(_mm_loadu_si128((const __m128i *)(const void *)a),
                                   _mm_loadu_si128((const __m128i *)(const void *)b)));
}

/* What the upper counter bytes of an epoch change, against epoch 0. */
static void epoch_delta(const struct gcm *g, uint32_t epoch, uint8_t delta[16])
{
    V s[1] = {two_rounds(g, EPOCH * epoch + 2)};
    xor_block(delta, (const uint8_t *)s, g->first);
}

static void table_build(struct gcm *g)
{
    for (uint32_t i = 0; i < EPOCH; i += LANES) v_store(g->table[i], two_rounds(g, 2 + i));
    memcpy(g->first, g->table[0], 16);
    epoch_delta(g, 1, g->delta_one);
    memset(g->delta_next, 0, 16);
}

/* At the start of an epoch. */
static __attribute__((noinline)) void table_epoch(struct gcm *g, uint32_t index)
{
    uint8_t last[LANES][16];
    g->delta = v_bcast(g->delta_next);
    for (unsigned i = 0; i < LANES; i++) memcpy(last[i], g->delta_next, 16);
    epoch_delta(g, index / EPOCH + 1, g->delta_next);
    for (unsigned i = LANES > 2 ? LANES - 2u : 0; i < LANES; i++)
        xor_block(last[i], g->delta_next, g->delta_one);
    g->delta_last = v_loadu(last);
}

/* ---- flights -------------------------------------------------------------- */

INLINE void store_flight(uint8_t *out, const V s[FLIGHT], bool stream)
{
#define STREAM(i) v_stream(out + 16 * LANES * i, s[i]);
#define STORE(i)  v_storeu(out + 16 * LANES * i, s[i]);
    if (stream) {
        EACH(STREAM)
    } else {
        EACH(STORE)
    }
#undef STREAM
#undef STORE
}

INLINE void stash_flight(V *stash, const V s[FLIGHT])
{
#define KEEP(i) v_store(&stash[i], v_reverse(s[i]));
    EACH(KEEP)
#undef KEEP
}

/* Counter blocks that wait for the other side's data: in the frame, there are not registers for both. */
INLINE void set_aside(struct frame *f, const V s[FLIGHT])
{
#define ASIDE(i) v_store(&f->later[i], s[i]);
    EACH(ASIDE)
#undef ASIDE
}

/* Loads each byte once: the compiler may not load it again. */
INLINE void load_flight(V c[FLIGHT], const uint8_t *in)
{
#define LOAD(i)                                                                                              \
    c[i] = v_loadu(in + 16 * LANES * i);                                                                     \
    v_opaque(c[i]);
    EACH(LOAD)
#undef LOAD
}

/* The part of the pending copy that goes with one flight. Backwards: what was written last is still in the
 * cache. */
INLINE void copy_flight(struct copy *cp)
{
    if (cp->len < FLIGHT_BYTES) return;
    V c[FLIGHT];
    cp->len -= FLIGHT_BYTES;
    load_flight(c, cp->from + cp->len);
    store_flight(cp->to + cp->len, c, cp->stream);
    if (cp->wipe) {
        const V zero = v_zero();
#define WIPE(i) v_store(cp->from + cp->len + 16 * LANES * i, zero);
        EACH(WIPE)
#undef WIPE
    }
}

/* Where a flight is: loop variables that should live in registers. */
struct at {
    const uint8_t *in;
    uint8_t *out;
    uint32_t index;
    uint32_t parity;
    struct copy copy;
};

/* The keys' addresses, so that the compiler does not keep round keys (on the stack) across flights. */
INLINE const struct rs_vaes_key *opaque_key(const struct rs_vaes_key *key)
{
    __asm__ volatile("" : "+r"(key));
    return key;
}

/* plain to GCM. `half` is the flight's place in the group. */
INLINE void flight_seal(struct frame *f, struct at *a, struct hash *h, bool table, int half)
{
    V s[FLIGHT];
    const struct rs_vaes_key *key = opaque_key(f->dst.key);
    struct weave w = {.hash = h, .at = half * 32};
    counter_start(s, &f->dst, a->index, table);
    weave_hash(&w, 4);
    rounds_enc(s, key, &w, 2);
    V k = v_bcast(key->enc[key->rounds]);
#define LAST(i) s[i] = v_enclast(s[i], v_xor(k, v_loadu(a->in + 16 * LANES * i)));
    EACH(LAST)
#undef LAST
    store_flight(a->out, s, f->stream);
    stash_flight(&STASH(f)[half * FLIGHT], s);
}

/* GCM to plain. */
INLINE void flight_open(struct frame *f, struct at *a, struct hash *h, bool table, int half)
{
    V s[FLIGHT], c[FLIGHT];
    const struct rs_vaes_key *key = opaque_key(f->src.key);
    struct weave w = {.hash = h, .at = half * 32};
    counter_start(s, &f->src, a->index, table);
    weave_hash(&w, 4);
    rounds_enc(s, key, &w, 2);
    V k = v_bcast(key->enc[key->rounds]);
    load_flight(c, a->in);
    stash_flight(&STASH(f)[half * FLIGHT], c);
#define LAST(i) s[i] = v_enclast(s[i], v_xor(k, c[i]));
    EACH(LAST)
#undef LAST
    copy_flight(&a->copy);
    store_flight(a->out, s, f->stream);
}

/*
 * GCM to GCM: out = in ^ one key stream ^ the other. The key operand of one side's last round takes in the
 * data and the other side's last round key, so that plaintext is in no register. The first flight of a group
 * hashes the source's group before, the second the destination's.
 */
INLINE void flight_regcm(struct frame *f, struct at *a, struct hash *h, bool table, int half)
{
    V s[FLIGHT], c[FLIGHT];
    const struct rs_vaes_key *from = opaque_key(f->src.key), *to = opaque_key(f->dst.key);
    struct weave w = {.hash = h};
    counter_start(s, &f->dst, a->index, table);
    weave_hash(&w, 4);
    rounds_enc(s, to, &w, 2);
    set_aside(f, s);
    counter_start(s, &f->src, a->index, table);
    weave_hash(&w, 4);
    rounds_enc(s, from, &w, 2);
    V k = v_xor(v_bcast(from->enc[from->rounds]), v_bcast(to->enc[to->rounds]));
    load_flight(c, a->in);
    stash_flight(&STASH(f)[half * FLIGHT], c);
#define LAST(i) s[i] = v_enclast(v_load(&f->later[i]), v_enclast(s[i], v_xor(k, c[i])));
    EACH(LAST)
#undef LAST
    copy_flight(&a->copy);
    store_flight(a->out, s, f->stream);
    stash_flight(&TURNS(f, a->parity)[half * FLIGHT], s);
}

INLINE struct weave weave_xts(struct frame *f, const struct at *a, struct hash *h, int half)
{
    return (struct weave){.hash = h,
                          .at = half * 32,
                          .tweaks = f->tweaks,
                          .base = v_bcast(&f->bases[a->index / 32 % RS_TWEAK_BASES]),
                          .powers = (const uint8_t *)tweak_powers[a->index % 32]};
}

/* XTS to GCM: the last decryption round takes in the tweak and the key of the last counter round. */
INLINE void flight_xts_gcm(struct frame *f, struct at *a, struct hash *h, bool table, int half)
{
    V s[FLIGHT];
    const struct rs_vaes_key *from = opaque_key(f->walk.key), *to = opaque_key(f->dst.key);
    struct weave w = weave_xts(f, a, h, half);
    counter_start(s, &f->dst, a->index, table);
    rounds_enc(s, to, &w, 1);
    set_aside(f, s);
    V k = v_bcast(from->dec[0]);
#define FIRST(i) s[i] = v_xor3(v_loadu(a->in + 16 * LANES * i), k, v_load(&f->tweaks[i]));
    EACH(FIRST)
#undef FIRST
    w.tweaks = NULL;
    xts_rounds_dec(s, from, &w, 1);
    k = v_xor(v_bcast(from->dec[from->rounds]), v_bcast(to->enc[to->rounds]));
#define LAST(i) s[i] = v_enclast(v_load(&f->later[i]), v_declast(s[i], v_xor(k, v_load(&f->tweaks[i]))));
    EACH(LAST)
#undef LAST
    store_flight(a->out, s, f->stream);
    stash_flight(&STASH(f)[half * FLIGHT], s);
}

/* GCM to XTS: the last counter round takes in data, tweak and the first XTS round key. */
INLINE void flight_gcm_xts(struct frame *f, struct at *a, struct hash *h, bool table, int half)
{
    V s[FLIGHT], c[FLIGHT];
    const struct rs_vaes_key *from = opaque_key(f->src.key), *to = opaque_key(f->walk.key);
    struct weave w = weave_xts(f, a, h, half);
    counter_start(s, &f->src, a->index, table);
    rounds_enc(s, from, &w, 1);
    V k = v_xor(v_bcast(from->enc[from->rounds]), v_bcast(to->enc[0]));
    load_flight(c, a->in);
    stash_flight(&TURNS(f, a->parity)[half * FLIGHT], c);
#define LAST(i) s[i] = v_enclast(s[i], v_xor3(k, c[i], v_load(&f->tweaks[i])));
    EACH(LAST)
#undef LAST
    copy_flight(&a->copy);
    w.tweaks = NULL;
    xts_rounds_enc(s, to, &w, 1);
    k = v_bcast(to->enc[to->rounds]);
#define LAST(i) s[i] = v_enclast(s[i], v_xor(k, v_load(&f->tweaks[i])));
    EACH(LAST)
#undef LAST
    store_flight(a->out, s, f->stream);
}

INLINE void flight(struct frame *f, struct at *a, enum kind kind, struct hash *h, bool table, int half)
{
    if (kind == SEAL) flight_seal(f, a, h, table, half);
    if (kind == OPEN) flight_open(f, a, h, table, half);
    if (kind == XTS_GCM) flight_xts_gcm(f, a, h, table, half);
    if (kind == GCM_XTS) flight_gcm_xts(f, a, h, table, half);
    if (kind == GCM_GCM) flight_regcm(f, a, h, table, half);
    a->in += FLIGHT_BYTES;
    a->out += FLIGHT_BYTES;
    a->index += FLIGHT * LANES;
}

/* ---- groups --------------------------------------------------------------- */

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

/* n groups, each while the group before is hashed. */
INLINE void groups(struct frame *f, const uint8_t *in, uint8_t *out, size_t n, enum kind kind, bool table)
{
    struct at a = {in, out, f->index, f->parity, f->copy};
    for (; n > 0; n--) {
        struct hash h;
        if (table && a.index % EPOCH == 0) {
            if (kind != SEAL && kind != XTS_GCM) table_epoch(&f->src, a.index);
            if (kind != OPEN && kind != GCM_XTS) table_epoch(&f->dst, a.index);
        }
        if (kind == XTS_GCM || kind == GCM_XTS) next_bases(f, a.index);
        if (kind == GCM_GCM) {
            a.parity ^= 1;
            hash_from(&h, &f->src, STASH(f));
            flight(f, &a, kind, &h, table, 0);
            f->src.hash = h.sum;
            hash_from(&h, &f->dst, TURNS(f, a.parity ^ 1));
            flight(f, &a, kind, &h, table, 1);
            f->dst.hash = h.sum;
        } else {
            bool sealed = kind == SEAL || kind == XTS_GCM;
            struct gcm *g = sealed ? &f->dst : &f->src;
            a.parity ^= kind == GCM_XTS;
            hash_from(&h, g, kind == GCM_XTS ? TURNS(f, a.parity ^ 1) : STASH(f));
            flight(f, &a, kind, &h, table, 0);
            flight(f, &a, kind, &h, table, 1);
            g->hash = h.sum;
        }
    }
    f->index = a.index;
    f->parity = a.parity;
    f->copy = a.copy;
}
