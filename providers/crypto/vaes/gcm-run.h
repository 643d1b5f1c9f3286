/* SPDX-License-Identifier: Apache-2.0 */
/* Records and batches on top of gcm-kernel.h; included by the same three files. */

#define HALVES_AT RS_GCM_FRAME /* where in the scratch the records wait; the frame comes before */
_Static_assert(sizeof(struct frame) <= HALVES_AT, "rs_engine_scratch_size() gives this much");

typedef void groups_fn(struct frame *f, const uint8_t *in, uint8_t *out, size_t n);

#define GROUPS(name, kind, table, copying)                                                                   \
    static __attribute__((noinline)) void name(struct frame *f, const uint8_t *in, uint8_t *out, size_t n)   \
    {                                                                                                        \
        groups(f, in, out, n, kind, table, copying);                                                         \
    }
GROUPS(seal, SEAL, false, false)
GROUPS(seal_table, SEAL, true, false)
GROUPS(open, OPEN, false, false)
GROUPS(open_table, OPEN, true, false)
GROUPS(open_copying, OPEN, false, true)
GROUPS(open_table_copying, OPEN, true, true)
GROUPS(xts_gcm, XTS_GCM, false, false)
GROUPS(xts_gcm_table, XTS_GCM, true, false)
GROUPS(gcm_xts, GCM_XTS, false, false)
GROUPS(gcm_xts_table, GCM_XTS, true, false)
GROUPS(gcm_xts_copying, GCM_XTS, false, true)
GROUPS(gcm_xts_table_copying, GCM_XTS, true, true)
GROUPS(regcm, GCM_GCM, false, false)
GROUPS(regcm_table, GCM_GCM, true, false)
GROUPS(regcm_copying, GCM_GCM, false, true)
GROUPS(regcm_table_copying, GCM_GCM, true, true)

/* [kind][with a table][under a copy]; nothing is ever copied under kinds without a GCM source. */
static groups_fn *const groups_of[][2][2] = {
    [SEAL] = {{seal, seal}, {seal_table, seal_table}},
    [OPEN] = {{open, open_copying}, {open_table, open_table_copying}},
    [XTS_GCM] = {{xts_gcm, xts_gcm}, {xts_gcm_table, xts_gcm_table}},
    [GCM_XTS] = {{gcm_xts, gcm_xts_copying}, {gcm_xts_table, gcm_xts_table_copying}},
    [GCM_GCM] = {{regcm, regcm_copying}, {regcm_table, regcm_table_copying}},
};

/* One or two flights through private memory, unhashed. */
#define EDGE(name, kind)                                                                                     \
    static __attribute__((noinline)) void name(struct frame *f, size_t flights)                              \
    {                                                                                                        \
        struct at a = {.in = f->edge_in, .out = f->edge_out, .index = f->index};                             \
        start_flight(a.s, LEADS(f, kind), a.index, false);                                                   \
        if (kind == XTS_GCM || kind == GCM_XTS) next_bases(f, a.index);                                      \
        for (; flights > 0; flights--) flight(f, &a, kind, false, false);                                    \
    }
EDGE(edge_seal, SEAL)
EDGE(edge_open, OPEN)
EDGE(edge_xts_gcm, XTS_GCM)
EDGE(edge_gcm_xts, GCM_XTS)
EDGE(edge_regcm, GCM_GCM)

static void (*const edge_of[])(struct frame *f, size_t flights) = {
    [SEAL] = edge_seal,       [OPEN] = edge_open,     [XTS_GCM] = edge_xts_gcm,
    [GCM_XTS] = edge_gcm_xts, [GCM_GCM] = edge_regcm,
};

/* GHASH of the AAD, padded to a block; `buf` holds a group. */
static V hash_aad(const struct rs_vaes_key *key, const uint8_t *aad, size_t len, uint8_t *buf)
{
    V y = v_zero();
    while (len > 0) {
        size_t part = RS_MIN(len, (size_t)GROUP_BYTES), blocks = (part + 15) / 16;
        memcpy(buf, aad, part);
        memset(buf + part, 0, 16 * blocks - part);
        y = ghash_end(key, y, buf, (unsigned)blocks, false);
        aad += part;
        len -= part;
    }
    return y;
}

