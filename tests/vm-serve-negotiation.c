/* SPDX-License-Identifier: Apache-2.0 */
/* What a disk server and an NBD client agree on before the first request; who keeps to no protocol is
 * dropped, the others go on. */
#include "tests/support/cmocka.h"
#include "tests/support/nbd.h"

#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

static void test_every_option(void **state)
{
    (void)state;
    uint8_t data[512], got[512];
    uint32_t len;
    int fd = nbd_dial_flags(3);
    nbd_option(fd, 3, NULL, 0); /* LIST */
    assert_int_equal(nbd_answer(fd, 3, got, sizeof(got), &len), 2);
    assert_true(len == 8 && memcmp(got + 4, "disk", 4) == 0);
    assert_int_equal(nbd_answer(fd, 3, got, sizeof(got), &len), 2);
    assert_true(len == 9 && memcmp(got + 4, "fixed", 5) == 0);
    assert_int_equal(nbd_only_answer(fd, 3), NBD_ACK);
    nbd_option(fd, 3, "x", 1);
    assert_int_equal(nbd_only_answer(fd, 3), NBD_ERR_INVALID);
    nbd_option(fd, 5, NULL, 0); /* STARTTLS */
    assert_int_equal(nbd_only_answer(fd, 5), NBD_ERR_POLICY);
    nbd_option(fd, 99, "what", 4);
    assert_int_equal(nbd_only_answer(fd, 99), NBD_ERR_UNSUP);
    nbd_option(fd, 11, NULL, 0); /* extended headers */
    assert_int_equal(nbd_only_answer(fd, 11), NBD_ERR_UNSUP);
    nbd_option(fd, 10, data,
               nbd_go_data(data, "disk")); /* a context before structured replies, and of a wrong shape */
    assert_int_equal(nbd_only_answer(fd, 10), NBD_ERR_INVALID);
    nbd_option(fd, 8, "x", 1);
    assert_int_equal(nbd_only_answer(fd, 8), NBD_ERR_INVALID);
    nbd_option(fd, 8, NULL, 0);
    assert_int_equal(nbd_only_answer(fd, 8), NBD_ACK);
    nbd_option(fd, 6, data, nbd_go_data(data, "nothing")); /* INFO */
    assert_int_equal(nbd_only_answer(fd, 6), NBD_ERR_UNKNOWN);
    nbd_option(fd, 6, data, 3);
    assert_int_equal(nbd_only_answer(fd, 6), NBD_ERR_INVALID);
    rs_store_be32(data, 0xffffffff);
    nbd_option(fd, 6, data, 8);
    assert_int_equal(nbd_only_answer(fd, 6), NBD_ERR_INVALID);
    len = nbd_go_data(data, "fixed");
    data[len - 1] = 1; /* and its name, please */
    data[len] = 0;
    data[len + 1] = 1;
    nbd_option(fd, 6, data, len + 2);
    assert_int_equal(nbd_answer(fd, 6, got, sizeof(got), &len), 3);
    assert_true(len == 12 && rs_load_be64(got + 2) == 1 << 20 && (got[11] & RS_NBD_READ_ONLY) != 0);
    assert_int_equal(nbd_answer(fd, 6, got, sizeof(got), &len), 3);
    assert_true(len == 14 && got[1] == 3 && rs_load_be32(got + 2) == 512 &&
                rs_load_be32(got + 10) == 32u << 20);
    assert_int_equal(nbd_answer(fd, 6, got, sizeof(got), &len), 3);
    assert_true(len == 7 && got[1] == 1 && memcmp(got + 2, "fixed", 5) == 0);
    assert_int_equal(nbd_only_answer(fd, 6), NBD_ACK);
    nbd_option(fd, 2, NULL, 0); /* ABORT */
    assert_int_equal(nbd_only_answer(fd, 2), NBD_ACK);
    nbd_assert_dropped(fd);
}

