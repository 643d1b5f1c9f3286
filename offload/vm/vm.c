/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/vm/vm.h"

#include "offload/base/text.h"
#include "offload/vm/locator.h"
#include "reseal/reseal.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/random.h>
#include <sys/stat.h>

bool rs_vm_path(const struct rs_vm *vm, const char *suffix, char out[PATH_MAX])
{
    int n = snprintf(out, PATH_MAX, "%s/%s%s", vm->folder, vm->name, suffix);
    return n > 0 && n < PATH_MAX;
}

void rs_vm_uuid(char out[RS_VM_UUID_LEN])
{
    static const char digits[] = "0123456789abcdef";
    uint8_t b[16];
    while (getrandom(b, sizeof(b), 0) != (ssize_t)sizeof(b)) continue;
    b[6] = (uint8_t)((b[6] & 0x0f) | 0x40);
    b[8] = (uint8_t)((b[8] & 0x3f) | 0x80);
    for (unsigned i = 0; i < sizeof(b); i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10) *out++ = '-';
        *out++ = digits[b[i] >> 4];
        *out++ = digits[b[i] & 15];
    }
    *out = '\0';
}

/* ---- which file --------------------------------------------------------------------- */

/* The only .vmx of a folder. */
static int find_vmx(const char *path, char name[NAME_MAX + 1], char *why, size_t why_len)
{
    DIR *dir = opendir(path);
    if (dir == NULL)
        return rs_vm_refuse(RESEAL_EIO, why, why_len, "cannot read %s: %s", path, strerror(errno));
    unsigned found = 0;
    for (const struct dirent *e; (e = readdir(dir)) != NULL;) {
        if (!rs_vm_has_suffix(e->d_name, ".vmx") || e->d_name[0] == '.') continue;
        (void)snprintf(name, NAME_MAX + 1, "%s", e->d_name);
        found++;
    }
    closedir(dir);
    if (found == 1) return 0;
    if (found == 0)
        return rs_vm_refuse(
            RESEAL_ENOKEY, why, why_len,
            "no .vmx in %s: name the VM's folder, or put the safe copy back (reseal vm repair); for an image "
            "alone make a VM (reseal vm create) and add it (add-disk --image)",
            path);
    return rs_vm_refuse(RESEAL_ENOKEY, why, why_len, "%u .vmx files in %s: name one of them", found, path);
}

/* Splits the path of a .vmx into its folder and its name. */
static int split_path(struct rs_vm *vm, const char *real, char *why, size_t why_len)
{
    const char *slash = strrchr(real, '/');
    size_t folder = (size_t)(slash - real), name = strlen(slash + 1);
    if (name >= sizeof(vm->name))
        return rs_vm_refuse(RESEAL_EIO, why, why_len, "the name %s is too long", real);
    memcpy(vm->vmx_path, real, strlen(real) + 1);
    memcpy(vm->folder, real, folder);
    vm->folder[folder] = '\0';
    if (folder == 0) memcpy(vm->folder, "/", 2);
    memcpy(vm->name, slash + 1, name - 4);
    vm->name[name - 4] = '\0';
    return 0;
}

static int take_path(struct rs_vm *vm, const char *path, char *why, size_t why_len)
{
    char real[PATH_MAX], vmx[PATH_MAX], name[NAME_MAX + 1];
    struct stat st;
    if (realpath(path, real) == NULL || stat(real, &st) != 0)
        return rs_vm_refuse(RESEAL_EIO, why, why_len, "cannot open %s: %s", path, strerror(errno));
    if (!rs_is_utf8(real))
        return rs_vm_refuse(RESEAL_EFORMAT, why, why_len, "the name %s is no UTF-8 text: rename it", real);
    if (rs_vm_has_suffix(real, ".vmx") && !S_ISDIR(st.st_mode)) return split_path(vm, real, why, why_len);
    if (!S_ISDIR(st.st_mode))
        return rs_vm_refuse(RESEAL_ENOKEY, why, why_len, "%s is neither a folder nor a .vmx file", path);
    int code = find_vmx(real, name, why, why_len);
    if (code != 0) return code;
    if (!rs_vm_resolve(real, name, vmx))
        return rs_vm_refuse(RESEAL_EIO, why, why_len, "the name %s is too long", path);
    return split_path(vm, vmx, why, why_len);
}

