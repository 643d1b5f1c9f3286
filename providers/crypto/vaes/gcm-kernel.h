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
    V stash[2][GROUP];   /* ciphertext waiting to be hashed, bytes reversed */
    const struct rs_vaes_key *key;
    uint8_t table[EPOCH][16] RS_ALIGNED(64);
    uint8_t first[16];      /* table[0] */
    uint8_t delta_next[16]; /* of the next epoch */
    uint8_t delta_one[16];  /* of epoch 1 */
};

/* A verified record on its way from the scratch to its destination. */
struct copy {
    const uint8_t *from;
    uint8_t *to;
    size_t len;
};

/* What a kernel works on; lies in the scratch, so that nothing secret is on the stack by our doing. */
struct frame {
    struct gcm src, dst;
    struct copy copy;
    uint32_t index;  /* blocks done */
    uint32_t parity; /* which half of the stash the group before is in (GCM to GCM) */
    bool stream;     /* non-temporal stores */
    bool copy_stream;
    uint8_t edge_in[GROUP_BYTES + 64] RS_ALIGNED(64);
    uint8_t edge_out[GROUP_BYTES + 64] RS_ALIGNED(64);
};

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

INLINE void hash_quarters(struct hash *h, int q, int count)
{
    if (count > 0) hash_quarter(h, q);
    if (count > 1) hash_quarter(h, q + 1);
    if (count > 2) hash_quarter(h, q + 2);
    if (count > 3) hash_quarter(h, q + 3);
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

/* ---- rounds --------------------------------------------------------------- */

#define ENC(i) s[i] = v_enc(s[i], k);
#define DEC(i) s[i] = v_dec(s[i], k);

/* One round of eight vectors, with `half` quarters of hashing in the middle and at the end. */
INLINE void round_enc(V s[FLIGHT], const uint8_t key[16], struct hash *h, int q, int half)
{
    V k = v_bcast(key);
    ENC(0) ENC(1) ENC(2) ENC(3) hash_quarters(h, q, half);
    ENC(4) ENC(5) ENC(6) ENC(7) hash_quarters(h, q + half, half);
}

INLINE void round_dec(V s[FLIGHT], const uint8_t key[16], struct hash *h, int q, int half)
{
    V k = v_bcast(key);
    DEC(0) DEC(1) DEC(2) DEC(3) hash_quarters(h, q, half);
    DEC(4) DEC(5) DEC(6) DEC(7) hash_quarters(h, q + half, half);
}

/* Rounds 3 to all but the last; hashes 14 * half quarters. */
INLINE void rounds_enc(V s[FLIGHT], const struct rs_vaes_key *key, struct hash *h, int q, int half)
{
    round_enc(s, key->enc[3], h, q, half);
    round_enc(s, key->enc[4], h, q + 2 * half, half);
    round_enc(s, key->enc[5], h, q + 4 * half, half);
    round_enc(s, key->enc[6], h, q + 6 * half, half);
    round_enc(s, key->enc[7], h, q + 8 * half, half);
    round_enc(s, key->enc[8], h, q + 10 * half, half);
    round_enc(s, key->enc[9], h, q + 12 * half, half);
    if (key->rounds == 14) {
        round_enc(s, key->enc[10], h, 0, 0);
        round_enc(s, key->enc[11], h, 0, 0);
        round_enc(s, key->enc[12], h, 0, 0);
        round_enc(s, key->enc[13], h, 0, 0);
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
        round_enc(s, g->key->enc[1], NULL, 0, 0);
        round_enc(s, g->key->enc[2], NULL, 0, 0);
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
    for (unsigned i = LANES > 2 ? LANES - 2 : 0; i < LANES; i++)
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
#define STASH(i) v_store(&stash[i], v_reverse(s[i]));
    EACH(STASH)
#undef STASH
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

/* The part of the pending copy that goes with one flight. */
INLINE void copy_flight(struct copy *cp, bool stream)
{
    if (cp->len < FLIGHT_BYTES) return;
    V c[FLIGHT];
    load_flight(c, cp->from);
    store_flight(cp->to, c, stream);
    cp->from += FLIGHT_BYTES;
    cp->to += FLIGHT_BYTES;
    cp->len -= FLIGHT_BYTES;
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
INLINE void flight_seal(struct frame *f, struct at *a, struct hash *h, bool table, int half, bool hashed)
{
    V s[FLIGHT];
    const struct rs_vaes_key *key = opaque_key(f->dst.key);
    int q = half * 32, n = hashed ? 2 : 0;
    counter_start(s, &f->dst, a->index, table);
    hash_quarters(h, q, 2 * n);
    rounds_enc(s, key, h, q + 2 * n, n);
    V k = v_bcast(key->enc[key->rounds]);
#define LAST(i) s[i] = v_enclast(s[i], v_xor(k, v_loadu(a->in + 16 * LANES * i)));
    EACH(LAST)
#undef LAST
    store_flight(a->out, s, f->stream);
    stash_flight(&f->dst.stash[0][half * FLIGHT], s);
}

/* GCM to plain. */
INLINE void flight_open(struct frame *f, struct at *a, struct hash *h, bool table, int half, bool hashed)
{
    V s[FLIGHT], c[FLIGHT];
    const struct rs_vaes_key *key = opaque_key(f->src.key);
    int q = half * 32, n = hashed ? 2 : 0;
    counter_start(s, &f->src, a->index, table);
    hash_quarters(h, q, 2 * n);
    rounds_enc(s, key, h, q + 2 * n, n);
    V k = v_bcast(key->enc[key->rounds]);
    load_flight(c, a->in);
    stash_flight(&f->src.stash[0][half * FLIGHT], c);
#define LAST(i) s[i] = v_enclast(s[i], v_xor(k, c[i]));
    EACH(LAST)
#undef LAST
    copy_flight(&a->copy, f->copy_stream);
    store_flight(a->out, s, f->stream);
}

/* GCM to GCM: out = in ^ one key stream ^ the other; the first flight of a group hashes the source's group
 * before, the second the destination's. */
INLINE void flight_regcm(struct frame *f, struct at *a, struct hash *h, bool table, int half, bool hashed)
{
    V s[FLIGHT], c[FLIGHT];
    const struct rs_vaes_key *key = opaque_key(f->src.key), *to = f->dst.key;
    int n = hashed ? 2 : 0;
    counter_start(s, &f->src, a->index, table);
    hash_quarters(h, 0, 2 * n);
    rounds_enc(s, key, h, 2 * n, n);
    V k = v_xor(v_bcast(key->enc[key->rounds]), v_bcast(to->enc[to->rounds]));
    load_flight(c, a->in);
    stash_flight(&f->src.stash[0][half * FLIGHT], c);
#define LAST(i) c[i] = v_enclast(s[i], v_xor(k, c[i]));
    EACH(LAST)
#undef LAST
    copy_flight(&a->copy, f->copy_stream);
    counter_start(s, &f->dst, a->index, table);
    hash_quarters(h, 32, 2 * n);
    rounds_enc(s, to, h, 32 + 2 * n, n);
#define LAST(i) s[i] = v_enclast(s[i], c[i]);
    EACH(LAST)
#undef LAST
    store_flight(a->out, s, f->stream);
    stash_flight(&f->dst.stash[a->parity][half * FLIGHT], s);
}

INLINE void flight(struct frame *f, struct at *a, enum kind kind, struct hash *h, bool table, int half,
                   bool hashed)
{
    if (kind == SEAL) flight_seal(f, a, h, table, half, hashed);
    if (kind == OPEN) flight_open(f, a, h, table, half, hashed);
    if (kind == GCM_GCM) flight_regcm(f, a, h, table, half, hashed);
    a->in += FLIGHT_BYTES;
    a->out += FLIGHT_BYTES;
    a->index += FLIGHT * LANES;
}

/* ---- groups --------------------------------------------------------------- */

INLINE void hash_from(struct hash *h, const struct gcm *g, unsigned parity)
{
    h->sum = g->hash;
    h->stash = g->stash[parity];
    h->powers = opaque_key(g->key)->ghash[RS_GHASH_AT(GROUP_BLOCKS)];
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
        if (kind == GCM_GCM) {
            a.parity ^= 1;
            hash_from(&h, &f->src, 0);
            flight(f, &a, kind, &h, table, 0, true);
            f->src.hash = h.sum;
            hash_from(&h, &f->dst, a.parity ^ 1);
            flight(f, &a, kind, &h, table, 1, true);
            f->dst.hash = h.sum;
        } else {
            struct gcm *g = kind == SEAL || kind == XTS_GCM ? &f->dst : &f->src;
            hash_from(&h, g, 0);
            flight(f, &a, kind, &h, table, 0, true);
            flight(f, &a, kind, &h, table, 1, true);
            g->hash = h.sum;
        }
    }
    f->index = a.index;
    f->parity = a.parity;
    f->copy = a.copy;
}