static void test_contexts(void **state)
{
    (void)state;
    uint8_t data[64] = {0, 0, 0, 4, 'd', 'i', 's', 'k', 0, 0, 0, 1, 0, 0, 0, 15}, got[64], chunk[32];
    uint32_t len;
    memcpy(data + 16, "base:allocation", 15);
    int fd = nbd_dial_flags(3);
    nbd_option(fd, 8, NULL, 0);
    assert_int_equal(nbd_only_answer(fd, 8), NBD_ACK);
    nbd_option(fd, 9, data, 12 - 0); /* a query is missing */
    assert_int_equal(nbd_only_answer(fd, 9), NBD_ERR_INVALID);
    for (uint32_t number = 9; number <= 10; number++) {
        nbd_option(fd, number, data, 31);
        assert_int_equal(nbd_answer(fd, number, got, sizeof(got), &len), 4);
        assert_true(len == 19 && memcmp(got + 4, "base:allocation", 15) == 0);
        assert_int_equal(nbd_only_answer(fd, number), NBD_ACK);
    }
    assert_true(nbd_go(fd, "disk") == NBD_DISK_SIZE);
    nbd_request(fd, RS_NBD_BLOCK_STATUS, RS_NBD_REQ_ONE, 5, 4096, 8192);
    assert_true(nbd_get(fd, chunk, sizeof(chunk)));
    assert_int_equal(rs_load_be32(chunk), 0x668e33efu);
    assert_true(chunk[5] == 1 && chunk[7] == 5 && rs_load_be32(chunk + 24) == 8192);
    assert_int_equal(rs_load_be32(chunk + 28), 0);
    close(fd);
}

static void test_the_old_way(void **state)
{
    (void)state;
    uint8_t got[134], b[16];
    int fd = nbd_dial_flags(0);
    nbd_option(fd, 1, "disk", 4);
    assert_true(nbd_get(fd, got, 134));
    assert_true(rs_load_be64(got) == NBD_DISK_SIZE && got[133] == 0);
    nbd_read(fd, 0, b, sizeof(b));
    close(fd);
    fd = nbd_dial_flags(3);
    nbd_option(fd, 1, "", 0); /* the default one, without zeros */
    assert_true(nbd_get(fd, got, 10));
    nbd_read(fd, 0, b, sizeof(b));
    nbd_request(fd, RS_NBD_DISCONNECT, 0, 0, 0, 0);
    nbd_assert_dropped(fd);
    fd = nbd_dial_flags(3);
    nbd_option(fd, 1, "nothing", 7);
    nbd_assert_dropped(fd);
    fd = nbd_dial_flags(0);
    nbd_option(fd, 3, NULL, 0); /* needs fixed newstyle */
    nbd_assert_dropped(fd);
}

static void test_garbage_is_dropped(void **state)
{
    (void)state;
    static const char junk[64] = "GET / HTTP/1.1\r\nHost: somewhere\r\n\r\n and more of it";
    int bystander = nbd_client(false, "disk");
    unsigned before = nbd_server.lines;
    int fd = nbd_dial();
    nbd_put(fd, "\xff\xff\xff\xff", 4);
    nbd_assert_dropped(fd);
    fd = nbd_dial_flags(3);
    nbd_put(fd, junk, sizeof(junk));
    nbd_assert_dropped(fd);
    fd = nbd_dial_flags(3);
    nbd_put(fd, "IHAVEOPT\0\0\0\7\xff\xff\xff\xf0", 16);
    nbd_assert_dropped(fd);
    fd = nbd_client(false, "disk");
    nbd_put(fd, junk, sizeof(junk));
    nbd_assert_dropped(fd);
    fd = nbd_client(true, "disk");
    nbd_request(fd, RS_NBD_WRITE, 0, 1, 0, RS_NBD_WRITE_DROP + 1);
    nbd_assert_dropped(fd);
    assert_int_equal(nbd_server.lines, before + 5); /* one line each */
    assert_int_equal(nbd_simple(bystander, RS_NBD_FLUSH, 0, 0, 0), 0);
    close(bystander);
    nbd_assert_serves();
}

static void test_cut_at_every_byte(void **state)
{
    (void)state;
    uint8_t all[256], data[300];
    size_t len = 4;
    memset(all, 0, sizeof(all));
    all[3] = 3;
    uint32_t n = nbd_go_data(data, "disk");
    memcpy(all + len, "IHAVEOPT\0\0\0\7\0\0\0", 15);
    all[len + 15] = (uint8_t)n;
    memcpy(all + len + 16, data, n);
    len += 16 + n;
    memcpy(all + len, "\x25\x60\x95\x13\0\0\0\1", 8);
    all[len + 27] = 100; /* a write of 100 bytes */
    len += 28 + 100;
    for (size_t i = 0; i < len; i++) {
        int fd = nbd_dial();
        nbd_put(fd, all, i);
        shutdown(fd, SHUT_WR);
        nbd_assert_dropped(fd);
    }
    nbd_assert_serves();
}

int main(void)
{
    client_require_service();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_option),      cmocka_unit_test(test_contexts),
        cmocka_unit_test(test_the_old_way),       cmocka_unit_test(test_garbage_is_dropped),
        cmocka_unit_test(test_cut_at_every_byte),
    };
    return cmocka_run_group_tests(tests, nbd_start, nbd_end);
}
