/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/nbd.h"
#include "tests/support/cmocka.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* ---- a server in a thread, with two disks: "disk", and "fixed" that is read-only ---- */

struct nbd_server nbd_server;

static int open_key(void *arg, unsigned disk, reseal_key *key, struct reseal_luks *luks)
{
    struct nbd_server *s = arg;
    *key = s->keys[disk];
    *luks = s->luks[disk];
    return 0;
}

static uint64_t size_of(void *arg, unsigned disk, uint64_t *data_size)
{
    struct stat st;
    const struct nbd_server *s = arg;
    if (data_size != NULL) *data_size = disk == 0 ? s->data_size : 0;
    return fstat(s->disks[disk].fd, &st) == 0 ? (uint64_t)st.st_size : 0;
}

static void say(void *arg, const char *line)
{
    (void)line;
    ((struct nbd_server *)arg)->lines++;
}

static void make_disk(struct nbd_server *s, unsigned i, const char *name, uint64_t size, uint32_t unit)
{
    struct reseal_luks_format format = {
        .size = sizeof(format), .version = 2, .unit = unit, .pbkdf = 1, .pbkdf_ms = 1, .data_size = size};
    char path[300];
    snprintf(path, sizeof(path), "%.200s/pass", s->client.service.dir);
    int pass = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), header = -1;
    assert_true(pass >= 0 && write(pass, "x", 1) == 1 && lseek(pass, 0, SEEK_SET) == 0);
    s->luks[i] = (struct reseal_luks){.size = sizeof(s->luks[i])};
    assert_int_equal(reseal_luks_format(s->client.r, &format, pass,
                                        RESEAL_USE_SOURCE | RESEAL_USE_DESTINATION, &s->keys[i], &s->luks[i],
                                        &header),
                     0);
    close(header);
    close(pass);
    snprintf(path, sizeof(path), "%.200s/image%u", s->client.service.dir, i);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    uint64_t bytes = s->luks[i].data_offset + size;
    assert_true(fd >= 0 && ftruncate(fd, (off_t)bytes) == 0);
    s->luks[i].data_size = 0; /* as cryptsetup writes it: to the end of the file */
    s->disks[i] =
        (struct rs_vmserve_disk){.name = name, .fd = fd, .read_only = i == 1, .discard = true, .size = bytes};
}

static void *run(void *arg)
{
    struct nbd_server *s = arg;
    s->result = rs_vmserve_run(s->serve);
    return NULL;
}

int nbd_start(void **state)
{
    (void)state;
    struct nbd_server *s = &nbd_server;
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    client_start(&s->client);
    make_disk(s, 0, "disk", NBD_DISK_SIZE, 4096);
    make_disk(s, 1, "fixed", 1 << 20, 512);
    int len = snprintf(s->path, sizeof(s->path), "%.80s/nbd", s->client.service.dir);
    assert_true(len > 0 && (size_t)len < sizeof(at.sun_path));
    memcpy(at.sun_path, s->path, strlen(s->path));
    s->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(s->listener, (struct sockaddr *)&at, sizeof(at)), 0);
    assert_int_equal(listen(s->listener, 16), 0);
    assert_int_equal(pipe2(s->signals, O_CLOEXEC | O_NONBLOCK), 0);
    struct rs_vmserve_options o = {.service = s->client.r,
                                   .disks = s->disks,
                                   .count = 2,
                                   .listener = s->listener,
                                   .signals = s->signals[0],
                                   .open_key = open_key,
                                   .size_of = size_of,
                                   .say = say,
                                   .arg = s};
    unsigned disk;
    char why[256];
    int code = rs_vmserve_open(&s->serve, &o, &disk, why, sizeof(why));
    if (code == RESEAL_ENOSUPPORT) {
        printf("%s\n", why);
        exit(77);
    }
    assert_int_equal(code, 0);
    assert_int_equal(pthread_create(&s->thread, NULL, run, s), 0);
    return 0;
}

void nbd_signal(int number)
{
    struct signalfd_siginfo info = {.ssi_signo = (uint32_t)number};
    assert_int_equal(write(nbd_server.signals[1], &info, sizeof(info)), sizeof(info));
}

int nbd_end(void **state)
{
    (void)state;
    nbd_signal(SIGTERM);
    pthread_join(nbd_server.thread, NULL);
    assert_int_equal(nbd_server.result, 0);
    rs_vmserve_close(nbd_server.serve);
    close(nbd_server.listener);
    close(nbd_server.disks[0].fd);
    close(nbd_server.disks[1].fd);
    client_stop(&nbd_server.client);
    return 0;
}

/* ---- a client --------------------------------------------------------------- */

void nbd_put(int fd, const void *data, size_t len)
{
    for (const uint8_t *p = data; len != 0;) {
        ssize_t n = send(fd, p, len, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        assert_true(n > 0);
        p += n;
        len -= (size_t)n;
    }
}

/* Waits for exactly that much; false when the server ended the connection before. */
bool nbd_get(int fd, void *data, size_t len)
{
    for (uint8_t *p = data; len != 0;) {
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        int polled = poll(&ready, 1, 60000);
        if (polled < 0 && errno == EINTR) continue;
        assert_int_equal(polled, 1);
        ssize_t n = recv(fd, p, len, 0);
        if (n <= 0) return false;
        p += n;
        len -= (size_t)n;
    }
    return true;
}

int nbd_dial(void)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    uint8_t hello[RS_NBD_GREETING], want[RS_NBD_GREETING];
    memcpy(at.sun_path, nbd_server.path, strlen(nbd_server.path));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof(at)), 0);
    assert_true(nbd_get(fd, hello, sizeof(hello)));
    rs_nbd_greet(want);
    assert_memory_equal(hello, want, sizeof(want));
    return fd;
}

