/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two threads, two rings: a client that submits and a worker that answers,
 * both of which go to sleep whenever they find nothing. A wake-up that is lost
 * hangs the test; an entry that is torn, lost or doubled fails it.
 */
#include "offload/ring/ring.h"
#include "reseal/reseal.h"
#include "tests/support/cmocka.h"

#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#define DEPTH 16u
#define JOBS  200000u

struct bench {
    struct rs_ring client, worker; /* two mappings of one memory, as in two processes */
    int sock[2];                   /* 0: client, 1: worker */
    uint64_t slept[2];
    uint64_t first; /* index both rings begin at */
};

static void sleep_on(struct rs_ring_end *consumer, int sock, uint64_t *slept)
{
    if (rs_ring_announce_sleep(consumer)) {
        struct pollfd p = {.fd = sock, .events = POLLIN};
        poll(&p, 1, -1);
        rs_ring_awake(consumer);
        (*slept)++;
    }
    int err = rs_ring_drain(sock);
    (void)err; /* the end of the other thread shows in the entries */
}

static void *worker_main(void *arg)
{
    struct bench *b = arg;
    struct rs_ring_end sq = rs_ring_sq_consumer(&b->worker, (uint32_t)b->first);
    struct rs_ring_end cq = rs_ring_cq_producer(&b->worker, (uint32_t)b->first);
    for (uint32_t done = 0; done < JOBS;) {
        uint32_t n = rs_ring_available(&sq), room = rs_ring_room(&cq);
        n = RS_MIN(n, room);
        for (uint32_t i = 0; i < n; i++) {
            struct rs_sqe e;
            rs_ring_copy_once(&e, &b->worker.sq[rs_ring_slot(&sq, i)], sizeof(e));
            b->worker.cq[rs_ring_slot(&cq, i)] =
                (struct rs_cqe){.user_data = e.user_data, .out_len = (uint32_t)(e.in_off ^ e.out_off)};
        }
        done += n;
        if (n != 0) {
            rs_ring_take(&sq, n);
            rs_ring_publish(&cq, n);
            if (rs_ring_should_wake(&cq)) assert_int_equal(rs_ring_wake(b->sock[1]), 0);
        } else {
            sleep_on(&sq, b->sock[1], &b->slept[1]);
        }
    }
    return NULL;
}

/* Submits a burst whose size changes, so that rings run full and empty. */
static uint32_t submit_burst(struct bench *b, struct rs_ring_end *sq, uint32_t sent)
{
    uint32_t room = rs_ring_room(sq), want = 1 + sent % 23 % DEPTH;
    uint32_t n = RS_MIN(room, want);
    n = RS_MIN(n, JOBS - sent);
    for (uint32_t i = 0; i < n; i++) {
        uint64_t v = sent + i;
        b->client.sq[rs_ring_slot(sq, i)] =
            (struct rs_sqe){.user_data = v, .in_off = v * 0x9e3779b97f4a7c15ull, .out_off = v * v};
    }
    if (n == 0) return 0;
    rs_ring_publish(sq, n);
    if (rs_ring_should_wake(sq)) assert_int_equal(rs_ring_wake(b->sock[0]), 0);
    return n;
}

static void client_main(struct bench *b)
{
    struct rs_ring_end sq = rs_ring_sq_producer(&b->client, (uint32_t)b->first);
    struct rs_ring_end cq = rs_ring_cq_consumer(&b->client, (uint32_t)b->first);
    uint32_t sent = 0, got = 0;
    while (got < JOBS) {
        /* As in libreseal: no more outstanding than there are slots for completions. */
        if (sent < JOBS && sent - got < DEPTH) sent += submit_burst(b, &sq, sent);
        uint32_t n = rs_ring_available(&cq);
        for (uint32_t i = 0; i < n; i++) {
            struct rs_cqe e;
            rs_ring_copy_once(&e, &b->client.cq[rs_ring_slot(&cq, i)], sizeof(e));
            uint64_t v = got + i;
            assert_int_equal(e.user_data, v);
            assert_int_equal(e.out_len, (uint32_t)((v * 0x9e3779b97f4a7c15ull) ^ (v * v)));
        }
        got += n;
        if (n != 0)
            rs_ring_take(&cq, n);
        else if (sent - got == DEPTH || sent == JOBS || sent % 3 == 0)
            if (sent != got) sleep_on(&cq, b->sock[0], &b->slept[0]);
    }
}

static void run_from(uint32_t first)
{
    struct bench b = {.first = first};
    int memfd;
    pthread_t worker;
    assert_int_equal(rs_ring_create(&b.worker, &memfd, DEPTH, 4096, 0), 0);
    assert_int_equal(rs_ring_attach(&b.client, memfd), 0);
    close(memfd);
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, b.sock), 0);
    struct rs_ring_end ends[] = {rs_ring_sq_producer(&b.client, first), rs_ring_sq_consumer(&b.client, first),
                                 rs_ring_cq_producer(&b.client, first),
                                 rs_ring_cq_consumer(&b.client, first)};
    for (size_t i = 0; i < RS_ARRAY_LEN(ends); i++) atomic_store(&ends[i].mine->index, first);
    assert_int_equal(pthread_create(&worker, NULL, worker_main, &b), 0);
    client_main(&b);
    pthread_join(worker, NULL);
    print_message("%u jobs; the client slept %llu times, the worker %llu\n", JOBS,
                  (unsigned long long)b.slept[0], (unsigned long long)b.slept[1]);
    rs_ring_detach(&b.client);
    rs_ring_detach(&b.worker);
    close(b.sock[0]);
    close(b.sock[1]);
}

static void no_wake_up_and_no_entry_is_lost(void **state)
{
    (void)state;
    run_from(0);
}

static void nor_where_the_indices_wrap(void **state)
{
    (void)state;
    run_from(0xffffffffu - JOBS / 2);
}

static void waking_never_blocks_and_tells_when_nobody_is_there(void **state)
{
    (void)state;
    int sock[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sock), 0);
    /* A client that never drains: its socket fills up, and that is a success. */
    for (unsigned i = 0; i < 10000; i++) assert_int_equal(rs_ring_wake(sock[0]), 0);
    assert_int_equal(rs_ring_drain(sock[1]), 0);
    close(sock[1]);
    assert_int_equal(rs_ring_wake(sock[0]), RESEAL_ENOSERVICE);
    assert_int_equal(rs_ring_drain(sock[0]), RESEAL_ENOSERVICE);
    close(sock[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_wake_up_and_no_entry_is_lost),
        cmocka_unit_test(nor_where_the_indices_wrap),
        cmocka_unit_test(waking_never_blocks_and_tells_when_nobody_is_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
