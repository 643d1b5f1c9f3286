/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <linux/fs.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "offload/cli/side.h"
#include "offload/vm/qcow2.h"
#include "reseal/reseal.h"

/* QEMU locks one byte of an image for each use (from 100) and for each use it forbids to others (from 200).
 */
#define QEMU_LOCK_FIRST 100
#define QEMU_LOCK_LEN   200
#define QEMU_USES_WRITE 101
#define QEMU_BARS_WRITE 201

static int lock_bytes(int fd, short type, off_t start, off_t len)
{
    struct flock l = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = len};
    return fcntl(fd, F_OFD_SETLK, &l);
}

/* False when another program uses the image in a way that ours would disturb. A file system without locks
 * passes. */
static bool lock_image(int fd, bool writes)
{
    if (writes)
        return lock_bytes(fd, F_WRLCK, QEMU_LOCK_FIRST, QEMU_LOCK_LEN) == 0 ||
               (errno != EAGAIN && errno != EACCES);
    struct flock probe = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = QEMU_USES_WRITE, .l_len = 1};
    if (fcntl(fd, F_OFD_GETLK, &probe) == 0 && probe.l_type != F_UNLCK) return false;
    return lock_bytes(fd, F_RDLCK, QEMU_BARS_WRITE, 1) == 0 || (errno != EAGAIN && errno != EACCES);
}

static int learn(struct rs_file *file, struct rs_failure *f)
{
    struct stat st;
    if (fstat(file->fd, &st) != 0) return rs_failure_errno(f, errno, "stat", file->path);
    file->mtime_ns = st.st_mtim.tv_sec * 1000000000LL + st.st_mtim.tv_nsec;
    if (S_ISREG(st.st_mode)) {
        file->size = (uint64_t)st.st_size;
        file->dev = st.st_dev;
        file->ino = st.st_ino;
        return 0;
    }
    if (!S_ISBLK(st.st_mode))
        return rs_failure_set(f, RS_EXIT_USAGE, "%s is neither a file nor a block device", file->path);
    file->block = true;
    file->dev = st.st_rdev;
    file->mtime_ns = 0;
    if (ioctl(file->fd, BLKGETSIZE64, &file->size) != 0)
        return rs_failure_errno(f, errno, "ask the size of", file->path);
    return 0;
}

/* The system call has no wrapper yet; numbers are the same on all architectures. */
#ifndef SYS_cachestat
#define SYS_cachestat 451
#endif

struct cache_range {
    uint64_t off, len;
};

struct cache_state {
    uint64_t cached, dirty, writeback, evicted, recently_evicted; /* pages */
};

/* True when at least half of a file is in the page cache; false too where the kernel cannot tell
 * (before 6.5). */
static bool mostly_cached(const struct rs_file *file)
{
    struct cache_range range = {.len = file->size};
    struct cache_state state;
    if (syscall(SYS_cachestat, file->fd, &range, &state, 0) != 0) return false;
    return state.cached >= file->size / (2 * (uint64_t)sysconf(_SC_PAGESIZE));
}

/* What O_DIRECT asks of offsets and lengths; 4096 suits every disk where the kernel does not say. */
static uint64_t direct_alignment(const struct rs_file *file)
{
#ifdef STATX_DIOALIGN
    struct statx st;
    if (statx(file->io_fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &st) == 0 &&
        (st.stx_mask & STATX_DIOALIGN) != 0 && st.stx_dio_offset_align != 0)
        return st.stx_dio_offset_align;
#endif
    int sector;
    return file->block && ioctl(file->io_fd, BLKSSZGET, &sector) == 0 && sector > 0 ? (uint64_t)sector : 4096;
}

void rs_file_settle_direct(struct rs_file *file, uint64_t offset, uint64_t size)
{
    if (!file->direct || !file->tried || file->image != NULL) return;
    uint64_t align = direct_alignment(file);
    if (offset % align == 0 && size % align == 0) return;
    close(file->io_fd);
    file->io_fd = file->fd;
    file->direct = false;
}

