/* SPDX-License-Identifier: Apache-2.0 */
/* add-disk, remove-disk: a disk for a VM that is there, or one less. An image that comes and the file of a
 * new disk are one more disk of the VM for what vm-change.c and vm-stage.c do. */
#include "offload/base/text.h"
#include "offload/cli/vm-change.h"
#include "offload/cli/vm-copy.h"
#include "offload/vm/nodes.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAMES_MAX 10000u /* NAME_1.img, NAME_2.img, ... */

static int too_long(struct rs_vmc *c, const char *name)
{
    return rs_failure_set(&c->f, RS_EXIT_USAGE, "the name %s is too long", name);
}

/* ---- the same command again --------------------------------------------------------- */

/* What the command line asks for, as a rerun must ask for it. */
static int asked(struct rs_vmc *c, uint64_t size, const char *image, char *out, size_t room)
{
    char wanted[RS_DISK_NODE_MAX + 16] = "";
    if (c->o.node != NULL) (void)snprintf(wanted, sizeof(wanted), " --node %s", c->o.node);
    int n = c->o.size != NULL
                ? snprintf(out, room, "--size %llu%s%s", (unsigned long long)size, wanted,
                           c->o.plain ? " --plain" : "")
                : snprintf(out, room, "--image %s%s%s", image, wanted, c->o.plain ? " --plain" : "");
    return n > 0 && (size_t)n < room ? 0 : too_long(c, image);
}

static int check_same(struct rs_vmc_change *ch, const char *now)
{
    return strcmp(rs_vmc_get(ch, "asked"), now) == 0 ? 0 : rs_vmc_comes_first(ch);
}

/* ---- the node ----------------------------------------------------------------------- */

static int choose_node(struct rs_vmc *c, char node[RS_DISK_NODE_MAX])
{
    const struct rs_vm *vm = c->vm;
    if (vm->ndisks == RS_VM_DISKS_MAX)
        return rs_failure_set(&c->f, RS_EXIT_REFUSED, "%s has %u disks, and no VM can have more", vm->name,
                              RS_VM_DISKS_MAX);
    if (c->o.node == NULL)
        return rs_vm_node_free(vm->lines, node)
                   ? 0
                   : rs_failure_set(&c->f, RS_EXIT_REFUSED,
                                    "no node of scsi0 of %s is free: name another one with --node", vm->name);
    (void)snprintf(node, RS_DISK_NODE_MAX, "%s", c->o.node);
    if (!rs_vm_node_taken(vm->lines, node)) return 0;
    const struct rs_vm_disk *d = rs_vm_find_disk(c->vm, node);
    return rs_failure_set(&c->f, RS_EXIT_REFUSED, "%s of %s is taken by %s: name another --node, or none",
                          node, vm->name, d != NULL ? d->disk.path : "another device");
}

/* ---- an image that is there --------------------------------------------------------- */

static int refuse_image(struct rs_vmc *c, const char *path, const char *why)
{
    return rs_failure_set(&c->f, RS_EXIT_REFUSED, "%s %s", path, why);
}

/* It is not part of the VM already, which has so many disks. */
static int check_unused(struct rs_vmc *c, unsigned disks, const char *path)
{
    const struct rs_vm *vm = c->vm;
    for (unsigned i = 0; i < disks; i++) {
        const struct rs_disk *d = &vm->disks[i].disk;
        const char *const files[] = {d->path, d->data_path, d->header_path, d->parent};
        for (unsigned k = 0; k < RS_ARRAY_LEN(files); k++)
            if (files[k][0] != '\0' && rs_vmc_same_file(files[k], path))
                return rs_failure_set(&c->f, RS_EXIT_REFUSED,
                                      "nothing to do: %s is of %s already, the disk %s", path, vm->name,
                                      d->node);
    }
    const char *const own[] = {vm->vmx_path, vm->nvram, vm->vtpm};
    for (unsigned i = 0; i < RS_ARRAY_LEN(own); i++)
        if (own[i][0] != '\0' && rs_vmc_same_file(own[i], path))
            return refuse_image(c, path, "is no disk, but another file of the VM");
    return 0;
}

/* A file of its own: by another name it would be changed, or stay in the clear. */
static int check_own(struct rs_vmc *c, unsigned disks, const char *path)
{
    struct stat st;
    if (lstat(path, &st) != 0) return rs_failure_errno(&c->f, errno, "open", path);
    if (st.st_nlink != 1)
        return refuse_image(
            c, path, "has another name too (a hard link): give the VM a file of its own, such as a copy");
    return check_unused(c, disks, path);
}

