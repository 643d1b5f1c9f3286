/* SPDX-License-Identifier: Apache-2.0 */
/* libreseal against a real service: the simple call, many jobs in flight, refusals, cancelling, closing. */
#include "tests/support/client.h"
#include "tests/support/cmocka.h"
#include "tests/support/reference.h"

#include <stdlib.h>
#include <string.h>

static struct client c;
static uint8_t key_a[64], key_b[64], key_g[32];
static uint64_t seed = 7;

static void the_simple_call_does_what_openssl_does(void **state)
{
    (void)state;
    uint8_t plain[8 * 4096], sealed[sizeof(plain)], want[sizeof(plain)], out[sizeof(plain)];
    reference_random(&seed, plain, sizeof(plain));
    reference_xts(1, 256, key_a, 40, 0, 8, 4096, plain, sealed, sizeof(plain));
    reference_xts(1, 256, key_b, 1000, 0, 8, 4096, plain, want, sizeof(plain));
    reseal_session *s = client_session(c.r, client_xts(client_key(c.r, RESEAL_XTS, key_a, 64)),
                                       client_xts(client_key(c.r, RESEAL_XTS, key_b, 64)), 0);
    struct reseal_job job = {
        .in = sealed, .out = out, .len = sizeof(sealed), .src_tweak = 40, .dst_tweak = 1000};
    assert_int_equal(reseal_run(s, &job), sizeof(out));
    assert_memory_equal(out, want, sizeof(out));
    /* Larger than the queue that the first call opened, and in place as the caller sees it. */
    size_t len = 4u << 20;
    uint8_t *big = malloc(len), *expected = malloc(len);
    reference_random(&seed, big, len);
    reference_xts(0, 256, key_a, 0, 0, 8, 4096, big, expected, len);
    reference_xts(1, 256, key_b, 0, 0, 8, 4096, expected, expected, len);
    job = (struct reseal_job){.in = big, .out = big, .len = (uint32_t)len};
    assert_int_equal(reseal_run(s, &job), len);
    assert_memory_equal(big, expected, len);
    job.len++;
    assert_int_equal(reseal_run(s, &job), RESEAL_EINVAL);
    job.len = 4095;
    assert_int_equal(reseal_run(s, &job), RESEAL_EUNIT);
    job.len = 8192;
    job.out_cap = 4096;
    assert_int_equal(reseal_run(s, &job), RESEAL_ESPACE);
    free(big);
    free(expected);
    reseal_session_close(s);
}

static void a_record_comes_back_with_iv_tag_salt_and_counter(void **state)
{
    (void)state;
    reseal_key key = client_key(c.r, RESEAL_GCM, key_g, 32);
    reseal_session *seal = client_session(c.r, client_plain(), client_gcm(key), 0);
    reseal_session *open = client_session(c.r, client_gcm(key), client_plain(), 0);
    uint8_t plain[1000], sealed[1000], out[1000];
    reference_random(&seed, plain, sizeof(plain));
    struct reseal_record first = {.aad_len = 5, .aad = "first"}, second = first;
    struct reseal_job job = {.in = plain, .out = sealed, .len = sizeof(plain), .destination = &second};
    assert_int_equal(reseal_run(seal, &job), sizeof(plain));
    job.destination = &first;
    assert_int_equal(reseal_run(seal, &job), sizeof(plain));
    assert_int_equal(first.counter, second.counter + 1);
    assert_memory_equal(first.salt, second.salt, sizeof(first.salt));
    assert_memory_not_equal(first.iv, second.iv, sizeof(first.iv));
    first.derive = 1;
    job = (struct reseal_job){.in = sealed, .out = out, .len = sizeof(sealed), .source = &first};
    assert_int_equal(reseal_run(open, &job), sizeof(plain));
    assert_memory_equal(out, plain, sizeof(plain));
    memset(out, 0x55, sizeof(out));
    first.aad[0] ^= 1;
    assert_int_equal(reseal_run(open, &job), RESEAL_EAUTH);
    for (size_t i = 0; i < sizeof(out); i++) assert_int_equal(out[i], 0x55);
    first.aad_len = 129;
    assert_int_equal(reseal_run(open, &job), RESEAL_EINVAL);
    reseal_session_close(seal);
    reseal_session_close(open);
}

