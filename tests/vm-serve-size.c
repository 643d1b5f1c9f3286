/* SPDX-License-Identifier: Apache-2.0 */
/* A disk that becomes larger or smaller while it is served. */
#include "tests/support/cmocka.h"
#include "tests/support/nbd.h"

#include <poll.h>
#include <signal.h>
#include <unistd.h>

static void test_size_changes(void **state)
{
    (void)state;
    uint8_t a[512];
    int old = nbd_client(false, "disk");
    assert_int_equal(ftruncate(nbd_server.disks[0].fd,
                               (off_t)(nbd_server.luks[0].data_offset + NBD_DISK_SIZE + (8 << 20))),
                     0);
    unsigned before = nbd_server.lines;
    nbd_signal(SIGHUP);
    struct pollfd none = {.fd = -1};
    for (unsigned i = 0; nbd_server.lines == before && i < 6000; i++) (void)poll(&none, 1, 10);
    int fd = nbd_dial_flags(3);
    assert_true(nbd_go(fd, "disk") == NBD_DISK_SIZE + (8 << 20));
    memset(a, 9, sizeof(a));
    assert_int_equal(nbd_write(fd, NBD_DISK_SIZE + (8 << 20) - 512, a, sizeof(a), RS_NBD_FUA), 0);
    assert_int_equal(nbd_simple(old, RS_NBD_FLUSH, 0, 0, 0), 0);
    close(fd);
    close(old);
}

int main(void)
{
    client_require_service();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_size_changes),
    };
    return cmocka_run_group_tests(tests, nbd_start, nbd_end);
}
