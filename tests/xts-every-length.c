/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Every XTS kernel that this CPU can run does what OpenSSL does: every length,
 * alignment, pair of units and key sizes, in place and not, and touches no
 * byte outside its buffers.
 */

#include "offload/base/bytes.h"
#include "providers/crypto/engine.h"
#include "reseal/reseal.h"
#include "tests/support/guarded.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>
#include <openssl/evp.h>

#define SINGLE_MAX 4200u
#define MULTI_MAX  (256u << 10)
#define MARGIN     64u /* bytes that are watched on the side without a guard page */
#define CANARY     0xa5

#define ENGINES_MAX 3

static const struct rs_engine *engines[ENGINES_MAX];
static size_t engine_count;

/* A key of each size for each side; [0] is AES-128. All engines prepare alike, but each gets its own. */
static uint8_t raw_keys[2][2][64];
static void *prepared[ENGINES_MAX][2][2];

static struct guarded in_area, out_area;
static uint8_t *plain, *middle, *wanted;

static uint64_t random_state = 0x9e3779b97f4a7c15u;

static uint64_t random64(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static void random_bytes(uint8_t *p, size_t len)
{
    for (size_t i = 0; i < len; i++) p[i] = (uint8_t)random64();
}

/* ---- reference ----------------------------------------------------------- */

static EVP_CIPHER_CTX *contexts[2][2][2]; /* [side][size][encrypt] */

static void reference_unit(EVP_CIPHER_CTX *c, uint64_t lo, uint64_t hi, const uint8_t *in, uint8_t *out,
                           size_t len)
{
    uint8_t iv[16];
    int n = 0;
    rs_store_le64(iv, lo);
    rs_store_le64(iv + 8, hi);
    assert_int_equal(EVP_CipherInit_ex(c, NULL, NULL, NULL, iv, -1), 1);
    assert_int_equal(EVP_CipherUpdate(c, out, &n, in, (int)len), 1);
    assert_int_equal((size_t)n, len);
}

static void reference_side(int side, int size, bool encrypt, const struct rs_side *s, const uint8_t *in,
                           uint8_t *out, size_t len)
{
    if (s->cipher == RS_PLAIN) {
        memmove(out, in, len);
        return;
    }
    uint64_t lo = s->tweak_lo;
    for (size_t at = 0; at < len; at += s->unit, lo += s->step) {
        reference_unit(contexts[side][size][encrypt], lo, s->tweak_hi, in + at, out + at,
                       RS_MIN(s->unit, len - at));
    }
}

/* ---- one comparison ------------------------------------------------------ */

struct job {
    struct rs_side src, dst; /* without keys */
    int src_size, dst_size;  /* 0: AES-128, 1: AES-256 */
    size_t len;
    unsigned flags;
};

static void add_keys(struct rs_run *r, const struct job *j, size_t engine)
{
    r->src.key = r->src.cipher == RS_PLAIN ? NULL : prepared[engine][0][j->src_size];
    r->dst.key = r->dst.cipher == RS_PLAIN ? NULL : prepared[engine][1][j->dst_size];
}

static void check_margins(const uint8_t *buffer, size_t len, const struct guarded *g)
{
    const uint8_t *end = g->page + g->room;
    for (const uint8_t *p = buffer; p > g->page && p > buffer - MARGIN; p--) assert_int_equal(p[-1], CANARY);
    for (const uint8_t *p = buffer + len; p < end && p < buffer + len + MARGIN; p++)
        assert_int_equal(*p, CANARY);
}

static void set_margins(uint8_t *buffer, size_t len, const struct guarded *g)
{
    const uint8_t *end = g->page + g->room;
    size_t before = RS_MIN((size_t)(buffer - g->page), MARGIN);
    size_t after = RS_MIN((size_t)(end - (buffer + len)), MARGIN);
    memset(buffer - before, CANARY, before);
    memset(buffer + len, CANARY, after);
}

/* The reference of a job: `plain` holds its input, `wanted` gets what it should become. */
static void reference(const struct job *j)
{
    reference_side(0, j->src_size, false, &j->src, plain, middle, j->len);
    reference_side(1, j->dst_size, true, &j->dst, middle, wanted, j->len);
}

static void run_at(size_t engine, const struct job *j, uint8_t *in, uint8_t *out)
{
    struct rs_run r = {.in = in, .out = out, .len = j->len, .src = j->src, .dst = j->dst, .status = 1};
    add_keys(&r, j, engine);
    set_margins(out, j->len, &out_area);
    if (in != out) memset(out, CANARY, j->len);
    memcpy(in, plain, j->len);
    size_t failed = engines[engine]->run(&r, 1, NULL, j->flags);
    if (failed != 0 || r.status != 0 || memcmp(out, wanted, j->len) != 0) {
        fail_msg("%s: src %u/%u dst %u/%u len %zu flags %u in %p out %p: status %d", engines[engine]->name,
                 j->src.cipher, j->src.unit, j->dst.cipher, j->dst.unit, j->len, j->flags, (void *)in,
                 (void *)out, r.status);
    }
    if (in != out) assert_memory_equal(in, plain, j->len);
    check_margins(out, j->len, &out_area);
}

/* All engines; out of place against the guard page after, and in place after the guard page before, or the
 * reverse. */
static void compare(const struct job *j, bool swap)
{
    reference(j);
    for (size_t e = 0; e < engine_count; e++) {
        uint8_t *in = swap ? guarded_at_start(&in_area) : guarded_at_end(&in_area, j->len);
        uint8_t *out = swap ? guarded_at_start(&out_area) : guarded_at_end(&out_area, j->len);
        uint8_t *other = swap ? guarded_at_end(&out_area, j->len) : guarded_at_start(&out_area);
        run_at(e, j, in, out);
        run_at(e, j, other, other);
    }
}

/* The three kinds of pair; unit 0 means one unit of the whole length. */
enum pair { ENCRYPT, DECRYPT, RESEAL, PAIRS };

static struct rs_side side(enum rs_cipher cipher, uint32_t unit)
{
    struct rs_side s = {.cipher = (uint8_t)cipher};
    if (cipher == RS_PLAIN) return s;
    s.unit = unit;
    s.tweak_lo = random64();
    s.tweak_hi = random64() & 1 ? random64() : 0;
    s.step = random64() & 1 ? random64() % 129 : random64();
    /* The sum wraps in the low half alone. */
    if (random64() % 4 == 0) s.tweak_lo = UINT64_MAX - random64() % 4;
    return s;
}

static struct job job(enum pair pair, size_t len, uint32_t src_unit, uint32_t dst_unit)
{
    struct job j = {.len = len, .src_size = (int)(random64() & 1), .dst_size = (int)(random64() & 1)};
    j.src = side(pair == ENCRYPT ? RS_PLAIN : RS_XTS, src_unit);
    j.dst = side(pair == DECRYPT ? RS_PLAIN : RS_XTS, dst_unit);
    j.flags = random64() % 4 == 0 ? RS_RUN_STREAM : 0;
    return j;
}

/* ---- tests --------------------------------------------------------------- */

static void every_length_of_one_unit(void **state)
{
    (void)state;
    for (uint32_t len = 16; len <= SINGLE_MAX; len++) {
        random_bytes(plain, 64);
        for (enum pair p = 0; p < PAIRS; p++) {
            struct job j = job(p, len, len, len);
            compare(&j, len & 1);
        }
    }
}

static void every_key_size(void **state)
{
    static const uint32_t lens[] = {16, 31, 512, 1000, 4096};
    (void)state;
    for (size_t i = 0; i < RS_ARRAY_LEN(lens); i++) {
        for (unsigned c = 0; c < 4 * PAIRS; c++) {
            struct job j = job(c / 4, lens[i], 512, 512);
            j.src_size = c & 1;
            j.dst_size = c >> 1 & 1;
            compare(&j, c & 1);
        }
    }
}

static void every_alignment(void **state)
{
    static const uint32_t lens[] = {16, 17, 512, 1041, 1536, 4113};
    (void)state;
    for (size_t i = 0; i < RS_ARRAY_LEN(lens); i++) {
        for (unsigned a = 0; a < 64 * PAIRS; a++) {
            struct job j = job(a % PAIRS, lens[i], 512, lens[i]);
            reference(&j);
            for (size_t e = 0; e < engine_count; e++) {
                uint8_t *in = guarded_at_start(&in_area) + a / PAIRS;
                run_at(e, &j, in, guarded_at_start(&out_area) + (a * 5 + 3) % 64);
                uint8_t *same = guarded_at_start(&out_area) + a / PAIRS;
                run_at(e, &j, same, same);
            }
        }
    }
}

static uint32_t random_unit(void)
{
    static const uint32_t units[] = {16,   48,   496,  512,  512,  528,   1024,
                                     1536, 2048, 4096, 4096, 8192, 65536, 1u << 24};
    uint64_t r = random64();
    return r % 8 == 0 ? (uint32_t)(1 + random64() % 300) * 16 : units[(r >> 8) % RS_ARRAY_LEN(units)];
}

/* A length that is whole units of both sides, or has a last unit that both accept. */
static bool accepted(const struct rs_side *s, size_t len)
{
    if (s->cipher == RS_PLAIN || len <= s->unit) return true;
    size_t last = len % s->unit;
    return last == 0 || last >= 16;
}

static void many_units_on_both_sides(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3000; i++) {
        uint32_t room = i % 8 == 0 ? MULTI_MAX : 32u << 10;
        size_t len = 16 + random64() % (room - 16);
        if (random64() & 1) len = len / 16 * 16;
        if (random64() & 1) len = len < 4096 ? 4096 : len / 4096 * 4096;
        struct job j = job(i % 5 == 0   ? ENCRYPT
                           : i % 5 == 1 ? DECRYPT
                                        : RESEAL,
                           len, random_unit(), random_unit());
        if (!accepted(&j.src, len) || !accepted(&j.dst, len)) continue;
        random_bytes(plain + random64() % len, 1);
        compare(&j, i & 1);
    }
}

