/* SPDX-License-Identifier: Apache-2.0 */
/* Records and batches on top of gcm-kernel.h; included by the same three files. */

#define RECORD_AT RS_GCM_FRAME /* where in the scratch a record waits; the frame comes before */
_Static_assert(sizeof(struct frame) <= RECORD_AT, "rs_engine_scratch_size() gives this much");

typedef void groups_fn(struct frame *f, const uint8_t *in, uint8_t *out, size_t n);

#define GROUPS(name, kind, table, mode)                                                                      \
    static __attribute__((noinline)) void name(struct frame *f, const uint8_t *in, uint8_t *out, size_t n)   \
    {                                                                                                        \
        struct at a;                                                                                         \
        struct hash one, two, ahead;                                                                         \
        if (n == 0) return;                                                                                  \
        walk_begin(&a, &one, &two, &ahead, f, in, out, kind, table, mode);                                   \
        do {                                                                                                 \
            walk_first(&a, &one, &two, f, kind, table, mode);                                                \
            FLY(kind, f, &a, table, mode)                                                                    \
            walk_second(&a, &one, &two, f, kind, table, mode);                                               \
            FLY(kind, f, &a, table, mode)                                                                    \
        } while (--n > 0);                                                                                   \
        walk_end(&a, &one, &two, &ahead, f, kind, mode);                                                     \
    }
#define GROUPS_OF(name, kind, mode) GROUPS(name, kind, false, mode) GROUPS(name##_table, kind, true, mode)
GROUPS_OF(seal, SEAL, ALONE)
GROUPS_OF(xts_gcm, XTS_GCM, ALONE)
GROUPS_OF(open, OPEN, ALONE)
GROUPS_OF(open_ahead, OPEN, AHEAD)
GROUPS_OF(open_verified, OPEN, VERIFIED)
GROUPS_OF(gcm_xts, GCM_XTS, ALONE)
GROUPS_OF(gcm_xts_ahead, GCM_XTS, AHEAD)
GROUPS_OF(gcm_xts_verified, GCM_XTS, VERIFIED)
GROUPS_OF(regcm, GCM_GCM, ALONE)
GROUPS_OF(regcm_ahead, GCM_GCM, AHEAD)
GROUPS_OF(regcm_verified, GCM_GCM, VERIFIED)

/* [kind][mode][with a table] */
#define BOTH(name)                                                                                           \
    {                                                                                                        \
        name, name##_table                                                                                   \
    }
static groups_fn *const groups_of[][3][2] = {
    [SEAL] = {BOTH(seal)},
    [XTS_GCM] = {BOTH(xts_gcm)},
    [OPEN] = {BOTH(open), BOTH(open_ahead), BOTH(open_verified)},
    [GCM_XTS] = {BOTH(gcm_xts), BOTH(gcm_xts_ahead), BOTH(gcm_xts_verified)},
    [GCM_GCM] = {BOTH(regcm), BOTH(regcm_ahead), BOTH(regcm_verified)},
};

