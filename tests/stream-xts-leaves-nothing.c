/* SPDX-License-Identifier: Apache-2.0 */
/*
 * After one XTS data unit of any length, neither the stack that the streaming
 * kernels worked on nor a vector register holds a round key, a tweak or
 * plaintext.
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

#define STACK    (64u << 10)
#define MAX_LEN  2600u
#define EVERY    700u /* every length up to this one */
#define REGISTER 64u  /* bytes of each of 32 */

static uint8_t plain[MAX_LEN], sealed[MAX_LEN], out[MAX_LEN];
static uint8_t registers[32][REGISTER] RS_ALIGNED(64);
static uint8_t tweaks[MAX_LEN / 16 + 2][16];
static uint8_t *stack;
static struct remains left_there;
static struct rs_vaes_key key RS_ALIGNED(RS_KEY_ALIGN);
static uint64_t seed = 3;

struct work {
    const struct rs_stream *kernels;
    uint8_t tweak[16];
    size_t len;
    bool encrypt, wide; /* wide: there are zmm registers */
};

#define FIRST                         "0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15"
#define SECOND                        "16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31"
#define EACH_OF(numbers, instruction) ".irp n," numbers "\n\t" instruction "\n\t.endr"

static void store_registers(bool wide)
{
    if (wide)
        __asm__ volatile(EACH_OF(FIRST "," SECOND, "vmovdqa64 %%zmm\\n, 64*\\n(%0)")
                         :
                         : "r"(registers)
                         : "memory");
    else
        __asm__ volatile(EACH_OF(FIRST, "movdqa %%xmm\\n, 64*\\n(%0)") : : "r"(registers) : "memory");
}

/* A thread begins with what the one that made it had. */
static void clear_registers(bool wide)
{
    if (wide)
        __asm__ volatile(EACH_OF(FIRST "," SECOND, "vpxorq %%zmm\\n, %%zmm\\n, %%zmm\\n") : : : "memory");
    else
        __asm__ volatile(EACH_OF(FIRST, "pxor %%xmm\\n, %%xmm\\n") : : : "memory");
}

static void *work_main(void *arg)
{
    const struct work *w = arg;
    clear_registers(w->wide);
    if (w->encrypt)
        w->kernels->xts_encrypt(&key, w->tweak, plain, out, w->len);
    else
        w->kernels->xts_decrypt(&key, w->tweak, sealed, out, w->len);
    store_registers(w->wide);
    return NULL;
}

static void on_own_stack(struct work *w)
{
    pthread_attr_t attr;
    pthread_t thread;
    memset(stack, 0, STACK);
    memset(registers, 0, sizeof(registers));
    assert_int_equal(pthread_attr_init(&attr), 0);
    assert_int_equal(pthread_attr_setstack(&attr, stack, STACK), 0);
    assert_int_equal(pthread_create(&thread, &attr, work_main, w), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    pthread_attr_destroy(&attr);
}

static void assert_absent(const uint8_t block[16], const char *what, const struct work *w)
{
    bool left = remains_hold(&left_there, block);
    if (!left && memmem(registers, sizeof(registers), block, 16) == NULL) return;
    fail_msg("%s: %s is left %s after %s %zu bytes", w->kernels->name, what,
             left ? "on the stack" : "in a register", w->encrypt ? "encrypting" : "decrypting", w->len);
}

static void scan(const struct work *w)
{
    left_there = remains_of(stack, STACK);
    for (unsigned r = 0; r <= key.rounds; r++) {
        assert_absent(key.enc[r], "an encryption round key", w);
        assert_absent(key.dec[r], "a decryption round key", w);
        assert_absent(key.tweak[r], "a tweak round key", w);
    }
    for (size_t at = 0; at + 16 <= w->len; at += 16) assert_absent(&plain[at], "plaintext", w);
    for (size_t i = 0; i <= w->len / 16; i++) assert_absent(tweaks[i], "a tweak", w);
}

static void find_tweaks(const struct work *w, unsigned bits, const uint8_t *raw)
{
    reference_block(1, bits, raw + bits / 8, w->tweak, tweaks[0]);
    for (size_t i = 1; i < RS_ARRAY_LEN(tweaks); i++) {
        unsigned carry = 0;
        for (unsigned j = 0; j < 16; j++) {
            tweaks[i][j] = (uint8_t)((unsigned)tweaks[i - 1][j] << 1 | carry);
            carry = (unsigned)tweaks[i - 1][j] >> 7;
        }
        if (carry) tweaks[i][0] ^= 0x87;
    }
}

static void both_ways(struct work *w, unsigned bits, size_t len)
{
    uint8_t raw[64];
    reference_random(&seed, raw, sizeof(raw));
    reference_random(&seed, w->tweak, sizeof(w->tweak));
    w->len = len;
    find_tweaks(w, bits, raw);
    rs_stream_prepare(&key, RS_STREAM_XTS, raw, bits);
    reference_xts(1, bits, raw, rs_load_le64(w->tweak), rs_load_le64(w->tweak + 8), 1, len, plain, sealed,
                  len);
    for (unsigned encrypt = 0; encrypt < 2; encrypt++) {
        w->encrypt = encrypt;
        on_own_stack(w);
        assert_memory_equal(out, encrypt ? sealed : plain, len);
        scan(w);
    }
}

static void nothing_is_left(void **state)
{
    static const char *const sets[] = {"vaes-avx512", "vaes-avx2", "vaes-aesni"};
    (void)state;
    stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(stack != MAP_FAILED);
    reference_random(&seed, plain, sizeof(plain));
    struct work w = {.wide = rs_cpu_probe().avx512};
    for (unsigned i = 0; i < RS_ARRAY_LEN(sets); i++) {
        w.kernels = rs_stream_by_name(sets[i]);
        if (w.kernels == NULL) continue;
        for (size_t len = 16; len <= EVERY; len++) both_ways(&w, len % 3 ? 256u : 128u, len);
        for (size_t len = EVERY; len <= MAX_LEN; len += 13) both_ways(&w, len % 3 ? 256u : 128u, len);
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
    return cmocka_run_group_tests(tests, NULL, NULL);
}
