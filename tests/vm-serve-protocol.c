/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk server and NBD clients of every kind: those that keep to the protocol
 * get what it says, those that do not are dropped, and the others go on.
 */
#include "offload/vm/nbd-protocol.h"
#include "offload/vm/serve.h"
#include "tests/support/client.h"
#include "tests/support/cmocka.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define SIZE (40ull << 20) /* bytes of the first disk */

/* ---- a server in a thread, with two disks: "disk", and "fixed" that is read-only ---- */

static struct server {
    struct client client;
    struct rs_vmserve *serve;
    struct rs_vmserve_disk disks[2];
    reseal_key keys[2];
    struct reseal_luks luks[2];
    int listener, signals[2];
    char path[108];
    pthread_t thread;
    int result;
    _Atomic unsigned lines;
} server;

static int open_key(void *arg, unsigned disk, reseal_key *key, struct reseal_luks *luks)
{
    struct server *s = arg;
    *key = s->keys[disk];
    *luks = s->luks[disk];
    return 0;
}

static uint64_t size_of(void *arg, unsigned disk)
{
    struct stat st;
    const struct server *s = arg;
    return fstat(s->disks[disk].fd, &st) == 0 ? (uint64_t)st.st_size : 0;
}

static void say(void *arg, const char *line)
{
    (void)line;
    ((struct server *)arg)->lines++;
}

static void make_disk(struct server *s, unsigned i, const char *name, uint64_t size, uint32_t unit)
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
    struct server *s = arg;
    s->result = rs_vmserve_run(s->serve);
    return NULL;
}

static int start(void **state)
{
    (void)state;
    struct server *s = &server;
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    client_start(&s->client);
    make_disk(s, 0, "disk", SIZE, 4096);
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

static void send_signal(int number)
{
    struct signalfd_siginfo info = {.ssi_signo = (uint32_t)number};
    assert_int_equal(write(server.signals[1], &info, sizeof(info)), sizeof(info));
}

static int end(void **state)
{
    (void)state;
    send_signal(SIGTERM);
    pthread_join(server.thread, NULL);
    assert_int_equal(server.result, 0);
    rs_vmserve_close(server.serve);
    close(server.listener);
    close(server.disks[0].fd);
    close(server.disks[1].fd);
    client_stop(&server.client);
    return 0;
}

/* ---- a client --------------------------------------------------------------- */

static void put(int fd, const void *data, size_t len)
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
static bool get(int fd, void *data, size_t len)
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

static int dial(void)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    uint8_t hello[RS_NBD_GREETING], want[RS_NBD_GREETING];
    memcpy(at.sun_path, server.path, strlen(server.path));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof(at)), 0);
    assert_true(get(fd, hello, sizeof(hello)));
    rs_nbd_greet(want);
    assert_memory_equal(hello, want, sizeof(want));
    return fd;
}

static int dial_flags(uint32_t flags)
{
    uint8_t b[4];
    int fd = dial();
    rs_store_be32(b, flags);
    put(fd, b, 4);
    return fd;
}

static void option(int fd, uint32_t number, const void *data, uint32_t len)
{
    uint8_t head[16];
    memcpy(head, "IHAVEOPT", 8);
    rs_store_be32(head + 8, number);
    rs_store_be32(head + 12, len);
    put(fd, head, sizeof(head));
    put(fd, data, len);
}

#define ACK         1u
#define ERR_UNSUP   0x80000001u
#define ERR_POLICY  0x80000002u
#define ERR_INVALID 0x80000003u
#define ERR_UNKNOWN 0x80000006u

/* A reply to an option: its type; what it carries, up to `room` bytes, and how much that is. */
static uint32_t answer(int fd, uint32_t number, uint8_t *data, size_t room, uint32_t *len)
{
    uint8_t head[20], rest[1024];
    assert_true(get(fd, head, sizeof(head)));
    assert_true(rs_load_be64(head) == 0x3e889045565a9ull);
    assert_int_equal(rs_load_be32(head + 8), number);
    uint32_t n = rs_load_be32(head + 16);
    assert_true(n <= sizeof(rest));
    assert_true(n == 0 || get(fd, rest, n));
    if (data != NULL) memcpy(data, rest, RS_MIN(room, (size_t)n));
    if (len != NULL) *len = n;
    return rs_load_be32(head + 12);
}