/* A run of a batch: its own keys, units and length; or, now and then, one that must be refused. */
static struct job batch_job(enum pair pair, bool *refused)
{
    *refused = random64() % 16 == 0;
    if (*refused) return job(pair, 512 + 15, 512, 512);
    for (;;) {
        size_t len = 16 + random64() % 8192;
        if (random64() % 4 != 0) len = rs_round_up(len, 512);
        struct job j = job(pair, len, random_unit(), random_unit());
        if (accepted(&j.src, len) && accepted(&j.dst, len)) return j;
    }
}

static void check_batch(size_t e, enum pair pair, unsigned flags)
{
    struct rs_run runs[RS_BATCH_MAX];
    bool refused[RS_BATCH_MAX];
    uint8_t *expected = out_area.page + out_area.room / 2;
    size_t n = 1 + random64() % RS_BATCH_MAX, at = 0, bad = 0;
    for (size_t i = 0; i < n; i++) {
        struct job j = batch_job(pair, &refused[i]);
        runs[i] = (struct rs_run){
            .in = plain + at, .out = out_area.page + at, .len = j.len, .src = j.src, .dst = j.dst};
        add_keys(&runs[i], &j, e);
        memset(out_area.page + at, CANARY, j.len);
        if (refused[i]) {
            memset(expected + at, CANARY, j.len);
            bad++;
        } else {
            reference_side(0, j.src_size, false, &j.src, plain + at, middle, j.len);
            reference_side(1, j.dst_size, true, &j.dst, middle, expected + at, j.len);
        }
        at += j.len;
    }
    assert_true(at <= out_area.room / 2);
    assert_int_equal(engines[e]->run(runs, n, NULL, flags), bad);
    for (size_t i = 0; i < n; i++) assert_int_equal(runs[i].status, refused[i] ? RESEAL_EUNIT : 0);
    assert_memory_equal(out_area.page, expected, at);
}

