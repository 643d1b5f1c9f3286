/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/vm/safe.h"

#include "offload/base/fnv.h"
#include "reseal/reseal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

bool rs_safe_folder(const char *given, char out[PATH_MAX])
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    int n = -1;
    if (given != NULL)
        n = snprintf(out, PATH_MAX, "%s", given);
    else if (geteuid() == 0)
        n = snprintf(out, PATH_MAX, "/var/lib/reseal/vmx");
    else if (state != NULL && state[0] == '/')
        n = snprintf(out, PATH_MAX, "%s/reseal/vmx", state);
    else if (home != NULL && home[0] == '/')
        n = snprintf(out, PATH_MAX, "%s/.local/state/reseal/vmx", home);
    return n > 0 && n < PATH_MAX;
}

/* Memory, of which nothing is left when the machine starts again. */
static bool is_lasting(const char *folder)
{
    struct statfs fs;
    return statfs(folder, &fs) == 0 && fs.f_type != TMPFS_MAGIC && fs.f_type != RAMFS_MAGIC;
}

bool rs_safe_own_folder(const char *runtime, char out[PATH_MAX])
{
    struct stat st;
    int n = snprintf(out, PATH_MAX, "%s/state", runtime);
    if (n <= 0 || n >= PATH_MAX - 8 || lstat(out, &st) != 0 || !S_ISDIR(st.st_mode) || st.st_uid != geteuid())
        return false;
    if (!is_lasting(out)) return false;
    memcpy(out + n, "/vmx", sizeof("/vmx"));
    return true;
}

/* A name for a path, nothing more; the path is noted beside and compared. */
static uint64_t name_of(const char *path)
{
    return rs_fnv_text(RS_FNV_START, path);
}

bool rs_safe_place(const char *folder, const char *vmx_path, char out[RS_SAFE_PLACE_MAX])
{
    const char *base = strrchr(vmx_path, '/');
    base = base != NULL ? base + 1 : vmx_path;
    size_t len = strlen(base);
    if (rs_vm_has_suffix(base, ".vmx")) len -= 4;
    int n = snprintf(out, RS_SAFE_PLACE_MAX, "%s/%.*s-%016llx", folder, (int)RS_MIN(len, (size_t)100), base,
                     (unsigned long long)name_of(vmx_path));
    return n > 0 && n < RS_SAFE_PLACE_MAX;
}

/* A folder and those above it, mode 0700. */
static int make_folders(const char *path)
{
    char copy[PATH_MAX];
    (void)snprintf(copy, sizeof(copy), "%s", path);
    for (char *p = copy + 1; *p != '\0'; p++) {
        if (*p != '/') continue;
        *p = '\0';
        if (mkdir(copy, 0700) != 0 && errno != EEXIST) return -errno;
        *p = '/';
    }
    return mkdir(copy, 0700) != 0 && errno != EEXIST ? -errno : 0;
}

static int failed(const char *verb, const char *path, int error, char *why, size_t why_len)
{
    return rs_vm_refuse(RESEAL_EIO, why, why_len,
                        "cannot %s the safe copy in %s: %s: name another --safe-dir", verb, path,
                        strerror(error));
}

/* ---- copies of one VM --------------------------------------------------------------- */

static int by_version(const void *a, const void *b)
{
    const struct rs_safe_copy *x = a, *y = b;
    return x->version < y->version ? 1 : x->version > y->version ? -1 : 0;
}

/* The newest of what is in a place, and in *last the highest number; older ones beyond the room are removed
 * when asked. */
static int look(const char *place, struct rs_safe_copy out[RS_SAFE_VERSIONS])
{
    struct rs_safe_copy all[4 * RS_SAFE_VERSIONS];
    unsigned n = 0;
    DIR *dir = opendir(place);
    if (dir == NULL) return errno == ENOENT ? 0 : -errno;
    for (const struct dirent *e; n < RS_ARRAY_LEN(all) && (e = readdir(dir)) != NULL;) {
        struct stat st;
        char *end;
        unsigned long long version = strtoull(e->d_name, &end, 10);
        if (version == 0 || strcmp(end, ".vmx") != 0 || fstatat(dirfd(dir), e->d_name, &st, 0) != 0) continue;
        all[n++] = (struct rs_safe_copy){version, st.st_mtime, (uint64_t)st.st_size};
    }
    qsort(all, n, sizeof(all[0]), by_version);
    for (unsigned i = RS_SAFE_VERSIONS; i < n; i++) {
        char name[32];
        (void)snprintf(name, sizeof(name), "%llu.vmx", (unsigned long long)all[i].version);
        (void)unlinkat(dirfd(dir), name, 0);
    }
    closedir(dir);
    n = RS_MIN(n, RS_SAFE_VERSIONS);
    memcpy(out, all, n * sizeof(all[0]));
    return (int)n;
}

static void file_of(const char *place, uint64_t version, char out[PATH_MAX])
{
    (void)snprintf(out, PATH_MAX, "%.*s/%llu.vmx", RS_SAFE_PLACE_MAX, place, (unsigned long long)version);
}

