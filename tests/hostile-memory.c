/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A client that does to the shared memory whatever it can, while the service
 * works for it, harms nobody else: another client's results stay right, and
 * reseald-work stays the same process.
 */

#include "tests/support/raw.h"
#include "tests/support/service.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define LEN    16384u
#define DEPTH  64u
#define ARENA  (1u << 20)
#define CHECKS 200 /* of the victim, at least */
#define ROUNDS 500 /* of the attacker, at least */

static pid_t worker;

/* ---- the victim: there and back must be the same ---------------------------------- */

struct victim {
    struct raw client;
    struct raw_queue queue;
    uint32_t there, back;
};

static void victim_open(struct victim *v)
{
    raw_open(&v->client, service.dir);
    raw_queue_open(&v->client, &v->queue, DEPTH, ARENA);
    reseal_key a = raw_key(&v->client, RESEAL_XTS), b = raw_key(&v->client, RESEAL_XTS);
    v->there = raw_session(&v->client, raw_side(RESEAL_XTS, a), raw_side(RESEAL_XTS, b), NULL);
    v->back = raw_session(&v->client, raw_side(RESEAL_XTS, b), raw_side(RESEAL_XTS, a), NULL);
}

static void victim_close(struct victim *v)
{
    raw_queue_close(&v->queue);
    raw_close(&v->client);
}

static void victim_check(struct victim *v, uint64_t seed)
{
    uint8_t *arena = raw_arena(&v->queue);
    for (unsigned i = 0; i < LEN; i += 8) rs_store_le64(arena + i, seed * 0x9e3779b97f4a7c15u + i);
    struct rs_sqe there = raw_job(&v->queue, v->there, 0, LEN, LEN);
    struct rs_sqe back = raw_job(&v->queue, v->back, LEN, 2 * LEN, LEN);
    there.src_tweak = there.dst_tweak = back.src_tweak = back.dst_tweak = seed;
    assert_int_equal(raw_run(&v->queue, there), 0);
    assert_int_equal(raw_run(&v->queue, back), 0);
    assert_memory_equal(arena, arena + 2 * LEN, LEN);
    assert_memory_not_equal(arena, arena + LEN, LEN);
}

/* ---- the attacker, in a process of its own ----------------------------------------- */

struct attacker {
    struct raw client;
    struct raw_queue queue;
    uint32_t xts, gcm, open;
    uint64_t random;
};

static uint64_t next(struct attacker *a)
{
    a->random ^= a->random << 13;
    a->random ^= a->random >> 7;
    a->random ^= a->random << 17;
    return a->random;
}

static void attacker_open(struct attacker *a)
{
    *a = (struct attacker){.random = 0x123456789abcdefu};
    raw_open(&a->client, service.dir);
    raw_queue_open(&a->client, &a->queue, DEPTH, ARENA);
    reseal_key x = raw_key(&a->client, RESEAL_XTS), y = raw_key(&a->client, RESEAL_XTS);
    reseal_key g = raw_key(&a->client, RESEAL_GCM);
    a->xts = raw_session(&a->client, raw_side(RESEAL_XTS, x), raw_side(RESEAL_XTS, y), NULL);
    a->gcm = raw_session(&a->client, raw_side(RESEAL_XTS, x), raw_side(RESEAL_GCM, g), NULL);
    a->open = raw_session(&a->client, raw_side(RESEAL_GCM, g), raw_side(RESEAL_XTS, y), NULL);
}

/* Entries that are right, so that the service really works on what is being changed. */
static void submit_some(struct attacker *a)
{
    struct rs_sqe e[8];
    for (unsigned i = 0; i < 8; i++) {
        uint32_t sessions[] = {a->xts, a->gcm, a->open};
        e[i] =
            raw_job(&a->queue, sessions[next(a) % 3], (next(a) % 16) * LEN, (16 + next(a) % 16) * LEN, LEN);
        e[i].aux = (uint32_t)(next(a) % DEPTH) * RS_AUX_SIZE;
    }
    raw_submit(&a->queue, e, 8);
}

static void garbage(struct attacker *a, uint8_t *at, size_t len)
{
    for (size_t i = 0; i + 8 <= len; i += 8) rs_store_le64(at + i, next(a));
}

static void write_rings(struct attacker *a)
{
    submit_some(a);
    garbage(a, (uint8_t *)a->queue.ring.control, 4096);
    garbage(a, (uint8_t *)a->queue.ring.sq, 2u * DEPTH * RS_RING_ENTRY);
}