static void batches_with_keys_units_and_lengths_of_their_own(void **state)
{
    (void)state;
    for (size_t e = 0; e < engine_count; e++) {
        for (unsigned round = 0; round < 300; round++) {
            check_batch(e, (enum pair)(round % PAIRS), round % 5 == 0 ? RS_RUN_STREAM : 0);
        }
    }
}

static void refuses_what_is_not_whole_units(void **state)
{
    static const struct {
        size_t len;
        uint32_t unit;
    } bad[] = {{15, 512},   {1, 16},   {0, 512}, {527 - 15, 500}, {513, 512},
               {1039, 512}, {100, 24}, {64, 8},  {64, 0}};
    (void)state;
    for (size_t e = 0; e < engine_count; e++) {
        for (size_t i = 0; i < RS_ARRAY_LEN(bad); i++) {
            struct job j = job(RESEAL, bad[i].len, bad[i].unit, 16384);
            uint8_t *out = guarded_at_start(&out_area);
            struct rs_run r = {.in = plain, .out = out, .len = j.len, .src = j.src, .dst = j.dst};
            add_keys(&r, &j, e);
            memset(out, CANARY, 4096);
            assert_int_equal(engines[e]->run(&r, 1, NULL, 0), 1);
            assert_int_equal(r.status, RESEAL_EUNIT);
            for (size_t k = 0; k < 4096; k++) assert_int_equal(out[k], CANARY);
        }
    }
}

