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

int rs_vm_read_file(const char *path, size_t max, char **out, size_t *len)
{
    *out = NULL;
    RS_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0) return RESEAL_EIO;
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

int rs_vm_write_file(const char *path, const void *bytes, size_t len)
{
    (void)unlink(path);
    RS_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) return -errno;
    int code = rs_write_full(fd, bytes, len);
    return code != 0 ? code : fsync(fd) == 0 ? 0 : -errno;
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
