/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/cli/vm.h"

#include "offload/cli/transcode.h"
#include "offload/cli/vm-keys.h"
#include "offload/client/keyservice.h"
#include "offload/vm/intent.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int rs_vmc_connect(struct rs_vmc *c)
{
    if (c->service != NULL) return 0;
    struct reseal_options options = {
        .size = sizeof(options), .runtime_dir = c->o.runtime_dir, .tenant = c->o.tenant};
    int code = reseal_open(&c->service, &options);
    if (code != 0) return rs_failure_set(&c->f, rs_exit_of(code), "%s", reseal_strerror(code));
    rs_keyservice_stop_when(c->service, rs_tc_stopped);
    return 0;
}

int rs_vmc_refuse(struct rs_vmc *c, int code, const char *why)
{
    int exit_code = code == RESEAL_EBUSY        ? RS_EXIT_REFUSED
                    : code == RESEAL_ENOKEY     ? RS_EXIT_FAILED
                    : code == RESEAL_ENOSUPPORT ? RS_EXIT_FORMAT
                                                : rs_exit_of(code);
    return rs_failure_set(&c->f, exit_code, "%s", why);
}

int rs_vmc_open(struct rs_vmc *c, bool lines)
{
    char why[RS_VM_WHY];
    int code = rs_vm_open(c->o.vm, &c->vm, why, sizeof(why));
    if (code != 0) return rs_vmc_refuse(c, code, why);
    if (!lines || !c->vm->sealed) return 0;
    code = rs_vmc_connect(c);
    return code != 0 ? code : rs_vmc_home_open(c);
}

/*
 * Who was killed before it told what it did does it again: an add-disk would add a second one. So the intent,
 * by which a rerun knows that all is done, goes after the answer.
 */
int rs_vmc_told(struct rs_vmc *c, int code)
{
    char why[RS_VM_WHY];
    if (c->ended[0] == '\0') return code;
    (void)fflush(stdout); /* who has closed it wants no answer */
    rs_intent_step("told");
    int err = rs_intent_end(c->ended, why, sizeof(why));
    if (err == 0) return code;
    int failed = rs_exit_of(err);
    return rs_cli_fail(code != 0 ? code : failed, "vm", "%s", why);
}

void rs_vmc_close(struct rs_vmc *c)
{
    rs_vmc_phrases_free(c);
    rs_vm_close(c->vm);
    if (c->service != NULL) reseal_close(c->service);
    if (c->lock >= 0) close(c->lock);
    json_decref(c->result);
}