bool rs_vm_guess(const char *path, bool is_folder, struct rs_vm *vm)
{
    char folder[PATH_MAX], real[PATH_MAX], vmx[PATH_MAX], name[NAME_MAX + 1], why[RS_VM_WHY];
    (void)snprintf(folder, sizeof(folder), "%s", path);
    const char *base = strrchr(path, '/');
    char *slash = strrchr(folder, '/');
    if (!is_folder && slash != NULL) *slash = '\0';
    if (realpath(is_folder ? path : slash != NULL ? folder : ".", real) == NULL) return false;
    if (!is_folder) {
        (void)snprintf(name, sizeof(name), "%s", base != NULL ? base + 1 : path);
    } else if (find_vmx(real, name, why, sizeof(why)) != 0) {
        (void)snprintf(name, sizeof(name), "%.*s.vmx", NAME_MAX - 4, strrchr(real, '/') + 1);
    }
    return rs_vm_has_suffix(name, ".vmx") && rs_vm_resolve(real, name, vmx) &&
           split_path(vm, vmx, why, sizeof(why)) == 0;
}

/* ---- lines -------------------------------------------------------------------------- */

bool rs_vm_is_clear(const char *name)
{
    return strncasecmp(name, "encryption.", 11) == 0 || strcasecmp(name, ".encoding") == 0 ||
           strcasecmp(name, "config.version") == 0 || strcasecmp(name, "virtualHW.version") == 0 ||
           strcasecmp(name, "displayName") == 0 || strcasecmp(name, "reseal.vm") == 0 ||
           rs_vm_has_suffix(name, ".keyId");
}

static bool is_true(const struct rs_vmx *v, const char *name, bool otherwise)
{
    const char *value = rs_vmx_get(v, name);
    return value == NULL ? otherwise : strcasecmp(value, "TRUE") == 0;
}

/* "scsi0:0" of "scsi0:0.fileName", in any case; false for any other name. */
static bool disk_node(const char *name, char node[RS_DISK_NODE_MAX])
{
    unsigned bus, unit;
    int at = 0;
    if (sscanf(name, "%*[a-zA-Z]%u:%u%n", &bus, &unit, &at) < 2 || at <= 0 ||
        strcasecmp(name + at, ".fileName") != 0 || (size_t)at >= RS_DISK_NODE_MAX)
        return false;
    if (strncasecmp(name, "scsi", 4) != 0 && strncasecmp(name, "sata", 4) != 0 &&
        strncasecmp(name, "nvme", 4) != 0 && strncasecmp(name, "ide", 3) != 0)
        return false;
    for (int i = 0; i < at; i++) node[i] = (char)tolower((unsigned char)name[i]);
    node[at] = '\0';
    return true;
}

static bool is_known(const struct rs_vm *vm, const char *node)
{
    for (unsigned i = 0; i < vm->ndisks; i++)
        if (strcmp(vm->disks[i].disk.node, node) == 0) return true;
    return false;
}

static const char *member(const struct rs_vmx *v, const char *node, const char *name)
{
    char full[RS_DISK_NODE_MAX + 32];
    (void)snprintf(full, sizeof(full), "%s.%s", node, name);
    return rs_vmx_get(v, full);
}

static bool is_disk(const struct rs_vmx *v, const char *node, const char *file)
{
    const char *present = member(v, node, "present"), *type = member(v, node, "deviceType");
    if (present != NULL && strcasecmp(present, "TRUE") != 0) return false;
    if (type != NULL && strncasecmp(type, "cdrom", 5) == 0) return false;
    return file[0] != '\0' && strcasecmp(file, "auto detect") != 0 && !rs_vm_has_suffix(file, ".iso");
}