/* One or two flights through private memory, unhashed. */
#define EDGE(name, kind)                                                                                     \
    static __attribute__((noinline)) void name(struct frame *f, size_t flights)                              \
    {                                                                                                        \
        struct at a = {.in = f->edge_in, .out = f->edge_out, .index = f->index};                             \
        start_flight(a.s, LEADS(f, kind), a.index, false);                                                   \
        if (kind == XTS_GCM || kind == GCM_XTS) next_bases(f, a.index);                                      \
        for (; flights > 0; flights--) {                                                                     \
            FLY(kind, f, &a, false, ALONE)                                                                   \
        }                                                                                                    \
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

/* One record under work. */
struct record {
    struct frame *f;
    const struct rs_run *run;
    enum kind kind;
    bool table;
    size_t groups, tail; /* whole groups, and bytes after them */
    V src, dst;          /* each side's GHASH before the tail */
    uint8_t src_tag[RS_TAG_LEN], dst_tag[RS_TAG_LEN];
};

static void record_begin(struct record *r, struct frame *f, const struct rs_run *run, enum kind kind)
{
    r->f = f;
    r->run = run;
    r->kind = kind;
    r->table = run->len >= RS_GCM_TABLE_FROM;
    r->groups = run->len / GROUP_BYTES;
    r->tail = run->len % GROUP_BYTES;
    r->src = r->dst = v_zero();
    f->index = 0;
    f->parity = 0;
    if (HAS_SRC(kind)) {
        side_start(&f->src, &run->src, r->table);
        r->src = hash_aad(run->src.key, run->src.aad, run->src.aad_len, f->edge_in);
    }
    if (HAS_DST(kind)) {
        side_start(&f->dst, &run->dst, r->table);
        r->dst = hash_aad(run->dst.key, run->dst.aad, run->dst.aad_len, f->edge_in);
    }
    f->xts_flights = (uint32_t)(run->len / RS_XTS_FLIGHT);
    if (kind == XTS_GCM) rs_tweak_walk_begin(&f->walk, &run->src, run->len);
    if (kind == GCM_XTS) rs_tweak_walk_begin(&f->walk, &run->dst, run->len);
    /* The tail is read once, here. */
    size_t padded = (r->tail + FLIGHT_BYTES - 1) / FLIGHT_BYTES * FLIGHT_BYTES;
    memcpy(f->edge_in, run->in + run->len - r->tail, r->tail);
    memset(f->edge_in + r->tail, 0, padded - r->tail);
}

/* The first n groups of a record, of which the first `ahead` also hash ahead. */
static void record_first(struct record *r, const uint8_t *in, uint8_t *out, size_t n, size_t ahead)
{
    struct frame *f = r->f;
    if (n == 0) return;
    /* The first group hashes zeros into a zero sum; only then does the AAD's sum come in. */
    memset(f->stash, 0, sizeof(f->stash));
    groups_of[r->kind][ahead > 0 ? AHEAD : ALONE][r->table](f, in, out, 1);
    f->src.hash = r->src;
    f->dst.hash = r->dst;
    in += GROUP_BYTES;
    out += GROUP_BYTES;
    n--;
    if (ahead > 1) {
        groups_of[r->kind][AHEAD][r->table](f, in, out, ahead - 1);
        in += (ahead - 1) * GROUP_BYTES;
        out += (ahead - 1) * GROUP_BYTES;
        n -= ahead - 1;
    }
    groups_of[r->kind][ALONE][r->table](f, in, out, n);
}

/* The group that a side has not hashed yet, when there was one. */
static void record_src_stash(struct record *r)
{
    struct frame *f = r->f;
    const V *stash = r->kind == GCM_XTS ? TURNS(f, f->parity) : STASH(f);
    if (r->groups > 0)
        r->src = ghash_end(f->src.key, f->src.hash, (const uint8_t *)stash, GROUP_BLOCKS, true);
}

static void record_dst_stash(struct record *r)
{
    struct frame *f = r->f;
    const V *stash = r->kind == GCM_GCM ? TURNS(f, f->parity) : STASH(f);
    if (r->groups > 0)
        r->dst = ghash_end(f->dst.key, f->dst.hash, (const uint8_t *)stash, GROUP_BLOCKS, true);
}

static void record_src_tag(struct record *r)
{
    const struct rs_run *run = r->run;
    side_end(&r->f->src, &run->src, r->src, r->f->edge_in, r->tail, run->len, r->src_tag);
}

/* The last bytes, and the destination's tag. */
static void record_end(struct record *r, uint8_t *out)
{
    struct frame *f = r->f;
    size_t flights = (r->tail + FLIGHT_BYTES - 1) / FLIGHT_BYTES;
    bool stream = f->stream;
    if (HAS_DST(r->kind)) record_dst_stash(r);
    f->stream = false;
    if (flights > 0) edge_of[r->kind](f, flights);
    f->stream = stream;
    memset(f->edge_out + r->tail, 0, flights * FLIGHT_BYTES - r->tail);
    memcpy(out + r->run->len - r->tail, f->edge_out, r->tail);
    if (HAS_DST(r->kind))
        side_end(&f->dst, &r->run->dst, r->dst, f->edge_out, r->tail, r->run->len, r->dst_tag);
}

/* From end to end without waiting for a tag; both tags are computed. */
static void record_at_once(struct record *r, struct frame *f, const struct rs_run *run, enum kind kind,
                           uint8_t *out)
{
    record_begin(r, f, run, kind);
    record_first(r, run->in, out, r->groups, 0);
    if (HAS_SRC(kind)) {
        record_src_stash(r);
        record_src_tag(r);
    }
    record_end(r, out);
}

/* ---- runs ----------------------------------------------------------------- */

struct batch {
    struct frame *f;
    uint8_t *wait; /* a record's first half decrypted, its second half as it came */
    unsigned flags;
};

static bool can_stream(const void *p)
{
    return (uintptr_t)p % (16 * LANES) == 0;
}

/* How many of n groups to hash ahead: about half, few bits set, so that few multiplications join the halves.
 */
static size_t second_half(size_t n)
{
    size_t half = n / 2, low = 1;
    if (half < 2) return 0;
    while (half >> 4 >= low) low <<= 1;
    return half & ~(low - 1);
}

/* Hashes the second half's last group, and joins the halves' sums. */
static void join_halves(struct record *r, size_t second)
{
    struct frame *f = r->f;
    const struct rs_vaes_key *key = f->src.key;
    memcpy(f->ahead_keep, f->ahead_in, GROUP_BYTES);
    V sum = ghash_end(key, f->ahead, f->ahead_keep, GROUP_BLOCKS, false);
    r->src = v_xor(ghash_skip(key, r->src, second * GROUP_BLOCKS), sum);
}

/* What no rounds have hidden. */
static void copy_finish(struct frame *f)
{
    while (f->copy.len > 0) copy_flight(&f->copy);
}

/* A record with a GCM source: nothing comes out before its tag verified. */
static int run_opened(struct batch *b, struct rs_run *run, enum kind kind)
{
    struct frame *f = b->f;
    struct record r;
    bool stream = (b->flags & RS_RUN_STREAM) && can_stream(run->out);
    f->stream = false;
    record_begin(&r, f, run, kind);
    size_t second = second_half(r.groups), first = r.groups - second, first_len = first * GROUP_BYTES;
    f->ahead = v_zero();
    f->ahead_in = run->in + first_len;
    f->ahead_keep = b->wait + first_len;
    record_first(&r, run->in, b->wait, first, second > 0 ? second - 1 : 0);
    record_src_stash(&r);
    if (second > 0) join_halves(&r, second);
    record_src_tag(&r);
    if (!rs_equal_ct(r.src_tag, run->src.tag, RS_TAG_LEN)) {
        rs_wipe(b->wait, first_len);
        rs_wipe(r.src_tag, RS_TAG_LEN);
        return RESEAL_EAUTH;
    }
    f->stream = stream;
    f->copy = (struct copy){b->wait, run->out, first_len, stream, run->dst.cipher == RS_PLAIN};
    groups_of[kind][VERIFIED][r.table](f, b->wait + first_len, run->out + first_len, second);
    copy_finish(f);
    record_end(&r, run->out);
    if (HAS_DST(kind)) memcpy(run->dst.tag, r.dst_tag, RS_TAG_LEN);
    return 0;
}

/* RS_RUN_UNVERIFIED, and what has no GCM source. */
static int run_at_once(struct batch *b, struct rs_run *run, enum kind kind)
{
    struct record r;
    b->f->stream = (b->flags & RS_RUN_STREAM) && can_stream(run->out);
    record_at_once(&r, b->f, run, kind, run->out);
    if (HAS_SRC(kind) && !rs_equal_ct(r.src_tag, run->src.tag, RS_TAG_LEN)) return RESEAL_EAUTH;
    if (HAS_DST(kind)) memcpy(run->dst.tag, r.dst_tag, RS_TAG_LEN);
    return 0;
}

/* XTS units that are no multiple of a flight, and stealing: one side after the other, through the scratch. */
static int run_in_two(struct batch *b, struct rs_run *run)
{
    struct rs_run first = *run, second = *run;
    struct record r;
    int status = 0;
    first.dst = second.src = (struct rs_side){.cipher = RS_PLAIN};
    first.out = b->wait;
    second.in = b->wait;
    b->f->stream = false;
    if (run->src.cipher == RS_XTS) {
        if (XTS_RUN(&first, 1, b->f, 0) > 0) return first.status;
        record_at_once(&r, b->f, &second, SEAL, run->out);
        memcpy(run->dst.tag, r.dst_tag, RS_TAG_LEN);
    } else {
        record_at_once(&r, b->f, &first, OPEN, b->wait);
        if (!rs_equal_ct(r.src_tag, run->src.tag, RS_TAG_LEN)) status = RESEAL_EAUTH;
        if ((status == 0 || (b->flags & RS_RUN_UNVERIFIED)) && XTS_RUN(&second, 1, b->f, 0) > 0)
            status = second.status;
    }
    rs_wipe(b->wait, run->len);
    return status;
}

static int run_one(struct batch *b, struct rs_run *run)
{
    const struct rs_side *s = &run->src, *d = &run->dst;
    int (*opened)(struct batch *, struct rs_run *, enum kind) =
        b->flags & RS_RUN_UNVERIFIED ? run_at_once : run_opened;
    if (run->len == 0 || run->len > RS_RECORD_MAX) return RESEAL_EINVAL;
    if ((s->cipher != RS_PLAIN && !s->key) || (d->cipher != RS_PLAIN && !d->key)) return RESEAL_EINVAL;
    if (s->cipher == RS_PLAIN && d->cipher == RS_GCM) return run_at_once(b, run, SEAL);
    if (s->cipher == RS_GCM && d->cipher == RS_PLAIN) return opened(b, run, OPEN);
    if (s->cipher == RS_GCM && d->cipher == RS_GCM) return opened(b, run, GCM_GCM);
    if (s->cipher == d->cipher || s->cipher == RS_PLAIN || d->cipher == RS_PLAIN) return RESEAL_ENOSUPPORT;

    const struct rs_side *xts = s->cipher == RS_XTS ? s : d;
    if (xts->unit < RS_UNIT_MIN || run->len < RS_UNIT_MIN) return RESEAL_EUNIT;
    if (run->len % RS_XTS_FLIGHT != 0 || (xts->unit % RS_XTS_FLIGHT != 0 && run->len > xts->unit))
        return run_in_two(b, run);
    return s->cipher == RS_XTS ? run_at_once(b, run, XTS_GCM) : opened(b, run, GCM_XTS);
}

static void side_wipe(struct gcm *g, bool table)
{
    rs_wipe(g, offsetof(struct gcm, table) + (table ? sizeof(g->table) : 0));
}

/* What was used and is secret; stashes hold ciphertext. */
static void frame_wipe(struct frame *f, const struct rs_run *run, size_t longest)
{
    bool table = longest >= RS_GCM_TABLE_FROM;
    if (run->src.cipher == RS_GCM) side_wipe(&f->src, table);
    if (run->dst.cipher == RS_GCM) side_wipe(&f->dst, table);
    rs_wipe(f->tweaks, offsetof(struct frame, edge_in) - offsetof(struct frame, tweaks));
    rs_wipe(f->edge_in, sizeof(f->edge_in));
    rs_wipe(f->edge_out, sizeof(f->edge_out));
}

static __attribute__((noinline)) size_t run_batch(struct rs_run *runs, size_t n, void *scratch,
                                                  unsigned flags)
{
    size_t longest = 0, failed = 0;
    struct batch b = {.f = scratch, .wait = (uint8_t *)scratch + RECORD_AT, .flags = flags};
    for (size_t i = 0; i < n; i++) {
        if (runs[i].len <= RS_RECORD_MAX) longest = RS_MAX(longest, runs[i].len);
        runs[i].status = run_one(&b, &runs[i]);
        if (runs[i].status != 0) failed++;
    }
    if (n > 0) frame_wipe(b.f, &runs[0], longest);
    if (flags & RS_RUN_STREAM) _mm_sfence();
    return failed;
}

size_t RUN(struct rs_run *runs, size_t n, void *scratch, unsigned flags)
{
    size_t failed = run_batch(runs, n, scratch, flags);
    forget_stack();
    v_forget();
    return failed;
}
