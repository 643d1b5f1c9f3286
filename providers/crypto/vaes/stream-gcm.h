/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streaming GCM, for any vector width: included by stream-gcm-avx512.c,
 * stream-gcm-avx2.c and stream-gcm-aesni.c after their vectors and the names of
 * the functions. No include guard needed.
 *
 * The hash in a state is kept one multiplication ahead: Z = Y * H. Then the tag
 * needs only Z + lengths * H, whose second half waits for nothing; and a block
 * that is not complete is hashed with zeros in place of what is to come, which
 * is added when it comes (the last block's part of Z is block * H^2). So nothing
 * waits unhashed. m more blocks X make Z * H^m + sum of X[j] * H^(m - j + 2).
 *
 * Long text goes in groups through the flights of gcm-kernel.h; the rest in
 * batches of up to eight vectors, as many as it needs, the block that masks the
 * tag in a lane that would be idle.
 */

#define RS_AES_192         1
#define BASES(w, bases, n) ((void)(n)) /* no XTS side here */
#include "providers/crypto/vaes/gcm-kernel.h"

#define VECTOR_BYTES (16u * LANES)
#define BATCH        FLIGHT /* vectors */
#define BATCH_BYTES  (BATCH * VECTOR_BYTES)
#define BULK_FROM    (LANES == 1 ? 4096u : 2048u) /* shorter text is not worth the groups' start and end */

INLINE const uint8_t *powers_from(const struct rs_vaes_key *key, size_t n)
{
    return &key->ghash[0][0] + 16 * RS_GHASH_AT(n);
}

/* ---- hashing --------------------------------------------------------------- */

struct products {
    V lo, mid, hi;
};

/* t += v * p; the first one begins the sum. */
INLINE void multiply_add(struct products *t, V v, V p, bool first)
{
    V lo = v_clmul(v, p, 0x00), hi = v_clmul(v, p, 0x11);
    V m0 = v_clmul(v, p, 0x01), m1 = v_clmul(v, p, 0x10);
    t->lo = first ? lo : v_xor(t->lo, lo);
    t->hi = first ? hi : v_xor(t->hi, hi);
    t->mid = first ? v_xor(m0, m1) : v_xor3(t->mid, m0, m1);
}

INLINE __m128i products_sum(const struct products *t)
{
    return v_fold(ghash_reduce(t->lo, t->mid, t->hi));
}

/* a * H^n for one block. */
INLINE __m128i times_power(const struct rs_vaes_key *key, __m128i a, size_t n)
{
    __m128i p = x_load(powers_from(key, n)), poly = x_load(ghash_poly);
    __m128i lo = _mm_clmulepi64_si128(a, p, 0x00), hi = _mm_clmulepi64_si128(a, p, 0x11);
    __m128i mid = _mm_xor_si128(_mm_clmulepi64_si128(a, p, 0x01), _mm_clmulepi64_si128(a, p, 0x10));
    __m128i t = _mm_xor_si128(_mm_shuffle_epi32(lo, 0x4e), _mm_clmulepi64_si128(lo, poly, 0x10));
    mid = _mm_xor_si128(mid, t);
    t = _mm_xor_si128(_mm_shuffle_epi32(mid, 0x4e), _mm_clmulepi64_si128(mid, poly, 0x10));
    return _mm_xor_si128(hi, t);
}

/* Begins the hash of m (1 to 66) more blocks. */
INLINE struct products hash_begin(const struct rs_vaes_key *key, const uint8_t hash[16], size_t m)
{
    struct products t;
    multiply_add(&t, v_lane0(x_load(hash)), v_lane0(x_load(powers_from(key, m))), true);
    return t;
}

/* Bytes that complete the block that ended `fill` bytes ago; returns how many they were. */
INLINE size_t hash_into_block(const struct rs_vaes_key *key, uint8_t hash[16], size_t fill, const uint8_t *in,
                              size_t len)
{
    size_t n = RS_MIN(len, 16 - fill);
    __m128i add = x_up(x_load_part(in, n), fill);
    x_store(hash, _mm_xor_si128(x_load(hash), times_power(key, x_reverse(add), 2)));
    return n;
}

/* Bytes that begin with a new block. */
INLINE void hash_bytes(const struct rs_vaes_key *key, uint8_t hash[16], const uint8_t *in, size_t len)
{
    while (len > 0) {
        size_t part = RS_MIN(len, (size_t)BATCH_BYTES), m = (part + 15) / 16;
        const uint8_t *powers = powers_from(key, m + 1);
        struct products t = hash_begin(key, hash, m);
        for (size_t at = 0; at < part; at += VECTOR_BYTES) {
            V v = v_reverse(v_load_part(in + at, RS_MIN(part - at, (size_t)VECTOR_BYTES)));
            multiply_add(&t, v, v_loadu(powers + at), false);
        }
        x_store(hash, products_sum(&t));
        in += part;
        len -= part;
    }
}

/* What the lengths add: lengths * H. */
INLINE __m128i hash_lengths(const struct rs_vaes_key *key, uint64_t aad_len, uint64_t len)
{
    return times_power(key, _mm_set_epi64x((long long)(8 * aad_len), (long long)(8 * len)), 1);
}

/* ---- batches --------------------------------------------------------------- */

#define EACH_OF(n) _Pragma("GCC unroll 8") for (int i = 0; i < (n); i++)

INLINE void batch_round(V s[BATCH], int n, const uint8_t key[16])
{
    V k = v_bcast(key);
    EACH_OF(n) s[i] = v_enc(s[i], k);
}

/* Counter blocks to all but the last round. */
INLINE void batch_rounds(V s[BATCH], int n, const struct rs_vaes_key *key)
{
    V k = v_bcast(key->enc[0]);
    EACH_OF(n) s[i] = v_xor(v_reverse(s[i]), k);
    _Pragma("GCC unroll 9") for (int r = 1; r < 10; r++) batch_round(s, n, key->enc[r]);
    if (key->rounds > 10) {
        batch_round(s, n, key->enc[10]);
        batch_round(s, n, key->enc[11]);
        if (key->rounds > 12) {
            batch_round(s, n, key->enc[12]);
            batch_round(s, n, key->enc[13]);
        }
    }
}

INLINE void batch_counters(V c[BATCH], int n, const struct rs_gcm_stream *s)
{
    V first = v_add32(v_bcast(s->counter), v_count(0));
    EACH_OF(n) c[i] = v_add32(first, v_bcast(counter_step[i]));
}

INLINE void count_blocks(struct rs_gcm_stream *s, size_t blocks)
{
    x_store(s->counter, _mm_add_epi32(x_load(s->counter), _mm_cvtsi32_si128((int)blocks)));
}

/* n whole vectors. */
INLINE void batch_whole(const struct rs_vaes_key *key, struct rs_gcm_stream *s, const uint8_t *in,
                        uint8_t *out, int n, bool decrypt)
{
    V c[BATCH];
    batch_counters(c, n, s);
    count_blocks(s, (size_t)n * LANES);
    batch_rounds(c, n, key);
    V k = v_bcast(key->enc[key->rounds]);
    const uint8_t *powers = powers_from(key, (size_t)n * LANES + 1);
    struct products t = hash_begin(key, s->hash, (size_t)n * LANES);
    EACH_OF(n)
    {
        V from = load_once(in + VECTOR_BYTES * (unsigned)i), to = v_enclast(c[i], v_xor(k, from));
        v_storeu(out + VECTOR_BYTES * (unsigned)i, to);
        c[i] = decrypt ? from : to;
    }
    EACH_OF(n) multiply_add(&t, v_reverse(c[i]), v_loadu(powers + VECTOR_BYTES * (unsigned)i), false);
    x_store(s->hash, products_sum(&t));
}

/*
 * The last `len` bytes of a call, in n vectors; `lead`: with the tag's mask in
 * the last lane, which then has no text. The end of the text lies in one of the
 * last two vectors.
 */
INLINE void batch_end(const struct rs_vaes_key *key, struct rs_gcm_stream *s, const uint8_t *in, uint8_t *out,
                      size_t len, int n, bool lead, bool decrypt)
{
    V c[BATCH];
    size_t blocks = (len + 15) / 16;
    batch_counters(c, n, s);
    if (lead) c[n - 1] = v_set_last(c[n - 1], x_load(s->first));
    count_blocks(s, blocks);
    batch_rounds(c, n, key);
    V k = v_bcast(key->enc[key->rounds]);
    const uint8_t *powers = powers_from(key, blocks + 1);
    struct products t = hash_begin(key, s->hash, blocks);
    EACH_OF(n)
    {
        size_t at = VECTOR_BYTES * (size_t)i, left = len > at ? RS_MIN(len - at, (size_t)VECTOR_BYTES) : 0;
        if (i < n - 2) {
            V from = load_once(in + at), to = v_enclast(c[i], v_xor(k, from));
            v_storeu(out + at, to);
            c[i] = decrypt ? from : to;
        } else {
            V from = v_load_part(in + at, left), stream = v_enclast(c[i], k);
            v_opaque(from);
            V to = v_xor(from, stream);
            v_store_part(out + at, to, left);
            v_store(s->key_stream + VECTOR_BYTES * (size_t)(i - n + 2), stream);
            if (i == n - 1 && lead) x_store(s->first, v_last(stream));
            c[i] = decrypt ? from : v_keep_part(to, left);
        }
    }
    s->tag_ready |= lead;
    s->begun_at = (uint32_t)(16 * (blocks - 1) + VECTOR_BYTES * 2 - VECTOR_BYTES * (unsigned)n);
    EACH_OF(n) multiply_add(&t, v_reverse(c[i]), v_loadu(powers + VECTOR_BYTES * (unsigned)i), false);
    x_store(s->hash, products_sum(&t));
}

/* At most BATCH_BYTES, with the tag's mask if that is not ready. */
INLINE void text_end(const struct rs_vaes_key *key, struct rs_gcm_stream *s, const uint8_t *in, uint8_t *out,
                     size_t len, bool decrypt)
{
    bool lead = !s->tag_ready;
    switch ((len + (lead ? 16 : 0) + VECTOR_BYTES - 1) / VECTOR_BYTES) {
#define END(n)                                                                                               \
    case n:                                                                                                  \
        batch_end(key, s, in, out, len, n, lead, decrypt);                                                   \
        break;
        END(1)
        END(2)
        END(3)
        END(4)
        END(5)
        END(6)
        END(7)
        END(8)
#undef END
    default:
        break;
    }
}

/* ---- groups ---------------------------------------------------------------- */

/* While the first group is encrypted, zeros are hashed; then the state's hash is added to its second block:
 * that is as if it had been multiplied by H once less and added to the first. */
INLINE void enter_hash(struct frame *f, const uint8_t hash[16])
{
    uint8_t *second = (uint8_t *)STASH(f) + 16;
    x_store(second, _mm_xor_si128(x_load(second), x_load(hash)));
}

#define BULK(name, kind, table)                                                                              \
    static __attribute__((noinline)) void name(struct frame *f, const uint8_t *in, uint8_t *out, size_t n,   \
                                               const uint8_t *enter)                                         \
    {                                                                                                        \
        struct at a;                                                                                         \
        struct hash one, two, ahead;                                                                         \
        walk_begin(&a, &one, &two, &ahead, f, in, out, kind, table, ALONE);                                  \
        do {                                                                                                 \
            walk_first(&a, &one, &two, f, kind, table, ALONE);                                               \
            FLY(kind, f, &a, table, ALONE)                                                                   \
            if (enter != NULL) enter_hash(f, enter);                                                         \
            enter = NULL;                                                                                    \
            walk_second(&a, &one, &two, f, kind, table, ALONE);                                              \
            FLY(kind, f, &a, table, ALONE)                                                                   \
        } while (--n > 0);                                                                                   \
        walk_end(&a, &one, &two, &ahead, f, kind, ALONE);                                                    \
    }
BULK(bulk_seal, SEAL, false)
BULK(bulk_seal_table, SEAL, true)
BULK(bulk_open, OPEN, false)
BULK(bulk_open_table, OPEN, true)

/* The last group, still in the stash. */
static __attribute__((noinline)) void bulk_end(const struct rs_vaes_key *key, const struct gcm *g,
                                               const V *stash, uint8_t hash[16])
{
    const uint8_t *powers = powers_from(key, GROUP_BLOCKS + 1);
    struct products t;
    multiply_add(&t, v_xor(v_load(&stash[0]), g->hash), v_loadu(powers), true);
    _Pragma("GCC unroll 5") for (unsigned i = 1; i < GROUP; i++)
        multiply_add(&t, v_load(&stash[i]), v_loadu(powers + VECTOR_BYTES * i), false);
    x_store(hash, products_sum(&t));
}

static __attribute__((noinline)) void bulk_table(struct gcm *g, uint32_t index)
{
    table_build(g);
    if (index != 0) table_epoch(g, index);
}

RS_FORGET_FRAMES(forget_small_frames, 512)
RS_FORGET_FRAMES(forget_bulk_frames, 1536)

/* n groups, from a whole block on. The frame is used in parts, and wiped in parts. */
static __attribute__((noinline)) void bulk(const struct rs_vaes_key *key, struct rs_gcm_stream *s,
                                           const uint8_t *in, uint8_t *out, size_t n, bool decrypt)
{
    struct frame f;
    struct gcm *g = decrypt ? &f.src : &f.dst;
    __m128i counter = x_load(s->counter);
    uint8_t base[16] RS_ALIGNED(16);
    x_store(base, _mm_andnot_si128(_mm_set_epi32(0, 0, 0, -1), counter));
    f.index = (uint32_t)_mm_cvtsi128_si32(counter) - 2;
    f.parity = 0;
    f.stream = false;
    f.copy = (struct copy){0};
    g->key = key;
    g->hash = v_zero();
    g->base = v_bcast(base);
    v_wipe(STASH(&f), GROUP);
    bool table = n * GROUP_BYTES >= RS_GCM_TABLE_FROM && f.index % GROUP_BLOCKS == 0;
    if (table) {
        bulk_table(g, f.index);
        (decrypt ? bulk_open_table : bulk_seal_table)(&f, in, out, n, s->hash);
        v_wipe((V *)g->table, sizeof(g->table) / sizeof(V));
    } else {
        (decrypt ? bulk_open : bulk_seal)(&f, in, out, n, s->hash);
    }
    bulk_end(key, g, STASH(&f), s->hash);
    v_wipe((V *)g, offsetof(struct gcm, key) / sizeof(V));
    forget_bulk_frames();
    count_blocks(s, n * GROUP_BLOCKS);
}

/* ---- calls ------------------------------------------------------------------ */

/* The rest of a block that is begun; returns how many bytes that took. */
INLINE size_t text_into_block(const struct rs_vaes_key *key, struct rs_gcm_stream *s, size_t fill,
                              const uint8_t *in, uint8_t *out, size_t len, bool decrypt)
{
    size_t n = RS_MIN(len, 16 - fill);
    __m128i from = x_load_part(in, n);
    __m128i to = _mm_xor_si128(from, x_down(x_load(s->key_stream + s->begun_at), fill));
    x_store_part(out, to, n);
    __m128i add = x_up(decrypt ? from : x_keep_part(to, n), fill);
    x_store(s->hash, _mm_xor_si128(x_load(s->hash), times_power(key, x_reverse(add), 2)));
    return n;
}

/* E(K, J0), which masks the tag. */
INLINE void mask_tag(const struct rs_vaes_key *key, struct rs_gcm_stream *s)
{
    __m128i x = _mm_xor_si128(x_reverse(x_load(s->first)), x_load(key->enc[0]));
    for (uint32_t r = 1; r < key->rounds; r++) x = _mm_aesenc_si128(x, x_load(key->enc[r]));
    x_store(s->first, _mm_aesenclast_si128(x, x_load(key->enc[key->rounds])));
    s->tag_ready = true;
}

INLINE void text(const struct rs_vaes_key *key, struct rs_gcm_stream *s, const uint8_t *in, uint8_t *out,
                 size_t len, bool decrypt)
{
    size_t fill = s->len % 16, n;
    s->len += len;
    if (fill != 0 && len > 0) {
        n = text_into_block(key, s, fill, in, out, len, decrypt);
        in += n;
        out += n;
        len -= n;
    }
    /* No lane will be idle in the end, or much else is to do meanwhile. */
    if (!s->tag_ready && len > BATCH_BYTES - 16) mask_tag(key, s);
    if (len >= BULK_FROM) {
        n = len / GROUP_BYTES;
        bulk(key, s, in, out, n, decrypt);
        in += n * GROUP_BYTES;
        out += n * GROUP_BYTES;
        len -= n * GROUP_BYTES;
    }
    for (; len > BATCH_BYTES; len -= BATCH_BYTES) {
        batch_whole(key, s, in, out, BATCH, decrypt);
        in += BATCH_BYTES;
        out += BATCH_BYTES;
    }
    if (len > 0) text_end(key, s, in, out, len, decrypt);
}

static __attribute__((noinline)) void encrypt(const struct rs_vaes_key *key, struct rs_gcm_stream *s,
                                              const uint8_t *in, uint8_t *out, size_t len)
{
    text(key, s, in, out, len, false);
}

static __attribute__((noinline)) void decrypt(const struct rs_vaes_key *key, struct rs_gcm_stream *s,
                                              const uint8_t *in, uint8_t *out, size_t len)
{
    text(key, s, in, out, len, true);
}

INLINE void forget(void)
{
    forget_small_frames();
    v_forget();
}

void GCM_ENCRYPT(const struct rs_vaes_key *key, struct rs_gcm_stream *s, const uint8_t *in, uint8_t *out,
                 size_t len)
{
    encrypt(key, s, in, out, len);
    forget();
}

void GCM_DECRYPT(const struct rs_vaes_key *key, struct rs_gcm_stream *s, const uint8_t *in, uint8_t *out,
                 size_t len)
{
    decrypt(key, s, in, out, len);
    forget();
}

/* The first counter block of an IV that is not 12 bytes long. */
static __attribute__((noinline)) void first_of_iv(const struct rs_vaes_key *key, uint8_t first[16],
                                                  const uint8_t *iv, size_t iv_len)
{
    x_store(first, _mm_setzero_si128());
    hash_bytes(key, first, iv, iv_len);
    x_store(first, _mm_xor_si128(x_load(first), hash_lengths(key, 0, iv_len)));
}

void GCM_START(const struct rs_vaes_key *key, struct rs_gcm_stream *s, const uint8_t *iv, size_t iv_len)
{
    s->aad_len = s->len = 0;
    s->tag_ready = false;
    x_store(s->hash, _mm_setzero_si128());
    if (iv_len == RS_IV_LEN) {
        uint32_t end;
        memcpy(&end, iv + 8, sizeof(end));
        __m128i v = _mm_insert_epi32(_mm_loadl_epi64((const __m128i *)(const void *)iv), (int)end, 2);
        x_store(s->first, _mm_insert_epi32(x_reverse(v), 1, 0));
        x_store(s->counter, _mm_insert_epi32(x_reverse(v), 2, 0));
        return;
    }
    first_of_iv(key, s->first, iv, iv_len);
    x_store(s->counter, x_load(s->first));
    count_blocks(s, 1);
    forget();
}

static __attribute__((noinline)) void hash_aad(const struct rs_vaes_key *key, struct rs_gcm_stream *s,
                                               const uint8_t *aad, size_t len)
{
    size_t fill = s->aad_len % 16;
    s->aad_len += len;
    if (fill != 0 && len > 0) {
        size_t n = hash_into_block(key, s->hash, fill, aad, len);
        aad += n;
        len -= n;
    }
    hash_bytes(key, s->hash, aad, len);
}

void GCM_AAD(const struct rs_vaes_key *key, struct rs_gcm_stream *s, const uint8_t *aad, size_t len)
{
    hash_aad(key, s, aad, len);
    forget();
}

void GCM_TAG(const struct rs_vaes_key *key, struct rs_gcm_stream *s, uint8_t tag[16])
{
    if (!s->tag_ready) mask_tag(key, s);
    __m128i hash = _mm_xor_si128(x_load(s->hash), hash_lengths(key, s->aad_len, s->len));
    x_store(tag, _mm_xor_si128(x_reverse(hash), x_load(s->first)));
    forget();
}

void GCM_POWERS(struct rs_vaes_key *key)
{
    for (unsigned have = 4; have < RS_GHASH_POWERS; have *= 2) {
        uint8_t *top = key->ghash[RS_GHASH_AT(have)];
        V highest = v_bcast(top);
        for (unsigned i = RS_MIN(have, RS_GHASH_POWERS - have); i > 0; i -= LANES) {
            struct products t;
            multiply_add(&t, v_load(top + 16 * (have - i)), highest, true);
            v_store(top - 16 * i, ghash_reduce(t.lo, t.mid, t.hi));
        }
    }
    v_forget();
}
