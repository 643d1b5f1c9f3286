/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/cli/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "offload/base/crc32c.h"
#include "offload/cli/side.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the structs are the format");

#define MAGIC        "RESEALJ1"
#define RECORD_MAGIC 0x3144524f43455252ull /* the bytes "RRECORD1" */
#define VERSION      1u
#define RECORDS_AT   RS_JOURNAL_BLOCK
#define HEADERS_AT   (3u * RS_JOURNAL_BLOCK)
#define ZONE_MAX     (256u << 20)

/* Of all but the last four bytes, where it is kept. */
static uint32_t crc_of(const void *p, size_t len)
{
    return rs_crc32c(0, p, len - sizeof(uint32_t));
}

static void lay_out(struct rs_journal *j)
{
    const struct rs_journal_super *s = &j->super;
    j->header_at[0] = HEADERS_AT;
    j->header_at[1] = HEADERS_AT + rs_round_up(s->header_len[0], RS_JOURNAL_BLOCK);
    j->area_at[0] = j->header_at[1] + rs_round_up(s->header_len[1], RS_JOURNAL_BLOCK);
    j->area_at[1] = j->area_at[0] + s->zone_size;
}

static int open_files(struct rs_journal *j, const char *path, int flags, bool direct)
{
    *j = (struct rs_journal){.fd = -1, .io_fd = -1};
    if ((size_t)snprintf(j->path, sizeof(j->path), "%s", path) >= sizeof(j->path)) return -ENAMETOOLONG;
    j->fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | flags, 0600);
    if (j->fd < 0) return -errno;
    j->io_fd = direct ? open(path, O_RDWR | O_CLOEXEC | O_DIRECT | O_NOFOLLOW) : -1;
    j->direct = j->io_fd >= 0;
    if (!j->direct) j->io_fd = j->fd;
    j->block = aligned_alloc(RS_JOURNAL_BLOCK, sizeof(*j->block));
    return j->block == NULL ? -ENOMEM : 0;
}

void rs_journal_close(struct rs_journal *j)
{
    if (j->io_fd >= 0 && j->io_fd != j->fd) close(j->io_fd);
    if (j->fd >= 0) close(j->fd);
    free(j->block);
    *j = (struct rs_journal){.fd = -1, .io_fd = -1};
}

static bool side_ok(const struct rs_journal_side *s)
{
    return s->kind >= RS_SIDE_LUKS && s->kind <= RS_SIDE_PLAIN && rs_is_pow2(s->unit) && s->unit >= 512 &&
           s->unit <= 65536;
}

static bool super_ok(const struct rs_journal_super *s)
{
    return memcmp(s->magic, MAGIC, sizeof(s->magic)) == 0 && s->crc == crc_of(s, sizeof(*s)) &&
           s->version == VERSION && (s->mode >= RS_JOURNAL_IN_PLACE && s->mode <= RS_JOURNAL_OVER) &&
           side_ok(&s->source) && side_ok(&s->destination) && s->header_len[0] <= RS_JOURNAL_HEADER_MAX &&
           s->header_len[1] <= RS_JOURNAL_HEADER_MAX && s->zone_size <= ZONE_MAX &&
           s->zone_size % RS_JOURNAL_BLOCK == 0 && (s->mode != RS_JOURNAL_IN_PLACE || s->zone_size != 0) &&
           s->data_size <= INT64_MAX && s->source.offset <= INT64_MAX && s->destination.offset <= INT64_MAX;
}

static bool is_ours(int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_uid == geteuid() && (st.st_mode & 022) == 0;
}

static enum rs_journal_found look_at(struct rs_journal *j)
{
    if (!is_ours(j->fd)) return RS_JOURNAL_FOREIGN;
    if (rs_pread_full(j->fd, &j->super, sizeof(j->super), 0) != 0 || !super_ok(&j->super))
        return RS_JOURNAL_DAMAGED;
    return j->super.mode == RS_JOURNAL_OVER ? RS_JOURNAL_ENDED : RS_JOURNAL_THERE;
}

