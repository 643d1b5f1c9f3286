/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RS_SERVICE_GUARD_H
#define RS_SERVICE_GUARD_H

/*
 * Touching memory that a client shares may fault: a client can punch holes
 * into a memfd whose pages cannot be had again. A guard knows which addresses
 * may fault while it is up; SIGBUS or SIGSEGV at one of them jumps back to
 * RS_GUARD_UP(), any other fault ends the process as usual.
 *
 *     if (RS_GUARD_UP(&guard)) {
 *         touch();
 *         rs_guard_down();
 *     } else {
 *         it faulted at guard.at; the guard is down
 *     }
 *
 * One guard is up per thread at a time. Locals changed between the two
 * returns are not to be relied upon after a fault.
 */

#include "offload/service/check.h"

#include <setjmp.h>

struct rs_guard {
    sigjmp_buf jump;
    /* True when a fault at this address is a client's doing. Called in the handler: reads only. */
    bool (*covers)(const void *arg, uintptr_t at);
    const void *arg;
    uintptr_t at; /* of the last fault */
};

/* Installs the handlers for the whole process. 0 or RESEAL_EIO. */
RS_MUST_CHECK int rs_guard_init(void);

void rs_guard_arm(struct rs_guard *guard);
void rs_guard_down(void);

/* The signal mask is not saved: the handler runs with SA_NODEFER and changes none. */
#define RS_GUARD_UP(guard) (sigsetjmp((guard)->jump, 0) == 0 ? (rs_guard_arm(guard), 1) : 0)

/* True when the address lies in one of the mappings. */
bool rs_regions_cover(const struct rs_region *regions, unsigned count, uintptr_t at);

#endif