/* Takes exactly n completions. */
static void drain(reseal_queue *q, unsigned n, int status)
{
    struct reseal_completion done[16];
    while (n != 0) {
        int got = reseal_wait(q, done, 16, -1);
        assert_in_range(got, 1, n);
        for (int i = 0; i < got; i++) assert_int_equal(done[i].status, status);
        n -= (unsigned)got;
    }
}

static void every_accepted_job_completes_once_and_a_full_ring_pushes_back(void **state)
{
    (void)state;
    enum { DEPTH = 16, JOBS = 5000 };
    reseal_session *s = client_session(c.r, client_xts(client_random_key(c.r, RESEAL_XTS)),
                                       client_xts(client_random_key(c.r, RESEAL_XTS)), 0);
    reseal_queue *q = client_queue(c.r, DEPTH, 2 * DEPTH * 4096);
    uint8_t *arena = reseal_queue_arena(q, NULL), seen[JOBS] = {0};
    unsigned sent = 0, done = 0;
    while (done < JOBS) {
        struct reseal_job jobs[DEPTH + 3];
        unsigned n = JOBS - sent < DEPTH + 3 ? JOBS - sent : DEPTH + 3;
        for (unsigned i = 0; i < n; i++) {
            uint8_t *at = arena + (sent + i) % DEPTH * 8192u;
            jobs[i] = (struct reseal_job){
                .session = s, .in = at, .out = at + 4096, .len = 4096, .user_data = sent + i};
        }
        int accepted = n != 0 ? reseal_submit(q, jobs, n) : 0;
        if (accepted == RESEAL_EAGAIN) accepted = 0;
        assert_in_range(accepted, 0, DEPTH);
        sent += (unsigned)accepted;
        assert_true(sent - done <= DEPTH);
        struct reseal_completion got[5];
        int m = sent % 3 != 0 ? reseal_poll(q, got, 5) : reseal_wait(q, got, 5, 60000);
        assert_in_range(m, 0, 5);
        for (int i = 0; i < m; i++) {
            assert_int_equal(got[i].status, 0);
            assert_int_equal(got[i].out_len, 4096);
            assert_int_equal(seen[got[i].user_data]++, 0);
        }
        done += (unsigned)m;
    }
    struct reseal_completion none;
    assert_int_equal(reseal_poll(q, &none, 1), 0);
    assert_int_equal(reseal_wait(q, &none, 1, -1), 0);
    reseal_queue_close(q);
    reseal_session_close(s);
}

static void what_lies_outside_is_refused_at_submit(void **state)
{
    (void)state;
    reseal_session *s = client_session(c.r, client_xts(client_random_key(c.r, RESEAL_XTS)),
                                       client_xts(client_random_key(c.r, RESEAL_XTS)), 0);
    reseal_queue *q = client_queue(c.r, 4, 65536);
    size_t len;
    uint8_t *arena = reseal_queue_arena(q, &len);
    assert_true(len >= 65536);
    const struct reseal_job good = {.session = s, .in = arena, .out = arena + 4096, .len = 4096};
    struct reseal_job bad[] = {good, good, good, good, good};
    bad[0].in = arena - 4096; /* the auxiliary blocks */
    bad[1].out = arena + len - 4095;
    bad[2].in = &good;
    bad[3].len = 0;
    bad[4].flags = 1;
    const int want[] = {RESEAL_ERANGE, RESEAL_ERANGE, RESEAL_ERANGE, RESEAL_EINVAL, RESEAL_EINVAL};
    for (unsigned i = 0; i < 5; i++) assert_int_equal(reseal_submit(q, &bad[i], 1), want[i]);
    /* The good ones before a bad one go. */
    struct reseal_job mixed[] = {good, good, bad[0], good};
    assert_int_equal(reseal_submit(q, mixed, 4), 2);
    drain(q, 2, 0);
    struct reseal_job overlapping = good;
    overlapping.out = arena + 2048;
    assert_int_equal(reseal_submit(q, &overlapping, 1), 1);
    drain(q, 1, RESEAL_EOVERLAP);
    reseal_queue_close(q);
    reseal_session_close(s);
}

