/* SPDX-License-Identifier: Apache-2.0 */
/*
 * After each call of the streaming GCM and CTR kernels neither a vector
 * register nor the stack holds a round key, a power of the hash key, key stream
 * or plaintext; short calls, long ones and begun blocks.
 */
#include "providers/crypto/vaes/cpu.h"
#include "providers/crypto/vaes/stream.h"
#include "tests/support/cmocka.h"
#include "tests/support/reference.h"
#include "tests/support/remains.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#define STACK     (256u << 10)
#define LEN       20504u
#define REGISTERS (32u * 64u)

enum call { START, AAD, TEXT, TAG, CTR };

static const char *const names[] = {"start", "aad", "text", "tag", "ctr"};
static const char *const sets[] = {"vaes-avx512", "vaes-avx2", "vaes-aesni"};

/* What one call works on; nothing of it is on the stack that is looked at. */
static struct {
    const struct rs_stream *kernels;
    enum call call;
    bool decrypt;
    size_t at, len;
    struct rs_gcm_stream gcm;
    struct rs_ctr_stream ctr;
    uint8_t iv[60], aad[60], tag[16];
    uint8_t registers[REGISTERS] RS_ALIGNED(64);
} w;

static struct rs_vaes_key key RS_ALIGNED(RS_KEY_ALIGN);
static uint8_t plain[LEN], sealed[LEN], result[LEN], stream[LEN];
static bool wide;

/* All that a call could have left in vector registers. */
static inline __attribute__((always_inline)) void keep_registers(void)
{
#define XMM(n) "movdqa %%xmm" #n ", 64*" #n "(%0)\n\t"
#define ZMM(n) "vmovdqa64 %%zmm" #n ", 64*" #n "(%0)\n\t"
    if (wide)
        __asm__ volatile(ZMM(0) ZMM(1) ZMM(2) ZMM(3) ZMM(4) ZMM(5) ZMM(6) ZMM(7) ZMM(8) ZMM(9) ZMM(10) ZMM(11)
                             ZMM(12) ZMM(13) ZMM(14) ZMM(15) ZMM(16) ZMM(17) ZMM(18) ZMM(19) ZMM(20) ZMM(21)
                                 ZMM(22) ZMM(23) ZMM(24) ZMM(25) ZMM(26) ZMM(27) ZMM(28) ZMM(29) ZMM(30)
                                     ZMM(31)
                         :
                         : "r"(w.registers)
                         : "memory");
    else
        __asm__ volatile(XMM(0) XMM(1) XMM(2) XMM(3) XMM(4) XMM(5) XMM(6) XMM(7) XMM(8) XMM(9) XMM(10) XMM(11)
                             XMM(12) XMM(13) XMM(14) XMM(15)
                         :
                         : "r"(w.registers)
                         : "memory");
}

static void *call_main(void *arg)
{
    const struct rs_stream *k = w.kernels;
    switch (w.call) {
    case START:
        k->gcm_start(&key, &w.gcm, w.iv, w.len);
        break;
    case AAD:
        k->gcm_aad(&key, &w.gcm, w.aad, w.len);
        break;
    case TEXT:
        (w.decrypt ? k->gcm_decrypt : k->gcm_encrypt)(&key, &w.gcm, (w.decrypt ? sealed : plain) + w.at,
                                                      result + w.at, w.len);
        break;
    case TAG:
        k->gcm_tag(&key, &w.gcm, w.tag);
        break;
    default:
        k->ctr(&key, &w.ctr, plain + w.at, result + w.at, w.len);
        break;
    }
    keep_registers();
    return arg;
}

static void assert_absent(const struct remains *stack, const uint8_t *block, const char *what)
{
    bool there = remains_hold(stack, block);
    if (there || memmem(w.registers, REGISTERS, block, 16) != NULL)
        fail_msg("%s: %s leaves %s in %s (%zu bytes at %zu, %u rounds, %s)", w.kernels->name, names[w.call],
                 what, there ? "the stack" : "a register", w.len, w.at, key.rounds,
                 w.decrypt ? "decrypting" : "encrypting");
}

/* A block as it is and as the kernels hash it. */
static void assert_block_absent(const struct remains *stack, const uint8_t *block, const char *what)
{
    uint8_t reversed[16];
    for (unsigned i = 0; i < 16; i++) reversed[i] = block[15 - i];
    assert_absent(stack, block, what);
    assert_absent(stack, reversed, what);
}

