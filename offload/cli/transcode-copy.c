/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <unistd.h>

#include "offload/cli/transcode.h"

static int size_destination(struct rs_tc *t)
{
    struct rs_file *d = &t->dst_file;
    uint64_t end = t->dst.offset + t->data_size;
    if (d->block || d->image != NULL) return 0;
    if (t->o.force && !d->created && ftruncate(d->fd, 0) != 0) return -errno;
    /* A LUKS device ends where its file ends; what is raw may lie in a larger file. */
    bool exact = t->dst.spec->kind == RS_SIDE_LUKS || d->created || t->o.force || d->size < end;
    return exact && ftruncate(d->fd, (off_t)end) != 0 ? -errno : 0;
}

static int make_state(struct rs_tc *t)
{
    if (t->o.no_sync || t->journal_path[0] == '\0') return 0;
    struct rs_journal_super super;
    rs_tc_super(t, &super);
    int code = rs_tc_check_value(t, super.check);
    const void *headers[2] = {NULL, t->dst.header};
    return code != 0 ? code : rs_journal_create(&t->journal, t->journal_path, &super, headers, false, &t->f);
}

/* The state comes before the first change of the destination: a run that dies in between can be told from no
 * run. */
static int begin(struct rs_tc *t)
{
    struct rs_file *d = &t->dst_file;
    int code = make_state(t);
    if (code == 0 && d->fd < 0) code = rs_tc_file_open(t, d, RS_FILE_WRITE | RS_FILE_CREATE);
    if (code == 0) rs_file_settle_direct(d, t->dst.offset, t->data_size);
    if (code != 0) return code;
    if (!d->created && t->dst.spec->kind == RS_SIDE_LUKS) code = rs_tc_header_block(d, t->dst.offset);
    if (code == 0) code = size_destination(t);
    if (code == 0 && d->created && t->journal.fd >= 0) code = rs_file_sync_folder(d->path);
    return code == 0 ? 0 : rs_failure_errno(&t->f, code, "prepare", d->path);
}

static int resume(struct rs_tc *t)
{
    struct rs_journal_record last;
    t->start = rs_journal_last(&t->journal, &last) ? last.next : 0;
    if (t->dst_file.size < t->journal.super.destination_size && !t->dst_file.block) {
        /* It died before the destination had its size, so nothing was copied yet. */
        if (t->start != 0)
            return rs_failure_set(&t->f, RS_EXIT_REFUSED,
                                  "%s is shorter than the interrupted run left it: remove it and "
                                  "%s to start over",
                                  t->o.dst.path, t->journal_path);
        int code = size_destination(t);
        if (code != 0) return rs_failure_errno(&t->f, code, "prepare", t->o.dst.path);
    }
    if (t->dst.spec->kind != RS_SIDE_LUKS) return 0;
    int code = rs_tc_header_block(&t->dst_file, t->dst.offset);
    return code == 0 ? 0 : rs_failure_errno(&t->f, code, "prepare", t->o.dst.path);
}

/* The data is flushed before the header makes it visible. */
static int finish(struct rs_tc *t)
{
    struct rs_file *d = &t->dst_file;
    bool sync = !t->o.no_sync;
    int code = sync ? rs_file_flush(d) : 0;
    if (code == 0 && t->dst.header != NULL) {
        uint64_t clear = d->created ? t->dst.header_len : RS_MIN(t->dst.offset, t->dst.luks.header_size);
        code = rs_tc_header_write(d, t->dst.header, t->dst.header_len, clear, sync);
    }
    if (code == 0 && sync && d->image == NULL && fsync(d->fd) != 0) code = -errno;
    if (code == 0 && sync && d->created) code = rs_file_sync_folder(d->path);
    if (code != 0) return rs_failure_errno(&t->f, code, "write", d->path);
    if (t->journal.fd >= 0) {
        code = rs_journal_remove(&t->journal);
        if (code != 0) return rs_failure_errno(&t->f, code, "remove", t->journal_path);
    }
    return 0;
}

/* After an end that was not the right one: what is there is flushed and noted, so that a later run can go on.
 */
static void keep_state(struct rs_tc *t)
{
    struct rs_journal_record record = {.next = t->done, .state = RS_JOURNAL_RUNNING};
    if (t->journal.fd >= 0 && rs_file_flush(&t->dst_file) == 0)
        (void)!rs_journal_commit(&t->journal, &record);
}

int rs_tc_copy(struct rs_tc *t)
{
    int code = t->resumed ? resume(t) : begin(t);
    if (code != 0) return code;
    struct rs_tc_pipe pipe = {
        .label = "transcode", .from = &t->src, .to = &t->dst, .session = t->session, .start = t->start};
    struct rs_tc_pipe_result result;
    code = rs_tc_pipe(t, &pipe, &result);
    t->done = result.done;
    t->bytes = result.bytes;
    t->holes = result.holes;
    if (code != 0) {
        keep_state(t);
        return code;
    }
    return finish(t);
}
