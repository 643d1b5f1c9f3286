/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A descriptor whose close() waits, for as long as whoever sent it likes: the last one of a TCP connection
 * with SO_LINGER whose peer reads nothing, or any one of a file system whose server does not answer. It may
 * come with a request, be one too many, lie in the wake socket of a queue, or wait unread in the socket of a
 * client that leaves. Whatever becomes of it: the service serves others meanwhile.
 */
#include "tests/support/cmocka.h"
#include "tests/support/raw.h"
#include "tests/support/service.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define WAIT_MS 60000

static int peers[256]; /* the far ends, which nobody reads */
static unsigned npeers;

/* One end of a connection that is full, and whose close() waits for a day. */
static int lingering(void)
{
    static char bytes[65536];
    const struct linger long_time = {.l_onoff = 1, .l_linger = 86400};
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(address);
    const int small = 4096;
    RS_CLOSE int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)), 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &len), 0);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &long_time, sizeof(long_time)), 0);
    assert_true(connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0 || errno == EINPROGRESS);
    assert_true(npeers < RS_ARRAY_LEN(peers));
    peers[npeers] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    assert_true(peers[npeers++] >= 0);
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    assert_int_equal(poll(&p, 1, WAIT_MS), 1);
    while (send(fd, bytes, sizeof(bytes), MSG_DONTWAIT | MSG_NOSIGNAL) > 0) continue;
    return fd;
}

static void close_peers(void)
{
    while (npeers != 0) close(peers[--npeers]);
}

static const char *const sockets[] = {"control.sock", "keys.sock"};
static const char *const programs[] = {"reseald-work", "reseal-keyd"};

/* A message of this type with n such descriptors, of which the program that stands has the last. */
static void send_them(int sock, uint16_t type, unsigned n)
{
    struct rs_msg_header header = {.magic = RS_MSG_MAGIC, .type = type, .version = RS_MSG_VERSION};
    struct iovec iov = {&header, sizeof(header)};
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int) * 64)];
    } space = {0};
    int fds[64];
    assert_true(n <= RS_ARRAY_LEN(fds));
    for (unsigned i = 0; i < n; i++) fds[i] = lingering();
    struct msghdr m = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = space.bytes,
                       .msg_controllen = CMSG_SPACE(sizeof(int) * n)};
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int) * n);
    memcpy(CMSG_DATA(c), fds, sizeof(int) * n);
    assert_int_equal(sendmsg(sock, &m, MSG_NOSIGNAL), sizeof(header));
    for (unsigned i = 0; i < n; i++) close(fds[i]);
}

/* It answers another client, on both sockets. */
static void serves(void)
{
    for (unsigned i = 0; i < RS_ARRAY_LEN(sockets); i++) {
        const struct rs_msg_hello hello = {.min_version = 1, .max_version = 1};
        RS_CLOSE int sock = raw_connect(service.dir, sockets[i]);
        struct pollfd p = {.fd = sock, .events = POLLIN};
        assert_int_equal(rs_msg_send(sock, RS_MSG_HELLO, 0, &hello, sizeof(hello), NULL, 0, 0), 0);
        if (poll(&p, 1, WAIT_MS) != 1) fail_msg("%s: no answer: the service waits for a close()", sockets[i]);
    }
}

static int greeted(const char *name)
{
    const struct rs_msg_hello hello = {.min_version = 1, .max_version = 1};
    struct rs_msg_welcome welcome;
    int sock = raw_connect(service.dir, name);
    assert_int_equal(
        rs_msg_call(sock, RS_MSG_HELLO, &hello, sizeof(hello), NULL, 0, &welcome, sizeof(welcome), NULL, 0),
        0);
    return sock;
}

/* To each of the two programs: `leave`: behind a message that ends the connection. */
static void send_to_both(uint16_t type, unsigned n, bool leave)
{
    for (unsigned i = 0; i < RS_ARRAY_LEN(sockets); i++) {
        int sock = greeted(sockets[i]);
        pid_t pid = service_child(&service, programs[i]);
        assert_true(pid > 0);
        service_freeze(pid);
        if (leave) assert_int_equal(rs_msg_send(sock, 999, 0, NULL, 0, NULL, 0, 0), 0);
        send_them(sock, type, n);
        service_thaw(pid);
        serves();
        close(sock);
        serves();
    }
}

static void with_a_request(void **state)
{
    (void)state;
    send_to_both(RS_MSG_RPC, 4, false);
}

static void more_than_there_is_room_for(void **state)
{
    (void)state;
    send_to_both(RS_MSG_STATUS, 6, false);
}

static void unread_when_the_client_leaves(void **state)
{
    (void)state;
    send_to_both(RS_MSG_STATUS, 1, true);
}

static void in_a_wake_socket(void **state)
{
    (void)state;
    struct raw client;
    struct raw_queue queue;
    raw_open(&client, service.dir);
    raw_queue_open(&client, &queue, 8, 1 << 20);
    pid_t pid = service_child(&service, programs[0]);
    service_freeze(pid);
    send_them(queue.wake, 0, 2);
    service_thaw(pid);
    /* The same worker has the queue of the next one, who must be served. */
    struct raw other;
    struct raw_queue others;
    raw_open(&other, service.dir);
    raw_queue_open(&other, &others, 8, 1 << 20);
    struct rs_cqe done;
    const struct rs_sqe nop = {.op = RS_OP_NOP};
    raw_submit(&others, &nop, 1);
    assert_true(raw_wait(&others, &done, WAIT_MS));
    raw_close(&client);
    raw_close(&other);
    raw_queue_close(&queue);
    raw_queue_close(&others);
    serves();
}

