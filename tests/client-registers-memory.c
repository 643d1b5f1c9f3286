/* SPDX-License-Identifier: Apache-2.0 */
/* Memory of the caller's own: only sealed memfds; jobs go across regions; it is not inherited; no descriptor
 * leaks. */
#include "tests/support/client.h"
#include "tests/support/cmocka.h"
#include "tests/support/reference.h"

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)
#define SIZE  (1u << 20)

static struct client c;

static int memfd_of(uint64_t size, int seals)
{
    int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_int_equal(ftruncate(fd, (off_t)size), 0);
    if (seals != 0) assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
    return fd;
}

static unsigned open_fds(void)
{
    unsigned n = 0;
    DIR *dir = opendir("/proc/self/fd");
    while (readdir(dir) != NULL) n++;
    closedir(dir);
    return n;
}

static int register_once(reseal_queue *q, int fd, void **base)
{
    int err = reseal_queue_register(q, fd, base);
    close(fd);
    return err;
}

static void only_memory_that_keeps_its_size_is_taken(void **state)
{
    (void)state;
    reseal_queue *q = client_queue(c.r, 4, 65536);
    void *base;
    unsigned before = open_fds();
    assert_int_equal(register_once(q, memfd_of(SIZE, 0), &base), RESEAL_EINVAL);
    assert_int_equal(register_once(q, memfd_of(SIZE, F_SEAL_SHRINK | F_SEAL_GROW), &base), RESEAL_EINVAL);
    assert_int_equal(register_once(q, memfd_of(SIZE, F_SEAL_GROW | F_SEAL_SEAL), &base), RESEAL_EINVAL);
    assert_int_equal(register_once(q, memfd_of(SIZE, SEALS | F_SEAL_WRITE), &base), RESEAL_EINVAL);
    assert_int_equal(register_once(q, memfd_of(SIZE + 1, SEALS), &base), RESEAL_EINVAL);
    assert_int_equal(register_once(q, memfd_of((4ull << 30) + 4096, SEALS), &base), RESEAL_EINVAL);
    assert_int_equal(register_once(q, open("/dev/zero", O_RDWR | O_CLOEXEC), &base), RESEAL_EINVAL);
    assert_null(base);
    assert_int_equal(open_fds(), before);
    reseal_queue_close(q);
}

static void jobs_go_from_one_region_to_another(void **state)
{
    (void)state;
    uint8_t a[64], b[64], want[65536];
    uint64_t seed = 3;
    reference_random(&seed, a, 64);
    reference_random(&seed, b, 64);
    unsigned before = open_fds();
    reseal_session *s = client_session(c.r, client_xts(client_key(c.r, RESEAL_XTS, a, 64)),
                                       client_xts(client_key(c.r, RESEAL_XTS, b, 64)), 0);
    unsigned with_keys = open_fds();
    reseal_queue *q = client_queue(c.r, 4, 65536);
    void *base[14];
    for (unsigned i = 0; i < 14; i++) assert_int_equal(register_once(q, memfd_of(SIZE, SEALS), &base[i]), 0);
    void *more;
    assert_int_equal(register_once(q, memfd_of(SIZE, SEALS), &more), RESEAL_ELIMIT);
    for (unsigned i = 0; i < 14; i++) {
        uint8_t *in = base[i], *out = (uint8_t *)base[(i + 5) % 14] + SIZE - sizeof(want);
        reference_random(&seed, in, sizeof(want));
        reference_xts(0, 256, a, 5, 0, 8, 4096, in, want, sizeof(want));
        reference_xts(1, 256, b, 6, 0, 8, 4096, want, want, sizeof(want));
        struct reseal_job job = {
            .session = s, .in = in, .out = out, .len = sizeof(want), .src_tweak = 5, .dst_tweak = 6};
        struct reseal_completion done;
        assert_int_equal(reseal_submit(q, &job, 1), 1);
        assert_int_equal(reseal_wait(q, &done, 1, -1), 1);
        assert_int_equal(done.status, 0);
        assert_memory_equal(out, want, sizeof(want));
        job.out = out + 1;
        assert_int_equal(reseal_submit(q, &job, 1), RESEAL_ERANGE);
    }
    reseal_queue_close(q);
    reseal_session_close(s);
    assert_int_equal(open_fds(), with_keys);
    assert_true(with_keys <= before + 1);
}

int main(void)
{
    client_require_service();
    client_start(&c);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_memory_that_keeps_its_size_is_taken),
        cmocka_unit_test(jobs_go_from_one_region_to_another),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    client_stop(&c);
    return failed;
}
