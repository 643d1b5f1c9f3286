/* SPDX-License-Identifier: Apache-2.0 */
/* create: a new VM, encrypted from the start. It is made in FOLDER.reseal-new and gets its name when it is
 * whole. */
#include "offload/cli/side.h"
#include "offload/cli/vm-home.h"
#include "offload/vm/intent.h"
#include "offload/vm/policy.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

struct create {
    struct rs_vmc *c;
    struct rs_vm_policy policy;
    const char *format;
    char final[PATH_MAX], fresh[PATH_MAX]; /* the folder, and the one it is made in */
    bool sealed;
    struct rs_vmc_key key;
    struct rs_vmx *disk_lines;
    struct rs_vmc_seal seal;
};

static int no_memory(struct rs_vmc *c)
{
    return rs_failure_set(&c->f, RS_EXIT_FAILED, "out of memory");
}

/* ---- names -------------------------------------------------------------------------- */

static int take_names(struct create *k)
{
    struct rs_vmc *c = k->c;
    char copy[PATH_MAX], real[PATH_MAX];
    struct stat st;
    if (lstat(c->o.vm, &st) == 0)
        return rs_failure_set(&c->f, RS_EXIT_REFUSED, "%s is there already: name a folder that is not",
                              c->o.vm);
    (void)snprintf(copy, sizeof(copy), "%s", c->o.vm);
    size_t len = strlen(copy);
    while (len > 1 && copy[len - 1] == '/') copy[--len] = '\0';
    const char *slash = strrchr(copy, '/'), *base = slash != NULL ? slash + 1 : copy;
    c->vm = calloc(1, sizeof(*c->vm));
    if (c->vm == NULL) return no_memory(c);
    if (*base == '\0' || strlen(base) > NAME_MAX - 32)
        return rs_failure_set(&c->f, RS_EXIT_USAGE, "'%s' is no name for a VM", c->o.vm);
    (void)snprintf(c->vm->name, sizeof(c->vm->name), "%s", base);
    char parent[PATH_MAX];
    (void)snprintf(parent, sizeof(parent), "%s", copy);
    if (realpath(dirname(parent), real) == NULL) return rs_failure_errno(&c->f, errno, "open", parent);
    if (!rs_vm_resolve(real, c->vm->name, k->final) || !rs_vmc_new_path(k->final, k->fresh))
        return rs_failure_set(&c->f, RS_EXIT_USAGE, "the name %s is too long", c->o.vm);
    (void)snprintf(c->vm->folder, sizeof(c->vm->folder), "%s", k->final);
    rs_vm_uuid(c->vm->uuid);
    return rs_vm_path(c->vm, ".vmx", c->vm->vmx_path)
               ? 0
               : rs_failure_set(&c->f, RS_EXIT_USAGE, "the name %s is too long", c->o.vm);
}

/* What a run that was killed left behind is of nobody: no key opens it. */
static int make_folder(struct create *k)
{
    DIR *dir = opendir(k->fresh);
    for (const struct dirent *e; dir != NULL && (e = readdir(dir)) != NULL;)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            (void)unlinkat(dirfd(dir), e->d_name, 0);
    if (dir != NULL) closedir(dir);
    if (dir == NULL && mkdir(k->fresh, 0700) != 0) return rs_failure_errno(&k->c->f, errno, "make", k->fresh);
    return 0;
}

/* ---- lines -------------------------------------------------------------------------- */

static void disk_file(const struct create *k, unsigned i, char out[NAME_MAX + 1])
{
    const char *suffix = rs_disk_name_in_qcow2(k->format) ? "qcow2" : "img";
    if (i == 0)
        (void)snprintf(out, NAME_MAX + 1, "%.200s.%s", k->c->vm->name, suffix);
    else
        (void)snprintf(out, NAME_MAX + 1, "%.200s_%u.%s", k->c->vm->name, i, suffix);
}

