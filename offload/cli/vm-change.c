/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/cli/vm-change.h"

#include "offload/base/text.h"
#include "offload/cli/progress.h"
#include "offload/vm/chain.h"
#include "offload/vm/safe.h"

#include <errno.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define EVENT_OPERATION "com.vmware.vc.crypto.Operation"
#define EVENT_NO_SPACE  "com.vmware.vc.vm.crypto.NoDiskSpace"
#define HEADER_ROOM     (16ull << 20)

/* ---- begin -------------------------------------------------------------------------- */

int rs_vmc_comes_first(struct rs_vmc_change *ch)
{
    const char *asked = rs_vmc_get(ch, "asked");
    return rs_failure_set(
        &ch->c->f, RS_EXIT_REFUSED,
        "an interrupted '%s%s%s' of %s comes first: run it again, or drop it with reseal vm repair "
        "--abandon",
        rs_intent_operation(&ch->intent), *asked != '\0' ? " " : "", asked, ch->c->vm->name);
}

static int find_intent(struct rs_vmc_change *ch, const char *operation)
{
    struct rs_vmc *c = ch->c;
    char why[RS_VM_WHY];
    int err = rs_intent_load(c->vm, &ch->intent, why, sizeof(why));
    if (err == RESEAL_ENOKEY) {
        err = rs_intent_new(c->vm, operation, &ch->intent);
        return err == 0 ? 0 : rs_failure_code(&c->f, err, c->vm->name);
    }
    if (err != 0) return rs_vmc_refuse(c, err, why);
    ch->resumed = true;
    if (strcmp(rs_intent_operation(&ch->intent), operation) == 0) return 0;
    return rs_vmc_comes_first(ch);
}

/* Who is killed after the last step, or asks twice, gives the phrase that the home has by now, and not the
 * one before. */
static int open_home(struct rs_vmc_change *ch)
{
    struct rs_vmc *c = ch->c;
    char why[RS_VM_WHY];
    int code = rs_vmc_home_open(c);
    if (code == 0 || ch->resumed || !c->vm->by_phrase || c->o.new_pass == NULL ||
        rs_vmc_home_check(c, c->vm->outer, why, sizeof(why)) != 0)
        return code;
    c->f.exit = RS_EXIT_OK; /* the first line of a failure stays: this is the better one */
    return rs_failure_set(&c->f, RS_EXIT_REFUSED, "nothing to do: %s has the new pass phrase already",
                          c->vm->name);
}

/* The VM may have run since, or an editor was at its .vmx: what was made of that is not used. */
static int renew(struct rs_vmc_change *ch)
{
    struct rs_vmc *c = ch->c;
    char why[RS_VM_WHY], operation[64];
    const char *path = ch->resumed ? rs_intent_changed(&ch->intent) : NULL;
    if (path == NULL) return 0;
    (void)snprintf(operation, sizeof(operation), "%s", rs_intent_operation(&ch->intent));
    fprintf(stderr, "reseal: warning: %s was changed since '%s' was interrupted: it begins anew\n", path,
            operation);
    int err = rs_intent_abandon(&ch->intent, why, sizeof(why));
    if (err != 0) return rs_vmc_refuse(c, err, why);
    rs_intent_free(&ch->intent);
    ch->resumed = false;
    err = rs_intent_new(c->vm, operation, &ch->intent);
    return err == 0 ? 0 : rs_failure_code(&c->f, err, c->vm->name);
}

