/* SPDX-License-Identifier: Apache-2.0 */
/* The policy of a file, with the tenants that were added while the service ran. */
#include "providers/key/policy_data.h"

#include "reseal/reseal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_MAX_BYTES ((off_t)1 << 20)
#define NAMES_MAX      ((off_t)16 << 20)

static char *read_text(int fd, off_t max, size_t *len)
{
    struct stat st;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size > max) return NULL;
    char *text = calloc(1, (size_t)st.st_size + 1);
    if (text != NULL && rs_read_full(fd, text, (size_t)st.st_size) != 0) {
        free(text);
        return NULL;
    }
    *len = (size_t)st.st_size;
    return text;
}

static char *read_names(const char *path)
{
    size_t len;
    RS_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    return fd >= 0 ? read_text(fd, NAMES_MAX, &len) : NULL;
}

static int load_failed(const char *path, const char *what, int code, char *why, size_t why_len)
{
    (void)snprintf(why, why_len, "%s: %s", path, what);
    return code;
}

static void add_tenants(struct rs_policy *policy, const struct rs_names *names,
                        const struct rs_policy_more *more)
{
    const char *name;
    json_t *value;
    char why[256];
    json_object_foreach((json_t *)(uintptr_t)more->tenants, name, value)
    {
        int r = rs_policy_add_tenant(policy, names, name, value, why, sizeof(why));
        if (r != 0) more->refused(more->arg, name, why);
    }
}

static void suspend(struct rs_policy *policy, const json_t *names)
{
    for (size_t i = 0; i < policy->ntenants; i++)
        if (json_object_get(names, policy->tenants[i].name) != NULL) policy->tenants[i].suspended = true;
}

int rs_policy_load(const char *path, struct rs_policy **out, char *why, size_t why_len)
{
    return rs_policy_load_with(path, NULL, out, why, why_len);
}

int rs_policy_load_with(const char *path, const struct rs_policy_more *more, struct rs_policy **out,
                        char *why, size_t why_len)
{
    struct stat st;
    size_t len = 0;
    char line[200];
    *out = NULL;
    const char *slash = strrchr(path, '/');
    RS_FREE char *folder_path =
        slash == NULL ? strdup(".") : strndup(path, slash == path ? 1 : (size_t)(slash - path));
    if (folder_path == NULL) return load_failed(path, "out of memory", RESEAL_ENOMEM, why, why_len);
    RS_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    RS_CLOSE int folder = open(folder_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || folder < 0 || fstat(fd, &st) != 0)
        return load_failed(path, strerror(errno), RESEAL_EIO, why, why_len);
    if ((st.st_mode & 022) != 0)
        return load_failed(path, "others can write it: chmod go-w it", RESEAL_EPERM, why, why_len);
    if (st.st_uid != 0 && st.st_uid != geteuid())
        return load_failed(path, "it belongs to another user: chown it to root", RESEAL_EPERM, why, why_len);
    RS_FREE char *text = read_text(fd, FILE_MAX_BYTES, &len);
    if (text == NULL)
        return load_failed(path, "not a readable file of at most 1 MiB", RESEAL_EIO, why, why_len);
    RS_FREE char *passwd = read_names("/etc/passwd"), *group = read_names("/etc/group");
    const struct rs_names names = {.passwd = passwd, .group = group};
    int r = rs_policy_parse(text, len, &names, folder, out, line, sizeof(line));
    if (r != 0) return load_failed(path, line, r, why, why_len);
    if (more != NULL) {
        add_tenants(*out, &names, more);
        suspend(*out, more->suspended);
    }
    return 0;
}
