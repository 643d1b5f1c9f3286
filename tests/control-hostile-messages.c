/* SPDX-License-Identifier: Apache-2.0 */
/* What a hostile peer can put on a control socket: refused, and no descriptor stays open. */
#include "offload/ring/control.h"
#include "tests/support/cmocka.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static int sock[2];

static unsigned open_fds(void)
{
    unsigned n = 0;
    DIR *dir = opendir("/proc/self/fd");
    assert_non_null(dir);
    while (readdir(dir) != NULL) n++;
    closedir(dir);
    return n;
}

static int setup(void **state)
{
    (void)state;
    return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sock);
}

static int teardown(void **state)
{
    (void)state;
    if (sock[0] >= 0) close(sock[0]);
    close(sock[1]);
    return 0;
}

/* Sends any bytes with `nfds` descriptors, past rs_msg_send()'s checks. */
static void send_raw(const void *bytes, size_t len, unsigned nfds)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int) * 64)];
    } space = {0};
    struct iovec iov = {(void *)(uintptr_t)bytes, len};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (nfds != 0) {
        m.msg_control = space.bytes;
        m.msg_controllen = CMSG_SPACE(sizeof(int) * nfds);
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int) * nfds);
        for (unsigned i = 0; i < nfds; i++) memcpy(CMSG_DATA(c) + i * sizeof(int), &fd, sizeof(fd));
    }
    assert_int_equal(sendmsg(sock[0], &m, 0), (ssize_t)len);
    close(fd);
}

static struct rs_msg_header header(uint16_t type, uint32_t length)
{
    return (struct rs_msg_header){
        .magic = RS_MSG_MAGIC, .type = type, .version = RS_MSG_VERSION, .length = length};
}

static void assert_refused(int err)
{
    struct rs_msg msg;
    unsigned before = open_fds();
    assert_int_equal(rs_msg_recv(sock[1], &msg, MSG_DONTWAIT), err);
    assert_int_equal(msg.nfds, 0);
    for (unsigned i = 0; i < RS_MSG_FDS; i++) assert_int_equal(msg.fds[i], -1);
    assert_int_equal(open_fds(), before);
}

static void a_whole_message_arrives_with_its_descriptors(void **state)
{
    (void)state;
    uint8_t body[RS_MSG_BODY_MAX];
    struct rs_msg msg;
    unsigned before = open_fds();
    memset(body, 0x5a, sizeof(body));
    int fds[RS_MSG_FDS];
    for (unsigned i = 0; i < RS_MSG_FDS; i++) fds[i] = open("/dev/null", O_RDONLY | O_CLOEXEC);
    assert_int_equal(rs_msg_send(sock[0], 99, -5, body, sizeof(body), fds, RS_MSG_FDS, 0), 0);
    assert_int_equal(rs_msg_recv(sock[1], &msg, 0), 0);
    assert_int_equal(msg.header.type, 99);
    assert_int_equal(msg.header.status, -5);
    assert_int_equal(msg.header.length, sizeof(body));
    assert_memory_equal(msg.body, body, sizeof(body));
    assert_int_equal(msg.nfds, RS_MSG_FDS);
    for (unsigned i = 0; i < msg.nfds; i++) assert_true((fcntl(msg.fds[i], F_GETFD) & FD_CLOEXEC) != 0);
    int taken = rs_msg_take_fd(&msg, 1);
    assert_true(taken >= 0);
    assert_int_equal(rs_msg_take_fd(&msg, 1), -1);
    assert_int_equal(rs_msg_take_fd(&msg, RS_MSG_FDS), -1);
    rs_msg_close_fds(&msg);
    assert_true(fcntl(taken, F_GETFD) >= 0);
    close(taken);
    for (unsigned i = 0; i < RS_MSG_FDS; i++) close(fds[i]);
    assert_int_equal(open_fds(), before);
}

static void too_much_is_not_sent(void **state)
{
    (void)state;
    uint8_t body[RS_MSG_BODY_MAX + 1] = {0};
    int fds[RS_MSG_FDS + 1] = {0};
    assert_int_equal(rs_msg_send(sock[0], 1, 0, body, sizeof(body), NULL, 0, 0), RESEAL_EINVAL);
    assert_int_equal(rs_msg_send(sock[0], 1, 0, NULL, 0, fds, RS_MSG_FDS + 1, 0), RESEAL_EINVAL);
    assert_refused(RESEAL_EAGAIN);
}

static void damaged_headers_are_refused(void **state)
{
    (void)state;
    struct rs_msg_header h = header(2, 0);
    for (size_t len = 1; len < sizeof(h); len++) {
        send_raw(&h, len, len % 2 != 0 ? 1 : 0);
        assert_refused(RESEAL_EPROTO);
    }
    h.magic++;
    send_raw(&h, sizeof(h), 2);
    assert_refused(RESEAL_EPROTO);
    h = header(2, 1);
    send_raw(&h, sizeof(h), 1);
    assert_refused(RESEAL_EPROTO);
    h = header(2, UINT32_MAX - 15);
    send_raw(&h, sizeof(h), 0);
    assert_refused(RESEAL_EPROTO);
    h = header(2, 0);
    h.version = 2;
    send_raw(&h, sizeof(h), 1);
    assert_refused(RESEAL_EPROTO);
    /* Only a hello may be of a version that we do not know. */
    h.type = RS_MSG_HELLO;
    send_raw(&h, sizeof(h), 0);
    assert_refused(0);
}

