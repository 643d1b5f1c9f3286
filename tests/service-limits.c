/* SPDX-License-Identifier: Apache-2.0 */

/* What a client may have, and what it may not touch of another; a broken message ends its sender alone. */

#include "tests/support/raw.h"
#include "tests/support/service.h"

#include <dirent.h>
#include <errno.h>
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

static struct rs_msg_side fresh(struct raw *r)
{
    return raw_side(RESEAL_XTS, raw_key(r, RESEAL_XTS));
}

static void sessions_have_a_limit(RS_UNUSED void **state)
{
    struct raw r;
    int status = 0;
    raw_open(&r, service.dir);
    struct rs_msg_side from = fresh(&r), to = fresh(&r);
    for (unsigned i = 0; i < r.welcome.max_sessions; i++) {
        uint32_t handle = raw_session(&r, from, to, &status);
        assert_int_equal(status, 0);
        assert_int_not_equal(handle, 0);
    }
    raw_session(&r, from, to, &status);
    assert_int_equal(status, RESEAL_ELIMIT);
    raw_close(&r);
}

static void queues_have_a_limit(RS_UNUSED void **state)
{
    struct raw r;
    struct rs_msg_queue m = {.depth = 1, .arena = 4096}, reply;
    raw_open(&r, service.dir);
    for (unsigned i = 0; i <= r.welcome.max_queues; i++) {
        int fds[2];
        int e =
            rs_msg_call(r.control, RS_MSG_QUEUE_OPEN, &m, sizeof(m), NULL, 0, &reply, sizeof(reply), fds, 2);
        assert_int_equal(e, i < r.welcome.max_queues ? 0 : RESEAL_ELIMIT);
        if (e != 0) break;
        close(fds[0]);
        close(fds[1]);
    }
    raw_close(&r);
}

static int open_status(struct raw *r, uint32_t depth, uint64_t arena)
{
    int fds[2] = {-1, -1};
    struct rs_msg_queue m = {.depth = depth, .arena = arena};
    int e = rs_msg_call(r->control, RS_MSG_QUEUE_OPEN, &m, sizeof(m), NULL, 0, &m, sizeof(m), fds, 2);
    rs_cleanup_close(&fds[0]);
    rs_cleanup_close(&fds[1]);
    return e;
}

static void absurd_queues_are_refused(RS_UNUSED void **state)
{
    struct raw r;
    raw_open(&r, service.dir);
    assert_int_equal(open_status(&r, 0, 65536), RESEAL_EINVAL);
    assert_int_equal(open_status(&r, 3, 65536), RESEAL_EINVAL);
    assert_int_equal(open_status(&r, 8192, 65536), RESEAL_EINVAL);
    assert_int_equal(open_status(&r, 0x80000000u, 65536), RESEAL_EINVAL);
    assert_int_equal(open_status(&r, 64, (1ull << 30) + 4096), RESEAL_EINVAL);
    assert_int_not_equal(open_status(&r, 64, UINT64_MAX), 0);
    assert_int_not_equal(open_status(&r, 64, UINT64_MAX - 4095), 0);
    assert_int_equal(open_status(&r, 64, 65536), 0);
    raw_close(&r);
}

/* Handles of another's session and key are worth nothing. */
static void nothing_of_another(RS_UNUSED void **state)
{
    struct raw a, b;
    struct raw_queue q;
    raw_open(&a, service.dir);
    raw_open(&b, service.dir);
    raw_queue_open(&b, &q, 16, 65536);
    struct rs_msg_side from = fresh(&a), to = fresh(&a);
    uint32_t theirs = raw_session(&a, from, to, NULL);
    assert_int_equal(raw_run(&q, raw_job(&q, theirs, 0, 4096, 4096)), RESEAL_EINVAL);
    struct rs_msg_session m = {.session = theirs};
    assert_int_equal(raw_call(&b, RS_MSG_SESSION_CLOSE, &m, sizeof(m), NULL, 0), RESEAL_EINVAL);
    /* The handles are equal now, the sessions are not. */
    struct rs_msg_side own_from = fresh(&b), own_to = fresh(&b);
    uint32_t mine = raw_session(&b, own_from, own_to, NULL);
    assert_int_equal(mine, theirs);
    assert_int_equal(raw_run(&q, raw_job(&q, mine, 0, 4096, 4096)), 0);
    raw_queue_close(&q);
    raw_close(&a);
    raw_close(&b);
}

