/* SPDX-License-Identifier: Apache-2.0 */
/* Whole images: made, mended, and the LUKS header that is in one. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "offload/vm/disk.h"
#include "offload/vm/files.h"
#include "offload/vm/qcow2-internal.h"
#include "reseal/reseal.h"

#define TOOL_MS    120000
#define HEADER_MAX (64u << 20) /* what a header may claim; as the key service takes it */
#define START_LEN  (1u << 20)  /* holds the part of any header that tells how long it is */

static int run_tool(const char *const *argv, const char *file, char *said, size_t said_len)
{
    struct rs_qcow2_child child;
    struct rs_qcow2_start s = {
        .argv = argv, .file = file, .writable = true, .listener = -1, .death = SIGKILL};
    int code = rs_qcow2_child_start(&child, &s);
    return code != 0 ? code : rs_qcow2_child_wait(&child, TOOL_MS, said, said_len);
}

static int sync_file(const char *path)
{
    RS_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    return fd >= 0 && fsync(fd) == 0 ? 0 : -errno;
}

/* Under another name until it is whole. */
static int make(const char *part, const char *path, uint64_t size, char *said, size_t said_len)
{
    char bytes[32], folder[PATH_MAX];
    (void)snprintf(bytes, sizeof(bytes), "%" PRIu64, size);
    const char *const argv[] = {
        "qemu-img", "create", "-q", "-f", "qcow2", "-o", "compat=1.1,cluster_size=65536,lazy_refcounts=off",
        part,       bytes,    NULL};
    if (unlink(part) != 0 && errno != ENOENT) return -errno;
    RS_CLOSE int fd = open(part, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) return -errno;
    int code = run_tool(argv, part, said, said_len);
    if (code == 0) code = sync_file(part);
    if (code == 0 && rename(part, path) != 0) code = -errno;
    (void)snprintf(folder, sizeof(folder), "%s", path);
    if (code == 0) return rs_vm_sync_folder(dirname(folder));
    (void)unlink(part);
    return code;
}

int rs_qcow2_create(const char *path, uint64_t size, char *why, size_t why_len)
{
    char folder[PATH_MAX], real[PATH_MAX], part[PATH_MAX], said[400] = "";
    const char *slash = strrchr(path, '/');
    (void)snprintf(folder, sizeof(folder), "%s", path);
    if (realpath(dirname(folder), real) == NULL)
        return rs_vm_refuse(RESEAL_EIO, why, why_len, "cannot make %s: %s", path, strerror(errno));
    /* Absolute, so that no name is taken for a protocol's. */
    int n = snprintf(part, sizeof(part), "%s/%s.part", real, slash != NULL ? slash + 1 : path);
    if (n < 0 || (size_t)n >= sizeof(part))
        return rs_vm_refuse(RESEAL_EIO, why, why_len, "the name %s is too long", path);
    int code = make(part, path, size, said, sizeof(said));
    if (code == 0) return 0;
    if (code == -ENOENT)
        return rs_vm_refuse(RESEAL_ENOSUPPORT, why, why_len,
                            "qcow2 images need qemu-img, which is not installed (Debian: qemu-utils)");
    return rs_vm_refuse(RESEAL_EIO, why, why_len, "cannot make %s: %.300s", path,
                        said[0] != '\0' ? said : strerror(-code));
}

void rs_qcow2_mend(const char *path)
{
    char real[PATH_MAX], said[1];
    if (realpath(path, real) == NULL) return;
    const char *const argv[] = {"qemu-img", "check", "-q", "-r", "leaks", "-f", "qcow2", real, NULL};
    (void)run_tool(argv, real, said, sizeof(said));
}

/* ---- the LUKS header in it ---------------------------------------------------------- */

static int take_header(struct rs_qcow2 *q, int fd)
{
    char why[256];
    uint64_t size = rs_qcow2_size(q);
    struct rs_disk look = {.encrypted = true};
    /* First what tells its length, */
    int code = rs_qcow2_save(q, fd, RS_MIN(size, (uint64_t)START_LEN));
    if (code == 0 && ftruncate(fd, (off_t)RS_MIN(size, (uint64_t)START_LEN)) != 0) code = -errno;
    if (code != 0) return code;
    int err = rs_disk_look_luks(fd, size, &look, why, sizeof(why));
    if (err != 0) {
        /* a LUKS2 header with a larger JSON area needs more of it */
        code = rs_qcow2_save(q, fd, RS_MIN(size, (uint64_t)16 << 20));
        if (code != 0) return code;
        err = rs_disk_look_luks(fd, size, &look, why, sizeof(why));
    }
    if (err != 0) return err == RESEAL_ENOMEM ? -ENOMEM : -EINVAL;
    if (look.header_size == 0 || look.header_size > HEADER_MAX) return -EFBIG;
    /* then all of it. */
    code = rs_qcow2_save(q, fd, RS_MIN(look.header_size, size));
    /* Data begins behind the header; a file that ended before would look truncated. */
    uint64_t len = RS_MAX(look.header_size, look.data_offset) + (1u << 20);
    return code == 0 && ftruncate(fd, (off_t)len) != 0 ? -errno : code;
}

int rs_qcow2_luks_header(struct rs_qcow2 *q)
{
    uint8_t magic[6];
    if (q->size < sizeof(magic)) return -EINVAL;
    int code = rs_qcow2_pread(q, magic, sizeof(magic), 0);
    if (code != 0) return code;
    if (memcmp(magic, "LUKS\xba\xbe", sizeof(magic)) != 0) return -EINVAL;
    int fd = memfd_create("reseal-header", MFD_CLOEXEC);
    if (fd < 0) return -errno;
    code = take_header(q, fd);
    if (code == 0) return fd;
    close(fd);
    return code;
}