static int set(struct rs_vmx *v, const char *name, const char *value)
{
    return rs_vmx_set(v, name, value);
}

static int set_disk_lines(const struct create *k, struct rs_vmx *v)
{
    int code = k->c->o.ndisks == 0 ? 0 : set(v, "scsi0.present", "TRUE");
    if (code == 0 && k->c->o.ndisks != 0) code = set(v, "scsi0.virtualDev", "pvscsi");
    for (unsigned i = 0; code == 0 && i < k->c->o.ndisks; i++) {
        char name[48], file[NAME_MAX + 1];
        disk_file(k, i, file);
        (void)snprintf(name, sizeof(name), "scsi0:%u.present", i);
        code = set(v, name, "TRUE");
        (void)snprintf(name, sizeof(name), "scsi0:%u.fileName", i);
        if (code == 0) code = set(v, name, file);
    }
    return code;
}

static struct rs_vmx *make_lines(const struct create *k)
{
    const struct rs_vm *vm = k->c->vm;
    char file[NAME_MAX + 8];
    static const char *const fixed[][2] = {
        {".encoding", "UTF-8"},  {"config.version", "8"}, {"virtualHW.version", "19"},
        {"guestOS", "other-64"}, {"firmware", "efi"},     {"memsize", "2048"},
        {"numvcpus", "2"}};
    struct rs_vmx *v = rs_vmx_new();
    int code = v == NULL ? RESEAL_ENOMEM : set(v, "displayName", vm->name);
    for (unsigned i = 0; code == 0 && i < RS_ARRAY_LEN(fixed); i++) code = set(v, fixed[i][0], fixed[i][1]);
    (void)snprintf(file, sizeof(file), "%s.nvram", vm->name);
    if (code == 0) code = set(v, "nvram", file);
    (void)snprintf(file, sizeof(file), "%s.vtpm", vm->name);
    if (code == 0 && k->c->o.vtpm) code = set(v, "vtpm.present", "TRUE");
    if (code == 0 && k->c->o.vtpm) code = set(v, "vtpm.fileName", file);
    if (code == 0) code = set_disk_lines(k, v);
    if (code == 0) code = set(v, "reseal.policy", k->policy.name);
    if (code == 0 && k->sealed) code = set(v, "reseal.vm", vm->uuid);
    if (code == 0) return v;
    rs_vmx_free(v);
    return NULL;
}

/* ---- disks -------------------------------------------------------------------------- */

static int new_file(struct rs_vmc *c, const char *path, uint64_t size, int header, uint64_t len)
{
    RS_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) return rs_failure_errno(&c->f, errno, "create", path);
    int code = ftruncate(fd, (off_t)size) == 0 ? 0 : -errno;
    uint8_t buf[64 * 1024];
    for (uint64_t at = 0; code == 0 && at < len;) {
        size_t n = (size_t)RS_MIN(len - at, (uint64_t)sizeof(buf));
        code = rs_pread_full(header, buf, n, at);
        if (code == 0) code = rs_pwrite_full(fd, buf, n, at);
        at += n;
    }
    if (code == 0 && fsync(fd) != 0) code = -errno;
    return code == 0 ? 0 : rs_failure_errno(&c->f, code, "write", path);
}

/* A qcow2 image with `len` bytes of a header. */
static int new_qcow2(struct rs_vmc *c, const char *path, uint64_t size, int header, uint64_t len)
{
    struct rs_file file;
    uint8_t buf[64 * 1024];
    int code = rs_file_open_qcow2(&file, path, RS_FILE_WRITE | RS_FILE_CREATE, size, &c->f);
    if (code != 0) return code;
    for (uint64_t at = 0; code == 0 && at < len;) {
        size_t n = (size_t)RS_MIN(len - at, (uint64_t)sizeof(buf));
        code = rs_pread_full(header, buf, n, at);
        if (code == 0) code = rs_file_pwrite_sparse(&file, buf, n, at);
        at += n;
    }
    if (code == 0) code = rs_file_flush(&file);
    rs_file_close(&file);
    return code == 0 ? 0 : rs_failure_errno(&c->f, code, "write", path);
}