static uint32_t only_answer(int fd, uint32_t number)
{
    return answer(fd, number, NULL, 0, NULL);
}

static uint32_t go_data(uint8_t out[300], const char *name)
{
    uint32_t n = (uint32_t)strlen(name);
    rs_store_be32(out, n);
    memcpy(out + 4, name, n);
    memset(out + 4 + n, 0, 2);
    return n + 6;
}

/* Into the transmission; the export's size. */
static uint64_t go(int fd, const char *name)
{
    uint8_t data[300], info[64];
    uint64_t size = 0;
    option(fd, 7, data, go_data(data, name));
    for (uint32_t type, len; (type = answer(fd, 7, info, sizeof(info), &len)) != ACK;) {
        assert_int_equal(type, 3);
        if (info[0] == 0 && info[1] == 0 && len == 12) size = rs_load_be64(info + 2);
    }
    return size;
}

static int client(bool structured, const char *name)
{
    int fd = dial_flags(3);
    if (structured) {
        option(fd, 8, NULL, 0);
        assert_int_equal(only_answer(fd, 8), ACK);
    }
    assert_true(go(fd, name) != 0);
    return fd;
}

static void request(int fd, unsigned type, unsigned flags, uint64_t cookie, uint64_t off, uint32_t len)
{
    uint8_t b[RS_NBD_REQUEST] = {
        0x25, 0x60, 0x95, 0x13, (uint8_t)(flags >> 8), (uint8_t)flags, (uint8_t)(type >> 8), (uint8_t)type};
    rs_store_be64(b + 8, cookie);
    rs_store_be64(b + 16, off);
    rs_store_be32(b + 24, len);
    put(fd, b, sizeof(b));
}

/* A simple reply: its error. */
static uint32_t reply(int fd, uint64_t cookie)
{
    uint8_t b[16];
    assert_true(get(fd, b, sizeof(b)));
    assert_int_equal(rs_load_be32(b), 0x67446698u);
    assert_true(rs_load_be64(b + 8) == cookie);
    return rs_load_be32(b + 4);
}

static uint32_t simple(int fd, unsigned type, unsigned flags, uint64_t off, uint32_t len)
{
    static uint64_t cookie = 1000;
    request(fd, type, flags, ++cookie, off, len);
    return reply(fd, cookie);
}

static uint32_t write_at(int fd, uint64_t off, const void *data, uint32_t len, unsigned flags)
{
    request(fd, RS_NBD_WRITE, flags, off ^ len, off, len);
    put(fd, data, len);
    return reply(fd, off ^ len);
}

static void read_at(int fd, uint64_t off, void *data, uint32_t len)
{
    assert_int_equal(simple(fd, RS_NBD_READ, 0, off, len), 0);
    assert_true(get(fd, data, len));
}

static void assert_dropped(int fd)
{
    uint8_t rest[4096];
    while (get(fd, rest, 1)) continue;
    close(fd);
}

/* The others go on. */
static void assert_serves(void)
{
    uint8_t a[600], b[600];
    int fd = client(false, "disk");
    memset(a, 0x77, sizeof(a));
    assert_int_equal(write_at(fd, 1000, a, sizeof(a), 0), 0);
    read_at(fd, 1000, b, sizeof(b));
    assert_memory_equal(a, b, sizeof(a));
    close(fd);
}

/* ---- negotiation ------------------------------------------------------------- */