/* Indices that lie, entries that are half right. */
static void write_indices(struct attacker *a)
{
    struct rs_ring_control *c = a->queue.ring.control;
    submit_some(a);
    for (unsigned i = 0; i < DEPTH; i++) {
        struct rs_sqe e = raw_job(&a->queue, a->gcm, next(a) % ARENA, next(a) % ARENA, (uint32_t)next(a));
        e.aux = (uint32_t)next(a) & ~63u;
        if (next(a) % 2 == 0) e.len = e.out_cap = 4096;
        memcpy(&a->queue.ring.sq[i], &e, sizeof(e));
    }
    atomic_store(&c->sq_producer.index, (uint32_t)next(a));
    atomic_store(&c->cq_consumer.index, (uint32_t)next(a));
    atomic_store(&c->cq_consumer.need_wake, (uint32_t)next(a));
}

/* Bounded: where the ring itself was harmed, its indices lie to the attacker too. */
static void drain(struct attacker *a)
{
    struct rs_cqe c;
    for (unsigned i = 0; i < DEPTH && rs_ring_available(&a->queue.cq) != 0; i++)
        if (!raw_wait(&a->queue, &c, 0)) return;
}

static void rewrite_payload(struct attacker *a)
{
    submit_some(a);
    garbage(a, a->queue.ring.data, DEPTH * RS_AUX_SIZE);
    garbage(a, raw_arena(&a->queue), 16 * LEN);
    drain(a);
}

static void punch_holes(struct attacker *a)
{
    submit_some(a);
    off_t off = (off_t)(next(a) % (a->queue.ring.total / 4096)) * 4096;
    /* Now and then the ring itself. */
    if (fallocate(a->queue.memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off, 65536) != 0) _exit(3);
    drain(a);
}

/* The wake socket is made blocking and filled; completions are never read, a wake-up is always asked for. */
static void fill_wake(struct attacker *a)
{
    static const char bytes[4096];
    int flags = fcntl(a->queue.wake, F_GETFL);
    fcntl(a->queue.wake, F_SETFL, flags & ~O_NONBLOCK);
    for (unsigned i = 0; i < 64; i++)
        if (send(a->queue.wake, bytes, sizeof(bytes), MSG_DONTWAIT | MSG_NOSIGNAL) < 0) break;
    atomic_store(&a->queue.ring.control->cq_consumer.need_wake, 1);
    struct rs_sqe e[8];
    for (unsigned i = 0; i < 8; i++) e[i] = (struct rs_sqe){.op = RS_OP_NOP};
    raw_submit(&a->queue, e, 8);
    uint32_t done = rs_ring_available(&a->queue.cq);
    if (done != 0) rs_ring_take(&a->queue.cq, done);
}

static void close_wake(struct attacker *a)
{
    submit_some(a);
    rs_cleanup_close(&a->queue.wake);
}

static void attack(void (*how)(struct attacker *), _Atomic unsigned *rounds)
{
    struct attacker a;
    signal(SIGPIPE, SIG_IGN);
    attacker_open(&a);
    for (;;) {
        how(&a);
        atomic_fetch_add(rounds, 1);
    }
}

/* ---- both at once --------------------------------------------------------------------- */

static void survive(void (*how)(struct attacker *))
{
    struct victim v;
    _Atomic unsigned *rounds = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(rounds != MAP_FAILED);
    victim_open(&v);
    pid_t pid = fork(), ended = 0;
    assert_true(pid >= 0);
    if (pid == 0) {
        attack(how, rounds);
        _exit(0);
    }
    /* Until it had its chance, or gave up because the service ended its connection. */
    for (uint64_t i = 0; i < CHECKS || (ended == 0 && atomic_load(rounds) < ROUNDS); i++) {
        victim_check(&v, i + 1);
        if (ended == 0) ended = waitpid(pid, NULL, WNOHANG);
    }
    if (ended == 0) {
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
    }
    assert_true(atomic_load(rounds) != 0);
    for (uint64_t i = 0; i < 10; i++) victim_check(&v, i + 1);
    victim_close(&v);
    munmap(rounds, 4096);
    assert_int_equal(service_child(&service, "reseald-work"), worker);
}

static void rings(RS_UNUSED void **state)
{
    survive(write_rings);
}
static void indices(RS_UNUSED void **state)
{
    survive(write_indices);
}
static void payload(RS_UNUSED void **state)
{
    survive(rewrite_payload);
}
static void holes(RS_UNUSED void **state)
{
    survive(punch_holes);
}
static void wake_filled(RS_UNUSED void **state)
{
    survive(fill_wake);
}
static void wake_closed(RS_UNUSED void **state)
{
    survive(close_wake);
}

static int start(RS_UNUSED void **state)
{
    service_start(&service);
    worker = service_child(&service, "reseald-work");
    return 0;
}

int main(void)
{
    if (!service_is_built()) return 77;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rings), cmocka_unit_test(indices),     cmocka_unit_test(payload),
        cmocka_unit_test(holes), cmocka_unit_test(wake_filled), cmocka_unit_test(wake_closed),
    };
    return cmocka_run_group_tests(tests, start, service_group_stop);
}
