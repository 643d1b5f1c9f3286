/* SPDX-License-Identifier: Apache-2.0 */
/* recrypt --shallow: new headers and a new key safe, the data stays. The VM may run. */
#include "offload/cli/vm-change.h"

#include <stdio.h>

#define EVENT_MIXED_KEYS "com.vmware.vc.vm.crypto.DiskchainUsingMixedKeys"
#define CHAIN_MAX        32u

/* Appends the parent of a disk to the VM's disks; "scsi0:0" has parents "scsi0:0^1", "scsi0:0^2" ... */
static int add_parent(struct rs_vmc *c, unsigned of, unsigned depth)
{
    struct rs_vm *vm = c->vm;
    if (depth > CHAIN_MAX || vm->ndisks == RS_VM_DISKS_MAX)
        return rs_failure_set(&c->f, RS_EXIT_FORMAT, "the chain of %s is too long", vm->disks[of].disk.node);
    struct rs_vm_disk *p = &vm->disks[vm->ndisks];
    const struct rs_disk *child = &vm->disks[of].disk;
    *p = (struct rs_vm_disk){.problem = 0};
    memcpy(p->disk.path, child->parent, sizeof(p->disk.path));
    char node[RS_DISK_NODE_MAX];
    (void)snprintf(node, sizeof(node), "%.*s", (int)strcspn(child->node, "^"), child->node);
    int n = snprintf(p->disk.node, sizeof(p->disk.node), "%.20s^%u", node, depth);
    if (n >= (int)sizeof(p->disk.node))
        return rs_failure_set(&c->f, RS_EXIT_FORMAT, "the name %s is too long", node);
    p->problem = rs_disk_look(&p->disk, p->why, sizeof(p->why));
    vm->ndisks++;
    if (p->problem == 0) return 0;
    return rs_failure_set(&c->f, RS_EXIT_FORMAT, "%s (%s): %s", p->disk.node, p->disk.path, p->why);
}

static void tell_mixed(struct rs_vmc *c, const struct rs_disk *a, const struct rs_disk *b)
{
    char message[NAME_MAX + RS_DISK_NODE_MAX + 64];
    if (strcmp(a->provider, b->provider) == 0 && strcmp(a->key, b->key) == 0) return;
    (void)snprintf(message, sizeof(message), "%s: the chain of %s uses more than one key", c->vm->name,
                   a->node);
    rs_vmc_event(c, EVENT_MIXED_KEYS, message);
}

static int find_chains(struct rs_vmc *c)
{
    unsigned n = c->vm->ndisks;
    for (unsigned i = 0; i < n; i++) {
        unsigned at = i;
        for (unsigned depth = 1; c->vm->disks[at].disk.parent[0] != '\0'; depth++) {
            int code = add_parent(c, at, depth);
            if (code != 0) return code;
            at = c->vm->ndisks - 1;
            tell_mixed(c, &c->vm->disks[i].disk, &c->vm->disks[at].disk);
        }
    }
    return 0;
}

/* From a pass phrase the home is sealed anew, since key safes of others can have MACs that ours have not; to
 * one the key service rewraps it, if the policy lets the home out. Keys of disks stay with their provider. */
static int plan_phrase(struct rs_vmc_change *ch)
{
    struct rs_vmc *c = ch->c;
    if (c->o.new_pass == NULL && c->o.provider == NULL)
        return rs_failure_set(&c->f, RS_EXIT_USAGE,
                              "%s is locked by a pass phrase: --provider NAME moves it to a key provider, "
                              "--new-passphrase-file FILE changes the phrase",
                              c->vm->name);
    int code = c->o.new_pass != NULL ? rs_vmc_set(ch, "lock", "phrase") : 0;
    if (code == 0) code = rs_vmc_set(ch, "provider", c->o.provider != NULL ? c->o.provider : "");
    return code == 0 ? rs_vmc_set(ch, "home", c->vm->by_phrase ? "seal" : "rewrap") : code;
}

static int plan_provider(struct rs_vmc_change *ch)
{
    struct rs_vmc *c = ch->c;
    int code = rs_vmc_set(ch, "provider", c->o.provider != NULL ? c->o.provider : ch->old.key.provider);
    return code == 0 ? rs_vmc_set(ch, "home", "rewrap") : code;
}

static int plan(struct rs_vmc_change *ch)
{
    struct rs_vmc *c = ch->c;
    if (!c->vm->sealed) return rs_failure_set(&c->f, RS_EXIT_REFUSED, "%s is not encrypted", c->vm->name);
    int code = c->vm->by_phrase || c->o.new_pass != NULL ? plan_phrase(ch) : plan_provider(ch);
    for (unsigned i = 0; code == 0 && i < c->vm->ndisks && c->o.new_pass == NULL; i++) {
        const struct rs_disk *d = &c->vm->disks[i].disk;
        if (!d->encrypted || d->format == RS_DISK_QCOW2_LUKS) continue;
        if (!rs_disk_is_luks1(d->format) || d->key[0] != '\0') code = rs_vmc_set_disk(ch, d, "rewrap");
    }
    return code == 0 ? rs_vmc_plan(ch) : code;
}

int rs_vmc_shallow(struct rs_vmc *c)
{
    struct rs_vmc_change ch;
    int code = rs_vmc_begin(c, "recrypt --shallow", RS_VM_ONLINE, &ch);
    bool over = code == 0 && ch.resumed && rs_intent_is_commit(&ch.intent);
    bool online = code == 0 && !c->vm->by_phrase && c->o.new_pass == NULL;
    if (code == 0 && !over) code = rs_vmc_rules(&ch, online);
    if (code == 0 && !over) code = find_chains(c);
    if (code == 0 && !ch.resumed) code = plan(&ch);
    if (code == 0 && !over) code = rs_vmc_give_up(&ch, rs_vmc_stage(&ch));
    if (code == 0) code = rs_vmc_finish(&ch);
    rs_vmc_change_free(&ch);
    return code;
}
