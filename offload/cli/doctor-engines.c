/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "offload/cli/doctor.h"
#include "providers/crypto/engine.h"
#include "providers/crypto/limit.h"

/* One finding for all engines that work, one for each that should and does not. */
void rs_check_engines(struct rs_findings *f)
{
    const struct rs_engine *const *used = rs_engines();
    for (const struct rs_engine *const *e = rs_engines_known(); *e != NULL; e++) {
        const char *fault = rs_engine_fault((*e)->name);
        if (fault[0] == '\0' || strcmp(fault, "cpu") == 0) continue;
        rs_remedy(rs_find(f, "engines", RS_FINDING_LIMITS, "%s: %s; it is not used", (*e)->name, fault),
                  "unset RESEAL_SELFTEST_FAIL if it is set; else test the memory and report it: SECURITY.md");
    }
    if (used[0] == NULL) {
        rs_remedy(rs_find(f, "engines", RS_FINDING_FAILS, "none passed its self-test"),
                  "reinstall reseal and libssl3; test the memory");
        return;
    }
    const char *forced = getenv("RESEAL_ENGINE");
    if (forced != NULL && forced[0] != '\0')
        rs_remedy(rs_find(f, "engines", RS_FINDING_LIMITS, "RESEAL_ENGINE forces '%s'", forced),
                  "unset RESEAL_ENGINE");
    double rounds = rs_limit_aes_rounds_per_second();
    if (rounds > 0)
        rs_find(f, "engines", RS_FINDING_OK,
                "best: %s; one core's AES limit is %.1f GB/s from AES-256 to AES-256", used[0]->name,
                16 * rounds / rs_limit_rounds(256, 256) / 1e9);
    else
        rs_find(f, "engines", RS_FINDING_OK, "best: %s", used[0]->name);
}