/* The note says whose place it is. */
static bool is_of(const char *place, const char *vmx_path)
{
    char note[PATH_MAX];
    RS_FREE char *text = NULL;
    size_t len = 0;
    (void)snprintf(note, sizeof(note), "%.*s/path", RS_SAFE_PLACE_MAX, place);
    if (rs_vm_read_file(note, PATH_MAX, &text, &len) != 0) return errno == ENOENT;
    return strcmp(text, vmx_path) == 0;
}

int rs_safe_list(const char *folder, const char *vmx_path, struct rs_safe_copy out[RS_SAFE_VERSIONS],
                 char *why, size_t why_len)
{
    char place[RS_SAFE_PLACE_MAX];
    if (!rs_safe_place(folder, vmx_path, place)) return failed("find", folder, ENAMETOOLONG, why, why_len);
    int n = look(place, out);
    if (n < 0) return failed("find", place, -n, why, why_len);
    return n == 0 || is_of(place, vmx_path)
               ? n
               : rs_vm_refuse(RESEAL_EFORMAT, why, why_len, "%s holds the safe copies of another VM", place);
}

int rs_safe_get(const char *folder, const char *vmx_path, uint64_t version, char **text, size_t *len,
                char *why, size_t why_len)
{
    char place[RS_SAFE_PLACE_MAX], path[PATH_MAX];
    if (!rs_safe_place(folder, vmx_path, place)) return failed("find", folder, ENAMETOOLONG, why, why_len);
    file_of(place, version, path);
    int code = rs_vm_read_file(path, RS_VMX_MAX, text, len);
    return code == 0 ? 0 : failed("read", path, code == RESEAL_EIO ? errno : EFBIG, why, why_len);
}

/* Both by their real names: a link must not lead back into the VM's folder. */
static bool is_within(const char *folder, const char *vmx_path)
{
    char real[PATH_MAX], own[PATH_MAX];
    (void)snprintf(own, sizeof(own), "%s", vmx_path);
    const char *vm = dirname(own);
    size_t len = strlen(vm);
    return realpath(folder, real) != NULL && strncmp(real, vm, len) == 0 &&
           (real[len] == '/' || real[len] == '\0');
}

static bool is_newest(const char *place, uint64_t version, const char *text, size_t len)
{
    char path[PATH_MAX];
    RS_FREE char *have = NULL;
    size_t have_len = 0;
    file_of(place, version, path);
    return rs_vm_read_file(path, RS_VMX_MAX, &have, &have_len) == 0 && have_len == len &&
           memcmp(have, text, len) == 0;
}

static int write_copy(const char *place, const char *vmx_path, uint64_t version, const char *text, size_t len)
{
    char path[PATH_MAX];
    (void)snprintf(path, sizeof(path), "%.*s/path", RS_SAFE_PLACE_MAX, place);
    int code = access(path, F_OK) == 0 ? 0 : rs_vm_replace_file(path, vmx_path, strlen(vmx_path));
    if (code != 0) return code;
    file_of(place, version, path);
    return rs_vm_replace_file(path, text, len);
}

int rs_safe_prepare(const char *folder, const char *vmx_path, char *why, size_t why_len)
{
    char place[RS_SAFE_PLACE_MAX];
    if (!rs_safe_place(folder, vmx_path, place)) return failed("make", folder, ENAMETOOLONG, why, why_len);
    int code = make_folders(folder);
    if (code != 0) return failed("make", folder, -code, why, why_len);
    if (is_within(folder, vmx_path))
        return rs_vm_refuse(
            RESEAL_EINVAL, why, why_len,
            "%s is in the VM's own folder: what destroys the one destroys the other; name another --safe-dir",
            folder);
    code = make_folders(place);
    return code == 0 ? 0 : failed("make", place, -code, why, why_len);
}

/* One at a time: two that write the same version would take each other's file. */
static int lock_place(const char *place)
{
    int fd = open(place, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) (void)!flock(fd, LOCK_EX);
    return fd;
}

/* False when the .vmx became another one since it was read: who changed it keeps that. */
static bool is_current(const char *vmx_path, const char *text, size_t len)
{
    RS_FREE char *now = NULL;
    size_t now_len = 0;
    return rs_vm_read_file(vmx_path, RS_VMX_MAX, &now, &now_len) != 0 ||
           (now_len == len && memcmp(now, text, len) == 0);
}

int rs_safe_put(const char *folder, const char *vmx_path, const char *text, size_t len, uint64_t *version,
                char *why, size_t why_len)
{
    char place[RS_SAFE_PLACE_MAX];
    struct rs_safe_copy have[RS_SAFE_VERSIONS];
    int code = rs_safe_prepare(folder, vmx_path, why, why_len);
    if (code != 0) return code;
    if (!rs_safe_place(folder, vmx_path, place)) return failed("make", folder, ENAMETOOLONG, why, why_len);
    RS_CLOSE int lock = lock_place(place);
    if (lock < 0) return failed("open", place, errno, why, why_len);
    int n = rs_safe_list(folder, vmx_path, have, why, why_len);
    if (n < 0) return n;
    *version = n == 0 ? 1 : have[0].version;
    if ((n != 0 && is_newest(place, *version, text, len)) || !is_current(vmx_path, text, len)) return 0;
    if (n != 0) (*version)++;
    code = write_copy(place, vmx_path, *version, text, len);
    if (code != 0) return failed("make", place, -code, why, why_len);
    return look(place, have) < 0 ? failed("make", place, errno, why, why_len) : 0;
}