static int check_image_file(struct rs_vmc *c, const char *path)
{
    struct stat st;
    if (lstat(path, &st) != 0) return rs_failure_errno(&c->f, errno, "open", path);
    if (S_ISLNK(st.st_mode)) return refuse_image(c, path, "is a symbolic link: name the file it leads to");
    if (!S_ISREG(st.st_mode)) return refuse_image(c, path, "is no file");
    if (st.st_size == 0) return refuse_image(c, path, "is empty: --size makes a new disk");
    if (rs_vm_has_suffix(path, ".iso"))
        return refuse_image(c, path, "would be taken for the image of a CD: give it another name");
    return check_own(c, c->vm->ndisks, path);
}

/* One whose key the caller may use: it is opened once. */
static int try_key(struct rs_vmc *c, const struct rs_disk *d)
{
    char why[RS_KEYSERVICE_WHY];
    struct rs_vmc_key key;
    reseal_key handle;
    struct reseal_luks luks;
    memcpy(key.provider, d->provider, sizeof(key.provider));
    memcpy(key.key, d->key, sizeof(key.key));
    RS_CLOSE int header = rs_vmc_header_copy(d->header_path, rs_disk_in_qcow2(d->format));
    if (header < 0) return rs_failure_errno(&c->f, header, "read the header in", d->header_path);
    int err = rs_vmc_disk_open(c->service, header, rs_disk_is_luks1(d->format) ? &key : NULL,
                               RESEAL_USE_SOURCE, &handle, &luks, why, sizeof(why));
    if (err == RESEAL_EPASS && rs_disk_is_luks1(d->format))
        return rs_failure_set(
            &c->f, RS_EXIT_KEY,
            "%s is encrypted, and not with the key of %s: a LUKS1 header cannot say with which "
            "one; reseal transcode makes a LUKS2 image of it",
            d->path, c->vm->name);
    if (err != 0)
        return rs_failure_set(&c->f, rs_exit_of(err), "%s is encrypted, and its key cannot be used: %s",
                              d->path, why);
    (void)!reseal_key_close(c->service, handle);
    return 0;
}

/* What its files are. A LUKS1 header cannot name its key: that of the VM is tried. */
static int look(struct rs_vmc *c, const struct rs_vmc_seal *seal, struct rs_disk *d)
{
    char why[512];
    if (c->vm->sealed && !seal->by_phrase) {
        memcpy(d->provider, seal->key.provider, sizeof(d->provider));
        memcpy(d->key, seal->key.key, sizeof(d->key));
    }
    int err = rs_disk_look(d, why, sizeof(why));
    if (err != 0)
        return rs_failure_set(&c->f, err == RESEAL_EIO ? RS_EXIT_IO : RS_EXIT_FORMAT, "%s: %s", d->path, why);
    return rs_vmc_barred(c, d);
}

/* The disk has been appended to those of the VM. */
static int check_image(struct rs_vmc *c, const struct rs_disk *d)
{
    int code = check_own(c, c->vm->ndisks - 1, d->data_path);
    if (code != 0) return code;
    if (d->parent[0] != '\0')
        return refuse_image(c, d->path, "is a link of a chain of snapshots: merge them first");
    if (rs_vm_image_in_use(d->data_path)) return refuse_image(c, d->path, "is in use by another program");
    if (!d->encrypted) return 0;
    if (d->format == RS_DISK_QCOW2_LUKS)
        return refuse_image(c, d->path,
                            "was encrypted by qcow2 itself, by another program's key: qemu-img convert makes "
                            "one that can be taken");
    if (c->o.plain) return refuse_image(c, d->path, "is encrypted, and stays so: leave --plain out");
    if (c->o.format != NULL || c->o.provider != NULL)
        return refuse_image(
            c, d->path,
            "is encrypted, and stays as it is: --format and --provider are for an image in the clear");
    return try_key(c, d);
}

/* ---- the plan ----------------------------------------------------------------------- */

