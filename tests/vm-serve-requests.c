/* SPDX-License-Identifier: Apache-2.0 */
/* Requests of NBD clients: those that can be done are, byte for byte; the others get the error that the
 * protocol has. */
#include "tests/support/cmocka.h"
#include "tests/support/nbd.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static void test_what_cannot_be_done(void **state)
{
    (void)state;
    static uint8_t much[4096];
    int fd = nbd_client(false, "disk");
    assert_int_equal(nbd_simple(fd, RS_NBD_READ, 0, NBD_DISK_SIZE, 512), RS_NBD_EINVAL);
    assert_int_equal(nbd_simple(fd, RS_NBD_READ, 0, NBD_DISK_SIZE - 512, 1024), RS_NBD_EINVAL);
    assert_int_equal(nbd_simple(fd, RS_NBD_READ, 0, UINT64_MAX - 100, 512), RS_NBD_EINVAL);
    assert_int_equal(nbd_simple(fd, RS_NBD_READ, 0, 0, 0), RS_NBD_EINVAL);
    assert_int_equal(nbd_simple(fd, RS_NBD_READ, 0, 0, RS_NBD_DATA_MAX + 512), RS_NBD_EOVERFLOW);
    assert_int_equal(nbd_simple(fd, RS_NBD_READ, 0x80, 0, 512), RS_NBD_EINVAL);
    assert_int_equal(nbd_simple(fd, RS_NBD_READ, RS_NBD_DF, 0, 512), RS_NBD_EINVAL);
    assert_int_equal(nbd_simple(fd, 8, 0, 1 << 30, 0), RS_NBD_EINVAL); /* RESIZE */
    assert_int_equal(nbd_simple(fd, 999, 0, 0, 0), RS_NBD_EINVAL);
    assert_int_equal(nbd_simple(fd, RS_NBD_FLUSH, 0, 0, 1), RS_NBD_EINVAL);
    assert_int_equal(nbd_simple(fd, RS_NBD_BLOCK_STATUS, 0, 0, 512), RS_NBD_EINVAL);
    assert_int_equal(nbd_simple(fd, RS_NBD_TRIM, 0, NBD_DISK_SIZE, 512), RS_NBD_ENOSPC);
    assert_int_equal(nbd_simple(fd, RS_NBD_ZERO, 0, NBD_DISK_SIZE - 1, 2), RS_NBD_ENOSPC);
    assert_int_equal(nbd_write(fd, NBD_DISK_SIZE - 2048, much, 4096, 0), RS_NBD_ENOSPC);
    assert_int_equal(nbd_simple(fd, RS_NBD_FLUSH, 0, 0, 0), 0); /* it still knows where requests begin */
    close(fd);
    fd = nbd_client(true, "fixed");
    assert_int_equal(nbd_write(fd, 0, much, 4096, 0), RS_NBD_EPERM);
    assert_int_equal(nbd_simple(fd, RS_NBD_ZERO, 0, 0, 512), RS_NBD_EPERM);
    assert_int_equal(nbd_simple(fd, RS_NBD_TRIM, 0, 0, 512), RS_NBD_EPERM);
    assert_int_equal(nbd_simple(fd, RS_NBD_FLUSH, 0, 0, 0), 0);
    uint8_t chunk[26];
    nbd_request(fd, RS_NBD_READ, 0, 9, 1 << 20, 512); /* an error in kind */
    assert_true(nbd_get(fd, chunk, sizeof(chunk)));
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
    } runs[] = {{0, 4096},          {512, 512},
                {4095, 2},          {1, 1},
                {12345, 16384},     {262143, 2},
                {262144, 262144},   {261000, 530000},
                {1000000, 5000001}, {NBD_DISK_SIZE - 700, 700},
                {8192, 65536},      {3 << 20, 32 << 20},
                {4096, 16384},      {NBD_DISK_SIZE - 4096, 4096}};
    uint8_t *image = calloc(1, NBD_DISK_SIZE), *seen = malloc(NBD_DISK_SIZE);
    int fd = nbd_client(false, "disk"), other = nbd_client(true, "disk");
    assert_non_null(image);
    assert_non_null(seen);
    assert_int_equal(nbd_simple(fd, RS_NBD_ZERO, 0, 0, (uint32_t)NBD_DISK_SIZE), 0);
    for (unsigned i = 0; i < RS_ARRAY_LEN(runs); i++) {
        fill(image + runs[i].off, runs[i].len, i);
        unsigned flags = i % 3 == 0 ? RS_NBD_FUA : 0;
        assert_int_equal(
            nbd_write(i % 2 == 0 ? fd : other, runs[i].off, image + runs[i].off, runs[i].len, flags), 0);
        nbd_read(fd, runs[i].off, seen, runs[i].len);
        assert_memory_equal(seen, image + runs[i].off, runs[i].len);
    }
    for (unsigned i = 0; i < RS_ARRAY_LEN(runs); i += 2) {
        unsigned flags = RS_NBD_NO_HOLE | (i % 4 == 0 ? RS_NBD_FUA : 0u);
        memset(image + runs[i].off + 3, 0, RS_MIN(runs[i].len, 300000u) / 2);
        uint32_t len = RS_MIN(runs[i].len, 300000u) / 2;
        assert_int_equal(
            nbd_simple(fd, RS_NBD_ZERO, len != 0 ? flags : 0, runs[i].off + 3, len != 0 ? len : 1),
            runs[i].off + 3 < NBD_DISK_SIZE ? 0 : RS_NBD_ENOSPC);
        if (len == 0) image[runs[i].off + 3] = 0;
    }
    assert_int_equal(nbd_simple(fd, RS_NBD_CACHE, 0, 0, 1 << 20), 0);
    assert_int_equal(nbd_simple(fd, RS_NBD_FLUSH, 0, 0, 0), 0);
    for (uint64_t off = 0; off < NBD_DISK_SIZE; off += 20u << 20) {
        nbd_read(fd, off, seen + off, 20u << 20);
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
    int fd = nbd_client(true, "disk");
    assert_non_null(data);
    assert_non_null(seen);
    fill(data, 3 << 20, 77);
    assert_int_equal(nbd_write(fd, 100000, data, 3 << 20, 0), 0);
    nbd_request(fd, RS_NBD_READ, 0, 42, 100000, 3 << 20);
    for (bool last = false; !last;) {
        assert_true(nbd_get(fd, head, sizeof(head)));
        assert_true(rs_load_be32(head) == 0x668e33efu && head[7] == 1 && rs_load_be64(head + 8) == 42);
        uint32_t len = rs_load_be32(head + 16) - 8;
        uint64_t off = rs_load_be64(head + 20) - 100000;
        assert_true(rs_range_ok(off, len, 3 << 20));
        assert_true(nbd_get(fd, seen + off, len));
        last = head[5] == 1;
    }
    assert_memory_equal(data, seen, 3 << 20);
    close(fd);
    free(data);
    free(seen);
}