/* A closed key ends the sessions that use it, and no others. */
static void revocation(RS_UNUSED void **state)
{
    struct raw r;
    struct raw_queue q;
    raw_open(&r, service.dir);
    raw_queue_open(&r, &q, 16, 65536);
    struct rs_msg_side a = fresh(&r), b = fresh(&r), c = fresh(&r);
    uint32_t ab = raw_session(&r, a, b, NULL), ac = raw_session(&r, a, c, NULL);
    struct rs_msg_key key = {.key = b.key};
    assert_int_equal(raw_run(&q, raw_job(&q, ab, 0, 4096, 4096)), 0);
    assert_int_equal(rs_msg_call(r.keys, RS_MSG_KEY_CLOSE, &key, sizeof(key), NULL, 0, NULL, 0, NULL, 0), 0);
    int e;
    do e = raw_run(&q, raw_job(&q, ab, 0, 4096, 4096));
    while (e == 0);
    assert_true(e == RESEAL_EINVAL || e == RESEAL_EREVOKED);
    assert_int_equal(raw_run(&q, raw_job(&q, ac, 0, 4096, 4096)), 0);
    raw_queue_close(&q);
    raw_close(&r);
}

static bool closed(int fd)
{
    struct rs_msg msg;
    int e = rs_msg_recv(fd, &msg, 0);
    if (e == 0) rs_msg_close_fds(&msg);
    return e == RESEAL_ENOSERVICE;
}

static void broken_messages_end_the_connection(RS_UNUSED void **state)
{
    static const uint16_t types[] = {
        0, 3, 15, 22, RS_MSG_KEY_RAW, RS_MSG_INTERNAL, RS_MSG_INTERNAL + 33, 0x8001, 0xffff};
    uint8_t body[RS_MSG_BODY_MAX] = {0};
    for (size_t i = 0; i < RS_ARRAY_LEN(types); i++) {
        struct raw r;
        raw_open(&r, service.dir);
        assert_int_equal(rs_msg_send(r.control, types[i], 0, body, 16, NULL, 0, 0), 0);
        assert_true(closed(r.control));
        raw_close(&r);
    }
    /* Another length; a descriptor too many; a request before the hello. */
    struct raw r;
    raw_open(&r, service.dir);
    assert_int_equal(rs_msg_send(r.control, RS_MSG_SESSION_OPEN, 0, body, 79, NULL, 0, 0), 0);
    assert_true(closed(r.control));
    raw_close(&r);
    raw_open(&r, service.dir);
    int fd = r.keys;
    assert_int_equal(rs_msg_send(r.control, RS_MSG_STATUS, 0, NULL, 0, &fd, 1, 0), 0);
    assert_true(closed(r.control));
    raw_close(&r);
    RS_CLOSE int early = raw_connect(service.dir, "control.sock");
    assert_int_equal(rs_msg_send(early, RS_MSG_STATUS, 0, NULL, 0, NULL, 0, 0), 0);
    assert_true(closed(early));
}

static int region_status(struct raw *r, uint32_t queue, uint64_t len, int memfd)
{
    struct rs_msg_region m = {.queue = queue, .len = len};
    return rs_msg_call(r->control, RS_MSG_REGION_ADD, &m, sizeof(m), &memfd, 1, &m, sizeof(m), NULL, 0);
}

static int memory(uint64_t len, int seals)
{
    int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)len), 0);
    if (seals != 0) assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
    return fd;
}

