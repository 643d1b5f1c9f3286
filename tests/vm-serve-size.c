/* SPDX-License-Identifier: Apache-2.0 */
/* A disk that becomes larger or smaller while it is served. */
#include "tests/support/cmocka.h"
#include "tests/support/nbd.h"

#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#define MORE (8ull << 20)

static void resize(uint64_t size)
{
    off_t bytes = (off_t)(nbd_server.luks[0].data_offset + size);
    assert_int_equal(ftruncate(nbd_server.disks[0].fd, bytes), 0);
}

static uint64_t size_for_a_new_client(void)
{
    int fd = nbd_dial_flags(3);
    uint64_t size = nbd_go(fd, "disk");
    close(fd);
    return size;
}

static void assert_writable(int fd, uint64_t off)
{
    uint8_t a[512], b[512];
    memset(a, (int)(off >> 9) | 1, sizeof(a));
    assert_int_equal(nbd_write(fd, off, a, sizeof(a), RS_NBD_FUA), 0);
    nbd_read(fd, off, b, sizeof(b));
    assert_memory_equal(a, b, sizeof(a));
}

/* Nobody has to tell the server. */
static void test_larger(void **state)
{
    (void)state;
    int old = nbd_client(false, "disk");
    resize(NBD_DISK_SIZE + MORE);
    assert_true(size_for_a_new_client() == NBD_DISK_SIZE + MORE);
    int fd = nbd_client(true, "disk");
    assert_int_equal(nbd_simple(fd, RS_NBD_ZERO, 0, NBD_DISK_SIZE, (uint32_t)MORE), 0);
    close(fd);
    /* Also for who was there before, and knows it from elsewhere. */
    assert_writable(old, NBD_DISK_SIZE + MORE - 512);
    assert_int_equal(nbd_simple(old, RS_NBD_FLUSH, 0, 0, 0), 0);
    close(old);
}

/* The server looks, and the log has it. */
static void look_again(void)
{
    unsigned before = nbd_server.lines;
    nbd_signal(SIGHUP);
    struct pollfd none = {.fd = -1};
    for (unsigned i = 0; nbd_server.lines == before && i < 6000; i++) (void)poll(&none, 1, 10);
    assert_int_equal(nbd_server.lines, before + 1);
}

/* With the signal the log has it at once. */
static void test_larger_by_signal(void **state)
{
    (void)state;
    resize(NBD_DISK_SIZE + 2 * MORE);
    look_again();
}

/* A header that says less of a file that is as long as before, in the middle of a write: nothing is written,
 * or read into memory, past the end. */
static void test_less_in_the_middle(void **state)
{
    (void)state;
    enum { LEN = 16 << 20, FIRST = 2 << 20 };
    uint8_t *data = malloc(LEN), *seen = malloc(LEN);
    assert_non_null(data);
    assert_non_null(seen);
    memset(data, 0x11, LEN);
    int fd = nbd_client(false, "disk");
    assert_int_equal(nbd_write(fd, 0, data, LEN, 0), 0);
    memset(data, 0x22, LEN);
    nbd_request(fd, RS_NBD_WRITE, 0, 5, 0, LEN);
    nbd_put(fd, data, FIRST);
    nbd_server.data_size = FIRST;
    look_again();
    nbd_put(fd, data + FIRST, LEN - FIRST);
    assert_int_equal(nbd_reply(fd, 5), RS_NBD_ENOSPC);
    assert_int_equal(nbd_simple(fd, RS_NBD_READ, 0, FIRST, 512), RS_NBD_EINVAL);
    nbd_server.data_size = 0;
    look_again();
    nbd_read(fd, 0, seen, LEN);
    for (unsigned i = 0; i < LEN; i++) assert_int_equal(seen[i], i < FIRST ? 0x22 : 0x11);
    close(fd);
    free(data);
    free(seen);
}

static void test_smaller(void **state)
{
    (void)state;
    static uint8_t data[4096];
    uint64_t half = NBD_DISK_SIZE / 2;
    int fd = nbd_client(false, "disk");
    resize(half);
    /* The first one finds the end of the file, the next ones that of the disk. */
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(nbd_simple(fd, RS_NBD_READ, 0, half + i * 4096, 4096), RS_NBD_EINVAL);
    assert_int_equal(nbd_simple(fd, RS_NBD_READ, 0, half - 2048, 4096), RS_NBD_EINVAL);
    assert_int_equal(nbd_write(fd, half, data, sizeof(data), 0), RS_NBD_ENOSPC);
    assert_int_equal(nbd_write(fd, half - 2048, data, sizeof(data), 0), RS_NBD_ENOSPC);
    assert_int_equal(nbd_simple(fd, RS_NBD_ZERO, 0, half, 4096), RS_NBD_ENOSPC);
    assert_int_equal(nbd_simple(fd, RS_NBD_TRIM, 0, half, 4096), RS_NBD_ENOSPC);
    assert_writable(fd, half - 512);
    assert_true(size_for_a_new_client() == half);
    close(fd);
}

static void test_nothing_left(void **state)
{
    (void)state;
    static uint8_t data[4096];
    int fd = nbd_client(false, "disk");
    assert_int_equal(ftruncate(nbd_server.disks[0].fd, 0), 0);
    assert_int_equal(nbd_simple(fd, RS_NBD_READ, 0, 0, 4096), RS_NBD_EINVAL);
    assert_int_equal(nbd_write(fd, 0, data, sizeof(data), 0), RS_NBD_ENOSPC);
    assert_int_equal(nbd_simple(fd, RS_NBD_FLUSH, 0, 0, 0), 0);
    assert_true(size_for_a_new_client() == 0);
    resize(NBD_DISK_SIZE);
    assert_true(size_for_a_new_client() == NBD_DISK_SIZE);
    assert_writable(fd, NBD_DISK_SIZE - 512);
    close(fd);
}

int main(void)
{
    client_require_service();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_larger),
        cmocka_unit_test(test_larger_by_signal),
        cmocka_unit_test(test_less_in_the_middle),
        cmocka_unit_test(test_smaller),
        cmocka_unit_test(test_nothing_left),
    };
    return cmocka_run_group_tests(tests, nbd_start, nbd_end);
}