static void a_zero_map_and_a_digest_come_with_the_completion(void **state)
{
    (void)state;
    reseal_session *s = client_session(c.r, client_plain(), client_xts(client_random_key(c.r, RESEAL_XTS)),
                                       RESEAL_STAGE_ZERO | RESEAL_STAGE_DIGEST);
    uint8_t plain[11 * 4096] = {0}, out[sizeof(plain)], map[3] = {0xaa, 0xaa, 0xaa}, digest[2][32] = {0};
    plain[3 * 4096 + 17] = 1;
    plain[10 * 4096] = 1;
    struct reseal_job job = {
        .in = plain, .out = out, .len = sizeof(plain), .zero_map = map, .digest = digest[0]};
    assert_int_equal(reseal_run(s, &job), sizeof(plain));
    assert_int_equal(map[0], 0xf7);
    assert_int_equal(map[1], 0x03);
    assert_int_equal(map[2], 0xaa);
    job.digest = digest[1];
    assert_int_equal(reseal_run(s, &job), sizeof(plain));
    assert_memory_equal(digest[0], digest[1], 32);
    plain[0] = 1;
    assert_int_equal(reseal_run(s, &job), sizeof(plain));
    assert_memory_not_equal(digest[0], digest[1], 32);
    reseal_session_close(s);
}

/* Submits jobs that the worker cannot begin: it stands still meanwhile. */
static void submit_while_stopped(reseal_queue *q, reseal_session *s, unsigned n)
{
    uint8_t *arena = reseal_queue_arena(q, NULL);
    for (unsigned i = 0; i < n; i++) {
        const struct reseal_job job = {
            .session = s, .in = arena, .out = arena + 4096, .len = 4096, .user_data = i};
        assert_int_equal(reseal_submit(q, &job, 1), 1);
    }
}

static void a_waiting_job_can_be_cancelled_though_the_ring_is_full(void **state)
{
    (void)state;
    reseal_session *s = client_session(c.r, client_xts(client_random_key(c.r, RESEAL_XTS)),
                                       client_xts(client_random_key(c.r, RESEAL_XTS)), 0);
    reseal_queue *q = client_queue(c.r, 8, 65536);
    pid_t work = service_child(&c.service, "reseald-work");
    assert_true(work > 0);
    service_freeze(work);
    submit_while_stopped(q, s, 8);
    assert_int_equal(reseal_cancel(q, 6), 0);
    assert_int_equal(reseal_cancel(q, 7), 0);
    assert_int_equal(reseal_cancel(q, 1234), 0);
    service_thaw(work);
    struct reseal_completion done[16];
    for (unsigned n = 0; n < 8;) {
        int got = reseal_wait(q, done, 16, -1);
        assert_in_range(got, 1, 8);
        for (int i = 0; i < got; i++)
            assert_int_equal(done[i].status, done[i].user_data >= 6 ? RESEAL_ECANCELED : 0);
        n += (unsigned)got;
    }
    reseal_queue_close(q);
    reseal_session_close(s);
}

