/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Every XTS kernel that this CPU can run gives the answers of IEEE 1619,
 * annex B: encrypting, decrypting, and going from one vector's ciphertext to
 * that of another key. Long answers are compared by SHA-256.
 */

#include "offload/base/bytes.h"
#include "providers/crypto/engine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <openssl/evp.h>

#define E_128 "27182818284590452353602874713526"
#define P_128 "31415926535897932384626433832795"
#define E_256 E_128 "62497757247093699959574966967627"
#define P_256 P_128 "02884197169399375105820974944592"

#define ENGINES_MAX 3

static const struct rs_engine *engines[ENGINES_MAX];
static size_t engine_count;

static size_t from_hex(uint8_t *out, const char *hex)
{
    size_t n = strlen(hex) / 2;
    for (size_t i = 0; i < n; i++) {
        unsigned byte;
        assert_int_equal(sscanf(hex + 2 * i, "%2x", &byte), 1);
        out[i] = (uint8_t)byte;
    }
    return n;
}

static void *key_of(const struct rs_engine *e, const char *hex)
{
    uint8_t raw[64];
    size_t len = from_hex(raw, hex);
    unsigned bits = (unsigned)len * 4;
    void *key = aligned_alloc(RS_KEY_ALIGN, rs_round_up(e->key_size(RS_XTS, bits), RS_KEY_ALIGN));
    assert_non_null(key);
    assert_int_equal(e->prepare(key, RS_XTS, bits, raw, len), 0);
    return key;
}

static struct rs_side side_of(const void *key, uint64_t tweak, size_t unit)
{
    return (struct rs_side){.cipher = key == NULL ? RS_PLAIN : RS_XTS,
                            .key = key,
                            .tweak_lo = tweak,
                            .step = 1,
                            .unit = (uint32_t)unit};
}

static void run(const struct rs_engine *e, struct rs_side src, struct rs_side dst, const uint8_t *in,
                uint8_t *out, size_t len)
{
    struct rs_run r = {.in = in, .out = out, .len = len, .src = src, .dst = dst};
    assert_int_equal(e->run(&r, 1, NULL, 0), 0);
    assert_int_equal(r.status, 0);
}

static void assert_sha256(const uint8_t *data, size_t len, const char *hex)
{
    uint8_t got[32], wanted[32];
    unsigned n = sizeof(got);
    from_hex(wanted, hex);
    assert_int_equal(EVP_Digest(data, len, got, &n, EVP_sha256(), NULL), 1);
    assert_memory_equal(got, wanted, sizeof(got));
}

/* Vectors 2, 3 and, with stealing, 15 to 18. */
static void short_units(void **state)
{
    static const struct {
        const char *key;
        uint64_t tweak;
        const char *plain, *sealed;
    } v[] = {
        {"1111111111111111111111111111111122222222222222222222222222222222", 0x3333333333,
         "4444444444444444444444444444444444444444444444444444444444444444",
         "c454185e6a16936e39334038acef838bfb186fff7480adc4289382ecd6d394f0"},
        {"fffefdfcfbfaf9f8f7f6f5f4f3f2f1f022222222222222222222222222222222", 0x3333333333,
         "4444444444444444444444444444444444444444444444444444444444444444",
         "af85336b597afc1a900b2eb21ec949d292df4c047e0b21532186a5971a227a89"},
#define STEAL "fffefdfcfbfaf9f8f7f6f5f4f3f2f1f0bfbebdbcbbbab9b8b7b6b5b4b3b2b1b0", 0x123456789a
        {STEAL, "000102030405060708090a0b0c0d0e0f10", "6c1625db4671522d3d7599601de7ca09ed"},
        {STEAL, "000102030405060708090a0b0c0d0e0f1011", "d069444b7a7e0cab09e24447d24deb1fedbf"},
        {STEAL, "000102030405060708090a0b0c0d0e0f101112", "e5df1351c0544ba1350b3363cd8ef4beedbf9d"},
        {STEAL, "000102030405060708090a0b0c0d0e0f10111213", "9d84c813f719aa2c7be3f66171c7c5c2edbf9dac"},
    };
    (void)state;
    for (size_t e = 0; e < engine_count; e++) {
        for (size_t i = 0; i < RS_ARRAY_LEN(v); i++) {
            uint8_t plain[32], sealed[32], out[32];
            size_t len = from_hex(plain, v[i].plain);
            void *key = key_of(engines[e], v[i].key);
            from_hex(sealed, v[i].sealed);
            struct rs_side xts = side_of(key, v[i].tweak, len), none = side_of(NULL, 0, 0);
            run(engines[e], none, xts, plain, out, len);
            assert_memory_equal(out, sealed, len);
            run(engines[e], xts, none, sealed, out, len);
            assert_memory_equal(out, plain, len);
            free(key);
        }
    }
}