/* Header and data, in one file or in two. */
static int new_encrypted(struct create *k, unsigned i, const char *path, uint64_t size, const char *node)
{
    struct rs_vmc *c = k->c;
    char label[48], why[256], side[PATH_MAX];
    (void)snprintf(label, sizeof(label), "reseal:%s", c->vm->uuid);
    struct rs_vmc_format f = {.key = k->key,
                              .version = rs_disk_name_is_luks1(k->format) ? 1 : 2,
                              .unit = k->policy.unit,
                              .key_bits = k->policy.key_bits,
                              .size = size,
                              .detached = strcmp(k->format, "xts") == 0,
                              .label = label};
    if (f.version == 1 || size % f.unit != 0) f.unit = 512;
    RS_CLOSE int header = -1;
    int code = rs_vmc_disk_format(c, &f, node, &header, &k->key);
    if (code != 0) return code;
    struct rs_disk look = {.encrypted = true};
    if (rs_disk_look_luks(header, INT64_MAX, &look, why, sizeof(why)) != 0)
        return rs_failure_set(&c->f, RS_EXIT_SERVICE, "the new header of disk %u: %s", i, why);
    /* That of LUKS1 ends with its last key slot, some way before the data. */
    off_t end = lseek(header, 0, SEEK_END);
    uint64_t len = RS_MIN(look.header_size, end > 0 ? (uint64_t)end : 0);
    if (rs_disk_name_in_qcow2(k->format)) return new_qcow2(c, path, look.data_offset + size, header, len);
    if (!f.detached) return new_file(c, path, look.data_offset + size, header, len);
    if (snprintf(side, sizeof(side), "%s" RS_DISK_HEADER, path) >= (int)sizeof(side))
        return rs_failure_set(&c->f, RS_EXIT_USAGE, "the name %s is too long", path);
    code = new_file(c, side, look.header_size, header, len);
    return code == 0 ? new_file(c, path, size, -1, 0) : code;
}

static int new_disk(struct create *k, unsigned i)
{
    struct rs_vmc *c = k->c;
    char file[NAME_MAX + 1], path[PATH_MAX], node[RS_DISK_NODE_MAX], name[RS_DISK_NODE_MAX + 8];
    uint64_t size;
    int code = rs_vmc_take_size("disk", c->o.disks[i], &size, &c->f);
    if (code != 0) return code;
    disk_file(k, i, file);
    if (!rs_vm_resolve(k->fresh, file, path))
        return rs_failure_set(&c->f, RS_EXIT_USAGE, "the name %s is too long", file);
    (void)snprintf(node, sizeof(node), "scsi0:%u", i);
    if (!k->policy.encrypts)
        return rs_disk_name_in_qcow2(k->format) ? new_qcow2(c, path, size, -1, 0)
                                                : new_file(c, path, size, -1, 0);
    code = new_encrypted(k, i, path, size, node);
    if (code != 0 || !rs_disk_name_is_luks1(k->format)) return code;
    RS_FREE char *locator = rs_disk_locator(k->key.provider, k->key.key);
    (void)snprintf(name, sizeof(name), "%s.keyId", node);
    return locator != NULL && rs_vmx_set(k->disk_lines, name, locator) == 0 ? 0 : no_memory(c);
}

/* ---- all of it ---------------------------------------------------------------------- */

static int seal_home(struct create *k)
{
    size_t len = 0;
    char *text = rs_vmx_text(k->c->vm->lines, &len);
    if (text == NULL) return no_memory(k->c);
    int code = rs_vmc_home_seal(k->c, &k->key, NULL, true, text, len, &k->seal);
    rs_wipe(text, len);
    free(text);
    if (code == 0) k->key = k->seal.key;
    return code;
}

