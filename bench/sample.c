/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/sample.h"

#include <math.h>
#include <sched.h>

#include "providers/crypto/limit.h"
#include "reseal/reseal.h"

#define TRIES 8
#define QUIET 0.02

static int timed(rs_pass pass, void *arg, uint64_t bytes, uint64_t min_ns, double *gbps)
{
    uint64_t passes = 0, now, start = rs_now_ns();
    do {
        int r = pass(arg);
        if (r != 0) return r;
        passes++;
        now = rs_now_ns();
    } while (now - start < min_ns);
    *gbps = (double)(passes * bytes) / (double)(now - start == 0 ? 1 : now - start);
    return 0;
}

int rs_sample_take(rs_pass pass, void *arg, uint64_t bytes_per_pass, uint64_t min_ns, struct rs_sample *out)
{
    double quietest = INFINITY;
    for (unsigned try = 0; try < TRIES && quietest > QUIET; try++) {
        int r = pass(arg);
        if (r != 0) return r;
        double before = rs_limit_aes_rounds_per_second(), gbps;
        r = timed(pass, arg, bytes_per_pass, min_ns, &gbps);
        if (r != 0) return r;
        double after = rs_limit_aes_rounds_per_second();
        double apart = before + after > 0 ? fabs(before - after) / fmax(before, after) : 0;
        if (apart >= quietest) continue;
        quietest = apart;
        out->gbps = gbps;
        out->aes_rounds = (before + after) / 2 / 1e9;
    }
    return 0;
}

int rs_pin(int core)
{
    cpu_set_t allowed, one;
    if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) return RESEAL_EINVAL;
    for (int i = 0; core < 0 && i < CPU_SETSIZE; i++)
        if (CPU_ISSET((size_t)(CPU_SETSIZE - 1 - i), &allowed)) core = CPU_SETSIZE - 1 - i;
    if (core < 0 || core >= CPU_SETSIZE) return RESEAL_EINVAL;
    CPU_ZERO(&one);
    CPU_SET((size_t)core, &one);
    return sched_setaffinity(0, sizeof(one), &one) == 0 ? core : RESEAL_EINVAL;
}
