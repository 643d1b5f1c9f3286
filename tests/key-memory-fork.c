/* SPDX-License-Identifier: Apache-2.0 */
/* Key memory that is kept on fork: the child has its own copy of the parent's blocks, of each kind, whatever
 * the limit of locked memory. */
#include "offload/base/keymem.h"
#include "reseal/reseal.h"
#include "tests/support/keymem-kinds.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define BLOCKS 300u

static uint8_t *block[BLOCKS];

static size_t len_of(unsigned i)
{
    return 1 + i * 977u % 3000u;
}

static void fill(unsigned i, unsigned salt)
{
    for (size_t k = 0; k < len_of(i); k++) block[i][k] = (uint8_t)(i * 31u + k + salt);
}

static bool holds(unsigned i, unsigned salt)
{
    for (size_t k = 0; k < len_of(i); k++)
        if (block[i][k] != (uint8_t)(i * 31u + k + salt)) return false;
    return true;
}

static bool all_hold(unsigned salt)
{
    for (unsigned i = 0; i < BLOCKS; i++)
        if (block[i] != NULL && !holds(i, salt)) return false;
    return true;
}

/* Every third is freed again, so that there are holes. */
static void make_blocks(unsigned salt)
{
    for (unsigned i = 0; i < BLOCKS; i++) {
        block[i] = rs_keymem_alloc(len_of(i));
        assert_non_null(block[i]);
        fill(i, salt);
    }
    for (unsigned i = 0; i < BLOCKS; i += 3) {
        rs_keymem_free(block[i]);
        block[i] = NULL;
    }
}

static void free_blocks(void)
{
    for (unsigned i = 0; i < BLOCKS; i++) rs_keymem_free(block[i]);
}

static bool alloc_works(void)
{
    uint8_t *p[20];
    for (unsigned i = 0; i < RS_ARRAY_LEN(p); i++) {
        if ((p[i] = rs_keymem_alloc(3000)) == NULL || !rs_keymem_owns(p[i])) return false;
        for (unsigned k = 0; k < 3000; k++)
            if (p[i][k] != 0) return false;
        memset(p[i], 0xa5, 3000);
    }
    for (unsigned i = 0; i < RS_ARRAY_LEN(p); i++) rs_keymem_free(p[i]);
    return true;
}

/* What the child returns; the parent waits for it. */
static int in_child(int (*what)(void *), void *arg)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        signal(SIGSEGV, SIG_DFL);
        signal(SIGABRT, SIG_DFL);
        alarm(60);
        _exit(what(arg));
    }
    int status = 0;
    while (waitpid(pid, &status, 0) < 0) assert_int_equal(errno, EINTR);
    if (!WIFEXITED(status)) print_message("the child ended with status %x\n", (unsigned)status);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* ---- one fork ------------------------------------------------------------------ */

static int child_has_all(void *arg)
{
    (void)arg;
    size_t used;
    rs_keymem_usage(NULL, &used);
    if (!all_hold(1)) return 1;
    if (!alloc_works()) return 2;
    for (unsigned i = 0; i < BLOCKS; i++) rs_keymem_free(block[i]);
    rs_keymem_usage(NULL, &used);
    if (used != 0) return 3;
    return alloc_works() ? 0 : 4;
}

static void contents_are_equal_in_the_child(void **state)
{
    (void)state;
    make_blocks(1);
    assert_int_equal(in_child(child_has_all, NULL), 0);
    assert_true(all_hold(1)); /* although the child freed them */
    assert_int_equal(in_child(child_has_all, NULL), 0);
    assert_true(alloc_works());
    free_blocks();
}

static int nothing_is_used(void *arg)
{
    (void)arg;
    return alloc_works() ? 0 : 1;
}

static void an_empty_arena_forks(void **state)
{
    (void)state;
    assert_int_equal(in_child(nothing_is_used, NULL), 0);
    assert_true(alloc_works());
}

static int full_arena_in_child(void *p)
{
    size_t len = rs_keymem_len(p);
    const uint8_t *bytes = p;
    for (size_t i = 0; i < len; i++)
        if (bytes[i] != 0x3c) return 1;
    rs_keymem_free(p);
    return alloc_works() ? 0 : 2;
}

static void a_full_arena_forks(void **state)
{
    (void)state;
    size_t size, used;
    rs_keymem_usage(&size, &used);
    assert_int_equal(used, 0);
    void *all = rs_keymem_alloc(size);
    assert_non_null(all);
    memset(all, 0x3c, size);
    assert_int_equal(in_child(full_arena_in_child, all), 0);
    rs_keymem_free(all);
}

