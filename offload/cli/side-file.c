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
    if (!file->direct || !file->tried) return;
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

void rs_file_close(struct rs_file *file)
{
    if (file->io_fd >= 0 && file->io_fd != file->fd) close(file->io_fd);
    if (file->fd >= 0) close(file->fd);
    file->fd = file->io_fd = -1;
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

/* Finds the run of data at or after `pos`; false when only a hole is left. */
static bool find_run(struct rs_extents *e, uint64_t pos)
{
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
    uint64_t from = (uint64_t)data - e->base;
    if (from >= e->size) return false;
    e->start = RS_MAX(pos, from & ~(e->granule - 1));
    uint64_t to = (uint64_t)hole > e->base ? (uint64_t)hole - e->base : 0;
    e->end = RS_MIN(e->size, rs_round_up(to, e->granule));
    return true;
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