static int take_disk(const char *name, const char *value, void *arg)
{
    struct rs_vm *vm = arg;
    char node[RS_DISK_NODE_MAX];
    if (!disk_node(name, node) || is_known(vm, node)) return 0;
    value = rs_vmx_get(vm->lines, name); /* of two lines the last one counts */
    if (!is_disk(vm->lines, node, value)) return 0;
    if (vm->ndisks == RS_VM_DISKS_MAX) return RESEAL_ELIMIT;
    struct rs_vm_disk *d = &vm->disks[vm->ndisks++];
    *d = (struct rs_vm_disk){.problem = 0};
    memcpy(d->disk.node, node, sizeof(node));
    if (!rs_vm_resolve(vm->folder, value, d->disk.path)) {
        d->problem = rs_vm_refuse(RESEAL_EFORMAT, d->why, sizeof(d->why), "its name is too long");
        return 0;
    }
    if (!rs_is_utf8(d->disk.path)) {
        d->problem =
            rs_vm_refuse(RESEAL_EFORMAT, d->why, sizeof(d->why),
                         "its name is no UTF-8 text: rename the file, and in the .vmx too, in UTF-8");
        rs_line_clean(d->disk.path); /* it is only shown from here on */
        return 0;
    }
    const char *locator = member(vm->outer, node, "keyId");
    if (locator != NULL && rs_disk_take_locator(locator, d->disk.provider, d->disk.key) != 0)
        d->problem = rs_vm_refuse(RESEAL_EFORMAT, d->why, sizeof(d->why),
                                  "%s.keyId in the .vmx is no key locator", node);
    else
        d->problem = rs_disk_look(&d->disk, d->why, sizeof(d->why));
    if (locator != NULL && d->problem == 0 && !d->disk.encrypted)
        d->problem =
            rs_vm_refuse(RESEAL_EFORMAT, d->why, sizeof(d->why),
                         "the .vmx names its key, and it has no LUKS header: put the header back from a "
                         "backup, or take the line %s.keyId out if it was decrypted for another VM",
                         node);
    return d->problem == RESEAL_ENOMEM ? RESEAL_ENOMEM : 0;
}

static int take_devices(struct rs_vm *vm, char *why, size_t why_len)
{
    vm->ndisks = 0;
    vm->has_vtpm = is_true(vm->lines, "vtpm.present", false);
    const char *nvram = rs_vmx_get(vm->lines, "nvram"), *vtpm = rs_vmx_get(vm->lines, "vtpm.fileName");
    if ((nvram != NULL && !rs_vm_resolve(vm->folder, nvram, vm->nvram)) ||
        (vtpm != NULL && !rs_vm_resolve(vm->folder, vtpm, vm->vtpm)))
        return rs_vm_refuse(RESEAL_EFORMAT, why, why_len, "a file name in %s.vmx is too long", vm->name);
    int code = rs_vmx_each(vm->lines, take_disk, vm);
    return code == RESEAL_ELIMIT ? rs_vm_refuse(RESEAL_EFORMAT, why, why_len,
                                                "%s.vmx names more than %u disks", vm->name, RS_VM_DISKS_MAX)
                                 : code;
}

bool rs_vm_locked_by_phrase(const struct rs_vmx *outer)
{
    const char *safe = rs_vmx_get(outer, "encryption.keySafe");
    char provider[RS_DISK_PROVIDER_MAX], key[RS_DISK_KEY_MAX], why[128];
    struct rs_locator *l = NULL;
    bool found = false;
    if (safe == NULL || rs_disk_take_locator(safe, provider, key) == 0 ||
        rs_locator_parse(safe, strlen(safe), &l, why, sizeof(why)) != 0)
        return false;
    for (const struct rs_locator *p = l->type == RS_LOCATOR_LIST ? l->child : l; p != NULL; p = p->next)
        found =
            found || (p->type == RS_LOCATOR_PAIR && p->child != NULL && p->child->type == RS_LOCATOR_PHRASE);
    rs_locator_free(l);
    return found;
}

static int take_seal(struct rs_vm *vm, char *why, size_t why_len)
{
    const char *safe = rs_vmx_get(vm->outer, "encryption.keySafe");
    const char *data = rs_vmx_get(vm->outer, "encryption.data");
    const char *bundle = rs_vmx_get(vm->outer, "encryption.bundle");
    vm->sealed = safe != NULL || data != NULL || bundle != NULL;
    if (!vm->sealed) return 0;
    if (safe == NULL || data == NULL)
        return rs_vm_refuse(
            RESEAL_EFORMAT, why, why_len,
            "%s.vmx is torn: it is encrypted and has no %s; reseal vm repair puts the safe copy back",
            vm->name, safe == NULL ? "encryption.keySafe" : "encryption.data");
    /* One that a pass phrase locks has no key id. */
    if (rs_disk_take_locator(safe, vm->provider, vm->key) != 0) vm->provider[0] = vm->key[0] = '\0';
    vm->by_phrase = rs_vm_locked_by_phrase(vm->outer);
    return 0;
}

