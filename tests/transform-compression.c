/* SPDX-License-Identifier: Apache-2.0 */
/* Compression and decompression between two sides: what is written, what is stored as it is, and that hostile
 * compressed data neither gets through nor writes a byte beyond what was announced. */
#include "tests/support/reference.h"
#include "tests/support/transforms.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <lz4.h>
#include <stdlib.h>
#include <zstd.h>

#define ROOM RS_STAGED_MAX

static uint8_t *plain, *sealed, *opened;
static struct guarded target;
static uint32_t dst_unit = 512;

static struct rs_transform_config config_of(unsigned src, unsigned dst, uint32_t stages, uint32_t level)
{
    struct rs_transform_config c = {.stages = stages, .level = level, .counter_at = RESEAL_NO_COUNTER};
    c.src = fixture_side(src, src == RS_XTS ? 512 : 0);
    c.dst = fixture_side(dst, dst == RS_XTS ? dst_unit : 0);
    return c;
}

/* Half of it repeats itself, half does not. */
static void make_compressible(uint8_t *p, size_t len)
{
    uint64_t seed = len;
    reference_random(&seed, p, len);
    for (size_t at = 0; at < len; at++)
        if (at / 128 % 2) p[at] = (uint8_t) "reseal "[at % 7];
}

/* Packs plain[] from `src` to `dst`; the result lies in opened[], decrypted; returns its length. */
static uint32_t pack(unsigned src, unsigned dst, uint32_t packer, uint32_t level, uint32_t len, bool in_place)
{
    struct fixture f;
    struct rs_transform_config c = config_of(src, dst, packer, level);
    fixture_open(&f, &c);
    struct rs_job j = {.in = sealed, .out = guarded_at_end(&target, len), .len = len, .out_cap = len};
    fixture_seal(&f, 0, &j, plain, sealed, len, j.src_tag);
    if (in_place) j.in = memcpy(j.out, sealed, len);
    assert_int_equal(rs_transform_run(&f.t, &j, 1, f.scratch, false), 0);
    assert_in_range(j.out_len, 1, len);
    assert_true(fixture_open_side(&f, 1, &j, j.out, opened, j.out_len, j.dst_tag));
    assert_false(fixture_scratch_holds(&f, plain));
    fixture_close(&f);
    return j.out_len;
}

/* Unpacks `len` bytes of hostile plaintext at `packed`, sealed for `src`; gives the status, the result in
 * opened[]. */
static int unpack(unsigned src, unsigned dst, uint32_t packer, const uint8_t *packed, uint32_t len,
                  uint32_t raw_len)
{
    struct fixture f;
    struct rs_transform_config c =
        config_of(src, dst, packer | RESEAL_STAGE_DECOMPRESS | RESEAL_STAGE_DIGEST, 0);
    fixture_open(&f, &c);
    struct rs_job j = {.in = sealed, .out = guarded_at_end(&target, raw_len), .len = len, .out_cap = raw_len};
    j.raw_len = raw_len;
    fixture_seal(&f, 0, &j, packed, sealed, len, j.src_tag);
    memset(j.out, 0xa5, raw_len);
    rs_transform_run(&f.t, &j, 1, f.scratch, false);
    if (j.status == 0) {
        assert_int_equal(j.out_len, raw_len);
        assert_true(fixture_open_side(&f, 1, &j, j.out, opened, raw_len, j.dst_tag));
    } else {
        assert_int_equal(j.out_len, 0);
        for (size_t i = 0; i < raw_len; i++) assert_int_equal(j.out[i], 0xa5);
        for (size_t i = 0; i < sizeof(j.digest); i++) assert_int_equal(j.digest[i], 0);
    }
    for (size_t i = rs_round_up(rs_engine_scratch_size(RS_RECORD_MAX), 64); i < f.scratch_len; i++)
        if (f.scratch[i] != 0) fail_msg("scratch is not wiped at %zu", i);
    fixture_close(&f);
    return j.status;
}

static const uint32_t packers[] = {RESEAL_STAGE_LZ4, RESEAL_STAGE_ZSTD};

static void what_was_packed_unpacks(void **state)
{
    (void)state;
    static const uint32_t lengths[] = {4096, 65536, 262144, ROOM};
    for (size_t i = 0; i < RS_ARRAY_LEN(lengths) * 2 * 9; i++) {
        uint32_t len = lengths[i / 18], packer = packers[i / 9 % 2];
        unsigned src = (unsigned)(i % 9 / 3), dst = (unsigned)(i % 3);
        make_compressible(plain, len);
        uint32_t n = pack(src, dst, packer, 0, len, i & 1);
        assert_true(n < len);
        if (dst == RS_XTS) {
            assert_int_equal(n % 512, 0);
            for (size_t at = 4 + opened[0] + 256u * opened[1] + 65536u * opened[2]; at < n; at++)
                assert_int_equal(opened[at], 0);
        }
        uint8_t *packed = malloc(n);
        assert_non_null(packed);
        memcpy(packed, opened, n);
        /* What was written for XTS is read from XTS, and so on. */
        assert_int_equal(unpack(dst, src, packer, packed, n, len), 0);
        assert_memory_equal(opened, plain, len);
        free(packed);
    }
}

