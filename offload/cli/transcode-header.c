/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "offload/cli/transcode.h"

#define MAGIC_LEN   6u
#define HEADER_PAGE 4096u

/* First copy, second copy of LUKS2, and what cryptsetup puts there while it re-encrypts offline. */
static const uint8_t magic_first[MAGIC_LEN] = {'L', 'U', 'K', 'S', 0xba, 0xbe};
static const uint8_t magic_second[MAGIC_LEN] = {'S', 'K', 'U', 'L', 0xba, 0xbe};
static const uint8_t magic_blocked[MAGIC_LEN] = {'L', 'U', 'K', 'S', 0xde, 0xad};
static const uint8_t magic_second_blocked[MAGIC_LEN] = {'S', 'K', 'U', 'L', 0xde, 0xad};

static bool begins_with(int fd, uint64_t at, const uint8_t magic[MAGIC_LEN])
{
    uint8_t found[MAGIC_LEN];
    return rs_pread_full(fd, found, sizeof(found), at) == 0 && memcmp(found, magic, MAGIC_LEN) == 0;
}

bool rs_tc_header_blocked(int fd)
{
    return begins_with(fd, 0, magic_blocked);
}

bool rs_tc_header_luks(int fd)
{
    return begins_with(fd, 0, magic_first);
}

int rs_tc_header_block(const struct rs_file *file, uint64_t len)
{
    bool wrote = false;
    if (begins_with(file->fd, 0, magic_first)) {
        int code = rs_pwrite_full(file->fd, magic_blocked, MAGIC_LEN, 0);
        if (code != 0) return code;
        wrote = true;
    }
    /* The second copy lies behind the first, which can be 16 KiB to 4 MiB long; libcryptsetup looks in all
     * places. */
    for (uint64_t at = 16 << 10; at <= 4 << 20 && at + MAGIC_LEN <= len; at *= 2) {
        if (!begins_with(file->fd, at, magic_second)) continue;
        int code = rs_pwrite_full(file->fd, magic_second_blocked, MAGIC_LEN, at);
        if (code != 0) return code;
        wrote = true;
    }
    return !wrote || fdatasync(file->fd) == 0 ? 0 : -errno;
}

static int clear_range(int fd, uint64_t from, uint64_t to)
{
    static const uint8_t zero[64 * 1024];
    for (uint64_t at = from; at < to;) {
        size_t n = (size_t)RS_MIN(sizeof(zero), to - at);
        int code = rs_pwrite_full(fd, zero, n, at);
        if (code != 0) return code;
        at += n;
    }
    return 0;
}

int rs_tc_header_write(const struct rs_file *file, const uint8_t *header, size_t len, uint64_t clear,
                       bool sync)
{
    size_t first = RS_MIN(len, (size_t)HEADER_PAGE);
    int code = len > first ? rs_pwrite_full(file->fd, header + first, len - first, first) : 0;
    if (code == 0) code = clear_range(file->fd, len, clear);
    if (code == 0 && sync && fdatasync(file->fd) != 0) code = -errno;
    if (code == 0) code = rs_pwrite_full(file->fd, header, first, 0);
    if (code == 0 && sync && fsync(file->fd) != 0) code = -errno;
    return code;
}

