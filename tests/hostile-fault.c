/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A client's memory faults under a worker that works on it: that client's jobs
 * complete with RESEAL_EFAULT and it is reported; another client's queue on the
 * same worker goes on. A truncated file stands for memory whose pages cannot be
 * had again; what a real service does when huge pages are punched out is tested
 * where there are some.
 */

#include "offload/base/keymem.h"
#include "offload/service/worker.h"
#include "tests/support/raw.h"
#include "tests/support/service.h"

#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define LEN        65536u
#define HUGE_BYTES (2 << 20)

/* ---- one worker in this process ------------------------------------------------------ */

struct party {
    struct rs_seat *seat;
    struct rs_queue *queue;
    struct raw_queue client;
};

static struct rs_worker worker;
static struct rs_mailbox outbox;
static struct rs_tenant tenant = {.weight = RS_WEIGHT_DEFAULT};
static struct rs_binding *binding;

/* Waits for a note of a kind to come back; others are dropped. */
static struct rs_note *note_back(enum rs_note_kind kind)
{
    static struct rs_note *waiting;
    for (;;) {
        struct pollfd p = {.fd = outbox.event, .events = POLLIN};
        while (waiting != NULL) {
            struct rs_note *note = waiting;
            waiting = note->next;
            if (note->kind == kind) return note;
            free(note);
        }
        rs_mailbox_sleep(&outbox);
        if (rs_mailbox_empty(&outbox)) assert_int_equal(poll(&p, 1, 60000), 1);
        rs_mailbox_awake(&outbox, true);
        waiting = rs_mailbox_take(&outbox);
    }
}

static void tell(enum rs_note_kind kind, struct party *p)
{
    struct rs_note *note = calloc(1, sizeof(*note));
    assert_non_null(note);
    *note = (struct rs_note){
        .kind = kind, .seat = p->seat, .queue = p->queue, .binding = binding, .generation = 1};
    rs_mailbox_put(&worker.inbox, note);
    free(note_back(kind));
}

static void party_open(struct party *p, const struct rs_region *region)
{
    int peer;
    p->seat = calloc(1, sizeof(*p->seat) + sizeof(p->seat->slots[0]));
    assert_non_null(p->seat);
    p->seat->nslots = 1;
    atomic_store(&p->seat->tenant, &tenant);
    assert_int_equal(rs_queue_make(&p->queue, -1, 16, 4 * LEN, &peer), 0);
    p->queue->seat = p->seat;
    if (region != NULL) p->queue->regions[1] = p->queue->guarded[1] = *region;
    p->client.memfd = dup(p->queue->memfd);
    p->client.wake = peer;
    assert_int_equal(rs_ring_attach(&p->client.ring, p->client.memfd), 0);
    p->client.sq = rs_ring_sq_producer(&p->client.ring, 0);
    p->client.cq = rs_ring_cq_consumer(&p->client.ring, 0);
    tell(RS_NOTE_SESSION_ADD, p);
    tell(RS_NOTE_QUEUE_ADD, p);
}

static void party_close(struct party *p)
{
    tell(RS_NOTE_SEAT_END, p);
    raw_queue_close(&p->client);
    rs_queue_free(p->queue);
    free(p->seat);
}

static struct rs_region truncated_memory(void)
{
    FILE *f = tmpfile();
    assert_non_null(f);
    assert_int_equal(ftruncate(fileno(f), LEN), 0);
    struct rs_region r = {.len = LEN};
    r.base = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_SHARED, fileno(f), 0);
    assert_true(r.base != MAP_FAILED);
    assert_int_equal(ftruncate(fileno(f), LEN / 2), 0);
    fclose(f);
    return r;
}