static void every_level_fits_its_memory(void **state)
{
    (void)state;
    for (uint32_t level = 0; level <= RS_LZ4_LEVELS; level++) {
        make_compressible(plain, 65536);
        uint32_t n = pack(RS_PLAIN, RS_PLAIN, RESEAL_STAGE_LZ4, level, 65536, false);
        assert_int_equal(LZ4_decompress_safe((char *)opened, (char *)sealed, (int)n, 65536), 65536);
        assert_memory_equal(sealed, plain, 65536);
    }
    for (uint32_t level = 0; level <= RS_ZSTD_LEVELS; level++) {
        for (uint32_t len = 512; len <= ROOM; len = len * 3 + 1) {
            make_compressible(plain, len);
            uint32_t n = pack(RS_PLAIN, RS_PLAIN, RESEAL_STAGE_ZSTD, level, len, false);
            assert_true(n < len); /* stored would mean that the context did not fit */
            assert_int_equal(ZSTD_decompress(sealed, len, opened, n), len);
            assert_memory_equal(sealed, plain, len);
        }
    }
}

static void what_does_not_shrink_is_stored(void **state)
{
    (void)state;
    uint64_t seed = 5;
    for (size_t i = 0; i < 18; i++) {
        unsigned src = (unsigned)(i / 2 / 3), dst = (unsigned)(i / 2 % 3);
        reference_random(&seed, plain, 8192);
        assert_int_equal(pack(src, dst, packers[i % 2], 0, 8192, i & 1), 8192);
        assert_memory_equal(opened, plain, 8192);
        assert_int_equal(unpack(dst, src, packers[i % 2], plain, 8192, 8192), 0);
        assert_memory_equal(opened, plain, 8192);
    }
    make_compressible(plain, 8192); /* shrinks, but not by a data unit */
    dst_unit = 8192;
    assert_int_equal(pack(RS_XTS, RS_XTS, RESEAL_STAGE_LZ4, 0, 8192, false), 8192);
    dst_unit = 512;
    plain[0] = 1;
    assert_int_equal(pack(RS_GCM, RS_GCM, RESEAL_STAGE_ZSTD, 0, 1, false), 1);
}

static void no_room_is_an_error_and_writes_nothing(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct fixture f;
        struct rs_transform_config c = config_of(RS_XTS, RS_GCM, packers[i] | RESEAL_STAGE_ZERO, 0);
        uint8_t map[64] = {0}, *out = guarded_at_end(&target, 1000);
        fixture_open(&f, &c);
        memset(plain, 0, 32768);
        struct rs_job j = {.in = sealed, .out = out, .len = 32768, .out_cap = 1000, .zero_map = map};
        fixture_seal(&f, 0, &j, plain, sealed, 32768, NULL);
        assert_int_equal(rs_transform_run(&f.t, &j, 1, f.scratch, false), 0); /* zeros fit */
        make_compressible(plain, 32768);
        fixture_seal(&f, 0, &j, plain, sealed, 32768, NULL);
        memset(out, 0xa5, 1000);
        assert_int_equal(rs_transform_run(&f.t, &j, 1, f.scratch, false), 1);
        assert_int_equal(j.status, RESEAL_ESPACE);
        for (size_t k = 0; k < 1000; k++) assert_int_equal(out[k], 0xa5);
        for (size_t k = 0; k < sizeof(map); k++) assert_int_equal(map[k], 0);
        fixture_close(&f);
    }
}

static size_t compress(uint32_t packer, uint8_t *to, size_t cap, size_t len)
{
    if (packer == RESEAL_STAGE_ZSTD) return ZSTD_compress(to, cap, plain, len, 1);
    return (size_t)LZ4_compress_default((char *)plain, (char *)to, (int)len, (int)cap);
}

