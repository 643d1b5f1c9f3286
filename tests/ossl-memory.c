/* SPDX-License-Identifier: Apache-2.0 */
/* Memory of the OpenSSL provider's contexts: key memory while there is some, then ordinary memory that no
 * dump has; zeroed, aligned, wiped; whatever the limit of locked memory. */
#include "offload/base/keymem.h"
#include "providers/ossl/ossl.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define MANY 4000u /* of the lengths below: twice what the arena has */

static const size_t lengths[] = {2496, 2240, 1920, 100, 64, 1, 40000};
static uint8_t *held[MANY];

static size_t len_of(unsigned i)
{
    return i % 100 == 0 ? 40000 : lengths[i % 6];
}

static bool all_are(const uint8_t *p, size_t len, uint8_t value)
{
    for (size_t i = 0; i < len; i++)
        if (p[i] != value) return false;
    return true;
}

static bool take_all(void)
{
    for (unsigned i = 0; i < MANY; i++) {
        held[i] = rs_ossl_alloc(len_of(i));
        if (held[i] == NULL || (uintptr_t)held[i] % 64 != 0 || !all_are(held[i], len_of(i), 0)) return false;
        memset(held[i], (int)(i % 255 + 1), len_of(i));
    }
    for (unsigned i = 0; i < MANY; i++)
        if (!all_are(held[i], len_of(i), (uint8_t)(i % 255 + 1))) return false;
    return true;
}

static void give_all(void)
{
    for (unsigned i = 0; i < MANY; i++) {
        unsigned k = i * 7919u % MANY; /* in another order */
        rs_ossl_free(held[k], len_of(k));
    }
}

static void there_is_more_than_key_memory(void **state)
{
    (void)state;
    char kind[16];
    rs_ossl_memory_acquire();
    snprintf(kind, sizeof(kind), "%s", rs_ossl_memory_kind());
    for (unsigned round = 0; round < 3; round++) {
        unsigned outside = 0;
        assert_true(take_all());
        for (unsigned i = 0; i < MANY; i++) outside += !rs_keymem_owns(held[i]);
        assert_true(outside > 0 && outside < MANY);
        assert_string_equal(rs_ossl_memory_kind(), "plain");
        give_all();
        assert_string_equal(rs_ossl_memory_kind(), kind);
        size_t used;
        rs_keymem_usage(NULL, &used);
        assert_int_equal(used, 0);
    }
    rs_ossl_memory_release();
}

/* 1 when the mapping that p is in is kept out of dumps (VmFlags of smaps), 0 when not, -1 when nobody says.
 */
static int kept_out_of_dumps(const void *p)
{
    char line[512];
    unsigned long from, to;
    bool inside = false;
    int result = -1;
    FILE *f = fopen("/proc/self/smaps", "re");
    assert_non_null(f);
    while (fgets(line, sizeof(line), f) != NULL) {
        if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
            inside = (uintptr_t)p >= from && (uintptr_t)p < to;
        else if (inside && strncmp(line, "VmFlags:", 8) == 0)
            result = strstr(line, " dd") != NULL;
    }
    fclose(f);
    return result;
}

static void no_dump_has_any_of_it(void **state)
{
    (void)state;
    rs_ossl_memory_acquire();
    assert_true(take_all());
    if (kept_out_of_dumps(held[0]) < 0) skip();
    for (unsigned i = 0; i < MANY; i += 97) assert_int_equal(kept_out_of_dumps(held[i]), 1);
    give_all();
    rs_ossl_memory_release();
}

static void what_is_freed_is_wiped(void **state)
{
    (void)state;
    rs_ossl_memory_acquire();
    assert_true(take_all());
    for (unsigned i = 0; i < MANY; i++) {
        /* Half of them, so that no chunk is given back; what has a map of its own is. */
        if (len_of(i) == 40000 || i % 12 >= 6) continue;
        rs_ossl_free(held[i], len_of(i));
        assert_true(all_are(held[i], len_of(i), 0));
        held[i] = NULL;
    }
    give_all();
    rs_ossl_memory_release();
}