static void side_start(struct gcm *g, const struct rs_side *side, bool table)
{
    uint8_t iv[16] RS_ALIGNED(16) = {0};
    memcpy(iv, side->iv, RS_IV_LEN);
    g->key = side->key;
    g->base = v_reverse(v_bcast(iv));
    g->hash = v_zero();
    if (table) table_build(g);
}

/* The rest of a side's GHASH: the stashed group, the tail of `len` bytes (zeros after it) and the lengths. */
static void side_end(struct gcm *g, const struct rs_side *side, V y, uint8_t *tail, size_t tail_len,
                     uint64_t len, uint8_t tag[RS_TAG_LEN])
{
    const struct rs_vaes_key *key = g->key;
    unsigned blocks = (unsigned)((tail_len + 15) / 16);
    rs_store_be64(tail + 16 * (size_t)blocks, (uint64_t)side->aad_len * 8);
    rs_store_be64(tail + 16 * (size_t)blocks + 8, len * 8);
    if (blocks + 1 > RS_GHASH_POWERS) {
        y = ghash_end(key, y, tail, blocks, false);
        tail += 16 * (size_t)blocks;
        blocks = 0;
    }
    y = ghash_end(key, y, tail, blocks + 1, false);

    V s = v_xor(v_reverse(v_add32(g->base, v_count(1))), v_bcast(key->enc[0]));
    for (uint32_t r = 1; r < key->rounds; r++) s = v_enc(s, v_bcast(key->enc[r]));
    s = v_xor(v_enclast(s, v_bcast(key->enc[key->rounds])), v_reverse(y));
    uint8_t lanes[LANES * 16] RS_ALIGNED(64);
    v_store(lanes, s);
    memcpy(tag, lanes, RS_TAG_LEN);
}

/* All but the last partial group; leaves each side's sum in y[]. */
static void record_groups(struct frame *f, enum kind kind, const uint8_t *in, uint8_t *out, size_t n,
                          bool table, V y[2])
{
    size_t copying = RS_MIN(n - 1, f->copy.len / GROUP_BYTES);
    /* The first group hashes zeros into a zero sum; only then does the AAD's sum come in. */
    memset(f->stash, 0, sizeof(f->stash));
    groups_of[kind][table][0](f, in, out, 1);
    f->src.hash = y[0];
    f->dst.hash = y[1];
    in += GROUP_BYTES;
    out += GROUP_BYTES;
    groups_of[kind][table][1](f, in, out, copying);
    groups_of[kind][table][0](f, in + copying * GROUP_BYTES, out + copying * GROUP_BYTES, n - 1 - copying);
    const uint8_t *one = (const uint8_t *)STASH(f), *turn = (const uint8_t *)TURNS(f, f->parity);
    if (HAS_SRC(kind))
        y[0] = ghash_end(f->src.key, f->src.hash, kind == GCM_XTS ? turn : one, GROUP_BLOCKS, true);
    if (HAS_DST(kind))
        y[1] = ghash_end(f->dst.key, f->dst.hash, kind == GCM_GCM ? turn : one, GROUP_BLOCKS, true);
}

static void record_tail(struct frame *f, enum kind kind, const uint8_t *in, uint8_t *out, size_t len)
{
    size_t flights = (len + FLIGHT_BYTES - 1) / FLIGHT_BYTES;
    bool stream = f->stream;
    memcpy(f->edge_in, in, len);
    memset(f->edge_in + len, 0, flights * FLIGHT_BYTES - len);
    f->stream = false;
    if (flights > 0) edge_of[kind](f, flights);
    f->stream = stream;
    memset(f->edge_out + len, 0, flights * FLIGHT_BYTES - len);
    memcpy(out, f->edge_out, len);
}

