/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A power loss, for LD_PRELOAD: what a program wrote to files named victim*
 * and did not flush is, sector by sector, there or not there afterwards, in
 * any order; a name that was made or removed without a flush of its folder
 * can be gone or back. Strikes before the operation number POWER_LOSS_AT (0:
 * never) and writes how many there were to the file POWER_LOSS_COUNT.
 * POWER_LOSS_SEED chooses.
 */

#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define SECTOR 512u

struct change {
    struct change *next; /* older */
    char path[512];
    int kind; /* 'w' write, 'c' created, 'u' unlinked, 'r' renamed from old */
    uint64_t off;
    size_t len;
    uint8_t *old, *new;
    size_t old_len; /* what was before the end of the file then */
};

static struct change *changes;
static unsigned long operations;
static uint64_t random_state;

static int (*real_open)(const char *, int, ...);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static ssize_t (*real_pwritev2)(int, const struct iovec *, int, off_t, int);
static int (*real_fdatasync)(int);
static int (*real_fsync)(int);
static int (*real_unlink)(const char *);

static unsigned long number(const char *name)
{
    const char *text = getenv(name);
    return text == NULL ? 0 : strtoul(text, NULL, 10);
}

__attribute__((constructor)) static void begin(void)
{
    *(void **)&real_open = dlsym(RTLD_NEXT, "open");
    *(void **)&real_pwrite = dlsym(RTLD_NEXT, "pwrite");
    *(void **)&real_pwritev2 = dlsym(RTLD_NEXT, "pwritev2");
    *(void **)&real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    *(void **)&real_fsync = dlsym(RTLD_NEXT, "fsync");
    *(void **)&real_unlink = dlsym(RTLD_NEXT, "unlink");
    random_state = number("POWER_LOSS_SEED") * 0x9e3779b97f4a7c15u + 1;
}

__attribute__((destructor)) static void end(void)
{
    const char *path = getenv("POWER_LOSS_COUNT");
    FILE *f = path == NULL ? NULL : fopen(path, "w");
    if (f == NULL) return;
    fprintf(f, "%lu\n", operations);
    fclose(f);
}

static int chance(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (int)(random_state >> 33 & 1);
}

static const char *victim(int fd, char *path, size_t cap)
{
    char link[64];
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, cap - 1);
    if (n <= 0) return NULL;
    path[n] = '\0';
    const char *base = strrchr(path, '/');
    return base != NULL && strncmp(base + 1, "victim", 6) == 0 ? path : NULL;
}

static void write_at(const char *path, const uint8_t *p, size_t len, uint64_t off)
{
    int fd = real_open(path, O_WRONLY);
    if (fd < 0) return;
    if (len != 0 && real_pwrite(fd, p, len, (off_t)off) != (ssize_t)len) abort();
    close(fd);
}

static void again(struct change *c)
{
    if (c == NULL) return;
    again(c->next); /* the oldest first */
    if (c->kind != 'w') return;
    /* One decision for most writes, one per sector for some: a torn write. */
    int torn = chance() && chance(), keep = chance();
    for (size_t at = 0; at < c->len; at += SECTOR) {
        size_t n = c->len - at < SECTOR ? c->len - at : SECTOR;
        if (torn ? chance() : keep) write_at(c->path, c->new + at, n, c->off + at);
    }
}

static void strike(void)
{
    for (struct change *c = changes; c != NULL; c = c->next)
        if (c->kind == 'w') write_at(c->path, c->old, c->old_len, c->off);
    again(changes);
    for (struct change *c = changes; c != NULL; c = c->next) {
        char kept[600];
        snprintf(kept, sizeof(kept), "%s.unlinked", c->path);
        if (c->kind == 'u' && (chance() ? rename(kept, c->path) : real_unlink(kept)) != 0) abort();
        if (c->kind == 'c' && chance()) (void)real_unlink(c->path);
        if (c->kind == 'r' && chance() && rename(c->path, (char *)c->old) != 0) abort();
    }
    _exit(99);
}

static void count(void)
{
    operations++;
    if (operations == number("POWER_LOSS_AT")) strike();
}