/* What was changed already is not what the intent was made for: only its end is left to do. */
int rs_vmc_begin(struct rs_vmc *c, const char *operation, enum rs_vm_lock kind, struct rs_vmc_change *ch)
{
    char why[RS_VM_WHY];
    *ch = (struct rs_vmc_change){.c = c};
    int code = rs_vmc_open(c, false);
    if (code != 0) return code;
    /* Where a pass phrase comes or goes, NVRAM and vTPM state are written anew: nobody else may write them.
     */
    if (c->vm->by_phrase || c->o.new_pass != NULL) kind = RS_VM_OFFLINE;
    int err = rs_vm_lock(c->vm, kind, &c->lock, why, sizeof(why));
    if (err != 0) return rs_vmc_refuse(c, err, why);
    /* Read again: before the lock another command could have been at it. */
    rs_vm_close(c->vm);
    c->vm = NULL;
    code = rs_vmc_open(c, false);
    if (code != 0) return code;
    code = find_intent(ch, operation);
    if (code == 0) code = rs_vmc_connect(c);
    if (code != 0 || (ch->resumed && rs_intent_is_commit(&ch->intent))) return code;
    if (c->vm->sealed) code = open_home(ch);
    if (code == 0) code = rs_vmc_same_vm(c);
    if (code == 0) code = renew(ch);
    return code == 0 && c->vm->sealed ? rs_vmc_seal_of(c, c->vm->outer, &ch->old) : code;
}

int rs_vmc_bar(struct rs_vmc_change *ch)
{
    const struct rs_vm *vm = ch->c->vm;
    for (unsigned i = 0; i < vm->ndisks; i++) {
        const struct rs_disk *d = &vm->disks[i].disk;
        const char *format = rs_vmc_get_disk(ch, d);
        if (*format == '\0' || strcmp(format, "rewrap") == 0) continue;
        if (rs_vm_image_bar(d->data_path, &ch->bars[ch->nbars]) != 0)
            return rs_failure_set(&ch->c->f, RS_EXIT_REFUSED,
                                  "%s is powered on (%s is in use by another program): shut it down first",
                                  vm->name, d->node);
        ch->nbars++;
    }
    return 0;
}

void rs_vmc_change_free(struct rs_vmc_change *ch)
{
    for (unsigned i = 0; i < ch->nbars; i++)
        if (ch->bars[i] >= 0) close(ch->bars[i]);
    rs_intent_free(&ch->intent);
    rs_vmc_seal_free(&ch->old);
    rs_vmc_seal_free(&ch->seal);
}

/* ---- rules -------------------------------------------------------------------------- */

/* Disks in formats of other programs are no hindrance where the home alone is meant. */
static int check_disks(struct rs_vmc *c)
{
    bool home = (c->o.home || c->o.pass != NULL || c->vm->by_phrase) && c->o.ndisks == 0;
    for (unsigned i = 0; i < c->vm->ndisks; i++) {
        const struct rs_vm_disk *d = &c->vm->disks[i];
        if (d->problem == 0 || (home && d->problem == RESEAL_ENOSUPPORT)) continue;
        return rs_failure_set(&c->f, d->problem == RESEAL_EIO ? RS_EXIT_IO : RS_EXIT_FORMAT, "%s (%s): %s",
                              d->disk.node, d->disk.path, d->why);
    }
    return 0;
}

/* Those of other controllers may change while the VM runs. */
static int check_ide(struct rs_vmc *c)
{
    char why[RS_VM_WHY];
    for (unsigned i = 0; i < c->vm->ndisks; i++) {
        const char *node = c->vm->disks[i].disk.node;
        if (strncmp(node, "ide", 3) != 0) continue;
        if (!rs_vm_is_run(c->vm) && rs_vm_powered_off(c->vm, why, sizeof(why)) == 0) return 0;
        return rs_failure_set(&c->f, RS_EXIT_REFUSED,
                              "%s is powered on and has an IDE disk (%s): shut it down first", c->vm->name,
                              node);
    }
    return 0;
}