/* One record from r->in to `out`; tags[] are the source's and the destination's, computed. */
static void record(struct frame *f, const struct rs_run *r, enum kind kind, uint8_t *out,
                   uint8_t tags[2][RS_TAG_LEN])
{
    bool table = r->len >= RS_GCM_TABLE_FROM;
    size_t n = r->len / GROUP_BYTES, tail = r->len % GROUP_BYTES;
    V y[2] = {v_zero(), v_zero()};
    f->index = 0;
    f->parity = 0;
    if (HAS_SRC(kind)) {
        side_start(&f->src, &r->src, table);
        y[0] = hash_aad(r->src.key, r->src.aad, r->src.aad_len, f->edge_in);
    }
    if (HAS_DST(kind)) {
        side_start(&f->dst, &r->dst, table);
        y[1] = hash_aad(r->dst.key, r->dst.aad, r->dst.aad_len, f->edge_in);
    }
    f->xts_flights = (uint32_t)(r->len / RS_XTS_FLIGHT);
    if (kind == XTS_GCM) rs_tweak_walk_begin(&f->walk, &r->src, r->len);
    if (kind == GCM_XTS) rs_tweak_walk_begin(&f->walk, &r->dst, r->len);
    if (n > 0) record_groups(f, kind, r->in, out, n, table, y);
    record_tail(f, kind, r->in + r->len - tail, out + r->len - tail, tail);
    if (HAS_SRC(kind)) side_end(&f->src, &r->src, y[0], f->edge_in, tail, r->len, tags[0]);
    if (HAS_DST(kind)) side_end(&f->dst, &r->dst, y[1], f->edge_out, tail, r->len, tags[1]);
}

/* ---- batches -------------------------------------------------------------- */

struct batch {
    struct frame *f;
    uint8_t *half[2]; /* where records wait for their tag, in turn */
    size_t half_len;
    unsigned turn;
    unsigned flags;
};

static bool can_stream(const void *p)
{
    return (uintptr_t)p % (16 * LANES) == 0;
}

/* The tail at once, whole flights under the next record's rounds. */
static void copy_begin(struct frame *f, uint8_t *from, const struct rs_run *r, unsigned flags)
{
    size_t tail = r->len % FLIGHT_BYTES, whole = r->len - tail;
    bool plain = r->dst.cipher == RS_PLAIN;
    memcpy(r->out + whole, from + whole, tail);
    if (plain && tail > 0) rs_wipe(from + whole, tail);
    f->copy = (struct copy){from, r->out, whole, (flags & RS_RUN_STREAM) && can_stream(r->out), plain};
}

static void copy_finish(struct frame *f)
{
    struct copy cp = f->copy;
    while (cp.len > 0) copy_flight(&cp);
    f->copy.len = 0;
}

/* Runs a record with a GCM source: into a half of the scratch first, unless unverified. */
static int run_opened(struct batch *b, struct rs_run *r, enum kind kind)
{
    struct frame *f = b->f;
    bool direct = b->flags & RS_RUN_UNVERIFIED;
    uint8_t tags[2][RS_TAG_LEN], *to = direct ? r->out : b->half[b->turn ^= 1];
    f->stream = direct && (b->flags & RS_RUN_STREAM) && can_stream(to);
    record(f, r, kind, to, tags);
    copy_finish(f);
    if (!rs_equal_ct(tags[0], r->src.tag, RS_TAG_LEN)) {
        if (!direct) rs_wipe(to, r->len);
        return RESEAL_EAUTH;
    }
    if (HAS_DST(kind)) memcpy(r->dst.tag, tags[1], RS_TAG_LEN);
    if (!direct) copy_begin(f, to, r, b->flags);
    return 0;
}

static int run_sealed(struct batch *b, struct rs_run *r, enum kind kind)
{
    uint8_t tags[2][RS_TAG_LEN];
    b->f->stream = (b->flags & RS_RUN_STREAM) && can_stream(r->out);
    record(b->f, r, kind, r->out, tags);
    memcpy(r->dst.tag, tags[1], RS_TAG_LEN);
    return 0;
}

