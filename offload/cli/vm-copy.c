/* SPDX-License-Identifier: Apache-2.0 */
#include "offload/cli/vm-copy.h"

#include "offload/cli/transcode.h"
#include "offload/vm/qcow2.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define HEADER_MAX (64u << 20)

void rs_vmc_side_of(const struct rs_disk *d, struct rs_vmc_side *s)
{
    bool qcow2 = rs_disk_in_qcow2(d->format);
    *s = (struct rs_vmc_side){
        .offset = d->data_offset, .unit = d->unit, .qcow2 = qcow2, .header_in_qcow2 = qcow2};
    memcpy(s->path, d->data_path, sizeof(s->path));
    if (!d->encrypted) return;
    memcpy(s->header, d->header_path, sizeof(s->header));
    if (!rs_disk_is_luks1(d->format)) return;
    memcpy(s->key.provider, d->provider, sizeof(s->key.provider));
    memcpy(s->key.key, d->key, sizeof(s->key.key));
}

/* Most of a header's room is empty: zeros stay a hole. */
static int copy_bytes(int from, int to, uint64_t at, uint64_t end)
{
    static const uint8_t zero[64 * 1024];
    uint8_t buf[sizeof(zero)];
    while (at < end) {
        size_t n = (size_t)RS_MIN(end - at, (uint64_t)sizeof(buf));
        int code = rs_pread_full(from, buf, n, at);
        if (code == 0 && memcmp(buf, zero, n) != 0) code = rs_pwrite_full(to, buf, n, at);
        if (code != 0) return code;
        at += n;
    }
    return 0;
}

static int header_in_qcow2(const char *path)
{
    char why[RS_QCOW2_WHY];
    int fd, err = rs_qcow2_luks_header_at(path, &fd, why, sizeof(why));
    if (err != 0) return err == RESEAL_ENOMEM ? -ENOMEM : -EIO;
    return fd >= 0 ? fd : -EINVAL;
}

int rs_vmc_header_copy(const char *path, bool qcow2)
{
    if (qcow2) return header_in_qcow2(path);
    char why[256];
    struct rs_disk look = {.encrypted = true};
    RS_CLOSE int from = open(path, O_RDONLY | O_CLOEXEC);
    if (from < 0) return -errno;
    if (rs_disk_look_luks(from, INT64_MAX, &look, why, sizeof(why)) != 0) return -EINVAL;
    if (look.header_size == 0 || look.header_size > HEADER_MAX) return -EFBIG;
    off_t end = lseek(from, 0, SEEK_END);
    int fd = end < 0 ? -1 : memfd_create("reseal-header", MFD_CLOEXEC);
    if (fd < 0) return -errno;
    /* Behind the last key slot nothing counts; a header that is a file of its own may end there. */
    int code = copy_bytes(from, fd, 0, RS_MIN(look.header_used, (uint64_t)end));
    /* Data begins behind the header; a file that ended before would look truncated. */
    if (code == 0 && ftruncate(fd, (off_t)RS_MAX(look.header_size, look.data_offset) + (1 << 20)) != 0)
        code = -errno;
    if (code == 0) return fd;
    close(fd);
    return code;
}

/* ---- keys --------------------------------------------------------------------------- */

struct pair {
    const struct rs_vmc_side *from, *to;
};

static int open_key(struct rs_tc *t, struct rs_tc_side *side, uint32_t use)
{
    const struct pair *p = t->open_arg;
    const struct rs_vmc_side *s = side == &t->src ? p->from : p->to;
    char why[RS_KEYSERVICE_WHY];
    RS_CLOSE int header = rs_vmc_header_copy(s->header, s->header_in_qcow2);
    if (header < 0) return rs_failure_errno(&t->f, header, "read the header in", s->header);
    int err = rs_vmc_disk_open(t->service, header, &s->key, use, &side->key, &side->luks, why, sizeof(why));
    if (err != 0) {
        int code = err == RESEAL_ETIMEDOUT || err == RESEAL_ENOSERVICE ? RS_EXIT_KEY : rs_exit_of(err);
        return rs_failure_set(&t->f, code, "%s: the disk is encrypted and a required key was not found: %s",
                              s->path, why);
    }
    if (side->luks.unit != side->spec->unit || side->luks.step != side->spec->step)
        return rs_failure_set(&t->f, RS_EXIT_FORMAT, "the header in %s says another data unit than it did",
                              s->header);
    side->has_key = true;
    return 0;
}