/* The name of a new disk's file: the first that nothing has. */
static int new_name(struct rs_vmc *c, bool qcow2, char file[NAME_MAX + 1], char path[PATH_MAX])
{
    for (unsigned i = 1; i < NAMES_MAX; i++) {
        char fresh[PATH_MAX], header[PATH_MAX];
        (void)snprintf(file, NAME_MAX + 1, "%.200s_%u.%s", c->vm->name, i, qcow2 ? "qcow2" : "img");
        if (!rs_vm_resolve(c->vm->folder, file, path) || !rs_vmc_new_path(path, fresh) ||
            snprintf(header, sizeof(header), "%s" RS_DISK_HEADER, path) >= (int)sizeof(header))
            return too_long(c, file);
        if (access(path, F_OK) != 0 && access(fresh, F_OK) != 0 && access(header, F_OK) != 0) return 0;
    }
    return rs_failure_set(&c->f, RS_EXIT_FAILED, "there are too many disks in %s", c->vm->folder);
}

/* Its name in the .vmx: that below the VM's folder, where it is there. */
static const char *name_of(const struct rs_vm *vm, const char *path)
{
    size_t len = strlen(vm->folder);
    return strncmp(path, vm->folder, len) == 0 && path[len] == '/' ? path + len + 1 : path;
}

/* Whether the disk may be in the clear, and whether it may not. */
static int check_encrypts(struct rs_vmc *c, const struct rs_vm_policy *p, bool is_encrypted)
{
    if (c->o.plain) return 0;
    if (!c->vm->sealed)
        return rs_failure_set(&c->f, RS_EXIT_REFUSED,
                              "%s is not encrypted, and an encrypted disk needs an encrypted VM: reseal vm "
                              "encrypt first%s",
                              c->vm->name, is_encrypted ? "" : ", or --plain for a disk in the clear");
    if (p->encrypts || is_encrypted) return 0;
    return rs_failure_set(&c->f, RS_EXIT_REFUSED,
                          "the storage policy \"%s\" does not encrypt: name another --policy, or --plain for "
                          "a disk in the clear",
                          p->name);
}

/* One more disk of the VM. */
static struct rs_disk *append(struct rs_vmc *c, const char *node, const char *path)
{
    struct rs_vm_disk *d = &c->vm->disks[c->vm->ndisks++];
    *d = (struct rs_vm_disk){.problem = 0};
    (void)snprintf(d->disk.node, sizeof(d->disk.node), "%s", node);
    (void)snprintf(d->disk.path, sizeof(d->disk.path), "%s", path);
    return &d->disk;
}

static void set_empty(struct rs_disk *d, uint64_t size)
{
    memcpy(d->data_path, d->path, sizeof(d->data_path));
    d->size = size;
}

static int told(struct rs_vmc_change *ch, const char *node, const char *path, const char *format)
{
    char text[PATH_MAX + 64];
    (void)snprintf(text, sizeof(text), "%s is %s, %s", node, path, format);
    int code = rs_vmc_set(ch, "path", path);
    return code == 0 ? rs_vmc_set(ch, "told", text) : code;
}

static int plan_new(struct rs_vmc_change *ch, const struct rs_vm_policy *p, const char *node, uint64_t size)
{
    struct rs_vmc *c = ch->c;
    char file[NAME_MAX + 1], path[PATH_MAX], bytes[24];
    const char *format = c->o.plain ? "raw" : c->o.format != NULL ? c->o.format : p->format;
    (void)snprintf(bytes, sizeof(bytes), "%llu", (unsigned long long)size);
    int code = new_name(c, rs_disk_name_in_qcow2(format), file, path);
    if (code == 0) code = rs_vmc_set(ch, "add.file", file);
    if (code == 0) code = rs_vmc_set(ch, "add.size", bytes);
    if (code != 0) return code;
    struct rs_disk *d = append(c, node, path);
    set_empty(d, size);
    code = rs_vmc_set_disk(ch, d, format);
    return code == 0 ? told(ch, node, path, format) : code;
}

static int plan_image(struct rs_vmc_change *ch, const struct rs_vm_policy *p, struct rs_disk *d)
{
    struct rs_vmc *c = ch->c;
    const char *format = rs_disk_format_name(d->format);
    int code = rs_vmc_set(ch, "add.file", name_of(c->vm, d->path));
    if (code == 0 && !d->encrypted && !c->o.plain) {
        code = rs_vmc_encrypted_format(c, d, c->o.format != NULL ? c->o.format : p->format, &format);
        if (code == 0) code = rs_vmc_set_disk(ch, d, format);
    }
    return code == 0 ? told(ch, d->node, d->path, format) : code;
}