/* XTS units that are no multiple of a flight, and stealing: one side after the other, through the scratch. */
static int run_in_two(struct batch *b, struct rs_run *r)
{
    struct rs_run first = *r, second = *r;
    uint8_t tags[2][RS_TAG_LEN];
    first.dst = second.src = (struct rs_side){.cipher = RS_PLAIN};
    copy_finish(b->f);
    first.out = b->half[0];
    second.in = b->half[0];
    b->f->stream = false;
    if (r->src.cipher == RS_XTS) {
        if (XTS_RUN(&first, 1, b->f, 0) == 0) {
            record(b->f, &second, SEAL, r->out, tags);
            memcpy(r->dst.tag, tags[1], RS_TAG_LEN);
        }
    } else {
        record(b->f, &first, OPEN, first.out, tags);
        first.status = rs_equal_ct(tags[0], r->src.tag, RS_TAG_LEN) ? 0 : RESEAL_EAUTH;
        if (first.status == 0 || (b->flags & RS_RUN_UNVERIFIED)) {
            size_t failed = XTS_RUN(&second, 1, b->f, 0);
            if (first.status == 0 && failed > 0) first.status = second.status;
        }
    }
    rs_wipe(b->half[0], r->len);
    return first.status;
}

static int run_one(struct batch *b, struct rs_run *r)
{
    const struct rs_side *s = &r->src, *d = &r->dst;
    if (r->len == 0 || r->len > RS_RECORD_MAX) return RESEAL_EINVAL;
    if ((s->cipher != RS_PLAIN && !s->key) || (d->cipher != RS_PLAIN && !d->key)) return RESEAL_EINVAL;
    if (s->cipher == RS_PLAIN && d->cipher == RS_GCM) return run_sealed(b, r, SEAL);
    if (s->cipher == RS_GCM && d->cipher == RS_PLAIN) return run_opened(b, r, OPEN);
    if (s->cipher == RS_GCM && d->cipher == RS_GCM) return run_opened(b, r, GCM_GCM);
    if (s->cipher == d->cipher || s->cipher == RS_PLAIN || d->cipher == RS_PLAIN) return RESEAL_ENOSUPPORT;
    const struct rs_side *xts = s->cipher == RS_XTS ? s : d;
    if (r->len % RS_XTS_FLIGHT != 0 || (xts->unit % RS_XTS_FLIGHT != 0 && r->len > xts->unit))
        return run_in_two(b, r);
    return s->cipher == RS_XTS ? run_sealed(b, r, XTS_GCM) : run_opened(b, r, GCM_XTS);
}

/* Stashes hold ciphertext and need no wiping; tables are there only after long records. */
static void frame_wipe(struct frame *f, size_t longest)
{
    if (longest >= RS_GCM_TABLE_FROM) {
        rs_wipe(f->src.table, sizeof(f->src.table));
        rs_wipe(f->dst.table, sizeof(f->dst.table));
    }
    rs_wipe(&f->src, offsetof(struct gcm, table));
    rs_wipe(&f->dst, offsetof(struct gcm, table));
    rs_wipe(f->tweaks, sizeof(*f) - offsetof(struct frame, tweaks));
}

size_t RUN(struct rs_run *runs, size_t n, void *scratch, unsigned flags)
{
    size_t longest = 0, failed = 0;
    for (size_t i = 0; i < n; i++)
        if (runs[i].len <= RS_RECORD_MAX) longest = RS_MAX(longest, runs[i].len);
    uint8_t *halves = (uint8_t *)scratch + HALVES_AT;
    struct batch b = {.f = scratch, .half_len = rs_round_up(longest, 64), .flags = flags};
    b.half[0] = halves;
    b.half[1] = halves + b.half_len;
    b.f->copy = (struct copy){0};
    for (size_t i = 0; i < n; i++) {
        runs[i].status = run_one(&b, &runs[i]);
        if (runs[i].status != 0) failed++;
    }
    copy_finish(b.f);
    frame_wipe(b.f, longest);
    if (flags & RS_RUN_STREAM) _mm_sfence();
    return failed;
}