static int write_vmx(struct create *k)
{
    struct rs_vmc *c = k->c;
    char path[PATH_MAX], file[NAME_MAX + 8];
    (void)snprintf(file, sizeof(file), "%s.vmx", c->vm->name);
    if (!rs_vm_resolve(k->fresh, file, path))
        return rs_failure_set(&c->f, RS_EXIT_USAGE, "the name %s is too long", file);
    if (k->sealed) return rs_vmc_write_sealed(c, &k->seal, k->disk_lines, path);
    size_t len = 0;
    RS_FREE char *text = rs_vmx_text(c->vm->lines, &len);
    if (text == NULL) return no_memory(c);
    int code = rs_vm_write_file(path, text, len);
    return code == 0 ? 0 : rs_failure_errno(&c->f, code, "write", path);
}

static int give_name(struct create *k)
{
    char parent[PATH_MAX];
    (void)snprintf(parent, sizeof(parent), "%s", k->final);
    int code = rs_vm_sync_folder(k->fresh);
    if (code == 0 && renameat2(AT_FDCWD, k->fresh, AT_FDCWD, k->final, RENAME_NOREPLACE) != 0) code = -errno;
    if (code == 0) code = rs_vm_sync_folder(dirname(parent));
    return code == 0 ? 0 : rs_failure_errno(&k->c->f, code, "make", k->final);
}

static int make(struct create *k)
{
    struct rs_vmc *c = k->c;
    int code = make_folder(k);
    if (code == 0) code = k->sealed ? seal_home(k) : 0;
    rs_intent_step("home");
    for (unsigned i = 0; code == 0 && i < c->o.ndisks; i++) {
        code = new_disk(k, i);
        rs_intent_step("disk");
    }
    if (code == 0) code = write_vmx(k);
    rs_intent_step("vmx");
    if (code == 0) code = give_name(k);
    uint64_t version;
    if (code == 0 && k->sealed) code = rs_vmc_keep_safe(c, &version);
    return code;
}

static int prepare(struct create *k)
{
    struct rs_vmc *c = k->c;
    char why[RS_VM_WHY];
    int err = rs_vm_policy_find(c->o.policy_dir, c->o.policy != NULL ? c->o.policy : RS_VM_POLICY_SAMPLE,
                                &k->policy, why, sizeof(why));
    if (err != 0)
        return rs_failure_set(&c->f, err == RESEAL_ENOKEY ? RS_EXIT_REFUSED : rs_exit_of(err), "%s", why);
    k->format = c->o.format != NULL ? c->o.format : k->policy.format;
    k->sealed = k->policy.encrypts || c->o.vtpm;
    const char *provider = c->o.provider != NULL ? c->o.provider : k->policy.provider;
    if (snprintf(k->key.provider, sizeof(k->key.provider), "%s", provider) >= (int)sizeof(k->key.provider))
        return rs_failure_set(&c->f, RS_EXIT_USAGE, "--provider %s: the name is too long", provider);
    int code = take_names(k);
    if (code != 0) return code;
    k->disk_lines = rs_vmx_new();
    c->vm->lines = make_lines(k);
    if (k->disk_lines == NULL || c->vm->lines == NULL) return no_memory(c);
    return k->sealed ? rs_vmc_connect(c) : 0;
}

int rs_vmc_create(struct rs_vmc *c)
{
    struct create k = {.c = c};
    int code = prepare(&k);
    if (code == 0) code = make(&k);
    if (code == 0) {
        c->result =
            json_pack("{s:s, s:s, s:s}", "vm", c->vm->name, "vmx", c->vm->vmx_path, "uuid", c->vm->uuid);
        if (!c->o.quiet && !c->o.json)
            printf("%s: made, %s\n", c->vm->vmx_path, k.sealed ? "encrypted" : "not encrypted");
    }
    rs_vmx_free(k.disk_lines);
    rs_vmc_seal_free(&k.seal);
    return code;
}