/* Vectors 4 to 9: each data unit's plaintext is the ciphertext of the one before. */
static void chain_of_units_128(void **state)
{
    static const struct {
        unsigned tweak;
        const char *start, *digest;
    } v[] = {
        {0x00, "27a7479befa1d476489f308cd4cfa6e2",
         "ebee4d64dd2395bb2d6a2d37a0a48ecb2bf4913cfc99d27c2214f2f4144715ea"},
        {0x01, "264d3ca8512194fec312c8c9891f279f",
         "bed1b9d9bf8ce83a2ae1981fbd5f2b0c40e21bba5d57df2ea16ecd0975f25215"},
        {0x02, "fa762a3680b76007928ed4a4f49a9456",
         "68f1e84faa401c9914a7fd6fc565eaa7b531cedbc22bd28269aa58b15ceec03f"},
        {0xfd, "d55f684f81f4426e9fde92a5ff02df2a",
         "e79164ec75ee2be22b85c9abec46d919916e0dae311ac7777ac37adc94abf2b5"},
        {0xfe, "72efc1ebfe1ee25975a6eb3aa8589dda",
         "21c28d54ece4f4696129f67e2e0f8a1a6f452fd6609cc9eeb3d3b56ca8ce6269"},
        {0xff, "3260ae8dad1f4a32c5cafe3ab0eb9554",
         "f4e8fa6b2cbf859268ce071a3f557dd1130e24748fe82d6c2ff34f0c5d52f57b"},
    };
    (void)state;
    for (size_t e = 0; e < engine_count; e++) {
        void *key = key_of(engines[e], E_128 P_128);
        uint8_t unit[512], start[16];
        for (size_t i = 0; i < sizeof(unit); i++) unit[i] = (uint8_t)i;
        for (unsigned tweak = 0, i = 0; tweak < 256; tweak++) {
            run(engines[e], side_of(NULL, 0, 0), side_of(key, tweak, 512), unit, unit, sizeof(unit));
            if (tweak != v[i].tweak) continue;
            from_hex(start, v[i].start);
            assert_memory_equal(unit, start, sizeof(start));
            assert_sha256(unit, sizeof(unit), v[i].digest);
            i++;
        }
        free(key);
    }
}

/* Vectors 10 to 14. */
static const struct {
    uint64_t tweak;
    const char *start, *digest;
} long_units[] = {
    {0xff, "1c3b3a102f770386e4836c99e370cf9b",
     "e97e974fa393af794f7a4684395814cf820de60a01eaec677d87b452e316b364"},
    {0xffff, "77a31251618a15e6b92d1d66dffe7b50",
     "def4fad29e95dfe1a24b1ad4620f86d7be094cced5b19e0b121aa82d9e6baf98"},
    {0xffffff, "e387aaa58ba483afa7e8eb469778317e",
     "8bf44861a081dd660d91ce615b5cdfb4d5df9d72c3025c12e67cc0ae097fa5d5"},
    {0xffffffff, "bf53d2dade78e822a4d949a9bc6766b0",
     "c706140a11affda7402234f5e6331eacbfeb687d8e80d83962691823bb3636f0"},
    {0xffffffffff, "64497e5a831e4a932c09be3e5393376d",
     "afba71abc4e95b186d89a63a5437c1bafcfd1a18ca273970c534aba4f8d05282"},
};

static void long_units_256(void **state)
{
    (void)state;
    for (size_t e = 0; e < engine_count; e++) {
        void *key = key_of(engines[e], E_256 P_256);
        uint8_t plain[512], out[512], start[16];
        for (size_t i = 0; i < sizeof(plain); i++) plain[i] = (uint8_t)i;
        for (size_t i = 0; i < RS_ARRAY_LEN(long_units); i++) {
            struct rs_side xts = side_of(key, long_units[i].tweak, 512);
            run(engines[e], side_of(NULL, 0, 0), xts, plain, out, sizeof(plain));
            from_hex(start, long_units[i].start);
            assert_memory_equal(out, start, sizeof(start));
            assert_sha256(out, sizeof(out), long_units[i].digest);
            run(engines[e], xts, side_of(NULL, 0, 0), out, out, sizeof(out));
            assert_memory_equal(out, plain, sizeof(plain));
        }
        free(key);
    }
}

/* From the ciphertext of vector 4 straight to those of vectors 10 to 14: both keys and key sizes at once. */
static void from_one_key_to_another(void **state)
{
    (void)state;
    for (size_t e = 0; e < engine_count; e++) {
        void *from = key_of(engines[e], E_128 P_128), *to = key_of(engines[e], E_256 P_256);
        uint8_t sealed[512], out[512];
        for (size_t i = 0; i < sizeof(sealed); i++) sealed[i] = (uint8_t)i;
        run(engines[e], side_of(NULL, 0, 0), side_of(from, 0, 512), sealed, sealed, sizeof(sealed));
        for (size_t i = 0; i < RS_ARRAY_LEN(long_units); i++) {
            run(engines[e], side_of(from, 0, 512), side_of(to, long_units[i].tweak, 512), sealed, out,
                sizeof(out));
            assert_sha256(out, sizeof(out), long_units[i].digest);
        }
        free(from);
        free(to);
    }
}

/* plain64: the number of a data unit wraps at 2^64 and does not carry into the high half. */
static void unit_numbers_wrap_in_64_bits(void **state)
{
    (void)state;
    for (size_t e = 0; e < engine_count; e++) {
        void *key = key_of(engines[e], E_256 P_256);
        uint8_t in[4 * 512] = {0}, run_out[4 * 512], unit_out[512];
        struct rs_side xts = side_of(key, UINT64_MAX - 8, 512);
        xts.tweak_hi = 0x0123456789abcdef;
        xts.step = 8;
        run(engines[e], side_of(NULL, 0, 0), xts, in, run_out, sizeof(in));
        for (uint64_t i = 0; i < 4; i++) {
            struct rs_side one = xts;
            one.tweak_lo += i * 8;
            run(engines[e], side_of(NULL, 0, 0), one, in, unit_out, sizeof(unit_out));
            assert_memory_equal(run_out + i * 512, unit_out, sizeof(unit_out));
        }
        free(key);
    }
}

static int find_engines(void **state)
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
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(short_units),
        cmocka_unit_test(chain_of_units_128),
        cmocka_unit_test(long_units_256),
        cmocka_unit_test(from_one_key_to_another),
        cmocka_unit_test(unit_numbers_wrap_in_64_bits),
    };
    return cmocka_run_group_tests(tests, find_engines, NULL);
}
