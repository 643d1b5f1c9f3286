/* SPDX-License-Identifier: Apache-2.0 */
/* Several NBD clients at one disk: writers of the same places, and clients that stand still. */
#include "tests/support/cmocka.h"
#include "tests/support/nbd.h"

#include <poll.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define WRITERS 4u
#define AREA    (256u << 10)
#define FLYING  32u /* requests without a reply, of each writer */

/* How a writer goes over the area: `rounds` times, `len` bytes at `first`, and every `step` bytes. */
struct writer {
    uint64_t base; /* where the area is */
    uint32_t first, len, step;
    unsigned rounds;
    bool structured;
    uint8_t value; /* of the bytes of the last round; one less in the round before */
};

static void take_replies(int fd, unsigned n)
{
    for (uint8_t b[16]; n != 0; n--) {
        assert_true(nbd_get(fd, b, sizeof(b)));
        assert_int_equal(rs_load_be32(b + 4), 0);
    }
}

static void *write_area(void *arg)
{
    const struct writer *w = arg;
    uint8_t *data = malloc(w->len);
    assert_non_null(data);
    int fd = nbd_client(w->structured, "disk");
    for (unsigned round = w->rounds; round-- > 0;) {
        unsigned flying = 0;
        memset(data, w->value - (int)round, w->len);
        for (uint32_t off = w->first; off < AREA; off += w->step) {
            nbd_request(fd, RS_NBD_WRITE, 0, off, w->base + off, w->len);
            nbd_put(fd, data, w->len);
            if (++flying < FLYING) continue;
            take_replies(fd, flying);
            flying = 0;
        }
        take_replies(fd, flying);
    }
    close(fd);
    free(data);
    return NULL;
}

/* Runs all writers at once; what is there at the end, the caller's to free. */
static uint8_t *run_writers(struct writer writers[WRITERS])
{
    pthread_t threads[WRITERS];
    uint8_t *seen = malloc(AREA);
    assert_non_null(seen);
    for (unsigned i = 0; i < WRITERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, write_area, &writers[i]), 0);
    for (unsigned i = 0; i < WRITERS; i++) pthread_join(threads[i], NULL);
    int fd = nbd_client(false, "disk");
    nbd_read(fd, writers[0].base, seen, AREA);
    close(fd);
    return seen;
}

/* Each writer owns every fourth run of 512 bytes; each unit of 4096 is everybody's. */
static void test_writers_share_units(void **state)
{
    (void)state;
    struct writer writers[WRITERS];
    for (unsigned i = 0; i < WRITERS; i++)
        writers[i] = (struct writer){.base = 32u << 20,
                                     .first = i * 512,
                                     .len = 512,
                                     .step = WRITERS * 512,
                                     .rounds = 24,
                                     .structured = i % 2 == 0,
                                     .value = (uint8_t)(100 + i * 24)};
    uint8_t *seen = run_writers(writers);
    for (unsigned i = 0; i < AREA; i++) assert_int_equal(seen[i], writers[i / 512 % WRITERS].value);
    free(seen);
}

/* All write the whole area, cut differently; what is there at the end is somebody's in each sector. */
static void test_writers_overlap(void **state)
{
    (void)state;
    struct writer writers[WRITERS];
    for (unsigned i = 0; i < WRITERS; i++)
        writers[i] = (struct writer){.base = 33u << 20,
                                     .len = 512u << (2 * i),
                                     .step = 512u << (2 * i),
                                     .rounds = 4,
                                     .structured = i % 2 == 0,
                                     .value = (uint8_t)(10 * i + 10)};
    uint8_t *seen = run_writers(writers);
    for (unsigned i = 0; i < AREA; i++) {
        assert_true(seen[i] % 10 == 0 && seen[i] >= 10 && seen[i] <= 10 * WRITERS);
        assert_int_equal(seen[i], seen[i / 512 * 512]);
    }
    free(seen);
}

/* Replies that nobody takes, and a payload that never comes, hold up nobody else. */
static void test_clients_that_stand_still(void **state)
{
    (void)state;
    int deaf = nbd_client(false, "disk"), mute = nbd_client(false, "disk");
    for (unsigned i = 0; i < 100; i++) nbd_request(deaf, RS_NBD_READ, 0, i, 0, 1 << 20);
    nbd_request(mute, RS_NBD_WRITE, 0, 1, 0, 4 << 20);
    nbd_put(mute, "some", 4);
    nbd_assert_serves();
    close(deaf);
    close(mute);
    nbd_assert_serves();
}

