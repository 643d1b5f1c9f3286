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
#include <time.h>
#include <unistd.h>

#include "offload/base/clock.h"
#include "offload/vm/disk.h"
#include "offload/vm/files.h"
#include "offload/vm/qcow2-internal.h"
#include "reseal/reseal.h"

#define TOOL_MS      120000
#define LOCK_NS      5000000000ull
#define HEADER_MAX   (64u << 20) /* what a header may claim; as the key service takes it */
#define PIECE        (64u << 10) /* bytes that are read at once */
#define LUKS_SIZE_AT 8u          /* where LUKS2 says how long one copy of its metadata is, in 8 bytes */
#define TELLING_MAX  (4u << 20)  /* bytes of such a copy */

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
    char real[PATH_MAX], said[200];
    const struct timespec pause = {.tv_nsec = 50000000};
    if (realpath(path, real) == NULL) return;
    const char *const argv[] = {"qemu-img", "check", "-q", "-r", "leaks", "-f", "qcow2", real, NULL};
    uint64_t end = rs_now_ns() + LOCK_NS;
    /* The writer that was killed may not be gone yet. */
    while (run_tool(argv, real, said, sizeof(said)) != 0 && strstr(said, "lock") != NULL && rs_now_ns() < end)
        (void)nanosleep(&pause, NULL);
}

/* ---- the LUKS header in it ---------------------------------------------------------- */

/* Who reads the image: QEMU, or we. */
struct reader {
    int (*read)(void *arg, void *buf, size_t len, uint64_t off);
    void *arg;
    uint64_t size; /* of the virtual disk */
};

static int by_qemu(void *arg, void *buf, size_t len, uint64_t off)
{
    return rs_qcow2_pread(arg, buf, len, off);
}

static int by_ourselves(void *arg, void *buf, size_t len, uint64_t off)
{
    return rs_qcow2_peek(arg, buf, len, off);
}

/* Most of a header's room is empty: zeros stay a hole. */
static int save(const struct reader *from, int fd, uint64_t at, uint64_t end)
{
    static const uint8_t zeros[4096];
    RS_FREE uint8_t *buf = malloc(PIECE);
    if (buf == NULL) return -ENOMEM;
    for (end = RS_MIN(end, from->size); at < end;) {
        size_t n = (size_t)RS_MIN(end - at, (uint64_t)PIECE);
        int code = from->read(from->arg, buf, n, at);
        for (size_t k = 0; code == 0 && k < n; k += sizeof(zeros)) {
            size_t m = RS_MIN(n - k, sizeof(zeros));
            if (memcmp(buf + k, zeros, m) != 0) code = rs_pwrite_full(fd, buf + k, m, at + k);
        }
        if (code != 0) return code;
        at += n;
    }
    return 0;
}

/* Bytes that tell how long a header is: of LUKS2 all of its first copy. */
static uint64_t telling(const uint8_t start[LUKS_SIZE_AT + 8])
{
    uint64_t len = start[7] == 2 ? rs_load_be64(start + LUKS_SIZE_AT) : 0;
    return RS_MAX(RS_MIN(len, (uint64_t)TELLING_MAX), (uint64_t)PIECE);
}

static int take_header(const struct reader *from, const uint8_t start[LUKS_SIZE_AT + 8], int fd)
{
    char why[256];
    struct rs_disk look = {.encrypted = true};
    uint64_t first = RS_MIN(telling(start), from->size);
    int code = save(from, fd, 0, first);
    if (code == 0 && ftruncate(fd, (off_t)first) != 0) code = -errno;
    if (code != 0) return code;
    int err = rs_disk_look_luks(fd, from->size, &look, why, sizeof(why));
    if (err != 0) return err == RESEAL_ENOMEM ? -ENOMEM : -EINVAL;
    if (look.header_size == 0 || look.header_size > HEADER_MAX) return -EFBIG;
    /* Behind the last key slot nothing counts. */
    code = save(from, fd, first, look.header_used);
    /* Data begins behind the header; a file that ended before would look truncated. */
    uint64_t len = RS_MAX(look.header_size, look.data_offset) + (1u << 20);
    return code == 0 && ftruncate(fd, (off_t)len) != 0 ? -errno : code;
}

static int luks_header(const struct reader *from)
{
    uint8_t start[LUKS_SIZE_AT + 8];
    if (from->size < sizeof(start)) return -EINVAL;
    int code = from->read(from->arg, start, sizeof(start), 0);
    if (code != 0) return code;
    if (memcmp(start, "LUKS\xba\xbe", 6) != 0) return -EINVAL;
    int fd = memfd_create("reseal-header", MFD_CLOEXEC);
    if (fd < 0) return -errno;
    code = take_header(from, start, fd);
    if (code == 0) return fd;
    close(fd);
    return code;
}

int rs_qcow2_luks_header(struct rs_qcow2 *q)
{
    struct reader from = {by_qemu, q, rs_qcow2_size(q)};
    return luks_header(&from);
}

/* -ENOTSUP: QEMU has to read it. */
static int peek_at_header(const char *path)
{
    struct rs_qcow2_peek peek;
    RS_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    off_t size = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);
    int code = size < 0 ? -ENOTSUP : rs_qcow2_peek_open(&peek, fd, (uint64_t)size);
    if (code != 0) return code;
    struct reader from = {by_ourselves, &peek, peek.facts.size};
    return luks_header(&from);
}

int rs_qcow2_luks_header_at(const char *path, int *fd, char *why, size_t why_len)
{
    int header = peek_at_header(path);
    *fd = -1;
    if (header == -ENOTSUP) {
        struct rs_qcow2 *q;
        int err = rs_qcow2_open(&q, path, RS_QCOW2_LOOK | RS_QCOW2_DROP, why, why_len);
        if (err != 0) return err;
        header = rs_qcow2_luks_header(q);
        (void)rs_qcow2_close(q);
    }
    if (header == -ENOMEM) return rs_vm_refuse(RESEAL_ENOMEM, why, why_len, "out of memory");
    if (header < 0 && header != -EINVAL)
        return rs_vm_refuse(RESEAL_EIO, why, why_len, "cannot read it: %s", strerror(-header));
    *fd = RS_MAX(header, -1);
    return 0;
}
