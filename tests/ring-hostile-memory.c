/* SPDX-License-Identifier: Apache-2.0 */
/* A geometry or a descriptor that could hurt is refused before anything is touched. */
#include "offload/ring/ring.h"
#include "reseal/reseal.h"
#include "tests/support/cmocka.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

static struct rs_ring_geometry good(void)
{
    struct rs_ring_geometry g;
    assert_int_equal(rs_ring_layout(&g, 16, 100000), 0);
    assert_int_equal(rs_ring_check(&g, g.total), 0);
    return g;
}

static void a_layout_has_room_for_all_its_parts(void **state)
{
    (void)state;
    struct rs_ring_geometry g;
    for (uint32_t depth = 1; depth <= RS_DEPTH_MAX; depth *= 2) {
        assert_int_equal(rs_ring_layout(&g, depth, 5000), 0);
        assert_true(g.data_offset >= 4096 + 2ull * depth * RS_RING_ENTRY);
        assert_true(g.arena_offset >= (uint64_t)depth * RS_AUX_SIZE);
        assert_int_equal(g.total, g.data_offset + g.arena_offset + 8192);
        assert_int_equal((g.data_offset | g.arena_offset | g.total) % 4096, 0);
        assert_int_equal(rs_ring_check(&g, g.total), 0);
    }
    assert_int_equal(rs_ring_layout(&g, RS_DEPTH_MAX, RS_ARENA_MAX), 0);
    assert_int_equal(rs_ring_check(&g, g.total), 0);
    assert_int_equal(rs_ring_layout(&g, 0, 4096), RESEAL_EINVAL);
    assert_int_equal(rs_ring_layout(&g, 3, 4096), RESEAL_EINVAL);
    assert_int_equal(rs_ring_layout(&g, 2 * RS_DEPTH_MAX, 4096), RESEAL_EINVAL);
    assert_int_equal(rs_ring_layout(&g, 16, RS_ARENA_MAX + 1), RESEAL_EINVAL);
    assert_int_equal(rs_ring_layout(&g, 16, UINT64_MAX), RESEAL_EINVAL);
}

/* Each line spoils one field of a good geometry. */
static void every_field_of_a_geometry_is_checked(void **state)
{
    (void)state;
    const struct rs_ring_geometry g = good();
#define REFUSED(change)                                                                                      \
    do {                                                                                                     \
        struct rs_ring_geometry bad = g;                                                                     \
        bad.change;                                                                                          \
        assert_int_equal(rs_ring_check(&bad, g.total), RESEAL_EPROTO);                                       \
    } while (0)
    REFUSED(magic++);
    REFUSED(version = 0);
    REFUSED(version = 2);
    REFUSED(depth = 0);
    REFUSED(depth = 15);
    REFUSED(depth = 2 * RS_DEPTH_MAX);
    REFUSED(depth = 32);
    REFUSED(depth = 0x80000000u);
    REFUSED(total += 4096);
    REFUSED(total = 0);
    REFUSED(total = UINT64_MAX);
    REFUSED(data_offset += 1);
    REFUSED(data_offset -= 4096);
    REFUSED(data_offset = 0);
    REFUSED(data_offset = UINT64_MAX - 4095);
    REFUSED(data_offset = g.total);
    REFUSED(arena_offset += 4096);
    REFUSED(arena_offset = 0);
    REFUSED(arena_offset = UINT64_MAX - 4095);
    REFUSED(reserved[0] = 1);
    REFUSED(reserved[2] = 1ull << 63);
#undef REFUSED
    assert_int_equal(rs_ring_check(&g, g.total - 4096), RESEAL_EPROTO);
    assert_int_equal(rs_ring_check(&g, UINT64_MAX), RESEAL_EPROTO);
}

static int memfd_of(uint64_t size, int seals)
{
    int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)size), 0);
    if (seals != 0) assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
    return fd;
}

static void assert_refused(int fd, uint64_t max)
{
    uint64_t size;
    assert_int_equal(rs_ring_check_memfd(fd, max, &size), RESEAL_EINVAL);
    close(fd);
}

static void memory_must_be_sealed_in_size_and_writable(void **state)
{
    (void)state;
    uint64_t size;
    int fd = memfd_of(8192, SEALS);
    assert_int_equal(rs_ring_check_memfd(fd, 8192, &size), 0);
    assert_int_equal(size, 8192);
    close(fd);
    assert_refused(memfd_of(8192, 0), 8192);
    assert_refused(memfd_of(8192, F_SEAL_SHRINK), 8192);
    assert_refused(memfd_of(8192, F_SEAL_SHRINK | F_SEAL_GROW), 8192);
    assert_refused(memfd_of(8192, F_SEAL_SHRINK | F_SEAL_SEAL), 8192);
    assert_refused(memfd_of(8192, SEALS | F_SEAL_WRITE), 8192);
    assert_refused(memfd_of(8192, SEALS | F_SEAL_FUTURE_WRITE), 8192);
    assert_refused(memfd_of(12288, SEALS), 8192);
    assert_refused(memfd_of(8191, SEALS), 8192);
    assert_refused(memfd_of(0, SEALS), 8192);
    assert_refused(open("/dev/null", O_RDWR | O_CLOEXEC), 8192);
    int pipe_fds[2];
    assert_int_equal(pipe(pipe_fds), 0);
    assert_refused(pipe_fds[0], 8192);
    close(pipe_fds[1]);
}

static void a_foreign_memfd_is_attached_only_when_it_holds_a_queue(void **state)
{
    (void)state;
    struct rs_ring ring = {0}, again = {0};
    int memfd, empty = memfd_of(1 << 20, SEALS), small = memfd_of(4096, SEALS);
    assert_int_equal(rs_ring_attach(&ring, empty), RESEAL_EPROTO);
    assert_int_equal(rs_ring_attach(&ring, small), RESEAL_EPROTO);
    assert_null(ring.control);
    assert_int_equal(rs_ring_create(&ring, &memfd, 4, 65536, 0), 0);
    assert_int_equal(rs_ring_attach(&again, memfd), 0);
    assert_int_equal(again.depth, 4);
    assert_true(again.data_len - again.arena_offset >= 65536);
    ring.data[again.data_len - 1] = 0x5a;
    assert_int_equal(again.data[again.data_len - 1], 0x5a);
    /* From here on a changed geometry changes nothing for who attached. */
    ring.control->geometry.depth = 4096;
    rs_ring_detach(&again);
    assert_int_equal(rs_ring_attach(&again, memfd), RESEAL_EPROTO);
    rs_ring_detach(&ring);
    assert_true(ftruncate(memfd, 0) != 0);
    close(memfd);
    close(empty);
    close(small);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_layout_has_room_for_all_its_parts),
        cmocka_unit_test(every_field_of_a_geometry_is_checked),
        cmocka_unit_test(memory_must_be_sealed_in_size_and_writable),
        cmocka_unit_test(a_foreign_memfd_is_attached_only_when_it_holds_a_queue),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
