/* SPDX-License-Identifier: Apache-2.0 */
/* Another thread changes the input and the output while an engine works on them. A record that verifies must
 * come out as the bytes that verified, one that does not must leave its destination alone, and a new tag must
 * be of the bytes that the engine made: each byte is loaded once, none is read back. */
#include "providers/crypto/engine.h"
#include "reseal/reseal.h"
#include "tests/support/reference.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#define LEN    49152u
#define ROUNDS 60u

static uint8_t plain[LEN], sealed[LEN], wanted[LEN], in[LEN], out[LEN], raw[2][64];
static atomic_uint turn; /* even: keep still; odd: write */
static atomic_bool still, done;
static _Atomic(volatile uint8_t *) target;

/* Flips a byte and back, here and there, as fast as it can; leaves all bytes as they were. */
static void *writer(void *arg)
{
    uint32_t at = 1;
    (void)arg;
    while (!atomic_load(&done)) {
        if ((atomic_load(&turn) & 1) == 0) {
            atomic_store(&still, true);
            continue;
        }
        volatile uint8_t *p = atomic_load(&target);
        at = at * 1664525u + 1013904223u;
        volatile uint8_t *byte = &p[(at >> 8) % LEN];
        uint8_t was = *byte;
        for (int i = 0; i < 40; i++) *byte = (uint8_t)(*byte ^ 0x10);
        *byte = was;
    }
    return NULL;
}

static void writer_on(uint8_t *p)
{
    atomic_store(&still, false);
    atomic_store(&target, p);
    atomic_fetch_add(&turn, 1);
}

static void writer_off(void)
{
    atomic_store(&still, false);
    atomic_fetch_add(&turn, 1);
    while (!atomic_load(&still)) continue;
}

struct pair {
    const struct rs_engine *engine;
    struct rs_shape shape;
    void *keys[2];
    void *scratch;
    uint8_t tags[2][RS_TAG_LEN];
};

static struct rs_side side_of(const struct pair *p, unsigned which)
{
    struct rs_side s = {
        .cipher = which ? p->shape.dst : p->shape.src, .unit = 4096, .step = 8, .key = p->keys[which]};
    memset(s.iv, (int)which + 1, sizeof(s.iv));
    return s;
}

static void seal(struct pair *p, unsigned which, uint8_t *to)
{
    struct rs_side s = side_of(p, which);
    if (s.cipher == RS_PLAIN) memcpy(to, plain, LEN);
    if (s.cipher == RS_XTS) reference_xts(1, 256, raw[which], 0, 0, 8, 4096, plain, to, LEN);
    if (s.cipher == RS_GCM) reference_seal(256, raw[which], s.iv, NULL, 0, plain, to, LEN, p->tags[which]);
}

static struct rs_run run_of(struct pair *p)
{
    struct rs_run run = {.in = in, .out = out, .len = LEN, .src = side_of(p, 0), .dst = side_of(p, 1)};
    memcpy(run.src.tag, p->tags[0], RS_TAG_LEN);
    return run;
}

static void changed_input(struct pair *p)
{
    for (unsigned i = 0; i < ROUNDS; i++) {
        struct rs_run run = run_of(p);
        memcpy(in, sealed, LEN);
        memset(out, 0x5a, LEN);
        writer_on(in);
        p->engine->run(&run, 1, p->scratch, 0);
        writer_off();
        if (run.status == 0) {
            assert_memory_equal(out, wanted, LEN);
        } else {
            assert_int_equal(run.status, RESEAL_EAUTH);
            for (size_t k = 0; k < LEN; k++)
                if (out[k] != 0x5a) fail_msg("%s wrote %zu of a record that failed", p->engine->name, k);
        }
    }
}

static void changed_output(struct pair *p)
{
    for (unsigned i = 0; i < ROUNDS; i++) {
        struct rs_run run = run_of(p);
        memcpy(in, sealed, LEN);
        writer_on(out);
        p->engine->run(&run, 1, p->scratch, 0);
        writer_off();
        assert_int_equal(run.status, 0);
        assert_memory_equal(run.dst.tag, p->tags[1], RS_TAG_LEN);
    }
}

static void each_pair(const struct rs_engine *engine, unsigned src, unsigned dst, void (*test)(struct pair *))
{
    struct pair p = {.engine = engine};
    p.shape = (struct rs_shape){
        .src = (uint8_t)src, .dst = (uint8_t)dst, .src_unit = 4096, .dst_unit = 4096, .len = LEN};
    p.shape.src_bits = src == RS_PLAIN ? 0 : 256;
    p.shape.dst_bits = dst == RS_PLAIN ? 0 : 256;
    if (!engine->supports(&p.shape)) return;
    for (unsigned k = 0; k < 2; k++) {
        enum rs_cipher cipher = (enum rs_cipher)(k ? dst : src);
        if (cipher == RS_PLAIN) continue;
        p.keys[k] = aligned_alloc(RS_KEY_ALIGN, rs_round_up(engine->key_size(cipher, 256), RS_KEY_ALIGN));
        assert_non_null(p.keys[k]);
        assert_int_equal(engine->prepare(p.keys[k], cipher, 256, raw[k], cipher == RS_XTS ? 64 : 32), 0);
    }
    p.scratch = aligned_alloc(64, rs_round_up(rs_engine_scratch_size(LEN), 64));
    assert_non_null(p.scratch);
    seal(&p, 0, sealed);
    seal(&p, 1, wanted);
    test(&p);
    for (unsigned k = 0; k < 2; k++)
        if (p.keys[k] != NULL) engine->wipe(p.keys[k], (enum rs_cipher)(k ? dst : src), 256);
    free(p.keys[0]);
    free(p.keys[1]);
    free(p.scratch);
}

static void records_come_out_as_they_verified(void **state)
{
    (void)state;
    for (const struct rs_engine *const *e = rs_engines(); *e != NULL; e++)
        for (unsigned dst = RS_PLAIN; dst <= RS_GCM; dst++) each_pair(*e, RS_GCM, dst, changed_input);
}

static void tags_are_of_what_was_made(void **state)
{
    (void)state;
    for (const struct rs_engine *const *e = rs_engines(); *e != NULL; e++)
        for (unsigned src = RS_PLAIN; src <= RS_GCM; src++) each_pair(*e, src, RS_GCM, changed_output);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records_come_out_as_they_verified),
        cmocka_unit_test(tags_are_of_what_was_made),
    };
    uint64_t seed = 9;
    pthread_t thread;
#ifdef __SANITIZE_THREAD__
    puts("races on purpose: not for the thread sanitizer");
    return 77;
#endif
    reference_random(&seed, plain, sizeof(plain));
    reference_random(&seed, raw, sizeof(raw));
    rs_engines_init();
    if (pthread_create(&thread, NULL, writer, NULL) != 0) return 2;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    atomic_store(&done, true);
    pthread_join(thread, NULL);
    return failed;
}
