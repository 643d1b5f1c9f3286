/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/cli/provider.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define BACKUP_MAX  (64u << 10) /* bytes */
#define BACKUP_ROOM (16u << 10) /* one has a tenth of that */

/* The folder too, so that the name survives a crash. */
static int flush(int fd, const char *path, struct rs_failure *f)
{
    RS_FREE char *copy = strdup(path);
    RS_CLOSE int folder = copy != NULL ? open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (fsync(fd) != 0 || folder < 0 || fsync(folder) != 0) return rs_failure_errno(f, errno, "write", path);
    return 0;
}

/* Room for a backup, taken by writing: the file system may give what it has not promised. */
static int reserve(int fd, const char *path, struct rs_failure *f)
{
    static const uint8_t zeros[BACKUP_ROOM];
    int r = rs_pwrite_full(fd, zeros, sizeof(zeros), 0);
    if (r == 0 && fsync(fd) != 0) r = -errno;
    return r == 0 ? 0 : rs_failure_errno(f, r, "write", path);
}

static int save(int from, int to, const char *path, struct rs_failure *f)
{
    uint8_t bytes[BACKUP_MAX];
    struct stat st;
    if (fstat(from, &st) != 0 || st.st_size <= 0 || st.st_size > (off_t)sizeof(bytes))
        return rs_failure_set(f, RS_EXIT_SERVICE, "the service gave no backup");
    int r = rs_pread_full(from, bytes, (size_t)st.st_size, 0);
    if (r == 0) r = rs_pwrite_full(to, bytes, (size_t)st.st_size, 0);
    if (r == 0 && ftruncate(to, st.st_size) != 0) r = -errno;
    if (r != 0) return rs_failure_errno(f, r, "write", path);
    return flush(to, path, f);
}

int rs_provider_export(struct rs_provider_run *p)
{
    const char *path = p->o.output;
    const struct rs_passphrase from = {.file = p->o.password.file, .fd = -1, .options = "--password-file"};
    RS_CLOSE int password = -1;
    RS_CLOSE int backup = -1;
    if (path == NULL)
        return rs_failure_set(&p->f, RS_EXIT_USAGE, "name the file for the backup: --output FILE");
    /* The file and its room first: the provider counts as backed up with the answer. */
    RS_CLOSE int out = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (out < 0) return rs_failure_errno(&p->f, errno, "make", path);
    int r = reserve(out, path, &p->f);
    if (r == 0) r = rs_passphrase_open(&from, "backup", p->o.name, true, &password, &p->f);
    if (r == 0)
        r = rs_provider_call(p, "provider.export", json_pack("{s:s}", "provider", p->o.name), &password, 1,
                             NULL, &backup);
    if (r == 0) r = save(backup, out, path, &p->f);
    if (r != 0) {
        (void)unlink(path);
        return r;
    }
    p->result = json_pack("{s:s, s:s}", "provider", p->o.name, "file", path);
    if (!p->o.json)
        printf("backup of %s: %s; keep it and its password apart, and away from this host\n", p->o.name,
               path);
    return 0;
}

int rs_provider_import(struct rs_provider_run *p)
{
    const struct rs_passphrase from = {.file = p->o.password.file, .fd = -1, .options = "--password-file"};
    int fds[2] = {open(p->o.file, O_RDONLY | O_CLOEXEC), -1};
    if (fds[0] < 0) return rs_failure_errno(&p->f, errno, "open", p->o.file);
    int r = rs_passphrase_open(&from, "backup", p->o.file, false, &fds[1], &p->f);
    if (r == 0) {
        json_t *args = json_pack("{s:s, s:b, s:b}", "name", p->o.name, "default", p->o.is_default, "shared",
                                 p->o.shared);
        r = rs_provider_call(p, "provider.import", args, fds, 2, &p->result, NULL);
    }
    if (r == 0 && !p->o.json)
        printf("native provider %s was imported; its keys are those of %s\n", p->o.name,
               rs_provider_member(json_object_get(p->result, "config"), "id"));
    close(fds[0]);
    rs_cleanup_close(&fds[1]);
    return r;
}
