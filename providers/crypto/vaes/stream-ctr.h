/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streaming CTR, for any vector width: included by stream-ctr-avx512.c,
 * stream-ctr-avx2.c and stream-ctr-aesni.c after their vectors and CTR, the
 * name of the function. No include guard needed.
 *
 * Counters are counted in their low 64 bits, all lanes at once. Where those wrap
 * around, once in 2^64 blocks, a piece ends and the upper half is counted.
 */

#define INLINE static inline __attribute__((always_inline))

#define VECTOR_BYTES (16u * LANES)
#define BATCH        8 /* vectors */
#define BATCH_BYTES  (BATCH * VECTOR_BYTES)

static const uint64_t counter_step[BATCH][2] RS_ALIGNED(16) = {
    {0}, {LANES}, {2 * LANES}, {3 * LANES}, {4 * LANES}, {5 * LANES}, {6 * LANES}, {7 * LANES},
};

#define EACH_OF(n) _Pragma("GCC unroll 8") for (int i = 0; i < (n); i++)

INLINE void batch_round(V s[BATCH], int n, const uint8_t key[16])
{
    V k = v_bcast(key);
    EACH_OF(n) s[i] = v_enc(s[i], k);
}

/* The counter blocks from `count` (bytes reversed) on, to all but the last round. */
INLINE void batch_rounds(V s[BATCH], int n, V count, const struct rs_vaes_key *key)
{
    V k = v_bcast(key->enc[0]);
    EACH_OF(n) s[i] = v_xor(v_reverse(v_add64(count, v_bcast(counter_step[i]))), k);
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

INLINE void batch_whole(const struct rs_vaes_key *key, V count, const uint8_t *in, uint8_t *out)
{
    V c[BATCH];
    batch_rounds(c, BATCH, count, key);
    V k = v_bcast(key->enc[key->rounds]);
    EACH_OF(BATCH)
    {
        V text = v_xor(k, v_loadu(in + VECTOR_BYTES * (unsigned)i));
        v_storeu(out + VECTOR_BYTES * (unsigned)i, v_enclast(c[i], text));
    }
}

/* The last bytes of a call, which end in the last of n vectors. */
INLINE void batch_end(const struct rs_vaes_key *key, struct rs_ctr_stream *s, V count, const uint8_t *in,
                      uint8_t *out, size_t len, int n)
{
    V c[BATCH];
    batch_rounds(c, n, count, key);
    V k = v_bcast(key->enc[key->rounds]);
    EACH_OF(n - 1)
    {
        V text = v_xor(k, v_loadu(in + VECTOR_BYTES * (unsigned)i));
        v_storeu(out + VECTOR_BYTES * (unsigned)i, v_enclast(c[i], text));
    }
    size_t at = VECTOR_BYTES * (size_t)(n - 1), left = len - at;
    V stream = v_enclast(c[n - 1], k);
    v_store_part(out + at, v_xor(stream, v_load_part(in + at, left)), left);
    v_storeu(s->key_stream, stream);
    s->used = (uint32_t)(left % 16);
    s->begun_at = (uint32_t)(left / 16 * 16);
}

/* Whole and, at the end, begun blocks; no carry out of the low half of the counter. */
INLINE void no_carry(const struct rs_vaes_key *key, struct rs_ctr_stream *s, __m128i counter,
                     const uint8_t *in, uint8_t *out, size_t len)
{
    V count = v_add64(v_same(counter), v_count(0));
    for (; len > BATCH_BYTES; len -= BATCH_BYTES) {
        batch_whole(key, count, in, out);
        count = v_add64(count, v_count_same(BATCH * LANES));
        in += BATCH_BYTES;
        out += BATCH_BYTES;
    }
    switch ((len + VECTOR_BYTES - 1) / VECTOR_BYTES) {
#define END(n)                                                                                               \
    case n:                                                                                                  \
        batch_end(key, s, count, in, out, len, n);                                                           \
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

/* The rest of a block that is begun; returns how many bytes that took. */
INLINE size_t into_block(struct rs_ctr_stream *s, const uint8_t *in, uint8_t *out, size_t len)
{
    size_t n = RS_MIN(len, 16 - s->used);
    __m128i stream = x_down(x_load(s->key_stream + s->begun_at), s->used);
    x_store_part(out, _mm_xor_si128(stream, x_load_part(in, n)), n);
    s->used = (uint32_t)(s->used + n) % 16;
    return n;
}

static __attribute__((noinline)) void ctr(const struct rs_vaes_key *key, struct rs_ctr_stream *s,
                                          const uint8_t *in, uint8_t *out, size_t len)
{
    if (s->used != 0 && len > 0) {
        size_t n = into_block(s, in, out, len);
        in += n;
        out += n;
        len -= n;
    }
    __m128i count = x_reverse(x_load(s->counter));
    while (len > 0) {
        uint64_t low = (uint64_t)_mm_cvtsi128_si64(count), blocks = (len - 1) / 16 + 1, until_carry = -low;
        bool carry = low != 0 && blocks >= until_carry;
        if (carry) blocks = until_carry;
        size_t part = RS_MIN(len, 16 * blocks);
        no_carry(key, s, count, in, out, part);
        count = _mm_add_epi64(count, _mm_set_epi64x(carry, (long long)blocks));
        in += part;
        out += part;
        len -= part;
    }
    x_store(s->counter, x_reverse(count));
}

RS_FORGET_FRAMES(forget_frames, 512)

void CTR(const struct rs_vaes_key *key, struct rs_ctr_stream *s, const uint8_t *in, uint8_t *out, size_t len)
{
    ctr(key, s, in, out, len);
    forget_frames();
    v_forget();
}