static int read_vmx(struct rs_vm *vm, char *why, size_t why_len)
{
    char *text = NULL, wrong[256];
    size_t len = 0;
    int code = rs_vm_read_file(vm->vmx_path, RS_VMX_MAX, &text, &len);
    if (code == RESEAL_EIO)
        return rs_vm_refuse(code, why, why_len, "cannot read %s: %s", vm->vmx_path, strerror(errno));
    if (code != 0)
        return rs_vm_refuse(RESEAL_EFORMAT, why, why_len, "%s is too large for a .vmx", vm->vmx_path);
    code = rs_vmx_parse(text, len, &vm->outer, wrong, sizeof(wrong));
    rs_wipe(text, len);
    free(text);
    if (code == RESEAL_EFORMAT)
        return rs_vm_refuse(
            code, why, why_len,
            "%s is damaged: %s; if it was encrypted, reseal vm repair puts the safe copy back", vm->vmx_path,
            wrong);
    return code;
}

static int fill(struct rs_vm *vm, const char *path, char *why, size_t why_len)
{
    int code = take_path(vm, path, why, why_len);
    if (code == 0) code = read_vmx(vm, why, why_len);
    if (code == 0) code = take_seal(vm, why, why_len);
    if (code != 0) return code;
    const char *uuid = rs_vmx_get(vm->outer, "reseal.vm");
    if (uuid != NULL) (void)snprintf(vm->uuid, sizeof(vm->uuid), "%s", uuid);
    if (vm->sealed) return 0;
    vm->lines = vm->outer;
    return take_devices(vm, why, why_len);
}

int rs_vm_open(const char *path, struct rs_vm **out, char *why, size_t why_len)
{
    *out = NULL;
    struct rs_vm *vm = calloc(1, sizeof(*vm));
    if (vm == NULL) return RESEAL_ENOMEM;
    why[0] = '\0';
    int code = fill(vm, path, why, why_len);
    if (code == 0) {
        *out = vm;
        return 0;
    }
    rs_vm_close(vm);
    if (why[0] == '\0') (void)rs_vm_refuse(code, why, why_len, "%s: %s", path, reseal_strerror(code));
    return code;
}

void rs_vm_close(struct rs_vm *vm)
{
    if (vm == NULL) return;
    if (vm->lines != vm->outer) rs_vmx_free(vm->lines);
    rs_vmx_free(vm->outer);
    free(vm);
}

int rs_vm_take_lines(struct rs_vm *vm, const char *text, size_t len, char *why, size_t why_len)
{
    char wrong[256];
    struct rs_vmx *lines = NULL;
    int code = rs_vmx_parse(text, len, &lines, wrong, sizeof(wrong));
    if (code == RESEAL_EFORMAT)
        return rs_vm_refuse(code, why, why_len, "what is locked in %s is no .vmx: %s", vm->vmx_path, wrong);
    if (code != 0) return rs_vm_refuse(code, why, why_len, "%s: %s", vm->vmx_path, reseal_strerror(code));
    const char *inside = rs_vmx_get(lines, "reseal.vm");
    if (inside != NULL && strcmp(inside, vm->uuid) != 0) {
        rs_vmx_free(lines);
        return rs_vm_refuse(
            RESEAL_EFORMAT, why, why_len,
            "%s is of another VM: it says %s, and what is locked in it is of %s; reseal vm repair "
            "puts the safe copy back",
            vm->vmx_path, vm->uuid[0] != '\0' ? vm->uuid : "no VM", inside);
    }
    if (vm->lines != vm->outer) rs_vmx_free(vm->lines);
    vm->lines = lines;
    return take_devices(vm, why, why_len);
}

struct rs_vm_disk *rs_vm_find_disk(struct rs_vm *vm, const char *name)
{
    for (unsigned i = 0; i < vm->ndisks; i++) {
        struct rs_vm_disk *d = &vm->disks[i];
        const char *base = strrchr(d->disk.path, '/');
        if (strcmp(d->disk.node, name) == 0 || strcmp(d->disk.path, name) == 0 ||
            (base != NULL && strcmp(base + 1, name) == 0))
            return d;
    }
    return NULL;
}