static void a_body_of_another_length_is_refused(void **state)
{
    (void)state;
    struct {
        struct rs_msg_header h;
        uint8_t body[RS_MSG_BODY_MAX + 64];
    } big = {.h = header(2, 8)};
    send_raw(&big, sizeof(big.h) + 7, 1);
    assert_refused(RESEAL_EPROTO);
    send_raw(&big, sizeof(big.h) + 9, 1);
    assert_refused(RESEAL_EPROTO);
    /* Longer than any message: the kernel cuts it, and says so. */
    big.h.length = RS_MSG_BODY_MAX;
    send_raw(&big, sizeof(big), 1);
    assert_refused(RESEAL_EPROTO);
    big.h.length = RS_MSG_BODY_MAX + 64;
    send_raw(&big, sizeof(big), 1);
    assert_refused(RESEAL_EPROTO);
}

static void more_descriptors_than_a_message_has_leave_none_open(void **state)
{
    (void)state;
    struct rs_msg_header h = header(2, 0);
    for (unsigned n = RS_MSG_FDS + 1; n <= 64; n++) {
        send_raw(&h, sizeof(h), n);
        assert_refused(RESEAL_EPROTO);
    }
}

static void a_peer_that_went_away_is_told_apart(void **state)
{
    (void)state;
    assert_refused(RESEAL_EAGAIN);
    close(sock[0]);
    sock[0] = -1;
    assert_refused(RESEAL_ENOSERVICE);
    assert_int_equal(rs_msg_send(sock[1], 1, 0, NULL, 0, NULL, 0, 0), RESEAL_ENOSERVICE);
}

/* The reply is in the socket before the call is made; what the call sent is thrown away. */
static int call_with_reply(uint16_t type, int32_t status, size_t len, unsigned nfds, void *reply,
                           int *reply_fds, unsigned reply_nfds)
{
    uint8_t body[64] = {0x77};
    int fds[4] = {sock[0], sock[0], sock[0], sock[0]};
    assert_int_equal(rs_msg_send(sock[0], type, status, body, len, fds, nfds, 0), 0);
    int err = rs_msg_call(sock[1], 17, NULL, 0, NULL, 0, reply, 16, reply_fds, reply_nfds);
    struct rs_msg sent;
    assert_int_equal(rs_msg_recv(sock[0], &sent, 0), 0);
    assert_int_equal(sent.header.type, 17);
    return err;
}

static void a_reply_must_be_the_one_that_was_asked_for(void **state)
{
    (void)state;
    uint8_t reply[16];
    int fd;
    unsigned before = open_fds();
    assert_int_equal(call_with_reply(17 | RS_MSG_REPLY, 0, 16, 0, reply, NULL, 0), 0);
    assert_int_equal(reply[0], 0x77);
    assert_int_equal(call_with_reply(17, 0, 16, 0, reply, NULL, 0), RESEAL_EPROTO);
    assert_int_equal(call_with_reply(18 | RS_MSG_REPLY, 0, 16, 0, reply, NULL, 0), RESEAL_EPROTO);
    assert_int_equal(call_with_reply(17 | RS_MSG_REPLY, 0, 15, 0, reply, NULL, 0), RESEAL_EPROTO);
    assert_int_equal(call_with_reply(17 | RS_MSG_REPLY, 0, 17, 0, reply, NULL, 0), RESEAL_EPROTO);
    assert_int_equal(call_with_reply(17 | RS_MSG_REPLY, 0, 16, 1, reply, NULL, 0), RESEAL_EPROTO);
    assert_int_equal(call_with_reply(17 | RS_MSG_REPLY, 0, 16, 0, reply, &fd, 1), RESEAL_EPROTO);
    assert_int_equal(call_with_reply(17 | RS_MSG_REPLY, 0, 16, 4, reply, &fd, 1), RESEAL_EPROTO);
    assert_int_equal(call_with_reply(17 | RS_MSG_REPLY, RESEAL_EPAIR, 0, 0, reply, &fd, 1), RESEAL_EPAIR);
    assert_int_equal(fd, -1);
    assert_int_equal(call_with_reply(17 | RS_MSG_REPLY, RESEAL_EPAIR, 0, 1, reply, NULL, 0), RESEAL_EPROTO);
    assert_int_equal(call_with_reply(17 | RS_MSG_REPLY, RESEAL_EPAIR, 3, 0, reply, NULL, 0), RESEAL_EPROTO);
    assert_int_equal(call_with_reply(17 | RS_MSG_REPLY, 5, 0, 0, reply, NULL, 0), RESEAL_EPROTO);
    assert_int_equal(open_fds(), before);
    assert_int_equal(call_with_reply(17 | RS_MSG_REPLY, 0, 16, 1, reply, &fd, 1), 0);
    assert_int_equal(open_fds(), before + 1);
    close(fd);
}

static void a_text_arrives_in_memory_that_nobody_can_change(void **state)
{
    (void)state;
    char text[8] = "";
    int fd = rs_msg_text_fd("{\"a\":1}", 7);
    assert_true(fd >= 0);
    assert_int_equal(rs_pread_full(fd, text, 7, 0), 0);
    assert_string_equal(text, "{\"a\":1}");
    assert_true(pwrite(fd, "x", 1, 0) < 0);
    assert_true(ftruncate(fd, 0) != 0);
    assert_true(ftruncate(fd, 8192) != 0);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_whole_message_arrives_with_its_descriptors, setup, teardown),
        cmocka_unit_test_setup_teardown(too_much_is_not_sent, setup, teardown),
        cmocka_unit_test_setup_teardown(damaged_headers_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(a_body_of_another_length_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(more_descriptors_than_a_message_has_leave_none_open, setup, teardown),
        cmocka_unit_test_setup_teardown(a_peer_that_went_away_is_told_apart, setup, teardown),
        cmocka_unit_test_setup_teardown(a_reply_must_be_the_one_that_was_asked_for, setup, teardown),
        cmocka_unit_test(a_text_arrives_in_memory_that_nobody_can_change),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