static void *churn(void *seed)
{
    unsigned s = *(unsigned *)seed;
    uint8_t *mine[64] = {NULL};
    size_t len[64] = {0};
    void *failed = NULL;
    for (unsigned i = 0; i < 20000; i++) {
        unsigned k = (unsigned)rand_r(&s) % 64;
        if (mine[k] != NULL && !all_are(mine[k], len[k], (uint8_t)(k + 1))) failed = seed;
        rs_ossl_free(mine[k], len[k]);
        len[k] = lengths[(unsigned)rand_r(&s) % 7];
        mine[k] = rs_ossl_alloc(len[k]);
        if (mine[k] == NULL || !all_are(mine[k], len[k], 0)) return seed;
        memset(mine[k], (int)(k + 1), len[k]);
    }
    for (unsigned k = 0; k < 64; k++) rs_ossl_free(mine[k], len[k]);
    return failed;
}

static void threads_share_it(void **state)
{
    (void)state;
    pthread_t threads[8];
    unsigned seeds[8];
    void *failed;
    rs_ossl_memory_acquire();
    assert_true(take_all()); /* so that both parts are in use */
    for (unsigned i = 0; i < 8; i++) {
        seeds[i] = i;
        assert_int_equal(pthread_create(&threads[i], NULL, churn, &seeds[i]), 0);
    }
    for (unsigned i = 0; i < 8; i++) {
        pthread_join(threads[i], &failed);
        assert_null(failed);
    }
    give_all();
    rs_ossl_memory_release();
}

/* As the first of a process decides; the environment goes before it. */
static void the_kind_may_be_told(void **state)
{
    (void)state;
    assert_false(rs_ossl_memory_prefer("paper"));
    assert_true(rs_ossl_memory_prefer("plain"));
    rs_ossl_memory_acquire();
    assert_string_equal(rs_ossl_memory_kind(), "plain");
    assert_true(rs_ossl_memory_prefer("secret"));
    rs_ossl_memory_acquire();
    assert_string_equal(rs_ossl_memory_kind(), "plain");
    rs_ossl_memory_release();
    void *p = rs_ossl_alloc(100);
    assert_true(rs_keymem_owns(p));
    rs_ossl_free(p, 100);
    rs_ossl_memory_release();
    assert_true(rs_ossl_memory_prefer("auto"));
    rs_ossl_memory_acquire();
    assert_string_not_equal(rs_ossl_memory_kind(), "none");
    rs_ossl_memory_release();
}

/* Without privileges: the arena takes half of the limit at most. */
static int with_limit(rlim_t limit)
{
    const struct rlimit lock = {limit, limit};
    if (getuid() == 0 && (setresgid(65534, 65534, 65534) != 0 || setresuid(65534, 65534, 65534) != 0))
        return 1;
    if (setrlimit(RLIMIT_MEMLOCK, &lock) != 0) return 2;
    rs_ossl_memory_acquire();
    size_t size;
    rs_keymem_usage(&size, NULL);
    bool locked = rs_keymem_kind() != RS_KEYMEM_PLAIN;
    if (locked && size > limit / 2) return 3;
    if (limit >= 32768 && !locked) return 4;
    if (!take_all()) return 5;
    give_all();
    rs_ossl_memory_release();
    return 0;
}

static void any_limit_of_locked_memory_is_enough(void **state)
{
    (void)state;
    static const rlim_t limits[] = {0, 4096, 32768, 65536, 1 << 20, 5 << 20, 8 << 20};
    for (unsigned i = 0; i < RS_ARRAY_LEN(limits); i++) {
        fflush(NULL);
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) _exit(with_limit(limits[i]));
        int status;
        while (waitpid(pid, &status, 0) < 0) assert_int_equal(errno, EINTR);
        assert_int_equal(status, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(there_is_more_than_key_memory),
        cmocka_unit_test(no_dump_has_any_of_it),
        cmocka_unit_test(what_is_freed_is_wiped),
        cmocka_unit_test(threads_share_it),
        cmocka_unit_test(the_kind_may_be_told),
        cmocka_unit_test(any_limit_of_locked_memory_is_enough),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