static struct change *note(const char *path, int kind)
{
    struct change *c = calloc(1, sizeof(*c));
    if (c == NULL) abort();
    c->kind = kind;
    snprintf(c->path, sizeof(c->path), "%.511s", path);
    c->next = changes;
    changes = c;
    return c;
}

static void note_write(int fd, const char *path, const void *p, size_t len, uint64_t off)
{
    struct change *c = note(path, 'w');
    c->off = off;
    c->len = len;
    c->old = malloc(len);
    c->new = malloc(len);
    if (c->old == NULL || c->new == NULL) abort();
    memcpy(c->new, p, len);
    int in = real_open(path, O_RDONLY);
    ssize_t n = in < 0 ? 0 : pread(in, c->old, len, (off_t)off);
    c->old_len = n > 0 ? (size_t)n : 0;
    if (in >= 0) close(in);
    (void)fd;
}

/* Forgets what has become durable: the writes of a file, or the names in a folder. */
static void settle(const char *path, int names)
{
    for (struct change **at = &changes; *at != NULL;) {
        struct change *c = *at;
        if (names ? c->kind == 'w' : c->kind != 'w' || strcmp(c->path, path) != 0) {
            at = &c->next;
            continue;
        }
        char kept[600];
        snprintf(kept, sizeof(kept), "%s.unlinked", c->path);
        if (c->kind == 'u') (void)real_unlink(kept);
        *at = c->next;
        free(c->old);
        free(c->new);
        free(c);
    }
}

int open(const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    mode_t mode = (flags & O_CREAT) != 0 ? va_arg(args, mode_t) : 0;
    va_end(args);
    int fd = real_open(path, flags, mode);
    char full[PATH_MAX];
    if (fd >= 0 && (flags & O_EXCL) != 0 && (flags & O_CREAT) != 0 &&
        victim(fd, full, sizeof(full)) != NULL) {
        count();
        note(full, 'c');
    }
    return fd;
}

ssize_t pwrite(int fd, const void *p, size_t len, off_t off)
{
    char path[PATH_MAX];
    if (victim(fd, path, sizeof(path)) != NULL) {
        count();
        note_write(fd, path, p, len, (uint64_t)off);
    }
    return real_pwrite(fd, p, len, off);
}

/* With RWF_DSYNC as it is used here: this write is durable, earlier ones need not be. */
ssize_t pwritev2(int fd, const struct iovec *iov, int n, off_t off, int flags)
{
    char path[PATH_MAX];
    if (victim(fd, path, sizeof(path)) != NULL) {
        count();
        if ((flags & RWF_DSYNC) == 0)
            for (int i = 0; i < n; i++) note_write(fd, path, iov[i].iov_base, iov[i].iov_len, (uint64_t)off);
    }
    return real_pwritev2(fd, iov, n, off, flags);
}

static int flush(int fd, int (*real)(int))
{
    char path[PATH_MAX];
    struct stat st;
    int code = real(fd);
    if (victim(fd, path, sizeof(path)) != NULL) {
        count();
        if (code == 0) settle(path, 0);
    } else if (fstat(fd, &st) == 0 && S_ISDIR(st.st_mode)) {
        count();
        if (code == 0) settle("", 1);
    }
    return code;
}

int fdatasync(int fd)
{
    return flush(fd, real_fdatasync);
}

int fsync(int fd)
{
    return flush(fd, real_fsync);
}

int unlink(const char *path)
{
    char full[PATH_MAX], kept[600];
    const char *base = strrchr(path, '/');
    base = base == NULL ? path : base + 1;
    if (strncmp(base, "victim", 6) != 0 || realpath(path, full) == NULL) return real_unlink(path);
    count();
    snprintf(kept, sizeof(kept), "%.500s.unlinked", full);
    note(full, 'u');
    return rename(full, kept);
}

int renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned flags)
{
    static int (*real)(int, const char *, int, const char *, unsigned);
    char full[PATH_MAX];
    if (real == NULL) *(void **)&real = dlsym(RTLD_NEXT, "renameat2");
    if (realpath(from, full) == NULL) return -1;
    count();
    int code = real(from_folder, from, to_folder, to, flags);
    char now[PATH_MAX];
    if (code == 0 && realpath(to, now) != NULL) note(now, 'r')->old = (uint8_t *)strdup(full);
    return code;
}