static void test_every_option(void **state)
{
    (void)state;
    uint8_t data[512], got[512];
    uint32_t len;
    int fd = dial_flags(3);
    option(fd, 3, NULL, 0); /* LIST */
    assert_int_equal(answer(fd, 3, got, sizeof(got), &len), 2);
    assert_true(len == 8 && memcmp(got + 4, "disk", 4) == 0);
    assert_int_equal(answer(fd, 3, got, sizeof(got), &len), 2);
    assert_true(len == 9 && memcmp(got + 4, "fixed", 5) == 0);
    assert_int_equal(only_answer(fd, 3), ACK);
    option(fd, 3, "x", 1);
    assert_int_equal(only_answer(fd, 3), ERR_INVALID);
    option(fd, 5, NULL, 0); /* STARTTLS */
    assert_int_equal(only_answer(fd, 5), ERR_POLICY);
    option(fd, 99, "what", 4);
    assert_int_equal(only_answer(fd, 99), ERR_UNSUP);
    option(fd, 11, NULL, 0); /* extended headers */
    assert_int_equal(only_answer(fd, 11), ERR_UNSUP);
    option(fd, 10, data,
           go_data(data, "disk")); /* a context before structured replies, and of a wrong shape */
    assert_int_equal(only_answer(fd, 10), ERR_INVALID);
    option(fd, 8, "x", 1);
    assert_int_equal(only_answer(fd, 8), ERR_INVALID);
    option(fd, 8, NULL, 0);
    assert_int_equal(only_answer(fd, 8), ACK);
    option(fd, 6, data, go_data(data, "nothing")); /* INFO */
    assert_int_equal(only_answer(fd, 6), ERR_UNKNOWN);
    option(fd, 6, data, 3);
    assert_int_equal(only_answer(fd, 6), ERR_INVALID);
    rs_store_be32(data, 0xffffffff);
    option(fd, 6, data, 8);
    assert_int_equal(only_answer(fd, 6), ERR_INVALID);
    len = go_data(data, "fixed");
    data[len - 1] = 1; /* and its name, please */
    data[len] = 0;
    data[len + 1] = 1;
    option(fd, 6, data, len + 2);
    assert_int_equal(answer(fd, 6, got, sizeof(got), &len), 3);
    assert_true(len == 12 && rs_load_be64(got + 2) == 1 << 20 && (got[11] & RS_NBD_READ_ONLY) != 0);
    assert_int_equal(answer(fd, 6, got, sizeof(got), &len), 3);
    assert_true(len == 14 && got[1] == 3 && rs_load_be32(got + 2) == 512 &&
                rs_load_be32(got + 10) == 32u << 20);
    assert_int_equal(answer(fd, 6, got, sizeof(got), &len), 3);
    assert_true(len == 7 && got[1] == 1 && memcmp(got + 2, "fixed", 5) == 0);
    assert_int_equal(only_answer(fd, 6), ACK);
    option(fd, 2, NULL, 0); /* ABORT */
    assert_int_equal(only_answer(fd, 2), ACK);
    assert_dropped(fd);
}

static void test_contexts(void **state)
{
    (void)state;
    uint8_t data[64] = {0, 0, 0, 4, 'd', 'i', 's', 'k', 0, 0, 0, 1, 0, 0, 0, 15}, got[64], chunk[32];
    uint32_t len;
    memcpy(data + 16, "base:allocation", 15);
    int fd = dial_flags(3);
    option(fd, 8, NULL, 0);
    assert_int_equal(only_answer(fd, 8), ACK);
    option(fd, 9, data, 12 - 0); /* a query is missing */
    assert_int_equal(only_answer(fd, 9), ERR_INVALID);
    for (uint32_t number = 9; number <= 10; number++) {
        option(fd, number, data, 31);
        assert_int_equal(answer(fd, number, got, sizeof(got), &len), 4);
        assert_true(len == 19 && memcmp(got + 4, "base:allocation", 15) == 0);
        assert_int_equal(only_answer(fd, number), ACK);
    }
    assert_true(go(fd, "disk") == SIZE);
    request(fd, RS_NBD_BLOCK_STATUS, RS_NBD_REQ_ONE, 5, 4096, 8192);
    assert_true(get(fd, chunk, sizeof(chunk)));
    assert_int_equal(rs_load_be32(chunk), 0x668e33efu);
    assert_true(chunk[5] == 1 && chunk[7] == 5 && rs_load_be32(chunk + 24) == 8192);
    assert_int_equal(rs_load_be32(chunk + 28), 0);
    close(fd);
}

