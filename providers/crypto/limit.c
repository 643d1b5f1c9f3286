/* SPDX-License-Identifier: Apache-2.0 */
#include "providers/crypto/limit.h"

#include "offload/base/bytes.h"

unsigned rs_limit_rounds(unsigned src_bits, unsigned dst_bits)
{
    return (src_bits == 0 ? 0 : src_bits / 32 + 6) + (dst_bits == 0 ? 0 : dst_bits / 32 + 6);
}

static double per_second(uint64_t amount, uint64_t ns)
{
    return (double)amount * 1e9 / (double)(ns == 0 ? 1 : ns);
}

static double memcpy_rate(void *out, const void *in, size_t len)
{
    uint64_t start = rs_now_ns();
    memcpy(out, in, len);
    __asm__ volatile("" : : "r"(out) : "memory");
    return per_second(len, rs_now_ns() - start);
}

#ifdef RESEAL_X86

#include "providers/crypto/vaes/cpu.h"

#include <immintrin.h>

#define STATES 12      /* independent, more than latency times ports of any core so far */
#define LAPS   4096    /* rounds on each state in a call */
#define SAMPLE 200000u /* ns */

/* `LAPS` rounds on `STATES` vectors of independent blocks; the result is kept so that the work is. */
#define ROUNDS(name, isa, vector, set, enc)                                                                  \
    __attribute__((target(isa), noinline)) static void name(void *keep)                                      \
    {                                                                                                        \
        vector s[STATES], k = set(0x5a);                                                                     \
        for (unsigned i = 0; i < STATES; i++) s[i] = set((char)i);                                           \
        for (unsigned r = 0; r < LAPS; r++) {                                                                \
            _Pragma("GCC unroll 16") for (unsigned i = 0; i < STATES; i++) s[i] = enc(s[i], k);              \
        }                                                                                                    \
        for (unsigned i = 1; i < STATES; i++) s[0] = enc(s[0], s[i]);                                        \
        memcpy(keep, &s[0], sizeof(s[0]));                                                                   \
        __asm__ volatile("" : : "r"(keep) : "memory");                                                       \
    }
ROUNDS(rounds_avx512, "vaes,avx512f,avx512bw", __m512i, _mm512_set1_epi8, _mm512_aesenc_epi128)
ROUNDS(rounds_avx2, "vaes,avx2", __m256i, _mm256_set1_epi8, _mm256_aesenc_epi128)
ROUNDS(rounds_aesni, "aes", __m128i, _mm_set1_epi8, _mm_aesenc_si128)

static double rounds_rate(void (*rounds)(void *keep), unsigned blocks)
{
    uint8_t keep[64] RS_ALIGNED(64);
    uint64_t calls = 0, now, start = rs_now_ns();
    do {
        rounds(keep);
        calls++;
        now = rs_now_ns();
    } while (now - start < SAMPLE);
    return per_second(calls * STATES * LAPS * blocks, now - start);
}

double rs_limit_aes_rounds_per_second(void)
{
    /* CPUID traps in a guest: ask once. Racing threads store the same. */
    static int known;
    int width = __atomic_load_n(&known, __ATOMIC_RELAXED);
    if (width == 0) {
        struct rs_cpu cpu = rs_cpu_probe();
        width = cpu.avx512 ? 4 : cpu.avx2 ? 2 : cpu.aesni ? 1 : -1;
        __atomic_store_n(&known, width, __ATOMIC_RELAXED);
    }
    if (width == 4) return rounds_rate(rounds_avx512, 4);
    if (width == 2) return rounds_rate(rounds_avx2, 2);
    return width == 1 ? rounds_rate(rounds_aesni, 1) : 0;
}

static double stream_rate(void *out, const void *in, size_t len)
{
    uint64_t start = rs_now_ns();
    uint8_t *to = out;
    const uint8_t *from = in;
    size_t head = RS_MIN(len, (0 - (uintptr_t)to) & 63);
    memcpy(to, from, head);
    size_t at = head;
    for (; len - at >= 64; at += 64) {
        const __m128i *x = (const __m128i *)(from + at);
        __m128i *y = (__m128i *)(to + at);
        _mm_prefetch((const char *)(from + RS_MIN(at + 2048, len - 1)), _MM_HINT_T0);
        __m128i a = _mm_loadu_si128(x), b = _mm_loadu_si128(x + 1), c = _mm_loadu_si128(x + 2);
        __m128i d = _mm_loadu_si128(x + 3);
        _mm_stream_si128(y, a);
        _mm_stream_si128(y + 1, b);
        _mm_stream_si128(y + 2, c);
        _mm_stream_si128(y + 3, d);
    }
    memcpy(to + at, from + at, len - at);
    _mm_sfence();
    return per_second(len, rs_now_ns() - start);
}

#else

double rs_limit_aes_rounds_per_second(void)
{
    return 0;
}

static double stream_rate(void *out, const void *in, size_t len)
{
    return memcpy_rate(out, in, len);
}

#endif

double rs_limit_copy(void *out, const void *in, size_t len)
{
    double plain = memcpy_rate(out, in, len), stream = stream_rate(out, in, len);
    return RS_MAX(plain, stream);
}