static int plan_disk(struct rs_vmc_change *ch, const struct rs_vm_policy *p, const char *node, uint64_t size,
                     const char *image)
{
    struct rs_vmc *c = ch->c;
    bool encrypted = false;
    struct rs_disk *d = NULL;
    int code = 0;
    if (c->o.image != NULL) {
        d = append(c, node, image);
        code = look(c, &ch->old, d);
        encrypted = code == 0 && d->encrypted;
    }
    if (code == 0) code = check_encrypts(c, p, encrypted);
    if (code == 0 && d != NULL) code = check_image(c, d);
    if (code != 0) return code;
    return d != NULL ? plan_image(ch, p, d) : plan_new(ch, p, node, size);
}

static int plan_add(struct rs_vmc_change *ch, uint64_t size, const char *image, const char *as_asked)
{
    struct rs_vmc *c = ch->c;
    struct rs_vm_policy p = {.encrypts = false};
    char node[RS_DISK_NODE_MAX];
    const char *policy = rs_vmx_get(c->vm->lines, "reseal.policy");
    int code = c->o.image != NULL ? check_image_file(c, image) : 0;
    if (code == 0) code = choose_node(c, node);
    if (code == 0 && !c->o.plain)
        code = rs_vmc_find_policy(c, policy != NULL ? policy : RS_VM_POLICY_SAMPLE, &p);
    if (code == 0) code = plan_disk(ch, &p, node, size, image);
    if (code == 0) code = rs_vmc_set(ch, "add.node", node);
    if (code == 0) code = rs_vmc_set(ch, "home", "disk");
    if (code == 0) code = rs_vmc_set(ch, "asked", as_asked);
    if (code == 0 && !c->o.plain) code = rs_vmc_set_policy(ch, &p);
    return code == 0 ? rs_vmc_plan(ch) : code;
}

/* The disk of the intent, for what is left to be done. */
static int take_added(struct rs_vmc_change *ch)
{
    struct rs_vmc *c = ch->c;
    char path[PATH_MAX];
    const char *file = rs_vmc_get(ch, "add.file"), *size = rs_vmc_get(ch, "add.size");
    if (!rs_vm_resolve(c->vm->folder, file, path) || c->vm->ndisks == RS_VM_DISKS_MAX)
        return too_long(c, file);
    struct rs_disk *d = append(c, rs_vmc_get(ch, "add.node"), path);
    if (*size == '\0') return look(c, &ch->old, d);
    set_empty(d, strtoull(size, NULL, 10));
    return 0;
}

/* ---- remove-disk -------------------------------------------------------------------- */

/* Without its disk the VM has no line for it. */
static void forget(struct rs_vm *vm, struct rs_vm_disk *d)
{
    size_t after = vm->ndisks - (size_t)(d - vm->disks) - 1;
    memmove(d, d + 1, after * sizeof(*d));
    vm->ndisks--;
}

static int plan_remove(struct rs_vmc_change *ch)
{
    struct rs_vmc *c = ch->c;
    char text[PATH_MAX + 64];
    struct rs_vm_disk *d = rs_vm_find_disk(c->vm, c->o.disks[0]);
    if (d == NULL)
        return rs_failure_set(&c->f, RS_EXIT_USAGE, "%s has no disk '%s': reseal vm show lists them",
                              c->vm->name, c->o.disks[0]);
    (void)snprintf(text, sizeof(text), "%s was %s, which stays", d->disk.node, d->disk.path);
    int code = rs_vmc_set(ch, "told", text);
    if (code == 0) code = rs_vmc_set(ch, "path", d->disk.path);
    (void)snprintf(text, sizeof(text), "--disk %s", c->o.disks[0]);
    if (code == 0) code = rs_vmc_set(ch, "asked", text);
    if (code == 0) code = rs_vmc_set(ch, "remove.node", d->disk.node);
    if (code == 0) code = rs_vmc_set(ch, "home", "disk");
    if (code != 0) return code;
    forget(c->vm, d);
    return rs_vmc_plan(ch);
}

static int take_removed(struct rs_vmc_change *ch)
{
    struct rs_vm_disk *d = rs_vm_find_disk(ch->c->vm, rs_vmc_get(ch, "remove.node"));
    if (d != NULL) forget(ch->c->vm, d);
    return 0;
}

/* ---- the commands ------------------------------------------------------------------- */

/* What the VM's other disks are is no hindrance: nothing is done to them. */
static int begin(struct rs_vmc *c, const char *operation, const char *as_asked, struct rs_vmc_change *ch)
{
    int code = rs_vmc_begin(c, operation, RS_VM_OFFLINE, ch);
    if (code == 0 && ch->resumed) code = check_same(ch, as_asked);
    return code == 0 && !ch->resumed ? rs_vmc_may_change(ch, false) : code;
}