static void closing_a_session_cancels_its_waiting_jobs_and_only_those(void **state)
{
    (void)state;
    reseal_key key = client_random_key(c.r, RESEAL_XTS), other = client_random_key(c.r, RESEAL_XTS);
    reseal_session *s = client_session(c.r, client_xts(key), client_xts(other), 0);
    reseal_session *stays = client_session(c.r, client_xts(key), client_xts(other), 0);
    enum { JOBS = 64, LEN = 1 << 20 };
    reseal_queue *q = client_queue(c.r, JOBS, 4 * LEN);
    uint8_t *arena = reseal_queue_arena(q, NULL);
    for (unsigned i = 0; i < JOBS; i++) {
        const struct reseal_job job = {
            .session = i % 2 != 0 ? s : stays, .in = arena, .out = arena + LEN, .len = LEN, .user_data = i};
        assert_int_equal(reseal_submit(q, &job, 1), 1);
    }
    reseal_session_close(s);
    struct reseal_completion done;
    for (unsigned n = 0; n < JOBS; n++) {
        assert_int_equal(reseal_wait(q, &done, 1, -1), 1);
        if (done.user_data % 2 == 0)
            assert_int_equal(done.status, 0);
        else if (done.status != 0)
            assert_int_equal(done.status, RESEAL_ECANCELED);
    }
    /* With jobs outstanding, closing waits for them. */
    submit_while_stopped(q, stays, JOBS);
    reseal_queue_close(q);
    reseal_session_close(stays);
}

static void a_wait_ends_at_its_time(void **state)
{
    (void)state;
    reseal_session *s = client_session(c.r, client_xts(client_random_key(c.r, RESEAL_XTS)),
                                       client_xts(client_random_key(c.r, RESEAL_XTS)), 0);
    reseal_queue *q = client_queue(c.r, 4, 65536);
    pid_t work = service_child(&c.service, "reseald-work");
    struct reseal_completion done;
    service_freeze(work);
    submit_while_stopped(q, s, 1);
    assert_int_equal(reseal_wait(q, &done, 1, 0), RESEAL_ETIMEDOUT);
    assert_int_equal(reseal_wait(q, &done, 1, 20), RESEAL_ETIMEDOUT);
    service_thaw(work);
    drain(q, 1, 0);
    reseal_queue_close(q);
    reseal_session_close(s);
}

static void bad_options_are_told(void **state)
{
    (void)state;
    reseal_queue *q;
    reseal *r;
    struct reseal_queue_options o = {.size = sizeof(o), .depth = 3};
    assert_int_equal(reseal_queue_open(c.r, &o, &q), RESEAL_EINVAL);
    o = (struct reseal_queue_options){.size = sizeof(o), .arena = (1ull << 30) + 1};
    assert_int_equal(reseal_queue_open(c.r, &o, &q), RESEAL_EINVAL);
    o = (struct reseal_queue_options){.size = 4};
    assert_int_equal(reseal_queue_open(c.r, &o, &q), RESEAL_EINVAL);
    const struct {
        struct reseal_queue_options known;
        uint64_t newer;
    } later = {.known = {.size = sizeof(later)}, .newer = 1};
    assert_int_equal(reseal_queue_open(c.r, &later.known, &q), RESEAL_EINVAL);
    const struct reseal_options nowhere = {.size = sizeof(nowhere), .runtime_dir = "/nonexistent"};
    assert_int_equal(reseal_open(&r, &nowhere), RESEAL_ENOSERVICE);
    assert_null(r);
    char *json;
    assert_int_equal(reseal_status(c.r, &json), 0);
    assert_int_equal(json[0], '{');
    free(json);
}

int main(void)
{
    client_require_service();
    reference_random(&seed, key_a, sizeof(key_a));
    reference_random(&seed, key_b, sizeof(key_b));
    reference_random(&seed, key_g, sizeof(key_g));
    client_start(&c);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_simple_call_does_what_openssl_does),
        cmocka_unit_test(a_record_comes_back_with_iv_tag_salt_and_counter),
        cmocka_unit_test(every_accepted_job_completes_once_and_a_full_ring_pushes_back),
        cmocka_unit_test(what_lies_outside_is_refused_at_submit),
        cmocka_unit_test(a_zero_map_and_a_digest_come_with_the_completion),
        cmocka_unit_test(a_waiting_job_can_be_cancelled_though_the_ring_is_full),
        cmocka_unit_test(closing_a_session_cancels_its_waiting_jobs_and_only_those),
        cmocka_unit_test(a_wait_ends_at_its_time),
        cmocka_unit_test(bad_options_are_told),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    client_stop(&c);
    return failed;
}