static void test_the_old_way(void **state)
{
    (void)state;
    uint8_t got[134], b[16];
    int fd = dial_flags(0);
    option(fd, 1, "disk", 4);
    assert_true(get(fd, got, 134));
    assert_true(rs_load_be64(got) == SIZE && got[133] == 0);
    read_at(fd, 0, b, sizeof(b));
    close(fd);
    fd = dial_flags(3);
    option(fd, 1, "", 0); /* the default one, without zeros */
    assert_true(get(fd, got, 10));
    read_at(fd, 0, b, sizeof(b));
    request(fd, RS_NBD_DISCONNECT, 0, 0, 0, 0);
    assert_dropped(fd);
    fd = dial_flags(3);
    option(fd, 1, "nothing", 7);
    assert_dropped(fd);
    fd = dial_flags(0);
    option(fd, 3, NULL, 0); /* needs fixed newstyle */
    assert_dropped(fd);
}

static void test_garbage_is_dropped(void **state)
{
    (void)state;
    static const char junk[64] = "GET / HTTP/1.1\r\nHost: somewhere\r\n\r\n and more of it";
    int bystander = client(false, "disk");
    unsigned before = server.lines;
    int fd = dial();
    put(fd, "\xff\xff\xff\xff", 4);
    assert_dropped(fd);
    fd = dial_flags(3);
    put(fd, junk, sizeof(junk));
    assert_dropped(fd);
    fd = dial_flags(3);
    put(fd, "IHAVEOPT\0\0\0\7\xff\xff\xff\xf0", 16);
    assert_dropped(fd);
    fd = client(false, "disk");
    put(fd, junk, sizeof(junk));
    assert_dropped(fd);
    fd = client(true, "disk");
    request(fd, RS_NBD_WRITE, 0, 1, 0, RS_NBD_WRITE_DROP + 1);
    assert_dropped(fd);
    assert_int_equal(server.lines, before + 5); /* one line each */
    assert_int_equal(simple(bystander, RS_NBD_FLUSH, 0, 0, 0), 0);
    close(bystander);
    assert_serves();
}

static void test_cut_at_every_byte(void **state)
{
    (void)state;
    uint8_t all[256], data[300];
    size_t len = 4;
    memset(all, 0, sizeof(all));
    all[3] = 3;
    uint32_t n = go_data(data, "disk");
    memcpy(all + len, "IHAVEOPT\0\0\0\7\0\0\0", 15);
    all[len + 15] = (uint8_t)n;
    memcpy(all + len + 16, data, n);
    len += 16 + n;
    memcpy(all + len, "\x25\x60\x95\x13\0\0\0\1", 8);
    all[len + 27] = 100; /* a write of 100 bytes */
    len += 28 + 100;
    for (size_t i = 0; i < len; i++) {
        int fd = dial();
        put(fd, all, i);
        shutdown(fd, SHUT_WR);
        assert_dropped(fd);
    }
    assert_serves();
}

/* ---- requests ---------------------------------------------------------------- */

static void test_what_cannot_be_done(void **state)
{
    (void)state;
    static uint8_t much[4096];
    int fd = client(false, "disk");
    assert_int_equal(simple(fd, RS_NBD_READ, 0, SIZE, 512), RS_NBD_EINVAL);
    assert_int_equal(simple(fd, RS_NBD_READ, 0, SIZE - 512, 1024), RS_NBD_EINVAL);
    assert_int_equal(simple(fd, RS_NBD_READ, 0, UINT64_MAX - 100, 512), RS_NBD_EINVAL);
    assert_int_equal(simple(fd, RS_NBD_READ, 0, 0, 0), RS_NBD_EINVAL);
    assert_int_equal(simple(fd, RS_NBD_READ, 0, 0, RS_NBD_DATA_MAX + 512), RS_NBD_EOVERFLOW);
    assert_int_equal(simple(fd, RS_NBD_READ, 0x80, 0, 512), RS_NBD_EINVAL);
    assert_int_equal(simple(fd, RS_NBD_READ, RS_NBD_DF, 0, 512), RS_NBD_EINVAL);
    assert_int_equal(simple(fd, 8, 0, 1 << 30, 0), RS_NBD_EINVAL); /* RESIZE */
    assert_int_equal(simple(fd, 999, 0, 0, 0), RS_NBD_EINVAL);
    assert_int_equal(simple(fd, RS_NBD_FLUSH, 0, 0, 1), RS_NBD_EINVAL);
    assert_int_equal(simple(fd, RS_NBD_BLOCK_STATUS, 0, 0, 512), RS_NBD_EINVAL);
    assert_int_equal(simple(fd, RS_NBD_TRIM, 0, SIZE, 512), RS_NBD_ENOSPC);
    assert_int_equal(simple(fd, RS_NBD_ZERO, 0, SIZE - 1, 2), RS_NBD_ENOSPC);
    assert_int_equal(write_at(fd, SIZE - 2048, much, 4096, 0), RS_NBD_ENOSPC);
    assert_int_equal(simple(fd, RS_NBD_FLUSH, 0, 0, 0), 0); /* it still knows where requests begin */
    close(fd);
    fd = client(true, "fixed");
    assert_int_equal(write_at(fd, 0, much, 4096, 0), RS_NBD_EPERM);
    assert_int_equal(simple(fd, RS_NBD_ZERO, 0, 0, 512), RS_NBD_EPERM);
    assert_int_equal(simple(fd, RS_NBD_TRIM, 0, 0, 512), RS_NBD_EPERM);
    assert_int_equal(simple(fd, RS_NBD_FLUSH, 0, 0, 0), 0);
    uint8_t chunk[26];
    request(fd, RS_NBD_READ, 0, 9, 1 << 20, 512); /* an error in kind */
    assert_true(get(fd, chunk, sizeof(chunk)));
    assert_true(rs_load_be32(chunk) == 0x668e33efu && chunk[6] == 0x80 && chunk[7] == 1);
    assert_int_equal(rs_load_be32(chunk + 20), RS_NBD_EINVAL);
    close(fd);
}