enum rs_journal_found rs_journal_open(struct rs_journal *j, const char *path, bool direct)
{
    int code = open_files(j, path, 0, direct);
    enum rs_journal_found found = code == -ENOENT ? RS_JOURNAL_NONE : RS_JOURNAL_DAMAGED;
    if (code == 0) found = look_at(j);
    if (found != RS_JOURNAL_THERE) {
        rs_journal_close(j);
        return found;
    }
    lay_out(j);
    struct rs_journal_record last;
    j->seq = rs_journal_last(j, &last) ? last.seq : 0;
    return found;
}

static int write_parts(struct rs_journal *j, const void *const headers[2])
{
    static const uint8_t zero[2 * RS_JOURNAL_BLOCK];
    uint64_t total =
        j->super.mode == RS_JOURNAL_IN_PLACE ? j->area_at[1] + j->super.zone_size : j->area_at[0];
    /* All of it now: "no space" must come before the image is touched. */
    int code = -posix_fallocate(j->fd, 0, (off_t)total);
    if (code != 0) return code;
    code = rs_pwrite_full(j->fd, zero, sizeof(zero), RECORDS_AT);
    for (unsigned i = 0; i < 2 && code == 0; i++) {
        if (j->super.header_len[i] == 0) continue;
        code = rs_pwrite_full(j->fd, headers[i], j->super.header_len[i], j->header_at[i]);
    }
    if (code == 0) code = rs_pwrite_full(j->fd, &j->super, sizeof(j->super), 0);
    if (code == 0 && fsync(j->fd) != 0) code = -errno;
    return code;
}

/* From here on the name is there only with all that belongs to it. */
static int give_name(struct rs_journal *j, const char *path)
{
    if (renameat2(AT_FDCWD, j->path, AT_FDCWD, path, RENAME_NOREPLACE) != 0) {
        if (errno != EINVAL && errno != ENOSYS) return -errno;
        /* This file system cannot rename without replacing; the name was free a moment ago. */
        if (link(j->path, path) != 0 || unlink(j->path) != 0) return -errno;
    }
    snprintf(j->path, sizeof(j->path), "%s", path);
    return rs_file_sync_folder(path);
}

int rs_journal_create(struct rs_journal *j, const char *path, const struct rs_journal_super *super,
                      const void *const headers[2], bool direct, struct rs_failure *f)
{
    char fresh[sizeof(j->path)];
    bool fits = (size_t)snprintf(fresh, sizeof(fresh), "%s.new", path) < sizeof(fresh);
    /* One that never got its name belongs to nobody. */
    if (fits) (void)unlink(fresh);
    int code = fits ? open_files(j, fresh, O_CREAT | O_EXCL, direct) : -ENAMETOOLONG;
    if (code == 0) {
        j->super = *super;
        memcpy(j->super.magic, MAGIC, sizeof(j->super.magic));
        j->super.version = VERSION;
        for (unsigned i = 0; i < 2; i++)
            j->super.header_crc[i] =
                super->header_len[i] == 0 ? 0 : rs_crc32c(0, headers[i], super->header_len[i]);
        j->super.crc = crc_of(&j->super, sizeof(j->super));
        lay_out(j);
        code = write_parts(j, headers);
        if (code == 0) code = give_name(j, path);
        if (code != 0) (void)unlink(j->path);
    }
    if (code == 0) return 0;
    rs_journal_close(j);
    return rs_failure_errno(f, code, "make the journal", path);
}

static bool record_ok(const struct rs_journal *j, const struct rs_journal_record *r)
{
    if (r->magic != RECORD_MAGIC || r->crc != crc_of(r, sizeof(*r)) || r->seq == 0 ||
        r->next > j->super.data_size)
        return false;
    if ((r->state != RS_JOURNAL_RUNNING && r->state != RS_JOURNAL_HEADER) || r->area > 1) return false;
    if (r->segments > RS_JOURNAL_SEGMENTS) return false;
    uint64_t sum = 0;
    for (uint32_t i = 0; i < r->segments; i++) {
        if (!rs_range_ok(r->segment[i].off, r->segment[i].len, j->super.data_size)) return false;
        if (!rs_range_ok(sum, r->segment[i].len, j->super.zone_size)) return false;
        sum += r->segment[i].len;
    }
    return true;
}

