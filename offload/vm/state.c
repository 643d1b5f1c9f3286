/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/vm/state.h"

#include "reseal/reseal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

/* ---- locks -------------------------------------------------------------------------- */

#define LOCK_SUFFIX ".reseal-lock"
enum { BYTE_RUN, BYTE_CHANGE };

static bool lock_byte(int fd, short type, off_t byte)
{
    struct flock l = {.l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
    return fcntl(fd, F_OFD_SETLK, &l) == 0;
}

/* Of whoever the .vmx is: a command of root must not keep a VM's owner from running it. */
static int make_lock(const struct rs_vm *vm, const char *path)
{
    struct stat st;
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0 || stat(vm->vmx_path, &st) != 0) return fd;
    bool same = fchown(fd, st.st_uid, st.st_gid) == 0;
    (void)!fchmod(fd, 0600 | (same ? st.st_mode & 0060 : 0));
    return fd;
}

/* Who runs a VM can do so where nothing can be written, from where nobody else changes it either. */
static int open_lock(const struct rs_vm *vm, const char *path, bool to_run)
{
    int fd = make_lock(vm, path);
    if (fd < 0 && errno != EROFS) fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 && to_run && (errno == EROFS || errno == EACCES))
        fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    return fd;
}

static bool is_read_only(const char *folder)
{
    struct statvfs fs;
    return statvfs(folder, &fs) == 0 && (fs.f_flag & ST_RDONLY) != 0;
}

int rs_vm_lock(const struct rs_vm *vm, enum rs_vm_lock kind, int *out, char *why, size_t why_len)
{
    char path[PATH_MAX];
    *out = -1;
    if (!rs_vm_path(vm, LOCK_SUFFIX, path))
        return rs_vm_refuse(RESEAL_EIO, why, why_len, "the name of %s is too long", vm->vmx_path);
    int fd = open_lock(vm, path, kind == RS_VM_RUN);
    if (fd < 0 && kind == RS_VM_RUN && errno == ENOENT && is_read_only(vm->folder)) return 0;
    if (fd < 0) return rs_vm_refuse(RESEAL_EIO, why, why_len, "cannot open %s: %s", path, strerror(errno));
    bool changing = kind != RS_VM_RUN;
    if (!lock_byte(fd, changing ? F_WRLCK : F_RDLCK, BYTE_CHANGE)) {
        close(fd);
        return rs_vm_refuse(RESEAL_EBUSY, why, why_len,
                            "another command is changing %s: wait until it is done", vm->name);
    }
    /* A VM that runs may be changed online: it only must not start in the middle of an offline change. */
    bool ok = kind == RS_VM_ONLINE || lock_byte(fd, changing ? F_WRLCK : F_RDLCK, BYTE_RUN);
    if (ok && kind == RS_VM_RUN) ok = lock_byte(fd, F_UNLCK, BYTE_CHANGE);
    if (!ok) {
        close(fd);
        return rs_vm_refuse(RESEAL_EBUSY, why, why_len, "%s is powered on: shut it down first", vm->name);
    }
    *out = fd;
    return 0;
}

/* True when somebody else has a lock on that byte. */
static bool byte_is_taken(int fd, off_t byte)
{
    struct flock probe = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
    return fcntl(fd, F_OFD_GETLK, &probe) == 0 && probe.l_type != F_UNLCK;
}

bool rs_vm_is_changing(int fd)
{
    return fd >= 0 && byte_is_taken(fd, BYTE_CHANGE);
}

/* ---- power -------------------------------------------------------------------------- */

/* The first file of the folder with that suffix. */
static bool find_file(const struct rs_vm *vm, const char *suffix, char *out, size_t room)
{
    DIR *dir = opendir(vm->folder);
    bool found = false;
    for (const struct dirent *e; dir != NULL && !found && (e = readdir(dir)) != NULL;) {
        found = rs_vm_has_suffix(e->d_name, suffix);
        if (found) (void)snprintf(out, room, "%s", e->d_name);
    }
    if (dir != NULL) closedir(dir);
    return found;
}

#define QEMU_WRITES 101 /* the byte that QEMU locks of an image that it writes, */
#define QEMU_BARS   201 /* or that nobody else may */
#define WAIT_TURNS  100 /* of 50 ms */

static bool byte_is_locked(const char *path, off_t byte)
{
    RS_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    return fd >= 0 && byte_is_taken(fd, byte);
}

bool rs_vm_image_in_use(const char *path)
{
    return byte_is_locked(path, QEMU_WRITES) || byte_is_locked(path, QEMU_BARS);
}

bool rs_vm_image_stays_in_use(const char *path)
{
    const struct timespec pause = {.tv_nsec = 50000000};
    for (unsigned i = 0; i < WAIT_TURNS && rs_vm_image_in_use(path); i++) (void)nanosleep(&pause, NULL);
    return rs_vm_image_in_use(path);
}

bool rs_vm_image_is_written(const char *path)
{
    return byte_is_locked(path, QEMU_WRITES);
}