static void scan(const struct remains *stack, enum call call)
{
    for (unsigned r = 0; r <= key.rounds; r++) assert_absent(stack, key.enc[r], "a round key");
    for (unsigned i = 0; call != CTR && i < RS_GHASH_POWERS; i++)
        assert_absent(stack, key.ghash[i], "a power of the hash key");
    if (call != TEXT && call != CTR) return;
    for (size_t at = w.at; at + 16 <= w.at + w.len; at += at < w.at + 600 ? 1 : 16) {
        assert_block_absent(stack, plain + at, "plaintext");
        assert_block_absent(stack, stream + at, "key stream");
    }
}

static void call_and_scan(uint8_t *stack, enum call call, size_t at, size_t len)
{
    pthread_attr_t attr;
    pthread_t thread;
    w.call = call;
    w.at = at;
    w.len = len;
    memset(stack, 0, STACK);
    memset(w.registers, 0, REGISTERS);
    assert_int_equal(pthread_attr_init(&attr), 0);
    assert_int_equal(pthread_attr_setstack(&attr, stack, STACK), 0);
    assert_int_equal(pthread_create(&thread, &attr, call_main, NULL), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    pthread_attr_destroy(&attr);
    const struct remains left = remains_of(stack, STACK);
    scan(&left, call);
}

/* One message in two calls of text, the second one of which may begin in a block. */
static void gcm_message(uint8_t *stack, size_t iv_len, size_t first, size_t len)
{
    for (unsigned pass = 0; pass < 3; pass++) {
        /* The first pass only makes the ciphertext. */
        w.decrypt = pass == 2;
        memset(&w.gcm, 0, sizeof(w.gcm));
        call_and_scan(stack, START, 0, iv_len);
        call_and_scan(stack, AAD, 0, first % 50);
        if (pass == 0) {
            w.kernels->gcm_encrypt(&key, &w.gcm, plain, sealed, len);
            for (size_t i = 0; i < len; i++) stream[i] = plain[i] ^ sealed[i];
            continue;
        }
        call_and_scan(stack, TEXT, 0, first);
        call_and_scan(stack, TEXT, first, len - first);
        call_and_scan(stack, TAG, 0, 0);
        assert_memory_equal(result, w.decrypt ? plain : sealed, len);
    }
}

static void ctr_message(uint8_t *stack, size_t first, size_t len)
{
    struct rs_ctr_stream s = {0};
    w.kernels->ctr(&key, &s, plain, sealed, len);
    for (size_t i = 0; i < len; i++) stream[i] = plain[i] ^ sealed[i];
    memset(&w.ctr, 0, sizeof(w.ctr));
    call_and_scan(stack, CTR, 0, first);
    call_and_scan(stack, CTR, first, len - first);
    assert_memory_equal(result, sealed, len);
}

static void nothing_is_left(void **state)
{
    (void)state;
    static const size_t lens[][2] = {{0, 1},    {0, 16},    {0, 48},      {0, 64},    {5, 100},    {16, 240},
                                     {0, 300},  {100, 400}, {0, 440},     {0, 512},   {7, 1000},   {0, 2048},
                                     {9, 3000}, {0, 4097},  {1000, 9000}, {0, 16384}, {4096, LEN}, {11, LEN}};
    uint8_t raw[32], *stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint64_t seed = 3;
    assert_true(stack != MAP_FAILED);
    reference_random(&seed, plain, LEN);
    reference_random(&seed, w.iv, sizeof(w.iv));
    reference_random(&seed, w.aad, sizeof(w.aad));
    for (unsigned set = 0; set < RS_ARRAY_LEN(sets); set++) {
        w.kernels = rs_stream_by_name(sets[set]);
        for (unsigned i = 0; w.kernels != NULL && i < RS_ARRAY_LEN(lens); i++) {
            unsigned bits = 128 + 64 * (i % 3);
            reference_random(&seed, raw, sizeof(raw));
            rs_stream_prepare(&key, RS_STREAM_GCM, raw, bits);
            gcm_message(stack, i % 4 == 3 ? 33 : 12, lens[i][0], lens[i][1]);
            ctr_message(stack, lens[i][0], lens[i][1]);
        }
    }
    munmap(stack, STACK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(nothing_is_left)};
    if (rs_stream_best() == NULL) {
        puts("no kernels of ours work on this CPU");
        return 77;
    }
    wide = rs_cpu_probe().avx512;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