static void tell(int fd)
{
    assert_int_equal(write(fd, "x", 1), 1);
}

static bool wait_for(int fd)
{
    char c;
    ssize_t n;
    do n = read(fd, &c, 1);
    while (n < 0 && errno == EINTR);
    return n == 1;
}

static void neither_sees_what_the_other_changes(void **state)
{
    (void)state;
    int down[2], up[2], status;
    make_blocks(1);
    assert_int_equal(pipe(down) | pipe(up), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        if (!wait_for(down[0]) || !all_hold(1)) _exit(1); /* the parent has changed its own */
        for (unsigned i = 0; i < BLOCKS; i++)
            if (block[i] != NULL) fill(i, 9);
        (void)!write(up[1], "x", 1);
        if (!wait_for(down[0]) || !all_hold(9)) _exit(2);
        _exit(0);
    }
    for (unsigned i = 0; i < BLOCKS; i++)
        if (block[i] != NULL) fill(i, 5);
    tell(down[1]);
    assert_true(wait_for(up[0])); /* the child has changed its own */
    assert_true(all_hold(5));
    free_blocks();
    assert_true(alloc_works());
    tell(down[1]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    for (unsigned i = 0; i < 2; i++) {
        close(down[i]);
        close(up[i]);
    }
}

/* ---- forks of forks, and beside threads ------------------------------------------- */

static int generation(void *depth)
{
    unsigned d = (unsigned)(uintptr_t)depth;
    if (!all_hold(d)) return 1;
    for (unsigned i = 0; i < BLOCKS; i++)
        if (block[i] != NULL) fill(i, d + 1);
    if (d < 5) {
        int r = in_child(generation, (void *)(uintptr_t)(d + 1));
        if (r != 0) return r;
    }
    return all_hold(d + 1) && alloc_works() ? 0 : 2;
}

static void forks_of_forks_have_it_too(void **state)
{
    (void)state;
    make_blocks(0);
    assert_int_equal(in_child(generation, NULL), 0);
    assert_true(all_hold(0));
    free_blocks();
}

static atomic_bool stop;

static void *churn(void *seed)
{
    unsigned s = *(unsigned *)seed;
    while (!atomic_load(&stop)) {
        uint8_t *p = rs_keymem_alloc(1 + (unsigned)rand_r(&s) % 3000u);
        if (p == NULL) return seed;
        *p = 1;
        rs_keymem_free(p);
    }
    return NULL;
}

static int beside_threads(void *arg)
{
    (void)arg;
    return all_hold(7) && alloc_works() ? 0 : 1;
}

static void threads_may_allocate_while_another_forks(void **state)
{
    (void)state;
    pthread_t threads[3];
    unsigned seeds[3] = {1, 2, 3};
    make_blocks(7);
    atomic_store(&stop, false);
    for (unsigned i = 0; i < 3; i++) assert_int_equal(pthread_create(&threads[i], NULL, churn, &seeds[i]), 0);
    for (unsigned i = 0; i < 40; i++) assert_int_equal(in_child(beside_threads, NULL), 0);
    atomic_store(&stop, true);
    for (unsigned i = 0; i < 3; i++) {
        void *failed;
        pthread_join(threads[i], &failed);
        assert_null(failed);
    }
    assert_true(all_hold(7));
    free_blocks();
}

/* ---- kinds and limits ---------------------------------------------------------------- */

static int kind_in_child(void *arg)
{
    const enum rs_keymem_kind *want = arg;
    if (!all_hold(1) || !alloc_works()) return 100;
    if (rs_keymem_kind() != *want) return 10 + (int)rs_keymem_kind();
    if (*want != RS_KEYMEM_SECRET) return 0;
    uint8_t out[1];
    int fd = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0; /* who has changed his user id may not look at all */
    return pread(fd, out, 1, (off_t)(uintptr_t)block[1]) == -1 && errno == EIO ? 0 : 101;
}

static void the_child_has_the_kind_of_its_parent(void **state)
{
    (void)state;
    enum rs_keymem_kind kind = rs_keymem_kind();
    make_blocks(1);
    assert_int_equal(in_child(kind_in_child, &kind), 0);
    free_blocks();
}

static bool is_reserved(const char *line, uintptr_t at)
{
    uintptr_t from, to;
    return sscanf(line, "%lx-%lx", &from, &to) == 2 && from <= at && at < to;
}

/* A child that no handler saw has nothing where its parent's secret memory is. */
static void a_fork_without_handlers_sees_nothing(void **state)
{
    (void)state;
    if (rs_keymem_kind() != RS_KEYMEM_SECRET) skip();
    make_blocks(1);
    pid_t pid = _Fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        char line[512];
        FILE *maps = fopen("/proc/self/maps", "re");
        while (maps != NULL && fgets(line, sizeof(line), maps) != NULL)
            if (is_reserved(line, (uintptr_t)block[1])) _exit(1);
        _exit(maps != NULL ? 0 : 2);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    free_blocks();
}

static void it_is_made_again_after_the_end(void **state)
{
    (void)state;
    make_blocks(1);
    rs_keymem_fini(); /* with blocks in use */
    assert_int_equal(rs_keymem_kind(), RS_KEYMEM_NONE);
    assert_null(rs_keymem_alloc(1));
    assert_false(rs_keymem_owns(block[1]));
    assert_int_equal(in_child(nothing_is_used, NULL), 1);
    rs_keymem_fini();
    assert_int_equal(rs_keymem_keep_on_fork(), 0);
    assert_int_equal(rs_keymem_init(0), 0);
    assert_int_equal(rs_keymem_keep_on_fork(), 0);
    make_blocks(1);
    assert_int_equal(in_child(child_has_all, NULL), 0);
    free_blocks();
}

/* Without privileges and with `limit` bytes of locked memory. */
static int as_nobody(rlim_t limit)
{
    if (getuid() == 0 && (setresgid(65534, 65534, 65534) != 0 || setresuid(65534, 65534, 65534) != 0))
        return -1;
    const struct rlimit lock = {limit, limit};
    return setrlimit(RLIMIT_MEMLOCK, &lock);
}

struct limits {
    rlim_t first, then;
    enum rs_keymem_kind kind; /* at least, in the child */
};

static int with_limits(void *arg)
{
    const struct limits *l = arg;
    if (as_nobody(l->first) != 0 || rs_keymem_keep_on_fork() != 0 || rs_keymem_init(0) != 0) return 50;
    make_blocks(1);
    const struct rlimit lock = {l->then, l->then};
    if (setrlimit(RLIMIT_MEMLOCK, &lock) != 0) return 51;
    enum rs_keymem_kind kind = RS_MAX(l->kind, rs_keymem_kind());
    int r = in_child(kind_in_child, &kind);
    if (r != 0) return r;
    return all_hold(1) && alloc_works() ? 0 : 52;
}

/* The arena is 4 MiB where the limit allows: as a snapshot, not twice; or nothing at all for the child. */
static void a_low_limit_of_locked_memory_is_enough(void **state)
{
    (void)state;
    static const struct limits all[] = {
        {8 << 20, 8 << 20, RS_KEYMEM_SECRET}, {4 << 20, 4 << 20, RS_KEYMEM_SECRET},
        {5 << 20, 5 << 20, RS_KEYMEM_SECRET}, {4 << 20, 0, RS_KEYMEM_PLAIN},
        {1 << 20, 1 << 20, RS_KEYMEM_SECRET}, {0, 0, RS_KEYMEM_PLAIN},
    };
    rs_keymem_fini();
    for (unsigned i = 0; i < RS_ARRAY_LEN(all); i++) {
        struct limits l = all[i];
        assert_int_equal(in_child(with_limits, &l), 0);
    }
}

static int one_kind(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_arena_forks),
        cmocka_unit_test(contents_are_equal_in_the_child),
        cmocka_unit_test(a_full_arena_forks),
        cmocka_unit_test(neither_sees_what_the_other_changes),
        cmocka_unit_test(forks_of_forks_have_it_too),
        cmocka_unit_test(threads_may_allocate_while_another_forks),
        cmocka_unit_test(the_child_has_the_kind_of_its_parent),
        cmocka_unit_test(a_fork_without_handlers_sees_nothing),
        cmocka_unit_test(it_is_made_again_after_the_end),
        cmocka_unit_test(a_low_limit_of_locked_memory_is_enough),
    };
    if (rs_keymem_keep_on_fork() != 0 || rs_keymem_init(0) != 0) return 1;
    printf("key memory: %s\n", rs_keymem_kind_name());
    return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(void)
{
    return for_each_kind_of_key_memory(one_kind);
}