static void one_client_ends_and_the_other_goes_on(RS_UNUSED void **state)
{
    struct party bad = {0}, good = {0};
    struct rs_region region = truncated_memory(); /* the queue's, which unmaps it */
    /* Here, not before: the test framework has handlers of its own while a test runs. */
    assert_int_equal(rs_guard_init(), 0);
    party_open(&bad, &region);
    party_open(&good, NULL);
    uint32_t handle = 1u << 16;
    struct rs_sqe fine = raw_job(&good.client, handle, 0, LEN, LEN);
    memset(raw_arena(&good.client), 0x5c, LEN);
    assert_int_equal(raw_run(&good.client, fine), 0);
    struct rs_sqe faults = raw_job(&bad.client, handle, 0, 0, LEN);
    faults.in_region = 1;
    faults.in_off = 0;
    assert_int_equal(raw_run(&bad.client, faults), RESEAL_EFAULT);
    struct rs_note *note = note_back(RS_NOTE_FAULT);
    assert_ptr_equal(note->seat, bad.seat);
    free(note);
    for (unsigned i = 0; i < 100; i++) assert_int_equal(raw_run(&good.client, fine), 0);
    assert_memory_equal(raw_arena(&good.client), raw_arena(&good.client) + LEN, LEN);
    party_close(&bad);
    party_close(&good);
}

static int start_worker(RS_UNUSED void **state)
{
    static const struct rs_transform_config plain = {.counter_at = RESEAL_NO_COUNTER};
    static struct rs_msg_session_keys keys;
    if (rs_keymem_init(0) != 0) return -1;
    rs_engines_init();
    if (rs_mailbox_init(&outbox) != 0 || rs_worker_start(&worker, 0, -1, &outbox) != 0) return -1;
    worker.scratch_len = rs_transform_scratch_size(&plain);
    worker.scratch = rs_scratch_map(worker.scratch_len, NULL);
    if (worker.scratch == NULL || rs_binding_make(&binding, &plain, &keys) != 0) return -1;
    return 0;
}

/* ---- a real service, with huge pages ---------------------------------------------------- */

static long huge_pages_free(void)
{
    FILE *f = fopen("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "re");
    long n = 0;
    if (f == NULL || fscanf(f, "%ld", &n) != 1) n = 0;
    if (f != NULL) fclose(f);
    return n;
}

static void punched_huge_pages(RS_UNUSED void **state)
{
    struct service own = {0};
    struct raw bad, good;
    struct raw_queue q, other;
    struct rs_cqe c;
    struct rs_msg msg;
    if (huge_pages_free() < 8) skip();
    service_start(&own);
    pid_t pid = service_child(&own, "reseald-work");
    raw_open(&bad, own.dir);
    raw_open(&good, own.dir);
    raw_queue_open(&bad, &q, 16, 8u << 20);
    raw_queue_open(&good, &other, 16, 65536);
    uint32_t mine = raw_session(&good, raw_side(RESEAL_XTS, raw_key(&good, RESEAL_XTS)),
                                raw_side(RESEAL_XTS, raw_key(&good, RESEAL_XTS)), NULL);
    uint32_t theirs = raw_session(&bad, raw_side(RESEAL_XTS, raw_key(&bad, RESEAL_XTS)),
                                  raw_side(RESEAL_XTS, raw_key(&bad, RESEAL_XTS)), NULL);
    /* Pages go back to the pool, and somebody else takes all that is free. */
    assert_int_equal(
        fallocate(q.memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 2 * HUGE_BYTES, 2 * HUGE_BYTES), 0);
    size_t all = (size_t)huge_pages_free() * HUGE_BYTES;
    void *hog = mmap(NULL, all, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_POPULATE, -1, 0);
    struct rs_sqe e = raw_job(&q, theirs, 0, 0, 4096);
    e.in_off = e.out_off = 2u * HUGE_BYTES + HUGE_BYTES / 2;
    raw_submit(&q, &e, 1);
    /* Either the pages could be had, or the client ends; nobody else does. */
    if (raw_wait(&q, &c, 60000) && c.status == RESEAL_EFAULT)
        assert_int_equal(rs_msg_recv(bad.control, &msg, 0), RESEAL_ENOSERVICE);
    assert_int_equal(raw_run(&other, raw_job(&other, mine, 0, 4096, 4096)), 0);
    assert_int_equal(service_child(&own, "reseald-work"), pid);
    if (hog != MAP_FAILED) munmap(hog, all);
    raw_queue_close(&q);
    raw_queue_close(&other);
    raw_close(&bad);
    raw_close(&good);
    service_stop(&own);
}

int main(void)
{
    if (!service_is_built()) return 77;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(one_client_ends_and_the_other_goes_on, start_worker),
        cmocka_unit_test(punched_huge_pages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
