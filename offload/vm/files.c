/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/vm/files.h"

#include "reseal/reseal.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

int rs_vm_refuse(int code, char *why, size_t why_len, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)vsnprintf(why, why_len, format, args);
    va_end(args);
    return code;
}

bool rs_vm_has_suffix(const char *name, const char *suffix)
{
    size_t n = strlen(name), s = strlen(suffix);
    return n > s && strcasecmp(name + n - s, suffix) == 0;
}

bool rs_vm_resolve(const char *folder, const char *name, char out[PATH_MAX])
{
    int n =
        name[0] == '/' ? snprintf(out, PATH_MAX, "%s", name) : snprintf(out, PATH_MAX, "%s/%s", folder, name);
    return n > 0 && n < PATH_MAX;
}

/* What is checked is what is read: in a folder of another user's, names change in between. */
static int read_file(const char *path, int flags, bool own, size_t max, char **out, size_t *len)
{
    *out = NULL;
    RS_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | flags);
    struct stat st;
    if (fd < 0 && errno == ELOOP && own) return RESEAL_EPERM;
    if (fd < 0 || fstat(fd, &st) != 0) return RESEAL_EIO;
    if (own && (!S_ISREG(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 022) != 0))
        return RESEAL_EPERM;
    if (st.st_size < 0 || (uint64_t)st.st_size > max) return RESEAL_ESPACE;
    *len = (size_t)st.st_size;
    char *text = malloc(*len + 1);
    if (text == NULL) return RESEAL_ENOMEM;
    int code = rs_pread_full(fd, text, *len, 0);
    text[*len] = '\0';
    if (code == 0) {
        *out = text;
        return 0;
    }
    free(text);
    errno = -code;
    return RESEAL_EIO;
}

int rs_vm_read_file(const char *path, size_t max, char **out, size_t *len)
{
    return read_file(path, 0, false, max, out, len);
}

int rs_vm_read_made_file(const char *path, size_t max, char **out, size_t *len)
{
    return read_file(path, O_NOFOLLOW, false, max, out, len);
}

int rs_vm_read_own_file(const char *path, size_t max, char **out, size_t *len)
{
    return read_file(path, O_NOFOLLOW, true, max, out, len);
}

int rs_vm_write_file(const char *path, const void *bytes, size_t len)
{
    (void)unlink(path);
    RS_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) return -errno;
    int code = rs_write_full(fd, bytes, len);
    return code != 0 ? code : fsync(fd) == 0 ? 0 : -errno;
}

/* What the system keeps to itself cannot be copied, and a file system may know none. */
static void copy_attributes(int to, int from)
{
    char names[4096], value[4096];
    ssize_t len = flistxattr(from, names, sizeof(names));
    for (const char *name = names; len > 0 && name < names + len; name += strlen(name) + 1) {
        ssize_t n =
            strcmp(name, "security.capability") == 0 ? -1 : fgetxattr(from, name, value, sizeof(value));
        if (n >= 0) (void)!fsetxattr(to, name, value, (size_t)n, 0);
    }
}

/* The folder of a file, and what is left of its name. */
static int folder_of(const char *path, const char **base)
{
    const char *slash = strrchr(path, '/');
    char folder[PATH_MAX];
    size_t len = slash == NULL ? 0 : (size_t)(slash - path) + 1;
    *base = path + len;
    if (len >= sizeof(folder)) return -1;
    memcpy(folder, path, len);
    folder[len] = '\0';
    return open(len != 0 ? folder : ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
}

/* Two files of one folder are looked for in one folder: another user's can become a link to some other
 * between one and the other, and what is there would become that user's. */
int rs_vm_take_after(const char *path, const char *model)
{
    struct stat st, own;
    const char *base, *model_base;
    RS_CLOSE int folder = folder_of(path, &base);
    size_t len = (size_t)(base - path);
    bool same_folder = strncmp(path, model, len) == 0 && strchr(model + len, '/') == NULL;
    RS_CLOSE int model_folder = folder_of(model, &model_base);
    if (folder < 0 || model_folder < 0) return -ENOENT;
    RS_CLOSE int from = openat(same_folder ? folder : model_folder, model_base,
                               O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
    if (from < 0) return errno == EACCES || errno == ELOOP ? 0 : -errno;
    RS_CLOSE int to = openat(folder, base, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
    if (to < 0 || fstat(from, &st) != 0 || fstat(to, &own) != 0) return -errno;
    if (!S_ISREG(st.st_mode) || !S_ISREG(own.st_mode)) return 0;
    copy_attributes(to, from);
    bool same = st.st_uid == own.st_uid && st.st_gid == own.st_gid;
    if (!same) same = fchown(to, st.st_uid, st.st_gid) == 0;
    /* Rights of a group that is not the file's would be another's. */
    mode_t mode = st.st_mode & (same || fchown(to, (uid_t)-1, st.st_gid) == 0 ? 0777 : 0707);
    if (fchmod(to, mode) != 0 && errno != EPERM) return -errno;
    return fsync(to) == 0 ? 0 : -errno;
}

int rs_vm_sync_folder(const char *folder)
{
    RS_CLOSE int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return -errno;
    /* Some file systems know no fsync of a folder. */
    return fsync(fd) == 0 || errno == EINVAL ? 0 : -errno;
}

int rs_vm_replace_file(const char *path, const void *bytes, size_t len)
{
    char fresh[PATH_MAX], folder[PATH_MAX];
    int n = snprintf(fresh, sizeof(fresh), "%s.new", path);
    if (n <= 0 || (size_t)n >= sizeof(fresh)) return -ENAMETOOLONG;
    (void)snprintf(folder, sizeof(folder), "%s", path);
    int code = rs_vm_write_file(fresh, bytes, len);
    if (code == 0 && rename(fresh, path) != 0) code = -errno;
    if (code != 0) (void)unlink(fresh);
    return code == 0 ? rs_vm_sync_folder(dirname(folder)) : code;
}
