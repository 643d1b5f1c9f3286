/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/cli/vm-home.h"

#include <stdio.h>

#define EVENT_UNLOCKED       "com.vmware.vc.vm.Crypto.VMUnlocked"
#define EVENT_LOCKED_HOST    "com.vmware.vc.vm.Crypto.VMLocked.KeyMissingOnHost"
#define EVENT_LOCKED_KMS     "com.vmware.vc.vm.Crypto.VMLocked.KeyMissingOnKMS"
#define EVENT_LOCKED_ERROR   "com.vmware.vc.vm.Crypto.VMLocked.KMSClusterError"
#define EVENT_LOCKED_TA      "com.vmware.vc.vm.Crypto.VMLocked.TAKeyMissingOnHost"
#define EVENT_LOCKED_TA_DOWN "com.vmware.vc.vm.Crypto.VMLocked.TAKMSClusterUnavaliable" /* so they spell it  \
                                                                                         */

/* The event of a VM whose key cannot be had. */
static const char *event_of(const struct rs_vmc_state *state)
{
    bool cluster = strcmp(state->reason, "KeyStateClusterUnreachable") == 0 ||
                   strcmp(state->reason, "KeyStateClusterInvalid") == 0;
    bool kms = strcmp(state->reason, "KeyStateMissingInKMS") == 0 ||
               strcmp(state->reason, "KeyStateNotActiveOrEnabled") == 0;
    if (state->trusted) return cluster ? EVENT_LOCKED_TA_DOWN : EVENT_LOCKED_TA;
    return cluster ? EVENT_LOCKED_ERROR : kms ? EVENT_LOCKED_KMS : EVENT_LOCKED_HOST;
}

static void tell_locked(struct rs_vmc *c)
{
    struct rs_vmc_key key;
    struct rs_vmc_state state;
    char message[2048];
    memcpy(key.provider, c->vm->provider, sizeof(key.provider));
    memcpy(key.key, c->vm->key, sizeof(key.key));
    rs_vmc_key_state(c, &key, &state);
    (void)snprintf(message, sizeof(message), "%s%s%s", c->f.text, state.reason[0] != '\0' ? ": " : "",
                   state.reason);
    rs_vmc_event(c, event_of(&state), message);
}

/* The VM is valid without the key of a disk: what is missing is that disk. */
static int check_disk(struct rs_vmc *c, const struct rs_vm_disk *d)
{
    struct rs_vmc_key key;
    struct rs_vmc_state state;
    if (d->problem == RESEAL_ENOSUPPORT) return 0; /* another program's: it has its own way to the key */
    if (d->problem != 0)
        return rs_failure_set(&c->f, RS_EXIT_FORMAT, "%s (%s): %s", d->disk.node, d->disk.path, d->why);
    if (!d->disk.encrypted || d->disk.key[0] == '\0') return 0;
    memcpy(key.provider, d->disk.provider, sizeof(key.provider));
    memcpy(key.key, d->disk.key, sizeof(key.key));
    rs_vmc_key_state(c, &key, &state);
    if (!state.known || state.available) return 0;
    return rs_failure_set(
        &c->f, RS_EXIT_KEY,
        "%s is unlocked, but %s: the disk is encrypted and a required key was not found (key %s of "
        "provider %s, %s)",
        c->vm->name, d->disk.node, d->disk.key, d->disk.provider, state.reason);
}

int rs_vmc_unlock(struct rs_vmc *c)
{
    uint64_t version;
    char message[NAME_MAX + 64];
    int code = rs_vmc_open(c, false);
    if (code != 0) return code;
    if (!c->vm->sealed)
        return rs_failure_set(&c->f, RS_EXIT_REFUSED, "%s is not encrypted: there is nothing to unlock",
                              c->vm->name);
    code = rs_vmc_connect(c);
    if (code != 0) return code;
    code = rs_vmc_home_open(c);
    if (code == RS_EXIT_KEY && !c->vm->by_phrase) tell_locked(c);
    if (code == 0) code = rs_vmc_same_vm(c);
    if (code == 0) code = rs_vmc_keep_safe(c, &version);
    if (code != 0) return code;
    (void)snprintf(message, sizeof(message), "%s is unlocked", c->vm->name);
    rs_vmc_event(c, EVENT_UNLOCKED, message);
    for (unsigned i = 0; i < c->vm->ndisks && code == 0; i++) code = check_disk(c, &c->vm->disks[i]);
    if (code == 0 && !c->o.quiet && !c->o.json) printf("%s\n", message);
    return code;
}