bool rs_journal_last(struct rs_journal *j, struct rs_journal_record *out)
{
    bool found = false;
    for (unsigned i = 0; i < 2; i++) {
        if (rs_pread_full(j->io_fd, j->block, RS_JOURNAL_BLOCK, RECORDS_AT + i * RS_JOURNAL_BLOCK) != 0)
            continue;
        if (!record_ok(j, j->block) || (found && j->block->seq < out->seq)) continue;
        *out = *j->block;
        found = true;
    }
    return found;
}

static int write_durably(int fd, void *block, uint64_t at)
{
    struct iovec iov = {.iov_base = block, .iov_len = RS_JOURNAL_BLOCK};
    ssize_t n = pwritev2(fd, &iov, 1, (off_t)at, RWF_DSYNC);
    if (n == (ssize_t)RS_JOURNAL_BLOCK) return 0;
    if (n < 0 && errno != EOPNOTSUPP && errno != ENOSYS && errno != EINTR) return -errno;
    int code = rs_pwrite_full(fd, block, RS_JOURNAL_BLOCK, at);
    if (code == 0 && fdatasync(fd) != 0) code = -errno;
    return code;
}

int rs_journal_commit(struct rs_journal *j, const struct rs_journal_record *record)
{
    *j->block = *record;
    j->block->magic = RECORD_MAGIC;
    j->block->seq = j->seq + 1;
    j->block->crc = crc_of(j->block, sizeof(*j->block));
    int code = write_durably(j->io_fd, j->block, RECORDS_AT + (j->block->seq & 1) * RS_JOURNAL_BLOCK);
    if (code == 0) j->seq++;
    return code;
}

int rs_journal_header(struct rs_journal *j, unsigned which, uint8_t **out, struct rs_failure *f)
{
    size_t len = (size_t)j->super.header_len[which];
    *out = NULL;
    if (len == 0) return rs_failure_set(f, RS_EXIT_FORMAT, "the journal %s holds no header", j->path);
    uint8_t *p = malloc(len);
    if (p == NULL) return rs_failure_errno(f, ENOMEM, "read the journal", j->path);
    int code = rs_pread_full(j->fd, p, len, j->header_at[which]);
    if (code == 0 && rs_crc32c(0, p, len) == j->super.header_crc[which]) {
        *out = p;
        return 0;
    }
    free(p);
    if (code != 0) return rs_failure_errno(f, code, "read the journal", j->path);
    return rs_failure_set(f, RS_EXIT_FORMAT, "the journal %s is damaged: a header in it fails its checksum",
                          j->path);
}

/* Key slots of the old header must not outlive it, and a journal that comes back after a crash must not
 * count. */
static int blank(struct rs_journal *j)
{
    static const uint8_t zero[64 * 1024];
    j->super.mode = RS_JOURNAL_OVER;
    j->super.crc = crc_of(&j->super, sizeof(j->super));
    int code = rs_pwrite_full(j->fd, &j->super, sizeof(j->super), 0);
    if (code == 0 && fdatasync(j->fd) != 0) code = -errno;
    for (uint64_t at = HEADERS_AT; at < j->area_at[0] && code == 0;) {
        size_t n = (size_t)RS_MIN(sizeof(zero), j->area_at[0] - at);
        code = rs_pwrite_full(j->fd, zero, n, at);
        at += n;
    }
    if (code == 0 && fdatasync(j->fd) != 0) code = -errno;
    return code;
}

int rs_journal_remove(struct rs_journal *j)
{
    int code = blank(j);
    if (code == 0 && unlink(j->path) != 0) code = -errno;
    if (code == 0) code = rs_file_sync_folder(j->path);
    rs_journal_close(j);
    return code;
}