int rs_vmc_may_change(struct rs_vmc_change *ch, bool online)
{
    struct rs_vmc *c = ch->c;
    struct rs_vm_snapshots s;
    char why[RS_VM_WHY];
    int err = online ? 0 : rs_vm_powered_off(c->vm, why, sizeof(why));
    if (err == 0) err = rs_vm_find_snapshots(c->vm, &s, why, sizeof(why));
    if (err != 0) return rs_vmc_refuse(c, err, why);
    /* Snapshots can be removed, a parent that is another VM's cannot. */
    if (s.count != 0 && !online && rs_chain_check_clone(c->vm, why, sizeof(why)) == RESEAL_EBUSY)
        return rs_vmc_refuse(c, RESEAL_EBUSY, why);
    if (s.count != 0 && !online)
        return rs_failure_set(&c->f, RS_EXIT_REFUSED, "%s has snapshots (%s): remove them first", c->vm->name,
                              s.shown_by);
    if (s.tree)
        return rs_failure_set(
            &c->f, RS_EXIT_REFUSED,
            "%s has a tree of snapshots (%s): only a single chain can change its key; remove branches "
            "first",
            c->vm->name, s.shown_by);
    return online ? check_ide(c) : 0;
}

int rs_vmc_rules(struct rs_vmc_change *ch, bool online)
{
    int code = rs_vmc_may_change(ch, online);
    return code == 0 ? check_disks(ch->c) : code;
}

/* ---- the plan ----------------------------------------------------------------------- */

static int no_memory(struct rs_vmc_change *ch)
{
    return rs_failure_set(&ch->c->f, RS_EXIT_FAILED, "out of memory");
}

int rs_vmc_set(struct rs_vmc_change *ch, const char *name, const char *value)
{
    return rs_intent_set(&ch->intent, name, value) == 0 ? 0 : no_memory(ch);
}

const char *rs_vmc_get(const struct rs_vmc_change *ch, const char *name)
{
    const char *value = rs_intent_get(&ch->intent, name);
    return value != NULL ? value : "";
}

static void disk_name(const struct rs_disk *disk, char out[RS_DISK_NODE_MAX + 8])
{
    (void)snprintf(out, RS_DISK_NODE_MAX + 8, "disk.%s", disk->node);
}

int rs_vmc_set_disk(struct rs_vmc_change *ch, const struct rs_disk *disk, const char *format)
{
    char name[RS_DISK_NODE_MAX + 8];
    disk_name(disk, name);
    return rs_vmc_set(ch, name, format);
}

const char *rs_vmc_get_disk(const struct rs_vmc_change *ch, const struct rs_disk *disk)
{
    char name[RS_DISK_NODE_MAX + 8];
    disk_name(disk, name);
    return rs_vmc_get(ch, name);
}

bool rs_vmc_same_file(const char *a, const char *b)
{
    struct stat one, two;
    if (strcmp(a, b) == 0) return true;
    return stat(a, &one) == 0 && stat(b, &two) == 0 && one.st_dev == two.st_dev && one.st_ino == two.st_ino;
}

/* Each file changes once: two parts of a VM that are one file would lose what one of them is. */
static int check_once(struct rs_vmc_change *ch, const char *to)
{
    size_t i;
    json_t *action;
    json_array_foreach(json_object_get(ch->intent.root, "actions"), i, action)
    {
        const char *other = json_string_value(json_object_get(action, "to"));
        if (other != NULL && rs_vmc_same_file(other, to))
            return rs_failure_set(&ch->c->f, RS_EXIT_REFUSED,
                                  "two parts of %s are one file, %s: give each a file of its own",
                                  ch->c->vm->name, to);
    }
    return 0;
}

/* The new one would take the place of a link, and what it leads to would stay as it is. */
static int check_file(struct rs_vmc_change *ch, const char *to)
{
    struct stat st;
    if (lstat(to, &st) != 0 || S_ISREG(st.st_mode)) return 0;
    bool is_link = S_ISLNK(st.st_mode);
    return rs_failure_set(&ch->c->f, RS_EXIT_REFUSED, "%s is %s: only files are converted%s", to,
                          is_link ? "a symbolic link" : "no file",
                          is_link ? "; name the one that it leads to" : "");
}

