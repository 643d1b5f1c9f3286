/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/cli/vm-change.h"
#include "offload/vm/policy.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#define EVENT_REKEY_FAIL "com.vmware.vc.vm.crypto.RekeyFail"

/* ---- the storage policy ------------------------------------------------------------- */

int rs_vmc_find_policy(struct rs_vmc *c, const char *otherwise, struct rs_vm_policy *p)
{
    char why[RS_VM_WHY];
    const char *name = c->o.policy != NULL ? c->o.policy : otherwise;
    int err = rs_vm_policy_find(c->o.policy_dir, name, p, why, sizeof(why));
    if (err == 0) return 0;
    return rs_failure_set(&c->f, err == RESEAL_ENOKEY ? RS_EXIT_REFUSED : rs_exit_of(err), "%s", why);
}

int rs_vmc_set_policy(struct rs_vmc_change *ch, const struct rs_vm_policy *p)
{
    char unit[16], bits[16];
    const char *provider = ch->c->o.provider != NULL ? ch->c->o.provider : p->provider;
    (void)snprintf(unit, sizeof(unit), "%u", p->unit);
    (void)snprintf(bits, sizeof(bits), "%u", p->key_bits);
    int code = rs_vmc_set(ch, "provider", provider);
    if (code == 0) code = rs_vmc_set(ch, "unit", unit);
    return code == 0 ? rs_vmc_set(ch, "key-bits", bits) : code;
}

/* ---- what is meant ------------------------------------------------------------------ */

static bool is_vmdk(const struct rs_disk *d)
{
    return d->format == RS_DISK_VMDK || d->format == RS_DISK_VMDK_XTS;
}

static bool chosen(struct rs_vmc *c, const struct rs_vm_disk *d)
{
    if (c->o.ndisks == 0) return !c->o.home && !c->o.vtpm && !c->o.remove_vtpm;
    for (unsigned i = 0; i < c->o.ndisks; i++)
        if (rs_vm_find_disk(c->vm, c->o.disks[i]) == d) return true;
    return false;
}

static int check_names(struct rs_vmc *c)
{
    for (unsigned i = 0; i < c->o.ndisks; i++)
        if (rs_vm_find_disk(c->vm, c->o.disks[i]) == NULL)
            return rs_failure_set(&c->f, RS_EXIT_USAGE, "%s has no disk '%s': reseal vm show lists them",
                                  c->vm->name, c->o.disks[i]);
    return 0;
}

int rs_vmc_barred(struct rs_vmc *c, const struct rs_disk *d)
{
    if (d->bar != NULL) return rs_failure_set(&c->f, RS_EXIT_FORMAT, "%s (%s): %s", d->node, d->path, d->bar);
    if (d->size % 512 != 0)
        return rs_failure_set(
            &c->f, RS_EXIT_FORMAT,
            "%s (%s) is no whole number of sectors of 512 bytes: truncate -s %%512 makes it one", d->node,
            d->path);
    return 0;
}

int rs_vmc_encrypted_format(struct rs_vmc *c, const struct rs_disk *d, const char *asked, const char **out)
{
    *out = is_vmdk(d) ? "vmdk-xts" : asked;
    int code = rs_vmc_barred(c, d);
    if (code != 0 || is_vmdk(d) || rs_disk_in_qcow2(d->format) == rs_disk_name_in_qcow2(asked)) return code;
    if (d->format != RS_DISK_QCOW2)
        return rs_failure_set(&c->f, RS_EXIT_REFUSED,
                              "%s (%s) is no qcow2 image: --format luks2, luks1 or xts", d->node, d->path);
    if (strcmp(asked, "luks2") != 0 && strcmp(asked, "luks1") != 0)
        return rs_failure_set(&c->f, RS_EXIT_REFUSED,
                              "%s (%s) is a qcow2 image, which --format %s is not for: luks2 or luks1",
                              d->node, d->path, asked);
    *out = strcmp(asked, "luks1") == 0 ? "luks1-qcow2" : "luks2-qcow2";
    return 0;
}

static int nothing(struct rs_vmc *c, const char *what)
{
    return rs_failure_set(&c->f, RS_EXIT_REFUSED, "nothing to do: what was chosen of %s is %s already",
                          c->vm->name, what);
}

/* ---- encrypt ------------------------------------------------------------------------ */

static int plan_encrypt_disks(struct rs_vmc_change *ch, const struct rs_vm_policy *p, unsigned *n)
{
    struct rs_vmc *c = ch->c;
    const char *format = c->o.format != NULL ? c->o.format : p->format;
    int code = 0;
    for (unsigned i = 0; code == 0 && i < c->vm->ndisks; i++) {
        const struct rs_vm_disk *d = &c->vm->disks[i];
        if (!chosen(c, d) || d->disk.encrypted || d->problem != 0) continue;
        const char *becomes;
        code = rs_vmc_encrypted_format(c, &d->disk, format, &becomes);
        if (code == 0) code = rs_vmc_set_disk(ch, &d->disk, becomes);
        (*n)++;
    }
    return code;
}