static int open_direct(struct rs_file *file, unsigned flags, struct rs_failure *f)
{
    if ((flags & (RS_FILE_DIRECT | RS_FILE_TRY_DIRECT)) == 0) return 0;
    file->tried = (flags & RS_FILE_TRY_DIRECT) != 0;
    if ((flags & RS_FILE_UNCACHED) != 0 && mostly_cached(file)) return 0;
    /* The same inode again, whatever became of the name. */
    char self[64];
    snprintf(self, sizeof(self), "/proc/self/fd/%d", file->fd);
    int access = (flags & RS_FILE_WRITE) != 0 ? O_RDWR : O_RDONLY;
    int fd = open(self, access | O_DIRECT | O_CLOEXEC);
    if (fd < 0 && errno == EACCES) fd = open(file->path, access | O_DIRECT | O_CLOEXEC);
    if (fd < 0) {
        if ((flags & RS_FILE_TRY_DIRECT) != 0) return 0;
        return rs_failure_errno(f, errno, "open with O_DIRECT (leave --direct out)", file->path);
    }
    file->io_fd = fd;
    file->direct = true;
    return 0;
}

int rs_file_open(struct rs_file *file, const char *path, unsigned flags, struct rs_failure *f)
{
    *file = (struct rs_file){.fd = -1, .io_fd = -1};
    snprintf(file->path, sizeof(file->path), "%s", path);
    struct stat st;
    bool there = stat(path, &st) == 0;
    int mode = (flags & RS_FILE_WRITE) != 0 ? O_RDWR : O_RDONLY;
    if ((flags & RS_FILE_CREATE) != 0) mode |= O_CREAT | O_EXCL;
    if (there && S_ISBLK(st.st_mode) && (flags & RS_FILE_WRITE) != 0) mode |= O_EXCL;
    file->fd = open(path, mode | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0600);
    if (file->fd < 0)
        return rs_failure_errno(f, errno, (flags & RS_FILE_CREATE) != 0 ? "create" : "open", path);
    file->created = (flags & RS_FILE_CREATE) != 0;
    file->io_fd = file->fd;
    int code = learn(file, f);
    if (code == 0 && !lock_image(file->fd, (flags & RS_FILE_WRITE) != 0))
        code = rs_failure_set(f, RS_EXIT_REFUSED,
                              "%s is in use by another program: shut down its virtual machine first", path);
    if (code == 0) code = open_direct(file, flags, f);
    if (code != 0) rs_file_close(file);
    return code;
}

int rs_file_close_qcow2(struct rs_file *file)
{
    int code = rs_qcow2_close(file->image);
    file->image = NULL;
    return code;
}

void rs_file_close(struct rs_file *file)
{
    (void)rs_file_close_qcow2(file);
    if (file->io_fd >= 0 && file->io_fd != file->fd) close(file->io_fd);
    if (file->fd >= 0) close(file->fd);
    file->fd = file->io_fd = -1;
}

int rs_file_open_qcow2(struct rs_file *file, const char *path, unsigned flags, uint64_t size,
                       struct rs_failure *f)
{
    char why[RS_QCOW2_WHY];
    bool writes = (flags & RS_FILE_WRITE) != 0;
    int code = 0;
    *file = (struct rs_file){.fd = -1, .io_fd = -1};
    snprintf(file->path, sizeof(file->path), "%s", path);
    if ((flags & RS_FILE_CREATE) != 0) {
        code = rs_qcow2_create(path, size, why, sizeof(why));
        if (code != 0) return rs_failure_set(f, rs_exit_of(code), "%s", why);
        file->created = true;
    }
    file->fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (file->fd < 0) return rs_failure_errno(f, errno, "open", path);
    code = learn(file, f);
    unsigned how = (writes ? RS_QCOW2_WRITE : 0u) | ((flags & RS_FILE_DISCARD) != 0 ? RS_QCOW2_DISCARD : 0u) |
                   ((flags & RS_FILE_DIRECT) != 0 ? RS_QCOW2_DIRECT : 0u) |
                   ((flags & RS_FILE_ORDERLY) != 0 ? 0u : RS_QCOW2_DROP);
    if (code == 0) {
        int err = rs_qcow2_open(&file->image, path, how | RS_QCOW2_WAIT, why, sizeof(why));
        if (err != 0)
            code = rs_failure_set(f, err == RESEAL_EBUSY ? RS_EXIT_REFUSED : rs_exit_of(err), "%s: %s", path,
                                  why);
    }
    if (code != 0)
        rs_file_close(file);
    else
        file->size = rs_qcow2_size(file->image);
    return code;
}

int rs_file_flush(struct rs_file *file)
{
    if (file->image != NULL) return rs_qcow2_flush(file->image);
    return fdatasync(file->fd) == 0 ? 0 : -errno;
}