/* ---- a file system whose server does not answer ------------------------------------------ */

static void answer(int dev, const struct fuse_in_header *in, int error, const void *body, size_t len)
{
    char bytes[256] = {0};
    const struct fuse_out_header out = {
        .len = (uint32_t)(sizeof(out) + len), .error = error, .unique = in->unique};
    memcpy(bytes, &out, sizeof(out));
    if (len != 0) memcpy(bytes + sizeof(out), body, len);
    (void)!write(dev, bytes, sizeof(out) + len);
}

/* One file; what would end with a close() is not answered. Ends with the mount. */
static void *fuse_server(void *arg)
{
    static char request[1 << 20];
    int dev = *(int *)arg;
    const struct fuse_init_out init = {.major = 7, .minor = 31, .max_write = 4096};
    const struct fuse_attr file = {.ino = 2, .mode = S_IFREG | 0644, .nlink = 1, .size = 16};
    const struct fuse_attr root = {.ino = 1, .mode = S_IFDIR | 0755, .nlink = 2};
    const struct fuse_entry_out entry = {.nodeid = 2, .entry_valid = 3600, .attr_valid = 3600, .attr = file};
    const struct fuse_open_out opened = {.fh = 1};
    while (read(dev, request, sizeof(request)) > 0) {
        const struct fuse_in_header *in = (const void *)request;
        const struct fuse_attr_out attr = {.attr_valid = 3600, .attr = in->nodeid == 1 ? root : file};
        if (in->opcode == FUSE_INIT)
            answer(dev, in, 0, &init, sizeof(init));
        else if (in->opcode == FUSE_LOOKUP)
            answer(dev, in, 0, &entry, sizeof(entry));
        else if (in->opcode == FUSE_GETATTR)
            answer(dev, in, 0, &attr, sizeof(attr));
        else if (in->opcode == FUSE_OPEN)
            answer(dev, in, 0, &opened, sizeof(opened));
        else if (in->opcode != FUSE_FLUSH && in->opcode != FUSE_FORGET && in->opcode != FUSE_BATCH_FORGET)
            answer(dev, in, -ENOSYS, NULL, 0);
    }
    return NULL;
}

/* A request with that file; the connection is the caller's. */
static int send_file(int file)
{
    int sock = greeted("keys.sock");
    assert_int_equal(rs_msg_send(sock, RS_MSG_RPC, 0, NULL, 0, &file, 1, 0), 0);
    return sock;
}

/* True when a new client is turned away. */
static bool is_refused(void)
{
    const struct rs_msg_hello hello = {.min_version = 1, .max_version = 1};
    struct rs_msg_welcome welcome;
    RS_CLOSE int sock = raw_connect(service.dir, "keys.sock");
    return rs_msg_call(sock, RS_MSG_HELLO, &hello, sizeof(hello), NULL, 0, &welcome, sizeof(welcome), NULL,
                       0) != 0;
}

static void of_a_file_system_that_hangs(void **state)
{
    (void)state;
    char folder[] = "/tmp/reseal-fuse-XXXXXX", options[80], path[64];
    int dev = open("/dev/fuse", O_RDWR | O_CLOEXEC), socks[8];
    pthread_t thread;
    (void)snprintf(options, sizeof(options), "fd=%d,rootmode=40000,user_id=%u,group_id=0", dev, getuid());
    assert_non_null(mkdtemp(folder));
    if (dev < 0 || mount("test", folder, "fuse", MS_NOSUID | MS_NODEV, options) != 0) {
        (void)rmdir(folder);
        if (dev >= 0) close(dev);
        skip(); /* FUSE cannot be mounted here */
    }
    assert_int_equal(pthread_create(&thread, NULL, fuse_server, &dev), 0);
    (void)snprintf(path, sizeof(path), "%s/file", folder);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(file >= 0);
    /* A few of them hold up nobody; */
    for (unsigned i = 0; i < 3; i++) socks[i] = send_file(file);
    serves();
    /* whoever has more of them gets no more in, until they are gone. */
    for (unsigned i = 3; i < RS_ARRAY_LEN(socks); i++) socks[i] = send_file(file);
    while (!is_refused()) (void)poll(NULL, 0, 20);
    assert_int_equal(umount2(folder, MNT_FORCE | MNT_DETACH), 0);
    pthread_join(thread, NULL);
    close(file);
    close(dev);
    while (is_refused()) (void)poll(NULL, 0, 20);
    for (unsigned i = 0; i < RS_ARRAY_LEN(socks); i++) close(socks[i]);
    serves();
    (void)rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(with_a_request),
        cmocka_unit_test(more_than_there_is_room_for),
        cmocka_unit_test(unread_when_the_client_leaves),
        cmocka_unit_test(in_a_wake_socket),
        cmocka_unit_test(of_a_file_system_that_hangs),
    };
    signal(SIGPIPE, SIG_IGN);
    if (!service_is_built()) return 77;
    int failed = cmocka_run_group_tests(tests, service_group_start, service_group_stop);
    close_peers();
    return failed;
}