/* What a pass phrase can lock: the home alone. */
static int check_phrase(struct rs_vmc *c)
{
    if (c->o.pass == NULL || c->vm->by_phrase) return 0;
    if (c->vm->sealed)
        return rs_failure_set(
            &c->f, RS_EXIT_REFUSED,
            "%s is locked by key provider %s: reseal vm recrypt --shallow --new-passphrase-file "
            "gives it a pass phrase",
            c->vm->name, c->vm->provider);
    if (c->o.ndisks == 0 && c->o.provider == NULL) return 0;
    return rs_failure_set(
        &c->f, RS_EXIT_USAGE,
        "a pass phrase locks the home of a VM alone: encrypt that first, then its disks with "
        "--disk and a key provider");
}

static bool in_clear(const char *path)
{
    struct stat st;
    return path[0] != '\0' && stat(path, &st) == 0 && !rs_vmc_is_envelope(path);
}

/* What was encrypted can have got such a file since: a hypervisor makes NVRAM and vTPM state when it first
 * runs the VM. */
static bool home_is_in_clear(const struct rs_vm *vm)
{
    return !vm->sealed || in_clear(vm->nvram) || in_clear(vm->vtpm);
}

static int plan_encrypt(struct rs_vmc_change *ch)
{
    struct rs_vmc *c = ch->c;
    struct rs_vm_policy p;
    unsigned disks = 0;
    int code = rs_vmc_find_policy(c, RS_VM_POLICY_SAMPLE, &p);
    if (code == 0) code = check_phrase(c);
    if (code != 0) return code;
    bool phrase = c->vm->by_phrase || (!c->vm->sealed && c->o.pass != NULL);
    if (!p.encrypts && !c->o.vtpm)
        return rs_failure_set(
            &c->f, RS_EXIT_REFUSED,
            "the storage policy \"%s\" does not encrypt: reseal vm decrypt --policy changes to it", p.name);
    bool all = c->o.ndisks == 0 && !c->o.home && !c->o.vtpm;
    bool home = c->o.vtpm || ((all || c->o.home) && home_is_in_clear(c->vm));
    bool with_disks = !phrase || c->o.ndisks != 0 || c->o.provider != NULL;
    if (p.encrypts && with_disks) code = plan_encrypt_disks(ch, &p, &disks);
    if (code == 0) code = rs_vmc_set_policy(ch, &p);
    /* A VM that is encrypted keeps its policy and its key where no other is named. */
    if (code == 0 && with_disks && (!c->vm->sealed || c->o.policy != NULL))
        code = rs_vmc_set(ch, "policy", p.name);
    if (code == 0 && c->vm->sealed && c->o.provider == NULL) code = rs_vmc_set(ch, "home.key", "keep");
    if (code == 0 && phrase && home) code = rs_vmc_set(ch, "lock", "phrase");
    if (code != 0) return code;
    if (c->o.vtpm && c->vm->has_vtpm)
        return rs_failure_set(&c->f, RS_EXIT_REFUSED, "%s has a vTPM already", c->vm->name);
    if (disks == 0 && !home) return nothing(c, "encrypted");
    if (disks != 0 && !home && !c->vm->sealed)
        return rs_failure_set(&c->f, RS_EXIT_REFUSED,
                              "an encrypted disk needs an encrypted VM: add --home, or encrypt all of %s",
                              c->vm->name);
    if (c->o.vtpm) code = rs_vmc_set(ch, "vtpm", "add");
    /* A vTPM is a change of the lines, which are locked anew. */
    return code == 0 ? rs_vmc_set(ch, "home", home ? "seal" : "keep") : code;
}

/* ---- decrypt ------------------------------------------------------------------------ */

static const char *plain_format(const struct rs_disk *d)
{
    return is_vmdk(d) ? "vmdk" : rs_disk_in_qcow2(d->format) ? "qcow2" : "raw";
}

/* The policy that what is decrypted has from now on. */
static int take_plain_policy(struct rs_vmc_change *ch)
{
    struct rs_vmc *c = ch->c;
    struct rs_vm_policy p;
    if (c->o.policy == NULL) return 0;
    int code = rs_vmc_find_policy(c, c->o.policy, &p);
    if (code != 0) return code;
    if (p.encrypts)
        return rs_failure_set(&c->f, RS_EXIT_REFUSED,
                              "the storage policy \"%s\" encrypts: name one that does not", p.name);
    return rs_vmc_set(ch, "policy", p.name);
}