static void fill(uint8_t *p, size_t len, uint64_t seed)
{
    for (size_t i = 0; i < len; i++) {
        seed = seed * 6364136223846793005ull + 1442695040888963407ull;
        p[i] = (uint8_t)(seed >> 56);
    }
}

static void test_data(void **state)
{
    (void)state;
    /* Each length and offset meets units and pieces otherwise. */
    static const struct {
        uint64_t off;
        uint32_t len;
    } runs[] = {{0, 4096},          {512, 512},         {4095, 2},        {1, 1},
                {12345, 16384},     {262143, 2},        {262144, 262144}, {261000, 530000},
                {1000000, 5000001}, {SIZE - 700, 700},  {8192, 65536},    {3 << 20, 32 << 20},
                {4096, 16384},      {SIZE - 4096, 4096}};
    uint8_t *image = calloc(1, SIZE), *seen = malloc(SIZE);
    int fd = client(false, "disk"), other = client(true, "disk");
    assert_non_null(image);
    assert_non_null(seen);
    assert_int_equal(simple(fd, RS_NBD_ZERO, 0, 0, (uint32_t)SIZE), 0);
    for (unsigned i = 0; i < RS_ARRAY_LEN(runs); i++) {
        fill(image + runs[i].off, runs[i].len, i);
        unsigned flags = i % 3 == 0 ? RS_NBD_FUA : 0;
        assert_int_equal(
            write_at(i % 2 == 0 ? fd : other, runs[i].off, image + runs[i].off, runs[i].len, flags), 0);
        read_at(fd, runs[i].off, seen, runs[i].len);
        assert_memory_equal(seen, image + runs[i].off, runs[i].len);
    }
    for (unsigned i = 0; i < RS_ARRAY_LEN(runs); i += 2) {
        unsigned flags = RS_NBD_NO_HOLE | (i % 4 == 0 ? RS_NBD_FUA : 0u);
        memset(image + runs[i].off + 3, 0, RS_MIN(runs[i].len, 300000u) / 2);
        uint32_t len = RS_MIN(runs[i].len, 300000u) / 2;
        assert_int_equal(simple(fd, RS_NBD_ZERO, len != 0 ? flags : 0, runs[i].off + 3, len != 0 ? len : 1),
                         runs[i].off + 3 < SIZE ? 0 : RS_NBD_ENOSPC);
        if (len == 0) image[runs[i].off + 3] = 0;
    }
    assert_int_equal(simple(fd, RS_NBD_CACHE, 0, 0, 1 << 20), 0);
    assert_int_equal(simple(fd, RS_NBD_FLUSH, 0, 0, 0), 0);
    for (uint64_t off = 0; off < SIZE; off += 20u << 20) {
        read_at(fd, off, seen + off, 20u << 20);
        assert_memory_equal(seen + off, image + off, 20u << 20);
    }
    close(fd);
    close(other);
    free(image);
    free(seen);
}