int rs_tc_header_fd(const struct rs_tc_side *side)
{
    if (side->header != NULL) {
        int fd = memfd_create("luks-header", MFD_CLOEXEC);
        if (fd < 0) return -errno;
        int code = rs_pwrite_full(fd, side->header, side->header_len, 0);
        /* Data begins behind the header; a file that ended before would look truncated. */
        if (code == 0 && ftruncate(fd, (off_t)RS_MAX(side->header_len, side->offset)) != 0) code = -errno;
        if (code == 0) return fd;
        close(fd);
        return code;
    }
    char self[64];
    snprintf(self, sizeof(self), "/proc/self/fd/%d", side->file->fd);
    int fd = open(self, O_RDONLY | O_CLOEXEC);
    if (fd < 0) fd = open(side->file->path, O_RDONLY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

static int luks_failure(struct rs_tc *t, const struct rs_tc_side *side, int error)
{
    const char *path = side->file->path;
    int fd = side->file->fd;
    switch (error) {
    case RESEAL_EPASS:
        return rs_failure_set(&t->f, RS_EXIT_KEY, "wrong pass phrase for %s: no key slot opens with it",
                              path);
    case RESEAL_ECIPHER:
        return rs_failure_set(&t->f, RS_EXIT_FORMAT,
                              "%s uses the cipher %.63s: only aes-xts-plain64 is supported", path,
                              side->luks.cipher[0] != '\0' ? side->luks.cipher : "(unknown)");
    case RESEAL_EFORMAT:
        break;
    default:
        return rs_failure_set(&t->f, rs_exit_of(error), "cannot open the LUKS header of %s: %s", path,
                              reseal_strerror(error));
    }
    if (side->header != NULL)
        return rs_failure_set(&t->f, RS_EXIT_FORMAT, "the LUKS header in the journal %s is damaged",
                              t->journal_path);
    if (rs_tc_header_blocked(fd))
        return rs_failure_set(&t->f, RS_EXIT_FORMAT,
                              "%s is being re-encrypted and its journal is not at %s: name it with --journal",
                              path, t->journal_path[0] != '\0' ? t->journal_path : "hand");
    if (rs_tc_header_luks(fd) || begins_with(fd, 16384, magic_second))
        return rs_failure_set(
            &t->f, RS_EXIT_FORMAT,
            "the LUKS header of %s is damaged or cut short: restore it (cryptsetup luksHeaderRestore)", path);
    return rs_failure_set(&t->f, RS_EXIT_FORMAT,
                          "%s is not a LUKS image (a raw disk is xts:FILE or plain:FILE)", path);
}

void rs_tc_take_luks(struct rs_tc_side *side)
{
    side->has_key = true;
    side->cipher = RESEAL_XTS;
    side->unit = side->luks.unit;
    side->step = side->luks.step;
    side->first_tweak = side->luks.first_tweak;
    side->offset = side->luks.data_offset;
}

int rs_tc_luks_key(struct rs_tc *t, struct rs_tc_side *side, const struct rs_passphrase *pass,
                   const char *what, uint32_t use)
{
    if (side->header == NULL && !rs_tc_header_luks(side->file->fd) &&
        !begins_with(side->file->fd, 16384, magic_second))
        return luks_failure(t, side, RESEAL_EFORMAT);
    RS_CLOSE int secret = -1;
    int code = 0;
    if (pass->file == NULL && pass->fd < 0) {
        bool found;
        code = rs_tc_provider_open(t, side, side == &t->src ? &t->o.from : &t->o.to, use, &found);
        if (found) return code;
    }
    code = rs_passphrase_open(pass, what, side->file->path, false, &secret, &t->f);
    if (code != 0) return code;
    RS_CLOSE int header = rs_tc_header_fd(side);
    if (header < 0) return rs_failure_errno(&t->f, header, "read the header of", side->file->path);
    side->luks.size = sizeof(side->luks);
    code = reseal_key_luks(t->service, header, secret, use, &side->key, &side->luks);
    if (code != 0) return luks_failure(t, side, code);
    rs_tc_take_luks(side);
    return 0;
}

/* The header that the service made, without the zeros at its end. */
static int take_header(struct rs_tc_side *side, int fd)
{
    off_t end = lseek(fd, 0, SEEK_END);
    if (end <= 0) return end < 0 ? -errno : -ENODATA;
    size_t len = (size_t)RS_MIN((uint64_t)end, side->offset);
    if (len == 0 || len > RS_JOURNAL_HEADER_MAX) return -EFBIG;
    uint8_t *p = malloc(len);
    if (p == NULL) return -ENOMEM;
    int code = rs_pread_full(fd, p, len, 0);
    if (code != 0) {
        free(p);
        return code;
    }
    while (len > HEADER_PAGE && p[len - 1] == 0) len--;
    side->header = p;
    side->header_len = (size_t)RS_MIN(rs_round_up(len, HEADER_PAGE), RS_MIN((uint64_t)end, side->offset));
    return 0;
}

int rs_tc_made_header(struct rs_tc *t, const struct reseal_luks_format *format, int header)
{
    struct rs_tc_side *side = &t->dst;
    rs_tc_take_luks(side);
    if (format->data_offset != 0 && side->offset != format->data_offset)
        return rs_failure_set(&t->f, RS_EXIT_FAILED,
                              "the new header does not fit before the data of %s: keep the LUKS "
                              "version (--luks-version)",
                              t->o.dst.path);
    int code = take_header(side, header);
    return code == 0 ? 0 : rs_failure_errno(&t->f, code, "take the new header of", t->o.dst.path);
}

int rs_tc_luks_format(struct rs_tc *t, uint64_t data_offset, uint32_t use)
{
    struct rs_tc_side *side = &t->dst;
    struct reseal_luks_format format = t->o.format;
    format.data_offset = data_offset;
    format.data_size = t->data_size;
    if (t->o.to.provider != NULL) return rs_tc_provider_format(t, &format, use);
    RS_CLOSE int secret = -1;
    int code = rs_passphrase_open(&t->o.dst_pass, "destination", t->o.dst.path, true, &secret, &t->f);
    if (code != 0) return code;
    RS_CLOSE int header = -1;
    side->luks.size = sizeof(side->luks);
    code = reseal_luks_format(t->service, &format, secret, use, &side->key, &side->luks, &header);
    if (code != 0)
        return rs_failure_set(&t->f, rs_exit_of(code), "cannot make a LUKS header for %s: %s", t->o.dst.path,
                              reseal_strerror(code));
    return rs_tc_made_header(t, &format, header);
}