static void take_spec(struct rs_side_spec *spec, const struct rs_vmc_side *s, uint64_t size)
{
    *spec = (struct rs_side_spec){.kind = s->header[0] != '\0' ? RS_SIDE_XTS : RS_SIDE_PLAIN,
                                  .offset = s->offset,
                                  .size = size,
                                  .qcow2 = s->qcow2};
    memcpy(spec->path, s->path, sizeof(spec->path));
    if (spec->kind == RS_SIDE_PLAIN) return;
    spec->unit = s->unit;
    spec->step = s->unit / 512;
}

/* A destination that no state belongs to, or one that ended, is a copy that was done and not noted, or one
 * that never began. */
static void drop_leftover(const char *path)
{
    char state[PATH_MAX];
    struct rs_journal j = {.fd = -1, .io_fd = -1};
    int n = snprintf(state, sizeof(state), "%s.reseal-state", path);
    if (n <= 0 || (size_t)n >= sizeof(state)) return;
    enum rs_journal_found found = rs_journal_open(&j, state, false);
    if (found == RS_JOURNAL_THERE) rs_journal_close(&j);
    if (found == RS_JOURNAL_NONE || found == RS_JOURNAL_ENDED) (void)unlink(path);
}

int rs_vmc_copy(struct rs_vmc *c, const struct rs_vmc_side *from, const struct rs_vmc_side *to, uint64_t size)
{
    struct rs_tc *t = calloc(1, sizeof(*t));
    if (t == NULL) return rs_failure_set(&c->f, RS_EXIT_FAILED, "out of memory");
    struct pair pair = {from, to};
    t->src_file = t->dst_file = (struct rs_file){.fd = -1, .io_fd = -1};
    t->journal = (struct rs_journal){.fd = -1, .io_fd = -1};
    t->o = (struct rs_tc_options){.src_pass.fd = -1,
                                  .dst_pass.fd = -1,
                                  .has_dst = true,
                                  .keep_holes = to->qcow2,
                                  .runtime_dir = c->o.runtime_dir,
                                  .tenant = c->o.tenant,
                                  .quiet = c->o.quiet,
                                  .json = c->o.json};
    t->open_key = open_key;
    t->open_arg = &pair;
    take_spec(&t->o.src, from, size);
    take_spec(&t->o.dst, to, size);
    drop_leftover(to->path);
    rs_tc_catch_signals();
    int code = rs_tc_open(t);
    if (code == 0) code = rs_tc_copy(t);
    if (code == RS_EXIT_INTERRUPTED)
        (void)rs_failure_set(&c->f, code, "interrupted: run the same command again to go on");
    else if (code != 0)
        c->f = t->f;
    rs_tc_close(t);
    free(t);
    return code;
}

int rs_vmc_copy_around(struct rs_vmc *c, const struct rs_vmc_side *from, const struct rs_vmc_side *to,
                       uint64_t size)
{
    RS_CLOSE int in = open(from->path, O_RDONLY | O_CLOEXEC),
                 out = open(to->path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    off_t end = in < 0 ? -1 : lseek(in, 0, SEEK_END);
    if (end < 0) return rs_failure_errno(&c->f, errno, "read", from->path);
    if (out < 0) return rs_failure_errno(&c->f, errno, "open", to->path);
    uint64_t behind = from->offset + size;
    int code = copy_bytes(in, out, 0, from->offset);
    if (code == 0) code = copy_bytes(in, out, behind, (uint64_t)end);
    /* What is a hole at the end is there too. */
    if (code == 0 && ftruncate(out, end) != 0) code = -errno;
    if (code == 0 && fsync(out) != 0) code = -errno;
    return code == 0 ? 0 : rs_failure_errno(&c->f, code, "write", to->path);
}