static void test_structured_read(void **state)
{
    (void)state;
    uint8_t *data = malloc(3 << 20), *seen = calloc(1, 3 << 20), head[28];
    int fd = client(true, "disk");
    assert_non_null(data);
    assert_non_null(seen);
    fill(data, 3 << 20, 77);
    assert_int_equal(write_at(fd, 100000, data, 3 << 20, 0), 0);
    request(fd, RS_NBD_READ, 0, 42, 100000, 3 << 20);
    for (bool last = false; !last;) {
        assert_true(get(fd, head, sizeof(head)));
        assert_true(rs_load_be32(head) == 0x668e33efu && head[7] == 1 && rs_load_be64(head + 8) == 42);
        uint32_t len = rs_load_be32(head + 16) - 8;
        uint64_t off = rs_load_be64(head + 20) - 100000;
        assert_true(rs_range_ok(off, len, 3 << 20));
        assert_true(get(fd, seen + off, len));
        last = head[5] == 1;
    }
    assert_memory_equal(data, seen, 3 << 20);
    close(fd);
    free(data);
    free(seen);
}

static void test_trim_makes_holes(void **state)
{
    (void)state;
    struct stat before, after;
    uint8_t a[4096], b[4096];
    int fd = client(false, "disk");
    assert_int_equal(simple(fd, RS_NBD_ZERO, 0, 0, 8 << 20), 0);
    assert_int_equal(simple(fd, RS_NBD_FLUSH, 0, 0, 0), 0);
    assert_int_equal(fstat(server.disks[0].fd, &before), 0);
    memset(a, 5, sizeof(a));
    assert_int_equal(write_at(fd, 4096, a, sizeof(a), 0), 0);
    assert_int_equal(simple(fd, RS_NBD_TRIM, RS_NBD_FUA, 8193, (8 << 20) - 9000), 0);
    assert_int_equal(simple(fd, RS_NBD_TRIM, 0, 100, 200), 0);
    assert_int_equal(fstat(server.disks[0].fd, &after), 0);
    assert_true(after.st_blocks <= before.st_blocks);
    read_at(fd, 4096, b, sizeof(b)); /* what is beside it stays */
    assert_memory_equal(a, b, sizeof(a));
    close(fd);
}

/* ---- several connections ------------------------------------------------------ */

#define WRITERS 4u
#define ROUNDS  24u
#define AREA    (256u << 10)

/* Writer w owns every fourth run of 512 bytes, each unit of 4096 is everybody's. */
static void *write_sectors(void *arg)
{
    unsigned w = *(unsigned *)arg;
    uint8_t sector[512];
    int fd = client(w % 2 == 0, "disk");
    for (unsigned round = 0; round < ROUNDS; round++) {
        memset(sector, (int)(w * ROUNDS + round + 1), sizeof(sector));
        for (uint64_t off = w * 512; off < AREA; off += WRITERS * 512) {
            request(fd, RS_NBD_WRITE, 0, off, (32u << 20) + off, sizeof(sector));
            put(fd, sector, sizeof(sector));
        }
        for (uint64_t off = w * 512; off < AREA; off += WRITERS * 512) {
            uint8_t b[16];
            assert_true(get(fd, b, sizeof(b)));
            assert_int_equal(rs_load_be32(b + 4), 0);
        }
    }
    close(fd);
    return NULL;
}

static void test_writers_share_units(void **state)
{
    (void)state;
    pthread_t threads[WRITERS];
    unsigned who[WRITERS];
    uint8_t *seen = malloc(AREA);
    assert_non_null(seen);
    for (unsigned i = 0; i < WRITERS; i++) {
        who[i] = i;
        assert_int_equal(pthread_create(&threads[i], NULL, write_sectors, &who[i]), 0);
    }
    for (unsigned i = 0; i < WRITERS; i++) pthread_join(threads[i], NULL);
    int fd = client(false, "disk");
    read_at(fd, 32u << 20, seen, AREA);
    for (unsigned i = 0; i < AREA; i++)
        assert_int_equal(seen[i], (uint8_t)(i / 512 % WRITERS * ROUNDS + ROUNDS));
    close(fd);
    free(seen);
}

