/* SPDX-License-Identifier: Apache-2.0 */
/* After a batch, the stack that a kernel worked on holds no round key and no block of plaintext. */
#include "providers/crypto/engine.h"
#include "providers/crypto/vaes/key.h"
#include "tests/support/cmocka.h"
#include "tests/support/remains.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define STACK (256u << 10)
#define LEN   20480u /* a counter table, several groups, and a tail of whole units */

static uint8_t plain[LEN], sealed[LEN], out[LEN];
static struct rs_vaes_key keys[2] RS_ALIGNED(RS_KEY_ALIGN);

struct work {
    const struct rs_engine *engine;
    struct rs_run run;
    void *scratch;
    size_t failed;
};

static void *work_main(void *arg)
{
    struct work *w = arg;
    w->failed = w->engine->run(&w->run, 1, w->scratch, 0);
    return NULL;
}

static void on_own_stack(struct work *w, uint8_t *stack)
{
    pthread_attr_t attr;
    pthread_t thread;
    assert_int_equal(pthread_attr_init(&attr), 0);
    assert_int_equal(pthread_attr_setstack(&attr, stack, STACK), 0);
    assert_int_equal(pthread_create(&thread, &attr, work_main, w), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    pthread_attr_destroy(&attr);
    assert_int_equal(w->failed, 0);
}

static void assert_absent(const struct remains *stack, const uint8_t block[16], const char *what,
                          const struct work *w)
{
    if (!remains_hold(stack, block)) return;
    fail_msg("%s: %s is left on the stack (source %u, destination %u)", w->engine->name, what,
             w->run.src.cipher, w->run.dst.cipher);
}

static void scan(const struct remains *stack, const struct work *w)
{
    for (unsigned side = 0; side < 2; side++)
        for (unsigned r = 0; keys[side].rounds != 0 && r <= keys[side].rounds; r++) {
            assert_absent(stack, keys[side].enc[r], "an encryption round key", w);
            assert_absent(stack, keys[side].dec[r], "a decryption round key", w);
            if (keys[side].tweak[0][0] != 0)
                assert_absent(stack, keys[side].tweak[r], "a tweak round key", w);
        }
    for (size_t at = 0; at < LEN; at += 16) assert_absent(stack, plain + at, "plaintext", w);
}

static void fill_side(struct rs_side *s, const struct rs_engine *e, enum rs_cipher cipher,
                      struct rs_vaes_key *key, uint8_t seed)
{
    uint8_t raw[64];
    for (unsigned i = 0; i < sizeof(raw); i++) raw[i] = (uint8_t)(seed + 7 * i + i * i);
    *s = (struct rs_side){.cipher = (uint8_t)cipher, .unit = 512, .step = 1, .tweak_lo = 1000u + seed};
    memset(s->iv, seed, sizeof(s->iv));
    memset(key, 0, sizeof(*key));
    if (cipher == RS_PLAIN) return;
    assert_int_equal(e->prepare(key, cipher, 256, raw, cipher == RS_XTS ? 64 : 32), 0);
    s->key = key;
}

static void pair(const struct rs_engine *e, enum rs_cipher src, enum rs_cipher dst, uint8_t *stack,
                 void *scratch)
{
    struct work w = {.engine = e, .scratch = scratch};
    /* Seal the source first, with the same engine; what that leaves is wiped before it counts. */
    fill_side(&w.run.src, e, RS_PLAIN, &keys[1], 3);
    fill_side(&w.run.dst, e, src, &keys[0], 3);
    w.run.in = plain;
    w.run.out = sealed;
    w.run.len = LEN;
    if (src == RS_PLAIN)
        memcpy(sealed, plain, LEN);
    else
        on_own_stack(&w, stack);
    w.run.src = w.run.dst;
    fill_side(&w.run.dst, e, dst, &keys[1], 91);
    w.run.in = sealed;
    w.run.out = out;
    memset(stack, 0, STACK);
    on_own_stack(&w, stack);
    const struct remains left = remains_of(stack, STACK);
    scan(&left, &w);
}

static void nothing_is_left(void **state)
{
    (void)state;
    unsigned engines = 0;
    uint8_t *stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    void *scratch = aligned_alloc(64, rs_round_up(rs_engine_scratch_size(LEN), 64));
    assert_true(stack != MAP_FAILED && scratch != NULL);
    for (size_t i = 0; i < LEN; i++) plain[i] = (uint8_t)(rand() >> 7);
    rs_engines_init();
    for (const struct rs_engine *const *e = rs_engines(); *e != NULL; e++) {
        if (strncmp((*e)->name, "vaes", 4) != 0) continue;
        engines++;
        for (unsigned src = RS_PLAIN; src <= RS_GCM; src++)
            for (unsigned dst = RS_PLAIN; dst <= RS_GCM; dst++)
                if (src != RS_PLAIN || dst != RS_PLAIN) pair(*e, src, dst, stack, scratch);
    }
    free(scratch);
    munmap(stack, STACK);
    if (engines == 0) {
        puts("no engine of ours works on this CPU");
        exit(77);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(nothing_is_left)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