/* Over several pieces of the disk, in one chunk: who asks for that can take no other. */
static void test_read_that_is_not_fragmented(void **state)
{
    (void)state;
    enum { LEN = 3 << 20, AT = 100000 };
    uint8_t *data = malloc(LEN), *seen = calloc(1, LEN), head[28];
    int fd = nbd_client(true, "disk");
    assert_non_null(data);
    assert_non_null(seen);
    fill(data, LEN, 78);
    assert_int_equal(nbd_write(fd, AT, data, LEN, 0), 0);
    nbd_request(fd, RS_NBD_READ, RS_NBD_DF, 43, AT, LEN);
    assert_true(nbd_get(fd, head, sizeof(head)));
    assert_true(rs_load_be32(head) == 0x668e33efu && head[5] == 1 && head[7] == 1);
    assert_true(rs_load_be64(head + 8) == 43 && rs_load_be64(head + 20) == AT);
    assert_int_equal(rs_load_be32(head + 16), LEN + 8);
    assert_true(nbd_get(fd, seen, LEN));
    assert_memory_equal(data, seen, LEN);
    assert_int_equal(nbd_simple(fd, RS_NBD_FLUSH, 0, 0, 0), 0);
    close(fd);
    free(data);
    free(seen);
}

static void test_trim_makes_holes(void **state)
{
    (void)state;
    struct stat before, after;
    uint8_t a[4096], b[4096];
    int fd = nbd_client(false, "disk");
    assert_int_equal(nbd_simple(fd, RS_NBD_ZERO, 0, 0, 8 << 20), 0);
    assert_int_equal(nbd_simple(fd, RS_NBD_FLUSH, 0, 0, 0), 0);
    assert_int_equal(fstat(nbd_server.disks[0].fd, &before), 0);
    memset(a, 5, sizeof(a));
    assert_int_equal(nbd_write(fd, 4096, a, sizeof(a), 0), 0);
    assert_int_equal(nbd_simple(fd, RS_NBD_TRIM, RS_NBD_FUA, 8193, (8 << 20) - 9000), 0);
    assert_int_equal(nbd_simple(fd, RS_NBD_TRIM, 0, 100, 200), 0);
    assert_int_equal(fstat(nbd_server.disks[0].fd, &after), 0);
    assert_true(after.st_blocks <= before.st_blocks);
    nbd_read(fd, 4096, b, sizeof(b)); /* what is beside it stays */
    assert_memory_equal(a, b, sizeof(a));
    close(fd);
}

int main(void)
{
    client_require_service();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_cannot_be_done), cmocka_unit_test(test_data),
        cmocka_unit_test(test_structured_read),     cmocka_unit_test(test_read_that_is_not_fragmented),
        cmocka_unit_test(test_trim_makes_holes),
    };
    return cmocka_run_group_tests(tests, nbd_start, nbd_end);
}