int nbd_dial_flags(uint32_t flags)
{
    uint8_t b[4];
    int fd = nbd_dial();
    rs_store_be32(b, flags);
    nbd_put(fd, b, 4);
    return fd;
}

void nbd_option(int fd, uint32_t number, const void *data, uint32_t len)
{
    uint8_t head[16];
    memcpy(head, "IHAVEOPT", 8);
    rs_store_be32(head + 8, number);
    rs_store_be32(head + 12, len);
    nbd_put(fd, head, sizeof(head));
    nbd_put(fd, data, len);
}

/* A reply to an option: its type; what it carries, up to `room` bytes, and how much that is. */
uint32_t nbd_answer(int fd, uint32_t number, uint8_t *data, size_t room, uint32_t *len)
{
    uint8_t head[20], rest[1024];
    assert_true(nbd_get(fd, head, sizeof(head)));
    assert_true(rs_load_be64(head) == 0x3e889045565a9ull);
    assert_int_equal(rs_load_be32(head + 8), number);
    uint32_t n = rs_load_be32(head + 16);
    assert_true(n <= sizeof(rest));
    assert_true(n == 0 || nbd_get(fd, rest, n));
    if (data != NULL) memcpy(data, rest, RS_MIN(room, (size_t)n));
    if (len != NULL) *len = n;
    return rs_load_be32(head + 12);
}

uint32_t nbd_only_answer(int fd, uint32_t number)
{
    return nbd_answer(fd, number, NULL, 0, NULL);
}

uint32_t nbd_go_data(uint8_t out[300], const char *name)
{
    uint32_t n = (uint32_t)strlen(name);
    rs_store_be32(out, n);
    memcpy(out + 4, name, n);
    memset(out + 4 + n, 0, 2);
    return n + 6;
}

/* Into the transmission; the export's size. */
uint64_t nbd_go(int fd, const char *name)
{
    uint8_t data[300], info[64];
    uint64_t size = 0;
    nbd_option(fd, 7, data, nbd_go_data(data, name));
    for (uint32_t type, len; (type = nbd_answer(fd, 7, info, sizeof(info), &len)) != NBD_ACK;) {
        assert_int_equal(type, 3);
        if (info[0] == 0 && info[1] == 0 && len == 12) size = rs_load_be64(info + 2);
    }
    return size;
}

int nbd_client(bool structured, const char *name)
{
    int fd = nbd_dial_flags(3);
    if (structured) {
        nbd_option(fd, 8, NULL, 0);
        assert_int_equal(nbd_only_answer(fd, 8), NBD_ACK);
    }
    assert_true(nbd_go(fd, name) != 0);
    return fd;
}

void nbd_request(int fd, unsigned type, unsigned flags, uint64_t cookie, uint64_t off, uint32_t len)
{
    uint8_t b[RS_NBD_REQUEST] = {
        0x25, 0x60, 0x95, 0x13, (uint8_t)(flags >> 8), (uint8_t)flags, (uint8_t)(type >> 8), (uint8_t)type};
    rs_store_be64(b + 8, cookie);
    rs_store_be64(b + 16, off);
    rs_store_be32(b + 24, len);
    nbd_put(fd, b, sizeof(b));
}

/* A simple reply: its error. */
uint32_t nbd_reply(int fd, uint64_t cookie)
{
    uint8_t b[16];
    assert_true(nbd_get(fd, b, sizeof(b)));
    assert_int_equal(rs_load_be32(b), 0x67446698u);
    assert_true(rs_load_be64(b + 8) == cookie);
    return rs_load_be32(b + 4);
}

uint32_t nbd_simple(int fd, unsigned type, unsigned flags, uint64_t off, uint32_t len)
{
    static uint64_t cookie = 1000;
    nbd_request(fd, type, flags, ++cookie, off, len);
    return nbd_reply(fd, cookie);
}

uint32_t nbd_write(int fd, uint64_t off, const void *data, uint32_t len, unsigned flags)
{
    nbd_request(fd, RS_NBD_WRITE, flags, off ^ len, off, len);
    nbd_put(fd, data, len);
    return nbd_reply(fd, off ^ len);
}

void nbd_read(int fd, uint64_t off, void *data, uint32_t len)
{
    assert_int_equal(nbd_simple(fd, RS_NBD_READ, 0, off, len), 0);
    assert_true(nbd_get(fd, data, len));
}

void nbd_assert_dropped(int fd)
{
    uint8_t rest[4096];
    while (nbd_get(fd, rest, 1)) continue;
    close(fd);
}

/* The others go on. */
void nbd_assert_serves(void)
{
    uint8_t a[600], b[600];
    int fd = nbd_client(false, "disk");
    memset(a, 0x77, sizeof(a));
    assert_int_equal(nbd_write(fd, 1000, a, sizeof(a), 0), 0);
    nbd_read(fd, 1000, b, sizeof(b));
    assert_memory_equal(a, b, sizeof(a));
    close(fd);
}
