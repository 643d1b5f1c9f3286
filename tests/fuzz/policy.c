/* SPDX-License-Identifier: Apache-2.0 */
/* The policy parser, and every pure function on what it accepts. */
#include "providers/key/policy.h"
#include "reseal/reseal.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct rs_names names = {
        .passwd = "root:x:0:0:r:/:/bin/sh\nann:x:1001:100::/:\nbroken\n:::\nbob:x:1002:50:x\n",
        .group = "ops:x:50:ann,bob,,nobody\nusers:x:100:\nx:y\n",
    };
    static const struct rs_identity ann = {.uid = 1001, .gid = 100};
    struct rs_policy *policy;
    const struct rs_tenant *tenant;
    char why[200] = "";
    if (size > 8192) return 0;
    int r = rs_policy_parse((const char *)data, size, &names, -1, &policy, why, sizeof(why));
    if (r != 0) {
        /* One line that says something. */
        if (why[0] == '\0' || strchr(why, '\n') != NULL) abort();
        return 0;
    }
    if (rs_policy_tenant(policy, ann.uid, ann.gid, "", &tenant) == 0) {
        struct rs_policy_question q = {.uid = ann.uid,
                                       .gid = ann.gid,
                                       .tenant = tenant,
                                       .from = "luks:1",
                                       .from_provider = "vault",
                                       .to = "raw:x",
                                       .to_is_plain = true};
        (void)!rs_policy_decide(policy, &q);
    }
    free(rs_policy_check(policy, NULL));
    free(rs_policy_check(policy, &ann));
    rs_policy_free(policy);
    return 0;
}