int rs_vm_image_bar(const char *path, int *out)
{
    struct flock bar = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = QEMU_BARS, .l_len = 1};
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    bool barred = fd >= 0 && fcntl(fd, F_OFD_SETLK, &bar) == 0;
    bool busy = fd >= 0 && !barred && (errno == EAGAIN || errno == EACCES);
    /* First the bar, then the look: who comes later sees it. */
    busy = busy || (barred && byte_is_taken(fd, QEMU_WRITES));
    *out = barred && !busy ? fd : -1;
    if (fd >= 0 && *out < 0) close(fd);
    return busy ? RESEAL_EBUSY : 0;
}

int rs_vm_powered_off(const struct rs_vm *vm, char *why, size_t why_len)
{
    char file[NAME_MAX + 1];
    if (find_file(vm, ".lck", file, sizeof(file)))
        return rs_vm_refuse(RESEAL_EBUSY, why, why_len,
                            "%s is powered on (%s is there): shut it down first; if its host died, remove %s",
                            vm->name, file, file);
    for (unsigned i = 0; i < vm->ndisks; i++)
        if (rs_vm_image_is_written(vm->disks[i].disk.data_path))
            return rs_vm_refuse(RESEAL_EBUSY, why, why_len,
                                "%s is powered on (%s is in use by another program): shut it down first",
                                vm->name, vm->disks[i].disk.node);
    return 0;
}

bool rs_vm_is_run(const struct rs_vm *vm)
{
    char path[PATH_MAX];
    return rs_vm_path(vm, LOCK_SUFFIX, path) && byte_is_locked(path, BYTE_RUN);
}

/* ---- snapshots ---------------------------------------------------------------------- */

/* NAME-000001.vmdk */
static bool is_delta(const char *path)
{
    size_t n = strlen(path);
    if (n < 12 || strcasecmp(path + n - 5, ".vmdk") != 0 || path[n - 12] != '-') return false;
    for (size_t i = n - 11; i < n - 5; i++)
        if (path[i] < '0' || path[i] > '9') return false;
    return true;
}

static const char *snapshot_member(const struct rs_vmx *v, unsigned i, const char *name)
{
    char full[64];
    (void)snprintf(full, sizeof(full), "snapshot%u.%s", i, name);
    return rs_vmx_get(v, full);
}

static bool is_tree(const struct rs_vmx *v, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        for (unsigned k = 0; k < i; k++) {
            const char *a = snapshot_member(v, i, "parent"), *b = snapshot_member(v, k, "parent");
            if (a == NULL ? b == NULL : b != NULL && strcmp(a, b) == 0) return true;
        }
    return false;
}

static int read_vmsd(const struct rs_vm *vm, struct rs_vm_snapshots *out, char *why, size_t why_len)
{
    char path[PATH_MAX], *text = NULL, wrong[256];
    size_t len = 0;
    struct rs_vmx *v = NULL;
    if (!rs_vm_path(vm, ".vmsd", path) || rs_vm_read_file(path, RS_VMX_MAX, &text, &len) != 0 || len == 0) {
        free(text);
        return 0;
    }
    int code = rs_vmx_parse(text, len, &v, wrong, sizeof(wrong));
    free(text);
    if (code != 0)
        return rs_vm_refuse(RESEAL_EFORMAT, why, why_len, "%s: %s: cannot tell whether there are snapshots",
                            path, wrong);
    const char *n = rs_vmx_get(v, "snapshot.numSnapshots");
    unsigned long count = n == NULL ? 0 : strtoul(n, NULL, 10);
    out->count = (unsigned)RS_MIN(count, 1024ul);
    out->tree = is_tree(v, out->count);
    rs_vmx_free(v);
    if (out->count != 0) memcpy(out->shown_by, path, sizeof(path));
    return 0;
}

int rs_vm_find_snapshots(const struct rs_vm *vm, struct rs_vm_snapshots *out, char *why, size_t why_len)
{
    *out = (struct rs_vm_snapshots){.count = 0};
    const char *said = vm->lines == NULL ? NULL : rs_vmx_get(vm->lines, "reseal.snapshots");
    if (said != NULL) {
        out->tree = strcmp(said, "tree") == 0;
        out->count = strcmp(said, "none") == 0 ? 0 : 1;
        (void)snprintf(out->shown_by, sizeof(out->shown_by), "reseal.snapshots in the .vmx");
        return 0;
    }
    int code = read_vmsd(vm, out, why, why_len);
    if (code != 0 || out->count != 0) return code;
    for (unsigned i = 0; i < vm->ndisks && out->count == 0; i++) {
        const struct rs_disk *d = &vm->disks[i].disk;
        if (!is_delta(d->path) && d->parent[0] == '\0' && d->snapshots == 0) continue;
        out->count = RS_MAX(d->snapshots, 1u);
        memcpy(out->shown_by, d->path, sizeof(d->path));
    }
    if (out->count == 0 && find_file(vm, ".vmsn", out->shown_by, sizeof(out->shown_by))) out->count = 1;
    return 0;
}
