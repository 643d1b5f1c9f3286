/* SPDX-License-Identifier: Apache-2.0 */
/* recrypt --shallow: new headers and a new key safe, the data stays. The VM may run. */
#include "offload/cli/vm-change.h"
#include "offload/vm/chain.h"
#include "offload/vm/qcow2-served.h"

/* Changed together, links have one key again. */
static int load_chains(struct rs_vmc *c)
{
    char why[RS_VM_WHY];
    int err = rs_chain_load(c->vm, why, sizeof(why));
    if (err != 0) return rs_vmc_refuse(c, err, why);
    rs_vmc_tell_mixed(c);
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

/* An earlier run that was killed had images open, and QEMU closes them in order first. */
static void wait_for_images(const struct rs_vm *vm)
{
    for (unsigned i = 0; i < vm->ndisks; i++) {
        const struct rs_disk *d = &vm->disks[i].disk;
        if (rs_disk_in_qcow2(d->format) && !rs_qcow2_served_is(d->path) && rs_vm_image_stays_in_use(d->path))
            return;
    }
}

int rs_vmc_shallow(struct rs_vmc *c)
{
    struct rs_vmc_change ch;
    int code = rs_vmc_begin(c, "recrypt --shallow", RS_VM_ONLINE, &ch);
    bool over = code == 0 && ch.resumed && rs_intent_is_commit(&ch.intent);
    bool online = code == 0 && !c->vm->by_phrase && c->o.new_pass == NULL;
    if (code == 0 && ch.resumed && !over) wait_for_images(c->vm);
    if (code == 0 && !over) code = rs_vmc_rules(&ch, online);
    if (code == 0 && !over) code = load_chains(c);
    if (code == 0 && !ch.resumed) code = plan(&ch);
    if (code == 0 && !over) code = rs_vmc_give_up(&ch, rs_vmc_stage(&ch));
    if (code == 0) code = rs_vmc_finish(&ch);
    rs_vmc_change_free(&ch);
    return code;
}