static int add(struct rs_vmc_change *ch, enum rs_intent_kind kind, const char *from, const char *to)
{
    if (!rs_is_utf8(to)) /* the intent is JSON */
        return rs_failure_set(&ch->c->f, RS_EXIT_FORMAT,
                              "the name %s is no UTF-8 text: rename the file, and in the .vmx too", to);
    int code = kind == RS_INTENT_RENAME ? check_file(ch, to) : 0;
    if (code == 0) code = check_once(ch, to);
    if (code != 0) return code;
    return rs_intent_add(&ch->intent, kind, from, to) == 0 ? 0 : no_memory(ch);
}

/* `path` is to be replaced by PATH.reseal-new. */
static int replace(struct rs_vmc_change *ch, const char *path)
{
    char fresh[PATH_MAX];
    if (!rs_vmc_new_path(path, fresh))
        return rs_failure_set(&ch->c->f, RS_EXIT_USAGE, "the name %s is too long", path);
    return add(ch, RS_INTENT_RENAME, fresh, path);
}

static int too_long(struct rs_vmc_change *ch, const struct rs_disk *d)
{
    return rs_failure_set(&ch->c->f, RS_EXIT_USAGE, "the name %s is too long", d->path);
}

/* New data, and what goes with it. */
static int plan_copy(struct rs_vmc_change *ch, const struct rs_disk *d, const char *format)
{
    char header[PATH_MAX], side[PATH_MAX];
    bool was_side = rs_disk_name_has_side_header(rs_disk_format_name(d->format)),
         is_side = rs_disk_name_has_side_header(format);
    bool plain = strcmp(format, "raw") == 0 || strcmp(format, "vmdk") == 0 || strcmp(format, "qcow2") == 0;
    bool vmdk = d->format == RS_DISK_VMDK || d->format == RS_DISK_VMDK_XTS;
    if (!rs_vmc_header_path(d, header) || !rs_vmc_side_header(d, side)) return too_long(ch, d);
    int code = is_side ? add(ch, RS_INTENT_RENAME, header, side) : 0;
    if (code == 0) code = replace(ch, d->data_path);
    if (code == 0 && vmdk) code = replace(ch, d->path);
    if (code == 0 && was_side && !is_side) code = add(ch, RS_INTENT_REMOVE, "", side);
    if (code == 0 && !plain && !is_side) code = add(ch, RS_INTENT_REMOVE, header, header);
    return code;
}

/* Another key, the same data: a copy of the old header stays until all is done. */
static int plan_rewrap(struct rs_vmc_change *ch, const struct rs_disk *d)
{
    char header[PATH_MAX], old[PATH_MAX];
    if (!rs_vmc_header_path(d, header) || snprintf(old, sizeof(old), "%s.old", header) >= (int)sizeof(old))
        return too_long(ch, d);
    bool side = rs_disk_name_has_side_header(rs_disk_format_name(d->format));
    enum rs_intent_kind kind = side                          ? RS_INTENT_RENAME
                               : rs_disk_in_qcow2(d->format) ? RS_INTENT_HEADER_QCOW2
                                                             : RS_INTENT_HEADER;
    int code = add(ch, kind, header, d->header_path);
    if (code == 0 && d->format == RS_DISK_VMDK_XTS) code = replace(ch, d->path);
    return code == 0 ? add(ch, RS_INTENT_REMOVE, old, old) : code;
}

static int plan_file(struct rs_vmc_change *ch, const char *path)
{
    struct stat st;
    return path[0] != '\0' && stat(path, &st) == 0 ? replace(ch, path) : 0;
}