int rs_file_pread(struct rs_file *file, void *buf, size_t len, uint64_t off)
{
    return file->image != NULL ? rs_qcow2_pread(file->image, buf, len, off)
                               : rs_pread_full(file->fd, buf, len, off);
}

int rs_file_pwrite(struct rs_file *file, const void *buf, size_t len, uint64_t off)
{
    return file->image != NULL ? rs_qcow2_pwrite(file->image, buf, len, off)
                               : rs_pwrite_full(file->fd, buf, len, off);
}

int rs_file_pwrite_sparse(struct rs_file *file, const void *buf, size_t len, uint64_t off)
{
    static const uint8_t zero[64 * 1024];
    const uint8_t *from = buf;
    int code = 0;
    for (size_t at = 0; code == 0 && at < len;) {
        size_t n = RS_MIN(len - at, sizeof(zero));
        if (memcmp(from + at, zero, n) != 0) code = rs_file_pwrite(file, from + at, n, off + at);
        at += n;
    }
    return code;
}

int rs_file_sync_folder(const char *path)
{
    char copy[PATH_MAX];
    snprintf(copy, sizeof(copy), "%s", path);
    RS_CLOSE int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return -errno;
    /* Some file systems know no fsync of a folder. */
    return fsync(fd) == 0 || errno == EINVAL ? 0 : -errno;
}

/* True when `device` is a loop device over `file`. */
static bool loops_over(const struct rs_file *device, const struct rs_file *file)
{
    if (!device->block || file->block) return false;
    char name[96], path[PATH_MAX];
    snprintf(name, sizeof(name), "/sys/dev/block/%u:%u/loop/backing_file", major(device->dev),
             minor(device->dev));
    RS_CLOSE int fd = open(name, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    ssize_t n = read(fd, path, sizeof(path) - 1);
    if (n <= 0) return false;
    path[path[n - 1] == '\n' ? n - 1 : n] = '\0';
    struct stat st;
    return stat(path, &st) == 0 && (uint64_t)st.st_dev == file->dev && (uint64_t)st.st_ino == file->ino;
}

bool rs_file_same(const struct rs_file *a, const struct rs_file *b)
{
    if (a->block == b->block) return a->dev == b->dev && a->ino == b->ino;
    return loops_over(a, b) || loops_over(b, a);
}

/* The run that begins and ends with whole granules. */
static bool take_run(struct rs_extents *e, uint64_t pos, uint64_t data, uint64_t hole)
{
    uint64_t from = data - e->base;
    if (from >= e->size) return false;
    e->start = RS_MAX(pos, from & ~(e->granule - 1));
    uint64_t to = hole > e->base ? hole - e->base : 0;
    e->end = RS_MIN(e->size, rs_round_up(to, e->granule));
    return true;
}

static bool find_run_in_image(struct rs_extents *e, uint64_t pos)
{
    uint64_t data, hole;
    int found = rs_qcow2_data(e->image, e->base + pos, &data, &hole);
    if (found == 0) return false;
    if (found > 0) return take_run(e, pos, data, hole);
    /* It cannot tell: all is data. What is wrong with it, reading will tell. */
    e->skip = false;
    e->start = pos;
    e->end = e->size;
    return true;
}

/* Finds the run of data at or after `pos`; false when only a hole is left. */
static bool find_run(struct rs_extents *e, uint64_t pos)
{
    if (e->image != NULL) return find_run_in_image(e, pos);
    off_t data = lseek(e->fd, (off_t)(e->base + pos), SEEK_DATA);
    if (data < 0 && errno == ENXIO) return false;
    off_t hole = data < 0 ? -1 : lseek(e->fd, data, SEEK_HOLE);
    if (data < 0 || hole < 0 || (uint64_t)data < e->base) {
        /* The file system does not say: all is data. */
        e->skip = false;
        e->start = pos;
        e->end = e->size;
        return true;
    }
    return take_run(e, pos, (uint64_t)data, (uint64_t)hole);
}

bool rs_extents_next(struct rs_extents *e, uint64_t pos, uint64_t max, uint64_t *off, uint64_t *len)
{
    if (pos >= e->size) return false;
    if (!e->skip) {
        e->start = 0;
        e->end = e->size;
    } else if (pos < e->start || pos >= e->end) {
        if (!find_run(e, pos)) return false;
    }
    *off = RS_MAX(pos, e->start);
    *len = RS_MIN(max, e->end - *off);
    return true;
}