static int plan_decrypt(struct rs_vmc_change *ch)
{
    struct rs_vmc *c = ch->c;
    bool all = c->o.ndisks == 0 && !c->o.home;
    unsigned disks = 0, left = 0;
    int code = take_plain_policy(ch);
    for (unsigned i = 0; code == 0 && i < c->vm->ndisks; i++) {
        const struct rs_vm_disk *d = &c->vm->disks[i];
        if (!d->disk.encrypted) continue;
        bool take = all || (c->o.ndisks != 0 && chosen(c, d));
        left += !take;
        if (!take) continue;
        code = rs_vmc_barred(c, &d->disk);
        if (code == 0) code = rs_vmc_set_disk(ch, &d->disk, plain_format(&d->disk));
        disks++;
    }
    bool home = c->vm->sealed && (all || c->o.home);
    if (code != 0) return code;
    if (disks == 0 && !home) return nothing(c, "not encrypted");
    if (home && left != 0)
        return rs_failure_set(&c->f, RS_EXIT_REFUSED,
                              "an encrypted disk needs an encrypted VM: decrypt the other disks of %s too",
                              c->vm->name);
    if (home && c->vm->has_vtpm && !c->o.remove_vtpm)
        return rs_failure_set(
            &c->f, RS_EXIT_REFUSED,
            "%s has a vTPM, whose state must stay encrypted: add --remove-vtpm, which destroys it",
            c->vm->name);
    if (home && c->o.remove_vtpm) code = rs_vmc_set(ch, "vtpm", "remove");
    return code == 0 ? rs_vmc_set(ch, "home", home ? "open" : "keep") : code;
}

/* ---- deep --------------------------------------------------------------------------- */

static int plan_deep(struct rs_vmc_change *ch)
{
    struct rs_vmc *c = ch->c;
    struct rs_vm_policy p;
    if (!c->vm->sealed) return rs_failure_set(&c->f, RS_EXIT_REFUSED, "%s is not encrypted", c->vm->name);
    const char *policy = rs_vmx_get(c->vm->lines, "reseal.policy");
    int code = rs_vmc_find_policy(c, policy != NULL ? policy : RS_VM_POLICY_SAMPLE, &p);
    if (code == 0) code = rs_vmc_set_policy(ch, &p);
    if (code == 0 && c->o.provider == NULL) code = rs_vmc_set(ch, "provider", ch->old.key.provider);
    for (unsigned i = 0; code == 0 && i < c->vm->ndisks; i++) {
        const struct rs_disk *d = &c->vm->disks[i].disk;
        if (!d->encrypted) continue;
        code = rs_vmc_barred(c, d);
        if (code == 0) code = rs_vmc_set_disk(ch, d, rs_disk_format_name(d->format));
    }
    if (code == 0 && c->vm->by_phrase && c->o.provider == NULL) code = rs_vmc_set(ch, "lock", "phrase");
    return code == 0 ? rs_vmc_set(ch, "home", "seal") : code;
}

/* ---- the commands ------------------------------------------------------------------- */

static int change(struct rs_vmc *c, const char *operation, int (*plan)(struct rs_vmc_change *ch))
{
    struct rs_vmc_change ch;
    int code = rs_vmc_begin(c, operation, RS_VM_OFFLINE, &ch);
    bool over = code == 0 && ch.resumed && rs_intent_is_commit(&ch.intent);
    if (code == 0 && !over) code = rs_vmc_rules(&ch, false);
    if (code == 0 && !over && !ch.resumed) {
        code = check_names(c);
        if (code == 0) code = plan(&ch);
        if (code == 0) code = rs_vmc_plan(&ch);
    }
    if (code == 0 && !over) code = rs_vmc_bar(&ch);
    if (code == 0 && !over) code = rs_vmc_give_up(&ch, rs_vmc_stage(&ch));
    if (code == 0) code = rs_vmc_finish(&ch);
    rs_vmc_change_free(&ch);
    return code;
}

int rs_vmc_encrypt(struct rs_vmc *c)
{
    return change(c, "encrypt", plan_encrypt);
}

int rs_vmc_decrypt(struct rs_vmc *c)
{
    c->release = true;
    return change(c, "decrypt", plan_decrypt);
}

int rs_vmc_recrypt(struct rs_vmc *c)
{
    if (!c->o.shallow && !c->o.deep)
        return rs_failure_set(&c->f, RS_EXIT_USAGE,
                              "--shallow changes the key that wraps, --deep the data's own: say which");
    int code = c->o.deep ? change(c, "recrypt --deep", plan_deep) : rs_vmc_shallow(c);
    if (code != 0 && code != RS_EXIT_INTERRUPTED && code != RS_EXIT_USAGE && c->vm != NULL)
        rs_vmc_event(c, EVENT_REKEY_FAIL, c->f.text);
    return code;
}