static int plan_home(struct rs_vmc_change *ch)
{
    const struct rs_vm *vm = ch->c->vm;
    const char *home = rs_vmc_get(ch, "home");
    bool phrase = strcmp(rs_vmc_get(ch, "lock"), "phrase") == 0;
    bool files = strcmp(home, "seal") == 0 || strcmp(home, "open") == 0 || phrase;
    bool drop = strcmp(rs_vmc_get(ch, "vtpm"), "remove") == 0;
    int code = 0;
    if (files) code = plan_file(ch, vm->nvram);
    if (code == 0 && files && !drop) code = plan_file(ch, vm->vtpm);
    if (code == 0 && drop && vm->vtpm[0] != '\0') code = add(ch, RS_INTENT_REMOVE, "", vm->vtpm);
    bool disk = strcmp(home, "disk") == 0;
    return code == 0 && (files || disk || vm->sealed) ? replace(ch, vm->vmx_path) : code;
}

/* ---- room --------------------------------------------------------------------------- */

static int no_room(struct rs_vmc_change *ch, const char *folder, uint64_t need, uint64_t have)
{
    char a[24], b[24], message[512];
    rs_bytes_text(need, a, sizeof(a));
    rs_bytes_text(have, b, sizeof(b));
    (void)snprintf(message, sizeof(message), "%s: %s are needed in %s, %s are free", ch->c->vm->name, a,
                   folder, b);
    rs_vmc_event(ch->c, EVENT_NO_SPACE, message);
    return rs_failure_set(&ch->c->f, RS_EXIT_IO, "%s: a disk is copied before the old one goes; make room",
                          message);
}

static uint64_t room_of(const struct rs_disk *d, const char *format, const struct stat *st)
{
    bool plain = strcmp(format, "raw") == 0 || strcmp(format, "vmdk") == 0 || strcmp(format, "qcow2") == 0;
    if (rs_disk_in_qcow2(d->format)) return (uint64_t)st->st_blocks * 512 + HEADER_ROOM;
    if (strcmp(format, "raw") == 0) return d->size;
    return RS_MAX(d->size, (uint64_t)st->st_size) + (plain ? 0 : HEADER_ROOM);
}

/* A disk's new file lies where the old one does; those of one file system need room together. */
static int check_room(struct rs_vmc_change *ch)
{
    const struct rs_vm *vm = ch->c->vm;
    for (unsigned i = 0; i < vm->ndisks; i++) {
        char folder[PATH_MAX];
        struct statvfs fs;
        uint64_t need = 0;
        (void)snprintf(folder, sizeof(folder), "%s", vm->disks[i].disk.data_path);
        const char *where = dirname(folder);
        struct stat here;
        if (stat(where, &here) != 0 || statvfs(where, &fs) != 0)
            return rs_failure_errno(&ch->c->f, errno, "look at", where);
        for (unsigned k = 0; k < vm->ndisks; k++) {
            const struct rs_disk *d = &vm->disks[k].disk;
            const char *format = rs_vmc_get_disk(ch, d);
            struct stat st;
            if (*format == '\0' || strcmp(format, "rewrap") == 0 || stat(d->data_path, &st) != 0 ||
                st.st_dev != here.st_dev)
                continue;
            need += room_of(d, format, &st);
        }
        uint64_t have = (uint64_t)fs.f_bavail * fs.f_frsize;
        if (need > have) return no_room(ch, where, need, have);
    }
    return 0;
}

/* ---- plan and end ------------------------------------------------------------------- */

int rs_vmc_plan(struct rs_vmc_change *ch)
{
    const struct rs_vm *vm = ch->c->vm;
    int code = rs_vmc_safe_place(ch->c);
    if (code != 0) return code;
    if (ch->c->vm->uuid[0] == '\0') rs_vm_uuid(ch->c->vm->uuid);
    code = rs_vmc_set(ch, "uuid", ch->c->vm->uuid);
    if (code == 0) code = check_room(ch);
    for (unsigned i = 0; code == 0 && i < vm->ndisks; i++) {
        const struct rs_disk *d = &vm->disks[i].disk;
        const char *format = rs_vmc_get_disk(ch, d);
        if (*format == '\0') continue;
        code = strcmp(format, "rewrap") == 0 ? plan_rewrap(ch, d) : plan_copy(ch, d, format);
    }
    if (code == 0) code = plan_home(ch);
    if (code == 0 && rs_intent_watch(&ch->intent) != 0) code = no_memory(ch);
    if (code == 0 && rs_intent_save(&ch->intent) != 0)
        code = rs_failure_errno(&ch->c->f, errno, "write", ch->intent.path);
    rs_intent_step("plan");
    return code;
}