/* All write the whole of one area, cut differently; what is there at the end is somebody's in each sector. */
static void *write_area(void *arg)
{
    unsigned w = *(unsigned *)arg;
    uint8_t *data = malloc(AREA);
    assert_non_null(data);
    memset(data, (int)w + 1, AREA);
    int fd = client(w % 2 == 0, "disk");
    uint32_t step = 512u << (2 * w);
    for (unsigned round = 0; round < 4; round++) {
        unsigned n = 0;
        for (uint32_t off = 0; off < AREA; off += step, n++) {
            request(fd, RS_NBD_WRITE, 0, off, (33u << 20) + off, step);
            put(fd, data, step);
            if (n % 16 != 15) continue;
            uint8_t b[16 * 16];
            assert_true(get(fd, b, sizeof(b)));
            n = UINT32_MAX;
        }
        uint8_t b[16];
        for (; n != 0; n--) assert_true(get(fd, b, sizeof(b)));
    }
    close(fd);
    free(data);
    return NULL;
}

static void test_writers_overlap(void **state)
{
    (void)state;
    pthread_t threads[WRITERS];
    unsigned who[WRITERS];
    uint8_t *seen = malloc(AREA);
    assert_non_null(seen);
    for (unsigned i = 0; i < WRITERS; i++) {
        who[i] = i;
        assert_int_equal(pthread_create(&threads[i], NULL, write_area, &who[i]), 0);
    }
    for (unsigned i = 0; i < WRITERS; i++) pthread_join(threads[i], NULL);
    int fd = client(false, "disk");
    read_at(fd, 33u << 20, seen, AREA);
    for (unsigned i = 0; i < AREA; i++) {
        assert_true(seen[i] >= 1 && seen[i] <= WRITERS);
        assert_int_equal(seen[i], seen[i / 512 * 512]);
    }
    close(fd);
    free(seen);
}

/* Replies that nobody takes, and a payload that never comes, hold up nobody else. */
static void test_clients_that_stand_still(void **state)
{
    (void)state;
    int deaf = client(false, "disk"), mute = client(false, "disk");
    for (unsigned i = 0; i < 100; i++) request(deaf, RS_NBD_READ, 0, i, 0, 1 << 20);
    request(mute, RS_NBD_WRITE, 0, 1, 0, 4 << 20);
    put(mute, "some", 4);
    assert_serves();
    close(deaf);
    close(mute);
    assert_serves();
}

static void test_size_changes(void **state)
{
    (void)state;
    uint8_t a[512];
    int old = client(false, "disk");
    assert_int_equal(ftruncate(server.disks[0].fd, (off_t)(server.luks[0].data_offset + SIZE + (8 << 20))),
                     0);
    unsigned before = server.lines;
    send_signal(SIGHUP);
    struct pollfd none = {.fd = -1};
    for (unsigned i = 0; server.lines == before && i < 6000; i++) (void)poll(&none, 1, 10);
    int fd = dial_flags(3);
    assert_true(go(fd, "disk") == SIZE + (8 << 20));
    memset(a, 9, sizeof(a));
    assert_int_equal(write_at(fd, SIZE + (8 << 20) - 512, a, sizeof(a), RS_NBD_FUA), 0);
    assert_int_equal(simple(old, RS_NBD_FLUSH, 0, 0, 0), 0);
    close(fd);
    close(old);
}

int main(void)
{
    client_require_service();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_option),
        cmocka_unit_test(test_contexts),
        cmocka_unit_test(test_the_old_way),
        cmocka_unit_test(test_garbage_is_dropped),
        cmocka_unit_test(test_cut_at_every_byte),
        cmocka_unit_test(test_what_cannot_be_done),
        cmocka_unit_test(test_data),
        cmocka_unit_test(test_structured_read),
        cmocka_unit_test(test_trim_makes_holes),
        cmocka_unit_test(test_writers_share_units),
        cmocka_unit_test(test_writers_overlap),
        cmocka_unit_test(test_clients_that_stand_still),
        cmocka_unit_test(test_size_changes),
    };
    return cmocka_run_group_tests(tests, start, end);
}
