/* SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "bench/ring.h"
#include "bench/sample.h"
#include "offload/base/clock.h"

#define TRIPS  4000u
#define GROUP  16u /* trips between two looks at the clock */
#define GROUPS (TRIPS / GROUP)

struct court {
    RS_ALIGNED(128) _Atomic uint32_t ping;
    RS_ALIGNED(128) _Atomic uint32_t pong;
    int core;
    bool pinned;
};

static inline void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static void *answer(void *arg)
{
    struct court *c = arg;
    c->pinned = rs_pin(c->core) >= 0;
    for (uint32_t i = 1; i <= TRIPS; i++) {
        while (atomic_load_explicit(&c->ping, memory_order_acquire) != i) relax();
        atomic_store_explicit(&c->pong, i, memory_order_release);
    }
    return NULL;
}

double rs_ping_pong_us(int core_a, int core_b)
{
    if (core_a == core_b) return 0;
    struct court court = {.core = core_b};
    cpu_set_t before;
    pthread_t other;
    double groups[GROUPS];
    if (sched_getaffinity(0, sizeof(before), &before) != 0 || rs_pin(core_a) < 0) return 0;
    if (pthread_create(&other, NULL, answer, &court) != 0) return 0;
    uint64_t start = 0;
    for (uint32_t i = 1; i <= TRIPS; i++) {
        if ((i - 1) % GROUP == 0) start = rs_now_ns();
        atomic_store_explicit(&court.ping, i, memory_order_release);
        while (atomic_load_explicit(&court.pong, memory_order_acquire) != i) relax();
        if (i % GROUP == 0) groups[i / GROUP - 1] = (double)(rs_now_ns() - start) / GROUP / 1e3;
    }
    pthread_join(other, NULL);
    if (sched_setaffinity(0, sizeof(before), &before) != 0) return 0;
    return court.pinned ? rs_median(groups, GROUPS) : 0;
}