static void malformed_data_is_refused(void **state)
{
    (void)state;
    static uint8_t packed[70000], bad[70000];
    uint64_t seed = 3;
    make_compressible(plain, 65536);
    for (size_t i = 0; i < 2; i++) {
        uint32_t n = (uint32_t)compress(packers[i], packed, sizeof(packed), 65536);
        assert_int_equal(unpack(RS_GCM, RS_XTS, packers[i], packed, n, 65536), 0);
        assert_int_equal(unpack(RS_GCM, RS_XTS, packers[i], packed, n - 1, 65536), RESEAL_EDATA);
        memcpy(bad, packed, n);
        bad[n] = 0;
        assert_int_equal(unpack(RS_GCM, RS_XTS, packers[i], bad, n + 1, 65536), RESEAL_EDATA);
        for (unsigned k = 0; k < 100;
             k++) { /* either refused, or decompressed to just as much: nothing else */
            uint32_t where;
            reference_random(&seed, &where, sizeof(where));
            memcpy(bad, packed, n);
            bad[where % (k < 50 ? 32 : n)] ^= (uint8_t)(1 + k);
            int status = unpack(RS_GCM, RS_XTS, packers[i], bad, n, 65536);
            assert_true(status == 0 || status == RESEAL_EDATA);
        }
        for (unsigned k = 0; k < 50; k++) {
            reference_random(&seed, bad, 600);
            assert_int_equal(unpack(RS_PLAIN, RS_PLAIN, packers[i], bad, 600, 65536), RESEAL_EDATA);
        }
    }
}

static void bombs_do_not_go_off(void **state)
{
    (void)state;
    static uint8_t packed[70000];
    memset(plain, 0, ROOM);
    for (size_t i = 0; i < 2; i++) {
        uint32_t n = (uint32_t)compress(packers[i], packed, sizeof(packed), ROOM);
        assert_int_equal(unpack(RS_GCM, RS_XTS, packers[i], packed, n, ROOM), 0);
        /* Longer than announced, shorter than announced; the guard page is after the last announced byte. */
        assert_int_equal(unpack(RS_GCM, RS_XTS, packers[i], packed, n, ROOM - 4096), RESEAL_EDATA);
        uint32_t half = (uint32_t)compress(packers[i], packed, sizeof(packed), ROOM / 2);
        assert_int_equal(unpack(RS_GCM, RS_XTS, packers[i], packed, half, ROOM), RESEAL_EDATA);
    }
    /* Two frames, that together are what was announced; a frame and a skippable one. */
    uint32_t a = (uint32_t)compress(RESEAL_STAGE_ZSTD, packed, sizeof(packed), 32768);
    uint32_t b = (uint32_t)compress(RESEAL_STAGE_ZSTD, packed + a, sizeof(packed) - a, 32768);
    assert_int_equal(unpack(RS_GCM, RS_XTS, RESEAL_STAGE_ZSTD, packed, a + b, 65536), RESEAL_EDATA);
    static const uint8_t skippable[12] = {0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0};
    memcpy(packed + a, skippable, sizeof(skippable));
    assert_int_equal(unpack(RS_GCM, RS_XTS, RESEAL_STAGE_ZSTD, packed, a + 12, 32768), RESEAL_EDATA);
}

static void frames_of_sectors_are_checked(void **state)
{
    (void)state;
    static uint8_t packed[4096];
    make_compressible(plain, 4096);
    uint32_t n = (uint32_t)compress(RESEAL_STAGE_LZ4, packed + 4, sizeof(packed) - 4, 4096);
    uint32_t whole = (uint32_t)rs_round_up(n + 4, 512);
    packed[0] = (uint8_t)n;
    packed[1] = (uint8_t)(n >> 8);
    assert_true(whole < 4096);
    assert_int_equal(unpack(RS_XTS, RS_XTS, RESEAL_STAGE_LZ4, packed, whole, 4096), 0);
    packed[whole - 1] = 1; /* something after the end */
    assert_int_equal(unpack(RS_XTS, RS_XTS, RESEAL_STAGE_LZ4, packed, whole, 4096), RESEAL_EDATA);
    packed[whole - 1] = 0;
    static const uint32_t lies[] = {0, 1, 511, 512, 3500, 4096, 0x7fffffff, 0xfffffffc, 0xffffffff};
    for (size_t i = 0; i < RS_ARRAY_LEN(lies); i++) {
        for (size_t k = 0; k < 4; k++) packed[k] = (uint8_t)(lies[i] >> (8 * k));
        assert_int_equal(unpack(RS_XTS, RS_XTS, RESEAL_STAGE_LZ4, packed, whole, 4096), RESEAL_EDATA);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_packed_unpacks),
        cmocka_unit_test(every_level_fits_its_memory),
        cmocka_unit_test(what_does_not_shrink_is_stored),
        cmocka_unit_test(no_room_is_an_error_and_writes_nothing),
        cmocka_unit_test(malformed_data_is_refused),
        cmocka_unit_test(bombs_do_not_go_off),
        cmocka_unit_test(frames_of_sectors_are_checked),
    };
    plain = malloc(3 * (size_t)ROOM);
    if (plain == NULL) return 2;
    sealed = plain + ROOM;
    opened = sealed + ROOM;
    guarded_map(&target, ROOM);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