/* Payloads that never come hold all room; when one of these clients goes, who waits for room goes on. */
static void test_room_that_a_client_leaves(void **state)
{
    (void)state;
    enum { MUTES = 16, LEN = 1 << 20 };
    int mutes[MUTES], fd = nbd_client(false, "disk");
    uint8_t *data = malloc(LEN);
    assert_non_null(data);
    for (unsigned i = 0; i < MUTES; i++) {
        mutes[i] = nbd_client(false, "disk");
        nbd_request(mutes[i], RS_NBD_WRITE, 0, i, 0, LEN);
    }
    assert_int_equal(nbd_simple(fd, RS_NBD_FLUSH, 0, 0, 0), 0);
    nbd_request(fd, RS_NBD_READ, 0, 7, 0, LEN);
    close(nbd_dial()); /* the request was looked at before */
    for (unsigned i = 0; i < MUTES; i++) close(mutes[i]);
    assert_int_equal(nbd_reply(fd, 7), 0);
    assert_true(nbd_get(fd, data, LEN));
    close(fd);
    free(data);
}

/* Where a connection cannot be taken for now, the others go on, and it is taken later. */
static void test_no_descriptor_is_left(void **state)
{
    (void)state;
    struct rlimit all, few;
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    uint8_t hello[RS_NBD_GREETING];
    memcpy(at.sun_path, nbd_server.path, strlen(nbd_server.path));
    int fd = nbd_client(false, "disk"), first = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0),
        second = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &all), 0);
    few = (struct rlimit){.rlim_cur = (rlim_t)second + 1, .rlim_max = all.rlim_max};
    unsigned before = nbd_server.lines;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    /* That one may be taken yet: the call that waits for it knows of no limit. */
    assert_int_equal(connect(first, (struct sockaddr *)&at, sizeof(at)), 0);
    assert_int_equal(connect(second, (struct sockaddr *)&at, sizeof(at)), 0);
    struct pollfd none = {.fd = -1};
    for (unsigned i = 0; nbd_server.lines == before && i < 6000; i++) (void)poll(&none, 1, 10);
    assert_int_equal(nbd_server.lines, before + 1);
    assert_int_equal(nbd_simple(fd, RS_NBD_FLUSH, 0, 0, 0), 0);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &all), 0);
    assert_true(nbd_get(first, hello, sizeof(hello)));
    assert_true(nbd_get(second, hello, sizeof(hello)));
    close(fd);
    close(first);
    close(second);
}

/* More large writes than there is room for, before the first reply is taken: each gets one. */
static void test_more_than_there_is_room_for(void **state)
{
    (void)state;
    enum { LEN = 1 << 20, N = 160 };
    uint8_t *data = malloc(LEN);
    assert_non_null(data);
    memset(data, 0x31, LEN);
    int fd = nbd_client(false, "disk");
    for (unsigned i = 0; i < N; i++) {
        nbd_request(fd, RS_NBD_WRITE, 0, i, (uint64_t)(i % 8) * LEN, LEN);
        nbd_put(fd, data, LEN);
    }
    take_replies(fd, N);
    for (unsigned i = 0; i < N; i++) nbd_request(fd, RS_NBD_READ, 0, i, (uint64_t)(i % 8) * LEN, LEN);
    for (unsigned i = 0; i < N; i++) {
        take_replies(fd, 1);
        assert_true(nbd_get(fd, data, LEN));
        assert_true(data[0] == 0x31 && data[LEN - 1] == 0x31);
    }
    close(fd);
    free(data);
}

int main(void)
{
    client_require_service();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_descriptor_is_left), /* first: no descriptor of another test becomes free */
        cmocka_unit_test(test_writers_share_units),         cmocka_unit_test(test_writers_overlap),
        cmocka_unit_test(test_more_than_there_is_room_for), cmocka_unit_test(test_clients_that_stand_still),
        cmocka_unit_test(test_room_that_a_client_leaves),
    };
    return cmocka_run_group_tests(tests, nbd_start, nbd_end);
}