static void refuses_equal_halves_and_wrong_lengths(void **state)
{
    (void)state;
    for (size_t e = 0; e < engine_count; e++) {
        const struct rs_engine *g = engines[e];
        uint8_t raw[64];
        for (unsigned bits = 128; bits <= 256; bits += 128) {
            void *key = aligned_alloc(RS_KEY_ALIGN, rs_round_up(g->key_size(RS_XTS, bits), RS_KEY_ALIGN));
            assert_non_null(key);
            size_t half = bits / 8;
            random_bytes(raw, half);
            memcpy(raw + half, raw, half);
            assert_int_equal(g->prepare(key, RS_XTS, bits, raw, 2 * half), RESEAL_EKEYBAD);
            raw[half] ^= 1;
            assert_int_equal(g->prepare(key, RS_XTS, bits, raw, 2 * half), 0);
            assert_int_equal(g->prepare(key, RS_XTS, bits, raw, half), RESEAL_EKEYBAD);
            assert_int_equal(g->prepare(key, RS_XTS, 192, raw, 48), RESEAL_EKEYBAD);
            g->wipe(key, RS_XTS, bits);
            free(key);
        }
    }
}

/* ---- set-up -------------------------------------------------------------- */

static void prepare_side(int side_index, int size)
{
    unsigned bits = size == 0 ? 128 : 256;
    uint8_t *raw = raw_keys[side_index][size];
    random_bytes(raw, bits / 4);
    for (int encrypt = 0; encrypt < 2; encrypt++) {
        EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
        const EVP_CIPHER *cipher = size == 0 ? EVP_aes_128_xts() : EVP_aes_256_xts();
        if (c == NULL || EVP_CipherInit_ex(c, cipher, NULL, raw, NULL, encrypt) != 1) abort();
        contexts[side_index][size][encrypt] = c;
    }
    for (size_t e = 0; e < engine_count; e++) {
        void *key =
            aligned_alloc(RS_KEY_ALIGN, rs_round_up(engines[e]->key_size(RS_XTS, bits), RS_KEY_ALIGN));
        if (key == NULL || engines[e]->prepare(key, RS_XTS, bits, raw, bits / 4) != 0) abort();
        prepared[e][side_index][size] = key;
    }
}

static int set_up(void **state)
{
    (void)state;
    for (const struct rs_engine *const *e = rs_engines_known(); *e != NULL && engine_count < ENGINES_MAX;
         e++) {
        if (strncmp((*e)->name, "vaes-", 5) == 0 && (*e)->probe() == 0) engines[engine_count++] = *e;
    }
    if (engine_count == 0) {
        print_message("skipped: no AES instructions in this CPU, or no kernels for them in this build\n");
        exit(77);
    }
    for (int i = 0; i < 4; i++) prepare_side(i >> 1, i & 1);
    guarded_map(&in_area, 2 * MULTI_MAX);
    guarded_map(&out_area, 2 * MULTI_MAX);
    plain = malloc(2 * MULTI_MAX);
    middle = malloc(MULTI_MAX);
    wanted = malloc(MULTI_MAX);
    if (plain == NULL || middle == NULL || wanted == NULL) return -1;
    random_bytes(plain, 2 * MULTI_MAX);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    for (int i = 0; i < 8; i++) EVP_CIPHER_CTX_free(contexts[i >> 2][i >> 1 & 1][i & 1]);
    for (size_t e = 0; e < engine_count; e++) {
        for (int i = 0; i < 4; i++) free(prepared[e][i >> 1][i & 1]);
    }
    guarded_unmap(&in_area);
    guarded_unmap(&out_area);
    free(plain);
    free(middle);
    free(wanted);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_length_of_one_unit),
        cmocka_unit_test(every_key_size),
        cmocka_unit_test(every_alignment),
        cmocka_unit_test(many_units_on_both_sides),
        cmocka_unit_test(batches_with_keys_units_and_lengths_of_their_own),
        cmocka_unit_test(refuses_what_is_not_whole_units),
        cmocka_unit_test(refuses_equal_halves_and_wrong_lengths),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