int rs_vmc_give_up(struct rs_vmc_change *ch, int code)
{
    char why[RS_VM_WHY];
    /* Others took the room that was there at the beginning. */
    if (code == RS_EXIT_IO && strstr(ch->c->f.text, strerror(ENOSPC)) != NULL)
        rs_vmc_event(ch->c, EVENT_NO_SPACE, ch->c->f.text);
    bool goes_on = code == RS_EXIT_INTERRUPTED || code == RS_EXIT_SERVICE || code == RS_EXIT_IO;
    if (code == 0 || ch->resumed || goes_on || rs_intent_has_any(&ch->intent, "copy:")) return code;
    (void)!rs_intent_abandon(&ch->intent, why, sizeof(why));
    return code;
}

/* The VM as it is now: the key safe of the new .vmx opens what it locks. One of another VM, put there since
 * the command was interrupted, would count as this one's from then on. */
static int keep_safe(struct rs_vmc_change *ch)
{
    struct rs_vmc *c = ch->c;
    char why[RS_VM_WHY];
    struct rs_vm *now = NULL;
    uint64_t version;
    const char *uuid = rs_vmc_get(ch, "uuid");
    int err = rs_vm_open(c->vm->vmx_path, &now, why, sizeof(why));
    if (err != 0) return rs_vmc_refuse(c, err, why);
    bool sealed = now->sealed, other = sealed && *uuid != '\0' && strcmp(now->uuid, uuid) != 0;
    rs_vm_close(now);
    if (other)
        return rs_failure_set(&c->f, RS_EXIT_FORMAT,
                              "%s is of another VM: reseal vm repair puts the safe copy back",
                              c->vm->vmx_path);
    return sealed ? rs_vmc_keep_safe(c, &version) : 0;
}

/* The VM is what it was to be; who cannot copy its .vmx must not keep it from running. */
static int no_copy(struct rs_vmc_change *ch, int code)
{
    struct rs_failure why = ch->c->f;
    ch->c->f.exit = RS_EXIT_OK; /* the first line of a failure stays: this one has it inside */
    return rs_failure_set(&ch->c->f, code,
                          "%s is done, but %s: when that is mended, reseal vm unlock makes the copy",
                          rs_intent_operation(&ch->intent), why.text);
}

int rs_vmc_finish(struct rs_vmc_change *ch)
{
    struct rs_vmc *c = ch->c;
    char why[RS_VM_WHY];
    int err = rs_intent_commit(&ch->intent, why, sizeof(why));
    if (ch->intent.kept[0] != '\0')
        fprintf(stderr,
                "reseal: warning: %s is what was written after '%s' had copied it: see what of it is needed, "
                "then "
                "remove it\n",
                ch->intent.kept, rs_intent_operation(&ch->intent));
    if (err != 0) return rs_vmc_refuse(c, err, why);
    int code = keep_safe(ch);
    rs_intent_step("safe");
    memcpy(c->ended, ch->intent.path, sizeof(c->ended));
    if (code != 0) return no_copy(ch, code);
    const char *more = rs_vmc_get(ch, "told");
    (void)snprintf(why, sizeof(why), "%s: %s is done%s%s", c->vm->name, rs_intent_operation(&ch->intent),
                   *more != '\0' ? ": " : "", more);
    rs_vmc_event(c, EVENT_OPERATION, why);
    if (!c->o.quiet && !c->o.json) printf("%s\n", why);
    return 0;
}
