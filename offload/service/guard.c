/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/service/guard.h"

#include <signal.h>

static _Thread_local struct rs_guard *armed;

void rs_guard_arm(struct rs_guard *guard)
{
    armed = guard;
    /* The handler runs in this thread: the compiler must not move accesses out of the guarded part. */
    atomic_signal_fence(memory_order_seq_cst);
}

void rs_guard_down(void)
{
    atomic_signal_fence(memory_order_seq_cst);
    armed = NULL;
}

bool rs_regions_cover(const struct rs_region *regions, unsigned count, uintptr_t at)
{
    for (unsigned i = 0; i < count; i++) {
        uintptr_t base = (uintptr_t)regions[i].base;
        if (regions[i].len != 0 && at >= base && at - base < regions[i].len) return true;
    }
    return false;
}

static void on_fault(int sig, siginfo_t *info, RS_UNUSED void *context)
{
    struct rs_guard *guard = armed;
    uintptr_t at = (uintptr_t)info->si_addr;
    /* si_code > 0: from the kernel, for this access; kill(2) cannot pretend to be a fault. */
    if (guard != NULL && info->si_code > 0 && guard->covers(guard->arg, at)) {
        armed = NULL;
        guard->at = at;
        siglongjmp(guard->jump, 1);
    }
    /* Not a client's fault: fault again, without us. */
    signal(sig, SIG_DFL);
    if (info->si_code <= 0) raise(sig);
}

int rs_guard_init(void)
{
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigemptyset(&action.sa_mask);
    if (sigaction(SIGBUS, &action, NULL) != 0 || sigaction(SIGSEGV, &action, NULL) != 0) return RESEAL_EIO;
    return 0;
}