static void memory_must_be_sealed(RS_UNUSED void **state)
{
    static const int missing[] = {F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_SEAL};
    const int all = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
    struct raw r;
    struct raw_queue q;
    raw_open(&r, service.dir);
    raw_queue_open(&r, &q, 16, 65536);
    for (size_t i = 0; i < RS_ARRAY_LEN(missing); i++) {
        RS_CLOSE int fd = memory(65536, all & ~missing[i]);
        assert_int_equal(region_status(&r, q.number, 65536, fd), RESEAL_EINVAL);
    }
    RS_CLOSE int good = memory(65536, all);
    RS_CLOSE int odd = memory(65537, all);
    RS_CLOSE int fixed = memory(65536, all | F_SEAL_WRITE);
    RS_CLOSE int file = open("/dev/null", O_RDWR | O_CLOEXEC);
    assert_int_equal(region_status(&r, q.number, 65537, odd), RESEAL_EINVAL);
    assert_int_equal(region_status(&r, q.number, 65536, fixed), RESEAL_EINVAL);
    assert_int_equal(region_status(&r, q.number, 65536, file), RESEAL_EINVAL);
    assert_int_equal(region_status(&r, q.number, 4096, good), RESEAL_EINVAL);
    assert_int_equal(region_status(&r, q.number + 1, 65536, good), RESEAL_EINVAL);
    for (unsigned i = 1; i < RS_REGION_MAX; i++)
        assert_int_equal(region_status(&r, q.number, 65536, good), 0);
    assert_int_equal(region_status(&r, q.number, 65536, good), RESEAL_ELIMIT);
    raw_queue_close(&q);
    raw_close(&r);
}

/* Descriptors of reseald-work, as far as we may look. */
static int descriptors(void)
{
    char path[64];
    int n = 0;
    snprintf(path, sizeof(path), "/proc/%d/fd", (int)service_child(&service, "reseald-work"));
    DIR *dir = opendir(path);
    if (dir == NULL) return -1;
    while (readdir(dir) != NULL) n++;
    closedir(dir);
    return n;
}

/* The answer to one request comes after all of the one before, its descriptor included, was put away. */
static void come_to_rest(struct raw *r)
{
    struct rs_msg_session m = {.session = 0};
    assert_int_equal(raw_call(r, RS_MSG_SESSION_CLOSE, &m, sizeof(m), NULL, 0), RESEAL_EINVAL);
}

static void nothing_leaks(RS_UNUSED void **state)
{
    struct raw watcher;
    raw_open(&watcher, service.dir);
    free(raw_status(&watcher));
    come_to_rest(&watcher);
    int before = descriptors();
    for (unsigned i = 0; i < 20; i++) {
        struct raw r;
        struct raw_queue q;
        raw_open(&r, service.dir);
        raw_queue_open(&r, &q, 16, 65536);
        RS_CLOSE int fd = memory(65536, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
        assert_int_equal(region_status(&r, q.number, 65536, fd), 0);
        int fds[4] = {fd, fd, fd, fd};
        assert_int_equal(rs_msg_send(r.control, RS_MSG_STATUS, 0, NULL, 0, fds, 4, 0), 0);
        assert_true(closed(r.control));
        raw_queue_close(&q);
        raw_close(&r);
    }
    /* The others are gone when only the watcher is left. */
    for (;;) {
        char *text = raw_status(&watcher);
        const char *at = text;
        unsigned clients = 0;
        while ((at = strstr(at, "\"client\":")) != NULL) clients++, at++;
        free(text);
        if (clients == 1) break;
    }
    come_to_rest(&watcher);
    if (before < 0) skip();
    /* Sockets of clients are closed by threads that have only that to do. One of them may have held the
     * connection that saw the service start when the descriptors were counted: fewer are no leak. */
    for (unsigned i = 0; i < 6000 && descriptors() > before; i++) (void)poll(NULL, 0, 10);
    int after = descriptors();
    assert_in_range(after, 1, before);
    raw_close(&watcher);
}

int main(void)
{
    if (!service_is_built()) return 77;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_leaks), /* first: nothing of the others is on its way */
        cmocka_unit_test(sessions_have_a_limit),
        cmocka_unit_test(queues_have_a_limit),
        cmocka_unit_test(absurd_queues_are_refused),
        cmocka_unit_test(nothing_of_another),
        cmocka_unit_test(revocation),
        cmocka_unit_test(broken_messages_end_the_connection),
        cmocka_unit_test(memory_must_be_sealed),
    };
    return cmocka_run_group_tests(tests, service_group_start, service_group_stop);
}