static bool is_over(const struct rs_vmc_change *ch)
{
    return ch->resumed && rs_intent_is_commit(&ch->intent);
}

static int end(struct rs_vmc_change *ch, const char *node, int code)
{
    if (code == 0 && !is_over(ch)) code = rs_vmc_give_up(ch, rs_vmc_stage(ch));
    if (code == 0) code = rs_vmc_finish(ch);
    if (code == 0)
        ch->c->result = json_pack("{s:s, s:s, s:s}", "vm", ch->c->vm->name, "node", rs_vmc_get(ch, node),
                                  "path", rs_vmc_get(ch, "path"));
    return code;
}

static int check_options(struct rs_vmc *c)
{
    if ((c->o.size != NULL) == (c->o.image != NULL))
        return rs_failure_set(&c->f, RS_EXIT_USAGE, "--size makes a disk, --image takes one: say which");
    if (c->o.plain && (c->o.format != NULL || c->o.provider != NULL || c->o.policy != NULL))
        return rs_failure_set(&c->f, RS_EXIT_USAGE,
                              "--plain is a disk in the clear: it has no --format, --provider or --policy");
    if (c->o.node != NULL && !rs_vm_node_ok(c->o.node))
        return rs_failure_set(&c->f, RS_EXIT_USAGE, "--node %s: no disk can be there; one like scsi0:1 is",
                              c->o.node);
    return 0;
}

/* A .vmx is a text in UTF-8. */
static int check_name(struct rs_vmc *c, const char *path)
{
    bool ok = rs_is_utf8(path);
    for (const char *p = path; *p != '\0'; p++) ok = ok && (unsigned char)*p >= 0x20 && *p != 0x7f;
    return ok ? 0
              : rs_failure_set(&c->f, RS_EXIT_REFUSED,
                               "the name of the image is no UTF-8 text of one line: give it another name");
}

/* The image by its one name; a link stays one, and is refused later. */
static int find_image(struct rs_vmc *c, char real[PATH_MAX])
{
    char folder[PATH_MAX], full[PATH_MAX];
    const char *slash = strrchr(c->o.image, '/');
    size_t len = slash == NULL ? 0 : slash == c->o.image ? 1 : (size_t)(slash - c->o.image);
    if (len >= sizeof(folder)) return too_long(c, c->o.image);
    (void)snprintf(folder, sizeof(folder), "%.*s", (int)len, c->o.image);
    if (realpath(len == 0 ? "." : folder, full) == NULL)
        return rs_failure_errno(&c->f, errno, "open", c->o.image);
    if (!rs_vm_resolve(full, slash == NULL ? c->o.image : slash + 1, real)) return too_long(c, c->o.image);
    return check_name(c, real);
}

int rs_vmc_add_disk(struct rs_vmc *c)
{
    struct rs_vmc_change ch = {.c = c};
    char image[PATH_MAX] = "", as_asked[PATH_MAX + 128];
    uint64_t size = 0;
    int code = check_options(c);
    if (code == 0 && c->o.size != NULL) code = rs_vmc_take_size("size", c->o.size, &size, &c->f);
    if (code == 0 && c->o.image != NULL) code = find_image(c, image);
    if (code == 0) code = asked(c, size, image, as_asked, sizeof(as_asked));
    if (code != 0) return code;
    code = begin(c, "add-disk", as_asked, &ch);
    if (code == 0 && !is_over(&ch))
        code = ch.resumed ? take_added(&ch) : plan_add(&ch, size, image, as_asked);
    code = end(&ch, "add.node", code);
    rs_vmc_change_free(&ch);
    return code;
}

int rs_vmc_remove_disk(struct rs_vmc *c)
{
    struct rs_vmc_change ch = {.c = c};
    char as_asked[PATH_MAX + 128];
    if (c->o.ndisks != 1)
        return rs_failure_set(&c->f, RS_EXIT_USAGE, "one --disk is wanted: reseal vm show lists them");
    (void)snprintf(as_asked, sizeof(as_asked), "--disk %s", c->o.disks[0]);
    int code = begin(c, "remove-disk", as_asked, &ch);
    if (code == 0 && !is_over(&ch)) code = ch.resumed ? take_removed(&ch) : plan_remove(&ch);
    code = end(&ch, "remove.node", code);
    rs_vmc_change_free(&ch);
    return code;
}
